"""The stages in what `ifspace optimize` prints: states of the organizer, depths within budgets."""

from typing import Any

from ifspace.answer import Status
from ifspace.models.optimizing import Optimized
from ifspace.models.options import size_value
from ifspace.models.reorganization import Reorganization
from ifspace.stages.text import (
    PublishedComparison,
    State,
    amounts_text,
    ended,
    moves_table,
    published_of,
    states,
)
from ifspace.table import (
    facts,
    heading,
)

# The depths that were found within budgets, where the organizer does not come by.
BEST = "b"
_SAID = {
    Status.OPTIMAL: "proven: within the budgets no depths up to {deep} gain more",
    Status.FEASIBLE: "time ran out: the best found so far, with the bound beside it",
}


def moved_values(found: Optimized) -> dict[str, Any]:
    """Return the stages as values that JSON has."""
    plan = found.stages
    if plan is None or found.wanted.blocks_only:
        return {"stages": None, "moves": [], "published": []}
    answer, beside = plan.answer, _beside(found, plan)
    way, taken = _states(found, plan), _taken(found, plan)
    return {
        "stages": {
            "sides": [size_value(_size(name)) for name in plan.names],
            "taken": taken,
            "status": None if answer is None else answer.status.name.lower(),
            "bound": None if answer is None else answer.bound,
            "stopped": plan.trajectory.stopped.name.lower(),
            "moved_gain": plan.trajectory.moved_gain,
            "start": way[0].amounts,
        },
        "moves": [
            {"step": state.step, **state.values, "taken": state.step == taken}
            for state in way
            if state.move is not None
        ],
        "published": [each.values for each in beside],
    }


def moved(found: Optimized) -> str:
    """Return the stages as a table with a row a state, and what there is to say of them."""
    plan = found.stages
    if plan is None or found.wanted.blocks_only:
        return ""
    wanted, beside = found.wanted, _beside(found, plan)
    title = f"Moves of the organizer: θ = {wanted.theta or 0:g}, α = {plan.alpha:g}"
    said = [("sides", ", ".join(plan.names))]
    if plan.answer is None:
        said += ended(plan.trajectory)
    else:
        title = f"Depths of greatest gain within {amounts_text(plan.budgets.given)}: "
        title += f"α = {plan.alpha:g}"
        said += _proven(plan)
    lines = [str(each) for each in beside]
    said += list(zip(["published", *[""] * len(lines)], lines, strict=False))
    rows = moves_table(_states(found, plan), bool(lines), _notes(found, plan))
    return heading(title) + rows + "\n" + facts(said)


def _states(found: Optimized, plan: Reorganization) -> list[State]:
    """Return the states of the organizer and, where none is what was taken, that too."""
    published = [each.published for each in _beside(found, plan)]
    way = states(plan.trajectory, plan.alpha, published)
    if _taken(found, plan) == BEST:
        way.append(State(BEST, None, plan.end, plan.end.gain(plan.alpha)))
    return way


def _taken(found: Optimized, plan: Reorganization) -> int | str | None:
    """Return the step after which the depths are those taken."""
    if plan.answer is not None and not plan.answer.plans:
        return None
    depths = [layout.depths for layout in plan.states]
    return depths.index(plan.end.depths) if plan.end.depths in depths else BEST


def _notes(found: Optimized, plan: Reorganization) -> dict[Any, str]:
    """Return what to say of states: which was taken, which others keep the budgets."""
    given = plan.budgets.given
    notes: dict[Any, str] = {
        step: "keeps the budgets"
        for step, layout in enumerate(plan.states)
        if given and all(getattr(layout, name) <= most for name, most in given.items())
    }
    taken = _taken(found, plan)
    return notes if taken is None else notes | {taken: "taken"}


def _beside(found: Optimized, plan: Reorganization) -> list[PublishedComparison]:
    source = found.wanted.source
    classifier = sum(layer.params for layer in found.before.head)
    return [
        PublishedComparison(each, plan.trajectory, classifier)
        for each in published_of(source.name, source.image)
        if len(each.depths) == len(plan.start.depths)
    ]


def _proven(plan: Reorganization) -> list[tuple[str, str]]:
    answer = plan.answer
    if answer is None or not answer.plans:
        return []
    best = answer.plans[0]
    deep = max(table.most for table in best.problem.tables)
    said = [("status", f"{answer.status.name.lower()}, {_SAID[answer.status].format(deep=deep)}")]
    if answer.bound is not None:
        gap = answer.bound - best.objective()
        reached = "which these reach" if gap < 1e-6 else f"{gap:.2g} above these"
        said.append(("bound", f"{answer.bound:.6f}, {reached}"))
    left = {name: most - getattr(plan.end, name) for name, most in plan.budgets.given.items()}
    return [*said, ("left over", amounts_text(left))]


def _size(name: str) -> tuple[int, int]:
    height, width = map(int, name.split("×"))
    return height, width
