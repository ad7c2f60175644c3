"""The stages of a run on a GPU: their limits, what a failing test stops, and a dry run."""

import csv
import re
from pathlib import Path

import pytest

from benchmarks.gpu import (
    CUDA_TESTS,
    FAILED,
    PASSED,
    ROOT,
    SKIPPED,
    STOPPED,
    Stage,
    main,
    outcomes,
    run,
    stages_of,
)

FAST = (("-c", "print(7)"),)


def stage(text: str, *, limit_s: float = 60.0, is_test: bool = False) -> Stage:
    return Stage("one", (*FAST, ("-c", text)), limit_s, is_test)


def test_nothing_is_timed_after_a_test_that_fails() -> None:
    stages = (stage("pass"), stage("raise SystemExit('wrong')", is_test=True), stage("pass"))
    ended = list(outcomes(stages, "cpu", 60.0))
    assert [outcome.status for outcome in ended] == [PASSED, FAILED, SKIPPED]
    assert "wrong" in ended[1].output
    assert "print(7)" not in ended[1].output  # of what failed only


def test_what_there_is_can_be_timed_all_the_same() -> None:
    stages = (stage("raise SystemExit('wrong')", is_test=True), stage("pass"))
    ended = outcomes(stages, "cpu", 60.0, despite_failures=True)
    assert [outcome.status for outcome in ended] == [FAILED, PASSED]


def test_the_tests_of_a_card_are_all_those_that_use_its_device() -> None:
    """Those of a CPU alone would fail there, or take the minutes of the card."""
    names = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests/kernels").rglob("test_*.py")
        if re.search(r"^def test_.*\bdevice\b|\bDEVICE\b", path.read_text(), re.MULTILINE)
    }
    assert names < set(CUDA_TESTS)


def test_times_that_fail_stop_nothing() -> None:
    stages = (stage("raise SystemExit(2)"), stage("pass"))
    assert [outcome.status for outcome in outcomes(stages, "cpu", 60.0)] == [FAILED, PASSED]


def test_a_stage_is_stopped_at_its_limit_and_all_at_theirs() -> None:
    slow = "import time; time.sleep(60)"
    ended = run(stage(slow, limit_s=0.5), "cpu", 60.0)
    assert ended.status == STOPPED
    assert ended.seconds < 20
    statuses = [end.status for end in outcomes((stage(slow), stage("pass")), "cpu", 0.5)]
    assert statuses == [STOPPED, SKIPPED]


def test_on_a_card_tests_come_first_and_all_fits_into_ten_minutes() -> None:
    first, *times, last = stages_of("cuda", Path("results"))
    assert first.is_test
    assert last.is_test
    assert sum(one.limit_s for one in (first, *times)) < 570
    (command,) = first.commands
    assert set(CUDA_TESTS) <= set(command)
    for one in times:
        for command in one.commands:
            assert command[command.index("--device") + 1] == "cuda"


@pytest.mark.slow
def test_a_dry_run_on_a_cpu(tmp_path: Path) -> None:
    main(["--device", "cpu", "--out", str(tmp_path)])
    page = (tmp_path / "bench" / "gpu-dry-run.md").read_text()
    assert page.count("passed") == 4
    (kernels,) = (tmp_path / "bench").glob("cpu-*.csv")
    with kernels.open(newline="") as file:
        names = {row["candidate"] for row in csv.DictReader(file)}
    rivals = {"dense", "grouped + shuffle", "DW, then dense", "DW, then grouped + shuffle"}
    assert {"ours", *rivals} <= names
    assert list((tmp_path / "bench").glob("blocks-*.csv"))
