"""Every network that must work: its MODEL text, image size and number of parameters.

Build one network at a time and release it: the largest take 0.6 GB.
"""

from dataclasses import dataclass
from functools import cache
from weakref import WeakValueDictionary

import torch
from torch import nn

from ifspace.models.graph import ImageSize, Trace
from ifspace.models.sources import (
    network,
)
from ifspace.models.tracing import trace


@dataclass(frozen=True)
class Entry:
    """A network: MODEL text, usual image size, a smaller one that it accepts, and parameters.

    The number of parameters is the one that the library publishes with its weights; for networks
    of the papers it is that of the layout. It counts the network as it is in training, so
    inception_v3 includes its auxiliary classifier.
    """

    model: str
    image: ImageSize
    small: ImageSize
    params: int

    def __str__(self) -> str:
        return f"{self.model}@{self.image[1]}"

    @property
    def built_in(self) -> bool:
        return ":" not in self.model


def _of(package: str, lines: str) -> list[Entry]:
    """Parse lines of: name, image side, side of the smaller image, parameters."""
    entries = []
    for line in lines.strip().splitlines():
        name, side, small, params = line.split()
        model = f"{package}:{name}" if package else name
        image, less = ((3, int(pixels), int(pixels)) for pixels in (side, small))
        entries.append(Entry(model, image, less, int(params.replace(",", ""))))
    return entries


TORCHVISION = _of(
    "torchvision",
    """
    vgg11               224  64  132,863,336
    vgg11_bn            224  64  132,868,840
    vgg13               224  64  133,047,848
    vgg13_bn            224  64  133,053,736
    vgg16               224  64  138,357,544
    vgg16_bn            224  64  138,365,992
    vgg19               224  64  143,667,240
    vgg19_bn            224  64  143,678,248
    resnet18            224  64   11,689,512
    resnet34            224  64   21,797,672
    resnet50            224  64   25,557,032
    resnet101           224  64   44,549,160
    resnext50_32x4d     224  64   25,028,904
    wide_resnet50_2     224  64   68,883,240
    mobilenet_v2        224  64    3,504,872
    mobilenet_v3_small  224  64    2,542,856
    mobilenet_v3_large  224  64    5,483,032
    shufflenet_v2_x1_0  224  64    2,278,604
    efficientnet_b0     224  64    5,288,548
    efficientnet_b1     240  64    7,794,184
    efficientnet_b2     288  64    9,109,994
    efficientnet_b3     300  64   12,233,232
    efficientnet_b4     380  64   19,341,616
    densenet121         224  64    7,978,856
    regnet_y_400mf      224  64    4,344,144
    regnet_x_800mf      224  64    7,259,656
    convnext_tiny       224  64   28,589,128
    mnasnet1_0          224  64    4,383,312
    inception_v3        299  96   27,161,264
""",
)

TIMM = _of(
    "timm",
    """
    mobilenetv1_100     224  64    4,231,976
    ghostnet_100        224  64    5,182,508
    resnet50            224  64   25,557,032
    efficientnet_b0     224  64    5,288,548
    convnext_tiny       224  64   28,589,128
""",
)

BUILT_IN = _of(
    "",
    """
    vgg11                32  32    9,228,362
    vgg13                32  32    9,413,066
    vgg16                32  32   14,724,042
    vgg19                32  32   20,035,018
    resnet50             32  32   23,520,842
    mobilenet            32  32    3,217,226
    layout-plain         32  32      603,962
    layout-residual      32  32      464,154
    fog                  32  32   11,178,186
    3drf                 32  32    4,705,866
    vgg16               224 224  138,357,544
    vgg19               224 224  143,667,240
    resnet50            224 224   25,557,032
    mobilenet           224 224    4,231,976
""",
)

ZOO = (*TORCHVISION, *TIMM, *BUILT_IN)

# Their constructors read values of tensors, which the meta device does not have.
NOT_ON_META = ("torchvision:regnet_y_400mf", "torchvision:regnet_x_800mf")

_ALIVE: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()


def build(entry: Entry) -> nn.Module:
    """Return the network with weights of seed 0; the module is cached while a reference exists.

    Change neither the module nor its mode: take a deep copy.
    """
    model = _ALIVE.get(str(entry))
    if model is None:
        model = _ALIVE[str(entry)] = network(entry.model, entry.image, seed=0)
    return model


def on_meta(entry: Entry) -> nn.Module:
    """Return the network on the meta device where it can be built there, else `build(entry)`."""
    if entry.model in NOT_ON_META:
        return build(entry)
    with torch.device("meta"):
        return network(entry.model, entry.image)


@cache
def traced(entry: Entry) -> tuple[nn.Module, Trace]:
    """Return `on_meta(entry)` and its graph on the usual image; change neither."""
    model = on_meta(entry)
    return model, trace(model, entry.image)
