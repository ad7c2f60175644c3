"""What sites and problems of replacement refuse, and what the check of a plan catches."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from ifspace.block import Block
from ifspace.errors import BlockError, SettingError
from ifspace.stages.problem import Budgets
from ifspace.stages.replacement import (
    ORDERS,
    Option,
    ReplacementPlan,
    ReplacementProblem,
    Site,
)

Q = Fraction
DW = Block.parse("DW+PW").at(8, 16)
WIDE = Block.parse("DW+PW").at(16)
KEPT = Option(None, 1152, 18432, Q(3))
CHEAP = Option(DW, 200, 3200, Q(1, 3))
FIRST = Site("conv1", (KEPT, CHEAP, Option(Block.parse("CONV").at(8, 16), 1200, 18432)))
SECOND = Site("conv2", (Option(None, 2304, 9216, Q(2)), Option(WIDE, 432, 1600, Q(5, 2))))
PROBLEM = ReplacementProblem((FIRST, SECOND), Budgets(params=2600))


def test_amounts_of_an_option() -> None:
    assert (KEPT.replaced, CHEAP.replaced, CHEAP.stride) == (0, 1, 1)
    assert Option(DW, 200, 0, 2).latency_ms == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ((None, -1, 5), "params out of range"),
        ((None, 5, 1.5), "macs out of range"),
        ((None, 5, 10**12 + 1), "macs out of range"),
        ((None, 5, 5, 0.5), "latency out of range: got 0.5"),
        ((None, 5, 5, Q(-1)), "latency out of range"),
        ((None, 5, 5, None, 0), "stride out of range"),
        ((DW, 199, 3200), r"fewer parameters than the block has: got 199; allowed: 200 or more"),
    ],
)
def test_an_option_refuses(given: tuple[Any, ...], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        Option(*given)


def test_a_stride_needs_a_layer_that_holds_it() -> None:
    with pytest.raises(BlockError, match="no layer can hold the stride"):
        Option(Block.parse("PW").at(8, 16), 128, 3200, stride=2)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ((), "options that cannot stand for x: got none"),
        ((KEPT, CHEAP, Option(WIDE, 432, 1)), "8 to 16 channels, 16 to 16 channels"),
        ((CHEAP, Option(DW, 200, 1, stride=2)), "got blocks from 8 to 16 channels, stride 1, 2"),
    ],
)
def test_a_site_refuses(options: tuple[Option, ...], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        Site("x", options)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"sites": ()}, "layers that cannot be chosen for: got none"),
        ({"sites": (FIRST, SECOND, FIRST)}, "got conv1 twice"),
        ({"objective": "layers"}, "unknown objective: got 'layers'; allowed: keep, params, macs"),
        ({"budgets": Budgets(layers=3)}, "a budget of layers where they are not counted"),
        ({"budgets": Budgets(macs=10**12 + 1)}, "macs out of range"),
        (
            {"sites": (Site("y", (Option(None, 1, 1),)),), "objective": "latency_ms"},
            "no latency for any option of a layer: got y",
        ),
    ],
)
def test_a_problem_refuses(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        replace(PROBLEM, **changed)


def test_budgets_may_be_what_nothing_keeps() -> None:
    for most in (0, -(10**9)):
        assert replace(PROBLEM, budgets=Budgets(params=most)).budgets.params == most


def test_latency_counts_where_it_is_asked_for() -> None:
    assert not PROBLEM.latency_counts
    assert PROBLEM.choices == ((0, 1, 2), (0, 1))
    assert PROBLEM.left_out == ()
    assert PROBLEM.totals((1, 0)) == {"replaced": 1, "params": 2504, "macs": 12416}
    for asked in (
        replace(PROBLEM, objective="latency_ms"),
        replace(PROBLEM, budgets=Budgets(latency_ms=Q(4))),
    ):
        assert asked.latency_counts
        assert asked.choices == ((0, 1), (0, 1))
        assert asked.left_out == ("no latency for CONV at conv1",)
        assert asked.totals((1, 1)) == {
            "replaced": 2,
            "params": 632,
            "macs": 4800,
            "latency_ms": Q(17, 6),
        }
        assert asked.least("latency_ms") == Q(7, 3)
    unmeasured = Site("z", (Option(None, 1, 1), CHEAP))
    asked = ReplacementProblem((unmeasured,), objective="latency_ms")
    assert asked.left_out == ("no latency for the layer at z",)


def test_the_least_of_each_amount_by_itself() -> None:
    assert (PROBLEM.least("params"), PROBLEM.least("macs"), PROBLEM.least("replaced")) == (
        632,
        4800,
        0,
    )


def test_a_plan_names_what_becomes_of_the_layers() -> None:
    plan = ReplacementPlan(PROBLEM, (1, 0))
    plan.check()
    assert plan.options == (CHEAP, SECOND.options[0])
    assert plan.blocks == {"conv1": DW}
    assert plan.objective() == (1, 12416, 2504)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("keep", (2, 4800, 632)),
        ("params", (632, 4800, 2)),
        ("macs", (4800, 632, 2)),
        ("latency_ms", (Q(17, 6), 632, 4800, 2)),
    ],
)
def test_what_decides_in_turn(objective: Any, expected: tuple[Any, ...]) -> None:
    assert ReplacementPlan(replace(PROBLEM, objective=objective), (1, 1)).objective() == expected
    assert objective in ORDERS


@pytest.mark.parametrize(
    ("chosen", "fault"),
    [
        ((0,), "1 options for 2 layers"),
        ((0, 0, 0), "3 options for 2 layers"),
        ((3, 0), "option 3 of conv1"),
        ((0, -1), "option -1 of conv2"),
        ((0, 0), "3456 params, more than 2600"),
    ],
)
def test_a_plan_that_does_not_hold_is_caught(chosen: tuple[int, ...], fault: str) -> None:
    with pytest.raises(SettingError, match=f"a plan that does not hold: got {fault}"):
        ReplacementPlan(PROBLEM, chosen).check()


def test_an_option_without_its_latency_is_caught() -> None:
    asked = replace(PROBLEM, budgets=Budgets(latency_ms=Q(100)))
    with pytest.raises(SettingError, match="option 2 of conv1"):
        ReplacementPlan(asked, (2, 0)).check()


@pytest.mark.parametrize(
    ("name", "has"), [("params", 2504), ("macs", 12416), ("latency_ms", Q(7, 3))]
)
def test_a_plan_may_have_its_budget_and_no_more(name: str, has: Any) -> None:
    less = Q(1, 10**9) if name == "latency_ms" else 1
    for most, keeps in ((has, True), (has - less, False)):
        plan = ReplacementPlan(replace(PROBLEM, budgets=Budgets(**{name: most})), (1, 0))
        if keeps:
            plan.check()
        else:
            with pytest.raises(SettingError, match=f"got {has} {name}, more than"):
                plan.check()
