"""RPW as torch operators: `torch.ops.ifspace.rpw`, `rpw_input_grad` and `rpw_weight_grad`.

Each has a fake kernel, an autograd formula made of the other two (so any order of derivative is
there), and a FLOP formula. `impl` names the implementation that runs; nothing is chosen here.
`functional.rolling_pointwise_conv2d` is the door for users.

An operator called here directly has no forward-mode derivative: it refuses a tensor with a tangent.
Under torch.func it takes vmap only: a reverse transform is refused by torch, and torch.func.jvp is
silently zero. `transforms.rpw` has them all.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ifspace.errors import KernelError
from ifspace.kernels.checks import is_autocast, shape_of
from ifspace.kernels.layouts import empty_like
from ifspace.kernels.windows import windows_at

# Implementation -> the module with its forward, input_grad and weight_grad.
IMPLEMENTATIONS: Final = {
    "reference": "ifspace.kernels.rpw.reference",
    "cpu": "ifspace.kernels.rpw.cpu",
    "triton": "ifspace.kernels.rpw.triton",
}


def implementation(impl: str) -> ModuleType:
    """Return the module that runs an implementation; triton is imported when first asked for."""
    return import_module(IMPLEMENTATIONS[impl])


def check_images(impl: str, **shapes: tuple[Tensor | None, tuple[int, ...]]) -> None:
    """Refuse tensors of other shapes than they must have, -1 for any size, and a name that is none.

    Raises: KernelError.
    """
    if impl not in IMPLEMENTATIONS:
        raise KernelError.because(
            "unknown implementation",
            got=repr(impl),
            allowed=", ".join(IMPLEMENTATIONS),
            remedy="an operator is told which one runs",
            argument="impl",
        )
    for name, (tensor, shape) in shapes.items():
        if tensor is None:
            continue
        if tensor.dim() != len(shape) or any(
            wanted != -1 and size != wanted
            for size, wanted in zip(tensor.shape, shape, strict=True)
        ):
            raise KernelError.because(
                f"{name} has another shape",
                got=shape_of(tensor),
                allowed=list(shape),
                remedy="-1 is any size",
                argument=name,
            )


def _check_rpw(x: Tensor, weight: Tensor, bias: Tensor | None, impl: str) -> None:
    check_images(
        impl,
        x=(x, (-1,) * 4),
        weight=(weight, (-1, -1)),
        bias=(bias, (weight.shape[0],)),
    )


def _check_input_grad(grad: Tensor, weight: Tensor, impl: str) -> None:
    check_images(impl, weight=(weight, (-1, -1)), grad=(grad, (-1, weight.shape[0], -1, -1)))


def _check_weight_grad(grad: Tensor, x: Tensor, impl: str) -> None:
    check_images(impl, grad=(grad, (-1,) * 4))
    n, _, height, width = grad.shape
    check_images(impl, x=(x, (n, -1, height, width)))


@torch.library.custom_op("ifspace::rpw", mutates_args=())
def rpw(x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str) -> Tensor:
    """Return y [N, C_out, H, W] of x [N, C_in, H, W], weight [C_out, w] and bias [C_out].

    Filter j reads the channels (j step + t) mod C_in, t = 0 ... w - 1.
    """
    _check_rpw(x, weight, bias, impl)
    table = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step)
    with as_given(x, weight, bias):
        y: Tensor = implementation(impl).forward(x, weight, bias, table)
    return y


@torch.library.custom_op("ifspace::rpw_input_grad", mutates_args=())
def rpw_input_grad(grad: Tensor, weight: Tensor, in_channels: int, step: int, impl: str) -> Tensor:
    """Return the gradient by x [N, C_in, H, W], of grad [N, C_out, H, W] and weight [C_out, w]."""
    _check_input_grad(grad, weight, impl)
    table = windows_at(in_channels, weight.shape[0], weight.shape[1], step)
    with as_given(grad, weight):
        grad_x: Tensor = implementation(impl).input_grad(grad, weight, table)
    return grad_x


@torch.library.custom_op("ifspace::rpw_weight_grad", mutates_args=())
def rpw_weight_grad(
    grad: Tensor, x: Tensor, width: int, step: int, with_bias: bool, impl: str
) -> tuple[Tensor, Tensor]:
    """Return the gradients by weight [C_out, w] and bias [C_out], of grad and x.

    The second is empty unless `with_bias`: on a CPU it costs a pass over grad.
    """
    _check_weight_grad(grad, x, impl)
    table = windows_at(x.shape[1], grad.shape[1], width, step)
    with as_given(grad, x):
        both: tuple[Tensor, Tensor] = implementation(impl).weight_grad(grad, x, table, with_bias)
    return both


def as_given(x: Tensor, *rest: Tensor | None) -> AbstractContextManager[Any]:
    """Return the context in which types stay as they are: autocast has had its say before.

    Raises: KernelError for a tensor with a tangent, whose derivative would be lost here.
    """
    if is_dual(x) or any(is_dual(tensor) for tensor in rest):
        raise KernelError.because(
            "an operator has no forward-mode derivative",
            got="a tensor with a tangent",
            allowed="tensors without one",
            remedy="call ifspace.kernels.rpw.functional or fused, under no compiler, "
            "forward and backward inside the dual level",
        )
    return torch.autocast(x.device.type, enabled=False) if is_autocast(x) else nullcontext()


def is_dual(tensor: Tensor | None) -> bool:
    """Return whether a tensor carries a tangent of the open dual level."""
    unpack: Callable[[Tensor], Any] = forward_ad.unpack_dual
    return tensor is not None and unpack(tensor).tangent is not None


@rpw.register_fake
def _rpw_fake(x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str) -> Tensor:
    _check_rpw(x, weight, bias, impl)
    return empty_like(x, weight.shape[0])


@rpw_input_grad.register_fake
def _rpw_input_grad_fake(
    grad: Tensor, weight: Tensor, in_channels: int, step: int, impl: str
) -> Tensor:
    _check_input_grad(grad, weight, impl)
    return empty_like(grad, in_channels)


@rpw_weight_grad.register_fake
def _rpw_weight_grad_fake(
    grad: Tensor, x: Tensor, width: int, step: int, with_bias: bool, impl: str
) -> tuple[Tensor, Tensor]:
    _check_weight_grad(grad, x, impl)
    channels = grad.shape[1]
    return grad.new_empty(channels, width), grad.new_empty(channels if with_bias else 0)


class Trio(NamedTuple):
    """The three operators in one of their forms: what their derivatives are made of."""

    rpw: Callable[..., Tensor]
    input_grad: Callable[..., Tensor]
    weight_grad: Callable[..., tuple[Tensor, Tensor]]


_PLAIN: Final = Trio(rpw, rpw_input_grad, rpw_weight_grad)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Save the tensors that an operator's derivatives read, and its numbers."""
    first, second, *rest = inputs
    ctx.save_for_backward(first, second)
    ctx.step, ctx.impl = rest[1], rest[-1]
    ctx.with_bias = rest[-2]


def rpw_backward(ctx: Any, grad: Tensor, by: Trio = _PLAIN) -> tuple[Tensor | None, ...]:
    """Return the gradients of `rpw` by its five arguments, computed by a trio."""
    x, weight = ctx.saved_tensors
    by_x, by_weight, by_bias = ctx.needs_input_grad[:3]
    grad_x = grad_weight = grad_bias = None
    if by_x:
        grad_x = by.input_grad(grad, weight, x.shape[1], ctx.step, ctx.impl)
    if by_weight:
        grad_weight, grad_bias = by.weight_grad(
            grad, x, weight.shape[1], ctx.step, by_bias, ctx.impl
        )
    elif by_bias:
        grad_bias = grad.sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias if by_bias else None, None, None


def rpw_input_grad_backward(
    ctx: Any, twice: Tensor, by: Trio = _PLAIN
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `rpw_input_grad` by its five arguments, computed by a trio."""
    grad, weight = ctx.saved_tensors
    by_grad, by_weight = ctx.needs_input_grad[:2]
    grad_grad = grad_weight = None
    if by_grad:
        grad_grad = by.rpw(twice, weight, None, ctx.step, ctx.impl)
    if by_weight:
        grad_weight, _ = by.weight_grad(grad, twice, weight.shape[1], ctx.step, False, ctx.impl)
    return grad_grad, grad_weight, None, None, None


def rpw_weight_grad_backward(
    ctx: Any, twice: Tensor, twice_bias: Tensor, by: Trio = _PLAIN
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `rpw_weight_grad` by its six arguments, computed by a trio."""
    grad, x = ctx.saved_tensors
    by_grad, by_x = ctx.needs_input_grad[:2]
    grad_grad = grad_x = None
    if by_grad:
        grad_grad = by.rpw(x, twice, twice_bias if ctx.with_bias else None, ctx.step, ctx.impl)
    if by_x:
        grad_x = by.input_grad(grad, twice, x.shape[1], ctx.step, ctx.impl)
    return grad_grad, grad_x, None, None, None, None


rpw.register_autograd(rpw_backward, setup_context=keep)
rpw_input_grad.register_autograd(rpw_input_grad_backward, setup_context=keep)
rpw_weight_grad.register_autograd(rpw_weight_grad_backward, setup_context=keep)


def _batched(operator: Callable[..., Any], merges: bool) -> Callable[..., Any]:
    """Return the vmap rule of an operator.

    With `merges` a batch of first arguments alone is one longer N; else each is run by itself.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *given: Any) -> Any:
        if merges and not any(dim is not None for dim in in_dims[1:]):
            first = given[0].movedim(in_dims[0], 0)
            merged = operator(first.flatten(0, 1), *given[1:])
            return merged.unflatten(0, first.shape[:2]), 0
        found = [
            operator(
                *(
                    each if dim is None else each.select(dim, n)
                    for each, dim in zip(given, in_dims, strict=True)
                )
            )
            for n in range(info.batch_size)
        ]
        if isinstance(found[0], Tensor):
            return torch.stack(found), 0
        return tuple(torch.stack(each) for each in zip(*found, strict=True)), (0, 0)

    return rule


rpw.register_vmap(_batched(rpw, merges=True))
rpw_input_grad.register_vmap(_batched(rpw_input_grad, merges=True))
rpw_weight_grad.register_vmap(_batched(rpw_weight_grad, merges=False))
