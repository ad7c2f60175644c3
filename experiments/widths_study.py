"""A study: the search at every pair of widths of ten real networks, under several floors.

`python -m experiments.widths_study FOLDER` searches each setting into a folder and writes
`widths-study.md` and `.csv` there: how many compositions survive, and the cheapest block beside the
standard convolution. The same command goes on where an earlier run stopped; `--backend` and
`--address` work on a cluster that is there, as those of `ifspace enumerate`, `--shard i/n` computes
one of n shares alone. `--out` is for the page, if not the folder. `--estimate` prints what it
takes. `--first N` takes the first N settings, in a folder of their own.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from torch import nn

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.catalogue.shards import Shards
from ifspace.cli.backend import add_backend_arguments, joined
from ifspace.enumerate.run import estimate_run, run_in_folder
from ifspace.enumerate.satisfiable import check_floors
from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.models.sources import network
from ifspace.table import Table
from ifspace.values import listed

NETWORKS: Final = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_large",
    "torchvision:efficientnet_b0",
    "torchvision:densenet121",
    "torchvision:googlenet",
    "torchvision:squeezenet1_1",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:convnext_tiny",
)
# Channels of an image, or of a squeezed map, are no widths of a block.
LEAST_WIDTH: Final = 8
FLOORS: Final = tuple(
    Floors(least_fan_in=fan_in, multiple=multiple)
    for fan_in, multiple in product((1, 2, 4, 8, 16), (1, 8))
)
NAME: Final = "widths-study"


@dataclass(frozen=True, slots=True)
class Study:
    """Settings of pairs of widths under floors; `left_out`: how many have no block at all.

    `names`: the networks; `networks`: those that have each pair of widths, in channels.
    """

    names: tuple[str, ...]
    networks: dict[tuple[int, int], tuple[str, ...]]
    settings: tuple[EnumerationSetting, ...]
    left_out: int

    @classmethod
    def of(cls, names: Sequence[str], max_len: int, floors: Sequence[Floors] = FLOORS) -> "Study":
        """Return the study of the networks of these names."""
        networks: dict[tuple[int, int], list[str]] = {}
        for name in names:
            for pair in width_pairs(name):
                networks.setdefault(pair, []).append(name)
        settings, left_out = [], 0
        for (c_in, c_out), floor in product(sorted(networks), floors):
            try:
                setting = EnumerationSetting(
                    channels=c_in, out_channels=c_out, max_len=max_len, floors=floor
                )
                # PW and DW make a block wherever all channels are as many as a filter has to read.
                if min(c_in, c_out) < floor.least_fan_in:
                    check_floors(setting)
            except SettingError:
                left_out += 1
            else:
                settings.append(setting)
        pairs = {pair: tuple(having) for pair, having in networks.items()}
        return cls(tuple(names), pairs, tuple(settings), left_out)


def width_pairs(name: str) -> list[tuple[int, int]]:
    """Return the widths (C_in, C_out) around the convolutions of a network, each pair once.

    >>> width_pairs("torchvision:resnet18")[:3]
    [(64, 64), (64, 128), (128, 128)]
    """
    with torch.device("meta"):
        model = network(name)
    pairs = (
        (module.in_channels, module.out_channels)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    )
    return list(dict.fromkeys(pair for pair in pairs if min(pair) >= LEAST_WIDTH))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the settings that a folder lacks, and write the page when it has all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-len", type=int, default=4)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME")
    parser.add_argument("--first", type=int, metavar="N")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--shard", metavar="I/N")
    add_backend_arguments(parser)
    parser.add_argument("--estimate", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    study = Study.of(options.networks, options.max_len)
    settings = study.settings[: options.first]
    print(
        f"{len(study.networks)} pairs of widths, {len(settings)} of {len(study.settings)} settings"
    )
    if options.estimate:
        print(estimate_run(settings, options.jobs))
        return
    share = None
    if options.shard is not None:
        number, _, of = options.shard.partition("/")
        share = int(number), int(of)
    with joined(options.backend, options.address):
        shards = run_in_folder(settings, options.folder, jobs=options.jobs, share=share)
    missing, _ = shards.states()
    if missing:
        print(f"{len(missing)} of {len(shards)} parts are missing: no page yet")
        return
    rows = list(table_rows(study, shards))
    command = f"python -m experiments.{Path(__file__).stem} FOLDER --max-len {options.max_len}"
    out = options.out or options.folder
    write_results(out, NAME, page(study, rows, command), rows, command)


def table_rows(study: Study, shards: Shards) -> Iterator[dict[str, Any]]:
    """Yield what each setting came to; `shards`: of a run that is whole."""
    designs = shards.designs()
    for setting, funnel in zip(shards.manifest.settings, shards.funnels, strict=True):
        survivors = islice(designs, funnel.rows)
        cheapest = min(survivors, key=lambda design: design.params, default=None)
        yield {
            "c_in": setting.channels,
            "c_out": setting.out_width,
            "least_fan_in": setting.floors.least_fan_in,
            "multiple": setting.floors.multiple,
            "survivors": funnel.survivors,
            "cheapest": None if cheapest is None else str(cheapest.block),
            "params": None if cheapest is None else cheapest.params,
            "ratio": None if cheapest is None else round(cheapest.params_ratio, 5),
            "networks": " ".join(study.networks[setting.channels, setting.out_width]),
        }


def page(study: Study, rows: Sequence[dict[str, Any]], command: str) -> list[str]:
    """Return the paragraphs of the page: what floors cost, over the pairs of widths."""
    by_floors: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows:
        by_floors.setdefault((row["least_fan_in"], row["multiple"]), []).append(row)
    cells = []
    for (fan_in, multiple), alike in sorted(by_floors.items()):
        ratios = [row["ratio"] for row in alike if row["ratio"] is not None]
        ratio = f"{median(ratios):.4f}" if ratios else None
        cells.append((fan_in, multiple, len(alike), median(r["survivors"] for r in alike), ratio))
    columns = (">least fan-in", ">multiple", ">settings", ">survivors (median)", ">ratio (median)")
    return [
        "# Blocks at the widths of real networks",
        f"Written by {provenance(command)}.",
        f"{len(rows)} settings: pairs of widths around the convolutions of {len(study.names)} "
        f"networks ({listed(study.names)}), under the floors of [`ifspace enumerate`]"
        f"(../docs/cli.md). Of all {len(study.settings) + study.left_out} pairs with floors "
        f"{study.left_out} have no block. *Ratio*: parameters of the cheapest block over those of "
        "the standard convolution.",
        Table(columns, tuple(cells)).markdown().strip(),
    ]


if __name__ == "__main__":
    main()
