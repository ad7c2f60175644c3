import pytest

from ifspace.block import Block
from ifspace.stages.layout import (
    StemAndHead,
    StemLayer,
)

CONV = Block.parse("CONV").at(4, 6)
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
def test_params_of_a_unit(frame: StemAndHead, conv: int, shuffled: int) -> None:
    assert (frame.block_params(CONV), frame.block_params(SHUFFLED)) == (conv, shuffled)
    assert frame.block_params(CONV, opens=True) == conv


def test_a_projection_stands_beside_the_first_unit_only() -> None:
    frame = StemAndHead(batch_norm=True, projections=True)
    assert frame.block_params(CONV, opens=True) == 216 + 12 + 4 * 6 + 12
    assert frame.block_params(CONV) == 216 + 12
    assert frame.block_macs(CONV, 5, opens=True) == 25 * (216 + 24)
    assert frame.block_macs(CONV, 5) == 25 * 216


def test_macs_of_a_unit_count_the_pixels_before_its_stride() -> None:
    # Two pointwise convolutions of 32 weights around a depthwise one of 72, which has the stride.
    assert StemAndHead().block_macs(SHUFFLED, 3, stride=2) == 9 * (4 * 32 + 72 + 32)
    assert StemAndHead(batch_norm=True, bias=True).block_macs(SHUFFLED, 3) == 9 * 136


def test_one_dimension_has_a_row_of_pixels() -> None:
    row = Block.parse("CONV").at(4, 6, dims=1)
    assert StemAndHead(projections=True).block_macs(row, 5, opens=True) == 5 * (3 * 24 + 24)


def test_the_stem_and_what_it_opens_with() -> None:
    frame = StemAndHead(stem=(stem("CONV(7)", 3, 16, 10), stem("DW", 16, 16, 5)), batch_norm=True)
    assert frame.stem_channels == 16
    assert frame.params(99) == 49 * 48 + 32 + 9 * 16 + 32
    assert frame.macs(99) == 49 * 48 * 100 + 9 * 16 * 25
    assert frame.counted_stem == ()
    assert StemAndHead(inputs=5).stem_channels == 5


def test_the_stem_may_count_in_the_first_stage() -> None:
    layers = (stem("CONV", 3, 8, 4), stem("PW", 8, 4, 4))
    frame = StemAndHead(stem=layers, stem_counts=True)
    assert frame.counted_stem == tuple(each.layer for each in layers)


def test_the_classifier_has_biases_and_sees_all_pixels() -> None:
    frame = StemAndHead(classifier=(20, 10), pixels=9)
    assert frame.params(6) == 54 * 20 + 20 + 20 * 10 + 10
    assert frame.macs(6) == 54 * 20 + 20 * 10
    assert (StemAndHead().params(6), StemAndHead().macs(6)) == (0, 0)
