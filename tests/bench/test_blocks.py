"""Blocks to measure: their shapes and columns, baselines, selection, sample."""

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
    choices_of,
    design_at,
    designs_for,
    find_baselines,
    neighbours,
    reshaped,
    select,
)
from ifspace.bench.rows import start_row
from ifspace.block import Block
from ifspace.canonical import network_class
from ifspace.catalogue import Catalogue
from ifspace.catalogue.design import PUBLISHED
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import BlockError, SettingError
from ifspace.measurements import COLUMNS
from ifspace.reach import channel_field


def test_a_row_starts_with_candidate_shape_and_machine(block, here, machine) -> None:
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


def test_the_case_names_calibration_and_threads(block, here) -> None:
    candidate = block("DW+PW", calibrates=True)
    assert candidate.case(here).startswith("calibration: 16 to 16 channels")
    assert candidate.key == block("DW+PW").key
    on_card = replace(here, device=torch.device("cuda"), threads=2)
    assert "thread" not in candidate.case(on_card)
    assert candidate.case(replace(here, threads=2)).endswith("2 threads")


@pytest.mark.parametrize(("layout", "last"), [("channels_last", True), ("nchw", False)])
def test_feature_maps_and_weights_are_in_the_memory_layout(
    layout: str, last: bool, block, here
) -> None:
    there = replace(here, layout=layout, dtype="bf16")
    module = there.build(block("CONV"))
    x = there.draw(2, 16, 5, 5)
    y = module(x)
    for maps in (x, module.layer0.weight, y):
        assert maps.is_contiguous(memory_format=torch.channels_last) is last
        assert maps.dtype == torch.bfloat16


def test_random_weights_and_inputs_are_reproducible(block, here) -> None:
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
def test_published_compositions_are_those_of_the_catalogue(name: str, composition: str) -> None:
    assert str(sized_baseline(name, 64).block.composition) == composition
    assert composition in {baseline.composition for baseline in PUBLISHED}


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


def test_a_baseline_that_does_not_fit_raises() -> None:
    for name in ("shufflenet", "clcnet"):
        with pytest.raises(BlockError, match="13"):
            sized_baseline(name, 13)


def test_blocks_are_baselines_too_each_once() -> None:
    baselines = find_baselines(["DW+PW", "gc(4)+sh(4)+pw", "Conv", "conv", "GC(4)+SH(4)+PW"])
    assert [baseline.title for baseline in baselines] == ["MobileNet", "GC(4)+SH(4)+PW", "CONV(3)"]
    assert baselines[1].size(16, 32).params == 16 * 4 * 9 + 16 * 32


def test_another_name_raises() -> None:
    with pytest.raises(SettingError, match="no such baseline: got 'vgg'; allowed: conv, dw"):
        find_baselines(["vgg"])
    assert len({baseline.name for baseline in BASELINES}) == len(BASELINES)


OWN_SHAPE = BlockShape(16, 16, 8, 2)


def blocks(catalogue: Catalogue, top: int, by: str, shape: BlockShape) -> list[str]:
    return [baseline.name for baseline in select(catalogue, top, by, shape).candidates]


def test_the_best_come_first_by_each_amount() -> None:
    assert blocks(SMALL, 2, "params", OWN_SHAPE) == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    assert blocks(SMALL, 2, "activations", OWN_SHAPE) == ["DW+PW", "GC(8)+PW"]
    assert blocks(SMALL, 1, "macs", OWN_SHAPE) == ["DW+RPW(4,0)+RPW(4,0)"]
    # GC+PW is no better than DW+PW in anything.
    assert blocks(SMALL, 9, "pareto", OWN_SHAPE) == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    forgetful = replace(SMALL, designs=(replace(GC_PW, dominated_by=None), DW_PW))
    assert blocks(forgetful, 9, "pareto", OWN_SHAPE) == ["DW+PW"]
    with pytest.raises(SettingError, match=r"unknown amount: got 'speed'; allowed: params, macs"):
        select(SMALL, 1, "speed", OWN_SHAPE)


def test_designs_at_their_own_shape_keep_their_claims() -> None:
    chosen = select(SMALL, 3, "params", OWN_SHAPE)
    assert [baseline.design for baseline in chosen.candidates] == [DW_RPW_RPW, DW_PW, GC_PW]
    assert (chosen.solved, chosen.left_out) == (0, ())
    (wider,) = select(SMALL, 3, "params", BlockShape(32, 64, 8, 2)).candidates
    assert (wider.design, wider.name) == (WIDER, "(PW+DW+PW)x2, bottleneck 1/4")


def test_groups_solved_again_keep_to_the_order_of_the_design() -> None:
    for text, orders in (
        ("DW+RPW(4,0)+RPW(4,0)", {"rolling"}),
        ("DW+RPW(2,1/2,blocked)+RPW(2,0,blocked)", {"blocked"}),
    ):
        design = replace(DW_RPW_RPW, block=Block.parse(text))
        sized = design_at(design, BlockShape(64, 64, 8), "params").sized
        assert {layer.layer.order for layer in sized.layers} - {None} == orders
        assert sized.params == {"rolling": 1600, "blocked": 2112}[orders.pop()]


def test_the_best_are_different_networks() -> None:
    catalogue = enumerate_designs([EnumerationSetting(channels=16, max_len=4)])
    for shape in (OWN_SHAPE, BlockShape(24, 24, 8, 2)):
        chosen = select(catalogue, 10, "params", shape)
        networks = {network_class(candidate.sized) for candidate in chosen.candidates}
        assert len(networks) == len(chosen.candidates) == 10
        assert chosen.same > 10
        every = select(catalogue, 10, "params", shape, every_row=True)
        assert len({network_class(candidate.sized) for candidate in every.candidates}) < 10
        assert every.same == 0
    # The block of a network that is timed is the one that tables show.
    for candidate in select(catalogue, 10, "params", OWN_SHAPE).candidates:
        assert candidate.design is not None
        assert candidate.design.representative == str(candidate.sized.block)


@pytest.mark.parametrize("shape", [BlockShape(24, 48, 8, 2), BlockShape(16, 16, 8, 2, 2)])
def test_groups_solved_again_cost_no_more_than_those_of_an_enumeration(
    shape: BlockShape,
) -> None:
    home = enumerate_designs([EnumerationSetting(channels=16, max_len=3)])
    there = enumerate_designs(
        [
            EnumerationSetting(
                channels=shape.channels,
                out_channels=shape.out_channels,
                max_len=3,
                stride=shape.stride,
            )
        ]
    )
    least = {candidate.composition: candidate.params for candidate in there.designs}
    chosen = select(home, 99, "params", shape)
    assert chosen.solved == len(chosen.candidates) >= 10
    by_composition = {
        str(candidate.sized.block.composition): candidate for candidate in chosen.candidates
    }
    # An enumeration asks for more, that no layer can go: a few blocks cost more there.
    more = {
        name: least[name] - candidate.sized.params for name, candidate in by_composition.items()
    }
    assert min(more.values()) == 0
    assert sum(candidate > 0 for candidate in more.values()) <= 4
    amounts = [candidate.sized.params for candidate in chosen.candidates]
    assert amounts == sorted(amounts)
    for candidate in chosen.candidates:
        assert channel_field(candidate.sized.layers) == shape.channels
        assert candidate.shapes == shape.shapes
        assert candidate.design is None


def test_a_design_without_groups_is_left_out_and_the_next_is_taken() -> None:
    chosen = select(SMALL, 1, "params", BlockShape(13, 13, 8, 2))
    assert [candidate.name for candidate in chosen.candidates] == ["DW+PW"]
    ((name, why),) = chosen.left_out
    assert name == "DW+RPW+RPW"
    assert why.startswith("no groups with the full field: got DW+RPW+RPW from 13 to 13")


def test_a_reshaped_design_keeps_bottleneck_and_kernel() -> None:
    (wider,) = select(SMALL, 1, "params", BlockShape(32, 64, 8, 2)).candidates
    there = reshaped(wider, SMALL, BlockShape(8, 16, 4, 2), "params")
    assert (there.name, there.sized.channels, there.side) == ("(PW+DW+PW)x2, bottleneck 1/4", 8, 4)


def test_a_row_of_a_front_keeps_its_least_fan_in_at_another_shape() -> None:
    front = enumerate_designs([EnumerationSetting(channels=32, max_len=4, front=True)], jobs=1)
    rows = [x for x in front.designs if x.composition == "DW+GPW+SH+GPW"]
    assert {design.least_fan_in for design in rows} == {4, 8, 16}
    catalogue = replace(front, designs=tuple(rows))
    chosen = select(catalogue, 9, "params", BlockShape(64, 64, 8, 2), every_row=True).candidates
    # Those with 4 have more at 64 channels, where the least is 8.
    assert {candidate.sized.least_fan_in for candidate in chosen} == {8, 16}
    for candidate in chosen:
        there = reshaped(candidate, catalogue, BlockShape(128, 128, 8, 2), "params")
        assert there.sized.least_fan_in >= candidate.sized.least_fan_in


def test_the_shape_of_a_catalogue_is_that_of_its_first_design() -> None:
    assert catalogue_shape(SMALL, 8, 2) == OWN_SHAPE
    assert OWN_SHAPE.shapes == ((2, 16, 8, 8), (2, 16, 8, 8))
    assert BlockShape(16, 24, 8, 2, 2).shapes == ((2, 16, 16, 16), (2, 24, 8, 8))
    with pytest.raises(SettingError, match=r"nothing of this catalogue .* an empty one"):
        catalogue_shape(EMPTY, 8, 2)
    flat = replace(SMALL, designs=(replace(DW_PW, dims=1),))
    with pytest.raises(SettingError, match="1 dimension"):
        catalogue_shape(flat, 8, 2)


def test_designs_of_other_shapes_are_not_compared() -> None:
    assert set(designs_for(SMALL, BlockShape(7, 7, 8))) == {GC_PW, DW_PW, DW_RPW_RPW}
    assert designs_for(SMALL, BlockShape(32, 64, 8)) == [WIDER]
    assert choices_of(SMALL, DW_PW) == (SMALL.settings[0].overlaps, SMALL.settings[0].floors)


def test_baselines_that_do_not_fit_are_left_out() -> None:
    selection = baselines_at(find_baselines(["conv", "shufflenet"]), BlockShape(9, 9, 8, 2))
    assert [candidate.provider for candidate in selection.candidates] == ["baseline: CONV(3)"]
    assert [name for name, _ in selection.left_out] == ["ShuffleNet unit"]
    strided = baselines_at(find_baselines(["dw+pw", "PW+PW"]), BlockShape(8, 8, 8, 2, 2))
    assert [candidate.stride for candidate in strided.candidates] == [2]
    assert "no layer can hold the stride" in strided.left_out[0][1]


@pytest.mark.parametrize("name", ["channels", "side", "batch", "stride"])
def test_shapes_have_whole_numbers(name: str) -> None:
    with pytest.raises((SettingError, BlockError), match=name):
        replace(OWN_SHAPE, **{name: 0})


SHAPE = BlockShape(64, 64, 16, 2)
CATALOGUE = enumerate_designs([EnumerationSetting(max_len=4)])


def test_the_sample_has_the_shape_of_the_run_and_is_apart_from_the_fit() -> None:
    blocks = calibration(CATALOGUE, SHAPE, neighbours(SHAPE))
    assert len(blocks.sample) == SAMPLE
    assert {candidate.shapes for candidate in blocks.sample} == {SHAPE.shapes}
    assert not {candidate.key for candidate in blocks.sample} & {
        candidate.key for candidate in blocks.fit
    }
    here = [candidate for candidate in blocks.fit if candidate.shapes == SHAPE.shapes]
    assert len(here) == len(ANCHORS)
    assert all(candidate.calibrates for candidate in (*blocks.fit, *blocks.sample))
    elsewhere = [candidate for candidate in blocks.fit if candidate.shapes != SHAPE.shapes]
    assert len({candidate.shapes for candidate in elsewhere}) == 3
    for candidate in elsewhere:
        assert channel_field(candidate.sized.layers) == candidate.sized.channels


def test_the_sample_is_reproducible_and_leaves_out_excluded_blocks() -> None:
    first, second = (calibration(CATALOGUE, SHAPE, ()) for _ in range(2))
    assert first == second
    excluded = frozenset(candidate.name for candidate in (*first.sample, *first.fit))
    other = calibration(CATALOGUE, SHAPE, (), excluded=excluded)
    assert not excluded & {candidate.name for candidate in other.sample}


def test_all_of_a_small_catalogue_is_the_sample() -> None:
    # DW+PW is fitted to whatever the sample has.
    blocks = calibration(SMALL, BlockShape(16, 16, 8, 2), ())
    assert [candidate.name for candidate in blocks.fit] == ["CONV", "DW+PW"]
    assert len(blocks.sample) == 2
    fewer = calibration(SMALL, BlockShape(16, 16, 8, 2), (), excluded=frozenset({"GC(8)+PW"}))
    assert len(fewer.sample) == len(blocks.sample) - 1


def test_shapes_without_groups_have_the_anchors_alone() -> None:
    blocks = calibration(CATALOGUE, SHAPE, [BlockShape(3, 64, 16, 2)])
    there = [candidate.name for candidate in blocks.fit if candidate.sized.channels == 3]
    assert there[:2] == ["CONV", "DW+PW"]
    assert all(channel_field(x.sized.layers) == 3 for x in blocks.fit if x.sized.channels == 3)


def test_neighbours_have_whole_sizes_and_usual_widths() -> None:
    assert [(p.channels, p.out_channels, p.side) for p in neighbours(BlockShape(64, 128, 14))] == [
        (32, 64, 28),
        (128, 256, 7),
    ]
    assert neighbours(BlockShape(15, 15, 7)) == ()
    assert all(p.channels <= 1024 for p in neighbours(BlockShape(512, 512, 16)))


def test_more_blocks_are_timed_again_each_once() -> None:
    more = baselines_at(find_baselines(["conv", "resnext"]), SHAPE).candidates
    blocks = calibration(CATALOGUE, SHAPE, (), more)
    anchors = [candidate for candidate in blocks.fit if candidate.provider == "anchor"]
    assert [candidate.name for candidate in anchors] == [
        "CONV",
        "DW+PW",
        "PW+GC(8)+PW, bottleneck 1/2",
    ]
    assert all(candidate.calibrates for candidate in anchors)
