"""Small networks in plain torch, as users have them, and counts of their parameters and MACs."""

from collections.abc import Iterable

import torch
from torch import nn

from ifspace.nn import BlockModule, RollingPointwiseConv2d


class BasicBlock(nn.Module):
    """The residual block of ResNet with two convolutions."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential()
        if stride > 1 or inputs != width:
            self.downsample.append(nn.Conv2d(inputs, width, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


def resnet18(width: int = 16, blocks: int = 2) -> nn.Sequential:
    """ResNet-18 whose first stage has `width` channels, for images of 32 x 32 pixels.

    `blocks`: of each stage; with one it is ResNet-10, which has a layer of every shape.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage in range(4):
        for unit in range(blocks):
            layers.append(BasicBlock(inputs, width << stage, 2 if stage and not unit else 1))
            inputs = width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def vgg(width: int = 16, batch_norm: bool = True) -> nn.Sequential:
    """VGG of eight convolutions with biases in four stages, for images of 32 x 32 pixels."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage in range(4):
        for _ in range(2):
            layers.append(nn.Conv2d(inputs, width << stage, 3, padding=1))
            layers += [nn.BatchNorm2d(width << stage)] if batch_norm else []
            layers.append(nn.ReLU())
            inputs = width << stage
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * inputs, 10))


class Apart(nn.Module):
    """Convolutions and batch norms in lists of their own; one convolution runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 1, 1)])
        self.last = nn.Conv2d(16, 32, 3, 2, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(16)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](self.convs[0](x)).relu()
        y = self.norms[1](self.convs[1](y)).relu()
        return self.last(self.convs[1](y))


def blocks_of(model: nn.Module) -> dict[str, BlockModule]:
    """Return the blocks of a network by their full names."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, BlockModule)
    }


def params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, image: Iterable[int]) -> int:
    """Count the multiply-accumulates of one image with forward hooks, on any device."""
    total = 0

    def hook(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() // len(output) * module.weight[0].numel()

    kinds = nn.Conv2d | nn.Linear | RollingPointwiseConv2d
    hooks = [
        child.register_forward_hook(hook) for child in model.modules() if isinstance(child, kinds)
    ]
    trained = model.training
    like = next(model.parameters(), torch.zeros(0))
    with torch.no_grad():
        model.eval()(torch.zeros(1, *image, device=like.device, dtype=like.dtype))
    model.train(trained)
    for handle in hooks:
        handle.remove()
    return total
