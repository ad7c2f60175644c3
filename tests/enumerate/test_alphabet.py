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
WORDS = [
    word for n in (1, 2, 3) for word in product(("PW", "GC", "DW", "GPW", "RPW", "SH"), repeat=n)
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
    placed = 0
    for word in WORDS:
        letters, expected = alphabet.place(word), problem.options(word)
        assert (letters is None) == (expected is None), word
        if not any(kind in ("GC", "DW") for kind in word) or expected is None:
            continue
        for number, options in zip(letters, expected, strict=True):
            placed += 1
            letter = alphabet.letters[number]
            distinct = list({steps(option): option for option in reversed(options)}.values())[::-1]
            got = [(each.groups or 1, each.overlap or 0) for each in letter.options]
            kept = [option.layers[0] for option in distinct]
            assert got == [(layer.groups, layer.overlap) for layer in kept], word
            costs = [alphabet.measures(each.cost) for each in letter.options]
            assert costs == [option.price[:2] for option in distinct], word
            assert all(letter.activations == option.price[2] for option in distinct), word
    assert placed


@pytest.mark.parametrize("arguments", SETTINGS, ids=str)
def test_relations_are_what_the_layers_read(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(max_len=3, **arguments)
    alphabet, problem = Alphabet(setting), brute_force.Problem(setting)
    decides, real = alphabet.tracks.decides, alphabet.tracks.real or alphabet.tracks.decides
    copies = [0] + [1] * (setting.repeats - 1)
    for word in WORDS:
        if not any(kind in ("GC", "DW") for kind in word) or alphabet.place(word) is None:
            continue
        for number, options in zip(alphabet.place(word), problem.options(word), strict=True):
            by_choice = {(each.layers[0].groups, each.layers[0].overlap): each for each in options}
            for each in alphabet.letters[number].options:
                expected = by_choice[each.groups or 1, each.overlap or 0]
                for layers, tracks in ((expected.layers, decides), (expected.real, real)):
                    for layer, copy in zip(layers, copies, strict=True):
                        relation = each.relations[tracks[copy]]
                        rows = alphabet.relations[relation]
                        bits = [sum(1 << i for i in set(read)) for read in layer.reads]
                        assert [int(row[0]) for row in rows] == bits
                        assert alphabet.inputs[relation] == layer.c_in


def test_depthwise_layers_drop_out_of_channel_words_wherever_they_stand() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=16))
    words = [("DW", "RPW", "SH", "GPW"), ("RPW", "DW", "SH", "GPW"), ("RPW", "SH", "GPW", "DW")]
    assert len({alphabet.word(word) for word in words}) == 1
    assert alphabet.word(("DW",)) == ()
    assert len(alphabet.word(("GC", "SH"))) == 2


def test_layers_before_a_stride_are_letters_of_their_own() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=16, stride=2))
    assert alphabet.word(("RPW", "DW", "RPW")) != alphabet.word(("DW", "RPW", "RPW"))


def test_compositions_that_the_widths_leave_no_place_for_have_no_word() -> None:
    narrow = Alphabet(EnumerationSetting(channels=16, bottleneck="1/4"))
    assert narrow.word(("PW", "DW")) is None
    assert narrow.word(("PW", "DW", "PW")) is not None
    wider = Alphabet(EnumerationSetting(channels=16, out_channels=32))
    assert wider.word(("DW", "SH")) is None


def test_costs_too_large_to_compare_exactly_are_refused() -> None:
    with pytest.raises(SettingError, match=r"costs too large to compare exactly: got 4096 "):
        Alphabet(EnumerationSetting(channels=4096, stride=2, max_len=10, kernel=9))
