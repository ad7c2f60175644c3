"""The passes over a chunk of activations and over the weights that the CPU implementation is of.

Activations are rows [R, C, I]: channels_last gives a row per pixel (I = 1), the contiguous layout
a row per image with planes of I = H W. So one code serves both, in runs of contiguous memory.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ifspace.kernels.layouts import is_channels_last
from ifspace.kernels.rpw.cpu.bands import Band, Index, Slices


@dataclass(frozen=True, slots=True)
class Rows:
    """Activations [N, C, H, W] as rows [R, C, I], without a copy if they lie that way."""

    data: Tensor
    images: torch.Size  # N, C, H, W
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """Return the rows of activations; other strides than the two layouts' are copied."""
        n, c, h, w = x.shape
        if is_channels_last(x):
            return cls(x.permute(0, 2, 3, 1).view(n * h * w, c, 1), x.shape, True)
        return cls(x.contiguous().view(n, c, h * w), x.shape, False)

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout of the activations."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def like(self, channels: int) -> Self:
        """Return uninitialised rows of other channels in the same layout."""
        rows, _, inner = self.data.shape
        n, _, h, w = self.images
        data = self.data.new_empty(rows, channels, inner)
        return type(self)(data, torch.Size((n, channels, h, w)), self.channels_last)

    def unflatten(self) -> Tensor:
        """Return the activations [N, C, H, W] in their layout."""
        n, c, h, w = self.images
        if self.channels_last:
            return self.data.view(n, h, w, c).permute(0, 3, 1, 2)
        return self.data.view(n, c, h, w)


@dataclass(frozen=True, slots=True)
class Reorder:
    """A permutation of the channels: as a transposition of groups, where it is one, or by index.

    `index`: result channel i is channel index[i]; `groups` > 0: it is also channel_shuffle(groups).
    """

    index: Index
    groups: int

    def __call__(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Return rows [R, C, I] with their channels in the new order, in `out` if given."""
        many, channels, inner = rows.shape
        if inner > 1:
            return torch.index_select(rows, 1, torch.from_numpy(self.index), out=out)
        if not self.groups:
            index = torch.from_numpy(self.index).expand(many, -1)
            flat = None if out is None else out.view(many, channels)
            return torch.gather(rows.view(many, channels), 1, index, out=flat).unsqueeze(2)
        # The transposition kernel of channel_shuffle is twice as fast as a gather or a strided
        # copy, even with a second copy behind it.
        done = torch.native_channel_shuffle(as_images(rows), self.groups)
        done = done.permute(0, 2, 3, 1).reshape(many, channels, 1)
        return done if out is None else out.copy_(done)


def as_images(rows: Tensor) -> Tensor:
    """View rows [R, C, 1] as channels_last images [n, C, 1, R/n], others [R, C, I] as [R, C, 1, I].

    One long image is the fastest, but torch convolves 16 images or fewer by one thread without
    oneDNN, so a single thread is given 32 where that divides R.
    """
    many, channels, inner = rows.shape
    if inner == 1:
        images = 1 if many % 32 or torch.get_num_threads() > 1 else 32
        return rows.view(images, 1, many // images, channels).permute(0, 3, 1, 2)
    return rows.unsqueeze(2)


def expand(rows: Tensor, slices: Slices, out: Tensor) -> Tensor:
    """Copy the slices of rows [R, ring, I], one after the other, to out [R, channels, I]."""
    many, _, inner = rows.shape
    table = out.view(many, slices.count, slices.width * inner)
    strides = (rows.stride(0), slices.spacing * inner, 1)
    for number, run, start, offset, length in slices.copies:
        size = (many, run, length * inner)
        source = rows.as_strided(size, strides, rows.storage_offset() + start * inner)
        begin = offset * inner
        table[:, number : number + run, begin : begin + length * inner].copy_(source)
    return out


def convolve(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Return the 1x1 convolution [R, C_out, I] of rows [R, C, I], weight [C_out, C/groups]."""
    many, _, inner = rows.shape
    y = F.conv2d(as_images(rows), weight[:, :, None, None], bias, groups=groups)
    if inner == 1:
        y = y.permute(0, 2, 3, 1)
    return y.reshape(many, -1, inner)


def convolve_weight(grad: Tensor, x: Tensor, groups: int) -> Tensor:
    """Return the weight gradient [C_out, C/groups] of a 1x1 convolution of x [N, C, H, W]."""
    size = (grad.shape[1], x.shape[1] // groups, 1, 1)
    weight = x.new_empty(size)  # only its shape is used
    found: Tensor = torch.ops.aten.convolution_backward(
        grad, x, weight, [0], [1, 1], [0, 0], [1, 1], False, [0, 0], groups, [False, True, False]
    )[1]
    return found.reshape(size[:2])


def convolve_back(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the input gradient [N, C_in, H, W] of a 1x1 convolution, for weight [C_out, C_in].

    Only the shape and the layout of x [N, C_in, H, W] are used.
    """
    found: Tensor = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight[:, :, None, None],
        [0],
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [True, False, False],
    )[0]
    return found


def pack_tiles(weight: Tensor, band: Band, tiles: int) -> Tensor:
    """Return the tiles' weights [C_out, tile width] of sorted filters [C_out, w]."""
    packed = weight.new_zeros(band.windows.out_channels * band.tile_channels(tiles).width)
    _band_view(packed, band, tiles).copy_(_by_window(weight, band, tiles))
    return packed.view(band.windows.out_channels, -1)


def unpack_tiles(packed: Tensor, band: Band, tiles: int) -> Tensor:
    """Return the sorted filters [C_out, w] that tiles' weights [C_out, tile width] hold."""
    return _band_view(packed, band, tiles).reshape(band.windows.out_channels, band.windows.width)


def _by_window(weight: Tensor, band: Band, tiles: int) -> Tensor:
    return weight.view(tiles, band.distinct // tiles, band.per_window, band.windows.width)


def _band_view(packed: Tensor, band: Band, tiles: int) -> Tensor:
    """View the band in tiles' weights as [tiles, windows in a tile, filters of a window, w]."""
    inside, width = band.distinct // tiles, band.tile_channels(tiles).width
    size = (tiles, inside, band.per_window, band.windows.width)
    window = band.per_window * width  # each window of a tile sits one pitch further right
    return packed.as_strided(size, (inside * window, window + band.pitch, width, 1))


def pack_transposed(weight: Tensor, band: Band, tiles: int) -> Tensor:
    """Return the transposed band's tiles [C_in, filters of a tile] of sorted filters [C_out, w].

    A tile is b input channels; counted from the first window that reads it, window i holds channel
    c of it at place c + (reach d) - (i d) of its w weights. Zeros stand beside them.
    """
    each, pitch, width = band.per_window, band.pitch, band.windows.width
    block, inside = band.windows.in_channels // tiles, band.distinct // tiles
    count, pad = inside + band.reach, block - pitch
    length = pad + block + band.reach * pitch
    wide = weight.new_zeros(band.distinct + band.reach, each, length)
    wide[band.reach :, :, pad : pad + width] = weight.view(band.distinct, each, width)
    wide[: band.reach, :, pad : pad + width] = wide[band.distinct :, :, pad : pad + width]
    size = (tiles, count, each, block)
    strides = (inside * each * length, each * length - pitch, length, 1)
    tile = wide.as_strided(size, strides, pad + band.reach * pitch)
    return tile.permute(0, 3, 1, 2).reshape(band.windows.in_channels, count * each)
