"""Two engines as each other's witness: halves met in the middle, and the walk from the input."""

import random

import pytest

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import (
    Alphabet,
    LetterWord,
)
from ifspace.enumerate.compositions import candidates
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch
from ifspace.enumerate.halves import HalfSearch

NO_PW = ("GC", "DW", "GPW", "RPW", "SH")


class Everything:
    def may_begin(self, beginning: LetterWord) -> bool:
        return True

    def may_be(self, word: LetterWord) -> bool:
        return True


def channel_words(alphabet: Alphabet, length: int) -> list[LetterWord]:
    kinds = alphabet.setting.usable_kinds
    found = (
        letters
        for n in range(1, length + 1)
        for _, letters in candidates(alphabet, Everything(), [kinds] * n)
    )
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    ("length", "arguments"),
    [
        (4, {"channels": 12}),
        (5, {"channels": 12, "kinds": NO_PW, "overlaps": ("1/2",)}),
        (4, {"channels": 12, "compact": "subset"}),
        (4, {"channels": 16}),
        (5, {"channels": 16, "compact": "subset", "overlaps": ("0",)}),
        (4, {"channels": 36, "overlaps": ("0", "1/2")}),
        (5, {"channels": 36, "kinds": ("DW", "GPW", "SH")}),
        (3, {"channels": 144, "overlaps": ("0", "1/4")}),
        (4, {"channels": 24, "out_channels": 36, "overlaps": ("0.33",)}),
        (4, {"channels": 24, "out_channels": 12, "stride": 2, "objective": "macs"}),
        (4, {"channels": 24, "bottleneck": "1/2", "compact": "subset"}),
    ],
    ids=str,
)
def test_halves_and_the_forward_walk_find_the_same(
    length: int, arguments: dict[str, object]
) -> None:
    alphabet = Alphabet(EnumerationSetting(max_len=length, **arguments))
    words = channel_words(alphabet, length)
    halves, forward = HalfSearch(alphabet), ForwardSearch(alphabet, ExactAlgebra(alphabet))
    one, other = halves.cheapest(words), forward.cheapest(words)
    assert one.keys() == other.keys() == set(words)
    assert {w for w in words if one[w] != other[w]} == set()
    found = {word: each for word, each in one.items() if each is not None}
    assert found
    assert all(
        halves.irreducible(word, each.choice) == forward.irreducible(word, each.choice)
        for word, each in found.items()
    )


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=24))
    words = channel_words(alphabet, 4)
    together = HalfSearch(alphabet).cheapest(words)
    shuffled = random.Random(0).sample(words, len(words))
    one_by_one = HalfSearch(alphabet)
    assert {w: one_by_one.cheapest([w])[w] for w in shuffled[:150]} == {
        w: together[w] for w in shuffled[:150]
    }
    assert HalfSearch(alphabet).cheapest(shuffled) == together


def test_each_word_is_answered_once_however_often_it_is_asked() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=16))
    words = channel_words(alphabet, 2)
    assert HalfSearch(alphabet).cheapest(words * 2) == HalfSearch(alphabet).cheapest(words)
    assert HalfSearch(alphabet).cheapest([]) == {}
