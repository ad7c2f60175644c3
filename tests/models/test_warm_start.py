"""Blocks fitted to the convolutions that they replace: nearer than random in every layer."""

import copy
from typing import ClassVar

import pytest
import torch
from small_networks import Apart, resnet18, vgg
from torch import Tensor, nn

from ifspace.block import Block
from ifspace.errors import KernelError, SettingError
from ifspace.models import least_squares, warm_start
from ifspace.models.decomposition import Layers, decompose
from ifspace.models.projection import kernel_of
from ifspace.models.surgery import Replace
from ifspace.models.warm_start import fit_blocks, random_images
from ifspace.nn import Style, build
from ifspace.stages.problem import Blocks

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 32, 32)


def resnet10() -> nn.Module:
    return resnet18(blocks=1)


def images(many: int = 8, channels: int = 3, side: int = 32) -> Tensor:
    return torch.randn(many, channels, side, side, generator=torch.Generator().manual_seed(5))


def input_of(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """Return the input of a layer of a network in evaluation mode."""
    inputs = []
    layer = model.get_submodule(name)
    hook = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        trained = model.training
        model.eval()(x)
        model.train(trained)
    hook.remove()
    return inputs[0]


def remaining(y: Tensor, output: Tensor) -> float:
    return float((y - output).square().sum() / y.square().sum())


@pytest.mark.slow
@pytest.mark.parametrize("block", ["DW+RPW(2,1/2)", "cheapest"])
@pytest.mark.parametrize("make", [vgg, resnet10, lambda: vgg(batch_norm=False)])
def test_a_fitted_block_is_nearer_than_a_random_one_in_every_layer(make, block: str):
    torch.manual_seed(0)
    model = make()
    final = decompose(model, IMAGE, Blocks(block), warm_start=True)
    assert [fit.name for fit in final.fits] == [layer.name for layer in final.plan.replaced]
    for fit in final.fits:
        # The best number before a block leaves no more than 0, and no more than 1.
        assert fit.scaled <= min(1.0, fit.random) + 1e-6
        assert fit.error < 0.9 * fit.scaled
        assert fit.unseen < fit.scaled


@pytest.mark.slow
def test_reported_errors_are_those_of_the_block():
    model = resnet10()
    x = images(3)  # none is kept out, and all maps are small enough to be kept whole
    blocks = Blocks("DW+RPW(2,1/2)+SH(4)")
    final, random = decompose(model, IMAGE, blocks, warm_start=x), decompose(model, IMAGE, blocks)
    for fit in final.fits:
        read = input_of(model, fit.name, x)
        y = model.get_submodule(fit.name)(read)
        before, behind = (other.model.get_submodule(fit.name).eval() for other in (random, final))
        with torch.no_grad():
            assert fit.pixels == y[:, 0].numel()
            assert fit.unseen is None
            assert fit.error == pytest.approx(remaining(y, behind(read)), rel=1e-3)
            assert fit.random == pytest.approx(remaining(y, before(read)), rel=1e-3)
            scaled = before(read) * (before(read) * y).sum() / before(read).square().sum()
            assert fit.scaled == pytest.approx(remaining(y, scaled), rel=1e-3)


@pytest.mark.slow
def test_images_held_out_are_not_fitted():
    model, x = vgg(), images(8)
    blocks = Blocks("DW+PW")
    final = decompose(model, IMAGE, blocks, layers=Layers("3"), warm_start=x)
    decomposed, (fit,) = final.model, final.fits
    read = input_of(model, "3", x)
    with torch.no_grad():
        y, output = model[3](read), decomposed[3].eval()(read)
    assert fit.error == pytest.approx(remaining(y[:6], output[:6]), rel=1e-3)
    assert fit.unseen == pytest.approx(remaining(y[6:], output[6:]), rel=1e-3)
    other = decompose(
        model, IMAGE, blocks, layers=Layers("3"), warm_start=torch.cat([x[:6], -x[6:]])
    ).model
    assert torch.equal(other[3].layer1.weight, decomposed[3].layer1.weight)


def decaying(model: nn.Module) -> nn.Module:
    """Give convolutions weights [F, C, k, k] like trained ones: their spectrum decays as 1 / i."""
    for conv in model.modules():
        if isinstance(conv, nn.Conv2d):
            left, values, right = torch.linalg.svd(
                torch.randn(conv.weight.flatten(1).shape), full_matrices=False
            )
            values = values[0] / torch.arange(1, len(values) + 1)
            conv.weight.data.copy_((left * values @ right).reshape(conv.weight.shape))
    return model


class Inverted(nn.Module):
    """An inverted residual block: two pointwise layers and a depthwise one between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.norm = nn.BatchNorm2d(4 * width)
        self.spatial = nn.Conv2d(4 * width, 4 * width, 3, 1, 1, groups=4 * width)
        self.project = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.spatial(self.norm(self.expand(x)).relu()).relu())


NAMES = ["1.expand", "1.project", "2.expand", "2.project"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "names", "start", "data"),
    [
        ("GPW(4)+SH(4)+GPW(4)", NAMES, "closed form", False),
        ("GPW(4)+SH(4)+GPW(4)", NAMES, "closed form", True),
        ("RPW(4,1/2)+GPW(4)", NAMES, "drawn", True),
        ("DW+PW", ["3", "4"], "closed form", True),
        ("DW+RPW(2,1/2)", ["3", "4"], "projected", False),
    ],
)
def test_blocks_begin_nearer_to_trained_weights_than_drawn_ones_in_every_layer(
    block: str, names: list[str], start: str, data: bool
):
    torch.manual_seed(0)
    parts = [Inverted(16), Inverted(16), nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 32, 3, 2, 1)]
    model = decaying(nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), *parts))
    x: Tensor | bool = images(16).cumsum(2).cumsum(3) / 32 if data else True  # smooth, as data is
    final = decompose(model, IMAGE, Blocks(block), layers=Layers(names), warm_start=x)
    assert [(fit.name, fit.start) for fit in final.fits] == [(name, start) for name in names]
    for fit in final.fits:
        assert fit.error < min(fit.random, fit.scaled)
        assert fit.unseen < fit.scaled
        assert fit.weights is not None
        assert fit.weights_random is not None
        if start == "closed form" and not data:
            # The closed form itself: of weights whose spectrum decays it leaves less than half.
            assert fit.weights < 0.5 < fit.weights_random
            kernel = kernel_of(final.model.get_submodule(fit.name))
            weight = model.get_submodule(fit.name).weight.detach()
            assert fit.weights == pytest.approx(remaining(weight, kernel), rel=1e-4)


def test_the_images_are_those_of_a_loader():
    model, x = vgg(), images(12)
    loader = [(x[:4], 0), (x[4:8], 1), (x[8:], 2)]
    one, same = (
        decompose(model, IMAGE, Blocks("DW+PW"), layers=Layers("3"), warm_start=source).fits
        for source in (x, loader)
    )
    assert one == same


def test_a_convolution_that_a_block_can_express_is_fitted():
    # The convolution is the product of a depthwise and a pointwise one.
    conv = nn.Conv2d(16, 24, 3, 2, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(24, 16, 1, 1) * torch.randn(1, 16, 3, 3))
    model = nn.Sequential(conv)
    x = images(8, 16, 16)
    (fit,) = decompose(model, (16, 16, 16), Blocks("DW+PW"), warm_start=x).fits
    assert fit.error < 1e-3 < 0.5 < fit.scaled
    assert fit.unseen < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("style", [None, Style(), "fog"])
def test_batch_norm_inside_a_block_is_neutral_on_these_inputs(style):
    torch.manual_seed(0)
    model, x = resnet18(), images(3)
    blocks = Blocks("DW+RPW(2,1/2)+GPW(2)")
    decomposed = decompose(
        model, IMAGE, blocks, layers=Layers("4.conv1"), warm_start=x, style=style
    )
    block = decomposed.model.get_submodule("4.conv1").eval()
    read = input_of(model, "4.conv1", x)
    norms = {
        name: child for name, child in block.named_modules() if isinstance(child, nn.BatchNorm2d)
    }
    assert norms

    def unchanged(norm: nn.Module, inputs: tuple[Tensor], y: Tensor) -> None:
        torch.testing.assert_close(y, inputs[0], rtol=1e-3, atol=1e-3)
        mean = inputs[0].mean((0, 2, 3))
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-3)

    for norm in norms.values():
        norm.register_forward_hook(unchanged)
    evaluated = block(read)
    trained = block.train()(read)  # of the same inputs the statistics are the same
    torch.testing.assert_close(trained, evaluated, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_the_network_and_the_random_generator_are_unchanged():
    model = resnet18()
    weights, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    layers = Layers(["3.conv1", "5.conv2", "8.conv1"])
    one, same = (
        decompose(model, IMAGE, Blocks("DW+PW"), layers=layers, warm_start=True, seed=3)
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(not child._forward_pre_hooks for child in model.modules())
    assert one.fits == same.fits != ()
    assert one.model.training
    assert all(parameter.requires_grad for parameter in one.model.parameters())


@pytest.mark.slow
def test_a_layer_that_runs_twice_is_fitted_to_its_first_call():
    model = Apart()
    fits = decompose(model, IMAGE, Blocks("DW+PW"), warm_start=images(12)).fits
    assert [fit.name for fit in fits] == ["convs.1", "last"]
    assert fits[0].pixels == 9 * 32 * 32


def test_other_dtypes_are_kept():
    model = vgg(batch_norm=False).to(torch.bfloat16)
    final = decompose(model, IMAGE, Blocks("DW+PW"), layers=Layers("2"), warm_start=True)
    assert {parameter.dtype for parameter in final.model.parameters()} == {torch.bfloat16}
    (fit,) = final.fits
    assert fit.error < 0.9 * fit.scaled


class Watched(nn.Conv2d):
    """A convolution that keeps what it and its copies read."""

    seen: ClassVar[list[torch.Tensor]] = []

    def forward(self, x):
        self.seen.append(x)
        return super().forward(x)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((1, 8, 224, 224), 8),
        ((300, 8, 48, 48), 8),
        ((4, 128, 30, 20), 128),
        ((9, 3, 1, 5), 8),
    ],
)
def test_the_windows_kept_of_a_layer_are_bounded(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], channels: int
):
    monkeypatch.setattr(Watched, "seen", [])
    monkeypatch.setattr(warm_start, "KEPT", 2**17)
    monkeypatch.setattr(least_squares, "STEPS", 1)
    model = nn.Sequential(Watched(shape[1], channels, 3, padding=1))
    # The value of a pixel is its number in the feature map.
    x = torch.arange(1, shape[2] * shape[3] + 1).view(shape[2:]).expand(*shape).float()
    block = nn.Sequential(build("DW+PW", shape[1], channels))
    (fit,) = fit_blocks(model, block, ["0"], x)
    batches = -(-len(x) // warm_start.BATCH)
    # The network sees every image; then the fit reads windows, and noise, which is no number.
    kept = [part for part in Watched.seen[batches:] if torch.equal(part, part.round())]
    numbers = sum(part.numel() + part[:, 0].numel() * channels for part in kept)
    # Of each eight images at least one window of 8 x 8 pixels is kept.
    least = batches * 64 * (shape[1] + channels)
    assert numbers <= max(warm_start.KEPT, least)
    assert numbers >= min(x.numel() + x[:, 0].numel() * channels, warm_start.KEPT // 4)
    assert fit.pixels == kept[0][:, 0].numel()
    part = kept[-1][0, 0]
    if part.shape[0] > 1:
        assert torch.all(part.diff(dim=0) == shape[3])  # rows of the map that follow each other
    assert torch.all(part.diff(dim=1) == 1)


def test_few_pixels_do_not_overfit():
    # One filter has 288 taps, the inputs have 6 x 4 pixels: without noise beside them any output
    # could be met on these inputs, and what is found would be worse than nothing elsewhere.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1))
    (fit,) = decompose(model, (32, 2, 2), Blocks("DW+PW"), warm_start=images(8, 32, 2)).fits
    assert fit.pixels == 24
    assert fit.unseen < 1


@pytest.mark.slow
def test_progress_is_reported():
    calls: list[tuple[int, int]] = []
    model = vgg()
    decomposed = decompose(model, IMAGE, Blocks("DW+PW"), layers=Layers(["3", "7"])).model
    fit_blocks(model, decomposed, ["3", "7"], images(), progress=lambda *call: calls.append(call))
    assert calls == [(0, 2), (1, 2), (2, 2)]


def test_random_images_have_the_type_of_the_network():
    drawn = random_images((3, 4, 6), 1, torch.zeros(1, dtype=torch.float64), 10)
    assert (drawn.shape, drawn.dtype) == ((10, 3, 4, 6), torch.float64)
    assert torch.equal(drawn, random_images((3, 4, 6), 1, torch.zeros(1, dtype=torch.float64), 10))


@pytest.mark.parametrize(
    ("warm_start", "error", "message"),
    [
        (torch.zeros(2, 5, 32, 32), KernelError, r"the network does not take these images: got \["),
        (torch.zeros(2, 3, 32, 32, device="meta"), SettingError, "^nothing to fit"),
        ([1, 2], SettingError, "wrong warm_start: got list"),
    ],
)
def test_wrong_images_are_an_error(warm_start, error, message: str):
    model = vgg()
    with pytest.raises(error, match=message) as raised:
        decompose(model, IMAGE, Blocks("DW+PW"), warm_start=warm_start)
    assert "\n" not in str(raised.value)
    assert all(not child._forward_pre_hooks for child in model.modules())


class Mlp(nn.Module):
    """Two linear layers on the channels of feature maps [N, H, W, C], as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return y + self.two(self.one(y.movedim(1, -1)).relu()).movedim(-1, 1)


def test_linear_layers_on_channels_are_fitted_as_the_convolutions_that_they_are():
    torch.manual_seed(0)
    model, x = Mlp(), images(3)
    block, changed = Block.parse("GPW(4)+SH(4)+GPW(4)"), copy.deepcopy(model)
    style = Style(batch_norm=False, activation=None, bias=True, bias_where="last")
    for name, widths in (("one", (16, 64)), ("two", (64, 16))):
        Replace(name, block.at(*widths), style=style).apply(changed)
    fits = fit_blocks(model, changed, ["one", "two"], x)
    assert [fit.name for fit in fits] == ["one", "two"]
    assert {fit.start for fit in fits} == {"closed form"}
    for fit in fits:
        read = input_of(model, fit.name, x)
        with torch.no_grad():
            y = model.get_submodule(fit.name)(read)
            output = changed.get_submodule(fit.name).eval()(read)
        assert fit.error == pytest.approx(remaining(y, output), rel=1e-3)
        assert fit.error < min(fit.scaled, fit.random)
