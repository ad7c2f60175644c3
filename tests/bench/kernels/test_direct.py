"""The direct kernel, under Triton's interpreter or on a card."""

import pytest
import torch

from ifspace.bench.kernels.cases import Case
from ifspace.bench.kernels.direct import direct
from ifspace.bench.kernels.gate import inputs
from ifspace.bench.rows import LAYOUTS
from ifspace.kernels.rpw import reference


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", [(4, "0.33"), (2, "1/2")])
def test_it_is_the_layer(window: tuple[int, str], layout: str, device: torch.device) -> None:
    case = Case(3, 12, 5, *window, layout)
    given = inputs(case, device)
    found = direct(case, device).forward(given.x, *given.weights)
    exact = given.to(torch.float64)
    wanted = reference.forward(exact.x, exact.weights[0], None, case.windows)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert found.stride() == given.x.stride()
