"""RPW in eager PyTorch: against sums written out, a dense convolution, and autograd."""

import pytest
import torch
from torch.nn.functional import conv2d

from ifspace.block import Layer, SizedLayer
from ifspace.kernels.rpw import reference
from ifspace.kernels.windows import dense_weight, windows_of

GROUPS = (1, 2, 4, 8)
OVERLAPS = (0, 0.25, 0.33, 0.5, 0.75, 0.9)
torch.manual_seed(0)


def dense_of(weight: torch.Tensor, reads: list[list[int]], c_in: int) -> torch.Tensor:
    """The weight of the pointwise convolution that reads the same channels, entry by entry."""
    dense = torch.zeros(weight.shape[0], c_in, dtype=weight.dtype)
    for j, channels in enumerate(reads):
        for t, channel in enumerate(channels):
            dense[j, channel] = dense[j, channel] + weight[j, t]
    return dense


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("groups", GROUPS)
def test_it_is_a_dense_convolution_with_zeros_and_so_are_its_gradients(groups, overlap):
    c_in, c_out = 24, 40
    windows = windows_of(c_in, c_out, groups, overlap)
    reads = [[(j * windows.step + t) % c_in for t in range(windows.width)] for j in range(c_out)]
    x = torch.randn(2, c_in, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(c_out, windows.width, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(c_out, dtype=torch.float64, requires_grad=True)
    dense = dense_of(weight, reads, c_in)
    y = conv2d(x, dense[:, :, None, None], bias)
    grad = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, weight, bias), grad)
    with torch.no_grad():
        torch.testing.assert_close(dense_weight(weight, c_in, windows.step), dense)
        torch.testing.assert_close(reference.forward(x, weight, bias, windows), y)
        torch.testing.assert_close(reference.input_grad(grad, weight, windows), expected[0])
        by_weight, by_bias = reference.weight_grad(grad, x, windows)
        torch.testing.assert_close(by_weight, expected[1])
        torch.testing.assert_close(by_bias, expected[2])


def test_a_sum_written_out_by_hand():
    # Four channels, windows of two that share one: filters read 01, 12, 23 and, wrapping, 30.
    x = torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1, 1)
    weight = torch.tensor([[1.0, 2.0]] * 5)
    y = reference.forward(x, weight, None, windows_of(4, 5, 2, "1/2"))
    assert y.flatten().tolist() == [21, 210, 2100, 1002, 21]


def test_the_channels_read_are_those_of_the_sized_layer():
    sized = SizedLayer(Layer("RPW", 2, "0.33"), 12, 24)
    windows = windows_of(12, 24, 2, "0.33")
    ones = torch.ones(24, windows.width)
    seen = dense_weight(ones, 12, windows.step).nonzero().reshape(24, -1, 2)[..., 1]
    assert seen.tolist() == [sorted(row) for row in sized.reads().tolist()]


@pytest.mark.parametrize("shape", [(0, 8, 3, 3), (2, 8, 0, 3), (1, 8, 1, 1)])
def test_empty_and_single_pixels(shape):
    windows = windows_of(8, 3, 2, 0.5)
    x = torch.randn(shape)
    y = reference.forward(x, torch.randn(3, 4), torch.randn(3), windows)
    assert y.shape == (shape[0], 3, *shape[2:])
    by_weight, by_bias = reference.weight_grad(torch.ones_like(y), x, windows)
    assert by_weight.isfinite().all()
    assert by_bias.tolist() == [y[:, 0].numel()] * 3


def test_the_layout_of_the_input_is_kept():
    windows = windows_of(8, 6, 2, 0.5)
    x = torch.randn(2, 8, 3, 3).to(memory_format=torch.channels_last)
    y = reference.forward(x, torch.randn(6, 4), None, windows)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert not y.is_contiguous()
    back = reference.input_grad(y, torch.randn(6, 4), windows)
    assert back.is_contiguous(memory_format=torch.channels_last)
    assert reference.forward(x.contiguous(), torch.randn(6, 4), None, windows).is_contiguous()
