"""The networks that a training check compares: the original, reorganized, and then decomposed."""

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
# Images of this size fit all networks of the papers.
SIDE: Final = 32


@dataclass(frozen=True, slots=True)
class Version:
    """A network to train: its name, a description, and how it is built from a seed."""

    name: str
    description: str
    build: Callable[[int], nn.Module]


def layout_for(name: str, data: Data) -> tuple[Layout, NetworkStyle, Data]:
    """Return a network that classifies the data, its style, and the data as it takes them.

    `name`: "small", a plain network of stages of two 3x3 convolutions, 16, 32 and then 64 wide, on
    feature maps that halve from the size of the images down to 2 x 2 pixels; or a network of the
    papers, for which small images are enlarged to 32 x 32 pixels and grey ones repeated in three
    channels.

    Raises: SettingError for an unknown name, or images that do not fit the network.
    """
    if name.lower() == SMALL:
        channels, side, _ = data.shape
        fitted = data.enlarged(side, channels)  # raises for images that are not square
        ends = StemAndHead(inputs=channels, batch_norm=True, classifier=(data.classes,))
        sides = halved(side, max(1, side.bit_length() - 1))
        widths = [min(FIRST_WIDTH << index, LAST_WIDTH) for index in range(len(sides))]
        layout = make_layout("CONV", sides, widths, [SMALL_DEPTH] * len(sides), stem_and_head=ends)
        return layout, NetworkStyle(), fitted
    style = style_of(name)
    layout = named_network(name, SIDE, classes=data.classes, device="meta").layout
    return layout, style, data.enlarged(SIDE, layout.stem_and_head.inputs)


def versions(
    layout: Layout, style: NetworkStyle, block: Block | str = BLOCK, params: int | None = None
) -> tuple[Version, ...]:
    """Return the original network, the reorganized one, and that one decomposed.

    Reorganized: the depths where the organizer ends, or those of greatest gain within `params`.
    Decomposed: each 3x3 convolution that reads at least 16 channels is replaced by the block where
    the block fits. A version that changes nothing is left out.

    >>> from ifspace.stages.networks import network
    >>> [v.description for v in versions(network("vgg11", 32), style_of("vgg11"))]
    ['depths 1,1,2,2,2', 'depths 2,2,2,1,1', 'DW+RPW(2,1/2) for 7 of 8 convolutions']

    Raises: as `ifspace.models.reorganization` and `decompose` do.

    Reference: [3DRF] sections 4.1 and 4.2, Listing 1.
    """
    image = (layout.stem_and_head.inputs, layout.image, layout.image)

    def original(seed: int) -> nn.Module:
        return build_network(layout, style, seed=seed)

    def reorganized(seed: int) -> ReorganizedNetwork:
        return reorganize(original(seed), image, Budgets(params), seed=seed)

    def decomposed(seed: int) -> nn.Module:
        return decompose(reorganized(seed), image, blocks, seed=seed).model

    blocks = Blocks(block)
    compared = [Version(NAMES[0], _depths(layout), original)]
    first = reorganized(0)
    end = first.plan.end
    if end != layout:
        compared.append(Version(NAMES[1], _depths(end), lambda seed: reorganized(seed).model))
    plan = plan_decomposition(first, trace(first.model, image), blocks)
    if plan.replaced:
        total = len(plan.replaced) + len(plan.skipped)
        description = f"{block} for {len(plan.replaced)} of {total} convolutions"
        compared.append(Version(NAMES[2], description, decomposed))
    return tuple(compared)


def _depths(layout: Any) -> str:
    return f"depths {','.join(map(str, layout.depths))}"
