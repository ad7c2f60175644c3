"""The enumeration against the brute force at equal widths: designs, blocks, all numbers."""

from dataclasses import replace
from fractions import Fraction
from functools import partial

import brute_force
import brute_layers
import numpy as np
import pytest
import sympy
from brute_force import assert_same_designs, designs

from ifspace import kinds
from ifspace.catalogue import Design
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate import search
from ifspace.enumerate.search import enumerate_designs, estimate_seconds, rough_seconds
from ifspace.errors import SettingError
from ifspace.kinds import KINDS, ConvKind

RULES = [{}, {"compact": "subset"}, {"compact": "kernels"}, {"rule": "early-stop"}, {"repeats": 2}]
WITHOUT_ROLLING = ("PW", "GC", "DW", "GPW", "SH")


def enumerated(setting: EnumerationSetting) -> tuple[Design, ...]:
    return enumerate_designs([setting], jobs=1).designs


def assert_agrees(**arguments: object) -> int:
    setting = EnumerationSetting(**arguments)
    return assert_same_designs(enumerated(setting), setting)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    ("channels", "length"), [(6, 4), (8, 4), (9, 4), (12, 3), (16, 3), (18, 3), (24, 3)]
)
def test_designs_and_minima_are_those_of_brute_force(
    channels: int, length: int, rule: dict[str, object]
) -> None:
    assert assert_agrees(channels=channels, max_len=length, **rule) > 0


@pytest.mark.slow
@pytest.mark.parametrize("rpw_order", ["blocked", "both"])
@pytest.mark.parametrize("rule", [*RULES, {"out_channels": 12}], ids=str)
@pytest.mark.parametrize(("channels", "length"), [(6, 4), (8, 4), (12, 3), (16, 3), (18, 3)])
def test_both_orders_are_searched_as_by_brute_force(
    channels: int, length: int, rule: dict[str, object], rpw_order: str
) -> None:
    grid = (Fraction(0), Fraction(33, 100), Fraction(1, 2), Fraction(3, 4))
    setting = EnumerationSetting(
        channels=channels, max_len=length, overlaps=grid, rpw_order=rpw_order, **rule
    )
    survivors = enumerated(setting)
    assert_same_designs(survivors, setting)
    orders = {layer.order for design in survivors for layer in design.block.layers}
    assert orders - {None} <= set(setting.orders)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("composition", "length", "rpw_order", "block"),
    [
        # RPW(4,0)+GPW(6)+RPW(6,1/2)+GC(6) costs the same and comes first in canonical order.
        ("RPW+GPW+RPW+GC", 4, "rolling", "RPW(6,0)+GPW(4)+RPW(6,0)+GC(6)"),
        # And here RPW(2,1/4,blocked)+RPW(6,1/2,blocked)+GC(6).
        ("RPW+RPW+GC", 3, "blocked", "RPW(6,0,blocked)+RPW(2,1/4,blocked)+GC(6)"),
    ],
)
def test_of_equal_cost_the_block_with_the_fewest_overlaps(
    composition: str, length: int, rpw_order: str, block: str
) -> None:
    grid = tuple(map(Fraction, ("0", "1/4", "1/3", "1/2", "2/3", "3/4")))
    setting = EnumerationSetting(
        channels=12, kinds="RPW,GPW,GC", max_len=length, overlaps=grid, rpw_order=rpw_order
    )
    problem = brute_force.Problem(setting)
    assert problem.block(problem.best(tuple(composition.split("+")))) == block
    by_name = {design.composition: design for design in enumerated(setting)}
    assert str(by_name[composition].block) == block


@pytest.mark.slow
@pytest.mark.parametrize("compact", ["single", "kernels", "subset"])
def test_five_layers_at_eight_channels(compact: str) -> None:
    assert_agrees(channels=8, max_len=5, compact=compact)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "arguments"),
    [
        (12, {}),
        (16, {}),
        (12, {"kinds": WITHOUT_ROLLING, "repeats": 2}),
        (16, {"repeats": 2}),
        (18, {"kinds": WITHOUT_ROLLING}),
        (24, {"kinds": WITHOUT_ROLLING}),
        (24, {"kinds": ("DW", "RPW", "SH"), "overlaps": (0,)}),
        (24, {"kinds": ("GC", "GPW", "SH"), "rule": "early-stop"}),
    ],
    ids=str,
)
def test_four_layers_where_groups_nest_and_where_they_do_not(
    channels: int, arguments: dict[str, object]
) -> None:
    assert_agrees(channels=channels, max_len=4, **arguments)


@pytest.mark.parametrize(
    ("channels", "kinds"),
    [
        (72, ("DW", "GPW", "SH")),
        (66, ("GC", "RPW", "SH")),
        (130, ("DW", "GPW", "SH")),
    ],
)
def test_more_channels_than_fit_in_one_limb(channels: int, kinds: tuple[str, ...]) -> None:
    assert_agrees(channels=channels, kinds=kinds, max_len=3)


@pytest.mark.slow
@pytest.mark.parametrize("length", [6, 7])
def test_long_compositions_of_few_kinds(length: int) -> None:
    assert_agrees(channels=8, kinds=("DW", "GPW", "SH"), max_len=length)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_compositions_without_exactly_one_spatial_layer_add_nothing(
    rule: dict[str, object],
) -> None:
    setting = EnumerationSetting(channels=6, max_len=3, **rule)
    assert designs(setting, one_spatial=False) == designs(setting)


@pytest.mark.slow
@pytest.mark.parametrize("patterns", ["any", "keep"])
def test_repeated_patterns_are_dropped_or_kept_by_mode(patterns: str) -> None:
    assert_agrees(channels=8, max_len=4, patterns=patterns)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_prime_width_leaves_two_designs(rule: dict[str, object]) -> None:
    setting = EnumerationSetting(channels=13, max_len=4, **rule)
    blocks = [str(design.block) for design in enumerated(setting)]
    one_copy = [text.removeprefix("(").removesuffix(")x2") for text in blocks]
    # Twice in a row one of the two pointwise layers is enough, so neither design is compact.
    assert one_copy == ([] if setting.repeats == 2 else ["PW+DW", "DW+PW"])
    assert_same_designs(enumerated(setting), setting)


def _rolling_convolution() -> ConvKind:
    rolling = KINDS["RPW"]
    return replace(
        rolling,
        symbol="RC",
        title="rolling convolution",
        spatial=True,
        params=rolling.params * kinds.k**kinds.d,
        reference="a test",
    )


def _comb(c_in: int, c_out: int, groups: int, step: int) -> np.ndarray:
    first = np.arange(c_out, dtype=np.int32)[:, None] // (c_out // groups)
    return first + groups * np.arange(c_in // groups, dtype=np.int32)


def _strided_pointwise() -> ConvKind:
    seen = kinds.U(1) * kinds.C_in / kinds.g * sympy.ceiling(kinds.m * kinds.g / kinds.C_out)
    return ConvKind(
        symbol="TPW",
        title="strided pointwise",
        mixing=True,
        takes_groups=True,
        windowed=True,
        scatters=True,
        fan_in=kinds.C_in / kinds.g,
        params=kinds.C_in * kinds.C_out / kinds.g,
        coverage=sympy.Min(kinds.C, seen),
        reads=_comb,
        reference="a test",
    )


def _pairs(c_in: int, c_out: int, groups: int, step: int) -> np.ndarray:
    own = np.arange(c_out, dtype=np.int32)[:, None]
    return np.concatenate([own, (own + c_in // 2) % c_in], axis=1)


def _pairing(symbol: str, spatial: bool) -> ConvKind:
    """Return a kind that reads two channels and cannot change the width; it may come last."""
    return ConvKind(
        symbol=symbol,
        title="pairing",
        spatial=spatial,
        fan_in=2,
        params=2 * kinds.C_in * (kinds.k**kinds.d if spatial else 1),
        coverage=kinds.U(kinds.C_in),
        reads=_pairs,
        reference="a test",
    )


def _pairs_by_lists(c_in: int, c_out: int, g: int, o: Fraction) -> list[list[int]]:
    return [[j, (j + c_in // 2) % c_in] for j in range(c_out)]


def _comb_by_lists(c_in: int, c_out: int, g: int, o: Fraction) -> list[list[int]]:
    return [list(range(j // (c_out // g), c_in, g)) for j in range(c_out)]


SEVENTH = {
    "TPW": (_strided_pointwise, brute_layers.Kind(_comb_by_lists, grouped=True)),
    "PAIR": (
        partial(_pairing, "PAIR", spatial=False),
        brute_layers.Kind(_pairs_by_lists, mixing=False),
    ),
    "SPAIR": (
        partial(_pairing, "SPAIR", spatial=True),
        brute_layers.Kind(_pairs_by_lists, spatial=True, mixing=False),
    ),
    "RC": (
        _rolling_convolution,
        replace(brute_layers.KINDS["RPW"], spatial=True),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("symbol", SEVENTH)
@pytest.mark.parametrize("rule", [*RULES, {"out_channels": 12}, {"out_channels": 4}], ids=str)
def test_a_seventh_kind_is_enumerated_as_the_six(
    symbol: str, rule: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    row, plain = SEVENTH[symbol]
    monkeypatch.setitem(KINDS, symbol, row())
    monkeypatch.setitem(brute_layers.KINDS, symbol, plain)
    assert brute_force.KINDS is brute_layers.KINDS
    setting = EnumerationSetting(channels=8, max_len=3, **rule)
    assert symbol in setting.kinds
    survivors = enumerated(setting)
    assert any(symbol in design.kinds for design in survivors) or setting.repeats > 1
    assert_same_designs(survivors, setting)


def test_too_few_jobs_are_an_error_before_any_work() -> None:
    for jobs in (0, -1):
        with pytest.raises(SettingError, match=r"^too few jobs: got .*; allowed: 1 or more; "):
            enumerate_designs([EnumerationSetting(channels=8, max_len=1)], jobs=jobs)


def test_the_estimate_grows_with_the_work() -> None:
    def seconds(**arguments: object) -> float:
        return rough_seconds(EnumerationSetting(**arguments))

    assert 0 < seconds(channels=16) < seconds(channels=64) < seconds(channels=1024)
    assert seconds(max_len=4) < seconds(max_len=6) < seconds(max_len=8)


@pytest.mark.parametrize("of_the_usual_time", [0.5, 1, 20])
def test_the_estimate_of_long_work_follows_what_this_machine_takes_for_the_first_lengths(
    of_the_usual_time: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[EnumerationSetting] = []

    def seconds(setting: EnumerationSetting) -> float:
        timed.append(setting)
        return rough_seconds(setting) * of_the_usual_time

    monkeypatch.setattr(search, "_cpu_seconds", seconds)
    setting = EnumerationSetting(channels=64, max_len=9, rpw_order="both")
    expected = rough_seconds(setting) * of_the_usual_time
    assert estimate_seconds(setting) == pytest.approx(expected)
    # The last length that is timed tells something; it and all before it are a moment.
    last = timed[-1]
    assert {replace(shorter, max_len=9) for shorter in timed} == {setting}
    assert seconds(last) >= search.MEASURED_S > seconds(replace(last, max_len=last.max_len - 1))
    # What is short is not timed.
    timed.clear()
    short = replace(setting, max_len=4)
    assert estimate_seconds(short) == rough_seconds(short)
    assert timed == []
