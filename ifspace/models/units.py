"""The units and stages of a traced network.

A *unit* is what a stage repeats: a residual block, a branch, or layers that follow one another. It
has the name of the module that holds it, or the names of the first and last of several modules. It
is found from the module tree and the graph of feature maps alone:

* A module whose own forward joins feature maps (a sum, a concatenation, a shuffle) is a unit, and
  so are all modules of its class.
* A module that only calls its children one after another is no unit: its children are looked at.
* Layers that follow one another are one unit until its outputs see all channels that enter it: a
  depthwise layer together with the pointwise layer after it. So are sums of branches that see
  fewer, together with what follows.

A *stage* is the units on feature maps of one size. A strided layer opens a stage and counts in it;
if a unit holds it, the whole unit does, and what enters the unit enters the stage. The side of a
stage is that of what enters it: behind a stride of 2 twice what the stage writes. Pooling opens a
stage too, on its own: the pooled feature map enters it, unless what it pools enters through a
strided layer in a parallel branch. So does upsampling. A unit that returns as many pixels as enter
it opens none, whatever sizes are inside. What comes later from an earlier stage, such as a skip
connection, enters as well.

Reference: docs/real-networks.md, how a network is read; [3DRF] section 3.1 for the side.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

from torch import nn

from ifspace.models.fields import Field, Propagation
from ifspace.models.graph import Node, Op, Size, Trace
from ifspace.models.surgery import is_sequential
from ifspace.nn import BlockModule

JOINING = (Op.JOIN, Op.MOVE, Op.MIX)


@dataclass(frozen=True, slots=True)
class Unit:
    """What a stage repeats: the full `names` of the modules, in order, that hold all its layers.

    `nodes`: the indices of its layers in the graph. `inputs`: those of the feature maps from
    outside that it reads, without pooled ones. `output`: that of the feature map that it returns.
    """

    names: tuple[str, ...]
    nodes: tuple[int, ...]
    inputs: tuple[int, ...]
    output: int

    @property
    def name(self) -> str:
        """The name of the module, or of the first and the last."""
        return unit_name(self.names)

    def holds(self, name: str) -> bool:
        """Return whether a module, by its full name, is one of the unit's or lies in one."""
        return any(within(name, own) for own in self.names)


@dataclass(frozen=True, slots=True, eq=False)
class TracedStage:
    """Units that write feature maps of one size.

    `side`: (height, width) in pixels of what enters, of the largest where several feature maps do,
    and of what upsampling writes;
    `side_out`: of what is written behind what opens the stage. `inputs`: the indices of the feature
    maps that enter. `nodes`: those of its layers.
    """

    side: Size
    side_out: Size
    inputs: tuple[int, ...]
    units: tuple[Unit, ...]
    nodes: tuple[int, ...]
    propagation: Propagation
    trace: Trace

    @property
    def channels(self) -> int:
        """Channels that enter."""
        return self.propagation.channels

    @property
    def elements(self) -> int:
        """The volume of what enters, V0: its pixels times its channels.

        Reference: [IF] eq. 4.
        """
        return self.side[0] * self.side[1] * self.channels

    def field(self, index: int, cap: str = "input") -> Field:
        """Return the field of a feature map of the stage; `cap` as in `ifspace.infofield.CAPS`."""
        return self.propagation.field(index, self.side, cap)


def unit_name(names: Sequence[str]) -> str:
    """Return the name of a unit of these modules: that of the only one, or of first and last.

    >>> unit_name(["block1"]), unit_name(["conv1", "norm1", "conv2"])
    ('block1', 'conv1 … conv2')
    """
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def within(name: str, outer: str) -> bool:
    """Return whether a module is another or lies in it, by their full names.

    >>> within("layer1.0.conv1", "layer1.0"), within("layer10.0", "layer1")
    (True, False)
    """
    return name == outer or name.startswith(f"{outer}.")


def units_of(trace: Trace, model: nn.Module) -> tuple[Unit, ...]:
    """Return the units of a traced network, in the order in which they run.

    >>> from ifspace.models.tracing import trace
    >>> convs = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 16, 1))
    >>> [unit.name for unit in units_of(trace(convs, (8, 9, 9)), convs)]
    ['0 … 2']
    """
    return _Finder(trace, model).units()


class _Finder:
    """Finds the units of a module tree with its graph of feature maps."""

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
            if node.op in JOINING and node.scope and self._layers_in(node.scope)
        } - {None, nn.Sequential, nn.ModuleList} | {BlockModule}

    def units(self) -> tuple[Unit, ...]:
        """Return the units."""
        if self._trace.how == "hooks":
            parts = [[node] for node in self._layers]
        else:
            parts = list(self._split("", self._layers))
        return tuple(self._unit(part) for part in self._merged(parts))

    def _layers_in(self, module: str) -> list[Node]:
        return [node for node in self._layers if within(_name(node), module)]

    def _split(self, module: str, layers: Sequence[Node]) -> Iterator[list[Node]]:
        """Yield the layers of each unit inside a module."""
        if len(layers) == 1 or (module and self._is_unit(module, layers)):
            yield list(layers)
            return
        depth = len(module.split(".")) if module else 0

        def call(node: Node) -> tuple[str, int]:
            child = _prefix(_name(node), depth + 1)
            return child, node.uses.get(child, 0)

        for (child, _), group in groupby(layers, call):
            nodes = list(group)
            if all(_name(node) == child for node in nodes):
                yield from ([node] for node in nodes)
            elif any(_name(node) == child for node in nodes):
                yield nodes  # a module with weights of its own, and layers inside
            else:
                yield from self._split(child, nodes)

    def _is_unit(self, module: str, layers: Sequence[Node]) -> bool:
        if self._types.get(module) not in self._joining:
            return False
        # A module with two strided layers one after the other is a part of a network, not a block.
        inside = {node.index for node in layers}
        strided: dict[int, int] = {}
        for node in layers:
            above = [strided.get(index, 0) for index in self._layers_above(node, inside)]
            is_strided = node.layer is not None and node.layer.strided
            strided[node.index] = max(above, default=0) + is_strided
        return max(strided.values()) < 2

    def _layers_above(self, node: Node, inside: set[int]) -> set[int]:
        """Return which of the layers `inside` a node reads, directly or through other nodes."""
        first = min(inside)
        layers: set[int] = set()
        waiting = list(node.parents)
        while waiting:
            index = waiting.pop()
            if index in inside:
                layers.add(index)
            elif index > first:
                waiting += self._trace.nodes[index].parents
        return layers

    def _merged(self, parts: Iterable[list[Node]]) -> list[list[Node]]:
        """Return the parts, single layers appended to the part before until it sees its input."""
        merged: list[list[Node]] = []
        for part in parts:
            if merged and (self._continues(merged[-1], part) or self._completes(merged[-1], part)):
                merged[-1] += part
            else:
                merged.append(list(part))
        return merged

    def _continues(self, before: Sequence[Node], part: Sequence[Node]) -> bool:
        last, first = before[-1], part[0]
        between = self._trace.nodes[last.index + 1 : part[-1].index + 1]
        # A block in the place of a layer continues as that did; blocks of a stage do not.
        blocks = [self._block_of(_name(node)) for node in (last, first)]
        outer = _name(first) if blocks[1] is None else blocks[1]
        if not all(within(_name(node), outer) for node in part):
            return False
        if any(node.changes_size for node in between) or None not in blocks:
            return False
        place = outer.rpartition(".")[0]
        if place != last.scope and self._is_in_block(place):
            return False
        if self._layers_above(first, {last.index}) != {last.index}:
            return False
        propagation = Propagation(self._trace, before[0].parents)
        return propagation.field(last.index, last.size).channels < propagation.channels

    def _completes(self, before: Sequence[Node], part: Sequence[Node]) -> bool:
        """Return whether a part follows a sum of branches that does not see all that enters it.

        So a depthwise convolution is one unit with the pointwise one behind it, also while both
        are trained as sums of branches.
        """
        unit, behind = self._unit(before), self._unit(part)
        if self._trace.nodes[unit.output].op is not Op.JOIN or behind.inputs != (unit.output,):
            return False
        if any(node.changes_size for node in part) or behind.output < unit.output:
            return False
        propagation = Propagation(self._trace, unit.inputs)
        size = self._trace.nodes[unit.output].size
        return propagation.field(unit.output, size).channels < propagation.channels

    def _is_in_block(self, name: str) -> bool:
        """Return whether a module joins feature maps, or lies in one that does."""
        return any(self._types.get(outer) in self._joining for outer in _ancestry(name))

    def _block_of(self, name: str) -> str | None:
        """Return the name of the block that a layer lies in."""
        return next((x for x in _ancestry(name) if self._types.get(x) is BlockModule), None)

    def _unit(self, layers: Sequence[Node]) -> Unit:
        names = self._lifted([_name(node) for node in layers])
        # Of a module that is called at several places, only the calls of these layers.
        calls = {
            (name, node.uses.get(name, 0))
            for name in names
            for node in layers
            if within(_name(node), name)
        }
        inside = {
            node.index
            for node in self._trace.nodes
            if any(
                within(_name(node) or node.scope, name) and node.uses.get(name, 0) == number
                for name, number in calls
            )
            and node.op not in (Op.INPUT, Op.LAYER)
        } | {node.index for node in layers}
        inputs = {
            parent: None
            for index in sorted(inside)
            for parent in self._trace.nodes[index].parents
            if parent not in inside
        }
        # Pooling at the end opens the next stage, and does not belong to the unit.
        last = max(node.index for node in layers)
        candidates = [
            index for index in inside if index <= last or max(self._trace.nodes[index].stride) <= 1
        ]
        return Unit(names, tuple(node.index for node in layers), tuple(inputs), max(candidates))

    def _is_sequence(self, name: str) -> bool:
        """Return whether a module is a sequence of blocks, even if it holds only one now."""
        module = self._model.get_submodule(name)
        if not (isinstance(module, nn.ModuleList) or is_sequential(module)):
            return False
        weighted = [
            child for child in module.children() if next(child.parameters(), None) is not None
        ]
        return all(any(True for _ in child.children()) for child in weighted)

    def _lifted(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the outermost module that holds these layers and no others, or one for each."""
        layers = set(names)
        for module in _ancestry(names[0]):
            if self._names_in(module) == layers and not self._is_sequence(module):
                return (module,)
        lifted = (
            next(
                (module for module in _ancestry(name) if self._is_whole(module, name, layers)), name
            )
            for name in names
        )
        return tuple(dict.fromkeys(lifted))

    def _is_whole(self, module: str, name: str, layers: set[str]) -> bool:
        """Return whether a module holds one layer alone, or joins branches of a unit's layers."""
        held = self._names_in(module)
        return held <= {name} or (held <= layers and self._types.get(module) in self._joining)

    def _names_in(self, module: str) -> set[str]:
        return {_name(node) for node in self._layers_in(module)}


def _name(node: Node) -> str:
    """Return the full name of a layer's module, or nothing."""
    return "" if node.layer is None else node.layer.name


def _ancestry(name: str) -> Iterator[str]:
    """Yield the full names of the modules around one and its own, outermost first, not the root."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _prefix(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])


def stages_of(trace: Trace, units: Sequence[Unit]) -> tuple[TracedStage, ...]:
    """Return the stages of a network, in the order in which they run.

    >>> from torch import nn
    >>> from ifspace.models.tracing import trace
    >>> convs = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1))
    >>> graph = trace(convs, (3, 8, 8))
    >>> [(stage.side, stage.side_out) for stage in stages_of(graph, units_of(graph, convs))]
    [((8, 8), (8, 8)), ((8, 8), (4, 4))]
    """
    inside = {
        index
        for unit in units
        if _keeps_pixels(trace, unit)
        for index in _inside(trace, unit, min(unit.inputs) + 1)
    }
    levels = _levels(trace, units, inside)
    members: dict[int, list[Unit]] = {}
    for unit in units:
        members.setdefault(levels[unit.nodes[0]], []).append(unit)
    return tuple(_stage(trace, held, levels, inside) for _, held in sorted(members.items()))


def _stage(
    trace: Trace, units: Sequence[Unit], levels: Sequence[int], inside: Container[int]
) -> TracedStage:
    level = levels[units[0].nodes[0]]
    opening = [unit for unit in units if _opens_stage(trace, unit)]
    inputs = {index: None for unit in opening for index in unit.inputs if levels[index] < level}
    read = dict(inputs)
    for node in trace.nodes:
        if levels[node.index] != level or any(unit.holds(node.scope) for unit in opening):
            continue
        if not _opens_alone(node):
            # What comes from another stage beside what opens this one, such as a skip connection.
            inputs |= {parent: None for parent in node.parents if levels[parent] < level}
        elif node.index not in inside and not read.keys() & set(node.parents):
            # The pooled feature map itself enters, as the image does. But pooling in parallel with
            # strided layers is a branch beside them.
            inputs[node.index] = None
    entries = tuple(sorted(index for index in inputs if _reaches(trace, index, units)))
    side_out = _side_out(trace, units, opening, entries, level, levels)
    # What a transposed convolution reads is upsampled first: nothing smaller than what is written.
    sizes = [side_out, *(trace.nodes[index].size for index in entries)]
    # Pixels in one line, such as those of a transformer, have no height and width of their own.
    sizes = [size for size in sizes if min(size) > 1] or sizes
    side = max(height for height, _ in sizes), max(width for _, width in sizes)
    nodes = tuple(index for unit in units for index in unit.nodes)
    return TracedStage(
        side, side_out, entries, tuple(units), nodes, Propagation(trace, entries), trace
    )


def _side_out(
    trace: Trace,
    units: Sequence[Unit],
    opening: Sequence[Unit],
    entries: Sequence[int],
    level: int,
    levels: Sequence[int],
) -> Size:
    """Return the size of the feature maps after what opens a stage."""
    for unit in opening:
        for index in unit.nodes:
            if trace.nodes[index].changes_size:
                return trace.nodes[index].size
    pooled = [index for index in entries if levels[index] == level]
    return trace.nodes[[*pooled, *entries, *units[0].nodes][0]].size


def _levels(trace: Trace, units: Sequence[Unit], inside: Container[int]) -> list[int]:
    """Return for each feature map how often the size has changed up to it, unit by unit.

    `inside`: the feature maps of units that return as many pixels as enter them.
    """
    levels: list[int] = []
    for node in trace.nodes:
        before = max((levels[parent] for parent in node.parents), default=0)
        levels.append(before + (node.changes_size and node.index not in inside))
    # From the input on: a unit that opens a stage lifts its own layers, never those after it.
    for unit in units:
        if not trace.nodes[unit.nodes[0]].parents:
            # It reads a constant, such as a class token, and runs where the others do.
            levels[unit.nodes[0]] = max(levels[index] for index in unit.nodes)
        if _opens_stage(trace, unit):
            top = max(levels[index] for index in unit.nodes)
            for index in _inside(trace, unit, min(unit.nodes)):
                levels[index] = max(levels[index], top)
    return levels


def _inside(trace: Trace, unit: Unit, first: int) -> Iterator[int]:
    """Yield the feature maps from an index on that a unit writes, its layers or others."""
    for index in range(first, unit.output + 1):
        scope = trace.nodes[index].scope
        if index in unit.nodes or (scope and unit.holds(scope)):
            yield index


def _opens_stage(trace: Trace, unit: Unit) -> bool:
    strided = any(trace.nodes[index].changes_size for index in unit.nodes)
    return strided and not _keeps_pixels(trace, unit)


def _keeps_pixels(trace: Trace, unit: Unit) -> bool:
    """Return whether a unit returns as many pixels as enter it, whatever sizes are inside.

    So does attention whose keys and values come from a smaller feature map, or from windows. Of
    pixels in a line a few more or fewer, such as a class token, are as many.
    """
    if len(unit.nodes) == 1 or not unit.inputs:
        return False
    written = trace.nodes[unit.output].size
    entering = prod(max((trace.nodes[index].size for index in unit.inputs), key=prod))
    if min(written) > 1:
        return entering == prod(written)
    return entering < 2 * prod(written) < 4 * entering


def _opens_alone(node: Node) -> bool:
    return node.op is Op.INPUT or (node.op in (Op.POOL, Op.RESIZE) and node.changes_size)


def _reaches(trace: Trace, index: int, units: Sequence[Unit]) -> bool:
    """Return whether a feature map is read, perhaps through others, by a unit after it."""
    last = max(unit.output for unit in units)
    layers = {layer for unit in units for layer in unit.nodes}
    visited, waiting = set(), [index]
    while waiting:
        for child in trace.children[waiting.pop()]:
            if child in layers:
                return True
            if child <= last and child not in visited:
                visited.add(child)
                waiting.append(child)
    return False
