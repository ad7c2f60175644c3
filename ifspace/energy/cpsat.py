"""Find the widths of greatest layout energy by CP-SAT: a second witness beside the exact program.

The objective is Σ ln ln n_i in whole billionths, looked up by width. The weights are grouped so
that each second unit is multiplied once: n_1 (n_0 + n_2) + n_3 (n_2 + n_4) + …. The solver finds
layouts above a threshold, which is lowered until there are enough; above a threshold every width
lies within the bounds of the exact program (`bounds.py`). With `plain` widths are bounded by order
and budget alone and there is no threshold: slow, and independent of all that.

Rounding could swap two layouts of nearly the same energy. So the solver goes on until what is left
is lower by more than rounding can make up for, and exact energies decide.
"""

from collections.abc import Iterator
from math import exp, inf, log
from typing import Any, Final

from ifspace.answer import Status
from ifspace.cpsat import Outcome, new_model, seconds_left, solve
from ifspace.energy.bounds import SLACK, Bounds, greatest_widths, thresholds
from ifspace.energy.problem import EnergyAnswer, EnergyPlan, EnergyProblem

SCALE: Final = 10**9
Domains = list[tuple[int, int]]


def cpsat_energy(
    problem: EnergyProblem, top: int, deadline: float | None = None, plain: bool = False
) -> EnergyAnswer:
    """Return the `top` layouts of greatest energy until a deadline of time.monotonic.

    >>> cpsat_energy(EnergyProblem(4288, layers=4), 1).plans[0].widths
    (35, 36, 37, 43)

    Reference: [Layout] eq. 4.
    """
    search = _Search(problem, top, deadline)
    for threshold, domains in _windows(problem, plain, deadline):
        if all(low <= high for low, high in domains):
            answer = search.run(domains, threshold)
            if answer is not None:
                return answer
        search.none_above(threshold)
    return search.without_energy()


def _windows(
    problem: EnergyProblem, plain: bool, deadline: float | None
) -> Iterator[tuple[float | None, Domains]]:
    """Yield thresholds with the widths that layouts above them can have; the last is None."""
    least = [2 + unit * problem.step for unit in range(len(problem.units))]
    most = greatest_widths(problem)
    if not plain and len(problem.units) > 1:
        bounds = Bounds(problem, deadline)
        # Before any run: no layout is above that.
        yield bounds.greatest, [(1, 0)]
        for threshold in thresholds(problem, bounds.greatest):
            if threshold is None:
                break
            try:
                ranges = bounds.ranges(threshold)[1:]
            except TimeoutError:
                break  # the solver has no time either: what is proven is the answer
            domains = [(min(widths), max(widths)) if widths else (1, 0) for widths in ranges]
            # The last unit has the weights that the least of all others leave.
            lowest_weights = problem.weights([*(low for low, _ in domains), 0])
            low = domains[-1][0]
            high = min(most[-1], (problem.budget - lowest_weights) // max(low, 1))
            yield threshold, [*domains, (low + problem.step, high)]
    yield None, list(zip(least, most, strict=True))


class _Search:
    """The layouts of the last run and what is proven so far."""

    def __init__(self, problem: EnergyProblem, top: int, deadline: float | None) -> None:
        self.problem = problem
        self.top = top
        self.deadline = deadline
        # No energy is above it.
        self.limit: float | None = None
        # The layouts of a run with their objectives, best first.
        self.plans: list[tuple[int, EnergyPlan]] = []
        # Each looked-up value is off by half a billionth at most: two sums may be so much nearer.
        self.margin = len(problem.units)

    def run(self, domains: Domains, threshold: float | None) -> EnergyAnswer | None:
        """Return the answer, or None where too few layouts reach the threshold."""
        self.plans = []
        low = -inf if threshold is None else threshold * SCALE
        model = _EnergyModel(self.problem, domains)
        if threshold is not None:
            model.reach(threshold)
        while True:
            outcome = solve(model.model, model.widths, seconds_left(self.deadline))
            if outcome.status is Status.INFEASIBLE:
                break
            if outcome.status is not Status.OPTIMAL:
                return self._out_of_time(low, outcome)
            value = model.value(outcome.values)
            if len(self.plans) >= self.top and value < self.plans[self.top - 1][0] - self.margin:
                break
            self.plans.append((value, EnergyPlan(self.problem, outcome.values)))
            model.forbid(outcome.values, value)
        # Only layouts above the threshold count: of those a little below some are left out.
        if sum(value >= low + self.margin for value, _ in self.plans) >= self.top:
            return self._answer([plan for _, plan in self.plans])
        return None

    def none_above(self, threshold: float | None) -> None:
        """Record that too few layouts reach a threshold: no other one has as much energy."""
        if threshold is not None:
            self.limit = exp(threshold + SLACK)

    def without_energy(self) -> EnergyAnswer:
        """Return the layouts with energy of the last run, and then those whose first width is 1.

        The latter come in the order of their widths: the least first width, then the least second,
        and so on.
        """
        plans = [plan for _, plan in self.plans]
        problem = self.problem
        domains = [(1, most) for most in greatest_widths(problem)]
        model = _EnergyModel(problem, [(1, 1), *domains[1:]])
        while len(plans) < self.top:
            layout: tuple[int, ...] = ()
            fixed = model.model.clone()
            for unit in range(len(domains)):
                widths = [fixed.get_int_var_from_proto_index(var.index) for var in model.widths]
                fixed.minimize(widths[unit])
                outcome = solve(fixed, widths, seconds_left(self.deadline))
                if outcome.status is not Status.OPTIMAL:
                    break
                layout = outcome.values
                fixed.add(widths[unit] == layout[unit])
            if outcome.status is not Status.OPTIMAL:
                if outcome.status is not Status.INFEASIBLE and not plans:
                    return EnergyAnswer(Status.UNKNOWN, self.limit, ())
                break
            plans.append(EnergyPlan(problem, layout))
            model.model.add_forbidden_assignments(model.widths, [layout])
        return self._answer(plans)

    def _answer(self, plans: list[EnergyPlan]) -> EnergyAnswer:
        plans = sorted(plans, key=EnergyPlan.order)[: self.top]
        if not plans:
            return EnergyAnswer(Status.INFEASIBLE, None, ())
        return EnergyAnswer(Status.OPTIMAL, plans[0].energy(), tuple(plans))

    def _out_of_time(self, low: float, outcome: Outcome) -> EnergyAnswer:
        """Return what is proven; failing that, the best layout so far and an upper bound.

        The solver looked at layouts from the objective `low` on.
        """
        rest = inf if outcome.bound is None else -outcome.bound
        if self.plans:
            rest = min(rest, min(value for value, _ in self.plans))
        rest = max(rest, low)
        proven = [plan for value, plan in self.plans if value > rest + self.margin]
        if proven:
            return self._answer(proven)
        limits = [] if self.limit is None else [self.limit]
        if rest < inf:
            limits.append(exp((rest + self.margin) / SCALE))
        limit = min(limits, default=None)
        plans = [plan for _, plan in self.plans]
        if outcome.values:
            plans.append(EnergyPlan(self.problem, outcome.values))
        if not plans:
            return EnergyAnswer(Status.UNKNOWN, limit, ())
        plans = sorted(plans, key=EnergyPlan.order)[: self.top]
        if limit is not None:
            limit = max(limit, plans[0].energy())
        return EnergyAnswer(Status.FEASIBLE, limit, tuple(plans))


class _EnergyModel:
    """The CP-SAT model of a problem: widths within domains, order, weights and energy."""

    def __init__(self, problem: EnergyProblem, domains: Domains) -> None:
        self.problem = problem
        self.model = new_model()
        self.widths = [
            self.model.new_int_var(low, high, f"width {unit}")
            for unit, (low, high) in enumerate(domains, start=1)
        ]
        for before, after in zip(self.widths, self.widths[1:], strict=False):
            self.model.add(after >= before + problem.step)
        self._spend()
        self.tables = [
            {width: _scaled(width, factor) for width in range(low, high + 1)}
            for (low, high), factor in zip(domains, problem.factors, strict=True)
        ]
        logs = []
        for width, table in zip(self.widths, self.tables, strict=True):
            values = list(table.values())
            logs.append(self.model.new_int_var(min(values), max(values), ""))
            self.model.add_element(width - min(table), values, logs[-1])
        self.total = sum(logs)
        self.model.minimize(-self.total)

    def reach(self, threshold: float) -> None:
        """Leave out the layouts whose logarithm of the energy is below a threshold."""
        self.model.add(self.total >= int(threshold * SCALE) - len(self.widths) - 1)

    def forbid(self, widths: tuple[int, ...], value: int) -> None:
        """Leave one layout out from now on; no other is above its objective."""
        self.model.add_forbidden_assignments(self.widths, [widths])
        self.model.add(self.total <= value)

    def value(self, widths: tuple[int, ...]) -> int:
        """Return the objective of some widths, as the solver sees it."""
        return sum(table[width] for table, width in zip(self.tables, widths, strict=True))

    def _spend(self) -> None:
        """Add the weights: every second unit times its neighbours, and the inside of the rest."""
        problem, widths = self.problem, self.widths
        terms: list[Any] = []
        for unit, (width, count) in enumerate(zip(widths, problem.units, strict=True)):
            if unit % 2 == 0:
                below: Any = widths[unit - 1] if unit else problem.inputs
                after: Any = widths[unit + 1] if unit + 1 < len(widths) else 0
                terms.append(self._product(width, below + after + (count - 1) * width))
            elif count > 1:
                terms.append((count - 1) * self._product(width, width))
        spent = sum(terms)
        if problem.at_most:
            self.model.add(spent <= problem.budget)
        else:
            self.model.add(spent == problem.budget)

    def _product(self, one: Any, other: Any) -> Any:
        product = self.model.new_int_var(0, self.problem.budget, "")
        self.model.add_multiplication_equality(product, [one, other])
        return product


def _scaled(width: int, factor: int) -> int:
    """Return factor · ln ln of a width in whole billionths, 0 for width 1."""
    return round(SCALE * factor * log(log(width))) if width > 1 else 0
