import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from ortools.sat.python import cp_model

from ifspace import cpsat
from ifspace.answer import Status
from ifspace.cpsat import (
    SEED,
    solve,
    weighted_sum,
)
from ifspace.errors import SettingError


def knapsack() -> tuple[Any, list[Any]]:
    """Seven items, at most 15 in weight: the value of the best is known by trying all."""
    model = cp_model.CpModel()
    taken = [model.new_bool_var(f"{n}") for n in range(7)]
    weights, worths = (2, 3, 5, 7, 1, 4, 1), (10, 5, 15, 7, 6, 18, 3)
    model.add(sum(w * x for w, x in zip(weights, taken, strict=True)) <= 15)
    model.minimize(-sum(w * x for w, x in zip(worths, taken, strict=True)))
    return model, taken


def test_an_optimum_is_its_own_bound() -> None:
    model, taken = knapsack()
    outcome = solve(model, taken)
    worth = sum(w * x for w, x in zip((10, 5, 15, 7, 6, 18, 3), outcome.values, strict=True))
    assert (outcome.status, worth, outcome.bound) == (Status.OPTIMAL, 54, -54)


def test_the_same_model_has_the_same_answer() -> None:
    assert solve(*knapsack()) == solve(*knapsack())


def test_a_contradiction_is_infeasible() -> None:
    model = cp_model.CpModel()
    x = model.new_bool_var("x")
    model.add(x >= 1)
    model.add(x <= 0)
    outcome = solve(model, [x])
    assert (outcome.status, outcome.bound, outcome.values) == (Status.INFEASIBLE, None, ())


def test_without_an_objective_there_is_no_bound() -> None:
    model = cp_model.CpModel()
    x = model.new_int_var(3, 3, "x")
    outcome = solve(model, [x])
    assert (outcome.status, outcome.bound, outcome.values) == (Status.OPTIMAL, None, (3,))


def test_no_time_is_unknown() -> None:
    outcome = solve(*knapsack(), time_limit_s=0.0)
    assert (outcome.status, outcome.values) == (Status.UNKNOWN, ())
    assert outcome.bound == -55  # of the relaxation
    assert solve(*knapsack(), time_limit_s=-1.0).status is Status.UNKNOWN


class Stub:
    """A solver with a fixed result."""

    code: Any = cp_model.FEASIBLE
    best_objective_bound = 0.0

    def __init__(self) -> None:
        self.parameters = SimpleNamespace()
        Stub.last = self

    def solve(self, model: Any) -> Any:
        return self.code

    def value(self, variable: Any) -> int:
        return 1

    def status_name(self, code: Any = None) -> str:
        return "FEASIBLE"


@pytest.mark.parametrize(
    ("reported", "bound"),
    [
        (10.0, 10),
        (9.2, 10),
        (-2483.5, -2483),
        (-2484.0, -2484),
        (-2483.9999999999995, -2484),
        (4671.000000000001, 4671),
        (4670.999999999999, 4671),
    ],
)
def test_a_bound_is_rounded_up_but_not_by_the_noise_of_a_float(
    reported: float, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cp_model, "CpSolver", Stub)
    monkeypatch.setattr(Stub, "best_objective_bound", reported)
    monkeypatch.setattr(cpsat, "relaxed_bound", lambda *_: None)
    model = SimpleNamespace(has_objective=lambda: True)
    outcome = solve(model, [None])
    assert (outcome.status, outcome.bound) == (Status.FEASIBLE, bound)


def test_one_worker_and_a_fixed_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cp_model, "CpSolver", Stub)
    monkeypatch.setattr(cpsat, "relaxed_bound", lambda *_: None)
    solve(SimpleNamespace(has_objective=lambda: True), [], float(Fraction(5, 2)))
    parameters = Stub.last.parameters
    assert (parameters.num_workers, parameters.random_seed) == (1, SEED)
    assert parameters.max_time_in_seconds == 2.5


def test_numbers_too_large_are_an_error() -> None:
    model = cp_model.CpModel()
    model.minimize(2**40 * model.new_int_var(0, 2**40, "x"))
    with pytest.raises(SettingError, match=r"too large for the solver: got .*overflow"):
        solve(model, [])
    with pytest.raises(SettingError, match=r"too large for the solver: got a weight over 2\^63"):
        weighted_sum([model.new_bool_var("y")], [2**63])


@pytest.mark.slow
def test_nothing_is_imported_before_a_model_is_made() -> None:
    # It brings pandas, which takes half a second: `ifspace analyze` does without both.
    code = "import ifspace.stages.allocate, ifspace.stages.replacement, ifspace.models, sys\n"
    code += "print(*{'ortools', 'pandas'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
