"""Launches of the kernels of the fused DW + RPW block: what they are told, and their tiles.

`tensors` everywhere: arguments of a kernel by name; what is None is compiled away. Nothing but the
tensors' own pointers and integers goes to the device.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import torch
import triton
from torch import Tensor

from ifspace.kernels.fused.configs import (
    configurations,
    run_best,
)
from ifspace.kernels.fused.reference import FusedSpec
from ifspace.kernels.fused.triton_kernels import (
    forward_kernel,
    middle_grad_kernel,
    weight_grad_kernel,
)
from ifspace.kernels.launch import interprets, is_wide, kind_of, precision_of
from ifspace.kernels.rpw.configs import Config
from ifspace.kernels.rpw.tiles import (
    longest_union,
    numbers,
    places,
    vector_of,
)

Tensors = Mapping[str, Tensor | None]
# Programs of the weight gradient that fill a large card: 4 for each of 132 multiprocessors.
_PROGRAMS: Final = 528


@dataclass(frozen=True, slots=True)
class FusedLaunch:
    """A kernel with all its arguments but those that follow from the tile, which `complete` gives.

    `complete(config)` returns the grid, the arguments that are left, and the float32 sums over
    pixels, a row for each part, that the kernel fills.
    """

    kernel: str
    function: Any
    x: Tensor
    spec: FusedSpec
    arguments: dict[str, Any]
    complete: Callable[..., tuple[tuple[int, ...], dict[str, Any], tuple[Tensor | None, ...]]]

    @property
    def fit(self) -> tuple[Config, ...]:
        """The configurations that it may run under."""
        kind = kind_of(self.x.dtype, self.arguments["PRECISION"])
        return configurations(self.kernel, kind, not self.arguments["PIXELS_LAST"])

    def everything(
        self, config: Config
    ) -> tuple[tuple[int, ...], dict[str, Any], tuple[Tensor | None, ...]]:
        """Return as `complete` does, with all arguments and constants."""
        grid, more, parts = self.complete(config)
        # Stages of loads are made of unrolled taps.
        unrolled = config.stages > 1 and self.function is forward_kernel
        constants = {**config.constants(), "UNROLLED": unrolled}
        return grid, {**self.arguments, **more, **constants}, parts

    def run(self, config: str | None) -> tuple[Tensor | None, ...]:
        """Run under a configuration by name, or the best; return the sums over pixels."""

        def run_under(config: Config) -> tuple[Tensor | None, ...]:
            grid, everything, parts = self.everything(config)
            self.function[grid](**everything, **config.options())
            return tuple(None if each is None else each.sum(0) for each in parts)

        given = (each for each in self.arguments.values() if isinstance(each, Tensor))
        looks = tuple((tuple(each.shape), each.stride()) for each in given)
        device = self.x.device
        problem = (looks, self.x.dtype, device.index, self.spec)
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            sums: tuple[Tensor | None, ...] = run_best(self.fit, problem, run_under, config)
        return sums


def forward_launch(
    x: Tensor, tensors: Tensors, grad: Tensor | None, y: Tensor, spec: FusedSpec, fp32: str | None
) -> FusedLaunch:
    """Return the launch that fills y, or where there is a grad: y with it before activation2.

    `tensors`: dw_weight, scale1, shift1, a weight filled up to whole vectors, scale2, shift2.
    """
    arguments = _arguments(x, {**tensors, "grad": grad, "y": y}, spec, fp32)
    arguments |= {"ACTIVATION2": spec.activation2, **_strides("grad", y if grad is None else grad)}

    def complete(config: Config) -> Any:
        across = triton.cdiv(places(spec.windows, config.order), config.filters)
        return (triton.cdiv(arguments["pixels"], config.pixels) * across,), {}, ()

    return FusedLaunch(
        "forward" if grad is None else "before", forward_kernel, x, spec, arguments, complete
    )


def weight_grad_launch(
    x: Tensor, tensors: Tensors, grad: Tensor, spec: FusedSpec, fp32: str | None
) -> FusedLaunch:
    """Return the launch whose sums are those of grad times what RPW reads, and of grad.

    `tensors`: dw_weight, scale1, shift1. grad [N, C_out, H_out, W_out] is by the output of the
    second affine; the sums are [C_out, w] and [C_out].
    """
    table = spec.windows
    arguments = {**_arguments(x, {**tensors, "grad": grad}, spec, fp32), "reads": table.width}

    def complete(config: Config) -> Any:
        span = triton.cdiv(arguments["pixels"], config.pixels)
        tiles = triton.cdiv(places(table, config.order), config.filters) * triton.cdiv(
            longest_union(table, config.filters, config.order), config.channels
        )
        parts = max(1, min(span, (3 if interprets() else _PROGRAMS) // tiles))
        sums = tuple(
            torch.empty((parts, *shape), dtype=torch.float32, device=x.device)
            for shape in ((table.out_channels, table.width), (table.out_channels,))
        )
        return (tiles, parts), {"span": span, "partial": sums[0], "partial_shift": sums[1]}, sums

    return FusedLaunch("weight_grad", weight_grad_kernel, x, spec, arguments, complete)


def middle_grad_launch(
    x: Tensor, tensors: Tensors, grad: Tensor, out: Tensor, spec: FusedSpec, fp32: str | None
) -> FusedLaunch:
    """Return the launch that fills `out` with the gradient by the depthwise convolution's output.

    `tensors`: dw_weight, scale1, shift1, and a weight with scale2 in it, filled up. The sums
    are the gradients [C_in] by scale1 and shift1, None where these are.
    """
    arguments = _arguments(x, {**tensors, "grad": grad, "out": out}, spec, fp32)
    wanted = [tensors[name] is not None for name in ("scale1", "shift1")]

    def complete(config: Config) -> Any:
        shape = (triton.cdiv(arguments["pixels"], config.pixels), x.shape[1])
        sums = tuple(
            torch.empty(shape, dtype=torch.float32, device=x.device) if asked else None
            for asked in wanted
        )
        grid = (shape[0] * triton.cdiv(x.shape[1], config.channels),)
        return grid, {"partial_scale": sums[0], "partial_shift": sums[1]}, sums

    return FusedLaunch("middle_grad", middle_grad_kernel, x, spec, arguments, complete)


def _arguments(x: Tensor, tensors: Tensors, spec: FusedSpec, fp32: str | None) -> dict[str, Any]:
    """Return what every kernel is told: tensors, strides, sizes, windows, constants."""
    shape = spec.middle_shape(tuple(x.shape))
    found: dict[str, Any] = {"x": x, **tensors}
    # A tap may point a row before an image; that is masked, and takes no wider integer.
    wide = is_wide({**found, "pixels": max(prod(x.shape) // x.shape[1], 0)}, spec.windows)
    for name in ("x", "grad", "y", "out"):
        tensor = found.get(name)
        if tensor is not None:
            found |= _strides(name, tensor)
    found |= {
        "pixels": shape[0] * shape[2] * shape[3],
        "height": x.shape[2],
        "width": x.shape[3],
        "out_height": shape[2],
        "out_width": shape[3],
        **numbers(spec.windows),
        "STRIDE": spec.stride,
        "ACTIVATION1": spec.activation1,
        "VECTOR": vector_of(spec.windows),
        "PIXELS_LAST": x.stride(1) != 1,
        "WIDE": wide,
        # The interpreter has no bfloat16 products.
        "EXACT": interprets() and x.dtype == torch.bfloat16,
        "PRECISION": precision_of(x.dtype, fp32),
    }
    return found


def _strides(name: str, tensor: Tensor) -> dict[str, int]:
    return dict(zip((f"{name}_{axis}" for axis in "nchw"), tensor.stride(), strict=True))
