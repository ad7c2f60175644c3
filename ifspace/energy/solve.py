"""Find the widths of greatest layout energy within a budget of weights, with proof, in two ways.

*exact* (the default): a dynamic program whose table is limited by bounds finds every layout whose
energy reaches a threshold; the threshold begins near the greatest energy that any layout could have
and is lowered until there are enough layouts. No layout above the threshold is missing, so the best
of them are the best of all. *cpsat*: a model for the CP-SAT solver within the same bounds;
`cpsat_energy` can do without them. The exact program is the default because it is the faster
wherever both end, and more so the more layouts are asked for: the bounds leave so few widths and
weights that 16 units at 66,304 weights take a fifth of a second (`results/energy-bench.md`).

Layouts are sorted by their energies to 60 digits, and those of equal energy by their widths.

Reference: [Layout] eq. 4, which calls the problem NP-hard.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from math import exp, inf

import numpy as np

from ifspace.answer import Status
from ifspace.energy.bounds import SLACK, Bounds, Ranges, all_ranges, log_log, thresholds
from ifspace.energy.exact import Prefixes, first_plan, nearest_budgets
from ifspace.energy.problem import EnergyAnswer, EnergyPlan, EnergyProblem, EnergyRank
from ifspace.errors import ARGUMENT, SettingError
from ifspace.values import whole_number

# Finds the `top` layouts of a problem until a deadline of time.monotonic.
Search = Callable[[EnergyProblem, int, float | None], EnergyAnswer]


def exact_energy(problem: EnergyProblem, top: int, deadline: float | None = None) -> EnergyAnswer:
    """Return the answer of the exact program.

    At the deadline of time.monotonic, where nothing better is proven, the plan is a layout near the
    bounds, and the bound is what no energy can exceed.
    """
    bounds, first = None, None
    greatest = problem.factors[0] * log_log(problem.budget // problem.inputs)
    if len(problem.units) > 1:
        # Near equal widths first: that search is fast, if there is little time.
        firsts = [first_plan(problem, None, deadline)]
        bounds = Bounds(problem, deadline)
        firsts.append(first_plan(problem, bounds.chain, deadline))
        first = min(filter(None, firsts), key=EnergyPlan.order, default=None)
        greatest = bounds.greatest
    limit, plans = exp(greatest + SLACK), []
    try:
        for threshold in _levels(problem, greatest, first if top == 1 else None):
            low = -inf if threshold is None else threshold
            prefixes = Prefixes(problem, _ranges(problem, bounds, threshold), deadline)
            values, layouts = prefixes.best(low, top, (2, problem.budget))
            plans = [_plan(problem, widths) for widths in layouts]
            # Of those a little below the threshold some are left out: they do not count.
            if np.count_nonzero(values >= low) >= top:
                break
            limit = 0.0 if threshold is None else exp(threshold)
        else:
            plans += _without_energy(problem, top - len(plans), deadline)
    except TimeoutError:
        if not plans:
            return _unproven(first, limit)
    plans = sorted(plans, key=EnergyPlan.order)[:top]
    if not plans:
        return EnergyAnswer(Status.INFEASIBLE, None, ())
    return EnergyAnswer(Status.OPTIMAL, plans[0].energy(), tuple(plans))


def best_energy(
    problem: EnergyProblem,
    top: int = 1,
    time_limit_s: float | None = None,
    search: Search = exact_energy,
) -> EnergyAnswer:
    """Return the `top` layouts of greatest energy, best first.

    `search` is `exact_energy`, or `cpsat_energy` of `ifspace.energy.cpsat`, which needs OR-Tools.
    After a time limit in seconds there may be fewer of them, or a first one that is not proven, or
    none.

    >>> answer = best_energy(EnergyProblem(66304, layers=4), top=2)
    >>> answer.status.name, [plan.widths for plan in answer.plans]
    ('OPTIMAL', [(135, 136, 137, 211), (133, 135, 137, 215)])
    >>> answer = best_energy(EnergyProblem(1000, layers=1))
    >>> answer.status.name, answer.below, answer.above
    ('INFEASIBLE', 999, 1002)

    Raises: SettingError for a `top` below 1, or so many layouts that a table of them does not fit
        into memory.

    Reference: [Layout] eq. 4.
    """
    top = whole_number(top, "top", 1)
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    if problem.least_weights() > problem.budget:
        return EnergyAnswer(Status.INFEASIBLE, None, (), above=problem.least_weights())
    answer = search(problem, top, deadline)
    for plan in answer.plans:
        plan.check()
    if answer.status is not Status.INFEASIBLE:
        return answer
    try:
        below, above = nearest_budgets(problem, deadline)
    except TimeoutError:
        below, above = None, None
    return EnergyAnswer(Status.INFEASIBLE, None, (), below=below, above=above)


def rank(
    problem: EnergyProblem, widths: Sequence[int], time_limit_s: float | None = 60.0
) -> EnergyRank:
    """Return how many layouts of a problem have a greater energy than a layout.

    The layout itself need not meet the budget. After the time limit in seconds, or where a table of
    all layouts does not fit into memory, the count is of the greater ones found until then.

    >>> rank(EnergyProblem(66304, layers=4), (133, 135, 137, 215))
    EnergyRank(greater=1, exact=True)

    Raises: SettingError for another number of widths than units, and for widths below 1.
    """
    plan = EnergyPlan(problem, tuple(whole_number(width, "width", 1) for width in widths))
    if len(plan.widths) != len(problem.units):
        raise SettingError.because(
            f"wrong number of {ARGUMENT}",
            got=len(plan.widths),
            allowed=len(problem.units),
            remedy="give one for each unit",
            argument="widths",
        )
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    energy = plan.exact_energy()
    threshold = float(energy.ln()) if energy else None
    levels = [threshold]
    bounds = None
    if threshold is not None and len(problem.units) > 1:
        bounds = Bounds(problem, deadline)
        # Where the whole count is not possible, a higher threshold gives a lower bound on it.
        room = bounds.greatest - threshold
        levels += [threshold + room * part for part in (0.75, 0.95, 0.99)]
    greater = 0
    for level in levels:
        try:
            for count in _greater(plan, level, bounds, deadline):
                greater += count
        except (TimeoutError, SettingError):
            if greater:
                break
            continue
        return EnergyRank(greater, level == threshold)
    return EnergyRank(greater, exact=False)


def _plan(problem: EnergyProblem, widths: np.ndarray) -> EnergyPlan:
    return EnergyPlan(problem, tuple(map(int, widths)))


def _greater(
    plan: EnergyPlan, threshold: float | None, bounds: Bounds | None, deadline: float | None
) -> Iterator[int]:
    """Yield, in parts, how many layouts from a threshold on have more energy than the plan."""
    problem = plan.problem
    low = -inf if threshold is None else threshold
    prefixes = Prefixes(problem, _ranges(problem, bounds, threshold), deadline)
    energy = plan.exact_energy()
    for values, layouts in prefixes.above(low, (2, problem.budget)):
        certain = values > low + 2 * SLACK
        # Logarithms this near decide nothing: the exact energies do.
        close = (_plan(problem, widths) for widths in layouts[~certain])
        yield int(certain.sum()) + sum(other.exact_energy() > energy for other in close)


def _ranges(problem: EnergyProblem, bounds: Bounds | None, threshold: float | None) -> Ranges:
    if threshold is None or bounds is None:
        return all_ranges(problem, (2, problem.budget))
    return bounds.ranges(threshold)


def _levels(
    problem: EnergyProblem, greatest: float, first: EnergyPlan | None
) -> Iterator[float | None]:
    """Yield the thresholds, none of them below the energy of a first layout, if there is one."""
    reached = -inf if first is None else float(first.exact_energy().ln()) - SLACK
    for threshold in thresholds(problem, greatest):
        if threshold is None and first is not None:
            yield reached
        else:
            yield threshold if threshold is None else max(threshold, reached)


def _unproven(first: EnergyPlan | None, limit: float) -> EnergyAnswer:
    if first is None:
        return EnergyAnswer(Status.UNKNOWN, limit, ())
    return EnergyAnswer(Status.FEASIBLE, max(limit, first.energy()), (first,))


def _without_energy(problem: EnergyProblem, top: int, deadline: float | None) -> list[EnergyPlan]:
    """Return the first layouts, by their widths, whose first width is 1: their energy is 0."""
    last = (1, 1) if len(problem.units) == 1 else (1, problem.budget)
    prefixes = Prefixes(problem, all_ranges(problem, (1, 1)), deadline, flat=True)
    layouts = (tuple(map(int, row)) for _, part in prefixes.above(0.0, last) for row in part)
    return [EnergyPlan(problem, widths) for widths in sorted(layouts)[:top]]
