"""The options of a problem and the boxes of choices, against every legal choice."""

import random
from fractions import Fraction
from itertools import product
from math import prod

import brute_groups
import pytest

from ifspace.block import Composition
from ifspace.groups import solve
from ifspace.groups.problem import GroupPlan, GroupsProblem, judge
from ifspace.groups.solve import Box, Boxes, Choice, Options, cheapest_groups
from ifspace.reach import channel_field


def composition_of(problem: GroupsProblem) -> str:
    return str(problem.composition)


SHARED = [
    GroupsProblem(Composition.parse("GPW+SH+DW+RPW"), 16),
    GroupsProblem(Composition.parse("GC+SH+GPW"), 18, 12),
    GroupsProblem(Composition.parse("RPW+SH+RPW"), 12, 24, Fraction(1, 2), overlaps=None),
    GroupsProblem(Composition.parse("RPW+DW+GPW"), 12, widths=(20,), stride=2, objective="macs"),
    GroupsProblem(Composition.parse("(RPW+SH)x2"), 12, 18, weights=(1, 1, 1)),
]
OPTIONS_OF = pytest.mark.parametrize(
    "problem",
    [
        *SHARED,
        GroupsProblem(Composition.parse("SH+RPW"), 12),
        GroupsProblem(Composition.parse("DW+RPW+RPW"), 24),
    ],
    ids=composition_of,
)
BOXES_OF = pytest.mark.parametrize(
    "problem",
    [
        *SHARED,
        GroupsProblem(Composition.parse("(GPW+SH+GPW)x2"), 16),
        GroupsProblem(Composition.parse("RPW+SH+SH+RPW"), 24),
    ],
    ids=composition_of,
)


def all_choices(options: Options) -> list[Choice]:
    return list(product(*(range(len(layers)) for layers in options.layers)))


@OPTIONS_OF
def test_every_option_is_legal(problem: GroupsProblem) -> None:
    legal = brute_groups.options(problem)
    options = Options(problem)
    assert prod(map(len, options.layers)) <= prod(map(len, legal))
    for layers, legal_layers in zip(options.layers, legal, strict=True):
        assert {str(layer) for layer in layers} <= {option.term for option in legal_layers}
        assert len(set(layers)) == len(layers)


@OPTIONS_OF
def test_the_costs_add_up(problem: GroupsProblem) -> None:
    options = Options(problem)
    base, added = options.costs
    for choice in all_choices(options):
        total = base + sum(costs[n] for costs, n in zip(added, choice, strict=True))
        assert total == GroupPlan(problem, options.block(choice)).objective()


@pytest.mark.slow
@OPTIONS_OF
def test_a_choice_is_full_when_its_exact_field_is(problem: GroupsProblem) -> None:
    options = Options(problem)
    for choice in all_choices(options):
        chain = problem.sized(options.block(choice)).layers
        assert options.is_full(choice) == (channel_field(chain) == problem.channels)


@OPTIONS_OF
def test_no_cost_of_a_full_choice_is_left_out(problem: GroupsProblem) -> None:
    options = Options(problem)
    costs = {
        problem.amount(options.block(choice))
        for choice in all_choices(options)
        if options.is_full(choice)
    }
    assert costs == {choice.cost for choice in brute_groups.full_choices(problem)}


def random_boxes(options: Options, count: int) -> list[Box]:
    draw = random.Random(20190101)
    return [
        tuple(
            tuple(sorted(draw.sample(range(len(layers)), draw.randint(1, min(4, len(layers))))))
            for layers in options.layers
        )
        for _ in range(count)
    ]


def full_choices(options: Options, box: Box) -> list[Choice]:
    return [choice for choice in product(*box) if options.is_full(choice)]


@pytest.fixture(params=["the limits of the search", "searches that give up at once"])
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "searches that give up at once":
        monkeypatch.setattr(solve, "MOST_SETS", 0)
        monkeypatch.setattr(solve, "MOST_CHECKS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("limits")
@BOXES_OF
def test_the_full_choices_of_a_box_are_those_of_the_exact_field_in_order(
    problem: GroupsProblem,
) -> None:
    options = Options(problem)
    boxes = Boxes(options)
    for box in random_boxes(options, 60):
        assert list(boxes.full_choices(box)) == full_choices(options, box)


@pytest.mark.slow
@pytest.mark.usefixtures("limits")
@BOXES_OF
def test_a_grown_box_is_larger_and_still_has_no_full_choice(problem: GroupsProblem) -> None:
    options = Options(problem)
    short = [box for box in random_boxes(options, 60) if not full_choices(options, box)]
    assert short
    for box in short:
        grown = Boxes(options).grown(box)
        assert all(set(old) <= set(new) for old, new in zip(box, grown, strict=True))
        assert not full_choices(options, grown)


def test_a_box_grows_as_far_as_it_can() -> None:
    options = Options(GroupsProblem(Composition.parse("GPW+SH+DW+RPW"), 16))
    for box in random_boxes(options, 60):
        if full_choices(options, box):
            continue
        grown = Boxes(options).grown(box)
        for index, layers in enumerate(options.layers):
            for number in set(range(len(layers))) - set(grown[index]):
                larger = (*grown[:index], (number,), *grown[index + 1 :])
                assert full_choices(options, larger)


def test_a_shuffle_behind_the_change_of_width_is_sized_for_the_width_that_it_permutes() -> None:
    # SH(3) and SH(6) shuffle the 12 channels behind the change of width, and no 4.
    problem = GroupsProblem(Composition.parse("(DW+GPW+SH)x2"), 4, 12)
    plans = cheapest_groups(problem, top=20).plans
    assert all(judge(plan).quality for plan in plans)
    groups = {layer.groups for plan in plans for layer in plan.block.layers if layer.kind == "SH"}
    assert groups == {2, 3, 4, 6}
