"""The fused DW + RPW block in eager PyTorch: the semantics that its kernels are tested against.

`forward` is differentiable by autograd. `backward` writes out the same derivatives, because an
operator's own code runs below autograd.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from ifspace.errors import KernelError
from ifspace.kernels.flops import dw_rpw_macs
from ifspace.kernels.rpw import reference
from ifspace.kernels.windows import Windows

KERNEL: Final = 3
ACTIVATIONS: Final = (None, "relu", "relu6", "silu")
STRIDES: Final = (1, 2)
# Of x, dw_weight, scale1, shift1, weight, scale2 and shift2: None where the input is None.
Gradients = tuple[
    Tensor, Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor | None
]


@dataclass(frozen=True, slots=True)
class FusedSpec:
    """A depthwise 3x3 convolution with its affine and activation, then an RPW with its own.

    y = activation2(scale2 * rpw(activation1(scale1 * dw(x) + shift1)) + shift2): the padding is 1,
    the stride is that of the depthwise convolution. An affine is a folded batch norm, and optional.

    >>> from ifspace.kernels.windows import windows_of
    >>> spec = FusedSpec(windows_of(16, 8, groups=4, overlap=0.5), stride=2, activation1="relu")
    >>> spec.output_shape((4, 16, 7, 1)), spec.macs((4, 16, 7, 1))
    ((4, 8, 4, 1), 2816)

    Raises: KernelError for another stride or activation.
    """

    windows: Windows
    stride: int = 1
    activation1: str | None = None
    activation2: str | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.stride, self.activation1, self.activation2)

    def middle_shape(self, x_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the shape [N, C_in, H_out, W_out] between the two convolutions."""
        n, channels, height, width = x_shape
        return n, channels, -(-height // self.stride), -(-width // self.stride)

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the shape [N, C_out, H_out, W_out] of y."""
        n, _, height, width = self.middle_shape(x_shape)
        return n, self.windows.out_channels, height, width

    def macs(self, x_shape: tuple[int, ...]) -> int:
        """Return the multiply-accumulates of a forward pass, 9 C_in + C_out w per output pixel."""
        return dw_rpw_macs(self.output_shape(x_shape), x_shape[1], self.windows.params)


def check_options(stride: int, activation1: str | None, activation2: str | None) -> None:
    """Check the options of the block.

    Raises: KernelError for another stride or activation.
    """
    if type(stride) is not int or stride not in STRIDES:
        raise KernelError.because(
            "stride out of range",
            got=repr(stride),
            allowed="1 or 2",
            remedy="pool before the block for a larger one",
            argument="stride",
        )
    for name, activation in (("activation1", activation1), ("activation2", activation2)):
        if activation not in ACTIVATIONS:
            raise KernelError.because(
                f"unknown {name}",
                got=repr(activation),
                allowed=", ".join(map(str, ACTIVATIONS)),
                remedy="choose one of them",
                argument=name,
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
