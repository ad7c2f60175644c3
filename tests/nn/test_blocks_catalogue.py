"""Every design of the catalogue at one small width, as a module: field, parameters, MACs, shapes.

The witnesses are `witness.py`'s: plain sets, plain torch, gradients of centre pixels, hooks.
"""

from functools import cache

import pytest
import sympy
import torch
import witness

from ifspace.block import SizedBlock
from ifspace.catalogue import Design
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.kinds import C, F
from ifspace.nn import PLAIN, BlockModule, Style, build
from ifspace.reach import channel_reach, field_after

pytestmark = pytest.mark.usefixtures("one_thread")
CHANNELS = 8
LINEAR = Style(activation=None)


@cache
def designs(channels: int = CHANNELS, max_len: int = 6) -> tuple[Design, ...]:
    setting = EnumerationSetting(channels=channels, max_len=max_len)
    return enumerate_designs([setting], jobs=1).designs


def sized(design: Design) -> SizedBlock:
    return design.block.at(design.channels)


def positive(module: BlockModule) -> BlockModule:
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return module.eval()


def check_field(design: Design, style: Style) -> None:
    block = sized(design)
    module = positive(build(block, style=style, dtype=torch.float64))
    seen, side = witness.autograd_field(block, module)
    exact = [
        {j for j in range(design.channels) if bits >> j & 1} for bits in channel_reach(block.layers)
    ]
    assert seen == exact, design.block
    smallest = min(map(len, seen))
    assert (side, smallest) == field_after(block)[-1] == tuple(design.field), design.block


def test_all_designs_are_tested():
    assert len(designs()) == 812
    assert [sum(design.layers == n for design in designs()) for n in (2, 3, 4)] == [5, 17, 71]


@pytest.mark.slow
@pytest.mark.parametrize("style", [PLAIN, LINEAR], ids=["plain", "batch-norm"])
def test_the_field_by_autograd_is_the_exact_field(style):
    for design in designs(max_len=6 if style == LINEAR else 4):
        check_field(design, style)


@pytest.mark.slow
def test_the_field_where_groups_do_not_nest():
    for design in designs(12, max_len=4):
        check_field(design, LINEAR)


@pytest.mark.slow
def test_parameters_are_those_of_the_formula():
    for design in (*designs(), *designs(12, max_len=4)):
        block = sized(design)
        values = {C: design.channels, F: design.channels} | {
            sympy.Symbol(f"g_{n}", integer=True, positive=True): layer.groups
            for n, layer in enumerate((x for x in block.layers if x.conv.takes_groups), start=1)
        }
        counted = sum(p.numel() for p in build(block).parameters())
        formula = block.block.params_formula(kernel=3).subs(values)
        assert counted == design.params == formula, design.block


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_macs_and_activations_by_hooks(stride):
    for design in designs():
        block = sized(design)
        module = build(block, stride=stride, dtype=torch.float64)
        macs, written, pixels = witness.count_by_hooks(block, 8, stride, module)
        assert pixels == (8 // stride) ** 2
        assert macs == block.macs_per_pixel(stride) * pixels, design.block
        assert written == block.activations_per_pixel(stride) * pixels, design.block


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_designs_compute_their_layers_and_have_the_shape_of_a_convolution(stride):
    x = torch.randn(2, CHANNELS, 7, 6, dtype=torch.float64)
    convolution = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, stride, 1, dtype=torch.float64)
    for design in designs():
        module = build(sized(design), stride=stride, dtype=torch.float64)
        plain = witness.build_torch_block(sized(design), stride)
        for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True):
            theirs.data = mine.data.reshape(theirs.shape)
        y = module(x)
        assert y.shape == convolution(x).shape, design.block
        torch.testing.assert_close(y, plain(x), msg=lambda text, d=design: f"{d.block}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"out_channels": 16},
        {"bottleneck": "1/2", "max_len": 4},
        {"stride": 2},
        {"dims": 1},
        {"repeats": 2},
        {"kernel": 5},
    ],
    ids=str,
)
def test_a_design_is_built_with_its_counts(arguments):
    setting = EnumerationSetting(**{"channels": CHANNELS, "max_len": 3} | arguments)
    all_designs = enumerate_designs([setting], jobs=1).designs
    assert all_designs
    for design in all_designs:
        module = build(design, style="fog", device="meta")
        assert module.sized.block == design.block
        assert module.sized.params == design.params
        assert module.sized.macs_per_pixel(design.stride) == design.macs_per_pixel
        assert (module.stride, module.sized.dims) == (design.stride, design.dims)
        y = module(torch.empty(2, CHANNELS, *[8] * design.dims, device="meta"))
        assert y.shape == (2, design.out_channels, *[8 // design.stride] * design.dims)


def test_a_design_has_its_widths_and_takes_a_stride():
    design = designs()[0]
    assert build(design, stride=2).stride == 2
    with pytest.raises(SettingError, match=r"^widths given twice: got .*, which has widths"):
        build(design, 16)
    assert build(design.block, 16).sized.channels == 16
