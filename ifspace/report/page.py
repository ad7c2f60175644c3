"""The page: one file with the catalogue, charts and tables, which needs no network.

`page_data` is what its scripts read (designs, layers, measurements, as plain values), `charts` are
Vega-Lite specifications with their data inside, `page` puts everything into one HTML file.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import vl_convert

from ifspace.block import Block, SizedBlock, SizedLayer
from ifspace.catalogue import Design
from ifspace.catalogue.dataset import version
from ifspace.catalogue.design import represents
from ifspace.catalogue.evidence import CLAIMS, TrainedBlock, evidence, trained_blocks
from ifspace.catalogue.lazily import SHOWN
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import BlockError, SettingError
from ifspace.kinds import P, alphabet
from ifspace.measurements import AS_IS, LEAST, PEAK, PREDICTED, TIME
from ifspace.reach import field_after
from ifspace.report.measured import (
    OTHER_FORMS,
    PARAMS,
    Condition,
    Rows,
    baseline_name,
    by_condition,
    candidate_name,
    median_of,
)
from ifspace.report.read import (
    CATALOGUE,
    NOT_SHOWN,
    RANKS,
    TRAJECTORIES,
    BlockTimes,
    Part,
    Results,
    Row,
    left_out,
)
from ifspace.report.tables import (
    setting_name,
    settings,
    tables,
)
from ifspace.storage import replacing
from ifspace.table import Table
from ifspace.values import counted

# The page reads these by their names: a change here is one in static/model.js.
COLUMNS: Final = (
    "setting",
    "block",
    "params",
    "macs",
    "acts",
    "layers",
    "chain",
    "fields",
    "formula",
    "condition",
    "by",
    "same",
    "known",
    "irreducible",
    "baseline",
    "candidate",
    "network",
    "represents",
    "fan_in",
    "evidence",
)


@dataclass(slots=True)
class _Numbered:
    """Values that are written once and referred to by number."""

    numbers: dict[Any, int] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)

    def of(self, key: Any, value: Any = None) -> int:
        if key not in self.numbers:
            self.numbers[key] = len(self.values)
            self.values.append(key if value is None else value)
        return self.numbers[key]


def page_data(results: Results) -> dict[str, Any]:
    """Return what the page shows of the catalogues and of the benchmarks of blocks."""
    every = list(settings(results))
    places = [setting for _, _, setting in every]
    layers, texts, networks, published = (_Numbered() for _ in range(4))
    rows: list[tuple[Any, ...]] = []
    for number, (catalogue, _, setting) in enumerate(every):
        designs = catalogue.designs_of(setting)
        sized = [design.sized for design in designs]
        rows += [
            (*_design(*row, number, layers, texts, networks), published.of(_published(row[1])))
            for row in zip(designs, sized, strict=True)
        ]
        names = set(map(candidate_name, sized))
        rows += [
            (*row, published.of(_published(sized)))
            for row, sized in _baselines(results.blocks, setting, number, names, layers, texts)
        ]
    return {
        "settings": [_setting(setting) for setting in places],
        "kinds": list(alphabet()),
        "layers": layers.values,
        "texts": texts.values,
        "designs": {name: [row[n] for row in rows] for n, name in enumerate(COLUMNS)},
        "benches": [bench for row in results.blocks for bench in _conditions(row)],
        "sources": _sources(results.blocks),
        "published": published.values,
        "trained": [_trained(row) for row in trained_blocks()],
    }


def _published(sized: SizedBlock) -> tuple[tuple[int, bool], ...]:
    """Return the trained networks of such blocks by number, and whether each is the same."""
    numbers = {row: number for number, row in enumerate(trained_blocks())}
    return tuple((numbers[entry.trained], entry.same_network) for entry in evidence(sized))


def _trained(row: TrainedBlock) -> dict[str, Any]:
    """Return what the page shows of a trained network."""
    return {
        "block": row.block or row.composition,
        "groups": row.groups,
        "inside": row.bottleneck or "",
        "dataset": row.dataset,
        "network": row.network,
        "width": row.width,
        "params": row.params,
        "error": row.error,
        "change": row.change_text,
        "source": f"{row.source} ({row.licence})",
    }


def _setting(setting: EnumerationSetting) -> dict[str, Any]:
    return {
        "name": setting_name(setting),
        "channels": setting.channels,
        "out": setting.out_width,
        "bottleneck": None if setting.bottleneck is None else str(setting.bottleneck),
        "repeats": setting.repeats,
        "kernel": setting.kernel,
        "stride": setting.stride,
        "dims": setting.dims,
        "reference": _reference(setting),
        "field": setting.reference_field.side,
    }


def _reference(setting: EnumerationSetting) -> int:
    """Return the parameters of the convolutions that a block of the setting replaces."""
    text = f"(CONV({setting.kernel}))x{setting.repeats}"
    sized = Block.parse(text).at(setting.channels, setting.out_width, dims=setting.dims)
    return sized.params


def _design(
    design: Design,
    sized: SizedBlock,
    setting: int,
    layers: _Numbered,
    texts: _Numbered,
    networks: _Numbered,
) -> tuple[Any, ...]:
    name = candidate_name(sized)
    return (
        setting,
        str(design.block),
        design.params,
        design.macs_per_pixel,
        design.activations_per_pixel,
        design.layers,
        _chain(sized, layers),
        field_after(sized),
        texts.of(design.params_formula),
        texts.of(design.field_condition),
        design.dominated_by,
        design.same_as,
        design.published_as,
        design.irreducible,
        False,
        None if name == str(design.block) else name,
        None if design.network is None else networks.of((setting, design.network)),
        represents(design),
        design.least_fan_in,
    )


def _baselines(
    benches: Iterable[BlockTimes],
    setting: EnumerationSetting,
    number: int,
    names: set[str],
    layers: _Numbered,
    texts: _Numbered,
) -> list[tuple[tuple[Any, ...], SizedBlock]]:
    """Return what was measured at the setting's widths and is no design of the catalogue.

    Each with its block. Left out is what cannot be recounted: a name that is no block, or one whose
    parameters differ from those measured.
    """
    baselines: dict[str, tuple[tuple[Any, ...], SizedBlock]] = {}
    for bench in benches:
        for condition, rows in by_condition(bench.rows).items():
            if not _fits(condition, setting):
                continue
            for name in rows:
                title = baseline_name(rows, name)
                if title and name not in names and name not in baselines:
                    sized = _sized(name, setting, median_of(rows, name, PARAMS))
                    if sized is not None:
                        narrow = sized.bottleneck is not None
                        formula = str(sized.block.composition.params_formula(narrow))
                        row = (
                            number,
                            name,
                            sized.params,
                            sized.macs_per_pixel(setting.stride),
                            sized.activations_per_pixel(setting.stride),
                            len(sized.block),
                            _chain(sized, layers),
                            field_after(sized),
                            texts.of(formula),
                            texts.of(""),
                            None,
                            None,
                            title,
                            True,
                            True,
                            None,
                            None,
                            True,
                            sized.least_fan_in,
                        )
                        baselines[name] = row, sized
    return list(baselines.values())


def _fits(condition: Condition, setting: EnumerationSetting) -> bool:
    """Return whether blocks of the setting were measured so: in 2-D, at its widths and stride."""
    widths = (setting.channels, setting.out_width)
    alike = condition.shape[1:3] == widths and condition.stride == setting.stride
    return alike and setting.dims == 2


def _sized(name: str, setting: EnumerationSetting, params: float | None) -> SizedBlock | None:
    """Return the block that a row names, such as "PW+DW+PW, bottleneck 6"."""
    text, _, ratio = name.partition(", bottleneck ")
    try:
        sized = Block.parse(text).at(setting.channels, setting.out_width, ratio or None)
        sized.strides(setting.stride)  # raises where no layer can hold the stride
    except BlockError:
        return None
    return sized if params is None or sized.params == params else None


def _chain(sized: SizedBlock, layers: _Numbered) -> list[int]:
    numbers = []
    for layer in sized.layers:
        key = str(layer.layer), layer.c_in, layer.c_out, layer.dims
        if key not in layers.numbers:
            layers.of(key, _layer(layer))
        numbers.append(layers.numbers[key])
    return numbers


def _layer(layer: SizedLayer) -> dict[str, Any]:
    """Return a layer: what it is, what it costs, and which channels each output reads.

    `starts` are the first channels of runs of `fan` neighbours, counted around the circle; where
    an output reads anything else, `reads` has all of it.
    """
    reads = layer.reads()
    run = (reads[:, :1] + np.arange(reads.shape[1])) % layer.c_in
    about = {
        "name": str(layer.layer),
        "kind": layer.layer.kind,
        "in": layer.c_in,
        "out": layer.c_out,
        "fan": layer.fan_in,
        "params": layer.params,
        "acts": layer.c_out * layer.conv.writes,
        "groups": layer.layer.groups,
        "mixing": layer.conv.mixing,
        "step": layer.step if layer.conv.takes_overlap else None,
        "windows": layer.windows if layer.conv.coverage.has(P) else None,
    }
    if np.array_equal(run, reads):
        return about | {"starts": reads[:, 0].tolist()}
    return about | {"reads": reads.tolist()}


def _conditions(bench: BlockTimes) -> list[dict[str, Any]]:
    """Return what was measured on a device under each condition and in each form, block by block.

    Of blocks that were timed in another form, only what depends on it.
    """
    conditions = []
    for form in (AS_IS, *OTHER_FORMS):
        for condition, rows in by_condition(bench.rows, form).items():
            about = _condition(bench.device, condition)
            if form != AS_IS:
                about["what"] = f"{condition.what}, {form}"
                timed_here = [name for name, metrics in rows.items() if TIME in metrics]
                rows = {name: _of_form(rows[name]) for name in timed_here}
            if _timed(rows) or form == AS_IS:
                conditions.append(about | {"rows": _rows(rows), "timed": _timed(rows)})
    return conditions


def _of_form(metrics: Mapping[str, Row]) -> dict[str, Row]:
    """Return what depends on the form of a block."""
    return {name: row for name, row in metrics.items() if name in (LEAST, TIME, PREDICTED, PEAK)}


def _condition(device: str, condition: Condition) -> dict[str, Any]:
    _, c, f, _, _ = condition.shape
    return {
        "device": device,
        "channels": c,
        "out": f,
        "stride": condition.stride,
        "mode": condition.mode,
        "what": condition.what,
    }


def _rows(rows: Rows) -> dict[str, dict[str, Sequence[Any]]]:
    return {
        name: {
            metric: [row["median"], row["p20"], row["p80"], row["unit"]]
            for metric, row in metrics.items()
        }
        for name, metrics in rows.items()
    }


def _timed(rows: Rows) -> bool:
    return any(TIME in metrics for metrics in rows.values())


def _sources(benches: Iterable[BlockTimes]) -> list[dict[str, Any]]:
    """Return the PyTorch source of every measured block, by the widths that it is for."""
    places: dict[tuple[int, int, int], dict[str, str]] = {}
    for bench in benches:
        for (block, *place), source in bench.sources.items():
            channels, out, stride = place
            places.setdefault((channels, out, stride), {})[block] = source
    return [
        {"channels": channels, "out": out, "stride": stride, "blocks": blocks}
        for (channels, out, stride), blocks in places.items()
    ]


Spec = dict[str, Any]
_SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v6.json"
# Seen on light and on dark.
_STEP_COLOURS: Final = ("#b9c1cb", "#7f8b9b", "#2f7de0")
STEPS: Final = ("all compositions", "not a shorter one repeated", "survivors")


def charts(results: Results) -> dict[str, list[tuple[str, str, Spec]]]:
    """Return for each part its charts: a name, what it shows in words, the specification."""
    charts_of: dict[str, list[tuple[str, str, Spec]]] = {}
    for part, every in (
        ("funnel", _funnels(results)),
        ("layouts", _trajectories(results)),
        ("energy", _ranks(results)),
        ("kernels", _kernels(results)),
    ):
        for number, (caption, spec) in enumerate(every):
            charts_of.setdefault(part, []).append((f"{part}-{number}", caption, spec))
    return charts_of


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
        caption = f"How many compositions each rule leaves, {setting_name(setting)}"
        yield caption, _chart(values, layer=[bars, numbers_above])


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
    tooltip: list[Spec] = [
        {"field": "stage"},
        {"field": "depth", "title": "blocks"},
        {"field": "parameters", "format": ","},
        {"field": "published"},
    ]
    lines = {"mark": "line", "encoding": {**at, "stroke": by_stage | {"legend": None}}}
    marks = {
        "mark": {"type": "point", "size": 80, "filled": True},
        "encoding": {**at, "color": by_stage, "shape": by_stage, "tooltip": tooltip},
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
    highest: dict[tuple[Any, int], float] = {}
    for row in rows:
        key = row["units"], row["budget"]
        highest[key] = max(highest.get(key, 0.0), row["energy"])
    values = [
        {
            "rank": row["rank"],
            "energy": round(100 * row["energy"] / highest[key], 3),
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
    tooltip: list[Spec] = [{"field": name} for name in ("widths", "rank", "energy", "paper")]
    problem = {"field": "problem", "title": None}
    lines = {"mark": "line", "encoding": {**at, "stroke": problem, "strokeDash": problem}}
    near = {
        "mark": {"type": "point", "size": 60, "filled": True, "opacity": 0},
        "encoding": {**at, "tooltip": tooltip},
    }
    learned = {
        "transform": [{"filter": "datum.paper === 'learned best'"}],
        "mark": {"type": "point", "shape": "diamond", "size": 110, "strokeWidth": 2},
        "encoding": {**at, "tooltip": tooltip},
    }
    caption = "How fast the energy of layouts falls with their rank; diamonds: learned to be best"
    yield caption, _chart(values, layer=[lines, learned, near])


def _units(units: tuple[int, ...]) -> str:
    """Return how many convolutions a layout has.

    >>> _units((1, 1, 1)), _units((1, 10, 10))
    ('3 convolutions', '1 + 10 + 10 convolutions')
    """
    if set(units) == {1}:
        return counted(len(units), "convolution")
    return f"{' + '.join(map(str, units))} convolutions"


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


# In this order: what stands later uses what stands before it.
SCRIPTS: Final = (
    "base",
    "model",
    "sight",
    "chart",
    "table",
    "export",
    "parallel",
    "address",
    "compare",
    "detail",
    "main",
)
LIBRARY: Final = (
    "/* Vega, Vega-Lite and Vega-Embed: https://vega.github.io, BSD 3-Clause License, "
    "Copyright (c) University of Washington Interactive Data Lab and contributors */\n"
)
# What the version is called that is not known.
UNKNOWN: Final = "unknown"
# The catalogue has a section of its own, which has more than this part's table.
_IN_CATALOGUE: Final = "designs"


def write(results: Results, parts: Sequence[Part], path: Path) -> None:
    """Write the page of a results folder, whole or not at all.

    Raises: SettingError without a catalogue; OutputError when it cannot be written there.
    """
    text = page(results, parts)
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


def page(results: Results, parts: Sequence[Part]) -> str:
    """Return the page of a results folder with the parts asked for.

    Raises: SettingError without a catalogue.
    """
    if not results.catalogues:
        raise SettingError.because(
            "a page needs a catalogue",
            got=f"no {CATALOGUE.name} in {results.folder}",
            allowed="a folder with one",
            remedy=f"write it with `{CATALOGUE.written_by(results.folder)}`",
        )
    drawn = charts(results)
    shown = [
        part
        for part in parts
        if part.name != _IN_CATALOGUE and (drawn.get(part.name) or tables(results, part.name))
    ]
    specs = {name: spec for part in shown for name, _, spec in drawn.get(part.name, ())}
    fill = {
        "title": "ifspace: the catalogue of blocks",
        "heading": "Blocks that see what a convolution sees",
        "lead": _lead(results),
        "nav": _nav(shown),
        "parts": "\n".join(_section(results, part, drawn.get(part.name, ())) for part in shown),
        "footer": f"{escape(_writer())} The charts are drawn by Vega-Lite; this file needs no "
        f"network. {_absent(results, parts)}",
        "data": _json(page_data(results)),
        "charts": _json(specs),
        "library": LIBRARY + _script(_library()),
        "css": _static("page.css"),
        "script": _script("\n".join(_static(f"{name}.js") for name in SCRIPTS)),
    }
    pieces = _static("page.html").split("{{")
    return pieces[0] + "".join(
        fill[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:])
    )


def _writer() -> str:
    number = version()
    return "Written by ifspace." if number == UNKNOWN else f"Written by ifspace {number}."


def _library() -> str:
    # The stub asks for an argument that is optional, and slower to have.
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return bundle


def _static(name: str) -> str:
    return (resources.files("ifspace.report") / "static" / name).read_text(encoding="utf-8")


def _json(values: Any) -> str:
    """Return JSON that can stand in a script element: no `<` could end it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _script(text: str) -> str:
    """Return a script that can stand in a script element."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _lead(results: Results) -> str:
    funnels = [funnel for catalogue in results.catalogues for funnel in catalogue.funnels]
    longest = max(
        (s.max_len for catalogue in results.catalogues for s in catalogue.settings), default=0
    )
    survivors, tried, networks = (
        sum(getattr(f, name) or 0 for f in funnels)
        for name in ("survivors", "compositions", "distinct_networks")
    )
    same = f" They are {networks:,} networks up to the order of channels." if networks else ""
    stand = "Each stands here with its cheapest group counts."
    if any(catalogue.rows for catalogue in results.catalogues):
        designs = sum(len(catalogue.designs) for catalogue in results.catalogues)
        stand = (
            f"{designs:,} of them stand here with their cheapest group counts: of long catalogues "
            f"{SHOWN} networks of each length, the published blocks and what nothing beats."
        )
    return (
        f"Of {tried:,} compositions of up to {counted(longest, 'layer')}, {survivors:,} see all "
        "the pixels and all the channels that the standard convolution sees, with no layer to "
        f"spare. {stand}{same} {' '.join(CLAIMS)}"
    )


def _nav(parts: Sequence[Part]) -> str:
    links = [("catalogue", "The catalogue"), *((part.name, part.title) for part in parts)]
    return "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in links)


def _section(results: Results, part: Part, drawn: Sequence[tuple[str, str, Any]]) -> str:
    title = f"{part.name}-title"
    lines = [
        f'<section id="{part.name}" aria-labelledby="{title}">',
        f'<h2 id="{title}" tabindex="-1">{escape(part.title)}</h2>',
    ]
    lines += [
        f'<figure><figcaption>{escape(caption)}</figcaption><div data-chart="{name}" role="group" '
        f'aria-label="{escape(caption)}"><div class="vega"></div></div></figure>'
        for name, caption, _ in drawn
    ]
    lines += ["".join(_table(table)) for table in tables(results, part.name)]
    return "\n".join([*lines, "</section>"])


def _absent(results: Results, parts: Sequence[Part]) -> str:
    """Return what the page does not show: results that are missing, files of no part."""
    texts = [f"{text}." for text in left_out(results, parts)]
    if results.unrecognised:
        texts.append(f"{NOT_SHOWN}: {', '.join(results.unrecognised)}.")
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<details><summary>What is not shown</summary><ul>{items}</ul></details>"


def _cell(text: str) -> str:
    """Return the text of a cell as HTML; a block may break after a layer.

    >>> _cell("DW+PW")
    'DW+<wbr>PW'
    """
    return escape(text).replace("+", "+<wbr>")


def _table(table: Table) -> Iterator[str]:
    label = escape(table.title)
    yield f'<h3>{label}</h3><div class="scroll static" tabindex="0" role="group" '
    yield f'aria-label="{label}"><table aria-label="{label}"><thead><tr>'
    places = [' class="right"' if side == "right" else "" for side in table.alignment]
    for name, place in zip(table.names, places, strict=True):
        yield f'<th scope="col"{place}>{escape(name)}</th>'
    yield "</tr></thead><tbody>"
    for row in table.rows:
        cells = zip(row, places, strict=True)
        yield "<tr>" + "".join(f"<td{place}>{_cell(cell)}</td>" for cell, place in cells) + "</tr>"
    yield "</tbody></table></div>"
    for note in table.notes:
        yield f'<p class="note">{escape(note)}</p>'
