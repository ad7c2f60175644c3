"""Find all layouts above a threshold of energy by dynamic programs over units, widths and weights.

`Prefixes` holds for each unit but the last, each width of it and each number of weights used so far
the greatest energy of the units up to there. The last width then follows from the weights that are
left. Going back from the last unit, the table has the exact worth of the best completion of every
partial layout: every step leads to a layout, and the best few are the best few at every unit. Sums
of logarithms are floats here, and nothing within their noise of the threshold is dropped; the
caller sorts by exact energies.

`first_plan` is the same program within a few widths of two layouts that are easy to find. One is
worth most when every weight has the best price; it is taken as it is, and made wider or narrower by
a channel, unit by unit, until it has about the weights of the budget. The other has the greatest
widths that are as equal as the order allows. The last few units may differ from it: they use the
weights that are left, and where the budget is to be met exactly, there are enough of them that one
of their widths divides the weights left for the last unit.

`budgets_met` is a program over sets of sums, whatever the energy: bit b of a whole number says that
b weights are met. To put a unit of width n on top of one of width p adds p n + (L - 1) n² to every
sum: a shift. Only sums up to a limit are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import numpy as np

from ifspace.energy.bounds import SLACK, Ranges, check_deadline, greatest_widths
from ifspace.energy.problem import EnergyPlan, EnergyProblem
from ifspace.errors import SettingError

Array = Any
# 8 bytes each; a search that needs more raises an error before the machine runs out of memory.
MOST_CELLS: Final = 150_000_000
_CHUNK: Final = 1 << 16
# When there are more partial layouts than this, those not among the best are dropped.
_HELD: Final = 1_000_000
# How many units before the last may differ from the layout that `first_plan` starts from, and by
# how many channels; the more are tried when the fewer lead to no layout.
_FREE: Final = 4
_REACHES: Final = (4, 12)
# How far above the budget the nearest budgets are looked for at first.
_FIRST_REACH: Final = 64


@dataclass(frozen=True, slots=True)
class _Partial:
    """Partial layouts from some unit on, an entry each.

    `value`: the greatest logarithm of the energy of a completion, [entries]. `own`: that of the
    widths chosen so far. `width` and `used`: the width of the unit before them, and the weights
    used up to and with it. `chosen`: the widths chosen so far, [entries, units].
    """

    value: Array
    own: Array
    width: Array
    used: Array
    chosen: Array

    def at(self, entries: Array) -> "_Partial":
        """Return some of the entries."""
        return _Partial(
            self.value[entries],
            self.own[entries],
            self.width[entries],
            self.used[entries],
            self.chosen[entries],
        )


class Prefixes:
    """The table of a problem within ranges; `flat` gives every layout the same value, 0.

    Raises: TimeoutError at the deadline of time.monotonic; SettingError for too large a table.
    """

    def __init__(
        self,
        problem: EnergyProblem,
        ranges: Ranges,
        deadline: float | None = None,
        flat: bool = False,
    ) -> None:
        self.problem = problem
        self.deadline = deadline
        self.factors = (0,) * len(problem.units) if flat else problem.factors
        # Of each unit, from the input on, by width: the least weights used, and from them on the
        # greatest logarithm of the energy.
        self.rows: list[dict[int, tuple[int, Array]]] = [{problem.inputs: (0, np.zeros(1))}]
        cells = 0
        for unit, weights_by_width in enumerate(ranges[1:]):
            rows: dict[int, tuple[int, Array]] = {}
            for width, (low, high) in weights_by_width.items():
                row = self._row(unit, width, low, high)
                if row is not None:
                    rows[width] = row
                    cells += len(row[1])
                _check_size(cells)
            self.rows.append(rows)

    def best(self, threshold: float, top: int, last: tuple[int, int]) -> tuple[Array, Array]:
        """Return the `top` best layouts, and those that may be as good as the last of them.

        The logarithms of their energies, [layouts], and their widths, [layouts, N], in any order.
        Those below the threshold are left out, but for some within the noise of it. The last width
        is limited to `last`.
        """
        partial = self._ends(threshold, last, top)
        for unit in range(len(self.rows) - 1, 0, -1):
            partial = _greatest(self._back(unit, partial, threshold), top)
        return partial.value, partial.chosen

    def above(self, threshold: float, last: tuple[int, int]) -> Iterator[tuple[Array, Array]]:
        """Yield all layouts from the threshold on, in parts, in the form of `best`."""
        yield from self._walk(len(self.rows) - 1, self._ends(threshold, last, None), threshold)

    def _walk(self, unit: int, partial: _Partial, low: float) -> Iterator[tuple[Array, Array]]:
        if unit == 0:
            yield partial.value, partial.chosen
            return
        for start in range(0, len(partial.value), _CHUNK):
            part = partial.at(slice(start, start + _CHUNK))
            yield from self._walk(unit - 1, self._back(unit, part, low), low)

    def _before(self, unit: int, width: int) -> Iterator[tuple[int, int, Array]]:
        """Yield the rows of the unit before a unit that the order allows below a width."""
        for below, (start, best) in self.rows[unit].items():
            check_deadline(self.deadline)
            if unit == 0 or below <= width - self.problem.step:
                yield below, start, best

    def _row(self, unit: int, width: int, low: int, high: int) -> tuple[int, Array] | None:
        row = np.full(high - low + 1, -inf)
        more = (self.problem.units[unit] - 1) * width * width
        for below, start, best in self._before(unit, width):
            first = start + below * width + more
            begin, end = max(low, first), min(high + 1, first + len(best))
            if begin < end:
                part = row[begin - low : end - low]
                np.maximum(part, best[begin - first : end - first], out=part)
        reached = np.flatnonzero(row > -inf)
        if not len(reached):
            return None
        row += self._worth(unit, width)
        return low + int(reached[0]), row[reached[0] : reached[-1] + 1]

    def _worth(self, unit: int, widths: Any) -> Any:
        factor = self.factors[unit]
        return factor * np.log(np.log(widths)) if factor else np.zeros(np.shape(widths))

    def _ends(self, threshold: float, last: tuple[int, int], top: int | None) -> _Partial:
        """Return the last units whose best layouts reach the threshold."""
        parts, held = [_no_entries(1)], 0
        for below, (start, best) in self.rows[-1].items():
            offsets = np.flatnonzero(best > -inf)
            least = last[0] if len(self.rows) == 1 else max(last[0], below + self.problem.step)
            most, fits = self._last_widths(below, self.problem.budget - start - offsets, last[1])
            fits &= most >= least
            offsets, widths = offsets[fits], most[fits]
            best_before = best[offsets]
            rounds = 0
            while len(offsets) and (top is None or rounds < top):
                check_deadline(self.deadline)
                own = self._worth(len(self.rows) - 1, widths)
                value = best_before + own
                keep = value >= threshold - SLACK
                part = _Partial(
                    value, own, np.full(len(offsets), below), start + offsets, widths[:, None]
                )
                parts.append(part.at(keep))
                held += int(np.count_nonzero(keep))
                if held > _HELD:
                    parts = [_greatest(_joined(parts), top)]
                    held = _check_size(len(parts[0].value))
                # Within a budget the next narrower last width is a layout too.
                on = keep & (widths > least) & self.problem.at_most
                offsets, best_before, widths = offsets[on], best_before[on], widths[on] - 1
                rounds += 1
        return _greatest(_joined(parts), top)

    def _last_widths(self, below: int, left: Array, limit: int) -> tuple[Array, Array]:
        """Return the greatest last width after a width, and whether it makes a layout."""
        more = self.problem.units[-1] - 1
        if more:
            inside = below * below + 4 * more * left
            root = np.sqrt(inside.astype(float)).astype(np.int64)
            root += ((root + 1) ** 2 <= inside).astype(np.int64) - (root**2 > inside)
            widths = (root - below) // (2 * more)
        else:
            widths = left // below
        if self.problem.at_most:
            return np.minimum(widths, limit), np.full(len(left), True)
        met = widths * below + more * widths**2 == left
        return widths, met & (widths <= limit)

    def _back(self, unit: int, partial: _Partial, threshold: float) -> _Partial:
        """Return the partial layouts with the width of one more unit, `unit` counted from 1."""
        parts = [_no_entries(partial.chosen.shape[1] + 1)]
        more = self.problem.units[unit - 1] - 1
        for width in np.unique(partial.width):
            part = partial.at(partial.width == width)
            own = part.own + self._worth(unit - 1, width)
            for below, start, best in self._before(unit - 1, int(width)):
                used = part.used - below * width - more * width * width
                inside = np.flatnonzero((used >= start) & (used < start + len(best)))
                value = own[inside] + best[used[inside] - start]
                keep = inside[value >= threshold - 2 * SLACK]
                if not len(keep):
                    continue
                chosen = np.column_stack([np.full(len(keep), width), part.chosen[keep]])
                before = np.full(len(keep), below)
                parts.append(
                    _Partial(
                        own[keep] + best[used[keep] - start], own[keep], before, used[keep], chosen
                    )
                )
        return _joined(parts)


def _check_size(cells: int) -> int:
    """Return the number of cells; raise SettingError for too many."""
    if cells > MOST_CELLS:
        raise SettingError.because(
            "too many layouts to tell apart",
            got=f"over {cells:,} cells",
            allowed=f"{MOST_CELLS:,}",
            remedy="ask for fewer plans or a lower budget",
        )
    return cells


def _no_entries(units: int) -> _Partial:
    whole = np.zeros(0, dtype=np.int64)
    return _Partial(np.zeros(0), np.zeros(0), whole, whole, np.zeros((0, units), dtype=np.int64))


def _joined(parts: list[_Partial]) -> _Partial:
    return _Partial(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in _Partial.__slots__)
    )


def _greatest(partial: _Partial, top: int | None) -> _Partial:
    """Return the `top` best entries, and those whose values are equal to the last but for noise.

    Every entry has a completion of its value, and those of different entries differ.
    """
    if top is None or len(partial.value) <= top:
        return partial
    least = np.partition(partial.value, -top)[-top]
    return partial.at(partial.value >= least - SLACK)


def first_plan(
    problem: EnergyProblem, chain: list[int] | None = None, deadline: float | None = None
) -> EnergyPlan | None:
    """Return a valid layout of two units or more; None where none is near, or at the deadline.

    It is near the chain of `Bounds`, and without one near widths as equal as the order allows. The
    deadline is one of time.monotonic.

    >>> from ifspace.energy.bounds import Bounds
    >>> problem = EnergyProblem(66304, layers=10)
    >>> first_plan(problem, Bounds(problem).chain).widths
    (79, 80, 81, 82, 83, 86, 89, 90, 91, 97)
    """
    starts = _equal(problem) if chain is None else [chain, _fitted(problem, chain)]
    plans: list[EnergyPlan] = []
    try:
        for reach in _REACHES:
            for start in starts:
                prefixes = Prefixes(problem, _near(problem, start, reach), deadline)
                chosen = prefixes.best(-inf, 1, (2, problem.budget))[1]
                plans += [EnergyPlan(problem, tuple(map(int, row))) for row in chosen]
            if plans:
                break
    except TimeoutError:
        pass
    return min(plans, key=EnergyPlan.order, default=None)


def _equal(problem: EnergyProblem) -> list[list[int]]:
    """Return widths as equal as the order allows: the greatest within the budget.

    After them two layouts a channel or two narrower, which leave more to the last unit.
    """
    most = greatest_widths(problem)[0]
    return [
        [width + unit * problem.step for unit in range(len(problem.units))]
        for width in range(most, max(most - 3, 1), -1)
    ]


def _fitted(problem: EnergyProblem, widths: list[int]) -> list[int]:
    """Return widths changed by as little as brings their weights to the budget or just past it.

    The last units become wider first, or the first ones narrower: that keeps the order.
    """
    fitted = list(widths)
    units = range(len(fitted) - 1)
    change = 1 if problem.weights(fitted) < problem.budget else -1
    while fitted[0] > 2 or change > 0:
        for unit in units[::-1] if change > 0 else units:
            fitted[unit] += change
            if (problem.weights(fitted) - problem.budget) * change >= 0:
                return fitted
    return fitted


def _near(problem: EnergyProblem, start: list[int], reach: int) -> Ranges:
    """Return the widths and weights of the layouts near one, for all units but the last."""
    ranges: Ranges = [{problem.inputs: (0, 0)}]
    for unit, width in enumerate(start[:-1]):
        distance = reach if unit >= len(start) - 1 - _FREE else 0
        before = ranges[-1]
        if not before:
            return [ranges[0], *({} for _ in start[:-1])]
        least_used = min(low for low, _ in before.values())
        most_used = max(high for _, high in before.values())
        weights_by_width = {}
        for near in range(max(2, width - distance), width + distance + 1):
            inside = (problem.units[unit] - 1) * near**2
            low = least_used + min(before) * near + inside
            if low <= problem.budget:
                high = most_used + max(before) * near + inside
                weights_by_width[near] = (low, min(high, problem.budget))
        ranges.append(weights_by_width)
    return ranges


def nearest_budgets(
    problem: EnergyProblem, deadline: float | None = None
) -> tuple[int | None, int | None]:
    """Return the greatest budget below the problem's that a layout meets, and the least one above.

    The first is None where the narrowest layout has more weights.

    >>> nearest_budgets(EnergyProblem(1000, layers=1))
    (999, 1002)

    Raises: TimeoutError at the deadline of time.monotonic.
    """
    reach = _FIRST_REACH
    while True:
        met = budgets_met(problem, problem.budget + reach, deadline)
        above = met >> (problem.budget + 1)
        if above:
            least_above = problem.budget + (above & -above).bit_length()
            below = met & ((1 << problem.budget) - 1)
            return (below.bit_length() - 1 if below else None), least_above
        reach *= 4


def budgets_met(problem: EnergyProblem, limit: int, deadline: float | None = None) -> int:
    """Return the budgets up to a limit that a layout meets exactly, as bits.

    >>> [b for b in range(30) if budgets_met(EnergyProblem(1, layers=2), 29) >> b & 1]
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]

    Raises: TimeoutError at the deadline of time.monotonic.
    """
    mask = (1 << (limit + 1)) - 1
    ends = {problem.inputs: 1}  # sums by the width that they end with
    for unit, count in enumerate(problem.units):
        is_last = unit == len(problem.units) - 1
        after: dict[int, int] = {}
        for below, sums in ends.items():
            check_deadline(deadline)
            least = below + problem.step if unit else 1
            if is_last and count == 1:
                # All multiples of the width below from the least on, by doubling.
                met = sums << (below * least) & mask
                stride = below
                while stride <= limit:
                    met |= met << stride & mask
                    stride *= 2
                after[0] = after.get(0, 0) | met
                continue
            width = least
            while (added := below * width + (count - 1) * width * width) <= limit:
                met = sums << added & mask
                if not met:
                    break
                after[width] = after.get(width, 0) | met
                width += 1
        ends = after
    total = 0
    for sums in ends.values():
        total |= sums
    return total
