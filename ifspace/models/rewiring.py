"""The graph of a network with units removed and copied, as a trace of the changed network has it.

What a change of its modules does to the graph is planned here and compared afterwards: a network
whose own code counts or taps its modules may compute something else.

Reference: [3DRF] section 4.1.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ifspace.models.graph import Node, Op, Trace
from ifspace.models.units import TracedStage, Unit


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of a graph to be copied: what a unit computes from `entry` to `output`."""

    trace: Trace
    entry: int
    output: int

    @property
    def inner(self) -> list[int]:
        """The indices of the feature maps behind the entry, up to the output."""
        return sorted(between(self.trace, self.entry, self.output))


def between(trace: Trace, entry: int, output: int) -> set[int]:
    """Return the feature maps that an output is computed from behind an entry, and the output."""
    inner, waiting = set[int](), [output]
    while waiting:
        index = waiting.pop()
        if index > entry and index not in inner:
            inner.add(index)
            waiting += trace.nodes[index].parents
    return inner


@dataclass(frozen=True, slots=True, eq=False)
class Rewired:
    """A graph with units removed and added.

    `own`: the new index of each feature map that stays. `read`: the index of what the readers of a
    feature map read now. `copies`: the units that were added, by the output that they stand behind.
    """

    trace: Trace
    own: Mapping[int, int]
    read: Mapping[int, int]
    copies: Mapping[int, Sequence[Unit]]

    def unit(self, unit: Unit) -> Unit:
        """Return a unit that stays, at its new indices."""
        return Unit(
            unit.names,
            tuple(self.own[index] for index in unit.nodes),
            tuple(self.read[index] for index in unit.inputs),
            self.own[unit.output],
        )


def rewired(
    trace: Trace, removed: Iterable[Unit], copies: Mapping[int, tuple[Part, int]]
) -> Rewired:
    """Return a graph without some units of one input, and with copies of parts put in.

    `copies`: a part and how often, by the index of the feature map behind which they stand.
    """
    entry_of = {unit.output: unit.inputs[0] for unit in removed}
    gone = set[int]().union(*(between(trace, entry, end) for end, entry in entry_of.items()))
    nodes: list[Node] = []
    own: dict[int, int] = {}
    read: dict[int, int] = {}
    added: dict[int, list[Unit]] = {}

    def add(node: Node, indices: Mapping[int, int]) -> int:
        parents = tuple(indices[parent] for parent in node.parents)
        nodes.append(replace(node, index=len(nodes), parents=parents))
        return len(nodes) - 1

    for node in trace.nodes:
        index = node.index
        if index in entry_of:
            read[index] = read[entry_of[index]]
        elif index not in gone:
            own[index] = read[index] = add(node, read)
        part, count = copies.get(index, (None, 0))
        for _ in range(count):
            assert part is not None
            inner = {part.entry: read[index]}
            for copied in part.inner:
                inner[copied] = add(part.trace.nodes[copied], inner)
            layers = tuple(
                new
                for old, new in inner.items()
                if old != part.entry and (layer := nodes[new].layer) and layer.conv.writes
            )
            unit = Unit((), layers, (read[index],), inner[part.output])
            added.setdefault(index, []).append(unit)
            read[index] = unit.output
    outputs = tuple(dict.fromkeys(read[index] for index in trace.outputs))
    returned = tuple(dict.fromkeys(read[index] for index in trace.returned))
    changed = replace(trace, nodes=tuple(nodes), outputs=outputs, returned=returned)
    return Rewired(changed, own, read, added)


def readers(trace: Trace, index: int) -> set[int]:
    """Return what reads a feature map: the indices of others, -1 for the network's output."""
    return {*trace.children[index], *([-1] if index in trace.outputs else [])}


def is_tapped(stage: TracedStage, unit: Unit) -> bool:
    """Return whether a unit is read by others than the unit behind it, though there is one.

    What is read at the end of a stage is read behind whichever unit is the last; what is read in
    its middle belongs to that unit.
    """
    behind = [other for other in stage.units if other.inputs == (unit.output,)]
    if not behind:
        return False
    inside = set[int]().union(*(between(stage.trace, unit.output, u.output) for u in behind))
    return not readers(stage.trace, unit.output) <= inside


def is_joined(trace: Trace, unit: Unit) -> bool:
    """Return whether what a unit writes is read together with what it reads, as in DenseNet."""
    inner = between(trace, unit.inputs[0], unit.output)
    return not (readers(trace, unit.output) & readers(trace, unit.inputs[0])) <= inner


def is_last(trace: Trace, unit: Unit) -> bool:
    """Return whether what a unit writes is returned as it is, or only moved and resized before."""
    waiting = [unit.output]
    while waiting:
        index = waiting.pop()
        if index in trace.returned:
            return True
        children = (trace.nodes[child] for child in trace.children[index])
        waiting += [child.index for child in children if child.op in (Op.MOVE, Op.RESIZE)]
    return False


def is_read_inside(stage: TracedStage, unit: Unit) -> bool:
    """Return whether a feature map inside a unit of one input is read from outside it."""
    inner = between(stage.trace, unit.inputs[0], unit.output)
    inside = (readers(stage.trace, index) for index in inner - {unit.output})
    return any(not reading <= inner for reading in inside)


def signature(trace: Trace) -> tuple[Counter[int], frozenset[int]]:
    """Return what a graph computes: a hash of each feature map, and those of the outputs.

    The hash of a feature map is that of what wrote it and of the hashes of what it was computed
    from; so it says which layers the network ran on the way, whatever they are called.
    """
    hashes: list[int] = []
    for node in trace.nodes:
        layer = None if node.layer is None else replace(node.layer, name="")
        parents = [hashes[parent] for parent in node.parents]
        if node.op is Op.JOIN:
            parents.sort()
        moved = None if node.sources is None else _sources(node, hashes)
        # Pooling and resizing have sizes; a move is what it moves.
        key = (
            node.op.name,
            node.channels,
            node.size,
            layer,
            node.window,
            node.stride,
            node.dilation,
            node.reach,
            node.shifts,
            node.taps,
            *(None if a is None else a.tobytes() for a in (node.moved, node.unknown)),
            tuple(parents) if moved is None else moved,
        )
        hashes.append(hash(key))
    return Counter(hashes), frozenset(hashes[index] for index in trace.outputs)


def _sources(node: Node, hashes: Sequence[int]) -> int:
    """Return a hash of where the channels of a move come from."""
    assert node.sources is not None
    pairs = (
        (hashes[node.parents[parent]] if parent >= 0 else 0, channel)
        for parent, channel in node.sources.tolist()
    )
    return hash(tuple(pairs))
