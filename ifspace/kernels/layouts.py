"""The memory layout of what a kernel writes: that of what it reads."""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Return whether a tensor [N, C, H, W] keeps the channels of a pixel side by side.

    One that is contiguous both ways (one channel, or one pixel) counts as NCHW.
    """
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def empty_like(x: Tensor, channels: int) -> Tensor:
    """Return an unfilled tensor [N, channels, H, W] in the layout of x [N, C, H, W]."""
    shape = (x.shape[0], channels, x.shape[2], x.shape[3])
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
