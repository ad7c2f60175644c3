"""The compact rule at one copy of the block: halves of channel words, met in the middle.

Why nothing is lost, idea by idea:

* *One spatial layer.* The spatial field of a block is 1 + the sum of (k - 1), so a block that
  equals one CONV(k) holds exactly one layer of size k, and the compact condition never takes it
  away. A depthwise layer does nothing else, so all its places share one channel word; a group
  convolution acts on channels like a group pointwise that may stay even when it is not needed.
* *Two sides.* Cut a channel word anywhere. The block sees everything when every set of middle
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
  row make every word around them fail (`alive`).
* *Counting bound.* A set of a channels that see at most b inputs each sees at most a b inputs.
* *Cheapest first.* Both sides are sorted by cost and met in that order below the best sum. Halves
  above a limit are left out at first; a word whose answer costs at most the limit is decided, for
  both of its halves were there; the others are met again at four times the limit, until no half
  was cut. So a word without an answer has been tried with every parameter choice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ifspace.enumerate.alphabet import (
    Alphabet,
    LetterWord,
)
from ifspace.enumerate.bits import (
    Words,
    compose,
    subset,
)
from ifspace.enumerate.join import cheapest_pair, pair_is_full
from ifspace.enumerate.sides import Choice, Half, Side

UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Found:
    """The cheapest choice of a channel word: its cost and the number of each letter's option."""

    cost: int
    choice: Choice


class HalfSearch:
    """The cheapest choice of channel words under the compact rule, at one copy of the block."""

    def __init__(self, alphabet: Alphabet) -> None:
        """Prepare the search over the letters of an alphabet."""
        self.alphabet = alphabet
        self.tally: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._subsets = alphabet.setting.compact == "subset"
        self._upper = Side(alphabet, upper=True, subsets=self._subsets)
        self._lower = Side(alphabet, upper=False, subsets=self._subsets)
        self._memo: npt.NDArray[np.int64] = np.zeros(1 << 12, np.int64)
        self._alive: dict[LetterWord, bool] = {}

    def cheapest(self, words: Iterable[LetterWord]) -> dict[LetterWord, Found | None]:
        """Return the cheapest passing choice of every word, None where there is none."""
        answers: dict[LetterWord, Found | None] = {}
        open_words = list(dict.fromkeys(words))
        limit = self._first_limit()
        while open_words:
            halves = {
                word: (self._lower.half(low, limit), self._upper.half(high, limit))
                for word in open_words
                for low, high in [self._cut(word)]
            }
            self._remember()
            open_words = []
            for word, (low, high) in halves.items():
                cut = low.cut or high.cut
                found = self._meet(high, low, limit if cut else UNLIMITED)
                dead = not (low.states or low.cut) or not (high.states or high.cut)
                if found is None and cut and not dead:
                    open_words.append(word)
                else:
                    answers[word] = found
            limit *= 4
        # The words of a shard share their lower halves, those of all shards their upper ones.
        self._lower.forget()
        return answers

    def alive(self, part: LetterWord) -> bool:
        """Return whether two or three neighbouring letters can all be of use in some word.

        They cannot when every choice of their parameters has a removable layer without which each
        output still reads, row by row, all that it read with it.
        """
        known = self._alive.get(part)
        if known is None:
            known = self._alive[part] = self._some_use(part)
        return known

    def may_begin(self, beginning: LetterWord) -> bool:
        """Return whether the last letters of the beginning can be of use together."""
        return all(self.alive(beginning[-n:]) for n in (2, 3) if len(beginning) >= n)

    def may_be(self, word: LetterWord) -> bool:
        """Return whether all neighbouring letters of the word can be of use together."""
        return all(self.may_begin(word[:n]) for n in range(2, len(word) + 1))

    def _some_use(self, part: LetterWord) -> bool:
        letters = [self.alphabet.letters[i] for i in part]
        rows = self.alphabet.relations
        track = self.alphabet.tracks.decides[0]
        # Small fan-ins first: they are quick to multiply and seldom redundant.
        for choice in product(*(letter.options[::-1] for letter in letters)):
            chain = [rows[option.relations[track]] for option in choice]
            whole = _product(chain)
            if not any(
                letter.removable[0] and subset(whole, _product(chain[:i] + chain[i + 1 :]))
                for i, letter in enumerate(letters)
            ):
                return True
        return False

    def irreducible(self, word: LetterWord, choice: Choice) -> bool:
        """Return whether no block with one or more layers of this one left out sees everything."""
        low, high = self._cut(word)
        below, lows = self._lower.variants(low, choice[: len(low)])
        above, highs = self._upper.variants(high, choice[len(low) :])
        upper, lower = self._upper.families.pool.arrays(), self._lower.families.pool.arrays()
        # A variant that has the family of the whole half sees everything with the other half.
        return not (below in lows or above in highs) and not any(
            pair_is_full(self._memo, upper, lower, t, b)
            for t in (above, *highs)
            for b in (below, *lows)
            if (t, b) != (above, below)
        )

    def _cut(self, word: LetterWord) -> tuple[LetterWord, LetterWord]:
        """Return the lower and the upper half, cut in the middle or, if need be, below it.

        A lower half is followed only at the widths at which the rule decides: it ends before the
        first layer that the block really has at other widths.
        """
        middle = len(word) // 2
        for place in range(middle):
            if self.alphabet.letters[word[place]].differs:
                middle = place
                break
        return word[:middle], word[middle:]

    def _first_limit(self) -> int:
        costs = [option.cost for letter in self.alphabet.letters for option in letter.options]
        return 16 * min((cost for cost in costs if cost), default=1)

    def _remember(self) -> None:
        """Make the table of pairs fit their number: at most 2**23 entries, 64 MiB."""
        pairs = self._upper.families.pool.count * self._lower.families.pool.count
        entries = 1 << min(23, max(12, (2 * pairs).bit_length()))
        if entries > len(self._memo):
            self._memo = np.zeros(entries, np.int64)

    def _meet(self, high: Half, low: Half, limit: int) -> Found | None:
        if high.table is None or low.table is None:
            return None
        cost, top, bottom = cheapest_pair(
            self._memo,
            self._upper.families.pool.arrays(),
            self._lower.families.pool.arrays(),
            high.table.arrays,
            low.table.arrays,
            self._subsets,
            limit,
            self.tally,
        )
        if top < 0:
            return None
        return Found(int(cost), low.table.choices[bottom] + high.table.choices[top])


def _product(chain: Sequence[Words]) -> Words:
    """Return the rows of a chain of layers, the lowest first."""
    rows = chain[0]
    for upper in chain[1:]:
        rows = compose(upper, rows)
    return rows
