"""Compositions as words: counting, listing, repeated patterns."""

from itertools import islice, product

import brute_force
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.enumerate.compositions import (
    count,
    has_square,
    is_repeated,
    of_length,
    rejects,
    up_to_length,
)
from ifspace.errors import SettingError

SIX = ("PW", "GC", "DW", "GPW", "RPW", "SH")
WORDS = st.lists(st.sampled_from("abc"), max_size=12).map(tuple)


def test_the_whole_space_has_the_known_sizes() -> None:
    assert sum(1 for _ in up_to_length(SIX, 6)) == 55986
    assert sum(1 for _ in up_to_length(SIX[:4], 6)) == 5460
    assert sum(count(6, n) for n in range(1, 9)) == 2015538
    assert sum(count(6, n) for n in range(1, 11)) == 72559410


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
    assert [count(alphabet, n, patterns) for n in range(1, 7)] == kept


@pytest.mark.parametrize("patterns", ["whole", "any", "keep"])
def test_counts_are_those_of_the_filtered_product(patterns: str) -> None:
    for alphabet in (1, 2, 3, 4):
        for length in range(1, 8):
            words = product(range(alphabet), repeat=length)
            expected = sum(brute_force.kept(word, patterns) for word in words)
            assert count(alphabet, length, patterns) == expected


def test_square_free_words_over_three_letters_are_the_known_sequence() -> None:
    # A006156: ternary square-free words.
    known = [3, 6, 12, 18, 30, 42, 60, 78, 108, 144]
    assert [count(3, n, "any") for n in range(1, 11)] == known


@given(WORDS)
def test_patterns_are_those_of_the_definition(word: tuple[str, ...]) -> None:
    assert is_repeated(word) == brute_force.repeated(word)
    assert has_square(word) == brute_force.holds_repeat(word)


@given(WORDS, st.integers(2, 4))
def test_a_word_written_again_is_repeated_and_holds_a_square(
    word: tuple[str, ...], times: int
) -> None:
    assert is_repeated(word * times) == has_square(word * times) == bool(word)


@given(WORDS, WORDS, WORDS)
def test_a_square_stays_wherever_it_stands(
    left: tuple[str, ...], word: tuple[str, ...], right: tuple[str, ...]
) -> None:
    assert not has_square(word) or has_square(left + word + right)
    assert rejects(word, "any") >= rejects(word, "whole") >= rejects(word, "keep")


def test_repeated_patterns_as_they_are_defined() -> None:
    for word in ("AAAAAA", "ABABAB", "ABCABC"):
        assert rejects(word, "whole")
    # One more letter breaks the whole pattern, not the one inside.
    assert not rejects("ABABA", "whole")
    assert rejects("ABABA", "any")
    assert rejects(("DW", "RPW", "RPW"), "any")
    assert not rejects(("DW", "RPW", "RPW"), "whole")
    assert not any(rejects("AA", "keep") or rejects("A", mode) for mode in ("whole", "any"))


def test_words_are_listed_each_once_in_canonical_order() -> None:
    words = list(up_to_length(SIX, 3))
    order = [(len(word), [SIX.index(kind) for kind in word]) for word in words]
    assert order == sorted(order)
    assert len(set(words)) == len(words) == 6 + 36 + 216
    assert list(of_length(SIX, 2)) == words[6:42]


def test_long_words_are_listed_as_they_are_asked_for() -> None:
    assert list(islice(of_length(SIX, 40), 2)) == [("PW",) * 40, ("PW",) * 39 + ("GC",)]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(SettingError, match=r"got 'some'; allowed: whole, any, keep; "):
        rejects(("PW",), "some")
