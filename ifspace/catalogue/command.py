"""`ifspace best`: which block of a catalogue to use."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ifspace.cli.latency import LatencyColumns, latency_options, read_latencies
from ifspace.cli.options import (
    AMOUNT,
    FILE,
    NO_ANSWER,
    OneOf,
    Output,
    WholeNumber,
    output_options,
    shared,
    with_options,
)
from ifspace.values import MAX_SIDE

if TYPE_CHECKING:
    from ifspace.catalogue import Catalogue, Design

_OPTIONS = (
    shared("params", help="Upper bound on parameters."),
    shared("macs", help="Upper bound on MACs per output pixel."),
    click.option(
        "--activations",
        type=AMOUNT,
        metavar="N",
        help="Upper bound on elements written per output pixel.",
    ),
    click.option("--layers", type=AMOUNT, metavar="N", help="Upper bound on layers."),
    shared("kinds", help="Kinds that a block may use, such as DW,PW; all if not given."),
    shared("channels", help="Input channels of the block, where the catalogue has several."),
    click.option(
        "--by",
        type=OneOf(["params", "macs", "activations", "layers", "latency"]),
        default="params",
        show_default=True,
        help="What to minimise first; latency needs --latency.",
    ),
    *latency_options("Shows that of the fastest form of each block."),
    click.option(
        "--side",
        type=WholeNumber(1, MAX_SIDE),
        metavar="N",
        help="Side of the output feature map in pixels; that of the latencies if not given.",
    ),
    shared("all"),
    click.option(
        "--check/--no-check",
        default=None,
        help="Compare every row with its block, computed anew; for up to 100,000 rows if not "
        "given.",
    ),
    shared("limit", help="Number of rows of the table."),
)


@click.command("best", short_help="Say which block of a catalogue to use.")
@click.argument("catalogue", type=FILE)
@with_options(_OPTIONS)
@output_options()
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
    latency: Path | None,
    batch: int | None,
    device: str | None,
    dtype: str | None,
    side: int | None,
    every_row: bool,
    check: bool | None,
    limit: int,
) -> None:
    """Say which block of CATALOGUE to use: the entries within all bounds, best first, and why.

    CATALOGUE is a file of `ifspace enumerate --out FILE.parquet`. Bounds include their value and
    may end in k, M or G. Of blocks that are the same network, up to the order of channels, one is
    listed: the one with the fewest layers; --all lists every one, with a
    number for each network. A block is dominated by another
    that is no worse in parameters, MACs, activations and layers and better in at least one: `why`
    compares the blocks within the bounds and kinds, `dominated_by` in JSON and CSV those of the
    whole catalogue. Latencies are those that the model predicts for inference, of the fastest form
    of each block: as is, collapsed, or fused. Exit status 3, and no file, when
    no entry is within them.
    """
    from ifspace.catalogue import best, load
    from ifspace.catalogue.dataset import designs_table, plain_design, to_csv
    from ifspace.latency import at_side
    from ifspace.serialize import json_text

    designs_on_file = load(catalogue, check)
    source = read_latencies(latency, batch, device, dtype)
    time_of = None if source is None else at_side(source, side)
    choices = best(
        designs_on_file,
        params=params,
        macs=macs,
        activations=activations,
        layers=layers,
        kinds=kinds,
        channels=channels,
        by=by,
        every_row=every_row,
        latency=time_of,
    )
    designs = [design for design, _ in choices]
    reasons = [reason for _, reason in choices]
    first = designs[:limit], reasons[:limit]
    timed = first[0] if output.format == "table" else designs
    columns = time_of and LatencyColumns([time_of(x.sized, x.stride) for x in timed])
    plain, shown = (columns.plain, columns.shown) if columns else ({}, {})
    output.emit(
        {
            "table": lambda: (
                designs_table(*first, "why~", ranks=True, networks=every_row, more=shown).text(
                    keys=2 + every_row
                )
                if designs
                else ""
            ),
            "json": lambda: json_text(
                {
                    "designs": [
                        plain_design(design)
                        | {name: cells[index] for name, cells in plain.items()}
                        | {"why": reason}
                        for index, (design, reason) in enumerate(choices)
                    ]
                }
            ),
            "csv": lambda: to_csv(designs, reasons, plain),
            "markdown": lambda: designs_table(
                designs, reasons, "why~", networks=every_row, more=shown
            ).markdown(),
        },
        keep=bool(designs),
    )
    compared = {by, *(name for name, bound in (("params", params), ("macs", macs)) if bound)}
    if source is not None and columns is not None:
        for note in (source.about, *columns.notes):
            output.note(note)
    for note in _notes(designs_on_file, designs, compared):
        output.note(note)
    if len(designs) > limit and output.format == "table":
        output.note(f"{limit} of {len(designs)} entries within the bounds; --limit shows more")
    if not designs:
        fact = f"no entry of {catalogue.name} is within the bounds; loosen one of them"
        if output.out is not None:
            fact += f"; {output.out} was not written"
        click.echo(f"ifspace: {fact}", err=True)
        context.exit(NO_ANSWER)


def _notes(
    catalogue: "Catalogue", designs: Sequence["Design"], compared: set[str]
) -> Iterator[str]:
    """Yield what to know of the chosen designs, given the amounts that were bounded or compared."""
    from ifspace.catalogue.design import permutation_notes

    minimised = {setting.objective for setting in catalogue.settings}
    other = sorted(compared - minimised)
    if any(setting.stride > 1 for setting in catalogue.settings) and set(other) - {"layers"}:
        yield (
            f"of each composition the catalogue has the choice with the fewest "
            f"{' or '.join(sorted(minimised))}; others may have fewer "
            f"{' and '.join(other)}: enumerate again with --objective"
        )
    widths = {(design.channels, design.out_channels) for design in designs}
    yield from permutation_notes(catalogue, designs)
    if len(widths) > 1:
        yield f"the catalogue is for {len(widths)} widths; --channels picks one"
