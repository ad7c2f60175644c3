"""What `ifspace optimize` prints: the moves, the blocks, the network before and after."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ifspace.answer import Status
from ifspace.catalogue.export import csv_table, json_text, markdown_table, ratio_text
from ifspace.cli.options import Forms
from ifspace.models.analysis import Report
from ifspace.models.moves_text import (
    moved,
    moved_values,
)
from ifspace.models.optimizing import (
    Optimized,
    Wanted,
)
from ifspace.models.replacements_text import (
    replaced,
    replaced_values,
)
from ifspace.stages.text import amounts_text
from ifspace.table import (
    heading,
    table,
)

_COLUMNS: Final = (
    "what",
    "step",
    "taken",
    "source",
    "target",
    "min",
    "max",
    "depths",
    "gain",
    "params",
    "macs",
    "name",
    "block",
    "stride",
    "params_before",
    "macs_before",
    "error",
    "reason",
)


def forms(found: Optimized) -> Forms:
    """Return what was done in every format; without a network after, JSON alone has something."""
    values = _values(found)
    cells = [[_cell(row.get(name)) for name in _COLUMNS] for row in _rows(values)]
    made = {
        "table": lambda: _text(found),
        "csv": lambda: csv_table(_COLUMNS, cells),
        "markdown": lambda: markdown_table(_COLUMNS, [list(map(str, row)) for row in cells]),
    }
    if found.after is None:
        made = dict.fromkeys(made, str)
    return made | {"json": lambda: json_text(values)}


def message(found: Optimized) -> str:
    """Return why there is no network that was asked for, in a sentence."""
    plan = found.stages if found.blocks is None else found.blocks
    assert plan is not None
    assert plan.answer is not None
    what, remedy = "choice of blocks", "raise a budget, or offer cheaper blocks"
    if found.blocks is None:
        what, remedy = "depths of the stages", "raise a budget, or let --cheapest find blocks"
    bounds = amounts_text(plan.budgets.given)
    if plan.answer.status is Status.UNKNOWN:
        return f"{bounds}: time ran out before any {what} that keeps to that was found; allow more"
    # Those of the whole network, of which a search for blocks knows only its layers.
    least = plan.answer.least if found.blocks is None else found.blocks.least
    alone = f"the least of each by itself is {amounts_text(least)}"
    return f"{bounds}: proven: no {what} keeps to that; {alone}; {remedy}"


def _values(found: Optimized) -> dict[str, Any]:
    wanted, source = found.wanted, found.wanted.source
    budgets = {"params": wanted.params, "macs": wanted.macs, "latency_ms": _latency(wanted)}
    after = found.after
    return {
        "model": source.name,
        "image": list(source.image),
        "alpha": wanted.alpha,
        "theta": wanted.theta or 0,
        "seed": source.seed,
        "budgets": {name: most for name, most in budgets.items() if most is not None},
        "message": None if after is not None else message(found),
        "before": _amounts(found.before, _depths(found, end=False)),
        "after": None if after is None else _amounts(after, _depths(found, end=True)),
        "ratios": None
        if after is None
        else {
            name: getattr(after, name) / getattr(found.before, name) for name in ("params", "macs")
        },
        **moved_values(found),
        **replaced_values(found),
        "saved": found.saved,
    }


def _latency(wanted: Wanted) -> float | None:
    return None if wanted.latency_budget_ms is None else float(wanted.latency_budget_ms)


def _depths(found: Optimized, end: bool) -> list[int]:
    """Return the units of the stages that take part, or of all where none can."""
    plan = found.stages
    if plan is None:
        return [len(stage.units) for stage in found.before.stages]
    return list((plan.end if end else plan.start).depths)


def _amounts(report: Report, depths: list[int]) -> dict[str, Any]:
    return {"params": report.params, "macs": report.macs, "gain": report.gain, "depths": depths}


def _rows(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the answer as rows: the network before, moves, layers, the network after."""
    yield {"what": "before", **values["before"]}
    for each in values["moves"]:
        yield {"what": "move", **each}
    for each in values["replaced"]:
        row = {"what": "replaced", **each}
        for name in ("params", "macs"):
            row[f"{name}_before"], row[name] = each[name]
        yield row | (each["fit"] or {})
    for name in values["kept"]:
        yield {"what": "kept", "name": name}
    for each in values["skipped"]:
        yield {"what": "skipped", **each}
    if values["after"] is not None:
        yield {"what": "after", **values["after"]}


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else value


def _text(found: Optimized) -> str:
    before, after = found.before, found.after
    assert after is not None
    rows = [("before", before, False), ("after", after, True)]
    if found.blocks is not None and found.between not in (None, before):
        rows.insert(1, ("stages reorganized", found.between, True))
    cells = []
    for name, report, end in rows:
        depths = ",".join(map(str, _depths(found, end)))
        times = [
            "" if report is before else ratio_text(getattr(report, each) / getattr(before, each))
            for each in ("params", "macs")
        ]
        cells.append(
            [
                name,
                f"{report.params:,}",
                times[0],
                f"{report.macs:,}",
                times[1],
                f"{report.gain:.2f}",
                depths,
            ]
        )
    columns = ["", ">params", ">×", ">MACs", ">×", ">gain", "depths"]
    totals = heading(str(found.wanted.source)) + table(columns, cells)
    return "\n".join(part for part in (moved(found), replaced(found), totals) if part)
