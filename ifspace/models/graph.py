"""A traced network as values: its layers, and the graph of maps that they read and write.

A *map* is a node: what a layer, a sum, a pooling or a move of channels writes. What keeps a map as
it is (activations, normalisation, dropout, a product with weights) is no node of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

Size = tuple[int, int]


class Op(Enum):
    """What writes a map; the text says it to a person."""

    INPUT = "the image"
    LAYER = "a convolution, or a dense layer on channels"
    JOIN = "a sum, or a product of maps of equal size: the union of what both see"
    MOVE = "channels chosen, put behind each other or shuffled"
    POOL = "pooling"
    RESIZE = "maps made larger"
    GLOBAL = "pooling over the whole map"
    MIX = "an operation that lets every place see all others"


@dataclass(frozen=True, slots=True)
class TracedLayer:
    """A layer with weights, or a channel shuffle, as it stands in the network.

    `name` is the path of its module. `kind` is a symbol of `ifspace.kinds`, or "LINEAR" for a dense
    layer behind the maps. Kernel, stride and dilation in pixels, (height, width); `side_in` and
    `side_out` are maps, (height, width) in pixels. `params` counts weights and bias once however
    often it is called; `macs` is of one image. `step`: how far the window of a rolling pointwise
    filter rolls on, in channels.
    """

    name: str
    kind: str
    c_in: int
    c_out: int
    groups: int
    kernel: Size
    stride: Size
    dilation: Size
    side_in: Size
    side_out: Size
    params: int
    macs: int
    bias: bool = False
    overlap: Fraction | None = None
    step: int = 1

    @property
    def reach(self) -> Size:
        """The effective kernel, dilation (k - 1) + 1, in pixels.

        Reference: MATH section 5, stages of a real network.
        """
        height, width = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))
        return height, width

    @property
    def strided(self) -> bool:
        """Whether it makes the map smaller."""
        return max(self.stride) > 1


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A map of the network: what wrote it, from which maps, and its size.

    `scope` is the path of the module that it ran in. `window`, `stride` and `dilation` are those of
    a layer or a pooling, in pixels; a stride of a map made larger is below 1. `moves` [channels, 2]
    of a MOVE: for each channel the place in `parents` and the channel there, or -1, -1 for zeros.
    """

    number: int
    op: Op
    parents: tuple[int, ...]
    channels: int
    side: Size
    scope: str
    layer: TracedLayer | None = None
    window: Size = (1, 1)
    stride: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    dilation: Size = (1, 1)
    moves: npt.NDArray[np.int64] | None = None

    @property
    def changes_size(self) -> bool:
        """Whether it is smaller or larger than what it reads, padding left aside."""
        return max(self.stride) > 1 or min(self.stride) < 1


@dataclass(frozen=True, eq=False)
class Trace:
    """The maps of a network in the order in which they are written; numbers are places.

    `image`: (channels, height, width). `gates`: the layers that only scale other maps, such as
    squeeze-excite. `head`: layers behind the last map. `passed`: what else was called, and how
    often. `how`: "export" or "hooks". `notes`: what was not understood.
    """

    nodes: tuple[Node, ...]
    image: tuple[int, int, int]
    params: int
    gates: tuple[TracedLayer, ...] = ()
    head: tuple[TracedLayer, ...] = ()
    passed: Mapping[str, int] | None = None
    how: str = "export"
    notes: tuple[str, ...] = ()

    @cached_property
    def layers(self) -> tuple[TracedLayer, ...]:
        """The layers that write maps, shuffles included, in the order in which they run."""
        return tuple(node.layer for node in self.nodes if node.layer is not None)

    @cached_property
    def all_layers(self) -> tuple[TracedLayer, ...]:
        """Those, and the layers of gates and of the head."""
        return (*self.layers, *self.gates, *self.head)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one image: convolutions and dense layers."""
        return sum(layer.macs for layer in self.all_layers)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """For each map, those that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for parent in dict.fromkeys(node.parents):
                found[parent].append(node.number)
        return tuple(map(tuple, found))
