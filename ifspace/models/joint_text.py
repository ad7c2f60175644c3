"""What `ifspace optimize` prints of widths, depths and blocks that one search chose."""

from collections.abc import Mapping
from typing import Any, Final

from ifspace.answer import Status
from ifspace.block import SizedBlock
from ifspace.models.joint import Redesign
from ifspace.models.options import name_list
from ifspace.models.units import unit_name
from ifspace.models.widths_text import changes_text
from ifspace.stages.joint import ORDERS
from ifspace.stages.problem import amounts_text
from ifspace.table import Table, facts, heading

# What decides, in words.
_DECIDING: Final = {
    "value": "Σ MACs^(3/4)",
    "macs": "MACs",
    "params": "parameters",
    "latency_ms": "ms",
    "changed": "changes",
}


def design_values(plan: Redesign | None) -> dict[str, Any] | None:
    """Return the plan of a redesigned network as JSON values."""
    if plan is None:
        return None
    best = plan.answer.best
    return {
        "objective": plan.objective,
        "value": None if best is None else _numbers(best.objective()),
        "status": plan.answer.status.name.lower(),
        "bound": None if plan.answer.bound is None else _numbers(plan.answer.bound),
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


def _numbers(amounts: Any) -> list[float]:
    return [float(amount) for amount in amounts]


def design_text(plan: Redesign | None) -> str:
    """Return widths, units and blocks as tables with a row for each that changes, and facts."""
    if plan is None or plan.answer.best is None:
        return ""
    text = changes_text(plan.widths)
    if plan.blocks:
        text += "\n" + heading(f"Replaced: {len(plan.blocks)} layers") + _blocks_text(plan.blocks)
    units = sum(before for before, _ in plan.kept_units)
    pairs = []
    if units:
        names = [unit_name(names) for names in plan.removed]
        gone = f"{len(names)} of {units} that may go{': ' if names else ''}{name_list(names)}"
        pairs.append(("removed units", gone))
    pairs += _answer_facts(plan)
    reasons = [f"{name_list(part.layers, 3)}: {part.reason}" for part in plan.fixed]
    pairs += [("widths kept" if not n else "", reason) for n, reason in enumerate(reasons)]
    return text + "\n" + facts(pairs)


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


def _answer_facts(plan: Redesign) -> list[tuple[str, str]]:
    """Return how the search ended, what bounds it, and what limits leave."""
    answer, best = plan.answer, plan.answer.best
    assert best is not None
    status = "proven: of the widths that were tried nothing is better within the limits"
    if answer.status is not Status.OPTIMAL:
        status = "the best found"
    pairs = [("status", f"{answer.status.name.lower()}, {status}")]
    if answer.bound is not None:
        number = len(answer.bound) - 1
        name, sign = ORDERS[plan.objective][number]
        value, bound = best.objective()[number], answer.bound[number]
        gap = float(abs((value - bound) / value)) if value else 0.0
        text = f"{float(sign * bound):.6g} {_DECIDING[name]}, "
        is_proven = answer.status is Status.OPTIMAL
        text += "which these reach" if is_proven else f"{gap:.2%} better than these"
        pairs.append(("bound", text))
    tried, possible = plan.tried
    if tried < possible:
        pairs.append(("tried", f"{tried} of {possible} numbers of channels in the last search"))
    limits = {
        name: limit - plan.after[name] for name, limit in plan.limits.items() if name in plan.after
    }
    pairs.append(("left over", amounts_text(limits)))
    return pairs
