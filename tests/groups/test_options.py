from fractions import Fraction
from itertools import product
from math import prod

import brute_groups
import pytest

from ifspace.block import Composition
from ifspace.groups.problem import (
    GroupPlan,
    GroupsProblem,
)
from ifspace.groups.solve import Options
from ifspace.reach import channel_field

ASKED = [
    GroupsProblem(Composition.parse("GPW+SH+DW+RPW"), 16),
    GroupsProblem(Composition.parse("GC+SH+GPW"), 18, 12),
    GroupsProblem(Composition.parse("RPW+SH+RPW"), 12, 24, Fraction(1, 2), overlaps=None),
    GroupsProblem(Composition.parse("RPW+DW+GPW"), 12, widths=(20,), stride=2, objective="macs"),
    GroupsProblem(
        Composition.parse(
            "SH+RPW",
        ),
        12,
    ),
    GroupsProblem(Composition.parse("(RPW+SH)x2"), 12, 18, weights=(1, 1, 1)),
    GroupsProblem(Composition.parse("DW+RPW+RPW"), 24),
]
IDS = [str(asked.composition) for asked in ASKED]


def choices(options: Options) -> list[tuple[int, ...]]:
    return list(product(*(range(len(layers)) for layers in options.layers)))


@pytest.mark.parametrize("asked", ASKED, ids=IDS)
def test_every_option_is_legal(asked: GroupsProblem) -> None:
    legal = {prod(map(len, brute_groups.options(asked)))}
    options = Options(asked)
    assert prod(map(len, options.layers)) <= min(legal)
    terms = [{option.term for option in place} for place in brute_groups.options(asked)]
    for layers, known in zip(options.layers, terms, strict=True):
        assert {str(layer) for layer in layers} <= known
        assert len(set(layers)) == len(layers)


@pytest.mark.parametrize("asked", ASKED, ids=IDS)
def test_the_costs_add_up(asked: GroupsProblem) -> None:
    options = Options(asked)
    base, added = options.costs
    for choice in choices(options):
        total = base + sum(costs[n] for costs, n in zip(added, choice, strict=True))
        assert total == GroupPlan(asked, options.block(choice)).objective()


@pytest.mark.parametrize("asked", ASKED, ids=IDS)
def test_full_is_what_reach_decides(asked: GroupsProblem) -> None:
    options = Options(asked)
    for choice in choices(options):
        chain = asked.sized(options.block(choice)).layers
        assert options.is_full(choice) == (channel_field(chain) == asked.channels)


@pytest.mark.parametrize("asked", ASKED, ids=IDS)
def test_no_full_choice_is_left_out_that_is_cheaper_than_all_kept(asked: GroupsProblem) -> None:
    options = Options(asked)
    kept = {asked.amount(options.block(each)) for each in choices(options) if options.is_full(each)}
    assert kept == {choice.cost for choice in brute_groups.full_choices(asked)}
