"""Compiled functions on sets of channels: 64 channels to a uint64, one matrix row to a set.

A *relation* is a layer as a bit matrix [C_out, C_in / 64]: row j holds the channels that output j
reads. A *family* is a collection of sets as a bit matrix [n, C / 64] in canonical form: no set
twice, no set that contains another (whatever must be true of every set is true of it when it is
true of the smaller one), in the order of a hash, so that equal families have equal bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64, uint64

from ifspace.compiled import compiled

# Sets of channels, one a row: [sets, ceil(channels / 64)].
BitRows = npt.NDArray[np.uint64]

_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def limbs(channels: int) -> int:
    """Return how many 64-bit limbs hold a set of channels.

    >>> limbs(64), limbs(65)
    (1, 2)
    """
    return (channels + 63) // 64


def pack(reads: npt.NDArray[np.int32], c_in: int) -> BitRows:
    """Return the relation [C_out, limbs] of a table [C_out, fan-in] of channels read.

    >>> pack(np.array([[0, 1], [65, 0]], dtype=np.int32), 66).tolist()
    [[3, 0], [1, 2]]
    """
    table = np.zeros((reads.shape[0], limbs(c_in) * 64), dtype=np.bool_)
    table[np.arange(reads.shape[0])[:, None], reads] = True
    packed: BitRows = np.packbits(table, axis=1, bitorder="little").view(np.uint64)
    return packed


@compiled(inline="always")
def _count(x: Any) -> Any:
    x = x - ((x >> uint64(1)) & uint64(0x5555555555555555))
    x = (x & uint64(0x3333333333333333)) + ((x >> uint64(2)) & uint64(0x3333333333333333))
    x = (x + (x >> uint64(4))) & uint64(0x0F0F0F0F0F0F0F0F)
    return int64((x * uint64(0x0101010101010101)) >> uint64(56))


@compiled(inline="always")
def lowest(x: Any) -> Any:
    """Return the index of the lowest bit of a limb."""
    return _count((x & (~x + _ONE)) - _ONE)


@compiled(inline="always")
def _size(rows: Any, r: Any) -> Any:
    size = int64(0)
    for q in range(rows.shape[1]):
        size += _count(rows[r, q])
    return size


@compiled(inline="always")
def _contains(outer: Any, i: Any, inner: Any, j: Any) -> Any:
    for q in range(outer.shape[1]):  # noqa: SIM110 - compiled code has no generators
        if inner[j, q] & ~outer[i, q]:
            return False
    return True


@compiled(nogil=True)
def compose(upper: BitRows, lower: BitRows) -> BitRows:
    """Return the union of the rows of `lower` over each row of `upper`: upper after lower."""
    out = np.zeros((upper.shape[0], lower.shape[1]), np.uint64)
    for r in range(upper.shape[0]):
        # Outputs of one group read the same channels.
        if r > 0 and _contains(upper, r, upper, r - 1) and _contains(upper, r - 1, upper, r):
            out[r] = out[r - 1]
            continue
        for k in range(upper.shape[1]):
            x = upper[r, k]
            while x:
                i = k * 64 + lowest(x)
                x &= x - _ONE
                for q in range(lower.shape[1]):
                    out[r, q] |= lower[i, q]
    return out


@compiled(nogil=True)
def transpose(rows: BitRows, columns: int) -> BitRows:
    """Return the rows [columns, limbs] that hold the same pairs the other way round."""
    out = np.zeros((columns, (rows.shape[0] + 63) // 64), np.uint64)
    for r in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            x = rows[r, k]
            while x:
                i = k * 64 + lowest(x)
                x &= x - _ONE
                out[i, r >> 6] |= _ONE << uint64(r & 63)
    return out


@compiled(nogil=True)
def subset(inner: BitRows, outer: BitRows) -> bool:
    """Return whether every row of `inner` lies in the row of `outer` with the same index."""
    for r in range(inner.shape[0]):  # noqa: SIM110 - compiled code has no generators
        if not _contains(outer, r, inner, r):
            return False
    return True


@compiled(nogil=True)
def smallest_row(rows: BitRows) -> Any:
    """Return the size of the smallest set."""
    least = int64(1) << 40
    for r in range(rows.shape[0]):
        least = min(least, _size(rows, r))
    return least


@compiled(nogil=True)
def largest_row(rows: BitRows) -> Any:
    """Return the size of the largest set."""
    most = int64(0)
    for r in range(rows.shape[0]):
        most = max(most, _size(rows, r))
    return most


@compiled()
def _precedes(rows: Any, a: Any, b: Any) -> Any:
    for q in range(rows.shape[1]):
        if rows[a, q] != rows[b, q]:
            return rows[a, q] < rows[b, q]
    return False


@compiled(nogil=True)
def canonical(rows: BitRows) -> BitRows:
    """Return the family of the minimal sets among the rows: each once, in the order of a hash."""
    n, width = rows.shape
    keys = np.zeros(n, np.uint64)
    for r in range(n):
        x = _ZERO
        for q in range(width):
            x = (x ^ rows[r, q]) * uint64(0x9E3779B97F4A7C15)
            x ^= x >> uint64(29)
        keys[r] = x
    order = np.argsort(keys)
    unique = np.empty(n, np.int64)
    count = 0
    start = 0
    while start < n:
        # Rows of one hash: nearly always one row; distinguished and ordered by their bits.
        end = start + 1
        while end < n and keys[order[end]] == keys[order[start]]:
            end += 1
        base = count
        for t in range(start, end):
            r = order[t]
            slot = count
            repeated = False
            for p in range(base, count):
                if _contains(rows, unique[p], rows, r) and _contains(rows, r, rows, unique[p]):
                    repeated = True
                    break
            if repeated:
                continue
            while slot > base and _precedes(rows, r, unique[slot - 1]):
                unique[slot] = unique[slot - 1]
                slot -= 1
            unique[slot] = r
            count += 1
        start = end
    sizes = np.empty(count, np.int64)
    for a in range(count):
        sizes[a] = _size(rows, unique[a])
    least = sizes[:count].min()
    out = np.empty((count, width), np.uint64)
    filled = 0
    for a in range(count):
        minimal = True
        if sizes[a] > least:
            for b in range(count):
                if sizes[b] < sizes[a] and _contains(rows, unique[a], rows, unique[b]):
                    minimal = False
                    break
        if minimal:
            out[filled] = rows[unique[a]]
            filled += 1
    return out[:filled].copy()


@compiled(nogil=True)
def easier(family: BitRows, other: BitRows) -> bool:
    """Return whether every set of `other` contains some set of `family`.

    Then whatever covers, or hits, every set of `family` does so for `other` too.
    """
    n = family.shape[0]
    recent = 0
    for r in range(other.shape[0]):
        covered = False
        for t in range(n):
            f = (t + recent) % n
            if _contains(other, r, family, f):
                covered = True
                recent = f
                break
        if not covered:
            return False
    return True


@compiled(nogil=True)
def covers(
    top: Any, start: int, sets: int, limbs: int, rows: Any, origin: int, columns: int
) -> bool:
    """Return whether each of the sets at `top[start:]` sees all columns through `rows[origin:]`.

    top: flat sets of middle channels, [sets, limbs]. rows: flat, one row of `columns` bits to a
    middle channel.
    """
    wide = (columns + 63) >> 6
    last = _ALL if columns & 63 == 0 else (_ONE << uint64(columns & 63)) - _ONE
    if wide == 1:
        for r in range(sets):
            seen = _ZERO
            for k in range(limbs):
                x = top[start + r * limbs + k]
                while x:
                    seen |= rows[origin + k * 64 + lowest(x)]
                    x &= x - _ONE
            if seen != last:
                return False
        return True
    acc = np.empty(wide, np.uint64)
    for r in range(sets):
        acc[:] = _ZERO
        for k in range(limbs):
            x = top[start + r * limbs + k]
            while x:
                offset = origin + (k * 64 + lowest(x)) * wide
                x &= x - _ONE
                for q in range(wide):
                    acc[q] |= rows[offset + q]
        for q in range(wide - 1):
            if acc[q] != _ALL:
                return False
        if acc[wide - 1] != last:
            return False
    return True
