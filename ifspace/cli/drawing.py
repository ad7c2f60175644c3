"""The drawing of a block: which channels of its input the outputs of each layer see."""

from collections.abc import Sequence
from typing import Final

from ifspace.plan.describe import SeenBy

# One column a channel up to this width; wider blocks share columns.
MOST_COLUMNS: Final = 48
_MOST_ROWS = 8
_ALL, _SOME, _NONE = "█", "▒", "·"


def drawing(layers: Sequence[tuple[str, Sequence[SeenBy]]], channels: int) -> str:
    """Return rows of input channels, one for the outputs that see the same, layer by layer.

    >>> print(drawing([("GPW(2)", [SeenBy((0, 1), 0b0011), SeenBy((2, 3), 0b1100)])], 4))
    layer   outputs  sees  input channel 0 to 3
    GPW(2)  0-1         2  ██··
            2-3         2  ··██
    """
    share = -(-channels // MOST_COLUMNS)
    rows = []
    for layer, groups in layers:
        for place, group in enumerate(_some(groups)):
            name = layer if place == 0 else ""
            if group is None:
                rows.append((name, "...", "", ""))
                continue
            seen = group.seen.bit_count()
            rows.append(
                (name, _ranges(group.outputs), str(seen), _bar(group.seen, channels, share))
            )
    first = max(map(len, (*(row[0] for row in rows), "layer")))
    second = max(map(len, (*(row[1] for row in rows), "outputs")))
    head = f"{'layer':{first}}  {'outputs':{second}}  sees  input channel 0 to {channels - 1}"
    lines = [f"{a:{first}}  {b:{second}}  {c:>4}  {d}".rstrip() for a, b, c, d in rows]
    if share > 1:
        lines.append(
            f"one column stands for {share} channels: {_ALL} all, {_SOME} some of them seen"
        )
    return "\n".join([head, *lines])


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
