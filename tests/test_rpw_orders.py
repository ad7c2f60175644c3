"""The two orders of RPW: what each reads, the two laws, and what an overlap does to the field.

The witnesses are `witness.channels_read`, written from the definition, and autograd on the block in
plain torch.
"""

from math import gcd

import pytest
import torch
from sympy import Integer
from torch import nn
from witness import autograd_field, channels_read, divisors, reach_by_sets

from ifspace.block import Block, SizedBlock
from ifspace.infofield import coverage, coverage_expr, full_field_condition
from ifspace.nn.layers import layer_module
from ifspace.reach import channel_field, channel_reach

# IF^c of (DW+RPW(8,o))x2 at C = 64, and of (DW+RPW(2,1/2))x2: block, rolling, blocked.
PUBLISHED = [
    ("(DW+RPW(8,0{}))x2", 64, 8),
    ("(DW+RPW(8,0.33{}))x2", 50, 26),
    ("(DW+RPW(8,0.5{}))x2", 36, 12),
    ("(DW+RPW(8,0.75{}))x2", 22, 14),
    ("(DW+RPW(2,1/2{}))x2", 64, 48),
]


def both_orders(text: str) -> tuple[SizedBlock, SizedBlock]:
    rolling, blocked = Block.parse(text.format("")), Block.parse(text.format(",blocked"))
    return rolling.at(64), blocked.at(64)


@pytest.mark.parametrize(("text", "rolling", "blocked"), PUBLISHED)
def test_overlap_narrows_the_rolling_field_and_can_widen_the_blocked_one(
    text: str, rolling: int, blocked: int
) -> None:
    sized = both_orders(text)
    assert [channel_field(block.layers) for block in sized] == [rolling, blocked]
    assert [coverage(block.layers) for block in sized] == [rolling, blocked]
    # One layer costs the same in both orders.
    assert sized[0].params == sized[1].params
    assert sized[0].macs_per_pixel() == sized[1].macs_per_pixel()


@pytest.mark.slow
@pytest.mark.parametrize(("text", "rolling", "blocked"), PUBLISHED)
def test_the_fields_of_both_orders_by_autograd(text: str, rolling: int, blocked: int) -> None:
    for sized, field in zip(both_orders(text), (rolling, blocked), strict=True):
        seen, side = autograd_field(sized)
        assert (min(map(len, seen)), side) == (field, 5)
        assert seen == reach_by_sets(sized.layers)


def wiring(text: str, c_in: int, c_out: int) -> list[list[int]]:
    """The channels that each output reads, in the order of its weights, shuffles contracted."""
    read = [[channel] for channel in range(c_in)]
    for layer in Block.parse(text).at(c_in, c_out).layers:
        assert layer.reads().tolist() == channels_read(layer)
        read = [[channel for i in row for channel in read[i]] for row in layer.reads().tolist()]
    return read


@pytest.mark.parametrize("c_in", [*range(2, 41), 48, 60, 64, 96, 128])
def test_without_overlap_rpw_is_gpw_with_or_without_a_shuffle(c_in: int) -> None:
    for c_out in (c_in, 2 * c_in, 3 * c_in, c_in // 2 or 1):
        for g in divisors(gcd(c_in, c_out)):
            grouped = wiring(f"GPW({g})", c_in, c_out)
            assert wiring(f"RPW({g},0,blocked)", c_in, c_out) == grouped
            # The shuffle behind it, at the width of its output.
            (shuffle,) = Block.parse(f"SH({g})").at(c_out).layers
            shuffled = [grouped[j] for (j,) in shuffle.reads().tolist()]
            assert wiring(f"RPW({g},0)", c_in, c_out) == shuffled
            if c_in == c_out:
                assert wiring(f"GPW({g})+SH({g})", c_in, c_out) == shuffled


@pytest.mark.slow
@pytest.mark.parametrize("g", [2, 3, 4, 6])
def test_without_overlap_rpw_is_gpw_by_autograd(g: int) -> None:
    for text, same in (("RPW({},0)", "GPW({})+SH({})"), ("RPW({},0,blocked)", "GPW({})")):
        # Between layers that tell channels apart.
        first, second = (
            Block.parse(f"GPW(4)+DW+{part.format(g, g)}+GPW(3)").at(12) for part in (text, same)
        )
        assert autograd_field(first) == autograd_field(second)
        assert channel_reach(first.layers) == channel_reach(second.layers)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "rolling", "blocked"), PUBLISHED)
def test_the_modules_see_the_fields_of_both_orders(text: str, rolling: int, blocked: int) -> None:
    for sized, field in zip(both_orders(text), (rolling, blocked), strict=True):
        module = nn.Sequential(*(layer_module(layer) for layer in sized.layers)).double()
        for parameter in module.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
        seen, side = autograd_field(sized, module)
        assert (min(map(len, seen)), side) == (field, 5)
        assert seen == reach_by_sets(sized.layers)


@pytest.mark.parametrize(("c_in", "c_out", "g"), [(12, 12, 3), (12, 24, 4), (24, 12, 6)])
def test_without_overlap_the_modules_compute_what_gpw_does(c_in: int, c_out: int, g: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, c_in, 3, 3, dtype=torch.float64)
    (grouped,) = Block.parse(f"GPW({g})").at(c_in, c_out).layers
    (shuffle,) = Block.parse(f"SH({g})").at(c_out).layers
    grouped_module = layer_module(grouped).double()
    dealt = shuffle.reads()[:, 0].tolist()
    for order, index in (("", dealt), (",blocked", list(range(c_out)))):
        (layer,) = Block.parse(f"RPW({g},0{order})").at(c_in, c_out).layers
        module = layer_module(layer).double()
        with torch.no_grad():
            # The weights of the filters, [C_out, w], in the order in which filters read groups.
            module.weight.copy_(grouped_module.weight.reshape(c_out, -1)[index])
            expected = grouped_module(x)[:, index]
            assert torch.allclose(module(x), expected, rtol=1e-12, atol=1e-12)


def test_formulas_follow_the_orders_of_a_block() -> None:
    rolling, blocked = (Block.parse(f"DW+RPW(8,1/2{order})+RPW(8,0)") for order in ("", ",blocked"))
    assert str(coverage_expr(rolling)) == "Min(C, s_1*(w_2 - 1) + w_1)"
    assert str(coverage_expr(blocked)) == "Min(C, s_1*floor(P_1*(w_2 - 1)/C) + w_1)"
    assert coverage_expr(rolling.composition) == coverage_expr(rolling)
    condition = "C <= s_1*floor(P_1*(w_2 - 1)/C) + w_1"
    assert str(full_field_condition(blocked)) == condition
    # w = 8, s = 4, P = 16: 7 filters on, the window lies floor(7 x 16 / 64) x 4 channels on.
    values = {"C": 64, "w_1": 8, "w_2": 8, "s_1": 4, "P_1": 16}

    def at_values(block: Block) -> int:
        formula = coverage_expr(block)
        return formula.xreplace({x: Integer(values[str(x)]) for x in formula.free_symbols})

    assert at_values(blocked) == channel_field(blocked.at(64).layers) == 12
    assert at_values(rolling) == channel_field(rolling.at(64).layers) == 36
