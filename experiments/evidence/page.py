"""The page of what the field can and cannot tell, from the committed facts alone."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import fmean
from textwrap import fill
from typing import Final

import numpy as np

from ifspace.block import Block
from ifspace.catalogue.evidence import CLAIMS, TrainedBlock
from ifspace.reach import channel_field
from ifspace.scores.measures import COUNTS
from ifspace.scores.reliability import published_rows
from ifspace.scores.statistics import dense_ranks, resamples, spearman
from ifspace.scores.validation import IN_BINS
from ifspace.table import Table
from ifspace.values import listed

COMMAND: Final = "python -m experiments.evidence"
RESAMPLES: Final = 2000
# Of a line of text.
WIDTH: Final = 104
# Parameters of [Fog]'s networks that are compared, and of those of full field.
_ABOUT_11M: Final = range(8_000_000, 12_000_000)
_ABOUT_300K: Final = range(285_000, 310_000)
# Channels of the stages of WRN-28-10.
_WIDTHS: Final = (160, 320, 640)


def page(rows: Sequence[TrainedBlock]) -> str:
    """Return the page."""
    sections = (
        _larger_field(rows),
        _short_field(rows),
        _group_sweeps(rows),
        _width(rows),
        _full_field(rows),
        _whole_networks(),
        _claims(),
    )
    head = (
        "# Evidence",
        f"Written by `{COMMAND} FOLDER`; do not edit. What published accuracies of networks "
        "say of the information field and the scores. The networks, with sources and licences, "
        "are in [evidence.csv](evidence.csv); `ifspace best --evidence` and `ifspace show` "
        "put those of its composition beside a block. Errors are top-1 in percent; intervals "
        f"hold 95% of {RESAMPLES:,} bootstrap resamples, over networks or sweeps.",
    )
    texts = (*head, *(text for section in sections for text in section))
    return "\n\n".join(map(_folded, texts)) + "\n"


def _folded(text: str) -> str:
    """Return a paragraph in lines; headings, tables and lists are left."""
    if text.startswith(("#", "|", "- ")):
        return text
    return fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def pairs_of_equal_cost(rows: Sequence[TrainedBlock]) -> list[tuple[TrainedBlock, TrainedBlock]]:
    """Return the pairs of [3DRF] Table 6 with GPW and RPW of equal groups."""
    table = [row for row in rows if row.source == "[3DRF] Table 6"]
    return [
        (plain, rolling)
        for plain in table
        for rolling in table
        if (plain.composition, rolling.composition) == ("DW+GPW", "DW+RPW")
        and plain.groups == rolling.groups
    ]


def _larger_field(rows: Sequence[TrainedBlock]) -> tuple[str, ...]:
    pairs = pairs_of_equal_cost(rows)
    better = sum(rolling.error < plain.error for plain, rolling in pairs)
    cells = tuple(
        (
            plain.block,
            rolling.block,
            plain.error,
            rolling.error,
            _signed(rolling.error - plain.error),
        )
        for plain, rolling in pairs
    )
    columns = ("`DW+GPW`", "`DW+RPW`", ">error", ">error with RPW", ">change")
    return (
        "## (a) Equal parameters and MACs, larger field",
        "VGG16 reorganized, CIFAR-10, one run each ([3DRF] Table 6). `RPW` windows overlap, and "
        "two such blocks in a row see more channels than two with `GPW`, which exchange none. Each "
        "network with `GPW` stands against two. "
        f"{better} of {len(pairs)} pairs are ordered as the field orders them.",
        _table(columns, cells),
    )


def field_share(groups: int) -> float:
    """Return the mean channel field of WRN-28-10's blocks of equal width, as a share of C.

    GPW+SH+DW+GPW inside a quarter of the width; groups that do not divide a width are lowered one
    by one. Of the 12 blocks each stage has as many of equal width.

    >>> [round(field_share(groups), 2) for groups in (4, 8)]
    [1.0, 0.88]
    """
    shares = []
    for width in _WIDTHS:
        inner = width // 4
        outer = next(g for g in range(groups, 0, -1) if width % g == 0 and inner % g == 0)
        shuffle = next(g for g in range(groups, 0, -1) if inner % g == 0)
        text = f"GPW({outer})+SH({shuffle})+DW+GPW({outer})"
        sized = Block.parse(text).at(width, bottleneck=Fraction(1, 4))
        shares.append(channel_field(sized.layers) / width)
    return fmean(shares)


def _short_field(rows: Sequence[TrainedBlock]) -> tuple[str, ...]:
    swept = [row for row in rows if row.source.endswith("research log")]
    cells = tuple(
        (row.groups, f"{field_share(int(row.groups)):.2f}", f"{row.params:,}", row.error)
        for row in swept
    )
    return (
        "## (b) The field falls short",
        "WRN-28-10 on CIFAR-10 with `GPW+SH+DW+GPW` inside a quarter of the width; groups that do "
        "not divide a width are lowered. As the groups grow, the field falls below the channels, "
        "and parameters fall too: nothing tells the two apart.",
        _table((">groups", ">field, of C", ">parameters", ">error"), cells),
    )


def group_sweeps(rows: Sequence[TrainedBlock]) -> list[tuple[TrainedBlock, TrainedBlock]]:
    """Return the first and the last network, by groups, of the ResNeXt sweeps from 1 or 2 to 64."""
    sweeps: dict[tuple[str, str, str], list[TrainedBlock]] = {}
    for row in rows:
        if row.source == "imgclsmob" and row.network.startswith("ResNeXt"):
            name = row.network.partition(" ")[0]
            sweeps.setdefault((row.dataset, name, row.width), []).append(row)
    ordered = [sorted(sweep, key=lambda row: int(row.groups)) for sweep in sweeps.values()]
    return [
        (sweep[0], sweep[-1]) for sweep in ordered if len(sweep) > 2 and sweep[-1].groups == "64"
    ]


def _group_sweeps(rows: Sequence[TrainedBlock]) -> tuple[str, ...]:
    sweeps = group_sweeps(rows)
    changes = np.array([last.error - first.error for first, last in sweeps])
    drawn = np.random.default_rng(0).choice(changes, (RESAMPLES, len(changes))).mean(axis=1)
    saved = [1 - last.params / first.params for first, last in sweeps]
    saved += [1 - (last.macs or 0) / first.macs for first, last in sweeps if first.macs]
    cells = tuple(
        (
            first.dataset,
            first.network,
            last.network,
            f"{1 - last.params / first.params:.0%}",
            f"{1 - (last.macs or 0) / (first.macs or 1):.0%}",
            first.error,
            last.error,
            _signed(last.error - first.error),
        )
        for first, last in sweeps
    )
    columns = (
        "data",
        "from",
        "to",
        ">fewer parameters",
        ">fewer MACs",
        ">error",
        ">then",
        ">change",
    )
    return (
        "## (c) Equal field, fewer weights",
        "`PW+GC(g)+PW` sees all channels for every g. From the fewest groups to 64, "
        f"{len(sweeps)} sweeps lose {changes.mean():.2f} points on average "
        f"({_interval(drawn)}; {changes.min():.2f} to {changes.max():.2f}) for {min(saved):.0%} to "
        f"{max(saved):.0%} fewer parameters and MACs. The field says nothing of this.",
        _table(columns, cells),
    )


def wide_networks(rows: Sequence[TrainedBlock]) -> list[TrainedBlock]:
    """Return the networks of [Fog] Tables 3 and 4 of about 11 million parameters."""
    tables = ("[Fog] Table 3", "[Fog] Table 4")
    return [row for row in rows if row.source in tables and row.params in _ABOUT_11M]


def width_correlation(networks: Sequence[TrainedBlock]) -> tuple[float, str]:
    """Return Spearman's rho between width and accuracy, and its interval."""
    widths = dense_ranks([int(row.width) for row in networks])
    accuracies = dense_ranks([-row.error for row in networks])
    rho = spearman(widths, accuracies, resamples(len(networks), RESAMPLES, 0))
    return float(rho[0]), _interval(rho[1:])


def _width(rows: Sequence[TrainedBlock]) -> tuple[str, ...]:
    networks = sorted(wide_networks(rows), key=lambda row: int(row.width))
    rho, interval = width_correlation(networks)
    cells = tuple(
        (row.width, f"`{row.composition}`", row.groups, f"{row.params:,}", row.error)
        for row in networks
    )
    return (
        "## (d) Width at about equal parameters",
        f"[Fog] Tables 3 and 4, ImageNet-1K, one layout, {len(networks)} networks of 8.6 to 11.3 "
        f"million parameters: width and accuracy have the rank correlation {rho:.2f} ({interval}).",
        _table((">width", "block", ">groups", ">parameters", ">error"), cells),
    )


def networks_of_full_field(rows: Sequence[TrainedBlock]) -> list[TrainedBlock]:
    """Return the WRN-40-2 of about 300k parameters whose blocks see all their channels."""
    return [
        row
        for row in rows
        if row.network == "WRN-40-2" and row.params in _ABOUT_300K and row.block is not None
    ]


def _full_field(rows: Sequence[TrainedBlock]) -> tuple[str, ...]:
    networks = sorted(networks_of_full_field(rows), key=lambda row: row.error)
    gap = networks[-1].error - networks[0].error
    cells = tuple(
        (f"`{row.block}`", row.bottleneck or "1", f"{row.params:,}", row.error) for row in networks
    )
    return (
        "## (e) Full field, and still apart",
        "WRN-40-2 on CIFAR-10 with about 300k parameters and blocks of full field: "
        f"{gap:.1f} points lie between them. The field alone does not rank.",
        _table(("block", ">bottleneck", ">parameters", ">error"), cells),
    )


def in_bins() -> dict[str, dict[str, Mapping[str, str]]]:
    """Return the rows of `reliability.csv` in bins of equal parameters, by measure and set."""
    rows: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in published_rows():
        if row["where"] == IN_BINS and row["spearman"]:
            rows.setdefault(row["score"], {})[row["set"]] = row
    return rows


def leads_over_macs(name: str) -> dict[str, float]:
    """Return how far the rho of a measure in bins lies above that of MACs, by set."""
    rows = in_bins()
    return {
        where: float(row["spearman"]) - float(rows["macs"][where]["spearman"])
        for where, row in rows[name].items()
    }


def always_above_macs(measures: Sequence[str]) -> list[str]:
    """Return the measures whose rho in bins is above that of MACs on every set."""
    return [name for name in measures if min(leads_over_macs(name).values()) > 0]


def _whole_networks() -> tuple[str, ...]:
    rows = in_bins()
    sets = list(rows["macs"])
    cells = tuple(
        (
            name,
            *(
                "{:.2f} ({:.2f} to {:.2f})".format(
                    *(float(rows[name][x][column]) for column in ("spearman", "low", "high"))
                )
                for x in sets
            ),
        )
        for name in rows
    )
    scores = [name for name in rows if name not in COUNTS]
    above = always_above_macs(scores)
    best = f"{listed(above)} is" if above else f"none of the {len(scores)} scores is"
    times = [f"{name} {sum(x > 0 for x in leads_over_macs(name).values())}" for name in scores]
    leads = [
        f"{name} is (by {min(leads_over_macs(name).values()):.2f} on the closest set)"
        for name in always_above_macs([name for name in rows if name in COUNTS])
    ]
    plain = f" Of the plain counts {listed(leads)}." if leads else ""
    return (
        "## (f) Whole networks",
        "Spearman's ρ with accuracy in ten bins of equal parameters ([definitions](scores.md), "
        f"[all situations](../results/scores.md)). On every set above MACs: {best}; of "
        f"{len(sets)} sets they are above on so many: {', '.join(times)}.{plain}",
        _table(("measure", *(f">{name}" for name in sets)), cells),
    )


def _claims() -> tuple[str, ...]:
    claims = "\n".join(f"- {claim}" for claim in CLAIMS)
    return ("## (g) What ifspace claims", "This, and no more:", claims)


def _table(columns: tuple[str, ...], rows: tuple[tuple[object, ...], ...]) -> str:
    return Table(columns, rows).markdown("github").rstrip()


def _signed(change: float) -> str:
    return f"{change:+.2f}"


def _interval(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> str:
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"
