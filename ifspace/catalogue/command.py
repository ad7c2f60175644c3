"""`ifspace best`: which block of a catalogue to use; the table that it and `enumerate` print."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ifspace.catalogue.export import notes, ratio_text
from ifspace.cli.options import NO_ANSWER, Output, amount, parts, shared_options, with_options
from ifspace.table import table

if TYPE_CHECKING:
    from ifspace.catalogue import Design


def designs_table(designs: Sequence["Design"], why: Sequence[str] | None = None) -> str:
    """Return the designs with their rank, and why each is there or else what is known of it."""
    several = len({(design.channels, design.out_channels) for design in designs}) > 1
    columns = [">#", "block~", ">params", ">×CONV", ">MACs/px", ">act/px", ">layers"]
    columns.append("notes~")
    if several:
        columns[2:2] = [">C", ">F"]
    rows = []
    for place, design in enumerate(designs):
        row = [
            str(place + 1),
            str(design.block),
            f"{design.params:,}",
            ratio_text(design.params_ratio),
            f"{design.macs_per_pixel:,}",
            f"{design.activations_per_pixel:,}",
            str(design.layers),
            notes(design) if why is None else why[place],
        ]
        if several:
            row[2:2] = [str(design.channels), str(design.out_channels)]
        rows.append(row)
    return table(columns, rows, keys=2)


_OPTIONS = (
    click.option("--params", type=amount, metavar="N", help="At most so many parameters."),
    click.option("--macs", type=amount, metavar="N", help="At most so many MACs per output pixel."),
    click.option(
        "--activations",
        type=amount,
        metavar="N",
        help="At most so many elements written per output pixel.",
    ),
    click.option("--layers", type=amount, metavar="N", help="At most so many layers."),
    click.option(
        "--kinds",
        type=parts,
        metavar="LIST",
        help="Kinds that it may use, such as DW,PW; all if not given.",
    ),
    click.option(
        "--channels",
        "-C",
        type=int,
        metavar="N",
        help="Width it is for, where the catalogue has several.",
    ),
    click.option(
        "--by",
        type=click.Choice(["params", "macs", "activations", "layers"]),
        default="params",
        show_default=True,
        help="What is compared first.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(0),
        metavar="ROWS",
        default=20,
        show_default=True,
        help="Rows of the table shown.",
    ),
)


@click.command("best", short_help="Say which block of a catalogue to use.")
@click.argument("catalogue", type=click.Path(path_type=Path))
@with_options(_OPTIONS)
@shared_options()
@click.pass_context
def command(
    context: click.Context,
    output: Output,
    catalogue: Path,
    params: int | None,
    macs: int | None,
    activations: int | None,
    layers: int | None,
    kinds: tuple[str, ...] | None,
    channels: int | None,
    by: str,
    limit: int,
) -> None:
    """Say which block of CATALOGUE to use: the entries within all bounds, best first, and why.

    CATALOGUE is a file of `ifspace enumerate --out FILE.parquet`. Bounds include their value and
    may end in k, M or G. Exit status 3, and no file, when no entry is within them.
    """
    from ifspace.catalogue import best, load
    from ifspace.catalogue.export import designs_to_csv, designs_to_markdown, json_text

    known = load(catalogue)
    found = best(
        known,
        params=params,
        macs=macs,
        activations=activations,
        layers=layers,
        kinds=kinds,
        channels=channels,
        by=by,
    )
    designs = [design for design, _ in found]
    reasons = [reason for _, reason in found]
    output.emit(
        {
            "table": lambda: designs_table(designs[:limit], reasons[:limit]) if designs else "",
            "json": lambda: json_text(
                {"designs": [each.to_json() | {"why": why} for each, why in found]}
            ),
            "csv": lambda: designs_to_csv(designs, reasons),
            "markdown": lambda: designs_to_markdown(designs, reasons),
        },
        keep=bool(designs),
    )
    minimised = {setting.objective for setting in known.settings}
    asked = {by} | {name for name, bound in (("params", params), ("macs", macs)) if bound}
    if any(setting.stride > 1 for setting in known.settings) and asked - minimised - {"layers"}:
        output.note(
            f"of each composition the catalogue has the choice with the fewest "
            f"{' or '.join(sorted(minimised))}; others may have fewer "
            f"{' and '.join(sorted(asked - minimised))}: enumerate again with --objective"
        )
    widths = {(design.channels, design.out_channels) for design in designs}
    if len(widths) > 1:
        output.note(f"the catalogue is for {len(widths)} widths; --channels picks one")
    if len(designs) > limit and output.format == "table":
        output.note(f"{limit} of {len(designs)} entries within the bounds; --limit shows more")
    if not designs:
        said = f"no entry of {catalogue.name} is within the bounds; loosen one of them"
        if output.out is not None:
            said += f"; {output.out} was not written"
        click.echo(f"ifspace: {said}", err=True)
        context.exit(NO_ANSWER)
