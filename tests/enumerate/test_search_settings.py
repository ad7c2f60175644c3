"""The enumeration against the brute force in other settings: widths, rules, what is minimised."""

from fractions import Fraction

import pytest
from brute_force import assert_same_designs, is_small
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ifspace.block import Block, Composition
from ifspace.catalogue import Design
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.satisfiable import check_floors
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.groups.problem import GroupsProblem, judge
from ifspace.groups.solve import cheapest_groups
from ifspace.reach import channel_field

SIX = ("PW", "GC", "DW", "GPW", "RPW", "SH")


def enumerated(setting: EnumerationSetting) -> tuple[Design, ...]:
    return enumerate_designs([setting], jobs=1).designs


def blocks(**arguments: object) -> dict[str, Design]:
    return {design.composition: design for design in enumerated(EnumerationSetting(**arguments))}


CASES = [
    # Free permutations: fan-ins multiply.
    {"channels": 8, "permutation": "free", "max_len": 4},
    {"channels": 12, "permutation": "free", "rule": "early-stop"},
    {"channels": 16, "permutation": "free", "rule": "early-stop", "repeats": 2, "max_len": 2},
    {"channels": 12, "permutation": "free", "repeats": 2, "compact": "subset"},
    # The walk through several copies, and three copies.
    {"channels": 8, "rule": "early-stop", "repeats": 2, "max_len": 4},
    {"channels": 12, "rule": "early-stop", "repeats": 3, "kinds": ("DW", "GPW", "SH", "GC")},
    {"channels": 8, "repeats": 3},
    {"channels": 12, "repeats": 3},
    {"channels": 12, "repeats": 2, "compact": "subset"},
    {"channels": 12, "repeats": 2, "compact": "kernels", "permutation": "free"},
    {"channels": 12, "kinds": ("GC", "GPW", "SH"), "repeats": 2, "compact": "kernels"},
    # Another width after the block: a multiple of C, where GC(C) is legal, a divisor, neither.
    {"channels": 2, "out_channels": 24, "max_len": 4},
    {"channels": 8, "out_channels": 24, "compact": "subset"},
    {"channels": 8, "out_channels": 16, "compact": "kernels"},
    {"channels": 6, "out_channels": 12, "repeats": 2},
    {"channels": 6, "out_channels": 12, "rule": "early-stop", "permutation": "free"},
    {"channels": 13, "out_channels": 26, "max_len": 4},
    {"channels": 18, "out_channels": 12},
    {"channels": 8, "out_channels": 16, "max_len": 4},
    {"channels": 12, "out_channels": 4},
    {"channels": 12, "out_channels": 18, "compact": "subset"},
    {"channels": 8, "out_channels": 12, "repeats": 2},
    {"channels": 16, "out_channels": 8, "repeats": 2, "rule": "early-stop"},
    {"channels": 12, "out_channels": 24, "permutation": "free", "stride": 2},
    {"channels": 6, "out_channels": 4, "kinds": ("DW", "RPW", "SH"), "max_len": 5},
    # Bottlenecks, narrow and wide, and such that change no width on one side; a count at which
    # the entry or the exit copies channels is not among the choices.
    {"channels": 6, "out_channels": 12, "bottleneck": "1", "max_len": 4},
    {"channels": 16, "bottleneck": "1/4", "patterns": "any"},
    {"channels": 8, "bottleneck": "1/4", "max_len": 4},
    {"channels": 16, "bottleneck": "1/4", "rule": "early-stop", "permutation": "free"},
    {"channels": 8, "bottleneck": 2, "max_len": 4},
    {"channels": 8, "bottleneck": 1},
    {"channels": 8, "out_channels": 16, "bottleneck": "1/2", "max_len": 4},
    {"channels": 8, "out_channels": 16, "bottleneck": "1/2", "repeats": 2},
    {"channels": 12, "out_channels": 24, "bottleneck": "1/4", "repeats": 2, "rule": "early-stop"},
    {"channels": 12, "bottleneck": "1/2", "compact": "subset", "repeats": 2},
    {"channels": 12, "bottleneck": "1/2", "compact": "kernels"},
    {"channels": 12, "bottleneck": "1/2", "compact": "subset", "max_len": 4, "kinds": SIX[1:4]},
    # Overlaps: several of one step are one choice, named by the smallest.
    {"channels": 12, "overlaps": ("0", "1/4", "1/3", "0.33", "1/2", "3/4", "0.9")},
    {"channels": 8, "overlaps": ("1/3", "2/3"), "max_len": 4},
    {"channels": 9, "overlaps": ("0.33", "1/3"), "max_len": 4},
    # What is minimised.
    {"channels": 16, "stride": 2, "objective": "macs"},
    {"channels": 12, "stride": 2, "objective": "params"},
    {"channels": 12, "stride": 2, "objective": "activations"},
    {"channels": 8, "stride": 2, "objective": "macs", "repeats": 2, "dims": 1},
    {"channels": 8, "out_channels": 16, "stride": 2, "objective": "macs", "kernel": 5},
    {"channels": 8, "bottleneck": "1/2", "stride": 2, "objective": "macs", "max_len": 4},
    {"channels": 16, "objective": "activations", "kernel": 5, "dims": 1},
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", CASES, ids=str)
def test_designs_and_minima_are_those_of_brute_force(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(**{"max_len": 3} | arguments)
    assert assert_same_designs(enumerated(setting), setting) > 0


@st.composite
def settings_small_enough(draw: st.DrawFn) -> EnumerationSetting:
    def one_of(*values: object) -> object:
        return draw(st.sampled_from(values))

    some_overlaps = [("0", "0.33", "0.5"), ("0",), ("1/3", "2/3"), ("0", "1/4", "1/3", "0.9")]
    try:
        setting = EnumerationSetting(
            channels=one_of(4, 6, 8, 9, 10, 12, 16, 18),
            out_channels=one_of(None, None, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24),
            kinds=draw(st.sets(st.sampled_from(SIX), min_size=3)),
            max_len=one_of(2, 3, 4, 5),
            kernel=one_of(3, 5),
            overlaps=one_of(*some_overlaps),
            repeats=one_of(1, 1, 2, 3),
            bottleneck=one_of(None, None, "1/4", "1/3", "1/2", "1", "3/2", "2"),
            rule=one_of("compact", "early-stop"),
            permutation=one_of("explicit", "explicit", "free"),
            patterns=one_of("whole", "any", "keep"),
            compact=one_of("single", "kernels", "subset"),
            stride=one_of(1, 2),
            dims=one_of(1, 2),
            objective=one_of("params", "macs", "activations"),
            floors=one_of(Floors(), Floors(2), Floors(1, 4), Floors(3, 1, 2), Floors(1, 1, 2, 4)),
        )
    except SettingError:
        assume(False)
    assume(is_small(setting, 8000))
    try:
        check_floors(setting)
    except SettingError:
        assume(False)
    return setting


@pytest.mark.slow
@settings(max_examples=120)
@given(settings_small_enough())
def test_any_small_setting_agrees_with_brute_force(setting: EnumerationSetting) -> None:
    assert_same_designs(enumerated(setting), setting)


def test_with_a_stride_macs_and_parameters_choose_different_blocks() -> None:
    # Before the stride a layer runs on four times as many pixels: there MACs want it thinner.
    at = {"channels": 16, "kinds": ("DW", "GPW", "SH"), "max_len": 4, "stride": 2}
    by_params = blocks(**at, objective="params")["GPW+SH+DW+GPW"]
    by_macs = blocks(**at, objective="macs")["GPW+SH+DW+GPW"]
    assert str(by_params.block) == "GPW(4)+SH(4)+DW+GPW(4)"
    assert (by_params.params, by_params.macs_per_pixel) == (64 + 144 + 64, 4 * 64 + 144 + 64)
    assert str(by_macs.block) == "GPW(8)+SH(8)+DW+GPW(2)"
    assert (by_macs.params, by_macs.macs_per_pixel) == (32 + 144 + 128, 4 * 32 + 144 + 128)
    # Activations do not depend on groups: 4 x 16 before the stride, 2 x 16 after it.
    assert by_params.activations_per_pixel == by_macs.activations_per_pixel == 96
    for objective in ("params", "macs"):
        setting = EnumerationSetting(**at, objective=objective)
        assert_same_designs(enumerated(setting), setting)


@pytest.mark.parametrize("arguments", [{}, {"repeats": 2}, {"out_channels": 24}, {"dims": 1}])
def test_at_stride_one_all_objectives_choose_the_same_blocks(arguments: dict[str, object]) -> None:
    one, *others = (
        enumerated(EnumerationSetting(channels=12, max_len=3, objective=objective, **arguments))
        for objective in ("params", "macs", "activations")
    )
    assert one
    assert all(other == one for other in others)
    assert all(design.macs_per_pixel == design.params for design in one)


def test_blocks_of_equal_activations_are_told_apart_by_their_macs() -> None:
    # The documented order of ties: fewer MACs, activations, parameters, canonical order.
    at = {"channels": 16, "kinds": ("DW", "GPW", "SH"), "max_len": 4, "stride": 2}
    for objective in ("macs", "activations"):
        design = blocks(**at, objective=objective)["GPW+SH+DW+GPW"]
        assert str(design.block) == "GPW(8)+SH(8)+DW+GPW(2)", objective


def test_of_blocks_with_equal_macs_the_one_with_fewer_parameters_is_chosen() -> None:
    # And a design is the same as a simpler one that has fewer parameters at equal MACs.
    arguments = {"channels": 12, "stride": 2, "dims": 1, "objective": "macs", "max_len": 4}
    setting = EnumerationSetting(
        **arguments,
        kinds=("PW", "GC", "RPW", "SH"),
        overlaps=(Fraction(0),),
        patterns="any",
        rule="early-stop",
        permutation="free",
    )
    assert_same_designs(enumerated(setting), setting)


def test_a_choice_that_fails_at_the_real_widths_gives_way_to_the_next_cheapest() -> None:
    # At width 12 windows of 4 see 16 channels in two copies; from 12 to 6 the second has 2 of 6.
    at = {"channels": 12, "kinds": ("DW", "RPW"), "max_len": 2, "repeats": 2}
    assert str(blocks(**at)["(DW+RPW)x2"].block) == "(DW+RPW(3,0))x2"
    cheaper = Block.parse("(DW+RPW(3,0))x2")
    assert channel_field(cheaper.at(12).layers) == 12
    assert channel_field(cheaper.at(12, 6).layers) < 12
    assert str(blocks(**at, out_channels=6)["(DW+RPW)x2"].block) == "(DW+RPW(2,0))x2"
    # And where no choice is left the design does not survive, though it does at equal widths.
    at = {"channels": 8, "kinds": ("RPW", "SH", "GC"), "max_len": 3, "repeats": 2}
    assert "(RPW+SH+GC)x2" in blocks(**at)
    assert "(RPW+SH+GC)x2" not in blocks(**at, out_channels=12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "out_channels"), [(8, 16), (8, 4), (12, 18), (13, 26), (16, 48), (24, 8)]
)
def test_the_cheapest_group_counts_are_those_of_the_groups_command(
    channels: int, out_channels: int
) -> None:
    # It asks for the full field only; where its plan is compact too, it is the design's block.
    survivors = blocks(channels=channels, out_channels=out_channels, max_len=4)
    equal = 0
    for composition, design in survivors.items():
        problem = GroupsProblem(Composition.parse(composition), channels, out_channels)
        (plan,) = cheapest_groups(problem).plans
        assert plan.objective() <= design.params, composition
        if judge(plan).compact:
            assert plan.objective() == design.params, composition
            equal += 1
    assert 2 * equal > len(survivors) > 1


@pytest.mark.parametrize("arguments", [{}, {"out_channels": 128}, {"permutation": "free"}])
def test_no_entry_or_exit_of_a_bottleneck_copies_channels(arguments: dict[str, object]) -> None:
    survivors = blocks(channels=64, bottleneck="1/4", patterns="any", max_len=3, **arguments)
    assert survivors
    changing = [
        layer
        for design in survivors.values()
        for layer in design.sized.layers
        if layer.changes_width
    ]
    assert min(layer.fan_in for layer in changing) > 1
    problem = GroupsProblem(Composition.parse("PW+GC"), 64, bottleneck=Fraction(1, 4))
    (plan,) = cheapest_groups(problem).plans
    assert str(plan.block) == "PW+GC(8)"
