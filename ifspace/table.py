"""Tables, headings and facts as text: folded to a terminal, whole and plain elsewhere.

Terminal text is laid out here, because blocks fold after their `+` and wide tables continue below;
Markdown and LaTeX are tabulate's.
"""

import csv
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal, TextIO

import click

from ifspace.values import set_fields

_GAP = "  "
_LEAST = 14  # a column is not folded below this where its text is that long


def heading(text: str) -> str:
    """Return a heading line and an empty line."""
    return "".join(f"{_bold(line)}\n" for line in _fold(text, terminal_width())) + "\n"


def paragraph(text: str) -> str:
    """Return a sentence, folded to the terminal."""
    return "".join(f"{line}\n" for line in _fold(text, terminal_width()))


@dataclass(frozen=True, slots=True)
class Table:
    r"""Columns and rows, with a title and notes: one value for every output format.

    A column is written `>name` when it is aligned to the right, as numbers are, and `name~` when it
    may be folded on a terminal, at spaces outside parentheses and after the `+` of a block. Rows
    hold any values: None is an empty cell, whole numbers get commas where people read them.

    >>> sizes = Table(("block~", ">params"), (("DW+PW", 4672), ("CONV", None)))
    >>> print(sizes.text(), end="")
    block  params
    -------------
    DW+PW   4,672
    CONV
    >>> sizes.csv()
    'block,params\nDW+PW,4672\nCONV,\n'
    >>> sizes.records()[0]
    {'block': 'DW+PW', 'params': 4672}
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        set_fields(
            self,
            columns=tuple(self.columns),
            rows=tuple(map(tuple, self.rows)),
            notes=tuple(self.notes),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, without their marks."""
        return tuple(column.strip(">~") for column in self.columns)

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries, for JSON."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]

    def csv(self) -> str:
        """Return the rows as CSV with a header line; None is an empty cell."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows(self.rows)
        return text.getvalue()

    def markdown(self, style: Literal["pipe", "github"] = "pipe") -> str:
        """Return title, table and notes as Markdown; numbers as they are, for programs too.

        "github" has no colons in the rule below the names: the pages of results have it.

        >>> print(Table(("name", ">n"), (("a", 10),), "Sizes").markdown(), end="")
        **Sizes**
        <BLANKLINE>
        | name   |   n |
        |:-------|----:|
        | a      |  10 |
        """
        from tabulate import tabulate

        cells = [[_plain(value).replace("|", "\\|") for value in row] for row in self.rows]
        body = tabulate(cells, self.names, style, disable_numparse=True, colalign=self.alignment)
        title = [f"**{self.title}**"] if self.title else []
        return "\n\n".join([*title, str(body), *self.notes]) + "\n"

    def latex(self) -> str:
        """Return the rows as a LaTeX tabular; cells are LaTeX already."""
        from tabulate import tabulate

        cells = [["" if value is None else str(value) for value in row] for row in self.rows]
        body = tabulate(
            cells, self.names, "latex_raw", disable_numparse=True, colalign=self.alignment
        )
        return f"{body}\n"

    def text(self, width: int | None = None, keys: int = 1) -> str:
        """Return title, table and notes for a terminal, at most `width` columns wide.

        The width is that of the terminal; without one nothing is folded, and no name is ever cut.
        Columns that do not fit go into further tables below, each with the first `keys` columns
        again.

        >>> wide = Table(("block~", ">params"), (("DW+RPW(4,0)+RPW(4,0)", 272),))
        >>> print(wide.text(width=24), end="")
        block            params
        ------------------------
        DW+RPW(4,0)+        272
        RPW(4,0)
        >>> print(Table(("#", "left", "right"), ((1, "abc", "defg"),)).text(width=8), end="")
        #  left
        -------
        1  abc
        <BLANKLINE>
        #  right
        --------
        1  defg
        """
        if width is None:
            width = terminal_width()
        lines = [list(self.names), *([cell_text(value) for value in row] for row in self.rows)]
        least = []
        for column, cells in zip(self.columns, zip(*lines, strict=True), strict=True):
            longest = max(map(len, cells))
            pieces = (len(piece.rstrip()) for cell in cells for piece in _pieces(cell))
            foldable = column.endswith("~")
            least.append(max(min(longest, _LEAST), *pieces, 0) if foldable else longest)
        pages: list[list[int]] = [[]]
        for index in range(keys, len(self.columns)):
            page = [*range(keys), *pages[-1], index]
            if pages[-1] and sum(least[n] + len(_GAP) for n in page) - len(_GAP) > width:
                pages.append([])
            pages[-1].append(index)
        body = "\n".join(
            _page(
                [self.columns[n] for n in page], [[line[n] for n in page] for line in lines], width
            )
            for page in ([*range(keys), *page] for page in pages)
        )
        notes = "".join(f"\n{paragraph(note)}" for note in self.notes)
        return (heading(self.title) if self.title else "") + body + notes

    @property
    def alignment(self) -> tuple[str, ...]:
        """`left` or `right` for each column."""
        return tuple("right" if column.startswith(">") else "left" for column in self.columns)


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def cell_text(value: Any) -> str:
    """Return a value as a reader sees it in a cell.

    >>> [cell_text(value) for value in (None, 1344, (2, 3), 0.5, "DW")]
    ['', '1,344', '2,3', '0.5', 'DW']
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _plain(value)


def ratio_text(ratio: float) -> str:
    """Return a ratio to the reference as a reader compares it: one over a number, or a multiple.

    >>> ratio_text(1344 / 36864), ratio_text(272 / 2304), ratio_text(0.75), ratio_text(1.5)
    ('1/27', '1/8.5', '0.75', '1.50')
    """
    if not 0 < ratio < 2 / 3:
        return f"{ratio:.2f}"
    inverse = 1 / ratio
    return f"1/{inverse:.1f}".removesuffix(".0") if inverse < 10 else f"1/{round(inverse)}"


def number_text(value: float) -> str:
    """Return a number with three significant digits.

    >>> number_text(0.01234), number_text(9.999), number_text(12345.6), number_text(0)
    ('0.0123', '10.0', '12,346', '0')
    """
    if value == 0:
        return "0"
    # The power of ten after rounding: 9.999 is 10.0.
    digits = max(0, 2 - int(f"{value:.2e}".partition("e")[2]))
    return f"{value:,.{digits}f}"


def _page(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    foldable = [place for place, column in enumerate(columns) if column.endswith("~")]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    # Spaces in parentheses and narrow columns come last: they make a cell hard to read.
    for pieces, floor in ((_pieces, _LEAST), (_names, 1)):
        least = [
            max(floor, *(len(piece.rstrip()) for line in cells for piece in pieces(line[place])), 0)
            for place in range(len(columns))
        ]
        while over > 0 and (wide := [n for n in foldable if widths[n] > least[n]]):
            widest = max(wide, key=widths.__getitem__)
            widths[widest] -= 1
            over -= 1
    right = [column.startswith(">") for column in columns]
    lines = []
    for number, row in enumerate(cells):
        folded = [_fold(cell, wide) for cell, wide in zip(row, widths, strict=True)]
        for part in range(max(map(len, folded))):
            line = _GAP.join(
                (pieces[part] if part < len(pieces) else "").rjust(wide)
                if to_right
                else (pieces[part] if part < len(pieces) else "").ljust(wide)
                for pieces, wide, to_right in zip(folded, widths, right, strict=True)
            ).rstrip()
            lines.append(line if number else _bold(line))
        if not number:
            lines.append("-" * (sum(widths) + len(_GAP) * (len(widths) - 1)))
    return "".join(f"{line}\n" for line in lines)


def widest(text: str) -> int:
    """Return how many columns the widest line of the text takes."""
    return max(len(click.unstyle(line)) for line in text.splitlines())


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names with a text each, folded to the terminal.

    >>> print(facts([("quality", "yes"), ("", "of course")]), end="")
    quality  yes
             of course
    """
    entries = list(pairs)
    indent = max(len(name) for name, _ in entries) + len(_GAP)
    width = terminal_width()
    lines = []
    for name, text in entries:
        first, *rest = _fold(text, max(width - indent, _LEAST))
        lines += [name.ljust(indent) + first, *(" " * indent + line for line in rest)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def folded(text: str, indent: str, stream: TextIO) -> list[str]:
    """Return a text in lines for the terminal that a stream writes to; all but the first indented.

    >>> from io import StringIO
    >>> folded("notes: first, second", "  ", StringIO())
    ['notes: first, second']
    """
    width = _width_of(stream)
    first = _fold(text, width)[0]
    rest = text[len(first) :].lstrip()
    more = _fold(rest, max(width - len(indent), _LEAST)) if rest else []
    return [first, *(indent + line for line in more)]


def readable(formula: str) -> str:
    """Return a formula as a reader writes it.

    >>> readable("Min(C, w_1*k**2)")
    'min(C, w_1·k^2)'
    """
    for written, read in (("**", "^"), ("*", "·"), ("Min(", "min("), ("<=", "≤"), (">=", "≥")):
        formula = formula.replace(written, read)
    return formula


def _fold(text: str, width: int) -> list[str]:
    """Return the text in lines of at most `width` columns; unbreakable parts stay longer."""
    if len(text) <= width:
        return [text]
    lines = [""]
    for whole in _pieces(text):
        for piece in _names(whole) if len(whole.rstrip()) > width else [whole]:
            if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece if lines[-1] else piece.lstrip()
    return [line.rstrip() for line in lines]


def _names(text: str) -> list[str]:
    """Return the parts that are never cut: up to a space, or to the `+` of a block."""
    return re.findall(r"[^\s+]*\+|[^\s+]+ ?|\s", text)


def _pieces(text: str) -> list[str]:
    """Return the parts that are cut last: `_names` held together by parentheses, or by `=`.

    >>> _pieces("min(C, w_1) + w_2"), _pieces("(DW+RPW(2,0))x2")
    (['min(C, w_1) ', '+', ' ', 'w_2'], ['(DW+', 'RPW(2,0))x2'])
    """
    pieces: list[str] = []
    depth = 0
    for name in _names(text):
        inside = depth > 0 and not re.fullmatch(r".+\+", pieces[-1])
        inside |= bool(pieces) and "=" in (name.strip(), pieces[-1].strip()[-1:])
        pieces[-1:] = [pieces[-1] + name] if inside else [*pieces[-1:], name]
        depth = max(0, depth + name.count("(") - name.count(")"))
    return pieces


def terminal_width() -> int:
    """Return the columns of the terminal, or those that the environment variable COLUMNS asks for.

    Without either there is no end to a line.
    """
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size((sys.maxsize, 0)).columns
    return sys.maxsize


def _width_of(stream: TextIO) -> int:
    """Return the same for what a stream writes to; elsewhere than on a terminal without an end."""
    if not stream.isatty():
        return sys.maxsize
    if os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    try:
        return os.get_terminal_size(stream.fileno()).columns or sys.maxsize
    except OSError:  # a stream that only says that it is a terminal
        return sys.maxsize


def _bold(text: str) -> str:
    return click.style(text, bold=True) if sys.stdout.isatty() else text
