"""Layouts of the most entropy: recounts, the search against brute force, and that bounds hold."""

import itertools
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from ifspace import layout, models
from ifspace.errors import SettingError
from ifspace.nn.network import LAYOUT_STYLES, build_network
from ifspace.stages.entropy import loops
from ifspace.stages.entropy.problem import (
    RELEASED_BUDGETS,
    Bottlenecks,
    EntropyPlan,
    EntropyProblem,
)
from ifspace.stages.entropy.solve import Bound, Tables, anneal, best_entropy

COMMAND = ("layout", "--objective", "entropy")
# The networks that DeepMAD released, and the scores that its own code prints for them.
RELEASED = {
    "R18": (32, "96,40,5,1 384,40,5,6 384,64,5,9 1024,104,3,10 672,104,5,12", 32_085.40),
    "R34": (24, "128,24,5,1 512,48,5,10 896,88,5,13 1024,104,5,11 616,128,5,14", 43_107.87),
    "R50": (32, "128,40,5,1 512,48,5,11 872,88,5,12 1024,104,5,13 1232,120,5,15", 48_884.47),
}


def released(name: str) -> tuple[EntropyProblem, EntropyPlan, float]:
    stem, text, score = RELEASED[name]
    params, macs = RELEASED_BUDGETS[name]
    stages = tuple(Bottlenecks(*map(int, part.split(","))) for part in text.split())
    return EntropyProblem(params, macs), EntropyPlan(stem, stages), score


def small_problem(seed: int) -> EntropyProblem:
    draw = random.Random(seed)
    return EntropyProblem(
        params=draw.randint(3_000, 40_000),
        macs=draw.randint(600_000, 9_000_000),
        side=32,
        strides=(2, 2),
        stem_widths=(8, 16),
        growth=2,
        depths=((1, 3), (1, 2)),
        widths=((8, 16), (8, 32)),
        ratios=(1, 1, 8),
        even_from=1,
        effectiveness=draw.choice([0.3, 0.5, 1.0]),
    )


def all_plans(problem: EntropyProblem) -> list[EntropyPlan]:
    stems = range(problem.stem_widths[0], problem.stem_widths[1] + 1, problem.step)
    stages = [
        [
            Bottlenecks(width, inner, kernel, depth)
            for width in range(narrow, wide + 1, problem.step)
            for inner in range(problem.step, width + 1, problem.step)
            for kernel in problem.kernels
            for depth in range(least, most + 1)
        ]
        for (least, most), (narrow, wide) in zip(problem.depths, problem.widths, strict=True)
    ]
    plans = (EntropyPlan(stem, own) for stem in stems for own in itertools.product(*stages))
    return [plan for plan in plans if problem.why_not(plan) is None]


@pytest.mark.parametrize("name", RELEASED)
def test_released_networks_have_their_printed_scores(name: str) -> None:
    problem, plan, score = released(name)
    assert problem.score_of(plan) == pytest.approx(score, abs=0.006)


def test_counts_are_the_formulas_of_the_task() -> None:
    # Issue 23's formulas, summed as they stand.
    problem, plan, _ = released("R34")
    sides, before = problem.sides, plan.stem
    params, macs = 29 * plan.stem, 224**2 * 7.5 * plan.stem
    for number, stage in enumerate(plan.stages):
        c, b, k, more = stage.width, stage.bottleneck, stage.kernel, stage.depth - 1
        params += before * b + k**2 * b**2 + b * c + before * c + 4 * b + 4 * c
        params += more * (2 * b * c + k**2 * b**2 + 4 * b + 2 * c)
        entering, leaving = sides[number] ** 2, sides[number + 1] ** 2
        pooled = before if entering > leaving else 0
        macs += entering * (before * b + 3 * b + pooled)
        macs += leaving * (k**2 * b**2 + b * c + before * c + 3 * b + 6 * c)
        macs += more * leaving * (2 * b * c + k**2 * b**2 + 6 * b + 3 * c)
        before = c
    assert (problem.params_of(plan), problem.macs_of(plan)) == (params, macs)


@pytest.mark.parametrize("name", RELEASED)
def test_a_plan_as_a_module_has_its_parameters(name: str) -> None:
    problem, plan, _ = released(name)
    layout = problem.layout_of(plan, classes=10)
    network = build_network(layout, LAYOUT_STYLES["resnet"], device="meta")
    head = plan.stages[-1].width * 10 + 10
    counted = sum(weight.numel() for weight in network.parameters())
    assert counted == problem.params_of(plan) + head == layout.params


def test_the_compiled_score_is_the_recount() -> None:
    problem, plan, _ = released("R50")
    tables, amounts = Tables(problem), np.zeros(3)
    score = loops.score(
        tables.numbers_of(plan),
        8.0,
        tables.log_kernels_by_size,
        tables.logs,
        tables.weights,
        tables.sides,
        np.array([10.0, 2.0]),
        tables.limit,
        amounts,
    )
    assert score == pytest.approx(problem.score_of(plan), rel=1e-12)
    assert amounts[:2].tolist() == [problem.params_of(plan), problem.macs_of(plan)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_small_problems_against_brute_force(seed: int) -> None:
    problem = small_problem(seed)
    best = max(map(problem.score_of, all_plans(problem)))
    answer = best_entropy(problem, gap=0.1, time_limit_s=3)
    assert answer.best is not None
    assert problem.why_not(answer.best) is None
    assert problem.score_of(answer.best) == pytest.approx(best)
    assert answer.bound >= best


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_no_plan_exceeds_the_relaxation_at_any_prices(seed: int) -> None:
    problem = small_problem(seed)
    tables = Tables(problem)
    bound = Bound(tables, 1000.0)
    (_, _, box), *_ = bound._open
    best = max(map(problem.score_of, all_plans(problem)))
    draw = np.random.default_rng(seed)
    for _ in range(50):
        prices = box.prices * draw.lognormal(0, 0.3, len(box.prices))
        prices[4:] = draw.normal(0, 30, len(prices) - 4)
        assert bound._cut(box, prices, 0.5).value >= best


def priced(
    problem: EntropyProblem, plan: EntropyPlan, prices: np.ndarray, blocks: np.ndarray
) -> float:
    """Return what a plan is worth at prices, without its limits and the cost of uneven depths."""
    depths = [stage.depth for stage in plan.stages]
    score = replace(problem, uneven=0).score_of(plan) + prices[2] * problem.entropies(plan)[-1]
    score -= prices[0] * problem.params_of(plan) + prices[1] * problem.macs_of(plan)
    return float(score - blocks @ depths)


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "excess"), [(0.01, 0.01), (1.0, 0.3), (200.0, 9.0)])
def test_the_programme_is_worth_the_best_plan_at_any_prices(cell: float, excess: float) -> None:
    # Narrow cells hold one sum of weights each; in wide ones the largest must stand for all.
    problem = replace(small_problem(0), params=10**9, macs=10**12, effectiveness=1e9)
    tables, plans = Tables(problem), all_plans(problem)
    cells = int(tables.weights.max(axis=1).sum() / cell) + 2
    shape = len(problem.strides) + 1, len(tables.logs), cells
    memory = np.empty(shape), np.empty(shape), np.zeros((*shape, 2), dtype=np.int32)
    draw = np.random.default_rng(0)
    for _ in range(10):
        prices = np.array([0.02, 3e-4, 5.0]) * draw.lognormal(0, 1, 3)
        blocks = draw.normal(0, 50, 2)
        value, _, _ = loops.backward(
            prices,
            blocks,
            float(problem.step),
            problem.squeeze,
            problem.growth,
            cell,
            tables.kernels,
            tables.log_kernels,
            tables.logs,
            tables.weights,
            tables.sides,
            tables.depths,
            tables.widths,
            *memory,
        )
        best = max(priced(problem, plan, prices, blocks) for plan in plans)
        assert best * (1 - 1e-12) <= value <= best + excess * abs(best)


def test_the_bound_of_a_single_plan_is_its_score_but_for_rounding() -> None:
    # All limits are met exactly, so that the relaxation loses nothing: only its margin is between.
    plan = EntropyPlan(8, (Bottlenecks(8, 8, 3, 2),) * 2)
    problem = replace(
        small_problem(0),
        kernels=(3,),
        stem_widths=(8, 8),
        widths=((8, 8),) * 2,
        depths=((2, 2),) * 2,
    )
    problem = replace(
        problem,
        params=problem.params_of(plan),
        macs=problem.macs_of(plan),
        effectiveness=problem.effectiveness_of(plan)[-1],
    )
    tables, score = Tables(problem), problem.score_of(plan)
    bound = Bound(tables, score)
    (_, _, box), *_ = bound._open
    draw = np.random.default_rng(0)
    for _ in range(50):
        prices = box.prices * draw.lognormal(0, 1, len(box.prices))
        prices[3] = prices[2] * (log(13) + tables.limit + 1)
        prices[4:] = 0.0
        value = bound._cut(box, prices, 0.5).value
        assert score <= value - 1e-14 * score
        assert value == pytest.approx(score, rel=1e-9)


@pytest.mark.slow
def test_depths_that_may_differ_for_nothing_have_no_price() -> None:
    problem = replace(small_problem(1), uneven=0)
    best = max(map(problem.score_of, all_plans(problem)))
    answer = best_entropy(problem, gap=0.1, time_limit_s=1)
    assert problem.score_of(answer.best) == pytest.approx(best)
    assert answer.bound >= best


@pytest.mark.slow
def test_scores_below_nothing_have_a_bound() -> None:
    problem = replace(small_problem(1), uneven=1000, depths=((3, 3), (1, 1)))
    best = max(map(problem.score_of, all_plans(problem)))
    assert best < 0
    answer = best_entropy(problem, gap=0.1, time_limit_s=1)
    assert problem.score_of(answer.best) == pytest.approx(best)
    assert best <= answer.bound


@pytest.mark.slow
def test_r34_beats_the_released_network_within_five_percent_of_the_best() -> None:
    problem, _, score = released("R34")
    answer = best_entropy(problem, gap=0.05)
    assert answer.best is not None
    assert problem.why_not(answer.best) is None
    own = problem.score_of(answer.best)
    assert own >= 47_500 > score
    assert own < answer.bound <= 1.05 * own


def test_an_annealer_repeats_itself() -> None:
    tables = Tables(small_problem(0))
    assert anneal(tables, 1, 1000.0, steps=2000) == anneal(tables, 1, 1000.0, steps=2000)


@pytest.mark.slow
def test_the_command_prints_a_plan_and_its_bound(run: Callable[..., Any]) -> None:
    limits = "--params 300k --macs 30M --input 64 --max-depth 4 --stage 5:width<=256"
    answer = run(*COMMAND, *limits.split(), "--time-limit", 0, "--format", "json").json
    plan = answer["plan"]
    assert plan["params"] <= 300_000
    assert plan["macs"] <= 30_000_000
    assert plan["stages"][4]["width"] <= 256
    assert max(stage["depth"] for stage in plan["stages"]) <= 4
    assert plan["score"] <= answer["bound"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--params 1M", "no --macs"),
        ("--params 1M --macs 1G --stages 32,16", "--stages with --objective entropy"),
        ("--params 1M --macs 1G --input 100", "multiples of 32"),
        ("--params 1M --macs 1G --input 0", "multiples of 32"),
        ("--params 0 --macs 1G", "--params out of range"),
        ("--params 1M --macs 1G --stage 6:depth<=3", "1 to 5"),
        ("--params 1M --macs 1G --stage 1:depth>=9", "stage 1 nothing"),
        ("--params 1M --macs 1G --stage 1:stride=1", "stride"),
    ],
)
def test_what_entropy_does_not_take_is_one_line(
    run: Callable[..., Any], arguments: str, words: str
) -> None:
    run(*COMMAND, *arguments.split()).fails_with(words)


def test_budgets_that_no_plan_keeps_are_proven_with_the_least(run: Callable[..., Any]) -> None:
    ended = run(*COMMAND, "--params", "1k", "--macs", "1M", "--format", "json")
    assert ended.status == 3
    assert "the narrowest has 4,392 and 8,011,304" in ended.err
    assert (ended.json["status"], ended.json["bound"]) == ("infeasible", None)


@pytest.mark.slow
def test_tables_without_a_line_for_the_bound_have_it_as_a_note(run: Callable[..., Any]) -> None:
    limits = "--params 100k --macs 5M --input 32 --max-depth 2 --time-limit 0 --format csv"
    answer = run(*COMMAND, *limits.split())
    assert answer.out.startswith("stage,side,width,depth,bottleneck,kernel,entropy")
    first, last = answer.err.splitlines()
    assert first == "ifspace: the search ends at a proven gap of 2% or after 0 s (--time-limit)"
    assert "no layout exceeds" in last


@pytest.mark.slow
def test_a_saved_layout_trains(run: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    limits = "--params 100k --macs 5M --input 32 --max-depth 2 --time-limit 0"
    assert run(*COMMAND, *limits.split(), "--save", path).status == 0
    network = models.load(path)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_the_function_of_layouts_names_the_problem_of_entropy() -> None:
    with pytest.raises(SettingError, match="best_entropy"):
        layout(stages=[32, 16], objective="entropy")


class Ended(KeyboardInterrupt):
    """Of another type than what compiled code might raise itself."""


def _end(number: int, frame: object) -> NoReturn:
    raise Ended("by a signal")


@pytest.mark.slow
def test_a_signal_ends_the_compiled_search_as_its_handler_does() -> None:
    problem = EntropyProblem(2_000_000, 100_000_000)
    anneal(Tables(problem), 0, 1e4, steps=10)  # which reads the compiled code
    before = signal.signal(signal.SIGVTALRM, _end)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)
        with pytest.raises(Ended, match="by a signal"):
            best_entropy(problem, time_limit_s=5)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
