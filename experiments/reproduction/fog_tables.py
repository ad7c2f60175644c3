"""Parameters of [Fog] Tables 2 to 4: one convention of counting for all rows, fitted.

A unit is counted by the formulas of its layers, with fractions where a group count does not divide
its widths: the paper prints such rows too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import product
from math import log
from typing import Final

from experiments.reproduction.page import (
    MATCH,
    Judged,
    Section,
    as_table,
    signed,
    verdict,
)
from experiments.reproduction.printed import (
    UNITS,
    FogUnit,
)
from ifspace.block import Block
from ifspace.errors import BlockError

STAGES: Final = 4
CLASSES: Final = 1000
MOST_BLOCKS: Final = 24
OPENINGS: Final = {
    "plain": "the first unit of a stage maps C to 2C, its shortcut is free",
    "projection": "the same with a 1x1 convolution from C to 2C beside it",
    "joined": "it maps C to C, and its pooled input is joined to what it writes",
}


@dataclass(frozen=True, slots=True)
class FogConvention:
    """How a network is counted: the opening of a stage, the classifier, batch norm."""

    opening: str
    classifier: bool
    batch_norm: bool

    def __str__(self) -> str:
        dense = "classifier" if self.classifier else "no classifier"
        return f"{self.opening}, {dense}, {'BN' if self.batch_norm else 'no BN'}"


def conventions() -> Iterator[FogConvention]:
    """Yield every convention that is tried."""
    yield from (
        FogConvention(*choice) for choice in product(OPENINGS, (False, True), (False, True))
    )


@cache
def unit_amounts(block: str, c: int, f: int, inner: Fraction | None) -> tuple[Fraction, Fraction]:
    """Return weights and written channels of a unit from c to f channels, legal or not.

    The first layer that mixes channels goes to inner x f channels, the last one to f.

    >>> [int(amount) for amount in unit_amounts("PW+DW+PW", 64, 64, Fraction(1, 4))]
    [2192, 96]

    Reference: docs/notation.md.
    """
    layers = Block.parse(block).layers
    mixing = [n for n, layer in enumerate(layers) if layer.conv.mixing]
    width, weights, written = Fraction(c), Fraction(0), Fraction(0)
    for n, layer in enumerate(layers):
        out = width
        if n == mixing[-1]:
            out = Fraction(f)
        elif n == mixing[0] and inner is not None:
            out = inner * f
        kernel = 3 if layer.conv.spatial else 1
        fan_in = width / (layer.groups or 1) if layer.conv.mixing else Fraction(1)
        weights += kernel**2 * fan_in * out
        written += out
        width = out
    return weights, written


def params(unit: FogUnit, blocks: int, how: FogConvention) -> float:
    """Return the parameters of the network of [Fog] Table 1 with a unit, in millions."""
    first = unit.width
    norm = 2 if how.batch_norm else 0
    total = Fraction(27 * first + norm * first)
    for stage in range(STAGES):
        f = first << stage
        c = f if stage == 0 else f // 2
        opens = (c, c) if how.opening == "joined" else (c, f)
        opening = unit_amounts(unit.block, *opens, unit.inner)
        more = unit_amounts(unit.block, f, f, unit.inner)
        total += opening[0] + (blocks - 1) * more[0]
        total += norm * (opening[1] + (blocks - 1) * more[1])
        if stage and how.opening == "projection":
            total += c * f + norm * f
    if how.classifier:
        total += (first << STAGES - 1) * CLASSES + CLASSES
    return float(total) / 1e6


def design(unit: FogUnit) -> tuple[str, bool]:
    """Return what rows with one number of blocks share; those that print a depth stay apart."""
    return str(Block.parse(unit.block).composition), unit.depth is not None


def misfit(unit: FogUnit, blocks: int, how: FogConvention) -> float:
    """Return how far a count is from the printed one, as the size of the logarithm of the ratio."""
    return abs(log(params(unit, blocks, how) / float(unit.params)))


def blocks_of(unit: FogUnit) -> int | None:
    """Return B of the depth that a row prints: three convolutions in a unit, four stages.

    >>> blocks_of(UNITS[0]), blocks_of(UNITS[2])
    (8, 16)
    """
    return None if unit.depth is None else (unit.depth - 2) // (3 * STAGES)


@dataclass(frozen=True, slots=True)
class FittedConvention:
    """A convention with the number of blocks of each row, and the misfits of all rows added."""

    convention: FogConvention
    blocks: tuple[int, ...]
    misfit: float


@cache
def fit(how: FogConvention) -> FittedConvention:
    """Return the numbers of blocks under which the rows come nearest, one for each design."""
    chosen: dict[tuple[str, bool], int] = {}
    for unit in UNITS:
        rows = [row for row in UNITS if design(row) == design(unit)]
        chosen[design(unit)] = min(
            range(1, MOST_BLOCKS + 1), key=lambda b: sum(misfit(row, b, how) for row in rows)
        )
    blocks = tuple(blocks_of(unit) or chosen[design(unit)] for unit in UNITS)
    total = sum(misfit(unit, b, how) for unit, b in zip(UNITS, blocks, strict=True))
    return FittedConvention(how, blocks, total)


def exact(unit: FogUnit) -> list[tuple[FogConvention, int]]:
    """Return under which conventions and numbers of blocks a row alone has its printed count."""
    stated = blocks_of(unit)
    return [
        (how, b)
        for how in conventions()
        for b in ([stated] if stated else range(1, MOST_BLOCKS + 1))
        if verdict(unit.params, params(unit, b, how)) == MATCH
    ]


def illegal(unit: FogUnit) -> list[str]:
    """Return at which stages the groups of a unit do not divide its widths, if at any."""
    faults = []
    for stage in range(STAGES):
        f = unit.width << stage
        try:
            Block.parse(unit.block).at(f if stage == 0 else f // 2, f, unit.inner)
            Block.parse(unit.block).at(f, f, unit.inner)
        except BlockError:
            faults.append(str(stage + 1))
    return faults


def fog_section() -> Section:
    """Return the section of the page."""
    ranked = sorted(map(fit, conventions()), key=lambda fitted: fitted.misfit)
    best = ranked[0]
    return Section(
        "[Fog] Tables 2 to 4: parameters",
        [
            "The layout of [Fog] Table 1: a 3x3 convolution, four stages of B units whose widths "
            "double, 1000 classes. One convention for all rows is fitted: the least *misfit*, "
            "Σ |ln(ours / printed)|. B follows from the printed depth in Table 2 (98: B = 8, 194: "
            "B = 16); in Tables 3 and 4 each composition has the one B that comes nearest. "
            "Conventions tried: "
            + "; ".join(f"*{name}*: {text}" for name, text in OPENINGS.items())
            + "; classifier counted or not; batch norm counted or not.",
            as_table(["convention", "misfit", "Tables 3, 4", "within 5%"], _ranking(ranked)),
            "The conventions differ less from each other than the rows do from the print: none is "
            f"established. Rows under the nearest, {best.convention}; parameters in millions.",
            rows_table(best),
            "By themselves, under a convention and a B of their own, only these rows have the "
            "printed count:",
            as_table(["unit", "width", "B", "convention"], alone()),
            "Where the groups do not divide the widths the unit cannot be built. It is counted by "
            "the formula, with fractions of channels; *without bottleneck* it would be legal, and "
            "then comes nearest so:",
            as_table(
                ["unit", "width", "not at stages", "without bottleneck", "B", "convention"],
                unbuildable(),
            ),
            "Table 2 cannot come out with an interior of a quarter, whatever else is counted. By "
            f"print, {_more_units()} By print the networks of width 256 with 32 groups and of "
            "width 128 without cost the same; a unit of their first stages has "
            f"{_weights(UNITS[1])} and {_weights(UNITS[0])} weights. The interior that would fit "
            "each row, under the nearest convention, is not one share of the width:",
            as_table(["unit", "width", "B", "interior at 1/4", "fits", "share"], interiors(best)),
        ],
        ("[Fog] Tables 2 to 4: parameters",),
    )


def _ranking(ranked: Sequence[FittedConvention]) -> list[list[object]]:
    rows: list[list[object]] = []
    for fitted in ranked:
        pairs = zip(UNITS, fitted.blocks, strict=True)
        off = [(unit, misfit(unit, blocks, fitted.convention)) for unit, blocks in pairs]
        later = sum(size for unit, size in off if unit.table > 2)
        near = sum(size < log(1.05) for _, size in off)
        rows.append(
            [
                str(fitted.convention),
                f"{fitted.misfit:.2f}",
                f"{later:.2f}",
                f"{near} of {len(UNITS)}",
            ]
        )
    return rows


def _weights(unit: FogUnit) -> str:
    return f"{int(unit_amounts(unit.block, unit.width, unit.width, unit.inner)[0]):,}"


def _more_units() -> str:
    """Return what the print and the formulas say of eight more units in every stage."""
    shallow, deep = UNITS[0], UNITS[2]
    print_says = float(deep.params) - float(shallow.params)
    how = FogConvention("plain", False, False)
    ours = params(deep, 16, how) - params(deep, 8, how)
    return (
        f"eight more units in every stage at width {deep.width} cost {print_says:.1f}M; the "
        f"formula gives {ours:.1f}M."
    )


def interiors(best: FittedConvention) -> list[list[object]]:
    """Return for each row with a depth the interior width of stage 1 that comes nearest."""
    rows: list[list[object]] = []
    for unit, blocks in zip(UNITS, best.blocks, strict=True):
        if unit.depth is None:
            continue
        tried = {
            k: misfit(replace(unit, inner=Fraction(k, unit.width)), blocks, best.convention)
            for k in range(1, unit.width + 1)
        }
        k = min(tried, key=tried.__getitem__)
        rows.append([unit.name, unit.width, blocks, unit.width // 4, k, f"{k / unit.width:.3f}"])
    return rows


def alone() -> list[list[object]]:
    """Return the rows that have their printed count under some convention of their own."""
    return [
        [unit.name, unit.width, blocks, str(how)] for unit in UNITS for how, blocks in exact(unit)
    ]


def unbuildable() -> list[list[object]]:
    """Return the rows whose groups do not fit, with what comes nearest without a bottleneck."""
    rows: list[list[object]] = []
    for unit in UNITS:
        if illegal(unit):
            open_unit = replace(unit, inner=None)
            tried = product(conventions(), range(1, MOST_BLOCKS + 1))
            how, blocks = min(tried, key=lambda pair: misfit(open_unit, pair[1], pair[0]))
            rows.append(
                [
                    unit.name,
                    unit.width,
                    ", ".join(illegal(unit)),
                    f"{params(open_unit, blocks, how):.2f}",
                    blocks,
                    str(how),
                ]
            )
    return rows


def rows_table(best: FittedConvention) -> Judged:
    """Return all rows under a convention with their residuals."""
    rows = []
    for unit, blocks in zip(UNITS, best.blocks, strict=True):
        own = params(unit, blocks, best.convention)
        percent = 100 * (own / float(unit.params) - 1)
        judged = verdict(unit.params, own)
        rows.append(
            [
                unit.table,
                unit.name,
                unit.width,
                blocks,
                unit.params,
                f"{own:.2f}",
                f"{signed(percent, 1)}%",
                judged,
            ]
        )
    header = ["table", "unit", "width", "B", "printed", "ours", "off", "verdict"]
    return Judged(as_table(header, rows))
