"""Convolutions replaced within budgets of the network: the best choice, or the least amounts."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from small_networks import macs, params, vgg
from torch import nn

from ifspace.answer import Status
from ifspace.errors import SettingError
from ifspace.latency import LatencyTable
from ifspace.models.decomposition import (
    DecomposedNetwork,
    Layers,
    Search,
    decompose,
    plan_decomposition,
)
from ifspace.models.tracing import trace
from ifspace.stages.problem import Blocks, Budgets

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 32, 32)


def replaced(network: DecomposedNetwork) -> list[str]:
    return [layer.name for layer in network.plan.replaced]


@pytest.mark.slow
def test_budgets_are_met_by_the_best_choice_of_all():
    model = vgg(16)
    blocks = ("DW+PW", "DW+RPW(4,0)+GPW(4)")
    whole = {block: decompose(model, IMAGE, Blocks(block)).plan for block in blocks}
    before = params(model), macs(model, IMAGE)
    names = [layer.name for layer in whole["DW+PW"].replaced]
    rows = [
        [(0, 0, 0)]
        + [
            (1, row.params[1] - row.params[0], row.macs[1] - row.macs[0])
            for row in (whole[block].replaced[place] for block in blocks)
        ]
        for place in range(len(names))
    ]
    budgets = {"params": before[0] * 6 // 10, "macs": before[1] // 2}
    orders = {"keep": (0, 2, 1), "params": (1, 2, 0), "macs": (2, 1, 0)}
    for objective, order in orders.items():
        best = None
        for choice in product(*rows):
            total = [sum(column) for column in zip(*choice, strict=True)]
            fits = before[0] + total[1] <= budgets["params"]
            if fits and before[1] + total[2] <= budgets["macs"]:
                key = tuple(total[n] for n in order)
                best = key if best is None else min(best, key)
        final = decompose(
            model, IMAGE, Blocks(*blocks), Budgets(**budgets), search=Search(objective)
        )
        decomposed, plan = final.model, final.plan
        assert plan.answer.status is Status.OPTIMAL
        assert plan.params == (before[0], params(decomposed))
        assert plan.macs == (before[1], macs(decomposed, IMAGE))
        changes = (
            len(plan.replaced),
            params(decomposed) - before[0],
            macs(decomposed, IMAGE) - before[1],
        )
        assert tuple(changes[n] for n in order) == best


def test_a_budget_that_is_already_met_changes_nothing():
    model = vgg()
    final = decompose(model, IMAGE, Blocks("DW+PW"), Budgets(params="1G"))
    assert replaced(final) == []
    assert params(final.model) == params(model)


@pytest.mark.slow
def test_budgets_that_nothing_meets_name_the_least_amounts():
    model = vgg()
    blocks, budgets = Blocks("DW+PW"), Budgets(params="1k", macs="1M")
    every = decompose(model, IMAGE, blocks).model
    with pytest.raises(
        SettingError,
        match=r"^proven: no choice of blocks keeps the budgets: got 1,000 parameters, ",
    ):
        decompose(model, IMAGE, blocks, budgets)
    plan = plan_decomposition(model, trace(model, IMAGE), blocks, budgets)
    assert plan.least == {"params": params(every), "macs": macs(every, IMAGE)}
    assert plan.replaced == ()
    with pytest.raises(SettingError, match=r"^time ran out before a choice of blocks"):
        decompose(
            model,
            IMAGE,
            blocks,
            Budgets(params=params(every)),
            search=Search(time_limit_s=0.0),
        )


def test_latency_of_the_chosen_layers():
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, 1))
    times = {
        ("CONV", 16, 16, 8, 1): Fraction(3),
        ("DW+PW", 16, 16, 8, 1): Fraction(1),
        ("CONV", 16, 32, 4, 2): Fraction(2),
        ("DW+PW", 16, 32, 4, 2): Fraction(3, 2),
    }
    table, blocks = LatencyTable(times), Blocks("DW+PW")
    for budget, names in ((5, []), (4, ["0"]), (Fraction(5, 2), ["0", "1"])):
        budgets = Budgets(latency_ms=budget)
        final = decompose(model, (16, 8, 8), blocks, budgets, search=Search(latency=table))
        assert replaced(final) == names
    final = decompose(model, (16, 8, 8), blocks, search=Search("latency_ms", table))
    assert replaced(final) == ["0", "1"]
    del times["DW+PW", 16, 32, 4, 2]
    left = plan_decomposition(
        model,
        trace(model, (16, 8, 8)),
        blocks,
        Budgets(latency_ms=4),
        search=Search(latency=LatencyTable(times)),
    )
    assert left.answer.left_out == ("no latency for DW+PW at 1",)


def test_a_budget_of_parameters_alone_lets_macs_not_grow() -> None:
    """Of a strided layer PW+PW+GC(4) has half the weights, and more MACs: they stand before it."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, padding=1)
    )
    block, budget = Blocks("PW+PW+GC(4)"), Budgets(params=15_500)
    assert replaced(decompose(model, (3, 16, 16), block, budget)) == ["2"]
    with pytest.raises(SettingError, match="15,500 parameters without more MACs than now"):
        decompose(model, (3, 16, 16), block, budget, Layers("1"))
    both = decompose(model, (3, 16, 16), block, replace(budget, macs=10**9), Layers("1"))
    assert both.plan.macs[1] > both.plan.macs[0]
