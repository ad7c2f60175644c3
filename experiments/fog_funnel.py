"""[Fog]'s funnel at every width from 12 to 128 channels.

`python -m experiments.fog_funnel` writes `results/fog-funnel.md`: what `ifspace enumerate --preset
fog` prints at each width, with a bottleneck of 1/4 beside it, and under the paper's early stop.

Reference: [Fog] sections 3.1 and 3.2.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ifspace.bench.record import list_in_readme, provenance
from ifspace.enumerate.fog import FogFunnel, fog_funnel, fog_setting
from ifspace.enumerate.search import enumerate_designs
from ifspace.parallel import over_shards, workers
from ifspace.table import Table
from ifspace.values import listed

WIDTHS: Final = tuple(range(12, 129))
# At this width the page says which compositions survive.
SHOWN: Final = 64
COMMAND: Final = "python -m experiments.fog_funnel"
NAME: Final = "fog-funnel.md"


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """What is left of the compositions at a width; `early_stop`: by the other rule of the paper."""

    channels: int
    compositions: int
    kept: int
    survivors: tuple[str, ...]
    merged: FogFunnel
    early_stop: int


def funnel_row(channels: int) -> FunnelRow:
    """Return the funnel at a width, in channels.

    >>> row = funnel_row(12)
    >>> row.compositions, row.kept, len(row.survivors), len(row.merged.designs), row.early_stop
    (5460, 1108, 8, 3, 16)
    """
    setting = fog_setting(channels)
    catalogue = enumerate_designs([setting], jobs=1)
    early = enumerate_designs([replace(setting, rule="early-stop")], jobs=1)
    survivors = tuple(design.composition for design in catalogue.designs)
    (funnel,) = catalogue.funnels
    return FunnelRow(
        channels,
        funnel.compositions,
        funnel.after_patterns,
        survivors,
        fog_funnel(setting, survivors, jobs=1),
        early.funnels[0].survivors,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the funnel at every width and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    rows = list(over_shards(funnel_row, WIDTHS, workers(None)))
    (options.out / NAME).write_text(page(rows, str(provenance(COMMAND))))
    list_in_readme(options.out, [NAME], COMMAND)
    print(f"written: {options.out / NAME}")


def page(rows: Sequence[FunnelRow], where: str) -> str:
    """Return the page: the counts by number of survivors, the designs, and every width."""
    shown = next((row for row in rows if row.channels == SHOWN), rows[0])
    parts = [
        "# [Fog]'s funnel",
        f"Written by {where}.",
        "[Fog] 3.1 reduces the sequences of one to six layers of {GC, DW, PW, PWG} (our GPW) to "
        "four designs, by hand. `ifspace enumerate --preset fog` does so by the rules that it "
        "prints: drop what the regular expression `(.+?)\\1+` finds, anywhere; allow any channel "
        "permutation between layers, so that fan-ins multiply; try every group count 1 < g < C; "
        "keep what has the field of a CONV(3) and falls short without any one layer. What is left "
        "is merged up to order, and up to DW in the place of GC where that survives too. With a "
        "bottleneck of 1/4 (where it is a whole number of channels) more survive: PW+DW+PW, the "
        "paper's fourth design, and others that it does not have. The paper's early stop, which "
        "tests every layer only against the layers before it, keeps more.",
        "## Summary",
        _summary(rows).markdown().strip(),
        f"## The designs at C = {shown.channels}",
        _designs(shown).markdown().strip(),
        "## Every width",
        _table(rows).markdown().strip(),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(rows: Sequence[FunnelRow]) -> Table:
    every = set().union(*(row.survivors for row in rows))
    groups: dict[tuple[frozenset[str], int], list[FunnelRow]] = {}
    for row in rows:
        groups.setdefault((frozenset(row.survivors), len(row.merged.designs)), []).append(row)
    table = []
    for (survivors, designs), alike in sorted(groups.items(), key=lambda item: -len(item[0][0])):
        missing = sorted(every - survivors)
        widths = ", ".join(str(row.channels) for row in alike)
        table.append((len(survivors), designs, ", ".join(missing) or "-", len(alike), widths))
    columns = (">survivors", ">designs", "missing", ">widths", "C")
    return Table(columns, tuple(table))


def _designs(row: FunnelRow) -> Table:
    cells = [
        (design.name, "yes" if design.in_fog else "no", when, ", ".join(design.compositions))
        for when, designs in (("none", row.merged.designs), ("1/4", row.merged.added))
        for design in designs
    ]
    return Table(("design", "in [Fog]", "bottleneck", "survivors"), tuple(cells))


def _table(rows: Sequence[FunnelRow]) -> Table:
    cells = [
        (
            row.channels,
            row.compositions,
            row.kept,
            len(row.survivors),
            len(row.merged.designs),
            row.merged.narrow,
            len(row.merged.added) if row.merged.narrow is not None else None,
            listed(row.merged.of_fog),
            row.early_stop,
        )
        for row in rows
    ]
    columns = (
        ">C",
        ">compositions",
        ">after patterns",
        ">survivors",
        ">designs",
        ">with K = C/4",
        ">designs added",
        "of these in [Fog]",
        ">early stop",
    )
    return Table(columns, tuple(cells))


if __name__ == "__main__":
    main()
