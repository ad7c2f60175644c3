"""The readable fused block against torch's own operators, autograd and finite differences."""

import pytest
import torch
from dw_rpw_exact import NAMES, Case, results

from ifspace.kernels.fused import reference as dw_rpw_reference

CASES = (
    Case(8, 6, 2, "0.5", (2, 3, 4), 2, ("relu6", "silu")),
    Case(12, 5, 3, "0.33", (1, 1, 3), 1, ("silu", "relu"), NAMES[3:4]),
    Case(7, 13, 7, "0", (1, 5, 1), 2, ("relu", "relu6"), NAMES[5:6]),
    Case(6, 6, 1, "0.9", (2, 2, 2), 1, (None, None), ()),
)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_layers_one_after_the_other(case, layout):
    torch.manual_seed(0)
    tensors, grad = case.tensors("cpu", torch.float64, layout)
    exact = results(tensors, grad, case.spec, torch.float64)
    torch.testing.assert_close(dw_rpw_reference.forward(*tensors, case.spec), exact["y"])
    found = dw_rpw_reference.backward(grad, *tensors, case.spec)
    for name, gradient in zip(NAMES, found, strict=True):
        if name in exact:
            torch.testing.assert_close(gradient, exact[name], msg=name)
        else:
            assert gradient is None, name


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
def test_slopes_are_those_of_autograd_at_the_kinks_too(activation):
    x = torch.tensor([-7.0, -0.5, 0.0, 0.5, 5.0, 6.0, 7.0], requires_grad=True)
    dw_rpw_reference.activate(x, activation).sum().backward()
    slope = dw_rpw_reference.slope(x.detach(), activation) * torch.ones(7)
    torch.testing.assert_close(slope, x.grad)
