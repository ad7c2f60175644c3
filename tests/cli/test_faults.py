"""The benchmark of wrong arguments and damaged files sees each kind of fault, and goes on."""

import json
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import faults


def _raise() -> None:
    raise ValueError("of a command")


def _end(message: str, status: int) -> None:
    sys.stderr.write(message)
    sys.exit(status)


def _be_killed() -> None:
    signal.raise_signal(signal.SIGTERM)


def _work() -> None:
    try:
        while True:
            sum(range(1000))
    except KeyboardInterrupt:
        _end("ifspace: interrupted\n", 130)


def _work_on() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        sum(range(1000))


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (lambda: None, ""),
        (lambda: _end("ifspace: a note\nifspace: no such kind\n", 2), ""),
        pytest.param(_work, "", marks=pytest.mark.slow),
        (_raise, "traceback"),
        (lambda: _end("ifspace: no\n" + "such\n" * 3, 2), "long message"),
        (lambda: _end("no such kind\n", 2), "no message"),
        (lambda: _end("ifspace: no\n", 7), "status 7"),
        (_be_killed, "signal 15"),
        pytest.param(_work_on, "not to be interrupted", marks=pytest.mark.slow),
    ],
)
def test_each_kind_of_fault_is_seen(
    command: Callable[[], None], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(arguments: list[str]) -> None:
        command()
        sys.exit(0)

    monkeypatch.setattr(faults, "main", main)
    for name, value in (("WORK_S", 0.5), ("END_S", 0.2), ("BUSY", 20)):
        monkeypatch.setattr(faults, name, value)
    ended = faults.run([], tmp_path)
    assert ended.fault() == fault
    # Where a file is read, much work is a fault too.
    assert ended.fault(may_work_long=False) == ("long work" if command is _work else fault)


def test_a_run_is_drawn_by_its_number_alone() -> None:
    draws = [faults.vector(random.Random(f"0 argument vectors {n}")) for n in (3, 4, 3)]
    assert draws[0] == draws[2] != draws[1]


@pytest.mark.slow
def test_the_journal_goes_on_and_faults_are_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "runs.jsonl"
    options = ["--files", "3", "--journal", str(journal), "--out", str(tmp_path)]
    faults.benchmark(["--vectors", "2", *options])
    first = journal.read_text().splitlines()
    assert len(first) == 5
    faults.benchmark(["--vectors", "4", *options])
    lines = journal.read_text().splitlines()
    assert (lines[:5], len(lines)) == (first, 7)
    rows = list(map(json.loads, lines))
    assert not any(row["fault"] for row in rows), rows
    journal.write_text("\n".join([*lines[1:], json.dumps(rows[0] | {"fault": True})]) + "\n")
    faults.benchmark(["--vectors", "4", *options])
    assert "**7 runs, 1 faults.**" in (tmp_path / "faults.md").read_text()
    faults.benchmark(["--vectors", "4", *options, "--again"])
    assert "**7 runs, 0 faults.**" in (tmp_path / "faults.md").read_text()
    assert len(journal.read_text().splitlines()) == 8
