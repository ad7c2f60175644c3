"""The first plan: it is valid, never better than the best, and nearly as good."""

import brute_energy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.energy.bounds import Bounds
from ifspace.energy.exact import first_plan
from ifspace.energy.problem import EnergyProblem
from ifspace.energy.solve import best_energy

problems = st.builds(
    EnergyProblem,
    st.integers(5, 400),
    repeats=st.lists(st.integers(1, 3), min_size=2, max_size=4).map(tuple),
    inputs=st.sampled_from([1, 3]),
    at_most=st.booleans(),
    nondecreasing=st.booleans(),
    per=st.sampled_from(["unit", "convolution"]),
)


@pytest.mark.slow
@given(problems)
def test_the_first_plan_is_valid_and_never_better_than_the_best(problem: EnergyProblem) -> None:
    layouts = set(brute_energy.layouts(problem))
    best = max((brute_energy.energy(problem, widths) for widths in layouts), default=0.0)
    for chain in (None, Bounds(problem).chain):
        plan = first_plan(problem, chain)
        if plan is None:
            # Within a budget only where some width must be 1; else the exact budget was not near.
            assert chain or not problem.at_most or best == 0.0
            continue
        plan.check()
        assert plan.widths in layouts
        assert 0 < plan.energy() <= best * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("at_most", [True, False])
@pytest.mark.parametrize(
    ("budget", "layers"),
    [
        (4288, 4),
        (66304, 10),
        (66304, 16),
        (1_000_000, 30),
        pytest.param(5_000_000, 60, marks=pytest.mark.slow),
    ],
)
def test_the_first_plan_is_near_the_best(budget: int, layers: int, at_most: bool) -> None:
    problem = EnergyProblem(budget, layers=layers, at_most=at_most)
    best = best_energy(problem).plans[0].energy()
    for chain, near in ((None, 0.9), (Bounds(problem).chain, 0.97)):
        plan = first_plan(problem, chain)
        assert plan is not None
        plan.check()
        assert near * best <= plan.energy() <= best


def test_without_time_there_is_no_first_plan() -> None:
    problem = EnergyProblem(66304, layers=10)
    assert first_plan(problem, deadline=0.0) is None
    assert first_plan(problem, Bounds(problem).chain, deadline=0.0) is None
