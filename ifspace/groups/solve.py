"""Find the cheapest group counts of a composition, or its widest block, by CP-SAT with proof.

*Choices.* Every layer is a choice from a table of legal options (`Options`), one boolean each, with
its cost: the objective is linear.

*Coverage of output 0.* The full field enters the model in two ways, neither of which can cut off a
plan. Output 0 of a chain without shuffles reads the channels 0 … m - 1 of every layer below, and
the coverage function says how many exactly. So U >= C is necessary; at equal widths without
shuffles it is sufficient too. Below a shuffle the channels read are scattered: there their number
grows by the fan-in at most.

*Cuts.* The solver proposes the cheapest choice that is left; those of equal cost at every layer,
which differ in shuffles and overlaps, are searched together with it for one with the full field.
The first with the full field is optimal. If all fall short, they are a box that is enlarged by
every option that leaves it without a full choice, and the whole box is forbidden at once (`Boxes`).
Where there are too many of equal cost, the box starts from the proposed choice alone.

So a plan that comes out has the full field, a bound of the model bounds the problem, and when the
model has no solution left no choice has the full field.

*Widest block.* Widths are tried from above, so the first one with a plan is the widest. Above the
first width that is tried no block exists: the fan-ins of a full-field block multiply to its width
at least, and by the inequality of the arithmetic and geometric mean the parameters of fan-ins with
a given product have a least value, which grows with the width. Where that value is within the
budget even above MAX_WIDTH, the answer says that it is one of the widths up to there.

Reference: [Fog] section 3.3.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache, cached_property
from itertools import islice, product
from math import ceil, lcm, prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ifspace.answer import Status
from ifspace.block import Block, Layer, SizedBlock, SizedLayer
from ifspace.cpsat import (
    new_model,
    solve,
)
from ifspace.errors import SettingError
from ifspace.groups.problem import GroupPlan, GroupsAnswer, GroupsProblem, ratio_above_zero
from ifspace.parallel import Progress
from ifspace.reach import channel_field
from ifspace.values import MAX_WIDTH, whole_number

Choice = tuple[int, ...]


class Options:
    """Per place of the composition the layers that may stand there; a choice numbers one of each.

    Left out is only what cannot be better: shuffles at the ends of a single block, which permute
    inputs or outputs, keep one option; without shuffles and changes of width a wider step sees
    more at the same cost, so of equal groups only the widest step stays.
    """

    def __init__(self, problem: GroupsProblem) -> None:
        """List the options; costs follow on demand."""
        self.problem = problem
        self.chain = problem.chain
        self.length = len(problem.composition)
        self.scatters = [layer.conv.scatters for layer in self.chain]
        self.layers = [self._layers(place) for place in range(self.length)]
        self._full: dict[Choice, bool] = {}

    def copies(self, place: int) -> tuple[SizedLayer, ...]:
        """Return the stand-ins of a place in all copies of the block."""
        return self.chain[place :: self.length]

    def sized(self, place: int, number: int) -> list[SizedLayer]:
        """Return one option at the widths of every copy."""
        layer = self.layers[place][number]
        return [SizedLayer(layer, c.c_in, c.c_out, c.dims) for c in self.copies(place)]

    def block(self, choice: Choice) -> Block:
        """Return the block of a choice."""
        layers = tuple(each[n] for each, n in zip(self.layers, choice, strict=True))
        return Block(layers, self.problem.composition.repeats)

    def is_full(self, choice: Choice) -> bool:
        """Return whether every output sees every channel, exactly."""
        known = self._full.get(choice)
        if known is None:
            field = channel_field(self.problem.sized(self.block(choice)).layers)
            known = self._full[choice] = field == self.problem.channels
        return known

    def of_equal_cost(self, choice: Choice) -> tuple[tuple[int, ...], ...]:
        """Return for each place the options that rank where the chosen one does."""
        return tuple(
            tuple(n for n, rank in enumerate(each) if rank == each[number])
            for each, number in zip(self.ranks, choice, strict=True)
        )

    @cached_property
    def ranks(self) -> list[list[int]]:
        """What decides among options: their costs, or parameters where all cost the same."""
        _, costs = self.costs
        if any(cost for each in costs for cost in each):
            return costs
        return [
            [sum(layer.params for layer in self.sized(place, n)) for n in range(len(layers))]
            for place, layers in enumerate(self.layers)
        ]

    @cached_property
    def costs(self) -> tuple[int, list[list[int]]]:
        """The cost of the first option everywhere, and what each option adds to it."""
        first = [layers[0] for layers in self.layers]
        repeats = self.problem.composition.repeats
        base = self.problem.amount(Block(tuple(first), repeats))
        table = [
            [
                self.problem.amount(Block((*first[:place], layer, *first[place + 1 :]), repeats))
                - base
                for layer in layers
            ]
            for place, layers in enumerate(self.layers)
        ]
        return base, table

    def _layers(self, place: int) -> list[Layer]:
        copies = self.copies(place)
        stand_in, conv = copies[0].layer, copies[0].conv
        if not conv.takes_groups:
            return [stand_in]
        common = set.intersection(
            *({g for g, _ in conv.choices(c.c_in, c.c_out, (Fraction(0),))} for c in copies)
        )
        layers: list[Layer] = []
        for groups in sorted(g for g in common if g is not None):
            fan_ins = {conv.fan_in_at(c.c_in, groups) for c in copies}
            steps: dict[tuple[int, ...], Layer] = {}
            for overlap in self._overlaps(conv.takes_overlap, fan_ins):
                layer = Layer(stand_in.kind, groups, overlap, stand_in.kernel)
                key = tuple(SizedLayer(layer, c.c_in, c.c_out, c.dims).step for c in copies)
                steps.setdefault(key, layer)
            if self._monotone:
                steps = {max(steps): steps[max(steps)]}
            layers.extend(steps.values())
        return layers[:1] if self._at_an_end(place) else layers

    def _overlaps(self, takes_overlap: bool, fan_ins: set[int]) -> Sequence[Fraction | None]:
        if not takes_overlap:
            return (None,)
        if self.problem.overlaps is None:
            # The step of a window changes at the multiples of one over its width only.
            return sorted({Fraction(shared, w) for w in fan_ins for shared in range(w)})
        return self.problem.overlaps

    @property
    def _monotone(self) -> bool:
        keeps = all(not layer.changes_width for layer in self.chain)
        return keeps and not any(self.scatters)

    def _at_an_end(self, place: int) -> bool:
        if self.problem.composition.repeats > 1 or not self.scatters[place]:
            return False
        mixing = [n for n, layer in enumerate(self.chain) if layer.conv.mixing]
        return not mixing or place < mixing[0] or place > mixing[-1]


Box = tuple[tuple[int, ...], ...]

# Sets of channels that one search of a box visits, and choices put before the exact field to
# enlarge it by one option: beyond them the box is taken to have a choice with the full field.
MOST_SETS: Final = 4000
MOST_CHECKS: Final = 2
GIVEN_UP: Final[Choice] = ()


class Boxes:
    """Searches of the boxes of one problem; what was seen through a layer is remembered."""

    def __init__(self, options: Options) -> None:
        """Remember the options of every place."""
        self.options = options
        self._fan_ins = [
            [
                options.sized(position % options.length, number)[position // options.length].fan_in
                for number in range(len(options.layers[position % options.length]))
            ]
            for position in range(len(options.chain))
        ]
        self._reads: dict[tuple[int, int], list[npt.NDArray[np.int32]]] = {}
        self._copies = options.problem.composition.repeats
        self._below: dict[tuple[int, int, int], int] = {}
        self._ways: dict[tuple[int, tuple[int, ...], int], list[tuple[int, int]]] = {}
        self._short: dict[tuple[int, Box], set[tuple[int, Choice]]] = {}

    def full_choices(self, box: Box) -> Iterator[Choice]:
        """Yield the choices of a box with the full field, in the order of their numbers."""
        for choice in self._candidates(box):
            if self.options.is_full(choice):
                yield choice

    def grown(self, box: Box) -> Box:
        """Return a larger box without a full choice, given one that has none.

        Option by option, place by place from the first; an option joins its place when no choice
        of the box that it would add has the full field.
        """
        for place, layers in enumerate(self.options.layers):
            for number in range(len(layers)):
                if number not in box[place] and self._is_short(_with(box, place, (number,))):
                    box = _with(box, place, (*box[place], number))
        return box

    def _is_short(self, box: Box) -> bool:
        """Return True if no choice of a box has the full field; False may mean not known."""
        first = self._witness(box)
        if first is None:
            return True
        if first == GIVEN_UP or self.options.is_full(first):
            return False
        candidates = list(islice(self._candidates(box), MOST_CHECKS))
        return len(candidates) < MOST_CHECKS and not any(map(self.options.is_full, candidates))

    def _candidates(self, box: Box) -> Iterator[Choice]:
        """Yield, in order, at least the choices of a box where output 0 sees every channel."""
        if self._witness(box) is None:
            return
        place = next((n for n, numbers in enumerate(box) if len(numbers) > 1), None)
        if place is None:
            yield tuple(number for (number,) in box)
            return
        for number in sorted(box[place]):
            yield from self._candidates(_with(box, place, (number,)))

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

        def full(position: int, seen: int, chosen: Choice) -> Choice | None:
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
                return GIVEN_UP
            place = position % options.length
            # Lower copies of a repeated block stand as the upper one was chosen.
            free = position + options.length > last
            numbers = box[place] if free else (chosen[last - position - options.length],)
            for number, below in self._ways_down(position, numbers, seen):
                found = full(position - 1, below, (*chosen, number))
                if found is not None:
                    return found
            short[position].add(state)
            return None

        found = full(last, 1, ())
        return found if found is None else found[options.length - 1 :: -1]

    def _ways_down(
        self, position: int, numbers: tuple[int, ...], seen: int
    ) -> list[tuple[int, int]]:
        """Return options of a layer with the channels below it that the channels `seen` read.

        Sets of channels are bits of a whole number. Of a block that is not repeated, an option
        that reads a part of what another does is left out: it cannot see more further down.
        """
        key = (position, numbers, seen)
        ways = self._ways.get(key)
        if ways is None:
            ways = [(number, self._through(position, number, seen)) for number in numbers]
            if self._copies == 1:
                ways.sort(key=lambda way: -way[1].bit_count())
                most: list[tuple[int, int]] = []
                for number, below in ways:
                    if all(below & ~other for _, other in most):
                        most.append((number, below))
                ways = most
            self._ways[key] = ways
        return ways

    def _through(self, position: int, number: int, seen: int) -> int:
        place, copy = position % self.options.length, position // self.options.length
        key = (position, number, seen)
        below = self._below.get(key)
        if below is None:
            reads = self._reads.get((place, number))
            if reads is None:
                reads = [layer.reads() for layer in self.options.sized(place, number)]
                self._reads[place, number] = reads
            layer = self.options.chain[position]
            width = -(-layer.c_out // 8)
            bits = np.frombuffer(seen.to_bytes(width, "little"), np.uint8)
            flags = np.zeros(layer.c_in, np.bool_)
            flags[reads[copy][np.unpackbits(bits, bitorder="little").nonzero()]] = True
            packed = np.packbits(flags, bitorder="little").tobytes()
            below = self._below[key] = int.from_bytes(packed, "little")
        return below


def _with(box: Box, place: int, numbers: tuple[int, ...]) -> Box:
    return (*box[:place], numbers, *box[place + 1 :])


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


def widest_block(
    problem: GroupsProblem,
    budget: int,
    alpha: Fraction | int = 1,
    multiple: int = 1,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> GroupsAnswer:
    """Return the widest block of at most `budget` parameters, and of those the cheapest.

    The block has C channels in and alpha x C out, C a multiple of `multiple`, no width above
    MAX_WIDTH. `problem` says the rest; its widths do not matter. The bound is that of the plan's
    parameters. `progress` is told how many of how many widths are done.

    >>> from ifspace.block import Composition
    >>> answer = widest_block(GroupsProblem(Composition.parse("DW+RPW+RPW"), 1), 1600, multiple=8)
    >>> answer.plans[0].problem.channels, answer.plans[0].objective(), answer.up_to
    (64, 1600, None)

    Raises: SettingError for a budget, ratio or multiple below 1, explicit interior widths, and
        ratios and a multiple that no width up to MAX_WIDTH fits.
    """
    whole_number(budget, "budget", 1)
    whole_number(multiple, "multiple", 1)
    ratio = ratio_above_zero(alpha, "alpha")
    if problem.widths is not None:
        raise SettingError.because(
            "no widths to look for",
            got=f"widths {problem.widths}",
            allowed="no explicit interior widths",
            remedy="use a bottleneck ratio for the inside",
        )
    problem = replace(problem, objective="params", weights=None)
    period, count = _widths(problem, ratio, multiple)
    least = _least_params(problem, ratio, period)
    # Multiples of the period are legal; the least grows with them, so it is within the budget for
    # the first `fitting` of them.
    fitting = bisect_right(range(1, count + 1), budget, key=least)
    up_to = MAX_WIDTH if fitting == count and least(count + 1) <= budget else None
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    for done in range(fitting):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return GroupsAnswer(Status.UNKNOWN, None, (), up_to)
        if progress is not None:
            progress(done, fitting)
        channels = (fitting - done) * period
        candidate = replace(problem, channels=channels, out_channels=int(ratio * channels))
        if _most_seen(candidate) < channels:
            continue
        answer = cheapest_groups(candidate, time_limit_s=left, at_most=budget)
        if answer.status is not Status.INFEASIBLE:
            return replace(answer, up_to=up_to)
    return GroupsAnswer(Status.INFEASIBLE, None, (), up_to)


def _widths(problem: GroupsProblem, alpha: Fraction, multiple: int) -> tuple[int, int]:
    """Return the least legal width C, of which all others are multiples, and how many there are.

    Raises: SettingError when it is above what MAX_WIDTH leaves: no width is legal.
    """
    inner = alpha * (problem.bottleneck or 1)
    most = int(MAX_WIDTH / max(Fraction(1), alpha, inner))
    period = 1
    for name, value, step in (
        ("multiple", str(multiple), multiple),
        ("alpha", f"{alpha} at multiple {multiple}", alpha.denominator),
        ("bottleneck", f"{problem.bottleneck} at alpha {alpha}", inner.denominator),
    ):
        period = lcm(period, step)
        if period > most:
            raise SettingError.because(
                f"no width up to {MAX_WIDTH} fits {name}",
                got=value,
                allowed=f"C up to {most}, and {period} is the least that all of it fits",
                remedy="choose a smaller multiple, or ratios of smaller numbers",
                argument=name,
            )
    return period, most // period


def _least_params(problem: GroupsProblem, alpha: Fraction, period: int) -> Callable[[int], int]:
    """Return the function from n to the parameters that a full-field block at C = n x period needs.

    It never falls as n grows, and is defined above MAX_WIDTH too.
    """
    length = len(problem.composition)
    layers = tuple(each.layer for each in problem.chain[:length])
    block = Block(layers, problem.composition.repeats)

    def least(n: int) -> int:
        channels = n * period
        sized = block.at(channels, int(alpha * channels), problem.bottleneck, problem.dims)
        return ceil(_least_of(sized))

    return least


def _least_of(sized: SizedBlock) -> float:
    fixed, weights, missing = 0, [], float(sized.channels)
    reading_all = 0
    for layer in sized.layers:
        if layer.conv.takes_groups and layer.params:
            # With one group a layer has fan-in C_in: its parameters for every channel of fan-in.
            weights.append(layer.params / layer.fan_in)
        else:
            fixed += layer.params
            missing /= layer.fan_in
            reading_all += layer.conv.mixing
    # What two layers that read all leave missing falls as the width grows: it is left out.
    if not weights or missing <= 1 or reading_all > 1:
        return float(fixed + sum(weights))
    count = len(weights)
    mean = (missing * prod(weights)) ** (1 / count)
    # Rounded down a little: a float must not lift the bound above a whole number of parameters.
    return float(fixed + max(count * mean, sum(weights)) * (1 - 1e-9))


def _most_seen(problem: GroupsProblem) -> int:
    """Return how many channels an output can see at most; 0 when a layer has no legal choice.

    From the last layer down to the block's input: each passes on what its best choice reads, by
    the coverage function, and behind a shuffle by the fan-in.
    """
    # The least overlap is the widest step: it sees most.
    overlaps = (Fraction(0),) if problem.overlaps is None else problem.overlaps[:1]
    count, scattered = 1, False
    for stand_in in reversed(problem.chain):
        conv = stand_in.conv
        scattered = scattered or conv.scatters
        choices = [
            SizedLayer(
                Layer(conv.symbol, groups, overlap, stand_in.layer.kernel),
                stand_in.c_in,
                stand_in.c_out,
                stand_in.dims,
            )
            for groups, overlap in conv.choices(stand_in.c_in, stand_in.c_out, overlaps)
        ]
        seen = (_reads(layer, count, scattered) for layer in choices)
        count = min(stand_in.c_in, max(seen, default=0))
    return count


def _reads(layer: SizedLayer, count: int, scattered: bool) -> int:
    if scattered:
        return layer.fan_in * count
    return layer.conv.coverage_at(
        lambda n: n,
        count,
        channels=layer.c_in,
        c_in=layer.c_in,
        c_out=layer.c_out,
        groups=layer.groups,
        step=layer.step,
    )
