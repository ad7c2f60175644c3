"""Which compositions are looked at: all that could survive, and what a pruner says is left out."""

from itertools import product

import brute_force
import pytest

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import (
    Alphabet,
    LetterWord,
)
from ifspace.enumerate.compositions import candidates
from ifspace.enumerate.halves import HalfSearch
from ifspace.enumerate.search import engine_for

SETTINGS = [
    {"channels": 8},
    {"channels": 8, "out_channels": 16, "stride": 2},
    {"channels": 8, "bottleneck": "1/2"},
    {"channels": 8, "kinds": ("PW", "GPW", "SH", "GC")},
    {"channels": 8, "kinds": ("PW", "GPW")},
]


class Everything:
    """Prunes nothing."""

    def may_begin(self, beginning: LetterWord) -> bool:
        return True

    def may_be(self, word: LetterWord) -> bool:
        return True


class Without(Everything):
    """Prunes what begins with one letter twice, and one whole word."""

    def __init__(self, word: LetterWord) -> None:
        self.word = word

    def may_begin(self, beginning: LetterWord) -> bool:
        return len(beginning) < 2 or beginning[0] != beginning[1]

    def may_be(self, word: LetterWord) -> bool:
        return self.may_begin(word) and word != self.word


@pytest.mark.parametrize("arguments", SETTINGS, ids=str)
def test_without_pruning_they_are_the_filtered_product(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(max_len=4, **arguments)
    alphabet, problem = Alphabet(setting), brute_force.Problem(setting)
    expected = [word for word in brute_force.words(setting) if problem.options(word) is not None]
    found = [
        pair
        for n in range(1, 5)
        for pair in candidates(alphabet, Everything(), [setting.kinds] * n)
    ]
    assert [word for word, _ in found] == expected
    assert all(letters == alphabet.word(word) for word, letters in found)


def test_each_place_takes_its_own_kinds() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=8))
    places = [("GC", "DW", "CONV"), ("SH",), ("GPW", "PW")]
    found = [word for word, _ in candidates(alphabet, Everything(), places)]
    assert found == list(product(*places))


def test_pruned_are_the_words_that_the_pruner_names_and_no_others() -> None:
    setting = EnumerationSetting(channels=8)
    alphabet = Alphabet(setting)
    every = list(candidates(alphabet, Everything(), [setting.kinds] * 4))
    pruner = Without(every[len(every) // 2][1])
    expected = [pair for pair in every if pruner.may_be(pair[1])]
    assert len(expected) < len(every)
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
def test_no_word_that_an_engine_prunes_would_have_survived(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(max_len=4, **arguments)
    alphabet, problem = Alphabet(setting), brute_force.Problem(setting)
    engine = engine_for(alphabet)
    pruned = 0
    for length in (1, 2, 3):
        places = [setting.kinds] * length
        kept = {word for word, _ in candidates(alphabet, engine, places)}
        for word, _ in candidates(alphabet, Everything(), places):
            if word not in kept:
                pruned += 1
                assert problem.best(word) is None, word
    assert pruned


def test_no_word_that_halves_prune_would_have_been_found_by_them() -> None:
    setting = EnumerationSetting(channels=16)
    alphabet = Alphabet(setting)
    engine, asked = HalfSearch(alphabet), HalfSearch(alphabet)
    every = dict(candidates(alphabet, Everything(), [setting.kinds] * 5))
    kept = dict(candidates(alphabet, engine, [setting.kinds] * 5))
    pruned = {letters for word, letters in every.items() if word not in kept}
    assert len(pruned) > 100
    some = sorted(pruned)[::7]
    assert set(asked.cheapest(some).values()) == {None}
