"""The graph of maps while it grows: what labels settle into."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ifspace.models.feature_maps import (
    MAX_CHANNELS_PER_PIXEL,
    NO_CHANNEL,
    FeatureMaps,
    Label,
    size_of,
)
from ifspace.models.graph import Op

SHAPE = (1, 6, 8, 8)


def maps_of(*shapes: tuple[int, ...]) -> tuple[FeatureMaps, list[Label]]:
    """A graph with an image of each shape, channels in front of the pixels."""
    maps = FeatureMaps()
    return maps, [maps.add(Op.INPUT, (), shape, 1, "") for shape in shapes]


def moved(move, *labels: Label, pooled: bool = False) -> Label:
    """A label made by a function of tensors, which pixels can follow too."""

    def remade(of) -> Tensor:
        return move(*(of(label) for label in labels))

    return Label(remade(lambda label: label.ids), pooled, remade)


def test_a_map_is_its_own_label() -> None:
    maps, (image,) = maps_of(SHAPE)
    assert maps.resolve(image) == maps.resolve(image, 1) == maps.index(image) == 0
    assert maps.resolve(moved(lambda x: x.permute(0, 2, 3, 1), image), -1) == 0
    assert maps.resolve(moved(lambda x: x.flatten(2), image), 1) == 0
    assert maps.resolve(moved(lambda x: F.pad(x, (1,) * 4, value=NO_CHANNEL), image), 1) == 0
    assert maps.resolve(moved(lambda x: x[:, :, 1:5], image), 1) == 0
    assert len(maps.nodes) == 1
    assert maps.pooled == set()


def test_channels_that_move_are_a_map_of_their_own() -> None:
    maps, labels = maps_of(SHAPE, (1, 2, 8, 8))
    both = moved(lambda a, b: torch.cat([b, a[:, 1:3]], 1), *labels)
    node = maps.nodes[maps.resolve(both, 1, "here")]
    assert (node.op, node.parents, node.channels, node.size) == (Op.MOVE, (0, 1), 4, (8, 8))
    assert (node.scope, node.layer) == ("here", None)
    assert node.sources.tolist() == [[1, 0], [1, 1], [0, 1], [0, 2]]
    assert maps.resolve(both, 1) == node.index
    assert len(maps.nodes) == 3


def test_zeros_come_from_nowhere() -> None:
    maps, (image,) = maps_of(SHAPE)
    wider = moved(lambda x: F.pad(x, (0, 0, 0, 0, 1, 0), value=NO_CHANNEL), image)
    node = maps.nodes[maps.resolve(wider, 1)]
    assert node.sources[:2].tolist() == [[NO_CHANNEL, NO_CHANNEL], [0, 0]]
    nothing = maps.nodes[maps.resolve(Label(torch.full(SHAPE, NO_CHANNEL)), 1)]
    assert (nothing.op, nothing.parents, nothing.channels) == (Op.MOVE, (), 6)
    assert maps.owners([wider, image]) == (0,)


def test_a_stride_is_a_pool_without_a_window() -> None:
    maps, (image,) = maps_of(SHAPE)
    node = maps.nodes[maps.resolve(moved(lambda x: x[:, :, ::3, ::2], image), 1)]
    assert (node.op, node.parents, node.size, node.window) == (Op.POOL, (0,), (3, 4), (1, 1))
    assert node.stride == (Fraction(3), Fraction(2))


def test_a_stride_is_read_from_the_pixels_and_not_from_the_sizes() -> None:
    maps, (image,) = maps_of((1, 2, 20, 20))
    shown = moved(lambda x: F.pad(x[:, :, 2:18:2], (3, 3, 6, 6), value=NO_CHANNEL), image)
    node = maps.nodes[maps.resolve(shown, 1)]
    assert (node.size, node.stride) == ((20, 26), (Fraction(2), Fraction(1)))


def test_pixels_that_become_channels_are_a_pool_with_a_window() -> None:
    maps, (image,) = maps_of(SHAPE)
    folded = moved(lambda x: F.pixel_unshuffle(x, 2), image)
    node = maps.nodes[maps.resolve(folded, 1)]
    assert (node.op, node.channels, node.window, node.size) == (Op.POOL, 24, (2, 2), (4, 4))
    assert node.stride == (Fraction(2), Fraction(2))
    (move,) = node.parents
    assert maps.nodes[move].sources[:5, 1].tolist() == [0, 0, 0, 0, 1]
    assert maps.nodes[move].size == (8, 8)


def test_channels_that_become_pixels_are_a_union_made_larger() -> None:
    maps, (image,) = maps_of((1, 8, 3, 3))
    node = maps.nodes[maps.resolve(moved(lambda x: F.pixel_shuffle(x, 2), image), 1)]
    assert (node.op, node.channels, node.size) == (Op.RESIZE, 2, (6, 6))
    assert node.stride == (Fraction(1, 2), Fraction(1, 2))
    join = maps.nodes[node.parents[0]]
    assert (join.op, join.size, len(join.parents)) == (Op.JOIN, (3, 3), 4)
    sources = np.stack([maps.nodes[each].sources[:, 1] for each in join.parents])
    assert [sorted(column) for column in sources.T.tolist()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert not maps.notes


@pytest.mark.parametrize(
    "move",
    [
        lambda x: x.transpose(1, 2),  # rows for channels
        lambda x: x.flatten(2).transpose(1, 2),  # pixels for channels
        lambda x: torch.where(torch.arange(8) > 3, x, x.flip(1)),
    ],
)
def test_what_else_changes_places_is_mixed(move) -> None:
    maps, (image,) = maps_of(SHAPE)
    label = moved(move, image)
    node = maps.nodes[maps.resolve(label, 1)]
    assert (node.op, node.parents, node.channels) == (Op.MIX, (0,), label.ids.shape[1])
    assert list(maps.notes) == ["channels and pixels change places: each sees all others"]


def test_channels_that_become_rows_are_a_union_twice_as_high() -> None:
    maps, (image,) = maps_of(SHAPE)
    node = maps.nodes[maps.resolve(moved(lambda x: x.reshape(1, 3, 16, 8), image), 1)]
    assert (node.op, node.size, node.channels) == (Op.RESIZE, (16, 8), 3)
    assert node.stride == (Fraction(1, 2), Fraction(1))


def test_too_many_pixels_for_a_channel_are_mixed() -> None:
    maps, (image,) = maps_of((1, 4 * MAX_CHANNELS_PER_PIXEL, 2, 2))
    shuffled = moved(partial(F.pixel_shuffle, upscale_factor=16), image)
    assert maps.nodes[maps.resolve(shuffled, 1)].op is Op.MIX


def test_what_is_pooled_has_no_stride_and_no_note() -> None:
    maps, (image,) = maps_of(SHAPE)
    pooled = maps.add(Op.GLOBAL, (0,), (1, 6, 1, 1), 1, "", True)
    assert maps.pooled == {1}
    # A line of its channels: each is a pixel of one channel.
    line = moved(lambda x: x.flatten(1)[:, None], pooled, pooled=True)
    assert maps.nodes[maps.resolve(line, 1)].channels == 1
    assert not maps.notes
    # Spread over the pixels again it stands beside what never was pooled.
    spread = moved(lambda a, b: torch.cat([a.expand(SHAPE), b], 1), pooled, image)
    node = maps.nodes[maps.resolve(spread, 1)]
    assert (node.op, node.size, node.parents) == (Op.MOVE, (8, 8), (0, 1))


def test_one_channel_read_along_its_pixels_is_mixed() -> None:
    maps, (image,) = maps_of((1, 1, 4, 9))
    assert maps.resolve(image, 1) == 0
    node = maps.nodes[maps.resolve(image, -1)]
    assert node.channels == 9


def test_windows_and_rows_are_as_many_pixels() -> None:
    maps, (image,) = maps_of(SHAPE)
    windows = moved(lambda x: x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5), image)
    windows = moved(lambda x: x.reshape(4, 6, 4, 4), windows)
    assert maps.resolve(windows, 1) == 0
    assert size_of(windows.ids.shape, 1) == (16, 4)
    row = moved(lambda x: x.flatten(2)[:, :, ::4], image)
    node = maps.nodes[maps.resolve(row, 1)]
    assert (node.op, node.stride, node.size) == (Op.POOL, (Fraction(1), Fraction(4)), (1, 16))


def test_of_products_nobody_knows_the_pixels() -> None:
    maps, (image,) = maps_of(SHAPE)
    heads = maps.add(Op.MIX, (0,), (1, 2, 64, 3), 1, "")
    merged = moved(lambda x: x.transpose(1, 2).reshape(1, 64, 6), heads)
    node = maps.nodes[maps.resolve(merged, -1)]
    assert (node.op, node.channels, node.stride) == (Op.MOVE, 6, (Fraction(1), Fraction(1)))
    assert maps.owners([merged, heads, image]) == (1, 0)
