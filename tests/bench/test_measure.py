"""What the benchmarks share: watched processes, searches in turn, files of results."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.commands import MODEL_COMMANDS
from benchmarks.measure import in_turn, watch, write_results
from ifspace.bench.record import python

# Holds 64 MiB for a while, in a process of its own.
GRANDCHILD = "import time; held = bytearray(b'x') * (64 << 20); time.sleep(0.6)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}]); print(7)"


@pytest.mark.slow
def test_memory_is_that_of_all_processes() -> None:
    usage = watch(python("-c", CHILD))
    assert usage.output == "7\n"
    assert usage.seconds >= 0.6
    assert 64 < usage.peak_mib < 256


def test_a_failing_command_raises() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        watch(python("-c", "raise SystemExit(3)"))


def test_searches_run_in_turn_and_one_out_of_time_no_more() -> None:
    calls: list[str] = []

    def slow() -> int:
        calls.append("slow")
        raise TimeoutError

    def quick() -> int:
        calls.append("quick")
        return 7

    solutions, seconds = in_turn({"slow": slow, "quick": quick}, 3)
    assert calls == ["slow", "quick", "quick", "quick"]
    assert solutions == [7, 7, 7]
    assert list(seconds) == ["quick"]


def test_results_are_written_and_listed(tmp_path: Path) -> None:
    write_results(tmp_path, "x", ["# Title", "Text."], [{"a": 1}, {"b": 2}], "python -m y")
    assert (tmp_path / "x.md").read_text() == "# Title\n\nText.\n"
    assert (tmp_path / "x.csv").read_bytes() == b"a,b\r\n1,\r\n,2\r\n"
    listed = (tmp_path / "README.md").read_text()
    assert "[x.md](x.md)" in listed
    assert "[x.csv](x.csv)" in listed


def test_files_that_are_analyzed_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    words = [word for command, _, _ in MODEL_COMMANDS for word in command.split()]
    files = [word.partition(":")[0] for word in words if ".py:" in word]
    assert files == ["benchmarks/resnet101.py"]
    assert (root / files[0]).is_file()
