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
* *Among compositions.* If a choice is beaten, some choice on the front beats it, since there are
  finitely many and "beats" is transitive. So the front of the setting is found among the fronts of
  the compositions, by comparing their points.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

# What is compared: parameters, MACs, activations and peak memory per output pixel, -least fan-in,
# layers. Less is better in each.
Compared = tuple[int, ...]


def unbeaten(amounts: Iterable[Compared]) -> set[Compared]:
    """Return those amounts that none of the others is no worse than.

    >>> sorted(unbeaten([(1, 4), (2, 2), (3, 2), (4, 1)]))
    [(1, 4), (2, 2), (4, 1)]
    """
    front: list[Compared] = []
    # What beats an entry comes before it in lexicographic order.
    for entry in sorted(set(amounts)):
        if not any(all(a <= b for a, b in zip(other, entry, strict=True)) for other in front):
            front.append(entry)
    return set(front)


def beaten(rows: Iterable[Compared], counts: Counter[Compared]) -> dict[Compared, int]:
    """Return for each of the rows how many choices it beats, given how many have which amounts.

    >>> beaten([(1, 4), (2, 2)], Counter({(1, 4): 1, (2, 2): 1, (2, 4): 5, (3, 2): 2}))
    {(1, 4): 5, (2, 2): 7}
    """
    amounts = np.array(list(counts), np.int64)
    choices = np.array(list(counts.values()), np.int64)
    return {
        row: int(choices[(amounts >= np.array(row)).all(axis=1)].sum()) - counts[row]
        for row in dict.fromkeys(rows)
    }
