"""Compiled functions: kept on disk, without a folder, damaged, for other processors."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import binding as llvm

from ifspace.kernels.chain import compiled, loops
from ifspace.kernels.chain.compiled import Entry
from ifspace.kernels.chain.loops import LANES
from ifspace.kernels.chain.translation import INT64, Function, Piece, Translation

# Prints the seconds of processor time of the first call of `run`, and whether its result is right.
FIRST_CALL = """
import time, torch
from ifspace.kernels.chain import tiles
from ifspace.kernels.chain.stages import Chain, Stage, reference
chain = Chain((Stage(8, 8, 1, 1, "blocked", 3, 1, 1), Stage(8, 8, 4, 4, activation="silu")))
x, weights = torch.randn(1, 8, 9, 20), torch.randn(chain.weights)
begin = time.process_time()
y = tiles.run(x, weights, None, chain)
print(time.process_time() - begin, torch.allclose(y, reference(x, weights, None, chain), atol=1e-5))
"""
FEATURES = {
    "x86-64-v2": "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16",
    "x86-64-v3": "+sse4.2,+popcnt,+cx16,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe",
}


def first_call(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", FIRST_CALL],
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def seconds_of(process: "subprocess.Popen[str]") -> tuple[float, str]:
    """Return the seconds of the first call in a process, and what it says."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    seconds, is_right = output.split()
    assert is_right == "True"
    return float(seconds), errors


@pytest.mark.slow
def test_first_processes_compile_and_the_next_ones_load(tmp_path: Path) -> None:
    """Two at once that compile, and one that loads, in a fraction of the processor time."""
    cold = [seconds_of(process) for process in [first_call(tmp_path) for _ in range(2)]]
    assert "ifspace: compiling CPU kernel run, once, about 2 s\n" in {note for _, note in cold}
    (path,) = tmp_path.rglob("run-*")
    assert path.suffix == ".o"
    seconds, note = seconds_of(first_call(tmp_path))
    assert note == ""
    assert seconds < min(seconds for seconds, _ in cold) / 10


# ---- a small function in this process


set_zero = loops.set_zero


def clear(address, begin, end):  # type: ignore[no-untyped-def]
    set_zero(address + 4 * begin, end - begin)


def use(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Compile or load `clear`, see that it works, and return what was said."""
    caplog.clear()
    numbers = np.ones(5, dtype=np.float32)
    words = np.array([numbers.ctypes.data, 3, 2, 0, 0, 0])  # three numbers, two at a time
    Entry(clear).code(words.ctypes.data)
    assert numbers.tolist() == [0, 0, 0, 1, 1]
    return [record.getMessage() for record in caplog.records]


COMPILES = "ifspace: compiling CPU kernel clear, once, about 1 s"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_code_is_compiled_once_and_said_to_be(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert use(caplog) == [COMPILES]
    assert use(caplog) == []
    assert [path.suffix for path in folder.rglob("*.*")] == [".o"]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_compiled_anew(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    use(caplog)
    (path,) = folder.rglob("clear-*.o")
    code = path.read_bytes()
    damaged = {
        "cut": code[: len(code) // 2],
        "changed": code[:200] + bytes([code[200] ^ 1]) + code[201:],
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    assert use(caplog) == [f"ifspace: {path} is damaged", COMPILES]
    assert use(caplog) == []


def test_code_is_read_where_nothing_can_be_written(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a read-only image, whose code another user compiled."""
    before = os.umask(0o022)
    try:
        assert use(caplog) == [COMPILES]
    finally:
        os.umask(before)
    (path,) = folder.rglob("clear-*.o")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def refuses(**_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(compiled, "TemporaryFile", refuses)
    assert use(caplog) == []


def test_without_a_folder_every_process_compiles(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a package, a home and a NUMBA_CACHE_DIR that are read-only."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", f"{os.devnull}/none")
    for _ in range(2):
        assert use(caplog) == [
            "ifspace: compiling CPU kernel clear in every process, for no folder takes it "
            "(set NUMBA_CACHE_DIR), about 1 s"
        ]


def test_a_file_that_cannot_be_written_is_no_obstacle(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use(caplog)
    (path,) = folder.rglob("clear-*.o")
    path.unlink()
    path.mkdir()
    for _ in range(2):
        assert use(caplog) == [COMPILES]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "value"), [("NUMBA_CPU_NAME", "x86-64-v2"), ("NUMBA_CPU_FEATURES", "")]
)
def test_another_processor_takes_another_file(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    assert use(caplog) == [COMPILES]
    monkeypatch.setenv(name, value)
    assert use(caplog) == [COMPILES]
    assert len(list(folder.rglob("clear-*.o"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", FEATURES)
def test_chains_on_older_processors(tmp_path: Path, name: str) -> None:
    if "avx2" not in llvm.get_host_cpu_features().flatten():
        pytest.skip("this processor has no AVX2")
    tests = Path(__file__).parent / "test_tiles.py"
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        env=os.environ
        | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": FEATURES[name]}
        | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


# ---- translated functions


@Piece
def write_word(builder: Any, address: Any, index: Any, word: Any) -> None:
    place = builder.gep(builder.inttoptr(address, INT64.as_pointer()), [index])
    builder.store(word, place)


@Function
def mixture(a, b):  # type: ignore[no-untyped-def]
    """Everything that is translated, without a purpose."""
    total, steps = 0, 3
    for i in range(a, a + 9, steps):
        for j in range(2):
            if not j and i % 2:
                continue
            total += i // b * j - i % b
        steps = 7
        i = 0
    inside = -2 < a <= b
    total *= 2 if inside and a != 1 else -3
    if total < -50:
        return min(total, a) + inside
    return max(total, b)


def compute(output, a, b, begin, end):  # type: ignore[no-untyped-def]
    for index in range(begin, end):
        write_word(output, index, mixture(a + index, b))


@pytest.mark.parametrize("b", [-3, -1, 2, 5])
def test_translated_functions_compute_what_python_computes(folder: Path, b: int) -> None:
    results = np.zeros(40, dtype=np.int64)
    words = np.array([results.ctypes.data, -20, b, len(results), 7, 0, 0, 0])
    Entry(compute).code(words.ctypes.data)
    assert results.tolist() == [mixture.python(a, b) for a in range(-20, 20)]


def test_what_is_not_translated_is_refused() -> None:
    def cube(a, begin, end):  # type: ignore[no-untyped-def]
        write_word(a, begin, end**3)

    with pytest.raises(NotImplementedError, match="Pow"):
        Translation().function(Function(cube))


# ---- other processors, whose code is read, not run


@pytest.fixture(scope="module", autouse=True)
def all_targets() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def assembly(entry: Any, triple: str, name: str) -> str:
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"LLVM is built without {triple}")
    machine = target.create_target_machine(cpu=name, opt=3, codemodel="jitdefault", jit=True)
    text: str = machine.emit_assembly(entry.module(machine))
    return text


@pytest.mark.slow
@pytest.mark.parametrize("entry", [loops.run, loops.run_weight_gradient], ids=lambda e: e.name)
@pytest.mark.parametrize(
    ("triple", "name", "instruction"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64-v2", r"mulps\s"),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", r"vfmadd\w+ps\s.*%ymm"),
        # The vectors that are written are as wide as those of the processor that writes them.
        (
            "x86_64-unknown-linux-gnu",
            "x86-64-v4",
            rf"vfmadd\w+ps\s.*%{'z' if LANES == 16 else 'y'}mm",
        ),
        ("aarch64-unknown-linux-gnu", "generic", r"fmla\s+v\d+\.4s"),
    ],
)
def test_every_processor_multiplies_vectors(
    entry: Any, triple: str, name: str, instruction: str
) -> None:
    """None calls a function of the C library for each number, and none computes them singly."""
    text = assembly(entry, triple, name)
    assert len(re.findall(instruction, text)) > 50
    assert re.findall(r"\b(?:fmaf?|floorf?|expf?)(?:@PLT)?$", text, re.MULTILINE) == []
    assert re.findall(r"\b(?:vfmadd\w+ss|v?mulss|fmadd)\s", text) == []
