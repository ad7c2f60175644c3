"""Blocks timed in turn, forward and both ways, compiled or not; what cannot run says why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifspace.bench.blocks import (
    Candidate,
    Conditions,
)
from ifspace.bench.clock import SHORT_S, Limits, captured, first_call, interleaved
from ifspace.bench.gate import distance
from ifspace.bench.machine import (
    free_bytes,
    precision,
    rounding,
)
from ifspace.bench.rows import BOTH_WAYS

# The share of free memory that one candidate may hold by `bytes_needed`, torch's copies apart.
SHARE: Final = 0.35
# How far the output of a compiled block may be from that of the block, in roundings.
COMPILED_SLACK: Final = 64
# Told how many seconds of work are done, of how many.
Tell = Callable[[float, float], None]


@dataclass(slots=True)
class Timed:
    """One way of running a candidate, with its seconds round by round or why there are none."""

    candidate: Candidate
    mode: str
    compiled: bool = False
    reason: str = ""
    seconds: list[float] = field(default_factory=list)


def measure(
    every: Sequence[Timed],
    conditions: Conditions,
    limits: Limits,
    each_round: Callable[[], None],
    tell: Tell,
) -> None:
    """Fill in the seconds, round by round, or the reasons; what has a reason is not called.

    `each_round` is called when all have one time more.
    """
    precision(conditions.dtype)
    device = conditions.device
    inputs = _Inputs(conditions)
    runs: dict[str, Callable[[], Any]] = {}
    first_s: dict[str, float] = {}
    for number, each in enumerate(every):
        if not each.reason:
            each.reason = _refusal(each.candidate, conditions)
        if not each.reason:
            try:
                first_s[str(number)], runs[str(number)] = _begin(each, conditions, inputs)
            except (RuntimeError, MemoryError) as error:
                text = str(error).strip().partition("\n")[0]
                each.reason = f"{type(error).__name__}: {text:.120}"
        tell(0.1 * (number + 1), 0.1 * len(every) + _expected_s(first_s, limits))

    def ended(times: dict[str, list[float]]) -> None:
        for name, seconds in times.items():
            every[int(name)].seconds = seconds
        done = max(map(len, times.values()), default=0)
        total = 0.1 * len(every) + _expected_s(first_s, limits)
        tell(0.1 * len(every) + _expected_s(first_s, limits) * done / limits.most, total)
        each_round()

    interleaved(runs, first_s, limits, device, always=runs.keys(), each_round=ended)


def rounds(count: int, budget_s: float = inf) -> Limits:
    """Return limits of so many rounds in which all take part, or fewer within a time."""
    return Limits(budget_s=budget_s, least=min(count, 5), most=count)


def call_for(
    candidate: Candidate, mode: str, conditions: Conditions, inputs: "_Inputs | None" = None
) -> tuple[nn.Module, Callable[[nn.Module], Any]]:
    """Return the module of a candidate and what runs it in a mode."""
    x, grad = (inputs or _Inputs(conditions)).of(candidate, mode)
    module = conditions.build(candidate).train(mode == BOTH_WAYS)

    def forward(module: nn.Module) -> Tensor:
        with torch.no_grad():
            y: Tensor = module(x)
        return y

    def both_ways(module: nn.Module) -> tuple[Tensor, ...]:
        y = module(x)
        return (y, *torch.autograd.grad(y, (x, *module.parameters()), grad))

    return module, both_ways if mode == BOTH_WAYS else forward


class _Inputs:
    """Inputs and gradients of each shape, once for all."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.known: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def of(self, candidate: Candidate, mode: str) -> tuple[Tensor, Tensor]:
        """Return x and, both ways, a gradient shaped as y; else x again."""
        x = self._maps(0, candidate.in_shape)
        if mode != BOTH_WAYS:
            return x, x
        return x.detach().requires_grad_(), self._maps(1, candidate.out_shape)

    def _maps(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        if (seed, shape) not in self.known:
            self.known[seed, shape] = self.conditions.draw(*shape, seed=seed)
        return self.known[seed, shape]


def _begin(each: Timed, conditions: Conditions, inputs: _Inputs) -> tuple[float, Callable[[], Any]]:
    """Return how long a call takes, and the call."""
    device = conditions.device
    module, run = call_for(each.candidate, each.mode, conditions, inputs)
    seconds, found = first_call(partial(run, module), device)
    if each.compiled:
        torch.compiler.reset()
        compiled = torch.compile(module, dynamic=False, fullgraph=True)
        assert isinstance(compiled, nn.Module)
        _, other = first_call(partial(run, compiled), device)
        _check(other, found, conditions)
        module = compiled
    del found
    call = partial(run, module)
    # The first call may have compiled, or chosen an algorithm.
    seconds, _ = first_call(call, device)
    # Blocks take less time than their launches there: they are replayed from a graph.
    return seconds, captured(call, device) if device.type == "cuda" else call


def _check(found: Any, wanted: Any, conditions: Conditions) -> None:
    tensors = ([x] if isinstance(x, Tensor) else list(x) for x in (found, wanted))
    for ours, theirs in zip(*tensors, strict=True):
        error = distance(ours, theirs)
        if not error <= COMPILED_SLACK * rounding(conditions.dtype):
            raise RuntimeError(f"compiled, it differs by a relative error of {error:.1e}")


def _refusal(candidate: Candidate, conditions: Conditions) -> str:
    needed = bytes_needed(candidate, conditions)
    most = SHARE * free_bytes(conditions.device)
    if needed > most:
        return f"it needs {needed / 2**30:.1f} GiB of {most / 2**30:.1f}"
    return ""


def bytes_needed(candidate: Candidate, conditions: Conditions) -> int:
    """Return about how many bytes it holds at once: all that its layers write, with gradients."""
    n, c_in, height, width = candidate.in_shape
    written = candidate.sized.activations_per_pixel(candidate.stride) * n * candidate.side**2
    passes = 2 if BOTH_WAYS in conditions.modes else 1
    held = passes * (written + n * c_in * height * width) + 4 * candidate.sized.params
    return held * conditions.torch_dtype.itemsize


def _expected_s(first_s: dict[str, float], limits: Limits) -> float:
    once = sum(each * (2 if each < SHORT_S else 1) for each in first_s.values())
    return min(once * limits.most, max(limits.budget_s, once * limits.least))
