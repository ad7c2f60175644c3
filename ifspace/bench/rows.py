"""Measurement rows, tidy: one number a row, with what it was measured on."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from io import StringIO
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import torch

from ifspace.bench.record import provenance
from ifspace.errors import SettingError
from ifspace.storage import replacing

COLUMNS: Final = (
    "case",
    "candidate",
    "provider",
    "mode",
    "dtype",
    "layout",
    "N",
    "C",
    "F",
    "H",
    "W",
    "metric",
    "unit",
    "median",
    "p20",
    "p80",
    "bound",
    "device",
    "torch",
    "triton",
    "date",
)
TIME: Final = "time"
LEAST: Final = "least time"
OF_BOUND: Final = "share of bound"
ROUNDS: Final = "rounds"
NOT_RUN: Final = "not run: "
FORWARD: Final = "forward"
BOTH_WAYS: Final = "forward+backward"
MODES: Final = (FORWARD, BOTH_WAYS)
LAYOUTS: Final = ("channels_last", "nchw")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """What rows were measured on: a name fit for a file, the versions, the day."""

    device: str
    torch: str
    triton: str
    date: str


def this_machine(device: torch.device) -> Machine:
    """Return this machine, as it is with a device."""
    name = "cpu " + provenance("").machine.rsplit(", ", 2)[0]
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    return Machine(file_safe(name), torch.__version__, _version("triton"), date)


def file_safe(name: str) -> str:
    """Return a name in lower-case letters, digits and hyphens.

    >>> file_safe("NVIDIA H200"), file_safe("cpu AMD EPYC 9B14 (2)")
    ('nvidia-h200', 'cpu-amd-epyc-9b14-2')
    """
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def spread(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Return p20, median and p80.

    >>> spread([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    (2.0, 3.5, 5.0)
    """
    if len(numbers) == 1:
        return numbers[0], numbers[0], numbers[0]
    tenths = quantiles(numbers, n=10, method="inclusive")
    return tenths[1], tenths[4], tenths[7]


def rounded(value: Any) -> Any:
    """Return a number as it is written: six digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


RED: Final = "red: "
COMPILED: Final = " +compile"
PEAK: Final = "peak memory"
PREDICTED: Final = "predicted time"
# What tells one measurement from another beside its metric.
_WHAT: Final = ("case", "candidate", "mode", "dtype", "layout", "N", "C", "F", "H", "W")
_NUMBERS: Final = ("median", "p20", "p80", "bound")
Key = tuple[str, ...]


class Book:
    """Rows in the order in which they came; a new row takes the place of one of its kind."""

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
        """Forget rows of a candidate, and why it was not run."""
        what, names = _key(start)[:-1], set(metrics)
        for key in [key for key in self._rows if key[:-1] == what]:
            if key[-1] in names or key[-1].startswith((NOT_RUN, RED)):
                del self._rows[key]

    def forget(self, start: Row) -> None:
        """Forget all rows of a candidate."""
        what = _key(start)[:-1]
        for key in [key for key in self._rows if key[:-1] == what]:
            del self._rows[key]

    def find(self, start: Row, metric: str) -> Row | None:
        """Return the row of a candidate with a metric."""
        return self._rows.get((*_key(start)[:-1], metric))

    def number(self, start: Row, metric: str) -> float | None:
        """Return the median of a metric, or None where it was not measured."""
        row = self.find(start, metric)
        return None if row is None or row["median"] == "" else float(row["median"])

    def is_measured(self, start: Row, rounds: int, compiled: bool = False) -> bool:
        """Return whether a candidate was timed in so many rounds or more."""
        suffix = COMPILED * compiled
        done = self.number(start, ROUNDS + suffix)
        return done is not None and done >= rounds and self.number(start, TIME + suffix) is not None

    def least_ms(self, start: Row) -> float | None:
        """Return the least time of a candidate in milliseconds."""
        return self.number(start, LEAST)

    def read(self, path: Path) -> int:
        """Take over the rows of a file; return how many others it has, of other versions.

        Raises: SettingError for a file of something else, or of another device.
        """
        left = 0
        for row in _rows_of(path):
            if row["device"] != self.machine.device:
                raise _foreign(path, f"rows of {row['device']}", f"those of {self.machine.device}")
            if (row["torch"], row["triton"]) == (self.machine.torch, self.machine.triton):
                self.put([row])
            else:
                left += 1
        return left

    def write(self, path: Path) -> None:
        """Write the rows.

        Raises: OutputError where that cannot be.
        """
        text = StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self)
        with replacing(path) as file:
            file.write_text(text.getvalue(), encoding="utf-8")


def _key(row: Mapping[str, object]) -> Key:
    return (*(str(row[name]) for name in _WHAT), str(row["metric"]))


def _rows_of(path: Path) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise _foreign(path, "other columns", ", ".join(COLUMNS))
            for row in reader:
                if None in row or None in row.values():
                    raise _foreign(path, f"line {reader.line_num} is cut", "whole lines")
                for name in _NUMBERS:
                    if row[name] != "" and not _is_number(row[name]):
                        raise _foreign(
                            path, f"line {reader.line_num}: {name} {row[name]!r}", "numbers"
                        )
                yield dict(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _foreign(path, str(error), "a readable CSV file") from None


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
