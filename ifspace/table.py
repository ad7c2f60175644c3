"""Tables and headings as text: fitted to a terminal, whole and plain elsewhere."""

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

_GAP = "  "
_LEAST = 14  # a column is not folded below this where its text is that long


def heading(text: str) -> str:
    """Return a line that begins a part of the answer, and an empty one."""
    return "".join(f"{_bold(line)}\n" for line in _fold(text, terminal_width())) + "\n"


def paragraph(text: str) -> str:
    """Return a sentence, folded to the terminal."""
    return "".join(f"{line}\n" for line in _fold(text, terminal_width()))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    width: int | None = None,
    keys: int = 1,
) -> str:
    """Return rows under their headers, at most `width` columns wide; no name is ever cut.

    The width is that of the terminal; without one nothing is folded. A header says how its column
    stands: `>name` to the right, `name` to the left, and `name~` may be folded, at spaces outside
    parentheses and after the `+` of a block. Columns that do not fit then go into further tables
    below, each with the first `keys` columns again.

    >>> print(table(["block~", ">params"], [["DW+RPW(4,0)+RPW(4,0)", 272]], width=24), end="")
    block            params
    ------------------------
    DW+RPW(4,0)+        272
    RPW(4,0)
    >>> print(table(["#", "left", "right"], [[1, "abc", "defg"]], width=8), end="")
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
    lines = [[column.strip(">~") for column in columns]]
    lines += [["" if cell is None else str(cell) for cell in row] for row in rows]
    least = []
    for column, cells in zip(columns, zip(*lines, strict=True), strict=True):
        whole = max(map(len, cells))
        pieces = (len(piece.rstrip()) for cell in cells for piece in _pieces(cell))
        least.append(max(min(whole, _LEAST), *pieces, 0) if column.endswith("~") else whole)
    pages: list[list[int]] = [[]]
    for place in range(keys, len(columns)):
        page = [*range(keys), *pages[-1], place]
        if pages[-1] and sum(least[each] + len(_GAP) for each in page) - len(_GAP) > width:
            pages.append([])
        pages[-1].append(place)
    return "\n".join(
        _page([columns[n] for n in page], [[line[n] for n in page] for line in lines], width)
        for page in ([*range(keys), *page] for page in pages)
    )


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
    """Return names and what there is to say of each, folded to the terminal.

    >>> print(facts([("quality", "yes"), ("", "of course")]), end="")
    quality  yes
             of course
    """
    said = list(pairs)
    indent = max(len(name) for name, _ in said) + len(_GAP)
    width = terminal_width()
    lines = []
    for name, text in said:
        first, *rest = _fold(text, max(width - indent, _LEAST))
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
    """Return the text in lines of the width; what has no place to break stays longer."""
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
    """Return the columns of the terminal; without one there is no end to a line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _bold(text: str) -> str:
    return click.style(text, bold=True) if sys.stdout.isatty() else text
