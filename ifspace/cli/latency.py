"""`--latency` of the commands: its options, and what it reads."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import Command, OneOf, WholeNumber, shared
from ifspace.cli.requirements import TORCH, check_installed
from ifspace.values import MAX_BATCH

if TYPE_CHECKING:
    from ifspace.block import SizedBlock
    from ifspace.latency import Latency, LatencySource

MODEL_SUFFIX: Final = ".json"
HELP: Final = (
    "Latencies: a model of `ifspace bench` (results/bench/blocks-DEVICE.json), or a CSV table with "
    "the columns block, C, F, side, stride, batch, device, dtype, latency_ms."
)
# What tables put before a time that is extrapolated, and the note that says so.
MARK: Final = "~"
NONE_NOTE: Final = "none of these is in --latency, which has other blocks, widths, sides or strides"
MARK_NOTE: Final = "~: outside the shapes that the latency model was fitted on"


def latency_options(text: str = "", dtype: bool = True) -> tuple[Callable[[Command], Command], ...]:
    """Return `--latency` and the options that say which latencies are asked for.

    The command gets them as `latency`, `batch`, `device` and, unless it has a `dtype` for other
    ends too, `dtype`; `text` is added to the help.
    """
    options = (
        shared("latency", help=f"{HELP} {text}".rstrip()),
        click.option(
            "--batch",
            type=WholeNumber(1, MAX_BATCH),
            metavar="N",
            help="With --latency: the images in a batch that it must be of.",
        ),
        click.option("--device", metavar="NAME", help="With --latency: the device it must be of."),
        click.option(
            "--dtype",
            type=OneOf(["fp32", "tf32", "bf16", "fp16", "int8"]),
            help="With --latency: the type of the numbers that it must be of.",
        ),
    )
    return options if dtype else options[:-1]


def read_latencies(
    path: Path | None,
    batch: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> "LatencySource | None":
    """Return the latencies in a file: a model where it ends in .json, a table otherwise.

    None without a file.

    Raises: SettingError for a file of something else, or latencies of another batch, device or
        type; ClickException where a model cannot be read without packages that are missing.
    """
    from ifspace.errors import SettingError
    from ifspace.latency import check_conditions, read_latency

    if path is None:
        for name, value in (("batch", batch), ("device", device), ("dtype", dtype)):
            if value is not None:
                raise SettingError.because(
                    "nothing is timed",
                    got=f"--{name} without --latency",
                    allowed="both or neither",
                    remedy="add --latency MODEL",
                )
        return None
    source: LatencySource
    if path.suffix.lower() == MODEL_SUFFIX:
        check_installed(
            {**TORCH, "ortools": "solver", "psutil": "bench", "scipy": "bench"},
            "latencies are predicted with these packages",
            extras="bench",
        )
        from ifspace.bench.predict import LatencyPredictor

        source = LatencyPredictor.read(path)
    else:
        source = read_latency(path)
    check_conditions(source, device, dtype, batch)
    return source


@dataclass(frozen=True, slots=True)
class LatencyColumns:
    """The columns of latencies beside rows; None for a row without one.

    `latencies` is None where none are asked for: there are no columns then.
    """

    latencies: Sequence["Latency | None"] | None

    @property
    def plain(self) -> dict[str, list[Any]]:
        """The columns of files, by name."""
        if self.latencies is None:
            return {}
        rows = [
            (None, None, None)
            if latency is None
            else (rounded(latency), latency.form, latency.extrapolated)
            for latency in self.latencies
        ]
        names = ("latency_ms", "form", "extrapolated")
        return {name: [row[index] for row in rows] for index, name in enumerate(names)}

    @property
    def shown(self) -> dict[str, list[Any]]:
        """The columns of tables, by header: the times marked where they are extrapolated."""
        plain = self.plain
        if not plain:
            return {}
        times = [
            f"{MARK}{ms}" if extrapolated else ms
            for ms, extrapolated in zip(plain["latency_ms"], plain["extrapolated"], strict=True)
        ]
        return {">latency ms": times, "form": plain["form"]}

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the times that are shown."""
        latencies = self.latencies or ()
        if latencies and not any(latencies):
            return (NONE_NOTE,)
        return (MARK_NOTE,) if any(x and x.extrapolated for x in latencies) else ()


def latency_notes(
    source: "LatencySource", side: int | None, cases: Iterable[tuple["SizedBlock", int]]
) -> tuple[str, ...]:
    """Return what to know of the latencies of blocks, each with its stride.

    What they hold under, those that are extrapolated, and how many blocks have none, and why.
    `side`: as of `ifspace.latency.at_side`.
    """
    return notes_at_sides(
        source,
        (
            (block, source.side_of(block, stride) if side is None else side, stride)
            for block, stride in cases
        ),
    )


def notes_at_sides(
    source: "LatencySource", cases: Iterable[tuple["SizedBlock", int | None, int]]
) -> tuple[str, ...]:
    """Return the same of blocks with the side of their output in pixels and their stride.

    A side is None where no block of its widths was measured.
    """
    from ifspace.latency import bench_command, shape_text
    from ifspace.values import listed

    # One that is measured, one that is extrapolated and one that is not known say it all.
    latencies: dict[bool | None, Latency | None] = {}
    count, unknown = 0, 0
    lacking: set[str] = set()
    shapes: dict[str, None] = {}
    for block, pixels, stride in cases:
        count += 1
        latency = None if pixels is None else source.find(block, pixels, stride)
        latencies.setdefault(None if latency is None else latency.extrapolated, latency)
        if latency is not None:
            continue
        unknown += 1
        if pixels is not None:
            lacking |= source.lacks(block, pixels, stride)
            if (block.channels, block.out_channels, pixels, stride) not in source.shapes:
                shapes.setdefault(shape_text(block, pixels, stride))
    notes = [source.about]
    if any(latencies.values()) or not lacking:
        notes += LatencyColumns(list(latencies.values())).notes
    if lacking or 0 < unknown < count:
        reason = ""
        if lacking:
            reason = f": the model has no time for {listed(sorted(lacking))}"
            # The way of `ifspace.kernels.costs.COMPILED`, which older files do not have.
            if any(name.endswith(" compiled") for name in lacking):
                reason += ": it was fitted before the compiled kernels"
            reason += "; run `ifspace bench` again"
        verb = "has" if unknown == 1 else "have"
        notes.append(f"{unknown:,} of {count:,} blocks {verb} no latency{reason}")
    if shapes and not lacking:
        notes.append(f"shapes that --latency lacks are measured by `{bench_command(shapes)}`")
    return tuple(notes)


def rounded(latency: "Latency") -> float:
    """Return the milliseconds as they are shown, with three digits."""
    return float(f"{float(latency.ms):.3g}")
