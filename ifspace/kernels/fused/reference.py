"""The fused DW + RPW block in eager PyTorch: the semantics that its kernels are tested against.

`forward` is differentiable by autograd. `backward` writes out the same derivatives, because an
operator's own code runs below autograd.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from ifspace.kernels.fused.spec import (
    KERNEL,
    FusedSpec,
)
from ifspace.kernels.layouts import is_channels_last
from ifspace.kernels.rpw import reference

# Of x, dw_weight, scale1, shift1, weight, scale2 and shift2: None where the input is None.
Gradients = tuple[
    Tensor, Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor | None
]


def forward(
    x: Tensor,
    dw_weight: Tensor,
    scale1: Tensor | None,
    shift1: Tensor | None,
    weight: Tensor,
    scale2: Tensor | None,
    shift2: Tensor | None,
    spec: FusedSpec,
) -> Tensor:
    """Return y [N, C_out, H_out, W_out] of x [N, C_in, H, W].

    dw_weight is [C_in, 1, 3, 3], weight [C_out, w]; scale1 and shift1 are [C_in], scale2 and
    shift2 [C_out], or None.
    """
    spread = depthwise(x, dw_weight, spec.stride)
    middle = activate(affine(spread, scale1, shift1), spec.activation1)
    mixed = reference.forward(middle, weight, None, spec.windows)
    return activate(affine(mixed, scale2, shift2), spec.activation2)


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
) -> Gradients:
    """Return the gradients of <grad, y> by each of the seven tensors, for grad shaped as y."""
    spread = depthwise(x, dw_weight, spec.stride)
    before1 = affine(spread, scale1, shift1)
    middle = activate(before1, spec.activation1)
    mixed = reference.forward(middle, weight, None, spec.windows)
    before2 = affine(mixed, scale2, shift2)

    grad = grad * slope(before2, spec.activation2)
    grad_mixed, grad_scale2, grad_shift2 = _affine_backward(grad, mixed, scale2, shift2)
    grad_weight, _ = reference.weight_grad(grad_mixed, middle, spec.windows)
    grad_middle = reference.input_grad(grad_mixed, weight, spec.windows)
    grad1 = grad_middle * slope(before1, spec.activation1)
    grad_spread, grad_scale1, grad_shift1 = _affine_backward(grad1, spread, scale1, shift1)
    grad_x, grad_dw = depthwise_backward(grad_spread, x, dw_weight, spec.stride)
    return grad_x, grad_dw, grad_scale1, grad_shift1, grad_weight, grad_scale2, grad_shift2


def empty_beside(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return an unfilled tensor of a 4-D shape in the layout, type and place of x."""
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def depthwise(x: Tensor, dw_weight: Tensor, stride: int) -> Tensor:
    """Return the depthwise 3x3 convolution [N, C, H_out, W_out] of x, padding 1."""
    if 0 in x.shape:  # torch refuses a kernel larger than an empty picture
        return x[:, :, ::stride, ::stride] * dw_weight[:, 0, :1, :1]
    return torch_functional.conv2d(x, dw_weight, None, stride, KERNEL // 2, groups=x.shape[1])


def depthwise_backward(
    grad: Tensor, x: Tensor, dw_weight: Tensor, stride: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the depthwise convolution by x and by its weight, by torch's own."""
    if 0 in x.shape:
        return torch.zeros_like(x), torch.zeros_like(dw_weight)
    padding, dilation, no_padding = [KERNEL // 2] * 2, [1, 1], [0, 0]
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        x,
        dw_weight,
        None,
        [stride] * 2,
        padding,
        dilation,
        False,
        no_padding,
        x.shape[1],
        [True, True, False],
    )
    return grad_x, grad_weight


def affine(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """Return scale * x + shift by channel, for x [N, C, H, W]."""
    scaled = x if scale is None else x * scale[:, None, None]
    return scaled if shift is None else scaled + shift[:, None, None]


def activate(x: Tensor, activation: str | None) -> Tensor:
    """Return the activation of x."""
    if activation is None:
        return x
    function: Any = getattr(torch_functional, activation)
    result: Tensor = function(x)
    return result


def slope(x: Tensor, activation: str | None) -> Tensor | int:
    """Return the derivative of the activation at x; at a kink it is 0, as in torch."""
    if activation == "relu":
        return (x > 0).to(x.dtype)
    if activation == "relu6":
        return ((x > 0) & (x < 6)).to(x.dtype)
    if activation == "silu":
        gate = torch.sigmoid(x)
        return gate * (1 + x * (1 - gate))
    return 1


def _affine_backward(
    grad: Tensor, x: Tensor, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of `affine` by x, scale and shift."""
    grad_x = grad if scale is None else grad * scale[:, None, None]
    grad_scale = None if scale is None else (grad * x).sum((0, 2, 3))
    return grad_x, grad_scale, None if shift is None else grad.sum((0, 2, 3))
