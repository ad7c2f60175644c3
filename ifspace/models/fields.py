"""The information field on a graph of feature maps, from the input of a stage on.

For every channel of a feature map: which channels of the stage's input it sees, and how many pixels
high and wide. Sums and products take unions; a selection takes its channels along. Strides count as
1: pixels are those of the stage.

Reference: docs/real-networks.md, how a network is read; [IF] eqs. 1 to 3.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Final

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
# More pixels than any feature map is high or wide.
EVERYWHERE: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Field:
    """The field of a feature map: pixels (height, width), channels, and its volume in elements.

    Channels are those that every output sees at least; pixels those that an output sees at most.
    """

    size: Size
    channels: int
    volume: int


@dataclass(frozen=True, slots=True, eq=False)
class ChannelFields:
    """What each channel of a feature map sees: rows of bits [C, words] and pixels [C, 2]."""

    rows: Rows
    pixels: Pixels

    def of(self, channels: npt.NDArray[np.bool_]) -> "ChannelFields":
        """Return what some of the channels see."""
        return ChannelFields(self.rows[channels], self.pixels[channels])

    def field(self, size: Size, cap: str = "input") -> Field:
        """Return the field of all channels of a stage that feature maps of a size enter.

        `cap` as in `ifspace.infofield.CAPS`; what sees every pixel sees those that enter.
        """
        height, width = (
            side if pixels >= EVERYWHERE else spatial_field([int(pixels)], field_limit(side, cap))
            for pixels, side in zip(self.pixels.max(0), size, strict=True)
        )
        channels = int(np.bitwise_count(self.rows).sum(axis=1, dtype=np.int64).min())
        return Field((height, width), channels, height * width * channels)


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
            one_pixel = np.ones((end - first, 2), dtype=np.int64)
            self._fields[index] = ChannelFields(identity[first:end], one_pixel)
            first = end

    def field(self, index: int, size: Size, cap: str = "input") -> Field:
        """Return the field of a feature map, in a stage that feature maps of a size enter.

        Of concatenated feature maps it is the union of pixels, and the channels of the one that
        sees most.
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
        channels = max(parts, key=lambda part: (part.channels, part.volume)).channels
        height = max(part.size[0] for part in parts)
        width = max(part.size[1] for part in parts)
        return Field((height, width), channels, height * width * channels)

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
        if node.op is Op.MOVE:
            return self._moved(node, below)
        if node.op is Op.JOIN:
            rows = np.bitwise_or.reduce([fields.rows for fields in below])
            return ChannelFields(rows, np.max([fields.pixels for fields in below], axis=0))
        if node.op is Op.GLOBAL:
            return ChannelFields(below[0].rows, _all_pixels(below[0].pixels))
        if node.layer is None:
            return ChannelFields(below[0].rows, _through_window(below[0].pixels, node))
        return _through_layer(node, node.layer, below[0])

    def _nothing(self, channels: int) -> ChannelFields:
        words = -(-self.channels // 64)
        return ChannelFields(
            np.zeros((channels, words), dtype=np.uint64), np.zeros((channels, 2), dtype=np.int64)
        )

    def _moved(self, node: Node, below: Sequence[ChannelFields]) -> ChannelFields:
        moved = self._nothing(node.channels)
        assert node.sources is not None
        for parent, fields in enumerate(below):
            read = node.sources[:, 0] == parent
            channels = node.sources[read, 1]
            moved.rows[read], moved.pixels[read] = fields.rows[channels], fields.pixels[channels]
        return moved


def _everything(node: Node, below: Sequence[ChannelFields]) -> ChannelFields:
    """Return the fields of channels that each see all channels and pixels below."""
    rows = np.bitwise_or.reduce([np.bitwise_or.reduce(fields.rows, axis=0) for fields in below])
    pixels = np.max([fields.pixels.max(0) for fields in below], axis=0)
    return ChannelFields(
        np.broadcast_to(rows, (node.channels, len(rows))),
        np.broadcast_to(_all_pixels(pixels), (node.channels, 2)),
    )


def _all_pixels(pixels: Pixels) -> Pixels:
    """Return all pixels for channels that see any."""
    return np.where(pixels > 0, EVERYWHERE, 0)


def _through_window(pixels: Pixels, node: Node) -> Pixels:
    """Return the pixels seen through a window: dilation (k - 1) more for those that see any."""
    margins = np.array([d * (k - 1) for d, k in zip(node.dilation, node.window, strict=True)])
    return np.where(pixels > 0, pixels + margins, 0)


def _through_layer(node: Node, layer: TracedLayer, below: ChannelFields) -> ChannelFields:
    groups = layer.groups if layer.conv.takes_groups else None
    # Kernels may have any size: the block layer only says which channels are read.
    plain = Layer(layer.conv.symbol, groups, layer.overlap, order=layer.order)
    sized = SizedLayer(plain, layer.c_in, layer.c_out)
    rows = through(below.rows, sized)
    if sized.fan_in == layer.c_in:
        pixels = np.broadcast_to(below.pixels.max(0), (layer.c_out, 2))
    else:
        pixels = below.pixels[sized.reads()].max(1)
    return ChannelFields(rows, _through_window(pixels, node))


@dataclass(frozen=True, slots=True)
class Receptive:
    """The classical receptive field of a feature map in pixels of the image, and its jump.

    The jump is the distance in the image between neighbouring pixels of the feature map.
    """

    size: tuple[Fraction, Fraction]
    jump: tuple[Fraction, Fraction]


def receptive_fields(trace: Trace) -> Mapping[int, Receptive]:
    """Return the receptive field of every feature map, by index: the largest of all branches.

    A window of k pixels with dilation d adds d (k - 1) jumps of the feature map that it reads; in
    an upsampling fewer, because some of its pixels lie between those of the feature map.

    Reference: Araujo, Norris and Sim, Computing Receptive Fields, eq. 2.
    """
    one = Fraction(1)
    receptive: dict[int, Receptive] = {}
    for node in trace.nodes:
        below = [receptive[parent] for parent in node.parents] or [
            Receptive((one, one), (one, one))
        ]
        sizes, jumps = [], []
        for axis in (0, 1):
            margin = node.dilation[axis] * (node.window[axis] - 1)
            if node.stride[axis] < 1:
                margin = floor(margin * node.stride[axis])
            sizes.append(max(field.size[axis] + margin * field.jump[axis] for field in below))
            jumps.append(max(field.jump[axis] for field in below) * node.stride[axis])
        if node.op in (Op.MIX, Op.GLOBAL):
            sizes = [
                max(Fraction(pixels), size)
                for pixels, size in zip(trace.image[1:], sizes, strict=True)
            ]
        receptive[node.index] = Receptive((sizes[0], sizes[1]), (jumps[0], jumps[1]))
    return receptive
