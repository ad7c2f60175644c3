"""Networks in which channels hang together in every way that is known."""

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 16, 1), nn.Conv2d(16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * self.excite(self.squeeze(pooled).relu()).sigmoid()


class InvertedResidual(nn.Module):
    """Pointwise, depthwise, a gate, pointwise, and a scaled shortcut."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.Hardswish(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            Gate(inner),
            nn.Conv2d(inner, channels, 1),
        )
        self.scale = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.body(x)


class Grouped(nn.Module):
    """A grouped convolution with a group norm, in groups of 8 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, 64, 1)
        self.conv = nn.Conv2d(64, 64, 3, padding=1, groups=8)
        self.norm = nn.GroupNorm(8, 64)
        self.leave = nn.Conv2d(64, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.leave(self.norm(self.conv(self.enter(x))).relu())


class Halves(nn.Module):
    """Two halves of channels, one of them convolved, and all concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.conv = nn.Conv2d(channels, 64, 1), nn.Conv2d(32, 32, 3, padding=1)
        self.leave = nn.Conv2d(96, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.enter(x).relu().chunk(2, 1)
        return self.leave(torch.cat([first, second, second + self.conv(second)], 1))


class Perceptron(nn.Module):
    """Dense layers on channels that stand last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grow, self.shrink = nn.Linear(channels, 64), nn.Linear(64, channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.gelu(self.grow(x.permute(0, 2, 3, 1)))
        return x + self.shrink(inner).permute(0, 3, 1, 2)


def every_way(seed: int = 0) -> nn.Sequential:
    """Return a small network of all of these, with statistics as of a trained one."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.PReLU(32),
        InvertedResidual(32, 64),
        Grouped(32),
        Halves(32),
        Perceptron(32),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ConvTranspose2d(64, 16, 2, 2),
        nn.PixelShuffle(2),
        nn.Conv2d(4, 24, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                part.weight.normal_(1, 0.2)
                part.bias.normal_()
    return model.eval()


class CutByNumber(nn.Module):
    """Slices its channels at a number that stands in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner = nn.Conv2d(3, 64, 1), nn.Conv2d(32, 64, 1)
        self.leave = nn.Conv2d(64, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.inner(self.enter(x)[:, :32]).relu())
