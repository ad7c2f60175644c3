"""One layer by compiled loops and its gradients, against a gather and an einsum in float64."""

import sys
import warnings
from collections.abc import Iterator
from itertools import product

import pytest
import rpw_exact
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from ifspace.kernels import chain
from ifspace.kernels.chain import engine, layer
from ifspace.kernels.chain.stages import Stage
from ifspace.kernels.rpw import cpu
from ifspace.kernels.thin import explain_thin_conv2d
from ifspace.kernels.windows import ORDERS, Windows, windows_of

WINDOWS = [
    windows_of(*sizes, order=order)
    for sizes, order in (
        ((16, 16, 4, 0.5), "rolling"),
        ((16, 32, 4, 0), "rolling"),
        ((24, 48, 4, 0.33), "rolling"),  # a channel is read by 2 or 3 windows
        ((40, 7, 8, 0.9), "rolling"),  # fewer filters than windows: some channels are not read
        ((13, 11, 1, 0), "rolling"),
        ((12, 20, 12, 0), "rolling"),  # windows of one channel, not used equally often
        ((64, 64, 4, 0.33), "rolling"),  # filters of four windows share what they read
        ((144, 150, 2, 0.33), "blocked"),  # the same of many channels, some windows of two filters
        ((36, 108, 4, 0.33), "blocked"),
        ((8, 24, 8, 0), "blocked"),
        ((16, 16, 2, 0.5), "blocked"),
    )
]
SIZES = ((1, 1), (1, 7), (5, 3), (7, 7), (13, 17), (16, 16))


DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def name(windows: Windows) -> str:
    sizes = windows.in_channels, windows.out_channels, windows.width, windows.step
    return "-".join(map(str, (*sizes, windows.order)))


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def unwritten() -> Iterator[None]:
    """Memory that torch has not been told to write is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("windows", WINDOWS, ids=name)
@pytest.mark.parametrize("images", [1, 3])
def test_a_layer_and_its_gradients(windows: Windows, images: int, unwritten: None) -> None:
    weight = random(windows.out_channels, windows.width)
    bias = random(windows.out_channels, seed=2)
    for height, width in SIZES:
        x = random(images, windows.in_channels, height, width)
        grad = random(images, windows.out_channels, height, width, seed=2)
        rpw_exact.check("forward", windows, cpu.forward(x, weight, bias, windows), x, weight, bias)
        got = cpu.input_grad(grad, weight, windows)
        rpw_exact.check("input_grad", windows, got, grad, weight)
        rpw_exact.check("weight_grad", windows, cpu.weight_grad(grad, x, windows), grad, x)


def test_layers_of_equal_sizes_have_gradients_of_their_own() -> None:
    """Same channels and as many readers of a channel: only the order tells them apart."""
    grad, weight = random(1, 16, 4, 4), random(16, 4, seed=2)
    for order in ORDERS:
        windows = windows_of(16, 16, 4, 0.5, order)
        rpw_exact.check("input_grad", windows, cpu.input_grad(grad, weight, windows), grad, weight)


def test_channels_that_no_spatial_filter_reads_have_no_gradient() -> None:
    """Beside one that a filter of nine taps reads, for which there is a loop of its own."""
    stage = Stage(4, 2, 1, 1, kernel=3, padding=1)
    weight, grad = random(2, 1, 3, 3), random(1, 2, 6, 16, seed=2)
    grad_x = layer.input_grad(grad, weight, stage)
    expected = torch.nn.functional.conv_transpose2d(grad, weight, padding=1, groups=2)
    torch.testing.assert_close(grad_x[:, :2], expected)
    assert not grad_x[:, 2:].any()


@pytest.mark.parametrize("windows", WINDOWS[1:], ids=name)
@pytest.mark.parametrize(("dtype", "layout"), list(product(DTYPES, LAYOUTS))[1:])
def test_types_and_layouts(
    windows: Windows, dtype: torch.dtype, layout: torch.memory_format, unwritten: None
) -> None:
    weight, bias = (
        random(windows.out_channels, *size).to(dtype) for size in ((windows.width,), ())
    )
    for height, width in ((1, 7), (5, 3), (13, 17)):
        x = random(3, windows.in_channels, height, width).to(dtype).contiguous(memory_format=layout)
        grad = random(3, windows.out_channels, height, width, seed=2).to(dtype)
        for other in LAYOUTS:
            grad = grad.contiguous(memory_format=other)
            got = cpu.input_grad(grad, weight, windows)
            assert got.is_contiguous(memory_format=other)
            rpw_exact.check("input_grad", windows, got, grad, weight)
            rpw_exact.check("weight_grad", windows, cpu.weight_grad(grad, x, windows), grad, x)
        y = cpu.forward(x, weight, bias, windows)
        assert y.is_contiguous(memory_format=layout)
        rpw_exact.check("forward", windows, y, x, weight, bias)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_rounding_errors_grow_slower_than_the_pixels_are(layout: torch.memory_format) -> None:
    """A gradient by the weights is a sum of sums: one long sum would be 1e-6 and more off here."""
    generator = torch.Generator().manual_seed(0)
    windows = windows_of(32, 32, 8, 0)
    x, grad = (torch.randn(16, 32, 64, 64, generator=generator) for _ in range(2))
    x, grad = (tensor.contiguous(memory_format=layout) for tensor in (x, grad))
    got = layer.weight_grad(grad, x, cpu.stage_of(windows)).double()
    exact = cpu.weight_grad(grad.double(), x.double(), windows, with_bias=False)[0].flatten()
    assert float((got - exact).norm() / exact.norm()) < 8e-7


def test_inputs_that_lie_otherwise(unwritten: None) -> None:
    windows, weight = WINDOWS[2], random(48, 6)
    x = random(2, 24, 6, 10)
    for view in (x[:, :, ::2, 1::3], x.transpose(2, 3), x[:, :, :1, :1].expand(2, 24, 5, 9)):
        grad = view.repeat(1, 2, 1, 1)
        for laid_out in (grad, grad.contiguous(memory_format=torch.channels_last)):
            y = cpu.weight_grad(laid_out, view, windows)
            rpw_exact.check("weight_grad", windows, y, laid_out, view)
        rpw_exact.check("forward", windows, cpu.forward(view, weight, None, windows), view, weight)
        grad = grad[:, :, :1].expand(-1, -1, 4, -1)
        got = cpu.input_grad(grad, weight, windows)
        rpw_exact.check("input_grad", windows, got, grad, weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_for_any_number_of_threads(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tiles", "dots", "outer"):
        monkeypatch.setattr(f"ifspace.kernels.chain.{module}.SHARED_WORK", 0)
    monkeypatch.setattr("ifspace.kernels.chain.dots.COPIED", 1)
    before = torch.get_num_threads()
    try:
        for windows, layout in product(WINDOWS[:3], LAYOUTS):
            shape = (5, windows.in_channels, 26, 17)  # parts of the pixels have sums of their own
            x = random(*shape).to(dtype).contiguous(memory_format=layout)
            weight = random(windows.out_channels, windows.width).to(dtype)
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                y = cpu.forward(x, weight, None, windows)
                results.append(
                    (
                        y,
                        cpu.input_grad(y, weight, windows),
                        cpu.weight_grad(y, x, windows, with_bias=False)[0],
                    )
                )
            rpw_exact.check("weight_grad", windows, results[0][2:], results[0][0], x)
            for other in results[1:]:
                assert all(map(torch.equal, results[0], other))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_the_channels_that_read_it(value: float) -> None:
    for windows, channel in product((*WINDOWS[:4], WINDOWS[6]), (0, 5)):
        x = torch.ones(1, windows.in_channels, 3, 7)
        x[0, channel, 1, 2] = value
        y = cpu.forward(x, torch.ones(windows.out_channels, windows.width), None, windows)
        reached = (~y.isfinite()).nonzero()
        readers = (rpw_exact.channels_of(windows) == channel).any(1).nonzero().flatten()
        assert reached[:, 1].tolist() == readers.tolist()
        assert bool((reached[:, 2:] == torch.tensor([1, 2])).all())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_finite_reaches_the_weights_of_its_channel(layout: torch.memory_format) -> None:
    for windows in (WINDOWS[2], WINDOWS[6], WINDOWS[10]):
        x = torch.ones(2, windows.in_channels, 3, 7).contiguous(memory_format=layout)
        grad = torch.ones(2, windows.out_channels, 3, 7).contiguous(memory_format=layout)
        x[1, 5, 1, 2], grad[1, 3, 1, 2] = torch.inf, torch.nan
        got = cpu.weight_grad(grad, x, windows, with_bias=False)[0]
        expected = rpw_exact.channels_of(windows) == 5
        expected[3] = True
        assert torch.equal(~got.isfinite(), expected)


def test_the_loops_are_tried_out_of_reach_of_the_callers_modes() -> None:
    """A fault would last: the answer is kept for the process."""
    engine.fault.cache_clear()
    try:
        with torch.device("meta"), FakeTensorMode():
            assert engine.fault() is None
    finally:
        engine.fault.cache_clear()


def test_without_llvm_torch_computes_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("layer", "dots", "outer", "panels", "tiles", "loops"):
        monkeypatch.delitem(sys.modules, f"ifspace.kernels.chain.{module}", raising=False)
        monkeypatch.delattr(chain, module, raising=False)
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    engine.fault.cache_clear()
    engine.layers.cache_clear()
    engine.fault.cache_clear()
    windows = WINDOWS[0]
    x, weight = random(2, 16, 5, 5), random(16, 4)
    try:
        with pytest.warns(UserWarning, match="LLVM does not work here") as notes:
            y = cpu.forward(x, weight, None, windows)
        assert len(notes) == 1
        rpw_exact.check("forward", windows, y, x, weight)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cpu.input_grad(y, weight, windows)
            thin = explain_thin_conv2d(x, weight[:, :, None, None], groups=4)
            texts = thin, *cpu.explain(x, windows).splitlines()
        assert all("LLVM does not work here (" in text for text in texts), texts
    finally:
        engine.fault.cache_clear()
        engine.layers.cache_clear()
        engine.fault.cache_clear()
