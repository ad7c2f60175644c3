"""Every Triton kernel compiles for every target, without a card: nothing spills, all fits."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kernels_aot import MODULES
from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.aot import AotCase, Compiled, compile_case
from ifspace.kernels.launch import SHARED_BYTES, TARGETS
from ifspace.kernels.rpw.triton import CONFIGS, KERNELS

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


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_configuration_compiles_without_spilling(module: str, tmp_path: Path) -> None:
    out = tmp_path / "results"
    options = ["--quick", "--modules", module, "--out", str(out)]
    done = in_new_python(tmp_path, "-m", "benchmarks.kernels_aot", *options)
    assert done.returncode == 0, done.stderr[-4000:]
    with (out / "kernels-aot.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["target"] for row in rows} == set(TARGETS)
    assert all(row["spilled bytes"] == "0" for row in rows)
    assert all(float(row["shared KiB"]) * 1024 <= SHARED_BYTES[row["target"]] for row in rows)
    assert all(0 < int(row["registers"]) < 512 for row in rows)
    if module == "rpw":
        compiled = {
            (row["kernel"], row["configuration"], row["target"])
            for row in rows
            if row["kernel"] in KERNELS
        }
        assert {"pad", "sum_parts"} <= {row["kernel"] for row in rows}
        assert any(row["problem"].endswith("wide NCHW bf16") for row in rows)
        every = {(c.kernel, c.name, target) for c in CONFIGS for target in c.targets}
        assert compiled == every


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


def a_case() -> AotCase:
    return AotCase("forward", "x", "C=8", None, {}, {}, {}, 4, 2)


def test_faults_of_a_kernel_that_does_not_fit() -> None:
    for target in TARGETS:
        limit = SHARED_BYTES[target]
        assert Compiled(a_case(), target, 255, 0, limit).faults() == []
        assert "the card has" in Compiled(a_case(), target, 255, 0, limit + 1).faults()[0]
        assert "spills 8 bytes" in Compiled(a_case(), target, 255, 8, 0).faults()[0]


def test_an_unknown_target_and_the_interpreter_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KernelError, match=r"no such target: got 'sm_20'; allowed: sm_80, sm_90"):
        compile_case(a_case(), "sm_20")
    monkeypatch.setattr("ifspace.kernels.aot.interprets", lambda: True)
    with pytest.raises(DeviceError, match=r"interpreter does not compile.*unset it before"):
        compile_case(a_case(), "sm_90")
