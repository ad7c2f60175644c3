"""A table as text cells, and the forms it is printed in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

# How a header says that its column stands to the right, as numbers do.
RIGHT = ">"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header, with a title and a note of what a reader must know.

    A header that begins with ">" stands to the right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name.removeprefix(RIGHT) for name in self.header)

    @property
    def right(self) -> tuple[bool, ...]:
        """Which columns stand to the right."""
        return tuple(name.startswith(RIGHT) for name in self.header)

    def markdown(self) -> str:
        """Return title, table and note as Markdown.

        >>> print(Table("Sizes", ("name", ">n"), (("a", "10"),)).markdown())
        **Sizes**
        <BLANKLINE>
        | name   |   n |
        |:-------|----:|
        | a      |  10 |
        """
        align = ["right" if right else "left" for right in self.right]
        body = tabulate(
            self.rows, self.names, tablefmt="pipe", disable_numparse=True, colalign=align
        )
        return "\n\n".join([f"**{self.title}**", str(body), *([self.note] if self.note else [])])


def table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], note: str = ""
) -> Table:
    """Return a table of any values; whole numbers get commas, None is an empty cell.

    >>> table("t", ("a", ">b"), [(None, 1344)]).rows
    (('', '1,344'),)
    """
    return Table(title, tuple(header), tuple(tuple(map(_cell, row)) for row in rows), note)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def amount(value: float) -> str:
    """Return a number with three digits that count, as a reader compares it.

    >>> amount(0.01234), amount(9.999), amount(12345.6), amount(0)
    ('0.0123', '10.0', '12,346', '0')
    """
    if value == 0:
        return "0"
    # The power of ten after rounding: 9.999 is 10.0.
    digits = max(0, 2 - int(f"{value:.2e}".partition("e")[2]))
    return f"{value:,.{digits}f}"
