"""How the search of a solver ended: one result type for every solver."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

Plan = TypeVar("Plan")


class Status(Enum):
    """How a search for plans ended; each command words its own message.

    `OPTIMAL`: the first plan is proven to be the best. `FEASIBLE`: time ran out with a plan that
    may not be the best. `INFEASIBLE`: it is proven that there is no plan. `UNKNOWN`: time ran out
    before a plan was found.
    """

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer(Generic[Plan]):
    """How a search ended, the plans, best first, and the objective that no plan can beat.

    `status` and `bound` are those of the first plan; `bound` is None where nothing is proven.
    `left_out`: options that were no choice, in words. `least`: where nothing keeps the budgets, the
    least that any plan has of each amount that is bounded. `reason`: why there is no plan, where it
    is not the budgets.
    """

    status: Status
    bound: Any
    plans: tuple[Plan, ...]
    left_out: tuple[str, ...] = ()
    least: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None

    @property
    def best(self) -> Plan | None:
        """The first plan; None where none was found."""
        return self.plans[0] if self.plans else None
