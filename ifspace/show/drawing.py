"""The drawing of a block: which channels of its input the outputs of each layer see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ifspace.block import SizedBlock
from ifspace.reach import channel_reach
from ifspace.table import (
    paragraph,
    terminal_width,
)

# A column for each channel up to this width, or as many as fit; in wider blocks channels share one.
MOST_COLUMNS: Final = 48
_LEAST_COLUMNS = 8
_MOST_ROWS = 8
_ALL, _SOME, _NONE = "█", "▒", "·"


@dataclass(frozen=True, slots=True)
class SeenBy:
    """Output channels of a layer that see the same block-input channels, the bits of `seen`."""

    outputs: tuple[int, ...]
    seen: int


def who_sees_whom(sized: SizedBlock) -> tuple[tuple[SeenBy, ...], ...]:
    """Return for each layer its outputs, grouped by the block-input channels that they see.

    >>> from ifspace.block import Block
    >>> who_sees_whom(Block.parse("GPW(2)").at(4))
    ((SeenBy(outputs=(0, 1), seen=3), SeenBy(outputs=(2, 3), seen=12)),)
    """
    layers = []
    for length in range(1, len(sized.layers) + 1):
        outputs_of: dict[int, list[int]] = {}
        for output, seen in enumerate(channel_reach(sized.layers[:length])):
            outputs_of.setdefault(seen, []).append(output)
        layers.append(tuple(SeenBy(tuple(outputs), seen) for seen, outputs in outputs_of.items()))
    return tuple(layers)


def drawing(
    layers: Sequence[tuple[str, Sequence[SeenBy]]], channels: int, width: int | None = None
) -> str:
    """Draw, layer by layer, a row of input channels for each group of outputs that see the same.

    No row is wider than `width`, or the terminal if it is not given.

    >>> print(drawing([("GPW(2)", [SeenBy((0, 1), 0b0011), SeenBy((2, 3), 0b1100)])], 4))
    layer   outputs  sees  input channel 0 to 3
    GPW(2)  0-1         2  ██··
            2-3         2  ··██
    """
    rows = [
        (layer if n == 0 else "", "..." if group is None else _ranges(group.outputs), group)
        for layer, groups in layers
        for n, group in enumerate(_first_and_last(groups))
    ]
    first = max(map(len, (*(row[0] for row in rows), "layer")))
    second = max(map(len, (*(row[1] for row in rows), "outputs")))
    left = (terminal_width() if width is None else width) - first - second - len("    sees  ")
    share = -(-channels // min(MOST_COLUMNS, max(_LEAST_COLUMNS, left)))
    lines = [f"{'layer':{first}}  {'outputs':{second}}  sees  input channel 0 to {channels - 1}"]
    for layer, outputs, group in rows:
        line = f"{layer:{first}}  {outputs}"
        if group is not None:
            bar = _bar(group.seen, channels, share)
            line = f"{line:{first + 2 + second}}  {group.seen.bit_count():>4}  {bar}"
        lines.append(line)
    text = "\n".join(lines)
    if share > 1:
        legend = f"one column stands for {share} channels: {_ALL} all, {_SOME} some of them seen"
        text += "\n" + paragraph(legend).removesuffix("\n")
    return text


def _first_and_last(groups: Sequence[SeenBy]) -> list[SeenBy | None]:
    """Return the groups; of many the first ones, None for a gap, and the last."""
    if len(groups) <= _MOST_ROWS:
        return list(groups)
    return [*groups[: _MOST_ROWS // 2], None, groups[-1]]


def _bar(seen: int, channels: int, share: int) -> str:
    cells = []
    for start in range(0, channels, share):
        width = min(share, channels - start)
        bits = (seen >> start & (1 << width) - 1).bit_count()
        cells.append(_ALL if bits == width else _SOME if bits else _NONE)
    return "".join(cells)


def _ranges(outputs: Sequence[int]) -> str:
    """Return numbers with their runs as ranges, and no more than three of these.

    >>> _ranges([0, 1, 2, 5]), _ranges([0, 4, 8, 12])
    ('0-2,5', '0,4,8,..')
    """
    runs: list[list[int]] = []
    for output in outputs:
        if runs and output == runs[-1][-1] + 1:
            runs[-1][1:] = [output]
        else:
            runs.append([output])
    texts = ["-".join(map(str, run)) for run in runs]
    return ",".join(texts if len(texts) <= 3 else [*texts[:3], ".."])
