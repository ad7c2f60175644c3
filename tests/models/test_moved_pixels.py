"""Pixels that move, branches along the batch, and modules that are called several times.

Fields are those of gradients in fp64 with positive weights, MACs those of torch's counter.
"""

from collections.abc import Callable
from math import exp

import pytest
import torch
from models.autograd_field import counted_macs, fields_of
from models.moved_networks import (
    Moved,
    Positions,
    Pyramid,
    Recurrent,
    SideBySide,
    Stripes,
    conv,
    differences,
)
from torch import Tensor, nn

from ifspace.models.analysis import LayerReport, Report, analyze, other_params
from ifspace.models.decomposition import Blocks, Layers, decompose
from ifspace.models.tracing import trace

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 16, 16)


def layers_of(report: Report) -> dict[str, LayerReport]:
    return {entry.layer.name: entry for entry in report.layers}


def test_pointwise_layers_join_rows_and_columns() -> None:
    # Differences along the rows see 5×3 pixels, those along the columns 3×4, and the last 5×4.
    last = layers_of(analyze(Moved(differences, 16, 32), IMAGE))["last"]
    assert last.gain == pytest.approx((60 - 45) / 45 * exp(-3 * 45 / 768))
    # As in InceptionNeXt and PNASNet: lines across each other, then a square.
    report = analyze(Lines(), IMAGE)
    seen = {name: entry.field.volume for name, entry in layers_of(report).items()}
    assert seen == {"stem": 3, "high": 15, "wide": 21, "last": 105}
    assert fields_of(Lines(), 3, IMAGE[1:], [])["last"] == ((5, 7), 3)
    assert layers_of(report)["last"].gain == pytest.approx((105 - 21) / 21 * exp(-3 * 21 / 768))


class Lines(nn.Module):
    """A high and a wide convolution side by side, and a pointwise layer on both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv(3, 8, 1), conv(16, 16, 1)
        self.high = nn.Conv2d(8, 8, (5, 1), padding=(2, 0))
        self.wide = nn.Conv2d(8, 8, (1, 7), padding=(0, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(torch.cat([self.high(x), self.wide(x)], 1))


class Added(nn.Module):
    """A layer on the sum of a feature map and a part of it that was moved and came back."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.move, self.stem, self.last = move, conv(3, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(x + self.move(x))


def roll(x: Tensor) -> Tensor:
    return torch.roll(x, (1, -2), (2, 3))


def there_and_back(x: Tensor) -> Tensor:
    return torch.roll(torch.roll(x, 3, 2), -3, 2)


def flipped_twice(x: Tensor) -> Tensor:
    return x.flip(2).relu().flip(2)


def cropped(x: Tensor) -> Tensor:
    return nn.functional.pad(x[:, :, 2:], (0, 0, 0, 2))


def turned(x: Tensor) -> Tensor:
    return torch.rot90(torch.rot90(x, 1, (2, 3)), 3, (2, 3))


def windowed(x: Tensor) -> Tensor:
    """Windows along the batch and back, as in Swin."""
    batch, channels, height, width = x.shape
    y = x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 1, 3, 5)
    y = y.reshape(-1, channels, 4, 4).relu()
    y = y.view(batch, height // 4, width // 4, channels, 4, 4).permute(0, 3, 1, 4, 2, 5)
    return y.reshape(x.shape)


@pytest.mark.parametrize(
    ("move", "size"),
    [
        (roll, (6, 7)),
        (there_and_back, (5, 5)),
        (flipped_twice, (5, 5)),
        (cropped, (7, 5)),
        (turned, (5, 5)),
        (windowed, (5, 5)),
    ],
)
def test_sums_with_moved_feature_maps(
    move: Callable[[Tensor], Tensor], size: tuple[int, int]
) -> None:
    net = Added(move)
    last = layers_of(analyze(net, IMAGE))["last"]
    assert (last.field.size, last.unknown_pixels) == (size, False)
    assert fields_of(net, 3, IMAGE[1:], [])["last"][0] == size


@pytest.mark.parametrize(
    "move",
    [
        lambda x: x.flip(3),
        lambda x: x.transpose(2, 3),
        lambda x: torch.rot90(x, 1, (2, 3)),
        lambda x: x[:, :, torch.tensor([3, 1, 0, 2, *range(4, 16)])],
    ],
)
def test_what_cannot_be_followed_is_marked(move: Callable[[Tensor], Tensor]) -> None:
    report = analyze(Added(move), IMAGE)
    last = layers_of(report)["last"]
    assert last.unknown_pixels
    assert last.field.unknown
    assert last.gain is None
    assert not last.adds_nothing
    # The least that it sees.
    assert last.field.size == (5, 5)


def test_a_recurrent_layer_is_a_layer_for_each_call() -> None:
    net = Recurrent()
    report = analyze(net, IMAGE)
    sizes = [entry.field.size for entry in report.layers if entry.layer.name == "conv.0"]
    assert sizes == [(3, 3), (5, 5), (7, 7)]
    assert fields_of(net, 3, IMAGE[1:], [])["conv.0"] == ((7, 7), 3)
    assert report.macs == counted_macs(net, IMAGE)


@pytest.mark.parametrize("name", ["conv.0", "head.0"])
def test_a_shared_convolution_is_replaced_everywhere(name: str) -> None:
    net, image = (Pyramid(), (3, 96, 160)) if name == "head.0" else (Recurrent(), IMAGE)
    final = decompose(net, image, Blocks("DW+PW"), layers=Layers(name))
    after = trace(final.model, image)
    calls = sum(layer.name == name for layer in trace(net, image).layers)
    assert sum(layer.name == f"{name}.layer0" for layer in after.layers) == calls == 3
    assert final.plan.macs == (trace(net, image).macs, after.macs)
    assert after.macs == counted_macs(final.model, image)


def test_a_layer_on_a_constant_runs() -> None:
    net = Positions()
    report = analyze(net, IMAGE)
    assert [layer.name for layer in report.unplaced] == ["encoding"]
    assert report.macs == counted_macs(net, IMAGE)
    assert not other_params(net, report).unused
    assert sum(layer.params for layer in report.all_layers) == report.params


@pytest.mark.parametrize("net", [SideBySide(), Stripes()])
def test_feature_maps_side_by_side_are_seen_one_at_a_time(net: nn.Module) -> None:
    report = analyze(net, IMAGE)
    last = layers_of(report)["last"]
    assert (last.field.size, last.field.channels, last.receptive) == ((7, 7), 3, (7, 7))
    assert not last.unknown_pixels
    assert not report.notes
    assert report.macs == counted_macs(net, IMAGE)


class ScaledBySum(nn.Module):
    """A feature map times one number that is computed from another one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.summed, self.idle = conv(3, 8), conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x * self.summed(x).sum()


def test_a_layer_lost_from_sight_runs_and_one_that_is_not_called_does_not() -> None:
    net = ScaledBySum()
    report = analyze(net, IMAGE)
    assert {layer.name for layer in report.all_layers} == {"stem", "summed"}
    assert report.macs == counted_macs(net, IMAGE)
    assert list(other_params(net, report).unused) == ["idle"]


class NotExported(Positions):
    """Weights used by a function, in a network that leaves torch and cannot be exported."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(x, self.stem.weight, padding=1)
        return self.last(torch.from_numpy(x.detach().numpy()))


def test_without_an_exported_program_no_layer_is_said_not_to_run() -> None:
    net = NotExported()
    report = analyze(net, IMAGE)
    assert "branches are not seen" in report.notes[0]
    assert [layer.name for layer in report.all_layers] == ["last"]
    assert not other_params(net, report).unused


class ClassTokens(nn.Module):
    """Attention of a class token and pixels, by heads, between two convolutions, as in CoaT."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.token, self.first(x).flatten(2).transpose(1, 2)], 1)
        q, k, v = self.qkv(tokens).reshape(1, -1, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = q * 0.5 + q @ (k.softmax(2).transpose(-1, -2) @ v)
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(1, -1, 16))
        return self.last(tokens[:, 1:].transpose(1, 2).reshape(1, 16, 12, 12))


def test_attention_with_a_class_token_opens_no_stage_and_counts_no_token_twice() -> None:
    report = analyze(ClassTokens(), (3, 12, 12))
    assert [stage.side for stage in report.stages] == [(12, 12)]
    last = report.layers[-1]
    assert last.unknown_pixels or (last.field.size, last.field.channels) == ((12, 12), 3)
    assert all(layer.field.volume <= 3 * 12 * 12 for layer in report.layers)
