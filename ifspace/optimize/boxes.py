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

from ifspace.optimize.options import Choice, Options

Box = tuple[tuple[int, ...], ...]

# Sets of channels that one search of a box visits, and choices put before the exact field to
# enlarge it by one option: beyond them the box is taken to have a choice with the full field.
MOST_SETS: Final = 4000
MOST_CHECKS: Final = 16
BYTES: Final = 4  # of one channel number, np.int32


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
        self._through: dict[tuple[int, int, bytes], bytes] = {}

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
        candidates = list(islice(self._candidates(box), MOST_CHECKS))
        return len(candidates) < MOST_CHECKS and not any(map(self.options.is_full, candidates))

    def _candidates(self, box: Box) -> Iterator[Choice]:
        """Yield, in order, at least the choices of a box where output 0 sees every channel."""
        if not self._may_be_full(box):
            return
        place = next((n for n, numbers in enumerate(box) if len(numbers) > 1), None)
        if place is None:
            yield tuple(number for (number,) in box)
            return
        for number in sorted(box[place]):
            yield from self._candidates(_with(box, place, (number,)))

    def _may_be_full(self, box: Box) -> bool:
        """Return False if output 0 falls short in every choice of a box."""
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
        short: set[tuple[int, bytes, Choice]] = set()

        def full(position: int, seen: bytes, chosen: Choice) -> bool:
            if position < 0:
                return len(seen) == channels * BYTES
            if len(seen) // BYTES * reach[position] < channels:
                return False
            # Lower copies of a repeated block stand as the upper one was chosen.
            state = (position, seen, chosen if options.problem.composition.repeats > 1 else ())
            if state in short:
                return False
            if len(short) > MOST_SETS:
                return True
            place = position % options.length
            free = position + options.length > last
            numbers = box[place] if free else (chosen[last - position - options.length],)
            for number in numbers:
                below = self._seen_through(position, number, seen)
                if full(position - 1, below, (*chosen, number)):
                    return True
            short.add(state)
            return False

        return full(last, np.zeros(1, np.int32).tobytes(), ())

    def _seen_through(self, position: int, number: int, seen: bytes) -> bytes:
        """Return the channels below one layer of the chain that some channels above it see."""
        options = self.options
        place, copy = position % options.length, position // options.length
        key = (position, number, seen)
        below = self._through.get(key)
        if below is None:
            reads = self._reads.get((place, number))
            if reads is None:
                reads = [layer.reads() for layer in options.sized(place, number)]
                self._reads[place, number] = reads
            flags = np.zeros(options.chain[position].c_in, np.bool_)
            flags[reads[copy][np.frombuffer(seen, np.int32)]] = True
            below = self._through[key] = np.flatnonzero(flags).astype(np.int32).tobytes()
        return below


def _with(box: Box, place: int, numbers: tuple[int, ...]) -> Box:
    return (*box[:place], numbers, *box[place + 1 :])
