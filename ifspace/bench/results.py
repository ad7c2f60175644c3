"""What a run leaves in a folder of results: rows, designs with their model, a latency table."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ENOTDIR
from os import strerror
from pathlib import Path
from typing import Any, Final

from ifspace.bench.case import BlockCandidate, Conditions
from ifspace.bench.latency import CONDITIONS, EARLIER_HEADER, HEADER, LatencyRows
from ifspace.bench.record import Provenance
from ifspace.bench.session import BlockBench
from ifspace.catalogue import Catalogue, load, save
from ifspace.errors import CatalogueError, OutputError, SettingError
from ifspace.latency import MEASURED, MODELLED, read_latency
from ifspace.measurements import AS_IS
from ifspace.nn.block import build
from ifspace.nn.source import to_source
from ifspace.reach import field_after
from ifspace.storage import read_csv, read_text, reason, replacing
from ifspace.values import counted

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """The files of a device in `bench/` of a folder of results, and the catalogue beside them.

    A latency table is of one type and batch: each has a file of its own.

    >>> ResultFiles(Path("results"), "nvidia-h200", "bf16", 16).latency.as_posix()
    'results/bench/latency-nvidia-h200-bf16-batch16.csv'
    """

    results: Path
    device: str
    dtype: str
    batch: int

    @property
    def rows(self) -> Path:
        """The measurement rows."""
        return self.results / "bench" / f"blocks-{self.device}.csv"

    @property
    def designs(self) -> Path:
        """The measured designs with their PyTorch source, and the latency model."""
        return self.results / "bench" / f"blocks-{self.device}.json"

    @property
    def latency(self) -> Path:
        """The table for `ifspace layout --latency`."""
        name = f"latency-{self.device}-{self.dtype}-batch{self.batch}.csv"
        return self.results / "bench" / name

    def catalogue(self, catalogue: Catalogue) -> Path:
        """The file of a catalogue whose blocks were measured; catalogues of a width share it."""
        return self.results / "bench" / f"catalogue-{catalogue.settings[0].channels}.parquet"

    def written(self, catalogue: Catalogue) -> tuple[Path, ...]:
        """The files of a run that are there."""
        files = (self.rows, self.designs, self.latency, self.catalogue(catalogue))
        return tuple(path for path in files if path.exists())

    def keep(self, catalogue: Catalogue) -> None:
        """Keep a catalogue beside the rows, unless the results have it already.

        Raises: OutputError when it cannot be written.
        """
        path = self.catalogue(catalogue)
        for other in (*sorted(self.results.glob("catalogue-*.parquet")), path):
            with suppress(CatalogueError):
                if load(other) == catalogue:
                    return
        save(catalogue, path)

    def prepare(self) -> None:
        """Make the folder and try to write there, before the work.

        Raises: OutputError where nothing can be written.
        """
        folder = self.rows.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            is_file = isinstance(error, FileExistsError)
            raise OutputError.because(
                "results cannot be written",
                got=f"{folder} ({strerror(ENOTDIR) if is_file else error.strerror})",
                allowed="a folder that can be made and written",
                remedy="choose another one",
            ) from None
        for path in (self.rows, self.designs, self.latency):
            with replacing(path, keep=False) as file:
                file.touch()


@dataclass(frozen=True, slots=True)
class EarlierResults:
    """What earlier runs wrote: designs, models by mode, rows of the latency table.

    `dropped` counts rows of the table that hold under other conditions.
    """

    designs: tuple[Mapping[str, Any], ...] = ()
    models: Mapping[str, Any] = field(default_factory=dict)
    latencies: tuple[Mapping[str, str], ...] = ()
    dropped: int = 0

    @classmethod
    def read(cls, files: ResultFiles, conditions: Conditions) -> "EarlierResults":
        """Return the results in the files, of the latency table those under the conditions.

        Raises: SettingError for a file of something else.
        """
        designs: tuple[Mapping[str, Any], ...] = ()
        models: Mapping[str, Any] = {}
        if files.designs.exists():
            designs, models = _read_designs(files.designs)
        rows = _read_latencies(files.latency) if files.latency.exists() else ()
        alike = tuple(row for row in rows if row[CONDITIONS] == conditions_text(conditions))
        return cls(designs, models, alike, len(rows) - len(alike))


def conditions_text(conditions: Conditions) -> str:
    """Return what a latency depends on beside the columns of its table."""
    parts = [conditions.layout, f"{conditions.style} style"]
    if conditions.device.type == "cpu":
        parts.append(counted(conditions.threads, "thread"))
    return ", ".join(parts)


def write_results(
    bench: BlockBench,
    files: ResultFiles,
    arguments: Mapping[str, Any],
    provenance: Provenance,
    earlier: EarlierResults | None = None,
) -> tuple[Path, ...]:
    """Write designs, models and latencies of a run beside its rows, and those of earlier ones.

    The catalogue is kept there too. Return the files.
    """
    earlier = earlier or EarlierResults()
    _write_designs(files.designs, bench, arguments, provenance, earlier)
    files.keep(bench.catalogue)
    conditions = bench.settings.conditions
    table = LatencyRows(
        files.device, conditions.dtype, conditions_text(conditions), earlier.latencies
    )
    # Those of the calibration first: they were taken in the same rounds.
    for candidate, least_ms in bench.least_ms((*bench.calibration.candidates, *bench.shown)):
        table.put(candidate, least_ms, MEASURED)
    if bench.uses_model:
        for candidate in (*bench.predictable(), *bench.elsewhere()):
            table.put(candidate, bench.predict(candidate), MODELLED)
    if len(table):
        table.write(files.latency)
    return files.written(bench.catalogue)


def _write_designs(
    path: Path,
    bench: BlockBench,
    arguments: Mapping[str, Any],
    provenance: Provenance,
    earlier: EarlierResults,
) -> None:
    """Write what passed the gate, with source and field, and the models by mode.

    Designs of earlier runs stay where they are not the same, models where there is no new one.
    """
    conditions, machine = bench.settings.conditions, bench.machine
    shared = {
        "dtype": conditions.dtype,
        "layout": conditions.layout,
        "style": conditions.style,
        "threads": conditions.threads,
        "batch": bench.settings.shape.batch,
        "side": bench.settings.shape.side,
    }
    here = [candidate for candidate in bench.passed_here if candidate.form == AS_IS]
    records = (*earlier.designs, *(_design_record(x, conditions) for x in here))
    models = {mode: model.record() | {"conditions": shared} for mode, model in bench.models.items()}
    values = {
        "version": VERSION,
        "arguments": dict(arguments),
        "provenance": {
            "command": provenance.command,
            "commit": provenance.commit,
            "machine": provenance.machine,
            "date": provenance.date,
            "device": machine.device,
            "torch": machine.torch,
            "triton": machine.triton,
        },
        "conditions": shared,
        "designs": list({_design_key(record): record for record in records}.values()),
        "model": {**earlier.models, **models},
    }
    with replacing(path) as file:
        file.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _design_key(design: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("candidate", "channels", "out_channels", "stride", "style")
    return tuple(design[name] for name in names)


def _design_record(candidate: BlockCandidate, conditions: Conditions) -> dict[str, Any]:
    sized = candidate.sized
    module = build(sized, stride=candidate.stride, style=conditions.style, device="meta")
    return {
        "composition": str(sized.block.composition),
        "block": str(sized.block),
        "candidate": candidate.name,
        "provider": candidate.provider,
        "channels": sized.channels,
        "out_channels": sized.out_channels,
        "bottleneck": None if sized.bottleneck is None else str(sized.bottleneck),
        "stride": candidate.stride,
        "params": sized.params,
        "macs_per_pixel": sized.macs_per_pixel(candidate.stride),
        "fields": [list(size) for size in field_after(sized)],
        "source": to_source(module),
        "style": conditions.style,
        "checked": True,
    }


def _read_designs(path: Path) -> tuple[tuple[Mapping[str, Any], ...], Mapping[str, Any]]:
    """Return the designs and models of a file that `_write_designs` wrote."""
    try:
        values = json.loads(read_text(path))
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']}, not {VERSION}")
        designs = tuple(values["designs"])
        for design in designs:
            _design_key(design)
        return designs, dict(values["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise _foreign(path, text) from None


def _read_latencies(path: Path) -> tuple[Mapping[str, str], ...]:
    """Return the rows of a file that `LatencyRows.write` wrote."""
    try:
        read_latency(path)
        table = read_csv(path)
    except SettingError as error:
        raise _foreign(path, str(error)) from None
    if table.columns not in (HEADER, EARLIER_HEADER):
        raise _foreign(path, "other columns")
    return tuple(row for _, row in table.rows)


def _foreign(path: Path, got: str) -> SettingError:
    return SettingError.because(
        f"{path.name} cannot be added to",
        got=got,
        allowed="a file that this command wrote",
        remedy="move it away, or name another folder",
        argument="results",
    )
