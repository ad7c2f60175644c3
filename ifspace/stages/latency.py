"""A table of measured latencies: how long one block takes at its widths, side and stride.

Times are exact: read from text as fractions and rounded up, so that a sum within a budget is.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from ifspace.block import Block, SizedBlock
from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.storage import read_csv

COLUMNS: Final = ("block", "C", "F", "side", "stride", "batch", "device", "dtype", "latency_ms")
CONDITIONS: Final = ("batch", "device", "dtype")
DECIMALS: Final = 6
# Block, channels in and out, side in pixels, stride.
Case = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Milliseconds of one block, exact, by block, widths in channels, side in pixels, stride.

    >>> table = LatencyTable({("DW+PW", 8, 8, 4, 1): Fraction(1, 2)})
    >>> table.of(Block.parse("dw+pw").at(8), 4)
    Fraction(1, 2)
    """

    cases: Mapping[Case, Fraction]

    def __hash__(self) -> int:
        """Return a hash of the cases."""
        return hash(frozenset(self.cases.items()))

    def find(self, block: SizedBlock, side: int, stride: int = 1) -> Fraction | None:
        """Return the latency of a block in milliseconds, or None for a case not measured."""
        return self.cases.get((str(block.block), block.channels, block.out_channels, side, stride))

    def of(self, block: SizedBlock, side: int, stride: int = 1) -> Fraction:
        """Return the latency of a block in milliseconds.

        Raises: SettingError for a case that was not measured.
        """
        latency = self.find(block, side, stride)
        if latency is None:
            raise SettingError.because(
                "no latency for a block in play",
                got=case_text(block, side, stride),
                allowed="the cases of the table",
                remedy="measure it (`ifspace bench --predict CxFxSIDExSTRIDE`), or leave it out",
                argument="latency",
            )
        return latency


def case_text(block: SizedBlock, side: int, stride: int = 1) -> str:
    """Return a case in words.

    >>> case_text(Block.parse("DW+PW").at(8, 16), 4, 2)
    'DW+PW from 8 to 16 channels, side 4, stride 2'
    """
    return (
        f"{block.block} from {block.channels} to {block.out_channels} channels, side {side}, "
        f"stride {stride}"
    )


def read_latency(path: Path) -> LatencyTable:
    """Read a table from CSV with the columns of `COLUMNS` in any order; other columns are ignored.

    Raises: SettingError for a file that cannot be read, lacks a column, holds a value that is no
        number, measures a case twice, or mixes batches, devices or data types.
    """
    try:
        table = read_csv(path)
    except FileNotFoundError:
        raise SettingError.because(
            f"no {ARGUMENT} table there",
            got=path,
            allowed="a CSV file that exists",
            remedy="check the name",
            argument="latency",
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _malformed(
            path, str(error), "a readable CSV file, its decimals with a point"
        ) from None
    names, rows = table.columns, table.rows
    if not names:
        raise _malformed(path, "an empty file", f"a first line with {', '.join(COLUMNS)}")
    if len(names) == 1 and ";" in names[0]:
        raise _malformed(path, "columns between semicolons", "columns between commas")
    if missing := [name for name in COLUMNS if name not in names]:
        raise _malformed(path, f"no column {', '.join(missing)}", ", ".join(COLUMNS))
    if not rows:
        raise _malformed(path, "no rows", "at least one measured case")
    cases: dict[Case, Fraction] = {}
    conditions = {tuple(row[name] for name in CONDITIONS) for _, row in rows}
    if len(conditions) > 1:
        raise _malformed(path, _mixed(conditions), "one batch, device and dtype in a table")
    for line, row in rows:
        case, latency = _case(path, line, row)
        if case in cases:
            raise _malformed(path, f"line {line} measures a case again", "each case once")
        cases[case] = latency
    return LatencyTable(cases)


def _case(path: Path, line: int, row: Mapping[str, str]) -> tuple[Case, Fraction]:
    text = row["block"]
    try:
        block = str(Block.parse(text))
    except IfspaceError:
        allowed = "blocks with their groups, such as DW+RPW(8,1/2) or CONV(3)"
        raise _malformed(path, f"line {line}: block {text!r}", allowed) from None
    numbers = []
    for name in ("C", "F", "side", "stride"):
        text = row[name].strip()
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text)):
            raise _malformed(path, f"line {line}: {name} {text!r}", "whole numbers from 1")
        numbers.append(int(text))
    c_in, c_out, side, stride = numbers
    return (block, c_in, c_out, side, stride), _milliseconds(path, line, row["latency_ms"])


def _milliseconds(path: Path, line: int, text: str) -> Fraction:
    plain = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", text.strip())
    exact = Fraction(text.strip()) if plain else None
    if exact is None or not 0 < exact < 10**7:
        raise _malformed(path, f"line {line}: latency_ms {text!r}", "numbers above 0")
    # Rounded up: a sum within a budget is within it exactly.
    scale: int = 10**DECIMALS
    return Fraction(-(-exact.numerator * scale // exact.denominator), scale)


def _mixed(conditions: Iterable[tuple[str, ...]]) -> str:
    columns = zip(CONDITIONS, zip(*conditions, strict=True), strict=True)
    return "; ".join(
        f"{name} {', '.join(sorted(set(values)))}"
        for name, values in columns
        if len(set(values)) > 1
    )


def _malformed(path: Path, got: str, allowed: str) -> SettingError:
    return SettingError.because(
        f"malformed {ARGUMENT} table {path.name}",
        got=got,
        allowed=allowed,
        remedy="correct the table",
        argument="latency",
    )
