"""A network as a list of its convolutions: read from a file, written to one, and costed.

No torch is needed. The list says nothing of what lies between layers: sums, pooling, shuffles,
normalisation and squeeze-and-excitation have no row, and their parameters are not counted.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final, Self

from ifspace.errors import ARGUMENT, SettingError
from ifspace.storage import read_csv, reason
from ifspace.values import MAX_SIDE, counted, listed

COLUMNS: Final = ("kernel", "stride", "in", "out", "groups", "size")
# A layer list as text.
LAYERS_FORM: Final = f"{'/'.join(COLUMNS)} of each layer, between semicolons"
# Columns that may be there too.
NAME: Final = "name"
DILATION: Final = "dilation"
# Of the channels of a field, where layers have groups.
AT_FREE_PERMUTATION: Final = (
    "channels are the most that the groups allow, at free permutation between layers: a list does "
    "not say which channels a group reads"
)
# Far above any network in use.
MAX_CHANNELS: Final = 1_000_000
MAX_LISTED: Final = 100_000
# (height, width) in pixels.
Size = tuple[int, int]
_SIZES: Final = "whole numbers from 1, or HEIGHTxWIDTH such as 1x7"


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """A convolution: kernel, stride, channels, groups, and the size that it writes.

    `kernel`, `stride`, `dilation` and `size` are (height, width) in pixels; `size` is that of the
    feature map that the layer writes.

    >>> layer = ListedLayer.of(3, 2, 64, 128, groups=4, size=16)
    >>> layer.params, layer.macs, layer.fan_in, layer.size_in
    (18432, 4718592, 144, (32, 32))

    Raises: SettingError for groups that do not divide the channels that it reads.
    """

    kernel: Size
    stride: Size
    c_in: int
    c_out: int
    groups: int
    size: Size
    dilation: Size = (1, 1)
    name: str = ""

    def __post_init__(self) -> None:
        # The windows of a rolling layer need not divide what it writes.
        if self.c_in % self.groups:
            raise SettingError.because(
                "groups that do not divide the channels",
                got=f"{self.groups} groups of {self.c_in} channels",
                allowed="a divisor of the channels",
                remedy="correct the layer",
            )

    @classmethod
    def of(
        cls, kernel: int, stride: int, c_in: int, c_out: int, groups: int, size: int, name: str = ""
    ) -> Self:
        """Return a layer with a square kernel, an equal stride and a square feature map."""
        return cls((kernel, kernel), (stride, stride), c_in, c_out, groups, (size, size), name=name)

    @property
    def fan_in(self) -> int:
        """Weights of one filter, k · k · C_in / g."""
        return prod(self.kernel) * self.c_in // self.groups

    @property
    def params(self) -> int:
        """The number of weights."""
        return self.fan_in * self.c_out

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.params * prod(self.size)

    @property
    def size_in(self) -> Size:
        """The size of what it reads: what it writes, times its stride."""
        height, width = (n * s for n, s in zip(self.size, self.stride, strict=True))
        return height, width

    @property
    def effective_kernel(self) -> Size:
        """The effective kernel size, dilation (k - 1) + 1, in pixels."""
        height, width = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))
        return height, width

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a matrix on all channels of a pixel."""
        return self.kernel == (1, 1) and self.groups == 1


@dataclass(frozen=True)
class LayerList:
    """The convolutions of a network in the order in which they run.

    >>> vgg = LayerList.parse("3/1/3/64/1/32;3/1/64/64/1/32;3/1/64/128/1/16")
    >>> vgg.params, vgg.macs, vgg.activations, vgg.peak, len(vgg.chain)
    (112320, 58392576, 163840, 131072, 3)

    Raises: SettingError for an empty list.
    """

    layers: tuple[ListedLayer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise SettingError.because(
                f"{ARGUMENT} without a layer",
                got="none",
                allowed="one convolution or more",
                remedy="give a row for each",
                argument="layers",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `kernel/stride/in/out/groups/size` of each layer, between semicolons.

        Raises: SettingError that names the layer.
        """
        layers = []
        for number, item in enumerate(text.split(";"), start=1):
            cells = item.split("/")
            if len(cells) != len(COLUMNS):
                raise _malformed(f"layer {number} is {item!r}", LAYERS_FORM)
            layers.append(_layer(f"layer {number}", dict(zip(COLUMNS, cells, strict=True))))
        return cls(tuple(layers))

    def __str__(self) -> str:
        """The layers as `parse` reads them."""
        return ";".join("/".join(map(str, _cells(layer)[: len(COLUMNS)])) for layer in self.layers)

    @cached_property
    def chain(self) -> tuple[ListedLayer, ...]:
        """The layers without the projections of shortcuts.

        A 1x1 convolution without groups is one where it does not fit between its neighbours, in
        channels or in size, and these fit each other without it.

        >>> resnet = "3/1/64/64/1/8;3/2/64/128/1/4;3/1/128/128/1/4;1/2/64/128/1/4;3/1/128/128/1/4"
        >>> [layer.is_pointwise for layer in LayerList.parse(resnet).chain]
        [False, False, False, False]
        """
        kept: list[ListedLayer] = []
        for index, layer in enumerate(self.layers):
            behind = self.layers[index + 1] if index + 1 < len(self.layers) else None
            if not (layer.is_pointwise and kept and _is_beside(kept[-1], layer, behind)):
                kept.append(layer)
        return tuple(kept)

    @property
    def is_grouped(self) -> bool:
        """Whether a layer mixes channels in groups: which it reads, the list does not say.

        >>> lists = ("3/1/64/64/64/8;1/1/64/64/1/8", "3/1/64/64/64/8;1/1/64/64/8/8")
        >>> [LayerList.parse(text).is_grouped for text in lists]
        [False, True]
        """
        return any(1 < layer.groups < layer.c_in for layer in self.chain)

    @property
    def joints(self) -> int:
        """How many layers of the chain do not read as many channels as the layer before writes.

        There are branches or concatenations, which a chain does not show.
        """
        pairs = zip(self.chain, self.chain[1:], strict=False)
        return sum(before.c_out != layer.c_in for before, layer in pairs)

    @property
    def params(self) -> int:
        """The weights of all layers."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activations(self) -> int:
        """Elements that all layers write, for one image."""
        return sum(layer.c_out * prod(layer.size) for layer in self.layers)

    @property
    def peak(self) -> int:
        """The most elements that one layer reads and writes; shortcuts are not seen."""
        return max(
            layer.c_in * prod(layer.size_in) + layer.c_out * prod(layer.size)
            for layer in self.layers
        )

    @property
    def width_sum(self) -> int:
        """Σ of the channels that the layers of the chain write."""
        return sum(layer.c_out for layer in self.chain)

    @property
    def strides(self) -> tuple[Size, ...]:
        """The stride schedule: the sizes that the chain goes through, from the image on."""
        sizes = [self.chain[0].size_in, *(layer.size for layer in self.chain)]
        return tuple(dict.fromkeys(sizes))

    @property
    def without_groups(self) -> "LayerList":
        """The layers with one group each and no names: equal for lists that differ in groups."""
        return LayerList(tuple(replace(layer, groups=1, name="") for layer in self.layers))

    def text(self) -> str:
        """Return the list as `read_layers` reads it."""
        rows = [",".join((NAME, *COLUMNS, DILATION))]
        for layer in self.layers:
            cells = _cells(layer)
            rows.append(",".join(map(str, (_quoted(layer.name), *cells))))
        return "\n".join(rows) + "\n"


def read_layers(path: Path) -> LayerList:
    """Read a layer list: CSV with the columns kernel, stride, in, out, groups, size.

    `size` is the size of what the layer writes, in pixels; kernel, stride and size are one number,
    or HEIGHTxWIDTH. The columns `name` and `dilation` may be there too; others are ignored.

    Raises: SettingError with the line of the first wrong row.
    """
    try:
        table = read_csv(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _malformed(f"{path}: {reason(error)}", "CSV with a line of columns first") from None
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise _malformed(f"{path} without {listed(missing)}", f"the columns {', '.join(COLUMNS)}")
    if not 0 < len(table.rows) <= MAX_LISTED:
        raise _malformed(
            f"{path} with {counted(len(table.rows), 'row')}", f"1 to {MAX_LISTED:,} layers"
        )
    return LayerList(tuple(_layer(f"{path.name} line {line}", row) for line, row in table.rows))


def as_layers(layers: "LayerList | Path | str | Iterable[ListedLayer]") -> LayerList:
    """Return a layer list from a list, a file, the text of `LayerList.parse`, or layers."""
    if isinstance(layers, LayerList):
        return layers
    if isinstance(layers, str):
        return LayerList.parse(layers)
    return read_layers(layers) if isinstance(layers, Path) else LayerList(tuple(layers))


def _cells(layer: ListedLayer) -> tuple[Any, ...]:
    kernel, stride, size, dilation = map(
        _size_text, (layer.kernel, layer.stride, layer.size, layer.dilation)
    )
    return kernel, stride, layer.c_in, layer.c_out, layer.groups, size, dilation


def _size_text(size: Size) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if re.search(r'[",\n]', name) else name


def _is_beside(before: ListedLayer, layer: ListedLayer, behind: ListedLayer | None) -> bool:
    """Return whether a layer lies on a shortcut beside two layers that fit each other."""
    if behind is None or before.c_out != behind.c_in or not _follows(before.size, behind):
        return False
    fits = (
        before.c_out == layer.c_in
        and layer.c_out == behind.c_in
        and _follows(before.size, layer)
        and _follows(layer.size, behind)
    )
    return not fits


def _follows(size: Size, layer: ListedLayer) -> bool:
    """Return whether a layer reads a feature map of a size, or a pooled one."""
    # With odd sizes a strided layer reads less than it writes times its stride.
    pairs = zip(layer.size_in, layer.stride, size, strict=True)
    return all(read - stride < written for read, stride, written in pairs)


def _layer(place: str, row: dict[str, str]) -> ListedLayer:
    c_in, c_out, groups = (
        _whole(place, name, row[name], MAX_CHANNELS) for name in ("in", "out", "groups")
    )
    if c_in % groups or c_out % groups:
        raise _malformed(
            f"{place}: {groups} groups of {c_in} and {c_out} channels",
            "groups that divide in and out",
        )
    return ListedLayer(
        _size(place, "kernel", row["kernel"]),
        _size(place, "stride", row["stride"]),
        c_in,
        c_out,
        groups,
        _size(place, "size", row["size"]),
        _size(place, DILATION, row.get(DILATION) or "1"),
        row.get(NAME, "").strip(),
    )


def _whole(place: str, name: str, text: str, most: int) -> int:
    text = text.strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= most:
        raise _malformed(f"{place}: {name} {text!r}", f"whole numbers from 1 to {most:,}")
    return number


def _size(place: str, name: str, text: str) -> Size:
    match = re.fullmatch(r"\s*([0-9]{1,9})(?:\s*[x×]\s*([0-9]{1,9}))?\s*", text.lower())
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise _malformed(f"{place}: {name} {text.strip()!r}", f"{_SIZES}, up to {MAX_SIDE:,}")
    return height, width


def _malformed(got: str, allowed: str) -> SettingError:
    return SettingError.because(
        f"{ARGUMENT} cannot be read",
        got=got,
        allowed=allowed,
        remedy="correct the table",
        argument="layers",
    )


def chain_stages(chain: Sequence[ListedLayer]) -> list[list[ListedLayer]]:
    """Return the stages of a chain: runs of layers that read feature maps of one size.

    >>> layers = LayerList.parse("3/1/3/16/1/32;3/2/16/32/1/16;3/1/32/32/1/16")
    >>> [len(stage) for stage in chain_stages(layers.chain)]
    [2, 1]
    """
    stages: list[list[ListedLayer]] = []
    for layer in chain:
        if not stages or not _reads(layer, stages[-1][0].size_in):
            stages.append([])
        stages[-1].append(layer)
    return stages


def _reads(layer: ListedLayer, size: Size) -> bool:
    """Return whether a layer reads a feature map of a size; odd ones are known to a stride."""
    pairs = zip(layer.size_in, layer.stride, size, strict=True)
    return all(abs(read - pixels) < stride for read, stride, pixels in pairs)
