"""Layouts counted by hand: weights, energies and order; problems that are an error."""

from typing import Any

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from ifspace.energy.problem import (
    MAX_BUDGET,
    EnergyPlan,
    EnergyProblem,
    EnergyRank,
)
from ifspace.errors import SettingError

RESIDUAL = EnergyProblem(51248, repeats=(1, 10, 10, 10))

# [Layout] Table 4: the energies as printed.
TABLE_4 = {
    (1, 11, 42, 59): "0",
    (1, 27, 34, 59): "0",
    (5, 8, 17, 72): "40.551",
    (5, 10, 27, 68): "51.536",
    (7, 16, 34, 63): "78.825",
    (7, 24, 25, 65): "83.096",
    (8, 22, 48, 50): "97.341",
    (13, 20, 35, 61): "112.304",
    (15, 16, 37, 61): "111.4536",
    (15, 32, 38, 53): "135.5464",
    (16, 16, 32, 64): "110.0631",
    (19, 34, 41, 49): "150.0631",
    (20, 28, 42, 52): "147.4244",
}


def plan(problem: EnergyProblem, *widths: int) -> EnergyPlan:
    return EnergyPlan(problem, widths)


@pytest.mark.parametrize(("widths", "printed"), TABLE_4.items())
def test_the_energies_of_the_residual_nets(widths: tuple[int, ...], printed: str) -> None:
    layout_plan = EnergyPlan(RESIDUAL, widths)
    assert layout_plan.weights() == 51248
    digits = len(printed.partition(".")[2])
    # The table rounds at four digits and cuts at three; one row is wrong in its first decimal.
    energy = layout_plan.energy()
    texts = {f"{energy:.{digits}f}", f"{energy:.12f}"[: len(printed)]}
    if widths == (16, 16, 32, 64):
        assert (printed in texts, f"{energy:.4f}") == (False, "110.8008")
    else:
        assert printed in texts


def test_weights_of_every_form() -> None:
    plain = EnergyProblem(100, layers=3)
    assert plain.weights((2, 5, 7)) == 3 * 2 + 2 * 5 + 5 * 7
    assert EnergyProblem(100, layers=3, inputs=1).weights((2, 5, 7)) == 2 + 10 + 35
    # Each convolution written out: 3→2, 2→5, 5→5, 5→5, 5→7, 7→7.
    units = EnergyProblem(100, repeats=(1, 3, 2))
    assert units.weights((2, 5, 7)) == 3 * 2 + 2 * 5 + 5 * 5 + 5 * 5 + 5 * 7 + 7 * 7
    assert (units.depth, units.layers, units.factors) == (6, 3, (1, 1, 1))
    assert EnergyProblem(100, repeats=(1, 3, 2), per="convolution").factors == (1, 3, 2)
    layout_plan = EnergyPlan(EnergyProblem(100, repeats=(1, 3, 2), kernel=5), (2, 5, 7))
    assert (layout_plan.params, layout_plan.width_sum) == (25 * layout_plan.weights(), 14)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.integers(1, 3))
def test_energies_have_a_second_witness(widths: list[int], count: int) -> None:
    units = tuple([count] * len(widths))
    for per, power in (("unit", 1), ("convolution", count)):
        layout_plan = EnergyPlan(EnergyProblem(9, repeats=units, per=per), tuple(widths))  # type: ignore[arg-type]
        exact = sympy.Mul(*(sympy.log(width) ** power for width in widths)).evalf(50)
        assert abs(sympy.Float(str(layout_plan.exact_energy()), 50) - exact) <= 1e-40 * exact
        assert layout_plan.energy() == float(exact)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((2, 16), (4, 4)),
        ((2, 64), (4, 8)),
        ((3, 81), (9, 9)),
        ((2, 3, 64, 81), (4, 8, 9, 9)),
        ((1, 7), (1, 9)),
    ],
)
def test_plans_of_equal_energy_are_sorted_by_widths(
    one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    problem = EnergyProblem(9, layers=len(one))
    first, second = EnergyPlan(problem, one), EnergyPlan(problem, other)
    assert first.exact_energy() == second.exact_energy()
    assert first.order() < second.order()


def test_energies_that_a_float_can_hardly_tell_apart_are_sorted() -> None:
    problem = EnergyProblem(9, layers=2)
    close = [plan(problem, 9_999_998, 9_999_999), plan(problem, 9_999_997, 10_000_000)]
    assert abs(close[0].energy() - close[1].energy()) < 1e-12 * close[0].energy()
    assert min(close, key=EnergyPlan.order) is close[0]


@pytest.mark.parametrize(
    ("changed", "widths", "words"),
    [
        ({}, (35, 36, 37, 44), "4325 weights"),
        ({}, (35, 36, 37, 42), "4251 weights"),
        ({"at_most": True}, (35, 36, 37, 44), "4325 weights.*at most 4288"),
        ({}, (8, 8, 525), "3 widths for 4 units"),
        ({"layers": 3}, (8, 8, 525), "widths out of order"),
        ({"layers": 2, "budget": 5}, (1, 2, 3), "3 widths for 2 units"),
        ({"layers": 2, "budget": 14, "nondecreasing": True}, (2, 4, 1), "out of order"),
        ({"layers": 2, "budget": 2, "nondecreasing": True}, (-1, -5), "a width below 1"),
    ],
)
def test_an_invalid_plan_is_an_error(
    changed: dict[str, Any], widths: tuple[int, ...], words: str
) -> None:
    problem = EnergyProblem(**{"budget": 4288, "layers": 4} | changed)
    with pytest.raises(SettingError, match=words):
        EnergyPlan(problem, widths).check()


def test_valid_plans_pass() -> None:
    plan(EnergyProblem(4288, layers=4), 35, 36, 37, 43).check()
    plan(EnergyProblem(4288, layers=4, at_most=True), 35, 36, 37, 42).check()
    plan(EnergyProblem(4288, layers=3, nondecreasing=True), 8, 8, 525).check()
    plan(RESIDUAL, 19, 34, 41, 49).check()


@pytest.mark.parametrize(
    ("values", "words", "argument"),
    [
        ({"layers": 4, "budget": 0}, "budget out of range: got 0", "budget"),
        ({"layers": 4, "budget": MAX_BUDGET + 1}, "lower budget", "budget"),
        ({"layers": 4, "budget": 1.5}, "give budget as a whole number", "budget"),
        ({"layers": 0}, "layers out of range: got 0", "layers"),
        ({"layers": 257}, "layers out of range", "layers"),
        ({}, "no layers", "layers"),
        ({"layers": 3, "repeats": (1, 10)}, "got 3 and 1,10, which are 2 units", "layers"),
        ({"repeats": ()}, "number of convolutions out of range: got 0", "repeats"),
        ({"repeats": (1, 0)}, "repeats out of range: got 0", "repeats"),
        ({"repeats": (200, 100)}, "convolutions out of range: got 300", "repeats"),
        ({"layers": 2, "inputs": 0}, "inputs out of range", "inputs"),
        ({"layers": 2, "kernel": 2}, "kernel is even", "kernel"),
        ({"layers": 2, "per": "layer"}, "unknown factors", "per"),
    ],
)
def test_values_out_of_range_are_an_error(
    values: dict[str, Any], words: str, argument: str
) -> None:
    with pytest.raises(SettingError, match=words) as raised:
        EnergyProblem(**{"budget": 100} | values)
    assert raised.value.argument == argument


def test_the_narrowest_layout() -> None:
    assert EnergyProblem(9, layers=3).least_weights() == 3 * 1 + 1 * 2 + 2 * 3
    assert EnergyProblem(9, layers=3, nondecreasing=True).least_weights() == 5
    assert EnergyProblem(9, repeats=(2, 2)).least_weights() == 3 + 1 + 2 + 4


def test_a_rank_as_text() -> None:
    assert str(EnergyRank(0)) == "1"
    assert str(EnergyRank(500, exact=False)) == "behind more than 500"
