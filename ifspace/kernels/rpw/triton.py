"""The rolling pointwise convolution (RPW) in Triton: forward and both gradients.

A kernel is one matrix product over the union of neighbouring windows: x is read where it lies, its
channels modulo C_in, and never copied or concatenated. float16, bfloat16 and float32 with sums in
float32; no float64. The semantics are those of `reference`.

The functions run on the current stream and may be captured in a CUDA graph; call them once before,
so that the configuration is chosen by timing. `config` names one of `configs.configurations`.
"""

from typing import Any, Final

import torch
import triton
from torch import Tensor

from ifspace.kernels.launch import (
    Launch,
    check_runnable,
    kernel_launch,
    on_device,
    woven_windows,
)
from ifspace.kernels.rpw.tiles import (
    filled_width,
    longest_union,
    needs_filling,
    numbers,
    pad_kernel,
    places,
    vector_of,
)
from ifspace.kernels.rpw.triton_forward import forward_kernel
from ifspace.kernels.rpw.triton_gradients import (
    input_grad_kernel,
    sum_parts_kernel,
    weight_grad_kernel,
)
from ifspace.kernels.tensors import empty_with_channels
from ifspace.kernels.windows import Windows

# Programs of the weight gradient that fill a large card: 4 for each of 132 multiprocessors. The
# number is fixed so that sums are split alike on every device.
_PROGRAMS: Final = 528
_FEWEST_PIXELS: Final = 512  # of one part: fewer are not worth another partial gradient
PAD_BLOCK: Final = 1024
SUM_BLOCKS: Final = {"BLOCK_P": 16, "BLOCK_E": 256}


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

    x may have any strides; y is channels_last when x is, and `out` takes it where it is given.
    `fp32`: "tf32" or "ieee" products of float32, by default as torch.backends.cuda.matmul says.

    Raises: DeviceError for float64 or where Triton cannot run; KernelError for a precision or a
        configuration that does not exist.
    """
    check_runnable(x)
    y = empty_with_channels(x, windows.out_channels) if out is None else out
    if y.numel():
        forward_launch(x, filled(weight, windows), _dense(bias), y, windows, fp32).run(config)
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
        input_grad_launch(grad, filled(weight, windows), by_x, windows, fp32).run(config)
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
    parts = parts_of(grad, windows)
    if not grad.numel():
        by_weight.zero_()
        by_bias.zero_()
    elif parts == 1 and deterministic and not needs_filling(windows):
        weight_grad_launch(grad, x, by_weight, by_bias, windows, fp32, parts).run(config)
    else:
        weights = windows.out_channels * filled_width(windows)
        rows = parts if deterministic else 1
        partial = torch.empty(
            rows, weights + windows.out_channels, dtype=torch.float32, device=grad.device
        )
        shares = partial[:, :weights], partial[:, weights:]
        if not deterministic:
            partial.zero_()
        weight_grad_launch(grad, x, *shares, windows, fp32, parts, not deterministic).run(config)
        sum_parts(partial, by_weight, by_bias, windows)
    return by_weight, by_bias if with_bias else by_bias.new_empty(0)


def parts_of(grad: Tensor, windows: Windows) -> int:
    """Return into how many parts the pixels are split: the same for every configuration."""
    tiles = triton.cdiv(windows.out_channels, 64) * triton.cdiv(
        min(windows.width + 64, windows.in_channels), 64
    )
    pixels = grad.shape[0] * grad.shape[2] * grad.shape[3]
    return max(1, min(_PROGRAMS // int(tiles), -(-pixels // _FEWEST_PIXELS)))


def filled(weight: Tensor, windows: Windows) -> Tensor:
    """Return the weight of the windows filled up to whole vectors: see `tiles`."""
    weight = weight.contiguous()
    if not needs_filling(windows):
        return weight
    window = filled_width(windows)
    result = weight.new_empty(windows.out_channels, window)
    told = numbers(windows)
    with on_device(weight):
        pad_kernel[(triton.cdiv(result.numel(), PAD_BLOCK),)](
            weight,
            result,
            windows.in_channels,
            windows.width,
            window,
            windows.step,
            told["distinct"],
            result.numel(),
            VECTOR=vector_of(windows),
            BLOCK=PAD_BLOCK,
        )
    return result


def sum_parts(partial: Tensor, by_weight: Tensor, by_bias: Tensor, windows: Windows) -> None:
    """Fill the gradients with the sums of their parts [parts, C_out (filled width + 1)]."""
    entries = windows.params + windows.out_channels
    with on_device(partial):
        sum_parts_kernel[(triton.cdiv(entries, SUM_BLOCKS["BLOCK_E"]),)](
            partial,
            by_weight,
            by_bias,
            partial.shape[0],
            windows.in_channels,
            windows.out_channels,
            windows.width,
            filled_width(windows),
            windows.step,
            windows.distinct,
            VECTOR=vector_of(windows),
            **SUM_BLOCKS,
        )


def forward_launch(
    x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, windows: Windows, fp32: str | None
) -> Launch:
    """Return the launch that fills y."""

    def grid(tile: dict[str, Any]) -> tuple[int]:
        across = triton.cdiv(places(windows, tile["ORDER"]), tile["BLOCK_N"])
        return (triton.cdiv(_pixels(x), tile["BLOCK_M"]) * across,)

    return kernel_launch(
        "forward",
        forward_kernel,
        {"x": x, "weight": weight, "bias": bias, "y": y},
        windows,
        fp32,
        grid,
        {"WOVEN": woven_windows(windows)},
    )


def input_grad_launch(
    grad: Tensor, weight: Tensor, out: Tensor, windows: Windows, fp32: str | None
) -> Launch:
    """Return the launch that fills `out` with the gradient by x."""

    def grid(tile: dict[str, Any]) -> tuple[int]:
        across = triton.cdiv(windows.in_channels, tile["BLOCK_C"])
        return (triton.cdiv(_pixels(grad), tile["BLOCK_M"]) * across,)

    return kernel_launch(
        "input_grad",
        input_grad_kernel,
        {"grad": grad, "weight": weight, "out": out},
        windows,
        fp32,
        grid,
        {},
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

    def grid(tile: dict[str, Any]) -> tuple[int, int]:
        tiles = triton.cdiv(places(windows, tile["ORDER"]), tile["BLOCK_N"])
        union = longest_union(windows, tile["BLOCK_N"], tile["ORDER"])
        return (tiles * triton.cdiv(union, tile["BLOCK_C"]), parts)

    return kernel_launch(
        "weight_grad",
        weight_grad_kernel,
        {"grad": grad, "x": x, "by_weight": by_weight, "by_bias": by_bias},
        windows,
        fp32,
        grid,
        {"parts": parts, "ATOMIC": atomic},
    )


def _pixels(image: Tensor) -> int:
    return image.shape[0] * image.shape[2] * image.shape[3]


def _dense(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.contiguous()
