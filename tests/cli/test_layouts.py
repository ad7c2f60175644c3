"""The organizer beside the layouts found: what of it counts, and what is said of it."""

from collections.abc import Callable

import pytest

SMALL = (
    "layout", "--stages", "8,4", "--depths", "2,2", "--widths", "8,16", "--inputs", 8, "--quiet",
)  # fmt: skip


def test_the_organizer_says_how_it_compares(run: Callable) -> None:
    out = run(*SMALL, "--params", 4000).out
    assert "the organizer's best within the budgets, 0." in out
    assert "less gain than the first" in out
    out = run(*SMALL, "--params", 2000).out
    assert "(o)     where the organizer ends; none of its states keeps the budgets" in out
    out = run(*SMALL, "--params", 4000, "--blocks", "GC(3),CONV").out
    assert "organizer  its first block does not fit the widths it starts from" in out
    # It keeps its own widths, which were not offered here.
    narrow = ("layout", "--stages", "8,4", "--depths", "2,2", "--widths", "4,4", "--inputs", 8)
    out = run(*narrow, "--params", "6k", "--width-choices", "16").out
    assert "0.2974 more gain than the first: not among the choices" in out
    assert "as much as the first" not in out


def test_the_best_state_within_the_budgets_stands_beside_the_end(run: Callable) -> None:
    # From 2, 2 to 3, 1: the first has 1,584 parameters, the end 2,016.
    asked = (*SMALL, "--widths", "8,4", "--params", "2k")
    beside = run(*asked, "--format", "json").json["organizer"]
    assert (beside["depths"], beside["params"], beside["within_budgets"]) == ([3, 1], 2016, False)
    within = beside["best_within_budgets"]
    assert (within["depths"], within["params"]) == ([2, 2], 1584)
    out = run(*asked).out
    assert "(o)     where it ends, beyond them" in out
    assert "o       the organizer's best within the budgets, " in out
    rows = [line.split()[:2] for line in out.splitlines()]
    assert ["o", "2,2"] in rows
    assert ["(o)", "3,1"] in rows


def test_a_state_deeper_than_asked_is_not_within(run: Callable) -> None:
    asked = (*SMALL, "--depths", "9,1", "--params", "1M", "--format", "json")
    assert run(*asked).json["organizer"]["within_budgets"] is True
    ended = run(*asked, "--max-depth", 3).json
    beside = ended["organizer"]
    assert (beside["within_budgets"], beside["best_within_budgets"]) == (False, None)
    assert (ended["plans"][0]["depths"], beside["difference"]) == ([3, 2], None)


@pytest.mark.parametrize("params", [1800, 3000, 4500, 7000, 9000])
@pytest.mark.parametrize("depths", ["1,4", "3,3", "6,1", "2,5"])
def test_the_organizer_never_gains_more_within_the_same(
    run: Callable, params: int, depths: str
) -> None:
    found = run(*SMALL, "--depths", depths, "--params", params, "--format", "json").json
    beside = found["organizer"]
    assert found["status"] == "optimal"
    if beside["best_within_budgets"] is not None:
        assert beside["best_within_budgets"]["params"] <= params
        assert found["bound"] >= beside["best_within_budgets"]["gain"] - 1e-9
        assert beside["difference"] >= -1e-9
