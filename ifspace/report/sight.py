"""Who sees whom in a block, as columns that are read from row to row: what a drawing draws."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ifspace.block import Block, SizedBlock
from ifspace.reach import field_after

# A row has a column for each channel up to this many; channels of wider rows share columns.
MOST_COLUMNS: Final = 64

Reads = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sight:
    """A block as rows of channels, its input first; every layer reads the row above it.

    `names`: what each row is, "input" and the layers. `widths`: its channels. `reads`: for each
    layer the channels of the row above that each of its outputs reads, [c_out, fan-in]. `fields`:
    the field of each row, in pixels a side and channels; `dims` is 1 or 2.

    >>> sight = see("GPW(2)+SH(2)", 4)
    >>> sight.names, sight.widths, sight.reads[1].tolist()
    (('input', 'GPW(2)', 'SH(2)'), (4, 4, 4), [[0], [2], [1], [3]])
    >>> sight.traced(1)
    (frozenset({2, 3}), frozenset({2}), frozenset({1}))
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    reads: tuple[Reads, ...]
    fields: tuple[tuple[int, int], ...]
    dims: int = 2

    @property
    def share(self) -> int:
        """How many neighbouring channels stand in one column."""
        return -(-max(self.widths) // MOST_COLUMNS)

    def columns(self, row: int) -> int:
        """Return how many columns a row has."""
        return -(-self.widths[row] // self.share)

    def traced(self, output: int) -> tuple[frozenset[int], ...]:
        """Return row by row, the input first, the channels that one output of the block sees."""
        seen = [frozenset({output})]
        for reads in reversed(self.reads):
            seen.append(frozenset(reads[sorted(seen[-1])].ravel().tolist()))
        return tuple(reversed(seen))

    def field(self, row: int) -> str:
        """Return the field of a row as it is read: pixels and channels."""
        side, channels = self.fields[row]
        return "×".join(map(str, [side] * self.dims + [channels]))

    def edges(self, layer: int, outputs: Iterable[int] | None = None) -> dict[int, list[int]]:
        """Return for each column of a layer's outputs the columns that it reads, in order.

        Only for the channels `outputs`, all if None.
        """
        reads = self.reads[layer]
        found: dict[int, set[int]] = {}
        for output in range(len(reads)) if outputs is None else outputs:
            found.setdefault(output // self.share, set()).update(
                (reads[output] // self.share).tolist()
            )
        return {column: sorted(read) for column, read in sorted(found.items())}


def see(
    block: str | Block | SizedBlock,
    channels: int | None = None,
    out_channels: int | None = None,
    bottleneck: str | None = None,
) -> Sight:
    """Return who sees whom in a block at its widths.

    Raises: BlockError for a block that does not fit its widths.
    """
    if not isinstance(block, SizedBlock):
        parsed = Block.parse(block) if isinstance(block, str) else block
        block = parsed.at(channels or 0, out_channels, bottleneck)
    return Sight(
        ("input", *(str(layer.layer) for layer in block.layers)),
        (block.channels, *(layer.c_out for layer in block.layers)),
        tuple(layer.reads() for layer in block.layers),
        ((1, 1), *field_after(block)),
        block.dims,
    )


def runs(columns: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and last of neighbouring numbers, run by run.

    >>> runs([0, 1, 2, 6, 8, 9])
    [(0, 2), (6, 6), (8, 9)]
    """
    found: list[tuple[int, int]] = []
    for column in columns:
        if found and column == found[-1][1] + 1:
            found[-1] = found[-1][0], column
        else:
            found.append((column, column))
    return found
