"""Dominance: which design another one makes superfluous."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter

import numpy as np

from ifspace.catalogue.design import Design
from ifspace.kinds import KINDS

Costs = tuple[int, int, int, int]

_NAMES = [each.name for each in fields(Design)]
_MARK = _NAMES.index("dominated_by")
_design: Callable[..., Design] = Design
_before, _after = attrgetter(*_NAMES[:_MARK]), attrgetter(*_NAMES[_MARK + 1 :])


def costs(design: Design) -> Costs:
    """Return what dominance compares: parameters, MACs, activations, layers."""
    return design.params, design.macs_per_pixel, design.activations_per_pixel, design.layers


def dominators(rows: Sequence[Design]) -> list[str | None]:
    """Return for each design of one setting the composition of its first dominator, or None.

    A dominator is no worse in parameters, MACs, activations and layers and better in one of them;
    the first is meant in canonical order: length, then kinds. The rows may be in any order.

    There are few distinct costs among many rows, and two rows of the same costs have the same
    dominators: only the first row of each costs is compared with the others.
    """
    places = {symbol: place for place, symbol in enumerate(KINDS)}
    first: dict[Costs, tuple[tuple[int, ...], Design]] = {}
    all_costs = [costs(row) for row in rows]
    for row, cost in zip(rows, all_costs, strict=True):
        key = tuple(places[kind] for kind in row.kinds)
        if cost not in first or key < first[cost][0]:
            first[cost] = (key, row)
    # Layers are part of the costs, so all rows of the same costs have the same length.
    ordered = sorted(first, key=lambda cost: (cost[-1], first[cost][0]))
    table = np.array(ordered, dtype=np.int64).reshape(-1, 4)
    found: dict[Costs, str | None] = {}
    for place, cost in enumerate(ordered):
        no_worse = (table <= table[place]).all(axis=1)
        no_worse[place] = False  # the rest differ somewhere, so no worse is better in one
        best = int(no_worse.argmax())
        found[cost] = first[ordered[best]][1].composition if no_worse[best] else None
    return [found[cost] for cost in all_costs]


def mark_dominated(rows: Iterable[Design]) -> tuple[Design, ...]:
    """Return the designs of one setting, in the order given, with `dominated_by` filled in."""
    given = tuple(rows)
    # dataclasses.replace takes three times as long, seconds on a long catalogue.
    return tuple(
        row if row.dominated_by == name else _design(*_before(row), name, *_after(row))
        for row, name in zip(given, dominators(given), strict=True)
    )
