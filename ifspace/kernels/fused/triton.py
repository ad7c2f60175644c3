"""The fused DW + RPW block in Triton: one kernel forwards, three backwards.

All recompute the tensor between the two convolutions from x, a tile of it at a time, so that it
never goes to memory; its gradient does, once. Each tile of filters pays for the depthwise
convolution again: the more filters a tile holds, the fewer times. The semantics are those of
`reference`. These kernels follow torch's float32 matmul precision; they take no float64.

A tile of the tensor between the two convolutions is [pixels, channels] for channels-last tensors
and [channels, pixels] otherwise, so that the last axis is the contiguous one (`PIXELS_LAST`). In
the kernels `sizes` is as in `rpw.triton`, `place` is the tuple (image, row, column) of output
pixels. Names of blocks: M pixels, N filters, C channels.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from collections.abc import Mapping
from math import prod
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from ifspace.errors import KernelError
from ifspace.kernels import repeat
from ifspace.kernels.fused.reference import FusedSpec, Gradients, depthwise_backward
from ifspace.kernels.launch import (
    CUDA,
    PROGRAMS,
    SM_90_UP,
    TARGETS,
    Completion,
    Config,
    Launch,
    Tensors,
    Tile,
    align_of,
    check_runnable,
    config_table,
    contiguous,
    count_indices,
    interprets,
    is_plain,
    is_wide,
    kind_of,
    longest_union,
    precision_of,
    shared_arguments,
    stride_arguments,
)
from ifspace.kernels.repeat import Call
from ifspace.kernels.rpw.triton import (
    add_product,
    along,
    channels_at,
    filled,
    filters_ahead,
    filters_at,
    filters_meeting,
    union_of,
    weight_tile,
    window_of,
)
from ifspace.kernels.tensors import empty_in_layout
from ifspace.kernels.windows import Windows

# The names of configurations by kernel (one of `KERNELS`), to use instead of the fastest.
Pins = Mapping[str, str]

# "before" is the forward kernel writing the gradient before activation2.
KERNELS: Final = ("forward", "before", "weight_grad", "middle_grad")

# With 2 stages or more the nine taps of the depthwise convolution are unrolled.
_TILES: Final[dict[str, dict[str, tuple[Tile, ...]]]] = {
    "forward": {
        "half": (
            (16, 32, 32, 4, 1, TARGETS),
            (64, 64, 32, 4, 1, SM_90_UP),
            (32, 128, 32, 4, 1, CUDA),
            (64, 128, 32, 8, 1, CUDA),
            (32, 256, 32, 8, 1, SM_90_UP),
            (64, 256, 32, 8, 1, SM_90_UP),
            (64, 128, 32, 8, 2, SM_90_UP),
        ),
        "tf32": ((16, 32, 32, 4, 1, TARGETS), (64, 64, 32, 8, 1, CUDA)),
        "ieee": ((16, 32, 32, 4, 1, TARGETS),),
    },
    "before": {
        "half": ((16, 32, 32, 4, 1, TARGETS), (64, 64, 32, 4, 1, CUDA)),
        "tf32": ((16, 32, 32, 4, 1, TARGETS), (64, 64, 32, 8, 1, CUDA)),
        "ieee": ((16, 32, 32, 4, 1, TARGETS),),
    },
    "weight_grad": {
        "half": (
            (32, 64, 32, 4, 1, TARGETS),
            (64, 64, 32, 8, 1, CUDA),
            (64, 64, 64, 8, 1, SM_90_UP),
        ),
        "tf32": ((32, 64, 32, 4, 1, TARGETS), (32, 64, 64, 8, 1, CUDA)),
        "ieee": ((16, 32, 32, 4, 1, TARGETS),),
    },
    "middle_grad": {
        "half": (
            (32, 32, 32, 4, 2, TARGETS),
            (64, 64, 32, 4, 3, CUDA),
            (64, 64, 64, 8, 3, CUDA),
        ),
        "tf32": ((32, 32, 32, 4, 2, TARGETS), (64, 32, 64, 8, 2, CUDA)),
        "ieee": ((16, 32, 32, 4, 2, TARGETS),),
    },
}


def forward(
    x: Tensor,
    dw_weight: Tensor,
    scale1: Tensor | None,
    shift1: Tensor | None,
    weight: Tensor,
    scale2: Tensor | None,
    shift2: Tensor | None,
    spec: FusedSpec,
    *,
    fp32: str | None = None,
    configs: Pins | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return y [N, C_out, H_out, W_out] of x [N, C_in, H, W], any strides.

    dw_weight is [C_in, 1, 3, 3], weight [C_out, w]; scale1 and shift1 are [C_in], scale2 and
    shift2 [C_out], or None; all of one dtype (float16, bfloat16 or float32) and on one device. y
    is channels_last when x is. `out`: a tensor to write y to. `fp32`: "tf32" or "ieee" products
    of float32, by default as torch.backends.cuda.matmul says.

    Raises: DeviceError where Triton cannot run, or for float64; KernelError for a precision or a
        configuration that does not exist.
    """
    check_runnable(x)
    check_pins(configs)
    y = empty_in_layout(x, spec.output_shape(tuple(x.shape))) if out is None else out
    if y.numel() and x.numel():
        tensors = _first(dw_weight, scale1, shift1) | _second(weight, scale2, shift2, spec)
        name, precision = (configs or {}).get("forward"), precision_of(x.dtype, fp32)
        repeat.run(
            "fused forward",
            {"x": x, **tensors, "y": y},
            (spec, precision, name),
            lambda: Call.of(forward_launch(x, tensors, None, y, spec, precision), name),
        )
    return y


def backward(
    grad: Tensor,
    x: Tensor,
    dw_weight: Tensor,
    scale1: Tensor | None,
    shift1: Tensor | None,
    weight: Tensor,
    scale2: Tensor | None,
    shift2: Tensor | None,
    spec: FusedSpec,
    *,
    fp32: str | None = None,
    configs: Pins | None = None,
) -> Gradients:
    """Return the gradients of <grad, y> by the seven tensors, None where the tensor is None.

    The tensor between the convolutions is recomputed from x. With an activation2, so is its
    argument: the forward kernel runs once more and writes the gradient there in place of y. Saving
    y would not do instead (SiLU cannot be undone, nor scale2 = 0) and saving the argument would
    keep one more tensor from every forward pass; without an activation2 nothing runs, because the
    gradient by scale2 is the sum of weight times the gradient by (scale2 weight).

    Raises: as `forward`.
    """
    check_runnable(x)
    check_pins(configs)
    if grad.numel() == 0 or x.numel() == 0:
        tensors = (x, dw_weight, scale1, shift1, weight, scale2, shift2)
        zeros = [None if tensor is None else torch.zeros_like(tensor) for tensor in tensors]
        return tuple(zeros)  # type: ignore[return-value]
    pins = configs or {}
    first = _first(dw_weight, scale1, shift1)
    weight = weight.contiguous()
    if spec.activation2 is not None:
        before = empty_in_layout(x, tuple(grad.shape))
        all_tensors = first | _second(weight, scale2, shift2, spec)
        forward_launch(x, all_tensors, grad, before, spec, fp32).run(pins.get("before"))
        grad = before

    product, by_shift2 = weight_grad_launch(x, first, grad, spec, fp32).run(pins.get("weight_grad"))
    grad_weight, grad_scale2, folded = _by_weight(product, weight, scale2)

    spread = empty_in_layout(x, spec.middle_shape(tuple(x.shape)))
    folding = first | {"weight": filled(folded, spec.windows)}
    by_scale1, by_shift1 = middle_grad_launch(x, folding, grad, spread, spec, fp32).run(
        pins.get("middle_grad")
    )
    grad_x, grad_dw = depthwise_backward(spread, x, dw_weight, spec.stride)
    return (
        grad_x,
        grad_dw,
        _cast(by_scale1, x),
        _cast(by_shift1, x),
        grad_weight,
        grad_scale2,
        None if shift2 is None else _cast(by_shift2, x),
    )


def _by_weight(
    product: Tensor | None, weight: Tensor, scale2: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the gradients by weight and scale2, and the weight [C_out, w] with scale2 in it.

    `product` is the gradient by scale2 * weight.
    """
    assert product is not None  # this kernel always writes both sums
    if scale2 is None:
        return product.to(weight.dtype), None, weight
    wide, factor = weight.float(), scale2.float()[:, None]
    by_scale = (product * wide).sum(1).to(weight.dtype)
    return (product * factor).to(weight.dtype), by_scale, (wide * factor).to(weight.dtype)


def _first(
    dw_weight: Tensor, scale1: Tensor | None, shift1: Tensor | None
) -> dict[str, Tensor | None]:
    return {
        "dw_weight": dw_weight.contiguous(),
        "scale1": contiguous(scale1),
        "shift1": contiguous(shift1),
    }


def _second(
    weight: Tensor, scale2: Tensor | None, shift2: Tensor | None, spec: FusedSpec
) -> dict[str, Tensor | None]:
    return {
        "weight": filled(weight, spec.windows),
        "scale2": contiguous(scale2),
        "shift2": contiguous(shift2),
    }


def _cast(vector: Tensor | None, like: Tensor) -> Tensor | None:
    return None if vector is None else vector.to(like.dtype)


# ---- configurations and launches


def configurations(
    kernel: str, kind: str, channels_last: bool, plain: bool = False
) -> tuple[Config, ...]:
    """Return the configurations of a kernel for a kind of product ("half", "tf32" or "ieee").

    In sorted order of the filters, which reads the shortest unions of windows, up to 64 x 128; for
    channels_last also in natural order, which touches adjacent filters, multiplies more zeros and
    takes fewer registers. By `plain` in natural order alone: see `launch.is_plain`.

    >>> [config.name for config in configurations("forward", "ieee", channels_last=True)]
    ['16x32x32-sorted-w4s1', '16x32x32-natural-w4s1']
    """
    tiles = _TILES[kernel][kind]
    natural = config_table(kernel, ("natural",), {kind: tiles})
    if plain:
        return natural
    few = tuple(tile for tile in tiles if tile[0] * tile[1] <= 64 * 128)
    return config_table(kernel, ("sorted",), {kind: few}) + (natural if channels_last else ())


def check_pins(pins: Pins | None) -> None:
    """Check that the kernels of pins exist.

    Raises: KernelError with the kernels that exist.
    """
    for kernel in pins or ():
        if kernel not in KERNELS:
            raise KernelError.because(
                "no such kernel",
                got=repr(kernel),
                allowed=", ".join(KERNELS),
                remedy="pin one of them",
                argument="configs",
            )


def forward_launch(
    x: Tensor, tensors: Tensors, grad: Tensor | None, y: Tensor, spec: FusedSpec, fp32: str | None
) -> Launch:
    """Return the launch that fills y, or where there is a grad: y with it before activation2.

    `tensors`: dw_weight, scale1, shift1, a weight filled up to whole vectors, scale2, shift2.
    """
    arguments = _arguments({"x": x, **tensors, "grad": grad, "y": y}, spec, fp32)
    arguments |= {"ACTIVATION2": spec.activation2}
    if grad is None:
        arguments |= stride_arguments("grad", y)

    def complete(config: Config) -> Completion:
        across = triton.cdiv(count_indices(spec.windows, config.order), config.filters)
        grid = (triton.cdiv(arguments["pixels"], config.pixels) * across,)
        # Stages of loads are made of unrolled taps.
        return grid, {"UNROLLED": config.stages > 1}

    kernel = "forward" if grad is None else "before"
    return _launch(kernel, forward_kernel, arguments, spec.windows, complete)


def weight_grad_launch(
    x: Tensor, tensors: Tensors, grad: Tensor, spec: FusedSpec, fp32: str | None
) -> Launch:
    """Return the launch whose sums are those of grad times the input of RPW, and of grad.

    `tensors`: dw_weight, scale1, shift1. grad [N, C_out, H_out, W_out] is by the output of the
    second affine; the sums are [C_out, w] and [C_out].
    """
    windows = spec.windows
    arguments = _arguments({"x": x, **tensors, "grad": grad}, spec, fp32)
    arguments |= {"reads": windows.width, "UNROLLED": False}

    def complete(config: Config) -> Completion:
        span = triton.cdiv(arguments["pixels"], config.pixels)
        tiles = triton.cdiv(count_indices(windows, config.order), config.filters) * triton.cdiv(
            longest_union(windows, config.filters, config.order), config.channels
        )
        parts = max(1, min(span, (3 if interprets() else PROGRAMS) // tiles))
        partial = _partial(x, parts, windows.out_channels, windows.width)
        shift = _partial(x, parts, windows.out_channels)
        return (tiles, parts), {"span": span, "partial": partial, "partial_shift": shift}

    sums = ("partial", "partial_shift")
    return _launch("weight_grad", weight_grad_kernel, arguments, windows, complete, sums)


def middle_grad_launch(
    x: Tensor, tensors: Tensors, grad: Tensor, out: Tensor, spec: FusedSpec, fp32: str | None
) -> Launch:
    """Return the launch that fills `out` with the gradient by the depthwise convolution's output.

    `tensors`: dw_weight, scale1, shift1, and a weight with scale2 in it, filled up. The sums
    are the gradients [C_in] by scale1 and shift1, None where these are.
    """
    arguments = _arguments({"x": x, **tensors, "grad": grad, "out": out}, spec, fp32)
    arguments |= {"UNROLLED": False, "ALIGN": align_of(spec.windows)}
    channels = x.shape[1]

    def complete(config: Config) -> Completion:
        tiles = triton.cdiv(arguments["pixels"], config.pixels)
        scale = None if tensors["scale1"] is None else _partial(x, tiles, channels)
        shift = None if tensors["shift1"] is None else _partial(x, tiles, channels)
        grid = (tiles * triton.cdiv(channels, config.channels),)
        return grid, {"partial_scale": scale, "partial_shift": shift}

    sums = ("partial_scale", "partial_shift")
    return _launch("middle_grad", middle_grad_kernel, arguments, spec.windows, complete, sums)


def _launch(
    kernel: str,
    function: Any,
    arguments: dict[str, Any],
    windows: Windows,
    complete: Any,
    sums: tuple[str, ...] = (),
) -> Launch:
    kind = kind_of(arguments["x"].dtype, arguments["PRECISION"])
    configs = configurations(kernel, kind, not arguments["PIXELS_LAST"], is_plain(windows))
    return Launch(kernel, function, arguments, configs, complete, sums)


def _partial(x: Tensor, parts: int, *shape: int) -> Tensor:
    return torch.empty((parts, *shape), dtype=torch.float32, device=x.device)


def _arguments(tensors: Tensors, spec: FusedSpec, fp32: str | None) -> dict[str, Any]:
    """Return the arguments of every kernel: the shared ones, sizes and options of the block."""
    x = tensors["x"]
    assert x is not None
    count, _, out_height, out_width = spec.middle_shape(tuple(x.shape))
    return shared_arguments(tensors, spec.windows, fp32) | {
        "pixels": count * out_height * out_width,
        "height": x.shape[2],
        "width": x.shape[3],
        "out_height": out_height,
        "out_width": out_width,
        "STRIDE": spec.stride,
        "ACTIVATION1": spec.activation1,
        "PIXELS_LAST": x.stride(1) != 1,
        # A tap may point a row before an image; that is masked, and takes no wider integer.
        "WIDE": is_wide(tensors.values(), prod(x.shape) // x.shape[1], spec.windows),
    }


# ---- what a tile holds, beside the tiles of `rpw.triton`


@triton.jit
def output_pixels(tile, pixels, out_height, out_width, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Return image, row and column of a tile's output pixels, and which of them exist."""
    if WIDE:
        tile = tile.to(tl.int64)
    pixel = tile * BLOCK + tl.arange(0, BLOCK)
    area = out_height * out_width
    inside = pixel % area
    return (pixel // area, inside // out_width, inside % out_width), pixel < pixels


@triton.jit
def offsets_of(place, strides, PIXELS_LAST: tl.constexpr):
    """Return the offsets of pixels along their axis of a tile; `strides` of image, row, column."""
    image, row, column = place
    of_image, of_row, of_column = strides
    return along(image * of_image + row * of_row + column * of_column, PIXELS_LAST)


@triton.jit
def lanes_of(channel, stride, PIXELS_LAST: tl.constexpr, WIDE: tl.constexpr):
    """Return the offsets of channels along their axis of a tile."""
    if WIDE:
        channel = channel.to(tl.int64)
    return along(channel * stride, not PIXELS_LAST)


@triton.jit
def empty_total(PIXELS: tl.constexpr, CHANNELS: tl.constexpr, PIXELS_LAST: tl.constexpr):
    """Return a tile of zeros in float32."""
    if PIXELS_LAST:
        return tl.zeros((CHANNELS, PIXELS), tl.float32)
    else:
        return tl.zeros((PIXELS, CHANNELS), tl.float32)


@triton.jit
def add_mixed(
    total, tile, factor, x, PIXELS_LAST: tl.constexpr, EXACT: tl.constexpr, PRECISION: tl.constexpr
):
    """Return total with a tile of pixels times a factor of channels added."""
    if PIXELS_LAST:
        return add_product(total, factor, tile, x, EXACT, PRECISION)
    else:
        return add_product(total, tile, factor, x, EXACT, PRECISION)


@triton.jit
def depthwise_tile(
    x,
    strides,
    dw_weight,
    place,
    exists,
    channel,
    height,
    width,
    STRIDE: tl.constexpr,
    UNROLLED: tl.constexpr,
    PIXELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return the depthwise 3x3 convolution of a tile of pixels and channels, in float32.

    `strides` of x: image, channel, row, column. UNROLLED: nine tiles of x are loaded at once, which
    hides their latency and takes more registers than three at a time.
    """
    x_n, x_c, x_h, x_w = strides
    image, row, column = place
    top = row * STRIDE - 1
    left = column * STRIDE - 1
    # The corner may lie outside the picture: it is only ever read under the mask.
    corner = offsets_of((image, top, left), (x_n, x_h, x_w), PIXELS_LAST) + lanes_of(
        channel, x_c, PIXELS_LAST, WIDE
    )
    total = empty_total(row.shape[0], channel.shape[0], PIXELS_LAST)
    seen = (exists, top, left, height, width)
    if UNROLLED:
        for down in tl.static_range(3):
            total = _add_depthwise_row(
                total, x, dw_weight, corner, seen, channel, x_h, x_w, down, PIXELS_LAST
            )
    else:
        for down in range(3):
            total = _add_depthwise_row(
                total, x, dw_weight, corner, seen, channel, x_h, x_w, down, PIXELS_LAST
            )
    return total


@triton.jit
def _add_depthwise_row(
    total, x, dw_weight, corner, seen, channel, x_h, x_w, down, PIXELS_LAST: tl.constexpr
):
    """Return the total with one row of the 3x3 kernel added."""
    exists, top, left, height, width = seen
    in_row = exists & (top + down >= 0) & (top + down < height)
    for right in tl.static_range(3):
        inside = in_row & (left + right >= 0) & (left + right < width)
        value = tl.load(
            x + (corner + (down * x_h + right * x_w)), mask=along(inside, PIXELS_LAST), other=0.0
        )
        factor = tl.load(dw_weight + (channel * 9 + (down * 3 + right))).to(tl.float32)
        total += value.to(tl.float32) * along(factor, not PIXELS_LAST)
    return total


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


# ---- the kernels


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
    BLOCKED: tl.constexpr,
    PIXELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write y, or where there is a gradient by y: the gradient before activation2.

    One program: BLOCK_M output pixels of BLOCK_N filters. Programs of the same pixels are
    neighbours, so that they find x in the cache and complete each other's sectors of y.
    """
    sizes = (in_channels, out_channels, window, step, unit, distinct, share, inverse)
    NATURAL: tl.constexpr = ORDER == "natural"
    tiles = tl.cdiv(out_channels if NATURAL else distinct * share, BLOCK_N)
    program = tl.program_id(0)
    first = program % tiles * BLOCK_N
    place, exists = output_pixels(program // tiles, pixels, out_height, out_width, BLOCK_M, WIDE)
    filters, start, real = filters_at(
        first + tl.arange(0, BLOCK_N), sizes, VECTOR, NATURAL, BLOCKED
    )
    base, length = union_of(first, sizes, BLOCK_N, VECTOR, NATURAL, BLOCKED)
    total = empty_total(BLOCK_M, BLOCK_N, PIXELS_LAST)
    for k in range(0, length, BLOCK_C):
        position = k + tl.arange(0, BLOCK_C)
        channel = channels_at(base + position, in_channels, VECTOR)
        middle = depthwise_tile(
            x,
            (x_n, x_c, x_h, x_w),
            dw_weight,
            place,
            exists,
            channel,
            height,
            width,
            STRIDE,
            UNROLLED,
            PIXELS_LAST,
            WIDE,
        )
        middle = affine_tile(middle, scale1, shift1, channel, True, not PIXELS_LAST)
        middle = activated(middle, ACTIVATION1)
        inside = position < length
        factor = weight_tile(
            weight, filters, start, real, channel, inside, sizes, VECTOR, not PIXELS_LAST
        )
        total = add_mixed(total, middle, factor, x, PIXELS_LAST, EXACT, PRECISION)
    total = affine_tile(total, scale2, shift2, filters, real, not PIXELS_LAST)
    both = along(exists, PIXELS_LAST) & along(real, not PIXELS_LAST)
    if grad is not None:
        source = offsets_of(place, (grad_n, grad_h, grad_w), PIXELS_LAST) + lanes_of(
            filters, grad_c, PIXELS_LAST, WIDE
        )
        by_y = tl.load(grad + source, mask=both, other=0.0)
        total = by_y.to(tl.float32) * slope(total, ACTIVATION2)
    else:
        total = activated(total, ACTIVATION2)
    target = offsets_of(place, (y_n, y_h, y_w), PIXELS_LAST) + lanes_of(
        filters, y_c, PIXELS_LAST, WIDE
    )
    tl.store(y + target, total, mask=both)


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
    BLOCKED: tl.constexpr,
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
    sizes = (in_channels, out_channels, window, step, unit, distinct, share, inverse)
    NATURAL: tl.constexpr = ORDER == "natural"
    tiles = tl.cdiv(out_channels if NATURAL else distinct * share, BLOCK_N)
    first = tl.program_id(0) % tiles * BLOCK_N
    k = tl.program_id(0) // tiles * BLOCK_C
    part = tl.program_id(1)
    filters, _, real = filters_at(first + tl.arange(0, BLOCK_N), sizes, VECTOR, NATURAL, BLOCKED)
    base, length = union_of(first, sizes, BLOCK_N, VECTOR, NATURAL, BLOCKED)
    position = k + tl.arange(0, BLOCK_C)
    channel = channels_at(base + position, in_channels, VECTOR)
    total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    shift = tl.zeros((BLOCK_N,), tl.float32)
    if k < length:
        for turn in range(0, span - part, tl.num_programs(1)):
            place, exists = output_pixels(part + turn, pixels, out_height, out_width, BLOCK_M, WIDE)
            source = offsets_of(place, (grad_n, grad_h, grad_w), PIXELS_LAST)
            by_y = tl.load(
                grad + (source + lanes_of(filters, grad_c, PIXELS_LAST, WIDE)),
                mask=along(exists, PIXELS_LAST) & along(real, not PIXELS_LAST),
                other=0.0,
            )
            middle = depthwise_tile(
                x,
                (x_n, x_c, x_h, x_w),
                dw_weight,
                place,
                exists,
                channel,
                height,
                width,
                STRIDE,
                UNROLLED,
                PIXELS_LAST,
                WIDE,
            )
            middle = affine_tile(middle, scale1, shift1, channel, True, not PIXELS_LAST)
            middle = activated(middle, ACTIVATION1)
            if PIXELS_LAST:
                shift += tl.sum(by_y.to(tl.float32), 1)
                total = add_product(total, by_y, tl.trans(middle), x, EXACT, PRECISION)
            else:
                shift += tl.sum(by_y.to(tl.float32), 0)
                total = add_product(total, tl.trans(by_y), middle, x, EXACT, PRECISION)
        # What is written is the gradient of the true window, not of the one filled up.
        begin = window_of(filters, distinct, out_channels, BLOCKED) * step % in_channels
        ahead = channel[None, :] - begin[:, None]
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
    ALIGN: tl.constexpr,
    BLOCKED: tl.constexpr,
    PIXELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradient by the depthwise convolution's output, and the shares of its affine's.

    One program: BLOCK_M pixels of BLOCK_C channels, over the filters whose windows meet these in
    steps of BLOCK_N, see `filters_meeting`. The
    shares are [pixel tiles, C_in] in float32.
    """
    sizes = (in_channels, out_channels, window, step, unit, distinct, share, inverse)
    tiles = tl.cdiv(in_channels, BLOCK_C)
    program = tl.program_id(0)
    first = program % tiles * BLOCK_C
    place, exists = output_pixels(program // tiles, pixels, out_height, out_width, BLOCK_M, WIDE)
    position = first + tl.arange(0, BLOCK_C)
    channel = channels_at(position, in_channels, VECTOR)
    inside = position < in_channels
    NATURAL: tl.constexpr = ORDER == "natural"
    begin, count = filters_meeting(first, sizes, BLOCK_C, ALIGN, NATURAL, BLOCKED)
    total = empty_total(BLOCK_M, BLOCK_C, PIXELS_LAST)
    source = offsets_of(place, (grad_n, grad_h, grad_w), PIXELS_LAST)
    for n in range(0, count, BLOCK_N):
        ahead = n + tl.arange(0, BLOCK_N)
        filters, start, real = filters_ahead(begin, ahead, sizes, VECTOR, ALIGN, NATURAL, BLOCKED)
        real = real & (ahead < count)
        by_y = tl.load(
            grad + (source + lanes_of(filters, grad_c, PIXELS_LAST, WIDE)),
            mask=along(exists, PIXELS_LAST) & along(real, not PIXELS_LAST),
            other=0.0,
        )
        factor = weight_tile(
            weight, filters, start, real, channel, inside, sizes, VECTOR, PIXELS_LAST
        )
        total = add_mixed(total, by_y, factor, x, PIXELS_LAST, EXACT, PRECISION)
    spread = depthwise_tile(
        x,
        (x_n, x_c, x_h, x_w),
        dw_weight,
        place,
        exists,
        channel,
        height,
        width,
        STRIDE,
        UNROLLED,
        PIXELS_LAST,
        WIDE,
    )
    before = affine_tile(spread, scale1, shift1, channel, inside, not PIXELS_LAST)
    total *= slope(before, ACTIVATION1)
    axis: tl.constexpr = 1 if PIXELS_LAST else 0
    share_of = (program // tiles).to(tl.int64) * in_channels + channel
    if partial_scale is not None:
        tl.store(partial_scale + share_of, tl.sum(total * spread, axis), mask=inside)
    if partial_shift is not None:
        tl.store(partial_shift + share_of, tl.sum(total, axis), mask=inside)
    total = affine_tile(total, scale1, None, channel, inside, not PIXELS_LAST)
    target = offsets_of(place, (out_n, out_h, out_w), PIXELS_LAST) + lanes_of(
        channel, out_c, PIXELS_LAST, WIDE
    )
    tl.store(
        out + target,
        total,
        mask=along(exists, PIXELS_LAST) & along(inside, not PIXELS_LAST),
    )
