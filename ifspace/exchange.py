"""Consecutive grouped layers that exchange no channels, and the shuffle that makes them.

Two grouped layers in a row, as GPW(4)+GPW(4), are four networks side by side: no output of the
second sees more of what enters the first than a group. A channel shuffle between them, which has no
parameters and no MACs, lets it see more. Both fields are exact (`ifspace.reach`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from ifspace.block import Chain, Layer, SizedLayer
from ifspace.kinds import ROLLING, rolling_pointwise_kind, shuffle_kind
from ifspace.reach import Rows, start, through

NO_COST: Final = "no parameters, no MACs"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a shuffle between two grouped layers does to what the outputs of the second see.

    `field`, and `shuffled` with a shuffle over `groups`, are the fewest channels that an output
    sees, of the `channels` that enter the first layer. `rolling`: the layer of rolling windows that
    stands for the first layer and the shuffle, None where the first is not pointwise.
    """

    field: int
    shuffled: int
    channels: int
    groups: int
    rolling: str | None

    def __str__(self) -> str:
        shuffle = (
            f"insert {Layer(shuffle_kind().symbol, self.groups)} before the second ({NO_COST})"
        )
        rolling = f", or {self.rolling} for the first" if self.rolling else ""
        return f"{shuffle}{rolling}: field {self.field:,} → {self.shuffled:,} of {self.channels:,}"


@dataclass(frozen=True, slots=True)
class BlockExchange:
    """Two layers of a block, by their indices over all copies, that exchange no channels.

    `block_field`: the channel field of the block, as it is and with the shuffle.
    """

    first: int
    second: int
    exchange: Exchange
    block_field: tuple[int, int]


def is_grouped(layer: SizedLayer) -> bool:
    """Return whether a layer mixes channels, but not all of them."""
    return layer.conv.mixing and layer.fan_in < layer.c_in


def missing_exchange(
    rows: Rows, channels: int, first: SizedLayer, second: SizedLayer, *, direct: bool = True
) -> Exchange | None:
    """Return what a shuffle before a grouped layer adds; None where it is not missing.

    `rows` [C, words]: what each channel that the second layer reads sees of the `channels` that
    enter the first. `direct`: whether nothing is added or moved between the two. A shuffle is
    missing if no output of the second sees a larger part of them than the wider of the two layers
    reads, and with it every output sees more.

    >>> first = SizedLayer(Layer("GPW", 4), 64, 64)
    >>> print(missing_exchange(through(start(64), first), 64, first, first))
    insert SH(4) before the second (no parameters, no MACs),
        or RPW(4,0) for the first: field 16 → 64 of 64
    """
    if not (is_grouped(first) and is_grouped(second)):
        return None
    counts = _counts(through(rows, second))
    widest = max(Fraction(layer.fan_in, layer.c_in) for layer in (first, second))
    field = int(counts.min())
    if field == 0 or int(counts.max()) > channels * widest:
        return None
    options = [
        (_field(through(rows[shuffle_order(len(rows), groups)], second)), groups)
        for groups in dict.fromkeys((first.groups, second.groups))
        if len(rows) % groups == 0
    ]
    shuffled, groups = max(options, key=lambda option: option[0], default=(0, 1))
    if shuffled <= field:
        return None
    return Exchange(field, shuffled, channels, groups, _rolling(first, groups) if direct else None)


def shuffle_order(channels: int, groups: int) -> npt.NDArray[np.int64]:
    """Return which channel stands where after a shuffle [C]."""
    return shuffle_kind().reads(channels, channels, groups, 1)[:, 0].astype(np.int64)


def block_exchanges(chain: Chain) -> Iterator[BlockExchange]:
    """Yield the pairs of grouped layers of a block that exchange no channels.

    Between the two of a pair there is no other layer that mixes channels.

    >>> from ifspace.block import Block
    >>> blocks = [Block.parse(text).at(64) for text in ("GC(4)+GPW(4)", "GC(4)+SH(4)+GPW(4)")]
    >>> [[(pair.first, pair.second) for pair in block_exchanges(block.layers)] for block in blocks]
    [[(0, 1)], []]
    """
    mixing = [index for index, layer in enumerate(chain) if layer.conv.mixing]
    for first, second in pairwise(mixing):
        rows = _after(start(chain[first].c_in), chain[first:second])
        exchange = missing_exchange(rows, chain[first].c_in, chain[first], chain[second])
        if exchange is None:
            continue
        below = _after(start(chain[0].c_in), chain[:second])
        order = shuffle_order(len(below), exchange.groups)
        plain, shuffled = (_field(_after(part, chain[second:])) for part in (below, below[order]))
        yield BlockExchange(first, second, exchange, (plain, shuffled))


def _after(rows: Rows, chain: Chain) -> Rows:
    for layer in chain:
        rows = through(rows, layer)
    return rows


def _counts(rows: Rows) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = np.bitwise_count(rows).sum(axis=1, dtype=np.int64)
    return counts


def _field(rows: Rows) -> int:
    return int(_counts(rows).min())


def _rolling(first: SizedLayer, groups: int) -> str | None:
    """Return the layer of rolling windows that is a first layer and the shuffle behind it."""
    rolling = rolling_pointwise_kind()
    is_plain = first.conv.takes_groups and not first.conv.spatial and not first.layer.overlap
    if not is_plain or first.layer.order == ROLLING or first.groups != groups:
        return None
    return str(Layer(rolling.symbol, groups, Fraction(0), order=ROLLING))
