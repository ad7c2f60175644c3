"""Least squares without negative coefficients, and how well an order is kept."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
# In units of the number of coefficients: then two of them take turns.
MOST_STEPS: Final = 3
TINY: Final = 1e-10


def nonnegative(table: Numbers, wanted: Numbers) -> Numbers:
    """Return the c >= 0 [n] for which table c, [m, n] by [n], is nearest to `wanted` [m].

    >>> nonnegative(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([3.0, 2.0])).round(6)
    array([2.5, 0. ])

    Reference: Lawson and Hanson, Solving Least Squares Problems, chapter 23.
    """
    found = np.zeros(table.shape[1])
    used = np.zeros(table.shape[1], dtype=bool)
    limit = TINY * max(1.0, float(np.abs(table.T @ wanted).max(initial=0.0)))
    for _ in range(MOST_STEPS * table.shape[1]):
        slope = table.T @ (wanted - table @ found)
        slope[used] = -np.inf
        if used.all() or slope.max() <= limit:
            break
        used[int(slope.argmax())] = True
        while True:
            trial = np.zeros_like(found)
            trial[used] = np.linalg.lstsq(table[:, used], wanted, rcond=None)[0]
            falls = used & (trial <= 0)
            if not falls.any():
                break
            # As far towards the trial as nothing turns negative; what becomes zero leaves.
            fall = np.maximum(found[falls] - trial[falls], np.finfo(float).tiny)
            step = (found[falls] / fall).min()
            found = found + step * (trial - found)
            used &= found > TINY * found.max(initial=0.0)
            found[~used] = 0.0
        found = trial
    return found


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation; equal values share their mean rank, nan without any two.

    >>> rank_correlation([1, 2, 3], [10, 20, 15]), rank_correlation([1, 1], [1, 2])
    (0.5, nan)
    """
    ranks = [_ranks(np.asarray(each, dtype=np.float64)) for each in (first, second)]
    centred = [each - each.mean() for each in ranks]
    scale = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / scale) if scale else float("nan")


def _ranks(values: Numbers) -> Numbers:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Numbers = last - (counts - 1) / 2
    return mean[places]
