"""Fits of blocks by least squares, against solutions in closed form and a fit of all weights."""

import copy

import torch
from torch import Tensor, nn

from ifspace.models.least_squares import minimise, minimise_jointly
from ifspace.nn import Style, build


def feature_maps(count: int, channels: int) -> Tensor:
    return torch.einsum(
        "ij,njhw->nihw", torch.randn(channels, channels), torch.randn(count, channels, 6, 6)
    )


def remaining(block: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((block(x) - y).square().sum() / y.square().sum())


def test_one_grouped_layer_has_the_least_squares_of_each_group() -> None:
    torch.manual_seed(0)
    x, y = feature_maps(4, 16), torch.randn(4, 24, 6, 6)
    block = build("GPW(4)", 16, 24, style=Style(False, None, bias=True))
    minimise(block, [(x, y, 1.0)])
    weight, bias = block.layer0.weight[:, :, 0, 0].detach(), block.layer0.bias.detach()
    pixels, target = x.movedim(1, -1).reshape(-1, 16), y.movedim(1, -1).reshape(-1, 24)
    for group in range(4):
        reads = torch.cat([pixels[:, 4 * group :][:, :4], torch.ones(len(pixels), 1)], 1)
        outputs = slice(6 * group, 6 * group + 6)
        best = torch.linalg.lstsq(reads.double(), target[:, outputs].double()).solution
        torch.testing.assert_close(weight[outputs].T.double(), best[:4], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(bias[outputs].double(), best[4], rtol=1e-3, atol=1e-3)


def test_layers_in_turn_first_leave_less_than_a_fit_of_all_together() -> None:
    torch.manual_seed(0)
    # Weights and channels as of trained networks: their spectra decay.
    places = torch.arange(1, 33)
    left, right, mixing = (torch.linalg.qr(torch.randn(32, 32))[0] for _ in range(3))
    x = torch.einsum("ij,njhw->nihw", mixing / places.sqrt(), torch.randn(8, 32, 6, 6))
    y = torch.einsum("ij,njhw->nihw", (left / places) @ right, x)
    text = "RPW(4,0)+RPW(4,1/2)+GPW(4)"
    block = build(text, 32, style=Style(False, None, bias=True, bias_where="last"))
    together = copy.deepcopy(block)
    minimise_jointly(together, [(x, y, 1.0)])
    minimise(block, [(x, y, 1.0)])
    assert remaining(block, x, y) < 0.9 * remaining(together, x, y)


def test_a_block_with_activations_is_fitted_together() -> None:
    torch.manual_seed(0)
    x = feature_maps(8, 8)
    y = nn.Conv2d(8, 8, 1)(x.relu()).detach()
    block = build("PW+PW", 8, style=Style(False, "relu", where="between"))
    before = remaining(block, x, y)
    minimise(block, [(x, y, 1.0)])
    assert remaining(block, x, y) < before / 3
