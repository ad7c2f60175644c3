"""Networks reorganized within budgets: the depths of the greatest gain."""

import itertools
from fractions import Fraction
from typing import Any

import pytest
from models.movable_networks import IMAGE, NETWORKS, conv, flat
from models.predictions import check_counts, flop_macs, layout_on, with_depths
from small_networks import macs, params
from torch import nn

import ifspace.models as m
from ifspace.answer import Status
from ifspace.block import SizedBlock
from ifspace.latency import Latency
from ifspace.models.depths import TracedLayout
from ifspace.models.latencies import latency_of_layers
from ifspace.models.reorganization import plan_reorganization
from ifspace.models.tracing import trace
from ifspace.nn import named_network

pytestmark = pytest.mark.usefixtures("one_thread")


def depth_ranges(start: TracedLayout, most: int) -> list[range]:
    return [
        range(stage.min_depth, (max(most, *start.depths) if stage.stage.copy else stage.depth) + 1)
        for stage in start.stages
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("flat", 4), ("residual", 3), ("our blocks", 4)])
def test_a_budget_is_met_by_the_best_depths_of_all(name: str, most: int) -> None:
    model = NETWORKS[name]().to("meta")
    graph = trace(model, IMAGE)
    start = layout_on(graph, model)
    every = {}
    for depths in itertools.product(*depth_ranges(start, most)):
        layout = start.at_depths(depths)
        changed = with_depths(model, layout)
        every[depths] = (layout.gain(), params(changed), macs(changed, IMAGE))
    own = every[start.depths][1:]
    least, largest = (
        [pick(entry[n] for entry in every.values()) for n in (1, 2)] for pick in (min, max)
    )
    third, half = ([a + (b - a) // n for a, b in zip(least, largest, strict=True)] for n in (3, 2))
    budgets: list[tuple[int | None, int | None]] = [
        (largest[0], None),
        (None, own[1]),
        (own[0], own[1]),
        (third[0], 10**9),
        (10**9, third[1]),
        (half[0], half[1]),
        (10**9, 10**9),
        (least[0], 10**9),
    ]
    reached = set()
    for budget in budgets:
        plan = plan_reorganization(model, graph, m.Budgets(*budget), max_depth=most)
        limits = [a if b is None else b for a, b in zip(own, budget, strict=True)]
        allowed = [
            entry for entry in every.values() if entry[1] <= limits[0] and entry[2] <= limits[1]
        ]
        best = max(entry[0] for entry in allowed)
        assert plan.answer.status is Status.OPTIMAL
        assert plan.end.gain() == pytest.approx(best, abs=1e-9)
        assert plan.answer.bound == pytest.approx(best, abs=1e-6)
        # Of equal gain the fewest units are added or removed, then the parameters are the fewest.
        changes, fewest = min(
            (sum(abs(a - b) for a, b in zip(depths, start.depths, strict=True)), entry[1])
            for depths, entry in every.items()
            if entry in allowed and entry[0] > best - 1e-9
        )
        ends = zip(plan.end.depths, start.depths, strict=True)
        assert sum(abs(a - b) for a, b in ends) == changes
        assert plan.end.params == every[plan.end.depths][1] == fewest
        assert plan.end.macs == every[plan.end.depths][2]
        reached.add(plan.end.depths)
    assert len(reached) > 3
    better = m.reorganize(model, IMAGE, m.Budgets(*budgets[5]), max_depth=most)
    changed = better.model
    check_counts(changed, better.plan.end)
    assert params(changed) <= half[0]
    assert flop_macs(changed) <= half[1]


def test_a_network_of_the_papers_within_a_budget() -> None:
    model = named_network("vgg11", 32, device="meta")
    budgets = m.Budgets(params="5.1M", macs="160M")
    changed = m.reorganize(model, IMAGE, budgets, max_depth=4).model
    best = max(
        (
            (layout.gain(), -layout.params)
            for depths in itertools.product(range(1, 5), repeat=5)
            if (layout := model.layout.at_depths(depths)).params <= 5_100_000
            and layout.macs <= 160_000_000
        ),
    )
    assert (changed.layout.gain(), -params(changed)) == pytest.approx(best)


@pytest.mark.slow
def test_budgets_as_text_and_as_numbers() -> None:
    model = flat()
    for text, number in (("8k", 8000), ("8.5k", 8500)):
        one, same = (
            m.reorganize(model, IMAGE, m.Budgets(params=limit)).model for limit in (text, number)
        )
        assert str(one) == str(same)
        assert params(one) <= number
    one, same = (
        m.reorganize(model, IMAGE, m.Budgets(macs=limit)).model for limit in ("1.2M", 1_200_000)
    )
    assert str(one) == str(same)
    assert flop_macs(one) <= 1_200_000


@pytest.mark.slow
def test_the_other_amount_does_not_grow() -> None:
    model = flat()
    for budget in ({"params": "1G"}, {"macs": "1G"}):
        changed = m.reorganize(model, IMAGE, m.Budgets(**budget)).model
        kept = {
            "params": macs(changed, IMAGE) <= macs(model, IMAGE),
            "macs": params(changed) <= params(model),
        }
        assert kept[next(iter(budget))]


def test_deep_networks_keep_their_depth_where_it_is_best() -> None:
    # resnet101 has 23 blocks on 14 x 14 pixels, more than a search looks at by itself.
    widths = [(3, 8), *[(8, 8)] * 19]
    model = nn.Sequential(*(conv(*pair) for pair in widths)).to("meta")
    better = m.reorganize(model, (3, 48, 48), m.Budgets(params="1G", macs="1G"))
    assert better.plan.end.depths == (20,)


class SlowAtSixteen:
    """Milliseconds by hand: layers on feature maps of 16 x 16 pixels take long."""

    def find(self, block: SizedBlock, side: int, stride: int = 1) -> Latency:
        return Latency(Fraction(100 if side == 16 else 1))


@pytest.mark.slow
def test_known_latency_does_not_grow() -> None:
    def row(depth: int, width: int) -> list[nn.Module]:
        convs = (nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        return [nn.Sequential(conv, nn.ReLU()) for conv in convs]

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        *row(2, 16),
        nn.Conv2d(16, 64, 4, 4),
        *row(4, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 4),
    )
    graph = trace(model, (3, 16, 16))
    budgets = m.Budgets(params="90%", macs=10**9)
    source: Any = SlowAtSixteen()
    longer = plan_reorganization(model, graph, budgets).end
    plan = plan_reorganization(model, graph, budgets, latency=source)
    milliseconds = [
        latency_of_layers(layers, source).ms
        for layers in (graph.all_layers, longer.traced().all_layers, plan.end.traced().all_layers)
    ]
    assert milliseconds == [304, 803, 303]
    # No depths with more gain take no longer: one more unit at 16 x 16 takes 100 ms.
    assert plan.end.depths == (3, 4)
    assert plan.answer is not None
    assert plan.answer.bound == pytest.approx(plan.end.gain())
