"""[Fog]'s own funnel: its four kinds, its rules, and its designs up to order and GC -> DW.

Reference: [Fog] sections 3.1 and 3.2.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

from ifspace.block import Composition
from ifspace.catalogue.design import PUBLISHED
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.kinds import kind_at_most_groups, position

# What `ifspace enumerate --preset fog` gives its options: the regular expression that the paper
# prints also matches inside a composition, channels may be permuted between layers, every layer is
# needed.
FOG: Final[dict[str, Any]] = {
    "kinds": ("GC", "DW", "PW", "GPW"),
    "max_len": 6,
    "repeats": 1,
    "rule": "compact",
    "permutation": "free",
    "patterns": "any",
    "compact": "single",
}
PRESETS: Final = {"fog": FOG}
# Of the output channels, inside the block: [Fog] section 3.2.
BOTTLENECK: Final = Fraction(1, 4)


@dataclass(frozen=True, slots=True)
class MergedDesign:
    """Compositions that are one design up to order and GC -> DW, in canonical order.

    `name` is the one that [Fog] presents; of others the first with the fewest grouped kinds.
    `in_fog`: whether the paper presents it.
    """

    name: str
    compositions: tuple[str, ...]
    in_fog: bool


@dataclass(frozen=True, slots=True)
class FogFunnel:
    """What a setting leaves up to order and GC -> DW, and what a bottleneck of 1/4 adds.

    `added` holds the designs that survive only with that bottleneck, `narrow` is the number of
    compositions that do with it: None where it is no whole number of channels or the setting has a
    bottleneck of its own.
    """

    designs: tuple[MergedDesign, ...]
    narrow: int | None
    added: tuple[MergedDesign, ...]

    @property
    def of_fog(self) -> tuple[str, ...]:
        """The designs that the paper presents, of both runs."""
        return tuple(design.name for design in (*self.designs, *self.added) if design.in_fog)


def merged(compositions: Iterable[str]) -> tuple[MergedDesign, ...]:
    """Merge compositions of the same kinds in another order, and with DW in the place of GC.

    A group convolution with as many groups as channels is a depthwise one. A design that has no
    composition with DW, such as GC+GPW, keeps the name with GC: DW+GPW has not the full field.

    >>> for design in merged(["PW+DW", "DW+PW", "GC+PW", "GC+GPW"]):
    ...     print(design.name, design.compositions)
    DW+PW ('PW+DW', 'GC+PW', 'DW+PW')
    GC+GPW ('GC+GPW',)

    Reference: [Fog] section 3.2, which calls GC+GPW an extension of DW+PW.
    """
    kinds_of = {text: Composition.parse(text).kinds for text in compositions}
    classes: dict[tuple[str, ...], list[str]] = {}
    for text, kinds in sorted(kinds_of.items(), key=lambda item: Composition(item[1]).sort_key):
        key = tuple(sorted(kind_at_most_groups(kind) or kind for kind in kinds))
        classes.setdefault(key, []).append(text)
    presented = {entry.composition for entry in PUBLISHED if entry.reference.startswith("[Fog]")}

    def order(text: str) -> tuple[bool, int, tuple[int, ...]]:
        kinds = kinds_of[text]
        grouped = sum(kind_at_most_groups(kind) is not None for kind in kinds)
        return text not in presented, grouped, tuple(map(position, kinds))

    designs = []
    for texts in classes.values():
        name = min(texts, key=order)
        designs.append(MergedDesign(name, tuple(texts), name in presented))
    return tuple(designs)


def fog_setting(channels: int) -> EnumerationSetting:
    """Return the setting of [Fog]'s funnel at a width, in channels.

    >>> enumerate_designs([fog_setting(16)]).funnels[0].survivors
    8

    Raises: SettingError for a width out of range.
    """
    return EnumerationSetting(channels=channels, **FOG)


def fog_funnel(
    setting: EnumerationSetting, survivors: Iterable[str], jobs: int | None = None
) -> FogFunnel:
    """Merge the compositions that survive in a setting, and run it again with the bottleneck.

    >>> setting = fog_setting(16)
    >>> designs = enumerate_designs([setting]).designs
    >>> fog_funnel(setting, [design.composition for design in designs]).of_fog
    ('DW+PW', 'GC+GPW', 'GPW+DW+GPW', 'PW+DW+PW')
    """
    compositions = tuple(survivors)
    designs = merged(compositions)
    whole = (BOTTLENECK * setting.out_width).denominator == 1
    if setting.bottleneck is not None or not whole:
        return FogFunnel(designs, None, ())
    narrow = enumerate_designs([replace(setting, bottleneck=BOTTLENECK)], jobs).designs
    every = merged(dict.fromkeys([*compositions, *(design.composition for design in narrow)]))
    added = tuple(design for design in every if not set(design.compositions) & set(compositions))
    return FogFunnel(designs, len(narrow), added)
