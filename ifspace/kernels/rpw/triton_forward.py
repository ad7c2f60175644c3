"""The Triton kernel of the rolling pointwise convolution.

Names of blocks everywhere: M pixels, N filters, C channels.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ifspace.kernels.rpw.tiles import (
    channels_at,
    filters_at,
    pixels_at,
    union_of,
    weight_tile,
)


@triton.jit
def forward_kernel(
    x,
    weight,
    bias,
    y,
    pixels,
    plane,
    row,
    x_n,
    x_c,
    x_h,
    x_w,
    y_n,
    y_c,
    y_h,
    y_w,
    in_channels,
    out_channels,
    window,
    step,
    unit,
    distinct,
    share,
    inverse,
    ORDER: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    EVEN: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    VECTOR: tl.constexpr,
    WOVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write BLOCK_M pixels of BLOCK_N filters of y.

    Programs of the same pixels are neighbours, so that they find x in the cache and complete each
    other's sectors of y. EXACT: multiply in float32, for the interpreter, which has no bfloat16.
    """
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    tiles = tl.cdiv(distinct * share if ORDER == "sorted" else out_channels, BLOCK_N)
    tile = program % tiles
    m = program // tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    real = m < pixels
    source = x + pixels_at(m, plane, row, x_n, x_h, x_w, EVEN, FLAT)
    if ORDER == "woven":
        total = _woven(
            source,
            weight,
            real,
            tile * BLOCK_N,
            in_channels,
            out_channels,
            window,
            step,
            x_c,
            BLOCK_M,
            BLOCK_N,
            BLOCK_C,
            VECTOR,
            WOVEN,
            PRECISION,
            EXACT,
        )
        # A column is a filter of the share and, changing faster, a window: in natural order.
        filters = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        exists = filters < out_channels
    else:
        first = tile * BLOCK_N
        filters, start, exists = filters_at(
            first + tl.arange(0, BLOCK_N),
            in_channels,
            out_channels,
            step,
            unit,
            distinct,
            share,
            inverse,
            VECTOR,
            ORDER == "natural",
        )
        base, length = union_of(
            first,
            in_channels,
            out_channels,
            window,
            step,
            unit,
            distinct,
            share,
            BLOCK_N,
            VECTOR,
            ORDER == "natural",
        )
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for c in range(0, length, BLOCK_C):
            position = c + tl.arange(0, BLOCK_C)
            inside = position < length
            channel = channels_at(base + position, in_channels, VECTOR)
            left = tl.load(
                source[:, None] + channel[None, :] * x_c,
                mask=real[:, None] & inside[None, :],
                other=0.0,
            )
            right = weight_tile(
                weight, filters, start, exists, channel, inside, in_channels, window, VECTOR, True
            )
            if EXACT:
                left = left.to(tl.float32)
                right = right.to(tl.float32)
            total = tl.dot(left, right, total, input_precision=PRECISION)
    if bias is not None:
        total += tl.load(bias + filters, mask=exists, other=0.0).to(tl.float32)[None, :]
    target = y + pixels_at(m, plane, row, y_n, y_h, y_w, EVEN, FLAT)
    tl.store(target[:, None] + filters[None, :] * y_c, total, mask=real[:, None] & exists[None, :])


@triton.jit
def _woven(
    source,
    weight,
    real,
    first,
    in_channels,
    out_channels,
    window,
    step,
    x_c,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    VECTOR: tl.constexpr,
    WOVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Return the tile of filters first, first + 1 ... where there are WOVEN windows.

    Filter f uses window f mod WOVEN: one small product for each window, columns interleaved. No
    zeros are multiplied, and what is written lies side by side in a channels-last tensor.
    """
    SHARE: tl.constexpr = BLOCK_N // WOVEN
    place = tl.arange(0, WOVEN)
    start = place * step
    start = start - start % VECTOR
    filters = first + tl.arange(0, SHARE)[None, :] * WOVEN + place[:, None]
    exists = filters < out_channels
    rows = weight + filters * window
    total = tl.zeros((WOVEN, BLOCK_M, SHARE), tl.float32)
    for c in range(0, window, BLOCK_C):
        position = c + tl.arange(0, BLOCK_C)
        inside = position < window
        channel = (start[:, None] + position[None, :]) % in_channels
        channel = tl.max_contiguous(tl.multiple_of(channel, (1, VECTOR)), (1, VECTOR))
        left = tl.load(
            source[None, :, None] + channel[:, None, :] * x_c,
            mask=real[None, :, None] & inside[None, None, :],
            other=0.0,
        )
        right = tl.load(
            rows[:, None, :] + position[None, :, None],
            mask=exists[:, None, :] & inside[None, :, None],
            other=0.0,
        )
        if EXACT:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return tl.reshape(tl.permute(total, (1, 2, 0)), (BLOCK_M, BLOCK_N))
