"""Wider networks: where new channels stand, and that they compute what they did."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from models.narrow_networks import CutByNumber, every_way
from torch import Tensor, nn
from torchvision.models.shufflenetv2 import InvertedResidual as Shuffled

import ifspace.models as m
from ifspace.errors import SettingError
from ifspace.models.widening import Widen
from ifspace.nn import build

IMAGE = (3, 16, 16)
EVERYTHING = m.Budgets(params="400%", macs="400%")


def widened(model: nn.Module, budgets: m.Budgets = EVERYTHING, **options: Any) -> m.NarrowedNetwork:
    """Return a network of twice the channels where it can, checked against its plan."""
    big = m.narrow(model, IMAGE, budgets, widen=2, **options)
    graph, x = m.trace(big.model, IMAGE), torch.randn(2, *IMAGE)
    assert (graph.params, graph.macs) == (big.plan.after["params"], big.plan.after["macs"])
    assert graph.params == sum(tensor.numel() for tensor in big.model.parameters())
    assert all(width.after in (width.before, 2 * width.before) for width in big.plan.widths)
    with torch.no_grad():
        torch.testing.assert_close(big.model.eval()(x), model.eval()(x), rtol=1e-5, atol=1e-6)
    return big


@pytest.fixture(scope="module")
def big() -> m.NarrowedNetwork:
    return widened(every_way(), objective="most-params")


def test_channels_are_added_in_every_way_that_they_hang_together(big: m.NarrowedNetwork) -> None:
    assert all(width.after == 2 * width.before for width in big.plan.widths)
    assert len(big.plan.widths) == 11


@pytest.mark.slow
def test_it_trains_and_is_saved_loaded_and_exported(big: m.NarrowedNetwork, tmp_path: Path) -> None:
    assert m.Edits.from_json(json.loads(json.dumps(big.edits.to_json()))) == big.edits
    assert isinstance(big.edits.steps[-1], Widen)
    x = torch.randn(2, *IMAGE)
    expected = big.model(x).detach()
    m.save(big, tmp_path / "big.safetensors")
    loaded = m.load(tmp_path / "big.safetensors", into=every_way(seed=1)).eval()
    assert torch.equal(loaded(x), expected)
    m.save(big, tmp_path / "big.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "big.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-3, atol=1e-4)
    m.save(big, tmp_path / "big.py")  # it is checked there
    trained = deepcopy(big.model).train()
    filters = trained[3].body[0].weight
    assert len(filters.flatten(1).unique(dim=0)) == 64 == len(filters) // 2
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = trained(x).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    # Copies are no longer what they copied.
    assert len(filters.flatten(1).unique(dim=0)) > 120  # some never pass their ReLU
    with pytest.raises(SettingError, match="a step that does not fit the network"):
        big.edits.steps[-1].apply(nn.Sequential(nn.Conv2d(3, 4, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "DW+RPW(4,1/2)+GPW(4)",
        "RPW(4,0)+RPW(4,1/2)",
        "DW+RPW(4,1/3,blocked)",
        "GPW(4)+SH(4)+GPW(4)",
    ],
)
def test_windows_groups_and_shuffles_of_blocks_are_widened(text: str) -> None:
    torch.manual_seed(0)
    parts = [build(text, 48), build(text, 48)]
    model = nn.Sequential(nn.Conv2d(3, 48, 1), *parts, nn.Conv2d(48, 4, 1))
    big = widened(model, objective="most-params", multiple=4)
    assert str(big.model[1].sized.block) == text
    assert big.model[1].sized.channels == 96


class Normed(nn.Module):
    """A residual branch as ConvNeXt's, and one with a norm of all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.norm, self.grow, self.shrink = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.inner, self.together = nn.Conv2d(16, 24, 1), nn.GroupNorm(1, 24)
        self.leave = nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        x = x + self.shrink(self.grow(y).relu()).permute(0, 3, 1, 2)
        return self.leave(self.together(self.inner(x)).relu())


def test_what_a_norm_puts_together_gets_no_channels() -> None:
    plan = widened(Normed(), objective="most-params").plan
    assert {width.name: width.after / width.before for width in plan.widths} == {
        "stem": 1,
        "inner": 1,
        "grow": 2,
    }
    with pytest.raises(
        SettingError, match=r"no factor to widen by: got 0\.5; allowed: numbers from 1"
    ):
        m.narrow(Normed(), IMAGE, EVERYTHING, widen=0.5)


def test_a_number_of_channels_in_the_code_stays() -> None:
    plan = widened(CutByNumber(), objective="most-params").plan
    assert {width.name: width.after for width in plan.widths}["inner"] == 128


@pytest.mark.slow
def test_halves_that_are_shuffled_again_and_again() -> None:
    units = [Shuffled(16, 32, 2), Shuffled(32, 32, 1), Shuffled(32, 32, 1)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3), *units, nn.Conv2d(32, 4, 1))
    plan = widened(model, objective="most-params").plan
    assert all(width.after == 2 * width.before for width in plan.widths)


def test_wider_and_narrower_layers_at_the_same_budgets() -> None:
    budgets = m.Budgets(params="100%", macs="100%")
    plan = m.narrow(every_way(), IMAGE, budgets, widen=1.5).plan
    assert any(width.before < width.after for width in plan.widths)
    assert any(width.after < width.before for width in plan.widths)
    best = plan.answer.best
    assert best is not None
    assert best.objective() > best.problem.value(best.problem.present)
    for amount in ("params", "macs"):
        assert plan.after[amount] <= plan.before[amount]
