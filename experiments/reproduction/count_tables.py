"""Parameters and MACs of [3DRF] Tables 3 to 6 and [IF] Table 7: which networks have these counts.

Tools that count differ in batch norm, biases, the dense layers and in what operations they add to
the MACs of an element: a `Convention`. Of Tables 3 to 5 all depths within `REACH` of a state of the
organizer's trajectory are counted under every convention; a layout is a hit when both its counts
round to the printed ones. Decomposed networks are counted from layouts without building them: every
3x3 convolution that the block fits becomes the block.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import isclose
from typing import Any, Final

import numpy as np

from experiments.reproduction.page import (
    MATCH,
    Judged,
    Section,
    as_table,
    braces,
    signed,
)
from experiments.reproduction.printed import (
    COUNTED,
    DECOMPOSED,
    Counted,
    Decomposed,
)
from ifspace.block import Block, SizedBlock, SizedLayer
from ifspace.errors import BlockError
from ifspace.stages.layout import Layout
from ifspace.stages.networks import (
    mobilenet,
    resnet50,
    vgg,
)
from ifspace.stages.organizer import organize

CLASSES: Final = {"CIFAR-10": 10, "CIFAR-100": 100, "ImageNet": 1000}
# The most operations per element: batch norm 2, bias 1, activation 1.
MOST_PER_ELEMENT: Final = 4


@dataclass(frozen=True, slots=True)
class Convention:
    """What is counted: batch norm, biases, hidden dense layers, operations per output element.

    >>> str(Convention(True, False, (), 2)), str(Convention(False, True, (4096, 4096)))
    ('BN, +2', 'bias, dense')
    """

    batch_norm: bool
    bias: bool
    hidden: tuple[int, ...] = ()
    per_element: int = 0

    def __str__(self) -> str:
        names = ("BN", self.batch_norm), ("bias", self.bias), ("dense", bool(self.hidden))
        extra = f"+{self.per_element}" if self.per_element else ""
        return ", ".join(filter(None, [*(name for name, there in names if there), extra]))


@cache
def built(network: str, data: str, hidden: tuple[int, ...] | None = None) -> Layout:
    """Return a network for a data set, counted as its published implementation is.

    `hidden`: dense layers of VGG on CIFAR; where it is None CIFAR-100 has two of 4096, as in
    [3DRF] Table 4.
    """
    side = 224 if data == "ImageNet" else 32
    if network in ("resnet50", "mobilenet"):
        if network == "resnet50":
            return resnet50(side, CLASSES[data])
        # The printed layouts count the stem.
        return mobilenet(side, CLASSES[data], stem_counts=True)
    if hidden is None:
        hidden = (4096, 4096) if data == "CIFAR-100" else ()
    layout = vgg(network, side, CLASSES[data], hidden)
    # The implementations for CIFAR give their convolutions biases beside batch norm.
    return replace(layout, stem_and_head=replace(layout.stem_and_head, bias=True))


def conventions(network: str, data: str) -> Iterator[Convention]:
    """Yield all conventions, that of the published implementation first."""
    own = built(network, data).stem_and_head
    hidden = [own.classifier[:-1]]
    if network.startswith("vgg") and data != "ImageNet":
        hidden += [() if hidden[0] else (4096, 4096)]
    norms = [(own.batch_norm, own.bias)]
    every = [(norm, bias) for norm in (True, False) for bias in (True, False)]
    norms += [pair for pair in every if pair != norms[0]]
    yield from (
        Convention(*norm, h, e)
        for h in hidden
        for norm in norms
        for e in range(MOST_PER_ELEMENT + 1)
    )


def elements(layout: Layout) -> int:
    """Return how many output elements the layers with weights have, without the classifier.

    Batch norm costs two operations per element, a bias or an activation one.
    """
    total = sum(layer.layer.c_out * layer.side**2 for layer in layout.stem_and_head.stem)
    for stage in layout.stages:
        for index, block in enumerate(stage.blocks):
            side = stage.side_out if index else stage.side_strided
            for layer in block.layers:
                side = stage.side_out if layer.kernel > 1 else side
                total += layer.c_out * side**2 if layer.params else 0
        if layout.stem_and_head.projections:
            total += stage.width * stage.side_out**2
    return total


def usual(layout: Layout, per_element: int = 0) -> Convention:
    """Return the convention of a layout itself."""
    ends = layout.stem_and_head
    return Convention(ends.batch_norm, ends.bias, ends.classifier[:-1], per_element)


def under(layout: Layout, convention: Convention) -> Layout:
    """Return a layout counted under a convention."""
    ends = replace(
        layout.stem_and_head,
        batch_norm=convention.batch_norm,
        bias=convention.bias,
        classifier=(*convention.hidden, layout.stem_and_head.classifier[-1]),
    )
    return replace(layout, stem_and_head=ends)


def counts(layout: Layout, depths: Any, per_element: int) -> tuple[Any, Any]:
    """Return parameters and operations at many depths, both [layouts]."""

    def amounts_of(sized: Layout) -> Any:
        return np.array([sized.params, sized.macs + per_element * elements(sized)])

    amounts = linear(amounts_of, layout, depths)
    return amounts[:, 0], amounts[:, 1]


def linear(amounts_of: Callable[[Layout], Any], layout: Layout, depths: Any) -> Any:
    """Return some amounts of a layout at many depths, [layouts, amounts].

    `amounts_of` counts them for one layout, [amounts]. They are linear in the depths: one more
    block of a stage adds the same at every depth.
    """
    least = [stage.min_depth for stage in layout.stages]
    base = amounts_of(layout.at_depths(least))
    more = [
        amounts_of(layout.at_depths([low + (index == n) for index, low in enumerate(least)])) - base
        for n in range(len(least))
    ]
    return base + (depths - np.array(least)) @ np.array(more)


REACH: Final = 3
# Half of the last digit printed: parameters to 0.01M, MACs to 10M.
PARAMS_OFF: Final = 5_000
MACS_OFF: Final = 5_000_000
ROLES: Final = ("", "-opt")
# Why rows without a hit differ, by name and data set; the tests check the numbers.
REMARKS: Final = {
    "vgg16-opt ImageNet": "rounded to 100M it is the printed 16,900.",
    "vgg19 ImageNet": "2 operations an element give 19,662, 3 give 19,677; 19,670 is neither.",
    "mobilenet-opt ImageNet": "the parameters are those of the trajectory's end. MACs as if "
    "exchanged with the row above: without additions they are 579 here and 569 there.",
}


@dataclass(frozen=True, slots=True)
class Hit:
    """Depths under a convention, their counts, and the distance to the nearest state."""

    depths: tuple[int, ...]
    convention: Convention
    params: int
    macs: int
    distance: int
    usual: bool

    def order(self) -> tuple[object, ...]:
        """Return the sort key among layouts with the same counts."""
        return self.distance, not self.usual, self.convention.per_element, self.depths


def neighbours(states: Sequence[tuple[int, ...]], least: Sequence[int]) -> Any:
    """Return all depths within `REACH` per stage of a state, [layouts, stages].

    >>> len(neighbours([(4, 5)], (1, 3))), len(neighbours([(2, 3)], (1, 3)))
    (42, 20)
    """
    boxes = [
        [
            range(max(low, depth - REACH), depth + REACH + 1)
            for depth, low in zip(state, least, strict=True)
        ]
        for state in states
    ]
    return np.array(sorted({depths for box in boxes for depths in product(*box)}))


@dataclass(frozen=True, slots=True)
class Search:
    """Layouts with the printed counts, best first; the nearest state; the nearest layout.

    States of the trajectory come first, then layouts near them, then the convention of the
    implementation. The nearest state is counted under that convention.
    """

    row: Counted
    which: int
    states: tuple[tuple[int, ...], ...]
    hits: tuple[Hit, ...]
    nearest_state: Hit
    nearest: Hit

    @property
    def name(self) -> str:
        """Network, role and data set."""
        return f"{self.row.network}{ROLES[self.which]} {self.row.data}"

    @property
    def printed(self) -> tuple[float, float]:
        """Parameters and MACs."""
        return float(self.row.params[self.which]) * 1e6, float(self.row.macs[self.which]) * 1e6

    @property
    def best(self) -> Hit:
        """The best hit, or the nearest state."""
        return self.hits[0] if self.hits else self.nearest_state


@cache
def search(row: Counted, which: int) -> Search:
    """Return which layouts have the printed counts.

    `which`: 0 for the network itself, whose depths are known, 1 for the reorganized one.
    """
    layout = built(row.network, row.data)
    states = [layout.depths]
    if which:
        states += [move.depths for move in organize(layout.at_written_sides()).moves]
    least = [stage.min_depth for stage in layout.stages]
    depths = neighbours(states, least) if which else np.array(states)
    distance = np.abs(depths[:, None] - np.array(states)).sum(2).min(1)
    params, macs = float(row.params[which]) * 1e6, float(row.macs[which]) * 1e6
    scored_hits: list[tuple[float, Hit]] = []
    for convention in conventions(row.network, row.data):
        weights, operations = counts(under(layout, convention), depths, convention.per_element)
        off = misses(weights, params, PARAMS_OFF) + misses(operations, macs, MACS_OFF)
        at_states = np.where(distance == 0, off, np.inf)
        columns = {*np.flatnonzero(off == 0), int(np.argmin(off)), int(np.argmin(at_states))}
        common = convention == usual(layout, convention.per_element)
        scored_hits += [
            (
                float(off[n]),
                Hit(
                    tuple(map(int, depths[n])),
                    convention,
                    int(weights[n]),
                    int(operations[n]),
                    int(distance[n]),
                    common,
                ),
            )
            for n in columns
        ]
    hits = sorted((hit for off, hit in scored_hits if off == 0), key=Hit.order)
    by_miss = sorted(scored_hits, key=lambda pair: (pair[0], pair[1].order()))
    best_usual = next(hit for _, hit in by_miss if hit.usual and hit.distance == 0)
    return Search(row, which, tuple(states), tuple(hits), best_usual, by_miss[0][1])


def misses(ours: Any, printed: float, half: int) -> Any:
    """Return how far numbers are from rounding to the printed one, in halves of its last digit.

    >>> misses(np.array([14_728_266, 14_700_000]), 14.73e6, 5_000)
    array([0., 5.])
    """
    return np.maximum(0, np.abs(ours - printed) - half) / half


def judge_counts(result: Search) -> str:
    """Return whether a layout has the printed counts, or by how much the nearest state is off."""
    if result.hits:
        return MATCH if result.best.depths in result.states else f"{MATCH}, off the trajectory"
    best = result.best
    params, macs = (
        own - goal for own, goal in zip((best.params, best.macs), result.printed, strict=True)
    )
    off = [f"params {signed(params / 1e6)}M"] if abs(params) > PARAMS_OFF else []
    off += [f"MACs {signed(macs / 1e6, 0)}M"] if abs(macs) > MACS_OFF else []
    return "; ".join(off)


def state_text(result: Search) -> str:
    """Return the number of the best layout's state on the trajectory, from 0, or its distance."""
    best = result.best
    if best.depths in result.states:
        return str(result.states.index(best.depths)) if result.which else "start"
    return f"none, {best.distance} off"


def counts_section() -> Section:
    """Return the section of the page."""
    results = [search(row, which) for row in COUNTED for which in (0, 1)]
    rows = [
        [
            result.row.network + ROLES[result.which],
            result.row.data,
            braces(result.best.depths),
            state_text(result),
            f"{result.row.params[result.which]} / {result.best.params / 1e6:.2f}",
            f"{int(result.row.macs[result.which]):,} / {result.best.macs / 1e6:,.1f}",
            str(result.best.convention),
            judge_counts(result),
        ]
        for result in results
    ]
    fits = by_operations(results)
    header = ["network", "data", "layout", "state", "params, M", "MACs, M", "counted", "verdict"]
    return Section(
        "[3DRF] Tables 3 to 5: parameters and MACs",
        [
            "Printed / ours. A row matches when parameters agree to 0.01M and MACs to 10M. "
            "*Layout*: MobileNet's first stage counts the stem. *State*: its number on the "
            "organizer's trajectory; of a layout off it, the least Σ of depth differences to a "
            "state. *Counted*: BN, batch norm; bias, biases of convolutions; dense, two hidden "
            "layers of 4096; +e, e operations for each element that a layer with weights writes "
            "(batch norm 2, bias 1, activation 1: tools that count operations add them to the "
            "MACs).",
            Judged(as_table(header, rows), 2),
            "Of the rows that do not fit:",
            "\n".join(f"- {name}: {text}" for name, text in REMARKS.items()),
            "The choice of e for each row is a freedom. With one e for all rows and the convention "
            "of each public implementation (VGG on CIFAR: BN, bias; on ImageNet: bias; the others: "
            "BN) so many of the layouts above fit:",
            as_table(["e", "rows"], [[e, f"{fit} of {len(results)}"] for e, fit in fits]),
            f"Searched: all depths within ±{REACH} per stage of every state of the trajectory; "
            "batch norm or not; bias or not; e from 0 to "
            f"{MOST_PER_ELEMENT}; for VGG on CIFAR one dense layer or three. A state with the "
            "printed counts comes before any other layout, then the convention of the public "
            "implementation. The others that fit under some convention, nearest first:",
            as_table(["network", "others", "which"], others(results)),
            "Without a fit, the layout that comes nearest under any convention:",
            as_table(
                ["network", "layout", "params, M", "MACs, M", "counted"], nearest_layouts(results)
            ),
        ],
        ("[3DRF] Tables 3 to 5: counts",),
        f"The counts of [3DRF] match with a convention chosen for each row; with one for all "
        f"{max(fit for _, fit in fits)} of {len(results)} would.",
    )


def by_operations(results: Sequence[Search]) -> list[tuple[int, int]]:
    """Return for each e how many rows match under the convention of the implementation with it."""
    rows: list[tuple[int, int]] = []
    for extra in range(MOST_PER_ELEMENT + 1):
        fits = []
        for result in results:
            layout = built(result.row.network, result.row.data)
            own, operations = counts(
                under(layout, usual(layout)), np.array([result.best.depths]), extra
            )
            params, macs = result.printed
            off = misses(own, params, PARAMS_OFF) + misses(operations, macs, MACS_OFF)
            fits.append(not off[0])
        rows.append((extra, sum(fits)))
    return rows


def others(results: Sequence[Search], most: int = 8) -> list[list[object]]:
    """Return for each row the other layouts that have the printed counts."""
    rows: list[list[object]] = []
    for result in results:
        more = list(dict.fromkeys(hit.depths for hit in result.hits))[1:]
        if more:
            shown = " ".join(map(braces, more[:most])) + (" …" if len(more) > most else "")
            rows.append([result.name, len(more), shown])
    return rows


def nearest_layouts(results: Sequence[Search]) -> list[list[object]]:
    """Return the nearest layout of each row without a hit."""
    return [
        [
            result.name,
            braces(result.nearest.depths),
            f"{result.nearest.params / 1e6:.3f}",
            f"{result.nearest.macs / 1e6:,.1f}",
            str(result.nearest.convention),
        ]
        for result in results
        if not result.hits
    ]


# Which convolutions are kept: none, the one that reads the image, or also those of stride 2.
KEPT: Final = ("none", "first", "strided")
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """How a decomposed network is counted.

    `kept`: see `KEPT`. `inside`: whether also the layers before the last of a block have batch norm
    and biases.
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

    def replaced(sized: SizedBlock, index: int, stride: int) -> SizedBlock:
        reads_image = (
            index == 0 and not layout.stem_and_head.stem and sized is layout.stages[0].first
        )
        stays = (kept != "none" and reads_image) or (kept == "strided" and stride > 1)
        return sized if stays else _convolutions_replaced(sized, block)

    return replace(
        layout,
        stages=tuple(
            replace(
                stage,
                first=replaced(stage.first, index, stage.stride),
                repeated=replaced(stage.repeated, 1, 1),
            )
            for index, stage in enumerate(layout.stages)
        ),
    )


def _convolutions_replaced(sized: SizedBlock, block: Block) -> SizedBlock:
    chain: list[SizedLayer] = []
    for layer in sized.layers:
        if not layer.conv.reference_only or layer.kernel != 3:
            chain.append(layer)
            continue
        try:
            chain += block.at(layer.c_in, layer.c_out, dims=layer.dims).layers
        except BlockError:
            chain.append(layer)  # its group counts do not divide the widths
    widths = tuple(layer.c_out for layer in chain if layer.conv.mixing)[:-1]
    whole = Block(tuple(layer.layer for layer in chain))
    return whole.at(sized.channels, sized.out_channels, dims=sized.dims, widths=widths or None)


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
    """Return the output channels of all layers with weights in the stages, summed."""
    return sum(
        layer.c_out
        for stage in layout.stages
        for block in stage.blocks
        for layer in block.layers
        if layer.params
    )


def readings(hidden: tuple[int, ...] = (), kept: Sequence[str] = KEPT) -> Iterator[Reading]:
    """Yield all ways of counting."""
    flags = (True, False)
    for norm, bias, inside, stay, extra in product(flags, flags, flags, kept, range(5)):
        if inside or norm or bias:
            yield Reading(Convention(norm, bias, hidden, extra), stay, inside)


@cache
def start_of(network: str, data: str) -> Search:
    """Return which layouts have the counts of the network that a table decomposes."""
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
    """Return the rows of a table: printed numbers beside those of a layout."""
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
    """Return why no single network has all rows of Table 6, from the printed numbers alone."""
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
    """Return the layouts near the trajectory that have all counts of the rows with groups.

    The value is the first way of counting under which they do.
    """
    layout = built("vgg16", "CIFAR-10")
    states = [layout.depths, *(move.depths for move in organize(layout.at_written_sides()).moves)]
    depths = neighbours(states, [stage.min_depth for stage in layout.stages])
    grouped_rows = [row for row in DECOMPOSED if row.name.startswith("DW+GPW")]
    readings_of: dict[tuple[int, ...], Reading] = {}
    for reading in readings(kept=KEPT[:2]):
        off: Any = np.zeros(len(depths))
        for row in grouped_rows:

            def counts_of(sized: Layout, block: Block | None = row.parsed) -> Any:
                return np.array(count(sized, block, reading))  # noqa: B023 - called at once

            counted = linear(counts_of, layout, depths)
            off += misses(counted[:, 0], float(row.params) * 1e6, PARAMS_OFF)
            off += misses(counted[:, 1], float(row.macs) * 1e6, MACS_OFF)
        for index in np.flatnonzero(off == 0):
            readings_of.setdefault(tuple(map(int, depths[index])), reading)
    return readings_of


def nearest_grouped() -> list[list[object]]:
    """Return some layouts of `grouped`, with the counts that the other rows would have."""
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
    """Return a sentence: how near any way of counting comes to a row, and whether one matches."""
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
