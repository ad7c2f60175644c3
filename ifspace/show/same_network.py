"""The shortest way to write the network of a block that rewriting finds."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice, product
from typing import Any, Final

from ifspace.block import Block, Layer, SizedBlock
from ifspace.canonical import same_network
from ifspace.errors import BlockError
from ifspace.kinds import KINDS, alphabet

# Wider blocks, and those with more ways to try, would take seconds.
MOST_CHANNELS: Final = 512
MOST_WAYS: Final = 2000


def shortest_way(sized: SizedBlock) -> Block | None:
    """Return the block of the same network with the fewest layers, if it is another one.

    Tried are the blocks with the same convolutions in which GPW(g) and RPW(g,0) stand for each
    other and there are fewer shuffles, with any group counts, at most one between two convolutions
    that mix channels; and those with the shuffles as they are. Each is compared by its canonical
    class, so that the answer is exact; a shorter way outside this family is not found. Of equal
    length the first by the fewest layers of RPW, then in canonical order. None for blocks wider
    than MOST_CHANNELS, or with more than MOST_WAYS ways to try.

    >>> str(shortest_way(Block.parse("GPW(4)+SH(4)+DW+GPW(4)").at(16)))
    'RPW(4,0)+DW+GPW(4)'
    >>> shortest_way(Block.parse("DW+PW").at(16)) is None
    True
    """
    if sized.channels > MOST_CHANNELS:
        return None
    own = sized.block
    shuffles = sum(not layer.conv.writes for layer in own.layers)
    for count in range(shuffles + 1):
        every = _ways(sized, count if count < shuffles else None)
        ways = list(islice(every, MOST_WAYS + 1))
        if len(ways) > MOST_WAYS:
            return None
        for block in sorted(ways, key=_key):
            if block == own:
                return None
            try:
                other = block.at(sized.channels, sized.out_channels, sized.bottleneck, sized.dims)
            except BlockError:
                continue  # groups that do not divide a width inside
            if same_network(sized, other):
                return block
    return None


def _key(block: Block) -> tuple[Any, ...]:
    return sum(layer.conv.takes_overlap for layer in block.layers), block.sort_key


def _ways(sized: SizedBlock, count: int | None) -> Iterator[Block]:
    """Yield the blocks to try with a number of shuffles; None: with the block's own."""
    layers = sized.block.layers
    if count is None:
        for chosen in product(*map(_alike, layers)):
            yield replace(sized.block, layers=chosen)
        return
    convolutions = [layer for layer in layers if layer.conv.writes]
    mixing = [index for index, layer in enumerate(convolutions) if layer.conv.mixing]
    shuffle = next(kind for kind, row in KINDS.items() if not row.writes)
    widths = {layer.c_in for layer in sized.layers}
    groups = sorted({g for c in widths for g in range(2, c) if c % g == 0})
    # Behind the last of them a shuffle matters only if another copy follows.
    places = mixing if sized.block.repeats > 1 else mixing[:-1]
    for chosen in product(*map(_alike, convolutions)):
        for behind in combinations(places, count):
            for counts in product(groups, repeat=count):
                inserted = dict(zip(behind, counts, strict=True))
                written: list[Layer] = []
                for index, layer in enumerate(chosen):
                    written.append(layer)
                    if index in inserted:
                        written.append(Layer(shuffle, inserted[index]))
                yield replace(sized.block, layers=tuple(written))


def _alike(layer: Layer) -> tuple[Layer, ...]:
    """Return a layer without overlap in each kind with such groups, any other layer alone."""
    if not (layer.conv.mixing and layer.conv.takes_groups) or layer.overlap:
        return (layer,)
    kinds = (
        symbol
        for symbol in alphabet()
        if KINDS[symbol].takes_groups
        and KINDS[symbol].mixing
        and KINDS[symbol].spatial == layer.conv.spatial
    )
    return tuple(Layer(symbol, layer.groups, kernel=layer.kernel) for symbol in kinds)
