"""Which block to use: bounds, ranks, reasons, trade-offs."""

from dataclasses import replace

import pytest
from samples import DW_PW, DW_RPW_RPW, EMPTY, GC_PW, SMALL, WIDER

from ifspace.block import Block
from ifspace.catalogue import Catalogue, best, ranked
from ifspace.catalogue.choose import PeakMemory, next_better, peak_bytes, together, trade_offs
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.floors import Floors
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
    latencies = {block: Latency.of(ms) for block, ms in times.items()}
    choices = best(SMALL, by="latency", latency=lambda sized, _: latencies.get(str(sized.block)))
    assert [str(design.block) for design, _ in choices] == [
        "(PW+DW+PW)x2",
        "DW+PW",
        "GC(8)+PW",
        "DW+RPW(4,0)+RPW(4,0)",
    ]
    # Least of those for its widths.
    assert [why.startswith("least latency; ") for _, why in choices] == [True, True, True, False]
    with pytest.raises(SettingError, match="nothing says how long the blocks take"):
        best(SMALL, by="latency")


def test_a_bound_on_latency_leaves_out_what_is_not_known():
    times = {"DW+PW": 0.5, "GC(8)+PW": 0.75, "(PW+DW+PW)x2": 0.125}

    def latency(sized, stride):
        return Latency.of(times[str(sized.block)]) if str(sized.block) in times else None

    blocks = [str(x.block) for x, _ in best(SMALL, latency=latency, latency_ms=0.5)]
    assert blocks == ["DW+PW", "(PW+DW+PW)x2"]
    with pytest.raises(SettingError, match=r"nothing says how long .* got a bound without one"):
        best(SMALL, latency_ms=0.5)


def test_what_is_slower_and_no_better_is_dominated():
    """DW+RPW+RPW has fewer parameters; by latency DW+PW is no longer dominated, and GC+PW is."""
    times = {"DW+PW": 0.5, "GC(8)+PW": 0.75, "DW+RPW(4,0)+RPW(4,0)": 0.625}
    choices = best(SMALL, channels=16, latency=lambda sized, _: Latency.of(times[str(sized.block)]))
    reasons = {str(design.block): reason for design, reason in choices}
    assert "not dominated" in reasons["DW+RPW(4,0)+RPW(4,0)"]
    assert reasons["DW+PW"].startswith("least latency; fewest activations and layers; not dom")
    assert "dominated by DW+PW" in reasons["GC(8)+PW"]


def test_peak_memory_is_a_bound_in_bytes_and_an_amount():
    (design,) = {x for x in SMALL.designs if str(x.block) == "DW+PW"}
    # The input and the output of a layer at 16 channels, four bytes each.
    assert peak_bytes(design, 8, "fp32") == 2 * 16 * 8**2 * 4
    assert peak_bytes(design, 8, "int8") == 2 * 16 * 8**2
    for most, count in ((8192, 3), (8191, 0)):
        assert len(best(SMALL, channels=16, peak_memory=PeakMemory(most, 8, "fp32"))) == count
    assert best(SMALL, by="peak-memory")[-1][0].channels == 32
    assert [x.least_fan_in for x, _ in best(SMALL, by="least-fan-in")] == [16, 16, 4, 2]


def test_several_catalogues_are_one():
    first, second = (
        Catalogue(SMALL.settings[n : n + 1], SMALL.funnels[n : n + 1], SMALL.designs[k])
        for n, k in ((0, slice(3)), (1, slice(3, None)))
    )
    assert together([first, second]) == SMALL
    assert together([first, SMALL, second]) == SMALL


@pytest.mark.slow
def test_floors_that_the_rows_cannot_answer_are_refused_and_solved_anew():
    """At 96 to 192 channels, stride 2, DW+GPW+SH+GPW has 3,552 parameters either way.

    The row of the catalogue reads 6 channels in GPW(16), and is no answer; another choice is.
    """
    about = {"channels": 96, "out_channels": 192, "stride": 2, "max_len": 4}
    setting = EnumerationSetting(kinds="DW,GPW,SH", **about)
    stored = enumerate_designs([setting])
    row = next(x for x in stored.designs if x.composition == "DW+GPW+SH+GPW")
    assert (row.params, row.least_fan_in) == (3552, 6)
    floors = Floors(least_fan_in=8)
    with pytest.raises(SettingError, match="floors that the catalogue was not made for") as caught:
        best(stored, floors=floors)
    message = str(caught.value)
    assert "8 channels per filter, which 2 of 8 entries lack" in message
    command = message.partition("`")[2].partition("`")[0]
    # The command asks the same of the search, and the floors.
    options = {"--max-len 4", "--channels 96", "--kinds DW,GPW,SH", "--out-channels 192"}
    options |= {"--stride 2", "--least-fan-in 8", "--out FILE.parquet"}
    assert {f"--{part}" for part in command.split(" --")[1:]} == options
    solved = enumerate_designs([replace(setting, floors=floors)])
    choices = best(solved, floors=floors)
    chosen = next(x for x, _ in choices if x.composition == "DW+GPW+SH+GPW")
    assert (chosen.params, chosen.least_fan_in) == (3552, 8)
    assert all(design.least_fan_in >= 8 for design, _ in choices)
    # Floors that every row has rule nothing out.
    assert dict(best(stored, floors=Floors(least_fan_in=2))).keys() == dict(best(stored)).keys()
    with pytest.raises(SettingError, match="floors that the catalogue was not made for"):
        best(solved, floors=Floors(least_fan_in=2))


@pytest.mark.slow
def test_a_front_answers_for_every_least_fan_in():
    """Its rows have the cheapest choice that enumerating anew with the floor finds."""
    about = {"channels": 16, "max_len": 3}
    front = enumerate_designs([EnumerationSetting(front=True, **about)])
    for least_fan_in in (2, 4, 8, 16):
        floors = Floors(least_fan_in=least_fan_in)
        solved = enumerate_designs([EnumerationSetting(floors=floors, **about)])
        cheapest = {}
        for design, _ in best(front, floors=floors, every_row=True):
            cheapest.setdefault(design.composition, design.params)
        assert cheapest == {x.composition: x.params for x in solved.designs}
    with pytest.raises(SettingError, match="floors that the catalogue was not made for"):
        best(front, floors=Floors(least_fan_in=4, most_groups=2))


def _costs(design, latency):
    return (
        design.params,
        design.macs_per_pixel,
        design.activations_per_pixel,
        design.layers,
        design.peak_per_pixel,
        -design.least_fan_in,
        latency(design.sized, design.stride).ms,
    )


@pytest.mark.slow
def test_the_next_better_is_the_nearest_that_nothing_beats():
    designs = enumerate_designs([EnumerationSetting(channels=16, max_len=4)]).designs

    def latency(sized, stride):
        return Latency.of(0.25 * len(sized.layers) + 0.001 * (sized.params % 97))

    names = ["params", "macs", "activations", "layers", "peak-memory", "least-fan-in", "latency"]
    costs = {design: _costs(design, latency) for design in designs}
    unbeaten = [
        x
        for x in designs
        if not any(
            all(a <= b for a, b in zip(costs[y], costs[x], strict=True)) and costs[y] != costs[x]
            for y in designs
        )
    ]
    for design, trades in zip(designs, next_better(designs, designs, latency), strict=True):
        nearest = {}
        for index, name in enumerate(names):
            better = [costs[x][index] for x in unbeaten if costs[x][index] < costs[design][index]]
            if better:
                nearest[name] = max(better)
        got = {name: trade.changes[name][1] for trade in trades for name in trade.amounts}
        expected = {n: -v if n == "least-fan-in" else v for n, v in nearest.items()}
        assert got == expected
        for trade in trades:
            pairs = zip(names, costs[design], costs[trade.design], strict=True)
            assert set(trade.worse) == {name for name, here, there in pairs if there > here}
            assert set(trade.amounts) <= set(trade.better)
