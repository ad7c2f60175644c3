"""Stages of a network: their fields, gains and costs, counted from the blocks alone.

Reference: [IF] eqs. 1 to 4, [3DRF] section 4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise
from math import fsum

from ifspace.block import (
    SizedBlock,
    SizedLayer,
)
from ifspace.errors import SettingError
from ifspace.infofield import gain, spatial_field, volume
from ifspace.reach import channel_field, channel_fields
from ifspace.stages.frame import Frame


@dataclass(frozen=True, slots=True)
class Stage:
    """Units in a row on maps of side x side pixels.

    `first` maps the width of the stage before to this one's, with a stride of `stride`; `more`
    follows it. A unit is a block, the step by which the field is measured. `before`: layers of the
    stem that count here. `depth` counts them and the units.

    >>> from ifspace.block import Block
    >>> conv = Block.parse("CONV(3)").at(128)
    >>> stage = Stage(8, conv, conv, depth=3)
    >>> stage.volumes(), [round(each, 3) for each in stage.gains()]
    ((1152, 3200, 6272), [1.166, 0.297])

    Reference: [IF] Table 1.
    """

    side: int
    first: SizedBlock
    more: SizedBlock
    depth: int = 1
    stride: int = 1
    before: tuple[SizedLayer, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a depth that leaves no unit."""
        if self.depth < self.least_depth:
            raise SettingError.because(
                "a stage without a block",
                got=f"depth {self.depth}",
                allowed=f"{self.least_depth} or more",
                remedy="give every stage at least one block",
                argument="depths",
            )

    @property
    def least_depth(self) -> int:
        """The depth with one unit."""
        return len(self.before) + 1

    @property
    def units(self) -> tuple[SizedBlock, ...]:
        """The blocks in a row."""
        return (self.first, *(self.more for _ in range(self.depth - self.least_depth)))

    @property
    def width(self) -> int:
        """Channels that leave the stage."""
        return self.first.out_channels

    @property
    def layers(self) -> int:
        """Layers of the units, shuffles included."""
        return sum(len(unit.layers) for unit in self.units)

    def at_depth(self, depth: int) -> "Stage":
        """Return the stage with another depth."""
        return replace(self, depth=depth)

    def volumes(self) -> tuple[int, ...]:
        """Return the exact information field after each counted layer or unit, in elements.

        Reference: [IF] eqs. 1 to 3.
        """
        return _volumes(self)

    def gains(self, alpha: float = 3) -> tuple[float, ...]:
        """Return the gain of each unit but the first, which has none.

        Reference: [IF] eq. 4.
        """
        sees = self.volumes()
        entry = self.before[0].c_in if self.before else self.first.channels
        v0 = volume(self.side, entry, self.first.dims)
        return tuple(gain(a, b, v0, alpha) for a, b in pairwise(sees))

    def last_gain(self, alpha: float = 3) -> float:
        """Return the gain of the last unit, that which `at_depth(depth - 1)` would lose."""
        return self.gains(alpha)[-1]

    def next_gain(self, alpha: float = 3) -> float:
        """Return the gain of one more unit."""
        return self.at_depth(self.depth + 1).last_gain(alpha)


@cache
def _volumes(stage: Stage) -> tuple[int, ...]:
    opening = [(layer,) for layer in stage.before]
    units = (*opening, *(unit.layers for unit in stage.units))
    chain = tuple(layer for unit in units for layer in unit)
    entry, dims = chain[0].c_in, chain[0].dims
    if channel_field(units[0]) == entry:
        # Every layer reads some channel below: once all is seen, all stays seen.
        sees: Sequence[int] = [entry] * len(units)
    else:
        each = channel_fields(chain)
        sees = [each[end - 1] for end in accumulate(map(len, units))]
    # A chain reaches as far as one kernel of its field.
    reach = accumulate(spatial_field([layer.kernel for layer in unit]) - 1 for unit in units)
    sides = (spatial_field([more + 1], stage.side) for more in reach)
    return tuple(volume(w, c, dims) for w, c in zip(sides, sees, strict=True))


@dataclass(frozen=True, slots=True)
class Layout:
    """The stages of a network in their frame, and what they gain and cost together.

    >>> from ifspace.stages.networks import network
    >>> vgg = network("vgg16", 32)
    >>> vgg.depths, vgg.params, vgg.at_depths((5, 4, 2, 1, 1)).params
    ((2, 2, 3, 3, 3), 14724042, 5098826)
    """

    stages: tuple[Stage, ...]
    frame: Frame

    @property
    def depths(self) -> tuple[int, ...]:
        """Units of each stage, with the layers of the stem that count."""
        return tuple(stage.depth for stage in self.stages)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(stage.width for stage in self.stages)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The block that each stage repeats; where there is one unit only, that one."""
        return tuple(str(stage.units[-1].block) for stage in self.stages)

    @property
    def image(self) -> int:
        """The side of the images that the network takes."""
        if self.frame.image is not None:
            return self.frame.image
        first = self.stages[0]
        return self.frame.stem[0].side if self.frame.stem else first.side * first.stride

    @property
    def first_blocks(self) -> tuple[str, ...]:
        """The block that each stage opens with, from the width of the stage before."""
        return tuple(str(stage.first.block) for stage in self.stages)

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return self.frame.params(self.widths[-1]) + sum(
            self.frame.unit_params(unit, opens=place == 0)
            for stage in self.stages
            for place, unit in enumerate(stage.units)
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.frame.macs(self.widths[-1]) + sum(
            self.frame.unit_macs(unit, stage.side, 1 if place else stage.stride, place == 0)
            for stage in self.stages
            for place, unit in enumerate(stage.units)
        )

    @property
    def layers(self) -> int:
        """Layers of all units, shuffles included; stem and classifier not."""
        return sum(stage.layers for stage in self.stages)

    @property
    def width_sum(self) -> int:
        """Channels that leave each unit, summed; stem and classifier not."""
        return sum(unit.out_channels for stage in self.stages for unit in stage.units)

    def gain(self, alpha: float = 3) -> float:
        """Return the total gain: of every unit that is not the first of its stage.

        Reference: [IF] eq. 4.
        """
        return fsum(each for stage in self.stages for each in stage.gains(alpha))

    def at_depths(self, depths: Sequence[int]) -> "Layout":
        """Return the layout with other depths.

        Raises: SettingError for a wrong number of depths, or a stage without a block.
        """
        if len(depths) != len(self.stages):
            raise SettingError.because(
                "wrong number of depths",
                got=", ".join(map(str, depths)),
                allowed=f"{len(self.stages)}, one for each stage",
                remedy="give a depth to every stage",
                argument="depths",
            )
        return replace(
            self,
            stages=tuple(s.at_depth(d) for s, d in zip(self.stages, depths, strict=True)),
        )
