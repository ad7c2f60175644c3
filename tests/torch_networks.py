"""The networks of the papers in plain torch: an independent count of parameters and MACs.

Nothing here is taken from the library: widths, strides and paddings are those of the published
implementations, depths are the only argument.
"""

from collections.abc import Sequence

import torch
from torch import nn

WIDTHS = (64, 128, 256, 512, 512)


def vgg(depths: Sequence[int], side: int, classes: int, hidden: Sequence[int] = ()) -> nn.Module:
    """Return VGG: for CIFAR with batch norm and 1 x 1 pixels before the linear layers, for ImageNet
    with biases and 7 x 7.
    """
    small = side == 32
    layers: list[nn.Module] = []
    width = 3
    for depth, out in zip(depths, WIDTHS, strict=True):
        for _ in range(depth):
            layers.append(nn.Conv2d(width, out, 3, padding=1, bias=not small))
            layers += [nn.BatchNorm2d(out)] if small else []
            width = out
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    width *= 1 if small else 49
    for out in (*hidden, classes):
        layers.append(nn.Linear(width, out))
        width = out
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """The bottleneck of ResNet with the stride in its 3 x 3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int, projects: bool) -> None:
        super().__init__()
        inner = width // 4
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.beside = nn.Sequential()
        if projects:
            self.beside.append(nn.Conv2d(inputs, width, 1, stride, bias=False))
            self.beside.append(nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.beside(x)


def resnet(depths: Sequence[int], side: int, classes: int) -> nn.Module:
    if side == 32:
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)]
    else:
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)]
        layers.append(nn.MaxPool2d(3, 2, 1))
    width = 64
    for stage, depth in enumerate(depths):
        for unit in range(depth):
            stride = 2 if stage and not unit else 1
            layers.append(Bottleneck(width, 256 << stage, stride, projects=not unit))
            width = 256 << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def mobilenet(depths: Sequence[int], side: int, classes: int) -> nn.Module:
    """`depths` count the first convolution, as [3DRF] does."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 32, 3, 1 if side == 32 else 2, 1, bias=False),
        nn.BatchNorm2d(32),
    ]
    width = 32
    for stage, depth in enumerate(depths):
        out = 64 << stage
        for unit in range(depth if stage else depth - 1):
            stride = 2 if stage and not unit else 1
            layers += [
                nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False),
                nn.BatchNorm2d(width),
                nn.Conv2d(width, out, 1, bias=False),
                nn.BatchNorm2d(out),
            ]
            width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def plain(widths: Sequence[int], side: int, classes: int) -> nn.Module:
    """A convolution to each width, with max-pooling between them."""
    layers: list[nn.Module] = []
    width = 3
    for out in widths:
        layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
        layers.append(nn.MaxPool2d(2))
        width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, side: int) -> int:
    """Count the multiply-accumulates of one image with hooks on the meta device."""
    total = 0

    def hook(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hook)
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, side, side, device="meta"))
    return total
