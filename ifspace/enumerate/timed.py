"""Latency in the search: the times of layers, which add up to that of a block.

A block takes the least time of its forms. In those of `LatencySource.layer_forms` (as is, fused)
its time is a sum over the layers but for an *offset* that all choices of a composition have alike:
what norms, activations and shortcuts take, the input and the output of a fused block. So the search
adds times like parameters, one sum for each form. The offset of a composition is the time of one of
its blocks less the sum of its layers, and the least of the forms is taken with offsets. A collapsed
block is no sum, for what it computes depends on which layers are neighbours: its time is looked up
for the rows that are shown, and not searched.

A table has the times of whole blocks, few enough to look at one by one: `LayerTimes.blocks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ifspace.block import Block, Layer, SizedBlock, SizedLayer
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.kinds import ConvKind
from ifspace.latency import LatencySource

# Times of layers are whole picoseconds, so that sums are exact whatever their order; those of
# blocks are compared in whole nanoseconds.
PS_IN_MS: Final = 10**9
NS_IN_MS: Final = 10**6
PS_IN_NS: Final = 1000
# More than any sum of times that are known, in picoseconds: ten hours. Sums of it fit in 64 bits.
UNKNOWN_PS: Final = 1 << 55
# A latency that is not known, in nanoseconds: the greatest of all.
UNKNOWN_NS: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """The latencies of a setting: of its layers in each form, or of whole blocks.

    `side`: that of what a block writes, in pixels.
    """

    source: LatencySource
    setting: EnumerationSetting
    side: int

    @classmethod
    def of(
        cls, source: LatencySource, setting: EnumerationSetting, side: int | None
    ) -> "LayerTimes | None":
        """Return the latencies of a setting at a side; None where there are none of its shape.

        Raises: SettingError for a table of several sides, where `side` is None.
        """
        pixels = source.side_of(setting.reference, setting.stride) if side is None else side
        return None if pixels is None else cls(source, setting, pixels)

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms in which times of layers are added."""
        return self.source.layer_forms

    def layer(
        self, conv: ConvKind, layer: Layer, widths: Sequence[tuple[int, int]], before_stride: bool
    ) -> tuple[int, ...]:
        """Return the picoseconds of a layer in all copies of the block, in each form.

        `widths`: in each copy. The first copy has the stride, in its spatial layer.
        """
        strides = [self.setting.stride] + [1] * (len(widths) - 1)
        sums = []
        for form in self.forms:
            total = 0
            for (c_in, c_out), stride in zip(widths, strides, strict=True):
                side = self.side * stride if before_stride else self.side
                own = stride if conv.spatial else 1
                sized = SizedLayer(layer, c_in, c_out)
                ms = self.source.layer_ms(form, sized, side, own)
                total += UNKNOWN_PS if ms is None else round(ms * PS_IN_MS)
            sums.append(min(total, UNKNOWN_PS))
        return tuple(sums)

    def offset(self, form: str, block: SizedBlock, total: int) -> int | None:
        """Return the picoseconds of a block beside its layers, which take `total`.

        None where the block does not run in the form, or its time is not known.
        """
        ms = self.source.ms_in(form, block, self.side, self.setting.stride)
        return None if ms is None else round(ms * PS_IN_MS) - total

    def nanoseconds(self, sums: Sequence[int], offsets: Sequence[int | None]) -> int:
        """Return the latency of a block in its fastest form, given those of `offset`."""
        nanoseconds = [
            (total + offset + PS_IN_NS // 2) // PS_IN_NS
            for total, offset in zip(sums, offsets, strict=True)
            if total < UNKNOWN_PS and offset is not None
        ]
        return min(nanoseconds, default=UNKNOWN_NS)

    def blocks(self) -> tuple[tuple[Block, int], ...]:
        """Return the blocks of a table with their nanoseconds."""
        setting = self.setting
        if setting.bottleneck is not None or setting.dims != 2:
            return ()
        shape = setting.channels, setting.out_width, self.side, setting.stride
        blocks = map(Block.parse, self.source.blocks_at(*shape))
        timed = []
        for block in blocks:
            sized = block.at(setting.channels, setting.out_width)
            time = self.source.find(sized, self.side, setting.stride)
            timed += [] if time is None else [(block, int(time.ms * NS_IN_MS))]
        return tuple(timed)
