"""Decomposed networks of [3DRF] Table 6 and [IF] Table 7: parameters and MACs beside the printed.

Counted from layouts alone, without building them: every 3x3 convolution that the block fits becomes
the block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import isclose
from typing import Any, Final

import numpy as np

from experiments.reproduction.conventions import (
    Convention,
    built,
    elements,
    linear,
    under,
)
from experiments.reproduction.count_tables import (
    MACS_OFF,
    PARAMS_OFF,
    Search,
    misses,
    neighbours,
    search,
)
from experiments.reproduction.page import (
    MATCH,
    Judged,
    Section,
    as_table,
    braces,
    signed,
)
from experiments.reproduction.printed import (
    DECOMPOSED,
    Counted,
    Decomposed,
)
from ifspace.block import Block, SizedBlock, SizedLayer
from ifspace.errors import BlockError
from ifspace.stages.layout import Layout
from ifspace.stages.organizer import organize

# Which convolutions stay as they are: those of stride 2, or the one that reads the image.
KEPT: Final = ("none", "first", "strided")
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """How a decomposed network is counted.

    `kept`: see `KEPT`. `inside`: whether layers of a block but its last have batch norm and biases
    as the others.
    """

    convention: Convention
    kept: str = "first"
    inside: bool = False

    def __str__(self) -> str:
        stay = "all replaced" if self.kept == "none" else f"{self.kept} kept"
        return f"{self.convention}; {stay}; {'' if self.inside else 'not '}inside blocks"


def with_block(layout: Layout, block: Block, kept: str = "first") -> Layout:
    """Return a layout with its 3x3 convolutions replaced by a block, where it fits their widths.

    >>> from ifspace.stages.networks import network
    >>> small = with_block(network("vgg16", 32), Block.parse("DW+PW"))
    >>> small.stages[0].first.block, small.stages[1].first.params
    (Block(layers=(Layer(kind='CONV', ...),), repeats=1), 8768)
    """

    def made(unit: SizedBlock, place: int, stride: int) -> SizedBlock:
        reads_image = (
            place == 0 and not layout.stem_and_head.stem and unit is layout.stages[0].first
        )
        stays = (kept != "none" and reads_image) or (kept == "strided" and stride > 1)
        return unit if stays else _replaced(unit, block)

    return replace(
        layout,
        stages=tuple(
            replace(
                stage,
                first=made(stage.first, place, stage.stride),
                repeated=made(stage.repeated, 1, 1),
            )
            for place, stage in enumerate(layout.stages)
        ),
    )


def _replaced(unit: SizedBlock, block: Block) -> SizedBlock:
    chain: list[SizedLayer] = []
    for layer in unit.layers:
        if not layer.conv.reference_only or layer.kernel != 3:
            chain.append(layer)
            continue
        try:
            chain += block.at(layer.c_in, layer.c_out, dims=layer.dims).layers
        except BlockError:
            chain.append(layer)  # its groups do not divide the widths
    widths = tuple(layer.c_out for layer in chain if layer.conv.mixing)[:-1]
    word = Block(tuple(layer.layer for layer in chain))
    return word.at(unit.channels, unit.out_channels, dims=unit.dims, widths=widths or None)


def count(layout: Layout, block: Block | None, reading: Reading) -> tuple[int, int]:
    """Return parameters and operations of a layout, decomposed unless there is no block."""
    own = under(layout, reading.convention)
    counted = own if block is None else with_block(own, block, reading.kept)
    extra = 0 if reading.inside else written_channels(counted) - written_channels(own)
    convention = reading.convention
    return (
        counted.params - (2 * convention.batch_norm + convention.bias) * extra,
        counted.macs + convention.per_element * elements(counted),
    )


def written_channels(layout: Layout) -> int:
    """Return how many channels the layers with weights of all units write, summed."""
    return sum(
        layer.c_out
        for stage in layout.stages
        for unit in stage.blocks
        for layer in unit.layers
        if layer.params
    )


def readings(hidden: tuple[int, ...] = (), kept: Sequence[str] = KEPT) -> Iterator[Reading]:
    """Yield every way of counting that is tried."""
    flags = (True, False)
    for norm, bias, inside, stay, extra in product(flags, flags, flags, kept, range(5)):
        if inside or norm or bias:
            yield Reading(Convention(norm, bias, hidden, extra), stay, inside)


@cache
def start_of(network: str, data: str) -> Search:
    """Return which layouts have the counts of the row that a table decomposes."""
    row = next(entry for entry in DECOMPOSED if (entry.network, entry.data) == (network, data))
    baseline = Counted(row.table, network, data, (row.params, row.params), (row.macs, row.macs), "")
    return search(baseline, 1)


def decomposed_section() -> Section:
    """Return the section of the page."""
    small = start_of("vgg16", "CIFAR-10").best
    large = start_of("resnet50", "ImageNet").best
    table_6 = [row for row in DECOMPOSED if row.table == 6]
    table_7 = [row for row in DECOMPOSED if row.table == 7]
    reading_6 = Reading(replace(small.convention, per_element=1))
    reading_7 = Reading(large.convention, kept="none", inside=True)
    header = ["network", "block", "params, M", "MACs, M", "verdict"]
    return Section(
        "[3DRF] Table 6, [IF] Tables 6 and 7: decomposed networks",
        [
            "Printed / ours, without the column of accuracy. A row matches when parameters agree "
            "to 0.01M and MACs to 5M, for the printed ones are whole tens. What [3DRF] decomposes "
            f"in Table 6 has 9.64M parameters where its Table 3 has 5.10M: {braces(small.depths)} "
            f"has both printed numbers, {off_by(start_of('vgg16', 'CIFAR-10'))}. Counted: "
            f"{reading_6}. A rolling and a group pointwise convolution of as many groups have as "
            "many weights, whatever the overlap.",
            Judged(as_table(header, decomposed_rows(table_6, small.depths, reading_6)), 2),
            against_one_network(),
            f"Layouts within ±3 convolutions a stage of a state of the organizer's trajectory that "
            f"have all three printed counts of the rows with groups, under some way of counting "
            f"(with or without batch norm, biases, both inside the block; the first convolution "
            f"replaced or not; 0 to 4 operations an element): {len(grouped())}. None of them has "
            f"the counts of DW+PW, nor those of the first row. Some, first of as many convolutions "
            "as VGG-16 has:",
            as_table(
                ["layout", "convolutions", "first row would be", "DW+PW would be", "counted"],
                nearest_grouped(),
            ),
            f"[IF] Table 7: {braces(large.depths)}, as in [3DRF] Table 5. Counted: {reading_7}.",
            Judged(as_table(header, decomposed_rows(table_7, large.depths, reading_7)), 2),
            nothing_fits(table_7[1], large.depths),
            "The networks themselves, with batch norm and no biases (VGG-16 for ImageNet: biases), "
            "batch norm inside the blocks; the first convolution stays:",
            as_table(["network", "data", "block", "params, M", "MACs, M", "of both"], originals()),
        ],
        ("[3DRF] Table 6: decomposed", "[IF] Table 7: decomposed"),
        "The rows of [3DRF] Table 6 with groups belong to another network than its other rows.",
    )


def decomposed_rows(
    printed: Sequence[Decomposed], depths: Sequence[int], reading: Reading
) -> list[list[object]]:
    """Return the rows of a table beside a layout counted one way."""
    table_rows: list[list[object]] = []
    for row in printed:
        layout = built(row.network, row.data).at_depths(depths)
        params, macs = count(layout, row.parsed, reading)
        off = [params / 1e6 - float(row.params), macs / 1e6 - float(row.macs)]
        differences = [f"params {signed(off[0])}M"] if abs(off[0]) * 1e6 > PARAMS_OFF else []
        differences += [f"MACs {signed(off[1], 0)}M"] if abs(off[1]) * 1e6 > MACS_OFF else []
        table_rows.append(
            [
                row.name,
                row.block or "-",
                f"{row.params} / {params / 1e6:.2f}",
                f"{row.macs} / {macs / 1e6:,.1f}",
                "; ".join(differences) or MATCH,
            ]
        )
    return table_rows


def off_by(result: Search) -> str:
    """Return how many layouts have the counts, and how far the best is off the trajectory."""
    depths = {hit.depths for hit in result.hits}
    only = "alone" if len(depths) == 1 else f"as {len(depths) - 1} others do"
    return f"{only} of all near the trajectory, {result.best.distance} convolutions off it"


def against_one_network() -> str:
    """Return why no one network has the rows of Table 6, from the printed numbers alone."""
    whole, two, four, eight = (
        float(next(row for row in DECOMPOSED if row.name == name).params)
        for name in ("DW+PW", "DW+GPW-g2", "DW+GPW-g4", "DW+GPW-g8")
    )
    digit = 2 * PARAMS_OFF / 1e6
    shares = ((whole - two) * 2, (two - four) * 4, (four - eight) * 8)
    spans = [
        f"{share - digit * factor:.2f} to {share + digit * factor:.2f}M"
        for share, factor in zip(shares, (2, 4, 8), strict=True)
    ]
    return (
        "No one network has all rows: with g groups its pointwise weights W become W/g and all "
        "else stays, so the printed parameters of neighbouring rows differ by W/2, W/4 and W/8. "
        f"W would be {spans[0]}, {spans[1]} and {spans[2]}: the rows with groups agree with each "
        "other, and not with DW+PW."
    )


@cache
def grouped() -> dict[tuple[int, ...], Reading]:
    """Return the layouts near the trajectory that have the rows with groups, and one way each."""
    layout = built("vgg16", "CIFAR-10")
    states = [layout.depths, *(move.depths for move in organize(layout).moves)]
    depths = neighbours(states, [stage.min_depth for stage in layout.stages])
    grouped_rows = [row for row in DECOMPOSED if row.name.startswith("DW+GPW")]
    readings_of: dict[tuple[int, ...], Reading] = {}
    for reading in readings(kept=KEPT[:2]):
        off: Any = np.zeros(len(depths))
        for row in grouped_rows:

            def of(sized: Layout, block: Block | None = row.parsed) -> Any:
                return np.array(count(sized, block, reading))  # noqa: B023 - called at once

            counted = linear(of, layout, depths)
            off += misses(counted[:, 0], float(row.params) * 1e6, PARAMS_OFF)
            off += misses(counted[:, 1], float(row.macs) * 1e6, MACS_OFF)
        for place in np.flatnonzero(off == 0):
            readings_of.setdefault(tuple(map(int, depths[place])), reading)
    return readings_of


def nearest_grouped() -> list[list[object]]:
    """Return some layouts that have the rows with groups, and what the other rows would be."""
    layout = built("vgg16", "CIFAR-10")
    by_size = sorted(
        grouped().items(), key=lambda item: (abs(sum(item[0]) - sum(layout.depths)), item[0])
    )
    shown = []
    for depths, reading in by_size[:SHOWN]:
        sized = layout.at_depths(depths)
        cells = [
            "{:.2f}M, {:,.0f}M".format(*(item / 1e6 for item in count(sized, block, reading)))
            for block in (None, Block.parse("DW+PW"))
        ]
        shown.append([braces(depths), sum(depths), *cells, reading])
    return shown


def nothing_fits(row: Decomposed, depths: Sequence[int]) -> str:
    """Return how near any way of counting comes to a row, and whether one has it."""
    layout = built(row.network, row.data).at_depths(depths)
    printed = float(row.params) * 1e6, float(row.macs) * 1e6
    blocks = [Block.parse(text) for text in ("DW+RPW(2,1/2)", "DW+PW", "DW+RPW(4,1/2)")]
    tried = [
        (*count(layout, block, reading), block, reading)
        for block in blocks
        for reading in readings(kept=("none", "strided"))
    ]
    near = min(
        tried,
        key=lambda counts: (
            abs(counts[0] - printed[0]) / printed[0] + abs(counts[1] - printed[1]) / printed[1]
        ),
    )
    fits = [counts for counts in tried if isclose(counts[0], printed[0], abs_tol=PARAMS_OFF)]
    return (
        f"Ways of counting tried for DW+RPW: {len(tried)}, with {', '.join(map(str, blocks))}, "
        f"strided convolutions kept or not, and as above. With the printed parameters: "
        f"{len(fits)}. The nearest is "
        f"{near[2]} with {near[0] / 1e6:.2f}M and {near[1] / 1e6:,.0f}M ({near[3]})."
    )


def originals() -> list[list[object]]:
    """Return VGG-16 and ResNet-50 before and after, as the papers start from them."""
    lines: list[list[object]] = []
    for network, data in product(("vgg16", "resnet50"), ("CIFAR-10", "ImageNet")):
        layout = built(network, data)
        large = network == "vgg16" and data == "ImageNet"
        reading = Reading(
            Convention(not large, large, layout.stem_and_head.classifier[:-1]), inside=not large
        )
        before = count(layout, None, reading)
        for text in (None, "DW+PW", "DW+RPW(2,1/2)"):
            after = count(layout, Block.parse(text) if text else None, reading)
            shares = [f"{100 * new / old:.1f}%" for old, new in zip(before, after, strict=True)]
            lines.append(
                [
                    network,
                    data,
                    text or "-",
                    f"{after[0] / 1e6:.2f}",
                    f"{after[1] / 1e6:,.1f}",
                    " / ".join(shares) if text else "",
                ]
            )
    return lines
