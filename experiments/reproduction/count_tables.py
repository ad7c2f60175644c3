"""Parameters and MACs of [3DRF] Tables 3 to 5: of which layouts they are, and which tool counts so.

The papers count public implementations with a tool. Both are known: the implementations are named
in footnotes, and of a tool only its rules matter. An `Implementation` says what stands beside the
weights, a `Tool` what is counted of it. One tool is chosen for all rows. The tables print no layout
of the reorganized networks, so that all with 1 to `DEEPEST` blocks a stage are counted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np

from experiments.reproduction.page import (
    Judged,
    Outcome,
    Reading,
    Section,
    Verdict,
    braces,
)
from experiments.reproduction.printed import COUNTED, DEPTHS, Counted
from ifspace.block import Block, SizedLayer
from ifspace.stages.layout import Layout
from ifspace.stages.networks import mobilenet, resnet50, vgg
from ifspace.table import Table

NAME: Final = "C"
CLASSES: Final = {"CIFAR-10": 10, "CIFAR-100": 100, "ImageNet": 1000}
ROLES: Final = ("", "-opt")
DEEPEST: Final = 14
# Half of the last digit printed: parameters to 0.01M, MACs to 10M.
PARAMS_OFF: Final = 5_000
MACS_OFF: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class Implementation:
    """What a public implementation has beside its weights, as far as a tool can see it.

    `bias`: which convolutions have biases; `relu`: behind which the activation is a module, for a
    function that is called is seen by no tool. `inside`: those that do not end a residual block.
    `max_pool`, `mean_pool`: whether pooling is by modules. `hidden`: hidden dense layers.
    """

    source: str
    batch_norm: bool = True
    bias: str = "none"
    relu: str = "none"
    max_pool: bool = False
    mean_pool: bool = False
    hidden: tuple[int, ...] = ()


_CIFAR_10: Final = "kuangliu/pytorch-cifar"
_CIFAR_100: Final = "weiaicunzai/pytorch-cifar100"
_IMAGENET: Final = "torchvision"
IMPLEMENTATIONS: Final = {
    ("vgg", "CIFAR-10"): Implementation(_CIFAR_10, True, "all", "all", True, True),
    ("mobilenet", "CIFAR-10"): Implementation(_CIFAR_10),
    ("resnet50", "CIFAR-10"): Implementation(_CIFAR_10),
    ("vgg", "CIFAR-100"): Implementation(_CIFAR_100, True, "all", "all", True, False, (4096, 4096)),
    ("mobilenet", "CIFAR-100"): Implementation(_CIFAR_100, True, "1x1", "all", mean_pool=True),
    ("resnet50", "CIFAR-100"): Implementation(_CIFAR_100, relu="inside", mean_pool=True),
    ("vgg", "ImageNet"): Implementation(_IMAGENET, False, "all", "all", True, True, (4096, 4096)),
    ("mobilenet", "ImageNet"): Implementation("none is named", relu="all", mean_pool=True),
    ("resnet50", "ImageNet"): Implementation(_IMAGENET, relu="all", max_pool=True, mean_pool=True),
}


@dataclass(frozen=True, slots=True)
class Tool:
    """How many operations are counted beside the multiply-accumulates of the convolutions.

    For each element that a convolution with a bias, a batch norm or an activation writes, each
    element that a pooling reads; for each weight and each output of a dense layer.
    """

    name: str
    bias: int = 0
    batch_norm: int = 0
    relu: int = 0
    pool: int = 0
    dense: int = 1
    dense_output: int = 0


TOOLS: Final = (
    Tool("multiply-accumulates alone"),
    Tool("pytorch-OpCounter: biases, 2 for batch norm", bias=1, batch_norm=2),
    Tool(
        "pytorch-OpCounter, first version: biases, 4 for batch norm, activations, pooling, "
        "additions of dense layers",
        *(1, 4, 1, 1, 2, -1),
    ),
    Tool("ptflops: biases, 2 for batch norm, activations, pooling", 1, 2, 1, 1, 1, 1),
    Tool("biases alone", bias=1),
    Tool("batch norm alone", batch_norm=2),
    Tool("batch norm and activations", batch_norm=2, relu=1),
    Tool("biases and activations", bias=1, relu=1),
)
PLAIN: Final = TOOLS[0]


def implementation(network: str, data: str) -> Implementation:
    """Return the implementation of a network for a data set."""
    return IMPLEMENTATIONS["vgg" if network.startswith("vgg") else network, data]


@cache
def built(network: str, data: str) -> Layout:
    """Return a network for a data set with its published depths, nothing beside the weights."""
    side = 224 if data == "ImageNet" else 32
    classes, hidden = CLASSES[data], implementation(network, data).hidden
    if network == "resnet50":
        layout = resnet50(side, classes)
    elif network == "mobilenet":
        layout = mobilenet(side, classes)
    else:
        layout = vgg(network, side, classes, hidden)
    return replace(
        layout, stem_and_head=replace(layout.stem_and_head, batch_norm=False, bias=False)
    )


def stem_depth(layout: Layout) -> int:
    """Return how many layers of the stem the depth of the first stage counts."""
    return len(layout.stem_and_head.counted_stem)


def blocks_of(layout: Layout) -> tuple[int, ...]:
    """Return the blocks of each stage, without the stem."""
    first, *rest = layout.depths
    return (first - stem_depth(layout), *rest)


def at_blocks(layout: Layout, blocks: Sequence[int]) -> Layout:
    """Return a layout with other numbers of blocks."""
    first, *rest = map(int, blocks)
    return layout.at_depths((first + stem_depth(layout), *rest))


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of a network and the side of what it writes.

    `place`: `stem`, `inside` a block, its `last`, or a `projection`.
    """

    layer: SizedLayer
    side: int
    place: str

    @property
    def elements(self) -> int:
        """Elements that it writes."""
        return self.layer.c_out * self.side**2


def convolutions(layout: Layout) -> Iterator[Convolution]:
    """Yield the convolutions of a layout with the sides that they write."""
    ends = layout.stem_and_head
    for stem in ends.stem:
        yield Convolution(stem.layer, stem.side, "stem")
    for stage in layout.stages:
        for block, stride in stage.strided_blocks:
            side = stage.side_out * stride
            last = len(block.layers) - 1
            for index, layer in enumerate(block.layers):
                side = stage.side_out if layer.kernel > 1 else side
                if layer.params:
                    yield Convolution(layer, side, "last" if index == last else "inside")
        if ends.projections:
            first = stage.first
            yield Convolution(
                Block.parse("PW").at(first.channels, first.out_channels).layers[0],
                stage.side_out,
                "projection",
            )


def has_bias(convolution: Convolution, bias: str) -> bool:
    """Return whether a convolution of an implementation has biases."""
    return bias == "all" or (bias == "1x1" and convolution.layer.kernel == 1)


def has_relu(convolution: Convolution, relu: str) -> bool:
    """Return whether an activation module follows a convolution of an implementation."""
    if relu == "none" or convolution.place == "projection":
        return False
    return relu == "all" or convolution.place != "last"


def pooled_elements(layout: Layout, network: str, source: Implementation) -> int:
    """Return how many elements the pooling modules read."""
    last = layout.stages[-1]
    pixels = layout.stem_and_head.pixels if network.startswith("vgg") else last.side_out**2
    mean = source.mean_pool * last.width * pixels
    if not source.max_pool:
        return mean
    if network.startswith("vgg"):
        return mean + sum(stage.width * stage.side_out**2 for stage in layout.stages)
    stem = layout.stem_and_head.stem[-1]
    return mean + stem.layer.c_out * stem.side**2


def parameters(layout: Layout, source: Implementation) -> int:
    """Return the parameters of an implementation at the depths of a layout."""
    return layout.params + sum(
        (2 * source.batch_norm + has_bias(conv, source.bias)) * conv.layer.c_out
        for conv in convolutions(layout)
    )


def operations(layout: Layout, network: str, source: Implementation, tool: Tool) -> int:
    """Return what a tool counts of an implementation at the depths of a layout."""
    dense = (layout.widths[-1] * layout.stem_and_head.pixels, *layout.stem_and_head.classifier)
    weights, outputs = sum(a * b for a, b in pairwise(dense)), sum(dense[1:])
    beside = sum(
        (
            tool.batch_norm * source.batch_norm
            + tool.bias * has_bias(conv, source.bias)
            + tool.relu * has_relu(conv, source.relu)
        )
        * conv.elements
        for conv in convolutions(layout)
    )
    return (
        layout.macs
        + (tool.dense - 1) * weights
        + tool.dense_output * outputs
        + tool.relu * sum(source.hidden)
        + tool.pool * pooled_elements(layout, network, source)
        + beside
    )


def linear(amount_of: Callable[[Layout], int], layout: Layout, depths: Any) -> Any:
    """Return an amount of a layout at many depths, [layouts].

    It is linear in the depths: one more block of a stage adds the same at every depth.
    """
    least = [stage.min_depth for stage in layout.stages]
    base = amount_of(layout.at_depths(least))
    more = [
        amount_of(layout.at_depths([low + (index == n) for index, low in enumerate(least)])) - base
        for n in range(len(least))
    ]
    return base + (depths - np.array(least)) @ np.array(more)


@cache
def all_blocks(stages: int) -> Any:
    """Return every choice of 1 to `DEEPEST` blocks for each stage, [layouts, stages].

    >>> all_blocks(2).shape, all_blocks(2)[-1].tolist()
    ((196, 2), [14, 14])
    """
    axes = np.meshgrid(*[np.arange(1, DEEPEST + 1)] * stages, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)


@dataclass(frozen=True, slots=True)
class Counts:
    """All layouts with the printed parameters of a row, and their counts.

    `blocks`: [layouts, stages]; `params`: [layouts]; `operations`: [layouts] for each tool.
    """

    blocks: Any
    params: Any
    operations: dict[Tool, Any]

    def fitting(self, macs: float, tool: Tool) -> list[tuple[int, ...]]:
        """Return the layouts that have the printed MACs too, under a tool."""
        near = np.abs(self.operations[tool] - macs) <= MACS_OFF
        return [tuple(map(int, row)) for row in self.blocks[near]]


@cache
def counts(row: Counted, which: int) -> Counts:
    """Return the layouts with the printed parameters of a row.

    `which`: 0 for the network itself, whose depths are known, 1 for the reorganized one.
    """
    layout, source = built(row.network, row.data), implementation(row.network, row.data)
    blocks = all_blocks(len(layout.stages)) if which else np.array([blocks_of(layout)])

    def params_of(sized: Layout) -> int:
        return parameters(sized, source)

    params = linear(params_of, layout, blocks)
    near = np.abs(params - float(row.params[which]) * 1e6) <= PARAMS_OFF
    blocks, params = blocks[near], params[near]
    by_tool = {}
    for tool in TOOLS:

        def operations_of(sized: Layout, tool: Tool = tool) -> int:
            return operations(sized, row.network, source, tool)

        by_tool[tool] = linear(operations_of, layout, blocks)
    return Counts(blocks, params, by_tool)


@cache
def fits(tool: Tool) -> int:
    """Return how many rows have a layout with both printed counts under a tool."""
    return sum(
        bool(counts(row, which).fitting(float(row.macs[which]) * 1e6, tool))
        for row in COUNTED
        for which in (0, 1)
    )


@cache
def best_tool() -> Tool:
    """Return the tool that explains most rows."""
    return max(TOOLS, key=fits)


@cache
def layouts(row: Counted) -> tuple[tuple[int, ...], ...]:
    """Return the layouts with both printed counts of a reorganized network, the likeliest first.

    First the one that the text names, then those that have the counts printed for the other data
    set of these images too, then those with as many blocks as the network had, since the organizer
    moves blocks, then those nearest to it.
    """
    start = blocks_of(built(row.network, row.data))
    others = [
        set(_fitting(other))
        for other in COUNTED
        if other.network == row.network and (other.data == "ImageNet") == (row.data == "ImageNet")
    ]

    def order(blocks: tuple[int, ...]) -> tuple[object, ...]:
        distance = sum(abs(a - b) for a, b in zip(blocks, start, strict=True))
        named = row.data != "ImageNet" and blocks == DEPTHS.get(row.network)
        shared = all(blocks in other for other in others)
        return not named, not shared, sum(blocks) != sum(start), distance, blocks

    return tuple(sorted(_fitting(row), key=order))


def _fitting(row: Counted) -> list[tuple[int, ...]]:
    return counts(row, 1).fitting(float(row.macs[1]) * 1e6, best_tool())


def published(row: Counted) -> tuple[int, ...] | None:
    """Return the layout of a reorganized network: with both counts, or the nearest in MACs."""
    fitting = layouts(row)
    if fitting:
        return fitting[0]
    result = counts(row, 1)
    if not len(result.blocks):
        return None
    off = np.abs(result.operations[best_tool()] - float(row.macs[1]) * 1e6)
    return tuple(map(int, result.blocks[int(np.argmin(off))]))


def judge(row: Counted, which: int) -> Verdict:
    """Return the verdict of a row: under the chosen tool, or why none can have both numbers."""
    result, tool = counts(row, which), best_tool()
    macs = float(row.macs[which]) * 1e6
    if result.fitting(macs, tool):
        return Verdict(Outcome.MATCH, NAME)
    number = len(all_blocks(len(built(row.network, row.data).stages))) if which else 1
    if len(result.blocks) and (least := result.operations[PLAIN].min()) > macs + MACS_OFF:
        return Verdict(
            Outcome.MISPRINT,
            f"of {number:,} layouts {len(result.blocks)} have {row.params[which]}M parameters, and "
            f"none of these has fewer than {least / 1e6:,.1f}M multiply-accumulates",
        )
    return Verdict(Outcome.NO_READING, f"{len(TOOLS)} tools, {number:,} layouts")


def implementations_table() -> Table:
    """Return what each implementation has beside its weights."""
    return Table(
        ("network", "data", "source", "batch norm", "biases", "activations", "pooling", "dense"),
        tuple(
            (
                network,
                data,
                entry.source,
                "yes" if entry.batch_norm else "no",
                entry.bias,
                entry.relu,
                " and ".join(
                    name
                    for name, there in (("max", entry.max_pool), ("mean", entry.mean_pool))
                    if there
                )
                or "none",
                " ".join(map(str, (*entry.hidden, CLASSES[data]))),
            )
            for (network, data), entry in IMPLEMENTATIONS.items()
        ),
    )


def counts_section() -> Section:
    """Return the section of the page."""
    rows, verdicts = [], []
    for row in COUNTED:
        for which in (0, 1):
            result, tool = counts(row, which), best_tool()
            blocks = published(row) if which else blocks_of(built(row.network, row.data))
            others = len(layouts(row)) - 1 if which and layouts(row) else None
            cells: list[object] = [None, None]
            if blocks is not None and len(result.blocks):
                index = int(np.flatnonzero((result.blocks == np.array(blocks)).all(axis=1))[0])
                cells = [
                    f"{result.params[index] / 1e6:.2f}",
                    f"{result.operations[tool][index] / 1e6:,.1f}",
                ]
            rows.append(
                (
                    row.network + ROLES[which],
                    row.data,
                    braces(blocks or ()),
                    others,
                    row.params[which],
                    cells[0],
                    f"{int(row.macs[which]):,}",
                    cells[1],
                )
            )
            verdicts.append(judge(row, which))
    header = (
        "network",
        "data",
        "blocks",
        ">others",
        ">params printed, M",
        ">params ours",
        ">MACs printed, M",
        ">MACs ours",
    )
    ranked = sorted(TOOLS, key=fits, reverse=True)
    return Section(
        "[3DRF] Tables 3 to 5, [IF] Tables 3 to 5: parameters and MACs",
        [
            "Both papers print the same counts; they are judged once. *Blocks*: of a reorganized "
            f"network, the layout that has both counts among all with 1 to {DEEPEST} blocks a "
            "stage; *others*: how many more have them. Where there are others the layout named in "
            "the text is shown, else one that has the counts of both CIFAR tables. The papers name "
            f"pytorch-OpCounter; most rows are explained by {best_tool().name}.",
            Judged("[3DRF]", "Tables 3 to 5: counts", header, tuple(rows), tuple(verdicts)),
            "Rows that fit under each way of counting, for the same implementations:",
            Table(
                ("counted", ">rows of 24"),
                tuple((tool.name, fits(tool)) for tool in ranked),
            ),
            "The implementations, and what a tool sees of them beside weights. An activation or a "
            "pooling that is a function, not a module, is seen by none.",
            implementations_table(),
        ],
        (
            Reading(
                NAME,
                "[3DRF] Tables 3 to 5: counts",
                "the public implementation that the paper names for the data set, counted by "
                + best_tool().name,
                len(TOOLS),
                f"{fits(best_tool())} of 24, next {fits(ranked[1])}",
            ),
        ),
    )
