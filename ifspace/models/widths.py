"""Narrow a network, or widen it: the widths that fit budgets best, and their strongest channels.

Which channels must be kept or removed together is read off the network
(`ifspace.models.channel_groups`); how many of each group are kept is one search over all groups
(`ifspace.stages.widths`); which of them, their weights say, or the user. The network that comes out
is read again: it must run the same operators on the channels that are left.
"""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ifspace.answer import Answer
from ifspace.errors import ARGUMENT, SettingError
from ifspace.models.channel_groups import (
    Axis,
    ChannelGroup,
    Channels,
    FixedChannels,
    LayerCall,
)
from ifspace.models.decomposition import amounts_of
from ifspace.models.edits import EditedNetwork, Step
from ifspace.models.graph import ImageSize
from ifspace.models.narrowing import ChangedNumber, Narrow
from ifspace.models.surgery import copy_of_network
from ifspace.models.tracing import Image, trace
from ifspace.models.widening import Widen, widen_copy
from ifspace.stages.problem import Budgets, budgets_error
from ifspace.stages.widths import Form, Width, WidthPlan, WidthsProblem, best_widths
from ifspace.storage import read_csv, reason
from ifspace.values import choice, counted, whole_number

# A norm of the weights of each channel, or numbers of the user's own.
Importance = str | os.PathLike[str] | Mapping[str, Tensor]
WIDTHS_OBJECTIVE: Final = "macs-3/4"
NORMS: Final[Mapping[str, int]] = {"l1": 1, "l2": 2}
# Widths are multiples of so many channels, from 8 times as many on of twice that (a vector of
# AVX-512 has 16 floats), and of wide groups of a power of 2 that cuts them into 16 steps or more.
MULTIPLE: Final = 8
_WIDE: Final = 8
_STEPS: Final = 16
# Widths may be at most so many times what they are.
MOST_WIDER: Final = 8
# How often what cannot be narrowed is left out and the rest is chosen anew.
_ROUNDS: Final = 12


@dataclass(frozen=True, slots=True)
class Steps:
    """Which widths are tried: multiples of channels up to `widen` times as many as there are."""

    multiple: int = MULTIPLE
    widen: Fraction = Fraction(1)

    def width_of(self, group: ChannelGroup, can_widen: bool = True) -> Width:
        """Return a width: multiples, doubled while there are so many steps, and all that there are.

        They are multiples in each of the layers that write the channels.

        >>> group = ChannelGroup(("conv",), np.arange(256), 1, {})
        >>> Steps().width_of(group).counts[:3], len(Steps().width_of(group).counts)
        ((16, 32, 48), 16)
        >>> Steps(widen=Fraction(9, 8)).width_of(group).counts[-3:]
        (256, 272, 288)
        """
        present, channels, multiple = len(group.classes), group.shared, self.multiple
        if present * channels >= _WIDE * multiple:
            multiple *= 2
        while present * channels >= 2 * multiple * _STEPS:
            multiple *= 2
        most = floor(self.widen * present) if can_widen else present
        counts = [
            count
            for count in range(1, most + 1)
            if count * channels % multiple == 0 or count == present
        ]
        return Width(group.name, tuple(counts), group.channels, present)


def check_widen(widen: Fraction | float) -> Fraction:
    """Return how many times as wide a network may be as a fraction. Raises: SettingError."""
    share = Fraction(widen).limit_denominator(10**6)
    if not 1 <= share <= MOST_WIDER:
        raise SettingError.because(
            f"{ARGUMENT} that is no factor to widen by",
            got=widen,
            allowed=f"numbers from 1 to {MOST_WIDER} such as 1.5",
            remedy="give how many times as wide a layer may be",
            argument="widen",
        )
    return share


@dataclass(frozen=True, slots=True)
class GroupWidth:
    """The width of a group of channels before and after, by the layers that write them."""

    layers: tuple[str, ...]
    before: int
    after: int

    @property
    def name(self) -> str:
        """The full name of the first layer that writes them."""
        return self.layers[0]


@dataclass(frozen=True, slots=True, eq=False)
class Narrowing:
    """The plan of a narrowed network: its widths before and after, and what they cost.

    `widths`: those that could change. `fixed`: the layers whose widths cannot, and why. `before`
    and `after`: parameters, MACs of one image, elements that layers write, and where it is bounded
    the peak memory in bytes. `alike`: the same of all widths narrowed alike. `answer`: the proof;
    `step`: what is removed, None where nothing keeps the budgets; `wider`: what is added then.
    """

    image: ImageSize
    budgets: Budgets
    objective: str
    widths: tuple[GroupWidth, ...]
    fixed: tuple[FixedChannels, ...]
    before: Mapping[str, int]
    answer: Answer[WidthPlan]
    after: Mapping[str, int] = field(default_factory=dict)
    alike: Mapping[str, int] = field(default_factory=dict)
    step: Narrow | None = None
    wider: Widen | None = None

    @property
    def is_solved(self) -> bool:
        """Whether there are widths within the budgets."""
        return self.step is not None

    def network(self, start: EditedNetwork, model: nn.Module) -> "NarrowedNetwork":
        """Return the narrowed `model` with the record of the network `start` and this plan."""
        assert self.step is not None
        steps = (self.step,) if self.wider is None else (self.step, self.wider)
        edits = start.edits.for_image(self.image).then(*steps)
        return NarrowedNetwork(model, edits, self)

    def check(self) -> None:
        """Check that there are widths within the budgets. Raises: SettingError."""
        if not self.is_solved:
            raise self.budgets_error()

    def budgets_error(self) -> SettingError:
        """Return the error for budgets that no widths keep."""
        limits = self.budgets.limits
        return budgets_error("set of widths", self.answer, limits, "raise the budget", shares=True)

    def __repr__(self) -> str:
        """Return the amounts before and after."""
        changed = sum(width.before != width.after for width in self.widths)
        if not self.is_solved:
            return f"<Narrowing of {counted(len(self.widths), 'width')}: none keep the budgets>"
        return (
            f"<Narrowing of {changed} of {counted(len(self.widths), 'width')}: "
            f"{self.before['params']:,} to {self.after['params']:,} parameters, "
            f"{self.before['macs']:,} to {self.after['macs']:,} MACs>"
        )


@dataclass(frozen=True, slots=True, eq=False)
class NarrowedNetwork(EditedNetwork):
    """A network with other widths, and the plan that it follows."""

    plan: Narrowing


def narrow(
    network: nn.Module | EditedNetwork,
    x: Image,
    budgets: Budgets,
    *,
    objective: str = WIDTHS_OBJECTIVE,
    importance: Importance = "l2",
    multiple: int = MULTIPLE,
    widen: Fraction | float = 1,
    keep_widths: Sequence[str] = (),
    time_limit_s: float | None = None,
) -> NarrowedNetwork:
    """Return a narrower copy of a network within budgets, with the plan of it.

    `x`: an image [N, C, H, W] or its size (C, H, W). Widths are multiples of `multiple` channels
    (of wide groups of 2, 4 ... times as many): those of greatest `objective` ("macs-3/4", the sum
    of MACs^(3/4) over layers, of which up to 1/200 goes for parameters that the budget leaves;
    "most-macs", or "most-params"). An amount without a budget is at most 9/10 of what it is where
    all widths are narrowed alike. `keep_widths`: patterns such as "*.conv3" of the full names of
    layers that stay as wide as they are. `widen`: widths may be up to so many times what they are,
    1 or more; parameters and MACs grow only where they have a budget above what they are.

    Of each group the channels stay that have the greatest
    `importance`: the "l1" or "l2" norm of their weights in all layers that write them, or numbers
    of the user's: a mapping from full names of layers to a tensor [C_out], or a CSV file with the
    columns layer, channel and importance. Weights that stay keep their values; new channels are
    copies of the strongest that nothing reads at first: where no channel is removed, the network
    computes what it did.

    >>> model = nn.Sequential(nn.Conv2d(8, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 1))
    >>> small = narrow(model, (8, 16, 16), Budgets(params="60%"))
    >>> small.plan
    <Narrowing of 1 of 1 width: 5,192 to 2,600 parameters, 1,003,520 to 501,760 MACs>
    >>> small.model[0]
    Conv2d(8, 32, kernel_size=(3, 3), stride=(1, 1))

    Raises: SettingError where no widths keep the budgets, for a network whose channels are not
        known or cannot be narrowed, and for importance of another shape or of no layer.
    """
    edited = EditedNetwork.of(network)
    plan, model = plan_narrowing(
        edited.model,
        x,
        budgets,
        objective=objective,
        importance=importance,
        multiple=multiple,
        widen=widen,
        keep_widths=keep_widths,
        time_limit_s=time_limit_s,
    )
    plan.check()
    return plan.network(edited, model)


def plan_narrowing(
    model: nn.Module,
    x: Image,
    budgets: Budgets,
    *,
    objective: str = WIDTHS_OBJECTIVE,
    importance: Importance = "l2",
    multiple: int = MULTIPLE,
    widen: Fraction | float = 1,
    keep_widths: Sequence[str] = (),
    time_limit_s: float | None = None,
) -> tuple[Narrowing, nn.Module]:
    """Return the widths of a network within budgets, and a copy of it that has them.

    Arguments and errors are those of `narrow`, but that budgets nothing keeps are a plan without
    widths, and a network that stays as it is. On the meta device all channels are equally strong.
    """
    whole_number(multiple, "multiple", 1)
    if budgets.shares:
        budgets = budgets.of(amounts_of(trace(model, x), budgets.dtype))
    channels = Channels(model, x).with_kept(keep_widths)
    steps = Steps(multiple, check_widen(widen))
    narrowing = best_narrowing(channels, budgets, objective, importance, steps, time_limit_s)
    groups, best = narrowing.channels.groups, narrowing.answer.best
    if best is None:
        return _narrowing(narrowing, [group.width for group in groups]), model
    after = [count * group.channels for count, group in zip(best.counts, groups, strict=True)]
    assert narrowing.model is not None
    return _narrowing(narrowing, after), narrowing.model


@dataclass(frozen=True, slots=True, eq=False)
class BestNarrowing:
    """The best widths of the `channels` that can be narrowed, and a copy that has them, if any."""

    channels: Channels
    problem: WidthsProblem
    answer: Answer[WidthPlan]
    step: Narrow | None = None
    wider: Widen | None = None
    model: nn.Module | None = None


def best_narrowing(
    channels: Channels,
    budgets: Budgets,
    objective: str,
    importance: Importance,
    steps: Steps,
    time_limit_s: float | None,
    *,
    with_bound: bool = True,
) -> BestNarrowing:
    """Return the best widths within budgets that are no shares; what cannot be narrowed is left.

    Raises: SettingError where nothing can be, and for importance that does not fit.
    """
    scores = scores_of(importance, channels)
    for _ in range(_ROUNDS):
        if not channels.groups:
            raise _nothing_to_narrow(channels)
        problem = widths_problem(channels, budgets, objective, steps)
        answer = best_widths(problem, time_limit_s, with_bound=with_bound)
        if answer.best is None:
            return BestNarrowing(channels, problem, answer)
        copy = copy_of_network(channels.model)
        resized = resize_copy(channels, copy, answer.best.counts, scores)
        if resized.is_done:
            return BestNarrowing(channels, problem, answer, resized.step, resized.wider, copy)
        channels = resized.restrict(channels)
    raise _nothing_to_narrow(channels)


@dataclass(frozen=True, slots=True)
class Resized:
    """How a copy of a network was narrowed, then widened in place; or why it cannot be.

    `fixed`: feature maps whose channels must stay, with reasons; `not_wider`: the names of groups
    that get no channels. Where there are neither the copy runs the same operators on its channels.
    """

    step: Narrow
    wider: Widen | None = None
    fixed: Mapping[int, str] = field(default_factory=dict)
    not_wider: frozenset[str] = frozenset()

    @property
    def is_done(self) -> bool:
        """Whether the copy is as it should be."""
        return not self.fixed and not self.not_wider

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that were applied."""
        return (self.step,) if self.wider is None else (self.step, self.wider)

    def restrict(self, channels: Channels) -> Channels:
        """Return channels without the freedom that the network does not have."""
        return channels.with_fixed(self.fixed).not_wider(self.not_wider)


def resize_copy(
    channels: Channels,
    copy: nn.Module,
    counts: Sequence[int],
    scores: "Mapping[str, Scores] | int",
) -> Resized:
    """Narrow a copy of a network in place, then widen it, to so many classes of each group."""
    removed = _removed(channels, counts, scores)
    step = _step(channels, removed)
    fixed = _faults(channels, step, copy, removed)
    pairs = list(zip(channels.groups, counts, strict=True))
    if fixed or not any(count > len(group.classes) for group, count in pairs):
        return Resized(step, fixed=fixed)
    narrowed = Channels(copy, channels.image)
    count_of = {group.key: count for group, count in pairs}
    own = [count_of.get(group.key, len(group.classes)) for group in narrowed.groups]
    order = scores if isinstance(scores, int) else NORMS["l2"]
    wider, not_wider = widen_copy(narrowed, copy, own, _strengths(narrowed, order))
    return Resized(step, wider, not_wider=not_wider)


def _nothing_to_narrow(channels: Channels) -> SettingError:
    reasons = [f"{part.layers[0]}: {part.reason}" for part in channels.fixed]
    return SettingError.because(
        "no width of the network can change",
        got="; ".join(reasons[:3]) or "no layers",
        allowed="a network with channels that only its own layers read",
        remedy="leave its widths as they are",
        argument="model",
    )


def _narrowing(narrowing: BestNarrowing, after: Sequence[int]) -> Narrowing:
    channels, problem, answer = narrowing.channels, narrowing.problem, narrowing.answer
    image = channels.image.shape
    return Narrowing(
        image=(int(image[1]), int(image[2]), int(image[3]))
        if len(image) == 4
        else (int(image[1]), 1, int(image[2])),
        budgets=problem.budgets,
        objective=problem.objective,
        widths=tuple(
            GroupWidth(group.layers, group.width, width)
            for group, width in zip(channels.groups, after, strict=True)
        ),
        fixed=channels.fixed,
        before=problem.amounts(problem.present),
        answer=answer,
        after={} if answer.best is None else answer.best.amounts,
        alike=problem.alike,
        step=narrowing.step,
        wider=narrowing.wider,
    )


# What widths cost


def tensor_forms(channels: Channels) -> tuple[dict[Axis, Form], dict[str, Form]]:
    """Return how many elements tensors have, along each axis that has channels and in all."""
    axes = {axis: _axis_form(axis, channels, channels.groups) for axis in channels.walk.axes}
    names = {*channels.parameters, *(layer.weight for layer in channels.walk.layers)}
    return axes, {name: _tensor_form(name, channels, axes) for name in names}


def written_form(call: LayerCall, channels: Channels) -> Form:
    """Return how many elements a call of a layer writes."""
    members = channels.class_of[call.output]
    linear = {
        index: call.pixels * int(np.isin(members, group.classes).sum()) // len(group.classes)
        for index, group in enumerate(channels.groups)
    }
    linear = {index: factor for index, factor in linear.items() if factor}
    moving = sum(factor * len(channels.groups[index].classes) for index, factor in linear.items())
    return Form(call.pixels * len(members) - moving, linear)


def widths_problem(
    channels: Channels, budgets: Budgets, objective: str, steps: Steps
) -> WidthsProblem:
    """Return the widths of a network as a problem of numbers."""
    groups = channels.groups
    _, weights = tensor_forms(channels)
    layers = [weights[call.weight].scaled(call.macs_per_weight) for call in channels.walk.layers]
    layers.append(Form(channels.other_macs))
    written = [written_form(call, channels) for call in channels.walk.layers]
    return WidthsProblem(
        widths=tuple(steps.width_of(group, channels.can_widen(group)) for group in groups),
        layers=tuple(layer for layer in layers if layer.at([len(g.classes) for g in groups])),
        params=Form.sum(weights[name] for name in channels.parameters),
        activations=Form.sum(written),
        live=_different(live_forms(channels)) if budgets.peak_memory is not None else (),
        budgets=budgets,
        objective=objective,
    )


def _axis_form(axis: Axis, channels: Channels, groups: Sequence[ChannelGroup]) -> Form:
    """Return how many elements of a tensor along an axis there are."""
    linear = {index: group.uses[axis] for index, group in enumerate(groups) if axis in group.uses}
    size = len(channels.walk.axes[axis])
    moving = sum(use * len(groups[index].classes) for index, use in linear.items())
    return Form(size - moving, linear)


def _tensor_form(name: str, channels: Channels, forms: Mapping[Axis, Form]) -> Form:
    """Return how many elements a tensor has."""
    whole = Form(1)
    for axis, size in enumerate(channels.walk.shapes[name]):
        whole = whole.times(forms.get((name, axis), Form(size)))
    return whole


def live_forms(channels: Channels) -> list[Form]:
    """Return the live elements of each step while the network runs."""
    live, per_group = channels.live
    forms = []
    for step, elements in enumerate(live):
        linear = {n: more[step] for n, more in enumerate(per_group) if more[step]}
        moving = sum(more * len(channels.groups[n].classes) for n, more in linear.items())
        forms.append(Form(elements - moving, linear))
    return forms


def _different(forms: Iterable[Form]) -> tuple[Form, ...]:
    """Return forms, each once."""
    return tuple({(form.constant, *form.linear.items()): form for form in forms}.values())


# Which channels stay

Scores = npt.NDArray[np.float64]


def scores_of(importance: Importance, channels: Channels) -> Mapping[str, Scores] | int:
    """Return the numbers of the user for each layer, or the order of a norm.

    Raises: SettingError.
    """
    if isinstance(importance, str) and importance in NORMS:
        return NORMS[importance]
    if isinstance(importance, str) and not Path(importance).suffix:
        choice(importance, "importance", tuple(NORMS))
    by_layer = importance if isinstance(importance, Mapping) else _read_scores(Path(importance))
    widths = {call.name: len(call.output) for call in channels.walk.layers}
    scores = {}
    for name, values in by_layer.items():
        tensor = torch.as_tensor(values)
        if name not in widths or tuple(tensor.shape) != (widths[name],) or tensor.isnan().any():
            raise SettingError.because(
                f"{ARGUMENT} that does not fit the network",
                got=f"{name}: {list(tensor.shape)}{' with NaN' if tensor.isnan().any() else ''}",
                allowed=f"[{widths[name]}] numbers, one for each channel that {name} writes"
                if name in widths
                else f"layers of the network, such as {next(iter(widths), 'none')}",
                remedy="give one number for each channel of each layer that is named",
                argument="importance",
            )
        scores[name] = tensor.detach().to("cpu", torch.float64).numpy()
    return scores


def _read_scores(path: Path) -> Mapping[str, Tensor]:
    """Return the numbers of a CSV file with the columns layer, channel and importance."""
    columns = ["layer", "channel", "importance"]
    rows: dict[str, dict[int, float]] = {}
    try:
        table = read_csv(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, reason(error), columns) from None
    for line, row in table.rows:
        try:
            rows.setdefault(row["layer"], {})[int(row["channel"])] = float(row["importance"])
        except (KeyError, ValueError):
            raise _unreadable(path, f"line {line}", columns) from None
    if not rows:
        raise _unreadable(path, "no line with a number", columns)
    scores = {}
    for name, values in rows.items():
        if sorted(values) != list(range(len(values))):
            raise _unreadable(path, f"{name} without all of its channels", columns)
        scores[name] = torch.tensor([values[index] for index in range(len(values))])
    return scores


def _unreadable(path: Path, got: str, columns: Sequence[str]) -> SettingError:
    return SettingError.because(
        f"{ARGUMENT} that cannot be read",
        got=f"{path}: {got}",
        allowed=f"a CSV file with the columns {', '.join(columns)}, channels from 0 on",
        remedy="write a line for each channel",
        argument="importance",
    )


def _removed(
    channels: Channels, counts: Sequence[int], scores: Mapping[str, Scores] | int
) -> list[int]:
    """Return the classes that go: of each group the weakest, of equal ones the last."""
    strengths = _strengths(channels, scores)
    removed: list[int] = []
    for group, count in zip(channels.groups, counts, strict=True):
        order = np.argsort(-strengths[group.classes], kind="stable")
        removed += group.classes[order[count:]].tolist()
    return removed


def _strengths(channels: Channels, scores: Mapping[str, Scores] | int) -> Scores:
    """Return for each class how strong its channels are.

    By the norm of all weights that write them; where the user has numbers for a layer of the class,
    by their sum.
    """
    power = scores if isinstance(scores, int) else NORMS["l2"]
    size = int(channels.class_of.max()) + 1
    norms, own, has_own = np.zeros(size), np.zeros(size), np.zeros(size, bool)
    for (name, axis), layer in channels.writers.items():
        classes = channels.class_of[channels.walk.axes[name, axis]]
        tensor = channels.tensor(name).detach()
        if not tensor.is_meta:
            others = [other for other in range(tensor.dim()) if other != axis]
            weights = tensor.to(torch.float64).abs().pow(power).sum(others)
            np.add.at(norms, classes, weights.cpu().numpy())
        if not isinstance(scores, int) and layer in scores:
            output = next(call.output for call in channels.walk.layers if call.name == layer)
            np.add.at(own, channels.class_of[output], scores[layer])
            has_own[channels.class_of[output]] = True
    return np.where(has_own, own, norms)


# The network that comes out


def _step(channels: Channels, removed: Sequence[int]) -> Narrow:
    """Return the step that removes classes of channels."""
    kept = channels.kept_ids(removed)
    masks = [(name, axis, kept[ids]) for (name, axis), ids in channels.walk.axes.items()]
    numbers = {}
    for attribute in channels.walk.attributes:
        left, count = int(kept[attribute.ids].sum()), len(attribute.ids)
        value = left if attribute.groups is None else attribute.groups * left // count
        old = attribute.groups or count
        if value != old:
            numbers[attribute.module, attribute.name] = value
    changed = [ChangedNumber(module, name, value) for (module, name), value in numbers.items()]
    return Narrow.of(masks, changed)


def _faults(
    channels: Channels, step: Narrow, copy: nn.Module, removed: Sequence[int]
) -> dict[int, str]:
    """Apply a step to a copy; return the feature maps whose channels must stay, and why.

    None where the copy runs the same operators on the channels that are left.
    """
    step.apply(copy)
    try:
        narrowed = Channels(copy, channels.image)
    except SettingError as error:
        return _culprits(channels, error)
    wrong = channels.mismatch(narrowed, removed)
    fixed: dict[int, str] = {}
    for index in wrong[:1]:
        node = channels.nodes[index]
        place = f" in {node.scope}" if node.scope else ""
        for member in (index, *node.parents):
            fixed[member] = f"a number of channels that stands in the code{place}"
    return fixed


def _culprits(channels: Channels, error: SettingError) -> dict[int, str]:
    """Return the feature maps of the groups without which the network does not run.

    Raises: the error itself where each group can be narrowed alone.
    """
    fixed: dict[int, str] = {}
    for group in channels.groups:
        copy = copy_of_network(channels.model)
        members = group.classes[: max(1, len(group.classes) // 2)]
        _step(channels, members.tolist()).apply(copy)
        copy.eval()
        try:
            with torch.no_grad():
                copy(channels.image)
        except Exception as reason:
            text = str(reason).strip().splitlines()
            for node in channels.nodes_of(group):
                fixed[node] = f"without some of them: {text[0] if text else 'an error'}"
    if not fixed:
        raise error
    return fixed
