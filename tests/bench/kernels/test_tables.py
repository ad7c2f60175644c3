"""The page of made-up rows."""

from ifspace.bench.clock import Limits
from ifspace.bench.kernels.candidates import candidates, named
from ifspace.bench.kernels.cases import RPW, Case
from ifspace.bench.kernels.rows import Timed, rate_rows, rows_of
from ifspace.bench.machine import Rates
from ifspace.bench.page import (
    ON_CPU,
    judged,
    page,
)
from ifspace.bench.rows import (
    Machine,
    Row,
)

MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")


def made_up() -> list[Row]:
    rows = list(rate_rows(Rates(37e9, {"fp32": 420e9}), MACHINE))
    seconds = {"ours": 0.02, "dense": 0.04, "grouped": 0.03, "compiled published": 0.12}
    for side in (14, 7):
        timed = [
            Timed(each, "4 super-windows" * (each.name == "ours"), (seconds[each.name],) * 3)
            if each.name in seconds
            else Timed(each, reason=f"because {side}")
            for each in named(candidates("cpu", True), RPW)
        ]
        rows += rows_of(Case(128, 512, side, 4, "1/2"), timed, 0.01, MACHINE)
    return rows


def test_the_page_says_times_ratios_ways_and_reasons() -> None:
    rows = made_up()
    text = page("cpu-test", "a test", rows, judged(rows, ON_CPU), Limits())
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    numbers = ["40.000", "0.50", "0.75", "0.50", "50%", "3"]
    assert ["128x512x14", "RPW(4,1/2)", *numbers, "4 super-windows"] in lines
    assert ["128x512x7", "RPW(4,1/2)", "0.50", "3.00"] in lines
    assert "copy 37 GB/s" in text
    assert "fp32 420 GFLOP/s" in text
    assert ["published", "because 14", "1", "RPW(4,1/2) 128x512x14 channels_last forward"] in lines
    target = next(line for line in lines if line and line[0].startswith("forward at C = 512"))
    assert target[1:4] == ["met", "2 of 2", "0"]


def test_a_missed_target_is_listed_case_by_case() -> None:
    rows = [
        row | {"median": 1.2} if (row["candidate"], row["metric"]) == ("ours", "ratio") else row
        for row in made_up()
    ]
    text = page("cpu-test", "a test", rows, judged(rows, ON_CPU), Limits())
    assert "- RPW(4,1/2) 128x512x7 channels_last: 1.2 for 1.05, 14% off" in text


def test_a_page_where_all_ran_says_so() -> None:
    rows = [row for row in made_up() if not row["metric"].startswith("not run")]
    text = page("cpu-test", "a test", rows, judged(rows, ON_CPU), Limits())
    assert "every candidate ran in every case" in text
