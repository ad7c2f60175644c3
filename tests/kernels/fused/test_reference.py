"""The eager fused block against torch's own operators and autograd; its shapes and counts."""

import pytest
import torch
from dw_rpw_exact import NAMES, Case, results

from ifspace.errors import KernelError
from ifspace.kernels.fused import FusedSpec, reference
from ifspace.kernels.windows import windows_of

CASES = (
    Case(8, 6, 2, "0.5", (2, 3, 4), 2, ("relu6", "silu")),
    Case(12, 5, 3, "0.33", (1, 1, 3), 1, ("silu", "relu"), NAMES[3:4]),
    Case(7, 13, 7, "0", (1, 5, 1), 2, ("relu", "relu6"), NAMES[5:6]),
    Case(6, 6, 1, "0.9", (2, 2, 2), 1, (None, None), ()),
    Case(12, 17, 3, "0.33", (2, 3, 4), 2, ("relu6", "silu"), order="blocked"),
)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_layers_one_after_the_other(case, layout):
    torch.manual_seed(0)
    tensors, grad = case.tensors("cpu", torch.float64, layout)
    exact = results(tensors, grad, case.spec, torch.float64)
    torch.testing.assert_close(reference.forward(*tensors, case.spec), exact["y"])
    gradients = reference.backward(grad, *tensors, case.spec)
    for name, gradient in zip(NAMES, gradients, strict=True):
        if name in exact:
            torch.testing.assert_close(gradient, exact[name], msg=name)
        else:
            assert gradient is None, name


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
def test_slopes_are_those_of_autograd_at_the_kinks_too(activation):
    x = torch.tensor([-7.0, -0.5, 0.0, 0.5, 5.0, 6.0, 7.0], requires_grad=True)
    reference.activate(x, activation).sum().backward()
    slope = reference.slope(x.detach(), activation) * torch.ones(7)
    torch.testing.assert_close(slope, x.grad)


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


def test_unknown_options_raise():
    windows = windows_of(6, 5, 2, 0.5)
    with pytest.raises(KernelError, match="stride out of range: got 0; allowed: 1 or 2"):
        FusedSpec(windows, 0)
    with pytest.raises(KernelError, match="unknown activation1: got 'tanh'; allowed: None, relu"):
        FusedSpec(windows, 1, "tanh")
