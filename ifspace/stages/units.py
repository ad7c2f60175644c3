"""Blocks at the widths in play: those given as they are, open ones with their cheapest groups."""

import time
from collections.abc import Sequence
from typing import Final

from ifspace.answer import Status
from ifspace.block import SizedBlock
from ifspace.errors import BlockError, SettingError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.parallel import over_shards
from ifspace.stages.latency import case_text
from ifspace.stages.problem import (
    StagesProblem,
    Unit,
)

# Problems of group counts in one shard.
SHARD: Final = 16
Asked = tuple[Unit, int, int]


class Units:
    """Every block that a stage may open with or repeat, at every pair of widths in play.

    `entries`: per stage the widths it may be entered from. `left_out`: every combination that is no
    choice, in words, with the stages, from 0, that it is missing in.

    Raises: SettingError when a stage is left without a choice; TimeoutError when the deadline comes
        before all open groups are found.
    """

    def __init__(
        self, problem: StagesProblem, deadline: float | None = None, jobs: int | None = 1
    ) -> None:
        """Find open groups; refuse a stage for which nothing is left."""
        self.problem = problem
        widths = problem.width_choices
        self.entries = [(problem.start.frame.opens_with,), *widths[:-1]]
        self.left_out: dict[str, set[int]] = {}
        asked = [
            (unit, entry, width)
            for place, units in enumerate(problem.unit_choices)
            for unit in units
            for width in widths[place]
            for entry in dict.fromkeys((*self.entries[place], width))
        ]
        self._sized = _solved([each for each in asked if each[0].is_open], deadline, jobs)
        for place in range(len(widths)):
            self._check(place)

    def at(self, unit: Unit, entry: int, width: int, place: int, opens: bool) -> SizedBlock | None:
        """Return a block from one width to another, or None where it is no choice of the stage."""
        sized = self._at(unit, entry, width)
        problem = self.problem
        stage = problem.start.stages[place]
        stride = stage.stride if opens else 1
        if sized is None:
            self._leave_out(place, f"{unit} from {entry} to {width} channels is not legal")
            return None
        if stride > 1 and not any(layer.conv.spatial for layer in sized.layers):
            self._leave_out(place, f"{unit} has no spatial layer to hold stride {stride}")
            return None
        # Where stages have one unit only, none ever follows the first.
        stands = opens or problem.most_depth > stage.least_depth
        if (
            stands
            and problem.latency is not None
            and (problem.latency.find(sized, stage.side, stride) is None)
        ):
            case = case_text(sized, stage.side, stride)
            self._leave_out(place, f"no latency for {case}")
            return None
        return sized

    def _at(self, unit: Unit, entry: int, width: int) -> SizedBlock | None:
        return self._sized.get((unit, entry, width)) if unit.is_open else _given(unit, entry, width)

    def _leave_out(self, place: int, why: str) -> None:
        self.left_out.setdefault(why, set()).add(place)

    def _check(self, place: int) -> None:
        problem = self.problem
        for unit in problem.unit_choices[place]:
            for width in problem.width_choices[place]:
                more = self.at(unit, width, width, place, opens=False)
                firsts = [
                    self.at(unit, entry, width, place, opens=True) for entry in self.entries[place]
                ]
                if more is not None and any(firsts):
                    return
        raise SettingError.because(
            f"stage {place + 1} has no block left",
            got=next(why for why, where in self.left_out.items() if place in where),
            allowed="blocks that fit the widths, with a latency where a table is given",
            remedy="offer other blocks or widths, or latencies of these"
            " (`ifspace bench --predict CxFxSIDExSTRIDE`)",
            argument="blocks",
        )


def _given(unit: Unit, entry: int, width: int) -> SizedBlock | None:
    """Return the block that a unit names, None where there is none or it does not fit."""
    try:
        return None if unit.block is None else unit.block.at(entry, width, unit.bottleneck)
    except BlockError:
        return None


def _solved(
    asked: Sequence[Asked], deadline: float | None, jobs: int | None
) -> dict[Asked, SizedBlock]:
    """Return the cheapest full-field blocks of open units, where there are any."""
    if not asked:
        return {}
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    shards = [(list(asked[n : n + SHARD]), left) for n in range(0, len(asked), SHARD)]
    return dict(pair for part in over_shards(_solve, shards, jobs or 1) for pair in part)


def _solve(shard: tuple[Sequence[Asked], float | None]) -> list[tuple[Asked, SizedBlock]]:
    asked, time_s = shard
    deadline = None if time_s is None else time.monotonic() + time_s
    found: list[tuple[Asked, SizedBlock]] = []
    for unit, entry, width in asked:
        try:
            wanted = GroupsProblem(
                unit.composition, entry, width, bottleneck=unit.bottleneck, kernel=unit.kernel
            )
        except (SettingError, BlockError):
            continue
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        answer = cheapest_groups(wanted, time_limit_s=left)
        if answer.status not in (Status.OPTIMAL, Status.INFEASIBLE):
            raise TimeoutError
        found.extend(((unit, entry, width), plan.sized) for plan in answer.plans)
    return found
