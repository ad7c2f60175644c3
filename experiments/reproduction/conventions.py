"""Networks under conventions of counting: what a tool that counts parameters and MACs may add.

Public implementations and counting tools differ in batch norm, biases, the dense layers and in the
operations that they count for every element besides MACs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np

from ifspace.stages.layout import Layout
from ifspace.stages.networks import (
    mobilenet,
    resnet50,
    vgg,
)

CLASSES: Final = {"CIFAR-10": 10, "CIFAR-100": 100, "ImageNet": 1000}
# At most so many operations an element: batch norm 2, bias 1, activation 1.
MOST_PER_ELEMENT: Final = 4


@dataclass(frozen=True, slots=True)
class Convention:
    """What is counted: batch norm, biases, hidden dense layers, operations an element written.

    >>> str(Convention(True, False, (), 2)), str(Convention(False, True, (4096, 4096)))
    ('BN, +2', 'bias, dense')
    """

    batch_norm: bool
    bias: bool
    hidden: tuple[int, ...] = ()
    per_element: int = 0

    def __str__(self) -> str:
        names = ("BN", self.batch_norm), ("bias", self.bias), ("dense", bool(self.hidden))
        extra = f"+{self.per_element}" if self.per_element else ""
        return ", ".join(filter(None, [*(name for name, there in names if there), extra]))


@cache
def built(network: str, data: str, hidden: tuple[int, ...] | None = None) -> Layout:
    """Return a network for a data set, as its published implementation counts it.

    `hidden`: dense layers of VGG on CIFAR; where it is None CIFAR-100 has two of 4096, as in
    [3DRF] Table 4.
    """
    side = 224 if data == "ImageNet" else 32
    if network in ("resnet50", "mobilenet"):
        make = resnet50 if network == "resnet50" else mobilenet
        return make(side, CLASSES[data])
    if hidden is None:
        hidden = (4096, 4096) if data == "CIFAR-100" else ()
    layout = vgg(network, side, CLASSES[data], hidden)
    # The implementations for CIFAR give their convolutions biases beside batch norm.
    return replace(layout, stem_and_head=replace(layout.stem_and_head, bias=True))


def conventions(network: str, data: str) -> Iterator[Convention]:
    """Yield every convention that is tried, the implementation's own first."""
    own = built(network, data).stem_and_head
    hidden = [own.classifier[:-1]]
    if network.startswith("vgg") and data != "ImageNet":
        hidden += [() if hidden[0] else (4096, 4096)]
    norms = [(own.batch_norm, own.bias)]
    every = [(norm, bias) for norm in (True, False) for bias in (True, False)]
    norms += [pair for pair in every if pair != norms[0]]
    yield from (
        Convention(*norm, h, e)
        for h in hidden
        for norm in norms
        for e in range(MOST_PER_ELEMENT + 1)
    )


def elements(layout: Layout) -> int:
    """Return how many elements the layers with weights write, classifier left out.

    Batch norm costs two operations for each, a bias or an activation one.
    """
    total = sum(layer.layer.c_out * layer.side**2 for layer in layout.stem_and_head.stem)
    for stage in layout.stages:
        for place, unit in enumerate(stage.blocks):
            side = stage.side if place else stage.side * stage.stride
            for layer in unit.layers:
                side = stage.side if layer.kernel > 1 else side
                total += layer.c_out * side**2 if layer.params else 0
        if layout.stem_and_head.projections:
            total += stage.width * stage.side**2
    return total


def usual(layout: Layout, per_element: int = 0) -> Convention:
    """Return the convention that a layout has by itself."""
    frame = layout.stem_and_head
    return Convention(frame.batch_norm, frame.bias, frame.classifier[:-1], per_element)


def under(layout: Layout, convention: Convention) -> Layout:
    """Return a layout counted under a convention."""
    frame = replace(
        layout.stem_and_head,
        batch_norm=convention.batch_norm,
        bias=convention.bias,
        classifier=(*convention.hidden, layout.stem_and_head.classifier[-1]),
    )
    return replace(layout, stem_and_head=frame)


def counts(layout: Layout, depths: Any, per_element: int) -> tuple[Any, Any]:
    """Return parameters and operations at many depths, [layouts]: each unit costs the same."""

    def of(sized: Layout) -> Any:
        return np.array([sized.params, sized.macs + per_element * elements(sized)])

    amounts = linear(of, layout, depths)
    return amounts[:, 0], amounts[:, 1]


def linear(of: Callable[[Layout], Any], layout: Layout, depths: Any) -> Any:
    """Return what a layout has of some amounts at many depths, [layouts, amounts].

    `of` tells it for one layout; one more unit of a stage has to add the same at every depth.
    """
    least = [stage.min_depth for stage in layout.stages]
    base = of(layout.at_depths(least))
    more = [
        of(layout.at_depths([low + (place == n) for place, low in enumerate(least)])) - base
        for n in range(len(least))
    ]
    return base + (depths - np.array(least)) @ np.array(more)
