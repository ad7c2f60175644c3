"""The greedy organizer: move blocks from the stage where they gain least to where they gain most.

A heuristic without a solver or a proof: it looks one step ahead. Taken literally, the rule of the
paper ends where source and target are the same stage, or where one more block gains no more than
the least last one; no block is removed there either, even if both gains are below the threshold.

Reference: [3DRF] section 4.1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import fsum, isclose
from typing import Any, Final, Generic, Protocol, TypeVar

from ifspace.infofield import CAPS
from ifspace.values import choice, number_from_zero, whole_number

# Gains this close, relatively, are equal: they differ by rounding alone.
TIE: Final = 1e-12
# Which of the stages with equal gains counts.
TIES: Final = ("earlier", "later")


class RepeatedStage(Protocol):
    """A stage as the organizer sees it: its depth, and what the last and one more block gain."""

    @property
    def depth(self) -> int:
        """Number of blocks."""

    @property
    def min_depth(self) -> int:
        """Number of blocks that stay."""

    def last_gain(self, alpha: float, cap: str) -> float:
        """Return the gain of the last block."""

    def next_gain(self, alpha: float, cap: str) -> float:
        """Return the gain of one more block."""


class StagedNetwork(Protocol):
    """A layout, or a network of which the stages alone are known."""

    @property
    def stages(self) -> Sequence[RepeatedStage]:
        """The stages."""

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""

    def at_depths(self, depths: tuple[int, ...]) -> Any:
        """Return the same with other depths."""


Network = TypeVar("Network", bound=StagedNetwork)


class Stopped(Enum):
    """Why the organizer made no further move; the text says it to a person."""

    SAME_STAGE = "the best move would take a block from a stage and put it back there"
    NO_GAIN = "no move of a block to another stage gains more than it loses"
    THRESHOLD = (
        "the best move gains exactly the threshold, which calls for neither a move nor a removal"
    )
    NOTHING_TO_MOVE = "every stage has only one block, which it keeps"
    LIMIT = "the number of moves asked for is reached"


@dataclass(frozen=True, slots=True)
class Move:
    """One step of the organizer: the last block of `source` goes to `target`, or away if None.

    Stages count from 1. `min` is the gain of the block at its source, `max` that of one more block
    at the stage where it is greatest, before the step. `depths` are those after it. `sources` and
    `targets`: the stages that tie with the source and with the target, in order, these included;
    empty where none does.

    >>> str(Move(4, 1, 0.0, 0.25, (3, 2, 3, 2)))
    '4→1'

    Reference: [3DRF] section 4.1.
    """

    source: int
    target: int | None
    min: float
    max: float
    depths: tuple[int, ...]
    sources: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.source}→{'' if self.target is None else self.target}"


@dataclass(frozen=True, slots=True)
class Trajectory(Generic[Network]):
    """The steps of the organizer from a layout on.

    `untaken` is the step that was considered last and not taken: its source and target with their
    gains, and the depths as they stay. None where no stage had a block to give. `cap` and `tie` are
    those it was made with.
    """

    start: Network
    moves: tuple[Move, ...]
    stopped: Stopped
    untaken: Move | None = None
    cap: str = "input"
    tie: str = "earlier"

    @property
    def layouts(self) -> tuple[Network, ...]:
        """The start and the layout after each step."""
        return (self.start, *(self.start.at_depths(move.depths) for move in self.moves))

    @property
    def end(self) -> Network:
        """The layout after the last step."""
        return self.layouts[-1]

    @property
    def ties(self) -> tuple[tuple[int, Move], ...]:
        """The steps, from 1, in which stages tie, so that another could have been taken."""
        return tuple(
            (step, move)
            for step, move in enumerate(self.moves, start=1)
            if move.sources or move.targets
        )

    @property
    def moved_gain(self) -> float:
        """What the moves add to the total gain: Σ(max − min), removals not counted.

        Reference: [3DRF] Tables 3 to 5, column Δ3DRF.
        """
        return fsum(move.max - move.min for move in self.moves if move.target is not None)


def organize(
    layout: Network,
    theta: float = 0,
    alpha: float = 3,
    moves: int | None = None,
    cap: str = "input",
    tie: str = "earlier",
) -> Trajectory[Network]:
    """Return the organizer's steps from a layout on, at most `moves` of them.

    Each step: the source is the stage whose last block gains least, among those with a block to
    give; the target is the stage where one more gains most; of equal gains the `tie` stage counts,
    "earlier" or "later". A block moves if max > min and max > theta; it is removed if both are
    below theta. `cap`: where the spatial field of a stage stops growing, a name of `CAPS`.

    >>> from ifspace.stages.networks import network
    >>> trajectory = organize(network("vgg16", 32))
    >>> [str(move) for move in trajectory.moves], trajectory.end.depths
    (['4→1', '5→2', '5→1', '4→1', '3→2'], (5, 4, 2, 1, 1))
    >>> [organize(network("resnet50", 224), tie=tie).end.depths for tie in TIES]
    [(5, 4, 4, 3), (4, 5, 4, 3)]

    Raises: SettingError for a threshold or an alpha below 0, for a number of moves below 0, and for
        an unknown cap or tie.

    Reference: [3DRF] section 4.1; [IF] eq. 2 for the cap.
    """
    theta, alpha = number_from_zero(theta, "theta"), number_from_zero(alpha, "alpha")
    limit = None if moves is None else whole_number(moves, "moves", 0)
    choice(cap, "cap", CAPS)
    choice(tie, "tie", TIES)
    steps: list[Move] = []
    current: Network = layout
    while True:
        candidate = _candidate(current, alpha, cap, tie)
        if candidate is None:
            return Trajectory(layout, tuple(steps), Stopped.NOTHING_TO_MOVE, cap=cap, tie=tie)
        stopped = _reason_to_stop(candidate, theta)
        if stopped is None and len(steps) == limit:
            stopped = Stopped.LIMIT
        if stopped is not None:
            return Trajectory(layout, tuple(steps), stopped, candidate, cap, tie)
        steps.append(_step(candidate, theta))
        current = current.at_depths(steps[-1].depths)


def _candidate(layout: StagedNetwork, alpha: float, cap: str, tie: str) -> Move | None:
    """Return source, target and their gains at the depths as they are; None without a source."""
    stages = list(enumerate(layout.stages, start=1))
    last_gains = [
        (n, stage.last_gain(alpha, cap)) for n, stage in stages if stage.depth > stage.min_depth
    ]
    next_gains = [(n, stage.next_gain(alpha, cap)) for n, stage in stages]
    if not last_gains:
        return None
    least, greatest = min(gain for _, gain in last_gains), max(gain for _, gain in next_gains)
    sources, targets = _having(last_gains, least), _having(next_gains, greatest)
    index = 0 if tie == "earlier" else -1
    return Move(
        sources[index],
        targets[index],
        least,
        greatest,
        layout.depths,
        sources if len(sources) > 1 else (),
        targets if len(targets) > 1 else (),
    )


def _having(gains: Iterable[tuple[int, float]], value: float) -> tuple[int, ...]:
    """Return the stages with a gain, or with one equal to it."""
    return tuple(number for number, gain in gains if _equal(gain, value))


def _equal(a: float, b: float) -> bool:
    return isclose(a, b, rel_tol=TIE)


def _reason_to_stop(candidate: Move, theta: float) -> Stopped | None:
    """Return why the step is not taken, None if it is."""
    if candidate.max <= candidate.min or _equal(candidate.max, candidate.min):
        return Stopped.NO_GAIN
    if candidate.source == candidate.target:
        return Stopped.SAME_STAGE
    return Stopped.THRESHOLD if candidate.max == theta else None


def _step(candidate: Move, theta: float) -> Move:
    """Return the step that is taken: a move above the threshold, a removal below it."""
    target = candidate.target if candidate.max > theta else None
    depths = tuple(
        depth + (number == target) - (number == candidate.source)
        for number, depth in enumerate(candidate.depths, start=1)
    )
    targets = () if target is None else candidate.targets
    return replace(candidate, target=target, depths=depths, targets=targets)
