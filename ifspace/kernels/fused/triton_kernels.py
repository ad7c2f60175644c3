"""The Triton kernels of the fused DW + RPW block.

All recompute the tensor between the two convolutions from x, a tile of it at a time, so that it
never goes to memory. Each tile of filters pays for the depthwise convolution again: the more
filters a tile holds, the fewer times.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ifspace.kernels.fused.tiles import (
    activated,
    add_product,
    affine_tile,
    depthwise_tile,
    output_pixels,
    slope,
)
from ifspace.kernels.rpw.tiles import (
    along,
    channels_at,
    filters_at,
    filters_meeting,
    union_of,
    weight_tile,
)


@triton.jit
def forward_kernel(
    x,
    dw_weight,
    scale1,
    shift1,
    weight,
    scale2,
    shift2,
    grad,
    y,
    pixels,
    height,
    width,
    out_height,
    out_width,
    x_n,
    x_c,
    x_h,
    x_w,
    grad_n,
    grad_c,
    grad_h,
    grad_w,
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
    STRIDE: tl.constexpr,
    ACTIVATION1: tl.constexpr,
    ACTIVATION2: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ORDER: tl.constexpr,
    UNROLLED: tl.constexpr,
    VECTOR: tl.constexpr,
    PIXELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write y, or where there is a gradient by y: the gradient before activation2.

    One program: BLOCK_M output pixels of BLOCK_N filters. Programs of the same pixels are
    neighbours, so that they find x in the cache and complete each other's sectors of y.
    """
    NATURAL: tl.constexpr = ORDER == "natural"
    tiles = tl.cdiv(out_channels if NATURAL else distinct * share, BLOCK_N)
    program = tl.program_id(0)
    first = program % tiles * BLOCK_N
    image, row, column, exists = output_pixels(
        program // tiles, pixels, out_height, out_width, BLOCK_M, WIDE
    )
    filters, start, real = filters_at(
        first + tl.arange(0, BLOCK_N),
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
    if PIXELS_LAST:
        total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    else:
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, length, BLOCK_C):
        position = k + tl.arange(0, BLOCK_C)
        channel = channels_at(base + position, in_channels, VECTOR)
        middle = depthwise_tile(
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
            STRIDE,
            UNROLLED,
            PIXELS_LAST,
            WIDE,
        )
        middle = affine_tile(middle, scale1, shift1, channel, True, not PIXELS_LAST)
        middle = activated(middle, ACTIVATION1)
        factor = weight_tile(
            weight,
            filters,
            start,
            real,
            channel,
            position < length,
            in_channels,
            window,
            VECTOR,
            not PIXELS_LAST,
        )
        if PIXELS_LAST:
            total = add_product(total, factor, middle, x, EXACT, PRECISION)
        else:
            total = add_product(total, middle, factor, x, EXACT, PRECISION)
    total = affine_tile(total, scale2, shift2, filters, real, not PIXELS_LAST)
    lane = filters
    if WIDE:
        lane = filters.to(tl.int64)
    both = along(exists, PIXELS_LAST) & along(real, not PIXELS_LAST)
    if grad is not None:
        place = along(image * grad_n + row * grad_h + column * grad_w, PIXELS_LAST)
        given = tl.load(
            grad + (place + along(lane * grad_c, not PIXELS_LAST)), mask=both, other=0.0
        )
        total = given.to(tl.float32) * slope(total, ACTIVATION2)
    else:
        total = activated(total, ACTIVATION2)
    place = along(image * y_n + row * y_h + column * y_w, PIXELS_LAST)
    tl.store(y + (place + along(lane * y_c, not PIXELS_LAST)), total, mask=both)


@triton.jit
def weight_grad_kernel(
    x,
    dw_weight,
    scale1,
    shift1,
    grad,
    partial,
    partial_shift,
    pixels,
    height,
    width,
    out_height,
    out_width,
    span,
    reads,
    x_n,
    x_c,
    x_h,
    x_w,
    grad_n,
    grad_c,
    grad_h,
    grad_w,
    in_channels,
    out_channels,
    window,
    step,
    unit,
    distinct,
    share,
    inverse,
    STRIDE: tl.constexpr,
    ACTIVATION1: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ORDER: tl.constexpr,
    UNROLLED: tl.constexpr,
    VECTOR: tl.constexpr,
    PIXELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write for each part of the pixels its share of the gradients by weight and shift2.

    One program: BLOCK_N filters, BLOCK_C channels of their union, one part. `partial` is
    [parts, C_out, w] and `partial_shift` [parts, C_out], both float32; every entry of a part
    belongs to one program, so nothing is added in memory and the sum has a fixed order. A part is
    the tiles part, part + parts, part + 2 parts ... of `span` tiles in all.
    """
    NATURAL: tl.constexpr = ORDER == "natural"
    tiles = tl.cdiv(out_channels if NATURAL else distinct * share, BLOCK_N)
    first = tl.program_id(0) % tiles * BLOCK_N
    k = tl.program_id(0) // tiles * BLOCK_C
    part = tl.program_id(1)
    filters, _, real = filters_at(
        first + tl.arange(0, BLOCK_N),
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
    position = k + tl.arange(0, BLOCK_C)
    channel = channels_at(base + position, in_channels, VECTOR)
    total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    shift = tl.zeros((BLOCK_N,), tl.float32)
    lane = filters
    if WIDE:
        lane = filters.to(tl.int64)
    both_last: tl.constexpr = not PIXELS_LAST
    if k < length:
        for turn in range(0, span - part, tl.num_programs(1)):
            image, row, column, exists = output_pixels(
                part + turn, pixels, out_height, out_width, BLOCK_M, WIDE
            )
            place = along(image * grad_n + row * grad_h + column * grad_w, PIXELS_LAST)
            given = tl.load(
                grad + (place + along(lane * grad_c, both_last)),
                mask=along(exists, PIXELS_LAST) & along(real, both_last),
                other=0.0,
            )
            middle = depthwise_tile(
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
                STRIDE,
                UNROLLED,
                PIXELS_LAST,
                WIDE,
            )
            middle = affine_tile(middle, scale1, shift1, channel, True, both_last)
            middle = activated(middle, ACTIVATION1)
            if PIXELS_LAST:
                shift += tl.sum(given.to(tl.float32), 1)
                total = add_product(total, given, tl.trans(middle), x, EXACT, PRECISION)
            else:
                shift += tl.sum(given.to(tl.float32), 0)
                total = add_product(total, tl.trans(given), middle, x, EXACT, PRECISION)
        # What is written is the gradient of the true window, not of the one filled up.
        ahead = channel[None, :] - (filters % distinct * step % in_channels)[:, None]
        within = tl.where(ahead < 0, ahead + in_channels, ahead)
        mine = (within < reads) & real[:, None] & (position < length)[None, :]
        row_of = part.to(tl.int64) * out_channels + filters
        tl.store(partial + row_of[:, None] * reads + within, total, mask=mine)
        if k == 0:
            tl.store(partial_shift + row_of, shift, mask=real)


@triton.jit
def middle_grad_kernel(
    x,
    dw_weight,
    scale1,
    shift1,
    weight,
    grad,
    out,
    partial_scale,
    partial_shift,
    pixels,
    height,
    width,
    out_height,
    out_width,
    x_n,
    x_c,
    x_h,
    x_w,
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
    STRIDE: tl.constexpr,
    ACTIVATION1: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ORDER: tl.constexpr,
    UNROLLED: tl.constexpr,
    VECTOR: tl.constexpr,
    PIXELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradient by the depthwise convolution's output, and the shares of its affine's.

    One program: BLOCK_M pixels of BLOCK_C channels, over the filters whose windows meet these in
    steps of BLOCK_N: in sorted order they follow each other, in natural order all are gone
    through. The shares are [pixel tiles, C_in] in float32.
    """
    tiles = tl.cdiv(in_channels, BLOCK_C)
    program = tl.program_id(0)
    first = program % tiles * BLOCK_C
    image, row, column, exists = output_pixels(
        program // tiles, pixels, out_height, out_width, BLOCK_M, WIDE
    )
    position = first + tl.arange(0, BLOCK_C)
    channel = channels_at(position, in_channels, VECTOR)
    inside = position < in_channels
    NATURAL: tl.constexpr = ORDER == "natural"
    if NATURAL:
        begin = 0
        count = out_channels
    else:
        begin, count = filters_meeting(first, in_channels, window, unit, distinct, share, BLOCK_C)
    both_last: tl.constexpr = not PIXELS_LAST
    if PIXELS_LAST:
        total = tl.zeros((BLOCK_C, BLOCK_M), tl.float32)
    else:
        total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    pixel = along(image * grad_n + row * grad_h + column * grad_w, PIXELS_LAST)
    for n in range(0, count, BLOCK_N):
        ahead = n + tl.arange(0, BLOCK_N)
        index = begin + ahead
        if not NATURAL:
            index = tl.where(index < distinct * share, index, index - distinct * share)
        filters, start, real = filters_at(
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
        real = real & (ahead < count)
        lane = filters
        if WIDE:
            lane = filters.to(tl.int64)
        given = tl.load(
            grad + (pixel + along(lane * grad_c, both_last)),
            mask=along(exists, PIXELS_LAST) & along(real, both_last),
            other=0.0,
        )
        factor = weight_tile(
            weight,
            filters,
            start,
            real,
            channel,
            inside,
            in_channels,
            window,
            VECTOR,
            PIXELS_LAST,
        )
        if PIXELS_LAST:
            total = add_product(total, factor, given, x, EXACT, PRECISION)
        else:
            total = add_product(total, given, factor, x, EXACT, PRECISION)
    spread = depthwise_tile(
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
        STRIDE,
        UNROLLED,
        PIXELS_LAST,
        WIDE,
    )
    before = affine_tile(spread, scale1, shift1, channel, inside, both_last)
    total *= slope(before, ACTIVATION1)
    axis: tl.constexpr = 1 if PIXELS_LAST else 0
    share_of = (program // tiles).to(tl.int64) * in_channels + channel
    if partial_scale is not None:
        tl.store(partial_scale + share_of, tl.sum(total * spread, axis), mask=inside)
    if partial_shift is not None:
        tl.store(partial_shift + share_of, tl.sum(total, axis), mask=inside)
    total = affine_tile(total, scale1, None, channel, inside, both_last)
    lane = channel
    if WIDE:
        lane = channel.to(tl.int64)
    place = along(image * out_n + row * out_h + column * out_w, PIXELS_LAST)
    tl.store(
        out + (place + along(lane * out_c, both_last)),
        total,
        mask=along(exists, PIXELS_LAST) & along(inside, both_last),
    )
