from fractions import Fraction
from typing import Any

import brute_groups
import pytest

from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.errors import BlockError, IfspaceError, SettingError
from ifspace.groups.problem import GroupPlan, GroupsProblem

Q = Fraction
ASKED = [
    GroupsProblem(Composition.parse("DW+RPW+RPW"), 24),
    GroupsProblem(Composition.parse("GC+SH+GPW"), 12, 18, kernel=5, objective="macs", stride=2),
    GroupsProblem(Composition.parse("GPW+SH+DW+GPW"), 16, 32, Q(1, 2), stride=2, objective="macs"),
    GroupsProblem(Composition.parse("PW+DW+RPW"), 12, widths=(20,), weights=(3, 2, 1), stride=2),
    GroupsProblem(Composition.parse("(DW+RPW)x2"), 12, 8, objective="activations", dims=1),
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: str(asked.composition))
def test_every_full_choice_passes_the_check_and_no_other(asked: GroupsProblem) -> None:
    full = brute_groups.full_choices(asked)
    assert full
    for choice in full:
        plan = GroupPlan(asked, Block.parse(choice.block))
        plan.check()
        assert plan.objective() == choice.cost
        sized = plan.sized
        measures = (sized.macs_per_pixel(asked.stride), sized.activations_per_pixel(asked.stride))
        assert (sized.params, *measures) == choice.amounts
    names = {choice.block for choice in full}
    terms = [[option.term for option in place] for place in brute_groups.options(asked)]
    copies = asked.composition.repeats
    for place, options in enumerate(terms):
        for term in options:
            word = Block.parse(full[0].block).layers
            text = "+".join(term if n == place else str(each) for n, each in enumerate(word))
            text = text if copies == 1 else f"({text})x{copies}"
            if text not in names:
                with pytest.raises(SettingError, match="an output sees"):
                    GroupPlan(asked, Block.parse(text)).check()


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
        GroupPlan(ASKED_64, Block.parse(text)).check()


@pytest.mark.parametrize("text", ["GC(8,k=5)+SH(8)+GPW(8)", "DW(1)+PW", "DW+GC(8,k=5)+PW"])
def test_a_plan_with_another_kernel_is_caught(text: str) -> None:
    block = Block.parse(text)
    asked = GroupsProblem(block.composition, 64)
    with pytest.raises(SettingError, match=r"the kernel of \w+\(.*\) is not 3"):
        GroupPlan(asked, block).check()
    if text.startswith("DW(1)"):
        GroupPlan(GroupsProblem(block.composition, 64, kernel=1), block).check()


def test_the_dearest_of_all_is_below_what_the_solver_counts() -> None:
    # The most that the default kernel and weights can cost is legal.
    asked = GroupsProblem(Composition.parse("(GC+GC)x64"), 4096, overlaps=None, stride=2)
    assert asked.channels == 4096


ASKED_64 = GroupsProblem(Composition.parse("DW+RPW+RPW"), 64)


def test_a_plan_whose_groups_do_not_divide_is_caught() -> None:
    with pytest.raises(BlockError, match="groups do not divide the widths"):
        GroupPlan(ASKED_64, Block.parse("DW+RPW(8,0)+RPW(7,0)")).check()


def test_any_overlap_will_do_when_it_is_free() -> None:
    free = GroupsProblem(Composition.parse("DW+RPW+RPW"), 64, overlaps=None)
    GroupPlan(free, Block.parse("DW+RPW(4,1/16)+RPW(4,0)")).check()


def test_two_names_of_one_step_are_one_overlap() -> None:
    # A third and 33/100 of 2 channels are both none.
    GroupPlan(ASKED_64, Block.parse("DW+RPW(2,0)+RPW(32,1/3)")).check()


@pytest.mark.parametrize(
    ("text", "more", "fault"),
    [
        ("DW+PW", {"channels": 0}, "channels out of range"),
        ("DW+PW", {"out_channels": 0}, "out_channels out of range"),
        ("DW+PW", {"channels": True}, "channels out of range"),
        ("DW", {"out_channels": 32}, "no layer can change the width"),
        ("DW+PW", {"bottleneck": Q(1, 4)}, "a bottleneck needs two"),
        ("PW+PW", {"bottleneck": Q(1, 3)}, "bottleneck is not a whole number"),
        ("PW+PW", {"bottleneck": Q(1, 4), "widths": (4,)}, "two statements of the interior"),
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
def test_a_problem_that_cannot_be_is_refused(text: str, more: dict[str, Any], fault: str) -> None:
    with pytest.raises(IfspaceError, match=fault):
        GroupsProblem(Composition.parse(text), **{"channels": 16} | more)


def test_a_problem_is_canonical() -> None:
    word = Composition.parse("DW+RPW+RPW")
    one = GroupsProblem(word, 16, overlaps=("0.5", 0, "1/2"), bottleneck="1/2")  # type: ignore[arg-type]
    other = GroupsProblem(word, 16, 16, overlaps=(Q(0), Q(1, 2)), bottleneck=Q(1, 2))
    assert one == other
    assert hash(one) == hash(other)


def test_a_status_says_what_it_means() -> None:
    assert [status.name for status in Status] == ["OPTIMAL", "FEASIBLE", "INFEASIBLE", "UNKNOWN"]
    assert all(" " in status.value for status in Status)
