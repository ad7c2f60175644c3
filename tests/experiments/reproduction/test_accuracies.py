"""Printed accuracies beside fields and widths."""

import pytest
from scipy.stats import spearmanr

from experiments.reproduction import accuracies


def test_the_field_orders_the_six_pairs_of_table_6():
    pairs = accuracies.pairs()
    assert len(pairs) == 6
    assert all(fixed.macs == rolling.macs for fixed, rolling in pairs)
    assert all(abs(float(fixed.params) - float(rolling.params)) < 0.011 for fixed, rolling in pairs)
    assert accuracies.ordered() == 6
    gains = [accuracies.accuracy_gain(*pair) for pair in pairs]
    assert max(gains) == pytest.approx(90.19 - 86.41)
    assert min(gains) == pytest.approx(92.52 - 92.35)


@pytest.mark.parametrize(
    ("block", "copies", "channels"),
    [
        ("DW+GPW(8)", 3, 8),
        ("DW+RPW(8,0.33)", 2, 50),
        ("DW+RPW(8,1/2)", 2, 8 + 7 * 4),
        ("DW+RPW(4,1/2)", 1, 16),
    ],
)
def test_fields_of_repeated_blocks(block, copies, channels):
    assert accuracies.field(block, copies) == channels


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1, 2, 3, 4], [1, 3, 2, 4]),
        ([0, 1.7, 1.6, 0.3, 0, 0], [5, 9, 8, 7, 4, 3]),
        ([1, 1, 2], [3, 2, 1]),
    ],
)
def test_rank_correlations_are_those_of_scipy(first, second):
    expected = spearmanr(first, second).statistic
    assert accuracies.rank_correlation(first, second) == pytest.approx(expected, abs=0.005)


def test_rank_correlations_of_the_papers():
    assert accuracies.variants_correlation() > 0.9
    assert accuracies.moves_correlation("CIFAR-10") == -0.2
