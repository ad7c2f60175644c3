"""The accuracies that the papers print, beside the fields, gains and widths of the same rows.

They show what the papers' own numbers say of a measure; nothing here is judged.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from experiments.reproduction.fog_tables import distinct, field_ranks
from experiments.reproduction.moves import best_reading, gain_of
from experiments.reproduction.page import Section
from experiments.reproduction.printed import (
    BASE_ACCURACY,
    COUNTED,
    DECOMPOSED,
    UNITS,
    VARIANTS,
    Decomposed,
)
from ifspace.block import Block
from ifspace.reach import channel_field
from ifspace.table import Table

WIDTH: Final = 64
COPIES: Final = (1, 2, 3)


def pairs() -> list[tuple[Decomposed, Decomposed]]:
    """Return the rows of [3DRF] Table 6 with RPW, each behind that with GPW of as many groups."""
    rows = {row.name: row for row in DECOMPOSED if row.table == 6}
    return [
        (rows[f"DW+GPW-g{name.removeprefix('DW+RPW-g')[0]}"], row)
        for name, row in rows.items()
        if name.startswith("DW+RPW")
    ]


def field(block: str, copies: int) -> int:
    """Return how many of `WIDTH` input channels an output of a repeated block sees.

    >>> field("DW+GPW(2)", 3), field("DW+RPW(2,1/2)", 2)
    (32, 64)
    """
    layers = Block.parse(block).layers
    return int(channel_field(Block(layers, copies).at(WIDTH).layers))


def pairs_table() -> Table:
    """Return the pairs of equal parameters and MACs with fields and accuracies."""
    rows = []
    for fixed, rolling in pairs():
        rows.append(
            (
                fixed.name,
                rolling.name,
                f"{fixed.params} / {rolling.params}",
                f"{fixed.macs} / {rolling.macs}",
                *(
                    f"{field(fixed.block, copies)} / {field(rolling.block, copies)}"
                    for copies in COPIES
                ),
                f"{fixed.accuracy} / {rolling.accuracy}",
                f"{accuracy_gain(fixed, rolling):+.2f}",
            )
        )
    return Table(
        (
            "without overlap",
            "with overlap",
            ">params, M",
            ">MACs, M",
            *(f">field, {copies} block{'s' * (copies > 1)}" for copies in COPIES),
            ">accuracy",
            ">difference",
        ),
        tuple(rows),
    )


def accuracy_gain(fixed: Decomposed, rolling: Decomposed) -> float:
    """Return how much more accurate a row is than another, in percentage points."""
    return round(float(rolling.accuracy) - float(fixed.accuracy), 2)


def ordered() -> int:
    """Return how many pairs the field of two blocks orders as their accuracies are."""
    return sum(
        (field(rolling.block, 2) - field(fixed.block, 2)) * accuracy_gain(fixed, rolling) > 0
        for fixed, rolling in pairs()
    )


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation, to two digits.

    >>> rank_correlation([1, 2, 3], [5, 6, 9])
    1.0
    """
    ranks: list[Any] = []
    for values in (first, second):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        # Equal values share the mean of their ranks.
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    together: Any = np.corrcoef(ranks)
    return round(float(together[0, 1]), 2)


def variants_correlation() -> float:
    """Return that of gain and accuracy of VGG-11 and its variants."""
    gains = [0.0, *(float(gain) for gain, _, _ in VARIANTS)]
    accuracies = [float(BASE_ACCURACY), *(float(accuracy) for _, accuracy, _ in VARIANTS)]
    return rank_correlation(gains, accuracies)


def moves_table() -> Table:
    """Return what reorganizing gains, in Δ3DRF and in accuracy."""
    reading = best_reading()
    return Table(
        ("network", "data", ">Δ3DRF", ">params saved", ">MACs added", ">accuracy gained"),
        tuple(
            (
                row.network,
                row.data,
                f"{gain_of(row, reading):.2f}",
                f"{100 * (1 - float(row.params[1]) / float(row.params[0])):.0f}%",
                f"{100 * (float(row.macs[1]) / float(row.macs[0]) - 1):+.0f}%",
                f"{float(row.accuracy[1]) - float(row.accuracy[0]):+.2f}",
            )
            for row in COUNTED
        ),
    )


def moves_correlation(data: str) -> float:
    """Return that of Δ3DRF and gained accuracy over the networks of a data set."""
    rows = [row for row in COUNTED if row.data == data]
    return rank_correlation(
        [gain_of(row, best_reading()) for row in rows],
        [float(row.accuracy[1]) - float(row.accuracy[0]) for row in rows],
    )


def accuracies_section() -> Section:
    """Return the section of the page."""
    widths = field_ranks()
    greatest = max(accuracy_gain(*pair) for pair in pairs())
    lighter = [unit for unit in distinct() if unit.table > 2 and float(unit.params) > 8]
    correlation, with_lighter = (
        rank_correlation([unit.width for unit in units], [-float(unit.error) for unit in units])
        for units in (widths, lighter)
    )
    table_2 = [unit for unit in UNITS if unit.table == 2]
    return Section(
        "Accuracies of the papers beside fields, gains and widths",
        [
            "Accuracies are single numbers that the papers print. They show an order, no more.",
            f"[3DRF] Table 6. Pairs with equal printed parameters (to 0.01M) and MACs: channels "
            f"that an output sees of {WIDTH} inputs, behind one, two and three blocks. The field "
            f"of two blocks orders {ordered()} of {len(pairs())} pairs as their accuracies are, by "
            f"up to {greatest:.2f} points. It does not order the two overlaps of one group count.",
            pairs_table(),
            "[IF] Table 2. Gain of the added convolution and accuracy, VGG-11 and its five "
            f"variants: rank correlation {variants_correlation():.2f}; three of the six have the "
            "gain 0.",
            "[3DRF] Tables 3 to 5. Δ3DRF and what reorganizing gained. Rank correlation over four "
            "networks: "
            + ", ".join(
                f"{data} {moves_correlation(data):+.2f}"
                for data in dict.fromkeys(row.data for row in COUNTED)
            )
            + ".",
            moves_table(),
            f"[Fog] Tables 3 and 4. The {len(widths)} networks of about 11M parameters: rank "
            f"correlation of width and accuracy {correlation:.2f}, with the one of 8.6M "
            f"{with_lighter:.2f}. Every unit sees all channels of "
            "its width, so that width and field are one number.",
            Table(
                ("table", "unit", ">params, M", ">width", ">error"),
                tuple(
                    (unit.table, unit.name, unit.params, unit.width, unit.error)
                    for unit in sorted(widths, key=lambda unit: unit.width)
                ),
            ),
            "[Fog] Table 2, by parameters and width; its parameters do not come out:",
            Table(
                ("unit", ">params, M", ">depth", ">width", ">error"),
                tuple(
                    (unit.name, unit.params, unit.depth, unit.width, unit.error) for unit in table_2
                ),
            ),
        ],
    )
