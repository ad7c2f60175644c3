"""Which blocks the latency model is fitted to and judged on: a sample of the catalogue."""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from ifspace.bench.blocks.cases import Candidate, Key
from ifspace.bench.blocks.selection import Place, at_place, designs_for, overlaps_of, sized_at
from ifspace.block import Block
from ifspace.catalogue.design import (
    Catalogue,
    Design,
)
from ifspace.errors import IfspaceError

SEED: Final = 0
# Designs at the place asked for, and at each of the others.
HERE: Final = 40
ELSEWHERE: Final = 3
# Designs looked at for each at another place, where the widths may leave it no groups.
MOST_TRIED: Final = 3
# Kinds that few designs have or none.
ANCHORS: Final = ("CONV", "DW+PW")
ANCHOR: Final = "anchor"
MOST_PLACES: Final = 3
LEAST_WIDTH, MOST_WIDTH, LEAST_SIDE = 8, 1024, 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """Blocks to fit to, and a sample at the place asked for, held out in turn to judge by."""

    fit: tuple[Candidate, ...]
    sample: tuple[Candidate, ...]


def neighbours(place: Place) -> tuple[Place, ...]:
    """Return the places where networks go on from here: half or twice the width, and so on.

    >>> [(each.channels, each.side) for each in neighbours(Place(64, 64, 56))]
    [(32, 112), (128, 28), (256, 14)]
    """
    found = []
    for up, down in ((1, 2), (2, 1), (4, 1)):
        widths = place.channels * up, place.out_channels * up
        side = place.side * down // up
        whole = not any(each % down for each in widths) and place.side * down % up == 0
        fits = min(widths) // down >= LEAST_WIDTH and max(widths) // down <= MOST_WIDTH
        if whole and fits and side >= LEAST_SIDE:
            c_in, c_out = (each // down for each in widths)
            found.append(replace(place, channels=c_in, out_channels=c_out, side=side))
    return tuple(found)


def calibration(
    catalogue: Catalogue,
    place: Place,
    others: Sequence[Place],
    more: Sequence[Candidate] = (),
    but: frozenset[str] = frozenset(),
) -> Calibration:
    """Return what to measure for a model: a sample without the blocks named in `but`.

    `others`: more places to fit to; `more`: blocks to fit to beside the sample. All are timed
    again, in rounds that they share.
    """
    designs = designs_for(catalogue, place)
    drawn = random.Random(SEED).sample(designs, min(len(designs), 4 * HERE))
    but = but | {*ANCHORS, *(each.name for each in more)}
    here = [x for x in _first(drawn, place, catalogue, HERE + len(but)) if x.name not in but]
    places = list(others[:MOST_PLACES])
    anchors = [replace(x, provider=ANCHOR, design=None, calibrates=True) for x in more]
    fit = [*_anchors([place, *places]), *anchors]
    for number, other in enumerate(places):
        tried = drawn[number :: len(places)][: MOST_TRIED * ELSEWHERE]
        fit += _first(tried, other, catalogue, ELSEWHERE)
    once: dict[Key, Candidate] = {}
    for each in fit:
        once.setdefault(each.key, each)
    return Calibration(tuple(once.values()), tuple(here[:HERE]))


def _first(
    designs: Sequence[Design], place: Place, catalogue: Catalogue, count: int
) -> list[Candidate]:
    """Return so many designs at a place, of the first that have the full field there."""
    found: list[Candidate] = []
    for design in designs:
        if len(found) < count:
            with suppress(IfspaceError):
                moved = at_place(design, place, "params", overlaps_of(catalogue, design))
                found.append(replace(moved, calibrates=True))
    return found


def _anchors(places: Sequence[Place]) -> list[Candidate]:
    found = []
    for place in places:
        for text in ANCHORS:
            sized = Block.parse(text).at(place.channels, place.out_channels)
            found.append(replace(sized_at(sized, place), provider=ANCHOR, calibrates=True))
    return found
