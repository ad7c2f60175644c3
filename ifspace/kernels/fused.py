"""A depthwise 3x3 convolution and an RPW behind it as one function of tensors.

Reference: [3DRF] section 4.2, whose block DW+RPW this is.
"""

from numbers import Rational
from typing import Final

import torch
from torch import Tensor

from ifspace.errors import KernelError
from ifspace.kernels import dw_rpw_ops
from ifspace.kernels.dw_rpw_spec import KERNEL, check_options
from ifspace.kernels.functional import choose_implementation, step_of

IMPLEMENTATIONS: Final = ("auto", *dw_rpw_ops.IMPLEMENTATIONS)


def fused_dw_rpw(
    x: Tensor,
    dw_weight: Tensor,
    weight: Tensor,
    groups: int = 1,
    overlap: float | str | Rational = 0,
    *,
    scale1: Tensor | None = None,
    shift1: Tensor | None = None,
    scale2: Tensor | None = None,
    shift2: Tensor | None = None,
    stride: int = 1,
    activation1: str | None = None,
    activation2: str | None = None,
    impl: str = "auto",
) -> Tensor:
    """Return y [N, C_out, ceil(H / stride), ceil(W / stride)] of x [N, C_in, H, W].

    y = activation2(scale2 * rpw(activation1(scale1 * dw(x) + shift1)) + shift2), where dw is the
    depthwise 3x3 convolution with padding 1 and a stride of 1 or 2, and rpw the rolling pointwise
    convolution of `functional.rolling_pointwise_conv2d`. Shapes: dw_weight [C_in, 1, 3, 3]; weight
    [C_out, C_in / groups]; scale1, shift1 [C_in] and scale2, shift2 [C_out] or None: a batch norm
    folded, or a bias. Activations: None, "relu", "relu6" or "silu". y is channels_last when x is.

    `impl`: "reference" (eager, any device), "triton" (CUDA: one kernel, the tensor between the
    convolutions is never written; a backward pass computes it again), or "auto": see
    `choose_fused`. What is named runs, or DeviceError is raised. Only a second derivative is
    taken of the two layers one after the other.

    >>> x, dw_weight, weight = torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3), torch.ones(6, 2)
    >>> fused_dw_rpw(x, dw_weight, weight, 2, 0.5, stride=2, activation1="relu").shape
    torch.Size([1, 6, 3, 3])

    Raises: KernelError for shapes, types or devices that do not fit, another stride or activation,
        groups that do not divide C_in or an overlap outside 0 <= o < 1; DeviceError for an
        implementation that cannot run where x is. Both before anything runs.

    Reference: [3DRF] section 4.2.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise KernelError.because(
            "input is not 4-D and floating", got=f"{_shape(x)} of {x.dtype}",
            allowed="[N, C_in, H, W] of a floating type", remedy="reshape or convert it",
            argument="x",
        )  # fmt: skip
    step = step_of(x.shape[1], groups, overlap)
    check_options(stride, activation1, activation2)
    tensors = {
        "x": x, "dw_weight": dw_weight, "scale1": scale1, "shift1": shift1, "weight": weight,
        "scale2": scale2, "shift2": shift2,
    }  # fmt: skip
    _check_shapes(tensors, x.shape[1], x.shape[1] // groups)
    _check_alike(tensors)
    chosen = choose_fused(x, impl)
    given = list(tensors.values())
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        given = [None if each is None else each.to(dtype) for each in given]
    y: Tensor = dw_rpw_ops.dw_rpw(*given, step, stride, activation1, activation2, chosen)
    return y


def choose_fused(x: Tensor, impl: str = "auto") -> str:
    """Return which implementation runs for x: what is asked for, or for "auto" what is there.

    "auto" is "triton" on CUDA for float16, bfloat16 and float32, and "reference" anywhere else: on
    a CPU the two layers one after the other, by `nn`, may be faster than either.

    >>> choose_fused(torch.ones(1, 4, 2, 2))
    'reference'

    Raises: KernelError for a name that is none; DeviceError for an implementation that cannot run
        where x is.
    """
    if impl not in IMPLEMENTATIONS:
        raise KernelError.because(
            "unknown implementation", got=repr(impl), allowed=", ".join(IMPLEMENTATIONS),
            remedy="leave it at auto", argument="impl",
        )  # fmt: skip
    if impl == "auto" and x.device.type == "cpu":
        return "reference"
    return choose_implementation(x, impl)


def _check_shapes(tensors: dict[str, Tensor | None], in_channels: int, width: int) -> None:
    """Refuse tensors whose shapes do not fit x and the windows."""
    weight = tensors["weight"]
    out_channels = weight.shape[0] if weight is not None and weight.dim() == 2 else "C_out"
    allowed: dict[str, list[int | str]] = {
        "dw_weight": [in_channels, 1, KERNEL, KERNEL],
        "weight": [out_channels, width],
        "scale1": [in_channels],
        "shift1": [in_channels],
        "scale2": [out_channels],
        "shift2": [out_channels],
    }
    for name, shape in allowed.items():
        tensor = tensors[name]
        if tensor is not None and list(tensor.shape) != shape:
            raise KernelError.because(
                f"{name} does not fit the input", got=f"{name} {_shape(tensor)}",
                allowed=f"{name} [{', '.join(map(str, shape))}]",
                remedy=f"x has {in_channels} channels, a window {width}", argument=name,
            )  # fmt: skip


def _check_alike(tensors: dict[str, Tensor | None]) -> None:
    """Refuse tensors on several devices, and of several types outside autocast."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    devices = {name: str(tensor.device) for name, tensor in given.items()}
    if len(set(devices.values())) > 1:
        raise KernelError.because(
            "tensors on several devices", got=_listed(devices), allowed="one device",
            remedy="move them with .to(x.device)",
        )  # fmt: skip
    dtypes = {name: str(tensor.dtype) for name, tensor in given.items()}
    if len(set(dtypes.values())) > 1 and not torch.is_autocast_enabled(given["x"].device.type):
        raise KernelError.because(
            "tensors of several types", got=_listed(dtypes), allowed="one type, or autocast",
            remedy="convert them with .to(x.dtype)",
        )  # fmt: skip


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _listed(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {fact}" for name, fact in facts.items())
