"""The networks that a training check compares: as it is, reorganized, and decomposed after that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from experiments.training.data import Data
from ifspace.block import Block
from ifspace.models.decomposition import (
    decompose,
    plan_decomposition,
)
from ifspace.models.reorganization import ReorganizedNetwork, reorganize
from ifspace.models.tracing import trace
from ifspace.nn.network import (
    NetworkStyle,
    build_network,
    named_network,
    style_of,
)
from ifspace.stages.layout import Layout, StemAndHead
from ifspace.stages.networks import (
    halved,
    make_layout,
)
from ifspace.stages.problem import Blocks, Budgets

NAMES: Final = ("original", "reorganized", "decomposed")
# [3DRF] Table 6 and [IF] Table 7 decompose with it.
BLOCK: Final = "DW+RPW(2,1/2)"
SMALL: Final = "small"
SMALL_DEPTH, FIRST_WIDTH, LAST_WIDTH = 2, 16, 64
# Of the papers' networks: that for which all of them are described.
SIDE: Final = 32


@dataclass(frozen=True, slots=True)
class Version:
    """A network to train: its name, what it is in words, and how it is built from a seed."""

    name: str
    said: str
    build: Callable[[int], nn.Module]


def layout_for(name: str, data: Data) -> tuple[Layout, NetworkStyle, Data]:
    """Return a network that classifies the data, its style, and the data as it takes them.

    `name`: "small", a plain network of stages of two 3x3 convolutions, 16, 32 and then 64 wide, on
    maps that halve from those of the images down to 2 x 2 pixels; or a network of the papers, for
    which small images are enlarged to 32 x 32 pixels and grey ones repeated in three channels.

    Raises: SettingError for an unknown name, or images that cannot be made to fit.
    """
    if name.lower() == SMALL:
        channels, side, _ = data.shape
        fitted = data.enlarged(side, channels)  # refuses images that are not square
        frame = StemAndHead(inputs=channels, batch_norm=True, classifier=(data.classes,))
        sides = halved(side, max(1, side.bit_length() - 1))
        widths = [min(FIRST_WIDTH << place, LAST_WIDTH) for place in range(len(sides))]
        layout = make_layout("CONV", sides, widths, [SMALL_DEPTH] * len(sides), stem_and_head=frame)
        return layout, NetworkStyle(), fitted
    style = style_of(name)
    made = named_network(name, SIDE, classes=data.classes, device="meta")
    return made.layout, style, data.enlarged(SIDE, made.layout.stem_and_head.inputs)


def versions(
    layout: Layout, style: NetworkStyle, block: Block | str = BLOCK, params: int | None = None
) -> tuple[Version, ...]:
    """Return the network as it is, reorganized, and with the convolutions of that replaced.

    Reorganized: where the organizer ends, or with `params` the depths of greatest gain that have no
    more. Decomposed: each 3x3 convolution that reads 16 channels or more becomes the block where it
    fits. A version that changes nothing is left out.

    >>> from ifspace.stages.networks import network
    >>> [each.said for each in versions(network("vgg11", 32), style_of("vgg11"))]
    ['depths 1,1,2,2,2', 'depths 2,2,2,1,1', 'DW+RPW(2,1/2) for 7 of 8 convolutions']

    Raises: as `ifspace.models.reorganization` and `decompose` do.

    Reference: [3DRF] sections 4.1 and 4.2, Listing 1.
    """
    first = in_words(layout)
    image = (layout.stem_and_head.inputs, layout.image, layout.image)

    def original(seed: int) -> nn.Module:
        return build_network(layout, style, seed=seed)

    def better(seed: int) -> ReorganizedNetwork:
        return reorganize(original(seed), image, Budgets(params), seed=seed)

    def final(seed: int) -> nn.Module:
        return decompose(better(seed), image, blocks, seed=seed).model

    blocks = Blocks(block)
    found = [Version(NAMES[0], first, original)]
    reorganized = better(0)
    end = reorganized.plan.end
    if end != layout:
        found.append(Version(NAMES[1], in_words(end), lambda seed: better(seed).model))
    plan = plan_decomposition(reorganized, trace(reorganized.model, image), blocks)
    if plan.replaced:
        of = len(plan.replaced) + len(plan.skipped)
        said = f"{block} for {len(plan.replaced)} of {of} convolutions"
        found.append(Version(NAMES[2], said, final))
    return tuple(found)


def in_words(layout: Any) -> str:
    """Return the depths of a network in words."""
    return f"depths {','.join(map(str, layout.depths))}"
