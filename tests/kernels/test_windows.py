"""The windows table: against its definition, the pure layer, and drawn examples."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifspace.block import Layer, SizedLayer
from ifspace.errors import KernelError
from ifspace.kernels.windows import Windows, dense_weight, exact_overlap, windows_at, windows_of

GROUPS = (1, 2, 4, 8)
OVERLAPS = (0, 0.25, 0.33, 0.5, 0.75, 0.9)


def reads(table: Windows) -> list[list[int]]:
    """The channels of every filter, from the table."""
    return [
        [(table.starts[j % table.distinct] + t) % table.in_channels for t in range(table.width)]
        for j in range(table.out_channels)
    ]


@pytest.mark.parametrize("channels", [8, 24, 64])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_filters_read_the_channels_of_the_sized_layer(channels, groups, overlap):
    layer = Layer("RPW", groups, Fraction(repr(overlap)))
    table = windows_of(channels, 2 * channels, groups, overlap)
    assert reads(table) == SizedLayer(layer, channels, 2 * channels).reads().tolist()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.fractions(0, 1))
def test_the_table_is_its_definition(width, groups, c_out, overlap):
    if overlap == 1:
        overlap = Fraction(0)
    table = windows_of(width * groups, c_out, groups, overlap)
    assert table.step == width - int(overlap * width) >= 1
    assert table == windows_at(width * groups, c_out, width, table.step)
    assert table.groups == groups
    assert table.params == c_out * width
    # As many distinct starts as windows, every filter in one of them, none twice.
    starts = [j * table.step % table.in_channels for j in range(table.in_channels)]
    assert set(table.starts) == set(starts)
    assert len(set(table.starts)) == len(table.starts) == table.distinct
    used = [sum(j % table.distinct == p for j in range(c_out)) for p in range(table.distinct)]
    assert list(table.filters) == used


def test_steps_that_are_not_whole_are_rounded_once():
    # 0.33 of 128 channels are 42.24: 42 shared, a step of 86; the published CUDA kernel rounds
    # j (1 - o) w filter by filter and drifts.
    table = windows_of(512, 512, 4, 0.33)
    assert (table.width, table.step, table.distinct) == (128, 86, 256)
    assert table.starts[1:6] == (86, 172, 258, 344, 430)


@pytest.mark.parametrize("overlap", ["0.33", Fraction(33, 100), 0.33])
def test_an_overlap_is_parsed_exactly(overlap):
    assert exact_overlap(overlap) == Fraction(33, 100)


@pytest.mark.parametrize("overlap", [1, 1.0, -0.1, float("nan"), float("inf"), "x", None, "1/0"])
def test_overlaps_outside_the_range_raise(overlap):
    with pytest.raises(KernelError, match=r"overlap out of range: got .*; allowed: 0 <= o < 1"):
        windows_of(8, 8, 2, overlap)


def test_groups_that_do_not_divide_raise_with_the_divisors():
    with pytest.raises(KernelError, match=r"5 groups of 12 .* groups of 1, 2, 3, 4, 6, 12;"):
        windows_of(12, 8, 5, 0)
    with pytest.raises(KernelError, match=r"windows of 5 in 12 channels; allowed: weight \[8, w\]"):
        windows_at(12, 8, 5, 1)


@pytest.mark.parametrize("step", [0, -1, 5])
def test_steps_outside_the_window_raise(step):
    with pytest.raises(KernelError, match=rf"step out of range: got {step}; allowed: 1 to .* 4"):
        windows_at(8, 8, 4, step)


@pytest.mark.parametrize("bad", [0, -4, 2.5, True, None])
def test_counts_are_whole_and_positive(bad):
    with pytest.raises(KernelError, match="groups out of range"):
        windows_of(8, 8, bad, 0)
    with pytest.raises(KernelError, match="in_channels out of range"):
        windows_of(bad, 8, 1, 0)


def test_the_cache_does_not_hide_bad_values():
    assert windows_of(8, 8, 1, 0) == Windows(8, 8, 8, 8)
    for bad in (True, 1.0):  # equal to 1, and no group count
        with pytest.raises(KernelError, match="groups out of range"):
            windows_of(8, 8, bad, 0)
    with pytest.raises(KernelError, match="overlap out of range"):
        windows_of(8, 8, 1, [0])


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_the_dense_weight_is_zero_outside_the_windows(groups, overlap):
    table = windows_of(24, 40, groups, overlap)
    channels = table.read_channels()
    assert channels.tolist() == reads(table)
    weight = torch.rand(40, table.width) + 1
    dense = dense_weight(weight, 24, table.step)
    assert torch.equal(dense.gather(1, channels), weight)
    assert int((dense != 0).sum()) == table.params
    assert torch.equal(dense_weight(weight, 24, table.step, channels), dense)
