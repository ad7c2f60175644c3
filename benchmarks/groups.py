"""How fast cheapest groups are proven, beside exhaustive search and a plain CP-SAT model.

`python -m benchmarks.groups` writes `groups-bench.md` and `groups-bench.csv` into `results/`.
The plain model has the same options and objective and no constraint for the field: it proposes the
cheapest choice that is left, and one that falls short is forbidden alone.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Final

from tabulate import tabulate

from benchmarks.measure import in_turn, write_results
from ifspace.answer import Status
from ifspace.bench.record import provenance
from ifspace.block import Composition
from ifspace.catalogue.setting import DEFAULT_OVERLAPS, EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import Options, cheapest_groups
from ifspace.parallel import over_shards, workers

LIMIT_S: Final = 30.0
REPEATS: Final = 3
CASES: Final = (
    ("DW+RPW+RPW", 64, 64),
    ("GC+SH+GPW", 256, 256),
    ("DW+RPW+SH+RPW", 64, 64),
    ("GPW+SH+DW+RPW+GPW", 64, 64),
    ("DW+RPW+RPW+RPW+RPW", 256, 256),
    ("RPW+SH+DW+RPW+GPW", 256, 256),
    ("RPW+SH+RPW+SH+GC", 256, 256),
    ("DW+RPW+SH+RPW+GPW", 280, 700),
    ("DW+RPW+SH+RPW", 256, 256, True),
)
Row = dict[str, Any]


def ours(problem: GroupsProblem) -> int | None:
    """Return the least cost by the optimizer of record."""
    plans = cheapest_groups(problem).plans
    return plans[0].objective() if plans else None


def exhaustive(problem: GroupsProblem) -> int | None:
    """Return the least cost by trying every choice that costs less than the best so far."""
    options, deadline = Options(problem), time.monotonic() + LIMIT_S
    base, costs = options.costs
    best: int | None = None
    for choice in product(*(range(len(layers)) for layers in options.layers)):
        cost = base + sum(table[n] for table, n in zip(costs, choice, strict=True))
        if (best is None or cost < best) and options.is_full(choice):
            best = cost
        if time.monotonic() > deadline:
            raise TimeoutError
    return best


def plain(problem: GroupsProblem) -> int | None:
    """Return the least cost by a model that knows nothing of the field."""
    answer = cheapest_groups(problem, time_limit_s=LIMIT_S, plain=True)
    if answer.status is Status.UNKNOWN:
        raise TimeoutError
    return answer.plans[0].objective() if answer.plans else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    ours(GroupsProblem(Composition.parse("DW+RPW+RPW"), 16))
    rows = []
    for case in CASES:
        rows.append(_case(*case))
        print(rows[-1], flush=True)
    catalogue = _catalogue(256, 4)
    print(catalogue, flush=True)
    command = "python -m benchmarks.groups"
    page = [
        "# How fast cheapest groups are proven",
        f"Written by {provenance(command)}.",
        f"Median of {REPEATS} runs, the three in turn in one process; a search that needed more "
        f"than {LIMIT_S:.0f} s was stopped and has no figure. All answers agree. *Exhaustive* "
        "skips what costs no less than the best so far; *plain* forbids one choice at a time.",
        tabulate([row.values() for row in rows], list(rows[0]), tablefmt="github", intfmt=","),
        "## A whole catalogue",
        "{designs} designs to length {length} at C = {channels}, every minimum proven: "
        "{seconds} s with {jobs} jobs.".format(**catalogue),
    ]
    write_results(options.out, "groups-bench", page, rows, command)


def _case(composition: str, channels: int, out_channels: int, any_overlap: bool = False) -> Row:
    overlaps = None if any_overlap else DEFAULT_OVERLAPS
    problem = GroupsProblem(
        Composition.parse(composition), channels, out_channels, overlaps=overlaps
    )
    searches = {"ours": ours, "plain": plain, "exhaustive": exhaustive}
    costs, seconds = in_turn(
        {name: partial(search, problem) for name, search in searches.items()}, REPEATS
    )
    if len(set(costs)) != 1:
        raise SettingError(f"the searches disagree on {composition}: {set(costs)}")
    choices = prod(map(len, Options(problem).layers))
    row: Row = {"composition": composition, "C": channels, "F": out_channels}
    row |= {"overlaps": "any" if any_overlap else "grid", "choices": choices}
    row |= {"params": costs[0], "ours s": round(seconds["ours"], 3)}
    for name in ("plain", "exhaustive"):
        row[f"{name} s"] = round(seconds[name], 2) if name in seconds else f"> {LIMIT_S:.0f}"
        ratio = seconds.get(name, LIMIT_S) / seconds["ours"]
        row[f"{name} / ours"] = f"{ratio:.1f}" if name in seconds else f"> {ratio:.0f}"
    return row


def prove_all(problems: Sequence[GroupsProblem]) -> list[int | None]:
    """Return the proven least cost of each problem."""
    return [ours(problem) for problem in problems]


def _catalogue(channels: int, length: int) -> Row:
    catalogue = enumerate_designs([EnumerationSetting(channels=channels, max_len=length)])
    problems = [GroupsProblem(design.block.composition, channels) for design in catalogue.designs]
    jobs = workers(None)
    start = time.perf_counter()
    over_shards(prove_all, [problems[n::16] for n in range(16)], jobs)
    seconds = round(time.perf_counter() - start, 1)
    return {
        "designs": len(problems),
        "length": length,
        "channels": channels,
        "seconds": seconds,
        "jobs": jobs,
    }


if __name__ == "__main__":
    main()
