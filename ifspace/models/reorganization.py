"""Reorganize the stages of a network: move units to where they gain most, or fit a budget best.

A network of ifspace's own is built anew from its layout at the new depths; modules of any other
network are removed and copied where they stand.

Reference: [3DRF] section 4.1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, isclose
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifspace.answer import Answer
from ifspace.errors import IfspaceError, SettingError
from ifspace.latency import LatencySource
from ifspace.models.depths import TracedLayout
from ifspace.models.edits import EditedNetwork, Edits
from ifspace.models.gains import StageGains
from ifspace.models.graph import ImageSize, Size, Trace
from ifspace.models.latencies import latency_of_layers
from ifspace.models.rewiring import signature
from ifspace.models.surgery import Append, Remove, copy_of_network, without_values
from ifspace.models.tracing import Image, checked_model, is_one_dimensional
from ifspace.models.tracing import trace as traced
from ifspace.models.units import TracedStage, stages_of, unit_name, units_of
from ifspace.models.weights import (
    GROWTHS,
    Growth,
    draw_as_built,
    identified,
    make_blocks_identities,
    make_identities,
)
from ifspace.nn.checks import check_seed, unwrapped, wrong_type
from ifspace.nn.network import Network, build_network, seeded
from ifspace.stages.allocate import best_depths
from ifspace.stages.layout import MAX_DEPTH, Layout
from ifspace.stages.organizer import TIES, Trajectory, organize
from ifspace.stages.problem import (
    DEFAULT_MAX_DEPTH,
    TABLE_AMOUNTS,
    Budgets,
    DepthPlan,
    DepthsProblem,
    StageTable,
    budgets_error,
)
from ifspace.values import choice, counted, number_from_zero, whole_number

AnyLayout = TracedLayout | Layout
# Of so many depths of greatest gain one has to take no longer than the network does.
_COMPARED: Final = 32


@dataclass(frozen=True, slots=True)
class AddedUnits:
    """`count` units that were added: like the unit `like`, behind the unit `behind`.

    `channels`: their width, where it is another than that of the unit they are like.
    """

    behind: str
    like: str
    count: int
    channels: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reorganization:
    """The plan of a reorganized network: the depths it has and those it gets.

    `start` and `end` know depths, parameters, MACs and gains; `sizes` are the (H, W) of their
    stages, of what enters them. `trajectory`: the moves of the organizer; `other`: those with ties
    resolved the other way, None without ties. `answer`: the proof of the depths chosen within
    `budgets`; None without a budget. `not_more`: amounts that were given no budget and have one all
    the same, what the network has. `notes`: which stages stay as they are, and why.
    """

    start: AnyLayout
    end: AnyLayout
    sizes: tuple[Size, ...]
    alpha: float
    trajectory: Trajectory[Any]
    image: ImageSize
    budgets: Budgets = Budgets()  # noqa: RUF009 - a frozen value
    answer: Answer[DepthPlan] | None = None
    not_more: tuple[str, ...] = ()
    cap: str = "input"
    other: Trajectory[Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Remove | Append, ...]:
        """The steps on the modules; none for a network that is built anew from its layout."""
        return self.end.steps() if isinstance(self.end, TracedLayout) else ()

    @property
    def removed(self) -> tuple[str, ...]:
        """The units that are taken out, every one, in the order in which they run.

        By the names of their modules; of a network that is built anew by their numbers.
        """
        if isinstance(self.end, TracedLayout):
            return tuple(unit.name for at in self.end.stages for unit in at.stage.removed(at.depth))
        return tuple(
            _block_name(stage, number)
            for stage, (old, new) in enumerate(self._blocks_of_stages(), start=1)
            for number in range(new + 1, old + 1)
        )

    @property
    def added(self) -> tuple[AddedUnits, ...]:
        """The units that are put in, by what they are like and where they stand."""
        if isinstance(self.end, TracedLayout):
            appended = [step for step in self.end.steps() if isinstance(step, Append)]
            return tuple(
                AddedUnits(unit_name(step.behind), unit_name(step.like), step.count, step.channels)
                for step in reversed(appended)
            )
        return tuple(
            AddedUnits(_block_name(stage, old), _block_name(stage, old), new - old)
            for stage, (old, new) in enumerate(self._blocks_of_stages(), start=1)
            if new > old
        )

    def _blocks_of_stages(self) -> list[tuple[int, int]]:
        """Return for each stage of a network built anew its number of blocks before and after."""
        assert isinstance(self.start, Layout)
        assert isinstance(self.end, Layout)
        return [
            (len(old.blocks), len(new.blocks))
            for old, new in zip(self.start.stages, self.end.stages, strict=True)
        ]

    @property
    def states(self) -> tuple[AnyLayout, ...]:
        """The start and the state after each move of the organizer."""
        return self.trajectory.layouts

    @property
    def is_solved(self) -> bool:
        """Whether there are depths within the budgets, if any were given."""
        return self.answer is None or self.answer.best is not None

    def after_moves(self, moves: int) -> "Reorganization":
        """Return the plan that ends after so many moves of the organizer, or after all of them."""
        return replace(self, end=self.states[min(moves, len(self.states) - 1)])

    def check(self) -> None:
        """Check that there are depths within the budgets.

        Raises: SettingError.
        """
        if not self.is_solved:
            raise self.budgets_error()

    def budgets_error(self, remedy: str = "raise a budget") -> SettingError:
        """Return the error of a plan that is not solved."""
        assert self.answer is not None
        limits = {n: limit for n, limit in self.budgets.limits.items() if n not in self.not_more}
        remedy = "; ".join((remedy, *self.notes))
        return budgets_error(
            "choice of depths", self.answer, limits, remedy, None, self.not_more, shares=True
        )


def _block_name(stage: int, number: int) -> str:
    return f"block {number} of stage {stage}"


@dataclass(frozen=True, slots=True, eq=False)
class ReorganizedNetwork(EditedNetwork):
    """A network with other depths, and the plan that it follows."""

    plan: Reorganization


def reorganize(
    network: nn.Module | EditedNetwork,
    x: Image,
    budgets: Budgets = Budgets(),  # noqa: B008 - a frozen value
    *,
    moves: int | None = None,
    theta: float = 0,
    alpha: float = 3,
    cap: str = "input",
    tie: str = "earlier",
    max_depth: int = DEFAULT_MAX_DEPTH,
    seed: int = 0,
    time_limit_s: float | None = None,
    grow: str = "fresh",
) -> ReorganizedNetwork:
    """Return a copy of a network whose stages have other depths, with the plan of it.

    `x`: an image [N, C, H, W] or its size (C, H, W). The other arguments are those of
    `plan_reorganization`, which says how the depths are chosen. Layers that stay keep their
    weights; those of new units are drawn from the seed as the network's own source draws them, or
    with `grow="identity"` set so that each returns what it reads (in evaluation mode). Those of a
    module without a source are drawn from the values of the unit that is copied.

    >>> model = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)), nn.MaxPool2d(4),
    ...                       *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)))
    >>> better = reorganize(model, (8, 16, 16))
    >>> [type(part).__name__ for part in better.model]
    ['Conv2d', 'Conv2d', 'Conv2d', 'Conv2d', 'Conv2d', 'MaxPool2d', 'Conv2d']

    Raises: SettingError if no depths keep the budgets; and as `plan_reorganization` and
        `ifspace.models.trace` do.
    """
    edited = EditedNetwork.of(network)
    model = checked_model(edited.model)
    check_seed(seed)
    plan = plan_reorganization(
        edited,
        traced(model, x),
        budgets,
        moves=moves,
        theta=theta,
        alpha=alpha,
        cap=cap,
        tie=tie,
        max_depth=max_depth,
        time_limit_s=time_limit_s,
    )
    plan.check()
    return apply_reorganization(edited, plan, seed, grow)


def plan_reorganization(
    network: nn.Module | EditedNetwork,
    trace: Trace,
    budgets: Budgets = Budgets(),  # noqa: B008 - a frozen value
    *,
    moves: int | None = None,
    theta: float = 0,
    alpha: float = 3,
    cap: str = "input",
    tie: str = "earlier",
    max_depth: int = DEFAULT_MAX_DEPTH,
    time_limit_s: float | None = None,
    latency: LatencySource | None = None,
) -> Reorganization:
    """Return the depths that the stages of a traced network get; the network is not changed.

    Without a budget the organizer moves units from stage to stage, `moves` of them or as many as it
    finds, for gains above `theta`. With a budget of parameters or MACs of the whole network: the
    depths up to `max_depth` of greatest total gain within it, with proof; of the two amounts one
    without a budget does not grow, nor does what all layers take by `latency`. `alpha`, `cap` and
    `tie` are as in `ifspace.stages.organizer.organize`.

    A unit is a residual block, a group of branches or a layer. Units that change the width or the
    spatial size stay where they are; a unit put behind others is as wide as they are.

    A stage stays as it is if the network computes something else once its units have moved: its own
    code may count its modules, or read features by their numbers. Otherwise the network has the
    gain that is planned, as `analyze` finds it.

    Raises: SettingError for arguments out of range or that do not go together, and a network of
        which no unit can move.

    Reference: [3DRF] section 4.1.
    """
    if not isinstance(budgets, Budgets):
        raise wrong_type("budgets", budgets, "Budgets", 'write Budgets(params="1M")')
    theta, alpha = number_from_zero(theta, "theta"), number_from_zero(alpha, "alpha")
    if time_limit_s is not None:
        time_limit_s = number_from_zero(time_limit_s, "time_limit")
    if budgets.bounded and (theta or moves is not None):
        raise SettingError.because(
            "two ways at once",
            got=f"{f'theta {theta:g}' if moves is None else f'{moves} moves'} and a budget",
            allowed="moves of the organizer, or the best depths within a budget",
            remedy="leave one of them out",
            argument="theta" if moves is None else "moves",
        )
    budgets = budgets.of({"params": trace.params, "macs": trace.macs})
    edited = EditedNetwork.of(network)

    def plan_without(fixed: Mapping[TracedStage, str]) -> Reorganization:
        start, sizes = _start(edited, trace, stages, fixed)
        return _plan(
            start,
            sizes,
            trace,
            budgets,
            moves,
            theta,
            alpha,
            cap,
            tie,
            max_depth,
            time_limit_s,
            None if latency is None else keeps_latency,
        )

    def keeps_latency(layout: AnyLayout) -> bool:
        if latency is None:
            return True
        if isinstance(layout, TracedLayout):
            layers = layout.traced().all_layers
        else:
            model = unwrapped(edited.model)
            assert isinstance(model, Network)
            other = build_network(layout, model.style, device="meta")
            layers = traced(other, trace.image).all_layers
        before = latency_of_layers(trace.all_layers, latency)
        return latency_of_layers(layers, latency).ms <= before.ms

    stages = stages_of(trace, units_of(trace, unwrapped(edited.model)))
    fixed: dict[TracedStage, str] = {}
    plan = plan_without(fixed)
    while failing := _failing_stages(edited.model, plan):
        fixed |= failing
        plan = plan_without(fixed)
    return replace(plan, notes=_notes(fixed))


def _plan(
    start: AnyLayout,
    sizes: tuple[Size, ...],
    trace: Trace,
    budgets: Budgets,
    moves: int | None,
    theta: float,
    alpha: float,
    cap: str,
    tie: str,
    max_depth: int,
    time_limit_s: float | None,
    keeps: Callable[[AnyLayout], bool] | None,
) -> Reorganization:
    """Return the depths that the stages get if the network runs at all depths.

    `keeps`: what else the depths within budgets must keep; those of greatest gain come first.
    """
    trajectory: Trajectory[Any] = organize(start, theta, alpha, moves, cap, tie)
    if not budgets.limits:
        other = None
        if trajectory.ties:
            other_tie = next(name for name in TIES if name != tie)
            other = organize(start, theta, alpha, moves, cap, other_tie)
        return Reorganization(
            start, trajectory.end, sizes, alpha, trajectory, trace.image, cap=cap, other=other
        )
    not_more = tuple(name for name in TABLE_AMOUNTS if name not in budgets.limits)
    budgets = replace(
        budgets,
        params=start.params if budgets.params is None else budgets.params,
        macs=start.macs if budgets.macs is None else budgets.macs,
    )
    deepest = max(whole_number(max_depth, "max_depth", 1, MAX_DEPTH), *start.depths)
    problem = _depths_problem(start, sizes, budgets, alpha, deepest, cap)
    answer = best_depths(problem, 1 if keeps is None else _COMPARED, time_limit_s)
    if keeps is not None and answer.plans:
        plans = (plan for plan in answer.plans if keeps(start.at_depths(plan.depths)))
        best = next(plans, None)
        if best is None:
            raise SettingError.because(
                "depths within the budgets that take longer than the network does",
                got=f"the {len(answer.plans)} of greatest gain",
                allowed="no more predicted latency than now",
                remedy="raise a budget, or leave the latencies out",
                argument="latency",
            )
        bound = answer.bound if best == answer.best else best.objective()
        answer = replace(answer, plans=(best,), bound=bound)
    end = start if answer.best is None else start.at_depths(answer.best.depths)
    return Reorganization(
        start, end, sizes, alpha, trajectory, trace.image, budgets, answer, not_more, cap
    )


def apply_reorganization(
    network: nn.Module | EditedNetwork,
    plan: Reorganization,
    seed: int = 0,
    grow: str = "fresh",
) -> ReorganizedNetwork:
    """Return a copy of a network changed as planned.

    `grow`: how new units begin, as for `reorganize`.

    Raises: SettingError for a plan of another network, and a unit that cannot be an identity.
    """
    choice(grow, "grow", GROWTHS)
    base = EditedNetwork.of(network)
    model, edits = base.model, base.edits
    if not isinstance(plan.end, Layout):
        model = copy_of_network(model)
        growths = []
        with seeded(seed, next((tensor.device for tensor in model.parameters()), None)):
            for step in plan.steps:
                if isinstance(step, Append):
                    growths.append(Growth(step, step.put_into(model)))
                else:
                    step.apply(model)
        draw_as_built(base, growths, seed)
        if grow == "identity":
            make_identities(base, growths, plan.image, seed)
        edits = edits.then(*plan.steps)
        if plan.steps:
            _check_runs(model, plan)
    elif type(model) is Network and model.layout == plan.start:
        depths = [len(stage.blocks) for stage in model.layout.stages]
        model = at_layout(model, plan.end, seed)
        if grow == "identity":
            make_blocks_identities(model, depths, seed)
    else:
        raise SettingError.because(
            "a plan of another network",
            got=type(model).__name__,
            allowed=f"a network of depths {plan.start.depths}",
            remedy="take the network that was traced",
            argument="model",
        )
    if not is_one_dimensional(model):
        edits = edits.for_image(plan.image)
    return ReorganizedNetwork(model, edits, plan)


def _check_runs(model: nn.Module, plan: Reorganization) -> None:
    """Check that a network with its units moved runs, and has what was planned.

    Its own code may count the modules that it calls, or call them by other names too.
    """
    try:
        trace = traced(model, plan.image)
        amounts = f"{trace.params:,} parameters and {trace.macs:,} MACs"
        as_planned = (trace.params, trace.macs) == (plan.end.params, plan.end.macs)
    except IfspaceError as error:
        amounts, as_planned = str(error), False
    if not as_planned:
        raise SettingError.because(
            "the network's forward fails at other depths",
            got=amounts.partition("; ")[0],
            allowed=f"{plan.end.params:,} parameters and {plan.end.macs:,} MACs",
            remedy="put the units into an nn.Sequential, and call that",
            argument="model",
        )


# Why the units of a stage do not move, in the order in which it is looked for.
_FAILS: Final = "whose forward fails at other depths"
_OTHER_GRAPH: Final = "whose features are read by number, or whose units are counted"
_OTHER_UNITS: Final = "whose units are other ones at other depths"


def _failing_stages(model: nn.Module, plan: Reorganization) -> dict[TracedStage, str]:
    """Return the stages without whose changes the network would be what is planned, with reasons.

    Nothing for a network that is built anew, and one that does not change.
    """
    start, end = plan.start, plan.end
    if not isinstance(start, TracedLayout) or not isinstance(end, TracedLayout):
        return {}
    model = unwrapped(model)
    reason = _difference(model, end, plan)
    if not reason:
        return {}
    changed = [
        index
        for index, (before, after) in enumerate(zip(start.depths, end.depths, strict=True))
        if before != after
    ]
    reasons = {}
    for index in changed:
        depths = [*start.depths]
        depths[index] = end.depths[index]
        alone = start.at_depths(depths)
        if why := reason if len(changed) == 1 else _difference(model, alone, plan):
            reasons[start.stages[index].stage.traced] = why
    return reasons or {start.stages[index].stage.traced: reason for index in changed}


def _difference(model: nn.Module, layout: TracedLayout, plan: Reorganization) -> str:
    """Return how a network with other depths differs from what is planned, "" if it does not."""
    steps = layout.steps()
    if not steps:
        return ""
    try:
        try:
            changed = EditedNetwork(without_values(model), Edits()).apply(*steps).model
            trace = traced(changed, plan.image)
        except IfspaceError:
            # Its forward may need values.
            with seeded(0, next((tensor.device for tensor in model.parameters()), None)):
                changed = EditedNetwork(copy_of_network(model), Edits()).apply(*steps).model
            trace = traced(changed, plan.image)
    except IfspaceError:
        return _FAILS
    if signature(trace) != signature(layout.traced()) or trace.macs != layout.macs:
        return _OTHER_GRAPH
    stages = stages_of(trace, units_of(trace, changed))
    gains = (StageGains(stage, plan.alpha, plan.cap).of_units() for stage in stages)
    total = fsum(gain or 0.0 for stage_gains in gains for gain in stage_gains)
    expected = layout.gain_of_all(plan.alpha, plan.cap)
    return "" if isclose(total, expected, rel_tol=1e-9, abs_tol=1e-9) else _OTHER_UNITS


def _notes(fixed: Mapping[TracedStage, str]) -> tuple[str, ...]:
    """Return a sentence for each reason to leave stages as they are."""
    names: dict[str, list[str]] = {}
    for stage, reason in fixed.items():
        names.setdefault(reason, []).append(_stage_name(stage))
    return tuple(
        f"unchanged, as a part {reason}: {'; '.join(stages)}" for reason, stages in names.items()
    )


def _stage_name(stage: TracedStage) -> str:
    """Return the name of a stage: its first and last unit."""
    first, last = stage.units[0].names[0], stage.units[-1].names[-1]
    return first if first == last else f"{first} … {last}"


def _start(
    network: EditedNetwork,
    trace: Trace,
    stages: Sequence[TracedStage],
    fixed: Mapping[TracedStage, str],
) -> tuple[AnyLayout, tuple[Size, ...]]:
    """Return the layout of a network as it is, and the (H, W) of its stages.

    `fixed`: stages that stay as they are, with reasons.
    """
    model = unwrapped(network.model)
    if type(model) is Network and not network.edits.steps and _is_as_built(model):
        return model.layout, tuple((stage.side, stage.side) for stage in model.layout.stages)
    start = TracedLayout.of(trace, model, stages, fixed)
    if not any(stage.stage.removable for stage in start.stages):
        raise SettingError.because(
            "no unit of the network can move",
            got="; ".join((f"{counted(len(stages), 'stage')} without one", *_notes(fixed))),
            allowed="units one after another that keep the shape of their feature map",
            remedy="`ifspace analyze` lists the units",
            argument="model",
        )
    return start, tuple(stage.stage.traced.side for stage in start.stages)


def _is_as_built(model: Network) -> bool:
    """Return whether a network has the modules of its layout: none was replaced since."""
    fresh = build_network(model.layout, model.style, device="meta")
    return _structure(model) == _structure(fresh)


def _structure(model: nn.Module) -> list[Any]:
    """Return names and classes of the modules, and names and shapes of their weights."""
    modules = [(name, type(module)) for name, module in model.named_modules()]
    return [modules, [(name, tensor.shape) for name, tensor in model.state_dict().items()]]


def _depths_problem(
    start: AnyLayout,
    sizes: Sequence[Size],
    budgets: Budgets,
    alpha: float,
    max_depth: int,
    cap: str,
) -> DepthsProblem:
    """Return which depths are asked for: tables of the stages, and what the rest costs."""
    tables = [
        _stage_table(start, index, f"{height}×{width}", alpha, max_depth, cap)
        for index, (height, width) in enumerate(sizes)
    ]
    at_start = [table.at(depth) for table, depth in zip(tables, start.depths, strict=True)]
    rest_params = start.params - sum(params for _, params, _ in at_start)
    rest_macs = start.macs - sum(macs for _, _, macs in at_start)
    return DepthsProblem(tuple(tables), budgets, rest_params, rest_macs, start.depths)


def _stage_table(
    start: AnyLayout, index: int, name: str, alpha: float, max_depth: int, cap: str
) -> StageTable:
    """Return the gains of a stage by depth, and its costs beyond those at its least depth."""
    stage = start.stages[index]
    grows = not isinstance(start, TracedLayout) or start.stages[index].stage.copy is not None
    depths = range(stage.min_depth, (max_depth if grows else stage.depth) + 1)
    gains, params, macs = [], [], []
    for depth in depths:
        fixed_depths = start.depths[:index], start.depths[index + 1 :]
        layout = start.at_depths((*fixed_depths[0], depth, *fixed_depths[1]))
        gains.append(fsum(layout.stages[index].gains(alpha, cap)))
        params.append(layout.params)
        macs.append(layout.macs)
    return StageTable(
        name,
        depths[0],
        tuple(gains),
        tuple(count - min(params) for count in params),
        tuple(count - min(macs) for count in macs),
        depths[-1],
    )


def at_layout(model: Network, layout: Layout, seed: int = 0) -> Network:
    """Return an ifspace network built anew at another layout, with the weights of the first.

    Unit n of a stage keeps those of unit n; dtype, device, mode and memory format stay.

    >>> from ifspace.nn import named_network
    >>> first = named_network("vgg11", 32, device="meta")
    >>> at_layout(first, first.layout.at_depths((2, 1, 1, 1, 1))).layout.depths
    (2, 1, 1, 1, 1)
    """
    like = next(model.parameters())
    built = build_network(layout, model.style, seed=seed, device=like.device, dtype=like.dtype)
    if any(map(_is_channels_last, model.parameters())):
        channels_last: Any = {"memory_format": torch.channels_last}
        built.to(**channels_last)
    built.train(model.training)
    old = dict(identified(model))
    with torch.no_grad():
        for identity, module in identified(built):
            if identity in old:
                _take_over(module, old[identity])
    return built


def _take_over(module: nn.Module, old: nn.Module) -> None:
    """Give a module the mode of another, and its weights where they have one shape."""
    module.training = old.training
    values = {**dict(old.named_parameters(recurse=False)), **dict(old.named_buffers(recurse=False))}
    own: list[tuple[str, Tensor]] = [
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ]
    for name, tensor in own:
        value = values.get(name)
        if value is not None and value.shape == tensor.shape:
            tensor.copy_(value)
            if isinstance(tensor, nn.Parameter):
                tensor.requires_grad_(value.requires_grad)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous()
