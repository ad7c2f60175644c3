"""The table of designs that `enumerate` and `best` print."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ifspace.catalogue.export import notes, ratio_text
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
            design.block,
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
