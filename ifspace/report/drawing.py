"""The drawing of a block: its channels as columns, and which output sees which input."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from ifspace.block import Block, SizedBlock
from ifspace.reach import field_after
from ifspace.report.style import (
    DARK,
    LIGHT,
    MIDDLE,
    figure,
    style,
)

# A row has a column for each channel up to this many; channels of wider rows share columns.
MOST_COLUMNS: Final = 64

Reads = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sight:
    """A block as rows of channels, its input first; every layer reads the row above it.

    `names`: what each row is, "input" and the layers. `widths`: its channels. `reads`: for each
    layer the channels of the row above that each of its outputs reads, [c_out, fan-in]. `fields`:
    the field of each row, in pixels along one side and channels; `dims` is 1 or 2.

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
        """How many neighbouring channels share one column."""
        return -(-max(self.widths) // MOST_COLUMNS)

    def columns(self, row: int) -> int:
        """Return how many columns a row has."""
        return -(-self.widths[row] // self.share)

    def traced(self, output: int) -> tuple[frozenset[int], ...]:
        """Return row by row, the input first, the channels that one output of the block sees."""
        levels = [frozenset({output})]
        for reads in reversed(self.reads):
            levels.append(frozenset(reads[sorted(levels[-1])].ravel().tolist()))
        return tuple(reversed(levels))

    def field(self, row: int) -> str:
        """Return the field of a row as text: pixels and channels."""
        side, channels = self.fields[row]
        return "×".join(map(str, [side] * self.dims + [channels]))

    def edges(self, layer: int, outputs: Iterable[int] | None = None) -> dict[int, list[int]]:
        """Return for each column of a layer's outputs the columns that it reads, in order.

        Only for the channels `outputs`, all if None.
        """
        reads = self.reads[layer]
        columns: dict[int, set[int]] = {}
        for output in range(len(reads)) if outputs is None else outputs:
            columns.setdefault(output // self.share, set()).update(
                (reads[output] // self.share).tolist()
            )
        return {column: sorted(read) for column, read in sorted(columns.items())}


def see(
    block: str | Block | SizedBlock,
    channels: int | None = None,
    out_channels: int | None = None,
    bottleneck: Fraction | str | None = None,
) -> Sight:
    """Return which channels each layer of a block reads, at its widths.

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
    spans: list[tuple[int, int]] = []
    for column in columns:
        if spans and column == spans[-1][1] + 1:
            spans[-1] = spans[-1][0], column
        else:
            spans.append((column, column))
    return spans


# A run of so many columns is drawn as lines, a longer one as a fan.
MOST_LINES: Final = 8
_ROW, _COLUMN, _MARGIN = 0.85, 0.115, 2.4  # inches
_FAN, _EDGE = "0.93", "0.8"
Point = tuple[float, float]


def draw(
    block: str | Block,
    channels: int,
    out_channels: int | None = None,
    bottleneck: Fraction | str | None = None,
) -> Figure:
    """Return the drawing of a block at its widths, with what its middle output sees in black.

    >>> drawn = draw("DW+RPW(4,0)+GPW(4)", 16)
    >>> [text.get_text() for text in drawn.axes[0].texts][:3]
    ['input', '16 channels', 'DW']

    Raises: BlockError for a block that does not fit its widths.
    """
    sight = see(block, channels, out_channels, bottleneck)
    with style():
        columns = max(map(sight.columns, range(len(sight.widths))))
        wide = max(6.0, columns * _COLUMN + _MARGIN)
        drawn = figure(wide, _ROW * len(sight.reads) + 0.9)
        axes = drawn.add_subplot()
        _rows(axes, sight, columns)
        ends = (
            f"{channels}" if out_channels in (None, channels) else f"{channels} to {out_channels}"
        )
        drawn.suptitle(f"{block} at {ends} channels", fontsize=11, x=0.01, ha="left")
        axes.set_title("black: what one output of the last layer sees", fontsize=9, color=MIDDLE)
        axes.set_axis_off()
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(len(sight.reads) + 0.3, -0.3)
        return drawn


def _rows(axes: Axes, sight: Sight, columns: int) -> None:
    output = sight.widths[-1] // 2
    traced = sight.traced(output)
    for layer in range(len(sight.reads)):
        every = sight.edges(layer)
        chosen = sight.edges(layer, traced[layer + 1])
        places = [_places(sight, row, columns) for row in (layer, layer + 1)]
        fans, lines = _edges(every, places, layer)
        axes.add_collection(PolyCollection(fans, facecolor=_FAN, edgecolor="none", zorder=1))
        axes.add_collection(LineCollection(lines, colors=_EDGE, linewidths=0.6, zorder=2))
        fans, lines = _edges(chosen, places, layer)
        axes.add_collection(
            PolyCollection(
                fans, facecolor=LIGHT, edgecolor=DARK, linewidth=0.5, alpha=0.5, zorder=3
            )
        )
        axes.add_collection(LineCollection(lines, colors=DARK, linewidths=0.8, zorder=4))
    for row, name in enumerate(sight.names):
        places_of = _places(sight, row, columns)
        seen = {channel // sight.share for channel in traced[row]}
        for dark in (False, True):
            xs = [x for column, x in enumerate(places_of) if (column in seen) == dark]
            axes.plot(
                xs,
                [row] * len(xs),
                "o",
                markersize=4.2,
                zorder=5,
                color=DARK,
                markerfacecolor=DARK if dark else "white",
                markeredgecolor=DARK if dark else MIDDLE,
                markeredgewidth=0.7,
            )
        _beside(axes, row, 0, -8, name, family="monospace")
        _beside(axes, row, 1, 8, _caption(sight, row), fontsize=9)
    if sight.share > 1:
        axes.annotate(
            f"one column: {sight.share} channels",
            (1, 0),
            (8, -12),
            fontsize=8,
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=MIDDLE,
            va="top",
        )


def _beside(axes: Axes, row: int, end: int, points: int, text: str, **how: Any) -> None:
    """Write text beside a row, at its left end (0) or its right end (1)."""
    axes.annotate(
        text,
        (end, row),
        (points, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        ha=("right", "left")[end],
        **how,
    )


def _caption(sight: Sight, row: int) -> str:
    if row == 0:
        return f"{sight.widths[0]} channels"
    return f"sees {sight.field(row)}"


def _places(sight: Sight, row: int, columns: int) -> list[float]:
    """Return the x positions of a row's columns; a narrower row is spread over the whole width."""
    count = sight.columns(row)
    return [(column + 0.5) * columns / count - 0.5 for column in range(count)]


def _edges(
    edges: dict[int, list[int]], places: list[list[float]], layer: int
) -> tuple[list[list[Point]], list[list[Point]]]:
    """Return fans and lines from the row above to the outputs of a layer."""
    above, below = places
    fans, lines = [], []
    for column, read in edges.items():
        end = (below[column], layer + 1.0)
        for first, last in runs(read):
            if last - first < MOST_LINES:
                lines += [[(above[index], layer), end] for index in range(first, last + 1)]
            else:
                fans.append([(above[first], layer), (above[last], layer), end])
    return fans, lines
