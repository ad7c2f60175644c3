from dataclasses import replace
from typing import Any

import pytest

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.nn.network import (
    head_side,
    joins_of,
)
from ifspace.stages.layout import (
    Layout,
    Stage,
    StemAndHead,
    StemLayer,
)
from ifspace.stages.networks import (
    make_layout,
    network,
)

CONV = Block.parse("CONV")


@pytest.mark.parametrize(
    ("name", "side", "strides", "sides"),
    [
        ("vgg16", 32, (), [(32, 32), (32, 16), (16, 8), (8, 4), (4, 2)]),
        ("vgg16", 224, (), [(224, 224), (224, 112), (112, 56), (56, 28), (28, 14)]),
        ("resnet50", 32, (1,), [(32, 32), (32, 32), (16, 16), (8, 8)]),
        ("fog", 224, (2,), [(112, 56), (56, 56), (28, 28), (14, 14)]),
        ("mobilenet", 224, (2,), [(112, 112), (112, 112), (56, 56), (28, 28), (14, 14)]),
        ("layout-residual", 32, (), [(32, 32), (32, 32), (32, 32), (16, 16)]),
    ],
)
def test_feature_maps_are_pooled_where_no_stride_shrinks_them(
    name: str, side: int, strides: tuple[int, ...], sides: list[tuple[int, int]]
) -> None:
    joins = joins_of(network(name, side))
    assert joins.stem_strides == strides
    assert [(join.before, join.pooled) for join in joins.stages] == sides
    assert [join.after_stem for join in joins.stages] == [
        bool(strides),
        *[False] * (len(sides) - 1),
    ]


@pytest.mark.parametrize(
    ("name", "side", "pooled"),
    [("vgg16", 32, 1), ("vgg16", 224, 7), ("3drf", 32, 2), ("3drf", 224, 7), ("fog", 224, 1)],
)
def test_feature_maps_are_flattened_at_the_pixels_counted(
    name: str, side: int, pooled: int
) -> None:
    assert head_side(network(name, side)) == pooled


def changed(stage: int = 0, stem_and_head: dict[str, Any] | None = None, **more: Any) -> Layout:
    layout = make_layout(
        "CONV", (8, 4), (6, 12), (2, 2), stem_and_head=StemAndHead(classifier=(10,))
    )
    parts = list(layout.stages)
    parts[stage] = replace(parts[stage], **more)
    return Layout(tuple(parts), replace(layout.stem_and_head, **(stem_and_head or {})))


def stem(c_in: int, c_out: int, side: int) -> dict[str, Any]:
    return {"stem": (StemLayer(CONV.at(c_in, c_out).layers[0], side),)}


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            changed(stem_and_head={"inputs": 4}),
            "stage 1 does not fit: got 3 channels; allowed: 4, the width there",
        ),
        (changed(1, first=CONV.at(7, 12)), "stage 2 does not fit: got 7 channels; allowed: 6"),
        (
            changed(1, repeated=CONV.at(6, 12)),
            "the repeated block of stage 2 does not fit: got 6 channels",
        ),
        (
            changed(1, repeated=CONV.at(12, 6)),
            "the repeated block of stage 2 does not fit: got 6 channels",
        ),
        (changed(1, side=16, side_out=16), "stage 2 does not fit: got side 16; allowed: no more"),
        (changed(1, side=16, stride=4), "stage 2 does not fit: got side 16; allowed: no more"),
        (changed(stem=CONV.at(3, 3).layers), "stage 1 does not fit: got 1 layers counted before"),
        (changed(stem_and_head=stem(4, 3, 8)), "layer 1 of the stem does not fit: got 4 channels"),
        (changed(stem_and_head=stem(3, 4, 8)), "stage 1 does not fit: got 3 channels; allowed: 4"),
        (
            changed(stem_and_head=stem(3, 3, 8) | {"image": 20}),
            "layer 1 of the stem does not fit: got side 8; allowed: a divisor of 20",
        ),
        (changed(1, first=CONV.at(6, 12, dims=1)), "the network does not fit: got layers of 1 and"),
    ],
)
def test_parts_that_do_not_fit_are_named(layout: Layout, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}"):
        joins_of(layout)


@pytest.mark.parametrize("pixels", [2, 5, 25])
def test_pixels_that_are_not_a_square_within_the_feature_maps_raise(pixels: int) -> None:
    with pytest.raises(SettingError, match=f"^the classifier does not fit: got {pixels} pixels"):
        head_side(changed(stem_and_head={"pixels": pixels}))
    assert head_side(changed(stem_and_head={"pixels": 16})) == 4


def test_sequences_count_pixels_in_one_dimension() -> None:
    unit = CONV.at(4, dims=1)
    assert head_side(Layout((Stage(8, unit, unit),), StemAndHead(inputs=4, pixels=5))) == 5
