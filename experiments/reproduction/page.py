"""Tables of printed and own numbers, and how many of their rows match."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any, Final

from tabulate import tabulate

from ifspace.table import Table

MATCH: Final = "match"
CUT: Final = "match (cut, not rounded)"


def verdict(printed: str, ours: float) -> str:
    """Return whether a number is the printed one to its digits, or by how much it is off.

    >>> verdict("1.17", 1.1661), verdict("0.29", 0.2974), verdict("2.30", 2.49), verdict("8", 12)
    ('match', 'match (cut, not rounded)', 'off by +0.19', 'off by +4')
    """
    expected = Decimal(printed)
    step = Decimal(1).scaleb(int(expected.as_tuple().exponent))
    exact = Decimal(repr(ours))
    if exact.quantize(step, ROUND_HALF_UP) == expected:
        return MATCH
    if exact.quantize(step, ROUND_DOWN) == expected:
        return CUT
    return f"off by {exact.quantize(step, ROUND_HALF_UP) - expected:+}"


def braces(depths: Iterable[int]) -> str:
    """Return depths as the papers write them.

    >>> braces((5, 4, 2))
    '{5,4,2}'
    """
    return "{" + ",".join(map(str, depths)) + "}"


def signed(number: float, digits: int = 2) -> str:
    """Return a difference with its sign, 0 without.

    >>> signed(1.234), signed(-0.001)
    ('+1.23', '0')
    """
    rounded = round(number, digits)
    return f"{rounded:+,.{digits}f}" if rounded else "0"


def as_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return rows of cells under a header."""
    return Table(tuple(columns), tuple(map(tuple, rows)))


@dataclass(frozen=True, slots=True)
class Judged:
    """A table whose last column says whether a row matches; the first `labels` cells name a row."""

    table: Table
    labels: int = 1

    @property
    def rows(self) -> tuple[tuple[Any, ...], ...]:
        """The rows of the table."""
        return self.table.rows

    @property
    def missed(self) -> list[str]:
        """The names of the rows that do not match."""
        return [
            " ".join(map(str, row[: self.labels]))
            for row in self.rows
            if not str(row[-1]).startswith(MATCH)
        ]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: paragraphs and tables in the order they are read.

    `names`: one for each judged table, for the summary; `remark` stands below the summary.
    """

    title: str
    parts: Sequence[str | Table | Judged]
    names: Sequence[str]
    remark: str = ""

    @property
    def judged(self) -> list[Judged]:
        """The judged tables."""
        return [part for part in self.parts if isinstance(part, Judged)]

    def summary(self) -> list[tuple[str, int, list[str]]]:
        """Return for each judged table its name, its number of rows, those that do not match."""
        named = zip(self.names, self.judged, strict=True)
        return [(name, len(judged.rows), judged.missed) for name, judged in named]

    def __str__(self) -> str:
        return "\n\n".join([f"## {self.title}", *map(markdown, self.parts)])


def markdown(part: str | Table | Judged) -> str:
    """Return a paragraph or a table as Markdown, numbers in cells as they are."""
    if isinstance(part, str):
        return part
    table = part.table if isinstance(part, Judged) else part
    return str(tabulate(table.rows, table.names, tablefmt="github", disable_numparse=True))
