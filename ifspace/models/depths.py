"""The stages of a traced network by their depths: what units more or fewer see and cost.

A unit can go where its output has the shape of its input: the last such one goes first. One more is
a copy of the last such unit, put behind it; or, where a stage has none, of its last unit of a class
that can go elsewhere, made to keep its width. The other units stay: they change the width or the
side, and what follows counts on it.

Reference: [3DRF] section 4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import fsum, inf
from typing import Final

from torch import nn

from ifspace.infofield import gain
from ifspace.models.changing.repeats import Repeat, Units
from ifspace.models.changing.surgery import Append, Remove
from ifspace.models.changing.widening import without_values
from ifspace.models.fields import Stretch
from ifspace.models.graph import Trace
from ifspace.models.units import TracedStage

# Stands in a row for a unit that was not traced.
COPY: Final = -1


class DepthStage:
    """A stage that may have other depths than it was traced with.

    `end` is the unit behind which one more is put, `movable` are those that can go, by place.
    """

    def __init__(self, units: Units, stage: TracedStage, movable: Sequence[int], end: int) -> None:
        self.trace, self.stage, self.units = units.trace, stage, stage.units
        self.movable, self.end = list(movable), end
        self.unit_params = [units.params(unit) for unit in self.units]
        self.unit_macs = [units.macs(unit) for unit in self.units]
        self.repeat: Repeat | None = (
            units.one_more(self.units[end]) if movable else units.widened(self.units[end])
        )
        self._volumes: dict[int, tuple[int, ...]] = {}

    @property
    def traced_depth(self) -> int:
        """Units as it was traced."""
        return len(self.units)

    @property
    def least_depth(self) -> int:
        """Units that stay."""
        return len(self.units) - len(self.movable)

    def places(self, depth: int) -> list[int]:
        """Return which of the traced units are left at a depth."""
        gone = max(0, len(self.units) - depth)
        away = set(self.movable[len(self.movable) - gone :])
        return [place for place in range(len(self.units)) if place not in away]

    def row(self, depth: int) -> list[int]:
        """Return the units at a depth in the order in which they run, `COPY` for one more."""
        found = self.places(depth)
        more = [COPY] * (depth - len(self.units))
        at = found.index(self.end) + 1 if more else len(found)
        return [*found[:at], *more, *found[at:]]

    def last(self, depth: int) -> int:
        """Return where in the row the unit stands that would go first, or was put there last."""
        row = self.row(depth)
        may_go = {*self.movable, COPY}
        return max((at for at, place in enumerate(row) if place in may_go), default=len(row) - 1)

    def params(self, depth: int) -> int:
        """Return the parameters of the units at a depth."""
        return self._cost(depth, self.unit_params, self.repeat.params if self.repeat else 0)

    def macs(self, depth: int) -> int:
        """Return the multiply-accumulates of the units at a depth, for one image."""
        return self._cost(depth, self.unit_macs, self.repeat.macs if self.repeat else 0)

    def _cost(self, depth: int, each: Sequence[int], more: int) -> int:
        kept = sum(each[place] for place in self.places(depth))
        return kept + more * max(0, depth - len(self.units))

    def volumes(self, depth: int) -> tuple[int, ...]:
        """Return the field in elements after each unit at a depth.

        Reference: [IF] eqs. 1 to 3.
        """
        if depth not in self._volumes:
            self._volumes[depth] = tuple(self._walk(depth))
        return self._volumes[depth]

    def _walk(self, depth: int) -> list[int]:
        stage = self.stage
        found: list[int] = []
        seen = stage.stretch.seen(self.units[0].output)
        for at, place in enumerate(self.row(depth)):
            stretch, output = stage.stretch, self.units[place].output
            inputs = self.units[place].inputs
            if place == COPY:
                more = self.repeat
                assert more is not None
                stretch, output = Stretch(more.trace, (), {more.entry: seen}), more.output
            elif place != at and len(inputs) == 1:
                # The row before it is another: it reads what the last one left.
                stretch = Stretch(self.trace, (), {inputs[0]: seen})
            found.append(stretch.field(output, stage.side).volume)
            seen = stretch.seen(output)
        return found

    def gains(self, depth: int, alpha: float) -> tuple[float, ...]:
        """Return the gain of each unit but the first, at a depth.

        Reference: [IF] eq. 4.
        """
        return tuple(
            gain(a, b, self.stage.elements, alpha) for a, b in pairwise(self.volumes(depth))
        )


@dataclass(frozen=True, slots=True)
class AtDepth:
    """A stage at a depth, as the organizer sees it."""

    held: DepthStage
    depth: int

    @property
    def least_depth(self) -> int:
        """Units that stay."""
        return self.held.least_depth

    def gains(self, alpha: float) -> tuple[float, ...]:
        """Return the gain of each unit but the first."""
        return self.held.gains(self.depth, alpha)

    def last_gain(self, alpha: float) -> float:
        """Return the gain of the last unit."""
        return self.gains(alpha)[self.held.last(self.depth) - 1]

    def next_gain(self, alpha: float) -> float:
        """Return the gain of one more unit; of a stage that can have none, less than any."""
        if self.held.repeat is None and self.depth >= self.held.traced_depth:
            return -inf
        return replace(self, depth=self.depth + 1).last_gain(alpha)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TracedLayout:
    """A traced network at some depths: its stages, and what the rest of it has and costs."""

    stages: tuple[AtDepth, ...]
    rest_params: int
    rest_macs: int

    @classmethod
    def of(cls, found: Trace, model: nn.Module, stages: Sequence[TracedStage]) -> "TracedLayout":
        """Return the layout of a network as it was traced.

        A stage takes part if one of its units can go, or one is of a class of those that can go
        elsewhere: the single convolution before the blocks of a residual network does not.
        """
        units = Units(found, without_values(model))
        movable = [units.movable(stage) for stage in stages]
        repeated = {
            units.sort(stage.units[place])
            for stage, places in zip(stages, movable, strict=True)
            for place in places
        }
        held = []
        for stage, places in zip(stages, movable, strict=True):
            like = [
                place
                for place, unit in enumerate(stage.units)
                if units.sort(unit) in repeated and units.stands_alone(unit)
            ]
            if like:
                held.append(DepthStage(units, stage, places, (places or like)[-1]))
        return cls(
            tuple(AtDepth(each, each.traced_depth) for each in held),
            found.params - sum(each.params(each.traced_depth) for each in held),
            found.macs - sum(each.macs(each.traced_depth) for each in held),
        )

    @property
    def depths(self) -> tuple[int, ...]:
        """Units of each stage."""
        return tuple(stage.depth for stage in self.stages)

    def at_depths(self, depths: Sequence[int]) -> "TracedLayout":
        """Return the layout with other depths."""
        pairs = zip(self.stages, depths, strict=True)
        return replace(self, stages=tuple(replace(stage, depth=each) for stage, each in pairs))

    def __repr__(self) -> str:
        """Return depths and totals."""
        return (
            f"<TracedLayout of depths {self.depths}: {self.params:,} parameters, "
            f"{self.macs:,} MACs>"
        )

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return self.rest_params + sum(each.held.params(each.depth) for each in self.stages)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.rest_macs + sum(each.held.macs(each.depth) for each in self.stages)

    def gain(self, alpha: float = 3) -> float:
        """Return the total gain of the units.

        Reference: [3DRF] section 4.1.
        """
        return fsum(gain for each in self.stages for gain in each.gains(alpha))

    def steps(self) -> tuple[Remove | Append, ...]:
        """Return the steps that make the traced network this one.

        Units behind are changed first: those before keep their names.
        """
        found: list[Remove | Append] = []
        for stage in reversed(self.stages):
            held, units = stage.held, stage.held.units
            extra = stage.depth - len(units)
            if held.repeat is not None and extra > 0:
                like = held.repeat.unit.names
                found.append(
                    Append(
                        units[held.end].names,
                        like,
                        held.repeat.channels,
                        extra,
                        held.repeat.activation,
                    )
                )
            left = set(held.places(stage.depth))
            found += [
                Remove(unit.names)
                for place, unit in reversed(list(enumerate(units)))
                if place not in left
            ]
        return tuple(found)
