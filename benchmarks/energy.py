"""How fast the greatest layout energy is proven: the exact program, CP-SAT, every layout.

`python -m benchmarks.energy` writes `energy-bench.md` and `energy-bench.csv` into `results/`.
*Plain* CP-SAT has the same model without our bounds on widths and without a threshold; *brute
force* goes through all increasing widths and works the last one out.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from heapq import nsmallest
from pathlib import Path
from statistics import median
from typing import Any, Final

from tabulate import tabulate

from ifspace.answer import Status
from ifspace.bench.record import list_in_readme, provenance
from ifspace.energy.cpsat import cpsat_energy
from ifspace.energy.problem import (
    EnergyAnswer,
    EnergyPlan,
    EnergyProblem,
)
from ifspace.energy.solve import best_energy
from ifspace.errors import SettingError

LIMIT_S: Final = 30.0
REPEATS: Final = 3
# The problem, and how many layouts are asked for.
CASES: Final = (
    (EnergyProblem(4288, layers=4), 6),
    (EnergyProblem(66304, layers=4), 1),
    (EnergyProblem(66304, layers=4), 6),
    (EnergyProblem(51248, repeats=(1, 10, 10, 10)), 1),
    (EnergyProblem(51248, repeats=(1, 10, 10, 10)), 12),
    (EnergyProblem(66304, layers=6), 1),
    (EnergyProblem(66304, layers=8), 1),
    (EnergyProblem(66304, layers=10), 1),
    (EnergyProblem(66304, layers=10), 6),
    (EnergyProblem(66304, layers=16), 1),
    (EnergyProblem(66304, layers=16), 6),
)
Row = dict[str, Any]
Widths = tuple[int, ...]
Layouts = list[Widths]


def exact(problem: EnergyProblem, top: int) -> Layouts:
    """Return the best layouts by the exact program."""
    return _proven(best_energy(problem, top, LIMIT_S), top)


def cpsat(problem: EnergyProblem, top: int) -> Layouts:
    """Return the best layouts by CP-SAT within our bounds."""
    return _proven(best_energy(problem, top, LIMIT_S, cpsat_energy), top)


def plain(problem: EnergyProblem, top: int) -> Layouts:
    """Return the best layouts by CP-SAT alone."""
    return _proven(cpsat_energy(problem, top, time.monotonic() + LIMIT_S, plain=True), top)


def brute_force(problem: EnergyProblem, top: int) -> Layouts:
    """Return the best layouts of all."""
    plans = (EnergyPlan(problem, widths) for widths in _layouts(problem))
    return [plan.widths for plan in nsmallest(top, plans, key=EnergyPlan.order)]


def _proven(answer: EnergyAnswer, top: int) -> Layouts:
    if answer.status is not Status.OPTIMAL or len(answer.plans) < top:
        raise TimeoutError
    return [plan.widths for plan in answer.plans]


def _layouts(problem: EnergyProblem) -> Iterator[Widths]:
    """Yield all layouts of increasing widths that meet the budget."""
    deadline = time.monotonic() + LIMIT_S

    def grow(widths: Widths, below: int, left: int) -> Iterator[Widths]:
        place = len(widths)
        inside = problem.units[place] - 1
        width = below + 1 if widths else 1
        if place == len(problem.units) - 1 and not inside:
            last, rest = divmod(left, below)
            if not rest and last >= width:
                yield (*widths, last)
            return
        if time.monotonic() > deadline:
            raise TimeoutError
        while (cost := below * width + inside * width**2) <= left:
            if place < len(problem.units) - 1:
                yield from grow((*widths, width), width, left - cost)
            elif cost == left:
                yield (*widths, width)
            width += 1

    return grow((), problem.inputs, problem.budget)


SEARCHES: Final[dict[str, Callable[[EnergyProblem, int], Layouts]]] = {
    "exact": exact,
    "cpsat": cpsat,
    "plain": plain,
    "brute force": brute_force,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    cpsat(EnergyProblem(4288, layers=3), 1)
    rows = []
    for problem, top in CASES:
        rows.append(_case(problem, top))
        print(rows[-1], flush=True)
    command = "python -m benchmarks.energy"
    page = [
        "# How fast the greatest layout energy is proven",
        f"Written by {provenance(command)}.",
        f"Median of {REPEATS} runs, all searches in turn in one process; a search that needed more "
        f"than {LIMIT_S:.0f} s was stopped and has no figure. All answers agree. *exact* is the "
        "default; *cpsat* has our bounds on the widths, *plain* has not; *brute force* goes "
        "through all increasing widths.",
        tabulate([row.values() for row in rows], list(rows[0]), tablefmt="github", intfmt=","),
        "Compare energies at equal depth and budget only.",
    ]
    options.out.mkdir(exist_ok=True)
    (options.out / "energy-bench.md").write_text("\n\n".join(page) + "\n")
    with (options.out / "energy-bench.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    list_in_readme(options.out, ["energy-bench.md", "energy-bench.csv"], command)
    print(f"written: {options.out / 'energy-bench.md'}")


def _case(problem: EnergyProblem, top: int) -> Row:
    times: dict[str, list[float]] = {name: [] for name in SEARCHES}
    searches = dict(SEARCHES)
    answers: list[Layouts] = []
    for _ in range(REPEATS):
        for name in list(searches):
            start = time.perf_counter()
            try:
                answers.append(searches[name](problem, top))
            except TimeoutError:
                del searches[name], times[name]
                continue
            times[name].append(time.perf_counter() - start)
    if any(answer != answers[0] for answer in answers):
        raise SettingError(f"the searches disagree on {problem}: {answers}")
    middle = {name: median(seconds) for name, seconds in times.items()}
    plan = EnergyPlan(problem, answers[0][0])
    layers = ",".join(map(str, problem.units)) if problem.depth > len(problem.units) else ""
    row: Row = {"layers": layers or str(len(problem.units)), "budget": problem.budget, "top": top}
    row |= {"best widths": " ".join(map(str, plan.widths)), "energy": f"{plan.energy():.9g}"}
    row |= {"params": plan.params, "depth": problem.depth, "width sum": plan.width_sum}
    row["exact s"] = round(middle["exact"], 3)
    for name in list(SEARCHES)[1:]:
        ratio = middle.get(name, LIMIT_S) / middle["exact"]
        row[f"{name} s"] = f"{middle[name]:.2f}" if name in middle else f"> {LIMIT_S:.0f}"
        row[f"{name} / exact"] = f"{ratio:.1f}" if name in middle else f"> {ratio:.0f}"
    return row


if __name__ == "__main__":
    main()
