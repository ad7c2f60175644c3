"""Depths, widths and blocks of stages of greatest total gain within budgets, by CP-SAT.

A layout is a path: every stage takes one *option*, a block with a width and a depth, and enters it
from the width of the stage before. Both are one boolean each, joined by flow equations, so that
costs and gains are linear and the relaxation without whole numbers is tight. The gain of an option
may depend on the width that it is entered from, when its block does not see the full field: then
each gain has an option of its own.

Reference: [3DRF] section 4.1; [IF] eq. 4.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import lcm
from typing import Any

from ifspace.answer import Status
from ifspace.block import SizedBlock
from ifspace.stages.gains import (
    RESOLUTION,
    GainModel,
    best_plans,
    least_amounts,
)
from ifspace.stages.layout import (
    Layout,
    Stage,
)
from ifspace.stages.problem import (
    StagePlan,
    StagesAnswer,
    StagesProblem,
)
from ifspace.stages.units import Units


def best_stages(
    problem: StagesProblem, top: int = 1, time_limit_s: float | None = None, jobs: int | None = 1
) -> StagesAnswer:
    """Return the `top` layouts of greatest total gain within the budgets, best first.

    Status and bound are those of the first; `jobs` processes look for open group counts.

    >>> from ifspace.stages.problem import Budgets
    >>> from ifspace.stages.networks import network
    >>> answer = best_stages(StagesProblem(network("vgg16", 32), Budgets(params=5_098_826)))
    >>> answer.status.name, answer.plans[0].layout.depths
    ('OPTIMAL', (8, 3, 2, 1, 1))

    Raises: SettingError when no choice of a stage is legal, or has a latency; SolverError when the
        solver contradicts itself.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    try:
        units = Units(problem, deadline, jobs)
    except TimeoutError:
        return StagesAnswer(Status.UNKNOWN, None, ())
    model = _Model(problem, units)
    model.bound(problem.budgets.given)
    status, bound, plans = best_plans(
        model, top, deadline, lambda chosen: StagePlan(problem, model.layout(chosen))
    )
    least = {}
    if status is Status.INFEASIBLE:
        least = least_amounts(_Model(problem, units), problem.budgets.given, deadline)
    return StagesAnswer(status, bound, plans, tuple(units.left_out), least)


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """A block at a width, with its gains by depth, and the widths it is entered from."""

    number: int
    width: int
    more: SizedBlock
    firsts: Mapping[int, SizedBlock]
    gains: tuple[int, ...]


class _Model(GainModel):
    """The CP-SAT model of a problem without its budgets, less the layouts found so far."""

    def __init__(self, problem: StagesProblem, units: Units) -> None:
        super().__init__()
        self.problem = problem
        self.frame = problem.start.frame
        self.options = [_options(problem, units, place) for place in range(len(units.entries))]
        self.depths = [
            range(stage.least_depth, problem.most_depth + 1) for stage in problem.start.stages
        ]
        self.entered: list[dict[tuple[_Option, int], Any]] = []
        for place, options in enumerate(self.options):
            self._stage(place, options)
        self.gain = sum(
            option.gains[depth - self.depths[place][0]] * taken
            for place, each in enumerate(self.taken)
            for (option, depth), taken in each.items()
        )

    def layout(self, chosen: Sequence[tuple[_Option, int]]) -> Layout:
        """Return the layout of a choice of option and depth for each stage."""
        entry = self.frame.opens_with
        stages = []
        for stage, (option, depth) in zip(self.problem.start.stages, chosen, strict=True):
            first = option.firsts[entry]
            stages.append(Stage(stage.side, first, option.more, depth, stage.stride, stage.before))
            entry = option.width
        return Layout(tuple(stages), self.frame)

    def _stage(self, place: int, options: Sequence[_Option]) -> None:
        new = self.model.new_bool_var
        taken = {
            (option, depth): new(f"{place}: {option.number} x {depth}")
            for option in options
            for depth in self.depths[place]
        }
        entered = {
            (option, entry): new(f"{place}: {option.number} from {entry}")
            for option in options
            for entry in option.firsts
        }
        self.model.add_exactly_one(taken.values())
        for option in options:
            self.model.add(
                sum(entered[option, entry] for entry in option.firsts)
                == sum(taken[option, depth] for depth in self.depths[place])
            )
        if place:
            for width in {option.width for option in self.options[place - 1]}:
                left = [x for (option, _), x in self.taken[-1].items() if option.width == width]
                joins = [x for (_, entry), x in entered.items() if entry == width]
                self.model.add(sum(left) == sum(joins))
        self.taken.append(taken)
        self.entered.append(entered)

    def scale(self, name: str) -> int:
        """Return by what an amount is multiplied to be whole."""
        table = self.problem.latency
        if name != "latency_ms" or table is None:
            return 1
        return lcm(*(each.denominator for each in table.cases.values()))

    def amount(self, name: str, scale: int) -> Any:
        """Return an amount as a linear expression, in 1 / scale."""
        total: Any = 0
        last = len(self.taken) - 1
        for place, stage in enumerate(self.problem.start.stages):
            for (option, entry), literal in self.entered[place].items():
                total += int(scale * self._cost(name, stage, option.firsts[entry], True)) * literal
            for (option, depth), literal in self.taken[place].items():
                more = depth - self.depths[place][0]
                cost = more * self._cost(name, stage, option.more, False) if more else 0
                if place == last and name == "params":
                    cost += self.frame.params(option.width)
                if place == last and name == "macs":
                    cost += self.frame.macs(option.width)
                total += int(scale * cost) * literal
        return total

    def _cost(self, name: str, stage: Stage, unit: SizedBlock, opens: bool) -> Any:
        stride = stage.stride if opens else 1
        if name == "params":
            return self.frame.unit_params(unit, opens)
        if name == "macs":
            return self.frame.unit_macs(unit, stage.side, stride, opens)
        if name == "layers":
            return len(unit.layers)
        assert self.problem.latency is not None
        return self.problem.latency.of(unit, stage.side, stride)


def _options(problem: StagesProblem, units: Units, place: int) -> list[_Option]:
    """Return the options of a stage: its blocks at its widths, apart where their gains are."""
    stage = problem.start.stages[place]
    found: list[_Option] = []
    choices = problem.unit_choices[place]
    for unit, width in product(choices, problem.width_choices[place]):
        more = units.at(unit, width, width, place, opens=False)
        by_gain: dict[tuple[int, ...], dict[int, SizedBlock]] = {}
        for entry in units.entries[place]:
            first = units.at(unit, entry, width, place, opens=True)
            if first is None or more is None or (problem.monotone and place and entry > width):
                continue
            deepest = Stage(stage.side, first, more, problem.most_depth, stage.stride, stage.before)
            gains = deepest.gains(problem.alpha)[stage.least_depth - 1 :]
            sums = [sum(deepest.gains(problem.alpha)[: stage.least_depth - 1])]
            for each in gains:
                sums.append(sums[-1] + each)
            by_gain.setdefault(tuple(round(RESOLUTION * each) for each in sums), {})[entry] = first
        for scaled, firsts in by_gain.items():
            assert more is not None
            # Two names of one block are one choice.
            if all((each.more, each.firsts) != (more, firsts) for each in found):
                found.append(_Option(len(found), width, more, firsts, scaled))
    return found
