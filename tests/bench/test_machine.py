"""The device, its memory, its rates, and the bounds computed from them."""

import subprocess
import sys

import pytest
import torch

from ifspace.bench.case import FUSED, LayerCase
from ifspace.bench.machine import (
    Rates,
    Work,
    bound_s,
    check_choice,
    find_device,
    free_bytes,
    measured_rates,
    rounding,
    set_precision,
)
from ifspace.errors import SettingError
from ifspace.measurements import BOTH_WAYS


def test_a_missing_device_raises() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(SettingError, match="no such device here: got 'tpu'; allowed: cpu"):
        find_device("tpu")
    if not torch.cuda.is_available():
        assert find_device() == torch.device("cpu")
        with pytest.raises(SettingError, match="no such device here: got 'cuda'; allowed: cpu;"):
            find_device("cuda")


def test_an_allowed_choice_passes() -> None:
    check_choice("dtype", "fp32", ["fp32"])
    with pytest.raises(SettingError, match=r"^no such dtype here: got 'fp7'; allowed: fp32, bf16;"):
        check_choice("dtype", "fp7", ["fp32", "bf16"])


def test_tf32_is_switched_on_and_off_and_rounds_to_ten_bits() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        set_precision("tf32")
        assert torch.backends.cuda.matmul.allow_tf32
        set_precision("fp32")
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert [rounding(precision) for precision in ("fp32", "tf32", "bf16", "fp16")] == [
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc and glibc")
@pytest.mark.parametrize(("tell", "kept"), [("keep_memory", True), ("return_memory", False)])
def test_freed_memory_is_kept_or_returned(tell: str, kept: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT.replace("{tell}", tell)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(done.stdout) > 100) is kept, done.stdout
    assert int(done.stdout) < 140


# A byte and an operation a second.
UNIT = Rates(1.0, {"fp32": 1.0, "bf16": 1.0})


def test_forward_reads_x_and_weights_and_writes_y() -> None:
    # x and y: 2 * 8 * 3 * 3 = 144 numbers; weights 8 * 4; each output of 4 products and sums.
    work = Work(moved=4 * (144 + 144 + 32), operations=2 * 144 * 4)
    assert LayerCase(2, 8, 3, 2, "1/2").passes() == (work,)
    assert LayerCase(2, 8, 3, 2, "1/2", dtype="bf16").passes()[0].moved == work.moved // 2


def test_backward_reads_x_again_and_does_twice_the_operations() -> None:
    forward, backward = LayerCase(2, 8, 3, 2, "1/2", mode=BOTH_WAYS).passes()
    assert backward == Work(4 * (3 * 144 + 2 * 32), 2 * forward.operations)


def test_the_fused_block_moves_no_intermediate() -> None:
    plain, fused = (LayerCase(2, 8, 3, 2, "1/2", kind=kind).passes()[0] for kind in ("RPW", FUSED))
    assert fused.moved - plain.moved == 4 * 9 * 8
    assert fused.operations - plain.operations == 2 * 144 * 9


def test_the_bytes_are_those_of_the_tensors() -> None:
    case = LayerCase(2, 8, 3, 4, "0.33", mode=BOTH_WAYS)
    x = torch.empty(2, 8, 3, 3)
    weight = torch.empty(8, 2)
    forward, backward = case.passes()
    assert forward.moved == x.nbytes + weight.nbytes + x.nbytes
    assert backward.moved == 3 * x.nbytes + 2 * weight.nbytes


def test_the_bound_is_the_larger_of_both_times_pass_by_pass() -> None:
    case = LayerCase(2, 8, 3, 2, "1/2", mode=BOTH_WAYS)
    bytes_only = Rates(1.0, {"fp32": 1e30})
    operations_only = Rates(1e30, {"fp32": 1.0})
    assert bound_s(case.passes(), bytes_only, case.dtype) == 4 * (5 * 144 + 3 * 32)
    assert bound_s(case.passes(), operations_only, case.dtype) == 3 * 2 * 144 * 4
    forward, backward = case.passes()
    assert bound_s(case.passes(), UNIT, case.dtype) == sum(
        max(p.moved, p.operations) for p in (forward, backward)
    )


@pytest.mark.parametrize("dtypes", [["fp32"], ["fp32", "bf16"]])
def test_rates_are_measured_for_each_type(dtypes: list[str]) -> None:
    rates = measured_rates(torch.device("cpu"), dtypes, scale=1 / 32)
    assert list(rates.matrix) == dtypes
    assert min(rates.copy, *rates.matrix.values()) > 1e6
