"""Which filters, channels and pixels a tile of a Triton kernel holds, and its weights.

Filters in *sorted order*: with d = gcd(step, C_in) the P = C_in/d windows start at 0, d, 2d ...;
sorted index n stands for the filter p + i P whose window starts at d r, where r, i = divmod(n, q),
q = ceil(C_out/P) and p = r (step/d)^-1 mod P. Neighbours share a window or have windows d apart,
so a tile of them reads the *union* of its windows once: a super-window, with zeros in the weight.
Where P does not divide C_out some n stand for no filter and are masked. They cost lanes: with
C_out < P, P/C_out times the tiles. *Natural order*: n is the filter. The union of a tile soon is
the whole input, but what the tile writes lies side by side in a channels-last tensor.

*Whole vectors*: so that 16 bytes are read at a time, a window starts at a multiple of `vector`
channels and is filled up with zeros on both sides where it does not of itself (`pad_kernel`);
`window` and `start` are those of the filled windows everywhere below.

Only integers come from the host (`numbers`): no table lives on the device.

An infinity or NaN in one channel of a union reaches all filters of the tile (0 times inf).
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from functools import cache
from math import gcd

import triton
import triton.language as tl

from ifspace.kernels.windows import Windows


@cache
def numbers(windows: Windows) -> dict[str, int]:
    """Return what the functions below are told of the windows, by the names of their arguments.

    >>> from ifspace.kernels.windows import windows_of
    >>> numbers(windows_of(16, 10, groups=2, overlap=0.33))  # doctest: +NORMALIZE_WHITESPACE
    {'in_channels': 16, 'out_channels': 10, 'window': 16, 'step': 6, 'unit': 2, 'distinct': 8,
     'share': 2, 'inverse': 3}
    """
    unit, distinct = gcd(windows.step, windows.in_channels), windows.distinct
    return {
        "in_channels": windows.in_channels,
        "out_channels": windows.out_channels,
        "window": filled_width(windows),
        "step": windows.step,
        "unit": unit,
        "distinct": distinct,
        "share": -(-windows.out_channels // distinct),
        "inverse": pow(windows.step // unit, -1, distinct),
    }


def vector_of(windows: Windows) -> int:
    """Return how many channels are read at a time, at most 16: a divisor of C_in."""
    return gcd(windows.in_channels, 16)


def needs_filling(windows: Windows) -> bool:
    """Return whether some window does not start at, or consist of, whole vectors.

    A window of all channels too is filled where it starts between: its weights are rotated.
    """
    vector = vector_of(windows)
    return windows.step % vector != 0 or windows.width % vector != 0


def filled_width(windows: Windows) -> int:
    """Return the width of the windows in whole vectors; that of the windows where these fit.

    >>> from ifspace.kernels.windows import windows_of
    >>> [filled_width(windows_of(512, 512, 4, overlap)) for overlap in ("1/2", "0.33")]
    [128, 144]
    """
    vector = vector_of(windows)
    aside = vector - gcd(windows.step, vector)  # the most that a start is rounded down
    return min(-(-(windows.width + aside) // vector) * vector, windows.in_channels)


def places(windows: Windows, order: str) -> int:
    """Return how many places filters take in an order: sorted ones have holes."""
    told = numbers(windows)
    return told["distinct"] * told["share"] if order == "sorted" else windows.out_channels


def longest_union(windows: Windows, filters: int, order: str) -> int:
    """Return an upper bound on the channels that a tile of filters reads: see `union_of`."""
    told = numbers(windows)
    if order == "natural":
        reach = (filters - 1) * windows.step
    else:
        # A tile that starts inside the filters of one window touches one window more.
        reach = triton.cdiv(filters - 1, told["share"]) * told["unit"]
    return int(min(reach + vector_of(windows) + told["window"], windows.in_channels))


@triton.jit
def along(vector, LAST: tl.constexpr):
    """Spread a vector along the last axis of a tile, or along its first."""
    if LAST:
        return vector[None, :]
    else:
        return vector[:, None]


@triton.jit
def pixels_at(
    index, plane, row, of_image, of_row, of_pixel, EVEN: tl.constexpr, FLAT: tl.constexpr
):
    """Return where pixels, counted through the images, lie before the stride of channels.

    EVEN: a row goes on where the last one ends; FLAT: so do the images.
    """
    if FLAT:
        return index * of_pixel
    else:
        inside = index % plane
        if EVEN:
            return index // plane * of_image + inside * of_pixel
        else:
            return index // plane * of_image + inside // row * of_row + inside % row * of_pixel


@triton.jit
def filters_at(
    index,
    in_channels,
    out_channels,
    step,
    unit,
    distinct,
    share,
    inverse,
    VECTOR: tl.constexpr,
    NATURAL: tl.constexpr,
):
    """Return the filters at some indices, where their windows start, and which of them exist."""
    if NATURAL:
        filters = index
        start = index % distinct * step % in_channels
        exists = index < out_channels
    else:
        turn = index // share
        filters = turn * inverse % distinct + index % share * distinct
        start = turn * unit
        exists = (turn < distinct) & (filters < out_channels)
    return filters, start - start % VECTOR, exists


@triton.jit
def union_of(
    first,
    in_channels,
    out_channels,
    window,
    step,
    unit,
    distinct,
    share,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    NATURAL: tl.constexpr,
):
    """Return the first channel and the length of the union of the windows of a tile of filters.

    The length is C_in at most, so no channel is met twice however the union wraps.
    """
    if NATURAL:
        start = first % distinct * step % in_channels
        last = tl.minimum(first + BLOCK, out_channels) - 1
        reach = tl.minimum(last - first, distinct) * step
    else:
        start = first // share * unit
        last = tl.minimum(first + BLOCK, distinct * share) - 1
        reach = (last // share - first // share) * unit
    length = tl.minimum(tl.cdiv(reach, VECTOR) * VECTOR + window, in_channels)
    return start - start % VECTOR, tl.multiple_of(length, VECTOR)


@triton.jit
def channels_at(position, in_channels, VECTOR: tl.constexpr):
    """Return the channels at positions counted from 0 that go on past C_in, whole vectors each."""
    return tl.max_contiguous(tl.multiple_of(position % in_channels, VECTOR), VECTOR)


@triton.jit
def filters_meeting(first, in_channels, window, unit, distinct, share, BLOCK: tl.constexpr):
    """Return the first sorted index, and how many, whose windows meet channels from `first` on.

    A window meets the BLOCK channels when it starts at most w - 1 before them; the indices go on
    past the last one at 0. Starts are counted one round later, so that no dividend is negative.
    """
    low = (first + in_channels - window) // unit + 1
    high = (tl.minimum(first + BLOCK, in_channels) - 1 + in_channels) // unit
    return low % distinct * share, tl.minimum(high - low + 1, distinct) * share


@triton.jit
def weight_tile(
    weight,
    filters,
    start,
    exists,
    channel,
    inside,
    in_channels,
    window,
    VECTOR: tl.constexpr,
    FILTERS_LAST: tl.constexpr,
):
    """Return the dense weight of a tile of filters and channels: zero outside each window."""
    within = along(channel, not FILTERS_LAST) - along(start, FILTERS_LAST)
    within = tl.where(within < 0, within + in_channels, within)
    if FILTERS_LAST:
        within = tl.max_contiguous(tl.multiple_of(within, (VECTOR, 1)), (VECTOR, 1))
    else:
        within = tl.max_contiguous(tl.multiple_of(within, (1, VECTOR)), (1, VECTOR))
    read = (within < window) & along(exists, FILTERS_LAST) & along(inside, not FILTERS_LAST)
    return tl.load(weight + along(filters, FILTERS_LAST) * window + within, mask=read, other=0.0)


@triton.jit
def place_within(
    filters, within, in_channels, step, distinct, VECTOR: tl.constexpr, FILLED: tl.constexpr
):
    """Return where weights of the true windows stand in the filled ones, or FILLED: the reverse.

    What stands at w or beyond in a true window is none of it.
    """
    aside = filters % distinct * step % in_channels % VECTOR
    place = within - aside if FILLED else within + aside
    return tl.where(
        place < 0, place + in_channels, tl.where(place < in_channels, place, place - in_channels)
    )


@triton.jit
def pad_kernel(
    weight,
    filled,
    in_channels,
    width,
    window,
    step,
    distinct,
    entries,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the filled weight [C_out, window] of the true weight [C_out, width]."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    filters = entry // window
    within = place_within(filters, entry % window, in_channels, step, distinct, VECTOR, True)
    read = (within < width) & (entry < entries)
    value = tl.load(weight + filters * width + within, mask=read, other=0.0)
    tl.store(filled + entry, value, mask=entry < entries)
