"""Whole blocks in one pass against torch's depthwise and pointwise convolutions, on a CPU.

`python -m benchmarks.fused_blocks` times, in turn, the ten different networks with the fewest
parameters at each width, the unit of ShuffleNet and the blocks that README shows, fused by
`ifspace.nn.fuse` and layer by layer; DW+PW of torch in both layouts, of which the faster one
counts; and a copy of the input, the least that any block has to do. Then whole networks, end to
end. It writes `fused-blocks.md` and `fused-blocks.csv` into `results/`. Ratios are of the least
times of one run. `--quick` takes three networks at a width.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.measure import write_results
from benchmarks.thin_layers import least_times
from ifspace import EnumerationSetting, best, enumerate_designs, find_groups
from ifspace.bench.machine import keep_memory
from ifspace.bench.record import provenance
from ifspace.nn import FOG, RollingPointwiseConv2d, build, fuse

CHANNELS: Final = (64, 128, 256)
SIDES: Final = (56, 28, 14)
BATCHES: Final = (1, 16)
NETWORKS: Final = 10
SHUFFLENET: Final = "GPW(4)+SH(4)+DW+GPW(4)"
# The blocks of README's table, at 64 channels.
README: Final = (
    "DW+RPW(16,0)+RPW(16,0)+GPW(16)",
    "DW+RPW(8,0)+GPW(8)",
    "DW+RPW(4,0)+GPW(4)",
    "RPW(2,0)+GC(32)",
    "RPW(4,0)+GC(16)",
)
RIVAL: Final = "DW+PW"
# A whole network is of this composition, with the fewest parameters at each width.
COMPOSITION: Final = "DW+RPW+RPW+GPW"
# What the ratios should be: of DW+PW, of the block layer by layer, of the copy at 64 channels.
COPY: Final = "copy share"
GOALS: Final = {"of DW+PW": 0.6, "of as is": 0.2, COPY: 0.4}
Row = dict[str, Any]


def blocks_at(channels: int, count: int) -> list[str]:
    """Return the different networks with the fewest parameters, and the unit of ShuffleNet.

    At the width of README's table its blocks too.
    """
    catalogue = enumerate_designs([EnumerationSetting(channels=channels, max_len=4)])
    blocks = [*(str(design.block) for design, _ in best(catalogue, limit=count)), SHUFFLENET]
    return [*dict.fromkeys((*blocks, *(README if channels == CHANNELS[0] else ())))]


def block_rows(channels: int, blocks: Sequence[str], threads: int) -> Iterator[Row]:
    """Yield the times of blocks at a width."""
    torch.set_num_threads(threads)
    rival = by_torch(build(RIVAL, channels).eval())
    for batch in BATCHES:
        for side in SIDES:
            x = torch.randn(batch, channels, side, side)
            last, y = x.contiguous(memory_format=torch.channels_last), torch.empty_like(x)
            for block in blocks:
                module = build(block, channels).eval()
                calls: dict[str, Callable[[], Any]] = {
                    "fused": _call(fuse(module), x),
                    "as is": _call(module, x),
                    "DW+PW": _call(rival, x),
                    "DW+PW channels_last": _call(rival, last),
                    "copy": partial(y.copy_, x),
                }
                times = dict(zip(calls, least_times(list(calls.values())), strict=True))
                faster = min(times["DW+PW"], times["DW+PW channels_last"])
                yield {
                    "threads": threads,
                    "batch": batch,
                    "channels": channels,
                    "side": side,
                    "block": block,
                    "params": sum(parameter.numel() for parameter in module.parameters()),
                    **{f"{name} us": round(seconds * 1e6, 1) for name, seconds in times.items()},
                    "of DW+PW": round(times["fused"] / faster, 3),
                    "of as is": round(times["fused"] / times["as is"], 3),
                    COPY: round(times["copy"] / times["fused"], 3),
                }


def network(composition: str, widths: Sequence[int], depths: Sequence[int]) -> nn.Module:
    """Return residual stages of blocks behind a stem, as ResNets have them."""
    parts: list[nn.Module] = []
    width = widths[0]
    if len(widths) == 4:  # of large images
        parts += [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        parts += [nn.MaxPool2d(3, 2, 1)]
    else:
        parts += [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for out, depth in zip(widths, depths, strict=True):
        for _ in range(depth):
            stride = 1 if out == width else 2
            block = composition
            if composition == COMPOSITION:
                answer = find_groups(composition, channels=width, out_channels=out)
                block = str(answer.plans[0].block)
            parts.append(build(block, width, out, stride=stride, style=FOG))
            width = out
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).eval()


def network_rows(threads: int) -> Iterator[Row]:
    """Yield the times of whole networks for one image."""
    torch.set_num_threads(threads)
    shapes = {
        "ResNet-18-like, 224": ((64, 128, 256, 512), (2, 2, 2, 2), 224),
        "CIFAR ResNet, 32": ((16, 32, 64), (3, 3, 3), 32),
    }
    for name, (widths, depths, side) in shapes.items():
        x = torch.randn(1, 3, side, side)
        last = x.contiguous(memory_format=torch.channels_last)
        own = network(COMPOSITION, widths, depths)
        fused = fuse(own)
        calls = {"fused": _call(fused, x), "fused channels_last": _call(fused, last)}
        calls |= {"as is": _call(own, x), "as is channels_last": _call(own, last)}
        for rival in (RIVAL, "CONV"):
            module = by_torch(network(rival, widths, depths))
            calls |= {rival: _call(module, x), f"{rival} channels_last": _call(module, last)}
        times = dict(zip(calls, least_times(list(calls.values())), strict=True))
        faster = {
            form: min(times[form], times[f"{form} channels_last"])
            for form in ("fused", RIVAL, "CONV")
        }
        yield {
            "threads": threads,
            "network": name,
            **{f"{key} ms": round(seconds * 1e3, 2) for key, seconds in times.items()},
            **{
                f"of {rival}": round(faster["fused"] / faster[rival], 3)
                for rival in (RIVAL, "CONV")
            },
        }


def overhead_rows() -> Iterator[Row]:
    """Yield the times of calls on an input so small that only the call is timed."""
    torch.set_num_threads(1)
    x = torch.randn(1, 64, 1, 1)
    modules = {
        "torch.nn.Conv2d, 1x1": nn.Conv2d(64, 64, 1, bias=False),
        "RollingPointwiseConv2d(16, 0)": RollingPointwiseConv2d(64, 64, 16, 0, bias=False),
        "DW+RPW+RPW+GPW, fused": fuse(build("DW+RPW(16,0)+RPW(16,0)+GPW(16)", 64)),
    }
    times = least_times([_call(module, x) for module in modules.values()])
    for name, seconds in zip(modules, times, strict=True):
        yield {"layer": name, "us": round(seconds * 1e6, 1)}


def by_torch(module: nn.Module) -> nn.Module:
    """Have a module's convolutions call torch's own: of modules with a forward of their own."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            vars(part)["forward"] = part.forward
    return module


def _call(module: nn.Module, x: Tensor) -> Callable[[], Any]:
    def call() -> Tensor:
        with torch.no_grad():
            y: Tensor = module(x)
        return y

    return call


def _summary(rows: Sequence[Row], names: Sequence[str]) -> str:
    table = []
    for key in sorted({tuple(row[name] for name in names) for row in rows}):
        own = [row for row in rows if tuple(row[name] for name in names) == key]
        line = [*key, len(own)]
        for ratio in GOALS:
            values = [row[ratio] for row in own]
            worst = min(values) if ratio == COPY else max(values)
            line += [f"{median(values):.2f}", f"{worst:.2f}"]
        table.append(line)
    headers = [*names, "cases"]
    headers += [f"{ratio}: {kind}" for ratio in GOALS for kind in ("median", "worst")]
    text: str = tabulate(table, headers, tablefmt="github")
    return text


def _table(rows: Sequence[Row]) -> str:
    text: str = tabulate([list(row.values()) for row in rows], list(rows[0]), tablefmt="github")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Time blocks and networks and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    keep_memory()
    rows: list[Row] = []
    networks: list[Row] = []
    names = {
        channels: blocks_at(channels, 3 if options.quick else NETWORKS) for channels in CHANNELS
    }
    for threads in map(int, options.threads.split(",")):
        for channels in CHANNELS:
            rows += block_rows(channels, names[channels], threads)
        networks += network_rows(threads)
    command = "python -m benchmarks.fused_blocks" + (" --quick" if options.quick else "")
    first = [row for row in rows if row["block"] == names[row["channels"]][0]]
    unit = [row for row in rows if row["block"] == SHUFFLENET]
    shown = [
        row
        for block in README
        for row in rows
        if (row["block"], row["channels"], row["side"]) == (block, CHANNELS[0], SIDES[0])
    ]
    met = {
        name: sum(row[name] >= goal if name == COPY else row[name] <= goal for row in rows)
        for name, goal in GOALS.items()
    }
    page = [
        "# Blocks in one pass over tiles",
        f"Written by {provenance(command)}.",
        "Float32, inference; least times of runs that take turns. *of DW+PW*: the fused block over "
        "the faster layout of torch's DW+PW; *of as is*: over the same block layer by layer; *copy "
        "share*: the copy of the input over the fused block, 1 if a block took no longer than "
        "reading its input and writing as much.",
        "; ".join(
            f"{name} {'from' if name == COPY else 'up to'} {GOALS[name]}: {count} of "
            f"{len(rows)} cases"
            for name, count in met.items()
        ),
        _summary(rows, ("threads", "batch", "channels", "side")),
        "## The block with the fewest parameters",
        _table(first),
        "## The blocks of README's table",
        _table(shown),
        "## The unit of ShuffleNet",
        _table(unit),
        "## Whole networks, one image",
        "The faster layout of each counts.",
        _table(networks),
        "## A call, on 1x64x1x1",
        _table(list(overhead_rows())),
    ]
    write_results(options.out, "fused-blocks", page, [*rows, *networks], command, line_end="\n")


if __name__ == "__main__":
    main()
