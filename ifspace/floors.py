"""Floors: what every channel-mixing layer of a block must have, whatever it costs.

Without them the cheapest block has as many groups as the field allows, two channels in each, and is
slow. Floors bound the search: the layers get fewer choices, and no answer is filtered afterwards.
Depthwise layers and shuffles do not mix channels, and no floor holds for them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cache
from typing import Any, Final

from ifspace.errors import ARGUMENT, SettingError
from ifspace.kinds import ROLLING, ConvKind, Parameters, find_kind
from ifspace.values import counted, listed, set_fields, whole_number


@dataclass(frozen=True, slots=True)
class Floors:
    """What a channel-mixing layer (PW, CONV, GC, GPW, RPW) must have.

    - `least_fan_in`: channels that each of its filters reads at least. PW and CONV read all.
    - `least_spatial_fan_in`: the same, of the k x k layers alone (CONV, GC).
    - `multiple`: in a layer of several groups the channels of a group are multiples of it, those
      that it reads and those that it writes; of RPW the width of the window, for its filters share
      no group. A layer of one group has no groups to choose and meets it at any width.
    - `most_groups`: groups at most; None for any number.

    The defaults ask for nothing.

    >>> floors = Floors(least_fan_in=8, multiple=4)
    >>> str(floors), bool(floors), bool(Floors())
    ('at least 8 channels per filter, channels per group in multiples of 4', True, False)
    >>> gpw = find_kind("GPW")
    >>> [groups for groups in gpw.group_counts(64, 96) if floors.allow(gpw, 64, 96, groups)]
    [2, 4, 8]

    Raises: SettingError for a value out of its range.
    """

    least_fan_in: int = 1
    least_spatial_fan_in: int = 1
    multiple: int = 1
    most_groups: int | None = None

    def __post_init__(self) -> None:
        for name in NAMES:
            value = getattr(self, name)
            if name != "most_groups" or value is not None:
                set_fields(self, **{name: whole_number(value, name)})

    def __bool__(self) -> bool:
        return any(self.asks(name) for name in NAMES)

    def __str__(self) -> str:
        return ", ".join(_text(name, getattr(self, name)) for name in self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The floors that ask for something."""
        return tuple(name for name in NAMES if self.asks(name))

    def asks(self, name: str) -> bool:
        """Return whether a floor asks for something."""
        return bool(getattr(self, name) != getattr(NO_FLOORS, name))

    def allow(self, conv: ConvKind, c_in: int, c_out: int, groups: int | None = None) -> bool:
        """Return whether a layer c_in -> c_out may have these groups.

        >>> Floors(least_spatial_fan_in=8).allow(find_kind("GC"), 64, 64, 16)
        False
        """
        if not conv.mixing:
            return True
        count = groups or 1
        fan_in = conv.fan_in_at(c_in, count)
        if fan_in < self.least_fan_in or (conv.spatial and fan_in < self.least_spatial_fan_in):
            return False
        if count == 1:
            return True
        per_group = [fan_in] if conv.takes_overlap else [c_in // count, c_out // count]
        return (self.most_groups is None or count <= self.most_groups) and not any(
            channels % self.multiple for channels in per_group
        )

    def of(
        self,
        conv: ConvKind,
        choices: Iterable[Parameters],
        width_pairs: Sequence[tuple[int, int]],
    ) -> tuple[Parameters, ...]:
        """Return those of the choices of a kind that are allowed at all pairs of widths.

        >>> gpw = find_kind("GPW")
        >>> Floors(most_groups=4).of(gpw, gpw.choices(16, 16), [(16, 16)])
        ((2, None, None), (4, None, None))
        """
        if not self:
            return tuple(choices)
        return tuple(
            choice
            for choice in choices
            if all(self.allow(conv, *pair, choice[0]) for pair in width_pairs)
        )

    def below(self, channels: int) -> "Floors":
        """Return the floors for a layer that reads the input of a network, of so many channels.

        It cannot read more than there are: an image has three.

        >>> Floors(least_fan_in=16).below(3).allow(find_kind("CONV"), 3, 64)
        True
        """
        return replace(
            self,
            least_fan_in=min(self.least_fan_in, channels),
            least_spatial_fan_in=min(self.least_spatial_fan_in, channels),
        )

    def but(self, name: str, value: int | None) -> "Floors":
        """Return the floors with another value of one of them."""
        changes: dict[str, Any] = {name: value}
        return replace(self, **changes)

    def without(self, name: str) -> "Floors":
        """Return the floors with one of them asking for nothing.

        >>> Floors(least_fan_in=8, most_groups=4).without("most_groups")
        Floors(least_fan_in=8, least_spatial_fan_in=1, multiple=1, most_groups=None)
        """
        return self.but(name, getattr(NO_FLOORS, name))

    def cover(self, other: "Floors") -> bool:
        """Return whether whatever the other floors allow, these allow too.

        >>> Floors(least_fan_in=4, multiple=4).cover(Floors(least_fan_in=8, multiple=8))
        True
        >>> Floors(most_groups=4).cover(Floors(least_fan_in=8))
        False
        """
        spatial = max(other.least_fan_in, other.least_spatial_fan_in)
        return (
            self.least_fan_in <= other.least_fan_in
            and self.least_spatial_fan_in <= spatial
            and other.multiple % self.multiple == 0
            and (
                self.most_groups is None
                or (other.most_groups is not None and other.most_groups <= self.most_groups)
            )
        )


@dataclass(frozen=True, slots=True)
class ParamsRange:
    """Bounds on the parameters that blocks can have, known before any search, both included."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least:,} to {self.most:,} parameters"


# The names of the floors, and those that ask for nothing.
NAMES: Final = tuple(field.name for field in fields(Floors))
NO_FLOORS: Final = Floors()
_TEXTS: Final = {
    "least_fan_in": ("at least {} per filter", "channel"),
    "least_spatial_fan_in": ("at least {} per filter of a spatial layer", "channel"),
    "multiple": ("channels per group in multiples of {}", ""),
    "most_groups": ("at most {}", "group"),
}


def _text(name: str, value: int) -> str:
    """Return what a floor asks for."""
    text, noun = _TEXTS[name]
    return text.format(counted(value, noun) if noun else value)


def leaves_nothing(
    floors: Floors, works: Callable[[Floors], bool], widths: Iterable[int], where: str
) -> SettingError:
    """Return the error for floors that leave nothing: which of them, and the nearest that works.

    `works` tells of other floors whether they leave something, `widths` are the input widths of the
    layers. Fan-ins, channels of a group and group counts divide those, so that no value between two
    divisors works where the divisor below (of a number of groups, above) does not.

    >>> print(leaves_nothing(Floors(least_fan_in=12), lambda floors: floors.least_fan_in <= 8,
    ...                      [16], "at 16 channels"))
    least_fan_in leaves no block at 16 channels: got 12; allowed: up to 8; lower least_fan_in to 8
    """
    divisors = sorted({n for width in widths for n in range(1, width + 1) if width % n == 0})
    for name in floors.names:
        if not works(floors.without(name)):
            continue
        value = getattr(floors, name)
        if name == "most_groups":
            values: list[int | None] = [*(n for n in divisors if n > value), None]
        else:
            values = [n for n in reversed(divisors) if n < value]
        nearest = next((n for n in values if works(floors.but(name, n))), values[-1])
        if nearest is None:
            allowed, remedy = "any number", f"leave {ARGUMENT} out"
        elif name == "most_groups":
            allowed, remedy = f"from {nearest}", f"raise {ARGUMENT} to {nearest}"
        else:
            allowed = f"divisors of {nearest}" if name == "multiple" else f"up to {nearest}"
            remedy = f"lower {ARGUMENT} to {nearest}"
        return SettingError.because(
            f"{ARGUMENT} leaves no block {where}",
            got=value,
            allowed=allowed,
            remedy=remedy,
            argument=name,
        )
    return SettingError.because(
        f"floors that leave no block {where}",
        got=str(floors),
        allowed="floors of which one alone is not enough to rule out every block",
        remedy=f"lower several of {listed(floors.names)}",
    )


@cache
def kinds_without_choice(
    kinds: tuple[str, ...],
    width_pairs: tuple[tuple[int, int], ...],
    overlaps: tuple[Fraction, ...],
    orders: tuple[str, ...] = (ROLLING,),
    *,
    may_copy: bool = True,
    floors: Floors = NO_FLOORS,
) -> tuple[str, ...]:
    """Return the kinds that have no legal, non-trivial parameters at any of the width pairs.

    `may_copy` as in `ConvKind.group_counts`.

    >>> kinds_without_choice(("PW", "GC", "SH"), ((7, 7),), ())
    ('GC', 'SH')
    >>> kinds_without_choice(("PW", "GC", "SH"), ((8, 8),), (), floors=Floors(least_fan_in=8))
    ('GC',)
    """

    def fits(kind: str) -> bool:
        row = find_kind(kind)
        return any(
            floors.of(
                row,
                row.choices(c_in, c_out, overlaps, orders=orders, may_copy=may_copy),
                [(c_in, c_out)],
            )
            for c_in, c_out in width_pairs
            if row.mixing or c_in == c_out
        )

    return tuple(kind for kind in kinds if not fits(kind))
