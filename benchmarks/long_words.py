"""The search of long compositions: a run in a folder that goes on where it stopped.

`python -m benchmarks.long_words FOLDER` runs `ifspace enumerate -C 64 --max-len N --out FOLDER/N`
for every length N of `--lengths`, and writes `long-words.md` and `long-words.csv` into `results/`
for the lengths that FOLDER then has whole. The same command again goes on. What the runs take is
sampled and added up, over interruptions too, in FOLDER/N.json. `--processes N` then runs length N
anew by one process and by two in turn, and keeps the seconds of both in FOLDER/processes.json.

Nothing of it is taken on trust: compositions and those after repeated patterns are compared with
their closed counts, the survivors of each length with those of every shorter run, and a sample of
the designs is checked, layer by layer, by code that knows no search.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.catalogue import Design, Funnel
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.catalogue.shards import Shards
from ifspace.enumerate.compositions import count_kept
from ifspace.enumerate.oracle import passes
from ifspace.table import Table

CHANNELS: Final = 64
LENGTHS: Final = (6, 7, 8, 9, 10, 12)
# The aims for the longest.
AIM_MINUTES: Final = 120
AIM_MIB: Final = 4096
CHECKED: Final = 200
SAMPLE_S: Final = 1.0
PROCESSES: Final = "processes.json"
ROUNDS: Final = 2


@dataclass(slots=True)
class Taken:
    """What a run took so far, in all of its sittings.

    `wall_s`, `processor_s`: seconds, those of the processor in all processes together; `peak_mib`:
    resident memory of all processes together, what they share counted in each. `commits`: at which
    the sittings were.
    """

    wall_s: float = 0.0
    processor_s: float = 0.0
    peak_mib: float = 0.0
    sittings: int = 0
    jobs: list[int] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the runs, and of what they took")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--processes", type=int, metavar="N", help="compare one and two at N")
    parser.add_argument("--page-only", action="store_true", help="run nothing, write the page")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    lengths = sorted(options.lengths)
    if not options.page_only:
        for length in lengths:
            sit(options.folder, length, options.jobs)
    if options.processes is not None:
        compare(options.folder, options.processes)
    rows = [row(options.folder, length) for length in lengths]
    check(rows)
    command = "python -m benchmarks.long_words FOLDER --lengths " + " ".join(map(str, lengths))
    paragraphs = page(rows, str(provenance(command)))
    if (options.folder / PROCESSES).exists():
        paragraphs.append(compared(options.folder))
    write_results(options.out, "long-words", paragraphs, rows, command)


def sit(folder: Path, length: int, jobs: int) -> None:
    """Run one length to its end, and keep what it takes.

    Raises: SystemExit when it fails or is interrupted.
    """
    place, notes = folder / str(length), folder / f"{length}.json"
    before = Taken(**json.loads(notes.read_text())) if notes.exists() else Taken()
    before.sittings += 1
    before.jobs.append(jobs)
    before.commits.append(provenance("").commit)
    command = ("enumerate", "-C", CHANNELS, "--max-len", length, "--out", place, "--jobs", jobs)
    begin_s = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "ifspace", *map(str, command)], stdout=subprocess.DEVNULL
    )
    # A signal ends the run first, which leaves a folder that can be gone on with.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: child.send_signal(number))
    processor: dict[int, float] = {}
    peak_mib = before.peak_mib
    while True:
        code = child.poll()
        peak_mib = max(peak_mib, _sample(child.pid, processor) / 2**20)
        taken = Taken(
            before.wall_s + time.perf_counter() - begin_s,
            before.processor_s + sum(processor.values()),
            peak_mib,
            before.sittings,
            before.jobs,
            before.commits,
        )
        notes.write_text(json.dumps(asdict(taken)))
        if code is not None:
            break
        time.sleep(SAMPLE_S)
    if code:
        raise SystemExit(code)


def compare(folder: Path, length: int) -> None:
    """Run one length by one process and by two in turn, and keep the seconds of each."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for jobs, times in seconds.items():
            with tempfile.TemporaryDirectory() as place:
                sit(Path(place), length, jobs)
                times.append(
                    Taken(**json.loads((Path(place) / f"{length}.json").read_text())).wall_s
                )
    notes = {"length": length, "commit": provenance("").commit, "seconds": seconds}
    (folder / PROCESSES).write_text(json.dumps(notes))


def compared(folder: Path) -> str:
    """Return the paragraph about two processes beside one."""
    notes = json.loads((folder / PROCESSES).read_text())
    one, two = (notes["seconds"][jobs] for jobs in ("1", "2"))
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    return (
        f"Two processes beside one, at length {notes['length']} and commit {notes['commit']}, in "
        f"turn {len(one)} times: **{min(one) / min(two):.2f} times as fast** by the clock (least "
        f"of each; {min(ratios):.2f} to {max(ratios):.2f} in the rounds), each with its own start."
    )


def _sample(pid: int, processor: dict[int, float]) -> int:
    """Note the processor seconds of a process and its descendants; return their memory."""
    resident = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            times, memory = process.cpu_times(), process.memory_info().rss
        except psutil.Error:  # it ended after it was listed
            continue
        processor[process.pid] = times.user + times.system
        resident += memory
    return resident


def row(folder: Path, length: int) -> dict[str, Any]:
    """Return what a run counted and what it took.

    Raises: CatalogueError where it has not ended.
    """
    shards = Shards.read(folder / str(length))
    (funnel,) = shards.funnels
    taken = Taken(**json.loads((folder / f"{length}.json").read_text()))
    size = sum(path.stat().st_size for path in (folder / str(length)).iterdir())
    return {
        "length": length,
        "compositions": funnel.compositions,
        "after_patterns": funnel.after_patterns,
        "words_searched": funnel.words_searched,
        "choices_covered": funnel.choices_covered,
        "choices_checked": funnel.choices_checked,
        "survivors": funnel.survivors,
        "distinct_networks": funnel.distinct_networks,
        "by_length": " ".join(map(str, funnel.by_length)),
        "networks_by_length": " ".join(map(str, funnel.distinct_networks_by_length or ())),
        "parts": len(shards),
        "folder_mib": round(size / 2**20, 1),
        "processor_s": round(taken.processor_s, 1),
        "wall_s": round(taken.wall_s, 1),
        "peak_mib": round(taken.peak_mib),
        "jobs": max(taken.jobs),
        "sittings": taken.sittings,
        "commits": " ".join(dict.fromkeys(taken.commits)),
        "checked": checked(shards, funnel),
    }


def checked(shards: Shards, funnel: Funnel) -> int:
    """Check a sample of the designs, and the order of all; return how many were checked.

    Raises: AssertionError for one that does not pass the rules.
    """
    (setting,) = shards.manifest.settings
    chosen = set(random.Random(0).sample(range(funnel.rows), min(CHECKED, funnel.rows)))
    count, last = 0, None
    for index, design in enumerate(shards.designs()):
        key = design.layers, design.kinds_key
        assert last is None or last < key, "designs twice, or out of order"
        last = key
        if index in chosen:
            count += _passes(design, setting)
    assert index + 1 == funnel.rows
    return count


def _passes(design: Design, setting: EnumerationSetting) -> bool:
    assert passes(design.block, setting), design.block
    assert design.sized.params == design.params
    return True


def check(rows: Sequence[dict[str, Any]]) -> None:
    """Compare the runs with the closed counts and with each other.

    Raises: AssertionError where they disagree.
    """
    for one in rows:
        lengths = range(1, one["length"] + 1)
        assert one["compositions"] == sum(6**n for n in lengths)
        assert one["after_patterns"] == sum(count_kept(6, n, "whole") for n in lengths)
        for other in rows:
            for name in ("by_length", "networks_by_length"):
                longer, shorter = one[name].split(), other[name].split()
                assert all(a == b for a, b in zip(longer, shorter, strict=False)), name


def page(rows: Sequence[dict[str, Any]], about: str) -> list[str]:
    """Return the paragraphs of the page."""
    longest = rows[-1]
    by_length = [longest[name].split() for name in ("by_length", "networks_by_length")]
    ratios = [
        (
            f"{a['length']} to {b['length']}",
            *(
                f"{(b[name] / a[name]) ** (1 / (b['length'] - a['length'])):.2f}"
                for name in ("survivors", "processor_s", "peak_mib")
            ),
        )
        for a, b in pairwise(rows)
    ]
    return [
        "# The search of long compositions",
        f"Written by {about}.",
        f"All compositions of six kinds at C = {CHANNELS}, to each length, as a run in a folder: "
        "`ifspace enumerate -C 64 --max-len N --out FOLDER`. *Processor s*: of all processes "
        "together, parts that an interruption lost included. *Wall s*: by the clock, beside what "
        "else the machine did. *Peak MiB*: of all processes together, pages that they share "
        "counted in each. *Checked*: designs of a sample that pass the rules by code that knows no "
        "search. The commits of each run are in the table of numbers, long-words.csv.",
        Table(
            tuple(
                f">{name}"
                for name in (
                    *("length", "compositions", "after repeated patterns", "searched"),
                    *("survivors", "networks", "processor s", "wall s", "jobs", "peak MiB"),
                    *("parts", "folder MiB", "checked"),
                )
            ),
            tuple(
                tuple(
                    one[name]
                    for name in (
                        *("length", "compositions", "after_patterns", "words_searched"),
                        *("survivors", "distinct_networks", "processor_s", "wall_s", "jobs"),
                        *("peak_mib", "parts", "folder_mib", "checked"),
                    )
                )
                for one in rows
            ),
        ).markdown(),
        "How they grow with one more layer:",
        Table((">lengths", ">survivors", ">processor s", ">peak MiB"), tuple(ratios)).markdown(),
        f"Of each length to {longest['length']}:",
        Table(
            (">length", ">compositions", ">after repeated patterns", ">survivors", ">networks"),
            tuple(
                (n, 6**n, count_kept(6, n, "whole"), int(survivors), int(networks))
                for n, (survivors, networks) in enumerate(zip(*by_length, strict=True), start=1)
            ),
        ).markdown(),
        f"Aim for length 12: {AIM_MINUTES} minutes of one machine, {AIM_MIB:,} MiB.",
    ]


if __name__ == "__main__":
    main()
