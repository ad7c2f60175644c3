"""Compiled loops over pairs of halves: the cheapest one that passes, or all of them, counted.

An upper and a lower half make a block. Whether an upper family of sets of middle channels sees
everything through a lower one is decided once for all pairs of halves and kept in a memo.

Two halves pass when the families that must see everything do and those that must not do not. For
one lower half with n states, an upper family is two sets of them, as bits: the states through which
it sees everything, and those with a variant through which it does. What an upper state passes with
is then made of such sets by a handful of operations on 64 states at a time.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64, uint64

from ifspace.compiled import compiled
from ifspace.enumerate.bits import covers, lowest

Ints = npt.NDArray[np.int64]

_ONE = np.uint64(1)


@compiled(nogil=True)
def _slot(memo: Any, t: Any, b: Any) -> Any:
    return ((int64(t) * int64(0x9E3779B1)) ^ (int64(b) * int64(0x85EBCA6B))) & int64(len(memo) - 1)


@compiled(nogil=True)
def _remembered(memo: Any, t: Any, b: Any) -> Any:
    """Return 1 or 0 when the memo has whether the pair is full, else -1."""
    entry = memo[_slot(memo, t, b)]
    if entry >> 1 == (int64(t) << 31 | int64(b)) + 1:
        return entry & 1
    return int64(-1)


@compiled(nogil=True)
def _full(memo: Any, upper: Any, lower: Any, t: Any, b: Any) -> Any:
    answer = _remembered(memo, t, b)
    if answer < 0:
        data, start, rows, columns, _ = upper
        below, origin, _, inputs, _ = lower
        seen = covers(data, start[t], rows[t], columns[t], below, origin[b], inputs[b])
        answer = int64(1) if seen else int64(0)
        memo[_slot(memo, t, b)] = ((int64(t) << 31 | int64(b)) + 1) << 1 | answer
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
                if _remembered(memo, t_not[x], b) == 1:
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
def another_pair_is_full(memo: Any, upper: Any, lower: Any, tops: Any, bottoms: Any) -> bool:
    """Return whether some upper family sees everything through some lower one.

    Of all pairs of `tops` and `bottoms` but that of the first two.
    """
    for x in range(len(tops)):
        for y in range(len(bottoms)):
            if x + y > 0 and _full(memo, upper, lower, tops[x], bottoms[y]):
                return True
    return False


@compiled(nogil=True)
def seen_through(
    memo: Any, upper: Any, lower: Any, tops: Any, bottoms: Any, must: Any, first: Any, variants: Any
) -> Any:
    """Return through which states of a lower half, and of their variants, families see everything.

    tops: families of the upper side, [n]. bottoms: the families of the lower half, each once. must,
    variants: for each state the index in `bottoms` of its own family; of those of its variants,
    which begin at `first`. Two bit matrices [n, states / 64]: the state itself; some variant of it.
    """
    words = (len(must) + 63) // 64
    own = np.zeros((len(tops), words), np.uint64)
    without = np.zeros((len(tops), words), np.uint64)
    full = np.zeros(len(bottoms), np.bool_)
    for f in range(len(tops)):
        t = tops[f]
        for i in range(len(bottoms)):
            b = bottoms[i]
            # Counting bound, as above.
            bounded = upper[4][t] * lower[4][b] < lower[3][b]
            full[i] = not bounded and _full(memo, upper, lower, t, b)
        for s in range(len(must)):
            bit = _ONE << uint64(s & 63)
            if full[must[s]]:
                own[f, s >> 6] |= bit
            for y in range(first[s], first[s + 1]):
                if full[variants[y]]:
                    without[f, s >> 6] |= bit
                    break
    return own, without


@compiled(nogil=True)
def _passing(own: Any, without: Any, row: Any, tops: Any, t: int, q: int, subsets: bool) -> Any:
    """Return which of 64 lower states an upper state passes with, as bits."""
    _, _, t_must, t_from, t_not = tops
    passing = own[row[t_must[t, 0]], q] & ~without[row[t_must[t, 0]], q]
    for x in range(1, t_must.shape[1]):
        passing &= own[row[t_must[t, x]], q]
    for x in range(t_from[t], t_from[t + 1]):
        passing &= ~own[row[t_not[x]], q]
        if subsets:
            passing &= ~without[row[t_not[x]], q]
    return passing


@compiled(nogil=True)
def passing_pairs(own: Any, without: Any, row: Any, tops: Any, subsets: bool) -> Any:
    """Return the pairs of an upper and a lower state that pass, [pairs, 2].

    Arguments as of `count_pairs`. Where choices of many amounts are kept apart there is about one
    pair in a cell, and most of the cells are empty.
    """
    size, filled = 1024, 0
    pairs = np.empty((size, 2), np.int64)
    for t in range(len(tops[0])):
        for q in range(own.shape[1]):
            passing = _passing(own, without, row, tops, t, q, subsets)
            while passing:
                if filled == size:
                    size *= 2
                    larger = np.empty((size, 2), np.int64)
                    larger[:filled] = pairs
                    pairs = larger
                pairs[filled, 0], pairs[filled, 1] = t, q * 64 + lowest(passing)
                passing &= passing - _ONE
                filled += 1
    return pairs[:filled]


@compiled(nogil=True)
def count_pairs(own: Any, without: Any, row: Any, tops: Any, bottoms: Any, subsets: bool) -> Any:
    """Return how many choices of all passing pairs are in each pair of classes, and the first pair.

    own, without: of `seen_through`; row: where they have a family. tops, bottoms: (class, number of
    choices, number of classes), and those of `cheapest_pair`. [classes of tops, classes of bottoms,
    3]: how many choices, and the index of the top and of the bottom of the cheapest pair, of those
    the one that `cheapest_pair` prefers.
    """
    t_class, t_count, t_classes, states = tops
    t_cost, t_rank, _, _, _ = states
    b_class, b_count, b_classes, (b_cost, b_rank, _, _, _) = bottoms
    cells = np.zeros((t_classes, b_classes, 3), np.int64)
    for t in range(len(t_rank)):
        for q in range(own.shape[1]):
            passing = _passing(own, without, row, states, t, q, subsets)
            while passing:
                b = q * 64 + lowest(passing)
                passing &= passing - _ONE
                cell = cells[t_class[t], b_class[b]]
                top, bottom = cell[1], cell[2]
                more = t_cost[t] + b_cost[b] - t_cost[top] - b_cost[bottom]
                if more == 0:
                    more = b_rank[b] - b_rank[bottom]
                if more == 0:
                    more = t_rank[t] - t_rank[top]
                if more < 0 or cell[0] == 0:
                    cell[1], cell[2] = t, b
                cell[0] += t_count[t] * b_count[b]
    return cells
