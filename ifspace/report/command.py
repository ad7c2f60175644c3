"""`ifspace report`: a results folder as tables, figures and one page."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ifspace.cli.options import FILE, LIST, Output, output_options, with_options

if TYPE_CHECKING:
    from ifspace.report.read import Part, Results
    from ifspace.table import Table


_OPTIONS = (
    click.option(
        "--html",
        type=FILE,
        metavar="FILE",
        help="Write the page: one file, which needs no network.",
    ),
    click.option(
        "--figures",
        type=FILE,
        metavar="DIR",
        help="Write the figures into a folder, as SVG and PNG.",
    ),
    click.option(
        "--readme",
        type=FILE,
        metavar="FILE",
        help="Write the tables of a Markdown file anew, between its markers.",
    ),
    click.option(
        "--only",
        type=LIST,
        metavar="LIST",
        help="Parts of the report: funnel, designs, front, groups, layouts, energy, blocks, "
        "kernels, reproduction; all if not given.",
    ),
)
# What needs which packages.
_FIGURES, _PAGE = ("matplotlib",), ("vl_convert",)


@click.command("report", short_help="Show a results folder: tables, figures, one page.")
@click.argument("results", type=FILE)
@with_options(_OPTIONS)
@output_options()
def command(
    output: Output,
    results: Path,
    html: Path | None,
    figures: Path | None,
    readme: Path | None,
    only: tuple[str, ...] | None,
) -> None:
    """Show what is in the folder RESULTS: tables, and with options figures and a page.

    RESULTS is a folder that `ifspace enumerate --out`, `ifspace bench` and the benchmarks of `make
    results` write into, or the folder of a run in parts. Missing files, and without --only files
    that no part shows, are listed on stderr. The page holds the catalogue to sort and filter, to
    open block by block, to select in the plot, to compare and to save as CSV or JSON; its address
    keeps the filters, and it needs no network.
    """
    _check_installed(html, figures)
    from ifspace.report.read import (
        NOT_SHOWN,
        chosen,
        left_out,
        read,
    )
    from ifspace.report.tables import tables

    parts = chosen(only)
    folder = read(results)
    for sentence in left_out(folder, parts):
        output.note(f"left out: {sentence}")
    if only is not None:
        # Other parts are left out on purpose, and so are files of no part.
        folder = replace(folder, unrecognised=())
    if folder.unrecognised:
        output.note(f"{NOT_SHOWN}: {', '.join(folder.unrecognised)}")
    shown = {part.title: tables(folder, part.name) for part in parts}
    written = [str(path) for path in _written(folder, parts, html, figures, readme, output)]
    for path in written:
        output.note(f"written: {path}")
    if (html or figures or readme) and output.format == "table" and output.out is None:
        return
    values = {
        "results": str(results),
        "written": written,
        "left_out": list(left_out(folder, parts)),
        "unrecognised": list(folder.unrecognised),
        "tables": [
            {"part": part.name, "title": table.title, "header": table.names, "rows": table.rows}
            for part in parts
            for table in shown[part.title]
        ],
    }
    _emit(output, parts, shown, values)


def _check_installed(html: Path | None, figures: Path | None) -> None:
    needed = [*(_FIGURES if figures else ()), *(_PAGE if html else ())]
    absent = [package for package in needed if find_spec(package) is None]
    if absent:
        raise click.ClickException(
            f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed: reports "
            "are written with them; install ifspace[report]"
        )


def _written(
    folder: "Results",
    parts: "Sequence[Part]",
    html: Path | None,
    figures: Path | None,
    readme: Path | None,
    output: Output,
) -> Iterator[Path]:
    """Write page, tables and figures; yield their paths."""
    if html is not None:
        from ifspace.report import page

        page.write(folder, parts, html)
        yield html
    if readme is not None:
        from ifspace.report.readme import rewrite

        if rewrite(readme, folder):
            yield readme
        else:
            output.note(f"{readme} is up to date")
    if figures is not None:
        yield from _figures(folder, [part.name for part in parts], figures, output)


def _figures(
    results: "Results", names: Sequence[str], folder: Path, output: Output
) -> Iterator[Path]:
    from ifspace.cli.progress import ProgressBar
    from ifspace.errors import OutputError
    from ifspace.report import figures as plots

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.because(
            "no place for the figures",
            got=f"{folder} ({error.strerror})",
            allowed="a folder that can be written",
            remedy="choose another place",
        ) from None
    with ProgressBar("figures", quiet=output.quiet) as bar:
        for index, name in enumerate(names):
            bar(index, len(names))
            yield from plots.write(results, [name], folder)


def _emit(
    output: Output,
    parts: "Sequence[Part]",
    shown: "dict[str, tuple[Table, ...]]",
    values: dict[str, Any],
) -> None:
    from ifspace.serialize import json_text
    from ifspace.table import Table

    cells = tuple(
        (part.name, table.title, number, column, cell)
        for part in parts
        for table in shown[part.title]
        for number, row in enumerate(table.rows, start=1)
        for column, cell in zip(table.names, row, strict=True)
    )
    output.emit(
        {
            "table": lambda: _text(shown),
            "json": lambda: json_text(values),
            "csv": lambda: Table(("part", "table", "row", "column", "value"), cells).csv(),
            "markdown": lambda: _markdown(shown),
        }
    )


def _markdown(shown: "dict[str, tuple[Table, ...]]") -> str:
    filled = {title: tables for title, tables in shown.items() if tables}
    return "\n".join(
        "\n".join([f"## {title}\n", *(table.markdown() for table in tables)])
        for title, tables in filled.items()
    )


def _text(shown: "dict[str, tuple[Table, ...]]") -> str:
    return "\n".join(
        (f"{title}\n\n" if number == 0 else "") + table.text()
        for title, tables in shown.items()
        for number, table in enumerate(tables)
    )
