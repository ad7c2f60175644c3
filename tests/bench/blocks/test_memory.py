"""The most memory held at once, beside what must be held."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ifspace.bench import memory
from ifspace.bench.memory import peaks
from ifspace.bench.rows import (
    BOTH_WAYS,
    FORWARD,
)

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


@LINUX
def test_peaks_are_about_those_of_the_maps(block, here) -> None:
    done: list[int] = []
    candidate = block("DW+PW", 64, side=64, batch=8)
    cases = [(candidate, FORWARD), (candidate, BOTH_WAYS), (block("DW+PW", 16, 3), FORWARD)]
    assert cases[2][0].sized.out_channels == 3
    forward, both, small = peaks(cases, here, lambda: done.append(1))
    one = 8 * 64 * 64 * 64 * 4
    # x, what DW writes, what PW writes; both ways the gradients of y, of that between and of x too.
    assert forward is not None
    assert both is not None
    assert small is not None
    assert 2.9 * one < forward < 3.8 * one
    assert 4.9 * one < both < 6.8 * one
    assert small < one
    assert len(done) == 3


@LINUX
def test_a_block_that_fails_has_no_peak_and_the_next_one_has(block, here) -> None:
    cases = [(block("DW+PW"), FORWARD)] * 2
    wrong = replace(cases[0][0], batch=10**12)
    assert peaks([(wrong, FORWARD), *cases], here, lambda: None)[0] is None
    assert None not in peaks(cases, here, lambda: None)


def test_where_the_system_does_not_tell_there_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, block, here
) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    assert peaks([(block("PW"), FORWARD)] * 2, here, lambda: None) == [None, None]
    monkeypatch.undo()
    monkeypatch.setattr(memory, "python", lambda *words: [sys.executable, "-c", "raise SystemExit"])
    assert peaks([(block("PW"), FORWARD)] * 2, here, lambda: None) == [None, None]
