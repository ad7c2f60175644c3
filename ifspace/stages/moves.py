"""What the organizer did: its moves one by one, and why it stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import fsum
from typing import Any, Generic, Protocol, TypeVar


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
