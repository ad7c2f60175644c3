"""What `ifspace bench` prints: times, memory, the model beside its rivals, what is not beaten."""

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

from ifspace.bench.blocks import (
    Candidate,
    front,
)
from ifspace.bench.latency import (
    ERROR_GOAL,
    MODEL,
    RANK_GOAL,
    Errors,
)
from ifspace.bench.results import Files
from ifspace.bench.rows import (
    COLUMNS,
    COMPILED,
    FORWARD,
    LEAST,
    NOT_RUN,
    PEAK,
    PREDICTED,
    TIME,
    Row,
)
from ifspace.bench.session import Run
from ifspace.catalogue.export import csv_table, json_text, markdown_table
from ifspace.cli.options import Forms
from ifspace.table import (
    facts,
    heading,
    table,
)

CONV: Final = "CONV"
NO_NUMBER: Final = "–"
# So many of the blocks that the model calls the fastest are named.
FASTEST: Final = 3
# A median of so many times the least is that of a busy machine.
BUSY: Final = 3.0


def forms(run: Run, files: Files) -> Forms:
    """Return what was found in every format; the rows are those of the blocks shown."""
    keys = {(each.name, each.case(run.asked.conditions)) for each in run.shown}
    rows = [row for row in run.book if (row["candidate"], row["case"]) in keys]
    return {
        "table": lambda: _text(run, files),
        "json": lambda: json_text(_values(run, files, rows)),
        "csv": lambda: csv_table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows]),
        "markdown": lambda: "\n".join(
            f"{mode}\n\n{markdown_table(*_plain(run, mode))}" for mode in run.asked.conditions.modes
        ),
    }


def _values(run: Run, files: Files, rows: list[Row]) -> dict[str, Any]:
    return {
        "rows": [_numeric(row) for row in rows],
        "model": {mode: each.to_json() for mode, each in run.models.items()},
        "pareto": [
            {"block": each.name, "params": each.sized.params, "latency_ms": ms}
            for each, ms in pareto(run)
        ],
        "fastest_predicted": [{"block": each.name, "latency_ms": ms} for each, ms in fastest(run)],
        "red": [{"block": key[0], "why": why} for key, why in run.red.items()],
        "left_out": [{"block": name, "why": why} for name, why in run.left_out],
        "files": [str(path) for path in (files.rows, files.designs, files.latency)],
    }


def _numeric(row: Row) -> Row:
    """Return a row with numbers as numbers, whether it was measured now or read, None for none."""
    plain = dict(row)
    for name in ("N", "C", "F", "H", "W"):
        plain[name] = int(plain[name])
    for name in ("median", "p20", "p80", "bound"):
        plain[name] = None if plain[name] == "" else float(plain[name])
    return plain


def pareto(run: Run) -> list[tuple[Candidate, float]]:
    """Return the blocks that no other one shown beats in parameters and least time."""
    every = run.least_ms(run.shown)
    return [every[n] for n in front([(each.sized.params, ms) for each, ms in every])]


def busy(run: Run) -> float | None:
    """Return how many times the least time the worst median is, if that is too many."""
    worst = 1.0
    for mode, each in product(run.asked.conditions.modes, run.shown):
        start = _start(run, each, mode)
        median, least = (run.book.number(start, metric) for metric in (TIME, LEAST))
        if median is not None and least:
            worst = max(worst, median / least)
    return worst if worst > BUSY else None


def fastest(run: Run) -> list[tuple[Candidate, float]]:
    """Return the blocks of the catalogue that the model calls the fastest."""
    if not run.models:
        return []
    every = {each.key: each for each in run.others()}.values()
    predicted = [(each, ms) for each in every if (ms := run.predict(each)) is not None]
    return sorted(predicted, key=lambda each: each[1])[:FASTEST]


def _text(run: Run, files: Files) -> str:
    place, conditions = run.asked.place, run.asked.conditions
    words = [
        f"{place.channels} to {place.out_channels} channels",
        f"side {place.side}",
        *([f"stride {place.stride}"] if place.stride > 1 else []),
        f"batch {place.batch}",
        conditions.dtype,
        conditions.layout,
        f"{conditions.style} style",
    ]
    if conditions.device.type == "cpu":
        words.append(f"{conditions.threads} thread{'s' * (conditions.threads > 1)}")
    text = ""
    for mode in conditions.modes:
        title = f"{mode[0].upper()}{mode[1:].replace('+', ' + ')} on {run.machine.device}: "
        text += heading(title + ", ".join(words))
        text += table(*_columns(run, mode), keys=2) + "\n"
    text += _model(run)
    return text + facts(_facts(run, files))


def _columns(run: Run, mode: str) -> tuple[list[str], list[list[str]]]:
    """Return the table of a mode: header and rows."""
    header = [">#", "block~", ">params", ">MACs/px", ">least ms", ">×CONV"]
    compiled = run.asked.conditions.compiled
    header += [">median", ">p20", ">p80", *([">compiled"] if compiled else []), ">MiB"]
    header += [">model ms"] if run.models else []
    reference = next((x for x in run.beside if str(x.sized.block) == CONV), None)
    base = None if reference is None else run.book.number(_start(run, reference, mode), LEAST)
    rows = []
    for place, each in enumerate(run.shown, start=1):
        row = run.book.find(_start(run, each, mode), TIME) or dict.fromkeys(COLUMNS, "")
        least = run.book.number(_start(run, each, mode), LEAST)
        cells = [
            str(place) if each in run.chosen else "",
            each.name,
            f"{each.sized.params:,}",
            f"{each.sized.macs_per_pixel(each.stride):,}",
        ]
        cells += [_ms(least), "" if base is None or least is None else f"{least / base:.2f}"]
        cells += [_ms(row[name]) for name in ("median", "p20", "p80")]
        if compiled:
            cells.append(_ms(run.book.number(_start(run, each, mode), TIME + COMPILED)))
        cells.append(_ms(run.book.number(_start(run, each, mode), PEAK)))
        if run.models:
            cells.append(_ms(run.book.number(_start(run, each, mode), PREDICTED)))
        rows.append([*cells, _note(run, each, mode)])
    return [*header, "notes~"], rows


def _plain(run: Run, mode: str) -> tuple[list[str], list[list[str]]]:
    header, rows = _columns(run, mode)
    return [each.strip(">~") for each in header], rows


def _start(run: Run, candidate: Candidate, mode: str) -> Row:
    return candidate.row(run.asked.conditions, mode, run.machine)


def _ms(number: Any) -> str:
    """Return a number with three digits that count, or a dash.

    >>> _ms(12.3456), _ms("0.123456"), _ms(None), _ms(1234.5)
    ('12.3', '0.123', '–', '1234')
    """
    if number is None or number == "":
        return NO_NUMBER
    value = float(number)
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return format(value, f".{digits}f")


def _note(run: Run, candidate: Candidate, mode: str) -> str:
    """Return the name of a baseline, and why a block was not timed."""
    said = [part.removeprefix("baseline: ") for part in candidate.provider.split(", ")]
    said = [part for part in said if part not in ("catalogue", candidate.name)]
    if candidate.key in run.red:
        said.append("red, see below")
    start = _start(run, candidate, mode)
    what = [start[name] for name in ("case", "candidate", "mode")]
    said += [
        str(row["metric"])
        for row in run.book
        if row["metric"].startswith(NOT_RUN)
        and [row[name] for name in ("case", "candidate", "mode")] == what
    ]
    return "; ".join(said)


def _model(run: Run) -> str:
    """Return how the model fares on blocks that it was not fitted to, beside one amount alone."""
    if not run.models:
        return ""
    rows = []
    for mode, each in run.models.items():
        for name, errors in each.errors.items():
            rows.append([mode, name, *_errors(errors)])
    fit = next(iter(run.models.values()))
    count = next(iter(fit.errors.values())).count
    title = f"Latency model of {fit.fitted_to} blocks, judged on {count} that were held out in turn"
    columns = ["mode", "predictor", ">rank correlation", ">median error"]
    return heading(title) + table(columns, rows, keys=2) + "\n"


def _errors(errors: Errors) -> tuple[str, str]:
    rank, error = errors.rank_correlation, errors.median_error
    return (
        NO_NUMBER if rank is None else f"{rank:.2f}",
        NO_NUMBER if error is None else f"{error:.0%}",
    )


def _beside_conv(run: Run) -> Iterator[tuple[str, str]]:
    """Yield how the designs fare beside the convolution that they replace."""
    times = {each.name: ms for each, ms in run.least_ms(run.beside)}
    designs = [ms for _, ms in run.least_ms(run.chosen)]
    if CONV in times and designs:
        faster = sum(ms < times[CONV] for ms in designs)
        best = min(designs) / times[CONV]
        said = f"{faster} of {len(designs)} designs are faster"
        yield "beside CONV", f"{said}; the quickest takes {best:.2f} of its time"


def _facts(run: Run, files: Files) -> Iterator[tuple[str, str]]:
    if run.models:
        yield "goals", f"rank correlation from {RANK_GOAL}, median error to {ERROR_GOAL:.0%}"
    for mode, model in run.models.items():
        misses = model.errors[MODEL].misses
        yield "", f"{mode}: {'missed: ' + '; '.join(misses) if misses else 'met'}"
    yield from _beside_conv(run)
    name = "not beaten"
    for each, ms in pareto(run):
        yield name, f"{each.name}: {each.sized.params:,} parameters, {_ms(ms)} ms at least"
        name = ""
    name = "fastest"
    for each, ms in fastest(run):
        timed = dict(run.least_ms([each]))
        own = f", measured {_ms(next(iter(timed.values())))} ms" if timed else ""
        yield name, f"{each.name}: {_ms(ms)} ms by the model{own}"
        name = ""
    name = "red"
    for key, why in run.red.items():
        yield name, f"{key[0]}: {why}; not timed"
        name = ""
    yield "rows", str(files.rows)
    if run.least_ms(run.measured, FORWARD):
        yield "latencies", f"{files.latency}, for `ifspace layout --latency`"
