"""Floors against what the outputs of layers read, and against each other."""

from fractions import Fraction
from itertools import product

import pytest
from brute_layers import layer, meets

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.kinds import KINDS

FLOORS = [Floors(*values) for values in product((1, 4, 6), (1, 8), (1, 2, 3), (None, 2, 6))]
WIDTHS = [(12, 12), (12, 24), (12, 18), (16, 16), (16, 8)]
# Every kind at every legal group count, trivial ones too.
LAYERS = [
    (kind, pair, count or 1)
    for kind, row in KINDS.items()
    for pair in WIDTHS
    if row.mixing or pair[0] == pair[1]
    for count in row.group_counts(*pair, trivial=True)
]
ALLOWED = {
    floors: {at for at in LAYERS if floors.allow(KINDS[at[0]], *at[1], at[2])} for floors in FLOORS
}


def test_a_layer_is_allowed_by_what_its_outputs_read() -> None:
    for floors in FLOORS:
        expected = {
            (kind, pair, count)
            for kind, pair, count in LAYERS
            if meets(floors, layer(kind, count, Fraction(0), *pair))
        }
        assert ALLOWED[floors] == expected, floors
    assert len({frozenset(allowed) for allowed in ALLOWED.values()}) > 10


def test_floors_that_cover_others_allow_what_these_do() -> None:
    for one, other in product(FLOORS, FLOORS):
        if one.cover(other):
            assert ALLOWED[other] <= ALLOWED[one], (one, other)
    # And none stricter in one floor alone does.
    assert not Floors(least_fan_in=4).cover(Floors(least_spatial_fan_in=4))
    assert Floors(least_spatial_fan_in=4).cover(Floors(least_fan_in=4))


def test_the_least_fan_in_is_that_of_the_layers_that_mix_channels() -> None:
    for text, least in (("DW+GPW(4)+SH(4)+GPW(8)", 8), ("DW+PW", 64), ("DW+SH(2)", 1)):
        sized = Block.parse(text).at(64)
        assert sized.least_fan_in == least
        assert sized.meets(Floors(least_fan_in=least))
    assert not Block.parse("DW+PW").at(64).meets(Floors(least_fan_in=65))
    # Of a repeated block the copy that is entered from fewer channels.
    assert Block.parse("(DW+PW)x2").at(16, 64).least_fan_in == 16


@pytest.mark.parametrize("wrong", [{"least_fan_in": 0}, {"multiple": 1.5}, {"most_groups": True}])
def test_a_floor_is_a_whole_number_from_one(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(wrong))} out of range"):
        Floors(**wrong)
