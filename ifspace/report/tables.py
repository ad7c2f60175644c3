"""The tables of a report, part by part, from the files of a results folder."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import median
from typing import Any, Final

from ifspace.catalogue import Catalogue, Design, one_a_network, ranked
from ifspace.catalogue.dataset import more_of_equal_cost, remarked
from ifspace.catalogue.front import front_networks, front_table
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.measurements import BOTH_WAYS, FORWARD, PEAK, PREDICTED, RATIO, TIME
from ifspace.report.measured import (
    PARAMS,
    Condition,
    Rows,
    baseline_name,
    by_condition,
    in_other_forms,
    least_of,
    median_of,
    shortfall,
    timed,
)
from ifspace.report.read import (
    ENERGY,
    GROUPS,
    STAGES,
    VERDICTS,
    BlockTimes,
    Measured,
    Results,
    Row,
)
from ifspace.table import Table, cell_text, number_text, ratio_text
from ifspace.values import counted


def tables(results: Results, part: str) -> tuple[Table, ...]:
    """Return the tables of a part; none where its file is not there."""
    return tuple(_PARTS[part](results))


def text_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], note: str = ""
) -> Table:
    """Return a table whose cells are text, as a reader sees them."""
    cells = tuple(tuple(map(cell_text, row)) for row in rows)
    return Table(tuple(columns), cells, title, (note,) if note else ())


def setting_name(setting: EnumerationSetting) -> str:
    """Return what a catalogue is for, in a few words.

    >>> setting_name(EnumerationSetting(channels=64, out_channels=128, stride=2))
    '64 to 128 channels, stride 2'
    """
    same = setting.out_width == setting.channels
    words = counted(setting.channels, "channel") if same else f"{setting.channels} to "
    words += "" if same else f"{setting.out_width} channels"
    for name, usual in (
        ("kernel", 3),
        ("stride", 1),
        ("dims", 2),
        ("bottleneck", None),
        ("repeats", 1),
    ):
        value = getattr(setting, name)
        words += "" if value == usual else f", {name} {value}"
    return words


def settings(results: Results) -> Iterator[tuple[Catalogue, int, EnumerationSetting]]:
    """Yield every setting of the catalogues with its catalogue and its index there."""
    for catalogue in results.catalogues:
        for place, setting in enumerate(catalogue.settings):
            yield catalogue, place, setting


def _funnel(results: Results) -> Iterator[Table]:
    for catalogue, place, setting in settings(results):
        funnel = catalogue.funnels[place]
        lengths = range(1, setting.max_len + 1)
        yield text_table(
            f"Compositions by length, {setting_name(setting)}",
            ["length", *(f">{n}" for n in lengths), ">all"],
            [[name, *by_length, total] for name, by_length, total in funnel.steps],
        )


def _designs(results: Results) -> Iterator[Table]:
    for catalogue, _, setting in settings(results):
        rows = []
        networks = one_a_network(ranked(catalogue.designs_of(setting)))
        for length in sorted({design.layers for design, _ in networks}):
            alike = [pair for pair in networks if pair[0].layers == length]
            best = alike[0][0]
            same = sum(design.costs == best.costs for design, _ in alike) - 1
            # Of a long catalogue not all of them are there.
            more = more_of_equal_cost(same) if catalogue.rows is None else ""
            rows += [
                _design_row(design, others, more if design is best else "")
                for design, others in alike
                if design is best or any(member.published_as for member in (design, *others))
            ]
        yield text_table(
            f"Fewest parameters by number of layers, and the published blocks, "
            f"{setting_name(setting)}",
            [
                ">layers",
                "block~",
                ">params",
                ">×CONV",
                ">MACs/px",
                ">act/px",
                ">least fan-in",
                "notes~",
            ],
            rows,
        )


def _fronts(results: Results) -> Iterator[Table]:
    for catalogue in results.fronts:
        for setting, funnel in zip(catalogue.settings, catalogue.funnels, strict=True):
            networks = front_networks(catalogue.designs_of(setting))
            table = front_table(networks)
            yield text_table(
                f"Blocks that no other choice beats, {setting_name(setting)}",
                table.columns,
                table.rows,
                f"Of {funnel.choices_passing:,} choices of up to "
                f"{counted(setting.max_len, 'layer')} that pass, each has the amounts of a "
                "row or is beaten by one: it is no better in "
                "parameters, MACs, activations, peak memory, least fan-in and layers.",
            )


def _design_row(design: Design, others: Sequence[Design], more: str) -> list[Any]:
    return [
        design.layers,
        str(design.block),
        design.params,
        ratio_text(design.params_ratio),
        design.macs_per_pixel,
        design.activations_per_pixel,
        design.least_fan_in,
        "; ".join(filter(None, [more, remarked(design, others)])),
    ]


def _groups(results: Results) -> Iterator[Table]:
    rows = [row for row in results.of(GROUPS) if row["K"] is None and row["C"] == row["F"]]
    best: list[list[Any]] = []
    for width, every in groupby(sorted(rows, key=_by_width), key=lambda row: row["C"]):
        fewest = None
        for row in every:
            if fewest is None or row["params"] < fewest:
                fewest = row["params"]
                ratio = fewest / (9 * width * width)
                best.append([width, row["layers"], row["block"], fewest, ratio_text(ratio)])
    if best:
        yield text_table(
            "Fewest parameters by width and number of layers",
            [">channels", ">layers", "block~", ">params", ">×CONV(3)"],
            best,
        )


def _by_width(row: Row) -> tuple[int, int, int]:
    return row["C"], row["layers"], row["params"]


def _layouts(results: Results) -> Iterator[Table]:
    rows = [row for row in results.of(STAGES) if row["table"] == "organizer"]
    if rows:
        yield text_table(
            "Total gain of the organizer's and the published layouts, and the greatest there is",
            [
                "network",
                ">side",
                "layout",
                "depths",
                ">gain",
                ">greatest gain",
                ">more",
                "its depths",
            ],
            [
                [
                    row["network"],
                    row["side"],
                    row["layout"],
                    row["depths"],
                    f"{row['gain']:.3f}",
                    f"{row['best by params and MACs']:.3f}",
                    f"{max(0.0, row['best by params and MACs'] / row['gain'] - 1):.1%}",
                    row["params and MACs: depths"],
                ]
                for row in rows
            ],
            "Greatest: proven, at no more parameters and MACs than the layout.",
        )
    rows = [row for row in results.of(STAGES) if row["table"] == "wide"]
    if rows:
        yield text_table(
            "Greatest total gain of five stages, blocks and widths chosen too",
            [">params", ">MACs", ">layers", ">gain", "status", "depths", "widths", "blocks~"],
            [
                [row[name] for name in ("params", "macs", "layers")]
                + [f"{row['gain']:.3f}"]
                + [row["status"], row["depths"], _repeated(row["widths"]), _repeated(row["blocks"])]
                for row in rows
                if row["gain"] is not None
            ],
        )


def _repeated(words: str) -> str:
    """Return words with repetitions counted.

    >>> _repeated("PW DW+PW DW+PW")
    'PW, 2 × DW+PW'
    """
    counts = [(word, len(list(same))) for word, same in groupby(words.split())]
    return ", ".join(word if n == 1 else f"{n} × {word}" for word, n in counts)


def _energy(results: Results) -> Iterator[Table]:
    cases = set()
    rows = []
    for row in results.of(ENERGY):
        if (key := (row["layers"], row["budget"])) not in cases:
            cases.add(key)
            energy = _energy_text(row["energy"])
            rows.append(
                [
                    row["layers"],
                    row["budget"],
                    row["best widths"],
                    energy,
                    row["params"],
                    f"{row['exact s']:.2f}",
                ]
            )
    if rows:
        yield text_table(
            "Widths of greatest layout energy, proven",
            ["convolutions", ">weights / 9", "widths", ">energy", ">params", ">seconds"],
            rows,
        )


def _energy_text(energy: float) -> str:
    return f"{energy:,.2f}" if energy < 10**6 else f"{energy:.4g}"


def _reproduction(results: Results) -> Iterator[Table]:
    rows = results.of(VERDICTS)
    if rows:
        totals = {name: sum(row[name] for row in rows) for name in ("rows", "match", "misprint")}
        yield text_table(
            "Rows of the papers: what matches under a reading, what is a misprint",
            ["table", ">match", ">misprint", ">neither"],
            [
                [
                    row["table"],
                    row["match"],
                    row["misprint"],
                    row["rows"] - row["match"] - row["misprint"],
                ]
                for row in (*rows, {"table": "all", **totals})
            ],
        )


# Of a measured case the fastest so many, and what is slower than they are is counted.
MOST_TIMED: Final = 20


def kernel_tables(results: Results) -> Iterator[Table]:
    """Yield for each device, layer and batch the times over the baseline's."""
    for bench in results.kernels:
        cases = by_condition(bench.rows)
        for unit in dict.fromkeys(r["unit"] for r in bench.rows if r["metric"] == RATIO):
            for batch in sorted({condition.shape[0] or 1 for condition in cases}, reverse=True):
                some = {
                    condition: rows
                    for condition, rows in cases.items()
                    if condition.shape[0] == batch
                }
                yield from _ratios(bench, unit, batch, some)


def _ratios(
    bench: Measured, unit: str, batch: int, cases: Mapping[Condition, Rows]
) -> Iterator[Table]:
    """Yield times over the baseline's, a column for each data type, memory layout and mode.

    No table where none of the cases was timed.
    """
    ratios: dict[str, dict[tuple[str, str, str], list[float]]] = {}
    for condition, rows in cases.items():
        way = (condition.dtype, condition.layout, condition.mode)
        for candidate, metrics in rows.items():
            row = metrics.get(RATIO)
            if row is not None and row["unit"] == unit:
                ratios.setdefault(candidate, {}).setdefault(way, []).append(row["median"])
    modes = list(dict.fromkeys(way for times in ratios.values() for way in times))
    if not modes:
        return
    layer = next(row["case"] for row in bench.rows if row["unit"] == unit).partition("(")[0]
    yield text_table(
        f"{layer} on {bench.device}, batch {batch}: time over that of {unit.removeprefix('x ')}",
        ["candidate", *(f">{dtype}, {layout}, {mode}" for dtype, layout, mode in modes)],
        [[name, *(_range(times.get(way, ())) for way in modes)] for name, times in ratios.items()],
        "Median of the cases, and from the least to the greatest of them.",
    )


def _range(numbers: Sequence[float]) -> str:
    if not numbers:
        return "–"
    middle = f"{median(numbers):.2f}"
    return middle if len(numbers) == 1 else f"{middle} ({min(numbers):.2f}–{max(numbers):.2f})"


def block_tables(results: Results) -> Iterator[Table]:
    """Yield for each device and shape the times of the blocks, then the errors of predictions."""
    for bench in results.blocks:
        cases = by_condition(bench.rows)
        in_forms = in_other_forms(bench.rows)
        for condition, rows in cases.items():
            if condition.mode == FORWARD and any(timed(rows)):
                both = cases.get(replace(condition, mode=BOTH_WAYS), {})
                others = in_forms.get(condition, {})
                yield _times(bench.device, condition, rows, both, others)
        if bench.predictions:
            yield _predictions(bench)


def _predictions(bench: BlockTimes) -> Table:
    rows = [
        [
            prediction.mode,
            prediction.predictor,
            prediction.count,
            _form(prediction.rank_correlation, ".2f"),
            _form(prediction.median_error, ".0%"),
        ]
        for prediction in bench.predictions
    ]
    return text_table(
        f"How well times are predicted on {bench.device}, of blocks held out of the fit",
        ["mode", "predictor", ">blocks", ">rank correlation", ">median error"],
        rows,
    )


def _form(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _times(
    device: str, condition: Condition, rows: Rows, both: Rows, others: Mapping[str, Rows]
) -> Table:
    """Return the times of blocks in order of the least, with the median beside it.

    `others`: what was measured of them in other forms, each with a column where a time is known.
    """
    others = {form: own for form, own in others.items() if any(timed(own))}
    # What sees less than the convolution stands last: its time is compared with no other.
    every = sorted(
        timed(rows),
        key=lambda timing: (
            bool(shortfall(rows, timing[0])),
            min([timing[1], *filter(None, (least_of(own, timing[0]) for own in others.values()))]),
        ),
    )
    compared = [timing for timing in every[MOST_TIMED:] if baseline_name(rows, timing[0])]
    lines = []
    for name, time in (*every[:MOST_TIMED], *compared):
        lines.append(
            [
                name,
                _maybe(rows, name, PARAMS, "{:,.0f}"),
                number_text(time),
                *(_number(least_of(own, name)) for own in others.values()),
                _maybe(rows, name, TIME),
                _spread(rows[name].get(TIME)),
                _number(least_of(both, name)),
                _maybe(rows, name, PREDICTED),
                _maybe(rows, name, PEAK),
                "; ".join(filter(None, [baseline_name(rows, name), shortfall(rows, name)])),
            ]
        )
    hidden = len(every) - len(lines)
    return text_table(
        f"{condition.what} on {device}",
        [
            "block~",
            ">params",
            ">least forward, ms",
            *(f">{form}, ms" for form in others),
            ">median, ms",
            ">p20–p80",
            ">least with backward, ms",
            ">predicted, ms",
            ">peak, MiB",
            "known as~",
        ],
        lines,
        "In order of the least forward time"
        + (", of the fastest form" if others else "")
        + ", which a busy machine disturbs least"
        + (
            f": the first {MOST_TIMED}, and what is compared with them; {hidden} more are slower."
            if hidden
            else "."
        ),
    )


def _number(value: float | None) -> str:
    return "" if value is None else number_text(value)


def _spread(row: Row | None) -> str:
    if row is None or row["p20"] is None:
        return ""
    return f"{number_text(row['p20'])}–{number_text(row['p80'])}"


def _maybe(rows: Rows, name: str, metric: str, form: str = "") -> str:
    value = median_of(rows, name, metric)
    return _number(value) if value is None or not form else form.format(value)


_PARTS: Final[dict[str, Callable[[Results], Iterable[Table]]]] = {
    "funnel": _funnel,
    "designs": _designs,
    "front": _fronts,
    "groups": _groups,
    "layouts": _layouts,
    "energy": _energy,
    "blocks": block_tables,
    "kernels": kernel_tables,
    "reproduction": _reproduction,
}
