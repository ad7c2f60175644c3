"""The audit of models A to F: against brute force, and what is known of their widths."""

from dataclasses import replace
from itertools import product

import brute_force
import pytest

from experiments.compact_audit import COPIES, MODELS, audit, page
from ifspace.catalogue.setting import EnumerationSetting

COMPOSITIONS = list(dict.fromkeys(model.composition for model in MODELS))


def test_the_models_are_those_of_the_figures() -> None:
    assert "".join(dict.fromkeys(model.letter for model in MODELS)) == "ABCDEF"
    assert {model.letter for model in MODELS if model.copies == 2} == {"C", "D", "F"}


@pytest.mark.slow
@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("channels", [8, 12, 13, 16, 18])
def test_choices_that_pass_are_those_of_brute_force(composition: str, channels: int) -> None:
    for copies in COPIES:
        row = audit((composition, copies, channels))
        single = EnumerationSetting(channels=channels, repeats=copies)
        problem = brute_force.Problem(single)
        choices = list(product(*problem.options(tuple(composition.split("+")))))
        chains = [[o.layers[n] for n in range(copies) for o in choice] for choice in choices]
        assert row.quality == sum(problem.field(c) == (problem.side, channels) for c in chains)
        # Overlaps of one step are one choice; brute force has them all.
        assert row.choices <= len(choices)
        assert row.single == sum(map(problem.passes, choices))
        problem.s = replace(single, compact="kernels")
        assert row.kernels == sum(map(problem.passes, choices))


@pytest.mark.slow
def test_which_shuffle_blocks_are_compact_at_which_widths() -> None:
    widths = (8, 12, 16, 24, 32, 36, 48, 64)

    def marks(composition: str) -> dict[int, str]:
        return {channels: audit((composition, 2, channels)).mark for channels in widths}

    clcnet = marks("GC+SH+GPW")
    assert [c for c in widths if clcnet[c] == "single"] == [12, 24, 32, 36, 48]
    assert [c for c in widths if clcnet[c] == "kernels"] == [16, 64]
    assert clcnet[8] == "quality"
    shufflenet = marks("GPW+SH+DW+GPW")
    assert [c for c in widths if shufflenet[c] == "single"] == [24, 36, 48]
    assert "kernels" not in shufflenet.values()


def test_the_cheapest_block_of_each_reading_is_the_first_with_the_fewest_parameters() -> None:
    row = audit(("GC+SH+GPW", 2, 16))
    assert (row.cheapest_single, row.single) == ("", 0)
    problem = brute_force.Problem(EnumerationSetting(channels=16, repeats=2, compact="kernels"))
    assert row.cheapest_kernels == problem.block(problem.best(("GC", "SH", "GPW")))
    assert audit(("DW+RPW", 1, 13)).mark == "-"


def test_the_page(snapshot: object) -> None:
    rows = [audit(case) for case in product(COMPOSITIONS, COPIES, (11, 12))]
    assert page(rows, "`a command`") == snapshot
