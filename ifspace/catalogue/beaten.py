"""How many choices each row of a front beats, counted by compiled code."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from ifspace.catalogue.parts import Compared
from ifspace.compiled import compiled


@compiled(nogil=True)
def no_worse(one: Any, other: Any) -> bool:
    """Return whether amounts [n] are no worse than others in any of them."""
    for index in range(len(one)):  # noqa: SIM110, numba compiles no generators
        if one[index] > other[index]:
            return False
    return True


@compiled(nogil=True)
def _counts(rows: Any, amounts: Any, choices: Any) -> Any:
    """Return for each of the rows how many choices have amounts that are no better."""
    totals = np.zeros(len(rows), np.int64)
    for row in range(len(rows)):
        for index in range(len(amounts)):
            if no_worse(rows[row], amounts[index]):
                totals[row] += choices[index]
    return totals


def beaten(rows: Iterable[Compared], counts: Counter[Compared]) -> dict[Compared, int]:
    """Return for each of the rows how many choices it beats, given how many have which amounts.

    >>> beaten([(1, 4), (2, 2)], Counter({(1, 4): 1, (2, 2): 1, (2, 4): 5, (3, 2): 2}))
    {(1, 4): 5, (2, 2): 7}
    """
    amounts = np.array(list(counts), np.int64)
    choices = np.array(list(counts.values()), np.int64)
    distinct = list(dict.fromkeys(rows))
    totals = _counts(np.array(distinct, np.int64), amounts, choices) if distinct else ()
    return {row: int(n) - counts[row] for row, n in zip(distinct, totals, strict=True)}
