"""Which way computes a thin layer fastest on this CPU: a model of measured times.

The ways are the compiled loops of `ifspace.kernels.chain`, torch's grouped convolution, and the
dense convolution with zeros. For each way, function, type and layout a time is a sum of five
features (a call, weights, multiplications, and two of what is read and written), each with a
constant of nanoseconds, none negative, for one thread: only the order of the ways matters. The
constants that come with ifspace were measured on two machines, one with vectors of 256 bits and one
with 512: those of the same width count. Torch computes what the loops are not expected to compute
in nine tenths of its time, and layers that read more channels than any that was measured;

    python -m ifspace.kernels.costs

measures them here, in a few minutes, and keeps them in the user's cache folder. IFSPACE_COSTS
names another file.
"""

import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from statistics import geometric_mean
from tempfile import NamedTemporaryFile
from time import perf_counter, thread_time
from typing import Any, Final, NamedTuple

import torch

from ifspace.errors import OutputError

COMPILED, GROUPED, DENSE = "compiled", "grouped", "dense"
FUNCTIONS: Final = ("forward", "input_grad", "weight_grad")
DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
# The constants that come with ifspace: of machines with vectors of 512 and of 256 bits.
PACKAGED: Final = tuple(Path(__file__).with_name(f"costs-{bits}.json") for bits in (512, 256))
# Constants of a way: a time is the sum of their products with `Layer.features`.
FEATURES: Final = 5
# Pixels of the narrowest vector: a row takes the compiled loops as long as one that fills its last.
VECTOR_PIXELS: Final = 8
# The compiled loops are chosen if they are expected to take at most this share of another way.
SURELY: Final = 0.9
# Times of a case, of which the least counts, and the most seconds for all of them.
REPEATS: Final = 12
CASE_S: Final = 0.15


class Layer(NamedTuple):
    """What a time depends on, for one layer and batch.

    `together`: how many filters share what the compiled loops read; for an input's gradient, how
    many channels share the filters that read them. `pixels_in`, `pixels_out`: of all images; `row`:
    the pixels of an output row, or of a whole map where the kernel is 1. `groups`: of the grouped
    convolution that computes it, or 0; `dense`: whether a dense convolution may; `stride`: of both
    axes.
    """

    c_in: int
    c_out: int
    fan_in: int
    kernel: int
    pixels_in: int
    pixels_out: int
    row: int
    together: int
    groups: int
    dense: bool
    stride: int = 1

    @property
    def shapes(self) -> tuple[str, ...]:
        """The names of the layer's kind in a table of constants, the first that is there counts."""
        kind = "pointwise" if self.kernel == 1 else "depthwise" if self.fan_in == 1 else "spatial"
        return (kind,) if self.stride == 1 else (f"strided {kind}", kind)

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways that compute the layer."""
        return (COMPILED, *(GROUPED,) * (self.groups > 0), *(DENSE,) * self.dense)

    def features(self, way: str) -> tuple[int, int, int, int, int]:
        """Return the five features of a way."""
        c_in, c_out, pixels = self.c_in, self.c_out, self.pixels_out
        moved = c_in * self.pixels_in + c_out * pixels
        weights = c_out * self.fan_in * self.kernel**2
        if way == DENSE:
            return 1, c_in * c_out, c_in * c_out * pixels, 0, moved
        if way == GROUPED:
            return 1, weights, weights * pixels, self.groups * pixels, moved
        rows = pixels // self.row if pixels else 0
        filled = rows * -(-self.row // VECTOR_PIXELS) * VECTOR_PIXELS
        return 1, weights, weights * filled, weights * filled // self.together, moved


@dataclass(frozen=True, slots=True)
class Costs:
    """The constants of a machine: `rows` by "dtype layout shape function way".

    `widest`: the most channels that a filter read in what was measured, by shape.
    """

    machine: str
    rows: dict[str, list[float]]
    widest: dict[str, int]

    def time_ns(self, layer: Layer, function: str, way: str, dtype: torch.dtype, last: bool) -> Any:
        """Return the nanoseconds of a way, or None where it was not measured."""
        for shape in layer.shapes:
            row = self.rows.get(_key(shape, function, way, dtype, last))
            if row is not None:
                return sum(cost * n for cost, n in zip(row, layer.features(way), strict=True))
        return None

    def choose(
        self, layer: Layer, function: str, dtype: torch.dtype, channels_last: bool
    ) -> "Choice":
        """Return the way expected to be the fastest, torch's where that is nearly as fast."""
        times = [
            (way, self.time_ns(layer, function, way, dtype, channels_last)) for way in layer.ways
        ]
        if any(time is None for _, time in times):
            return Choice(COMPILED, (), self.machine)
        (_, compiled), *others = times
        others.sort(key=lambda row: row[1])
        widest = next((self.widest[shape] for shape in layer.shapes if shape in self.widest), 0)
        is_known = layer.fan_in <= widest
        is_faster = not others or (is_known and compiled <= SURELY * others[0][1])
        note = "" if is_known or not others else f"; of at most {widest} channels a filter"
        way = COMPILED if is_faster else others[0][0]
        return Choice(way, tuple(times), f"{self.machine}{note}")


@dataclass(frozen=True, slots=True)
class Choice:
    """The way that is expected to be the fastest, and what was expected of all, in nanoseconds."""

    way: str
    times_ns: tuple[tuple[str, float], ...]
    machine: str

    def __str__(self) -> str:
        """Return one line that says which way and why."""
        return f"{self.way} ({self.reason})"

    @property
    def reason(self) -> str:
        """What was expected of all ways."""
        if not self.times_ns:
            return "the other ways have not been measured"
        times = ", ".join(f"{way} {time / 1000:.0f} us" for way, time in self.times_ns)
        return f"{times}; constants of {self.machine}"


@lru_cache(maxsize=4096)
def choose(layer: Layer, function: str, dtype: torch.dtype, channels_last: bool) -> Choice:
    """Return the way expected to be the fastest for a function of a layer on one thread.

    >>> layer = Layer(64, 64, 4, 1, 50176, 50176, 50176, 4, 16, dense=False)
    >>> choose(layer, "forward", torch.float32, channels_last=False).way
    'compiled'
    """
    return load().choose(layer, function, dtype, channels_last)


@cache
def load() -> Costs:
    """Return the constants: of IFSPACE_COSTS, else measured here, else those of the package.

    A file that has none, or those of another model, is passed over.
    """
    own = os.environ.get("IFSPACE_COSTS")
    paths = [Path(own)] if own else []
    with suppress(RuntimeError):  # a user without a home
        paths.append(cache_path())
    has_512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    for path in (*paths, *(PACKAGED if has_512 else PACKAGED[::-1])):
        with suppress(OSError, ValueError, TypeError, AttributeError):
            costs = Costs(**json.loads(path.read_text(encoding="utf-8")))
            if all(map(_is_row, costs.rows.values())) and isinstance(costs.widest, dict):
                return costs
    return Costs("no machine", {}, {})


def _is_row(row: Any) -> bool:
    return len(row) == FEATURES and all(isinstance(cost, int | float) for cost in row)


def cache_path() -> Path:
    """Return the path of the user's own constants."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "ifspace" / "costs.json"


def machine() -> str:
    """Return the name of this processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _key(shape: str, function: str, way: str, dtype: torch.dtype, last: bool) -> str:
    name = str(dtype).removeprefix("torch.")
    return f"{name} {'channels_last' if last else 'nchw'} {shape} {function} {way}"


# ---- measuring


class Sample(NamedTuple):
    """A layer that is measured: images, channels, channels a filter reads, kernel, size.

    `step`: channels from a window to the next; with fewer than a filter reads it is an RPW layer.
    """

    images: int
    channels: int
    fan_in: int
    kernel: int
    side: int
    step: int
    stride: int = 1

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that the compiled loops have."""
        return FUNCTIONS if self.stride == 1 else ("forward", "weight_grad")

    @property
    def stage(self) -> Any:
        """The layer as the compiled loops see it."""
        from ifspace.kernels.chain.stages import Stage

        order = "blocked" if self.step == self.fan_in else "rolling"
        sizes = self.channels, self.channels, self.fan_in, self.step
        return Stage(*sizes, order, self.kernel, self.stride, self.kernel // 2)

    def layer(self, function: str) -> Layer:
        """Return what its times depend on."""
        from ifspace.kernels.chain.stages import gradient_of

        out, is_grouped = self.stage.size_of(self.side), self.step == self.fan_in
        pixels = self.images * self.side**2, self.images * out**2
        own = gradient_of(self.stage) if function == "input_grad" else self.stage
        groups = is_grouped * (self.channels // self.fan_in)
        row, is_dense = out**2 if self.kernel == 1 else out, self.kernel == self.stride == 1
        sizes = self.channels, self.channels, self.fan_in, self.kernel, *pixels, row
        return Layer(*sizes, own.together, groups, is_dense, self.stride)


SAMPLES: Final = (
    *(
        Sample(images, channels, fan_in, 1, side, step)
        for images, channels, side in (
            (1, 64, 14), (1, 64, 28), (1, 128, 28), (1, 512, 7), (1, 512, 14), (8, 128, 14),
            (4, 256, 14),
        )
        for fan_in in (4, 16, 32, channels // 4, channels // 2)
        for step in (fan_in, fan_in // 2, fan_in - fan_in // 3)
    ),
    *(
        Sample(images, channels, 1, kernel, side, 1)
        for images, channels, side in (
            (1, 64, 56), (1, 128, 28), (1, 256, 14), (1, 512, 7), (4, 64, 28), (8, 128, 14),
        )
        for kernel in (3, 5)
    ),
    *(
        Sample(images, channels, fan_in, 3, side, fan_in)
        for images, channels, side in (
            (1, 64, 28), (1, 128, 14), (4, 64, 14), (4, 128, 14), (1, 256, 10), (1, 256, 7),
        )
        for fan_in in (2, 4, 8, 16, 32, 64)
    ),
    *(
        Sample(images, channels, fan_in, 1, side, fan_in, 2)
        for images, channels, side in (
            (1, 64, 56), (1, 128, 28), (1, 256, 14), (4, 64, 28), (2, 128, 28),
        )
        for fan_in in (16, channels // 4, channels)
    ),
    *(
        Sample(images, channels, 1, kernel, side, 1, 2)
        for images, channels, side in (
            (1, 96, 112), (1, 144, 56), (1, 240, 28), (1, 672, 14), (4, 64, 28), (8, 128, 14),
        )
        for kernel in (3, 5)
    ),
    *(
        Sample(images, channels, fan_in, 3, side, fan_in, 2)
        for images, channels, side in (
            (1, 64, 56), (1, 128, 28), (4, 64, 28), (1, 256, 14),
        )
        for fan_in in (4, 16, 64)
    ),
)  # fmt: skip


def ways_of(
    sample: Sample, function: str, dtype: torch.dtype, channels_last: bool
) -> dict[str, Callable[[], Any]]:
    """Return a call of each way for a function of a sample."""
    from ifspace.kernels.chain import layer as layers
    from ifspace.kernels.rpw import cpu
    from ifspace.kernels.windows import windows_at

    layout = torch.channels_last if channels_last else torch.contiguous_format
    c, fan_in, k = sample.channels, sample.fan_in, sample.kernel
    stage, stride = sample.stage, sample.stride
    x, grad = (
        torch.randn(sample.images, c, side, side).to(dtype).contiguous(memory_format=layout)
        for side in (sample.side, stage.size_of(sample.side))
    )
    weight = torch.randn(c, fan_in, k, k).to(dtype)
    groups, padding = c // fan_in, k // 2
    windows = windows_at(c, c, fan_in, sample.step, "rolling")
    narrow, dense = weight.view(c, -1), cpu.Plan()

    def backward(*mask: bool) -> Any:
        numbers = [stride] * 2, [padding, padding], [1, 1], False, [0, 0], groups
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *numbers, mask)

    def grouped() -> Any:
        if k == stride == 1:  # with what an RPW layer does before and after
            return cpu.grouped(x, narrow, None, windows)
        return torch.conv2d(x, weight, None, stride, padding, 1, groups)

    calls: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {
            COMPILED: lambda: layers.forward(x, weight, None, stage),
            GROUPED: grouped,
            DENSE: lambda: cpu.forward(x, narrow, None, windows, dense),
        },
        "input_grad": {
            COMPILED: lambda: layers.input_grad(grad, weight, stage),
            GROUPED: lambda: backward(True, False, False),
            DENSE: lambda: cpu.input_grad(grad, narrow, windows, dense),
        },
        "weight_grad": {
            COMPILED: lambda: layers.weight_grad(grad, x, stage),
            GROUPED: lambda: backward(False, True, False),
            DENSE: lambda: cpu.weight_grad(grad, x, windows, False, dense),
        },
    }
    ways = calls[function]
    return {way: ways[way] for way in sample.layer(function).ways}


def least_times(calls: list[Callable[[], Any]]) -> list[float]:
    """Return the least nanoseconds of this thread for each call, of runs that take turns."""
    for call in calls:
        call()
    times = [float("inf")] * len(calls)
    begin = perf_counter()
    for _ in range(REPEATS):
        for number, call in enumerate(calls):
            start = thread_time()
            call()
            times[number] = min(times[number], (thread_time() - start) * 1e9)
        if perf_counter() - begin > CASE_S:
            break
    return times


def measure(note: Callable[[str], None]) -> tuple[Costs, list[tuple[str, float, float]]]:
    """Measure all samples on one thread and fit the constants.

    The second result has, for each type, layout and function, the share of samples whose fastest
    way is chosen, and how much longer the chosen ways take than the fastest, on average.
    """
    import numpy as np
    from scipy.optimize import nnls

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: dict[str, list[float]] = {}
    widest: dict[str, int] = {}
    for sample in SAMPLES:
        shape = sample.layer("forward").shapes[0]
        widest[shape] = max(widest.get(shape, 0), sample.fan_in)
    quality = []
    try:
        for dtype, last, function in product(DTYPES, (False, True), FUNCTIONS):
            measured: list[tuple[Layer, dict[str, float]]] = []
            for sample in SAMPLES:
                if function not in sample.functions:
                    continue
                ways = ways_of(sample, function, dtype, last)
                times = least_times(list(ways.values()))
                measured.append((sample.layer(function), dict(zip(ways, times, strict=True))))
            for shape, way in product(widest, (COMPILED, GROUPED, DENSE)):
                cases = [
                    (layer.features(way), times[way])
                    for layer, times in measured
                    if layer.shapes[0] == shape and way in times
                ]
                if cases:
                    table = np.array([features for features, _ in cases], dtype=float)
                    seconds = np.array([time for _, time in cases])
                    scale = table.max(0) + (table.max(0) == 0)
                    solution, _ = nnls(
                        table / scale / seconds[:, None], np.ones(len(cases)), maxiter=10_000
                    )
                    key = _key(shape, function, way, dtype, last)
                    rows[key] = [float(f"{value:.3g}") for value in solution / scale]
            quality.append(_quality(Costs("", rows, widest), measured, function, dtype, last))
            note(f"{quality[-1][0]}: {quality[-1][1]:.0%} right, {quality[-1][2]:.2f} of the best")
    finally:
        torch.set_num_threads(threads)
    return Costs(machine(), rows, widest), quality


def _quality(
    costs: Costs,
    measured: list[tuple[Layer, dict[str, float]]],
    function: str,
    dtype: torch.dtype,
    last: bool,
) -> tuple[str, float, float]:
    ratios = []
    for layer, times in measured:
        chosen = costs.choose(layer, function, dtype, last).way
        ratios.append(times[chosen] / min(times.values()))
    name = f"{str(dtype).removeprefix('torch.')} {'channels_last' if last else 'nchw'} {function}"
    return name, sum(ratio == 1 for ratio in ratios) / len(ratios), geometric_mean(ratios)


def main() -> None:
    """Measure the constants of this machine and keep them in the user's cache folder."""
    path = Path(os.environ.get("IFSPACE_COSTS") or cache_path())
    try:  # before minutes are spent
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as fault:
        error = OutputError.because(
            "the constants cannot be kept",
            got=f"{path}: {fault.strerror}",
            allowed="a file in a folder that can be written",
            remedy="name another one in IFSPACE_COSTS",
        )
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - a program
        sys.exit(2)
    costs, _ = measure(lambda line: print(line, flush=True))  # noqa: T201
    text = json.dumps(asdict(costs), indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{len(costs.rows)} rows of constants of {costs.machine} in {path}")  # noqa: T201


if __name__ == "__main__":
    main()
