"""Blocks by the compiled loops of today and by an earlier version of ifspace, in one run.

`python -m benchmarks.blocks_before FOLDER` takes the folder of another checkout, such as one from
before the compiled loops (`git worktree add FOLDER COMMIT`). A second process with that version on
its path times the same blocks layer by layer; both take turns, so that ratios are of one run. It
writes `blocks-before.md` and `blocks-before.csv` into `results/`; `--quick` takes three blocks.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, Final

import torch
from tabulate import tabulate

from benchmarks.fused_blocks import BATCHES, NETWORKS, SIDES, blocks_at
from benchmarks.measure import write_results
from ifspace.bench.machine import keep_memory
from ifspace.bench.record import provenance
from ifspace.nn import build, fuse

CHANNELS: Final = 64
# How often both versions take turns, and the seconds of a turn of each.
TURNS: Final = 8
TURN_S: Final = 0.02
# Seconds in which the threads of the other process stop to watch for work.
PAUSE_S: Final = 0.01
# How many times faster a fused block should be than the block of the earlier version.
GOAL: Final = 5.0
Row = dict[str, Any]

# What the second process runs: for each line "block channels batch side" or "again" the least
# seconds of a turn.
BEFORE: Final = f"""
import sys
from time import perf_counter
import torch
from ifspace.bench.machine import keep_memory
from ifspace.nn import build
keep_memory()
torch.set_num_threads(int(sys.argv[1]))
with torch.no_grad():
    for line in sys.stdin:
        if line.split() != ["again"]:
            block, *sizes = line.split()
            channels, batch, side = map(int, sizes)
            module, x = build(block, channels).eval(), torch.randn(batch, channels, side, side)
            module(x)
        least, begin = float("inf"), perf_counter()
        while True:
            start = perf_counter()
            module(x)
            end = perf_counter()
            least = min(least, end - start)
            if end - begin > {TURN_S}:
                break
        print(least, flush=True)
"""


class Before:
    """A process with another version of ifspace."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", BEFORE, str(threads)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def least_seconds(self, line: str) -> float:
        """Return the least seconds of a turn of what a line says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        sleep(PAUSE_S)
        print(line, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def rows(folder: Path, blocks: Sequence[str], threads: int) -> Iterator[Row]:
    """Yield the times of blocks in both versions."""
    torch.set_num_threads(threads)
    before = Before(folder, threads)
    try:
        for batch in BATCHES:
            for side in SIDES:
                x = torch.randn(batch, CHANNELS, side, side)
                for block in blocks:
                    module = build(block, CHANNELS).eval()
                    fused, sizes = fuse(module), f"{CHANNELS} {batch} {side}"
                    times = {"fused": float("inf"), "as is": float("inf"), "before": float("inf")}
                    for turn in range(TURNS):
                        line = "again" if turn else f"{block} {sizes}"
                        times = {
                            "fused": min(times["fused"], _least_seconds(fused, x)),
                            "as is": min(times["as is"], _least_seconds(module, x)),
                            "before": min(times["before"], before.least_seconds(line)),
                        }
                    yield {
                        "threads": threads,
                        "batch": batch,
                        "side": side,
                        "block": block,
                        **{f"{name} us": round(value * 1e6, 1) for name, value in times.items()},
                        "speed-up": round(times["before"] / times["fused"], 2),
                        "speed-up as is": round(times["before"] / times["as is"], 2),
                    }
    finally:
        before.close()


def _least_seconds(call: Callable[[torch.Tensor], Any], x: torch.Tensor) -> float:
    """Return the least seconds of the calls of a turn."""
    sleep(PAUSE_S)
    least, begin = float("inf"), perf_counter()
    with torch.no_grad():
        while perf_counter() - begin < TURN_S:
            start = perf_counter()
            call(x)
            least = min(least, perf_counter() - start)
    return least


def summary(table: Sequence[Row]) -> str:
    """Return the speed-ups by threads, batch and side."""
    lines = []
    for key in sorted({(row["threads"], row["batch"], row["side"]) for row in table}):
        own = [row for row in table if (row["threads"], row["batch"], row["side"]) == key]
        line: list[Any] = [*key, len(own)]
        for name in ("speed-up", "speed-up as is"):
            values = [row[name] for row in own]
            line += [f"{median(values):.2f}", f"{min(values):.2f}"]
        lines.append([*line, sum(row["speed-up"] >= GOAL for row in own)])
    headers = ["threads", "batch", "side", "blocks", "fused: median", "least", "as is: median"]
    text: str = tabulate(lines, [*headers, "least", f"fused from {GOAL:g}"], tablefmt="github")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the blocks and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commit", help="the commit of FOLDER, for the page")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    keep_memory()
    blocks = blocks_at(CHANNELS, 3 if options.quick else NETWORKS)
    table = [
        row
        for threads in map(int, options.threads.split(","))
        for row in rows(options.folder, blocks, threads)
    ]
    command = "python -m benchmarks.blocks_before FOLDER" + (" --quick" if options.quick else "")
    version = options.commit or "an earlier version"
    page = [
        "# Blocks now and in an earlier version",
        f"Written by {provenance(command)}; FOLDER has {version}.",
        f"Float32, contiguous, inference, C = {CHANNELS}: the ten different networks with the "
        "fewest parameters and the unit of ShuffleNet. Times of the block in the earlier version, "
        "layer by layer, over those of the fused block, and of the block layer by layer, today; "
        "least times of two processes that take turns.",
        summary(table),
        "## All blocks",
        tabulate([list(row.values()) for row in table], list(table[0]), tablefmt="github"),
    ]
    write_results(options.out, "blocks-before", page, table, command, line_end="\n")


if __name__ == "__main__":
    main()
