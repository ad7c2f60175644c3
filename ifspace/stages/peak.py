"""Peak memory of a layout: the most elements that are live at once in the network of its stages.

Between the parts of a network (a layer of the stem, a pooling, a block, a layer of the head) one
feature map is live, so the peak is the largest of theirs, and each part has its own whatever stands
elsewhere. Blocks have the shortcuts of their stage's type; without one, where the layout counts
projections, a projection around the first of a stage and an identity around the others.

Reference: docs/concepts.md, peak memory.
"""

from dataclasses import dataclass
from itertools import pairwise

from ifspace.stages.layout import Layout, Stage


def peak_elements(layout: Layout) -> int:
    """Return the peak memory of the network of a layout in elements, for one image.

    >>> from ifspace.stages.networks import network
    >>> peak_elements(network("vgg16", 32)), peak_elements(network("resnet50", 224))
    (131072, 1806336)
    """
    peaks = StagePeaks(layout)
    most = max(peaks.stem, peaks.head(layout.widths[-1]))
    for index, stage in enumerate(layout.stages):
        most = max(most, peaks.entry(stage, peaks.before(index)))
        if stage.depth > stage.min_depth:
            most = max(most, peaks.repeated(stage))
    return most


@dataclass(frozen=True, slots=True)
class StagePeaks:
    """The peaks of the parts of a layout, in elements; its blocks and widths may be others."""

    layout: Layout

    @property
    def stem(self) -> int:
        """Of the layers before the stages; the image where there are none."""
        ends, side = self.layout.stem_and_head, self.layout.image
        width = ends.inputs
        most = width * self._pixels(side)
        for stem in ends.stem:
            read = width * self._pixels(side)
            side, width = stem.side, stem.layer.c_out
            if stem.layer.conv.writes:
                most = max(most, read + width * self._pixels(side))
        return most

    def before(self, index: int) -> int:
        """The side of the feature maps before a stage, and before any pooling."""
        if index:
            return self.layout.stages[index - 1].side_out
        stem = self.layout.stem_and_head.stem
        return stem[-1].side if stem else self.layout.image

    def entry(self, stage: Stage, before: int) -> int:
        """Of the first block of a stage, and of the pooling of feature maps before it."""
        side, block = stage.side_strided, stage.first
        most = block.peak_elements((side,) * block.dims, stage.stride, self._shortcut(stage, True))
        if side < before:
            pooled = block.channels * (self._pixels(before) + self._pixels(side))
            most = max(most, pooled)
        return most

    def repeated(self, stage: Stage) -> int:
        """Of a block that a stage repeats behind its first."""
        size = (stage.side_out,) * stage.repeated.dims
        return stage.repeated.peak_elements(size, 1, self._shortcut(stage, False))

    def _shortcut(self, stage: Stage, opens: bool) -> str:
        return stage.shortcut(opens, self.layout.stem_and_head.projections)

    def head(self, width: int) -> int:
        """Of pooling and dense layers behind a last stage of a width."""
        ends, pixels = self.layout.stem_and_head, self._pixels(self.layout.stages[-1].side_out)
        most = width * pixels
        if ends.classifier:
            if ends.pixels < pixels:
                most = width * (pixels + ends.pixels)
            dense = (width * ends.pixels, *ends.classifier)
            most = max(most, *(a + b for a, b in pairwise(dense)))
        return most

    def _pixels(self, side: int) -> int:
        return int(side ** self.layout.stages[0].first.dims)
