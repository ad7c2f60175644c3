"""Tables and headings as text: fitted to a terminal, whole and plain elsewhere."""

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click

_GAP = "  "
_LEAST = 14  # a column is not folded below this


def heading(text: str) -> str:
    """Return a line that begins a part of the answer, and an empty one."""
    return _bold(text) + "\n\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], width: int | None = None) -> str:
    """Return rows under their headers, at most `width` columns wide where folding allows.

    The width is that of the terminal; without one nothing is folded. A header says how its column
    stands: `>name` to the right, `name` to the left, and `name~` may be folded, at spaces and
    after the `+` of a block.

    >>> print(table(["block~", ">params"], [["DW+RPW(4,0)+RPW(4,0)", 272]], width=24), end="")
    block            params
    ------------------------
    DW+RPW(4,0)+        272
    RPW(4,0)
    """
    if width is None:
        width = _terminal_width()
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    names = [column.strip(">~") for column in columns]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    foldable = [place for place, column in enumerate(columns) if column.endswith("~")]
    while over > 0 and (wide := [place for place in foldable if widths[place] > _LEAST]):
        widest = max(wide, key=widths.__getitem__)
        widths[widest] -= 1
        over -= 1
    right = [column.startswith(">") for column in columns]
    lines = []
    for number, row in enumerate([names, *cells]):
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


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and what there is to say of each, folded to the terminal.

    >>> print(facts([("quality", "yes"), ("", "of course")]), end="")
    quality  yes
             of course
    """
    said = list(pairs)
    indent = max(len(name) for name, _ in said) + len(_GAP)
    width = _terminal_width()
    lines = []
    for name, text in said:
        first, *rest = textwrap.wrap(text, max(width - indent, _LEAST)) or [""]
        lines += [name.ljust(indent) + first, *(" " * indent + line for line in rest)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def readable(formula: str) -> str:
    """Return a formula as a reader writes it.

    >>> readable("Min(C, w_1*k**2)")
    'min(C, w_1·k^2)'
    """
    for written, read in (("**", "^"), ("*", "·"), ("Min(", "min("), ("<=", "≤"), (">=", "≥")):
        formula = formula.replace(written, read)
    return formula


def _fold(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    lines = [""]
    for piece in re.findall(r"[^\s+]*\+|[^\s+]+ ?| ", text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:  # a piece that no line can hold
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def _terminal_width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _bold(text: str) -> str:
    return click.style(text, bold=True) if sys.stdout.isatty() else text
