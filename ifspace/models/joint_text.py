"""What `ifspace optimize` prints of widths, depths and blocks that one search chose."""

from collections.abc import Mapping
from typing import Any, Final

from ifspace.answer import Status
from ifspace.block import SizedBlock
from ifspace.models.joint import Redesign
from ifspace.models.options import name_list
from ifspace.models.units import unit_name
from ifspace.models.widths_text import (
    YIELDED_TEXT,
    above_facts,
    changes_text,
    gap_text,
    limits_facts,
    reason_lines,
)
from ifspace.stages.joint import ORDERS
from ifspace.stages.problem import AMOUNTS, amounts_text
from ifspace.table import Table, facts, heading, number_text
from ifspace.values import counted

# What decides, in words.
_DECIDING: Final = {
    "value": "Σ MACs^(3/4)",
    "macs": "MACs",
    "params": "parameters",
    "latency_ms": "latency",
    "changed": "changes",
}


def design_values(plan: Redesign | None) -> dict[str, Any] | None:
    """Return the plan of a redesigned network as JSON values."""
    if plan is None:
        return None
    best = plan.answer.best
    return {
        "objective": plan.objective,
        "value": None if best is None else _numbers(plan, best.objective()),
        "status": plan.answer.status.name.lower(),
        "bound": None if plan.answer.bound is None else _numbers(plan, plan.answer.bound),
        "tried": plan.tried[0],
        "possible": plan.tried[1],
        "limits": {name: float(limit) for name, limit in plan.limits.items()},
        "groups": [
            {"layers": width.layers, "before": width.before, "after": width.after}
            for width in plan.widths
        ],
        "kept": [
            {"layers": part.layers, "channels": part.channels, "reason": part.reason}
            for part in plan.fixed
        ],
        "removed": [unit_name(names) for names in plan.removed],
        "blocks": [
            {
                "name": name,
                "block": str(sized.block),
                "channels": sized.channels,
                "out_channels": sized.out_channels,
            }
            for name, sized in plan.blocks.items()
        ],
    }


def _numbers(plan: Redesign, amounts: Any) -> list[float]:
    """Return the amounts that decide as they are counted, whether the most or the least is best."""
    signs = [sign for _, sign in ORDERS[plan.objective]]
    return [sign * float(amount) for sign, amount in zip(signs, amounts, strict=False)]


def design_text(plan: Redesign | None, is_measured: bool = False) -> str:
    """Return widths, units and blocks as tables with a row for each that changes, and facts."""
    if plan is None or plan.answer.best is None:
        return ""
    if plan.is_unchanged:
        return heading("Nothing changes") + facts(above_facts(plan.budgets, plan.before))
    texts = [changes_text(plan.widths)]
    if plan.blocks:
        title = heading(f"Replaced: {counted(len(plan.blocks), 'layer')}")
        texts.append(title + _blocks_text(plan.blocks))
    units = sum(before for before, _ in plan.kept_units)
    pairs = []
    if units:
        names = [unit_name(names) for names in plan.removed]
        gone = f"{len(names)} of {units} that may go{': ' if names else ''}{name_list(names)}"
        pairs.append(("removed units", gone))
    pairs += _answer_facts(plan, is_measured)
    reasons = reason_lines(plan.fixed)
    pairs += [("widths kept" if not n else "", reason) for n, reason in enumerate(reasons)]
    return "\n".join([*filter(None, texts), facts(pairs)])


def _blocks_text(blocks: Mapping[str, SizedBlock]) -> str:
    rows = tuple(
        (
            name,
            str(sized.block),
            f"{sized.channels} to {sized.out_channels}",
            sized.params,
            sized.least_fan_in,
        )
        for name, sized in blocks.items()
    )
    return Table(("layer~", "block~", "channels", ">weights", ">least fan-in"), rows).text()


def _answer_facts(plan: Redesign, is_measured: bool) -> list[tuple[str, str]]:
    """Return how the search ended, what bounds it, and what limits leave."""
    answer, best = plan.answer, plan.answer.best
    assert best is not None
    if plan.is_planned and not plan.limits:
        return []
    if plan.is_planned:
        return limits_facts(plan.limits, plan.budgets.limits, plan.before, plan.after, is_measured)
    status = "proven: of the widths that were tried nothing is better within the limits"
    if answer.status is not Status.OPTIMAL:
        status = "the best found"
        if plan.objective == "macs-3/4":
            status += YIELDED_TEXT
    pairs = [("status", f"{answer.status.name.lower()}, {status}{_tie_text(plan)}")]
    if answer.bound:
        name, sign = ORDERS[plan.objective][0]
        value, bound = best.objective()[0], answer.bound[0]
        text = f"{_amount_text(name, sign * bound)}, "
        gap = _gap(value, bound)
        is_reached = answer.status is Status.OPTIMAL or not gap
        text += "which these reach" if is_reached else f"{gap_text(gap)} better than these"
        pairs.append(("bound", text))
    tried, possible = plan.tried
    if tried < possible:
        pairs.append(("tried", f"{tried} of {possible} numbers of channels in the last search"))
    return [
        *pairs,
        *limits_facts(plan.limits, plan.budgets.limits, plan.before, plan.after, is_measured),
    ]


def _tie_text(plan: Redesign) -> str:
    """Return which of the later amounts is not proven where the first is."""
    answer, best = plan.answer, plan.answer.best
    number = len(answer.bound or ()) - 1
    if best is None or number < 1 or answer.status is Status.OPTIMAL:
        return ""
    name, _ = ORDERS[plan.objective][number]
    value, bound = best.objective()[number], answer.bound[number]
    first = _DECIDING[ORDERS[plan.objective][0][0]]
    return f": {first} proven, {_DECIDING[name]} at most {_gap(value, bound):.2%} from the best"


def _gap(value: Any, bound: Any) -> float:
    return float(abs((value - bound) / value)) if value else 0.0


def _amount_text(name: str, amount: Any) -> str:
    """Return an amount that decides, in words."""
    if name in AMOUNTS:
        return amounts_text({name: amount})
    if name == "changed":
        return counted(int(amount), "change")
    return f"{number_text(amount)} of {_DECIDING[name]}"
