"""A child process is watched with its children."""

import subprocess

import pytest

from benchmarks.watch import watch
from ifspace.bench.record import python

# Holds 64 MiB for a while, in a process of its own.
GRANDCHILD = "import time; held = bytearray(b'x') * (64 << 20); time.sleep(0.6)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}]); print(7)"


def test_memory_is_that_of_all_processes() -> None:
    usage = watch(python("-c", CHILD))
    assert usage.output == "7\n"
    assert usage.seconds >= 0.6
    assert 64 < usage.peak_mib < 256


def test_a_failing_command_raises() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        watch(python("-c", "raise SystemExit(3)"))
