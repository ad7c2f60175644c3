"""Problems of group counts, plans that check themselves, and how plans compare with CONV."""

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import brute_groups
import pytest
from witness import random_block, reach_by_sets

from ifspace.block import Block, Composition, SizedLayer
from ifspace.errors import BlockError, IfspaceError, SettingError
from ifspace.groups.problem import GroupPlan, GroupsProblem, judge
from ifspace.show.describe import describe

Q = Fraction
PROBLEMS = [
    GroupsProblem(Composition.parse("DW+RPW+RPW"), 24),
    GroupsProblem(Composition.parse("GC+SH+GPW"), 12, 18, kernel=5, objective="macs", stride=2),
    GroupsProblem(Composition.parse("GPW+SH+DW+GPW"), 16, 32, Q(1, 2), stride=2, objective="macs"),
    GroupsProblem(Composition.parse("PW+DW+RPW"), 12, widths=(20,), weights=(3, 2, 1), stride=2),
    GroupsProblem(Composition.parse("(DW+RPW)x2"), 12, 8, objective="activations", dims=1),
]


PROBLEM_64 = GroupsProblem(Composition.parse("DW+RPW+RPW"), 64)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: str(problem.composition))
def test_every_full_choice_passes_the_check_and_no_other(problem: GroupsProblem) -> None:
    full = brute_groups.full_choices(problem)
    assert full
    for choice in full:
        plan = GroupPlan(problem, Block.parse(choice.block))
        plan.check()
        assert plan.objective() == choice.cost
        sized = plan.sized
        measures = (
            sized.macs_per_pixel(problem.stride),
            sized.activations_per_pixel(problem.stride),
        )
        assert (sized.params, *measures) == choice.amounts
    names = {choice.block for choice in full}
    terms = [[option.term for option in options] for options in brute_groups.options(problem)]
    copies = problem.composition.repeats
    layers = list(map(str, Block.parse(full[0].block).layers))
    for index, options in enumerate(terms):
        for term in options:
            text = "+".join([*layers[:index], term, *layers[index + 1 :]])
            text = text if copies == 1 else f"({text})x{copies}"
            if text not in names:
                with pytest.raises(SettingError, match="an output sees"):
                    GroupPlan(problem, Block.parse(text)).check()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("DW+RPW(8,1/2)+RPW(8,0)", "sees 36 channels"),
        ("DW+RPW(8,0)+RPW(16,0)", "sees 32 channels"),
        ("DW+RPW(1,0)+RPW(8,0)", r"RPW\(1,0\) has a trivial group count"),
        ("DW+RPW(64,0)+RPW(2,0)", "has a trivial group count"),
        ("DW+RPW(4,1/4)+RPW(8,0)", r"overlap of RPW\(4,1/4\) is not on the grid"),
        ("DW+RPW(8,0)+GPW(8)", r"the composition is DW\+RPW\+GPW"),
        ("(DW+RPW(8,0)+RPW(8,0))x2", r"the composition is \(DW\+RPW\+RPW\)x2"),
    ],
)
def test_a_plan_that_was_changed_is_caught(text: str, fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        GroupPlan(PROBLEM_64, Block.parse(text)).check()


@pytest.mark.parametrize("text", ["GC(8,k=5)+SH(8)+GPW(8)", "DW(1)+PW", "DW+GC(8,k=5)+PW"])
def test_a_plan_with_another_kernel_is_caught(text: str) -> None:
    block = Block.parse(text)
    problem = GroupsProblem(block.composition, 64)
    with pytest.raises(SettingError, match=r"the kernel of \w+\(.*\) is not 3"):
        GroupPlan(problem, block).check()
    if text.startswith("DW(1)"):
        GroupPlan(GroupsProblem(block.composition, 64, kernel=1), block).check()


def test_the_dearest_of_all_is_below_what_the_solver_counts() -> None:
    # The most that the default kernel and weights can cost is legal.
    problem = GroupsProblem(Composition.parse("(GC+GC)x64"), 4096, overlaps=None, stride=2)
    assert problem.channels == 4096


def test_a_plan_whose_groups_do_not_divide_is_caught() -> None:
    with pytest.raises(BlockError, match="groups do not divide the widths"):
        GroupPlan(PROBLEM_64, Block.parse("DW+RPW(8,0)+RPW(7,0)")).check()


def test_any_overlap_will_do_when_it_is_free() -> None:
    free = GroupsProblem(Composition.parse("DW+RPW+RPW"), 64, overlaps=None)
    GroupPlan(free, Block.parse("DW+RPW(4,1/16)+RPW(4,0)")).check()


def test_two_names_of_one_step_are_one_overlap() -> None:
    # A third and 33/100 of 2 channels are both none.
    GroupPlan(PROBLEM_64, Block.parse("DW+RPW(2,0)+RPW(32,1/3)")).check()


@pytest.mark.parametrize(
    ("text", "more", "fault"),
    [
        ("DW+PW", {"channels": 0}, "channels out of range"),
        ("DW+PW", {"out_channels": 0}, "out_channels out of range"),
        ("DW+PW", {"channels": True}, "channels out of range"),
        ("DW", {"out_channels": 32}, "no layer can change the width"),
        ("DW+PW", {"bottleneck": Q(1, 4)}, "a bottleneck needs two"),
        ("PW+PW", {"bottleneck": Q(1, 3)}, "bottleneck is not a whole number"),
        ("PW+PW", {"bottleneck": Q(1, 4), "widths": (4,)}, "interior widths given twice"),
        ("PW+PW", {"widths": (4, 4)}, "wrong number of interior widths: got 2; allowed: 1"),
        ("PW+PW", {"widths": (0,)}, "widths out of range: got 0"),
        ("PW+PW", {"overlaps": (Q(1),)}, "overlap ratio out of range"),
        ("PW+PW", {"overlaps": ()}, "no overlap ratio"),
        ("PW+PW", {"objective": "speed"}, "unknown objective: got 'speed'"),
        ("PW+PW", {"weights": (0, 0, 0)}, "weights out of range"),
        ("PW+PW", {"weights": (1, -1, 0)}, "weights out of range"),
        ("PW+PW", {"weights": (1, 2)}, "weights out of range: got 1, 2; allowed: three whole"),
        ("PW+PW", {"weights": (1.5, 0, 0)}, "weights out of range: got 1.5"),
        ("PW+PW", {"weights": (10**6 + 1, 0, 0)}, "weights out of range: got 1000001"),
        ("DW+PW", {"kernel": 4}, "kernel is even"),
        ("DW+PW", {"kernel": 0}, "kernel out of range: got 0"),
        ("DW+PW", {"kernel": 1001}, "kernel out of range: got 1001; .* from 1 to 999"),
        ("DW+PW", {"channels": 4096, "kernel": 999, "weights": (0, 10**6, 0)}, "cost too large"),
        ("(DW+PW)x65", {}, "composition too long: got 65 x 2 layers"),
        ("+".join(["DW+PW+PW"] * 43), {}, "composition too long: got 1 x 129 layers"),
        ("PW+PW", {"stride": 2}, "no layer can hold the stride"),
        ("DW+PW", {"dims": 3}, "dims out of range"),
    ],
)
def test_an_impossible_problem_is_an_error(text: str, more: dict[str, Any], fault: str) -> None:
    with pytest.raises(IfspaceError, match=fault):
        GroupsProblem(Composition.parse(text), **{"channels": 16} | more)


def test_a_problem_is_canonical() -> None:
    composition = Composition.parse("DW+RPW+RPW")
    one = GroupsProblem(composition, 16, overlaps=("0.5", 0, "1/2"), bottleneck="1/2")  # type: ignore[arg-type]
    other = GroupsProblem(composition, 16, 16, overlaps=(Q(0), Q(1, 2)), bottleneck=Q(1, 2))
    assert one == other
    assert hash(one) == hash(other)


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
    kernel = next((layer.kernel for layer in block.layers if layer.kernel), 3)
    problem = GroupsProblem(block.composition, channels, out, kernel=kernel, **more)
    return GroupPlan(problem, block)


@pytest.mark.parametrize(("text", "channels", "out"), BLOCKS)
def test_a_plan_is_judged_as_show_judges_it(text: str, channels: int, out: int | None) -> None:
    judgement, about = judge(plan(text, channels, out)), describe(text, channels, out)
    assert (judgement.field, judgement.quality) == (about.field, about.quality)
    assert (judgement.compact, judgement.removable) == (about.compact, about.removable)


def test_a_bottleneck_is_judged_as_show_judges_it() -> None:
    text = "GPW(4)+SH(4)+DW+SH(2)+GPW(4)"
    block = Block.parse(text)
    judgement = judge(GroupPlan(GroupsProblem(block.composition, 64, 64, "1/4"), block))  # type: ignore[arg-type]
    about = describe(text, 64, 64, "1/4")
    assert (judgement.field, judgement.removable) == (about.field, about.removable)


def seen_by_sets(chain: Sequence[SizedLayer]) -> tuple[int, int]:
    """The field by its definition: pixels added layer by layer, and plain sets of channels."""
    side = 1
    for layer in chain:
        side += (layer.layer.kernel or 1) - 1
    return side, min(map(len, reach_by_sets(chain))) if chain else 1


@pytest.mark.parametrize("seed", range(40))
def test_fields_and_removable_layers_are_those_of_plain_sets(seed: int) -> None:
    rng = random.Random(seed)
    block = random_block(rng, 12, rng.randint(1, 5))
    random_plan = plan(str(block), 12)
    chain = random_plan.sized.layers
    field = seen_by_sets(chain)
    side = 1 + len(chain) // len(block.layers) * (random_plan.problem.kernel - 1)
    removable = []
    for index in range(len(chain)):
        pixels, channels = seen_by_sets(chain[:index] + chain[index + 1 :])
        if pixels >= side and channels == 12:
            removable.append(index)
    judgement = judge(random_plan)
    assert judgement.field == field
    assert judgement.quality == (field == (side, 12))
    assert judgement.removable == tuple(removable)
