"""One side of a channel word cut in two: what its layers do to the channels at the cut.

The upper side asks which middle channels an output reads, the lower side which middle channels
together see one input; both grow from their end of the block towards the middle, and both matter
only through their minimal sets. `ifspace.enumerate.halves` says why.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ifspace.enumerate.alphabet import (
    Alphabet,
    Letter,
    LetterWord,
)
from ifspace.enumerate.bits import (
    Words,
    canonical,
    compose,
    easier,
    largest_row,
    pack,
    smallest_row,
    transpose,
)
from ifspace.enumerate.join import Pool

Choice = tuple[int, ...]
# What must see everything (one family to a track), and what must not.
State = tuple[tuple[int, ...], frozenset[int]]


@dataclass(frozen=True, slots=True)
class Table:
    """The states of a half as arrays for compiled code, cheapest first, and their choices."""

    arrays: tuple[Any, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Half:
    """The states of a half word within a cost limit, each with its cheapest, first choice.

    `cut`: some choices were left out because they cost more than the limit. `table` is None where
    no state is left.
    """

    states: dict[State, tuple[int, Choice]]
    cut: bool
    table: Table | None


class Families:
    """The distinct families on one side of the middle, and what a further layer makes of them."""

    def __init__(self, alphabet: Alphabet, upper: bool) -> None:
        """Start with no families; relations are taken from the alphabet as they are needed."""
        self.upper = upper
        self.pool = Pool.empty()
        self._alphabet = alphabet
        self._sets: list[Words] = []
        self._ids: dict[tuple[int, bytes], int] = {}
        self._extended: dict[tuple[int, int], int] = {}
        self._easier: dict[tuple[int, int], bool] = {}
        self._turned: dict[int, Words] = {}

    def identity(self, channels: int) -> int:
        """Return the family in which every channel sees itself."""
        own = np.arange(channels, dtype=np.int32)[:, None]
        return self._intern(canonical(pack(own, channels)), channels)

    def extend(self, family: int, relation: int) -> int:
        """Return the family behind one more layer, away from the block's end towards the middle."""
        known = self._extended.get((family, relation))
        if known is None:
            rows = self._alphabet.relations[relation]
            c_in = self._alphabet.inputs[relation]
            if self.upper:
                grown = self._intern(canonical(compose(self._sets[family], rows)), c_in)
            else:
                turned = self._turned.get(relation)
                if turned is None:
                    turned = self._turned[relation] = transpose(rows, c_in)
                grown = self._intern(canonical(compose(self._sets[family], turned)), len(rows))
            known = self._extended[family, relation] = grown
        return known

    def easier(self, family: int, other: int) -> bool:
        """Return whether `other` sees everything whenever `family` does, whatever they meet."""
        if family == other:
            return True
        known = self._easier.get((family, other))
        if known is None:
            known = self._easier[family, other] = easier(self._sets[family], self._sets[other])
        return known

    def _intern(self, sets: Words, channels: int) -> int:
        key = (channels, sets.tobytes())
        known = self._ids.get(key)
        if known is None:
            known = self._ids[key] = len(self._sets)
            self._sets.append(sets)
            if self.upper:
                self.pool.add(sets, sets.shape[1], smallest_row(sets))
            else:
                rows = transpose(sets, channels)
                self.pool.add(rows, len(sets), largest_row(rows))
        return known


class Side:
    """The halves of channel words on one side of the cut."""

    def __init__(self, alphabet: Alphabet, upper: bool, subsets: bool) -> None:
        """Start with no halves. `subsets`: variants may lack several layers, not only one."""
        self.families = Families(alphabet, upper)
        self._alphabet = alphabet
        self._upper = upper
        self._subsets = subsets
        tracks = alphabet.tracks
        # Below the last channel-mixing layer the block has the widths at which the rule decides,
        # so that only an upper half is followed on a second track.
        real = tracks.real[:1] if upper and tracks.real else ()
        self._followed = (tracks.decides[0], *real)
        self._halves: dict[tuple[LetterWord, int], Half] = {}

    def forget(self) -> None:
        """Drop the halves; families and what is known of them stay."""
        self._halves.clear()

    def half(self, word: LetterWord, limit: int) -> Half:
        """Return the half of a word with all choices that cost at most the limit."""
        known = self._halves.get((word, limit))
        if known is None:
            if word:
                outer, letter = (word[1:], word[0]) if self._upper else (word[:-1], word[-1])
                states, cut = self._longer(self.half(outer, limit), letter, limit)
            else:
                states, cut = {self._start(): (0, ())}, False
            known = self._halves[word, limit] = Half(states, cut, _table(states))
        return known

    def variants(self, word: LetterWord, choice: Choice) -> tuple[int, frozenset[int]]:
        """Return the family of one choice of a half, and those with one or more layers left out."""
        (own, *_), without = self._start()
        order = range(len(word) - 1, -1, -1) if self._upper else range(len(word))
        for place in order:
            letter = self._alphabet.letters[word[place]]
            relation = letter.options[choice[place]].relations[self._followed[0]]
            without = self._without(own, without, letter, relation, subsets=True)
            own = self.families.extend(own, relation)
        return own, without

    def _start(self) -> State:
        ends = (self._alphabet.tracks.all[track] for track in self._followed)
        widths = (end.c_out if self._upper else end.c_in for end in ends)
        return tuple(self.families.identity(width) for width in widths), frozenset()

    def _without(
        self, own: int, without: frozenset[int], letter: Letter, relation: int, subsets: bool
    ) -> frozenset[int]:
        fewer = {self.families.extend(variant, relation) for variant in without}
        if letter.removable[0]:
            fewer.add(own)
            if subsets:
                fewer |= without
        return frozenset(fewer)

    def _longer(
        self, half: Half, place: int, limit: int
    ) -> tuple[dict[State, tuple[int, Choice]], bool]:
        letter = self._alphabet.letters[place]
        families = self.families
        cut = half.cut
        states: dict[State, tuple[int, Choice]] = {}
        for (must, without), (cost, choice) in half.states.items():
            for number, option in enumerate(letter.options):
                total = cost + option.cost
                if total > limit:
                    cut = True
                    continue
                relations = [option.relations[track] for track in self._followed]
                fewer = self._without(must[0], without, letter, relations[0], self._subsets)
                grown = tuple(map(families.extend, must, relations))
                if any(families.easier(grown[0], variant) for variant in fewer):
                    continue
                made = (number, *choice) if self._upper else (*choice, number)
                held = states.get((grown, fewer))
                if held is None or (total, made) < held:
                    states[grown, fewer] = (total, made)
        return states, cut


def _table(states: dict[State, tuple[int, Choice]]) -> Table | None:
    if not states:
        return None
    entries = sorted((cost, choice, state) for state, (cost, choice) in states.items())
    choices = tuple(choice for _, choice, _ in entries)
    by_choice = sorted(range(len(choices)), key=choices.__getitem__)
    rank = np.empty(len(choices), np.int64)
    rank[by_choice] = np.arange(len(choices))
    without = [sorted(state[1]) for _, _, state in entries]
    offsets = np.zeros(len(entries) + 1, np.int64)
    np.cumsum([len(each) for each in without], out=offsets[1:])
    arrays = (
        np.array([cost for cost, _, _ in entries], np.int64),
        rank,
        np.array([state[0] for _, _, state in entries], np.int64),
        offsets,
        np.array([family for each in without for family in each], np.int64),
    )
    return Table(arrays, choices)
