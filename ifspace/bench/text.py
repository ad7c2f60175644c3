"""What `ifspace bench` prints: times, memory, errors of the model, Pareto-optimal blocks."""

from collections.abc import Iterator
from typing import Any, Final

from ifspace.bench.case import BlockCandidate, BlockKey
from ifspace.bench.latency import ERROR_GOAL, MODEL, RANK_GOAL, Errors
from ifspace.bench.results import ResultFiles
from ifspace.bench.rows import Row
from ifspace.bench.session import BlockBench, field_of
from ifspace.cli.options import Forms
from ifspace.kinds import reference_kind
from ifspace.measurements import (
    AS_IS,
    BASELINE,
    CATALOGUE,
    COLUMNS,
    COMPILED,
    FORWARD,
    LEAST,
    NOT_RUN,
    PEAK,
    PREDICTED,
    TIME,
)
from ifspace.serialize import json_text
from ifspace.table import Table, facts, paragraph
from ifspace.values import counted

CONV: Final = reference_kind().symbol
NO_NUMBER: Final = "–"
# A median of so many times the least is that of a busy machine.
BUSY: Final = 2.0
# So many of the blocks that are left out are named.
MAX_NAMED: Final = 5


def forms(bench: BlockBench, files: ResultFiles) -> Forms:
    """Return the answer in every format; the rows are those of the blocks shown."""
    conditions = bench.settings.conditions
    names = ("candidate", "case", "form")
    shown = {(block.name, block.case(conditions), block.form) for block in bench.shown}
    rows = [row for row in bench.measurements if tuple(row[name] for name in names) in shown]
    cells = tuple(tuple(row[name] for name in COLUMNS) for row in rows)
    return {
        "table": lambda: _text(bench, files),
        "json": lambda: json_text(_values(bench, files, rows)),
        "csv": lambda: Table(COLUMNS, cells).csv(),
        "markdown": lambda: (
            _noise_text(bench)
            + "\n".join(
                f"{mode}\n\n{_times_table(bench, mode).markdown()}" for mode in conditions.modes
            )
        ),
    }


def _values(bench: BlockBench, files: ResultFiles, rows: list[Row]) -> dict[str, Any]:
    return {
        "noisy": _noise(bench) or None,
        "rows": [_with_numbers(bench, row) for row in rows],
        "model": {mode: model.record() for mode, model in bench.models.items()},
        "pareto": [
            {
                "block": block.name,
                "form": block.form,
                "params": block.params(bench.settings.conditions),
                "latency_ms": ms,
            }
            for block, ms in bench.pareto()
        ],
        "fastest_predicted": [
            {
                "block": block.name,
                "form": block.form,
                "latency_ms": ms,
                "measured_ms": _measured_ms(bench, block),
            }
            for block, ms in bench.fastest()
        ],
        "red": [
            {"block": key[0], "form": key[-1], "why": why} for key, why in bench.failed.items()
        ],
        "left_out": [{"block": name, "why": why} for name, why in bench.left_out],
        "files": [str(path) for path in (files.rows, files.designs, files.latency)],
    }


def _with_numbers(bench: BlockBench, row: Row) -> Row:
    """Return a row with its field and its numbers parsed, for it may have been read.

    None stands for an empty one.
    """
    parsed = dict(row)
    block = next(block for block in bench.shown if block.name == row["candidate"])
    parsed["field"] = list(field_of(block.sized))
    parsed["full_field"] = not bench.is_short(block)
    for name in ("N", "C", "F", "H", "W"):
        parsed[name] = int(parsed[name])
    for name in ("median", "p20", "p80", "bound"):
        parsed[name] = None if parsed[name] == "" else float(parsed[name])
    return parsed


def _text(bench: BlockBench, files: ResultFiles) -> str:
    shape, conditions = bench.settings.shape, bench.settings.conditions
    words = [
        f"{shape.channels} to {shape.out_channels} channels",
        f"side {shape.side}",
        *([f"stride {shape.stride}"] if shape.stride > 1 else []),
        f"batch {shape.batch}",
        conditions.dtype,
        conditions.layout,
        f"{conditions.style} style",
    ]
    if conditions.device.type == "cpu":
        words.append(counted(conditions.threads, "thread"))
    text = _noise_text(bench)
    for mode in conditions.modes:
        mode_text = f"{mode[0].upper()}{mode[1:].replace('+', ' + ')}"
        title = f"{mode_text} on {bench.machine.device}: {', '.join(words)}"
        text += _times_table(bench, mode, title).text(keys=2) + "\n"
    text += _model_text(bench)
    return text + facts(_facts(bench, files))


def _noise(bench: BlockBench) -> str:
    """Return what disturbed the run, "" if nothing did."""
    slowdown = bench.worst_slowdown()
    if slowdown <= BUSY:
        return ""
    return (
        f"noisy: medians up to {slowdown:.0f} times the least, another program kept this machine "
        "busy; compare the least, or measure again"
    )


def _noise_text(bench: BlockBench) -> str:
    """Return the first line of an answer that is not to be trusted."""
    noise = _noise(bench)
    return f"{paragraph(noise[0].upper() + noise[1:] + '.')}\n" if noise else ""


def _times_table(bench: BlockBench, mode: str, title: str = "") -> Table:
    """Return the table of a mode, a row for each block shown; those short of the field last."""
    conditions = bench.settings.conditions
    compiled, in_forms = conditions.compiled, len(bench.settings.forms) > 1
    columns = [">#", "block~", *(["form"] if in_forms else [])]
    columns += [">field", ">params", ">MACs/px", ">least ms", ">×CONV"]
    columns += [">median", ">p20", ">p80", *([">compiled"] if compiled else []), ">MiB"]
    columns += [">model ms"] if bench.models else []
    conv = next((x for x in bench.baselines if str(x.sized.block) == CONV), None)
    conv_ms = None if conv is None else bench.number(conv, mode, LEAST)
    rows = []
    full = (block for block in bench.designs if not bench.is_short(block))
    numbers = {block.key: number for number, block in enumerate(full, start=1)}
    for block in bench.shown:
        if mode not in block.modes(conditions):
            continue
        time_row = bench.measurements.find(bench.start(block, mode), TIME) or {}
        least_ms = bench.number(block, mode, LEAST)
        side, channels = field_of(block.sized)
        is_short = bench.is_short(block)
        row = [
            str(numbers.get(block.key, "")),
            block.name if block.form == AS_IS else "",
            *([block.form] if in_forms else []),
            f"{side}×{side}×{channels}",
            block.params(conditions),
            block.macs_per_pixel(conditions),
            _ms(least_ms),
            "" if is_short or not least_ms or not conv_ms else f"{least_ms / conv_ms:.2f}",
            *(_ms(time_row.get(name)) for name in ("median", "p20", "p80")),
        ]
        if compiled:
            row.append(_ms(bench.number(block, mode, TIME + COMPILED)))
        row.append(_ms(bench.number(block, mode, PEAK)))
        if bench.models:
            row.append(_ms(bench.number(block, mode, PREDICTED)))
        rows.append((*row, _note(bench, block, mode)))
    return Table((*columns, "notes~"), tuple(rows), title)


def _missing(bench: BlockBench, block: BlockCandidate) -> str:
    """Return what of the reference field a block does not see."""
    side, channels = field_of(block.sized)
    whole, all_channels = bench.reference.side, block.sized.channels
    parts = [f"{channels} of {all_channels} channels"] * (channels < all_channels)
    parts += [f"{side}×{side} of {whole}×{whole} pixels"] * (side < whole)
    return f"not compared: sees {' and '.join(parts)}"


def _ms(number: Any) -> str:
    """Return a number with three significant digits, or a dash.

    >>> _ms(12.3456), _ms("0.123456"), _ms(None), _ms(1234.5)
    ('12.3', '0.123', '–', '1234')
    """
    if number is None or number == "":
        return NO_NUMBER
    value = float(number)
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return format(value, f".{digits}f")


def _note(bench: BlockBench, block: BlockCandidate, mode: str) -> str:
    """Return the name of a baseline, and why a block was not timed."""
    providers = [part.removeprefix(f"{BASELINE}: ") for part in block.provider.split(", ")]
    parts = [part for part in providers if part not in (CATALOGUE, block.name)]
    parts = parts if block.form == AS_IS else []
    if bench.is_short(block):
        parts.append(_missing(bench, block))
    if block.key in bench.failed:
        parts.append("failed the check, see below")
    start = bench.start(block, mode)
    names = ("case", "candidate", "form", "mode")
    parts += [
        str(row["metric"])
        for row in bench.measurements
        if row["metric"].startswith(NOT_RUN) and all(row[x] == start[x] for x in names)
    ]
    return "; ".join(parts)


def _model_text(bench: BlockBench) -> str:
    """Return the errors of the model on blocks held out of its fit, beside one amount alone."""
    if not bench.models:
        return ""
    rows = tuple(
        (mode, name, *_error_cells(errors))
        for mode, model in bench.models.items()
        for name, errors in model.errors.items()
    )
    model = next(iter(bench.models.values()))
    count = model.errors[MODEL].count
    title = f"Latency model of {model.fitted_to} blocks, judged on {count} that were held out"
    columns = ("mode", "predictor", ">rank correlation", ">median error")
    return Table(columns, rows, title).text(keys=2) + "\n"


def _error_cells(errors: Errors) -> tuple[str, str]:
    rank, error = errors.rank_correlation, errors.median_error
    return (
        NO_NUMBER if rank is None else f"{rank:.2f}",
        NO_NUMBER if error is None else f"{error:.0%}",
    )


def _facts(bench: BlockBench, files: ResultFiles) -> Iterator[tuple[str, str]]:
    if bench.models:
        yield "goals", f"rank correlation from {RANK_GOAL}, median error to {ERROR_GOAL:.0%}"
    for mode, model in bench.models.items():
        misses = model.errors[MODEL].misses
        yield "", f"{mode}: {'missed: ' + '; '.join(misses) if misses else 'met'}"
    yield from _beside_conv(bench)
    conditions = bench.settings.conditions
    yield from _titled(
        "not beaten",
        (
            f"{block.label}: {block.params(conditions):,} parameters, {_ms(ms)} ms at least"
            for block, ms in bench.pareto()
        ),
    )
    yield from _titled("fastest", _fastest_texts(bench))
    yield from _titled(
        "failed", (f"{_label(key)}: {why}; not timed" for key, why in bench.failed.items())
    )
    yield "rows", str(files.rows)
    if bench.least_ms(bench.measured):
        yield "latencies", f"{files.latency}, for `ifspace layout --latency`"


def _label(key: BlockKey) -> str:
    name, *_, form = key
    return name if form == AS_IS else f"{name}, {form}"


def _titled(name: str, texts: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Yield facts under one name."""
    for text in texts:
        yield name, text
        name = ""


def _beside_conv(bench: BlockBench) -> Iterator[tuple[str, str]]:
    """Yield how the designs compare with the convolution that they replace, form by form."""
    baseline_ms = {block.name: ms for block, ms in bench.least_ms(bench.baselines)}
    designs = [design for design in bench.designs if not bench.is_short(design)]
    forms_of = [tuple(bench.in_forms(design)) for design in designs]
    texts = []
    for form in bench.settings.forms:
        times = bench.least_ms(x for forms in forms_of for x in forms if x.form == form)
        if CONV in baseline_ms and times:
            ratios = [ms / baseline_ms[CONV] for _, ms in times]
            faster = sum(ratio < 1 for ratio in ratios)
            texts.append(
                f"{form}: {faster} of {counted(len(ratios), 'design')} faster; the quickest takes "
                f"{min(ratios):.2f} of its time"
            )
    yield from _titled("beside CONV", iter(texts))


def _measured_ms(bench: BlockBench, block: BlockCandidate) -> float | None:
    times = bench.least_ms([block], FORWARD)
    return times[0][1] if times else None


def _fastest_texts(bench: BlockBench) -> Iterator[str]:
    for block, predicted_ms in bench.fastest():
        measured_ms = _measured_ms(bench, block)
        measured = "" if measured_ms is None else f"{_ms(measured_ms)} ms measured, "
        yield f"{block.label}: {measured}{_ms(predicted_ms)} ms by the model"


def notes(bench: BlockBench) -> Iterator[str]:
    """Yield what a reader should know beside the answer: what was left out, solved, reused."""
    if noise := _noise(bench):
        yield noise
    for name, why in bench.left_out[:MAX_NAMED]:
        yield f"left out: {name}: {why}"
    if len(bench.left_out) > MAX_NAMED:
        yield f"left out: {len(bench.left_out) - MAX_NAMED:,} more, for similar reasons"
    for key, why in bench.failed.items():
        yield f"failed the check, not timed: {_label(key)}: {why}"
    shape = bench.settings.shape
    if bench.same:
        networks = "the network" if bench.same == 1 else "the networks"
        yield (
            f"{counted(bench.same, 'design')} passed over: {networks} of better ones, written "
            "otherwise; --all times them too"
        )
    if bench.solved:
        yield (
            f"groups of {counted(bench.solved, 'design')} solved again from {shape.channels} to "
            f"{shape.out_channels} channels; enumerate that width to predict its whole catalogue"
        )
    if bench.settings.calibrate and not bench.models:
        yield "no model: too few blocks of the catalogue fit these widths; nothing is predicted"
    if FORWARD in bench.models and not bench.uses_model:
        rank = bench.models[FORWARD].errors[MODEL].rank_correlation
        judged = "is not known" if rank is None else f"is {rank:.2f}"
        yield (
            f"the model's latencies are not in the table: its rank correlation {judged}, the goal "
            f"{RANK_GOAL}; --accept-model puts them there"
        )
    for there, count in bench.unfit.items():
        if count:
            yield (
                f"{counted(count, 'block')} without groups from {there.channels} to "
                f"{there.out_channels} channels: no latency is predicted there"
            )
    if bench.reused:
        verb = "was" if bench.reused == 1 else "were"
        yield f"{counted(bench.reused, 'measurement')} {verb} there already"
