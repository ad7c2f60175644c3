"""The families of sets on one side of the middle, and what a further layer makes of them.

A family has an index; its sets are in a `Pool`, flat arrays that compiled code can address. What a
layer makes of a family is computed when it is first asked for, and then is in a table.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ifspace.enumerate.alphabet import Alphabet
from ifspace.enumerate.bits import (
    BitRows,
    canonical,
    compose,
    largest_row,
    pack,
    smallest_row,
    transpose,
)
from ifspace.enumerate.pairs import Ints

# Indices of families, by tens of thousands: 32 bits hold them in half the memory.
Indices = npt.NDArray[np.int32]

# In the table: not computed yet; and for that while a list of those is made.
NOT_YET: Final = -1
LISTED: Final = -2


@dataclass(slots=True)
class Pool:
    """Bit matrices of many shapes in one flat buffer that compiled code can address.

    `start`, `rows`, `columns`: where each begins, its number of rows, and the number of columns
    that are to be seen (lower halves) or of limbs in a row (upper halves). `size`: the smallest row
    (upper) or the largest (lower), for the counting bound.
    """

    data: BitRows
    start: Ints
    rows: Ints
    columns: Ints
    size: Ints
    used: int = 0
    count: int = 0

    @classmethod
    def empty(cls) -> Self:
        """Return a pool without matrices."""
        start, rows, columns, size = (np.zeros(64, np.int64) for _ in range(4))
        return cls(np.zeros(4096, np.uint64), start, rows, columns, size)

    def add(self, matrix: BitRows, columns: int, size: int) -> None:
        """Append a matrix; its index is the count of those before it."""
        flat = matrix.ravel()
        self.data = _with_room(self.data, self.used + len(flat))
        self.start, self.rows, self.columns, self.size = (
            _with_room(array, self.count + 1)
            for array in (self.start, self.rows, self.columns, self.size)
        )
        self.data[self.used : self.used + len(flat)] = flat
        self.start[self.count], self.rows[self.count] = self.used, len(matrix)
        self.columns[self.count], self.size[self.count] = columns, size
        self.used += len(flat)
        self.count += 1

    def arrays(self) -> tuple[BitRows, Ints, Ints, Ints, Ints]:
        """Return the arrays as compiled code takes them."""
        return self.data, self.start, self.rows, self.columns, self.size

    def copy(self) -> Self:
        """Return a pool of the same matrices, to which others can be added."""
        start, rows, columns, size = (array[: self.count].copy() for array in self.arrays()[1:])
        data = self.data[: self.used].copy()
        return type(self)(data, start, rows, columns, size, self.used, self.count)


def _with_room(array: Any, length: int) -> Any:
    if length <= len(array):
        return array
    larger = np.zeros((max(length, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


class Families:
    """The distinct families on one side of the middle, and what a further layer makes of them.

    `sets`: the sets of each family, limbs in a row. `pool`: as pairs are decided by them, those of
    lower halves transposed, a row for each middle channel. `behind`: the family behind one more
    layer, [families, relations], or `NOT_YET`.
    """

    # Whether a family is easier to see through than another row by row, or set by set.
    by_rows = False

    def __init__(self, alphabet: Alphabet, upper: bool) -> None:
        """Start with no families; relations are taken from the alphabet as they are needed."""
        self.upper = upper
        self.sets = Pool.empty()
        self.pool = self.sets if upper else Pool.empty()
        self.behind = np.full((64, 0), NOT_YET, np.int32)
        self._alphabet = alphabet
        # The number of channels that the sets of each family are of.
        self._channels: Ints = np.zeros(64, np.int64)
        self._index: dict[tuple[int, bytes], int] = {}
        self._transposed: dict[int, BitRows] = {}

    def identity(self, channels: int) -> int:
        """Return the family in which every channel sees itself."""
        own = np.arange(channels, dtype=np.int32)[:, None]
        return self._intern(canonical(pack(own, channels)), channels)

    def extend(self, family: int, relation: int) -> int:
        """Return the family behind one more layer, away from the block's end towards the middle."""
        if relation >= self.behind.shape[1]:
            self.make_room()
        extended = int(self.behind[family, relation])
        if extended < 0:
            start, rows, limbs = (x[family] for x in self.sets.arrays()[1:4])
            sets = self.sets.data[start : start + rows * limbs].reshape(rows, limbs)
            channels = self._alphabet.inputs[relation]
            if not self.upper:
                channels = len(self._alphabet.relations[relation])
            extended = self._intern(self._behind(sets, relation), channels)
            self.behind[family, relation] = extended
        return extended

    def make_room(self) -> None:
        """Make the table wide enough for all relations that the alphabet has."""
        relations = len(self._alphabet.relations)
        if relations > self.behind.shape[1]:
            wider = np.full((len(self.behind), relations), NOT_YET, np.int32)
            wider[:, : self.behind.shape[1]] = self.behind
            self.behind = wider

    def arrays(self) -> dict[str, Any]:
        """Return all of it as arrays, which another process can start with."""
        count = self.sets.count
        return {
            "sets": self.sets.copy(),
            "behind": self.behind[:count].copy(),
            "channels": self._channels[:count].copy(),
        }

    def start_with(self, arrays: dict[str, Any]) -> None:
        """Take over the families of an upper side, of the same alphabet, in place of none."""
        self.sets = self.pool = arrays["sets"].copy()
        self.behind, self._channels = arrays["behind"].copy(), arrays["channels"].copy()
        data, start, rows, limbs, _ = self.sets.arrays()
        ends = start + rows * limbs
        for family in range(self.sets.count):
            sets = data[start[family] : ends[family]]
            self._index[self._key(sets, int(self._channels[family]))] = family

    def _behind(self, sets: BitRows, relation: int) -> BitRows:
        rows = self._alphabet.relations[relation] if self.upper else self._transpose(relation)
        behind: BitRows = canonical(compose(sets, rows))
        return behind

    def _transpose(self, relation: int) -> BitRows:
        rows = self._transposed.get(relation)
        if rows is None:
            rows = self._transposed[relation] = transpose(
                self._alphabet.relations[relation], self._alphabet.inputs[relation]
            )
        return rows

    @staticmethod
    def _key(sets: BitRows, channels: int) -> tuple[int, bytes]:
        # Sixteen bytes for some hundred; that two families share them is as good as impossible.
        return channels, blake2b(sets.data, digest_size=16).digest()

    def _intern(self, sets: BitRows, channels: int) -> int:
        key = self._key(sets, channels)
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = self.sets.count
            self._add(sets, channels)
            self._channels = _with_room(self._channels, index + 1)
            self._channels[index] = channels
            if index >= len(self.behind):
                self.behind = _with_room(self.behind, index + 1)
                self.behind[index:] = NOT_YET
        return index

    def _add(self, sets: BitRows, channels: int) -> None:
        self.sets.add(sets, sets.shape[1], smallest_row(sets))
        if not self.upper:
            rows = transpose(sets, channels)
            self.pool.add(rows, len(sets), largest_row(rows))
