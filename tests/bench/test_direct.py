"""The direct kernel, under Triton's interpreter or on CUDA."""

import pytest
import torch

from ifspace.bench.case import LayerCase
from ifspace.bench.direct import direct
from ifspace.bench.gate import layer_inputs
from ifspace.kernels.rpw import reference
from ifspace.kernels.windows import ORDERS
from ifspace.measurements import LAYOUTS


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("window", [(4, "0.33"), (2, "1/2")])
def test_the_direct_kernel_computes_the_layer(
    window: tuple[int, str], order: str, layout: str, device: torch.device
) -> None:
    case = LayerCase(3, 12, 5, *window, layout, order=order)
    inputs = layer_inputs(case, device)
    y = direct(case, device).forward(inputs.x, *inputs.weights)
    exact = inputs.to(torch.float64)
    expected = reference.forward(exact.x, exact.weights[0], None, case.windows)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    assert y.stride() == inputs.x.stride()
