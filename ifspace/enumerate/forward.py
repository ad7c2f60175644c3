"""Either rule at any number of copies: letter sequences walked from the input, layer by layer.

The copies of a block share their parameters, so a repeated block cannot be split into halves; and
the early stop needs the field after every layer. Here a state is what the layers so far do to
channels, with and without one of them, and again only the cheapest choice of equal states is kept:

* *Compact.* If every output sees through a variant with a layer left out all that it sees with it,
  the layer can go whatever follows, in any copy: such a state is dropped.
* *Early stop.* A layer that keeps the width and is not spatial must raise the channel field. That
  is the whole rule: a spatial layer always widens the field, a second one in a copy exceeds the
  reference, and where the reference is reached before the last layer a later layer either is the
  spatial one, so it was not reached, or leaves the field as it was. Copies of a repeated block are
  walked with the choice at hand, so there choices are not merged.

What a chain of layers does to channels is an element of an *algebra*: exact, or [Fog]'s, in which
channels may be permuted freely between layers. Both extend an element by a layer, chain two
elements, and return the smallest number of block inputs that an output sees.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ifspace.enumerate.alphabet import (
    Alphabet,
    Letter,
    LetterWord,
    Option,
)
from ifspace.enumerate.bits import (
    Words,
    compose,
    pack,
    smallest_row,
    subset,
)
from ifspace.enumerate.halves import Choice, Found


class Algebra(Protocol):
    """Elements are integers; what they mean is the algebra's own."""

    def start(self, channels: int) -> int:
        """Return the element of no layer."""

    def extend(self, element: int, relation: int) -> int:
        """Return the element with a layer, given by its relation, on top."""

    def behind(self, first: int, second: int) -> int:
        """Return the element of the chain `first` and then the chain `second`."""

    def field(self, element: int) -> int:
        """Return IF^c, in channels."""

    def within(self, small: int, large: int) -> bool:
        """Return whether every output sees through `large` all that it sees through `small`."""


class ExactAlgebra:
    """The truth: an element is the number of a matrix, row j the inputs that output j sees."""

    def __init__(self, alphabet: Alphabet) -> None:
        """Start with no matrices."""
        self._alphabet = alphabet
        self._matrices: list[Words] = []
        self._fields: list[int] = []
        self._ids: dict[tuple[int, bytes], int] = {}
        self._extended: dict[tuple[int, int], int] = {}

    def start(self, channels: int) -> int:
        """Return the identity matrix."""
        return self._intern(pack(np.arange(channels, dtype=np.int32)[:, None], channels))

    def extend(self, element: int, relation: int) -> int:
        """Return the product with the layer's relation."""
        known = self._extended.get((element, relation))
        if known is None:
            rows = compose(self._alphabet.relations[relation], self._matrices[element])
            known = self._extended[element, relation] = self._intern(rows)
        return known

    def behind(self, first: int, second: int) -> int:
        """Return the product of two chains."""
        return self._intern(compose(self._matrices[second], self._matrices[first]))

    def field(self, element: int) -> int:
        """Return the size of the smallest row."""
        return self._fields[element]

    def within(self, small: int, large: int) -> bool:
        """Return whether each row lies in the row at the same place."""
        return small == large or bool(subset(self._matrices[small], self._matrices[large]))

    def _intern(self, rows: Words) -> int:
        key = (len(rows), rows.tobytes())
        known = self._ids.get(key)
        if known is None:
            known = self._ids[key] = len(self._matrices)
            self._matrices.append(rows)
            self._fields.append(int(smallest_row(rows)))
        return known


class FreeAlgebra:
    """[Fog]: with a free permutation between layers fan-ins multiply, up to the block's width.

    Reference: [Fog] section 3.1.
    """

    def __init__(self, alphabet: Alphabet) -> None:
        """Read the fan-ins from the alphabet's relations."""
        self._alphabet = alphabet
        self._most = alphabet.setting.channels

    def start(self, channels: int) -> int:
        """Return 1: an output sees its own channel."""
        return 1

    def extend(self, element: int, relation: int) -> int:
        """Return the field times the fan-in, at most the width."""
        return min(self._most, element * int(smallest_row(self._alphabet.relations[relation])))

    def behind(self, first: int, second: int) -> int:
        """Return the product of the fields, at most the width."""
        return min(self._most, first * second)

    def field(self, element: int) -> int:
        """Return the element, which is the field."""
        return element

    def within(self, small: int, large: int) -> bool:
        """Return whether the one field is at most the other."""
        return small <= large


@dataclass(frozen=True, slots=True)
class State:
    """What the layers of a beginning do, on every track; and without a layer, where rules ask.

    `first`, `later`: variants of the first copy and of the others, on the track that decides for
    them. `told`: the choice, where states of different choices must stay apart.
    """

    elements: tuple[int, ...]
    first: frozenset[int]
    later: frozenset[int]
    told: Choice = ()


Held = dict[State, tuple[int, Choice]]


class ForwardSearch:
    """The cheapest choice of channel words under the setting's rule, for any number of copies."""

    def __init__(self, alphabet: Alphabet, algebra: Algebra) -> None:
        """Prepare the search over the letters of an alphabet in an algebra."""
        self.alphabet = alphabet
        self.algebra = algebra
        self.tally: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        setting = alphabet.setting
        self._copies = setting.repeats
        self._early = setting.rule == "early-stop"
        self._apart = self._early and self._copies > 1
        self._subsets = setting.compact == "subset"
        self._width = setting.channels
        decides, real = alphabet.tracks.decides, alphabet.tracks.real
        self._tracks = tuple(dict.fromkeys(decides + (real or ())))
        self._decides = tuple(self._tracks.index(track) for track in decides)
        self._real = tuple(self._tracks.index(track) for track in real or ())
        self._answers: dict[LetterWord, Found | None] = {}
        # The beginnings of the word at hand, from none to all of it.
        self._path: list[tuple[LetterWord, Held]] = []

    def may_begin(self, beginning: LetterWord) -> bool:
        """Return whether some choice of the beginning is still in the race."""
        return bool(self._held(beginning))

    def may_be(self, word: LetterWord) -> bool:
        """Return whether some choice of the word is still in the race."""
        # Solved while its beginning is at hand: to come back to it would walk it again.
        self._answer(word)
        return bool(self._held(word))

    def cheapest(self, words: Iterable[LetterWord]) -> dict[LetterWord, Found | None]:
        """Return the cheapest passing choice of every word, None where there is none."""
        return {word: self._answer(word) for word in dict.fromkeys(words)}

    def _answer(self, word: LetterWord) -> Found | None:
        if word not in self._answers:
            found: Found | None = None
            for state, (cost, choice) in sorted(self._held(word).items(), key=lambda x: x[1]):
                self.tally += 1
                if self._passes(word, state):
                    found = Found(cost, choice)
                    break
            self._answers[word] = found
        return self._answers[word]

    def irreducible(self, word: LetterWord, choice: Choice) -> bool:
        """Return whether no block with one or more layers of this one left out sees everything."""
        state = self._begin()
        for letter, option in self._layers(word, choice):
            state = self._with(state, letter, option, subsets=True)
        return self._passes_compact(state, subsets=True)

    def _layers(self, word: LetterWord, choice: Choice) -> Iterator[tuple[Letter, Option]]:
        for place, number in zip(word, choice, strict=True):
            letter = self.alphabet.letters[place]
            yield letter, letter.options[number]

    def _begin(self) -> State:
        widths = self.alphabet.tracks.all
        elements = tuple(self.algebra.start(widths[track].c_in) for track in self._tracks)
        return State(elements, frozenset(), frozenset())

    def _held(self, word: LetterWord) -> Held:
        path = self._path
        while path and path[-1][0] != word[: len(path[-1][0])]:
            path.pop()
        if not path:
            path.append(((), {self._begin(): (0, ())}))
        while len(path[-1][0]) < len(word):
            beginning, held = path[-1]
            longer = word[: len(beginning) + 1]
            path.append((longer, self._longer(held, self.alphabet.letters[longer[-1]])))
        return path[-1][1]

    def _longer(self, held: Held, letter: Letter) -> Held:
        longer: Held = {}
        for state, (cost, choice) in held.items():
            for number, option in enumerate(letter.options):
                made = (*choice, number)
                if self._early:
                    grown = self._stepped(state, letter, option, made)
                else:
                    grown = self._kept(self._with(state, letter, option, self._subsets))
                if grown is None:
                    continue
                entry = (cost + option.cost, made)
                known = longer.get(grown)
                if known is None or entry < known:
                    longer[grown] = entry
        return longer

    def _extended(self, state: State, option: Option) -> tuple[int, ...]:
        return tuple(
            self.algebra.extend(element, option.relations[track])
            for element, track in zip(state.elements, self._tracks, strict=True)
        )

    def _with(self, state: State, letter: Letter, option: Option, subsets: bool) -> State:
        variants = []
        for copy, held in enumerate((state.first, state.later)):
            place = self._decides[copy]
            relation = option.relations[self._tracks[place]]
            fewer = {self.algebra.extend(variant, relation) for variant in held}
            if letter.removable[copy]:
                fewer.add(state.elements[place])
                if subsets:
                    fewer |= held
            variants.append(frozenset(fewer))
        first, later = variants
        return State(self._extended(state, option), first, later)

    def _kept(self, state: State) -> State | None:
        """Return the state unless some layer can go whatever follows."""
        for copy, variants in enumerate((state.first, state.later)):
            own = state.elements[self._decides[copy]]
            if any(self.algebra.within(own, variant) for variant in variants):
                return None
        return state

    def _stepped(
        self, state: State, letter: Letter, option: Option, choice: Choice
    ) -> State | None:
        """Return the state behind one more layer of the first copy, unless the walk stops."""
        elements = self._extended(state, option)
        place = self._decides[0]
        field = self.algebra.field
        if letter.removable[0] and field(elements[place]) == field(state.elements[place]):
            return None
        return State(elements, frozenset(), frozenset(), choice if self._apart else ())

    def _chain(self, first: int, later: Iterable[int]) -> int:
        for element in later:
            first = self.algebra.behind(first, element)
        return first

    def _full(self, element: int) -> bool:
        return self.algebra.field(element) >= self._width

    def _passes(self, word: LetterWord, state: State) -> bool:
        if self._real:
            first, later = (state.elements[place] for place in self._real)
            if not self._full(self._chain(first, [later] * (self._copies - 1))):
                return False
        if self._early:
            return self._passes_early_stop(word, state)
        return self._passes_compact(state, self._subsets)

    def _passes_compact(self, state: State, subsets: bool) -> bool:
        first, later = (state.elements[place] for place in self._decides)
        others = self._copies - 1
        if not self._full(self._chain(first, [later] * others)):
            return False
        if subsets:
            each = [[first, *state.first], *([[later, *state.later]] * others)]
            chains = list(product(*each))[1:]
        else:
            chains = [(variant, *[later] * others) for variant in state.first]
            for copy in range(others):
                rest = [later] * copy, [later] * (others - 1 - copy)
                chains += [(first, *rest[0], variant, *rest[1]) for variant in state.later]
        return not any(self._full(self._chain(chain[0], chain[1:])) for chain in chains)

    def _passes_early_stop(self, word: LetterWord, state: State) -> bool:
        element = state.elements[self._decides[0]]
        track = self._tracks[self._decides[1]]
        for _ in range(self._copies - 1):
            for letter, option in self._layers(word, state.told):
                raised = self.algebra.extend(element, option.relations[track])
                same = self.algebra.field(raised) == self.algebra.field(element)
                if letter.removable[1] and same:
                    return False
                element = raised
        return self._full(element)
