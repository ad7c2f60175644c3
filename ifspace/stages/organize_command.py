"""`ifspace organize`: the greedy organizer of stages, move by move."""

from pathlib import Path
from typing import Any

import click

from ifspace.cli.options import Output, decimal, parts, shared_options, with_options
from ifspace.cli.saving import check_files, save_layout, save_option
from ifspace.stages.options import (
    SIDE,
    block_list,
    note_left_open,
    read_layout,
    stage_options,
)

ALPHA = 3.0


def decimals(text: str) -> tuple[float, ...]:
    """Return the numbers between commas, each once.

    >>> decimals("1,3,3")
    (1.0, 3.0)
    """
    return tuple(dict.fromkeys(map(decimal, parts(text))))


_OPTIONS = (
    *stage_options,
    click.option(
        "--blocks",
        type=block_list,
        metavar="LIST",
        help="The block that the stages repeat, or one for each; CONV if not given.",
    ),
    click.option(
        "--theta",
        type=decimal,
        metavar="T",
        default="0",
        show_default=True,
        help="A block moves for a gain above it, and goes for one below it.",
    ),
    click.option(
        "--alpha",
        type=decimals,
        metavar="LIST",
        default="3",
        show_default=True,
        help="The decay of the gain; of several the moves are compared.",
    ),
    click.option("--moves", type=click.IntRange(0), metavar="N", help="Stop after so many steps."),
    save_option,
)


@click.command("organize", short_help="Move blocks between stages to where they gain most.")
@with_options(_OPTIONS)
@shared_options()
def command(
    output: Output,
    theta: float,
    alpha: tuple[float, ...],
    moves: int | None,
    save: Path | None,
    **described: Any,
) -> None:
    """Move the last block of the stage where it gains least to where one more gains most.

    The stages are described by --stages and --depths, or by --network. Gains are those of the
    information field; the step repeats until nothing is left to gain. A rule of thumb, no optimum.
    --save writes the end, for the α that is shown, as a network of torch modules.
    """
    from ifspace.stages.organize_text import (
        Asked,
        forms,
    )
    from ifspace.stages.organizer import organize
    from ifspace.stages.published import published_layouts

    layout = read_layout(**described)
    check_files(output, save)
    found = {each: organize(layout, theta, each, moves) for each in alpha}
    network, side = described["network"], described["input"] or SIDE
    title = f"Organizer on {network.lower()} at {side}×{side}" if network else "Organizer"
    published = published_layouts(network, side) if network else ()
    shown = ALPHA if ALPHA in alpha else alpha[0]
    note_left_open(output, layout, described["network"], described["widths"])
    saved = save_layout(output, save, found[shown].end, network)
    output.emit(forms(Asked(title, network, published, theta, shown), found, saved))
