"""Rolling pointwise layers against torch's grouped 1x1 convolution of as many weights, on a CPU.

`python -m benchmarks.thin_layers` times both layers in turn, the forward pass and forward with
backward, in both orders and layouts, and writes `thin-layers.md` and `thin-layers.csv` into
`results/`. Ratios are of the least times of one run. Cases come in a shuffled order until
`--seconds` are over; `--quick` takes 300 and batches up to 16.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.measure import write_results
from ifspace.bench.machine import keep_memory
from ifspace.bench.record import provenance
from ifspace.errors import KernelError
from ifspace.kernels.costs import load
from ifspace.kernels.rpw.cpu import plan_for
from ifspace.kernels.windows import windows_of
from ifspace.nn import RollingPointwiseConv2d

# Channels and side; batches; group counts; overlaps.
SIZES: Final = ((64, 56), (64, 28), (64, 14), (128, 28), (256, 14), (256, 28), (512, 14), (512, 7))
BATCHES: Final = (1, 16, 128)
GROUPS: Final = (2, 4, 8, 16)
OVERLAPS: Final = (0, 0.33, 0.5)
# Elements of the input beyond which a batch is left out: a case would take seconds.
MOST_ELEMENTS: Final = 8 << 20
# Seconds of a case, within a number of turns.
CASE_S: Final = 0.12
TURNS: Final = (3, 60)
FORWARD: Final = "forward"
BOTH: Final = "forward + backward"
# What the ratios should not exceed, in any case and at the most.
GOALS: Final = (1.0, 1.05)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison."""

    threads: int
    mode: str
    layout: str
    order: str
    batch: int
    channels: int
    side: int
    groups: int
    overlap: float


def cases(batches: Sequence[int], threads: Sequence[int]) -> Iterator[Case]:
    """Yield all comparisons; blocked order needs a filter for every window."""
    for count in threads:
        for mode in (FORWARD, BOTH):
            for layout in ("nchw", "channels_last"):
                for order in ("rolling", "blocked"):
                    for batch in batches:
                        for channels, side in SIZES:
                            if batch * channels * side**2 > MOST_ELEMENTS:
                                continue
                            for groups in GROUPS:
                                for overlap in OVERLAPS:
                                    numbers = batch, channels, side, groups, overlap
                                    yield Case(count, mode, layout, order, *numbers)


def compare(case: Case) -> Row | None:
    """Return the least microseconds of both layers and their ratio; None for no such layer."""
    torch.set_num_threads(case.threads)
    channels, side = case.channels, case.side
    try:
        windows = windows_of(channels, channels, case.groups, case.overlap, case.order)
    except KernelError:
        return None
    layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    own = RollingPointwiseConv2d(
        channels, channels, case.groups, case.overlap, bias=False, order=case.order
    )
    rival = nn.Conv2d(channels, channels, 1, groups=case.groups, bias=False)
    x = torch.randn(case.batch, channels, side, side).contiguous(memory_format=layout)
    grad = torch.randn_like(x)
    if case.mode == BOTH:
        x.requires_grad_()

    def call(layer: nn.Module) -> Callable[[], Any]:
        def forward() -> Tensor:
            with torch.no_grad():
                y: Tensor = layer(x)
            return y

        def both() -> Any:
            return torch.autograd.grad(layer(x), (x, *layer.parameters()), grad)

        return forward if case.mode == FORWARD else both

    times = least_times([call(own), call(rival)])
    plan = plan_for(windows, case.batch * side**2, case.layout == "channels_last")
    way = plan.text("forward") if case.mode == FORWARD else str(plan)
    micro = [round(seconds * 1e6, 1) for seconds in times]
    return {
        **asdict(case),
        "rpw us": micro[0],
        "grouped us": micro[1],
        "ratio": round(times[0] / times[1], 3),
        "way": way,
    }


def least_times(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """Return the least seconds of each call, of turns that are interleaved."""
    for call in calls:
        call()
    times = [float("inf")] * len(calls)
    begin, (fewest, most) = time.perf_counter(), TURNS
    for turn in range(most):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            times[number] = min(times[number], time.perf_counter() - start)
        if turn + 1 >= fewest and time.perf_counter() - begin > CASE_S:
            break
    return times


def summary(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Return a table of the ratios by some columns."""
    table = []
    for key in sorted({tuple(row[name] for name in names) for row in rows}):
        ratios = [row["ratio"] for row in rows if tuple(row[name] for name in names) == key]
        shares = [f"{sum(ratio <= goal for ratio in ratios) / len(ratios):.0%}" for goal in GOALS]
        table.append([*key, len(ratios), f"{median(ratios):.2f}", f"{max(ratios):.2f}", *shares])
    headers = [*names, "cases", "median", "worst", *(f"up to {goal:.2f}" for goal in GOALS)]
    text: str = tabulate(table, headers, tablefmt="github")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the cases and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    seconds = min(options.seconds, 300.0) if options.quick else options.seconds
    batches = BATCHES[:2] if options.quick else BATCHES
    keep_memory()
    todo = list(cases(batches, list(map(int, options.threads.split(",")))))
    random.Random(0).shuffle(todo)
    rows: list[Row] = []
    begin = time.perf_counter()
    tried = 0
    for case in todo:
        if time.perf_counter() - begin > seconds:
            break
        tried += 1
        row = compare(case)
        if row is not None:
            rows.append(row)
    rows.sort(key=lambda row: list(map(str, row.values())))
    command = "python -m benchmarks.thin_layers" + (" --quick" if options.quick else "")
    _write(options.out, rows, (tried, len(todo)), command)


def _write(folder: Path, rows: Sequence[Row], count: tuple[int, int], command: str) -> None:
    beyond = sorted(
        (row for row in rows if row["ratio"] > GOALS[1]), key=lambda row: -float(row["ratio"])
    )
    columns = ["threads", "mode", "layout", "order", "batch", "channels", "side", "groups"]
    columns += ["overlap", "ratio", "way"]
    page = [
        "# Rolling pointwise layers and grouped convolutions of as many weights",
        f"Written by {provenance(command)}; {count[0]} of {count[1]} cases, in a shuffled order.",
        "The time of `RollingPointwiseConv2d` over that of `torch.nn.Conv2d` with as many weights, "
        "the same input and layout, float32: least times of runs that take turns. The way of each "
        f"is chosen by the constants of {load().machine}.",
        summary(rows, ("mode", "threads", "layout")),
        summary(rows, ("mode", "batch", "side")),
        summary(rows, ("mode", "groups", "overlap")),
        f"## {len(beyond)} cases above {GOALS[1]:.2f}, the first of them",
        tabulate([[row[name] for name in columns] for row in beyond[:40]], columns, "github"),
    ]
    write_results(folder, "thin-layers", page, rows, command, line_end="\n")


if __name__ == "__main__":
    main()
