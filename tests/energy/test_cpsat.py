"""What the solver has found when its time runs out: gaps, bounds, and what is proven by then."""

from math import exp
from typing import Any

import pytest

from ifspace.answer import Status
from ifspace.cpsat import Outcome
from ifspace.energy import best_energy, cpsat
from ifspace.energy.cpsat import (
    SCALE,
    cpsat_energy,
)
from ifspace.energy.problem import EnergyProblem


def test_a_solver_cut_short_tells_its_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = EnergyProblem(4288, layers=4)
    best = best_energy(asked).plans[0]
    real = cpsat.solve

    def cut_short(*asked: Any) -> Outcome:
        found = real(*asked)
        if found.status is Status.INFEASIBLE:
            return found
        return Outcome(Status.FEASIBLE, found.bound - SCALE // 1000, found.values)  # type: ignore[operator]

    monkeypatch.setattr(cpsat, "solve", cut_short)
    answer = best_energy(asked, search=cpsat_energy)
    assert (answer.status, answer.plans) == (Status.FEASIBLE, (best,))
    # The bound is a thousandth above in the logarithm.
    assert answer.bound == pytest.approx(best.energy() * exp(0.001), rel=1e-7)


def test_plans_found_before_the_solver_ran_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = EnergyProblem(4288, layers=4)
    whole = best_energy(asked, 6)
    real = cpsat.solve
    for solved, proven in ((1, 0), (2, 1), (4, 3)):
        left = [solved]

        def cut_short(model: Any, *rest: Any, left: list[int] = left) -> Outcome:
            if left[0] == 0:
                return Outcome(Status.UNKNOWN, None, ())
            found = real(model, *rest)
            left[0] -= found.status is Status.OPTIMAL
            return found

        monkeypatch.setattr(cpsat, "solve", cut_short)
        # All at once, so that no plan is found for a second threshold.
        answer = cpsat_energy(asked, 6, plain=True)
        # The last one found has others beside it, as far as the solver could tell.
        assert answer.plans == whole.plans[: max(proven, 1)]
        assert answer.status is (Status.OPTIMAL if proven else Status.FEASIBLE)
        assert answer.bound == pytest.approx(whole.bound, rel=1e-8)
        assert answer.bound >= whole.bound  # type: ignore[operator]
