"""How long whole commands take, from start to exit, with files warm.

`python -m ifspace.bench.commands` writes `commands.md` into `results/`.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from tabulate import tabulate

from ifspace.bench.process import provenance, python, watch
from ifspace.bench.record import note

REPEATS: Final = 7
# Command and the seconds that it should stay below, where there is an aim.
COMMANDS: Final = (
    ("ifspace --help", 0.25),
    ("ifspace kinds", None),
    ("ifspace show 'DW+RPW(8,0)+GPW(8)' --channels 64", None),
    ("ifspace enumerate --max-len 6", 3.0),
    ("ifspace groups DW+RPW+SH+GPW --channels 256", None),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the commands in turn and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    times: dict[str, list[float]] = {command: [] for command, _ in COMMANDS}
    peaks = dict.fromkeys(times, 0.0)
    for turn in range(REPEATS + 1):
        for command, _ in COMMANDS:
            used = watch(python("-m", *shlex.split(command)))
            peaks[command] = max(peaks[command], used.peak_mib)
            if turn:  # the first turn warms the files
                times[command].append(used.seconds)
    rows = [
        [f"`{command}`", round(median(times[command]), 2), round(min(times[command]), 2),
         aim or "", round(peaks[command])]
        for command, aim in COMMANDS
    ]  # fmt: skip
    where = "python -m ifspace.bench.commands"
    options.out.mkdir(exist_ok=True)
    (options.out / "commands.md").write_text(
        "\n\n".join(
            [
                "# How long whole commands take",
                f"Written by {provenance(where)}.",
                f"From start to exit, files warm, {REPEATS} times in turn.",
                tabulate(rows, ["command", "median s", "least s", "aim: below", "MiB"],
                         tablefmt="github"),
            ]
        )
        + "\n"
    )  # fmt: skip
    note(options.out, ["commands.md"], where)
    print(f"written: {options.out / 'commands.md'}")


if __name__ == "__main__":
    main()
