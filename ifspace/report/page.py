"""The page: one file with the catalogue, the charts and the tables, which needs no network."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Final

import vl_convert

from ifspace.catalogue.dataset import version
from ifspace.errors import SettingError
from ifspace.report.charts import charts
from ifspace.report.files import CATALOGUE
from ifspace.report.folder import Results
from ifspace.report.page_data import page_data
from ifspace.report.parts import Part, left_out
from ifspace.report.table import Table
from ifspace.report.tables import tables
from ifspace.storage import replacing

# In this order: what stands later uses what stands before it.
SCRIPTS: Final = ("base", "model", "sight", "chart", "table", "detail", "main")
LIBRARY: Final = (
    "/* Vega, Vega-Lite and Vega-Embed: https://vega.github.io, BSD 3-Clause License, "
    "Copyright (c) University of Washington Interactive Data Lab and contributors */\n"
)
# What the version is called that is not known.
UNKNOWN: Final = "unknown"
# The catalogue has a section of its own, which has more than this part's table.
_IN_CATALOGUE: Final = "designs"


def write(results: Results, parts: Sequence[Part], path: Path) -> None:
    """Write the page of a results folder, whole or not at all.

    Raises: SettingError without a catalogue; OutputError when it cannot be written there.
    """
    text = page(results, parts)
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


def page(results: Results, parts: Sequence[Part]) -> str:
    """Return the page of a results folder with the parts asked for.

    Raises: SettingError without a catalogue.
    """
    if not results.catalogues:
        raise SettingError.because(
            "a page needs a catalogue",
            got=f"no {CATALOGUE.name} in {results.folder}",
            allowed="a folder with one",
            remedy=f"write it with `{CATALOGUE.written_by(results.folder)}`",
        )
    shown = [part for part in parts if part.name != _IN_CATALOGUE]
    drawn = charts(results)
    known = {name: spec for part in shown for name, _, spec in drawn.get(part.name, ())}
    fill = {
        "title": "ifspace: the catalogue of blocks",
        "heading": "Blocks that see what a convolution sees",
        "lead": _lead(results),
        "nav": _nav(shown),
        "parts": "\n".join(_section(results, part, drawn.get(part.name, ())) for part in shown),
        "footer": f"{escape(_writer())} The charts are drawn by Vega-Lite; this file needs no "
        "network.",
        "data": _json(page_data(results)),
        "charts": _json(known),
        "library": LIBRARY + _script(_library()),
        "css": _static("page.css"),
        "script": _script("\n".join(_static(f"{name}.js") for name in SCRIPTS)),
    }
    pieces = _static("page.html").split("{{")
    return pieces[0] + "".join(
        fill[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:])
    )


def _writer() -> str:
    known = version()
    return "Written by ifspace." if known == UNKNOWN else f"Written by ifspace {known}."


def _library() -> str:
    # The stub asks for an argument that is optional, and slower to have.
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return bundle


def _static(name: str) -> str:
    return (resources.files("ifspace.report") / "static" / name).read_text(encoding="utf-8")


def _json(values: Any) -> str:
    """Return JSON that can stand in a script element: no `<` could end it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _script(text: str) -> str:
    """Return a script that can stand in a script element."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _lead(results: Results) -> str:
    funnels = [funnel for each in results.catalogues for funnel in each.funnels]
    most = max((s.max_len for each in results.catalogues for s in each.settings), default=0)
    survivors, tried = (
        sum(getattr(f, name) for f in funnels) for name in ("survivors", "compositions")
    )
    return (
        f"Of {tried:,} compositions of up to {most} layers, {survivors:,} see all the pixels and "
        "all the channels that the standard convolution sees, with no layer to spare. Each stands "
        "here with its cheapest group counts."
    )


def _nav(parts: Sequence[Part]) -> str:
    links = [("catalogue", "The catalogue"), *((part.name, part.title) for part in parts)]
    return "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in links)


def _section(results: Results, part: Part, drawn: Sequence[tuple[str, str, Any]]) -> str:
    title = f"{part.name}-title"
    lines = [
        f'<section id="{part.name}" aria-labelledby="{title}">',
        f'<h2 id="{title}" tabindex="-1">{escape(part.title)}</h2>',
    ]
    lines += [
        f'<figure><figcaption>{escape(said)}</figcaption><div data-chart="{name}" role="group" '
        f'aria-label="{escape(said)}"><div class="vega"></div></div></figure>'
        for name, said, _ in drawn
    ]
    lines += ["".join(_table(each)) for each in tables(results, part.name)]
    lines += [f'<p class="note">{escape(_said(each))}.</p>' for each in left_out(results, [part])]
    return "\n".join([*lines, "</section>"])


def _said(text: str) -> str:
    """Return a sentence without the name of the part that it stands in."""
    said = text.partition(": ")[2]
    return said[0].upper() + said[1:]


def _cell(text: str) -> str:
    """Return the text of a cell as HTML; a block may go on in a new line after a layer.

    >>> _cell("DW+PW")
    'DW+<wbr>PW'
    """
    return escape(text).replace("+", "+<wbr>")


def _table(each: Table) -> Iterator[str]:
    label = escape(each.title)
    yield f'<h3>{label}</h3><div class="scroll static" tabindex="0" role="group" '
    yield f'aria-label="{label}"><table aria-label="{label}"><thead><tr>'
    places = [' class="right"' if right else "" for right in each.right]
    for name, place in zip(each.names, places, strict=True):
        yield f'<th scope="col"{place}>{escape(name)}</th>'
    yield "</tr></thead><tbody>"
    for row in each.rows:
        cells = zip(row, places, strict=True)
        yield "<tr>" + "".join(f"<td{place}>{_cell(cell)}</td>" for cell, place in cells) + "</tr>"
    yield "</tbody></table></div>"
    if each.note:
        yield f'<p class="note">{escape(each.note)}</p>'
