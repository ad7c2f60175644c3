"""The fused DW + RPW block: the public function, and the torch operators beneath it.

`torch.ops.ifspace.dw_rpw` and `dw_rpw_backward` have a fake kernel, an autograd formula and a FLOP
formula each. `impl` names the implementation that runs; an operator chooses nothing.

An operator called here directly raises for a tensor with a tangent, and torch.func transforms of it
are refused by torch or, for torch.func.jvp, silently zero: `layer_by_layer` has them all. It is an
implementation too, "layers": on an H200 in bfloat16 DW then RPW took a quarter of the one kernel's
time (results/bench/nvidia-h200.md), which "auto" therefore leaves to float32.

Reference: [3DRF] section 4.2, whose block DW+RPW this is.
"""

from numbers import Rational
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ifspace.errors import KernelError
from ifspace.kernels.flops import dw_rpw_macs
from ifspace.kernels.fused import reference
from ifspace.kernels.fused.reference import (
    KERNEL,
    FusedSpec,
    Gradients,
    activate,
    affine,
    check_options,
    depthwise,
)
from ifspace.kernels.rpw.operator import (
    check_runs,
    choose_implementation,
    is_transforming,
    own_dtypes,
    step_of,
    transformable,
)
from ifspace.kernels.tensors import (
    check_alike,
    check_input,
    check_tensors,
    empty_in_layout,
    is_autocast,
    memory_format,
    shape_text,
)
from ifspace.kernels.windows import BLOCKED, ROLLING, check_order, windows_at

IMPLEMENTATIONS: Final = ("auto", "reference", "triton", "layers")
_HALF: Final = (torch.float16, torch.bfloat16)
_OPTIONAL: Final = frozenset({"scale1", "shift1", "scale2", "shift2"})
_TENSORS: Final = 7  # x, dw_weight, scale1, shift1, weight, scale2, shift2


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
    order: str = ROLLING,
) -> Tensor:
    """Return y [N, C_out, ceil(H / stride), ceil(W / stride)] of x [N, C_in, H, W].

    y = activation2(scale2 * rpw(activation1(scale1 * dw(x) + shift1)) + shift2), where dw is the
    depthwise 3x3 convolution with padding 1 and a stride of 1 or 2, and rpw the rolling pointwise
    convolution of `rolling_pointwise_conv2d`, of its `order`. Shapes: dw_weight [C_in, 1, 3, 3];
    weight [C_out, C_in / groups]; scale1, shift1 [C_in] and scale2, shift2 [C_out] or None: a
    folded batch norm, or a bias. Activations: None, "relu", "relu6" or "silu". y is channels_last
    when x is.

    `impl`: "reference" (eager, any device), "triton" (CUDA: one kernel, the tensor between the
    convolutions is never written; a backward pass computes it again), "layers" (torch's depthwise
    convolution, then the fastest RPW of the device), or "auto": see `choose_fused`. An
    implementation that is named runs, or DeviceError is raised. Only a second derivative, a
    forward-mode derivative and a transform of torch.func are always computed layer by layer.

    >>> x, dw_weight, weight = torch.ones(1, 4, 5, 5), torch.ones(4, 1, 3, 3), torch.ones(6, 2)
    >>> fused_dw_rpw(x, dw_weight, weight, 2, 0.5, stride=2, activation1="relu").shape
    torch.Size([1, 6, 3, 3])

    Raises: KernelError for arguments that are no tensors, shapes, dtypes or devices that do not
        fit, another stride or activation, groups that do not divide C_in, an overlap outside
        0 <= o < 1, an unknown order or blocked order with fewer filters than windows; DeviceError
        for an implementation that cannot run on the device of x. Both before anything runs.

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
    check_tensors(tensors, optional=_OPTIONAL)
    check_input(x)
    step = step_of(x.shape[1], groups, overlap)
    check_options(stride, activation1, activation2)
    _check_shapes(tensors, x.shape[1], x.shape[1] // groups)
    check_order(order)
    if order == BLOCKED and not torch.compiler.is_compiling():
        windows_at(x.shape[1], weight.shape[0], weight.shape[1], step, order)
    check_alike(tensors)
    impl = choose_fused(x, impl)
    arguments: list[Any] = list(tensors.values())
    if is_autocast(x):
        dtype = _computed_dtype(x)
        arguments = [None if tensor is None else tensor.to(dtype) for tensor in arguments]
    of_rpw = choose_implementation(x) if impl == "layers" else impl
    options: Any = step, stride, activation1, activation2, of_rpw, order
    if is_transforming(*arguments):
        return layer_by_layer(*arguments, *options)
    if impl == "layers":
        return layer_by_layer(*arguments, *options).contiguous(memory_format=memory_format(x))
    y: Tensor = dw_rpw(*arguments, *options)
    return y


def choose_fused(x: Tensor, impl: str = "auto") -> str:
    """Return the name of the implementation that runs for x: `impl`, or for "auto" what is there.

    On CUDA "auto" is "layers" for float16 and bfloat16, autocast's too: there, on an H200, DW then
    RPW took a quarter of the one kernel's time (results/bench/nvidia-h200.md). It is "triton" for
    float32, which was not timed, and "reference" anywhere else: on a CPU the two layers one after
    the other, by `ifspace.nn`, may be faster than either.

    >>> choose_fused(torch.ones(1, 4, 2, 2))
    'reference'

    Raises: KernelError for an unknown name or an x that is no tensor; DeviceError for an
        implementation that cannot run on the device of x.
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
        if x.device.type == "cpu":
            return "reference"
        if x.device.type == "cuda" and _computed_dtype(x) in _HALF:
            return "layers"
        return choose_implementation(x)
    check_runs(x, impl, IMPLEMENTATIONS)
    return impl


def _computed_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which x is computed: that of autocast, which leaves float64 alone."""
    if is_autocast(x) and x.dtype != torch.float64:
        dtype: torch.dtype = torch.get_autocast_dtype(x.device.type)
        return dtype
    return x.dtype


def _check_shapes(tensors: dict[str, Tensor | None], in_channels: int, width: int) -> None:
    """Check that the parameters fit x and the windows."""
    weight = tensors["weight"]
    out_channels = weight.shape[0] if weight is not None and weight.dim() == 2 else "C_out"
    shapes: dict[str, list[int | str]] = {
        "dw_weight": [in_channels, 1, KERNEL, KERNEL],
        "weight": [out_channels, width],
        "scale1": [in_channels],
        "shift1": [in_channels],
        "scale2": [out_channels],
        "shift2": [out_channels],
    }
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor is not None and list(tensor.shape) != shape:
            raise KernelError.because(
                f"{name} does not fit the input",
                got=f"{name} {shape_text(tensor)}",
                allowed=f"{name} [{', '.join(map(str, shape))}]",
                remedy=f"x has {in_channels} channels, a window {width}",
                argument=name,
            )


# ---- the two operators


def implementation(impl: str) -> ModuleType:
    """Return the module that runs an implementation: its forward and backward.

    Triton is imported when it is first needed.
    """
    if impl == "reference":
        return reference
    from ifspace.kernels.fused import triton

    return triton


@torch.library.custom_op("ifspace::dw_rpw", mutates_args=())
def dw_rpw(
    x: Tensor,
    dw_weight: Tensor,
    scale1: Tensor | None,
    shift1: Tensor | None,
    weight: Tensor,
    scale2: Tensor | None,
    shift2: Tensor | None,
    step: int,
    stride: int,
    activation1: str | None,
    activation2: str | None,
    impl: str,
    order: str = ROLLING,
) -> Tensor:
    """Return y [N, C_out, H_out, W_out] of x [N, C_in, H, W]: see `reference.forward`.

    Window p of weight [C_out, w] is the channels (p step + t) mod C_in, t = 0 ... w - 1; `order`
    says which one a filter reads.
    """
    spec = _spec(x, weight, step, order, stride, activation1, activation2)
    tensors = (x, dw_weight, scale1, shift1, weight, scale2, shift2)
    with own_dtypes(*tensors):
        y: Tensor = implementation(impl).forward(*tensors, spec)
    return y.contiguous(memory_format=memory_format(x))  # as the fake kernel promises


@torch.library.custom_op("ifspace::dw_rpw_backward", mutates_args=())
def dw_rpw_backward(
    grad: Tensor,
    x: Tensor,
    dw_weight: Tensor,
    scale1: Tensor | None,
    shift1: Tensor | None,
    weight: Tensor,
    scale2: Tensor | None,
    shift2: Tensor | None,
    step: int,
    stride: int,
    activation1: str | None,
    activation2: str | None,
    impl: str,
    order: str = ROLLING,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of <grad, y> by the seven tensors, an empty one where one is None."""
    spec = _spec(x, weight, step, order, stride, activation1, activation2)
    tensors = (x, dw_weight, scale1, shift1, weight, scale2, shift2)
    with own_dtypes(*tensors, grad):
        gradients: Gradients = implementation(impl).backward(grad, *tensors, spec)
    grad_x, grad_dw, by_scale1, by_shift1, grad_weight, by_scale2, by_shift2 = gradients
    return (
        grad_x.contiguous(memory_format=memory_format(x)),
        grad_dw.contiguous(),
        _or_empty(by_scale1, x),
        _or_empty(by_shift1, x),
        grad_weight,
        _or_empty(by_scale2, x),
        _or_empty(by_shift2, x),
    )


def _spec(
    x: Tensor,
    weight: Tensor,
    step: int,
    order: str,
    stride: int,
    first: str | None,
    second: str | None,
) -> FusedSpec:
    windows = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step, order)
    return FusedSpec(windows, stride, first, second)


def _or_empty(gradient: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(0) if gradient is None else gradient


@dw_rpw.register_fake
def _dw_rpw_fake(x: Tensor, *rest: Any) -> Tensor:
    weight, stride = rest[3], rest[7]
    n, _, height, width = x.shape
    # Sizes may be symbols here, for which no windows table can be made.
    middle = (height + stride - 1) // stride, (width + stride - 1) // stride
    return empty_in_layout(x, (n, weight.shape[0], *middle))


@dw_rpw_backward.register_fake
def _dw_rpw_backward_fake(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    gradients = [
        x.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape)
        for tensor in rest[: _TENSORS - 1]
    ]
    return (empty_in_layout(x, tuple(x.shape)), *gradients)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS])
    ctx.options = inputs[_TENSORS:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = dw_rpw_backward(grad, *ctx.saved_tensors, *ctx.options)
    needed = (
        gradient if is_needed else None
        for gradient, is_needed in zip(gradients, ctx.needs_input_grad[:_TENSORS], strict=True)
    )
    return (*needed, *(None for _ in ctx.options))


def _save_twice(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[: _TENSORS + 1])
    ctx.options = inputs[_TENSORS + 1 :]


def _backward_twice(ctx: Any, *twice: Tensor) -> tuple[Tensor | None, ...]:
    """Return the second derivative, by autograd of the same layers one after the other."""
    with torch.enable_grad(), own_dtypes(*twice):
        leaves: list[Any] = [
            None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors
        ]
        present = [leaf for leaf in leaves if leaf is not None]
        y = layer_by_layer(*leaves[1:], *ctx.options)
        once = torch.autograd.grad(y, present[1:], present[0], create_graph=True)
        seeds = [t for t, leaf in zip(twice, leaves[1:], strict=True) if leaf is not None]
        gradients = iter(torch.autograd.grad(once, present, seeds, allow_unused=True))
    result = [None if leaf is None else next(gradients) for leaf in leaves]
    return (*result, *(None for _ in ctx.options))


def layer_by_layer(
    x: Any,
    dw_weight: Any,
    scale1: Any,
    shift1: Any,
    weight: Any,
    scale2: Any,
    shift2: Any,
    step: int,
    stride: int,
    activation1: str | None,
    activation2: str | None,
    impl: str,
    order: str = ROLLING,
) -> Tensor:
    """Return the result of `dw_rpw`, from operators that have derivatives of any order."""
    middle = affine(depthwise(x, dw_weight, stride), scale1, shift1)
    mixed = transformable(activate(middle, activation1), weight, None, step, impl, order)
    return activate(affine(mixed, scale2, shift2), activation2)


dw_rpw.register_autograd(_backward, setup_context=_save)
dw_rpw_backward.register_autograd(_backward_twice, setup_context=_save_twice)


# A counter passes the shapes of the tensors; a multiply-accumulate is two operations.
@register_flop_formula(torch.ops.ifspace.dw_rpw)
def _forward_flops(
    x: Any, _dw: Any, _scale: Any, _shift: Any, weight: Any, *_: Any, out_shape: Any, **__: Any
) -> int:
    return 2 * dw_rpw_macs(out_shape, x[1], weight[0] * weight[1])


@register_flop_formula(torch.ops.ifspace.dw_rpw_backward)
def _backward_flops(
    grad: Any, x: Any, _dw: Any, _scale: Any, _shift: Any, weight: Any, *_: Any, **__: Any
) -> int:
    # The work of the layer: recomputation that saves memory is not counted.
    return 2 * 2 * dw_rpw_macs(grad, x[1], weight[0] * weight[1])
