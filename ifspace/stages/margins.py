"""What a plan of stages spends, what binds it, and what one more block or more channels would do.

Every number is counted from the changed layout, nothing is a derivative.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

from ifspace.block import SizedBlock
from ifspace.errors import BlockError, SettingError
from ifspace.infofield import field_limit, spatial_field
from ifspace.stages.layout import BLOCK_AMOUNTS, Layout, Stage
from ifspace.stages.problem import Budgets, StagePlan, StagesProblem

# By how many channels the width of a stage is raised to see what it costs.
CHANNELS: Final = 8
# A step that raises an objective by less gains nothing but the rounding of sums.
TIE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Step:
    """A stage with one more block or more channels, and how the whole network changes.

    `stage` counts from 1. `costs`: of each amount that is counted, without the latency where a case
    of the table is missing. `gains`: of each objective. `exceeds`: the budgets that it exceeds.
    """

    stage: int
    layout: Layout
    costs: Mapping[str, int | Fraction]
    gains: Mapping[str, float]
    exceeds: tuple[str, ...]


def one_more_block(plan: StagePlan, index: int) -> Step:
    """Return the step to one more block in a stage.

    >>> from ifspace.stages.networks import network
    >>> from ifspace.stages.problem import Budgets
    >>> vgg = network("vgg16", 32)
    >>> plan = StagePlan(StagesProblem(vgg, Budgets(params=vgg.params)), vgg)
    >>> step = one_more_block(plan, 4)
    >>> step.costs["params"], step.exceeds
    (2360320, ('params',))
    """
    stage = plan.layout.stages[index]
    return _step(plan, index, _with_stage(plan.layout, index, stage.at_depth(stage.depth + 1)))


def more_channels(plan: StagePlan, index: int, channels: int = CHANNELS) -> Step | None:
    """Return the step to more channels in a stage; None if a block does not fit the new width."""
    try:
        layout = at_width(plan, index, plan.layout.stages[index].width + channels)
    except BlockError:
        return None
    return _step(plan, index, layout)


def at_width(plan: StagePlan, index: int, width: int) -> Layout:
    """Return the layout of a plan with another width of a stage; the blocks keep their groups.

    The width inside a block changes as its choice says.

    Raises: BlockError for a block that does not fit it.
    """
    stages = plan.layout.stages
    stage = stages[index]
    first = _resized(plan, index, stage.first, stage.first.channels, width)
    repeated = _resized(plan, index, stage.repeated, width, width)
    layout = _with_stage(plan.layout, index, replace(stage, first=first, repeated=repeated))
    if index + 1 == len(stages):
        return layout
    after = stages[index + 1]
    first = _resized(plan, index + 1, after.first, width, after.first.out_channels)
    return _with_stage(layout, index + 1, replace(after, first=first))


def _resized(plan: StagePlan, index: int, block: SizedBlock, entry: int, width: int) -> SizedBlock:
    choice = plan.problem.choice_of(index, plan.layout.stages[index])
    if choice is None:
        return block.block.at(entry, width, block.bottleneck, block.dims)
    return block.block.at(entry, width, block.bottleneck, block.dims, choice.inside(entry))


def _with_stage(layout: Layout, index: int, stage: Stage) -> Layout:
    stages = layout.stages
    return replace(layout, stages=(*stages[:index], stage, *stages[index + 1 :]))


def _step(plan: StagePlan, index: int, layout: Layout) -> Step:
    problem = plan.problem
    before, after = (_amounts(problem, x) for x in (plan.layout, layout))
    objectives = StagePlan(problem, layout).objectives
    return Step(
        index + 1,
        layout,
        {name: amount - before[name] for name, amount in after.items() if name in before},
        {name: objectives[name] - total for name, total in plan.objectives.items()},
        tuple(
            name
            for name, limit in problem.budgets.limits.items()
            if name in after and after[name] > limit
        ),
    )


def _amounts(problem: StagesProblem, layout: Layout) -> dict[str, int | Fraction]:
    try:
        return problem.amounts(layout)
    except SettingError:  # a case that the table of latencies lacks
        limits: dict[str, Any] = dict(problem.budgets.limits)
        limits.pop("latency_ms", None)
        budgets = Budgets(**limits, dtype=problem.budgets.dtype)
        return replace(problem, latency=None, budgets=budgets).amounts(layout)


@dataclass(frozen=True, slots=True)
class Binding:
    """Which budgets keep a plan from growing.

    `steps`: how many steps to the next depth or width that a stage may have raise the objective.
    `exceeding`: of these, how many exceed each budget, most first; empty if no step exceeds any.
    """

    steps: int
    exceeding: Mapping[str, int]


def binding(plan: StagePlan) -> Binding:
    """Return which budgets keep a plan from the next depth or width that its stages may have."""
    merit = plan.problem.merit
    growing = [step for step in _allowed_steps(plan) if step.gains[merit] > TIE]
    counts = {
        name: sum(name in step.exceeds for step in growing) for name in plan.problem.budgets.limits
    }
    order = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    return Binding(len(growing), {name: counts[name] for name in order})


def _allowed_steps(plan: StagePlan) -> Iterator[Step]:
    problem = plan.problem
    for index, stage in enumerate(plan.layout.stages):
        if stage.depth + 1 in problem.depth_choices[index]:
            yield one_more_block(plan, index)
        wider = [width for width in problem.width_choices[index] if width > stage.width]
        step = more_channels(plan, index, min(wider) - stage.width) if wider else None
        if step is not None and _meets_floors(problem, step.layout):
            yield step


def _meets_floors(problem: StagesProblem, layout: Layout) -> bool:
    return all(
        block.meets(problem.floors_of(index, opens=opens))
        for index, stage in enumerate(layout.stages)
        for block, opens in ((stage.first, True), (stage.repeated, False))
    )


def shares(plan: StagePlan) -> dict[str, float]:
    """Return which part of each budget a plan spends."""
    amounts = plan.problem.amounts(plan.layout)
    limits = plan.problem.budgets.limits
    return {name: float(Fraction(amounts[name]) / limit) for name, limit in limits.items()}


def stage_amounts(plan: StagePlan, index: int) -> dict[str, int | Fraction]:
    """Return what the blocks of one stage have of each amount that adds up over the stages.

    Stem and head are in no stage, and peak memory is that of one moment.
    """
    problem, stage = plan.problem, plan.layout.stages[index]
    ends = plan.layout.stem_and_head
    amounts: dict[str, int | Fraction] = {
        name: stage.amount(name, ends)
        for name in BLOCK_AMOUNTS
        if name != "activations" or problem.budgets.activations is not None
    }
    source = problem.latency
    if source is not None:
        times = [
            source.find(block, stage.side_out, stride) for block, stride in stage.strided_blocks
        ]
        milliseconds = [time.ms for time in times if time is not None]
        if len(milliseconds) == len(times):
            amounts["latency_ms"] = sum(milliseconds, Fraction(0))
    return amounts


def stage_field(stage: Stage, cap: str = "input") -> tuple[int, int]:
    """Return the information field at the end of a stage: side in pixels, channels.

    >>> from ifspace.stages.networks import network
    >>> stage_field(network("vgg16", 32).stages[0])
    (5, 3)
    """
    layers = [*stage.stem, *(layer for block in stage.blocks for layer in block.layers)]
    side = spatial_field([layer.kernel for layer in layers], field_limit(stage.side, cap))
    return side, int(stage.volumes(cap)[-1] // side**stage.first.dims)
