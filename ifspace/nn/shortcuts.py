"""What stands beside the units of a residual network: nothing, a projection, or what is free."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FreeShortcut(nn.Module):
    """A shortcut without weights where shapes change: pixels left out, channels of zeros added.

    Every `stride`-th pixel is taken; channels behind `out_channels` are cut off.

    >>> FreeShortcut(16, 32, stride=2)(torch.ones(1, 16, 8, 8)).shape
    torch.Size([1, 32, 4, 4])

    Reference: He et al., Deep Residual Learning for Image Recognition, section 3.3, option A.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out_channels, ...] of x [N, in_channels, ...]."""
        for axis in range(2, x.dim()):
            x = x[(slice(None),) * axis + (slice(None, None, self.stride),)]
        more = self.out_channels - self.in_channels
        # Padding counts from the last axis: two numbers for each side length, then the channels.
        return nn.functional.pad(x, (*[0] * (2 * (x.dim() - 2)), 0, more))

    def extra_repr(self) -> str:
        """Return what the module's text says of it."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"


class Residual(nn.Module):
    """Units in a row, a shortcut beside them, and an activation behind the sum."""

    def __init__(self, units: Iterable[nn.Module], shortcut: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.units = nn.Sequential(*units)
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F, H', W'] of x [N, C, H, W]."""
        y: Tensor = self.act(torch.add(self.units(x), self.shortcut(x)))
        return y
