"""The information field in a graph of maps: who sees whom, from the input of a stage on.

Of every channel of a map it is known which channels of the stage's input it sees, and how many
pixels high and wide. Sums and products take unions, a move takes the channels along. A stride is
taken as 1: pixels are those of the stage.

Reference: MATH section 5, stages of a real network; [IF] eqs. 1 to 3.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Final

import numpy as np
import numpy.typing as npt

from ifspace.block import Layer, SizedLayer
from ifspace.models.graph import (
    Node,
    Op,
    Size,
    Trace,
)
from ifspace.reach import Rows, start, through

Pixels = npt.NDArray[np.int64]
# More pixels than any map is high or wide.
EVERYWHERE: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Field:
    """How far the outputs of a map see: pixels (height, width), channels, and all in elements.

    Channels are those that every output sees at least, pixels those that one sees at most.
    """

    side: Size
    channels: int
    volume: int


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What each channel of a map sees: rows of bits [C, words] and pixels [C, 2]."""

    rows: Rows
    pixels: Pixels

    def of(self, channels: npt.NDArray[np.bool_]) -> "Seen":
        """Return what some channels see."""
        return Seen(self.rows[channels], self.pixels[channels])

    def field(self, side: Size) -> Field:
        """Return the field on maps of a size."""
        height, width = (
            min(int(most), least) for most, least in zip(self.pixels.max(0), side, strict=True)
        )
        channels = int(np.bitwise_count(self.rows).sum(axis=1, dtype=np.int64).min())
        return Field((height, width), channels, height * width * channels)


class Stretch:
    """What the maps of a stretch of the network see of its inputs, worked out when asked for.

    Inputs see themselves; or what is `seen` of something before, by map.

    >>> from torch import nn
    >>> from ifspace.models.tracing import trace
    >>> found = trace(nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 3)), (4, 9, 9))
    >>> [Stretch(found, [0]).field(number, (9, 9)).volume for number in (1, 2)]
    [18, 100]
    """

    def __init__(
        self, trace: Trace, inputs: Iterable[int], seen: Mapping[int, Seen] | None = None
    ) -> None:
        self._trace = trace
        self._seen: dict[int, Seen]
        self.channels: int
        if seen is not None:
            self.inputs = tuple(seen)
            self.channels = 64 * next(iter(seen.values())).rows.shape[1]
            self._seen = dict(seen)
            return
        self.inputs = tuple(inputs)
        self.channels = sum(trace.nodes[number].channels for number in self.inputs)
        every = start(self.channels)
        self._seen = {}
        begin = 0
        for number in self.inputs:
            end = begin + trace.nodes[number].channels
            ones = np.ones((end - begin, 2), dtype=np.int64)
            self._seen[number] = Seen(every[begin:end], ones)
            begin = end

    def field(self, number: int, side: Size) -> Field:
        """Return the field of a map on maps of a size.

        Maps put behind each other see what the one of them sees that sees most: the union.
        """
        node = self._trace.nodes[number]
        seen = self.seen(number)
        if node.op is not Op.MOVE or node.moves is None or number in self.inputs:
            return seen.field(side)
        if node.layer is not None:
            return self.field(node.parents[0], side)
        parts = (seen.of(node.moves[:, 0] == which) for which in range(len(node.parents)))
        found = [part.field(side) for part in parts]
        most = max(found, key=lambda part: (part.channels, part.volume))
        height = max(part.side[0] for part in found)
        width = max(part.side[1] for part in found)
        return Field((height, width), most.channels, height * width * most.channels)

    def seen(self, number: int) -> Seen:
        """Return what a map sees; one before the inputs sees nothing of them."""
        for each in range(min(self.inputs, default=0), number + 1):
            if each not in self._seen:
                node = self._trace.nodes[each]
                self._seen[each] = self._of(node, [self._seen.get(p) for p in node.parents])
        return self._seen.get(number) or self._blind(self._trace.nodes[number].channels)

    def _of(self, node: Node, parents: Sequence[Seen | None]) -> Seen:
        blind = self._blind
        known = [
            seen or blind(self._trace.nodes[number].channels)
            for seen, number in zip(parents, node.parents, strict=True)
        ]
        if not known:
            return blind(node.channels)
        if node.op is Op.MIX or (len(known) > 1 and node.op is Op.LAYER):
            return self._everything(node, known)
        if node.op is Op.MOVE:
            return self._moved(node, known)
        if node.op is Op.JOIN:
            rows = np.bitwise_or.reduce([seen.rows for seen in known])
            return Seen(rows, np.max([seen.pixels for seen in known], axis=0))
        if node.op is Op.GLOBAL:
            return Seen(known[0].rows, _everywhere(known[0].pixels))
        if node.layer is None or not node.layer.conv.writes:
            return Seen(known[0].rows, _wider(known[0].pixels, node))
        return _through_layer(node, known[0])

    def _blind(self, channels: int) -> Seen:
        words = -(-self.channels // 64)
        return Seen(
            np.zeros((channels, words), dtype=np.uint64), np.zeros((channels, 2), dtype=np.int64)
        )

    def _everything(self, node: Node, known: Sequence[Seen]) -> Seen:
        rows = np.bitwise_or.reduce([np.bitwise_or.reduce(seen.rows, axis=0) for seen in known])
        pixels = np.max([seen.pixels.max(0) for seen in known], axis=0)
        return Seen(
            np.broadcast_to(rows, (node.channels, len(rows))),
            np.broadcast_to(_everywhere(pixels), (node.channels, 2)),
        )

    def _moved(self, node: Node, known: Sequence[Seen]) -> Seen:
        found = self._blind(node.channels)
        assert node.moves is not None
        for which, seen in enumerate(known):
            here = node.moves[:, 0] == which
            there = node.moves[here, 1]
            found.rows[here], found.pixels[here] = seen.rows[there], seen.pixels[there]
        return found


def _everywhere(pixels: Pixels) -> Pixels:
    """Return all pixels for those that see any."""
    return np.where(pixels > 0, EVERYWHERE, 0)


def _wider(pixels: Pixels, node: Node) -> Pixels:
    """Return the field through a window, dilation (k - 1) higher and wider, where it sees any."""
    more = np.array([d * (k - 1) for d, k in zip(node.dilation, node.window, strict=True)])
    return np.where(pixels > 0, pixels + more, 0)


def _through_layer(node: Node, below: Seen) -> Seen:
    layer = node.layer
    assert layer is not None
    groups = layer.groups if layer.conv.takes_groups else None
    # Kernels of any size: of the layer only what it reads of the channels is asked.
    sized = SizedLayer(Layer(layer.conv.symbol, groups, layer.overlap), layer.c_in, layer.c_out)
    rows = through(below.rows, sized)
    if sized.fan_in == layer.c_in:
        pixels = np.broadcast_to(below.pixels.max(0), (layer.c_out, 2))
    else:
        pixels = below.pixels[sized.reads()].max(1)
    return Seen(rows, _wider(pixels, node))


@dataclass(frozen=True, slots=True)
class Receptive:
    """The classical receptive field of a map in pixels of the image, and how far outputs step."""

    side: tuple[Fraction, Fraction]
    jump: tuple[Fraction, Fraction]


def receptive_fields(trace: Trace) -> Mapping[int, Receptive]:
    """Return the receptive field of every map, by number: the greatest along all branches.

    A window of k pixels that lie d apart adds d (k - 1) steps of the map that it reads, fewer where
    it makes the map larger: some of its pixels are then none of the map.

    Reference: Araujo, Norris and Sim, Computing Receptive Fields, eq. 2.
    """
    one = Fraction(1)
    found: dict[int, Receptive] = {}
    for node in trace.nodes:
        before = [found[number] for number in node.parents] or [Receptive((one, one), (one, one))]
        sides, jumps = [], []
        for axis in (0, 1):
            more = node.dilation[axis] * (node.window[axis] - 1)
            if node.stride[axis] < 1:
                more = floor(more * node.stride[axis])
            sides.append(max(each.side[axis] + more * each.jump[axis] for each in before))
            jumps.append(max(each.jump[axis] for each in before) * node.stride[axis])
        if node.op in (Op.MIX, Op.GLOBAL):
            sides = [
                max(Fraction(size), side) for size, side in zip(trace.image[1:], sides, strict=True)
            ]
        found[node.number] = Receptive((sides[0], sides[1]), (jumps[0], jumps[1]))
    return found
