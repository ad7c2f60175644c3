"""Bound the energy of layouts from above: price the budget, solve the rest exactly.

Let every weight cost λ > 0. Then the logarithm of the energy of a layout of at most B weights is at
most λB + the greatest Σ (ln ln n_i - λ · weights of unit i) over all sequences of widths, whatever
their weights. A unit's weights depend on its own width and the one before it only, so that maximum
is a small dynamic program over widths; and the maxima over the sequences up to a unit and from a
unit on bound every layout with a given width there. The last width is not tabulated: there the real
maximiser of a concave function replaces it.

With one price for the weights below a unit and another for those above it, the two bounds limit the
weights used up to a unit by a layout above a threshold: each pair of prices gives one linear
inequality. Every inequality holds for every such layout, so none is excluded.
"""

import time
from collections.abc import Iterator
from math import inf, log
from typing import Any, Final

import numpy as np

from ifspace.energy.problem import EnergyProblem

# Sums of a few hundred logarithms of logarithms differ by less than this from their true value.
SLACK: Final = 1e-10
# Prices tried beside the best one, as logarithms of their ratio to it.
_NEAR: Final = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
_PRICES: Final = np.exp([-distance for distance in _NEAR[:0:-1]] + list(_NEAR))
# How far below the greatest energy the first threshold is, in logarithms, and by how much the
# distance grows.
_FIRST: Final = 1e-4
_GROWTH: Final = 4.0
# The most prices that are tried.
_TRIES: Final = 60
Array = Any
# Weights used up to and with a unit, least and most, by unit and width; unit 0 is the input.
Ranges = list[dict[int, tuple[int, int]]]


def check_deadline(deadline: float | None) -> None:
    """Raise TimeoutError from a deadline of time.monotonic on."""
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeoutError("time ran out")


def greatest_widths(problem: EnergyProblem) -> list[int]:
    """Return the greatest width of each unit that the budget and the order allow, [N].

    >>> greatest_widths(EnergyProblem(20, layers=3))
    [1, 3, 7]
    """
    greatest = []
    units = range(len(problem.units))
    for unit in units:
        least, most = 0, problem.budget
        while least < most:
            width = (least + most + 1) // 2
            widths = [1 + n * problem.step for n in units[:unit]]
            widths += [width + (n - unit) * problem.step for n in units[unit:]]
            if problem.weights(widths) <= problem.budget:
                least = width
            else:
                most = width - 1
        greatest.append(least)
    return greatest


def all_ranges(problem: EnergyProblem, first: tuple[int, int]) -> Ranges:
    """Return ranges that contain every layout whose first width lies within `first`."""
    ranges: Ranges = [{problem.inputs: (0, 0)}]
    for unit, most in enumerate(greatest_widths(problem)[:-1]):
        least = 1 if problem.nondecreasing else 1 + unit
        low, high = first if unit == 0 else (max(least, first[0] + unit * problem.step), most)
        ranges.append(dict.fromkeys(range(low, min(most, high) + 1), (0, problem.budget)))
    return ranges


def thresholds(problem: EnergyProblem, greatest: float) -> Iterator[float | None]:
    """Yield ever lower logarithms of energies, from a little below the greatest, and last None.

    None admits all layouts whose widths are 2 or more.
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
    """Upper bounds of the energy of layouts whose widths are all 2 or more, of two units or more.

    `greatest`: an upper bound of the logarithm of every energy, at the best price. `chain`: the N
    widths that are worth most at that price, whatever their weights: a layout near the best ones.
    After a deadline of time.monotonic the price is no longer improved: any price gives a bound.
    """

    def __init__(self, problem: EnergyProblem, deadline: float | None = None) -> None:
        self.problem = problem
        self.deadline = deadline
        # The widths that each unit but the last can have, in channels.
        self.widths = []
        for unit, most in enumerate(greatest_widths(problem)[:-1]):
            least = 2 + unit * problem.step
            self.widths.append(np.arange(float(least), max(least, most) + 1))
        self.greatest, self.price, self.chain = self._best_price()
        last = self._last(self.price, self.widths[-1])
        self.above = self._maxima_above(self.price, self.widths, last)
        self.below = self._maxima_below(self.price, self.widths)

    def ranges(self, threshold: float) -> Ranges:
        """Return ranges with all layouts whose logarithm of the energy is `threshold` or more.

        Raises: TimeoutError at the deadline.
        """
        problem = self.problem
        threshold -= 4 * SLACK  # and some that are lower by the noise of floats
        paid = self.price * problem.budget
        intervals = []
        for widths, below, above in zip(self.widths, self.below, self.above, strict=True):
            worth = np.flatnonzero(below + above + paid >= threshold)
            if not len(worth):
                return [{problem.inputs: (0, 0)}, *({} for _ in self.below)]
            intervals.append(widths[worth[0] : worth[-1] + 1])
        prices = self.price * _PRICES
        # Of all prices at once: it takes many steps, each on short arrays.
        lasts = self._last(prices[:, None], intervals[-1])
        tables = []
        for price, last in zip(prices, lasts, strict=True):
            check_deadline(self.deadline)
            tables.append(
                (self._maxima_below(price, intervals), self._maxima_above(price, intervals, last))
            )
        ranges: Ranges = [{problem.inputs: (0, 0)}]
        for unit, widths in enumerate(intervals):
            below = np.array([table[0][unit] for table in tables])
            above = np.array([table[1][unit] for table in tables])
            above += (prices * problem.budget)[:, None]
            least, most = _weights_between(threshold, prices, below, above, problem.budget)
            ranges.append(
                {
                    int(width): (low, high)
                    for width, low, high in zip(widths, least.tolist(), most.tolist(), strict=True)
                    if low <= high
                }
            )
        return ranges

    def _best_price(self) -> tuple[float, float, list[int]]:
        """Return about the least bound, the price that gives it, and the chain at that price.

        The bound is the maximum of lines, one for each chain: a slope below 0 means too low a
        price. The next price is where the lines of the nearest prices on both sides meet.
        """
        problem = self.problem
        width = max(3.0, (problem.budget / problem.depth) ** 0.5)
        price = sum(problem.factors) / (2 * problem.budget * log(width))
        best: tuple[float, float, list[int]] = (inf, price, [])
        low, high = None, None
        for _ in range(_TRIES):
            value, slope, chain = self._line(price)
            if value < best[0] or not best[2]:
                best = (value, price, chain)
            if slope < 0:
                low = (price, value, slope)
            else:
                high = (price, value, slope)
            out_of_time = self.deadline is not None and time.monotonic() >= self.deadline
            if slope == 0 or value == -inf or out_of_time:
                break
            if low is None or high is None:
                price *= 2.0 if high is None else 0.5
                continue
            price = (high[1] - low[1] + low[2] * low[0] - high[2] * high[0]) / (low[2] - high[2])
            # No price is better than where they meet.
            meet = low[1] + low[2] * (price - low[0])
            if best[0] - meet < SLACK or not low[0] < price < high[0]:
                break
        return best

    def _line(self, price: float) -> tuple[float, float, list[int]]:
        """Return the bound at a price, how it changes with the price, and the best chain."""
        problem = self.problem
        low, high = self._last_width(price, self.widths[-1])
        above = self._maxima_above(
            price, self.widths, self._worth(price, self.widths[-1], low, high)
        )
        worth = self._own(0, price, self.widths[0]) - price * problem.inputs * self.widths[0]
        total = float((worth + above[0]).max()) + price * problem.budget
        chain: list[int] = []
        for unit, widths in enumerate(self.widths):
            if chain:
                worth = self._own(unit, price, widths) - price * chain[-1] * widths
                worth[widths < chain[-1] + problem.step] = -inf
            best = int((worth + above[unit]).argmax())
            chain.append(int(widths[best]))
        last = float(low[best])
        weights = problem.weights([*chain, 0]) + chain[-1] * last
        weights += (problem.units[-1] - 1) * last**2
        return total, problem.budget - weights, [*chain, int(last)]

    def _own(self, unit: int, price: float, widths: Array) -> Array:
        """Return the priced worth of each width of a unit, but for weights to the unit below."""
        factor, count = self.problem.factors[unit], self.problem.units[unit]
        return factor * np.log(np.log(widths)) - price * (count - 1) * widths**2

    def _between(self, price: float, below: Array, widths: Array) -> Array:
        """Return the cost of the weights between two units, [widths, below]; -inf out of order."""
        cost = np.outer(-price * widths, below)
        cost[below[None, :] > widths[:, None] - self.problem.step] = -inf
        return cost

    def _maxima_below(self, price: float, widths: list[Array]) -> list[Array]:
        """Return the greatest priced sums up to and with each unit but the last, by its width."""
        sums = [self._own(0, price, widths[0]) - price * self.problem.inputs * widths[0]]
        for unit in range(1, len(widths)):
            worth = self._between(price, widths[unit - 1], widths[unit])
            worth += sums[-1]
            sums.append(self._own(unit, price, widths[unit]) + worth.max(axis=1))
        return sums

    def _maxima_above(self, price: float, widths: list[Array], last: Array) -> list[Array]:
        """Return the greatest priced sums of all units after a unit, by its width.

        `last`: of the last unit after each width of the one before it.
        """
        sums = [last]
        for unit in range(len(widths) - 1, 0, -1):
            worth = self._between(price, widths[unit - 1], widths[unit])
            worth += (self._own(unit, price, widths[unit]) + sums[-1])[:, None]
            sums.append(worth.max(axis=0))
        return sums[::-1]

    def _last(self, price: float | Array, widths: Array) -> Array:
        """Return the greatest priced term of the last unit after each width, a real one allowed.

        `price`: one, or many [prices, 1] for terms [prices, widths].
        """
        return self._worth(price, widths, *self._last_width(price, widths))

    def _worth(self, price: float | Array, widths: Array, low: Array, high: Array) -> Array:
        """Return a bound of the priced term of last widths between `low` and `high`."""
        factor, more = self.problem.factors[-1], self.problem.units[-1] - 1
        worth: Array = factor * np.log(np.log(high)) - price * (widths * low + more * low**2)
        return worth

    def _last_width(self, price: float | Array, widths: Array) -> tuple[Array, Array]:
        """Return two real widths that the best last one after each width lies between."""
        problem = self.problem
        factor, more = problem.factors[-1], problem.units[-1] - 1
        low = widths + problem.step
        high = np.maximum(low, problem.budget)
        for _ in range(60):
            middle = (low + high) / 2
            rises = factor / (middle * np.log(middle)) > price * (widths + 2 * more * middle)
            low, high = np.where(rises, middle, low), np.where(rises, high, middle)
        return low, high


def _weights_between(
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
