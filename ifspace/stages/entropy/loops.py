"""Compiled loops over layouts of bottlenecks: the relaxation's dynamic programme, and annealing.

Widths are numbers of steps of the problem: width `step * j` has the number j. Arrays of a problem:

* `logs` [widths + 1]: the logarithm of each width, 0 for number 0.
* `weights` [stages + 1, widths + 1]: what the score multiplies the entropy by at the end of the
  stem (row 0) and of each stage, by width; 0 where a stage does not count.
* `sides` [stages, 3]: pixels that enter and that leave, and 1.0 where the map is halved, else 0.0.
* `depths`, `widths` [.., 2]: least and most of each.
"""

from math import exp, log, sqrt
from typing import Any

import numpy as np
from numba import njit

# What no plan reaches; sums with it stay finite.
NOTHING = -1e300
# The entropy of the stem: half the logarithm of its 27 weights a filter.
STEM_ENTROPY = 0.5 * log(27.0)


@njit(cache=True)
def best_bottleneck(
    gain: float, linear: float, square: float, least: int, most: int, step: float, logs: Any
) -> tuple[float, int]:
    """Return the most of gain ln(b) - linear b - square b^2 over widths b = step j, and that j.

    It is concave in b: the best is one of the two multiples beside the root of its slope.
    """
    root = (sqrt(linear * linear + 8.0 * gain * square) - linear) / (4.0 * square)
    low = min(max(int(root / step), least), most)
    b = step * low
    best, number = gain * logs[low] - (linear + square * b) * b, low
    if low < most:
        b = step * (low + 1)
        value = gain * logs[low + 1] - (linear + square * b) * b
        if value > best:
            best, number = value, low + 1
    return best, number


@njit(cache=True)
def stage_costs(
    sides: Any, c_in: float, c: float, depth: float, by_params: float, by_macs: float
) -> tuple[float, float, float]:
    """Return the price of a stage as constant + linear b + square k^2 b^2."""
    entering, leaving, halves = sides[0], sides[1], sides[2]
    more = depth - 1.0
    constant = by_params * (c_in * c + 4.0 * c + more * 2.0 * c) + by_macs * (
        entering * halves * c_in + leaving * (c_in * c + 6.0 * c + more * 3.0 * c)
    )
    linear = by_params * (c_in + c + 4.0 + more * (2.0 * c + 4.0)) + by_macs * (
        entering * (c_in + 3.0) + leaving * (c + 3.0 + more * (2.0 * c + 6.0))
    )
    return constant, linear, depth * (by_params + by_macs * leaving)


@njit(cache=True)
def backward(
    prices: Any,
    block_prices: Any,
    step: float,
    squeeze: int,
    growth: int,
    cell: float,
    kernels: Any,
    log_kernels: Any,
    logs: Any,
    weights: Any,
    sides: Any,
    depths: Any,
    widths: Any,
    values: Any,
    heights: Any,
    choices: Any,
) -> tuple[float, int, int]:
    """Maximise the priced score over all widths, bottlenecks, kernels and depths.

    `prices`: of a parameter and of a MAC, and what the entropy at the end is paid; `block_prices`
    [stages]: of a block.
    `values`, `heights` [stages + 1, widths + 1, cells]: the most that the stages behind width
    number j are worth, and the largest sum of their weights, for sums in a cell; `choices`
    [stages, widths + 1, cells, 2]: the next width and cell. All are written here.

    Returns the value, the stem's number and cell. A value is never below that of a plan: in a cell,
    the largest sum of weights stands for all.
    """
    stages, cells = len(sides), values.shape[2]
    by_params, by_macs, paid = prices[0], prices[1], prices[2]
    values[:] = NOTHING
    heights[:] = 0.0
    for c in range(widths[stages, 0], widths[stages, 1] + 1):
        place = int(weights[stages, c] / cell)
        values[stages, c, place] = 0.0
        heights[stages, c, place] = weights[stages, c]
    live = np.empty(cells, np.int64)
    for i in range(stages - 1, -1, -1):
        for c in range(widths[i + 1, 0], widths[i + 1, 1] + 1):
            count, top = 0, NOTHING
            # A plan that is worth less with smaller weights is never a part of the best.
            for place in range(cells - 1, -1, -1):
                if values[i + 1, c, place] > top:
                    top = values[i + 1, c, place]
                    live[count] = place
                    count += 1
            least = (c + squeeze - 1) // squeeze
            for p in range(max(widths[i, 0], (c + growth - 1) // growth), widths[i, 1] + 1):
                for end in range(2):
                    if end and depths[i, 0] == depths[i, 1]:
                        break
                    depth = float(depths[i, end])
                    constant, linear, square = stage_costs(
                        sides[i], step * p, step * c, depth, by_params, by_macs
                    )
                    constant += block_prices[i] * depth
                    entropy = 0.5 * (logs[p] + (depth - 1.0) * logs[c])
                    for n in range(count):
                        place = live[n]
                        weight = heights[i + 1, c, place] + paid
                        gain = weight * depth
                        inner = NOTHING
                        for k in range(len(kernels)):
                            value, _ = best_bottleneck(
                                gain, linear, square * kernels[k] ** 2, least, c, step, logs
                            )
                            inner = max(inner, value + gain * log_kernels[k])
                        total = inner + weight * entropy - constant + values[i + 1, c, place]
                        height = heights[i + 1, c, place] + weights[i, p]
                        own = int(height / cell)
                        if total > values[i, p, own]:
                            values[i, p, own] = total
                            choices[i, p, own, 0] = c
                            choices[i, p, own, 1] = place
                        heights[i, p, own] = max(heights[i, p, own], height)
    best, stem, cell_of_stem = NOTHING, 0, 0
    for p in range(widths[0, 0], widths[0, 1] + 1):
        for place in range(cells):
            if values[0, p, place] > NOTHING:
                total = values[0, p, place] + (heights[0, p, place] + paid) * STEM_ENTROPY
                total -= by_params * 29.0 * step * p + by_macs * 30.0 * sides[0, 0] * step * p
                if total > best:
                    best, stem, cell_of_stem = total, p, place
    return best, stem, cell_of_stem


@njit(cache=True)
def score(
    plan: Any,
    step: float,
    log_kernels_by_size: Any,
    logs: Any,
    weights: Any,
    sides: Any,
    spread: Any,
    limit: float,
    amounts: Any,
) -> float:
    """Return the score of a plan; write its parameters, MACs and excess of depth to `amounts`.

    `plan` [1 + 4 stages]: numbers of the stem's width, then of each stage's width, bottleneck,
    kernel and depth. `spread`: the price of uneven depths and the first stage whose depth counts
    in it. `limit`: the least of 2 H / d - ln d.
    """
    stages = len(sides)
    p = plan[0]
    params = 29.0 * step * p
    macs = 30.0 * sides[0, 0] * step * p
    entropy, depth, excess = STEM_ENTROPY, 1.0, 0.0
    total = weights[0, p] * entropy
    for i in range(stages):
        c, b, k, blocks = plan[1 + 4 * i], plan[2 + 4 * i], plan[3 + 4 * i], plan[4 + 4 * i]
        width = step * b
        constant, linear, square = stage_costs(
            sides[i], step * p, step * c, float(blocks), 1.0, 0.0
        )
        params += constant + (linear + square * k * k * width) * width
        constant, linear, square = stage_costs(
            sides[i], step * p, step * c, float(blocks), 0.0, 1.0
        )
        macs += constant + (linear + square * k * k * width) * width
        entropy += 0.5 * (logs[p] + (blocks - 1.0) * logs[c])
        entropy += blocks * (logs[b] + log_kernels_by_size[k])
        depth += 3.0 * blocks
        excess += max(0.0, depth * (log(depth) + limit) - 2.0 * entropy)
        total += weights[i + 1, c] * entropy
        p = c
    first = int(spread[1])
    if first < stages:
        mean = 0.0
        for i in range(first, stages):
            mean += plan[4 + 4 * i]
        mean /= stages - first
        variance = 0.0
        for i in range(first, stages):
            variance += (plan[4 + 4 * i] - mean) ** 2
        total -= spread[0] * exp(sqrt(variance / (stages - first)))
    amounts[0], amounts[1], amounts[2] = params, macs, excess
    return float(total)


@njit(cache=True)
def is_allowed(plan: Any, squeeze: int, growth: int, depths: Any, widths: Any) -> bool:
    """Return whether a plan keeps all limits but those of its amounts."""
    p = plan[0]
    if p < widths[0, 0] or p > widths[0, 1]:
        return False
    for i in range(len(depths)):
        c, b, blocks = plan[1 + 4 * i], plan[2 + 4 * i], plan[4 + 4 * i]
        if c < widths[i + 1, 0] or c > widths[i + 1, 1] or c > growth * p:
            return False
        if b > c or squeeze * b < c or blocks < depths[i, 0] or blocks > depths[i, 1]:
            return False
        p = c
    return True


@njit(cache=True)
def anneal(
    start: Any,
    seed: int,
    steps: int,
    unit: float,
    hot: float,
    cold: float,
    budgets: Any,
    step: float,
    squeeze: int,
    growth: int,
    kernels: Any,
    log_kernels_by_size: Any,
    logs: Any,
    weights: Any,
    sides: Any,
    depths: Any,
    widths: Any,
    spread: Any,
    limit: float,
) -> tuple[float, Any]:
    """Return the best plan that simulated annealing meets, and its score.

    `unit`: about the best score; `hot`, `cold`: temperatures at the ends, as shares of it. Plans
    over a budget are walked through at a price, and never returned; without a plan the score is
    `NOTHING`.
    """
    np.random.seed(seed)
    amounts = np.zeros(3)
    now, plan = start.copy(), start.copy()
    value = score(now, step, log_kernels_by_size, logs, weights, sides, spread, limit, amounts)
    best, best_plan = NOTHING, start.copy()
    if amounts[0] <= budgets[0] and amounts[1] <= budgets[1] and amounts[2] <= 0.0:
        best = value
    worth = value - 10.0 * unit * max(0.0, amounts[0] / budgets[0] - 1.0)
    worth -= 10.0 * unit * max(0.0, amounts[1] / budgets[1] - 1.0) + 0.01 * unit * amounts[2]
    for turn in range(steps):
        heat = unit * hot * (cold / hot) ** (turn / steps)
        plan[:] = now
        for _ in range(np.random.randint(1, 4)):
            place = np.random.randint(0, len(plan))
            sign = 2 * np.random.randint(0, 2) - 1
            what = (place - 1) % 4
            if place == 0:
                plan[0] += sign
            elif what == 0:
                size = np.random.randint(0, 4)
                plan[place] += sign * (1 if size == 0 else 2 if size == 1 else 4 * size - 4)
            elif what == 1:
                plan[place] += sign * np.random.randint(1, 4)
            elif what == 2:
                plan[place] = kernels[np.random.randint(0, len(kernels))]
            else:
                plan[place] += sign * np.random.randint(1, 3)
        if not is_allowed(plan, squeeze, growth, depths, widths):
            continue
        value = score(plan, step, log_kernels_by_size, logs, weights, sides, spread, limit, amounts)
        over = max(0.0, amounts[0] / budgets[0] - 1.0) + max(0.0, amounts[1] / budgets[1] - 1.0)
        own = value - 10.0 * unit * over - 0.01 * unit * amounts[2]
        if own >= worth or np.random.random() < exp((own - worth) / heat):
            now[:] = plan
            worth = own
            if value > best and over <= 0.0 and amounts[2] <= 0.0:
                best = value
                best_plan[:] = plan
    if best == NOTHING:
        return best, best_plan
    # The best of all plans that differ in two numbers by up to two, while there is a better one.
    is_better = True
    while is_better:
        is_better = False
        now[:] = best_plan
        for i in range(len(now)):
            for j in range(i):
                for pair in range(25):
                    plan[:] = now
                    plan[i] = _moved(now, i, pair // 5 - 2, kernels)
                    plan[j] = _moved(now, j, pair % 5 - 2, kernels)
                    if not is_allowed(plan, squeeze, growth, depths, widths):
                        continue
                    value = score(
                        plan,
                        step,
                        log_kernels_by_size,
                        logs,
                        weights,
                        sides,
                        spread,
                        limit,
                        amounts,
                    )
                    keeps = amounts[0] <= budgets[0] and amounts[1] <= budgets[1]
                    if keeps and amounts[2] <= 0.0 and value > best:
                        best, is_better = value, True
                        best_plan[:] = plan
    return best, best_plan


@njit(cache=True)
def _moved(plan: Any, place: int, by: int, kernels: Any) -> int:
    """Return a number of a plan moved by some steps; a kernel, to another one."""
    if place == 0 or (place - 1) % 4 != 2:
        return int(plan[place] + by)
    number = 0
    while kernels[number] != plan[place]:
        number += 1
    return int(kernels[(number + by) % len(kernels)])
