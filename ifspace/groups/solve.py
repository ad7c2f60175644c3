"""The cheapest groups, shuffle groups and overlaps of a composition, by CP-SAT, with proof.

Every layer is a choice among a table of options, one boolean each, with its cost: the objective is
linear. The full field enters in two ways, neither of which can cut off a plan:

* *Coverage of output 0.* Output 0 of a chain without shuffles reads the channels 0 … m - 1 of
  every layer below, and the coverage function says how many exactly. So U >= C is necessary; at
  equal widths without shuffles it is sufficient too. Below a shuffle the channels read are
  scattered: there their number grows by the fan-in at most.
* *Cuts.* The solver proposes the cheapest choice that is left; those of equal cost at every layer,
  which differ in shuffles and overlaps, are searched together with it for one with the full field.
  The first found is optimal. If all fall short, they are a box that is enlarged by every option
  that leaves it without a full choice, and the whole box is forbidden at once (`boxes`). Where
  there are too many of equal cost, the box starts from the proposed choice alone.

So a plan that comes out has the full field, a bound of the model bounds the problem, and when the
model has no solution left no choice has the full field.

Reference: [Fog] section 3.3.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from math import prod
from typing import Any, Final

from ifspace.answer import Status
from ifspace.block import SizedLayer
from ifspace.cpsat import (
    new_model,
    solve,
)
from ifspace.groups.boxes import (
    Box,
    Boxes,
)
from ifspace.groups.options import (
    Choice,
    Options,
)
from ifspace.groups.problem import GroupPlan, GroupsAnswer, GroupsProblem

# More choices of one cost than this are not looked at one by one.
MOST_OF_EQUAL_COST: Final = 100_000


def cheapest_groups(
    problem: GroupsProblem,
    top: int = 1,
    time_limit_s: float | None = None,
    at_most: int | None = None,
    plain: bool = False,
) -> GroupsAnswer:
    """Return the `top` cheapest distinct plans of a problem, best first.

    `at_most`: only plans that cost at most so much are of interest. The status and the bound are
    those of the first plan. `plain` leaves out all that the model knows of the field, so that each
    choice that falls short is forbidden alone: slow, and what the benchmark compares with.

    >>> from ifspace.block import Composition
    >>> answer = cheapest_groups(GroupsProblem(Composition.parse("GC+SH+GPW"), 64))
    >>> answer.status.name, answer.bound, answer.plans[0].objective(), str(answer.plans[0].block)
    ('OPTIMAL', 3200, 3200, 'GC(32)+SH(32)+GPW(2)')

    Reference: [Fog] section 3.3, Theorem 1.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    options = Options(problem)
    if not all(options.layers):
        return GroupsAnswer(Status.INFEASIBLE, None, ())
    model = _Model(options, at_most, plain)
    plans: list[GroupPlan] = []
    status, bound = Status.UNKNOWN, None
    while len(plans) < top:
        ended, choice, limit = model.next_choice(deadline)
        if not plans:
            status, bound = ended, limit
        if choice is None or (plans and ended is not Status.OPTIMAL):
            # A later one that is not proven may not be the next best.
            break
        plan = GroupPlan(problem, options.block(choice))
        plan.check()
        plans.append(plan)
        model.forbid(choice)
    return GroupsAnswer(status, bound, tuple(plans))


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


class _Model:
    """The CP-SAT model of a problem, with the cuts found so far."""

    def __init__(self, options: Options, at_most: int | None, plain: bool) -> None:
        self.options = options
        self.boxes = Boxes(options)
        self.plain = plain
        self.model = new_model()
        self.forbidden: set[Choice] = set()
        self.chosen = [
            [self.model.new_bool_var(f"{place}:{layer}") for layer in layers]
            for place, layers in enumerate(options.layers)
        ]
        for literals in self.chosen:
            self.model.add_exactly_one(literals)
        self.base, added = options.costs
        # Of equal rank the options that stand first: the sum of their numbers decides.
        self.scale = 1 + sum(len(layers) - 1 for layers in options.layers)
        self.ranked_by_cost = options.ranks is added
        self.model.minimize(
            sum((self.scale * rank + n) * x for x, rank, n in self._each_option(options.ranks))
        )
        if at_most is not None:
            spent = sum(cost * x for x, cost, _ in self._each_option(added))
            self.model.add(spent <= at_most - self.base)
        if not plain:
            self._cover()

    def _each_option(self, table: list[list[int]]) -> Iterator[tuple[Any, int, int]]:
        """Yield the literal of every option, what a table has of it, and its number."""
        for literals, values in zip(self.chosen, table, strict=True):
            for number, (literal, value) in enumerate(zip(literals, values, strict=True)):
                yield literal, value, number

    def next_choice(self, deadline: float | None) -> tuple[Status, Choice | None, int | None]:
        """Return the status, the best choice with the full field, and the bound on its cost."""
        literals = [literal for each in self.chosen for literal in each]
        bound: int | None = None
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if _is_over(deadline):
                return Status.UNKNOWN, None, bound
            outcome = solve(self.model, literals, left)
            if not outcome.values:
                return outcome.status, None, bound
            if outcome.bound is not None:
                # A solve that was cut short may prove less than the one before it did.
                limit = self.base + self.ranked_by_cost * (outcome.bound // self.scale)
                bound = limit if bound is None else max(bound, limit)
            choice = self._choice(outcome.values)
            box = self._box(choice)
            for equal in self.boxes.full_choices(box):
                if equal not in self.forbidden:
                    return outcome.status, equal, bound
                if _is_over(deadline):
                    return Status.UNKNOWN, None, bound
            if not self.plain and self.forbidden.isdisjoint(product(*box)):
                box = self.boxes.grown(box)
            self._forbid_box(box)

    def forbid(self, choice: Choice) -> None:
        """Leave one choice out from now on."""
        self.forbidden.add(choice)
        self._forbid_box(tuple((number,) for number in choice))

    def _choice(self, values: tuple[int, ...]) -> Choice:
        numbers, start = [], 0
        for literals in self.chosen:
            numbers.append(values[start : start + len(literals)].index(1))
            start += len(literals)
        return tuple(numbers)

    def _box(self, choice: Choice) -> Box:
        """Return the choices to look at together: those of equal cost at every place."""
        alone: Box = tuple((number,) for number in choice)
        if self.plain:
            return alone
        box = self.options.of_equal_cost(choice)
        return box if prod(map(len, box)) <= MOST_OF_EQUAL_COST else alone

    def _forbid_box(self, box: Box) -> None:
        """Leave every choice of a box out from now on."""
        self.model.add_bool_or(
            [
                literal
                for literals, numbers in zip(self.chosen, box, strict=True)
                for other, literal in enumerate(literals)
                if other not in numbers
            ]
        )

    def _cover(self) -> None:
        """Bound what output 0 sees, from the last layer down to the block's input."""
        options = self.options
        count: Any = 1
        scattered = False
        for position in reversed(range(len(options.chain))):
            place, copy = position % options.length, position // options.length
            c_in = options.chain[position].c_in
            scattered = scattered or options.scatters[position]
            below = self.model.new_int_var(1, c_in, f"channels below layer {position}")
            for number, literal in enumerate(self.chosen[place]):
                layer = options.sized(place, number)[copy]
                bound = layer.fan_in * count if scattered else self._interval(layer, count)
                self.model.add(below <= bound).only_enforce_if(literal)
            count = below
        self.model.add(count >= options.problem.channels)

    def _interval(self, layer: SizedLayer, count: Any) -> Any:
        """Return how many channels `count` neighbouring outputs read, as a linear expression."""
        kind, *numbers = _shape(layer)
        if kind == "constant":
            return numbers[0]
        if kind == "line":
            start, slope = numbers
            return start + slope * (count - 1)
        whole = self.model.new_int_var(1, layer.c_out, "")
        if kind == "stairs":
            height, run = numbers
            self.model.add(run * whole <= count + run - 1)
            return height * whole
        self.model.add_element(count, [0, *numbers], whole)
        return whole


@cache
def _shape(layer: SizedLayer) -> tuple[Any, ...]:
    """Return the form of the layer's coverage function, found by evaluating it everywhere.

    ("constant", n), ("line", value at 1, slope), ("stairs", height, run), each up to the cap at
    the layer's input width; or ("table", values from 1).
    """
    below: Callable[[int], int] = lambda count: count  # noqa: E731
    values = [
        layer.conv.coverage_at(
            below,
            count,
            channels=layer.c_in,
            c_in=layer.c_in,
            c_out=layer.c_out,
            groups=layer.groups,
            step=layer.step,
        )
        for count in range(1, layer.c_out + 1)
    ]
    first, cap = values[0], layer.c_in
    if all(value == first for value in values):
        return ("constant", first)
    slope = values[1] - first
    if all(value == min(cap, first + slope * n) for n, value in enumerate(values)):
        return ("line", first, slope)
    run = next(n for n, value in enumerate(values) if value != first)
    if all(value == min(cap, first * (n // run + 1)) for n, value in enumerate(values)):
        return ("stairs", first, run)
    return ("table", *values)
