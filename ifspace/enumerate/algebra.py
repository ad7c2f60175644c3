"""What a chain of layers does to channels: exactly, or when channels may be permuted freely.

An element stands for a chain of layers. Both algebras extend an element by a layer, put one behind
another, and say how many block inputs the output that sees the fewest sees.
"""

from typing import Protocol

import numpy as np

from ifspace.enumerate.alphabet import Alphabet
from ifspace.enumerate.bits import (
    Words,
    compose,
    pack,
    smallest_row,
    subset,
)


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
