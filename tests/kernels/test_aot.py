"""Every Triton kernel compiles for every target, without a card: nothing spills, all fits."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from devices import only_on_a_cpu
from triton.runtime.interpreter import InterpreterBuilder

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.aot import AotCase, Compiled, compile_case, work_of
from ifspace.kernels.launch import SHARED_BYTES, TARGETS, is_plain
from ifspace.kernels.rpw import triton as rpw
from ifspace.kernels.rpw.triton import CONFIGS, KERNELS
from ifspace.kernels.windows import ORDERS, windows_of

ROOT = Path(__file__).resolve().parents[2]


def in_new_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that compiles: triton reads its interpreter's variable when it is imported."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
        env=environment,
    )


# `make kernels-aot` compiles for all targets.
TARGET = "sm_90"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["rpw", "fused"])
def test_every_configuration_compiles_without_spilling(module: str, tmp_path: Path) -> None:
    out = tmp_path / "results"
    options = ["--quick", "--modules", module, "--targets", TARGET, "--out", str(out)]
    done = in_new_python(tmp_path, "-m", "benchmarks.kernels_aot", *options)
    assert done.returncode == 0, done.stderr[-4000:]
    with (out / "kernels-aot.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["target"] for row in rows} == {TARGET}
    assert all(int(row["spilled bytes"]) <= 32 for row in rows)
    assert all(float(row["shared KiB"]) * 1024 <= SHARED_BYTES[TARGET] for row in rows)
    assert all(0 < int(row["registers"]) < 512 for row in rows)
    if module == "rpw":
        compiled = {
            (row["kernel"], row["configuration"]) for row in rows if row["kernel"] in KERNELS
        }
        assert {"pad", "sum_parts"} <= {row["kernel"] for row in rows}
        assert any("wide" in row["problem"] for row in rows)
        assert compiled == {(c.kernel, c.name) for c in CONFIGS if TARGET in c.targets}


# A tile of 256 x 256 pixels and filters in 4 warps: it cannot stay in registers.
SPILLING = """
from dataclasses import replace
from ifspace.kernels.aot import compile_case, rpw_cases
case = next(case for case in rpw_cases() if case.kernel == "forward")
large = {"BLOCK_M": 256, "BLOCK_N": 256, "BLOCK_C": 64, "ORDER": "natural"}
done = compile_case(replace(case, constexprs={**case.constexprs, **large}), "sm_90")
assert done.spill_bytes > 0, done
assert "spills" in done.faults()[0]
"""


@pytest.mark.slow
def test_a_tile_that_spills_is_a_fault(tmp_path: Path) -> None:
    done = in_new_python(tmp_path, "-c", SPILLING)
    assert done.returncode == 0, done.stderr[-4000:]


# In blocked order, channels_last, whole vectors move and matrix units multiply; in rolling order
# the filters of a window are apart: sorted order reads grad a number at a time.
NATURAL_FORM = """
from ifspace.kernels.aot import compile_case, rpw_cases
def compiled(kernel, config, text, target):
    case = next(c for c in rpw_cases() if (c.kernel, c.config) == (kernel, config)
                and c.problem.startswith("C=512 F=512 g=2 s=128" + text + " channels_last bf16"))
    return compile_case(case, target)
units = {"sm_80": "mma.sync", "sm_90": "wgmma", "sm_100": "tcgen05.mma", "gfx942": "mfma"}
default = {"forward": "64x64x32-natural-w4s3", "input_grad": "64x32x64-natural-w4s3",
           "weight_grad": "32x64x64-natural-w4s3"}
for target, unit in units.items():
    for kernel, config in default.items():
        done = compiled(kernel, config, " blocked", target)
        assert done.unit == unit, done
        half = target == "gfx942" and kernel != "weight_grad"  # its partial sums are of 4 bytes
        assert done.store_bytes == (8 if half else 16), done
        assert done.case.work <= 1.5, done.case.work
        if kernel != "forward":  # whose bias is read a number or two at a time
            assert done.narrow_loads == 0, done
rolling = compiled("input_grad", "64x32x64-sorted-w4s3", "", "sm_90")
assert rolling.narrow_loads >= 16, rolling
assert compiled("input_grad", default["input_grad"], "", "sm_90").case.work == 2
"""


@pytest.mark.slow
def test_blocked_order_moves_whole_vectors_and_multiplies_in_matrix_units(tmp_path: Path) -> None:
    done = in_new_python(tmp_path, "-c", NATURAL_FORM)
    assert done.returncode == 0, done.stderr[-4000:]


# As on a card: a driver that says which one it is, and kernels that are launched and do nothing.
CARD = """
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import driver
class Driver:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
driver.set_active(Driver())
launched = []
CompiledKernel._init_handles = lambda kernel: None
CompiledKernel.run = lambda kernel, x, y, z, *rest: launched.append((kernel, (x, y, z), rest[6:]))
torch.cuda.is_current_stream_capturing = lambda: False
from ifspace.kernels import launch
from ifspace.kernels.rpw import triton as rpw
from ifspace.kernels.windows import windows_of
rpw.check_runnable = lambda x: None
def image(*shape):
    return torch.empty(*shape, dtype=torch.half).contiguous(memory_format=torch.channels_last)
"""
COMPILED = """
windows = windows_of(32, 1, 2)
forward = rpw.forward_launch(
    image(1, 32, 1, 3), image(1, 16, 1, 1)[:, :, 0, 0], None, image(1, 1, 1, 3), windows, None
)
forward.compile(forward.configs[:2])
kernels = rpw.forward_kernel.device_caches[0][0].values()
assert sorted(kernel.metadata.num_warps for kernel in kernels) == [4, 4], kernels
assert all("wgmma" in kernel.asm["ptx"] for kernel in kernels)
assert not launched
"""
REPEATED = """
launch.Launch.choose = lambda self, name: self.configs[0]
windows = windows_of(24, 20, 4, "1/2")  # steps of 3 in vectors of 8: the weight is filled up
weight, bias = torch.empty(20, 6).half(), torch.empty(20).half()
seen = []
for size in (3, 3, 4):
    x, y = image(2, 24, size, 5), image(2, 20, size, 5)
    rpw.forward(x, weight, bias, windows, out=y)
    (_, _, pad), (kernel, grid, arguments) = launched
    names = dict(zip(rpw.forward_kernel.arg_names, arguments, strict=True))
    assert names["x"] is x and names["y"] is y and names["bias"] is bias
    assert names["weight"] is pad[1] and pad[0] is weight
    assert names["pixels"] == 2 * size * 5 and names["ORDER"] == "natural"
    seen.append((kernel, grid, [a for a in arguments if not isinstance(a, torch.Tensor)]))
    launched.clear()
assert seen[0][0] is seen[1][0] and seen[0][1:] == seen[1][1:] != seen[2][1:]
from ifspace.kernels import repeat
assert len(repeat._repeated) == 3  # the filled weight, and two sizes
# One number further on: another kernel, for a pointer that is no multiple of 16 bytes.
apart = torch.empty(2 * 24 * 3 * 5 + 1).half()[1:].as_strided(image(2, 24, 3, 5).shape,
                                                             image(2, 24, 3, 5).stride())
rpw.forward(apart, weight, bias, windows, out=image(2, 20, 3, 5))
assert launched[-1][0] is not seen[0][0]
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [COMPILED, REPEATED], ids=["compiled", "repeated"])
def test_as_a_launch_on_a_card(program: str, tmp_path: Path) -> None:
    """Tiles compile beside each other; what ran once runs again with other tensors alone."""
    done = in_new_python(tmp_path, "-c", CARD + program)
    assert done.returncode == 0, done.stderr[-4000:]


@only_on_a_cpu
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "sizes", [(96, 150, 4, 0), (160, 168, 10, "0.5"), (80, 97, 2, 0.75), (96, 200, 6, 0.33)]
)
def test_the_work_is_what_the_interpreter_multiplies(
    sizes: tuple[int, int, int, float], order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = windows_of(*sizes, order)
    x, grad = (torch.randn(1, c, 1, 3) for c in (windows.in_channels, windows.out_channels))
    weight = torch.randn(windows.out_channels, windows.width)
    calls: dict[str, Callable[..., object]] = {
        "forward": partial(rpw.forward, x, weight, None, windows),
        "input_grad": partial(rpw.input_grad, grad, weight, windows),
        "weight_grad": partial(rpw.weight_grad, grad, x, windows),
    }
    counted: list[int] = []
    product = InterpreterBuilder.create_dot

    def counting(self: object, left: Any, right: Any, *others: Any) -> Any:
        counted.append(left.data.size * right.data.shape[-1])
        return product(self, left, right, *others)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", counting)
    for kernel, call in calls.items():
        for config in rpw.suitable(kernel, "ieee", 1, False, plain=is_plain(windows)):
            counted.clear()
            call(fp32="ieee", config=config.name)
            each = sum(counted) / (windows.params * config.pixels)
            assert each == pytest.approx(work_of(kernel, config, windows)), config


def a_case() -> AotCase:
    return AotCase("forward", "x", "C=8", None, {}, {}, {}, 4, 2)


def test_faults_of_a_kernel_that_does_not_fit() -> None:
    for target in TARGETS:
        limit = SHARED_BYTES[target]
        assert Compiled(a_case(), target, 255, 0, limit).faults() == []
        assert "the card has" in Compiled(a_case(), target, 255, 0, limit + 1).faults()[0]
        assert "spills 8 bytes" in Compiled(a_case(), target, 255, 8, 0).faults()[0]
        assert Compiled(a_case(), target, 168, 32, 0).faults() == []
        assert "spills 33 bytes" in Compiled(a_case(), target, 168, 33, 0).faults()[0]


def test_an_unknown_target_and_the_interpreter_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KernelError, match=r"no such target: got 'sm_20'; allowed: sm_80, sm_90"):
        compile_case(a_case(), "sm_20")
    monkeypatch.setattr("ifspace.kernels.aot.interprets", lambda: True)
    with pytest.raises(DeviceError, match=r"interpreter does not compile.*unset it before"):
        compile_case(a_case(), "sm_90")
