"""A child process watched from outside: its wall time and the memory of all its processes."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """What a finished child used: wall time, peak memory of it and its children; its output."""

    seconds: float
    peak_mib: float
    output: str


def watch(command: Sequence[str], interval_s: float = 0.05) -> Usage:
    """Run a command and return what it used; its memory is sampled every `interval_s`.

    Raises: subprocess.CalledProcessError when the command fails.
    """
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak_mib = 0.0
    while child.poll() is None:
        peak_mib = max(peak_mib, _resident_mib(child.pid))
        time.sleep(interval_s)
    seconds = time.perf_counter() - start
    output = child.communicate()[0]
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, output)
    return Usage(seconds, peak_mib, output)


def _resident_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants, 0 for those that have ended."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0.0
    resident = 0
    for process in family:
        try:
            resident += process.memory_info().rss
        except psutil.Error:  # it ended after it was listed
            continue
    return resident / 2**20
