"""Where the pixels of a feature map come from, when operators roll, flip, crop or rearrange them.

An *arrangement* says for each pixel of a tensor which pixel of a *frame*, a feature map that was
never rearranged, stands there. A feature map that was only moved as a whole has the arrangement of
its frame and a *shift*, in rows and columns; so has each channel. What is neither is unknown.

    the frame     moved by 1     flipped        windows of 2 along the batch
    0 1 2 3       - 0 1 2        3 2 1 0        0 1 | 2 3
    shift 0       shift -1       its own arrangements
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ifspace.models.graph import Size

Ids = npt.NDArray[np.int64]
# A grid of pixels: (batch, height, width).
Grid = tuple[int, int, int]
# The pixel where padding put zeros.
NO_PIXEL: Final = -1
# The steps (rows, columns) to the next row and column where nothing was turned.
UPRIGHT: Final = ((1, 0), (0, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """For each pixel [batch, height, width] the pixel of a frame: row * width + column there."""

    frame: Size
    pixels: Ids

    @property
    def is_plain(self) -> bool:
        """Whether every pixel stands where it stands in the frame."""
        grid = self.pixels.shape
        return self is plain((grid[0], grid[1], grid[2]))

    def taken(self, pixels: Ids) -> Ids:
        """Return the pixels of the frame that stand at pixels [...] of the feature map."""
        flat = self.pixels.reshape(-1)
        taken: Ids = np.where(pixels >= 0, flat[np.maximum(pixels, 0)], NO_PIXEL)
        return taken

    def steps(self) -> tuple[Size | None, Size | None]:
        """Return how far (rows, columns) the next row lies in the frame, and the next column.

        None where neighbours lie at different distances more often than not.

        >>> plain((1, 2, 3)).steps()
        ((1, 0), (0, 1))
        """
        if self.is_plain:
            return UPRIGHT
        return self._step(1), self._step(2)

    def moved(self, other: "Arrangement") -> Size | None:
        """Return how far (rows, columns) another one lies from this one; None if it varies."""
        if other is self:
            return 0, 0
        if other.frame != self.frame or other.pixels.shape != self.pixels.shape:
            return (0, 0) if self.is_plain and other.is_plain else None
        pixels = np.where(self.pixels >= 0, other.pixels, NO_PIXEL)
        return displacement(pixels, self.frame, divmod(self.pixels, self.frame[1]))

    def reach(self, window: Sequence[tuple[int, int]]) -> tuple[Size, Size] | None:
        """Return the first and last row and column of the frame that a window reads.

        `window`: the first and last pixel along the height and the width of this feature map. None
        if its pixels do not lie in lines of the frame.

        >>> plain((1, 4, 4)).reach([(0, 0), (-1, 2)])
        ((0, 0), (-1, 2))
        """
        reach = [(0, 0), (0, 0)]
        for (first, last), step in zip(window, self.steps(), strict=True):
            if first == last == 0:
                continue
            if step is None or (step[0] != 0) == (step[1] != 0):
                return None
            axis = int(step[0] == 0)
            ends = sorted((first * step[axis], last * step[axis]))
            reach[axis] = reach[axis][0] + ends[0], reach[axis][1] + ends[1]
        return reach[0], reach[1]

    def cut(self, grid: Grid) -> "Arrangement | None":
        """Return the arrangement of an output on a grid; None for a larger one.

        What a window without padding writes is smaller.
        """
        old = self.pixels.shape
        if old == grid:
            return self
        if self.is_plain:
            return plain(grid)
        if old[0] != grid[0] or old[1] < grid[1] or old[2] < grid[2]:
            return None
        return Arrangement(self.frame, self.pixels[:, : grid[1], : grid[2]])

    def _step(self, axis: int) -> Size | None:
        length = self.pixels.shape[axis]
        here = np.take(self.pixels, range(length - 1), axis)
        there = np.take(self.pixels, range(1, length), axis)
        present = (here >= 0) & (there >= 0)
        if not present.any():
            return None
        width = self.frame[1]
        rows = (there // width - here // width)[present]
        columns = (there % width - here % width)[present]
        steps, counts = np.unique(np.stack([rows, columns], 1), axis=0, return_counts=True)
        if 2 * counts.max() <= counts.sum():
            return None
        row, column = steps[counts.argmax()].tolist()
        return row, column


@lru_cache(maxsize=1024)
def plain(grid: Grid) -> Arrangement:
    """Return the arrangement of a frame itself: every pixel stands at its own place.

    >>> plain((1, 2, 2)).pixels.tolist()
    [[[0, 1], [2, 3]]]
    """
    batch, height, width = grid
    pixels = np.arange(height * width).reshape(1, height, width)
    return Arrangement((height, width), np.broadcast_to(pixels, (batch, height, width)))


def grid_of(shape: Sequence[int], axis: int) -> Grid:
    """Return (batch, height, width) of a tensor whose channels lie along an axis.

    >>> grid_of((1, 64, 7, 9), 1), grid_of((64, 7, 7, 96), -1), grid_of((1, 49, 96), -1)
    ((1, 7, 9), (64, 7, 7), (1, 1, 49))
    """
    sizes = [int(size) for index, size in enumerate(shape) if index != axis % len(shape)]
    if len(sizes) < 3:
        sizes = [*sizes[:1], 1, *sizes[1:]] if len(sizes) == 2 else [1, 1, prod(sizes)]
    return prod(sizes[:-2]), sizes[-2], sizes[-1]


def displacement(pixels: Ids, frame: Size, others: tuple[Ids, Ids]) -> Size | None:
    """Return how far (rows, columns) pixels of a frame lie from others; None if that varies.

    `others`: rows and columns, of the shape of `pixels` or one that can be expanded to it. What
    leaves the frame on one side may return on the other, as in `torch.roll`, if there are no more
    pixels than in the frame.

    >>> displacement(np.array([3, 0, 1, 2]), (1, 4), (np.zeros(4), np.arange(4)))
    (0, -1)
    """
    present = pixels >= 0
    if not present.any():
        return 0, 0
    wraps = pixels.ndim < 2 or (pixels.shape[-2] <= frame[0] and pixels.shape[-1] <= frame[1])
    row = _distance(pixels // frame[1] - others[0], present, frame[0] if wraps else None)
    column = _distance(pixels % frame[1] - others[1], present, frame[1] if wraps else None)
    return None if row is None or column is None else (row, column)


def _distance(
    moves: npt.NDArray[Any], present: npt.NDArray[np.bool_], size: int | None
) -> int | None:
    moves = moves[present]
    if moves.min() != moves.max():
        if size is None:
            return None
        moves = moves % size
        if moves.min() != moves.max():
            return None
        moves = np.where(2 * moves > size, moves - size, moves)
    return int(moves[0])


def common_arrangement(
    parts: Sequence[tuple[Arrangement | None, Ids]], grid: Grid, stride: Size = (1, 1)
) -> tuple[Arrangement | None, list[Size | None]]:
    """Return one arrangement for several feature maps, and how far each of them was moved from it.

    `parts`: of each the arrangement of what is read, None where every pixel sees all others, and
    which of its pixels stand on the grid. A plain arrangement is taken if any has one, otherwise
    the first; None for a part that is moved from it by no one distance.
    """
    lines = np.arange(grid[1])[:, None] * stride[0], np.arange(grid[2]) * stride[1]
    composed = [
        (arrangement, arrangement.taken(pixels.reshape(grid)))
        for arrangement, pixels in parts
        if arrangement is not None
    ]
    moves = iter([displacement(pixels, source.frame, lines) for source, pixels in composed])
    shifts = [(0, 0) if arrangement is None else next(moves) for arrangement, _ in parts]
    if not composed:
        return None, shifts
    displacements = [
        shift for shift, (source, _) in zip(shifts, parts, strict=True) if source is not None
    ]
    if max(stride) > 1 or any(shift is not None for shift in displacements):
        return plain(grid), shifts
    first, reference = composed[0]
    width = first.frame[1]
    rows, columns = (np.where(reference >= 0, part, -1) for part in divmod(reference, width))
    moves = iter(
        [
            displacement(np.where(reference >= 0, pixels, NO_PIXEL), source.frame, (rows, columns))
            if source.frame == first.frame
            else None
            for source, pixels in composed
        ]
    )
    shifts = [(0, 0) if arrangement is None else next(moves) for arrangement, _ in parts]
    return Arrangement(first.frame, reference), shifts
