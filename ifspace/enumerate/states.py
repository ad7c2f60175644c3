"""The states of a half as arrays, and the compiled loops that add a letter to all of them.

A half with millions of choices has thousands of states: each is a few numbers and a short list of
families. Objects of Python would take a kilobyte for one, and most of the time of the search.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from numba import int64, uint64

from ifspace.compiled import compiled
from ifspace.enumerate.alphabet import NO_FAN_IN, Alphabet, Amounts, Choice, Letter
from ifspace.enumerate.families import LISTED, Families, Indices
from ifspace.enumerate.pairs import Ints
from ifspace.enumerate.timed import UNKNOWN_PS

# The columns of a new state before its families and amounts.
_COST, _KEY, _PARENT, _NUMBER, _COUNT, _HASH, _FIXED = range(7)


class Options(NamedTuple):
    """The choices of a letter as arrays: what each costs, connects, reads and takes.

    costs, fan_ins: [choices]; relations: [choices, tracks that a side follows]; times: [choices,
    forms].
    """

    costs: Ints
    relations: Ints
    fan_ins: Ints
    times: Ints

    @classmethod
    def of(cls, letter: Letter, tracks: tuple[int, ...], forms: int) -> Self:
        """Return the choices of a letter on some tracks."""
        options, shape = letter.options, (len(letter.options), -1)
        relations = [[option.relations[track] for track in tracks] for option in options]
        times = [option.times[:forms] for option in options]
        return cls(
            np.array([option.cost for option in options], np.int64),
            np.array(relations, np.int64).reshape(len(options), len(tracks)),
            np.array([option.least_fan_in or NO_FAN_IN for option in options], np.int64),
            np.array(times, np.int64).reshape(shape if forms else (len(options), 0)),
        )


@dataclass(frozen=True, slots=True)
class States:
    """The states of a half, cheapest first, each with its cheapest, first choice.

    A half with its parameters is the families that must see everything (one for each track that is
    followed), the set of those that must not, and its amounts, where choices of different amounts
    are kept apart; two choices of equal state have the same future.

    costs, counts, ranks: [states], of the choice that stands for a state, of how many choices, and
    where that choice is in canonical order. must: [states, tracks]. first, variants: the families
    that must not see everything, in ascending order, of state i at first[i] up to first[i + 1].
    amounts: [states, amounts]. choices: [states, letters].
    """

    costs: Ints
    ranks: Indices
    must: Indices
    first: Ints
    variants: Indices
    counts: Ints
    amounts: Ints
    choices: npt.NDArray[np.int16]

    @classmethod
    def start(cls, own: tuple[int, ...], amounts: Amounts) -> Self:
        """Return the one state of no letter."""
        return cls(
            np.zeros(1, np.int64),
            np.zeros(1, np.int32),
            np.array([own], np.int32),
            np.zeros(2, np.int64),
            np.zeros(0, np.int32),
            np.ones(1, np.int64),
            np.array(amounts, np.int64).reshape(1, len(amounts)),
            np.zeros((1, 0), np.int16),
        )

    def __len__(self) -> int:
        """Return how many states there are."""
        return len(self.costs)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The states as the loops over pairs take them."""
        return self.costs, self.ranks, self.must, self.first, self.variants

    @property
    def families(self) -> Indices:
        """All families of the states."""
        variants = self.variants[self.first[0] : self.first[-1]]
        return np.concatenate([self.must.ravel(), variants])

    def choice(self, state: int) -> Choice:
        """Return the choice that stands for a state."""
        return tuple(self.choices[state].tolist())

    def classes(self) -> tuple[Ints, list[Amounts]]:
        """Return the class of each state, and the amounts of each class: all distinct ones."""
        if not self.amounts.shape[1]:
            return np.zeros(len(self), np.int64), [()]
        amounts, classes = np.unique(self.amounts, axis=0, return_inverse=True)
        return classes.reshape(-1), [tuple(row) for row in amounts.tolist()]

    def longer(
        self,
        options: Options,
        families: Families,
        easier: Ints,
        alphabet: Alphabet,
        limit: int,
        *,
        removable: bool,
        subsets: bool,
    ) -> "States":
        """Return the states with one more letter towards the middle that cost at most the limit.

        easier: a memo of pairs of families. `removable`: whether the letter can be left out;
        `subsets`: variants may lack several layers, not only one.
        """
        families.make_room()
        for family, relation in _missing(self.arrays, options, families.behind, limit).tolist():
            families.extend(family, relation)
        rows, first, variants = _longer(
            (*self.arrays, self.counts, self.amounts),
            options,
            families.behind,
            families.sets.arrays(),
            easier,
            (families.upper, families.by_rows, removable, subsets),
            (limit, alphabet.overlaps),
        )
        order = np.lexsort((rows[:, _KEY], rows[:, _COST]))
        first, variants = _gathered(first, variants, order)
        rows = rows[order]
        ranks = np.empty(len(rows), np.int32)
        ranks[np.argsort(rows[:, _KEY])] = np.arange(len(rows))
        tracks = self.must.shape[1]
        numbers = rows[:, _NUMBER : _NUMBER + 1].astype(np.int16)
        inner = self.choices[rows[:, _PARENT]]
        return States(
            rows[:, _COST].copy(),
            ranks,
            rows[:, _FIXED : _FIXED + tracks].astype(np.int32),
            first,
            variants,
            rows[:, _COUNT].copy(),
            rows[:, _FIXED + tracks :].copy(),
            np.hstack([numbers, inner] if families.upper else [inner, numbers]),
        )


@compiled(nogil=True)
def _missing(states: Any, options: Any, behind: Any, limit: int) -> Any:
    """Return the families and relations of which the table does not say what they make, [n, 2]."""
    costs, _, must, first, variants = states
    option_costs, relations, _, _ = options
    pairs = np.empty((64, 2), np.int64)
    count = 0
    for o in range(len(option_costs)):
        for s in range(len(costs)):
            if costs[s] + option_costs[o] > limit:
                break
            tracks = must.shape[1]
            for x in range(tracks + first[s + 1] - first[s]):
                track = x if x < tracks else 0
                family = must[s, x] if x < tracks else variants[first[s] + x - tracks]
                if behind[family, relations[o, track]] != -1:
                    continue
                behind[family, relations[o, track]] = LISTED
                if count == len(pairs):
                    larger = np.empty((2 * count, 2), np.int64)
                    larger[:count] = pairs
                    pairs = larger
                pairs[count, 0], pairs[count, 1] = family, relations[o, track]
                count += 1
    return pairs[:count]


@compiled(nogil=True)
def _is_easier(sets: Any, memo: Any, family: Any, other: Any, by_rows: bool) -> bool:
    """Return whether `other` sees everything whenever `family` does, whatever they meet.

    `by_rows`: whether each row of `other` contains that of `family`, instead of some set of it.
    """
    if family == other:
        return True
    f, g = int64(family), int64(other)
    slot = ((f * int64(0x9E3779B1)) ^ (g * int64(0x85EBCA6B))) & int64(len(memo) - 1)
    entry = memo[slot]
    if entry >> 1 == (f << 31 | g) + 1:
        return bool(entry & 1)
    data, start, rows, limbs, _ = sets
    wide, recent, answer = limbs[family], 0, True
    for r in range(rows[other]):
        place = start[other] + r * wide
        covered = False
        for t in range(rows[family]):
            row = r if by_rows else (t + recent) % rows[family]
            covered = True
            for q in range(wide):
                if data[start[family] + row * wide + q] & ~data[place + q]:
                    covered = False
                    break
            if covered or by_rows:
                recent = row
                break
        if not covered:
            answer = False
            break
    memo[slot] = ((f << 31 | g) + 1) << 1 | (int64(1) if answer else int64(0))
    return answer


@compiled(nogil=True)
def _mixed(x: Any, value: Any) -> Any:
    x = (x ^ uint64(value)) * uint64(0x9E3779B97F4A7C15)
    return x ^ (x >> uint64(29))


@compiled(nogil=True)
def _longer(
    states: Any, options: Any, behind: Any, sets: Any, memo: Any, flags: Any, bounds: Any
) -> Any:
    """Return the states with one more letter, in no order: rows of numbers, offsets, variants.

    A choice is known by a key that orders it among the others as its numbers do: the state that it
    makes longer, and the number of the letter's own choice.
    """
    costs, ranks, must, first, variants, counts, amounts = states
    option_costs, relations, fan_ins, times = options
    upper, by_rows, removable, subsets = flags
    limit, overlaps = bounds
    n, tracks, measures = len(costs), must.shape[1], amounts.shape[1]
    most = int64(0)
    for s in range(n):
        most = max(most, first[s + 1] - first[s])
    buffer = np.empty(2 * most + 1, np.int32)
    row = np.empty(_FIXED + tracks + measures, np.int64)
    out = np.empty((256, len(row)), np.int64)
    out_first = np.zeros(257, np.int64)
    out_variants = np.empty(1024, np.int32)
    table = np.full(1024, -1, np.int64)
    filled = int64(0)
    for o in range(len(option_costs)):
        relation = relations[o, 0]
        for s in range(n):
            total = costs[s] + option_costs[o]
            if total > limit:
                break
            own = behind[must[s, 0], relation]
            size = int64(0)
            for x in range(first[s], first[s + 1]):
                buffer[size] = behind[variants[x], relation]
                size += 1
            if removable:
                buffer[size] = must[s, 0]
                size += 1
                if subsets:
                    for x in range(first[s], first[s + 1]):
                        buffer[size] = variants[x]
                        size += 1
            size = _sort_distinct(buffer, size)
            needed = True
            for x in range(size):
                if _is_easier(sets, memo, own, buffer[x], by_rows):
                    needed = False
                    break
            if not needed:
                continue
            row[_COST], row[_PARENT], row[_NUMBER], row[_COUNT] = total, s, o, counts[s]
            row[_KEY] = o * n + ranks[s] if upper else ranks[s] * len(option_costs) + o
            for x in range(tracks):
                row[_FIXED + x] = behind[must[s, x], relations[o, x]]
            if measures:
                row[_FIXED + tracks] = total // overlaps
                row[_FIXED + tracks + 1] = min(amounts[s, 1], fan_ins[o])
                for x in range(2, measures):
                    row[_FIXED + tracks + x] = min(amounts[s, x] + times[o, x - 2], UNKNOWN_PS)
            hashed = uint64(0)
            for x in range(_FIXED, len(row)):
                hashed = _mixed(hashed, row[x])
            for x in range(size):
                hashed = _mixed(hashed, buffer[x])
            row[_HASH] = int64(hashed >> uint64(1))
            slot = row[_HASH] & (len(table) - 1)
            while table[slot] >= 0:
                if _is_equal(out, out_first, out_variants, table[slot], row, buffer, size):
                    break
                slot = (slot + 1) & (len(table) - 1)
            if table[slot] >= 0:
                there = out[table[slot]]
                there[_COUNT] += row[_COUNT]
                if total < there[_COST] or (total == there[_COST] and row[_KEY] < there[_KEY]):
                    there[:_COUNT] = row[:_COUNT]
                continue
            if filled == len(out):
                larger = np.empty((2 * filled, len(row)), np.int64)
                larger[:filled] = out
                out = larger
                offsets = np.zeros(2 * filled + 1, np.int64)
                offsets[: filled + 1] = out_first
                out_first = offsets
            while out_first[filled] + size > len(out_variants):
                longer = np.empty(2 * len(out_variants), np.int32)
                longer[: len(out_variants)] = out_variants
                out_variants = longer
            out[filled] = row
            out_variants[out_first[filled] : out_first[filled] + size] = buffer[:size]
            out_first[filled + 1] = out_first[filled] + size
            table[slot] = filled
            filled += 1
            if 2 * filled > len(table):
                table = np.full(2 * len(table), -1, np.int64)
                for index in range(filled):
                    slot = out[index, _HASH] & (len(table) - 1)
                    while table[slot] >= 0:
                        slot = (slot + 1) & (len(table) - 1)
                    table[slot] = index
    return out[:filled], out_first[: filled + 1], out_variants


@compiled(nogil=True)
def _sort_distinct(values: Any, size: int) -> int:
    """Sort the first numbers of an array, each once; return how many there are then."""
    if size > 16:
        values[:size].sort()
    else:
        for i in range(1, size):
            value, j = values[i], i
            while j > 0 and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
    kept = 0
    for i in range(size):
        if kept == 0 or values[i] != values[kept - 1]:
            values[kept] = values[i]
            kept += 1
    return kept


@compiled(nogil=True)
def _is_equal(
    out: Any, first: Any, variants: Any, index: int, row: Any, buffer: Any, size: int
) -> bool:
    """Return whether a state is one that is there already."""
    for x in range(_HASH, len(row)):
        if out[index, x] != row[x]:
            return False
    if first[index + 1] - first[index] != size:
        return False
    for x in range(size):  # noqa: SIM110 - compiled code has no generators
        if variants[first[index] + x] != buffer[x]:
            return False
    return True


@compiled(nogil=True)
def _gathered(first: Any, variants: Any, order: Any) -> Any:
    """Return lists of numbers in another order: offsets, and the numbers."""
    offsets = np.zeros(len(order) + 1, np.int64)
    for i in range(len(order)):
        offsets[i + 1] = offsets[i] + first[order[i] + 1] - first[order[i]]
    numbers = np.empty(offsets[-1], variants.dtype)
    for i in range(len(order)):
        numbers[offsets[i] : offsets[i + 1]] = variants[first[order[i]] : first[order[i] + 1]]
    return offsets, numbers
