"""Labels and the graph as it is built: the ids follow the channels of a real tensor."""

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifspace.models.feature_maps import (
    MAX_CHANNELS_PER_PIXEL,
    NO_CHANNEL,
    FeatureMaps,
    Label,
    has_no_pixels,
    shuffle_groups,
    size_of,
)
from ifspace.models.graph import (
    Op,
    Trace,
)
from ifspace.models.tracing import trace

pytestmark = pytest.mark.usefixtures("one_thread")
Move = Callable[[Tensor], Tensor]
IMAGE = (12, 24, 16)


def test_a_label_takes_no_memory_and_knows_its_axis() -> None:
    label = Label.of(np.arange(5, 9), 3, (1, 7, 6, 4))
    assert label.ids.shape == (1, 7, 6, 4)
    assert label.ids.untyped_storage().nbytes() == 4 * 8
    assert label.axes() == [3]
    assert label.along(3).tolist() == [5, 6, 7, 8]
    assert label.along(1).tolist() == [7] * 7


def test_one_channel_has_no_axis() -> None:
    assert Label.of(np.arange(1), 1, (1, 1, 3, 3)).axes() == []


def test_zeros_between_channels_are_ignored() -> None:
    ids = Label.of(np.arange(2), 1, (1, 2, 3, 3)).ids
    label = Label(F.pad(ids, (1, 1, 0, 2, 1, 0), value=NO_CHANNEL))
    assert label.axes() == [1]
    assert label.along(1).tolist() == [NO_CHANNEL, 0, 1]
    assert label.all_ids().tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(1, 9), (9,), ()])
def test_vectors_have_no_pixels(shape: Sequence[int]) -> None:
    assert has_no_pixels(shape)


@pytest.mark.parametrize("shape", [(4, 9), (1, 4, 9), (1, 9, 2, 2)])
def test_feature_maps_have_pixels(shape: Sequence[int]) -> None:
    assert not has_no_pixels(shape)


@pytest.mark.parametrize("width", range(1, 25))
def test_shuffles_are_those_of_torch(width: int) -> None:
    numbers = torch.arange(width).reshape(1, width, 1, 1).double()
    orders = {}
    for groups in range(2, width):
        if width % groups == 0:
            order = F.channel_shuffle(numbers, groups).flatten().numpy().astype(np.int64)
            assert shuffle_groups(order) == groups
            orders[groups] = order.tolist()
    rng = random.Random(width)
    for _ in range(20):
        other = rng.sample(range(width), width)
        assert shuffle_groups(np.array(other)) in (None, *orders)
        assert (shuffle_groups(np.array(other)) is None) == (other not in orders.values())


def viewed(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def folded(x: Tensor) -> Tensor:
    """Every 2 x 2 pixels become channels, as in TResNet, written by hand."""
    n, c, h, w = x.shape
    x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, 4 * c, h // 2, w // 2)


def focused(x: Tensor) -> Tensor:
    parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
    return torch.cat(parts, 1)


def option_a(x: Tensor) -> Tensor:
    """The shortcut of ResNet without weights: a stride, and zeros for new channels."""
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, x.shape[1] // 4, x.shape[1] // 4))


def last(move: Move) -> Move:
    return lambda x: move(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def written(x: Tensor) -> Tensor:
    """Channels written into a tensor of zeros, as in FasterNet."""
    moved = torch.zeros_like(x)
    moved[:, : x.shape[1] // 2] = x[:, x.shape[1] // 2 :]
    return moved


MOVES: dict[str, Move] = {
    "shuffle": lambda x: F.channel_shuffle(x, 2),
    "shuffle by view": lambda x: viewed(x, x.shape[1] // 2),
    "shuffle by rearranging": lambda x: x.unflatten(1, (2, -1)).swapaxes(1, 2).flatten(1, 2),
    "channels last": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "slice in channels last": last(lambda x: x[..., 1:]),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "swap": lambda x: torch.cat(x.chunk(2, dim=1)[::-1], 1),
    "split": lambda x: torch.cat(x.split([1, x.shape[1] - 1], 1)[::-1], 1),
    "slice": lambda x: x[:, 1:],
    "slice every other": lambda x: x[:, ::2],
    "narrow": lambda x: x.narrow(1, 0, x.shape[1] - 1),
    "pad": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "pad pixels": lambda x: F.pad(x, (2, 1, 1, 2)),
    "reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "crop": lambda x: x[:, :, 1:, : x.shape[3] - 1],
    "crop a half": lambda x: x[:, :, : x.shape[2] // 2 + 1],
    "flip": lambda x: x.flip(1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1)[:, : x.shape[1] + 1],
    "select": lambda x: x.index_select(1, torch.tensor([1, 0, 1])),
    "stack": lambda x: torch.stack(x.chunk(2, 1), 2).flatten(1, 2),
    "roll": lambda x: x.roll(1, 1),
    "stride": lambda x: x[:, :, ::2, ::2],
    "stride of rows": lambda x: x[:, :, 1::2],
    "option A": option_a,
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "folded": folded,
    "focus": focused,
    "written": written,
}
# Of these every image needs an even side, or an even width.
EVEN_SIDES = ("pixel unshuffle", "folded", "stride", "option A", "focus")
EVEN_WIDTH = (
    "shuffle",
    "shuffle by view",
    "shuffle by rearranging",
    "chunk",
    "swap",
    "stack",
    "written",
)


class Moves(nn.Module):
    """Consecutive moves, and a layer that reads the result."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.moves = [MOVES[name] for name in names]
        self.last = nn.Conv2d(self.moved(torch.empty(1, *IMAGE)).shape[1], 1, 1)

    def moved(self, x: Tensor) -> Tensor:
        for move in self.moves:
            x = move(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.moved(x))


def origins(network_trace: Trace) -> tuple[list[int], tuple[int, int]]:
    """Return the channels that the last layer reads, NO_CHANNEL for zeros, and the stride."""
    steps, stride = np.arange(network_trace.image[0]), [1, 1]
    for node in network_trace.nodes[1:-1]:
        assert node.op in (Op.MOVE, Op.POOL), node
        assert node.parents in ((node.index - 1,), ())  # none where there are zeros alone
        stride = stride if node.parents else [1, 1]
        stride = [int(a * b) for a, b in zip(stride, node.stride, strict=True)]
        if node.sources is not None:
            steps = np.where(node.sources[:, 0] >= 0, steps[node.sources[:, 1]], NO_CHANNEL)
    return steps.tolist(), (stride[0], stride[1])


def origins_of_tensors(net: Moves) -> tuple[list[int], tuple[int, int]]:
    """Return the same from real tensors that number the channels, the rows and the columns."""
    numbers = torch.arange(1, IMAGE[0] + 1).reshape(1, -1, 1, 1).expand(1, *IMAGE).double()
    moved = net.moved(numbers)[0]
    middle = (moved.shape[1] // 2, moved.shape[2] // 2)
    channels = moved[:, middle[0], middle[1]].long() - 1
    if not (channels >= 0).any():
        return channels.tolist(), (1, 1)
    first = int((channels >= 0).nonzero()[0])
    strides = []
    for axis in (1, 2):
        places = torch.arange(1, IMAGE[axis] + 1).reshape(1, 1, *(-1, 1)[:: 3 - 2 * axis]).double()
        row = net.moved(places.expand(1, *IMAGE))[0, first]
        line = row[:, middle[1]] if axis == 1 else row[middle[0]]
        half = middle[axis - 1]
        strides.append(abs(int(line[half] - line[half - 1])))
    return channels.tolist(), (strides[0], strides[1])


def check(names: Sequence[str]) -> None:
    net = Moves(names)
    graph = trace(net, IMAGE)
    assert graph.how == "export"
    assert not graph.notes
    assert origins(graph) == origins_of_tensors(net), names
    with torch.no_grad():
        assert graph.nodes[-1].size == net(torch.zeros(1, *IMAGE)).shape[2:]
    assert graph.nodes[-1].layer.size_in == graph.nodes[-1].size


@pytest.mark.parametrize("name", MOVES)
def test_a_move_is_that_of_a_real_tensor(name: str) -> None:
    check([name])


def drawn(seed: int, length: int) -> list[str]:
    rng, names = random.Random(seed), []
    x = torch.empty(1, *IMAGE)
    while len(names) < length:
        name = rng.choice(list(MOVES))
        odd = name in EVEN_WIDTH and x.shape[1] % 2
        odd = odd or (name in EVEN_SIDES and (x.shape[2] % 2 or x.shape[3] % 2))
        if odd or x.shape[1] > 40 or min(x.shape[1:]) < 5:
            name = "slice" if x.shape[1] > 4 else "pad"
        x = MOVES[name](x)
        names.append(name)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_moves_one_after_another(seed: int) -> None:
    check(drawn(seed, 2 + seed % 4))


@pytest.mark.parametrize("move", ["shuffle", "shuffle by view", "shuffle by rearranging"])
def test_a_shuffle_is_a_layer_however_it_is_written(move: str) -> None:
    (shuffle, layer) = trace(Moves([move]), IMAGE).layers
    assert (shuffle.kind, shuffle.params, shuffle.macs) == ("SH", 0, 0)
    assert shuffle.groups == (6 if move == "shuffle by view" else 2)
    assert (shuffle.c_in, shuffle.c_out, shuffle.size_in) == (12, 12, (24, 16))
    assert layer.name == "last"


SHAPE = (1, 6, 8, 8)


def graph_of(*shapes: tuple[int, ...]) -> tuple[FeatureMaps, list[Label]]:
    """Return a graph with an image of each shape, channels before pixels."""
    maps = FeatureMaps()
    return maps, [maps.add(Op.INPUT, (), shape, 1, "") for shape in shapes]


def moved(move, *labels: Label, pooled: bool = False) -> Label:
    """Return a label computed by a function of tensors, which also applies to pixels."""

    def remade(of) -> Tensor:
        return move(*(of(label) for label in labels))

    return Label(remade(lambda label: label.ids), pooled, remade)


def test_a_feature_map_resolves_to_itself() -> None:
    maps, (image,) = graph_of(SHAPE)
    assert maps.resolve(image) == maps.resolve(image, 1) == maps.index(image) == 0
    assert maps.resolve(moved(lambda x: x.permute(0, 2, 3, 1), image), -1) == 0
    assert maps.resolve(moved(lambda x: x.flatten(2), image), 1) == 0
    assert maps.resolve(moved(lambda x: F.pad(x, (1,) * 4, value=NO_CHANNEL), image), 1) == 0
    assert maps.resolve(moved(lambda x: x[:, :, 1:5], image), 1) == 0
    assert len(maps.nodes) == 1
    assert maps.pooled == set()


def test_moved_channels_are_a_new_feature_map() -> None:
    maps, labels = graph_of(SHAPE, (1, 2, 8, 8))
    both = moved(lambda a, b: torch.cat([b, a[:, 1:3]], 1), *labels)
    node = maps.nodes[maps.resolve(both, 1, "here")]
    assert (node.op, node.parents, node.channels, node.size) == (Op.MOVE, (0, 1), 4, (8, 8))
    assert (node.scope, node.layer) == ("here", None)
    assert node.sources.tolist() == [[1, 0], [1, 1], [0, 1], [0, 2]]
    assert maps.resolve(both, 1) == node.index
    assert len(maps.nodes) == 3


def test_zeros_come_from_nowhere() -> None:
    maps, (image,) = graph_of(SHAPE)
    wider = moved(lambda x: F.pad(x, (0, 0, 0, 0, 1, 0), value=NO_CHANNEL), image)
    node = maps.nodes[maps.resolve(wider, 1)]
    assert node.sources[:2].tolist() == [[NO_CHANNEL, NO_CHANNEL], [0, 0]]
    nothing = maps.nodes[maps.resolve(Label(torch.full(SHAPE, NO_CHANNEL)), 1)]
    assert (nothing.op, nothing.parents, nothing.channels) == (Op.MOVE, (), 6)
    assert maps.owners([wider, image]) == (0,)


def test_a_stride_is_a_pool_without_a_window() -> None:
    maps, (image,) = graph_of(SHAPE)
    node = maps.nodes[maps.resolve(moved(lambda x: x[:, :, ::3, ::2], image), 1)]
    assert (node.op, node.parents, node.size, node.window) == (Op.POOL, (0,), (3, 4), (1, 1))
    assert node.stride == (Fraction(3), Fraction(2))


def test_a_stride_is_read_from_the_pixels_and_not_from_the_sizes() -> None:
    maps, (image,) = graph_of((1, 2, 20, 20))
    shown = moved(lambda x: F.pad(x[:, :, 2:18:2], (3, 3, 6, 6), value=NO_CHANNEL), image)
    node = maps.nodes[maps.resolve(shown, 1)]
    assert (node.size, node.stride) == ((20, 26), (Fraction(2), Fraction(1)))


def test_pixels_that_become_channels_are_a_pool_with_a_window() -> None:
    maps, (image,) = graph_of(SHAPE)
    folded = moved(lambda x: F.pixel_unshuffle(x, 2), image)
    node = maps.nodes[maps.resolve(folded, 1)]
    assert (node.op, node.channels, node.window, node.size) == (Op.POOL, 24, (2, 2), (4, 4))
    assert node.stride == (Fraction(2), Fraction(2))
    (move,) = node.parents
    assert maps.nodes[move].sources[:5, 1].tolist() == [0, 0, 0, 0, 1]
    assert maps.nodes[move].size == (8, 8)


def test_channels_that_become_pixels_are_an_upsampled_union() -> None:
    maps, (image,) = graph_of((1, 8, 3, 3))
    node = maps.nodes[maps.resolve(moved(lambda x: F.pixel_shuffle(x, 2), image), 1)]
    assert (node.op, node.channels, node.size) == (Op.RESIZE, 2, (6, 6))
    assert node.stride == (Fraction(1, 2), Fraction(1, 2))
    join = maps.nodes[node.parents[0]]
    assert (join.op, join.size, len(join.parents)) == (Op.JOIN, (3, 3), 4)
    sources = np.stack([maps.nodes[parent].sources[:, 1] for parent in join.parents])
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
def test_other_swaps_of_channels_and_pixels_are_mixed(move) -> None:
    maps, (image,) = graph_of(SHAPE)
    label = moved(move, image)
    node = maps.nodes[maps.resolve(label, 1)]
    assert (node.op, node.parents, node.channels) == (Op.MIX, (0,), label.ids.shape[1])
    assert list(maps.notes) == ["channels and pixels change places: each sees all others"]


def test_channels_that_become_rows_are_a_union_twice_as_high() -> None:
    maps, (image,) = graph_of(SHAPE)
    node = maps.nodes[maps.resolve(moved(lambda x: x.reshape(1, 3, 16, 8), image), 1)]
    assert (node.op, node.size, node.channels) == (Op.RESIZE, (16, 8), 3)
    assert node.stride == (Fraction(1, 2), Fraction(1))


def test_too_many_pixels_for_a_channel_are_mixed() -> None:
    maps, (image,) = graph_of((1, 4 * MAX_CHANNELS_PER_PIXEL, 2, 2))
    shuffled = moved(partial(F.pixel_shuffle, upscale_factor=16), image)
    assert maps.nodes[maps.resolve(shuffled, 1)].op is Op.MIX


def test_pooled_labels_have_no_stride_and_no_note() -> None:
    maps, (image,) = graph_of(SHAPE)
    pooled = maps.add(Op.GLOBAL, (0,), (1, 6, 1, 1), 1, "", True)
    assert maps.pooled == {1}
    # A line of its channels: each is a pixel of one channel.
    line = moved(lambda x: x.flatten(1)[:, None], pooled, pooled=True)
    assert maps.nodes[maps.resolve(line, 1)].channels == 1
    assert not maps.notes
    # Expanded to all pixels again, it is concatenated with a feature map that was not pooled.
    spread = moved(lambda a, b: torch.cat([a.expand(SHAPE), b], 1), pooled, image)
    node = maps.nodes[maps.resolve(spread, 1)]
    assert (node.op, node.size, node.parents) == (Op.MOVE, (8, 8), (0, 1))


def test_one_channel_read_along_its_pixels_is_mixed() -> None:
    maps, (image,) = graph_of((1, 1, 4, 9))
    assert maps.resolve(image, 1) == 0
    node = maps.nodes[maps.resolve(image, -1)]
    assert node.channels == 9


def test_windows_and_rows_are_as_many_pixels() -> None:
    maps, (image,) = graph_of(SHAPE)
    windows = moved(lambda x: x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5), image)
    windows = moved(lambda x: x.reshape(4, 6, 4, 4), windows)
    assert maps.resolve(windows, 1) == 0
    assert size_of(windows.ids.shape, 1) == (16, 4)
    row = moved(lambda x: x.flatten(2)[:, :, ::4], image)
    node = maps.nodes[maps.resolve(row, 1)]
    assert (node.op, node.stride, node.size) == (Op.POOL, (Fraction(1), Fraction(4)), (1, 16))


def test_after_a_product_the_pixels_are_unknown() -> None:
    maps, (image,) = graph_of(SHAPE)
    heads = maps.add(Op.MIX, (0,), (1, 2, 64, 3), 1, "")
    merged = moved(lambda x: x.transpose(1, 2).reshape(1, 64, 6), heads)
    node = maps.nodes[maps.resolve(merged, -1)]
    assert (node.op, node.channels, node.stride) == (Op.MOVE, 6, (Fraction(1), Fraction(1)))
    assert maps.owners([merged, heads, image]) == (1, 0)
