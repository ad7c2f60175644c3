"""The drawing of a block: which channels of its input the outputs of each layer see."""

from collections.abc import Sequence
from typing import Final

from ifspace.show.describe import SeenBy
from ifspace.table import (
    paragraph,
    terminal_width,
)

# One column a channel up to this width, or what the terminal leaves; wider blocks share columns.
MOST_COLUMNS: Final = 48
_LEAST_COLUMNS = 8
_MOST_ROWS = 8
_ALL, _SOME, _NONE = "█", "▒", "·"


def drawing(
    layers: Sequence[tuple[str, Sequence[SeenBy]]], channels: int, width: int | None = None
) -> str:
    """Return rows of input channels, one for the outputs that see the same, layer by layer.

    No row is wider than `width`, that of the terminal unless given.

    >>> print(drawing([("GPW(2)", [SeenBy((0, 1), 0b0011), SeenBy((2, 3), 0b1100)])], 4))
    layer   outputs  sees  input channel 0 to 3
    GPW(2)  0-1         2  ██··
            2-3         2  ··██
    """
    rows = [
        (layer if place == 0 else "", "..." if group is None else _ranges(group.outputs), group)
        for layer, groups in layers
        for place, group in enumerate(_some(groups))
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
        said = f"one column stands for {share} channels: {_ALL} all, {_SOME} some of them seen"
        text += "\n" + paragraph(said).removesuffix("\n")
    return text


def _some(groups: Sequence[SeenBy]) -> list[SeenBy | None]:
    """Return the groups, or the first ones, a gap and the last where there are many."""
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
    """Return the numbers with runs drawn together, cut where they are many.

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
