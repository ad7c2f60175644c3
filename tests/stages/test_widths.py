"""The best widths against every choice of small chains and residual networks."""

from dataclasses import replace
from itertools import pairwise, product
from random import Random

import pytest

from ifspace.answer import Status
from ifspace.errors import SettingError
from ifspace.stages.problem import Budgets
from ifspace.stages.widths import YIELDED, Form, Width, WidthsProblem, best_widths


def convolution(reads: Form, writes: Form, pixels: int) -> tuple[Form, Form]:
    """Return the parameters and MACs of a 3x3 convolution between two widths."""
    weights = reads.times(writes).scaled(9)
    return weights, weights.scaled(pixels)


def random_problem(seed: int, share: float) -> WidthsProblem:
    """Return a chain, or units whose outputs are one width with an inner width each."""
    random = Random(seed)
    count = random.randint(2, 4)
    counts = [tuple(range(8, 8 * random.randint(2, 5) + 1, 8)) for _ in range(count)]
    widths = tuple(
        Width(f"layer{n}", own, present=8 * random.randint(1, len(own)) if seed % 3 else 0)
        for n, own in enumerate(counts)
    )
    own = [Form(0, {n: 1}) for n in range(count)]
    stage = own[0]
    pairs = [(Form(3), stage)]
    if seed % 2:
        pairs += [pair for inner in own[1:] for pair in ((stage, inner), (inner, stage))]
    else:
        pairs += list(pairwise(own))
    pairs.append((own[-1] if seed % 2 == 0 else stage, Form(10)))
    layers = [convolution(*pair, random.choice((16, 64, 256))) for pair in pairs]
    params = Form.sum(weights for weights, _ in layers)
    most = params.at([width.most for width in widths])
    return WidthsProblem(
        widths,
        tuple(macs for _, macs in layers),
        params,
        Form.sum(writes.scaled(random.choice((16, 64))) for _, writes in pairs),
        live=tuple(Form.sum(pair) for pair in pairs),
        budgets=Budgets(params=int(share * most), peak_memory=200, dtype="fp32"),
        objective=random.choice(("macs-3/4", "most-macs", "most-params")),
    )


def choices_within(problem: WidthsProblem) -> list[tuple[int, ...]]:
    """Return all widths within the limits."""
    return [
        counts
        for counts in product(*(width.counts for width in problem.widths))
        if all(problem.amounts(counts)[name] <= limit for name, limit in problem.limits.items())
    ]


@pytest.mark.parametrize("seed", range(12))
def test_best_widths_are_those_of_every_choice(seed: int) -> None:
    problem = random_problem(seed, (0.3, 0.5, 0.8)[seed % 3])
    if problem.start is None:
        assert problem.budgets.exceeded(problem.amounts(problem.least))
        return
    within = choices_within(problem)
    best = max(within, key=problem.value)
    answer = best_widths(problem)
    assert answer.best is not None
    assert answer.best.counts in within
    assert answer.bound >= problem.value(best) * (1 - 1e-9)
    assert answer.best.objective() == pytest.approx(problem.value(best), rel=1e-4)
    assert answer.status is Status.OPTIMAL


@pytest.mark.parametrize(("seed", "share"), [(17, 0.3), (36, 0.8)])
def test_parameters_left_over_are_used_for_little_of_the_objective(seed: int, share: float) -> None:
    problem = replace(random_problem(seed, share), objective="macs-3/4")
    within = choices_within(problem)
    best = max(within, key=problem.value)
    near = [x for x in within if problem.value(x) >= (1 - YIELDED) * problem.value(best)]
    most = max(problem.amounts(counts)["params"] for counts in near)
    answer = best_widths(problem)
    assert answer.best is not None
    assert answer.best.counts in near
    assert answer.best.amounts["params"] == most > problem.amounts(best)["params"]
    assert answer.status is Status.FEASIBLE
    assert answer.bound >= problem.value(best)


def test_an_amount_without_a_budget_is_at_most_that_of_uniform_widths() -> None:
    problem = random_problem(3, 0.5)
    answer = best_widths(problem)
    assert answer.best is not None
    assert problem.start is not None
    for name in ("macs", "activations"):
        assert answer.best.amounts[name] <= problem.alike[name]
    assert answer.best.objective() >= problem.value(problem.start)


def test_budgets_below_the_least_name_the_least() -> None:
    problem = random_problem(2, 0.01)
    answer = best_widths(problem)
    assert answer.status is Status.INFEASIBLE
    assert answer.least["params"] == problem.params.at(problem.least)


def test_widths_of_no_number_are_rejected() -> None:
    with pytest.raises(SettingError, match="cannot be chosen from for conv1: got 8, 4"):
        Width("conv1", (8, 4))
