"""Standard convolutions of a network replaced by blocks: one for all, the cheapest, or the best.

Reference: [3DRF] section 4.2 and [IF], kernel-level decomposer; the budgets are beyond the papers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, cast

from torch import Tensor, nn

from ifspace.answer import Status
from ifspace.errors import SettingError
from ifspace.models.asked import Given, blocks_asked, budgets_asked
from ifspace.models.candidates import Replaced, choice, replacements
from ifspace.models.changing.replace import Replace
from ifspace.models.edits import Image, applied, attach, edits_of
from ifspace.models.graph import Trace
from ifspace.models.sites import LEAST_CHANNELS, ConvSite, Skipped, sites_of
from ifspace.models.tracing import checked_model
from ifspace.models.tracing import trace as traced
from ifspace.models.warm_start import Fit, random_images
from ifspace.models.warm_start import warm_start as fitted
from ifspace.nn.blocks import Style, block_style
from ifspace.nn.checks import check_seed, unwrapped
from ifspace.nn.networks import seeded
from ifspace.stages.latency import LatencyTable
from ifspace.stages.problem import Budgets
from ifspace.stages.replacement import (
    Amount,
    Objective,
    ReplacementAnswer,
    ReplacementProblem,
    best_replacement,
)
from ifspace.values import whole_number

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
    answer: ReplacementAnswer | None = None
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
        if self.answer is None or self.answer.plan is not None:
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
            got=", ".join(f"{name} {_text(most)}" for name, most in self.budgets.given.items()),
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
    PointwiseConv2d(16, 32, kernel_size=(1, 1), stride=(1, 1))

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
    if fit and (budgets.given or latency is not None):
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
        name: most - rest.get(name, 0) for name, most in plan.budgets.given.items()
    }
    sites = tuple(choice(site, made, latency) for site, made in fit.items())
    answer = best_replacement(ReplacementProblem(sites, Budgets(**left), objective), time_limit_s)
    chosen = (0,) * len(sites) if answer.plan is None else answer.plan.chosen
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
