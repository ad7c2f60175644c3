"""The organizer beside the layouts found: what of it counts, and what is said of it."""

from collections.abc import Callable

import pytest

SMALL = (
    "layout",
    "--stages",
    "8,4",
    "--depths",
    "2,2",
    "--widths",
    "8,16",
    "--inputs",
    8,
    "--quiet",
)


def test_the_organizer_says_how_it_compares(run: Callable) -> None:
    out = run(*SMALL, "--params", 4000).out
    assert "the organizer's best within the budgets, 0." in out
    assert "less gain than the first" in out
    out = run(*SMALL, "--params", 2000).out
    assert "(o)        where the organizer ends; none of its states keeps the budgets" in out
    # It has the blocks and widths of the best layout, not those that the start was described with.
    narrow = ("layout", "--stages", "8,4", "--depths", "2,2", "--widths", "4,4", "--inputs", 8)
    found = run(*narrow, "--params", "9k", "--width-choices", "16", "--format", "json").json
    assert found["organizer"]["widths"] == found["plans"][0]["widths"] == [16, 16]
    assert found["organizer"]["difference"] >= 0


def test_a_layout_without_a_start_stands_alone(run: Callable) -> None:
    out = run("layout", "--stages", "8,4", "--params", "200k", "--quiet").out
    assert out.splitlines()[4].startswith("1  ")
    assert "organizer" not in out
    assert "the start" not in out
    run("layout", "--stages", "8,4").refused("no budget: got none of --params", "--depths")


def test_without_a_budget_those_of_the_start_are_kept(run: Callable) -> None:
    found = run(*SMALL, "--format", "json").json
    assert found["budgets"] == {"params": 4608, "macs": 129024}
    assert found["plans"][0]["gain"] >= found["organizer"]["best_within_budgets"]["gain"]


def test_the_first_block_of_a_stage_is_named_where_it_differs(run: Callable) -> None:
    asked = (*SMALL, "--params", "100k", "--blocks", "DW+GPW+SH+GPW", "--max-depth", 2)
    (plan,) = run(*asked, "--format", "json").json["plans"]
    assert plan["first_blocks"] != plan["blocks"]
    out = run(*asked).out
    assert all(f"  {block}" in out for block in {*plan["first_blocks"], *plan["blocks"]})


def test_what_is_left_and_what_stops_the_depth_are_said(run: Callable) -> None:
    out = run(*SMALL, "--params", "100k", "--max-depth", 2).out
    assert "stages 1 and 2 as deep as --max-depth allows" in out
    (plan,) = run(*SMALL, "--params", "100k", "--max-depth", 2, "--format", "json").json["plans"]
    assert f"left over  {100_000 - plan['params']:,} parameters" in out


def test_a_budget_too_small_is_told_the_least(run: Callable) -> None:
    ended = run(*SMALL, "--params", 100, "--layers", 1)
    assert ended.status == 3
    shallow = (*SMALL, "--depths", "1,1", "--max-depth", 1, "--format", "json")
    (least,) = run(*shallow).json["plans"]
    assert f"is {least['params']:,} parameters, {least['layers']} layers; raise" in ended.err


def test_the_best_state_within_the_budgets_stands_beside_the_end(run: Callable) -> None:
    # From 2, 2 to 3, 1: the first has 1,584 parameters, the end 2,016.
    asked = (*SMALL, "--widths", "8,4", "--params", "2k")
    beside = run(*asked, "--format", "json").json["organizer"]
    assert (beside["depths"], beside["params"], beside["within_budgets"]) == ([3, 1], 2016, False)
    within = beside["best_within_budgets"]
    assert (within["depths"], within["params"]) == ([2, 2], 1584)
    out = run(*asked).out
    assert "(o)        where it ends, beyond them" in out
    assert "o          the organizer's best within the budgets, " in out
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
