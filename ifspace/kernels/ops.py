"""RPW as torch operators: `torch.ops.ifspace.rpw`, `rpw_input_grad` and `rpw_weight_grad`.

Each has a fake kernel, an autograd formula made of the other two (so any order of derivative is
there), and a FLOP formula. `impl` names the implementation that runs; nothing is chosen here.
`functional.rolling_pointwise_conv2d` is the door for users.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor

from ifspace.kernels.layouts import empty_like
from ifspace.kernels.windows import windows_at

# Implementation -> the module with its forward, input_grad and weight_grad.
IMPLEMENTATIONS: Final = {
    "reference": "ifspace.kernels.reference",
    "cpu": "ifspace.kernels.cpu",
    "triton": "ifspace.kernels.rpw",
}


def implementation(impl: str) -> ModuleType:
    """Return the module that runs an implementation; triton is imported when first asked for."""
    return import_module(IMPLEMENTATIONS[impl])


@torch.library.custom_op("ifspace::rpw", mutates_args=())
def rpw(x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str) -> Tensor:
    """Return y [N, C_out, H, W] of x [N, C_in, H, W], weight [C_out, w] and bias [C_out].

    Filter j reads the channels (j step + t) mod C_in, t = 0 ... w - 1.
    """
    table = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step)
    with _as_given(x):
        y: Tensor = implementation(impl).forward(x, weight, bias, table)
    return y


@torch.library.custom_op("ifspace::rpw_input_grad", mutates_args=())
def rpw_input_grad(
    grad: Tensor, weight: Tensor, in_channels: int, step: int, impl: str
) -> Tensor:  # fmt: skip
    """Return the gradient by x [N, C_in, H, W], of grad [N, C_out, H, W] and weight [C_out, w]."""
    table = windows_at(in_channels, weight.shape[0], weight.shape[1], step)
    with _as_given(grad):
        grad_x: Tensor = implementation(impl).input_grad(grad, weight, table)
    return grad_x


@torch.library.custom_op("ifspace::rpw_weight_grad", mutates_args=())
def rpw_weight_grad(
    grad: Tensor, x: Tensor, width: int, step: int, with_bias: bool, impl: str
) -> tuple[Tensor, Tensor]:
    """Return the gradients by weight [C_out, w] and bias [C_out], of grad and x.

    The second is empty unless `with_bias`: on a CPU it costs a pass over grad.
    """
    table = windows_at(x.shape[1], grad.shape[1], width, step)
    with _as_given(grad):
        both: tuple[Tensor, Tensor] = implementation(impl).weight_grad(grad, x, table, with_bias)
    return both


def _as_given(x: Tensor) -> AbstractContextManager[Any]:
    # Autocast has had its say before the operator; inside, types stay as they are.
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


@rpw.register_fake
def _rpw_fake(x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str) -> Tensor:
    return empty_like(x, weight.shape[0])


@rpw_input_grad.register_fake
def _rpw_input_grad_fake(
    grad: Tensor, weight: Tensor, in_channels: int, step: int, impl: str
) -> Tensor:  # fmt: skip
    return empty_like(grad, in_channels)


@rpw_weight_grad.register_fake
def _rpw_weight_grad_fake(
    grad: Tensor, x: Tensor, width: int, step: int, with_bias: bool, impl: str
) -> tuple[Tensor, Tensor]:
    channels = grad.shape[1]
    return grad.new_empty(channels, width), grad.new_empty(channels if with_bias else 0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Save the tensors that an operator's derivatives read, and its numbers."""
    first, second, *rest = inputs
    ctx.save_for_backward(first, second)
    ctx.step, ctx.impl = rest[1], rest[-1]
    ctx.with_bias = rest[-2]


def _rpw_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    by_x, by_weight, by_bias = ctx.needs_input_grad[:3]
    grad_x = grad_weight = grad_bias = None
    if by_x:
        grad_x = rpw_input_grad(grad, weight, x.shape[1], ctx.step, ctx.impl)
    if by_weight:
        grad_weight, grad_bias = rpw_weight_grad(
            grad, x, weight.shape[1], ctx.step, by_bias, ctx.impl
        )
    elif by_bias:
        grad_bias = grad.sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias if by_bias else None, None, None


def _rpw_input_grad_backward(ctx: Any, twice: Tensor) -> tuple[Tensor | None, ...]:
    grad, weight = ctx.saved_tensors
    by_grad, by_weight = ctx.needs_input_grad[:2]
    grad_grad = grad_weight = None
    if by_grad:
        grad_grad = rpw(twice, weight, None, ctx.step, ctx.impl)
    if by_weight:
        grad_weight, _ = rpw_weight_grad(grad, twice, weight.shape[1], ctx.step, False, ctx.impl)
    return grad_grad, grad_weight, None, None, None


def _rpw_weight_grad_backward(
    ctx: Any, twice: Tensor, twice_bias: Tensor
) -> tuple[Tensor | None, ...]:
    grad, x = ctx.saved_tensors
    by_grad, by_x = ctx.needs_input_grad[:2]
    grad_grad = grad_x = None
    if by_grad:
        grad_grad = rpw(x, twice, twice_bias if ctx.with_bias else None, ctx.step, ctx.impl)
    if by_x:
        grad_x = rpw_input_grad(grad, twice, x.shape[1], ctx.step, ctx.impl)
    return grad_grad, grad_x, None, None, None, None


rpw.register_autograd(_rpw_backward, setup_context=_keep)
rpw_input_grad.register_autograd(_rpw_input_grad_backward, setup_context=_keep)
rpw_weight_grad.register_autograd(_rpw_weight_grad_backward, setup_context=_keep)

Operator = Callable[..., Any]
OPERATORS: Final[tuple[Operator, ...]] = (rpw, rpw_input_grad, rpw_weight_grad)
