"""Times of several functions, taken in turn: A B C A B C ..., so that all share what disturbs.

On CUDA by events, with the L2 cache overwritten before each call. On a CPU a short call follows
one of its own that is not timed: else it pays for what the function before it left behind.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

Run = Callable[[], Any]
# A read of a time, once the device has caught up.
Read = Callable[[], float]
WARM_UPS: Final = 3
SHORT_S: Final = 5e-3


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the rounds of one case take.

    `budget_s`: no round begins after this. `least`, `most`: rounds. `slow_s`: what took this long
    takes part in `few` rounds; `once_s`: and this long, its first call is its only one. `most_s`:
    what is expected to take this long is not called at all; `asked_s`: what a target asks for.
    """

    budget_s: float = 2.0
    least: int = 4
    most: int = 100
    few: int = 1
    slow_s: float = 0.25
    once_s: float = 1.0
    most_s: float = 4.0
    asked_s: float = 60.0


def interleaved(
    runs: Mapping[str, Run],
    first_s: Mapping[str, float],
    limits: Limits,
    device: torch.device,
    always: Collection[str] = (),
    each_round: Callable[[dict[str, list[float]]], None] | None = None,
) -> dict[str, list[float]]:
    """Return the seconds of each function, round by round.

    `first_s`: how long a call of each took before, what is slow by `limits` is called less; but
    `always` names those that take part in every round. `each_round` is told after each what there
    is so far.
    """
    clock = _on_cuda(device) if device.type == "cuda" else _on_host
    times: dict[str, list[float]] = {name: [] for name in runs}
    active = [name for name in runs if name in always or first_s[name] <= limits.once_s]
    for name in runs.keys() - active:
        times[name].append(first_s[name])
    started, done = time.perf_counter(), 0
    while active and done < limits.most:
        reads = {}
        for name in active:
            if done < limits.few or name in always or first_s[name] <= limits.slow_s:
                if first_s[name] < SHORT_S and device.type != "cuda":
                    runs[name]()
                reads[name] = clock(runs[name])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        for name, read in reads.items():
            times[name].append(read())
        done += 1
        if each_round is not None:
            each_round(times)
        if done >= limits.least and time.perf_counter() - started > limits.budget_s:
            break
    return times


def first_call(run: Run, device: torch.device) -> tuple[float, Any]:
    """Return the seconds of one call by the host's clock, and what it returned."""
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def captured(run: Run, device: torch.device) -> Run:
    """Return the replay of a function captured in a CUDA graph.

    Raises: RuntimeError when it cannot be captured.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _on_host(run: Run) -> Read:
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return lambda: seconds


def _on_cuda(device: torch.device) -> Callable[[Run], Read]:
    size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
    flush = torch.empty(max(size, 2**26), dtype=torch.int8, device=device)

    def clock(run: Run) -> Read:
        start, end = (_event() for _ in range(2))
        flush.zero_()
        start.record()
        run()
        end.record()
        return lambda: float(start.elapsed_time(end)) / 1e3

    return clock


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event
