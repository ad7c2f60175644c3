"""Rolling pointwise convolution on a CPU by plain torch operators.

Either the weight is scattered into a dense one, zeros where a filter does not read, or the filters
are sorted by window and cut into tiles, which one grouped convolution computes; `planning` decides.
Between the passes of a tiled way lies a chunk of the activations that fits the caches.

Zeros are multiplied: where an activation is infinite or not a number, so are all results that its
tile, or the dense layer, computes from it.
"""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from ifspace.kernels.layouts import empty_like
from ifspace.kernels.rpw.cpu.bands import (
    Band,
    Slices,
    band_of,
    read_channels,
)
from ifspace.kernels.rpw.cpu.passes import (
    Reorder,
    Rows,
    as_images,
    convolve,
    convolve_back,
    convolve_weight,
    expand,
    pack_tiles,
    pack_transposed,
    unpack_tiles,
)
from ifspace.kernels.rpw.cpu.planning import Plan, plan
from ifspace.kernels.windows import Windows

# Bytes of activations that a tiled way reads at a time: it holds about six times as many.
CHUNK_BYTES: Final = 2 << 20


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, way: Plan | None = None
) -> Tensor:
    """Return the convolution [N, C_out, H, W] of x [N, C_in, H, W] with a weight [C_out, w].

    `way`: how to compute it; None asks `plan`. The result is channels_last if x is.
    """
    if not x.numel():
        return empty_like(x, windows.out_channels)
    rows = Rows.of(x)
    tiles = (way or _plan_for(rows, windows)).forward
    band = band_of(windows)
    if not tiles:
        return _dense(rows, _scatter(weight, windows), bias)
    order = torch.from_numpy(band.order)
    packed = pack_tiles(weight.index_select(0, order), band, tiles)
    bias = None if bias is None else bias.index_select(0, order)
    work = partial(convolve, weight=packed, bias=bias, groups=tiles)
    return _stream(rows, windows.out_channels, None, band.tile_channels(tiles), work, _unsort(band))


def input_grad(grad: Tensor, weight: Tensor, windows: Windows, way: Plan | None = None) -> Tensor:
    """Return the input's gradient [N, C_in, H, W] for grad [N, C_out, H, W], weight [C_out, w]."""
    if not grad.numel():
        return empty_like(grad, windows.in_channels)
    rows = Rows.of(grad)
    tiles = (way or _plan_for(rows, windows)).input_grad
    band = band_of(windows)
    if not tiles:
        # Not a convolution with the transposed weight: transposing costs more at one small image.
        x_like = rows.like(windows.in_channels).unflatten()
        grad_x = convolve_back(rows.unflatten(), x_like, _scatter(weight, windows))
        return grad_x.contiguous(memory_format=rows.layout)
    order = torch.from_numpy(band.order)
    packed = pack_transposed(weight.index_select(0, order), band, tiles)
    work = partial(convolve, weight=packed, bias=None, groups=tiles)
    return _stream(rows, windows.in_channels, _sort(band), band.tile_filters(tiles), work, None)


def weight_grad(
    grad: Tensor, x: Tensor, windows: Windows, with_bias: bool = True, way: Plan | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradients [C_out, w] of the weight and [C_out] of the bias, if `with_bias`.

    Of `grad` [N, C_out, H, W] and `x` [N, C_in, H, W], which may lie in different layouts.
    """
    rows = Rows.of(x)
    tiles = (way or _plan_for(rows, windows)).weight_grad
    band = band_of(windows)
    grad_bias = grad.sum((0, 2, 3)) if with_bias else grad.new_empty(0)
    if not x.numel():
        return grad.new_zeros(windows.out_channels, windows.width), grad_bias
    grad = grad.contiguous(memory_format=rows.layout)
    if not tiles:
        dense = convolve_weight(grad, rows.unflatten(), 1)
        return dense.gather(1, torch.from_numpy(read_channels(windows))), grad_bias
    grad_rows = Rows.of(grad)
    slices, sort = band.tile_channels(tiles), _sort(band)
    packed = grad.new_zeros(windows.out_channels, slices.width, dtype=_sum_type(grad.dtype))
    wide, size = _buffer(rows, slices)
    for part, grad_part in zip(
        torch.split(rows.data, size), torch.split(grad_rows.data, size), strict=True
    ):
        sorted_part, wide_part = sort(grad_part), _widen(part, slices, wide)
        packed += convolve_weight(as_images(sorted_part), as_images(wide_part), tiles)
    place = torch.from_numpy(band.place)
    found = unpack_tiles(packed, band, tiles).index_select(0, place)
    return found.to(grad.dtype), grad_bias


def _plan_for(rows: Rows, windows: Windows) -> Plan:
    many, _, inner = rows.data.shape
    return plan(windows, many * inner, rows.channels_last)


def _scatter(weight: Tensor, windows: Windows) -> Tensor:
    """Return the dense weight [C_out, C_in], zero where a filter does not read."""
    dense = weight.new_zeros(windows.out_channels, windows.in_channels)
    return dense.scatter_(1, torch.from_numpy(read_channels(windows)), weight)


def _dense(rows: Rows, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = F.conv2d(rows.unflatten(), weight[:, :, None, None], bias)
    return y.contiguous(memory_format=rows.layout)


def _sort(band: Band) -> Reorder:
    return Reorder(band.order, band.per_window if band.plain else 0)


def _unsort(band: Band) -> Reorder:
    return Reorder(band.place, band.distinct if band.plain else 0)


def _stream(
    rows: Rows,
    channels: int,
    before: Reorder | None,
    slices: Slices,
    work: Callable[[Tensor], Tensor],
    after: Reorder | None,
) -> Tensor:
    """Return what the passes make of all rows, chunk by chunk: reorder, expand, work, reorder."""
    wide, size = _buffer(rows, slices)
    result = rows.like(channels)
    for part, out in zip(torch.split(rows.data, size), torch.split(result.data, size), strict=True):
        done = work(_widen(part if before is None else before(part), slices, wide))
        if after is None:
            out.copy_(done)
        else:
            after(done, out)
    return result.unflatten()


def _buffer(rows: Rows, slices: Slices) -> tuple[Tensor, int]:
    """Return room for the slices of a chunk, and the rows of a chunk: all are about as long."""
    many, channels, inner = rows.data.shape
    most = max(1, CHUNK_BYTES // (channels * inner * rows.data.element_size()))
    size = ceil(many / ceil(many / most))
    if inner == 1 and torch.get_num_threads() == 1:
        size += -size % 32  # see as_images
    room = 0 if slices.is_ring else size
    return rows.data.new_empty(room, slices.channels, inner), size


def _widen(part: Tensor, slices: Slices, room: Tensor) -> Tensor:
    return expand(part, slices, room[: len(part)]) if len(room) else part


def _sum_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type to add chunks in: none is less precise than float32."""
    return torch.promote_types(dtype, torch.float32)
