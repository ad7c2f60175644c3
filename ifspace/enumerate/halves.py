"""The compact rule at one copy of the block: halves of letter sequences, met in the middle.

Why nothing is lost, idea by idea:

* *One spatial layer.* The spatial field of a block is 1 + the sum of (k - 1), so a block that
  equals one CONV(k) holds exactly one layer of size k, and the compact condition never takes it
  away. A depthwise layer does nothing else, so all its positions share one letter sequence; a group
  convolution acts on channels like a group pointwise that may stay even when it is not needed.
* *Two sides.* Split a letter sequence anywhere. The block sees everything when every set of middle
  channels that an output reads (upper half) meets every set of middle channels that together see
  one input (lower half). Each side matters only through its minimal sets: a set that contains
  another meets whatever that one meets. So each half becomes a *family* in canonical form; shuffles
  at the ends, permuted outputs and different parameters of equal effect fall together.
* *States.* Leaving out a layer of the upper half changes the upper family and nothing else. A half
  with its parameters is therefore the family that must see everything and the set of families
  (one layer left out each) that must not; two choices of equal state have the same future, and the
  cheaper one, or the first in canonical order, stands for both.
* *Redundant halves.* If every set of a variant with a layer left out contains some set of the
  half itself, the variant sees everything whenever the half does: no completion is compact. By
  the same argument row by row, two or three neighbouring layers of which one adds nothing to any
  row make every sequence around them fail (`can_be_needed`).
* *Counting bound.* A set of a channels that see at most b inputs each sees at most a b inputs.
* *Cheapest first.* Both sides are sorted by cost and met in that order below the best sum. Halves
  above a limit are left out at first; a sequence whose answer costs at most the limit is decided,
  for both of its halves were complete up to there; the others are met again at four times the
  limit, until no half is truncated. So a sequence without an answer has been tried with every
  parameter choice.
* *All of them, for the front.* States of different amounts are kept apart, and all pairs are met:
  `points`; why nothing is lost there is said in `front`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np

from ifspace.enumerate.alphabet import (
    Alphabet,
    Amounts,
    Choice,
    Entry,
    Letter,
    Letters,
    Point,
    Solution,
    add_entry,
    points_of,
)
from ifspace.enumerate.bits import (
    BitRows,
    canonical,
    compose,
    easier,
    largest_row,
    pack,
    smallest_row,
    subset,
    transpose,
)
from ifspace.enumerate.pairs import (
    Ints,
    cheapest_pair,
    count_pairs,
    pair_is_full,
    passing_pairs,
    seen_through,
)

# A half with its parameters: the families that must see everything (one for each track), those
# that must not, and the amounts, where choices of different amounts are kept apart.
State = tuple[tuple[int, ...], frozenset[int], Amounts]

UNLIMITED: Final = 1 << 62


@dataclass(slots=True)
class Pool:
    """Bit matrices of many shapes in one flat buffer that compiled code can address.

    `start`, `rows`, `columns`: where each begins, its number of rows, and the number of columns
    that are to be seen (lower halves) or of limbs in a row (upper halves). `size`: the smallest row
    (upper) or the largest (lower), for the counting bound.
    """

    data: BitRows
    start: Ints
    rows: Ints
    columns: Ints
    size: Ints
    used: int = 0
    count: int = 0

    @classmethod
    def empty(cls) -> "Pool":
        """Return a pool without matrices."""
        start, rows, columns, size = (np.zeros(64, np.int64) for _ in range(4))
        return cls(np.zeros(4096, np.uint64), start, rows, columns, size)

    def add(self, matrix: BitRows, columns: int, size: int) -> None:
        """Append a matrix; its index is the count of those before it."""
        flat = matrix.ravel()
        self.data = _with_room(self.data, self.used + len(flat))
        self.start, self.rows, self.columns, self.size = (
            _with_room(array, self.count + 1)
            for array in (self.start, self.rows, self.columns, self.size)
        )
        self.data[self.used : self.used + len(flat)] = flat
        self.start[self.count], self.rows[self.count] = self.used, len(matrix)
        self.columns[self.count], self.size[self.count] = columns, size
        self.used += len(flat)
        self.count += 1

    def arrays(self) -> tuple[BitRows, Ints, Ints, Ints, Ints]:
        """Return the arrays as compiled code takes them."""
        return self.data, self.start, self.rows, self.columns, self.size


def _with_room(array: Any, length: int) -> Any:
    if length <= len(array):
        return array
    larger = np.zeros(max(length, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@dataclass(frozen=True, slots=True)
class SortedStates:
    """The states of a half as arrays for compiled code, cheapest first, and their choices.

    `amounts`: the distinct amounts of the states; `classes`: which of them each state has;
    `counts`: how many choices.
    """

    arrays: tuple[Any, ...]
    choices: tuple[Choice, ...]
    amounts: tuple[Amounts, ...]
    classes: Ints
    counts: Ints

    @property
    def counted(self) -> tuple[Any, ...]:
        """The states as `count_pairs` takes them."""
        return self.classes, self.counts, len(self.amounts), self.arrays

    @property
    def families(self) -> Ints:
        """All families of the states."""
        return np.concatenate([self.arrays[2].ravel(), self.arrays[4]])

    @classmethod
    def of(cls, states: dict[State, Entry]) -> "SortedStates | None":
        """Return the states sorted by cost, then choice; None where there are none."""
        if not states:
            return None
        # No two states have the same choice.
        entries = sorted(
            (cost, choice, count, state) for state, (cost, choice, count) in states.items()
        )
        choices = tuple(choice for _, choice, _, _ in entries)
        by_choice = sorted(range(len(choices)), key=choices.__getitem__)
        rank = np.empty(len(choices), np.int64)
        rank[by_choice] = np.arange(len(choices))
        variants = [sorted(state[1]) for *_, state in entries]
        offsets = np.zeros(len(entries) + 1, np.int64)
        np.cumsum([len(families) for families in variants], out=offsets[1:])
        arrays = (
            np.array([cost for cost, *_ in entries], np.int64),
            rank,
            np.array([state[0] for *_, state in entries], np.int64),
            offsets,
            np.array([family for families in variants for family in families], np.int64),
        )
        numbers: dict[Amounts, int] = {}
        classes = [numbers.setdefault(state[2], len(numbers)) for *_, state in entries]
        return cls(
            arrays,
            choices,
            tuple(numbers),
            np.array(classes, np.int64),
            np.array([count for _, _, count, _ in entries], np.int64),
        )


@dataclass(frozen=True, slots=True)
class Half:
    """The states of a half within a cost limit, each with its cheapest, first choice.

    `truncated`: some choices were left out because they cost more than the limit. `sorted_states`
    is None where no state is left.
    """

    states: dict[State, Entry]
    truncated: bool
    sorted_states: SortedStates | None

    @property
    def is_dead(self) -> bool:
        """Whether no choice of the half, at any cost, has a state."""
        return not (self.states or self.truncated)


class Families:
    """The distinct families on one side of the middle, and what a further layer makes of them."""

    def __init__(self, alphabet: Alphabet, upper: bool) -> None:
        """Start with no families; relations are taken from the alphabet as they are needed."""
        self.upper = upper
        self.pool = Pool.empty()
        self._alphabet = alphabet
        self._sets: list[BitRows] = []
        self._index: dict[tuple[int, bytes], int] = {}
        self._extended: dict[tuple[int, int], int] = {}
        self._easier: dict[tuple[int, int], bool] = {}
        self._transposed: dict[int, BitRows] = {}

    def identity(self, channels: int) -> int:
        """Return the family in which every channel sees itself."""
        own = np.arange(channels, dtype=np.int32)[:, None]
        return self._intern(canonical(pack(own, channels)), channels)

    def extend(self, family: int, relation: int) -> int:
        """Return the family behind one more layer, away from the block's end towards the middle."""
        extended = self._extended.get((family, relation))
        if extended is None:
            sets = self._behind(self._sets[family], relation)
            channels = self._alphabet.inputs[relation]
            if not self.upper:
                channels = len(self._alphabet.relations[relation])
            extended = self._extended[family, relation] = self._intern(sets, channels)
        return extended

    def easier(self, family: int, other: int) -> bool:
        """Return whether `other` sees everything whenever `family` does, whatever they meet."""
        if family == other:
            return True
        answer = self._easier.get((family, other))
        if answer is None:
            sets = self._sets[family], self._sets[other]
            answer = self._easier[family, other] = self._is_easier(*sets)
        return answer

    def _behind(self, sets: BitRows, relation: int) -> BitRows:
        rows = self._alphabet.relations[relation] if self.upper else self._transpose(relation)
        behind: BitRows = canonical(compose(sets, rows))
        return behind

    def _is_easier(self, sets: BitRows, others: BitRows) -> bool:
        return bool(easier(sets, others))

    def _transpose(self, relation: int) -> BitRows:
        rows = self._transposed.get(relation)
        if rows is None:
            rows = self._transposed[relation] = transpose(
                self._alphabet.relations[relation], self._alphabet.inputs[relation]
            )
        return rows

    def _intern(self, sets: BitRows, channels: int) -> int:
        key = (channels, sets.tobytes())
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = len(self._sets)
            self._sets.append(sets)
            self._add_to_pool(sets, channels)
        return index

    def _add_to_pool(self, sets: BitRows, channels: int) -> None:
        if self.upper:
            self.pool.add(sets, sets.shape[1], smallest_row(sets))
        else:
            rows = transpose(sets, channels)
            self.pool.add(rows, len(sets), largest_row(rows))


class Side:
    """The halves on one side of the middle: what their layers do to the channels there.

    The upper side asks which middle channels an output reads, the lower side which middle channels
    together see one input; both grow from their end of the block towards the middle, and both
    matter only through their minimal sets.
    """

    def __init__(self, alphabet: Alphabet, families: Families, subsets: bool) -> None:
        """Start with no halves. `subsets`: variants may lack several layers, not only one."""
        self.families = families
        upper = families.upper
        self._alphabet = alphabet
        self._upper = upper
        self._subsets = subsets
        tracks = alphabet.tracks
        # Below the last channel-mixing layer the block has the widths at which the rule decides,
        # so that only an upper half is followed on a second track.
        real = tracks.real[:1] if upper and tracks.real else ()
        self._followed = (tracks.decides[0], *real)
        self._halves: dict[tuple[Letters, int], Half] = {}

    def forget_halves(self) -> None:
        """Drop the halves; families and how they extend are kept."""
        self._halves.clear()

    def half(self, letters: Letters, limit: int) -> Half:
        """Return the half with all choices of its letters that cost at most the limit."""
        half = self._halves.get((letters, limit))
        if half is None:
            if letters:
                outer, letter = (
                    (letters[1:], letters[0]) if self._upper else (letters[:-1], letters[-1])
                )
                half = self._longer(self.half(outer, limit), letter, limit)
            else:
                states: dict[State, Entry] = {self._start(): (0, (), 1)}
                half = Half(states, False, SortedStates.of(states))
            self._halves[letters, limit] = half
        return half

    def variants(self, letters: Letters, choice: Choice) -> tuple[int, frozenset[int]]:
        """Return the family of one choice of a half, and those with one or more layers left out."""
        (own, *_), without, _ = self._start()
        indices = range(len(letters))
        for index in reversed(indices) if self._upper else indices:
            letter = self._alphabet.letters[letters[index]]
            relation = letter.options[choice[index]].relations[self._followed[0]]
            without = self._without(own, without, letter, relation, subsets=True)
            own = self.families.extend(own, relation)
        return own, without

    def _start(self) -> State:
        ends = (self._alphabet.tracks.all[track] for track in self._followed)
        widths = (end.c_out if self._upper else end.c_in for end in ends)
        own = tuple(self.families.identity(width) for width in widths)
        return own, frozenset(), self._alphabet.start_amounts()

    def _without(
        self, own: int, without: frozenset[int], letter: Letter, relation: int, subsets: bool
    ) -> frozenset[int]:
        variants = {self.families.extend(variant, relation) for variant in without}
        if (letter.removable if subsets else letter.tested)[0]:
            variants.add(own)
            if subsets:
                variants |= without
        return frozenset(variants)

    def _longer(self, half: Half, letter_index: int, limit: int) -> Half:
        """Return the half with one more letter towards the middle."""
        letter = self._alphabet.letters[letter_index]
        families = self.families
        truncated = half.truncated
        states: dict[State, Entry] = {}
        for (must, without, amounts), (cost, choice, count) in half.states.items():
            for number, option in enumerate(letter.options):
                total = cost + option.cost
                if total > limit:
                    truncated = True
                    continue
                relations = [option.relations[track] for track in self._followed]
                variants = self._without(must[0], without, letter, relations[0], self._subsets)
                extended = tuple(map(families.extend, must, relations))
                if any(families.easier(extended[0], variant) for variant in variants):
                    continue
                longer = (number, *choice) if self._upper else (*choice, number)
                state = extended, variants, self._alphabet.amounts(amounts, total, option)
                add_entry(states, state, total, longer, count)
        return Half(states, truncated, SortedStates.of(states))


class HalfSearch:
    """The cheapest choice of letter sequences under the compact rule, at one copy of the block."""

    families: type[Families] = Families

    def __init__(self, alphabet: Alphabet) -> None:
        """Prepare the search over the letters of an alphabet."""
        self.alphabet = alphabet
        # How many choices were looked at one by one.
        self.tally: Ints = np.zeros(1, np.int64)
        self._subsets = alphabet.setting.compact == "subset"
        self._upper = Side(alphabet, self.families(alphabet, upper=True), self._subsets)
        self._lower = Side(alphabet, self.families(alphabet, upper=False), self._subsets)
        self._memo: Ints = np.zeros(1 << 12, np.int64)
        # All pairs of the sequences at hand that cost at most this fail: of an earlier limit.
        self._failed = -1
        self._can_be_needed: dict[Letters, bool] = {}

    def forget_answers(self) -> None:
        """Keep nothing of single sequences: there is nothing."""

    def cheapest(self, sequences: Iterable[Letters]) -> dict[Letters, Solution | None]:
        """Return the cheapest passing choice of every sequence, None where there is none."""
        answers: dict[Letters, Solution | None] = {}
        undecided = list(dict.fromkeys(sequences))
        limit, self._failed = self._first_limit(), -1
        while undecided:
            halves = {
                letters: (self._lower.half(lower, limit), self._upper.half(upper, limit))
                for letters in undecided
                for lower, upper in [self._split(letters)]
            }
            self._enlarge_memo()
            undecided = []
            for letters, (low, high) in halves.items():
                truncated = low.truncated or high.truncated
                solution = self._meet(high, low, limit if truncated else UNLIMITED)
                if solution is None and truncated and not (low.is_dead or high.is_dead):
                    undecided.append(letters)
                else:
                    answers[letters] = solution
            limit, self._failed = 4 * limit, limit
        # The sequences of a shard share their lower halves, those of all shards their upper ones.
        self._lower.forget_halves()
        return answers

    def points(self, sequences: Iterable[Letters]) -> dict[Letters, tuple[Point, ...]]:
        """Return the passing choices of every sequence, by their amounts."""
        answers: dict[Letters, tuple[Point, ...]] = {}
        # The upper halves that meet a lower one.
        meetings: dict[Letters, tuple[SortedStates, dict[Letters, SortedStates]]] = {}
        for letters in dict.fromkeys(sequences):
            lower, upper = self._split(letters)
            answers[letters] = ()
            low = self._lower.half(lower, UNLIMITED).sorted_states
            high = self._upper.half(upper, UNLIMITED).sorted_states
            if low is not None and high is not None:
                meetings.setdefault(lower, (low, {}))[1][upper] = high
        self._enlarge_memo()
        for lower, (low, highs) in meetings.items():
            for upper, points in self._meet_all(low, highs):
                answers[lower + upper] = points
        self._lower.forget_halves()
        return answers

    def can_be_needed(self, neighbours: Letters) -> bool:
        """Return whether all of two or three neighbouring letters can be needed in some sequence.

        They cannot when every choice of their parameters has a removable layer without which each
        output still reads, row by row, all that it read with it.
        """
        answer = self._can_be_needed.get(neighbours)
        if answer is None:
            answer = self._can_be_needed[neighbours] = self._some_choice_needs_all(neighbours)
        return answer

    def may_begin(self, prefix: Letters) -> bool:
        """Return whether the last letters of the prefix can all be needed together."""
        return all(self.can_be_needed(prefix[-n:]) for n in (2, 3) if len(prefix) >= n)

    def may_survive(self, letters: Letters) -> bool:
        """Return whether all neighbouring letters can be needed together."""
        return all(self.may_begin(letters[:n]) for n in range(2, len(letters) + 1))

    def _some_choice_needs_all(self, neighbours: Letters) -> bool:
        letters = [self.alphabet.letters[index] for index in neighbours]
        relations = self.alphabet.relations
        track = self.alphabet.tracks.decides[0]
        # Small fan-ins first: they are quick to multiply and seldom redundant.
        for options in product(*(letter.options[::-1] for letter in letters)):
            chain = [relations[option.relations[track]] for option in options]
            whole = _product(chain)
            if not any(
                letter.tested[0] and subset(whole, _product(chain[:i] + chain[i + 1 :]))
                for i, letter in enumerate(letters)
            ):
                return True
        return False

    def irreducible(self, letters: Letters, choice: Choice) -> bool:
        """Return whether no block with one or more layers of this one left out sees everything."""
        lower, upper = self._split(letters)
        bottom, bottom_variants = self._lower.variants(lower, choice[: len(lower)])
        top, top_variants = self._upper.variants(upper, choice[len(lower) :])
        pools = self._upper.families.pool.arrays(), self._lower.families.pool.arrays()
        # A variant that has the family of the whole half sees everything with the other half.
        return not (bottom in bottom_variants or top in top_variants) and not any(
            pair_is_full(self._memo, *pools, t, b)
            for t in (top, *top_variants)
            for b in (bottom, *bottom_variants)
            if (t, b) != (top, bottom)
        )

    def _split(self, letters: Letters) -> tuple[Letters, Letters]:
        """Return the lower and the upper half, split in the middle or, if need be, below it.

        A lower half is followed only at the widths at which the rule decides: it ends before the
        first layer that the block really has at other widths.
        """
        middle = len(letters) // 2
        for index in range(middle):
            if self.alphabet.letters[letters[index]].differs:
                middle = index
                break
        return letters[:middle], letters[middle:]

    def _first_limit(self) -> int:
        costs = [option.cost for letter in self.alphabet.letters for option in letter.options]
        return 16 * min((cost for cost in costs if cost), default=1)

    def _enlarge_memo(self) -> None:
        """Make the memo of pairs fit their number: at most 2**23 entries, 64 MiB."""
        pairs = self._upper.families.pool.count * self._lower.families.pool.count
        entries = 1 << min(23, max(12, (2 * pairs).bit_length()))
        if entries > len(self._memo):
            self._memo = np.zeros(entries, np.int64)

    def _meet(self, high: Half, low: Half, limit: int) -> Solution | None:
        if high.sorted_states is None or low.sorted_states is None:
            return None
        cost, top, bottom = cheapest_pair(
            self._memo,
            self._upper.families.pool.arrays(),
            self._lower.families.pool.arrays(),
            high.sorted_states.arrays,
            low.sorted_states.arrays,
            self._subsets,
            limit,
            self.tally,
        )
        if top < 0:
            return None
        choice = low.sorted_states.choices[bottom] + high.sorted_states.choices[top]
        return Solution(int(cost), choice)

    def _meet_all(
        self, low: SortedStates, highs: Mapping[Letters, SortedStates]
    ) -> Iterator[tuple[Letters, tuple[Point, ...]]]:
        """Yield the points of one lower half with each of several upper ones."""
        pools = self._upper.families.pool.arrays(), self._lower.families.pool.arrays()
        families = np.unique(np.concatenate([high.families for high in highs.values()]))
        _, _, must, first, _ = low.arrays
        below, places = np.unique(low.families, return_inverse=True)
        own, without = seen_through(
            self._memo, *pools, families, below, places[: len(must)], first, places[len(must) :]
        )
        row = np.zeros(families[-1] + 1, np.int64)
        row[families] = np.arange(len(families))
        for upper, high in highs.items():
            if self.alphabet.times:
                pairs = passing_pairs(own, without, row, high.arrays, self._subsets)
                self.tally += len(pairs)
                yield upper, self._points_of_pairs(pairs, high, low)
                continue
            cells = count_pairs(own, without, row, high.counted, low.counted, self._subsets)
            self.tally += int(np.count_nonzero(cells[:, :, 0]))
            yield upper, _points(cells, high, low)

    def _points_of_pairs(
        self, pairs: Ints, high: SortedStates, low: SortedStates
    ) -> tuple[Point, ...]:
        """Return the points of pairs of states."""
        merged: dict[Amounts, Entry] = {}
        for top, bottom in pairs.tolist():
            above, fan_in, *times = high.amounts[high.classes[top]]
            below, other, *others = low.amounts[low.classes[bottom]]
            amounts = self.alphabet.joined((above + below, min(fan_in, other)), times, others)
            cost = int(high.arrays[0][top] + low.arrays[0][bottom])
            choice = low.choices[bottom] + high.choices[top]
            add_entry(merged, amounts, cost, choice, int(high.counts[top] * low.counts[bottom]))
        return points_of(merged)


def _points(cells: Ints, high: SortedStates, low: SortedStates) -> tuple[Point, ...]:
    """Return what `count_pairs` found, with classes of the same amounts put together."""
    merged: dict[Amounts, Entry] = {}
    for top_class, bottom_class in np.argwhere(cells[:, :, 0]).tolist():
        count, top, bottom = cells[top_class, bottom_class].tolist()
        (above, fan_in), (below, other) = high.amounts[top_class], low.amounts[bottom_class]
        choice = low.choices[bottom] + high.choices[top]
        cost = int(high.arrays[0][top] + low.arrays[0][bottom])
        add_entry(merged, (above + below, min(fan_in, other)), cost, choice, count)
    return points_of(merged)


def _product(chain: Sequence[BitRows]) -> BitRows:
    """Return the relation of a chain of layers, the lowest first."""
    rows = chain[0]
    for upper in chain[1:]:
        rows = compose(upper, rows)
    return rows
