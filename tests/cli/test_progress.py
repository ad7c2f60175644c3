import io
import sys

import pytest

from ifspace.cli import progress
from ifspace.cli.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("patience_s", "quiet", "shown"), [(0, False, True), (60, False, False), (0, True, False)]
)
def test_the_progress_bar_is_for_terminals(
    patience_s: float, quiet: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", patience_s)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with ProgressBar("searching", quiet=quiet) as bar:
        bar(1, 4)
        bar(4, 4)
    assert ("searching" in terminal.getvalue()) is shown


def test_no_terminal_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0)
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    with ProgressBar("searching") as bar:
        bar(1, 4)
    assert plain.getvalue() == ""
