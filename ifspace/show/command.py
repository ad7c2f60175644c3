"""`ifspace kinds` and `ifspace show`: the kinds of convolution, and one block layer by layer."""

from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import INTEGER, Output, output_options, shared, with_options
from ifspace.values import counted

if TYPE_CHECKING:
    from ifspace.catalogue.evidence import Evidence
    from ifspace.cli.options import Forms
    from ifspace.reach import Compact
    from ifspace.show.describe import BlockDescription, LayerDescription

NO_OVERLAP: Final = (
    "RPW(g,0) is GPW(g)+SH(g), and RPW(g,0,blocked) is GPW(g): layers of every framework."
)
# Wider blocks are not drawn: the drawing would take long and show little.
MOST_DRAWN: Final = 512
# Networks of evidence; all are in JSON.
MOST_PUBLISHED: Final = 6


@click.command("kinds", short_help="Print the kinds of convolution and their formulas.")
@output_options("latex")
def kinds_command(output: Output) -> None:
    """Print the kinds of convolution: fan-in, parameters, coverage function, source.

    C_in and C_out are the widths of the layer and C that of the block's input; g is the number of
    groups, k the kernel size, d the number of dimensions; of RPW w = C_in/g is the window, s the
    step and P = C_in/gcd(s, C_in) the number of distinct windows. U(m) is how many channels of the
    block's input m neighbouring outputs see together, in terms of the U of the layer below; U(1) is
    the channel field.
    """
    from ifspace.serialize import json_text
    from ifspace.show.describe import KindDescription, describe_kinds
    from ifspace.table import Table, readable

    kinds = describe_kinds()
    table = Table(
        tuple(field.name for field in fields(KindDescription)), tuple(map(astuple, kinds))
    )

    def text() -> str:
        columns = ("kind", "name~", "fan-in", "parameters~", "source~", "new U(m)~")
        rows = tuple(
            (
                kind.kind,
                kind.title,
                readable(kind.fan_in),
                readable(kind.params),
                kind.reference,
                readable(kind.property),
            )
            for kind in kinds
        )
        notes = ["MACs of a layer: its parameters × H_out × W_out."]
        for kind in kinds:
            if kind.property_blocked is not None:
                new = readable(kind.property_blocked)
                notes.append(f"{kind.kind}(g,o,blocked), filters that share windows: {new}.")
        notes.append(NO_OVERLAP)
        return Table(columns, rows, notes=tuple(notes)).text()

    def latex() -> str:
        rows = tuple(
            (
                kind.kind,
                f"${kind.fan_in}$",
                f"${kind.property}$",
                f"${kind.params}$",
                f"${kind.macs}$",
            )
            for kind in describe_kinds(latex=True)
        )
        return Table(("kind", "fan-in", "$U'(m)$", "parameters", "MACs"), rows).latex()

    output.emit(
        {
            "table": text,
            "json": lambda: json_text(kinds),
            "csv": table.csv,
            "markdown": table.markdown,
            "latex": latex,
        }
    )


_OPTIONS = (
    shared("channels", required=True, help="Number of input channels C."),
    shared("out-channels", help="Number of output channels F; C if not given."),
    shared(
        "bottleneck",
        type=str,
        help="Width inside the block is RATIO x F, such as 1/4; F if not given.",
    ),
    shared(
        "kernel", help="Kernel size of the reference; that of the first spatial layer if not given."
    ),
    shared(
        "stride",
        type=INTEGER,
        metavar="N",
        default=1,
        help="Stride of the first spatial layer.",
    ),
    shared("dims", type=INTEGER),
    shared("compact"),
    shared("side"),
    shared("dtype", default="fp32"),
    click.option(
        "--source",
        is_flag=True,
        help="Print the block as a plain PyTorch class instead; needs ifspace[torch].",
    ),
)


@click.command("show", short_help="Show one block: fields, costs, conditions, who sees whom.")
@click.argument("block")
@with_options(_OPTIONS)
@output_options()
def show_command(
    output: Output,
    block: str,
    channels: int,
    out_channels: int | None,
    bottleneck: str | None,
    kernel: int | None,
    stride: int,
    dims: int,
    compact: "Compact",
    side: int | None,
    dtype: str,
    source: bool,
) -> None:
    """Show BLOCK at its widths: fields, costs, conditions, and which channels each output reads.

    BLOCK is written like DW+RPW(8,1/2)+SH(4)+GPW(8): kinds with their groups, RPW with groups,
    overlap and, if neighbouring filters share windows, `blocked`; (DW+RPW(2,0))x2 is the block
    repeated twice. Amounts are per output pixel. With --source the class to paste into your own
    model is printed: torch alone is imported, but for RPW with an overlap.
    """
    if source:
        output.emit(_source(block, channels, out_channels, bottleneck, stride, dims))
        return
    from ifspace.serialize import json_text, to_plain
    from ifspace.show.describe import LayerDescription, describe
    from ifspace.table import Table

    about = describe(
        block,
        channels,
        out_channels,
        bottleneck,
        kernel=kernel,
        stride=stride,
        dims=dims,
        reading=compact,
        side=side,
        dtype=dtype,
    )
    table = Table(
        tuple(field.name for field in fields(LayerDescription)),
        tuple(
            tuple(
                _field(about, cell) if isinstance(cell, tuple) else cell for cell in astuple(layer)
            )
            for layer in about.layers
        ),
    )
    output.emit(
        {
            "table": lambda: _text(about),
            "json": lambda: json_text(
                to_plain(about)
                | {"symbols": dict(about.symbols)}
                | _network(about)
                | {"evidence": [entry.plain for entry in _published(about)]}
            ),
            "csv": table.csv,
            "markdown": table.markdown,
        }
    )


def _source(
    block: str,
    channels: int,
    out_channels: int | None,
    bottleneck: str | None,
    stride: int,
    dims: int,
) -> "Forms":
    """Return the source of a block in every format."""
    from ifspace.block import Block
    from ifspace.cli.requirements import TORCH, check_installed

    check_installed(TORCH, "the source is written from the torch modules", ", or leave it out")
    from ifspace.nn.block import build
    from ifspace.nn.source import to_source
    from ifspace.serialize import json_text
    from ifspace.table import Table

    sized = Block.parse(block).at(channels, out_channels, bottleneck, dims)
    text = to_source(build(sized, stride=stride, device="meta"))
    return {
        "table": lambda: text,
        "json": lambda: json_text({"block": str(sized.block), "source": text}),
        "csv": lambda: Table(("source",), ((text,),)).csv(),
        "markdown": lambda: f"```python\n{text}```\n",
    }


def _network(about: "BlockDescription") -> dict[str, str | None]:
    """Return the canonical class of the block, and a shorter way to write it if one is found."""
    from ifspace.block import Block
    from ifspace.canonical import network_class
    from ifspace.show.same_network import shortest_way

    block = Block.parse(about.block)
    sized = block.at(about.channels, about.out_channels, about.bottleneck, about.dims)
    way = shortest_way(sized)
    return {"network": network_class(sized), "same_network_as": None if way is None else str(way)}


def _same_network(about: "BlockDescription") -> str:
    way = _network(about)["same_network_as"]
    if way is None:
        return "no shorter way to write it was found"
    return f"same network as {way}, up to the order of channels"


def _field(about: "BlockDescription", field: tuple[int, int]) -> str:
    side, channels = field
    return "×".join(map(str, [side] * about.dims + [channels]))


def _text(about: "BlockDescription") -> str:
    from ifspace.table import Table, facts, ratio_text, readable

    widths = counted(about.channels, "channel")
    if about.out_channels != about.channels:
        widths = f"{about.channels:,} to {about.out_channels:,} channels"
    rows: list[tuple[Any, ...]] = [
        (
            number,
            layer.layer,
            f"{layer.c_in:,}" + (f"→{layer.c_out:,}" if layer.c_in != layer.c_out else ""),
            layer.fan_in,
            _field(about, layer.field),
            *_amounts(layer),
            readable(layer.formula),
        )
        for number, layer in enumerate(about.layers, start=1)
    ]
    rows.append((None, "all", None, None, _field(about, about.field), *_amounts(about), None))
    columns = ">#", "layer", ">channels", ">fan-in", "field", ">params", ">MACs/px", ">act/px"
    layers = Table((*columns, ">live/px", "in symbols~"), tuple(rows), f"{about.block} at {widths}")
    field, reference_field = (_field(about, pair) for pair in (about.field, about.reference_field))
    quality = "yes" if about.quality else "no"
    ratio = ratio_text(about.params / about.reference_params)
    symbols = ", ".join(f"{name} = {value}" for name, value in about.symbols)
    summary = facts(
        [
            ("quality", f"{quality}: sees {field}, {about.reference} {reference_field}"),
            ("compact", _compact(about)),
            ("full field", readable(about.condition) or "too long to write in symbols"),
            ("parameters", f"{readable(about.params_formula)} = {about.params:,}"),
            ("", f"{ratio} of {about.reference_params:,} in {about.reference}"),
            ("where", symbols),
            ("peak memory", _peak(about)),
            ("least fan-in", counted(about.least_fan_in, "channel")),
            ("known as", about.known_as or "-"),
            ("network", _same_network(about)),
            *_order_lines(about),
            *_exchange_lines(about),
        ]
    )
    return "\n".join([layers.text(keys=2), summary, *_evidence(about), _drawing(about)])


def _published(about: "BlockDescription") -> "list[Evidence]":
    from ifspace.block import Block
    from ifspace.catalogue.evidence import evidence

    block = Block.parse(about.block)
    return evidence(block.at(about.channels, about.out_channels, about.bottleneck, about.dims))


def _evidence(about: "BlockDescription") -> list[str]:
    """Return the table of published networks of such blocks, nothing without one."""
    from ifspace.catalogue.evidence import evidence_table

    rows = _published(about)
    table = evidence_table([(None, entry) for entry in rows], MOST_PUBLISHED)
    return [table.text(keys=1)] if rows else []


def _order_lines(about: "BlockDescription") -> list[tuple[str, str]]:
    """Return which RPW layers every framework has, and what both orders do to the field."""
    from ifspace.block import Block

    same = dict.fromkeys(
        f"{layer.layer} is {layer.same_as}" for layer in about.layers if layer.same_as
    )
    lines = [("same as", f"{'; '.join(same)}: layers of every framework")] if same else []
    overlapping, _ = Block.parse(about.block).window_counts
    for order in about.orders:
        text = "not legal at these widths"
        if order.field is not None:
            text = f"an output sees {order.field:,} of {counted(about.channels, 'channel')}"
        if overlapping:
            text += f", {order.without_overlap:,} without overlap"
        lines.append((f"if {order.order}", text))
    return lines


def _exchange_lines(about: "BlockDescription") -> list[tuple[str, str]]:
    """Return which consecutive grouped layers exchange no channels, and what mends it."""
    lines: list[tuple[str, str]] = []
    for pair in about.exchanges:
        first, second = (
            f"{index + 1} ({about.layers[index].layer})" for index in (pair.first, pair.second)
        )
        text = f"layers {first} and {second}: {pair.exchange}"
        if pair.block_field[0] == pair.block_field[1]:
            text += f"; of the block {pair.block_field[0]:,} either way"
        lines.append(("" if lines else "no exchange", text))
    return lines


def _amounts(amounts: "BlockDescription | LayerDescription") -> tuple[int, int, int, int]:
    return (
        amounts.params,
        amounts.macs_per_pixel,
        amounts.activations_per_pixel,
        amounts.peak_per_pixel,
    )


def _peak(about: "BlockDescription") -> str:
    """Return what the feature maps need that are live at once."""
    peak = about.peak_memory
    if peak is None:
        return (
            f"{about.peak_per_pixel:,} elements live at once per output pixel, "
            f"{about.peak_with_shortcut:,} with a shortcut"
        )
    return (
        f"{peak.bytes:,} bytes of {peak.dtype} at side {peak.side}, "
        f"{peak.with_shortcut:,} with a shortcut"
    )


def _compact(about: "BlockDescription") -> str:
    from ifspace.kinds import find_kind

    if about.removable:
        names = ", ".join(f"{n + 1} ({about.layers[n].layer})" for n in about.removable)
        if about.reading == "subset":
            return f"no: without these layers it still sees everything: {names}"
        text = f"no: any one of these layers could go: {names}"
        only_shuffles = all(not find_kind(about.layers[n].kind).writes for n in about.removable)
        if about.quality and only_shuffles:
            text += "; only shuffles: yes with --compact kernels"
        return text
    if about.quality:
        tested = {"single": "one of its layers", "kernels": "one of its layers but shuffles"}
        return f"yes: without any {tested.get(about.reading, 'of its layers')} it falls short"
    return "not decided: with all its layers it falls short"


def _drawing(about: "BlockDescription") -> str:
    from ifspace.block import Block
    from ifspace.show.drawing import drawing, who_sees_whom
    from ifspace.table import heading

    if about.channels > MOST_DRAWN:
        return f"Who sees whom is drawn up to {MOST_DRAWN} channels.\n"
    sized = Block.parse(about.block).at(about.channels, about.out_channels, about.bottleneck)
    layers = zip((layer.layer for layer in about.layers), who_sees_whom(sized), strict=True)
    return heading("Who sees whom") + drawing(list(layers), about.channels) + "\n"
