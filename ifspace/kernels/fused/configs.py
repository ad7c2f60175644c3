"""The tiles that the kernels of the fused DW + RPW block may run with, and which one runs.

On a card those that fit the problem are timed once for each problem, and the fastest is kept. The
interpreter, a CUDA graph that meets a problem for the first time and
`torch.use_deterministic_algorithms(True)` take the first. The order of a sum follows the tile: pin
a configuration where results must agree to the bit from one process to another.
"""

from collections.abc import Callable, Hashable
from typing import Any, Final

import torch
import triton
from triton.testing import do_bench

from ifspace.errors import KernelError
from ifspace.kernels.launch import interprets, target_here
from ifspace.kernels.rpw.configs import (
    TARGETS,
    Config,
    named,
)

# "before" is the forward kernel writing the gradient before activation2.
KERNELS: Final = ("forward", "before", "weight_grad", "middle_grad")
_CUDA: Final = ("sm_80", "sm_90")
_HOPPER: Final = ("sm_90",)

# pixels, filters, channels, warps, stages, targets. With 2 stages or more the nine taps of the
# depthwise convolution are unrolled.
_Tile = tuple[int, int, int, int, int, tuple[str, ...]]
_TILES: Final[dict[str, dict[str, tuple[_Tile, ...]]]] = {
    "forward": {
        "half": (
            (16, 32, 32, 4, 1, TARGETS),
            (64, 64, 32, 4, 1, _HOPPER),
            (32, 128, 32, 4, 1, _CUDA),
            (64, 128, 32, 8, 1, _CUDA),
            (32, 256, 32, 8, 1, _HOPPER),
            (64, 256, 32, 8, 1, _HOPPER),
            (64, 128, 32, 8, 2, _HOPPER),
        ),
        "tf32": ((16, 32, 32, 4, 1, TARGETS), (64, 64, 32, 8, 1, _CUDA)),
        "ieee": ((16, 32, 32, 4, 1, TARGETS),),
    },
    "before": {
        "half": ((16, 32, 32, 4, 1, TARGETS), (64, 64, 32, 4, 1, _CUDA)),
        "tf32": ((16, 32, 32, 4, 1, TARGETS), (64, 64, 32, 8, 1, _CUDA)),
        "ieee": ((16, 32, 32, 4, 1, TARGETS),),
    },
    "weight_grad": {
        "half": (
            (32, 64, 32, 4, 1, TARGETS),
            (64, 64, 32, 8, 1, _CUDA),
            (64, 64, 64, 8, 1, _HOPPER),
        ),
        "tf32": ((32, 64, 32, 4, 1, TARGETS), (32, 64, 64, 8, 1, _CUDA)),
        "ieee": ((16, 32, 32, 4, 1, TARGETS),),
    },
    "middle_grad": {
        "half": (
            (32, 32, 32, 4, 2, TARGETS),
            (64, 64, 32, 4, 3, _CUDA),
            (64, 64, 64, 8, 3, _CUDA),
        ),
        "tf32": ((32, 32, 32, 4, 2, TARGETS), (64, 32, 64, 8, 2, _CUDA)),
        "ieee": ((16, 32, 32, 4, 2, TARGETS),),
    },
}


def configurations(kernel: str, kind: str, channels_last: bool) -> tuple[Config, ...]:
    """Return the configurations of a kernel for a kind of product ("half", "tf32" or "ieee").

    In sorted order of the filters, which reads the shortest unions of windows; for channels_last
    also in natural order, which touches filters that lie side by side and multiplies more zeros.

    >>> [config.name for config in configurations("forward", "ieee", channels_last=True)]
    ['16x32x32-sorted-w4s1', '16x32x32-natural-w4s1']
    """
    return tuple(
        Config(kernel, (kind,), *tile[:3], order, *tile[3:5], tile[5])
        for order in (("sorted", "natural") if channels_last else ("sorted",))
        for tile in _TILES[kernel][kind]
    )


def check_pins(pins: Any) -> None:
    """Refuse pins of kernels that do not exist.

    Raises: KernelError with the kernels that there are.
    """
    for kernel in pins or ():
        if kernel not in KERNELS:
            raise KernelError.because(
                "no such kernel",
                got=repr(kernel),
                allowed=", ".join(KERNELS),
                remedy="pin one of them",
                argument="configs",
            )


_fastest: dict[Hashable, Config] = {}


def run_best(
    every: tuple[Config, ...], problem: Hashable, run: Callable[[Config], Any], pinned: str | None
) -> Any:
    """Return what `run` gives under the pinned configuration, the fastest, or the first of `every`.

    `problem` is all that the speed depends on beside the configurations.

    Raises: KernelError for a pinned name that is none.
    """
    if pinned is not None:
        return run(named(every[0].kernel, pinned, every))
    if interprets() or torch.are_deterministic_algorithms_enabled():
        return run(every[0])
    key = (every, problem)
    if key not in _fastest:
        if torch.cuda.is_current_stream_capturing():
            return run(every[0])
        here = target_here()
        fit = [config for config in every if here is None or here in config.targets]
        _fastest[key] = min(fit, key=lambda config: _time_ms(run, config))
    return run(_fastest[key])


def _time_ms(run: Callable[[Config], Any], config: Config) -> float:
    try:
        return float(do_bench(lambda: run(config), warmup=5, rep=20))
    except triton.runtime.errors.OutOfResources:
        return float("inf")
