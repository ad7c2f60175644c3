"""`ifspace best`: which block of a catalogue to use."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.latency import NONE_NOTE, latency_notes, latency_options, read_latencies
from ifspace.cli.messages import say
from ifspace.cli.options import (
    AMOUNT,
    NO_ANSWER,
    PLACE,
    OneOf,
    Output,
    WholeNumber,
    floor_options,
    output_options,
    shared,
    with_options,
)
from ifspace.values import MAX_SIDE

if TYPE_CHECKING:
    from ifspace.catalogue import Catalogue, Design
    from ifspace.catalogue.choose import PeakMemory, Trade

# What can be compared first: `choose.BY`, without importing it.
BY: Final = ("params", "macs", "activations", "layers", "peak-memory", "least-fan-in", "latency")
# Rows of files that are written at a time.
PIECE: Final = 1000
# What other choices of a composition may have.
_MAY_DIFFER: Final = {
    "params": "fewer params",
    "macs": "fewer macs",
    "least-fan-in": "a greater least fan-in",
    "latency": "less latency",
}
_OPTIONS = (
    shared("params", help="Upper bound on parameters."),
    shared("macs", help="Upper bound on MACs per output pixel."),
    click.option(
        "--activations",
        type=AMOUNT,
        metavar="N",
        help="Upper bound on elements written per output pixel.",
    ),
    click.option("--layers", type=AMOUNT, metavar="N", help="Upper bound on layers."),
    shared(
        "peak-memory",
        help="Upper bound on the feature maps that are live at once, in bytes of one image, such "
        "as 256k (256,000) or 256KiB (262,144); needs --side and --dtype.",
    ),
    floor_options(),
    shared("kinds", help="Kinds that a block may use, such as DW,PW; all if not given."),
    shared("channels", help="Input channels of the block, where the catalogue has several."),
    click.option(
        "--by",
        type=OneOf(BY),
        default="params",
        show_default=True,
        help="What to compare first: the least of it is best, of the least fan-in the most; "
        "latency needs --latency.",
    ),
    *latency_options("Shows that of the fastest form of each block."),
    shared("latency-budget-ms", help="With --latency: at most so many milliseconds."),
    click.option(
        "--side",
        type=WholeNumber(1, MAX_SIDE),
        metavar="N",
        help="Side of the output feature map in pixels; of latencies that of the model if not "
        "given.",
    ),
    shared(
        "top",
        default=None,
        help="Only the K best of each width, each with what the next better in every amount would "
        "cost.",
    ),
    shared("all"),
    click.option(
        "--evidence",
        is_flag=True,
        help="Show published trained networks with blocks of the same composition, any groups.",
    ),
    click.option(
        "--check/--no-check",
        default=None,
        help="Compare every row with its block, computed anew; for up to 100,000 rows if not "
        "given.",
    ),
    shared("limit", help="Number of rows of the table."),
)


@click.command("best", short_help="Say which block of a catalogue to use.")
@click.argument("catalogues", type=PLACE, nargs=-1, required=True, metavar="CATALOGUE...")
@with_options(_OPTIONS)
@output_options()
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    catalogues: tuple[Path | str, ...],
    kinds: tuple[str, ...] | None,
    channels: int | None,
    by: str,
    latency: Path | None,
    latency_budget_ms: Fraction | None,
    batch: int | None,
    device: str | None,
    dtype: str | None,
    side: int | None,
    peak_memory: str | None,
    top: int | None,
    every_row: bool,
    evidence: bool,
    check: bool | None,
    limit: int,
    **bounds: Any,
) -> None:
    """Say which block of CATALOGUE to use: the entries within all bounds, best first, and why.

    CATALOGUE is a file of `ifspace enumerate --out FILE.parquet`, or the folder or URL of a run in
    parts; of more than 100,000 rows they are read some at a time, and only those that the table is
    about are held; JSON and CSV have all, which are sorted in temporary files. Several, such as
    those of the widths of a network, are read as one. Bounds include their value and may end in k,
    M or G. Of blocks that are the same network, up to the order of channels, one is listed: the
    one with the fewest layers; --all lists every one, with a number for each network. A block is
    dominated by another that is no worse in parameters, MACs, activations and layers, and in
    latency, peak memory and least fan-in where they are asked for, and better in at least one:
    `why` compares the blocks within the bounds and kinds, `dominated_by` in JSON and CSV those of
    the whole catalogue. Latencies are of the fastest form of each block that they know: as is,
    collapsed, or fused.

    Floors are of the search: a catalogue has the cheapest choice of each composition, and answers
    for floors that it was made with, or if all of its entries have them; a front answers for every
    least fan-in.

    With --top K, the next better entry of each amount may be outside of the bounds. Exit status 3,
    and no file, when no entry is within them.
    """
    from ifspace.catalogue import best, load
    from ifspace.catalogue.best_text import BestReport, csv_pieces, json_pieces
    from ifspace.catalogue.choose import AMOUNTS, next_better, tight_bounds, together, usable
    from ifspace.catalogue.design import one_a_network
    from ifspace.catalogue.lazily import Question, count_entries, long_catalogues, needed
    from ifspace.catalogue.ranking import LongRanking
    from ifspace.catalogue.setting import option_text
    from ifspace.latency import at_side
    from ifspace.memory import BYTES
    from ifspace.values import listed

    peak = _peak_memory(peak_memory, side, dtype)
    of_peak = peak_memory is not None or by == "peak-memory"
    source = read_latencies(latency, batch, device, None if of_peak and not latency else dtype)
    time_of = None if source is None else at_side(source, side)
    question = {
        "kinds": kinds,
        "channels": channels,
        "latency": time_of,
        "latency_ms": latency_budget_ms,
        "peak_memory": peak,
        **bounds,
    }
    criteria = Question(
        limit if top is None else top,
        each_width=top is not None,
        by=by,
        every_row=every_row,
        kinds=kinds,
        channels=channels,
        bounds={name: bounds[name] for name in AMOUNTS},
        floors=bounds["floors"],
        peak_memory=peak,
        latency=time_of,
        latency_ms=latency_budget_ms,
    )
    in_memory = top is None and "markdown" in output.formats
    long = None if in_memory else long_catalogues(catalogues, check)
    if long is not None:
        designs_on_file = together(needed(long, criteria))
    else:
        # What a long catalogue is read within; --top and floors ask for what is beyond the bounds.
        columns = {AMOUNTS[name][0]: bounds[name] for name in AMOUNTS if bounds[name] is not None}
        most = None if top is not None or bounds["floors"] else columns
        designs_on_file = together([load(path, check, most) for path in catalogues])
    choices = best(designs_on_file, by=by, every_row=every_row, **question)
    entries, widths = len(choices), {design.replaces[:2] for design, _ in choices}
    ranking = None
    if long is not None and top is None and choices:
        # Beyond the first rows those of a long catalogue are not there.
        choices = choices[:limit]
        if output.formats == {"table"}:
            entries = count_entries(long, criteria)
        else:
            ranking = LongRanking(long, criteria)
            entries, widths = len(ranking), {replaced[:2] for replaced in ranking.replaces}
    # The widths are in the order of the files.
    by_widths: dict[Any, list[tuple[Design, str]]] = (
        {design.replaces: [] for design in designs_on_file.designs} if top else {}
    )
    for design, reason in choices:
        by_widths.setdefault(design.replaces if top else None, []).append((design, reason))
    groups = [group[:top] for group in by_widths.values()]
    rows = [row for group in groups for row in group]
    every: Iterable[tuple[Design, str]] = rows if ranking is None else ranking
    trades: Sequence[Sequence[Trade]] = ()
    if top is not None:
        others = usable(designs_on_file.designs, kinds)
        trades = next_better(
            [design for design, _ in rows], [x for x, _ in one_a_network(others)], time_of
        )
    feature_map = (side, dtype) if of_peak and side and dtype in BYTES else None
    several = len({design.replaces for design in designs_on_file.designs}) > 1 and channels is None
    report = BestReport(
        rows,
        trades,
        time_of,
        every_row,
        None if top else limit,
        of_peak,
        feature_map,
        several,
        evidence,
    )

    def reports() -> Iterable[BestReport]:
        """Yield the rows of files, those of a long catalogue some at a time."""
        if ranking is None:
            return [report]
        pairs = iter(ranking)
        pieces = iter(lambda: tuple(islice(pairs, PIECE)), ())
        return (replace(report, rows=piece) for piece in pieces)

    output.emit(
        {
            "table": report.text,
            "json": lambda: json_pieces(reports()),
            "csv": lambda: csv_pieces(reports()),
            "markdown": report.markdown,
        },
        keep=bool(entries),
    )
    compared = {by, *(name for name in ("params", "macs") if bounds[name])}
    if source is not None:
        for note in latency_notes(source, side, ((x.sized, x.stride) for x, _ in every)):
            output.note(note)
    if top is None and len(widths) > 1:
        output.note(
            f"the rows are for {len(widths)} widths; --channels picks one, --top answers for each"
        )
    for note in _notes(designs_on_file, (design for design, _ in every), compared):
        output.note(note)
    if top is None and entries > limit and output.format == "table":
        output.note(f"{limit} of {entries} entries within the bounds; --limit shows more")
    if not entries:
        names = ", ".join(Path(path).name for path in catalogues)
        tight = tight_bounds(designs_on_file, **question)
        values = [option_text(name, value) for name, value in tight.nearest.items()]
        remedy = f"{' or '.join(values)} leaves some" if values else "loosen several of them"
        if kinds is not None and not usable(designs_on_file.designs, kinds):
            remedy = "allow more --kinds"
        elif time_of is not None and latency_budget_ms is not None:
            timed = (time_of(design.sized, design.stride) for design in designs_on_file.designs)
            remedy = remedy if any(timed) else f"{NONE_NOTE}: --side picks the side"
        has = f": entries have {listed(tight.least)}" if tight.least else ""
        fact = f"no entry of {names} is within the bounds{has}; {remedy}"
        if output.out is not None:
            fact += f"; {output.out} was not written"
        say(fact)
        context.exit(NO_ANSWER)


def _peak_memory(most: str | None, side: int | None, dtype: str | None) -> "PeakMemory | None":
    """Return the bound on peak memory; None without one."""
    from ifspace.catalogue.choose import PeakMemory
    from ifspace.errors import SettingError
    from ifspace.memory import BYTES, peak_bytes

    if most is None:
        return None
    missing = [name for name, value in (("--side", side), ("--dtype", dtype)) if value is None]
    if side is None or dtype is None or dtype not in BYTES:
        raise SettingError.because(
            "peak memory in bytes depends on the feature map",
            got=f"no {' and no '.join(missing)}" if missing else f"--dtype {dtype}",
            allowed=f"--side in pixels, --dtype {', '.join(BYTES)}",
            remedy="add them",
        )
    bound = peak_bytes(most, dtype)
    assert bound is not None
    return PeakMemory(bound, side, dtype)


def _notes(
    catalogue: "Catalogue", designs: Iterable["Design"], compared: set[str]
) -> Iterator[str]:
    """Yield what to know of the chosen designs, given the amounts that were bounded or compared."""
    from ifspace.catalogue.design import permutation_notes

    # A front has every trade-off of these amounts; the others are those of the composition.
    settings = [setting for setting in catalogue.settings if not setting.front]
    minimised = {setting.objective for setting in settings}
    constant = {"params", "macs"} if not any(setting.stride > 1 for setting in settings) else set()
    if not minimised <= constant:
        constant = set()
    other = [name for name in _MAY_DIFFER if name in compared - minimised - constant]
    if settings and other:
        yield (
            f"of each composition the catalogue has the choice with the "
            f"{'least' if 'latency' in minimised else 'fewest'} "
            f"{' or '.join(sorted(minimised))}; others may have "
            f"{' and '.join(_MAY_DIFFER[name] for name in other)}: enumerate again with --front"
        )
    yield from permutation_notes(catalogue, designs)
