"""What the functions on tensors refuse before anything runs, in one line each."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from ifspace.errors import KernelError

FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(tensors: Mapping[str, Any], optional: frozenset[str] = frozenset()) -> None:
    """Refuse what is no tensor, by name; the names in `optional` may be None.

    Raises: KernelError.
    """
    for name, given in tensors.items():
        if not isinstance(given, Tensor) and not (given is None and name in optional):
            raise KernelError.because(
                f"{name} is no tensor",
                got=type(given).__name__,
                allowed="torch.Tensor" + (" or None" if name in optional else ""),
                remedy="convert it with torch.as_tensor",
                argument=name,
            )


def check_input(x: Any, channels: int | None = None, axes: str = "H, W") -> None:
    """Refuse an input that is no dense floating tensor [N, channels, axes].

    Raises: KernelError.
    """
    check_tensors({"x": x})
    _check_dense("input", x, "x")
    wanted = f"[N, {'C_in' if channels is None else channels}, {axes}]"
    dims = 3 + axes.count(",")
    if x.dim() != dims:
        raise KernelError.because(
            f"input is not {dims}-D",
            got=shape_of(x),
            allowed=wanted,
            remedy="add the batch dimension with x[None], or reshape",
            argument="x",
        )
    if channels is not None and x.shape[1] != channels:
        raise KernelError.because(
            "input has the wrong number of channels",
            got=shape_of(x),
            allowed=wanted,
            remedy="make the layer with the channels of its input",
            argument="x",
        )


def check_alike(tensors: Mapping[str, Tensor | None]) -> None:
    """Refuse tensors on several devices, and of several types outside autocast.

    Autocast leaves float64 alone, so it does not make float64 and another type alike.

    Raises: KernelError.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    devices = {name: str(tensor.device) for name, tensor in given.items()}
    if len(set(devices.values())) > 1:
        raise KernelError.because(
            "tensors on several devices",
            got=_listed(devices),
            allowed="one device",
            remedy="move them with .to(x.device)",
        )
    for name, tensor in given.items():
        _check_dense(name, tensor, name)
    dtypes = {name: tensor.dtype for name, tensor in given.items()}
    if len(set(dtypes.values())) == 1:
        return
    wide = torch.float64 in dtypes.values()
    if wide or not is_autocast(given["x"]):
        raise KernelError.because(
            "tensors of several types",
            got=_listed({name: str(dtype) for name, dtype in dtypes.items()}),
            allowed=f"one type{' (autocast leaves float64 alone)' if wide else ', or autocast'}",
            remedy="convert them with .to(x.dtype)",
        )


def is_autocast(x: Tensor) -> bool:
    """Return whether autocast is on where x is."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def shape_of(tensor: Tensor) -> str:
    """Return the shape as a message shows it."""
    return str(list(tensor.shape))


def _check_dense(what: str, tensor: Tensor, argument: str) -> None:
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "a nested tensor" if tensor.is_nested else str(tensor.layout)
        raise KernelError.because(
            f"{what} is not dense",
            got=kind,
            allowed="torch.strided",
            remedy="convert it with .to_dense(), a nested one with .to_padded_tensor(0)",
            argument=argument,
        )
    if tensor.dtype not in FLOATS:
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


def _listed(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {fact}" for name, fact in facts.items())
