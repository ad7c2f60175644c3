from itertools import pairwise
from math import exp, fsum

import pytest
from brute_organizer import gain
from hypothesis import given
from hypothesis import strategies as st
from witness import autograd_field, blocks

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.stages.layout import (
    Layout,
    Stage,
    StemAndHead,
)
from ifspace.stages.networks import (
    network,
    stages,
)

CONV = Block.parse("CONV")


def conv_gains(side: int, depth: int, alpha: float = 3) -> list[float]:
    return [float(gain(side, place, alpha)) for place in range(2, depth + 1)]


def conv_stage(side: int, depth: int, channels: int = 8, width: int = 16) -> Stage:
    return Stage(side, CONV.at(channels, width), CONV.at(width), depth)


def test_information_field_table_1() -> None:
    stage = Stage(8, CONV.at(128), CONV.at(128), 3)
    assert stage.volumes() == (1152, 3200, 6272)
    assert [round(each, 3) for each in stage.gains()] == [1.166, 0.297]


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
def test_fields_of_units_short_of_the_full_field_by_autograd(text: str) -> None:
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


def test_layers_of_the_stem_count_before_the_units() -> None:
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
    return stages("DW+PW", (8, 4), (6, 12), (2, 3), (1, 2), frame)


def test_amounts_of_a_layout_are_sums_over_its_units() -> None:
    found = layout()
    assert (found.depths, found.widths) == ((2, 3), (6, 12))
    assert tuple(map(str, found.blocks)) == ("DW+PW", "DW+PW")
    assert (found.layers, found.width_sum) == (10, 2 * 6 + 3 * 12)
    unit = {
        w: sum(9 * a + a * b + 2 * (a + b) for a, b in w)
        for w in (((3, 6), (6, 6)), ((6, 12), (12, 12), (12, 12)))
    }
    shortcuts = 3 * 6 + 12 + 6 * 12 + 24
    assert found.params == sum(unit.values()) + shortcuts + 12 * 10 + 10
    first = 64 * (27 + 18 + 18 + 54 + 36)
    second = 16 * (54 + 72 + 72 + 2 * (108 + 144))
    assert found.macs == first + second + 120


def test_the_gain_of_a_layout() -> None:
    gains = conv_gains(8, 2) + conv_gains(4, 3)
    assert layout().gain() == pytest.approx(fsum(gains))
    assert layout().gain(1) == pytest.approx(fsum(conv_gains(8, 2, 1) + conv_gains(4, 3, 1)))


def test_other_depths_cost_what_a_layout_of_them_costs() -> None:
    found = layout()
    more = found.at_depths((2, 5))
    unit = found.stem_and_head.block_params(found.stages[1].repeated)
    assert (more.depths, more.params - found.params) == ((2, 5), 2 * unit)
    assert more.at_depths((2, 3)) == found
    with pytest.raises(SettingError, match="wrong number of depths: got 1, 2, 3; allowed: 2"):
        found.at_depths((1, 2, 3))
