"""Depths, widths and blocks of stages of greatest total gain within budgets, by CP-SAT.

A layout is a path: every stage takes one *option*, a block with a width and a depth, and enters it
from the width of the stage before. Both are one boolean each, joined by flow equations, so that
costs and gains are linear and the relaxation without whole numbers is tight. The gain of an option
may depend on the width that it is entered from, when its block does not see the full field: then
each gain has an option of its own.

Gains enter as whole numbers of 1e-9, so the proof is up to half of that for each stage. Of equal
gain the layout with fewest parameters comes first.

Reference: [3DRF] section 4.1; [IF] eq. 4.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import lcm
from typing import Any, Final

from ortools.sat.python import cp_model

from ifspace.block import SizedBlock
from ifspace.errors import SolverError
from ifspace.optimize.cpsat import solve
from ifspace.optimize.units import Units
from ifspace.plan.allocation import StagePlan, StagesAnswer, StagesProblem
from ifspace.plan.groups import Status
from ifspace.plan.stages import Layout, Stage

# Gains are counted in units of this.
RESOLUTION: Final = 10**9


def best_stages(
    problem: StagesProblem, top: int = 1, time_limit_s: float | None = None, jobs: int | None = 1
) -> StagesAnswer:
    """Return the `top` layouts of greatest total gain within the budgets, best first.

    Status and bound are those of the first; `jobs` processes look for open group counts.

    >>> from ifspace.plan.allocation import Budgets
    >>> from ifspace.plan.networks import network
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
    plans: list[StagePlan] = []
    status, bound = Status.UNKNOWN, None
    while len(plans) < top:
        ended, layout, limit = model.next_layout(deadline)
        if not plans:
            status, bound = ended, limit
        if layout is None or (plans and ended is not Status.OPTIMAL):
            # A later one that is not proven may not be the next best.
            break
        plan = StagePlan(problem, layout)
        plan.check()
        plans.append(plan)
        _check_order(plans)
    least = _least(problem, units, deadline) if status is Status.INFEASIBLE else {}
    return StagesAnswer(status, bound, tuple(plans), tuple(units.left_out), least)


def _check_order(plans: Sequence[StagePlan]) -> None:
    """Refuse a plan that gains more than one that was proven the best before it."""
    *_, last = gains = [plan.objective() for plan in plans]
    if last > min(gains) + 2 * len(plans[0].layout.stages) / RESOLUTION:
        raise SolverError.because(
            "the solver contradicts itself",
            got=f"a gain of {last:.9f} after {min(gains):.9f} was proven the greatest",
            allowed="gains that fall",
            remedy="report it with the command",
        )


def _least(
    problem: StagesProblem, units: Units, deadline: float | None
) -> dict[str, int | Fraction]:
    """Return the least that any layout has of each amount that is bounded, each by itself."""
    model = _Model(problem, units, bounded=False)
    found = ((name, model.least(name, deadline)) for name in problem.budgets.given)
    return {name: least for name, least in found if least is not None}


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """A block at a width, with its gains by depth, and the widths it is entered from."""

    number: int
    width: int
    more: SizedBlock
    firsts: Mapping[int, SizedBlock]
    gains: tuple[int, ...]


class _Model:
    """The CP-SAT model of a problem, less the layouts found so far."""

    def __init__(self, problem: StagesProblem, units: "Units", bounded: bool = True) -> None:
        self.problem = problem
        self.model = cp_model.CpModel()
        self.frame = problem.start.frame
        self.options = [_options(problem, units, place) for place in range(len(units.entries))]
        self.depths = [
            range(stage.least_depth, problem.most_depth + 1) for stage in problem.start.stages
        ]
        self.taken: list[dict[tuple[_Option, int], Any]] = []
        self.entered: list[dict[tuple[_Option, int], Any]] = []
        for place, options in enumerate(self.options):
            self._stage(place, options)
        self.gain = sum(
            option.gains[depth - self.depths[place][0]] * taken
            for place, each in enumerate(self.taken)
            for (option, depth), taken in each.items()
        )
        for name, most in problem.budgets.given.items() if bounded else ():
            self._bound(name, most)

    def next_layout(self, deadline: float | None) -> tuple[Status, Layout | None, float | None]:
        """Return how the search ended, the best layout left, and the bound on its gain.

        The layout is forbidden from then on.
        """
        wanted = [literal for each in self.taken for literal in each.values()]
        keys = [(place, key) for place, each in enumerate(self.taken) for key in each]
        self.model.minimize(-self.gain)
        outcome = solve(self.model, wanted, _left(deadline))
        if not outcome.values or outcome.bound is None:
            return outcome.status, None, None
        bound = -outcome.bound
        if outcome.status is Status.OPTIMAL:
            outcome = self._cheapest(bound, wanted, deadline) or outcome
        chosen = [key for key, value in zip(keys, outcome.values, strict=True) if value]
        self.model.add_bool_or([self.taken[place][key].negated() for place, key in chosen])
        layout = self._layout([key for _, key in chosen])
        exact = layout.gain(self.problem.alpha)
        proven = outcome.status is Status.OPTIMAL
        return outcome.status, layout, exact if proven else bound / RESOLUTION

    def least(self, name: str, deadline: float | None) -> int | Fraction | None:
        """Return the least of an amount, or None where it is not proven."""
        scale = self._scale(name)
        self.model.minimize(self._amount(name, scale))
        outcome = solve(self.model, [], _left(deadline))
        if outcome.status is not Status.OPTIMAL or outcome.bound is None:
            return None
        return outcome.bound if scale == 1 else Fraction(outcome.bound, scale)

    def _cheapest(self, gain: int, wanted: Sequence[Any], deadline: float | None) -> Any:
        """Return the outcome with fewest parameters at a gain that is proven the greatest."""
        model = self.model.clone()
        # Each stage is rounded by itself: equal sums may come out apart by one for each.
        model.add(self.gain >= gain - len(self.taken))
        model.minimize(self._amount("params", 1))
        outcome = solve(model, wanted, _left(deadline))
        if outcome.status is Status.INFEASIBLE:
            raise SolverError.because(
                "the solver contradicts itself",
                got=f"no layout with a gain of {gain / RESOLUTION:.9f}, which it found before",
                allowed="one at least",
                remedy="report it with the command",
            )
        return outcome if outcome.status is Status.OPTIMAL else None

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

    def _bound(self, name: str, most: Any) -> None:
        scale = self._scale(name)
        self.model.add(self._amount(name, scale) <= int(most * scale))

    def _scale(self, name: str) -> int:
        """Return by what an amount is multiplied to be whole."""
        table = self.problem.latency
        if name != "latency_ms" or table is None:
            return 1
        return lcm(*(each.denominator for each in table.cases.values()))

    def _amount(self, name: str, scale: int) -> Any:
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

    def _layout(self, chosen: Sequence[tuple[_Option, int]]) -> Layout:
        entry = self.frame.opens_with
        stages = []
        for stage, (option, depth) in zip(self.problem.start.stages, chosen, strict=True):
            first = option.firsts[entry]
            stages.append(Stage(stage.side, first, option.more, depth, stage.stride, stage.before))
            entry = option.width
        return Layout(tuple(stages), self.frame)


def _options(problem: StagesProblem, units: "Units", place: int) -> list[_Option]:
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


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
