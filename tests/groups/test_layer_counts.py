"""Whole group counts of equal widths, against all sums of divisors."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from ifspace.errors import BlockError
from ifspace.groups import layer_counts
from ifspace.groups.closed_form import equal_fan_in
from ifspace.kinds import C
from ifspace.reach import channel_field


@pytest.mark.parametrize("c", [2, 7, 12, 16, 24, 40, 62, 64, 72])
def test_best_layer_counts(c: int) -> None:
    counts = layer_counts.best_layer_counts(c)
    divisors = [w for w in range(2, c) if c % w == 0]
    for sized in counts:
        n = len(sized.layers) - 1
        assert channel_field(sized.layers) == c
        assert equal_fan_in(n).bound.subs(C, c) <= sized.params
        sums = [sum(ws) for ws in combinations_with_replacement(divisors, n) if np.prod(ws) >= c]
        assert sized.params == 9 * c + c * (min(sums) if n > 1 else c)
    assert len(counts) == ((c - 1).bit_length() if divisors else 1)


def test_best_layer_counts_by_number() -> None:
    told = [(len(sized.layers) - 1, sized.params) for sized in layer_counts.best_layer_counts(16)]
    assert told == [(2, 272), (3, 272), (4, 272), (1, 400)]
    assert str(layer_counts.best_layer_counts(64)[0].block) == "DW+RPW(16,0)+RPW(16,0)+RPW(16,0)"
    assert [sized.params for sized in layer_counts.best_layer_counts(7, kernel=5)] == [224]


def test_refusals() -> None:
    with pytest.raises(BlockError, match="channels out of range"):
        layer_counts.best_layer_counts(1)
