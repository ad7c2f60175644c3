"""`ifspace enumerate`: the whole design space, its funnel and its best blocks."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import (
    INTEGER,
    WIDTHS,
    OneOf,
    Output,
    floor_options,
    output_options,
    shared,
    with_options,
)

if TYPE_CHECKING:
    from ifspace.catalogue import Catalogue, Design, Funnel
    from ifspace.catalogue.setting import EnumerationSetting
    from ifspace.enumerate.fog import FogFunnel

# From this estimate on, the time that the work will take is announced before it begins.
LONG_S: Final = 20
# Of the compositions that are one design, no more are named in a table.
MOST_ORDERS: Final = 4

_OPTIONS = (
    click.option(
        "--preset",
        type=OneOf(["fog"]),
        help="Values for options that are not given: fog is the funnel of the paper [Fog].",
    ),
    click.option(
        "--max-len",
        type=INTEGER,
        metavar="N",
        default=6,
        show_default=True,
        help="Maximum number of layers of a block.",
    ),
    shared("kinds", help="Kinds to use, such as PW,GC,DW; all if not given."),
    click.option(
        "--channels",
        "-C",
        type=WIDTHS,
        metavar="LIST",
        default="64",
        show_default=True,
        help="Input channels C of a block; several as 16,64,256.",
    ),
    shared("out-channels", help="Output channels F of a block; C if not given."),
    shared("kernel", default=3, help="Kernel size k, odd."),
    shared("overlaps"),
    shared("rpw-order"),
    click.option(
        "--repeats",
        type=INTEGER,
        metavar="N",
        default=1,
        show_default=True,
        help="Copies of a block in sequence, compared with as many convolutions.",
    ),
    shared(
        "bottleneck",
        type=str,
        help="Bottleneck of RATIO x F channels, such as 1/4; none if not given.",
    ),
    click.option(
        "--rule",
        type=OneOf(["compact", "early-stop"]),
        default="compact",
        show_default=True,
        help="Rule that a design must pass.",
    ),
    click.option(
        "--permutation",
        type=OneOf(["explicit", "free"]),
        default="explicit",
        show_default=True,
        help="Channels are permuted by SH only, or freely between layers.",
    ),
    click.option(
        "--patterns",
        type=OneOf(["whole", "any", "keep"]),
        default="whole",
        show_default=True,
        help="Repeated patterns to drop: ABAB as a whole, any AA, or none.",
    ),
    shared("compact"),
    shared("stride", type=INTEGER, default=1, help="Stride of the first spatial layer."),
    shared("dims", type=INTEGER),
    shared("objective", help="What is minimised for each composition."),
    floor_options(),
    shared("peak-memory"),
    shared("side"),
    shared("dtype"),
    click.option(
        "--most-peak",
        type=INTEGER,
        metavar="N",
        help="The same in elements per output pixel that are live at once.",
    ),
    click.option(
        "--jobs",
        type=INTEGER,
        metavar="N",
        help="Worker processes; by default one per core, within 2 GiB.",
    ),
    click.option(
        "--front",
        is_flag=True,
        help="For each composition every trade-off of parameters, MACs and least fan-in, not only "
        "the cheapest choice; and what no choice of any composition beats.",
    ),
    shared("all"),
    shared("limit", help="Number of rows of the tables."),
)


@click.command("enumerate", short_help="List the design space: funnel, survivors, best blocks.")
@with_options(_OPTIONS)
@output_options()
def command(
    output: Output,
    channels: tuple[int, ...],
    preset: str | None,
    jobs: int | None,
    every_row: bool,
    limit: int,
    peak_memory: str | None,
    side: int | None,
    dtype: str | None,
    **arguments: Any,
) -> None:
    """List the design space: every composition, and the cheapest block of each survivor.

    A survivor has the field of a standard convolution, and with any one layer less it has not.
    With --out FILE.parquet the whole catalogue is kept for `ifspace best`; .csv, .json and .md
    are exports of it. The tables have one row for blocks that are the same network, up to the order
    of channels: --all shows every row, with a number for its network, and JSON, CSV and Markdown
    always have every row. Of several widths `arguments` and `funnel` in JSON are those of the
    first; `settings` holds them for every one.

    With --preset fog the survivors are also counted up to order and DW for GC, and compared with
    the four designs of the paper. An option beside it is stronger, and a note says so.

    Long searches say how long they will take. One that is interrupted keeps nothing.
    """
    from ifspace.catalogue import dataset
    from ifspace.catalogue.design import permutation_notes
    from ifspace.catalogue.setting import EnumerationSetting
    from ifspace.errors import SettingError
    from ifspace.memory import peak_limit

    if preset is not None:
        arguments |= _preset_values(output, preset, arguments)
    if arguments["kinds"] is None:
        del arguments["kinds"]
    most_peak = peak_limit(peak_memory, dtype, side, arguments["dims"])
    if most_peak is not None:
        if arguments["most_peak"] is not None:
            raise SettingError.because(
                "peak memory bounded twice",
                got=f"--peak-memory {peak_memory} and --most-peak {arguments['most_peak']}",
                allowed="bytes, or elements per output pixel",
                remedy="leave one out",
            )
        arguments["most_peak"] = most_peak
    settings = [EnumerationSetting(channels=width, **arguments) for width in channels]
    if output.out is not None:
        dataset.check_writable(output.out)

    from ifspace.cli.progress import ProgressBar, duration_text
    from ifspace.enumerate import search
    from ifspace.enumerate.named import notes_on_named
    from ifspace.enumerate.satisfiable import params_range

    for setting in settings:
        if setting.floors:
            bounds = params_range(setting)
            output.note(f"at {setting.widths_text}{setting.within_floors}: {bounds}")
    for note in dict.fromkeys(note for setting in settings for note in setting.notes()):
        output.note(note)
    if not search.is_compiled():
        output.note("compiling the search, once, about 15 seconds")
    seconds = sum(map(search.estimate_seconds, settings))
    if not seconds <= LONG_S:
        output.note(
            f"this will take {duration_text(seconds)} on one core; an interrupt keeps nothing, "
            "shorter lengths or single widths can be kept one by one with --out"
        )
    with ProgressBar("enumerating", quiet=output.quiet) as progress:
        catalogue = search.enumerate_designs(settings, jobs=jobs, progress=progress)
        merged = _merged(catalogue, jobs) if preset == "fog" else ()
    for note in dict.fromkeys(note for setting in settings for note in notes_on_named(setting)):
        output.note(f"named in papers, {note}")
    for note in permutation_notes(catalogue, catalogue.designs):
        output.note(note)
    if output.out is not None:
        dataset.save(catalogue, output.out)
        if output.quiet:
            return
    output.print(
        {
            "table": lambda: _text(catalogue, merged, limit, every_row),
            "json": lambda: _json(catalogue, merged),
            "csv": lambda: dataset.to_csv(catalogue.designs),
            "markdown": lambda: dataset.to_markdown(catalogue),
        }
    )


def _preset_values(output: Output, preset: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a preset gives to options that are not given themselves."""
    from click.core import ParameterSource

    from ifspace.catalogue.setting import option_text
    from ifspace.enumerate.fog import PRESETS

    context = click.get_current_context()
    values = dict(PRESETS[preset])
    for name in list(values):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            output.note(f"{option_text(name, arguments[name])} is stronger than --preset {preset}")
            del values[name]
    return values


def _merged(catalogue: "Catalogue", jobs: int | None) -> tuple["FogFunnel", ...]:
    """Return for each setting what it leaves up to order and GC -> DW."""
    from ifspace.enumerate.fog import fog_funnel

    designs = iter(catalogue.designs)
    return tuple(
        fog_funnel(
            setting,
            list(dict.fromkeys(next(designs).composition for _ in range(funnel.rows))),
            jobs,
        )
        for setting, funnel in zip(catalogue.settings, catalogue.funnels, strict=True)
    )


def _json(catalogue: "Catalogue", merged: Sequence["FogFunnel"]) -> str:
    """Return the catalogue; with a preset also, for each setting, the merged designs."""
    import json

    from ifspace.catalogue import dataset
    from ifspace.serialize import json_text, to_plain

    text = dataset.to_json(catalogue)
    return json_text(json.loads(text) | {"merged": to_plain(merged)}) if merged else text


def _text(
    catalogue: "Catalogue", merged: Sequence["FogFunnel"], limit: int, every_row: bool
) -> str:
    """Return what the terminal shows: for each setting its funnel, best designs and trade-offs."""
    texts = []
    designs = iter(catalogue.designs)
    for number, (setting, funnel) in enumerate(
        zip(catalogue.settings, catalogue.funnels, strict=True)
    ):
        survivors = [next(designs) for _ in range(funnel.rows)]
        more = _merged_text(setting, merged[number]) if merged else ""
        texts.append(_setting_text(setting, funnel, survivors, limit, more, every_row))
    return "\n".join(texts)


def _setting_text(
    setting: "EnumerationSetting",
    funnel: "Funnel",
    designs: Sequence["Design"],
    limit: int,
    merged: str,
    every_row: bool,
) -> str:
    from ifspace.catalogue.choose import AMOUNTS, ranked, trade_offs
    from ifspace.catalogue.dataset import designs_table, remarked
    from ifspace.catalogue.design import one_a_network
    from ifspace.table import heading, paragraph

    title = f"Compositions of 1 to {setting.max_len} layers at {setting.widths_text}"
    text = heading(title + _not_default(setting)) + _funnel_text(funnel) + merged
    if not limit or not designs:
        return text
    if setting.front:
        return text + "\n" + _front_text(funnel, designs, limit, every_row)
    rows = [(design, ()) for design in designs] if every_row else one_a_network(designs)
    others = {design.composition: members for design, members in rows}
    best = ranked([design for design, _ in rows], setting.objective)[:limit]
    amount, what = AMOUNTS[setting.objective][1], "survivors" if every_row else "networks"
    text += "\n" + heading(f"The {len(best)} with the fewest {amount} of {len(rows):,} {what}")
    remarks = [remarked(design, others[design.composition]) for design in best]
    table = partial(designs_table, ranks=True, networks=every_row)
    text += table(best, remarks).text(keys=2 + every_row)
    simpler = sum(design.same_as is not None for design in designs)
    if any(design.same_as for design in best):
        text += "\n" + paragraph(
            f"{simpler:,} of {funnel.survivors:,} survivors are cheaper still with a trivial group "
            f'count, as the simpler composition that "cheaper as" names in the notes.'
        )
    trades = trade_offs(design for design, _ in rows)
    text += "\n" + heading(f"Trade-offs that no other of these blocks beats: {len(trades)}")
    remarks = []
    for design, alike in trades[:limit]:
        more = f"{alike - 1:,} more cost the same" if alike > 1 else ""
        remark = remarked(design, others[design.composition])
        remarks.append("; ".join(filter(None, [remark, more])))
    shown = [design for design, _ in trades[:limit]]
    return text + table(shown, remarks).text(keys=2 + every_row)


def _front_text(funnel: "Funnel", designs: Sequence["Design"], limit: int, every_row: bool) -> str:
    """Return the networks that no choice beats; with `every_row` also all rows."""
    from ifspace.catalogue.choose import ranked
    from ifspace.catalogue.dataset import designs_table
    from ifspace.catalogue.front import front_networks, front_table
    from ifspace.table import heading, paragraph

    networks = front_networks(designs)
    text = heading(f"Trade-offs that no other choice beats: {len(networks)} networks")
    text += front_table(networks[:limit]).text(keys=2)
    text += "\n" + paragraph(
        f"{funnel.choices_passing:,} choices pass the rule. Each has the amounts of a row or is "
        "beaten by one: it is no better in parameters, MACs, activations, peak memory, least "
        "fan-in and layers, and worse in one. How many have the amounts of a row, it stands for."
    )
    if every_row:
        text += "\n" + heading(f"Trade-offs of every composition: {len(designs):,}")
        text += designs_table(ranked(designs)[:limit], ranks=True, networks=True).text(keys=3)
    return text


def _merged_text(setting: "EnumerationSetting", merged: "FogFunnel") -> str:
    """Return the designs up to order and DW for GC, and which of them the paper presents."""
    from ifspace.enumerate.fog import BOTTLENECK
    from ifspace.table import Table, heading, paragraph
    from ifspace.values import listed

    rows = []
    for bottleneck, designs in (
        (setting.bottleneck, merged.designs),
        (BOTTLENECK, merged.added),
    ):
        for design in designs:
            shown = list(design.compositions[:MOST_ORDERS])
            more = len(design.compositions) - len(shown)
            shown += [f"{more} more"] * bool(more)
            ratio = "none" if bottleneck is None else str(bottleneck)
            in_fog = "yes" if design.in_fog else "no"
            rows.append((design.name, in_fog, ratio, ", ".join(shown)))
    title = f"Designs up to order, and to DW in the place of GC: {len(merged.designs)}"
    if merged.narrow is not None:
        title += f", and {len(merged.added)} more with a bottleneck of {BOTTLENECK}"
    columns = ("design~", "in [Fog]", "bottleneck", "survivors~")
    text = "\n" + heading(title) + Table(columns, tuple(rows)).text()
    if merged.narrow is not None:
        text += "\n" + paragraph(
            f"With a bottleneck of {BOTTLENECK} {merged.narrow:,} compositions survive. [Fog] 3.2 "
            f"presents {listed(merged.of_fog)} of these designs."
        )
    elif setting.bottleneck is None:
        text += "\n" + paragraph(
            f"PW+DW+PW of [Fog] 3.2 needs a bottleneck of {BOTTLENECK}, and that of "
            f"{setting.out_width} channels is no whole number of them: try a multiple of "
            f"{BOTTLENECK.denominator}."
        )
    return text


def _not_default(setting: "EnumerationSetting") -> str:
    """Return the arguments that differ from the defaults, for a title that has the widths."""
    in_title = {"channels", "out_channels", "bottleneck", "max_len"}
    other = [text for name, text in setting.options().items() if name not in in_title]
    return f" ({' '.join(other)})" if other else ""


def _funnel_text(funnel: "Funnel") -> str:
    """Return a row for each step; where that is too wide for the terminal, one for each length."""
    from ifspace.catalogue.dataset import funnel_table
    from ifspace.table import Table, terminal_width, widest

    steps = funnel_table(funnel)
    text = steps.text(width=sys.maxsize)
    if widest(text) <= terminal_width():
        return text
    columns = [">length", *(f">{row[0]}" for row in steps.rows)]
    lengths = steps.names[1:]
    counts = zip(*(row[1:] for row in steps.rows), strict=True)
    rows = [(length, *row) for length, row in zip(lengths, counts, strict=True)]
    return Table(tuple(columns), tuple(rows)).text()
