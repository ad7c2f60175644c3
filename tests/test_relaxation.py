"""The bound of the linear relaxation: never above the least, and close where choices are paths."""

import random

import pytest

from ifspace.answer import Status
from ifspace.cpsat import new_model, relaxed_bound, solve


def knapsack(seed: int, choices: int = 6, groups: int = 5):
    """Return a model that takes one of each group within a budget, at the least cost."""
    draw = random.Random(seed)
    model, cost, weight, variables = new_model(), 0, 0, []
    for _ in range(groups):
        literals = [model.new_bool_var("") for _ in range(choices)]
        model.add_exactly_one(literals)
        variables += literals
        cost += sum(draw.randint(-50, 100) * literal for literal in literals)
        weight += sum(draw.randint(1, 100) * literal for literal in literals)
    model.add(weight <= 40 * groups)
    model.minimize(cost + 7)
    return model, variables


@pytest.mark.parametrize("seed", range(20))
def test_it_never_exceeds_the_least(seed: int) -> None:
    model, variables = knapsack(seed)
    outcome = solve(model, variables)
    bound = relaxed_bound(model, None)
    if outcome.status is Status.OPTIMAL:
        assert bound is not None
        # One choice of each group: at most one group is divided by the relaxation.
        assert outcome.bound - 150 <= bound <= outcome.bound


def test_an_interrupted_search_has_a_bound() -> None:
    model, variables = knapsack(3, choices=300, groups=30)
    outcome = solve(model, variables, time_limit_s=0)
    assert outcome.status is not Status.OPTIMAL
    assert outcome.bound is not None
    assert outcome.bound <= solve(model, variables).bound


def test_constraints_that_it_does_not_know_are_left_out() -> None:
    model = new_model()
    a, b = model.new_bool_var(""), model.new_int_var(-3, 5, "")
    model.add_exactly_one([a, a.negated()])
    model.add(b >= 2).only_enforce_if(a)
    model.add_bool_or([a])
    model.minimize(4 * b + a)
    assert relaxed_bound(model, None) == -12
    assert solve(model, [a, b]).values == (1, 2)


def test_an_objective_that_is_maximised_has_none() -> None:
    model = new_model()
    model.maximize(model.new_int_var(0, 5, ""))
    assert relaxed_bound(model, None) is None
