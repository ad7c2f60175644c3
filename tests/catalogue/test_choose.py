"""Which block to use: bounds, ranks, reasons, trade-offs."""

from dataclasses import replace

import pytest
from samples import DW_PW, DW_RPW_RPW, EMPTY, GC_PW, SMALL, WIDER

from ifspace.block import Block
from ifspace.catalogue import Catalogue, best, ranked
from ifspace.catalogue.choose import trade_offs
from ifspace.errors import SettingError
from ifspace.latency import Latency


def chosen(**bounds: object) -> list[str]:
    return [design.composition for design, _ in best(SMALL, **bounds)]  # type: ignore[arg-type]


def test_the_cheapest_comes_first() -> None:
    assert chosen() == ["DW+RPW+RPW", "DW+PW", "GC+PW", "(PW+DW+PW)x2"]
    assert chosen(by="activations")[0] == "DW+PW"
    assert chosen(by="layers")[0] == "DW+PW"


def test_bounds_include_their_value() -> None:
    assert chosen(params=400) == ["DW+RPW+RPW", "DW+PW"]
    assert chosen(params=399) == ["DW+RPW+RPW"]
    assert chosen(activations=32) == ["DW+PW", "GC+PW"]
    assert chosen(macs=543, layers=2) == ["DW+PW"]
    assert chosen(params=0) == []
    assert best(EMPTY) == ()


def test_only_the_kinds_that_may_be_used() -> None:
    assert chosen(kinds=("dw", "PW")) == ["DW+PW", "(PW+DW+PW)x2"]
    assert chosen(kinds=("PW",)) == []


def test_a_width_can_be_picked() -> None:
    assert chosen(channels=32) == ["(PW+DW+PW)x2"]


def test_every_entry_has_a_reason(snapshot: object) -> None:
    reasons = dict(best(SMALL))
    assert list(reasons) == [DW_RPW_RPW, DW_PW, GC_PW, WIDER]
    assert {str(design.block): reason for design, reason in reasons.items()} == snapshot


def test_no_design_is_dominated_by_one_that_may_not_be_used() -> None:
    rolling = Block.parse("DW+RPW(2,0)")
    better = replace(DW_PW, composition="DW+RPW", block=rolling, params=100, macs_per_pixel=100)
    worse = replace(DW_PW, dominated_by="DW+RPW")
    catalogue = Catalogue((), (), (worse, better))
    assert dict(best(catalogue))[worse].endswith("dominated by DW+RPW")
    assert best(catalogue, kinds=("DW", "PW"))[0][1].endswith("; not dominated within these bounds")
    # A bound that rules nothing out does not narrow what is compared.
    assert "; not dominated;" in best(catalogue, params=10**6)[0][1]


def test_ties_keep_the_order_of_the_catalogue() -> None:
    twin = replace(DW_PW, composition="PW+DW")
    assert ranked([twin, DW_PW]) == (twin, DW_PW)
    assert ranked([DW_PW, twin, DW_RPW_RPW]) == (DW_RPW_RPW, DW_PW, twin)


def test_of_designs_that_tie_those_without_overlap_and_without_rpw_come_first() -> None:
    blocks = ("DW+RPW(8,1/2)+GPW(8)", "DW+RPW(8,0)+RPW(8,0)", "DW+RPW(8,0)+GPW(8)", "DW+GPW(8)")
    tied = [replace(DW_PW, block=Block.parse(text)) for text in blocks]
    order = [str(design.block) for design in ranked(tied)]
    assert order == ["DW+GPW(8)", "DW+RPW(8,0)+GPW(8)", "DW+RPW(8,0)+RPW(8,0)", blocks[0]]


def test_trade_offs_are_the_costs_that_nothing_beats() -> None:
    twin = replace(DW_PW, composition="PW+DW", block=Block.parse("PW+DW"))
    assert trade_offs([GC_PW, twin, DW_PW, DW_RPW_RPW]) == ((DW_RPW_RPW, 1), (twin, 2))


def test_wrong_questions_are_an_error() -> None:
    with pytest.raises(SettingError, match="bound on params out of range: got -1"):
        best(SMALL, params=-1)
    with pytest.raises(SettingError, match="unknown kind of convolution: got 'XY'"):
        best(SMALL, kinds=("XY",))
    with pytest.raises(SettingError, match="unknown amount: got 'speed'; allowed: params, macs"):
        best(SMALL, by="speed")


def test_a_width_that_the_catalogue_lacks_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"got 99; allowed: 16, 32; choose one of them"):
        best(SMALL, channels=99)
    assert best(EMPTY, channels=99) == ()


def test_the_reference_is_not_a_kind_to_choose() -> None:
    with pytest.raises(SettingError, match=r"got 'QQ'; allowed: PW, GC, DW, GPW, RPW, SH; "):
        best(SMALL, kinds=("QQ",))


def test_no_more_than_the_limit() -> None:
    every = best(SMALL)
    assert best(SMALL, limit=2) == every[:2]
    assert best(SMALL, limit=100) == every
    with pytest.raises(SettingError, match="limit"):
        best(SMALL, limit=-1)


def test_by_latency_the_unknown_come_last_and_ties_go_by_parameters():
    times = {"DW+PW": 0.5, "GC(8)+PW": 0.5, "(PW+DW+PW)x2": 0.1}
    known = {block: Latency.of(ms) for block, ms in times.items()}
    choices = best(SMALL, by="latency", latency=lambda sized, _: known.get(str(sized.block)))
    assert [str(design.block) for design, _ in choices] == [
        "(PW+DW+PW)x2",
        "DW+PW",
        "GC(8)+PW",
        "DW+RPW(4,0)+RPW(4,0)",
    ]
    assert [why.startswith("least latency; ") for _, why in choices] == [True, False, False, False]
    with pytest.raises(SettingError, match="nothing says how long the blocks take"):
        best(SMALL, by="latency")
