"""Choose which convolutions of a network become which block: one CP-SAT model over all of them.

Every layer that may be replaced is a *site* with its options: one that keeps it, and blocks of the
same widths. Whoever names an option counts its cost, batch norm and biases included, for the layer
as a whole; the rest of the network is not part of the problem.

Costs are sums, so only an option's amounts count. An option that is nowhere better than another one
of its layer is left out, and layers with equal options are one variable: how many of them take
which. Both leave every minimum as it is, and the search without symmetries. The amounts that decide
are minimised one after the other; each is held at its proven minimum, or at most 0.1% above what is
proven, before the next one's turn.

Beyond the papers: [3DRF] section 4.2 and [IF] section 5 replace every convolution by one design.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import floor, gcd, lcm
from operator import attrgetter
from typing import Any, Final, Literal

from ifspace.answer import Answer, Status
from ifspace.block import SizedBlock
from ifspace.cpsat import (
    Outcome,
    contradiction,
    new_model,
    seconds_left,
    solve,
    weighted_sum,
)
from ifspace.errors import SettingError
from ifspace.memory import DEFAULT_DTYPE, bytes_of
from ifspace.stages.problem import MAX_BUDGET, Budgets, check_faults
from ifspace.values import choice, set_fields, whole_number

Objective = Literal["keep", "weights", "params", "macs", "latency_ms", "peak_memory"]
# The amount of which the network has the largest of its parts, not their sum: bytes.
PEAK_MEMORY: Final = "peak_memory"
Amount = int | Fraction
Amounts = tuple[Amount, ...]
# What decides, from the first to the last: of equal amounts the next one does.
ORDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "keep": ("replaced", "macs", "params"),
    "weights": ("replaced", "removed", "macs"),
    "params": ("params", "macs", "replaced"),
    "macs": ("macs", "params", "replaced"),
    "latency_ms": ("latency_ms", "params", "macs", "replaced"),
    "peak_memory": ("peak_memory", "params", "macs", "replaced"),
}
BOUNDED: Final = ("params", "macs", "latency_ms", PEAK_MEMORY)
# How much work goes into the proof of an amount, in the solver's deterministic time. Which sums of
# hundreds of numbers come nearest to a limit may never be proven: an amount that is this near to
# its bound, as a share of itself, is good enough then.
_EFFORT: Final = 1.5
TOLERANCE: Final = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class Option:
    """What a layer may become, and what it costs then; without a block it stays as it is.

    `params` and `macs` (of one image) are of all that stands in the layer's place; `latency_ms`
    is None where nothing was measured. `stride` is that of the layer. `peak`: the most elements
    that are live at once in the network while it runs.

    >>> from ifspace.block import Block
    >>> option = Option(Block.parse("DW+PW").at(8, 16), params=200, macs=3200)
    >>> option.replaced, Option(None, params=1152, macs=18432).replaced
    (1, 0)

    Raises: SettingError for costs out of range, fewer parameters than the block has, and a stride
        that the block cannot hold.
    """

    block: SizedBlock | None
    params: int
    macs: int
    latency_ms: Fraction | None = None
    stride: int = 1
    peak: int = 0

    def __post_init__(self) -> None:
        """Check what can be counted."""
        for name in ("params", "macs", "peak"):
            whole_number(getattr(self, name), name, 0, MAX_BUDGET)
        time = self.latency_ms
        if time is not None and not (isinstance(time, int | Fraction) and 0 <= time <= MAX_BUDGET):
            raise SettingError.because(
                "latency out of range",
                got=repr(time),
                allowed="exact numbers of milliseconds",
                remedy="take it from a latency table",
                argument="latency_ms",
            )
        whole_number(self.stride, "stride", 1)
        if self.block is None:
            return
        if self.params < self.block.params:
            raise SettingError.because(
                "fewer parameters than the block has",
                got=self.params,
                allowed=f"{self.block.params} or more for {self.block.block}",
                remedy="count all of its layers",
                argument="params",
            )
        self.block.macs_per_pixel(self.stride)  # raises for a stride that no layer holds

    @property
    def removed(self) -> int:
        """The parameters with their sign turned: to minimise it keeps as many as there may be."""
        return -self.params

    @property
    def replaced(self) -> int:
        """The number of layers that it replaces: 1, or 0 where the layer stays."""
        return int(self.block is not None)


@dataclass(frozen=True, slots=True)
class Site:
    """A layer of the network by its name, and what it may become.

    Raises: SettingError without an option, and for options that differ in widths or stride.
    """

    name: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        """Check that all options fit one place."""
        set_fields(self, options=tuple(self.options))
        blocks = [option.block for option in self.options if option.block is not None]
        joins = {(block.channels, block.out_channels) for block in blocks}
        strides = {option.stride for option in self.options if option.block is not None}
        if not self.options or len(joins) > 1 or len(strides) > 1:
            widths = ", ".join(f"{a} to {b} channels" for a, b in sorted(joins))
            raise SettingError.because(
                f"options that cannot stand for {self.name}",
                got=f"blocks from {widths}, stride {', '.join(map(str, sorted(strides)))}"
                if self.options
                else "none",
                allowed="at least one option, all of the same widths and stride",
                remedy="size every block for the layer, or leave the layer out",
                argument="sites",
            )


@dataclass(frozen=True)
class ReplacementProblem:
    """Which layers to replace by which block, within budgets of the sites together.

    `objective` "keep": replace as few layers as the budgets allow, by what has fewest MACs, then
    parameters; "weights": as few, by what has most parameters; the others make that amount least.
    What decides in turn is in `ORDERS`. A budget may be 0 or less, as what the rest of a network
    leaves over may be: then nothing keeps it. Where latency counts, options without one are no
    choice; nor are options above the budget of the peak memory, which is that of the whole network.
    `rest_peak`: the most elements that are live while anything else of the network runs.

    >>> from ifspace.block import Block
    >>> cheap = Option(Block.parse("DW+PW").at(8, 16), 200, 3200)
    >>> site = Site("conv1", (Option(None, 1152, 18432), cheap))
    >>> ReplacementProblem((site,), Budgets(params=500)).least("params")
    200

    Raises: SettingError without sites, for two of one name, for budgets of other amounts, and for
        a site that is left without an option.
    """

    sites: tuple[Site, ...]
    budgets: Budgets = Budgets()  # noqa: RUF009 - a frozen value
    objective: Objective = "keep"
    rest_peak: int = 0

    def __post_init__(self) -> None:
        """Check what every plan needs."""
        set_fields(self, sites=tuple(self.sites))
        choice(self.objective, "objective", ORDERS)
        self.budgets.check(BOUNDED, above=-MAX_BUDGET)
        names = [site.name for site in self.sites]
        if not names or len(set(names)) < len(names):
            twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
            raise SettingError.because(
                "layers that cannot be chosen for",
                got=f"{twice} twice" if names else "none",
                allowed="at least one layer, each once",
                remedy="name layers to replace",
                argument="sites",
            )
        for site in self.sites:
            if not any(map(self._is_timed, site.options)):
                raise SettingError.because(
                    "no latency for any option of a layer",
                    got=site.name,
                    allowed="one measured option at least, where latency counts",
                    remedy="measure the layer as it is, or leave it out",
                    argument="latency",
                )

    @property
    def latency_counts(self) -> bool:
        """Whether latency decides or is bounded."""
        return self.objective == "latency_ms" or self.budgets.latency_ms is not None

    @property
    def counted(self) -> tuple[str, ...]:
        """The amounts that decide or are bounded."""
        removed = ["removed"] if "removed" in ORDERS[self.objective] else []
        latency = ["latency_ms"] if self.latency_counts else []
        return ("replaced", "params", "macs", *removed, *latency)

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """For each site the indices of the options that may be chosen."""
        most = self.budgets.peak_elements
        return tuple(
            tuple(
                index
                for index, option in enumerate(site.options)
                if self._is_timed(option) and (most is None or option.peak <= most)
            )
            for site in self.sites
        )

    def _is_timed(self, option: Option) -> bool:
        return not self.latency_counts or option.latency_ms is not None

    @property
    def left_out(self) -> tuple[str, ...]:
        """The options that are no choice, in words."""
        return tuple(
            f"no latency for {option.block.block if option.block else 'the layer'} at {site.name}"
            for site, choices in zip(self.sites, self.choices, strict=True)
            for index, option in enumerate(site.options)
            if index not in choices and not self._is_timed(option)
        )

    def totals(self, chosen: Sequence[int]) -> dict[str, Amount]:
        """Return all that counts, summed over the sites; `chosen`: an index of each's options.

        Of the peak memory, in bytes, the most.
        """
        options = [site.options[n] for site, n in zip(self.sites, chosen, strict=True)]
        totals = {name: _total(name, options) for name in self.counted}
        if self.budgets.peak_memory is not None or self.objective == PEAK_MEMORY:
            totals[PEAK_MEMORY] = self._bytes(option.peak for option in options)
        return totals

    def _bytes(self, peaks: Iterable[int]) -> int:
        """Return the peak memory in bytes, given the peak of each site."""
        return bytes_of(max(self.rest_peak, *peaks), self.budgets.dtype or DEFAULT_DTYPE)

    def least(self, name: str) -> Amount:
        """Return the least that the sites can have of an amount by itself, in any choice."""
        timed = (tuple(filter(self._is_timed, site.options)) for site in self.sites)
        if name == PEAK_MEMORY:
            return self._bytes(min(option.peak for option in options) for options in timed)
        return _total(name, (min(options, key=attrgetter(name)) for options in timed))


def _total(name: str, options: Iterable[Option]) -> Amount:
    amounts: Iterable[Amount] = map(attrgetter(name), options)
    return sum(amounts, start=0)


@dataclass(frozen=True, slots=True)
class ReplacementPlan:
    """The index of the option chosen for each site, with its costs counted again."""

    problem: ReplacementProblem
    chosen: tuple[int, ...]

    @property
    def options(self) -> tuple[Option, ...]:
        """What each site becomes, in the order of the sites."""
        return tuple(
            site.options[n] for site, n in zip(self.problem.sites, self.chosen, strict=True)
        )

    @property
    def blocks(self) -> dict[str, SizedBlock]:
        """The layers that are replaced, by name, and by which block."""
        pairs = zip(self.problem.sites, self.options, strict=True)
        return {site.name: option.block for site, option in pairs if option.block is not None}

    @property
    def totals(self) -> dict[str, Amount]:
        """Layers replaced, parameters, MACs and, where it counts, latency of the sites together."""
        return self.problem.totals(self.chosen)

    def objective(self) -> Amounts:
        """Return the amounts that decide, in their order."""
        totals = self.totals
        return tuple(totals[name] for name in ORDERS[self.problem.objective])

    def check(self) -> None:
        """Recount choices and budgets without any solver.

        Raises: SettingError naming what does not hold.
        """
        problem = self.problem
        faults = []
        if len(self.chosen) != len(problem.sites):
            faults.append(f"{len(self.chosen)} options for {len(problem.sites)} layers")
        for site, choices, index in zip(problem.sites, problem.choices, self.chosen, strict=False):
            if index not in choices:
                faults.append(f"option {index} of {site.name}")
        faults = faults or problem.budgets.exceeded(self.totals)
        check_faults(faults, "one choice for each layer, within budgets")


def best_replacement(
    problem: ReplacementProblem, time_limit_s: float | None = None
) -> Answer[ReplacementPlan]:
    """Return the best choice of an option for each layer within the budgets, with its proof.

    Of equal layers the first take the options that stand first. `bound` of the answer has the
    amounts that decide, in their order: compared as tuples it is never above the objective of any
    plan. It is the plan's own where that is proven the best. Where the proof takes long, of many
    layers, a plan is taken as soon as an amount is within 0.1% of its bound; the bound then ends
    with the first amount that is not proven, as it does where time ran out.

    >>> from ifspace.block import Block
    >>> kept = Option(None, 1152, 18432)
    >>> cheap = Option(Block.parse("DW+PW").at(8, 16), 200, 3200)
    >>> sites = [Site(name, (kept, cheap)) for name in ("conv1", "conv2", "conv3")]
    >>> answer = best_replacement(ReplacementProblem(tuple(sites), Budgets(params=2600)))
    >>> answer.status.name, answer.bound, sorted(answer.best.blocks)
    ('OPTIMAL', (1, 40064, 2504), ['conv3'])

    Raises: SettingError for sums that do not fit into 64 bits; SolverError when the solver
        contradicts itself.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    if problem.objective == PEAK_MEMORY:
        return _least_peak(problem, deadline)
    minima = {name: problem.least(name) for name in problem.budgets.limits}
    most = problem.budgets.peak_elements
    if not all(problem.choices) or (most is not None and problem.rest_peak > most):
        return Answer(Status.INFEASIBLE, None, (), problem.left_out, minima)
    model = _ReplacementModel(problem)
    bound: list[Amount] = []
    chosen: tuple[int, ...] | None = None
    is_proven = True
    for name in ORDERS[problem.objective]:
        outcome = model.minimise(name, deadline)
        if outcome.status is Status.INFEASIBLE:
            return Answer(outcome.status, None, (), problem.left_out, minima)
        chosen = chosen if outcome.chosen is None else outcome.chosen
        bound += [outcome.bound] if is_proven and outcome.bound is not None else []
        is_proven = is_proven and outcome.status is Status.OPTIMAL
        if not outcome.is_near:
            break
    if chosen is None:
        return Answer(Status.UNKNOWN, None, (), problem.left_out)
    plan = ReplacementPlan(problem, chosen)
    plan.check()
    status = Status.OPTIMAL if is_proven else Status.FEASIBLE
    return Answer(status, tuple(bound) or None, (plan,), problem.left_out)


def _least_peak(problem: ReplacementProblem, deadline: float | None) -> Answer[ReplacementPlan]:
    """Return the best choice of those with the least peak memory that the budgets allow.

    Whether any choice keeps the other budgets within a peak changes once, from no to yes, as the
    peak rises: the least one is found by bisection over the peaks that options have.
    """
    budgets = problem.budgets
    dtype, most = budgets.dtype or DEFAULT_DTYPE, budgets.peak_elements
    peaks = {
        max(option.peak, problem.rest_peak) for site in problem.sites for option in site.options
    }
    candidates = sorted(peak for peak in peaks if most is None or peak <= most)
    low, high, answer = 0, len(candidates), None
    while low < high:
        middle = (low + high) // 2
        peak = max(1, bytes_of(candidates[middle], dtype))
        bounds = Budgets(budgets.params, budgets.macs, None, budgets.latency_ms, peak, dtype)
        within = replace(problem, budgets=bounds, objective="params")
        attempt = best_replacement(within, seconds_left(deadline))
        if attempt.plans:
            answer, high = attempt, middle
        elif attempt.status is Status.INFEASIBLE:
            low = middle + 1
        else:
            break  # time ran out
    if answer is None or answer.best is None:
        minima = {name: problem.least(name) for name in budgets.limits}
        status = Status.INFEASIBLE if low == high else Status.UNKNOWN
        return Answer(status, None, (), problem.left_out, minima if low == high else {})
    plan = ReplacementPlan(problem, answer.best.chosen)
    plan.check()
    least = bytes_of(candidates[low], dtype)
    if low < high:
        return replace(answer, status=Status.FEASIBLE, plans=(plan,), bound=(least,))
    return replace(answer, plans=(plan,), bound=(least, *(answer.bound or ())))


@dataclass(frozen=True)
class _SiteGroup:
    """Sites, by index, whose options cost the same, and the costs of those worth choosing.

    `options` [sites, costs]: the index of the option that has each of the costs.
    """

    sites: tuple[int, ...]
    costs: tuple[Amounts, ...]
    options: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Sum:
    """An amount of all sites, whole and small: base + unit x sum of weights, in 1 / scale."""

    base: int
    unit: int
    scale: int
    weights: tuple[int, ...]

    def at(self, total: int) -> Amount:
        """Return the amount at a value of the sum of weights."""
        exact = Fraction(self.base + self.unit * total, self.scale)
        return int(exact) if self.scale == 1 else exact

    def limit(self, budget: Amount) -> int:
        """Return the greatest sum of weights within a budget."""
        return floor(Fraction(budget * self.scale - self.base) / self.unit)


@dataclass(frozen=True)
class _Minimum:
    """How the search for the least of an amount ended: the option of each site, and the bound.

    `is_near`: whether what was found is the least, or near enough to the bound to go on with.
    """

    status: Status
    chosen: tuple[int, ...] | None = None
    bound: Amount | None = None
    is_near: bool = False


class _ReplacementModel:
    """The CP-SAT model of a problem; each amount that is minimised stays where it is then."""

    def __init__(self, problem: ReplacementProblem) -> None:
        self.problem = problem
        self.model = new_model()
        self.groups = _site_groups(problem)
        self.sums = {name: _sum(self.groups, n) for n, name in enumerate(problem.counted)}
        self.variables: list[Any] = []
        self.values: tuple[int, ...] = ()
        for number, group in enumerate(self.groups):
            count = len(group.sites)
            taken = [
                self.model.new_int_var(0, count, f"{number}: {index}")
                for index in range(len(group.costs))
            ]
            self.model.add(sum(taken) == count)
            self.variables += taken
        # Options above the budget of the peak memory are no choice.
        for name, budget in problem.budgets.sums.limits.items():
            self.model.add(self._expression(name) <= self.sums[name].limit(budget))

    def minimise(self, name: str, deadline: float | None) -> _Minimum:
        """Return how the search for the least of an amount ended."""
        expression = self._expression(name)
        self.model.minimize(expression)
        outcome = self._solved(expression, name, deadline, _EFFORT)
        if outcome.status is not Status.OPTIMAL and not self._is_near(name, outcome):
            outcome = self._solved(expression, name, deadline, None)
        if outcome.status is Status.INFEASIBLE or not outcome.values or outcome.bound is None:
            return _Minimum(outcome.status)
        if outcome.status is Status.OPTIMAL and outcome.bound != self._value(name):
            raise contradiction(
                f"{name} of {self._value(name)} where {outcome.bound} is proven the least",
                "one number for both",
            )
        self.model.add(expression <= self._value(name))
        bound = self.sums[name].at(outcome.bound)
        return _Minimum(outcome.status, self._chosen(), bound, self._is_near(name, outcome))

    def _solved(
        self, expression: Any, name: str, deadline: float | None, effort: float | None
    ) -> Outcome:
        """Solve the model: to the proof with so much work, without a limit until it is near."""
        if self.values:
            # The last choice is not given up for something worse when time runs out.
            self.model.add(expression <= self._value(name))
            self.model.clear_hints()
            for variable, value in zip(self.variables, self.values, strict=True):
                self.model.add_hint(variable, value)
        near = 0 if effort is not None else self._tolerance(name)
        outcome = solve(self.model, self.variables, seconds_left(deadline), effort, near)
        if outcome.status is Status.INFEASIBLE and self.values:
            raise contradiction("no choice at all, after it found one", "the one it found")
        self.values = outcome.values or self.values
        return outcome

    def _tolerance(self, name: str) -> int:
        """Return how far an amount may be from its bound, as the model counts it."""
        amounts = self.sums[name]
        # Without a choice yet: of the least that there is, which no choice is below.
        value = self._value(name) if self.values else 0
        return floor(TOLERANCE * abs(Fraction(amounts.at(value))) * amounts.scale / amounts.unit)

    def _is_near(self, name: str, outcome: Outcome) -> bool:
        if not outcome.values or outcome.bound is None:
            return False
        return self._value(name) - outcome.bound <= self._tolerance(name)

    def _expression(self, name: str) -> Any:
        return weighted_sum(self.variables, self.sums[name].weights)

    def _value(self, name: str) -> int:
        """Return the last choice's value of an amount, as the model counts it."""
        pairs = zip(self.sums[name].weights, self.values, strict=True)
        return sum(weight * value for weight, value in pairs)

    def _chosen(self) -> tuple[int, ...]:
        chosen = [0] * len(self.problem.sites)
        counts = iter(self.values)
        for group in self.groups:
            taken = [n for n in range(len(group.costs)) for _ in range(next(counts))]
            for site, options, cost in zip(group.sites, group.options, taken, strict=True):
                chosen[site] = options[cost]
        return tuple(chosen)


def _site_groups(problem: ReplacementProblem) -> list[_SiteGroup]:
    """Return the sites, those together whose options worth choosing cost the same."""
    amounts = attrgetter(*problem.counted)
    by_costs: dict[tuple[Amounts, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for number, (site, choices) in enumerate(zip(problem.sites, problem.choices, strict=True)):
        costs = {index: amounts(site.options[index]) for index in choices}
        options = tuple(index for index in costs if not _is_dominated(index, costs))
        key = tuple(costs[index] for index in options)
        by_costs.setdefault(key, []).append((number, options))
    return [
        _SiteGroup(tuple(n for n, _ in pairs), costs, tuple(options for _, options in pairs))
        for costs, pairs in by_costs.items()
    ]


def _is_dominated(index: int, costs: Mapping[int, Amounts]) -> bool:
    """Return whether another option costs no more of anything; of equal ones the first stays."""
    own = costs[index]
    return any(
        (cost != own or other < index) and all(a <= b for a, b in zip(cost, own, strict=True))
        for other, cost in costs.items()
        if other != index
    )


def _sum(groups: Sequence[_SiteGroup], column: int) -> _Sum:
    """Return an amount of all sites, less what all choices have, in the largest unit that fits."""
    rows = [[cost[column] for cost in group.costs] for group in groups]
    scale = lcm(*(Fraction(value).denominator for row in rows for value in row))
    whole = [[int(value * scale) for value in row] for row in rows]
    base = sum(len(group.sites) * min(row) for group, row in zip(groups, whole, strict=True))
    more = [value - min(row) for row in whole for value in row]
    unit = gcd(*more) or 1
    return _Sum(base, unit, scale, tuple(value // unit for value in more))
