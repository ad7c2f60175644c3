"""Replace the standard convolutions of a network by blocks: one block, the cheapest, or the best.

A layer that can be replaced is a plain 3 x 3 `nn.Conv2d` that keeps the spatial size or halves it;
a block without a spatial kind can also replace a pointwise convolution. Counts include the batch
norm and the biases that a block brings, and odd spatial sizes before a stride as they are.

Reference: [3DRF] section 4.2 and [IF], kernel-level decomposer; the budgets are beyond the papers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ifspace.answer import Answer, Status
from ifspace.block import Block, SizedBlock
from ifspace.errors import IfspaceError, SettingError
from ifspace.groups.full_field import ranked_blocks
from ifspace.models.edits import Image, applied, attach, edits_of
from ifspace.models.graph import (
    Trace,
    TracedLayer,
)
from ifspace.models.surgery import Replace
from ifspace.models.tracing import checked_model, evaluated
from ifspace.models.tracing import trace as traced
from ifspace.models.warm_start import Fit, random_images
from ifspace.models.warm_start import warm_start as fitted
from ifspace.nn.block import (
    BlockModule,
    Style,
    block_style,
)
from ifspace.nn.checks import check_seed, unwrapped, wrong_type
from ifspace.nn.network import seeded
from ifspace.reach import field_after
from ifspace.stages.latency import LatencyTable
from ifspace.stages.problem import Budgets
from ifspace.stages.replacement import (
    ORDERS,
    Amount,
    Objective,
    Option,
    ReplacementPlan,
    ReplacementProblem,
    Site,
    best_replacement,
)
from ifspace.values import amount, whole_number

Side = tuple[int, int]
LEAST_CHANNELS: Final = 16
_BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, slots=True)
class ConvSite:
    """A convolution that may be replaced: its layer, and the maps of each call, before and behind.

    `normed`: whether a batch norm reads what it writes.
    """

    layer: TracedLayer
    calls: tuple[tuple[Side, Side], ...]
    normed: bool

    @property
    def name(self) -> str:
        """The path of the convolution."""
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
        a_pixel = layer.macs // (layer.size_out[0] * layer.size_out[1])
        return sum(a_pixel * height * width for _, (height, width) in self.calls)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A convolution that stays, and why."""

    name: str
    reason: str


def sites_of(
    model: nn.Module,
    trace: Trace,
    names: Iterable[str] | None = None,
    least_channels: int = LEAST_CHANNELS,
    pointwise: bool = False,
) -> tuple[tuple[ConvSite, ...], tuple[Skipped, ...]]:
    """Return the layers to replace, in the order in which they run, and the other convolutions.

    By default all 3 x 3 convolutions that read `least_channels` or more; `names` chooses others.
    `pointwise`: whether pointwise ones may be named too.

    Raises: SettingError for a name that is no layer, or of a layer that no block may replace.
    """
    called: dict[str, list[TracedLayer]] = {}
    for layer in trace.all_layers:
        called.setdefault(layer.name, []).append(layer)
    chosen: list[TracedLayer] = []
    skipped: list[Skipped] = []
    named = _checked(names, called)
    for name, calls in called.items():
        first = max(calls, key=lambda each: each.params)  # of several calls one counts the weights
        reason = why_not(model, first, pointwise and name in named)
        if name in named and reason:
            raise SettingError.because(
                "no block may replace this layer",
                got=f"{name} ({reason})",
                allowed="3 x 3 convolutions of stride 1 or 2, and 1 x 1 ones for blocks without a "
                "spatial kind",
                remedy="leave it out of names",
                argument="names",
            )
        if name in named or (names is None and not reason and first.c_in >= least_channels):
            chosen.append(first)
        elif names is None and first.conv.dense and first.conv.spatial:
            few = f"{first.c_in} input channels, fewer than {least_channels}"
            skipped.append(Skipped(name, reason or few))
    normed = _normed(model, [each.name for each in chosen], trace.image)
    return tuple(
        ConvSite(
            each,
            tuple((call.size_in, call.size_out) for call in called[each.name]),
            each.name in normed,
        )
        for each in chosen
    ), tuple(skipped)


def why_not(model: nn.Module, layer: TracedLayer, pointwise: bool = False) -> str:
    """Return why no block can take the place of a layer; nothing where one can."""
    if not layer.name:
        return "the network itself"
    conv: Any = model.get_submodule(layer.name)
    dense, spatial = layer.conv.dense and not layer.is_linear, layer.conv.spatial
    if dense and not spatial and isinstance(conv, nn.Conv2d) and not pointwise:
        return "a pointwise convolution, and the block has a spatial kind"
    sides, padding = ((3, 3), (1, 1)) if spatial else ((1, 1), (0, 0))
    if not dense:
        return f"a layer of kind {layer.kind}"
    if type(conv) is not nn.Conv2d and not _is_plain(conv):
        return f"{type(conv).__name__}, not a plain nn.Conv2d"
    for what, found, wanted in (
        ("kernel", conv.kernel_size, (sides,)),
        ("dilation", conv.dilation, ((1, 1),)),
        ("stride", conv.stride, ((1, 1), (2, 2)) if spatial else ((1, 1),)),
        ("padding", conv.padding, (padding, "same") if conv.stride == (1, 1) else (padding,)),
    ):
        if found not in wanted:
            return f"{what} {found if isinstance(found, str) else ' x '.join(map(str, found))}"
    if conv.padding_mode != "zeros":
        return f"padding of {conv.padding_mode}"
    return _shared(model, conv)


def _is_plain(module: Any) -> bool:
    """Whether a subclass computes what torch's convolution does, from weights that are its own."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and not nn.utils.parametrize.is_parametrized(module)
    )


def _shared(model: nn.Module, conv: nn.Conv2d) -> str:
    own = {id(each) for each in conv.parameters()}
    for name, module in model.named_modules():
        mine = module.parameters(recurse=False)
        if module not in set(conv.modules()) and any(id(each) in own for each in mine):
            return f"weights shared with {name}"
    return ""


def _checked(names: Any, called: Mapping[str, Any]) -> set[str]:
    found = {names} if isinstance(names, str) else set(names or ())
    if names is not None and not found:
        raise SettingError.because(
            "no layer named",
            got="no names",
            allowed="one or more layers of the network",
            remedy="leave names out for all 3 x 3 convolutions",
            argument="names",
        )
    if unknown := sorted(map(str, found - called.keys())):
        raise SettingError.because(
            "no such layer in the network",
            got=", ".join(map(repr, unknown)),
            allowed=", ".join(get_close_matches(unknown[0], map(str, called), 3))
            or f"{len(called)} layers such as {next(iter(called))}",
            remedy="`ifspace analyze --layers` lists them",
            argument="names",
        )
    return found


def _normed(model: nn.Module, names: list[str], image: tuple[int, int, int]) -> frozenset[str]:
    """Return which convolutions write what a batch norm reads: run on shapes alone."""
    if not names:
        return frozenset()
    found: set[str] = set()
    written: dict[int, tuple[str, Any]] = {}  # the tensors too: another one may not get their id

    def wrote(name: str) -> Any:
        def hook(_: nn.Module, __: Any, y: Any) -> None:
            written[id(y)] = name, y

        return hook

    def read(_: nn.Module, given: Any) -> None:
        if given and id(given[0]) in written:
            found.add(written[id(given[0])][0])

    norms = [each for each in model.modules() if isinstance(each, _BatchNorm)]
    hooks = [model.get_submodule(name).register_forward_hook(wrote(name)) for name in names]
    hooks += [each.register_forward_pre_hook(read) for each in norms]
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(each, device="meta") for name, each in state.items()}
    kind = next((each.dtype for each in shapes.values() if each.is_floating_point()), None)
    try:
        with evaluated(model), torch.device("meta"):
            functional_call(model, shapes, (torch.empty(2, *image, dtype=kind),))
    except Exception:
        # Some forward that wants numbers: what stands behind it in the module is taken.
        return _in_order(model, names)
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(found)


def _in_order(model: nn.Module, names: list[str]) -> frozenset[str]:
    leaves = [(name, each) for name, each in model.named_modules() if not any(each.children())]
    return frozenset(
        name
        for (name, conv), (_, norm) in pairwise(leaves)
        if name in names
        and isinstance(norm, _BatchNorm)
        and norm.num_features == getattr(conv, "out_channels", None)
    )


Field = tuple[int, int]
# What a convolution is called in a table of latencies.
_AS_BLOCK: Final = {kind: Block.parse(kind) for kind in ("CONV", "PW")}


@dataclass(frozen=True, slots=True)
class Replaced:
    """A convolution and the block in its place, with what each has: before, after.

    `params` count biases and batch norm inside the block; `macs` are of one image; `fields` are
    (side, channels) of what an output sees.
    """

    step: Replace
    params: tuple[int, int]
    macs: tuple[int, int]
    fields: tuple[Field, Field]

    @property
    def name(self) -> str:
        """The path of the convolution."""
        return self.step.name

    @property
    def sized(self) -> SizedBlock:
        """The block at its widths."""
        return self.step.sized

    @property
    def sees_less(self) -> bool:
        """Whether the block has not the full field of the convolution."""
        return any(after < before for before, after in zip(*self.fields, strict=True))


def usual_style(site: ConvSite) -> Style:
    """Return the style of a block that leaves to the network what stands behind it.

    Batch norm inside where the network has one behind the convolution, a bias at the end where the
    convolution had one, no activation.
    """
    return Style(
        site.normed,
        activation=None,
        bias=site.layer.bias,
        batch_norm_where="between",
        bias_where="last",
    )


def replacements(
    site: ConvSite, blocks: Sequence[Block] | None, style: Style | None, objective: str
) -> tuple[tuple[Replaced, ...], str]:
    """Return what each block makes of a convolution, and why not where one does not fit.

    The cheapest comes first, in MACs where those are the objective, else in parameters. None stands
    for the blocks with the full field of the convolution.
    """
    layer = site.layer
    by: Literal["params", "macs"] = "macs" if objective == "macs" else "params"
    full_field = blocks is None
    if blocks is None:
        side = layer.size_in[0] if layer.size_in[0] == layer.size_in[1] else None
        stride: Literal[1, 2] = 2 if site.stride == 2 else 1
        plans = ranked_blocks(layer.c_in, layer.c_out, layer.kernel[0], stride, side, by)
        blocks = [plan.block for plan in plans]
    made, why = _made(site, blocks, style)
    # What comes with a block counts too: batch norm behind more layers is more.
    ordered = sorted(made, key=lambda each: (each.macs if by == "macs" else each.params)[1])
    return tuple(ordered), why or ("no block with its full field" if full_field else "no block")


def _made(
    site: ConvSite, blocks: Sequence[Block], style: Style | None
) -> tuple[tuple[Replaced, ...], str]:
    found, reasons = [], []
    for block in blocks:
        try:
            sized = block.at(site.layer.c_in, site.layer.c_out)
            step = Replace(site.name, sized, site.stride, style or usual_style(site))
            BlockModule(sized, step.stride, step.style, device="meta")  # refuses what does not fit
        except IfspaceError as error:
            reasons.append(f"{block}: " + str(error).partition("; ")[0])
            continue
        macs = sum(step.macs(*sides) for sides in site.calls)
        fields = (site.layer.kernel[0], site.layer.c_in), field_after(sized)[-1]
        found.append(Replaced(step, (site.params, step.params), (site.macs, macs), fields))
    return tuple(found), "; ".join(reasons)


def choice(site: ConvSite, options: Sequence[Replaced], latency: LatencyTable | None) -> Site:
    """Return a site of a replacement problem: the layer as it is, then what it may become."""
    kept = _AS_BLOCK[site.layer.kind].at(site.layer.c_in, site.layer.c_out)
    return Site(
        site.name,
        (
            Option(None, site.params, site.macs, _latency(site, kept, latency), site.stride),
            *(
                Option(
                    each.sized,
                    each.params[1],
                    each.macs[1],
                    _latency(site, each.sized, latency),
                    site.stride,
                )
                for each in options
            ),
        ),
    )


def _latency(site: ConvSite, sized: SizedBlock, table: LatencyTable | None) -> Fraction | None:
    """Return the latency of all calls in milliseconds, None where one was not measured."""
    if table is None:
        return None
    total = Fraction(0)
    for _, (height, width) in site.calls:
        found = table.find(sized, height, site.stride) if height == width else None
        if found is None:
            return None
        total += found
    return total


CHEAPEST: Final = "cheapest"
Given = Block | str


def blocks_asked(block: Given | None, blocks: Iterable[Given] | None) -> tuple[Block, ...] | None:
    """Return the blocks to choose from, None for those with the full field."""
    if blocks is not None and block is not None:
        raise SettingError.because(
            "blocks said twice",
            got="block and blocks",
            allowed="one of them",
            remedy="put all into blocks",
            argument="blocks",
        )
    if blocks is None and (block is None or str(block).lower() == CHEAPEST):
        return None
    several = [block] if blocks is None else [blocks] if isinstance(blocks, str) else list(blocks)
    for each in several or [None]:
        if not isinstance(each, Block | str):
            raise wrong_type(
                "block",
                each,
                'a block such as "DW+PW", a Block, or "cheapest"',
                "write it in the notation",
            )
    return tuple(dict.fromkeys(b if isinstance(b, Block) else Block.parse(str(b)) for b in several))


def budgets_asked(
    params: Any, macs: Any, latency: Any, latency_budget_ms: Any, objective: str
) -> Budgets:
    """Return the budgets of the network, and that of the chosen layers' latency.

    Raises: SettingError.
    """
    if objective not in ORDERS:
        raise SettingError.because(
            "unknown objective",
            got=repr(objective),
            allowed=", ".join(ORDERS),
            remedy="choose one of them",
            argument="objective",
        )
    timed = latency_budget_ms is not None or objective == "latency_ms"
    if timed != (latency is not None):
        raise SettingError.because(
            "latency half said",
            got="no table" if timed else "a table that decides nothing",
            allowed='a table, and a budget or the objective "latency_ms"',
            remedy="give both or none",
            argument="latency",
        )
    budgets = Budgets(
        None if params is None else amount(params, "params"),
        None if macs is None else amount(macs, "macs"),
        latency_ms=None if latency_budget_ms is None else _exact(latency_budget_ms),
    )
    budgets.check()
    return budgets


def _exact(milliseconds: Any) -> Fraction:
    if isinstance(milliseconds, int | Fraction) and not isinstance(milliseconds, bool):
        return Fraction(milliseconds)
    raise SettingError.because(
        "latency budget is not exact",
        got=repr(milliseconds),
        allowed="whole numbers, Fractions",
        remedy='write Fraction("2.5")',
        argument="latency_budget_ms",
    )


_ATTRIBUTE: Final = "_ifspace_decomposition"


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Which convolutions are replaced, which stay and why; totals of the network before and after.

    `answer` says how the search under `budgets` (of the network, latency of the chosen layers)
    ended, where there was one; where nothing keeps them nothing is replaced, and `least` has what
    each bounded amount could be. `fits` are those of a warm start.
    """

    replaced: tuple[Replaced, ...]
    skipped: tuple[Skipped, ...]
    params: tuple[int, int]
    macs: tuple[int, int]
    budgets: Budgets = Budgets()  # noqa: RUF009 - a frozen value
    answer: Answer[ReplacementPlan] | None = None
    least: Mapping[str, Amount] = field(default_factory=dict)
    fits: tuple[Fit, ...] = ()

    @property
    def steps(self) -> tuple[Replace, ...]:
        """What is done to the network."""
        return tuple(each.step for each in self.replaced)

    def check(self) -> None:
        """Refuse a plan that changes nothing where it was to.

        Raises: SettingError when no convolution can be replaced, nothing keeps the budgets, or time
            ran out.
        """
        if self.answer is None and not self.replaced:
            why = "; ".join(f"{each.name}: {each.reason}" for each in self.skipped[:2])
            more = f" and {len(self.skipped) - 2} more" if len(self.skipped) > 2 else ""
            raise SettingError.because(
                "no convolution to replace",
                got=f"{why}{more}" if why else "no standard convolution in the network",
                allowed="3 x 3 convolutions over all channels, enough of them, that the block fits",
                remedy="choose another block, lower least_channels, or reorganize stages alone",
                argument="block",
            )
        if self.answer is None or self.answer.best is not None:
            return
        if self.answer.status is not Status.INFEASIBLE:
            raise SettingError.because(
                "no answer in time",
                got="a search that was cut off",
                allowed="more time",
                remedy="raise the time limit",
                argument="time_limit_s",
            )
        least = [f"{name} from {_text(value)}" for name, value in self.least.items()]
        raise SettingError.because(
            "nothing keeps the budgets",
            got=", ".join(f"{name} {_text(most)}" for name, most in self.budgets.limits.items()),
            allowed=f"{', '.join(least)} (each alone)",
            remedy="raise a budget, or offer cheaper blocks",
            argument=next(iter(self.least), None),
        )


def decompose(
    model: nn.Module,
    x: Tensor | Sequence[int],
    block: Given | None = None,
    *,
    names: Iterable[str] | None = None,
    least_channels: int = LEAST_CHANNELS,
    blocks: Iterable[Given] | None = None,
    params: int | str | None = None,
    macs: int | str | None = None,
    latency: LatencyTable | None = None,
    latency_budget_ms: Fraction | int | None = None,
    objective: str = "keep",
    style: Style | str | None = None,
    warm_start: Tensor | bool | None = None,
    seed: int = 0,
    time_limit_s: float | None = None,
) -> nn.Module:
    """Return a copy of a network with its standard convolutions replaced by blocks.

    `x`: an image [N, C, H, W], or its size (C, H, W). Which block stands where is said at
    `plan_decomposition`, which takes the same arguments; the weights of blocks are drawn from the
    seed. `warm_start`: images [N, C, H, W] on which each block is fitted to the convolution that
    it replaces, or True for images of noise. `decomposition_of` says what was done.

    >>> model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1))
    >>> made = decompose(model, (3, 8, 8), "DW+PW")
    >>> made[1].layer1
    Conv2d(16, 32, kernel_size=(1, 1), stride=(1, 1))

    Raises: SettingError when no convolution can be replaced, or nothing keeps the budgets; and as
        `plan_decomposition`, `ifspace.models.tracing` and `warm_start` do.
    """
    model = checked_model(model)
    check_seed(seed)
    found = traced(model, x)
    plan = plan_decomposition(
        model,
        found,
        block,
        names=names,
        least_channels=least_channels,
        blocks=blocks,
        params=params,
        macs=macs,
        latency=latency,
        latency_budget_ms=latency_budget_ms,
        objective=objective,
        style=style,
        time_limit_s=time_limit_s,
    )
    plan.check()
    images = None if isinstance(warm_start, bool) else warm_start
    if warm_start is True:
        count = len(x) if isinstance(x, Tensor) and x.dim() == 4 else 1
        images = random_images(found.image, seed, next(model.parameters()), count)
    return decomposed(model, plan, found.image, images, seed)


def plan_decomposition(
    model: nn.Module,
    trace: Trace,
    block: Given | None = None,
    *,
    names: Iterable[str] | None = None,
    least_channels: int = LEAST_CHANNELS,
    blocks: Iterable[Given] | None = None,
    params: int | str | None = None,
    macs: int | str | None = None,
    latency: LatencyTable | None = None,
    latency_budget_ms: Fraction | int | None = None,
    objective: str = "keep",
    style: Style | str | None = None,
    time_limit_s: float | None = None,
) -> Decomposition:
    """Return which convolutions of a traced network become which block; nothing is changed.

    Chosen are the 3 x 3 convolutions that read `least_channels` or more, or those in `names`. Each
    becomes the `block`, where it fits the widths; or that of `blocks` with the fewest parameters
    (objective "macs": MACs); or with neither, or "cheapest", the cheapest of all that have the full
    field of the convolution.

    With a budget each layer keeps its convolution or becomes one of these blocks. `params` and
    `macs` are budgets of the whole network, whole numbers or text such as "17M";
    `latency_budget_ms` is that of the chosen layers together, by the `latency` table, which has
    their convolutions as CONV. The objective "keep" replaces as few layers as possible; "params",
    "macs" and "latency_ms" make that least.

    `style`: of all blocks. By default batch norm stands behind each layer of a block but the last
    where the network has one behind the convolution, the last layer has a bias where the
    convolution had one, and there is no activation inside.

    Raises: SettingError for arguments that do not go together, or a name that no block may replace;
        BlockError for a block that cannot be read.
    """
    given = blocks_asked(block, blocks)
    budgets = budgets_asked(params, macs, latency, latency_budget_ms, objective)
    flat = given is None or not any(layer.conv.spatial for each in given for layer in each.layers)
    least = whole_number(least_channels, "least_channels", 1)
    sites, skipped = sites_of(model, trace, names, least, flat)
    chosen_style = None if style is None else block_style(style)
    options = {site: replacements(site, given, chosen_style, objective) for site in sites}
    unfit = tuple(Skipped(each.name, why) for each, (made, why) in options.items() if not made)
    fit = {site: made for site, (made, _) in options.items() if made}
    plan = Decomposition(
        tuple(made[0] for made in fit.values()),
        (*skipped, *unfit),
        (trace.params,) * 2,
        (trace.macs,) * 2,
        budgets,
    )
    if fit and (budgets.limits or latency is not None):
        plan = _searched(plan, fit, latency, cast(Objective, objective), time_limit_s)
    return replace(
        plan,
        params=(trace.params, trace.params + sum(b - a for a, b in _column(plan, "params"))),
        macs=(trace.macs, trace.macs + sum(b - a for a, b in _column(plan, "macs"))),
    )


def decomposed(
    model: nn.Module,
    plan: Decomposition,
    image: Image,
    images: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> nn.Module:
    """Return a copy of a network changed as planned, its blocks fitted on images if there are any.

    Raises: SettingError for a plan of another network; and as `warm_start` does.
    """
    model = unwrapped(model)
    made = deepcopy(model)
    with seeded(seed, next((each.device for each in made.parameters()), None)):
        applied(made, *plan.steps)
    edits = edits_of(made)
    attach(made, replace(edits, image=edits.image or image))
    if images is not None:
        names = [each.name for each in plan.replaced]
        plan = replace(plan, fits=fitted(model, made, names, images, seed, progress))
    setattr(made, _ATTRIBUTE, plan)
    return made


def decomposition_of(model: nn.Module) -> Decomposition | None:
    """Return what `decompose` did to a network the last time, None where it never did."""
    return getattr(unwrapped(model), _ATTRIBUTE, None)


def _searched(
    plan: Decomposition,
    fit: Mapping[ConvSite, tuple[Replaced, ...]],
    latency: LatencyTable | None,
    objective: Objective,
    time_limit_s: float | None,
) -> Decomposition:
    """Return the plan with the best choice within its budgets."""
    # What the rest of the network has is no choice.
    rest: dict[str, Amount] = {
        "params": plan.params[0] - sum(site.params for site in fit),
        "macs": plan.macs[0] - sum(site.macs for site in fit),
    }
    left: dict[str, Any] = {
        name: most - rest.get(name, 0) for name, most in plan.budgets.limits.items()
    }
    sites = tuple(choice(site, made, latency) for site, made in fit.items())
    answer = best_replacement(ReplacementProblem(sites, Budgets(**left), objective), time_limit_s)
    chosen = (0,) * len(sites) if answer.best is None else answer.best.chosen
    return replace(
        plan,
        # The first option of a site keeps the layer.
        replaced=tuple(made[n - 1] for n, made in zip(chosen, fit.values(), strict=True) if n),
        answer=answer,
        least={name: value + rest.get(name, 0) for name, value in answer.least.items()},
    )


def _column(plan: Decomposition, name: str) -> list[tuple[int, int]]:
    return [getattr(each, name) for each in plan.replaced]


def _text(value: Amount) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{float(value):g}"
