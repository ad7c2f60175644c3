from dataclasses import replace
from fractions import Fraction
from typing import Any

import brute_groups
import pytest

from ifspace.answer import Status
from ifspace.block import Composition
from ifspace.errors import BlockError, SettingError
from ifspace.groups import solve as widest
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import widest_block


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
    text: str,
    budget: int,
    alpha: Fraction,
    multiple: int,
    more: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def test_the_greatest_width_looked_at_is_said_where_a_wider_block_may_fit() -> None:
    # 9 C + C**2 is the only choice of DW+PW: what 4097 channels cost is known.
    asked, next_costs = GroupsProblem(Composition.parse("DW+PW"), 1), 9 * 4097 + 4097**2
    for budget, up_to in ((next_costs - 1, None), (next_costs, 4096), (10**8, 4096)):
        answer = widest_block(asked, budget)
        assert (answer.plans[0].problem.channels, answer.up_to) == (4096, up_to)
    # Of multiples of 4095 the next is 8190; at F = 4 C it is F that ends the search.
    assert widest_block(asked, 8190**2, multiple=4095).up_to is None
    answer = widest_block(asked, 9 * 1025 + 4 * 1025**2, alpha=4)
    assert (answer.plans[0].problem.channels, answer.up_to) == (1024, 4096)
    assert widest_block(asked, 9 * 1025 + 4 * 1025**2 - 1, alpha=4).up_to is None


@pytest.mark.parametrize("text", ["GC+GPW", "GC+SH+GPW", "DW+RPW+RPW", "PW+PW+GPW", "(DW+RPW)x2"])
@pytest.mark.parametrize("alpha", [Fraction(1), Fraction(1, 20), Fraction(3, 2)])
def test_what_a_width_needs_never_falls_and_is_a_bound(text: str, alpha: Fraction) -> None:
    neck = Fraction(1, 2) if text.startswith("PW") else None
    asked = GroupsProblem(Composition.parse(text), 2, bottleneck=neck)
    period = (alpha * (neck or 1)).denominator
    least = widest._least_params(asked, alpha, period)
    amounts = [least(n) for n in range(1, 200)]
    assert amounts == sorted(amounts)
    for n in range(1, 60 // period):
        here = replace(asked, channels=n * period, out_channels=int(alpha * n * period))
        found = brute_groups.least(here)
        assert found is None or amounts[n - 1] <= found


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
    asked = GroupsProblem(Composition.parse(text), channels, **more)
    if widest._most_seen(asked) < channels:
        assert brute_groups.least(asked) is None


def test_what_is_skipped_and_what_is_not() -> None:
    seen = [
        widest._most_seen(GroupsProblem(Composition.parse(text), channels))
        for text, channels in (("GC+GPW", 16), ("DW+RPW+RPW", 13), ("DW+RPW+RPW", 16), ("DW", 8))
    ]
    assert seen == [8, 0, 16, 1]


def test_progress_counts_the_widths() -> None:
    told: list[tuple[int, int]] = []
    asked = GroupsProblem(Composition.parse("DW+RPW+RPW"), 1)
    widest_block(asked, 1600, multiple=8, progress=lambda *each: told.append(each))
    assert told == [(n, told[0][1]) for n in range(len(told))]
    assert told[0][1] >= len(told) > 0
    assert told[0][1] * 8 >= 64


@pytest.mark.parametrize(
    ("given", "more", "said"),
    [
        ((0,), {}, "budget out of range: got 0"),
        ((-5,), {}, "budget out of range: got -5"),
        ((100, 0), {}, "alpha out of range: got 0; allowed: ratios above 0"),
        ((100, 1, 0), {}, "multiple out of range: got 0"),
        ((100,), {"widths": (8,)}, "no widths to look for"),
        ((100, 1, 4097), {}, "no width up to 4096 fits multiple: got 4097"),
        ((100, Fraction(3333, 10000)), {}, "fits alpha: got 3333/10000 .* 10000 is the least"),
        ((100, 4096, 2), {}, "fits multiple: got 2"),
        ((100, 1, 2048), {"bottleneck": Fraction(1, 4), "out_channels": 4}, None),
        ((100, 1, 2047), {"bottleneck": Fraction(1, 4), "out_channels": 4}, "fits bottleneck"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(
    given: Any, more: dict[str, Any], said: str | None
) -> None:
    asked = GroupsProblem(Composition.parse("PW+GPW"), 8, **more)
    if said is None:
        assert widest_block(asked, *given).status is Status.INFEASIBLE
        return
    with pytest.raises(SettingError, match=said):
        widest_block(asked, *given)
