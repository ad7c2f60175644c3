"""Write the answers of `ifspace groups` as text: plans, bound and remarks, formulas."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from ifspace.answer import Status
from ifspace.block import Composition
from ifspace.catalogue.choose import AMOUNTS
from ifspace.catalogue.export import csv_table, json_text, markdown_table, ratio_text
from ifspace.catalogue.setting import standard_block
from ifspace.cli.options import Forms
from ifspace.groups.problem import GroupPlan, GroupsAnswer, GroupsProblem
from ifspace.groups.symbolic import (
    analyse,
    notes,
    said,
    symbols,
    to_latex,
    to_text,
    widest,
    width_text,
)
from ifspace.reach import Reference, field_after, quality, removable_layers
from ifspace.table import (
    facts,
    heading,
    readable,
    table,
)
from ifspace.values import listed


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a plan stands to the convolutions it competes with, decided on the exact field.

    `field` is (pixels, channels); `removable` counts the layers of all copies from 0. They mean
    what `ifspace show` means by them: without widths inside, what can go is asked at width C.

    Reference: [3DRF] section 4.2.
    """

    field: tuple[int, int]
    quality: bool
    removable: tuple[int, ...]

    @property
    def compact(self) -> bool:
        """Whether no single layer can go."""
        return not self.removable


def judge(plan: GroupPlan) -> Judgement:
    """Return the judgement on a plan.

    >>> from ifspace.block import Block
    >>> from ifspace.groups.problem import GroupsProblem
    >>> block = Block.parse("DW+PW+SH(2)")
    >>> judge(GroupPlan(GroupsProblem(block.composition, 64), block))
    Judgement(field=(3, 64), quality=True, removable=(2,))
    """
    problem, sized = plan.problem, plan.sized
    reference = _reference(plan)
    # A change of width alone is no reason to keep a layer, see `ifspace.show.describe`.
    inside = problem.bottleneck is not None or problem.widths is not None
    even = sized if inside else plan.block.at(problem.channels, dims=problem.dims)
    return Judgement(
        field_after(sized)[-1], quality(sized, reference), removable_layers(even, reference)
    )


def _reference(plan: GroupPlan) -> Reference:
    return Reference(plan.problem.kernel, plan.block.repeats)


def remarks(plans: Sequence[GroupPlan], judgements: Sequence[Judgement]) -> list[str]:
    """Return each remark once, with the numbers of the plans it is on where there are several.

    >>> from ifspace.block import Block
    >>> from ifspace.groups.problem import GroupsProblem
    >>> block = Block.parse("RPW(8,0)+GPW(8)")
    >>> plan = GroupPlan(GroupsProblem(block.composition, 64), block)
    >>> remarks([plan], [judge(plan)])
    ['sees 1×1 pixels, a CONV(3) sees 3×3']
    """
    found: dict[str, list[int]] = {}
    for number, (plan, judgement) in enumerate(zip(plans, judgements, strict=True), start=1):
        for text in (_pixels(plan, judgement), _spare(plan, judgement)):
            if text:
                found.setdefault(text, []).append(number)
    if len(plans) == 1:
        return list(found)
    return [f"{spans(numbers)}: {text}" for text, numbers in found.items()]


def _pixels(plan: GroupPlan, judgement: Judgement) -> str:
    reference = _reference(plan)
    side = judgement.field[0]
    if side == reference.side:
        return ""
    seen, wanted = ("×".join([str(each)] * plan.problem.dims) for each in (side, reference.side))
    one = reference.repeats == 1
    name = f"{'a' if one else reference.repeats} CONV({reference.kernel})"
    return f"sees {seen} pixels, {name} {'sees' if one else 'see'} {wanted}"


def _spare(plan: GroupPlan, judgement: Judgement) -> str:
    kinds = [layer.layer.kind for layer in plan.sized.layers]
    spare = dict.fromkeys(kinds[place] for place in judgement.removable)
    if not spare:
        return ""
    names = " or ".join(f"one {kind}" if kinds.count(kind) > 1 else kind for kind in spare)
    # Widths inside are nothing that `show` takes.
    return f"{names} can go" + (", see `ifspace show`" if plan.problem.widths is None else "")


def spans(numbers: Iterable[int]) -> str:
    """Return ascending numbers as a reader lists them.

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


_COLUMNS = (
    "block",
    "channels",
    "out_channels",
    "params",
    "macs_per_pixel",
    "activations_per_pixel",
    "objective",
)
_JUDGED = ("field_side", "field_channels", "quality", "compact", "status")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a widest block was asked to keep to: parameters, C a multiple, F = alpha x C."""

    params: int
    multiple: int
    alpha: Fraction = Fraction(1)

    def no_wider(self, answer: GroupsAnswer) -> str:
        """Return that the block is the widest, among which widths.

        >>> Budget(1600, 8).no_wider(GroupsAnswer(Status.OPTIMAL, 1600, ()))
        'no wider multiple of 8 fits'
        """
        wider = f"multiple of {self.multiple}" if self.multiple > 1 else "block"
        return f"no wider {wider} fits{_up_to(answer)}"


def forms(
    problem: GroupsProblem, answer: GroupsAnswer, asked: Budget | None = None
) -> dict[str, Callable[[], str]]:
    """Return the answer in every format; `asked` says what the widest block had to keep to.

    Without a plan only JSON has something to say: a header alone would pass for an answer.
    """
    rows = [_row(plan) for plan in answer.plans]
    judgements = [judge(plan) for plan in answer.plans]
    status = answer.status.name.lower()
    values = {
        "status": status,
        "message": message(problem, answer, asked),
        "bound": answer.bound,
        "bound_is": _bound_is(problem, answer, asked),
        "gap": _gap(answer),
        "composition": str(problem.composition),
        "minimised": measure(problem),
        "plans": [row | _judged(each) for row, each in zip(rows, judgements, strict=True)],
    }
    if asked is not None:
        values |= {
            "budget": asked.params,
            "alpha": str(asked.alpha),
            "multiple": asked.multiple,
            "widest": answer.plans[0].problem.channels if answer.plans else None,
        }
    cells = [[row[name] for name in _COLUMNS] for row in rows]
    header = [*_COLUMNS, *_JUDGED]
    judged = [
        [*row, *each.field, each.quality, each.compact, status]
        for row, each in zip(cells, judgements, strict=True)
    ]
    made = {
        "table": lambda: _text(problem, answer, asked, judgements),
        "csv": lambda: csv_table(header, judged),
        "markdown": lambda: markdown_table(header, [list(map(str, row)) for row in judged]),
        "latex": lambda: _latex(cells),
    }
    if not answer.plans:
        made = dict.fromkeys(made, str)
    return made | {"json": lambda: json_text(values)}


def _judged(judgement: Judgement) -> dict[str, Any]:
    return {
        "field": list(judgement.field),
        "quality": judgement.quality,
        "compact": judgement.compact,
        "removable": list(judgement.removable),
    }


def _bound_is(problem: GroupsProblem, answer: GroupsAnswer, asked: Budget | None) -> str | None:
    """Return what the bound bounds, in words: with a budget it holds at one width."""
    if answer.bound is None:
        return None
    where = f"at {_widths(answer.plans[0].problem if answer.plans else problem)}"
    if asked is not None and not answer.plans:
        where = "at the width where time ran out"
    return f"a lower bound on the {measure(problem)} of every plan {where}"


def message(problem: GroupsProblem, answer: GroupsAnswer, asked: Budget | None = None) -> str:
    """Return how the search ended, in a sentence that names what was asked and what to do."""
    if answer.plans:
        if asked is None:
            return str(answer.status.value)
        proven = answer.status is Status.OPTIMAL
        return f"{'proven: ' if proven else f'{answer.status.value}; '}{asked.no_wider(answer)}"
    place = f"at {_widths(problem)}" if asked is None else f"within {asked.params:,} parameters"
    said = f"{problem.composition} {place}: "
    if answer.status is not Status.INFEASIBLE:
        return f"{said}{answer.status.value}; give it more with --time-limit"
    if asked is not None:
        return (
            f"{said}proven: no width{_up_to(answer, ' ')} has a legal choice with the full field; "
            "raise --budget, or try another composition"
        )
    without = dict.fromkeys(
        layer.layer.kind
        for layer in problem.chain
        if not layer.conv.choices(layer.c_in, layer.c_out, (Fraction(0),))
    )
    if without:
        verb = "has" if len(without) == 1 else "have"
        said += f"{listed(without)} {verb} no legal group count at these widths"
        return f"{said}; try widths with more common divisors"
    rolls = any(layer.conv.takes_overlap for layer in problem.chain)
    free = ", or --overlaps free" if rolls and problem.overlaps is not None else ""
    return f"{said}{answer.status.value}; try other widths{free}, or another composition"


def _up_to(answer: GroupsAnswer, before: str = ", of widths ") -> str:
    return "" if answer.up_to is None else f"{before}up to {answer.up_to:,}"


def measure(problem: GroupsProblem) -> str:
    """Return what is minimised, in words.

    >>> from ifspace.block import Composition
    >>> measure(GroupsProblem(Composition.parse("DW+PW"), 8, weights=(2, 1, 0)))
    '2 x parameters + 1 x MACs'
    """
    if problem.weights is None:
        return AMOUNTS[problem.objective][1]
    names = [AMOUNTS[name][1] for name in ("params", "macs", "activations")]
    pairs = zip(problem.weights, names, strict=True)
    return " + ".join(f"{weight} x {name}" for weight, name in pairs if weight)


def gap_text(answer: GroupsAnswer) -> str:
    """Return how far the best plan may be from the least; empty where it is proven."""
    gap = _gap(answer)
    if answer.status is not Status.FEASIBLE or gap is None:
        return ""
    best = answer.plans[0].objective()
    return f"the best found has {best:,}, the bound is {answer.bound:,}: a gap of {gap / best:.1%}"


def _gap(answer: GroupsAnswer) -> int | None:
    if not answer.plans or answer.bound is None:
        return None
    return answer.plans[0].objective() - answer.bound


def _row(plan: GroupPlan) -> dict[str, Any]:
    sized, stride = plan.sized, plan.problem.stride
    return {
        "block": str(plan.block),
        "channels": sized.channels,
        "out_channels": sized.out_channels,
        "params": sized.params,
        "macs_per_pixel": sized.macs_per_pixel(stride),
        "activations_per_pixel": sized.activations_per_pixel(stride),
        "objective": plan.objective(),
    }


def _widths(problem: GroupsProblem) -> str:
    behind = [layer.c_out for layer in problem.chain if layer.conv.mixing]
    steps = [problem.channels, *(behind or [problem.out_width])]
    steps = [steps[0], *(b for a, b in pairwise(steps) if a != b)]
    named = " to ".join(f"{step:,}" for step in steps)
    return f"{named} {'channel' if steps == [1] else 'channels'}"


def _text(
    problem: GroupsProblem,
    answer: GroupsAnswer,
    asked: Budget | None,
    judgements: list[Judgement],
) -> str:
    first = answer.plans[0]
    title = f"Fewest {measure(problem)} of {problem.composition} at {_widths(first.problem)}"
    if asked is not None:
        title = f"Widest {problem.composition} within {asked.params:,} parameters{_up_to(answer)}"
        title += f": {_widths(first.problem)}"
    columns = [">#", "block~", ">params", ">×CONV", ">MACs/px", ">act/px"]
    rows = []
    for number, plan in enumerate(answer.plans, start=1):
        row = _row(plan)
        amounts = [row["macs_per_pixel"], row["activations_per_pixel"]]
        if problem.weights is not None:
            amounts.append(row["objective"])
        times = ratio_text(row["params"] / _reference_params(plan.problem))
        counts = [f"{each:,}" for each in amounts]
        rows.append([number, row["block"], f"{row['params']:,}", times, *counts])
    if problem.weights is not None:
        columns.append(">weighted")
    said = [("status", f"{answer.status.name.lower()}, {message(problem, answer, asked)}")]
    said += _bound(answer, asked)
    said += [("note", remark) for remark in remarks(answer.plans, judgements)]
    return heading(title) + table(columns, rows) + "\n" + facts(said)


def _bound(answer: GroupsAnswer, asked: Budget | None) -> list[tuple[str, str]]:
    """Return what is said of the bound; with a budget it begins with the width."""
    if answer.bound is None:
        return []
    gap = gap_text(answer)
    if asked is None:
        return [("bound", gap or f"{answer.bound:,}, which the first one reaches")]
    channels = answer.plans[0].problem.channels
    width = f"{channels:,} {'channel' if channels == 1 else 'channels'}, the widest"
    if gap:
        return [("bound", width), ("", gap)]
    return [("bound", f"{width}; {answer.bound:,} parameters, the fewest there")]


def _reference_params(problem: GroupsProblem) -> int:
    block = standard_block(problem.kernel, problem.composition.repeats)
    return block.at(problem.channels, problem.out_width, dims=problem.dims).params


def _latex(cells: list[list[Any]]) -> str:
    head = "block & $C$ & $F$ & parameters & MACs/px & act/px & objective \\\\\n\\hline\n"
    body = "".join(" & ".join(map(str, row)) + " \\\\\n" for row in cells)
    return f"\\begin{{tabular}}{{lrrrrrr}}\n{head}{body}\\end{{tabular}}\n"


def symbolic_forms(
    word: Composition, kernel: int, bottleneck: Fraction | None, alpha: Fraction | None
) -> Forms:
    """Return the analysis in every format, with the greatest width of a budget P.

    JSON and CSV have the formulas as SymPy reads them, text and Markdown as a reader does.

    Raises: SettingError or BlockError for a kernel, ratio or composition without an analysis.
    """
    found = analyse(word, False if bottleneck is None else bottleneck, kernel, alpha)
    width = widest(word, bottleneck, alpha, kernel)
    legend = symbols(found, width)
    groups = {str(name): str(best) for name, best in found.groups}
    values = {
        "composition": str(word),
        "params": said(found.params),
        "ratio": said(found.ratio),
        "condition": said(found.condition),
        "product": None if found.product is None else said(found.product),
        "bound": said(found.bound),
        "ratio_at_optimum": said(found.ratio_at_optimum),
        "widest": width_text(width),
        "family": None if found.family is None else said(found.family),
        "reference": found.reference,
    }
    best = "; ".join(f"{name} = {value}" for name, value in groups.items())
    rows = [[name, value or ""] for name, value in values.items()]
    rows += [["groups", best], *([f"symbol {name}", text] for name, text in legend.items())]
    short, remarks = notes(found)
    rows += [["note", note] for note in short]
    rows += [["remark", remark] for remark in remarks]
    more = {
        "groups": groups,
        "symbols": legend,
        "notes": [*short, *remarks],
        "remarks": list(remarks),
    }
    return {
        "table": lambda: readable(to_text(found, width)),
        "json": lambda: json_text(values | more),
        "csv": lambda: csv_table(["name", "value"], rows),
        "markdown": lambda: markdown_table(
            ["name", "value"], [[name, readable(value)] for name, value in rows]
        ),
        "latex": lambda: to_latex(found, width),
    }
