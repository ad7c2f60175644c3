"""What a run leaves in a folder of results: rows, designs with their model, a latency table."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from errno import ENOTDIR
from io import StringIO
from os import strerror
from pathlib import Path
from typing import Any, Final

from ifspace.bench.blocks.cases import Candidate, Conditions
from ifspace.bench.blocks.run import Run
from ifspace.bench.process import Provenance
from ifspace.catalogue.files import replacing
from ifspace.errors import OutputError, SettingError
from ifspace.nn.blocks import build
from ifspace.plan.latency import COLUMNS as LATENCY_COLUMNS
from ifspace.plan.latency import MOST_DIGITS
from ifspace.reach import field_after

VERSION: Final = 1
SOURCE: Final = "source"
MEASURED: Final = "measured"
MODELLED: Final = "predicted"


@dataclass(frozen=True, slots=True)
class Files:
    """The three files of a device in `bench/` of a folder of results.

    >>> Files(Path("results"), "nvidia-h200").rows.as_posix()
    'results/bench/blocks-nvidia-h200.csv'
    """

    results: Path
    device: str

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
        return self._named("latency", "csv")

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
                "results cannot be written", got=f"{folder} ({said})",
                allowed="a folder that can be made and written", remedy="choose another one",
            ) from None  # fmt: skip
        for path in (self.rows, self.designs, self.latency):
            with replacing(path, keep=False) as file:
                file.touch()


def write_designs(
    path: Path, run: Run, arguments: Mapping[str, Any], where: Provenance, kept: Iterable[Any] = ()
) -> None:  # fmt: skip
    """Write what was found right, with source and field, and the models by mode.

    `kept`: designs of earlier runs, which stay where they are not the same.
    """
    conditions, machine = run.asked.conditions, run.machine
    designs = {_what(each): each for each in kept}
    designs |= {_what(each): each for each in (_design(x, conditions) for x in run.checked)}
    values = {
        "version": VERSION,
        "arguments": dict(arguments),
        "provenance": {
            "command": where.command, "commit": where.commit, "machine": where.machine,
            "date": where.date, "device": machine.device, "torch": machine.torch,
            "triton": machine.triton,
        },
        "conditions": {
            "dtype": conditions.dtype, "layout": conditions.layout, "style": conditions.style,
            "threads": conditions.threads, "batch": run.asked.place.batch,
        },
        "designs": list(designs.values()),
        "model": {mode: each.to_json() for mode, each in run.models.items()},
    }  # fmt: skip
    with replacing(path) as file:
        file.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_designs(path: Path) -> list[Any]:
    """Return the designs of a file that `write_designs` wrote.

    Raises: SettingError for any other file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']}, not {VERSION}")
        designs = list(values["designs"])
        for each in designs:
            _what(each)
        return designs
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise SettingError.because(
            f"{path.name} cannot be resumed", got=said, allowed="a file that this command wrote",
            remedy="leave it out to measure all anew, or name another folder", argument="resume",
        ) from None  # fmt: skip


def _what(design: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(design[name] for name in ("candidate", "channels", "out_channels", "stride"))


def _design(candidate: Candidate, conditions: Conditions) -> dict[str, Any]:
    sized = candidate.sized
    module = build(sized, stride=candidate.stride, style=conditions.style, device="meta")
    inside = sized.bottleneck
    return {
        "composition": str(sized.block.composition), "block": str(sized.block),
        "candidate": candidate.name, "provider": candidate.provider,
        "channels": sized.channels, "out_channels": sized.out_channels,
        "bottleneck": None if inside is None else str(inside), "stride": candidate.stride,
        "params": sized.params, "macs_per_pixel": sized.macs_per_pixel(candidate.stride),
        "fields": [list(each) for each in field_after(sized)], "source": module.to_source(),
        "checked": True,
    }  # fmt: skip


class LatencyRows:
    """The rows of a latency table, each case once: as it was first measured, or else predicted."""

    def __init__(self, device: str, dtype: str) -> None:
        self._ends = device, dtype
        self._found: dict[tuple[Any, ...], tuple[float, str]] = {}

    def put(self, candidate: Candidate, milliseconds: float | None, source: str) -> None:
        """Add a latency; none for a block that has a bottleneck, which the table cannot say."""
        sized = candidate.sized
        if milliseconds is None or sized.bottleneck is not None:
            return
        case = (
            str(sized.block), sized.channels, sized.out_channels, candidate.side, candidate.stride,
            candidate.batch,
        )  # fmt: skip
        if case not in self._found or (source == MEASURED and self._found[case][1] != MEASURED):
            # A time of nothing is no latency: the least that the table can say.
            self._found[case] = max(milliseconds, 10.0**-MOST_DIGITS), source

    def __len__(self) -> int:
        return len(self._found)

    def write(self, path: Path) -> None:
        """Write the table, with a last column that says where a latency is from."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*LATENCY_COLUMNS, SOURCE])
        for case, (milliseconds, source) in self._found.items():
            writer.writerow([*case, *self._ends, f"{milliseconds:.{MOST_DIGITS}f}", source])
        with replacing(path) as file:
            file.write_text(text.getvalue(), encoding="utf-8")


def record(
    run: Run, files: Files, arguments: Mapping[str, Any], where: Provenance,
    kept: Iterable[Any] = (),
) -> tuple[Path, ...]:  # fmt: skip
    """Write what came of a run beside its rows; return the files."""
    write_designs(files.designs, run, arguments, where, kept)
    table = LatencyRows(run.machine.device, run.asked.conditions.dtype)
    for each, milliseconds in run.least_ms(run.measured):
        table.put(each, milliseconds, MEASURED)
    if run.models:
        for each in (*run.others(), *run.elsewhere()):
            table.put(each, run.predict(each), MODELLED)
    if not len(table):
        return files.rows, files.designs
    table.write(files.latency)
    return files.rows, files.designs, files.latency
