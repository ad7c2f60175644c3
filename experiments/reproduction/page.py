"""Tables of printed and own numbers, and how many of their rows match."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Final

from tabulate import tabulate

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


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a header; with `judged`, the last cell says whether the row matches.

    The first `labels` cells of a row are its name.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    judged: bool = True
    labels: int = 1

    @property
    def missed(self) -> list[str]:
        """The names of the rows that do not match."""
        return [
            " ".join(map(str, row[: self.labels]))
            for row in self.rows
            if not str(row[-1]).startswith(MATCH)
        ]

    def __str__(self) -> str:
        return str(tabulate(self.rows, self.header, tablefmt="github", disable_numparse=True))


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: paragraphs and tables in the order they are read.

    `counts` says of the judged tables what they are, one name for each; `remark` stands under the
    summary of the page.
    """

    title: str
    parts: Sequence[str | Table]
    counts: Sequence[str]
    remark: str = ""

    @property
    def tables(self) -> list[Table]:
        """The judged tables."""
        return [part for part in self.parts if isinstance(part, Table) and part.judged]

    def summary(self) -> list[tuple[str, int, list[str]]]:
        """Return for each judged table its name, its number of rows, those that do not match."""
        named = zip(self.counts, self.tables, strict=True)
        return [(name, len(table.rows), table.missed) for name, table in named]

    def __str__(self) -> str:
        return "\n\n".join([f"## {self.title}", *map(str, self.parts)])
