"""Write the answers of `ifspace groups` as text: plans, bound and remarks, formulas."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, Final

from ifspace.answer import Status
from ifspace.block import Composition
from ifspace.catalogue.choose import AMOUNTS
from ifspace.catalogue.setting import RpwOrder, standard_block
from ifspace.cli.latency import LatencyColumns
from ifspace.groups.problem import (
    GroupPlan,
    GroupsAnswer,
    GroupsProblem,
    Judgement,
    WidestProblem,
    judge,
)
from ifspace.groups.remedy import remedies
from ifspace.groups.symbolic import (
    analyse,
    formula_text,
    greatest_width,
    symbols,
    to_latex,
    to_text,
    width_text,
)
from ifspace.groups.timed import TimedPlans
from ifspace.memory import bytes_of
from ifspace.serialize import json_text, to_plain
from ifspace.table import Table, facts, ratio_text, readable
from ifspace.values import listed

_LATEX: Final = (
    "block",
    ">$C$",
    ">$F$",
    ">parameters",
    ">MACs/px",
    ">act/px",
    ">peak/px",
    ">least fan-in",
    ">objective",
)
_COLUMNS: Final = (
    "block",
    "channels",
    "out_channels",
    "params",
    "macs_per_pixel",
    "activations_per_pixel",
    "peak_per_pixel",
    "least_fan_in",
    "objective",
)
_AMOUNTS: Final = (
    "macs_per_pixel",
    "activations_per_pixel",
    "peak_per_pixel",
    "least_fan_in",
    "objective",
)
_JUDGED: Final = ("field_side", "field_channels", "quality", "compact", "status")
_MESSAGES: Final = {
    Status.OPTIMAL: "proven: no legal choice with the full field is better",
    Status.FEASIBLE: "time ran out: the best found so far, with the bound beside it",
    Status.INFEASIBLE: "proven: no legal choice has the full field",
    Status.UNKNOWN: "time ran out before a choice with the full field was found",
}


def plan_forms(
    problem: GroupsProblem,
    answer: GroupsAnswer,
    widest: WidestProblem | None = None,
    times: TimedPlans | None = None,
    feature_map: tuple[int, str] | None = None,
) -> dict[str, Callable[[], str]]:
    """Return the answer in every format; `widest` is the problem where the width was open.

    `times`: the latencies of the plans. `feature_map`: the side in pixels of what the block writes
    and its type, where the peak memory is said in bytes too. Without a plan only JSON has text: a
    header alone would pass for an answer.
    """
    latencies = LatencyColumns(None if times is None else times.latencies)
    peaks = _peaks(answer, feature_map)
    timed = ({"peak_memory": peaks} if peaks else {}) | latencies.plain
    rows = [
        _row(plan) | {name: cells[index] for name, cells in timed.items()}
        for index, plan in enumerate(answer.plans)
    ]
    judgements = [judge(plan) for plan in answer.plans]
    status = answer.status.value
    values = {
        "status": status,
        "message": message(problem, answer, widest, times),
        "bound": answer.bound,
        "bound_is": _bound_is(problem, answer, widest),
        "gap": answer.gap,
        "composition": str(problem.composition),
        "minimised": measure(problem, times),
        "floors": to_plain(problem.floors),
        "plans": [
            row
            | {
                "field": list(judgement.field),
                "quality": judgement.quality,
                "compact": judgement.compact,
                "removable": list(judgement.removable),
            }
            for row, judgement in zip(rows, judgements, strict=True)
        ],
    }
    if widest is not None:
        values |= {
            "budget": widest.budget,
            "alpha": str(widest.alpha),
            "multiple": widest.multiple,
            "widest": answer.plans[0].problem.channels if answer.plans else None,
        }
    table = Table(
        (*_COLUMNS, *timed, *_JUDGED),
        tuple(
            (*row.values(), *judgement.field, judgement.quality, judgement.compact, status)
            for row, judgement in zip(rows, judgements, strict=True)
        ),
    )
    forms = {
        "table": lambda: _text(problem, answer, widest, judgements, times, peaks),
        "csv": table.csv,
        "markdown": table.markdown,
        "latex": Table(
            (*_LATEX, *(">" + name.replace("_", " ") for name in timed)),
            tuple(tuple(row.values()) for row in rows),
        ).latex,
    }
    if not answer.plans:
        forms = dict.fromkeys(forms, str)
    return forms | {"json": lambda: json_text(values)}


def message(
    problem: GroupsProblem,
    answer: GroupsAnswer,
    widest: WidestProblem | None = None,
    times: TimedPlans | None = None,
) -> str:
    """Return how the search ended; without a plan with the problem and what to do."""
    if times is not None and times.message:
        subject = f"{problem.composition} at {problem.widths_text}"
        return times.message if answer.plans else f"{subject}: {times.message}"
    if answer.plans:
        if widest is None:
            return _MESSAGES[answer.status]
        wider = f"multiple of {widest.multiple}" if widest.multiple > 1 else "block"
        no_wider = f"no wider {wider} fits{_up_to(answer)}"
        if answer.status is Status.OPTIMAL:
            return f"proven: {no_wider}"
        return f"{_MESSAGES[answer.status]}; {no_wider}"
    if widest is None:
        subject = f"{problem.composition} at {problem.widths_text}"
    else:
        subject = f"{problem.composition} within {widest.budget:,} parameters"
    if answer.status is not Status.INFEASIBLE:
        return f"{subject}: {_MESSAGES[answer.status]}; give it more with --time-limit"
    if widest is not None:
        peak = "" if widest.most_peak is None else " or --peak-memory"
        return (
            f"{subject}: proven: no width{_up_to(answer, ' ')} has a legal choice with the full "
            f"field; raise --budget{peak}, or try another composition"
        )
    if problem.exceeds_peak:
        return f"{subject}: proven: {problem.peak_text}; raise --peak-memory, or try less width"
    without_choice = dict.fromkeys(
        layer.layer.kind for layer in problem.chain if not problem.group_counts(layer)
    )
    if without_choice:
        verb = "has" if len(without_choice) == 1 else "have"
        return (
            f"{subject}: {listed(without_choice)} {verb} no legal group count at these widths; "
            "try widths with more common divisors"
        )
    helps = ", or ".join(remedies(problem)) or "another composition"
    return f"{subject}: {_MESSAGES[answer.status]}; try {helps}"


def measure(problem: GroupsProblem, times: TimedPlans | None = None) -> str:
    """Return what is minimised, in words.

    >>> measure(GroupsProblem(Composition.parse("DW+PW"), 8, weights=(2, 1, 0)))
    '2 x parameters + 1 x MACs'
    """
    if times is not None and times.least:
        return "latency"
    if problem.weights is None:
        return AMOUNTS[problem.objective][1]
    names = [AMOUNTS[name][1] for name in ("params", "macs", "activations")]
    pairs = zip(problem.weights, names, strict=True)
    return " + ".join(f"{weight} x {name}" for weight, name in pairs if weight)


def gap_text(answer: GroupsAnswer) -> str:
    """Return how far the best plan may be from the least; empty where it is proven."""
    gap = answer.gap
    if answer.status is not Status.FEASIBLE or gap is None:
        return ""
    best = answer.plans[0].objective()
    return f"the best found has {best:,}, the bound is {answer.bound:,}: a gap of {gap / best:.1%}"


def _bound_is(
    problem: GroupsProblem, answer: GroupsAnswer, widest: WidestProblem | None
) -> str | None:
    """Describe the quantity that the bound limits; where the width is open, at which width."""
    if answer.bound is None:
        return None
    where = f"at {(answer.plans[0].problem if answer.plans else problem).widths_text}"
    if widest is not None and not answer.plans:
        where = "at the width where time ran out"
    return f"a lower bound on the {measure(problem)} of every plan {where}"


def _up_to(answer: GroupsAnswer, before: str = ", of widths ") -> str:
    return "" if answer.up_to is None else f"{before}up to {answer.up_to:,}"


def _peaks(answer: GroupsAnswer, feature_map: tuple[int, str] | None) -> list[int]:
    """Return the peak memory of the plans in bytes for one image; none where not asked for."""
    if feature_map is None:
        return []
    side, dtype = feature_map
    elements = [plan.sized.peak_per_pixel(plan.problem.stride) for plan in answer.plans]
    return [bytes_of(count * side**2, dtype) for count in elements]


def _row(plan: GroupPlan) -> dict[str, Any]:
    sized, stride = plan.sized, plan.problem.stride
    return {
        "block": str(plan.block),
        "channels": sized.channels,
        "out_channels": sized.out_channels,
        "params": sized.params,
        "macs_per_pixel": sized.macs_per_pixel(stride),
        "activations_per_pixel": sized.activations_per_pixel(stride),
        "peak_per_pixel": sized.peak_per_pixel(stride),
        "least_fan_in": sized.least_fan_in,
        "objective": plan.objective(),
    }


def _text(
    problem: GroupsProblem,
    answer: GroupsAnswer,
    widest: WidestProblem | None,
    judgements: list[Judgement],
    times: TimedPlans | None,
    peaks: list[int],
) -> str:
    first = answer.plans[0]
    least = "Least" if times is not None and times.least else "Fewest"
    title = f"{least} {measure(problem, times)} of {problem.composition} "
    title += f"at {first.problem.widths_text}"
    if widest is not None:
        title = f"Widest {problem.composition} within {widest.budget:,} parameters{_up_to(answer)}"
        title += f": {first.problem.widths_text}"
    columns = [">#", "block~", ">params", ">×CONV", ">MACs/px", ">act/px", ">peak/px"]
    columns += [">least fan-in"]
    columns += [">weighted"] * (problem.weights is not None)
    rows: list[tuple[Any, ...]] = []
    for number, plan in enumerate(answer.plans, start=1):
        row = _row(plan)
        ratio = ratio_text(row["params"] / _standard_params(plan.problem))
        amounts = [row[name] for name in _AMOUNTS]
        rows.append((number, row["block"], row["params"], ratio, *amounts)[: len(columns)])
    timed = LatencyColumns(None if times is None else times.latencies).shown
    for header, cells in (({">peak bytes": peaks} if peaks else {}) | timed).items():
        columns.append(header)
        rows = [(*row, cell) for row, cell in zip(rows, cells, strict=True)]
    lines = [("status", f"{answer.status.value}, {message(problem, answer, widest, times)}")]
    lines += _bound_lines(answer, widest)
    lines += [("note", remark) for remark in remarks(answer.plans, judgements)]
    return Table(tuple(columns), tuple(rows), title).text() + "\n" + facts(lines)


def _bound_lines(answer: GroupsAnswer, widest: WidestProblem | None) -> list[tuple[str, str]]:
    """Return the lines about the bound; where the width is open, they begin with the width."""
    if answer.bound is None:
        return []
    gap = gap_text(answer)
    if widest is None:
        return [("bound", gap or f"{answer.bound:,}, which the first one reaches")]
    channels = answer.plans[0].problem.channels
    width = f"{channels:,} {'channel' if channels == 1 else 'channels'}, the widest"
    if gap:
        return [("bound", width), ("", gap)]
    return [("bound", f"{width}; {answer.bound:,} parameters, the fewest there")]


def _standard_params(problem: GroupsProblem) -> int:
    """Return the parameters of the standard convolutions that the block replaces."""
    block = standard_block(problem.kernel, problem.composition.repeats)
    return block.at(problem.channels, problem.out_width, dims=problem.dims).params


def remarks(plans: Sequence[GroupPlan], judgements: Sequence[Judgement]) -> list[str]:
    """Return each remark once, with the numbers of its plans where there are several.

    >>> from ifspace.block import Block
    >>> block = Block.parse("RPW(8,0)+GPW(8)")
    >>> plan = GroupPlan(GroupsProblem(block.composition, 64), block)
    >>> remarks([plan], [judge(plan)])
    ['sees 1×1 pixels, a CONV(3) sees 3×3']
    """
    plans_of: dict[str, list[int]] = {}
    for number, (plan, judgement) in enumerate(zip(plans, judgements, strict=True), start=1):
        for remark in (_pixels_remark(plan, judgement), _removable_remark(plan, judgement)):
            if remark:
                plans_of.setdefault(remark, []).append(number)
    if len(plans) == 1:
        return list(plans_of)
    return [f"{spans(numbers)}: {remark}" for remark, numbers in plans_of.items()]


def _pixels_remark(plan: GroupPlan, judgement: Judgement) -> str:
    side, reference = judgement.field[0], plan.reference
    if side == reference.side:
        return ""
    seen, expected = (
        "×".join([str(pixels)] * plan.problem.dims) for pixels in (side, reference.side)
    )
    one = reference.repeats == 1
    name = f"{'a' if one else reference.repeats} CONV({reference.kernel})"
    return f"sees {seen} pixels, {name} {'sees' if one else 'see'} {expected}"


def _removable_remark(plan: GroupPlan, judgement: Judgement) -> str:
    kinds = [layer.layer.kind for layer in plan.sized.layers]
    removable = dict.fromkeys(kinds[index] for index in judgement.removable)
    if not removable:
        return ""
    names = " or ".join(f"one {kind}" if kinds.count(kind) > 1 else kind for kind in removable)
    # `show` takes no widths inside.
    return f"{names} can go" + (", see `ifspace show`" if plan.problem.widths is None else "")


def spans(numbers: Iterable[int]) -> str:
    """Return ascending numbers as text, with a dash for runs.

    >>> spans([1, 2, 3, 5])
    '1–3, 5'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("–".join(map(str, run)) for run in runs)


def symbolic_forms(
    composition: Composition,
    kernel: int,
    bottleneck: Fraction | None,
    alpha: Fraction | None,
    rpw_order: RpwOrder = "rolling",
) -> dict[str, Callable[[], str]]:
    """Return the analysis in symbols in every format, with the greatest width of a budget P.

    JSON and CSV have the formulas in SymPy's notation, text and Markdown in that of a reader.

    Raises: SettingError or BlockError for a kernel, ratio or composition without an analysis.
    """
    ratio = False if bottleneck is None else bottleneck
    efficiency = analyse(composition, ratio, kernel, alpha, rpw_order)
    width = greatest_width(composition, bottleneck, alpha, kernel)
    legend = symbols(efficiency, width)
    groups = {str(name): str(best) for name, best in efficiency.groups}
    values = {
        "composition": str(composition),
        "params": formula_text(efficiency.params),
        "ratio": formula_text(efficiency.ratio),
        "condition": formula_text(efficiency.condition),
        "product": formula_text(efficiency.product) or None,
        "bound": formula_text(efficiency.bound),
        "ratio_at_optimum": formula_text(efficiency.ratio_at_optimum),
        "widest": width_text(width),
        "family": formula_text(efficiency.family) or None,
        "reference": efficiency.reference,
    }
    best = "; ".join(f"{name} = {value}" for name, value in groups.items())
    rows = [(name, value or "") for name, value in values.items()]
    rows += [("groups", best), *((f"symbol {name}", text) for name, text in legend.items())]
    rows += [("note", note) for note in efficiency.notes]
    rows += [("remark", remark) for remark in efficiency.remarks]
    table = Table(("name", "value"), tuple(rows))
    more = {
        "groups": groups,
        "symbols": legend,
        "notes": [*efficiency.notes, *efficiency.remarks],
        "remarks": list(efficiency.remarks),
    }
    return {
        "table": lambda: readable(to_text(efficiency, width)),
        "json": lambda: json_text(values | more),
        "csv": table.csv,
        "markdown": Table(
            table.columns, tuple((name, readable(value)) for name, value in rows)
        ).markdown,
        "latex": lambda: to_latex(efficiency, width),
    }
