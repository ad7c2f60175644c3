"""Rows have the columns of the contract, and numbers that can be counted by hand."""

import pytest

from ifspace.bench.kernels.candidates import Candidate, candidates, named
from ifspace.bench.kernels.cases import RPW, Case
from ifspace.bench.kernels.rows import Timed, rate_rows, rows_of
from ifspace.bench.machine import Rates
from ifspace.bench.rows import (
    COLUMNS,
    Machine,
    Row,
    spread,
)

CONTRACT = (
    "case, candidate, provider, mode, dtype, layout, N, C, F, H, W, metric, unit, median, p20, "
    "p80, bound, device, torch, triton, date"
)
MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")
CASE = Case(2, 16, 5, 4, "0.33")
OURS, DENSE, ZEROS = named(candidates("reference", False), RPW)[:3]


def rows(*timed: Timed) -> list[Row]:
    return list(rows_of(CASE, timed, 1e-3, MACHINE))


def of(found: list[Row], candidate: Candidate, metric: str) -> Row:
    (row,) = (r for r in found if (r["candidate"], r["metric"]) == (candidate.name, metric))
    return row


def test_rows_have_exactly_the_columns_of_the_contract() -> None:
    assert ", ".join(COLUMNS) == CONTRACT
    timed = (Timed(OURS, "way", (1.0,)), Timed(DENSE, seconds=(1.0,)), Timed(ZEROS, reason="no"))
    for row in [*rows(*timed), *rate_rows(Rates(1e9, {"fp32": 2e9}), MACHINE)]:
        assert tuple(row) == COLUMNS


def test_the_numbers_of_a_candidate() -> None:
    ours = Timed(OURS, "dense", (0.002, 0.004, 0.003))
    found = rows(ours, Timed(DENSE, seconds=(0.001, 0.002, 0.006)))
    time = of(found, OURS, "time")
    assert (time["unit"], time["median"], time["bound"]) == ("ms", 3.0, 1.0)
    assert (time["p20"], time["p80"]) == (2.4, 3.6)
    assert of(found, OURS, "least time")["median"] == 2.0
    assert of(found, OURS, "share of bound")["median"] == pytest.approx(1 / 3, rel=1e-5)
    assert of(found, OURS, "rounds")["median"] == 3
    # Round by round: 2, 2 and a half.
    ratio = of(found, OURS, "ratio")
    assert (ratio["median"], ratio["unit"]) == (2.0, "x dense")
    assert of(found, OURS, "ratio of least times")["median"] == 2.0
    assert time["provider"] == "ifspace reference: dense"
    keys = ("case", "mode", "dtype", "layout", "N", "C", "F", "H", "W", "device", "date")
    assert [time[key] for key in keys] == [
        "RPW(4,0.33)",
        "forward",
        "fp32",
        "channels_last",
        2,
        16,
        16,
        5,
        5,
        "cpu-test",
        "2026-11-21",
    ]


def test_a_single_call_is_compared_with_the_median() -> None:
    found = rows(Timed(OURS, seconds=(0.03,)), Timed(DENSE, seconds=(0.001, 0.002, 0.009)))
    assert of(found, OURS, "ratio")["median"] == 15.0


def test_a_candidate_that_did_not_run_has_a_row_that_says_why() -> None:
    found = rows(Timed(OURS, reason="it needs 13 GiB of 12"), Timed(DENSE, seconds=(0.001,)))
    row = of(found, OURS, "not run: it needs 13 GiB of 12")
    assert (row["median"], row["bound"]) == ("", "")


def test_without_the_baseline_there_is_no_ratio() -> None:
    found = rows(Timed(OURS, seconds=(0.03,)), Timed(DENSE, reason="no"))
    assert {row["metric"] for row in found if row["candidate"] == "ours"} == {
        "time",
        "least time",
        "share of bound",
        "rounds",
    }


def test_the_rates_are_rows_too() -> None:
    copy, product = rate_rows(Rates(4.3e12, {"bf16": 7.9e14}), MACHINE)
    assert (copy["case"], copy["median"], copy["unit"]) == ("copy", 4300.0, "GB/s")
    assert (product["dtype"], product["median"], product["unit"]) == ("bf16", 790000.0, "GFLOP/s")


def test_the_spread_of_one_number_is_that_number() -> None:
    assert spread([2.0]) == (2.0, 2.0, 2.0)
