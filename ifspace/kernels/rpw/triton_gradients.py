"""The Triton kernels of the gradients of the rolling pointwise convolution.

Names of blocks everywhere: M pixels, N filters, C channels.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ifspace.kernels.rpw.tiles import (
    channels_at,
    filters_at,
    filters_meeting,
    pixels_at,
    place_within,
    union_of,
    weight_tile,
)


@triton.jit
def input_grad_kernel(
    grad,
    weight,
    out,
    pixels,
    plane,
    row,
    grad_n,
    grad_c,
    grad_h,
    grad_w,
    out_n,
    out_c,
    out_h,
    out_w,
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
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write BLOCK_M pixels of BLOCK_C channels of the gradient by the input.

    Sorted order goes through the filters whose windows meet the channels, natural order through
    all of them, and reads what lies side by side in a channels-last gradient.
    """
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    tiles = tl.cdiv(in_channels, BLOCK_C)
    first = program % tiles * BLOCK_C
    m = program // tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    real = m < pixels
    source = grad + pixels_at(m, plane, row, grad_n, grad_h, grad_w, EVEN, FLAT)
    position = first + tl.arange(0, BLOCK_C)
    channel = channels_at(position, in_channels, VECTOR)
    inside = position < in_channels
    NATURAL: tl.constexpr = ORDER == "natural"
    if NATURAL:
        begin = 0
        count = out_channels
    else:
        begin, count = filters_meeting(first, in_channels, window, unit, distinct, share, BLOCK_C)
    total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for n in range(0, count, BLOCK_N):
        ahead = n + tl.arange(0, BLOCK_N)
        if WIDE:
            ahead = ahead.to(tl.int64)
        index = begin + ahead
        if not NATURAL:
            index = tl.where(index < distinct * share, index, index - distinct * share)
        filters, start, exists = filters_at(
            index,
            in_channels,
            out_channels,
            step,
            unit,
            distinct,
            share,
            inverse,
            VECTOR,
            NATURAL,
        )
        exists = exists & (ahead < count)
        left = tl.load(
            source[:, None] + filters[None, :] * grad_c,
            mask=real[:, None] & exists[None, :],
            other=0.0,
        )
        right = weight_tile(
            weight, filters, start, exists, channel, inside, in_channels, window, VECTOR, False
        )
        if EXACT:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    target = out + pixels_at(m, plane, row, out_n, out_h, out_w, EVEN, FLAT)
    tl.store(
        target[:, None] + channel[None, :] * out_c, total, mask=real[:, None] & inside[None, :]
    )


@triton.jit
def weight_grad_kernel(
    grad,
    x,
    by_weight,
    by_bias,
    pixels,
    plane,
    row,
    grad_n,
    grad_c,
    grad_h,
    grad_w,
    x_n,
    x_c,
    x_h,
    x_w,
    parts,
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
    ATOMIC: tl.constexpr,
    VECTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write, or add by ATOMIC, what one part of the pixels gives to the gradient by the weight.

    One program: BLOCK_N filters, BLOCK_C channels of their union, one part. Every entry of a part
    [C_out (w + 1)] belongs to one program, so that no two programs write the same place. The
    programs of the first channels also sum the gradient by the bias.
    """
    NATURAL: tl.constexpr = ORDER == "natural"
    lanes = out_channels if NATURAL else distinct * share
    tiles = tl.cdiv(lanes, BLOCK_N)
    first = tl.program_id(0) % tiles * BLOCK_N
    c = tl.program_id(0) // tiles * BLOCK_C
    part = tl.program_id(1)
    if WIDE:
        part = part.to(tl.int64)
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
        NATURAL,
    )
    if c < length:
        index = first + tl.arange(0, BLOCK_N)
        if WIDE:
            index = index.to(tl.int64)
        filters, start, exists = filters_at(
            index,
            in_channels,
            out_channels,
            step,
            unit,
            distinct,
            share,
            inverse,
            VECTOR,
            NATURAL,
        )
        position = c + tl.arange(0, BLOCK_C)
        if WIDE:
            position = position.to(tl.int64)
        inside = position < length
        channel = channels_at(base + position, in_channels, VECTOR)
        span = tl.cdiv(tl.cdiv(pixels, BLOCK_M), parts) * BLOCK_M
        lowest = part * span
        highest = tl.minimum(lowest + span, pixels)
        offset = 0 if ATOMIC else part * (out_channels * (window + 1))
        if c == 0:
            total, sums = _products(
                grad,
                x,
                lowest,
                highest,
                plane,
                row,
                grad_n,
                grad_c,
                grad_h,
                grad_w,
                x_n,
                x_c,
                x_h,
                x_w,
                filters,
                exists,
                channel,
                inside,
                BLOCK_M,
                BLOCK_N,
                BLOCK_C,
                EVEN,
                FLAT,
                WIDE,
                True,
                PRECISION,
                EXACT,
            )
            if ATOMIC:
                tl.atomic_add(by_bias + filters, sums, mask=exists)
            else:
                tl.store(by_bias + offset + filters, sums, mask=exists)
        else:
            total, _ = _products(
                grad,
                x,
                lowest,
                highest,
                plane,
                row,
                grad_n,
                grad_c,
                grad_h,
                grad_w,
                x_n,
                x_c,
                x_h,
                x_w,
                filters,
                exists,
                channel,
                inside,
                BLOCK_M,
                BLOCK_N,
                BLOCK_C,
                EVEN,
                FLAT,
                WIDE,
                False,
                PRECISION,
                EXACT,
            )
        within = channel[None, :] - start[:, None]
        within = tl.where(within < 0, within + in_channels, within)
        within = tl.max_contiguous(tl.multiple_of(within, (1, VECTOR)), (1, VECTOR))
        target = by_weight + offset + filters[:, None] * window + within
        mine = (within < window) & exists[:, None] & inside[None, :]
        if ATOMIC:
            tl.atomic_add(target, total, mask=mine)
        else:
            tl.store(target, total, mask=mine)


@triton.jit
def _products(
    grad,
    x,
    lowest,
    highest,
    plane,
    row,
    grad_n,
    grad_c,
    grad_h,
    grad_w,
    x_n,
    x_c,
    x_h,
    x_w,
    filters,
    exists,
    channel,
    inside,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    EVEN: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Return over pixels lowest ... highest - 1 the products of grad and x, and grad's sums."""
    total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    sums = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(lowest, highest, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        if WIDE:
            m = m.to(tl.int64)
        real = m < highest
        above = pixels_at(m, plane, row, grad_n, grad_h, grad_w, EVEN, FLAT)
        below = pixels_at(m, plane, row, x_n, x_h, x_w, EVEN, FLAT)
        left = tl.load(
            grad + filters[:, None] * grad_c + above[None, :],
            mask=exists[:, None] & real[None, :],
            other=0.0,
        )
        right = tl.load(
            x + below[:, None] + channel[None, :] * x_c,
            mask=real[:, None] & inside[None, :],
            other=0.0,
        )
        if SUM:
            sums += tl.sum(left.to(tl.float32), 1)
        if EXACT:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total, sums


@triton.jit
def sum_parts_kernel(
    partial,
    by_weight,
    by_bias,
    parts,
    in_channels,
    out_channels,
    width,
    window,
    step,
    distinct,
    VECTOR: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Write the sum of the parts [parts, C_out window + C_out], always in the same order.

    From filled windows to true ones: by_weight is [C_out, width], by_bias [C_out].
    """
    entry = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    # One output channel is a constant to the compiler, and no tensor.
    outputs = tl.to_tensor(out_channels).to(tl.int64)
    weights = outputs * width
    filters = entry // width
    within = place_within(filters, entry % width, in_channels, step, distinct, VECTOR, False)
    every = outputs * (window + 1)
    source = tl.where(entry < weights, filters * window + within, every - outputs + entry - weights)
    there = entry < weights + outputs
    total = tl.zeros((BLOCK_E,), tl.float32)
    for part in range(0, parts, BLOCK_P):
        each = (part + tl.arange(0, BLOCK_P)).to(tl.int64)
        share = tl.load(
            partial + each[:, None] * every + source[None, :],
            mask=(each < parts)[:, None] & there[None, :],
            other=0.0,
        )
        total += tl.sum(share, 0)
    tl.store(by_weight + entry, total, mask=entry < weights)
    tl.store(by_bias + entry - weights, total, mask=(entry >= weights) & there)
