from dataclasses import replace

import pytest

from ifspace.report.measured import (
    Condition,
    baseline_name,
    by_condition,
    least_of,
    median_of,
    timed,
)
from ifspace.report.read import Results

CASE = "8 to 16 channels, side 4, stride 2, fog style, 2 threads"
PLAIN = Condition(CASE, (1, 8, 16, 4, 4), "fp32", "nchw", "forward")


def test_a_condition_names_what_is_not_the_default() -> None:
    assert PLAIN.stride == 2
    assert PLAIN.what == "1 × 8→16 × 4², fp32, nchw, stride 2, fog style, 2 threads"
    usual = replace(PLAIN, case="8 to 16 channels, side 4, stride 1, plain style")
    assert (usual.what, usual.stride) == ("1 × 8→16 × 4², fp32, nchw", 1)
    flat = replace(PLAIN, shape=(1, 8, 8, 4, 2), case="RPW(4,1/2)")
    assert (flat.what, flat.stride) == ("1 × 8 × 4×2, fp32, nchw", 1)


def test_rows_are_grouped_by_condition_and_candidate(results: Results) -> None:
    conditions = by_condition(results.blocks[0].rows)
    assert [condition.mode for condition in conditions] == ["forward", "forward+backward"]
    forward, both = conditions.values()
    assert set(forward["CONV"]) == {"time", "least time", "peak memory", "params", "predicted time"}
    assert median_of(both, "CONV", "time") == pytest.approx(2.8 * forward["CONV"]["time"]["median"])
    assert median_of(forward, "CONV", "other") is None
    assert median_of(forward, "other", "time") is None


def test_rows_of_no_tensors_and_not_run_are_left_out(results: Results) -> None:
    conditions = by_condition(results.kernels[0].rows)
    assert all(None not in condition.shape for condition in conditions)
    assert not any("direct" in rows for rows in conditions.values())


def test_baselines_and_times(results: Results) -> None:
    forward = next(iter(by_condition(results.blocks[0].rows).values()))
    assert baseline_name(forward, "CONV") == "CONV(3)"
    assert baseline_name(forward, "DW+PW") is None
    assert least_of(forward, "CONV") == pytest.approx(forward["CONV"]["time"]["median"] / 2)
    bare = {"CONV": {"time": {**forward["CONV"]["time"], "provider": "baseline"}}}
    assert least_of(bare, "CONV") == forward["CONV"]["time"]["median"]
    assert baseline_name(bare, "CONV") == "CONV"
    times = dict(timed(forward))
    assert list(times.values()) == sorted(times.values())
    assert list(times)[-1] == "CONV"
