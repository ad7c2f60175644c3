"""Define group-count problems, their plans and answers; a plan checks itself without a solver."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import Final, Literal, get_args

from ifspace.answer import Answer
from ifspace.block import Block, Composition, SizedBlock, SizedLayer
from ifspace.catalogue.setting import DEFAULT_OVERLAPS, Objective, RpwOrder, orders_of
from ifspace.errors import ARGUMENT, SettingError
from ifspace.floors import NO_FLOORS, Floors
from ifspace.kinds import step
from ifspace.reach import Reference, channel_field, field_after, quality, removable_layers
from ifspace.values import (
    MAX_WIDTH,
    choice,
    exact_bottleneck,
    exact_overlaps,
    odd_number,
    parse_ratio,
    ratio_above_zero,
    set_fields,
    whole_number,
)

Weights = tuple[int, int, int]
MAX_KERNEL: Final = 999
MAX_WEIGHT: Final = 10**6
# Costs are minimised as signed 64-bit numbers, and half of their range is left to the solver.
MAX_COST: Final = 2**62
_WEIGHTS_OF: Final[dict[str, Weights]] = {
    "params": (1, 0, 0),
    "macs": (0, 1, 0),
    "activations": (0, 0, 1),
}


@dataclass(frozen=True, slots=True)
class GroupsProblem:
    """Which groups and overlaps make a composition cheapest at the full field?

    Widths are in channels: `channels` in, `out_channels` out, inside either a `bottleneck` ratio of
    out_channels or `widths`, one behind each channel-mixing layer but the last. `overlaps` None
    allows every step from 1 to the window's width, `rpw_order` one order of RPW or both.
    `objective` is the amount to minimise; `weights`
    of parameters, MACs and activations replace it by their weighted sum. `floors` hold for
    the layers of all copies. `most_peak`: the most elements that may be live at once per output
    pixel; groups do not change how many are, so no choice or every one keeps it.

    >>> problem = GroupsProblem(Composition.parse("DW+RPW+RPW"), 64)
    >>> problem.amount(Block.parse("DW+RPW(8,0)+RPW(8,0)"))
    1600

    Raises: SettingError or BlockError for widths, ratios, overlaps, kernel or weights out of range,
        and for a composition or a cost that is too large.

    Reference: [Fog] section 3.3.
    """

    composition: Composition
    channels: int
    out_channels: int | None = None
    bottleneck: Fraction | None = None
    widths: tuple[int, ...] | None = None
    kernel: int = 3
    overlaps: tuple[Fraction, ...] | None = DEFAULT_OVERLAPS
    objective: Objective = "params"
    weights: Weights | None = None
    stride: Literal[1, 2] = 1
    dims: Literal[1, 2] = 2
    rpw_order: RpwOrder = "rolling"
    floors: Floors = NO_FLOORS
    most_peak: int | None = None

    def __post_init__(self) -> None:
        channels = whole_number(self.channels, "channels", 1, MAX_WIDTH)
        out_channels = channels if self.out_channels is None else self.out_channels
        out_channels = whole_number(out_channels, "out_channels", 1, MAX_WIDTH)
        bottleneck = exact_bottleneck(self.bottleneck, out_channels)
        widths = self.widths
        if widths is not None:
            widths = tuple(whole_number(width, "widths", 1, MAX_WIDTH) for width in widths)
        choice(self.objective, "objective", get_args(Objective))
        choice(self.rpw_order, "rpw_order", get_args(RpwOrder))
        set_fields(
            self,
            channels=channels,
            out_channels=out_channels,
            bottleneck=bottleneck,
            widths=widths,
            kernel=odd_number(self.kernel, "kernel", 1, MAX_KERNEL),
            overlaps=None if self.overlaps is None else exact_overlaps(self.overlaps),
            stride=whole_number(self.stride, "stride", 1, 2),
            dims=whole_number(self.dims, "dims", 1, 2),
            weights=None if self.weights is None else _exact_weights(self.weights),
        )
        self._check_cost()  # raises for widths that contradict each other, too

    @property
    def out_width(self) -> int:
        """The width F that leaves the block, in channels."""
        return self.channels if self.out_channels is None else self.out_channels

    @property
    def peak_per_pixel(self) -> int:
        """The elements that are live at once per output pixel, whatever the groups."""
        return self.sized(self._one_group).peak_per_pixel(self.stride)

    @property
    def peak_text(self) -> str:
        """What the peak memory is and may be, in words."""
        return (
            f"{self.peak_per_pixel:,} elements per output pixel are live at once, whatever the "
            f"groups, and {self.most_peak:,} may be"
        )

    @property
    def exceeds_peak(self) -> bool:
        """Whether every choice needs more peak memory than it may."""
        return self.most_peak is not None and self.peak_per_pixel > self.most_peak

    @property
    def widths_text(self) -> str:
        """The widths through the block, and the floors, as a reader says them.

        >>> GroupsProblem(Composition.parse("PW+DW+PW"), 64, bottleneck="1/4").widths_text
        '64 to 16 to 64 channels'
        """
        after = [layer.c_out for layer in self.chain if layer.conv.mixing]
        widths = [self.channels, *(after or [self.out_width])]
        widths = [widths[0], *(width for before, width in pairwise(widths) if before != width)]
        named = " to ".join(f"{width:,}" for width in widths)
        text = f"{named} {'channel' if widths == [1] else 'channels'}"
        return f"{text} with {self.floors}" if self.floors else text

    @property
    def orders(self) -> tuple[str, ...]:
        """The orders that an RPW layer may have."""
        return orders_of(self.rpw_order)

    @property
    def widths_inside(self) -> bool:
        """Whether the block has widths of its own inside: a bottleneck, or widths one by one."""
        return self.bottleneck is not None or self.widths is not None

    def group_counts(self, layer: SizedLayer) -> tuple[int | None, ...]:
        """Return the group counts that a layer of the chain may have, within the floors.

        They divide the widths of that layer: a shuffle behind the change of width permutes F
        channels. (None,) for a kind without groups, () where the floors rule it out.
        """
        counts = layer.conv.group_counts(layer.c_in, layer.c_out, may_copy=not self.widths_inside)
        return tuple(
            count
            for count in counts
            if self.floors.allow(layer.conv, layer.c_in, layer.c_out, count)
        )

    @property
    def chain(self) -> tuple[SizedLayer, ...]:
        """The layers of all copies at their widths, with one group each as a stand-in."""
        return self.sized(self._one_group).layers

    @property
    def _one_group(self) -> Block:
        return self.composition.with_one_group(self.kernel)

    def sized(self, block: Block) -> SizedBlock:
        """Return a block at the problem's widths.

        Raises: BlockError when it does not fit them.
        """
        return block.at(
            self.channels, self.out_width, self.bottleneck, self.dims, widths=self.widths
        )

    def amount(self, block: Block) -> int:
        """Return the whole number that is minimised, for one block."""
        sized = self.sized(block)
        weights = self.weights or _WEIGHTS_OF[self.objective]
        measures = (
            sized.params,
            sized.macs_per_pixel(self.stride),
            sized.activations_per_pixel(self.stride),
        )
        return sum(weight * measure for weight, measure in zip(weights, measures, strict=True))

    def _check_cost(self) -> None:
        """Raise for costs that the solver could not count.

        It counts the dearest choice times the options of a layer, at most two for every step of the
        window of every divisor: less than (1 + log C) x 2 C, so 20 C up to 4096 channels; and times
        the layers that may overlap.
        """
        chain = self.chain
        options = 1 + 20 * sum(layer.c_in for layer in chain)
        most = MAX_COST // (options * (1 + len(self.composition)))
        if (cost := self.amount(self._one_group)) > most:
            raise SettingError.because(
                "cost too large to be minimised exactly",
                got=f"up to {cost:,}",
                allowed=f"up to {most:,} at these widths",
                remedy="lower the kernel, the weights or the widths",
            )


@dataclass(frozen=True, slots=True)
class WidestProblem:
    """Which block of at most `budget` parameters is the widest, and of those the cheapest?

    The block has C channels in and alpha x C out, C a multiple of `multiple`, and no width above
    MAX_WIDTH. All other values mean what they mean in `GroupsProblem`.

    >>> composition = Composition.parse("PW+GPW")
    >>> WidestProblem(composition, 1600, multiple=6, bottleneck=Fraction(1, 4)).widths
    range(12, 4097, 12)

    Raises: SettingError for a budget, ratio or multiple below 1, and for ratios and a multiple that
        no width up to MAX_WIDTH fits; whatever `GroupsProblem` raises.

    Reference: [Fog] section 3.3, the widest C for given parameters.
    """

    composition: Composition
    budget: int
    alpha: Fraction = Fraction(1)
    multiple: int = 1
    bottleneck: Fraction | None = None
    kernel: int = 3
    overlaps: tuple[Fraction, ...] | None = DEFAULT_OVERLAPS
    stride: Literal[1, 2] = 1
    dims: Literal[1, 2] = 2
    rpw_order: RpwOrder = "rolling"
    floors: Floors = NO_FLOORS
    most_peak: int | None = None

    def __post_init__(self) -> None:
        set_fields(
            self,
            budget=whole_number(self.budget, "budget"),
            multiple=whole_number(self.multiple, "multiple"),
            alpha=ratio_above_zero(self.alpha, "alpha"),
        )
        shared = ("bottleneck", "kernel", "overlaps", "stride", "dims")
        stand_in = self.stand_in
        set_fields(self, **{name: getattr(stand_in, name) for name in shared})
        _ = self.widths  # raises where there is none

    @property
    def stand_in(self) -> GroupsProblem:
        """The same problem at equal widths in and out, which fit the bottleneck."""
        ratio = parse_ratio(self.bottleneck)
        width = 1 if ratio is None else min(ratio.denominator, MAX_WIDTH)
        return self._problem(width, width)

    @property
    def widths(self) -> range:
        """All widths C that are legal: multiples of the first."""
        inner = self.alpha * (self.bottleneck or 1)
        most = int(MAX_WIDTH / max(Fraction(1), self.alpha, inner))
        period = 1
        for name, value, divisor in (
            ("multiple", str(self.multiple), self.multiple),
            ("alpha", f"{self.alpha} at multiple {self.multiple}", self.alpha.denominator),
            ("bottleneck", f"{self.bottleneck} at alpha {self.alpha}", inner.denominator),
        ):
            period = lcm(period, divisor)
            if period > most:
                raise SettingError.because(
                    f"no width up to {MAX_WIDTH} fits {ARGUMENT}",
                    got=value,
                    allowed=f"C up to {most}, and {period} is the least that all of it fits",
                    remedy="choose a smaller multiple, or ratios of smaller numbers",
                    argument=name,
                )
        return range(period, most + 1, period)

    def at(self, channels: int) -> GroupsProblem:
        """Return the problem of the cheapest groups at one of the widths."""
        return self._problem(channels, int(self.alpha * channels))

    def _problem(self, channels: int, out_channels: int) -> GroupsProblem:
        return GroupsProblem(
            self.composition,
            channels,
            out_channels,
            bottleneck=self.bottleneck,
            kernel=self.kernel,
            overlaps=self.overlaps,
            stride=self.stride,
            dims=self.dims,
            rpw_order=self.rpw_order,
            floors=self.floors,
            most_peak=self.most_peak,
        )


def _exact_weights(weights: Iterable[int]) -> Weights:
    exact = tuple(whole_number(weight, "weights", 0, MAX_WEIGHT) for weight in weights)
    if len(exact) != 3 or not any(exact):
        raise SettingError.because(
            f"{ARGUMENT} out of range",
            got=", ".join(map(str, exact)) or "none",
            allowed=f"three whole numbers from 0 to {MAX_WEIGHT}, one above 0",
            remedy="weigh parameters, MACs and activations in that order",
            argument="weights",
        )
    params, macs, activations = exact
    return params, macs, activations


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A block that answers a groups problem; its cost is counted from the block alone."""

    problem: GroupsProblem
    block: Block

    @property
    def sized(self) -> SizedBlock:
        """The block at the problem's widths."""
        return self.problem.sized(self.block)

    @property
    def reference(self) -> Reference:
        """The field of the standard convolutions that the block replaces."""
        return Reference(self.problem.kernel, self.block.repeats)

    def objective(self) -> int:
        """Return the cost that was minimised, recomputed in integers."""
        return self.problem.amount(self.block)

    def check(self) -> None:
        """Check that the plan is legal and has the full field, exactly.

        Raises: SettingError with everything that is wrong; BlockError for groups that do not divide
            the widths.
        """
        problem = self.problem
        sized = self.sized
        faults = []
        if self.block.composition != problem.composition:
            faults.append(f"the composition is {self.block.composition}")
        if problem.exceeds_peak:
            faults.append(f"{problem.peak_per_pixel} elements are live at once")
        if channel_field(sized.layers) != problem.channels:
            faults.append(f"an output sees {channel_field(sized.layers)} channels")
        faults.extend(
            f"the kernel of {layer.layer} is not {problem.kernel}"
            for layer in sized.layers
            if layer.conv.spatial and layer.kernel != problem.kernel
        )
        faults.extend(
            f"{layer.layer} has a trivial group count, or one that the floors rule out"
            for layer in sized.layers
            if (layer.layer.groups if layer.conv.takes_groups else None)
            not in problem.group_counts(layer)
        )
        faults.extend(
            f"the overlap of {layer.layer} is not on the grid"
            for layer in sized.layers
            if problem.overlaps is not None
            and layer.conv.takes_overlap
            and layer.step not in {step(layer.fan_in, overlap) for overlap in problem.overlaps}
        )
        faults.extend(
            f"{layer.layer} is not in {problem.rpw_order} order"
            for layer in sized.layers
            if layer.conv.takes_overlap and layer.layer.order not in problem.orders
        )
        if faults:
            raise SettingError.because(
                "invalid plan",
                got=f"{self.block}: {'; '.join(faults)}",
                allowed=f"{problem.composition} with all {problem.channels} channels seen",
                remedy="solve the problem again",
            )


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a plan compares with the standard convolutions that it replaces, by the exact field.

    `field` is (pixels, channels) that an output sees; `quality`: it sees what they see;
    `removable`: the indices of single layers, counted through all copies, without which it still
    does. `ifspace show` says the same: without widths inside, a layer is removed at width C.

    Reference: [3DRF] section 4.2.
    """

    field: tuple[int, int]
    quality: bool
    removable: tuple[int, ...]

    @property
    def compact(self) -> bool:
        """Whether no single layer can be removed."""
        return not self.removable


def judge(plan: GroupPlan) -> Judgement:
    """Return how a plan compares with the standard convolutions that it replaces.

    >>> block = Block.parse("DW+PW+SH(2)")
    >>> judge(GroupPlan(GroupsProblem(block.composition, 64), block))
    Judgement(field=(3, 64), quality=True, removable=(2,))
    """
    problem, sized = plan.problem, plan.sized
    # A change of width alone is no reason to keep a layer, see `ifspace.show.describe`.
    even = sized if problem.widths_inside else sized.at_equal_widths()
    return Judgement(
        field_after(sized)[-1],
        quality(sized, plan.reference),
        removable_layers(even, plan.reference),
    )


@dataclass(frozen=True, slots=True)
class GroupsAnswer(Answer[GroupPlan]):
    """The cheapest plans of a groups problem, and a lower bound on the cost of any.

    `up_to` is the greatest width that was tried where a wider block might fit as well; None where
    the answer holds for all widths.
    """

    up_to: int | None = None

    @property
    def gap(self) -> int | None:
        """How much less than the first plan another may cost at most; None where not bounded."""
        if not self.plans or self.bound is None:
            return None
        return self.plans[0].objective() - int(self.bound)
