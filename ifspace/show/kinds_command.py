"""`ifspace kinds`: the letters that blocks are written in."""

from dataclasses import asdict, astuple, fields

import click

from ifspace.cli.options import Output, shared_options


@click.command("kinds", short_help="Print the kinds of convolution and their formulas.")
@shared_options("latex")
def command(output: Output) -> None:
    """Print the kinds of convolution: fan-in, parameters, property function, source.

    C_in and C_out are the widths of the layer and C that of the block's input; g is the groups,
    w = C_in/g and s the window and the step of RPW, k the kernel size, d the dimensions. U(m) is
    how many channels of the block's input m neighbouring outputs see together, in terms of the U
    of the layer below; U(1) is the channel field.
    """
    from ifspace.catalogue.export import csv_table, json_text, markdown_table
    from ifspace.show.kinds import (
        KindDescription,
        describe_kinds,
    )
    from ifspace.table import (
        readable,
        table,
    )

    kinds = describe_kinds()
    names = [each.name for each in fields(KindDescription)]

    def text() -> str:
        columns = ["kind", "name~", "fan-in", "parameters~", "source~", "new U(m)~"]
        shown = ("kind", "title", "fan_in", "params", "reference", "property")
        rows = [[readable(getattr(kind, name)) for name in shown] for kind in kinds]
        return table(columns, rows) + "\nMACs of a layer: its parameters × H_out × W_out.\n"

    def latex() -> str:
        shown = ("fan_in", "property", "params", "macs")
        lines = [
            " & ".join([kind.kind, *(f"${getattr(kind, name)}$" for name in shown)])
            for kind in describe_kinds(latex=True)
        ]
        head = "kind & fan-in & $U'(m)$ & parameters & MACs \\\\\n\\hline\n"
        body = "".join(f"{line} \\\\\n" for line in lines)
        return f"\\begin{{tabular}}{{lllll}}\n{head}{body}\\end{{tabular}}\n"

    output.emit(
        {
            "table": text,
            "json": lambda: json_text([asdict(kind) for kind in kinds]),
            "csv": lambda: csv_table(names, map(astuple, kinds)),
            "markdown": lambda: markdown_table(names, map(astuple, kinds)),
            "latex": latex,
        }
    )
