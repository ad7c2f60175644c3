"""The answer of a search for the greatest energy when its time runs out: plans, bounds, proof."""

import random
import time
from collections.abc import Iterator
from math import exp
from typing import Any

import brute_energy
import pytest

from ifspace.answer import Status
from ifspace.cpsat import Outcome
from ifspace.energy import cpsat, exact, solve
from ifspace.energy.cpsat import SCALE, cpsat_energy
from ifspace.energy.problem import EnergyProblem
from ifspace.energy.solve import Search, best_energy, exact_energy

METHODS: tuple[Search, ...] = (exact_energy, cpsat_energy)


@pytest.mark.parametrize("search", METHODS)
def test_no_time_is_an_answer_without_a_plan(search: Search) -> None:
    answer = best_energy(EnergyProblem(66304, layers=10), search=search, time_limit_s=0)
    assert (answer.status, answer.plans) == (Status.UNKNOWN, ())
    assert answer.bound is not None
    assert answer.bound >= 3091499.175562869


def test_an_interrupted_search_keeps_its_proven_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = EnergyProblem(66304, layers=4)
    whole = best_energy(problem, 30)
    checks = [0]

    def check_deadline(_: float | None) -> None:
        checks[0] += 1
        if checks[0] > 2500:
            raise TimeoutError

    monkeypatch.setattr(exact, "check_deadline", check_deadline)
    interrupted = best_energy(problem, 30)
    assert interrupted.status is Status.OPTIMAL
    assert 0 < len(interrupted.plans) < 30
    assert interrupted.plans == whole.plans[: len(interrupted.plans)]
    assert interrupted.bound == whole.bound


def random_problems(seed: int, count: int) -> Iterator[EnergyProblem]:
    draw = random.Random(seed)
    for _ in range(count):
        yield EnergyProblem(
            draw.randint(30, 500),
            repeats=tuple(draw.choice([1, 1, 2]) for _ in range(draw.randint(2, 4))),
            at_most=draw.random() < 0.5,
            nondecreasing=draw.random() < 0.4,
            per=draw.choice(["unit", "convolution"]),
        )


@pytest.mark.slow
@pytest.mark.parametrize("tables", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_the_greatest_energy_lies_between_the_plan_and_the_bound(
    monkeypatch: pytest.MonkeyPatch, tables: int
) -> None:
    tables_built = [0]

    def few(*arguments: Any, **named: Any) -> exact.Prefixes:
        tables_built[0] += 1
        if tables_built[0] > tables:
            raise TimeoutError
        return exact.Prefixes(*arguments, **named)

    monkeypatch.setattr(solve, "Prefixes", few)
    feasible = 0
    for problem in random_problems(50 + tables, 80):
        tables_built[0] = 0
        answer = best_energy(problem)
        ranking = brute_energy.ranking(problem)
        if answer.status is Status.UNKNOWN:
            assert answer.bound is not None
            assert answer.bound >= (ranking[0][0] if ranking else 0.0) * (1 - 1e-12)
        if answer.status is not Status.FEASIBLE:
            continue
        feasible += 1
        assert answer.bound is not None
        assert answer.plans[0].widths in {layout for _, layout in ranking}
        assert answer.plans[0].energy() <= ranking[0][0] * (1 + 1e-12)
        assert ranking[0][0] <= answer.bound * (1 + 1e-12)
    assert feasible > 5


@pytest.mark.slow
def test_the_time_limit_is_kept_where_the_search_is_long() -> None:
    # Without a limit this one takes many seconds.
    problem = EnergyProblem(10**7, repeats=(1, 10, 10, 10))
    started = time.monotonic()
    answer = best_energy(problem, time_limit_s=0.5)
    assert time.monotonic() - started < 2.5
    assert answer.status is Status.UNKNOWN
    # The nearest budgets are not worth the wait either.
    assert best_energy(EnergyProblem(1000, layers=1), time_limit_s=0.0).below in (None, 999)


@pytest.mark.slow
def test_a_deep_network_has_a_plan_and_a_bound_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = EnergyProblem(5_000_000, layers=60, at_most=True)
    proven = best_energy(problem)
    assert proven.status is Status.OPTIMAL

    def none(*_: Any) -> exact.Prefixes:
        raise TimeoutError

    monkeypatch.setattr(solve, "Prefixes", none)
    answer = best_energy(problem)
    assert (answer.status, len(answer.plans)) == (Status.FEASIBLE, 1)
    assert proven.bound is not None
    assert answer.bound is not None
    assert 0.99 * proven.bound < answer.plans[0].energy() <= proven.bound <= answer.bound
    assert answer.bound < 1.001 * proven.bound


def test_an_interrupted_solver_leaves_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = EnergyProblem(4288, layers=4)
    best = best_energy(problem).plans[0]
    real = cpsat.solve

    def interrupted(*arguments: Any) -> Outcome:
        outcome = real(*arguments)
        if outcome.status is Status.INFEASIBLE:
            return outcome
        assert outcome.bound is not None
        return Outcome(Status.FEASIBLE, outcome.bound - SCALE // 1000, outcome.values)

    monkeypatch.setattr(cpsat, "solve", interrupted)
    answer = best_energy(problem, search=cpsat_energy)
    assert (answer.status, answer.plans) == (Status.FEASIBLE, (best,))
    # The bound is a thousandth above in the logarithm.
    assert answer.bound == pytest.approx(best.energy() * exp(0.001), rel=1e-7)


@pytest.mark.slow
def test_plans_found_before_the_solver_ran_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = EnergyProblem(4288, layers=4)
    whole = best_energy(problem, 6)
    real = cpsat.solve
    for solved, proven in ((1, 0), (2, 1), (4, 3)):
        left = [solved]

        def interrupted(model: Any, *rest: Any, left: list[int] = left) -> Outcome:
            if left[0] == 0:
                return Outcome(Status.UNKNOWN, None, ())
            outcome = real(model, *rest)
            left[0] -= outcome.status is Status.OPTIMAL
            return outcome

        monkeypatch.setattr(cpsat, "solve", interrupted)
        # All at once, so that no plan is found for a second threshold.
        answer = cpsat_energy(problem, 6, plain=True)
        # The last one found has others beside it, as far as the solver could tell.
        assert answer.plans == whole.plans[: max(proven, 1)]
        assert answer.status is (Status.OPTIMAL if proven else Status.FEASIBLE)
        assert answer.bound == pytest.approx(whole.bound, rel=1e-8)
        assert answer.bound >= whole.bound
