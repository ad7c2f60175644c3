"""The exact channel field by bitsets: who sees whom, and the decisions taken on it.

R_k(j), the set of block-input channels that output channel j of layer k sees, is a row of bits:
R_0(j) = {j}, and R_k(j) is the union of R_{k-1} over the channels that j reads. The channel field
IF^c is the smallest of the sets [IF, eq. 3]. Nothing here is an estimate; every decision of the
library agrees with this file.

Rows are packed in 64-bit words, [C, ceil(C/64)]. When every output of a layer reads a run of
neighbouring channels, counted around the circle, the unions of all runs are built by doubling
their length, so that a layer costs C x C/64 x log2(fan-in) word operations.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import prod

import numpy as np
import numpy.typing as npt

from ifspace.block import SizedBlock, SizedLayer
from ifspace.errors import BlockError
from ifspace.kinds import ConvKind

Rows = npt.NDArray[np.uint64]
Chain = Sequence[SizedLayer]


@dataclass(frozen=True, slots=True)
class Reference:
    """What a block must see as much as: `repeats` standard convolutions in a row.

    >>> Reference(kernel=3, repeats=2).side
    5
    """

    kernel: int = 3
    repeats: int = 1

    @property
    def side(self) -> int:
        """The spatial field r (k - 1) + 1 in pixels; its channel field is the whole width."""
        return self.repeats * (self.kernel - 1) + 1


def start(channels: int) -> Rows:
    """Return the rows of channels that see themselves, packed, [C, ceil(C / 64)]."""
    rows = np.zeros((channels, -(-channels // 64)), dtype=np.uint64)
    own = np.arange(channels)
    rows[own, own // 64] = np.uint64(1) << (own % 64).astype(np.uint64)
    return rows


@lru_cache(maxsize=4096)
def _run_starts(
    conv: ConvKind, c_in: int, c_out: int, groups: int, step: int
) -> npt.NDArray[np.int64] | None:
    """Return where each output's run of neighbouring channels starts; None if one is no run."""
    reads = conv.reads(c_in, c_out, groups, step)
    distinct = reads[:1] if reads.strides[0] == 0 else reads
    run = (distinct[:, :1] + np.arange(reads.shape[1], dtype=np.int32)) % c_in
    return reads[:, 0].astype(np.int64) if np.array_equal(run, distinct) else None


def through(rows: Rows, layer: SizedLayer) -> Rows:
    """Return the rows behind a layer: of each output the union of the rows that it reads."""
    starts = _run_starts(layer.conv, layer.c_in, layer.c_out, layer.groups, layer.step)
    if starts is None:
        unions: dict[bytes, Rows] = {}
        for read in (reads := layer.reads()):
            if (key := read.tobytes()) not in unions:
                unions[key] = np.bitwise_or.reduce(rows[read], axis=0)
        return np.stack([unions[read.tobytes()] for read in reads])
    fan_in, length = layer.fan_in, 1
    unions_of_runs = rows  # row i: the union over `length` channels from i
    while 2 * length <= fan_in:
        unions_of_runs = unions_of_runs | np.roll(unions_of_runs, -length, axis=0)
        length *= 2
    if length == fan_in:
        return unions_of_runs[starts]
    # Two runs of that length, overlapping, cover a run whose length is no power of two.
    ends = (starts + fan_in - length) % layer.c_in
    return unions_of_runs[starts] | unions_of_runs[ends]


def _after_each(chain: Chain) -> Iterator[Rows]:
    rows = start(chain[0].c_in if chain else 0)
    for below, layer in zip((None, *chain), chain, strict=False):
        if below is not None and below.c_out != layer.c_in:
            raise BlockError.because(
                "layers do not fit",
                got=f"{below.c_out} channels into {layer.layer} of {layer.c_in}",
                allowed="equal widths at every joint",
                remedy="build the chain with Block.at",
            )
        rows = through(rows, layer)
        yield rows


def _after(chain: Chain) -> Rows:
    return deque(_after_each(chain), maxlen=1).pop() if chain else start(0)


def _bits(row: Rows) -> int:
    return int.from_bytes(row.astype("<u8").tobytes(), "little")


def _smallest(rows: Rows) -> int:
    return int(np.bitwise_count(rows).sum(axis=1, dtype=np.int64).min())


def channel_fields(chain: Chain) -> tuple[int, ...]:
    """Return IF^c after each layer: how many block-input channels every output sees at least.

    >>> from ifspace.block import Block
    >>> channel_fields(Block.parse("GPW(4)+SH(4)+GPW(4)").at(16).layers)
    (4, 4, 16)

    Reference: [IF] eq. 3.
    """
    return tuple(map(_smallest, _after_each(chain)))


def channel_field(chain: Chain) -> int:
    """Return IF^c of the chain: 1 for an empty one, for an output that is an input sees itself."""
    return _smallest(_after(chain)) if chain else 1


def channel_reach(chain: Chain) -> list[int]:
    """Return for each output channel the block-input channels it sees, as the bits of an int.

    >>> from ifspace.block import Block
    >>> [bin(row) for row in channel_reach(Block.parse("GPW(2)").at(4).layers)]
    ['0b11', '0b11', '0b1100', '0b1100']
    """
    return list(map(_bits, _after(chain)))


def sees(chain: Chain) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return for each layer, for each of its outputs, the block-input channels seen, for a drawing.

    >>> from ifspace.block import Block
    >>> sees(Block.parse("SH(2)+GPW(2)").at(4).layers)
    (((0,), (2,), (1,), (3,)), ((0, 2), (0, 2), (1, 3), (1, 3)))
    """
    width = chain[0].c_in if chain else 0

    def members(row: Rows) -> tuple[int, ...]:
        bits = _bits(row)
        return tuple(channel for channel in range(width) if bits >> channel & 1)

    return tuple(tuple(map(members, rows)) for rows in _after_each(chain))


def field_after(sized: SizedBlock) -> tuple[tuple[int, int], ...]:
    """Return (IF^w, IF^c) after each layer, in pixels and channels, on a map larger than IF^w.

    >>> from ifspace.block import Block
    >>> field_after(Block.parse("DW+PW").at(16))
    ((3, 1), (3, 16))

    Reference: [IF] eqs. 2 and 3.
    """
    sides = [_side(sized.layers[: n + 1]) for n in range(len(sized.layers))]
    return tuple(zip(sides, channel_fields(sized.layers), strict=True))


def _side(chain: Chain) -> int:
    return 1 + sum(layer.kernel - 1 for layer in chain)


def _reaches(chain: Chain, channels: int, reference: Reference) -> bool:
    # The product of the fan-ins bounds the field from above and costs nothing.
    return (
        _side(chain) >= reference.side
        and prod(layer.fan_in for layer in chain) >= channels
        and channel_field(chain) == channels
    )


def quality(sized: SizedBlock, reference: Reference) -> bool:
    """Return whether the block has the field of the reference, in pixels and in channels.

    >>> from ifspace.block import Block
    >>> quality(Block.parse("DW+PW").at(16), Reference())
    True

    Reference: [IF] rule of kernel replacement; [3DRF] section 4.2.
    """
    return _side(sized.layers) == reference.side and _reaches(
        sized.layers, sized.channels, reference
    )


def removable_layers(sized: SizedBlock, reference: Reference) -> tuple[int, ...]:
    """Return the places of the layers, from 0, without which the reference is still reached.

    Reached is at least its pixels and all channels: where the block has the quality, that is
    having the quality still. Layers that change the width cannot go and are not named; in a
    repeated block one occurrence goes at a time.

    >>> from ifspace.block import Block
    >>> removable_layers(Block.parse("DW+SH(4)+PW").at(16), Reference())
    (1,)

    Reference: [3DRF] section 4.2.
    """
    return tuple(
        place
        for place, layer in enumerate(sized.layers)
        if not layer.changes_width and _reaches(sized.without(place), sized.channels, reference)
    )


def compact(sized: SizedBlock, reference: Reference) -> bool:
    """Return whether no single layer can go: see `removable_layers`."""
    return not removable_layers(sized, reference)


def irreducible(sized: SizedBlock, reference: Reference) -> bool:
    """Return whether no set of layers, one or more, can go with the reference still reached.

    Stronger than `compact`: a shuffle can undo another, so that two may go where neither can.
    """
    movable = [place for place, layer in enumerate(sized.layers) if not layer.changes_width]
    for count in range(1, len(movable) + 1):
        for gone in combinations(movable, count):
            rest = [layer for place, layer in enumerate(sized.layers) if place not in gone]
            if _reaches(rest, sized.channels, reference):
                return False
    return True
