"""Counters of operations count a block with RPW in it as its block counts itself."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ifspace.kernels import flops
from ifspace.kernels.rpw import operator as ops
from ifspace.nn import build, thop_operators

# fvcore scripts a function and traces the model; thop reads versions as one used to. Both do so, in
# part, when they are imported: the tests import them.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:distutils Version classes:DeprecationWarning"),
]

# What a block counts as a pixel and a number: MACs per output pixel, by hand.
BLOCKS = [
    ("RPW(4,1/2)", 1, 16 * 4),
    ("DW+RPW(4,1/2)+SH(4)+GPW(8)", 1, 9 * 16 + 16 * 4 + 16 * 2),
    ("RPW(2,0.33)+DW+RPW(8,0)", 2, 4 * 16 * 8 + 9 * 16 + 16 * 2),
]
N, SIDE = 3, 8


def problem(text: str, stride: int) -> tuple[torch.nn.Module, torch.Tensor]:
    return build(text, 16, stride=stride).eval(), torch.randn(N, 16, SIDE, SIDE)


def macs(per_pixel: int, stride: int) -> int:
    return N * (SIDE // stride) ** 2 * per_pixel


@pytest.mark.parametrize(("text", "stride", "per_pixel"), BLOCKS)
def test_torch_counts_the_forward_pass(text, stride, per_pixel):
    module, x = problem(text, stride)
    assert module.sized.macs_per_pixel(stride) == per_pixel
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert counter.get_total_flops() == 2 * macs(per_pixel, stride)


@pytest.mark.parametrize(("needed", "passes"), [((0,), 1), ((1,), 1), ((2,), 0), ((0, 1, 2), 2)])
def test_torch_counts_the_backward_pass_by_the_needed_gradients(needed, passes):
    tensors = [torch.randn(N, 16, 4, 4), torch.randn(24, 4), torch.randn(24)]
    for n in needed:
        tensors[n].requires_grad_()
    y = ops.rpw(*tensors, 2, "reference")
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == passes * 2 * N * 4 * 4 * 24 * 4


@pytest.mark.parametrize(("text", "stride", "per_pixel"), BLOCKS)
def test_fvcore_counts_with_our_handle(text, stride, per_pixel):
    from fvcore.nn import FlopCountAnalysis

    module, x = problem(text, stride)
    counted = FlopCountAnalysis(module, x).set_op_handle(**flops.fvcore_handles())
    assert counted.total() == macs(per_pixel, stride)
    assert counted.unsupported_ops().keys() <= {"aten::channel_shuffle"}


def test_fvcore_without_our_handle_counts_nothing_and_reports_it():
    from fvcore.nn import FlopCountAnalysis

    module, x = problem("RPW(4,1/2)", 1)
    counted = FlopCountAnalysis(module, x).unsupported_ops_warnings(False)
    assert counted.total() == 0
    assert counted.unsupported_ops() == {"ifspace::rpw": 1}


@pytest.mark.parametrize(("text", "stride", "per_pixel"), BLOCKS)
def test_thop_counts_a_block_with_the_operators_of_all_layers(text, stride, per_pixel):
    import thop

    module, x = problem(text, stride)
    counted, params = thop.profile(module, (x,), custom_ops=thop_operators(), verbose=False)
    assert (counted, params) == (macs(per_pixel, stride), module.sized.params)
