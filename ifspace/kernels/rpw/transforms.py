"""RPW under forward-mode differentiation and the transforms of torch.func.

A torch operator has no forward-mode formula, and its autograd formula is closed to torch.func. Each
of the three operators of `ops` is therefore here a second time, as a torch.autograd.Function: all
are bilinear, so the derivatives of one, either way, are made of the three. `rpw` takes these only
where one is needed: an operator is quicker, and torch.compile refuses a forward-mode formula.
"""

from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import conv2d

from ifspace.errors import KernelError
from ifspace.kernels.rpw import operator as ops


def transforming(*tensors: Tensor | None) -> bool:
    """Return whether a torch.func transform is active or a tensor carries a tangent.

    While a compiler traces, tangents are not looked for.
    """
    # torch.func has no public question for this; torch.autograd.Function asks the same.
    active: bool = torch._C._are_functorch_transforms_active()
    if active or torch.compiler.is_compiling():
        return active
    return any(ops.is_dual(tensor) for tensor in tensors)


def rpw(x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str) -> Tensor:
    """Return `ops.rpw`, open to forward mode and torch.func.

    Exact to any order, in any nesting of jvp, vjp, grad, jacfwd, jacrev, hessian and vmap. Forward
    mode inside forward mode, and a transform that torch.compile traces, take torch's own dense
    convolution in place of `impl`: it is right, and slower. A tensor with a tangent given to
    compiled code is refused by torch.

    >>> x, weight = torch.ones(1, 4, 1, 1), torch.ones(2, 2)
    >>> f = lambda x: rpw(x, weight, None, 2, "cpu").sum()
    >>> torch.func.grad(f)(x).flatten()
    tensor([1., 1., 1., 1.])
    """
    y: Tensor
    if not transforming(x, weight, bias):
        y = ops.rpw(x, weight, bias, step, impl)
    elif torch.compiler.is_compiling() or _forward_modes() > 1:
        y = _dense(x, weight, bias, step)
    else:
        y = _FUNCTIONS.rpw(x, weight, bias, step, impl)
    return y


def _dense(x: Tensor, weight: Tensor, bias: Tensor | None, step: int) -> Tensor:
    """Return the same of operators of torch alone; a traced size may be a symbol."""
    filters, width = weight.shape
    starts = step * torch.arange(filters, device=x.device)[:, None]
    channels = (starts + torch.arange(width, device=x.device)) % x.shape[1]
    dense = weight.new_zeros(filters, x.shape[1]).scatter(1, channels, weight)
    return conv2d(x, dense[:, :, None, None], bias)


def _forward_modes() -> int:
    """Return how many jvp of torch.func are one inside the other here."""
    stack = torch._C._functorch.get_interpreter_stack() or []
    return sum(each.key() == torch._C._functorch.TransformType.Jvp for each in stack)


class _Rpw(Function):
    """`ops.rpw`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any, step: int, impl: str) -> Any:
        return ops.rpw(x, weight, bias, step, impl)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return ops.rpw_backward(ctx, grad, _FUNCTIONS)

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any, *_: Any) -> Any:
        x, weight = _saved(ctx)
        by_x = by_weight = None
        if dx is not None:
            by_x = _FUNCTIONS.rpw(dx, weight, None, ctx.step, ctx.impl)
        if dweight is not None or dbias is not None:
            dweight = torch.zeros_like(weight) if dweight is None else dweight
            by_weight = _FUNCTIONS.rpw(x, dweight, dbias, ctx.step, ctx.impl)
        return _sum(by_x, by_weight)


class _RpwInputGrad(Function):
    """`ops.rpw_input_grad`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Any, weight: Any, in_channels: int, step: int, impl: str) -> Any:
        return ops.rpw_input_grad(grad, weight, in_channels, step, impl)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs, output)
        ctx.in_channels = inputs[2]

    @staticmethod
    def backward(ctx: Any, twice: Tensor) -> Any:
        return ops.rpw_input_grad_backward(ctx, twice, _FUNCTIONS)

    @staticmethod
    def jvp(ctx: Any, dgrad: Any, dweight: Any, *_: Any) -> Any:
        grad, weight = _saved(ctx)
        numbers = ctx.in_channels, ctx.step, ctx.impl
        return _sum(
            None if dgrad is None else _FUNCTIONS.input_grad(dgrad, weight, *numbers),
            None if dweight is None else _FUNCTIONS.input_grad(grad, dweight, *numbers),
        )


class _RpwWeightGrad(Function):
    """`ops.rpw_weight_grad`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Any, x: Any, width: int, step: int, with_bias: bool, impl: str) -> Any:
        return ops.rpw_weight_grad(grad, x, width, step, with_bias, impl)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs, output)
        ctx.width = inputs[2]

    @staticmethod
    def backward(ctx: Any, twice: Tensor, twice_bias: Tensor) -> Any:
        return ops.rpw_weight_grad_backward(ctx, twice, twice_bias, _FUNCTIONS)

    @staticmethod
    def jvp(ctx: Any, dgrad: Any, dx: Any, *_: Any) -> Any:
        grad, x = _saved(ctx)
        by_grad = by_bias = by_x = None
        if dgrad is not None:
            by_grad, by_bias = _FUNCTIONS.weight_grad(
                dgrad, x, ctx.width, ctx.step, ctx.with_bias, ctx.impl
            )
        if dx is not None:
            by_x, _none = _FUNCTIONS.weight_grad(grad, dx, ctx.width, ctx.step, False, ctx.impl)
        if by_bias is None:
            by_bias = grad.new_zeros(grad.shape[1] if ctx.with_bias else 0)
        return _sum(by_grad, by_x), by_bias


_FUNCTIONS: Final = ops.Trio(
    *(cast(Any, form).apply for form in (_Rpw, _RpwInputGrad, _RpwWeightGrad))
)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ops.keep(ctx, inputs, output)
    ctx.save_for_forward(*inputs[:2])


def _saved(ctx: Any) -> tuple[Tensor, Tensor]:
    """Return the saved tensors, for a forward-mode formula inside no other.

    torch gives a torch.autograd.Function no forward mode inside forward mode: a zero comes out.
    """
    if _forward_modes() > 1:
        raise KernelError.because(
            "forward mode inside forward mode is not there for RPW",
            got="jvp or jacfwd of another",
            allowed="one forward mode, around or inside any number of reverse ones",
            remedy="call torch.func.vjp inside both, or take one of the two by jacrev",
        )
    first, second = ctx.saved_tensors
    return first, second


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
