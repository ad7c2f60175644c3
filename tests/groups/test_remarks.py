import random
from collections.abc import Callable, Sequence

import pytest
from witness import random_block, reach_by_sets

from ifspace.block import Block, SizedLayer
from ifspace.groups.problem import (
    GroupPlan,
    GroupsProblem,
)
from ifspace.groups.text import (
    judge,
    remarks,
    spans,
)
from ifspace.show.describe import describe

BLOCKS = [
    ("DW+RPW(35,0)+SH(5)+GPW(8)", 280, 72),
    ("DW+GPW(35)+SH(35)+GPW(8)", 280, 72),
    ("DW+PW+SH(2)", 64, None),
    ("RPW(8,0)+GPW(8)", 64, None),
    ("DW+DW+RPW(8,0)+GPW(8)", 64, None),
    ("(DW+RPW(8,0))x2", 64, None),
    ("(DW+PW+SH(2))x2", 16, 32),
    ("GPW(2)+DW(5)+SH(4)+GPW(4)", 16, 8),
    ("DW+GPW(4)", 16, None),  # does not see all channels
]


def plan(text: str, channels: int, out: int | None = None, **more: object) -> GroupPlan:
    block = Block.parse(text)
    kernel = next((each.kernel for each in block.layers if each.kernel), 3)
    problem = GroupsProblem(block.composition, channels, out, kernel=kernel, **more)
    return GroupPlan(problem, block)


def said(*plans: GroupPlan) -> list[str]:
    return remarks(plans, [judge(each) for each in plans])


@pytest.mark.parametrize(("text", "channels", "out"), BLOCKS)
def test_a_plan_is_judged_as_show_judges_it(text: str, channels: int, out: int | None) -> None:
    found, about = judge(plan(text, channels, out)), describe(text, channels, out)
    assert (found.field, found.quality) == (about.field, about.quality)
    assert (found.compact, found.removable) == (about.compact, about.removable)


def test_a_bottleneck_is_judged_as_show_judges_it() -> None:
    text = "GPW(4)+SH(4)+DW+SH(2)+GPW(4)"
    block = Block.parse(text)
    found = judge(GroupPlan(GroupsProblem(block.composition, 64, 64, "1/4"), block))  # type: ignore[arg-type]
    about = describe(text, 64, 64, "1/4")
    assert (found.field, found.removable) == (about.field, about.removable)


def seen_by_sets(chain: Sequence[SizedLayer]) -> tuple[int, int]:
    """The field by its definition: pixels added layer by layer, and plain sets of channels."""
    side = 1
    for layer in chain:
        side += (layer.layer.kernel or 1) - 1
    return side, min(map(len, reach_by_sets(chain))) if chain else 1


@pytest.mark.parametrize("seed", range(40))
def test_fields_and_spare_layers_are_those_of_plain_sets(seed: int) -> None:
    rng = random.Random(seed)
    found = random_block(rng, 12, rng.randint(1, 5))
    asked = plan(str(found), 12)
    chain = asked.sized.layers
    field = seen_by_sets(chain)
    side = 1 + len(chain) // len(found.layers) * (asked.problem.kernel - 1)
    spare = []
    for place in range(len(chain)):
        pixels, channels = seen_by_sets(chain[:place] + chain[place + 1 :])
        if pixels >= side and channels == 12:
            spare.append(place)
    judged = judge(asked)
    assert judged.field == field
    assert judged.quality == (field == (side, 12))
    assert judged.removable == tuple(spare)


def test_remarks_are_made_where_they_apply() -> None:
    assert said(plan("DW+GPW(35)+SH(35)+GPW(8)", 280, 72)) == []
    assert said(plan("(DW+RPW(8,0))x2", 64)) == []
    assert said(plan("RPW(8,0)+GPW(8)", 64)) == ["sees 1×1 pixels, a CONV(3) sees 3×3"]
    assert said(plan("(DW+RPW(8,0)+DW)x2", 64)) == [
        "sees 9×9 pixels, 2 CONV(3) see 5×5",
        "one DW can go, see `ifspace show`",
    ]
    assert said(plan("DW+PW+SH(2)", 64)) == ["SH can go, see `ifspace show`"]
    assert said(plan("DW+PW+RPW(2,0)+SH(2)", 64)) == ["RPW or SH can go, see `ifspace show`"]


def test_widths_inside_are_nothing_that_show_takes() -> None:
    assert said(plan("PW+DW+SH(2)+PW", 16, widths=(8,))) == ["SH can go"]


def test_each_remark_stands_once_with_its_plans() -> None:
    spare, fine = plan("DW+PW+SH(2)", 64), plan("DW+PW", 64)
    assert said(spare, spare, spare) == ["1–3: SH can go, see `ifspace show`"]
    assert said(spare, fine, spare, spare) == ["1, 3–4: SH can go, see `ifspace show`"]
    assert spans([2, 3, 7, 9, 10]) == "2–3, 7, 9–10"


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        (("DW+RPW+SH+GPW", "-C", 280, "-F", 72, "--top", 3), "1–3: SH can go, see `ifspace show`"),
        (("DW+PW+SH", "-C", 64), "SH can go, see `ifspace show`"),
        (("RPW+GPW", "-C", 64), "sees 1×1 pixels, a CONV(3) sees 3×3"),
        (("DW+DW+RPW+GPW", "-C", 64), "sees 5×5 pixels, a CONV(3) sees 3×3"),
        (("RPW+GPW", "--budget", 1024), "sees 1×1 pixels, a CONV(3) sees 3×3"),
    ],
)
def test_the_table_has_a_line_below_it(
    run: Callable, arguments: tuple[object, ...], note: str
) -> None:
    ended = run("groups", *arguments)
    assert f"\nnote    {note}\n" in ended.out
    assert (ended.status, ended.err) == (0, "")


def test_nothing_is_said_of_a_block_that_needs_all_its_layers(run: Callable) -> None:
    assert "note" not in run("groups", "DW+GPW+SH+GPW", "-C", 280, "-F", 72, "--top", 3).out
