"""Search layouts of the most entropy, and prove how far from the best they can be.

Plans come from simulated annealing. The bound comes from a relaxation (a Lagrangian): what must
not exceed a limit is paid for instead, at prices. Parameters and MACs have a price each. The limit
of the depth at the end is convex in the depth, so a price of the limit and one of a layer stand for
one of its tangents; so do prices of blocks for what uneven depths cost. What is left is a chain of
stages. The score multiplies the entropy of a block by the weights of all stages from its own on, so
a dynamic programme from the last stage to the stem has states of a width and a sum of weights, kept
in cells of which the largest sum counts. In a stage the best bottleneck is where the slope of a
concave function is 0, and the best depth an end of its range, since the price is linear in it.

Any prices give a bound, which is convex in them; cutting planes find the least. Branch and bound
divides the ranges of depths, then of the last width.

Rounding: the programme is worth at least what its own operations give any plan. That is a sum of
fewer than `_OPERATIONS` floating-point results a stage, so it is off by less than so many units of
2^-53 of the sum of the amounts in it: what the entropy of the plan earns, and what its parameters,
MACs and blocks pay. A plan within the budgets pays at most their prices, so there is a largest sum
for all of them; the bound is raised by its error.

Reference: DeepMAD (arXiv 2303.02165) for the problem; the relaxation is beyond it.
"""

import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import exp, floor, inf, log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ifspace.answer import Answer, Status
from ifspace.compiled import interruptible
from ifspace.cpsat import least_of_cuts
from ifspace.stages.entropy import loops
from ifspace.stages.entropy.problem import Bottlenecks, EntropyPlan, EntropyProblem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The gap at which the proof may end, as a share of the score.
GAP: Final = 0.02
# Width of a cell of sums of weights: coarse, which is four times as fast, while bound and score are
# further apart than `_NEAR`.
COARSE: Final = 1.0
FINE: Final = 0.25
_NEAR: Final = 0.025
STEPS: Final = 1_500_000
SEEDS: Final = 4
# Boxes for each annealing behind the first `SEEDS`.
_TURNS: Final = 3
HOT: Final = 0.2
COLD: Final = 2e-5
# Floating-point operations that a stage, or the rest of a bound, takes; about 60 are counted.
_OPERATIONS: Final = 200
_CUTS: Final = 40
# Blocks of all stages beyond which the price of a layer is not raised.
_DEEP: Final = 100.0
# Blocks by which depths may differ on average before widths are divided instead.
_AGREED: Final = 0.75
# Of the gap between bound and score: a box is divided once more cuts lower it by less.
_ENOUGH: Final = 0.1


@dataclass(frozen=True, eq=False)
class Tables:
    """A problem as the compiled loops read it; see `loops`."""

    problem: EntropyProblem
    logs: Floats = field(init=False)
    weights: Floats = field(init=False)
    sides: Floats = field(init=False)
    widths: Ints = field(init=False)
    depths: Ints = field(init=False)
    kernels: Floats = field(init=False)
    log_kernels: Floats = field(init=False)
    log_kernels_by_size: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Compute the tables once."""
        problem = self.problem
        step = problem.step
        most = max(wide for _, wide in problem.widths) // step
        logs = np.zeros(most + 1)
        logs[1:] = np.log(step * np.arange(1, most + 1))
        sides = np.array(problem.sides, dtype=float)
        ratios = np.array(problem.ratios, dtype=float)
        strides = np.array(problem.strides)
        widths = [(-(-problem.stem_widths[0] // step), problem.stem_widths[1] // step)]
        for narrow, wide in problem.widths:
            widths.append((-(-narrow // step), min(wide // step, problem.growth * widths[-1][1])))
        by_size = np.zeros(max(problem.kernels) + 1)
        by_size[list(problem.kernels)] = np.log(problem.kernels)
        for name, values in {
            "logs": logs,
            "weights": ratios[:, None] * (logs + 2 * np.log(sides)[:, None]),
            "sides": np.stack([sides[:-1] ** 2, sides[1:] ** 2, strides > 1], axis=1).astype(float),
            "widths": np.array(widths),
            "depths": np.array(problem.depths),
            "kernels": np.array(problem.kernels, dtype=float),
            "log_kernels": np.log(problem.kernels),
            "log_kernels_by_size": by_size,
        }.items():
            object.__setattr__(self, name, values)

    @property
    def limit(self) -> float:
        """The least of 2 H / d - ln d at the end of a stage."""
        return -log(self.problem.effectiveness)

    def plan_of(self, numbers: Ints) -> EntropyPlan:
        """Return the plan of an array as in `loops.score`."""
        step = self.problem.step
        stem, *rest = (int(number) for number in numbers)
        return EntropyPlan(
            step * stem,
            tuple(
                Bottlenecks(step * rest[i], step * rest[i + 1], rest[i + 2], rest[i + 3])
                for i in range(0, len(rest), 4)
            ),
        )

    def numbers_of(self, plan: EntropyPlan) -> Ints:
        """Return a plan as an array as in `loops.score`."""
        step = self.problem.step
        numbers = [plan.stem // step]
        for stage in plan.stages:
            numbers += [stage.width // step, stage.bottleneck // step, stage.kernel, stage.depth]
        return np.array(numbers)


def anneal(tables: Tables, seed: int, unit: float, steps: int = STEPS) -> EntropyPlan | None:
    """Return the best plan that an annealer meets in so many steps, None where it meets none.

    `unit`: about the score of the best plan.
    """
    problem = tables.problem
    value, numbers = loops.anneal(
        tables.numbers_of(problem.least_plan),
        seed,
        steps,
        unit,
        HOT,
        COLD,
        np.array([problem.params, problem.macs], dtype=float),
        float(problem.step),
        problem.squeeze,
        problem.growth,
        np.array(problem.kernels),
        tables.log_kernels_by_size,
        tables.logs,
        tables.weights,
        tables.sides,
        tables.depths,
        tables.widths,
        np.array([problem.uneven, problem.even_from - 1], dtype=float),
        tables.limit,
    )
    if value == loops.NOTHING:
        return None
    plan = tables.plan_of(numbers)
    # The loops compute with rounded numbers: a plan counts only by its own recount.
    return None if problem.why_not(plan) else plan


@dataclass(frozen=True, eq=False)
class _Box:
    """Ranges of depths and widths, and prices that were good for the box around it.

    Prices are those of a parameter, of a MAC, of the depth's limit and of a layer, and of a block
    of each stage but the last whose depths should be even: what these pay, the last one gets.
    """

    depths: Ints
    widths: Ints
    prices: Floats


@dataclass(frozen=True, eq=False)
class _Cut:
    """The relaxation at some prices: its value, slope, and what the plan of that value is."""

    value: float
    slope: Floats
    prices: Floats
    depths: Ints
    widths: Ints


class Bound:
    """Branch and bound over boxes; `value` is what no plan of the problem can exceed."""

    def __init__(self, tables: Tables, score: float) -> None:
        """Begin with one box of everything; `score`: about that of the best plan, above 0."""
        self.tables = tables
        problem = tables.problem
        cells = int(tables.weights.max(axis=1).sum() / FINE) + 2
        shape = len(problem.strides) + 1, len(tables.logs), cells
        self._memory = np.empty(shape), np.empty(shape), np.zeros((*shape, 2), dtype=np.int32)
        self._count = 0
        self._even = max(0, len(problem.strides) - problem.even_from + 1)
        # Depths that may differ for nothing have no prices.
        self._even *= problem.uneven > 0
        # Shares of the score that parameters, MACs and depth cost at good prices of released tasks.
        start = [0.3 * score / problem.params, 0.17 * score / problem.macs]
        start += [score / 240, 7 * score / 240, *[0.0] * (self._even - 1)]
        # Differences of prices that change the bound by about a hundredth.
        self._units = np.array(
            [
                0.01 * score / problem.params,
                0.01 * score / problem.macs,
                score / 24_000,
                score / 12_000,
                *[score / 1000] * (self._even - 1),
            ]
        )
        self._open: list[tuple[float, int, _Box]] = [
            (-inf, 0, _Box(tables.depths, tables.widths, np.array(start)))
        ]
        self.boxes = 0

    @property
    def value(self) -> float:
        """The bound: no plan has a larger score."""
        return -float(self._open[0][0]) if self._open else -inf

    def improve(self, score: float) -> bool:
        """Replace the box with the largest bound by smaller ones, or by itself with a better one.

        `score`: of a plan; boxes that hold nothing better are left out. Returns whether more can
        follow: not where the box with the largest bound has nothing left to decide.
        """
        above, _, box = heapq.heappop(self._open)
        self.boxes += 1
        bound, cuts, shares = self._relax(box, -above, score)
        if bound <= score:
            heapq.heappush(self._open, (-score, self._next(), box))
            return True
        best = min(cuts, key=lambda cut: cut.value)
        children = list(self._split(replace(box, prices=best.prices), cuts, shares))
        for child in children or [box]:
            heapq.heappush(self._open, (-bound, self._next(), child))
        return bool(children)

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _relax(self, box: _Box, above: float, score: float) -> tuple[float, list[_Cut], Floats]:
        """Return the bound of a box, the cuts, and their shares in the least of all prices."""
        cuts: list[_Cut] = []
        prices, reach = box.prices, 0.3
        # Of a layer's price over the limit's: at the least and the most layers of a box.
        low_ratio, high_ratio = (
            log(1.0 + 3.0 * min(_DEEP, float(depths.sum()))) + self.tables.limit + 1.0
            for depths in box.depths.T
        )
        rows = np.zeros((2, len(prices)))
        rows[0, 2:4] = low_ratio, -1.0
        rows[1, 2:4] = -high_ratio, 1.0
        cell = FINE if above < score * (1 + _NEAR) else COARSE
        while True:
            cut = self._cut(box, prices, cell)
            if cuts and cut.value >= min(other.value for other in cuts):
                reach *= 0.7
            cuts.append(cut)
            best = min(cuts, key=lambda other: other.value)
            bound = min(above, best.value)
            if bound <= score:
                return bound, cuts, np.eye(len(cuts))[-1]
            sizes = reach * np.maximum(np.abs(best.prices), self._units)
            low = best.prices - sizes
            low[:3] = np.maximum(low[:3], 1e-9)
            floor_value, prices, shares = least_of_cuts(
                np.array([other.value for other in cuts]),
                np.array([other.slope for other in cuts]),
                np.array([other.prices for other in cuts]),
                low,
                best.prices + sizes,
                rows,
            )
            enough = max(_ENOUGH * (bound - score), 1e-5 * bound)
            if best.value - floor_value < enough or len(cuts) == _CUTS:
                return bound, cuts, shares

    def _cut(self, box: _Box, prices: Floats, cell: float) -> _Cut:
        """Return the relaxation of a box at prices."""
        tables, problem = self.tables, self.tables.problem
        by_limit, by_layer = float(prices[2]), float(prices[3])
        uneven = np.append(prices[4:], -prices[4:].sum()) if self._even else np.zeros(0)
        first = len(problem.strides) - self._even
        block_prices = np.full(len(problem.strides), 3.0 * by_layer)
        block_prices[first:] += uneven
        values, heights, choices = self._memory
        best, stem, place = loops.backward(
            np.array([prices[0], prices[1], 2.0 * by_limit]),
            block_prices,
            float(problem.step),
            problem.squeeze,
            problem.growth,
            cell,
            tables.kernels,
            tables.log_kernels,
            tables.logs,
            tables.weights,
            tables.sides,
            box.depths,
            box.widths,
            values,
            heights,
            choices,
        )
        if best == loops.NOTHING:
            return _Cut(-inf, np.zeros(len(prices)), prices, box.depths[:, 0], box.widths[:, 0])
        # p (2 H - d (ln d + limit)) >= 0 is at most 2 p H - q d + p e, with the best d at price q.
        deep = exp(by_layer / by_limit - tables.limit - 1.0)
        # U exp(s) >= U exp(t) + size (s - t) at the best spread t, and size s >= prices . depths.
        size = self._even**0.5 * float(np.linalg.norm(uneven))
        spread = _least_spread(box.depths[first:])
        if size > problem.uneven > 0:
            spread = max(spread, log(size / problem.uneven))
        budgets = float(prices[0] * problem.params + prices[1] * problem.macs)
        uneven_cost = problem.uneven * exp(spread) if self._even else 0.0
        value = best + budgets + by_limit * deep - by_layer - (uneven_cost - size * spread)
        blocks = box.depths[:, 1].astype(float)
        entropy = 1.5 * float(tables.logs[-1]) + float(tables.log_kernels.max())
        earned = float(tables.weights.max(axis=1).sum() + 2 * by_limit) * (
            loops.STEM_ENTROPY + float(blocks.sum()) * entropy
        )
        paid = budgets + float(np.abs(block_prices) @ blocks)
        others = by_limit * deep + abs(by_layer) + uneven_cost + size * spread
        operations = _OPERATIONS * (len(problem.strides) + 1)
        value += operations * 2.0**-53 * (earned + paid + budgets + others)
        numbers = self._numbers(box, prices, block_prices, stem, place)
        plan = tables.plan_of(numbers)
        depths = numbers[4::4]
        tilt = spread * self._even**0.5 * uneven / max(float(np.linalg.norm(uneven)), 1e-9)
        by_uneven = tilt - depths[first:]
        slope = [
            problem.params - problem.params_of(plan),
            problem.macs - problem.macs_of(plan),
            2 * problem.entropies(plan)[-1] + (1 - by_layer / by_limit) * deep,
            deep - (1 + 3 * depths.sum()),
            *(by_uneven[:-1] - by_uneven[-1:]),
        ]
        return _Cut(
            value, np.array(slope, dtype=float), prices, depths, np.append(stem, numbers[1::4])
        )

    def _numbers(
        self, box: _Box, prices: Floats, block_prices: Floats, stem: int, cell: int
    ) -> Ints:
        """Return the plan that has the value of the relaxation, by the choices on the way."""
        tables, problem = self.tables, self.tables.problem
        _, _, choices = self._memory
        widths, p = [stem], stem
        for i in range(len(problem.strides)):
            p, cell = (int(number) for number in choices[i, p, cell])
            widths.append(p)
        sums = np.cumsum([tables.weights[i, w] for i, w in enumerate(widths)][::-1])[::-1]
        numbers = [stem]
        for i, (p, c) in enumerate(pairwise(widths)):
            weight = sums[i + 1] + 2.0 * prices[2]
            best = (-inf, 0, 0, 0)
            for depth in {int(end) for end in box.depths[i]}:
                step = float(problem.step)
                constant, linear, square = loops.stage_costs(
                    tables.sides[i], step * p, step * c, float(depth), prices[0], prices[1]
                )
                base = weight * 0.5 * (tables.logs[p] + (depth - 1) * tables.logs[c]) - constant
                base -= block_prices[i] * depth
                for kernel in problem.kernels:
                    value, b = loops.best_bottleneck(
                        weight * depth,
                        linear,
                        square * kernel**2,
                        -(-c // problem.squeeze),
                        c,
                        step,
                        tables.logs,
                    )
                    value += base + weight * depth * log(kernel)
                    best = max(best, (value, b, kernel, depth))
            numbers += [c, *best[1:]]
        return np.array(numbers)

    def _split(self, box: _Box, cuts: list[_Cut], shares: Floats) -> Iterator[_Box]:
        """Yield two boxes that together hold all plans of one; none where all is decided.

        Depths that the plans of the relaxation disagree about come first, then widths, the last
        stage's first: its weight is the largest.
        """
        depths, widths = (
            sum(share * getattr(cut, name) for share, cut in zip(shares, cuts, strict=True))
            for name in ("depths", "widths")
        )
        spread = sum(
            share * np.abs(cut.depths - depths) for share, cut in zip(shares, cuts, strict=True)
        )
        is_open = box.depths[:, 1] > box.depths[:, 0]
        stage = int(np.argmax(np.where(is_open, spread, -1.0)))
        wide = np.flatnonzero(box.widths[:, 1] > box.widths[:, 0])
        if is_open[stage] and (spread[stage] > _AGREED or not len(wide)):
            for half in _halves(box.depths, stage, depths[stage]):
                yield replace(box, depths=half)
        elif len(wide):
            for half in _halves(box.widths, wide[-1], widths[wide[-1]]):
                yield replace(box, widths=half)


def _halves(ranges: Ints, row: int, mean: float) -> Iterator[Ints]:
    """Yield ranges [n, 2] with those of a row below a mean, and above it."""
    at = min(max(floor(mean), ranges[row, 0]), ranges[row, 1] - 1)
    for edge, value in ((1, at), (0, at + 1)):
        half = ranges.copy()
        half[row, edge] = value
        yield half


def _least_spread(depths: Ints) -> float:
    """Return the least standard deviation of numbers within ranges [n, 2].

    The deviation is the least root mean square distance from any point, so the least of all is that
    from the best point, and the distance is convex.
    """
    if not len(depths):
        return 0.0

    def distance(point: float) -> float:
        below = np.maximum(depths[:, 0] - point, 0.0)
        above = np.maximum(point - depths[:, 1], 0.0)
        return float(np.sqrt(np.mean(below**2 + above**2)))

    low, high = float(depths.min()), float(depths.max())
    for _ in range(100):
        third = (high - low) / 3
        if distance(low + third) <= distance(high - third):
            high -= third
        else:
            low += third
    # A little less than the least: never more than the truth.
    return max(0.0, distance(low) - 1e-6)


@interruptible()
def best_entropy(
    problem: EntropyProblem,
    gap: float = GAP,
    time_limit_s: float | None = None,
    report: Callable[[float, float, float], None] | None = None,
) -> Answer[EntropyPlan]:
    """Return the plan of the largest score that was found, and a score that none exceeds.

    The search ends once the bound is within a share `gap` of the score, or after `time_limit_s`.
    `report`: called with seconds, score and bound as they change. Budgets below those of the
    narrowest plan are infeasible; where no plan was found without such a proof, that is unknown.
    """
    start = time.monotonic()
    narrowest = problem.least_plan
    least = {"params": problem.params_of(narrowest), "macs": problem.macs_of(narrowest)}
    if least["params"] > problem.params or least["macs"] > problem.macs:
        return Answer(Status.INFEASIBLE, None, (), least=least)
    tables = Tables(problem)
    best: EntropyPlan | None = None
    # Of another order than the score, it only makes the first annealing hotter or colder.
    unit, score = 30 * loops.STEM_ENTROPY * float(tables.weights.max(axis=1).sum()), -inf
    bound: Bound | None = None
    seed, can_improve = 0, True
    while bound is None or (can_improve and bound.value > score + gap * abs(score)):
        if bound and time_limit_s is not None and time.monotonic() - start > time_limit_s:
            break
        if seed < SEEDS or (bound and seed * _TURNS < bound.boxes):
            plan, seed = anneal(tables, seed, unit), seed + 1
            if plan is not None and (own := problem.score_of(plan)) > score:
                best, score, unit = plan, own, own if own > 0 else unit
        else:
            bound = bound or Bound(tables, unit)
            can_improve = bound.improve(score)
            if report is not None:
                report(time.monotonic() - start, score, bound.value)
    if best is None:
        return Answer(Status.UNKNOWN, bound.value, (), least=least)
    status = Status.OPTIMAL if bound.value <= score else Status.FEASIBLE
    return Answer(status, bound.value, (best,))
