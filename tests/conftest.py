"""What every test runs under, and the fixture that runs a command."""

import gc
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Where it is set, outputs are folded; the snapshots have whole lines.
os.environ.pop("COLUMNS", None)

# Before anything imports triton: its decorators read this once, at import. `make test-gpu` runs the
# same tests compiled, on the card.
if os.environ.get("IFSPACE_TEST_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

from hypothesis import settings
from network_files import FILE
from threads import one_thread

from ifspace.cli.main import main
from ifspace.models.torchvision_operators import declare_when_imported

__all__ = ["one_thread"]

# A shell starts background jobs with this signal ignored; tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that import torchvision themselves do so as the product does.
declare_when_imported()

# The same examples on every run: a red test can be run again and stays red.
settings.register_profile(
    "default", derandomize=True, deadline=None, max_examples=60, print_blob=True
)
settings.register_profile("thorough", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("IFSPACE_HYPOTHESIS_PROFILE", "default"))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the hundreds of thousands of objects that imports made.

    And let it run more rarely: a trace makes millions of small objects, few of them in cycles, and
    a tenth of the time of the tests went into looking for those.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@dataclass(frozen=True)
class Ended:
    """How a run of the command line ended: exit status, stdout and stderr."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return stdout as JSON; anything else on stdout is an error."""
        return json.loads(self.out)

    def fails_with(self, *words: str) -> None:
        """Check that the input was an error: one line on stderr, status 2, no data."""
        assert self.status == 2, self.err
        assert self.out == ""
        assert self.err.count("\n") == 1
        assert self.err.startswith("ifspace: ")
        assert [word for word in words if word not in self.err] == [], self.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a function that runs `ifspace` with its arguments, in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Ended(stopped.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def net_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a new folder with net.py, a file with networks."""
    (tmp_path / "net.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
