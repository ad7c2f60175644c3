"""The sample that a model is fitted to and judged on."""

from samples import SMALL

from ifspace.bench.blocks import (
    ANCHORS,
    HERE,
    Place,
    beside,
    calibration,
    find_baselines,
    neighbours,
)
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.reach import channel_field

PLACE = Place(64, 64, 16, 2)
CATALOGUE = enumerate_designs([EnumerationSetting(max_len=4)])


def test_the_sample_is_here_and_apart_from_what_is_fitted_to() -> None:
    found = calibration(CATALOGUE, PLACE, neighbours(PLACE))
    assert len(found.sample) == HERE
    assert {each.shapes for each in found.sample} == {PLACE.shapes}
    assert not {each.key for each in found.sample} & {each.key for each in found.fit}
    here = [each for each in found.fit if each.shapes == PLACE.shapes]
    assert len(here) == len(ANCHORS)
    assert all(each.calibrates for each in (*found.fit, *found.sample))
    elsewhere = [each for each in found.fit if each.shapes != PLACE.shapes]
    assert len({each.shapes for each in elsewhere}) == 3
    for each in elsewhere:
        assert channel_field(each.sized.layers) == each.sized.channels


def test_the_sample_is_the_same_again_and_leaves_out_what_it_is_told_to() -> None:
    first, second = (calibration(CATALOGUE, PLACE, ()) for _ in range(2))
    assert first == second
    but = frozenset(each.name for each in (*first.sample, *first.fit))
    other = calibration(CATALOGUE, PLACE, (), but=but)
    assert not but & {each.name for each in other.sample}


def test_all_of_a_small_catalogue_is_the_sample() -> None:
    # DW+PW is fitted to whatever the sample has.
    found = calibration(SMALL, Place(16, 16, 8, 2), ())
    assert [each.name for each in found.fit] == ["CONV", "DW+PW"]
    assert len(found.sample) == 2
    fewer = calibration(SMALL, Place(16, 16, 8, 2), (), but=frozenset({"GC(8)+PW"}))
    assert len(fewer.sample) == len(found.sample) - 1


def test_places_without_groups_have_the_anchors_alone() -> None:
    found = calibration(CATALOGUE, PLACE, [Place(3, 64, 16, 2)])
    there = [each.name for each in found.fit if each.sized.channels == 3]
    assert there[:2] == ["CONV", "DW+PW"]
    assert all(channel_field(x.sized.layers) == 3 for x in found.fit if x.sized.channels == 3)


def test_neighbours_are_whole_and_of_widths_that_networks_have() -> None:
    assert [(p.channels, p.out_channels, p.side) for p in neighbours(Place(64, 128, 14))] == [
        (32, 64, 28),
        (128, 256, 7),
    ]
    assert neighbours(Place(15, 15, 7)) == ()
    assert all(p.channels <= 1024 for p in neighbours(Place(512, 512, 16)))


def test_more_blocks_are_timed_again_each_once() -> None:
    more = beside(find_baselines(["conv", "resnext"]), PLACE).candidates
    found = calibration(CATALOGUE, PLACE, (), more)
    anchors = [each for each in found.fit if each.provider == "anchor"]
    assert [each.name for each in anchors] == ["CONV", "DW+PW", "PW+GC(8)+PW, bottleneck 1/2"]
    assert all(each.calibrates for each in anchors)
