"""One layer by compiled loops and its gradients, against a gather and an einsum in float64."""

import sys
import warnings
from itertools import product

import pytest
import rpw_exact
import torch
from torch import Tensor

from ifspace.kernels import chain
from ifspace.kernels.chain import engine
from ifspace.kernels.rpw import cpu
from ifspace.kernels.windows import Windows, windows_of

WINDOWS = [
    windows_of(*sizes, order=order)
    for sizes, order in (
        ((16, 16, 4, 0.5), "rolling"),
        ((16, 32, 4, 0), "rolling"),
        ((24, 48, 4, 0.33), "rolling"),  # a channel is read by 2 or 3 windows
        ((40, 7, 8, 0.9), "rolling"),  # fewer filters than windows: some channels are not read
        ((13, 11, 1, 0), "rolling"),
        ((12, 20, 12, 0), "rolling"),  # windows of one channel, not used equally often
        ((36, 108, 4, 0.33), "blocked"),
        ((8, 24, 8, 0), "blocked"),
        ((16, 16, 2, 0.5), "blocked"),
    )
]
SIZES = ((1, 1), (1, 7), (5, 3), (7, 7), (13, 17), (16, 16))


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
@pytest.mark.parametrize("images", [1, 3])
def test_a_layer_and_its_gradients(windows: Windows, images: int) -> None:
    weight = random(windows.out_channels, windows.width)
    bias = random(windows.out_channels, seed=2)
    for height, width in SIZES:
        x = random(images, windows.in_channels, height, width)
        grad = random(images, windows.out_channels, height, width, seed=2)
        rpw_exact.check("forward", windows, cpu.forward(x, weight, bias, windows), x, weight, bias)
        got = cpu.input_grad(grad, weight, windows)
        rpw_exact.check("input_grad", windows, got, grad, weight)
        rpw_exact.check("weight_grad", windows, cpu.weight_grad(grad, x, windows), grad, x)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_the_channels_that_read_it(value: float) -> None:
    for windows, channel in product(WINDOWS[:4], (0, 5)):
        x = torch.ones(1, windows.in_channels, 3, 7)
        x[0, channel, 1, 2] = value
        y = cpu.forward(x, torch.ones(windows.out_channels, windows.width), None, windows)
        reached = (~y.isfinite()).nonzero()
        readers = (rpw_exact.channels_of(windows) == channel).any(1).nonzero().flatten()
        assert reached[:, 1].tolist() == readers.tolist()
        assert bool((reached[:, 2:] == torch.tensor([1, 2])).all())


def test_without_numba_torch_computes_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("layer", "tiles", "loops"):
        monkeypatch.delitem(sys.modules, f"ifspace.kernels.chain.{name}", raising=False)
        monkeypatch.delattr(chain, name, raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    engine.fault.cache_clear()
    engine.layers.cache_clear()
    windows = WINDOWS[0]
    x, weight = random(2, 16, 5, 5), random(16, 4)
    try:
        with pytest.warns(UserWarning, match="numba does not work here") as notes:
            y = cpu.forward(x, weight, None, windows)
        assert len(notes) == 1
        rpw_exact.check("forward", windows, y, x, weight)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cpu.input_grad(y, weight, windows)
    finally:
        engine.fault.cache_clear()
        engine.layers.cache_clear()
