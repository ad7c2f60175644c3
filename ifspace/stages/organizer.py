"""The greedy organizer: blocks go from the stage where they gain least to where they gain most.

A rule of thumb without a solver or a proof: it looks one step ahead. Read at the letter, all of it
ends where source and target are one stage or one more block gains no more than the least last one:
no block is removed there either, even if both gains are below the threshold.

Reference: [3DRF] section 4.1.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import isclose
from typing import Final

from ifspace.stages.moves import (
    Move,
    Staged,
    Start,
    Stopped,
    Trajectory,
)
from ifspace.values import (
    from_zero,
    whole_within,
)

# Gains this close, relatively, are equal: they differ by rounding alone.
TIE: Final = 1e-12


def organize(
    layout: Start, theta: float = 0, alpha: float = 3, moves: int | None = None
) -> Trajectory[Start]:
    """Return the organizer's steps from a layout on; at most so many `moves` if told.

    Each step: the source is the stage whose last block gains least, among those with a block to
    give; the target is the stage where one more gains most; of equal gains the earlier stage
    counts. A block moves if max > min and max > theta; it is removed if both are below theta.

    >>> from ifspace.stages.networks import network
    >>> found = organize(network("vgg16", 32))
    >>> [str(move) for move in found.moves], found.end.depths
    (['4→1', '5→2', '5→1', '4→1', '3→2'], (5, 4, 2, 1, 1))

    Raises: SettingError for a threshold or an alpha below 0, and for a number of moves below 0.

    Reference: [3DRF] section 4.1.
    """
    theta, alpha = from_zero(theta, "theta"), from_zero(alpha, "alpha")
    limit = None if moves is None else whole_within(moves, "moves", 0)
    taken: list[Move] = []
    current: Start = layout
    while True:
        seen = _look(current, alpha)
        if seen is None:
            return Trajectory(layout, tuple(taken), Stopped.NOTHING_TO_MOVE)
        stopped = _why_not(seen, theta)
        if stopped is None and len(taken) == limit:
            stopped = Stopped.LIMIT
        if stopped is not None:
            return Trajectory(layout, tuple(taken), stopped, seen)
        taken.append(_taken(seen, theta))
        current = current.at_depths(taken[-1].depths)


def _look(layout: Staged, alpha: float) -> Move | None:
    """Return source, target and their gains at the depths as they are; None without a source."""
    last = [
        (place, stage.last_gain(alpha))
        for place, stage in enumerate(layout.stages, start=1)
        if stage.depth > stage.least_depth
    ]
    more = [(place, stage.next_gain(alpha)) for place, stage in enumerate(layout.stages, start=1)]
    if not last:
        return None
    least, greatest = min(gain for _, gain in last), max(gain for _, gain in more)
    return Move(_first(last, least), _first(more, greatest), least, greatest, layout.depths)


def _first(gains: Iterable[tuple[int, float]], wanted: float) -> int:
    """Return the earliest place of a gain, or of one equal to it."""
    return next(place for place, gain in gains if _equal(gain, wanted))


def _equal(one: float, other: float) -> bool:
    return isclose(one, other, rel_tol=TIE)


def _why_not(seen: Move, theta: float) -> Stopped | None:
    """Return why no step is taken, if none is."""
    if seen.max <= seen.min or _equal(seen.max, seen.min):
        return Stopped.NO_GAIN
    if seen.source == seen.target:
        return Stopped.SAME_STAGE
    return Stopped.THRESHOLD if seen.max == theta else None


def _taken(seen: Move, theta: float) -> Move:
    """Return the step: a move above the threshold, a removal below it."""
    target = seen.target if seen.max > theta else None
    depths = tuple(
        depth + (place == target) - (place == seen.source)
        for place, depth in enumerate(seen.depths, start=1)
    )
    return replace(seen, target=target, depths=depths)
