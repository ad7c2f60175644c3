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
from itertools import product
from math import perm
from typing import Literal, NamedTuple, Protocol, get_args

from ifspace.enumerate.alphabet import (
    BEFORE,
    BETWEEN,
    FIRST,
    Alphabet,
    LetterWord,
    Word,
)
from ifspace.errors import SettingError
from ifspace.kinds import find_kind

Patterns = Literal["whole", "any", "keep"]


def of_length(kinds: Sequence[str], length: int) -> Iterator[Word]:
    """Yield every composition of one length, in canonical order.

    >>> ["+".join(word) for word in of_length(("PW", "DW"), 2)]
    ['PW+PW', 'PW+DW', 'DW+PW', 'DW+DW']
    """
    return product(kinds, repeat=length)


def up_to_length(kinds: Sequence[str], length: int) -> Iterator[Word]:
    """Yield every composition of lengths 1 to `length`, in canonical order."""
    for n in range(1, length + 1):
        yield from of_length(kinds, n)


def is_repeated(word: Sequence[str]) -> bool:
    """Return whether the word is a shorter one written two or more times.

    >>> is_repeated(("DW", "PW", "DW", "PW")), is_repeated(("DW", "DW", "PW"))
    (True, False)
    """
    n = len(word)
    return any(
        n % period == 0 and all(word[i] == word[i - period] for i in range(period, n))
        for period in range(1, n // 2 + 1)
    )


def has_square(word: Sequence[str]) -> bool:
    """Return whether some part of the word stands twice in a row.

    >>> has_square(("DW", "RPW", "RPW")), has_square(("DW", "RPW", "PW"))
    (True, False)
    """
    return any(
        word[start : start + size] == word[start + size : start + 2 * size]
        for size in range(1, len(word) // 2 + 1)
        for start in range(len(word) - 2 * size + 1)
    )


def rejects(word: Sequence[str], patterns: Patterns) -> bool:
    """Return whether a mode of repeated-pattern pruning drops the composition.

    Raises: SettingError for an unknown mode.

    Reference: [Fog] section 3.1.
    """
    if patterns == "keep":
        return False
    if patterns == "whole":
        return is_repeated(word)
    if patterns == "any":
        return has_square(word)
    raise SettingError.because(
        "unknown mode of repeated patterns",
        got=repr(patterns),
        allowed=", ".join(get_args(Patterns)),
        remedy="choose one",
    )


def count(alphabet: int, length: int, patterns: Patterns = "keep") -> int:
    """Return how many compositions of one length over so many kinds a mode keeps.

    >>> [count(6, n, "whole") for n in range(1, 7)]
    [6, 30, 210, 1260, 7770, 46410]
    >>> [count(4, n, "any") for n in range(1, 7)]
    [4, 12, 36, 96, 264, 696]
    """
    if patterns == "keep":
        return int(alphabet**length)
    if patterns == "whole":
        # Every word is one primitive word written length / d times: subtract the shorter ones.
        shorter = (count(alphabet, d, "whole") for d in range(1, length) if length % d == 0)
        return int(alphabet**length) - sum(shorter)
    return sum(perm(alphabet, letters) for letters in _square_free_shapes(alphabet, length))


def _square_free_shapes(alphabet: int, length: int) -> Iterator[int]:
    """Yield the number of letters of each square-free word, up to renaming its letters.

    Letters are numbered in the order of their first appearance, so that one shape stands for
    perm(alphabet, letters) words.
    """

    def grow(word: tuple[int, ...], used: int) -> Iterator[int]:
        if len(word) == length:
            yield used
            return
        for letter in range(min(used + 1, alphabet)):
            longer = (*word, letter)
            # Every part but those that end here has been looked at before.
            n = len(longer)
            if not any(longer[n - s :] == longer[n - 2 * s : n - s] for s in range(1, n // 2 + 1)):
                yield from grow(longer, max(used, letter + 1))

    return grow((), 0)


class Pruner(Protocol):
    """What a search engine can say of words before it solves them."""

    def may_begin(self, beginning: LetterWord) -> bool:
        """Return False when no word that begins so survives; shorter beginnings were asked."""

    def may_be(self, word: LetterWord) -> bool:
        """Return False when the whole word cannot survive."""


class _Beginning(NamedTuple):
    """A composition so far: letters whose role is settled, and kinds that still wait for theirs.

    A layer's role, and so its letter, is settled once a later channel-mixing layer shows that it
    is not the last one. `waiting`: kind and whether it stands before the stride.
    """

    kinds: Word
    letters: LetterWord
    waiting: tuple[tuple[str, bool], ...]
    mixed: bool
    spatial: bool


def candidates(
    alphabet: Alphabet, pruner: Pruner, choices: Sequence[Sequence[str]]
) -> Iterator[tuple[Word, LetterWord]]:
    """Yield compositions and their channel words, one kind from each of `choices`, in their order.

    Only what the pruner knows to be dead, or has not exactly one spatial layer, is left out.
    """
    rows = {kind: find_kind(kind) for each in choices for kind in each}
    mixes = {kind: row.mixing for kind, row in rows.items()}
    is_spatial = {kind: row.spatial for kind, row in rows.items()}
    # Places from which no spatial layer can follow any more.
    last_spatial = max(
        (place for place, each in enumerate(choices) if any(is_spatial[kind] for kind in each)),
        default=-1,
    )

    def settled(now: _Beginning) -> _Beginning | None:
        kinds, letters, waiting, mixed, spatial = now
        for kind, ahead in waiting:
            role = BETWEEN if mixed else FIRST if mixes[kind] else BEFORE
            mixed = mixed or mixes[kind]
            letter = alphabet.letter(kind, role, ahead)
            if not alphabet.letters[letter].neutral:
                letters = (*letters, letter)
                if not pruner.may_begin(letters):
                    return None
        return _Beginning(kinds, letters, (), mixed, spatial)

    def grow(now: _Beginning) -> Iterator[tuple[Word, LetterWord]]:
        place = len(now.kinds)
        if place == len(choices):
            word = alphabet.word(now.kinds)
            if word is not None and pruner.may_be(word):
                yield now.kinds, word
            return
        # Settle what waits before the next mixing layer once, not for each kind of it.
        before_mixing = settled(now) if any(mixes[kind] for kind in choices[place]) else None
        for kind in choices[place]:
            base = before_mixing if mixes[kind] else now
            if base is None or (is_spatial[kind] and now.spatial):
                continue
            spatial = now.spatial or is_spatial[kind]
            if not spatial and place >= last_spatial:
                continue
            waiting = (*base.waiting, (kind, not spatial))
            yield from grow(
                _Beginning((*now.kinds, kind), base.letters, waiting, base.mixed, spatial)
            )

    return grow(_Beginning((), (), (), mixed=False, spatial=False))
