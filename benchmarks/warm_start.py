"""The fit of a warm start against alternating least squares, on layers as trained networks have.

`python -m benchmarks.warm_start` fits blocks to convolutions whose spectrum decays as 1 / i, on
smooth feature maps, from the same start: one layer after the other by alternating least squares,
all layers together by L-BFGS, and the one before the other, as `--warm-start` does. It writes
`warm-start.md` and `warm-start.csv` into `results/`. Seconds are of the processor.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.models.least_squares import (
    JOINT_STEPS,
    STEPS,
    SWEEPS,
    Target,
    alternate,
    minimise,
    minimise_jointly,
)
from ifspace.models.projection import project
from ifspace.nn import BlockModule, Style, build

Row = dict[str, Any]
# Blocks, channels before and behind, kernel.
CASES: Final = (
    ("GPW(8)+SH(8)+GPW(8)", 64, 64, 1),
    ("RPW(4,1/2)+GPW(4)", 64, 64, 1),
    ("RPW(8,0)+RPW(16,0)+GPW(16)", 96, 96, 1),
    ("RPW(12,0)+RPW(12,0)+GPW(16)", 192, 64, 1),
    ("DW+PW", 32, 64, 3),
    ("GC(8)+SH(8)+GPW(8)", 64, 64, 3),
    ("DW+GPW(8)+SH(8)+GPW(8)", 64, 128, 3),
    ("DW+RPW(4,0)+RPW(4,1/2)+GPW(8)", 64, 64, 3),
)
SEEDS: Final = range(3)
# Images of the fit, images kept out of it, and their side.
IMAGES: Final = (16, 8, 14)
# Passes over the layers, and steps of the joint fit.
ALTERNATING: Final = (5, 10)
JOINT: Final = (50, 150)


def decaying(conv: nn.Conv2d) -> nn.Conv2d:
    """Give a convolution weights [F, C, k, k] whose spectrum decays as 1 / i."""
    with torch.no_grad():
        left, _, right = torch.linalg.svd(
            torch.randn(conv.weight.flatten(1).shape), full_matrices=False
        )
        values = 1 / torch.arange(1, left.shape[1] + 1)
        conv.weight.copy_((left * values @ right).reshape(conv.weight.shape))
    return conv


def feature_maps(count: int, channels: int, side: int) -> Tensor:
    """Return smooth feature maps [N, C, H, W] whose channels depend on each other."""
    x = torch.randn(count, channels, side, side).cumsum(2).cumsum(3) / side
    mixing, _ = torch.linalg.qr(torch.randn(channels, channels))
    mixing = mixing / torch.arange(1, channels + 1).sqrt()
    return torch.einsum("ij,njhw->nihw", mixing, x).relu()


def compare(text: str, channels: int, outputs: int, kernel: int) -> Row:
    """Return the remaining relative errors and seconds of all fits, means over seeds."""
    ways: dict[str, Callable[[BlockModule, Sequence[Target]], None]] = {"both": minimise}
    for sweeps in ALTERNATING:
        ways[f"alternating {sweeps}"] = partial(alternate, sweeps=sweeps)
    for steps in JOINT:
        ways[f"joint {steps}"] = partial(minimise_jointly, steps=steps)
    numbers: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    start = ""
    for seed in SEEDS:
        torch.manual_seed(seed)
        conv = decaying(nn.Conv2d(channels, outputs, kernel, padding=kernel // 2))
        conv.requires_grad_(False)
        fitted, unseen, side = IMAGES
        x, other = (feature_maps(count, channels, side) for count in (fitted, unseen))
        style = Style(False, None, bias=True, bias_where="last")
        block = build(text, channels, outputs, style=style).eval()
        start = project(conv, block).value
        block(x[:1]).sum().backward()  # compiled kernels are not part of the times
        for name, fit in ways.items():
            trial = deepcopy(block)
            begin = time.thread_time()
            fit(trial, [(x, conv(x), 1.0)])
            seconds = time.thread_time() - begin
            with torch.no_grad():
                errors = [_error(trial(maps), conv(maps)) for maps in (x, other)]
            numbers[name].append((errors[0], errors[1], seconds))
    row: Row = {"block": text, "channels": f"{channels} to {outputs}", "begun": start}
    for name, values in numbers.items():
        for index, what in enumerate(("error", "unseen", "seconds")):
            row[f"{name} {what}"] = round(fmean(value[index] for value in values), 4)
    return row


def _error(output: Tensor, y: Tensor) -> float:
    return float((output - y).square().sum() / y.square().sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit all blocks, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        rows.append(compare(*case))
        print(rows[-1], flush=True)
    command = "python -m benchmarks.warm_start"
    columns = list(rows[0])
    page = [
        "# Fitting blocks: all layers together, or one after the other",
        f"Written by {provenance(command)}; one thread, float32, means of {len(SEEDS)} seeds.",
        "What a block leaves of its convolution's output, |y - block|² / |y|², on the images of "
        "the fit and (*unseen*) on others, and the seconds of the processor. *alternating n*: "
        f"least squares of one layer after the other, {STEPS} steps of conjugate gradients each, "
        "at most n times over. *joint n*: n steps of L-BFGS over all layers together. *both*: what "
        f"`--warm-start` does, alternating {SWEEPS}, then joint {JOINT_STEPS}. All begin with the "
        "same weights.",
        tabulate([[row[name] for name in columns] for row in rows], columns, "github"),
    ]
    write_results(options.out, "warm-start", page, rows, command, line_end="\n")


if __name__ == "__main__":
    main()
