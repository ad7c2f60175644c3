"""What `ifspace organize` and `ifspace layout` print, in every format."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Final

from ifspace.answer import Status
from ifspace.catalogue.export import csv_table, json_text, markdown_table
from ifspace.cli.options import Forms
from ifspace.stages.layout import Layout
from ifspace.stages.networks import (
    PublishedLayout,
    published_layouts,
)
from ifspace.stages.organizer import (
    Move,
    Trajectory,
)
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

# Where a network has another name than in the papers, whatever the package.
_PAPER_NAMES: Final[Mapping[str, str]] = {
    "vgg16_bn": "vgg16",
    "vgg19_bn": "vgg19",
    "mobilenetv1_100": "mobilenet",
}


def published_of(model: str, image: tuple[int, int, int]) -> tuple[PublishedLayout, ...]:
    """Return what was published of the network that MODEL stands for, on square images.

    >>> [each.table for each in published_of("torchvision:vgg16_bn", (3, 32, 32))]
    [3, 4]
    """
    name = model.strip().lower().rpartition(":")[2].partition(".")[0]
    if model.lower().rpartition(":")[0].endswith(".py") or image[1] != image[2]:
        return ()
    return published_layouts(_PAPER_NAMES.get(name, name), image[1])


@dataclass(frozen=True, slots=True)
class PublishedComparison:
    """A published layout beside the states of the organizer.

    `classifier`: the parameters of the network's own dense layers, None where they are those of the
    papers.
    """

    published: PublishedLayout
    found: Trajectory[Any]
    classifier: int | None = None

    @property
    def step(self) -> int | None:
        """The step after which the layout is reached, 0 for the start."""
        depths = [layout.depths for layout in self.found.layouts]
        there = self.published.depths
        return depths.index(there) if there in depths else None

    @property
    def counted(self) -> list[int]:
        """The steps after which the network's own parameters are those printed, as printed."""
        return [
            step
            for step, layout in enumerate(self.found.layouts)
            if f"{layout.params / 1e6:.2f}" == self.published.params
        ]

    @property
    def values(self) -> dict[str, Any]:
        """What was published, and where it stands here."""
        each = self.published
        own = None if self.step is None else self.found.layouts[self.step].params
        return asdict(each) | {
            "layout_params": each.layout.params,
            "layout_macs": each.layout.macs,
            "step": self.step,
            "moved_gain": self._moved(self.step),
            "own_params": own,
            "counted": self.counted,
        }

    def _moved(self, steps: int | None) -> float:
        """Return Σ(max − min) of the first steps, of all if None."""
        return replace(self.found, moves=self.found.moves[:steps]).moved_gain

    def __str__(self) -> str:
        each, step, end = self.published, self.step, len(self.found.moves)
        if step is None:
            where = "no state here"
        elif step == end:
            where = f"step {step}, the end"
        else:
            where = f"step {step}, {end - step} before the end"
        text = f"[3DRF] Table {each.table}, {each.data}: {each.params}M is "
        text += f"{{{','.join(map(str, each.depths))}}}, {where}"
        if not each.has_printed_params:
            text += f", {each.layout.params / 1e6:.2f}M by our count"
        text += self._own()
        sums = [
            f"{self._moved(at):.2f} {when}"
            for at, when in ((step, "up to it"), (end, "in all"))
            if at is not None and (at, when) != (end, "up to it")
        ]
        return f"{text}; Δ3DRF printed {each.gain}, here {', '.join(sums)}"

    def _own(self) -> str:
        """Return how far the network's own count is from that of the published layout, and why."""
        if self.step is None:
            others = ", ".join(map(str, self.counted))
            return f"; step {others} has as many parameters" if others else ""
        own = self.found.layouts[self.step].params
        more = own - self.published.layout.params
        if not more or self.classifier is None:
            return ""
        theirs = _classifier(self.published)
        rest = more - (self.classifier - theirs)
        said = f"; here {own / 1e6:.2f}M"
        if self.classifier != theirs:
            said += f": its classifier has {self.classifier:,}, that of the table {theirs:,}"
        if rest:
            said += f"{' and' if self.classifier != theirs else ':'} {rest:+,} in biases and "
            said += "batch norm"
        return said


def _classifier(published: PublishedLayout) -> int:
    """Return the parameters of the dense layers of a published layout."""
    layout = published.layout
    width = layout.stages[-1].width
    return layout.frame.params(width) - replace(layout.frame, classifier=()).params(width)


_ORGANIZE_COLUMNS = (
    "alpha",
    "step",
    "source",
    "target",
    "min",
    "max",
    "depths",
    "gain",
    "params",
    "macs",
    "layers",
    "width_sum",
    "published",
)


@dataclass(frozen=True, slots=True)
class OrganizeReport:
    """What was asked for: of what in words, the threshold, the alpha that is shown in full.

    `network` is None where the stages were described one by one; `published`: what there is of it.
    """

    title: str
    network: str | None
    published: tuple[PublishedLayout, ...]
    theta: float
    alpha: float


@dataclass(frozen=True, slots=True)
class State:
    """A layout on the way, the step that led to it, and what was published with its depths.

    The layout may be that of a traced network, whose stages alone are known.
    """

    step: int | str
    move: Move | None
    layout: Any
    gain: float
    published: tuple[PublishedLayout, ...] = ()

    @property
    def amounts(self) -> dict[str, Any]:
        """The gain, and what stands beside it: it is a proxy, and one of them may say as much."""
        amounts = {
            "depths": list(self.layout.depths),
            "gain": self.gain,
            "params": self.layout.params,
            "macs": self.layout.macs,
        }
        if isinstance(self.layout, Layout):
            amounts |= {"layers": self.layout.layers, "width_sum": self.layout.width_sum}
        return amounts

    @property
    def values(self) -> dict[str, Any]:
        """The move and what it leads to."""
        return {**(_step(self.move) or {}), **self.amounts, "published": _tables(self)}

    @property
    def tables(self) -> str:
        """The tables of [3DRF] that print it."""
        return ", ".join(str(each.table) for each in self.published)


def organize_forms(
    asked: OrganizeReport, found: Mapping[float, Trajectory[Layout]], saved: str | None = None
) -> Forms:
    """Return the trajectories, by alpha, in every format; that of `asked.alpha` in full.

    `saved`: the file that the end of that one is written to.
    """
    cells = [
        _cells(alpha, s)
        for alpha, each in found.items()
        for s in states(each, alpha, asked.published)
    ]
    return {
        "table": lambda: _organize_text(asked, found),
        "json": lambda: json_text(_values(asked, found) | {"saved": saved}),
        "csv": lambda: csv_table(_ORGANIZE_COLUMNS, cells),
        "markdown": lambda: markdown_table(
            _ORGANIZE_COLUMNS,
            [["" if cell is None else str(cell) for cell in row] for row in cells],
        ),
    }


def states(
    found: Trajectory[Any], alpha: float, published: Sequence[PublishedLayout]
) -> list[State]:
    """Return the start and what it is after each move, each with what was published of it."""
    return [
        State(
            step,
            move,
            layout,
            layout.gain(alpha),
            tuple(each for each in published if each.depths == layout.depths),
        )
        for step, (move, layout) in enumerate(zip((None, *found.moves), found.layouts, strict=True))
    ]


def _cells(alpha: float, state: State) -> list[Any]:
    amounts = state.amounts
    amounts["depths"] = ",".join(map(str, state.layout.depths))
    move = _step(state.move) or dict.fromkeys(("source", "target", "min", "max"))
    return [alpha, state.step, *move.values(), *amounts.values(), state.tables or None]


def _step(move: Move | None) -> dict[str, Any] | None:
    if move is None:
        return None
    return {"source": move.source, "target": move.target, "min": move.min, "max": move.max}


def _values(asked: OrganizeReport, found: Mapping[float, Trajectory[Layout]]) -> dict[str, Any]:
    main = found[asked.alpha]
    values = {
        "network": asked.network,
        "theta": asked.theta,
        "stages": [stage.side for stage in main.start.stages],
        "widths": list(main.start.widths),
        "blocks": list(main.start.blocks),
        **_trajectory(asked, main, asked.alpha),
        "published": [PublishedComparison(each, main).values for each in asked.published],
    }
    if len(found) > 1:
        values["alphas"] = [
            _trajectory(asked, each, alpha) | {"same_moves": _route(each) == _route(main)}
            for alpha, each in found.items()
        ]
    return values


def _trajectory(asked: OrganizeReport, found: Trajectory[Layout], alpha: float) -> dict[str, Any]:
    first, *later = states(found, alpha, asked.published)
    return {
        "alpha": alpha,
        "start": first.amounts,
        "moves": [state.values for state in later],
        "stopped": found.stopped.name.lower(),
        "message": found.stopped.value,
        "untaken": _step(found.untaken),
        "moved_gain": found.moved_gain,
        **[first, *later][-1].amounts,
    }


def _tables(state: State) -> list[int]:
    return [each.table for each in state.published]


def _route(found: Trajectory[Layout]) -> list[str]:
    return [str(move) for move in found.moves]


def _organize_text(asked: OrganizeReport, found: Mapping[float, Trajectory[Layout]]) -> str:
    main, alpha = found[asked.alpha], asked.alpha
    title = f"{asked.title}: θ = {asked.theta:g}, α = {alpha:g}"
    found_states = states(main, alpha, asked.published)
    text = heading(title) + moves_table(found_states, bool(asked.published))
    text += "\n" + facts(_said(asked, main))
    return text if len(found) == 1 else text + "\n" + _compared(asked, found)


def moves_table(
    found: Sequence[State], tables: bool, notes: Mapping[Any, str] | None = None
) -> str:
    """Return a table with a row a state; `tables`: with the tables of [3DRF] that print it.

    `notes`: what to say of states, by their steps.
    """
    columns = [">#", "move", ">min", ">max", "depths", ">gain", ">params", ">MACs"]
    whole = notes is None
    columns += [">layers", ">Σwidth"] if whole else []
    columns += ["table"] if tables else []
    columns += [] if whole else ["notes~"]
    rows = []
    for state in found:
        move = state.move
        taken = ["", "", ""] if move is None else [move, f"{move.min:.3f}", f"{move.max:.3f}"]
        depths, gain, *counts = state.amounts.values()
        row = [state.step, *taken, _comma(depths), f"{gain:.2f}"]
        row += map(short, counts if whole else counts[:2])
        row += [state.tables] if tables else []
        row += [] if notes is None else [notes.get(state.step, "")]
        rows.append(row)
    return table(columns, rows)


def short(count: int) -> str:
    """Return an amount as the tables of papers have it; below a million every digit.

    >>> short(112320), short(5098826), short(16857530368)
    ('112,320', '5.10M', '16.86G')
    """
    for power, letter in ((10**9, "G"), (10**6, "M")):
        if count >= power:
            return f"{count / power:.2f}{letter}"
    return f"{count:,}"


def _comma(values: Any) -> str:
    return ",".join(map(str, values))


def _said(asked: OrganizeReport, found: Trajectory[Layout]) -> list[tuple[str, str]]:
    start = found.start
    blocks = start.blocks if len(set(start.blocks)) > 1 else start.blocks[:1]
    sides = ", ".join(str(stage.side) for stage in start.stages)
    said = [
        ("sides", sides),
        ("widths", ", ".join(map(str, start.widths))),
        ("blocks", ", ".join(blocks)),
        *ended(found),
    ]
    names = ["published", *[""] * len(asked.published)]
    lines = [str(PublishedComparison(each, found)) for each in asked.published]
    return said + list(zip(names, lines, strict=False))


def ended(found: Trajectory[Any]) -> list[tuple[str, str]]:
    """Return why the moves ended, and what they gained."""
    return [
        ("stopped", found.stopped.value + _last(found.untaken)),
        ("Σ(max − min)", f"{found.moved_gain:.3f} over the moves"),
    ]


def _last(untaken: Move | None) -> str:
    if untaken is None:
        return ""
    return f" ({untaken.source}→{untaken.target}: min {untaken.min:.3f}, max {untaken.max:.3f})"


def _compared(asked: OrganizeReport, found: Mapping[float, Trajectory[Layout]]) -> str:
    main = found[asked.alpha]
    rows = []
    for alpha, each in sorted(found.items()):
        amounts = [f"{each.end.gain(alpha):.2f}", f"{each.moved_gain:.2f}"]
        rows.append([f"{alpha:g}", _comma(each.end.depths), *amounts, " ".join(_route(each))])
    others = [alpha for alpha in sorted(found) if alpha != asked.alpha]
    same = [alpha for alpha in others if _route(found[alpha]) == _route(main)]
    ends = [a for a in others if a not in same and found[a].end == main.end]
    other = [alpha for alpha in others if alpha not in (*same, *ends)]
    said = [
        (name, f"α = {listed(f'{alpha:g}' for alpha in alphas)}")
        for name, alphas in (
            (f"moves as for α = {asked.alpha:g}", same),
            ("other moves to the same end", ends),
            ("another end", other),
        )
        if alphas
    ]
    columns = [">α", "end", ">gain", ">Σ(max − min)", "moves~"]
    return heading("Compared") + table(columns, rows) + "\n" + facts(said)


_LAYOUT_COLUMNS = (
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
_AMOUNT_NAMES = {
    "params": "parameters",
    "macs": "MACs",
    "layers": "layers",
    "latency_ms": "milliseconds",
}
_ENDINGS = {
    Status.OPTIMAL: "proven: within the budgets none up to {deep} deep gains more",
    Status.FEASIBLE: "time ran out: the best found so far, with the bound beside it",
    Status.INFEASIBLE: "proven: no layout keeps the budgets",
    Status.UNKNOWN: "time ran out before a layout within the budgets was found",
}


@dataclass(frozen=True, slots=True)
class OrganizerComparison:
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


def layout_forms(
    problem: StagesProblem,
    answer: StagesAnswer,
    beside: OrganizerComparison,
    saved: str | None = None,
) -> Forms:
    """Return the answer in every format; `saved`: the file that the first plan is written to."""
    rows = [_row(problem, plan.layout) for plan in answer.plans]
    cells = [[_cell(row.get(name)) for name in _LAYOUT_COLUMNS] for row in rows]
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
        "table": lambda: _layout_text(problem, answer, beside),
        "json": lambda: json_text(values),
        "csv": lambda: csv_table(_LAYOUT_COLUMNS, cells),
        "markdown": lambda: markdown_table(_LAYOUT_COLUMNS, [list(map(str, row)) for row in cells]),
    }


def message(problem: StagesProblem, answer: StagesAnswer) -> str:
    """Return how the search ended, in a sentence."""
    said = _ENDINGS[answer.status].format(deep=problem.most_depth)
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
    return f"{float(value) if name == 'latency_ms' else value:,} {_AMOUNT_NAMES[name]}"


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


def _organizer(answer: StagesAnswer, beside: OrganizerComparison) -> dict[str, Any]:
    problem, within = beside.problem, beside.within
    best = answer.plans[0].objective() if answer.plans else None
    return {
        **_row(problem, beside.way.end),
        "moves": len(beside.way.moves),
        "within_budgets": _keeps(problem, beside.way.end),
        "best_within_budgets": None if within is None else _row(problem, within),
        "difference": None if within is None or best is None else best - within.gain(problem.alpha),
    }


def _layout_text(problem: StagesProblem, answer: StagesAnswer, beside: OrganizerComparison) -> str:
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


def _beside(answer: StagesAnswer, beside: OrganizerComparison) -> list[tuple[str, str]]:
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
