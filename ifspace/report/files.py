"""The files of a results folder: their columns, which command writes them, how they are read."""

import csv
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ifspace.errors import SettingError

Row = Mapping[str, Any]
# What the text of a cell means; raises ValueError for a text that means nothing.
Reader = Callable[[str], Any]


def whole(text: str) -> int:
    """Return a whole number, which may have commas between thousands.

    >>> whole("1,344")
    1344
    """
    return int(text.replace(",", ""))


def number(text: str) -> float:
    """Return a finite number, which may have commas between thousands."""
    value = float(text.replace(",", ""))
    if value - value != 0:
        raise ValueError(text)
    return value


def numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers between spaces.

    >>> numbers("5 4 2")
    (5, 4, 2)
    """
    return tuple(map(int, text.split()))


def maybe(reader: Reader) -> Reader:
    """Return the reader of a column whose cells may be empty: None.

    >>> maybe(whole)("") is None, maybe(whole)("7")
    (True, 7)
    """
    return lambda text: None if text == "" else reader(text)


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of file: the pattern of its name below the folder, the command that writes it.

    `command` has FOLDER where the results folder is named. `columns` says how those are read that
    the report shows; a file may have more. `name` is the pattern as a reader understands it.
    """

    pattern: str
    command: str
    columns: Mapping[str, Reader] = field(default_factory=dict)
    device: bool = False

    @property
    def name(self) -> str:
        """The name of such a file, with a word for what differs.

        >>> CATALOGUE.name, KERNELS.name, BLOCKS.name
        ('catalogue-WIDTH.parquet', 'bench/DEVICE.csv', 'bench/blocks-DEVICE.csv')
        """
        return self.pattern.replace("*", "DEVICE" if self.device else "WIDTH")

    def written_by(self, folder: Path) -> str:
        """Return the command that writes it into a results folder.

        >>> BLOCKS.written_by(Path("my results"))
        "ifspace bench --results 'my results'"
        """
        return " ".join(
            shlex.quote(word.replace("FOLDER", str(folder))) for word in self.command.split()
        )

    def folder_of(self, path: Path) -> Path:
        """Return the results folder that such a file is in.

        >>> BLOCKS.folder_of(Path("a/bench/blocks-cpu.csv")).as_posix()
        'a'
        """
        return path.parents[len(Path(self.pattern).parts) - 1]


CATALOGUE: Final = Source(
    "catalogue-*.parquet", "ifspace enumerate --out FOLDER/catalogue-64.parquet"
)
GROUPS: Final = Source(
    "groups-study.csv",
    "python -m experiments.groups_study --catalogue FOLDER/catalogue-64.parquet --out FOLDER",
    {
        "composition": str,
        "C": whole,
        "F": whole,
        "K": maybe(whole),
        "block": str,
        "params": whole,
        "layers": whole,
    },
)
STAGES: Final = Source(
    "stages-bench.csv",
    "python -m benchmarks.stages --out FOLDER",
    {
        "table": str,
        "params": maybe(whole),
        "macs": maybe(whole),
        "layers": maybe(whole),
        "status": str,
        "gain": maybe(number),
        "bound": maybe(number),
        "depths": numbers,
        "widths": str,
        "blocks": str,
        "network": str,
        "side": maybe(whole),
        "layout": str,
        "best by params and MACs": maybe(number),
        "params and MACs: depths": numbers,
        "best by params alone": maybe(number),
        "params alone: depths": numbers,
    },
)
TRAJECTORIES: Final = Source(
    "trajectories.csv",
    "python -m experiments.reproduction --out FOLDER",
    {
        "network": str,
        "side": whole,
        "step": whole,
        "move": str,
        "depths": numbers,
        "sides": numbers,
        "gain": number,
        "params": whole,
        "macs": whole,
        "published": str,
    },
)
ENERGY: Final = Source(
    "energy-bench.csv",
    "python -m benchmarks.energy --out FOLDER",
    {
        "layers": str,
        "budget": whole,
        "top": whole,
        "best widths": numbers,
        "energy": number,
        "params": whole,
        "depth": whole,
        "width sum": whole,
        "exact s": number,
    },
)
RANKS: Final = Source(
    "energy-ranks.csv",
    "python -m experiments.reproduction --out FOLDER",
    {
        "budget": whole,
        "units": numbers,
        "widths": numbers,
        "energy": number,
        "rank": whole,
        "layouts": whole,
        "paper": str,
    },
)
VERDICTS: Final = Source(
    "reproduction.csv",
    "python -m experiments.reproduction --out FOLDER",
    {"table": str, "rows": whole, "match": whole},
)
# The tidy rows of every benchmark: one number a row, one device a file.
MEASURED: Final[Mapping[str, Reader]] = {
    "case": str,
    "candidate": str,
    "provider": str,
    "mode": str,
    "dtype": str,
    "layout": str,
    "N": maybe(whole),
    "C": maybe(whole),
    "F": maybe(whole),
    "H": maybe(whole),
    "W": maybe(whole),
    "metric": str,
    "unit": str,
    "median": maybe(number),
    "p20": maybe(number),
    "p80": maybe(number),
    "bound": maybe(number),
    "device": str,
    "torch": str,
    "triton": str,
    "date": str,
}
BLOCKS: Final = Source(
    "bench/blocks-*.csv", "ifspace bench --results FOLDER", MEASURED, device=True
)
KERNELS: Final = Source(
    "bench/*.csv", "python -m ifspace.bench.kernels --out FOLDER/bench", MEASURED, device=True
)
# In the folder of the benchmarks, but a table for `ifspace layout --latency`.
LATENCIES: Final = "bench/latency-*.csv"
# One file each, under one name.
SINGLE: Final = (GROUPS, STAGES, TRAJECTORIES, ENERGY, RANKS, VERDICTS)


def read_rows(path: Path, source: Source) -> tuple[Row, ...]:
    """Return the rows of a CSV file with the cells of its known columns read.

    Raises: SettingError for a file that cannot be read, lacks a column, or has a cell that is not
        what the column holds.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in source.columns if name not in (reader.fieldnames or ())]
            if missing:
                raise foreign(path, f"no column {', '.join(missing)}", source)
            return tuple(_read(path, reader.line_num, row, source) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise foreign(path, said or type(error).__name__, source) from None


def _read(path: Path, line: int, row: Mapping[str, str | None], source: Source) -> Row:
    cells = {}
    for name, reader in source.columns.items():
        text = row[name]
        try:
            if text is None:
                raise ValueError(name)
            cells[name] = reader(text)
        except ValueError:
            raise foreign(path, f"line {line}: {name} {text!r}", source) from None
    return cells


def foreign(path: Path, got: str, source: Source) -> SettingError:
    """Return the refusal of a file that has a name of ours and something else in it."""
    return SettingError.because(
        f"{path.name} is not a file of results that can be read",
        got=got,
        allowed=f"what `{source.written_by(source.folder_of(path))}` writes",
        remedy="write it anew, or take it out of the folder",
    )
