"""Rank statistics: against scipy on every resample, against pairs and picks counted one by one."""

import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from ifspace.scores.statistics import (
    BudgetPicks,
    dense_ranks,
    equal_count_bins,
    groups_of,
    kendall,
    resamples,
    share_ordered_right,
    spearman,
)

COLUMNS = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 5), min_size=n, max_size=n)] * 2)
)


@given(COLUMNS)
def test_correlations_are_those_of_scipy_in_every_resample(
    columns: tuple[list[int], list[int]],
) -> None:
    x, y = map(np.array, columns)
    weights = resamples(len(x), 3, seed=1)
    rho, tau = (
        function(dense_ranks(x), dense_ranks(y), weights) for function in (spearman, kendall)
    )
    for index, counts in enumerate(weights):
        drawn = np.repeat(x, counts), np.repeat(y, counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            witnesses = spearmanr(*drawn)[0], kendalltau(*drawn)[0]
        # Where one of them does not vary there is none; 0 here.
        for result, witness in zip((rho[index], tau[index]), witnesses, strict=True):
            assert result == pytest.approx(0 if np.isnan(witness) else witness, abs=1e-12)


@given(COLUMNS)
def test_pairs_in_order_are_counted_one_by_one(columns: tuple[list[int], list[int]]) -> None:
    x, y = map(np.array, columns)
    right = ordered = 0.0
    for a, b in combinations(range(len(x)), 2):
        if y[a] != y[b]:
            ordered += 1
            agree = np.sign(x[a] - x[b]) * np.sign(y[a] - y[b])
            right += 0.5 * (1 + agree)
    result = share_ordered_right(dense_ranks(x), dense_ranks(y), np.ones((1, len(x)), dtype=int))
    assert (result[0][0], result[1][0]) == (right, ordered)


def test_rounding_of_sums_is_no_order() -> None:
    assert dense_ranks([0.1 + 0.2, 0.3, 0.30000001]).tolist() == [0, 0, 1]
    assert dense_ranks([1e18 + 1e3, 1e18]).tolist() == [0, 0]
    assert dense_ranks([0.0, 0.0]).tolist() == [0, 0]


@given(COLUMNS, st.integers(0, 9))
def test_the_pick_is_the_best_drawn_network_within_the_budget(
    columns: tuple[list[int], list[int]], seed: int
) -> None:
    scores, accuracies = (np.array(column, dtype=float) for column in columns)
    weights = resamples(len(scores), 4, seed)
    within = np.flatnonzero(np.arange(len(scores)) % 3 != 1)
    result = BudgetPicks(within, accuracies, weights).percentiles(dense_ranks(scores))
    for percentile, counts in zip(result, weights, strict=True):
        drawn = [index for index in within for _ in range(counts[index])]
        if not drawn:
            assert np.isnan(percentile)
            continue
        most = max(scores[index] for index in drawn)
        tied = [index for index in drawn if scores[index] == most]
        shares = [np.mean(accuracies[drawn] <= accuracies[index]) for index in tied]
        assert percentile == pytest.approx(100 * np.mean(shares))


def test_bins_have_equally_many_networks_and_enough() -> None:
    values = np.array([3.0, 1.0, 2.0, 2.0, 5.0, 4.0, 9.0, 8.0, 7.0, 6.0, 0.0])
    bins = equal_count_bins(values, most=10, least=5)
    assert [part.tolist() for part in bins] == [[10, 1, 2, 3, 0, 5], [4, 9, 8, 7, 6]]
    assert len(equal_count_bins(np.arange(100.0), 10, 5)) == 10
    assert len(equal_count_bins(np.arange(3.0), 10, 5)) == 1
    assert [part.tolist() for part in groups_of("abacab", least=2)] == [[0, 2, 4], [1, 5]]


def test_the_same_seed_draws_the_same_networks() -> None:
    one, again, other = (resamples(50, 20, seed) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()
    assert (one[0] == 1).all()
    assert (one.sum(axis=1) == 50).all()
