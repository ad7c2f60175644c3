"""Whether a run in a folder survives what ends it: kills, signals, full disks, other runs.

`python -m benchmarks.killed_runs` kills `enumerate --out FOLDER`, `merge` and `bench` at random
moments, again and again, and goes on with the same command, until each has ended; then it ends
them, their workers (of loky and of a Dask cluster), that cluster's scheduler and their folders in
every other way, and lets their clock jump. It writes `killed_runs.md` and `killed_runs.csv` into
`results/`. A fault is a finished part or row that is lost or changed, a file under its own name
that is not whole, something left over after the next run, another catalogue or other rows at the
end, or an ending that is not documented; a run that hangs is killed, which is one.

Every run is a process of its own, forked from one in which the commands are imported; only that
whose clock jumps is started anew, with Debian's libfaketime. `--kills N`: how many kills there are
in all.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks import faults
from benchmarks.cluster import Cluster
from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.catalogue import load, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.cli.main import INTERRUPTED, TERMINATED, main
from ifspace.enumerate import run as runs
from ifspace.enumerate import search
from ifspace.enumerate.search import enumerate_designs
from ifspace.measurements import COLUMNS, LEAST, PEAK, ROUNDS, TIME
from ifspace.table import Table

SETTING: Final = EnumerationSetting(channels=16, max_len=5)
ENUMERATE: Final = ("enumerate", "-C", "16", "--max-len", "5", "--quiet", "--out", "run")
MERGE: Final = ("merge", "run", "--quiet", "--out", "merged.parquet")
BENCH: Final = (
    *("bench", "small.parquet", "--top", "2", "--side", "4", "--batch", "1", "--repeats", "3"),
    *("--baselines", "conv", "--results", "out", "--channels", "8", "--no-calibrate"),
    *("--resume", "--quiet"),
)
# What is timed in half of the repeats is not timed again.
ENOUGH_ROUNDS: Final = 2
# What tells the rows of a bench apart, the metric last; and what is measured of each candidate.
SUBJECT: Final = ("case", "candidate", "form", "mode", "metric")
MEASURED: Final = (TIME, LEAST, ROUNDS, PEAK)
PARTS: Final = 16
# Seconds in which a signal must end a run, and after which one hangs.
END_S: Final = 2.0
HANGS_S: Final = 300.0
# How often workers and schedulers are killed.
TIMES: Final = 3
# By how much the clock jumps, and a run that says at its end what time it is. With the monotonic
# clock as it is, libfaketime 0.9.10 makes an error of `time.sleep`.
YEARS: Final = 40
WITH_A_CLOCK: Final = """
import select, sys, time
from benchmarks.killed_runs import work
time.sleep = lambda seconds: select.select([], [], [], seconds)
try:
    work(sys.argv[1:])
finally:
    print(time.time())
"""
# A small disk, in bytes.
DISK: Final = 96 << 10


def work(arguments: Sequence[str]) -> None:
    """Run the command line in this process, split into many parts."""
    for module, name, value in (
        (runs, "PART_S", 1e-6),
        (runs, "MOST_PARTS", PARTS),
        (search, "WORTH_WORKERS_S", 0),
    ):
        setattr(module, name, value)
    sys.argv = ["ifspace", *arguments]
    main()


def start(arguments: Sequence[str], folder: Path) -> int:
    """Return the process that runs the command line in a folder, split into many parts."""
    (folder / ".stderr").touch()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(os.open(".stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        os._exit(code)


def ended(child: int, folder: Path, most_s: float = HANGS_S) -> tuple[int, str]:
    """Return how a process ended, and its stderr; it is killed after `most_s`, or when it hangs."""
    deadline = time.monotonic() + most_s
    while not (answer := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # workers that a killed process left
    return os.waitstatus_to_exitcode(answer[1]), (folder / ".stderr").read_text(errors="replace")


def parts_of(run: Path) -> dict[str, bytes]:
    """Return the finished parts of a run."""
    return {path.name: path.read_bytes() for path in run.glob("shard-*.parquet")}


Subject = tuple[str, ...]


def rows_of(out: Path) -> dict[Subject, dict[str, str]]:
    """Return the rows of a bench by candidate and metric; none where there is no file yet.

    Raises: ValueError where a line is not a whole row, or two are of the same.
    """
    rows: dict[Subject, dict[str, str]] = {}
    for path in out.glob("bench/blocks-*.csv"):
        text = path.read_text()
        reader = csv.DictReader(text.splitlines())
        if not text.endswith("\n") or tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError("half a file")
        for row in reader:
            key = tuple(row[name] for name in SUBJECT)
            if None in row or None in row.values():
                raise ValueError("half a row")
            if key in rows:
                raise ValueError("two rows of the same")
            rows[key] = row
    return rows


def finished_rows(
    rows: Mapping[Subject, dict[str, str]],
) -> dict[Subject, dict[str, str]]:
    """Return the rows that a resumed bench does not measure again."""
    timed = {
        key[:-1]
        for key, row in rows.items()
        if key[-1] == ROUNDS and float(row["median"]) >= ENOUGH_ROUNDS
    }
    return {key: row for key, row in rows.items() if key[:-1] in timed and key[-1] in MEASURED}


def digest(path: Path) -> str:
    """Return a hash of a file."""
    return sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Ending:
    """One way in which runs were ended: how often, what came of it, and what was wrong."""

    way: str
    times: int
    outcome: str
    faults: tuple[str, ...]


def kill_at_random(folder: Path, kills: int, expected: str, chance: random.Random) -> list[Ending]:
    """Kill enumerations and merges at random moments; go on with each until it ends."""
    wrong: dict[str, list[str]] = {name: [] for name in ("enumerate", "merge")}
    count = dict.fromkeys(wrong, 0)
    whole = dict.fromkeys(wrong, 0)
    jobs = cycle(("1", "1", "2"))
    commands = {"enumerate": ENUMERATE, "merge": MERGE}
    whole_s = {name: _undisturbed(command, folder) for name, command in commands.items()}
    shutil.rmtree(folder / "run")
    while sum(count.values()) < kills:
        finished: dict[str, bytes] = {}
        while True:
            arguments = (*ENUMERATE, "--jobs", next(jobs))
            after_s = chance.uniform(0.0, whole_s["enumerate"])
            status, stderr = ended(start(arguments, folder), folder, after_s)
            now = parts_of(folder / "run")
            if not finished.items() <= now.items():
                wrong["enumerate"].append("a finished part was lost or changed")
            finished = now
            if status == -signal.SIGKILL:
                count["enumerate"] += 1
                continue
            if status:
                wrong["enumerate"].append(f"status {status}: {stderr.strip()[-200:]}")
            break
        whole["enumerate"] += 1
        names = {"manifest.json", *(f"shard-{number:05}.parquet" for number in range(PARTS))}
        if left := sorted(set(os.listdir(folder / "run")) - names):
            wrong["enumerate"].append(f"left over: {left}")
        merged = folder / "merged.parquet"
        for _ in range(4 if 4 * count["merge"] < 3 * count["enumerate"] else 0):
            status, stderr = ended(
                start(MERGE, folder), folder, chance.uniform(0.0, whole_s["merge"])
            )
            count["merge"] += status == -signal.SIGKILL
            if merged.exists() and digest(merged) != expected:
                wrong["merge"].append("half a file")
            merged.unlink(missing_ok=True)
        status, stderr = ended(start(MERGE, folder), folder)
        whole["merge"] += 1
        if status or digest(merged) != expected:
            wrong["merge"].append(f"other bytes, status {status}: {stderr.strip()[-200:]}")
        if left := [name for name in os.listdir(folder) if name.endswith(".tmp")]:
            wrong["merge"].append(f"left over: {left}")
        shutil.rmtree(folder / "run")
        merged.unlink(missing_ok=True)
    return [
        Ending(f"kill -9: {name}", count[name], f"{whole[name]} ended whole", tuple(wrong[name]))
        for name in wrong
    ]


def kill_bench(folder: Path, kills: int, chance: random.Random) -> Ending:
    """Kill a bench at random moments; go on with it until it ends, and begin anew."""
    _undisturbed(BENCH, folder)  # which compiles
    expected = set(rows_of(folder / "out"))
    shutil.rmtree(folder / "out")
    whole_s = _undisturbed(BENCH, folder)
    shutil.rmtree(folder / "out")
    count, whole, kept = 0, 0, 0
    wrong: list[str] = []
    while count < kills:
        finished: dict[Subject, dict[str, str]] = {}
        status = -signal.SIGKILL
        while status == -signal.SIGKILL:
            status, stderr = ended(start(BENCH, folder), folder, chance.uniform(0.1, whole_s))
            try:
                rows = rows_of(folder / "out")
            except ValueError as error:
                wrong.append(str(error))
                break
            if not finished.items() <= rows.items():
                wrong.append("a finished row was lost or changed")
            finished = finished_rows(rows)
            if status == -signal.SIGKILL:
                count += 1
                kept += len(finished)
            elif status:
                wrong.append(f"status {status}: {stderr.strip()[-200:]}")
            else:
                whole += 1
                wrong += _bench_faults(folder, expected)
        shutil.rmtree(folder / "out")
    outcome = f"{whole} ended whole; {kept} finished rows were there at a kill, and stayed"
    return Ending("kill -9: bench", count, outcome, tuple(wrong))


def _undisturbed(arguments: Sequence[str], folder: Path) -> float:
    """Return the seconds of a run that nothing ends."""
    started_s = time.monotonic()
    status, stderr = ended(start(arguments, folder), folder)
    if status:
        raise RuntimeError(f"{arguments[0]} ends with {status}: {stderr}")
    return time.monotonic() - started_s


def _bench_faults(folder: Path, expected: set[Subject]) -> list[str]:
    """Return what is wrong with the results of a bench that has ended."""
    wrong = []
    rows = rows_of(folder / "out")
    if set(rows) != expected:
        wrong.append(f"other rows: {sorted(set(rows) ^ expected)[:3]}")
    unfinished = {key for key in rows if key[-1] in MEASURED} - set(finished_rows(rows))
    if unfinished:
        wrong.append(f"not finished: {sorted(unfinished)[:3]}")
    if left := [path.name for path in (folder / "out").rglob("*.tmp")]:
        wrong.append(f"left over: {left}")
    return wrong


def _at_first_part(folder: Path, *options: str) -> int:
    """Return a run that has just finished its first part."""
    child = start((*ENUMERATE, *options), folder)
    deadline = time.monotonic() + 60
    while not parts_of(folder / "run") and time.monotonic() < deadline:
        time.sleep(0.002)
    return child


def _goes_on(folder: Path, expected: str) -> list[str]:
    """Return what is wrong when the same command goes on, and its parts are merged."""
    wrong = []
    for arguments in (ENUMERATE, MERGE):
        status, stderr = ended(start(arguments, folder), folder)
        if status:
            wrong.append(f"{arguments[0]} ends with {status}: {stderr.strip()[-200:]}")
    if not wrong and digest(folder / "merged.parquet") != expected:
        wrong.append("other bytes")
    if left := [name for name in os.listdir(folder / "run") if name.startswith(".")]:
        wrong.append(f"left over: {left}")
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "merged.parquet").unlink(missing_ok=True)
    return wrong


def signalled(folder: Path, expected: str) -> list[Ending]:
    """Interrupt and terminate runs of one process and of two."""
    endings = []
    for number, status in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)):
        wrong, longest_s = [], 0.0
        for jobs in ("1", "2", "1"):
            child = _at_first_part(folder, "--jobs", jobs)
            started_s = time.monotonic()
            os.kill(child, number)
            result, stderr = ended(child, folder)
            longest_s = max(longest_s, time.monotonic() - started_s)
            if result not in (status, 0) or "Traceback" in stderr:
                wrong.append(f"status {result}: {stderr.strip()[-200:]}")
            wrong += _goes_on(folder, expected)
        if longest_s > END_S:
            wrong.append(f"took {longest_s:.1f} s to end")
        outcome = f"status {status} after {longest_s:.2f} s at most, and gone on with"
        endings.append(Ending(number.name, 3, outcome, tuple(wrong)))
    return endings


def lost_worker(folder: Path, expected: str) -> Ending:
    """Kill a worker process of a run of two."""

    def lose(child: int) -> None:
        with suppress(psutil.Error):
            workers = [
                process
                for process in psutil.Process(child).children(recursive=True)
                if "loky" in " ".join(process.cmdline()) and "tracker" not in process.cmdline()[-1]
            ]
            for process in workers[:1]:
                process.kill()

    wrong, statuses = [], []
    for _ in range(TIMES):
        status, faults_of_it = _without(lose, folder, expected, "--jobs", "2")
        statuses.append(status)
        wrong += faults_of_it
    return Ending("a worker of loky killed", TIMES, _outcome(statuses), tuple(wrong))


def lost_in_cluster(folder: Path, expected: str) -> list[Ending]:
    """Kill a worker of a Dask cluster, and the scheduler of another, during a run."""
    endings = []
    for which in ("worker", "scheduler"):
        wrong, statuses = [], []
        for _ in range(TIMES):
            status, faults_of_it = _without_some_of_cluster(which, folder, expected)
            statuses.append(status)
            wrong += faults_of_it
        endings.append(Ending(f"a {which} of Dask killed", TIMES, _outcome(statuses), tuple(wrong)))
    return endings


def _without_some_of_cluster(which: str, folder: Path, expected: str) -> tuple[int, list[str]]:
    running = Cluster(2, Path(tempfile.mkdtemp(dir=folder)))
    lost = running.workers[0] if which == "worker" else running.scheduler
    try:
        _wait(running)
        engine = ("--backend", "dask", "--address", str(running.address))
        return _without(lambda _: lost.kill(), folder, expected, *engine)
    finally:
        running.stop()


def _wait(running: Cluster) -> None:
    """Wait for a cluster in a process of its own: a client leaves threads, which forks lack."""
    child = os.fork()
    if not child:
        try:
            running.wait()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _without(
    lose: Callable[[int], None], folder: Path, expected: str, *engine: str
) -> tuple[int, list[str]]:
    """Return how a run ends that loses some of its engine after its first part, and what is wrong.

    `lose`: is called with the process of the run.
    """
    child = _at_first_part(folder, *engine)
    lose(child)
    status, stderr = ended(child, folder)
    wrong = []
    if status not in (0, 1) or (status == 1 and "not done: " not in stderr):
        wrong.append(f"status {status}: {stderr.strip()[-200:]}")
    return status, wrong + _goes_on(folder, expected)


def _outcome(statuses: Sequence[int]) -> str:
    ways = {0: "done by the others", 1: "status 1, with what is not done"}
    counts = {status: statuses.count(status) for status in ways if status in statuses}
    return "; ".join(f"{ways[status]}, {count} times" for status, count in counts.items())


def full_and_read_only(folder: Path, expected: str) -> list[Ending]:
    """Run on a disk that is full, and on one that cannot be written; go on when there is room."""
    disk = folder / "run"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        return [Ending("a full disk", 0, "not tried: file systems cannot be mounted here", ())]
    endings = []
    try:
        status, stderr = ended(start(ENUMERATE, folder), folder)
        wrong = [] if status == 2 and "No space left" in stderr else [f"status {status}: {stderr}"]
        if left := [name for name in os.listdir(disk) if name.endswith(".tmp")]:
            wrong.append(f"left over: {left}")
        endings.append(Ending("a full disk", 1, "status 2, one line, gone on with", tuple(wrong)))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        status, stderr = ended(start(ENUMERATE, folder), folder)
        wrong = [] if status == 2 and "Read-only" in stderr else [f"status {status}: {stderr}"]
        endings.append(Ending("a read-only folder", 1, "status 2, one line", tuple(wrong)))
        kept = folder / "kept"
        shutil.copytree(disk, kept)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    disk.rmdir()
    kept.rename(disk)
    more = _goes_on(folder, expected)
    endings[0] = Ending(endings[0].way, 1, endings[0].outcome, (*endings[0].faults, *more))
    return endings


def two_runs(folder: Path, expected: str) -> Ending:
    """Start a second run in a folder in which one works, and one after a killed one."""
    child = _at_first_part(folder, "--jobs", "1")
    os.kill(child, signal.SIGSTOP)
    status, stderr = ended(start(ENUMERATE, folder), folder)
    wrong = []
    if status != 2 or f"process {child} on" not in stderr:
        wrong.append(f"status {status}: {stderr}")
    os.kill(child, signal.SIGKILL)
    ended(child, folder)
    wrong += _goes_on(folder, expected)
    outcome = "status 2, names the process; when that is killed the next one goes on"
    return Ending("two runs in a folder", 1, outcome, tuple(wrong))


def times_of_files(folder: Path, expected: str) -> Ending:
    """Give the parts of a run times of the past and the future."""
    os.kill(child := _at_first_part(folder, "--jobs", "1"), signal.SIGKILL)
    ended(child, folder)
    for index, path in enumerate(sorted((folder / "run").iterdir())):
        years = (-YEARS, YEARS)[index % 2] * 365 * 86400
        os.utime(path, (time.time() + years, time.time() + years))
    wrong = _goes_on(folder, expected)
    return Ending("files of other times", 1, "no time is read: gone on with", tuple(wrong))


def clock_jumps(folder: Path, expected: str) -> Ending:
    """Let the clock of runs jump back and forward at each part; end one of them in between."""
    way = "a clock that jumps"
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        return Ending(way, 0, "not tried: there is no libfaketime (Debian's faketime)", ())
    wrong, jumps = [], 0
    for jobs, most_parts in (("1", PARTS), ("2", PARTS), ("1", PARTS // 2)):
        clock = folder / "clock"
        clock.write_text("+0")
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WITH_A_CLOCK,
                *ENUMERATE[:-1],
                str(folder / "run"),
                "--jobs",
                jobs,
            ],
            env=os.environ
            | {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline, parts, years = time.monotonic() + HANGS_S, 0, 0
        while child.poll() is None and time.monotonic() < deadline and parts < most_parts:
            if (now := len(parts_of(folder / "run"))) > parts:
                parts, years = now, YEARS if years < 0 else -YEARS
                (folder / "clock.new").write_text(f"{years:+}y")
                (folder / "clock.new").rename(clock)
                jumps += 1
            time.sleep(0.002)
        if most_parts < PARTS:
            child.kill()
        stdout, stderr = child.communicate(timeout=HANGS_S)
        if most_parts == PARTS:
            off_years = (float(stdout or 0) - time.time()) / 86400 / 365
            if child.returncode or abs(off_years - years) > 1:
                wrong.append(f"status {child.returncode}, {off_years:.0f} years: {stderr[-200:]}")
        wrong += _goes_on(folder, expected)
    return Ending(way, 3, f"{jumps} times by {YEARS} years: done, or gone on with", tuple(wrong))


def benchmark(arguments: Sequence[str] | None = None) -> None:
    """End runs in every way, print each fault, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=faults.RESULTS)
    options = parser.parse_args(arguments)
    faults.import_all()
    # No TemporaryDirectory: a forked run that is interrupted would remove it when it ends.
    folder = Path(tempfile.mkdtemp())
    try:
        save(enumerate_designs([SETTING], jobs=1), folder / "one.parquet")
        save(
            enumerate_designs([EnumerationSetting(channels=8, max_len=3)], jobs=1),
            folder / "small.parquet",
        )
        expected = digest(folder / "one.parquet")
        assert load(folder / "one.parquet").designs
        chance, of_bench = random.Random(options.seed), options.kills // 8
        steps: tuple[Callable[[], Any], ...] = (
            lambda: kill_at_random(folder, options.kills - of_bench, expected, chance),
            lambda: [kill_bench(folder, of_bench, chance)],
            lambda: signalled(folder, expected),
            lambda: [lost_worker(folder, expected)],
            lambda: lost_in_cluster(folder, expected),
            lambda: full_and_read_only(folder, expected),
            lambda: [two_runs(folder, expected)],
            lambda: [times_of_files(folder, expected)],
            lambda: [clock_jumps(folder, expected)],
        )
        endings: list[Ending] = []
        for step in steps:
            for ending in step():
                print(f"{ending.way}: {ending.times} times, {ending.outcome}", flush=True)
                for fault in ending.faults:
                    print(f"    fault: {fault}", flush=True)
                endings.append(ending)
    finally:
        shutil.rmtree(folder)
    command = f"python -m benchmarks.killed_runs --kills {options.kills}"
    write_page(options.out, endings, command)


def write_page(out: Path, endings: Sequence[Ending], command: str) -> None:
    """Write how runs were ended, and what came of it."""
    count = sum(len(ending.faults) for ending in endings)
    kills = sum(ending.times for ending in endings if ending.way.startswith("kill -9"))
    rows = [
        {"way": x.way, "times": x.times, "outcome": x.outcome, "faults": len(x.faults)}
        for x in endings
    ]
    page = [
        "# Runs that are killed, interrupted and gone on with",
        f"Written by {provenance(command)}.",
        f"`ifspace enumerate --out FOLDER` in {PARTS} parts by one process, by two and by a Dask "
        "cluster of two workers, `merge` and `bench --resume`, ended in the middle and gone on "
        "with by the same command. A fault is a finished part or row that is lost or changed, a "
        "file or a row that is not whole, something left over after the next run, another "
        "catalogue or other rows at the end, or an ending that is not documented.",
        f"**{kills} kills, {count} faults.**",
        Table(tuple(rows[0]), tuple(tuple(row.values()) for row in rows)).markdown(),
    ]
    write_results(out, "killed_runs", page, rows, command)


if __name__ == "__main__":
    benchmark()
