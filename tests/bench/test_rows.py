"""Rows are kept, replaced, read back; other files are an error."""

import csv
from dataclasses import replace
from pathlib import Path
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.bench.case import BlockCandidate, Trial
from ifspace.bench.machine import Machine, Rates, bound_s
from ifspace.bench.rows import Measurements, percentiles, start_row, with_numbers
from ifspace.bench.session import trial_rows
from ifspace.errors import OutputError, SettingError
from ifspace.measurements import (
    BOTH_WAYS,
    COLUMNS,
    COMPILED,
    FAILED,
    FORWARD,
    LEAST,
    NOT_RUN,
    ROUNDS,
    TIME,
)

MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")


@pytest.fixture
def start(block, here):
    return start_row(MACHINE, block("DW+PW").columns(here, "forward"))


def timed(start, rounds: int, suffix: str = ""):
    return [
        with_numbers(start, TIME + suffix, "ms", [1.0, 2.0, 4.0], 0.5),
        with_numbers(start, LEAST + suffix, "ms", [1.0]),
        with_numbers(start, ROUNDS + suffix, "count", [rounds]),
    ]


def test_a_candidate_is_timed_until_something_differs(start, block, here) -> None:
    measurements = Measurements(MACHINE)
    assert not measurements.is_timed(start, 3)
    measurements.put(timed(start, 3))
    assert measurements.is_timed(start, 3)
    assert not measurements.is_timed(start, 4)
    assert not measurements.is_timed(start, 3, compiled=True)
    assert measurements.number(start, LEAST) == 1.0
    for other in (
        start_row(MACHINE, block("DW+PW").columns(here, "forward+backward")),
        start_row(MACHINE, block("PW").columns(here, "forward")),
        start_row(MACHINE, block("DW+PW", side=7).columns(here, "forward")),
        start_row(MACHINE, block("DW+PW", batch=3).columns(here, "forward")),
        start_row(MACHINE, block("DW+PW").columns(replace(here, dtype="bf16"), "forward")),
        start_row(MACHINE, block("DW+PW").columns(replace(here, threads=2), "forward")),
        start_row(MACHINE, block("DW+PW").columns(replace(here, style="fog"), "forward")),
        start_row(MACHINE, block("DW+PW", calibrates=True).columns(here, "forward")),
    ):
        assert not measurements.is_timed(other, 3)
        assert measurements.number(other, LEAST) is None
    measurements.put(timed(start, 9, COMPILED))
    assert measurements.is_timed(start, 9, compiled=True)
    assert not measurements.is_timed(start, 9)


def test_a_new_row_replaces_the_old_one(start) -> None:
    measurements = Measurements(MACHINE)
    measurements.put(timed(start, 3))
    measurements.put([with_numbers(start, TIME, "ms", [7.0])])
    assert measurements.number(start, TIME) == 7.0
    assert len(list(measurements)) == 3
    measurements.put(
        [with_numbers(start, FAILED + "wrong", "", ()), with_numbers(start, NOT_RUN + "no", "", ())]
    )
    measurements.drop(start, [LEAST])
    assert [row["metric"] for row in measurements] == [TIME, ROUNDS]


def test_a_file_is_read_back_as_it_was(start, tmp_path: Path) -> None:
    measurements, path = Measurements(MACHINE), tmp_path / "blocks.csv"
    measurements.put([*timed(start, 3), with_numbers(start, FAILED + 'a, "b"', "", ())])
    measurements.write(path)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    again = Measurements(MACHINE)
    assert again.read(path) == 0
    assert again.is_timed(start, 3)
    again.write(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_a_file_without_forms_has_blocks_as_they_are(start, tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    measurements = Measurements(MACHINE)
    measurements.put(timed(start, 3))
    measurements.write(path)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    with path.open("w") as file:
        names = [name for name in COLUMNS if name != "form"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    older = Measurements(MACHINE)
    assert older.read(path) == 0
    assert older.is_timed(start, 3)
    assert not older.is_timed(start | {"form": "collapsed"}, 3)


def test_rows_of_other_versions_are_not_kept(start, tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    older = Measurements(MACHINE)
    older.put(timed(start | {"torch": "2.11.0"}, 3))
    older.write(path)
    measurements = Measurements(MACHINE)
    assert measurements.read(path) == 3
    assert list(measurements) == []


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda text: "", "other columns"),
        (lambda text: "a,b\n1,2\n", "other columns"),
        (lambda text: text.replace("median", "mean"), "other columns"),
        (lambda text: text.replace("cpu-test", "cpu-other"), "rows of cpu-other; allowed: those"),
        (lambda text: text.replace(",1.0,1.0,1.0,", ",fast,1.0,1.0,"), "line 3: median 'fast'"),
        (lambda text: text.replace(",1.0,1.0,1.0,", ",nan,1.0,1.0,"), "line 3: median 'nan'"),
        (lambda text: text[:-60], "fields, the header 22"),
        (lambda text: text + "x\n", "line 5 has 1 field, the header 22"),
        (lambda text: "\0" + text, "other columns|line contains NUL"),
    ],
)
def test_an_unrecognised_file_is_an_error_of_one_line(
    change, got: str, start, tmp_path: Path
) -> None:
    path = tmp_path / "blocks.csv"
    measurements = Measurements(MACHINE)
    measurements.put(timed(start, 3))
    measurements.write(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(SettingError, match=r"blocks\.csv cannot be added to: got ") as raised:
        Measurements(MACHINE).read(path)
    assert any(part in str(raised.value) for part in got.split("|"))
    assert "\n" not in str(raised.value)


def test_bytes_and_folders_raise(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes.csv", "none.csv", "."):
        with pytest.raises(SettingError, match="cannot be added to"):
            Measurements(MACHINE).read(tmp_path / name)
    with pytest.raises(OutputError, match="cannot be written"):
        Measurements(MACHINE).write(tmp_path / "none" / "blocks.csv")


UNIT = Rates(1.0, {"fp32": 1.0, "bf16": 1.0})
BYTES = Rates(1.0, {"fp32": 1e30, "bf16": 1e30})


def rows_of(trial: Trial[BlockCandidate], here, rates: Rates = UNIT):
    start = start_row(MACHINE, trial.candidate.columns(here, trial.mode))
    return trial_rows(trial, start, bound_of(trial.candidate, here, trial.mode, rates))


def bound_of(candidate: BlockCandidate, here, mode: str, rates: Rates) -> float:
    return bound_s(candidate.passes(here, mode), rates, here.dtype)


def test_times_have_percentiles_and_a_bound(block, here) -> None:
    trial = Trial(block("PW"), FORWARD, seconds=[0.002, 0.004, 0.003])
    time, least, rounds = rows_of(trial, here, Rates(1e9, {"fp32": 1e30}))
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
    trial = Trial(block("PW"), BOTH_WAYS, compiled=True, seconds=[0.002])
    names = [row["metric"] for row in rows_of(trial, here)]
    assert names == ["time +compile", "least time +compile", "rounds +compile"]


def test_a_block_that_was_not_timed_has_a_row_with_the_reason(block, here) -> None:
    (row,) = rows_of(Trial(block("PW"), FORWARD, reason="it needs 13 GiB"), here)
    metric = "not run: it needs 13 GiB"
    assert (row["metric"], row["median"], row["bound"]) == (metric, "", "")
    assert rows_of(Trial(block("PW"), FORWARD), here) == ()


def test_a_number_has_six_digits_and_a_count_is_whole(block, here) -> None:
    start = start_row(MACHINE, block("DW+PW").columns(here, FORWARD))
    row = with_numbers(start, "predicted time", "ms", [1.23456789])
    assert (row["metric"], row["unit"], row["median"]) == ("predicted time", "ms", 1.23457)
    counts = with_numbers(start, "params", "count", [528])
    assert [repr(counts[name]) for name in ("median", "p20", "p80")] == ["528"] * 3


@pytest.mark.slow
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_percentiles_are_those_of_the_statistics_module(numbers: list[float]) -> None:
    tenths = quantiles(numbers, n=10, method="inclusive") if numbers[1:] else numbers * 9
    assert percentiles(numbers) == pytest.approx((tenths[1], tenths[4], tenths[7]), rel=1e-12)


def test_the_bound_moves_inputs_outputs_and_weights_once(block, here) -> None:
    candidate = block("DW+PW", 16, 24, stride=2)
    x, y, weights = 2 * 16 * 144, 2 * 24 * 36, 9 * 16 + 16 * 24
    assert bound_of(candidate, here, FORWARD, BYTES) == 4 * (x + y + weights)
    half = replace(here, dtype="bf16")
    assert bound_of(candidate, half, FORWARD, BYTES) == 2 * (x + y + weights)
    both = bound_of(candidate, here, BOTH_WAYS, BYTES)
    assert both == 4 * (x + y + weights) + 4 * (2 * x + y + 2 * weights)
    macs = 2 * 36 * (9 * 16 + 16 * 24)
    operations = Rates(1e30, {"fp32": 1.0})
    assert bound_of(candidate, here, FORWARD, operations) == 2 * macs
    assert bound_of(candidate, here, BOTH_WAYS, operations) == 6 * macs
