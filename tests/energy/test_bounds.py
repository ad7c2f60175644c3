"""Bounds exclude no layout: every one above a threshold lies within its ranges."""

from itertools import accumulate, pairwise
from math import log

import brute_energy
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("layers", [2, 5, 12])
def test_no_other_price_has_a_lower_bound(layers: int) -> None:
    bounds = Bounds(EnergyProblem(20_000, layers=layers))
    for part in range(-40, 41):
        price = bounds.price * 1.05**part
        assert bounds._line(price)[0] >= bounds.greatest - 1e-9
    # One price only, when there is no time to try others: still a bound.
    assert Bounds(bounds.problem, deadline=0.0).greatest >= bounds.greatest
