"""Widths, depths and blocks of a network together, against every choice that there is."""

import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from ifspace.answer import Status
from ifspace.block import Block
from ifspace.stages.joint import (
    ORDERS,
    PEAK,
    Choice,
    Curve,
    JointPlan,
    JointProblem,
    LiveStep,
    Part,
    best_joint,
    with_more_params,
)
from ifspace.stages.problem import Budgets
from ifspace.stages.replacement import Objective, Option, ReplacementProblem, Site, best_replacement
from ifspace.stages.widths import YIELDED, Form, Width, WidthsProblem, best_widths

BLOCK = Block.parse("DW+PW").at(8)
SHARES = (8, 16, 24)
# Of the feature maps of four layers.
PIXELS = (256, 64, 16, 4)


def layer(
    draw: random.Random, a: int, b: int, name: str, unit: int | None = None, blocks: int = 0
) -> Part:
    """A layer between two groups of channels, with so many blocks that may take its place."""
    pixels, per_block = draw.choice([4, 16, 64]), [draw.uniform(0.2, 0.9) for _ in range(blocks)]
    table = {}
    for counts in product(SHARES, SHARES):
        weights = 9 * counts[0] * counts[1]
        choices = [entry(weights, pixels, counts[1])]
        for share in per_block:
            own = int(weights * share) + BLOCK.params
            choices.append(
                replace(
                    entry(own, pixels, counts[1] + counts[0]),
                    block=BLOCK,
                    value=1.3 * (own * pixels) ** 0.75,
                    peak=draw.choice([0, 0, pixels * counts[0]]),
                )
            )
        table[counts] = tuple(choices)
    live = Form(0, {a: pixels, b: pixels})
    return Part(name, table, (a, b), unit, live)


def entry(weights: int, pixels: int, channels: int) -> Choice:
    macs = weights * pixels
    time = Fraction(macs // 100 + 7 * channels, 1000)
    return Choice(weights, macs, channels * pixels, time, macs**0.75)


def network(seed: int, objective: str) -> JointProblem:
    """Three stages of two units, each with a width inside; the second unit may be removed."""
    draw = random.Random(seed)
    widths = tuple(Width(f"w{n}", SHARES) for n in range(4))
    parts = [
        layer(draw, 0, 1, "stem"),
        layer(draw, 1, 2, "unit 0 in", 0, 2),
        layer(draw, 2, 1, "unit 0 out", 0),
        layer(draw, 1, 3, "down", None, 1),
        Part("norm", {(c,): (Choice(2 * c),) for c in SHARES}, (2,), 0),
        Part("plain", {(): (entry(500, 16, 8),)}, (), 1),
    ]
    curve = Form(0, {}, {(0, 3): 5, (1, 3): 7})
    for (a, b), factor in curve.products.items():
        table = {
            counts: (Choice(factor * counts[0] * counts[1], factor * counts[0] * counts[1]),)
            for counts in product(SHARES, SHARES)
        }
        parts.append(Part("joined", table, (a, b), 1))
    steps = (LiveStep(Form(0, {1: 100}), 0), LiveStep(Form(40, {0: 16, 3: 16})))
    problem = JointProblem(
        widths, tuple(parts), ((0, 1),), (Curve(curve, 1),), steps, ((1, 0, 3),), {}, objective
    )
    whole = problem.start.totals
    names = draw.sample(["params", "macs", "activations", "latency_ms"], 2)
    limits: dict[str, Any] = {name: whole[name] * draw.choice([4, 6, 8]) // 10 for name in names}  # type: ignore[operator]
    if draw.random() < 0.5:
        limits[PEAK] = replace(problem, limits={PEAK: 1}).start.totals[PEAK] * 7 // 10
    return replace(problem, limits=limits)


def every_plan(problem: JointProblem) -> Iterator[JointPlan]:
    """Yield every plan within the limits."""
    depths = [
        [(True,) * n + (False,) * (len(s) - n) for n in range(len(s) + 1)] for s in problem.stages
    ]
    for counts in product(*(width.counts for width in problem.widths)):
        for kept in product(*depths):
            present = tuple(there for stage in kept for there in stage)
            if any(not present[unit] and counts[a] != counts[b] for unit, a, b in problem.ties):
                continue
            options = [
                range(len(part.table[tuple(counts[n] for n in part.widths)]))
                if part.unit is None or present[part.unit]
                else (0,)
                for part in problem.parts
            ]
            for chosen in product(*options):
                plan = JointPlan(problem, counts, present, chosen)
                totals = plan.totals
                if all(totals[name] <= limit for name, limit in problem.limits.items()):
                    yield plan


@pytest.mark.slow
@pytest.mark.parametrize("objective", ORDERS)
def test_no_other_choice_of_a_small_network_is_better(objective: str) -> None:
    infeasible = 0
    for seed in range(3):
        problem = network(seed, objective)
        objectives = [plan.objective() for plan in every_plan(problem)]
        answer = best_joint(problem)
        if not objectives:
            infeasible += 1
            assert answer.status is Status.INFEASIBLE
            continue
        assert answer.best is not None
        assert answer.bound is not None
        best = min(objectives)
        assert answer.best.objective() == pytest.approx(best, rel=1e-6)
        if objective != "macs-3/4":  # its tangents are above the curve
            assert answer.status is Status.OPTIMAL
            assert answer.bound == best
        assert answer.bound[0] <= best[0]
        assert answer.bound[0] == pytest.approx(best[0], rel=0.02)
    assert infeasible < 3


@pytest.mark.parametrize("objective", ["keep", "params", "macs", "latency_ms"])
def test_blocks_alone_are_those_of_a_replacement(objective: Objective) -> None:
    draw = random.Random(7)
    sites = [
        (
            Choice(900, 9000, latency_ms=Fraction(3)),
            *(
                Choice(
                    draw.randint(BLOCK.params, 900),
                    draw.randint(900, 9000),
                    latency_ms=Fraction(draw.randint(1, 400), 100),
                    block=BLOCK,
                )
                for _ in range(4)
            ),
        )
        for _ in range(5)
    ]
    limits = {"params": 2500, "macs": 30000}
    options = [
        Site(f"{n}", tuple(Option(x.block, x.params, x.macs, x.latency_ms) for x in site))
        for n, site in enumerate(sites)
    ]
    separate = best_replacement(ReplacementProblem(tuple(options), Budgets(**limits), objective))
    parts = tuple(Part(f"{n}", {(): site}) for n, site in enumerate(sites))
    answer = best_joint(JointProblem((), parts, limits=limits, objective=objective))
    assert answer.status is separate.status is Status.OPTIMAL
    assert answer.bound == separate.bound


def problem_of_widths(budgets: Budgets) -> WidthsProblem:
    """Return the widths of four layers, the first of many MACs a parameter, the last of few."""
    own = [Form(0, {n: 1}) for n in range(3)]
    pairs = [(Form(3), own[0]), (own[0], own[1]), (own[1], own[2]), (own[2], Form(10))]
    weights = [reads.times(writes).scaled(9) for reads, writes in pairs]
    layers = [form.scaled(pixels) for form, pixels in zip(weights, PIXELS, strict=True)]
    widths = tuple(Width(f"{n}", (8, 16, 24, 32)) for n in range(3))
    return WidthsProblem(widths, tuple(layers), Form.sum(weights), budgets=budgets)


def joint_of(problem: WidthsProblem) -> JointProblem:
    """Return the same problem with a part for each layer."""
    parts = []
    for macs in problem.layers:
        table = {
            counts: (Choice(int(params), int(macs.at(at)), value=macs.at(at) ** 0.75),)
            for counts in product(*(problem.widths[n].counts for n in macs.widths))
            for at in (dict(zip(macs.widths, counts, strict=True)),)
            for params in (macs.at(at) / PIXELS[len(parts)],)
        }
        parts.append(Part("", table, macs.widths))
    return JointProblem(problem.widths, tuple(parts), limits=problem.limits)


def test_widths_alone_are_those_of_the_search_of_widths() -> None:
    problem = problem_of_widths(Budgets(params=9000))
    separate, answer = best_widths(problem), best_joint(joint_of(problem))
    assert answer.best is not None
    assert separate.best is not None
    assert answer.best.totals["value"] == pytest.approx(separate.best.objective())


def test_parameters_left_over_are_used_for_little_of_the_objective() -> None:
    problem = problem_of_widths(Budgets(macs=290_995))
    best = best_joint(joint_of(problem)).best
    assert best is not None
    within = [
        counts
        for counts in product(*(width.counts for width in problem.widths))
        if all(problem.amounts(counts)[name] <= limit for name, limit in problem.limits.items())
    ]
    near = [x for x in within if problem.value(x) >= (1 - YIELDED) * problem.value(best.counts)]
    most = max(problem.amounts(counts)["params"] for counts in near)
    assert with_more_params(best).totals["params"] == most > best.totals["params"]
    # Where it is the one of the most parameters already, it stays.
    assert with_more_params(with_more_params(best)).totals["params"] == most
