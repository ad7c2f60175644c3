"""The plain reference against the tests' own plain torch."""

import pytest
import torch
from witness import build_torch_block

from ifspace.bench.gate import (
    copy_of,
    reference_of,
)
from ifspace.block import Block
from ifspace.nn import FOG, MOBILENET, build


@pytest.mark.parametrize(
    "text", ["CONV", "DW+PW", "GC(4)+SH(4)+GPW(2)", "DW(5)+RPW(4,1/2)+RPW(2,0.33)", "(DW+PW)x2"]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_reference_is_plain_torch(text: str, stride: int) -> None:
    sized = Block.parse(text).at(16, 32)
    module = build(sized, stride=stride, dtype=torch.float64)
    witness = build_torch_block(sized, stride)
    for ours, theirs in zip(module.parameters(), witness.parameters(), strict=True):
        theirs.data = ours.data.reshape(theirs.shape)
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(reference_of(module)(x), witness(x))


@pytest.mark.parametrize("style", [MOBILENET, FOG])
def test_a_style_is_kept(style) -> None:
    module = build("DW+RPW(16,0)+SH(4)+GPW(4)", 64, 32, stride=2, style=style).eval()
    x = torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(reference_of(module)(x), module(x), rtol=1e-4, atol=1e-5)


def test_a_copy_has_weights_of_its_own() -> None:
    module = build("DW+PW", 8)
    copied = copy_of(module)
    assert copied.sized is module.sized
    copied.layer0.weight.data.zero_()
    assert module.layer0.weight.abs().sum() > 0
    assert list(copied.state_dict()) == list(module.state_dict())
