"""Which layers of a network to replace by which block: one CP-SAT model over all of them.

Costs are sums, so that only an option's amounts count. An option that is nowhere better than
another one of its layer is left out, and layers with equal options are one variable: how many of
them take which. Both leave every least amount as it is, and the search without symmetries.

The amounts that decide are minimised one after the other; each is held at its proven least before
the next one's turn.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, gcd, lcm
from operator import attrgetter
from typing import Any

from ifspace.answer import Status
from ifspace.cpsat import (
    contradiction,
    left,
    new_model,
    solve,
    weighted_sum,
)
from ifspace.stages.replacement_problem import (
    ORDERS,
    Amount,
    ReplacementAnswer,
    ReplacementPlan,
    ReplacementProblem,
)

Vector = tuple[Amount, ...]


def best_replacement(
    problem: ReplacementProblem, time_limit_s: float | None = None
) -> ReplacementAnswer:
    """Return the best choice of an option for each layer within the budgets, with its proof.

    Of layers alike the first take the options that stand first.

    >>> from ifspace.block import Block
    >>> from ifspace.stages.problem import Budgets
    >>> from ifspace.stages.replacement_problem import Option, Site
    >>> kept = Option(None, 1152, 18432)
    >>> cheap = Option(Block.parse("DW+PW").at(8, 16), 200, 3200)
    >>> sites = [Site(name, (kept, cheap)) for name in ("conv1", "conv2", "conv3")]
    >>> answer = best_replacement(ReplacementProblem(tuple(sites), Budgets(params=2600)))
    >>> answer.status.name, answer.bound, sorted(answer.plan.blocks)
    ('OPTIMAL', (1, 40064, 2504), ['conv3'])

    Raises: SettingError for sums that do not fit into 64 bits; SolverError when the solver
        contradicts itself.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    model = _Model(problem)
    bound: list[Amount] = []
    chosen: tuple[int, ...] | None = None
    status = Status.UNKNOWN
    for name in ORDERS[problem.objective]:
        status, found, limit = model.least(name, deadline)
        if status is Status.INFEASIBLE:
            least = {each: problem.least(each) for each in problem.budgets.given}
            return ReplacementAnswer(status, None, None, problem.left_out, least)
        chosen = chosen if found is None else found
        bound += [] if limit is None else [limit]
        if status is not Status.OPTIMAL:
            break
    if chosen is None:
        return ReplacementAnswer(Status.UNKNOWN, None, None, problem.left_out)
    plan = ReplacementPlan(problem, chosen)
    plan.check()
    status = status if status is Status.OPTIMAL else Status.FEASIBLE
    return ReplacementAnswer(status, tuple(bound) or None, plan, problem.left_out)


@dataclass(frozen=True)
class _Alike:
    """Sites, by number, whose options cost the same, and the vectors of those worth choosing.

    `places` [sites, vectors]: the option that a vector stands for.
    """

    sites: tuple[int, ...]
    vectors: tuple[Vector, ...]
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Sum:
    """An amount of all sites, whole and small: base + unit x sum of numbers, in 1 / scale."""

    base: int
    unit: int
    scale: int
    numbers: tuple[int, ...]

    def of(self, count: int) -> Amount:
        """Return the amount at a value of the sum of numbers."""
        exact = Fraction(self.base + self.unit * count, self.scale)
        return int(exact) if self.scale == 1 else exact

    def most(self, budget: Amount) -> int:
        """Return what the sum of numbers may be at most."""
        return floor(Fraction(budget * self.scale - self.base) / self.unit)


class _Model:
    """The CP-SAT model of a problem; each amount that is minimised stays at its least."""

    def __init__(self, problem: ReplacementProblem) -> None:
        self.problem = problem
        self.model = new_model()
        self.alike = _alike(problem)
        self.sums = {name: _sum(self.alike, n) for n, name in enumerate(problem.counted)}
        self.variables: list[Any] = []
        self.values: tuple[int, ...] = ()
        for number, each in enumerate(self.alike):
            many = len(each.sites)
            taken = [
                self.model.new_int_var(0, many, f"{number}: {place}")
                for place in range(len(each.vectors))
            ]
            self.model.add(sum(taken) == many)
            self.variables += taken
        for name, most in problem.budgets.given.items():
            self.model.add(self._sum(name) <= self.sums[name].most(most))

    def least(
        self, name: str, deadline: float | None
    ) -> tuple[Status, tuple[int, ...] | None, Amount | None]:
        """Return how the search ended, the option of each site, and the bound on an amount."""
        amount = self._sum(name)
        if self.values:
            # What is known is not given up for something worse when time runs out.
            self.model.add(amount <= self._value(name))
            self.model.clear_hints()
            for variable, value in zip(self.variables, self.values, strict=True):
                self.model.add_hint(variable, value)
        self.model.minimize(amount)
        outcome = solve(self.model, self.variables, left(deadline))
        if outcome.status is Status.INFEASIBLE and self.values:
            raise contradiction("no choice at all, after it found one", "the one it found")
        if not outcome.values or outcome.bound is None:
            return outcome.status, None, None
        self.values = outcome.values
        if outcome.status is Status.OPTIMAL:
            if outcome.bound != self._value(name):
                raise contradiction(
                    f"{name} of {self._value(name)} where {outcome.bound} is proven the least",
                    "one number for both",
                )
            self.model.add(amount == outcome.bound)
        return outcome.status, self._chosen(), self.sums[name].of(outcome.bound)

    def _sum(self, name: str) -> Any:
        return weighted_sum(self.variables, self.sums[name].numbers)

    def _value(self, name: str) -> int:
        """Return what the choice known has of an amount, as the model counts it."""
        pairs = zip(self.sums[name].numbers, self.values, strict=True)
        return sum(number * value for number, value in pairs)

    def _chosen(self) -> tuple[int, ...]:
        chosen = [0] * len(self.problem.sites)
        counts = iter(self.values)
        for each in self.alike:
            taken = [n for n in range(len(each.vectors)) for _ in range(next(counts))]
            for site, places, vector in zip(each.sites, each.places, taken, strict=True):
                chosen[site] = places[vector]
        return tuple(chosen)


def _alike(problem: ReplacementProblem) -> list[_Alike]:
    """Return the sites, those together whose options worth choosing cost the same."""
    amounts = attrgetter(*problem.counted)
    found: dict[tuple[Vector, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for number, (site, choices) in enumerate(zip(problem.sites, problem.choices, strict=True)):
        vectors = {place: amounts(site.options[place]) for place in choices}
        places = tuple(place for place in vectors if not _is_dominated(place, vectors))
        key = tuple(vectors[place] for place in places)
        found.setdefault(key, []).append((number, places))
    return [
        _Alike(tuple(n for n, _ in each), vectors, tuple(places for _, places in each))
        for vectors, each in found.items()
    ]


def _is_dominated(place: int, vectors: Mapping[int, Vector]) -> bool:
    """Return whether another option costs no more of anything; of equal ones the first stays."""
    mine = vectors[place]
    return any(
        (other != mine or earlier < place) and all(a <= b for a, b in zip(other, mine, strict=True))
        for earlier, other in vectors.items()
        if earlier != place
    )


def _sum(alike: Sequence[_Alike], column: int) -> _Sum:
    """Return an amount of all sites, less what all choices have, in the largest unit that fits."""
    rows = [[vector[column] for vector in each.vectors] for each in alike]
    scale = lcm(*(Fraction(value).denominator for row in rows for value in row))
    whole = [[int(value * scale) for value in row] for row in rows]
    base = sum(len(each.sites) * min(row) for each, row in zip(alike, whole, strict=True))
    more = [value - min(row) for row in whole for value in row]
    unit = gcd(*more) or 1
    return _Sum(base, unit, scale, tuple(value // unit for value in more))
