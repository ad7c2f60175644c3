"""The front: the choices that no other choice beats, and how many each of them beats.

One choice beats another that is no better in parameters, MACs, activations, peak memory, least
fan-in and layers and worse in one of them (fan-in: more is better). The front of a setting is made
of the choices that none beats, over all group counts, shuffles and overlaps of all compositions.
No list of the choices is made; why nothing is lost:

* *Inside a composition* activations, peak memory and layers follow from the widths, which every
  choice has alike. Parameters, MACs and least fan-in are left: with the composition's own numbers
  they make a `Point`.
* *States with amounts.* The searches (`halves`, `forward`) merge choices of equal state, for they
  have the same future. Here the amounts so far belong to the state. The parameters and MACs of a
  block are sums over its layers and its least fan-in is a minimum, so that the amounts of two
  halves say those of the block: choices that are merged end in the same point or fail together.
  Each passing choice is in exactly one pair of states, and a state knows how many choices it
  stands for, so that the counts of the points are those of all passing choices.
* *States that are dropped* have a layer that is not needed whatever follows: none of their choices
  passes. Nothing is dropped for its cost, for what is beaten is to be counted.
* *Latency*, where it is an amount, is the least of a few sums over layers (`timed`): each sum is
  one more amount of a state. A choice that another one beats in all sums it beats in the least.
* *Among compositions.* If a choice is beaten, some choice on the front beats it, since there are
  finitely many and "beats" is transitive. So the front of the setting is found among the fronts of
  the compositions, by comparing their points.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from ifspace.enumerate.bits import compiled

# What is compared: parameters, MACs, activations and peak memory per output pixel, -least fan-in,
# layers, and nanoseconds where latency is an amount. Less is better in each.
Compared = tuple[int, ...]


def unbeaten(amounts: Iterable[Compared]) -> set[Compared]:
    """Return those amounts that none of the others is no worse than.

    >>> sorted(unbeaten([(1, 4), (2, 2), (3, 2), (4, 1)]))
    [(1, 4), (2, 2), (4, 1)]
    """
    # What beats an entry comes before it in lexicographic order.
    entries = sorted(set(amounts))
    kept = _unbeaten(np.array(entries, np.int64)) if entries else ()
    return {entry for entry, stays in zip(entries, kept, strict=True) if stays}


@compiled(nogil=True)
def _unbeaten(entries: Any) -> Any:
    """Return which of the entries [n, amounts], in lexicographic order, none before is no worse."""
    kept = np.zeros(len(entries), np.bool_)
    front = np.empty(len(entries), np.int64)
    count = 0
    for index in range(len(entries)):
        beaten = False
        # The last that was kept is the likeliest to beat it.
        for place in range(count - 1, -1, -1):
            if _no_worse(entries[front[place]], entries[index]):
                beaten = True
                break
        if not beaten:
            kept[index] = True
            front[count] = index
            count += 1
    return kept


@compiled(nogil=True)
def _no_worse(one: Any, other: Any) -> bool:
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
            if _no_worse(rows[row], amounts[index]):
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
