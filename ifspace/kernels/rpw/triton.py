"""The rolling pointwise convolution (RPW) in Triton: forward and both gradients.

A kernel is one matrix product over the union of neighbouring windows: x is read where it lies, its
channels modulo C_in, and never copied or concatenated. float16, bfloat16 and float32 with sums in
float32; no float64. The semantics are those of `reference`.

The functions run on the current stream and may be captured in a CUDA graph; call them once before,
so that the configuration is chosen by timing. `config` is the name of one of `configurations`.

Filters in *sorted order*: with d = gcd(step, C_in) the P = C_in/d windows start at 0, d, 2d ...;
sorted index n stands for the i-th filter of window p, which starts at d r, where r, i =
divmod(n, q), q = ceil(C_out/P) and p = r (step/d)^-1 mod P. Neighbours share a window or have
windows d apart, so a tile of them reads the *union* of its windows once: a super-window, with zeros
in the weight. Where P does not divide C_out some n stand for no filter and are masked. They cost
lanes: with C_out < P, P/C_out times the tiles. *Natural order*: n is the filter, and the outputs of
a tile are adjacent in a channels-last tensor. In a rolling layer its union soon is the whole input.
In a blocked one whose windows start in turn (the step divides C_in) it is as short as in sorted
order, often one window: adjacent filters and no zeros, so that sorted order is not offered.

Which window a filter reads, and which filters a window has, is the order of the layer (`BLOCKED`):
`window_of` and `filters_of` alone know it.

*Whole vectors*: so that 16 bytes are read at a time, a window starts at a multiple of `vector`
channels and is filled up with zeros on both sides where it does not by itself (`pad_kernel`);
`window` and `start` are those of the filled windows everywhere in the kernels.

In the kernels `sizes` is the tuple (C_in, C_out, window, step, unit d, distinct P, share q,
inverse (step/d)^-1) of `launch.window_sizes`: only integers come from the host, no table lives on
the device. Names of blocks: M pixels, N filters, C channels.

An infinity or NaN in one channel of a union reaches all filters of the tile (0 times inf).
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from ifspace.errors import KernelError
from ifspace.kernels import repeat
from ifspace.kernels.launch import (
    CUDA,
    KINDS,
    PROGRAMS,
    SM_90_UP,
    TARGETS,
    Completion,
    Config,
    Launch,
    Tensors,
    align_of,
    check_runnable,
    config_table,
    contiguous,
    count_indices,
    filled_width,
    is_blocked,
    is_in_one_window,
    is_plain,
    is_wide,
    kind_of,
    longest_union,
    named,
    needs_filling,
    pixel_strides,
    precision_of,
    shared_arguments,
    vector_of,
)
from ifspace.kernels.repeat import Call
from ifspace.kernels.tensors import empty_with_channels
from ifspace.kernels.windows import ROLLING, Windows

_FEWEST_PIXELS: Final = 512  # of one part: fewer are not worth another partial gradient
_WOVEN: Final = (2, 4, 8, 16)
PAD_BLOCK: Final = 1024
SUM_BLOCKS: Final = {"BLOCK_P": 16, "BLOCK_E": 256}

# The first that suits a kernel, kind and layout is the default. Left out of a target is what spills
# there under triton 3.7, or takes more shared memory than it has. Under 3.6 some tiles of sorted
# order spill where windows are no whole vectors; no default does.
CONFIGS: Final[tuple[Config, ...]] = (
    *config_table(
        "forward",
        ("natural", "sorted"),
        {
            "half": (
                (64, 64, 32, 4, 3, TARGETS),
                (128, 64, 64, 4, 3, CUDA),
                (128, 128, 32, 8, 3, TARGETS),
                (128, 128, 64, 8, 3, CUDA),
            ),
            "tf32": ((64, 64, 32, 4, 2, TARGETS), (128, 128, 32, 8, 3, CUDA)),
            "ieee": ((32, 64, 16, 4, 2, TARGETS),),
        },
    ),
    *config_table("forward", ("natural",), {"half": ((128, 256, 64, 8, 3, SM_90_UP),)}),
    *config_table(
        "forward",
        ("woven",),
        {
            "half": (
                (64, 128, 32, 4, 3, CUDA),
                (128, 128, 32, 8, 2, CUDA),
                (64, 128, 16, 4, 2, TARGETS),
            ),
        },
    ),
    *config_table(
        "input_grad",
        ("natural", "sorted"),
        {
            "half": (
                (64, 32, 64, 4, 3, TARGETS),
                (128, 64, 64, 4, 3, CUDA),
                (128, 64, 128, 8, 3, CUDA),
            ),
            "tf32": ((64, 32, 64, 4, 2, TARGETS), (128, 32, 128, 8, 3, CUDA)),
            "ieee": ((32, 16, 64, 4, 2, TARGETS),),
        },
    ),
    *config_table("input_grad", ("natural",), {"half": ((128, 64, 256, 8, 3, CUDA),)}),
    *config_table(
        "weight_grad",
        ("natural", "sorted"),
        {
            "half": ((32, 64, 64, 4, 3, TARGETS), (64, 64, 64, 4, 3, CUDA)),
            "tf32": ((32, 64, 64, 4, 2, TARGETS), (32, 128, 128, 8, 3, CUDA)),
            "ieee": ((16, 32, 64, 4, 2, TARGETS),),
        },
    ),
    *config_table(
        "weight_grad",
        ("natural",),
        {
            "half": (
                (64, 128, 128, 8, 3, CUDA),
                (64, 128, 64, 4, 3, SM_90_UP),
                # The fastest on an H200 in most cases, in blocked order by a fifth.
                (128, 64, 64, 4, 3, SM_90_UP),
                (64, 64, 128, 4, 3, SM_90_UP),
            )
        },
    ),
    *config_table("weight_grad", ("sorted",), {"half": ((64, 128, 64, 4, 3, SM_90_UP),)}),
)
KERNELS: Final = tuple(dict.fromkeys(config.kernel for config in CONFIGS))
# The defaults of rolling layers in half precision and channels_last that fill a large card: of all
# tiles they were the fastest on an H200 at 128x256x28x28 and 128x512x14x14.
LARGE: Final = {
    "forward": "128x128x64-natural-w8s3",
    "input_grad": "128x64x128-natural-w8s3",
    "weight_grad": "128x64x64-natural-w4s3",
}

# Sums that a tile may hold, of each window that it weaves and with addresses of 64 bits.
_WOVEN_AREA: Final = 64 * 64
_WIDE_AREA: Final = 128 * 64

_pins: dict[str, str] = {}


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    windows: Windows,
    *,
    fp32: str | None = None,
    config: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return y [N, C_out, H, W] of x [N, C_in, H, W], weight [C_out, w] and bias [C_out].

    x may have any strides; y is channels_last when x is. `out`: a tensor to write y to.
    `fp32`: "tf32" or "ieee" products of float32, by default as torch.backends.cuda.matmul says.

    Raises: DeviceError for float64 or where Triton cannot run; KernelError for a precision or a
        configuration that does not exist.
    """
    check_runnable(x)
    y = empty_with_channels(x, windows.out_channels) if out is None else out
    if y.numel():
        weight, bias = filled(weight, windows), contiguous(bias)
        name, precision = config or pinned("forward"), precision_of(x.dtype, fp32)
        repeat.run(
            "rpw forward",
            {"x": x, "weight": weight, "bias": bias, "y": y},
            (windows, precision, name),
            lambda: Call.of(forward_launch(x, weight, bias, y, windows, precision), name),
        )
    return y


def input_grad(
    grad: Tensor,
    weight: Tensor,
    windows: Windows,
    *,
    fp32: str | None = None,
    config: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return the gradient [N, C_in, H, W] by x of <grad, y>, for grad [N, C_out, H, W].

    Raises: as `forward`.
    """
    check_runnable(grad)
    by_x = empty_with_channels(grad, windows.in_channels) if out is None else out
    if by_x.numel():
        weight = filled(weight, windows)
        name, precision = config or pinned("input_grad"), precision_of(grad.dtype, fp32)
        repeat.run(
            "rpw input_grad",
            {"grad": grad, "weight": weight, "out": by_x},
            (windows, precision, name),
            lambda: Call.of(input_grad_launch(grad, weight, by_x, windows, precision), name),
        )
    return by_x


def weight_grad(
    grad: Tensor,
    x: Tensor,
    windows: Windows,
    with_bias: bool = True,
    *,
    fp32: str | None = None,
    config: str | None = None,
    out: tuple[Tensor, Tensor] | None = None,
    deterministic: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the gradients [C_out, w] and [C_out] by weight and bias of <grad, y>.

    The second is empty unless `with_bias`, though it is computed.

    The pixels are split into parts; their gradients are added in a fixed order, or, when not
    `deterministic`, by atomic additions in any order.

    Raises: as `forward`.
    """
    check_runnable(grad)
    by_weight, by_bias = (
        (grad.new_empty(windows.out_channels, windows.width), grad.new_empty(windows.out_channels))
        if out is None
        else out
    )
    parts, name = parts_of(grad, windows), config or pinned("weight_grad")
    precision = precision_of(grad.dtype, fp32)
    if not grad.numel():
        by_weight.zero_()
        by_bias.zero_()
        return by_weight, by_bias if with_bias else by_bias.new_empty(0)

    def add(weight: Tensor, bias: Tensor) -> None:
        repeat.run(
            "rpw weight_grad",
            {"grad": grad, "x": x, "by_weight": weight, "by_bias": bias},
            (windows, precision, parts, name),
            lambda: Call.of(
                weight_grad_launch(grad, x, weight, bias, windows, precision, parts), name
            ),
        )

    if parts == 1 and deterministic and not needs_filling(windows):
        add(by_weight, by_bias)
    else:
        weights = windows.out_channels * filled_width(windows)
        partial = torch.empty(
            parts if deterministic else 1,
            weights + windows.out_channels,
            dtype=torch.float32,
            device=grad.device,
        )
        shares = partial[:, :weights], partial[:, weights:]
        if deterministic:
            add(*shares)
        else:
            weight_grad_launch(grad, x, *shares, windows, precision, parts, atomic=True).run(name)
        sum_parts(partial, by_weight, by_bias, windows)
    return by_weight, by_bias if with_bias else by_bias.new_empty(0)


# ---- the configurations that fit


def configurations(kernel: str, kind: str | None = None) -> tuple[Config, ...]:
    """Return the configurations of a kernel, of one kind of product or of all.

    >>> [config.name for config in configurations("weight_grad", "ieee")]
    ['16x32x64-natural-w4s2', '16x32x64-sorted-w4s2']

    Raises: KernelError for an unknown kernel or kind.
    """
    configs = tuple(c for c in CONFIGS if c.kernel == kernel and kind in (None, c.kind))
    if not configs:
        raise KernelError.because(
            "no such kernel",
            got=f"{kernel!r} for {kind or 'any kind'}",
            allowed=f"{', '.join(KERNELS)}; {', '.join(KINDS)}",
            remedy="pick one",
        )
    return configs


def suitable(
    kernel: str,
    kind: str,
    woven: int,
    channels_last: bool,
    wide: bool = False,
    plain: bool = False,
) -> tuple[Config, ...]:
    """Return the configurations that fit a problem, the default first.

    `woven`: how many windows may be interleaved, 1 for none. `wide`: addresses have 64 bits, for
    which the largest tiles have no registers left. `plain`: see `launch.is_plain`.
    """

    def fits(config: Config) -> bool:
        area = config.pixels * config.filters
        if config.order == "woven":
            few = 1 < woven <= config.filters // 8
            return channels_last and few and area // woven <= _WOVEN_AREA
        if plain:
            return config.order == "natural"
        if wide and config.order == "sorted":
            return kernel != "weight_grad" and area <= _WIDE_AREA
        return True

    fitting = [config for config in configurations(kernel, kind) if fits(config)]
    # The sort is stable: of the order that suits the layout, the first in the table.
    natural = channels_last or wide  # which takes fewer registers
    return tuple(sorted(fitting, key=lambda config: (config.order == "sorted") == natural))


def pin(kernel: str, name: str | None) -> None:
    """Run a kernel of RPW under one configuration from now on; None removes the pin.

    A call that the configuration does not fit raises KernelError. A caller's own `config` comes
    before the pin.

    Raises: KernelError for a kernel or a name that does not exist.
    """
    configs = configurations(kernel)
    if name is None:
        _pins.pop(kernel, None)
    else:
        _pins[kernel] = named(kernel, name, configs).name


def pinned(kernel: str) -> str | None:
    """Return the name that a kernel is pinned to, or None.

    >>> pin("forward", "64x64x32-sorted-w4s3")
    >>> pinned("forward")
    '64x64x32-sorted-w4s3'
    >>> pin("forward", None)
    """
    return _pins.get(kernel)


def woven_windows(windows: Windows) -> int:
    """Return how many windows a kernel can weave: all of them, or 1.

    There must be few, and filters next to each other must read different ones.
    """
    few = windows.distinct in _WOVEN and windows.order == ROLLING
    return windows.distinct if few else 1


def parts_of(grad: Tensor, windows: Windows) -> int:
    """Return into how many parts the pixels are split: the same for every configuration."""
    tiles = triton.cdiv(windows.out_channels, 64) * triton.cdiv(
        min(windows.width + 64, windows.in_channels), 64
    )
    return max(1, min(PROGRAMS // int(tiles), -(-_pixels(grad) // _FEWEST_PIXELS)))


# ---- launches


def forward_launch(
    x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, windows: Windows, fp32: str | None
) -> Launch:
    """Return the launch that fills y."""

    def complete(config: Config) -> Completion:
        across = triton.cdiv(count_indices(windows, config.order), config.filters)
        grid = (triton.cdiv(_pixels(x), config.pixels) * across,)
        single = config.order == "natural" and is_in_one_window(windows, config.filters)
        return grid, {"ONE_WINDOW": single}

    tensors = {"x": x, "weight": weight, "bias": bias, "y": y}
    arguments = _arguments(tensors, (x, y), windows, fp32) | {"WOVEN": woven_windows(windows)}
    return Launch(
        "forward",
        forward_kernel,
        arguments,
        fitting("forward", arguments, windows),
        complete,
        large=large_tile("forward", arguments, windows),
    )


def input_grad_launch(
    grad: Tensor, weight: Tensor, out: Tensor, windows: Windows, fp32: str | None
) -> Launch:
    """Return the launch that fills `out` with the gradient by x."""

    def complete(config: Config) -> Completion:
        across = triton.cdiv(windows.in_channels, config.channels)
        return (triton.cdiv(_pixels(grad), config.pixels) * across,), {}

    tensors = {"grad": grad, "weight": weight, "out": out}
    arguments = _arguments(tensors, (grad, out), windows, fp32) | {"ALIGN": align_of(windows)}
    return Launch(
        "input_grad",
        input_grad_kernel,
        arguments,
        fitting("input_grad", arguments, windows),
        complete,
        large=large_tile("input_grad", arguments, windows),
    )


def weight_grad_launch(
    grad: Tensor,
    x: Tensor,
    by_weight: Tensor,
    by_bias: Tensor,
    windows: Windows,
    fp32: str | None,
    parts: int,
    atomic: bool = False,
) -> Launch:
    """Return the launch that writes the gradients of each part, or adds them all by `atomic`."""

    def complete(config: Config) -> Completion:
        tiles = triton.cdiv(count_indices(windows, config.order), config.filters)
        union = longest_union(windows, config.filters, config.order)
        return (tiles * triton.cdiv(union, config.channels), parts), {}

    tensors = {"grad": grad, "x": x, "by_weight": by_weight, "by_bias": by_bias}
    arguments = _arguments(tensors, (grad, x), windows, fp32) | {"parts": parts, "ATOMIC": atomic}
    return Launch(
        "weight_grad",
        weight_grad_kernel,
        arguments,
        fitting("weight_grad", arguments, windows),
        complete,
        added_to=("by_weight", "by_bias") if atomic else (),
        large=large_tile("weight_grad", arguments, windows),
    )


def fitting(kernel: str, arguments: dict[str, Any], windows: Windows) -> tuple[Config, ...]:
    """Return the configurations that fit a kernel's arguments, the default first."""
    name = "grad" if "grad" in arguments else "x"
    # Whether the channels of a pixel are adjacent in what the kernel reads.
    channels_last = arguments[f"{name}_c"] == 1 and arguments["pixels"] != 1
    kind = kind_of(arguments[name].dtype, arguments["PRECISION"])
    woven, wide = arguments.get("WOVEN", 1), arguments["WIDE"]
    return suitable(kernel, kind, woven, channels_last, wide, is_plain(windows))


def large_tile(kernel: str, arguments: dict[str, Any], windows: Windows) -> str | None:
    """Return the default of a problem that fills a large card; None for all others."""
    fits = {config.name: config for config in fitting(kernel, arguments, windows)}
    config = fits.get(LARGE[kernel])
    name = "grad" if "grad" in arguments else "x"
    channels_last = arguments[f"{name}_c"] == 1 and arguments["pixels"] != 1
    if config is None or not channels_last or windows.order != ROLLING:
        return None
    across = (
        triton.cdiv(windows.in_channels, config.channels)
        if kernel == "input_grad"
        else triton.cdiv(windows.out_channels, config.filters)
    )
    programs = triton.cdiv(arguments["pixels"], config.pixels) * across
    return config.name if programs >= PROGRAMS else None


def _arguments(
    tensors: Tensors, images: tuple[Tensor, Tensor], windows: Windows, fp32: str | None
) -> dict[str, Any]:
    """Return the shared arguments, and those of the pixels of two images [N, C, H, W]."""
    count, _, height, width = images[0].shape
    plane = height * width
    strides = [pixel_strides(image) for image in images]
    even = all(s_h == width * s_w for _, _, s_h, s_w in strides)
    return shared_arguments(tensors, windows, fp32) | {
        "pixels": count * plane,
        "plane": plane,
        "row": width,
        "EVEN": even,
        "FLAT": even and all(count == 1 or s_n == plane * s_w for s_n, _, _, s_w in strides),
        "WIDE": is_wide(tensors.values(), count * plane, windows),
    }


def _pixels(image: Tensor) -> int:
    return image.shape[0] * image.shape[2] * image.shape[3]


def filled(weight: Tensor, windows: Windows) -> Tensor:
    """Return the weight [C_out, window] of the windows filled up to whole vectors."""
    weight = weight.contiguous()
    if not needs_filling(windows):
        return weight
    window = filled_width(windows)
    result = weight.new_empty(windows.out_channels, window)
    arguments = {
        "weight": weight,
        "filled": result,
        "in_channels": windows.in_channels,
        "width": windows.width,
        "window": window,
        "step": windows.step,
        "distinct": windows.distinct,
        "entries": result.numel(),
        "out_channels": windows.out_channels,
        "VECTOR": vector_of(windows),
        "BLOCKED": is_blocked(windows),
        "BLOCK": PAD_BLOCK,
    }
    grid = (triton.cdiv(result.numel(), PAD_BLOCK),)
    tensors = {"weight": weight, "filled": result}
    repeat.run("pad", tensors, (windows,), lambda: Call(pad_kernel, grid, arguments, {}))
    return result


def sum_parts(partial: Tensor, by_weight: Tensor, by_bias: Tensor, windows: Windows) -> None:
    """Fill the gradients with the sums of their parts [parts, C_out (filled width + 1)]."""
    entries = windows.params + windows.out_channels
    tensors = {"partial": partial, "by_weight": by_weight, "by_bias": by_bias}
    arguments = {
        **tensors,
        "parts": partial.shape[0],
        "in_channels": windows.in_channels,
        "out_channels": windows.out_channels,
        "width": windows.width,
        "window": filled_width(windows),
        "step": windows.step,
        "distinct": windows.distinct,
        "VECTOR": vector_of(windows),
        "BLOCKED": is_blocked(windows),
        **SUM_BLOCKS,
    }
    grid = (triton.cdiv(entries, SUM_BLOCKS["BLOCK_E"]),)
    repeat.run(
        "sum_parts", tensors, (windows,), lambda: Call(sum_parts_kernel, grid, arguments, {})
    )


# ---- what a tile holds


@triton.jit
def along(vector, LAST: tl.constexpr):
    """Spread a vector along the last axis of a tile, or along its first."""
    if LAST:
        return vector[None, :]
    else:
        return vector[:, None]


@triton.jit
def add_product(total, left, right, like, EXACT: tl.constexpr, PRECISION: tl.constexpr):
    """Return total + left right, multiplied in the dtype that the pointer `like` points to.

    EXACT: in float32 instead, for the interpreter, which has no bfloat16 products.
    """
    if EXACT:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    else:
        left = left.to(like.dtype.element_ty)
        right = right.to(like.dtype.element_ty)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def pixels_at(index, plane, row, strides, EVEN: tl.constexpr, FLAT: tl.constexpr):
    """Return the offsets of pixels, counted through the images, without that of the channel.

    `strides` of image, row and pixel. EVEN: a row begins where the last one ends; FLAT: so do the
    images.
    """
    of_image, of_row, of_pixel = strides
    if FLAT:
        return index * of_pixel
    else:
        inside = index % plane
        if EVEN:
            return index // plane * of_image + inside * of_pixel
        else:
            return index // plane * of_image + inside // row * of_row + inside % row * of_pixel


@triton.jit
def window_of(filters, distinct, out_channels, BLOCKED: tl.constexpr):
    """Return which of the distinct windows filters read, by the order of the layer."""
    if BLOCKED:
        return filters * distinct // out_channels
    else:
        return filters % distinct


@triton.jit
def filters_of(window, index, distinct, out_channels, BLOCKED: tl.constexpr):
    """Return the filter of a window at an index among those of the window, and whether it exists.

    A window that has fewer filters than others has none at the last index.
    """
    if BLOCKED:
        first = (window * out_channels + distinct - 1) // distinct
        ahead = (first + index) * distinct - window * out_channels
        # Whether a filter exists must follow from the filter, or it takes registers of its own.
        filters = tl.where(ahead < out_channels, first + index, out_channels)
    else:
        filters = window + index * distinct
    return filters, filters < out_channels


@triton.jit
def filters_at(index, sizes, VECTOR: tl.constexpr, NATURAL: tl.constexpr, BLOCKED: tl.constexpr):
    """Return the filters at some indices, where their windows start, and which of them exist."""
    in_channels, out_channels, _, step, unit, distinct, share, inverse = sizes
    if NATURAL:
        filters = index
        start = window_of(index, distinct, out_channels, BLOCKED) * step % in_channels
        exists = index < out_channels
    else:
        turn = index // share
        window = turn * inverse % distinct
        filters, exists = filters_of(window, index % share, distinct, out_channels, BLOCKED)
        start = turn * unit
        exists = (turn < distinct) & exists
    return filters, start - start % VECTOR, exists


@triton.jit
def union_of(
    first,
    sizes,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    NATURAL: tl.constexpr,
    BLOCKED: tl.constexpr,
):
    """Return the first channel and the length of the union of the windows of a tile of filters.

    The length is C_in at most, so no channel is met twice however the union wraps.
    """
    in_channels, out_channels, window, step, unit, distinct, share, _ = sizes
    if NATURAL:
        first_window = window_of(first, distinct, out_channels, BLOCKED)
        start = first_window * step % in_channels
        last = tl.minimum(first + BLOCK, out_channels) - 1
        if BLOCKED:
            turns = window_of(last, distinct, out_channels, BLOCKED) - first_window
        else:  # one a filter, and round again
            turns = tl.minimum(last - first, distinct)
        reach = turns * step
    else:
        start = first // share * unit
        last = tl.minimum(first + BLOCK, distinct * share) - 1
        reach = (last // share - first // share) * unit
    length = tl.minimum(tl.cdiv(reach, VECTOR) * VECTOR + window, in_channels)
    return start - start % VECTOR, tl.multiple_of(length, VECTOR)


@triton.jit
def channels_at(position, in_channels, VECTOR: tl.constexpr):
    """Return the channels at positions counted from 0 that wrap at C_in, in whole vectors."""
    return tl.max_contiguous(tl.multiple_of(position % in_channels, VECTOR), VECTOR)


@triton.jit
def wrapped(position, count, VECTOR: tl.constexpr):
    """Return positions below 2 count modulo count, in whole vectors: a subtraction, no division."""
    position = tl.where(position < count, position, position - count)
    return tl.max_contiguous(tl.multiple_of(position, VECTOR), VECTOR)


@triton.jit
def filters_meeting(
    first,
    sizes,
    BLOCK: tl.constexpr,
    ALIGN: tl.constexpr,
    NATURAL: tl.constexpr,
    BLOCKED: tl.constexpr,
):
    """Return the first index, and how many, whose windows meet channels from `first` on.

    A window meets the BLOCK channels when it starts at most w - 1 before them; after the last index
    the count goes on at 0. Starts are counted one round later, so that no dividend is negative.

    In blocked order and natural order these filters are neighbours where windows start one after
    the other; first and count are rounded to multiples of ALIGN, a divisor of C_out, so that whole
    vectors of them exist. In natural order they are all filters anywhere else.
    """
    in_channels, out_channels, window, step, unit, distinct, share, _ = sizes
    low = (first + in_channels - window) // unit + 1
    high = (tl.minimum(first + BLOCK, in_channels) - 1 + in_channels) // unit
    turns = tl.minimum(high - low + 1, distinct)
    if not NATURAL:
        begin = low % distinct * share
        count = turns * share
    elif BLOCKED:
        lowest = low % distinct
        begin = tl.cdiv(lowest * out_channels, distinct) // ALIGN * ALIGN
        end = tl.cdiv((lowest + turns) * out_channels, distinct)
        in_turn = step == unit
        begin = tl.where(in_turn, begin, 0)
        count = tl.where(in_turn, tl.cdiv(end - begin, ALIGN) * ALIGN, out_channels)
        count = tl.multiple_of(tl.minimum(count, out_channels), ALIGN)
    else:
        begin = 0
        count = out_channels
    return begin, count


@triton.jit
def filters_ahead(
    begin,
    ahead,
    sizes,
    VECTOR: tl.constexpr,
    ALIGN: tl.constexpr,
    NATURAL: tl.constexpr,
    BLOCKED: tl.constexpr,
):
    """Return `filters_at` the indices from `begin` on, which wrap after the last one."""
    _, out_channels, _, _, _, distinct, share, _ = sizes
    index = begin + ahead
    if not NATURAL:
        index = tl.where(index < distinct * share, index, index - distinct * share)
    elif BLOCKED:
        # Adjacent in memory, which the compiler does not see through where they wrap.
        index = wrapped(index, out_channels, ALIGN)
    return filters_at(index, sizes, VECTOR, NATURAL, BLOCKED)


@triton.jit
def weight_tile(
    weight,
    filters,
    start,
    exists,
    channel,
    inside,
    sizes,
    VECTOR: tl.constexpr,
    FILTERS_LAST: tl.constexpr,
):
    """Return the dense weight of a tile of filters and channels: zero outside each window."""
    in_channels, _, window, _, _, _, _, _ = sizes
    within = along(channel, not FILTERS_LAST) - along(start, FILTERS_LAST)
    within = tl.where(within < 0, within + in_channels, within)
    if FILTERS_LAST:
        within = tl.max_contiguous(tl.multiple_of(within, (VECTOR, 1)), (VECTOR, 1))
    else:
        within = tl.max_contiguous(tl.multiple_of(within, (1, VECTOR)), (1, VECTOR))
    read = (within < window) & along(exists, FILTERS_LAST) & along(inside, not FILTERS_LAST)
    return tl.load(weight + along(filters, FILTERS_LAST) * window + within, mask=read, other=0.0)


# ---- the kernels


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
    BLOCKED: tl.constexpr,
    ONE_WINDOW: tl.constexpr,
    WOVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write BLOCK_M pixels of BLOCK_N filters of y; by ONE_WINDOW these read the same channels.

    Programs of the same pixels are neighbours, so that they find x in the cache and complete each
    other's sectors of y.
    """
    sizes = (in_channels, out_channels, window, step, unit, distinct, share, inverse)
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    tiles = tl.cdiv(distinct * share if ORDER == "sorted" else out_channels, BLOCK_N)
    tile = program % tiles
    m = program // tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    real = m < pixels
    source = x + pixels_at(m, plane, row, (x_n, x_h, x_w), EVEN, FLAT)
    first = tile * BLOCK_N
    if ORDER == "woven":
        total = _woven(
            source,
            x_c,
            weight,
            real,
            first,
            sizes,
            BLOCK_M,
            BLOCK_N,
            BLOCK_C,
            VECTOR,
            WOVEN,
            PRECISION,
            EXACT,
        )
        # A column is a filter of the share and, changing faster, a window: in natural order.
        filters = first + tl.arange(0, BLOCK_N)
        exists = filters < out_channels
    else:
        NATURAL: tl.constexpr = ORDER == "natural"
        filters, start, exists = filters_at(
            first + tl.arange(0, BLOCK_N), sizes, VECTOR, NATURAL, BLOCKED
        )
        base, length = union_of(first, sizes, BLOCK_N, VECTOR, NATURAL, BLOCKED)
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for c in range(0, length, BLOCK_C):
            position = c + tl.arange(0, BLOCK_C)
            inside = position < length
            channel = wrapped(base + position, in_channels, VECTOR)
            left = tl.load(
                source[:, None] + channel[None, :] * x_c,
                mask=real[:, None] & inside[None, :],
                other=0.0,
            )
            if ONE_WINDOW:  # whole rows of the weight: no position is outside
                right = tl.load(
                    weight + filters[None, :] * window + position[:, None],
                    mask=exists[None, :] & inside[:, None],
                    other=0.0,
                )
            else:
                right = weight_tile(
                    weight, filters, start, exists, channel, inside, sizes, VECTOR, True
                )
            total = add_product(total, left, right, x, EXACT, PRECISION)
    if bias is not None:
        total += tl.load(bias + filters, mask=exists, other=0.0).to(tl.float32)[None, :]
    target = y + pixels_at(m, plane, row, (y_n, y_h, y_w), EVEN, FLAT)
    tl.store(target[:, None] + filters[None, :] * y_c, total, mask=real[:, None] & exists[None, :])


@triton.jit
def _woven(
    source,
    x_c,
    weight,
    real,
    first,
    sizes,
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
    zeros are multiplied, and the outputs are adjacent in a channels-last tensor.
    """
    in_channels, out_channels, window, step, _, _, _, _ = sizes
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
        total = add_product(total, left, right, weight, EXACT, PRECISION)
    return tl.reshape(tl.permute(total, (1, 2, 0)), (BLOCK_M, BLOCK_N))


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
    ALIGN: tl.constexpr,
    BLOCKED: tl.constexpr,
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write BLOCK_M pixels of BLOCK_C channels of the gradient by the input.

    Sorted order goes through the filters whose windows meet the channels; natural order goes
    through all of them, or in blocked order through those alone (`filters_meeting`), and reads what
    is adjacent in a channels-last gradient.
    """
    sizes = (in_channels, out_channels, window, step, unit, distinct, share, inverse)
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    tiles = tl.cdiv(in_channels, BLOCK_C)
    first = program % tiles * BLOCK_C
    m = program // tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    real = m < pixels
    source = grad + pixels_at(m, plane, row, (grad_n, grad_h, grad_w), EVEN, FLAT)
    position = first + tl.arange(0, BLOCK_C)
    channel = wrapped(position, in_channels, VECTOR)
    inside = position < in_channels
    NATURAL: tl.constexpr = ORDER == "natural"
    begin, count = filters_meeting(first, sizes, BLOCK_C, ALIGN, NATURAL, BLOCKED)
    total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for n in range(0, count, BLOCK_N):
        ahead = n + tl.arange(0, BLOCK_N)
        if WIDE:
            ahead = ahead.to(tl.int64)
        filters, start, exists = filters_ahead(begin, ahead, sizes, VECTOR, ALIGN, NATURAL, BLOCKED)
        exists = exists & (ahead < count)
        left = tl.load(
            source[:, None] + filters[None, :] * grad_c,
            mask=real[:, None] & exists[None, :],
            other=0.0,
        )
        right = weight_tile(weight, filters, start, exists, channel, inside, sizes, VECTOR, False)
        total = add_product(total, left, right, weight, EXACT, PRECISION)
    target = out + pixels_at(m, plane, row, (out_n, out_h, out_w), EVEN, FLAT)
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
    BLOCKED: tl.constexpr,
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Write, or add by ATOMIC, the share of one part of the pixels of the gradient by the weight.

    One program: BLOCK_N filters, BLOCK_C channels of their union, one part. Every entry of a part
    [C_out (w + 1)] belongs to one program, so that no two programs write the same place. The
    programs of the first channels also sum the gradient by the bias.
    """
    sizes = (in_channels, out_channels, window, step, unit, distinct, share, inverse)
    NATURAL: tl.constexpr = ORDER == "natural"
    lanes = out_channels if NATURAL else distinct * share
    tiles = tl.cdiv(lanes, BLOCK_N)
    first = tl.program_id(0) % tiles * BLOCK_N
    c = tl.program_id(0) // tiles * BLOCK_C
    part = tl.program_id(1)
    if WIDE:
        part = part.to(tl.int64)
    base, length = union_of(first, sizes, BLOCK_N, VECTOR, NATURAL, BLOCKED)
    if c < length:
        index = first + tl.arange(0, BLOCK_N)
        if WIDE:
            index = index.to(tl.int64)
        filters, start, exists = filters_at(index, sizes, VECTOR, NATURAL, BLOCKED)
        position = c + tl.arange(0, BLOCK_C)
        if WIDE:
            position = position.to(tl.int64)
        inside = position < length
        channel = wrapped(base + position, in_channels, VECTOR)
        span = tl.cdiv(tl.cdiv(pixels, BLOCK_M), parts) * BLOCK_M
        lowest = part * span
        highest = tl.minimum(lowest + span, pixels)
        offset = 0 if ATOMIC else part * (out_channels * (window + 1))
        lefts = (grad, grad_c, (grad_n, grad_h, grad_w), filters, exists)
        rights = (x, x_c, (x_n, x_h, x_w), channel, inside)
        area = (lowest, highest, plane, row)
        total = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
        if c == 0:
            total, sums = _products(
                total, lefts, rights, area, BLOCK_M, EVEN, FLAT, WIDE, True, PRECISION, EXACT
            )
            if ATOMIC:
                tl.atomic_add(by_bias + filters, sums, mask=exists)
            else:
                tl.store(by_bias + offset + filters, sums, mask=exists)
        else:
            total, _ = _products(
                total, lefts, rights, area, BLOCK_M, EVEN, FLAT, WIDE, False, PRECISION, EXACT
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
    total,
    lefts,
    rights,
    area,
    BLOCK_M: tl.constexpr,
    EVEN: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Return total with the products of grad and x added over an area, and grad's sums by SUM.

    `lefts`, of grad, and `rights`, of x: pointer, stride of channels, strides of pixels, channels,
    and which of them exist. `area`: pixels lowest ... highest - 1, H W and W.
    """
    grad, grad_c, grad_strides, filters, exists = lefts
    x, x_c, x_strides, channel, inside = rights
    lowest, highest, plane, row = area
    sums = tl.zeros((filters.shape[0],), tl.float32)
    for start in range(lowest, highest, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        if WIDE:
            m = m.to(tl.int64)
        real = m < highest
        above = pixels_at(m, plane, row, grad_strides, EVEN, FLAT)
        below = pixels_at(m, plane, row, x_strides, EVEN, FLAT)
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
        total = add_product(total, left, right, x, EXACT, PRECISION)
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
    BLOCKED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Write the sum of the parts [parts, C_out window + C_out], always in the same order.

    From filled windows to true ones: by_weight is [C_out, width], by_bias [C_out].
    """
    entry = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    # One output channel is a constant to the compiler, and no tensor.
    outputs = tl.full((), out_channels, tl.int64)
    weights = outputs * width
    filters = entry // width
    windows = in_channels, out_channels, step, distinct
    within = _index_within(filters, entry % width, windows, VECTOR, BLOCKED, False)
    every = outputs * (window + 1)
    source = tl.where(entry < weights, filters * window + within, every - outputs + entry - weights)
    there = entry < weights + outputs
    total = tl.zeros((BLOCK_E,), tl.float32)
    for part in range(0, parts, BLOCK_P):
        row = (part + tl.arange(0, BLOCK_P)).to(tl.int64)
        share = tl.load(
            partial + row[:, None] * every + source[None, :],
            mask=(row < parts)[:, None] & there[None, :],
            other=0.0,
        )
        total += tl.sum(share, 0)
    tl.store(by_weight + entry, total, mask=entry < weights)
    tl.store(by_bias + entry - weights, total, mask=(entry >= weights) & there)


@triton.jit
def pad_kernel(
    weight,
    filled,
    in_channels,
    width,
    window,
    step,
    distinct,
    entries,
    out_channels,
    VECTOR: tl.constexpr,
    BLOCKED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the filled weight [C_out, window] of the true weight [C_out, width]."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    filters = entry // window
    windows = in_channels, out_channels, step, distinct
    within = _index_within(filters, entry % window, windows, VECTOR, BLOCKED, True)
    read = (within < width) & (entry < entries)
    value = tl.load(weight + filters * width + within, mask=read, other=0.0)
    tl.store(filled + entry, value, mask=entry < entries)


@triton.jit
def _index_within(
    filters,
    within,
    windows,
    VECTOR: tl.constexpr,
    BLOCKED: tl.constexpr,
    FILLED: tl.constexpr,
):
    """Return the index in the filled window of weights of the true one, or FILLED: the reverse.

    An index of w or beyond in a true window is outside it.
    """
    in_channels, out_channels, step, distinct = windows
    window = window_of(filters, distinct, out_channels, BLOCKED)
    before = window * step % in_channels % VECTOR
    index = within - before if FILLED else within + before
    return tl.where(
        index < 0, index + in_channels, tl.where(index < in_channels, index, index - in_channels)
    )
