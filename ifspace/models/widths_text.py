"""What `ifspace optimize` prints of widths: each group of channels before and after, and why."""

from collections.abc import Sequence
from typing import Any, Final

from ifspace.answer import Status
from ifspace.models.options import name_list
from ifspace.models.widths import GroupWidth, Narrowing
from ifspace.stages.problem import amounts_text
from ifspace.table import Table, facts, heading, ratio_text

OBJECTIVE_TEXTS: Final = {
    "macs-3/4": "of Σ MACs^(3/4)",
    "most-macs": "MACs",
    "most-params": "parameters",
}
_STATUS: Final = {
    Status.OPTIMAL: "proven: within the budgets no widths have more",
    Status.FEASIBLE: "the best found",
}


def widths_values(plan: Narrowing | None) -> dict[str, Any] | None:
    """Return the plan of a narrowed network as JSON values."""
    if plan is None:
        return None
    best = plan.answer.best
    return {
        "objective": plan.objective,
        "value": None if best is None else best.objective(),
        "status": plan.answer.status.name.lower(),
        "bound": plan.answer.bound,
        "groups": [
            {"layers": width.layers, "before": width.before, "after": width.after}
            for width in plan.widths
        ],
        "kept": [
            {"layers": part.layers, "channels": part.channels, "reason": part.reason}
            for part in plan.fixed
        ],
        "narrowed_alike": plan.alike,
    }


def changes_text(widths: Sequence[GroupWidth]) -> str:
    """Return the widths that change as a table with a title, a row for each group of channels."""
    changed = [width for width in widths if width.before != width.after]
    rows = [
        (
            width.name,
            "" if len(width.layers) == 1 else f"and {len(width.layers) - 1} more",
            width.before,
            width.after,
            ratio_text(width.after / width.before),
        )
        for width in changed
    ]
    table = Table(("channels of~", "", ">before", ">after", ">×"), tuple(rows))
    return heading(f"Narrowed: {len(changed)} of {len(widths)} widths") + table.text()


def widths_text(plan: Narrowing | None) -> str:
    """Return the widths as a table with a row for each group that changes, and facts about them."""
    if plan is None or plan.answer.best is None:
        return ""
    kept = [width.name for width in plan.widths if width.before == width.after]
    lines = [f"{name_list(part.layers, 3)}: {part.reason}" for part in plan.fixed]
    lines += [f"{name_list(kept)}: the best widths"] if kept else []
    pairs = [("kept" if not number else "", line) for number, line in enumerate(lines)]
    answer, value = plan.answer, plan.answer.best.objective()
    pairs.append(("status", f"{answer.status.name.lower()}, {_STATUS[answer.status]}"))
    of_what = OBJECTIVE_TEXTS[plan.objective]
    if answer.bound is not None:
        gap = f"{(answer.bound - value) / value:.2%} above these" if answer.bound > value else ""
        pairs.append(("bound", f"{answer.bound:.4g} {of_what}, {gap or 'which these reach'}"))
    alike = plan.alike
    pairs.append(
        ("alike", f"{alike['params']:,} parameters, {alike['macs']:,} MACs with all narrowed alike")
    )
    limits = plan.budgets.limits.items()
    left = amounts_text({name: limit - plan.after[name] for name, limit in limits})
    return changes_text(plan.widths) + "\n" + facts([*pairs, ("left over", left)])
