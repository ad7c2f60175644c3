"""Replace the standard convolutions of a network by blocks: one block, the cheapest, or the best.

A layer that can be replaced is a plain 3 x 3 `nn.Conv2d` that keeps the spatial size or halves it;
blocks without a spatial kind can also replace a pointwise convolution. Counts include the batch
norm and the biases that a block brings, and odd spatial sizes before a stride as they are.

Reference: [3DRF] section 4.2 and [IF], kernel-level decomposer; the budgets are beyond the papers.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from ifspace.answer import Answer
from ifspace.block import Block, SizedBlock
from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.floors import NO_FLOORS, Floors, ParamsRange, leaves_nothing
from ifspace.groups.full_field import ranked_blocks
from ifspace.latency import Latency, LatencySource
from ifspace.memory import Schedule
from ifspace.models.edits import EditedNetwork
from ifspace.models.graph import ImageSize, LiveSchedule, Size, Trace, TracedLayer
from ifspace.models.surgery import Replace, copy_of_network
from ifspace.models.tracing import Image, checked_model, evaluated
from ifspace.models.tracing import trace as traced
from ifspace.models.warm_start import Fit, fit_blocks, random_images
from ifspace.nn.block import BlockModule, Style, block_style
from ifspace.nn.checks import check_seed, wrong_type
from ifspace.nn.network import seeded
from ifspace.reach import field_after
from ifspace.stages.problem import CHEAPEST, budgets_error
from ifspace.stages.problem import Blocks as Blocks
from ifspace.stages.problem import Budgets as Budgets
from ifspace.stages.replacement import (
    BOUNDED,
    ORDERS,
    PEAK_MEMORY,
    Amount,
    Objective,
    Option,
    ReplacementPlan,
    ReplacementProblem,
    Site,
    best_replacement,
)
from ifspace.values import choice, set_fields, whole_number

LEAST_CHANNELS: Final = 16
# A block that can replace a pointwise convolution.
_NO_KERNEL: Final = "GPW(8)+SH(8)+GPW(8)"
# (side in pixels, channels) of what one output sees.
FieldSize = tuple[int, int]
_BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, slots=True)
class Layers:
    """Which layers may be replaced: those of these names, or else those with enough channels.

    `names`: one name or several; None for all plain 3 x 3 convolutions that read `least_channels`
    or more.

    >>> Layers("layer1.0.conv1").names
    ('layer1.0.conv1',)

    Raises: SettingError for no name at all, or channels that are no whole number from 1.
    """

    names: Iterable[str] | None = None
    least_channels: int = LEAST_CHANNELS

    def __post_init__(self) -> None:
        names = (self.names,) if isinstance(self.names, str) else self.names
        set_fields(
            self,
            names=None if names is None else tuple(names),
            least_channels=whole_number(self.least_channels, "least_channels"),
        )
        if self.names == ():
            raise SettingError.because(
                "no layer named",
                got="no names",
                allowed="one or more layers of the network",
                remedy=f"leave {ARGUMENT} out for all 3 x 3 convolutions",
                argument="names",
            )


@dataclass(frozen=True, slots=True)
class Search:
    """What decides between blocks where a layer may keep its convolution or become one of several.

    `objective`: "keep" replaces as few layers as possible; "params", "macs" and "latency_ms"
    minimise that amount. None is "keep" with a budget and "params" without. `latency`: the
    measured latencies of blocks and convolutions, which stand there as CONV. `floors` hold for
    every block; convolutions that none fits stay.

    Raises: SettingError for another objective.
    """

    objective: str | None = None
    latency: LatencySource | None = None
    time_limit_s: float | None = None
    floors: Floors = NO_FLOORS

    def __post_init__(self) -> None:
        choice(self.objective, "objective", (*ORDERS, None))

    def objective_within(self, budgets: Budgets) -> Objective:
        """Return the objective under budgets."""
        default = "keep" if budgets.limits else "params"
        return cast(Objective, self.objective or default)


@dataclass(frozen=True, slots=True)
class ReplaceableConv:
    """A convolution that a block can replace: its layer, and the sizes of each call.

    `calls`: (H, W) of the feature maps that each call reads and writes. `normed`: whether a batch
    norm reads what it writes.
    """

    layer: TracedLayer
    calls: tuple[tuple[Size, Size], ...]
    normed: bool

    @property
    def name(self) -> str:
        """The full name of its module."""
        return self.layer.name

    @property
    def stride(self) -> int:
        """The stride in pixels, the same down and across."""
        return self.layer.stride[0]

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.layer.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all calls for one image."""
        layer = self.layer
        per_pixel = layer.macs // (layer.size_out[0] * layer.size_out[1])
        return sum(per_pixel * height * width for _, (height, width) in self.calls)

    @property
    def default_style(self) -> Style:
        """The style of a block that leaves to the network what follows it.

        Batch norm inside the block if the network has one behind the convolution, a bias at its end
        if the convolution has one, no activation.
        """
        return Style(
            self.normed,
            activation=None,
            bias=self.layer.bias,
            batch_norm_where="between",
            bias_where="last",
        )


@dataclass(frozen=True, slots=True)
class Skipped:
    """A convolution that stays, and why.

    `least_channels`: with which a block could replace it, where it has too few channels.
    `misfits`: whether another block could.
    """

    name: str
    reason: str
    least_channels: int | None = None
    misfits: bool = False


@dataclass(frozen=True, slots=True)
class Replacement:
    """A convolution and the block that replaces it, with amounts before and after.

    `params` include biases and batch norm inside the block; `macs` are of one image; `fields` are
    (side, channels) of what one output sees. `peaks`: the most elements that are live at once in
    the network while the layer runs, before and after; 0 where that is not known. `latencies`: of
    all calls of the layer and of the block, alone; None where one is not known.
    """

    step: Replace
    params: tuple[int, int]
    macs: tuple[int, int]
    fields: tuple[FieldSize, FieldSize]
    peaks: tuple[int, int] = (0, 0)
    latencies: tuple[Latency | None, Latency | None] = (None, None)

    @property
    def name(self) -> str:
        """The full name of the convolution."""
        return self.step.name

    @property
    def sized(self) -> SizedBlock:
        """The block at its widths."""
        return self.step.sized

    @property
    def sees_less(self) -> bool:
        """Whether the block lacks the full field of the convolution."""
        return any(after < before for before, after in zip(*self.fields, strict=True))


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The plan of a decomposed network: what is replaced, what stays and why, totals before, after.

    `answer`: how the search under `budgets` ended, None without a search; the budgets are of the
    whole network, that of the latency of the chosen layers. If nothing keeps them, nothing is
    replaced, and `least` has the least possible value of each bounded amount. `pointwise` and
    `grouped` count the convolutions that are 1 x 1, or grouped or depthwise, already.
    `peaks`: the peak memory in elements before and after; None where the trace does not say.
    `weight_norms`: by the name of a layer what computes its weights from others, such as weight
    norm.
    `within_floors` says, of a search with floors, what they leave. `least_channels`: with which a
    convolution may be replaced. `peak_stays_at`: the call that needs more memory than the budget
    whatever the blocks are; empty without one.
    """

    replaced: tuple[Replacement, ...]
    skipped: tuple[Skipped, ...]
    params: tuple[int, int]
    macs: tuple[int, int]
    budgets: Budgets = Budgets()  # noqa: RUF009 - a frozen value
    answer: Answer[ReplacementPlan] | None = None
    least: Mapping[str, Amount] = field(default_factory=dict)
    pointwise: int = 0
    grouped: int = 0
    peaks: tuple[int, int] | None = None
    within_floors: str = ""
    least_channels: int = LEAST_CHANNELS
    peak_stays_at: str = ""
    weight_norms: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What goes with the convolutions that are replaced, and is not carried over."""
        names_of: dict[str, list[str]] = {}
        for replacement in self.replaced:
            if replacement.name in self.weight_norms:
                names_of.setdefault(self.weight_norms[replacement.name], []).append(
                    replacement.name
                )
        return tuple(
            f"{norm} of {_listed(names)} goes with what is replaced: blocks have plain weights"
            for norm, names in names_of.items()
        )

    @property
    def steps(self) -> tuple[Replace, ...]:
        """The steps on the network."""
        return tuple(replacement.step for replacement in self.replaced)

    @property
    def timed(self) -> tuple[Replacement, ...]:
        """The replacements whose latencies are known both before and after."""
        return tuple(x for x in self.replaced if None not in x.latencies)

    @property
    def replaced_latencies(self) -> tuple[Latency, Latency] | None:
        """What the convolutions that are `timed` and their blocks take in all, layer by layer.

        None where no latency is known; the forms are those of no block.
        """
        pairs = [x.latencies for x in self.timed]
        if not pairs:
            return None
        before, after = (
            Latency(
                sum((time.ms for time in times if time is not None), Fraction(0)),
                extrapolated=any(time is not None and time.extrapolated for time in times),
            )
            for times in zip(*pairs, strict=True)
        )
        return before, after

    @property
    def kept(self) -> tuple[str, ...]:
        """The convolutions that a block fits and that the best choice keeps all the same."""
        if self.answer is None or self.answer.best is None:
            return ()
        replaced = {replacement.name for replacement in self.replaced}
        sites = self.answer.best.problem.sites
        return tuple(site.name for site in sites if site.name not in replaced)

    @property
    def is_solved(self) -> bool:
        """Whether there is a choice within the budgets, if any were given."""
        return self.answer is None or self.answer.best is not None

    @property
    def has_candidates(self) -> bool:
        """Whether any convolution can be replaced."""
        return self.answer is not None or bool(self.replaced)

    def check(self) -> None:
        """Check that the plan does what it is for.

        Raises: SettingError if no convolution can be replaced, nothing keeps the budgets, or the
            time limit came first.
        """
        if not self.has_candidates:
            remedies = self._remedies()
            misfits = any(conv.misfits for conv in self.skipped)
            others = f"name 1 x 1 convolutions, for a block such as {_NO_KERNEL}"
            if not self.pointwise:
                others = "leave the blocks out: stages can be reorganized alone"
            raise SettingError.because(
                "no convolution to replace",
                got=self._reasons_text() or "no convolution in the network",
                allowed=f"3×3 convolutions of one group that read at least {self.least_channels} "
                f"channels{' and that a block fits' if misfits else ''}",
                remedy=", or ".join(remedies) or others,
                argument="least_channels" if ARGUMENT in "".join(remedies) else None,
            )
        if not self.is_solved:
            raise self.budgets_error()

    def budgets_error(
        self, remedy: str = "raise a budget, or offer cheaper blocks"
    ) -> SettingError:
        """Return the error of a plan that is not solved."""
        assert self.answer is not None
        limits = self.budgets.limits
        return budgets_error("choice of blocks", self.answer, limits, remedy, self.least)

    def _remedies(self) -> tuple[str, ...]:
        """Return what would let a block replace any of the convolutions."""
        widths = [conv.least_channels for conv in self.skipped if conv.least_channels is not None]
        return (
            *([f"accept fewer channels: {ARGUMENT} {max(widths)}"] if widths else []),
            *(["offer another block"] if any(conv.misfits for conv in self.skipped) else []),
        )

    def _reasons_text(self) -> str:
        """Return the most frequent reasons why convolutions stay, with names or how many."""
        names_of: dict[str, list[str]] = {}
        for conv in self.skipped:
            names_of.setdefault(conv.reason, []).append(conv.name)
        frequent = sorted(names_of.items(), key=lambda item: -len(item[1]))[:2]
        layers = [f"{_listed(names)}: {reason}" for reason, names in frequent]
        remaining = len(self.skipped) - sum(len(names) for _, names in frequent)
        layers += [f"{remaining} more"] if remaining else []
        layers += [
            f"{count} are {state} already"
            for count, state in (
                (self.pointwise, "1 x 1"),
                (self.grouped, "grouped or depthwise"),
            )
            if count
        ]
        return "; ".join(layers)


def _listed(names: Sequence[str]) -> str:
    """Return the name of the only layer, or how many there are."""
    return names[0] if len(names) == 1 else f"{len(names)} layers"


@dataclass(frozen=True, slots=True, eq=False)
class DecomposedNetwork(EditedNetwork):
    """A network with blocks, the plan that it follows, and the fits of a warm start, if any."""

    plan: Decomposition
    fits: tuple[Fit, ...] = ()


def decompose(
    network: nn.Module | EditedNetwork,
    x: Image,
    blocks: Blocks = Blocks(CHEAPEST),  # noqa: B008 - a frozen value
    budgets: Budgets = Budgets(),  # noqa: B008 - a frozen value
    layers: Layers = Layers(),
    search: Search = Search(),
    *,
    style: Style | str | None = None,
    warm_start: Tensor | bool | None = None,
    seed: int = 0,
) -> DecomposedNetwork:
    """Return a copy of a network with its standard convolutions replaced by blocks, and the plan.

    `x`: an image [N, C, H, W], or its size (C, H, W). `warm_start`: images [N, C, H, W] on which
    each block is fitted to the convolution that it replaces, or True for images of noise. The
    weights of blocks are drawn from the seed. The other arguments are those of
    `plan_decomposition`, which says what they choose.

    >>> model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1))
    >>> final = decompose(model, (3, 8, 8), Blocks("DW+PW"))
    >>> final.model[1].layer1
    Conv2d(16, 32, kernel_size=(1, 1), stride=(1, 1))
    >>> final.plan.params
    (5088, 1136)

    Raises: SettingError if no convolution can be replaced, or nothing keeps the budgets; and as
        `plan_decomposition`, `ifspace.models.trace` and `fit_blocks` do.
    """
    edited = EditedNetwork.of(network)
    model = checked_model(edited.model)
    check_seed(seed)
    trace = traced(model, x)
    plan = plan_decomposition(edited, trace, blocks, budgets, layers, search, style)
    plan.check()
    images = None if isinstance(warm_start, bool) else warm_start
    if warm_start is True:
        count = len(x) if isinstance(x, Tensor) and x.dim() == 4 else 1
        images = random_images(trace.image, seed, next(model.parameters()), count)
    return apply_decomposition(edited, plan, trace.image, images, seed)


def plan_decomposition(
    network: nn.Module | EditedNetwork,
    trace: Trace,
    blocks: Blocks = Blocks(CHEAPEST),  # noqa: B008 - a frozen value
    budgets: Budgets = Budgets(),  # noqa: B008 - a frozen value
    layers: Layers = Layers(),
    search: Search = Search(),
    style: Style | str | None = None,
) -> Decomposition:
    """Return which convolutions of a traced network become which block; nothing is changed.

    Each of the `layers` becomes that of the `blocks` that fits its widths and has the
    fewest parameters (objective "macs": MACs); `Blocks("cheapest")` offers all blocks with the full
    field of the convolution. With a budget each layer keeps its convolution or becomes one of these
    blocks, as the `search` decides. `params` and `macs` are budgets of the whole network;
    `latency_ms` is that of the chosen layers together.

    `style`: of all blocks. By default batch norm follows each layer of a block but the last if the
    network has one behind the convolution, the last layer has a bias if the convolution has one,
    and there is no activation inside.

    Raises: SettingError for arguments that do not go together, or a name that no block can replace.
    """
    _check_types(blocks, budgets, layers, search)
    objective, latency = search.objective_within(budgets), search.latency
    timed = budgets.latency_ms is not None or objective == "latency_ms"
    if timed and latency is None:
        raise SettingError.because(
            "nothing says how long the blocks take",
            got=f"no {ARGUMENT}",
            allowed='latencies beside a budget or the objective "latency_ms"',
            remedy=f"give {ARGUMENT} too",
            argument="latency",
        )
    budgets.check(BOUNDED)
    model = EditedNetwork.of(network).model
    fixed = blocks.fixed
    no_spatial = fixed is None or not any(
        layer.conv.spatial for block in fixed for layer in block.layers
    )
    live = trace.live
    if live is None and (budgets.peak_memory is not None or objective == PEAK_MEMORY):
        raise unknown_peak(trace.notes)
    convs, skipped = replaceable_convs(model, trace, layers, no_spatial)
    block_style_ = None if style is None else block_style(style)
    options: dict[ReplaceableConv, tuple[Replacement, ...]] = {}
    for conv in convs:
        replacements, reason = _replacements(
            conv, fixed, block_style_, objective, live, search.floors, latency
        )
        if replacements:
            options[conv] = replacements
        else:
            skipped.append(Skipped(conv.name, reason, misfits=True))
    if search.floors and not options:
        _check_floors(
            convs,
            search.floors,
            lambda conv, floors: bool(
                _replacements(conv, fixed, block_style_, objective, live, floors, latency)[0]
            ),
        )
    convolutions = [
        layer for layer in trace.all_layers if layer.conv.writes and not layer.is_linear
    ]
    plan = Decomposition(
        tuple(replacements[0] for replacements in options.values()),
        tuple(skipped),
        (trace.params,) * 2,
        (trace.macs,) * 2,
        budgets,
        pointwise=len({c.name for c in convolutions if c.conv.dense and not c.conv.spatial}),
        grouped=len({c.name for c in convolutions if not c.conv.dense}),
        weight_norms={
            conv.name: norm for conv in options if (norm := weight_norm(model, conv.name))
        },
        within_floors=_within_floors(trace, convs, options, search.floors),
        least_channels=layers.least_channels,
    )
    if options and (budgets.limits or timed or objective == PEAK_MEMORY):
        plan = _best_choice(plan, options, objective, search.time_limit_s, live)
    return replace(
        plan,
        peaks=None if live is None else (live.peak, _peak_after(plan, live)),
        params=(trace.params, trace.params + _change(plan, "params")),
        macs=(trace.macs, trace.macs + _change(plan, "macs")),
    )


def unknown_peak(notes: Sequence[str]) -> SettingError:
    """Return the error of a network whose peak memory is asked for and not known."""
    return SettingError.because(
        "peak memory of a network whose branches are not seen",
        got=notes[0] if notes else "a trace by hooks",
        allowed="networks that torch.export can write down",
        remedy=f"leave {ARGUMENT} out, or optimize a part of the network",
        argument=PEAK_MEMORY,
    )


def _check_floors(
    convs: Sequence[ReplaceableConv],
    floors: Floors,
    fits: Callable[[ReplaceableConv, Floors], bool],
) -> None:
    """Check that it is not floors that leave every convolution without a block.

    Raises: SettingError when it is: which of them, and the nearest that works.
    """

    def works(other: Floors) -> bool:
        return any(fits(conv, other) for conv in convs)

    if works(NO_FLOORS):
        raise leaves_nothing(floors, works, [conv.layer.c_in for conv in convs], "for any layer")


def _within_floors(
    trace: Trace,
    convs: Sequence[ReplaceableConv],
    options: Mapping[ReplaceableConv, Sequence[Replacement]],
    floors: Floors,
) -> str:
    """Return how many convolutions have a block within floors, and what parameters they allow.

    From each with its smallest block to each with its largest, or itself where that is larger.
    """
    if not floors:
        return ""
    changes = [
        [after - before for before, after in (replacement.params for replacement in replacements)]
        for replacements in options.values()
    ]
    least = trace.params + sum(map(min, changes))
    most = trace.params + sum(max(0, *change) for change in changes)
    return (
        f"{len(options)} of {len(convs)} layers have a block with {floors}: "
        f"{ParamsRange(least, most)}"
    )


def _check_types(blocks: Any, budgets: Any, layers: Any, search: Any) -> None:
    for name, value, kind, example in (
        ("blocks", blocks, Blocks, 'Blocks("DW+PW")'),
        ("budgets", budgets, Budgets, 'Budgets(params="1M")'),
        ("layers", layers, Layers, 'Layers("layer1.0.conv1")'),
        ("search", search, Search, 'Search("params")'),
    ):
        if not isinstance(value, kind):
            raise wrong_type(name, value, kind.__name__, f"write {example}")


def apply_decomposition(
    network: nn.Module | EditedNetwork,
    plan: Decomposition,
    image: ImageSize,
    images: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DecomposedNetwork:
    """Return a copy of a network changed as planned, its blocks fitted on `images` if given.

    Raises: SettingError for a plan of another network; and as `fit_blocks` does.
    """
    base = EditedNetwork.of(network)
    copy = EditedNetwork(copy_of_network(base.model), base.edits)
    with seeded(seed, next((tensor.device for tensor in base.model.parameters()), None)):
        changed = copy.apply(*plan.steps)
    fits: tuple[Fit, ...] = ()
    if images is not None:
        names = [replacement.name for replacement in plan.replaced]
        fits = fit_blocks(base.model, changed.model, names, images, seed, progress)
    return DecomposedNetwork(changed.model, changed.edits.for_image(image), plan, fits)


# ------------------------------------------------------------------ which layers can be replaced


def replaceable_convs(
    model: nn.Module,
    trace: Trace,
    layers: Layers = Layers(),
    pointwise: bool = False,
) -> tuple[tuple[ReplaceableConv, ...], list[Skipped]]:
    """Return the layers to replace, in the order in which they run, and the other convolutions.

    `pointwise`: whether pointwise convolutions may be named too.

    Raises: SettingError for a name that is no layer, or of a layer that no block can replace.
    """
    calls_of: dict[str, list[TracedLayer]] = {}
    for layer in trace.all_layers:
        calls_of.setdefault(layer.name, []).append(layer)
    chosen: list[TracedLayer] = []
    skipped: list[Skipped] = []
    names, least_channels = layers.names, layers.least_channels
    named = _checked_names(set(names or ()), calls_of)
    for name, calls in calls_of.items():
        layer = max(calls, key=lambda call: call.params)  # one of several calls counts the weights
        reason = why_not(model, layer, pointwise and name in named)
        if name in named and reason:
            raise SettingError.because(
                "no block can replace this layer",
                got=f"{name} ({reason})",
                allowed="3 x 3 convolutions of stride 1 or 2, and 1 x 1 ones for blocks without a "
                "spatial kind",
                remedy=f"leave it out of {ARGUMENT}",
                argument="names",
            )
        if name in named or (names is None and not reason and layer.c_in >= least_channels):
            chosen.append(layer)
        elif names is None and layer.conv.spatial and layer.conv.dense:
            few = f"{layer.c_in} input channels, fewer than {least_channels}"
            # A block that reads the image saves next to nothing.
            helps = not reason and layer.c_in > trace.image[0]
            skipped.append(Skipped(name, reason or few, layer.c_in if helps else None))
    normed = _followed_by_norm(model, [layer.name for layer in chosen], trace.image)
    return tuple(
        ReplaceableConv(
            layer,
            tuple((call.size_in, call.size_out) for call in calls_of[layer.name]),
            layer.name in normed,
        )
        for layer in chosen
    ), skipped


def why_not(model: nn.Module, layer: TracedLayer, pointwise: bool = False) -> str:
    """Return why no block can replace a layer; an empty text if one can."""
    if not layer.name:
        return "the network itself"
    conv: Any = model.get_submodule(layer.name)
    if layer.is_linear or not layer.conv.dense:
        return f"a layer of kind {layer.kind}"
    spatial = layer.conv.spatial
    if not spatial and isinstance(conv, nn.Conv2d) and not pointwise:
        return "a pointwise convolution, and the block has a spatial kind"
    kernel, padding = ((3, 3), (1, 1)) if spatial else ((1, 1), (0, 0))
    if type(conv) is not nn.Conv2d and not _computes_conv2d(conv):
        return f"{type(conv).__name__}, not a plain nn.Conv2d"
    for setting, value, allowed in (
        ("kernel", conv.kernel_size, (kernel,)),
        ("dilation", conv.dilation, ((1, 1),)),
        ("stride", conv.stride, ((1, 1), (2, 2)) if spatial else ((1, 1),)),
        ("padding", conv.padding, (padding, "same") if conv.stride == (1, 1) else (padding,)),
    ):
        if value not in allowed:
            return f"{setting} {value if isinstance(value, str) else ' x '.join(map(str, value))}"
    if conv.padding_mode != "zeros":
        return f"padding of {conv.padding_mode}"
    return _shared_weights(model, conv)


def _computes_conv2d(module: Any) -> bool:
    """Return whether a subclass computes what nn.Conv2d does, from weights of its own."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and all(map(_is_norm_of_weights, _parametrizations(module)))
    )


def _parametrizations(module: nn.Module) -> list[nn.Module]:
    """Return what computes the weights of a module from others; nothing in most."""
    if not is_parametrized(module):
        return []
    lists: Any = module.parametrizations
    return [part for parts in lists.children() for part in parts]


def weight_norm(model: nn.Module, name: str) -> str:
    """Return what computes the weights of a module from others, as torch calls it; "" in most.

    >>> weight_norm(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3))), "0")
    'weight norm'
    """
    module = model.get_submodule(name)
    hooks = [
        hook
        for hook in module._forward_pre_hooks.values()
        if type(hook).__module__.startswith("torch.nn.utils.")
    ]
    kinds = {type(part).__name__.strip("_") for part in (*hooks, *_parametrizations(module))}
    words = (re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower() for kind in sorted(kinds))
    return " and ".join(words)


def _is_norm_of_weights(part: nn.Module) -> bool:
    """Return whether it is one of torch's, such as weight norm: a block needs none of them."""
    return type(part).__module__ == nn.utils.parametrizations.__name__


def _shared_weights(model: nn.Module, conv: nn.Conv2d) -> str:
    weights = {id(tensor) for tensor in conv.parameters()}
    for name, module in model.named_modules():
        own = module.parameters(recurse=False)
        if module not in set(conv.modules()) and any(id(tensor) in weights for tensor in own):
            return f"weights shared with {name}"
    return ""


def _checked_names(names: set[str], calls_of: Mapping[str, Any]) -> set[str]:
    if unknown := sorted(map(str, names - calls_of.keys())):
        raise SettingError.because(
            "no such layer in the network",
            got=", ".join(map(repr, unknown)),
            allowed=", ".join(get_close_matches(unknown[0], map(str, calls_of), 3))
            or f"{len(calls_of)} layers such as {next(iter(calls_of))}",
            remedy="`ifspace analyze --every-layer` lists them",
            argument="names",
        )
    return names


def _followed_by_norm(model: nn.Module, names: list[str], image: ImageSize) -> frozenset[str]:
    """Return which convolutions write what a batch norm reads, by a run on shapes alone."""
    if not names:
        return frozenset()
    normed: set[str] = set()
    written: dict[int, tuple[str, Any]] = {}  # with the tensors: no other may take over their id

    def record_output(name: str) -> Any:
        def hook(_: nn.Module, __: Any, y: Any) -> None:
            written[id(y)] = name, y

        return hook

    def record_norm(_: nn.Module, inputs: Any) -> None:
        if inputs and id(inputs[0]) in written:
            normed.add(written[id(inputs[0])][0])

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [model.get_submodule(name).register_forward_hook(record_output(name)) for name in names]
    hooks += [norm.register_forward_pre_hook(record_norm) for norm in norms]
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    dtypes = (tensor.dtype for tensor in shapes.values() if tensor.is_floating_point())
    try:
        with evaluated(model), torch.device("meta"):
            functional_call(model, shapes, (torch.empty(2, *image, dtype=next(dtypes, None)),))
    except Exception:
        # A forward that needs values: what follows in the module tree is taken.
        return _followed_by_norm_in_order(model, names)
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(normed)


def _followed_by_norm_in_order(model: nn.Module, names: list[str]) -> frozenset[str]:
    leaves = [
        (name, module) for name, module in model.named_modules() if not any(module.children())
    ]
    return frozenset(
        name
        for (name, conv), (_, norm) in pairwise(leaves)
        if name in names
        and isinstance(norm, _BatchNorm)
        and norm.num_features == getattr(conv, "out_channels", None)
    )


# ------------------------------------------------------------------ which block replaces a layer


def _replacements(
    conv: ReplaceableConv,
    blocks: Sequence[Block] | None,
    style: Style | None,
    objective: str,
    live: LiveSchedule | None,
    floors: Floors,
    latency: LatencySource | None,
) -> tuple[tuple[Replacement, ...], str]:
    """Return what each block makes of a convolution, cheapest first; and why one does not fit.

    The cheapest by MACs if those are the objective, else by parameters. `blocks` None stands for
    all with the full field of the convolution.
    """
    layer = conv.layer
    by: Literal["params", "macs"] = "macs" if objective == "macs" else "params"
    full_field = blocks is None
    if blocks is None:
        side = layer.size_in[0] if layer.size_in[0] == layer.size_in[1] else None
        stride: Literal[1, 2] = 2 if conv.stride == 2 else 1
        plans = ranked_blocks(
            layer.c_in, layer.c_out, layer.kernel[0], stride, side, by, floors=floors
        )
        blocks = [plan.block for plan in plans]
    replacements, reasons = [], []
    peaks = _Peaks(conv, live)
    original = Block.parse(layer.kind).at(layer.c_in, layer.c_out)
    before = None if latency is None else _latency(conv, original, latency)
    for block in blocks:
        try:
            replacement = _replacement(conv, block, style, peaks)
            after = None if latency is None else _latency(conv, replacement.sized, latency)
            if replacement.sized.meets(floors):
                replacements.append(replace(replacement, latencies=(before, after)))
            else:
                reasons.append(f"{block}: not with {floors}")
        except IfspaceError as error:
            reasons.append(f"{block}: " + str(error).partition("; ")[0])
    # Batch norm and biases count too: a block with more layers has more of them.
    replacements.sort(key=lambda option: getattr(option, by)[1])
    none_left = "no block with its full field" if full_field else "no block"
    none_left += f" and {floors}" if floors else ""
    return tuple(replacements), "; ".join(reasons) or none_left


def _replacement(
    conv: ReplaceableConv, block: Block, style: Style | None, peaks: "_Peaks"
) -> Replacement:
    """Return what a block makes of a convolution. Raises: IfspaceError if it does not fit."""
    sized = block.at(conv.layer.c_in, conv.layer.c_out)
    step = Replace(conv.name, sized, conv.stride, style or conv.default_style)
    BlockModule(sized, step.stride, step.style, device="meta")  # raises what does not fit
    macs = sum(step.macs(*sizes) for sizes in conv.calls)
    fields = (conv.layer.kernel[0], conv.layer.c_in), field_after(sized)[-1]
    amounts = (conv.params, step.params), (conv.macs, macs)
    return Replacement(step, *amounts, fields, (peaks.before, peaks.after(step)))


class _Peaks:
    """The most elements that are live at once in the network while a convolution runs."""

    def __init__(self, conv: ReplaceableConv, live: LiveSchedule | None) -> None:
        self.conv, self.live = conv, live
        self.before = 0
        if live is not None:
            elements = live.schedule.live()
            self.before = max(elements[index] for index in live.steps_of(conv.name))
        # Blocks of the same widths need as much, whatever their groups.
        self._after: dict[tuple[Schedule, ...], int] = {}

    def after(self, step: Replace) -> int:
        """Return the same with a block in its place."""
        if self.live is None:
            return 0
        chains = tuple(
            step.sized.schedule(size_in, step.stride, step.style.shortcut)
            for size_in, _ in self.conv.calls
        )
        if chains not in self._after:
            self._after[chains] = self.live.peak_with(self.conv.name, chains)
        return self._after[chains]


def _best_choice(
    plan: Decomposition,
    options: Mapping[ReplaceableConv, tuple[Replacement, ...]],
    objective: Objective,
    time_limit_s: float | None,
    live: LiveSchedule | None,
) -> Decomposition:
    """Return the plan with the best choice within its budgets."""
    # What the rest of the network has is not to be chosen.
    fixed_amounts: dict[str, Amount] = {
        "params": plan.params[0] - sum(conv.params for conv in options),
        "macs": plan.macs[0] - sum(conv.macs for conv in options),
    }
    limits: dict[str, Any] = {
        name: limit - fixed_amounts.get(name, 0) for name, limit in plan.budgets.limits.items()
    }
    sites = tuple(_site(conv, replacements) for conv, replacements in options.items())
    names = {conv.name for conv in options}
    rest = 0 if live is None else live.peak_without(names)
    most = plan.budgets.peak_elements
    stays = live is not None and most is not None and rest > most
    budgets = Budgets(**limits, dtype=plan.budgets.dtype)
    answer = best_replacement(ReplacementProblem(sites, budgets, objective, rest), time_limit_s)
    chosen = (0,) * len(sites) if answer.best is None else answer.best.chosen
    return replace(
        plan,
        # The first option of a site keeps the layer.
        replaced=tuple(
            replacements[index - 1]
            for index, replacements in zip(chosen, options.values(), strict=True)
            if index
        ),
        answer=answer,
        least={name: value + fixed_amounts.get(name, 0) for name, value in answer.least.items()},
        peak_stays_at=str(live.peak_call_without(names)) if live is not None and stays else "",
    )


def _site(conv: ReplaceableConv, replacements: Sequence[Replacement]) -> Site:
    """Return a site of a replacement problem: the layer as it is, then what it may become."""
    (before, _), (peak, _) = replacements[0].latencies, replacements[0].peaks
    options = [
        Option(
            None, conv.params, conv.macs, None if before is None else before.ms, conv.stride, peak
        )
    ]
    for replacement in replacements:
        (_, params), (_, macs), sized = replacement.params, replacement.macs, replacement.sized
        (_, after), (_, peak) = replacement.latencies, replacement.peaks
        options.append(
            Option(sized, params, macs, None if after is None else after.ms, conv.stride, peak)
        )
    return Site(conv.name, tuple(options))


def _latency(conv: ReplaceableConv, sized: SizedBlock, source: LatencySource) -> Latency | None:
    """Return the latency of all calls together, None if that of one is not known."""
    total = Latency(Fraction(0))
    for _, (height, width) in conv.calls:
        time = source.find(sized, height, conv.stride) if height == width else None
        if time is None:
            return None
        extrapolated = total.extrapolated or time.extrapolated
        total = Latency(total.ms + time.ms, time.form, extrapolated)
    return total


def _peak_after(plan: Decomposition, live: LiveSchedule) -> int:
    """Return the peak memory of the network with the replacements of a plan, in elements."""
    names = {replacement.name for replacement in plan.replaced}
    return max(live.peak_without(names), *(x.peaks[1] for x in plan.replaced), 0)


def _change(plan: Decomposition, name: str) -> int:
    """Return by how much the replacements change an amount of the network."""
    pairs = [getattr(replacement, name) for replacement in plan.replaced]
    return sum(after - before for before, after in pairs)
