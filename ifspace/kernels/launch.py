"""Launching a Triton kernel: its arguments, the tiles it may run with, and which one runs.

Nothing but the pointers of tensors and integers goes to the device: a launch may be captured in a
CUDA graph.

On a card up to `MOST_TIMED` of the configurations that fit a problem are timed once for each kind
of problem, and the fastest is kept: they are compiled beside each other, on as many cores as there
are, and what is timed is the device alone. The interpreter, a CUDA graph that meets a kind for the
first time and `torch.use_deterministic_algorithms(True)` take the default: the first, or of
problems that fill a large card the one that was the fastest of such on an H200. The order of a sum
follows the tile: for results equal to the bit from one process to another, pin a configuration or
ask torch for deterministic algorithms.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from math import gcd, prod
from statistics import median
from typing import Any, Final

import torch
import triton
from torch import Tensor
from triton.runtime.errors import OutOfResources, PTXASError

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.windows import BLOCKED, Windows

HALF: Final = (torch.float16, torch.bfloat16)
# What a program multiplies: float16 or bfloat16; float32 rounded to tf32; float32 as it is.
KINDS: Final = ("half", "tf32", "ieee")
TARGETS: Final = ("sm_80", "sm_90", "sm_100", "gfx942")
CUDA: Final = ("sm_80", "sm_90", "sm_100")
SM_90_UP: Final = ("sm_90", "sm_100")
# Shared memory that one program may take, in bytes.
SHARED_BYTES: Final = {
    "sm_80": 163 * 1024,
    "sm_90": 227 * 1024,
    "sm_100": 227 * 1024,
    "gfx942": 64 * 1024,
}
# Programs of a weight gradient that fill a large card: 4 for each of 132 multiprocessors. The
# number is fixed so that sums are split alike on every device.
PROGRAMS: Final = 528
_LARGE: Final = 2**31 - 2**16  # the last tile may reach beyond the last pixel
_LARGEST_TILE: Final = 256  # filters
Tensors = Mapping[str, Tensor | None]


@dataclass(frozen=True, slots=True)
class Config:
    """A tile of `pixels`, `filters` and `channels`, and the order in which filters are visited.

    `kind`: of product, see `KINDS`. `order`: "sorted" reads the shortest unions of windows and
    suits NCHW; "natural" touches filters that are adjacent in channels_last, and in a rolling layer
    multiplies more zeros; "woven" (RPW's forward, 2, 4, 8 or 16 windows) does that without zeros.
    `targets`: what it was compiled for within registers and shared memory. `warps` of threads;
    `stages` of loads under way.
    """

    kernel: str
    kind: str
    pixels: int
    filters: int
    channels: int
    order: str
    warps: int
    stages: int
    targets: tuple[str, ...] = TARGETS

    @property
    def name(self) -> str:
        """The name by which a caller pins it.

        >>> Config("forward", "half", 64, 64, 32, "natural", warps=4, stages=3).name
        '64x64x32-natural-w4s3'
        """
        tile = f"{self.pixels}x{self.filters}x{self.channels}"
        return f"{tile}-{self.order}-w{self.warps}s{self.stages}"

    def constants(self) -> dict[str, Any]:
        """Return the constants that a kernel is compiled with."""
        return {
            "BLOCK_M": self.pixels,
            "BLOCK_N": self.filters,
            "BLOCK_C": self.channels,
            "ORDER": self.order,
        }

    def options(self) -> dict[str, int]:
        """Return the options of the compiler."""
        return {"num_warps": self.warps, "num_stages": self.stages}


# pixels, filters, channels, warps, stages, targets
Tile = tuple[int, int, int, int, int, tuple[str, ...]]


def config_table(
    kernel: str, orders: Iterable[str], tiles: Mapping[str, tuple[Tile, ...]]
) -> tuple[Config, ...]:
    """Return the configurations of a kernel, from its tiles by kind of product."""
    return tuple(
        Config(kernel, kind, *tile[:3], order, *tile[3:5], tile[5])
        for kind, several in tiles.items()
        for tile in several
        for order in orders
    )


def named(kernel: str, name: str, configs: Iterable[Config]) -> Config:
    """Return the configuration with a name.

    Raises: KernelError for a name that is not there.
    """
    by_name = {config.name: config for config in configs}
    if name not in by_name:
        raise KernelError.because(
            f"no such configuration of {kernel} for this problem",
            got=repr(name),
            allowed=", ".join(by_name),
            remedy="pick one, or leave it out",
            argument="config",
        )
    return by_name[name]


# So many tiles of a problem are compiled and timed.
MOST_TIMED: Final = 4
# Sizes by whose powers of two a problem is of a kind, which share a tile.
_SIZES: Final = frozenset(
    (
        *("pixels", "in_channels", "out_channels", "window"),
        *("IN", "OUT", "KERNEL", "STRIDE", "BEFORE", "AFTER"),
    )
)
# Multiplications that take as long as it takes to load a number of either factor.
_LOAD: Final = 64
# Of a launch under a configuration: the programs, and the arguments that follow from the tile.
Completion = tuple[tuple[int, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Launch:
    """One call of a kernel, complete but for its configuration.

    `arguments`: tensors, integers and constants by name. `configs`: those that fit, the default
    first. `complete(config)` gives the grid and the arguments that follow from the tile. `sums`:
    names of arguments [parts, ...] in float32 whose sums over the parts are the result of `run`.
    `added_to`: names of tensors that the kernel adds to, which therefore start from zero.
    `large`: the name of a configuration that is the default instead where the device takes it.
    """

    kernel: str
    function: Any
    arguments: dict[str, Any]
    configs: tuple[Config, ...]
    complete: Callable[[Config], Completion]
    sums: tuple[str, ...] = ()
    added_to: tuple[str, ...] = ()
    large: str | None = None

    def run(self, name: str | None = None) -> tuple[Tensor | None, ...]:
        """Run under a configuration by name, or the fastest; return the sums over parts.

        Raises: KernelError for a name that is not there.
        """
        with on_device(*self.arguments.values()):
            return self.run_under(self.choose(name))

    def run_under(self, config: Config) -> tuple[Tensor | None, ...]:
        """Run under a configuration; return the sums over parts, None for an absent argument."""
        for name in self.added_to:
            self.arguments[name].zero_()
        grid, arguments = self.everything(config)
        self.function[grid](**arguments, **config.options())
        parts = (arguments[name] for name in self.sums)
        return tuple(None if part is None else part.sum(0) for part in parts)

    def everything(self, config: Config) -> Completion:
        """Return the grid and all arguments and constants under a configuration."""
        grid, arguments = self.complete(config)
        return grid, {**self.arguments, **arguments, **config.constants()}

    def choose(self, name: str | None = None) -> Config:
        """Return the configuration with a name, the fastest, or the default.

        Raises: KernelError for a name that is not there.
        """
        if name is not None:
            return named(self.kernel, name, self.configs)
        if interprets() or torch.are_deterministic_algorithms_enabled():
            return self.default()
        kind, target = self.kind(), target_here()
        fitting = [c for c in self.configs if target is None or target in c.targets]
        if _fastest.get(kind) not in fitting:
            # Nothing can be timed while a graph is captured.
            if torch.cuda.is_current_stream_capturing():
                return self.default()
            tried = self.promising(fitting)
            self.compile(tried)
            _fastest[kind] = min(tried, key=lambda config: _time_ms(self, config))
        return _fastest[kind]

    def promising(self, configs: Sequence[Config]) -> list[Config]:
        """Return up to `MOST_TIMED` configurations: the defaults, the best of each order, others.

        By a model of what a card would take: rounds of its programs, each of which multiplies a
        tile and loads its two sides.
        """

        def estimate(config: Config) -> float:
            sides = {
                "input_grad": (config.pixels, config.channels),
                "middle_grad": (config.pixels, config.channels),
                "weight_grad": (config.filters, config.channels),
            }.get(self.kernel, (config.pixels, config.filters))
            programs = prod(self.complete(config)[0])
            return max(1.0, programs / PROGRAMS) * (prod(sides) / _LOAD + sum(sides))

        ranked = sorted(configs, key=estimate)
        best = {config.order: config for config in reversed(ranked)}
        large = [config for config in configs if config.name == self.large]
        first = [configs[0], *large, *sorted(best.values(), key=estimate)]
        return list(dict.fromkeys([*first, *ranked]))[:MOST_TIMED]

    def default(self) -> Config:
        """Return the configuration that runs where none can be timed."""
        if self.large is not None and not interprets():
            target = target_here()
            for config in self.configs:
                if config.name == self.large and target in config.targets:
                    return config
        return self.configs[0]

    def compile(self, configs: Iterable[Config]) -> None:
        """Compile the kernel under some configurations, beside each other.

        What does not compile is left to its launch, which raises.
        """
        with (
            ThreadPoolExecutor(os.cpu_count()) as threads,
            triton.AsyncCompileMode(threads, ignore_errors=True),
        ):
            for config in configs:
                grid, arguments = self.everything(config)
                self.function.warmup(grid=grid, **arguments, **config.options())

    def kind(self) -> Hashable:
        """Return what problems share that run under the same configuration.

        That is everything but the sizes, and of some sizes the powers of two below which they are.
        """
        looks: list[Hashable] = [self.kernel]
        for name, value in self.arguments.items():
            if isinstance(value, Tensor):
                looks += [value.dtype, value.device]
            elif isinstance(value, bool) or not isinstance(value, int):
                looks.append(value)
            elif name in _SIZES:
                looks.append(value.bit_length())
            elif name.endswith("_c"):
                looks.append(value == 1)  # channels_last
        return tuple(looks)


_fastest: dict[Hashable, Config] = {}

# How a configuration is timed: rounds, fewer once they have taken so many milliseconds; bytes that
# overwrite any L2 cache; cycles of sleep in which a launch is queued, about 0.2 ms.
_ROUNDS, _LEAST_ROUNDS, _BUDGET_MS = 20, 3, 20.0
_CACHE_BYTES: Final = 2**28
_QUEUE_CYCLES: Final = 400_000


def _time_ms(launch: Launch, config: Config) -> float:
    """Return the median milliseconds of a launch on the device; infinity where it cannot run.

    The L2 cache is overwritten before each. The device sleeps until a launch is queued: else what
    is timed of a kernel of some microseconds is the host, which takes longer than that.
    """
    try:
        launch.run_under(config)
    except (OutOfResources, PTXASError):
        return float("inf")
    cache = torch.empty(_CACHE_BYTES, dtype=torch.int8, device="cuda")
    times: list[float] = []
    while len(times) < _LEAST_ROUNDS or (len(times) < _ROUNDS and sum(times) < _BUDGET_MS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda._sleep(_QUEUE_CYCLES)  # type: ignore[no-untyped-call]
        cache.zero_()
        start.record()
        launch.run_under(config)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return median(times)


# ---- the arguments that all kernels share


def shared_arguments(tensors: Tensors, windows: Windows, fp32: str | None) -> dict[str, Any]:
    """Return the tensors, their strides, the sizes of the windows, and constants, by name.

    `tensors`: arguments of the kernel by name; the first is the one that it reads, and an argument
    that is None is compiled away. Strides are those of x, grad, y and out [N, C, H, W].
    """
    arguments: dict[str, Any] = dict(tensors)
    for name in ("x", "grad", "y", "out"):
        image = tensors.get(name)
        if image is not None:
            arguments |= stride_arguments(name, image)
    first = next(tensor for tensor in tensors.values() if tensor is not None)
    return arguments | {
        **window_sizes(windows),
        "VECTOR": vector_of(windows),
        "BLOCKED": is_blocked(windows),
        "PRECISION": precision_of(first.dtype, fp32),
        # The interpreter has no bfloat16 products.
        "EXACT": interprets() and first.dtype == torch.bfloat16,
    }


def stride_arguments(name: str, image: Tensor) -> dict[str, int]:
    """Return the strides of an argument [N, C, H, W] by the names of their arguments."""
    return dict(zip((f"{name}_{axis}" for axis in "nchw"), pixel_strides(image), strict=True))


def pixel_strides(image: Tensor) -> tuple[int, int, int, int]:
    """Return the strides of [N, C, H, W], those of axes of length 1 such that pixels are even.

    >>> pixel_strides(torch.empty(2, 3, 5, 1))
    (15, 5, 1, 1)
    """
    s_n, s_c, s_h, s_w = image.stride()
    _, _, height, width = image.shape
    if width == 1:
        s_w = s_h if height > 1 else s_n
    if height == 1:
        s_h = width * s_w
    return s_n, s_c, s_h, s_w


def is_wide(tensors: Iterable[Tensor | None], pixels: int, windows: Windows) -> bool:
    """Return whether some index or address needs more than 32 bits."""
    reach = [windows.distinct**2, windows.params + windows.out_channels, pixels]
    if is_blocked(windows):
        reach.append(windows.distinct * (windows.out_channels + _LARGEST_TILE))
    for tensor in tensors:
        if tensor is not None:
            spans = zip(tensor.shape, tensor.stride(), strict=True)
            reach.append(sum((size - 1) * stride for size, stride in spans))
    return max(reach) >= _LARGE


@cache
def window_sizes(windows: Windows) -> dict[str, int]:
    """Return the sizes of the windows by the names of their arguments: see `rpw.triton`.

    >>> from ifspace.kernels.windows import windows_of
    >>> window_sizes(windows_of(16, 10, groups=2, overlap=0.33))  # doctest: +NORMALIZE_WHITESPACE
    {'in_channels': 16, 'out_channels': 10, 'window': 16, 'step': 6, 'unit': 2, 'distinct': 8,
     'share': 2, 'inverse': 3}
    """
    unit, distinct = gcd(windows.step, windows.in_channels), windows.distinct
    return {
        "in_channels": windows.in_channels,
        "out_channels": windows.out_channels,
        "window": filled_width(windows),
        "step": windows.step,
        "unit": unit,
        "distinct": distinct,
        "share": -(-windows.out_channels // distinct),
        "inverse": pow(windows.step // unit, -1, distinct),
    }


def is_blocked(windows: Windows) -> bool:
    """Return whether neighbouring filters share a window: the constant BLOCKED of the kernels."""
    return windows.order == BLOCKED


def starts_in_turn(windows: Windows) -> bool:
    """Return whether each window starts after the one before it: whether the step divides C_in.

    >>> from ifspace.kernels.windows import windows_of
    >>> [starts_in_turn(windows_of(512, 512, 4, overlap)) for overlap in ("1/2", "0.33")]
    [True, False]
    """
    return windows.in_channels % windows.step == 0


def is_plain(windows: Windows) -> bool:
    """Return whether neighbouring filters share windows that are neighbours too.

    Then natural order reads unions as short as sorted order does, and visits no filter that does
    not exist: sorted order has nothing to offer.
    """
    return is_blocked(windows) and starts_in_turn(windows)


def is_in_one_window(windows: Windows, filters: int) -> bool:
    """Return whether every tile of so many filters, in natural order, reads a single window.

    >>> from ifspace.kernels.windows import windows_of
    >>> blocked = windows_of(512, 512, 4, "1/2", BLOCKED)  # 64 filters for each of 8 windows
    >>> [is_in_one_window(blocked, filters) for filters in (32, 64, 128)]
    [True, True, False]
    """
    share, rest = divmod(windows.out_channels, windows.distinct)
    return is_blocked(windows) and rest == 0 and share % filters == 0


def vector_of(windows: Windows) -> int:
    """Return how many channels are read at a time, at most 16: a divisor of C_in."""
    return gcd(windows.in_channels, 16)


def align_of(windows: Windows) -> int:
    """Return how many adjacent filters are read at a time, at most 16: a divisor of C_out."""
    return gcd(windows.out_channels, 16)


def needs_filling(windows: Windows) -> bool:
    """Return whether some window does not start at, or consist of, whole vectors.

    A window of all channels too is filled where it starts between: its weights are rotated.
    """
    vector = vector_of(windows)
    return windows.step % vector != 0 or windows.width % vector != 0


def filled_width(windows: Windows) -> int:
    """Return the width of the windows in whole vectors; that of the windows where these fit.

    >>> from ifspace.kernels.windows import windows_of
    >>> [filled_width(windows_of(512, 512, 4, overlap)) for overlap in ("1/2", "0.33")]
    [128, 144]
    """
    vector = vector_of(windows)
    before = vector - gcd(windows.step, vector)  # the most that a start is rounded down
    return min(-(-(windows.width + before) // vector) * vector, windows.in_channels)


def count_indices(windows: Windows, order: str) -> int:
    """Return how many indices filters take in an order: the sorted order has holes."""
    sizes = window_sizes(windows)
    return sizes["distinct"] * sizes["share"] if order == "sorted" else windows.out_channels


def longest_union(windows: Windows, filters: int, order: str) -> int:
    """Return an upper bound on the channels that a tile of filters reads: see `union_of`."""
    sizes = window_sizes(windows)
    if order == "natural":
        turns = filters - 1
        if is_blocked(windows):
            turns = triton.cdiv(turns * windows.distinct, windows.out_channels)
        reach = turns * windows.step
    else:
        # A tile that starts inside the filters of one window touches one window more.
        reach = triton.cdiv(filters - 1, sizes["share"]) * sizes["unit"]
    return int(min(reach + vector_of(windows) + sizes["window"], windows.in_channels))


# ---- precision, devices, and where kernels run


def precision_of(dtype: torch.dtype, fp32: str | None) -> str:
    """Return how float32 is multiplied: "tf32" or "ieee", by default as torch's matmul on CUDA.

    Raises: KernelError for another precision.
    """
    if fp32 not in (None, "tf32", "ieee"):
        raise KernelError.because(
            "no such precision of float32",
            got=repr(fp32),
            allowed="tf32, ieee",
            remedy="leave it out to follow torch",
            argument="fp32",
        )
    if dtype in HALF:
        return "tf32"  # not used: products of half precision are exact
    if fp32 is None:
        # The precision of matrix products, and where that is not set the one of all operations.
        of_all = str(getattr(torch.backends, "fp32_precision", "none"))
        settings = (torch.backends.cuda.matmul.fp32_precision, of_all)
        fp32 = "tf32" if next((s for s in settings if s != "none"), "ieee") == "tf32" else "ieee"
    return fp32


def kind_of(dtype: torch.dtype, precision: str) -> str:
    """Return the kind of product of tensors, one of `KINDS`."""
    return "half" if dtype in HALF else precision


def check_runnable(x: Tensor) -> None:
    """Check that the kernels run on a tensor.

    Raises: DeviceError for a device that is not CUDA (but under Triton's interpreter), and for
        dtypes other than float16, bfloat16 and float32.
    """
    if x.dtype not in (*HALF, torch.float32):
        raise DeviceError.because(
            "triton kernels do not compute in this type",
            got=str(x.dtype),
            allowed="float16, bfloat16, float32",
            remedy="use impl reference",
        )
    if x.device.type != "cuda" and not (x.device.type == "cpu" and interprets()):
        raise DeviceError.because(
            "triton kernels run on CUDA devices",
            got=f"a tensor on {x.device}",
            allowed="cuda; cpu where TRITON_INTERPRET=1 was set before triton was imported",
            remedy="move the tensors, or use impl auto",
        )


@cache
def interprets() -> bool:
    """Return whether Triton was imported under its interpreter, which takes tensors on the CPU."""
    return bool(triton.knobs.runtime.interpret)


def target_here() -> str | None:
    """Return the compiler's name for the current device, or None for one without a table."""
    if torch.version.hip:
        name = str(torch.cuda.get_device_properties().gcnArchName).partition(":")[0]
        return name if name == "gfx942" else None
    major, _ = torch.cuda.get_device_capability()
    return {8: "sm_80", 9: "sm_90", 10: "sm_100"}.get(major)


def on_device(*arguments: Any) -> AbstractContextManager[Any]:
    """Return a context in which the device of the first CUDA tensor is current, as triton needs."""
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.is_cuda:
            is_current = argument.get_device() == torch.cuda.current_device()
            return nullcontext() if is_current else torch.cuda.device(argument.device)
    return nullcontext()


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor without gaps, or None for None."""
    return None if tensor is None else tensor.contiguous()
