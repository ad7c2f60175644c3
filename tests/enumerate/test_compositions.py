"""Compositions: counting, repeated patterns, and which ones are candidates."""

from itertools import product

import brute_force
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import (
    Alphabet,
    Letters,
)
from ifspace.enumerate.compositions import (
    candidates,
    count_kept,
    has_square,
    is_dropped,
    is_repeated,
)
from ifspace.enumerate.halves import HalfSearch
from ifspace.enumerate.search import LENGTH_OF_LETTERS, engine_for
from ifspace.errors import SettingError

COMPOSITIONS = st.lists(st.sampled_from("abc"), max_size=12).map(tuple)


def test_the_whole_space_has_the_known_sizes() -> None:
    assert sum(count_kept(6, n) for n in range(1, 7)) == 55986
    assert sum(count_kept(4, n) for n in range(1, 7)) == 5460
    assert sum(count_kept(6, n) for n in range(1, 9)) == 2015538
    assert sum(count_kept(6, n) for n in range(1, 11)) == 72559410


@pytest.mark.parametrize(
    ("alphabet", "patterns", "kept"),
    [
        (6, "whole", [6, 30, 210, 1260, 7770, 46410]),
        (6, "any", [6, 30, 150, 720, 3480, 16680]),
        (4, "whole", [4, 12, 60, 240, 1020, 4020]),
        (4, "any", [4, 12, 36, 96, 264, 696]),
    ],
)
def test_counts_kept_are_the_published_ones(alphabet: int, patterns: str, kept: list[int]) -> None:
    assert [count_kept(alphabet, n, patterns) for n in range(1, 7)] == kept


@pytest.mark.parametrize("patterns", ["whole", "any", "keep"])
def test_counts_are_those_of_the_filtered_product(patterns: str) -> None:
    for alphabet in (1, 2, 3, 4):
        for length in range(1, 8):
            compositions = product(range(alphabet), repeat=length)
            expected = sum(brute_force.kept(kinds, patterns) for kinds in compositions)
            assert count_kept(alphabet, length, patterns) == expected


def test_square_free_compositions_of_three_kinds_are_a_published_sequence() -> None:
    # OEIS A006156: ternary square-free words.
    sequence = [3, 6, 12, 18, 30, 42, 60, 78, 108, 144]
    assert [count_kept(3, n, "any") for n in range(1, 11)] == sequence


@given(COMPOSITIONS)
def test_patterns_are_those_of_the_definition(kinds: tuple[str, ...]) -> None:
    assert is_repeated(kinds) == brute_force.repeated(kinds)
    assert has_square(kinds) == brute_force.holds_repeat(kinds)


@given(COMPOSITIONS, st.integers(2, 4))
def test_a_composition_written_again_is_repeated_and_holds_a_square(
    kinds: tuple[str, ...], times: int
) -> None:
    assert is_repeated(kinds * times) == has_square(kinds * times) == bool(kinds)


@given(COMPOSITIONS, COMPOSITIONS, COMPOSITIONS)
def test_a_square_is_one_wherever_it_stands(
    left: tuple[str, ...], kinds: tuple[str, ...], right: tuple[str, ...]
) -> None:
    assert not has_square(kinds) or has_square(left + kinds + right)
    assert is_dropped(kinds, "any") >= is_dropped(kinds, "whole") >= is_dropped(kinds, "keep")


def test_repeated_patterns_as_they_are_defined() -> None:
    for kinds in ("AAAAAA", "ABABAB", "ABCABC"):
        assert is_dropped(kinds, "whole")
    # One more kind breaks the whole pattern, not the one inside.
    assert not is_dropped("ABABA", "whole")
    assert is_dropped("ABABA", "any")
    assert is_dropped(("DW", "RPW", "RPW"), "any")
    assert not is_dropped(("DW", "RPW", "RPW"), "whole")
    assert not any(is_dropped("AA", "keep") or is_dropped("A", mode) for mode in ("whole", "any"))


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"got 'some'; allowed: whole, any, keep; "):
        is_dropped(("PW",), "some")


SETTINGS = [
    {"channels": 8},
    {"channels": 8, "out_channels": 16, "stride": 2},
    {"channels": 8, "bottleneck": "1/2"},
    {"channels": 8, "kinds": ("PW", "GPW", "SH", "GC")},
    {"channels": 8, "kinds": ("PW", "GPW")},
]


class Everything:
    """Prunes nothing."""

    def may_begin(self, prefix: Letters) -> bool:
        return True

    def may_survive(self, letters: Letters) -> bool:
        return True


class Without(Everything):
    """Prunes what begins with one letter twice, and one whole sequence."""

    def __init__(self, letters: Letters) -> None:
        self.letters = letters

    def may_begin(self, prefix: Letters) -> bool:
        return len(prefix) < 2 or prefix[0] != prefix[1]

    def may_survive(self, letters: Letters) -> bool:
        return self.may_begin(letters) and letters != self.letters


@pytest.mark.parametrize("arguments", SETTINGS, ids=str)
def test_without_pruning_they_are_the_filtered_product(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(max_len=4, **arguments)
    alphabet, problem = Alphabet(setting), brute_force.Problem(setting)
    expected = [
        kinds for kinds in brute_force.compositions(setting) if problem.options(kinds) is not None
    ]
    pairs = [
        pair
        for n in range(1, 5)
        for pair in candidates(alphabet, Everything(), [setting.kinds] * n)
    ]
    assert [kinds for kinds, _ in pairs] == expected
    assert all(letters == alphabet.channel_letters(kinds) for kinds, letters in pairs)


def test_each_layer_takes_its_own_kinds() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=8))
    choices = [("GC", "DW", "CONV"), ("SH",), ("GPW", "PW")]
    compositions = [kinds for kinds, _ in candidates(alphabet, Everything(), choices)]
    assert compositions == list(product(*choices))


def test_only_pruned_compositions_are_left_out() -> None:
    setting = EnumerationSetting(channels=8)
    alphabet = Alphabet(setting)
    unpruned = list(candidates(alphabet, Everything(), [setting.kinds] * 4))
    pruner = Without(unpruned[len(unpruned) // 2][1])
    expected = [pair for pair in unpruned if pruner.may_survive(pair[1])]
    assert len(expected) < len(unpruned)
    assert list(candidates(alphabet, pruner, [setting.kinds] * 4)) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 8},
        {"channels": 12},
        {"channels": 12, "compact": "subset"},
        {"channels": 12, "out_channels": 8, "stride": 2},
        {"channels": 12, "bottleneck": "1/2"},
        {"channels": 12, "repeats": 2},
        {"channels": 12, "rule": "early-stop"},
        {"channels": 12, "rule": "early-stop", "repeats": 2, "bottleneck": "1/2"},
        {"channels": 16, "permutation": "free"},
    ],
    ids=str,
)
def test_nothing_that_an_engine_prunes_would_have_survived(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(max_len=4, **arguments)
    alphabet, problem = Alphabet(setting), brute_force.Problem(setting)
    engine = engine_for(alphabet)
    pruned = 0
    for length in (1, 2, 3):
        choices = [setting.kinds] * length
        unpruned = {kinds for kinds, _ in candidates(alphabet, engine, choices)}
        for kinds, _ in candidates(alphabet, Everything(), choices):
            if kinds not in unpruned:
                pruned += 1
                assert problem.best(kinds) is None, kinds
    assert pruned


def test_nothing_that_halves_prune_would_have_been_solved_by_them() -> None:
    setting = EnumerationSetting(channels=16)
    alphabet = Alphabet(setting)
    choices = [setting.kinds] * 5
    everything = dict(candidates(alphabet, Everything(), choices))
    unpruned = dict(candidates(alphabet, HalfSearch(alphabet), choices))
    pruned = {letters for kinds, letters in everything.items() if kinds not in unpruned}
    assert len(pruned) > 100
    sample = sorted(pruned)[::7]
    assert set(HalfSearch(alphabet).cheapest(sample).values()) == {None}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"stride": 2}, {"out_channels": 24}, {"bottleneck": "1/2", "stride": 2}, {"repeats": 2}],
    ids=str,
)
def test_short_compositions_have_every_letter(arguments: dict[str, object]) -> None:
    letters = []
    for length in (LENGTH_OF_LETTERS, LENGTH_OF_LETTERS + 1):
        # One setting: costs depend on its length.
        alphabet = Alphabet(EnumerationSetting(channels=12, max_len=6, **arguments))
        kinds = alphabet.setting.usable_kinds
        engine = engine_for(alphabet)
        for n in range(1, length + 1):
            assert n == 1 or list(candidates(alphabet, engine, [kinds] * n))
        letters.append([letter.options for letter in alphabet.letters])
    assert letters[0] == letters[1]
