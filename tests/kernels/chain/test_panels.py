"""Pointwise layers of channels_last tensors without transposing, against float64."""

from collections.abc import Iterator
from itertools import product

import pytest
import rpw_exact
import torch
from torch import Tensor

from ifspace.kernels.chain import panels
from ifspace.kernels.chain.loops import HALF, LANES, MOST_PANEL
from ifspace.kernels.chain.panels import fits, fits_gradient
from ifspace.kernels.rpw import cpu
from ifspace.kernels.windows import Windows, windows_of

# Windows whose results take turns in twos, fours, eights, and squares of vectors; more vectors than
# a panel has; half vectors; blocked ones; one window of all channels.
WINDOWS = [
    windows_of(*sizes, order=order)
    for sizes, order in (
        ((16, 32, 2, 0), "rolling"),
        ((32, 64, 2, "1/2"), "rolling"),
        ((32, 128, 8, 0), "rolling"),
        ((48, 256, 16, 0), "rolling"),
        ((64, 512, 16, "1/2"), "rolling"),
        ((48, 192, 2, 0), "rolling"),
        ((48, 128, 2, "1/2"), "blocked"),
        ((80, 112, 1, 0), "rolling"),
    )
]
# Numbers of pixels about those of a panel and of a tile.
SHAPES = ((1, 2, 4), (1, 3, 3), (1, 5, 5), (3, 1, 17), (2, 13, 19))


def random(*shape: int, seed: int = 1) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Layers of all sizes; memory that torch has not been told to write is NaN."""
    monkeypatch.setattr(panels, "LEAST_MOVED", 0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def name(windows: Windows) -> str:
    sizes = windows.in_channels, windows.out_channels, windows.width, windows.step
    return "-".join(map(str, (*sizes, windows.order)))


@pytest.mark.parametrize("windows", WINDOWS, ids=name)
def test_a_layer_and_its_gradient_by_the_input(windows: Windows) -> None:
    weight, bias = random(windows.out_channels, windows.width), random(windows.out_channels, seed=2)
    for n, height, width in SHAPES:
        x = random(n, windows.in_channels, height, width)
        grad = random(n, windows.out_channels, height, width, seed=3)
        assert fits(x, cpu.stage_of(windows))
        assert fits_gradient(grad, cpu.stage_of(windows)) == (windows.step % HALF == 0)
        for added in (None, bias):
            y = cpu.forward(x, weight, added, windows, cpu.Plan(forward=cpu.COMPILED))
            rpw_exact.check("forward", windows, y, x, weight, added)
        got = cpu.input_grad(grad, weight, windows, cpu.Plan(input_grad=cpu.COMPILED))
        assert got.is_contiguous(memory_format=torch.channels_last)
        rpw_exact.check("input_grad", windows, got, grad, weight)


@pytest.mark.skipif(LANES != 16, reason="other windows fill vectors of 8")
def test_what_they_do_not_compute() -> None:
    def fit(*sizes: int | str, order: str = "rolling", shape=(1, 2, 4)) -> tuple[bool, bool]:
        windows, (n, height, width) = windows_of(*sizes, order=order), shape
        stage = cpu.stage_of(windows)
        x = random(n, windows.in_channels, height, width)
        grad = random(n, windows.out_channels, height, width)
        assert not fits(x.contiguous(), stage)
        assert not fits(x.double(), stage)
        return fits(x, stage), fits_gradient(grad, stage)

    assert fit(64, 64, 2, 0) == (True, True)
    assert fit(64, 64, 8, 0) == (False, True)  # 8 filters of a window: half a vector
    assert fit(64, 64, 16, 0) == (False, False)
    assert fit(64, 64, 2, 0.33) == (False, False)  # a step of 22
    assert fit(48, 96, 4, 0) == (False, False)  # 24 filters of a window, which has 12 channels
    assert fit(48, 144, 3, 0) == (False, True)  # three windows do not take turns in vectors
    assert fit(48, 144, 3, 0, order="blocked") == (True, True)
    assert fit(64, 64, 2, 0, shape=(1, 1, MOST_PANEL - 1)) == (False, False)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_where_it_is_read(value: float) -> None:
    for windows in WINDOWS[:2]:
        read, weight = (
            rpw_exact.channels_of(windows),
            torch.ones(windows.out_channels, windows.width),
        )
        x, grad = (
            torch.ones(1, channels, 3, 7).contiguous(memory_format=torch.channels_last)
            for channels in (windows.in_channels, windows.out_channels)
        )
        x[0, 5, 1, 2] = grad[0, 3, 2, 6] = value
        reached = (~cpu.forward(x, weight, None, windows).isfinite()).nonzero()
        readers = (read == 5).any(1).nonzero().flatten().tolist()
        assert reached.tolist() == [[0, reader, 1, 2] for reader in readers]
        reached = (~cpu.input_grad(grad, weight, windows).isfinite()).nonzero()
        assert reached.tolist() == [[0, channel, 2, 6] for channel in sorted(read[3].tolist())]


def test_the_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "SHARED_WORK", 0)
    before = torch.get_num_threads()
    try:
        for windows, images in product(WINDOWS[1:6:4], (1, 5)):
            x = random(images, windows.in_channels, 13, 9)
            weight = random(windows.out_channels, windows.width)
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                y = cpu.forward(x, weight, None, windows)
                results.append((y, cpu.input_grad(y, weight, windows)))
            for other in results[1:]:
                assert all(map(torch.equal, results[0], other))
    finally:
        torch.set_num_threads(before)
