"""The fused DW + RPW block as torch operators: `torch.ops.ifspace.dw_rpw`, `dw_rpw_backward`.

Each has a fake kernel, an autograd formula and a FLOP formula. `impl` names the implementation that
runs; nothing is chosen here. `fused.fused_dw_rpw` is the door for users.

An operator called here directly refuses a tensor with a tangent, and torch.func transforms of it
are refused by torch or, for torch.func.jvp, silently zero: `layer_by_layer` has them all.
"""

from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ifspace.kernels.fused.reference import (
    Gradients,
    activate,
    affine,
    depthwise,
    empty_beside,
)
from ifspace.kernels.fused.spec import (
    KERNEL,
    FusedSpec,
)
from ifspace.kernels.layouts import is_channels_last
from ifspace.kernels.rpw import (
    operator as ops,
)
from ifspace.kernels.rpw import (
    transforms,
)
from ifspace.kernels.windows import windows_at

# Implementation -> the module with its forward and backward; triton is imported when asked for.
IMPLEMENTATIONS: Final = {
    "reference": "ifspace.kernels.fused.reference",
    "triton": "ifspace.kernels.fused.triton",
}
_TENSORS: Final = 7  # x, dw_weight, scale1, shift1, weight, scale2, shift2


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
) -> Tensor:
    """Return y [N, C_out, H_out, W_out] of x [N, C_in, H, W]: see `dw_rpw_reference.forward`.

    Filter j of weight [C_out, w] reads the channels (j step + t) mod C_in, t = 0 ... w - 1.
    """
    spec = _spec(x, weight, step, stride, activation1, activation2)
    tensors = (x, dw_weight, scale1, shift1, weight, scale2, shift2)
    with ops.as_given(*tensors):
        y: Tensor = _implementation(impl).forward(*tensors, spec)
    return _laid_out(y, x)


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of <grad, y> by the seven tensors, an empty one where one is None."""
    spec = _spec(x, weight, step, stride, activation1, activation2)
    tensors = (x, dw_weight, scale1, shift1, weight, scale2, shift2)
    with ops.as_given(*tensors, grad):
        found: Gradients = _implementation(impl).backward(grad, *tensors, spec)
    grad_x, grad_dw, by_scale1, by_shift1, grad_weight, by_scale2, by_shift2 = found
    return (
        _laid_out(grad_x, x),
        grad_dw.contiguous(),
        _or_empty(by_scale1, x),
        _or_empty(by_shift1, x),
        grad_weight,
        _or_empty(by_scale2, x),
        _or_empty(by_shift2, x),
    )


def _implementation(impl: str) -> ModuleType:
    return import_module(IMPLEMENTATIONS[impl])


def _spec(
    x: Tensor, weight: Tensor, step: int, stride: int, first: str | None, second: str | None
) -> FusedSpec:
    table = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step)
    return FusedSpec(table, stride, first, second)


def _laid_out(result: Tensor, x: Tensor) -> Tensor:
    """Return the result in the layout of x: what the fake kernels promise."""
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return result.contiguous(memory_format=layout)


def _or_empty(gradient: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(0) if gradient is None else gradient


def _output_shape(x: Any, channels: Any, stride: int) -> tuple[Any, ...]:
    # Sizes may be symbols here, for which no windows table can be made.
    n, _, height, width = x.shape
    return n, channels, (height + stride - 1) // stride, (width + stride - 1) // stride


@dw_rpw.register_fake
def _dw_rpw_fake(x: Tensor, *rest: Any) -> Tensor:
    weight, stride = rest[3], rest[7]
    return empty_beside(x, _output_shape(x, weight.shape[0], stride))


@dw_rpw_backward.register_fake
def _dw_rpw_backward_fake(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    like = [
        x.new_empty(0) if each is None else each.new_empty(each.shape)
        for each in rest[: _TENSORS - 1]
    ]
    return (empty_beside(x, tuple(x.shape)), *like)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS])
    ctx.numbers = inputs[_TENSORS:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    found = dw_rpw_backward(grad, *tensors, *ctx.numbers)
    return (*_asked_for(found, ctx), *(None for _ in ctx.numbers))


def _keep_twice(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[: _TENSORS + 1])
    ctx.numbers = inputs[_TENSORS + 1 :]


def _backward_twice(ctx: Any, *twice: Tensor) -> tuple[Tensor | None, ...]:
    """The second derivative: autograd of the same layers one after the other."""
    with torch.enable_grad(), ops.as_given(*twice):
        leaves: list[Any] = [
            None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors
        ]
        given = [leaf for leaf in leaves if leaf is not None]
        y = layer_by_layer(*leaves[1:], *ctx.numbers)
        once = torch.autograd.grad(y, given[1:], given[0], create_graph=True)
        seeds = [t for t, leaf in zip(twice, leaves[1:], strict=True) if leaf is not None]
        found = iter(torch.autograd.grad(once, given, seeds, allow_unused=True))
    result = [None if leaf is None else next(found) for leaf in leaves]
    return (*result, *(None for _ in ctx.numbers))


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
) -> Tensor:
    """Return what `dw_rpw` does, from operators that can be differentiated any number of times."""
    middle = affine(depthwise(x, dw_weight, stride), scale1, shift1)
    mixed = transforms.rpw(activate(middle, activation1), weight, None, step, impl)
    return activate(affine(mixed, scale2, shift2), activation2)


def _asked_for(found: tuple[Tensor, ...], ctx: Any) -> tuple[Tensor | None, ...]:
    asked = ctx.needs_input_grad[:_TENSORS]
    return tuple(each if wanted else None for each, wanted in zip(found, asked, strict=True))


dw_rpw.register_autograd(_backward, setup_context=_keep)
dw_rpw_backward.register_autograd(_backward_twice, setup_context=_keep_twice)


def _flops(x: Any, weight: Any, out: Any) -> int:
    """Return twice the multiply-accumulates: 9 C_in + C_out w of each output pixel."""
    n, _, height, width = out
    return int(2 * n * height * width * (KERNEL * KERNEL * x[1] + prod(weight)))


@register_flop_formula(torch.ops.ifspace.dw_rpw)
def _forward_flops(
    x: Any, _dw: Any, _scale: Any, _shift: Any, weight: Any, *_: Any, out_shape: Any, **__: Any
) -> int:
    return _flops(x, weight, out_shape)


@register_flop_formula(torch.ops.ifspace.dw_rpw_backward)
def _backward_flops(
    grad: Any, x: Any, _dw: Any, _scale: Any, _shift: Any, weight: Any, *_: Any, **__: Any
) -> int:
    # The work of the layer: what is computed again to save memory is not counted.
    return 2 * _flops(x, weight, grad)
