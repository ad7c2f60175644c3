"""What a block makes a device do: operations, bytes and launches, layer by layer, by kind.

A model of latency is linear in these. Operations are those that are carried out, where that is
known to be more than the layer needs: groups of few channels fill a vector's lanes in part, and a
rolling pointwise convolution runs on a CPU as a dense one or in tiles with zeros between.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from ifspace.bench.blocks.cases import Candidate, Conditions
from ifspace.block import SizedLayer
from ifspace.kernels.rpw.cpu import Plan, plan
from ifspace.kernels.rpw.cpu.bands import band_of
from ifspace.kernels.windows import Windows, windows_of
from ifspace.nn.blocks import block_style

Features = Mapping[str, float]
OPERATIONS, PADDED, BYTES, LAUNCHES = "operations", "padded operations", "bytes", "launches"
# Numbers of 32 bits in a vector of AVX-512; the side of a tile of matrix units.
LANES: Final = 16
ELEMENTWISE: Final = "elementwise"


def features(candidate: Candidate, conditions: Conditions) -> Features:
    """Return the features of the forward pass of a batch, named "KIND operations" and so on.

    Reading and writing is counted for each layer: what one writes the next reads.
    """
    found: Counter[str] = Counter()
    size = conditions.torch_dtype.itemsize
    sides = _sides(candidate)
    for layer, (before, after) in zip(candidate.sized.layers, pairwise(sides), strict=True):
        pixels_in, pixels_out = (candidate.batch * side**2 for side in (before, after))
        moved = size * (pixels_in * layer.c_in + pixels_out * layer.c_out + layer.params)
        if layer.layer.kind == "RPW" and conditions.device.type == "cpu":
            found.update(_rolling(layer, pixels_out, moved, size, conditions.layout))
            continue
        kind = layer.layer.kind
        found.update({f"{kind} {BYTES}": moved, f"{kind} {LAUNCHES}": 1})
        if layer.params:
            found[f"{kind} {OPERATIONS}"] += 2 * layer.params * pixels_out
        if layer.conv.takes_groups and layer.params:
            ins, outs = (_up(each // layer.groups) for each in (layer.c_in, layer.c_out))
            taps = layer.groups * layer.kernel**2
            found[f"{kind} {PADDED}"] += 2 * ins * outs * taps * pixels_out
    found.update(_style(candidate, conditions, sides))
    return dict(found)


def ways(candidate: Candidate, conditions: Conditions) -> tuple[Plan, ...]:
    """Return which way each rolling pointwise convolution runs on a CPU: it hangs on the pixels."""
    if conditions.device.type != "cpu":
        return ()
    return tuple(
        plan(_windows(layer), candidate.batch * side**2, conditions.layout == "channels_last")
        for layer, side in zip(candidate.sized.layers, _sides(candidate)[1:], strict=True)
        if layer.layer.kind == "RPW"
    )


def _windows(layer: SizedLayer) -> Windows:
    return windows_of(layer.c_in, layer.c_out, layer.groups, layer.layer.overlap or 0)


def _sides(candidate: Candidate) -> list[int]:
    """Return the side of the maps before each layer and behind the last."""
    sides = [candidate.side * candidate.stride]
    for layer in candidate.sized.layers:
        sides.append(candidate.side if layer.conv.spatial else sides[-1])
    return sides


def _up(count: int) -> int:
    return -(-count // LANES) * LANES


def _rolling(layer: SizedLayer, pixels: int, moved: int, size: int, layout: str) -> dict[str, int]:
    """Return what `ifspace.kernels.rpw.cpu` makes of a rolling pointwise convolution."""
    windows = _windows(layer)
    tiles = plan(windows, pixels, layout == "channels_last").forward
    if not tiles:
        way, macs = "RPW dense", layer.c_in * layer.c_out
    else:
        slices = band_of(windows).tile_channels(tiles)
        way, macs = "RPW tiled", layer.c_out * slices.width
        moved += 0 if slices.is_ring else size * pixels * slices.channels
    return {
        f"{way} {OPERATIONS}": 2 * macs * pixels,
        f"{way} {BYTES}": moved,
        f"{way} {LAUNCHES}": 1,
    }


def _style(candidate: Candidate, conditions: Conditions, sides: list[int]) -> dict[str, int]:
    """Return the passes that batch norm, activation and sum make beside the layers."""
    style = block_style(conditions.style)
    passes = style.batch_norm + (style.activation is not None and style.where == "each")
    written = [
        layer.c_out * side**2 * passes
        for layer, side in zip(candidate.sized.layers, sides[1:], strict=True)
        if layer.conv.writes and passes
    ]
    if style.shortcut != "none" or (style.activation and style.where == "end"):
        written.append(2 * candidate.sized.out_channels * candidate.side**2)
    if not written:
        return {}
    moved = 2 * conditions.torch_dtype.itemsize * candidate.batch * sum(written)
    return {f"{ELEMENTWISE} {BYTES}": moved, f"{ELEMENTWISE} {LAUNCHES}": len(written)}
