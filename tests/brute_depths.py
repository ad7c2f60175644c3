"""Depths of stages by brute force: every depth of every table.

Nothing of the library is imported: `choices` takes anything that has the attributes of a problem.
"""

from itertools import product
from typing import Any, NamedTuple

# Gains this close are equal: others of these small problems are far apart.
SAME = 1e-8


class Row(NamedTuple):
    """Depths, their total gain, and parameters and MACs of the whole network."""

    gain: float
    params: int
    macs: int
    depths: tuple[int, ...]


def choices(problem: Any) -> list[Row]:
    """Return every choice of depths, ignoring budgets."""
    columns = [
        [
            (table.min_depth + n, gain, table.params[n], table.macs[n])
            for n, gain in enumerate(table.gains)
        ]
        for table in problem.tables
    ]
    rows = []
    for chosen in product(*columns):
        depths, gains, params, macs = zip(*chosen, strict=True)
        total = problem.rest_params + sum(params)
        rows.append(Row(sum(gains), total, problem.rest_macs + sum(macs), depths))
    return rows


def ranking(problem: Any, rows: list[Row]) -> list[Row]:
    """Return the choices within budgets: the greatest gain first.

    Of equal gain those with the fewest blocks added to the start or removed, if there is one; then
    those with the fewest parameters.
    """
    budgets, start = problem.budgets, problem.start or ()

    def changes(row: Row) -> int:
        return sum(abs(depth - there) for depth, there in zip(row.depths, start, strict=False))

    kept = [
        row
        for row in rows
        if (budgets.params is None or row.params <= budgets.params)
        and (budgets.macs is None or row.macs <= budgets.macs)
    ]
    ranked: list[tuple[float, Row]] = []
    for row in sorted(kept, key=lambda row: -row.gain):
        near = ranked and ranked[-1][0] - row.gain < SAME
        ranked.append((ranked[-1][0] if near else row.gain, row))
    ranked.sort(key=lambda pair: (-pair[0], changes(pair[1]), pair[1].params))
    return [row for _, row in ranked]
