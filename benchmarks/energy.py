"""How fast the greatest layout energy is proven: the exact program, CP-SAT, every layout.

`python -m benchmarks.energy` writes `energy-bench.md` and `energy-bench.csv` into `results/`.
*Plain* CP-SAT has the same model without our bounds on widths and without a threshold; *brute
force* goes through all increasing widths and works the last one out.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import nsmallest
from pathlib import Path
from typing import Any, Final

from tabulate import tabulate

from benchmarks.measure import in_turn, write_results
from ifspace.answer import Status
from ifspace.bench.record import provenance
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
# The problem, and how many layouts are searched for.
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
        index = len(widths)
        inside = problem.units[index] - 1
        width = below + 1 if widths else 1
        if index == len(problem.units) - 1 and not inside:
            last, rest = divmod(left, below)
            if not rest and last >= width:
                yield (*widths, last)
            return
        if time.monotonic() > deadline:
            raise TimeoutError
        while (cost := below * width + inside * width**2) <= left:
            if index < len(problem.units) - 1:
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
    write_results(options.out, "energy-bench", page, rows, command)


def _case(problem: EnergyProblem, top: int) -> Row:
    solutions, seconds = in_turn(
        {name: partial(search, problem, top) for name, search in SEARCHES.items()}, REPEATS
    )
    if any(layouts != solutions[0] for layouts in solutions):
        raise SettingError(f"the searches disagree on {problem}: {solutions}")
    plan = EnergyPlan(problem, solutions[0][0])
    layers = ",".join(map(str, problem.units)) if problem.depth > len(problem.units) else ""
    row: Row = {"layers": layers or str(len(problem.units)), "budget": problem.budget, "top": top}
    row |= {"best widths": " ".join(map(str, plan.widths)), "energy": f"{plan.energy():.9g}"}
    row |= {"params": plan.params, "depth": problem.depth, "width sum": plan.width_sum}
    row["exact s"] = round(seconds["exact"], 3)
    for name in list(SEARCHES)[1:]:
        ratio = seconds.get(name, LIMIT_S) / seconds["exact"]
        row[f"{name} s"] = f"{seconds[name]:.2f}" if name in seconds else f"> {LIMIT_S:.0f}"
        row[f"{name} / exact"] = f"{ratio:.1f}" if name in seconds else f"> {ratio:.0f}"
    return row


if __name__ == "__main__":
    main()
