"""A traced network as values: its layers, and the graph of maps that they read and write.

A *map* is a node: what a layer, a sum, a pooling or a move of channels writes. What keeps a map as
it is (activations, normalisation, dropout, a product with weights) is no node of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import nn

from ifspace.kinds import ConvKind, find_kind

Size = tuple[int, int]
LINEAR: Final = "LINEAR"


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
    def is_linear(self) -> bool:
        """Whether it is a dense layer behind the feature maps."""
        return self.kind == LINEAR

    @property
    def conv(self) -> ConvKind:
        """The row of its kind; a dense layer is a pointwise convolution of one pixel."""
        return find_kind("PW" if self.is_linear else self.kind)

    @property
    def is_convolution(self) -> bool:
        """Whether it is more than a dense layer on each pixel, and no shuffle."""
        return self.conv.writes and (self.conv.spatial or not self.conv.dense)

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


def conv_kind(c_in: int, c_out: int, groups: int, kernel: Size) -> str:
    """Return the symbol of a convolution; a depthwise one keeps its width.

    >>> conv_kind(64, 64, 1, (3, 3)), conv_kind(64, 64, 64, (3, 3)), conv_kind(64, 64, 4, (1, 1))
    ('CONV', 'DW', 'GPW')
    """
    if kernel == (1, 1):
        return "PW" if groups == 1 else "GPW"
    if groups == 1:
        return "CONV"
    return "DW" if groups == c_in == c_out else "GC"


def conv_layer(
    name: str,
    c_in: int,
    weight: Sequence[int],
    side_in: Size,
    side_out: Size,
    params: int,
    arguments: Mapping[str, Any],
) -> TracedLayer:
    """Return a convolution with a weight [C_out, C_in / groups, k, k], called with arguments."""
    c_out, _, *sizes = weight
    groups = int(arguments["groups"])
    kernel, bias = _pair(sizes, 1, len(sizes)), arguments.get("bias") is not None
    return TracedLayer(
        name,
        conv_kind(c_in, c_out, groups, kernel),
        c_in,
        c_out,
        groups,
        kernel,
        _pair(arguments["stride"], 1, len(sizes)),
        _pair(arguments["dilation"], 1, len(sizes)),
        side_in,
        side_out,
        params,
        prod(weight) * prod(side_out),
        bias,
    )


def linear_layer(
    name: str, c_in: int, c_out: int, side: Size, params: int, bias: bool, behind: bool
) -> TracedLayer:
    """Return a dense layer: pointwise where it reads the channels of maps, LINEAR behind them."""
    return TracedLayer(
        name,
        LINEAR if behind else "PW",
        c_in,
        c_out,
        1,
        (1, 1),
        (1, 1),
        (1, 1),
        side,
        side,
        params,
        c_in * c_out * prod(side),
        bias,
    )


def rolling_layer(
    name: str,
    c_in: int,
    weight: Sequence[int],
    step: int,
    side: Size,
    params: int,
    bias: bool,
    model: nn.Module,
) -> TracedLayer:
    """Return a rolling pointwise layer with a weight [C_out, w]; the module knows its overlap."""
    c_out, width = weight
    try:
        overlap = getattr(model.get_submodule(name), "overlap", None)
    except AttributeError:
        overlap = None
    if not isinstance(overlap, Fraction):
        overlap = Fraction(width - step, width)
    return TracedLayer(
        name,
        "RPW",
        c_in,
        c_out,
        c_in // width,
        (1, 1),
        (1, 1),
        (1, 1),
        side,
        side,
        params,
        c_out * width * prod(side),
        bias,
        overlap,
        step,
    )


def _pair(sizes: Any, short: int, dims: int = 2) -> Size:
    """Return (height, width) of a number, of two, or along a line of pixels, `short` high."""
    found = [sizes] * dims if isinstance(sizes, int) else [int(size) for size in sizes]
    if dims == 1 or len(found) == 1:
        return short, found[0]
    return found[0], found[1]
