"""Latencies of a network's own layers and of the blocks in their place, measured here.

Of each shape the layer and all its candidates are timed in turn by the clock of `ifspace.bench`, as
the network runs them: in evaluation mode, each as a module of its own. The least of the rounds
counts. Times are kept in a file of the user, one for each device, version of torch, number of
threads and batch, which grows shape by shape: the same command goes on where it stopped.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from ifspace.bench.clock import Limits, first_call, interleaved
from ifspace.bench.machine import file_safe, find_device, this_machine
from ifspace.block import SizedBlock
from ifspace.kernels.costs import cache_path
from ifspace.latency import Latency
from ifspace.models.graph import ImageSize, Size
from ifspace.models.replaceable import ReplaceableConv
from ifspace.nn.block import PLAIN, BlockModule, LastAxisBlock, Style
from ifspace.nn.checks import evaluated
from ifspace.storage import replacing
from ifspace.values import counted

Plan = TypeVar("Plan")
# A candidate for the place of a layer and its style; None is the layer as it is.
Candidate = tuple[SizedBlock | None, Style]
# Of the candidates of one shape, of one layer, and of two networks.
CANDIDATES: Final = Limits(budget_s=0.5, min_rounds=3, max_rounds=30, slow_s=0.5, once_s=2.0)
LAYERS: Final = Limits(budget_s=0.05, min_rounds=3, max_rounds=20, slow_s=0.5, once_s=2.0)
NETWORKS: Final = Limits(budget_s=3.0, min_rounds=5, max_rounds=50, slow_s=30.0, once_s=60.0)
# A network that takes more than its budget, or less than such a share of it, is planned again, so
# many times; for such a share of the budget, as times vary.
_USED: Final = Fraction(95, 100)
_CORRECTIONS: Final = 3
_AIM: Final = Fraction(99, 100)


@dataclass(frozen=True, slots=True)
class NetworkTimes:
    """Milliseconds of two networks timed in turn, the least of the rounds."""

    before_ms: Fraction
    after_ms: Fraction
    rounds: int


@dataclass(slots=True)
class Measurer:
    """Times layers, blocks and networks on a device, and keeps the times of layers and blocks.

    `batch`: images in a batch. `folder`: where times are kept; the user's cache if None. `timed`:
    how many times were measured now, `read`: how many were known.
    """

    batch: int = 1
    device: torch.device = field(default_factory=lambda: find_device("cpu"))
    folder: Path | None = None
    timed: int = 0
    read: int = 0
    _known: dict[str, float] | None = None
    _earlier: frozenset[str] = frozenset()

    @classmethod
    def on(cls, device: str = "cpu", batch: int = 1) -> Self:
        """Return what measures on a device of this machine, such as "cuda".

        Raises: SettingError for a device that is not there.
        """
        return cls(batch, find_device(device))

    @property
    def path(self) -> Path:
        """The file of this machine's times."""
        machine = this_machine(self.device)
        threads = "" if self.device.type == "cuda" else f"-threads{torch.get_num_threads()}"
        version = file_safe(machine.torch)
        name = f"layers-{machine.device}-torch-{version}-batch{self.batch}{threads}.json"
        return (cache_path().parent if self.folder is None else self.folder) / name

    @property
    def about(self) -> str:
        """What the latencies hold under, in words."""
        words = [f"batch {self.batch}", "fp32"]
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            words.append(counted(threads, "thread"))
        return f"measured on {this_machine(self.device).device}: {', '.join(words)}"

    def times_of(
        self, conv: ReplaceableConv, candidates: Sequence[Candidate]
    ) -> list[Latency | None]:
        """Return the time of all calls of a layer for each candidate, None for one that fails."""
        totals: list[Fraction | None] = [Fraction(0)] * len(candidates)
        for sizes in conv.calls:
            for index, ms in enumerate(self._times_at(conv, sizes, candidates)):
                total = totals[index]
                totals[index] = None if ms is None or total is None else total + ms
        return [None if total is None else Latency(total) for total in totals]

    def block_ms(
        self, sized: SizedBlock, side: int, stride: int = 1, style: Style = PLAIN
    ) -> Fraction | None:
        """Return the time of a block that writes feature maps of a side, None where it fails."""
        times, key = self._read(), f"{sized.block}, {sized.channels} to {sized.out_channels}, "
        key += f"writes {side}x{side}, stride {stride}"
        key += "" if style == PLAIN else f", {style}"
        self.read += key in self._earlier
        if key not in times:
            size = side * stride
            x = torch.randn(1, sized.channels, size, size).expand(self.batch, -1, -1, -1)
            block = _block(sized, stride, style).eval().to(self.device)
            seconds = self._interleaved({key: _call(block, x.contiguous().to(self.device))}, LAYERS)
            times[key] = 1000 * min(seconds[key]) if key in seconds else 0.0
            self.timed += 1
            self._write(times)
        return Latency.of(times[key]).ms if times[key] else None

    def network_times(
        self, before: nn.Module, after: nn.Module | None, image: ImageSize
    ) -> NetworkTimes:
        """Time two networks in turn, or one, on a batch of images."""
        like = next(before.parameters())
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.batch, *image, generator=generator).to(self.device, like.dtype)
        models = {"before": before} | ({} if after is None else {"after": after})
        calls: dict[str, Callable[[], Any]] = {}
        for name, model in models.items():
            calls[name] = _call(model.to(self.device), x)
        with ExitStack() as stack:
            for model in models.values():
                stack.enter_context(evaluated(model))
            times = self._interleaved(calls, NETWORKS)
        least = {name: Latency.of(1000 * min(seconds)).ms for name, seconds in times.items()}
        rounds = min(map(len, times.values()))
        return NetworkTimes(least["before"], least.get("after", least["before"]), rounds)

    def _times_at(
        self, conv: ReplaceableConv, sizes: tuple[Size, Size], candidates: Sequence[Candidate]
    ) -> list[Fraction | None]:
        times = self._read()
        keys = [_key(conv, sizes, candidate) for candidate in candidates]
        self.read += sum(key in self._earlier for key in keys)
        missing = {
            key: candidate
            for key, candidate in zip(keys, candidates, strict=True)
            if key not in times
        }
        if missing:
            times.update(self._measured(conv, sizes[0], missing))
            self.timed += len(missing)
            self._write(times)
        return [Latency.of(times[key]).ms if times.get(key) else None for key in keys]

    def _measured(
        self, conv: ReplaceableConv, size: Size, candidates: Mapping[str, Candidate]
    ) -> dict[str, float]:
        """Return milliseconds by key; 0 for a candidate that fails."""
        height, width = size
        channels = conv.layer.c_in
        shape = (height, width, channels) if conv.is_linear else (channels, height, width)
        x = torch.randn(self.batch, *shape, generator=torch.Generator().manual_seed(0))
        x = x.to(self.device)
        calls: dict[str, Callable[[], Any]] = {}
        with torch.random.fork_rng(devices=[]):
            for key, candidate in candidates.items():
                calls[key] = _call(_module(conv, candidate).eval().to(self.device), x)
        times = self._interleaved(calls, CANDIDATES)
        return {key: 1000 * min(times[key]) if key in times else 0.0 for key in candidates}

    def _interleaved(
        self, calls: Mapping[str, Callable[[], Any]], limits: Limits
    ) -> dict[str, list[float]]:
        """Return the seconds of each call, round by round; without those that fail."""
        first_s, working = {}, {}
        for name, call in calls.items():
            try:
                first_call(call, self.device)  # the first may compile, or choose an algorithm
                first_s[name], _ = first_call(call, self.device)
                working[name] = call
            except (RuntimeError, MemoryError):
                continue
        return interleaved(working, first_s, limits, self.device)

    def _read(self) -> dict[str, float]:
        if self._known is None:
            try:
                values = json.loads(self.path.read_text(encoding="utf-8"))
                self._known = {str(key): float(ms) for key, ms in values.items()}
            except (OSError, ValueError, TypeError, AttributeError):
                self._known = {}  # none yet, or a file of something else
            self._earlier = frozenset(self._known)
        return self._known

    def _write(self, known: Mapping[str, float]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(dict(known), indent=0), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class TimedPlan(Generic[Plan]):
    """A plan for a budget of latency: made for `factor` times it, and what its network takes of it.

    `predicted` and `measured`: shares of the budget, all of it where nothing was measured.
    `correction`: how many times as long as predicted the network of the plan before it took.
    """

    plan: Plan
    factor: Fraction = Fraction(1)
    correction: Fraction = Fraction(1)
    predicted: Fraction = Fraction(1)
    measured: Fraction = Fraction(1)

    @property
    def note(self) -> str:
        """What the budget was planned as, or how far above it the network is; empty if neither."""
        if self.factor == 1 and self.measured <= 1:
            return ""
        measured = f"measured, its network takes {float(self.measured):.0%}"
        return f"planned for {float(self.factor):.0%} of the budget of latency: {measured}"


def planned_in_time(
    plan_at: Callable[[Fraction], Plan],
    shares_of: Callable[[Plan], tuple[Fraction, Fraction] | None],
    *,
    most: Fraction,
    uses_all: bool = True,
    deadline: float | None = None,
) -> TimedPlan[Plan]:
    """Return the plan whose network is measured nearest below a budget of latency.

    What a network takes is not what its layers were predicted to, so where it is above its budget,
    or leaves much of it, it is planned again for as much less or more. `plan_at`: makes the plan
    for so many times the budget, at most `most`; `shares_of`: predicted and measured shares of the
    budget, None for a plan without a network. `uses_all`: whether a greater budget changes plans
    that do not use theirs.
    """
    tried: list[TimedPlan[Plan]] = []
    factor = Fraction(1)
    while True:
        plan = plan_at(factor)
        shares = shares_of(plan)
        if shares is None:
            break
        correction = tried[-1].measured / tried[-1].predicted if tried else Fraction(1)
        last = TimedPlan(plan, factor, correction, *shares)
        tried.append(last)
        is_bounded = uses_all or last.predicted >= _USED * factor
        if _USED <= last.measured <= 1 or (last.measured < 1 and not is_bounded):
            break
        factor = min(most, _next_factor(tried))
        is_late = deadline is not None and time.monotonic() > deadline
        if len(tried) > _CORRECTIONS or factor == last.factor or is_late:
            break
    if not tried:
        return TimedPlan(plan)
    within = [timed for timed in tried if timed.measured <= 1]
    if within:
        return max(within, key=lambda timed: timed.measured)
    return min(tried, key=lambda timed: timed.measured)


def _next_factor(tried: Sequence[TimedPlan[Any]]) -> Fraction:
    """Return the factor of the next plan: where networks as measured so far would take the budget.

    In proportion to the last, or on the line through the last two; no more than halved or doubled.

    >>> def timed(*shares):
    ...     factor, *others = map(Fraction, shares)
    ...     return TimedPlan("", factor, Fraction(1), *others)
    >>> one, two = timed("1", "1", "1.1"), timed("0.9", "0.9", "1.05")
    >>> float(_next_factor([one])), float(_next_factor([one, two]))
    (0.9, 0.78)
    """
    last = tried[-1]
    predicted = last.predicted * _AIM / last.measured
    if len(tried) > 1:
        steps = last.predicted - tried[-2].predicted, last.measured - tried[-2].measured
        if steps[0] * steps[1] > 0:
            predicted = last.predicted + (_AIM - last.measured) * steps[0] / steps[1]
    return last.factor * min(max(predicted / last.predicted, Fraction(1, 2)), Fraction(2))


def _call(module: nn.Module, x: Tensor) -> Callable[[], Any]:
    def call() -> Any:
        with torch.no_grad():
            return module(x)

    return call


def _block(sized: SizedBlock, stride: int, style: Style) -> nn.Module:
    """Return the module of a block; of a single layer the convolution that torch runs."""
    # A pointwise layer with a stride may be in a network, but is no block.
    is_strided_pointwise = len(sized.layers) == 1 and sized.strided_index is None
    block = BlockModule(sized, 1 if is_strided_pointwise else stride, style)
    convs = [part for part in block.modules() if type(part) is nn.Conv2d]
    if len(sized.layers) > 1 or not convs:
        return block
    convs[0].stride = (stride, stride)
    return convs[0]


def _module(conv: ReplaceableConv, candidate: Candidate) -> nn.Module:
    """Return the module of a candidate with fresh weights, as it stands in the network."""
    sized, style = candidate
    layer = conv.layer
    if sized is not None:
        block = BlockModule(sized, conv.stride, style, geometry=conv.geometry)
        return LastAxisBlock(block) if conv.is_linear else block
    if conv.is_linear:
        return nn.Linear(layer.c_in, layer.c_out, bias=layer.bias)
    options = conv.geometry.options_of(conv.kernel, 2)
    return nn.Conv2d(layer.c_in, layer.c_out, stride=conv.stride, bias=layer.bias, **options)


def _key(conv: ReplaceableConv, sizes: tuple[Size, Size], candidate: Candidate) -> str:
    """Return what a time depends on, as text."""
    sized, style = candidate
    (height, width), layer = sizes[0], conv.layer
    module = "linear" if conv.is_linear else "conv"
    what = f"{module} k={conv.kernel} bias={layer.bias}" if sized is None else str(sized.block)
    what += "" if conv.geometry.is_default else f" {conv.geometry}"
    text = f"{what}, {layer.c_in} to {layer.c_out}, {height}x{width}, stride {conv.stride}"
    if sized is None:
        return text
    return f"{text}, {module}, {style}"
