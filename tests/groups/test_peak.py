"""Peak memory as a bound on group counts: groups do not change it, widths do."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from ifspace.answer import Status
from ifspace.block import Composition
from ifspace.errors import SettingError
from ifspace.groups.entry import find_groups
from ifspace.groups.problem import GroupsProblem, WidestProblem
from ifspace.groups.solve import cheapest_groups, widest_block


@pytest.mark.parametrize("stride", [1, 2])
def test_every_choice_has_the_peak_of_the_problem(stride: int) -> None:
    composition = Composition.parse("GPW+SH+DW+GPW")
    problem = GroupsProblem(composition, 16, 32, bottleneck=Fraction(1, 2), stride=stride)
    answer = cheapest_groups(problem, top=5)
    assert len(answer.plans) > 2
    peaks = {plan.sized.peak_per_pixel(stride) for plan in answer.plans}
    assert peaks == {problem.peak_per_pixel}
    for less, status in ((0, Status.OPTIMAL), (1, Status.INFEASIBLE)):
        bounded = replace(problem, most_peak=problem.peak_per_pixel - less)
        assert cheapest_groups(bounded).status is status


@pytest.mark.slow
def test_the_widest_block_within_a_peak() -> None:
    """As many channels as the least of both budgets allows, by trying every width."""
    composition, ratio = Composition.parse("PW+DW+PW"), Fraction(4)
    for most in (100, 297, 400):
        problem = WidestProblem(composition, 20_000, bottleneck=ratio, most_peak=most)
        (plan,) = widest_block(problem).plans
        fitting = [
            width
            for width in range(1, 60)
            if 4 * width * (2 * width + 9) <= 20_000 and 4 * width + 4 * width <= most
        ]
        assert plan.problem.channels == max(fitting)


def test_the_command_says_what_groups_cannot_change(run: Callable) -> None:
    command = ("groups", "DW+RPW+RPW", "-C", 64, "--side", 32, "--dtype", "fp16")
    assert run(*command, "--peak-memory", "256KiB").status == 0
    ended = run(*command, "--peak-memory", "256k")
    assert (ended.status, ended.err.count("\n")) == (3, 1)
    assert "128 elements per output pixel are live at once, whatever the groups" in ended.err
    answer = run(*command, "--peak-memory", "256KiB", "--format", "json").json
    assert answer["plans"][0]["peak_per_pixel"] == 128
    assert answer["plans"][0]["peak_memory"] == 128 * 32**2 * 2
    header, _, row = run(*command, "--peak-memory", "256KiB").out.splitlines()[2:5]
    place = header.index("peak bytes")
    assert row[place : place + 10].strip() == "262,144"
    assert "peak bytes" not in run(*command[:4]).out
    # A header stands over each column, the bytes last.
    rows = run(*command, "--peak-memory", "256KiB", "--format", "latex").out.splitlines()
    header, row = ([cell.strip(" \\") for cell in rows[place].split("&")] for place in (2, 4))
    columns = dict(zip(header, row, strict=True))
    assert (columns["peak/px"], columns["least fan-in"]) == ("128", "8")
    assert columns["peak memory"] == "262144"
    for left_out, message in (
        ("--dtype", "peak memory without the type of the feature maps"),
        ("--side", "peak memory without the side of the feature map: got 256k bytes"),
    ):
        index = command.index(left_out)
        ended = run(*command[:index], *command[index + 2 :], "--peak-memory", "256k")
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert message in ended.err


def test_bytes_without_a_side_are_an_error_in_python() -> None:
    with pytest.raises(SettingError, match="peak memory without the side of the feature map"):
        find_groups("DW+PW", 8, peak_memory="1k", dtype="fp32")
    assert find_groups("DW+PW", 8, peak_memory="1k", dtype="fp32", side=3).best is not None
    assert find_groups("DW+PW", 8, peak_memory=575, dtype="fp32", side=3).best is None
