"""Rolling pointwise convolution (RPW) on a CPU, by compiled loops or plain torch operators.

A cost model (`plan_for`) chooses the way. *Compiled*: the loops of `ifspace.kernels.chain`, for all
types but float64. *Dense*: the weight is scattered into a dense
[C_out, C_in] matrix with zeros where a filter does not read. *Tiled*: the filters are sorted by
window and cut into tiles, which one grouped convolution computes; between its passes lies a chunk
of the activations that fits the caches.

All windows start at multiples of d = gcd(s, C_in). Sorted by its start, window q reads the ring of
input channels from q d on, so that the sorted filters form a band around a C_out x C_in matrix. P
windows are cut into T tiles of B = P/T neighbours, which together read w + (B - 1) d channels:

    window 0  ####..          with B = 2, d = 2, w = 4: a tile of two windows reads 6 channels, a
    window 1  ..####          third of its weights are zeros
    window 2      ####..
    window 3      ..####

The transposed matrix is a band as well: d input channels are read by neighbouring windows. One
tile of it is b = C_in/T input channels, and the sorted filters that read any of them.

Activations are handled as rows [R, C, I]: channels_last gives a row per pixel (I = 1), the
contiguous layout a row per image with planes of I = H W. So one code serves both, in runs of
contiguous memory.

Blocked order without overlap may also be a *grouped* convolution of torch.

Dense and tiled, zeros are multiplied: where an activation is infinite or not a number, so are all
results that its tile, or the dense convolution, computes from it. So they are chosen for windows of
more than `WIDE` channels alone, for float64, and where LLVM does not work.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from math import ceil, gcd
from typing import Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ifspace.kernels import costs
from ifspace.kernels.chain.engine import absence, layers
from ifspace.kernels.chain.stages import Stage, gradient_of
from ifspace.kernels.tensors import empty_with_channels, is_channels_last, memory_format
from ifspace.kernels.windows import BLOCKED, Windows, dense_weight, window_index

Index = NDArray[np.int64]

# Bytes of activations that a tiled pass reads at a time: it holds about six times as many.
CHUNK_BYTES: Final = 2 << 20

# The costs of the model are nanoseconds of one core (AMD EPYC, AVX-512, float32), and only their
# order matters. Arithmetic is linear in the multiplications, zeros included; copies are linear in
# the channels that a pixel brings in, takes out and is expanded to.
MAC: Final = 0.0095  # one multiplication and addition of a convolution at its best
GROUPED_MAC: Final = 0.024  # of a grouped convolution of planes, or a grouped weight gradient
NARROW: Final = 8  # a grouped convolution of so few results per group takes twice its time
MOVE: Final = 0.36  # one channel of a pixel, in or out, through the passes of a tiled convolution
MOVE_PLANES: Final = 0.25  # the same where whole planes move
PLANES: Final = 0.3  # one channel of a pixel that oneDNN brings into its own layout and back
EXPAND: Final = 0.12  # one channel of an expanded pixel
EXPAND_PLANES: Final = 0.3  # the same of planes, which oneDNN rearranges once more
GATHER: Final = 0.55  # one channel of a pixel moved by index
WEIGHT: Final = 0.75  # one element of a dense weight: scattered, then packed by oneDNN
TILE_WEIGHT: Final = 0.4  # one element of a tile
TILED: Final = 150_000.0  # the operators of a tiled convolution, before the first pixel
MARGIN: Final = 0.95  # tiles are used only below this share of the dense convolution's cost
MOST_TILES: Final = 32


# Of a gradient that calls Python, beyond one of torch.
AUTOGRAD: Final = 60_000.0

# Windows of more channels may be computed as dense: the compiled loops are at their best below.
WIDE: Final = 32
# Nor of so few pixels, for which scattering and gathering the weights takes longer than the sums.
FEW_PIXELS: Final = 64

# What stands in a plan instead of a number of tiles.
DENSE, COMPILED, GROUPED = 0, -1, -2
WAYS: Final = {DENSE: costs.DENSE, COMPILED: costs.COMPILED, GROUPED: costs.GROUPED}


@dataclass(frozen=True, slots=True)
class Plan:
    """How each of the three functions is computed: a number of tiles, or one of `WAYS`.

    >>> print(Plan(forward=8, input_grad=COMPILED))
    forward: 8 tiles, input_grad: compiled, weight_grad: dense
    """

    forward: int = 0
    input_grad: int = 0
    weight_grad: int = 0

    def __str__(self) -> str:
        """Return one line that says what each function does."""
        return ", ".join(f"{name}: {self.text(name)}" for name in costs.FUNCTIONS)

    def text(self, function: str) -> str:
        """Return what one of the three functions does."""
        tiles: int = getattr(self, function)
        return WAYS.get(tiles, f"{tiles} tiles")


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, plan: Plan | None = None
) -> Tensor:
    """Return the convolution [N, C_out, H, W] of x [N, C_in, H, W] with a weight [C_out, w].

    `plan`: how to compute it, None for that of `plan_for`. The result is channels_last if x is.
    """
    if not x.numel():
        return empty_with_channels(x, windows.out_channels)
    layout = memory_format(x)
    x = x.contiguous(memory_format=layout)
    tiles = (plan or _plan_for_input(x, windows, layout)).forward
    if tiles == COMPILED and (compiled := layers()):
        y: Tensor = compiled.forward(x, weight, bias, stage_of(windows))
        return y
    if tiles == GROUPED:
        return grouped(x, weight, bias, windows)
    if not tiles:
        y = F.conv2d(x, _scattered(weight, windows)[:, :, None, None], bias)
        return y.contiguous(memory_format=layout)
    rows, band = Rows.of(x), band_of(windows)
    order = torch.from_numpy(band.order)
    packed = pack_tiles(weight.index_select(0, order), band, tiles)
    bias = None if bias is None else bias.index_select(0, order)
    work = partial(convolve, weight=packed, bias=bias, groups=tiles)
    slices = band.tile_channels(tiles)
    return _stream(rows, windows.out_channels, None, slices, work, band.unsort)


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """Return `forward` of blocked windows without overlap as torch's convolution, for autograd."""
    kernel = weight.reshape(*weight.shape, 1, 1)
    y = F.conv2d(x, kernel, bias, groups=windows.groups)
    return y.contiguous(memory_format=memory_format(x))


def is_grouped_best(x: Tensor, windows: Windows) -> bool:
    """Return whether torch computes one of the functions best, and so, in one call, all of them.

    Its gradients together take less time than one after the other, and its autograd less than one
    that calls Python: also where all of them take no longer than the loops with that.
    """
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    # Torch's convolution raises for a feature map of height 0.
    return pixels > 0 and _is_grouped_best(windows, pixels, is_channels_last(x), x.dtype)


@lru_cache(maxsize=1024)
def _is_grouped_best(
    windows: Windows, pixels: int, channels_last: bool, dtype: torch.dtype
) -> bool:
    plan = plan_for(windows, pixels, channels_last, dtype)
    if GROUPED in (plan.forward, plan.input_grad, plan.weight_grad):
        return True
    times = [dict(x.times_ns) for x in choices(windows, pixels, channels_last, dtype).values()]
    if not all(times):
        return False
    compiled, grouped = (sum(x[way] for x in times) for way in (costs.COMPILED, costs.GROUPED))
    return grouped <= compiled + AUTOGRAD


def input_grad(grad: Tensor, weight: Tensor, windows: Windows, plan: Plan | None = None) -> Tensor:
    """Return the input's gradient [N, C_in, H, W] for grad [N, C_out, H, W], weight [C_out, w]."""
    if not grad.numel():
        return empty_with_channels(grad, windows.in_channels)
    layout = memory_format(grad)
    grad = grad.contiguous(memory_format=layout)
    tiles = (plan or _plan_for_input(grad, windows, layout)).input_grad
    if tiles == COMPILED and (compiled := layers()):
        grad_x: Tensor = compiled.input_grad(grad, weight, stage_of(windows))
        return grad_x
    if tiles in (DENSE, GROUPED):
        groups = windows.groups if tiles == GROUPED else 1
        kernel = weight if tiles == GROUPED else _scattered(weight, windows)
        # Not a convolution with the transposed weight: transposing costs more at one small image.
        x_like = empty_with_channels(grad, windows.in_channels)
        grad_x = convolve_back(grad, x_like, kernel, groups)
        return grad_x.contiguous(memory_format=layout)
    rows, band = Rows.of(grad), band_of(windows)
    packed = pack_transposed(weight.index_select(0, torch.from_numpy(band.order)), band, tiles)
    work = partial(convolve, weight=packed, bias=None, groups=tiles)
    return _stream(rows, windows.in_channels, band.sort, band.tile_filters(tiles), work, None)


def weight_grad(
    grad: Tensor, x: Tensor, windows: Windows, with_bias: bool = True, plan: Plan | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradients [C_out, w] of the weight and, `with_bias`, [C_out] of the bias.

    Of `grad` [N, C_out, H, W] and `x` [N, C_in, H, W], whose layouts may differ. Without the bias
    the second is empty.
    """
    grad_bias = grad.sum((0, 2, 3)) if with_bias else grad.new_empty(0)
    if not x.numel():
        return grad.new_zeros(windows.out_channels, windows.width), grad_bias
    layout = memory_format(x)
    x, grad = x.contiguous(memory_format=layout), grad.contiguous(memory_format=layout)
    tiles = (plan or _plan_for_input(x, windows, layout)).weight_grad
    if tiles == COMPILED and (compiled := layers()):
        grad_weight: Tensor = compiled.weight_grad(grad, x, stage_of(windows))
        return grad_weight.view(windows.out_channels, windows.width), grad_bias
    if tiles == GROUPED:
        return convolve_weight(grad, x, windows.groups), grad_bias
    if not tiles:
        return convolve_weight(grad, x, 1).gather(1, _read_channels(windows)), grad_bias
    band = band_of(windows)
    rows, grad_rows, slices = Rows.of(x), Rows.of(grad), band.tile_channels(tiles)
    packed = grad.new_zeros(windows.out_channels, slices.width, dtype=_sum_type(grad.dtype))
    buffer, size = _buffer(rows, slices)
    sort = band.sort
    for chunk, grad_chunk in zip(
        torch.split(rows.data, size), torch.split(grad_rows.data, size), strict=True
    ):
        sorted_grad = grad_chunk if sort is None else sort(grad_chunk)
        expanded = _expanded(chunk, slices, buffer)
        packed += convolve_weight(as_images(sorted_grad), as_images(expanded), tiles)
    place = torch.from_numpy(band.place)
    grad_weight = unpack_tiles(packed, band, tiles).index_select(0, place)
    return grad_weight.to(grad.dtype), grad_bias


@lru_cache(maxsize=1024)
def plan_for(
    windows: Windows, pixels: int, channels_last: bool, dtype: torch.dtype = torch.float32
) -> Plan:
    """Return the plan expected to be the fastest for N H W pixels of a type in a layout.

    >>> from ifspace.kernels.windows import windows_of
    >>> print(plan_for(windows_of(64, 64, groups=16), 784, channels_last=False))
    forward: compiled, input_grad: compiled, weight_grad: compiled
    """
    plan = (
        Plan(*(GROUPED,) * 3) if windows.is_grouped else tiles_for(windows, pixels, channels_last)
    )
    if dtype not in costs.DTYPES or layers() is None:
        return plan
    ways = {}
    for function, choice in choices(windows, pixels, channels_last, dtype).items():
        ways[function] = COMPILED if choice.way == costs.COMPILED else getattr(plan, function)
    return Plan(**ways)


def choices(
    windows: Windows, pixels: int, channels_last: bool, dtype: torch.dtype = torch.float32
) -> dict[str, costs.Choice]:
    """Return for each of the three functions which way is chosen, and why: see `costs.Choice`."""
    stage = stage_of(windows)
    sizes = windows.in_channels, windows.out_channels, windows.width, 1, pixels, pixels
    groups = windows.groups if windows.is_grouped else 0
    is_wide = not groups and windows.width > WIDE and pixels > FEW_PIXELS
    together = dict.fromkeys(costs.FUNCTIONS, stage.together)
    together["input_grad"] = gradient_of(stage).together
    return {
        function: costs.choose(
            costs.Layer(*sizes, pixels, count, groups, is_wide), function, dtype, channels_last
        )
        for function, count in together.items()
    }


def explain(x: Tensor, windows: Windows) -> str:
    """Return which way computes each of the three functions for x [N, C_in, H, W], and why.

    >>> from ifspace.kernels.windows import windows_of
    >>> text = explain(torch.ones(1, 64, 28, 28), windows_of(64, 64, groups=16))
    >>> [line.split(" (")[0] for line in text.splitlines()]
    ['forward: compiled', 'input_grad: compiled', 'weight_grad: compiled']
    """
    layout, pixels = memory_format(x), x.shape[0] * x.shape[2] * x.shape[3]
    plan, is_last = _plan_for_input(x, windows, layout), layout == torch.channels_last
    reasons, missing = {}, absence()
    if x.dtype in costs.DTYPES and layers() is not None:
        for function, choice in choices(windows, pixels, is_last, x.dtype).items():
            reasons[function] = choice.reason
    return "\n".join(
        f"{name}: {plan.text(name)} ({reasons.get(name, missing)})" for name in costs.FUNCTIONS
    )


@lru_cache(maxsize=1024)
def tiles_for(windows: Windows, pixels: int, channels_last: bool) -> Plan:
    """Return the plan expected to be the fastest by torch's operators alone.

    >>> from ifspace.kernels.windows import windows_of
    >>> print(tiles_for(windows_of(512, 512, groups=4, overlap=0.5), 25088, channels_last=True))
    forward: 8 tiles, input_grad: 8 tiles, weight_grad: 8 tiles
    """
    band = band_of(windows)
    c_in, c_out = windows.in_channels, windows.out_channels
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

    # For each number of tiles: the costs of the three functions.
    costs = {
        tiles: (
            tiled(band.tile_channels(tiles), c_out, mac),
            tiled(band.tile_filters(tiles), c_in, mac) + WEIGHT * macs / 2,
            tiled(band.tile_channels(tiles), c_out, GROUPED_MAC),
        )
        for tiles in band.tile_counts()
    }
    counts = []
    for function, limit in enumerate((dense, dense, dense_grad)):
        cost, tiles = min(
            ((row[function], count) for count, row in costs.items()), default=(limit, 0)
        )
        counts.append(tiles if cost < MARGIN * limit else 0)
    return Plan(*counts)


@lru_cache(maxsize=1024)
def stage_of(windows: Windows) -> Stage:
    """Return the stage that computes an RPW layer."""
    sizes = windows.in_channels, windows.out_channels, windows.width, windows.step
    return Stage(*sizes, windows.order)


def _plan_for_input(x: Tensor, windows: Windows, layout: torch.memory_format) -> Plan:
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return plan_for(windows, pixels, layout == torch.channels_last, x.dtype)


# ---- the band of weights and its tiles


class Copy(NamedTuple):
    """One strided copy: `run` slices from slice `number` on, `length` channels of each.

    The channels from `start` on go to position `offset` in the slice.
    """

    number: int
    run: int
    start: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices of equal width, `spacing` channels apart, of a ring of channels.

    >>> for copy in Slices(ring=8, start=0, spacing=2, width=4, count=4).copies:
    ...     print(copy)
    Copy(number=0, run=3, start=0, offset=0, length=4)
    Copy(number=3, run=1, start=6, offset=0, length=2)
    Copy(number=3, run=1, start=0, offset=2, length=2)
    """

    ring: int
    start: int
    spacing: int
    width: int
    count: int
    copies: tuple[Copy, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """List the copies once."""
        object.__setattr__(self, "copies", tuple(self._copies()))

    def _copies(self) -> Iterator[Copy]:
        number = 0
        while number < self.count:
            start = (self.start + number * self.spacing) % self.ring
            room = self.ring - start
            if room < self.width:
                yield Copy(number, 1, start, 0, room)
                yield Copy(number, 1, 0, room, self.width - room)
                number += 1
            else:
                run = min((room - self.width) // self.spacing + 1, self.count - number)
                yield Copy(number, run, start, 0, self.width)
                number += run

    @property
    def channels(self) -> int:
        """The channels of all slices together."""
        return self.count * self.width

    @property
    def is_ring(self) -> bool:
        """Whether the slices one after the other are the ring itself."""
        return self.start == 0 and self.width == self.spacing


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """The sorted filters of an RPW layer; make it with `band_of`.

    `distinct` (P) windows of `width` (w) channels start `pitch` (d) channels apart; each has
    `per_window` (F) filters, 0 if they do not all have as many: then there are no tiles.
    `order` [C_out]: the filters by their windows' starts; `place` [C_out]: the index of each filter
    in it. `plain`: sorting leaves the windows in order, as it does when the step divides C_in; then
    sorting filters [F, P] -> [P, F] is a transposition, and in blocked order nothing.
    """

    windows: Windows
    pitch: int
    distinct: int
    per_window: int
    order: Index
    place: Index
    plain: bool

    @classmethod
    def of(cls, windows: Windows) -> Self:
        """Return the band of a windows table."""
        filters = np.arange(windows.out_channels, dtype=np.int64)
        starts = np.array(windows.starts)
        read = window_index(filters, windows.distinct, windows.out_channels, windows.order)
        order = np.argsort(starts[read], kind="stable")
        return cls(
            windows,
            gcd(windows.step, windows.in_channels),
            windows.distinct,
            0 if windows.out_channels % windows.distinct else windows.filters[0],
            order,
            np.argsort(order, kind="stable"),
            bool((np.diff(starts) > 0).all()),
        )

    @property
    def reach(self) -> int:
        """The windows before a window that still read its first channel."""
        return (self.windows.width - 1) // self.pitch

    @property
    def is_sorted(self) -> bool:
        """Whether the filters are in the order of the band as they are."""
        return self.plain and self.windows.order == BLOCKED

    @property
    def sort(self) -> "Reorder | None":
        """The reordering of filters into the order of the band, None if they are in it."""
        return self._reorder(self.order, self.per_window)

    @property
    def unsort(self) -> "Reorder | None":
        """The reordering of sorted filters back into their own order, None if they are in it."""
        return self._reorder(self.place, self.distinct)

    def _reorder(self, index: Index, groups: int) -> "Reorder | None":
        return None if self.is_sorted else Reorder(index, groups if self.plain else 0)

    @cache  # noqa: B019 - band_of keeps few bands
    def tile_channels(self, tiles: int) -> Slices:
        """Return which input channels each tile reads, if the windows are cut into that many."""
        width = self.windows.width + (self.distinct // tiles - 1) * self.pitch
        ring = self.windows.in_channels
        return Slices(ring, 0, ring // tiles, width, tiles)

    @cache  # noqa: B019
    def tile_filters(self, tiles: int) -> Slices:
        """Return which sorted filters read each block of C_in / tiles input channels."""
        count, filters = self.distinct // tiles + self.reach, self.per_window
        ring = self.windows.out_channels
        return Slices(ring, -self.reach * filters % ring, ring // tiles, count * filters, tiles)

    def tile_counts(self) -> Iterator[int]:
        """Yield the possible numbers of tiles: some zeros are left out, nothing is read twice."""
        if not self.per_window:
            return
        for tiles in range(2, min(self.distinct, MOST_TILES) + 1):
            if self.distinct % tiles == 0:
                both = (self.tile_channels(tiles), self.tile_filters(tiles))
                if all(slices.width < slices.ring for slices in both):
                    yield tiles


@lru_cache(maxsize=256)
def band_of(windows: Windows) -> Band:
    """Return the band of a windows table, computed once."""
    return Band.of(windows)


@lru_cache(maxsize=64)
def _read_channels_index(windows: Windows) -> Index:
    return windows.read_channels("cpu").numpy()


def _read_channels(windows: Windows) -> Tensor:
    """Return the input channels that each filter reads [C_out, w], computed once."""
    return torch.from_numpy(_read_channels_index(windows))


def _scattered(weight: Tensor, windows: Windows) -> Tensor:
    """Return the dense weight [C_out, C_in]."""
    channels = _read_channels(windows)
    return dense_weight(weight, windows.in_channels, windows.step, channels, windows.order)


# ---- the passes over a chunk of activations and over the weights


@dataclass(frozen=True, slots=True)
class Rows:
    """Activations [N, C, H, W] as rows [R, C, I], without a copy if they lie that way."""

    data: Tensor
    images: torch.Size  # N, C, H, W
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """Return the rows of activations; other strides than the two layouts' are copied."""
        n, c, h, w = x.shape
        if is_channels_last(x):
            return cls(x.permute(0, 2, 3, 1).view(n * h * w, c, 1), x.shape, True)
        return cls(x.contiguous().view(n, c, h * w), x.shape, False)

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout of the activations."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def like(self, channels: int) -> Self:
        """Return uninitialised rows of other channels in the same layout."""
        rows, _, inner = self.data.shape
        n, _, h, w = self.images
        data = self.data.new_empty(rows, channels, inner)
        return type(self)(data, torch.Size((n, channels, h, w)), self.channels_last)

    def unflatten(self) -> Tensor:
        """Return the activations [N, C, H, W] in their layout."""
        n, c, h, w = self.images
        if self.channels_last:
            return self.data.view(n, h, w, c).permute(0, 3, 1, 2)
        return self.data.view(n, c, h, w)


@dataclass(frozen=True, slots=True)
class Reorder:
    """A permutation of the channels: as a transposition of groups, where it is one, or by index.

    `index`: result channel i is channel index[i]; `groups` > 0: it is also channel_shuffle(groups).
    """

    index: Index
    groups: int

    def __call__(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Return rows [R, C, I] with their channels in the new order, in `out` if given."""
        count, channels, inner = rows.shape
        if inner > 1:
            return torch.index_select(rows, 1, torch.from_numpy(self.index), out=out)
        if not self.groups:
            index = torch.from_numpy(self.index).expand(count, -1)
            flat = None if out is None else out.view(count, channels)
            return torch.gather(rows.view(count, channels), 1, index, out=flat).unsqueeze(2)
        # The transposition kernel of channel_shuffle is twice as fast as a gather or a strided
        # copy, even with a second copy behind it.
        shuffled = torch.native_channel_shuffle(as_images(rows), self.groups)
        shuffled = shuffled.permute(0, 2, 3, 1).reshape(count, channels, 1)
        return shuffled if out is None else out.copy_(shuffled)


def as_images(rows: Tensor) -> Tensor:
    """View rows [R, C, 1] as channels_last images [n, C, 1, R/n], others [R, C, I] as [R, C, 1, I].

    One long image is the fastest, but torch convolves 16 images or fewer by one thread without
    oneDNN, so a single thread gets 32 images where that divides R.
    """
    count, channels, inner = rows.shape
    if inner == 1:
        images = 1 if count % 32 or torch.get_num_threads() > 1 else 32
        return rows.view(images, 1, count // images, channels).permute(0, 3, 1, 2)
    return rows.unsqueeze(2)


def expand(rows: Tensor, slices: Slices, out: Tensor) -> Tensor:
    """Copy the slices of rows [R, ring, I], one after the other, to out [R, channels, I]."""
    count, _, inner = rows.shape
    table = out.view(count, slices.count, slices.width * inner)
    strides = (rows.stride(0), slices.spacing * inner, 1)
    for number, run, start, offset, length in slices.copies:
        size = (count, run, length * inner)
        source = rows.as_strided(size, strides, rows.storage_offset() + start * inner)
        begin = offset * inner
        table[:, number : number + run, begin : begin + length * inner].copy_(source)
    return out


def convolve(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Return the 1x1 convolution [R, C_out, I] of rows [R, C, I], weight [C_out, C/groups]."""
    count, _, inner = rows.shape
    y = F.conv2d(as_images(rows), weight[:, :, None, None], bias, groups=groups)
    if inner == 1:
        y = y.permute(0, 2, 3, 1)
    return y.reshape(count, -1, inner)


def convolve_weight(grad: Tensor, x: Tensor, groups: int) -> Tensor:
    """Return the weight gradient [C_out, C/groups] of a 1x1 convolution of x [N, C, H, W]."""
    size = (grad.shape[1], x.shape[1] // groups, 1, 1)
    weight = x.new_empty(size)  # only its shape is used
    return _convolution_backward(grad, x, weight, groups, (False, True))[1].reshape(size[:2])


def convolve_back(grad: Tensor, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return the input gradient [N, C_in, H, W] of a 1x1 convolution, weight [C_out, C_in/groups].

    Only the shape and the layout of x [N, C_in, H, W] are used.
    """
    return _convolution_backward(grad, x, weight[:, :, None, None], groups, (True, False))[0]


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, groups: int, needed: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Return those gradients of a 1x1 convolution, by x and by its weight, that are `needed`."""
    by_x, by_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, [0], [1, 1], [0, 0], [1, 1], False, [0, 0], groups, [*needed, False]
    )
    return by_x, by_weight


def pack_tiles(weight: Tensor, band: Band, tiles: int) -> Tensor:
    """Return the tiles' weights [C_out, tile width] of sorted filters [C_out, w]."""
    windows = band.windows
    packed = weight.new_zeros(windows.out_channels * band.tile_channels(tiles).width)
    by_window = weight.view(tiles, band.distinct // tiles, band.per_window, windows.width)
    _band_view(packed, band, tiles).copy_(by_window)
    return packed.view(windows.out_channels, -1)


def unpack_tiles(packed: Tensor, band: Band, tiles: int) -> Tensor:
    """Return the sorted filters [C_out, w] that tiles' weights [C_out, tile width] hold."""
    return _band_view(packed, band, tiles).reshape(band.windows.out_channels, band.windows.width)


def _band_view(packed: Tensor, band: Band, tiles: int) -> Tensor:
    """View the band in tiles' weights as [tiles, windows in a tile, filters of a window, w]."""
    inside, width = band.distinct // tiles, band.tile_channels(tiles).width
    size = (tiles, inside, band.per_window, band.windows.width)
    window = band.per_window * width  # each window of a tile sits one pitch further right
    return packed.as_strided(size, (inside * window, window + band.pitch, width, 1))


def pack_transposed(weight: Tensor, band: Band, tiles: int) -> Tensor:
    """Return the transposed band's tiles [C_in, filters of a tile] of sorted filters [C_out, w].

    A tile is b input channels; counted from the first window that reads it, window i holds channel
    c of it at index c + (reach d) - (i d) of its w weights, with zeros on both sides.
    """
    filters, pitch, width = band.per_window, band.pitch, band.windows.width
    block, inside = band.windows.in_channels // tiles, band.distinct // tiles
    count, pad = inside + band.reach, block - pitch
    length = pad + block + band.reach * pitch
    padded = weight.new_zeros(band.distinct + band.reach, filters, length)
    padded[band.reach :, :, pad : pad + width] = weight.view(band.distinct, filters, width)
    padded[: band.reach, :, pad : pad + width] = padded[band.distinct :, :, pad : pad + width]
    size = (tiles, count, filters, block)
    strides = (inside * filters * length, filters * length - pitch, length, 1)
    tile = padded.as_strided(size, strides, pad + band.reach * pitch)
    return tile.permute(0, 3, 1, 2).reshape(band.windows.in_channels, count * filters)


def _stream(
    rows: Rows,
    channels: int,
    before: Reorder | None,
    slices: Slices,
    work: Callable[[Tensor], Tensor],
    after: Reorder | None,
) -> Tensor:
    """Return the result of all passes, chunk by chunk: reorder, expand, work, reorder."""
    buffer, size = _buffer(rows, slices)
    result = rows.like(channels)
    chunks = zip(torch.split(rows.data, size), torch.split(result.data, size), strict=True)
    for chunk, out in chunks:
        y = work(_expanded(chunk if before is None else before(chunk), slices, buffer))
        if after is None:
            out.copy_(y)
        else:
            after(y, out)
    return result.unflatten()


def _buffer(rows: Rows, slices: Slices) -> tuple[Tensor, int]:
    """Return room for the slices of a chunk, and the rows of a chunk: all are about as long."""
    count, channels, inner = rows.data.shape
    most = max(1, CHUNK_BYTES // (channels * inner * rows.data.element_size()))
    size = ceil(count / ceil(count / most))
    if inner == 1 and torch.get_num_threads() == 1:
        size += -size % 32  # see as_images
    room = 0 if slices.is_ring else size
    return rows.data.new_empty(room, slices.channels, inner), size


def _expanded(chunk: Tensor, slices: Slices, buffer: Tensor) -> Tensor:
    """Return the slices of a chunk [R, C, I] in the buffer; the chunk itself if it is the ring."""
    return expand(chunk, slices, buffer[: len(chunk)]) if len(buffer) else chunk


def _sum_type(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which chunks are added: none is less precise than float32."""
    return torch.promote_types(dtype, torch.float32)
