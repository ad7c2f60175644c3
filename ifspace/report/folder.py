"""A results folder: every file of ours in it, read and checked."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ifspace.catalogue import Catalogue, load
from ifspace.errors import SettingError
from ifspace.report.files import (
    BLOCKS,
    CATALOGUE,
    KERNELS,
    LATENCIES,
    SINGLE,
    Row,
    Source,
    foreign,
    read_rows,
)

BLOCKS_VERSION: Final = 1
PLAIN: Final = "plain"


@dataclass(frozen=True, slots=True)
class Measured:
    """A benchmark file: its device and its tidy rows, one number each."""

    device: str
    rows: tuple[Row, ...]


# What was measured where: the candidate, C, F and the stride.
Place = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Prediction:
    """How well a predictor of latencies does on blocks that it was not fitted to.

    `rank_correlation` and `median_error` (relative) are None where too few were judged.
    """

    mode: str
    predictor: str
    count: int
    rank_correlation: float | None
    median_error: float | None


@dataclass(frozen=True, slots=True)
class BlockBench(Measured):
    """A benchmark of blocks, with the source of what was measured, and how predictors did."""

    sources: Mapping[Place, str]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """What a results folder holds; what it does not hold is empty.

    `rows` are those of the files that there is one of, by the pattern of their source.
    """

    folder: Path
    catalogues: tuple[Catalogue, ...]
    rows: Mapping[str, tuple[Row, ...]]
    kernels: tuple[Measured, ...]
    blocks: tuple[BlockBench, ...]

    def of(self, source: Source) -> tuple[Row, ...]:
        """Return the rows of a file that there is one of; none when it is not there."""
        return self.rows.get(source.pattern, ())

    def has(self, source: Source) -> bool:
        """Return whether there is such a file, with something in it."""
        many: dict[str, Sequence[object]] = {
            CATALOGUE.pattern: self.catalogues,
            KERNELS.pattern: self.kernels,
            BLOCKS.pattern: self.blocks,
        }
        return bool(many.get(source.pattern) or self.of(source))


def read(folder: Path) -> Results:
    """Return what a results folder holds; files that are none of ours are let be.

    Raises: SettingError for a folder that is not there or holds nothing of ours, and for a file
        with a name of ours and something else in it; CatalogueError for a catalogue of another
        version or none at all.
    """
    if not folder.is_dir():
        raise SettingError.because(
            "no such results folder",
            got=folder,
            allowed="a folder with files that `make results` writes",
            remedy="check the name",
        )
    single = {
        source.pattern: read_rows(folder / source.pattern, source)
        for source in SINGLE
        if (folder / source.pattern).exists()
    }
    benches = sorted(folder.glob(BLOCKS.pattern))
    others = {*benches, *folder.glob(LATENCIES)}
    found = Results(
        folder,
        tuple(load(path) for path in sorted(folder.glob(CATALOGUE.pattern))),
        single,
        tuple(_measured(p) for p in sorted(folder.glob(KERNELS.pattern)) if p not in others),
        tuple(map(_blocks, benches)),
    )
    if not (found.catalogues or found.rows or found.kernels or found.blocks):
        raise SettingError.because(
            "nothing to report on",
            got=f"{folder}, without a file of ours",
            allowed="a folder with files that `make results` writes",
            remedy="check the name, or write a catalogue into it with "
            f"`{CATALOGUE.written_by(folder)}`",
        )
    return found


def _measured(path: Path, source: Source = KERNELS) -> Measured:
    rows = read_rows(path, source)
    devices = {row["device"] for row in rows}
    if len(devices) != 1:
        got = f"rows of {', '.join(sorted(devices))}" if devices else "no rows"
        raise foreign(path, f"{got}, where a file is of one device", source)
    return Measured(devices.pop(), rows)


def _blocks(path: Path) -> BlockBench:
    measured = _measured(path, BLOCKS)
    beside = path.with_suffix(".json")
    if not beside.exists():
        return BlockBench(measured.device, measured.rows, {}, ())
    about = _about(beside)
    try:
        sources = _sources(about["designs"])
        predictions = tuple(_predictions(about.get("model") or {}))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise foreign(beside, "designs or a model that make no sense", BLOCKS) from None
    return BlockBench(measured.device, measured.rows, sources, predictions)


def _sources(designs: Iterable[Mapping[str, Any]]) -> dict[Place, str]:
    """Return the source of every design; of several styles of one the plain, or else the first."""
    found: dict[Place, str] = {}
    # Older files say no style, and have the plain alone.
    for each in sorted(designs, key=lambda each: each.get("style", PLAIN) != PLAIN):
        place = (
            str(each["candidate"]),
            int(each["channels"]),
            int(each["out_channels"]),
            int(each["stride"]),
        )
        found.setdefault(place, str(each["source"]))
    return found


def _predictions(models: Mapping[str, Any]) -> Iterator[Prediction]:
    for mode, model in models.items():
        for predictor, errors in model["errors"].items():
            numbers = (errors["rank_correlation"], errors["median_error"])
            rank, error = (None if each is None else float(each) for each in numbers)
            yield Prediction(mode, predictor, int(errors["count"]), rank, error)


def _about(path: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise foreign(path, "no JSON, or only a part of it", BLOCKS) from None
    version = about.get("version") if isinstance(about, dict) else None
    if version != BLOCKS_VERSION:
        raise foreign(path, f"version {version}, not {BLOCKS_VERSION}", BLOCKS)
    found: Mapping[str, Any] = about
    return found
