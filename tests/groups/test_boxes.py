import random
from fractions import Fraction
from itertools import product

import pytest

from ifspace.block import Composition
from ifspace.groups import solve as boxes
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import (
    Box,
    Boxes,
    Options,
)

ASKED = [
    GroupsProblem(Composition.parse("GPW+SH+DW+RPW"), 16),
    GroupsProblem(Composition.parse("GC+SH+GPW"), 18, 12),
    GroupsProblem(Composition.parse("RPW+SH+RPW"), 12, 24, Fraction(1, 2), overlaps=None),
    GroupsProblem(Composition.parse("RPW+DW+GPW"), 12, widths=(20,), stride=2, objective="macs"),
    GroupsProblem(Composition.parse("(RPW+SH)x2"), 12, 18, weights=(1, 1, 1)),
    GroupsProblem(Composition.parse("(GPW+SH+GPW)x2"), 16),
    GroupsProblem(Composition.parse("RPW+SH+SH+RPW"), 24),
]
IDS = [str(asked.composition) for asked in ASKED]


def some_boxes(options: Options, how_many: int) -> list[Box]:
    draw = random.Random(20190101)
    return [
        tuple(
            tuple(sorted(draw.sample(range(len(layers)), draw.randint(1, min(4, len(layers))))))
            for layers in options.layers
        )
        for _ in range(how_many)
    ]


def full(options: Options, box: Box) -> list[tuple[int, ...]]:
    return [choice for choice in product(*box) if options.is_full(choice)]


@pytest.fixture(params=["as it is", "searches that give up at once"])
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "as it is":
        monkeypatch.setattr(boxes, "MOST_SETS", 0)
        monkeypatch.setattr(boxes, "MOST_CHECKS", 1)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("asked", ASKED, ids=IDS)
def test_the_full_choices_of_a_box_are_those_of_the_exact_field_in_order(
    asked: GroupsProblem,
) -> None:
    options = Options(asked)
    searched = Boxes(options)
    for box in some_boxes(options, 60):
        assert list(searched.full_choices(box)) == full(options, box)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("asked", ASKED, ids=IDS)
def test_a_grown_box_is_larger_and_still_has_no_full_choice(asked: GroupsProblem) -> None:
    options = Options(asked)
    short = [box for box in some_boxes(options, 60) if not full(options, box)]
    assert short
    for box in short:
        grown = Boxes(options).grown(box)
        assert all(set(old) <= set(new) for old, new in zip(box, grown, strict=True))
        assert not full(options, grown)


def test_a_box_grows_as_far_as_it_can() -> None:
    options = Options(GroupsProblem(Composition.parse("GPW+SH+DW+RPW"), 16))
    for box in some_boxes(options, 60):
        if full(options, box):
            continue
        grown = Boxes(options).grown(box)
        for place, layers in enumerate(options.layers):
            for number in set(range(len(layers))) - set(grown[place]):
                larger = (*grown[:place], (number,), *grown[place + 1 :])
                assert full(options, larger)
