"""Choose the widths of a network: one CP-SAT model over all groups of channels.

A *width* is how many classes of exchangeable channels are kept. What a layer costs is a product of
the widths that it reads and writes, so every amount of the network is a quadratic form of the
widths, and one variable for each product makes all budgets linear. The objective is a sum of
concave functions of the MACs of layers, each bounded by its tangents; it is counted again exactly
for the plan, and the tangents, which are never below it, give the bound.

Where all widths are narrowed alike an amount without a budget falls too. The answer has at most
nine tenths of that: layers of uneven widths use a machine less well than their MACs say, and a
budget on parameters alone is not to be met by what takes longer. The MACs often bind first, where
early layers keep more than their share; so of the plans within 1/200 of the best sum of MACs^(3/4)
the one is taken that uses most parameters of the budget, as far as exchanges find it.

Reference: MATH of ifspace, section 5, for the objectives.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import ceil, floor, fsum, gcd
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ifspace.answer import Answer, Status
from ifspace.cpsat import new_model, number_among, seconds_left, solve
from ifspace.errors import SettingError
from ifspace.memory import DEFAULT_DTYPE, bytes_of
from ifspace.stages.problem import Budgets, check_faults
from ifspace.values import choice, set_fields

Counts = tuple[int, ...]
Number = TypeVar("Number", int, float)
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# The index of a width, and the number that it changes to.
Move = tuple[int, int]
PEAK_MEMORY: Final = "peak_memory"
# The power of a layer's MACs that counts in each objective, or of all parameters: at most 1, so
# that it is concave.
OBJECTIVES: Final[Mapping[str, float]] = {"macs-3/4": 0.75, "most-macs": 1.0, "most-params": 1.0}
BOUNDED: Final = ("params", "macs", PEAK_MEMORY)
# What is never above that of all widths narrowed alike.
_FOLLOWING: Final = ("params", "macs", "activations")
# What does not grow without a budget of its own.
_KEPT: Final = ("params", "macs")
# Tangents of a layer's objective: at all of its values up to so many, else at so many of them.
_TANGENTS: Final = 24
# Of the best sum of MACs^(3/4) so much may go for more parameters.
YIELDED: Final = Fraction(1, 200)
# How much of an amount without a budget a plan may have, of what narrowing alike leaves.
MARGIN: Final = Fraction(9, 10)
# The objective in whole numbers: its greatest value is about this.
_SCALE: Final = 10**7
# Of the changes that promise most, so many are counted exactly.
_TRIED: Final = 24
# How much work the solver may do: it does not prove the best widths of deep networks, and seldom
# betters its first answers.
_EFFORT: Final = 0.5
# Of widths narrowed alike so many ratios are tried.
_RATIOS: Final = 256


@dataclass(frozen=True, slots=True)
class Width:
    """A width by its name, and which numbers of its classes may be chosen.

    `channels`: how many channels a class has. `present`: the number of classes that there are, the
    last of `counts` if 0: greater numbers widen the network.

    >>> Width("conv1", (8, 16)).present, Width("conv1", (8, 16, 24), present=16).most
    (16, 24)
    """

    name: str
    counts: Counts
    channels: int = 1
    present: int = 0

    def __post_init__(self) -> None:
        set_fields(self, counts=tuple(self.counts))
        rising = all(a < b for a, b in pairwise(self.counts))
        if not self.counts or self.counts[0] < 1 or not rising:
            raise SettingError.because(
                f"numbers of channels that cannot be chosen from for {self.name}",
                got=", ".join(map(str, self.counts)) or "none",
                allowed="rising whole numbers from 1 on",
                remedy="name at least the number there is",
                argument="counts",
            )
        set_fields(self, present=self.present or self.counts[-1])

    @property
    def most(self) -> int:
        """The greatest number."""
        return self.counts[-1]

    def nearest(self, share: Fraction) -> int:
        """Return the number nearest to a share of those that there are, of two the smaller."""
        place = bisect_left(self.counts, self.present * share)
        around = self.counts[max(0, place - 1) : place + 1]
        return min(around, key=lambda count: abs(count - self.present * share))

    def at_most(self, share: Fraction) -> float:
        """Return a share of the classes that there are, but no more than the greatest number."""
        return min(float(self.present * share), self.most)


def shares_alike(widths: Iterable[Width], steps: int) -> tuple[Fraction, ...]:
    """Return shares to change all widths by alike, from the greatest, in steps of 1 / `steps`.

    >>> [str(share) for share in shares_alike([Width("a", (8, 16, 24), present=16)], 2)]
    ['3/2', '1', '1/2', '0']
    """
    greatest = max((Fraction(width.most, width.present) for width in widths), default=Fraction(1))
    return tuple(Fraction(part, steps) for part in range(floor(greatest * steps), -1, -1))


@dataclass(frozen=True, slots=True)
class Form:
    """An amount as a quadratic form of widths: nothing of it is negative.

    `linear`: for each index of a width what one class adds; `products`: for each pair of indices,
    in rising order, what each pair of classes adds.

    >>> Form(5, {0: 2}, {(0, 1): 3}).at((8, 4))
    117
    """

    constant: int = 0
    linear: Mapping[int, int] = field(default_factory=dict)
    products: Mapping[tuple[int, int], int] = field(default_factory=dict)

    def at(self, counts: Sequence[Number] | Mapping[int, Number]) -> Number | int:
        """Return the amount at some widths, those that it depends on at least."""
        return (
            self.constant
            + sum(factor * counts[index] for index, factor in self.linear.items())
            + sum(factor * counts[a] * counts[b] for (a, b), factor in self.products.items())
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """The indices of the widths that it depends on."""
        return tuple(sorted({*self.linear, *(index for pair in self.products for index in pair)}))

    def times(self, other: "Form") -> "Form":
        """Return the product with another one; one of them is a constant, or both are linear.

        >>> Form(1, {0: 1}).times(Form(0, {0: 2}))
        Form(constant=0, linear={0: 2}, products={(0, 0): 2})
        """
        linear: dict[int, int] = {}
        products: dict[tuple[int, int], int] = {}
        for a, b in ((self, other), (other, self)):
            for index, factor in a.linear.items():
                if b.constant:
                    linear[index] = linear.get(index, 0) + factor * b.constant
            for pair, factor in a.products.items():
                products[pair] = products.get(pair, 0) + factor * b.constant
        for first, one in self.linear.items():
            for second, factor in other.linear.items():
                pair = min(first, second), max(first, second)
                products[pair] = products.get(pair, 0) + one * factor
        return Form(self.constant * other.constant, linear, products)

    def scaled(self, factor: int) -> "Form":
        """Return a multiple."""
        return Form(
            factor * self.constant,
            {index: factor * own for index, own in self.linear.items()},
            {pair: factor * own for pair, own in self.products.items()},
        )

    @classmethod
    def sum(cls, forms: Iterable["Form"]) -> "Form":
        """Return the sum of forms."""
        constant = 0
        linear: dict[int, int] = {}
        products: dict[tuple[int, int], int] = {}
        for form in forms:
            constant += form.constant
            for index, factor in form.linear.items():
                linear[index] = linear.get(index, 0) + factor
            for pair, factor in form.products.items():
                products[pair] = products.get(pair, 0) + factor
        return cls(constant, linear, products)


@dataclass(frozen=True)
class WidthsProblem:
    """Which widths a network has within budgets.

    `layers`: the MACs of each layer. `params` and `activations`, the elements that layers write,
    are those of the network; `live`: the elements that are live at each step while it runs.
    `objective`, a name of `OBJECTIVES`: the sum over all layers of a function of their MACs, or
    with "most-params" the parameters.

    >>> conv = Form(0, {}, {(0, 1): 9})
    >>> widths = Width("a", (8, 16, 24)), Width("b", (8, 16, 24))
    >>> problem = WidthsProblem(widths, (conv.scaled(64),), conv, Form(), budgets=Budgets(3500))
    >>> problem.start, problem.alike["params"]
    ((16, 16), 3488)

    Raises: SettingError for an unknown objective, and budgets of other amounts.
    """

    widths: tuple[Width, ...]
    layers: tuple[Form, ...]
    params: Form
    activations: Form = Form()
    live: tuple[Form, ...] = ()
    budgets: Budgets = Budgets()  # noqa: RUF009
    objective: str = "macs-3/4"

    def __post_init__(self) -> None:
        """Check the objective and the budgets."""
        choice(self.objective, "objective", tuple(OBJECTIVES))
        self.budgets.check(BOUNDED)

    @cached_property
    def macs(self) -> Form:
        """The MACs of all layers."""
        return Form.sum(self.layers)

    @property
    def summands(self) -> tuple[Form, ...]:
        """The amounts whose powers the objective sums."""
        return self.summands_of(self.objective)

    def summands_of(self, objective: str) -> tuple[Form, ...]:
        """Return the amounts whose powers an objective sums."""
        return (self.params,) if objective == "most-params" else self.layers

    @property
    def most(self) -> Counts:
        """The greatest widths."""
        return tuple(width.most for width in self.widths)

    @property
    def present(self) -> Counts:
        """The widths that there are."""
        return tuple(width.present for width in self.widths)

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The shares of all widths alike that are compared, from the greatest down to 0."""
        return shares_alike(self.widths, _RATIOS)

    @property
    def least(self) -> Counts:
        """The narrowest widths."""
        return tuple(width.counts[0] for width in self.widths)

    def amounts(self, counts: Sequence[float]) -> dict[str, int]:
        """Return what widths cost: parameters, MACs, activations, and where bounded peak memory."""
        amounts = {
            "params": floor(self.params.at(counts)),
            "macs": floor(self.macs.at(counts)),
            "activations": floor(self.activations.at(counts)),
        }
        if self.budgets.peak_memory is not None:
            peak = floor(max((form.at(counts) for form in self.live), default=0))
            amounts["peak_memory"] = bytes_of(peak, self.budgets.dtype or DEFAULT_DTYPE)
        return amounts

    def value(self, counts: Sequence[int], objective: str = "") -> float:
        """Return an objective at some widths, that of the problem if none is given."""
        name = objective or self.objective
        return fsum(form.at(counts) ** OBJECTIVES[name] for form in self.summands_of(name))

    @cached_property
    def alike(self) -> dict[str, int]:
        """What the network costs with all widths narrowed alike, by a ratio of any value.

        Or widened, up to the greatest of each. The ratio is the greatest that keeps the budgets;
        widths need not be whole numbers then.
        """
        for share in self.shares[:-1]:
            amounts = self.amounts([width.at_most(share) for width in self.widths])
            if not self.budgets.exceeded(amounts):
                return amounts
        return self.amounts(self.least)

    @cached_property
    def limits(self) -> dict[str, int]:
        """The most that a plan may have: the budgets; of others 9/10 of what narrowing alike has.

        Of all of that where the network keeps the budgets as it is. But never less than the
        narrowest widths have; parameters and MACs never more than before.
        """
        least, before = self.amounts(self.least), self.amounts(self.present)
        margin = MARGIN if self.budgets.exceeded(before) else 1
        limits = {name: max(floor(margin * self.alike[name]), least[name]) for name in _FOLLOWING}
        limits |= {name: min(limits[name], before[name]) for name in _KEPT}
        return limits | {name: floor(limit) for name, limit in self.budgets.limits.items()}

    @cached_property
    def start(self) -> Counts | None:
        """All widths narrowed alike to numbers that may be chosen; None if nothing keeps limits."""
        for share in self.shares:
            counts = tuple(width.nearest(share) for width in self.widths)
            amounts = self.amounts(counts)
            if all(amounts[name] <= limit for name, limit in self.limits.items()):
                return counts
        return None


@dataclass(frozen=True, slots=True)
class WidthPlan:
    """How many classes each width keeps, with its costs counted again."""

    problem: WidthsProblem
    counts: Counts

    @property
    def amounts(self) -> dict[str, int]:
        """Parameters, MACs, activations and, where it is bounded, the peak memory in bytes."""
        return self.problem.amounts(self.counts)

    def objective(self) -> float:
        """Return the objective, counted exactly."""
        return self.problem.value(self.counts)

    def check(self) -> None:
        """Recount widths and limits without any solver. Raises: SettingError."""
        problem = self.problem
        faults = [
            f"{count} channels of {width.name}"
            for width, count in zip(problem.widths, self.counts, strict=True)
            if count not in width.counts
        ]
        amounts = self.amounts
        faults += [
            f"{amounts[name]} {name}, more than {limit}"
            for name, limit in problem.limits.items()
            if amounts[name] > limit
        ]
        check_faults(faults, "widths that may be chosen, within limits")


def best_widths(
    problem: WidthsProblem, time_limit_s: float | None = None, *, with_bound: bool = True
) -> Answer[WidthPlan]:
    """Return the widths of the greatest objective within the limits, with a bound on it.

    By "macs-3/4" those of the most parameters that were found within 1/200 of the greatest sum. The
    search starts from all widths narrowed alike. `bound` of the answer is above the objective
    of every plan, None where nothing is proven. The search ends after some work, the same on every
    machine, unless the time limit in seconds comes first; without a bound after exchanges alone.

    >>> conv = Form(0, {}, {(0, 1): 9})
    >>> widths = Width("a", (8, 16, 24)), Width("b", (8, 16, 24))
    >>> problem = WidthsProblem(widths, (conv.scaled(64),), conv, Form(), budgets=Budgets(3500))
    >>> answer = best_widths(problem)
    >>> answer.status.name, answer.best.amounts["params"]
    ('OPTIMAL', 2304)

    Raises: SettingError for sums that do not fit into 64 bits.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    if problem.start is None:
        least = problem.amounts(problem.least)
        minima = {name: least[name] for name in problem.budgets.limits}
        return Answer(Status.INFEASIBLE, None, (), least=minima)
    start = _Exchange(problem, problem.start).run(deadline)
    if not with_bound:
        return Answer(Status.FEASIBLE, None, (_with_more_params(problem, start, deadline),))
    model = _WidthsModel(problem)
    counts, status, bound = model.best(start, seconds_left(deadline))
    best = max((start, counts), key=problem.value)
    if bound is not None and problem.value(best) >= bound:
        status, bound = Status.OPTIMAL, problem.value(best)
    plan = _with_more_params(problem, best, deadline)
    plan.check()
    return Answer(status if plan.counts == best else Status.FEASIBLE, bound, (plan,))


def _with_more_params(problem: WidthsProblem, best: Counts, deadline: float | None) -> WidthPlan:
    """Return the plan of the best widths, by macs-3/4 of more parameters for little less of it."""
    if problem.objective == "macs-3/4":
        least = float(1 - YIELDED) * problem.value(best)
        best = _Exchange(problem, best, "most-params", least).run(deadline)
    return WidthPlan(problem, best)


class _Matrix:
    """A form as a vector and a symmetric matrix, for the changes of many widths at once."""

    def __init__(self, form: Form, count: int) -> None:
        self.linear = np.zeros(count)
        self.products = np.zeros((count, count))
        for index, factor in form.linear.items():
            self.linear[index] = factor
        for (a, b), factor in form.products.items():
            self.products[a, b] += factor
            self.products[b, a] += factor

    def changes(self, counts: Floats, indices: Ints, deltas: Floats) -> Floats:
        """Return what each change of one width adds."""
        slopes = self.linear + self.products @ counts
        own = self.products[indices, indices]
        result: Floats = deltas * slopes[indices] + 0.5 * deltas**2 * own
        return result


class _Sum:
    """An objective, for what changes of a few widths add to it."""

    def __init__(self, problem: WidthsProblem, objective: str) -> None:
        self.problem, self.objective = problem, objective
        self.forms_of: list[list[Form]] = [[] for _ in problem.widths]
        for form in problem.summands_of(objective):
            for index in form.widths:
                self.forms_of[index].append(form)

    def at(self, counts: Sequence[int]) -> float:
        """Return it at some widths."""
        return self.problem.value(counts, self.objective)

    def gain(self, counts: Sequence[int], change: Mapping[int, int]) -> float:
        """Return what a change adds, exactly."""
        changed, power = _changed(counts, change), OBJECTIVES[self.objective]
        forms = {id(form): form for index in change for form in self.forms_of[index]}
        return fsum(form.at(changed) ** power - form.at(counts) ** power for form in forms.values())

    def gains(self, counts: Sequence[int], moves: Sequence[Move]) -> Floats:
        """Return what each change of one width adds."""
        return np.array([self.gain(counts, dict([move])) for move in moves])


def _changed(counts: Sequence[int], change: Mapping[int, int]) -> list[int]:
    changed = list(counts)
    for index, count in change.items():
        changed[index] = count
    return changed


class _Exchange:
    """Betters widths by exchange: one grows by a step or two, and where needed another one shrinks.

    What a pair of changes costs is exact; which pair comes first is decided by what each of both
    gains alone, and then checked. `goal`: the objective that grows, that of the problem if not
    given; then the problem's own stays at `least` or above.
    """

    def __init__(
        self, problem: WidthsProblem, counts: Counts, goal: str = "", least: float = 0.0
    ) -> None:
        self.problem, self.counts = problem, list(counts)
        names = [name for name in problem.limits if name != PEAK_MEMORY]
        self.limits = [problem.limits[name] for name in names]
        self.forms: list[Form] = [getattr(problem, name) for name in names]
        self.matrices = [_Matrix(form, len(counts)) for form in self.forms]
        self.goal = _Sum(problem, goal or problem.objective)
        self.kept = _Sum(problem, problem.objective) if goal else None
        self.least = least

    def run(self, deadline: float | None) -> Counts:
        """Return widths that no such change betters, or those at the deadline."""
        while (deadline is None or time.monotonic() < deadline) and self._step():
            pass
        return tuple(self.counts)

    def _step(self) -> bool:
        """Take the best change; return whether there was one."""
        grown, shrunk = self._moves(+1), self._moves(-1)
        if not grown:
            return False
        gained = self._sums(self.goal, grown, shrunk)
        gained[~self._within(grown, shrunk)] = -np.inf
        least = 1e-9 * self.goal.at(self.counts)
        best, better = least, None
        for place in np.argsort(-gained, axis=None)[:_TRIED]:
            up, down = divmod(int(place), 1 + len(shrunk))
            if gained[up, down] <= least:
                break
            change = dict([grown[up], *([shrunk[down - 1]] if down else [])])
            gain = self.goal.gain(self.counts, change)
            if gain > best and self._keeps_peak(change) and self._keeps_objective(change):
                best, better = gain, change
        self.counts = _changed(self.counts, better or {})
        return better is not None

    def _sums(self, goal: _Sum, grown: Sequence[Move], shrunk: Sequence[Move]) -> Floats:
        """Return what the two changes of each pair add alone: [grown, 1 + shrunk]."""
        gains, losses = goal.gains(self.counts, grown), goal.gains(self.counts, shrunk)
        pairs: Floats = np.add.outer(gains, np.array([0.0, *losses]))
        return pairs

    def _moves(self, direction: int) -> list[tuple[int, int]]:
        """Return the changes of one width by one or two steps: its index, and its new number."""
        moves = []
        for index, width in enumerate(self.problem.widths):
            place = width.counts.index(self.counts[index])
            for step in (1, 2):
                if 0 <= place + direction * step < len(width.counts):
                    moves.append((index, width.counts[place + direction * step]))
        return moves

    def _within(self, grown: Sequence[Move], shrunk: Sequence[Move]) -> npt.NDArray[np.bool_]:
        """Return which changes stay within the limits: [grown, 1 + shrunk], the first alone."""
        counts = np.array(self.counts, float)
        (ups, more), (downs, fewer) = self._arrays(grown), self._arrays(shrunk)
        within = np.ones((len(grown), 1 + len(shrunk)), bool)
        within[:, 1:] = ups[:, None] != downs[None, :]
        for form, matrix, limit in zip(self.forms, self.matrices, self.limits, strict=True):
            room = limit - form.at(self.counts)
            up, down = matrix.changes(counts, ups, more), matrix.changes(counts, downs, fewer)
            both = np.outer(more, fewer) * matrix.products[np.ix_(ups, downs)]
            within[:, 0] &= up <= room
            within[:, 1:] &= up[:, None] + down[None, :] + both <= room
        if self.kept is not None:
            spare = self.least - self.kept.at(self.counts)
            within &= self._sums(self.kept, grown, shrunk) >= spare
        return within

    def _arrays(self, moves: Sequence[Move]) -> tuple[Ints, Floats]:
        indices = np.array([index for index, _ in moves], dtype=np.int64)
        deltas = [count - self.counts[index] for index, count in moves]
        return indices, np.array(deltas, dtype=float)

    def _keeps_peak(self, change: Mapping[int, int]) -> bool:
        most = self.problem.budgets.peak_elements
        changed = _changed(self.counts, change)
        return most is None or all(form.at(changed) <= most for form in self.problem.live)

    def _keeps_objective(self, change: Mapping[int, int]) -> bool:
        changed = _changed(self.counts, change)
        return self.kept is None or self.kept.at(changed) >= self.least


class _WidthsModel:
    """The CP-SAT model of a problem."""

    def __init__(self, problem: WidthsProblem) -> None:
        self.problem = problem
        self.model = new_model()
        # A width counts in its greatest common step, which keeps products small.
        self.units = [gcd(*width.counts) for width in problem.widths]
        self.variables = [
            number_among(self.model, [count // unit for count in width.counts], width.name)
            for width, unit in zip(problem.widths, self.units, strict=True)
        ]
        self.products: dict[tuple[int, int], Any] = {}
        for name, limit in problem.limits.items():
            if name == PEAK_MEMORY:
                most = problem.budgets.peak_elements
                for form in problem.live:
                    self._bound(form, most)
            else:
                self._bound(getattr(problem, name), limit)

    def _bound(self, form: Form, limit: int | None) -> None:
        """Bound an amount, in the largest unit that divides all of its factors."""
        factors, variables = self._terms(form)
        unit = gcd(*factors) or 1
        most = self.problem.most
        if limit is None or form.at(most) <= limit:
            return
        terms = [factor // unit * x for factor, x in zip(factors, variables, strict=True)]
        self.model.add(sum(terms) <= (limit - form.constant) // unit)

    def _terms(self, form: Form) -> tuple[list[int], list[Any]]:
        """Return factors and variables of a form."""
        factors = [factor * self.units[index] for index, factor in form.linear.items()]
        variables = [self.variables[index] for index in form.linear]
        for (a, b), factor in form.products.items():
            factors.append(factor * self.units[a] * self.units[b])
            variables.append(self._product(a, b))
        return factors, variables

    def _product(self, a: int, b: int) -> Any:
        """Return the variable of the product of two widths."""
        if (a, b) not in self.products:
            widths = self.problem.widths
            low, high = (
                (widths[a].counts[end] // self.units[a]) * (widths[b].counts[end] // self.units[b])
                for end in (0, -1)
            )
            product = self.model.new_int_var(low, high, f"{a} x {b}")
            self.model.add_multiplication_equality(product, self.variables[a], self.variables[b])
            self.products[a, b] = product
        return self.products[a, b]

    def best(self, start: Counts, limit_s: float | None) -> tuple[Counts, Status, float | None]:
        """Return the best widths, how the search ended, and a bound on the exact objective."""
        problem = self.problem
        power = OBJECTIVES[problem.objective]
        top = problem.value(problem.most)
        scale = _SCALE / top if top else 1.0
        total, constant = [], 0.0
        for layer in problem.summands:
            if not layer.linear and not layer.products:
                constant += layer.at(problem.least) ** power
                continue
            factors, variables = self._terms(layer)
            unit = gcd(*factors) or 1
            low, high = (layer.at(ends) for ends in (problem.least, problem.most))
            variable = self.model.new_int_var(
                floor(scale * low**power), ceil(scale * high**power) + 1, "objective"
            )
            macs = sum(factor // unit * x for factor, x in zip(factors, variables, strict=True))
            steps = (high - low) // unit
            points = min(steps, _TANGENTS)
            places = {low + unit * (steps * n // max(points, 1)) for n in range(points + 1)}
            for place in places:
                self._add_tangent(variable, macs, unit, layer.constant, place, scale)
            total.append(variable)
            self.model.add_hint(variable, floor(scale * layer.at(start) ** power))
        objective = sum(total) if total else 0
        self.model.maximize(objective)
        for variable, count, unit in zip(self.variables, start, self.units, strict=True):
            self.model.add_hint(variable, count // unit)
        for (a, b), product in self.products.items():
            self.model.add_hint(product, (start[a] // self.units[a]) * (start[b] // self.units[b]))
        outcome = solve(self.model, self.variables, limit_s, _EFFORT)
        if not outcome.values:
            return start, Status.FEASIBLE, None
        counts = tuple(v * unit for v, unit in zip(outcome.values, self.units, strict=True))
        bound = None if outcome.bound is None else outcome.bound / scale + constant
        return counts, outcome.status, bound

    def _add_tangent(
        self,
        variable: Any,
        macs: Any,
        unit: int,
        constant: int,
        place: int,
        scale: float,
    ) -> None:
        """Bound a layer's objective by the tangent at some MACs, in whole numbers from above."""
        power = OBJECTIVES[self.problem.objective]
        slope = scale * power * place ** (power - 1)
        at = scale * place**power - slope * (place - constant)
        # In 1 / 2^16, so that rounding up does not lift the tangent by a step of the objective.
        shift = 2**16
        self.model.add(
            shift * variable <= ceil(slope * unit * shift) * macs + ceil(at * shift) + shift
        )
