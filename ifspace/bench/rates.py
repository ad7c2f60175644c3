"""What no implementation can beat: bytes moved once, operations at the matrix units' rate.

Both rates are measured in the same run as the candidates.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import conv2d

from ifspace.bench.device import DTYPES, precision


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
