"""Which designs are measured, as they stand or with groups solved anew."""

from dataclasses import replace

import pytest
from samples import DW_PW, DW_RPW_RPW, EMPTY, GC_PW, SMALL, WIDER

from ifspace.bench.blocks import (
    Place,
    beside,
    designs_for,
    find_baselines,
    first_place,
    moved,
    overlaps_of,
    select,
)
from ifspace.catalogue import Catalogue
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import BlockError, SettingError
from ifspace.reach import channel_field

HOME = Place(16, 16, 8, 2)


def blocks(catalogue: Catalogue, top: int, by: str, place: Place) -> list[str]:
    return [each.name for each in select(catalogue, top, by, place).candidates]


def test_the_best_come_first_by_each_amount() -> None:
    assert blocks(SMALL, 2, "params", HOME) == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    assert blocks(SMALL, 2, "activations", HOME) == ["DW+PW", "GC(8)+PW"]
    assert blocks(SMALL, 1, "macs", HOME) == ["DW+RPW(4,0)+RPW(4,0)"]
    # GC+PW is no better than DW+PW in anything.
    assert blocks(SMALL, 9, "pareto", HOME) == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    forgetful = replace(SMALL, designs=(replace(GC_PW, dominated_by=None), DW_PW))
    assert blocks(forgetful, 9, "pareto", HOME) == ["DW+PW"]
    with pytest.raises(SettingError, match=r"unknown amount: got 'speed'; allowed: params, macs"):
        select(SMALL, 1, "speed", HOME)


def test_designs_at_home_keep_their_rows() -> None:
    chosen = select(SMALL, 3, "params", HOME)
    assert [each.design for each in chosen.candidates] == [DW_RPW_RPW, DW_PW, GC_PW]
    assert (chosen.solved, chosen.left_out) == (0, ())
    (wider,) = select(SMALL, 3, "params", Place(32, 64, 8, 2)).candidates
    assert (wider.design, wider.name) == (WIDER, "(PW+DW+PW)x2, bottleneck 1/4")


@pytest.mark.parametrize("place", [Place(24, 48, 8, 2), Place(16, 16, 8, 2, 2)])
def test_elsewhere_groups_cost_no_more_than_what_an_enumeration_there_finds(place: Place) -> None:
    home = enumerate_designs([EnumerationSetting(channels=16, max_len=3)])
    there = enumerate_designs(
        [
            EnumerationSetting(
                channels=place.channels,
                out_channels=place.out_channels,
                max_len=3,
                stride=place.stride,
            )
        ]
    )
    least = {each.composition: each.params for each in there.designs}
    chosen = select(home, 99, "params", place)
    assert chosen.solved == len(chosen.candidates) >= 10
    found = {str(each.sized.block.composition): each for each in chosen.candidates}
    # An enumeration asks for more, that no layer can go: a few blocks cost more there.
    more = {name: least[name] - each.sized.params for name, each in found.items()}
    assert min(more.values()) == 0
    assert sum(each > 0 for each in more.values()) <= 4
    amounts = [each.sized.params for each in chosen.candidates]
    assert amounts == sorted(amounts)
    for each in chosen.candidates:
        assert channel_field(each.sized.layers) == place.channels
        assert each.shapes == place.shapes
        assert each.design is None


def test_what_has_no_groups_there_is_left_out_and_the_next_is_taken() -> None:
    chosen = select(SMALL, 1, "params", Place(13, 13, 8, 2))
    assert [each.name for each in chosen.candidates] == ["DW+PW"]
    ((name, why),) = chosen.left_out
    assert name == "DW+RPW+RPW"
    assert why.startswith("no groups with the full field: got DW+RPW+RPW from 13 to 13")


def test_a_design_moves_with_its_bottleneck_and_kernel() -> None:
    (wider,) = select(SMALL, 1, "params", Place(32, 64, 8, 2)).candidates
    there = moved(wider, SMALL, Place(8, 16, 4, 2), "params")
    assert (there.name, there.sized.channels, there.side) == ("(PW+DW+PW)x2, bottleneck 1/4", 8, 4)


def test_the_place_of_a_catalogue_is_that_of_its_first_design() -> None:
    assert first_place(SMALL, 8, 2) == HOME
    assert HOME.shapes == ((2, 16, 8, 8), (2, 16, 8, 8))
    assert Place(16, 24, 8, 2, 2).shapes == ((2, 16, 16, 16), (2, 24, 8, 8))
    with pytest.raises(SettingError, match=r"nothing of this catalogue .* an empty one"):
        first_place(EMPTY, 8, 2)
    flat = replace(SMALL, designs=(replace(DW_PW, dims=1),))
    with pytest.raises(SettingError, match="1 dimension"):
        first_place(flat, 8, 2)


def test_designs_of_other_places_are_not_compared() -> None:
    assert set(designs_for(SMALL, Place(7, 7, 8))) == {GC_PW, DW_PW, DW_RPW_RPW}
    assert designs_for(SMALL, Place(32, 64, 8)) == [WIDER]
    assert overlaps_of(SMALL, DW_PW) == SMALL.settings[0].overlaps


def test_baselines_that_do_not_fit_are_left_out() -> None:
    found = beside(find_baselines(["conv", "shufflenet"]), Place(9, 9, 8, 2))
    assert [each.provider for each in found.candidates] == ["baseline: CONV(3)"]
    assert [name for name, _ in found.left_out] == ["ShuffleNet unit"]
    strided = beside(find_baselines(["dw+pw", "PW+PW"]), Place(8, 8, 8, 2, 2))
    assert [each.stride for each in strided.candidates] == [2]
    assert "no layer can hold the stride" in strided.left_out[0][1]


@pytest.mark.parametrize("name", ["channels", "side", "batch", "stride"])
def test_places_have_whole_numbers(name: str) -> None:
    with pytest.raises((SettingError, BlockError), match=name):
        replace(HOME, **{name: 0})
