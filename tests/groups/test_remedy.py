"""What to try where no choice has the full field: each remedy that is named helps."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import brute_groups
import pytest

from ifspace.block import Composition
from ifspace.errors import IfspaceError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.remedy import remedies
from ifspace.groups.solve import cheapest_groups
from ifspace.kinds import alphabet


def problem_of(text: str, channels: int, *widths: int, **more: object) -> GroupsProblem:
    return GroupsProblem(Composition.parse(text), channels, *widths, **more)


@pytest.mark.parametrize(
    ("problem", "texts"),
    [
        (problem_of("DW+RPW", 64), ("(DW+RPW)x2",)),
        (problem_of("DW+RPW", 16, overlaps=None), ("(DW+RPW)x2",)),
        (problem_of("GC+GPW", 64), ("GC+SH+GPW",)),
        (problem_of("DW", 64), ("DW+PW",)),
        # Without overlap blocked windows are groups.
        (
            problem_of("DW+RPW+RPW", 64, overlaps=(Fraction(0),), rpw_order="blocked"),
            ("--overlaps free", "--rpw-order both", "DW+RPW+SH+RPW"),
        ),
        # Three groupings that do not nest: GPW(2)+GPW(3)+GPW(2) is full at 6 channels.
        (problem_of("GPW+GPW+GPW", 8), ("other widths", "GPW+SH+GPW+GPW")),
    ],
    ids=str,
)
def test_what_helps(problem: GroupsProblem, texts: tuple[str, ...]) -> None:
    assert not cheapest_groups(problem).plans
    assert remedies(problem) == texts


@pytest.mark.slow
@pytest.mark.parametrize("rpw_order", ["rolling", "blocked"])
def test_a_remedy_that_is_not_named_does_not_help(rpw_order: str) -> None:
    named = set()
    for kinds in (kinds for n in (1, 2, 3) for kinds in product(alphabet(), repeat=n)):
        problem = GroupsProblem(
            Composition(kinds), 12, overlaps=(Fraction(1, 2),), rpw_order=rpw_order
        )
        if brute_groups.least(problem) is not None:
            continue
        texts = remedies(problem)
        named.update(texts)
        if "--overlaps free" not in texts:
            assert brute_groups.least(replace(problem, overlaps=None)) is None, kinds
        if "--rpw-order both" not in texts:
            assert brute_groups.least(replace(problem, rpw_order="both")) is None, kinds
        if "other widths" not in texts:
            for width in (4, 6, 8, 16, 18):
                try:
                    other = replace(problem, channels=width, out_channels=width)
                except IfspaceError:
                    continue
                assert brute_groups.least(other) is None, (kinds, width)
        (composition,) = (text for text in texts if "+" in text or ")x" in text)
        assert brute_groups.least(replace(problem, composition=Composition.parse(composition)))
    assert {"--overlaps free", "other widths"} <= named
