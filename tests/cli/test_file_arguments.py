"""Every option and argument that takes a file says in words what is wrong with it."""

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("net_file")

RESULTS = Path(__file__).resolve().parents[2] / "results"
OPTIMIZE = "optimize net.py:make --input 3x16x16 --params 60%"
# A command with a place for the file, and the suffix that it is to have.
READ = (
    ("bench --import {} --network net.onnx", ".json"),
    ("groups DW+GPW+SH+GPW --channels 16 --latency {}", ".json"),
    ("layout --stages 32,16 --depths 2,2 --params 1M --latency {}", ".csv"),
    ("analyze {}", ".safetensors"),
    ("analyze --layers {}", ".csv"),
    ("score --layers {}", ".csv"),
    ("validate {}", ".csv"),
    (OPTIMIZE + " --plan {} --blocks-only", ".json"),
    (OPTIMIZE + " --latency {}", ".csv"),
    (OPTIMIZE + " --weights {}", ".safetensors"),
    (OPTIMIZE + " --weights {}", ".pt"),
    (OPTIMIZE + " --warm-start {}", ".npy"),
    (OPTIMIZE + " --widths-only --importance {}", ".csv"),
    ("score --layers list.csv --beside {}", ".csv"),
    ("score {}:make", ".py"),
    ("best {}", ".parquet"),
    ("bench {}", ".parquet"),
    ("merge {}", ""),
    ("report {}", ""),
    ("report results --readme {}", ".md"),
)
WRITTEN = (
    ("kinds --out {}", ".json"),
    ("organize --stages 32,16 --depths 2,2 --save {}", ".safetensors"),
    (OPTIMIZE + " --save {}", ".safetensors"),
)
# What a reader of the message is not to see.
RAW = ("[Errno", "codec can't decode", "char 0", "Traceback")


def _check(ended: "object", place: str) -> None:
    message = ended.err.splitlines()[-1]  # type: ignore[attr-defined]
    assert ended.status == 2, message  # type: ignore[attr-defined]
    assert place in message
    assert not [text for text in RAW if text in message]


@pytest.mark.slow
@pytest.mark.parametrize("line", READ, ids=[f"{line.split()[0]}{suffix}" for line, suffix in READ])
def test_what_cannot_be_read_is_said_in_words(run: Callable, line: tuple[str, str]) -> None:
    command, suffix = line
    Path("list.csv").write_text("kernel,stride,in,out,groups,size\n3,1,3,64,1,32\n", "utf-8")
    Path("results").mkdir()
    shutil.copy(RESULTS / "trajectories.csv", "results")
    Path(f"folder{suffix}").mkdir()
    Path(f"bytes{suffix}").write_bytes(bytes(range(128, 256)))
    Path(f"empty{suffix}").touch()
    os.symlink("/dev/zero", f"device{suffix}")
    for name in ("missing", "folder", "bytes", "empty", "device"):
        place = f"{name}{suffix}"
        _check(run(*shlex.split(command.format(place))), place)


@pytest.mark.parametrize("line", WRITTEN, ids=[line.split()[0] for line, _ in WRITTEN])
def test_what_cannot_be_written_is_said_before_the_work(
    run: Callable, line: tuple[str, str]
) -> None:
    command, suffix = line
    Path(f"folder{suffix}").mkdir()
    os.mkfifo(f"pipe{suffix}")
    for place in (f"folder{suffix}", f"pipe{suffix}", f"nowhere/net{suffix}"):
        _check(run(*shlex.split(command.format(place))), place)
    assert Path(f"pipe{suffix}").is_fifo()
