"""What a candidate is, and the columns that say it."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from samples import DW_PW, DW_RPW_RPW, EMPTY, GC_PW, SMALL, WIDER

from ifspace.bench.blocks import (
    ANCHORS,
    BASELINES,
    NAMES,
    SAMPLE,
    BlockShape,
    baselines_at,
    calibration,
    catalogue_shape,
    designs_for,
    find_baselines,
    neighbours,
    overlaps_of,
    reshaped,
    select,
)
from ifspace.bench.rows import COLUMNS, start_row
from ifspace.catalogue import Catalogue
from ifspace.catalogue.design import PUBLISHED
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import BlockError, SettingError
from ifspace.reach import channel_field


def test_a_row_starts_with_what_was_measured(block, here, machine) -> None:
    candidate = block("PW+DW+PW", 16, 32, stride=2, inside=2)
    row = start_row(machine, candidate.columns(here, "forward"))
    assert tuple(row) == COLUMNS
    assert row["case"] == "16 to 32 channels, side 6, stride 2, plain style, 1 thread"
    assert row["candidate"] == "PW+DW+PW, bottleneck 2"
    assert [row[name] for name in ("N", "C", "F", "H", "W")] == [2, 16, 32, 6, 6]
    assert (row["device"], row["torch"], row["date"]) == ("cpu-test", "2.13.0", "2026-11-21")


def test_shapes_are_those_of_the_module(block, here) -> None:
    candidate = block("DW+PW", 16, 24, stride=2)
    module = here.build(candidate)
    assert module(here.draw(*candidate.in_shape)).shape == candidate.out_shape
    assert candidate.macs == 2 * 6 * 6 * (9 * 16 + 16 * 24)


def test_a_calibration_and_a_card_say_so(block, here) -> None:
    candidate = block("DW+PW", calibrates=True)
    assert candidate.case(here).startswith("calibration: 16 to 16 channels")
    assert candidate.key == block("DW+PW").key
    on_card = replace(here, device=torch.device("cuda"), threads=2)
    assert "thread" not in candidate.case(on_card)
    assert candidate.case(replace(here, threads=2)).endswith("2 threads")


@pytest.mark.parametrize(("layout", "last"), [("channels_last", True), ("nchw", False)])
def test_maps_and_weights_lie_in_the_layout(layout: str, last: bool, block, here) -> None:
    there = replace(here, layout=layout, dtype="bf16")
    module = there.build(block("CONV"))
    x = there.draw(2, 16, 5, 5)
    y = module(x)
    for maps in (x, module.layer0.weight, y):
        assert maps.is_contiguous(memory_format=torch.channels_last) is last
        assert maps.dtype == torch.bfloat16


def test_what_is_drawn_is_drawn_again(block, here) -> None:
    state = torch.random.get_rng_state()
    first, second = (here.build(block("PW")).layer0.weight for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, here.build(block("PW"), seed=1).layer0.weight)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(here.draw(1, 2, 3, 3), here.draw(1, 2, 3, 3, seed=1))


def sized_baseline(name: str, channels: int, out: int | None = None):
    (baseline,) = find_baselines([name])
    return baseline.size(channels, out or channels)


def test_every_named_block_is_there() -> None:
    assert NAMES == ("conv", "dw+pw", "shufflenet", "clcnet", "resnext", "inverted")


@pytest.mark.parametrize(
    ("name", "composition"),
    [
        ("dw+pw", "DW+PW"),
        ("shufflenet", "GPW+SH+DW+GPW"),
        ("clcnet", "GC+SH+GPW"),
        ("inverted", "PW+DW+PW"),
    ],
)
def test_published_words_are_those_of_the_catalogue(name: str, composition: str) -> None:
    assert str(sized_baseline(name, 64).block.composition) == composition
    assert composition in {each.composition for each in PUBLISHED}


def test_conv_is_the_convolution() -> None:
    assert sized_baseline("conv", 64, 128).params == 9 * 64 * 128


@pytest.mark.parametrize(("channels", "groups"), [(240, 3), (64, 4), (8, 2), (272, 4)])
def test_a_shufflenet_unit_is_a_quarter_wide_inside(channels: int, groups: int) -> None:
    sized = sized_baseline("shufflenet", channels)
    assert [layer.c_out for layer in sized.layers] == [channels // 4] * 3 + [channels]
    assert [layer.layer.groups for layer in sized.layers] == [groups, groups, None, groups]


def test_a_resnext_bottleneck_has_groups_of_four_up_to_32() -> None:
    # [ResNeXt] Table 1, conv2: 256 to 128 to 256 channels, C = 32, 4d.
    wide = sized_baseline("resnext", 256)
    assert str(wide.block) == "PW+GC(32)+PW"
    assert [layer.c_out for layer in wide.layers] == [128, 128, 256]
    assert wide.params == 256 * 128 + 128 * 4 * 9 + 128 * 256
    assert str(sized_baseline("resnext", 64).block) == "PW+GC(8)+PW"


def test_an_inverted_residual_is_six_times_as_wide_inside() -> None:
    sized = sized_baseline("inverted", 24)
    assert sized.bottleneck == Fraction(6)
    assert sized.params == 24 * 144 + 9 * 144 + 144 * 24
    # [MobileNetV2] Table 1: six times what enters, whatever leaves.
    wider = sized_baseline("inverted", 16, 32)
    assert [layer.c_out for layer in wider.layers] == [96, 96, 32]


def test_clcnet_has_the_cheapest_groups_of_full_field() -> None:
    sized = sized_baseline("clcnet", 64)
    assert sized.params == 3200
    assert channel_field(sized.layers) == 64


def test_what_does_not_fit_says_so() -> None:
    for name in ("shufflenet", "clcnet"):
        with pytest.raises(BlockError, match="13"):
            sized_baseline(name, 13)


def test_blocks_are_baselines_too_and_doubles_are_one() -> None:
    found = find_baselines(["DW+PW", "gc(4)+sh(4)+pw", "Conv", "conv", "GC(4)+SH(4)+PW"])
    assert [each.title for each in found] == ["MobileNet", "GC(4)+SH(4)+PW", "CONV(3)"]
    assert found[1].size(16, 32).params == 16 * 4 * 9 + 16 * 32


def test_anything_else_is_refused() -> None:
    with pytest.raises(SettingError, match="no such baseline: got 'vgg'; allowed: conv, dw"):
        find_baselines(["vgg"])
    assert len({each.name for each in BASELINES}) == len(BASELINES)


HOME = BlockShape(16, 16, 8, 2)


def blocks(catalogue: Catalogue, top: int, by: str, place: BlockShape) -> list[str]:
    return [each.name for each in select(catalogue, top, by, place).candidates]


def test_the_best_come_first_by_each_amount() -> None:
    assert blocks(SMALL, 2, "params", HOME) == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    assert blocks(SMALL, 2, "activations", HOME) == ["DW+PW", "GC(8)+PW"]
    assert blocks(SMALL, 1, "macs", HOME) == ["DW+RPW(4,0)+RPW(4,0)"]
    # GC+PW is no better than DW+PW in anything.
    assert blocks(SMALL, 9, "pareto", HOME) == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    forgetful = replace(SMALL, designs=(replace(GC_PW, dominated_by=None), DW_PW))
    assert blocks(forgetful, 9, "pareto", HOME) == ["DW+PW"]
    with pytest.raises(SettingError, match=r"unknown amount: got 'speed'; allowed: params, macs"):
        select(SMALL, 1, "speed", HOME)


def test_designs_at_home_keep_their_rows() -> None:
    chosen = select(SMALL, 3, "params", HOME)
    assert [each.design for each in chosen.candidates] == [DW_RPW_RPW, DW_PW, GC_PW]
    assert (chosen.solved, chosen.left_out) == (0, ())
    (wider,) = select(SMALL, 3, "params", BlockShape(32, 64, 8, 2)).candidates
    assert (wider.design, wider.name) == (WIDER, "(PW+DW+PW)x2, bottleneck 1/4")


@pytest.mark.parametrize("place", [BlockShape(24, 48, 8, 2), BlockShape(16, 16, 8, 2, 2)])
def test_elsewhere_groups_cost_no_more_than_what_an_enumeration_there_finds(
    place: BlockShape,
) -> None:
    home = enumerate_designs([EnumerationSetting(channels=16, max_len=3)])
    there = enumerate_designs(
        [
            EnumerationSetting(
                channels=place.channels,
                out_channels=place.out_channels,
                max_len=3,
                stride=place.stride,
            )
        ]
    )
    least = {each.composition: each.params for each in there.designs}
    chosen = select(home, 99, "params", place)
    assert chosen.solved == len(chosen.candidates) >= 10
    found = {str(each.sized.block.composition): each for each in chosen.candidates}
    # An enumeration asks for more, that no layer can go: a few blocks cost more there.
    more = {name: least[name] - each.sized.params for name, each in found.items()}
    assert min(more.values()) == 0
    assert sum(each > 0 for each in more.values()) <= 4
    amounts = [each.sized.params for each in chosen.candidates]
    assert amounts == sorted(amounts)
    for each in chosen.candidates:
        assert channel_field(each.sized.layers) == place.channels
        assert each.shapes == place.shapes
        assert each.design is None


def test_what_has_no_groups_there_is_left_out_and_the_next_is_taken() -> None:
    chosen = select(SMALL, 1, "params", BlockShape(13, 13, 8, 2))
    assert [each.name for each in chosen.candidates] == ["DW+PW"]
    ((name, why),) = chosen.left_out
    assert name == "DW+RPW+RPW"
    assert why.startswith("no groups with the full field: got DW+RPW+RPW from 13 to 13")


def test_a_design_moves_with_its_bottleneck_and_kernel() -> None:
    (wider,) = select(SMALL, 1, "params", BlockShape(32, 64, 8, 2)).candidates
    there = reshaped(wider, SMALL, BlockShape(8, 16, 4, 2), "params")
    assert (there.name, there.sized.channels, there.side) == ("(PW+DW+PW)x2, bottleneck 1/4", 8, 4)


def test_the_place_of_a_catalogue_is_that_of_its_first_design() -> None:
    assert catalogue_shape(SMALL, 8, 2) == HOME
    assert HOME.shapes == ((2, 16, 8, 8), (2, 16, 8, 8))
    assert BlockShape(16, 24, 8, 2, 2).shapes == ((2, 16, 16, 16), (2, 24, 8, 8))
    with pytest.raises(SettingError, match=r"nothing of this catalogue .* an empty one"):
        catalogue_shape(EMPTY, 8, 2)
    flat = replace(SMALL, designs=(replace(DW_PW, dims=1),))
    with pytest.raises(SettingError, match="1 dimension"):
        catalogue_shape(flat, 8, 2)


def test_designs_of_other_places_are_not_compared() -> None:
    assert set(designs_for(SMALL, BlockShape(7, 7, 8))) == {GC_PW, DW_PW, DW_RPW_RPW}
    assert designs_for(SMALL, BlockShape(32, 64, 8)) == [WIDER]
    assert overlaps_of(SMALL, DW_PW) == SMALL.settings[0].overlaps


def test_baselines_that_do_not_fit_are_left_out() -> None:
    found = baselines_at(find_baselines(["conv", "shufflenet"]), BlockShape(9, 9, 8, 2))
    assert [each.provider for each in found.candidates] == ["baseline: CONV(3)"]
    assert [name for name, _ in found.left_out] == ["ShuffleNet unit"]
    strided = baselines_at(find_baselines(["dw+pw", "PW+PW"]), BlockShape(8, 8, 8, 2, 2))
    assert [each.stride for each in strided.candidates] == [2]
    assert "no layer can hold the stride" in strided.left_out[0][1]


@pytest.mark.parametrize("name", ["channels", "side", "batch", "stride"])
def test_places_have_whole_numbers(name: str) -> None:
    with pytest.raises((SettingError, BlockError), match=name):
        replace(HOME, **{name: 0})


PLACE = BlockShape(64, 64, 16, 2)
CATALOGUE = enumerate_designs([EnumerationSetting(max_len=4)])


def test_the_sample_is_here_and_apart_from_what_is_fitted_to() -> None:
    found = calibration(CATALOGUE, PLACE, neighbours(PLACE))
    assert len(found.sample) == SAMPLE
    assert {each.shapes for each in found.sample} == {PLACE.shapes}
    assert not {each.key for each in found.sample} & {each.key for each in found.fit}
    here = [each for each in found.fit if each.shapes == PLACE.shapes]
    assert len(here) == len(ANCHORS)
    assert all(each.calibrates for each in (*found.fit, *found.sample))
    elsewhere = [each for each in found.fit if each.shapes != PLACE.shapes]
    assert len({each.shapes for each in elsewhere}) == 3
    for each in elsewhere:
        assert channel_field(each.sized.layers) == each.sized.channels


def test_the_sample_is_the_same_again_and_leaves_out_what_it_is_told_to() -> None:
    first, second = (calibration(CATALOGUE, PLACE, ()) for _ in range(2))
    assert first == second
    excluded = frozenset(each.name for each in (*first.sample, *first.fit))
    other = calibration(CATALOGUE, PLACE, (), excluded=excluded)
    assert not excluded & {each.name for each in other.sample}


def test_all_of_a_small_catalogue_is_the_sample() -> None:
    # DW+PW is fitted to whatever the sample has.
    found = calibration(SMALL, BlockShape(16, 16, 8, 2), ())
    assert [each.name for each in found.fit] == ["CONV", "DW+PW"]
    assert len(found.sample) == 2
    fewer = calibration(SMALL, BlockShape(16, 16, 8, 2), (), excluded=frozenset({"GC(8)+PW"}))
    assert len(fewer.sample) == len(found.sample) - 1


def test_places_without_groups_have_the_anchors_alone() -> None:
    found = calibration(CATALOGUE, PLACE, [BlockShape(3, 64, 16, 2)])
    there = [each.name for each in found.fit if each.sized.channels == 3]
    assert there[:2] == ["CONV", "DW+PW"]
    assert all(channel_field(x.sized.layers) == 3 for x in found.fit if x.sized.channels == 3)


def test_neighbours_are_whole_and_of_widths_that_networks_have() -> None:
    assert [(p.channels, p.out_channels, p.side) for p in neighbours(BlockShape(64, 128, 14))] == [
        (32, 64, 28),
        (128, 256, 7),
    ]
    assert neighbours(BlockShape(15, 15, 7)) == ()
    assert all(p.channels <= 1024 for p in neighbours(BlockShape(512, 512, 16)))


def test_more_blocks_are_timed_again_each_once() -> None:
    more = baselines_at(find_baselines(["conv", "resnext"]), PLACE).candidates
    found = calibration(CATALOGUE, PLACE, (), more)
    anchors = [each for each in found.fit if each.provider == "anchor"]
    assert [each.name for each in anchors] == ["CONV", "DW+PW", "PW+GC(8)+PW, bottleneck 1/2"]
    assert all(each.calibrates for each in anchors)
