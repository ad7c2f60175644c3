"""Operators through which every place sees all others: noted, and what is behind them counted."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ifspace.models.analyze import analyze
from ifspace.models.trace import trace

IMAGE = (3, 16, 16)


class Mixing(nn.Module):
    """Two convolutions with an operator between them, and a third beside it."""

    def __init__(self, operator: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 16, 3, padding=1)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.inner(self.mixed(x)))

    def mixed(self, x: Tensor) -> Tensor:
        if self.operator == "fft":
            return torch.fft.ifft2(torch.fft.fft2(x)).real
        if self.operator == "argmax":
            return nn.functional.one_hot(x.argmax(1), 16).permute(0, 3, 1, 2).to(x.dtype)
        return getattr(x.flatten(2), self.operator)(-1).view_as(x)


@pytest.mark.parametrize("operator", ["fft", "argmax", "softmax", "cumsum", "log_softmax"])
def test_every_place_sees_all_others_behind_it(operator: str) -> None:
    model = Mixing(operator).eval()
    found = trace(model, IMAGE)
    assert [layer.name for layer in found.layers] == ["first", "inner", "last"]
    with FlopCounterMode(display=False) as counted:
        model(torch.zeros(1, *IMAGE))
    assert 2 * found.macs == counted.get_total_flops()
    assert any("as if every place saw all others" in note for note in found.notes)
    inner = next(each for each in analyze(model, IMAGE).layers if each.layer.name == "inner")
    assert (inner.field.side, inner.field.channels) == ((16, 16), 3)
