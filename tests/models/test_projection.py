"""Blocks begun with the nearest weights: no other weights are nearer, by L-BFGS on the weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ifspace.models.projection import Start, kernel_of, project
from ifspace.nn import BlockModule, Style, build

pytestmark = pytest.mark.usefixtures("one_thread")
STYLE = Style(batch_norm=False, activation=None, bias=True, bias_where="last")
CLOSED, NEAR, DRAWN = Start.CLOSED_FORM, Start.PROJECTED, Start.DRAWN


def error(kernel: Tensor | None, conv: nn.Conv2d) -> float:
    assert kernel is not None
    weight = conv.weight.detach().double()
    return float((kernel - weight).square().sum() / weight.square().sum())


def least_error(conv: nn.Conv2d, block: BlockModule) -> float:
    """Return the least error in the weights that L-BFGS finds from those drawn, by impulses."""
    block = block.double()
    channels, size = block.sized.channels, conv.kernel_size[0]
    impulses = torch.zeros(channels, channels, size, size, dtype=torch.float64)
    impulses[range(channels), range(channels), size // 2, size // 2] = 1
    for module in block.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    weight = conv.weight.detach().double()
    solver = torch.optim.LBFGS(
        [part for part in block.parameters() if part.dim() > 1],
        max_iter=300,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        written = block(impulses).flip(2, 3).transpose(0, 1)
        total: Tensor = (written - weight).square().sum() / weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    return float(loss().detach())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "kernel", "channels", "start"),
    [
        ("GPW(4)+SH(4)+GPW(4)", 1, (16, 32), CLOSED),
        ("GPW(4)+SH(2)+GPW(2)", 1, (16, 16), CLOSED),
        ("RPW(4,0)+RPW(4,0)", 1, (16, 24), CLOSED),
        ("SH(4)+GPW(4)+SH(4)+GPW(2)+SH(2)", 1, (16, 32), CLOSED),
        ("GPW(4)+GPW(4)", 1, (16, 16), CLOSED),
        ("PW+GPW(4)", 1, (16, 8), CLOSED),
        ("GPW(4)", 1, (16, 8), CLOSED),
        ("RPW(4,1/2)+GPW(4)", 1, (16, 16), DRAWN),
        ("GPW(4)+SH(4)+GPW(4)+SH(4)+GPW(4)", 1, (16, 16), DRAWN),
        ("DW+PW", 3, (8, 12), CLOSED),
        ("SH(4)+DW+SH(2)+PW+SH(2)", 3, (8, 12), CLOSED),
        ("PW+SH(4)+DW+SH(2)", 3, (8, 12), CLOSED),
        ("DW(5)+PW", 5, (8, 8), CLOSED),
        ("DW+GPW(4)+SH(4)+GPW(4)", 3, (16, 16), NEAR),
        ("GPW(4)+SH(4)+GPW(4)+DW", 3, (16, 16), NEAR),
        ("DW+RPW(2,1/2)", 3, (8, 8), NEAR),
        ("DW(5)+PW", 3, (8, 8), DRAWN),
        ("PW+DW+PW", 3, (8, 8), DRAWN),
        ("GC(2)+PW", 3, (8, 8), DRAWN),
    ],
)
def test_no_weights_are_nearer_than_those_of_the_closed_form(
    text: str, kernel: int, channels: tuple[int, int], start: Start
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, kernel, padding=kernel // 2)
    block = build(text, *channels, style=STYLE)
    drawn = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    assert project(conv, block) is start
    if start is DRAWN:
        assert all(torch.equal(tensor, drawn[name]) for name, tensor in block.state_dict().items())
        return
    x = torch.randn(2, channels[0], 6, 5)
    with torch.no_grad():
        written = block(x)
        left = error(kernel_of(block), conv)
        weight: Any = kernel_of(block)
        same = nn.functional.conv2d(x, weight.float(), conv.bias, padding=kernel // 2)
    torch.testing.assert_close(written, same, rtol=1e-4, atol=1e-5)
    least = least_error(conv, build(text, *channels, style=STYLE))
    assert least - 1e-6 <= left < 1
    if start is CLOSED:
        assert left == pytest.approx(least, rel=1e-3, abs=1e-9)


def test_the_kernel_of_a_block_is_the_convolution_that_it_is() -> None:
    block: Any = build("GPW(2)+SH(2)+GC(4)+RPW(2,1/2)+SH(4)", 8, 16, style=STYLE)
    x = torch.randn(1, 8, 7, 7)
    bias = block.layer3.bias
    y = nn.functional.conv2d(x, kernel_of(block).float(), padding=1)  # type: ignore[union-attr]
    with torch.no_grad():
        bias.zero_()
        torch.testing.assert_close(block(x), y, rtol=1e-4, atol=1e-5)
    assert kernel_of(build("DW+DW", 8)) is None
    assert kernel_of(build("DW+PW", 8, style="mobilenet")) is None
    assert kernel_of(build("DW+PW", 8, style=Style(shortcut="identity", activation=None))) is None


def test_blocks_that_are_no_product_are_left_as_they_are() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    for style in ("mobilenet", Style(shortcut="identity", activation=None)):
        assert project(conv, build("DW+PW", 8, style=style)) is DRAWN
