"""The walk from the input: its algebras, and that what it drops never comes back."""

from itertools import product

import pytest
from brute_force import Problem

from ifspace.block import Block, Layer
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import Alphabet
from ifspace.enumerate.forward import (
    ExactAlgebra,
    ForwardSearch,
    FreeAlgebra,
)
from ifspace.enumerate.search import engine_for
from ifspace.reach import channel_field

KINDS = ("PW", "GC", "DW", "GPW", "RPW", "SH")
WORDS = [("GPW", "SH", "GPW"), ("RPW", "GC", "SH"), ("GC", "SH", "RPW", "GPW"), ("PW", "SH")]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("channels", [12, 66])
def test_the_exact_algebra_agrees_with_reach(word: tuple[str, ...], channels: int) -> None:
    alphabet = Alphabet(EnumerationSetting(channels=channels))
    algebra = ExactAlgebra(alphabet)
    letters = [alphabet.letters[place] for place in alphabet.place(word)]
    for choice in product(*(letter.options[::2] for letter in letters)):
        layers = tuple(
            Layer(kind, each.groups, each.overlap) for kind, each in zip(word, choice, strict=True)
        )
        whole, parts = algebra.start(channels), []
        for option in choice:
            whole = algebra.extend(whole, option.relations[0])
            parts.append(algebra.extend(algebra.start(channels), option.relations[0]))
        chained = parts[0]
        for part in parts[1:]:
            chained = algebra.behind(chained, part)
        assert chained == whole
        assert algebra.field(whole) == channel_field(Block(layers).at(channels).layers)
        assert algebra.within(whole, whole)


def test_within_is_containment_for_every_output() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=12))
    algebra = ExactAlgebra(alphabet)
    letter = alphabet.letters[alphabet.place(("DW", "GPW"))[1]]
    by_groups = {
        each.groups: algebra.extend(algebra.start(12), each.relations[0]) for each in letter.options
    }
    # Groups of 2 lie in groups of 4 and of 6, groups of 4 do not lie in groups of 6.
    assert algebra.within(by_groups[6], by_groups[3])
    assert algebra.within(by_groups[6], by_groups[2])
    assert not algebra.within(by_groups[3], by_groups[2])
    assert not algebra.within(by_groups[2], by_groups[6])


def test_the_free_algebra_multiplies_fan_ins_up_to_the_width() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=12, permutation="free"))
    algebra = FreeAlgebra(alphabet)
    gpw, sh = (alphabet.letters[alphabet.place(("DW", kind))[1]] for kind in ("GPW", "SH"))
    for one, other in product(gpw.options, repeat=2):
        element = algebra.extend(
            algebra.extend(algebra.start(12), one.relations[0]), other.relations[0]
        )
        expected = min(12, 12 // one.groups * (12 // other.groups))
        assert algebra.field(element) == expected
        assert algebra.field(algebra.extend(element, sh.options[0].relations[0])) == expected
        assert algebra.behind(12 // one.groups, 12 // other.groups) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"rule": "early-stop"},
        {"rule": "early-stop", "permutation": "free"},
        {"repeats": 2},
        {"repeats": 2, "rule": "early-stop"},
        {"permutation": "free", "compact": "subset"},
        {"repeats": 2, "out_channels": 16},
    ],
    ids=str,
)
def test_a_rejected_beginning_rejects_every_word_that_begins_so(
    arguments: dict[str, object],
) -> None:
    setting = EnumerationSetting(channels=8, max_len=3, **arguments)
    alphabet, problem = Alphabet(setting), Problem(setting)
    engine = engine_for(alphabet)
    assert isinstance(engine, ForwardSearch)
    dropped = 0
    for word in product(KINDS, repeat=3):
        letters = alphabet.place(word)
        if letters is None or sum(kind in ("GC", "DW") for kind in word) != 1:
            continue
        channel_word = alphabet.word(word)
        beginnings = [channel_word[:n] for n in range(1, len(channel_word) + 1)]
        alive = [engine.may_begin(beginning) for beginning in beginnings]
        assert alive == sorted(alive, reverse=True)
        if not all(alive):
            dropped += 1
            assert engine.cheapest([channel_word])[channel_word] is None
            assert problem.best(word) is None
    assert dropped


def test_answers_do_not_depend_on_the_order_of_the_words() -> None:
    setting = EnumerationSetting(channels=12, repeats=2)
    alphabet = Alphabet(setting)
    words = [
        alphabet.word(word)
        for word in product(KINDS, repeat=3)
        if sum(kind in ("GC", "DW") for kind in word) == 1
    ]
    one = engine_for(alphabet).cheapest(words)
    assert engine_for(alphabet).cheapest(words[::-1]) == one
    engine = engine_for(alphabet)
    assert {word: engine.cheapest([word])[word] for word in words} == one
