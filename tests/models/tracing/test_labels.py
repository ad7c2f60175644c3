"""Numbers of channels: through any moves they are where the channels of a real tensor are."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifspace.models.feature_maps import (
    NO_CHANNEL,
    Label,
    has_no_pixels,
    shuffle_groups,
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


def test_zeros_between_channels_are_no_channel() -> None:
    ids = Label.of(np.arange(2), 1, (1, 2, 3, 3)).ids
    label = Label(F.pad(ids, (1, 1, 0, 2, 1, 0), value=NO_CHANNEL))
    assert label.axes() == [1]
    assert label.along(1).tolist() == [NO_CHANNEL, 0, 1]
    assert label.all_ids().tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(1, 9), (9,), ()])
def test_what_has_no_pixels_is_flat(shape: Sequence[int]) -> None:
    assert has_no_pixels(shape)


@pytest.mark.parametrize("shape", [(4, 9), (1, 4, 9), (1, 9, 2, 2)])
def test_what_has_pixels_is_not(shape: Sequence[int]) -> None:
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
    """ResNet's shortcut without weights."""
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, x.shape[1] // 4, x.shape[1] // 4))


def last(move: Move) -> Move:
    return lambda x: move(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def written(x: Tensor) -> Tensor:
    """Into a tensor of zeros, as FasterNet does."""
    made = torch.zeros_like(x)
    made[:, : x.shape[1] // 2] = x[:, x.shape[1] // 2 :]
    return made


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
    """Moves one after another, and a layer that reads what they leave."""

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


def origins(found: Trace) -> tuple[list[int], tuple[int, int]]:
    """Whose channels the last layer reads, NO_CHANNEL for zeros, and of how large a stride."""
    steps, stride = np.arange(found.image[0]), [1, 1]
    for node in found.nodes[1:-1]:
        assert node.op in (Op.MOVE, Op.POOL), node
        assert node.parents in ((node.index - 1,), ())  # none where there are zeros alone
        stride = stride if node.parents else [1, 1]
        stride = [int(a * b) for a, b in zip(stride, node.stride, strict=True)]
        if node.sources is not None:
            steps = np.where(node.sources[:, 0] >= 0, steps[node.sources[:, 1]], NO_CHANNEL)
    return steps.tolist(), (stride[0], stride[1])


def seen_really(net: Moves) -> tuple[list[int], tuple[int, int]]:
    """The same of tensors of numbers: of channels, of rows and of columns."""
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
    found = trace(net, IMAGE)
    assert found.how == "export"
    assert not found.notes
    assert origins(found) == seen_really(net), names
    with torch.no_grad():
        assert found.nodes[-1].size == net(torch.zeros(1, *IMAGE)).shape[2:]
    assert found.nodes[-1].layer.size_in == found.nodes[-1].size


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


@pytest.mark.parametrize("seed", range(40))
def test_moves_one_after_another(seed: int) -> None:
    check(drawn(seed, 2 + seed % 4))


@pytest.mark.parametrize("way", ["shuffle", "shuffle by view", "shuffle by rearranging"])
def test_a_shuffle_is_a_layer_however_it_is_written(way: str) -> None:
    (shuffle, layer) = trace(Moves([way]), IMAGE).layers
    assert (shuffle.kind, shuffle.params, shuffle.macs) == ("SH", 0, 0)
    assert shuffle.groups == (6 if way == "shuffle by view" else 2)
    assert (shuffle.c_in, shuffle.c_out, shuffle.size_in) == (12, 12, (24, 16))
    assert layer.name == "last"
