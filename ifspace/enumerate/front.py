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

from collections.abc import Iterable
from typing import Any

import numpy as np

from ifspace.catalogue.beaten import no_worse
from ifspace.catalogue.parts import Compared
from ifspace.compiled import compiled


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
            if no_worse(entries[front[place]], entries[index]):
                beaten = True
                break
        if not beaten:
            kept[index] = True
            front[count] = index
            count += 1
    return kept
