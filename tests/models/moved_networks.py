"""Networks that move pixels, join feature maps along the batch, or call a module several times."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)


def stem(width: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(conv(3, width, kernel), nn.ReLU())


class Moved(nn.Module):
    """A convolution, a function of its feature map, and a pointwise layer on what that returns."""

    def __init__(
        self, move: Callable[[Tensor], Tensor], width: int, moved_width: int = 0, kernel: int = 3
    ) -> None:
        super().__init__()
        self.move = move
        self.stem, self.last = stem(width, kernel), conv(moved_width or width, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.move(self.stem(x)))


def rolled(x: Tensor) -> Tensor:
    """Groups of channels rolled by -2 to 2 columns, as in AS-MLP."""
    parts = zip(x.chunk(5, 1), range(-2, 3), strict=True)
    return torch.cat([torch.roll(part, by, 3) for part, by in parts], 1)


def shifted(x: Tensor) -> Tensor:
    """Quarters of the channels shifted by one pixel in four directions, as in ShiftNet."""
    y, group = torch.zeros_like(x), x.shape[1] // 4
    y[:, :group, :, :-1] = x[:, :group, :, 1:]
    y[:, group : 2 * group, :, 1:] = x[:, group : 2 * group, :, :-1]
    y[:, 2 * group : 3 * group, :-1] = x[:, 2 * group : 3 * group, 1:]
    y[:, 3 * group :, 1:] = x[:, 3 * group :, :-1]
    return y


def differences(x: Tensor) -> Tensor:
    """Differences of neighbours in a row, and of every second one in a column."""
    along_rows = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    along_columns = F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
    return torch.cat([along_rows, along_columns], 1)


def windows(x: Tensor) -> Tensor:
    """The 3 x 3 pixels around each pixel as channels, cut by slices."""
    height, width = x.shape[2:]
    x = F.pad(x, [1] * 4)
    parts = [x[:, :, i : height + i, j : width + j] for i in range(3) for j in range(3)]
    return torch.cat(parts, 1)


def mirrored(x: Tensor) -> Tensor:
    """A feature map and its mirror image added."""
    return x + x.flip(3)


class TurnedAround(nn.Module):
    """Two layers of 1 x 7, height and width exchanged between them and back."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = (
            nn.Conv2d(width, 16, (1, 7), padding=(0, 3)) for width in (3, 16)
        )
        self.last = conv(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.columns(self.rows(x).transpose(2, 3)).transpose(2, 3))


class Siamese(nn.Module):
    """Two branches joined along the batch, one layer on both, and their difference."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large, self.shared = conv(3, 16), conv(3, 16, 5), conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.shared(torch.cat([self.small(x), self.large(x)], 0)).chunk(2, 0)
        return first - second


class TwoSensors(nn.Module):
    """A stem for three channels and one for the fourth, a trunk for both, and a sum."""

    def __init__(self, stacked: bool = False) -> None:
        super().__init__()
        self.stacked = stacked
        self.colours, self.depth = conv(3, 16), conv(1, 16, 7)
        self.trunk = nn.Sequential(conv(16, 16), nn.ReLU(), conv(16, 16))
        self.head = conv(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = [self.colours(x[:, :3]), self.depth(x[:, 3:])]
        if not self.stacked:
            first, second = self.trunk(torch.cat(both, 0)).chunk(2, 0)
            return self.head(first + second)
        y = self.trunk(torch.stack(both, 1).flatten(0, 1))
        return self.head(y.view(x.shape[0], 2, *y.shape[1:]).sum(1))


class HaloAttention(nn.Module):
    """Attention in windows of 4 x 4 that sees one pixel around them, as in HaloNet."""

    def __init__(self, width: int = 16, heads: int = 2, side: int = 4, halo: int = 1) -> None:
        super().__init__()
        self.stem, self.out = conv(3, width), conv(width, width)
        self.query = nn.Conv2d(width, width, 1, bias=False)
        self.key_value = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.heads, self.side, self.halo, self.depth = heads, side, halo, width // heads

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, channels, height, width = x.shape
        side, rows, columns = self.side, height // self.side, width // self.side
        query = self.query(x).reshape(-1, self.depth, rows, side, columns, side)
        query = query.permute(0, 1, 3, 5, 2, 4)
        query = query.reshape(batch * self.heads, self.depth, -1, rows * columns).transpose(1, 3)
        both = F.pad(self.key_value(x), [self.halo] * 4)
        both = both.unfold(2, side + 2 * self.halo, side).unfold(3, side + 2 * self.halo, side)
        both = both.reshape(batch * self.heads, 2 * self.depth, rows * columns, -1)
        key, value = both.permute(0, 2, 3, 1).split([self.depth, self.depth], -1)
        y = (query @ key.transpose(-1, -2)).softmax(-1) @ value
        y = y.transpose(1, 3).reshape(-1, side, side, rows, columns).permute(0, 3, 1, 4, 2)
        return self.out(y.contiguous().view(batch, channels, height, width))


class TwoNames(nn.Module):
    """One convolution that two modules hold, and that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(16, 16)
        self.block = nn.Sequential(nn.ReLU(), self.conv)
        self.stem = conv(3, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.conv(self.stem(x)))


class Recurrent(nn.Module):
    """A convolution that runs three times, each time on the sum with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv(3, 16, 1), conv(16, 4, 1)
        self.conv = nn.Sequential(conv(16, 16), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(x)
        for _ in range(2):
            y = self.conv(x + y)
        return self.last(y)


class Pyramid(nn.Module):
    """One head over three levels of a feature pyramid, as in RetinaNet; returns a dict of lists."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.level3 = nn.Sequential(
            conv(3, width, 3, 2), nn.ReLU(), conv(width, width, 3, 2), nn.ReLU()
        )
        self.level4 = nn.Sequential(conv(width, 2 * width, 3, 2), nn.ReLU())
        self.level5 = nn.Sequential(conv(2 * width, 4 * width, 3, 2), nn.ReLU())
        self.lateral = nn.ModuleList(conv(c_in, width, 1) for c_in in widths)
        self.head = nn.Sequential(
            conv(width, width), nn.ReLU(), conv(width, width), nn.ReLU(), conv(width, 36)
        )

    def forward(self, x: Tensor) -> dict[str, Sequence[Tensor]]:
        levels = [self.level3(x)]
        for level in (self.level4, self.level5):
            levels.append(level(levels[-1]))
        levels = [lateral(y) for lateral, y in zip(self.lateral, levels, strict=True)]
        for i in (1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[-2:])
        return {"boxes": [self.head(y) for y in levels], "features": levels}


class Positions(nn.Module):
    """A layer on positions, which no image changes, added to a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.encoding, self.last = conv(3, 8), conv(2, 8, 1), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.linspace(0, 1, x.shape[2])
        columns = torch.linspace(0, 1, x.shape[3])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
        return self.last(self.stem(x) + self.encoding(grid))


class Upsampled(nn.Module):
    """A strided layer, an upsampling by the same factor, and a convolution."""

    def __init__(self, scale: int, mode: str) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, scale, scale)
        self.up = nn.Upsample(scale_factor=scale, mode=mode)
        self.conv = conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.up(self.down(x)))


class SideBySide(nn.Module):
    """Two branches side by side in width, and a convolution on both."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large, self.last = conv(3, 16), conv(3, 16, 5), conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.small(x), self.large(x)], 3))


class Stripes(nn.Module):
    """Four horizontal stripes, each with a convolution of its own, and one on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv(3, 16), conv(16, 8)
        self.parts = nn.ModuleList(conv(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        stripes = self.stem(x).chunk(4, 2)
        parts = [part(y) for part, y in zip(self.parts, stripes, strict=True)]
        return self.last(torch.cat(parts, 2))


class TwoResolutions(nn.Module):
    """Two branches, one of them at half the size, exchanged twice, as in HRNet."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(conv(4, 4, 3, 2) for _ in range(2))
        self.small = nn.ModuleList(conv(4, 4) for _ in range(2))
        self.large = nn.ModuleList(conv(4, 4) for _ in range(2))
        self.stem, self.conv = conv(3, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for down, small, large in zip(self.down, self.small, self.large, strict=True):
            x = large(x) + F.interpolate(small(down(x)), scale_factor=2)
        return self.conv(x)
