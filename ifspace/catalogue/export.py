"""CSV, JSON and Markdown for rooms that do not use `ifspace.table` and `ifspace.serialize` yet."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from ifspace.serialize import json_text
from ifspace.table import ratio_text

__all__ = ["csv_table", "json_text", "markdown_table", "ratio_text"]


def csv_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""Return a CSV table with its header; None is an empty cell.

    >>> csv_table(["a", "b"], [(1, None)])
    'a,b\n1,\n'
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]), end="")
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [header, *rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(1, "|" + "---|" * len(header))
    return "\n".join(text) + "\n"
