"""Compositions as tuples of kinds: count them, detect repeated patterns, list the candidates.

A composition is repeated as a whole when it is a shorter one written two or more times; it holds a
square when some part of it occurs twice in a row. [Fog] section 3.1 drops such patterns before any
other test.

Most of the others are never listed. A block that has the spatial field of r convolutions CONV(k)
holds, in each of its r copies, exactly one layer of size k, since every further one would widen the
field. So a composition without a spatial layer, or with two, is never a candidate; and when an
engine knows that a prefix cannot survive, everything that begins with it is skipped.
"""

from collections.abc import Iterator, Sequence
from math import perm
from typing import Literal, NamedTuple, Protocol, get_args

from ifspace.enumerate.alphabet import BEFORE, BETWEEN, FIRST, Alphabet, Kinds, Letters
from ifspace.errors import SettingError
from ifspace.kinds import find_kind

Patterns = Literal["whole", "any", "keep"]


def is_repeated(kinds: Sequence[str]) -> bool:
    """Return whether the composition is a shorter one written two or more times.

    >>> is_repeated(("DW", "PW", "DW", "PW")), is_repeated(("DW", "DW", "PW"))
    (True, False)
    """
    n = len(kinds)
    return any(
        n % period == 0 and all(kinds[i] == kinds[i - period] for i in range(period, n))
        for period in range(1, n // 2 + 1)
    )


def has_square(kinds: Sequence[str]) -> bool:
    """Return whether some part of the composition occurs twice in a row.

    >>> has_square(("DW", "RPW", "RPW")), has_square(("DW", "RPW", "PW"))
    (True, False)
    """
    return any(
        kinds[start : start + size] == kinds[start + size : start + 2 * size]
        for size in range(1, len(kinds) // 2 + 1)
        for start in range(len(kinds) - 2 * size + 1)
    )


def is_dropped(kinds: Sequence[str], patterns: Patterns) -> bool:
    """Return whether a mode of repeated patterns drops the composition.

    Raises: SettingError for an unknown mode.

    Reference: [Fog] section 3.1.
    """
    if patterns == "keep":
        return False
    if patterns == "whole":
        return is_repeated(kinds)
    if patterns == "any":
        return has_square(kinds)
    raise SettingError.because(
        "unknown mode of repeated patterns",
        got=repr(patterns),
        allowed=", ".join(get_args(Patterns)),
        remedy="choose one",
    )


def count_kept(kinds: int, length: int, patterns: Patterns = "keep") -> int:
    """Return how many compositions of a length over a number of kinds a mode keeps.

    >>> [count_kept(6, n, "whole") for n in range(1, 7)]
    [6, 30, 210, 1260, 7770, 46410]
    >>> [count_kept(4, n, "any") for n in range(1, 7)]
    [4, 12, 36, 96, 264, 696]
    """
    if patterns == "keep":
        return int(kinds**length)
    if patterns == "whole":
        # Each composition is a primitive one written length / d times: subtract the shorter ones.
        shorter = (count_kept(kinds, d, "whole") for d in range(1, length) if length % d == 0)
        return int(kinds**length) - sum(shorter)
    return sum(perm(kinds, distinct) for distinct in _square_free_shapes(kinds, length))


def _square_free_shapes(kinds: int, length: int) -> Iterator[int]:
    """Yield the number of distinct kinds of each square-free composition, up to renaming them.

    Kinds are numbered in the order of their first appearance, so that one shape stands for
    perm(kinds, distinct) compositions.
    """

    def grow(shape: tuple[int, ...], distinct: int) -> Iterator[int]:
        if len(shape) == length:
            yield distinct
            return
        for kind in range(min(distinct + 1, kinds)):
            longer = (*shape, kind)
            # Only a square that ends here is new: the shorter shape has none.
            n = len(longer)
            if not any(longer[n - s :] == longer[n - 2 * s : n - s] for s in range(1, n // 2 + 1)):
                yield from grow(longer, max(distinct, kind + 1))

    return grow((), 0)


class Pruner(Protocol):
    """What a search engine can rule out before it solves anything."""

    def may_begin(self, prefix: Letters) -> bool:
        """Return False when no sequence with that prefix survives; shorter ones passed before."""

    def may_survive(self, letters: Letters) -> bool:
        """Return False when the whole sequence cannot survive."""


class _Prefix(NamedTuple):
    """A composition so far: letters whose role is settled, and kinds that still wait for theirs.

    A layer's role, and so its letter, is settled once a later channel-mixing layer shows that it
    is not the last one. `waiting`: kind and whether it is before the stride. `mixes`, `spatial`:
    whether a settled layer is channel-mixing, and whether any layer is spatial.
    """

    kinds: Kinds
    letters: Letters
    waiting: tuple[tuple[str, bool], ...]
    mixes: bool
    spatial: bool


def candidates(
    alphabet: Alphabet, pruner: Pruner, choices: Sequence[Sequence[str]]
) -> Iterator[tuple[Kinds, Letters]]:
    """Yield compositions with their channel letters, one kind from each of `choices`, in order.

    Left out is only what the pruner rules out, and what has not exactly one spatial layer.
    """
    convs = {kind: find_kind(kind) for kinds in choices for kind in kinds}
    mixing = {kind: conv.mixing for kind, conv in convs.items()}
    is_spatial = {kind: conv.spatial for kind, conv in convs.items()}
    # No spatial layer can follow any more behind this index.
    last_spatial = max(
        (index for index, kinds in enumerate(choices) if any(is_spatial[kind] for kind in kinds)),
        default=-1,
    )

    def settle(prefix: _Prefix) -> _Prefix | None:
        kinds, letters, waiting, mixes, spatial = prefix
        for kind, before_stride in waiting:
            role = BETWEEN if mixes else FIRST if mixing[kind] else BEFORE
            mixes = mixes or mixing[kind]
            letter = alphabet.letter(kind, role, before_stride)
            if not alphabet.letters[letter].neutral:
                letters = (*letters, letter)
                if not pruner.may_begin(letters):
                    return None
        return _Prefix(kinds, letters, (), mixes, spatial)

    def grow(prefix: _Prefix) -> Iterator[tuple[Kinds, Letters]]:
        index = len(prefix.kinds)
        if index == len(choices):
            letters = alphabet.channel_letters(prefix.kinds)
            if letters is not None and pruner.may_survive(letters):
                yield prefix.kinds, letters
            return
        # Settle what waits before the next mixing layer once, not for each kind of it.
        settled = settle(prefix) if any(mixing[kind] for kind in choices[index]) else None
        for kind in choices[index]:
            base = settled if mixing[kind] else prefix
            if base is None or (is_spatial[kind] and prefix.spatial):
                continue
            spatial = prefix.spatial or is_spatial[kind]
            if not spatial and index >= last_spatial:
                continue
            waiting = (*base.waiting, (kind, not spatial))
            yield from grow(
                _Prefix((*prefix.kinds, kind), base.letters, waiting, base.mixes, spatial)
            )

    return grow(_Prefix((), (), (), mixes=False, spatial=False))
