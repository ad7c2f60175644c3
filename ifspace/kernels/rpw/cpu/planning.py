"""Which way the CPU implementation takes: a cost of each, fitted to measured times.

The costs are nanoseconds of one core (AMD EPYC, AVX-512, float32) and only their order matters.
Arithmetic is linear in the multiplications, zeros included; copies are linear in the channels that
a pixel brings in, takes out and is expanded to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ifspace.kernels.rpw.cpu.bands import Band, Slices, band_of
from ifspace.kernels.windows import Windows

MAC: Final = 0.0095  # one multiplication and addition of a convolution at its best
GROUPED_MAC: Final = 0.024  # of a grouped convolution of planes, or a grouped weight gradient
NARROW: Final = 8  # a grouped convolution of so few results per group takes twice its time
MOVE: Final = 0.36  # one channel of a pixel, in or out, through the passes of a tiled way
MOVE_PLANES: Final = 0.25  # the same where whole planes move
PLANES: Final = 0.3  # one channel of a pixel that oneDNN brings into its own layout and back
EXPAND: Final = 0.12  # one channel of an expanded pixel
EXPAND_PLANES: Final = 0.3  # the same of planes, which oneDNN rearranges once more
GATHER: Final = 0.55  # one channel of a pixel moved by index
WEIGHT: Final = 0.75  # one element of a dense weight: scattered, then packed by oneDNN
TILE_WEIGHT: Final = 0.4  # one element of a tile
TILED: Final = 150_000.0  # the operators of a tiled way, before the first pixel
MARGIN: Final = 0.95  # a tiled way must promise this much of the dense way's cost
MOST_TILES: Final = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """How many tiles each of the three functions cuts the windows into; 0 is the dense way.

    >>> print(Plan(forward=8, weight_grad=4))
    forward: 8 tiles, input_grad: dense, weight_grad: 4 tiles
    """

    forward: int = 0
    input_grad: int = 0
    weight_grad: int = 0

    def __str__(self) -> str:
        """Return one line that says the way of each."""
        names = ("forward", "input_grad", "weight_grad")
        ways = ((name, getattr(self, name)) for name in names)
        return ", ".join(f"{name}: {f'{way} tiles' if way else 'dense'}" for name, way in ways)


def plan(windows: Windows, pixels: int, channels_last: bool) -> Plan:
    """Return the ways expected to be the fastest for N H W pixels in a layout.

    >>> from ifspace.kernels.windows import windows_of
    >>> print(plan(windows_of(512, 512, groups=4, overlap=0.5), 25088, channels_last=True))
    forward: 8 tiles, input_grad: 8 tiles, weight_grad: 8 tiles
    """
    return _plan(band_of(windows), pixels, channels_last)


@lru_cache(maxsize=1024)
def _plan(band: Band, pixels: int, channels_last: bool) -> Plan:
    c_in, c_out = band.windows.in_channels, band.windows.out_channels
    macs, moved = c_in * c_out, c_in + c_out
    planes = 0 if channels_last else PLANES * moved
    dense = pixels * (MAC * macs + planes) + WEIGHT * macs
    dense_grad = pixels * (1.05 * MAC * macs + PLANES * moved) + WEIGHT * macs
    mac, narrow, move, widen = (
        (MAC, NARROW, MOVE, EXPAND)
        if channels_last
        else (GROUPED_MAC, NARROW / 4, MOVE_PLANES, EXPAND_PLANES)
    )
    index = 0.0 if band.plain else GATHER * c_out

    def tiled(slices: Slices, results: int, mac: float) -> float:
        rows = results // slices.count
        work = mac * results * slices.width * (1 + narrow / rows)
        copies = move * moved + index + (0 if slices.is_ring else widen * slices.channels)
        return pixels * (work + copies) + TILE_WEIGHT * results * slices.width + TILED

    costs = [
        (
            tiles,
            tiled(band.tile_channels(tiles), c_out, mac),
            tiled(band.tile_filters(tiles), c_in, mac) + WEIGHT * macs / 2,
            tiled(band.tile_channels(tiles), c_out, GROUPED_MAC),
        )
        for tiles in _tile_counts(band)
    ]
    found = []
    for kind, limit in enumerate((dense, dense, dense_grad), 1):
        cost, tiles = min(((each[kind], each[0]) for each in costs), default=(limit, 0))
        found.append(tiles if cost < MARGIN * limit else 0)
    return Plan(*found)


def _tile_counts(band: Band) -> Iterator[int]:
    """Yield the numbers of tiles that can be: some zeros are left out, nothing is read twice."""
    if not band.per_window:
        return
    for tiles in range(2, min(band.distinct, MOST_TILES) + 1):
        if band.distinct % tiles == 0:
            slices = (band.tile_channels(tiles), band.tile_filters(tiles))
            if all(each.width < each.ring for each in slices):
                yield tiles
