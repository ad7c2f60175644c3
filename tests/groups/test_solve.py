"""The cheapest groups against every legal choice, and against the enumeration."""

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import brute_groups
import pytest

from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.oracle import passes
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import BlockError, SettingError
from ifspace.groups import solve
from ifspace.groups.problem import GroupPlan, GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.kinds import KINDS, alphabet
from ifspace.reach import Reference, compact

ROOT = Path(__file__).resolve().parents[2]
Q = Fraction
slow = pytest.mark.slow


def problem_of(text: str, channels: int, out_channels: int | None = None, **more: Any) -> Any:
    return GroupsProblem(Composition.parse(text), channels, out_channels, **more)


def same_minimum(problem: GroupsProblem) -> Status:
    """Check status, bound, cost and overlaps of the best plan against every legal choice."""
    answer, expected = cheapest_groups(problem), brute_groups.least(problem)
    if expected is None:
        assert (answer.status, answer.plans) == (Status.INFEASIBLE, ()), problem
        return answer.status
    assert answer.status is Status.OPTIMAL, problem
    (plan,) = answer.plans
    assert (plan.objective(), answer.bound) == (expected, expected), problem
    plan.check()
    overlapping, _ = plan.block.window_counts
    assert overlapping == brute_groups.fewest_overlaps(problem, expected, plan.sized.params)
    return answer.status


def compositions(length: int) -> list[str]:
    return [
        "+".join(kinds) for n in range(1, length + 1) for kinds in product(alphabet(), repeat=n)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "channels",
    [
        16,
        pytest.param(12, marks=slow),
        pytest.param(18, marks=slow),
        pytest.param(40, marks=slow),
        pytest.param(48, marks=slow),
    ],
)
def test_minima_of_all_compositions_to_length_three(channels: int) -> None:
    statuses = {same_minimum(problem_of(text, channels)) for text in compositions(3)}
    assert statuses == {Status.OPTIMAL, Status.INFEASIBLE}


@pytest.mark.slow
@pytest.mark.parametrize(
    "channels",
    [16, pytest.param(20, marks=slow), pytest.param(24, marks=slow), pytest.param(36, marks=slow)],
)
def test_minima_of_a_sample_of_length_four(channels: int) -> None:
    sample = random.Random(channels).sample(list(product(alphabet(), repeat=4)), 150)
    statuses = [same_minimum(problem_of("+".join(kinds), channels)) for kinds in sample]
    assert statuses.count(Status.OPTIMAL) > 40


def random_problems(seed: int, count: int, most: int = 4) -> Iterator[GroupsProblem]:
    """Draw problems with few enough choices to enumerate them all."""
    draw = random.Random(seed)
    widths = [4, 6, 8, 9, 10, 12, 15, 16, 18, 20, 24, 30, 32, 36, 40, 48]
    while count:
        kinds = draw.choices(alphabet(), weights=[1, 2, 2, 3, 4, 3], k=draw.randint(1, most))
        mixing = sum(KINDS[kind].mixing for kind in kinds)
        inside = draw.choice(["even", "even", "ratio", "widths"])
        spatial = any(KINDS[kind].spatial for kind in kinds)
        try:
            problem = GroupsProblem(
                Composition(tuple(kinds), draw.choice([1, 1, 2]) if len(kinds) < 3 else 1),
                draw.choice(widths),
                draw.choice([None, draw.choice(widths)]),
                bottleneck=draw.choice([Q(1, 2), Q(1, 4), Q(2), Q(3, 2)])
                if inside == "ratio"
                else None,
                widths=tuple(draw.choices(widths, k=mixing - 1))
                if inside == "widths" and mixing > 1
                else None,
                kernel=draw.choice([3, 5]),
                overlaps=draw.choice([None, (Q(0), Q(1, 3), Q(1, 2)), (Q(2, 5),)]),
                objective=draw.choice(["params", "macs", "activations"]),
                weights=draw.choice([None, None, (1, 2, 3), (0, 7, 1)]),
                stride=draw.choice([1, 2]) if spatial else 1,
                dims=draw.choice([1, 2]),
                rpw_order=draw.choice(["rolling", "rolling", "blocked", "both"]),
            )
        except (BlockError, SettingError):
            continue
        if prod(map(len, brute_groups.options(problem))) <= 20_000:
            count -= 1
            yield problem


@pytest.mark.slow
@pytest.mark.parametrize("rpw_order", ["blocked", "both"])
@pytest.mark.parametrize("channels", [12, 16, 18])
def test_minima_of_both_orders(channels: int, rpw_order: str) -> None:
    rolling = [text for text in compositions(3) if "RPW" in text] + ["(DW+RPW)x2", "RPW+SH+RPW+GC"]
    statuses = {
        same_minimum(problem_of(text, channels, overlaps=None, rpw_order=rpw_order))
        for text in rolling
    }
    assert statuses == {Status.OPTIMAL, Status.INFEASIBLE}


@pytest.mark.parametrize(
    ("rpw_order", "block", "params"),
    [
        ("rolling", "DW+RPW(8,0)+RPW(8,0)", 1600),
        ("both", "DW+RPW(8,0)+RPW(8,0)", 1600),
        # Without overlap blocked windows are groups: only windows that overlap add channels.
        ("blocked", "DW+RPW(4,33/100,blocked)+RPW(8,0,blocked)", 2112),
    ],
)
def test_the_cheapest_in_each_order(rpw_order: str, block: str, params: int) -> None:
    (plan,) = cheapest_groups(problem_of("DW+RPW+RPW", 64, rpw_order=rpw_order)).plans
    assert (str(plan.block), plan.objective()) == (block, params)
    plan.check()


def test_a_plan_in_another_order_is_invalid() -> None:
    block = Block.parse("DW+RPW(8,0)+RPW(8,0,blocked)")
    plan = GroupPlan(problem_of("DW+RPW+RPW", 64), block)
    with pytest.raises(SettingError, match=r"RPW\(8,0,blocked\) is not in rolling order"):
        plan.check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=slow) for seed in (1, 2, 3))])
def test_minima_of_problems_of_every_sort(seed: int) -> None:
    statuses = [same_minimum(problem) for problem in random_problems(seed, 150)]
    assert statuses.count(Status.OPTIMAL) > 30
    assert statuses.count(Status.INFEASIBLE) > 30


def test_free_overlaps_try_every_step_of_every_copy() -> None:
    # The copies' windows have 2 and 4 channels: an overlap of 1/4 is a step of 2 and one of 3.
    assert same_minimum(problem_of("(SH+RPW)x2", 6, 12, overlaps=None)) is Status.OPTIMAL


def test_a_bound_is_never_above_the_optimum() -> None:
    # CP-SAT reports the scaled optimum -2484 of this one as -2483.9999999999995.
    answer = cheapest_groups(problem_of("RPW+RPW+RPW+RPW", 12))
    assert (answer.bound, answer.plans[0].objective()) == (96, 96)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10, 11])
def test_the_best_few_are_distinct_and_leave_no_cheaper_value_out(seed: int) -> None:
    for problem in random_problems(seed, 60, most=3):
        costs = [choice.cost for choice in brute_groups.full_choices(problem)]
        answer = cheapest_groups(problem, top=6)
        objectives = [plan.objective() for plan in answer.plans]
        assert objectives == sorted(objectives)
        assert len({plan.block for plan in answer.plans}) == len(objectives)
        reached = objectives[-1] if len(objectives) == 6 else max(costs, default=0)
        # Choices that differ in an overlap or an idle shuffle may share one plan, not a cost.
        assert sorted(set(objectives)) == sorted({cost for cost in costs if cost <= reached}), (
            problem
        )
        assert all(objectives.count(cost) <= costs.count(cost) for cost in objectives), problem
        for plan in answer.plans:
            plan.check()


@pytest.mark.parametrize(
    ("text", "params"),
    [("DW+PW", 4672), ("GC+SH+GPW", 3200), ("DW+RPW+RPW", 1600), ("DW+RPW+RPW+RPW", 1344)],
)
def test_the_figures_of_the_definitions(text: str, params: int) -> None:
    answer = cheapest_groups(problem_of(text, 64))
    assert (answer.bound, answer.plans[0].sized.params) == (params, params)


@slow
@pytest.mark.parametrize("channels", [16, 24, 64])
def test_no_design_of_the_catalogue_is_cheaper(channels: int) -> None:
    setting = EnumerationSetting(channels=channels, max_len=4)
    designs = enumerate_designs([setting], jobs=1).designs
    assert len(designs) > 90
    equal = 0
    for design in designs:
        answer = cheapest_groups(problem_of(design.composition, channels))
        assert answer.status is Status.OPTIMAL
        (plan,) = answer.plans
        assert plan.objective() <= design.params, design.block
        if passes(plan.block, setting):
            equal += 1
            assert plan.objective() == design.params, design.block
    assert equal > len(designs) / 2


# [Fog] Tables 2 to 4: network unit with the shuffle it permutes by, width, ratio of the bottleneck.
FOG = [
    ("PW+GC(1)+PW", 128, "1/4"),
    ("PW+GC(32)+PW", 256, "1/4"),
    ("PW+GC(1)+PW", 200, "1/4"),
    ("PW+GC(2)+PW", 256, "1/4"),
    ("PW+GC(64)+PW", 512, "1/4"),
    ("CONV", 64, None),
    ("DW+PW", 72, None),
    ("DW+PW", 280, None),
    ("GC(4)+SH(4)+GPW(32)", 128, None),
    ("GC(16)+SH(16)+GPW(16)", 256, None),
    ("PW+DW+PW", 400, "1/4"),
    ("GPW(4)+SH(4)+DW+GPW(4)", 560, "1/4"),
    ("GPW(4)+SH(4)+DW+GPW(4)", 560, None),
    ("GC(100)+SH(100)+GPW(2)", 200, None),
]


@pytest.mark.parametrize(("text", "width", "ratio"), FOG)
def test_the_rows_of_fog_see_every_channel(text: str, width: int, ratio: str | None) -> None:
    block = Block.parse(text)
    problem = GroupsProblem(block.composition, width, width, bottleneck=ratio and Q(ratio))
    if "(1)" not in text:  # one group is no choice of a search
        GroupPlan(problem, block).check()
    best = cheapest_groups(problem)
    assert best.status is Status.OPTIMAL
    assert best.plans[0].objective() <= problem.amount(block)


def full_shuffles(text: str, width: int, ratio: Fraction | None) -> list[int]:
    """The shuffle groups for which the block, written with `*` for them, is a legal full plan."""
    counts = []
    for count in range(2, width):
        try:
            block = Block.parse(text.replace("*", str(count)))
            GroupPlan(GroupsProblem(block.composition, width, bottleneck=ratio), block).check()
        except (BlockError, SettingError):
            continue
        counts.append(count)
    return counts


@pytest.mark.slow
def test_the_two_largest_rows_of_fog() -> None:
    # A free permutation is a shuffle here: at width 200 there is one that does it.
    assert full_shuffles("GC(100)+SH(*)+GPW(2)", 200, None) == [100]
    # Without a bottleneck the second is legal and full; at K = 175 no 100 groups divide K.
    second = "GPW(100)+SH(*)+DW+GPW(2)"
    assert full_shuffles(second, 700, None) == [70, 100, 140, 175, 350]
    assert full_shuffles(second, 700, Q(1, 4)) == []
    with pytest.raises(BlockError, match="allowed: groups 1, 5, 7, 25, 35, 175"):
        Block.parse("GPW(100)+SH(7)+DW+GPW(2)").at(700, 700, "1/4")
    # The nearest that is legal there, and the cheapest.
    assert full_shuffles("GPW(35)+SH(*)+DW+GPW(5)", 700, Q(1, 4)) == [35]
    best = cheapest_groups(problem_of("GPW+SH+DW+GPW", 700, bottleneck=Q(1, 4)), top=4)
    assert [plan.objective() for plan in best.plans] == [23975, 23975, 29575, 29575]
    assert Block.parse("GPW(35)+SH(35)+DW+GPW(5)") in [plan.block for plan in best.plans]


@pytest.mark.slow
def test_the_same_plan_every_time() -> None:
    problem = problem_of("RPW+SH+DW+GPW", 48)
    first = cheapest_groups(problem, top=4)
    assert cheapest_groups(problem, top=4) == first
    code = (
        "from ifspace.groups.solve import *; from ifspace.block import Composition\n"
        f"problem = GroupsProblem(Composition.parse('{problem.composition}'), 48)\n"
        "print(*(plan.block for plan in cheapest_groups(problem, top=4).plans))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == [str(plan.block) for plan in first.plans]


def test_no_time_is_an_answer_without_a_plan() -> None:
    answer = cheapest_groups(problem_of("DW+RPW+RPW", 64), time_limit_s=0)
    assert (answer.status, answer.plans) == (Status.UNKNOWN, ())


@pytest.mark.parametrize("text", ["GC+SH+GPW", "DW+RPW", "SH", "PW+GPW"])
def test_groups_at_a_prime_width_are_infeasible(text: str) -> None:
    answer = cheapest_groups(problem_of(text, 13))
    assert (answer.status, answer.bound, answer.plans) == (Status.INFEASIBLE, None, ())
    assert cheapest_groups(problem_of("DW+PW", 13)).status is Status.OPTIMAL


def test_no_plan_costs_more_than_allowed() -> None:
    problem = problem_of("DW+RPW+RPW", 64)
    assert cheapest_groups(problem, at_most=1600).plans[0].objective() == 1600
    assert cheapest_groups(problem, at_most=1599).status is Status.INFEASIBLE
    assert len(cheapest_groups(problem, top=9, at_most=1856).plans) == 3


@pytest.mark.parametrize("text", ["DW+RPW+RPW", "GC+SH+GPW", "RPW+SH+GPW", "GPW+SH+DW+GPW"])
def test_where_all_cost_the_same_the_fewest_parameters_decide(text: str) -> None:
    least = cheapest_groups(problem_of(text, 24, 36)).plans[0].objective()
    answer = cheapest_groups(problem_of(text, 24, 36, objective="activations"))
    assert answer.bound == answer.plans[0].objective()
    assert answer.plans[0].sized.params == least


def test_few_of_equal_cost_or_many_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("RPW+SH+GPW", "GPW+SH+DW+GPW", "RPW+SH+RPW+SH")
    problems = [problem_of(text, 24) for text in texts]
    expected = [cheapest_groups(problem).plans[0].objective() for problem in problems]
    monkeypatch.setattr(solve, "MOST_OF_EQUAL_COST", 1)
    assert [cheapest_groups(problem).plans[0].objective() for problem in problems] == expected


def test_a_kind_added_to_the_table_is_chosen_for(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cheapest_groups(problem_of("DW+GPW+SH+GPW", 64)).plans[0].objective()
    monkeypatch.setitem(KINDS, "TPW", replace(KINDS["GPW"], symbol="TPW"))  # type: ignore[arg-type]
    (plan,) = cheapest_groups(problem_of("DW+TPW+SH+TPW", 64)).plans
    assert plan.objective() == expected
    assert str(plan.block).startswith("DW+TPW(")


@pytest.mark.slow
@pytest.mark.parametrize("channels", [16, 64, 128])
def test_ties_go_to_the_block_of_the_catalogue(channels: int) -> None:
    setting = EnumerationSetting(channels=channels, max_len=4)
    compared = 0
    for design in enumerate_designs([setting], jobs=1).designs:
        problem = GroupsProblem(design.block.composition, channels)
        plan = cheapest_groups(problem).plans[0]
        assert plan.objective() <= design.params
        # A cheaper or an earlier block may have a layer to spare: the catalogue leaves it out.
        if compact(problem.sized(plan.block), Reference()):
            assert plan.block == design.block
            compared += 1
    assert compared >= 70
