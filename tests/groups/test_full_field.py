"""The default compositions against every choice of groups, and against the study of groups."""

import csv
import time
from pathlib import Path
from typing import Any

import brute_groups
import pytest
from brute_layers import KINDS

from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.errors import SettingError
from ifspace.groups import full_field
from ifspace.groups.full_field import (
    DEFAULT,
    POINTWISE,
    SPATIAL,
    ranked_blocks,
)
from ifspace.groups.problem import GroupsAnswer, GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.reach import channel_field

RESULTS = Path(__file__).resolve().parents[2] / "results"
recorded = pytest.mark.skipif(not RESULTS.exists(), reason="the results are not at hand")


def compositions(*texts: str) -> tuple[Composition, ...]:
    return tuple(map(Composition.parse, texts))


def least(text: str, c: int, f: int, **more: Any) -> int | None:
    return brute_groups.least(GroupsProblem(Composition.parse(text), c, f, **more))


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> list[GroupsProblem]:
    """The problems solved from here on; nothing is cached before."""
    solved: list[GroupsProblem] = []

    def watched(problem: GroupsProblem, **more: Any) -> GroupsAnswer:
        solved.append(problem)
        return cheapest_groups(problem, **more)

    monkeypatch.setattr(full_field, "cheapest_groups", watched)
    monkeypatch.setattr(full_field, "_PROVEN", {})
    return solved


@pytest.mark.parametrize(("c", "f"), [(8, 8), (12, 12), (16, 16), (8, 16), (16, 8), (12, 8)])
@pytest.mark.parametrize("more", [{}, {"stride": 2, "objective": "macs"}, {"kernel": 5}])
def test_every_default_composition_against_all_groups(c: int, f: int, more: dict[str, Any]) -> None:
    expected = {text: cost for text in SPATIAL if (cost := least(text, c, f, **more)) is not None}
    ranked = ranked_blocks(c, f, **more)
    assert {str(p.problem.composition): p.objective() for p in ranked} == expected
    costs = [plan.objective() for plan in ranked]
    assert costs == sorted(costs)
    for plan in ranked:
        assert channel_field(plan.sized.layers) == c
        assert (plan.sized.channels, plan.sized.out_channels) == (c, f)


@pytest.mark.parametrize(("c", "f"), [(8, 8), (12, 12), (16, 16), (8, 16), (16, 12)])
def test_convolutions_of_one_pixel_have_no_spatial_layer(c: int, f: int) -> None:
    ranked = ranked_blocks(c, f, kernel=1)
    assert {str(p.problem.composition): p.objective() for p in ranked} == {
        text: cost for text in POINTWISE if (cost := least(text, c, f, kernel=1)) is not None
    }
    # A stride needs a layer to sit on.
    more: dict[str, Any] = {"kernel": 1, "stride": 2}
    assert {str(p.problem.composition): p.objective() for p in ranked_blocks(c, f, **more)} == {
        text: cost for text in SPATIAL if (cost := least(text, c, f, **more)) is not None
    }


@pytest.mark.parametrize(("c", "f"), [(1, 1), (2, 2), (3, 64), (7, 13), (13, 26), (4, 2)])
def test_there_is_a_block_at_every_width(c: int, f: int) -> None:
    assert ranked_blocks(c, f)[0].objective() == min(
        cost for text in SPATIAL if (cost := least(text, c, f)) is not None
    )


@pytest.mark.slow
@pytest.mark.parametrize("side", [1, 3, 5, 7, 8, 10])
def test_a_side_counts_the_pixels_on_both_sides_of_the_stride(side: int) -> None:
    # Each legal block, its MACs counted layer by layer.
    for c, f in ((12, 12), (8, 16), (16, 8)):
        amounts = {}
        for text in SPATIAL:
            problem = GroupsProblem(Composition.parse(text), c, f, stride=2)
            for choice in brute_groups.full_choices(problem):
                before, total = True, 0
                for layer in Block.parse(choice.block).at(c, f).layers:
                    before = before and not KINDS[layer.layer.kind].spatial
                    total += layer.params * (side if before else (side + 1) // 2) ** 2
                amounts[choice.block] = total
        best = ranked_blocks(c, f, stride=2, side=side, objective="macs")[0]
        assert amounts[str(best.block)] == min(amounts.values())


def test_the_side_changes_the_cheapest_plan() -> None:
    names = compositions("PW+DW", "DW+PW")
    costs = {
        side: [
            str(plan.block)
            for plan in ranked_blocks(
                9, 4, stride=2, side=side, objective="macs", compositions=names
            )
        ]
        for side in (1, 2)
    }
    # On one pixel there is none to be saved: 36 + 36 before 81 + 36.
    assert costs == {1: ["PW+DW", "DW+PW"], 2: ["DW+PW", "PW+DW"]}


@pytest.mark.slow
@recorded
def test_no_composition_of_the_study_is_cheaper_than_those_of_as_many_layers() -> None:
    with (RESULTS / "groups-study.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["K"]]
    studied = {(row["composition"], row["C"], row["F"]): int(row["params"]) for row in rows}
    pairs = {(row["C"], row["F"]) for row in rows}
    assert len(pairs) == 10
    for c, f in pairs:
        plans = ranked_blocks(int(c), int(f))
        ranked = {str(plan.problem.composition): plan.objective() for plan in plans}
        for text, cost in ranked.items():
            assert studied.get((text, c, f), cost) == cost
        for layers in (2, 3, 4):
            costs = [
                cost
                for (text, *at), cost in studied.items()
                if at == [c, f] and len(Composition.parse(text)) == layers
            ]
            default = [
                cost for text, cost in ranked.items() if len(Composition.parse(text)) == layers
            ]
            assert costs
            assert min(default) == min(costs)


@recorded
def test_the_best_of_the_catalogue_at_64_channels() -> None:
    table = [line.split("|") for line in (RESULTS / "best-64.md").read_text().splitlines()]
    blocks = {row[3].strip(): int(row[4]) for row in table if row[1].strip() == "64"}
    best = ranked_blocks(64, 64)[0]
    assert len(blocks) == 46  # the networks of up to four layers
    assert blocks[str(best.block)] == best.objective() == min(blocks.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("c", "f", "limit"),
    [
        (64, 64, 1),
        (128, 128, 1),
        (256, 256, 1),
        (512, 512, 1),
        (64, 128, 1),
        (256, 512, 1),
        (1024, 1024, 3),
        (720, 720, 3),
    ],
)
def test_widths_in_use_take_a_moment(
    c: int, f: int, limit: int, problems: list[GroupsProblem]
) -> None:
    begun = time.monotonic()
    assert ranked_blocks(c, f)
    # With room for whatever else the machine does.
    assert time.monotonic() - begun < 5 * limit
    assert len(problems) == len(SPATIAL)


def test_of_equal_cost_the_fewest_layers_then_the_fewest_windows_then_the_first() -> None:
    longer, shorter = compositions("DW+GPW+SH+GPW", "DW+RPW+GPW")
    for both in ((longer, shorter), (shorter, longer)):
        best = ranked_blocks(64, 64, compositions=both)[0]
        assert str(best.problem.composition) == "DW+RPW+GPW"
    names = compositions("RPW+DW+RPW", "DW+RPW+RPW", "RPW+DW+GPW", "DW+RPW+RPW")
    assert [str(p.problem.composition) for p in ranked_blocks(64, 64, compositions=names)] == [
        "RPW+DW+GPW",
        "RPW+DW+RPW",
        "DW+RPW+RPW",
    ]


def test_compositions_that_do_not_fit_are_left_out() -> None:
    names = compositions("DW+SH", "PW", "GC+GPW", "DW+PW")
    assert [str(plan.block) for plan in ranked_blocks(8, 16, compositions=names)] == ["DW+PW"]
    assert ranked_blocks(8, 16, compositions=compositions("DW+SH", "PW")) == ()
    assert ranked_blocks(8, 16, compositions=()) == ()


def test_a_proven_plan_is_not_searched_again(
    problems: list[GroupsProblem],
) -> None:
    ranked = ranked_blocks(48, 48)
    solved = len(problems)
    assert solved > 0
    assert ranked_blocks(48, 48, time_limit_s=0) is ranked
    assert len(problems) == solved
    ranked_blocks(48, 48, stride=2)
    assert len(problems) > solved


def test_an_unproven_plan_is_searched_again(
    problems: list[GroupsProblem],
) -> None:
    assert ranked_blocks(40, 40, time_limit_s=0) == ()
    assert ranked_blocks(40, 40, time_limit_s=60) == ranked_blocks(40, 40) != ()


def test_at_the_time_limit_the_plans_found_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(problem: GroupsProblem, **more: Any) -> GroupsAnswer:
        if str(problem.composition) == "DW+PW":
            return cheapest_groups(problem, **more)
        return GroupsAnswer(Status.UNKNOWN, None, ())

    monkeypatch.setattr(full_field, "cheapest_groups", cut_short)
    monkeypatch.setattr(full_field, "_PROVEN", {})
    assert [str(plan.block) for plan in ranked_blocks(24, 24)] == ["DW+PW"]
    monkeypatch.undo()
    assert len(ranked_blocks(24, 24)) > 1


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((0, 8), "channels out of range"),
        ((8, 5000), "out_channels out of range"),
        ((8, 8, 2), "kernel is even"),
        ((8, 8, 3, 3), "stride out of range"),
        ((8, 8, 3, 2, 0, "macs"), "side out of range"),
        ((8, 8, 3, 1, None, "time"), "unknown objective"),
    ],
)
def test_values_out_of_range_are_an_error(values: tuple[Any, ...], error: str) -> None:
    with pytest.raises(SettingError, match=error):
        ranked_blocks(*values)


def test_the_default_compositions_are_a_spatial_and_a_pointwise_family() -> None:
    assert list(map(str, DEFAULT)) == [*SPATIAL, *POINTWISE]
    assert max(map(len, DEFAULT)) <= 4
