"""Rows have the columns of the contract, and numbers that can be counted by hand."""

from dataclasses import replace

import pytest

from ifspace.bench.machine import Rates
from ifspace.bench.rows import (
    BOTH_WAYS,
    COLUMNS,
    FORWARD,
    Machine,
)
from ifspace.bench.run import Timed
from ifspace.bench.session import (
    bound_s,
    count_rows,
    peak_row,
    predicted_row,
    time_rows,
)

MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")
UNIT = Rates(1.0, {"fp32": 1.0, "bf16": 1.0})
BYTES = Rates(1.0, {"fp32": 1e30, "bf16": 1e30})


def test_times_have_their_spread_and_bound(block, here) -> None:
    timed = Timed(block("PW"), FORWARD, seconds=[0.002, 0.004, 0.003])
    time, least, rounds = time_rows(timed, here, MACHINE, Rates(1e9, {"fp32": 1e30}))
    assert all(tuple(row) == COLUMNS for row in (time, least, rounds))
    assert [time[name] for name in ("metric", "unit", "median", "p20", "p80")] == [
        "time",
        "ms",
        3.0,
        2.4,
        3.6,
    ]
    # x and y of 2 x 16 x 6 x 6 numbers, 256 weights, a byte a nanosecond.
    assert time["bound"] == pytest.approx(4 * (2 * 1152 + 256) * 1e-6, rel=1e-5)
    assert (least["metric"], least["median"]) == ("least time", 2.0)
    assert (rounds["metric"], rounds["unit"], rounds["median"]) == ("rounds", "count", 3)


def test_compiled_times_have_metrics_of_their_own(block, here) -> None:
    timed = Timed(block("PW"), BOTH_WAYS, compiled=True, seconds=[0.002])
    names = [row["metric"] for row in time_rows(timed, here, MACHINE, UNIT)]
    assert names == ["time +compile", "least time +compile", "rounds +compile"]


@pytest.mark.parametrize(
    ("reason", "metric"),
    [
        ("red: output is wrong", "red: output is wrong"),
        ("it needs 13 GiB", "not run: it needs 13 GiB"),
    ],
)
def test_what_was_not_timed_says_why(reason: str, metric: str, block, here) -> None:
    (row,) = time_rows(Timed(block("PW"), FORWARD, reason=reason), here, MACHINE, UNIT)
    assert (row["metric"], row["median"], row["bound"]) == (metric, "", "")
    assert list(time_rows(Timed(block("PW"), FORWARD), here, MACHINE, UNIT)) == []


def test_counts_memory_and_predictions_are_rows_too(block, here) -> None:
    candidate = block("DW+PW", 16, 24, stride=2)
    params, macs = count_rows(candidate, here, MACHINE)
    assert (params["metric"], params["median"]) == ("params", 9 * 16 + 16 * 24)
    assert (macs["metric"], macs["unit"], macs["median"]) == ("macs", "count/pixel", 528)
    peak = peak_row(candidate, BOTH_WAYS, here, MACHINE, 3 << 19)
    assert (peak["metric"], peak["unit"], peak["median"]) == ("peak memory", "MiB", 1.5)
    row = predicted_row(candidate, FORWARD, here, MACHINE, 1.23456789)
    assert (row["metric"], row["unit"], row["median"]) == ("predicted time", "ms", 1.23457)


def test_the_bound_moves_inputs_outputs_and_weights_once(block, here) -> None:
    candidate = block("DW+PW", 16, 24, stride=2)
    x, y, weights = 2 * 16 * 144, 2 * 24 * 36, 9 * 16 + 16 * 24
    assert bound_s(candidate, here, FORWARD, BYTES) == 4 * (x + y + weights)
    assert bound_s(candidate, replace(here, dtype="bf16"), FORWARD, BYTES) == 2 * (x + y + weights)
    both = bound_s(candidate, here, BOTH_WAYS, BYTES)
    assert both == 4 * (x + y + weights) + 4 * (2 * x + y + 2 * weights)
    macs = 2 * 36 * (9 * 16 + 16 * 24)
    operations = Rates(1e30, {"fp32": 1.0})
    assert bound_s(candidate, here, FORWARD, operations) == 2 * macs
    assert bound_s(candidate, here, BOTH_WAYS, operations) == 6 * macs
