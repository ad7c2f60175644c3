"""RPW as the published CUDA kernel works: a thread for every output element, no matrix units.

Reference: [3DRF] section 4.2. A Triton program holds a block of such threads.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from ifspace.bench.case import Implementation, LayerCase
from ifspace.kernels.launch import is_blocked
from ifspace.kernels.rpw.triton import window_of
from ifspace.kernels.tensors import empty_with_channels, is_channels_last

BLOCK: Final = 256


# Triton looks annotations up among the constants of the module.
@triton.jit
def _direct(
    x,
    weight,
    y,
    elements,
    c_in,
    c_out,
    width,
    step,
    distinct,
    area,
    stride_n,
    stride_c,
    stride_pixel,
    LAST: tl.constexpr,
    BLOCKED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < elements
    image = at // (area * c_out)
    # Neighbouring threads write neighbouring elements.
    if LAST:
        output, pixel = at % c_out, at // c_out % area
    else:
        output, pixel = at // area % c_out, at % area
    base = image * stride_n + pixel * stride_pixel
    total = tl.zeros([BLOCK], tl.float32)
    window = window_of(output, distinct, c_out, BLOCKED)
    for t in range(0, width):
        channel = (window * step + t) % c_in
        value = tl.load(x + base + channel * stride_c, inside, 0.0).to(tl.float32)
        total += value * tl.load(weight + output * width + t, inside, 0.0).to(tl.float32)
    tl.store(y + at, total.to(y.dtype.element_ty), inside)


def direct(case: LayerCase, device: torch.device) -> Implementation:
    """Return the direct kernel; it has no backward."""
    windows = case.windows

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        y = empty_with_channels(x, windows.out_channels)
        _direct[(triton.cdiv(y.numel(), BLOCK),)](
            x,
            weight,
            y,
            y.numel(),
            windows.in_channels,
            windows.out_channels,
            windows.width,
            windows.step,
            windows.distinct,
            x.shape[2] * x.shape[3],
            x.stride(0),
            x.stride(1),
            x.stride(3),
            is_channels_last(x),
            is_blocked(windows),
            BLOCK,
        )
        return y

    return Implementation(forward)
