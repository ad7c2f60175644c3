from dataclasses import replace
from fractions import Fraction
from typing import Any

import brute_groups
import pytest

from ifspace.block import Composition
from ifspace.errors import BlockError, SettingError
from ifspace.optimize import widest
from ifspace.optimize.widest import widest_block
from ifspace.plan.groups import GroupsProblem, Status


def by_brute_force(
    asked: GroupsProblem, budget: int, alpha: Fraction, multiple: int, most: int
) -> tuple[int, int] | None:
    """The greatest width up to `most`, and the fewest parameters there."""
    for channels in range(most // multiple * multiple, 0, -multiple):
        out = alpha * channels
        if out.denominator != 1 or out < 1:
            continue
        try:
            here = replace(asked, channels=channels, out_channels=int(out))
        except (BlockError, SettingError):
            continue
        least = brute_groups.least(here)
        if least is not None and least <= budget:
            return channels, least
    return None


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
    text: str, budget: int, alpha: Fraction, multiple: int, more: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    most = 60
    monkeypatch.setattr(widest, "MAX_WIDTH", most)
    stand_in = Fraction(more.get("bottleneck", 1)).denominator
    asked = GroupsProblem(Composition.parse(text), stand_in, **more)
    expected = by_brute_force(asked, budget, Fraction(alpha), multiple, most)
    answer = widest_block(asked, budget, alpha, multiple)
    if expected is None:
        assert (answer.status, answer.plans) == (Status.INFEASIBLE, ())
        return
    (plan,) = answer.plans
    plan.check()
    assert expected[0] < most, "the budget should be what ends the search"
    assert (plan.problem.channels, plan.sized.params) == expected
    assert plan.problem.out_channels == alpha * plan.problem.channels
    assert (answer.status, answer.bound) == (Status.OPTIMAL, expected[1])


def test_a_budget_finds_the_width_that_it_came_from() -> None:
    asked = GroupsProblem(Composition.parse("DW+RPW+RPW"), 1, objective="macs")
    (plan,) = widest_block(asked, 1600, multiple=64).plans
    assert (plan.problem.channels, plan.objective()) == (64, 1600)


def test_no_time_is_unknown() -> None:
    asked = GroupsProblem(Composition.parse("DW+RPW+RPW"), 1)
    answer = widest_block(asked, 1600, time_limit_s=0)
    assert (answer.status, answer.plans) == (Status.UNKNOWN, ())


@pytest.mark.parametrize(
    ("given", "more"),
    [((0,), {}), ((-5,), {}), ((100, 0), {}), ((100, 1, 0), {}), ((100,), {"widths": (8,)})],
)
def test_what_cannot_be_looked_for_is_refused(given: Any, more: dict[str, Any]) -> None:
    asked = GroupsProblem(Composition.parse("PW+GPW"), 8, **more)
    with pytest.raises(SettingError, match="no widths to look for"):
        widest_block(asked, *given)
