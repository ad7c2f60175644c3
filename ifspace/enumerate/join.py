"""The meeting of two halves: compiled search for the cheapest pair that passes the rule.

A lower half is a family of sets of middle channels, one for each (minimal) set of middle channels
that together see one block input; an upper half is a family of the sets of middle channels that
one output reads. The block sees everything when every upper set meets every lower set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64

from ifspace.enumerate.bits import (
    Words,
    covers,
)
from ifspace.enumerate.compiled import compiled

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Pool:
    """Bit matrices of many shapes in one flat buffer that compiled code can address.

    `start`, `rows`, `columns`: where each lies, its number of rows, and the number of columns that
    are to be seen (lower halves) or of words in a row (upper halves). `size`: the smallest row
    (upper) or the largest (lower), for the counting bound.
    """

    data: Words
    start: Ints
    rows: Ints
    columns: Ints
    size: Ints
    used: int = 0
    count: int = 0

    @classmethod
    def empty(cls) -> "Pool":
        """Return a pool without matrices."""
        start, rows, columns, size = (np.zeros(64, np.int64) for _ in range(4))
        return cls(np.zeros(4096, np.uint64), start, rows, columns, size)

    def add(self, matrix: Words, columns: int, size: int) -> None:
        """Append a matrix; its number is the count of those before it."""
        flat = matrix.ravel()
        self.data = _grown(self.data, self.used + len(flat))
        self.start, self.rows, self.columns, self.size = (
            _grown(each, self.count + 1)
            for each in (self.start, self.rows, self.columns, self.size)
        )
        self.data[self.used : self.used + len(flat)] = flat
        place = self.count
        self.start[place], self.rows[place] = self.used, len(matrix)
        self.columns[place], self.size[place] = columns, size
        self.used += len(flat)
        self.count += 1

    def arrays(self) -> tuple[Words, Ints, Ints, Ints, Ints]:
        """Return what compiled code needs."""
        return self.data, self.start, self.rows, self.columns, self.size


def _grown(array: Any, needed: int) -> Any:
    if needed <= len(array):
        return array
    larger = np.zeros(max(needed, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@compiled(nogil=True)
def _slot(memo: Any, t: Any, b: Any) -> Any:
    return ((t * int64(0x9E3779B1)) ^ (b * int64(0x85EBCA6B))) & int64(len(memo) - 1)


@compiled(nogil=True)
def _known(memo: Any, t: Any, b: Any) -> Any:
    """Return 1 or 0 when the table remembers whether the pair is full, else -1."""
    entry = memo[_slot(memo, t, b)]
    if entry >> 1 == (t << 31 | b) + 1:
        return entry & 1
    return int64(-1)


@compiled(nogil=True)
def _full(memo: Any, upper: Any, lower: Any, t: Any, b: Any) -> Any:
    answer = _known(memo, t, b)
    if answer < 0:
        data, start, rows, columns, _ = upper
        below, origin, _, inputs, _ = lower
        seen = covers(data, start[t], rows[t], columns[t], below, origin[b], inputs[b])
        answer = int64(1) if seen else int64(0)
        memo[_slot(memo, t, b)] = ((t << 31 | b) + 1) << 1 | answer
    return answer == 1


@compiled(nogil=True)
def cheapest_pair(
    memo: Any,
    upper: Any,
    lower: Any,
    tops: Any,
    bottoms: Any,
    subsets: bool,
    limit: int,
    tally: Any,
) -> Any:
    """Return (cost, top, bottom) of the first cheapest pair that passes, or (-1, -1, -1).

    tops, bottoms: (cost, rank, must see everything [n, k], offsets, must not see everything),
    sorted by cost then rank; ranks order the choices of equal cost, the lower half first. A pair
    passes when all of the first kind see everything and none of the second does: upper variants
    with the lower half, the upper half with lower variants, and with `subsets` variants of both.
    `limit` is the largest cost of interest. `tally` counts the pairs looked at.
    """
    t_cost, t_rank, t_must, t_from, t_not = tops
    b_cost, b_rank, b_must, b_from, b_not = bottoms
    best, best_t, best_b = limit, int64(-1), int64(-1)
    for ti in range(len(t_cost)):
        if t_cost[ti] + b_cost[0] > best:
            break
        for bi in range(len(b_cost)):
            cost = t_cost[ti] + b_cost[bi]
            if cost > best:
                break
            if cost == best and best_t >= 0:
                # Of equal cost: only a choice earlier in canonical order is of interest.
                if b_rank[bi] > b_rank[best_b]:
                    continue
                if b_rank[bi] == b_rank[best_b] and t_rank[ti] >= t_rank[best_t]:
                    continue
            b = b_must[bi, 0]
            passes = True
            for x in range(t_must.shape[1]):
                # Counting bound: so many channels, each seeing so many inputs at most.
                t = t_must[ti, x]
                if upper[4][t] * lower[4][b] < lower[3][b]:
                    passes = False
            if not passes:
                continue
            tally[0] += 1
            for x in range(t_from[ti], t_from[ti + 1]):
                if _known(memo, t_not[x], b) == 1:
                    passes = False
                    break
            if not passes:
                continue
            for x in range(t_must.shape[1]):
                if not _full(memo, upper, lower, t_must[ti, x], b):
                    passes = False
                    break
            if not passes:
                continue
            for x in range(t_from[ti], t_from[ti + 1]):
                if _full(memo, upper, lower, t_not[x], b):
                    passes = False
                    break
            if not passes:
                continue
            for y in range(b_from[bi], b_from[bi + 1]):
                if _full(memo, upper, lower, t_must[ti, 0], b_not[y]):
                    passes = False
                    break
                if subsets:
                    for x in range(t_from[ti], t_from[ti + 1]):
                        if _full(memo, upper, lower, t_not[x], b_not[y]):
                            passes = False
                            break
                if not passes:
                    break
            if passes:
                best, best_t, best_b = cost, int64(ti), int64(bi)
    if best_t < 0:
        return int64(-1), int64(-1), int64(-1)
    return best, best_t, best_b


@compiled(nogil=True)
def pair_is_full(memo: Any, upper: Any, lower: Any, t: int, b: int) -> bool:
    """Return whether one upper family sees everything through one lower family."""
    return bool(_full(memo, upper, lower, int64(t), int64(b)))
