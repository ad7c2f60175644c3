"""Rank statistics of a score against accuracies, for many resamples of the networks at once.

A resample is a row of weights: how often each network was drawn. Weights [resamples, networks] are
whole numbers; their first row is all ones, so that the first entry of every result is the estimate
and the others its bootstrap distribution. A score or an accuracy that does not vary orders nothing:
its correlation is 0.
"""

from collections.abc import Sequence
from typing import Any, Final

import numba as nb
import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]
Weights = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
# Digits in which scores must differ: below lies the rounding of sums.
DIGITS: Final = 12
PERCENT: Final = 100


def resamples(networks: int, count: int, seed: int) -> Weights:
    """Return weights [count + 1, networks]: ones, then `count` bootstrap samples.

    >>> resamples(4, 2, seed=0).sum(axis=1)
    array([4, 4, 4])
    """
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(networks, np.full(networks, 1 / networks), size=count)
    return np.vstack([np.ones((1, networks), dtype=np.int64), drawn]).astype(np.int64)


def dense_ranks(values: npt.ArrayLike) -> Indices:
    """Return the rank of each value from 0, equal ones the same, in `DIGITS` digits.

    >>> dense_ranks([0.3, 0.1, 0.1 + 0.2])
    array([1, 0, 1])
    """
    numbers = np.asarray(values, dtype=np.float64)
    largest = np.abs(numbers).max(initial=0.0)
    rounded = np.round(numbers / largest, DIGITS) if largest else numbers
    return np.asarray(np.unique(rounded, return_inverse=True)[1], dtype=np.int64)


def _mean_ranks(dense: Indices, weights: Weights) -> Column:
    """Return the average rank of each network in each resample, [resamples, networks]."""
    order = np.argsort(dense, kind="stable")
    starts = np.flatnonzero(np.diff(dense[order], prepend=-1))
    totals = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(totals, axis=1) - (totals - 1) / 2
    return np.asarray(ranks[:, dense], dtype=np.float64)


def spearman(x: Indices, y: Indices, weights: Weights) -> Column:
    """Return Spearman's rank correlation of dense ranks in each resample, [resamples].

    >>> one = np.ones((1, 4), dtype=np.int64)
    >>> spearman(np.array([0, 1, 2, 3]), np.array([0, 1, 3, 2]), one)
    array([0.8])
    """
    total = weights.sum(axis=1, keepdims=True)
    centred = [_mean_ranks(dense, weights) - (total + 1) / 2 for dense in (x, y)]
    covariance, *variances = (
        np.einsum("bn,bn,bn->b", weights, a, b)
        for a, b in ((centred[0], centred[1]), *((part, part) for part in centred))
    )
    return _ratio(covariance, np.sqrt(variances[0] * variances[1]))


def _ratio(above: Column, below: Column) -> Column:
    return np.asarray(np.divide(above, below, out=np.zeros(len(above)), where=below > 0))


@nb.njit(cache=True)
def _pair_counts(order: Any, x: Any, y: Any, weights: Any) -> Any:
    """Return of each resample Σ of the signs of all pairs, and the pairs tied in x, and in y.

    `order`: the networks by ascending x. A network that is drawn twice is a pair tied in both. A
    binary indexed tree over y holds the weights of all networks with smaller x.
    """
    results = np.zeros((len(weights), 3))
    top = y.max() + 1
    for number in range(len(weights)):
        drawn = weights[number]
        tree = np.zeros(top + 1, dtype=np.int64)
        by_y = np.zeros(top, dtype=np.int64)
        seen = signs = tied_x = begin = 0
        while begin < len(order):
            end, group = begin, 0
            while end < len(order) and x[order[end]] == x[order[begin]]:
                network = order[end]
                below, index = 0, y[network]
                while index > 0:
                    below += tree[index]
                    index -= index & -index
                signs += drawn[network] * (2 * below + by_y[y[network]] - seen)
                group += drawn[network]
                end += 1
            tied_x += group * (group - 1) // 2
            for place in range(begin, end):
                network = order[place]
                by_y[y[network]] += drawn[network]
                seen += drawn[network]
                index = y[network] + 1
                while index <= top:
                    tree[index] += drawn[network]
                    index += index & -index
            begin = end
        results[number, 0] = signs
        results[number, 1] = tied_x
        results[number, 2] = (by_y * (by_y - 1) // 2).sum()
    return results


def pair_counts(x: Indices, y: Indices, weights: Weights) -> tuple[Column, Column, Column, Column]:
    """Return Σ of signs, all pairs, pairs tied in x, pairs tied in y, each [resamples].

    The sign of a pair is 1 where x and y order it alike, -1 where they do not, 0 for a tie.

    >>> one = np.ones((1, 4), dtype=np.int64)
    >>> [int(n[0]) for n in pair_counts(np.array([0, 1, 2, 2]), np.array([0, 1, 3, 2]), one)]
    [5, 6, 1, 0]
    """
    counts = _pair_counts(np.argsort(x, kind="stable"), x, y, weights)
    total = weights.sum(axis=1)
    return counts[:, 0], total * (total - 1) / 2, counts[:, 1], counts[:, 2]


def kendall(x: Indices, y: Indices, weights: Weights) -> Column:
    """Return Kendall's τ-b of dense ranks in each resample, [resamples]."""
    signs, pairs, tied_x, tied_y = pair_counts(x, y, weights)
    return _ratio(signs, np.sqrt((pairs - tied_x) * (pairs - tied_y)))


def share_ordered_right(x: Indices, y: Indices, weights: Weights) -> tuple[Column, Column]:
    """Return the pairs that x orders as y does, and the pairs that y orders, each [resamples].

    A pair that is tied in x counts half.
    """
    signs, pairs, _, tied_y = pair_counts(x, y, weights)
    ordered = pairs - tied_y
    return (ordered + signs) / 2, ordered


def equal_count_bins(values: Column, most: int, least: int) -> list[Indices]:
    """Return the indices of `most` bins of ascending values with equally many each.

    Fewer bins where they would have under `least` networks. Equal values stay in their order.

    >>> [len(part) for part in equal_count_bins(np.arange(23.0), most=10, least=5)]
    [6, 6, 6, 5]
    """
    count = max(1, min(most, len(values) // least))
    return [np.asarray(p) for p in np.array_split(np.argsort(values, kind="stable"), count)]


def groups_of(labels: Sequence[Any], least: int) -> list[Indices]:
    """Return the indices of the networks of each label that at least `least` have."""
    members: dict[Any, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    return [np.array(part) for part in members.values() if len(part) >= least]


class BudgetPicks:
    """The percentiles of the picks of scores within a budget, in every resample.

    `within`: the indices of the networks that keep the budget. The pick is the drawn network with
    the largest score, its percentile the share of the drawn networks that are no more accurate; of
    equal scores it is the mean of their percentiles.
    """

    def __init__(self, within: Indices, accuracies: Column, weights: Weights) -> None:
        self._within = within
        self._drawn = weights[:, within]
        order = np.argsort(accuracies[within], kind="stable")
        ordered = accuracies[within][order]
        # Of each network the drawn ones up to the last that is as accurate.
        last = np.searchsorted(ordered, accuracies[within], side="right") - 1
        self._totals, self._last = np.cumsum(self._drawn[:, order], axis=1), last

    def percentiles(self, ranks: Indices) -> Column:
        """Return the percentiles for the dense ranks of a score; NaN where no network was drawn."""
        order = np.argsort(-ranks[self._within], kind="stable")
        first = order[np.argmax(self._drawn[:, order] > 0, axis=1)]
        top = ranks[self._within][first]
        shares = np.full(len(top), np.nan)
        some = self._totals[:, -1] > 0
        for rank in np.unique(top):
            tied = np.flatnonzero(ranks[self._within] == rank)
            rows = np.flatnonzero(some & (top == rank))
            drawn = self._drawn[np.ix_(rows, tied)]
            below = self._totals[np.ix_(rows, self._last[tied])]
            mean = (drawn * below).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1)
            shares[rows] = PERCENT * mean / self._totals[rows, -1]
        return shares
