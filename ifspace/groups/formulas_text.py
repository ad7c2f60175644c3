"""What `ifspace groups --symbolic` prints: the analysis of a composition in every format."""

from fractions import Fraction

from ifspace.block import Composition
from ifspace.catalogue.export import csv_table, json_text, markdown_table
from ifspace.cli.options import Forms
from ifspace.groups.closed_form import (
    analyse,
    widest,
)
from ifspace.groups.closed_text import (
    notes,
    said,
    symbols,
    to_latex,
    to_text,
    width_text,
)
from ifspace.table import readable


def symbolic_forms(
    word: Composition, kernel: int, bottleneck: Fraction | None, alpha: Fraction | None
) -> Forms:
    """Return the analysis in every format, with the greatest width of a budget P.

    JSON and CSV have the formulas as SymPy reads them, text and Markdown as a reader does.

    Raises: SettingError or BlockError for a kernel, ratio or composition without an analysis.
    """
    found = analyse(word, False if bottleneck is None else bottleneck, kernel, alpha)
    width = widest(word, bottleneck, alpha, kernel)
    legend = symbols(found, width)
    groups = {str(name): str(best) for name, best in found.groups}
    values = {
        "composition": str(word),
        "params": said(found.params),
        "ratio": said(found.ratio),
        "condition": said(found.condition),
        "product": None if found.product is None else said(found.product),
        "bound": said(found.bound),
        "ratio_at_optimum": said(found.ratio_at_optimum),
        "widest": width_text(width),
        "family": None if found.family is None else said(found.family),
        "reference": found.reference,
    }
    best = "; ".join(f"{name} = {value}" for name, value in groups.items())
    rows = [[name, value or ""] for name, value in values.items()]
    rows += [["groups", best], *([f"symbol {name}", text] for name, text in legend.items())]
    short, remarks = notes(found)
    rows += [["note", note] for note in short]
    rows += [["remark", remark] for remark in remarks]
    more = {
        "groups": groups,
        "symbols": legend,
        "notes": [*short, *remarks],
        "remarks": list(remarks),
    }
    return {
        "table": lambda: readable(to_text(found, width)),
        "json": lambda: json_text(values | more),
        "csv": lambda: csv_table(["name", "value"], rows),
        "markdown": lambda: markdown_table(
            ["name", "value"], [[name, readable(value)] for name, value in rows]
        ),
        "latex": lambda: to_latex(found, width),
    }
