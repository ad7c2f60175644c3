"""The information field on a graph of feature maps, from the input of a stage on.

For every channel of a feature map: which channels of the stage's input it sees, and how many pixels
high and wide. Sums and products take unions; a selection takes its channels along. Strides count as
1: pixels are those of the stage.

Reference: docs/real-networks.md, how a network is read; [IF] eqs. 1 to 3.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ifspace.block import (
    Layer,
    SizedLayer,
)
from ifspace.infofield import field_limit, spatial_field
from ifspace.models.graph import Node, Op, Size, Trace, TracedLayer
from ifspace.reach import Rows, start, through

Pixels = npt.NDArray[np.int64]
Channels = npt.NDArray[np.bool_]
# More pixels than any feature map is high or wide.
EVERYWHERE: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Field:
    """The field of a feature map: pixels (height, width), channels, and its volume in elements.

    Channels are those that every output sees at least; pixels those that an output sees at most.
    `unknown`: whether an output sees pixels that are not known, and these are only the others.
    """

    size: Size
    channels: int
    volume: int
    unknown: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ChannelFields:
    """What each channel of a feature map sees: rows of bits [C, words], and pixels.

    `first` and `last` [C, 2]: the first and last row and column, counted from the pixel itself; the
    first lies behind the last where it sees nothing. `unknown` [C]: whether it sees other pixels
    too, of which nothing is known.
    """

    rows: Rows
    first: Pixels
    last: Pixels
    unknown: Channels

    @property
    def pixels(self) -> Pixels:
        """How many pixels high and wide each channel sees [C, 2]."""
        pixels: Pixels = np.clip(self.last - self.first + 1, 0, EVERYWHERE)
        return pixels

    def of(self, channels: Channels) -> "ChannelFields":
        """Return what some of the channels see."""
        return ChannelFields(
            self.rows[channels], self.first[channels], self.last[channels], self.unknown[channels]
        )

    def moved(self, shifts: Pixels | Size) -> "ChannelFields":
        """Return what they see after all channels, or each of them, were moved by some pixels."""
        shifts = np.asarray(shifts, dtype=np.int64)
        return replace(self, first=self.first + shifts, last=self.last + shifts)

    def field(self, size: Size, cap: str = "input") -> Field:
        """Return the field of all channels of a stage that feature maps of a size enter.

        `cap` as in `ifspace.infofield.CAPS`; what sees every pixel sees those that enter.
        """
        height, width = (
            side if pixels >= EVERYWHERE else spatial_field([int(pixels)], field_limit(side, cap))
            for pixels, side in zip(self.pixels.max(0), size, strict=True)
        )
        channels = int(np.bitwise_count(self.rows).sum(axis=1, dtype=np.int64).min())
        unknown = bool(self.unknown.any()) and (height < size[0] or width < size[1])
        return Field((height, width), channels, height * width * channels, unknown)


class Propagation:
    """The fields of feature maps with respect to some inputs, each computed when it is needed.

    An input sees itself; with `input_fields`, it sees what they say, by index.

    >>> from torch import nn
    >>> from ifspace.models.tracing import trace
    >>> convs = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 3))
    >>> graph = trace(convs, (4, 9, 9))
    >>> [Propagation(graph, [0]).field(index, (9, 9)).volume for index in (1, 2)]
    [18, 100]
    """

    def __init__(
        self,
        trace: Trace,
        inputs: Iterable[int],
        input_fields: Mapping[int, ChannelFields] | None = None,
    ) -> None:
        self._trace = trace
        self._fields: dict[int, ChannelFields]
        self.channels: int
        if input_fields is not None:
            self.inputs = tuple(input_fields)
            self.channels = 64 * next(iter(input_fields.values())).rows.shape[1]
            self._fields = dict(input_fields)
            return
        self.inputs = tuple(inputs)
        self.channels = sum(trace.nodes[index].channels for index in self.inputs)
        identity = start(self.channels)
        self._fields = {}
        first = 0
        for index in self.inputs:
            end = first + trace.nodes[index].channels
            itself = np.zeros((end - first, 2), dtype=np.int64)
            unknown = np.zeros(end - first, dtype=np.bool_)
            self._fields[index] = ChannelFields(identity[first:end], itself, itself, unknown)
            first = end

    def field(self, index: int, size: Size, cap: str = "input") -> Field:
        """Return the field of a feature map, in a stage that feature maps of a size enter.

        Of concatenated feature maps it is that of the one that sees most: only the layer behind
        them joins what one sees along the rows and another along the columns.
        """
        node = self._trace.nodes[index]
        fields = self.fields(index)
        if node.op is not Op.MOVE or node.sources is None or index in self.inputs:
            return fields.field(size, cap)
        if node.layer is not None:
            return self.field(node.parents[0], size, cap)
        parts = [
            fields.of(node.sources[:, 0] == parent).field(size, cap)
            for parent in range(len(node.parents))
        ]
        widest = max(parts, key=lambda part: part.volume)
        is_whole = widest.size[0] >= size[0] and widest.size[1] >= size[1]
        return replace(widest, unknown=any(part.unknown for part in parts) and not is_whole)

    def fields(self, index: int) -> ChannelFields:
        """Return what each channel of a feature map sees; before the inputs, nothing."""
        for earlier in range(min(self.inputs, default=0), index + 1):
            if earlier not in self._fields:
                self._fields[earlier] = self._propagate(self._trace.nodes[earlier])
        return self._fields.get(index) or self._nothing(self._trace.nodes[index].channels)

    def _propagate(self, node: Node) -> ChannelFields:
        below = [
            self._fields.get(parent) or self._nothing(self._trace.nodes[parent].channels)
            for parent in node.parents
        ]
        if not below:
            return self._nothing(node.channels)
        if node.op is Op.MIX or (len(below) > 1 and node.op is Op.LAYER):
            return _everything(node, below)
        if node.shifts:
            below = [fields.moved(shift) for fields, shift in zip(below, node.shifts, strict=True)]
        fields = self._of_node(node, below)
        if node.unknown is not None:
            fields = replace(fields, unknown=fields.unknown | node.unknown)
        return fields

    def _of_node(self, node: Node, below: Sequence[ChannelFields]) -> ChannelFields:
        if node.op is Op.MOVE:
            return self._moved(node, below)
        if node.op is Op.JOIN and node.starts:
            # Side by side lie regions of one feature map, or feature maps that are each a whole.
            starts = zip(below, node.starts, strict=True)
            regions = _union([fields.moved((-row, -column)) for fields, (row, column) in starts])
            return min(regions, _union(below), key=lambda fields: int(fields.pixels.sum()))
        if node.op is Op.JOIN:
            return _union(below)
        if node.op is Op.GLOBAL:
            return _of_all_pixels(below[0])
        if node.layer is None:
            return _through_window(below[0], node)
        return _through_layer(node, node.layer, below[0])

    def _nothing(self, channels: int) -> ChannelFields:
        words = -(-self.channels // 64)
        beyond = np.full((channels, 2), EVERYWHERE)
        return ChannelFields(
            np.zeros((channels, words), dtype=np.uint64),
            beyond,
            -beyond,
            np.zeros(channels, dtype=np.bool_),
        )

    def _moved(self, node: Node, below: Sequence[ChannelFields]) -> ChannelFields:
        moved = self._nothing(node.channels)
        assert node.sources is not None
        for parent, fields in enumerate(below):
            read = node.sources[:, 0] == parent
            of = fields.of(node.sources[read, 1])
            moved.rows[read], moved.unknown[read] = of.rows, of.unknown
            moved.first[read], moved.last[read] = of.first, of.last
        return moved if node.moved is None else moved.moved(node.moved)


def _union(below: Sequence[ChannelFields]) -> ChannelFields:
    """Return the fields of channels that each see what the same channels below see."""
    return ChannelFields(
        np.bitwise_or.reduce([fields.rows for fields in below]),
        np.min([fields.first for fields in below], axis=0),
        np.max([fields.last for fields in below], axis=0),
        np.logical_or.reduce([fields.unknown for fields in below]),
    )


def _everything(node: Node, below: Sequence[ChannelFields]) -> ChannelFields:
    """Return the fields of channels that each see all channels and pixels below."""
    whole = [_of_all_pixels(fields) for fields in below]
    parts = (
        np.bitwise_or.reduce([np.bitwise_or.reduce(fields.rows, axis=0) for fields in whole]),
        np.min([fields.first.min(0) for fields in whole], axis=0),
        np.max([fields.last.max(0) for fields in whole], axis=0),
    )
    rows, first, last = (np.broadcast_to(part, (node.channels, len(part))) for part in parts)
    return ChannelFields(rows, first, last, np.zeros(node.channels, dtype=np.bool_))


def _of_all_pixels(fields: ChannelFields) -> ChannelFields:
    """Return the fields of channels that see all pixels, if they see any."""
    some = fields.first <= fields.last
    return ChannelFields(
        fields.rows,
        np.where(some, -EVERYWHERE, EVERYWHERE),
        np.where(some, EVERYWHERE, -EVERYWHERE),
        np.zeros(len(fields.rows), dtype=np.bool_),
    )


def reach_of(node: Node) -> Pixels:
    """Return the first and last row and column [2, 2] that the window of a node reads."""
    if node.reach is not None:
        return np.array(node.reach)
    margins = [d * (k - 1) for d, k in zip(node.dilation, node.window, strict=True)]
    return np.array([(-(margin // 2), margin - margin // 2) for margin in margins])


def _through_window(fields: ChannelFields, node: Node) -> ChannelFields:
    """Return the fields of what a window reads: dilation (k - 1) more pixels."""
    reach = reach_of(node)
    return replace(fields, first=fields.first + reach[:, 0], last=fields.last + reach[:, 1])


def sized_layer(layer: TracedLayer) -> SizedLayer:
    """Return the layer of a block that reads the same channels; kernels may have any size."""
    groups = layer.groups if layer.conv.takes_groups else None
    plain = Layer(layer.conv.symbol, groups, layer.overlap, order=layer.order)
    return SizedLayer(plain, layer.c_in, layer.c_out)


def _through_layer(node: Node, layer: TracedLayer, below: ChannelFields) -> ChannelFields:
    sized = sized_layer(layer)
    rows = through(below.rows, sized)
    if sized.fan_in == layer.c_in:
        first = np.broadcast_to(below.first.min(0), (layer.c_out, 2))
        last = np.broadcast_to(below.last.max(0), (layer.c_out, 2))
        unknown: Channels = np.full(layer.c_out, below.unknown.any())
    else:
        reads = sized.reads()
        first, last = below.first[reads].min(1), below.last[reads].max(1)
        unknown = np.asarray(below.unknown[reads].any(1))
    return _through_window(ChannelFields(rows, first, last, unknown), node)


@dataclass(frozen=True, slots=True)
class Receptive:
    """The classical receptive field of a feature map in pixels of the image, and its jump.

    The jump is the distance in the image between neighbouring pixels of the feature map. `unknown`:
    whether it sees other pixels too, of which nothing is known.
    """

    size: tuple[Fraction, Fraction]
    jump: tuple[Fraction, Fraction]
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class _Upsampling:
    """An upsampling by `scale` on the way, and the window of all that came after it.

    `first`, `last` and `step`, the distance of neighbouring pixels now, in pixels of what it wrote.
    `margin`: how many of these pixels more than one pixel writes into.
    """

    scale: Fraction
    margin: Fraction
    first: Fraction = Fraction(0)
    last: Fraction = Fraction(0)
    step: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class _Path:
    """Along one axis, what is seen of the image by ways with the same strides and upsamplings.

    `first` and `last` in pixels of the image, counted from the pixel itself, and its jump, up to
    the first upsampling. `everywhere`: whether every pixel saw all others on the way, so that only
    the size means anything.
    """

    first: Fraction = Fraction(0)
    last: Fraction = Fraction(0)
    jump: Fraction = Fraction(1)
    upsamplings: tuple[_Upsampling, ...] = ()
    everywhere: bool = False

    @property
    def strides(self) -> tuple[Any, ...]:
        """What paths that can be joined have in common."""
        return (
            self.everywhere,
            self.jump,
            *((up.scale, up.margin, up.step) for up in self.upsamplings),
        )

    @property
    def size(self) -> Fraction:
        """The receptive field: at the worst place, where the most pixels before it are needed.

        n pixels after a nearest upsampling by s lie in at most floor((n - 1 + s - 1) / s) + 1
        pixels before it.
        """
        width = Fraction(0)
        for up in reversed(self.upsamplings):
            width = Fraction(floor((width * up.step + up.last - up.first + up.margin) / up.scale))
        return self.last - self.first + width * self.jump + 1

    def through(self, first: int, last: int) -> "_Path":
        """Return the path through a window, its first and last pixel."""
        if not self.upsamplings:
            return replace(
                self, first=self.first + first * self.jump, last=self.last + last * self.jump
            )
        up = self.upsamplings[-1]
        up = replace(up, first=up.first + first * up.step, last=up.last + last * up.step)
        return replace(self, upsamplings=(*self.upsamplings[:-1], up))

    def at(self, stride: Fraction, margin: Fraction) -> "_Path":
        """Return the path after a stride, below 1 for an upsampling with a margin."""
        if stride < 1:
            return replace(self, upsamplings=(*self.upsamplings, _Upsampling(1 / stride, margin)))
        if not self.upsamplings:
            return replace(self, jump=self.jump * stride)
        up = self.upsamplings[-1]
        up = replace(up, step=up.step * stride)
        return replace(self, upsamplings=(*self.upsamplings[:-1], up))

    def joined(self, other: "_Path") -> "_Path":
        """Return the union of two paths with the same strides."""
        if self.everywhere:
            return max(self, other, key=lambda path: path.size)
        ups = zip(self.upsamplings, other.upsamplings, strict=True)
        return replace(
            self,
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            upsamplings=tuple(
                replace(a, first=min(a.first, b.first), last=max(a.last, b.last)) for a, b in ups
            ),
        )


# Of so many paths with other strides, those that see most, the receptive field is the largest.
_MOST_PATHS: Final = 16


def receptive_fields(trace: Trace) -> Mapping[int, Receptive]:
    """Return the receptive field of every feature map, by index: the largest of all branches.

    A window of k pixels with dilation d adds d (k - 1) jumps of the feature map that it reads;
    after an upsampling fewer, because some of its pixels lie between those of the feature map.

    Reference: Araujo, Norris and Sim, Computing Receptive Fields, eq. 2.
    """
    receptive: dict[int, Receptive] = {}
    paths: dict[int, tuple[tuple[_Path, ...], ...]] = {}
    for node in trace.nodes:
        axes = tuple(_paths_along(trace, node, axis, paths) for axis in (0, 1))
        sizes = [max(path.size for path in axis) for axis in axes]
        below = [receptive[parent] for parent in node.parents]
        jumps = [
            max((field.jump[axis] for field in below), default=Fraction(1)) * node.stride[axis]
            for axis in (0, 1)
        ]
        unknown = any(field.unknown for field in below) or node.unknown is not None
        if node.op in (Op.MIX, Op.GLOBAL):
            unknown = False
            sizes = [
                max(Fraction(pixels), size)
                for pixels, size in zip(trace.image[1:], sizes, strict=True)
            ]
            axes = tuple(
                (_Path((1 - size) / 2, (size - 1) / 2, jump, everywhere=True),)
                for size, jump in zip(sizes, jumps, strict=True)
            )
        # Whatever else it sees, it is not more than the image.
        unknown &= any(size < pixels for size, pixels in zip(sizes, trace.image[1:], strict=True))
        paths[node.index] = axes
        receptive[node.index] = Receptive((sizes[0], sizes[1]), (jumps[0], jumps[1]), unknown)
    return receptive


def _paths_along(
    trace: Trace, node: Node, axis: int, paths: Mapping[int, tuple[tuple[_Path, ...], ...]]
) -> tuple[_Path, ...]:
    """Return the paths to a feature map along an axis, those with the same strides joined."""
    first, last = (int(pixel) for pixel in reach_of(node)[axis])
    margin = Fraction(last - first)
    stride = node.stride[axis]
    if stride < 1 and node.layer is None:
        margin, first, last = node.taps / stride - 1, 0, 0
    elif stride < 1:
        first, last = 0, 0
    starts = [start[axis] for start in node.starts]
    # Side by side lie regions of one feature map, or feature maps that are each a whole.
    choices = []
    for begins in (starts, []) if any(starts) else ([],):
        joined: dict[tuple[Any, ...], _Path] = {}
        for number, parent in enumerate(node.parents):
            moves = [node.shifts[number][axis]] if node.shifts else [0]
            if node.moved is not None and node.sources is not None:
                moves = node.moved[node.sources[:, 0] == number, axis].tolist() or [0]
            start = begins[number] if begins else 0
            ends = first + min(moves) - start, last + max(moves) - start
            for path in paths[parent][axis]:
                arrived = path.through(*ends).at(stride, margin)
                same = joined.get(arrived.strides)
                joined[arrived.strides] = arrived if same is None else same.joined(arrived)
        choices.append(sorted(joined.values(), key=lambda path: path.size, reverse=True))
    smallest = min(choices, key=lambda choice: choice[0].size if choice else 0)
    return tuple(smallest[:_MOST_PATHS]) or (_Path(),)
