"""The exact channel field by bitsets, and the decisions made on it.

R_k(j), the set of block-input channels that output channel j of layer k sees, is a row of bits:
R_0(j) = {j}, and R_k(j) is the union of R_{k-1} over the channels that j reads. The channel field
IF^c is the size of the smallest set [IF, eq. 3]. Nothing here is an estimate, and every decision of
the library agrees with this module.

Rows are packed in 64-bit words, [C, ceil(C/64)]. When every output of a layer reads a run of
neighbouring channels, counted around the circle, the unions of all runs are built by doubling
their length, so that a layer costs C x C/64 x log2(fan-in) word operations.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from ifspace.block import Chain, SizedBlock, SizedLayer
from ifspace.errors import BlockError
from ifspace.kinds import ConvKind

Rows = npt.NDArray[np.uint64]

# What may not be left out of a compact block: a single layer; a single layer other than a shuffle,
# which is no kernel; any set of layers.
Compact = Literal["single", "kernels", "subset"]


@dataclass(frozen=True, slots=True)
class Reference:
    """The field that a block must have: that of `repeats` consecutive standard convolutions.

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
    """Return the packed rows of the block's input, where each channel sees itself."""
    rows = np.zeros((channels, -(-channels // 64)), dtype=np.uint64)
    own = np.arange(channels)
    rows[own, own // 64] = np.uint64(1) << (own % 64).astype(np.uint64)
    return rows


@lru_cache(maxsize=4096)
def _run_starts(
    conv: ConvKind, c_in: int, c_out: int, groups: int, step: int
) -> npt.NDArray[np.int64] | None:
    """Return the first channel that each output reads; None unless all read runs of neighbours."""
    reads = conv.reads(c_in, c_out, groups, step)
    distinct = reads[:1] if reads.strides[0] == 0 else reads
    run = (distinct[:, :1] + np.arange(reads.shape[1], dtype=np.int32)) % c_in
    return reads[:, 0].astype(np.int64) if np.array_equal(run, distinct) else None


def through(rows: Rows, layer: SizedLayer) -> Rows:
    """Return the rows after a layer: for each output the union of the rows that it reads."""
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
    # A run whose length is no power of two is covered by two overlapping runs of that length.
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
    """Return IF^c after each layer: the smallest number of input channels that an output sees.

    >>> from ifspace.block import Chain, Block
    >>> channel_fields(Block.parse("GPW(4)+SH(4)+GPW(4)").at(16).layers)
    (4, 4, 16)

    Reference: [IF] eq. 3.
    """
    return tuple(map(_smallest, _after_each(chain)))


def channel_field(chain: Chain) -> int:
    """Return IF^c of a chain; of an empty one 1, since each channel sees itself."""
    return _smallest(_after(chain)) if chain else 1


def channel_reach(chain: Chain) -> list[int]:
    """Return for each output channel the block-input channels that it sees, as bits of an int.

    >>> from ifspace.block import Chain, Block
    >>> [bin(row) for row in channel_reach(Block.parse("GPW(2)").at(4).layers)]
    ['0b11', '0b11', '0b1100', '0b1100']
    """
    return list(map(_bits, _after(chain)))


def field_after(sized: SizedBlock) -> tuple[tuple[int, int], ...]:
    """Return (IF^w, IF^c) after each layer in pixels and channels, for a large feature map.

    >>> from ifspace.block import Chain, Block
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
    """Return whether a block has the field of the reference, in pixels and in channels.

    >>> from ifspace.block import Chain, Block
    >>> quality(Block.parse("DW+PW").at(16), Reference())
    True

    Reference: [IF] rule of kernel replacement; [3DRF] section 4.2.
    """
    return _side(sized.layers) == reference.side and _reaches(
        sized.layers, sized.channels, reference
    )


def removable_layers(
    sized: SizedBlock, reference: Reference, reading: Compact = "single"
) -> tuple[int, ...]:
    """Return the indices of the layers without which the block still reaches the reference.

    It reaches it with at least its pixels and all channels; if the block has the quality, that
    means keeping it. Layers that change the width cannot be removed. In a repeated block one
    occurrence is removed at a time. By the reading "kernels" shuffles are not tested.

    >>> from ifspace.block import Chain, Block
    >>> removable_layers(Block.parse("DW+SH(4)+PW").at(16), Reference())
    (1,)

    Reference: [3DRF] section 4.2.
    """
    return tuple(
        index
        for index, layer in enumerate(sized.layers)
        if not layer.changes_width
        and (layer.conv.writes or reading != "kernels")
        and _reaches(sized.without(index), sized.channels, reference)
    )


def compact(sized: SizedBlock, reference: Reference, reading: Compact = "single") -> bool:
    """Return whether nothing that the reading tests can be removed from the block.

    A single layer, see `removable_layers`, or by "subset" any set of them, see `irreducible`.

    >>> from ifspace.block import Block
    >>> twice = Block.parse("(GC(8)+SH(2)+GPW(2))x2").at(16)
    >>> [compact(twice, Reference(3, 2), reading) for reading in ("single", "kernels", "subset")]
    [False, True, False]

    Reference: [3DRF] section 4.2, which removes "a factorized kernel".
    """
    if reading == "subset":
        return irreducible(sized, reference)
    return not removable_layers(sized, reference, reading)


def irreducible(sized: SizedBlock, reference: Reference) -> bool:
    """Return whether no set of layers can be removed without missing the reference.

    Stronger than `compact`: a shuffle can undo another, so that the two can be removed together
    where neither can alone.
    """
    return not removable_set(sized, reference)


def removable_set(sized: SizedBlock, reference: Reference) -> tuple[int, ...]:
    """Return the first smallest set of layers without which the block reaches the reference.

    Indices are counted over all copies; empty where every layer is needed. All sets may be tried,
    2 to the power of the layers.

    >>> from ifspace.block import Block
    >>> removable_set(Block.parse("DW+RPW(2,0)+SH(2)+SH(4)+GPW(4)").at(8), Reference())
    (2, 3)
    """
    removable = [index for index, layer in enumerate(sized.layers) if not layer.changes_width]
    for count in range(1, len(removable) + 1):
        for removed in combinations(removable, count):
            rest = [layer for index, layer in enumerate(sized.layers) if index not in removed]
            if _reaches(rest, sized.channels, reference):
                return removed
    return ()
