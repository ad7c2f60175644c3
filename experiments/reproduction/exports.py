"""What `ifspace report` draws of the reproduction, as CSV: verdicts, trajectories, energies."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from experiments.reproduction.count_tables import search
from experiments.reproduction.moves import (
    side_of,
    sums,
    trajectory,
)
from experiments.reproduction.page import Section
from experiments.reproduction.printed import (
    COUNTED,
    LEARNED,
    RESIDUAL,
    RESIDUAL_ENERGIES,
    Widths,
)
from ifspace.energy.problem import EnergyProblem
from ifspace.energy.solve import best_energy
from ifspace.table import Table

VERDICTS: Final = "reproduction.csv"
TRAJECTORIES: Final = "trajectories.csv"
RANKS: Final = "energy-ranks.csv"
# More layouts than any of the paper's problems has.
MOST: Final = 100_000
# All ranks up to this are kept, of those behind it one for every so many per cent.
FIRST: Final = 24
PER_CENT: Final = 4

Row = Mapping[str, Any]


def write(folder: Path, sections: Sequence[Section]) -> tuple[str, ...]:
    """Write the files into a folder and return their names."""
    files = {
        VERDICTS: list(verdict_rows(sections)),
        TRAJECTORIES: list(trajectory_rows()),
        RANKS: list(rank_rows()),
    }
    for name, rows in files.items():
        text = Table(tuple(rows[0]), tuple(tuple(row.values()) for row in rows)).csv()
        (folder / name).write_text(text)
    return tuple(files)


def verdict_rows(sections: Sequence[Section]) -> Iterator[Row]:
    """Yield for each judged table how many of its rows there are and how many match."""
    for section in sections:
        for name, total, missed in section.summary():
            yield {"table": name, "rows": total, "match": total - len(missed)}


def trajectory_rows() -> Iterator[Row]:
    """Yield every state of the organizer's trajectories from the networks of the papers.

    `moved_gain` is Σ(max − min) of the moves so far, `gain` the total gain of the layout;
    `published`: the data sets for which a layout of these depths was published.
    """
    for name, side in dict.fromkeys((row.network, side_of(row)) for row in COUNTED):
        states = trajectory(name, side)
        marks: dict[tuple[int, ...], list[str]] = {}
        for row in COUNTED:
            if (row.network, side_of(row)) == (name, side):
                marks.setdefault(search(row, 1).best.depths, []).append(row.data)
        for step, (layout, move, moved) in enumerate(
            zip(states.layouts, (None, *states.moves), sums(states), strict=True)
        ):
            yield {
                "network": name,
                "side": side,
                "step": step,
                "move": "" if move is None else str(move),
                "depths": _spaced(layout.depths),
                "sides": _spaced([stage.side for stage in layout.stages]),
                "moved_gain": round(moved, 6),
                "gain": round(layout.gain(), 6),
                "params": layout.params,
                "macs": layout.macs,
                "published": ", ".join(marks.get(layout.depths, ())),
            }


def rank_rows() -> Iterator[Row]:
    """Yield layouts of [Layout]'s problems with their energies and ranks, 1 for the greatest.

    Layouts of the same energy have the same rank. Of many layouts the first are kept, those that
    the paper prints, and some of all others. `paper`: what the paper says of the layout.
    """
    for budget, learned in LEARNED:
        problem = EnergyProblem(budget, layers=len(learned[0]))
        yield from _ranks(problem, dict.fromkeys(learned, "learned best"))
    units, budget = RESIDUAL
    wide = EnergyProblem(budget, repeats=units, nondecreasing=True)
    yield from _ranks(wide, {layout: "Table 4" for layout, _ in RESIDUAL_ENERGIES})


def _ranks(problem: EnergyProblem, named: Mapping[Widths, str]) -> Iterator[Row]:
    plans = best_energy(problem, top=MOST).plans
    kept = _kept(len(plans))
    rank, before = 0, None
    for place, plan in enumerate(plans, start=1):
        if (energy := plan.exact_energy()) != before:
            rank, before = place, energy
        if place in kept or plan.widths in named:
            yield {
                "budget": problem.budget,
                "units": _spaced(problem.units),
                "widths": _spaced(plan.widths),
                "energy": f"{plan.energy():.9g}",
                "rank": rank,
                "layouts": len(plans),
                "paper": named.get(plan.widths, ""),
            }


def _kept(count: int) -> set[int]:
    """Return the ranks that are kept of so many layouts, the last among them.

    >>> sorted(_kept(50))[FIRST - 1 :]
    [24, 25, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 50]
    """
    kept = {*range(1, min(FIRST, count) + 1), count}
    rank = FIRST
    while rank < count:
        kept.add(rank)
        rank += max(1, -(-rank * PER_CENT // 100))
    return kept


def _spaced(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
