"""The best few choices of a CP-SAT model, one after the other, each proven.

The next best choice is the best of those that are left, so it cannot be searched for before the
last one is known. But what is left falls into parts that can be searched side by side: when a
choice is taken from a part, its i-th new part has the choices that are equal to it before the i-th
stage and differ in that one. The best of each part is found once, by a worker or here, and holds
until it is taken; each part is smaller than the one it comes from. The same searches are made for
any number of workers, so the answers are the same.

Reference: K. G. Murty, "An algorithm for ranking all the assignments in order of increasing cost",
Operations Research 16 (1968); E. L. Lawler, "A procedure for computing the K best solutions to
discrete optimization problems", Management Science 18 (1972).
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from math import floor
from typing import Any, Final

from ifspace.answer import Status
from ifspace.cpsat import (
    Outcome,
    contradiction,
    model_of_text,
    model_text,
    new_model,
    seconds_left,
    solve,
    weighted_sum,
)
from ifspace.parallel import over_shards, workers_or_one

# Amounts that are maximised are counted in units of 1 / RESOLUTION.
RESOLUTION: Final = 10**9
_PROVEN: Final = (Status.OPTIMAL, Status.INFEASIBLE)


class ChoiceModel(ABC):
    """A CP-SAT model with one choice for each stage.

    `taken`: for each stage the literal of every choice. `total`: the amount that is maximised, in
    1 / `unit`. `slack`: by how many units equal totals may come out apart, since each table is
    rounded by itself. `solved`: how the search for the greatest total ended, where it was made.
    """

    def __init__(self) -> None:
        """Begin without stages; a subclass adds them, then bounds amounts."""
        self.model = new_model()
        self.taken: list[dict[Any, Any]] = []
        self.total: Any = 0
        self.unit = RESOLUTION
        self.solved: Outcome | None = None

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

    def greatest(self, deadline: float | None) -> Outcome:
        """Return how the search for the greatest total ended; it is made once."""
        if self.solved is None:
            self.model.minimize(-self.total)
            self.solved = solve(self.model, self.literals, seconds_left(deadline))
        return self.solved

    def proven(self, deadline: float | None) -> list[Any] | None:
        """Return a choice with the greatest total, None where none is proven."""
        outcome = self.greatest(deadline)
        return self.chosen(outcome.values) if outcome.status is Status.OPTIMAL else None

    @property
    def decisions(self) -> Sequence[Mapping[Any, Any]]:
        """The literals of everything that is chosen, of each decision one."""
        return self.taken

    @property
    def stages(self) -> Sequence[Sequence[int]]:
        """The indices of the decisions of each stage."""
        return [[index] for index in range(len(self.taken))]

    @property
    def literals(self) -> list[Any]:
        """The literals of all decisions, in their order."""
        return [literal for literals in self.decisions for literal in literals.values()]

    def chosen(self, values: Sequence[int]) -> list[Any]:
        """Return the key of each decision, given the values of all literals."""
        keys = (key for literals in self.decisions for key in literals)
        return [key for key, value in zip(keys, values, strict=True) if value]

    def apart(self, chosen: Sequence[Any]) -> list[tuple[Any, int]]:
        """Return by how many layers choices differ from one: literals, and how many each adds."""
        return []

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


# Of a stage, or of several: the literals that are true, as numbers of variables of the model.
_Literals = tuple[int, ...]


@dataclass(eq=False, slots=True)
class _Part:
    """The choices that have the literals `fixed`, those of the stages before `begin`, in common.

    They have none of `excluded`, each of which is of the stages from there on, whole. `outcomes`:
    of the searches that were made, by what was searched for.
    """

    begin: int
    fixed: _Literals
    excluded: tuple[_Literals, ...]
    outcomes: dict[tuple[int, ...], Outcome] = field(default_factory=dict)

    def without(self, stages: Sequence[_Literals]) -> "list[_Part]":
        """Return the parts that this one falls into without the choice of these literals."""
        return [
            _Part(
                index,
                tuple(chain.from_iterable(stages[:index])),
                # The choice has none of what is excluded: behind its own stage nothing is left.
                (*(self.excluded if index == self.begin else ()), stages[index]),
            )
            for index in range(self.begin, len(stages))
        ]

    def rest(self, stages: Sequence[_Literals]) -> "_Part":
        """Return the same as one part."""
        behind = tuple(chain.from_iterable(stages[self.begin :]))
        return _Part(self.begin, self.fixed, (*self.excluded, behind))


@dataclass(frozen=True, slots=True)
class _Task:
    """A search in a part: the model as text, its literals, a hint, and when it has to end.

    `seconds` are left until `end`, in those of time.time(), which other processes have too; None
    without a limit.
    """

    text: str
    literals: _Literals
    fixed: _Literals
    excluded: tuple[_Literals, ...]
    hint: tuple[int, ...]
    end: float | None
    seconds: float | None


def _solved(task: _Task) -> Outcome:
    model = model_of_text(task.text)
    literal = model.get_bool_var_from_proto_index
    literals = [literal(index) for index in task.literals]
    for index in task.fixed:
        model.add(literal(index) == 1)
    for excluded in task.excluded:
        model.add_bool_or([literal(index).negated() for index in excluded])
    for variable, value in zip(literals, task.hint, strict=bool(task.hint)):
        model.add_hint(variable, value)
    seconds = task.seconds
    if seconds is not None and task.end is not None:
        seconds = min(seconds, max(0.0, task.end - time.time()))
    return solve(model, literals, seconds)


class _Parts:
    """All choices of a model but those that were taken, as parts."""

    def __init__(
        self, model: ChoiceModel, deadline: float | None, distance: int, jobs: int | None
    ) -> None:
        self._model = model
        self._deadline, self._distance = deadline, distance
        self._workers = workers_or_one(jobs)
        self._literals = tuple(literal.index for literal in model.literals)
        self._parts = [_Part(0, (), (), {(): model.greatest(deadline)})]

    def take(self, is_last: bool) -> tuple[Status, list[Any] | None, float | None]:
        """Return how the search ended, the best choice left, and the bound on its total.

        The choice, one key for each decision, is taken out, with all closer to it than the
        distance. The last is taken without a preparation for the next.
        """
        outcomes = self._totals(self._parts)
        open_ends = [outcome for outcome in outcomes if outcome.status not in _PROVEN]
        if open_ends:
            return self._unproven(open_ends[0])
        pairs = zip(self._parts, outcomes, strict=True)
        self._parts = [part for part, outcome in pairs if outcome.status is Status.OPTIMAL]
        if not self._parts:
            return Status.INFEASIBLE, None, None
        most = min(_bound(part.outcomes[()]) for part in self._parts) + self._model.slack
        total = most - self._model.slack
        equal = [part for part in self._parts if _bound(part.outcomes[()]) <= most]
        part = next(part for part in equal if part.outcomes[()].bound == total)
        values = part.outcomes[()].values
        new: list[_Part] = []
        if len(equal) == 1:
            # That no other has the total is proven much sooner by the best of the others than as a
            # contradiction.
            stages = self._stages(values)
            new = [part.rest(stages)] if is_last else part.without(stages)
        if len(equal) > 1 or any(_may_reach(outcome, most) for outcome in self._totals(new)):
            before = values
            part, values = self._first_of_equals(equal, total)
            if values != before or not new:
                new = part.without(self._stages(values))
        if not is_last:
            self._parts.remove(part)
            self._parts += new
            self._keep_apart(values)
        return Status.OPTIMAL, self._model.chosen(values), -total / self._model.unit

    def _unproven(self, outcome: Outcome) -> tuple[Status, list[Any] | None, float | None]:
        bound = None if outcome.bound is None else -outcome.bound / self._model.unit
        chosen = self._model.chosen(outcome.values) if outcome.values else None
        return outcome.status, chosen, bound

    def _stages(self, values: Sequence[int]) -> list[_Literals]:
        """Return the literals of a choice that are true, of each stage."""
        true = [index for index, value in zip(self._literals, values, strict=True) if value]
        return [tuple(true[index] for index in stage) for stage in self._model.stages]

    def _totals(self, parts: Sequence[_Part]) -> list[Outcome]:
        """Return how the search for the greatest total ended in each part."""
        self._model.model.minimize(-self._model.total)
        return self._outcomes(parts, (), self._model.model)

    def _outcomes(self, parts: Sequence[_Part], key: tuple[int, ...], model: Any) -> list[Outcome]:
        """Return the outcomes of a model in parts; `key`: what it searches for."""
        open_parts = [part for part in parts if key not in part.outcomes]
        if open_parts:
            text, seconds = model_text(model), seconds_left(self._deadline)
            end = None if seconds is None else time.time() + seconds
            tasks = []
            for part in open_parts:
                hint = list(part.outcomes.values())[-1].values if key and part.outcomes else ()
                about = part.fixed, part.excluded, hint
                tasks.append(_Task(text, self._literals, *about, end, seconds))
            solved = over_shards(_solved, tasks, min(self._workers, len(tasks)))
            for part, outcome in zip(open_parts, solved, strict=True):
                part.outcomes[key] = outcome
        return [part.outcomes[key] for part in parts]

    def _first_of_equals(self, parts: Sequence[_Part], total: int) -> tuple[_Part, tuple[int, ...]]:
        """Return the choice that ties prefer, of those in parts with the total of the best one."""
        best = next(part for part in parts if part.outcomes[()].bound == total)
        values = best.outcomes[()].values
        model = self._model.model.clone()
        model.clear_hints()
        model.add(-self._model.total <= total + self._model.slack)
        key: tuple[int, ...] = (total,)
        for amount, slack in self._model.ties():
            model.minimize(amount)
            outcomes = self._outcomes(parts, key, model)
            if any(outcome.status not in _PROVEN for outcome in outcomes):
                break
            left = [
                (part, outcome)
                for part, outcome in zip(parts, outcomes, strict=True)
                if outcome.status is Status.OPTIMAL
            ]
            if not left:
                raise contradiction(
                    f"no choice with a total of {-total / self._model.unit:.9f}, which it found "
                    "before",
                    "one at least",
                )
            least = min(_bound(outcome) for _, outcome in left)
            best, values = next(
                (part, outcome.values) for part, outcome in left if outcome.bound == least
            )
            parts = [part for part, outcome in left if _bound(outcome) <= least + slack]
            model.add(amount <= least + slack)
            key = (*key, least)
        return best, values

    def _keep_apart(self, values: Sequence[int]) -> None:
        """Allow no choice closer to one than the distance: what is farther off is still the best.

        Choices that are not made of layers are all at a distance of 1.
        """
        apart = self._model.apart(self._model.chosen(values)) if self._distance > 1 else []
        if not apart:
            return
        literals, counts = zip(*apart, strict=True)
        self._model.model.add(weighted_sum(literals, counts) >= self._distance)
        layers = {literal.index: count for literal, count in apart}
        for part in self._parts:
            for key, outcome in list(part.outcomes.items()):
                pairs = zip(self._literals, outcome.values, strict=bool(outcome.values))
                differ = sum(layers.get(index, 0) for index, value in pairs if value)
                if outcome.values and differ < self._distance:
                    del part.outcomes[key]


def _bound(outcome: Outcome) -> int:
    assert outcome.bound is not None
    return outcome.bound


def _may_reach(outcome: Outcome, most: int) -> bool:
    """Return whether a solution was found, and may be one of at most so."""
    exists = outcome.status in (Status.OPTIMAL, Status.FEASIBLE)
    return exists and (outcome.bound is None or outcome.bound <= most)


def best_few(
    model: ChoiceModel,
    top: int,
    deadline: float | None,
    distance: int = 1,
    jobs: int | None = None,
) -> Iterator[tuple[Status, list[Any] | None, float | None]]:
    """Yield for each of the `top` best choices how its search ended, the choice, and its bound.

    The choice has one key for each decision, None where none is left or none was found; the bound
    is on its total. Each differs from those before it in `distance` layers. Searches in parts are
    shared among `jobs` workers, if not given those of the caller's `joblib.parallel_config`, or
    one. It ends with the first that is not proven.

    Raises: SolverError when the solver contradicts itself.
    """
    parts = _Parts(model, deadline, distance, jobs)
    for left in reversed(range(top)):
        status, chosen, bound = parts.take(is_last=not left)
        yield status, chosen, bound
        if status is not Status.OPTIMAL:
            return
