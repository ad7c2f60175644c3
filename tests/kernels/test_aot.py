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
import triton
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


# What `make kernels-aot` compiled.
RECORD = ROOT / "results"
# Another triton than that of the record compiles each kernel once, for one target.
ONE_TARGET = "sm_90"


@pytest.mark.slow
def test_every_configuration_compiles_without_spilling(tmp_path: Path) -> None:
    """All kernels as they are now are in the table of record, and some are compiled again."""
    options, targets, out = ["--check"], TARGETS, RECORD
    if f"Compiled by triton {triton.__version__}.\n" not in (out / "kernels-aot.md").read_text():
        options, targets, out = ["--quick", "--targets", ONE_TARGET], (ONE_TARGET,), tmp_path
    options += ["--jobs", "1", "--out", str(out)]
    done = in_new_python(tmp_path, "-m", "benchmarks.kernels_aot", *options)
    assert done.returncode == 0, f"run `make kernels-aot`: {done.stderr[-4000:]}"
    with (out / "kernels-aot.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["target"] for row in rows} == set(targets)
    assert all(int(row["spilled bytes"]) <= 32 for row in rows)
    assert all(float(row["shared KiB"]) * 1024 <= SHARED_BYTES[row["target"]] for row in rows)
    assert all(0 < int(row["registers"]) < 512 for row in rows)
    for target in targets:
        compiled = [row for row in rows if row["target"] == target]
        assert {"pad", "sum_parts", "chain"} <= {row["kernel"] for row in compiled}
        assert any("wide" in row["problem"] for row in compiled)
        assert {
            (row["kernel"], row["configuration"]) for row in compiled if row["kernel"] in KERNELS
        } == {(c.kernel, c.name) for c in CONFIGS if target in c.targets}


# A table that is not that of the kernels, of one kernel and target.
DAMAGED = """
import csv, io, sys
from contextlib import redirect_stderr, suppress
from pathlib import Path
from benchmarks.kernels_aot import main
with open(sys.argv[1], newline="") as file:
    table = list(csv.DictReader(file))
rows = [row for row in table if (row["kernel"], row["target"]) == ("chain", "gfx942")]
folder = Path("results")
folder.mkdir()
def faults(rows):
    with (folder / "kernels-aot.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    options = ["--modules", "chain", "--targets", "gfx942", "--jobs", "1", "--out", str(folder)]
    with redirect_stderr(io.StringIO()) as errors, suppress(SystemExit):
        main(["--check", *options])
    return errors.getvalue()
first, *others = rows
assert faults(rows) == ""
assert faults(others).startswith("not compiled: chain "), faults(others)
assert faults([*rows, first | {"key": "0"}]).startswith("no such kernel: chain ")
assert "spills 99 bytes" in faults([first | {"spilled bytes": "99"}, *others])
assert "shared memory" in faults([first | {"shared KiB": "65.0"}, *others])
assert faults([first | {"work": "7.0"}, *others]).startswith("work is ")
assert faults([row | {"registers": "7"} for row in rows]).startswith("compiled again: ")
"""


@pytest.mark.slow
def test_a_table_of_other_kernels_fails(tmp_path: Path) -> None:
    done = in_new_python(tmp_path, "-c", DAMAGED, str(RECORD / "kernels-aot.csv"))
    assert done.returncode == 0, done.stderr[-4000:]


KERNEL = """
import triton
import triton.language as tl
SHIFT = tl.constexpr(1)
@triton.jit
def shifted(x):
    return x + SHIFT
@triton.jit
def kernel(x, y):
    tl.store(y, shifted(tl.load(x)))
"""
KEYS = """
import importlib.util, sys
from dataclasses import replace
from pathlib import Path
from ifspace.kernels.aot import AotCase
def case_of(name, text):
    Path(f"{name}.py").write_text(text)
    spec = importlib.util.spec_from_file_location(name, f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    signature = {"x": "*fp32", "y": "*fp32"}
    return AotCase("kernel", "", "", module.kernel, signature, {}, {}, 4, 2)
text = sys.argv[1]
case = case_of("one", text)
same = case_of("moved", "# A comment.\\n\\n" + text.replace("return", "# another\\n    return"))
assert same.key("sm_90") == case.key("sm_90")
others = [case_of("called", text.replace("x + SHIFT", "x - SHIFT"))]
others += [case_of("constant", text.replace("constexpr(1)", "constexpr(2)"))]
others += [case_of("own", text.replace("tl.store(y", "tl.store(x"))]
others += [replace(case, warps=8), replace(case, stages=3)]
others += [replace(case, signature=case.signature | {"y": "*fp16"})]
others += [replace(case, attributes={(0,): [["tt.divisibility", 16]]})]
others += [replace(case, constexprs={"y": None})]
keys = {case.key("sm_90"), case.key("sm_80"), *(other.key("sm_90") for other in others)}
assert len(keys) == 2 + len(others)
"""


@pytest.mark.slow
def test_the_key_of_a_kernel_changes_with_what_the_compiler_reads(tmp_path: Path) -> None:
    done = in_new_python(tmp_path, "-c", KEYS, KERNEL)
    assert done.returncode == 0, done.stderr[-4000:]


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
