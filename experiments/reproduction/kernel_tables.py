"""[3DRF] Table 6 and [IF] Table 7: networks whose 3x3 convolutions are replaced by a block.

A decomposed network is counted from its convolutions without building it. Readings differ in what
stands beside the weights of a block and in which convolutions are replaced.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final

import numpy as np

from experiments.reproduction.count_tables import (
    DEEPEST,
    MACS_OFF,
    PARAMS_OFF,
    Convolution,
    all_blocks,
    at_blocks,
    best_tool,
    built,
    convolutions,
    has_bias,
    implementation,
    layouts,
    linear,
    operations,
    parameters,
)
from experiments.reproduction.page import Judged, Outcome, Reading, Section, Verdict, braces
from experiments.reproduction.printed import COUNTED, DECOMPOSED, Decomposed
from ifspace.block import Block
from ifspace.errors import BlockError
from ifspace.stages.layout import Layout

NAME: Final = "K"
# Which layers of a block have a bias, or a batch norm: none, the pointwise ones, all.
BESIDE: Final = ("1x1", "all", "none")
# The blocks that the search for [IF] Table 7 puts into a stage; None leaves its convolutions.
CHOICES: Final[tuple[str | None, ...]] = (
    None,
    "DW+PW",
    "DW+RPW(2,1/2)",
    "DW+RPW(4,1/2)",
    "DW+RPW(8,1/2)",
)


@dataclass(frozen=True, slots=True)
class BlockReading:
    """What of a decomposed network is counted beside weights, and which convolutions stay.

    `bias`, `norm`: which layers of a block have biases, batch norm; `first`: whether the
    convolution that reads the image is replaced.
    """

    norm: str = "1x1"
    bias: str = "1x1"
    first: bool = False

    def __str__(self) -> str:
        return (
            f"batch norm behind {_layers(self.norm)}, biases in {_layers(self.bias)}, the first "
            f"convolution {'replaced' if self.first else 'kept'}"
        )


def _layers(beside: str) -> str:
    return {"none": "no layer", "1x1": "pointwise layers", "all": "all layers"}[beside]


def readings() -> Iterator[BlockReading]:
    """Yield all readings of Table 6."""
    for norm, bias, first in product(BESIDE, BESIDE, (False, True)):
        yield BlockReading(norm, bias, first)


@dataclass(frozen=True, slots=True)
class Amounts:
    """Parameters and operations."""

    params: int
    operations: int

    def __add__(self, other: "Amounts") -> "Amounts":
        """Return both added."""
        return Amounts(self.params + other.params, self.operations + other.operations)


def difference(
    conv: Convolution, block: Block, network: str, data: str, reading: BlockReading
) -> Amounts:
    """Return what it adds to put a block in place of a 3x3 convolution; nothing if it cannot be.

    An activation follows each batch norm of the block.
    """
    source, tool = implementation(network, data), best_tool()
    try:
        layers = block.at(conv.layer.c_in, conv.layer.c_out).layers
    except BlockError:
        return Amounts(0, 0)  # its group counts do not divide the widths
    bias = has_bias(conv, source.bias)
    params = -conv.layer.params - (2 * source.batch_norm + bias) * conv.layer.c_out
    per_pixel = -conv.layer.params - conv.layer.c_out * (
        tool.batch_norm * source.batch_norm + tool.bias * bias + tool.relu
    )
    for layer in layers:
        norm = reading.norm == "all" or (reading.norm == "1x1" and layer.kernel == 1)
        biased = reading.bias == "all" or (reading.bias == "1x1" and layer.kernel == 1)
        params += layer.params + (2 * norm + biased) * layer.c_out
        per_pixel += layer.params + layer.c_out * (
            (tool.batch_norm + tool.relu) * norm + tool.bias * biased
        )
    return Amounts(params, per_pixel * conv.side**2)


def amounts(row: Decomposed, layout: Layout, reading: BlockReading) -> Amounts:
    """Return the counts of a layout, decomposed unless the row has no block."""
    source = implementation(row.network, row.data)
    total = Amounts(
        parameters(layout, source), operations(layout, row.network, source, best_tool())
    )
    if row.parsed is None:
        return total
    for conv in convolutions(layout):
        reads_image = conv.layer.c_in == layout.stem_and_head.inputs
        if conv.layer.kernel == 3 and conv.place != "stem" and (reading.first or not reads_image):
            total += difference(conv, row.parsed, row.network, row.data, reading)
    return total


@cache
def base_layouts(row: Decomposed) -> tuple[tuple[int, ...], ...]:
    """Return the layouts with both counts of the network that a table decomposes."""
    layout, source = built(row.network, row.data), implementation(row.network, row.data)
    blocks = all_blocks(len(layout.stages))
    params = linear(lambda sized: parameters(sized, source), layout, blocks)
    macs = linear(lambda sized: operations(sized, row.network, source, best_tool()), layout, blocks)
    near = (np.abs(params - float(row.params) * 1e6) <= PARAMS_OFF) & (
        np.abs(macs - float(row.macs) * 1e6) <= MACS_OFF
    )
    return tuple(tuple(map(int, depths)) for depths in blocks[near])


def rows_of(table: int) -> list[Decomposed]:
    """Return the rows of a table."""
    return [row for row in DECOMPOSED if row.table == table]


@cache
def table_6_layout() -> tuple[int, ...]:
    """Return the layout of Table 6, the one with the counts of its first row."""
    return base_layouts(rows_of(6)[0])[0]


def agrees_with(row: Decomposed, counted: Amounts) -> bool:
    """Return whether both counts are the printed ones."""
    return (
        abs(counted.params - float(row.params) * 1e6) <= PARAMS_OFF
        and abs(counted.operations - float(row.macs) * 1e6) <= MACS_OFF
    )


@cache
def fits(reading: BlockReading) -> int:
    """Return how many rows of Table 6 a reading explains."""
    layout = at_blocks(built("vgg16", "CIFAR-10"), table_6_layout())
    return sum(agrees_with(row, amounts(row, layout, reading)) for row in rows_of(6))


@cache
def best_reading() -> BlockReading:
    """Return the reading that explains most rows of Table 6."""
    return max(readings(), key=fits)


@dataclass(frozen=True, slots=True)
class Span:
    """The pointwise weights of a network that two printed numbers of parameters leave, in M."""

    rows: tuple[str, str]
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.2f} to {self.high:.2f}M by {' and '.join(self.rows)}"


def spans() -> tuple[Span, Span, Span]:
    """Return the pointwise weights W that neighbouring rows of Table 6 leave.

    With g groups W becomes W/g and all else stays: rows of g and 2g groups differ by W/(2g).
    """
    names = ("DW+PW", "DW+GPW-g2", "DW+GPW-g4", "DW+GPW-g8")
    params = [float(next(row.params for row in DECOMPOSED if row.name == name)) for name in names]
    digit = 2 * PARAMS_OFF / 1e6
    pairs = []
    for n, factor in enumerate((2, 4, 8)):
        weights = (params[n] - params[n + 1]) * factor
        pairs.append(
            Span((names[n], names[n + 1]), weights - digit * factor, weights + digit * factor)
        )
    return pairs[0], pairs[1], pairs[2]


def judge_6(row: Decomposed, counted: Amounts) -> Verdict:
    """Return the verdict of a row of Table 6."""
    if agrees_with(row, counted):
        return Verdict(Outcome.MATCH, NAME)
    whole, grouped, _ = spans()
    if row.parsed is not None and "PW(" in row.block and whole.high < grouped.low:
        return Verdict(
            Outcome.MISPRINT,
            f"contradicts the row DW+PW: it leaves {whole.low:.2f} to {whole.high:.2f}M pointwise "
            f"weights, the rows with groups {grouped.low:.2f} to {grouped.high:.2f}M",
        )
    return Verdict(Outcome.NO_READING, f"{len(list(readings()))} readings")


@cache
def search_7() -> tuple[int, int, Amounts, tuple[str, ...]]:
    """Return how many readings of [IF] Table 7 were tried, how many fit, and the nearest.

    Every stage has its own block or keeps its convolutions; convolutions of stride 2 stay or not;
    batch norm, biases and activations inside the blocks or not.
    """
    row = rows_of(7)[1]
    layout = at_blocks(built(row.network, row.data), published_7())
    source = implementation(row.network, row.data)
    base = Amounts(parameters(layout, source), operations(layout, row.network, source, best_tool()))
    kernels = [conv for conv in convolutions(layout) if conv.layer.kernel == 3]
    widths = [stage.width // 4 for stage in layout.stages]
    first = [next(conv for conv in kernels if conv.layer.c_out == width) for width in widths]
    depths = [sum(conv.layer.c_out == width for conv in kernels) for width in widths]
    tried = fitting = 0
    best: tuple[float, Amounts, tuple[str, ...]] | None = None
    for norm, bias, strided in product(BESIDE, BESIDE, (True, False)):
        reading = BlockReading(norm, bias)
        added = {
            (n, block): difference(first[n], Block.parse(block), row.network, row.data, reading)
            for n in range(len(widths))
            for block in CHOICES
            if block is not None
        }
        for choice in product(CHOICES, repeat=len(widths)):
            total = base
            for n, block in enumerate(choice):
                if block is not None:
                    times = depths[n] - (n > 0 and not strided)
                    one = added[n, block]
                    total += Amounts(times * one.params, times * one.operations)
            tried += 1
            fitting += agrees_with(row, total)
            off = abs(total.params / (float(row.params) * 1e6) - 1) + abs(
                total.operations / (float(row.macs) * 1e6) - 1
            )
            if best is None or off < best[0]:
                best = off, total, tuple(block or "CONV(3)" for block in choice)
    assert best is not None
    return tried, fitting, best[1], best[2]


def published_7() -> tuple[int, ...]:
    """Return the layout of ResNet50-opt on ImageNet, that of [3DRF] Table 5."""
    row = next(row for row in COUNTED if (row.network, row.data) == ("resnet50", "ImageNet"))
    return layouts(row)[0]


def judge_7(row: Decomposed, counted: Amounts) -> Verdict:
    """Return the verdict of a row of [IF] Table 7."""
    if agrees_with(row, counted):
        return Verdict(Outcome.MATCH, NAME)
    tried, fitting, _, _ = search_7()
    return Verdict(
        Outcome.NO_READING,
        f"{tried:,} choices of a block for each stage, {fitting or 'none'} with both numbers",
    )


def rows_for(
    rows: Sequence[Decomposed], blocks: Sequence[int], reading: BlockReading
) -> list[tuple[Decomposed, Amounts]]:
    """Return the rows of a table with the counts of a layout."""
    layout = at_blocks(built(rows[0].network, rows[0].data), blocks)
    return [(row, amounts(row, layout, reading)) for row in rows]


def cells(row: Decomposed, counted: Amounts) -> tuple[object, ...]:
    """Return the printed and own numbers of a row."""
    return (
        row.name,
        row.params,
        f"{counted.params / 1e6:.3f}",
        f"{int(row.macs):,}",
        f"{counted.operations / 1e6:,.1f}",
    )


def kernel_section() -> Section:
    """Return the section of the page."""
    small, large = rows_of(6), rows_of(7)
    reading, tried = best_reading(), list(readings())
    table_6 = rows_for(small, table_6_layout(), reading)
    table_7 = rows_for(large, published_7(), reading)
    whole, two, four = spans()
    _, _, nearest, choice = search_7()
    verdicts = tuple(judge_6(*pair) for pair in table_6)
    columns = (
        "network",
        ">params printed, M",
        ">params ours",
        ">MACs printed, M",
        ">MACs ours",
    )
    number = len(all_blocks(5))
    return Section(
        "[3DRF] Table 6, [IF] Tables 6 and 7: decomposed networks",
        [
            f"Table 6 decomposes a VGG-16 of 9.64M parameters; Table 3 of the same paper prints "
            f"5.10M for VGG16-opt, with the same accuracy. Of {number:,} layouts "
            f"{len(base_layouts(small[0]))} has 9.64M and 370M: "
            f"{', '.join(map(braces, base_layouts(small[0])))}. Its rows are counted from it.",
            Judged(
                "[3DRF]",
                "Table 6: decomposed",
                columns,
                tuple(cells(*pair) for pair in table_6),
                verdicts,
            ),
            "No one network has all rows: with g groups its W pointwise weights become W/g and all "
            f"else stays. W is {whole}; {two}; {four}. The rows with groups agree with each other, "
            "and not with DW+PW. The rows of GPW and RPW differ by 0.01M at two groups, as biases "
            "in one of them would make them differ.",
            f"[IF] Table 7 decomposes {braces(published_7())}, as in Table 5. The nearest choice "
            f"of a block for each stage is {', '.join(choice)}: {nearest.params / 1e6:.2f}M and "
            f"{nearest.operations / 1e6:,.0f}M.",
            Judged(
                "[IF]",
                "Table 7: decomposed",
                columns,
                tuple(cells(*pair) for pair in table_7),
                tuple(judge_7(*pair) for pair in table_7),
            ),
        ],
        (
            Reading(
                NAME,
                "[3DRF] Table 6, [IF] Table 7",
                f"counted as under C; {reading}; of VGG-16 the layout {braces(table_6_layout())}, "
                f"among all with 1 to {DEEPEST} convolutions a stage",
                len(tried),
                f"{fits(reading)} of {len(small)} in Table 6; "
                f"{sum(v.outcome is Outcome.MISPRINT for v in verdicts)} contradict another row",
            ),
        ),
    )
