"""Times of several functions, taken in turn: A B C A B C ..., so that disturbances hit all alike.

On CUDA by events, with the L2 cache overwritten before each call, which is queued by then: the
device sleeps before, so that it never waits for the host. On a CPU a short call follows one of its
own that is not timed: else it pays for what the function before it left in the caches; and of one
thread the seconds count that the processor worked for it, not those that other programs had it.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch

Call = Callable[[], Any]
# Returns the seconds of a call, once the device has finished it.
ReadTime = Callable[[], float]
Name = TypeVar("Name", bound=Hashable)
WARM_UPS: Final = 3
SHORT_S: Final = 5e-3
# Cycles of sleep in which a call is queued: about 0.2 ms.
QUEUE_CYCLES: Final = 400_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How many rounds are timed, and what is too slow for all of them.

    `budget_s`: no round starts after this. `min_rounds`, `max_rounds`. A function that takes over
    `slow_s` is in the first `slow_rounds` only, and of one that takes over `once_s` the first call
    is the only one. `skip_s`: what is expected to take longer is not called at all, nor after
    `required_skip_s` what a target needs.
    """

    budget_s: float = 2.0
    min_rounds: int = 4
    max_rounds: int = 100
    slow_rounds: int = 1
    slow_s: float = 0.25
    once_s: float = 1.0
    skip_s: float = 4.0
    required_skip_s: float = 60.0


def interleaved(
    calls: Mapping[Name, Call],
    first_s: Mapping[Name, float],
    limits: Limits,
    device: torch.device,
    every_round: frozenset[Name] = frozenset(),
    on_round: Callable[[dict[Name, list[float]]], None] | None = None,
) -> dict[Name, list[float]]:
    """Return the seconds of each function, round by round.

    `first_s`: the seconds of an earlier call of each; by these `limits` lets slow functions take
    part in fewer rounds, but for those of `every_round`. `on_round` is called after each round with
    the seconds so far.
    """
    clock = _cuda_clock(device) if device.type == "cuda" else _host_clock
    times: dict[Name, list[float]] = {name: [] for name in calls}
    active = [name for name in calls if name in every_round or first_s[name] <= limits.once_s]
    for name in calls.keys() - active:
        times[name].append(first_s[name])
    started, rounds_done = time.perf_counter(), 0
    while active and rounds_done < limits.max_rounds:
        reads = {}
        for name in active:
            quick = name in every_round or first_s[name] <= limits.slow_s
            if rounds_done < limits.slow_rounds or quick:
                if first_s[name] < SHORT_S and device.type != "cuda":
                    calls[name]()
                reads[name] = clock(calls[name])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        for name, read in reads.items():
            times[name].append(read())
        rounds_done += 1
        if on_round is not None:
            on_round(times)
        if rounds_done >= limits.min_rounds and time.perf_counter() - started > limits.budget_s:
            break
    return times


def first_call(call: Call, device: torch.device) -> tuple[float, Any]:
    """Return the seconds of one call by the host's clock, and its result."""
    start = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def captured(call: Call, device: torch.device) -> Call:
    """Return the replay of a function captured in a CUDA graph.

    Raises: RuntimeError when it cannot be captured.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # On the stream of the warm-up: what torch keeps for a stream, or a first backward pass makes,
    # is there.
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph.replay


def _host_clock(call: Call) -> ReadTime:
    seconds = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = seconds()
    call()
    taken = seconds() - start
    return lambda: taken


def _cuda_clock(device: torch.device) -> Callable[[Call], ReadTime]:
    size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
    flush = torch.empty(max(size, 2**26), dtype=torch.int8, device=device)

    def clock(call: Call) -> ReadTime:
        start, end = (_event() for _ in range(2))
        torch.cuda._sleep(QUEUE_CYCLES)  # type: ignore[no-untyped-call]
        flush.zero_()
        start.record()
        call()
        end.record()
        return lambda: float(start.elapsed_time(end)) / 1e3

    return clock


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event
