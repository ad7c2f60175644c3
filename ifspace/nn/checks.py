"""Checks of the values that torch code is called with: types, devices, dtypes, seeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn

from ifspace.errors import ARGUMENT, DeviceError, KernelError, SettingError
from ifspace.values import whole_number

# The dtypes of weights.
FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def kind_of(value: Any) -> str:
    """Return what a value is, for an error message.

    >>> kind_of("fog"), kind_of(3), kind_of(int), kind_of(None)
    ("'fog'", 'int', 'the class int', 'None')
    """
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else type(value).__name__


def wrong_type(argument: str, value: Any, allowed: str, remedy: str) -> SettingError:
    """Return the error for an argument of a wrong type."""
    return SettingError.because(
        f"wrong {ARGUMENT}", got=kind_of(value), allowed=allowed, remedy=remedy, argument=argument
    )


def first_line(error: BaseException) -> str:
    """Return the first line of the message of another library's error."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def is_plain(module: nn.Module) -> bool:
    """Return whether a module does what its class does: no hooks, no forward of its own."""
    return "forward" not in vars(module) and not has_hooks(module)


def has_hooks(module: nn.Module) -> bool:
    """Return whether hooks see what goes into a module or comes out of it, or change it."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode inside, without gradients."""
    in_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in in_training:
            part.training = True


def unwrapped(module: Any) -> Any:
    """Return the module that `torch.compile` wraps, or the value itself."""
    return getattr(module, "_orig_mod", module) if isinstance(module, nn.Module) else module


def device_of(device: Any, *, meta: bool = True) -> torch.device:
    """Return a device that exists; None is the CPU. `meta`: whether the meta device is allowed.

    Raises: DeviceError.
    """
    allowed = "cpu, cuda where there is one" + (", meta" if meta else "")
    try:
        if isinstance(device, int):  # for torch a number is a GPU, whether it exists or not
            raise TypeError("a number")
        checked = torch.device("cpu" if device is None else device)
        if checked.type == "meta" and not meta:
            raise ValueError("it holds no values")
        torch.empty(0, device=checked)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise DeviceError.because(
            f"{ARGUMENT} cannot be used",
            got=f"{device!r} ({first_line(error)})",
            allowed=allowed,
            remedy='write it like "cpu" or "cuda:0"',
            argument="device",
        ) from None
    return checked


def check_dtype(dtype: Any) -> None:
    """Check that weights can have a dtype; None is torch's default.

    Raises: KernelError.
    """
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in FLOATS):
        return
    raise KernelError.because(
        f"wrong {ARGUMENT}",
        got=dtype if isinstance(dtype, torch.dtype) else kind_of(dtype),
        allowed=", ".join(map(str, FLOATS)),
        remedy="leave it out for torch's default",
        argument="dtype",
    )


def check_seed(seed: Any) -> None:
    """Check that torch's generators can be seeded with a value; None is no seed.

    Raises: SettingError.
    """
    if seed is not None:
        whole_number(seed, "seed", 0, 2**63 - 1)
