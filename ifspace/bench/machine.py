"""The machine that is measured: its device and versions, its types of numbers, memory and rates."""

import ctypes
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import Final

import torch
from torch.nn.functional import conv2d

from ifspace.bench.record import provenance
from ifspace.errors import ARGUMENT, SettingError

# tf32 is how matrix units may multiply float32.
DTYPES: Final = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# The share of free memory that a candidate may hold by `bytes_needed`: torch's own copies, and what
# the allocator keeps of those that ran before, take more than as much again.
MEMORY_SHARE: Final = 0.35
# Of glibc's malloc.h: the size from which memory is returned at once, and the number of maps.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


@dataclass(frozen=True, slots=True)
class Machine:
    """What rows were measured on: a name fit for a file, the versions, the day."""

    device: str
    torch: str
    triton: str
    date: str


def this_machine(device: torch.device) -> Machine:
    """Return this machine with one of its devices."""
    name = "cpu " + provenance("").machine.rsplit(", ", 2)[0]
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    return Machine(file_safe(name), torch.__version__, _version("triton"), date)


def file_safe(name: str) -> str:
    """Return a name in lower-case letters, digits and hyphens.

    >>> file_safe("NVIDIA H200"), file_safe("cpu AMD EPYC 9B14 (2)")
    ('nvidia-h200', 'cpu-amd-epyc-9b14-2')
    """
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def find_device(name: str = "") -> torch.device:
    """Return a device of this machine; without a name CUDA, or else the CPU.

    >>> find_device("cpu")
    device(type='cpu')

    Raises: SettingError for a device that is not there.
    """
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    check_choice("device", name or devices[-1], devices)
    return torch.device(name or devices[-1])


def check_choice(argument: str, value: str, allowed: Iterable[str]) -> None:
    """Check that a value is one of those allowed here.

    Raises: SettingError.
    """
    if value not in allowed:
        raise SettingError.because(
            f"no such {ARGUMENT} here",
            got=repr(value),
            allowed=", ".join(allowed),
            remedy="choose among these",
            argument=argument,
        )


def set_precision(dtype: str) -> None:
    """Let matrix units round float32 to tf32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


def choose_by_time(device: torch.device) -> None:
    """Let cuDNN time its algorithms at a first call and keep the fastest, as ours time their tiles.

    On a CPU there is nothing to choose.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def rounding(dtype: str) -> float:
    """Return the relative distance of neighbouring numbers of a type.

    >>> rounding("tf32") == 2**-10
    True
    """
    return 2.0**-10 if dtype == "tf32" else torch.finfo(DTYPES[dtype]).eps


def available_bytes(device: torch.device) -> float:
    """Return how much memory one candidate may hold: a share of what is free."""
    return MEMORY_SHARE * free_bytes(device)


def free_bytes(device: torch.device) -> int:
    """Return how much memory is free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(free) * os.sysconf("SC_PAGE_SIZE")


def keep_memory() -> bool:
    """Let this process keep the memory that tensors free; return whether glibc does so.

    Without it glibc returns large tensors to the system after each call, and what is timed is the
    system handing them out again: twice the time. The same as starting Python with
    MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ set above any tensor.
    """
    return _set_malloc_options({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})


def return_memory(min_bytes: int = 1 << 16) -> bool:
    """Let this process return larger blocks at once; return whether glibc does so.

    Then resident memory is memory in use.
    """
    return _set_malloc_options({_MMAP_THRESHOLD: min_bytes, _TRIM_THRESHOLD: min_bytes})


def _set_malloc_options(options: dict[int, int]) -> bool:
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    results = [set_option(option, value) for option, value in options.items()]
    return all(results)


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes read and written a second by a large copy; operations a second of each type."""

    copy: float
    matrix: dict[str, float]


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes that must pass through memory, and operations: two a multiply-accumulate."""

    moved: int
    operations: int

    def seconds(self, rates: Rates, dtype: str) -> float:
        """Return the larger of the two times."""
        return max(self.moved / rates.copy, self.operations / rates.matrix[dtype])


def passes(
    read: int, written: int, weights: int, macs: int, itemsize: int, both_ways: bool
) -> tuple[Work, ...]:
    """Return the least work of the forward pass and, `both_ways`, of the backward pass.

    `read`, `written`, `weights`: elements of x, y and the parameters. Forward: x and the weights
    are read, y is written. Backward: the gradient of y, x and the weights are read, the gradients
    of x and of the weights written, with twice the operations. It starts from a gradient that
    exists only after y, so x is read in each pass.
    """
    forward = Work((read + written + weights) * itemsize, 2 * macs)
    if not both_ways:
        return (forward,)
    return forward, Work((2 * read + written + 2 * weights) * itemsize, 4 * macs)


def bound_s(work: Iterable[Work], rates: Rates, dtype: str) -> float:
    """Return the seconds that no implementation can beat: the sum over its passes.

    The rates are those of large tensors: what stays in a cache may be a little quicker.
    """
    return sum(part.seconds(rates, dtype) for part in work)


def measured_rates(device: torch.device, dtypes: list[str], scale: float = 1.0) -> Rates:
    """Return the best copy bandwidth and the best rate of a matrix product or dense convolution.

    They are measured in the same run as the candidates. A scale below 1 takes less memory, for a
    quick look.
    """
    on_cuda = device.type == "cuda"
    elements = int((2**30 if on_cuda else 2**26) * scale)
    copy = _copy_rate(elements, device)
    side = max(64, int((128 if on_cuda else 32) * scale) * 64)
    return Rates(copy, {dtype: _matrix_rate(dtype, side, device) for dtype in dtypes})


def _copy_rate(elements: int, device: torch.device) -> float:
    source = torch.rand(elements, device=device)
    target = torch.empty_like(source)
    return 2 * elements * source.itemsize / _least_s(partial(target.copy_, source), device)


def _matrix_rate(dtype: str, side: int, device: torch.device) -> float:
    set_precision(dtype)
    choose_by_time(device)
    a, b = (torch.randn(side, side, device=device).to(DTYPES[dtype]) for _ in range(2))
    rates = [2 * side**3 / _least_s(partial(torch.mm, a, b), device)]
    for width in (side, side // 4):
        images = a.view(-1, width, 8, 8).to(memory_format=torch.channels_last)
        weight = torch.randn(width, width, 1, 1, device=device).to(DTYPES[dtype])
        seconds = _least_s(partial(conv2d, images, weight), device)
        rates.append(2 * a.numel() * width / seconds)
    return max(rates)


def _least_s(call: Callable[[], object], device: torch.device, repeats: int = 9) -> float:
    """Return the least seconds of some calls, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[2:])
