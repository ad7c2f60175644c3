"""Compositions that could survive, listed without listing all the others.

A block that has the spatial field of r convolutions CONV(k) holds, in each of its r copies, exactly
one layer of size k, since every further one would widen the field. So a composition with no
spatial layer, or with two, is never looked at; and a beginning that an engine knows to be dead is
left with everything that would follow it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from ifspace.enumerate.alphabet import (
    Alphabet,
    LetterWord,
)
from ifspace.enumerate.tracks import BEFORE, BETWEEN, FIRST
from ifspace.enumerate.words import Word
from ifspace.kinds import find_kind


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
