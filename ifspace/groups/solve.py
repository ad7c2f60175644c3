"""Find the cheapest group counts of a composition, or its widest block, by CP-SAT with proof.

*Choices.* Every layer is a choice from a table of legal options (`Options`), one boolean each, with
its cost: the objective is linear.

*Coverage of output 0.* The full field enters the model in two ways, neither of which can exclude a
plan. Output 0 of a chain without shuffles reads the channels 0 … m - 1 of every layer below, and
the coverage function says how many exactly. So U >= C is necessary; at equal widths without
shuffles it is sufficient too. Below a shuffle the channels read are scattered: there their number
grows by the fan-in at most.

*Cuts.* The solver proposes the cheapest choice that is left; those of equal cost at every layer,
which differ in shuffles, steps and orders but not in whether windows overlap, are searched together
with it for one with the full field. The first one found is optimal, and none of equal cost has
fewer layers of overlapping windows. Of those that tie in both the first in canonical order is
proposed first, as in the catalogue. If none has the full field, they are a box that grows by every
option that leaves it without a full choice, and the whole box is excluded by one cut (`Boxes`).
Where there are too many of equal cost, the box starts from the proposed choice alone.

So every plan returned has the full field, a bound of the model bounds the problem, and when the
model has no solution left no choice has the full field.

*Widest block.* Widths are tried in descending order, so the first one with a plan is the widest.
Above the first width that is tried no block exists: the fan-ins of a full-field block multiply to
its width at least, and by the inequality of the arithmetic and geometric mean the parameters of
fan-ins with a given product have a least value, which grows with the width.

Reference: [Fog] section 3.3.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache, cached_property
from itertools import islice, product
from math import ceil, prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ifspace.answer import Status
from ifspace.block import Block, Layer, SizedBlock, SizedLayer
from ifspace.cpsat import new_model, seconds_left, solve
from ifspace.floors import Floors, ParamsRange
from ifspace.groups.problem import GroupPlan, GroupsAnswer, GroupsProblem, WidestProblem
from ifspace.kinds import ROLLING
from ifspace.parallel import Progress
from ifspace.reach import channel_field
from ifspace.values import MAX_WIDTH, counted

# The number of an option for each layer of the composition.
Choice = tuple[int, ...]
# Several options for each layer.
Box = tuple[tuple[int, ...], ...]
# A set of channels as the bits of a whole number.
Channels = int

# Larger boxes of choices of equal cost are not searched: the proposed choice is taken alone.
MOST_OF_EQUAL_COST: Final = 100_000
# Sets of channels that one search of a box visits, and choices put before the exact field to
# enlarge it by one option: beyond them the box is taken to have a choice with the full field.
MOST_SETS: Final = 4000
MOST_CHECKS: Final = 2
GAVE_UP: Final[Choice] = ()
# Above this objectives are not told apart exactly by a solver that bounds them with floats.
MOST_WEIGHT: Final = 2**53


def cheapest_groups(
    problem: GroupsProblem,
    top: int = 1,
    time_limit_s: float | None = None,
    at_most: int | None = None,
    plain: bool = False,
) -> GroupsAnswer:
    """Return the `top` cheapest distinct plans of a problem, best first.

    `at_most` leaves out plans that cost more. The status and the bound are those of the first plan.
    `plain` leaves out all that the model knows of the field, so that each choice without the full
    field is excluded alone: slow, and the baseline of the benchmark.

    >>> from ifspace.block import Composition
    >>> answer = cheapest_groups(GroupsProblem(Composition.parse("GC+SH+GPW"), 64))
    >>> answer.status.name, answer.bound, answer.plans[0].objective(), str(answer.plans[0].block)
    ('OPTIMAL', 3200, 3200, 'GC(32)+SH(32)+GPW(2)')

    Reference: [Fog] section 3.3, Theorem 1.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    options = Options(problem)
    if not all(options.layers) or problem.exceeds_peak:
        return GroupsAnswer(Status.INFEASIBLE, None, ())
    model = _GroupsModel(options, at_most, plain)
    plans: list[GroupPlan] = []
    first_status, first_bound = Status.UNKNOWN, None
    while len(plans) < top:
        status, choice, bound = model.next_choice(deadline)
        if not plans:
            first_status, first_bound = status, bound
        if choice is None or (plans and status is not Status.OPTIMAL):
            # A later plan that is not proven may not be the next best.
            break
        plan = GroupPlan(problem, options.block(choice))
        plan.check()
        plans.append(plan)
        model.forbid(choice)
    return GroupsAnswer(first_status, first_bound, tuple(plans))


def widest_block(
    problem: WidestProblem,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> GroupsAnswer:
    """Return the widest block within a budget of parameters, and of those the cheapest.

    The bound is on the parameters at the width of the plan. The progress callback gets how many
    widths are done, and of how many.

    >>> from ifspace.block import Composition
    >>> problem = WidestProblem(Composition.parse("DW+RPW+RPW"), 1600, multiple=8)
    >>> answer = widest_block(problem)
    >>> answer.plans[0].problem.channels, answer.plans[0].objective(), answer.up_to
    (64, 1600, None)
    """
    widths = problem.widths
    least = least_params(problem)
    # The least parameters grow with the width, so they are within the budget for the first
    # `fitting` of the widths.
    fitting = bisect_right(widths, problem.budget, key=least)
    next_fits = fitting == len(widths) and least(widths[-1] + widths.step) <= problem.budget
    if problem.most_peak is not None:
        # So does the peak memory, which is linear in the width.
        within = bisect_right(widths, problem.most_peak, key=lambda c: problem.at(c).peak_per_pixel)
        next_fits = next_fits and within == len(widths)
        fitting = min(fitting, within)
    up_to = MAX_WIDTH if next_fits else None
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    for done, channels in enumerate(reversed(widths[:fitting])):
        left_s = seconds_left(deadline)
        if left_s == 0:
            return GroupsAnswer(Status.UNKNOWN, None, (), up_to=up_to)
        if progress is not None:
            progress(done, fitting)
        candidate = problem.at(channels)
        if most_channels_seen(candidate) < channels:
            continue
        answer = cheapest_groups(candidate, time_limit_s=left_s, at_most=problem.budget)
        if answer.status is not Status.INFEASIBLE:
            return replace(answer, up_to=up_to)
    return GroupsAnswer(Status.INFEASIBLE, None, (), up_to=up_to)


class Options:
    """The legal layers at each index of the composition; a choice has the number of one for each.

    `layers[index]` are the options. Only what cannot be better is left out: shuffles at the ends of
    a single block, which permute inputs or outputs, keep one option; without shuffles and changes
    of width, in rolling order, a wider step sees more at the same cost, so of equal groups only the
    widest step stays, unless `every_step`.
    """

    def __init__(self, problem: GroupsProblem, every_step: bool = False) -> None:
        self.problem = problem
        self.every_step = every_step
        self.chain = problem.chain
        self.length = len(problem.composition)
        self.scatters = [layer.conv.scatters for layer in self.chain]
        self.layers = [self._layers(index) for index in range(self.length)]
        self._full: dict[Choice, bool] = {}

    def copies(self, index: int) -> tuple[SizedLayer, ...]:
        """Return the stand-ins of a layer in all copies of the block."""
        return self.chain[index :: self.length]

    def sized(self, index: int, number: int) -> list[SizedLayer]:
        """Return one option at the widths of every copy."""
        layer = self.layers[index][number]
        return [SizedLayer(layer, c.c_in, c.c_out, c.dims) for c in self.copies(index)]

    def block(self, choice: Choice) -> Block:
        """Return the block of a choice."""
        layers = (options[number] for options, number in zip(self.layers, choice, strict=True))
        return Block(tuple(layers), self.problem.composition.repeats)

    def is_full(self, choice: Choice) -> bool:
        """Return whether every output sees every channel, exactly."""
        full = self._full.get(choice)
        if full is None:
            field = channel_field(self.problem.sized(self.block(choice)).layers)
            full = self._full[choice] = field == self.problem.channels
        return full

    def of_equal_cost(self, choice: Choice) -> Box:
        """Return for each layer the options that rank where the chosen one does."""
        return tuple(
            tuple(n for n, rank in enumerate(ranks) if rank == ranks[number])
            for ranks, number in zip(self.ranks, choice, strict=True)
        )

    @cached_property
    def ranks(self) -> list[list[int]]:
        """What decides among options: costs, or parameters where all cost the same; then overlap.

        The cost of an option times `overlaps`, plus one if its windows overlap.
        """
        _, costs = self.costs
        if not self.differ_in_cost:
            costs = [
                [sum(layer.params for layer in self.sized(index, n)) for n in range(len(layers))]
                for index, layers in enumerate(self.layers)
            ]
        return [
            [
                cost * self.overlaps + bool(layer.overlap)
                for cost, layer in zip(layer_costs, layers, strict=True)
            ]
            for layer_costs, layers in zip(costs, self.layers, strict=True)
        ]

    @cached_property
    def tie_weights(self) -> tuple[int, list[list[int]]]:
        """Weights that put choices of equal rank in canonical order, and a number above their sum.

        The numbers of the options are the digits of a choice, the first layer the highest, so the
        choice of the least sum is the first, as in the catalogue. Where that would not fit into
        the numbers of the solver, the sum of the numbers decides.
        """
        sizes = [len(layers) for layers in self.layers]
        digits = [prod(sizes[index + 1 :]) for index in range(self.length)]
        if prod(sizes) * (1 + sum(map(max, self.ranks))) > MOST_WEIGHT:
            digits = [1] * self.length
        weights = [
            [digit * number for number in range(size)]
            for digit, size in zip(digits, sizes, strict=True)
        ]
        return 1 + sum(map(max, weights)), weights

    @cached_property
    def differ_in_cost(self) -> bool:
        """Whether options differ in what is minimised."""
        return any(cost for layer_costs in self.costs[1] for cost in layer_costs)

    @property
    def overlaps(self) -> int:
        """More than the layers whose windows can overlap."""
        return 1 + self.length

    @cached_property
    def costs(self) -> tuple[int, list[list[int]]]:
        """The cost of the first option everywhere, and what each option adds to it."""
        first = [layers[0] for layers in self.layers]
        repeats = self.problem.composition.repeats
        base = self.problem.amount(Block(tuple(first), repeats))
        table = [
            [
                self.problem.amount(Block((*first[:index], layer, *first[index + 1 :]), repeats))
                - base
                for layer in layers
            ]
            for index, layers in enumerate(self.layers)
        ]
        return base, table

    def _layers(self, index: int) -> list[Layer]:
        copies = self.copies(index)
        stand_in, conv = copies[0].layer, copies[0].conv
        pairs = [(copy.c_in, copy.c_out) for copy in copies]
        choices = conv.common_choices(
            pairs,
            self.problem.overlaps,
            self.problem.orders,
            may_copy=not self.problem.widths_inside,
        )
        choices = self.problem.floors.of(conv, choices, pairs)
        if self._monotone and not self.every_step:
            # The least overlap comes first: it is the widest step.
            choices = tuple({choice[0]: choice for choice in reversed(choices)}.values())[::-1]
        layers = [
            Layer(stand_in.kind, groups, overlap, stand_in.kernel, order)
            for groups, overlap, order in choices
        ]
        return layers[:1] if self._permutes_an_end(index) else layers

    @property
    def _monotone(self) -> bool:
        """Whether a wider step always sees more."""
        keeps_width = all(not layer.changes_width for layer in self.chain)
        rolls = self.problem.orders == (ROLLING,)
        return keeps_width and rolls and not any(self.scatters)

    def _permutes_an_end(self, index: int) -> bool:
        if self.problem.composition.repeats > 1 or not self.scatters[index]:
            return False
        mixing = [n for n, layer in enumerate(self.chain) if layer.conv.mixing]
        return not mixing or index < mixing[0] or index > mixing[-1]


def params_range(options: Options) -> ParamsRange | None:
    """Return bounds on the parameters of the choices that may have the full field; None if none.

    The least: the fewest of options whose fan-ins, in all copies, multiply to the width, which
    every choice of full field has. The most: those of the densest option of every layer.

    >>> from ifspace.block import Composition
    >>> problem = GroupsProblem(Composition.parse("DW+GPW+SH+GPW"), 64,
    ...                         floors=Floors(least_fan_in=16))
    >>> str(params_range(Options(problem)))
    '2,624 to 4,672 parameters'
    """
    width, most = options.problem.channels, 0
    fewest = {1: 0}
    for index, layers in enumerate(options.layers):
        amounts = [
            (
                prod(layer.fan_in for layer in options.sized(index, number)),
                sum(layer.params for layer in options.sized(index, number)),
            )
            for number in range(len(layers))
        ]
        most += max((params for _, params in amounts), default=0)
        longer: dict[int, int] = {}
        for product_below, params_below in fewest.items():
            for fan_in, params in amounts:
                key, total = min(width, product_below * fan_in), params_below + params
                longer[key] = min(total, longer.get(key, total))
        fewest = longer
    return ParamsRange(fewest[width], most) if width in fewest else None


class Boxes:
    """Searches of boxes of choices: which choices are full, and how far a box grows without any.

    A full choice is one with the full field. What output 0 sees is followed down from the last
    layer as a set of channels; choices that agree on the set at some layer have the same future, so
    a box is searched over sets, not over choices. Two shuffles of 1024 channels, say, compose to
    one of nine permutations, however many pairs of shuffle groups there are. The sets are cached.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        # Indexed by the position of a layer in the chain of all copies, and the option.
        self._fan_ins = [
            [
                options.sized(position % options.length, number)[position // options.length].fan_in
                for number in range(len(options.layers[position % options.length]))
            ]
            for position in range(len(options.chain))
        ]
        self._copies = options.problem.composition.repeats
        self._reads: dict[tuple[int, int], list[npt.NDArray[np.int32]]] = {}
        self._below: dict[tuple[int, int, Channels], Channels] = {}
        self._ways: dict[tuple[int, tuple[int, ...], Channels], list[tuple[int, Channels]]] = {}
        self._short: dict[tuple[int, Box], set[tuple[Channels, Choice]]] = {}

    def full_choices(self, box: Box) -> Iterator[Choice]:
        """Yield the full choices of a box, in the order of their numbers."""
        for choice in self._candidates(box):
            if self.options.is_full(choice):
                yield choice

    def grown(self, box: Box) -> Box:
        """Return a larger box without a full choice, for one that has none.

        Option by option, from the first layer on; an option joins when no choice of the box that it
        would add is full.
        """
        for index, layers in enumerate(self.options.layers):
            for number in range(len(layers)):
                if number not in box[index] and self._is_short(_with(box, index, (number,))):
                    box = _with(box, index, (*box[index], number))
        return box

    def _is_short(self, box: Box) -> bool:
        """Return True if no choice of a box is full; False may mean undecided."""
        witness = self._witness(box)
        if witness is None:
            return True
        if witness == GAVE_UP or self.options.is_full(witness):
            return False
        candidates = list(islice(self._candidates(box), MOST_CHECKS))
        return len(candidates) < MOST_CHECKS and not any(map(self.options.is_full, candidates))

    def _candidates(self, box: Box) -> Iterator[Choice]:
        """Yield, in order, at least the choices of a box where output 0 sees every channel."""
        if self._witness(box) is None:
            return
        index = next((n for n, numbers in enumerate(box) if len(numbers) > 1), None)
        if index is None:
            yield tuple(number for (number,) in box)
            return
        for number in sorted(box[index]):
            yield from self._candidates(_with(box, index, (number,)))

    def _witness(self, box: Box) -> Choice | None:
        """Return a choice of a box where output 0 sees every channel; None proves there is none."""
        options = self.options
        last = len(options.chain) - 1
        channels = options.problem.channels
        # The most channels that one channel above a layer can see through it and all below.
        reach = [
            prod(
                max(self._fan_ins[p][n] for n in box[p % options.length])
                for p in range(position + 1)
            )
            for position in range(last + 1)
        ]
        # What falls short below a layer does so in every box that is the same from there down.
        short = [
            self._short.setdefault((position, box[: position % options.length + 1]), set())
            for position in range(last + 1)
        ]
        visited = 0

        def full(position: int, seen: Channels, chosen: Choice) -> Choice | None:
            if position < 0:
                return chosen if seen.bit_count() == channels else None
            if seen.bit_count() * reach[position] < channels:
                return None
            state = (seen, chosen if self._copies > 1 else ())
            if state in short[position]:
                return None
            nonlocal visited
            visited += 1
            if visited > MOST_SETS:
                return GAVE_UP
            index = position % options.length
            # Lower copies of a repeated block have the options of the upper one.
            free = position + options.length > last
            numbers = box[index] if free else (chosen[last - position - options.length],)
            for number, below in self._ways_down(position, numbers, seen):
                choice = full(position - 1, below, (*chosen, number))
                if choice is not None:
                    return choice
            short[position].add(state)
            return None

        choice = full(last, 1, ())
        return choice if choice is None else choice[options.length - 1 :: -1]

    def _ways_down(
        self, position: int, numbers: tuple[int, ...], seen: Channels
    ) -> list[tuple[int, Channels]]:
        """Return options of a layer with the channels below it that the channels `seen` read.

        Of a block that is not repeated, an option that reads a part of what another does is left
        out: it cannot see more further down.
        """
        key = (position, numbers, seen)
        ways = self._ways.get(key)
        if ways is None:
            ways = [(number, self._through(position, number, seen)) for number in numbers]
            if self._copies == 1:
                ways.sort(key=lambda way: -way[1].bit_count())
                widest: list[tuple[int, Channels]] = []
                for number, below in ways:
                    if all(below & ~other for _, other in widest):
                        widest.append((number, below))
                ways = widest
            self._ways[key] = ways
        return ways

    def _through(self, position: int, number: int, seen: Channels) -> Channels:
        """Return the channels below a layer that the channels `seen` above it read."""
        index, copy = position % self.options.length, position // self.options.length
        key = (position, number, seen)
        below = self._below.get(key)
        if below is None:
            reads = self._reads.get((index, number))
            if reads is None:
                reads = [layer.reads() for layer in self.options.sized(index, number)]
                self._reads[index, number] = reads
            layer = self.options.chain[position]
            width = -(-layer.c_out // 8)
            bits = np.frombuffer(seen.to_bytes(width, "little"), np.uint8)
            flags = np.zeros(layer.c_in, np.bool_)
            flags[reads[copy][np.unpackbits(bits, bitorder="little").nonzero()]] = True
            packed = np.packbits(flags, bitorder="little").tobytes()
            below = self._below[key] = int.from_bytes(packed, "little")
        return below


def _with(box: Box, index: int, numbers: tuple[int, ...]) -> Box:
    return (*box[:index], numbers, *box[index + 1 :])


class _GroupsModel:
    """The CP-SAT model of a problem, with the cuts added so far."""

    def __init__(self, options: Options, at_most: int | None, plain: bool) -> None:
        self.options = options
        self.boxes = Boxes(options)
        self.plain = plain
        self.model = new_model()
        self.forbidden: set[Choice] = set()
        self.literals = [
            [self.model.new_bool_var(f"{index}:{layer}") for layer in layers]
            for index, layers in enumerate(options.layers)
        ]
        for literals in self.literals:
            self.model.add_exactly_one(literals)
        self.base, added = options.costs
        self.scale, places = options.tie_weights
        self.model.minimize(
            sum(
                (self.scale * rank + place) * x
                for (x, rank, _), (_, place, _) in zip(
                    self._options_with(options.ranks), self._options_with(places), strict=True
                )
            )
        )
        if at_most is not None:
            spent = sum(cost * x for x, cost, _ in self._options_with(added))
            self.model.add(spent <= at_most - self.base)
        if not plain:
            self._cover()

    def _options_with(self, table: list[list[int]]) -> Iterator[tuple[Any, int, int]]:
        """Yield the literal of every option, its value in a table, and its number."""
        for literals, values in zip(self.literals, table, strict=True):
            for number, (literal, value) in enumerate(zip(literals, values, strict=True)):
                yield literal, value, number

    def next_choice(self, deadline: float | None) -> tuple[Status, Choice | None, int | None]:
        """Return the status, the best choice with the full field, and the bound on its cost."""
        literals = [literal for of_layer in self.literals for literal in of_layer]
        bound: int | None = None
        while True:
            left_s = seconds_left(deadline)
            if left_s == 0:
                return Status.UNKNOWN, None, bound
            outcome = solve(self.model, literals, left_s)
            if not outcome.values:
                return outcome.status, None, bound
            if outcome.bound is not None:
                # A solve that was interrupted may prove less than the one before it did.
                rank = outcome.bound // (self.scale * self.options.overlaps)
                limit = self.base + self.options.differ_in_cost * rank
                bound = limit if bound is None else max(bound, limit)
            choice = self._choice(outcome.values)
            box = self._box(choice)
            for full_choice in self.boxes.full_choices(box):
                if full_choice not in self.forbidden:
                    return outcome.status, full_choice, bound
                if seconds_left(deadline) == 0:
                    return Status.UNKNOWN, None, bound
            if not self.plain and self.forbidden.isdisjoint(product(*box)):
                box = self.boxes.grown(box)
            self._cut(box)

    def forbid(self, choice: Choice) -> None:
        """Exclude one choice from now on."""
        self.forbidden.add(choice)
        self._cut(tuple((number,) for number in choice))

    def _choice(self, values: tuple[int, ...]) -> Choice:
        numbers, start = [], 0
        for literals in self.literals:
            numbers.append(values[start : start + len(literals)].index(1))
            start += len(literals)
        return tuple(numbers)

    def _box(self, choice: Choice) -> Box:
        """Return the choices to search together: those of equal cost at every layer."""
        alone: Box = tuple((number,) for number in choice)
        if self.plain:
            return alone
        box = self.options.of_equal_cost(choice)
        return box if prod(map(len, box)) <= MOST_OF_EQUAL_COST else alone

    def _cut(self, box: Box) -> None:
        """Exclude every choice of a box from now on."""
        self.model.add_bool_or(
            [
                literal
                for literals, numbers in zip(self.literals, box, strict=True)
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
            index, copy = position % options.length, position // options.length
            c_in = options.chain[position].c_in
            scattered = scattered or options.scatters[position]
            below = self.model.new_int_var(1, c_in, f"channels below layer {position}")
            for number, literal in enumerate(self.literals[index]):
                layer = options.sized(index, number)[copy]
                bound = layer.fan_in * count if scattered else self._covered(layer, count)
                self.model.add(below <= bound).only_enforce_if(literal)
            count = below
        self.model.add(count >= options.problem.channels)

    def _covered(self, layer: SizedLayer, count: Any) -> Any:
        """Return how many channels `count` neighbouring outputs read, as a linear expression."""
        shape, *numbers = _coverage_shape(layer)
        if shape == "constant":
            return numbers[0]
        if shape == "line":
            start, slope = numbers
            return start + slope * (count - 1)
        if shape == "stairs":
            height, run = numbers
            whole = self.model.new_int_var(1, layer.c_out, "")
            self.model.add(run * whole <= count + run - 1)
            return height * whole
        covered = self.model.new_int_var(1, layer.c_in, "")
        self.model.add_element(count, [0, *numbers], covered)
        return covered


@cache
def _coverage_shape(layer: SizedLayer) -> tuple[Any, ...]:
    """Return the shape of the layer's coverage function, by evaluating it everywhere.

    ("constant", n), ("line", value at 1, slope), ("stairs", height, run), each up to the cap at
    the layer's input width; or ("table", values from 1).
    """
    values = [_coverage(layer, count) for count in range(1, layer.c_out + 1)]
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


def _coverage(layer: SizedLayer, count: int) -> int:
    """Return how many input channels of a layer `count` neighbouring outputs read together."""
    return layer.conv.coverage_at(
        lambda n: n,
        count,
        channels=layer.c_in,
        c_in=layer.c_in,
        c_out=layer.c_out,
        groups=layer.groups,
        step=layer.step,
    )


def widths_text(problem: WidestProblem) -> str:
    """Return which budgets have a block within floors, and what the widest within this one can be.

    Both before any search: from how many parameters on, at the narrowest width that floors leave a
    choice, and the widest at which the least parameters are within the budget. "" if none is.

    >>> from ifspace.block import Composition
    >>> print(widths_text(WidestProblem(Composition.parse("DW+GPW+SH+GPW"), 5000, multiple=8,
    ...                                 floors=Floors(least_fan_in=16))))
    DW+GPW+SH+GPW with at least 16 channels per filter: from 1,312 parameters, at 32 channels; ...
    """
    widths, least = problem.widths, least_params(problem)
    within = widths[: bisect_right(widths, problem.budget, key=least)]
    ranges = ((width, params_range(Options(problem.at(width)))) for width in within)
    narrowest = next(((width, bounds) for width, bounds in ranges if bounds is not None), None)
    if narrowest is None:
        return ""
    width, bounds = narrowest
    return (
        f"{problem.composition} with {problem.floors}: from {bounds.least:,} parameters, at "
        f"{width} channels; {problem.budget:,} allow at most {counted(within[-1], 'channel')}"
    )


def least_params(problem: WidestProblem) -> Callable[[int], int]:
    """Return a lower bound on the parameters of a full-field block, as a function of its width.

    It never falls as the width grows, and is defined above MAX_WIDTH too.
    """
    chain = problem.stand_in.chain[: len(problem.composition)]
    block = Block(tuple(layer.layer for layer in chain), problem.composition.repeats)

    def least(channels: int) -> int:
        out_channels = int(problem.alpha * channels)
        sized = block.at(channels, out_channels, problem.bottleneck, problem.dims)
        return ceil(_least_params_of(sized, problem.floors))

    return least


def _least_params_of(sized: SizedBlock, floors: Floors) -> float:
    """Return the least parameters that real group counts with the full field have.

    Of the floors those of fan-ins count, which hold at every width.
    `sized` has one group in every layer.
    """
    fixed, weights, missing = 0, [], float(sized.channels)
    floored = 0.0
    reading_all = 0
    for layer in sized.layers:
        if layer.conv.takes_groups and layer.params:
            # With one group a layer has fan-in C_in: its parameters for every channel of fan-in.
            weights.append(layer.params / layer.fan_in)
            spatial = floors.least_spatial_fan_in if layer.conv.spatial else 1
            floored += weights[-1] * max(floors.least_fan_in, spatial)
        else:
            fixed += layer.params
            missing /= layer.fan_in
            reading_all += layer.conv.mixing
    # What two layers that read all leave missing falls as the width grows: it is left out.
    if not weights or missing <= 1 or reading_all > 1:
        return float(fixed + floored)
    count = len(weights)
    mean = (missing * prod(weights)) ** (1 / count)
    # Rounded down a little: a float must not lift the bound above a whole number of parameters.
    return float(fixed + max(count * mean, floored) * (1 - 1e-9))


def most_channels_seen(problem: GroupsProblem) -> int:
    """Return how many channels an output can see at most; 0 when a layer has no legal choice.

    From the last layer down to the block's input: each passes on what its best choice reads, by
    the coverage function, and behind a shuffle by the fan-in.

    >>> from ifspace.block import Composition
    >>> most_channels_seen(GroupsProblem(Composition.parse("GC+GPW"), 16))
    8
    """
    overlaps = problem.overlaps
    if problem.orders == (ROLLING,):
        # The least overlap is the widest step: it sees most.
        overlaps = (Fraction(0),) if overlaps is None else overlaps[:1]
    count, scattered = 1, False
    for stand_in in reversed(problem.chain):
        conv = stand_in.conv
        scattered = scattered or conv.scatters
        pair = [(stand_in.c_in, stand_in.c_out)]
        layers = [
            SizedLayer(
                Layer(conv.symbol, groups, overlap, stand_in.layer.kernel, order),
                stand_in.c_in,
                stand_in.c_out,
                stand_in.dims,
            )
            for groups, overlap, order in problem.floors.of(
                conv,
                conv.common_choices(
                    pair, overlaps, problem.orders, may_copy=not problem.widths_inside
                ),
                pair,
            )
        ]
        seen = (layer.fan_in * count if scattered else _coverage(layer, count) for layer in layers)
        count = min(stand_in.c_in, max(seen, default=0))
    return count
