"""What tables and problems of depths refuse, and what the check of a plan catches."""

from dataclasses import replace
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from ifspace.errors import SettingError
from ifspace.stages.problem import (
    Budgets,
    DepthPlan,
    DepthsProblem,
    StageTable,
)

A = StageTable("a", 1, (0.0, 1.0, 1.5), (10, 30, 60), (7, 8, 9), 3)
B = StageTable("b", 2, (0.25, 0.75), (100, 200), (40, 50), 3)
PROBLEM = DepthsProblem((A, B), Budgets(params=300, macs=100), rest_params=5, rest_macs=3)


def test_a_table_knows_its_depths() -> None:
    assert (list(A.depths), list(B.depths)) == ([1, 2, 3], [2, 3])
    assert [B.at(depth) for depth in B.depths] == [(0.25, 100, 40), (0.75, 200, 50)]
    assert StageTable("c", 0, [0.0], [0], [0], 0).gains == (0.0,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"min_depth": -1}, "min_depth out of range"),
        ({"max_depth": 0}, "max_depth out of range"),
        (
            {"max_depth": 4},
            "length than its depths in a: got 3 gains for depths 1 to 4; allowed: 4",
        ),
        ({"gains": (0.0,)}, "got 1 gains for depths 1 to 3"),
        ({"params": (1, 2)}, "got 2 params for depths 1 to 3"),
        ({"macs": (1, 2, 3, 4)}, "got 4 macs for depths 1 to 3"),
        ({"gains": (0.0, nan, 1.0)}, "gain out of range in a: got nan"),
        ({"gains": (0.0, inf, 1.0)}, "gain out of range in a: got inf"),
        ({"gains": (0.0, -2e6, 1.0)}, "gain out of range in a"),
        ({"params": (1, 2.5, 3)}, "params out of range"),
        ({"macs": (1, -2, 3)}, "macs out of range"),
    ],
)
def test_a_table_refuses(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        replace(A, **changed)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"tables": ()}, "no stage to choose a depth for"),
        ({"budgets": Budgets(params=0)}, "params out of range: got 0; allowed: more than 0"),
        ({"budgets": Budgets(macs=10**12 + 1)}, "macs out of range"),
        ({"budgets": Budgets(layers=3)}, "a budget of layers where they are not counted"),
        ({"budgets": Budgets(latency_ms=Fraction(1))}, "allowed: budgets of params and macs"),
        ({"rest_params": -1}, "rest_params out of range"),
        ({"rest_macs": 0.5}, "rest_macs out of range"),
    ],
)
def test_a_problem_refuses(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        replace(PROBLEM, **changed)


def test_a_plan_sums_its_tables() -> None:
    plan = DepthPlan(PROBLEM, (3, 2))
    plan.check()
    assert (plan.objective(), plan.params, plan.macs) == (1.75, 165, 52)
    assert DepthPlan(replace(PROBLEM, rest_params=0, rest_macs=0), (1, 3)).params == 210


@pytest.mark.parametrize(
    ("depths", "fault"),
    [
        ((3,), "1 depths for 2 stages"),
        ((3, 2, 2), "3 depths for 2 stages"),
        ((0, 2), "a is 0 deep"),
        ((1, 4), "b is 4 deep"),
    ],
)
def test_a_plan_that_does_not_fit_its_tables_is_caught(depths: tuple[int, ...], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        DepthPlan(PROBLEM, depths).check()


@pytest.mark.parametrize(("name", "has"), [("params", 215), ("macs", 60)])
def test_a_plan_may_have_its_budget_and_no_more(name: str, has: int) -> None:
    for most, fits in ((has + 1, True), (has, True), (has - 1, False)):
        plan = DepthPlan(replace(PROBLEM, budgets=Budgets(**{name: most})), (1, 3))
        if fits:
            plan.check()
        else:
            with pytest.raises(SettingError, match=f"got {has} {name}, more than {most}"):
                plan.check()
