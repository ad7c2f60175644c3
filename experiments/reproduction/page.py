"""What the page is made of: readings, verdicts, judged tables, and the score of each paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from enum import Enum
from typing import Any, Final

from ifspace.table import Table


class Outcome(Enum):
    """What a row of a paper turns out to be; the text begins its verdict."""

    MATCH = "matches under"
    MISPRINT = "misprint:"
    NO_READING = "no reading found:"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with its reading, its reason, or what was tried.

    >>> str(Verdict(Outcome.MATCH, "C")), str(Verdict(Outcome.NO_READING, "7 tried"))
    ('matches under C', 'no reading found: 7 tried')
    """

    outcome: Outcome
    text: str

    def __str__(self) -> str:
        return f"{self.outcome.value} {self.text}"


@dataclass(frozen=True, slots=True)
class Reading:
    """How the numbers of some tables are read: one choice for all their rows.

    `tried`: how many readings were compared, this one included; `fits`: how many rows the chosen
    one and the next best explain, where there was a choice.
    """

    name: str
    tables: str
    text: str
    tried: int = 1
    fits: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows that a paper prints, each with its verdict."""

    paper: str
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    verdicts: tuple[Verdict, ...]

    def count(self, outcome: Outcome) -> int:
        """Return how many rows have an outcome."""
        return sum(verdict.outcome is outcome for verdict in self.verdicts)

    def table(self) -> Table:
        """Return the rows with their verdicts in the last column."""
        pairs = zip(self.rows, self.verdicts, strict=True)
        rows = tuple((*row, str(verdict)) for row, verdict in pairs)
        return Table((*self.columns, "verdict"), rows)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: paragraphs and tables in the order they are read."""

    title: str
    parts: Sequence[str | Table | Judged]
    readings: Sequence[Reading] = ()

    @property
    def judged(self) -> list[Judged]:
        """The judged tables."""
        return [part for part in self.parts if isinstance(part, Judged)]

    def __str__(self) -> str:
        return "\n\n".join([f"## {self.title}", *map(markdown, self.parts)])


PAPERS: Final = ("[IF]", "[3DRF]", "[Layout]", "[Fog]")


def score(sections: Sequence[Section]) -> Table:
    """Return how many rows of each paper match, are misprints, or have no reading."""
    judged = [table for section in sections for table in section.judged]
    rows = [
        (paper, *totals([table for table in judged if table.paper == paper])) for paper in PAPERS
    ]
    return Table(
        ("paper", ">rows", ">matches", ">misprints", ">no reading found"),
        (*rows, ("all", *totals(judged))),
    )


def totals(tables: Sequence[Judged]) -> tuple[int, ...]:
    """Return the number of rows, and that of each outcome."""
    return (
        sum(len(table.rows) for table in tables),
        *(sum(table.count(outcome) for table in tables) for outcome in Outcome),
    )


def summary(sections: Sequence[Section]) -> Table:
    """Return the score of each table."""
    return Table(
        ("paper", "table", ">rows", ">matches", ">misprints", ">no reading found"),
        tuple(
            (table.paper, table.name, *totals([table]))
            for section in sections
            for table in section.judged
        ),
    )


def readings_table(sections: Sequence[Section]) -> Table:
    """Return all readings by name."""
    return Table(
        ("reading", "tables", "what it is", ">tried", "rows that fit"),
        tuple(
            (reading.name, reading.tables, reading.text, reading.tried, reading.fits)
            for section in sections
            for reading in section.readings
        ),
    )


def agrees(printed: str, ours: float) -> str:
    """Return `rounded` or `cut` if a number is the printed one to its digits, else nothing.

    >>> agrees("1.17", 1.1661), agrees("0.29", 0.2974), agrees("2.30", 2.49)
    ('rounded', 'cut', '')
    """
    expected = Decimal(printed)
    step = Decimal(1).scaleb(int(expected.as_tuple().exponent))
    exact = Decimal(repr(ours))
    if exact.quantize(step, ROUND_HALF_UP) == expected:
        return "rounded"
    return "cut" if exact.quantize(step, ROUND_DOWN) == expected else ""


def matched(reading: str, printed: str, ours: float) -> Verdict | None:
    """Return the verdict of a number that is the printed one under a reading, else None.

    >>> str(matched("F", "0.29", 0.2974))
    'matches under F (cut)'
    """
    how = agrees(printed, ours)
    if not how:
        return None
    return Verdict(Outcome.MATCH, reading if how == "rounded" else f"{reading} (cut)")


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


def markdown(part: str | Table | Judged) -> str:
    """Return a paragraph or a table as Markdown."""
    if isinstance(part, str):
        return part
    return (part.table() if isinstance(part, Judged) else part).markdown().rstrip()
