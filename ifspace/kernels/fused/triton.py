"""The fused DW + RPW block in Triton: one kernel forwards, three backwards.

The tensor between the two convolutions never goes to memory; its gradient does, once. The semantics
are `dw_rpw_reference`. These kernels follow torch's float32 matmul precision; they take no float64.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from ifspace.kernels.aot import AotCase, specialised
from ifspace.kernels.fused.configs import check_pins
from ifspace.kernels.fused.launch import (
    FusedLaunch,
    forward_launch,
    middle_grad_launch,
    weight_grad_launch,
)
from ifspace.kernels.fused.reference import (
    FusedSpec,
    Gradients,
    depthwise_backward,
)
from ifspace.kernels.launch import check_runnable
from ifspace.kernels.rpw.triton import filled
from ifspace.kernels.tensors import empty_in_layout
from ifspace.kernels.windows import windows_of

# The names of configurations by kernel (`dw_rpw_configs.KERNELS`), to use instead of the fastest.
Pins = Mapping[str, str]
# Overlap, channels_last, type and float32 precision: at 1/2 windows start at whole vectors.
_AOT_PROBLEMS: Final = (
    ("1/2", True, torch.bfloat16, None),
    ("0.33", False, torch.bfloat16, None),
    ("0.33", True, torch.float32, "tf32"),
    ("0.33", False, torch.float32, "ieee"),
)


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
    shift2 [C_out], or None; all of one type (float16, bfloat16 or float32) and on one device. y
    is channels_last when x is; `out` takes it where it is given. `fp32`: "tf32" or "ieee"
    products of float32, by default as torch.backends.cuda.matmul says.

    Raises: DeviceError where Triton cannot run, or for float64; KernelError for a precision or a
        configuration that does not exist.
    """
    check_runnable(x)
    check_pins(configs)
    y = empty_in_layout(x, spec.output_shape(tuple(x.shape))) if out is None else out
    if y.numel() and x.numel():
        tensors = {
            **_first(dw_weight, scale1, shift1),
            "weight": filled(weight, spec.windows),
            "scale2": _dense(scale2),
            "shift2": _dense(shift2),
        }
        forward_launch(x, tensors, None, y, spec, fp32).run((configs or {}).get("forward"))
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

    What lies between the convolutions is recomputed from x. With an activation2, so is what lies
    before it: the forward kernel runs once more and writes the gradient there in place of y.
    Saving y would not do instead (SiLU cannot be undone, nor scale2 = 0) and what lies before
    it would be one more tensor kept from every forward pass; without an activation2 nothing runs,
    because the gradient by scale2 is the sum of weight times the gradient by (scale2 weight).

    Raises: as `forward`.
    """
    check_runnable(x)
    check_pins(configs)
    given = (x, dw_weight, scale1, shift1, weight, scale2, shift2)
    if grad.numel() == 0 or x.numel() == 0:
        zeros = [None if each is None else torch.zeros_like(each) for each in given]
        return tuple(zeros)  # type: ignore[return-value]
    pins = configs or {}
    first = _first(dw_weight, scale1, shift1)
    weight = weight.contiguous()
    if spec.activation2 is not None:
        before = empty_in_layout(x, tuple(grad.shape))
        tensors = {
            **first,
            "weight": filled(weight, spec.windows),
            "scale2": _dense(scale2),
            "shift2": _dense(shift2),
        }
        forward_launch(x, tensors, grad, before, spec, fp32).run(pins.get("before"))
        grad = before

    sums = weight_grad_launch(x, first, grad, spec, fp32).run(pins.get("weight_grad"))
    grad_weight, grad_scale2, folded = _by_weight(sums[0], weight, scale2)

    spread = empty_in_layout(x, spec.middle_shape(tuple(x.shape)))
    tensors = {**first, "weight": filled(folded, spec.windows)}
    by_scale1, by_shift1 = middle_grad_launch(x, tensors, grad, spread, spec, fp32).run(
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
        None if shift2 is None else _cast(sums[1], x),
    )


def aot_cases() -> tuple[AotCase, ...]:
    """Return what must compile: every configuration, in both layouts and alignments of windows."""
    return tuple(
        specialised(
            launch.function,
            launch.everything(config)[1],
            kernel=f"dw_rpw.{launch.kernel}",
            config=config.name,
            problem=problem,
            warps=config.warps,
            stages=config.stages,
            targets=config.targets,
        )
        for overlap, channels_last, dtype, fp32 in _AOT_PROBLEMS
        for problem, launch in _launches(overlap, channels_last, dtype, fp32)
        for config in launch.fit
    )


def _launches(
    overlap: str, channels_last: bool, dtype: torch.dtype, fp32: str | None
) -> list[tuple[str, FusedLaunch]]:
    """Return a problem in words and the launches of all kernels on tensors without storage."""
    spec = FusedSpec(windows_of(256, 256, 4, overlap), 1, "relu6", "silu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.empty(128, 256, 28, 28, dtype=dtype, device="meta", memory_format=layout)
    y = empty_in_layout(x, spec.output_shape(tuple(x.shape)))
    vector, weight = x.new_empty(256), x.new_empty(256, 64)
    first = _first(x.new_empty(256, 1, 3, 3), vector, vector)
    all_of = {**first, "weight": weight, "scale2": vector, "shift2": vector}
    words = (
        f"C=256 g=4 o={overlap} {'channels_last' if channels_last else 'NCHW'} {dtype} {fp32 or ''}"
    )
    launches = (
        forward_launch(x, all_of, None, y, spec, fp32),
        forward_launch(x, all_of, y, y, spec, fp32),
        weight_grad_launch(x, first, y, spec, fp32),
        middle_grad_launch(x, {**first, "weight": weight}, y, y, spec, fp32),
    )
    return [(words.strip(), launch) for launch in launches]


def _by_weight(
    product: Tensor | None, weight: Tensor, scale2: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the gradients by weight and scale2, and the weight [C_out, w] with scale2 in it.

    `product` is the gradient by scale2 * weight.
    """
    assert product is not None  # of this kernel both sums are always wanted
    if scale2 is None:
        return product.to(weight.dtype), None, weight
    wide, factor = weight.float(), scale2.float()[:, None]
    by_scale = (product * wide).sum(1).to(weight.dtype)
    return (product * factor).to(weight.dtype), by_scale, (wide * factor).to(weight.dtype)


def _first(
    dw_weight: Tensor, scale1: Tensor | None, shift1: Tensor | None
) -> dict[str, Tensor | None]:
    return {"dw_weight": dw_weight.contiguous(), "scale1": _dense(scale1), "shift1": _dense(shift1)}


def _dense(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.contiguous()


def _cast(vector: Tensor | None, like: Tensor) -> Tensor | None:
    return None if vector is None else vector.to(like.dtype)
