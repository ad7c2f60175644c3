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

For the front, choices of different amounts are kept apart and all that pass are counted (`points`).

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
    Amounts,
    Choice,
    Entry,
    Letter,
    LetterChoice,
    Letters,
    Point,
    Solution,
    add_entry,
    points_of,
)
from ifspace.enumerate.bits import BitRows, compose, pack, smallest_row, subset


class Algebra(Protocol):
    """Elements are integers; what they mean is the algebra's own."""

    def start(self, channels: int) -> int:
        """Return the element of no layer."""

    def extend(self, element: int, relation: int) -> int:
        """Return the element with a layer, given by its relation, on top."""

    def chain(self, first: int, second: int) -> int:
        """Return the element of the layers of `first` and then those of `second`."""

    def field(self, element: int) -> int:
        """Return IF^c, in channels."""

    def within(self, small: int, large: int) -> bool:
        """Return whether every output sees through `large` all that it sees through `small`."""


class ExactAlgebra:
    """The truth: an element is the index of a bit matrix, row j the inputs that output j sees."""

    def __init__(self, alphabet: Alphabet) -> None:
        """Start with no matrices."""
        self._alphabet = alphabet
        self._matrices: list[BitRows] = []
        self._fields: list[int] = []
        self._index: dict[tuple[int, bytes], int] = {}
        self._extended: dict[tuple[int, int], int] = {}

    def start(self, channels: int) -> int:
        """Return the identity matrix."""
        return self._intern(pack(np.arange(channels, dtype=np.int32)[:, None], channels))

    def extend(self, element: int, relation: int) -> int:
        """Return the product with the layer's relation."""
        extended = self._extended.get((element, relation))
        if extended is None:
            rows = compose(self._alphabet.relations[relation], self._matrices[element])
            extended = self._extended[element, relation] = self._intern(rows)
        return extended

    def chain(self, first: int, second: int) -> int:
        """Return the product of two chains."""
        return self._intern(compose(self._matrices[second], self._matrices[first]))

    def field(self, element: int) -> int:
        """Return the size of the smallest row."""
        return self._fields[element]

    def within(self, small: int, large: int) -> bool:
        """Return whether each row is contained in the row with the same index."""
        return small == large or bool(subset(self._matrices[small], self._matrices[large]))

    def _intern(self, rows: BitRows) -> int:
        key = (len(rows), rows.tobytes())
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = len(self._matrices)
            self._matrices.append(rows)
            self._fields.append(int(smallest_row(rows)))
        return index


class FreeAlgebra:
    """[Fog]: with a free permutation between layers fan-ins multiply, up to the block's width.

    Reference: [Fog] section 3.1.
    """

    def __init__(self, alphabet: Alphabet) -> None:
        """Read the fan-ins from the alphabet's relations."""
        self._alphabet = alphabet
        self._width = alphabet.setting.channels

    def start(self, channels: int) -> int:
        """Return 1: an output sees its own channel."""
        return 1

    def extend(self, element: int, relation: int) -> int:
        """Return the field times the fan-in, at most the width."""
        return min(self._width, element * int(smallest_row(self._alphabet.relations[relation])))

    def chain(self, first: int, second: int) -> int:
        """Return the product of the fields, at most the width."""
        return min(self._width, first * second)

    def field(self, element: int) -> int:
        """Return the element, which is the field."""
        return element

    def within(self, small: int, large: int) -> bool:
        """Return whether the one field is at most the other."""
        return small <= large


@dataclass(frozen=True, slots=True)
class WalkState:
    """What the layers of a prefix do, on every track; and without a layer, where rules need it.

    `first`, `later`: variants of the first copy and of the others, on the track that decides for
    them. `choice`: only where states of different choices must not be merged.
    """

    elements: tuple[int, ...]
    first: frozenset[int]
    later: frozenset[int]
    choice: Choice = ()


# Choices of different amounts are kept apart where the front asks for them.
States = dict[tuple[WalkState, Amounts], Entry]


class ForwardSearch:
    """The cheapest choice of letter sequences under the setting's rule, at any number of copies."""

    def __init__(self, alphabet: Alphabet, algebra: Algebra) -> None:
        """Prepare the search over the letters of an alphabet in an algebra."""
        self.alphabet = alphabet
        self.algebra = algebra
        # How many choices were looked at one by one.
        self.tally: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        setting = alphabet.setting
        self._copies = setting.repeats
        self._early_stop = setting.rule == "early-stop"
        self._keeps_choice = self._early_stop and self._copies > 1
        self._subsets = setting.compact == "subset"
        self._width = setting.channels
        decides, real = alphabet.tracks.decides, alphabet.tracks.real
        self._tracks = tuple(dict.fromkeys(decides + (real or ())))
        self._decides = tuple(self._tracks.index(track) for track in decides)
        self._real = tuple(self._tracks.index(track) for track in real or ())
        self._answers: dict[Letters, Solution | None] = {}
        self._points: dict[Letters, tuple[Point, ...]] = {}
        # The prefixes of the current sequence, from the empty one to all of it.
        self._path: list[tuple[Letters, States]] = []

    def may_begin(self, prefix: Letters) -> bool:
        """Return whether some choice of the prefix has a state."""
        return bool(self._states(prefix))

    def may_survive(self, letters: Letters) -> bool:
        """Return whether some choice of the whole sequence has a state."""
        # Solved while its prefix is on the path: to come back to it would walk it again.
        if self.alphabet.of_points:
            self._points_of(letters)
        else:
            self._answer(letters)
        return bool(self._states(letters))

    def forget_answers(self) -> None:
        """Drop what is known of single sequences: a part counts what it looks at by itself."""
        self._answers.clear()
        self._points.clear()

    def cheapest(self, sequences: Iterable[Letters]) -> dict[Letters, Solution | None]:
        """Return the cheapest passing choice of every sequence, None where there is none."""
        return {letters: self._answer(letters) for letters in dict.fromkeys(sequences)}

    def points(self, sequences: Iterable[Letters]) -> dict[Letters, tuple[Point, ...]]:
        """Return the passing choices of every sequence, by their amounts."""
        return {letters: self._points_of(letters) for letters in dict.fromkeys(sequences)}

    def has_quality(self, letters: Letters) -> bool:
        """Return whether some choice has the full field, whatever else the rule asks."""
        states = {self._start().elements}
        for index in letters:
            options = self.alphabet.letters[index].options
            states = {self._elements(state, option) for state in states for option in options}
        pairs = [self._decides, *([self._real] if self._real else [])]
        return any(
            all(self._sees_all(*(elements[track] for track in pair)) for pair in pairs)
            for elements in states
        )

    def _sees_all(self, first: int, later: int) -> bool:
        """Return whether the first copy and the others in a row have the full field."""
        return self._is_full(self._chain(first, [later] * (self._copies - 1)))

    def irreducible(self, letters: Letters, choice: Choice) -> bool:
        """Return whether no block with one or more layers of this one left out sees everything."""
        state = self._start()
        for letter, option in self._options(letters, choice):
            state = self._extend(state, letter, option, subsets=True)
        return self._passes_compact(state, subsets=True)

    def _answer(self, letters: Letters) -> Solution | None:
        if letters not in self._answers:
            solution: Solution | None = None
            by_cost = sorted(self._states(letters).items(), key=lambda entry: entry[1])
            for (state, _), (cost, choice, _) in by_cost:
                self.tally += 1
                if self._passes(letters, state):
                    solution = Solution(cost, choice)
                    break
            self._answers[letters] = solution
        return self._answers[letters]

    def _points_of(self, letters: Letters) -> tuple[Point, ...]:
        if letters not in self._points:
            merged: dict[Amounts, Entry] = {}
            for (state, amounts), entry in self._states(letters).items():
                self.tally += 1
                if self._passes(letters, state):
                    add_entry(merged, amounts, *entry)
            self._points[letters] = points_of(merged)
        return self._points[letters]

    def _options(self, letters: Letters, choice: Choice) -> Iterator[tuple[Letter, LetterChoice]]:
        for index, number in zip(letters, choice, strict=True):
            letter = self.alphabet.letters[index]
            yield letter, letter.options[number]

    def _start(self) -> WalkState:
        widths = self.alphabet.tracks.all
        elements = tuple(self.algebra.start(widths[track].c_in) for track in self._tracks)
        return WalkState(elements, frozenset(), frozenset())

    def _states(self, letters: Letters) -> States:
        path = self._path
        while path and path[-1][0] != letters[: len(path[-1][0])]:
            path.pop()
        if not path:
            path.append(((), {(self._start(), self.alphabet.start_amounts()): (0, (), 1)}))
        while len(path[-1][0]) < len(letters):
            prefix, states = path[-1]
            longer = letters[: len(prefix) + 1]
            path.append((longer, self._longer(states, self.alphabet.letters[longer[-1]])))
        return path[-1][1]

    def _longer(self, states: States, letter: Letter) -> States:
        """Return the states with one more letter."""
        longer: States = {}
        for (state, amounts), (cost, choice, count) in states.items():
            for number, option in enumerate(letter.options):
                longer_choice = (*choice, number)
                if self._early_stop:
                    extended = self._unless_it_stops(state, letter, option, longer_choice)
                else:
                    extended = self._unless_one_is_idle(
                        self._extend(state, letter, option, self._subsets)
                    )
                if extended is None:
                    continue
                total = cost + option.cost
                key = extended, self.alphabet.amounts(amounts, total, option)
                add_entry(longer, key, total, longer_choice, count)
        return longer

    def _elements(self, elements: tuple[int, ...], option: LetterChoice) -> tuple[int, ...]:
        return tuple(
            self.algebra.extend(element, option.relations[track])
            for element, track in zip(elements, self._tracks, strict=True)
        )

    def _extend(
        self, state: WalkState, letter: Letter, option: LetterChoice, subsets: bool
    ) -> WalkState:
        both_variants = []
        left_out = letter.removable if subsets else letter.tested
        for copy, without in enumerate((state.first, state.later)):
            track = self._decides[copy]
            relation = option.relations[self._tracks[track]]
            variants = {self.algebra.extend(variant, relation) for variant in without}
            if left_out[copy]:
                variants.add(state.elements[track])
                if subsets:
                    variants |= without
            both_variants.append(frozenset(variants))
        first, later = both_variants
        return WalkState(self._elements(state.elements, option), first, later)

    def _unless_one_is_idle(self, state: WalkState) -> WalkState | None:
        """Return the state unless some layer can go whatever follows."""
        for copy, variants in enumerate((state.first, state.later)):
            own = state.elements[self._decides[copy]]
            if any(self.algebra.within(own, variant) for variant in variants):
                return None
        return state

    def _unless_it_stops(
        self, state: WalkState, letter: Letter, option: LetterChoice, choice: Choice
    ) -> WalkState | None:
        """Return the state behind one more layer of the first copy, unless the walk stops."""
        elements = self._elements(state.elements, option)
        track = self._decides[0]
        field = self.algebra.field
        if letter.removable[0] and field(elements[track]) == field(state.elements[track]):
            return None
        return WalkState(elements, frozenset(), frozenset(), choice if self._keeps_choice else ())

    def _chain(self, first: int, later: Iterable[int]) -> int:
        for element in later:
            first = self.algebra.chain(first, element)
        return first

    def _is_full(self, element: int) -> bool:
        return self.algebra.field(element) >= self._width

    def _passes(self, letters: Letters, state: WalkState) -> bool:
        if self._real:
            first, later = (state.elements[track] for track in self._real)
            if not self._sees_all(first, later):
                return False
        if self._early_stop:
            return self._passes_early_stop(letters, state)
        return self._passes_compact(state, self._subsets)

    def _passes_compact(self, state: WalkState, subsets: bool) -> bool:
        first, later = (state.elements[track] for track in self._decides)
        others = self._copies - 1
        if not self._sees_all(first, later):
            return False
        if subsets:
            per_copy = [[first, *state.first], *([[later, *state.later]] * others)]
            chains = list(product(*per_copy))[1:]
        else:
            chains = [(variant, *[later] * others) for variant in state.first]
            for copy in range(others):
                below, above = [later] * copy, [later] * (others - 1 - copy)
                chains += [(first, *below, variant, *above) for variant in state.later]
        return not any(self._is_full(self._chain(chain[0], chain[1:])) for chain in chains)

    def _passes_early_stop(self, letters: Letters, state: WalkState) -> bool:
        element = state.elements[self._decides[0]]
        track = self._tracks[self._decides[1]]
        for _ in range(self._copies - 1):
            for letter, option in self._options(letters, state.choice):
                raised = self.algebra.extend(element, option.relations[track])
                same = self.algebra.field(raised) == self.algebra.field(element)
                if letter.removable[1] and same:
                    return False
                element = raised
        return self._is_full(element)
