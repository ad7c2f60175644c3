"""What a network has around and between its stages: stem, batch norm, shortcuts, classifier.

Amounts are additive: a unit of a stage costs the same wherever it stands behind the first, so
layouts are compared by sums of whole numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ifspace.block import (
    SizedBlock,
    SizedLayer,
)


@dataclass(frozen=True, slots=True)
class StemLayer:
    """A convolution before the stages, on maps of side x side pixels."""

    layer: SizedLayer
    side: int


@dataclass(frozen=True, slots=True)
class Frame:
    """How a network counts its parameters and MACs beside the weights of its blocks.

    `inputs`: channels of the image. `batch_norm` adds scale and shift, `bias` a number, to each
    channel that a layer with weights writes. `projections`: a 1x1 convolution beside the first
    unit of every stage; other shortcuts are free. `classifier`: widths of the dense layers, with
    biases, behind the last stage, whose maps are pooled to `pixels` pixels. `stem_counts`: the stem
    stands at the side of the first stage and counts as its first layers. `image`: side of the
    image; None where the first layer has no stride, so that it is as large as what that writes.

    >>> from ifspace.block import Block
    >>> unit = Block.parse("CONV(3)").at(64)
    >>> Frame().unit_params(unit), Frame(batch_norm=True).unit_params(unit)
    (36864, 36992)
    """

    inputs: int = 3
    stem: tuple[StemLayer, ...] = ()
    batch_norm: bool = False
    bias: bool = False
    projections: bool = False
    classifier: tuple[int, ...] = ()
    pixels: int = 1
    stem_counts: bool = False
    image: int | None = None

    @property
    def opens_with(self) -> int:
        """Channels that enter the first stage."""
        return self.stem[-1].layer.c_out if self.stem else self.inputs

    @property
    def counted(self) -> tuple[SizedLayer, ...]:
        """The layers of the stem that count in the first stage."""
        return tuple(each.layer for each in self.stem) if self.stem_counts else ()

    def unit_params(self, unit: SizedBlock, opens: bool = False) -> int:
        """Return the parameters of one unit; `opens`: it is the first of its stage."""
        total = sum(layer.params + self._extra(layer) for layer in unit.layers)
        if opens and self.projections:
            total += unit.channels * unit.out_channels + self._per_channel * unit.out_channels
        return total

    def unit_macs(self, unit: SizedBlock, side: int, stride: int = 1, opens: bool = False) -> int:
        """Return the multiply-accumulates of one unit that writes side x side pixels."""
        per_pixel = unit.macs_per_pixel(stride)
        if opens and self.projections:
            per_pixel += unit.channels * unit.out_channels
        return per_pixel * int(side**unit.dims)

    def params(self, last_width: int) -> int:
        """Return the parameters of stem and classifier behind a last stage of a width."""
        stem = sum(each.layer.params + self._extra(each.layer) for each in self.stem)
        return stem + sum(a * b + b for a, b in pairwise(self._dense(last_width)))

    def macs(self, last_width: int) -> int:
        """Return the multiply-accumulates of stem and classifier."""
        stem = sum(each.layer.params * int(each.side**each.layer.dims) for each in self.stem)
        return stem + sum(a * b for a, b in pairwise(self._dense(last_width)))

    @property
    def _per_channel(self) -> int:
        return 2 * self.batch_norm + self.bias

    def _extra(self, layer: SizedLayer) -> int:
        return self._per_channel * layer.c_out if layer.params else 0

    def _dense(self, last_width: int) -> Sequence[int]:
        return (last_width * self.pixels, *self.classifier) if self.classifier else ()
