"""What the page knows: designs, layers, measurements, as plain values that become JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ifspace.block import Block, SizedBlock, SizedLayer
from ifspace.catalogue import Design
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import BlockError
from ifspace.kinds import alphabet
from ifspace.reach import field_after
from ifspace.report.folder import BlockBench, Results
from ifspace.report.measured import (
    PARAMS,
    TIME,
    Condition,
    Rows,
    baseline_name,
    by_condition,
    candidate_name,
    median_of,
)
from ifspace.report.tables import designs_of, setting_name, settings

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
)


@dataclass(slots=True)
class _Numbered:
    """Values that are written once and referred to by their number."""

    known: dict[Any, int] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)

    def of(self, key: Any, value: Any = None) -> int:
        if key not in self.known:
            self.known[key] = len(self.values)
            self.values.append(key if value is None else value)
        return self.known[key]


def page_data(results: Results) -> dict[str, Any]:
    """Return what the page shows of the catalogues and of the benchmarks of blocks."""
    every = list(settings(results))
    places = [setting for _, _, setting in every]
    layers, texts = _Numbered(), _Numbered()
    rows: list[tuple[Any, ...]] = []
    for number, (catalogue, _, setting) in enumerate(every):
        designs = designs_of(catalogue, setting)
        sized = [design.sized for design in designs]
        rows += [_design(*each, number, layers, texts) for each in zip(designs, sized, strict=True)]
        known = set(map(candidate_name, sized))
        rows += _baselines(results.blocks, setting, number, known, layers, texts)
    return {
        "settings": [_setting(setting) for setting in places],
        "kinds": list(alphabet()),
        "layers": layers.values,
        "texts": texts.values,
        "designs": {name: [row[n] for row in rows] for n, name in enumerate(COLUMNS)},
        "benches": [bench for each in results.blocks for bench in _conditions(each)],
        "sources": _sources(results.blocks),
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
    }


def _reference(setting: EnumerationSetting) -> int:
    """Return the parameters of the convolutions that a block of the setting replaces."""
    word = f"(CONV({setting.kernel}))x{setting.repeats}"
    sized = Block.parse(word).at(setting.channels, setting.out_width, dims=setting.dims)
    return sized.params


def _design(
    design: Design, sized: SizedBlock, setting: int, layers: _Numbered, texts: _Numbered
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
    )


def _baselines(
    benches: Iterable[BlockBench],
    setting: EnumerationSetting,
    number: int,
    known: set[str],
    layers: _Numbered,
    texts: _Numbered,
) -> list[tuple[Any, ...]]:
    """Return what was measured at the setting's widths and is no design of the catalogue.

    Left out is what cannot be counted again: a name that is no block, or one whose parameters are
    not those that were measured.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for bench in benches:
        for condition, rows in by_condition(bench.rows).items():
            if not _fits(condition, setting):
                continue
            for name in rows:
                title = baseline_name(rows, name)
                if title and name not in known and name not in found:
                    sized = _sized(name, setting, median_of(rows, name, PARAMS))
                    if sized is not None:
                        narrow = sized.bottleneck is not None
                        formula = str(sized.block.composition.params_formula(narrow))
                        found[name] = (
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
                        )
    return list(found.values())


def _fits(condition: Condition, setting: EnumerationSetting) -> bool:
    """Return whether blocks of the setting were measured so: of maps, at its widths and stride."""
    widths = (setting.channels, setting.out_width)
    alike = condition.shape[1:3] == widths and condition.stride == setting.stride
    return alike and setting.dims == 2


def _sized(name: str, setting: EnumerationSetting, params: float | None) -> SizedBlock | None:
    """Return the block that a row names, such as "PW+DW+PW, bottleneck 6"."""
    word, _, ratio = name.partition(", bottleneck ")
    try:
        sized = Block.parse(word).at(setting.channels, setting.out_width, ratio or None)
        sized.strides(setting.stride)  # raises where no layer can hold the stride
    except BlockError:
        return None
    return sized if params is None or sized.params == params else None


def _chain(sized: SizedBlock, layers: _Numbered) -> list[int]:
    numbers = []
    for layer in sized.layers:
        key = str(layer.layer), layer.c_in, layer.c_out, layer.dims
        if key not in layers.known:
            layers.of(key, _layer(layer))
        numbers.append(layers.known[key])
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
    }
    if np.array_equal(run, reads):
        return about | {"starts": reads[:, 0].tolist()}
    return about | {"reads": reads.tolist()}


def _conditions(bench: BlockBench) -> list[dict[str, Any]]:
    """Return what was measured on a device under each condition, block by block."""
    found = []
    for condition, rows in by_condition(bench.rows).items():
        about = _condition(bench.device, condition)
        found.append(about | {"rows": _rows(rows), "timed": _timed(rows)})
    return found


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


def _sources(benches: Iterable[BlockBench]) -> list[dict[str, Any]]:
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
