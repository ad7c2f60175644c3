"""Small networks of many structures whose units the organizer can move.

Every network ends in a classifier, and has few units on large feature maps and many on small ones.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain

import torch
from small_networks import BasicBlock
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu, silu

from ifspace.nn import MOBILENET, build

IMAGE = (3, 32, 32)


def conv(c_in: int, c_out: int, stride: int = 1, **options: bool) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride, 1, **options)


def head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


def plain(c_in: int, c_out: int) -> list[nn.Module]:
    return [conv(c_in, c_out), nn.BatchNorm2d(c_out), nn.ReLU()]


def rows(unit: Callable[[int, int], list[nn.Module]]) -> list[nn.Module]:
    """Two units on feature maps of 32 x 32 pixels, four on 8 x 8."""
    wide = chain(unit(3, 8), unit(8, 8))
    return [*wide, nn.MaxPool2d(4), *unit(8, 16), *chain(*(unit(16, 16) for _ in range(3)))]


def flat() -> nn.Module:
    return nn.Sequential(*rows(plain), *head(16))


def one_relu() -> nn.Module:
    """One nn.ReLU object, used after every convolution."""
    act = nn.ReLU()
    return nn.Sequential(*rows(lambda c_in, c_out: [conv(c_in, c_out), act]), *head(16))


def dropped() -> nn.Module:
    """A dropout after the last unit."""
    return nn.Sequential(*rows(lambda a, b: [conv(a, b), nn.ReLU()]), nn.Dropout(), *head(16))


def norm_first() -> nn.Module:
    """Pre-activation: norm and ReLU before each convolution, none after the last of a stage."""
    layers = rows(lambda c_in, c_out: [nn.BatchNorm2d(c_in), nn.ReLU(), conv(c_in, c_out)])
    return nn.Sequential(*layers[2:], *head(16))


def named() -> nn.Module:
    """An nn.Sequential whose children have names, not indices."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for place, (c_in, c_out) in enumerate([(3, 8), (8, 8), (8, 16), (16, 16), (16, 16)], start=1):
        if place == 3:
            layers["pool"] = nn.MaxPool2d(4)
        layers[f"conv{place}"], layers[f"act{place}"] = conv(c_in, c_out), nn.ReLU()
    return nn.Sequential(OrderedDict(body=nn.Sequential(layers), end=nn.Sequential(*head(16))))


def sparse_numbers() -> nn.Module:
    """An nn.Sequential whose children are named by numbers with gaps."""
    layers = rows(lambda c_in, c_out: [conv(c_in, c_out), nn.ReLU()])
    return nn.Sequential(
        OrderedDict((str(3 * place + 1), layer) for place, layer in enumerate((*layers, *head(16))))
    )


def nested() -> nn.Module:
    return nn.Sequential(*rows(lambda c_in, c_out: [nn.Sequential(*plain(c_in, c_out))]), *head(16))


class Listed(nn.Module):
    """An nn.ModuleList of convolutions that forward() iterates over."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 8), (8, 8), (8, 16), (16, 16), (16, 16), (16, 16)]
        self.layers = nn.ModuleList(conv(*pair) for pair in widths)
        self.end = nn.Sequential(*head(16))

    def forward(self, x: Tensor) -> Tensor:
        for place, layer in enumerate(self.layers):
            x = relu(layer(max_pool2d(x, 4) if place == 2 else x))
        return self.end(x)


class Written(nn.Module):
    """Every layer is an attribute; the activations are functions called in forward()."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(3, 8, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = conv(8, 16, 4, bias=False), nn.BatchNorm2d(16)
        self.conv3, self.norm3 = conv(16, 16, bias=False), nn.BatchNorm2d(16)
        self.conv4, self.norm4 = conv(16, 16, bias=False), nn.BatchNorm2d(16)
        self.conv5, self.norm5 = conv(16, 16, bias=False), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = silu(self.norm1(self.conv1(x)))
        x = silu(self.norm2(self.conv2(x)))
        x = silu(self.norm3(self.conv3(x)))
        x = silu(self.norm4(self.conv4(x)))
        x = silu(self.norm5(self.conv5(x)))
        return self.linear(x.mean((2, 3)))


class IndexedSequential(nn.Sequential):
    """A subclass of nn.Sequential whose forward() depends on the index of a child."""

    def forward(self, x: Tensor) -> Tensor:
        for place, module in enumerate(self):
            x = module(x)
            if place == 3:
                x = max_pool2d(x, 4)
        return x


def indexed_sequential() -> nn.Module:
    widths = [(3, 8), (8, 8), (8, 16), (16, 16), (16, 16)]
    return nn.Sequential(
        IndexedSequential(*chain(*([conv(*pair), nn.ReLU()] for pair in widths))), *head(16)
    )


def separable(c_in: int, c_out: int, stride: int = 1) -> list[nn.Module]:
    depthwise = nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False)
    pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
    return [depthwise, nn.BatchNorm2d(c_in), nn.ReLU(), pointwise, nn.BatchNorm2d(c_out), nn.ReLU()]


def separables() -> nn.Module:
    layers = chain(plain(3, 8), separable(8, 16, 4), *(separable(16, 16) for _ in range(3)))
    return nn.Sequential(*layers, *head(16))


class Separable(nn.Module):
    """The layers of `separable` as a class of their own, without a residual sum."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise, self.norm1, _, self.pointwise, self.norm2, _ = separable(
            c_in, c_out, stride
        )

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.norm1(self.depthwise(x)))
        return relu(self.norm2(self.pointwise(x)))


def separable_blocks() -> nn.Module:
    units = (Separable(8, 16), Separable(16, 32, 4), *(Separable(32, 32) for _ in range(3)))
    return nn.Sequential(*plain(3, 8), *units, *head(32))


def residual() -> nn.Module:
    """Stages of 1, 1 and 4 residual blocks: the first two hold only a projection block."""
    units = (BasicBlock(4, 8, 2), BasicBlock(8, 12, 2), BasicBlock(12, 16, 2))
    more = (BasicBlock(16, 16, 1) for _ in range(3))
    return nn.Sequential(*plain(3, 4), *units, *more, *head(16))


def pre_activated() -> nn.Module:
    """Consecutive residual blocks, and one batch norm after the last."""
    units = [BasicBlock(8, 12, 1), BasicBlock(12, 16, 4), *(BasicBlock(16, 16, 1) for _ in "abc")]
    return nn.Sequential(*plain(3, 8), *units, nn.BatchNorm2d(16), nn.ReLU(), *head(16))


def headed() -> nn.Module:
    """A pointwise convolution after the residual blocks, on the smallest feature maps."""
    units = (BasicBlock(8, 8, 1), BasicBlock(8, 16, 4), nn.Conv2d(16, 24, 1), nn.ReLU())
    return nn.Sequential(*plain(3, 8), *units, *head(24))


class Gated(nn.Module):
    """Depthwise, squeeze-and-excitation gate, pointwise; a residual sum where shapes agree."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in)
        self.norm = nn.GroupNorm(4, c_in)
        self.gate = nn.Sequential(
            nn.Linear(c_in, c_in // 4), nn.ReLU(), nn.Linear(c_in // 4, c_in), nn.Sigmoid()
        )
        self.pointwise = nn.Conv2d(c_in, c_out, 1)
        self.adds = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x))
        y = self.pointwise(y * self.gate(y.mean((2, 3)))[:, :, None, None])
        return x + y if self.adds else y


def gated() -> nn.Module:
    units = (Gated(32, 16), Gated(16, 24, 4), *(Gated(24, 24) for _ in range(3)))
    return nn.Sequential(conv(3, 32), nn.ReLU(), *units, *head(24))


def our_blocks() -> nn.Module:
    """Blocks of ifspace; the first stage has a single block, of 12 channels."""
    style = MOBILENET
    units = [
        build("DW+PW", 3, 12, style=style),
        build("DW+RPW(2,1/2)", 12, 16, stride=4, style=style),
    ]
    more = (build("DW+RPW(4,0)+GPW(4)", 16, style=style) for _ in range(3))
    return nn.Sequential(*units, *more, *head(16))


class Hourglass(nn.Module):
    """An encoder and a decoder with one skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(*chain(*([conv(*w), nn.ReLU()] for w in ((3, 8), (8, 8)))))
        self.low = nn.Sequential(*chain(*([conv(*w), nn.ReLU()] for w in ((8, 16), (16, 16)))))
        self.up = nn.Sequential(*chain(*([conv(*w), nn.ReLU()] for w in ((24, 8), (8, 8)))))
        self.end = nn.Sequential(*head(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        y = interpolate(self.low(max_pool2d(x, 4)), scale_factor=4)
        return self.end(self.up(torch.cat([x, y], 1)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "flat": flat,
    "one relu": one_relu,
    "dropped": dropped,
    "norm first": norm_first,
    "named": named,
    "sparse numbers": sparse_numbers,
    "nested": nested,
    "listed": Listed,
    "written": Written,
    "indexed sequential": indexed_sequential,
    "separables": separables,
    "separable blocks": separable_blocks,
    "residual": residual,
    "pre-activated": pre_activated,
    "headed": headed,
    "gated": gated,
    "our blocks": our_blocks,
    "hourglass": Hourglass,
}
