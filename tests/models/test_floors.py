"""Blocks within floors in the place of convolutions: which fit, and what works instead."""

from collections.abc import Callable

import pytest
from torch import nn

from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.groups.full_field import ranked_blocks
from ifspace.models import Blocks, Search, decompose

IMAGE = (16, 8, 8)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 64, 3, 2, 1))


@pytest.mark.slow
def test_the_cheapest_blocks_are_the_cheapest_within_the_floors() -> None:
    floors = Floors(least_fan_in=8)
    plan = decompose(network(), IMAGE, search=Search(floors=floors)).plan
    assert [replacement.sized.params for replacement in plan.replaced] == [
        ranked_blocks(16, 32, floors=floors)[0].sized.params,
        ranked_blocks(32, 64, stride=2, side=8, floors=floors)[0].sized.params,
    ]
    # 9 x 16 + 16 x 8 + 32 x 8 and, from 32 channels, 9 x 32 + 32 x 8 + 64 x 8.
    assert [replacement.sized.params for replacement in plan.replaced] == [528, 1056]
    assert [replacement.sized.least_fan_in for replacement in plan.replaced] == [8, 8]
    assert plan.within_floors.startswith("2 of 2 layers have a block with at least 8 channels per")


def test_a_listed_block_below_a_floor_leaves_its_layer() -> None:
    block = Blocks("DW+GPW(4)+SH(4)+GPW(4)")
    plan = decompose(network(), IMAGE, block, search=Search(floors=Floors(8))).plan
    assert [replacement.name for replacement in plan.replaced] == ["1"]
    (kept,) = plan.skipped
    assert kept.reason == "DW+GPW(4)+SH(4)+GPW(4): not with at least 8 channels per filter"
    with pytest.raises(SettingError, match=r"least_fan_in leaves no block for any layer.*to 8$"):
        decompose(network(), IMAGE, block, search=Search(floors=Floors(9)))


@pytest.mark.slow
def test_floors_are_options_of_optimize(run: Callable) -> None:
    vgg = ("optimize", "vgg16", "--input", "3x32x32", "--blocks-only")
    ended = run(*vgg, "--block", "DW+RPW(8,1/2)", "--least-fan-in", 60, "--format", "json")
    assert "5 of 12 layers have a block with at least 60 channels per filter: 3,119," in ended.err
    assert {row["least_fan_in"] for row in ended.json["replaced"]} == {64}
    run(*vgg, "--cheapest", "--least-fan-in", 600).fails_with(
        "--least-fan-in leaves no block for any layer: got 600; allowed: up to 512; lower --least"
    )
    run("optimize", "vgg16", "--input", "3x32x32", "--multiple", 8).fails_with(
        "--multiple with no block"
    )
