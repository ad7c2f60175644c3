"""The best layouts against every layout of small problems."""

import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import brute_stages
import pytest

from ifspace.answer import Status
from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.stages.allocate import best_stages
from ifspace.stages.latency import LatencyTable
from ifspace.stages.layout import (
    Layout,
    StemAndHead,
    StemLayer,
)
from ifspace.stages.networks import stages
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    StagePlan,
    StagesProblem,
)

Q = Fraction
AMOUNTS = ("params", "macs", "layers", "latency_ms")
CLOSE = 1e-8
POOL = (
    "CONV",
    "CONV(5)",
    "DW+PW",
    "DW+GPW(4)",
    "GPW(2)+DW+GPW(2)",
    "GC(2)+SH(2)+GPW(2)",
    "PW",
    "RPW(2,1/2)+DW",
    "(DW+GPW(2))x2",
    "GC(3)",
    "DW+RPW(4,0)+PW",
    "DW(5)+GPW(2)",
)


def unit(draw: random.Random) -> BlockChoice:
    if draw.random() < 0.2:
        return BlockChoice.of(Block.parse("PW+DW+PW"), draw.choice([Q(1, 2), Q(1, 4), Q(2)]))
    return BlockChoice.of(Block.parse(draw.choice(POOL)))


def frame(draw: random.Random, side: int) -> StemAndHead:
    stem = (StemLayer(Block.parse(draw.choice(["CONV", "CONV(5)"])).at(3, 8).layers[0], side),)
    stemmed = draw.random() < 0.4
    return StemAndHead(
        inputs=draw.choice([3, 4, 8]),
        stem=stem if stemmed else (),
        batch_norm=draw.random() < 0.5,
        bias=draw.random() < 0.3,
        projections=draw.random() < 0.4,
        classifier=draw.choice([(), (10,), (6, 10)]),
        pixels=draw.choice([1, 4]),
        stem_counts=stemmed and draw.random() < 0.5,
    )


def start(draw: random.Random) -> Layout:
    count = draw.choice([2, 2, 3, 3, 4])
    sides = sorted(draw.choices([2, 3, 4, 7, 8, 14, 16, 32], k=count), reverse=True)
    around = frame(draw, sides[0])
    depths = [3] * count
    widths = draw.choices([4, 6, 8, 12], k=count)
    return stages("CONV", sides, widths, depths, draw.choices([1, 2], k=count), around)


def table(draw: random.Random, problem: StagesProblem) -> LatencyTable:
    """Latencies of whatever may be in play, now and then less one."""
    cases = {}
    for place, units in enumerate(problem.block_choices):
        stage = problem.start.stages[place]
        inside = {w for choices in problem.width_choices for w in choices}
        entries = inside | {problem.start.stem_and_head.stem_channels}
        for each, c_in, c_out in product(units, entries, problem.width_choices[place]):
            for stride in {1, stage.stride}:
                if draw.random() < 0.97:
                    case = (str(each.block), c_in, c_out, stage.side, stride)
                    cases[case] = Q(draw.randint(1, 999), draw.choice([10, 64, 1000]))
    return LatencyTable(cases)


def bounds(draw: random.Random, rows: list[brute_stages.Row], names: list[str]) -> Budgets:
    """Budgets about as large as what some layout has, now and then below what any has."""
    one = draw.choice(rows)
    values: dict[str, Any] = {}
    for name in names:
        least = min(getattr(row, name) for row in rows)
        value = draw.choice([getattr(one, name)] * 4 + [getattr(one, name) * 5 // 4, least - 1])
        if name == "latency_ms":
            value = draw.choice([Q(getattr(one, name)), Q(3, 2) * getattr(one, name), least / 2])
        values[name] = max(value, 1) if name != "latency_ms" else value
    return Budgets(**values)


def drawn(seed: int, count: int) -> Iterator[tuple[StagesProblem, list[brute_stages.Row]]]:
    """Problems of every sort with all their layouts, few enough to go through."""
    draw = random.Random(seed)
    while count:
        begun = start(draw)
        many = len(begun.stages)
        names = draw.sample(AMOUNTS, draw.randint(1, 4))
        own = draw.random() < 0.15
        problem = StagesProblem(
            begun,
            Budgets(params=1),
            widths=draw.choice(
                [
                    None,
                    tuple(
                        tuple(draw.sample([4, 6, 8, 12], draw.randint(1, 3))) for _ in range(many)
                    ),
                ]
            ),
            blocks=None
            if own
            else tuple(
                Blocks(*(unit(draw) for _ in range(draw.randint(1, 3)))) for _ in range(many)
            ),
            max_depth=draw.randint(2, 5),
            alpha=draw.choice([3, 3, 0, 1, 10]),
            monotone=draw.random() < 0.3,
        )
        if "latency_ms" in names:
            problem = replace(
                problem, budgets=Budgets(latency_ms=Q(1)), latency=table(draw, problem)
            )
        choices = [map(len, problem.width_choices), map(len, problem.block_choices)]
        if prod(prod(each) for each in choices) * problem.max_depth**many > 6000:
            continue
        rows = list(brute_stages.layouts(problem))
        if rows:
            problem = replace(problem, budgets=bounds(draw, rows, names))
        count -= 1
        yield problem, rows


def seen(plan: StagePlan) -> brute_stages.Row:
    layout, amounts = plan.layout, plan.problem.amounts(plan.layout)
    return brute_stages.Row(
        plan.objective(),
        *(amounts.get(name, Q(0)) for name in AMOUNTS),
        layout.depths,
        layout.widths,
        tuple(map(str, layout.blocks)),
    )  # type: ignore[arg-type]


def all_have_a_block(problem: StagesProblem) -> bool:
    known = brute_stages.Stages(problem)
    entries = [(problem.start.stem_and_head.stem_channels,), *problem.width_choices]
    return all(
        any(known.parts(n, *case) for case in product(units, entries[n], entries[n + 1]))
        for n, units in enumerate(problem.block_choices)
    )


def same_answer(problem: StagesProblem, rows: list[brute_stages.Row], top: int = 1) -> str:
    """Check status, bound and the best few layouts against all of them."""
    ranked = brute_stages.ranking(problem, rows)
    if not rows and not all_have_a_block(problem):
        with pytest.raises(SettingError, match="has no block left"):
            best_stages(problem, top)
        return "REFUSED"
    answer = best_stages(problem, top)
    if not ranked:
        assert (answer.status, answer.bound, answer.plans) == (Status.INFEASIBLE, None, ())
        return answer.status.name
    assert answer.status is Status.OPTIMAL
    assert answer.bound == pytest.approx(ranked[0][0], abs=CLOSE)
    found = [seen(plan) for plan in answer.plans]
    expected = ranked[:top]
    assert [row.gain for row in found] == pytest.approx([g for g, _ in expected], abs=CLOSE)
    assert [row.params for row in found] == [row.params for _, row in expected]
    assert len({plan.layout for plan in answer.plans}) == len(found)
    all_rows = {row[1:] for row in rows}
    for plan, row in zip(answer.plans, found, strict=True):
        plan.check()
        assert row[1:] in all_rows
    return answer.status.name


@pytest.mark.parametrize("seed", range(4))
def test_the_greatest_gain_of_problems_of_every_sort(seed: int) -> None:
    ended = [same_answer(problem, rows) for problem, rows in drawn(seed, 60)]
    assert ended.count("OPTIMAL") > 20
    assert ended.count("INFEASIBLE") > 5


@pytest.mark.parametrize("seed", [10, 11])
def test_the_best_few_of_problems_of_every_sort(seed: int) -> None:
    ended = [same_answer(problem, rows, top=7) for problem, rows in drawn(seed, 40)]
    assert ended.count("OPTIMAL") > 15


def test_the_problems_drawn_are_of_every_sort() -> None:
    problems = [problem for seed in range(4) for problem, _ in drawn(seed, 60)]
    names = {tuple(problem.budgets.limits) for problem in problems}
    assert len(names) == 15
    frames = [problem.start.stem_and_head for problem in problems]
    for wanted in (
        sum(each.stem_counts for each in frames),
        sum(each.projections for each in frames),
        sum(problem.monotone for problem in problems),
        sum(problem.blocks is None for problem in problems),
    ):
        assert wanted > 15


def test_all_layouts_of_a_problem_one_after_the_other() -> None:
    begun = stages("CONV", (8, 8), (4, 4), (1, 1), stem_and_head=StemAndHead(inputs=4))
    problem = StagesProblem(begun, Budgets(layers=6), blocks=(Blocks("CONV"),) * 2, max_depth=3)
    rows = list(brute_stages.layouts(problem))
    assert len(rows) == 9
    assert same_answer(problem, rows, top=20) == "OPTIMAL"
    assert len(best_stages(problem, 20).plans) == 9


def test_of_equal_gain_the_fewest_parameters_come_first() -> None:
    # The gain is the same for each width and, at sides of 2, for each depth from 2 on.
    begun = stages("CONV", (2, 2), (8, 8), (1, 1))
    problem = StagesProblem(begun, Budgets(params=10**6), widths=((8, 4, 6),) * 2, max_depth=5)
    plan = best_stages(problem).plans[0]
    assert (plan.layout.depths, plan.layout.widths) == ((1, 1), (4, 4))
    assert same_answer(problem, list(brute_stages.layouts(problem)), top=30) == "OPTIMAL"
