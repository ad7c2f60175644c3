"""What no implementation can beat: bytes moved once, operations at the matrix units' rate.

Both rates are measured in the same run as the candidates.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import conv2d

from ifspace.bench.kernels.cases import DTYPES, FUSED, KERNEL, Case


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


def passes(case: Case) -> tuple[Work, ...]:
    """Return the work of the forward pass and, in that mode, of the backward pass.

    Forward: x and the weights read, y written. Backward: the gradient of y, x and the weights
    read, the gradients of x and of the weights written, twice the operations. It starts from a
    gradient that exists only after y, so x is read in each.

    >>> passes(Case(1, 4, 2, 2, "1/2", mode="forward+backward"))
    (Work(moved=160, operations=64), Work(moved=256, operations=128))
    """
    layer = case.pixels * case.width
    weights, macs = case.windows.params, case.pixels * case.windows.params
    if case.kind == FUSED:
        weights += KERNEL * KERNEL * case.width
        macs += KERNEL * KERNEL * layer
    size = case.torch_dtype.itemsize
    forward = Work((2 * layer + weights) * size, 2 * macs)
    if not case.both_ways:
        return (forward,)
    return forward, Work((3 * layer + 2 * weights) * size, 4 * macs)


def bound_s(case: Case, rates: Rates) -> float:
    """Return the seconds that no implementation of the layer can beat: the sum over its passes."""
    return sum(each.seconds(rates, case.dtype) for each in passes(case))


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


def precision(dtype: str) -> None:
    """Let matrix units round float32 to tf32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


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
