"""What a run is asked for."""

from dataclasses import dataclass

from ifspace.bench.blocks.cases import Conditions
from ifspace.bench.blocks.selection import Place


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is asked for; `predict` are more places, for the latency table.

    `resume`: what the book has of `repeats` rounds, or of half of them, is not timed again.
    """

    place: Place
    conditions: Conditions
    top: int = 10
    by: str = "params"
    baselines: tuple[str, ...] = ()
    repeats: int = 25
    calibrate: bool = True
    predict: tuple[Place, ...] = ()
    resume: bool = False
