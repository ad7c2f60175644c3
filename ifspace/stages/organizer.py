"""The greedy organizer: move blocks from the stage where they gain least to where they gain most.

A heuristic without a solver or a proof: it looks one step ahead. Taken literally, the rule of the
paper ends where source and target are the same stage, or where one more block gains no more than
the smallest last one; no block is removed there either, even if both gains are below the threshold.

Reference: [3DRF] section 4.1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import fsum, isclose
from typing import Any, Final, Generic, Protocol, TypeVar

from ifspace.values import number_from_zero, whole_number


class Repeated(Protocol):
    """A stage as the organizer sees it: so many blocks, and what the last and one more gain."""

    @property
    def depth(self) -> int:
        """How many blocks it has."""

    @property
    def least_depth(self) -> int:
        """How many it keeps."""

    def last_gain(self, alpha: float) -> float:
        """Return the gain of the last block."""

    def next_gain(self, alpha: float) -> float:
        """Return the gain of one more."""


class Staged(Protocol):
    """A layout, or a network of which only its stages are known."""

    @property
    def stages(self) -> Sequence[Repeated]:
        """The stages."""

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""

    def at_depths(self, depths: tuple[int, ...]) -> Any:
        """Return the same with other depths."""


Start = TypeVar("Start", bound=Staged)


class Stopped(Enum):
    """Why the organizer made no further move; the text says it to a person."""

    SAME_STAGE = "the stage whose last block gains least is the one where one more gains most"
    NO_GAIN = "nowhere would one more block gain more than the least last block gains"
    THRESHOLD = "the greatest gain of one more block is the threshold, neither above nor below it"
    NOTHING_TO_MOVE = "every stage has one block, and keeps it"
    LIMIT = "as many moves as were asked for"


@dataclass(frozen=True, slots=True)
class Move:
    """One step of the organizer: the last block of `source` goes to `target`, or away if None.

    Stages count from 1. `min` is the gain of the block at its source, `max` that of one more block
    at the stage where it is greatest, before the step. `depths` are those after it.

    >>> str(Move(4, 1, 0.0, 0.25, (3, 2, 3, 2)))
    '4→1'

    Reference: [3DRF] section 4.1.
    """

    source: int
    target: int | None
    min: float
    max: float
    depths: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.source}→{'' if self.target is None else self.target}"


@dataclass(frozen=True, slots=True)
class Trajectory(Generic[Start]):
    """The steps of the organizer from a layout on.

    `untaken` is the step that it came to and did not take: its source and target with their gains,
    and the depths as they stay. None where no stage had a block to give.
    """

    start: Start
    moves: tuple[Move, ...]
    stopped: Stopped
    untaken: Move | None = None

    @property
    def layouts(self) -> tuple[Start, ...]:
        """The start and the layout after each step."""
        return (self.start, *(self.start.at_depths(move.depths) for move in self.moves))

    @property
    def end(self) -> Start:
        """The layout after the last step."""
        return self.layouts[-1]

    @property
    def moved_gain(self) -> float:
        """What the moves add to the total gain: Σ(max − min), removals not counted.

        Reference: [3DRF] Tables 3 to 5, column Δ3DRF.
        """
        return fsum(move.max - move.min for move in self.moves if move.target is not None)


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
    theta, alpha = number_from_zero(theta, "theta"), number_from_zero(alpha, "alpha")
    limit = None if moves is None else whole_number(moves, "moves", 0)
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
