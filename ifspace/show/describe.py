"""One block described layer by layer, and the kinds of convolution it is made of."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, get_args

import numpy as np
import sympy

from ifspace.block import DEFAULT_KERNEL, Block, Composition, SizedBlock, SizedLayer
from ifspace.catalogue.design import PUBLISHED, published_names
from ifspace.errors import BlockError, SettingError
from ifspace.exchange import BlockExchange, block_exchanges
from ifspace.infofield import coverage, coverage_expr, full_field_condition
from ifspace.kinds import KINDS, ORDERS, C, F, K, P, find_kind, shuffle_kind
from ifspace.memory import DEFAULT_DTYPE, bytes_of
from ifspace.reach import (
    Compact,
    Reference,
    channel_field,
    field_after,
    quality,
    removable_layers,
    removable_set,
)
from ifspace.values import (
    MAX_SIDE,
    MAX_WIDTH,
    choice,
    exact_bottleneck,
    odd_number,
    whole_number,
)

# The formula of more layers than this, without a kind that scatters, would take seconds to build.
MAX_NESTED: Final = 12
# All sets of more layers than this would take too long to try.
MAX_SUBSET: Final = 16


@dataclass(frozen=True, slots=True)
class LayerDescription:
    """One layer of a block: widths and fan-in in channels, the field after it, its costs.

    `field` is exact, (pixels, channels). `coverage` is the channel field by the coverage function,
    an estimate after a shuffle, and `formula` is that function in symbols; after a shuffle it is
    the upper bound by the fan-ins, which begins with "<=". Copies after the first have no formula,
    nor have chains of more than MAX_NESTED layers. Amounts are per output pixel of the block.
    `order` is that of an RPW layer, and `same_as` the layers that every framework has and that read
    the same channels, for one without overlap. `peak_per_pixel`: elements live while it runs.
    """

    layer: str
    kind: str
    c_in: int
    c_out: int
    fan_in: int
    step: int | None
    field: tuple[int, int]
    coverage: int
    formula: str
    params: int
    macs_per_pixel: int
    activations_per_pixel: int
    order: str | None = None
    same_as: str | None = None
    peak_per_pixel: int = 0


@dataclass(frozen=True, slots=True)
class OrderDescription:
    """The channel field IF^c of a block with all its RPW layers in one order.

    `field` is with the overlaps of the block, None where that order is not legal at its widths: it
    has more windows than filters. `without_overlap` is the field at overlap 0.
    """

    order: str
    field: int | None
    without_overlap: int


@dataclass(frozen=True, slots=True)
class PeakDescription:
    """The peak memory of a block for one output of side x side pixels.

    `with_shortcut`: with an identity around the block, or a projection where the shapes differ.
    """

    side: int
    dtype: str
    bytes: int
    with_shortcut: int


@dataclass(frozen=True, slots=True)
class BlockDescription:
    """A block at its widths: its layers, its totals, and how it compares with the reference.

    `least_fan_in`: the fewest channels that a filter of a channel-mixing layer reads. `reference`
    is the standard convolutions that it can replace. `quality`, `compact` and `removable` are
    decided on the exact field, the latter two at width C if the block has no bottleneck. `reading`
    says what `compact` tests; `removable` holds the indices over all copies of the layers that can
    be removed one at a time, or by the reading "subset" the first smallest set of layers that can
    be removed together. `condition` is when the parameters give the full channel field, empty for
    more than MAX_NESTED layers; `symbols` are the values, in the first copy, of the symbols that
    the formulas use. `known_as` are the names of the composition in the
    literature: that of a block of other copies only if this one passes the rule with as many.
    `orders` has what both orders of RPW do to the field, empty for a block without RPW.
    `peak_per_pixel`: the most elements that are live at once, `peak_with_shortcut` the same with an
    identity around the block, or a projection where the shapes differ; `peak_memory` those in
    bytes, None without a side. `exchanges`: its grouped layers that exchange no channels.
    """

    block: str
    composition: str
    repeats: int
    channels: int
    out_channels: int
    bottleneck: str | None
    stride: int
    dims: int
    layers: tuple[LayerDescription, ...]
    field: tuple[int, int]
    params: int
    macs_per_pixel: int
    activations_per_pixel: int
    least_fan_in: int
    reference: str
    reference_params: int
    reference_macs_per_pixel: int
    reference_field: tuple[int, int]
    quality: bool
    compact: bool
    reading: Compact
    removable: tuple[int, ...]
    params_formula: str
    condition: str
    known_as: str | None
    symbols: tuple[tuple[str, int], ...]
    orders: tuple[OrderDescription, ...]
    peak_per_pixel: int
    peak_with_shortcut: int
    peak_memory: PeakDescription | None
    exchanges: tuple[BlockExchange, ...] = ()


def describe(
    block: Block | str,
    channels: int,
    out_channels: int | None = None,
    bottleneck: Fraction | str | None = None,
    *,
    kernel: int | None = None,
    stride: int = 1,
    dims: int = 2,
    reading: Compact = "single",
    side: int | None = None,
    dtype: str = DEFAULT_DTYPE,
) -> BlockDescription:
    """Describe a block at its widths.

    The reference is as many standard convolutions as the block has copies, with `kernel`, or the
    kernel size of the block's first spatial layer. `side`: of the output in pixels, and `dtype` the
    type of the feature maps, for the peak memory in bytes.

    >>> about = describe("DW+RPW(4,0)+RPW(4,0)", 16)
    >>> about.field, about.params, about.quality, about.compact
    ((3, 16), 272, True, True)
    >>> about.condition, about.layers[1].field
    ('C <= s_1*(w_2 - 1) + w_1', (3, 4))

    Raises: BlockError for a malformed block, or one that does not fit the widths; SettingError
        for widths above MAX_WIDTH, more than MAX_SUBSET layers with the reading "subset", and an
        unknown reading.

    Reference: [IF] eqs. 1 to 3; [3DRF] section 4.2.
    """
    block = Block.parse(block) if isinstance(block, str) else block
    whole_number(channels, "channels", 1, MAX_WIDTH)
    if out_channels is not None:
        whole_number(out_channels, "out_channels", 1, MAX_WIDTH)
    exact_bottleneck(bottleneck, channels if out_channels is None else out_channels)
    if kernel is None:
        kernels = [layer.kernel or 1 for layer in block.layers if layer.conv.spatial]
        kernel = kernels[0] if kernels else DEFAULT_KERNEL
    kernel = odd_number(kernel, "kernel", 1)
    sized = block.at(channels, out_channels, bottleneck, dims)
    reference = Reference(kernel, block.repeats)
    standard = Block.parse(f"(CONV({kernel}))x{block.repeats}").at(
        channels, out_channels, dims=dims
    )
    fields = field_after(sized)
    removable = _removable(sized, reference, reading)
    composition = block.composition
    return BlockDescription(
        block=str(block),
        composition="+".join(composition.kinds),
        repeats=block.repeats,
        channels=sized.channels,
        out_channels=sized.out_channels,
        bottleneck=None if sized.bottleneck is None else str(sized.bottleneck),
        stride=stride,
        dims=dims,
        layers=_layers(sized, fields, stride),
        field=fields[-1],
        params=sized.params,
        macs_per_pixel=sized.macs_per_pixel(stride),
        activations_per_pixel=sized.activations_per_pixel(stride),
        least_fan_in=sized.least_fan_in,
        reference=str(standard.block),
        reference_params=standard.params,
        reference_macs_per_pixel=standard.macs_per_pixel(stride),
        reference_field=(reference.side, sized.channels),
        quality=quality(sized, reference),
        compact=not removable,
        reading=reading,
        removable=removable,
        params_formula=str(composition.params_formula(sized.bottleneck is not None)),
        condition=_condition(block, sized.bottleneck is not None),
        known_as=_names(sized, kernel, reading),
        symbols=_symbols(sized, kernel),
        orders=_orders(sized),
        peak_per_pixel=sized.peak_per_pixel(stride),
        peak_with_shortcut=sized.peak_per_pixel(stride, "auto"),
        peak_memory=_peak(sized, stride, side, dtype),
        exchanges=tuple(block_exchanges(sized.layers)),
    )


def _peak(sized: SizedBlock, stride: int, side: int | None, dtype: str) -> PeakDescription | None:
    if side is None:
        return None
    size = (whole_number(side, "side", 1, MAX_SIDE) * stride,) * sized.dims
    alone, joined = (sized.peak_elements(size, stride, kind) for kind in ("none", "auto"))
    return PeakDescription(side, dtype, bytes_of(alone, dtype), bytes_of(joined, dtype))


def _removable(sized: SizedBlock, reference: Reference, reading: Compact) -> tuple[int, ...]:
    choice(reading, "compact", get_args(Compact))
    if sized.bottleneck is None:
        # A change of width alone is no reason to keep a layer: without a bottleneck it is decided
        # at equal widths, where every layer can be removed.
        sized = sized.at_equal_widths()
    if reading != "subset":
        return removable_layers(sized, reference, reading)
    if len(sized.layers) > MAX_SUBSET:
        raise SettingError.because(
            "too many layers to try every set of them",
            got=len(sized.layers),
            allowed=f"at most {MAX_SUBSET}",
            remedy="ask for --compact single",
        )
    return removable_set(sized, reference)


def _names(sized: SizedBlock, kernel: int, reading: Compact) -> str | None:
    composition = "+".join(sized.block.composition.kinds)

    def passes(repeats: int) -> bool:
        block, reference = replace(sized.block, repeats=repeats), Reference(kernel, repeats)
        again = block.at(sized.channels, sized.out_channels, sized.bottleneck, sized.dims)
        return quality(again, reference) and not _removable(again, reference, reading)

    withheld = [
        entry
        for entry in PUBLISHED
        if entry.composition == composition
        and entry.repeats != sized.block.repeats
        and not passes(entry.repeats)
    ]
    return published_names(composition, sized.block.repeats, withheld)


def _symbols(sized: SizedBlock, kernel: int) -> tuple[tuple[str, int], ...]:
    values = {"C": sized.channels, "F": sized.out_channels, "k": kernel}
    if sized.bottleneck is not None:
        values["K"] = int(sized.bottleneck * sized.out_channels)
    grouped = [layer for layer in sized.layers[: len(sized.block)] if layer.conv.takes_groups]
    for number, layer in enumerate(grouped, start=1):
        values[f"g_{number}"] = layer.groups
        if layer.conv.mixing:
            values[f"w_{number}"] = layer.fan_in
        if layer.conv.takes_overlap:
            values[f"s_{number}"] = layer.step
        if layer.conv.coverage.has(P):
            values[f"P_{number}"] = layer.windows
    return tuple(values.items())


def _orders(sized: SizedBlock) -> tuple[OrderDescription, ...]:
    if not any(layer.conv.takes_overlap for layer in sized.layers):
        return ()

    def field(block: Block) -> int:
        at = block.at(sized.channels, sized.out_channels, sized.bottleneck, sized.dims)
        return channel_field(at.layers)

    orders = []
    for order in ORDERS:
        try:
            with_overlap = field(sized.block.in_order(order))
        except BlockError:
            with_overlap = None
        without = field(sized.block.in_order(order, Fraction(0)))
        orders.append(OrderDescription(order, with_overlap, without))
    return tuple(orders)


def _same_as(layer: SizedLayer) -> str | None:
    """Return grouped layers, and a shuffle where it takes one, that read what an RPW layer does."""
    if not layer.conv.takes_overlap:
        return None
    shuffle = shuffle_kind()
    dealt = shuffle.reads(layer.c_out, layer.c_out, layer.groups, 1)[:, 0]
    for symbol, row in KINDS.items():
        alike = row.takes_groups and not row.takes_overlap and row.params == layer.conv.params
        if not alike:
            continue
        reads = row.reads(layer.c_in, layer.c_out, layer.groups, 1)
        if np.array_equal(reads, layer.reads()):
            return f"{symbol}({layer.groups})"
        if np.array_equal(reads[dealt], layer.reads()):
            return f"{symbol}({layer.groups})+{shuffle.symbol}({layer.groups})"
    return None


def _layers(
    sized: SizedBlock, fields: tuple[tuple[int, int], ...], stride: int
) -> tuple[LayerDescription, ...]:
    formulas = _formulas(sized)
    return tuple(
        LayerDescription(
            layer=str(layer.layer),
            kind=layer.layer.kind,
            c_in=layer.c_in,
            c_out=layer.c_out,
            fan_in=layer.fan_in,
            step=layer.step if layer.conv.takes_overlap else None,
            field=fields[index],
            coverage=coverage(sized.layers[: index + 1]),
            formula=formulas[index],
            params=layer.params,
            macs_per_pixel=layer.params * pixels,
            activations_per_pixel=layer.c_out * layer.conv.writes * pixels,
            order=layer.layer.order,
            same_as=_same_as(layer),
            peak_per_pixel=live,
        )
        for index, (layer, pixels, live) in enumerate(
            zip(sized.layers, sized.pixels(stride), sized.live_per_pixel(stride), strict=True)
        )
    )


def _too_long(composition: Composition) -> bool:
    nested = not any(find_kind(kind).scatters for kind in composition.kinds)
    return nested and len(composition) * composition.repeats > MAX_NESTED


def _condition(block: Block, narrow: bool) -> str:
    if _too_long(block.composition):
        return ""
    condition = str(full_field_condition(block, narrow))
    return "always" if condition == "True" else condition


def _formulas(sized: SizedBlock) -> list[str]:
    block = sized.block
    rows = [layer.conv for layer in block.layers]
    mixing = [index for index, row in enumerate(rows) if row.mixing]
    texts = []
    for end in range(1, len(rows) + 1):
        prefix = Block(block.layers[:end])
        if _too_long(prefix.composition):
            texts.append("")
            continue
        before = [index for index in mixing if index < end]
        narrow = sized.bottleneck is not None and len(before) > 1
        if any(row.scatters for row in rows[:end]):
            # A shuffle asks U twice and makes a page of the formula.
            condition = full_field_condition(prefix, narrow)
            texts.append("C" if str(condition) == "True" else f"<= Min(C, {condition.rhs})")
            continue
        formula = coverage_expr(prefix, narrow)
        if before != mixing:
            # The prefix ends at an inner width, where the formula takes it to end at F.
            formula = formula.xreplace({F: K if sized.bottleneck is not None and before else C})
        texts.append(str(formula))
    return texts + [""] * (len(sized.layers) - len(texts))


@dataclass(frozen=True, slots=True)
class KindDescription:
    """One kind of convolution with its formulas as text.

    `fan_in`: input channels that one output channel reads. `property`: the coverage function U(m)
    of this layer in terms of the U of the layer below; `property_blocked`: the same in blocked
    order, of a kind that has one. `params` and `macs`: of one layer.
    """

    kind: str
    title: str
    fan_in: str
    property: str
    params: str
    macs: str
    reference: str
    property_blocked: str | None = None


def describe_kinds(latex: bool = False) -> tuple[KindDescription, ...]:
    r"""Describe all kinds in canonical order, with formulas as plain text or as LaTeX.

    >>> depthwise = describe_kinds()[2]
    >>> depthwise.kind, depthwise.fan_in, depthwise.property, depthwise.params
    ('DW', '1', 'U(m)', 'C_in*k**d')
    >>> describe_kinds(latex=True)[3].fan_in
    '\\frac{C_{in}}{g}'

    Reference: [Fog] section 2, [3DRF] section 4.2, [IF] eq. 3; each row has its own.
    """
    text: Callable[[Any], str] = sympy.latex if latex else str
    return tuple(
        KindDescription(
            kind=symbol,
            title=row.title,
            fan_in=text(row.fan_in),
            property=text(row.coverage),
            params=text(row.params),
            macs=text(row.macs),
            reference=row.reference,
            property_blocked=text(row.blocked_coverage) if row.takes_overlap else None,
        )
        for symbol, row in KINDS.items()
    )
