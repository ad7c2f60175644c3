"""How fast the enumeration is: by width, by length, beside slower exact searches.

`python -m benchmarks.enumerate` writes `enumerate.md`, `enumerate.csv` and the figures
`enumerate-length` and `enumerate-width` into `results/`. Every search runs in a process of its
own, whose compiled code has been loaded before the clock starts. Searches that are compared run in
turn.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.enumerate_report import write
from benchmarks.watch import watch
from ifspace.bench.record import (
    list_in_readme,
    provenance,
    python,
)
from ifspace.block import Block, Layer
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import Alphabet
from ifspace.enumerate.compositions import candidates
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch
from ifspace.enumerate.oracle import passes
from ifspace.enumerate.search import enumerate_designs
from ifspace.kinds import find_kind
from ifspace.reach import compact, quality
from ifspace.serialize import to_plain

WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)
LENGTHS = tuple(range(2, 11))
TARGETS = {16: 0.5, 64: 1.5, 256: 6.0, 1024: 60.0}
REPEATS = 3

Row = dict[str, Any]


def halves(setting: EnumerationSetting) -> dict[str, int]:
    """Return the cheapest parameters of every survivor, by the search of record."""
    catalogue = enumerate_designs([setting], jobs=1)
    return {design.composition: design.params for design in catalogue.designs}


def merged_walk(setting: EnumerationSetting) -> dict[str, int]:
    """Return the same by walking forward with equal states merged, nothing split into halves."""
    alphabet = Alphabet(setting)
    engine = ForwardSearch(alphabet, ExactAlgebra(alphabet))
    answers: dict[str, int] = {}
    for length in range(1, setting.max_len + 1):
        for kinds, letters in candidates(alphabet, engine, [setting.usable_kinds] * length):
            solution = engine.cheapest([letters])[letters]
            if solution is not None:
                all_letters = alphabet.all_letters(kinds) or ()
                fixed = sum(alphabet.letters[letter].fixed_cost for letter in all_letters)
                answers["+".join(kinds)] = solution.cost + fixed
    return answers


def brute_force(setting: EnumerationSetting) -> dict[str, int]:
    """Return the same by trying every choice of every composition with one spatial layer."""
    answers: dict[str, int] = {}
    c = setting.channels
    choices = {
        kind: [
            Layer(kind, groups, overlap)
            for groups, overlap in find_kind(kind).choices(c, c, setting.overlaps)
        ]
        for kind in setting.usable_kinds
    }
    for length in range(1, setting.max_len + 1):
        for kinds in product(setting.usable_kinds, repeat=length):
            if sum(find_kind(kind).spatial for kind in kinds) != 1:
                continue
            for layers in product(*(choices[kind] for kind in kinds)):
                sized = Block(layers).at(c)
                if sized.params < answers.get("+".join(kinds), sized.params + 1) and (
                    quality(sized, setting.reference_field)
                    and compact(sized, setting.reference_field)
                ):
                    answers["+".join(kinds)] = sized.params
    return answers


SEARCHES: dict[str, Callable[[EnumerationSetting], dict[str, int]]] = {
    "halves": halves,
    "merged walk": merged_walk,
    "brute force": brute_force,
}
# Search, width, length: compared in turn with the search of record.
PAIRS = (
    ("brute force", 8, 4),
    ("brute force", 12, 3),
    ("merged walk", 16, 6),
    ("merged walk", 64, 4),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, or with --child one search of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--quick", action="store_true", help="widths to 64 and lengths to 6")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(_child(**json.loads(options.child))))
        return
    if not _agree():
        raise SystemExit("the searches disagree at C = 8: nothing is timed")
    widths = [width for width in WIDTHS if not options.quick or width <= 64]
    lengths = [length for length in LENGTHS if not options.quick or length <= 6]
    measured: dict[str, list[Row]] = {"sweeps": [], "pairs": []}
    for kind, row in _measurements(widths, lengths):
        print(row, flush=True)
        measured[kind].append(row)
    rows = measured["sweeps"]
    options.out.mkdir(exist_ok=True)
    command = "python -m benchmarks.enumerate" + (" --quick" if options.quick else "")
    write(options.out, rows, measured["pairs"], str(provenance(command)), TARGETS)
    with (options.out / "enumerate.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    figures = [
        f"enumerate-{sweep}.{suffix}" for sweep in ("length", "width") for suffix in ("svg", "png")
    ]
    list_in_readme(options.out, ["enumerate.md", "enumerate.csv", *figures], command)
    print(f"written: {options.out / 'enumerate.md'}")


def _measurements(widths: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[str, Row]]:
    for width in widths:
        yield "sweeps", _row("width", width, 6)
    for length in lengths:
        yield "sweeps", _row("length", 64, length)
    for pair in PAIRS:
        yield "pairs", _pair(*pair)


def _agree() -> bool:
    """Return whether three searches agree and every witness passes the rules."""
    setting = EnumerationSetting(channels=8, max_len=4)
    answers = [search(setting) for search in SEARCHES.values()]
    designs = enumerate_designs([setting], jobs=1).designs
    return all(answer == answers[0] for answer in answers) and all(
        passes(design.block, setting) for design in designs
    )


def _child(search: str, channels: int, length: int, jobs: int | None) -> Row:
    halves(EnumerationSetting(channels=8, max_len=4))  # loads the compiled code
    setting = EnumerationSetting(channels=channels, max_len=length)
    start = time.perf_counter()
    if search == "halves":
        catalogue = enumerate_designs([setting], jobs=jobs)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, **to_plain(catalogue.funnels[0])}
    survivors = len(SEARCHES[search](setting))
    return {"seconds": time.perf_counter() - start, "survivors": survivors}


def _run(search: str, channels: int, length: int, jobs: int | None) -> tuple[Row, float]:
    case = {"search": search, "channels": channels, "length": length, "jobs": jobs}
    used = watch(python("-m", "benchmarks.enumerate", "--child", json.dumps(case)))
    return json.loads(used.output), used.peak_mib


def _row(sweep: str, channels: int, length: int) -> Row:
    answer, peak = _run("halves", channels, length, None)
    times = [answer["seconds"]]
    while len(times) < REPEATS and sum(times) < 20:
        again, more = _run("halves", channels, length, None)
        times.append(again["seconds"])
        peak = max(peak, more)
    row = {"sweep": sweep, "channels": channels, "length": length}
    row |= {
        "runs": len(times),
        "median_s": round(median(times), 3),
        "least_s": round(min(times), 3),
    }
    row |= {"peak_mib": round(peak)}
    for key in (
        "compositions",
        "after_patterns",
        "survivors",
        "words_searched",
        "choices_covered",
        "choices_checked",
    ):
        row[key] = answer[key]
    return row


def _pair(other: str, channels: int, length: int) -> Row:
    """Time another search and the one of record in turn, and say the ratio of their medians."""
    ours, theirs = [], []
    for _ in range(REPEATS):
        theirs.append(_run(other, channels, length, 1)[0]["seconds"])
        ours.append(_run("halves", channels, length, 1)[0]["seconds"])
    row = {"other": other, "channels": channels, "length": length}
    row |= {"other_s": round(median(theirs), 3), "halves_s": round(median(ours), 3)}
    row |= {"ratio": round(median(theirs) / median(ours), 1)}
    return row


if __name__ == "__main__":
    main()
