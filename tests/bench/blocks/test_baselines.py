"""The blocks with a name, against what their papers say."""

from fractions import Fraction

import pytest

from ifspace.bench.blocks import (
    BASELINES,
    NAMES,
    find_baselines,
)
from ifspace.catalogue.design import PUBLISHED
from ifspace.errors import BlockError, SettingError
from ifspace.reach import channel_field


def made(name: str, channels: int, out: int | None = None):
    (baseline,) = find_baselines([name])
    return baseline.make(channels, out or channels)


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
    assert str(made(name, 64).block.composition) == composition
    assert composition in {each.composition for each in PUBLISHED}


def test_conv_is_the_convolution() -> None:
    assert made("conv", 64, 128).params == 9 * 64 * 128


@pytest.mark.parametrize(("channels", "groups"), [(240, 3), (64, 4), (8, 2), (272, 4)])
def test_a_shufflenet_unit_is_a_quarter_wide_inside(channels: int, groups: int) -> None:
    sized = made("shufflenet", channels)
    assert [layer.c_out for layer in sized.layers] == [channels // 4] * 3 + [channels]
    assert [layer.layer.groups for layer in sized.layers] == [groups, groups, None, groups]


def test_a_resnext_bottleneck_has_groups_of_four_up_to_32() -> None:
    # [ResNeXt] Table 1, conv2: 256 to 128 to 256 channels, C = 32, 4d.
    wide = made("resnext", 256)
    assert str(wide.block) == "PW+GC(32)+PW"
    assert [layer.c_out for layer in wide.layers] == [128, 128, 256]
    assert wide.params == 256 * 128 + 128 * 4 * 9 + 128 * 256
    assert str(made("resnext", 64).block) == "PW+GC(8)+PW"


def test_an_inverted_residual_is_six_times_as_wide_inside() -> None:
    sized = made("inverted", 24)
    assert sized.bottleneck == Fraction(6)
    assert sized.params == 24 * 144 + 9 * 144 + 144 * 24
    # [MobileNetV2] Table 1: six times what enters, whatever leaves.
    wider = made("inverted", 16, 32)
    assert [layer.c_out for layer in wider.layers] == [96, 96, 32]


def test_clcnet_has_the_cheapest_groups_of_full_field() -> None:
    sized = made("clcnet", 64)
    assert sized.params == 3200
    assert channel_field(sized.layers) == 64


def test_what_does_not_fit_says_so() -> None:
    for name in ("shufflenet", "clcnet"):
        with pytest.raises(BlockError, match="13"):
            made(name, 13)


def test_blocks_are_baselines_too_and_doubles_are_one() -> None:
    found = find_baselines(["DW+PW", "gc(4)+sh(4)+pw", "Conv", "conv", "GC(4)+SH(4)+PW"])
    assert [each.title for each in found] == ["MobileNet", "GC(4)+SH(4)+PW", "CONV(3)"]
    assert found[1].make(16, 32).params == 16 * 4 * 9 + 16 * 32


def test_anything_else_is_refused() -> None:
    with pytest.raises(SettingError, match="no such baseline: got 'vgg'; allowed: conv, dw"):
        find_baselines(["vgg"])
    assert len({each.name for each in BASELINES}) == len(BASELINES)
