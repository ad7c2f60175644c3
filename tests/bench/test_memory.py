"""Peak memory, compared with the tensors that must be held."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ifspace.bench import memory
from ifspace.bench.case import run_block
from ifspace.bench.memory import peak_bytes
from ifspace.measurements import BOTH_WAYS, FORWARD

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


def peaks(here, *calls: Callable[[], None]) -> list[int | None]:
    measured: list[int] = []
    peak_list = peak_bytes(calls, here.device, here.dtype, here.threads, lambda: measured.append(1))
    assert len(measured) in (0, len(calls))
    return peak_list


@pytest.mark.slow
@LINUX
def test_peaks_are_about_those_of_the_feature_maps(block, here) -> None:
    wide, narrow = block("DW+PW", 64, side=64, batch=8), block("DW+PW", 16, 3)
    assert narrow.sized.out_channels == 3
    forward, both, small = peaks(
        here,
        partial(run_block, wide, FORWARD, here),
        partial(run_block, wide, BOTH_WAYS, here),
        partial(run_block, narrow, FORWARD, here),
    )
    one = 8 * 64 * 64 * 64 * 4
    # x, the outputs of DW and PW; both ways the gradients of y, of the one between and of x too.
    assert forward is not None
    assert both is not None
    assert small is not None
    assert 2.9 * one < forward < 3.8 * one
    assert 4.9 * one < both < 6.8 * one
    assert small < one


@pytest.mark.slow
@LINUX
def test_a_block_that_fails_has_no_peak_and_the_next_one_has(block, here) -> None:
    right = partial(run_block, block("DW+PW"), FORWARD, here)
    wrong = partial(run_block, replace(block("DW+PW"), batch=10**12), FORWARD, here)
    assert peaks(here, wrong, right, right)[0] is None
    assert None not in peaks(here, right, right)


def test_without_proc_or_a_child_process_there_are_no_peaks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, block, here
) -> None:
    call = partial(run_block, block("PW"), FORWARD, here)
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    assert peaks(here, call, call) == [None, None]
    monkeypatch.undo()
    monkeypatch.setattr(memory, "python", lambda *words: [sys.executable, "-c", "raise SystemExit"])
    assert peaks(here, call, call) == [None, None]
