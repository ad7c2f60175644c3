"""The list of cases, and how it is written on the command line."""

import pytest

from ifspace.bench.kernels.cases import (
    FUSED,
    RPW,
    SHAPES,
    WINDOWS,
    Case,
    listed,
    parse_shape,
    parse_window,
)
from ifspace.bench.rows import (
    BOTH_WAYS,
    FORWARD,
    LAYOUTS,
    MODES,
)
from ifspace.errors import SettingError


def test_every_case_is_listed_once() -> None:
    cases = list(listed(SHAPES, WINDOWS, LAYOUTS, MODES, ["fp32"]))
    assert len(cases) == len(set(cases)) == 8 * 4 * 2 * 2
    # Both modes of a layer follow each other, forward first: it says what the other will take.
    assert [case.mode for case in cases[:4]] == [FORWARD, BOTH_WAYS] * 2
    assert all(a.shape == b.shape for a, b in zip(cases[::2], cases[1::2], strict=True))


def test_a_fused_block_is_timed_forward_only() -> None:
    cases = list(listed(SHAPES[:1], WINDOWS[:1], LAYOUTS[:1], MODES, ["bf16"], (RPW, FUSED)))
    assert [(case.kind, case.mode) for case in cases] == [
        (RPW, FORWARD),
        (RPW, BOTH_WAYS),
        (FUSED, FORWARD),
    ]


def test_a_case_knows_its_numbers() -> None:
    case = Case(128, 512, 14, 4, "0.33")
    assert (case.shape, case.pixels) == ("128x512x14", 25_088)
    assert (case.windows.width, case.windows.step, case.windows.distinct) == (128, 86, 256)
    small = case.sized(2, 7)
    assert (small.shape, small.windows) == ("2x512x7", case.windows)
    assert case.sized(1000, 1000) == case
    assert Case(1, 8, 1, 2, "0", dtype="tf32").rounding > Case(1, 8, 1, 2, "0").rounding


@pytest.mark.parametrize("text", ["128x512", "0x1x1", "axbxc", ""])
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="no such shape: got"):
        parse_shape(text)


@pytest.mark.parametrize("text", ["4", "g,1/2", "-1,0", ""])
def test_windows_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SettingError, match="no such windows: got"):
        parse_window(text)
