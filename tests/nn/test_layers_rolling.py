"""The rolling layers say in their own shapes what they refuse."""

import pytest
import torch

from ifspace.errors import KernelError
from ifspace.nn.layers import RollingPointwiseConv1d, RollingPointwiseConv2d

REFUSED = [
    (
        RollingPointwiseConv2d,
        (2, 32, 4, 4),
        r"input has the wrong number of channels: got \[2, 32, 4, 4\]; allowed: \[N, 64, H, W\];",
    ),
    (
        RollingPointwiseConv2d,
        (64, 4, 4),
        r"input is not 4-D: got \[64, 4, 4\]; allowed: \[N, 64, H, W\]; add the batch dimension",
    ),
    (
        RollingPointwiseConv1d,
        (2, 32, 4),
        r"input has the wrong number of channels: got \[2, 32, 4\]; allowed: \[N, 64, L\];",
    ),
    (
        RollingPointwiseConv1d,
        (2, 64, 4, 4),
        r"input is not 3-D: got \[2, 64, 4, 4\]; allowed: \[N, 64, L\];",
    ),
    (
        RollingPointwiseConv1d,
        (64, 4),
        r"input is not 3-D: got \[64, 4\]; allowed: \[N, 64, L\]; add the batch dimension",
    ),
]


@pytest.mark.parametrize(("module", "shape", "said"), REFUSED)
def test_an_input_that_does_not_fit_the_layer(module, shape, said):
    with pytest.raises(KernelError, match=said) as refusal:
        module(64, 128, groups=8)(torch.ones(shape))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("module", [RollingPointwiseConv2d, RollingPointwiseConv1d])
@pytest.mark.parametrize("given", [None, [[1.0]], 3])
def test_what_is_no_tensor(module, given):
    with pytest.raises(KernelError, match="x is no tensor: got"):
        module(8, 8)(given)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own
def test_forward_mode_and_torch_func_through_the_module():
    layer, x = RollingPointwiseConv2d(8, 6, groups=2, overlap=0.5).double(), torch.ones(1, 8, 2, 2)
    x = x.double()
    _, along = torch.func.jvp(layer, (x,), (x,))
    torch.testing.assert_close(along, layer(x) - layer(0 * x))
