"""The device asked for, and what becomes of memory given back."""

import subprocess
import sys

import pytest
import torch

from ifspace.bench.machine import (
    check_known,
    find_device,
    free_bytes,
    precision,
    rounding,
)
from ifspace.errors import SettingError


def test_a_device_that_is_not_there_is_refused_in_a_line() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(SettingError, match="no such device here: got 'tpu'; allowed: cpu"):
        find_device("tpu")
    if not torch.cuda.is_available():
        assert find_device() == torch.device("cpu")
        with pytest.raises(SettingError, match="no such device here: got 'cuda'; allowed: cpu;"):
            find_device("cuda")


def test_what_is_known_passes() -> None:
    check_known("dtype", "fp32", ["fp32"])
    with pytest.raises(SettingError, match=r"^no such dtype here: got 'fp7'; allowed: fp32, bf16;"):
        check_known("dtype", "fp7", ["fp32", "bf16"])


def test_tf32_is_switched_and_rounds_as_it_does() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        precision("tf32")
        assert torch.backends.cuda.matmul.allow_tf32
        precision("fp32")
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert [rounding(each) for each in ("fp32", "tf32", "bf16", "fp16")] == [
        2.0**-23,
        2.0**-10,
        2.0**-7,
        2.0**-10,
    ]


def test_some_memory_is_free() -> None:
    assert free_bytes(torch.device("cpu")) > 2**20


RESIDENT = """
import torch
from pathlib import Path
from ifspace.bench.machine import keep_memory, return_memory
assert {tell}()

def resident():
    lines = dict(x.partition(":")[::2] for x in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) >> 10

before = resident()
large = [torch.ones(1 << 22) for _ in range(8)]  # 16 MiB each
del large
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc and glibc")
@pytest.mark.parametrize(("tell", "kept"), [("keep_memory", True), ("return_memory", False)])
def test_memory_is_kept_or_given_back_as_told(tell: str, kept: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT.replace("{tell}", tell)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(done.stdout) > 100) is kept, done.stdout
    assert int(done.stdout) < 140
