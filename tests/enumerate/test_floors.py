"""Enumerations with floors: against brute force, what is satisfiable, and what works instead."""

from collections.abc import Callable
from itertools import product

import pytest
from brute_force import Problem, assert_same_designs, compositions

from ifspace.catalogue import Design
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.satisfiable import params_range
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.floors import Floors

# By themselves and together.
FLOORS = [
    Floors(least_fan_in=3),
    Floors(least_fan_in=8),
    Floors(least_spatial_fan_in=4),
    Floors(multiple=3),
    Floors(multiple=4),
    Floors(most_groups=4),
    Floors(least_fan_in=2, least_spatial_fan_in=6, multiple=2, most_groups=6),
]
# C to C, 2C and 3C/2; the longest of which brute force lists every choice.
WIDTHS = [(8, 8, 3), (8, 16, 3), (8, 12, 3), (12, 12, 3), (12, 24, 3), (12, 18, 3)]
WIDTHS += [(16, 16, 3), (16, 32, 2), (16, 24, 2), (24, 24, 2), (24, 48, 2), (24, 36, 2)]


def enumerated(setting: EnumerationSetting) -> tuple[Design, ...]:
    return enumerate_designs([setting], jobs=1).designs


@pytest.mark.slow
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_designs_and_minima_within_floors_are_those_of_brute_force(
    widths: tuple[int, int, int],
) -> None:
    c, f, max_len = widths
    for floors in FLOORS:
        setting = EnumerationSetting(c, f, max_len=max_len, floors=floors)
        assert assert_same_designs(enumerated(setting), setting) > 0
        assert all(floors.least_fan_in <= design.least_fan_in for design in enumerated(setting))


def test_the_fewest_parameters_of_a_fan_in() -> None:
    setting = EnumerationSetting(64, max_len=4, floors=Floors(least_fan_in=16))
    designs = enumerated(setting)
    assert min(design.params for design in designs) == 2624
    assert str(params_range(setting)) == "2,624 to 40,960 parameters"
    assert min(design.least_fan_in for design in designs) == 16


def test_floors_make_the_search_smaller() -> None:
    choices = [
        enumerate_designs([EnumerationSetting(16, max_len=4, floors=floors)], jobs=1)
        .funnels[0]
        .choices_covered
        for floors in (Floors(), Floors(least_fan_in=4), Floors(least_fan_in=8))
    ]
    assert choices[0] > 2 * choices[1] > 4 * choices[2] > 0


def test_the_minimum_of_a_floor_is_not_among_the_minima_without_it() -> None:
    at = {"channels": 96, "out_channels": 192, "stride": 2, "max_len": 4}
    at |= {"kinds": ("DW", "GPW", "SH", "PW")}
    without = {design.composition: design for design in enumerated(EnumerationSetting(**at))}
    setting = EnumerationSetting(**at, floors=Floors(least_fan_in=8))
    within = {design.composition: design for design in enumerated(setting)}
    # 9 x 96 + 96 x 96 / 8 + 96 x 192 / 12: as many parameters, and another choice.
    assert min(design.params for design in within.values()) == params_range(setting).least == 3552
    name = "DW+GPW+SH+GPW"
    assert str(within[name].block) == "DW+GPW(8)+SH(8)+GPW(12)"
    assert (without[name].params, without[name].least_fan_in) == (3552, 6)


@pytest.mark.parametrize(
    ("c", "f", "bottleneck", "length"),
    [
        (8, 8, None, 3),
        (8, 12, None, 3),
        (8, 8, "1/2", 3),
        pytest.param(12, 12, None, 3, marks=pytest.mark.slow),
        (12, 18, None, 2),
        pytest.param(16, 16, None, 3, marks=pytest.mark.slow),
        (16, 32, None, 2),
    ],
)
def test_every_choice_that_passes_costs_what_is_said_before(
    c: int, f: int, bottleneck: str | None, length: int
) -> None:
    for floors in (Floors(), Floors(least_fan_in=4), Floors(multiple=2)):
        setting = EnumerationSetting(c, f, max_len=length, bottleneck=bottleneck, floors=floors)
        problem, within = Problem(setting), params_range(setting)
        costs = [
            problem.price(choice)[0]
            for kinds in compositions(setting)
            for options in [problem.options(kinds)]
            if options is not None
            for choice in product(*options)
            if problem.passes(choice)
        ]
        assert within.least <= min(costs) <= max(costs) <= within.most


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--least-fan-in 100",
            "--least-fan-in leaves no block at 64 channels: got 100; "
            "allowed: up to 64; lower --least-fan-in to 64",
        ),
        ("--kinds DW,GPW,SH --multiple 64", "lower --multiple to 32"),
        ("--kinds DW,GPW,SH --most-groups 1", "raise --most-groups to 2"),
        ("--kinds GC,PW --least-spatial-fan-in 48", "lower --least-spatial-fan-in to 32"),
        ("--least-fan-in 0", "--least-fan-in out of range: got 0"),
    ],
)
def test_floors_that_leave_nothing_say_which_and_what_works(
    run: Callable, arguments: str, message: str
) -> None:
    run("enumerate", "-C", 64, "--max-len", 3, *arguments.split()).fails_with(message)


def test_floors_that_only_together_leave_nothing() -> None:
    with pytest.raises(SettingError, match="lower several of least_fan_in and most_groups"):
        enumerated(
            EnumerationSetting(
                16, kinds=("DW", "GPW", "SH"), floors=Floors(least_fan_in=99, most_groups=1)
            )
        )


def test_what_is_satisfiable_is_said_before_solving(run: Callable) -> None:
    result = run("enumerate", "-C", 64, "--max-len", 3, "--least-fan-in", 16, "--limit", 1)
    assert "at 64 channels with at least 16 channels per filter: 2,624 to 40,960" in result.err
    assert "(--least-fan-in 16)" in result.out
    assert "least fan-in" in result.out
