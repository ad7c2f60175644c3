"""What no layout's energy can be above: the budget priced, the rest solved exactly.

Let every weight cost λ > 0. Then the logarithm of the energy of a layout of at most B weights is at
most λB + the greatest Σ (ln ln n_i - λ · weights of unit i) over all chains of widths, whatever
their weights. A unit's weights depend on its own width and the one below only, so that maximum
is a small dynamic program over widths; and the maxima over the chains up to a unit and from a unit
on bound whatever has a given width there. The last width is not tabulated: there the real
maximiser of a concave function stands for it.

Taken with one price for what lies below a unit and another for what lies above, the two bounds say
between which weights used so far a layout worth having must lie: each pair of prices gives one
linear inequality. Every inequality holds for every layout, so nothing worth having is cut off.
"""

from collections.abc import Iterator
from math import exp, inf, isqrt, log
from typing import Any, Final

import numpy as np

from ifspace.plan.energy import EnergyProblem

# Sums of a few hundred logarithms of logarithms differ by less than this from their true value.
SLACK: Final = 1e-10
# Prices tried beside the best one, as logarithms of their ratio to it.
_NEAR: Final = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_PRICES: Final = np.exp([-each for each in _NEAR[:0:-1]] + list(_NEAR))
# How far below the greatest energy the first threshold is, in logarithms, and by how much the
# distance grows.
_FIRST: Final = 1e-4
_GROWTH: Final = 4.0
_GOLDEN: Final = (5**0.5 - 1) / 2
Array = Any
# Weights used up to and with a unit, least and most, by unit and width; unit 0 is the input.
Ranges = list[dict[int, tuple[int, int]]]


def most_widths(problem: EnergyProblem) -> list[int]:
    """Return the greatest width of each unit, as the budget and the order allow; N numbers.

    >>> most_widths(EnergyProblem(20, layers=3))
    [1, 3, 7]
    """
    found = []
    units = problem.units
    for place in range(len(units)):
        least, most = 0, problem.budget
        while least < most:
            width = (least + most + 1) // 2
            widths = [1 + each * problem.step for each in range(place)]
            widths += [width + each * problem.step for each in range(len(units) - place)]
            if problem.weights(widths) <= problem.budget:
                least = width
            else:
                most = width - 1
        found.append(least)
    return found


def all_ranges(problem: EnergyProblem, first: tuple[int, int]) -> Ranges:
    """Return ranges that cut off nothing; the first width lies within `first`."""
    ranges: Ranges = [{problem.inputs: (0, 0)}]
    for place, most in enumerate(most_widths(problem)[:-1]):
        least = 1 if problem.nondecreasing else 1 + place
        low, high = first if place == 0 else (max(least, first[0] + place * problem.step), most)
        ranges.append(dict.fromkeys(range(low, min(most, high) + 1), (0, problem.budget)))
    return ranges


def thresholds(problem: EnergyProblem, greatest: float) -> Iterator[float | None]:
    """Yield ever lower logarithms of energies, from a little below the greatest, and last None.

    None stands for all layouts whose widths are 2 or more, which no threshold then cuts off.
    """
    least = sum(problem.factors) * log_log(2)
    below = _FIRST
    while len(problem.units) > 1 and greatest - below > least:
        yield greatest - below
        below *= _GROWTH
    yield None


def log_log(width: int) -> float:
    """Return ln ln of a width, minus infinity of width 1.

    >>> log_log(1)
    -inf
    """
    return log(log(width)) if width > 1 else -inf


class Bounds:
    """Upper bounds of the energy of layouts whose widths are all 2 or more, and two units or more.

    `greatest`: of the logarithm of the energy of any of them, at the best price.
    """

    def __init__(self, problem: EnergyProblem) -> None:
        self.problem = problem
        self.widths = np.arange(2.0, max(3, isqrt(problem.budget) + 1))
        self.price = self._best_price()
        self.below, self.above = self._maxima(self.price, self.widths)
        self.greatest = self._total(self.price)

    def ranges(self, threshold: float) -> Ranges:
        """Return where all layouts lie whose energy has a logarithm of `threshold` or more."""
        problem = self.problem
        threshold -= 4 * SLACK  # and some that are lower by the noise of floats
        paid = self.price * problem.budget
        worth = np.array(self.below) + np.array(self.above) + paid >= threshold
        columns = np.flatnonzero(worth.any(axis=0))
        if not len(columns):
            return [{problem.inputs: (0, 0)}, *({} for _ in self.below)]
        widths = self.widths[columns[0] : columns[-1] + 1]
        prices = self.price * _PRICES
        tables = [self._maxima(price, widths) for price in prices]
        ranges: Ranges = [{problem.inputs: (0, 0)}]
        for place in range(len(self.below)):
            below = np.array([table[0][place] for table in tables])
            above = np.array([table[1][place] for table in tables])
            above += (prices * problem.budget)[:, None]
            least, most = _between(threshold, prices, below, above, problem.budget)
            ranges.append(
                {int(width): (low, high)
                 for width, low, high in zip(widths, least.tolist(), most.tolist(), strict=True)
                 if low <= high}
            )  # fmt: skip
        return ranges

    def _total(self, price: float) -> float:
        below, above = self._maxima(price, self.widths)
        return float((below[0] + above[0]).max() + price * self.problem.budget)

    def _best_price(self) -> float:
        """Return about the price at which the bound is least; any price gives a bound."""
        low, high = log(1e-12), log(1e3)
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        at_left, at_right = self._total(exp(left)), self._total(exp(right))
        for _ in range(40):
            if at_left < at_right:
                high, right, at_right = right, left, at_left
                left = high - _GOLDEN * (high - low)
                at_left = self._total(exp(left))
            else:
                low, left, at_left = left, right, at_right
                right = low + _GOLDEN * (high - low)
                at_right = self._total(exp(right))
        return exp((low + high) / 2)

    def _maxima(self, price: float, widths: Array) -> tuple[list[Array], list[Array]]:
        """Return the greatest priced sums up to, and after, each unit but the last.

        Two lists of N - 1 arrays, an entry per width.
        """
        problem = self.problem
        logs = np.log(np.log(widths))
        own = [
            factor * logs - price * (count - 1) * widths**2
            for factor, count in zip(problem.factors, problem.units, strict=True)
        ]
        allowed = widths[None, :] <= widths[:, None] - problem.step  # [wider, narrower]
        joined = np.where(allowed, -price * np.outer(widths, widths), -inf)
        below = [own[0] - price * problem.inputs * widths]
        for each in own[1:-1]:
            below.append(each + (joined + below[-1][None, :]).max(axis=1))
        above = [self._last(price, widths)]
        for each in own[-2:0:-1]:
            above.append((joined.T + (each + above[-1])[None, :]).max(axis=1))
        return below, above[::-1]

    def _last(self, price: float, widths: Array) -> Array:
        """Return the greatest priced term of the last unit after each width, a real one allowed."""
        problem = self.problem
        factor, more = problem.factors[-1], problem.units[-1] - 1
        low = widths + problem.step
        high = np.maximum(low, problem.budget)
        for _ in range(60):
            middle = (low + high) / 2
            rises = factor / (middle * np.log(middle)) > price * (widths + 2 * more * middle)
            low, high = np.where(rises, middle, low), np.where(rises, high, middle)
        return factor * np.log(np.log(high)) - price * (widths * low + more * low**2)


def _between(
    threshold: float, prices: Array, below: Array, above: Array, budget: int
) -> tuple[Array, Array]:
    """Return the least and most weights used by each width.

    For all prices p, q: below_p + p · used + above_q - q · used reaches the threshold.
    """
    lacking = threshold - below[:, None, :] - above[None, :, :]
    slope = (prices[:, None] - prices[None, :])[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        edge = lacking / slope
    least = np.where(slope > 0, edge, -inf).max(axis=(0, 1))
    most = np.where(slope < 0, edge, inf).min(axis=(0, 1))
    most[(np.where(slope == 0, lacking, -inf) > 0).any(axis=(0, 1))] = -1
    # A little wider than computed: dividing by a small slope makes noise greater.
    least = np.clip(np.ceil(least - 1e-3), 0, budget + 1).astype(np.int64)
    return least, np.clip(np.floor(most + 1e-3), -1, budget).astype(np.int64)
