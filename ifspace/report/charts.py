"""The charts of the page that need no hand of ours: specifications in Vega-Lite, data inside."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ifspace.report.files import RANKS, TRAJECTORIES
from ifspace.report.folder import Results
from ifspace.report.measured import TIME, by_condition
from ifspace.report.tables import setting_name, settings

Spec = dict[str, Any]
_SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v6.json"
# Seen on light and on dark.
_STEP_COLOURS: Final = ("#b9c1cb", "#7f8b9b", "#2f7de0")
STEPS: Final = ("all compositions", "not a shorter one repeated", "survivors")


def charts(results: Results) -> dict[str, list[tuple[str, str, Spec]]]:
    """Return for each part its charts: a name, what it shows in words, the specification."""
    found: dict[str, list[tuple[str, str, Spec]]] = {}
    for part, every in (
        ("funnel", _funnels(results)),
        ("layouts", _trajectories(results)),
        ("energy", _ranks(results)),
        ("kernels", _kernels(results)),
    ):
        for number, (said, spec) in enumerate(every):
            found.setdefault(part, []).append((f"{part}-{number}", said, spec))
    return found


def _chart(values: Iterable[Any], height: int = 340, **more: Any) -> Spec:
    return {
        "$schema": _SCHEMA,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(values)},
        **more,
    }


def _axis(field: str, title: str | None, **more: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _funnels(results: Results) -> Iterator[tuple[str, Spec]]:
    for catalogue, place, setting in settings(results):
        funnel = catalogue.funnels[place]
        counts = (funnel.compositions_by_length, funnel.after_patterns_by_length, funnel.by_length)
        values = [
            {"layers": length, "step": step, "count": count}
            for step, numbers in zip(STEPS, counts, strict=True)
            for length, count in enumerate(numbers, start=1)
            if count
        ]
        at = {
            "x": {
                "field": "layers",
                "type": "ordinal",
                "title": "layers of the composition",
                "axis": {"labelAngle": 0},
            },
            "xOffset": {"field": "step", "sort": list(STEPS)},
            "y": _axis(
                "count",
                "compositions",
                scale={"type": "log", "domainMin": 0.8},
                axis={"format": ",", "values": [10**n for n in range(10)]},
            ),
        }
        bars = {
            "mark": {"type": "bar", "tooltip": True},
            "encoding": {
                **at,
                "y2": {"datum": 0.8},
                "color": {
                    "field": "step",
                    "type": "nominal",
                    "title": None,
                    "scale": {"domain": list(STEPS), "range": list(_STEP_COLOURS)},
                },
            },
        }
        numbers_above = {
            # Those between are near the first, and there is no room for both.
            "transform": [{"filter": f"datum.step !== '{STEPS[1]}'"}],
            "mark": {"type": "text", "dy": -7, "fontSize": 10},
            "encoding": {**at, "text": {"field": "count", "format": ","}},
        }
        said = f"How many compositions each rule leaves, {setting_name(setting)}"
        yield said, _chart(values, layer=[bars, numbers_above])


def _trajectories(results: Results) -> Iterator[tuple[str, Spec]]:
    rows = results.of(TRAJECTORIES)
    if not rows:
        return
    names = list(dict.fromkeys(f"{row['network']}, {row['side']} pixels" for row in rows))
    values = []
    for row in rows:
        which = f"{row['network']}, {row['side']} pixels"
        count = len(row["depths"])
        for stage, depth in enumerate(row["depths"], start=1):
            after = f"{row['step']}: {row['move'] or 'start'}"
            values.append(
                {
                    "network": which,
                    "step": row["step"],
                    "after": after,
                    "depth": depth,
                    # A little apart: lines of the same depth would hide each other.
                    "height": round(depth - 0.06 * (stage - (count + 1) / 2), 3),
                    "stage": f"stage {stage}: {row['sides'][stage - 1]} pixels",
                    "parameters": row["params"],
                    "published": row["published"],
                }
            )
    choose = {
        "name": "network",
        "value": names[0],
        "bind": {"input": "select", "options": names, "name": "Network "},
    }
    at = {
        "x": {
            "field": "after",
            "type": "ordinal",
            "title": "move from stage to stage",
            "sort": {"field": "step"},
            "axis": {"labelAngle": 0, "labelOverlap": False},
        },
        "y": _axis(
            "height",
            "blocks in the stage",
            scale={"domainMin": 0},
            axis={"tickMinStep": 1, "format": "d"},
        ),
    }
    by_stage = {"field": "stage", "title": None}
    told: list[Spec] = [
        {"field": "stage"},
        {"field": "depth", "title": "blocks"},
        {"field": "parameters", "format": ","},
        {"field": "published"},
    ]
    lines = {"mark": "line", "encoding": {**at, "stroke": by_stage | {"legend": None}}}
    marks = {
        "mark": {"type": "point", "size": 80, "filled": True},
        "encoding": {**at, "color": by_stage, "shape": by_stage, "tooltip": told},
    }
    spec = _chart(
        values,
        params=[choose],
        transform=[{"filter": "datum.network === network"}],
        layer=[lines, marks],
    )
    yield "How the organizer moves blocks from stage to stage", spec


def _ranks(results: Results) -> Iterator[tuple[str, Spec]]:
    rows = results.of(RANKS)
    if not rows:
        return
    most: dict[tuple[Any, int], float] = {}
    for row in rows:
        key = row["units"], row["budget"]
        most[key] = max(most.get(key, 0.0), row["energy"])
    values = [
        {
            "rank": row["rank"],
            "energy": round(100 * row["energy"] / most[key], 3),
            "widths": ", ".join(map(str, row["widths"])),
            "paper": row["paper"],
            "problem": f"{_units(key[0])}, {9 * key[1]:,} parameters",
        }
        for row in rows
        for key in [(row["units"], row["budget"])]
    ]
    most_rank = max(row["rank"] for row in rows)
    at = {
        "x": _axis(
            "rank",
            "rank of the layout by its energy",
            scale={"type": "log", "domain": [1, most_rank], "nice": False},
            axis={"values": [10**n for n in range(len(str(most_rank)))], "format": ","},
        ),
        "y": _axis("energy", "energy, % of the greatest"),
    }
    told: list[Spec] = [{"field": name} for name in ("widths", "rank", "energy", "paper")]
    problem = {"field": "problem", "title": None}
    lines = {"mark": "line", "encoding": {**at, "stroke": problem, "strokeDash": problem}}
    near = {
        "mark": {"type": "point", "size": 60, "filled": True, "opacity": 0},
        "encoding": {**at, "tooltip": told},
    }
    learned = {
        "transform": [{"filter": "datum.paper === 'learned best'"}],
        "mark": {"type": "point", "shape": "diamond", "size": 110, "strokeWidth": 2},
        "encoding": {**at, "tooltip": told},
    }
    said = "How fast the energy of layouts falls with their rank; diamonds: learned to be best"
    yield said, _chart(values, layer=[lines, learned, near])


def _units(units: tuple[int, ...]) -> str:
    """Return how many convolutions a layout has.

    >>> _units((1, 1, 1)), _units((1, 10, 10))
    ('3 convolutions', '1 + 10 + 10 convolutions')
    """
    count = str(len(units)) if set(units) == {1} else " + ".join(map(str, units))
    return f"{count} convolutions"


def _kernels(results: Results) -> Iterator[tuple[str, Spec]]:
    for bench in results.kernels:
        values = [
            {
                "candidate": name,
                "mode": condition.mode,
                "what": f"{condition.case}, {condition.what}",
                "share": float(f"{row['bound'] / row['median']:.4g}"),
            }
            for condition, rows in by_condition(bench.rows).items()
            for name, metrics in rows.items()
            if (row := metrics.get(TIME)) is not None and row["bound"] and row["median"]
        ]
        if values:
            y = {
                "field": "candidate",
                "type": "nominal",
                "title": None,
                "sort": None,
                "axis": {"labelLimit": 150},
            }
            modes = {"field": "mode", "title": None}
            yield (
                f"How near every case comes to the speed of the bound on {bench.device}",
                _chart(
                    values,
                    40 + 30 * len({value["candidate"] for value in values}),
                    mark={"type": "point", "filled": True, "size": 60, "opacity": 0.75},
                    encoding={
                        "x": _axis(
                            "share",
                            "share of the bound's speed",
                            scale={"type": "log", "nice": False},
                            axis={"format": "~%", "values": [10**n for n in range(-6, 2)]},
                        ),
                        "y": y,
                        "yOffset": modes,
                        "color": modes,
                        "shape": modes,
                        "tooltip": [{"field": name} for name in ("candidate", "what")]
                        + [{"field": "share", "format": ".1%"}],
                    },
                ),
            )
