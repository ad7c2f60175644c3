"""Rolling pointwise convolution (RPW): the public function, and the torch operators beneath it.

`rolling_pointwise_conv2d` checks its arguments, chooses an implementation and calls
`torch.ops.ifspace.rpw`. With `rpw_input_grad` and `rpw_weight_grad` there are three operators, each
with a fake kernel, an autograd formula made of the other two (so that derivatives of any order
exist), a vmap rule and a FLOP formula. `impl` names the implementation that runs; an operator
chooses nothing.

A torch operator has no forward-mode formula, and its autograd formula is closed to torch.func: one
that is called here directly raises for a tensor with a tangent; under torch.func it takes vmap
only (a reverse transform is refused by torch, and torch.func.jvp is silently zero). `transformable`
therefore has each operator a second time, as a torch.autograd.Function.

Programs that leave torch (ONNX) get the operator written out: `decompositions`.

Reference: [3DRF] section 4.2.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from numbers import Rational
from types import ModuleType
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.nn.functional import conv2d
from torch.utils.flop_counter import register_flop_formula

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.flops import rpw_macs
from ifspace.kernels.rpw import cpu, reference
from ifspace.kernels.tensors import (
    any_requires_grad,
    check_alike,
    check_input,
    check_tensors,
    empty_with_channels,
    is_autocast,
    is_direct,
    is_watched,
    shape_text,
)
from ifspace.kernels.thin import thin_conv2d
from ifspace.kernels.windows import (
    BLOCKED,
    ROLLING,
    Windows,
    check_order,
    dense_weight,
    is_grouped,
    overlap_ratio,
    windows_at,
    windows_of,
)

IMPLEMENTATIONS: Final = ("auto", "reference", "cpu", "triton")
_TRITON_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32)
_OPTIONAL: Final = frozenset({"bias"})
_NO_CONTEXT: Final = nullcontext()
# How many times the input's channels may be copied side by side by `decompositions`.
_MOST_COPIES: Final = 4


def rolling_pointwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    groups: int = 1,
    overlap: float | str | Rational = 0,
    impl: str = "auto",
    order: str = ROLLING,
) -> Tensor:
    """Return the rolling pointwise convolution y [N, C_out, H, W] of x [N, C_in, H, W].

    Window p is the w = C_in / groups channels (p s + t) mod C_in for t = 0 ... w - 1, with a step
    s = w - floor(overlap w); there are P = C_in / gcd(s, C_in) of them. `order` says which one
    filter j reads: "rolling" window j mod P, "blocked" window floor(j P / C_out), so that
    neighbouring filters share one. y[n, j] = bias[j] + sum over t of weight[j, t] x[n, (p s + t)
    mod C_in]. `weight` is [C_out, w], `bias` [C_out] or None; C_out may be any number, in blocked
    order any from P. The overlap is exact: 0.33 is 33/100. y is channels_last when x is.
    Derivatives of any order exist, in forward and reverse mode, and under the transforms of
    torch.func: see `transformable`.

    `impl`: "reference" (eager, any device), "cpu", "triton" (CUDA), or "auto": see
    `choose_implementation`. An implementation that is named runs, or DeviceError is raised. Blocked
    order without overlap is a grouped convolution where the groups divide C_out: there "auto" is
    torch's own.

    >>> x, weight = torch.ones(1, 4, 2, 2), torch.ones(8, 2)
    >>> rolling_pointwise_conv2d(x, weight, groups=2, overlap=0.5).shape
    torch.Size([1, 8, 2, 2])

    Raises: KernelError for arguments that are no tensors, shapes, dtypes or devices that do not
        fit, groups that do not divide C_in, an overlap outside 0 <= o < 1, an unknown order or
        blocked order with fewer filters than windows; DeviceError for an implementation that cannot
        run on the device of x. Both before anything runs.

    Reference: [3DRF] section 4.2.
    """
    check_tensors({"x": x, "weight": weight, "bias": bias}, optional=_OPTIONAL)
    check_input(x)
    step = step_of(x.shape[1], groups, overlap)
    _check_parameters(x, weight, bias, groups)
    check_order(order)
    if order == BLOCKED and not torch.compiler.is_compiling():
        windows_at(x.shape[1], weight.shape[0], weight.shape[1], step, order)
    return rolling_pointwise_at_step(x, weight, bias, step, impl, order)


def rolling_pointwise_at_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    step: int,
    impl: str = "auto",
    order: str = ROLLING,
) -> Tensor:
    """Return `rolling_pointwise_conv2d` of tensors whose shapes fit, with the step of the windows.

    A module computes the step and the shapes of its parameters once; only what may differ from
    call to call is checked here.

    Raises: KernelError for dtypes or devices that do not fit or an unknown implementation;
        DeviceError for an implementation that cannot run on the device of x.
    """
    if impl in ("auto", "cpu") and is_direct(x, weight, bias):
        windows = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step, order)
        if any_requires_grad(x, weight, bias):
            if windows.is_grouped and cpu.is_grouped_best(x, windows):
                return cpu.grouped(x, weight, bias, windows)
            y: Tensor = _direct(x, weight, bias, step, order)
            return y
        y = implementation("cpu").forward(x, weight, bias, windows)
        return y
    check_alike({"x": x, "weight": weight, "bias": bias})
    if order == BLOCKED and impl == "auto":
        out_channels, width = weight.shape
        groups = x.shape[1] // width
        if is_grouped(width, step, groups, out_channels, order):
            return thin_conv2d(x, weight[:, :, None, None], bias, groups=groups)
    impl = choose_implementation(x, impl)
    if is_autocast(x) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return transformable(x, weight, bias, step, impl, order)


def choose_implementation(x: Tensor, impl: str = "auto") -> str:
    """Return the name of the implementation that runs for x: `impl`, or the fastest for "auto".

    "auto" is "cpu" on a CPU, "triton" on CUDA for float16, bfloat16 and float32, and "reference"
    for float64 there and on any other device.

    >>> choose_implementation(torch.ones(1, 4, 2, 2))
    'cpu'

    Raises: KernelError for an unknown name or an x that is no tensor; DeviceError for an
        implementation that cannot run on the device of x, whether named or chosen by "auto".
    """
    check_tensors({"x": x})
    if impl not in IMPLEMENTATIONS:
        raise KernelError.because(
            "unknown implementation",
            got=repr(impl),
            allowed=", ".join(IMPLEMENTATIONS),
            remedy="leave it at auto",
            argument="impl",
        )
    kind = x.device.type
    if impl == "auto":
        if kind == "cuda":
            impl = "triton" if x.dtype in _TRITON_DTYPES else "reference"
        else:
            impl = "cpu" if kind == "cpu" else "reference"
    check_runs(x, impl, IMPLEMENTATIONS)
    return impl


def check_runs(x: Tensor, impl: str, names: Sequence[str]) -> None:
    """Check that an implementation runs on the device of x; the error lists which `names` do.

    Raises: DeviceError.
    """
    obstacle = _obstacle(x, impl)
    if obstacle is not None:
        fact, got, remedy = obstacle
        allowed = ", ".join(name for name in names if _obstacle(x, name) is None)
        raise DeviceError.because(fact, got=got, allowed=allowed, remedy=remedy)


def _obstacle(x: Tensor, impl: str) -> tuple[str, str, str] | None:
    """Return why an implementation cannot run on the device of x (fact, got, remedy), or None."""
    kind = x.device.type
    if impl == "cpu" and kind != "cpu":
        return (
            "the cpu implementation runs on a CPU only",
            f"a tensor on {x.device}",
            "leave it at auto",
        )
    if impl != "triton":
        return None
    if not _has_triton():
        return (
            "triton is not installed",
            f"impl triton for a tensor on {x.device}",
            "install ifspace[triton] (Linux)",
        )
    if kind not in ("cuda", "meta") and not _interprets():
        return (
            "triton kernels run on CUDA devices",
            f"a tensor on {x.device}",
            "move the tensors to a CUDA device",
        )
    if x.dtype not in _TRITON_DTYPES:
        return "triton kernels do not compute in this type", str(x.dtype), "use impl reference"
    return None


def _is_constant(function: Callable[[], bool]) -> Callable[[], bool]:
    """Mark a function that torch.compile calls once and does not trace into.

    As torch.compiler.assume_constant_result, which imports torch._dynamo: a second, each time that
    a process imports this module.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


# torch.compile does not trace into what looks for packages.
@_is_constant
def _has_triton() -> bool:
    return find_spec("triton") is not None


@_is_constant
def _interprets() -> bool:
    """Return whether Triton was imported under its interpreter, which takes tensors on the CPU."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def step_of(in_channels: int, groups: int, overlap: float | str | Rational) -> int:
    """Return the step s of the windows, also while torch.compile traces.

    Raises: as `windows_of`.
    """
    if not torch.compiler.is_compiling():
        return windows_of(in_channels, 1, groups, overlap).step
    # While a compiler traces, sizes may be symbols: arithmetic only, and no table.
    if groups < 1 or in_channels % groups:
        raise KernelError.because(
            "groups do not divide the input channels",
            got=groups,
            allowed="divisors of C_in",
            remedy="choose a divisor",
            argument="groups",
        )
    numerator, denominator = overlap_ratio(overlap)
    width = in_channels // groups
    return width - numerator * width // denominator


def _check_parameters(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    width = x.shape[1] // groups
    if weight.dim() != 2 or weight.shape[1] != width:
        raise KernelError.because(
            "weight does not fit the input",
            got=f"weight {shape_text(weight)} for x {shape_text(x)} and {groups} groups",
            allowed=f"weight [C_out, {width}]",
            remedy="a filter has C_in / groups weights",
            argument="weight",
        )
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != weight.shape[0]):
        raise KernelError.because(
            "bias does not fit the weight",
            got=f"bias {shape_text(bias)} for weight {shape_text(weight)}",
            allowed=f"bias [{weight.shape[0]}]",
            remedy="give one number for each filter",
            argument="bias",
        )


# ---- the three operators


def implementation(impl: str) -> ModuleType:
    """Return the module that runs an implementation: its forward, input_grad and weight_grad.

    Triton is imported when it is first needed.
    """
    if impl == "cpu":
        return cpu
    if impl == "reference":
        return reference
    from ifspace.kernels.rpw import triton

    return triton


@torch.library.custom_op("ifspace::rpw", mutates_args=())
def rpw(
    x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str, order: str = ROLLING
) -> Tensor:
    """Return y [N, C_out, H, W] of x [N, C_in, H, W], weight [C_out, w] and bias [C_out].

    Window p is the channels (p step + t) mod C_in, t = 0 ... w - 1; `order` says which one a filter
    reads.
    """
    _check_rpw(x, weight, bias, impl)
    windows = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step, order)
    with own_dtypes(x, weight, bias):
        y: Tensor = implementation(impl).forward(x, weight, bias, windows)
    return y


@torch.library.custom_op("ifspace::rpw_input_grad", mutates_args=())
def rpw_input_grad(
    grad: Tensor, weight: Tensor, in_channels: int, step: int, impl: str, order: str = ROLLING
) -> Tensor:
    """Return the gradient [N, C_in, H, W] by x, of grad [N, C_out, H, W] and weight [C_out, w]."""
    _check_input_grad(grad, weight, impl)
    windows = windows_at(in_channels, weight.shape[0], weight.shape[1], step, order)
    with own_dtypes(grad, weight):
        grad_x: Tensor = implementation(impl).input_grad(grad, weight, windows)
    return grad_x


@torch.library.custom_op("ifspace::rpw_weight_grad", mutates_args=())
def rpw_weight_grad(
    grad: Tensor,
    x: Tensor,
    width: int,
    step: int,
    with_bias: bool,
    impl: str,
    order: str = ROLLING,
) -> tuple[Tensor, Tensor]:
    """Return the gradients by weight [C_out, w] and bias [C_out], of grad and x.

    The second is empty unless `with_bias`: on a CPU it costs a pass over grad.
    """
    _check_weight_grad(grad, x, impl)
    windows = windows_at(x.shape[1], grad.shape[1], width, step, order)
    with own_dtypes(grad, x):
        both: tuple[Tensor, Tensor] = implementation(impl).weight_grad(grad, x, windows, with_bias)
    return both


def own_dtypes(x: Tensor, *others: Tensor | None) -> AbstractContextManager[Any]:
    """Return a context without autocast: the public function has converted the tensors before.

    Raises: KernelError for a tensor with a tangent, whose derivative would be lost here.
    """
    if has_tangent(x, *others):
        raise KernelError.because(
            "an operator has no forward-mode derivative",
            got="a tensor with a tangent",
            allowed="tensors without one",
            remedy="call rolling_pointwise_conv2d or fused_dw_rpw, under no compiler, "
            "forward and backward inside the dual level",
        )
    return torch.autocast(x.device.type, enabled=False) if is_autocast(x) else _NO_CONTEXT


def has_tangent(*tensors: Tensor | None) -> bool:
    """Return whether a tensor carries a tangent of the open dual level."""
    # What `unpack_dual` asks first; there is no public question for it.
    if forward_ad._current_level < 0:
        return False
    unpack: Callable[[Tensor], Any] = forward_ad.unpack_dual
    return any(tensor is not None and unpack(tensor).tangent is not None for tensor in tensors)


def _check_rpw(x: Tensor, weight: Tensor, bias: Tensor | None, impl: str) -> None:
    fits = x.dim() == 4 and weight.dim() == 2
    fits = fits and (bias is None or (bias.dim() == 1 and bias.shape[0] == weight.shape[0]))
    if not fits or impl not in IMPLEMENTATIONS[1:]:
        _raise_misfit(
            impl, x=(x, (-1,) * 4), weight=(weight, (-1, -1)), bias=(bias, weight.shape[:1])
        )


def _check_input_grad(grad: Tensor, weight: Tensor, impl: str) -> None:
    fits = weight.dim() == 2 and grad.dim() == 4 and grad.shape[1] == weight.shape[0]
    if not fits or impl not in IMPLEMENTATIONS[1:]:
        _raise_misfit(impl, weight=(weight, (-1, -1)), grad=(grad, (-1, weight.shape[0], -1, -1)))


def _check_weight_grad(grad: Tensor, x: Tensor, impl: str) -> None:
    fits = grad.dim() == 4 and x.dim() == 4
    fits = fits and x.shape[0] == grad.shape[0] and x.shape[2:] == grad.shape[2:]
    if not fits or impl not in IMPLEMENTATIONS[1:]:
        _raise_misfit(impl, grad=(grad, (-1,) * 4), x=(x, (*grad.shape[:1], -1, *grad.shape[2:])))


def _raise_misfit(impl: str, **shapes: tuple[Tensor | None, Sequence[int]]) -> None:
    """Raise for an unknown implementation or the first tensor of another shape; -1 is any size.

    Raises: KernelError.
    """
    if impl not in IMPLEMENTATIONS[1:]:
        raise KernelError.because(
            "unknown implementation",
            got=repr(impl),
            allowed=", ".join(IMPLEMENTATIONS[1:]),
            remedy="an operator chooses none itself",
            argument="impl",
        )
    for name, (tensor, shape) in shapes.items():
        if tensor is not None and (
            tensor.dim() != len(shape)
            or any(n not in (-1, size) for n, size in zip(shape, tensor.shape, strict=True))
        ):
            raise KernelError.because(
                f"{name} has another shape",
                got=shape_text(tensor),
                allowed=list(shape),
                remedy="-1 is any size",
                argument=name,
            )


@rpw.register_fake
def _rpw_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str, order: str = ROLLING
) -> Tensor:
    _check_rpw(x, weight, bias, impl)
    return empty_with_channels(x, weight.shape[0])


@rpw_input_grad.register_fake
def _rpw_input_grad_fake(
    grad: Tensor, weight: Tensor, in_channels: int, step: int, impl: str, order: str = ROLLING
) -> Tensor:
    _check_input_grad(grad, weight, impl)
    return empty_with_channels(grad, in_channels)


@rpw_weight_grad.register_fake
def _rpw_weight_grad_fake(
    grad: Tensor,
    x: Tensor,
    width: int,
    step: int,
    with_bias: bool,
    impl: str,
    order: str = ROLLING,
) -> tuple[Tensor, Tensor]:
    _check_weight_grad(grad, x, impl)
    channels = grad.shape[1]
    return grad.new_empty(channels, width), grad.new_empty(channels if with_bias else 0)


class Trio(NamedTuple):
    """The three operators in one of their forms, of which their derivatives are made."""

    rpw: Callable[..., Tensor]
    input_grad: Callable[..., Tensor]
    weight_grad: Callable[..., tuple[Tensor, Tensor]]


_OPERATORS: Final = Trio(rpw, rpw_input_grad, rpw_weight_grad)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Save the tensors that an operator's derivatives read, and its numbers."""
    first, second, _, step, *options = inputs
    ctx.save_for_backward(first, second)
    ctx.step, ctx.with_bias = step, options[0]  # the second of `rpw_weight_grad` alone
    ctx.run_as = options[-2:]  # implementation and order


def _rpw_backward(ctx: Any, grad: Tensor, trio: Trio = _OPERATORS) -> tuple[Tensor | None, ...]:
    """Return the gradients of `rpw` by its six arguments."""
    x, weight = ctx.saved_tensors
    by_x, by_weight, by_bias = ctx.needs_input_grad[:3]
    grad_x = grad_weight = grad_bias = None
    if by_x:
        grad_x = trio.input_grad(grad, weight, x.shape[1], ctx.step, *ctx.run_as)
    if by_weight:
        grad_weight, grad_bias = trio.weight_grad(
            grad, x, weight.shape[1], ctx.step, by_bias, *ctx.run_as
        )
    elif by_bias:
        grad_bias = grad.sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias if by_bias else None, None, None, None


def _rpw_input_grad_backward(
    ctx: Any, twice: Tensor, trio: Trio = _OPERATORS
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `rpw_input_grad` by its six arguments."""
    grad, weight = ctx.saved_tensors
    by_grad, by_weight = ctx.needs_input_grad[:2]
    grad_grad = grad_weight = None
    if by_grad:
        grad_grad = trio.rpw(twice, weight, None, ctx.step, *ctx.run_as)
    if by_weight:
        width = weight.shape[1]
        grad_weight, _ = trio.weight_grad(grad, twice, width, ctx.step, False, *ctx.run_as)
    return grad_grad, grad_weight, None, None, None, None


def _rpw_weight_grad_backward(
    ctx: Any, twice: Tensor, twice_bias: Tensor, trio: Trio = _OPERATORS
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `rpw_weight_grad` by its seven arguments."""
    grad, x = ctx.saved_tensors
    by_grad, by_x = ctx.needs_input_grad[:2]
    grad_grad = grad_x = None
    if by_grad:
        bias = twice_bias if ctx.with_bias else None
        grad_grad = trio.rpw(x, twice, bias, ctx.step, *ctx.run_as)
    if by_x:
        grad_x = trio.input_grad(grad, twice, x.shape[1], ctx.step, *ctx.run_as)
    return grad_grad, grad_x, None, None, None, None, None


rpw.register_autograd(_rpw_backward, setup_context=_save)
rpw_input_grad.register_autograd(_rpw_input_grad_backward, setup_context=_save)
rpw_weight_grad.register_autograd(_rpw_weight_grad_backward, setup_context=_save)


def vmap_rule(operator: Callable[..., Any], merges: bool) -> Callable[..., Any]:
    """Return the vmap rule of an operator.

    With `merges` a batch of first arguments alone is one longer N; otherwise the operator runs once
    for each element of the batch.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        if merges and not any(dim is not None for dim in in_dims[1:]):
            first = arguments[0].movedim(in_dims[0], 0)
            merged = operator(first.flatten(0, 1), *arguments[1:])
            return merged.unflatten(0, first.shape[:2]), 0
        results = [
            operator(
                *(
                    argument if dim is None else argument.select(dim, n)
                    for argument, dim in zip(arguments, in_dims, strict=True)
                )
            )
            for n in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(map(torch.stack, zip(*results, strict=True))), (0, 0)

    return rule


rpw.register_vmap(vmap_rule(rpw, merges=True))
rpw_input_grad.register_vmap(vmap_rule(rpw_input_grad, merges=True))
rpw_weight_grad.register_vmap(vmap_rule(rpw_weight_grad, merges=False))


# A counter passes the shapes of the tensors; a multiply-accumulate is two operations.
@register_flop_formula(torch.ops.ifspace.rpw)
def _rpw_flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    n, _c, *pixels = x
    return 2 * rpw_macs((n, weight[0], *pixels), weight[1])


@register_flop_formula(torch.ops.ifspace.rpw_input_grad)
def _input_grad_flops(grad: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * rpw_macs(grad, weight[1])


@register_flop_formula(torch.ops.ifspace.rpw_weight_grad)
def _weight_grad_flops(
    grad: Any, x: Any, width: int, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return 2 * rpw_macs(grad, width)


# ---- forward mode and torch.func: all three are bilinear, so their derivatives are made of them


def transformable(
    x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str, order: str = ROLLING
) -> Tensor:
    """Return `rpw`, open to forward mode and torch.func.

    Exact to any order, in any nesting of jvp, vjp, grad, jacfwd, jacrev, hessian and vmap. Without
    a transform the operator runs: it is quicker, and torch.compile refuses a forward-mode formula.
    Forward mode inside forward mode, and a transform that torch.compile traces, take torch's own
    dense convolution in place of `impl`: it is right, and slower. torch raises for a tensor with a
    tangent that is passed to compiled code.

    >>> x, weight = torch.ones(1, 4, 1, 1), torch.ones(2, 2)
    >>> f = lambda x: transformable(x, weight, None, 2, "cpu").sum()
    >>> torch.func.grad(f)(x).flatten()
    tensor([1., 1., 1., 1.])
    """
    y: Tensor
    if not is_transforming(x, weight, bias):
        y = rpw(x, weight, bias, step, impl, order)
    elif torch.compiler.is_compiling() or forward_modes() > 1:
        y = _dense_convolution(x, weight, bias, step, order)
    else:
        y = _FUNCTIONS.rpw(x, weight, bias, step, impl, order)
    return y


def is_transforming(*tensors: Tensor | None) -> bool:
    """Return whether a torch.func transform is active or a tensor carries a tangent.

    While a compiler traces, tangents are not looked for.
    """
    # torch.func has no public question for this; torch.autograd.Function asks the same.
    active: bool = torch._C._are_functorch_transforms_active()
    if active or torch.compiler.is_compiling():
        return active
    return has_tangent(*tensors)


def forward_modes() -> int:
    """Return how many jvp of torch.func are nested here."""
    stack = torch._C._functorch.get_interpreter_stack() or []
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack)


def _dense_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, step: int, order: str
) -> Tensor:
    """Return the same by torch's own operators alone; a traced size may be a symbol."""
    dense = dense_weight(weight, x.shape[1], step, order=order)
    return conv2d(x, dense[:, :, None, None], bias)


class _Rpw(Function):
    """`rpw`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any, step: int, impl: str, order: str) -> Any:
        return rpw(x, weight, bias, step, impl, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save_both_modes(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _rpw_backward(ctx, grad, _FUNCTIONS)

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any, *_: Any) -> Any:
        x, weight = _saved(ctx)
        by_x = by_weight = None
        if dx is not None:
            by_x = _FUNCTIONS.rpw(dx, weight, None, ctx.step, *ctx.run_as)
        if dweight is not None or dbias is not None:
            dweight = torch.zeros_like(weight) if dweight is None else dweight
            by_weight = _FUNCTIONS.rpw(x, dweight, dbias, ctx.step, *ctx.run_as)
        return _sum(by_x, by_weight)


class _DirectRpw(Function):
    """`rpw` on a CPU without the operators, but for derivatives of the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, step: int, order: str) -> Any:
        _save(ctx, (x, weight, bias, step, "cpu", order), None)
        windows = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step, order)
        return cpu.forward(x, weight, bias, windows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        is_plain = not torch.is_grad_enabled() and not is_watched(grad)
        return _rpw_backward(ctx, grad, _DIRECT if is_plain else _OPERATORS)[:5]


def _input_grad_directly(
    grad: Tensor, weight: Tensor, in_channels: int, step: int, impl: str, order: str
) -> Tensor:
    windows = windows_at(in_channels, weight.shape[0], weight.shape[1], step, order)
    return cpu.input_grad(grad, weight, windows)


def _weight_grad_directly(
    grad: Tensor, x: Tensor, width: int, step: int, with_bias: bool, impl: str, order: str
) -> tuple[Tensor, Tensor]:
    windows = windows_at(x.shape[1], grad.shape[1], width, step, order)
    return cpu.weight_grad(grad, x, windows, with_bias)


_DIRECT: Final = Trio(rpw, _input_grad_directly, _weight_grad_directly)
# Not `_DirectRpw.apply`, which looks for transforms and what has left one: `is_direct` has done so.
_direct: Final = cast(Any, super(Function, _DirectRpw)).apply


class _RpwInputGrad(Function):
    """`rpw_input_grad`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Any, weight: Any, in_channels: int, step: int, impl: str, order: str) -> Any:
        return rpw_input_grad(grad, weight, in_channels, step, impl, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save_both_modes(ctx, inputs, output)
        ctx.in_channels = inputs[2]

    @staticmethod
    def backward(ctx: Any, twice: Tensor) -> Any:
        return _rpw_input_grad_backward(ctx, twice, _FUNCTIONS)

    @staticmethod
    def jvp(ctx: Any, dgrad: Any, dweight: Any, *_: Any) -> Any:
        grad, weight = _saved(ctx)
        numbers = ctx.in_channels, ctx.step, *ctx.run_as
        return _sum(
            None if dgrad is None else _FUNCTIONS.input_grad(dgrad, weight, *numbers),
            None if dweight is None else _FUNCTIONS.input_grad(grad, dweight, *numbers),
        )


class _RpwWeightGrad(Function):
    """`rpw_weight_grad`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad: Any, x: Any, width: int, step: int, with_bias: bool, impl: str, order: str
    ) -> Any:
        return rpw_weight_grad(grad, x, width, step, with_bias, impl, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save_both_modes(ctx, inputs, output)
        ctx.width = inputs[2]

    @staticmethod
    def backward(ctx: Any, twice: Tensor, twice_bias: Tensor) -> Any:
        return _rpw_weight_grad_backward(ctx, twice, twice_bias, _FUNCTIONS)

    @staticmethod
    def jvp(ctx: Any, dgrad: Any, dx: Any, *_: Any) -> Any:
        grad, x = _saved(ctx)
        by_grad = by_bias = by_x = None
        if dgrad is not None:
            by_grad, by_bias = _FUNCTIONS.weight_grad(
                dgrad, x, ctx.width, ctx.step, ctx.with_bias, *ctx.run_as
            )
        if dx is not None:
            by_x, _empty = _FUNCTIONS.weight_grad(grad, dx, ctx.width, ctx.step, False, *ctx.run_as)
        if by_bias is None:
            by_bias = grad.new_zeros(grad.shape[1] if ctx.with_bias else 0)
        return _sum(by_grad, by_x), by_bias


_FUNCTIONS: Final = Trio(*(cast(Any, form).apply for form in (_Rpw, _RpwInputGrad, _RpwWeightGrad)))


def _save_both_modes(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _save(ctx, inputs, output)
    ctx.save_for_forward(*inputs[:2])


def _saved(ctx: Any) -> tuple[Tensor, Tensor]:
    """Return the saved tensors, for a forward-mode formula that is not nested in another.

    torch gives a torch.autograd.Function no forward mode inside forward mode: the result is zero.
    """
    if forward_modes() > 1:
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


# ---- written out for exporters


def decompositions() -> dict[Any, Callable[..., Tensor]]:
    """Return the table for `torch.export.ExportedProgram.run_decompositions`.

    >>> [str(operator) for operator in decompositions()]
    ['ifspace.rpw.default']
    """
    return {torch.ops.ifspace.rpw.default: rpw_decomposed}


def rpw_decomposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str, order: str = ROLLING
) -> Tensor:
    """Return y [N, C_out, H, W] of x [N, C_in, H, W], weight [C_out, w] and bias [C_out].

    Of operators that every exporter knows, in two ways that are equal up to rounding: windows side
    by side and one grouped convolution, where that reads little more than the input; otherwise a
    pointwise convolution whose weight is zero outside the windows. The arguments are those of
    `torch.ops.ifspace.rpw`; `impl` is not used.
    """
    windows = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step, order)
    copied = windows.distinct * windows.width
    if windows.out_channels % windows.distinct or copied > _MOST_COPIES * windows.in_channels:
        return _dense_convolution(x, weight, bias, step, order)
    return _grouped_convolution(x, weight, bias, windows)


def _grouped_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows
) -> Tensor:
    distinct, filters = windows.distinct, windows.out_channels // windows.distinct
    if windows.order == BLOCKED or filters == 1 or distinct == 1:
        kernel = weight[:, :, None, None]
        return torch.conv2d(_side_by_side(x, windows), kernel, bias, groups=distinct)
    # Filter q P + p reads window p; in a grouped convolution the filters of a window are adjacent.
    by_window = weight.reshape(filters, distinct, windows.width).transpose(0, 1)
    kernel = by_window.reshape(windows.out_channels, windows.width, 1, 1)
    if bias is not None:
        bias = bias.reshape(filters, distinct).transpose(0, 1).reshape(-1)
    y = torch.conv2d(_side_by_side(x, windows), kernel, bias, groups=distinct)
    n, _, height, width = y.shape
    back = y.reshape(n, distinct, filters, height, width).transpose(1, 2)
    return back.reshape(n, windows.out_channels, height, width)


def _side_by_side(x: Tensor, windows: Windows) -> Tensor:
    """Return the channels of all windows in turn: [N, P w, H, W] of x [N, C_in, H, W]."""
    if windows.step == windows.width:
        return x  # windows that share no channel are in this order already
    slices = []
    for start in windows.starts:
        before_the_end = min(windows.width, windows.in_channels - start)
        slices.append(x.narrow(1, start, before_the_end))
        if before_the_end < windows.width:
            slices.append(x.narrow(1, 0, windows.width - before_the_end))
    return torch.cat(slices, 1)
