"""The widths at which a block is followed, and the roles that its layers play in them."""

from dataclasses import dataclass

from ifspace.block import place_widths
from ifspace.catalogue.setting import EnumerationSetting

Widths = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Track:
    """Widths at which a block is followed: input, output and bottleneck, in channels."""

    c_in: int
    c_out: int
    inner: int | None


@dataclass(frozen=True, slots=True)
class Tracks:
    """The widths at which the copies of a block are followed, and what is decided on which.

    `all`: the distinct ones. `decides`: places of those on which the rule decides, for the first
    copy and for the others. `real`: places of those that the block really has, or None where they
    are the same; on them only the full field is asked for.
    """

    all: tuple[Track, ...]
    decides: tuple[int, int]
    real: tuple[int, int] | None


def tracks_of(setting: EnumerationSetting) -> Tracks:
    """Return the widths to follow: the rule decides at width C, or with a bottleneck at its own."""
    c, f, k = setting.channels, setting.out_width, setting.inner_width
    first, later = Track(c, f, k), Track(f, f, k)
    if k is None and c != f:
        real = (first,) if setting.repeats == 1 else (first, later)
        return Tracks((Track(c, c, None), *real), (0, 0), (1, len(real)))
    if setting.repeats == 1 or c == f:
        return Tracks((first,), (0, 0), None)
    return Tracks((first, later), (0, 1), None)


# Roles of a layer in its block: before the first channel-mixing layer, that layer, between it and
# the last, the last, behind the last; and the only one, which is the first and the last.
BEFORE, FIRST, BETWEEN, LAST, BEHIND, ONLY = range(6)


def role_of(place: int, first: int, last: int) -> int:
    """Return the role of a layer, given the places of the first and last channel-mixing layer."""
    if first == last == place:
        return ONLY
    if place <= first:
        return FIRST if place == first else BEFORE
    return BETWEEN if place < last else LAST if place == last else BEHIND


def role_widths(track: Track) -> tuple[Widths, ...]:
    """Return the input and output width of each role, in channels."""
    several = place_widths([False, True, False, True, False], track.c_in, track.c_out, track.inner)
    return *several, (track.c_in, track.c_out)
