"""Layouts with floors: which blocks stages may have, what is satisfiable, what works instead."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ifspace import layout
from ifspace.block import Composition
from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.stages.problem import StagePlan

STAGES = {"stages": (32, 16, 8), "widths": (32, 64, 96), "params": 300_000, "max_depth": 4}
DENSE, COARSE, FINE = ("CONV", "DW+PW"), "DW+GPW(2)+SH(2)+GPW(2)", "GC(8)+SH(8)+GPW(4)"
LISTED = (*DENSE, COARSE, "GC(4)+SH(4)+GPW(4)", FINE)


def plan_of(blocks: tuple[str, ...] | tuple[tuple[str, ...], ...], floors: Floors) -> StagePlan:
    lists = blocks if isinstance(blocks[0], tuple) else (blocks,)
    return layout(**STAGES, blocks=lists, floors=floors).plans[0]


# The first stage is entered from the three channels of an image, the others from 32 and 64.
@pytest.mark.parametrize(
    ("floors", "allowed"),
    [
        (Floors(least_fan_in=16), (DENSE, (*DENSE, COARSE), LISTED[:4])),
        (Floors(least_fan_in=24), (DENSE, DENSE, (*DENSE, COARSE))),
        (Floors(most_groups=4), (DENSE, LISTED[:4], LISTED[:4])),
    ],
)
def test_a_layout_within_floors_is_that_of_the_blocks_that_meet_them(
    floors: Floors, allowed: tuple[tuple[str, ...], ...]
) -> None:
    assert plan_of(LISTED, floors).layout == plan_of(allowed, Floors()).layout


def test_open_groups_are_the_cheapest_within_the_floors() -> None:
    floors = Floors(least_fan_in=16)
    plan = plan_of((("CONV",), ("DW+GPW+SH+GPW",), ("DW+GPW+SH+GPW",)), floors)
    plan.check()
    composition = Composition.parse("DW+GPW+SH+GPW")
    for stage in plan.layout.stages[1:]:
        problem = GroupsProblem(composition, stage.width, floors=floors)
        assert stage.repeated.params == cheapest_groups(problem).plans[0].objective()
        assert stage.repeated.least_fan_in >= 16
    higher = replace(plan.problem, floors=Floors(least_fan_in=24))
    with pytest.raises(SettingError, match="of stage 2 is below the floors"):
        StagePlan(higher, plan.layout).check()


def test_floors_that_leave_a_stage_nothing_say_which_and_what_works(run: Callable) -> None:
    options = ("--stages", "32,16,8", "--widths", "32,64,96", "--params", "300k")
    run("layout", *options, "--blocks", "CONV", "--least-fan-in", 65).fails_with(
        "--least-fan-in leaves no block for some stage: got 65; allowed: up to 32; lower"
    )
    blocks = ("--blocks", "CONV;GPW+SH+GC;GPW+SH+GC", "--most-groups", 1)
    run("layout", *options, *blocks).fails_with("raise --most-groups to 2")


def test_what_is_satisfiable_is_said_before_solving(run: Callable) -> None:
    options = ("--stages", "32,16", "--widths", "32,64", "--blocks", "CONV", "--max-depth", 2)
    ended = run("layout", "--style", "bare", *options, "--params", "300k", "--least-fan-in", 16)
    # CONV of 3 to 32 and 32 to 64 channels; and one more in both stages.
    least, most = 9 * (3 * 32 + 32 * 64), 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    bounds = f"{least:,} to {most:,} parameters"
    assert f"layouts with at least 16 channels per filter: {bounds}" in ended.err


def test_the_least_fan_in_stands_beside_stages_and_layouts(run: Callable) -> None:
    options = ("--stages", "32,16", "--widths", "32,64", "--blocks", "CONV;DW+GPW(2)+SH(2)+GPW(4)")
    ended = run("layout", *options, "--style", "bare", "--params", "300k", "--format", "json")
    (plan,) = ended.json["plans"]
    # 32 channels of the second CONV, not the three of the image; 32 / 4 of the last GPW(4) at the
    # width that enters the stage.
    assert (plan["least_fan_in"], [x["least_fan_in"] for x in plan["stages"]]) == (8, [32, 8])
    assert ended.json["floors"]["least_fan_in"] == 1
