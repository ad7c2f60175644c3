"""Compiled functions on sets of channels: 64 channels to a uint64, one matrix row to a set.

A *relation* is a layer as a bit matrix [C_out, C_in / 64]: row j holds the channels that output j
reads. A *family* is a collection of sets as a bit matrix [n, C / 64] in canonical form: no set
twice, no set that contains another (whatever must be true of every set is true of it when it is
true of the smaller one), in the order of a hash, so that equal families have equal bytes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64, njit, uint64


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Return a decorator that compiles a function for speed, and keeps the result if it can.

    Where neither the package nor the user has a folder that can be written to, the code is
    compiled anew in every process.
    """

    def decorate(function: Any) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba: no locator available
            return njit(**options)(function)

    return decorate


def is_kept(function: Any) -> bool:
    """Return whether a compiled function has been kept by an earlier process."""
    folder = getattr(function.stats, "cache_path", None)
    name = f"{function.py_func.__module__.rpartition('.')[2]}.{function.__name__}-"
    return folder is not None and any(Path(folder).glob(f"{name}*.nbc"))


Words = npt.NDArray[np.uint64]

_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def words_for(channels: int) -> int:
    """Return how many 64-bit words hold a set of so many channels."""
    return (channels + 63) // 64


def pack(reads: npt.NDArray[np.int32], c_in: int) -> Words:
    """Return the relation [C_out, words] of a table [C_out, fan-in] of channels read.

    >>> pack(np.array([[0, 1], [65, 0]], dtype=np.int32), 66).tolist()
    [[3, 0], [1, 2]]
    """
    table = np.zeros((reads.shape[0], words_for(c_in) * 64), dtype=np.bool_)
    table[np.arange(reads.shape[0])[:, None], reads] = True
    packed: Words = np.packbits(table, axis=1, bitorder="little").view(np.uint64)
    return packed


@compiled(inline="always")
def _count(x: Any) -> Any:
    x = x - ((x >> uint64(1)) & uint64(0x5555555555555555))
    x = (x & uint64(0x3333333333333333)) + ((x >> uint64(2)) & uint64(0x3333333333333333))
    x = (x + (x >> uint64(4))) & uint64(0x0F0F0F0F0F0F0F0F)
    return int64((x * uint64(0x0101010101010101)) >> uint64(56))


@compiled(inline="always")
def _lowest(x: Any) -> Any:
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
def compose(upper: Words, lower: Words) -> Words:
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
                i = k * 64 + _lowest(x)
                x &= x - _ONE
                for q in range(lower.shape[1]):
                    out[r, q] |= lower[i, q]
    return out


@compiled(nogil=True)
def transpose(rows: Words, columns: int) -> Words:
    """Return the rows [columns, words] that hold the same pairs the other way round."""
    out = np.zeros((columns, (rows.shape[0] + 63) // 64), np.uint64)
    for r in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            x = rows[r, k]
            while x:
                i = k * 64 + _lowest(x)
                x &= x - _ONE
                out[i, r >> 6] |= _ONE << uint64(r & 63)
    return out


@compiled(nogil=True)
def subset(inner: Words, outer: Words) -> bool:
    """Return whether every row of `inner` lies in the row of `outer` at the same place."""
    for r in range(inner.shape[0]):  # noqa: SIM110 - compiled code has no generators
        if not _contains(outer, r, inner, r):
            return False
    return True


@compiled(nogil=True)
def smallest_row(rows: Words) -> Any:
    """Return the size of the smallest set."""
    least = int64(1) << 40
    for r in range(rows.shape[0]):
        least = min(least, _size(rows, r))
    return least


@compiled(nogil=True)
def largest_row(rows: Words) -> Any:
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
def canonical(rows: Words) -> Words:
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
    kept = np.empty(n, np.int64)
    count = 0
    start = 0
    while start < n:
        # Rows of one hash: nearly always one row; told apart and ordered by their words.
        end = start + 1
        while end < n and keys[order[end]] == keys[order[start]]:
            end += 1
        base = count
        for t in range(start, end):
            r = order[t]
            place = count
            known = False
            for p in range(base, count):
                if _contains(rows, kept[p], rows, r) and _contains(rows, r, rows, kept[p]):
                    known = True
                    break
            if known:
                continue
            while place > base and _precedes(rows, r, kept[place - 1]):
                kept[place] = kept[place - 1]
                place -= 1
            kept[place] = r
            count += 1
        start = end
    sizes = np.empty(count, np.int64)
    for a in range(count):
        sizes[a] = _size(rows, kept[a])
    least = sizes[:count].min()
    out = np.empty((count, width), np.uint64)
    filled = 0
    for a in range(count):
        minimal = True
        if sizes[a] > least:
            for b in range(count):
                if sizes[b] < sizes[a] and _contains(rows, kept[a], rows, kept[b]):
                    minimal = False
                    break
        if minimal:
            out[filled] = rows[kept[a]]
            filled += 1
    return out[:filled].copy()


@compiled(nogil=True)
def easier(family: Words, other: Words) -> bool:
    """Return whether every set of `other` contains some set of `family`.

    Then whatever covers, or hits, every set of `family` does so for `other` too.
    """
    n = family.shape[0]
    recent = 0
    for r in range(other.shape[0]):
        found = False
        for t in range(n):
            f = (t + recent) % n
            if _contains(other, r, family, f):
                found = True
                recent = f
                break
        if not found:
            return False
    return True


@compiled(nogil=True)
def covers(
    top: Any, start: int, sets: int, words: int, rows: Any, origin: int, columns: int
) -> bool:
    """Return whether each of the sets at `top[start:]` sees all columns through `rows[origin:]`.

    top: flat sets of middle channels, [sets, words]. rows: flat, one row of `columns` bits to a
    middle channel.
    """
    wide = (columns + 63) >> 6
    last = _ALL if columns & 63 == 0 else (_ONE << uint64(columns & 63)) - _ONE
    if wide == 1:
        for r in range(sets):
            seen = _ZERO
            for k in range(words):
                x = top[start + r * words + k]
                while x:
                    seen |= rows[origin + k * 64 + _lowest(x)]
                    x &= x - _ONE
            if seen != last:
                return False
        return True
    acc = np.empty(wide, np.uint64)
    for r in range(sets):
        acc[:] = _ZERO
        for k in range(words):
            x = top[start + r * words + k]
            while x:
                place = origin + (k * 64 + _lowest(x)) * wide
                x &= x - _ONE
                for q in range(wide):
                    acc[q] |= rows[place + q]
        for q in range(wide - 1):
            if acc[q] != _ALL:
                return False
        if acc[wide - 1] != last:
            return False
    return True
