"""The catalogue for other programs and for readers: JSON, CSV and Markdown."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from io import StringIO
from math import isfinite
from typing import Any

from ifspace.catalogue.design import (
    Catalogue,
    Design,
)


def to_json_dict(catalogue: Catalogue) -> dict[str, Any]:
    """Return the catalogue as plain JSON values.

    `arguments` and `funnel` are those of the first setting, `settings` holds them for all.
    """
    settings = [
        {"arguments": setting.arguments(), "funnel": funnel.to_json()}
        for setting, funnel in zip(catalogue.settings, catalogue.funnels, strict=True)
    ]
    first = settings[0] if settings else {"arguments": {}, "funnel": {}}
    designs = [design.to_json() for design in catalogue.designs]
    return {**first, "settings": settings, "designs": designs}


def to_json(catalogue: Catalogue) -> str:
    """Return the JSON text, one design a line."""
    values = to_json_dict(catalogue)
    designs = values.pop("designs")
    head = json.dumps(values, indent=2, ensure_ascii=False).removesuffix("\n}")
    rows = ",\n".join(f"    {json.dumps(design, ensure_ascii=False)}" for design in designs)
    return (
        f'{head},\n  "designs": [\n{rows}\n  ]\n}}\n' if rows else f'{head},\n  "designs": []\n}}\n'
    )


def to_csv(catalogue: Catalogue) -> str:
    """Return the rows as CSV with a header; a missing value is an empty cell."""
    return designs_to_csv(catalogue.designs)


def designs_to_csv(designs: Iterable[Design], why: Sequence[str] | None = None) -> str:
    """Return the designs as CSV with a header; `field` is the columns field_side, field_channels.

    With `why` there is a last column of reasons.

    >>> designs_to_csv(()).split(",")[:3]
    ['channels', 'out_channels', 'bottleneck']
    """
    names = [each.name for each in fields(Design)]
    split = names.index("field")
    header = [*names[:split], "field_side", "field_channels", *names[split + 1 :]]
    rows = []
    for design in designs:
        row = [getattr(design, name) for name in names]
        rows.append([*row[:split], *design.field, *row[split + 1 :]])
    if why is not None:
        header.append("why")
        rows = [[*row, reason] for row, reason in zip(rows, why, strict=True)]
    return csv_table(header, rows)


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


def json_text(values: Any) -> str:
    """Return plain values as JSON text for people and programs."""
    return json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(values: Any) -> Any:
    """Return values with null for what JSON has no number for: infinities, and what is none."""
    if isinstance(values, dict):
        return {key: _finite(each) for key, each in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(each) for each in values]
    return None if isinstance(values, float) and not isfinite(values) else values


def to_markdown(catalogue: Catalogue) -> str:
    """Return the funnels and the designs as Markdown tables."""
    parts = []
    for setting, funnel in zip(catalogue.settings, catalogue.funnels, strict=True):
        lengths = [*map(str, range(1, setting.max_len + 1)), "all"]
        rows = [
            [name, *map(str, counts), str(total)]
            for name, counts, total in (
                ("compositions", funnel.compositions_by_length, funnel.compositions),
                ("after patterns", funnel.after_patterns_by_length, funnel.after_patterns),
                ("survivors", funnel.by_length, funnel.survivors),
            )
        ]
        widths = f"C = {setting.channels}, F = {setting.out_width}"
        parts.append(f"{widths}\n\n{markdown_table(['length', *lengths], rows)}")
    parts.append(designs_to_markdown(catalogue.designs))
    return "\n".join(parts)


def designs_to_markdown(designs: Sequence[Design], why: Sequence[str] | None = None) -> str:
    """Return the designs as a Markdown table with the columns that a reader compares.

    The last column is what is known of each design, or `why` it was chosen.
    """
    header = ["C", "F", "block", "params", "× CONV", "MACs/px", "act/px", "layers"]
    header.append("notes" if why is None else "why")
    said = map(notes, designs) if why is None else why
    rows = [
        [
            str(value)
            for value in (
                row.channels,
                row.out_channels,
                row.block,
                row.params,
                ratio_text(row.params_ratio),
                row.macs_per_pixel,
                row.activations_per_pixel,
                row.layers,
                last,
            )
        ]
        for row, last in zip(designs, said, strict=True)
    ]
    return markdown_table(header, rows)


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


def ratio_text(ratio: float) -> str:
    """Return a ratio to the reference as a reader compares it: one over a number, or a multiple.

    >>> ratio_text(1344 / 36864), ratio_text(272 / 2304), ratio_text(0.75), ratio_text(1.5)
    ('1/27', '1/8.5', '0.75', '1.50')
    """
    if not 0 < ratio < 2 / 3:
        return f"{ratio:.2f}"
    inverse = 1 / ratio
    return f"1/{inverse:.1f}".removesuffix(".0") if inverse < 10 else f"1/{round(inverse)}"


def notes(design: Design) -> str:
    """Return what a reader should know beside the numbers: names, sameness, dominance."""
    parts = [design.published_as] if design.published_as else []
    if design.same_as:
        parts.append(f"= {design.same_as}")
    if design.dominated_by:
        parts.append(f"dominated by {design.dominated_by}")
    return "; ".join(parts)
