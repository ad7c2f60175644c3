"""All layouts above a threshold of energy, by dynamic programming over units, widths and weights.

`Prefixes` holds for each unit but the last, each width of it and each number of weights used so far
the greatest energy of the units up to there. The last width then follows from the weights that are
left. Going back from the last unit, the table says of every partial layout what its best completion
is worth, exactly: no step leads nowhere, and the best few are the best few at every unit.

Sums of logarithms are floats here, and nothing within their noise of the threshold is dropped; the
caller sorts by exact energies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import numpy as np

from ifspace.energy.bounds import (
    SLACK,
    Ranges,
    keep_time,
)
from ifspace.energy.problem import EnergyProblem
from ifspace.errors import SettingError

Array = Any
# 8 bytes each; a search that needs more is refused before the machine runs out of memory.
MOST_CELLS: Final = 150_000_000
_CHUNK: Final = 1 << 16
# So many partial layouts are held before those not among the best are dropped.
_HELD: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Partial:
    """Partial layouts from some unit on, one an entry.

    `value`: the best logarithm of the energy it can have. `own`: that of the widths chosen so far.
    `width` and `used`: the unit before them, and the weights used up to and with it. `chosen`: the
    widths chosen so far, [entries, units].
    """

    value: Array
    own: Array
    width: Array
    used: Array
    chosen: Array

    def at(self, which: Array) -> "_Partial":
        """Return some of the entries."""
        return _Partial(
            self.value[which],
            self.own[which],
            self.width[which],
            self.used[which],
            self.chosen[which],
        )


class Prefixes:
    """The table of a problem within ranges; `flat` makes every layout worth the same, 0.

    Raises: GaveUpError at the deadline, of time.monotonic; SettingError for too large a table.
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
        self.rows: list[dict[int, tuple[int, Array]]] = [{problem.inputs: (0, np.zeros(1))}]
        cells = 0
        for place, wanted in enumerate(ranges[1:]):
            rows: dict[int, tuple[int, Array]] = {}
            for width, (low, high) in wanted.items():
                row = self._row(place, width, low, high)
                if row is not None:
                    rows[width] = row
                    cells += len(row[1])
                _checked(cells)
            self.rows.append(rows)

    def best(self, threshold: float, top: int, last: tuple[int, int]) -> tuple[Array, Array]:
        """Return the `top` best layouts, and those that may be as good as the last of them.

        Logarithms of their energies [entries], and widths [entries, N], in any order. Those below
        the threshold are left out, but for some within the noise of it. The last width is limited
        to `last`.
        """
        partial = self._ends(threshold, last, top)
        for place in range(len(self.rows) - 1, 0, -1):
            partial = _greatest(self._back(place, partial, threshold), top)
        return partial.value, partial.chosen

    def above(self, threshold: float, last: tuple[int, int]) -> Iterator[tuple[Array, Array]]:
        """Yield all layouts from the threshold on, in parts: values, and widths [entries, N]."""
        yield from self._walk(len(self.rows) - 1, self._ends(threshold, last, None), threshold)

    def _walk(self, place: int, partial: _Partial, low: float) -> Iterator[tuple[Array, Array]]:
        if place == 0:
            yield partial.value, partial.chosen
            return
        for start in range(0, len(partial.value), _CHUNK):
            part = partial.at(slice(start, start + _CHUNK))
            yield from self._walk(place - 1, self._back(place, part, low), low)

    def _before(self, place: int, width: int) -> Iterator[tuple[int, int, Array]]:
        """Yield the rows of the unit before that may stand below a width; 0 is the first unit."""
        for below, (start, best) in self.rows[place].items():
            keep_time(self.deadline)
            if place == 0 or below <= width - self.problem.step:
                yield below, start, best

    def _row(self, place: int, width: int, low: int, high: int) -> tuple[int, Array] | None:
        row = np.full(high - low + 1, -inf)
        more = (self.problem.units[place] - 1) * width * width
        for below, start, best in self._before(place, width):
            first = start + below * width + more
            begin, end = max(low, first), min(high + 1, first + len(best))
            if begin < end:
                part = row[begin - low : end - low]
                np.maximum(part, best[begin - first : end - first], out=part)
        reached = np.flatnonzero(row > -inf)
        if not len(reached):
            return None
        row += self._worth(place, width)
        return low + int(reached[0]), row[reached[0] : reached[-1] + 1]

    def _worth(self, place: int, widths: Any) -> Any:
        factor = self.factors[place]
        return factor * np.log(np.log(widths)) if factor else np.zeros(np.shape(widths))

    def _ends(self, threshold: float, last: tuple[int, int], top: int | None) -> _Partial:
        """Return the last units whose best layouts reach the threshold."""
        parts, held = [_none(1)], 0
        for below, (start, best) in self.rows[-1].items():
            places = np.flatnonzero(best > -inf)
            least = last[0] if len(self.rows) == 1 else max(last[0], below + self.problem.step)
            most, fits = self._last_widths(below, self.problem.budget - start - places, last[1])
            fits &= most >= least
            found, best_before, widths = places[fits], best[places][fits], most[fits]
            tried = 0
            while len(found) and (top is None or tried < top):
                keep_time(self.deadline)
                own = self._worth(len(self.rows) - 1, widths)
                value = best_before + own
                keep = value >= threshold - SLACK
                part = _Partial(
                    value, own, np.full(len(found), below), start + found, widths[:, None]
                )
                parts.append(part.at(keep))
                held += int(np.count_nonzero(keep))
                if held > _HELD:
                    parts = [_greatest(_joined(parts), top)]
                    held = _checked(len(parts[0].value))
                # Within a budget the next narrower last width is a layout too.
                on = keep & (widths > least) & self.problem.at_most
                found, best_before, widths = found[on], best_before[on], widths[on] - 1
                tried += 1
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

    def _back(self, place: int, partial: _Partial, threshold: float) -> _Partial:
        """Return the partial layouts with the width of one more unit, number `place` from 1."""
        parts = [_none(partial.chosen.shape[1] + 1)]
        more = self.problem.units[place - 1] - 1
        for width in np.unique(partial.width):
            part = partial.at(partial.width == width)
            own = part.own + self._worth(place - 1, width)
            for below, start, best in self._before(place - 1, int(width)):
                used = part.used - below * width - more * width * width
                inside = np.flatnonzero((used >= start) & (used < start + len(best)))
                value = own[inside] + best[used[inside] - start]
                keep = inside[value >= threshold - 2 * SLACK]
                chosen = np.column_stack([np.full(len(keep), width), part.chosen[keep]])
                before = np.full(len(keep), below)
                parts.append(
                    _Partial(
                        own[keep] + best[used[keep] - start], own[keep], before, used[keep], chosen
                    )
                )
        return _joined(parts)


def _checked(cells: int) -> int:
    """Return how many numbers are held, or refuse to hold so many."""
    if cells > MOST_CELLS:
        raise SettingError.because(
            "too many layouts to tell apart",
            got=f"over {cells:,} cells",
            allowed=f"{MOST_CELLS:,}",
            remedy="ask for fewer plans or a lower budget",
        )
    return cells


def _none(units: int) -> _Partial:
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
    cut = np.partition(partial.value, -top)[-top]
    return partial.at(partial.value >= cut - SLACK)
