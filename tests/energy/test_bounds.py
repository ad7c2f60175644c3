"""Bounds cut off no layout: every one above a threshold lies within its ranges."""

from itertools import accumulate, pairwise
from math import log

import brute_energy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.energy.bounds import (
    Bounds,
    all_ranges,
    log_log,
    most_widths,
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


@given(problems, st.floats(0, 1))
def test_no_layout_above_the_threshold_is_cut_off(problem: EnergyProblem, part: float) -> None:
    layouts = [each for each in brute_energy.layouts(problem) if each[0] > 1]
    values = sorted(value(problem, each) for each in layouts)
    if not layouts:
        return
    bounds = Bounds(problem)
    assert bounds.greatest >= values[-1] - 1e-12
    threshold = values[int(part * (len(values) - 1))]
    for ranges in (bounds.ranges(threshold), all_ranges(problem, (2, problem.budget))):
        for layout in layouts:
            if value(problem, layout) < threshold:
                continue
            places = zip(ranges[1:], layout, used(problem, layout), strict=False)
            for wanted, width, weights in places:
                low, high = wanted[width]
                assert low <= weights <= high


@given(problems)
def test_the_greatest_width_of_each_unit(problem: EnergyProblem) -> None:
    layouts = list(brute_energy.layouts(problem))
    most = most_widths(problem)
    for place, limit in enumerate(most):
        assert max((each[place] for each in layouts), default=0) <= limit
        if problem.at_most and layouts:
            assert max(each[place] for each in layouts) == limit


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
