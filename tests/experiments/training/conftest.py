"""Running the training check and the tournament as programs."""

from collections.abc import Callable
from typing import Any

import pytest

from ifspace.cli import main as cli_main


@pytest.fixture
def run(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs the programs of `experiments.training` in this process."""
    for name, package in (("train-check", ""), ("tournament", ".tournament")):
        monkeypatch.setitem(cli_main.COMMANDS, name, f"experiments.training{package}.command")
    return run
