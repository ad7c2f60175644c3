"""Convolutions written as F.unfold and a product, and F.fold: fields against autograd."""

import pytest
import torch
from models import autograd_field
from torch import Tensor, nn
from torch.nn import functional as F

import ifspace.models as m

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 16, 16)
# Kernel, dilation, padding, stride.
WINDOWS = [
    (3, 1, 1, 1),
    (3, 2, 2, 1),
    (3, 1, 0, 1),
    (2, 1, 0, 1),
    (1, 1, 0, 1),
    (3, 1, 1, 2),
    (2, 1, 0, 2),
    (4, 1, 1, 2),
    (1, 1, 0, 2),
]


def written_size(side: int, kernel: int, dilation: int, padding: int, stride: int) -> int:
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


class Conv(nn.Module):
    """Three convolutions, the one in the middle with a window."""

    def __init__(self, kernel: int, dilation: int, padding: int, stride: int) -> None:
        super().__init__()
        self.window = (kernel, dilation, padding, stride)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 16, kernel, stride, padding, dilation, bias=False)
        self.last = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.middle(self.first(x)))
        return y

    def middle(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class Columns(Conv):
    """The same with a matrix from the left, on the columns of F.unfold."""

    def middle(self, x: Tensor) -> Tensor:
        columns = self.conv.weight.flatten(1) @ F.unfold(x, *self.window)
        return columns.unflatten(2, (written_size(x.shape[2], *self.window), -1))


class Rows(Conv):
    """The same with a matrix from the right, on their transpose."""

    def middle(self, x: Tensor) -> Tensor:
        rows = F.unfold(x, *self.window).transpose(1, 2) @ self.conv.weight.flatten(1).t()
        side = written_size(x.shape[2], *self.window)
        return rows.transpose(1, 2).reshape(1, 16, side, -1)


class Dense(Conv):
    """The same with a dense layer."""

    def middle(self, x: Tensor) -> Tensor:
        rows = F.linear(F.unfold(x, *self.window).transpose(1, 2), self.conv.weight.flatten(1))
        side = written_size(x.shape[2], *self.window)
        return rows.transpose(1, 2).reshape(1, 16, side, -1)


def seen_by(model: nn.Module) -> tuple[tuple[int, int], int]:
    """The field of the output by autograd: strides stay as they are."""
    strides = {name: part.stride for name, part in model.named_modules() if hasattr(part, "stride")}
    copied = autograd_field.prepared(model)
    for name, stride in strides.items():
        copied.get_submodule(name).stride = stride
    image = torch.ones(1, *IMAGE, dtype=torch.float64, requires_grad=True)
    return autograd_field.field(copied(image), image)


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", [Columns, Rows, Dense])
def test_a_convolution_by_columns_has_the_field_of_the_convolution(
    kind: type[Conv], window: tuple[int, int, int, int]
) -> None:
    conv, same = Conv(*window), kind(*window)
    same.load_state_dict(conv.state_dict())
    x = torch.rand(1, *IMAGE)
    torch.testing.assert_close(same(x), conv(x))
    expected, report = m.analyze(conv, IMAGE), m.analyze(same, IMAGE)
    assert (report.macs, report.params, report.notes) == (expected.macs, expected.params, ())
    fields = [
        [(layer.field, layer.receptive, layer.unknown_pixels) for layer in one.layers]
        for one in (report, expected)
    ]
    assert fields[0] == fields[1]
    assert report.gain == pytest.approx(expected.gain)
    extent, _ = seen_by(same)
    assert report.layers[-1].receptive == extent
    if window[3] == 1:
        assert (report.layers[-1].field.size, report.layers[-1].field.channels) == seen_by(same)


class Folded(nn.Module):
    """F.fold of columns that a layer writes."""

    def __init__(self, kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> None:
        super().__init__()
        self.window = (kernel, dilation, padding, stride)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.columns = nn.Conv2d(8, 8 * kernel**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.columns(self.first(x))
        kernel, dilation, padding, stride = self.window
        margin = dilation * (kernel - 1) + 1 - 2 * padding
        size = [(side - 1) * stride + margin for side in x.shape[2:]]
        y: Tensor = self.last(F.fold(x.flatten(2), size, *self.window))
        return y


@pytest.mark.parametrize("window", [(3, 1, 1), (3, 1), (2, 1), (3, 1, 2, 2)])
def test_what_is_folded_sees_what_it_sums(window: tuple[int, ...]) -> None:
    model = Folded(*window)
    last = m.analyze(model, IMAGE).layers[-1]
    assert not last.unknown_pixels
    assert (last.field.size, last.field.channels) == seen_by(model)
    assert last.receptive == seen_by(model)[0]


class Shuffled(Folded):
    """The same as windows side by side, as a pixel shuffle."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.columns(self.first(x)), self.window[0])
        y: Tensor = self.last(x)
        return y


@pytest.mark.parametrize("side", [2, 3])
def test_windows_folded_side_by_side_are_a_pixel_shuffle(side: int) -> None:
    model, same = Folded(side, side), Shuffled(side, side)
    same.load_state_dict(model.state_dict())
    x = torch.rand(1, *IMAGE)
    torch.testing.assert_close(model(x), same(x))
    one, other = m.analyze(model, IMAGE), m.analyze(same, IMAGE)
    assert [(layer.field, layer.receptive) for layer in one.layers] == [
        (layer.field, layer.receptive) for layer in other.layers
    ]
    assert not any(layer.unknown_pixels for layer in one.layers)


def test_overlapping_windows_at_a_stride_are_folded_to_unknown_pixels() -> None:
    report = m.analyze(Folded(4, 2, 1), IMAGE)
    assert [layer.unknown_pixels for layer in report.layers] == [False, False, True]
    assert report.notes == (
        "col2im: windows that overlap at a stride: which pixels they sum is not known",
    )


class PutBack(Folded):
    """Windows that F.fold puts back where F.unfold cut them, each weighted by its place."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        scale = torch.linspace(1, 2, 8 * self.window[0] ** 2)[:, None]
        y: Tensor = self.last(F.fold(F.unfold(x, *self.window) * scale, x.shape[2:], *self.window))
        return y


@pytest.mark.parametrize("window", [(3, 1, 1), (3, 2, 1), (2, 2), (3, 1, 2, 2)])
def test_windows_put_back_where_they_were_cut_see_no_more(window: tuple[int, ...]) -> None:
    model = PutBack(*window)
    report = m.analyze(model, IMAGE)
    assert (report.layers[-1].receptive, 3) == seen_by(model) == ((5, 5), 3)
    assert not report.notes


class Turned(PutBack):
    """Windows whose pixels are put back in the opposite order."""

    def forward(self, x: Tensor) -> Tensor:
        windows = F.unfold(self.first(x), *self.window).unflatten(1, (8, -1)).flip(2)
        y: Tensor = self.last(F.fold(windows.flatten(1, 2), x.shape[2:], *self.window))
        return y


def test_windows_put_back_in_another_order_see_their_places() -> None:
    model = Turned(3, 1, 1)
    assert m.analyze(model, IMAGE).layers[-1].receptive == seen_by(model)[0] == (9, 9)


class Mixed(nn.Module):
    """A product along the pixels: every pixel sees all others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Conv2d(3, 8, 3, padding=1), nn.Parameter(torch.rand(256, 256))

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x).flatten(2) @ self.weight).unflatten(2, (16, 16))


def test_a_product_along_the_pixels_mixes_them() -> None:
    assert m.trace(Mixed(), IMAGE).nodes[-1].op.name == "MIX"
