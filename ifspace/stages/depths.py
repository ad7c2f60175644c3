"""Depths of greatest total gain within budgets, from tables of stages, by CP-SAT.

One boolean for each depth of each stage. Proof, ties and the best few are those of stage layouts.

Reference: [3DRF] section 4.1; [IF] eq. 4.
"""

import time
from collections.abc import Iterable
from typing import Any

from ifspace.answer import Status
from ifspace.stages.depths_problem import (
    DepthsAnswer,
    DepthsPlan,
    DepthsProblem,
)
from ifspace.stages.gains import (
    RESOLUTION,
    GainModel,
    best_plans,
    least_amounts,
)


def best_depths(
    problem: DepthsProblem, top: int = 1, time_limit_s: float | None = None
) -> DepthsAnswer:
    """Return the `top` depths of greatest total gain within the budgets, best first.

    Status and bound are those of the first. Of equal gain the fewest parameters come first.

    >>> from ifspace.stages.problem import Budgets
    >>> from ifspace.stages.depths_problem import StageTable
    >>> wide = StageTable("wide", 1, (0.0, 1.0, 1.5), (30, 60, 90), (1, 2, 3), 3)
    >>> narrow = StageTable("narrow", 1, (0.0, 0.75), (10, 20), (1, 2), 2)
    >>> answer = best_depths(DepthsProblem((wide, narrow), Budgets(params=100)))
    >>> answer.status.name, answer.bound, answer.plans[0].depths, answer.plans[0].params
    ('OPTIMAL', 1.75, (2, 2), 80)

    Raises: SolverError when the solver contradicts itself.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    model = _Model(problem)
    model.bound(problem.budgets.given)
    status, bound, plans = best_plans(
        model, top, deadline, lambda depths: DepthsPlan(problem, tuple(depths))
    )
    least = {}
    if status is Status.INFEASIBLE:
        least = least_amounts(_Model(problem), problem.budgets.given, deadline)
    return DepthsAnswer(status, bound, plans, least)


class _Model(GainModel):
    """The CP-SAT model of a problem without its budgets, less the depths found so far."""

    def __init__(self, problem: DepthsProblem) -> None:
        super().__init__()
        self.problem = problem
        for table in problem.tables:
            taken = {n: self.model.new_bool_var(f"{table.name}: {n}") for n in table.depths}
            self.model.add_exactly_one(taken.values())
            self.taken.append(taken)
            scaled = [round(RESOLUTION * gain) for gain in table.gains]
            self.gain += _weighted(scaled, taken.values())

    def scale(self, name: str) -> int:
        """Return 1: parameters and MACs are whole."""
        return 1

    def amount(self, name: str, scale: int) -> Any:
        """Return an amount of the network as a linear expression."""
        rest = getattr(self.problem, f"rest_{name}")
        pairs = zip(self.problem.tables, self.taken, strict=True)
        return rest + sum(_weighted(getattr(table, name), taken.values()) for table, taken in pairs)


def _weighted(numbers: Iterable[int], literals: Iterable[Any]) -> Any:
    return sum(number * literal for number, literal in zip(numbers, literals, strict=True))
