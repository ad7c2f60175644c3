"""The stages of a traced network at other depths: what units more or fewer see and cost.

A unit can be removed where its output has the shape of its input; the last such unit goes first.
One more unit is a copy of the last removable unit, put behind it; where a stage has none, a copy of
its last unit of a class that is removable elsewhere, changed to keep its width. All other units
stay: they change the width or the spatial size, and the layers behind them depend on it.

Reference: [3DRF] section 4.1.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import fsum, inf
from typing import Final

from torch import nn

from ifspace.errors import IfspaceError
from ifspace.infofield import gain
from ifspace.models.fields import Propagation
from ifspace.models.graph import (
    Trace,
    TracedLayer,
)
from ifspace.models.surgery import (
    Append,
    Remove,
    children_of,
    copy_of_unit,
    is_follower,
    is_sequential,
    modules_of_unit,
    without_values,
)
from ifspace.models.tracing import trace
from ifspace.models.units import (
    TracedStage,
    Unit,
    within,
)
from ifspace.nn.block import ACTIVATIONS

# What an activation is called among the operators that a network calls, and here.
_OPERATORS: Final = {**{name: name for name in ACTIVATIONS}, "hardtanh": "relu6"}


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """What one more unit of a stage is like.

    `unit` is copied, at other `channels` and behind an `activation` as in `Append`; `trace` has its
    maps, from `entry` to `output`; `params` and `macs` are those of the copy.
    """

    unit: Unit
    channels: int | None
    activation: str | None
    params: int
    macs: int
    trace: Trace
    entry: int
    output: int


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The units of a traced network as its modules hold them.

    `empty` is a copy of the network without values, to copy units from.
    """

    trace: Trace
    empty: nn.Module

    def movable(self, stage: TracedStage) -> list[int]:
        """Return the places in a stage of the units that can go, the first never."""
        called = Counter(layer.name for layer in self.trace.all_layers)
        return [
            place
            for place, unit in enumerate(stage.units)
            if place
            and self._keeps_shape(unit, stage.units[place - 1])
            and self.stands_alone(unit)
            and max(called[layer.name] for layer in self._layers(unit)) == 1
        ]

    def stands_alone(self, unit: Unit) -> bool:
        """Return whether a unit's modules stand together, and nowhere else, nor their weights."""
        try:
            modules_of_unit(self.empty, unit.names)
        except IfspaceError:
            return False
        weights = {id(each) for part in self._parts(unit) for each in part.parameters()}
        known = [
            part
            for _, part in self.empty.named_modules(remove_duplicate=False)
            if any(id(each) in weights for each in part.parameters(recurse=False))
        ]
        inside = {id(each) for part in self._parts(unit) for each in part.modules()}
        paths = Counter(map(id, known))
        return all(id(part) in inside and paths[id(part)] == 1 for part in known)

    def sort(self, unit: Unit) -> tuple[type[nn.Module], ...]:
        """Return the classes of a unit's modules; a row around one of them does not matter."""
        return tuple(type(_inner(self.empty.get_submodule(name))) for name in unit.names)

    def params(self, unit: Unit) -> int:
        """Return the parameters that go with a unit."""
        found = {id(each): each for part in self._parts(unit) for each in part.parameters()}
        return sum(each.numel() for each in found.values())

    def macs(self, unit: Unit) -> int:
        """Return the multiply-accumulates of a unit, for one image."""
        return sum(layer.macs for layer in self._layers(unit))

    def one_more(self, unit: Unit) -> Repeat:
        """Return what a copy of a unit is like that can go itself."""
        return Repeat(
            unit,
            None,
            self._activation(unit),
            self.params(unit),
            self.macs(unit),
            self.trace,
            unit.inputs[0],
            unit.output,
        )

    def widened(self, unit: Unit) -> Repeat | None:
        """Return what a copy is like that keeps the width of a unit, None where there is none."""
        end = self.trace.nodes[unit.output]
        if len(unit.inputs) != 1:
            return None
        try:
            row = nn.Sequential(*copy_of_unit(self.empty, unit.names, end.channels).values())
            made = trace(row, (end.channels, *end.size))
        except IfspaceError:
            return None
        last = made.nodes[-1]
        if (last.channels, last.size) != (end.channels, end.size):
            return None
        return Repeat(
            unit,
            end.channels,
            self._activation(unit),
            made.params,
            made.macs,
            made,
            0,
            last.index,
        )

    def _keeps_shape(self, unit: Unit, before: Unit) -> bool:
        """Return whether a unit reads the one before alone, and leaves a map of its shape."""
        if unit.inputs != (before.output,):
            return False
        entry, end = self.trace.nodes[before.output], self.trace.nodes[unit.output]
        return (entry.channels, entry.size) == (end.channels, end.size)

    def _parts(self, unit: Unit) -> Iterator[nn.Module]:
        """Yield the modules of a unit, and what goes along with them."""
        try:
            parent, keys = modules_of_unit(self.empty, unit.names)
        except IfspaceError:
            yield from (self.empty.get_submodule(name) for name in unit.names)
        else:
            children = children_of(parent)
            yield from (children[key] for key in keys)

    def _layers(self, unit: Unit) -> Sequence[TracedLayer]:
        """Return the layers of a unit, those of gates inside it too."""
        own = [self.trace.nodes[number].layer for number in unit.nodes]
        inside = [
            layer
            for layer in self.trace.gates
            if any(within(layer.name, name) for name in unit.names)
        ]
        return [*(layer for layer in own if layer is not None), *inside]

    def _activation(self, unit: Unit) -> str | None:
        """Return what to put before a copy of bare layers that no row activates."""
        parent, _ = modules_of_unit(self.empty, unit.names)
        if is_sequential(parent) or any(
            True for part in self._parts(unit) for _ in part.children()
        ):
            return None
        passed = self.trace.passed or {}
        known = [name for name in _OPERATORS if passed.get(name)]
        return _OPERATORS[max(known, key=lambda name: passed[name])] if known else None


def _inner(module: nn.Module) -> nn.Module:
    """Return what a row holds beside normalisation and activation, if that is one module."""
    if not is_sequential(module):
        return module
    inside = [each for each in module if not is_follower(each)]
    return _inner(inside[0]) if len(inside) == 1 else module


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
    def min_depth(self) -> int:
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
        seen = stage.propagation.fields(self.units[0].output)
        for at, place in enumerate(self.row(depth)):
            propagation, output = stage.propagation, self.units[place].output
            inputs = self.units[place].inputs
            if place == COPY:
                more = self.repeat
                assert more is not None
                propagation, output = Propagation(more.trace, (), {more.entry: seen}), more.output
            elif place != at and len(inputs) == 1:
                # The row before it is another: it reads what the last one left.
                propagation = Propagation(self.trace, (), {inputs[0]: seen})
            found.append(propagation.field(output, stage.side).volume)
            seen = propagation.fields(output)
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
    def min_depth(self) -> int:
        """Units that stay."""
        return self.held.min_depth

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
