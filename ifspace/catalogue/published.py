"""The blocks that have a name already."""

from dataclasses import dataclass
from typing import Final


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
