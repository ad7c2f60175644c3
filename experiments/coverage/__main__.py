"""How far the commands on real networks come with those of timm and torchvision.

`python -m experiments.coverage` writes `coverage.md` and `coverage.csv` into `results/`: for every
network of `networks.py` whether `analyze` reads it; whether `optimize` finds stages, and blocks, of
60% of its parameters; and whether the result is trained for a step, saved, loaded and exported as
ONNX; else why not. Each outcome is written at once, and the same command goes on where an earlier
run stopped: first `analyze` for all networks, then the other steps, quick and small networks first.
`--jobs N` networks are measured at a time.
`coverage-networks.csv` has the sizes from which the networks were chosen.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Final

from experiments.coverage.networks import (
    Candidate,
    chosen,
    families,
    read_candidates,
    write_candidates,
)
from experiments.coverage.page import page
from experiments.coverage.rows import Rows
from experiments.coverage.steps import ANALYZE, PASSES, STEPS, Limits, outcomes
from ifspace.bench.record import list_in_readme, provenance

COMMAND: Final = "python -m experiments.coverage"
PAGE, ROWS, NETWORKS = "coverage.md", "coverage.csv", "coverage-networks.csv"


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the steps that are left and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--names", nargs="*", default=[], help="only these networks, as MODEL")
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=STEPS, metavar="STEP")
    parser.add_argument("--side", type=int, help="images of at most so many pixels, where possible")
    parser.add_argument("--time-s", type=float, default=Limits().time_s)
    parser.add_argument("--memory-gb", type=float, default=Limits().memory / 1e9)
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument(
        "--again",
        nargs="*",
        default=[],
        help="do anew what had such a status or is such a step, as fault or blocks, and what "
        "needs it",
    )
    parser.add_argument("--page", action="store_true", help="write the page of what there is")
    options = parser.parse_args(arguments)
    folder: Path = options.out
    networks = (
        read_candidates(folder / NETWORKS)
        if options.page
        else list(write_candidates(folder / NETWORKS, families(options.names)))
    )
    networks = networks if options.names else chosen(networks)
    rows = Rows.read(folder / ROWS)
    rows.forget(options.again, [network.network for network in networks])
    if not options.page:
        limits = Limits(options.time_s, int(options.memory_gb * 1e9))
        for steps in PASSES:
            steps = tuple(step for step in steps if step in options.steps)
            _measure(rows, networks, steps, options.side, limits, options.jobs)
    (folder / PAGE).write_text(page(networks, rows, str(provenance(COMMAND))))
    list_in_readme(folder, (PAGE, ROWS, NETWORKS), COMMAND)
    print(f"written: {folder / PAGE}")


def _measure(
    rows: Rows,
    networks: Sequence[Candidate],
    steps: Sequence[str],
    side: int | None,
    limits: Limits,
    jobs: int,
) -> None:
    """Do the steps that no row has, quick and small networks first."""
    commit = provenance(COMMAND).commit

    def measure(network: Candidate) -> None:
        left = rows.left(network.network, steps)
        image = network.at_most(side)
        for outcome in outcomes(network, image, left, limits):
            rows.add(network, image, outcome, commit)
            print(network.network, outcome.step, outcome.status, outcome.why, flush=True)

    order = sorted(
        networks, key=lambda network: (rows.seconds(network.network, ANALYZE) + 1) * network.params
    )
    waiting = iter(order)

    def measure_waiting() -> None:
        for network in waiting:
            measure(network)

    threads = [Thread(target=measure_waiting) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
