"""Trained networks of published tables: their layers from the columns that each table has.

Reference: the papers named at each reader; accuracies as published.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from ifspace.scores.layers import LayerList, ListedLayer
from ifspace.scores.measures import StageFields
from ifspace.scores.statistics import PERCENT

Row = Mapping[str, str]


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, the set that it is compared in, its accuracy, and counts that were published.

    `accuracy`: larger is better; an error is 100 less it, in percent. `fields`: of a traced
    network.
    """

    name: str
    set: str
    layers: LayerList
    accuracy: float
    counts: Mapping[str, int]
    fields: tuple[StageFields, ...] | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A table as it was published: its name, the columns that it is known by, and its reader."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Row], TrainedNetwork]


_MACRO: Final = "NAS-Bench-Macro"
# Kernel and expansion by the digit of a layer.
_INVERTED: Final = {"1": (3, 3), "2": (5, 6)}


def macro_layers(arch: str) -> LayerList:
    """Return the layers of a network of NAS-Bench-Macro.

    A stem to 32 channels at 32 x 32 pixels, stages of 2, 3 and 3 layers to 64, 128 and 256
    channels, each opening with stride 2, and a 1x1 convolution to 1280. A digit is a layer: 0 an
    identity (where a stage opens, a 1x1 convolution), 1 an inverted residual with a 3x3 kernel and
    expansion 3, 2 one with a 5x5 kernel and expansion 6.

    >>> macro_layers("10000000").chain[1].c_out
    96

    Reference: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search.
    """
    if len(arch) != 8 or set(arch) - set("012"):
        raise ValueError(f"arch {arch!r}")
    layers, width, side = [_square(3, 1, 3, 32, 1, 32)], 32, 32
    for index, digit in enumerate(arch):
        stride = 2 if index in (0, 2, 5) else 1
        out = width * stride
        layers += _macro_layer(digit, stride, width, out, side)
        width, side = out, side // stride
    return LayerList((*layers, _square(1, 1, width, 1280, 1, side)))


@cache
def _macro_layer(digit: str, stride: int, c_in: int, c_out: int, side: int) -> list[ListedLayer]:
    if digit not in _INVERTED:
        return [_square(1, 2, c_in, c_out, 1, side // 2)] if stride == 2 else []
    kernel, expansion = _INVERTED[digit]
    inner = c_in * expansion
    return [
        _square(1, 1, c_in, inner, 1, side),
        _square(kernel, stride, inner, inner, inner, side // stride),
        _square(1, 1, inner, c_out, 1, side // stride),
    ]


_square = cache(ListedLayer.of)


def _macro(row: Row) -> TrainedNetwork:
    counts = {"params": int(row["params"]), "macs": int(row["flops"])}
    accuracy = float(row["acc_mean"])
    return TrainedNetwork(row["arch"], _MACRO, macro_layers(row["arch"]), accuracy, counts)


def _imgclsmob(row: Row) -> TrainedNetwork:
    layers = LayerList.parse(row["layers_k_stride_cin_cout_groups_rout"])
    counts = {"params": int(row["params"])}
    name = f"imgclsmob {row['task']}"
    return TrainedNetwork(row["key"], name, layers, PERCENT - float(row["error"]), counts)


def pycls_layers(row: Row) -> LayerList:
    """Return the convolutions of a RegNet, ResNet or ResNeXt of pycls at 224 x 224 pixels.

    Bottleneck blocks with the stride in the 3x3 convolution; `group_widths` are channels per group
    of a RegNet and a ResNeXt. Squeeze-and-excitation is left out, as it is where networks are read.

    Reference: Radosavovic et al., Designing Network Design Spaces.
    """
    widths, depths, group_widths = (
        [int(part) for part in row[name].split("/")]
        for name in ("stage_widths", "stage_depths", "group_widths")
    )
    regnet = row["model"].startswith("RegNet")
    layers = [_square(3, 2, 3, 32, 1, 112) if regnet else _square(7, 2, 3, 64, 1, 112)]
    c_in, side = (32, 112) if regnet else (64, 56)
    stages = zip(widths, depths, group_widths, strict=True)
    for number, (width, depth, per_group) in enumerate(stages):
        inner = width if regnet else _inner_width(row["model"], width)
        groups = inner // per_group
        for index in range(depth):
            stride = 2 if index == 0 and (regnet or number) else 1
            out = side // stride
            if index == 0:
                layers.append(_square(1, stride, c_in, width, 1, out))
            layers += [
                _square(1, 1, c_in, inner, 1, side),
                _square(3, stride, inner, inner, groups, out),
                _square(1, 1, inner, width, 1, out),
            ]
            c_in, side = width, out
    return LayerList(tuple(layers))


def _inner_width(model: str, width: int) -> int:
    return width // 2 if model.startswith("ResNeXt") else width // 4


def _pycls(row: Row) -> TrainedNetwork:
    counts = {"params": int(row["params"]), "macs": int(row["flops"])}
    accuracy = float(row["top1"])
    return TrainedNetwork(row["model"], "pycls ImageNet-1K", pycls_layers(row), accuracy, counts)


PUBLISHED: Final = (
    PublishedTable(_MACRO, ("arch", "params", "flops", "acc_mean"), _macro),
    PublishedTable(
        "imgclsmob",
        ("task", "key", "error", "params", "layers_k_stride_cin_cout_groups_rout"),
        _imgclsmob,
    ),
    PublishedTable(
        "pycls",
        ("model", "stage_widths", "stage_depths", "group_widths", "params", "flops", "top1"),
        _pycls,
    ),
)
