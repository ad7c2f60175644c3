"""The reorganized networks of [3DRF] Tables 3 to 5: the layout with the printed count, and why.

The tables print no layout, only counts; the text gives two. So `depths` is the layout whose count
of parameters is the printed one (the text's, where a count fits no better), and a row says itself
how far the two are apart.
"""

from dataclasses import dataclass
from typing import Final

from ifspace.stages.layout import Layout
from ifspace.stages.networks import (
    mobilenet,
    network,
    resnet50,
    vgg,
)


@dataclass(frozen=True, slots=True)
class PublishedLayout:
    """A row "-opt" of [3DRF]: its network, data set and table, and what is printed of it.

    `depths` counts MobileNet's stem, as the network does. `params` in millions and `gain` (the sum
    of max − min over the moves) are printed to two decimals; `macs` are in millions.

    >>> vgg16 = published_layouts("vgg16", 32)[0]
    >>> vgg16.depths, vgg16.params, vgg16.layout.params, vgg16.has_printed_params
    ((5, 4, 2, 1, 1), '5.10', 5098826, True)
    """

    network: str
    side: int
    data: str
    table: int
    depths: tuple[int, ...]
    params: str
    macs: int
    gain: str

    @property
    def layout(self) -> Layout:
        """The network at these depths, with the classifier of its data set."""
        return _for_data(self.network, self.side, self.data).at_depths(self.depths)

    @property
    def has_printed_params(self) -> bool:
        """Whether the layout's parameters, rounded as printed, are those printed."""
        return f"{self.layout.params / 1e6:.2f}" == self.params


def _for_data(name: str, side: int, data: str) -> Layout:
    if data != "CIFAR-100":
        return network(name, side)
    if name.startswith("vgg"):
        return vgg(name, side, 100, (4096, 4096))
    return {"resnet50": resnet50, "mobilenet": mobilenet}[name](side, 100)


def published_layouts(name: str, side: int) -> tuple[PublishedLayout, ...]:
    """Return what was published of a network, by name, at images of side x side pixels."""
    return tuple(each for each in PUBLISHED if (each.network, each.side) == (name.lower(), side))


PUBLISHED: Final = (
    PublishedLayout("vgg16", 32, "CIFAR-10", 3, (5, 4, 2, 1, 1), "5.10", 370, "2.30"),
    PublishedLayout("vgg16", 32, "CIFAR-100", 4, (5, 4, 2, 1, 1), "24.39", 390, "2.30"),
    PublishedLayout("vgg16", 224, "ImageNet", 5, (3, 3, 3, 2, 2), "133.82", 16_900, "0.39"),
    PublishedLayout("vgg19", 32, "CIFAR-10", 3, (6, 4, 3, 2, 1), "8.09", 490, "3.13"),
    PublishedLayout("vgg19", 32, "CIFAR-100", 4, (6, 4, 3, 2, 1), "27.38", 500, "3.13"),
    PublishedLayout("vgg19", 224, "ImageNet", 5, (3, 2, 4, 4, 3), "141.34", 21_060, "1.09"),
    PublishedLayout("mobilenet", 32, "CIFAR-10", 3, (5, 4, 2, 2, 1), "1.13", 50, "3.94"),
    PublishedLayout("mobilenet", 32, "CIFAR-100", 4, (5, 4, 2, 2, 1), "1.23", 50, "3.94"),
    PublishedLayout("mobilenet", 224, "ImageNet", 5, (3, 3, 3, 3, 2), "3.52", 570, "2.59"),
    PublishedLayout("resnet50", 32, "CIFAR-10", 3, (5, 5, 4, 2), "17.24", 1310, "0.76"),
    PublishedLayout("resnet50", 32, "CIFAR-100", 4, (5, 5, 4, 3), "21.89", 1380, "0.76"),
    PublishedLayout("resnet50", 224, "ImageNet", 5, (4, 5, 4, 3), "23.67", 4130, "0.47"),
)
