"""What `ifspace optimize` prints of widths: each group of channels before and after, and why."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ifspace.answer import Status
from ifspace.models.channel_groups import FixedChannels
from ifspace.models.options import name_list
from ifspace.models.widths import GroupWidth, Narrowing
from ifspace.stages.problem import Budgets, amounts_text
from ifspace.stages.widths import YIELDED
from ifspace.table import Table, facts, heading, number_text, ratio_text
from ifspace.values import counted

_OBJECTIVES: Final = {
    "macs-3/4": "of Σ MACs^(3/4)",
    "most-macs": "MACs",
    "most-params": "parameters",
}
YIELDED_TEXT: Final = f", of those within {float(YIELDED):.1%} the one of the most parameters"
# A gap below it would print as none.
_LEAST_GAP: Final = 5e-5
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
        "limits": None if best is None else best.problem.limits,
    }


def changes_text(widths: Sequence[GroupWidth]) -> str:
    """Return the widths that change as a table with a title, a row for each group of channels."""
    changed = [width for width in widths if width.before != width.after]
    if not changed:
        return ""
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
    title = "Narrowed"
    if any(width.after > width.before for width in changed):
        title = "Changed"
    counts = f"{len(changed)} of {counted(len(widths), 'width')}"
    return heading(f"{title}: {counts}") + table.text()


def widths_text(plan: Narrowing | None, is_measured: bool = False) -> str:
    """Return the widths as a table with a row for each group that changes, and facts about them.

    `is_measured`: a budget of latency is that of the whole network, which the plan does not have.
    """
    if plan is None or plan.answer.best is None:
        return ""
    if all(width.before == width.after for width in plan.widths):
        return heading("Nothing changes") + facts(above_facts(plan.budgets, plan.before))
    kept = [width.name for width in plan.widths if width.before == width.after]
    lines = reason_lines(plan.fixed)
    lines += [f"{name_list(kept)}: the best widths"] if kept else []
    pairs = [("kept" if not number else "", line) for number, line in enumerate(lines)]
    answer, best = plan.answer, plan.answer.best
    value = best.objective()
    status = _STATUS[answer.status]
    if answer.status is Status.FEASIBLE and plan.objective == "macs-3/4":
        status += YIELDED_TEXT
    pairs.append(("status", f"{answer.status.name.lower()}, {status}"))
    if answer.bound is not None:
        above = (answer.bound - value) / value if value else 0.0
        is_reached = answer.status is Status.OPTIMAL or not above
        gap = "" if is_reached else f"{gap_text(above)} above these"
        total = f"{number_text(answer.bound)} {_OBJECTIVES[plan.objective]}"
        pairs.append(("bound", f"{total}, {gap or 'which these reach'}"))
    alike = amounts_text({name: plan.alike[name] for name in ("params", "macs")})
    pairs.append(("alike", f"{alike} with all narrowed alike"))
    limits = best.problem.limits
    budgets = plan.budgets.limits
    pairs += limits_facts(limits, budgets, plan.before, plan.after, is_measured)
    return changes_text(plan.widths) + "\n" + facts(pairs)


def gap_text(gap: float) -> str:
    """Return how far a bound is from what was found.

    >>> gap_text(0.0011), gap_text(3e-6)
    ('0.11%', 'less than 0.01%')
    """
    return f"{gap:.2%}" if gap >= _LEAST_GAP else "less than 0.01%"


def reason_lines(fixed: Sequence[FixedChannels]) -> list[str]:
    """Return why widths stay, a line for each reason."""
    layers: dict[str, list[str]] = {}
    for part in fixed:
        layers.setdefault(part.reason, []).extend(part.layers)
    return [f"{name_list(names, 3)}: {reason}" for reason, names in layers.items()]


def above_facts(budgets: Budgets, now: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return that budgets are not below what a network has, where they are not."""
    limits = budgets.limits
    if not limits or any(name not in now or now[name] > limit for name, limit in limits.items()):
        return []
    amounts = amounts_text({name: now[name] for name in limits})
    return [("budget", f"not below the network as it is, which has {amounts}")]


def limits_facts(
    limits: Mapping[str, Any],
    budgets: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    is_measured: bool = False,
) -> list[tuple[str, str]]:
    """Return the limits beside the budgets, why they hold, and what a plan leaves of all.

    An amount without a budget has at most 9/10 of what narrowing alike leaves, or what it has now;
    but what the narrowest widths have is always allowed. What is left of a latency that was
    measured is not told: its budget is that of the whole network, the limit that of its layers.
    """
    others = {name: x for name, x in limits.items() if name not in budgets and name in after}
    as_now = {name: x for name, x in others.items() if x >= before[name]}
    less = {name: x for name, x in others.items() if name not in as_now}
    why = "9/10 of all widths narrowed alike, or what the narrowest have"
    lines = [f"also {amounts_text(less)}: {why}"]
    lines = lines * bool(less) + [f"also {amounts_text(as_now)}: no more than now"] * bool(as_now)
    pairs = [("" if number else "limits", line) for number, line in enumerate(lines)]
    untold = {"latency_ms"} if is_measured and "latency_ms" in budgets else set()
    left = {name: x - after[name] for name, x in limits.items() if name in {*after} - untold}
    return [*pairs, ("left over", amounts_text(left))] if left else pairs
