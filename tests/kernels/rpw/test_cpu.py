"""The CPU implementation under every plan, against a gather and an einsum in float64."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from rpw_exact import channels_of
from torch import Tensor

from ifspace.kernels.rpw import cpu
from ifspace.kernels.rpw.cpu import Plan, band_of, tiles_for
from ifspace.kernels.windows import Windows, windows_of

SETTINGS = list(product([1, 2, 4, 8], [0, 0.25, 0.33, 0.5, 0.75, 0.9]))
WIDTHS = [(16, 16), (24, 48), (40, 7), (8, 24), (24, 12), (56, 56)]
LAYOUTS = ["nchw", "channels_last", "strided"]


def witness(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """Gather the channels of every filter, then one einsum; autograd computes the gradients."""
    y = torch.einsum("njthw,jt->njhw", x[:, channels_of(windows)], weight)
    return y if bias is None else y + bias[:, None, None]


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = x.new_full((*x.shape[:3], 2 * x.shape[3] + 1), torch.nan)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    return x


def plans(windows: Windows) -> Iterator[Plan]:
    """The chosen plan, the dense one and every possible number of tiles."""
    yield tiles_for(windows, 10**6, True)
    band, most = band_of(windows), windows.distinct
    for tiles in range(most + 1 if band.per_window else 1):
        fits = tiles > 1 and most % tiles == 0
        if fits:
            slices = (band.tile_channels(tiles), band.tile_filters(tiles))
            fits = all(part.width <= part.ring for part in slices)
        if tiles == 0 or fits:
            yield Plan(tiles, tiles, tiles)


def check(windows: Windows, layout: str, shape: tuple[int, int, int] = (3, 5, 2)) -> int:
    n, h, w = shape
    draw = torch.Generator().manual_seed(windows.out_channels)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=draw, dtype=torch.float64)

    x = random(n, windows.in_channels, h, w).requires_grad_()
    weight = random(windows.out_channels, windows.width).requires_grad_()
    bias = random(windows.out_channels).requires_grad_()
    y = witness(x, weight, bias, windows)
    grad = random(*y.shape)
    expected = (y.detach(), *torch.autograd.grad(y, (x, weight, bias), grad))
    x, grad = laid_out(x.detach(), layout), laid_out(grad, layout)
    weight, bias = weight.detach(), bias.detach()
    tried = 0
    for plan in plans(windows):
        got = (
            cpu.forward(x, weight, bias, windows, plan),
            cpu.input_grad(grad, weight, windows, plan),
            *cpu.weight_grad(grad, x, windows, plan=plan),
        )
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-11, msg=lambda m: f"{plan}: {m}")  # noqa: B023
        torch.testing.assert_close(
            cpu.forward(x, weight, None, windows, plan) + bias[:, None, None], got[0]
        )
        for result in got[:2]:
            assert result.is_contiguous(
                memory_format=torch.channels_last
                if layout == "channels_last"
                else torch.contiguous_format
            )
        tried += 1
    return tried


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("groups", "overlap"), SETTINGS)
def test_every_plan_computes_the_definition(groups: int, overlap: float, layout: str) -> None:
    tried = [check(windows_of(c_in, c_out, groups, overlap), layout) for c_in, c_out in WIDTHS]
    assert sum(tried) > len(WIDTHS) + (groups > 1)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("groups", "overlap"), SETTINGS)
def test_every_plan_computes_blocked_order(groups: int, overlap: float, layout: str) -> None:
    tables = [
        windows_of(c_in, c_out, groups, overlap, "blocked")
        for c_in, c_out in (*WIDTHS, (36, 108))  # 36 windows, out of order in the ring
        if c_in % groups == 0 and windows_of(c_in, c_out, groups, overlap).distinct <= c_out
    ]
    assert len(tables) >= 4
    tried = [check(windows, layout) for windows in tables]
    assert sum(tried) > len(tables) + (groups > 1)


def test_filters_in_blocked_order_are_sorted_already() -> None:
    band = band_of(windows_of(16, 32, 4, 0.5, "blocked"))
    assert (band.sort, band.unsort) == (None, None)
    assert band.order.tolist() == list(range(32))
    # Steps of 5 in a ring of 24: windows 0, 5, 10 ... are not in the order of their starts.
    around = band_of(windows_of(24, 48, 4, 0.33, "blocked"))
    assert around.sort is not None


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (5, 1, 1), (2, 13, 11), (32, 2, 3)])
def test_in_chunks_of_few_rows(
    shape: tuple[int, int, int], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "CHUNK_BYTES", 1)
    for order in ("rolling", "blocked"):
        for windows in (
            windows_of(24, 48, 4, 0.5, order),
            windows_of(24, 24, 4, 0.33, order),
        ):
            assert check(windows, layout, shape) > 3


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
def test_empty_activations_give_zeros(shape: tuple[int, int, int]) -> None:
    n, h, w = shape
    windows = windows_of(16, 32, 4, 0.5)
    x, grad, weight = torch.ones(n, 16, h, w), torch.ones(n, 32, h, w), torch.ones(32, 4)
    assert cpu.forward(x, weight, None, windows).shape == grad.shape
    assert cpu.input_grad(grad, weight, windows).shape == x.shape
    grad_weight, grad_bias = cpu.weight_grad(grad, x, windows)
    assert torch.equal(grad_weight, torch.zeros(32, 4))
    assert torch.equal(grad_bias, torch.zeros(32))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_further_from_float64_than_eager(dtype: torch.dtype, layout: str) -> None:
    windows = windows_of(32, 64, 4, 0.5)
    x = torch.randn(4, 32, 6, 6).to(dtype)
    weight, grad = torch.randn(64, 8).to(dtype), torch.randn(4, 64, 6, 6).to(dtype)

    def all_of(kind: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [tensor.to(kind, copy=True).requires_grad_() for tensor in (x, weight)]
        y = witness(*leaves, None, windows)  # type: ignore[call-arg, arg-type]
        return (y.detach(), *torch.autograd.grad(y, leaves, grad.to(kind)))

    exact, eager = all_of(torch.float64), all_of(dtype)
    laid_x, laid_grad = laid_out(x, layout), laid_out(grad, layout)
    for plan in plans(windows):
        got = (
            cpu.forward(laid_x, weight, None, windows, plan),
            cpu.input_grad(laid_grad, weight, windows, plan),
            cpu.weight_grad(laid_grad, laid_x, windows, plan=plan)[0],
        )
        for name, ours, theirs, true in zip(("y", "x", "weight"), got, eager, exact, strict=True):
            assert ours.dtype == dtype
            error, allowed = ((y.double() - true).abs().max() for y in (ours, theirs))
            rounding = 2 * torch.finfo(dtype).eps * true.abs().max()
            assert error <= allowed + rounding, (name, plan)


def test_a_plan_as_text() -> None:
    windows = windows_of(512, 512, 4, 0.5)
    assert str(tiles_for(windows, 128 * 14 * 14, True)).startswith(
        "forward: 8 tiles, input_grad: 8"
    )
    assert str(Plan()) == "forward: dense, input_grad: dense, weight_grad: dense"
    # Wide windows, an uneven number of filters, one window: nothing to gain.
    for dense in (windows_of(512, 512, 1, 0.5), windows_of(512, 509, 4, 0.5)):
        assert tiles_for(dense, 10**6, True) == Plan()
