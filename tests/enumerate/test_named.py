"""Blocks that papers name: where they fail, by brute force, and where they bear their names."""

from dataclasses import replace
from itertools import product

import brute_force
import pytest

from ifspace.catalogue.design import PUBLISHED, Published
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.named import Failure, failure, named_in, notes_on_named, withheld
from ifspace.enumerate.search import enumerate_designs

ENTRY = {(entry.composition, entry.name): entry for entry in PUBLISHED}
CLCNET = ENTRY["GC+SH+GPW", "clcNet"]
SHUFFLENET = ENTRY["GPW+SH+DW+GPW", "ShuffleNet"]


def failure_by_trying_every_choice(entry: Published, setting: EnumerationSetting) -> Failure | None:
    setting = replace(setting, repeats=entry.repeats)
    problem = brute_force.Problem(setting)
    kinds = tuple(entry.composition.split("+"))
    options = problem.options(kinds)
    if options is None:
        return "widths"
    if not all(options):
        return "groups"
    copies = range(setting.repeats)
    full = False
    for choice in product(*options):
        if problem.passes(choice):
            return None
        chain = [option.layers[n] for n in copies for option in choice]
        real = [option.real[n] for n in copies for option in choice]
        full = full or (problem.reaches(chain) and problem.reaches(real))
    return setting.rule if full else "quality"


SETTINGS = [
    {"channels": 8},
    {"channels": 12},
    {"channels": 13},
    {"channels": 16},
    {"channels": 16, "compact": "kernels"},
    {"channels": 24},
    {"channels": 12, "compact": "subset"},
    {"channels": 12, "permutation": "free"},
    {"channels": 12, "rule": "early-stop"},
    {"channels": 12, "out_channels": 18},
    {"channels": 16, "bottleneck": "1/4"},
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", SETTINGS, ids=str)
def test_every_named_block_fails_where_brute_force_says(arguments: dict[str, object]) -> None:
    setting = EnumerationSetting(**arguments)
    for entry in named_in(setting):
        expected = failure_by_trying_every_choice(entry, setting)
        assert failure(entry, setting) == expected, entry


@pytest.mark.slow
def test_clcnet_and_shufflenet_are_compact_at_some_widths_only() -> None:
    widths = (8, 12, 16, 24, 32, 36, 48, 64)

    def compact_at(entry: Published, reading: str) -> list[int]:
        settings = (EnumerationSetting(channels=c, compact=reading) for c in widths)
        return [s.channels for s in settings if failure(entry, s) is None]

    assert compact_at(CLCNET, "single") == [12, 24, 32, 36, 48]
    assert compact_at(CLCNET, "kernels") == [12, 16, 24, 32, 36, 48, 64]
    for reading in ("single", "kernels"):
        assert compact_at(SHUFFLENET, reading) == [24, 36, 48]


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        (12, {"GC+SH+GPW": "clcNet (twice); Fog 3.2", "GPW+SH+DW+GPW": "Fog 3.2"}),
        (16, {"GC+SH+GPW": "Fog 3.2", "GPW+SH+DW+GPW": "Fog 3.2"}),
        (
            24,
            {
                "GC+SH+GPW": "clcNet (twice); Fog 3.2",
                "GPW+SH+DW+GPW": "ShuffleNet (twice); Fog 3.2",
            },
        ),
    ],
)
def test_a_block_that_was_published_twice_in_a_row_is_named_where_that_is_compact(
    channels: int, names: dict[str, str]
) -> None:
    setting = EnumerationSetting(channels=channels, max_len=4, kinds=("GC", "DW", "GPW", "SH"))
    designs = {design.composition: design for design in enumerate_designs([setting], 1).designs}
    assert {name: designs[name].published_as for name in names} == names
    assert all(design.published_as for design in designs.values() if design.composition in names)


def test_only_names_of_survivors_at_other_numbers_of_copies_are_withheld() -> None:
    setting = EnumerationSetting(channels=16)
    assert withheld(setting, ["GC+SH+GPW", "DW+PW"]) == {CLCNET}
    assert withheld(replace(setting, compact="kernels"), ["GC+SH+GPW"]) == frozenset()
    assert withheld(replace(setting, repeats=2), ["GC+SH+GPW", "DW+PW"]) == frozenset()


def test_the_notes_leave_out_what_was_not_asked_for() -> None:
    def notes(**arguments: object) -> str:
        return "\n".join(notes_on_named(EnumerationSetting(channels=16, **arguments)))

    assert "(GPW+SH+DW+GPW)x2 (ShuffleNet)" in notes()
    assert "(--compact kernels)" in notes(compact="kernels")
    assert "clcNet" not in notes(compact="kernels")
    assert "ShuffleNet" not in notes(max_len=3)
    assert notes(kinds=("PW", "DW", "RPW")) == ""
    # [Fog] leaves the permutation free, and has PW+DW+PW with a bottleneck.
    assert "Fog" not in notes()
    assert "too few channel-mixing layers for 16 channels by way of 4: DW+PW" in notes(
        bottleneck="1/4"
    )
