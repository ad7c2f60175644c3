"""The tables of what was measured: blocks beside their baselines, kernels beside their rivals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from ifspace.report.files import Row
from ifspace.report.folder import BlockBench, Measured, Results
from ifspace.report.measured import (
    BACKWARD,
    FORWARD,
    MEMORY,
    PARAMS,
    PREDICTED,
    RATIO,
    TIME,
    Condition,
    Rows,
    baseline_name,
    by_condition,
    least_of,
    median_of,
    timed,
)
from ifspace.report.table import Table, amount, table

# Of a measured case the fastest so many, and what is slower than they are is counted.
MOST_TIMED: Final = 20


def kernel_tables(results: Results) -> Iterator[Table]:
    """Yield for each device, layer and batch the times over the baseline's."""
    for bench in results.kernels:
        cases = by_condition(bench.rows)
        for unit in dict.fromkeys(r["unit"] for r in bench.rows if r["metric"] == RATIO):
            for batch in sorted({each.shape[0] or 1 for each in cases}, reverse=True):
                some = {each: rows for each, rows in cases.items() if each.shape[0] == batch}
                yield _ratios(bench, unit, batch, some)


def _ratios(bench: Measured, unit: str, batch: int, cases: Mapping[Condition, Rows]) -> Table:
    """Return the times of every candidate over the baseline's, a column for each way to run."""
    found: dict[str, dict[tuple[str, str, str], list[float]]] = {}
    for condition, rows in cases.items():
        way = (condition.dtype, condition.layout, condition.mode)
        for candidate, metrics in rows.items():
            row = metrics.get(RATIO)
            if row is not None and row["unit"] == unit:
                found.setdefault(candidate, {}).setdefault(way, []).append(row["median"])
    ways = list(dict.fromkeys(way for each in found.values() for way in each))
    layer = next(row["case"] for row in bench.rows if row["unit"] == unit).partition("(")[0]
    return table(
        f"{layer} on {bench.device}, batch {batch}: time over that of {unit.removeprefix('x ')}",
        ["candidate", *(f">{dtype}, {layout}, {mode}" for dtype, layout, mode in ways)],
        [[name, *(_range(each.get(way, ())) for way in ways)] for name, each in found.items()],
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
        for condition, rows in cases.items():
            if condition.mode == FORWARD and any(timed(rows)):
                both = cases.get(replace(condition, mode=BACKWARD), {})
                yield _times(bench.device, condition, rows, both)
        if bench.predictions:
            yield _predictions(bench)


def _predictions(bench: BlockBench) -> Table:
    rows = [
        [
            each.mode,
            each.predictor,
            each.count,
            _form(each.rank_correlation, ".2f"),
            _form(each.median_error, ".0%"),
        ]
        for each in bench.predictions
    ]
    return table(
        f"How well times are predicted on {bench.device}, of blocks held out of the fit",
        ["mode", "predictor", ">blocks", ">rank correlation", ">median error"],
        rows,
    )


def _form(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _times(device: str, condition: Condition, rows: Rows, both: Rows) -> Table:
    """Return the times of blocks in order of the least, with the median beside it."""
    every = list(timed(rows))
    compared = [each for each in every[MOST_TIMED:] if baseline_name(rows, each[0])]
    lines = []
    for name, time in (*every[:MOST_TIMED], *compared):
        least = least_of(both, name)
        lines.append(
            [
                name,
                _maybe(rows, name, PARAMS, "{:,.0f}"),
                amount(time),
                _maybe(rows, name, TIME),
                _spread(rows[name].get(TIME)),
                "" if least is None else amount(least),
                _maybe(rows, name, PREDICTED),
                _maybe(rows, name, MEMORY),
                baseline_name(rows, name),
            ]
        )
    left = len(every) - len(lines)
    return table(
        f"{condition.what} on {device}",
        [
            "block",
            ">params",
            ">least forward, ms",
            ">median, ms",
            ">p20–p80",
            ">least with backward, ms",
            ">predicted, ms",
            ">peak, MiB",
            "known as",
        ],
        lines,
        "In order of the least forward time, which a busy machine disturbs least"
        + (
            f": the first {MOST_TIMED}, and what is compared with them; {left} more are slower."
            if left
            else "."
        ),
    )


def _spread(row: Row | None) -> str:
    if row is None or row["p20"] is None:
        return ""
    return f"{amount(row['p20'])}–{amount(row['p80'])}"


def _maybe(rows: Rows, name: str, metric: str, form: str = "") -> str:
    value = median_of(rows, name, metric)
    if value is None:
        return ""
    return form.format(value) if form else amount(value)
