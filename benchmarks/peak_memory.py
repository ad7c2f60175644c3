"""Peak memory of real networks, and how long it takes beside their trace.

`python -m benchmarks.peak_memory` writes `peak-memory.md` and `peak-memory.csv` into `results/`.
The trace and the peak of each network are timed in turn, in one process; the least time of each
counts, and the page has their ratio. Needs ifspace[torch] and torchvision.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tabulate import tabulate

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.memory import BYTES
from ifspace.models import network, trace

REPEATS: Final = 5
LIMIT_S: Final = 1.0
IMAGE: Final = (3, 224, 224)
NETWORKS: Final = (
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "torchvision:densenet121",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:efficientnet_b0",
    "resnet50",
    "vgg16",
)


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Return what a call returns, and its seconds."""
    start = time.perf_counter()
    result = call(*arguments)
    return result, time.perf_counter() - start


def measure(name: str) -> dict[str, Any]:
    """Return the peak memory of a network, and the ratio of the least times of trace and peak.

    Raises: AssertionError for a peak that takes longer than `LIMIT_S`.
    """
    with torch.device("meta"):
        model = network(name, IMAGE)
    traces, peaks = [], []
    for _ in range(REPEATS):
        graph, seconds = timed(trace, model, IMAGE)
        traces.append(seconds)
        live = graph.live
        assert live is not None
        peak, seconds = timed(getattr, live.schedule, "peak")
        peaks.append(seconds)
    assert min(peaks) < LIMIT_S, f"{name}: {min(peaks)} s"
    call = live.calls[peak.step]
    return {
        "network": name,
        "operators": len(live.calls),
        "elements": peak.elements,
        "bytes fp32": peak.elements * BYTES["fp32"],
        "bytes int8": peak.elements * BYTES["int8"],
        "at": str(call),
        "trace / peak": round(min(traces) / min(peaks)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    rows = [measure(name) for name in NETWORKS]
    command = "python -m benchmarks.peak_memory"
    page = [
        "# Peak memory of real networks",
        f"Written by {provenance(command)}.",
        "The largest sum of the feature maps of one image of 3×224×224 that are live at once, in "
        "the order of the network, and where that is first ([what counts]"
        "(../docs/concepts.md#peak-memory)). *trace / peak*: how many times longer the trace "
        f"takes, which every command on the network needs, the two in turn, the least of {REPEATS} "
        f"each. The peak of every network took less than {LIMIT_S:g} s; the run fails otherwise.",
        tabulate([row.values() for row in rows], list(rows[0]), tablefmt="github", intfmt=","),
    ]
    write_results(options.out, "peak-memory", page, rows, command, line_end="\n")


if __name__ == "__main__":
    main()
