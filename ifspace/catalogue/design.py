"""The catalogue as values: designs, funnels, which design dominates which, published names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final

import numpy as np

from ifspace.block import Block, SizedBlock
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.kinds import KINDS


@dataclass(frozen=True, slots=True)
class Published:
    """A published block: its composition, how often it stands in a row, its name and source."""

    composition: str
    repeats: int
    name: str
    reference: str


PUBLISHED: Final = (
    Published("DW+PW", 1, "MobileNet", "[3DRF] 4.2, block B"),
    Published("DW+PW", 1, "Xception (inside)", "[3DRF] 4.2, block A"),
    Published("DW+PW", 1, "Fog 3.2", "[Fog] 3.2"),
    Published("GC+SH+GPW", 2, "clcNet", "[3DRF] 4.2, block C; [IF]"),
    Published("GC+SH+GPW", 1, "Fog 3.2", "[Fog] 3.2: GC+PWG with a permutation between"),
    Published("GC+GPW", 1, "Fog 3.2", "[Fog] 3.2, the permutation left free"),
    Published("PW+DW+PW", 1, "Fog 3.2", "[Fog] 3.2, with bottleneck 1/4"),
    Published("GPW+SH+DW+GPW", 2, "ShuffleNet", "[3DRF] 4.2, block D; [IF]"),
    Published("GPW+SH+DW+GPW", 1, "Fog 3.2", "[Fog] 3.2: PWG+DW+PWG with a permutation"),
    Published("GPW+DW+GPW", 1, "Fog 3.2", "[Fog] 3.2, the permutation left free"),
    Published("DW+RPW", 1, "3DRF 4.2", "[3DRF] 4.2, block F"),
    Published("DW+SH+GPW", 1, "3DRF 4.2", "[3DRF] 4.2, the first new block"),
)
_TIMES: Final = {1: "once", 2: "twice"}


def published_names(composition: str, repeats: int = 1) -> str | None:
    """Return the names of a composition, joined by "; ", or None for one that has none.

    A block that was published with another number of copies says with how many.

    >>> published_names("DW+PW"), published_names("GC+SH+GPW")
    ('MobileNet; Xception (inside); Fog 3.2', 'clcNet (twice); Fog 3.2')
    >>> published_names("PW+PW") is None
    True
    """
    one = composition.partition(")")[0].lstrip("(")
    names = []
    for entry in PUBLISHED:
        if entry.composition == one:
            times = _TIMES.get(entry.repeats, f"{entry.repeats} times")
            names.append(entry.name if entry.repeats == repeats else f"{entry.name} ({times})")
    return "; ".join(names) or None


@dataclass(frozen=True, slots=True)
class Design:
    """One survivor of one setting, with its cheapest block; a row of the catalogue.

    Widths are in channels, amounts are those of all copies of the block, ratios are to the
    reference, and `field` is (pixels, channels). `composition` is in the notation, with the number
    of copies, and `block` has the same number. `ifspace.catalogue.dataset.COLUMNS` describes every
    column.
    """

    channels: int
    out_channels: int
    bottleneck: str | None
    repeats: int
    kernel: int
    stride: int
    dims: int
    composition: str
    block: Block
    params: int
    macs_per_pixel: int
    activations_per_pixel: int
    params_ratio: float
    macs_ratio: float
    field: tuple[int, int]
    layers: int
    params_formula: str
    field_condition: str
    irreducible: bool
    dominated_by: str | None = None
    same_as: str | None = None
    published_as: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of one copy, from the first layer to the last."""
        return tuple(layer.kind for layer in self.block.layers)

    @property
    def sized(self) -> SizedBlock:
        """The block at the design's widths, all copies in a row."""
        return self.block.at(self.channels, self.out_channels, self.bottleneck, self.dims)

    @property
    def replaces(self) -> tuple[int, int, str | None, int, int, int, int]:
        """What the design is made for: designs that replace the same can replace each other."""
        return (
            self.channels,
            self.out_channels,
            self.bottleneck,
            self.repeats,
            self.kernel,
            self.stride,
            self.dims,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return _plain(self)


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many compositions were left after each step, in all and for each length from 1.

    `words_searched`: compositions whose parameters were looked into; the others fell to bounds
    that need none. `choices_covered`: parameter choices that the search decided, most of them
    many at a time; `choices_checked`: those that had to be looked at one by one.
    """

    compositions: int
    after_patterns: int
    survivors: int
    compositions_by_length: tuple[int, ...]
    after_patterns_by_length: tuple[int, ...]
    by_length: tuple[int, ...]
    words_searched: int = 0
    choices_covered: int = 0
    choices_checked: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the funnel as plain JSON values."""
        return _plain(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Funnel":
        """Return the funnel that `to_json` wrote."""
        frozen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**frozen)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The designs found: settings, a funnel for each, and the rows in the order of the settings.

    Within a setting rows stand in canonical order: length, then kinds in the order of the table.
    """

    settings: tuple[EnumerationSetting, ...]
    funnels: tuple[Funnel, ...]
    designs: tuple[Design, ...]


def _plain(row: Design | Funnel) -> dict[str, Any]:
    values = {each.name: getattr(row, each.name) for each in fields(row)}
    return {
        name: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Block) else v
        for name, v in values.items()
    }


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
