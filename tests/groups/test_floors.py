"""Group counts with floors: against every legal choice, what is satisfiable, what works instead."""

from collections.abc import Callable
from itertools import product

import brute_groups
import pytest

from ifspace import find_groups
from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.groups.full_field import ranked_blocks
from ifspace.groups.problem import GroupPlan, GroupsProblem, WidestProblem
from ifspace.groups.solve import Options, cheapest_groups, params_range, widest_block

FLOORS = [
    Floors(least_fan_in=4),
    Floors(least_spatial_fan_in=6),
    Floors(multiple=3),
    Floors(multiple=4),
    Floors(most_groups=3),
    Floors(least_fan_in=3, least_spatial_fan_in=4, multiple=2, most_groups=4),
]
COMPOSITIONS = ["DW+RPW+GPW", "GC+SH+GPW", "PW+GC", "(DW+RPW)x2", "GPW+SH+DW+GPW"]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [8, 12, 16, 24])
def test_minima_within_floors_are_those_of_brute_force(channels: int) -> None:
    statuses = []
    for text, floors, half in product(COMPOSITIONS, FLOORS, (2, 3, 4)):
        problem = GroupsProblem(
            Composition.parse(text), channels, channels * half // 2, floors=floors
        )
        answer, within = cheapest_groups(problem), params_range(Options(problem))
        full = brute_groups.full_choices(problem)
        statuses.append(answer.status)
        assert [plan.objective() for plan in answer.plans] == [row.cost for row in full[:1]]
        for plan in answer.plans:
            plan.check()
        if full:
            assert within is not None
            assert within.least <= full[0].cost <= full[-1].cost <= within.most
    assert statuses.count(Status.OPTIMAL) > 30


def test_a_plan_below_a_floor_is_invalid() -> None:
    block = Block.parse("DW+GPW(8)+SH(8)+GPW(8)")
    problem = GroupsProblem(block.composition, 64, floors=Floors(least_fan_in=16))
    with pytest.raises(SettingError, match=r"GPW\(8\) has a trivial group count, or one that the"):
        GroupPlan(problem, block).check()


@pytest.mark.slow
def test_the_widest_block_within_floors_is_the_widest_of_brute_force() -> None:
    floors = Floors(least_fan_in=8, multiple=4)
    problem = WidestProblem(Composition.parse("DW+RPW+GPW"), 1000, floors=floors)
    (plan,) = widest_block(problem).plans
    minima = {n: brute_groups.least(problem.at(n)) for n in range(20, 64)}
    assert plan.problem.channels == max(n for n, m in minima.items() if m and m <= 1000)
    assert plan.objective() == minima[plan.problem.channels]


def test_blocks_ranked_within_floors() -> None:
    plans = ranked_blocks(96, 192, stride=2, floors=Floors(least_fan_in=8))
    assert (plans[0].objective(), plans[0].sized.least_fan_in) == (3552, 8)
    assert all(plan.sized.least_fan_in >= 8 for plan in plans)


def test_floors_that_leave_nothing_say_which_and_what_works(run: Callable) -> None:
    run("groups", "GC+SH+GPW", "-C", 64, "--least-fan-in", 40).fails_with(
        "--least-fan-in leaves no block of GC+SH+GPW at 64 channels with at least 40 channels per",
        "got 40; allowed: up to 32; lower --least-fan-in to 32",
    )
    # Of 36 channels, 12 a group, 3 groups of 12 read 3 x 12 at most.
    run("groups", "RPW+GPW", "-C", 36, "--multiple", 7).fails_with("lower --multiple to 6")
    run("groups", "RPW+GPW", "-C", 36, "--most-groups", 1).fails_with("raise --most-groups to 2")
    # Without floors there is no plan either: they are not to blame.
    ended = run("groups", "DW+GPW", "-C", 64, "--least-fan-in", 8)
    assert ended.status == 3
    with pytest.raises(SettingError, match="lower least_fan_in to 32"):
        find_groups("GC+SH+GPW", 64, floors=Floors(least_fan_in=40))


def test_what_is_satisfiable_is_said_before_solving(run: Callable) -> None:
    options = ("-C", 64, "--least-fan-in", 16)
    ended = run("groups", "DW+GPW+SH+GPW", *options)
    range_text = "at 64 channels with at least 16 channels per filter: 2,624 to 4,672 parameters"
    assert range_text in ended.err
    assert "least fan-in" in ended.out
    values = run("groups", "DW+GPW+SH+GPW", *options, "--format", "json").json
    assert values["floors"]["least_fan_in"] == 16
    assert [(row["params"], row["least_fan_in"]) for row in values["plans"]] == [(2624, 16)]


def test_with_a_budget_a_multiple_is_of_the_width(run: Callable) -> None:
    budget = ("--budget", 1600, "--multiple", 64, "--format", "json")
    (row,) = run("groups", "DW+RPW+RPW", *budget).json["plans"]
    assert (row["channels"], row["least_fan_in"]) == (64, 8)
    (row,) = run("groups", "DW+RPW+RPW", *budget, "--least-fan-in", 2).json["plans"]
    assert row["channels"] == 64


def test_which_budgets_have_a_block_is_said_before_solving(run: Callable) -> None:
    command = ("groups", "DW+GPW+SH+GPW", "--multiple", 8, "--least-fan-in", 16)
    ended = run(*command, "--budget", "5k", "--format", "json")
    assert "from 1,312 parameters, at 32 channels; 5,000 allow at most 120 channels" in ended.err
    (plan,) = ended.json["plans"]
    assert 32 <= plan["channels"] <= 120
    # The bound is sharp here, and one parameter less has no block.
    assert run(*command, "--budget", 1312, "--format", "json").json["plans"][0]["channels"] == 32
    assert run(*command, "--budget", 1311).status == 3
