"""Choose depths, widths and blocks of stages with the greatest gain within budgets, by CP-SAT.

A layout is a path: each stage takes one *option*, a block with a width and a depth, and enters it
from the width of the stage before. Both are one boolean each, joined by flow equations, so that
costs and objectives are linear and the relaxation without whole numbers is tight. What the first
block of a stage adds may depend on the width that it is entered from; where that changes what the
blocks behind it add too, as the gain of a block that does not see the full field, each such width
has an option of its own. Where stages are known by tables only (`DepthsProblem`), there is one
boolean for each depth of each stage.

Objectives enter as whole numbers of 1e-9, of more where totals are above 100, so the proof is up to
one of that for each stage. Ties are broken by the other objectives in the order of
`objectives.tie_breakers`, then by the fewest parameters; of the depths of a network that is there
already (`DepthsProblem.start`), by the fewest blocks that change, then by the fewest parameters.

Reference: [3DRF] section 4.1; [IF] eq. 4.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from math import ceil, floor, log10
from typing import Any, Final, Protocol, TypeVar

from ifspace.answer import Answer, Status
from ifspace.block import SizedBlock
from ifspace.cpsat import Outcome, contradiction, new_model, seconds_left, solve
from ifspace.errors import BlockError, SettingError
from ifspace.floors import NO_FLOORS, Floors, ParamsRange, leaves_nothing
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.remedy import TIME_LIMIT_S as REMEDY_LIMIT_S
from ifspace.groups.solve import cheapest_groups
from ifspace.latency import DECIMALS, case_text, latency_of
from ifspace.memory import DEFAULT_DTYPE, bytes_of
from ifspace.parallel import over_shards
from ifspace.stages.layout import Layout, Stage
from ifspace.stages.objectives import OBJECTIVES, tie_breakers, totals_by_depth
from ifspace.stages.peak import StagePeaks
from ifspace.stages.problem import (
    BlockChoice,
    DepthPlan,
    DepthsProblem,
    StagePlan,
    StagesProblem,
)

# Amounts that are maximised are counted in units of 1 / RESOLUTION, ...
RESOLUTION: Final = 10**9
# ... of more where a total has more digits in all: the relaxation is solved in floating point.
DIGITS: Final = 11
# More bytes than feature maps at the largest width and side have.
MAX_BYTES: Final = 1 << 52
# Problems of group counts in one shard.
SHARD: Final = 16


def best_stages(
    problem: StagesProblem,
    top: int = 1,
    time_limit_s: float | None = None,
    jobs: int | None = 1,
    announce: Callable[[ParamsRange], None] | None = None,
    distance: int = 1,
) -> Answer[StagePlan]:
    """Return the `top` layouts of the greatest objective within the budgets, best first.

    Status and bound are those of the first; `jobs` processes look for open group counts.

    >>> from ifspace.stages.networks import network
    >>> from ifspace.stages.problem import Budgets
    >>> answer = best_stages(StagesProblem(network("vgg16", 32), Budgets(params=5_098_826)))
    >>> answer.status.name, answer.plans[0].layout.depths
    ('OPTIMAL', (8, 3, 2, 1, 1))

    INFEASIBLE, with the reason, also where no block of a stage has the full field with any groups.

    Each differs from all before it in at least `distance` layers (`Stage.layers_apart`, summed).
    `announce` is called, before the search, with the parameters that layouts within floors may
    have; not without floors.

    Raises: SettingError when no choice of a stage is legal, or has a latency, or when floors leave
        a stage none: which of them, and the nearest that works; SolverError when the solver
        contradicts itself.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    try:
        sized = SizedChoices(problem, deadline, jobs)
    except TimeoutError:
        return Answer(Status.UNKNOWN, None, ())
    except SettingError:
        check_floors(problem)
        raise
    if sized.reason is not None:
        check_floors(problem)
        return Answer(Status.INFEASIBLE, None, (), tuple(sized.left_out), reason=sized.reason)
    if problem.floors and announce is not None:
        _announce(_LayoutModel(problem, sized), deadline, announce)
    model = _LayoutModel(problem, sized)
    model.bound(problem.budgets.limits)
    status, bound, plans = _best_plans(
        model, top, deadline, lambda chosen: StagePlan(problem, model.layout(chosen)), distance
    )
    least = {}
    if status is Status.INFEASIBLE:
        unbounded = _LayoutModel(problem, sized)
        least = _least_amounts(unbounded, problem.budgets.limits, deadline)
    return Answer(status, bound, plans, tuple(sized.left_out), least)


def best_depths(
    problem: DepthsProblem, top: int = 1, time_limit_s: float | None = None
) -> Answer[DepthPlan]:
    """Return the `top` depths of greatest total gain within the budgets, best first.

    Status and bound are those of the first. Of equal gain the depths closest to `problem.start`
    come first, then the fewest parameters.

    >>> from ifspace.stages.problem import Budgets, StageTable
    >>> wide = StageTable("wide", 1, (0.0, 1.0, 1.5), (30, 60, 90), (1, 2, 3), 3)
    >>> narrow = StageTable("narrow", 1, (0.0, 0.75), (10, 20), (1, 2), 2)
    >>> answer = best_depths(DepthsProblem((wide, narrow), Budgets(params=100)))
    >>> answer.status.name, answer.bound, answer.plans[0].depths, answer.plans[0].params
    ('OPTIMAL', 1.75, (2, 2), 80)

    Raises: SolverError when the solver contradicts itself.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    model = _DepthsModel(problem)
    model.bound(problem.budgets.limits)
    status, bound, plans = _best_plans(
        model, top, deadline, lambda depths: DepthPlan(problem, tuple(depths))
    )
    least = {}
    if status is Status.INFEASIBLE:
        least = _least_amounts(_DepthsModel(problem), problem.budgets.limits, deadline)
    return Answer(status, bound, plans, least=least)


def check_floors(problem: StagesProblem) -> None:
    """Check that it is not floors that leave a stage without a choice.

    Raises: SettingError when it is: which of them, and the nearest that works.
    """

    def works(floors: Floors) -> bool:
        try:
            choices = SizedChoices(
                replace(problem, floors=floors), time.monotonic() + REMEDY_LIMIT_S
            )
        except (SettingError, TimeoutError):
            return False
        return choices.reason is None

    if problem.floors and works(NO_FLOORS):
        widths = [problem.start.stem_and_head.stem_channels]
        widths += [width for widths in problem.width_choices for width in widths]
        raise leaves_nothing(problem.floors, works, widths, "for some stage")


def _announce(
    model: "_LayoutModel", deadline: float | None, announce: Callable[[ParamsRange], None]
) -> None:
    """Say the fewest and the most parameters of the layouts of a model, where both are proven."""
    least = model.least("params", deadline)
    most = model.least("params", deadline, sign=-1)
    if least is not None and most is not None:
        announce(ParamsRange(int(least), -int(most)))


class SizedChoices:
    """Every block that a stage may open with or repeat, at every pair of widths in play.

    Blocks with groups are taken as they are; open ones get their cheapest groups. `entries`: per
    stage the widths it may be entered from. `left_out`: every combination that is no choice, in
    words, with the indices of the stages that it is missing in. `reason`: why a stage is left
    without a choice, where it is that blocks do not have the full field.

    Raises: SettingError when a stage is left without a choice for another reason; TimeoutError when
        the deadline comes before all open groups are found.
    """

    def __init__(
        self, problem: StagesProblem, deadline: float | None = None, jobs: int | None = 1
    ) -> None:
        """Find open groups; check that every stage has a choice left."""
        self.problem = problem
        widths = problem.width_choices
        self.entries = [(problem.start.stem_and_head.stem_channels,), *widths[:-1]]
        self.left_out: dict[str, set[int]] = {}
        self.reason: str | None = None
        cases = [
            (choice, entry, width, problem.floors_of(index, opens))
            for index, choices in enumerate(problem.block_choices)
            for choice in choices
            if choice.is_open
            for width in widths[index]
            for entry, opens in (*((entry, True) for entry in self.entries[index]), (width, False))
        ]
        cases = list(dict.fromkeys(cases))
        # For each stage the first case that lacks the full field.
        self._lacking: dict[int, Case] = {}
        self._cheapest = _cheapest_blocks(cases, deadline, jobs)
        for index in range(len(widths)):
            self._check(index)

    def at(
        self, choice: BlockChoice, entry: int, width: int, index: int, opens: bool
    ) -> SizedBlock | None:
        """Return a block from one width to another, or None where it is no choice of the stage.

        `index`: of the stage; `opens`: the block is its first.
        """
        problem = self.problem
        stage = problem.start.stages[index]
        stride = stage.stride if opens else 1
        case = (choice, entry, width, problem.floors_of(index, opens))
        block = self._sized(case)
        if block is None:
            text = f"{choice} from {entry} to {width} channels{_with_floors(case)}"
            lacks_field = case in self._cheapest
            fault = "has the full field with no groups" if lacks_field else "is not legal"
            self._leave_out(index, f"{text} {fault}")
            if lacks_field:
                self._lacking.setdefault(index, case)
            return None
        if stride > 1 and not any(layer.conv.spatial for layer in block.layers):
            self._leave_out(index, f"{choice} has no spatial layer to hold stride {stride}")
            return None
        # Where stages have one block only, none ever follows the first.
        occurs = opens or problem.depth_choices[index][-1] > stage.min_depth
        latency = problem.latency if "latency_ms" in problem.budgets.limits else None
        if occurs and latency is not None and latency.find(block, stage.side_out, stride) is None:
            self._leave_out(index, f"no latency for {case_text(block, stage.side_out, stride)}")
            return None
        return block

    def _sized(self, case: "Case") -> SizedBlock | None:
        choice, entry, width, floors = case
        if choice.block is None:
            return self._cheapest.get(case)
        try:
            block = choice.block.at(entry, width, choice.bottleneck)
        except BlockError:
            return None
        return block if block.meets(floors) else None

    def _leave_out(self, index: int, reason: str) -> None:
        self.left_out.setdefault(reason, set()).add(index)

    def _check(self, index: int) -> None:
        problem = self.problem
        for choice, width in product(problem.block_choices[index], problem.width_choices[index]):
            repeated = self.at(choice, width, width, index, opens=False)
            firsts = [
                self.at(choice, entry, width, index, opens=True) for entry in self.entries[index]
            ]
            if repeated is not None and any(firsts):
                return
        if index in self._lacking:
            self.reason = self.reason or _without_full_field(index, self._lacking[index])
            return
        raise SettingError.because(
            f"stage {index + 1} has no block left",
            got=next(reason for reason, indices in self.left_out.items() if index in indices),
            allowed="blocks that fit the widths, with a latency where a table is given",
            remedy="offer other blocks or widths, or latencies of these"
            " (`ifspace bench --predict CxFxSIDExSTRIDE`)",
            argument="blocks",
        )


# A block, the width that enters it, the width that leaves it, and its floors.
Case = tuple[BlockChoice, int, int, Floors]


def _with_floors(case: Case) -> str:
    return f" with {case[-1]}" if case[-1] else ""


def _without_full_field(index: int, case: Case) -> str:
    """Return why a stage has no block, and whether the block written twice would do."""
    choice, entry, width, floors = case
    fact = f"stage {index + 1}: proven: no groups give {choice} from {entry} to {width} channels"
    fact += _with_floors(case)
    twice = replace(choice, composition=replace(choice.composition, repeats=2))
    remedy = "offer another block"
    solved = _solve_cases(([(twice, entry, width, floors)], None))
    if choice.composition.repeats == 1 and any(block for _, block in solved):
        remedy += f", such as {twice}"
    return f"{fact} the full field; {remedy}"


def _cheapest_blocks(
    cases: Sequence[Case], deadline: float | None, jobs: int | None
) -> dict[Case, SizedBlock | None]:
    """Return the cheapest full-field blocks of open choices, None where no groups give the field.

    Choices that are not legal are left out.
    """
    if not cases:
        return {}
    seconds = seconds_left(deadline)
    shards = [(list(cases[n : n + SHARD]), seconds) for n in range(0, len(cases), SHARD)]
    return dict(pair for pairs in over_shards(_solve_cases, shards, jobs or 1) for pair in pairs)


def _solve_cases(
    shard: tuple[Sequence[Case], float | None],
) -> list[tuple[Case, SizedBlock | None]]:
    cases, seconds = shard
    deadline = None if seconds is None else time.monotonic() + seconds
    blocks: list[tuple[Case, SizedBlock | None]] = []
    for choice, entry, width, floors in cases:
        try:
            problem = GroupsProblem(
                choice.composition,
                entry,
                width,
                bottleneck=choice.bottleneck,
                kernel=choice.kernel,
                floors=floors,
            )
        except (SettingError, BlockError):
            continue
        answer = cheapest_groups(problem, time_limit_s=seconds_left(deadline))
        if answer.status not in (Status.OPTIMAL, Status.INFEASIBLE):
            raise TimeoutError
        plan = answer.best
        case = (choice, entry, width, floors)
        blocks.append((case, None if plan is None else plan.sized))
    return blocks


class _ChoiceModel(ABC):
    """A CP-SAT model with one choice for each stage, less the choices found so far.

    `taken`: for each stage the literal of every choice. `total`: the amount that is maximised, in
    1 / `unit`. `slack`: by how many units equal totals may come out apart, since each table is
    rounded by itself.
    """

    def __init__(self) -> None:
        """Begin without stages; a subclass adds them, then bounds amounts."""
        self.model = new_model()
        self.taken: list[dict[Any, Any]] = []
        self.total: Any = 0
        self.unit = RESOLUTION

    @property
    def slack(self) -> int:
        """By how many units equal totals may come out apart."""
        return len(self.taken)

    @abstractmethod
    def scale(self, name: str) -> int:
        """Return the factor that makes an amount whole."""

    @abstractmethod
    def amount(self, name: str, scale: int) -> Any:
        """Return an amount of the choices as a linear expression, in 1 / scale."""

    def bound(self, limits: Mapping[str, int | Fraction]) -> None:
        """Allow no more of each amount than its limit."""
        for name, limit in limits.items():
            scale = self.scale(name)
            self.model.add(self.amount(name, scale) <= floor(limit * scale))

    def next_choice(
        self, deadline: float | None, distance: int = 1
    ) -> tuple[Status, list[Any] | None, float | None]:
        """Return how the search ended, the best choice left, and the bound on its total.

        The choice, one key for each stage, is forbidden from then on, with all closer to it than
        `distance`.
        """
        keys = [(index, key) for index, literals in enumerate(self.taken) for key in literals]
        literals = [self.taken[index][key] for index, key in keys]
        self.model.minimize(-self.total)
        outcome = solve(self.model, literals, seconds_left(deadline))
        if not outcome.values or outcome.bound is None:
            return outcome.status, None, None
        bound = -outcome.bound
        if outcome.status is Status.OPTIMAL:
            outcome = self._first_of_equals(outcome, literals, deadline)
        chosen = [key for key, value in zip(keys, outcome.values, strict=True) if value]
        self.forbid([key for _, key in chosen], distance)
        return outcome.status, [key for _, key in chosen], bound / self.unit

    def forbid(self, chosen: Sequence[Any], distance: int) -> None:
        """Forbid a choice; `distance` is 1 where choices are not made of layers."""
        pairs = zip(self.taken, chosen, strict=True)
        self.model.add_bool_or([literals[key].negated() for literals, key in pairs])

    def least(self, name: str, deadline: float | None, sign: int = 1) -> int | Fraction | None:
        """Return the minimum of an amount times a sign, or None where it is not proven."""
        scale = self.scale(name)
        self.model.minimize(sign * self.amount(name, scale))
        outcome = solve(self.model, [], seconds_left(deadline))
        if outcome.status is not Status.OPTIMAL or outcome.bound is None:
            return None
        return outcome.bound if scale == 1 else Fraction(outcome.bound, scale)

    def ties(self) -> list[tuple[Any, int]]:
        """Return what decides between choices of equal total: amounts, each to be the least.

        With each, by how many units equal amounts may come out apart.
        """
        return [(self.amount("params", 1), 0)]

    def _first_of_equals(
        self, outcome: Outcome, literals: Sequence[Any], deadline: float | None
    ) -> Outcome:
        """Return the outcome that its ties prefer, of those with the total of a proven optimum."""
        total = outcome.bound
        assert total is not None
        model, best = self.model.clone(), outcome
        model.add(-self.total <= total + self.slack)
        for amount, slack in self.ties():
            if not _has_another(model, -self.total, literals, best.values, deadline):
                return best
            model.clear_hints()
            for literal, value in zip(literals, best.values, strict=True):
                model.add_hint(literal, value)
            model.minimize(amount)
            outcome = solve(model, literals, seconds_left(deadline))
            if outcome.status is Status.INFEASIBLE:
                raise contradiction(
                    f"no choice with a total of {-total / self.unit:.9f}, which it found before",
                    "one at least",
                )
            if outcome.status is not Status.OPTIMAL or outcome.bound is None:
                return best
            best = outcome
            model.add(amount <= outcome.bound + slack)
        return best


def _has_another(
    model: Any,
    objective: Any,
    literals: Sequence[Any],
    values: Sequence[int],
    deadline: float | None,
) -> bool:
    """Return whether a model has another solution than some values; False if time runs out."""
    others = model.clone()
    others.minimize(objective)
    others.add_bool_or(
        [literal.negated() for literal, value in zip(literals, values, strict=True) if value]
    )
    status = solve(others, literals, seconds_left(deadline)).status
    return status in (Status.OPTIMAL, Status.FEASIBLE)


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """A block at a width, and the widths that it is entered from, each with the first block.

    `entry_totals`: of each objective, what the shortest stage has by the width that enters it;
    `more`: what each depth has more than that. All in units of the objective.
    """

    number: int
    width: int
    repeated: SizedBlock
    firsts: Mapping[int, SizedBlock]
    entry_totals: Mapping[str, Mapping[int, int]]
    more: Mapping[str, tuple[int, ...]]


class _LayoutModel(_ChoiceModel):
    """The model of a `StagesProblem` without its budgets: an option and a depth for each stage."""

    def __init__(self, problem: StagesProblem, sized: SizedChoices) -> None:
        super().__init__()
        self.problem = problem
        self.ends = problem.start.stem_and_head
        entered_blocks = [_entered_blocks(problem, sized, n) for n in range(len(sized.entries))]
        self.units = _units(entered_blocks)
        self.options = [_options(blocks, self.units) for blocks in entered_blocks]
        # The depth from which blocks are repeated, and the depths that may be taken.
        self.shortest = [stage.min_depth for stage in problem.start.stages]
        self.depths = problem.depth_choices
        self.entered: list[dict[tuple[_Option, int], Any]] = []
        for index, options in enumerate(self.options):
            self._add_stage(index, options)
        self.unit = self.units[problem.objective]
        self.total = self._objective(problem.objective)

    @property
    def slack(self) -> int:
        """By how many units equal totals may come out apart: each stage is rounded twice."""
        return 2 * len(self.taken)

    def ties(self) -> list[tuple[Any, int]]:
        """Return the other objectives, in their order, then the parameters."""
        others = tie_breakers(self.problem.objective)
        return [*((-self._objective(name), self.slack) for name in others), *super().ties()]

    def forbid(self, chosen: Sequence[Any], distance: int) -> None:
        """Forbid a choice, and those that differ from it in fewer layers than `distance`."""
        super().forbid(chosen, distance)
        if distance <= 1:
            return
        apart: Any = 0
        for index, (taken, key) in enumerate(zip(self.taken, chosen, strict=True)):
            stage = self._stage(index, key)
            apart += sum(
                stage.layers_apart(self._stage(index, other)) * literal
                for other, literal in taken.items()
            )
        self.model.add(apart >= distance)

    def _stage(self, index: int, key: tuple[_Option, int]) -> Stage:
        """Return a stage of an option and depth, entered from any width."""
        option, depth = key
        first = next(iter(option.firsts.values()))
        start = self.problem.start.stages[index]
        return replace(start, first=first, repeated=option.repeated, depth=depth)

    def _objective(self, name: str) -> Any:
        """Return an objective of the choices as a linear expression, in 1 / its unit."""
        total: Any = 0
        for index, (entered, taken) in enumerate(zip(self.entered, self.taken, strict=True)):
            for (option, entry), literal in entered.items():
                total += option.entry_totals[name][entry] * literal
            for (option, depth), literal in taken.items():
                total += option.more[name][depth - self.shortest[index]] * literal
        return total

    def layout(self, chosen: Sequence[tuple[_Option, int]]) -> Layout:
        """Return the layout of a choice of option and depth for each stage."""
        entry = self.ends.stem_channels
        stages = []
        for stage, (option, depth) in zip(self.problem.start.stages, chosen, strict=True):
            first = option.firsts[entry]
            stages.append(replace(stage, first=first, repeated=option.repeated, depth=depth))
            entry = option.width
        return Layout(tuple(stages), self.ends)

    def _add_stage(self, index: int, options: Sequence[_Option]) -> None:
        new = self.model.new_bool_var
        taken = {
            (option, depth): new(f"{index}: {option.number} x {depth}")
            for option in options
            for depth in self.depths[index]
        }
        entered = {
            (option, entry): new(f"{index}: {option.number} from {entry}")
            for option in options
            for entry in option.firsts
        }
        self.model.add_exactly_one(taken.values())
        for option in options:
            self.model.add(
                sum(entered[option, entry] for entry in option.firsts)
                == sum(taken[option, depth] for depth in self.depths[index])
            )
        if index:
            for width in {option.width for option in self.options[index - 1]}:
                leaving = [x for (option, _), x in self.taken[-1].items() if option.width == width]
                entering = [x for (_, entry), x in entered.items() if entry == width]
                self.model.add(sum(leaving) == sum(entering))
        self.taken.append(taken)
        self.entered.append(entered)

    def scale(self, name: str) -> int:
        """Return the factor that makes an amount whole."""
        return 10**DECIMALS if name == "latency_ms" else 1

    def amount(self, name: str, scale: int) -> Any:
        """Return an amount as a linear expression, in 1 / scale."""
        if name == "peak_memory":
            return self._peak_memory()
        total: Any = 0
        last = len(self.taken) - 1
        for index, stage in enumerate(self.problem.start.stages):
            for (option, entry), literal in self.entered[index].items():
                total += int(scale * self._cost(name, stage, option.firsts[entry], True)) * literal
            for (option, depth), literal in self.taken[index].items():
                repeats = depth - self.shortest[index]
                cost = repeats and repeats * self._cost(name, stage, option.repeated, False)
                if index == last and name == "params":
                    cost += self.ends.params(option.width)
                if index == last and name == "macs":
                    cost += self.ends.macs(option.width)
                total += int(scale * cost) * literal
        return total

    def _peak_memory(self) -> Any:
        """Return the peak memory in bytes: a variable that is no less than any part needs.

        No part needs less for what stands elsewhere, so an option whose peak is above a bound is
        left out.
        """
        start, dtype = self.problem.start, self.problem.budgets.dtype or DEFAULT_DTYPE
        peaks = StagePeaks(start)
        most = self.model.new_int_var(0, MAX_BYTES, "peak memory")

        def need(elements: int, literal: Any) -> None:
            self.model.add(most >= bytes_of(elements, dtype) * literal)

        need(peaks.stem, 1)
        for index, stage in enumerate(start.stages):
            for (option, entry), literal in self.entered[index].items():
                first = replace(stage, first=option.firsts[entry], repeated=option.repeated)
                need(peaks.entry(index, first), literal)
            for (option, depth), literal in self.taken[index].items():
                if depth > self.shortest[index]:
                    need(peaks.repeated(stage, option.repeated), literal)
                if index == len(start.stages) - 1:
                    need(peaks.head(option.width), literal)
        return most

    def _cost(self, name: str, stage: Stage, block: SizedBlock, opens: bool) -> Any:
        stride = stage.stride if opens else 1
        if name == "params":
            return self.ends.block_params(block, opens)
        if name == "macs":
            return self.ends.block_macs(block, stage.side_out, stride, opens)
        if name == "layers":
            return len(block.layers)
        assert self.problem.latency is not None
        return latency_of(self.problem.latency, block, stage.side_out, stride).ms


@dataclass(frozen=True, slots=True)
class _EnteredBlock:
    """A block that a stage may repeat, entered from a width, with its objectives by depth."""

    width: int
    entry: int
    first: SizedBlock
    repeated: SizedBlock
    totals: Mapping[str, tuple[float, ...]]


def _entered_blocks(problem: StagesProblem, sized: SizedChoices, index: int) -> list[_EnteredBlock]:
    """Return the blocks of a stage at its widths, from every width that may enter it."""
    stage = problem.start.stages[index]
    blocks: dict[tuple[SizedBlock, SizedBlock], _EnteredBlock] = {}
    for choice, width in product(problem.block_choices[index], problem.width_choices[index]):
        repeated = sized.at(choice, width, width, index, opens=False)
        for entry in sized.entries[index]:
            first = sized.at(choice, entry, width, index, opens=True)
            narrows = problem.monotone and index and entry > width
            # Two names of one block are one choice.
            if first is None or repeated is None or narrows or (first, repeated) in blocks:
                continue
            deepest = replace(
                stage, first=first, repeated=repeated, depth=problem.depth_choices[index][-1]
            )
            totals = {
                name: totals_by_depth(objective, deepest, problem.alpha, problem.cap)
                for name, objective in OBJECTIVES.items()
            }
            blocks[first, repeated] = _EnteredBlock(width, entry, first, repeated, totals)
    return list(blocks.values())


def _units(stages: Sequence[Sequence[_EnteredBlock]]) -> dict[str, int]:
    """Return into how many parts each objective is cut, so that its total has `DIGITS` digits."""
    units = {}
    for name in OBJECTIVES:
        greatest = sum(
            # A stage may have no block at all where it may not narrow.
            max((abs(t) for block in stage for t in block.totals[name]), default=0)
            for stage in stages
        )
        digits = ceil(log10(greatest)) if greatest > 1 else 0
        units[name] = min(RESOLUTION, 10 ** max(0, DIGITS - digits))
    return units


def _options(blocks: Sequence[_EnteredBlock], units: Mapping[str, int]) -> list[_Option]:
    """Return the options of a stage: entered blocks joined where only the first block differs."""
    joined: dict[Any, dict[int, tuple[SizedBlock, dict[str, int]]]] = {}
    for block in blocks:
        scaled = {
            name: [round(unit * total) for total in block.totals[name]]
            for name, unit in units.items()
        }
        more = {
            # Not the difference of rounded totals, which differs by one between entries.
            name: tuple(
                round(unit * (total - block.totals[name][0])) for total in block.totals[name]
            )
            for name, unit in units.items()
        }
        key = (block.width, block.repeated, tuple(more.items()))
        joined.setdefault(key, {})[block.entry] = (
            block.first,
            {name: totals[0] for name, totals in scaled.items()},
        )
    return [
        _Option(
            number,
            width,
            repeated,
            {entry: first for entry, (first, _) in entries.items()},
            {name: {entry: t[name] for entry, (_, t) in entries.items()} for name in units},
            dict(more),
        )
        for number, ((width, repeated, more), entries) in enumerate(joined.items())
    ]


class _DepthsModel(_ChoiceModel):
    """The model of a `DepthsProblem` without its budgets: a depth for each stage."""

    def __init__(self, problem: DepthsProblem) -> None:
        super().__init__()
        self.problem = problem
        for table in problem.tables:
            taken = {n: self.model.new_bool_var(f"{table.name}: {n}") for n in table.depths}
            self.model.add_exactly_one(taken.values())
            self.taken.append(taken)
            scaled = [round(RESOLUTION * gain) for gain in table.gains]
            self.total += _weighted_sum(scaled, taken.values())

    def scale(self, name: str) -> int:
        """Return 1: parameters and MACs are whole."""
        return 1

    def amount(self, name: str, scale: int) -> Any:
        """Return an amount of the network as a linear expression."""
        rest = getattr(self.problem, f"rest_{name}")
        pairs = zip(self.problem.tables, self.taken, strict=True)
        return rest + sum(_weighted_sum(getattr(t, name), taken.values()) for t, taken in pairs)

    def ties(self) -> list[tuple[Any, int]]:
        """Return the number of blocks that are added or removed, then the parameters."""
        pairs = zip(self.problem.start or (), self.taken, strict=False)
        changes = [
            _weighted_sum((abs(depth - start) for depth in taken), taken.values())
            for start, taken in pairs
        ]
        return [*([(sum(changes), 0)] if changes else []), *super().ties()]


def _weighted_sum(weights: Iterable[int], literals: Iterable[Any]) -> Any:
    return sum(weight * literal for weight, literal in zip(weights, literals, strict=True))


class _Plan(Protocol):
    """What the search returns: it knows its objective and checks itself."""

    def objective(self) -> float:
        """Return the amount that is maximised."""

    def check(self) -> None:
        """Check that the plan keeps everything that was asked for."""


P = TypeVar("P", bound=_Plan)


def _best_plans(
    model: _ChoiceModel,
    top: int,
    deadline: float | None,
    plan_of: Callable[[Sequence[Any]], P],
    distance: int = 1,
) -> tuple[Status, float | None, tuple[P, ...]]:
    """Return status and bound of the best plan, and the `top` plans, best first.

    Raises: SolverError when the solver contradicts itself.
    """
    plans: list[P] = []
    status, bound = Status.UNKNOWN, None
    while len(plans) < top:
        next_status, chosen, next_bound = model.next_choice(deadline, distance)
        if not plans:
            status, bound = next_status, next_bound
        if chosen is None or (plans and next_status is not Status.OPTIMAL):
            # A later one that is not proven may not be the next best.
            break
        plan = plan_of(chosen)
        plan.check()
        plans.append(plan)
        _check_order(plans, 2 * model.slack / model.unit)
    if plans and status is Status.OPTIMAL:
        bound = plans[0].objective()
    return status, bound, tuple(plans)


def _least_amounts(
    model: _ChoiceModel, names: Iterable[str], deadline: float | None
) -> dict[str, int | Fraction]:
    """Return the minimum of each amount by itself, in a model without budgets."""
    minima = ((name, model.least(name, deadline)) for name in names)
    return {name: least for name, least in minima if least is not None}


def _check_order(plans: Sequence[_Plan], tolerance: float) -> None:
    """Check that the last plan is no better than those that were proven the best before it."""
    objectives = [plan.objective() for plan in plans]
    if objectives[-1] > min(objectives) + tolerance:
        raise contradiction(
            f"a total of {objectives[-1]:.9f} after {min(objectives):.9f} was proven the greatest",
            "totals that fall",
        )
