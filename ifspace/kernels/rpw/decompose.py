"""RPW written out in operators that every exporter knows, for programs that leave torch.

Two ways, equal up to rounding: windows side by side and one grouped convolution, where that reads
little more than the input; else one pointwise convolution whose weight is zero outside the windows.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ifspace.kernels.rpw import operator as ops  # noqa: F401 - it registers the operators
from ifspace.kernels.windows import Windows, windows_at

# How many times the input's channels may be copied side by side.
_MOST_COPIES: Final = 4


def decompositions() -> dict[Any, Callable[..., Tensor]]:
    """Return the table for `torch.export.ExportedProgram.run_decompositions`.

    >>> [str(operator) for operator in decompositions()]
    ['ifspace.rpw.default']
    """
    return {torch.ops.ifspace.rpw.default: rpw_decomposed}


def rpw_decomposed(x: Tensor, weight: Tensor, bias: Tensor | None, step: int, impl: str) -> Tensor:
    """Return y [N, C_out, H, W] of x [N, C_in, H, W], weight [C_out, w] and bias [C_out].

    The arguments are those of `torch.ops.ifspace.rpw`; `impl` has nothing to choose here.
    """
    windows = windows_at(x.shape[1], weight.shape[0], weight.shape[1], step)
    copied = windows.distinct * windows.width
    if windows.out_channels % windows.distinct or copied > _MOST_COPIES * windows.in_channels:
        return _dense(x, weight, bias, windows)
    return _grouped(x, weight, bias, windows)


def _grouped(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    # Filter q P + p reads window p. A grouped convolution wants the filters of a window in a row.
    distinct, each = windows.distinct, windows.out_channels // windows.distinct
    by_window = weight.reshape(each, distinct, windows.width).transpose(0, 1)
    kernel = by_window.reshape(windows.out_channels, windows.width, 1, 1)
    if bias is not None:
        bias = bias.reshape(each, distinct).transpose(0, 1).reshape(-1)
    y = torch.conv2d(_side_by_side(x, windows), kernel, bias, groups=distinct)
    if each == 1 or distinct == 1:
        return y
    n, _, height, width = y.shape
    back = y.reshape(n, distinct, each, height, width).transpose(1, 2)
    return back.reshape(n, windows.out_channels, height, width)


def _side_by_side(x: Tensor, windows: Windows) -> Tensor:
    """Return the channels of all windows in a row: [N, P w, H, W] of x [N, C_in, H, W]."""
    if windows.step == windows.width:
        return x  # windows that share nothing already stand so
    slices = []
    for start in windows.starts:
        before_the_end = min(windows.width, windows.in_channels - start)
        slices.append(x.narrow(1, start, before_the_end))
        if before_the_end < windows.width:
            slices.append(x.narrow(1, 0, windows.width - before_the_end))
    return torch.cat(slices, 1)


def _dense(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    filters = torch.arange(windows.out_channels, device=weight.device)[:, None]
    within = torch.arange(windows.width, device=weight.device)
    read = (filters * windows.step + within) % windows.in_channels
    zeros = weight.new_zeros(windows.out_channels, windows.in_channels)
    return torch.conv2d(x, zeros.scatter(1, read, weight)[:, :, None, None], bias)
