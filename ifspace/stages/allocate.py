"""Choose depths, widths and blocks of stages with the greatest gain within budgets, by CP-SAT.

A layout is a path: each stage takes one *option*, a block with its width inside, a width, a stride
and the side that it reads, with a depth; and the block that it begins with, from the width of the
stage before. Both are one boolean each, joined by flow equations of widths and sides, so that costs
and objectives are linear and the relaxation without whole numbers is tight. What the first block of
a stage adds may depend on the width that it is entered from; where that changes what the blocks
behind it add too, as the gain of a block that does not see the full field, each such width has an
option of its own. Where stages are known by tables only (`DepthsProblem`), there is one boolean for
each depth of each stage.

Objectives enter as whole numbers of 1e-9, of more where totals are above 100, so the proof is up to
one of that for each stage. Ties are broken by the other objectives in the order of
`objectives.tie_breakers`, then by the fewest parameters; of the depths of a network that is there
already (`DepthsProblem.start`), by the fewest blocks that change, then by the fewest parameters.

Reference: [3DRF] section 4.1; [IF] eq. 4.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from math import ceil, floor, log10
from typing import Any, Final, Protocol, TypeVar

from ifspace.answer import Answer, Status
from ifspace.block import SizedBlock
from ifspace.cpsat import contradiction, seconds_left, weighted_sum
from ifspace.errors import BlockError, SettingError
from ifspace.floors import NO_FLOORS, Floors, ParamsRange, leaves_nothing
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.remedy import TIME_LIMIT_S as REMEDY_LIMIT_S
from ifspace.groups.solve import cheapest_groups
from ifspace.latency import DECIMALS, bench_command, case_text, latency_of, shape_text
from ifspace.memory import DEFAULT_DTYPE, bytes_of
from ifspace.parallel import over_shards, workers_or_one
from ifspace.reach import channel_field
from ifspace.stages.best_few import RESOLUTION, ChoiceModel, best_few
from ifspace.stages.layout import Layout, Stage
from ifspace.stages.objectives import COSTS, OBJECTIVES, tie_breakers, totals_by_depth
from ifspace.stages.peak import StagePeaks
from ifspace.stages.problem import (
    CHEAPEST,
    BlockChoice,
    DepthPlan,
    DepthsProblem,
    StagePlan,
    StagesProblem,
)

# Amounts are counted in larger units than 1 / RESOLUTION where a total has more digits in all: the
# relaxation is solved in floating point.
DIGITS: Final = 11
# More bytes than feature maps at the largest width and side have.
MAX_BYTES: Final = 1 << 52
# Problems of group counts in one shard.
SHARD: Final = 16


def best_stages(
    problem: StagesProblem,
    top: int = 1,
    time_limit_s: float | None = None,
    jobs: int | None = None,
    announce: Callable[[ParamsRange], None] | None = None,
    distance: int = 1,
) -> Answer[StagePlan]:
    """Return the `top` layouts of the greatest objective within the budgets, best first.

    Status and bound are those of the first; `jobs` workers look for open group counts, and for the
    layouts behind the first (`best_few`), if not given those of the caller's
    `joblib.parallel_config`, or one.

    >>> from ifspace.stages.networks import network
    >>> from ifspace.stages.problem import Budgets
    >>> answer = best_stages(StagesProblem(network("vgg16", 32), Budgets(params=5_098_826)))
    >>> answer.status.name, answer.plans[0].layout.depths
    ('OPTIMAL', (8, 3, 2, 1, 1))

    INFEASIBLE, with the reason, also where no block of a stage has the full field with any groups.

    Each differs from all before it in at least `distance` layers (`Stage.layers_apart`, summed).
    `announce` is called, before the search, with the parameters that layouts within floors may
    have; not without floors.

    Where the problem asks for finer widths, those between the offered ones are offered around those
    of the best, until all next to it are: the plans have the problem with all that were offered.
    Out of time, what was proven before stands.

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
    model = _bounded(sized)
    while True:
        model = _with_finer_widths(model, deadline, jobs)
        status, bound, plans = _best_plans(model, top, deadline, model.plan, distance, jobs)
        if status is not Status.OPTIMAL or not problem.finer:
            break
        # Of equal layouts another one was preferred: the widths next to its own may be missing.
        finer = _finer(model, plans[0].layout, deadline, jobs)
        if finer is None:
            break
        model = finer
    least, reason = {}, None
    if status is Status.INFEASIBLE:
        reason = _too_little_gain(problem, sized, deadline)
        unbounded = _LayoutModel(problem, sized)
        least = _least_amounts(unbounded, problem.budgets.limits, deadline)
    return Answer(status, bound, plans, tuple(model.sized.left_out), least, reason=reason)


def _too_little_gain(
    problem: StagesProblem, sized: "SizedChoices", deadline: float | None
) -> str | None:
    """Return that the budgets allow less than the least gain, where there is one and they do."""
    least = problem.least_gain
    if least is None:
        return None
    model = _LayoutModel(replace(problem, least_gain=None, objective="gain"), sized)
    model.bound(problem.budgets.limits)
    chosen = model.proven(deadline)
    if chosen is None:
        return None
    gain = StagePlan(problem, model.layout(chosen)).objectives["gain"]
    return (
        f"proven: no layout within the budgets has a gain of {least:.4f}; the greatest has "
        f"{gain:.4f}: lower --least-gain, or raise a budget"
    )


def _bounded(sized: "SizedChoices", like: "_LayoutModel | None" = None) -> "_LayoutModel":
    model = _LayoutModel(sized.problem, sized, like)
    model.bound(sized.problem.budgets.limits)
    return model


def _with_finer_widths(
    model: "_LayoutModel", deadline: float | None, jobs: int | None
) -> "_LayoutModel":
    """Return the model with all widths next to those of its best layout, solved for its total.

    As it is where the problem does not ask for that; out of time, the last one that was proven.
    """
    while model.problem.finer and (chosen := model.proven(deadline)) is not None:
        finer = _finer(model, model.layout(chosen), deadline, jobs)
        if finer is None or finer.proven(deadline) is None:
            break
        model = finer
    return model


def _finer(
    model: "_LayoutModel", layout: Layout, deadline: float | None, jobs: int | None
) -> "_LayoutModel | None":
    """Return the model with more widths next to those of a layout, None where there are none."""
    problem = model.problem.refined(layout.widths)
    if problem == model.problem:
        return None
    try:
        finer = _bounded(SizedChoices(problem, deadline, jobs), model)
    except TimeoutError:
        return None
    finer.hint(layout)
    return finer


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
        self, problem: StagesProblem, deadline: float | None = None, jobs: int | None = None
    ) -> None:
        """Find open groups; check that every stage has a choice left."""
        self.problem = problem
        widths = problem.width_choices
        self.entries = [(problem.start.stem_and_head.stem_channels,), *widths[:-1]]
        self.left_out: dict[str, set[int]] = {}
        self.reason: str | None = None
        self._untimed: list[str] = []
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
        self._forms = _forms(cases, problem.forms, deadline, jobs)
        for index in range(len(widths)):
            self._check(index)

    def at(
        self, choice: BlockChoice, entry: int, width: int, index: int, opens: bool
    ) -> SizedBlock | None:
        """Return the first of the forms of a block where the stage is in the start."""
        place = self.problem.start.stages[index]
        return next(iter(self.forms(choice, entry, width, index, place, opens)), None)

    def forms(
        self, choice: BlockChoice, entry: int, width: int, index: int, place: Stage, opens: bool
    ) -> tuple[SizedBlock, ...]:
        """Return a block from one width to another: one for each of its choices of groups.

        `index`: of the stage; `place`: the stage at a stride and a side; `opens`: the block is its
        first. Nothing where it is no choice of the stage.
        """
        problem = self.problem
        stride = place.stride if opens else 1
        case = (choice, entry, width, problem.floors_of(index, opens))
        blocks = self._sized(case)
        if not blocks:
            text = f"{choice} from {entry} to {width} channels{_with_floors(case)}"
            lacks_field = case in self._forms
            fault = "has the full field with no groups" if lacks_field else "is not legal"
            self._leave_out(index, f"{text} {fault}")
            if lacks_field:
                self._lacking.setdefault(index, case)
            return ()
        if stride > 1 and blocks[0].strided_index is None:
            self._leave_out(index, f"{choice} has no spatial layer to hold stride {stride}")
            return ()
        # Where stages have one block only, none ever follows the first.
        occurs = opens or problem.depth_choices[index][-1] > place.min_depth
        latency = problem.latency if problem.needs_latencies else None
        if not occurs or latency is None:
            return blocks
        timed = []
        for block in blocks:
            if latency.find(block, place.side_out, stride) is None:
                case_named = case_text(block, place.side_out, stride)
                self._leave_out(index, f"no latency for {case_named}")
                self._untimed.append(shape_text(block, place.side_out, stride))
            else:
                timed.append(block)
        return tuple(timed)

    def _sized(self, case: "Case") -> tuple[SizedBlock, ...]:
        choice, entry, width, floors = case
        if choice.block is None:
            return self._forms.get(case, ())
        try:
            block = choice.sized(entry, width)
        except BlockError:
            return ()
        lacks_field = choice.full and channel_field(block.layers) < entry
        return (block,) if block.meets(floors) and not lacks_field else ()

    def _leave_out(self, index: int, reason: str) -> None:
        self.left_out.setdefault(reason, set()).add(index)

    def _check(self, index: int) -> None:
        problem = self.problem
        self._untimed.clear()
        for choice, width, place in product(
            problem.block_choices[index], problem.width_choices[index], problem.places(index)
        ):
            repeated = self.forms(choice, width, width, index, place, opens=False)
            firsts = [
                self.forms(choice, entry, width, index, place, opens=True)
                for entry in self.entries[index]
            ]
            if repeated and any(firsts):
                return
        if index in self._lacking:
            self.reason = self.reason or _without_full_field(index, self._lacking[index])
            return
        raise SettingError.because(
            f"stage {index + 1} has no block left",
            got=next(reason for reason, indices in self.left_out.items() if index in indices),
            allowed="blocks that fit the widths, with a latency where a table is given",
            remedy="offer other blocks or widths"
            + (f", or latencies of these (`{bench_command(self._untimed)}`)" * bool(self._untimed)),
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
    solved = _solve_cases(([(twice, entry, width, floors)], CHEAPEST, None))
    if choice.composition.repeats == 1 and any(blocks for _, blocks in solved):
        remedy += f", such as {twice}"
    return f"{fact} the full field; {remedy}"


def _forms(
    cases: Sequence[Case], forms: str, deadline: float | None, jobs: int | None
) -> dict[Case, tuple[SizedBlock, ...]]:
    """Return the full-field blocks of open choices, none where no groups give the field.

    Choices that are not legal are left out.
    """
    if not cases:
        return {}
    seconds = seconds_left(deadline)
    shards = [(list(cases[n : n + SHARD]), forms, seconds) for n in range(0, len(cases), SHARD)]
    return dict(
        pair for pairs in over_shards(_solve_cases, shards, workers_or_one(jobs)) for pair in pairs
    )


def _solve_cases(
    shard: tuple[Sequence[Case], str, float | None],
) -> list[tuple[Case, tuple[SizedBlock, ...]]]:
    cases, forms, seconds = shard
    deadline = None if seconds is None else time.monotonic() + seconds
    blocks: list[tuple[Case, tuple[SizedBlock, ...]]] = []
    for case in cases:
        choice, entry, width, floors = case
        try:
            problem = GroupsProblem(
                choice.composition,
                entry,
                width,
                bottleneck=choice.bottleneck,
                widths=choice.inside(entry),
                kernel=choice.kernel,
                floors=floors,
            )
        except (SettingError, BlockError):
            continue
        front: list[SizedBlock] = []
        while True:
            answer = cheapest_groups(problem, time_limit_s=seconds_left(deadline))
            if answer.status not in (Status.OPTIMAL, Status.INFEASIBLE):
                raise TimeoutError
            if answer.best is None:
                break
            front.append(answer.best.sized)
            if forms == CHEAPEST:
                break
            # The next has the fewest parameters of those whose filters read more.
            more = replace(floors, least_fan_in=front[-1].least_fan_in + 1)
            problem = replace(problem, floors=more)
        blocks.append((case, tuple(front)))
    return blocks


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """A stage but for its depth and its first block, and the blocks that it may begin with.

    `entry_totals`: of each objective, what the shortest stage has by its first block; `more`: what
    each depth has more than that. All in units of the objective.
    """

    number: int
    stage: Stage
    firsts: tuple[SizedBlock, ...]
    entry_totals: Mapping[str, Mapping[SizedBlock, int]]
    more: Mapping[str, tuple[int, ...]]

    def begun(self, first: SizedBlock, depth: int | None = None) -> Stage:
        """Return the stage with a first block and a depth, that of the deepest if None."""
        return replace(self.stage, first=first, depth=depth or self.stage.depth)


class _LayoutModel(ChoiceModel):
    """The model of a `StagesProblem` without its budgets.

    `taken`: of each stage the options with a depth; `entered`: with the block that it begins with.
    `entered_stages`: all of each as deep as it may be, with their objectives.
    """

    def __init__(
        self, problem: StagesProblem, sized: SizedChoices, like: "_LayoutModel | None" = None
    ) -> None:
        """Add the stages; what another model has of the same ones is not counted again."""
        super().__init__()
        self.problem, self.sized = problem, sized
        self.ends = problem.start.stem_and_head
        self.entered_stages: list[dict[Stage, _EnteredStage]] = [
            _entered_stages(problem, sized, index, like.entered_stages[index] if like else {})
            for index in range(len(sized.entries))
        ]
        entered_stages = [list(stages.values()) for stages in self.entered_stages]
        self.units = _units(entered_stages)
        self.options = [_options(stages, self.units) for stages in entered_stages]
        # The depth from which blocks are repeated, and the depths that may be taken.
        self.shortest = [stage.min_depth for stage in problem.start.stages]
        self.depths = problem.depth_choices
        self.entered: list[dict[tuple[_Option, SizedBlock], Any]] = []
        for index, options in enumerate(self.options):
            self._add_stage(index, options)
        # By how many units equal objectives may come out apart: each stage is rounded twice.
        self.rounding = 2 * len(self.taken)
        if problem.objective in COSTS:
            cost = COSTS[problem.objective]
            self.unit = self.scale(cost)
            self.total = -self.amount(cost, self.unit)
        else:
            self.unit = self.units[problem.objective]
            self.total = self._objective(problem.objective)
        if problem.least_gain is not None:
            least = floor(problem.least_gain * self.units["gain"]) - self.rounding
            self.model.add(self._objective("gain") >= least)

    @property
    def decisions(self) -> Sequence[Mapping[Any, Any]]:
        """Option and depth of each stage, then option and first block of each."""
        return [*self.taken, *self.entered]

    @property
    def stages(self) -> Sequence[Sequence[int]]:
        """Both decisions of each stage."""
        count = len(self.taken)
        return [[index, count + index] for index in range(count)]

    @property
    def slack(self) -> int:
        """By how many units equal totals may come out apart; costs are exact."""
        return 0 if self.problem.objective in COSTS else self.rounding

    def ties(self) -> list[tuple[Any, int]]:
        """Return the other objectives, in their order, then the parameters."""
        others = tie_breakers(self.problem.objective)
        return [*((-self._objective(name), self.rounding) for name in others), *super().ties()]

    def apart(self, chosen: Sequence[Any]) -> list[tuple[Any, int]]:
        """Return by how many layers layouts differ from one: literals, and how many each adds."""
        return [
            (literal, self._stage(*key).layers_apart(self._stage(*other)))
            for taken, key in zip(self.taken, chosen, strict=False)
            for other, literal in taken.items()
        ]

    def _stage(self, option: _Option, depth: int) -> Stage:
        """Return a stage of an option and depth, entered from any width."""
        return option.begun(option.firsts[0], depth)

    def _objective(self, name: str) -> Any:
        """Return an objective of the choices as a linear expression, in 1 / its unit."""
        total: Any = 0
        for index, (entered, taken) in enumerate(zip(self.entered, self.taken, strict=True)):
            total += _weighted_sum(
                [option.entry_totals[name][first] for option, first in entered], entered.values()
            )
            total += _weighted_sum(
                [option.more[name][depth - self.shortest[index]] for option, depth in taken],
                taken.values(),
            )
        return total

    def layout(self, chosen: Sequence[tuple[_Option, Any]]) -> Layout:
        """Return the layout of a choice: option and depth, then first block, of each stage."""
        count = len(self.taken)
        pairs = zip(chosen[:count], chosen[count:], strict=True)
        stages = (option.begun(first, depth) for (option, depth), (_, first) in pairs)
        return Layout(tuple(stages), self.ends)

    def plan(self, chosen: Sequence[tuple[_Option, Any]]) -> StagePlan:
        """Return the plan of a choice."""
        return StagePlan(self.problem, self.layout(chosen))

    def hint(self, layout: Layout) -> None:
        """Let the search begin at a layout."""
        for stage, taken, entered in zip(layout.stages, self.taken, self.entered, strict=True):
            option_of = {
                option: option.stage.at_depth(stage.depth)
                == replace(stage, first=option.stage.first)
                for option, _ in taken
            }
            for (option, depth), literal in taken.items():
                self.model.add_hint(literal, option_of[option] and depth == stage.depth)
            for (option, first), literal in entered.items():
                self.model.add_hint(literal, option_of[option] and first == stage.first)

    def _add_stage(self, index: int, options: Sequence[_Option]) -> None:
        new = self.model.new_bool_var
        taken = {
            (option, depth): new(f"{index}: {option.number} x {depth}")
            for option in options
            for depth in self.depths[index]
        }
        entered = {
            (option, first): new(f"{index}: {option.number} by {number}")
            for option in options
            for number, first in enumerate(option.firsts)
        }
        self.model.add_exactly_one(taken.values())
        for option in options:
            self.model.add(
                sum(entered[option, first] for first in option.firsts)
                == sum(taken[option, depth] for depth in self.depths[index])
            )
        if index:
            self._join(self.taken[-1], entered, index)
        self.taken.append(taken)
        self.entered.append(entered)

    def _join(self, taken: Mapping[Any, Any], entered: Mapping[Any, Any], index: int) -> None:
        """Let a stage begin at the width, and where strides are free at the side, that there is."""
        has_sides = self.problem.strides is not None
        flows: dict[tuple[int, int], list[list[Any]]] = {}
        for (option, _), literal in taken.items():
            key = (option.stage.width, has_sides * option.stage.side_out)
            flows.setdefault(key, [[], []])[0].append(literal)
        for (option, first), literal in entered.items():
            key = (first.channels, has_sides * option.stage.side_strided)
            flows.setdefault(key, [[], []])[1].append(literal)
        for leaving, entering in flows.values():
            self.model.add(sum(leaving) == sum(entering))

    def scale(self, name: str) -> int:
        """Return the factor that makes an amount whole."""
        return 10**DECIMALS if name == "latency_ms" else 1

    def amount(self, name: str, scale: int) -> Any:
        """Return an amount as a linear expression, in 1 / scale."""
        if name == "peak_memory":
            return self._peak_memory()
        total: Any = 0
        last = len(self.taken) - 1
        for index, (entered, taken) in enumerate(zip(self.entered, self.taken, strict=True)):
            total += _weighted_sum(
                [
                    int(scale * self._cost(name, option.begun(first), True))
                    for option, first in entered
                ],
                entered.values(),
            )
            costs = {
                option: self._cost(name, option.stage, False) for option in self.options[index]
            }
            ends = dict.fromkeys(costs, 0)
            if index == last and name in ("params", "macs"):
                count = getattr(self.ends, name)
                ends = {option: count(option.stage.width) for option in costs}
            shortest = self.shortest[index]
            total += _weighted_sum(
                [
                    int(scale * ((depth - shortest) * costs[option] + ends[option]))
                    for option, depth in taken
                ],
                taken.values(),
            )
        return total + (self.ends.activations if name == "activations" else 0)

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
        pools = self.problem.strides is None
        for index, (entered, taken) in enumerate(zip(self.entered, self.taken, strict=True)):
            for (option, first), literal in entered.items():
                # Where strides are free nothing is pooled behind the first stage.
                stage = option.begun(first)
                before = peaks.before(index) if pools or not index else stage.side_strided
                need(peaks.entry(stage, before), literal)
            for (option, depth), literal in taken.items():
                if depth > self.shortest[index]:
                    need(peaks.repeated(option.stage), literal)
                if index == len(start.stages) - 1:
                    need(peaks.head(option.stage.width), literal)
        return most

    def _cost(self, name: str, stage: Stage, opens: bool) -> Any:
        """Return an amount of the first block of a stage, or of each that follows it."""
        if name != "latency_ms":
            return stage.block_amount(name, opens, self.ends)
        assert self.problem.latency is not None
        if stage.depth == stage.min_depth and not opens:
            return 0
        block, stride = (stage.first, stage.stride) if opens else (stage.repeated, 1)
        return latency_of(self.problem.latency, block, stage.side_out, stride).ms


@dataclass(frozen=True, slots=True)
class _EnteredStage:
    """A stage as deep as it may be, and its objectives by depth."""

    stage: Stage
    totals: Mapping[str, tuple[float, ...]]


def _entered_stages(
    problem: StagesProblem,
    sized: SizedChoices,
    index: int,
    counted: Mapping[Stage, _EnteredStage],
) -> dict[Stage, _EnteredStage]:
    """Return a stage with its blocks at its widths and places, from every width that may enter.

    `counted`: some of them.
    """
    stages: dict[Stage, _EnteredStage] = {}
    for choice, width, place in product(
        problem.block_choices[index], problem.width_choices[index], problem.places(index)
    ):
        repeated = sized.forms(choice, width, width, index, place, opens=False)
        for entry in sized.entries[index]:
            firsts = sized.forms(choice, entry, width, index, place, opens=True)
            if problem.monotone and index and entry > width:
                continue
            for first, follows in product(firsts, repeated):
                stage = replace(
                    place,
                    first=first,
                    repeated=follows,
                    depth=problem.depth_choices[index][-1],
                    type=choice.type,
                )
                # Two names of one block are one choice.
                if stage in stages:
                    continue
                stages[stage] = counted.get(stage) or _EnteredStage(
                    stage,
                    {
                        name: totals_by_depth(objective, stage, problem.alpha, problem.cap)
                        for name, objective in OBJECTIVES.items()
                    },
                )
    return stages


def _units(stages: Sequence[Sequence[_EnteredStage]]) -> dict[str, int]:
    """Return into how many parts each objective is cut, so that its total has `DIGITS` digits."""
    units = {}
    for name in OBJECTIVES:
        greatest = sum(
            # A stage may have no block at all where it may not narrow.
            max((abs(t) for entered in stage for t in entered.totals[name]), default=0)
            for stage in stages
        )
        digits = ceil(log10(greatest)) if greatest > 1 else 0
        units[name] = min(RESOLUTION, 10 ** max(0, DIGITS - digits))
    return units


def _options(stages: Sequence[_EnteredStage], units: Mapping[str, int]) -> list[_Option]:
    """Return the options of a stage: entered stages joined where only the first block differs."""
    joined: dict[Any, list[tuple[Stage, dict[str, int]]]] = {}
    for entered in stages:
        stage, totals = entered.stage, entered.totals
        shortest = {name: round(unit * totals[name][0]) for name, unit in units.items()}
        more = tuple(
            # Not the difference of rounded totals, which differs by one between entries.
            (name, tuple(round(unit * (total - totals[name][0])) for total in totals[name]))
            for name, unit in units.items()
        )
        key = (stage.repeated, stage.side, stage.stride, stage.type, more)
        joined.setdefault(key, []).append((stage, shortest))
    return [
        _Option(
            number,
            entries[0][0],
            tuple(stage.first for stage, _ in entries),
            {name: {stage.first: t[name] for stage, t in entries} for name in units},
            dict(key[-1]),
        )
        for number, (key, entries) in enumerate(joined.items())
    ]


class _DepthsModel(ChoiceModel):
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
    return weighted_sum(list(literals), list(weights))


class _Plan(Protocol):
    """What the search returns: it knows its objective and checks itself."""

    def objective(self) -> float:
        """Return the amount that is maximised."""

    def check(self) -> None:
        """Check that the plan keeps everything that was asked for."""


P = TypeVar("P", bound=_Plan)


def _best_plans(
    model: ChoiceModel,
    top: int,
    deadline: float | None,
    plan_of: Callable[[Sequence[Any]], P],
    distance: int = 1,
    jobs: int | None = None,
) -> tuple[Status, float | None, tuple[P, ...]]:
    """Return status and bound of the best plan, and the `top` plans, best first.

    Raises: SolverError when the solver contradicts itself.
    """
    plans: list[P] = []
    status, bound = Status.UNKNOWN, None
    for next_status, chosen, next_bound in best_few(model, top, deadline, distance, jobs):
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
    model: ChoiceModel, names: Iterable[str], deadline: float | None
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
