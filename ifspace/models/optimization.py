"""Optimize a network: reorganize its stages, then replace convolutions by blocks.

Reference: [3DRF] sections 4.1 and 4.2; the budgets are beyond the papers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

from torch import Tensor

from ifspace.answer import Status
from ifspace.cpsat import seconds_left
from ifspace.errors import SettingError
from ifspace.latency import Latency
from ifspace.models.analysis import Report, report_on
from ifspace.models.decomposition import (
    Decomposition,
    Layers,
    Search,
    amounts_of,
    apply_decomposition,
    lowered_note,
    plan_decomposition,
    planned_decomposition,
    unknown_peak,
)
from ifspace.models.edits import EditedNetwork
from ifspace.models.graph import Trace
from ifspace.models.joint import Freedom, NarrowedCopy, Redesign, apply_redesign, plan_redesign
from ifspace.models.latencies import known_latency
from ifspace.models.layer_changes import LayerChange, layer_changes
from ifspace.models.layer_times import LayerTimes
from ifspace.models.measuring import Measurer, Plan, TimedPlan, planned_in_time
from ifspace.models.plan_file import PlannedBlock, PlannedDesign
from ifspace.models.planned_design import planned_redesign
from ifspace.models.recipe import Recipe
from ifspace.models.reorganization import (
    Reorganization,
    apply_reorganization,
    plan_reorganization,
)
from ifspace.models.replaceable import replaceable_convs
from ifspace.models.tracing import trace as traced
from ifspace.models.warm_start import Fit, random_images
from ifspace.models.weights import names_after
from ifspace.models.widths import (
    WIDTHS_OBJECTIVE,
    Importance,
    Narrowing,
    plan_narrowing,
)
from ifspace.stages.problem import Blocks, Budgets, amounts_text
from ifspace.stages.widths import OBJECTIVES
from ifspace.values import counted, listed

# How much of its budget of latency a network may be measured at without a word.
_TOLERATED: Final = Fraction(102, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationProblem:
    """What a network is optimized for, and what may change.

    Without `blocks` the stages meet the budgets; with blocks the blocks do, in the stages that the
    organizer leaves after `moves` moves (None: all), or in those that are there if `keep_stages`.
    `theta`, `alpha`, `cap` and `tie` are those of the organizer. The time limit of the `search` is
    that of both. `warm_start`: blocks are fitted to their convolutions on `images`, of noise where
    there are none. `grow`: how new units begin, as for `reorganize`. `plan`: the block of each
    layer that is replaced, instead of a search among `blocks`, in the stages that are there.
    `design`: widths, depths and blocks that a plan says, instead of a search.
    `widths`: whether widths are what meets the budgets, without blocks. `joint`: what may change
    together, in one search, instead of all that. `importance`, `keep_widths` and `widen`: as for
    `narrow`. Budgets that are shares are of the network before. `measure`: times layers and blocks
    here, instead of the latencies of the `search`; a budget of latency is of the whole network
    then. With `widths` and `joint` it times convolutions, and blocks, at the widths that are
    tried, and the network takes as much less as they do.
    """

    blocks: Blocks | None = None
    budgets: Budgets = Budgets()  # noqa: RUF009 - a frozen value
    keep_stages: bool = False
    moves: int | None = None
    theta: float = 0
    alpha: float = 3
    cap: str = "input"
    tie: str = "earlier"
    layers: Layers = Layers()  # noqa: RUF009
    search: Search = Search()  # noqa: RUF009
    warm_start: bool = False
    images: Tensor | None = None
    seed: int = 0
    grow: str = "fresh"
    plan: tuple[PlannedBlock, ...] | None = None
    design: PlannedDesign | None = None
    measure: Measurer | None = None
    widths: bool = False
    joint: Freedom | None = None
    importance: Importance = "l2"
    keep_widths: tuple[str, ...] = ()
    widen: Fraction = Fraction(1)

    @property
    def objective(self) -> str:
        """What decides between blocks."""
        return self.search.objective_within(self.budgets, self.blocks)

    @property
    def keeps_stages(self) -> bool:
        """Whether the stages stay as they are."""
        others = (self.plan, self.design, self.joint)
        return self.keep_stages or any(other is not None for other in others)

    @property
    def has_stages_alone(self) -> bool:
        """Whether nothing but the stages may change."""
        others = (self.blocks, self.plan, self.design, self.joint)
        return not self.widths and all(other is None for other in others)

    @property
    def freedom(self) -> Freedom | None:
        """What is decided in one search: also widths alone where latencies count."""
        if self.widths and (self.measure is not None or "latency_ms" in self.budgets.bounded):
            return Freedom(
                depths=False, blocks=False, keep_widths=self.keep_widths, widen=self.widen
            )
        return self.joint if self.design is None else Freedom()


@dataclass(frozen=True, slots=True)
class MeasuredNetworks:
    """Milliseconds of the whole network before and after: predicted, and timed in turn.

    Predicted is the time of the network before it is changed, and that with the difference of all
    blocks to their layers; of a network that was planned again as much more or less as the one
    before it was measured at. `layers`: how many times of layers and blocks were measured now,
    `kept`: how many were known from earlier. `planned_for`: for how many times the budget of
    latency the network was planned, so that it takes the budget.
    """

    predicted_ms: tuple[Fraction, Fraction]
    measured_ms: tuple[Fraction, Fraction]
    about: str
    layers: int
    kept: int
    planned_for: Fraction = Fraction(1)

    @property
    def shares(self) -> tuple[Fraction, Fraction]:
        """The time after over that before, predicted and measured."""
        pairs = self.predicted_ms, self.measured_ms
        predicted, measured = (after / before for before, after in pairs)
        return predicted, measured


@dataclass(frozen=True, slots=True)
class Optimization:
    """A network before and after, and the plans of its stages and its blocks.

    `stages` is None where blocks are to be put in and no unit can move; `blocks` where there are
    none to be put in; `after` and `network` where nothing keeps the budgets or the time limit came
    first. `reorganized` is the report of the network with its stages reorganized and its
    convolutions as they were. `replaceable`: whether blocks could replace convolutions where the
    stages alone do not keep the budgets. `layers`: how many layers with weights the network after
    has; `fresh`: the names of those that do not have the weights of the network before, nor fitted
    ones. `measured`: the times, where the problem asks for them. `recipe`: how the network after is
    trained. `changes`: of widths, or of all together, layer by layer.
    """

    problem: OptimizationProblem
    before: Report
    stages: Reorganization | None
    reorganized: Report | None = None
    blocks: Decomposition | None = None
    fits: tuple[Fit, ...] = ()
    after: Report | None = None
    network: EditedNetwork | None = None
    notes: tuple[str, ...] = ()
    replaceable: bool = False
    layers: int = 0
    fresh: tuple[str, ...] = ()
    measured: MeasuredNetworks | None = None
    widths: Narrowing | None = None
    design: Redesign | None = None
    recipe: Recipe = field(default_factory=Recipe)
    changes: tuple[LayerChange, ...] = ()

    @property
    def is_above_peak(self) -> bool:
        """Whether the network with its stages reorganized alone needs more memory than it may.

        Raises: SettingError where that is not known.
        """
        most = self.problem.budgets.peak_elements
        with_blocks = self.problem.blocks is not None or self.problem.plan is not None
        if most is None or with_blocks or self.reorganized is None:
            return False
        if self.problem.widths or self.problem.freedom is not None:
            return False  # they are chosen within it
        if self.reorganized.live is None:
            raise unknown_peak(self.reorganized.notes)
        return self.reorganized.live.peak > most

    @property
    def is_out_of_time(self) -> bool:
        """Whether time ran out before anything was found."""
        plans = (self.stages, self.blocks, self.widths, self.design)
        answers = [plan.answer for plan in plans if plan is not None and plan.answer is not None]
        return any(answer.status is Status.UNKNOWN for answer in answers)


def optimize(
    network: EditedNetwork,
    trace: Trace,
    problem: OptimizationProblem,
    progress: Callable[[int, int], None] | None = None,
) -> Optimization:
    """Return a traced network with better stages and cheaper blocks; the network stays as it is.

    On the meta device everything but a warm start is known from shapes. `progress` is called with
    (blocks fitted, blocks to fit).

    Raises: SettingError, DeviceError and KernelError as `plan_reorganization`,
        `plan_decomposition` and `fit_blocks` do.
    """
    limit_s = problem.search.time_limit_s
    deadline = None if limit_s is None else time.monotonic() + limit_s
    amounts = amounts_of(trace, problem.budgets.dtype)
    measure, start_ms = problem.measure, None
    if measure is not None:
        start_ms = measure.network_times(network.model, None, trace.image).before_ms
        amounts["latency_ms"] = start_ms
        if problem.widths or problem.freedom is not None:
            problem = replace(problem, search=replace(problem.search, latency=LayerTimes(measure)))
    if problem.freedom is None or start_ms is not None:
        problem = replace(problem, budgets=problem.budgets.of(amounts))
    if problem.has_stages_alone:
        problem.budgets.check(("params", "macs", "peak_memory"))
        if problem.keep_stages and problem.budgets.bounded:
            raise SettingError.because(
                "a budget where nothing may change",
                got=f"one of {listed(problem.budgets.bounded)}, and stages that stay",
                allowed="blocks, widths or stages that may change",
                remedy="name blocks, or leave keep_stages out",
                argument="keep_stages",
            )
    before, start = report_on(trace, network.model, problem.alpha, cap=problem.cap), network
    stages, notes = _plan_stages(network, trace, problem)
    if stages is not None and not stages.is_solved:
        convs, _ = replaceable_convs(network.model, trace, problem.layers)
        return Optimization(problem, before, stages, notes=notes, replaceable=bool(convs))
    reorganized = before
    if stages is not None and stages.end.depths != stages.start.depths:
        network = apply_reorganization(network, stages, problem.seed, problem.grow)
        trace, reorganized = _analyzed(network, trace, problem)
    if problem.freedom is not None:
        done = Optimization(problem, before, stages, reorganized, notes=notes)
        return _redesigned(done, start, network, trace, start_ms, deadline, progress)
    if problem.widths:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        done = Optimization(problem, before, stages, reorganized, notes=notes)
        return _narrowed(done, start, network, trace, left_s)
    if problem.has_stages_alone:
        layers, fresh = _fresh_layers(start, network, trace, ())
        done = Optimization(
            problem,
            before,
            stages,
            reorganized,
            after=reorganized,
            network=network,
            notes=notes,
            layers=layers,
            fresh=fresh,
        )
        return replace(done, after=None, network=None) if done.is_above_peak else done
    search = problem.search
    if measure is not None:
        if network is not start:
            start_ms = measure.network_times(network.model, None, trace.image).before_ms
        search = replace(search, times_of=measure.times_of, network_ms=start_ms)
    timed = _blocks_in_time(network, trace, problem, search, deadline)
    blocks, floor_note = timed.plan
    notes += floor_note
    if timed.factor == 1:
        problem = replace(problem, budgets=blocks.budgets)
    if not blocks.has_candidates:
        blocks.check()
    notes += (blocks.within_floors,) * bool(blocks.within_floors)
    if not blocks.is_solved:
        return Optimization(problem, before, stages, reorganized, blocks, notes=notes)
    notes = (*notes, *blocks.notes, *filter(None, [timed.note]))
    images, noise = problem.images, problem.images is None
    if noise and problem.warm_start:
        images = random_images(trace.image, problem.seed, next(network.model.parameters()))
    final = apply_decomposition(
        network, blocks, trace.image, images, problem.seed, progress, noise=noise
    )
    trace, after = _analyzed(final, trace, problem)
    if blocks.peaks is not None and after.live is not None:
        # Counted before the network was built, and in the network that was built.
        assert after.live.peak == blocks.peaks[1], (after.live.peak, blocks.peaks)
    layers, fresh = _fresh_layers(start, final, trace, [fit.name for fit in final.fits])
    measured = None
    if measure is not None and start_ms is not None:
        measured = _measured(measure, start_ms, network, final, blocks, timed)
    done = Optimization(
        problem,
        before,
        stages,
        reorganized,
        blocks,
        final.fits,
        after,
        final,
        notes,
        layers=layers,
        fresh=fresh,
        measured=measured,
        recipe=Recipe.of(blocks),
    )
    return _with_miss(done)


def _in_time(
    plan_at: Callable[[Fraction], Plan],
    shares_of: Callable[[Plan], tuple[Fraction, Fraction] | None],
    problem: OptimizationProblem,
    start_ms: Fraction | None,
    deadline: float | None,
) -> TimedPlan[Plan]:
    """Return a plan, made again where its network is measured to miss a budget of latency."""
    budget_ms = problem.budgets.latency_ms
    is_searched = problem.plan is None and problem.design is None
    if start_ms is None or budget_ms is None or not is_searched:
        return TimedPlan(plan_at(Fraction(1)))
    # Without other budgets the other amounts follow that of latency.
    grows = problem.freedom is not None and problem.search.objective in (None, *OBJECTIVES)
    return planned_in_time(
        plan_at,
        shares_of,
        most=max(Fraction(1), start_ms / budget_ms),
        uses_all=grows and problem.budgets.bounded == ("latency_ms",),
        deadline=deadline,
    )


def _blocks_in_time(
    network: EditedNetwork,
    trace: Trace,
    problem: OptimizationProblem,
    search: Search,
    deadline: float | None,
) -> TimedPlan[tuple[Decomposition, tuple[str, ...]]]:
    """Return the plan of blocks, and what floors cost."""
    measure, start_ms, budget_ms = problem.measure, search.network_ms, problem.budgets.latency_ms

    def plan_at(factor: Fraction) -> tuple[Decomposition, tuple[str, ...]]:
        budgets = problem.budgets
        if budget_ms is not None and factor != 1:
            budgets = budgets.with_latency(budget_ms * factor)
        own = replace(search, time_limit_s=seconds_left(deadline))
        if problem.plan is not None:
            return planned_decomposition(network, trace, problem.plan, budgets, own), ()
        return _plan_blocks(network, trace, replace(problem, budgets=budgets), own)

    def shares_of(
        planned: tuple[Decomposition, tuple[str, ...]],
    ) -> tuple[Fraction, Fraction] | None:
        plan, _ = planned
        if not plan.has_candidates or not plan.is_solved:
            return None
        assert measure is not None
        assert start_ms is not None
        assert budget_ms is not None
        final = apply_decomposition(network, plan, trace.image, None, problem.seed)
        predicted, measured = _measured(measure, start_ms, network, final, plan).shares
        return predicted * start_ms / budget_ms, measured * start_ms / budget_ms

    return _in_time(plan_at, shares_of, problem, start_ms, deadline)


def _plan_blocks(
    network: EditedNetwork, trace: Trace, problem: OptimizationProblem, search: Search
) -> tuple[Decomposition, tuple[str, ...]]:
    """Return the plan of blocks with the greatest least fan-in that keeps the budgets.

    With a note where that is less than was asked for: what the floor costs.
    """
    assert problem.blocks is not None
    floors, costs = search.floors, ""
    notes: tuple[str, ...] = ()
    while True:
        own = replace(search, floors=floors)
        lowers = search.lower_floors and floors.least_fan_in > 1
        try:
            plan = plan_decomposition(
                network, trace, problem.blocks, problem.budgets, problem.layers, own
            )
        except SettingError as error:
            if not lowers or error.argument != "least_fan_in":
                raise
        else:
            if (plan.has_candidates and plan.is_solved) or not lowers:
                break
            costs = costs or (f": the least is {amounts_text(plan.least)}" if plan.least else "")
        floors = floors.but("least_fan_in", floors.least_fan_in // 2)
    if floors != search.floors and plan.is_solved:
        notes = (lowered_note(search.floors, floors.least_fan_in) + costs,)
    return plan, notes


def _measured(
    measure: Measurer,
    before_ms: Fraction,
    network: EditedNetwork,
    final: EditedNetwork,
    plan: Decomposition,
    timed: TimedPlan[Any] | None = None,
) -> MeasuredNetworks:
    """Return the times of a network with its blocks beside it without them.

    `timed`: how it was planned for a budget of latency.
    """
    assert final.edits.image is not None
    correction, factor = _planned_for(timed)
    before, after = plan.replaced_latencies or (Latency(Fraction(0)),) * 2
    times = measure.network_times(network.model, final.model, final.edits.image)
    return MeasuredNetworks(
        (before_ms, correction * (before_ms - before.ms + after.ms)),
        (times.before_ms, times.after_ms),
        measure.about,
        measure.timed,
        measure.read,
        factor,
    )


def _with_miss(done: Optimization) -> Optimization:
    """Return an optimization with a note where its network is measured above its latency."""
    measured, budget_ms = done.measured, done.problem.budgets.latency_ms
    if measured is None or budget_ms is None:
        return done
    share = measured.predicted_ms[0] * measured.shares[1] / budget_ms
    if share <= _TOLERATED:
        return done
    note = f"at the end the network is measured at {float(share):.0%} of the budget of latency"
    return replace(done, notes=(*done.notes, note))


def _planned_for(timed: TimedPlan[Any] | None) -> tuple[Fraction, Fraction]:
    """Return how many times as long as predicted a network takes, and the factor of its budget."""
    return (Fraction(1), Fraction(1)) if timed is None else (timed.correction, timed.factor)


def _within_layers(
    problem: OptimizationProblem, start_ms: Fraction, before: Report, factor: Fraction
) -> Budgets:
    """Return budgets whose milliseconds are those of convolutions, so many times as many."""
    budget_ms, source = problem.budgets.latency_ms, problem.search.latency
    if budget_ms is None or source is None:
        return problem.budgets
    layers_ms = known_latency(before, source).ms
    return problem.budgets.with_latency(budget_ms * factor * layers_ms / start_ms)


def _with_times(
    done: Optimization,
    start: EditedNetwork,
    start_ms: Fraction | None,
    timed: TimedPlan[Any] | None = None,
) -> Optimization:
    """Return an optimization with the times of the network before and after, where measured.

    Predicted is that the network takes as much less as its convolutions do. `timed`: how it was
    planned for a budget of latency.
    """
    measure, source = done.problem.measure, done.problem.search.latency
    if measure is None or source is None or start_ms is None:
        return done
    if done.network is None or done.after is None or done.network.edits.image is None:
        return done
    before_ms, after_ms = (known_latency(report, source).ms for report in (done.before, done.after))
    if done.design is not None and "latency_ms" in done.design.after:
        # Blocks are timed as a whole there, not layer by layer.
        before_ms, after_ms = (x["latency_ms"] for x in (done.design.before, done.design.after))
    correction, factor = _planned_for(timed)
    times = measure.network_times(start.model, done.network.model, done.network.edits.image)
    measured = MeasuredNetworks(
        (start_ms, correction * (start_ms * after_ms / before_ms if before_ms else start_ms)),
        (times.before_ms, times.after_ms),
        measure.about,
        measure.timed,
        measure.read,
        factor,
    )
    return replace(done, measured=measured)


def _fresh_layers(
    start: EditedNetwork, final: EditedNetwork, trace: Trace, fitted: Sequence[str]
) -> tuple[int, tuple[str, ...]]:
    """Return how many layers with weights a network has, and those whose weights are drawn."""
    kept = {name.rpartition(".")[0] for name in names_after(start, final).values()}
    layers = dict.fromkeys(layer.name for layer in trace.all_layers if layer.params)
    fresh = tuple(
        name
        for name in layers
        if name not in kept and not any(name.startswith(f"{block}.") for block in fitted)
    )
    return len(layers), fresh


def _narrowed(
    done: Optimization,
    start: EditedNetwork,
    network: EditedNetwork,
    trace: Trace,
    time_limit_s: float | None,
) -> Optimization:
    """Return an optimization whose stages are done with the widths that meet the budgets."""
    problem = done.problem
    plan, model = plan_narrowing(
        network.model,
        trace.image,
        problem.budgets,
        objective=problem.search.objective or WIDTHS_OBJECTIVE,
        importance=problem.importance,
        keep_widths=problem.keep_widths,
        widen=problem.widen,
        time_limit_s=time_limit_s,
    )
    if not plan.is_solved:
        return replace(done, widths=plan)
    final = plan.network(network, model)
    trace, after = _analyzed(final, trace, problem)
    assert (after.params, after.macs) == (plan.after["params"], plan.after["macs"])
    layers, fresh = _fresh_layers(start, final, trace, ())
    names = _names_of_layers(start, final)
    changes = layer_changes(done.before, after, names, {}, problem.search.latency)
    return replace(
        done,
        widths=plan,
        after=after,
        network=final,
        layers=layers,
        fresh=fresh,
        changes=changes,
    )


def _redesigned(
    done: Optimization,
    start: EditedNetwork,
    network: EditedNetwork,
    trace: Trace,
    start_ms: Fraction | None,
    deadline: float | None,
    progress: Callable[[int, int], None] | None,
) -> Optimization:
    """Return an optimization with the widths, depths and blocks that one search chose."""
    problem, freedom, measure = done.problem, done.problem.freedom, done.problem.measure
    assert freedom is not None

    def plan_at(factor: Fraction) -> tuple[Redesign, NarrowedCopy | None]:
        search = replace(problem.search, time_limit_s=seconds_left(deadline))
        budgets = problem.budgets
        if start_ms is not None:
            budgets = _within_layers(problem, start_ms, done.before, factor)
        if problem.design is not None:
            return planned_redesign(
                network, trace, problem.design, budgets, search, problem.importance
            )
        return plan_redesign(network, trace, budgets, freedom, search, problem.importance)

    def shares_of(
        planned: tuple[Redesign, NarrowedCopy | None],
    ) -> tuple[Fraction, Fraction] | None:
        plan, copy = planned
        after_ms, budget_ms = plan.after.get("latency_ms"), problem.budgets.latency_ms
        if copy is None or after_ms is None:
            return None
        assert measure is not None
        assert start_ms is not None
        assert budget_ms is not None
        final = apply_redesign(network, plan, copy, problem.seed)
        times = measure.network_times(start.model, final.model, trace.image)
        predicted, measured = after_ms / plan.before["latency_ms"], times.after_ms / times.before_ms
        return predicted * start_ms / budget_ms, measured * start_ms / budget_ms

    timed = _in_time(plan_at, shares_of, problem, start_ms, deadline)
    plan, copy = timed.plan
    if start_ms is None:
        problem = replace(problem, budgets=plan.budgets)
    notes = (*done.notes, *plan.notes, *filter(None, [timed.note]))
    done = replace(done, problem=problem, design=plan, notes=notes)
    if copy is None:
        return done
    images, noise = problem.images, problem.images is None
    if noise and problem.warm_start:
        images = random_images(trace.image, problem.seed, next(network.model.parameters()))
    final = apply_redesign(network, plan, copy, problem.seed, images, progress, noise=noise)
    trace, after = _analyzed(final, trace, problem)
    assert (after.params, after.macs) == (plan.after["params"], plan.after["macs"])
    if after.live is not None and problem.budgets.peak_elements is not None:
        assert after.live.peak <= problem.budgets.peak_elements
    layers, fresh = _fresh_layers(start, final, trace, [fit.name for fit in final.fits])
    renamed = {old: step.name for old, step in zip(plan.blocks, copy.steps, strict=True)}
    done = replace(
        done,
        fits=final.fits,
        after=after,
        network=final,
        layers=layers,
        fresh=fresh,
        recipe=copy.recipe,
        changes=layer_changes(
            done.before,
            after,
            _names_of_layers(start, final) | renamed,
            {name: str(sized.block) for name, sized in plan.blocks.items()},
            problem.search.latency,
        ),
    )
    return _with_miss(_with_times(done, start, start_ms, timed))


def _names_of_layers(start: EditedNetwork, final: EditedNetwork) -> dict[str, str]:
    """Return the full names that modules with weights have now, by those they had."""
    names = names_after(start, final).items()
    return {old.rpartition(".")[0]: new.rpartition(".")[0] for old, new in names}


def _plan_stages(
    network: EditedNetwork, trace: Trace, problem: OptimizationProblem
) -> tuple[Reorganization | None, tuple[str, ...]]:
    """Return the plan of the stages, None if something else changes and no unit can move."""
    by_depths = problem.has_stages_alone
    budgets = problem.budgets.sums if by_depths else Budgets()
    try:
        plan = plan_reorganization(
            network,
            trace,
            budgets,
            moves=0 if problem.keeps_stages else None,
            theta=problem.theta,
            alpha=problem.alpha,
            cap=problem.cap,
            tie=problem.tie,
            time_limit_s=problem.search.time_limit_s,
            latency=problem.search.latency if budgets.bounded else None,
        )
    except SettingError as error:
        # Without blocks, or when moves were asked for, there is nothing else to do.
        if error.argument != "model" or by_depths or problem.moves:
            raise
        note = "the stages stay as they are: no unit of the network can move"
        return None, () if problem.keeps_stages else (note,)
    moves = problem.moves
    if moves is None or problem.keeps_stages:
        return plan, plan.notes
    # The report shows all states of the organizer, whichever is taken.
    count = len(plan.states) - 1
    notes = (
        (f"the organizer makes {counted(count, 'move')}: its end is taken",)
        if moves > count
        else ()
    )
    return plan.after_moves(moves), (*plan.notes, *notes)


def _analyzed(
    network: EditedNetwork, trace: Trace, problem: OptimizationProblem
) -> tuple[Trace, Report]:
    """Return the trace and the report of a network that has changed."""
    trace = traced(network.model, trace.image)
    return trace, report_on(trace, network.model, problem.alpha, cap=problem.cap)
