"""Latencies of single layers at any numbers of channels, measured here on demand.

What a layer takes is not proportional to its channels, and a search over widths asks for thousands
of pairs of them. So plain and depthwise layers are timed at some numbers of channels, each at most
half as many again as the one before, and in between the times are interpolated. So are those of
blocks and grouped layers, which are timed at powers of 2. One whose groups do not divide those
around it is timed at the nearest that they divide, and takes as much more or less as it has more or
fewer weights.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import log2
from typing import Final

from ifspace.block import SizedBlock, SizedLayer
from ifspace.errors import IfspaceError
from ifspace.latency import Latency, Shape
from ifspace.models.measuring import Measurer
from ifspace.nn.block import PLAIN, Style

# Numbers of channels that layers are timed at; a number below the first is timed as it is.
CHANNELS: Final = tuple(
    channels for power in range(3, 15) for channels in (2**power, 3 * 2 ** (power - 1))
)
# Those of blocks and grouped layers, of which there are many.
POWERS: Final = CHANNELS[::2]


@dataclass(frozen=True, slots=True, eq=False)
class LayerTimes:
    """A source of latencies that times what it is asked for; they are kept in a file.

    `style`: the norms, activations and biases that blocks are timed with.
    """

    measurer: Measurer
    style: Style = PLAIN

    @property
    def device(self) -> str | None:
        """The name of the device."""
        return self.measurer.device.type

    @property
    def dtype(self) -> str | None:
        """The type of the numbers."""
        return "fp32"

    @property
    def batch(self) -> int | None:
        """The images in a batch."""
        return self.measurer.batch

    @property
    def shapes(self) -> Collection[Shape]:
        """The shapes that are known: none that could be listed."""
        return ()

    @property
    def about(self) -> str:
        """What the latencies hold under, in words."""
        return self.measurer.about

    def side_of(self, block: SizedBlock, stride: int) -> int | None:
        """Return None: blocks are timed at any side."""
        return None

    def find(self, block: SizedBlock, side: int, stride: int = 1) -> Latency | None:
        """Return the latency of a block at the side that it writes, None where it does not run."""
        (layer, *more) = block.layers
        is_block = bool(more) or layer.layer.groups is not None
        inputs, outputs = (
            _around(count, POWERS if is_block else CHANNELS)
            for count in (block.channels, block.out_channels)
        )
        if not any(layer.conv.mixing for layer in block.layers):  # one number of channels
            corners = {(c, c): share for c, share in inputs.items()}
        else:
            corners = {(a, b): p * q for a, p in inputs.items() for b, q in outputs.items()}
        if not all(_fits(block, *corner) for corner in corners):
            near = _near(block)
            ms = self.measurer.block_ms(near, side, stride, self.style)
            return _latency(None if ms is None else ms * Fraction(block.params, near.params))
        total = Fraction(0)
        for (c_in, c_out), share in corners.items():
            at = block.block.at(c_in, c_out)
            ms = self.measurer.block_ms(at, side, stride, self.style)
            if ms is None:
                return None
            total += share * ms
        return _latency(total)

    # Blocks are timed as a whole, and no form is a sum over layers.

    def lacks(self, block: SizedBlock, side: int, stride: int = 1) -> frozenset[str]:
        """Return the empty set: what runs is timed."""
        return frozenset()

    @property
    def layer_forms(self) -> tuple[str, ...]:
        """None."""
        return ()

    def ms_in(self, form: str, block: SizedBlock, side: int, stride: int = 1) -> float | None:
        """Return None."""
        return None

    def layer_ms(self, form: str, layer: SizedLayer, side: int, stride: int = 1) -> float | None:
        """Return None."""
        return None

    def blocks_at(
        self, channels: int, out_channels: int, side: int, stride: int
    ) -> tuple[str, ...]:
        """Return none: any block is timed."""
        return ()


def _near(block: SizedBlock) -> SizedBlock:
    """Return a block at the powers of 2 nearest to its channels; as it is where they do not fit.

    >>> from ifspace.block import Block
    >>> near = _near(Block.parse("GPW(2)+SH(2)+GPW(4)").at(56, 112))
    >>> near.channels, near.out_channels
    (64, 128)
    """
    ends = [2 ** round(log2(count)) for count in (block.channels, block.out_channels)]
    try:
        near = block.block.at(*ends)
    except IfspaceError:
        return block
    return near if near.params else block


def _latency(ms: Fraction | None) -> Latency | None:
    return None if ms is None else Latency.of(ms)


def _fits(block: SizedBlock, c_in: int, c_out: int) -> bool:
    """Return whether a block can have these numbers of channels."""
    try:
        return block.block.at(c_in, c_out).params > 0
    except IfspaceError:
        return False


def _around(channels: int, timed: Sequence[int]) -> dict[int, Fraction]:
    """Return the numbers of channels around a number that are timed, with their shares.

    >>> _around(64, CHANNELS), _around(20, CHANNELS), _around(3, CHANNELS)
    ({64: Fraction(1, 1)}, {16: Fraction(1, 2), 24: Fraction(1, 2)}, {3: Fraction(1, 1)})
    """
    place = bisect_left(timed, channels)
    if not 0 < place < len(timed) or timed[place] == channels:
        return {channels: Fraction(1)}
    low, high = timed[place - 1 : place + 1]
    share = Fraction(channels - low, high - low)
    return {low: 1 - share, high: share}
