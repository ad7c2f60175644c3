"""Reorganize the stages of a network: move units to where they gain most, or fit a budget best.

A network of ifspace's own is built anew from its layout at the new depths; modules of any other
network are removed and copied where they stand.

Reference: [3DRF] section 4.1.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import fsum
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifspace.answer import Answer, Status
from ifspace.errors import IfspaceError, SettingError
from ifspace.models.depths import TracedLayout
from ifspace.models.edits import applied, attach, edits_of
from ifspace.models.graph import Trace
from ifspace.models.surgery import (
    Append,
    Remove,
)
from ifspace.models.tracing import checked_model
from ifspace.models.tracing import trace as traced
from ifspace.models.units import stages_of, units_of
from ifspace.nn import BlockModule, RollingPointwiseConv1d
from ifspace.nn.checks import check_seed, unwrapped
from ifspace.nn.network import (
    Network,
    build_network,
    seeded,
)
from ifspace.stages.allocate import best_depths
from ifspace.stages.layout import MAX_DEPTH, Layout
from ifspace.stages.organizer import Trajectory, organize
from ifspace.stages.problem import (
    DEFAULT_MAX_DEPTH,
    Budgets,
    DepthPlan,
    DepthsProblem,
    StageTable,
)
from ifspace.values import amount, number_from_zero, whole_number


def rebuilt(model: Network, layout: Layout, seed: int = 0) -> Network:
    """Return the network of another layout, with the weights that the first has of its layers.

    Unit n of a stage keeps those of unit n; type, device, mode and memory format stay.

    >>> from ifspace.nn import named_network
    >>> first = named_network("vgg11", 32, device="meta")
    >>> rebuilt(first, first.layout.at_depths((2, 1, 1, 1, 1))).layout.depths
    (2, 1, 1, 1, 1)
    """
    like = next(model.parameters())
    made = build_network(layout, model.style, seed=seed, device=like.device, dtype=like.dtype)
    if any(_is_channels_last(each) for each in model.parameters()):
        last: Any = {"memory_format": torch.channels_last}
        made.to(**last)
    made.train(model.training)
    old = dict(_named(model))
    with torch.no_grad():
        for name, module in _named(made):
            if name in old:
                _take_over(module, old[name])
    attach(made, edits_of(model))
    return made


def _named(model: Network) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules by what they are: units by their place in the stage, others by name.

    How many units stand beside one shortcut is a matter of depth, and so are the names of modules.
    """
    units: dict[int, str] = {}
    for stage, row in model.stages.named_children():
        blocks = (each for each in row.modules() if isinstance(each, BlockModule))
        for place, block in enumerate(blocks):
            for name, part in block.named_modules():
                units[id(part)] = f"{stage}: {place}: {name}"
    for name, module in model.named_modules():
        yield units.get(id(module), name), module


def _take_over(module: nn.Module, old: nn.Module) -> None:
    """Give a module the mode and the weights of another, where they are of one shape."""
    module.training = old.training
    theirs = {**dict(old.named_parameters(recurse=False)), **dict(old.named_buffers(recurse=False))}
    own: list[tuple[str, Tensor]] = [
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ]
    for name, mine in own:
        other = theirs.get(name)
        if other is not None and other.shape == mine.shape:
            mine.copy_(other)
            if isinstance(mine, nn.Parameter):
                mine.requires_grad_(other.requires_grad)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous()


_ATTRIBUTE: Final = "_ifspace_reorganization"
Image = Tensor | Sequence[int]
Size3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Reorganization:
    """Where a network starts and what it becomes; nothing is changed by it.

    `start` and `end` know depths, parameters, MACs and gains; `names` are the sizes of the maps of
    their stages. `trajectory` are the moves of the
    organizer; `answer` has the proof of the depths chosen within `budgets`, None without any.
    """

    start: TracedLayout | Layout
    end: TracedLayout | Layout
    names: tuple[str, ...]
    alpha: float
    trajectory: Trajectory[Any]
    image: Size3
    budgets: Budgets = Budgets()  # noqa: RUF009 - a frozen value
    answer: Answer[DepthPlan] | None = None

    @property
    def steps(self) -> tuple[Remove | Append, ...]:
        """What is done to the modules; nothing where the network is built anew from its layout."""
        return self.end.steps() if isinstance(self.end, TracedLayout) else ()

    @property
    def states(self) -> tuple[TracedLayout | Layout, ...]:
        """The start and what it is after each move."""
        return self.trajectory.layouts

    def check(self) -> None:
        """Refuse a plan that nothing keeps.

        Raises: SettingError.
        """
        if self.answer is None or self.answer.plans:
            return
        if self.answer.status is not Status.INFEASIBLE:
            raise SettingError.because(
                "no depths found in time",
                got="the time limit",
                allowed="more of it",
                remedy="raise the time limit",
                argument="time_limit",
            )
        least = (f"{name} from {each:,}" for name, each in self.answer.least.items())
        raise SettingError.because(
            "nothing keeps the budgets",
            got=", ".join(f"{name} {most:,}" for name, most in self.budgets.limits.items()),
            allowed=", ".join(least),
            remedy="raise a budget",
            argument=next(iter(self.answer.least), None),
        )


def reorganize(
    model: nn.Module,
    x: Image,
    params: int | str | None = None,
    macs: int | str | None = None,
    *,
    moves: int | None = None,
    theta: float = 0,
    alpha: float = 3,
    most_depth: int = DEFAULT_MAX_DEPTH,
    seed: int = 0,
    time_limit_s: float | None = None,
) -> nn.Module:
    """Return a copy of a network whose stages have other depths.

    `x`: an image [N, C, H, W] or its size (C, H, W). Which depths is said at
    `plan_reorganization`, which takes the same arguments. Layers that stay keep their weights;
    those of new ones are drawn from the seed. `reorganization_of` says what was done.

    >>> row = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)), nn.MaxPool2d(4),
    ...                     *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)))
    >>> made = reorganize(row, (8, 16, 16))
    >>> [type(part).__name__ for part in made]
    ['Conv2d', 'Conv2d', 'Conv2d', 'Conv2d', 'Conv2d', 'MaxPool2d', 'Conv2d']

    Raises: SettingError when nothing keeps the budgets; and as `plan_reorganization` and
        `ifspace.models.tracing` do.
    """
    model = checked_model(model)
    check_seed(seed)
    plan = plan_reorganization(
        model,
        traced(model, x),
        params,
        macs,
        moves=moves,
        theta=theta,
        alpha=alpha,
        most_depth=most_depth,
        time_limit_s=time_limit_s,
    )
    plan.check()
    return reorganized(model, plan, seed)


def plan_reorganization(
    model: nn.Module,
    trace: Trace,
    params: int | str | None = None,
    macs: int | str | None = None,
    *,
    moves: int | None = None,
    theta: float = 0,
    alpha: float = 3,
    most_depth: int = DEFAULT_MAX_DEPTH,
    time_limit_s: float | None = None,
) -> Reorganization:
    """Return which depths the stages of a traced network are to have; nothing is changed.

    Without a budget the organizer moves units from stage to stage, `moves` of them or as many as it
    finds, for gains above `theta`. With a budget of parameters or MACs of the whole network, whole
    numbers or text such as "17M", the depths up to `most_depth` of greatest total gain that keep
    it, with proof; of the other amount it may have no more than it has. `alpha` is the decay of the
    gain.

    A unit is a residual block, a group of branches or a layer. Those that change the width or the
    side of the maps stay where they are; one that is put behind others is as wide as they are.

    Raises: SettingError for arguments out of range or that do not go together, and a network of
        which no unit can move.

    Reference: [3DRF] section 4.1.
    """
    theta, alpha = number_from_zero(theta, "theta"), number_from_zero(alpha, "alpha")
    if time_limit_s is not None:
        time_limit_s = number_from_zero(time_limit_s, "time_limit")
    budgets = Budgets(
        None if params is None else amount(params, "params"),
        None if macs is None else amount(macs, "macs"),
    )
    if budgets.limits and (theta or moves is not None):
        raise SettingError.because(
            "two ways at once",
            got=f"{f'theta {theta:g}' if moves is None else f'{moves} moves'} and a budget",
            allowed="moves of the organizer, or the best depths within a budget",
            remedy="leave one of them out",
            argument="theta" if moves is None else "moves",
        )
    start, names = _start(model, trace)
    way: Trajectory[Any] = organize(start, theta, alpha, moves)
    if not budgets.limits:
        return Reorganization(start, way.end, names, alpha, way, trace.image)
    # What is not bounded must not grow unseen.
    budgets = replace(
        budgets,
        params=start.params if budgets.params is None else budgets.params,
        macs=start.macs if budgets.macs is None else budgets.macs,
    )
    most = max(whole_number(most_depth, "max_depth", 1, MAX_DEPTH), *start.depths)
    tables = [_table(start, place, name, alpha, most) for place, name in enumerate(names)]
    rest_params = start.params - sum(
        each.at(depth)[1] for each, depth in zip(tables, start.depths, strict=True)
    )
    rest_macs = start.macs - sum(
        each.at(depth)[2] for each, depth in zip(tables, start.depths, strict=True)
    )
    answer = best_depths(
        DepthsProblem(tuple(tables), budgets, rest_params, rest_macs), 1, time_limit_s
    )
    end = start.at_depths(answer.plans[0].depths) if answer.plans else start
    return Reorganization(start, end, names, alpha, way, trace.image, budgets, answer)


def reorganized(model: nn.Module, plan: Reorganization, seed: int = 0) -> nn.Module:
    """Return a copy of a network changed as planned.

    Raises: SettingError for a plan of another network.
    """
    model = unwrapped(model)
    if not isinstance(plan.end, Layout):
        made = deepcopy(model)
        with seeded(seed, next((each.device for each in made.parameters()), None)):
            applied(made, *plan.steps)
        if plan.steps:
            _check(made, plan)
    elif type(model) is Network and model.layout == plan.start:
        made = rebuilt(model, plan.end, seed)
    else:
        raise SettingError.because(
            "a plan of another network",
            got=type(model).__name__,
            allowed=f"a network of depths {plan.start.depths}",
            remedy="take the network that was traced",
            argument="model",
        )
    edits = edits_of(made)
    if not _takes_lines(made):
        attach(made, replace(edits, image=edits.image or plan.image))
    setattr(made, _ATTRIBUTE, plan)
    return made


def _check(made: nn.Module, plan: Reorganization) -> None:
    """Refuse a network that does not run, or is not what was planned, with its units moved.

    Its own code may count on the modules that it calls, or call them by other names too.
    """
    channels, _, width = plan.image
    try:
        found = traced(made, (channels, width) if _takes_lines(made) else plan.image)
        got = f"{found.params:,} parameters and {found.macs:,} MACs"
        right = (found.params, found.macs) == (plan.end.params, plan.end.macs)
    except IfspaceError as error:
        got, right = str(error), False
    if not right:
        raise SettingError.because(
            "the network's own code does not go with other depths",
            got=got.partition("; ")[0],
            allowed=f"{plan.end.params:,} parameters and {plan.end.macs:,} MACs",
            remedy="put the units into an nn.Sequential, and call that",
            argument="model",
        )


def _takes_lines(model: nn.Module) -> bool:
    """Return whether a network reads lines of pixels, of which maps are one pixel high."""
    kinds = [type(each) for each in model.modules()]
    return any(issubclass(each, nn.Conv1d | RollingPointwiseConv1d) for each in kinds) and not any(
        issubclass(each, nn.Conv2d) for each in kinds
    )


def reorganization_of(model: nn.Module) -> Reorganization | None:
    """Return what `reorganize` did to a network the last time, None where it never did."""
    return getattr(unwrapped(model), _ATTRIBUTE, None)


def _start(model: nn.Module, trace: Trace) -> tuple[TracedLayout | Layout, tuple[str, ...]]:
    """Return the network as it is, by its layout if it is made from one, and its stages' names."""
    model = unwrapped(model)
    if type(model) is Network and not edits_of(model).steps:
        return model.layout, tuple(_size((each.side, each.side)) for each in model.layout.stages)
    stages = stages_of(trace, units_of(trace, model))
    start = TracedLayout.of(trace, model, stages)
    if not any(stage.held.movable for stage in start.stages):
        raise SettingError.because(
            "no unit of the network can move",
            got=f"{len(stages)} stages without one",
            allowed="units that stand in a row and keep the shape of their maps",
            remedy="`ifspace analyze` lists the units",
            argument="model",
        )
    return start, tuple(_size(stage.held.stage.side) for stage in start.stages)


def _size(side: tuple[int, int]) -> str:
    return f"{side[0]}×{side[1]}"


def _table(
    start: TracedLayout | Layout, place: int, name: str, alpha: float, most: int
) -> StageTable:
    """Return gains of a stage by depth, and its costs beyond those at its least depth."""
    stage = start.stages[place]
    grows = not isinstance(start, TracedLayout) or start.stages[place].held.repeat is not None
    depths = range(stage.min_depth, (most if grows else stage.depth) + 1)
    gains, params, macs = [], [], []
    for depth in depths:
        there = start.at_depths(
            tuple(depth if n == place else each for n, each in enumerate(start.depths))
        )
        gains.append(fsum(there.stages[place].gains(alpha)))
        params.append(there.params)
        macs.append(there.macs)
    return StageTable(
        name,
        depths[0],
        tuple(gains),
        tuple(each - min(params) for each in params),
        tuple(each - min(macs) for each in macs),
        depths[-1],
    )
