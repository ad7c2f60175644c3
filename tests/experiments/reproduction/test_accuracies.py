"""Printed accuracies beside fields and widths."""

import pytest

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


def test_rank_correlations():
    assert accuracies.rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == 0.8
    assert accuracies.variants_correlation() > 0.9
    assert accuracies.moves_correlation("CIFAR-10") == -0.2
