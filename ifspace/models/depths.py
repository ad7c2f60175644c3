"""The stages of a traced network at other depths: what units more or fewer see and cost.

A unit can be removed where its output has the shape of its input; the last such unit goes first.
One more unit is a copy of the last removable unit, put behind it; where a stage has none, a copy of
its last unit of a class that is removable elsewhere, changed to keep its width. All other units
stay: they change the width or the spatial size, and the layers behind them depend on it.

Reference: [3DRF] section 4.1.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import fsum, inf
from typing import Final

from torch import nn

from ifspace.errors import IfspaceError
from ifspace.models.fields import Propagation
from ifspace.models.gains import StageGains
from ifspace.models.graph import Trace, TracedLayer
from ifspace.models.rewiring import Part, is_joined, is_last, is_read_inside, is_tapped, rewired
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
from ifspace.models.units import TracedStage, Unit, within
from ifspace.nn.block import ACTIVATIONS

# Activation functions as operators of a network, and their names here.
_OPERATORS: Final = {**{name: name for name in ACTIVATIONS}, "hardtanh": "relu6"}
# Stands in the order of units for a copy, which was not traced.
COPY: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class UnitCopy:
    """One more unit of a stage, as it will be.

    `unit` is copied, at other `channels` and behind an `activation` as in `Append`; `part` are its
    feature maps; `params` and `macs` are those of the copy.
    """

    unit: Unit
    channels: int | None
    activation: str | None
    params: int
    macs: int
    part: Part


@dataclass(frozen=True, slots=True, eq=False)
class UnitModules:
    """The units of a traced network as modules.

    `shapes` is a copy of the network without values, to copy units from.
    """

    trace: Trace
    shapes: nn.Module

    def removable(self, stage: TracedStage) -> list[int]:
        """Return the indices in a stage of the units that can be removed; never the first.

        A unit stays that is read in its middle, by others than the unit behind it, or together
        with what it reads, and so does an output layer. None where a unit sees pixels that are not
        known: its gain is not known either.
        """
        if any(stage.field(unit.output).unknown for unit in stage.units):
            return []
        calls = Counter(layer.name for layer in self.trace.all_layers)
        return [
            index
            for index, unit in enumerate(stage.units)
            if index
            and self._keeps_shape(unit, stage)
            and not is_tapped(stage, unit)
            and not is_joined(self.trace, unit)
            and not self._is_output_layer(unit, stage)
            and self.is_separate(unit)
            and max(calls[layer.name] for layer in self._layers(unit)) == 1
        ]

    def is_separate(self, unit: Unit) -> bool:
        """Return whether a unit's modules stand together, and only there, as do their weights."""
        try:
            modules_of_unit(self.shapes, unit.names)
        except IfspaceError:
            return False
        weights = {id(weight) for part in self._parts(unit) for weight in part.parameters()}
        owners = [
            module
            for _, module in self.shapes.named_modules(remove_duplicate=False)
            if any(id(weight) in weights for weight in module.parameters(recurse=False))
        ]
        inside = {id(module) for part in self._parts(unit) for module in part.modules()}
        names = Counter(map(id, owners))
        return all(id(module) in inside and names[id(module)] == 1 for module in owners)

    def classes(self, unit: Unit) -> tuple[type[nn.Module], ...]:
        """Return the classes of a unit's modules, without an nn.Sequential around a single one."""
        return tuple(type(_unpacked(self.shapes.get_submodule(name))) for name in unit.names)

    def params(self, unit: Unit) -> int:
        """Return the parameters of a unit and of what belongs to it."""
        weights = {id(weight): weight for part in self._parts(unit) for weight in part.parameters()}
        return sum(weight.numel() for weight in weights.values())

    def macs(self, unit: Unit) -> int:
        """Return the multiply-accumulates of a unit, for one image."""
        return sum(layer.macs for layer in self._layers(unit))

    def copy_of(self, unit: Unit) -> UnitCopy:
        """Return the copy of a unit that can be removed itself."""
        return UnitCopy(
            unit,
            None,
            self._activation(unit),
            self.params(unit),
            self.macs(unit),
            Part(self.trace, unit.inputs[0], unit.output),
        )

    def widened_copy_of(self, unit: Unit) -> UnitCopy | None:
        """Return the copy of a unit changed to keep its width, None if there is no such copy."""
        end = self.trace.nodes[unit.output]
        if len(unit.inputs) != 1:
            return None
        try:
            copy = nn.Sequential(*copy_of_unit(self.shapes, unit.names, end.channels).values())
            copy_trace = trace(copy, (end.channels, *end.size))
        except IfspaceError:
            return None
        last = copy_trace.nodes[-1]
        if (last.channels, last.size) != (end.channels, end.size):
            return None
        return UnitCopy(
            unit,
            end.channels,
            self._activation(unit),
            copy_trace.params,
            copy_trace.macs,
            Part(copy_trace, 0, last.index),
        )

    def _keeps_shape(self, unit: Unit, stage: TracedStage) -> bool:
        """Return whether a unit reads only another one of the stage, and writes its shape."""
        outputs = {other.output for other in stage.units}
        if len(unit.inputs) != 1 or unit.inputs[0] not in outputs:
            return False
        entry, end = self.trace.nodes[unit.inputs[0]], self.trace.nodes[unit.output]
        same = (entry.channels, entry.size) == (end.channels, end.size)
        return same and not is_read_inside(stage, unit)

    def _is_output_layer(self, unit: Unit, stage: TracedStage) -> bool:
        """Return whether a unit is a bare layer whose output is returned, behind one that is not.

        Without it what is returned would be an activation.
        """
        before = next(other for other in stage.units if other.output == unit.inputs[0])
        return is_last(self.trace, unit) and self._is_bare(unit) and not self._is_bare(before)

    def _is_bare(self, unit: Unit) -> bool:
        """Return whether a unit has neither normalisation nor activation among its modules."""
        return not any(
            is_follower(module) for part in self._parts(unit) for module in part.modules()
        )

    def _parts(self, unit: Unit) -> Iterator[nn.Module]:
        """Yield the modules of a unit, and what belongs to them."""
        try:
            parent, keys = modules_of_unit(self.shapes, unit.names)
        except IfspaceError:
            yield from (self.shapes.get_submodule(name) for name in unit.names)
        else:
            children = children_of(parent)
            yield from (children[key] for key in keys)

    def _layers(self, unit: Unit) -> Sequence[TracedLayer]:
        """Return the layers of a unit, those of gates inside it too."""
        own = [self.trace.nodes[index].layer for index in unit.nodes]
        gates = [
            layer
            for layer in self.trace.gates
            if any(within(layer.name, name) for name in unit.names)
        ]
        return [*(layer for layer in own if layer is not None), *gates]

    def _activation(self, unit: Unit) -> str | None:
        """Return what to put before a copy of bare layers that the network's own code activates."""
        parent, _ = modules_of_unit(self.shapes, unit.names)
        if is_sequential(parent) or any(
            True for part in self._parts(unit) for _ in part.children()
        ):
            return None
        counts = self.trace.passed or {}
        called = [name for name in _OPERATORS if counts.get(name)]
        return _OPERATORS[max(called, key=lambda name: counts[name])] if called else None


def _unpacked(module: nn.Module) -> nn.Module:
    """Return the one module that an nn.Sequential holds beside norms and activations, if any."""
    if not is_sequential(module):
        return module
    layers = [child for child in module if not is_follower(child)]
    return _unpacked(layers[0]) if len(layers) == 1 else module


class AdjustableStage:
    """A stage that may have other depths than it was traced with.

    `removable`: the indices of the units that can be removed. `end`: the index of the unit behind
    which one more is put. `copy`: one more unit, None if there can be none.
    """

    def __init__(
        self, modules: UnitModules, traced: TracedStage, removable: Sequence[int], end: int
    ) -> None:
        self.trace, self.traced, self.units = modules.trace, traced, traced.units
        self.removable, self.end = list(removable), end
        self.unit_params = [modules.params(unit) for unit in self.units]
        self.unit_macs = [modules.macs(unit) for unit in self.units]
        last = self.units[end]
        self.copy = modules.copy_of(last) if removable else modules.widened_copy_of(last)
        self._changed: dict[int, TracedStage] = {}
        self._gains: dict[tuple[int, float, str], tuple[float, ...]] = {}

    @property
    def traced_depth(self) -> int:
        """The number of units as it was traced."""
        return len(self.units)

    @property
    def min_depth(self) -> int:
        """The number of units that stay."""
        return len(self.units) - len(self.removable)

    def kept(self, depth: int) -> list[int]:
        """Return the indices of the traced units that are left at a depth."""
        count = max(0, len(self.units) - depth)
        removed = set(self.removable[len(self.removable) - count :])
        return [index for index in range(len(self.units)) if index not in removed]

    def order(self, depth: int) -> list[int]:
        """Return the units at a depth in the order in which they run, `COPY` for one more."""
        indices = self.kept(depth)
        copies = [COPY] * (depth - len(self.units))
        end = indices.index(self.end) + 1 if copies else len(indices)
        return [*indices[:end], *copies, *indices[end:]]

    def last(self, depth: int) -> int:
        """Return the position in the order of the unit that is removed first or was added last."""
        order = self.order(depth)
        removable = {*self.removable, COPY}
        positions = (position for position, index in enumerate(order) if index in removable)
        return max(positions, default=len(order) - 1)

    def params(self, depth: int) -> int:
        """Return the parameters of the units at a depth."""
        return self._total(depth, self.unit_params, self.copy.params if self.copy else 0)

    def macs(self, depth: int) -> int:
        """Return the multiply-accumulates of the units at a depth, for one image."""
        return self._total(depth, self.unit_macs, self.copy.macs if self.copy else 0)

    def _total(self, depth: int, costs: Sequence[int], copy_cost: int) -> int:
        kept = sum(costs[index] for index in self.kept(depth))
        return kept + copy_cost * max(0, depth - len(self.units))

    def removed(self, depth: int) -> list[Unit]:
        """Return the units that are not there at a depth."""
        kept = set(self.kept(depth))
        return [unit for index, unit in enumerate(self.units) if index not in kept]

    def copies(self, depth: int) -> dict[int, tuple[Part, int]]:
        """Return what is put in at a depth and how often, by the output that it stands behind."""
        count = depth - len(self.units)
        if self.copy is None or count <= 0:
            return {}
        return {self.units[self.end].output: (self.copy.part, count)}

    def traced_at(self, depth: int) -> TracedStage:
        """Return the stage as a trace of the network with other depths of it alone has it."""
        if depth not in self._changed:
            graph = rewired(self.trace, self.removed(depth), self.copies(depth))
            copies = iter(graph.copies.get(self.units[self.end].output, ()))
            units = tuple(
                next(copies) if index == COPY else graph.unit(self.units[index])
                for index in self.order(depth)
            )
            inputs = tuple(graph.read[index] for index in self.traced.inputs)
            self._changed[depth] = replace(
                self.traced,
                inputs=inputs,
                units=units,
                nodes=tuple(index for unit in units for index in unit.nodes),
                propagation=Propagation(graph.trace, inputs),
                trace=graph.trace,
            )
        return self._changed[depth]

    def volumes(self, depth: int, cap: str = "input") -> tuple[int, ...]:
        """Return the field in elements after each unit at a depth.

        Reference: [IF] eqs. 1 to 3.
        """
        stage = self.traced_at(depth)
        return tuple(stage.field(unit.output, cap).volume for unit in stage.units)

    def gains(self, depth: int, alpha: float, cap: str = "input") -> tuple[float, ...]:
        """Return the gain of each unit but the first, at a depth; 0 if it reads what enters.

        Reference: [IF] eq. 4.
        """
        key = depth, alpha, cap
        if key not in self._gains:
            gains = StageGains(self.traced_at(depth), alpha, cap).of_units()
            self._gains[key] = tuple(gain or 0.0 for gain in gains[1:])
        return self._gains[key]


@dataclass(frozen=True, slots=True)
class StageAtDepth:
    """A stage at a depth, as the organizer sees it."""

    stage: AdjustableStage
    depth: int

    @property
    def min_depth(self) -> int:
        """The number of units that stay."""
        return self.stage.min_depth

    def gains(self, alpha: float, cap: str = "input") -> tuple[float, ...]:
        """Return the gain of each unit but the first."""
        return self.stage.gains(self.depth, alpha, cap)

    def last_gain(self, alpha: float, cap: str = "input") -> float:
        """Return the gain of the last unit."""
        return self.gains(alpha, cap)[self.stage.last(self.depth) - 1]

    def next_gain(self, alpha: float, cap: str = "input") -> float:
        """Return the gain of one more unit; -inf for a stage that can have none."""
        if self.stage.copy is None and self.depth >= self.stage.traced_depth:
            return -inf
        return replace(self, depth=self.depth + 1).last_gain(alpha, cap)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TracedLayout:
    """A traced network at some depths: its stages, and what the rest of it costs.

    `others`: the stages that stay as they are.
    """

    stages: tuple[StageAtDepth, ...]
    rest_params: int
    rest_macs: int
    others: tuple[TracedStage, ...] = ()

    @classmethod
    def of(
        cls,
        trace: Trace,
        model: nn.Module,
        stages: Sequence[TracedStage],
        fixed: Collection[TracedStage] = (),
    ) -> "TracedLayout":
        """Return the layout of a network as it was traced.

        A stage takes part if one of its units can be removed, or one is of a class of those that
        can be removed elsewhere; the single convolution before the blocks of a residual network
        does not, nor do those that are `fixed`.
        """
        modules = UnitModules(trace, without_values(model))
        removable = [[] if stage in fixed else modules.removable(stage) for stage in stages]
        repeated = {
            modules.classes(stage.units[index])
            for stage, indices in zip(stages, removable, strict=True)
            for index in indices
        }
        adjustable = []
        others = []
        for stage, indices in zip(stages, removable, strict=True):
            alike = [
                index
                for index, unit in enumerate(stage.units)
                if modules.classes(unit) in repeated
                and modules.is_separate(unit)
                and not is_tapped(stage, unit)
                and not any(is_joined(trace, replace(unit, inputs=(read,))) for read in unit.inputs)
            ]
            if not alike or stage in fixed:
                others.append(stage)
            else:
                end = (indices or alike)[-1]
                adjustable.append(AdjustableStage(modules, stage, indices, end))
        return cls(
            tuple(StageAtDepth(stage, stage.traced_depth) for stage in adjustable),
            trace.params - sum(stage.params(stage.traced_depth) for stage in adjustable),
            trace.macs - sum(stage.macs(stage.traced_depth) for stage in adjustable),
            tuple(others),
        )

    @property
    def depths(self) -> tuple[int, ...]:
        """The number of units of each stage."""
        return tuple(stage.depth for stage in self.stages)

    def at_depths(self, depths: Sequence[int]) -> "TracedLayout":
        """Return the layout with other depths."""
        pairs = zip(self.stages, depths, strict=True)
        return replace(self, stages=tuple(replace(stage, depth=depth) for stage, depth in pairs))

    def __repr__(self) -> str:
        """Return depths and totals."""
        return (
            f"<TracedLayout of depths {self.depths}: {self.params:,} parameters, "
            f"{self.macs:,} MACs>"
        )

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return self.rest_params + sum(at.stage.params(at.depth) for at in self.stages)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.rest_macs + sum(at.stage.macs(at.depth) for at in self.stages)

    def gain(self, alpha: float = 3, cap: str = "input") -> float:
        """Return the total gain of the units.

        Reference: [3DRF] section 4.1.
        """
        return fsum(gain for stage in self.stages for gain in stage.gains(alpha, cap))

    def gain_of_all(self, alpha: float = 3, cap: str = "input") -> float:
        """Return the total gain of the units of all stages, also of those that stay as they are."""
        others = (StageGains(stage, alpha, cap).of_units() for stage in self.others)
        return self.gain(alpha, cap) + fsum(gain or 0.0 for gains in others for gain in gains)

    def traced(self) -> Trace:
        """Return the graph of the network with these depths."""
        start = self.stages[0].stage.trace
        removed = [unit for at in self.stages for unit in at.stage.removed(at.depth)]
        copies = [at.stage.copies(at.depth) for at in self.stages]
        graph = rewired(
            start, removed, {end: part for parts in copies for end, part in parts.items()}
        )
        return replace(graph.trace, params=self.params)

    def steps(self) -> tuple[Remove | Append, ...]:
        """Return the steps that make the traced network this one.

        Units at the end are changed first: those before keep their names.
        """
        steps: list[Remove | Append] = []
        for stage, depth in reversed([(at.stage, at.depth) for at in self.stages]):
            units, copy = stage.units, stage.copy
            extra = depth - len(units)
            if copy is not None and extra > 0:
                behind = units[stage.end].names
                append = Append(behind, copy.unit.names, copy.channels, extra, copy.activation)
                steps.append(append)
            indices = set(stage.kept(depth))
            steps += [
                Remove(unit.names)
                for index, unit in reversed(list(enumerate(units)))
                if index not in indices
            ]
        return tuple(steps)
