"""A traced network as values: its layers, and the graph of feature maps that they read and write.

A node of the graph is a feature map, written by a layer, a sum, a pooling or a selection of
channels. Operators that keep a feature map as it is (activations, normalisation, dropout, a product
with weights) have no node of their own.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ifspace.kinds import (
    KINDS,
    ConvKind,
    dense_pointwise_kind,
    find_kind,
    rolling_pointwise_kind,
    shuffle_kind,
)
from ifspace.memory import Schedule

# (height, width) in pixels.
Size = tuple[int, int]  # (height, width) in pixels
ImageSize = tuple[int, int, int]  # (channels, height, width)
# The kind of a fully connected layer behind the feature maps, which is no convolution.
LINEAR: Final = "LINEAR"


class Op(Enum):
    """What writes a feature map."""

    INPUT = "the image"
    LAYER = "a convolution, or a dense layer on the channels"
    JOIN = "a sum or product of feature maps of equal shape: it sees the union of what they see"
    MOVE = "channels selected, concatenated or shuffled"
    POOL = "pooling"
    RESIZE = "upsampling"
    GLOBAL = "global pooling"
    MIX = "an operation after which every pixel sees all others"


def conv_kind(c_in: int, c_out: int, groups: int, kernel: Size) -> str:
    """Return the symbol of a convolution; a depthwise one keeps its width.

    >>> conv_kind(64, 64, 1, (3, 3)), conv_kind(64, 64, 64, (3, 3)), conv_kind(64, 64, 4, (1, 1))
    ('CONV', 'DW', 'GPW')
    """
    spatial = kernel != (1, 1)
    depthwise = spatial and 1 < groups == c_in == c_out
    return next(
        kind.symbol
        for kind in KINDS.values()
        if kind.writes
        and not kind.takes_overlap
        and kind.spatial == spatial
        and kind.mixing == (not depthwise)
        and kind.takes_groups == (groups > 1 and not depthwise)
    )


@dataclass(frozen=True, slots=True)
class TracedLayer:
    """A layer with weights, or a channel shuffle, as the network runs it.

    `name` is the full name of its module. `kind` is a symbol of `ifspace.kinds`, or "LINEAR" for a
    fully connected layer behind the feature maps. Kernel, stride, dilation and the sizes of the
    feature maps, `size_in` and `size_out`, are (height, width) in pixels. `params` counts weights
    and bias once however often the layer runs; `macs` is for one image. `step`: how many channels
    the windows of a rolling pointwise layer move on from one to the next; `order`: which of them
    its filters read.
    """

    name: str
    kind: str
    c_in: int
    c_out: int
    groups: int
    kernel: Size
    stride: Size
    dilation: Size
    size_in: Size
    size_out: Size
    params: int
    macs: int
    bias: bool = False
    overlap: Fraction | None = None
    step: int = 1
    order: str | None = None

    @property
    def is_linear(self) -> bool:
        """Whether it is a fully connected layer behind the feature maps."""
        return self.kind == LINEAR

    @property
    def conv(self) -> ConvKind:
        """The row of its kind; a fully connected layer is a pointwise convolution of one pixel."""
        return dense_pointwise_kind() if self.is_linear else find_kind(self.kind)

    @property
    def is_convolution(self) -> bool:
        """Whether it is neither a shuffle nor a matrix on all channels of a pixel."""
        return self.conv.writes and (self.conv.spatial or not self.conv.dense)

    @property
    def effective_kernel(self) -> Size:
        """The effective kernel size, dilation (k - 1) + 1, in pixels.

        Reference: docs/real-networks.md, how a network is read.
        """
        height, width = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))
        return height, width

    @property
    def strided(self) -> bool:
        """Whether it makes the feature map smaller."""
        return max(self.stride) > 1


def conv_layer(
    name: str,
    c_in: int,
    weight: Sequence[int],
    size_in: Size,
    size_out: Size,
    params: int,
    *,
    groups: int,
    stride: Any,
    dilation: Any,
    bias: bool,
) -> TracedLayer:
    """Return a convolution with a weight of shape [C_out, C_in / groups, k, k], or [..., k]."""
    c_out, _, *sizes = weight
    dims = len(sizes)
    kernel = pair(sizes, dims)
    return TracedLayer(
        name,
        kind=conv_kind(c_in, c_out, groups, kernel),
        c_in=c_in,
        c_out=c_out,
        groups=groups,
        kernel=kernel,
        stride=pair(stride, dims),
        dilation=pair(dilation, dims),
        size_in=size_in,
        size_out=size_out,
        params=params,
        macs=prod(weight) * prod(size_out),
        bias=bias,
    )


def transposed_layer(
    name: str,
    weight: Sequence[int],
    size_in: Size,
    size_out: Size,
    params: int,
    *,
    groups: int,
    dilation: Any,
    bias: bool,
) -> TracedLayer:
    """Return a transposed convolution with a weight of shape [C_in, C_out / groups, k, k].

    It counts as a convolution of stride 1 on an upsampled feature map, but each pixel of the input
    is multiplied with the whole weight once: MACs = k k C_in C_out / groups H_in W_in.
    """
    c_in, per_group, *sizes = weight
    shape = (per_group * groups, c_in // groups, *sizes)
    layer = conv_layer(
        name,
        c_in,
        shape,
        size_in,
        size_in,
        params,
        groups=groups,
        stride=1,
        dilation=dilation,
        bias=bias,
    )
    return replace(layer, size_out=size_out)


def linear_layer(
    name: str, c_in: int, c_out: int, size: Size, params: int, *, bias: bool, on_pixels: bool
) -> TracedLayer:
    """Return a dense layer: pointwise where it runs on every pixel, "LINEAR" behind them."""
    return TracedLayer(
        name,
        kind=dense_pointwise_kind().symbol if on_pixels else LINEAR,
        c_in=c_in,
        c_out=c_out,
        groups=1,
        kernel=(1, 1),
        stride=(1, 1),
        dilation=(1, 1),
        size_in=size,
        size_out=size,
        params=params,
        macs=c_in * c_out * prod(size),
        bias=bias,
    )


def rolling_layer(
    name: str,
    c_in: int,
    weight: Sequence[int],
    step: int,
    size: Size,
    params: int,
    *,
    bias: bool,
    order: str,
    overlap: Fraction | None = None,
) -> TracedLayer:
    """Return a rolling pointwise layer with a weight of shape [C_out, w].

    `overlap`: the ratio that the module names; otherwise that of the step.
    """
    c_out, width = weight
    return TracedLayer(
        name,
        kind=rolling_pointwise_kind().symbol,
        c_in=c_in,
        c_out=c_out,
        groups=c_in // width,
        kernel=(1, 1),
        stride=(1, 1),
        dilation=(1, 1),
        size_in=size,
        size_out=size,
        params=params,
        macs=c_out * width * prod(size),
        bias=bias,
        overlap=Fraction(width - step, width) if overlap is None else overlap,
        step=step,
        order=order,
    )


def shuffle_layer(name: str, channels: int, groups: int, size: Size) -> TracedLayer:
    """Return a channel shuffle."""
    return TracedLayer(
        name,
        kind=shuffle_kind().symbol,
        c_in=channels,
        c_out=channels,
        groups=groups,
        kernel=(1, 1),
        stride=(1, 1),
        dilation=(1, 1),
        size_in=size,
        size_out=size,
        params=0,
        macs=0,
    )


def pair(size: Any, dims: int = 2) -> Size:
    """Return a kernel size, stride or dilation as (height, width), as torch reads it.

    It is a number for all axes, or a list of one number for all axes or of one for each. Along one
    axis, a line of pixels, the height is 1.

    >>> pair(3), pair([2]), pair([3, 5]), pair([3], dims=1)
    ((3, 3), (2, 2), (3, 5), (1, 3))
    """
    sizes = [size] if isinstance(size, int) else [int(axis) for axis in size]
    if len(sizes) < dims:
        sizes *= dims
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A feature map: what wrote it, from which other ones, and its size.

    `parents` are indices of nodes. `scope` is the full name of the module whose forward wrote it.
    `window`, `stride` and `dilation` are those of a layer or a pooling, in pixels; the stride of an
    upsampling is below 1. `sources` [channels, 2] of a MOVE: for each channel the index in
    `parents` and the channel there, or (-1, -1) for zeros.

    Pixels are counted from the pixel that is written, strides as 1. `reach`: the first and last row
    and the first and last column that a window reads; None for a window around the middle.
    `shifts`: how far (rows, columns) what it reads was moved before, for each parent; nothing where
    nothing was. `moved` [channels, 2]: the same for each channel of a MOVE. `unknown` [channels]:
    those that read pixels which are not known. `taps`: how many pixels an upsampling interpolates,
    along each axis. `starts`: of a JOIN of feature maps that lie side by side, the row and column
    where each begins. `uses`: for each module around it that is called again, which call it is,
    from 1 on.
    """

    index: int
    op: Op
    parents: tuple[int, ...]
    channels: int
    size: Size
    scope: str
    layer: TracedLayer | None = None
    window: Size = (1, 1)
    stride: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    dilation: Size = (1, 1)
    sources: npt.NDArray[np.int64] | None = None
    reach: tuple[Size, Size] | None = None
    shifts: tuple[Size, ...] = ()
    moved: npt.NDArray[np.int64] | None = None
    unknown: npt.NDArray[np.bool_] | None = None
    taps: int = 1
    starts: tuple[Size, ...] = ()
    uses: Mapping[str, int] = field(default_factory=dict)

    @property
    def changes_size(self) -> bool:
        """Whether it is smaller or larger than what it reads, apart from padding."""
        return max(self.stride) > 1 or min(self.stride) < 1


@dataclass(frozen=True, slots=True)
class OperatorCall:
    """A call of an operator: its bare name, and the full name of the module whose forward calls.

    `layer`: the full name of the layer that it runs, "" for an operator without weights.
    """

    scope: str
    operator: str
    layer: str = ""

    def __str__(self) -> str:
        return f"{self.scope or 'the network'} ({self.operator})"


@dataclass(frozen=True, slots=True)
class LiveSchedule:
    """Which feature maps are live while a network runs, for one image: a call for each step."""

    schedule: Schedule
    calls: tuple[OperatorCall, ...]

    @property
    def peak(self) -> int:
        """The peak memory: the most elements that are live at once."""
        return self.schedule.peak.elements

    @property
    def activations(self) -> int:
        """The elements of all feature maps that are written, which training keeps."""
        return self.schedule.written

    @property
    def peak_call(self) -> OperatorCall:
        """The first call during which they are."""
        return self.calls[self.schedule.peak.step]

    def steps_of(self, layer: str) -> list[int]:
        """Return the indices of the steps that run a layer."""
        return [index for index, call in enumerate(self.calls) if call.layer == layer]

    def peak_without(self, layers: Collection[str]) -> int:
        """Return the most elements that are live while anything but some layers runs."""
        live = self.schedule.live()
        pairs = zip(live, self.calls, strict=True)
        return max((count for count, call in pairs if call.layer not in layers), default=0)

    def peak_call_without(self, layers: Collection[str]) -> OperatorCall:
        """Return the first call, of any but some layers, during which the most are live."""
        pairs = zip(self.schedule.live(), self.calls, strict=True)
        others = (pair for pair in pairs if pair[1].layer not in layers)
        return max(others, key=lambda pair: pair[0])[1]

    def peak_with(self, layer: str, chains: Sequence[Schedule]) -> int:
        """Return the most elements that are live while a layer runs, with a chain in its place.

        `chains`: one for each call of it.
        """
        most = 0
        for index, chain in zip(self.steps_of(layer), chains, strict=True):
            live = self.schedule.with_chain(index, chain).live()
            most = max(most, *live[index : index + len(chain.steps)])
        return most


@dataclass(frozen=True, eq=False)
class Trace:
    """The feature maps of a network in the order in which they are written.

    `image`: (channels, height, width). `gates`: the layers that only scale other feature maps, such
    as those of squeeze-and-excitation. `head`: layers behind the last feature map. `passed`: the
    operators that keep a feature map as it is, and how often each is called. `how`: "export" or
    "hooks". `notes`: what was not understood. `unplaced`: layers that run and have no place among
    the feature maps, because they read a constant, or what they write was lost from sight. `runs`:
    the full names of all modules whose weights the exported program uses; all modules without one.
    `outputs`: the indices of the feature maps that the network returns, or computes what it returns
    from by pooling and dense layers; `returned`: of those the first. `live`: which feature maps
    are live while it runs, None for a trace by hooks, which see no branches.
    """

    nodes: tuple[Node, ...]
    image: tuple[int, int, int]
    params: int
    gates: tuple[TracedLayer, ...] = ()
    head: tuple[TracedLayer, ...] = ()
    passed: Mapping[str, int] | None = None
    how: str = "export"
    notes: tuple[str, ...] = ()
    unplaced: tuple[TracedLayer, ...] = ()
    runs: frozenset[str] = frozenset()
    outputs: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()
    live: LiveSchedule | None = None

    @cached_property
    def layers(self) -> tuple[TracedLayer, ...]:
        """The layers that write feature maps, shuffles included, in the order in which they run."""
        return tuple(node.layer for node in self.nodes if node.layer is not None)

    @cached_property
    def all_layers(self) -> tuple[TracedLayer, ...]:
        """All layers: those that write feature maps, then gates, the head, and the unplaced."""
        return (*self.layers, *self.gates, *self.head, *self.unplaced)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one image: convolutions and dense layers."""
        return sum(layer.macs for layer in self.all_layers)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """For each feature map, the indices of those that read it."""
        children: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for parent in dict.fromkeys(node.parents):
                children[parent].append(node.index)
        return tuple(map(tuple, children))
