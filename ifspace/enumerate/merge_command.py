"""`ifspace merge`: check the parts of a run in a folder, and join them in one file."""

from pathlib import Path

import click

from ifspace.cli.backend import backend_options
from ifspace.cli.options import (
    INTEGER,
    PLACE,
    Output,
    output_options,
    shared,
    with_options,
)


@click.command("merge", short_help="Check the parts of an enumeration in a folder, and join them.")
@click.argument("folder", type=PLACE, metavar="FOLDER")
@with_options(
    (
        click.option(
            "--jobs",
            type=INTEGER,
            metavar="N",
            help="Worker processes for parts that are computed again.",
        ),
        shared("progress"),
    )
)
@backend_options()
@output_options(
    out_help="Write the catalogue as one file: .parquet, or an export as .csv, .json or .md."
)
def command(output: Output, folder: str | Path, jobs: int | None, progress: str) -> None:
    """Check the parts that `ifspace enumerate --out FOLDER` wrote, and join them.

    A part that is damaged or of another setting is named, and computed again. With --out
    FILE.parquet the catalogue is written as one file, which has the same bytes as that of a run
    without a folder. `ifspace best` reads the folder as it is.
    """
    from ifspace.catalogue import dataset
    from ifspace.cli.progress import ProgressBar
    from ifspace.enumerate.run import merge_folder
    from ifspace.serialize import json_text
    from ifspace.table import Table

    if output.out is not None:
        dataset.check_writable(output.out)
    with ProgressBar("computing again", quiet=output.quiet, form=progress) as bar:
        shards, damaged = merge_folder(
            folder,
            output.out,
            jobs=jobs,
            progress=bar,
            note=output.note,
        )
    if output.out is not None:
        output.note(f"written: {output.out}")
        if output.quiet:
            return
    values = {"shards": len(shards), "rows": shards.rows, "damaged": damaged}
    table = Table(
        (">shards", ">rows", "computed again~"), ((len(shards), shards.rows, ", ".join(damaged)),)
    )
    output.print(
        {
            "table": table.text,
            "json": lambda: json_text(values),
            "csv": table.csv,
            "markdown": table.markdown,
        }
    )
