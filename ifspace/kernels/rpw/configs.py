"""The tiles that the Triton kernels of RPW may run with: a table by name, listed and pinned here.

On a card triton.autotune times those that fit the problem, once for each problem, and keeps the
fastest. The interpreter, a CUDA graph that meets a problem for the first time and
`torch.use_deterministic_algorithms(True)` take `default`. The order of a sum follows the tile: for
results equal to the bit from one process to another, pin a configuration or ask torch for
deterministic algorithms.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ifspace.errors import KernelError

# What a program multiplies: float16 or bfloat16; float32 rounded to tf32; float32 as it is.
KINDS: Final = ("half", "tf32", "ieee")
TARGETS: Final = ("sm_80", "sm_90", "gfx942")
# Shared memory that one program may take, in bytes.
SHARED_BYTES: Final = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}


@dataclass(frozen=True, slots=True)
class Config:
    """A tile of `pixels`, `filters` and `channels`, and how a kernel goes through the filters.

    `order`: "sorted" reads the shortest unions of windows and suits NCHW; "natural" touches
    filters that lie side by side in channels_last, and multiplies more zeros; "woven" (forward,
    2, 4, 8 or 16 windows) does that without zeros. `targets`: what it was compiled for within
    registers and shared memory. `warps` of threads; `stages` of loads under way.
    """

    kernel: str
    kinds: tuple[str, ...]
    pixels: int
    filters: int
    channels: int
    order: str
    warps: int
    stages: int
    targets: tuple[str, ...] = TARGETS

    @property
    def name(self) -> str:
        """What a caller pins it by.

        >>> CONFIGS[0].name
        '64x64x32-natural-w4s3'
        """
        tile = f"{self.pixels}x{self.filters}x{self.channels}"
        return f"{tile}-{self.order}-w{self.warps}s{self.stages}"

    def constants(self) -> dict[str, Any]:
        """Return what a kernel is compiled for."""
        return {
            "BLOCK_M": self.pixels,
            "BLOCK_N": self.filters,
            "BLOCK_C": self.channels,
            "ORDER": self.order,
        }

    def options(self) -> dict[str, int]:
        """Return how it is compiled."""
        return {"num_warps": self.warps, "num_stages": self.stages}


# pixels, filters, channels, warps, stages, targets
_Tile = tuple[int, int, int, int, int, tuple[str, ...]]
_CUDA: Final = ("sm_80", "sm_90")
_HOPPER: Final = ("sm_90",)


def _table(
    kernel: str, orders: Iterable[str], tiles: dict[str, tuple[_Tile, ...]]
) -> tuple[Config, ...]:
    return tuple(
        Config(kernel, (kind,), *numbers[:3], order, *numbers[3:5], numbers[5])
        for kind, several in tiles.items()
        for numbers in several
        for order in orders
    )


# Of one kernel and kind the first that suits is the default. Left out of a target is what spills
# there, under triton 3.6 or 3.7, or takes more shared memory than it has.
CONFIGS: Final[tuple[Config, ...]] = (
    *_table(
        "forward",
        ("natural", "sorted"),
        {
            "half": (
                (64, 64, 32, 4, 3, TARGETS),
                (128, 64, 64, 4, 3, _CUDA),
                (128, 128, 32, 8, 3, TARGETS),
                (128, 128, 64, 8, 3, _CUDA),
            ),
            "tf32": ((64, 64, 32, 4, 2, TARGETS), (128, 128, 32, 8, 3, _CUDA)),
            "ieee": ((32, 64, 16, 4, 2, TARGETS),),
        },
    ),
    *_table("forward", ("natural",), {"half": ((128, 256, 64, 8, 3, _HOPPER),)}),
    *_table(
        "forward",
        ("woven",),
        {
            "half": (
                (64, 128, 32, 4, 3, _CUDA),
                (128, 128, 32, 8, 2, _CUDA),
                (64, 128, 16, 4, 2, TARGETS),
            ),
        },
    ),
    *_table(
        "input_grad",
        ("natural", "sorted"),
        {
            "half": (
                (64, 32, 64, 4, 3, TARGETS),
                (128, 64, 64, 4, 3, _CUDA),
                (128, 64, 128, 8, 3, _CUDA),
            ),
            "tf32": ((64, 32, 64, 4, 2, TARGETS), (128, 32, 128, 8, 3, _CUDA)),
            "ieee": ((32, 16, 64, 4, 2, TARGETS),),
        },
    ),
    *_table("input_grad", ("natural",), {"half": ((128, 64, 256, 8, 3, _CUDA),)}),
    *_table(
        "weight_grad",
        ("natural", "sorted"),
        {
            "half": ((32, 64, 64, 4, 3, TARGETS), (64, 64, 64, 4, 3, _CUDA)),
            "tf32": ((32, 64, 64, 4, 2, TARGETS), (32, 128, 128, 8, 3, _CUDA)),
            "ieee": ((16, 32, 64, 4, 2, TARGETS),),
        },
    ),
    *_table(
        "weight_grad",
        ("natural",),
        {
            "half": ((64, 128, 128, 8, 3, _CUDA), (64, 128, 64, 4, 3, _HOPPER)),
        },
    ),
    *_table(
        "weight_grad",
        ("sorted",),
        {
            "half": ((64, 128, 64, 4, 3, _HOPPER),),
        },
    ),
)
KERNELS: Final = tuple(dict.fromkeys(config.kernel for config in CONFIGS))

# Sums that a tile may hold, of each window that it weaves and with addresses of 64 bits.
_WOVEN_AREA: Final = 64 * 64
_WIDE_AREA: Final = 128 * 64

_pins: dict[str, str] = {}


def configurations(kernel: str, kind: str | None = None) -> tuple[Config, ...]:
    """Return the configurations of a kernel, of one kind of product or of all.

    >>> [config.name for config in configurations("weight_grad", "ieee")]
    ['16x32x64-natural-w4s2', '16x32x64-sorted-w4s2']

    Raises: KernelError for a kernel that is none.
    """
    found = tuple(
        config
        for config in CONFIGS
        if config.kernel == kernel and (kind is None or kind in config.kinds)
    )
    if not found:
        raise KernelError.because(
            "no such kernel",
            got=f"{kernel!r} for {kind or 'any kind'}",
            allowed=f"{', '.join(KERNELS)}; {', '.join(KINDS)}",
            remedy="pick one",
        )
    return found


def suitable(
    kernel: str, kind: str, woven: int, channels_last: bool, wide: bool = False
) -> tuple[Config, ...]:
    """Return the configurations that fit a problem, the default first.

    `woven`: how many windows may be interleaved, 1 for none. `wide`: addresses have 64 bits, for
    which the largest tiles have no registers left.
    """

    def fits(config: Config) -> bool:
        area = config.pixels * config.filters
        if config.order == "woven":
            few = 1 < woven <= config.filters // 8
            return channels_last and few and area // woven <= _WOVEN_AREA
        if wide and config.order == "sorted":
            return kernel != "weight_grad" and area <= _WIDE_AREA
        return True

    fit = [config for config in configurations(kernel, kind) if fits(config)]
    # The sort is stable: of the order that suits the layout, the first in the table.
    return tuple(sorted(fit, key=lambda config: (config.order == "sorted") == channels_last))


def named(kernel: str, name: str, among: Iterable[Config]) -> Config:
    """Return the configuration with a name among those that fit.

    Raises: KernelError for a name that is not there.
    """
    fit = {config.name: config for config in among}
    if name not in fit:
        raise KernelError.because(
            f"no such configuration of {kernel} for this problem",
            got=repr(name),
            allowed=", ".join(fit),
            remedy="pick one, or leave it out",
            argument="config",
        )
    return fit[name]


def pin(kernel: str, name: str | None) -> None:
    """Let a kernel of RPW run under one configuration from now on; None gives the choice back.

    A call for which it is not made raises KernelError. A caller's own `config` comes before it.

    Raises: KernelError for a kernel or a name that does not exist.
    """
    every = configurations(kernel)
    if name is None:
        _pins.pop(kernel, None)
    else:
        _pins[kernel] = named(kernel, name, every).name


def pinned(kernel: str) -> str | None:
    """Return the name that a kernel is pinned to, or None.

    >>> pin("forward", "64x64x32-sorted-w4s3")
    >>> pinned("forward")
    '64x64x32-sorted-w4s3'
    >>> pin("forward", None)
    """
    return _pins.get(kernel)
