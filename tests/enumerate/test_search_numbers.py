"""The reference numbers of docs/concepts.md."""

from pathlib import Path

import pytest

from ifspace.catalogue import Design, Funnel, load
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs

RESULTS = Path(__file__).parents[2] / "results"
FOG = ("GC", "DW", "PW", "GPW")
FIVE = ("PW", "GC", "DW", "GPW", "SH")


def enumerated(**arguments: object) -> tuple[Funnel, dict[str, Design]]:
    catalogue = enumerate_designs([EnumerationSetting(**arguments)], jobs=1)
    (funnel,) = catalogue.funnels
    designs = {design.composition: design for design in catalogue.designs}
    assert funnel.survivors == sum(funnel.by_length) == len(designs) == len(catalogue.designs)
    by_layers = [design.layers for design in catalogue.designs]
    assert list(funnel.by_length) == [by_layers.count(n + 1) for n in range(len(funnel.by_length))]
    return funnel, designs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "patterns", "kept"),
    [
        (None, "whole", (6, 30, 210, 1260, 7770, 46410)),
        (None, "any", (6, 30, 150, 720, 3480, 16680)),
        (None, "keep", (6, 36, 216, 1296, 7776, 46656)),
        (FOG, "whole", (4, 12, 60, 240, 1020, 4020)),
        (FOG, "any", (4, 12, 36, 96, 264, 696)),
    ],
)
def test_compositions_kept_in_each_mode_of_patterns(
    kinds: tuple[str, ...] | None, patterns: str, kept: tuple[int, ...]
) -> None:
    choice = {} if kinds is None else {"kinds": kinds}
    funnel, _ = enumerated(channels=8, patterns=patterns, **choice)
    assert funnel.after_patterns_by_length == kept
    assert funnel.after_patterns == sum(kept)
    assert funnel.compositions == (55986 if kinds is None else 5460)


@pytest.mark.parametrize(
    ("channels", "survivors"),
    [(8, (0, 5, 17, 71)), (16, (0, 5, 17, 74)), (32, (0, 5, 17, 74)), (64, (0, 5, 17, 74))],
)
def test_survivors_of_quality_and_compactness(channels: int, survivors: tuple[int, ...]) -> None:
    funnel, designs = enumerated(channels=channels, max_len=4)
    assert funnel.by_length == survivors
    assert list(designs)[:5] == ["PW+GC", "PW+DW", "GC+PW", "DW+PW", "RPW+GC"]


@pytest.mark.parametrize(
    ("rpw_order", "rpw_gc"),
    [
        ("rolling", "RPW(2,0)+GC(32)"),
        # Blocked windows without overlap are groups, which GC(32) of groups sees nothing new of.
        ("blocked", "RPW(4,33/100,blocked)+GC(8)"),
        ("both", "RPW(2,0)+GC(32)"),
    ],
)
def test_as_many_survive_in_each_order_up_to_four_layers(rpw_order: str, rpw_gc: str) -> None:
    funnel, designs = enumerated(channels=64, max_len=4, rpw_order=rpw_order)
    assert funnel.by_length == (0, 5, 17, 74)
    assert str(designs["RPW+GC"].block) == rpw_gc


@pytest.mark.slow
@pytest.mark.parametrize(("rpw_order", "six"), [("rolling", 776), ("blocked", 777), ("both", 777)])
def test_survivors_of_up_to_six_layers_in_each_order(rpw_order: str, six: int) -> None:
    funnel, _ = enumerated(channels=64, rpw_order=rpw_order)
    assert funnel.by_length == (0, 5, 17, 74, 231, six)


@pytest.mark.parametrize("channels", [12, 24])
def test_more_survive_where_groups_do_not_nest(channels: int) -> None:
    assert enumerated(channels=channels, max_len=4)[0].survivors > 96


def test_survivors_without_the_rolling_kind() -> None:
    assert enumerated(channels=16, kinds=FIVE)[0].by_length == (0, 4, 2, 10, 14, 30)


def test_four_survive_of_the_four_kinds_without_permutation() -> None:
    funnel, designs = enumerated(channels=16, kinds=FOG)
    assert funnel.survivors == 4
    assert "DW+PW" in designs


@pytest.mark.slow
def test_survivors_of_two_copies() -> None:
    funnel, designs = enumerated(channels=16, max_len=4, repeats=2)
    assert funnel.by_length == (0, 4, 6, 24)
    assert "(DW+RPW)x2" in designs
    assert enumerated(channels=64, max_len=4, repeats=2)[0].by_length == (0, 4, 8, 42)


def test_survivors_of_early_stop_with_free_permutation() -> None:
    at = {"kinds": FOG, "rule": "early-stop", "permutation": "free"}
    funnel, designs = enumerated(channels=16, **at)
    assert funnel.by_length == (0, 6, 12, 16, 12, 0)
    narrow = enumerated(channels=16, bottleneck="1/4", **at)[1]
    four = {"DW+PW", "GC+GPW", "PW+DW+PW", "GPW+DW+GPW"}
    assert four <= designs.keys() | narrow.keys()
    assert "PW+DW+PW" in narrow
    assert "PW+DW+PW" not in designs


@pytest.mark.slow
@pytest.mark.parametrize(("compact", "survivors"), [("single", 196), ("subset", 191)])
def test_designs_of_five_layers_when_one_layer_or_any_may_go(compact: str, survivors: int) -> None:
    funnel, designs = enumerated(channels=8, max_len=5, compact=compact)
    assert funnel.by_length[4] == survivors
    # The flag says the same; where it is false another choice of parameters may still be.
    assert all(design.irreducible for design in designs.values()) == (compact == "subset")


@pytest.mark.parametrize(("channels", "compact"), [(12, True), (16, False), (32, True)])
def test_clcnets_block_is_compact_at_some_widths_only(channels: int, compact: bool) -> None:
    _, designs = enumerated(channels=channels, kinds=("GC", "SH", "GPW"), max_len=3, repeats=2)
    assert ("(GC+SH+GPW)x2" in designs) == compact


def test_two_to_four_mixing_layers_tie_at_sixteen_channels() -> None:
    _, designs = enumerated(channels=16, kinds=("PW", "DW", "GPW", "RPW", "SH"), max_len=6)
    assert designs["DW+PW"].params == 400
    tied = [
        "DW+RPW+RPW",
        "DW+RPW+RPW+RPW",
        "DW+RPW+RPW+RPW+RPW",
        "DW+GPW+SH+GPW",
        "DW+GPW+SH+GPW+SH+GPW",
    ]
    assert {designs[name].params for name in tied} == {272}
    assert min(design.params for design in designs.values()) == 272


def test_minima_at_sixty_four_channels() -> None:
    _, designs = enumerated(channels=64, kinds=("PW", "DW", "RPW"), max_len=7)
    rolling = ["DW" + "+RPW" * n for n in range(2, 7)]
    assert designs["DW+PW"].params == 4672
    assert [designs[name].params for name in rolling] == [1600, 1344, 1344, 1344, 1344]
    assert str(designs["DW+RPW+RPW"].block) == "DW+RPW(8,0)+RPW(8,0)"
    assert str(designs["DW+RPW+RPW+RPW"].block) == "DW+RPW(16,0)+RPW(16,0)+RPW(16,0)"
    grouped = enumerated(channels=64, kinds=("GC", "SH", "GPW"), max_len=3)[1]["GC+SH+GPW"]
    assert grouped.params == 3200
    assert str(grouped.block).startswith("GC(32)+SH(")
    assert str(grouped.block).endswith("+GPW(2)")


def test_an_inverted_residual_comes_in_by_a_wide_bottleneck() -> None:
    _, designs = enumerated(channels=16, kinds=("PW", "DW"), max_len=3, bottleneck=4)
    assert designs["PW+DW+PW"].params == 64 * (16 + 16 + 9)


def test_a_narrow_bottleneck_has_the_parameters_of_its_closed_form() -> None:
    _, designs = enumerated(channels=32, out_channels=64, max_len=4, bottleneck="1/4")
    assert designs["PW+DW+PW"].params == 16 * (32 + 64 + 9)
    assert designs["PW+DW+PW"].field == (3, 32)
    plain = enumerated(channels=32, out_channels=64, max_len=4)[1]
    assert designs["GPW+SH+DW+GPW"].params < plain["GPW+SH+DW+GPW"].params


def test_grouped_convolutions_that_are_depthwise_at_their_cheapest() -> None:
    _, designs = enumerated(channels=16, max_len=3)
    assert designs["GC+PW"].same_as == "DW+PW"
    assert designs["PW+GC"].same_as == "PW+DW"
    assert designs["DW+PW"].same_as is designs["DW+RPW+RPW"].same_as is None


@pytest.mark.slow
def test_the_catalogue_at_sixty_four_channels_is_the_one_in_results() -> None:
    catalogue = enumerate_designs([EnumerationSetting()], jobs=1)
    assert load(RESULTS / "catalogue-64.parquet") == catalogue


def test_ratios_and_published_names() -> None:
    _, designs = enumerated(channels=64, out_channels=128, max_len=2)
    block = designs["DW+PW"]
    assert block.params_ratio == pytest.approx(1 / 128 + 1 / 9, rel=1e-15)
    assert "MobileNet" in block.published_as
    assert (block.channels, block.out_channels, block.field) == (64, 128, (3, 64))
