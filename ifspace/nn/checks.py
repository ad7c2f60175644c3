"""What the callers of ifspace.nn may give: types, devices, seeds; each refused in one line."""

from typing import Any, Final

import torch
from torch import nn

from ifspace.errors import DeviceError, KernelError, SettingError
from ifspace.values import whole_number

# In which weights are kept.
FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def kind_of(value: Any) -> str:
    """Return what a value is, for the message of a refusal.

    >>> kind_of("fog"), kind_of(3), kind_of(int), kind_of(None)
    ("'fog'", 'int', 'the class int', 'None')
    """
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else type(value).__name__


def wrong_type(argument: str, value: Any, allowed: str, remedy: str) -> SettingError:
    """Return the refusal of an argument that is of another type."""
    return SettingError.because(
        f"wrong {argument}", got=kind_of(value), allowed=allowed, remedy=remedy, argument=argument
    )


def first_line(error: Exception) -> str:
    """Return the first line of what an error of another library says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def unwrapped(module: Any) -> Any:
    """Return the module that `torch.compile` wraps, or what is given."""
    return getattr(module, "_orig_mod", module) if isinstance(module, nn.Module) else module


def device_of(device: Any, *, meta: bool = True) -> torch.device:
    """Return a device that is there; None is the CPU. `meta`: whether that one is allowed.

    Raises: DeviceError.
    """
    allowed = "cpu, cuda where there is one" + (", meta" if meta else "")
    try:
        if isinstance(device, int):  # torch takes a number for a GPU, whether there is one or not
            raise TypeError("a number")
        found = torch.device("cpu" if device is None else device)
        if found.type == "meta" and not meta:
            raise ValueError("it holds no values")
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise DeviceError.because(
            "device cannot be used",
            got=f"{device!r} ({first_line(error)})",
            allowed=allowed,
            remedy='write it like "cpu" or "cuda:0"',
            argument="device",
        ) from None
    return found


def check_dtype(dtype: Any) -> None:
    """Refuse a type in which no weights can be trained.

    Raises: KernelError.
    """
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in FLOATS):
        return
    raise KernelError.because(
        "wrong dtype",
        got=dtype if isinstance(dtype, torch.dtype) else kind_of(dtype),
        allowed=", ".join(map(str, FLOATS)),
        remedy="leave it out for torch's default",
        argument="dtype",
    )


def check_seed(seed: Any) -> None:
    """Refuse what torch's generators cannot be seeded with; None is allowed.

    Raises: SettingError.
    """
    if seed is not None:
        whole_number(seed, "seed", 0, 2**63 - 1)
