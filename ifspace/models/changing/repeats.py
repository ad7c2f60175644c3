"""The units of a stage that can go, and what one more is like.

A unit can go where its output has the shape of its input. One more is a copy of such a unit, or of
one that changes the width, made to keep it.

Reference: [3DRF] section 4.1.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from ifspace.errors import IfspaceError
from ifspace.models.changing.rows import children_of, is_row, is_tail, run_of
from ifspace.models.changing.surgery import copied
from ifspace.models.graph import (
    Trace,
    TracedLayer,
)
from ifspace.models.tracing import trace
from ifspace.models.units import (
    TracedStage,
    Unit,
    within,
)
from ifspace.nn.blocks import ACTIVATIONS

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
            run_of(self.empty, unit.names)
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
            row = nn.Sequential(*copied(self.empty, unit.names, end.channels).values())
            made = trace(row, (end.channels, *end.side))
        except IfspaceError:
            return None
        last = made.nodes[-1]
        if (last.channels, last.side) != (end.channels, end.side):
            return None
        return Repeat(
            unit,
            end.channels,
            self._activation(unit),
            made.params,
            made.macs,
            made,
            0,
            last.number,
        )

    def _keeps_shape(self, unit: Unit, before: Unit) -> bool:
        """Return whether a unit reads the one before alone, and leaves a map of its shape."""
        if unit.inputs != (before.output,):
            return False
        entry, end = self.trace.nodes[before.output], self.trace.nodes[unit.output]
        return (entry.channels, entry.side) == (end.channels, end.side)

    def _parts(self, unit: Unit) -> Iterator[nn.Module]:
        """Yield the modules of a unit, and what goes along with them."""
        try:
            parent, keys = run_of(self.empty, unit.names)
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
        parent, _ = run_of(self.empty, unit.names)
        if is_row(parent) or any(True for part in self._parts(unit) for _ in part.children()):
            return None
        passed = self.trace.passed or {}
        known = [name for name in _OPERATORS if passed.get(name)]
        return _OPERATORS[max(known, key=lambda name: passed[name])] if known else None


def _inner(module: nn.Module) -> nn.Module:
    """Return what a row holds beside normalisation and activation, if that is one module."""
    if not is_row(module):
        return module
    inside = [each for each in module if not is_tail(each)]
    return _inner(inside[0]) if len(inside) == 1 else module
