"""Formulas as text, read back by SymPy, against the expressions and against counted weights."""

import random
from itertools import product

import brute_force
import pytest
import sympy

from ifspace.block import Block, Composition, Layer
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import (
    condition_text,
    enumerate_designs,
    params_text,
)
from ifspace.infofield import full_field_condition
from ifspace.kinds import ORDERS, find_kind

KINDS = ("PW", "GC", "DW", "GPW", "RPW", "SH")
SHORT = [kinds for n in (1, 2) for kinds in product(KINDS, repeat=n)]
LONG = [tuple(random.Random(seed).choices(KINDS, k=3 + seed % 3)) for seed in range(60)]
COMPOSITIONS = SHORT + LONG


def read(text: str) -> sympy.Basic:
    """The text with its names as the positive integers that they stand for."""
    names = set(sympy.sympify(text, evaluate=False).free_symbols)
    symbols = {str(x): sympy.Symbol(str(x), integer=True, positive=True) for x in names}
    return sympy.sympify(text, locals=symbols)


def compositions(bottleneck: bool) -> list[Composition]:
    mixing = {"PW", "GC", "GPW", "RPW"}
    return [
        Composition(kinds, repeats)
        for kinds in COMPOSITIONS
        for repeats in (1, 2)
        if not bottleneck or sum(kind in mixing for kind in kinds) > 1
    ]


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
def test_parameters_read_back_are_the_formula(bottleneck: bool, kernel: int) -> None:
    for composition in compositions(bottleneck):
        text = params_text(composition, bottleneck, kernel, 2)
        expected = composition.params_formula(bottleneck, kernel)
        assert sympy.expand(read(text) - expected) == 0, (composition, text)


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", [False, True])
def test_conditions_read_back_are_the_relation(bottleneck: bool) -> None:
    C = sympy.Symbol("C", integer=True, positive=True)
    always = 0
    for composition in compositions(bottleneck):
        text = condition_text(composition, bottleneck)
        expected = full_field_condition(composition, bottleneck)
        if text == "always":
            always += 1
            # A product of fan-ins with C among them; the others are at least 1.
            truth = expected == sympy.true
            assert truth or expected.rhs.as_powers_dict()[C] >= 1, composition
        else:
            got = read(text)
            assert got == expected or got.lhs - got.rhs == expected.lhs - expected.rhs, composition
            assert expected != sympy.true
    assert always


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", [False, True])
def test_conditions_of_blocks_are_those_of_their_orders(bottleneck: bool) -> None:
    rng, blocked = random.Random(1), 0
    for composition in compositions(bottleneck):
        layers = tuple(
            Layer(kind, 2 if row.takes_groups else None, order=order)
            for kind in composition.kinds
            for row in [find_kind(kind)]
            for order in [rng.choice(ORDERS) if row.takes_overlap else None]
        )
        block = Block(layers, composition.repeats)
        text = condition_text(block, bottleneck)
        expected = full_field_condition(block, bottleneck)
        blocked += "P_" in text
        if text != "always":
            got = read(text)
            assert got == expected or got.lhs - got.rhs == expected.lhs - expected.rhs, block
    assert blocked > 5


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 16, "max_len": 4},
        {"channels": 12, "max_len": 3, "dims": 1, "kernel": 5, "repeats": 2},
        {"channels": 8, "out_channels": 16, "bottleneck": "1/2", "max_len": 3, "repeats": 2},
        {"channels": 12, "out_channels": 24, "max_len": 3},
    ],
    ids=str,
)
def test_formulas_of_the_catalogue_give_its_numbers(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(**arguments)
    problem = brute_force.Problem(setting)
    designs = enumerate_designs([setting], jobs=1).designs
    assert designs
    for design in designs:
        block = design.block
        grouped = [layer for layer in block.layers if layer.conv.takes_groups]
        values = {f"g_{n}": layer.groups for n, layer in enumerate(grouped, start=1)}
        values |= {"C": problem.c, "F": problem.f, "K": problem.inner}
        assert eval(design.params_formula, {"__builtins__": {}}, values) == design.params
        if "SH" in design.composition or setting.out_channels or design.field_condition == "always":
            continue
        # Without a shuffle and at one width the condition is the truth, so the block meets it.
        mixing = [layer for layer in block.at(problem.c).layers if layer.conv.takes_groups]
        for n, layer in enumerate(mixing[: len(grouped)], start=1):
            values |= {f"w_{n}": layer.fan_in, f"s_{n}": layer.step}
        values |= {"Min": min, "ceiling": lambda x: -int(-x // 1)}
        assert eval(design.field_condition, {"__builtins__": {}}, values)
