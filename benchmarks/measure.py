"""What the benchmarks share: child processes, searches timed in turn, files of results."""

import csv
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import psutil

from ifspace.bench.record import list_in_readme

Solution = TypeVar("Solution")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a finished child used: wall time, peak memory of it and its children; its output.

    `processor_s`: the processor's seconds of it and of those children that it has waited for.
    """

    seconds: float
    peak_mib: float
    output: str
    processor_s: float


def watch(command: Sequence[str], interval_s: float = 0.05) -> Usage:
    """Run a command and return what it used; its memory is sampled every `interval_s`.

    Raises: subprocess.CalledProcessError when the command fails.
    """
    start, spent_s = time.perf_counter(), _children_s()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak_mib = 0.0
    while child.poll() is None:
        peak_mib = max(peak_mib, _resident_mib(child.pid))
        time.sleep(interval_s)
    seconds = time.perf_counter() - start
    output = child.communicate()[0]
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, output)
    return Usage(seconds, peak_mib, output, _children_s() - spent_s)


def _children_s() -> float:
    """Return the processor's seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants, 0 for those that have ended."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0.0
    resident = 0
    for process in family:
        try:
            resident += process.memory_info().rss
        except psutil.Error:  # it ended after it was listed
            continue
    return resident / 2**20


def in_turn(
    searches: Mapping[str, Callable[[], Solution]], repeats: int
) -> tuple[list[Solution], dict[str, float]]:
    """Run searches in turn; return all solutions, and the median seconds of each search.

    A search that raises TimeoutError is not run again, and has no median.
    """
    solutions: list[Solution] = []
    times: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(repeats):
        for name in list(times):
            start = time.perf_counter()
            try:
                solutions.append(searches[name]())
            except TimeoutError:
                del times[name]
                continue
            times[name].append(time.perf_counter() - start)
    return solutions, {name: median(seconds) for name, seconds in times.items()}


def write_results(
    folder: Path,
    name: str,
    page: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    command: str,
    figures: Sequence[str] = (),
    line_end: str = "\r\n",
) -> None:
    """Write `name.md` and `name.csv` into a folder and list them in its README.

    `page`: the paragraphs; `rows`: those of the CSV file, which has a column for every key;
    `figures`: names of further files that have been written already; `line_end`: of the CSV file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n\n".join(page) + "\n")
    with (folder / f"{name}.csv").open("w", newline="") as file:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns, lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)
    list_in_readme(folder, [f"{name}.md", f"{name}.csv", *figures], command)
    print(f"written: {folder / f'{name}.md'}")
