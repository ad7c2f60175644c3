"""The band of weights that an RPW layer is, and how it is cut into tiles that overlap little.

All windows start at multiples of d = gcd(s, C_in). Sorted by its start, window q reads the ring of
input channels from q d on, so that the sorted filters form a band around a C_out x C_in matrix. P
windows are cut into T tiles of B = P/T neighbours, which together read w + (B - 1) d channels:

    window 0  ####..          with B = 2, d = 2, w = 4: a tile of two windows reads 6 channels, a
    window 1  ..####          third of its weights are zeros
    window 2      ####..
    window 3      ..####

The transposed matrix is a band as well: d input channels are read by neighbouring windows. One
tile of it is b = C_in/T input channels, and the sorted filters that read any of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from math import gcd
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ifspace.kernels.windows import Windows, windows_at

Index = NDArray[np.int64]


class Copy(NamedTuple):
    """One strided copy: `run` slices from slice `number` on, channels `start` on of each, ...

    ... go to the place `offset` in the slice; `length` channels of each.
    """

    number: int
    run: int
    start: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices of equal width, `spacing` channels apart, of a ring of channels.

    >>> for copy in Slices(ring=8, start=0, spacing=2, width=4, count=4).copies:
    ...     print(copy)
    Copy(number=0, run=3, start=0, offset=0, length=4)
    Copy(number=3, run=1, start=6, offset=0, length=2)
    Copy(number=3, run=1, start=0, offset=2, length=2)
    """

    ring: int
    start: int
    spacing: int
    width: int
    count: int
    copies: tuple[Copy, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """List the copies once."""
        object.__setattr__(self, "copies", tuple(self._copies()))

    def _copies(self) -> Iterator[Copy]:
        number = 0
        while number < self.count:
            start = (self.start + number * self.spacing) % self.ring
            room = self.ring - start
            if room < self.width:
                yield Copy(number, 1, start, 0, room)
                yield Copy(number, 1, 0, room, self.width - room)
                number += 1
            else:
                run = min((room - self.width) // self.spacing + 1, self.count - number)
                yield Copy(number, run, start, 0, self.width)
                number += run

    @property
    def channels(self) -> int:
        """The channels of all slices together."""
        return self.count * self.width

    @property
    def is_ring(self) -> bool:
        """Whether the slices one after the other are the ring itself."""
        return self.start == 0 and self.width == self.spacing


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """The sorted filters of an RPW layer.

    `distinct` (P) windows of `width` (w) channels start `pitch` (d) channels apart; each has
    `per_window` (F) filters, 0 if they do not all have as many: then there are no tiles.
    `order`: the filters by their windows' starts [C_out]; `place`: the place of each filter in it.
    `plain`: sorting leaves the windows where they are, as it does when the step divides C_in; then
    sorting filters [F, P] -> [P, F] is a transposition.
    """

    windows: Windows
    pitch: int
    distinct: int
    per_window: int
    order: Index
    place: Index
    plain: bool

    @classmethod
    def of(cls, windows: Windows) -> Self:
        """Return the band of a windows table."""
        filters = np.arange(windows.out_channels, dtype=np.int64)
        starts = np.array(windows.starts)
        order = np.argsort(starts[filters % windows.distinct], kind="stable")
        return cls(
            windows,
            gcd(windows.step, windows.in_channels),
            windows.distinct,
            0 if windows.out_channels % windows.distinct else windows.filters[0],
            order,
            np.argsort(order, kind="stable"),
            bool((np.diff(starts) > 0).all()),
        )

    @property
    def reach(self) -> int:
        """The windows before a window that still read its first channel."""
        return (self.windows.width - 1) // self.pitch

    @cache  # noqa: B019 - band_of holds on to few bands
    def tile_channels(self, tiles: int) -> Slices:
        """Return which input channels each tile reads, if the windows are cut into that many."""
        width = self.windows.width + (self.distinct // tiles - 1) * self.pitch
        ring = self.windows.in_channels
        return Slices(ring, 0, ring // tiles, width, tiles)

    @cache  # noqa: B019
    def tile_filters(self, tiles: int) -> Slices:
        """Return which sorted filters read each block of C_in / tiles input channels."""
        count, each = self.distinct // tiles + self.reach, self.per_window
        ring = self.windows.out_channels
        return Slices(ring, -self.reach * each % ring, ring // tiles, count * each, tiles)


def band_of(windows: Windows) -> Band:
    """Return the band of a windows table, computed once."""
    # Four numbers are the table; hashing its tuples takes longer than a small convolution.
    return _band_of(windows.in_channels, windows.out_channels, windows.width, windows.step)


@lru_cache(maxsize=256)
def _band_of(*table: int) -> Band:
    return Band.of(windows_at(*table))


def read_channels(windows: Windows) -> Index:
    """Return the input channels that each filter reads [C_out, w]."""
    return _read_channels(windows.in_channels, windows.out_channels, windows.width, windows.step)


@lru_cache(maxsize=64)
def _read_channels(c_in: int, c_out: int, width: int, step: int) -> Index:
    filters = np.arange(c_out, dtype=np.int64)[:, None]
    return (filters * step + np.arange(width, dtype=np.int64)) % c_in
