"""What the functions of this room take and return: dense floating tensors, in the layout of x."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd import profiler as autograd_profiler

from ifspace.errors import KernelError

FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_channels_last(x: Tensor) -> bool:
    """Return whether the channels of a pixel of x [N, C, H, W] are adjacent in memory.

    A tensor that is contiguous both ways (one channel, or one pixel) counts as NCHW.
    """
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the memory format in which a result of x [N, C, H, W] is written."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def empty_in_layout(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return an uninitialised tensor [N, C, H, W] in the layout, dtype and device of x."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def empty_with_channels(x: Tensor, channels: int) -> Tensor:
    """Return an uninitialised tensor [N, channels, H, W] in the layout of x [N, C, H, W]."""
    return empty_in_layout(x, (x.shape[0], channels, x.shape[2], x.shape[3]))


def check_tensors(tensors: Mapping[str, Any], optional: frozenset[str] = frozenset()) -> None:
    """Check that every value is a tensor, by name; the names in `optional` may be None.

    Raises: KernelError.
    """
    for name, value in tensors.items():
        if not isinstance(value, Tensor) and not (value is None and name in optional):
            raise KernelError.because(
                f"{name} is no tensor",
                got=type(value).__name__,
                allowed="torch.Tensor" + (" or None" if name in optional else ""),
                remedy="convert it with torch.as_tensor",
                argument=name,
            )


def check_input(x: Any, channels: int | None = None, axes: str = "H, W") -> None:
    """Check that an input is a dense floating tensor [N, channels, axes].

    Raises: KernelError.
    """
    if not isinstance(x, Tensor):
        check_tensors({"x": x})
    _check_dense("input", x, "x")
    dims = 3 + axes.count(",")
    if x.dim() == dims and (channels is None or x.shape[1] == channels):
        return
    if x.dim() != dims:
        fact, remedy = f"input is not {dims}-D", "add the batch dimension with x[None], or reshape"
    else:
        fact = "input has the wrong number of channels"
        remedy = "make the layer with the channels of its input"
    raise KernelError.because(
        fact,
        got=shape_text(x),
        allowed=f"[N, {'C_in' if channels is None else channels}, {axes}]",
        remedy=remedy,
        argument="x",
    )


def check_alike(tensors: Mapping[str, Tensor | None]) -> None:
    """Check that tensors are on one device and, outside autocast, of one dtype.

    Autocast does not convert float64, so float64 beside another dtype is an error there too.

    Raises: KernelError.
    """
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    x = present["x"]
    if x.dtype in FLOATS and all(_is_dense_like(tensor, x) for tensor in present.values()):
        return
    if any(tensor.device != x.device for tensor in present.values()):
        raise KernelError.because(
            "tensors on several devices",
            got=", ".join(f"{name} {tensor.device}" for name, tensor in present.items()),
            allowed="one device",
            remedy="move them with .to(x.device)",
        )
    for name, tensor in present.items():
        _check_dense(name, tensor, name)
    dtypes = {name: tensor.dtype for name, tensor in present.items()}
    has_float64 = torch.float64 in dtypes.values()
    if has_float64 or not is_autocast(x):
        note = " (autocast leaves float64 alone)" if has_float64 else ", or autocast"
        raise KernelError.because(
            "tensors of several types",
            got=", ".join(f"{name} {dtype}" for name, dtype in dtypes.items()),
            allowed=f"one type{note}",
            remedy="convert them with .to(x.dtype)",
        )


def is_autocast(x: Tensor) -> bool:
    """Return whether autocast is enabled on the device of x."""
    if not torch._C._is_any_autocast_enabled():
        return False
    kind = x.device.type
    is_autocast_device = kind in ("cpu", "cuda") or torch.amp.is_autocast_available(kind)
    return is_autocast_device and torch.is_autocast_enabled(kind)


def is_watched(x: Tensor) -> bool:
    """Return whether something of torch has to see a call with x: then the operator is called.

    These are compilers, subclasses of tensors, modes, tracing, transforms, open dual levels and the
    profiler. A batch of gradients (`is_grads_batched`) is a subclass that does not say so, and so
    is a tensor that has left its transform. Also tensors whose memory does not hold their numbers:
    sparse ones, those of oneDNN, and views whose sign is still to be changed.
    """
    watched: bool = (
        torch.compiler.is_compiling()
        or type(x) is not Tensor
        or x.layout is not torch.strided
        or x.is_neg()
        or torch._C._functorch.is_legacy_batchedtensor(x)
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
        or autograd_profiler._is_profiler_enabled
    )
    return watched


def is_direct(x: Tensor, *others: Tensor | None) -> bool:
    """Return whether a call on a CPU needs no operator of torch: the kernel is entered directly.

    That is: no modes, compilers, transforms or autocast, and tensors of one type.
    """
    dtype = x.dtype
    if is_watched(x) or not x.is_cpu or dtype not in FLOATS or torch.is_autocast_enabled("cpu"):
        return False
    for tensor in others:
        if tensor is not None and not (
            tensor.dtype == dtype
            and tensor.is_cpu
            and tensor.layout == torch.strided
            and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        ):
            return False
    return True


def any_requires_grad(*tensors: Tensor | None) -> bool:
    """Return whether autograd has to record a call with some tensors."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def shape_text(tensor: Tensor) -> str:
    """Return the shape as a message shows it."""
    return str(list(tensor.shape))


def _is_dense_like(tensor: Tensor, x: Tensor) -> bool:
    same = tensor.dtype == x.dtype and tensor.device == x.device
    return same and tensor.layout == torch.strided and not tensor.is_nested


def _check_dense(what: str, tensor: Tensor, argument: str) -> None:
    if tensor.layout == torch.strided and tensor.dtype in FLOATS and not tensor.is_nested:
        return
    if tensor.is_nested or tensor.layout != torch.strided:
        raise KernelError.because(
            f"{what} is not dense",
            got="a nested tensor" if tensor.is_nested else str(tensor.layout),
            allowed="torch.strided",
            remedy="convert it with .to_dense(), a nested one with .to_padded_tensor(0)",
            argument=argument,
        )
    fact = "is not of a type that is computed in"
    if not tensor.dtype.is_floating_point:
        fact = "is not of a floating type"
    raise KernelError.because(
        f"{what} {fact}",
        got=str(tensor.dtype),
        allowed="float16, bfloat16, float32, float64",
        remedy="convert it",
        argument=argument,
    )
