"""ResNet-101 for the benchmarks, built from a layout: as many weights as the published network.

`ifspace analyze benchmarks/resnet101.py:resnet101 --input 3x224x224`
"""

from ifspace.nn import Network, build_network
from ifspace.stages.networks import network

DEPTHS = (3, 4, 23, 3)


def resnet101() -> Network:
    """Return ResNet-101 for images of 224 x 224 pixels.

    >>> sum(weight.numel() for weight in resnet101().parameters())
    44549160

    Reference: He et al., Deep Residual Learning for Image Recognition, Table 1.
    """
    return build_network(network("resnet50", 224).at_depths(DEPTHS), "resnet50")
