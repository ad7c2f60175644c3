"""`ifspace enumerate`: the whole design space, its funnel and its best blocks."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.catalogue.command import BY
from ifspace.cli.backend import backend_options
from ifspace.cli.latency import LatencyColumns, latency_notes, latency_options, read_latencies
from ifspace.cli.options import (
    INTEGER,
    PLACE,
    WIDTHS,
    OneOf,
    Output,
    WholeNumber,
    floor_options,
    no_plan,
    output_options,
    shared,
    with_options,
)
from ifspace.values import MAX_SIDE, counted

if TYPE_CHECKING:
    from ifspace.catalogue import Catalogue, Design, Funnel
    from ifspace.catalogue.setting import EnumerationSetting
    from ifspace.catalogue.shards import Shards
    from ifspace.enumerate.fog import FogFunnel
    from ifspace.latency import BlockLatency

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
    shared(
        "objective",
        type=OneOf(["params", "macs", "activations", "latency"]),
        help="What is minimised for each composition; latency needs --latency.",
    ),
    floor_options(),
    shared("peak-memory"),
    shared(
        "side",
        type=WholeNumber(1, MAX_SIDE),
        help="Side of what the block writes in pixels, for peak memory in bytes and for latencies; "
        "that of the latencies if not given.",
    ),
    shared("dtype", help="Type of the feature maps, for peak memory in bytes; of the latencies."),
    click.option(
        "--most-peak",
        type=INTEGER,
        metavar="N",
        help="The same in elements per output pixel that are live at once.",
    ),
    *latency_options(
        "Shows that of the fastest form of each block; the file of --out has none.", dtype=False
    ),
    shared(
        "latency-budget-ms", help="With --latency: only blocks of at most so many milliseconds."
    ),
    click.option(
        "--by",
        type=OneOf(BY),
        help="What orders the tables of the best and of the front: the least of it is first, of "
        "the least fan-in the most; if not given the objective, of the front the parameters.",
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
    shared("shard"),
    shared("estimate"),
    shared("progress"),
)


@click.command("enumerate", short_help="List the design space: funnel, survivors, best blocks.")
@with_options(_OPTIONS)
@backend_options()
@output_options(
    out=PLACE,
    out_help="Write a file too, in the format of its suffix; or a folder, or a URL of one, that "
    "keeps finished parts.",
)
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
    latency: Path | None,
    batch: int | None,
    device: str | None,
    latency_budget_ms: Fraction | None,
    by: str | None,
    shard: tuple[int, int] | None,
    estimate: bool,
    progress: str,
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

    With --latency the trade-offs have latency as an amount too. The rows are those of the
    objective: --objective latency finds the fastest choice of each composition, and --front has
    latency as an amount of all choices. Both search blocks as is and fused, or those of a table; a
    collapsed block is timed where it is shown (`ifspace groups COMPOSITION --objective latency`
    tries all choices in all forms).

    Long searches say how long they will take. With --out FOLDER every part is kept when it is done:
    after an interruption the same command goes on, on any machine that sees the folder, and
    --shard lets many machines share the parts; `ifspace best` reads the folder, `ifspace merge`
    joins it. Without, an interrupt keeps nothing.
    Exit status 3 when a bound on peak memory or latency leaves no block.
    """
    from ifspace.catalogue import dataset, lazily
    from ifspace.catalogue.design import permutation_notes
    from ifspace.catalogue.setting import EnumerationSetting
    from ifspace.errors import SettingError
    from ifspace.latency import at_side
    from ifspace.memory import peak_limit

    if preset is not None:
        arguments |= _preset_values(output, preset, arguments)
    if arguments["kinds"] is None:
        del arguments["kinds"]
    of_latencies = peak_memory is None and latency is not None
    most_peak = peak_limit(peak_memory, None if of_latencies else dtype, side, arguments["dims"])
    if most_peak is not None:
        if arguments["most_peak"] is not None:
            raise SettingError.because(
                "peak memory bounded twice",
                got=f"--peak-memory {peak_memory} and --most-peak {arguments['most_peak']}",
                allowed="bytes, or elements per output pixel",
                remedy="leave one out",
            )
        arguments["most_peak"] = most_peak
    if arguments["front"] and latency is not None:
        arguments["objective"] = "latency"
    settings = [EnumerationSetting(channels=width, **arguments) for width in channels]
    place: Any = output.out
    folder = place if isinstance(place, str) else None
    if folder is not None:
        output = replace(output, out=None)
    elif shard is not None and not estimate:
        raise SettingError.because(
            "a part needs a folder",
            got=f"--shard {shard[0]}/{shard[1]}" + (f" --out {output.out}" if output.out else ""),
            allowed="--out FOLDER beside it",
            remedy="name a folder that all parts go to",
            argument="shard",
        )
    if folder is not None and arguments["objective"] == "latency":
        raise SettingError.because(
            "a folder says nothing of latencies",
            got="--objective latency" + " of --front and --latency" * arguments["front"],
            allowed="a file, or another objective",
            remedy="write the catalogue as one file",
            argument="objective",
        )
    if estimate:
        _print_estimate(output, settings, jobs, shard, folder)
        return
    if output.out is not None:
        dataset.check_writable(output.out)
    source = read_latencies(latency, batch, device, dtype if latency is not None else None)
    options = {"--by latency": by == "latency"}
    options["--objective latency"] = arguments["objective"] == "latency"
    options["--latency-budget-ms"] = latency_budget_ms is not None
    if source is None and any(options.values()):
        raise SettingError.because(
            "nothing says how long the blocks take",
            got=next(option for option, given in options.items() if given),
            allowed="a model or a table beside it",
            remedy="add --latency MODEL",
        )

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
        keeps = "keeps nothing, with --out FOLDER all finished parts"
        if folder is not None:
            keeps = "keeps all finished parts"
        output.note(f"this will take {duration_text(seconds)} on one core; an interrupt {keeps}")
    with ProgressBar("enumerating", quiet=output.quiet, form=progress) as bar:
        if folder is None:
            catalogue = search.enumerate_designs(settings, jobs, bar, source, side)
        else:
            shards = _in_folder(output, settings, folder, jobs, shard, bar)
            if shards is None:
                return
            if output.format == "table" and shards.rows > lazily.LONG:
                _print_funnels(output, shards)
                return
            catalogue = shards.catalogue()
        merged = _merged(catalogue, jobs) if preset == "fog" else ()
    for note in dict.fromkeys(note for setting in settings for note in notes_on_named(setting)):
        output.note(f"named in papers, {note}")
    for note in permutation_notes(catalogue, catalogue.designs):
        output.note(note)
    nothing = not catalogue.designs and arguments["most_peak"] is not None
    if output.out is not None and not nothing:
        dataset.save(catalogue, output.out)
        if output.quiet:
            return
    time_of = None if source is None else at_side(source, side)
    peak = "" if peak_memory is None else f"--peak-memory {peak_memory} --side {side}"
    peak += "" if dtype is None else f" --dtype {dtype}"
    view = _View(every_row, limit, by, time_of, latency_budget_ms, peak if most_peak else "")
    shown = view.within(catalogue.designs)
    output.print(
        {
            "table": lambda: _text(catalogue, merged, view),
            "json": lambda: _json(replace(catalogue, designs=shown), merged, view),
            "csv": lambda: dataset.to_csv(shown, more=view.latencies(shown).plain),
            "markdown": lambda: dataset.to_markdown(
                replace(catalogue, designs=shown), view.latencies(shown).shown
            ),
        }
    )
    if source is not None:
        if arguments["objective"] == "latency" and source.layer_forms:
            forms = " and ".join(source.layer_forms)
            output.note(f"the search is exact in the forms {forms}; others are timed where shown")
        for note in latency_notes(source, side, [(x.sized, x.stride) for x in shown]):
            output.note(note)
    if not shown and (latency_budget_ms is not None or arguments["most_peak"] is not None):
        kept = f"; {output.out} was not written" if output.out is not None and nothing else ""
        no_plan(
            click.get_current_context(), view.of_nothing(catalogue.designs, settings) + kept, False
        )


def _print_estimate(
    output: Output,
    settings: Sequence["EnumerationSetting"],
    jobs: int | None,
    shard: tuple[int, int] | None,
    folder: str | None,
) -> None:
    from ifspace.enumerate.run import estimate_run
    from ifspace.serialize import json_text
    from ifspace.table import Table

    expected = estimate_run(settings, jobs, shard, folder)
    names = ("shards", "minutes of one core", "KiB on disk", "MiB a process", "processes")
    cells = (
        expected.shards,
        f"{expected.minutes:.2g}",
        round(expected.bytes / 1024),
        expected.process_mib,
        expected.processes,
    )
    table = Table(tuple(f">{name}" for name in names), (cells,))
    if folder is not None:
        output.note(f"{folder} has {expected.done:,} of the {expected.shards:,} shards already")
    if shard is not None:
        own = len(range(shard[0] - 1, expected.shards, shard[1]))
        output.note(
            f"the estimate is of the whole run; {shard[0]}/{shard[1]} computes {own:,} of its "
            f"{counted(expected.shards, 'shard')}"
        )
    output.print(
        {
            "table": table.text,
            "json": lambda: json_text(expected),
            "csv": table.csv,
            "markdown": table.markdown,
        }
    )


def _title(setting: "EnumerationSetting") -> str:
    lengths = f"{'1 to ' * (setting.max_len > 1)}{counted(setting.max_len, 'layer')}"
    return f"Compositions of {lengths} at {setting.widths_text}"


def _print_funnels(output: Output, shards: "Shards") -> None:
    """Print the funnels of a catalogue that is too long to hold."""
    from ifspace.table import heading

    pairs = zip(shards.manifest.settings, shards.part_funnels(), strict=True)
    texts = [heading(_title(setting)) + _funnel_text(funnel) for setting, funnel in pairs]
    output.print({"table": lambda: "\n".join(texts)})
    output.note(
        f"{counted(shards.rows, 'row')} {'is' if shards.rows == 1 else 'are'} in {shards.folder}: "
        f"`ifspace best {shards.folder}` says which to use"
    )


def _in_folder(
    output: Output,
    settings: Sequence["EnumerationSetting"],
    folder: str,
    jobs: int | None,
    shard: tuple[int, int] | None,
    progress: Any,
) -> "Shards | None":
    """Compute what a folder lacks; return its parts when they are all there and to be shown."""
    from ifspace.enumerate.run import run_in_folder

    try:
        shards = run_in_folder(
            settings, folder, jobs=jobs, share=shard, progress=progress, note=output.note
        )
    except KeyboardInterrupt:
        output.note(f"finished parts are in {folder}; the same command goes on")
        raise
    if shard is None:
        return None if output.quiet else shards
    missing, _ = shards.states()
    left = f"{len(missing)} of {counted(len(shards), 'shard')} are to be done by others"
    output.note(f"{shard[0]}/{shard[1]} is done; {left if missing else 'so are all the others'}")
    return None


@dataclass(frozen=True, slots=True)
class _View:
    """What is shown of a catalogue: rows, their order, their latencies and a bound on these."""

    every_row: bool
    limit: int
    by: str | None = None
    time_of: "BlockLatency | None" = None
    most_ms: Fraction | None = None
    peak_options: str = ""

    def latencies(self, designs: Sequence["Design"]) -> LatencyColumns:
        """Return the columns of the latencies of designs, none without a source of them."""
        time_of = self.time_of
        if time_of is None:
            return LatencyColumns(None)
        return LatencyColumns([time_of(design.sized, design.stride) for design in designs])

    def within(self, designs: Sequence["Design"]) -> tuple["Design", ...]:
        """Return the designs within the bound; all of them without one."""
        most_ms, times = self.most_ms, self.latencies(designs).latencies
        if times is None or most_ms is None:
            return tuple(designs)
        pairs = zip(designs, times, strict=True)
        return tuple(x for x, time in pairs if time is not None and time.ms <= most_ms)

    def of_nothing(
        self, designs: Sequence["Design"], settings: Sequence["EnumerationSetting"]
    ) -> str:
        """Return which bound leaves no block, given the designs that the search left."""
        if not designs:
            reasons = [
                f"at {setting.widths_text} {setting.least_peak:,} elements per output pixel are "
                f"live at once at least, {setting.most_peak:,} may be"
                for setting in settings
                if setting.least_peak is not None
            ]
            return "; ".join(["no block is within the bound on peak memory", *reasons])
        times = [time.ms for time in self.latencies(designs).latencies or () if time is not None]
        fastest = f"the fastest takes {float(min(times)):.3g} ms" if times else "none is timed"
        return f"no block is within --latency-budget-ms; {fastest}"

    def ranked(self, designs: Sequence["Design"], objective: str) -> tuple["Design", ...]:
        """Return the designs in the order of the table; what has no latency is the slowest."""
        from ifspace.catalogue.choose import LATENCY, ranked

        by = self.by or objective
        if by != LATENCY:
            return ranked(designs, by)
        designs = ranked(designs, "params" if objective == LATENCY else objective)
        times = self.latencies(designs).latencies or ()
        keys = [inf if time is None else time.ms for time in times]
        order = sorted(range(len(designs)), key=keys.__getitem__)
        return tuple(designs[index] for index in order)

    def trade_offs(self, designs: Sequence["Design"]) -> tuple[tuple["Design", int], ...]:
        """Return the designs that none beats, latency included, and how many cost the same."""
        from ifspace.catalogue.choose import trade_offs, unbeaten

        if self.time_of is None:
            return trade_offs(designs)
        return tuple((design, 1) for design in unbeaten(designs, self.time_of))


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


def _json(catalogue: "Catalogue", merged: Sequence["FogFunnel"], view: _View) -> str:
    """Return the catalogue; with a preset also, for each setting, the merged designs."""
    import json

    from ifspace.catalogue import dataset
    from ifspace.serialize import json_text, to_plain

    text = dataset.to_json(catalogue)
    if not merged and view.time_of is None:
        return text
    values = json.loads(text) | ({"merged": to_plain(merged)} if merged else {})
    for name, cells in view.latencies(catalogue.designs).plain.items():
        for design, cell in zip(values["designs"], cells, strict=True):
            design[name] = cell
    return json_text(values)


def _text(catalogue: "Catalogue", merged: Sequence["FogFunnel"], view: _View) -> str:
    """Return what the terminal shows: for each setting its funnel, best designs and trade-offs."""
    texts = []
    designs = iter(catalogue.designs)
    for number, (setting, funnel) in enumerate(
        zip(catalogue.settings, catalogue.funnels, strict=True)
    ):
        survivors = [next(designs) for _ in range(funnel.rows)]
        more = _merged_text(setting, merged[number]) if merged else ""
        texts.append(_setting_text(setting, funnel, survivors, more, view))
    return "\n".join(texts)


def _setting_text(
    setting: "EnumerationSetting",
    funnel: "Funnel",
    designs: Sequence["Design"],
    merged: str,
    view: _View,
) -> str:
    from ifspace.catalogue.choose import (
        AMOUNTS,
        LEAST_FAN_IN,
        PEAK_MEMORY,
        with_latency_dominators,
    )
    from ifspace.catalogue.dataset import designs_table, more_of_equal_cost, remarked
    from ifspace.catalogue.design import one_a_network
    from ifspace.table import heading, paragraph

    text = (
        heading(_title(setting) + _not_default(setting, view.peak_options))
        + _funnel_text(funnel)
        + merged
    )
    limit, every_row = view.limit, view.every_row
    designs = view.within(designs)
    if not limit or not designs:
        return text
    if setting.front:
        return text + "\n" + _front_text(funnel, designs, view)
    rows: Sequence[tuple[Design, tuple[Design, ...]]] = (
        [(design, ()) for design in designs] if every_row else one_a_network(designs)
    )
    if view.time_of is not None:
        marked = with_latency_dominators([design for design, _ in rows], view.time_of)
        rows = [(design, members) for design, (_, members) in zip(marked, rows, strict=True)]
    others = {design.composition: members for design, members in rows}
    best = view.ranked([design for design, _ in rows], setting.objective)[:limit]
    what = "survivor" if every_row else "network"
    by = view.by or setting.objective
    further = {LEAST_FAN_IN: "greatest least fan-in", PEAK_MEMORY: "least peak memory"}
    amount = f"fewest {AMOUNTS[by][1]}" if by in AMOUNTS else further.get(by, "least latency")
    text += "\n" + heading(f"The {len(best)} with the {amount} of {counted(len(rows), what)}")
    unknown = "compared as the slowest: its latency is not known"

    def remark(design: "Design") -> str:
        text = remarked(design, others[design.composition])
        is_timed = view.time_of is None or view.time_of(design.sized, design.stride) is not None
        return text if is_timed else "; ".join(filter(None, [unknown, text]))

    remarks = list(map(remark, best))
    of_peak = by == PEAK_MEMORY or setting.most_peak is not None
    table = partial(designs_table, ranks=True, networks=every_row, peak=of_peak)
    text += table(best, remarks, more=view.latencies(best).shown).text(keys=2 + every_row)
    simpler = sum(design.same_as is not None for design in designs)
    if any(design.same_as for design in best):
        verb = "is" if simpler == 1 else "are"
        text += "\n" + paragraph(
            f"{simpler:,} of {counted(funnel.survivors, 'survivor')} {verb} cheaper still with a "
            f'trivial group count, as the simpler composition that "cheaper as" names in the notes.'
        )
    trades = view.trade_offs([design for design, _ in rows])
    what = "Trade-offs that no other of these blocks beats"
    what += ", latency included" if view.time_of is not None else ""
    text += "\n" + heading(f"{what}: {len(trades)}")
    remarks = []
    for design, alike in trades[:limit]:
        more = more_of_equal_cost(alike - 1)
        remarks.append("; ".join(filter(None, [remark(design), more])))
    shown = [design for design, _ in trades[:limit]]
    more_columns = view.latencies(shown).shown
    return text + table(shown, remarks, more=more_columns).text(keys=2 + every_row)


def _front_text(funnel: "Funnel", designs: Sequence["Design"], view: _View) -> str:
    """Return the networks that no choice beats; with `every_row` also all rows."""
    from ifspace.catalogue.choose import unbeaten
    from ifspace.catalogue.dataset import designs_table
    from ifspace.catalogue.design import one_a_network
    from ifspace.catalogue.front import front_networks, front_table
    from ifspace.table import heading, paragraph

    limit, every_row = view.limit, view.every_row
    what = "Trade-offs that no other choice beats"
    networks = front_networks(designs)
    if view.time_of is not None:
        what += ", latency included"
        every = dict(one_a_network(x for x in designs if x.dominated_by is None))
        # A collapsed block may be faster than it was searched as.
        networks = tuple((x, every[x]) for x in unbeaten(every, view.time_of))
    text = heading(f"{what}: {counted(len(networks), 'network')}")
    others = dict(networks)
    shown = view.ranked(tuple(others), "params")[:limit]
    columns = view.latencies(shown)
    rows = [(design, others[design]) for design in shown]
    text += front_table(rows, columns.shown, columns.latencies).text(keys=2)
    passing = funnel.choices_passing or 0
    verb = "passes" if passing == 1 else "pass"
    text += "\n" + paragraph(
        f"{counted(passing, 'choice')} {verb} the rule. Each has the amounts of a "
        "row or is beaten by one: it is no better in parameters, MACs, activations, peak memory, "
        f"least fan-in{', layers and latency' if view.time_of else ' and layers'}, and worse in "
        "one. How many have the amounts of a row, it stands for."
    )
    if every_row:
        text += "\n" + heading(f"Trade-offs of every composition: {len(designs):,}")
        best = view.ranked(designs, "params")[:limit]
        table = designs_table(
            best, ranks=True, networks=True, front=True, more=view.latencies(best).shown
        )
        text += table.text(keys=3)
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


def _not_default(setting: "EnumerationSetting", peak_options: str) -> str:
    """Return the arguments that differ from the defaults, for a title that has the widths.

    `peak_options`: those that the bound on peak memory was given as, if it was in bytes.
    """
    in_title = {"channels", "out_channels", "bottleneck", "max_len"}
    options = setting.options() | ({"most_peak": peak_options} if peak_options else {})
    other = [text for name, text in options.items() if name not in in_title]
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
