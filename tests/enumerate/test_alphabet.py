"""The letters of a setting: what each layer may choose, costs and connects, at all its widths."""

from itertools import product

import brute_force
import pytest

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import Alphabet
from ifspace.errors import SettingError

SETTINGS = [
    {"channels": 12},
    {"channels": 16, "out_channels": 8},
    {"channels": 12, "out_channels": 18, "repeats": 2, "stride": 2},
    {"channels": 8, "out_channels": 16, "bottleneck": "1/2", "stride": 2, "objective": "macs"},
    {"channels": 12, "out_channels": 24, "bottleneck": "1/4", "repeats": 3, "dims": 1},
    {"channels": 16, "bottleneck": 2, "kernel": 5, "objective": "activations"},
]
COMPOSITIONS = [
    kinds for n in (1, 2, 3) for kinds in product(("PW", "GC", "DW", "GPW", "RPW", "SH"), repeat=n)
]


def steps(option: brute_force.Option) -> tuple[object, ...]:
    """What tells two choices apart: what they read."""
    return tuple(layer.reads for layer in option.layers + option.real)


@pytest.mark.parametrize("arguments", SETTINGS, ids=str)
def test_choices_and_costs_of_every_layer_are_those_of_the_definitions(
    arguments: dict[str, object],
) -> None:
    setting = EnumerationSetting(max_len=3, **arguments)
    alphabet, problem = Alphabet(setting), brute_force.Problem(setting)
    compared = 0
    for kinds in COMPOSITIONS:
        letters, expected = alphabet.all_letters(kinds), problem.options(kinds)
        assert (letters is None) == (expected is None), kinds
        if not any(kind in ("GC", "DW") for kind in kinds) or expected is None:
            continue
        for number, options in zip(letters, expected, strict=True):
            compared += 1
            letter = alphabet.letters[number]
            distinct = list({steps(option): option for option in reversed(options)}.values())[::-1]
            choices = [(x.layer.groups or 1, x.layer.overlap or 0) for x in letter.options]
            layers = [option.layers[0] for option in distinct]
            assert choices == [(layer.groups, layer.overlap) for layer in layers], kinds
            costs = [alphabet.measures(option.cost) for option in letter.options]
            assert costs == [option.price[:2] for option in distinct], kinds
            assert all(letter.activations == option.price[2] for option in distinct), kinds
    assert compared


@pytest.mark.parametrize("arguments", SETTINGS, ids=str)
def test_relations_are_what_the_layers_read(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(max_len=3, **arguments)
    alphabet, problem = Alphabet(setting), brute_force.Problem(setting)
    decides, real = alphabet.tracks.decides, alphabet.tracks.real or alphabet.tracks.decides
    copies = [0] + [1] * (setting.repeats - 1)
    for kinds in COMPOSITIONS:
        if not any(kind in ("GC", "DW") for kind in kinds) or alphabet.all_letters(kinds) is None:
            continue
        for number, options in zip(
            alphabet.all_letters(kinds), problem.options(kinds), strict=True
        ):
            by_choice = {
                (option.layers[0].groups, option.layers[0].overlap): option for option in options
            }
            for option in alphabet.letters[number].options:
                chosen = option.layer
                expected = by_choice[chosen.groups or 1, chosen.overlap or 0]
                for layers, tracks in ((expected.layers, decides), (expected.real, real)):
                    for layer, copy in zip(layers, copies, strict=True):
                        relation = option.relations[tracks[copy]]
                        rows = alphabet.relations[relation]
                        bits = [sum(1 << i for i in set(read)) for read in layer.reads]
                        assert [int(row[0]) for row in rows] == bits
                        assert alphabet.inputs[relation] == layer.c_in


def test_depthwise_layers_are_not_channel_letters_at_any_index() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=16))
    orders = [("DW", "RPW", "SH", "GPW"), ("RPW", "DW", "SH", "GPW"), ("RPW", "SH", "GPW", "DW")]
    assert len({alphabet.channel_letters(kinds) for kinds in orders}) == 1
    assert alphabet.channel_letters(("DW",)) == ()
    assert len(alphabet.channel_letters(("GC", "SH"))) == 2


def test_layers_before_a_stride_are_letters_of_their_own() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=16, stride=2))
    assert alphabet.channel_letters(("RPW", "DW", "RPW")) != alphabet.channel_letters(
        ("DW", "RPW", "RPW")
    )


def test_compositions_that_cannot_have_the_widths_have_no_letters() -> None:
    narrow = Alphabet(EnumerationSetting(channels=16, bottleneck="1/4"))
    assert narrow.channel_letters(("PW", "DW")) is None
    assert narrow.channel_letters(("PW", "DW", "PW")) is not None
    wider = Alphabet(EnumerationSetting(channels=16, out_channels=32))
    assert wider.channel_letters(("DW", "SH")) is None


def test_costs_too_large_to_compare_exactly_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"costs too large to compare exactly: got 4096 "):
        Alphabet(EnumerationSetting(channels=4096, stride=2, max_len=10, kernel=9))
