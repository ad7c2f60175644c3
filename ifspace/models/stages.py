"""Stages of a traced network: which layers work on maps of one size, and what enters them.

A strided layer opens a stage and counts in it, with the new side; where a unit holds it, the whole
unit does, and what enters the unit enters the stage. Pooling opens a stage too, on its own: the
pooled map enters it, unless what it pools enters by a strided layer beside it. So does making maps
larger. What comes from an earlier stage later on, such as a skip connection, enters as well.

Reference: MATH section 5, stages of a real network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ifspace.models.fields import Field, Stretch
from ifspace.models.graph import Node, Op, Size, Trace
from ifspace.models.units import Unit


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
    >>> from ifspace.models.trace_network import trace
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
