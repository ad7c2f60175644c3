"""The step that replaces a convolution: its counts, and what it keeps."""

import json

import pytest
import torch
import witness
from hypothesis import given
from hypothesis import strategies as st
from small_networks import macs, params
from torch import nn

from ifspace.block import Block
from ifspace.errors import IfspaceError, SettingError
from ifspace.models.surgery import Replace
from ifspace.nn import FOG, MOBILENET, PLAIN, BlockModule, Style

pytestmark = pytest.mark.usefixtures("one_thread")
PLACED = Style(activation=None, bias=True, batch_norm_where="between", bias_where="last")
STYLES = (
    PLAIN,
    MOBILENET,
    FOG,
    PLACED,
    Style(batch_norm=False, bias=True, shortcut="projection"),
    Style(bias=True, bias_where="last", shortcut="projection", batch_norm_where="between"),
)


@pytest.mark.slow
@given(
    witness.blocks(12), st.sampled_from(STYLES), st.sampled_from([1, 2]), st.sampled_from([7, 8])
)
def test_counts_are_those_of_the_block_built(block: Block, style: Style, stride: int, side: int):
    mixes = any(layer.conv.mixing for layer in block.layers)
    stride = stride if any(layer.conv.spatial for layer in block.layers) else 1
    step = Replace("", block.at(12, 24 if mixes else 12), stride, style)
    module = BlockModule(step.sized, stride, style, device="meta")
    assert step.params == params(module)
    behind = -(-side // stride)
    counted = macs(module, (12, side, side))
    assert step.macs((side, side), (behind, behind)) == counted


def test_device_dtype_mode_and_names_are_kept():
    conv = nn.Conv2d(16, 32, 3, 2, 1, dtype=torch.float64, device="meta")
    model = nn.ModuleDict({"a": conv, "b": nn.Sequential(conv)}).eval()
    step = Replace("b.0", Block.parse("DW+RPW(2,1/2)").at(16, 32), 2, PLACED)
    step.apply(model)
    assert model["a"] is model["b"][0]
    assert not any(part.training for part in model.modules())
    assert {(parameter.dtype, parameter.device.type) for parameter in model.parameters()} == {
        (torch.float64, "meta")
    }
    assert model["a"].sized == step.sized
    assert (model["a"].stride, model["a"].style) == (2, PLACED)


@pytest.mark.parametrize(
    ("conv", "name", "message"),
    [
        (nn.Conv2d(16, 16, 3), "0", "a step that does not fit the network: got 0: Conv2d"),
        (nn.Conv2d(16, 32, 3), "0", "allowed: a convolution from 16 to 32 channels, stride 2"),
        (nn.Linear(16, 32), "0", "does not fit the network: got 0: Linear"),
        (nn.Linear(16, 32), "1", "no such module in the network: got '1'"),
        (nn.Linear(16, 32), "", "no such module in the network: got ''"),
    ],
)
def test_a_step_of_another_network_is_an_error(conv: nn.Module, name: str, message: str):
    with pytest.raises(SettingError, match=message) as raised:
        Replace(name, Block.parse("DW+PW").at(16, 32), 2).apply(nn.Sequential(conv))
    assert "\n" not in str(raised.value)


@given(witness.blocks(12), st.sampled_from(STYLES))
def test_a_step_survives_json(block: Block, style: Style):
    mixes = any(layer.conv.mixing for layer in block.layers)
    step = Replace("layer1.0", block.at(12, 24 if mixes else 12), 1, style)
    assert Replace.from_json(json.loads(json.dumps(step.to_json()))) == step


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("name"),
        lambda v: v.update(stride=0),
        lambda v: v.update(stride="1"),
        lambda v: v["style"].update(batch_norm=2),
        lambda v: v["style"].update(bias="no"),
        lambda v: v["style"].update(where="nowhere"),
        lambda v: v["style"].update(more=1),
        lambda v: v["block"].update(block="DW+XY"),
        lambda v: v["block"].update(channels=-1),
    ],
)
def test_malformed_json_of_a_step_is_an_error(change):
    values = Replace("0", Block.parse("DW+PW").at(16)).to_json()
    change(values)
    with pytest.raises((IfspaceError, KeyError, TypeError, ValueError), match=r"\w"):
        Replace.from_json(values)


def conv(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1)
