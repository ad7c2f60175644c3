"""`ifspace enumerate`: the whole design space, its funnel and its best blocks."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import Output, parts, shared_options, widths, with_options

if TYPE_CHECKING:
    from ifspace.catalogue import Catalogue, Design, Funnel
    from ifspace.catalogue.setting import EnumerationSetting


# Above so many seconds by the estimate the user is told before the work begins.
LONG_S: Final = 20
DAY_S: Final = 86400

_OPTIONS = (
    click.option(
        "--max-len",
        type=int,
        metavar="N",
        default=6,
        show_default=True,
        help="Most layers of a block.",
    ),
    click.option(
        "--kinds",
        type=parts,
        metavar="LIST",
        help="Kinds to use, such as PW,GC,DW; all if not given.",
    ),
    click.option(
        "--channels",
        "-C",
        type=widths,
        metavar="LIST",
        default="64",
        show_default=True,
        help="Width C that enters a block; several as 16,64,256.",
    ),
    click.option(
        "--out-channels",
        "-F",
        type=int,
        metavar="N",
        help="Width F that leaves it; C if not given.",
    ),
    click.option(
        "--kernel", type=int, metavar="N", default=3, show_default=True, help="Kernel size k, odd."
    ),
    click.option(
        "--overlaps",
        type=parts,
        metavar="LIST",
        default="0,0.33,0.5",
        show_default=True,
        help="Overlap ratios of RPW, exact.",
    ),
    click.option(
        "--repeats",
        type=int,
        metavar="N",
        default=1,
        show_default=True,
        help="Copies of a block, against as many convolutions.",
    ),
    click.option(
        "--bottleneck",
        metavar="RATIO",
        help="Width inside is RATIO x F, such as 1/4; F if not given.",
    ),
    click.option(
        "--rule",
        type=click.Choice(["compact", "early-stop"]),
        default="compact",
        show_default=True,
        help="What a design must pass.",
    ),
    click.option(
        "--permutation",
        type=click.Choice(["explicit", "free"]),
        default="explicit",
        show_default=True,
        help="Channels change places by SH only, or at will.",
    ),
    click.option(
        "--patterns",
        type=click.Choice(["whole", "any", "keep"]),
        default="whole",
        show_default=True,
        help="Repeated patterns to drop: ABAB as a whole, or any AA.",
    ),
    click.option(
        "--compact",
        type=click.Choice(["single", "subset"]),
        default="single",
        show_default=True,
        help="No single layer can go, or no set of layers.",
    ),
    click.option(
        "--stride",
        type=int,
        metavar="1|2",
        default=1,
        show_default=True,
        help="Stride of the first spatial layer.",
    ),
    click.option(
        "--dims", type=int, metavar="1|2", default=2, show_default=True, help="Spatial dimensions."
    ),
    click.option(
        "--objective",
        type=click.Choice(["params", "macs", "activations"]),
        default="params",
        show_default=True,
        help="What the cheapest has least of.",
    ),
    click.option(
        "--jobs",
        type=int,
        metavar="N",
        help="Worker processes; if not given one to a core, within 2 GiB.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(0),
        metavar="ROWS",
        default=20,
        show_default=True,
        help="Rows of the table shown.",
    ),
)


@click.command("enumerate", short_help="List the design space: funnel, survivors, best blocks.")
@with_options(_OPTIONS)
@shared_options()
def command(
    output: Output, channels: tuple[int, ...], jobs: int | None, limit: int, **given: Any
) -> None:
    """List the design space: every composition, and the cheapest block of each survivor.

    A survivor has the field of a standard convolution, and with any one layer less it has not.
    With --out FILE.parquet the whole catalogue is kept for `ifspace best`; .csv, .json and .md
    are exports of it. Of several widths `arguments` and `funnel` in JSON are those of the first;
    `settings` holds them for every one.
    """
    from ifspace.catalogue.dataset import (
        check_writable,
        save,
    )
    from ifspace.catalogue.setting import EnumerationSetting

    if given["kinds"] is None:
        del given["kinds"]
    settings = [EnumerationSetting(channels=width, **given) for width in channels]
    if output.out is not None:
        check_writable(output.out)

    from ifspace.enumerate.search import (
        enumerate_designs,
        estimate_seconds,
        is_compiled,
    )

    for note in dict.fromkeys(note for setting in settings for note in setting.notes()):
        output.note(note)
    seconds = sum(map(estimate_seconds, settings))
    if not seconds <= LONG_S:
        output.note(f"this will take {_duration(seconds)} on one core")
    if not is_compiled():
        output.note("compiling the search, once, about 15 seconds")
    from ifspace.cli.progress import ProgressBar

    with ProgressBar("enumerating", quiet=output.quiet) as progress:
        catalogue = enumerate_designs(settings, jobs=jobs, progress=progress)
    if output.out is not None:
        save(catalogue, output.out)
        if output.quiet:
            return
    from ifspace.catalogue import export

    output.print(
        {
            "table": lambda: _text(catalogue, limit),
            "json": lambda: export.to_json(catalogue),
            "csv": lambda: export.to_csv(catalogue),
            "markdown": lambda: export.to_markdown(catalogue),
        }
    )


def _duration(seconds: float) -> str:
    """Return a time as a person says it.

    >>> _duration(40), _duration(3e5), _duration(float("nan"))
    ('about 40 s', 'about 3 days', 'more than a year')
    """
    for most, unit_s, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < most:
            return f"about {seconds / unit_s:.0f} {unit}"
    # A bound that cannot be computed is no number: it is not below a year either.
    return f"about {seconds / DAY_S:.0f} days" if seconds <= 365 * DAY_S else "more than a year"


def _text(catalogue: "Catalogue", limit: int) -> str:
    texts = []
    rows = iter(catalogue.designs)
    for setting, funnel in zip(catalogue.settings, catalogue.funnels, strict=True):
        designs = [next(rows) for _ in range(funnel.survivors)]
        texts.append(_one_setting(setting, funnel, designs, limit))
    return "\n".join(texts)


def _one_setting(
    setting: "EnumerationSetting", funnel: "Funnel", designs: Sequence["Design"], limit: int
) -> str:
    from ifspace.catalogue.choose import AMOUNTS, ranked, trade_offs
    from ifspace.catalogue.command import designs_table
    from ifspace.catalogue.export import notes
    from ifspace.table import (
        heading,
        paragraph,
    )

    text = heading(
        f"Compositions of 1 to {setting.max_len} layers at {_at_widths(setting)}{_unusual(setting)}"
    )
    text += _funnel(funnel)
    if not limit or not designs:
        return text
    shown = ranked(designs, setting.objective)[:limit]
    what = AMOUNTS[setting.objective][1]
    text += "\n" + heading(f"The {len(shown)} with the fewest {what} of {funnel.survivors:,}")
    text += designs_table(shown)
    same = sum(design.same_as is not None for design in designs)
    text += "\n" + paragraph(
        f"Cheaper still as a simpler composition, with a trivial group count (=): {same:,} of "
        f"{funnel.survivors:,}."
    )
    trades = trade_offs(designs)
    text += "\n" + heading(f"Trade-offs that no other of these blocks beats: {len(trades)}")
    said = []
    for design, alike in trades:
        more = [f"{alike - 1:,} more cost the same"] if alike > 1 else []
        said.append("; ".join(filter(None, [notes(design), *more])))
    return text + designs_table([design for design, _ in trades][:limit], said[:limit])


def _unusual(setting: "EnumerationSetting") -> str:
    """Return what is not as by default and not in the widths, for a title."""
    standard = type(setting)().arguments()
    told = {"channels", "out_channels", "bottleneck", "max_len"}
    other = [
        f"{name} {','.join(value) if isinstance(value, list) else value}"
        for name, value in setting.arguments().items()
        if name not in told and value != standard[name]
    ]
    return f" ({'; '.join(other)})" if other else ""


def _funnel(funnel: "Funnel") -> str:
    """Return a row for each step; where that is too wide for the terminal, one for each length."""
    from ifspace.table import (
        table,
        terminal_width,
        widest,
    )

    names = ("compositions", "after repeated patterns", "survivors")
    totals = (funnel.compositions, funnel.after_patterns, funnel.survivors)
    by_length = (
        funnel.compositions_by_length,
        funnel.after_patterns_by_length,
        funnel.by_length,
    )
    lengths = [*map(str, range(1, len(funnel.by_length) + 1)), "all"]
    counts = [
        [f"{count:,}" for count in (*each, total)]
        for each, total in zip(by_length, totals, strict=True)
    ]
    rows = [[name, *each] for name, each in zip(names, counts, strict=True)]
    text = table(["length", *(f">{each}" for each in lengths)], rows, width=sys.maxsize)
    if widest(text) <= terminal_width():
        return text
    columns = [">length", *(f">{name}" for name in names)]
    return table(columns, zip(lengths, *counts, strict=True))


def _at_widths(setting: "EnumerationSetting") -> str:
    text = f"{setting.channels} channels"
    if setting.inner_width is not None:
        text += f" by way of {setting.inner_width}"
    return text if setting.out_channels is None else f"{text} to {setting.out_channels}"
