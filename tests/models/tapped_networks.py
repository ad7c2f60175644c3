"""Networks that are read in the middle of their stages, or in which branches run side by side."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


def layers(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]


def vgg() -> list[nn.Module]:
    """Two layers on 16 x 16 pixels, three on 8 x 8, three on 4 x 4."""
    return [
        *layers(3, 32),
        *layers(32, 32),
        nn.MaxPool2d(2),
        *layers(32, 64),
        *layers(64, 64),
        *layers(64, 64),
        nn.MaxPool2d(2),
        *layers(64, 128),
        *layers(128, 128),
        *layers(128, 128),
    ]


class Taps(nn.Module):
    """Returns features tapped by number, as a perceptual loss does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*vgg())

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for index, module in enumerate(self.features):
            x = module(x)
            if index in (3, 10, 17):
                features.append(x)
        return features


class Range(nn.Module):
    """Runs its layers in two ranges, and a head reads the features between them."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(vgg())
        self.norm = nn.BatchNorm2d(64)
        self.low, self.high = nn.Conv2d(64, 8, 3, padding=1), nn.Conv2d(128, 8, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for index in range(11):
            x = self.vgg[index](x)
        low = self.low(self.norm(x))
        for index in range(11, len(self.vgg)):
            x = self.vgg[index](x)
        return low, self.high(x)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return relu(x + self.b(relu(self.a(x))))


class Stages(nn.Module):
    """Three stages of three residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128)
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(3))) for width in widths
        )
        self.down = nn.ModuleList([nn.Conv2d(32, 64, 2, 2), nn.Conv2d(64, 128, 2, 2)])
        self.fc = nn.Linear(128, 10)

    def end(self, x: Tensor) -> Tensor:
        return self.fc(self.stages[2](self.down[1](x)).mean((2, 3)))


class Tap(Stages):
    """An auxiliary head reads the second block of the second stage, by its index."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Conv2d(64, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.down[0](self.stages[0](self.stem(x)))
        for index, block in enumerate(self.stages[1]):
            x = block(x)
            if index == 1:
                tapped = self.aux(x)
        return self.end(x), tapped


class SideBySide(Stages):
    """Two branches of one spatial size, added."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Sequential(Residual(64), Residual(64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down[0](self.stages[0](self.stem(x)))
        return self.end(self.stages[1](x) + self.side(x))


class AllOutputs(nn.Module):
    """Concatenates the outputs of all its blocks, as VoVNet and YOLO do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.ModuleList(Residual(16) for _ in range(4))
        self.last = nn.Conv2d(80, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for block in self.blocks:
            features.append(block(features[-1]))
        return self.last(torch.cat(features, 1))


class Normed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.bn(self.conv(x)))


class TwoTowers(nn.Module):
    """Branches of other widths on one spatial size, as in HRNet; `wide_first`: their order."""

    def __init__(self, wide_first: bool = False) -> None:
        super().__init__()
        self.wide_first = wide_first
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.thin = nn.Sequential(*(Normed(16) for _ in range(3)))
        self.wide_in = nn.Conv2d(16, 32, 1)
        self.wide = nn.Sequential(*(Normed(32) for _ in range(3)))
        self.tail = nn.Sequential(*(Normed(16) for _ in range(2)))
        self.out = nn.Conv2d(48, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.wide_first:
            wide = self.wide(self.wide_in(x))
            return self.out(torch.cat([self.tail(self.thin(x)), wide], 1))
        thin = self.thin(x)
        wide = self.wide(self.wide_in(x))
        return self.out(torch.cat([self.tail(thin), wide], 1))


class TwoInputs(nn.Module):
    """Residual blocks, then a head that reads two feature maps."""

    class Head(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.high, self.low = nn.Conv2d(width, 8, 1), nn.Conv2d(width, 8, 1)

        def forward(self, low: Tensor, high: Tensor) -> Tensor:
            return self.high(high) + self.low(low)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.Sequential(*(Normed(16) for _ in range(8)))
        self.head = self.Head(16)

    def forward(self, x: Tensor) -> Tensor:
        low = self.stem(x)
        return self.head(low, self.blocks(low))


def activated(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def output_layer() -> nn.Module:
    """Two layers with activations and a bare 1 x 1 output layer, all of one width."""
    return nn.Sequential(
        activated(3, 80, 2), activated(80, 80), activated(80, 80), nn.Conv2d(80, 80, 1)
    )


class Detector(nn.Module):
    """Two heads with bare output layers, side by side on two spatial sizes, as YOLO has them."""

    def __init__(self, classes: int = 32) -> None:
        super().__init__()
        self.stem = activated(3, 32, 2)
        self.down = activated(32, 32, 2)
        self.heads = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(activated(32, 32), activated(32, 32), nn.Conv2d(32, outputs, 1))
                for outputs in (32, classes)
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        high = self.stem(x)
        features = (high, self.down(high))
        return [
            torch.cat([box(x), kind(x)], 1)
            for (box, kind), x in zip(self.heads, features, strict=True)
        ]
