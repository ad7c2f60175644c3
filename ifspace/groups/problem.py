"""Group counts asked for and found: problems, plans, and checks that know no solver."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, get_args

from ifspace.answer import Status
from ifspace.block import Block, Composition, Layer, SizedBlock, SizedLayer, check_length
from ifspace.catalogue.setting import (
    DEFAULT_OVERLAPS,
    Objective,
)
from ifspace.errors import SettingError
from ifspace.kinds import find_kind, step
from ifspace.reach import channel_field
from ifspace.values import MAX_WIDTH, exact_bottleneck, exact_overlaps, odd_number, whole_number

Weights = tuple[int, int, int]
MAX_KERNEL: Final = 999
MAX_WEIGHT: Final = 10**6
# Costs are minimised in 64 bits, with a sign, and half of that is left to the solver.
MAX_COST: Final = 2**62
_PLAIN: Final[dict[str, Weights]] = {
    "params": (1, 0, 0),
    "macs": (0, 1, 0),
    "activations": (0, 0, 1),
}


@dataclass(frozen=True, slots=True)
class GroupsProblem:
    """Which groups and overlaps make a composition cheapest at the full field.

    Widths are in channels: `channels` in, `out_channels` out, inside either a `bottleneck` ratio of
    out_channels or `widths`, one behind each channel-mixing layer but the last. `overlaps` None
    means any: every step from 1 to the window's width. `weights` of parameters, MACs and
    activations make a sum to minimise; `objective` is one of them alone.

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

    def __post_init__(self) -> None:
        """Make the values canonical; refuse what no block could have."""
        put = object.__setattr__
        check_length(self.composition)
        put(self, "channels", whole_number(self.channels, "channels", 1, MAX_WIDTH))
        out = self.channels if self.out_channels is None else self.out_channels
        put(self, "out_channels", whole_number(out, "out_channels", 1, MAX_WIDTH))
        put(self, "bottleneck", exact_bottleneck(self.bottleneck, self.out_width))
        if self.widths is not None:
            widths = tuple(whole_number(each, "widths", 1, MAX_WIDTH) for each in self.widths)
            put(self, "widths", widths)
        put(self, "kernel", odd_number(self.kernel, "kernel", 1, MAX_KERNEL))
        if self.overlaps is not None:
            put(self, "overlaps", exact_overlaps(self.overlaps))
        put(self, "stride", whole_number(self.stride, "stride", 1, 2))
        put(self, "dims", whole_number(self.dims, "dims", 1, 2))
        allowed = get_args(Objective)
        if self.objective not in allowed:
            raise SettingError.because(
                "unknown objective",
                got=repr(self.objective),
                allowed=", ".join(allowed),
                remedy="choose one of them",
                argument="objective",
            )
        if self.weights is not None:
            put(self, "weights", _exact_weights(self.weights))
        self._check_cost()  # widths that contradict each other are refused now, too

    @property
    def out_width(self) -> int:
        """The width F that leaves the block, in channels."""
        return self.channels if self.out_channels is None else self.out_channels

    @property
    def chain(self) -> tuple[SizedLayer, ...]:
        """The layers of all copies at their widths, with one group each as a stand-in."""
        layers = tuple(_stand_in(kind, self.kernel) for kind in self.composition.kinds)
        return self.sized(Block(layers, self.composition.repeats)).layers

    def sized(self, block: Block) -> SizedBlock:
        """Return a block at the problem's widths.

        Raises: BlockError when it does not fit them.
        """
        return block.at(
            self.channels, self.out_width, self.bottleneck, self.dims, widths=self.widths
        )

    def amount(self, block: Block) -> int:
        """Return what is minimised, in whole numbers: the weighted sum for one block."""
        sized = self.sized(block)
        weights = self.weights or _PLAIN[self.objective]
        measures = (
            sized.params,
            sized.macs_per_pixel(self.stride),
            sized.activations_per_pixel(self.stride),
        )
        return sum(weight * measure for weight, measure in zip(weights, measures, strict=True))

    def _check_cost(self) -> None:
        """Refuse what the solver could not count: the dearest choice, times the choices of a layer.

        A layer has a choice for every step of the window of every divisor at most: less than
        (1 + log C) x C, so 10 C below 4096 channels.
        """
        chain = self.chain
        most = MAX_COST // (1 + 10 * sum(layer.c_in for layer in chain))
        dearest = Block(
            tuple(each.layer for each in chain[: len(self.composition)]), self.composition.repeats
        )
        if (cost := self.amount(dearest)) > most:
            raise SettingError.because(
                "cost too large to be minimised exactly",
                got=f"up to {cost:,}",
                allowed=f"up to {most:,} at these widths",
                remedy="lower the kernel, the weights or the widths",
            )


def ratio_above_zero(value: Any, name: str) -> Fraction:
    """Return an exact ratio above 0, or refuse it with the name that the caller knows it by.

    >>> ratio_above_zero(2, "alpha")
    Fraction(2, 1)

    Raises: SettingError for a float, which is not exact, too.
    """
    if isinstance(value, Fraction | int) and value > 0:
        return Fraction(value)
    raise SettingError.because(
        f"{name} out of range",
        got=value if isinstance(value, Fraction) else repr(value),
        allowed="ratios above 0, exact",
        remedy="write it like 1/4, 3/2 or 2",
        argument=name,
    )


def _exact_weights(weights: Iterable[int]) -> Weights:
    exact = tuple(whole_number(each, "weights", 0, MAX_WEIGHT) for each in weights)
    if len(exact) != 3 or not any(exact):
        raise SettingError.because(
            "weights out of range",
            got=", ".join(map(str, exact)) or "none",
            allowed=f"three whole numbers from 0 to {MAX_WEIGHT}, one above 0",
            remedy="weigh parameters, MACs and activations in that order",
            argument="weights",
        )
    params, macs, activations = exact
    return params, macs, activations


def _stand_in(kind: str, kernel: int) -> Layer:
    row = find_kind(kind)
    return Layer(
        kind,
        1 if row.takes_groups else None,
        Fraction(0) if row.takes_overlap else None,
        kernel if row.spatial else None,
    )


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A block at its widths with what it costs, counted again from the block alone."""

    problem: GroupsProblem
    block: Block

    @property
    def sized(self) -> SizedBlock:
        """The block at the problem's widths."""
        return self.problem.sized(self.block)

    def objective(self) -> int:
        """Return what was minimised, recomputed in integers."""
        return self.problem.amount(self.block)

    def check(self) -> None:
        """Recount legality and the exact field; know no solver.

        Raises: SettingError naming what does not hold.
        """
        problem = self.problem
        sized = self.sized  # groups divide the widths, or this raises
        faults = []
        if self.block.composition != problem.composition:
            faults.append(f"the composition is {self.block.composition}")
        if channel_field(sized.layers) != problem.channels:
            faults.append(f"an output sees {channel_field(sized.layers)} channels")
        faults.extend(
            f"the kernel of {layer.layer} is not {problem.kernel}"
            for layer in sized.layers
            if layer.conv.spatial and layer.kernel != problem.kernel
        )
        faults.extend(
            f"{layer.layer} has a trivial group count"
            for layer in sized.layers
            if layer.conv.takes_groups and not _is_legal(layer)
        )
        faults.extend(
            f"the overlap of {layer.layer} is not on the grid"
            for layer in sized.layers
            if problem.overlaps is not None
            and layer.conv.takes_overlap
            and layer.step not in {step(layer.fan_in, each) for each in problem.overlaps}
        )
        if faults:
            raise SettingError.because(
                "a plan that does not hold",
                got=f"{self.block}: {'; '.join(faults)}",
                allowed=f"{problem.composition} with all {problem.channels} channels seen",
                remedy="ask for the plan again",
            )


def _is_legal(layer: SizedLayer) -> bool:
    choices = layer.conv.choices(layer.c_in, layer.c_out, (Fraction(0),))
    return layer.groups in [groups for groups, _ in choices]


@dataclass(frozen=True, slots=True)
class GroupsAnswer:
    """How a search ended, the plans found, best first, and what no plan can be below.

    Status and bound are those of the first plan. `up_to` is the greatest width looked at where a
    wider block might have fitted as well; None where the answer holds for all widths.
    """

    status: Status
    bound: int | None
    plans: tuple[GroupPlan, ...]
    up_to: int | None = None
