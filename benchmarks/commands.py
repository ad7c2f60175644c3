"""How long whole commands take, from start to exit, with files warm.

`python -m benchmarks.commands` writes `commands.md` into `results/`; with `--models`, which
needs torch, `model-commands.md`: those that look at real networks.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from tabulate import tabulate

from benchmarks.measure import watch
from ifspace.bench.record import (
    list_in_readme,
    provenance,
    python,
)

REPEATS: Final = 7
# Command, and the seconds and MiB that it should stay below, where there is an aim.
TimedCommand = tuple[str, float | None, int | None]
COMMANDS: Final[tuple[TimedCommand, ...]] = (
    ("ifspace --help", 0.25, None),
    ("ifspace kinds", None, None),
    ("ifspace show 'DW+RPW(8,0)+GPW(8)' --channels 64", None, None),
    ("ifspace enumerate --max-len 6", 3.0, None),
    ("ifspace groups DW+RPW+SH+GPW --channels 256", None, None),
)
_RESNET50: Final = "resnet50 --input 3x224x224"
_MOBILENET_V2: Final = "torchvision:mobilenet_v2 --input 3x224x224"
MODEL_COMMANDS: Final[tuple[TimedCommand, ...]] = (
    ("ifspace analyze benchmarks/resnet101.py:resnet101 --input 3x224x224", 5.0, 2048),
    (f"ifspace analyze {_RESNET50}", None, 2048),
    (f"ifspace optimize {_RESNET50}", 20.0, 2048),
    (f"ifspace optimize {_RESNET50} --params 20M", 20.0, 2048),
    (f"ifspace optimize {_RESNET50} --block 'DW+RPW(2,1/2)'", 20.0, 2048),
    (f"ifspace optimize {_RESNET50} --cheapest --blocks-only", 20.0, 2048),
    # Widths, and 20 candidates for each of its pointwise layers.
    (f"ifspace optimize {_MOBILENET_V2} --params 60% --joint", 30.0, 2048),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the commands in turn and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", action="store_true", help="those with real networks")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    commands = MODEL_COMMANDS if options.models else COMMANDS
    times: dict[str, list[float]] = {command: [] for command, _, _ in commands}
    peaks = dict.fromkeys(times, 0.0)
    for turn in range(REPEATS + 1):
        for command in times:
            used = watch(python("-m", *shlex.split(command)))
            peaks[command] = max(peaks[command], used.peak_mib)
            if turn:  # the first turn warms the files
                times[command].append(used.seconds)
    rows = [
        [
            f"`{command}`",
            round(median(times[command]), 2),
            round(min(times[command]), 2),
            aim or "",
            round(peaks[command]),
            most or "",
        ]
        for command, aim, most in commands
    ]
    where = "python -m benchmarks.commands" + (" --models" if options.models else "")
    name = "model-commands.md" if options.models else "commands.md"
    options.out.mkdir(exist_ok=True)
    columns = ["command", "median s", "least s", "aim: below", "MiB", "aim: below"]
    (options.out / name).write_text(
        "\n\n".join(
            [
                "# How long whole commands take",
                f"Written by {provenance(where)}.",
                f"From start to exit, files warm, {REPEATS} times in turn.",
                tabulate(rows, columns, tablefmt="github"),
            ]
        )
        + "\n"
    )
    list_in_readme(options.out, [name], where)
    print(f"written: {options.out / name}")


if __name__ == "__main__":
    main()
