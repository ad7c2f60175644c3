"""A good layout found soon: the exact program within a few widths of two that are easy to find.

The one is worth most when every weight has the best price; it is taken as it is, and made wider or
narrower by a channel, unit by unit, until it has about the weights of the budget. The other has the
greatest widths that are as equal as the order lets them be. The last few units may differ from it:
they take up the weights that are left, and where the budget is to be met exactly, there are enough
of them that one of their widths divides what the last unit has to spend.
"""

from math import inf
from typing import Final

from ifspace.energy.bounds import (
    GaveUpError,
    Ranges,
    most_widths,
)
from ifspace.energy.exact import Prefixes
from ifspace.energy.problem import (
    EnergyPlan,
    EnergyProblem,
)

# So many units before the last may differ from the start, by so many channels; the more are tried
# when the fewer lead to no layout.
_FREE: Final = 4
_REACHES: Final = (4, 12)


def first_plan(
    problem: EnergyProblem, chain: list[int] | None = None, deadline: float | None = None
) -> EnergyPlan | None:
    """Return a layout of two units or more that holds, or None where none is near or time is over.

    It is near a chain, that of `Bounds`, and without one near widths as equal as the order allows.
    The deadline is one of time.monotonic.

    >>> from ifspace.energy.bounds import Bounds
    >>> problem = EnergyProblem(66304, layers=10)
    >>> first_plan(problem, Bounds(problem).chain).widths
    (79, 80, 81, 82, 83, 86, 89, 90, 91, 97)
    """
    starts = _equal(problem) if chain is None else [chain, _fitted(problem, chain)]
    found: list[EnergyPlan] = []
    try:
        for reach in _REACHES:
            for start in starts:
                prefixes = Prefixes(problem, _near(problem, start, reach), deadline)
                chosen = prefixes.best(-inf, 1, (2, problem.budget))[1]
                found += [EnergyPlan(problem, tuple(map(int, row))) for row in chosen]
            if found:
                break
    except GaveUpError:
        pass
    return min(found, key=EnergyPlan.order, default=None)


def _equal(problem: EnergyProblem) -> list[list[int]]:
    """Return widths each as little above the last as it may be: the greatest within the budget.

    After them two a channel or two narrower, which leave more to the last unit.
    """
    most = most_widths(problem)[0]
    return [
        [width + place * problem.step for place in range(len(problem.units))]
        for width in range(most, max(most - 3, 1), -1)
    ]


def _fitted(problem: EnergyProblem, widths: list[int]) -> list[int]:
    """Return widths changed by as little as brings their weights to the budget or just past it.

    The last units become wider first, or the first ones narrower: that keeps the order.
    """
    fitted = list(widths)
    units = range(len(fitted) - 1)
    change = 1 if problem.weights(fitted) < problem.budget else -1
    while fitted[0] > 2 or change > 0:
        for place in units[::-1] if change > 0 else units:
            fitted[place] += change
            if (problem.weights(fitted) - problem.budget) * change >= 0:
                return fitted
    return fitted


def _near(problem: EnergyProblem, start: list[int], reach: int) -> Ranges:
    """Return the widths and weights of the layouts near one, for all units but the last."""
    ranges: Ranges = [{problem.inputs: (0, 0)}]
    for place, width in enumerate(start[:-1]):
        away = reach if place >= len(start) - 1 - _FREE else 0
        before = ranges[-1]
        if not before:
            return [ranges[0], *({} for _ in start[:-1])]
        used = min(low for low, _ in before.values()), max(high for _, high in before.values())
        row = {}
        for each in range(max(2, width - away), width + away + 1):
            inside = (problem.units[place] - 1) * each**2
            low = used[0] + min(before) * each + inside
            if low <= problem.budget:
                high = used[1] + max(before) * each + inside
                row[each] = (low, min(high, problem.budget))
        ranges.append(row)
    return ranges
