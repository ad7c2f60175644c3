"""What the kernels of the fused DW + RPW block share, beside the tiles of `tiles.py`.

A tile of the tensor between the two convolutions is [pixels, channels] for channels-last tensors
and [channels, pixels] otherwise, so that the last axis is the one side by side in memory
(`PIXELS_LAST`). Names of blocks everywhere: M pixels, N filters, C channels.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ifspace.kernels.rpw.tiles import along


@triton.jit
def output_pixels(tile, pixels, out_height, out_width, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Return image, row and column of a tile's output pixels, and which of them exist."""
    if WIDE:
        tile = tile.to(tl.int64)
    pixel = tile * BLOCK + tl.arange(0, BLOCK)
    area = out_height * out_width
    place = pixel % area
    return pixel // area, place // out_width, place % out_width, pixel < pixels


@triton.jit
def depthwise_tile(
    x,
    dw_weight,
    image,
    row,
    column,
    exists,
    channel,
    height,
    width,
    x_n,
    x_c,
    x_h,
    x_w,
    STRIDE: tl.constexpr,
    UNROLLED: tl.constexpr,
    PIXELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return the depthwise 3x3 convolution of a tile of pixels and channels, in float32.

    UNROLLED: nine tiles of x are asked for at once, which hides their latency and takes more
    registers than three at a time.
    """
    top = row * STRIDE - 1
    left = column * STRIDE - 1
    lane = channel
    if WIDE:
        lane = channel.to(tl.int64)
    # The corner may lie outside the picture: it is only ever read under the mask.
    corner = along(image * x_n + top * x_h + left * x_w, PIXELS_LAST) + along(
        lane * x_c, not PIXELS_LAST
    )
    if PIXELS_LAST:
        total = tl.zeros((channel.shape[0], row.shape[0]), tl.float32)
    else:
        total = tl.zeros((row.shape[0], channel.shape[0]), tl.float32)
    if UNROLLED:
        for down in tl.static_range(3):
            total = _depthwise_row(
                total,
                x,
                dw_weight,
                corner,
                top,
                left,
                exists,
                channel,
                height,
                width,
                x_h,
                x_w,
                down,
                PIXELS_LAST,
            )
    else:
        for down in range(3):
            total = _depthwise_row(
                total,
                x,
                dw_weight,
                corner,
                top,
                left,
                exists,
                channel,
                height,
                width,
                x_h,
                x_w,
                down,
                PIXELS_LAST,
            )
    return total


@triton.jit
def _depthwise_row(
    total,
    x,
    dw_weight,
    corner,
    top,
    left,
    exists,
    channel,
    height,
    width,
    x_h,
    x_w,
    down,
    PIXELS_LAST: tl.constexpr,
):
    """Return the total with one row of the 3x3 kernel added."""
    seen_row = exists & (top + down >= 0) & (top + down < height)
    for right in tl.static_range(3):
        seen = seen_row & (left + right >= 0) & (left + right < width)
        value = tl.load(
            x + (corner + (down * x_h + right * x_w)), mask=along(seen, PIXELS_LAST), other=0.0
        )
        factor = tl.load(dw_weight + (channel * 9 + (down * 3 + right))).to(tl.float32)
        total += value.to(tl.float32) * along(factor, not PIXELS_LAST)
    return total


@triton.jit
def add_product(total, left, right, x, EXACT: tl.constexpr, PRECISION: tl.constexpr):
    """Return total + left right, multiplied in the type that x points to.

    EXACT: in float32 instead, for the interpreter, which has no bfloat16 products.
    """
    if EXACT:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    else:
        left = left.to(x.dtype.element_ty)
        right = right.to(x.dtype.element_ty)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def affine_tile(tile, scale, shift, channel, exists, CHANNELS_LAST: tl.constexpr):
    """Return scale * tile + shift by channel; either may be missing."""
    if scale is not None:
        factor = tl.load(scale + channel, mask=exists, other=0.0).to(tl.float32)
        tile = tile * along(factor, CHANNELS_LAST)
    if shift is not None:
        term = tl.load(shift + channel, mask=exists, other=0.0).to(tl.float32)
        tile = tile + along(term, CHANNELS_LAST)
    return tile


@triton.jit
def activated(tile, ACTIVATION: tl.constexpr):
    """Return the activation of a tile; a NaN stays one."""
    if ACTIVATION == "relu":
        tile = tl.where(tile < 0, 0.0, tile)
    elif ACTIVATION == "relu6":
        tile = tl.where(tile < 0, 0.0, tl.where(tile > 6, 6.0, tile))
    elif ACTIVATION == "silu":
        tile = tile * tl.sigmoid(tile)
    return tile


@triton.jit
def slope(tile, ACTIVATION: tl.constexpr):
    """Return the derivative of the activation at a tile; at a kink it is 0, as in torch."""
    if ACTIVATION == "relu":
        result = tl.where(tile > 0, 1.0, 0.0)
    elif ACTIVATION == "relu6":
        result = tl.where((tile > 0) & (tile < 6), 1.0, 0.0)
    elif ACTIVATION == "silu":
        gate = tl.sigmoid(tile)
        result = gate * (1.0 + tile * (1.0 - gate))
    else:
        result = tl.full(tile.shape, 1.0, tl.float32)
    return result
