"""The walk from the input: its algebras, and that what it drops never comes back."""

from itertools import product

import pytest
from brute_force import Problem

from ifspace.block import Block
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
COMPOSITIONS = [("GPW", "SH", "GPW"), ("RPW", "GC", "SH"), ("GC", "SH", "RPW", "GPW"), ("PW", "SH")]


@pytest.mark.parametrize("kinds", COMPOSITIONS)
@pytest.mark.parametrize("channels", [12, 66])
def test_the_exact_algebra_agrees_with_reach(kinds: tuple[str, ...], channels: int) -> None:
    alphabet = Alphabet(EnumerationSetting(channels=channels))
    algebra = ExactAlgebra(alphabet)
    letters = [alphabet.letters[index] for index in alphabet.all_letters(kinds)]
    for choice in product(*(letter.options[::2] for letter in letters)):
        layers = tuple(option.layer for option in choice)
        whole, parts = algebra.start(channels), []
        for option in choice:
            whole = algebra.extend(whole, option.relations[0])
            parts.append(algebra.extend(algebra.start(channels), option.relations[0]))
        chained = parts[0]
        for part in parts[1:]:
            chained = algebra.chain(chained, part)
        assert chained == whole
        assert algebra.field(whole) == channel_field(Block(layers).at(channels).layers)
        assert algebra.within(whole, whole)


def test_within_is_containment_for_every_output() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=12))
    algebra = ExactAlgebra(alphabet)
    letter = alphabet.letters[alphabet.all_letters(("DW", "GPW"))[1]]
    by_groups = {
        option.layer.groups: algebra.extend(algebra.start(12), option.relations[0])
        for option in letter.options
    }
    # Groups of 2 lie in groups of 4 and of 6, groups of 4 do not lie in groups of 6.
    assert algebra.within(by_groups[6], by_groups[3])
    assert algebra.within(by_groups[6], by_groups[2])
    assert not algebra.within(by_groups[3], by_groups[2])
    assert not algebra.within(by_groups[2], by_groups[6])


def test_the_free_algebra_multiplies_fan_ins_up_to_the_width() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=12, permutation="free"))
    algebra = FreeAlgebra(alphabet)
    gpw, sh = (alphabet.letters[alphabet.all_letters(("DW", kind))[1]] for kind in ("GPW", "SH"))
    for one, other in product(gpw.options, repeat=2):
        element = algebra.extend(
            algebra.extend(algebra.start(12), one.relations[0]), other.relations[0]
        )
        expected = min(12, 12 // one.layer.groups * (12 // other.layer.groups))
        assert algebra.field(element) == expected
        assert algebra.field(algebra.extend(element, sh.options[0].relations[0])) == expected
        assert algebra.chain(12 // one.layer.groups, 12 // other.layer.groups) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"rule": "early-stop"},
        {"rule": "early-stop", "permutation": "free"},
        {"repeats": 2, "compact": "subset"},
        {"repeats": 2, "rule": "early-stop"},
        {"permutation": "free", "compact": "subset"},
        {"repeats": 2, "out_channels": 16},
    ],
    ids=str,
)
def test_a_prefix_that_is_ruled_out_rules_out_all_that_begins_with_it(
    arguments: dict[str, object],
) -> None:
    setting = EnumerationSetting(channels=8, max_len=3, **arguments)
    alphabet, problem = Alphabet(setting), Problem(setting)
    engine = engine_for(alphabet)
    assert isinstance(engine, ForwardSearch)
    dropped = 0
    for kinds in product(KINDS, repeat=3):
        letters = alphabet.channel_letters(kinds)
        if letters is None or sum(kind in ("GC", "DW") for kind in kinds) != 1:
            continue
        prefixes = [letters[:n] for n in range(1, len(letters) + 1)]
        possible = [engine.may_begin(prefix) for prefix in prefixes]
        assert possible == sorted(possible, reverse=True)
        if not all(possible):
            dropped += 1
            assert engine.cheapest([letters])[letters] is None
            assert problem.best(kinds) is None
    assert dropped


def test_answers_do_not_depend_on_the_order_of_the_sequences() -> None:
    setting = EnumerationSetting(channels=12, repeats=2)
    alphabet = Alphabet(setting)
    sequences = [
        alphabet.channel_letters(kinds)
        for kinds in product(KINDS, repeat=3)
        if sum(kind in ("GC", "DW") for kind in kinds) == 1
    ]
    answers = engine_for(alphabet).cheapest(sequences)
    assert engine_for(alphabet).cheapest(sequences[::-1]) == answers
    engine = engine_for(alphabet)
    assert {letters: engine.cheapest([letters])[letters] for letters in sequences} == answers
