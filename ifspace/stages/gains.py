"""One choice for each stage with the greatest total gain within budgets, the best few in order.

What stage layouts and depths have in common: the model of the choices is theirs, the search in it
is here. Gains enter as whole numbers of 1e-9, so the proof is up to half of that for each stage. Of
equal gain the choice with fewest parameters comes first.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import floor
from typing import Any, Final, Protocol, TypeVar

from ifspace.answer import Status
from ifspace.cpsat import (
    contradiction,
    left,
    new_model,
    solve,
)

# Gains are counted in units of this.
RESOLUTION: Final = 10**9


class Plan(Protocol):
    """What comes out: it knows its gain and checks itself."""

    def objective(self) -> float:
        """Return the total gain."""

    def check(self) -> None:
        """Refuse what does not hold."""


P = TypeVar("P", bound=Plan)


class GainModel(ABC):
    """A CP-SAT model with one choice for each stage, less the choices found so far.

    `taken`: for each stage the literal of every choice. `gain`: the total, in 1 / RESOLUTION.
    """

    def __init__(self) -> None:
        """Begin without stages; a child adds them, then bounds amounts."""
        self.model = new_model()
        self.taken: list[dict[Any, Any]] = []
        self.gain: Any = 0

    @abstractmethod
    def scale(self, name: str) -> int:
        """Return by what an amount is multiplied to be whole."""

    @abstractmethod
    def amount(self, name: str, scale: int) -> Any:
        """Return an amount of the choices as a linear expression, in 1 / scale."""

    def bound(self, budgets: Mapping[str, int | Fraction]) -> None:
        """Allow no more of each amount than its budget."""
        for name, most in budgets.items():
            scale = self.scale(name)
            self.model.add(self.amount(name, scale) <= floor(most * scale))

    def next_choice(self, deadline: float | None) -> tuple[Status, list[Any] | None, float | None]:
        """Return how the search ended, the best choice left, and the bound on its gain.

        The choice, one key for each stage, is forbidden from then on.
        """
        wanted = [literal for each in self.taken for literal in each.values()]
        keys = [(place, key) for place, each in enumerate(self.taken) for key in each]
        self.model.minimize(-self.gain)
        outcome = solve(self.model, wanted, left(deadline))
        if not outcome.values or outcome.bound is None:
            return outcome.status, None, None
        bound = -outcome.bound
        if outcome.status is Status.OPTIMAL:
            outcome = self._cheapest(bound, wanted, deadline) or outcome
        chosen = [key for key, value in zip(keys, outcome.values, strict=True) if value]
        self.model.add_bool_or([self.taken[place][key].negated() for place, key in chosen])
        return outcome.status, [key for _, key in chosen], bound / RESOLUTION

    def least(self, name: str, deadline: float | None) -> int | Fraction | None:
        """Return the least of an amount, or None where it is not proven."""
        scale = self.scale(name)
        self.model.minimize(self.amount(name, scale))
        outcome = solve(self.model, [], left(deadline))
        if outcome.status is not Status.OPTIMAL or outcome.bound is None:
            return None
        return outcome.bound if scale == 1 else Fraction(outcome.bound, scale)

    def _cheapest(self, gain: int, wanted: Sequence[Any], deadline: float | None) -> Any:
        """Return the outcome with fewest parameters at a gain that is proven the greatest."""
        model = self.model.clone()
        # Each stage is rounded by itself: equal sums may come out apart by one for each.
        model.add(self.gain >= gain - len(self.taken))
        model.minimize(self.amount("params", 1))
        outcome = solve(model, wanted, left(deadline))
        if outcome.status is Status.INFEASIBLE:
            raise contradiction(
                f"no choice with a gain of {gain / RESOLUTION:.9f}, which it found before",
                "one at least",
            )
        return outcome if outcome.status is Status.OPTIMAL else None


def best_plans(
    model: GainModel, top: int, deadline: float | None, plan_of: Callable[[Sequence[Any]], P]
) -> tuple[Status, float | None, tuple[P, ...]]:
    """Return the `top` plans of greatest gain, best first, with status and bound of the first.

    Raises: SolverError when the solver contradicts itself.
    """
    plans: list[P] = []
    status, bound = Status.UNKNOWN, None
    while len(plans) < top:
        ended, chosen, limit = model.next_choice(deadline)
        if not plans:
            status, bound = ended, limit
        if chosen is None or (plans and ended is not Status.OPTIMAL):
            # A later one that is not proven may not be the next best.
            break
        plan = plan_of(chosen)
        plan.check()
        plans.append(plan)
        _check_order(plans, len(model.taken))
    if plans and status is Status.OPTIMAL:
        bound = plans[0].objective()
    return status, bound, tuple(plans)


def least_amounts(
    model: GainModel, names: Iterable[str], deadline: float | None
) -> dict[str, int | Fraction]:
    """Return the least that a model without budgets has of each amount by itself."""
    found = ((name, model.least(name, deadline)) for name in names)
    return {name: least for name, least in found if least is not None}


def _check_order(plans: Sequence[Plan], stages: int) -> None:
    """Refuse a plan that gains more than one that was proven the best before it."""
    *_, last = gains = [plan.objective() for plan in plans]
    if last > min(gains) + 2 * stages / RESOLUTION:
        raise contradiction(
            f"a gain of {last:.9f} after {min(gains):.9f} was proven the greatest",
            "gains that fall",
        )
