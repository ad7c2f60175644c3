"""The device that is measured: which there is, its types of numbers, its memory."""

import ctypes
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch.nn.functional import conv2d

from ifspace.errors import SettingError

# tf32 is how matrix units may multiply float32.
DTYPES: Final = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Of glibc's malloc.h: from which size on memory is returned at once, and how many maps there are.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


def find_device(name: str = "") -> torch.device:
    """Return a device that is there; without a name CUDA, or else the CPU.

    >>> find_device("cpu")
    device(type='cpu')

    Raises: SettingError.
    """
    known = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    check_known("device", name or known[-1], known)
    return torch.device(name or known[-1])


def check_known(argument: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is not among those known.

    Raises: SettingError.
    """
    if value not in known:
        raise SettingError.because(
            f"no such {argument} here",
            got=repr(value),
            allowed=", ".join(known),
            remedy="choose among these",
            argument=argument,
        )


def precision(dtype: str) -> None:
    """Let matrix units round float32 to tf32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


def rounding(dtype: str) -> float:
    """Return the relative distance of neighbouring numbers of a type.

    >>> rounding("tf32") == 2**-10
    True
    """
    return 2.0**-10 if dtype == "tf32" else torch.finfo(DTYPES[dtype]).eps


def free_bytes(device: torch.device) -> int:
    """Return how much memory is free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(free) * os.sysconf("SC_PAGE_SIZE")


def keep_memory() -> bool:
    """Let this process keep the memory that tensors give back; return whether it was told so.

    Without it glibc returns large tensors to the system after each call, and what is timed is the
    system handing them out again: twice the time. The same as starting Python with
    MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ set above any tensor.
    """
    return _malloc_options({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})


def return_memory(least_bytes: int = 1 << 16) -> bool:
    """Let this process give back at once what is larger; return whether it was told so.

    Then what is resident is what is held.
    """
    return _malloc_options({_MMAP_THRESHOLD: least_bytes, _TRIM_THRESHOLD: least_bytes})


def _malloc_options(options: dict[int, int]) -> bool:
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    told = [set_option(option, value) for option, value in options.items()]
    return all(told)


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes read and written a second by a large copy; operations a second of each type."""

    copy: float
    matrix: dict[str, float]


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes that must pass through memory and operations (two a multiply-accumulate)."""

    moved: int
    operations: int

    def seconds(self, rates: Rates, dtype: str) -> float:
        """Return the larger of the two times."""
        return max(self.moved / rates.copy, self.operations / rates.matrix[dtype])


def measured_rates(device: torch.device, dtypes: list[str], scale: float = 1.0) -> Rates:
    """Return the best copy bandwidth and the best rate of a matrix product or dense convolution.

    A scale below 1 measures with less memory, for a quick look.
    """
    on_cuda = device.type == "cuda"
    count = int((2**30 if on_cuda else 2**26) * scale)
    copy = _copy_rate(count, device)
    side = max(64, int((128 if on_cuda else 32) * scale) * 64)
    matrix = {name: _matrix_rate(name, side, device) for name in dtypes}
    return Rates(copy, matrix)


def _copy_rate(count: int, device: torch.device) -> float:
    source = torch.rand(count, device=device)
    target = torch.empty_like(source)
    return 2 * count * source.itemsize / _least_s(partial(target.copy_, source), device)


def _matrix_rate(dtype: str, side: int, device: torch.device) -> float:
    precision(dtype)
    a, b = (torch.randn(side, side, device=device).to(DTYPES[dtype]) for _ in range(2))
    product = 2 * side**3 / _least_s(partial(torch.mm, a, b), device)
    rates = [product]
    for width in (side, side // 4):
        picture = a.view(-1, width, 8, 8).to(memory_format=torch.channels_last)
        weight = torch.randn(width, width, 1, 1, device=device).to(DTYPES[dtype])
        seconds = _least_s(partial(conv2d, picture, weight), device)
        rates.append(2 * a.numel() * width / seconds)
    return max(rates)


def _least_s(run: Callable[[], object], device: torch.device, repeats: int = 9) -> float:
    """Return the least seconds of some runs, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[2:])
