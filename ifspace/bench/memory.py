"""The most memory that a block holds at once: weights, maps, gradients.

On CUDA the allocator tells. On a CPU each block runs in a process of its own, copied from one that
has imported torch and done nothing yet, and the resident high-water of the system tells. Asked for
as `python -m ifspace.bench.memory`, with pickled candidates on stdin.
"""

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch

from ifspace.bench.blocks import (
    Candidate,
    Conditions,
)
from ifspace.bench.machine import (
    precision,
    return_memory,
)
from ifspace.bench.record import python
from ifspace.bench.run import call_for

Case = tuple[Candidate, str]
STATUS: Final = Path("/proc/self/status")
# What resets the high-water, and how the kernel is told so.
CLEAR: Final = Path("/proc/self/clear_refs")
HIGH_WATER: Final = "5"
MODULE: Final = "ifspace.bench.memory"


def peaks(
    cases: Sequence[Case], conditions: Conditions, each: Callable[[], None]
) -> list[int | None]:
    """Return the peak bytes of each case; None where it cannot be measured.

    `each` is called after every one.
    """
    on_cuda = conditions.device.type == "cuda"
    found: list[int | None] = []
    for peak in (_on_cuda if on_cuda else _in_child)(cases, conditions):
        found.append(peak)
        each()
    return found + [None] * (len(cases) - len(found))


def _on_cuda(cases: Sequence[Case], conditions: Conditions) -> Iterator[int | None]:
    device = conditions.device
    for candidate, mode in cases:
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        try:
            _run(candidate, mode, conditions)
            torch.cuda.synchronize(device)
            yield torch.cuda.max_memory_allocated(device) - before
        except RuntimeError:
            yield None


def _in_child(cases: Sequence[Case], conditions: Conditions) -> Iterator[int | None]:
    if not STATUS.exists() or not hasattr(os, "fork"):
        return
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(python("-m", MODULE), stdin=pipe, stdout=pipe, stderr=null) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with suppress(BrokenPipeError):
                child.stdin.write(pickle.dumps((list(cases), conditions)))
                child.stdin.close()
            for line in child.stdout:
                yield int(line) if line.strip().isdigit() else None
        finally:
            child.kill()


def _run(candidate: Candidate, mode: str, conditions: Conditions) -> None:
    precision(conditions.dtype)
    module, run = call_for(candidate, mode, conditions)
    run(module)


def _peak_here(candidate: Candidate, mode: str, conditions: Conditions) -> int:
    """Return the peak bytes of a run in this process, which has not run anything before."""
    return_memory()
    torch.set_num_threads(conditions.threads)
    # Code is loaded as it is run: the same first, so that the other one brings none.
    _run(candidate, mode, conditions)
    gc.collect()
    CLEAR.write_text(HIGH_WATER)
    before = _status("VmRSS")
    _run(candidate, mode, conditions)
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    lines = dict(line.partition(":")[::2] for line in STATUS.read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def main() -> None:
    """Print a line for each case on stdin: its peak bytes, or nothing."""
    cases, conditions = pickle.load(sys.stdin.buffer)
    for candidate, mode in cases:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, str(_peak_here(candidate, mode, conditions)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            print(told.read().decode(), flush=True)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
