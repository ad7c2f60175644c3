"""Modules of rolling pointwise layers in both orders: their laws, fields by autograd, and files."""

import copy
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import witness
from torch import nn

from ifspace.block import Block
from ifspace.errors import BlockError, KernelError
from ifspace.nn import (
    RollingPointwiseConv1d,
    RollingPointwiseConv2d,
    build,
    build_network,
    load,
    save,
)
from ifspace.reach import channel_field
from ifspace.stages.networks import fog

pytestmark = pytest.mark.usefixtures("one_thread")
# IF^c of (DW+RPW(8,o))x2 at C = 64: overlap, rolling, blocked (MATH section 1).
FIELDS = [("0", 64, 8), ("0.33", 50, 26), ("0.5", 36, 12), ("0.75", 22, 14)]


def positive(text: str, channels: int) -> nn.Module:
    """The module of a block in float64 with positive weights."""
    module = build(text, channels, dtype=torch.float64)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(("overlap", "rolling", "blocked"), FIELDS)
def test_fields_of_two_modules_in_a_row_are_those_of_autograd(overlap, rolling, blocked):
    for order, channels in (("", rolling), (",blocked", blocked)):
        text = f"(DW+RPW(8,{overlap}{order}))x2"
        sized = Block.parse(text).at(64)
        seen, side = witness.autograd_field(sized, positive(text, 64))
        assert (side, min(map(len, seen))) == (5, channels)
        assert seen == witness.reach_by_sets(sized.layers)
        assert channel_field(sized.layers) == channels


@pytest.mark.parametrize(("channels", "out_channels", "groups"), [(24, 24, 4), (15, 45, 5)])
@pytest.mark.parametrize("dims", [1, 2])
def test_modules_without_overlap_are_grouped_convolutions(channels, out_channels, groups, dims):
    x = torch.randn(2, channels, *[5, 4][:dims], dtype=torch.float64)
    rolling, blocked, grouped = (
        build(Block.parse(text).at(channels, out_channels, dims=dims), dtype=torch.float64).layer0
        for text in (f"RPW({groups},0)", f"RPW({groups},0,blocked)", f"GPW({groups})")
    )
    shuffle = nn.ChannelShuffle(groups)
    with torch.no_grad():
        # The same weights: filter j of the blocked layer is filter j of the convolution.
        grouped.weight.copy_(blocked.weight.reshape(grouped.weight.shape))
        torch.testing.assert_close(blocked(x), grouped(x), rtol=0, atol=1e-14)
        # Filter j of the rolling layer is filter j // g of group j mod g: the shuffle puts it at j.
        by_group = rolling.weight.unflatten(0, (-1, groups)).transpose(0, 1)
        grouped.weight.copy_(by_group.reshape(grouped.weight.shape))
        torch.testing.assert_close(rolling(x), shuffle(grouped(x)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("make", [RollingPointwiseConv1d, RollingPointwiseConv2d])
@pytest.mark.parametrize("overlap", [0, 0.33, Fraction(1, 2)])
def test_both_orders_have_the_same_parameters(make, overlap):
    rolling, blocked = (make(12, 18, 3, overlap, order=order) for order in ("rolling", "blocked"))
    with torch.no_grad():
        for ours, theirs in zip(blocked.parameters(), rolling.parameters(), strict=True):
            ours.copy_(theirs)
    assert (rolling.order, blocked.order) == ("rolling", "blocked")
    x = torch.randn(2, 12, *[5, 4][: 1 if make is RollingPointwiseConv1d else 2])
    assert not torch.equal(rolling(x), blocked(x))
    torch.testing.assert_close(copy.deepcopy(blocked)(x), blocked(x))
    assert str(blocked).endswith(f"groups=3, overlap={blocked.overlap}, order=blocked)")
    assert "order" not in str(rolling)


def test_a_built_layer_has_the_order_of_its_notation():
    module = build("RPW(2,1/2,blocked)+RPW(2,1/2)", 16)
    assert [module.layer0.order, module.layer1.order] == ["blocked", "rolling"]
    assert module.layer0.weight.shape == module.layer1.weight.shape == (16, 8)
    x = torch.randn(1, 16, 3, 3)
    plain = witness.build_torch_block(module.sized).float()
    for ours, theirs in zip((module.layer0, module.layer1), plain, strict=True):
        theirs.weight.data = ours.weight.data
    torch.testing.assert_close(module(x), plain(x))


def test_orders_that_do_not_exist_or_fit_raise():
    with pytest.raises(KernelError, match=r"unknown order: got 'both'; allowed: rolling, blocked"):
        RollingPointwiseConv2d(8, 8, 2, order="both")
    with pytest.raises(KernelError, match=r"fewer filters than windows: got 4 for 8 windows"):
        RollingPointwiseConv2d(8, 4, 2, 0.25, order="blocked")
    with pytest.raises(BlockError, match="more windows than filters"):
        build("RPW(2,1/4,blocked)", 8, 4)


def test_a_saved_network_keeps_the_order(tmp_path: Path):
    net = build_network(fog(32, "DW+RPW(2,1/2,blocked)+RPW(2,0)", 8, 1), seed=0).eval()
    save(net, tmp_path / "net.safetensors")
    back = load(tmp_path / "net.safetensors").eval()
    orders = [
        module.order for module in back.modules() if isinstance(module, RollingPointwiseConv2d)
    ]
    assert set(orders) == {"rolling", "blocked"}
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(back(x), net(x), rtol=0, atol=0)


def test_a_module_pickled_before_there_were_two_orders_rolls():
    module = RollingPointwiseConv2d(8, 8, 2, 0.5)
    x = torch.randn(1, 8, 3, 3)
    y = module(x)
    del module.order  # no attribute of such a module
    torch.testing.assert_close(module(x), y)
    assert "order" not in str(module)
