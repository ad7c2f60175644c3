"""What `ifspace layout` prints: the layouts found, what is proven, the organizer beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ifspace.answer import Status
from ifspace.catalogue.export import csv_table, json_text, markdown_table
from ifspace.cli.options import Forms
from ifspace.stages.layout import Layout
from ifspace.stages.moves import Trajectory
from ifspace.stages.organize_text import short
from ifspace.stages.problem import (
    StagesAnswer,
    StagesProblem,
)
from ifspace.table import (
    facts,
    heading,
    table,
)
from ifspace.values import listed

_COLUMNS = (
    "depths",
    "widths",
    "first_blocks",
    "blocks",
    "gain",
    "params",
    "macs",
    "layers",
    "width_sum",
    "latency_ms",
)
_NAMES = {
    "params": "parameters",
    "macs": "MACs",
    "layers": "layers",
    "latency_ms": "milliseconds",
}
_SAID = {
    Status.OPTIMAL: "proven: within the budgets none up to {deep} deep gains more",
    Status.FEASIBLE: "time ran out: the best found so far, with the bound beside it",
    Status.INFEASIBLE: "proven: no layout keeps the budgets",
    Status.UNKNOWN: "time ran out before a layout within the budgets was found",
}


@dataclass(frozen=True, slots=True)
class Beside:
    """The organizer's way with the blocks and widths of the best layout, to compare with.

    `begins`: where it starts was asked for, and is worth showing.
    """

    problem: StagesProblem
    way: Trajectory[Layout]
    begins: bool

    @property
    def within(self) -> Layout | None:
        """The state of greatest gain that keeps the budgets."""
        problem = self.problem
        kept = [each for each in self.way.layouts if _keeps(problem, each)]
        return max(kept, key=lambda layout: layout.gain(problem.alpha), default=None)


def _keeps(problem: StagesProblem, layout: Layout) -> bool:
    """Return whether a layout keeps the budgets; one without a latency does not."""
    if problem.latency is not None and any(
        problem.latency.find(unit, stage.side, 1 if place else stage.stride) is None
        for stage in layout.stages
        for place, unit in enumerate(stage.units)
    ):
        return False
    return problem.fits(layout) and max(layout.depths) <= problem.most_depth


def forms(
    problem: StagesProblem, answer: StagesAnswer, beside: Beside, saved: str | None = None
) -> Forms:
    """Return the answer in every format; `saved`: the file that the first plan is written to."""
    rows = [_row(problem, plan.layout) for plan in answer.plans]
    cells = [[_cell(row.get(name)) for name in _COLUMNS] for row in rows]
    values = {
        "status": answer.status.name.lower(),
        "message": message(problem, answer),
        "bound": answer.bound,
        "gap": _gap(answer),
        "alpha": problem.alpha,
        "budgets": {
            name: float(value) if name == "latency_ms" else value
            for name, value in problem.budgets.given.items()
        },
        "plans": rows,
        "organizer": _organizer(answer, beside),
        "saved": saved,
    }
    return {
        "table": lambda: _text(problem, answer, beside),
        "json": lambda: json_text(values),
        "csv": lambda: csv_table(_COLUMNS, cells),
        "markdown": lambda: markdown_table(_COLUMNS, [list(map(str, row)) for row in cells]),
    }


def message(problem: StagesProblem, answer: StagesAnswer) -> str:
    """Return how the search ended, in a sentence."""
    said = _SAID[answer.status].format(deep=problem.most_depth)
    if answer.plans:
        gap = _gap(answer)
        return f"{said}: a gap of {gap:.2g}" if answer.status is Status.FEASIBLE else said
    bounds = amounts_text(problem.budgets.given)
    if answer.status is not Status.INFEASIBLE:
        return f"{bounds}: {said}; allow more time"
    if problem.monotone and not _can_rise(problem.width_choices):
        return "--monotone: no widths offered stay or rise from stage to stage; offer wider ones"
    least = f"the least of each by itself is {amounts_text(answer.least)}; "
    also = f"; {least}" if answer.least else "; "
    return f"{bounds}: {said}{also}raise a budget, or offer cheaper blocks or narrower widths"


def amounts_text(amounts: Mapping[str, int | Fraction]) -> str:
    """Return amounts in words.

    >>> amounts_text({"params": 5_100_000, "latency_ms": Fraction(5, 2)})
    '5,100,000 parameters, 2.5 milliseconds'
    """
    return ", ".join(_amount_text(name, value) for name, value in amounts.items())


def _amount_text(name: str, value: int | Fraction) -> str:
    return f"{float(value) if name == 'latency_ms' else value:,} {_NAMES[name]}"


def _can_rise(choices: Sequence[Sequence[int]]) -> bool:
    """Return whether some widths of the stages stay or rise: the narrowest that do so are tried."""
    width = 0
    for offered in choices:
        wide_enough = [each for each in offered if each >= width]
        if not wide_enough:
            return False
        width = min(wide_enough)
    return True


def _gap(answer: StagesAnswer) -> float | None:
    if not answer.plans or answer.bound is None:
        return None
    return answer.bound - answer.plans[0].objective()


def _row(problem: StagesProblem, layout: Layout) -> dict[str, Any]:
    row = {
        "depths": list(layout.depths),
        "widths": list(layout.widths),
        "first_blocks": list(layout.first_blocks),
        "blocks": list(layout.blocks),
        "gain": layout.gain(problem.alpha),
        "params": layout.params,
        "macs": layout.macs,
        "layers": layout.layers,
        "width_sum": layout.width_sum,
    }
    if problem.latency is not None and _keeps(problem, layout):
        row["latency_ms"] = float(problem.amounts(layout)["latency_ms"])
    return row


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _organizer(answer: StagesAnswer, beside: Beside) -> dict[str, Any]:
    problem, within = beside.problem, beside.within
    best = answer.plans[0].objective() if answer.plans else None
    return {
        **_row(problem, beside.way.end),
        "moves": len(beside.way.moves),
        "within_budgets": _keeps(problem, beside.way.end),
        "best_within_budgets": None if within is None else _row(problem, within),
        "difference": None if within is None or best is None else best - within.gain(problem.alpha),
    }


def _text(problem: StagesProblem, answer: StagesAnswer, beside: Beside) -> str:
    if not answer.plans:
        return ""
    columns = [">#", "depths", "widths", ">gain", ">params", ">MACs", ">layers", ">Σwidth"]
    names = ["depths", "widths", "gain", "params", "macs", "layers", "width_sum"]
    if problem.latency is not None:
        columns, names = [*columns, ">ms"], [*names, "latency_ms"]
    layouts = [(str(n), plan.layout) for n, plan in enumerate(answer.plans, start=1)]
    within, end = beside.within, beside.way.end
    if beside.begins:
        layouts += [("o", within)] if within is not None else []
        layouts += [("(o)", end)] if end != within else []
        layouts.append(("s", beside.way.start))
    rows = [[name, *_shown(_row(problem, layout), names)] for name, layout in layouts]
    said = []
    # What no row has another of stands once, below the table.
    same_widths = len({row[2] for row in rows}) == 1
    if same_widths:
        said.append(("widths", rows[0][2]))
    blocks = {each for _, x in layouts for each in (*x.first_blocks, *x.blocks)}
    if len(blocks) == 1:
        said.append(("blocks", blocks.pop()))
    said.append(("status", f"{answer.status.name.lower()}, {message(problem, answer)}"))
    said += _proven(problem, answer)
    said += _beside(answer, beside)
    keep = [n for n in range(len(columns)) if n != 2 or not same_widths]
    kept = amounts_text(problem.budgets.given)
    title = f"Greatest total gain within {kept}: α = {problem.alpha:g}"
    text = heading(title) + table(
        [columns[n] for n in keep], [[row[n] for n in keep] for row in rows]
    )
    if blocks:
        text += "\n" + _blocks(answer.plans[0].layout)
    return text + "\n" + facts(said)


def _blocks(layout: Layout) -> str:
    """Return the blocks of the first layout, stage by stage."""
    rows = [
        [number, stage.side, stage.width, stage.depth, first, more if len(stage.units) > 1 else ""]
        for number, (stage, first, more) in enumerate(
            zip(layout.stages, layout.first_blocks, layout.blocks, strict=True), start=1
        )
    ]
    columns = [">stage", ">side", ">width", ">depth", "first block of 1~", "the others~"]
    return table(columns, rows)


def _proven(problem: StagesProblem, answer: StagesAnswer) -> list[tuple[str, str]]:
    """Return the bound, what of the budgets is left, and which stages are at the greatest depth."""
    said = []
    layout = answer.plans[0].layout
    if answer.bound is not None:
        gap = _gap(answer) or 0.0
        reached = "which the first one reaches" if gap < 1e-6 else f"{gap:.2g} above the first"
        said.append(("bound", f"{answer.bound:.6f}, {reached}"))
    spent = problem.amounts(layout)
    left = {name: most - spent[name] for name, most in problem.budgets.given.items()}
    said.append(("left over", amounts_text(left)))
    deepest = [
        str(n) for n, depth in enumerate(layout.depths, start=1) if depth == problem.most_depth
    ]
    if deepest:
        noun = "stage" if len(deepest) == 1 else "stages"
        said.append(("depth", f"{noun} {listed(deepest)} as deep as --max-depth allows"))
    return said


def _shown(row: dict[str, Any], names: list[str]) -> list[str]:
    shown = []
    for name in names:
        value: Any = row.get(name)
        if name in ("depths", "widths"):
            shown.append(",".join(map(str, value)))
        elif name == "gain":
            shown.append(f"{value:.4f}")
        elif name == "latency_ms":
            shown.append("" if value is None else f"{value:.3f}")
        else:
            shown.append(short(value))
    return shown


def _beside(answer: StagesAnswer, beside: Beside) -> list[tuple[str, str]]:
    if not beside.begins:
        return []
    problem, within, end = beside.problem, beside.within, beside.way.end
    start = ("s", "the start, with the blocks and widths of the first")
    if problem.units is None and problem.widths is None:
        start = ("s", "the start")
    if within is None:
        return [("(o)", "where the organizer ends; none of its states keeps the budgets"), start]
    less = answer.plans[0].objective() - within.gain(problem.alpha)
    said = f"the organizer's best within the budgets, {less:.4f} less gain than the first"
    if less < 5e-5:
        said = "the organizer's best within the budgets, which gains as much as the first"
    beyond = [("(o)", "where it ends, beyond them")] if end != within else []
    return [("o", said), *beyond, start]
