"""Measurement rows, tidy: one number a row, with what it was measured on; and the file of them.

A file is of one device and one set of versions: rows of others are not kept beside new ones.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from ifspace.bench.machine import Machine
from ifspace.errors import SettingError
from ifspace.measurements import (
    ADDED,
    COLUMNS,
    COMPILED,
    FAILED,
    LEAST,
    NOT_RUN,
    ROUNDS,
    TIME,
)
from ifspace.storage import read_csv, reason, replacing

# What tells one measurement from another beside its metric.
_SUBJECT: Final = ("case", "candidate", "form", "mode", "dtype", "layout", *"NCFHW")
_NUMBERS: Final = ("median", "p20", "p80", "bound")
Row = dict[str, Any]
Key = tuple[str, ...]


def start_row(machine: Machine, columns: Mapping[str, Any]) -> Row:
    """Return a row of this machine with the given columns and no number yet."""
    return (
        dict.fromkeys(COLUMNS, "")
        | ADDED
        | dict(columns)
        | {
            "device": machine.device,
            "torch": machine.torch,
            "triton": machine.triton,
            "date": machine.date,
        }
    )


def with_numbers(
    start: Row, metric: str, unit: str, numbers: Sequence[float] = (), bound: float | None = None
) -> Row:
    """Return a row with a metric: the median, p20 and p80 of numbers, empty without numbers."""
    p20, median, p80 = percentiles(numbers) if numbers else ("", "", "")
    values = {"median": median, "p20": p20, "p80": p80, "bound": "" if bound is None else bound}
    rounded = {name: _rounded(value) for name, value in values.items()}
    return start | {"metric": metric, "unit": unit} | rounded


def time_rows(
    start: Row, seconds: Sequence[float], bound_s: float, suffix: str = ""
) -> tuple[Row, Row, Row]:
    """Return the rows of a candidate's times: their percentiles, the least, how many rounds."""
    times_ms = [1e3 * time_s for time_s in seconds]
    bound_ms = 1e3 * bound_s
    return (
        with_numbers(start, TIME + suffix, "ms", times_ms, bound_ms),
        with_numbers(start, LEAST + suffix, "ms", [min(times_ms)], bound_ms),
        with_numbers(start, ROUNDS + suffix, "count", [len(times_ms)]),
    )


def percentiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Return p20, median and p80; of a single number itself, so that a count stays whole.

    >>> percentiles([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]), percentiles([3])
    ((2.0, 3.5, 5.0), (3, 3, 3))
    """
    if len(numbers) == 1:
        return numbers[0], numbers[0], numbers[0]
    p20, median, p80 = np.percentile(numbers, (20, 50, 80)).tolist()
    return p20, median, p80


def _rounded(value: Any) -> Any:
    """Return a number as it is written: six digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Measurements:
    """Rows in the order in which they came; a new row replaces the one of the same measurement."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._rows: dict[Key, Row] = {}

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def put(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        for row in rows:
            self._rows[_key(row)] = row

    def drop(self, start: Row, metrics: Iterable[str]) -> None:
        """Remove rows of a candidate, and the reasons why it was not timed."""
        subject, names = _key(start)[:-1], set(metrics)
        for key in [key for key in self._rows if key[:-1] == subject]:
            if key[-1] in names or key[-1].startswith((NOT_RUN, FAILED)):
                del self._rows[key]

    def drop_all(self, start: Row) -> None:
        """Remove all rows of a candidate."""
        subject = _key(start)[:-1]
        for key in [key for key in self._rows if key[:-1] == subject]:
            del self._rows[key]

    def find(self, start: Row, metric: str) -> Row | None:
        """Return the row of a candidate with a metric."""
        return self._rows.get((*_key(start)[:-1], metric))

    def number(self, start: Row, metric: str) -> float | None:
        """Return the median of a metric, or None where it was not measured."""
        row = self.find(start, metric)
        return None if row is None or row["median"] == "" else float(row["median"])

    def is_timed(self, start: Row, rounds: int, compiled: bool = False) -> bool:
        """Return whether a candidate was timed in so many rounds or more."""
        suffix = COMPILED * compiled
        count = self.number(start, ROUNDS + suffix)
        return (
            count is not None and count >= rounds and self.number(start, TIME + suffix) is not None
        )

    def read(self, path: Path) -> int:
        """Add the rows of a file; return how many of other versions are left out.

        Raises: SettingError for a file of something else, or of another device.
        """
        left_out = 0
        for row in _file_rows(path):
            if row["device"] != self.machine.device:
                raise _foreign(path, f"rows of {row['device']}", f"those of {self.machine.device}")
            if (row["torch"], row["triton"]) == (self.machine.torch, self.machine.triton):
                self.put([row])
            else:
                left_out += 1
        return left_out

    def write(self, path: Path) -> None:
        """Write the rows, all or none.

        Raises: OutputError where that is not possible.
        """
        text = StringIO()
        write_rows(text, self, "\n")
        with replacing(path) as file:
            file.write_text(text.getvalue(), encoding="utf-8")


def write_rows(file: Any, rows: Iterable[Row], line_end: str) -> None:
    """Write rows as CSV with a header line."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)


def _key(row: Mapping[str, object]) -> Key:
    return (*(str(row[name]) for name in _SUBJECT), str(row["metric"]))


def _file_rows(path: Path) -> Iterator[Row]:
    try:
        table = read_csv(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _foreign(path, reason(error), "a readable CSV file, with whole lines") from None
    older = tuple(name for name in COLUMNS if name not in ADDED)
    if table.columns not in (COLUMNS, older):
        raise _foreign(path, "other columns", ", ".join(COLUMNS))
    for line, row in table.rows:
        for name in _NUMBERS:
            if row[name] != "" and not _is_number(row[name]):
                raise _foreign(path, f"line {line}: {name} {row[name]!r}", "numbers")
        yield ADDED | dict(row)


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def _foreign(path: Path, got: str, allowed: str) -> SettingError:
    return SettingError.because(
        f"{path.name} cannot be added to",
        got=got,
        allowed=allowed,
        remedy="move it away, or name another folder",
        argument="results",
    )
