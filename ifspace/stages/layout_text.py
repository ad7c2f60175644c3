"""What `ifspace layout` prints, in every format: plans, what binds them, and what more would do."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from ifspace.answer import Answer, Status
from ifspace.cli.latency import MARK
from ifspace.cli.options import Forms
from ifspace.measurements import AS_IS, COLLAPSED, ONE_PASS
from ifspace.memory import bytes_of
from ifspace.serialize import json_text, to_plain
from ifspace.stages.defaults import FIXED_OBJECTIVE, FREE_OBJECTIVE
from ifspace.stages.layout import Layout, Stage
from ifspace.stages.margins import (
    CHANNELS,
    TIE,
    Step,
    binding,
    more_channels,
    one_more_block,
    shares,
    stage_amounts,
    stage_field,
)
from ifspace.stages.objectives import COSTS, OBJECTIVES, TITLES
from ifspace.stages.organizer import Trajectory
from ifspace.stages.peak import peak_elements
from ifspace.stages.problem import StagePlan, StagesProblem, amounts_text, budgets_error
from ifspace.stages.text import Facts, cap_text, commas, short
from ifspace.table import Table, facts, heading
from ifspace.values import listed

_ENDINGS: Final = {
    Status.OPTIMAL: "proven: within the budgets none up to {depth} deep{offered} {has} {more}",
    Status.FEASIBLE: "time ran out: the best found so far, with the bound beside it",
}
_NAMES: Final[Mapping[str, str]] = {
    "params": "params",
    "macs": "MACs",
    "activations": "activations",
    "layers": "layers",
    "latency_ms": "ms",
    "peak_memory": "peak bytes",
}
# What puts a block into a form.
_FUNCTIONS: Final = {COLLAPSED: "ifspace.nn.collapse", ONE_PASS: "ifspace.nn.fuse"}
# The amounts with a column of their own in the table of several budgets.
_COUNTED: Final = ("params", "macs", "layers")
_LAYOUT_COLUMNS: Final = (
    "depths",
    "widths",
    "first_blocks",
    "blocks",
    "gain",
    "params",
    "macs",
    "layers",
    "width_sum",
    "least_fan_in",
    "peak_elements",
    "peak_memory",
    "latency_ms",
    *(name for name in OBJECTIVES if name != "gain"),
    "activations",
    "strides",
    "expansions",
    "types",
)


def latency_values(problem: StagesProblem, layout: Layout) -> dict[str, Any]:
    """Return the latency of the blocks of a layout in JSON; {} where one of them is not known.

    With the form of each block, and whether a time among them is extrapolated.
    """
    times = problem.known_latencies(layout)
    if not times or None in times:
        return {}
    latencies = [time for time in times if time is not None]
    return {
        "latency_ms": float(sum(time.ms for time in latencies)),
        "latency_forms": [time.form for time in latencies],
        "extrapolated": any(time.extrapolated for time in latencies),
    }


@dataclass(frozen=True, slots=True)
class LayoutReport:
    """The best layouts within budgets, and the organizer with the blocks and widths of the first.

    `has_start`: the depths where the organizer starts were given, so that it is worth showing.
    `kernel`: of blocks that are written without one. `kept`: the amounts that no budget was given
    for, so that they do not grow.
    """

    problem: StagesProblem
    answer: Answer[StagePlan]
    trajectory: Trajectory[Layout]
    has_start: bool
    kernel: int
    kept: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """How the search ended, in a sentence."""
        problem, answer = self.problem, self.answer
        if answer.plans:
            deepest = tuple(depths[-1] for depths in problem.depth_choices)
            ending = _ENDINGS[answer.status].format(
                depth=deepest[0] if len(set(deepest)) == 1 else commas(deepest),
                offered=" of the widths offered" if problem.has_free_widths else "",
                has="gains" if problem.objective == "gain" else "has",
                more="less" if problem.objective in COSTS else "more",
            )
            feasible = answer.status is Status.FEASIBLE
            return f"{ending}: a gap of {self.gap:.2g}" if feasible else ending
        if answer.reason is not None:
            return answer.reason
        narrowing = problem.monotone and not _can_rise(problem.width_choices)
        if narrowing and answer.status is Status.INFEASIBLE:
            return (
                "--monotone: no widths offered stay or rise from stage to stage; offer wider ones"
            )
        remedy = "raise a budget, or offer cheaper blocks or narrower widths"
        side = max(stage.side for stage in problem.start.stages)
        if self.kernel >= 2 * side:  # every pixel reads beyond the whole feature map
            remedy = f"lower --kernel {self.kernel}: feature maps have {side} x {side} pixels"
        limits = problem.budgets.limits
        loose = {name: limit for name, limit in limits.items() if name not in self.kept}
        error = budgets_error(
            "layout", answer, loose or limits, remedy, not_more=self.kept if loose else ()
        )
        return str(error)

    @property
    def _bound(self) -> float | None:
        """The proven bound on the objective, for a cost the least that it can be."""
        bound: float | None = self.answer.bound
        return -bound if bound is not None and self.problem.objective in COSTS else bound

    @property
    def gap(self) -> float | None:
        """What the bound is above the first plan; for a cost below it."""
        best, bound = self.answer.best, self.answer.bound
        return None if best is None or bound is None else bound - best.objective()

    @property
    def organized(self) -> Layout | None:
        """The organizer's state of greatest gain that keeps the budgets."""
        kept = [layout for layout in self.trajectory.layouts if self._keeps(layout)]
        return max(
            kept, key=lambda layout: layout.gain(self.problem.alpha, self.problem.cap), default=None
        )

    def forms(self, saved: str | None = None) -> Forms:
        """Return the report in every format; `saved`: the file of the first layout."""
        rows = [self._row(plan.layout) for plan in self.answer.plans]
        table = Table(
            _LAYOUT_COLUMNS,
            tuple(tuple(_cell(row.get(name)) for name in _LAYOUT_COLUMNS) for row in rows),
        )
        return {
            "table": self._text,
            "json": lambda: json_text(self.values | {"saved": saved}),
            "csv": table.csv,
            "markdown": table.markdown,
        }

    @property
    def values(self) -> dict[str, Any]:
        """The report as JSON has it."""
        rows = [self._row(plan.layout) for plan in self.answer.plans]
        best, end, within = self.answer.best, self.trajectory.end, self.organized
        alpha = self.problem.alpha
        return {
            "status": self.answer.status.name.lower(),
            "message": self.message,
            "bound": self._bound,
            "gap": self.gap,
            "alpha": alpha,
            "cap": self.problem.cap,
            "objective": self.problem.objective,
            "least_gain": self.problem.least_gain,
            "floors": to_plain(self.problem.floors),
            "budgets": {
                name: float(limit) if name == "latency_ms" else limit
                for name, limit in self.problem.budgets.limits.items()
            },
            "kept": self.kept,
            "least": _plain(self.answer.least),
            "width_choices": self.problem.width_choices,
            "plans": [
                row | _plan_values(plan) for row, plan in zip(rows, self.answer.plans, strict=True)
            ],
            "organizer": {
                **self._row(end),
                "moves": len(self.trajectory.moves),
                "within_budgets": self._keeps(end),
                "best_within_budgets": None if within is None else self._row(within),
                "difference": None
                if within is None or best is None
                else best.objectives["gain"] - within.gain(alpha, self.problem.cap),
            },
        }

    def _row(self, layout: Layout) -> dict[str, Any]:
        objectives = StagePlan(self.problem, layout).objectives
        row: dict[str, Any] = {
            "depths": layout.depths,
            "widths": layout.widths,
            "first_blocks": layout.first_blocks,
            "blocks": layout.blocks,
            "gain": objectives["gain"],
            "params": layout.params,
            "macs": layout.macs,
            "layers": layout.layers,
            "width_sum": layout.width_sum,
            "least_fan_in": layout.least_fan_in,
            "peak_elements": peak_elements(layout),
        }
        if self.problem.budgets.dtype is not None:
            row["peak_memory"] = bytes_of(row["peak_elements"], self.problem.budgets.dtype)
        row |= latency_values(self.problem, layout)
        row["activations"] = layout.activations
        row["strides"] = tuple(stage.stride for stage in layout.stages)
        row["expansions"] = tuple(map(_expansion_text, layout.stages))
        row["types"] = tuple(stage.type for stage in layout.stages)
        return row | {name: objectives[name] for name in OBJECTIVES if name != "gain"}

    def _keeps(self, layout: Layout) -> bool:
        """Return whether a layout keeps the budgets and has depths that are allowed."""
        choices = zip(layout.depths, self.problem.depth_choices, strict=True)
        return self._is_within(layout) and all(depth in depths for depth, depths in choices)

    def _is_within(self, layout: Layout) -> bool:
        """Return whether a layout keeps the budgets; one without a latency does not."""
        problem = self.problem
        if "latency_ms" in problem.budgets.limits and not latency_values(problem, layout):
            return False
        return problem.fits(layout)

    def _text(self) -> str:
        if not self.answer.plans:
            return ""
        layouts = self._named_layouts()
        names = ["depths", "widths", "expansions", "strides", "params", "macs", "activations"]
        names += ["layers", "width_sum", "peak_memory", "latency_ms"]
        columns = ["depths", "widths", "expansions", "strides", ">params", ">MACs"]
        columns += [">activations", ">layers", ">Σwidth", ">peak bytes", ">ms"]
        rows = [self._row(layout) for _, layout in layouts]
        lines = []
        hidden = set() if self.problem.latency is not None else {"latency_ms"}
        hidden |= set() if self.problem.budgets.dtype is not None else {"peak_memory"}
        hidden |= set() if self.problem.budgets.activations is not None else {"activations"}
        hidden |= set() if has_inner(self.problem) else {"expansions"}
        hidden |= set() if self.problem.strides is not None else {"strides"}
        # Values equal in all rows are printed once, below the table.
        if len({row["widths"] for row in rows}) == 1:
            hidden.add("widths")
            lines.append(("widths", commas(rows[0]["widths"])))
        blocks = {block for row in rows for block in (*row["first_blocks"], *row["blocks"])}
        if len(blocks) == 1:
            lines.append(("blocks", str(blocks.pop())))
        status = self.answer.status.name.lower()
        lines.append(("status", f"{status}, {self.message}"))
        lines += self._proof_facts() + self._organizer_facts()
        shown = [
            (name, column)
            for name, column in zip(names, columns, strict=True)
            if name not in hidden
        ]
        text = Table(
            (">#", *(column for _, column in shown)),
            tuple(
                (number, *(_shown(name, row.get(name), row) for name, _ in shown))
                for (number, _), row in zip(layouts, rows, strict=True)
            ),
            self._title,
        ).text()
        plan = self.answer.plans[0]
        objectives = tuple(
            (number, *(_shown(name, row[name]) for name in OBJECTIVES))
            for (number, _), row in zip(layouts, rows, strict=True)
        )
        headings = (">#", *(f">{name}" for name in OBJECTIVES))
        text += "\n" + Table(headings, objectives, "Objectives").text()
        text += "\n" + _stages_table(plan).text() + "\n" + _steps_table(plan).text()
        return text + "\n" + facts(lines)

    @property
    def _title(self) -> str:
        """What is the greatest, why that, and within which budgets."""
        problem = self.problem
        title = _best_of(problem.objective)
        if problem.objective in (FREE_OBJECTIVE, FIXED_OBJECTIVE, *COSTS):
            title += f", widths {'free' if problem.has_free_widths else 'fixed'}"
        if problem.least_gain is not None:
            title += f", with a gain of at least {problem.least_gain:.4f}"
        if problem.budgets.limits:
            title += f", within {amounts_text(problem.budgets.limits)}"
        if problem.objective in ("gain", "log-gain") or problem.least_gain is not None:
            title += f": α = {problem.alpha:g}" + cap_text(problem.cap)
        return title

    def _named_layouts(self) -> list[tuple[str, Layout]]:
        """Return the rows of the table: the plans, then the organizer's states and the start."""
        layouts = [(str(n), plan.layout) for n, plan in enumerate(self.answer.plans, start=1)]
        within, end = self.organized, self.trajectory.end
        if self.has_start and not self._organizes:
            layouts.append(("s", self.problem.start))
        elif self.has_start:
            layouts += [("o", within)] if within is not None else []
            layouts += [("(o)", end)] if end != within else []
            layouts.append(("s", self.trajectory.start))
        return layouts

    @property
    def _organizes(self) -> bool:
        """Whether the organizer, which moves blocks for gain, is worth showing."""
        return self.problem.objective == "gain"

    def _proof_facts(self) -> Facts:
        """Return the bound, what of the budgets is left, and which stages are as deep as can be."""
        problem, lines = self.problem, []
        layout = self.answer.plans[0].layout
        if self._bound is not None:
            gap, is_cost = self.gap or 0.0, problem.objective in COSTS
            side = "below" if is_cost else "above"
            reached = "which the first one reaches" if gap < 1e-6 else f"{gap:.2g} {side} the first"
            if problem.objective == "peak-memory":
                text = f"{self._bound:,.0f}"
            else:
                text = f"{self._bound:.6f}" if self._bound < 1000 else _objective(self._bound)
            lines.append(("bound", f"{text}, {reached}"))
        amounts = problem.amounts(layout)
        left = {name: limit - amounts[name] for name, limit in problem.budgets.limits.items()}
        is_rough = _is_extrapolated(problem, layout)
        texts = [
            _mark(name, is_rough) + amounts_text({name: amount}) for name, amount in left.items()
        ]
        lines.append(("left over", ", ".join(texts)))
        lines += _forms_facts(problem, layout)
        lines += _binding_facts(self.answer.plans[0]) + self._kept_facts()
        lines += _width_facts(self.answer.plans[0])
        deepest = [
            str(n)
            for n, (depth, depths) in enumerate(
                zip(layout.depths, problem.depth_choices, strict=True), start=1
            )
            if depth == depths[-1]
        ]
        if deepest:
            noun = "stage" if len(deepest) == 1 else "stages"
            lines.append(("depth", f"{noun} {listed(deepest)} as deep as --max-depth allows"))
        return lines

    def _kept_facts(self) -> Facts:
        """Return which amounts have no budget, so that they do not grow."""
        if not self.kept:
            return []
        names, options = listed([_NAMES[n] for n in self.kept]), " or --".join(self.kept)
        return [("no budget", f"{names}: no more than at the start; --{options} allows more")]

    def _organizer_facts(self) -> Facts:
        """Return what the rows of the organizer and the start are."""
        if not self.has_start:
            return []
        if not self._organizes:
            return [("s", "the start")]
        problem, within, end = self.problem, self.organized, self.trajectory.end
        start = ("s", "the start, with the blocks and widths of the first")
        if problem.blocks is None and problem.widths is None:
            start = ("s", "the start")
        if within is None:
            return [("(o)", f"where the organizer ends; {self._why_none_within()}"), start]
        less = self.answer.plans[0].objective() - within.gain(problem.alpha, problem.cap)
        best = f"the organizer's best within the budgets, {less:.4f} less gain than the first"
        if less < 5e-5:
            best = "the organizer's best within the budgets, which gains as much as the first"
        ends = "where it ends, beyond them"
        if self._is_within(end) and not self._keeps(end):
            ends = f"where it ends, within them, but {self._depth_faults(end)}"
        beyond = [("(o)", ends)] if end != within else []
        return [("o", best), *beyond, start]

    def _why_none_within(self) -> str:
        """Return what the states of the organizer break: the budgets, or else the depths."""
        problem = self.problem
        best = max(
            (layout for layout in self.trajectory.layouts if self._is_within(layout)),
            key=lambda layout: layout.gain(problem.alpha, problem.cap),
            default=None,
        )
        if best is None:
            return "none of its states keeps the budgets"
        return f"{commas(best.depths)} keeps the budgets, but {self._depth_faults(best)}"

    def _depth_faults(self, layout: Layout) -> str:
        """Return which stages have a depth that is not allowed."""
        choices = zip(layout.depths, self.problem.depth_choices, strict=True)
        return listed(
            [
                f"stage {n} is deeper than --max-depth {depths[-1]}"
                if depth > depths[-1]
                else f"stage {n} is less than {depths[0]} deep"
                for n, (depth, depths) in enumerate(choices, start=1)
                if depth not in depths
            ]
        )


def _forms_facts(problem: StagesProblem, layout: Layout) -> Facts:
    """Return in which forms the blocks take their milliseconds, if not as they are saved."""
    forms = Counter(latency_values(problem, layout).get("latency_forms", []))
    if not forms.keys() - {AS_IS}:
        return []
    counts = ", ".join(f"{count} {form}" for form, count in forms.most_common())
    functions = [_FUNCTIONS[form] for form in _FUNCTIONS if form in forms]
    return [("ms", f"of blocks in their fastest form: {counts}, by {listed(functions)}")]


@dataclass(frozen=True, slots=True)
class ComparedLayouts:
    """The best layouts of several named budgets, in one table."""

    reports: Mapping[str, LayoutReport]

    @property
    def has_plan(self) -> bool:
        """Whether some budgets have a layout."""
        return any(report.answer.plans for report in self.reports.values())

    def forms(self) -> Forms:
        """Return the comparison in every format."""
        rows, objective = [], next(iter(self.reports.values())).problem.objective
        amount = _NAMES[COSTS[objective]] if objective in COSTS else objective
        for name, report in self.reports.items():
            plans = report.answer.plans
            numbers = [f"{name} {n}" if len(plans) > 1 else name for n in range(1, len(plans) + 1)]
            rows += [
                _compared_row(number, report, plan)
                for number, plan in zip(numbers, plans, strict=True)
            ] or [_row_without_layout(name, report)]
        columns = ("budgets", "status", "depths", "widths", "blocks~", f">{amount}", ">params")
        table = Table((*columns, ">MACs", ">layers", "spent~", "binds"), tuple(rows))
        return {
            "table": lambda: (
                heading(f"{_best_of(objective)} for each of the budgets") + table.text()
            ),
            "json": lambda: json_text(
                {"named": [{"name": n, **report.values} for n, report in self.reports.items()]}
            ),
            "csv": table.csv,
            "markdown": table.markdown,
        }


def _best_of(objective: str) -> str:
    """Return what of an objective is looked for.

    >>> _best_of("gain"), _best_of("peak-memory")
    ('Greatest total gain', 'Least peak memory')
    """
    return f"{'Least' if objective in COSTS else 'Greatest'} {TITLES[objective]}"


def _compared_row(name: str, report: LayoutReport, plan: StagePlan) -> tuple[Any, ...]:
    layout = plan.layout
    return (
        name,
        report.answer.status.name.lower(),
        commas(layout.depths),
        commas(layout.widths),
        commas(dict.fromkeys(map(str, layout.blocks)), ", "),
        _objective(abs(plan.objective())),
        short(layout.params),
        short(layout.macs),
        layout.layers,
        commas(
            (
                f"{_mark(n, _is_extrapolated(plan.problem, layout))}{share:.0%} {_NAMES[n]}"
                for n, share in shares(plan).items()
            ),
            ", ",
        ),
        commas((_NAMES[n] for n in binding(plan).exceeding), ", "),
    )


def _row_without_layout(name: str, report: LayoutReport) -> tuple[Any, ...]:
    """Return the row of budgets that nothing keeps: the least that any layout has of each."""
    status = report.answer.status
    least = _plain(report.answer.least)
    amounts = {amount: f"≥{least.pop(amount):,}" for amount in tuple(least) if amount in _COUNTED}
    return (
        name,
        "none" if status is Status.INFEASIBLE else status.name.lower(),
        *[None] * 4,
        *map(amounts.get, _COUNTED),
        commas((f"≥{value:,} {_NAMES[amount]}" for amount, value in least.items()), ", "),
        None,
    )


def _plan_values(plan: StagePlan) -> dict[str, Any]:
    """Return what JSON has of a plan besides its amounts: budgets, stages and steps."""
    bound = binding(plan)
    return {
        "shares": shares(plan),
        "binding": {"steps": bound.steps, "exceeding": bound.exceeding},
        "stages": [_stage_values(plan, index) for index in range(len(plan.layout.stages))],
    }


def _stage_values(plan: StagePlan, index: int) -> dict[str, Any]:
    stage = plan.layout.stages[index]
    channels = more_channels(plan, index)
    return {
        "side": stage.side,
        "width": stage.width,
        "depth": stage.depth,
        "stride": stage.stride,
        "type": stage.type,
        "expansion": _expansion_text(stage),
        "inner_width": stage.repeated.inner_width,
        "first_block": stage.first.block,
        "block": stage.repeated.block,
        "field": stage_field(stage, plan.problem.cap),
        "least_fan_in": plan.layout.least_fan_ins[index],
        **_plain(stage_amounts(plan, index)),
        "shares": _stage_shares(plan, index),
        "one_more_block": _step_values(one_more_block(plan, index)),
        "eight_more_channels": None if channels is None else _step_values(channels),
    }


def _stage_shares(plan: StagePlan, index: int) -> dict[str, float]:
    """Return which part of each budget the blocks of a stage spend."""
    amounts = stage_amounts(plan, index)
    limits = plan.problem.budgets.limits
    return {name: float(amounts[name] / limits[name]) for name in limits if name in amounts}


def _step_values(step: Step) -> dict[str, Any]:
    return {"costs": _plain(step.costs), "gains": step.gains, "exceeds": step.exceeds}


def _plain(amounts: Mapping[str, Any]) -> dict[str, Any]:
    """Return amounts as JSON has them: milliseconds as a decimal number."""
    return {name: float(x) if name == "latency_ms" else x for name, x in amounts.items()}


def _binding_facts(plan: StagePlan) -> Facts:
    """Return what is spent of each budget, and which budgets keep the plan from growing."""
    is_rough = _is_extrapolated(plan.problem, plan.layout)
    spent = [
        f"{_mark(name, is_rough)}{share:.1%} of {_NAMES[name]}"
        for name, share in shares(plan).items()
    ]
    bound = binding(plan)
    least = plan.problem.least_gain
    if plan.problem.objective in COSTS and not bound.exceeding:
        text = "no budget: a step to the next depth or width that gains is within all of them"
        if not bound.steps:
            text = "no budget: no depth or width that is offered beyond these gains"
        kept = "" if least is None else f", at a gain of {least:.4g} or more (--least-gain)"
        text += f"; the least is asked for{kept}"
    elif not bound.steps:
        text = (
            "no budget: no depth or width that is offered beyond these raises the objective; "
            "--max-depth or other widths offer more"
        )
    elif not bound.exceeding:
        text = "no budget: a step to the next depth or width is within all of them"
    else:
        counts = [f"{_NAMES[name]}, {count}" for name, count in bound.exceeding.items()]
        counts[0] += f" of {bound.steps} steps to the next depth or width exceed it"
        text = "; ".join(counts)
    return [("spent", ", ".join(spent)), ("binds", text)]


def _width_facts(plan: StagePlan) -> Facts:
    """Return which widths were offered, and where one between them would be within the budgets."""
    problem = plan.problem
    if not problem.has_free_widths:
        return []
    ranges = (
        f"{len(widths)} from {min(widths)} to {max(widths)}" if len(widths) > 1 else str(*widths)
        for widths in problem.width_choices
    )
    all_next = problem.finer and problem.refined(plan.layout.widths) == problem
    finest = ", all multiples of 8 next to the best" if all_next else ""
    offered = f"{commas(dict.fromkeys(ranges), '; ')}{finest}; others by --width-choices"
    lines = [("widths", offered)]
    narrowest = [
        str(number)
        for number, (width, widths) in enumerate(
            zip(plan.layout.widths, problem.width_choices, strict=True), start=1
        )
        if len(widths) > 1 and width == min(widths)
    ]
    if problem.objective in COSTS and narrowest:
        noun, verb = ("stage", "is") if len(narrowest) == 1 else ("stages", "are")
        text = (
            f"{noun} {listed(narrowest)} {verb} as narrow as offered: --width-choices offers others"
        )
        lines.append(("narrow", text))
    steps = (more_channels(plan, index) for index in range(len(plan.layout.stages)))
    finer = [
        str(step.stage)
        for step in steps
        if step is not None
        and not step.exceeds
        and step.gains[problem.merit] > TIE
        and step.layout.widths[step.stage - 1] not in problem.width_choices[step.stage - 1]
    ]
    if finer:
        noun = "stage" if len(finer) == 1 else "stages"
        text = f"{CHANNELS} channels more would keep the budgets in {noun} {listed(finer)}"
        lines.append(("finer", text))
    return lines


def has_inner(problem: StagesProblem) -> bool:
    """Return whether the width inside blocks is chosen, or said by expansions or channels."""
    return any(
        len({choice.bottleneck for choice in choices}) > 1
        or any((choice.expansion, choice.inner) != (None, None) for choice in choices)
        for choices in problem.block_choices
    )


def _expansion_text(stage: Stage) -> str:
    """Return how many times as many channels are inside the block that a stage repeats.

    >>> from ifspace.block import Block
    >>> block = Block.parse("PW+DW+PW").at(16, widths=(96,))
    >>> _expansion_text(Stage(8, block, block))
    '6'
    """
    block = stage.repeated
    return str(Fraction(block.inner_width, block.channels))


def _stages_table(plan: StagePlan) -> Table:
    """Return the stages of a plan: blocks, fields, and the part of each budget that they spend."""
    problem, rows = plan.problem, []
    has_types = any(stage.type is not None for stage in plan.layout.stages)
    hidden = {
        ">stride": problem.strides is None,
        ">expansion": not has_inner(problem),
        "type": not has_types,
    }
    for index, stage in enumerate(plan.layout.stages):
        first, repeated = str(stage.first.block), str(stage.repeated.block)
        blocks = first if stage.depth == stage.min_depth else repeated
        if blocks != first:
            blocks = f"{first}, then {repeated}"
        side, channels = stage_field(stage, problem.cap)
        row = {
            ">stage of 1": index + 1,
            ">side": stage.side,
            ">stride": stage.stride,
            ">width": stage.width,
            ">depth": stage.depth,
            "block~": blocks,
            ">expansion": _expansion_text(stage),
            "type": stage.type or "",
            ">field": f"{side}×{channels}"
            if stage.first.dims == 1
            else f"{side}×{side}×{channels}",
            ">least fan-in": plan.layout.least_fan_ins[index],
        }
        spent, is_rough = _stage_shares(plan, index), _is_extrapolated_in(plan, index)
        row |= {
            f">{_NAMES[name]}": f"{_mark(name, is_rough)}{share:.1%}"
            for name, share in spent.items()
        }
        rows.append({name: cell for name, cell in row.items() if not hidden.get(name)})
    return Table(tuple(rows[0]), tuple(tuple(row.values()) for row in rows))


def _is_extrapolated_in(plan: StagePlan, index: int) -> bool:
    """Return whether some block of a stage is outside the shapes of the latency model."""
    stage, source = plan.layout.stages[index], plan.problem.latency
    if source is None:
        return False
    times = (source.find(block, stage.side_out, stride) for block, stride in stage.strided_blocks)
    return any(time is not None and time.extrapolated for time in times)


def _steps_table(plan: StagePlan) -> Table:
    """Return what one more block and eight more channels cost and gain in each stage."""
    merit = plan.problem.merit
    names = list(plan.problem.amounts(plan.layout))
    rows = []
    for index in range(len(plan.layout.stages)):
        steps = {"a block": one_more_block(plan, index)}
        if (channels := more_channels(plan, index)) is not None:
            steps[f"{CHANNELS} channels"] = channels
        for what, step in steps.items():
            is_rough = any(
                _is_extrapolated(plan.problem, layout) for layout in (plan.layout, step.layout)
            )
            costs = (_cost_text(name, step.costs.get(name), is_rough) for name in names)
            exceeded = commas((_NAMES[name] for name in step.exceeds), ", ")
            rows.append((index + 1, what, *costs, _signed(step.gains[merit]), exceeded))
    columns = (">stage of 1", "more", *(f">{_NAMES[name]}" for name in names))
    return Table((*columns, f">{merit}", "exceeds~"), tuple(rows))


def _is_extrapolated(problem: StagesProblem, layout: Layout) -> bool:
    """Return whether some block of a layout is outside the shapes of the latency model."""
    return bool(latency_values(problem, layout).get("extrapolated"))


def _mark(name: str, is_rough: bool) -> str:
    """Return the mark of a time that is extrapolated, nothing for other amounts."""
    return MARK if is_rough and name == "latency_ms" else ""


def _cost_text(name: str, cost: Any, is_rough: bool) -> str:
    """Return the change of an amount; nothing for a latency that was not measured.

    `is_rough`: whether a latency in it is extrapolated.
    """
    if cost is None:
        return ""
    return f"{MARK * is_rough}{float(cost):+.3f}" if name == "latency_ms" else _signed(cost)


def _signed(number: float) -> str:
    """Return a change with its sign.

    >>> _signed(-1500000), _signed(0.25)
    ('-1.50M', '+0.2500')
    """
    return f"{'-' if number < 0 else '+'}{_objective(abs(number))}"


def _objective(number: float) -> str:
    """Return an objective, which may be below 1 or some millions.

    >>> _objective(7.4286461), _objective(3129435.24)
    ('7.4286', '3.13M')
    """
    return f"{number:.4f}" if isinstance(number, float) and number < 1000 else short(round(number))


def _can_rise(choices: Iterable[Sequence[int]]) -> bool:
    """Return whether some widths of the stages stay or rise: the narrowest that do so are tried."""
    width = 0
    for widths in choices:
        wide_enough = [choice for choice in widths if choice >= width]
        if not wide_enough:
            return False
        width = min(wide_enough)
    return True


def _shown(name: str, value: Any, row: Mapping[str, Any] | None = None) -> str:
    """Return an amount of a layout as the table for people has it; `row`: all of its values."""
    if name in ("depths", "widths", "expansions", "strides"):
        return commas(value)
    if name in OBJECTIVES:
        return _objective(value)
    if name == "latency_ms":
        mark = MARK if row is not None and row.get("extrapolated") else ""
        return "" if value is None else f"{mark}{value:.3f}"
    if name == "peak_memory":
        return f"{value:,}"
    return short(value)


def _cell(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    return commas("" if part is None else part for part in value) if any(value) else None
