"""Running the training check as a program."""

from collections.abc import Callable
from typing import Any

import pytest

from ifspace.cli import main as cli_main


@pytest.fixture
def run(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs `python -m experiments.training` in this process."""
    monkeypatch.setitem(cli_main.COMMANDS, "train-check", "experiments.training.command")
    return run
