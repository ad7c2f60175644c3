"""Peak memory of a layout: the most elements that are live at once in the network of its stages.

Between the parts of a network (a layer of the stem, a pooling, a block, a layer of the head) one
feature map is live, so the peak is the largest of theirs, and each part has its own whatever stands
elsewhere. Blocks have shortcuts where the layout counts projections: a projection around the first
of a stage, an identity around the others.

Reference: docs/concepts.md, peak memory.
"""

from dataclasses import dataclass
from itertools import pairwise

from ifspace.block import IDENTITY, NO_SHORTCUT, PROJECTION, SizedBlock
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
        most = max(most, peaks.entry(index, stage))
        if stage.depth > stage.min_depth:
            most = max(most, peaks.repeated(stage, stage.repeated))
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

    def entry(self, index: int, stage: Stage) -> int:
        """Of the first block of a stage, and of the pooling before it."""
        sides = [part.side_out for part in self.layout.stages[:index]]
        frame = self.layout.stem_and_head
        before = [self.layout.image, *(stem.side for stem in frame.stem), *sides][-1]
        side, block = stage.side_strided, stage.first
        shortcut = PROJECTION if frame.projections else NO_SHORTCUT
        most = block.peak_elements((side,) * block.dims, stage.stride, shortcut)
        if side < before:
            pooled = block.channels * (self._pixels(before) + self._pixels(side))
            most = max(most, pooled)
        return most

    def repeated(self, stage: Stage, block: SizedBlock) -> int:
        """Of a block that a stage repeats behind its first."""
        shortcut = IDENTITY if self.layout.stem_and_head.projections else NO_SHORTCUT
        return block.peak_elements((stage.side_out,) * block.dims, 1, shortcut)

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
