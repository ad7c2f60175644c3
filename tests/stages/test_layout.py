"""Stages, stem and head, layouts: fields, gains, costs, and their JSON form."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import exp, fsum
from typing import Any

import pytest
from brute_organizer import gain
from hypothesis import given, settings
from hypothesis import strategies as st
from witness import autograd_field, blocks

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.stages.layout import (
    Layout,
    Stage,
    StemAndHead,
    StemLayer,
    layout_from_json,
    layout_json,
)
from ifspace.stages.networks import (
    NETWORKS,
    SIDES,
    fog,
    make_layout,
    mobilenet,
    network,
    resnet50,
)

CONV = Block.parse("CONV")


def conv_gains(side: int, depth: int, alpha: float = 3) -> list[float]:
    return [float(gain(side, place, alpha)) for place in range(2, depth + 1)]


def conv_stage(side: int, depth: int, channels: int = 8, width: int = 16) -> Stage:
    return Stage(side, CONV.at(channels, width), CONV.at(width), depth)


def test_information_field_table_1() -> None:
    stage = Stage(8, CONV.at(128), CONV.at(128), 3)
    assert stage.volumes() == (1152, 3200, 6272)
    assert [round(gain, 3) for gain in stage.gains()] == [1.166, 0.297]


def test_information_field_table_2() -> None:
    # One convolution more in each stage of VGG-11.
    layout = network("vgg11", 32)
    assert layout.depths == (1, 1, 2, 2, 2)
    assert [round(stage.next_gain(), 2) for stage in layout.stages] == [1.73, 1.60, 0.30, 0, 0]


@pytest.mark.parametrize("side", [1, 2, 4, 7, 8, 14, 32, 224])
@pytest.mark.parametrize("alpha", [0, 1, 3, 10])
def test_gains_of_convolutions_by_formula(side: int, alpha: float) -> None:
    stage = conv_stage(side, 9)
    assert stage.gains(alpha) == pytest.approx(conv_gains(side, 9, alpha))
    assert stage.last_gain(alpha) == pytest.approx(conv_gains(side, 9, alpha)[-1])
    assert stage.next_gain(alpha) == pytest.approx(conv_gains(side, 10, alpha)[-1])


@pytest.mark.parametrize(
    "text",
    [
        "DW+GPW(2)",
        "GPW(4)+DW+GPW(2)",
        "DW+RPW(4,0)",
        "GC(4)+SH(4)",
        "RPW(4,1/2)+DW",
        "(DW+GPW(4))x2",
    ],
)
def test_fields_of_blocks_short_of_the_full_field_by_autograd(text: str) -> None:
    block = Block.parse(text)
    depth = 3
    volumes = []
    for copies in range(1, depth + 1):
        seen, side = autograd_field(Block(block.layers, block.repeats * copies).at(8))
        volumes.append(side**2 * min(map(len, seen)))
    assert volumes[0] < 9 * 8  # less than a convolution sees
    unit = block.at(8)
    stage = Stage(64, unit, unit, depth)
    assert stage.volumes() == tuple(volumes)
    gains = [(b - a) / a * exp(-3 * a / (64**2 * 8)) for a, b in pairwise(volumes)]
    assert stage.gains() == pytest.approx(gains)


def test_the_field_ends_at_the_side_of_the_stage() -> None:
    assert [v // 8 for v in conv_stage(6, 5).volumes()] == [9, 25, 36, 36, 36]
    assert conv_stage(6, 5).last_gain() == 0


def test_a_larger_kernel_reaches_further() -> None:
    unit = Block.parse("DW(5)+PW+DW").at(4)
    assert [v // 4 for v in Stage(64, unit, unit, 3).volumes()] == [7**2, 13**2, 19**2]


def test_channels_are_those_that_enter_the_stage() -> None:
    # All 3 channels of an image are seen at once, however wide the stage is.
    assert conv_stage(8, 2, channels=3, width=64).volumes() == (27, 75)
    unit = Block.parse("GPW(2)").at(8)
    assert Stage(8, CONV.at(6, 8), unit, 2).volumes() == (54, 54)


def test_layers_of_the_stem_count_before_the_blocks() -> None:
    stem = CONV.at(3, 8).layers
    unit = Block.parse("DW+PW").at(8)
    stage = Stage(16, unit, unit, 3, stem=stem)
    assert (stage.min_depth, len(stage.blocks), stage.layers) == (2, 2, 4)
    assert stage.volumes() == (27, 75, 147)
    assert stage.gains() == pytest.approx(conv_gains(16, 3))
    with pytest.raises(SettingError, match="got depth 1; allowed: 2 or more"):
        stage.at_depth(1)


def test_a_stage_needs_a_block() -> None:
    with pytest.raises(SettingError, match="a stage without a block: got depth 0; allowed: 1 or"):
        conv_stage(8, 0)


@given(blocks(8, 4), st.integers(2, 6), st.integers(1, 40))
def test_the_field_never_shrinks(block: Block, depth: int, side: int) -> None:
    unit = block.at(8)
    volumes = Stage(side, unit, unit, depth).volumes()
    assert sorted(volumes) == list(volumes)
    assert volumes[-1] <= side**2 * 8
    assert Stage(side, unit, unit, depth - 1).volumes() == volumes[:-1]


def layout() -> Layout:
    frame = StemAndHead(batch_norm=True, projections=True, classifier=(10,))
    return make_layout("DW+PW", (8, 8), (6, 12), (2, 3), (1, 2), frame)


def test_amounts_of_a_layout_are_sums_over_its_blocks() -> None:
    example = layout()
    assert (example.depths, example.widths) == ((2, 3), (6, 12))
    assert tuple(map(str, example.blocks)) == ("DW+PW", "DW+PW")
    assert (example.layers, example.width_sum) == (10, 2 * 6 + 3 * 12)
    unit = {
        w: sum(9 * a + a * b + 2 * (a + b) for a, b in w)
        for w in (((3, 6), (6, 6)), ((6, 12), (12, 12), (12, 12)))
    }
    shortcuts = 3 * 6 + 12 + 6 * 12 + 24
    assert example.params == sum(unit.values()) + shortcuts + 12 * 10 + 10
    first = 64 * (27 + 18 + 18 + 54 + 36)
    second = 16 * (54 + 72 + 72 + 2 * (108 + 144))
    assert example.macs == first + second + 120


def test_the_gain_of_a_layout() -> None:
    gains = conv_gains(8, 2) + conv_gains(8, 3)
    assert layout().gain() == pytest.approx(fsum(gains))
    assert layout().gain(1) == pytest.approx(fsum(conv_gains(8, 2, 1) + conv_gains(8, 3, 1)))


def test_other_depths_cost_what_a_layout_of_them_costs() -> None:
    example = layout()
    more = example.at_depths((2, 5))
    unit = example.stem_and_head.block_params(example.stages[1].repeated)
    assert (more.depths, more.params - example.params) == ((2, 5), 2 * unit)
    assert more.at_depths((2, 3)) == example
    with pytest.raises(SettingError, match="wrong number of depths: got 1, 2, 3; allowed: 2"):
        example.at_depths((1, 2, 3))


NARROW = Block.parse("CONV").at(4, 6)
SHUFFLED = Block.parse("GPW(2)+SH(2)+DW+GPW(2)").at(8)


def stem(text: str, c_in: int, c_out: int, side: int) -> StemLayer:
    return StemLayer(Block.parse(text).at(c_in, c_out).layers[0], side)


@pytest.mark.parametrize(
    ("frame", "conv", "shuffled"),
    [
        (StemAndHead(), 216, 136),
        (StemAndHead(batch_norm=True), 216 + 12, 136 + 2 * 24),  # the shuffle writes no channels
        (StemAndHead(bias=True), 216 + 6, 136 + 24),
        (StemAndHead(batch_norm=True, bias=True), 216 + 18, 136 + 3 * 24),
    ],
)
def test_params_of_a_block(frame: StemAndHead, conv: int, shuffled: int) -> None:
    assert (frame.block_params(NARROW), frame.block_params(SHUFFLED)) == (conv, shuffled)
    assert frame.block_params(NARROW, opens=True) == conv


def test_only_the_first_block_has_a_projection() -> None:
    frame = StemAndHead(batch_norm=True, projections=True)
    assert frame.block_params(NARROW, opens=True) == 216 + 12 + 4 * 6 + 12
    assert frame.block_params(NARROW) == 216 + 12
    assert frame.block_macs(NARROW, 5, opens=True) == 25 * (216 + 24)
    assert frame.block_macs(NARROW, 5) == 25 * 216


def test_macs_of_a_block_count_the_pixels_before_its_stride() -> None:
    # Two pointwise convolutions of 32 weights around a depthwise one of 72, which has the stride.
    assert StemAndHead().block_macs(SHUFFLED, 3, stride=2) == 9 * (4 * 32 + 72 + 32)
    assert StemAndHead(batch_norm=True, bias=True).block_macs(SHUFFLED, 3) == 9 * 136


def test_one_dimension_has_a_row_of_pixels() -> None:
    row = Block.parse("CONV").at(4, 6, dims=1)
    assert StemAndHead(projections=True).block_macs(row, 5, opens=True) == 5 * (3 * 24 + 24)


def test_the_stem_and_the_channels_that_leave_it() -> None:
    frame = StemAndHead(stem=(stem("CONV(7)", 3, 16, 10), stem("DW", 16, 16, 5)), batch_norm=True)
    assert frame.stem_channels == 16
    assert frame.params(99) == 49 * 48 + 32 + 9 * 16 + 32
    assert frame.macs(99) == 49 * 48 * 100 + 9 * 16 * 25
    assert frame.counted_stem == ()
    assert StemAndHead(inputs=5).stem_channels == 5


def test_the_stem_may_count_in_the_first_stage() -> None:
    layers = (stem("CONV", 3, 8, 4), stem("PW", 8, 4, 4))
    frame = StemAndHead(stem=layers, stem_counts=True)
    assert frame.counted_stem == tuple(stem_layer.layer for stem_layer in layers)


def test_the_classifier_has_biases_and_sees_all_pixels() -> None:
    frame = StemAndHead(classifier=(20, 10), pixels=9)
    assert frame.params(6) == 54 * 20 + 20 + 20 * 10 + 10
    assert frame.macs(6) == 54 * 20 + 20 * 10
    assert (StemAndHead().params(6), StemAndHead().macs(6)) == (0, 0)


def through_text(layout: Layout) -> Layout:
    return layout_from_json(json.loads(json.dumps(layout_json(layout))))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", SIDES)
def test_every_network_survives_json(name: str, side: int) -> None:
    layout = network(name, side)
    deeper = layout.at_depths([depth + 1 for depth in layout.depths])
    assert through_text(layout) == layout
    assert through_text(deeper) == deeper != layout


@pytest.mark.parametrize("layout", [resnet50(224), mobilenet(32), mobilenet(224, stem_counts=True)])
def test_files_of_earlier_versions_say_what_stages_write(layout: Layout) -> None:
    values = layout_json(layout)
    sides = [(stage["side"], stage.pop("side_in")) for stage in values["stages"]]
    assert sides == [(stage.side_out, stage.side) for stage in layout.stages]
    assert layout_from_json(values) == layout


def frames() -> st.SearchStrategy[StemAndHead]:
    stem = StemLayer(Block.parse("CONV(5)").at(3, 12).layers[0], 16)
    return st.builds(
        StemAndHead,
        inputs=st.integers(1, 64),
        stem=st.sampled_from([(), (stem,), (stem, stem)]),
        batch_norm=st.booleans(),
        bias=st.booleans(),
        projections=st.booleans(),
        classifier=st.sampled_from([(), (10,), (4096, 1000)]),
        pixels=st.integers(1, 49),
        stem_counts=st.booleans(),
        image=st.none() | st.integers(1, 512),
    )


@pytest.mark.slow
@settings(max_examples=60)
@given(
    frames(),
    blocks(12),
    blocks(12),
    st.integers(3, 9),
    st.integers(1, 224),
    st.integers(1, 224),
    st.booleans(),
)
def test_any_layout_survives_json(
    frame: StemAndHead,
    first: Block,
    more: Block,
    depth: int,
    side: int,
    written: int,
    flat: bool,
) -> None:
    dims = 1 if flat else 2
    stage = Stage(
        side, first.at(12, dims=dims), more.at(12, dims=dims), depth, 2, frame.counted_stem, written
    )
    layout = Layout((stage, stage), frame)
    assert through_text(layout) == layout


@pytest.mark.parametrize("inner", [(16, 8), (64, 128), (12, 12)])
def test_widths_inside_a_block_survive_json(inner: tuple[int, int]) -> None:
    parsed = Block.parse("PW+DW+GPW(4)+PW")
    for unit in (parsed.at(12, 24, widths=inner), replace(parsed, repeats=2).at(12, widths=inner)):
        layout = Layout((Stage(8, unit, parsed.at(24, bottleneck="1/3")),), StemAndHead())
        back = through_text(layout)
        assert back == layout
        assert [x.c_out for x in back.stages[0].first.layers][::2][:2] == [inner[0], inner[1]]


def test_interior_widths_equal_to_the_default_survive_json() -> None:
    # By default the second copy of 12 -> 24 would have an inner width of 24.
    unit = Block.parse("(PW+PW)x2").at(12, 24, widths=(12,))
    layout = Layout((Stage(8, unit, unit.block.at(24)),), StemAndHead())
    assert through_text(layout) == layout
    assert [x.c_out for x in layout.stages[0].first.layers] == [12, 24, 12, 24]


def test_ratios_are_exact() -> None:
    values = layout_json(resnet50(32))["stages"][0]["more"]
    assert (values["bottleneck"], values["widths"]) == ("1/4", None)
    third = fog(32, "PW+DW+PW", width=48, bottleneck=Fraction(1, 3))
    assert through_text(third).stages[0].repeated.bottleneck == Fraction(1, 3)


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    values = deepcopy(layout_json(network("resnet50", 32)))
    change(values)
    return values


@pytest.mark.parametrize(
    ("change", "fault_text"),
    [
        (lambda v: v.pop("frame"), "missing field, 'frame'"),
        (lambda v: v.update(stages=[]), "number of stages out of range, 0"),
        (lambda v: v.update(stages=7), "wrong value of stages, 7"),
        (lambda v: v["frame"].pop("image"), "missing field of frame, 'image'"),
        (lambda v: v["frame"].update(bias=1), "wrong value of frame.bias, 1"),
        (lambda v: v["frame"].update(pixels=0), "frame.pixels out of range, 0"),
        (lambda v: v["frame"].update(inputs="3"), "wrong value of frame.inputs, '3'"),
        (
            lambda v: v["frame"]["stem"][0].update(layer="XY"),
            r"stem\[0\]\.layer: unknown kind",
        ),
        (lambda v: v["stages"][1].update(depth=0), "depth out of range"),
        (lambda v: v["stages"][1].update(depth=10**9), "depth out of range"),
        (lambda v: v["stages"][1].update(stride=1.5), r"wrong value of stages\[1\]\.stride, 1\.5"),
        (
            lambda v: v["stages"][0]["more"].update(block="PW+GPW(7)"),
            r"0\]\.more: groups do not",
        ),
        (
            lambda v: v["stages"][0]["more"].update(bottleneck="x"),
            r"\.more\.bottleneck, 'x'",
        ),
        (
            lambda v: v["stages"][0]["more"].update(widths=[64]),
            r"\.more: interior widths given",
        ),
        (lambda v: v["stages"][0]["more"].update(dims=3), "dims out of range"),
        (lambda v: v["stages"][0].update(first=None), r"wrong value of stages\[0\]\.first, None"),
    ],
)
def test_json_of_no_layout_raises_one_line(
    change: Callable[[dict[str, Any]], Any], fault_text: str
) -> None:
    with pytest.raises(
        SettingError, match=f"^a layout that cannot be read: got .*{fault_text}"
    ) as fault:
        layout_from_json(broken(change))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("values", [None, [], "x", 3, {}])
def test_other_json_values_raise(values: object) -> None:
    with pytest.raises(SettingError, match="a layout that cannot be read"):
        layout_from_json(values)


# Written by the first version of the format; its keys and their order stay.
OLD = (
    '{"frame": {"inputs": 3, "stem": [{"layer": "CONV", "c_in": 3, "c_out": 8, "dims": 2, '
    '"side": 16}], "batch_norm": true, "bias": false, "projections": false, "stem_counts": false, '
    '"classifier": [10], "pixels": 1, "image": 32}, "stages": [{"side": 8, "depth": 2, '
    '"stride": 2, "first": {"block": "DW+PW", "channels": 8, "out_channels": 16, '
    '"bottleneck": null, "widths": null, "dims": 2}, "more": {"block": "PW+DW+PW", '
    '"channels": 16, "out_channels": 16, "bottleneck": "1/4", "widths": null, "dims": 2}, '
    '"before": []}]}'
)


def test_a_layout_written_long_ago_is_read_and_written_with_what_was_added() -> None:
    layout = layout_from_json(json.loads(OLD))
    assert (layout.depths, layout.widths, layout.image) == ((2,), (16,), 32)
    assert (layout.stages[0].side, layout.stages[0].side_out) == (16, 8)
    added = '"before": [], "side_in": 16, "type": null}'
    assert json.dumps(layout_json(layout)) == OLD.replace('"before": []}', added)
