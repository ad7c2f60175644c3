"""The most memory that a call holds at once: weights, feature maps, gradients.

On CUDA the allocator counts it. On a CPU each call runs in a process of its own, forked from one
that has imported torch and done nothing yet, and the system's high-water mark of resident memory
counts it. That process is `python -m ifspace.bench.memory`, with pickled calls on stdin.
"""

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from ifspace.bench.machine import return_memory, set_precision
from ifspace.bench.record import python

# psutil reads no high-water mark, and does not reset it.
STATUS: Final = Path("/proc/self/status")
CLEAR: Final = Path("/proc/self/clear_refs")
RESET_HIGH_WATER: Final = "5"
MODULE: Final = "ifspace.bench.memory"


def peak_bytes(
    calls: Sequence[Callable[[], Any]],
    device: torch.device,
    dtype: str,
    threads: int,
    on_measured: Callable[[], None],
) -> list[int | None]:
    """Return the peak bytes of each call; None where it cannot be measured.

    On a CPU the calls are pickled. `on_measured` is called after each.
    """
    peaks: list[int | None] = []
    on_cuda = device.type == "cuda"
    for peak in _on_cuda(calls, device, dtype) if on_cuda else _in_child(calls, dtype, threads):
        peaks.append(peak)
        on_measured()
    return peaks + [None] * (len(calls) - len(peaks))


def _on_cuda(
    calls: Sequence[Callable[[], Any]], device: torch.device, dtype: str
) -> Iterator[int | None]:
    set_precision(dtype)
    for call in calls:
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        try:
            call()
            torch.cuda.synchronize(device)
            yield torch.cuda.max_memory_allocated(device) - before
        except RuntimeError:
            yield None


def _in_child(calls: Sequence[Callable[[], Any]], dtype: str, threads: int) -> Iterator[int | None]:
    if not STATUS.exists() or not hasattr(os, "fork"):
        return
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(python("-m", MODULE), stdin=pipe, stdout=pipe, stderr=null) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with suppress(BrokenPipeError):
                child.stdin.write(pickle.dumps((list(calls), dtype, threads)))
                child.stdin.close()
            for line in child.stdout:
                yield int(line) if line.strip().isdigit() else None
        finally:
            child.kill()


def _peak_here(call: Callable[[], Any], dtype: str, threads: int) -> int:
    """Return the peak bytes of a call in this process, which has not called anything before."""
    return_memory()
    set_precision(dtype)
    torch.set_num_threads(threads)
    # Code is loaded when it first runs: a call before the measured one, so that it loads none.
    call()
    gc.collect()
    CLEAR.write_text(RESET_HIGH_WATER)
    before: int = psutil.Process().memory_info().rss
    call()
    return max(0, _high_water() - before)


def _high_water() -> int:
    lines = dict(line.partition(":")[::2] for line in STATUS.read_text().splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])


def main() -> None:
    """Print a line for each call on stdin: its peak bytes, or nothing where it failed."""
    calls, dtype, threads = pickle.load(sys.stdin.buffer)
    for call in calls:
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(write_end, str(_peak_here(call, dtype, threads)).encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as output:
            print(output.read().decode(), flush=True)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
