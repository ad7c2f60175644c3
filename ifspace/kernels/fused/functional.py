"""A depthwise 3x3 convolution and an RPW behind it as one function of tensors.

Reference: [3DRF] section 4.2, whose block DW+RPW this is.
"""

from numbers import Rational
from typing import Any, Final

import torch
from torch import Tensor

from ifspace.errors import KernelError
from ifspace.kernels.checks import check_alike, check_input, check_tensors, is_autocast, shape_of
from ifspace.kernels.fused import operator as dw_rpw_ops
from ifspace.kernels.fused.spec import (
    KERNEL,
    check_options,
)
from ifspace.kernels.rpw import transforms
from ifspace.kernels.rpw.functional import (
    check_runs,
    choose_implementation,
    step_of,
)

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
    `choose_fused`. What is named runs, or DeviceError is raised. Only a second derivative, a
    forward-mode derivative and a transform of torch.func are taken of the two layers one after the
    other.

    >>> x, dw_weight, weight = torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3), torch.ones(6, 2)
    >>> fused_dw_rpw(x, dw_weight, weight, 2, 0.5, stride=2, activation1="relu").shape
    torch.Size([1, 6, 3, 3])

    Raises: KernelError for what is no tensor, shapes, types or devices that do not fit, another
        stride or activation, groups that do not divide C_in or an overlap outside 0 <= o < 1;
        DeviceError for an implementation that cannot run where x is. Both before anything runs.

    Reference: [3DRF] section 4.2.
    """
    tensors = {
        "x": x,
        "dw_weight": dw_weight,
        "scale1": scale1,
        "shift1": shift1,
        "weight": weight,
        "scale2": scale2,
        "shift2": shift2,
    }
    check_tensors(tensors, optional=frozenset({"scale1", "shift1", "scale2", "shift2"}))
    check_input(x)
    step = step_of(x.shape[1], groups, overlap)
    check_options(stride, activation1, activation2)
    _check_shapes(tensors, x.shape[1], x.shape[1] // groups)
    check_alike(tensors)
    chosen = choose_fused(x, impl)
    given: list[Any] = list(tensors.values())
    if is_autocast(x) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        given = [None if each is None else each.to(dtype) for each in given]
    numbers: Any = step, stride, activation1, activation2, chosen
    if transforms.transforming(*given):
        return dw_rpw_ops.layer_by_layer(*given, *numbers)
    y: Tensor = dw_rpw_ops.dw_rpw(*given, *numbers)
    return y


def choose_fused(x: Tensor, impl: str = "auto") -> str:
    """Return which implementation runs for x: what is asked for, or for "auto" what is there.

    "auto" is "triton" on CUDA for float16, bfloat16 and float32, and "reference" anywhere else: on
    a CPU the two layers one after the other, by `nn`, may be faster than either.

    >>> choose_fused(torch.ones(1, 4, 2, 2))
    'reference'

    Raises: KernelError for a name that is none or an x that is no tensor; DeviceError for an
        implementation that cannot run where x is.
    """
    if impl not in IMPLEMENTATIONS:
        raise KernelError.because(
            "unknown implementation",
            got=repr(impl),
            allowed=", ".join(IMPLEMENTATIONS),
            remedy="leave it at auto",
            argument="impl",
        )
    check_tensors({"x": x})
    if impl == "auto":
        return "reference" if x.device.type == "cpu" else choose_implementation(x)
    check_runs(x, impl, IMPLEMENTATIONS)
    return impl


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
                f"{name} does not fit the input",
                got=f"{name} {shape_of(tensor)}",
                allowed=f"{name} [{', '.join(map(str, shape))}]",
                remedy=f"x has {in_channels} channels, a window {width}",
                argument=name,
            )
