"""The widest block of a budget against every width and every choice."""

from fractions import Fraction
from typing import Any

import brute_groups
import pytest

from ifspace.answer import Status
from ifspace.block import Composition
from ifspace.errors import BlockError, SettingError
from ifspace.groups import problem as problems
from ifspace.groups.problem import GroupsProblem, WidestProblem
from ifspace.groups.solve import least_params, most_channels_seen, widest_block


def widest(text: str, budget: int, *values: Any, **named: Any) -> WidestProblem:
    return WidestProblem(Composition.parse(text), budget, *values, **named)


def by_brute_force(problem: WidestProblem, most: int) -> tuple[int, int] | None:
    """The greatest width up to `most`, and the fewest parameters there."""
    for channels in range(most // problem.multiple * problem.multiple, 0, -problem.multiple):
        out_channels = problem.alpha * channels
        if out_channels.denominator != 1 or out_channels < 1:
            continue
        try:
            candidate = problem.at(channels)
        except (BlockError, SettingError):
            continue
        least = brute_groups.least(candidate)
        if least is not None and least <= problem.budget:
            return channels, least
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "budget", "alpha", "multiple", "more"),
    [
        ("DW+PW", 700, 1, 1, {}),
        ("DW+RPW+RPW", 600, 1, 1, {}),
        ("DW+RPW+RPW", 600, 1, 8, {}),
        ("GC+SH+GPW", 900, 2, 1, {}),
        ("GC+SH+GPW", 900, Fraction(3, 2), 4, {}),
        ("GPW+SH+DW+GPW", 500, 1, 1, {"bottleneck": Fraction(1, 4)}),
        ("PW+DW+PW", 500, Fraction(1, 2), 2, {"bottleneck": Fraction(1, 2)}),
        ("(DW+RPW)x2", 700, 1, 3, {}),
        ("DW+GPW", 700, 1, 1, {}),
        ("DW+PW", 9, 1, 1, {}),
        ("DW+RPW+RPW", 300, 1, 1, {"kernel": 5, "dims": 1, "overlaps": None}),
    ],
)
def test_no_wider_block_fits_the_budget(
    text: str,
    budget: int,
    alpha: Fraction,
    multiple: int,
    more: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 60
    monkeypatch.setattr(problems, "MAX_WIDTH", most)
    problem = widest(text, budget, alpha, multiple, **more)
    expected = by_brute_force(problem, most)
    answer = widest_block(problem)
    if expected is None:
        assert (answer.status, answer.plans) == (Status.INFEASIBLE, ())
        return
    (plan,) = answer.plans
    plan.check()
    assert expected[0] < most, "the budget should be what ends the search"
    assert (plan.problem.channels, plan.sized.params) == expected
    assert plan.problem.out_channels == alpha * plan.problem.channels
    assert (answer.status, answer.bound) == (Status.OPTIMAL, expected[1])


def test_the_params_of_the_cheapest_block_are_the_budget_of_its_width() -> None:
    (plan,) = widest_block(widest("DW+RPW+RPW", 1600, multiple=64)).plans
    assert (plan.problem.channels, plan.objective()) == (64, 1600)


def test_no_time_is_unknown() -> None:
    answer = widest_block(widest("DW+RPW+RPW", 1600), time_limit_s=0)
    assert (answer.status, answer.plans) == (Status.UNKNOWN, ())


def test_the_greatest_width_tried_is_in_the_answer_where_a_wider_block_may_fit() -> None:
    # 9 C + C**2 is the only choice of DW+PW: what 4097 channels cost is known.
    next_costs = 9 * 4097 + 4097**2
    for budget, up_to in ((next_costs - 1, None), (next_costs, 4096), (10**8, 4096)):
        answer = widest_block(widest("DW+PW", budget))
        assert (answer.plans[0].problem.channels, answer.up_to) == (4096, up_to)
    # Of multiples of 4095 the next is 8190; at F = 4 C it is F that ends the search.
    assert widest_block(widest("DW+PW", 8190**2, multiple=4095)).up_to is None
    answer = widest_block(widest("DW+PW", 9 * 1025 + 4 * 1025**2, alpha=4))
    assert (answer.plans[0].problem.channels, answer.up_to) == (1024, 4096)
    assert widest_block(widest("DW+PW", 9 * 1025 + 4 * 1025**2 - 1, alpha=4)).up_to is None


@pytest.mark.parametrize("text", ["GC+GPW", "GC+SH+GPW", "DW+RPW+RPW", "PW+PW+GPW", "(DW+RPW)x2"])
@pytest.mark.parametrize("alpha", [Fraction(1), Fraction(1, 20), Fraction(3, 2)])
def test_the_least_params_of_a_width_never_fall_and_are_a_bound(text: str, alpha: Fraction) -> None:
    problem = widest(text, 1, alpha, bottleneck=Fraction(1, 2) if text.startswith("PW") else None)
    period = problem.widths.step
    least = least_params(problem)
    amounts = [least(n * period) for n in range(1, 200)]
    assert amounts == sorted(amounts)
    for n in range(1, 60 // period):
        expected = brute_groups.least(problem.at(n * period))
        assert expected is None or amounts[n - 1] <= expected


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("GC+GPW", {}),
        ("GC+SH+GPW", {}),
        ("DW+RPW+RPW", {}),
        ("GPW+GPW+RPW", {}),
        ("RPW+GPW", {"out_channels": 36}),
        ("RPW+SH+RPW", {"overlaps": None}),
        ("GPW+DW+GPW", {"bottleneck": Fraction(1, 2)}),
        ("(DW+RPW)x2", {"overlaps": (Fraction(1, 2),)}),
    ],
)
@pytest.mark.parametrize("channels", [4, 6, 12, 16])
def test_a_width_that_is_skipped_has_no_plan(
    text: str, more: dict[str, Any], channels: int
) -> None:
    problem = GroupsProblem(Composition.parse(text), channels, **more)
    if most_channels_seen(problem) < channels:
        assert brute_groups.least(problem) is None


def test_the_most_channels_that_an_output_can_see() -> None:
    seen = [
        most_channels_seen(GroupsProblem(Composition.parse(text), channels))
        for text, channels in (("GC+GPW", 16), ("DW+RPW+RPW", 13), ("DW+RPW+RPW", 16), ("DW", 8))
    ]
    assert seen == [8, 0, 16, 1]


def test_progress_counts_the_widths() -> None:
    calls: list[tuple[int, int]] = []
    problem = widest("DW+RPW+RPW", 1600, multiple=8)
    widest_block(problem, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, calls[0][1]) for n in range(len(calls))]
    assert calls[0][1] >= len(calls) > 0
    assert calls[0][1] * 8 >= 64


@pytest.mark.parametrize(
    ("values", "bottleneck", "error"),
    [
        ((0,), None, "budget out of range: got 0"),
        ((-5,), None, "budget out of range: got -5"),
        ((100, 0), None, "alpha out of range: got 0; allowed: ratios above 0"),
        ((100, 1, 0), None, "multiple out of range: got 0"),
        ((100, 1, 4097), None, "no width up to 4096 fits multiple: got 4097"),
        ((100, Fraction(3333, 10000)), None, "fits alpha: got 3333/10000 .* 10000 is the least"),
        ((100, 4096, 2), None, "fits multiple: got 2"),
        ((100, 1, 2047), Fraction(1, 4), "fits bottleneck"),
    ],
)
def test_a_problem_without_a_legal_width_is_an_error(
    values: Any, bottleneck: Fraction | None, error: str
) -> None:
    with pytest.raises(SettingError, match=error):
        widest("PW+GPW", *values, bottleneck=bottleneck)


def test_the_greatest_multiple_that_a_bottleneck_fits_is_tried() -> None:
    problem = widest("PW+GPW", 100, 1, 2048, bottleneck=Fraction(1, 4))
    assert widest_block(problem).status is Status.INFEASIBLE
