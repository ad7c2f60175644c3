"""Parameters of [Fog] Tables 2 to 4: a search over conventions of counting, a law, a contradiction.

A unit is counted by the formulas of its layers, with fractions where a group count does not divide
its widths: the paper prints such rows too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import combinations, product
from typing import Any, Final

import numpy as np

from experiments.reproduction.page import Judged, Outcome, Reading, Section, Verdict, agrees
from experiments.reproduction.printed import UNITS, FogUnit
from ifspace.block import Block, Layer
from ifspace.errors import BlockError
from ifspace.reach import channel_field
from ifspace.table import Table

NAME: Final = "W"
FIELD: Final = "S"
STAGES: Final = 4
CLASSES: Final = 1000
MOST_BLOCKS: Final = 24
# Of the last digit printed, in millions.
HALF_DIGIT: Final = 0.05
OPENINGS: Final = {
    "plain": "the first unit of a stage maps C to 2C, its shortcut is free",
    "projection": "the same with a 1x1 convolution from C to 2C beside it",
    "joined": "it maps C to C, and its pooled input is joined to what it writes",
    "projections": "a 1x1 convolution beside the first unit of every stage, of the first too",
}
# Weights for each channel that the layer before the stages writes.
STEMS: Final = {"3x3": 27, "7x7": 147, "not counted": 0}
CLASSIFIERS: Final = ("none", "weights", "weights and biases")
# Numbers beside the weights for each channel that a layer writes.
BESIDE: Final = {"nothing": 0, "batch norm": 2, "biases": 1, "batch norm and biases": 3}
INTERIORS: Final = ("output", "input")
SCALES: Final = (Fraction(1), Fraction(1, 2), Fraction(2), Fraction(4))
# Times the width by which the first stage writes: the paper's, doubled, and as ResNet's bottleneck.
EXPANSIONS: Final = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class FogConvention:
    """How a network of [Fog] Table 1 is counted.

    `beside`: parameters beside the weights for each written channel. The interior of a unit is the
    printed ratio times `scale` of its `interior`, the widths that it reads or writes. The first
    stage writes `expansion` times the printed width.
    """

    opening: str = "plain"
    classifier: str = "none"
    beside: str = "nothing"
    interior: str = "output"
    scale: Fraction = Fraction(1)
    expansion: int = 1
    stem: str = "3x3"

    def __str__(self) -> str:
        return (
            f"opening {self.opening}, classifier {self.classifier}, {self.beside} beside weights, "
            f"interior {self.scale} x the printed share of the {self.interior}, first stage "
            f"{self.expansion} x the width, first layer {self.stem}"
        )


@cache
def conventions() -> tuple[FogConvention, ...]:
    """Return every convention that is tried."""
    choices = product(OPENINGS, CLASSIFIERS, BESIDE, INTERIORS, SCALES, EXPANSIONS, STEMS)
    return tuple(FogConvention(*choice) for choice in choices)


@cache
def layers_of(block: str) -> tuple[Layer, ...]:
    """Return the layers of a block in the notation."""
    return Block.parse(block).layers


def unit_amounts(block: str, c: float, f: float, interior: float | None) -> tuple[float, float]:
    """Return weights and written channels of a unit from c to f channels, legal or not.

    The first layer that mixes channels goes to `interior` channels, the last one to f.

    >>> unit_amounts("PW+DW+PW", 64, 64, 16)
    (2192.0, 96.0)

    Reference: docs/notation.md.
    """
    layers = layers_of(block)
    mixing = [n for n, layer in enumerate(layers) if layer.conv.mixing]
    width, weights, written = float(c), 0.0, 0.0
    for n, layer in enumerate(layers):
        out = width
        if n == mixing[-1]:
            out = f
        elif n == mixing[0] and interior is not None:
            out = interior
        kernel = 3 if layer.conv.spatial else 1
        weights += kernel**2 * (width / (layer.groups or 1) if layer.conv.mixing else 1) * out
        written += out
        width = out
    return weights, written


def params_by_blocks(unit: FogUnit, how: FogConvention) -> tuple[float, float]:
    """Return the parameters with one unit a stage, and what one unit more in every stage adds."""
    beside = BESIDE[how.beside]
    stem = STEMS[how.stem]
    base, more = float((stem + beside * bool(stem)) * unit.width), 0.0
    for stage in range(STAGES):
        f = how.expansion * unit.width << stage
        c = f // 2 if stage else unit.width
        written = c if how.opening == "joined" and stage else f
        ratio = None if unit.inner is None else float(unit.inner * how.scale)
        widths = written if how.interior == "output" else c
        opening = unit_amounts(unit.block, c, written, ratio and ratio * widths)
        repeated = unit_amounts(unit.block, f, f, ratio and ratio * f)
        base += opening[0] + beside * opening[1]
        more += repeated[0] + beside * repeated[1]
        if how.opening == "projections" or (how.opening == "projection" and c != f):
            base += c * f + beside * f
    last = how.expansion * unit.width << STAGES - 1
    base += {"none": 0, "weights": last * CLASSES, "weights and biases": (last + 1) * CLASSES}[
        how.classifier
    ]
    return base, more


def params(unit: FogUnit, blocks: int, how: FogConvention) -> float:
    """Return the parameters of the network with B units a stage, in millions."""
    base, more = params_by_blocks(unit, how)
    return (base + (blocks - 1) * more) / 1e6


def blocks_of(unit: FogUnit) -> int | None:
    """Return B of the depth that a row prints: three convolutions in a unit, four stages.

    >>> blocks_of(UNITS[0]), blocks_of(UNITS[2])
    (8, 16)
    """
    return None if unit.depth is None else (unit.depth - 2) // (3 * STAGES)


def network_key(unit: FogUnit) -> tuple[object, ...]:
    """Return what makes two rows the same network: Table 4 repeats rows of Table 3."""
    return unit.block, unit.width, unit.params, unit.inner, unit.depth


def distinct() -> tuple[FogUnit, ...]:
    """Return the rows without those that repeat another.

    >>> len(UNITS), len(distinct())
    (20, 17)
    """
    return tuple({network_key(unit): unit for unit in reversed(UNITS)}.values())[::-1]


@dataclass(frozen=True, slots=True)
class FittedConvention:
    """A convention, the B of each composition without a printed depth, the rows that it explains.

    `misfit`: Σ |ln(ours / printed)| over all rows.
    """

    convention: FogConvention
    blocks: tuple[tuple[str, int], ...]
    rows: frozenset[tuple[object, ...]]
    misfit: float

    def blocks_for(self, unit: FogUnit) -> int:
        """Return B of a row."""
        return blocks_of(unit) or dict(self.blocks)[composition(unit)]


def composition(unit: FogUnit) -> str:
    """Return the composition of a unit: its rows share B where no depth is printed."""
    return str(Block.parse(unit.block).composition)


@cache
def fit(how: FogConvention) -> FittedConvention:
    """Return the numbers of blocks under which a convention explains most rows.

    Of numbers that explain equally many, the one with the least misfit Σ |ln(ours / printed)|.
    """
    explained, chosen, total = set(), [], 0.0
    open_rows: dict[str, list[tuple[FogUnit, Any, Any]]] = {}
    for unit in distinct():
        near, off = compared(unit, how)
        if stated := blocks_of(unit):
            total += off[stated - 1]
            explained |= {network_key(unit)} if near[stated - 1] else set()
        else:
            open_rows.setdefault(composition(unit), []).append((unit, near, off))
    for name, rows in open_rows.items():
        matches = np.sum([near for _, near, _ in rows], axis=0)
        misfits = np.sum([off for _, _, off in rows], axis=0)
        index = int(np.lexsort((misfits, -matches))[0])
        chosen.append((name, index + 1))
        total += misfits[index]
        explained |= {network_key(unit) for unit, near, _ in rows if near[index]}
    return FittedConvention(how, tuple(chosen), frozenset(explained), float(total))


def compared(unit: FogUnit, how: FogConvention) -> tuple[Any, Any]:
    """Return whether a row is explained, and its misfit |ln(ours / printed)|, for each B, [B]."""
    base, more = params_by_blocks(unit, how)
    ours = (base + np.arange(MOST_BLOCKS) * more) / 1e6
    printed = float(unit.params)
    return np.abs(ours - printed) < HALF_DIGIT, np.abs(np.log(ours / printed))


@cache
def best() -> FittedConvention:
    """Return the convention that explains most rows; of several, the one with the least misfit."""
    return max(map(fit, conventions()), key=lambda fitted: (len(fitted.rows), -fitted.misfit))


@cache
def nearest() -> FittedConvention:
    """Return the convention with the least misfit."""
    return min(map(fit, conventions()), key=lambda fitted: fitted.misfit)


def adopted() -> FittedConvention | None:
    """Return the convention that explains at least half of the distinct rows, if there is one."""
    return best() if 2 * len(best().rows) >= len(distinct()) else None


def alone(unit: FogUnit) -> int:
    """Return how many conventions explain a row by itself, with a B of its own."""
    stated = blocks_of(unit)
    numbers = slice(stated - 1, stated) if stated else slice(None)
    return sum(bool(compared(unit, how)[0][numbers].any()) for how in conventions())


def counts_of_fits() -> list[tuple[int, int]]:
    """Return how many conventions explain how many rows, most rows first."""
    numbers = [len(fit(how).rows) for how in conventions()]
    return sorted(((rows, numbers.count(rows)) for rows in set(numbers)), reverse=True)


@dataclass(frozen=True, slots=True)
class Law:
    """Parameters of Table 2 as n (a W + b W²/g) + c, fitted without one row.

    n: depth over that of the shallow rows, W: width, g: groups; a, b in numbers, c in millions.
    """

    without: FogUnit
    a: float
    b: float
    c: float

    def params(self, unit: FogUnit) -> float:
        """Return the parameters of a row in millions."""
        n, w, quadratic = _terms(unit)
        return (n * w * self.a + n * quadratic * self.b) / 1e6 + self.c

    @property
    def explained(self) -> list[FogUnit]:
        """The rows of Table 2 that it rounds to."""
        return [unit for unit in table_2() if agrees(unit.params, self.params(unit)) == "rounded"]


def table_2() -> list[FogUnit]:
    """Return the rows of Table 2."""
    return [unit for unit in UNITS if unit.table == 2]


def _terms(unit: FogUnit) -> tuple[float, int, float]:
    """Return n, W and W²/g of a row of Table 2."""
    blocks, shallow = blocks_of(unit), blocks_of(UNITS[0])
    assert blocks is not None
    assert shallow is not None
    return blocks / shallow, unit.width, unit.width**2 / groups(unit)


def groups(unit: FogUnit) -> int:
    """Return the groups of the interior convolution of a row of Table 2."""
    return layers_of(unit.block)[1].groups or 1


def laws() -> Iterator[Law]:
    """Yield the law of three coefficients, least squares without each of the rows in turn."""
    for rows in combinations(table_2(), len(table_2()) - 1):
        terms = np.array([(n * w, n * quadratic, 1e6) for n, w, quadratic in map(_terms, rows)])
        goal = np.array([float(unit.params) * 1e6 for unit in rows])
        a, b, c = map(float, np.linalg.lstsq(terms, goal, rcond=None)[0])
        without = next(unit for unit in table_2() if unit not in rows)
        yield Law(without, a, b, c)


def best_law() -> Law:
    """Return the law that explains most rows of Table 2."""
    return max(laws(), key=lambda law: len(law.explained))


def least_pointwise(unit: FogUnit) -> float:
    """Return the least weights of the pointwise layers of a row of Table 2, in millions.

    Table 1 doubles the widths from stage to stage. The interior of the first stage has at least as
    many channels as its convolution has groups, and doubles too.
    """
    blocks = blocks_of(unit)
    assert blocks is not None
    total = 0
    for stage in range(STAGES):
        f, k = unit.width << stage, groups(unit) << stage
        c = f // 2 if stage else f
        total += c * k + k * f + (blocks - 1) * 2 * k * f
    return total / 1e6


def judge(unit: FogUnit) -> Verdict:
    """Return the verdict of a row."""
    fitted = adopted()
    if fitted is not None and network_key(unit) in fitted.rows:
        return Verdict(Outcome.MATCH, NAME)
    if unit.table == 2 and (least := least_pointwise(unit)) > float(unit.params) + HALF_DIGIT:
        return Verdict(
            Outcome.MISPRINT,
            f"contradicts Table 1: with an interior of {groups(unit)} channels, the least that "
            f"{groups(unit)} groups allow, the pointwise layers alone have {least:.1f}M weights",
        )
    return Verdict(
        Outcome.NO_READING,
        f"{len(conventions()):,} conventions, the best explains {len(best().rows)} of "
        f"{len(distinct())} rows",
    )


def shuffled(unit: FogUnit) -> Iterator[Block]:
    """Yield the unit as it is and with shuffles behind its first grouped layer.

    The paper permutes channels where the field needs it; the groups of a shuffle are any divisor.
    """
    block = Block.parse(unit.block)
    yield block
    width = unit.width if unit.inner is None else int(unit.width * unit.inner)
    place = next((n for n, layer in enumerate(block.layers) if layer.groups), None)
    if place is None:
        return
    before, after = block.layers[: place + 1], block.layers[place + 1 :]
    for groups_of_shuffle in range(2, width):
        if width % groups_of_shuffle == 0:
            yield Block((*before, *Block.parse(f"SH({groups_of_shuffle})").layers, *after))


@cache
def full_field(unit: FogUnit) -> tuple[str, int] | None:
    """Return the unit with a full field and its channels, or None where it cannot be built.

    Without a full field, the unit that sees most.
    """
    seen: list[tuple[int, str]] = []
    for block in shuffled(unit):
        try:
            sized = block.at(unit.width, unit.width, unit.inner)
        except BlockError:
            continue
        seen.append((channel_field(sized.layers), str(block)))
        if seen[-1][0] == unit.width:
            break
    if not seen:
        return None
    channels, text = max(seen, key=lambda pair: pair[0])
    return text, channels


def reaches(unit: FogUnit) -> bool:
    """Return whether a unit sees all channels of its width with some shuffle."""
    answer = full_field(unit)
    return answer is not None and answer[1] == unit.width


def fields_table() -> Judged:
    """Return for each table how many units have the printed field, and the units that have not."""
    rows: list[tuple[Any, ...]] = []
    verdicts = []
    for table in (2, 3, 4):
        units = [unit for unit in UNITS if unit.table == table]
        full = [unit for unit in units if reaches(unit)]
        rows.append((table, f"{len(full)} of {len(units)} units see all channels", None))
        verdicts.append(Verdict(Outcome.MATCH, FIELD))
        for unit in units:
            if reaches(unit):
                continue
            rows.append((table, unit.name, unit.width))
            free = reaches(replace(unit, inner=None))
            interior = float(unit.width * (unit.inner or 1))
            verdicts.append(
                Verdict(
                    Outcome.MISPRINT if full_field(unit) is None else Outcome.NO_READING,
                    f"its groups do not divide the interior of {interior:g} channels; without a "
                    f"bottleneck it {'sees' if free else 'does not see'} all channels",
                )
            )
    return Judged(
        "[Fog]",
        "Tables 2 to 4: fields",
        ("table", "units", ">width"),
        tuple(rows),
        tuple(verdicts),
    )


def fog_section() -> Section:
    """Return the section of the page."""
    fitted = adopted() or nearest()
    rows: list[tuple[Any, ...]] = []
    for unit in UNITS:
        blocks = fitted.blocks_for(unit)
        own = params(unit, blocks, fitted.convention)
        rows.append(
            (unit.table, unit.name, unit.width, blocks, unit.params, f"{own:.2f}", alone(unit))
        )
    header = ("table", "unit", ">width", ">B", ">params, M", ">ours", ">alone")
    law = best_law()
    wide = max(table_2(), key=least_pointwise)
    shapes = ", ".join(f"{rows} rows: {number}" for rows, number in counts_of_fits())
    return Section(
        "[Fog] Tables 2 to 4",
        [
            "The layout of [Fog] Table 1: a 3x3 convolution, four stages of B units whose widths "
            "double, 1000 classes. B follows from the printed depth in Table 2 (98: B = 8, 194: "
            "B = 16); in Tables 3 and 4 no depth is printed, and each composition may have any B "
            f"from 1 to {MOST_BLOCKS}. Conventions tried: "
            + "; ".join(f"{name} opening: {text}" for name, text in OPENINGS.items())
            + f"; classifier {', '.join(CLASSIFIERS)}; beside the weights {', '.join(BESIDE)}; the "
            "interior a share of what a unit reads or writes, 1, 1/2, 2 or 4 times the printed "
            "one; the first stage 1, 2 or 4 times as wide; the first layer "
            f"{', '.join(STEMS)}. In all "
            f"{len(conventions()):,}; where the stride sits changes no parameters. Three rows of "
            f"Table 4 repeat rows of Table 3. Conventions by how many of the {len(distinct())} "
            f"distinct rows they explain: {shapes}. A convention would have to explain half of "
            "them to be adopted. *Ours*: under the one with the least Σ |ln(ours / printed)|, "
            f"{nearest().convention}. *Alone*: how many conventions explain the row by itself, "
            "with a B of its own.",
            Judged(
                "[Fog]",
                "Tables 2 to 4: parameters",
                header,
                tuple(rows),
                tuple(map(judge, UNITS)),
            ),
            "Table 2 follows a law that is none of a network: n (a W + b W²/g) + c with n = 1 "
            "for depth 98 and 2 for 194, W the width, g the groups. Fitted without the row of "
            f"width {law.without.width}: a = {law.a:,.0f}, b = {law.b:.0f}, c = {law.c:+.2f}M; it "
            f"explains {len(law.explained)} of {len(table_2())} rows. In a network whose interior "
            "is a share of its width the pointwise weights grow as W², not as W; at width "
            f"{wide.width} they alone would have {least_pointwise(wide):.1f}M even with the "
            f"narrowest interior that {groups(wide)} groups allow.",
            Table(
                ("unit", ">width", ">n", ">groups", ">params, M", ">law"),
                tuple(
                    (
                        unit.name,
                        unit.width,
                        int(_terms(unit)[0]),
                        groups(unit),
                        unit.params,
                        f"{law.params(unit):.2f}",
                    )
                    for unit in table_2()
                ),
            ),
            "The printed field of every row is 3 x 3 pixels and all channels of its width; the "
            "paper permutes channels between grouped layers where it needs to. Units that need a "
            "shuffle, with the first that serves: "
            + ", ".join(
                dict.fromkeys(
                    f"{answer[0]} at {unit.width}"
                    for unit in UNITS
                    if (answer := full_field(unit)) and "SH" in answer[0]
                )
            )
            + ".",
            fields_table(),
        ],
        (
            Reading(
                NAME,
                "[Fog] Tables 2 to 4: parameters",
                "none is adopted" if adopted() is None else str(fitted.convention),
                len(conventions()),
                f"at most {len(best().rows)} of {len(distinct())} distinct",
            ),
            Reading(
                FIELD,
                "[Fog] Tables 2 to 4: fields",
                "exact field of one unit, with the shuffle between grouped layers that serves best",
            ),
        ),
    )


def field_ranks() -> Sequence[FogUnit]:
    """Return the rows of Tables 3 and 4 with about 11M parameters, each network once."""
    return [unit for unit in distinct() if unit.table > 2 and 10 < float(unit.params) < 12]
