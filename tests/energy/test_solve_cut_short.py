"""What is left of a search for the greatest energy when its time runs out."""

import random
import time
from collections.abc import Iterator
from typing import Any

import brute_energy
import pytest

from ifspace.answer import Status
from ifspace.energy import (
    Search,
    best_energy,
    exact,
    exact_energy,
)
from ifspace.energy import (
    solve as best,
)
from ifspace.energy.bounds import (
    Bounds,
    GaveUpError,
)
from ifspace.energy.cpsat import cpsat_energy
from ifspace.energy.problem import EnergyProblem

METHODS: tuple[Search, ...] = (exact_energy, cpsat_energy)


@pytest.mark.parametrize("search", METHODS)
def test_no_time_is_an_answer_without_a_plan(search: Search) -> None:
    answer = best_energy(EnergyProblem(66304, layers=10), search=search, time_limit_s=0)
    assert (answer.status, answer.plans) == (Status.UNKNOWN, ())
    assert answer.bound is not None
    assert answer.bound >= 3091499.175562869


def test_a_search_cut_short_keeps_what_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = EnergyProblem(66304, layers=4)
    whole = best_energy(asked, 30)
    rows, limit = exact.Prefixes._row, [0]

    def slow(self: Any, *place: Any) -> Any:
        limit[0] += 1
        if limit[0] > 250:
            raise GaveUpError
        return rows(self, *place)

    monkeypatch.setattr(exact.Prefixes, "_row", slow)
    cut = best_energy(asked, 30)
    assert cut.status is Status.OPTIMAL
    assert 0 < len(cut.plans) < 30
    assert cut.plans == whole.plans[: len(cut.plans)]
    assert cut.bound == whole.bound


def drawn(seed: int, count: int) -> Iterator[EnergyProblem]:
    draw = random.Random(seed)
    for _ in range(count):
        yield EnergyProblem(
            draw.randint(30, 500),
            repeats=tuple(draw.choice([1, 1, 2]) for _ in range(draw.randint(2, 4))),
            at_most=draw.random() < 0.5,
            nondecreasing=draw.random() < 0.4,
            per=draw.choice(["unit", "convolution"]),
        )


@pytest.mark.parametrize("tables", [0, 1, 3])
def test_the_greatest_energy_lies_between_the_plan_and_the_bound(
    monkeypatch: pytest.MonkeyPatch, tables: int
) -> None:
    made = [0]

    def few(*asked: Any, **named: Any) -> exact.Prefixes:
        made[0] += 1
        if made[0] > tables:
            raise GaveUpError
        return exact.Prefixes(*asked, **named)

    monkeypatch.setattr(best, "Prefixes", few)
    feasible = 0
    for asked in drawn(50 + tables, 80):
        made[0] = 0
        answer = best_energy(asked)
        ranking = brute_energy.ranking(asked)
        if answer.status is Status.UNKNOWN:
            assert answer.bound is not None
            assert answer.bound >= (ranking[0][0] if ranking else 0.0) * (1 - 1e-12)
        if answer.status is not Status.FEASIBLE:
            continue
        feasible += 1
        assert answer.bound is not None
        assert answer.plans[0].widths in {layout for _, layout in ranking}
        assert answer.plans[0].energy() <= ranking[0][0] * (1 + 1e-12)
        assert ranking[0][0] <= answer.bound * (1 + 1e-12)
    assert feasible > 5


def test_the_time_limit_is_kept_where_the_search_is_long() -> None:
    # Without a limit this one takes many seconds.
    asked = EnergyProblem(10**7, repeats=(1, 10, 10, 10))
    started = time.monotonic()
    answer = best_energy(asked, time_limit_s=0.5)
    assert time.monotonic() - started < 2.5
    assert answer.status is Status.UNKNOWN
    # The nearest budgets are not worth the wait either.
    assert best_energy(EnergyProblem(1000, layers=1), time_limit_s=0.0).below in (None, 999)


def test_a_deep_network_has_a_plan_and_a_bound_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = EnergyProblem(5_000_000, layers=60, at_most=True)
    proven = best_energy(asked)
    assert proven.status is Status.OPTIMAL

    def none(*_: Any) -> exact.Prefixes:
        raise GaveUpError

    monkeypatch.setattr(best, "Prefixes", none)
    answer = best_energy(asked)
    assert (answer.status, len(answer.plans)) == (Status.FEASIBLE, 1)
    assert proven.bound is not None
    assert answer.bound is not None
    assert 0.99 * proven.bound < answer.plans[0].energy() <= proven.bound <= answer.bound
    assert answer.bound < 1.001 * proven.bound


@pytest.mark.parametrize("layers", [2, 5, 12])
def test_no_other_price_has_a_lower_bound(layers: int) -> None:
    bounds = Bounds(EnergyProblem(20_000, layers=layers))
    for part in range(-40, 41):
        price = bounds.price * 1.05**part
        assert bounds._line(price)[0] >= bounds.greatest - 1e-9
    # One price only, when there is no time to try others: still a bound.
    assert Bounds(bounds.problem, deadline=0.0).greatest >= bounds.greatest
