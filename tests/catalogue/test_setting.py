import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ifspace.block import Block
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import IfspaceError, SettingError
from ifspace.floors import kinds_without_choice
from ifspace.kinds import KINDS, alphabet

OVERLAPS = (Fraction(0), Fraction(33, 100), Fraction(1, 2))


def test_the_defaults_are_those_of_the_command_line() -> None:
    assert EnumerationSetting().arguments() == {
        "channels": 64,
        "out_channels": None,
        "kinds": list(alphabet()),
        "max_len": 6,
        "kernel": 3,
        "overlaps": ["0", "33/100", "1/2"],
        "repeats": 1,
        "bottleneck": None,
        "rule": "compact",
        "permutation": "explicit",
        "patterns": "whole",
        "compact": "single",
        "stride": 1,
        "dims": 2,
        "objective": "params",
        "rpw_order": "rolling",
        "floors": {
            "least_fan_in": 1,
            "least_spatial_fan_in": 1,
            "multiple": 1,
            "most_groups": None,
        },
        "front": False,
        "most_peak": None,
    }


def test_an_older_catalogue_is_in_rolling_order_and_compact_in_every_layer() -> None:
    older = EnumerationSetting(channels=16).arguments()
    del older["rpw_order"], older["compact"]
    assert EnumerationSetting.from_arguments(older).orders == ("rolling",)
    assert EnumerationSetting.from_arguments(older).compact == "single"
    with pytest.raises(SettingError, match="unknown rpw_order: got 'any'; allowed: rolling, block"):
        EnumerationSetting(rpw_order="any")


def test_values_are_canonical() -> None:
    one = EnumerationSetting(16, 16, ("sh", "PW", "sh"), overlaps=("0.5", 0, "1/2"))
    other = EnumerationSetting(16, None, "PW,SH", overlaps=(0, Fraction(1, 2)))
    assert one == other
    assert hash(one) == hash(other)
    assert one.kinds == ("PW", "SH")
    # A decimal is what it says: 0.33 is not a third.
    assert EnumerationSetting(overlaps=("0.33", "1/3")).overlaps == (
        Fraction(33, 100),
        Fraction(1, 3),
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 1}, "channels out of range: got 1"),
        ({"channels": 4097}, "channels out of range: got 4097; allowed: whole numbers from 2 to"),
        ({"channels": 16.0}, "channels out of range"),
        ({"channels": True}, "channels out of range"),
        ({"out_channels": 0}, "out_channels out of range"),
        (
            {"max_len": 0},
            "max_len out of range: got 0; .* from 1 to 16; raise max_len to 1",
        ),
        ({"max_len": "six"}, "max_len out of range: got 'six'; .*; give max_len as a whole number"),
        ({"channels": 0}, "got 0; allowed: whole numbers from 2 to 4096; raise channels to 2"),
        ({"max_len": -1}, "max_len out of range: got -1"),
        ({"repeats": 0}, "repeats out of range"),
        ({"kernel": 4}, "kernel is even: got 4"),
        ({"kernel": 1}, "kernel out of range"),
        ({"kinds": ("PW", "XY")}, "unknown kind of convolution: got 'XY'; allowed: PW, GC"),
        (
            {"kinds": ("CONV",)},
            "the reference .*no block of a catalogue has: got 'CONV'; allowed: PW",
        ),
        ({"kinds": ()}, "no kind to enumerate"),
        ({"overlaps": (1,)}, "overlap ratio out of range: got 1; allowed: 0 <= o < 1"),
        ({"overlaps": ("-0.1",)}, "overlap ratio out of range: got -0.1"),
        ({"overlaps": (0.33,)}, "overlap ratio out of range: got 0.33"),
        ({"overlaps": ()}, "no overlap ratio"),
        ({"bottleneck": "1/3"}, "bottleneck is not a whole number of channels: got 1/3 of 64"),
        ({"bottleneck": "0"}, "bottleneck is not a whole number"),
        ({"bottleneck": 0.25}, "bottleneck is not a whole number"),
        ({"bottleneck": "1/0"}, "bottleneck is not a whole number"),
        ({"bottleneck": "1e999999999"}, "bottleneck is not a whole number"),
        ({"rule": "other"}, "unknown rule: got 'other'; allowed: compact, early-stop"),
        ({"permutation": "x"}, "unknown permutation"),
        ({"patterns": "x"}, "unknown patterns"),
        ({"compact": "x"}, "unknown compact"),
        ({"stride": 3}, "unknown stride: got 3; allowed: 1, 2"),
        ({"dims": True}, "unknown dims"),
        ({"objective": "memory"}, "unknown objective"),
    ],
)
def test_a_wrong_value_is_an_error_of_one_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        EnumerationSetting(**wrong)
    assert "\n" not in str(caught.value)
    assert "allowed: " in str(caught.value)


def test_no_kind_left_at_a_prime_width() -> None:
    with pytest.raises(SettingError, match=r"no kind is left at 13 channels.*add one of them"):
        EnumerationSetting(channels=13, kinds=("GC", "SH"))


def test_a_prime_width_drops_the_grouped_kinds_with_a_note(snapshot: object) -> None:
    setting = EnumerationSetting(channels=13)
    assert setting.usable_kinds == ("PW", "DW")
    fewer = EnumerationSetting(channels=13, kinds=("PW", "SH"))
    assert fewer.usable_kinds == ("PW",)
    assert (*setting.notes(), *fewer.notes()) == snapshot
    assert EnumerationSetting(channels=16).notes() == ()


def test_at_unequal_widths_a_kind_needs_one_pair_that_it_fits() -> None:
    # At 13 channels to 26 the layer that changes the width can have 13 groups; a shuffle has none.
    setting = EnumerationSetting(channels=13, out_channels=26, kinds=("DW", "GPW", "SH"))
    assert setting.width_pairs == ((13, 13), (13, 26), (26, 26))
    assert setting.usable_kinds == ("DW", "GPW", "SH")
    assert kinds_without_choice(("GPW", "SH"), ((13, 26),), OVERLAPS) == ("SH",)
    note = EnumerationSetting(channels=16, out_channels=15, kinds=("PW", "GC")).notes()
    assert note == ()  # GC fits between the 16 channels before the change
    inner = EnumerationSetting(channels=13, bottleneck="1/13", kinds=("PW", "DW", "SH"))
    assert inner.inner_width == 1
    assert "at 13 channels by way of 1: SH has no" in inner.notes()[0]


def test_widths_with_a_bottleneck() -> None:
    setting = EnumerationSetting(16, 32, bottleneck="1/4")
    assert (setting.out_width, setting.inner_width) == (32, 8)
    assert set(setting.width_pairs) == {(16, 16), (16, 8), (8, 8), (8, 32), (32, 32)}
    again = EnumerationSetting(16, 32, bottleneck="1/4", repeats=2)
    assert set(again.width_pairs) - set(setting.width_pairs) == {(32, 8)}


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_the_reference_counts_as_its_convolutions_do(repeats: int, stride: Any, dims: Any) -> None:
    setting = EnumerationSetting(16, 24, kernel=5, repeats=repeats, stride=stride, dims=dims)
    weights = 5**dims * (16 * 24 + (repeats - 1) * 24 * 24)
    assert setting.reference_params == weights
    # The first convolution carries the stride: all of them run on output pixels.
    assert setting.reference_macs_per_pixel == weights
    assert setting.reference_field.side == 1 + 4 * repeats
    assert setting.reference.block == Block.parse(f"(CONV(5))x{repeats}")


@pytest.mark.slow
@given(
    channels=st.integers(2, 4096),
    out_channels=st.none() | st.integers(1, 4096),
    kinds=st.sets(st.sampled_from(alphabet()), min_size=1),
    overlaps=st.sets(st.fractions(0, Fraction(99, 100), max_denominator=100), min_size=1),
    bottleneck=st.none() | st.fractions(Fraction(1, 8), 4, max_denominator=8),
    rest=st.fixed_dictionaries(
        {
            "max_len": st.integers(1, 12),
            "rule": st.sampled_from(["compact", "early-stop"]),
            "stride": st.sampled_from([1, 2]),
            "objective": st.sampled_from(["params", "macs", "activations"]),
        }
    ),
)
def test_arguments_are_json_and_bring_the_setting_back(
    rest: dict[str, Any], **arguments: Any
) -> None:
    try:
        setting = EnumerationSetting(**arguments, **rest)
    except IfspaceError:
        assume(False)
    text = json.dumps(setting.arguments())
    assert EnumerationSetting.from_arguments(json.loads(text)) == setting


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(SettingError, match="unknown field: got 'depth'; allowed: channels"):
        EnumerationSetting.from_arguments({"depth": 3})


def test_a_kind_added_to_the_table_is_enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(KINDS, "TPW", replace(KINDS["GPW"], symbol="TPW"))  # type: ignore[arg-type]
    assert EnumerationSetting().kinds[-1] == "TPW"
    assert EnumerationSetting(kinds=("tpw",)).usable_kinds == ("TPW",)
