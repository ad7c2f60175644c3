"""What a run leaves in a folder of results: rows, designs with their model, a latency table."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from errno import ENOTDIR
from io import StringIO
from os import strerror
from pathlib import Path
from typing import Any, Final

from ifspace.bench.blocks import (
    Candidate,
    Conditions,
)
from ifspace.bench.record import Provenance
from ifspace.bench.session import Run
from ifspace.errors import OutputError, SettingError
from ifspace.nn.block import build
from ifspace.nn.source import to_source
from ifspace.reach import field_after
from ifspace.stages.latency import COLUMNS as LATENCY_COLUMNS
from ifspace.stages.latency import (
    MOST_DIGITS,
    read_latency,
)
from ifspace.storage import replacing

VERSION: Final = 1
SOURCE: Final = "source"
MEASURED: Final = "measured"
MODELLED: Final = "predicted"
CONDITIONS: Final = "conditions"


@dataclass(frozen=True, slots=True)
class Files:
    """The three files of a device in `bench/` of a folder of results.

    A latency table is of one type and batch: each has a file of its own.

    >>> Files(Path("results"), "nvidia-h200", "bf16", 16).latency.as_posix()
    'results/bench/latency-nvidia-h200-bf16-batch16.csv'
    """

    results: Path
    device: str
    dtype: str
    batch: int

    @property
    def rows(self) -> Path:
        """The measurement rows."""
        return self._named("blocks", "csv")

    @property
    def designs(self) -> Path:
        """What was measured, with its PyTorch source, and the latency model."""
        return self._named("blocks", "json")

    @property
    def latency(self) -> Path:
        """The table for `ifspace layout --latency`."""
        ends = f"{self.device}-{self.dtype}-batch{self.batch}"
        return self.results / "bench" / f"latency-{ends}.csv"

    def _named(self, start: str, suffix: str) -> Path:
        return self.results / "bench" / f"{start}-{self.device}.{suffix}"

    def prepare(self) -> None:
        """Make the folder and try it, before the work.

        Raises: OutputError where nothing can be written.
        """
        folder = self.rows.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = strerror(ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
            raise OutputError.because(
                "results cannot be written",
                got=f"{folder} ({said})",
                allowed="a folder that can be made and written",
                remedy="choose another one",
            ) from None
        for path in (self.rows, self.designs, self.latency):
            with replacing(path, keep=False) as file:
                file.touch()


@dataclass(frozen=True, slots=True)
class Earlier:
    """What earlier runs wrote: designs, models by mode, rows of the latency table.

    `dropped` counts rows of the table that hold under other conditions.
    """

    designs: tuple[Mapping[str, Any], ...] = ()
    models: Mapping[str, Any] = field(default_factory=dict)
    latencies: tuple[Mapping[str, str], ...] = ()
    dropped: int = 0


def earlier(files: Files, conditions: Conditions) -> Earlier:
    """Return what is there already, of the latency table what holds under the conditions.

    Raises: SettingError for a file of something else.
    """
    designs: tuple[Mapping[str, Any], ...] = ()
    models: Mapping[str, Any] = {}
    if files.designs.exists():
        designs, models = _read_designs(files.designs)
    rows = _read_latencies(files.latency) if files.latency.exists() else ()
    alike = tuple(row for row in rows if row[CONDITIONS] == _words(conditions))
    return Earlier(designs, models, alike, len(rows) - len(alike))


def _words(conditions: Conditions) -> str:
    """Return what a latency hangs on beside the columns of the table."""
    words = [conditions.layout, f"{conditions.style} style"]
    if conditions.device.type == "cpu":
        words.append(f"{conditions.threads} threads")
    return ", ".join(words)


def write_designs(
    path: Path, run: Run, arguments: Mapping[str, Any], where: Provenance, kept: Earlier
) -> None:
    """Write what was found right, with source and field, and the models by mode.

    Designs of earlier runs stay where they are not the same, models where there is no new one.
    """
    conditions, machine = run.asked.conditions, run.machine
    said = {
        "dtype": conditions.dtype,
        "layout": conditions.layout,
        "style": conditions.style,
        "threads": conditions.threads,
        "batch": run.asked.place.batch,
    }
    designs = {_what(each): each for each in kept.designs}
    designs |= {_what(each): each for each in (_design(x, conditions) for x in run.checked)}
    values = {
        "version": VERSION,
        "arguments": dict(arguments),
        "provenance": {
            "command": where.command,
            "commit": where.commit,
            "machine": where.machine,
            "date": where.date,
            "device": machine.device,
            "torch": machine.torch,
            "triton": machine.triton,
        },
        "conditions": said,
        "designs": list(designs.values()),
        "model": {
            **kept.models,
            **{mode: each.to_json() | {"conditions": said} for mode, each in run.models.items()},
        },
    }
    with replacing(path) as file:
        file.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_designs(path: Path) -> tuple[tuple[Mapping[str, Any], ...], Mapping[str, Any]]:
    """Return the designs and models of a file that `write_designs` wrote."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']}, not {VERSION}")
        designs = tuple(values["designs"])
        for each in designs:
            _what(each)
        return designs, dict(values["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise _foreign(path, said) from None


def _read_latencies(path: Path) -> tuple[Mapping[str, str], ...]:
    """Return the rows of a file that `LatencyRows.write` wrote."""
    try:
        read_latency(path)
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != (*LATENCY_COLUMNS, SOURCE, CONDITIONS):
                raise _foreign(path, "other columns")
            return tuple(reader)
    except SettingError as error:
        raise _foreign(path, str(error)) from None


def _foreign(path: Path, got: str) -> SettingError:
    return SettingError.because(
        f"{path.name} cannot be added to",
        got=got,
        allowed="a file that this command wrote",
        remedy="move it away, or name another folder",
        argument="results",
    )


def _what(design: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("candidate", "channels", "out_channels", "stride", "style")
    return tuple(design[name] for name in names)


def _design(candidate: Candidate, conditions: Conditions) -> dict[str, Any]:
    sized = candidate.sized
    module = build(sized, stride=candidate.stride, style=conditions.style, device="meta")
    inside = sized.bottleneck
    return {
        "composition": str(sized.block.composition),
        "block": str(sized.block),
        "candidate": candidate.name,
        "provider": candidate.provider,
        "channels": sized.channels,
        "out_channels": sized.out_channels,
        "bottleneck": None if inside is None else str(inside),
        "stride": candidate.stride,
        "params": sized.params,
        "macs_per_pixel": sized.macs_per_pixel(candidate.stride),
        "fields": [list(each) for each in field_after(sized)],
        "source": to_source(module),
        "style": conditions.style,
        "checked": True,
    }


class LatencyRows:
    """The rows of a latency table, each case once: as it was first measured, or else predicted.

    `conditions`: what else they hold under. Rows of earlier runs under the same ones stay, unless
    there is a new one of the case; what was measured gives way to no prediction.
    """

    def __init__(
        self,
        device: str,
        dtype: str,
        conditions: str = "",
        kept: Iterable[Mapping[str, str]] = (),
    ) -> None:
        self._ends, self._conditions = (device, dtype), conditions
        self._found: dict[tuple[Any, ...], tuple[float, str]] = {}
        self._kept: dict[tuple[Any, ...], tuple[float, str]] = {}
        for row in kept:
            numbers = (int(row[name]) for name in LATENCY_COLUMNS[1:6])
            self._kept[(row["block"], *numbers)] = float(row["latency_ms"]), row[SOURCE]

    def put(self, candidate: Candidate, milliseconds: float | None, source: str) -> None:
        """Add a latency; none for a block that has a bottleneck, which the table cannot say."""
        sized = candidate.sized
        if milliseconds is None or sized.bottleneck is not None:
            return
        case = (
            str(sized.block),
            sized.channels,
            sized.out_channels,
            candidate.side,
            candidate.stride,
            candidate.batch,
        )
        if case not in self._found or (source == MEASURED and self._found[case][1] != MEASURED):
            # A time of nothing is no latency: the least that the table can say.
            self._found[case] = max(milliseconds, 10.0**-MOST_DIGITS), source

    def __len__(self) -> int:
        return len(self._found)

    @property
    def _every(self) -> dict[tuple[Any, ...], tuple[float, str]]:
        stays = {
            case: row
            for case, row in self._kept.items()
            if row[1] == MEASURED and self._found.get(case, row)[1] == MODELLED
        }
        return {**self._kept, **self._found, **stays}

    def write(self, path: Path) -> None:
        """Write the table, with a last column that says where a latency is from."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*LATENCY_COLUMNS, SOURCE, CONDITIONS])
        for case, (milliseconds, source) in self._every.items():
            latency = f"{milliseconds:.{MOST_DIGITS}f}"
            writer.writerow([*case, *self._ends, latency, source, self._conditions])
        with replacing(path) as file:
            file.write_text(text.getvalue(), encoding="utf-8")


def record(
    run: Run,
    files: Files,
    arguments: Mapping[str, Any],
    where: Provenance,
    kept: Earlier | None = None,
) -> tuple[Path, ...]:
    """Write what came of a run beside its rows, and what is `kept` of earlier ones.

    Return the files.
    """
    kept = kept or Earlier()
    write_designs(files.designs, run, arguments, where, kept)
    conditions = run.asked.conditions
    table = LatencyRows(files.device, conditions.dtype, _words(conditions), kept.latencies)
    # Those of the calibration first: they were taken in the same rounds.
    sampled = (*run.calibration.fit, *run.calibration.sample)
    for each, milliseconds in run.least_ms((*sampled, *run.shown)):
        table.put(each, milliseconds, MEASURED)
    if run.models:
        for each in (*run.others(), *run.elsewhere()):
            table.put(each, run.predict(each), MODELLED)
    if not len(table):
        return files.rows, files.designs
    table.write(files.latency)
    return files.rows, files.designs, files.latency
