"""Choose depths, widths and blocks of stages with the greatest gain within budgets, by CP-SAT.

Every stage takes one of its options. The relaxation stays linear and tight, because a layout is a
path: each stage takes one block with a width and a depth, and enters it from the width of the stage
before. Both are one boolean each, joined by flow equations. The gain of a block may depend on the
width that enters it, when the block does not see the full field: then each gain has an option of
its own. Where stages are known by tables only (`DepthsProblem`), there is one boolean for each
depth.

Gains enter as whole numbers of 1e-9, so the proof is exact up to half of that for each stage. Of
equal gain the plan with the fewest parameters comes first.

Reference: [3DRF] section 4.1; [IF] eq. 4.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import floor, lcm
from typing import Any, Final, Protocol, TypeVar

from ifspace.answer import Status
from ifspace.block import SizedBlock
from ifspace.cpsat import (
    contradiction,
    new_model,
    seconds_left,
    solve,
)
from ifspace.errors import BlockError, SettingError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.parallel import over_shards
from ifspace.stages.latency import case_text
from ifspace.stages.layout import (
    Layout,
    Stage,
)
from ifspace.stages.problem import (
    DepthsAnswer,
    DepthsPlan,
    DepthsProblem,
    StagePlan,
    StagesAnswer,
    StagesProblem,
    Unit,
)

# Gains are counted in units of this.
RESOLUTION: Final = 10**9


class Plan(Protocol):
    """What comes out: it knows its gain and checks itself."""

    def objective(self) -> float:
        """Return the total gain."""

    def check(self) -> None:
        """Refuse what does not hold."""


P = TypeVar("P", bound=Plan)


class GainModel(ABC):
    """A CP-SAT model with one choice for each stage, less the choices found so far.

    `taken`: for each stage the literal of every choice. `gain`: the total, in 1 / RESOLUTION.
    """

    def __init__(self) -> None:
        """Begin without stages; a child adds them, then bounds amounts."""
        self.model = new_model()
        self.taken: list[dict[Any, Any]] = []
        self.gain: Any = 0

    @abstractmethod
    def scale(self, name: str) -> int:
        """Return by what an amount is multiplied to be whole."""

    @abstractmethod
    def amount(self, name: str, scale: int) -> Any:
        """Return an amount of the choices as a linear expression, in 1 / scale."""

    def bound(self, budgets: Mapping[str, int | Fraction]) -> None:
        """Allow no more of each amount than its budget."""
        for name, most in budgets.items():
            scale = self.scale(name)
            self.model.add(self.amount(name, scale) <= floor(most * scale))

    def next_choice(self, deadline: float | None) -> tuple[Status, list[Any] | None, float | None]:
        """Return how the search ended, the best choice left, and the bound on its gain.

        The choice, one key for each stage, is forbidden from then on.
        """
        wanted = [literal for each in self.taken for literal in each.values()]
        keys = [(place, key) for place, each in enumerate(self.taken) for key in each]
        self.model.minimize(-self.gain)
        outcome = solve(self.model, wanted, seconds_left(deadline))
        if not outcome.values or outcome.bound is None:
            return outcome.status, None, None
        bound = -outcome.bound
        if outcome.status is Status.OPTIMAL:
            outcome = self._cheapest(bound, wanted, deadline) or outcome
        chosen = [key for key, value in zip(keys, outcome.values, strict=True) if value]
        self.model.add_bool_or([self.taken[place][key].negated() for place, key in chosen])
        return outcome.status, [key for _, key in chosen], bound / RESOLUTION

    def least(self, name: str, deadline: float | None) -> int | Fraction | None:
        """Return the least of an amount, or None where it is not proven."""
        scale = self.scale(name)
        self.model.minimize(self.amount(name, scale))
        outcome = solve(self.model, [], seconds_left(deadline))
        if outcome.status is not Status.OPTIMAL or outcome.bound is None:
            return None
        return outcome.bound if scale == 1 else Fraction(outcome.bound, scale)

    def _cheapest(self, gain: int, wanted: Sequence[Any], deadline: float | None) -> Any:
        """Return the outcome with fewest parameters at a gain that is proven the greatest."""
        model = self.model.clone()
        # Each stage is rounded by itself: equal sums may come out apart by one for each.
        model.add(self.gain >= gain - len(self.taken))
        model.minimize(self.amount("params", 1))
        outcome = solve(model, wanted, seconds_left(deadline))
        if outcome.status is Status.INFEASIBLE:
            raise contradiction(
                f"no choice with a gain of {gain / RESOLUTION:.9f}, which it found before",
                "one at least",
            )
        return outcome if outcome.status is Status.OPTIMAL else None


def best_plans(
    model: GainModel, top: int, deadline: float | None, plan_of: Callable[[Sequence[Any]], P]
) -> tuple[Status, float | None, tuple[P, ...]]:
    """Return the `top` plans of greatest gain, best first, with status and bound of the first.

    Raises: SolverError when the solver contradicts itself.
    """
    plans: list[P] = []
    status, bound = Status.UNKNOWN, None
    while len(plans) < top:
        ended, chosen, limit = model.next_choice(deadline)
        if not plans:
            status, bound = ended, limit
        if chosen is None or (plans and ended is not Status.OPTIMAL):
            # A later one that is not proven may not be the next best.
            break
        plan = plan_of(chosen)
        plan.check()
        plans.append(plan)
        _check_order(plans, len(model.taken))
    if plans and status is Status.OPTIMAL:
        bound = plans[0].objective()
    return status, bound, tuple(plans)


def least_amounts(
    model: GainModel, names: Iterable[str], deadline: float | None
) -> dict[str, int | Fraction]:
    """Return the least that a model without budgets has of each amount by itself."""
    found = ((name, model.least(name, deadline)) for name in names)
    return {name: least for name, least in found if least is not None}


def _check_order(plans: Sequence[Plan], stages: int) -> None:
    """Refuse a plan that gains more than one that was proven the best before it."""
    *_, last = gains = [plan.objective() for plan in plans]
    if last > min(gains) + 2 * stages / RESOLUTION:
        raise contradiction(
            f"a gain of {last:.9f} after {min(gains):.9f} was proven the greatest",
            "gains that fall",
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
        if stride > 1 and sized.strided_index is None:
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
    model = _LayoutModel(problem, units)
    model.bound(problem.budgets.given)
    status, bound, plans = best_plans(
        model, top, deadline, lambda chosen: StagePlan(problem, model.layout(chosen))
    )
    least = {}
    if status is Status.INFEASIBLE:
        least = least_amounts(_LayoutModel(problem, units), problem.budgets.given, deadline)
    return StagesAnswer(status, bound, plans, tuple(units.left_out), least)


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """A block at a width, with its gains by depth, and the widths it is entered from."""

    number: int
    width: int
    more: SizedBlock
    firsts: Mapping[int, SizedBlock]
    gains: tuple[int, ...]


class _LayoutModel(GainModel):
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


def best_depths(
    problem: DepthsProblem, top: int = 1, time_limit_s: float | None = None
) -> DepthsAnswer:
    """Return the `top` depths of greatest total gain within the budgets, best first.

    Status and bound are those of the first. Of equal gain the fewest parameters come first.

    >>> from ifspace.stages.problem import Budgets
    >>> from ifspace.stages.problem import StageTable
    >>> wide = StageTable("wide", 1, (0.0, 1.0, 1.5), (30, 60, 90), (1, 2, 3), 3)
    >>> narrow = StageTable("narrow", 1, (0.0, 0.75), (10, 20), (1, 2), 2)
    >>> answer = best_depths(DepthsProblem((wide, narrow), Budgets(params=100)))
    >>> answer.status.name, answer.bound, answer.plans[0].depths, answer.plans[0].params
    ('OPTIMAL', 1.75, (2, 2), 80)

    Raises: SolverError when the solver contradicts itself.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    model = _DepthsModel(problem)
    model.bound(problem.budgets.given)
    status, bound, plans = best_plans(
        model, top, deadline, lambda depths: DepthsPlan(problem, tuple(depths))
    )
    least = {}
    if status is Status.INFEASIBLE:
        least = least_amounts(_DepthsModel(problem), problem.budgets.given, deadline)
    return DepthsAnswer(status, bound, plans, least)


class _DepthsModel(GainModel):
    """The CP-SAT model of a problem without its budgets, less the depths found so far."""

    def __init__(self, problem: DepthsProblem) -> None:
        super().__init__()
        self.problem = problem
        for table in problem.tables:
            taken = {n: self.model.new_bool_var(f"{table.name}: {n}") for n in table.depths}
            self.model.add_exactly_one(taken.values())
            self.taken.append(taken)
            scaled = [round(RESOLUTION * gain) for gain in table.gains]
            self.gain += _weighted(scaled, taken.values())

    def scale(self, name: str) -> int:
        """Return 1: parameters and MACs are whole."""
        return 1

    def amount(self, name: str, scale: int) -> Any:
        """Return an amount of the network as a linear expression."""
        rest = getattr(self.problem, f"rest_{name}")
        pairs = zip(self.problem.tables, self.taken, strict=True)
        return rest + sum(_weighted(getattr(table, name), taken.values()) for table, taken in pairs)


def _weighted(numbers: Iterable[int], literals: Iterable[Any]) -> Any:
    return sum(number * literal for number, literal in zip(numbers, literals, strict=True))
