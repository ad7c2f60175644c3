"""Compositions, blocks and their widths: the notation, parsed once into frozen values.

A `Composition` is a sequence of kinds, such as DW+GPW. A `Block` is a sequence of `Layer`s: kinds
with their groups, overlap and kernel size chosen, such as DW+GPW(8). A `SizedBlock` is a block at
concrete widths, a chain of `SizedLayer`s: parameters, MACs and fields are computed from it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import gcd, prod
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt
import sympy

from ifspace.errors import ARGUMENT, BlockError, SettingError
from ifspace.floors import Floors
from ifspace.kinds import (
    BLOCKED,
    ORDERS,
    ROLLING,
    C,
    C_in,
    C_out,
    ConvKind,
    F,
    K,
    P,
    d,
    distinct_windows,
    find_kind,
    g,
    k,
    position,
    s,
    step,
    w,
)
from ifspace.memory import Schedule, Step
from ifspace.values import (
    MAX_COPIES,
    MAX_KERNEL,
    MAX_LAYERS,
    choice,
    parse_overlap,
    parse_ratio,
    set_fields,
    whole_number,
)

DEFAULT_KERNEL: Final = 3
# Residual shortcuts around a block; "auto" is an identity where the shapes are equal.
NO_SHORTCUT, IDENTITY, PROJECTION = "none", "identity", "projection"
SHORTCUTS: Final = (NO_SHORTCUT, IDENTITY, PROJECTION, "auto")
# Layers in the order in which they run.
Chain = Sequence["SizedLayer"]
_EXAMPLE: Final = "write it like DW+RPW(8,1/2)+SH(4)+GPW(8) or (DW+RPW(2,0))x2"


@dataclass(frozen=True, slots=True)
class Layer:
    """A kind with its parameters chosen: groups, overlap and order of RPW, kernel size.

    The order is "rolling" unless given, the kernel size of a spatial kind 3.

    >>> Layer.parse("rpw(8, 0.5)")
    Layer(kind='RPW', groups=8, overlap=Fraction(1, 2), kernel=None, order='rolling')
    >>> str(Layer("GC", 4, kernel=5)), str(Layer("RPW", 8, order="blocked"))
    ('GC(4,k=5)', 'RPW(8,0,blocked)')

    Raises: BlockError for a parameter that the kind does not take, lacks, or that is out of range.
    """

    kind: str
    groups: int | None = None
    overlap: Fraction | None = None
    kernel: int | None = None
    order: str | None = None

    def __post_init__(self) -> None:
        conv = find_kind(self.kind)
        set_fields(self, kind=conv.symbol)
        for name, taken in (
            ("groups", conv.takes_groups),
            ("overlap", conv.takes_overlap),
            ("kernel", conv.spatial),
            ("order", conv.takes_overlap),
        ):
            if not taken and getattr(self, name) is not None:
                raise self._error(f"{conv.symbol} takes no {name}", getattr(self, name))
        if conv.takes_groups:
            if self.groups is None:
                raise self._error(f"{conv.symbol} needs groups", "none")
            groups = whole_number(self.groups, f"{conv.symbol} groups", error=BlockError)
            set_fields(self, groups=groups)
        if conv.takes_overlap:
            overlap = Fraction(0) if self.overlap is None else self.overlap
            order = ROLLING if self.order is None else self.order
            if order not in ORDERS:
                raise self._error(f"unknown order of {conv.symbol}", repr(order))
            set_fields(self, overlap=parse_overlap(overlap), order=order)
        if conv.spatial:
            kernel = DEFAULT_KERNEL if self.kernel is None else self.kernel
            kernel = whole_number(kernel, "kernel size", 1, MAX_KERNEL, error=BlockError)
            if kernel % 2 == 0:
                # It has no centre pixel: the feature map would be shifted or would shrink.
                raise self._error("kernel size is even", kernel)
            set_fields(self, kernel=kernel)

    def _error(self, fact: str, got: object) -> BlockError:
        form = _notation(find_kind(self.kind))
        return BlockError.because(fact, got=got, allowed=form, remedy="write the layer that way")

    @property
    def conv(self) -> ConvKind:
        """The row of the kind table, in the order of the layer."""
        return find_kind(self.kind).in_order(self.order)

    @property
    def sort_key(self) -> tuple[int, int, Fraction, int, int]:
        """Key of the canonical order: kind, groups, overlap, order, kernel."""
        overlap = self.overlap or Fraction(0)
        order = 0 if self.order is None else ORDERS.index(self.order)
        return position(self.kind), self.groups or 0, overlap, order, self.kernel or 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a layer; case and spaces do not matter.

        Raises: BlockError for an unknown kind, a malformed layer or a bad parameter.
        """
        packed = "".join(text.split())
        match = re.fullmatch(r"([^()+,]+)(?:\(([^()]*)\))?", packed)
        if match is None:
            raise malformed(text)
        conv = find_kind(match[1])
        slots = ["groups"] * conv.takes_groups + ["overlap"] * conv.takes_overlap
        if conv.spatial and not slots:
            slots = ["kernel"]
        values: dict[str, Any] = {}
        for part in match[2].split(",") if match[2] is not None else ():
            if conv.takes_overlap and part.lower() in ORDERS and "order" not in values:
                values["order"] = part.lower()
                continue
            named = re.fullmatch(r"[kK]=(.*)", part)
            name = "kernel" if named else slots.pop(0) if slots else ""
            value = named[1] if named else part
            if not name or name in values:
                raise malformed(text, _notation(conv))
            if name != "overlap" and not re.fullmatch(r"[0-9]{1,9}", value):
                raise malformed(text, _notation(conv))
            values[name] = parse_overlap(value) if name == "overlap" else int(value)
        return cls(conv.symbol, **values)

    def __str__(self) -> str:
        parts = [str(part) for part in (self.groups, self.overlap) if part is not None]
        if self.order == BLOCKED:
            parts.append(self.order)
        if self.kernel not in (None, DEFAULT_KERNEL):
            parts.append(f"k={self.kernel}" if parts else str(self.kernel))
        return f"{self.kind}({','.join(parts)})" if parts else self.kind


# The blocks of a long catalogue are put together from some tens of layers.
@lru_cache(maxsize=4096)
def _layer(text: str) -> Layer:
    return Layer.parse(text)


def _notation(conv: ConvKind) -> str:
    parts = ["groups"] * conv.takes_groups
    if conv.takes_overlap:
        parts += ["overlap", "|".join(ORDERS)]
    if conv.spatial:
        parts.append("k=odd size" if parts else "odd kernel size")
    return f"{conv.symbol}({','.join(parts)})" if parts else f"plain {conv.symbol}"


def malformed(text: str, allowed: str = "KIND or KIND(parameters), joined by +") -> BlockError:
    """Return the error for text that cannot be parsed."""
    return BlockError.because("malformed block", got=repr(text), allowed=allowed, remedy=_EXAMPLE)


@dataclass(frozen=True, slots=True)
class SizedLayer:
    """A layer between two widths: c_in channels to c_out, in `dims` spatial dimensions.

    >>> layer = SizedLayer(Layer("RPW", 4, Fraction(1, 2)), 16, 16)
    >>> layer.fan_in, layer.step, layer.params, layer.reads()[:3].tolist()
    (4, 2, 64, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]])

    Raises: BlockError when the groups do not divide both widths, the kind cannot change them, or in
        blocked order there are fewer outputs than distinct windows.
    """

    layer: Layer
    c_in: int
    c_out: int
    dims: int = 2

    def __post_init__(self) -> None:
        widths = f"{self.layer} from {self.c_in} to {self.c_out} channels"
        if self.changes_width and not self.conv.mixing:
            raise BlockError.because(
                f"{self.layer.kind} cannot change the width",
                got=widths,
                allowed="equal widths",
                remedy="leave the change to a channel-mixing layer",
            )
        common = gcd(self.c_in, self.c_out)
        if common % self.groups:
            counts = self.conv.group_counts(self.c_in, self.c_out, trivial=True)
            raise BlockError.because(
                "groups do not divide the widths",
                got=widths,
                allowed=f"groups {', '.join(map(str, counts))}",
                remedy="choose a common divisor",
            )
        if self.layer.order == BLOCKED and self.windows > self.c_out:
            raise BlockError.because(
                "more windows than filters",
                got=f"{self.windows} windows in {widths}",
                allowed=f"at most {self.c_out} windows in blocked order",
                remedy="choose the rolling order or another overlap",
            )

    @property
    def conv(self) -> ConvKind:
        """The row of the kind table."""
        return self.layer.conv

    @property
    def groups(self) -> int:
        """The group count; 1 for a kind without groups."""
        return self.layer.groups or 1

    @property
    def kernel(self) -> int:
        """The kernel size in pixels; 1 for a kind that is not spatial."""
        return self.layer.kernel or 1

    @property
    def fan_in(self) -> int:
        """How many input channels one output channel reads."""
        return self.conv.fan_in_at(self.c_in, self.groups)

    @property
    def step(self) -> int:
        """How many channels the windows of RPW move on from one to the next."""
        return step(self.fan_in, self.layer.overlap or Fraction(0))

    @property
    def windows(self) -> int:
        """How many distinct windows an RPW layer has, read or not."""
        return distinct_windows(self.c_in, self.step)

    @property
    def params(self) -> int:
        """The number of weights."""
        return self.conv.params_at(self.c_in, self.c_out, self.groups, self.kernel, self.dims)

    @property
    def changes_width(self) -> bool:
        """Whether it has more or fewer outputs than inputs; such a layer cannot be left out."""
        return self.c_in != self.c_out

    def reads(self) -> npt.NDArray[np.int32]:
        """Return the input channels that each output channel reads, [c_out, fan_in]."""
        return self.conv.reads(self.c_in, self.c_out, self.groups, self.step)


Width = TypeVar("Width")


def split_terms(text: str) -> tuple[list[str], int]:
    """Split the notation of a block into its terms, between `+`, and the number of repeats."""
    packed = "".join(text.split())
    match = re.fullmatch(r"\((.*)\)(?:[xX]([0-9]{1,6}))?", packed)
    body, repeats = (match[1], int(match[2] or 1)) if match else (packed, 1)
    if not body:
        raise _empty(text)
    terms = body.split("+")
    if not all(terms):
        raise malformed(text)
    return terms, repeats


def _check_length(length: int, copies: int) -> None:
    """Check that every layer of every copy can be tried one by one.

    Raises: BlockError.
    """
    if copies > MAX_COPIES or copies * length > MAX_LAYERS:
        raise BlockError.because(
            "composition too long",
            got=f"{copies} x {length} layers",
            allowed=f"at most {MAX_COPIES} copies and {MAX_LAYERS} layers in all",
            remedy="ask for one copy, or for fewer of them",
        )


def _empty(got: object) -> BlockError:
    return BlockError.because(
        "a block needs a layer", got=repr(got), allowed="one layer or more", remedy=_EXAMPLE
    )


def place_widths(
    mixing: Sequence[bool], c_in: Width, c_out: Width, inner: Width | tuple[Width, ...] | None
) -> list[tuple[Width, Width]]:
    """Return the (input, output) width of every layer of one copy of a block.

    Only channel-mixing layers change the width. Without `inner` the last of them does; with an
    `inner` (bottleneck) width the first and the last; with a sequence every one, the last to
    `c_out`.

    >>> place_widths([True, False, True], 16, 64, 4)
    [(16, 4), (4, 4), (4, 64)]
    >>> place_widths([True, True, True], 16, 64, (8, 32))
    [(16, 8), (8, 32), (32, 64)]

    Reference: [Fog] section 3.1.
    """
    changing = [index for index, mixes in enumerate(mixing) if mixes]
    if inner is not None and len(changing) < 2:
        raise BlockError.because(
            "a bottleneck needs two channel-mixing layers",
            got=len(changing),
            allowed="two or more",
            remedy="add one or drop the bottleneck",
        )
    if not changing and c_in != c_out:
        raise BlockError.because(
            "no layer can change the width",
            got=f"{c_in} to {c_out} channels without a channel-mixing layer",
            allowed="equal widths",
            remedy="add a channel-mixing layer such as PW",
        )
    new_widths = dict.fromkeys(changing[-1:], c_out)
    if isinstance(inner, tuple):
        if len(inner) != len(changing) - 1:
            raise BlockError.because(
                "wrong number of interior widths",
                got=len(inner),
                allowed=f"{len(changing) - 1}, one after each channel-mixing layer but the last",
                remedy="give one width for each",
            )
        new_widths |= dict(zip(changing, inner, strict=False))
    elif inner is not None:
        new_widths[changing[0]] = inner
    widths, width = [], c_in
    for index in range(len(mixing)):
        widths.append((width, new_widths.get(index, width)))
        width = widths[-1][1]
    return widths


@dataclass(frozen=True, slots=True)
class Composition:
    """A sequence of kinds, repeated: a block whose groups and overlaps are not chosen yet.

    >>> str(Composition.parse("dw + rpw + rpw")), len(Composition.parse("(DW+RPW)x2"))
    ('DW+RPW+RPW', 2)
    """

    kinds: tuple[str, ...]
    repeats: int = 1

    def __post_init__(self) -> None:
        if not self.kinds:
            raise _empty("")
        set_fields(
            self,
            kinds=tuple(find_kind(kind).symbol for kind in self.kinds),
            repeats=whole_number(self.repeats, "repeats", error=BlockError),
        )
        _check_length(len(self.kinds), self.repeats)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a composition: kinds without parameters, joined by `+`.

        Raises: BlockError for an unknown kind, a malformed or empty composition.
        """
        terms, repeats = split_terms(text)
        for term in terms:
            if set("(),") & set(term):
                raise malformed(text, "KIND+KIND+..., without parameters")
        return cls(tuple(terms), repeats)

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def sort_key(self) -> tuple[int, tuple[int, ...], int]:
        """Key of the canonical order: length, then the positions of the kinds in the table."""
        return len(self), tuple(map(position, self.kinds)), self.repeats

    def chain(
        self, bottleneck: bool = False, order: str = ROLLING
    ) -> tuple[tuple[ConvKind, dict[Any, Any]], ...]:
        """Return for each layer its kind and the symbols to put into the kind's expressions.

        Widths are C (in), F (out) and K (bottleneck); layers with groups are numbered from 1:
        g_1, w_1, s_1, P_1. Copies of a repeated composition share their symbols. `order` is that
        of every RPW layer.
        """
        rows = [find_kind(kind).in_order(order) for kind in self.kinds]
        mixing = [row.mixing for row in rows]
        out = F if any(mixing) else C
        layers = []
        for copy in range(self.repeats):
            number = 0
            entry = C if copy == 0 else out
            widths = place_widths(mixing, entry, out, K if bottleneck else None)
            for row, (c_in, c_out) in zip(rows, widths, strict=True):
                number += row.takes_groups
                names = {
                    x: sympy.Symbol(f"{x}_{number}", integer=True, positive=True)
                    for x in (g, w, s, P)
                }
                layers.append((row, {C_in: c_in, C_out: c_out} | names))
        return tuple(layers)

    def with_one_group(self, kernel: int = DEFAULT_KERNEL) -> "Block":
        """Return the block with one group in every layer: it fits all widths of the composition.

        >>> str(Composition.parse("DW+RPW+SH").with_one_group(5))
        'DW(5)+RPW(1,0)+SH(1)'
        """
        rows = map(find_kind, self.kinds)
        layers = (
            Layer(
                row.symbol,
                1 if row.takes_groups else None,
                Fraction(0) if row.takes_overlap else None,
                kernel if row.spatial else None,
            )
            for row in rows
        )
        return Block(tuple(layers), self.repeats)

    def params_formula(self, bottleneck: bool = False, kernel: int | None = None) -> Any:
        """Return the number of parameters in the symbols C, F, K, k and g_1, g_2, ... for 2-D.

        >>> Composition.parse("DW+PW").params_formula(kernel=3)
        C*F + 9*C

        Reference: [Fog] section 2.
        """
        size = {d: sympy.Integer(2)} | ({} if kernel is None else {k: sympy.Integer(kernel)})
        return sympy.Add(
            *(row.params.xreplace(names | size) for row, names in self.chain(bottleneck))
        )

    def __str__(self) -> str:
        return _repeated("+".join(self.kinds), self.repeats)


@dataclass(frozen=True, slots=True)
class Block:
    """A sequence of layers, repeated.

    >>> block = Block.parse("( dw + rpw(2, 0.5) )x2")
    >>> str(block), Block.parse(str(block)) == block
    ('(DW+RPW(2,1/2))x2', True)
    """

    layers: tuple[Layer, ...]
    repeats: int = 1

    def __post_init__(self) -> None:
        if not self.layers:
            raise _empty("")
        set_fields(
            self,
            layers=tuple(self.layers),
            repeats=whole_number(self.repeats, "repeats", error=BlockError),
        )
        _check_length(len(self.layers), self.repeats)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a block.

        Raises: BlockError for an unknown kind, a malformed or empty block, a bad parameter.
        """
        terms, repeats = split_terms(text)
        return cls(tuple(map(_layer, terms)), repeats)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def composition(self) -> Composition:
        """The block without its parameters."""
        return Composition(tuple(layer.kind for layer in self.layers), self.repeats)

    def in_order(self, order: str, overlap: Fraction | None = None) -> Self:
        """Return the block with all its RPW layers in an order, with another overlap if given.

        >>> str(Block.parse("DW+RPW(8,1/2)").in_order("blocked", Fraction(0)))
        'DW+RPW(8,0,blocked)'
        """
        layers = (
            replace(x, order=order, overlap=x.overlap if overlap is None else overlap)
            if x.conv.takes_overlap
            else x
            for x in self.layers
        )
        return replace(self, layers=tuple(layers))

    @property
    def window_counts(self) -> tuple[int, int]:
        """How many layers have overlapping windows, and how many windows at all (RPW).

        Of blocks that cost the same, one with fewer is preferred: without overlap every framework
        has the layer.

        >>> Block.parse("DW+RPW(8,1/2)+RPW(8,0)").window_counts
        (1, 2)
        """
        overlaps = [layer.overlap for layer in self.layers if layer.overlap is not None]
        return sum(map(bool, overlaps)), len(overlaps)

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """Key of the canonical order: the composition, then the parameters of each layer."""
        return *self.composition.sort_key, tuple(layer.sort_key for layer in self.layers)

    def chain(self, bottleneck: bool = False) -> tuple[tuple[ConvKind, dict[Any, Any]], ...]:
        """Return `Composition.chain` of the block's composition, with the orders of its layers."""
        rows = [layer.conv for layer in self.layers] * self.repeats
        chain = self.composition.chain(bottleneck)
        return tuple((row, names) for row, (_, names) in zip(rows, chain, strict=True))

    def params_formula(self, bottleneck: bool = False, kernel: int | None = None) -> Any:
        """Return `Composition.params_formula` of the block's composition."""
        return self.composition.params_formula(bottleneck, kernel)

    def at(
        self,
        channels: int,
        out_channels: int | None = None,
        bottleneck: Fraction | int | str | None = None,
        dims: int = 2,
        widths: Sequence[int] | None = None,
    ) -> "SizedBlock":
        """Return the block at concrete widths: the chain of all its copies.

        The first copy maps `channels` to `out_channels`, the others keep that width. In each copy
        the last channel-mixing layer changes the width; with a `bottleneck` ratio R the first one
        goes to R x out_channels and the last one comes back. `widths` gives instead the width
        after each channel-mixing layer but the last.

        >>> sized = Block.parse("PW+DW+PW").at(64, 64, bottleneck="1/4")
        >>> [(layer.c_in, layer.c_out) for layer in sized.layers], sized.params
        ([(64, 16), (16, 16), (16, 64)], 2192)

        Raises: BlockError when groups do not divide the widths of their layer, no layer can
            change the width, or the bottleneck is not a whole number of channels.

        Reference: [Fog] sections 3.1 and 3.2.
        """
        c_in = whole_number(channels, "channels", error=BlockError)
        c_out = c_in
        if out_channels is not None:
            c_out = whole_number(out_channels, "out_channels", error=BlockError)
        if dims not in (1, 2):
            raise BlockError.because(
                "wrong number of dimensions",
                got=dims,
                allowed="1, 2",
                remedy="use 2 for images",
                argument="dims",
            )
        ratio = None if bottleneck is None else _ratio(bottleneck)
        inner = None if ratio is None else ratio * c_out
        if inner is not None and (inner.denominator != 1 or inner < 1):
            raise BlockError.because(
                f"{ARGUMENT} is not a whole number of channels",
                got=f"{ratio} of {c_out}",
                allowed="ratio x out_channels whole and at least 1",
                remedy="change the ratio or the width",
                argument="bottleneck",
            )
        interior: int | tuple[int, ...] | None = None if inner is None else int(inner)
        if widths is not None:
            if ratio is not None:
                raise BlockError.because(
                    "interior widths given twice",
                    got=f"bottleneck {ratio} and widths {', '.join(map(str, widths))}",
                    allowed="one of them",
                    remedy="leave one out",
                )
            interior = tuple(
                whole_number(width, "interior width", error=BlockError) for width in widths
            )
        mixing = [layer.conv.mixing for layer in self.layers]
        chain: list[SizedLayer] = []
        for copy in range(self.repeats):
            pairs = place_widths(mixing, c_in if copy == 0 else c_out, c_out, interior)
            chain += [
                SizedLayer(x, *pair, dims) for x, pair in zip(self.layers, pairs, strict=True)
            ]
        return SizedBlock(self, c_in, c_out, ratio, dims, tuple(chain))

    def __str__(self) -> str:
        return _repeated("+".join(map(str, self.layers)), self.repeats)


def _repeated(text: str, repeats: int) -> str:
    return text if repeats == 1 else f"({text})x{repeats}"


def _ratio(value: Fraction | int | str) -> Fraction:
    ratio = parse_ratio(value)
    if ratio is None:
        raise BlockError.because(
            "malformed bottleneck ratio",
            got=repr(value),
            allowed="an exact positive ratio, at most nine digits a part",
            remedy="write 1/4 or 2",
            argument="bottleneck",
        )
    return ratio


@dataclass(frozen=True, slots=True)
class SizedBlock:
    """A block at concrete widths, built by `Block.at`.

    `layers` is the chain of all copies in order. Amounts count all copies.

    >>> sized = Block.parse("PW+DW").at(64)
    >>> sized.params, sized.macs_per_pixel(), sized.macs_per_pixel(stride=2)
    (4672, 4672, 16960)
    """

    block: Block
    channels: int
    out_channels: int
    bottleneck: Fraction | None
    dims: int
    layers: tuple[SizedLayer, ...]

    def at_equal_widths(self) -> "SizedBlock":
        """Return the block from C to C channels, where every layer can be removed.

        A shuffle behind the change of width permutes F channels, and its groups need not divide C:
        such a block exists only as it is, and is returned so.

        >>> Block.parse("PW+DW").at(8, 12).at_equal_widths().out_channels
        8
        >>> Block.parse("PW+SH(6)").at(8, 12).at_equal_widths().out_channels
        12
        """
        try:
            return self.block.at(self.channels, dims=self.dims)
        except BlockError:
            return self

    @property
    def params(self) -> int:
        """The number of weights of all copies."""
        return sum(layer.params for layer in self.layers)

    @property
    def least_fan_in(self) -> int:
        """The fewest channels that a filter of a channel-mixing layer reads.

        In a block without such a layer every output reads its own channel alone: 1.

        >>> Block.parse("DW+GPW(4)+SH(4)+GPW(8)").at(64).least_fan_in
        8
        """
        return min((layer.fan_in for layer in self.layers if layer.conv.mixing), default=1)

    @property
    def inner_width(self) -> int:
        """Channels behind the first channel-mixing layer; those that leave where it is the last.

        >>> Block.parse("PW+DW+PW").at(24, widths=(144,)).inner_width
        144
        """
        mixing = (layer.c_out for layer in self.layers if layer.conv.mixing)
        return next(mixing, self.out_channels)

    def meets(self, floors: Floors) -> bool:
        """Return whether every layer is what floors allow.

        >>> Block.parse("DW+GPW(4)+SH(4)+GPW(8)").at(64).meets(Floors(least_fan_in=16))
        False
        """
        return all(floors.allow(x.conv, x.c_in, x.c_out, x.groups) for x in self.layers)

    def macs_per_pixel(self, stride: int = 1) -> int:
        """Return the multiply-accumulates per output pixel of the block.

        Raises: BlockError for a stride without a spatial layer to hold it.
        """
        pixels = self.pixels(stride)
        return sum(n * layer.params for n, layer in zip(pixels, self.layers, strict=True))

    def activations_per_pixel(self, stride: int = 1) -> int:
        """Return the elements written per output pixel of the block, summed over its layers.

        Raises: BlockError for a stride without a spatial layer to hold it.
        """
        pixels = self.pixels(stride)
        written = (layer.c_out * layer.conv.writes for layer in self.layers)
        return sum(n * elements for n, elements in zip(pixels, written, strict=True))

    def peak_per_pixel(self, stride: int = 1, shortcut: str = NO_SHORTCUT) -> int:
        """Return the most elements that are live at once per output pixel of the block.

        Layer by layer: what a layer reads and what it writes, the input and the output of the block
        included, and with a `shortcut` (one of SHORTCUTS) the block's input up to the sum. A
        shuffle is an index, and the sum is written over its first part.

        >>> Block.parse("PW+DW+PW").at(24, bottleneck=6).peak_per_pixel()
        288
        >>> Block.parse("PW+DW+PW").at(24, bottleneck=6).peak_per_pixel(shortcut="identity")
        312

        Raises: BlockError for a stride without a spatial layer to hold it; SettingError for a
            shortcut that does not fit.
        """
        return max(self.live_per_pixel(stride, shortcut))

    def live_per_pixel(self, stride: int = 1, shortcut: str = NO_SHORTCUT) -> tuple[int, ...]:
        """Return the elements that are live while each layer runs, and those of the shortcut.

        Arguments and errors are those of `peak_per_pixel`.

        >>> Block.parse("PW+DW+PW").at(24, bottleneck=6).live_per_pixel()
        (168, 288, 168)
        """
        pixels = self.pixels(stride)
        entry = stride**self.dims if self.strided_index is not None else 1
        kind = self.shortcut_kind(stride, shortcut)
        return tuple(self._schedule((entry, *pixels), kind).live())

    def peak_elements(
        self, size: Sequence[int], stride: int = 1, shortcut: str = NO_SHORTCUT
    ) -> int:
        """Return the most elements that are live at once for one input of a spatial size, exactly.

        `size`: pixels in each dimension, (H, W) or (L,). Odd sizes are rounded up at a stride, as
        the padding of a layer does. See `peak_per_pixel`.

        >>> Block.parse("DW+PW").at(8, 16).peak_elements((15, 15), stride=2)
        2312

        Raises: BlockError or SettingError as `peak_per_pixel`, and for a size that does not fit.
        """
        return self.schedule(size, stride, shortcut).peak.elements

    def schedule(
        self, size: Sequence[int], stride: int = 1, shortcut: str = NO_SHORTCUT
    ) -> Schedule:
        """Return the layers as steps that read and write feature maps, for one input of a size.

        Arguments and errors are those of `peak_elements`.
        """
        if len(size) != self.dims:
            raise BlockError.because(
                f"{ARGUMENT} has the wrong number of dimensions",
                got=f"{len(size)}",
                allowed=f"{self.dims}, as the block has",
                remedy="give one number for each",
                argument="size",
            )
        sides = [whole_number(side, "size", error=BlockError) for side in size]
        pixels = [prod(sides)]
        for layer_stride in self.strides(stride):
            sides = [-(-side // layer_stride) for side in sides]
            pixels.append(prod(sides))
        return self._schedule(pixels, self.shortcut_kind(stride, shortcut))

    def schedule_between(self, before: int, after: int, stride: int, shortcut: str) -> Schedule:
        """Return the same for as many pixels before the first spatial layer, and behind it.

        >>> Block.parse("PW+DW").at(4).schedule_between(9, 1, 1, NO_SHORTCUT).peak.elements
        72
        """
        first = len(self.layers) if self.strided_index is None else self.strided_index
        pixels = [before] * (first + 1) + [after] * (len(self.layers) - first)
        return self._schedule(pixels, self.shortcut_kind(stride, shortcut))

    def _schedule(self, pixels: Sequence[int], shortcut: str) -> Schedule:
        """Return the schedule for pixels at the input and behind each layer."""
        entry, *after = pixels
        steps = [
            Step((index,), layer.c_out * count, None if layer.conv.writes else index)
            for index, (layer, count) in enumerate(zip(self.layers, after, strict=True))
        ]
        if shortcut != NO_SHORTCUT:
            sources, elements = (len(steps), 0), self.out_channels * after[-1]
            if shortcut == PROJECTION:
                steps.append(Step((0,), elements))
                sources = (len(steps) - 1, len(steps))
            steps.append(Step(sources, elements, may_replace=sources))
        return Schedule((self.channels * entry,), tuple(steps), (len(steps),))

    def shortcut_kind(self, stride: int = 1, shortcut: str = "auto") -> str:
        """Return the shortcut that "auto" stands for: "identity", or "projection".

        >>> Block.parse("DW+PW").at(8).shortcut_kind(), Block.parse("DW+PW").at(8).shortcut_kind(2)
        ('identity', 'projection')

        Raises: SettingError for an unknown one, and for an identity between different shapes.
        """
        choice(shortcut, "shortcut", SHORTCUTS)
        same = self.channels == self.out_channels and stride == 1
        if shortcut == "auto":
            return IDENTITY if same else PROJECTION
        if shortcut == IDENTITY and not same:
            raise SettingError.because(
                "an identity shortcut between different shapes",
                got=f"{self.channels} to {self.out_channels} channels at stride {stride}",
                allowed="equal widths at stride 1",
                remedy='use shortcut="auto" or "projection"',
                argument="shortcut",
            )
        return shortcut

    @property
    def strided_index(self) -> int | None:
        """The index of the layer that holds a stride, the first spatial one, if there is one."""
        return next((n for n, layer in enumerate(self.layers) if layer.conv.spatial), None)

    def strides(self, stride: int) -> tuple[int, ...]:
        """Return the stride of each layer of the block at a stride.

        >>> Block.parse("PW+DW+GPW(2)").at(4).strides(2)
        (1, 2, 1)

        Raises: BlockError for a stride without a spatial layer to hold it.
        """
        stride = whole_number(stride, "stride", error=BlockError)
        strided = self.strided_index
        if stride > 1 and strided is None:
            raise BlockError.because(
                "no layer can hold the stride",
                got=f"stride {stride} in {self.block}",
                allowed="stride 1 without a spatial layer",
                remedy="add a spatial layer such as DW",
            )
        return tuple(stride if index == strided else 1 for index in range(len(self.layers)))

    def pixels(self, stride: int = 1) -> tuple[int, ...]:
        """Return how many pixels each layer writes per output pixel of the block.

        The layers before the one that holds the stride run on stride ** dims times as many.

        >>> Block.parse("PW+DW+GPW(2)").at(4).pixels(2)
        (4, 1, 1)

        Raises: BlockError for a stride without a spatial layer to hold it.
        """
        after = 1
        pixels = []
        for layer_stride in reversed(self.strides(stride)):
            pixels.append(after)
            after *= layer_stride**self.dims
        return tuple(reversed(pixels))

    def without(self, index: int) -> tuple[SizedLayer, ...]:
        """Return the chain without the layer at an index, counted over all copies.

        >>> [str(layer.layer) for layer in Block.parse("DW+PW").at(4).without(0)]
        ['PW']

        Raises: BlockError for a layer that changes the width: its neighbours would not fit.
        """
        removable = [n for n, layer in enumerate(self.layers) if not layer.changes_width]
        if index not in removable:
            raise BlockError.because(
                "layer cannot be left out",
                got=index,
                allowed=f"layers that keep their width: {', '.join(map(str, removable)) or 'none'}",
                remedy="indices count from 0 over all copies",
            )
        return self.layers[:index] + self.layers[index + 1 :]
