"""Steps from a plan, what binds it, several plans apart, several budgets in one table."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from ifspace.latency import LatencyTable
from ifspace.stages.allocate import best_stages
from ifspace.stages.layout import Layout, StemAndHead
from ifspace.stages.margins import (
    binding,
    more_channels,
    one_more_block,
    shares,
    stage_amounts,
    stage_field,
)
from ifspace.stages.networks import make_layout, network, resnet50
from ifspace.stages.objectives import OBJECTIVES, total
from ifspace.stages.problem import Budgets, StagePlan, StagesProblem

ENDS = StemAndHead(batch_norm=True, projections=True, classifier=(10,))


def made(depths: tuple[int, ...], widths: tuple[int, ...]) -> Layout:
    return make_layout("DW+PW", (16, 8, 4), widths, depths, stem_and_head=ENDS)


START = made((2, 3, 1), (16, 24, 40))
PROBLEM = StagesProblem(
    START, Budgets(params=START.params + 1500, macs=10**6), ((16, 32), (24,), (40,)), max_depth=3
)
PLAN = StagePlan(PROBLEM, START)


@pytest.mark.parametrize("index", range(3))
def test_a_step_is_counted_from_the_changed_layout(index: int) -> None:
    depths, widths = list(START.depths), list(START.widths)
    deeper = made(tuple(d + (n == index) for n, d in enumerate(depths)), START.widths)
    wider = made(START.depths, tuple(w + 8 * (n == index) for n, w in enumerate(widths)))
    channels = more_channels(PLAN, index)
    assert channels is not None
    for step, layout in ((one_more_block(PLAN, index), deeper), (channels, wider)):
        assert step.layout == layout
        assert step.costs == {
            "params": layout.params - START.params,
            "macs": layout.macs - START.macs,
            "layers": layout.layers - START.layers,
        }
        for name, objective in OBJECTIVES.items():
            gained = total(objective, layout, 3) - total(objective, START, 3)
            assert step.gains[name] == pytest.approx(gained, abs=1e-12)
        assert ("params" in step.exceeds) == (layout.params > START.params + 1500)
        assert ("macs" in step.exceeds) == (layout.macs > 10**6)


def test_what_binds_are_the_budgets_that_allowed_steps_exceed() -> None:
    # Allowed: a block more in stages 1 and 3, 32 channels in stage 1; gain counts depth alone.
    blocks = [one_more_block(PLAN, index) for index in (0, 2)]
    exceeded = sum("params" in step.exceeds for step in blocks)
    assert exceeded == 1
    assert binding(PLAN).exceeding == {"params": 1}
    assert binding(PLAN).steps == 2
    wide = StagePlan(replace(PROBLEM, objective="macs-3/4"), START)
    assert binding(wide).steps == 3
    full = StagePlan(replace(PROBLEM, widths=None, max_depth=(2, 3, 1)), START)
    assert (binding(full).steps, binding(full).exceeding) == (0, {})
    assert shares(PLAN) == {
        "params": START.params / (START.params + 1500),
        "macs": START.macs / 10**6,
    }


def test_stages_stem_and_head_make_the_whole() -> None:
    layout = resnet50(224)
    plan = StagePlan(StagesProblem(layout, Budgets(params=layout.params)), layout)
    parts = [stage_amounts(plan, index) for index in range(4)]
    ends = layout.stem_and_head
    assert sum(part["params"] for part in parts) + ends.params(2048) == layout.params
    assert sum(part["macs"] for part in parts) + ends.macs(2048) == layout.macs
    assert sum(part["layers"] for part in parts) == layout.layers
    assert [stage_field(stage) for stage in network("vgg16", 32).stages] == [
        (5, 3),
        (5, 64),
        (7, 128),
        (4, 256),
        (2, 512),
    ]


def test_a_width_that_was_not_measured_costs_no_known_time() -> None:
    layout = make_layout("CONV", (8,), (8,), (2,), stem_and_head=StemAndHead(inputs=8))
    table = LatencyTable({("CONV", 8, 8, 8, 1): Fraction(3, 2)})
    problem = StagesProblem(layout, Budgets(latency_ms=4), latency=table)
    plan = StagePlan(problem, layout)
    block, channels = one_more_block(plan, 0), more_channels(plan, 0)
    assert (block.costs["latency_ms"], block.exceeds) == (Fraction(3, 2), ("latency_ms",))
    assert channels is not None
    assert "latency_ms" not in channels.costs


def apart(a: Layout, b: Layout) -> int:
    """Return by how many layers two layouts of CONV differ."""
    return sum(
        abs(x.depth - y.depth) if x.width == y.width else max(x.depth, y.depth)
        for x, y in zip(a.stages, b.stages, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("distance", [1, 2, 4])
def test_the_best_few_are_as_far_apart_as_asked(distance: int) -> None:
    start = make_layout("CONV", (8, 4), (8, 16), (1, 1))
    problem = StagesProblem(
        start, Budgets(params=6000), ((8, 12), (12, 16)), max_depth=3, objective="macs-3/4"
    )
    everything = [plan.layout for plan in best_stages(problem, 99).plans]
    assert 20 < len(everything) < 36
    chosen: list[Layout] = []
    for layout in everything:
        if all(apart(layout, other) >= distance for other in chosen):
            chosen.append(layout)
    plans = best_stages(problem, 5, distance=distance).plans
    assert [plan.layout for plan in plans] == chosen[:5]


@pytest.mark.parametrize(
    ("widths", "params", "stages"), [("64,128", "250k", ["2"]), (None, "110k", [])]
)
def test_channels_between_the_widths_offered_are_said(
    run: Callable, widths: str | None, params: str, stages: list[str]
) -> None:
    command = ("layout", "--stages", "16,8", "--params", params, "--quiet")
    command += () if widths is None else ("--width-choices", widths)
    values = run(*command, "--format", "json").json
    (plan,) = values["plans"]
    free = [
        str(number)
        for number, stage in enumerate(plan["stages"], start=1)
        if not stage["eight_more_channels"]["exceeds"]
        and stage["width"] + 8 not in values["width_choices"][number - 1]
    ]
    assert free == stages
    lines = [line for line in run(*command).out.splitlines() if line.startswith("finer")]
    assert [line.split()[-1] for line in lines] == stages
    assert "of the widths offered" in values["message"]


NAMED = ("layout", "--stages", "16,8", "--quiet", "--format", "json")


def test_several_budgets_are_compared_in_one_table(run: Callable, snapshot: Any) -> None:
    budgets = ("--budgets", "small:params=40k,macs=2M large:params=90k none:params=10")
    named = run(*NAMED, *budgets).json["named"]
    assert [values["name"] for values in named] == ["small", "large", "none"]
    alone = run(*NAMED, "--params", "40k", "--macs", "2M").json
    assert named[0]["plans"] == alone["plans"]
    assert (named[2]["status"], named[2]["plans"]) == ("infeasible", [])
    message = run(*NAMED, "--params", 10).err
    assert f"at least {named[2]['least']['params']:,} parameters" in message
    assert run(*NAMED[:-2], *budgets).out == snapshot
    run(*NAMED, *budgets, "--params", 5).fails_with("got --params with --budgets")
    assert run(*NAMED, "--budgets", "none:params=10").status == 3
    peaks = ("--budgets", "tight:peak-memory=40k loose:peak-memory=1M")
    run(*NAMED, *peaks).fails_with("peak memory without the type of the feature maps")
    tight, loose = run(*NAMED, *peaks, "--dtype", "int8").json["named"]
    assert (tight["budgets"], loose["budgets"]) == ({"peak_memory": 40_000}, {"peak_memory": 10**6})
    assert tight["plans"][0]["peak_memory"] <= 40_000 < loose["plans"][0]["peak_memory"]
    for text in ("params=1", "a:", "a:flops=3", "a:params=1 a:params=2", " "):
        run(*NAMED, "--budgets", text).fails_with("'--budgets'")
