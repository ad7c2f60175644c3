"""`ifspace show`: one block, layer by layer."""

from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import Output, shared_options, with_options

if TYPE_CHECKING:
    from ifspace.show.describe import (
        BlockDescription,
        LayerDescription,
    )


# Above this width the drawing would say little and take long.
MOST_DRAWN: Final = 512


_OPTIONS = (
    click.option(
        "--channels",
        "-C",
        type=int,
        metavar="N",
        required=True,
        help="Width C that enters the block.",
    ),
    click.option(
        "--out-channels",
        "-F",
        type=int,
        metavar="N",
        help="Width F that leaves it; C if not given.",
    ),
    click.option(
        "--bottleneck",
        metavar="RATIO",
        help="Width inside is RATIO x F, such as 1/4; F if not given.",
    ),
    click.option(
        "--kernel",
        type=int,
        metavar="N",
        help="Kernel of the reference; that of the first spatial layer if not given.",
    ),
    click.option(
        "--stride",
        type=int,
        metavar="N",
        default=1,
        show_default=True,
        help="Stride of the first spatial layer.",
    ),
    click.option(
        "--dims", type=int, metavar="1|2", default=2, show_default=True, help="Spatial dimensions."
    ),
)


@click.command("show", short_help="Show one block: fields, costs, conditions, who sees whom.")
@click.argument("block")
@with_options(_OPTIONS)
@shared_options()
def command(
    output: Output,
    block: str,
    channels: int,
    out_channels: int | None,
    bottleneck: str | None,
    kernel: int | None,
    stride: int,
    dims: int,
) -> None:
    """Show BLOCK at its widths: fields, costs, conditions, and who sees whom.

    BLOCK is written like DW+RPW(8,1/2)+SH(4)+GPW(8): kinds with their groups, RPW with groups and
    overlap; (DW+RPW(2,0))x2 is the block twice in a row. Amounts are per output pixel.
    """
    from ifspace.catalogue.export import csv_table, json_text, markdown_table
    from ifspace.show.describe import (
        LayerDescription,
        describe,
    )

    about = describe(
        block, channels, out_channels, bottleneck, kernel=kernel, stride=stride, dims=dims
    )
    names = [each.name for each in fields(LayerDescription)]
    cells = [astuple(layer) for layer in about.layers]
    output.emit(
        {
            "table": lambda: _text(about),
            "json": lambda: json_text(asdict(about) | {"symbols": dict(about.symbols)}),
            "csv": lambda: csv_table(names, [[_cell(about, c) for c in row] for row in cells]),
            "markdown": lambda: markdown_table(
                names, [[str(_cell(about, c)) for c in row] for row in cells]
            ),
        }
    )


def _cell(about: "BlockDescription", value: Any) -> Any:
    if isinstance(value, tuple):
        return _field(about, value)
    return "" if value is None else value


def _field(about: "BlockDescription", field: tuple[int, int]) -> str:
    side, channels = field
    return "×".join(map(str, [side] * about.dims + [channels]))


def _text(about: "BlockDescription") -> str:
    from ifspace.catalogue.design import published_names
    from ifspace.catalogue.export import ratio_text
    from ifspace.table import (
        facts,
        heading,
        readable,
        table,
    )

    widths = f"{about.channels:,} channels"
    if about.out_channels != about.channels:
        widths = f"{about.channels:,} to {about.out_channels:,} channels"
    rows: list[list[Any]] = [
        [
            number,
            layer.layer,
            f"{layer.c_in:,}" + (f"→{layer.c_out:,}" if layer.c_in != layer.c_out else ""),
            f"{layer.fan_in:,}",
            _field(about, layer.field),
            *_amounts(layer),
            readable(layer.formula),
        ]
        for number, layer in enumerate(about.layers, start=1)
    ]
    rows.append(["", "all", "", "", _field(about, about.field), *_amounts(about), ""])
    text = heading(f"{about.block} at {widths}")
    text += table(
        [
            ">#",
            "layer",
            ">channels",
            ">fan-in",
            "field",
            ">params",
            ">MACs/px",
            ">act/px",
            "in symbols~",
        ],
        rows,
        keys=2,
    )
    seen, wanted = (_field(about, field) for field in (about.field, about.reference_field))
    ratio = ratio_text(about.params / about.reference_params)
    symbols = ", ".join(f"{name} = {value}" for name, value in about.symbols)
    said = [
        ("quality", f"{'yes' if about.quality else 'no'}: sees {seen}, {about.reference} {wanted}"),
        ("compact", _compact(about)),
        ("full field", readable(about.condition) or "too long to write in symbols"),
        ("parameters", f"{readable(about.params_formula)} = {about.params:,}"),
        ("", f"{ratio} of {about.reference_params:,} in {about.reference}"),
        ("where", symbols),
        ("known as", published_names(about.composition, about.repeats) or "-"),
    ]
    text += "\n" + facts(said)
    return text + "\n" + _drawn(about)


def _amounts(of: "BlockDescription | LayerDescription") -> list[str]:
    return [f"{each:,}" for each in (of.params, of.macs_per_pixel, of.activations_per_pixel)]


def _compact(about: "BlockDescription") -> str:
    if about.removable:
        which = ", ".join(f"{place + 1} ({about.layers[place].layer})" for place in about.removable)
        return f"no: any one of these layers could go: {which}"
    if about.quality:
        return "yes: without any one of its layers it falls short"
    return "no layer could go, but it falls short as it is"


def _drawn(about: "BlockDescription") -> str:
    from ifspace.block import Block
    from ifspace.show.describe import who_sees_whom
    from ifspace.show.drawing import drawing
    from ifspace.table import heading

    if about.channels > MOST_DRAWN:
        return f"Who sees whom is drawn up to {MOST_DRAWN} channels.\n"
    sized = Block.parse(about.block).at(about.channels, about.out_channels, about.bottleneck)
    layers = zip((layer.layer for layer in about.layers), who_sees_whom(sized), strict=True)
    return heading("Who sees whom") + drawing(list(layers), about.channels) + "\n"
