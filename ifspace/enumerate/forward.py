"""Either rule at any number of copies: channel words walked from the input, layer by layer.

A block's copies share their parameters, so a repeated block cannot be cut in two; and the early
stop asks for the field after every layer. Here a state is what the layers so far do to channels,
with and without one of them, and again only the cheapest choice of equal states is kept:

* *Compact.* If every output sees through a variant with a layer left out all that it sees with it,
  the layer can go whatever follows, in any copy: such a state is dropped.
* *Early stop.* A layer that keeps the width and is not spatial must raise the channel field. That
  is the whole rule: a spatial layer always widens the field, a second one in a copy exceeds the
  reference, and where the reference is reached before the last layer a later layer either is the
  spatial one, so it was not reached, or leaves the field as it was. Copies of a repeated block are
  walked with the choice at hand, so there choices are not merged.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ifspace.enumerate.algebra import Algebra
from ifspace.enumerate.alphabet import (
    Alphabet,
    Letter,
    LetterWord,
    Option,
)
from ifspace.enumerate.halves import Found
from ifspace.enumerate.sides import Choice


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
