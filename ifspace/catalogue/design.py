"""The catalogue as values: a row per design, a funnel per setting."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ifspace.catalogue.setting import EnumerationSetting


@dataclass(frozen=True, slots=True)
class Design:
    """One survivor of one setting, with its cheapest block; a row of the catalogue.

    Widths are in channels, amounts are those of all copies of the block, ratios are to the
    reference, and `field` is (pixels, channels). `composition` and `block` are in the notation,
    with the number of copies. `ifspace.catalogue.dataset.COLUMNS` describes every column.
    """

    channels: int
    out_channels: int
    bottleneck: str | None
    repeats: int
    kernel: int
    stride: int
    dims: int
    composition: str
    block: str
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
        return tuple(self.composition.partition(")")[0].lstrip("(").split("+"))

    @property
    def place(self) -> tuple[int, int, str | None, int, int, int, int]:
        """What the design is made for: designs of one place can stand in for each other."""
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
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
