"""The oracle against the brute force: every choice of every short composition."""

from itertools import product

import brute_force
import pytest

from ifspace.block import Block
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.oracle import passes

SETTINGS = [
    {"channels": 8},
    {"channels": 8, "compact": "subset", "permutation": "free"},
    {"channels": 8, "compact": "kernels"},
    {"channels": 8, "rule": "early-stop"},
    {"channels": 6, "rule": "early-stop", "permutation": "free", "repeats": 2},
    {"channels": 6, "out_channels": 12, "compact": "subset", "repeats": 2},
    {"channels": 8, "bottleneck": "1/2", "patterns": "any"},
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", SETTINGS, ids=str)
def test_the_oracle_decides_as_the_brute_force(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(max_len=3, **arguments)
    problem = brute_force.Problem(setting)
    answers = set()
    for kinds in brute_force.compositions(setting, one_spatial=False):
        for choice in product(*problem.options(kinds) or [()]):
            block = Block.parse(problem.block(choice))
            expected = brute_force.kept(kinds, setting.patterns) and problem.passes(choice)
            assert passes(block, setting) == expected, block
            answers.add(expected)
    assert answers == {True, False}
