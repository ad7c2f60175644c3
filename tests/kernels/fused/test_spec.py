"""Shapes and counts of the fused block."""

import pytest
import torch

from ifspace.errors import KernelError
from ifspace.kernels.fused.reference import FusedSpec
from ifspace.kernels.windows import windows_of


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 4)])
def test_shapes_are_those_of_torch(stride, size):
    spec = FusedSpec(windows_of(6, 5, 2, 0.5), stride)
    convolution = torch.nn.Conv2d(6, 6, 3, stride, 1, groups=6)
    shape = tuple(convolution(torch.ones(2, 6, *size)).shape)
    assert spec.middle_shape((2, 6, *size)) == shape
    assert spec.output_shape((2, 6, *size)) == (2, 5, *shape[2:])
    pixels = 2 * shape[2] * shape[3]
    assert spec.macs((2, 6, *size)) == pixels * (convolution.weight.numel() + 5 * 3)


def test_what_is_no_option_is_refused():
    windows = windows_of(6, 5, 2, 0.5)
    with pytest.raises(KernelError, match="stride out of range: got 0; allowed: 1 or 2"):
        FusedSpec(windows, 0)
    with pytest.raises(KernelError, match="unknown activation1: got 'tanh'; allowed: None, relu"):
        FusedSpec(windows, 1, "tanh")
