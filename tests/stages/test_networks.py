from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch
import torch_networks
from torch import nn

from ifspace.block import Block
from ifspace.errors import BlockError, SettingError
from ifspace.stages.layout import Layout, StemAndHead
from ifspace.stages.networks import (
    NETWORKS,
    fog,
    listing,
    network,
    plain,
    residual,
    resnet50,
    stages,
    vgg,
)


def same_counts(layout: Layout, model: nn.Module, side: int) -> None:
    assert layout.params == torch_networks.params(model)
    assert layout.macs == torch_networks.macs(model, side)


@pytest.fixture(autouse=True)
def shapes_only() -> Iterator[None]:
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("depths", [(2, 2, 3, 3, 3), (5, 4, 2, 1, 1), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("side", [32, 224])
def test_vgg_counts_as_its_modules(depths: Sequence[int], side: int) -> None:
    classes, hidden = (10, ()) if side == 32 else (1000, (4096, 4096))
    model = torch_networks.vgg(depths, side, classes, hidden)
    same_counts(network("vgg16", side).at_depths(depths), model, side)


def test_vgg_for_another_data_set() -> None:
    model = torch_networks.vgg((2, 2, 4, 4, 4), 32, 100, (4096, 4096))
    same_counts(vgg("vgg19", 32, 100, (4096, 4096)), model, 32)


@pytest.mark.parametrize("depths", [(3, 4, 6, 3), (5, 5, 4, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize("side", [32, 224])
def test_resnet_counts_as_its_modules(depths: Sequence[int], side: int) -> None:
    model = torch_networks.resnet(depths, side, 10 if side == 32 else 1000)
    same_counts(network("resnet50", side).at_depths(depths), model, side)
    same_counts(resnet50(side, 7).at_depths(depths), torch_networks.resnet(depths, side, 7), side)


@pytest.mark.parametrize("depths", [(2, 2, 2, 6, 2), (5, 4, 2, 2, 1), (2, 1, 1, 1, 1)])
@pytest.mark.parametrize("side", [32, 224])
def test_mobilenet_counts_as_its_modules(depths: Sequence[int], side: int) -> None:
    model = torch_networks.mobilenet(depths, side, 10 if side == 32 else 1000)
    same_counts(network("mobilenet", side).at_depths(depths), model, side)


def test_a_plain_network_counts_as_its_modules() -> None:
    widths = (64, 76, 96, 562)
    same_counts(plain(32, widths), torch_networks.plain(widths, 32, 10), 32)


def test_published_counts() -> None:
    # As printed in [3DRF] Tables 3 and 5 and by the networks' own implementations.
    assert network("resnet50", 224).params == 25_557_032
    assert network("mobilenet", 224).params == 4_231_976
    assert network("vgg16", 224).params == 138_357_544
    assert network("vgg19", 224).params == 143_667_240
    organized = network("vgg16", 32).at_depths((5, 4, 2, 1, 1))
    assert f"{organized.params / 1e6:.2f}" == "5.10"
    assert round(organized.macs, -7) == 370_000_000


def test_residual_and_fog_networks_by_hand() -> None:
    weights = 9 * (3 * 16 + 16 * 16 + 9 * 16**2 + 16 * 32 + 9 * 32**2 + 32 * 64 + 9 * 64**2)
    norms = 2 * (16 + 10 * 16 + 10 * 32 + 10 * 64)
    assert residual(32).params == weights + norms + 64 * 10 + 10
    bare = fog(32, width=8, depth=1, projections=False, classifier=False)
    weights = 9 * (3 * 8 + 8 * 8 + 8 * 16 + 16 * 32 + 32 * 64)
    assert bare.params == weights + 2 * (8 + 8 + 16 + 32 + 64)
    beside = sum(a * b + 2 * b for a, b in ((8, 8), (8, 16), (16, 32), (32, 64)))
    assert fog(32, width=8, depth=1, classifier=False).params == bare.params + beside
    assert [stage.side for stage in fog(224).stages] == [56, 28, 14, 7]


def test_the_listing_by_hand() -> None:
    small, large = network("3drf", 32), network("3drf", 224)
    pairs = [
        (3, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 512),
        (512, 512),
    ]
    convolutions = sum(9 * a * b + b for a, b in pairs)
    assert small.params == convolutions + 512 * 2 * 2 * 10 + 10
    assert large.params == convolutions + 512 * 7 * 7 * 1000 + 1000
    assert ([stage.side for stage in small.stages], small.depths) == ([32, 16, 8, 4], (2, 2, 2, 2))
    sides = [side for side in (32, 16, 8, 4) for _ in range(2)]
    macs = sum(9 * a * b * side**2 for (a, b), side in zip(pairs, sides, strict=True))
    assert small.macs == macs + 512 * 2 * 2 * 10
    assert listing(32, 100).stem_and_head.classifier == (100,)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", [32, 224])
def test_the_side_of_the_image_is_known(name: str, side: int) -> None:
    assert network(name, side).image == side


def test_the_image_is_as_large_as_what_enters_the_first_layer() -> None:
    assert stages("CONV", (16, 8), (4, 4), (1, 1)).image == 16
    assert stages("CONV", (16, 8), (4, 4), (1, 1), (2, 1)).image == 32
    stem = fog(32).stem_and_head.stem
    assert stages("CONV", (16,), (64,), (1,), stem_and_head=StemAndHead(stem=stem)).image == 32


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", [32, 224])
def test_every_network_is_there_by_name(name: str, side: int) -> None:
    layout = network(name.upper(), side)
    assert layout == NETWORKS[name](side)
    sides = [stage.side for stage in layout.stages]
    assert sides == sorted(sides, reverse=True)
    assert all(a.width == b.first.channels for a, b in pairwise(layout.stages))


def test_a_block_for_each_stage() -> None:
    blocks = [Block.parse("CONV(5)"), Block.parse("DW+PW")]
    layout = stages(blocks, (8, 4), (6, 12), (2, 2))
    assert layout.blocks == tuple(blocks)
    first = 25 * (3 * 6 + 6 * 6)
    assert layout.params == first + 9 * 6 + 6 * 12 + 9 * 12 + 12 * 12
    assert layout.macs == first * 64 + (9 * 6 + 6 * 12 + 9 * 12 + 12 * 12) * 16


def test_strides_and_frame_reach_the_stages() -> None:
    layout = stages("PW+DW", (8, 4), (6, 6), (1, 2), (1, 2), StemAndHead(inputs=6))
    # The pointwise layer before the stride runs on four times as many pixels.
    assert layout.macs == 64 * (36 + 54) + 16 * (4 * 36 + 54) + 16 * (36 + 54)


GOOD = {"sides": (32, 16), "widths": (8, 16), "depths": (1, 2)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sides": (16, 32)}, "stages that grow: got 16, 32"),
        ({"sides": (32, 0)}, "stages out of range: got 0"),
        ({"sides": (65537, 16)}, "stages out of range: got 65537"),
        ({"widths": (8,)}, "wrong number of widths: got 1 for 2 stages"),
        ({"widths": (8, 0)}, "widths out of range: got 0"),
        ({"widths": (8, 9000)}, "widths out of range: got 9000"),
        ({"depths": (1, 2, 3)}, "wrong number of depths: got 3 for 2 stages"),
        ({"depths": (1, 0)}, "depths out of range: got 0"),
        ({"depths": (1, 1001)}, "depths out of range: got 1001"),
        ({"blocks": [Block.parse("PW")]}, "wrong number of blocks: got 1 for 2 stages"),
        ({"blocks": "DW"}, "stage 1, 3 to 8 channels: no layer can change the width"),
        ({"blocks": [Block.parse("PW"), Block.parse("GPW(5)")]}, "stage 2, 8 to 16 channels: gro"),
    ],
)
def test_stages_that_do_not_fit_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=f"^{said}"):
        stages(**{"blocks": "CONV", **GOOD, **wrong})  # type: ignore[arg-type]
    stages(**{"blocks": "CONV", **GOOD})  # type: ignore[arg-type]


def test_equal_sides_may_follow_each_other() -> None:
    assert stages("CONV", (32, 32), (8, 8), (1, 1)).depths == (1, 1)


def test_unknown_names_and_sides_are_refused() -> None:
    with pytest.raises(SettingError, match=r"^unknown network: got 'vgg17'; allowed: vgg11"):
        network("vgg17", 32)
    with pytest.raises(SettingError, match=r"^unknown image side: got 64; allowed: 32, 224"):
        network("vgg16", 64)
    with pytest.raises(BlockError, match="unknown kind"):
        stages("XY", (8,), (8,), (1,))
