"""Engines as each other's witness: halves, of one copy or several, and the walk from the input."""

import random
from itertools import product

import pytest

from ifspace.block import Block, Layer
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import (
    Alphabet,
    Letters,
)
from ifspace.enumerate.compositions import candidates, is_dropped
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch
from ifspace.enumerate.halves import HalfSearch
from ifspace.enumerate.oracle import passes
from ifspace.enumerate.repeated import RepeatedSearch
from ifspace.enumerate.search import engine_for
from ifspace.kinds import find_kind


class Everything:
    def may_begin(self, prefix: Letters) -> bool:
        return True

    def may_survive(self, letters: Letters) -> bool:
        return True


def sequences_up_to(length: int, alphabet: Alphabet) -> list[Letters]:
    """The distinct letter sequences of all candidates of 1 to `length` layers."""
    kinds = alphabet.setting.usable_kinds
    sequences = (
        letters
        for n in range(1, length + 1)
        for _, letters in candidates(alphabet, Everything(), [kinds] * n)
    )
    return list(dict.fromkeys(sequences))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "arguments"),
    [
        (4, {"channels": 12}),
        (4, {"channels": 12, "compact": "subset"}),
        (4, {"channels": 16}),
        (4, {"channels": 16, "compact": "kernels"}),
        (5, {"channels": 16, "compact": "subset", "overlaps": ("0",)}),
        (4, {"channels": 36, "overlaps": ("0", "1/2")}),
        (5, {"channels": 36, "kinds": ("DW", "GPW", "SH")}),
        (3, {"channels": 144, "overlaps": ("0", "1/4")}),
        (4, {"channels": 24, "out_channels": 36, "overlaps": ("0.33",)}),
        (4, {"channels": 24, "out_channels": 12, "stride": 2, "objective": "macs"}),
        (4, {"channels": 24, "bottleneck": "1/2", "compact": "subset"}),
        (3, {"channels": 12, "repeats": 2}),
        (4, {"channels": 16, "repeats": 3}),
        (3, {"channels": 66, "repeats": 2, "overlaps": ("0", "1/2")}),
        (4, {"channels": 16, "repeats": 3, "compact": "kernels"}),
        (3, {"channels": 24, "repeats": 2, "bottleneck": "1/2"}),
        (3, {"channels": 24, "repeats": 2, "stride": 2, "objective": "macs"}),
    ],
    ids=str,
)
def test_halves_and_the_forward_walk_find_the_same(
    length: int, arguments: dict[str, object]
) -> None:
    alphabet = Alphabet(EnumerationSetting(max_len=length, **arguments))
    sequences = sequences_up_to(length, alphabet)
    halves, forward = engine_for(alphabet), ForwardSearch(alphabet, ExactAlgebra(alphabet))
    assert isinstance(halves, RepeatedSearch if alphabet.setting.repeats > 1 else HalfSearch)
    by_halves, by_walk = halves.cheapest(sequences), forward.cheapest(sequences)
    assert by_halves.keys() == by_walk.keys() == set(sequences)
    assert {letters for letters in sequences if by_halves[letters] != by_walk[letters]} == set()
    solutions = {letters: solution for letters, solution in by_halves.items() if solution}
    assert solutions
    assert all(
        halves.irreducible(letters, solution.choice)
        == forward.irreducible(letters, solution.choice)
        for letters, solution in solutions.items()
    )


def test_answers_do_not_depend_on_earlier_problems() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=24))
    sequences = sequences_up_to(4, alphabet)
    together = HalfSearch(alphabet).cheapest(sequences)
    shuffled = random.Random(0).sample(sequences, len(sequences))
    one_by_one = HalfSearch(alphabet)
    assert {letters: one_by_one.cheapest([letters])[letters] for letters in shuffled[:150]} == {
        letters: together[letters] for letters in shuffled[:150]
    }
    assert HalfSearch(alphabet).cheapest(shuffled) == together


def test_a_sequence_that_is_given_twice_is_answered_once() -> None:
    alphabet = Alphabet(EnumerationSetting(channels=16))
    sequences = sequences_up_to(2, alphabet)
    twice = HalfSearch(alphabet).cheapest(sequences * 2)
    assert twice == HalfSearch(alphabet).cheapest(sequences)
    assert HalfSearch(alphabet).cheapest([]) == {}


@pytest.mark.slow
def test_eight_layers_by_halves_by_the_forward_walk_and_by_every_choice() -> None:
    setting = EnumerationSetting(channels=6, max_len=8, overlaps=("0",))
    alphabet = Alphabet(setting)
    by_halves, by_walk = (
        {
            kinds: answers[letters]
            for kinds, letters in listed
            if answers[letters] is not None and not is_dropped(kinds, "whole")
        }
        for engine in (HalfSearch(alphabet), ForwardSearch(alphabet, ExactAlgebra(alphabet)))
        for listed in [list(candidates(alphabet, engine, [setting.usable_kinds] * 8))]
        for answers in [engine.cheapest(letters for _, letters in listed)]
    )
    assert len(by_halves) > 100
    assert by_halves == by_walk
    choose = random.Random(8)
    sample = choose.sample(sorted(by_halves), 8)
    for _ in range(24):
        kinds = [*choose.choices(["PW", "GPW", "RPW", "SH"], k=7), choose.choice(["DW", "GC"])]
        sample.append(tuple(choose.sample(kinds, 8)))
    for kinds in sample:
        choices = [
            [
                Layer(kind, groups, overlap, order=order)
                for groups, overlap, order in find_kind(kind).choices(6, 6, setting.overlaps)
            ]
            for kind in kinds
        ]
        blocks = (block for block in map(Block, product(*choices)) if passes(block, setting))
        least = min((block.at(6).params for block in blocks), default=None)
        solution = by_halves.get(kinds)
        neutral = sum(alphabet.letters[x].fixed_cost for x in alphabet.all_letters(kinds) or ())
        assert least == (solution and solution.cost + neutral), kinds
