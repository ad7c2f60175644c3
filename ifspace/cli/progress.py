"""Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere."""

import json
import sys
import time
from types import TracebackType
from typing import Any, Final, Self

from ifspace.cli.messages import say
from ifspace.values import counted

PATIENCE_S = 1.0
# Where stderr is no terminal, as in a log, there is a line so often.
LINE_EVERY_S = 30.0


class ProgressBar:
    """A progress callback (done, total) that draws a bar when work takes over a second.

    Where stderr is no terminal it writes a line every half minute instead. With `quiet` nothing is
    shown. In the form "json" there is a line of JSON for every call, quiet or not.
    """

    def __init__(self, title: str, *, quiet: bool = False, form: str = "bar") -> None:
        self._title = title
        self._quiet = quiet
        self._form = form
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how much of the total is done."""
        if self._form == "json":
            elapsed_s = round(time.monotonic() - self._started, 3)
            values = {"progress": self._title, "done": done, "total": total, "elapsed_s": elapsed_s}
            sys.stderr.write(f"{json.dumps(values)}\n")
            sys.stderr.flush()
            return
        if self._quiet or time.monotonic() - self._started < PATIENCE_S:
            return
        if not sys.stderr.isatty():
            self._write_line(done, total)
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn(self._title),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self._title, total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)

    def _write_line(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line < LINE_EVERY_S or not 0 < done < total:
            return
        self._last_line = now
        left_s = (now - self._started) * (total - done) / done
        text = f"{self._title}: {done / total:.0%} done, {duration_text(left_s)} left"
        say(text)


# Units of time, their seconds, and below how many seconds they are said.
_UNITS: Final = (
    ("second", 1, 90),
    ("minute", 60, 90 * 60),
    ("hour", 3600, 48 * 3600),
    ("day", 86400, 365 * 86400),
)


def duration_text(seconds: float) -> str:
    """Return about how long something takes.

    >>> duration_text(7.2), duration_text(200), duration_text(3e5), duration_text(float("nan"))
    ('about 7 seconds', 'about 3 minutes', 'about 3 days', 'more than a year')
    """
    for unit, length_s, most_s in _UNITS:
        if seconds < most_s:
            count = max(1, round(seconds / length_s))
            return f"about {counted(count, unit)}"
    # An estimate that overflowed is NaN: that is not below a year either.
    return "more than a year"
