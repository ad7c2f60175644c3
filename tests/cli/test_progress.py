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


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    with ProgressBar("measuring") as bar, ProgressBar("hidden", quiet=True) as hidden:
        for now in (5.0, 40.0, 50.0, 80.0, 160.0):
            bar(int(now), 160)
            hidden(int(now), 160)
    assert plain.getvalue().splitlines() == [
        "ifspace: measuring: 25% done, about 2 minutes left",
        "ifspace: measuring: 50% done, about 80 seconds left",
    ]
