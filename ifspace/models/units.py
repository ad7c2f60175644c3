"""Units of a network: the residual blocks, branches and single layers that stand in a row.

A unit is what a stage repeats, named by the module that holds it, or by the modules of a run in a
row. It is found from the module tree and the graph of maps alone:

* A module whose own code joins maps (a sum, a concatenation, a shuffle) is a unit, and so are all
  modules of its class.
* A module that only calls its children one after another is none: its children are looked at.
* Layers in a row are one unit until its outputs see all channels that enter it: a depthwise layer
  with the pointwise one behind it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import nn

from ifspace.models.fields import Field, Stretch
from ifspace.models.graph import (
    Node,
    Op,
    Size,
    Trace,
)
from ifspace.models.surgery import is_row
from ifspace.nn import BlockModule

JOINING = (Op.JOIN, Op.MOVE, Op.MIX)


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that belong together: `names` of the modules, in order, that hold all of them.

    `nodes`: its layers in the graph. `inputs`: the maps from outside that they read, pooled ones
    left out. `output`: the map that it leaves.
    """

    names: tuple[str, ...]
    nodes: tuple[int, ...]
    inputs: tuple[int, ...]
    output: int

    @property
    def name(self) -> str:
        """One name for all."""
        if len(self.names) == 1:
            return self.names[0]
        return f"{self.names[0]} … {self.names[-1]}"


def units_of(trace: Trace, model: nn.Module) -> tuple[Unit, ...]:
    """Return the units of a traced network, in the order in which they run.

    >>> from ifspace.models.tracing import trace
    >>> row = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 16, 1))
    >>> [unit.name for unit in units_of(trace(row, (8, 9, 9)), row)]
    ['0 … 2']
    """
    return Finder(trace, model).units()


class Finder:
    """Looks at a module tree with its graph of maps."""

    def __init__(self, trace: Trace, model: nn.Module) -> None:
        self._trace, self._model = trace, model
        self._layers = [
            node for node in trace.nodes if node.layer is not None and node.layer.conv.writes
        ]
        self._types = {
            name: type(module) for name, module in model.named_modules(remove_duplicate=False)
        }
        self._joining = {
            self._types.get(node.scope)
            for node in trace.nodes
            if node.op in JOINING and node.scope and self._holds(node.scope)
        } - {None, nn.Sequential, nn.ModuleList} | {BlockModule}

    def units(self) -> tuple[Unit, ...]:
        """Return the units."""
        if self._trace.how == "hooks":
            parts = [[node] for node in self._layers]
        else:
            parts = list(self._split("", self._layers))
        merged = self._merged(parts)
        return tuple(self._unit(part) for part in merged)

    def _holds(self, path: str) -> list[Node]:
        return [node for node in self._layers if within(_name(node), path)]

    def _split(self, path: str, layers: Sequence[Node]) -> Iterator[list[Node]]:
        """Yield the layers of the units inside a module."""
        if len(layers) == 1 or (path and self._is_unit(path, layers)):
            yield list(layers)
            return
        depth = len(path.split(".")) if path else 0
        for child, held in groupby(layers, lambda node: _prefix(_name(node), depth + 1)):
            each = list(held)
            if all(_name(node) == child for node in each):
                yield from ([node] for node in each)
            elif any(_name(node) == child for node in each):
                yield each  # a module with weights of its own, and layers inside
            else:
                yield from self._split(child, each)

    def _is_unit(self, path: str, layers: Sequence[Node]) -> bool:
        if self._types.get(path) not in self._joining:
            return False
        # A module that makes maps smaller twice in a row is a part of a network, not a block.
        inside = {node.number for node in layers}
        deepest: dict[int, int] = {}
        for node in layers:
            below = [deepest.get(number, 0) for number in self._above(node, inside)]
            strided = node.layer is not None and node.layer.strided
            deepest[node.number] = max(below, default=0) + strided
        return max(deepest.values()) < 2

    def _above(self, node: Node, inside: set[int]) -> set[int]:
        """Return the layers inside that a layer reads, through what lies between."""
        first = min(inside)
        found: set[int] = set()
        waiting = list(node.parents)
        while waiting:
            number = waiting.pop()
            if number in inside:
                found.add(number)
            elif number > first:
                waiting += self._trace.nodes[number].parents
        return found

    def _merged(self, parts: Iterable[list[Node]]) -> list[list[Node]]:
        """Return the parts, layers in a row put together until they see all that enters them."""
        done: list[list[Node]] = []
        for part in parts:
            if done and self._continues(done[-1], part):
                done[-1] += part
            else:
                done.append(list(part))
        return done

    def _continues(self, before: Sequence[Node], part: Sequence[Node]) -> bool:
        last, first = before[-1], part[0]
        between = self._trace.nodes[last.number + 1 : first.number + 1]
        if len(part) > 1 or any(each.changes_size for each in between):
            return False
        if any(node.scope != last.scope and self._is_block(node) for node in (last, first)):
            return False
        if self._above(first, {last.number}) != {last.number}:
            return False
        read = Stretch(self._trace, before[0].parents)
        seen = read.field(last.number, last.side)
        return seen.channels < read.channels

    def _is_block(self, node: Node) -> bool:
        """Return whether a layer lies in a module that joins maps."""
        path = _name(node)
        while path:
            if self._types.get(path) in self._joining:
                return True
            path = path.rpartition(".")[0]
        return False

    def _unit(self, layers: Sequence[Node]) -> Unit:
        names = self._lifted([_name(node) for node in layers])
        inside = {
            node.number
            for node in self._trace.nodes
            if any(within(_name(node) or node.scope, name) for name in names)
            and node.op is not Op.INPUT
        } | {node.number for node in layers}
        inputs = {
            number: None
            for place in sorted(inside)
            for number in self._trace.nodes[place].parents
            if number not in inside
        }
        # Pooling at the end opens the next stage, and is none of the unit's own maps.
        last = max(node.number for node in layers)
        kept = [
            number
            for number in inside
            if number <= last or max(self._trace.nodes[number].stride) <= 1
        ]
        return Unit(names, tuple(node.number for node in layers), tuple(inputs), max(kept))

    def _repeats(self, path: str) -> bool:
        """Return whether a module is a row of blocks, of which there happens to be one."""
        module = self._model.get_submodule(path)
        if not (isinstance(module, nn.ModuleList) or is_row(module)):
            return False
        weighty = [each for each in module.children() if next(each.parameters(), None) is not None]
        return all(any(True for _ in each.children()) for each in weighty)

    def _lifted(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the highest module that holds these layers and no others, or their own names."""
        wanted = set(names)
        for path in _paths(names[0]):
            if {_name(node) for node in self._holds(path)} == wanted and not self._repeats(path):
                return (path,)
        return tuple(
            next(
                (
                    path
                    for path in _paths(name)
                    if {_name(node) for node in self._holds(path)} <= {name}
                ),
                name,
            )
            for name in dict.fromkeys(names)
        )


def _name(node: Node) -> str:
    """Return the path of a layer, or nothing."""
    return "" if node.layer is None else node.layer.name


def _paths(name: str) -> Iterator[str]:
    """Yield the paths of the modules that hold one, the highest first, the root left out."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _prefix(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])


def within(name: str, path: str) -> bool:
    """Return whether a module is another, or lies in it, by their paths."""
    return name == path or name.startswith(f"{path}.")


@dataclass(frozen=True, slots=True, eq=False)
class TracedStage:
    """Units on maps of one size: `side` (height, width) in pixels, `inputs` the maps that enter."""

    side: Size
    inputs: tuple[int, ...]
    units: tuple[Unit, ...]
    nodes: tuple[int, ...]
    stretch: Stretch

    @property
    def channels(self) -> int:
        """Channels that enter."""
        return self.stretch.channels

    @property
    def elements(self) -> int:
        """The volume of what enters, V0: pixels of the stage times channels.

        Reference: [IF] eq. 4.
        """
        return self.side[0] * self.side[1] * self.channels

    def field(self, number: int) -> Field:
        """Return the field of a map of the stage."""
        return self.stretch.field(number, self.side)


def stages_of(trace: Trace, units: Sequence[Unit]) -> tuple[TracedStage, ...]:
    """Return the stages of a network, in the order in which they run.

    >>> from torch import nn
    >>> from ifspace.models.tracing import trace
    >>> from ifspace.models.units import units_of
    >>> row = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1))
    >>> found = trace(row, (3, 8, 8))
    >>> [(stage.side, stage.channels) for stage in stages_of(found, units_of(found, row))]
    [((8, 8), 3), ((4, 4), 8)]
    """
    levels = _levels(trace, units)
    members: dict[int, list[Unit]] = {}
    for unit in units:
        members.setdefault(levels[unit.nodes[0]], []).append(unit)
    return tuple(_stage(trace, held, levels) for _, held in sorted(members.items()))


def _stage(trace: Trace, units: Sequence[Unit], levels: Sequence[int]) -> TracedStage:
    level = levels[units[0].nodes[0]]
    opening = [unit for unit in units if _opens(trace, unit)]
    inputs = {number: None for unit in opening for number in unit.inputs if levels[number] < level}
    read = dict(inputs)
    for node in trace.nodes:
        if levels[node.number] != level or _in_units(node, opening):
            continue
        if not _stands_open(node):
            # What comes from another stage beside what opens this one, such as a skip connection.
            inputs |= {number: None for number in node.parents if levels[number] < level}
        elif not read.keys() & set(node.parents):
            # The pooled map itself enters, the image too. But a pool beside strided layers is a
            # branch of them.
            inputs[node.number] = None
    entries = tuple(sorted(number for number in inputs if _reaches(trace, number, units)))
    side = _side(trace, units, opening, entries, level, levels)
    nodes = tuple(number for unit in units for number in unit.nodes)
    return TracedStage(side, entries, tuple(units), nodes, Stretch(trace, entries))


def _side(
    trace: Trace,
    units: Sequence[Unit],
    opening: Sequence[Unit],
    entries: Sequence[int],
    level: int,
    levels: Sequence[int],
) -> Size:
    """Return the size of the maps behind what opens a stage."""
    for unit in opening:
        for number in unit.nodes:
            if trace.nodes[number].changes_size:
                return trace.nodes[number].side
    inside = [number for number in entries if levels[number] == level]
    return trace.nodes[[*inside, *entries, *units[0].nodes][0]].side


def _levels(trace: Trace, units: Sequence[Unit]) -> list[int]:
    """Return for each map how many times maps were made smaller or larger before, by units."""
    found: list[int] = []
    for node in trace.nodes:
        before = max((found[number] for number in node.parents), default=0)
        found.append(before + node.changes_size)
    # From the input on: a unit that opens a stage lifts its own layers, never those behind it.
    for unit in units:
        if _opens(trace, unit):
            top = max(found[number] for number in unit.nodes)
            inside = {
                number
                for number in range(min(unit.nodes), unit.output + 1)
                if number in unit.nodes or _between(trace, number, unit)
            }
            for number in inside:
                found[number] = max(found[number], top)
    return found


def _between(trace: Trace, number: int, unit: Unit) -> bool:
    node = trace.nodes[number]
    return bool(node.scope) and any(
        node.scope == name or node.scope.startswith(f"{name}.") for name in unit.names
    )


def _opens(trace: Trace, unit: Unit) -> bool:
    return any(trace.nodes[number].changes_size for number in unit.nodes)


def _stands_open(node: Node) -> bool:
    return node.op is Op.INPUT or (node.op in (Op.POOL, Op.RESIZE) and node.changes_size)


def _in_units(node: Node, units: Sequence[Unit]) -> bool:
    return any(
        node.scope == name or node.scope.startswith(f"{name}.")
        for unit in units
        for name in unit.names
    )


def _reaches(trace: Trace, number: int, units: Sequence[Unit]) -> bool:
    """Return whether a map is read, through others, by a unit that runs behind it."""
    last = max(unit.output for unit in units)
    seen, waiting = set(), [number]
    layers = {each for unit in units for each in unit.nodes}
    while waiting:
        for child in trace.children[waiting.pop()]:
            if child in layers:
                return True
            if child <= last and child not in seen:
                seen.add(child)
                waiting.append(child)
    return False
