"""The source of a block: it runs alone, computes the same, and is formatted."""

import ast
import subprocess
import sys

import pytest
import torch
import witness
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ifspace.block import Block
from ifspace.errors import BlockError, SettingError
from ifspace.nn import FOG, MOBILENET, PLAIN, Style, build, to_source

pytestmark = pytest.mark.usefixtures("one_thread")
STYLES = (
    PLAIN,
    FOG,
    MOBILENET,
    Style(activation="relu6", shortcut="projection", bias=True),
    Style(activation="hardswish", where="between", shortcut="auto"),
    Style(activation="silu", where="end", batch_norm=False),
    Style(activation=None, bias=True, batch_norm_where="between", bias_where="last"),
    Style(shortcut="projection", bias=True, batch_norm_where="between", bias_where="last"),
)
LONG = "+".join(["GC(16,k=11)", *["RPW(1024,7919/9973)"] * 9, "SH(512)", *["GPW(256)"] * 5])


def pasted(source: str, name: str = "Block") -> nn.Module:
    scope = {"__name__": "pasted"}
    exec(compile(source, "pasted", "exec"), scope)
    return scope[name]()


def imports(source: str) -> set[str]:
    return {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}


def test_the_source_of_a_block():
    source = to_source(build("DW+GPW(8)+SH(8)+GPW(8)", 64, 128, stride=2, style=FOG), "Unit")
    assert (
        source
        == '''\
from torch import Tensor, nn


class Unit(nn.Module):
    """DW+GPW(8)+SH(8)+GPW(8), 64 to 128 channels, stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0 = nn.Conv2d(64, 64, 3, stride=2, padding=1, groups=64, bias=False)
        self.layer0_bn = nn.BatchNorm2d(64)
        self.layer1 = nn.Conv2d(64, 64, 1, groups=8, bias=False)
        self.layer1_bn = nn.BatchNorm2d(64)
        self.layer2 = nn.ChannelShuffle(8)
        self.layer3 = nn.Conv2d(64, 128, 1, groups=8, bias=False)
        self.layer3_bn = nn.BatchNorm2d(128)
        self.shortcut = nn.Conv2d(64, 128, 1, stride=2, bias=False)
        self.shortcut_bn = nn.BatchNorm2d(128)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer0(x)
        y = self.layer0_bn(y)
        y = self.layer1(y)
        y = self.layer1_bn(y)
        y = self.layer2(y)
        y = self.layer3(y)
        y = self.layer3_bn(y)
        x = self.shortcut(x)
        x = self.shortcut_bn(x)
        y = y + x
        return self.act(y)
'''
    )


@pytest.mark.slow
@given(witness.blocks(12), st.sampled_from(STYLES), st.sampled_from([1, 2]), st.booleans())
def test_a_pasted_block_computes_the_same(block: Block, style: Style, dims: int, wider: bool):
    mixes = any(layer.conv.mixing for layer in block.layers)
    stride = 2 if any(layer.conv.spatial for layer in block.layers) and wider else 1
    sized = block.at(12, 24 if mixes and wider else 12, dims=dims)
    module = build(sized, stride=stride, style=style)
    x = torch.randn(2, 12, *[5, 6][:dims])
    module(x)  # moves the statistics
    source = to_source(module)
    other = pasted(source)
    assert list(other.state_dict()) == list(module.state_dict())
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other.eval()(x), module.eval()(x), rtol=1e-4, atol=1e-5)
    overlaps = any(layer.step < layer.fan_in for layer in sized.layers if layer.layer.overlap)
    assert imports(source) == {"torch"} | ({"ifspace.nn"} if overlaps else set())


# Without overlap in rolling order; one group; blocked; a bias and 1-D; both; a tiny overlap.
ALONE = [
    ("DW+RPW(4,0)+RPW(8,0)", 2, FOG),
    ("RPW(1,0)+PW", 2, PLAIN),
    ("DW+RPW(4,0,blocked)+GPW(2)", 2, MOBILENET),
    ("RPW(4,0)+DW+RPW(2,0,blocked)", 1, Style(bias=True)),
    ("RPW(8,0.01)", 2, PLAIN),
]
RUN_ALONE = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "ifspace":
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import torch
from pasted import Block
state, x, y = torch.load("state.pt")
block = Block()
before = {name: tensor.shape for name, tensor in block.state_dict().items()}
block.load_state_dict(state)
assert before == {name: tensor.shape for name, tensor in block.state_dict().items()}
torch.testing.assert_close(block.eval()(x), y, rtol=1e-4, atol=1e-5)
again = Block()
again.load_state_dict(block.state_dict())
torch.testing.assert_close(again.eval()(x), y, rtol=1e-4, atol=1e-5)
try:
    import ifspace
except ImportError:
    print("alone")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("text", "dims", "style"), ALONE)
def test_a_block_without_overlap_runs_where_ifspace_is_not(tmp_path, text, dims, style):
    torch.manual_seed(0)
    module = build(Block.parse(text).at(16, 24 if "PW" in text else 16, dims=dims), style=style)
    x = torch.randn(2, 16, *[5, 6][:dims])
    module(x)  # moves the statistics
    (tmp_path / "pasted.py").write_text(to_source(module))
    torch.save((module.state_dict(), x, module.eval()(x).detach()), tmp_path / "state.pt")
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALONE], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "alone\n", done.stderr


def test_the_source_of_rolling_layers_without_overlap(snapshot):
    source = to_source(build("DW+RPW(4,0)+RPW(2,0,blocked)", 16, 32, style=FOG))
    assert source == snapshot
    assert imports(source) == {"torch"}


def test_an_order_with_an_overlap_is_written():
    module = build("RPW(4,1/2,blocked)", 16)
    source = to_source(module)
    assert '16, 16, groups=4, overlap="1/2", order="blocked", bias=False\n' in source
    assert pasted(source).layer0.order == "blocked"


def test_an_implementation_that_was_chosen_is_written():
    module = build("RPW(4,1/3)", 16)
    module.layer0.impl = "reference"
    assert '16, 16, groups=4, overlap="1/3", bias=False, impl="reference"\n' in to_source(module)
    assert pasted(to_source(module)).layer0.impl == "reference"


def test_the_source_is_formatted(tmp_path):
    sources = [
        to_source(build(Block.parse(text).at(16, dims=dims), style=style))
        for text in ("CONV", "DW(5)+RPW(4,1/3)+RPW(4,0)+RPW(2,0,blocked)", "PW+GC(4)+SH(2)")
        for dims in (1, 2)
        for style in STYLES
    ]
    sources.append(to_source(build(LONG, 4096, style=Style(bias=True), device="meta"), "A" * 40))
    for number, source in enumerate(sources):
        assert max(map(len, source.splitlines())) <= 100
        (tmp_path / f"block{number}.py").write_text(source)
    for command in (["format", "--check", "--diff"], ["check", "--select=E,F,I,D2,D3,UP,W"]):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "ruff",
                *command,
                "--isolated",
                "--line-length=100",
                "--no-cache",
                ".",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["", "2x", "a b", "class", "X;import os"])
def test_an_invalid_class_name_raises(name):
    with pytest.raises(SettingError, match=r"not the name of a class: got '.*'; allowed: letters"):
        to_source(build("DW", 8), name)


def test_a_replaced_module_without_source_raises():
    module = build("DW+PW", 8)
    module.layer1 = nn.Linear(8, 8)
    with pytest.raises(BlockError, match=r"no source for this module: got Linear; allowed: .*ReLU"):
        to_source(module)


def test_only_a_block_has_a_source():
    with pytest.raises(SettingError, match="wrong module: got Linear; allowed: a BlockModule"):
        to_source(nn.Linear(8, 8))
