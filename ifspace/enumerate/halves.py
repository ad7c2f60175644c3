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
from itertools import product
from typing import Final

import numpy as np

from ifspace.enumerate.alphabet import (
    Alphabet,
    Amounts,
    Choice,
    Entry,
    Letters,
    Point,
    Solution,
    add_entry,
    points_of,
)
from ifspace.enumerate.bits import BitRows, compose, subset
from ifspace.enumerate.families import Families
from ifspace.enumerate.pairs import (
    Ints,
    another_pair_is_full,
    cheapest_pair,
    count_pairs,
    passing_pairs,
    seen_through,
)
from ifspace.enumerate.states import Options, States

UNLIMITED: Final = 1 << 62


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
        # Of each half the states up to a limit, the largest that was asked for.
        self._halves: dict[Letters, tuple[int, States]] = {}
        self._truncated: dict[tuple[Letters, int], bool] = {}
        self._options: dict[int, Options] = {}
        self._variants: dict[tuple[Letters, Choice], tuple[int, frozenset[int]]] = {}
        # Which families are easier than others, as far as there is room for it.
        self._easier: Ints = np.zeros(1 << 16, np.int64)

    def forget_halves(self) -> None:
        """Drop the halves; families and how they extend are kept."""
        self._halves.clear()
        self._truncated.clear()

    def half(self, letters: Letters, limit: int) -> States:
        """Return the states of all choices of the letters that cost at most the limit.

        There may be some that cost more.
        """
        within, states = self._halves.get(letters, (-1, None))
        if states is None or within < limit:
            if letters:
                outer, letter = self._parted(letters)
                states = self._longer(self.half(outer, limit), letter, limit)
            else:
                states = States.start(self._start(), self._alphabet.start_amounts())
            complete = not self.is_truncated(letters, limit)
            self._halves[letters] = UNLIMITED if complete else limit, states
        return states

    def is_truncated(self, letters: Letters, limit: int) -> bool:
        """Return whether some choice of the letters may cost more than the limit."""
        if not letters:
            return False
        answer = self._truncated.get((letters, limit))
        if answer is None:
            outer, letter = self._parted(letters)
            answer = self.is_truncated(outer, limit)
            if not answer:
                costs = self.half(outer, limit).costs
                within = int(np.searchsorted(costs, limit, "right"))
                most = max((x.cost for x in self._alphabet.letters[letter].options), default=0)
                answer = within > 0 and int(costs[within - 1]) + most > limit
            self._truncated[letters, limit] = answer
        return answer

    def variants(self, letters: Letters, choice: Choice) -> tuple[int, frozenset[int]]:
        """Return the family of one choice of a half, and those with one or more layers left out."""
        if not letters:
            return self._start()[0], frozenset()
        answer = self._variants.get((letters, choice))
        if answer is None:
            outer, index = self._parted(letters)
            if self._upper:
                number, of_outer = choice[0], choice[1:]
            else:
                number, of_outer = choice[-1], choice[:-1]
            own, without = self.variants(outer, of_outer)
            letter = self._alphabet.letters[index]
            relation = letter.options[number].relations[self._followed[0]]
            variants = frozenset(self.families.extend(variant, relation) for variant in without)
            if letter.removable[0]:
                variants |= without | {own}
            answer = self._variants[letters, choice] = self.families.extend(own, relation), variants
        return answer

    def forget_variants(self) -> None:
        """Drop what `variants` has computed."""
        self._variants.clear()

    def _parted(self, letters: Letters) -> tuple[Letters, int]:
        """Return the letters without the one next to the middle, and that one."""
        return (letters[1:], letters[0]) if self._upper else (letters[:-1], letters[-1])

    def _start(self) -> tuple[int, ...]:
        ends = (self._alphabet.tracks.all[track] for track in self._followed)
        widths = (end.c_out if self._upper else end.c_in for end in ends)
        return tuple(self.families.identity(width) for width in widths)

    def _longer(self, states: States, letter_index: int, limit: int) -> States:
        """Return the states of a half with one more letter towards the middle."""
        letter = self._alphabet.letters[letter_index]
        options = self._options.get(letter_index)
        if options is None:
            forms = self._alphabet.times.forms if self._alphabet.times else ()
            options = Options.of(letter, self._followed, len(forms))
            self._options[letter_index] = options
        return states.longer(
            options,
            self.families,
            self._easier,
            self._alphabet,
            limit,
            removable=(letter.removable if self._subsets else letter.tested)[0],
            subsets=self._subsets,
        )


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
        """Keep nothing of single sequences."""
        for side in (self._lower, self._upper):
            side.forget_variants()

    def cheapest(self, sequences: Iterable[Letters]) -> dict[Letters, Solution | None]:
        """Return the cheapest passing choice of every sequence, None where there is none."""
        answers: dict[Letters, Solution | None] = {}
        undecided = list(dict.fromkeys(sequences))
        sides = self._lower, self._upper
        limit, self._failed = self._first_limit(), -1
        while undecided:
            halves = {
                letters: tuple(
                    (side.half(half, limit), side.is_truncated(half, limit))
                    for side, half in zip(sides, self._split(letters), strict=True)
                )
                for letters in undecided
            }
            self._enlarge_memo()
            undecided = []
            for letters, ((low, of_low), (high, of_high)) in halves.items():
                truncated = of_low or of_high
                solution = self._meet(high, low, limit if truncated else UNLIMITED)
                # Whether each half has a state, at any cost.
                possible = (of_low or len(low)) and (of_high or len(high))
                if solution is None and truncated and possible:
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
        meetings: dict[Letters, tuple[States, dict[Letters, States]]] = {}
        for letters in dict.fromkeys(sequences):
            lower, upper = self._split(letters)
            answers[letters] = ()
            low = self._lower.half(lower, UNLIMITED)
            high = self._upper.half(upper, UNLIMITED)
            if len(low) and len(high):
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
        return (len(prefix) < 2 or self.can_be_needed(prefix[-2:])) and (
            len(prefix) < 3 or self.can_be_needed(prefix[-3:])
        )

    def may_survive(self, letters: Letters) -> bool:
        """Return whether all neighbouring letters can be needed together."""
        neighbours = (letters[i : i + n] for n in (2, 3) for i in range(len(letters) + 1 - n))
        return all(map(self.can_be_needed, neighbours))

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
        # A variant that has the family of the whole half sees everything with the other half.
        if bottom in bottom_variants or top in top_variants:
            return False
        return not another_pair_is_full(
            self._memo,
            self._upper.families.pool.arrays(),
            self._lower.families.pool.arrays(),
            np.array([top, *top_variants], np.int64),
            np.array([bottom, *bottom_variants], np.int64),
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

    def _meet(self, high: States, low: States, limit: int) -> Solution | None:
        if not (len(high) and len(low)):
            return None
        cost, top, bottom = cheapest_pair(
            self._memo,
            self._upper.families.pool.arrays(),
            self._lower.families.pool.arrays(),
            high.arrays,
            low.arrays,
            self._subsets,
            limit,
            self.tally,
        )
        if top < 0:
            return None
        return Solution(int(cost), low.choice(bottom) + high.choice(top))

    def _meet_all(
        self, low: States, highs: Mapping[Letters, States]
    ) -> Iterator[tuple[Letters, tuple[Point, ...]]]:
        """Yield the points of one lower half with each of several upper ones."""
        pools = self._upper.families.pool.arrays(), self._lower.families.pool.arrays()
        families = np.unique(np.concatenate([high.families for high in highs.values()]))
        below, places = np.unique(low.families, return_inverse=True)
        count, first = len(low), low.first - low.first[0]
        own, without = seen_through(
            self._memo, *pools, families, below, places[:count], first, places[count:]
        )
        row = np.zeros(families[-1] + 1, np.int64)
        row[families] = np.arange(len(families))
        bottoms, below_amounts = low.classes()
        for upper, high in highs.items():
            tops, amounts = high.classes()
            classes = (tops, amounts), (bottoms, below_amounts)
            if self.alphabet.times:
                pairs = passing_pairs(own, without, row, high.arrays, self._subsets)
                self.tally += len(pairs)
                yield upper, self._points_of_pairs(pairs, high, low, classes)
                continue
            cells = count_pairs(
                own,
                without,
                row,
                (tops, high.counts, len(amounts), high.arrays),
                (bottoms, low.counts, len(below_amounts), low.arrays),
                self._subsets,
            )
            self.tally += int(np.count_nonzero(cells[:, :, 0]))
            yield upper, _points(cells, high, low, classes)

    def _points_of_pairs(
        self, pairs: Ints, high: States, low: States, classes: "_Classes"
    ) -> tuple[Point, ...]:
        """Return the points of pairs of states."""
        merged: dict[Amounts, Entry] = {}
        (tops, top_amounts), (bottoms, bottom_amounts) = classes
        for top, bottom in pairs.tolist():
            above, fan_in, *times = top_amounts[tops[top]]
            below, other, *others = bottom_amounts[bottoms[bottom]]
            amounts = self.alphabet.joined((above + below, min(fan_in, other)), times, others)
            cost = int(high.costs[top] + low.costs[bottom])
            choice = low.choice(bottom) + high.choice(top)
            add_entry(merged, amounts, cost, choice, int(high.counts[top] * low.counts[bottom]))
        return points_of(merged)


# Of the upper and of the lower states, as `States.classes` has them.
_Classes = tuple[tuple[Ints, list[Amounts]], tuple[Ints, list[Amounts]]]


def _points(cells: Ints, high: States, low: States, classes: _Classes) -> tuple[Point, ...]:
    """Return what `count_pairs` found, with classes of the same amounts put together."""
    merged: dict[Amounts, Entry] = {}
    (_, top_amounts), (_, bottom_amounts) = classes
    for top_class, bottom_class in np.argwhere(cells[:, :, 0]).tolist():
        count, top, bottom = cells[top_class, bottom_class].tolist()
        (above, fan_in), (below, other) = top_amounts[top_class], bottom_amounts[bottom_class]
        choice = low.choice(bottom) + high.choice(top)
        cost = int(high.costs[top] + low.costs[bottom])
        add_entry(merged, (above + below, min(fan_in, other)), cost, choice, count)
    return points_of(merged)


def _product(chain: Sequence[BitRows]) -> BitRows:
    """Return the relation of a chain of layers, the lowest first."""
    rows = chain[0]
    for upper in chain[1:]:
        rows = compose(upper, rows)
    return rows
