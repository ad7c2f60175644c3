"""Results folders small enough to read, in the formats of the benchmarks that write them."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from samples import DW_PW, DW_RPW_RPW, SMALL

from ifspace.block import Block
from ifspace.catalogue import Catalogue, Design, Funnel, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.report.read import MEASURED

DEVICE = "cpu-test"
BASELINES = ("CONV", "DW+PW", "GPW(4)+SH(4)+DW+GPW(4), bottleneck 1/4")
NAMES = dict(zip(BASELINES, ("CONV(3)", "MobileNet", "ShuffleNet unit"), strict=True))

FLAT = replace(
    DW_PW,
    dims=1,
    params=304,
    macs_per_pixel=304,
    params_ratio=304 / 768,
    macs_ratio=304 / 768,
    published_as=None,
)
INSIDE = replace(
    DW_PW,
    composition="PW+DW+PW",
    block=Block.parse("PW+DW+PW"),
    bottleneck=Fraction(1, 4),
    params=164,
    macs_per_pixel=164,
    activations_per_pixel=24,
    peak_per_pixel=20,
    params_ratio=164 / 2304,
    macs_ratio=164 / 2304,
    layers=3,
    least_fan_in=4,
    published_as=None,
)
# Settings of equal widths and stride: feature maps, sequences, and an inner width.
PLACES = Catalogue(
    settings=(
        EnumerationSetting(channels=16, max_len=3),
        EnumerationSetting(channels=16, max_len=3, dims=1),
        EnumerationSetting(channels=16, max_len=3, bottleneck=Fraction(1, 4)),
    ),
    funnels=(Funnel(258, 246, 1, (6, 36, 216), (6, 30, 210), (0, 1, 0), 12, 345, 6),) * 3,
    designs=(DW_PW, FLAT, INSIDE),
)
# Two trade-offs of sixteen channels.
FRONT = Catalogue(
    settings=(EnumerationSetting(channels=16, max_len=3, front=True),),
    funnels=(
        Funnel(
            *(258, 246, 2, (6, 36, 216), (6, 30, 210), (0, 1, 1), 12, 345, 6),
            choices_passing=490,
            rows_by_length=(0, 1, 1),
        ),
    ),
    designs=(
        replace(DW_PW, stands_for=2, beats=381),
        replace(DW_RPW_RPW, stands_for=12, beats=356),
    ),
)


def name_of(design: Design) -> str:
    """Return what a design is measured under."""
    inside = design.bottleneck
    return str(design.block) if inside is None else f"{design.block}, bottleneck {inside}"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def measured(candidate: str, metric: str, median: float | str, **more: Any) -> dict[str, Any]:
    """Return a tidy row of a benchmark."""
    row = dict.fromkeys(MEASURED, "") | {
        "case": "64x64 side 28",
        "candidate": candidate,
        "provider": "torch",
        "mode": "forward",
        "dtype": "fp32",
        "layout": "nchw",
        "N": 8,
        "C": 64,
        "F": 64,
        "H": 28,
        "W": 28,
        "metric": metric,
        "unit": "ms",
        "median": median,
        "device": DEVICE,
        "torch": "2.13.0",
        "date": "2026-11-21",
        "form": "as is",
    }
    if isinstance(median, float):
        row |= {"p20": median * 0.9, "p80": median * 1.2}
    return row | more


def block_rows(designs: Iterable[Design], channels: int = 16) -> list[dict[str, Any]]:
    """Return rows of a block benchmark: the designs and the baselines, times that grow."""
    rows = []
    case = f"{channels} to {channels} channels, side 28, stride 1, plain style, 2 threads"
    blocks = list(map(name_of, designs))
    for place, text in enumerate(dict.fromkeys((*blocks, *BASELINES))):
        word, _, ratio = text.partition(", bottleneck ")
        sized = Block.parse(word).at(channels, bottleneck=ratio or None)
        time = round(0.5 + sized.params / 2e3 + 0.05 * (place * 7 % 5), 4)
        shape = {"C": channels, "F": channels, "case": case}
        shape["provider"] = "catalogue" if text in blocks else f"baseline: {NAMES[text]}"
        for mode, factor in (("forward", 1.0), ("forward+backward", 2.8)):
            timed = shape | {"mode": mode, "bound": time / 3}
            rows.append(measured(text, "time", time * factor, **timed))
            rows.append(measured(text, "least time", time * factor / 2, **timed))
        rows.append(measured(text, "peak memory", 20.0 + place, unit="MiB", **shape))
        rows.append(measured(text, "params", sized.params, unit="count", **shape))
        rows.append(measured(text, "predicted time", round(time * 0.55, 4), **shape))
    shape["case"] = f"calibration: {case}"
    rows.append(measured("PW", "time", 99.0, **shape))
    return rows


def blocks_json(designs: Iterable[Design]) -> dict[str, Any]:
    errors = {
        "model": {"count": 12, "rank_correlation": 0.93, "median_error": 0.17},
        "MACs alone": {"count": 12, "rank_correlation": None, "median_error": 1.25},
    }
    return {
        "version": 1,
        "arguments": {"top": 3},
        "provenance": {"command": "ifspace bench", "device": DEVICE},
        "designs": [
            {
                "composition": design.composition,
                "block": str(design.block),
                "candidate": name_of(design),
                "provider": "catalogue",
                "channels": design.channels,
                "out_channels": design.out_channels,
                "stride": 1,
                "bottleneck": None if design.bottleneck is None else str(design.bottleneck),
                "source": f'class Unit(nn.Module):\n    """{design.block} <b>&</b>"""\n',
                "fields": [[3, 1], list(design.field)],
                "checked": True,
            }
            for design in designs
        ],
        "model": {"forward": {"unit": "ms", "coefficients": {"bytes": 1e-9}, "errors": errors}},
    }


def kernel_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        measured("torch", "bandwidth", 22.7, case="copy", N="", C="", F="", H="", W="")
    ]
    for n, side in enumerate((14, 28)):
        for name, ratio in (("ours", 0.8 + n / 10), ("dense", 1.0), ("grouped", 0.5)):
            provider = "ifspace cpu: Plan(1)" if name == "ours" else "torch"
            more = {"case": "RPW(4,1/2)", "H": side, "W": side, "provider": provider}
            rows.append(measured(name, "time", 2.0 * ratio * (1 + n), bound=0.5 * (1 + n), **more))
            rows.append(measured(name, "ratio", ratio, unit="x dense", **more))
            rows.append(measured(name, "share of bound", 0.5 / ratio, unit="1", **more))
    rows.append(measured("direct", "not run: for CUDA only", "", case="RPW(4,1/2)"))
    return rows


STAGES = [
    {"table": "search", "stages": 3, "depth": 4, "blocks": "1", "widths": "1", "gain": 3.3},
    {
        "table": "wide",
        "params": "100,000",
        "gain": 9.2,
        "bound": 9.2,
        "status": "optimal",
        "depths": "3 2",
        "widths": "32 32",
        "blocks": "DW+PW DW+PW",
        "macs": "",
        "layers": "",
    },
    {
        "table": "organizer",
        "network": "vgg16",
        "side": 32,
        "layout": "organizer's end",
        "depths": "3 2",
        "gain": 7.5,
        "best by params and MACs": 7.8,
        "params and MACs: depths": "4 1",
        "best by params alone": 8.0,
        "params alone: depths": "6 1",
    },
]
TRAJECTORIES = [
    {
        "network": "vgg16",
        "side": 32,
        "step": n,
        "move": move,
        "depths": depths,
        "sides": "32 16",
        "moved_gain": gain,
        "gain": 5 + gain,
        "params": 14_000_000 - n * 10**6,
        "macs": 3 * 10**8,
        "published": "CIFAR-10" if n == 2 else "",
    }
    for n, (move, depths, gain) in enumerate((("", "1 4", 0), ("2→1", "2 3", 1), ("2→1", "3 2", 2)))
]
ENERGY = [
    {
        "layers": 4,
        "budget": 4288,
        "top": 6,
        "best widths": "35 36 37 43",
        "energy": 173.035768,
        "params": 38592,
        "depth": 4,
        "width sum": 151,
        "exact s": 0.063,
    }
]
RANKS = [
    {
        "budget": 4288,
        "units": "1 1 1 1",
        "widths": f"{35 - n} 36 37 {43 + n}",
        "energy": 173 - 2 * n,
        "rank": n + 1,
        "layouts": 5,
        "paper": "learned best" * (n < 2),
    }
    for n in range(5)
]
GROUPS = [
    {
        "composition": word,
        "C": c,
        "F": c,
        "K": "",
        "block": block,
        "params": params,
        "layers": layers,
        "proven": True,
    }
    for c in (16, 32)
    for word, block, params, layers in (
        ("DW+PW", "DW+PW", c * (9 + c), 2),
        ("DW+RPW+RPW", "DW+RPW(4,0)+RPW(4,0)", 17 * c, 3),
        ("DW+PW+PW", "DW+PW+PW", c * (9 + 2 * c), 3),
        ("DW+SH+GPW+PW", "not the best", 18 * c, 4),
    )
]
VERDICTS = [{"table": "[IF] Table 1", "rows": 4, "match": 2, "misprint": 1}]


def results_folder(folder: Path, catalogue: Catalogue = SMALL) -> Path:
    """Write a folder with every file that a report shows; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    save(catalogue, folder / "catalogue-16.parquet")
    save(FRONT, folder / "front-16.parquet")
    for name, rows in (
        ("stages-bench", STAGES),
        ("trajectories", TRAJECTORIES),
        ("energy-bench", ENERGY),
        ("energy-ranks", RANKS),
        ("groups-study", GROUPS),
        ("reproduction", VERDICTS),
    ):
        write_csv(folder / f"{name}.csv", rows)
    width = catalogue.designs[0].channels
    designs = [
        design for design in catalogue.designs if (design.channels, design.dims) == (width, 2)
    ]
    write_csv(folder / "bench" / f"{DEVICE}.csv", kernel_rows())
    write_csv(folder / "bench" / f"blocks-{DEVICE}.csv", block_rows(designs, width))
    about = folder / "bench" / f"blocks-{DEVICE}.json"
    about.write_text(json.dumps(blocks_json(designs)))
    latency = {
        "block": "DW+PW",
        "C": 16,
        "F": 16,
        "side": 28,
        "stride": 1,
        "batch": 8,
        "device": DEVICE,
        "dtype": "fp32",
        "latency_ms": 1.5,
    }
    write_csv(folder / "bench" / f"latency-{DEVICE}.csv", [latency])
    return folder
