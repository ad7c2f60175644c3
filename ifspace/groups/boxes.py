"""Boxes of choices: which of them have the full field, and how large a box can grow without any.

A box allows several options at each place. What output 0 sees is followed down from the last layer
as a set of channels; choices that agree on the set at some layer have the same future, so a box is
searched over sets, not over choices. Two shuffles of 1024 channels, say, compose to one of nine
permutations, however many pairs of shuffle groups there are.
"""

from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

from ifspace.groups.options import (
    Choice,
    Options,
)

Box = tuple[tuple[int, ...], ...]

# Sets of channels that one search of a box visits, and choices put before the exact field to
# enlarge it by one option: beyond them the box is taken to have a choice with the full field.
MOST_SETS: Final = 4000
MOST_CHECKS: Final = 2
GIVEN_UP: Final[Choice] = ()


class Boxes:
    """Searches of the boxes of one problem; what was seen through a layer is remembered."""

    def __init__(self, options: Options) -> None:
        """Remember the options of every place."""
        self.options = options
        self._fan_ins = [
            [
                options.sized(position % options.length, number)[position // options.length].fan_in
                for number in range(len(options.layers[position % options.length]))
            ]
            for position in range(len(options.chain))
        ]
        self._reads: dict[tuple[int, int], list[npt.NDArray[np.int32]]] = {}
        self._copies = options.problem.composition.repeats
        self._below: dict[tuple[int, int, int], int] = {}
        self._ways: dict[tuple[int, tuple[int, ...], int], list[tuple[int, int]]] = {}
        self._short: dict[tuple[int, Box], set[tuple[int, Choice]]] = {}

    def full_choices(self, box: Box) -> Iterator[Choice]:
        """Yield the choices of a box with the full field, in the order of their numbers."""
        for choice in self._candidates(box):
            if self.options.is_full(choice):
                yield choice

    def grown(self, box: Box) -> Box:
        """Return a larger box without a full choice, given one that has none.

        Option by option, place by place from the first; an option joins its place when no choice
        of the box that it would add has the full field.
        """
        for place, layers in enumerate(self.options.layers):
            for number in range(len(layers)):
                if number not in box[place] and self._is_short(_with(box, place, (number,))):
                    box = _with(box, place, (*box[place], number))
        return box

    def _is_short(self, box: Box) -> bool:
        """Return True if no choice of a box has the full field; False may mean not known."""
        first = self._witness(box)
        if first is None:
            return True
        if first == GIVEN_UP or self.options.is_full(first):
            return False
        candidates = list(islice(self._candidates(box), MOST_CHECKS))
        return len(candidates) < MOST_CHECKS and not any(map(self.options.is_full, candidates))

    def _candidates(self, box: Box) -> Iterator[Choice]:
        """Yield, in order, at least the choices of a box where output 0 sees every channel."""
        if self._witness(box) is None:
            return
        place = next((n for n, numbers in enumerate(box) if len(numbers) > 1), None)
        if place is None:
            yield tuple(number for (number,) in box)
            return
        for number in sorted(box[place]):
            yield from self._candidates(_with(box, place, (number,)))

    def _witness(self, box: Box) -> Choice | None:
        """Return a choice of a box where output 0 sees every channel; None proves there is none."""
        options = self.options
        last = len(options.chain) - 1
        channels = options.problem.channels
        # The most channels that one channel above a layer can see through it and all below.
        reach = [
            prod(
                max(self._fan_ins[p][n] for n in box[p % options.length])
                for p in range(position + 1)
            )
            for position in range(last + 1)
        ]
        # What falls short below a layer does so in every box that is the same from there down.
        short = [
            self._short.setdefault((position, box[: position % options.length + 1]), set())
            for position in range(last + 1)
        ]
        visited = 0

        def full(position: int, seen: int, chosen: Choice) -> Choice | None:
            if position < 0:
                return chosen if seen.bit_count() == channels else None
            if seen.bit_count() * reach[position] < channels:
                return None
            state = (seen, chosen if self._copies > 1 else ())
            if state in short[position]:
                return None
            nonlocal visited
            visited += 1
            if visited > MOST_SETS:
                return GIVEN_UP
            place = position % options.length
            # Lower copies of a repeated block stand as the upper one was chosen.
            free = position + options.length > last
            numbers = box[place] if free else (chosen[last - position - options.length],)
            for number, below in self._ways_down(position, numbers, seen):
                found = full(position - 1, below, (*chosen, number))
                if found is not None:
                    return found
            short[position].add(state)
            return None

        found = full(last, 1, ())
        return found if found is None else found[options.length - 1 :: -1]

    def _ways_down(
        self, position: int, numbers: tuple[int, ...], seen: int
    ) -> list[tuple[int, int]]:
        """Return options of a layer with the channels below it that the channels `seen` read.

        Sets of channels are bits of a whole number. Of a block that is not repeated, an option
        that reads a part of what another does is left out: it cannot see more further down.
        """
        key = (position, numbers, seen)
        ways = self._ways.get(key)
        if ways is None:
            ways = [(number, self._through(position, number, seen)) for number in numbers]
            if self._copies == 1:
                ways.sort(key=lambda way: -way[1].bit_count())
                most: list[tuple[int, int]] = []
                for number, below in ways:
                    if all(below & ~other for _, other in most):
                        most.append((number, below))
                ways = most
            self._ways[key] = ways
        return ways

    def _through(self, position: int, number: int, seen: int) -> int:
        place, copy = position % self.options.length, position // self.options.length
        key = (position, number, seen)
        below = self._below.get(key)
        if below is None:
            reads = self._reads.get((place, number))
            if reads is None:
                reads = [layer.reads() for layer in self.options.sized(place, number)]
                self._reads[place, number] = reads
            layer = self.options.chain[position]
            width = -(-layer.c_out // 8)
            bits = np.frombuffer(seen.to_bytes(width, "little"), np.uint8)
            flags = np.zeros(layer.c_in, np.bool_)
            flags[reads[copy][np.unpackbits(bits, bitorder="little").nonzero()]] = True
            packed = np.packbits(flags, bitorder="little").tobytes()
            below = self._below[key] = int.from_bytes(packed, "little")
        return below


def _with(box: Box, place: int, numbers: tuple[int, ...]) -> Box:
    return (*box[:place], numbers, *box[place + 1 :])
