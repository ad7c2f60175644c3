"""The direct kernel, under Triton's interpreter or on a card."""

import pytest
import torch

from ifspace.bench.case import LayerCase
from ifspace.bench.direct import direct
from ifspace.bench.gate import layer_inputs
from ifspace.bench.rows import LAYOUTS
from ifspace.kernels.rpw import reference


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", [(4, "0.33"), (2, "1/2")])
def test_it_is_the_layer(window: tuple[int, str], layout: str, device: torch.device) -> None:
    case = LayerCase(3, 12, 5, *window, layout)
    given = layer_inputs(case, device)
    found = direct(case, device).forward(given.x, *given.weights)
    exact = given.to(torch.float64)
    wanted = reference.forward(exact.x, exact.weights[0], None, case.windows)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert found.stride() == given.x.stride()
