"""Bounds exclude no layout: every one above a threshold lies within its ranges."""

from itertools import accumulate, pairwise
from math import log

import brute_energy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import lambertw

from ifspace.energy.bounds import (
    Bounds,
    all_ranges,
    greatest_widths,
    log_log,
    thresholds,
)
from ifspace.energy.problem import EnergyProblem

problems = st.builds(
    EnergyProblem,
    st.integers(20, 500),
    repeats=st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple),
    inputs=st.integers(1, 4),
    at_most=st.booleans(),
    nondecreasing=st.booleans(),
    per=st.sampled_from(["unit", "convolution"]),
)


def value(problem: EnergyProblem, widths: tuple[int, ...]) -> float:
    return sum(
        factor * log(log(width)) for factor, width in zip(problem.factors, widths, strict=True)
    )


def used(problem: EnergyProblem, widths: tuple[int, ...]) -> list[int]:
    """The weights up to and with each unit."""
    pairs = zip(pairwise((problem.inputs, *widths)), problem.units, strict=True)
    return list(accumulate(below * width + (n - 1) * width**2 for (below, width), n in pairs))


@pytest.mark.slow
@given(problems, st.floats(0, 1))
def test_no_layout_above_the_threshold_is_excluded(problem: EnergyProblem, part: float) -> None:
    layouts = [layout for layout in brute_energy.layouts(problem) if layout[0] > 1]
    values = sorted(value(problem, layout) for layout in layouts)
    if not layouts:
        return
    bounds = Bounds(problem)
    assert bounds.greatest >= values[-1] - 1e-12
    threshold = values[int(part * (len(values) - 1))]
    for ranges in (bounds.ranges(threshold), all_ranges(problem, (2, problem.budget))):
        for layout in layouts:
            if value(problem, layout) < threshold:
                continue
            units = zip(ranges[1:], layout, used(problem, layout), strict=False)
            for weights_by_width, width, weights in units:
                low, high = weights_by_width[width]
                assert low <= weights <= high


@pytest.mark.slow
@given(problems)
def test_the_greatest_width_of_each_unit(problem: EnergyProblem) -> None:
    layouts = list(brute_energy.layouts(problem))
    most = greatest_widths(problem)
    for unit, limit in enumerate(most):
        assert max((layout[unit] for layout in layouts), default=0) <= limit
        if problem.at_most and layouts:
            assert max(layout[unit] for layout in layouts) == limit


def test_thresholds_fall_to_the_least_energy_and_end() -> None:
    problem = EnergyProblem(4288, layers=4)
    *levels, last = thresholds(problem, 5.0)
    assert last is None
    assert all(before > after for before, after in pairwise(levels))  # type: ignore[operator]
    assert min(level for level in levels if level is not None) > 4 * log_log(2)


def test_a_threshold_above_all_leaves_nothing() -> None:
    bounds = Bounds(EnergyProblem(4288, layers=4))
    assert bounds.ranges(bounds.greatest + 0.1)[1:] == [{}, {}, {}]
    assert bounds.greatest == pytest.approx(log(174.56368489207426), rel=1e-6)


def priced_bound(problem: EnergyProblem, price: float) -> float:
    """The bound at a price, of layers of one convolution each, by the definition.

    The best last width x after `below` solves 1 / (x ln x) = price · below, so ln x = W(1 / that).
    """
    limits = greatest_widths(problem)[:-1]
    widths = np.arange(2.0, max(limits) + 1)
    last = np.maximum(np.exp(lambertw(1 / (price * widths)).real), widths + 1)
    above = np.log(np.log(last)) - price * widths * last
    between = np.where(widths[:, None] > widths, -price * np.outer(widths, widths), -np.inf)
    for limit in limits[:0:-1]:
        worth = np.where(widths <= limit, np.log(np.log(widths)) + above, -np.inf)
        above = (between + worth[:, None]).max(axis=0)
    first = np.log(np.log(widths)) - price * problem.inputs * widths + above
    return float(first[widths <= limits[0]].max()) + price * problem.budget


@pytest.mark.parametrize("layers", [2, 5, 12])
def test_no_other_price_has_a_lower_bound(layers: int) -> None:
    bounds = Bounds(EnergyProblem(20_000, layers=layers))
    assert bounds.greatest == pytest.approx(priced_bound(bounds.problem, bounds.price), abs=1e-9)
    for part in range(-40, 41):
        price = bounds.price * 1.05**part
        assert priced_bound(bounds.problem, price) >= bounds.greatest - 1e-9
    # One price only, when there is no time to try others: still a bound.
    assert Bounds(bounds.problem, deadline=0.0).greatest >= bounds.greatest
