"""Choose widths, depths and blocks of a network together: one CP-SAT model of tables.

A network is cut into *parts*: a layer that may become one of several blocks, another layer, a norm.
What a part costs depends on the numbers of channels of at most two groups, on which of its choices
is taken, and on whether the unit that it belongs to is there. Numbers of channels are chosen from
few, so all of that is a table, and every amount of the network a sum of entries. A literal for each
number of channels, for each pair of them that a part reads and writes, and for each choice makes
budgets and objectives linear; the linear relaxation knows all but the budgets exactly where widths
hang together like a tree, as those of most networks do.

Without widths and units what is left is `ifspace.stages.replacement`; without choices and units the
problem of `ifspace.stages.widths` on the numbers that are offered.

Beyond the papers: [3DRF] section 4 moves units and replaces layers one after the other.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise, product
from math import ceil, floor, fsum, lcm
from typing import Any, Final

from ifspace.answer import Answer, Status
from ifspace.block import SizedBlock
from ifspace.cpsat import Outcome, new_model, seconds_left, solve, weighted_sum
from ifspace.stages.problem import check_faults
from ifspace.stages.widths import YIELDED, Counts, Form, Width
from ifspace.values import choice

Amount = int | Fraction | float
# What decides, from the first to the last, and whether it is to be the most or the least. `changed`
# counts blocks, other widths and removed units.
ORDERS: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "macs-3/4": (("value", -1),),
    "most-macs": (("macs", -1),),
    "most-params": (("params", -1), ("macs", 1)),
    "keep": (("changed", 1), ("macs", 1), ("params", 1)),
    "weights": (("changed", 1), ("params", -1), ("macs", 1)),
    "params": (("params", 1), ("macs", 1), ("changed", 1)),
    "macs": (("macs", 1), ("params", 1), ("changed", 1)),
    "latency_ms": (("latency_ms", 1), ("params", 1), ("macs", 1), ("changed", 1)),
}
PEAK: Final = "peak_memory"
_SUMS: Final = ("params", "macs", "activations", "latency_ms", "changed", "value")
# The power of a layer's MACs in the sum that the first objective makes greatest.
POWER: Final = 0.75
# The greatest of these powers in whole numbers.
_SCALE: Final = 10**7
# At so many numbers of channels a layer that reads several groups has tangents.
_TANGENTS: Final = 24
# How much work the solver may do for an amount, in its deterministic time, and how near to the
# bound an amount is good enough then.
_EFFORT: Final = 2.0
TOLERANCE: Final = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a part costs where it is as it is (without a block), or a block.

    `value`: the sum of MACs^(3/4) over its layers. `latency_ms` is None where it is not known.
    `peak`: by how many elements more are live while the block runs than while the layer did.
    """

    params: int = 0
    macs: int = 0
    activations: int = 0
    latency_ms: Fraction | None = Fraction(0)
    value: float = 0.0
    block: SizedBlock | None = None
    peak: int = 0

    @property
    def changed(self) -> int:
        """The number of layers that are replaced: 0 or 1."""
        return int(self.block is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of a network: the indices of the widths that it depends on, and a table.

    `table`: for each choice of a number of channels for these widths what the part may be. `unit`:
    the index of the unit without which it is not there. `live`: what is live while it runs.
    """

    name: str
    table: Mapping[Counts, tuple[Choice, ...]]
    widths: tuple[int, ...] = ()
    unit: int | None = None
    live: Form = Form()  # noqa: RUF009 - a frozen value

    @property
    def is_open(self) -> bool:
        """Whether there is more than one choice anywhere."""
        return any(len(choices) != 1 for choices in self.table.values())


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A layer whose MACs depend on more than two widths; `Part`s have its other amounts."""

    macs: Form
    unit: int | None = None


@dataclass(frozen=True, slots=True)
class LiveStep:
    """What is live during a step of the network, in elements, and the unit that it belongs to."""

    elements: Form
    unit: int | None = None


@dataclass(frozen=True, eq=False)
class JointProblem:
    """Which widths, depths and blocks a network has within limits.

    `widths`: the numbers of channels of each group to choose from, with those there are. `stages`:
    of each the indices of the units that may be removed, those that go last first. `ties`: a unit
    and the widths that it reads and writes, which are equal where it is removed; None for channels
    that all stay. `limits`: the
    most of an amount: params, macs, activations, latency_ms, and peak_memory in elements.
    `objective`: a name of `ORDERS`.

    Two layers around a group of channels, of which the second may become a block:

    >>> from ifspace.block import Block
    >>> widths = (Width("a", (8, 16)),)
    >>> first = Part("0", {(8,): (Choice(24, 24),), (16,): (Choice(48, 48),)}, (0,))
    >>> block = Choice(16, 16, block=Block.parse("GPW(2)").at(16))
    >>> second = Part("1", {(8,): (Choice(64, 64),), (16,): (Choice(128, 128), block)}, (0,))
    >>> problem = JointProblem(widths, (first, second), limits={"params": 100}, objective="keep")
    >>> answer = best_joint(problem)
    >>> answer.best.counts, answer.best.chosen, answer.best.totals["params"]
    ((16,), (0, 1), 64)

    Raises: SettingError for an unknown objective.
    """

    widths: tuple[Width, ...]
    parts: tuple[Part, ...]
    stages: tuple[tuple[int, ...], ...] = ()
    curves: tuple[Curve, ...] = ()
    steps: tuple[LiveStep, ...] = ()
    ties: tuple[tuple[int, int, int | None], ...] = ()
    limits: Mapping[str, int | Fraction] = field(default_factory=dict)
    objective: str = "macs-3/4"

    def __post_init__(self) -> None:
        """Check the objective."""
        choice(self.objective, "objective", tuple(ORDERS))

    @property
    def units(self) -> int:
        """The number of units that may be removed."""
        return sum(map(len, self.stages))

    @property
    def is_timed(self) -> bool:
        """Whether latency decides or is bounded."""
        return "latency_ms" in {*self.limits, *(name for name, _ in ORDERS[self.objective])}

    @cached_property
    def tables(self) -> tuple[Mapping[Counts, tuple[int, ...]], ...]:
        """For each part and each number of channels the indices of what may be chosen."""
        return tuple(
            {
                counts: tuple(
                    n
                    for n, option in enumerate(choices)
                    if not self.is_timed or option.latency_ms is not None
                )
                for counts, choices in part.table.items()
            }
            for part in self.parts
        )

    def least(self, name: str) -> Amount:
        """Return an amount that no plan is below: that of the cheapest choice of each part."""
        total: Amount = 0
        for part in self.parts:
            amounts = [getattr(x, name) or 0 for row in part.table.values() for x in row]
            total += min(amounts, default=0) if part.unit is None else 0
        return total

    @property
    def start(self) -> "JointPlan":
        """The network as it is."""
        return JointPlan(
            self,
            tuple(width.present for width in self.widths),
            (True,) * self.units,
            (0,) * len(self.parts),
        )


@dataclass(frozen=True, slots=True, eq=False)
class JointPlan:
    """The number of channels of each width, which units are there, and the choice of each part.

    The choice of a part whose unit is not there is 0.
    """

    problem: JointProblem
    counts: Counts
    present: tuple[bool, ...]
    chosen: tuple[int, ...]

    def is_there(self, unit: int | None) -> bool:
        """Return whether a unit is in the network."""
        return unit is None or self.present[unit]

    @property
    def choices(self) -> tuple[Choice | None, ...]:
        """What each part is, None where its unit is not there."""
        return tuple(
            part.table[tuple(self.counts[n] for n in part.widths)][index]
            if self.is_there(part.unit)
            else None
            for part, index in zip(self.problem.parts, self.chosen, strict=True)
        )

    @property
    def blocks(self) -> dict[str, SizedBlock]:
        """The layers that become blocks, by name."""
        pairs = zip(self.problem.parts, self.choices, strict=True)
        return {part.name: x.block for part, x in pairs if x is not None and x.block is not None}

    @property
    def depths(self) -> tuple[int, ...]:
        """How many of the units that may be removed each stage keeps."""
        return tuple(sum(self.present[n] for n in stage) for stage in self.problem.stages)

    @property
    def totals(self) -> dict[str, Amount]:
        """What the plan costs, counted anew."""
        choices = [x for x in self.choices if x is not None]
        totals: dict[str, Amount] = {
            name: sum(getattr(x, name) for x in choices)
            for name in ("params", "macs", "activations", "changed")
        }
        widths = zip(self.problem.widths, self.counts, strict=True)
        totals["changed"] += sum(count != width.present for width, count in widths)
        totals["changed"] += self.present.count(False)
        totals["value"] = fsum(
            [
                *(x.value for x in choices),
                *(
                    curve.macs.at(self.counts) ** POWER
                    for curve in self.problem.curves
                    if self.is_there(curve.unit)
                ),
            ]
        )
        if all(x.latency_ms is not None for x in choices):
            totals["latency_ms"] = sum((x.latency_ms or 0 for x in choices), Fraction(0))
        if PEAK in self.problem.limits:
            totals[PEAK] = self._peak()
        return totals

    def _peak(self) -> int:
        """Return the most elements that are live at once."""
        steps = [
            step.elements.at(self.counts) for step in self.problem.steps if self.is_there(step.unit)
        ]
        blocks = [
            part.live.at(self.counts) + x.peak
            for part, x in zip(self.problem.parts, self.choices, strict=True)
            if x is not None
        ]
        return int(max([*steps, *blocks], default=0))

    @property
    def is_within(self) -> bool:
        """Whether it keeps the limits."""
        totals = self.totals
        return all(
            name in totals and totals[name] <= limit for name, limit in self.problem.limits.items()
        )

    def objective(self) -> tuple[Amount, ...]:
        """Return the amounts that decide, each so that less is better."""
        totals = self.totals
        return tuple(sign * totals[name] for name, sign in ORDERS[self.problem.objective])

    def check(self) -> None:
        """Recount numbers, choices and limits without any solver. Raises: SettingError."""
        problem = self.problem
        faults = [
            f"{count} channels of {width.name}"
            for width, count in zip(problem.widths, self.counts, strict=True)
            if count not in width.counts
        ]
        for stage in problem.stages:
            if any(self.present[b] and not self.present[a] for a, b in pairwise(stage)):
                faults.append("a unit without the one before it")
        faults += [
            f"{problem.widths[a].name} and what follows a unit that is gone"
            for unit, a, b in problem.ties
            if not self.present[unit]
            and self.counts[a] != (problem.widths[a].present if b is None else self.counts[b])
        ]
        if not faults:
            totals = self.totals
            faults = [
                f"{totals.get(name, 'unknown')} {name}, more than {limit}"
                for name, limit in problem.limits.items()
                if name not in totals or totals[name] > limit
            ]
        check_faults(faults, "widths, depths and blocks that may be chosen, within limits")


def best_joint(
    problem: JointProblem, hint: JointPlan | None = None, time_limit_s: float | None = None
) -> Answer[JointPlan]:
    """Return the best widths, depths and blocks within the limits, with a bound.

    `hint`: a plan within the limits that the search begins from, and never ends below. `bound` of
    the answer has the amounts that decide, each so that less is better: no plan is below it. It
    ends with the first that is not proven: proofs end after some work, as soon as the plan is
    within 0.1% of the bound, or at the time limit.

    Raises: SettingError for sums that do not fit into 64 bits.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    model = _JointModel(problem)
    if not model.is_possible:
        return Answer(Status.INFEASIBLE, None, ())
    best, bound, is_proven = hint, [], True
    for name, sign in ORDERS[problem.objective]:
        outcome = model.minimise(name, sign, best, deadline)
        if outcome.status is Status.INFEASIBLE and best is None:
            return Answer(Status.INFEASIBLE, None, (), least=least_amounts(problem, deadline))
        if outcome.values:
            plan = model.plan(outcome.values)
            # The model counts powers of MACs in whole numbers and by tangents, the plan exactly.
            if best is None or plan.objective() < best.objective():
                best = plan
        if outcome.bound is not None and is_proven:
            bound.append(model.amount(name, outcome.bound))
        is_proven = is_proven and outcome.status is Status.OPTIMAL
        if best is None:
            return Answer(Status.UNKNOWN, None, ())
        model.hold(name, sign, best)
    assert best is not None
    best.check()
    objective = best.objective()
    # A sum of powers in whole numbers, rounded up, is above every plan.
    if ORDERS[problem.objective][0][0] == "value" and bound and objective[0] <= bound[0]:
        bound, is_proven = [objective[0]], True
    status = Status.OPTIMAL if is_proven else Status.FEASIBLE
    return Answer(status, tuple(bound) or None, (best,))


def with_more_params(plan: JointPlan, time_limit_s: float | None = None) -> JointPlan:
    """Return a plan of more parameters, for at most 1/200 of the sum of MACs^(3/4).

    It is within the limits of the plan; the plan itself where the search, which ends after some
    work, finds none.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    value, params = plan.totals["value"], plan.totals["params"]
    model = _JointModel(plan.problem)
    # Tangents are above the powers of MACs by less than a tenth of what may go.
    model.hold_value((1 - 0.9 * float(YIELDED)) * value)
    outcome = model.minimise("params", -1, plan, deadline)
    if not outcome.values:
        return plan
    other = model.plan(outcome.values)
    if other.totals["params"] <= params or other.totals["value"] < float(1 - YIELDED) * value:
        return plan
    other.check()
    return other


def least_amounts(problem: JointProblem, deadline: float | None = None) -> dict[str, Amount]:
    """Return the least of each amount with a limit that any plan has, by itself."""
    least: dict[str, Amount] = {}
    for name in problem.limits:
        if name == PEAK:
            continue
        model = _JointModel(problem, limited=False)
        if model.is_possible:
            outcome = model.minimise(name, 1, None, deadline)
            if outcome.values:
                least[name] = model.plan(outcome.values).totals[name]
    return least


# A literal with the amount that it adds, or the constant amount.
_Terms = list[tuple[Any, Amount]]


class _JointModel:
    """The CP-SAT model of a problem.

    `chosen`: of each part the literals of its choices, by numbers of channels.
    """

    def __init__(self, problem: JointProblem, limited: bool = True) -> None:
        self.problem = problem
        self.model = new_model()
        self.variables: list[Any] = []
        self.is_possible = True
        self.terms: dict[str, _Terms] = {name: [] for name in _SUMS}
        self.constants: dict[str, Amount] = dict.fromkeys(_SUMS, 0)
        self.counts = [
            {count: self._literal(f"{width.name}: {count}") for count in width.counts}
            for width in problem.widths
        ]
        for width, literals in zip(problem.widths, self.counts, strict=True):
            self.model.add_exactly_one(literals.values())
            self.terms["changed"].append((literals[width.present], -1))
            self.constants["changed"] += 1
        self.present = [self._literal(f"unit {n}") for n in range(problem.units)]
        for stage in problem.stages:
            for first, second in pairwise(stage):
                self.model.add_implication(self.present[second], self.present[first])
        for literal in self.present:
            self.terms["changed"].append((literal, -1))
            self.constants["changed"] += 1
        self._pairs: dict[tuple[tuple[int, ...], int | None], dict[Counts, Any]] = {}
        self.chosen = [self._part(number, part) for number, part in enumerate(problem.parts)]
        self._fix_absent()
        self._tie()
        self.scales = {name: self._scale(name) for name in _SUMS}
        self.curves = [self._curve(curve) for curve in problem.curves]
        if limited:
            for name, limit in problem.limits.items():
                if name == PEAK:
                    self._bound_peak(int(limit))
                else:
                    self._bound(name, limit)

    def _literal(self, name: str) -> Any:
        literal = self.model.new_bool_var(name)
        self.variables.append(literal)
        return literal

    # The tables

    def _places(self, widths: tuple[int, ...], unit: int | None) -> dict[Counts, Any]:
        """Return a literal for each choice of numbers of channels, 1 where that is constant."""
        key = widths, unit
        if key in self._pairs:
            return self._pairs[key]
        places: dict[Counts, Any]
        if not widths:
            places = {(): 1 if unit is None else self.present[unit]}
        elif len(widths) == 1 and unit is None:
            places = {(count,): x for count, x in self.counts[widths[0]].items()}
        else:
            whole = [self.problem.widths[n].counts for n in widths]
            places = {counts: self._literal(f"{key}: {counts}") for counts in product(*whole)}
            there = 1 if unit is None else self.present[unit]
            for axis, width in enumerate(widths):
                for count, literal in self.counts[width].items():
                    members = [x for counts, x in places.items() if counts[axis] == count]
                    if unit is None:
                        self.model.add(sum(members) == literal)
                    else:
                        self.model.add(sum(members) <= literal)
            if unit is not None:
                self.model.add(sum(places.values()) == there)
        self._pairs[key] = places
        return places

    def _part(self, number: int, part: Part) -> dict[tuple[Counts, int], Any]:
        """Add a part; return the literal of each of its choices."""
        literals: dict[tuple[Counts, int], Any] = {}
        places = self._places(part.widths, part.unit)
        for counts, place in places.items():
            options = self._worth_choosing(number, part, counts)
            if len(options) == 1:
                literals[counts, options[0]] = place
            elif not options:
                self._forbid(place)
            else:
                own = [self._literal(f"{part.name}: {counts}, {n}") for n in options]
                self.model.add(sum(own) == place)
                literals |= {(counts, n): x for n, x in zip(options, own, strict=True)}
            for n in options:
                self._add(literals[counts, n], part.table[counts][n])
        return literals

    def _forbid(self, place: Any) -> None:
        if isinstance(place, int):
            self.is_possible = False
        else:
            self.model.add(place == 0)

    def _worth_choosing(self, number: int, part: Part, counts: Counts) -> list[int]:
        """Return the choices that no other one is better than in everything that counts."""
        options = self.problem.tables[number][counts]
        if len(options) < 2:
            return list(options)
        names = {*self.problem.limits, *(name for name, _ in ORDERS[self.problem.objective])}
        signs = dict(ORDERS[self.problem.objective])
        rows = {}
        for n in options:
            entry = part.table[counts][n]
            rows[n] = [
                signs.get(name, 1) * getattr(entry, "peak" if name == PEAK else name)
                for name in sorted(names)
            ]
            # An amount that is bounded and is to be the most counts both ways.
            rows[n] += [
                getattr(entry, name)
                for name in sorted(names & self.problem.limits.keys())
                if signs.get(name) == -1
            ]
        return [
            n
            for n in options
            if not any(
                (rows[other] != rows[n] or other < n)
                and all(a <= b for a, b in zip(rows[other], rows[n], strict=True))
                for other in options
                if other != n
            )
        ]

    def _add(self, literal: Any, entry: Choice) -> None:
        for name in _SUMS:
            amount = getattr(entry, name) or 0
            if not amount:
                continue
            if isinstance(literal, int):
                self.constants[name] += amount
            else:
                self.terms[name].append((literal, amount))

    def _fix_absent(self) -> None:
        """Leave the widths that only a removed unit has as they are."""
        users: dict[int, set[int | None]] = {}
        tied = {width for _, *widths in self.problem.ties for width in widths}
        for part in self.problem.parts:
            for width in part.widths:
                users.setdefault(width, set()).add(part.unit)
        for width, units in users.items():
            unit = next(iter(units))
            if len(units) == 1 and unit is not None and width not in tied:
                whole = self.counts[width][self.problem.widths[width].present]
                self.model.add_bool_or([self.present[unit], whole])

    def _tie(self) -> None:
        """Make what a removed unit would read as wide as what it would write."""
        for unit, *pair in self.problem.ties:
            for a, b in (pair, pair[::-1]):
                if a is None:
                    continue
                whole = self.problem.widths[a].present
                other = {whole: 1} if b is None else self.counts[b]
                for count, x in self.counts[a].items():
                    same = other.get(count, 0)
                    self.model.add_bool_or([self.present[unit], x.Not(), same])

    def _form(self, form: Form) -> tuple[_Terms, int]:
        """Return a form as literals with amounts, and its constant."""
        terms: _Terms = []
        for index, factor in form.linear.items():
            terms += [(x, factor * count) for count, x in self.counts[index].items()]
        for (a, b), factor in form.products.items():
            if a == b:
                terms += [(x, factor * count**2) for count, x in self.counts[a].items()]
            else:
                pairs = self._places((a, b), None).items()
                terms += [(x, factor * counts[0] * counts[1]) for counts, x in pairs]
        return terms, form.constant

    def _curve(self, curve: Curve) -> Any:
        """Return a variable below the power of the MACs of a layer, as the model counts it."""
        terms, constant = self._form(curve.macs)
        low, high = self._ends(curve.macs)
        scale = float(self.scales["value"])
        variable = self.model.new_int_var(0, ceil(scale * high**POWER) + 1, "curve")
        self.variables.append(variable)
        shift = 2**10
        for n in range(_TANGENTS + 1):
            place = max(1.0, low + (high - low) * n / _TANGENTS)
            slope = scale * POWER * place ** (POWER - 1)
            at = scale * place**POWER - slope * (place - constant)
            weights = [ceil(slope * amount * shift) for _, amount in terms]
            self.model.add(
                shift * variable
                <= weighted_sum([x for x, _ in terms], weights) + ceil(at * shift) + shift
            )
        if curve.unit is not None:
            self.model.add(variable == 0).only_enforce_if(self.present[curve.unit].Not())
        return variable

    def _ends(self, form: Form) -> tuple[int, int]:
        """Return a form at the narrowest and the widest."""
        widths = self.problem.widths
        return form.at([width.counts[0] for width in widths]), form.at([x.most for x in widths])

    # Amounts and limits

    def _scale(self, name: str) -> Fraction | float:
        """Return what an amount is multiplied with to be a whole number."""
        if name == "value":
            top = max((amount for _, amount in self.terms[name]), default=0.0)
            ends = (self._ends(curve.macs)[1] ** POWER for curve in self.problem.curves)
            return _SCALE / (max([top, *ends]) or 1.0)
        amounts = [*(amount for _, amount in self.terms[name]), self.constants[name]]
        return Fraction(lcm(*(Fraction(amount).denominator for amount in amounts)))

    def _sum(self, name: str) -> tuple[list[Any], list[int]]:
        """Return variables and whole weights of an amount without its constant; powers round up."""
        scale = self.scales[name]
        weights: dict[int, int] = {}
        literals: dict[int, Any] = {}
        for x, amount in self.terms[name]:
            whole = ceil(scale * amount) if name == "value" else int(scale * amount)
            literals[x.index] = x
            weights[x.index] = weights.get(x.index, 0) + whole
        if name == "value":
            for x in self.curves:
                literals[x.index], weights[x.index] = x, 1
        return list(literals.values()), list(weights.values())

    def _bound(self, name: str, limit: Amount) -> None:
        variables, weights = self._sum(name)
        most = floor(Fraction(limit - self.constants[name]) * Fraction(self.scales[name]))
        if not variables:
            self.is_possible = self.is_possible and most >= 0
        elif sum(weight for weight in weights if weight > 0) > most:
            self.model.add(weighted_sum(variables, weights) <= most)

    def _bound_peak(self, most: int) -> None:
        top = [width.most for width in self.problem.widths]
        for step in self.problem.steps:
            if step.elements.at(top) > most:
                self._bound_live(step.elements, [], most, step.unit)
        for part, literals in zip(self.problem.parts, self.chosen, strict=True):
            more: _Terms = [
                (x, part.table[counts][n].peak)
                for (counts, n), x in literals.items()
                if part.table[counts][n].peak and not isinstance(x, int)
            ]
            if more:
                self._bound_live(part.live, more, most, part.unit)

    def _bound_live(self, live: Form, more: _Terms, most: int, unit: int | None) -> None:
        terms, constant = self._form(live)
        terms += more
        if not terms:
            if constant > most:
                self._forbid(1 if unit is None else self.present[unit])
            return
        total = weighted_sum([x for x, _ in terms], [int(amount) for _, amount in terms])
        limit = self.model.add(total <= most - constant)
        if unit is not None:
            limit.only_enforce_if(self.present[unit])

    # The search

    def minimise(
        self, name: str, sign: int, hint: JointPlan | None, deadline: float | None
    ) -> Outcome:
        """Return how the search for the least (or with sign -1 the most) of an amount ended."""
        variables, weights = self._sum(name)
        self.model.minimize(weighted_sum(variables, [sign * weight for weight in weights]))
        self.model.clear_hints()
        for variable, value in self._hints(hint):
            self.model.add_hint(variable, value)
        near = 0
        if hint is not None and name in hint.totals:
            total = abs(float(hint.totals[name]))
            near = floor(float(TOLERANCE) * total * float(self.scales[name]))
        outcome = solve(self.model, self.variables, seconds_left(deadline), _EFFORT)
        if outcome.status is Status.UNKNOWN:
            outcome = solve(self.model, self.variables, seconds_left(deadline), None, max(near, 1))
        bound = None if outcome.bound is None else sign * outcome.bound
        return Outcome(outcome.status, bound, outcome.values)

    def amount(self, name: str, total: int) -> Amount:
        """Return an amount, so that less is better, of a bound of the model."""
        sign = dict(ORDERS[self.problem.objective]).get(name, 1)
        if name == "value":
            return sign * (total / float(self.scales[name]) + float(self.constants[name]))
        exact = Fraction(total) / Fraction(self.scales[name]) + Fraction(self.constants[name])
        return sign * (int(exact) if exact.denominator == 1 else exact)

    def hold(self, name: str, sign: int, plan: JointPlan) -> None:
        """Keep an amount as good as in a plan."""
        if name == "value":
            return
        variables, weights = self._sum(name)
        total = (Fraction(plan.totals[name]) - Fraction(self.constants[name])) * Fraction(
            self.scales[name]
        )
        if variables:
            self.model.add(
                weighted_sum(variables, [sign * weight for weight in weights]) <= int(sign * total)
            )

    def hold_value(self, least: float) -> None:
        """Keep the sum of powers of MACs from a value on."""
        variables, weights = self._sum("value")
        total = (least - float(self.constants["value"])) * float(self.scales["value"])
        if variables:
            self.model.add(weighted_sum(variables, weights) >= ceil(total))

    def _hints(self, plan: JointPlan | None) -> Iterator[tuple[Any, int]]:
        """Yield the variables with their values in a plan."""
        if plan is None:
            return
        for literals, count in zip(self.counts, plan.counts, strict=True):
            yield from ((x, int(number == count)) for number, x in literals.items())
        yield from zip(self.present, map(int, plan.present), strict=True)
        hinted: set[int] = set()
        for (widths, unit), places in self._pairs.items():
            own_counts = tuple(plan.counts[n] for n in widths)
            if len(widths) > 1 or (widths and unit is not None):
                for counts, x in places.items():
                    hinted.add(x.index)
                    yield x, int(counts == own_counts and plan.is_there(unit))
        taken = {x.index for x in (*self.present, *(x for y in self.counts for x in y.values()))}
        for part, choices, index in zip(self.problem.parts, self.chosen, plan.chosen, strict=True):
            own = tuple(plan.counts[n] for n in part.widths), index
            for key, x in choices.items():
                if not isinstance(x, int) and x.index not in hinted | taken:
                    yield x, int(key == own and plan.is_there(part.unit))

    def plan(self, values: Sequence[int]) -> JointPlan:
        """Return the plan of a solution."""
        value_of = {x.index: value for x, value in zip(self.variables, values, strict=True)}
        counts = tuple(
            next(count for count, x in literals.items() if value_of[x.index])
            for literals in self.counts
        )
        present = tuple(bool(value_of[x.index]) for x in self.present)
        chosen = []
        for part, literals in zip(self.problem.parts, self.chosen, strict=True):
            there = part.unit is None or present[part.unit]
            own = tuple(counts[n] for n in part.widths)
            options = [
                n
                for (where, n), x in literals.items()
                if where == own and (isinstance(x, int) or value_of[x.index])
            ]
            chosen.append(options[0] if there else 0)
        return JointPlan(self.problem, counts, present, tuple(chosen))
