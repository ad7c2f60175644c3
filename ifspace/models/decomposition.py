"""Replace the standard convolutions of a network by blocks: one block, the cheapest, or the best.

`ifspace.models.replaceable` says which layers can be replaced. Counts include the batch norm and
the biases that a block brings, and odd spatial sizes before a stride as they are.

Reference: [3DRF] section 4.2 and [IF], kernel-level decomposer; the budgets are beyond the papers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, Final, Literal, cast

from torch import Tensor, nn

from ifspace.answer import Answer
from ifspace.block import Block, SizedBlock
from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.floors import NO_FLOORS, Floors, ParamsRange, leaves_nothing
from ifspace.groups.full_field import front_blocks, ranked_blocks
from ifspace.latency import Latency, LatencySource, bench_command, shape_text
from ifspace.memory import DEFAULT_DTYPE, Schedule, bytes_of
from ifspace.models.edits import EditedNetwork
from ifspace.models.graph import ImageSize, LiveSchedule, Trace
from ifspace.models.plan_file import PlannedBlock, misfit_error, over_budgets, plan_error
from ifspace.models.replaceable import (
    CLASSIFIER,
    LEAST_CHANNELS,
    LEFT_OUT,
    OutOfReach,
    ReplaceableConv,
    Skipped,
    out_of_reach,
    replaceable_convs,
    weight_norm,
)
from ifspace.models.replaceable import Layers as Layers
from ifspace.models.surgery import Replace, copy_of_network
from ifspace.models.tracing import Image, checked_model
from ifspace.models.tracing import trace as traced
from ifspace.models.warm_start import Fit, fit_blocks, images_of, random_images
from ifspace.nn.block import BlockModule, Style, block_style
from ifspace.nn.checks import check_seed, wrong_type
from ifspace.nn.network import seeded
from ifspace.reach import field_after
from ifspace.stages.joint import ORDERS as JOINT_ORDERS
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
from ifspace.values import choice, counted

# What the filters of blocks read at least that nobody lists: fewer channels train and run badly.
LEAST_FAN_IN: Final = 8
# A block that can replace a pointwise convolution.
_NO_KERNEL: Final = "GPW(8)+SH(8)+GPW(8)"
# (side in pixels, channels) of what one output sees.
FieldSize = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A layer and the block that replaces it, with amounts before and after.

    `before`: the layer as a block of one layer. `params` include biases and batch norm inside the
    block; `macs` are of one image; `fields` are (side, channels) of what one output sees. `peaks`:
    the most elements that are live at once in the network while the layer runs, before and after; 0
    where that is not known. `latencies`: of all calls of the layer and of the block, alone; None
    where one is not known.
    """

    step: Replace
    before: SizedBlock
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
    def is_slower(self) -> bool:
        """Whether the block is known to take longer than the layer."""
        before, after = self.latencies
        return before is not None and after is not None and after.ms > before.ms

    @property
    def costs_more(self) -> bool:
        """Whether the block has more parameters or MACs than the layer."""
        return any(after > before for before, after in (self.params, self.macs))

    @property
    def sees_less(self) -> bool:
        """Whether the block lacks the full field of the convolution."""
        return any(after < before for before, after in zip(*self.fields, strict=True))


# Of a layer and blocks in its place, each with its style (None: the layer itself), the times of all
# calls.
TimesOf = Callable[
    [ReplaceableConv, Sequence[tuple[SizedBlock | None, Style]]], Sequence[Latency | None]
]


@dataclass(frozen=True, slots=True)
class Search:
    """What decides between blocks where a layer may keep its convolution or become one of several.

    `objective`: "keep" replaces as few layers as possible; "weights" too, and keeps as many
    parameters as the budgets allow; "params", "macs" and "latency_ms" minimise that amount. Those
    of `ifspace.stages.joint.ORDERS` are for widths, depths and blocks together. None is
    "params" without a budget; with one it is "weights" for the blocks of a front, else "keep".
    `latency`: the measured latencies of blocks and convolutions, which stand there as CONV.
    `floors` hold for every block; convolutions that none fits stay. `lower_floors`: whether the
    least fan-in is halved, again and again, while nothing keeps the budgets. `times_of`: times of
    layers and blocks at their own sizes, instead of `latency`; `network_ms`: the time of the whole
    network, of which a budget of latency is then, else of the layers that blocks may replace.

    Raises: SettingError for another objective.
    """

    objective: str | None = None
    latency: LatencySource | None = None
    time_limit_s: float | None = None
    floors: Floors = NO_FLOORS
    lower_floors: bool = False
    times_of: TimesOf | None = None
    network_ms: Fraction | None = None

    def __post_init__(self) -> None:
        choice(self.objective, "objective", (*ORDERS, *JOINT_ORDERS, None))

    def objective_within(self, budgets: Budgets, blocks: Blocks | None = None) -> Objective:
        """Return the objective under budgets."""
        default = "weights" if blocks is not None and blocks.is_front else "keep"
        default = default if budgets.bounded else "params"
        return cast(Objective, self.objective or default)

    def timed(
        self, conv: ReplaceableConv, replacements: Sequence[Replacement]
    ) -> list[Replacement]:
        """Return replacements of a layer with the times that are known: of it, and of each."""
        cases = [(None, conv.default_style), *((x.sized, x.step.style) for x in replacements)]
        if self.times_of is not None:
            before, *after = self.times_of(conv, cases)
        elif self.latency is not None:
            blocks = [conv.block if sized is None else sized for sized, _ in cases]
            before, *after = (latency_of_calls(conv, sized, self.latency) for sized in blocks)
        else:
            return list(replacements)
        return [
            replace(replacement, latencies=(before, time))
            for replacement, time in zip(replacements, after, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The plan of a decomposed network: what is replaced, what stays and why, totals before, after.

    `answer`: how the search under `budgets` ended, None without a search; the budgets are of the
    whole network, that of the latency of the chosen layers. If nothing keeps them, nothing is
    replaced, and `least` has the least possible value of each bounded amount. `pointwise` and
    `grouped` count the convolutions that are 1 x 1, or grouped or depthwise, already.
    `peaks`: the peak memory in elements before and after; None where the trace does not say.
    `weight_norms`: by the name of a layer what computes its weights from others, such as weight
    norm. `out_of_reach`: what no block can replace, and why.
    `is_front`: whether pointwise and linear layers took part too. `not_more`: amounts without a
    budget of which the network may have no more than it has.
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
    out_of_reach: tuple[OutOfReach, ...] = ()
    is_front: bool = False
    not_more: tuple[str, ...] = ()

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
            if self.is_front:  # a budget alone asks for these blocks
                others = "reorganize the stages alone with --stages-only"
                remedies = (*remedies, others)
            elif not self.pointwise:
                others = "leave the blocks out: stages can be reorganized alone"
            layers = "layers of one group" if self.is_front else "3×3 convolutions of one group"
            raise SettingError.because(
                "no convolution to replace",
                got=self._reasons_text() or "no convolution in the network",
                allowed=f"{layers} that read at least {self.least_channels} "
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
        return budgets_error(
            "choice of blocks",
            self.answer,
            limits,
            remedy,
            self.least,
            self.not_more,
            shares=True,
        )

    def _remedies(self) -> tuple[str, ...]:
        """Return what would let a block replace any of the convolutions."""
        widths = [conv.least_channels for conv in self.skipped if conv.least_channels is not None]
        misfits = any(conv.misfits for conv in self.skipped) and not self.is_front
        shapes = [shape for conv in self.skipped for shape in conv.untimed]
        linear = any(part.why == CLASSIFIER for part in self.out_of_reach)
        return (
            *([f"measure them (`{bench_command(shapes)}`)"] if shapes else []),
            *([f"accept fewer channels: {ARGUMENT} {max(widths)}"] if widths else []),
            *(["offer another block"] if misfits else []),
            *(
                ["replace fully connected layers too with --classifier"]
                if self.is_front and linear
                else []
            ),
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
        if self.is_front:  # 1 x 1 convolutions take part
            left_out = sum(len(part.names) for part in self.out_of_reach if part.why == LEFT_OUT)
            layers += [f"{left_out} left out by the options"] if left_out else []
        layers += [
            f"{count} {'is' if count == 1 else 'are'} {state} already"
            for count, state in (
                (self.pointwise * (not self.is_front), "1 x 1"),
                (self.grouped, "grouped or depthwise"),
            )
            if count
        ]
        return "; ".join(layers)


def _listed(names: Sequence[str]) -> str:
    """Return the name of the only layer, or how many there are."""
    return names[0] if len(names) == 1 and names[0] else counted(len(names), "layer")


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
    layers: Layers = Layers(),  # noqa: B008 - a frozen value
    search: Search = Search(),
    *,
    style: Style | str | None = None,
    warm_start: Tensor | Iterable[Any] | bool | None = None,
    seed: int = 0,
) -> DecomposedNetwork:
    """Return a copy of a network with its standard convolutions replaced by blocks, and the plan.

    `x`: an image [N, C, H, W], or its size (C, H, W). `warm_start`: images [N, C, H, W] on which
    each block is fitted to the convolution that it replaces, or a loader of batches of them, with
    labels or without; or True for images of noise. The weights of blocks are drawn from the seed.
    The other arguments are those of `plan_decomposition`, which says what they choose.

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
    images, like = None, next(model.parameters())
    if warm_start is True:
        count = len(x) if isinstance(x, Tensor) and x.dim() == 4 else 1
        images = random_images(trace.image, seed, like, count)
    elif warm_start is not None and warm_start is not False:
        images = images_of(warm_start, like)
    noise = warm_start is True
    return apply_decomposition(edited, plan, trace.image, images, seed, noise=noise)


def plan_decomposition(
    network: nn.Module | EditedNetwork,
    trace: Trace,
    blocks: Blocks = Blocks(CHEAPEST),  # noqa: B008 - a frozen value
    budgets: Budgets = Budgets(),  # noqa: B008 - a frozen value
    layers: Layers = Layers(),  # noqa: B008 - a frozen value
    search: Search = Search(),
    style: Style | str | None = None,
) -> Decomposition:
    """Return which convolutions of a traced network become which block; nothing is changed.

    Each of the `layers` becomes that of the `blocks` that fits its widths and has the
    fewest parameters (objective "macs": MACs); `Blocks("cheapest")` offers all blocks with the full
    field of the convolution. `Blocks("front")` offers for every layer, pointwise ones and
    `nn.Linear` too, blocks with its full field that trade parameters for the least fan-in; none
    with more parameters, MACs or known latency than the layer. With a budget each layer keeps its
    convolution or becomes one of these blocks, as the `search` decides. `params` and `macs` are
    budgets of the whole network, shares of what it has; `latency_ms` is that of the chosen layers
    together.

    `style`: of all blocks. By default batch norm follows each layer of a block but the last if the
    network has one behind the convolution, the last layer has a bias if the convolution has one,
    and there is no activation inside.

    Raises: SettingError for arguments that do not go together, or a name that no block can replace.
    """
    _check_types(blocks, budgets, layers, search)
    objective = search.objective_within(budgets, blocks)
    live = trace.live
    amounts = amounts_of(trace, budgets.dtype)
    timed = "latency_ms" in {*budgets.bounded, objective}
    if timed and search.latency is None and search.times_of is None:
        raise SettingError.because(
            "nothing says how long the blocks take",
            got=f"no {ARGUMENT}",
            allowed='latencies beside a budget or the objective "latency_ms"',
            remedy=f"give {ARGUMENT} too",
            argument="latency",
        )
    model = EditedNetwork.of(network).model
    fixed = blocks.fixed
    no_spatial = fixed is None or not any(
        layer.conv.spatial for block in fixed for layer in block.layers
    )
    if live is None and PEAK_MEMORY in {*budgets.bounded, objective}:
        raise unknown_peak(trace.notes)
    convs, skipped = replaceable_convs(model, trace, layers, no_spatial, blocks.is_front)
    block_style_ = None if style is None else block_style(style)
    options: dict[ReplaceableConv, tuple[Replacement, ...]] = {}
    for conv in convs:
        replacements, reason = _replacements(
            conv, blocks, block_style_, objective, live, search.floors, search
        )
        if replacements and timed and blocks.is_front and replacements[0].latencies[0] is None:
            shapes = () if search.latency is None else _shapes(conv, conv.block)
            skipped.append(Skipped(conv.name, "no known latency", untimed=shapes))
        elif replacements:
            options[conv] = replacements
        else:
            skipped.append(Skipped(conv.name, reason, misfits=True))
    if search.floors and not options:
        _check_floors(
            convs,
            search.floors,
            lambda conv, floors: bool(
                _replacements(conv, blocks, block_style_, objective, live, floors, search)[0]
            ),
        )
    if options:  # without one no layer has a latency of which a budget is a share
        budgets = budgets.of({**amounts, "latency_ms": _latency_before(search, options.values())})
        budgets.check(BOUNDED)
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
        out_of_reach=out_of_reach(model, trace, [conv.name for conv in options], skipped, layers),
        is_front=blocks.is_front,
    )
    if options and (budgets.limits or timed or objective == PEAK_MEMORY):
        plan = _best_choice(plan, options, objective, search, live)
    return _with_totals(plan, trace)


def _with_totals(plan: Decomposition, trace: Trace) -> Decomposition:
    """Return a plan with the amounts of the network before and after it."""
    live = trace.live
    return replace(
        plan,
        peaks=None if live is None else (live.peak, _peak_after(plan, live)),
        params=(trace.params, trace.params + _change(plan, "params")),
        macs=(trace.macs, trace.macs + _change(plan, "macs")),
    )


def planned_decomposition(
    network: nn.Module | EditedNetwork,
    trace: Trace,
    planned: Sequence[PlannedBlock],
    budgets: Budgets = Budgets(),  # noqa: B008 - a frozen value
    search: Search = Search(),
) -> Decomposition:
    """Return the plan in which layers of a traced network become the blocks of a plan file.

    Raises: SettingError for a layer that is not there or that no block can replace, a block that
        does not fit it, each with its line, and for a plan that exceeds the budgets.
    """
    model, live = EditedNetwork.of(network).model, trace.live
    everything = Layers(least_channels=1, classifier=True)
    convs, skipped = replaceable_convs(model, trace, everything, every=True)
    conv_of, why_of = {conv.name: conv for conv in convs}, {x.name: x.reason for x in skipped}
    names = {layer.name for layer in trace.all_layers if layer.conv.writes}
    replaced = []
    for entry in planned:
        conv = conv_of.get(entry.name)
        if conv is None:
            why = why_of.get(entry.name, "a layer that no block can replace")
            near = get_close_matches(entry.name, conv_of, 3) or list(conv_of)[:3]
            raise plan_error(
                entry.place,
                why if entry.name in names else "no such layer in the network",
                got=repr(entry.name),
                allowed=f"layers such as {', '.join(near)}",
            )
        try:
            replacement = _replacement(conv, entry.block, None, _Peaks(conv, live))
        except IfspaceError as error:
            layer = conv.layer
            raise misfit_error(entry, error, layer.c_in, layer.c_out, conv.stride) from None
        replaced += search.timed(conv, [replacement])
    plan = Decomposition(
        tuple(replaced),
        (),
        (trace.params,) * 2,
        (trace.macs,) * 2,
        budgets.of({**amounts_of(trace, budgets.dtype), "latency_ms": search.network_ms}),
        weight_norms={conv.name: norm for conv in convs if (norm := weight_norm(model, conv.name))},
        out_of_reach=out_of_reach(model, trace, [*conv_of], skipped, everything),
    )
    plan = _with_totals(plan, trace)
    plan.budgets.check(BOUNDED)
    amounts: dict[str, Amount] = {"params": plan.params[1], "macs": plan.macs[1]}
    if plan.peaks is not None:
        amounts[PEAK_MEMORY] = bytes_of(plan.peaks[1], plan.budgets.dtype or DEFAULT_DTYPE)
    times = plan.replaced_latencies
    if times is not None:
        network_ms = search.network_ms or times[0].ms
        amounts["latency_ms"] = network_ms - times[0].ms + times[1].ms
    above = over_budgets(amounts, plan.budgets.limits)
    if above is not None:
        raise above
    return plan


def amounts_of(trace: Trace, dtype: str | None) -> dict[str, int | Fraction | None]:
    """Return what a network has as it is, of which budgets may be shares; None if not known."""
    live = trace.live
    peak = None if live is None else bytes_of(live.peak, dtype or DEFAULT_DTYPE)
    return {"params": trace.params, "macs": trace.macs, PEAK_MEMORY: peak}


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
        f"{len(options)} of {counted(len(convs), 'layer')} have a block with {floors}: "
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
    noise: bool = False,
) -> DecomposedNetwork:
    """Return a copy of a network changed as planned, its blocks fitted on `images` if given.

    `noise`: the images are no data, see `fit_blocks`.

    Raises: SettingError for a plan of another network; and as `fit_blocks` does.
    """
    base = EditedNetwork.of(network)
    copy = EditedNetwork(copy_of_network(base.model), base.edits)
    with seeded(seed, next((tensor.device for tensor in base.model.parameters()), None)):
        changed = copy.apply(*plan.steps)
    fits: tuple[Fit, ...] = ()
    if images is not None:
        names = [replacement.name for replacement in plan.replaced]
        fits = fit_blocks(base.model, changed.model, names, images, seed, progress, noise=noise)
    return DecomposedNetwork(changed.model, changed.edits.for_image(image), plan, fits)


# ------------------------------------------------------------------ which block replaces a layer


def _replacements(
    conv: ReplaceableConv,
    offered: Blocks,
    style: Style | None,
    objective: str,
    live: LiveSchedule | None,
    floors: Floors,
    search: Search,
) -> tuple[tuple[Replacement, ...], str]:
    """Return what each block makes of a convolution, cheapest first; and why one does not fit.

    The cheapest by MACs if those are the objective, else by parameters.
    """
    layer = conv.layer
    by: Literal["params", "macs"] = "macs" if objective == "macs" else "params"
    blocks = offered.fixed
    stride: Literal[1, 2] = 2 if conv.stride == 2 else 1
    full_field = blocks is None
    if offered.is_front:
        front = front_blocks(layer.c_in, layer.c_out, conv.kernel, stride, floors=floors)
        blocks = tuple(sized.block for sized in front)
    elif blocks is None:
        side = layer.size_in[0] if layer.size_in[0] == layer.size_in[1] else None
        plans = ranked_blocks(layer.c_in, layer.c_out, conv.kernel, stride, side, by, floors=floors)
        blocks = tuple(plan.block for plan in plans)
    replacements, reasons = [], []
    peaks = _Peaks(conv, live)
    for block in blocks:
        try:
            replacement = _replacement(conv, block, style, peaks)
            if offered.is_front and replacement.costs_more:
                reasons.append(f"{block}: more parameters or MACs than the layer")
                continue
            if replacement.sized.meets(floors):
                replacements.append(replacement)
            else:
                reasons.append(f"{block}: not with {floors}")
        except IfspaceError as error:
            reasons.append(f"{block}: " + str(error).partition("; ")[0])
    # Batch norm and biases count too: a block with more layers has more of them.
    replacements.sort(key=lambda option: getattr(option, by)[1])
    replacements = search.timed(conv, replacements) if replacements else []
    if offered.is_front:
        slower = [x for x in replacements if x.is_slower]
        reasons += [f"{x.sized.block}: slower than the layer" for x in slower]
        replacements = [x for x in replacements if not x.is_slower]
    none_left = "no block with its full field" if full_field else "no block"
    none_left += f" and {floors}" if floors else ""
    return tuple(replacements), "; ".join(reasons) or none_left


def _replacement(
    conv: ReplaceableConv, block: Block, style: Style | None, peaks: "_Peaks"
) -> Replacement:
    """Return what a block makes of a convolution. Raises: IfspaceError if it does not fit."""
    sized = conv.at(block)
    step = conv.replaced_by(sized, style)
    # Raises what does not fit.
    BlockModule(sized, step.stride, step.style, device="meta", geometry=step.geometry)
    macs = sum(step.macs(*sizes) for sizes in conv.calls)
    taps, channels = field_after(sized)[-1]
    before, after = (max(conv.geometry.size_in_pixels(n)) for n in (conv.kernel, taps))
    fields = (before, conv.layer.c_in), (after, channels)
    amounts = (conv.params, step.params), (conv.macs, macs)
    return Replacement(step, conv.block, *amounts, fields, (peaks.before, peaks.after(step)))


class _Peaks:
    """The most elements that are live at once in the network while a convolution runs.

    0 for one that reads a constant: what no image changes is not counted.
    """

    def __init__(self, conv: ReplaceableConv, live: LiveSchedule | None) -> None:
        self.conv, self.live = conv, live
        self.before = 0
        if live is not None:
            elements = live.schedule.live()
            self.before = max((elements[index] for index in live.steps_of(conv.name)), default=0)
            self.live = live if self.before else None
        # Blocks of the same widths need as much, whatever their groups.
        self._after: dict[tuple[Schedule, ...], int] = {}

    def after(self, step: Replace) -> int:
        """Return the same with a block in its place."""
        if self.live is None:
            return 0
        chains = tuple(step.schedule(size_in, size_out) for size_in, size_out in self.conv.calls)
        if chains not in self._after:
            self._after[chains] = self.live.peak_with(self.conv.name, chains)
        return self._after[chains]


def _best_choice(
    plan: Decomposition,
    options: Mapping[ReplaceableConv, tuple[Replacement, ...]],
    objective: Objective,
    search: Search,
    live: LiveSchedule | None,
) -> Decomposition:
    """Return the plan with the best choice within its budgets."""
    # What the rest of the network has is not to be chosen.
    fixed_amounts: dict[str, Amount] = {
        "params": plan.params[0] - sum(conv.params for conv in options),
        "macs": plan.macs[0] - sum(conv.macs for conv in options),
    }
    if search.network_ms is not None:
        layers_ms = _latency_before(replace(search, network_ms=None), options.values())
        fixed_amounts["latency_ms"] = search.network_ms - (layers_ms or 0)
    limits: dict[str, Any] = {
        name: limit - fixed_amounts.get(name, 0) for name, limit in plan.budgets.limits.items()
    }
    not_more: dict[str, Any] = {}
    if plan.budgets.limits.keys() == {"params"}:  # nothing else grows
        before = {
            "macs": plan.macs[0] - fixed_amounts["macs"],
            "latency_ms": _latency_before(replace(search, network_ms=None), options.values()),
        }
        times = [time for own in options.values() for x in own for time in x.latencies]
        amounts = ("macs",) if None in times else ("macs", "latency_ms")
        not_more = {name: before[name] for name in amounts if name != objective}
    if "latency_ms" in {*plan.budgets.bounded, objective}:
        _check_timed(options)
    sites = tuple(_site(conv, replacements) for conv, replacements in options.items())
    names = {conv.name for conv in options}
    rest = 0 if live is None else live.peak_without(names)
    most = plan.budgets.peak_elements
    stays = live is not None and most is not None and rest > most
    budgets = Budgets(**limits, **not_more, dtype=plan.budgets.dtype)
    problem = ReplacementProblem(sites, budgets, objective, rest)
    answer = best_replacement(problem, search.time_limit_s)
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
        not_more=tuple(not_more),
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


def _latency_before(search: Search, options: Iterable[Sequence[Replacement]]) -> Fraction | None:
    """Return the time of the network as it is, or of the layers that blocks may replace.

    None where that of a layer is not known.
    """
    if search.network_ms is not None:
        return search.network_ms
    times = [replacements[0].latencies[0] for replacements in options]
    if None in times:
        return None
    return sum((time.ms for time in times if time is not None), Fraction(0))


def _check_timed(options: Mapping[ReplaceableConv, Sequence[Replacement]]) -> None:
    """Check that one option of each layer at least has a latency. Raises: SettingError."""
    untimed = [
        conv
        for conv, replacements in options.items()
        if not any(time for x in replacements for time in x.latencies)
    ]
    if not untimed:
        return
    shapes = [shape for conv in untimed for shape in _shapes(conv, options[conv][0].sized)]
    raise SettingError.because(
        "no latency for any option of a layer",
        got=", ".join(conv.name for conv in untimed[:2]) + ", …" * (len(untimed) > 2),
        allowed="one measured option at least, where latency counts",
        remedy=f"measure them (`{bench_command(shapes)}`), or leave them out",
        argument="latency",
    )


def _shapes(conv: ReplaceableConv, sized: SizedBlock) -> tuple[str, ...]:
    """Return the shapes of a block at all calls of a layer, as `ifspace bench --predict` does."""
    return tuple(shape_text(sized, size[0], conv.stride) for _, size in conv.calls)


def lowered_note(floors: Floors, least_fan_in: int) -> str:
    """Return that blocks read fewer channels than the floors ask for."""
    return (
        f"filters read at least {counted(least_fan_in, 'channel')}, since nothing keeps the "
        f"budgets where they read {floors.least_fan_in}"
    )


def latency_of_calls(
    conv: ReplaceableConv, sized: SizedBlock, source: LatencySource
) -> Latency | None:
    """Return the latency of all calls together, None if that of one is not known."""
    total = Latency(Fraction(0))
    if not conv.geometry.is_default:  # what is measured reads its neighbours
        return None
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
