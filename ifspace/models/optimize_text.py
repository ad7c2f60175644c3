"""Text and values of `ifspace optimize`: the moves, the blocks, the network before and after."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ifspace.answer import Status
from ifspace.catalogue.export import csv_table, json_text, markdown_table, ratio_text
from ifspace.cli.options import Forms
from ifspace.models.analysis import Report
from ifspace.models.decomposition import Decomposition
from ifspace.models.optimization import (
    Optimized,
    Wanted,
)
from ifspace.models.options import size_value, some
from ifspace.models.reorganization import Reorganization
from ifspace.models.warm_start import Fit
from ifspace.stages.text import (
    PublishedComparison,
    State,
    amounts_text,
    ending_facts,
    moves_table,
    published_of,
    short,
    states,
)
from ifspace.table import (
    facts,
    heading,
    table,
)

# The depths that were found within budgets, where the organizer does not come by.
BEST = "b"
_STATUS_OF_DEPTHS = {
    Status.OPTIMAL: "proven: within the budgets no depths up to {deep} gain more",
    Status.FEASIBLE: "time ran out: the best found so far, with the bound beside it",
}


def moved_values(found: Optimized) -> dict[str, Any]:
    """Return the stages as values that JSON has."""
    plan = found.stages
    if plan is None or found.wanted.blocks_only:
        return {"stages": None, "moves": [], "published": []}
    answer, beside = plan.answer, _beside(found, plan)
    way, taken = _states(found, plan), _taken(found, plan)
    return {
        "stages": {
            "sides": [size_value(_size(name)) for name in plan.names],
            "taken": taken,
            "status": None if answer is None else answer.status.name.lower(),
            "bound": None if answer is None else answer.bound,
            "stopped": plan.trajectory.stopped.name.lower(),
            "moved_gain": plan.trajectory.moved_gain,
            "start": way[0].amounts,
        },
        "moves": [
            {"step": state.step, **state.values, "taken": state.step == taken}
            for state in way
            if state.move is not None
        ],
        "published": [each.values for each in beside],
    }


def moved(found: Optimized) -> str:
    """Return the stages as a table with a row a state, and what there is to say of them."""
    plan = found.stages
    if plan is None or found.wanted.blocks_only:
        return ""
    wanted, beside = found.wanted, _beside(found, plan)
    title = f"Moves of the organizer: θ = {wanted.theta or 0:g}, α = {plan.alpha:g}"
    said = [("sides", ", ".join(plan.names))]
    if plan.answer is None:
        said += ending_facts(plan.trajectory)
    else:
        title = f"Depths of greatest gain within {amounts_text(plan.budgets.limits)}: "
        title += f"α = {plan.alpha:g}"
        said += _proven(plan)
    lines = [str(each) for each in beside]
    said += list(zip(["published", *[""] * len(lines)], lines, strict=False))
    rows = moves_table(_states(found, plan), bool(lines), _notes(found, plan))
    return heading(title) + rows + "\n" + facts(said)


def _states(found: Optimized, plan: Reorganization) -> list[State]:
    """Return the states of the organizer and, where none is what was taken, that too."""
    published = [each.published for each in _beside(found, plan)]
    way = states(plan.trajectory, plan.alpha, published)
    if _taken(found, plan) == BEST:
        way.append(State(BEST, None, plan.end, plan.end.gain(plan.alpha)))
    return way


def _taken(found: Optimized, plan: Reorganization) -> int | str | None:
    """Return the step after which the depths are those taken."""
    if plan.answer is not None and not plan.answer.plans:
        return None
    depths = [layout.depths for layout in plan.states]
    return depths.index(plan.end.depths) if plan.end.depths in depths else BEST


def _notes(found: Optimized, plan: Reorganization) -> dict[Any, str]:
    """Return what to say of states: which was taken, which others keep the budgets."""
    given = plan.budgets.limits
    notes: dict[Any, str] = {
        step: "keeps the budgets"
        for step, layout in enumerate(plan.states)
        if given and all(getattr(layout, name) <= most for name, most in given.items())
    }
    taken = _taken(found, plan)
    return notes if taken is None else notes | {taken: "taken"}


def _beside(found: Optimized, plan: Reorganization) -> list[PublishedComparison]:
    source = found.wanted.source
    classifier = sum(layer.params for layer in found.before.head)
    return [
        PublishedComparison(each, plan.trajectory, classifier)
        for each in published_of(source.name, source.image)
        if len(each.depths) == len(plan.start.depths)
    ]


def _proven(plan: Reorganization) -> list[tuple[str, str]]:
    answer = plan.answer
    if answer is None or not answer.plans:
        return []
    best = answer.plans[0]
    deep = max(table.max_depth for table in best.problem.tables)
    said = [
        (
            "status",
            f"{answer.status.name.lower()}, {_STATUS_OF_DEPTHS[answer.status].format(deep=deep)}",
        )
    ]
    if answer.bound is not None:
        gap = answer.bound - best.objective()
        reached = "which these reach" if gap < 1e-6 else f"{gap:.2g} above these"
        said.append(("bound", f"{answer.bound:.6f}, {reached}"))
    left = {name: most - getattr(plan.end, name) for name, most in plan.budgets.limits.items()}
    return [*said, ("left over", amounts_text(left))]


def _size(name: str) -> tuple[int, int]:
    height, width = map(int, name.split("×"))
    return height, width


_STATUS_OF_BLOCKS = {
    Status.OPTIMAL: "proven: within the budgets nothing is better",
    Status.FEASIBLE: "time ran out: the best found so far",
}
# Why a layer stays that a block fits, by what decides.
_WHY = {"keep": "the budgets ask for no more"}
_LESS = "no less of what decides with a block"


def replaced_values(found: Optimized) -> dict[str, Any]:
    """Return the blocks as values that JSON has."""
    plan = found.blocks
    if plan is None:
        return {"blocks": None, "replaced": [], "kept": [], "skipped": []}
    answer, fits = plan.answer, {fit.name: fit for fit in plan.fits}
    return {
        "blocks": {
            "objective": found.wanted.chosen_objective,
            "status": None if answer is None else answer.status.name.lower(),
            "left_out": [] if answer is None else list(answer.left_out),
        },
        "replaced": [
            {
                "name": each.name,
                "block": str(each.sized.block),
                "stride": each.step.stride,
                "params": list(each.params),
                "macs": list(each.macs),
                "field": [list(field) for field in each.fields],
                "fit": _fit(fits.get(each.name)),
            }
            for each in plan.replaced
        ],
        "kept": _kept(plan),
        "skipped": [{"name": each.name, "reason": each.reason} for each in plan.skipped],
    }


def replaced(found: Optimized) -> str:
    """Return the blocks as a table with a row a convolution, and what there is to say of them."""
    plan = found.blocks
    if plan is None:
        return ""
    fits = {fit.name: fit for fit in plan.fits}
    columns = ["layer", "block~", ">params", ">×", ">MACs", ">×"]
    columns += [">error", ">drawn", ">unseen"] if fits else []
    rows: list[list[Any]] = []
    for each in plan.replaced:
        row = [each.name, str(each.sized.block)]
        for before, after in (each.params, each.macs):
            row += [short(after), ratio_text(after / before)]
        rows.append(row + (_errors(fits.get(each.name)) if fits else []))
    total = len(plan.replaced) + len(_kept(plan)) + len(plan.skipped)
    text = heading(f"Replaced: {len(plan.replaced)} of {total} convolutions")
    said = _said(found, plan)
    return text + (table(columns, rows) if rows else "") + ("\n" + facts(said) if said else "")


def _kept(plan: Decomposition) -> list[str]:
    """Return the layers that a block fits and that stay all the same."""
    if plan.answer is None or plan.answer.best is None:
        return []
    done = {each.name for each in plan.replaced}
    return [site.name for site in plan.answer.best.problem.sites if site.name not in done]


def _fit(fit: Fit | None) -> dict[str, Any] | None:
    if fit is None:
        return None
    names = ("error", "random", "scaled", "unseen", "pixels")
    return {name: getattr(fit, name) for name in names}


def _errors(fit: Fit | None) -> list[str]:
    found = (None,) * 3 if fit is None else (fit.error, fit.random, fit.unseen)
    return ["" if each is None else f"{each:.3f}" for each in found]


def _narrow(plan: Decomposition) -> list[tuple[str, str]]:
    """Return which blocks see less than the convolution that they replace."""
    fields: dict[str, list[str]] = {}
    for each in plan.replaced:
        if each.sees_less:
            before, after = (f"{side}×{side}×{channels}" for side, channels in each.fields)
            fields.setdefault(f"{after} of {before}", []).append(each.name)
    lines = [f"{some(names)}: {field}" for field, names in fields.items()]
    lines += ["--cheapest takes blocks with the full field"] if lines else []
    return list(zip(["sees less", *[""] * len(lines)], lines, strict=False))


def _said(found: Optimized, plan: Decomposition) -> list[tuple[str, str]]:
    said = []
    reasons: dict[str, list[str]] = {}
    for each in plan.skipped:
        reasons.setdefault(each.reason, []).append(each.name)
    lines = [f"{some(names)}: {reason}" for reason, names in reasons.items()]
    if kept := _kept(plan):
        lines.append(f"{some(kept)}: {_WHY.get(found.wanted.chosen_objective, _LESS)}")
    said += list(zip(["kept", *[""] * len(lines)], lines, strict=False))
    said += _narrow(plan)
    answer = plan.answer
    if answer is not None and answer.best is not None:
        said.append(("status", f"{answer.status.name.lower()}, {_STATUS_OF_BLOCKS[answer.status]}"))
        left = {
            name: most - getattr(found.after, name)
            for name, most in plan.budgets.limits.items()
            if name != "latency_ms"
        }
        said += [("left over", amounts_text(left))] if left else []
        said += [("left out", some(answer.left_out, 3))] if answer.left_out else []
    if plan.fits:
        said += [
            (
                "error",
                "what a fitted block leaves of its convolution's output y, |y - block|² / "
                "|y|², on images of noise",
            ),
            ("drawn", "the same before the fit; unseen: on images kept out of it"),
        ]
    return said


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
    bounds = amounts_text(plan.budgets.limits)
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
