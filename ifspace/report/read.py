"""A results folder: which files it may hold, what wrote them, how they are read and checked."""

import csv
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ifspace.catalogue import Catalogue
from ifspace.catalogue.lazily import load_shown
from ifspace.catalogue.shards import MANIFEST, Shards
from ifspace.catalogue.shards import PARTS as PARTS_OF_RUN
from ifspace.errors import SettingError
from ifspace.measurements import ADDED, CELLS
from ifspace.storage import read_csv, read_text, reason

Row = Mapping[str, Any]
# What the text of a cell means; raises ValueError for a text that means nothing.
Reader = Callable[[str], Any]


def whole(text: str) -> int:
    """Return a whole number, which may have commas between thousands.

    >>> whole("1,344")
    1344
    """
    return int(text.replace(",", ""))


def number(text: str) -> float:
    """Return a finite number, which may have commas between thousands."""
    value = float(text.replace(",", ""))
    if value - value != 0:
        raise ValueError(text)
    return value


def numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers between spaces.

    >>> numbers("5 4 2")
    (5, 4, 2)
    """
    return tuple(map(int, text.split()))


def maybe(reader: Reader) -> Reader:
    """Return the reader of a column whose cells may be empty: None.

    >>> maybe(whole)("") is None, maybe(whole)("7")
    (True, 7)
    """
    return lambda text: None if text == "" else reader(text)


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of file: the pattern of its name below the folder, the command that writes it.

    `command` has FOLDER where the results folder is named. `columns` says how the columns that
    the report shows are read; a file may have more. `name` is the pattern for readers. Nobody
    misses an `optional` one.
    """

    pattern: str
    command: str
    columns: Mapping[str, Reader] = field(default_factory=dict)
    device: bool = False
    optional: bool = False

    @property
    def name(self) -> str:
        """The name of such a file, with a placeholder for what differs.

        >>> CATALOGUE.name, KERNELS.name, BLOCKS.name
        ('catalogue-WIDTH.parquet', 'bench/DEVICE.csv', 'bench/blocks-DEVICE.csv')
        """
        return self.pattern.replace("*", "DEVICE" if self.device else "WIDTH")

    def written_by(self, folder: Path) -> str:
        """Return the command that writes it into a results folder.

        >>> BLOCKS.written_by(Path("my results"))
        "ifspace bench --results 'my results'"
        """
        return " ".join(
            shlex.quote(word.replace("FOLDER", str(folder))) for word in self.command.split()
        )

    def folder_of(self, path: Path) -> Path:
        """Return the results folder that such a file is in.

        >>> BLOCKS.folder_of(Path("a/bench/blocks-cpu.csv")).as_posix()
        'a'
        """
        return path.parents[len(Path(self.pattern).parts) - 1]


CATALOGUE: Final = Source(
    "catalogue-*.parquet", "ifspace enumerate --out FOLDER/catalogue-64.parquet"
)
FRONT: Final = Source("front-*.parquet", "ifspace enumerate --front --out FOLDER/front-64.parquet")
GROUPS: Final = Source(
    "groups-study.csv",
    "python -m experiments.groups_study --catalogue FOLDER/catalogue-64.parquet --out FOLDER",
    {
        "composition": str,
        "C": whole,
        "F": whole,
        "K": maybe(whole),
        "block": str,
        "params": whole,
        "layers": whole,
    },
)
STAGES: Final = Source(
    "stages-bench.csv",
    "python -m benchmarks.stages --out FOLDER",
    {
        "table": str,
        "params": maybe(whole),
        "macs": maybe(whole),
        "layers": maybe(whole),
        "status": str,
        "gain": maybe(number),
        "bound": maybe(number),
        "depths": numbers,
        "widths": str,
        "blocks": str,
        "network": str,
        "side": maybe(whole),
        "layout": str,
        "best by params and MACs": maybe(number),
        "params and MACs: depths": numbers,
        "best by params alone": maybe(number),
        "params alone: depths": numbers,
    },
)
PLANS: Final = Source(
    "layout-*.json",
    "ifspace layout --network vgg16 --out FOLDER/layout-vgg16.json",
    optional=True,
)
TRAJECTORIES: Final = Source(
    "trajectories.csv",
    "python -m experiments.reproduction --out FOLDER",
    {
        "network": str,
        "side": whole,
        "step": whole,
        "move": str,
        "depths": numbers,
        "sides": numbers,
        "gain": number,
        "params": whole,
        "macs": whole,
        "published": str,
    },
)
ENERGY: Final = Source(
    "energy-bench.csv",
    "python -m benchmarks.energy --out FOLDER",
    {
        "layers": str,
        "budget": whole,
        "top": whole,
        "best widths": numbers,
        "energy": number,
        "params": whole,
        "depth": whole,
        "width sum": whole,
        "exact s": number,
    },
)
RANKS: Final = Source(
    "energy-ranks.csv",
    "python -m experiments.reproduction --out FOLDER",
    {
        "budget": whole,
        "units": numbers,
        "widths": numbers,
        "energy": number,
        "rank": whole,
        "layouts": whole,
        "paper": str,
    },
)
VERDICTS: Final = Source(
    "reproduction.csv",
    "python -m experiments.reproduction --out FOLDER",
    {"table": str, "rows": whole, "match": whole, "misprint": whole},
)
# The tidy rows of every benchmark: one number a row, one device a file.
_READERS: Final[Mapping[type[Any], Reader]] = {str: str, int: maybe(whole), float: maybe(number)}
MEASURED: Final = {name: _READERS[kind] for name, kind in CELLS.items()}
BLOCKS: Final = Source(
    "bench/blocks-*.csv", "ifspace bench --results FOLDER", MEASURED, device=True
)
KERNELS: Final = Source(
    "bench/*.csv", "python -m ifspace.bench.kernels --out FOLDER/bench", MEASURED, device=True
)
# What is beside the rows of blocks: their designs, and the latency model.
_BESIDE_BLOCKS: Final = "bench/blocks-*.json"
# Files with data; those with text and drawings are for people.
_DATA: Final = (".csv", ".json", ".parquet")
# How the list of files with data that no part of the report shows begins.
NOT_SHOWN: Final = "files that no part of the report shows"
# What `ifspace bench` keeps of the catalogue whose blocks it timed.
BENCHED: Final = "bench/catalogue-*.parquet"
# In the folder of the benchmarks, but a table for `ifspace layout --latency`.
LATENCIES: Final = "bench/latency-*.csv"
# One file each, under one name.
SINGLE: Final = (GROUPS, STAGES, TRAJECTORIES, ENERGY, RANKS, VERDICTS)


def read_rows(path: Path, source: Source) -> tuple[Row, ...]:
    """Return the rows of a CSV file with the cells of its known columns read.

    Raises: SettingError for a file that cannot be read, lacks a column, or has a cell that is not
        what the column holds.
    """
    try:
        table = read_csv(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise foreign(path, reason(error), source) from None
    columns = (*table.columns, *ADDED)
    if missing := [name for name in source.columns if name not in columns]:
        raise foreign(path, f"no column {', '.join(missing)}", source)
    return tuple(_read(path, line, row, source) for line, row in table.rows)


def _read(path: Path, line: int, row: Mapping[str, str], source: Source) -> Row:
    cells = {}
    for name, reader in source.columns.items():
        text = row[name] if name in row else ADDED[name]
        try:
            cells[name] = reader(text)
        except ValueError:
            raise foreign(path, f"line {line}: {name} {text!r}", source) from None
    return cells


def foreign(path: Path, got: str, source: Source) -> SettingError:
    """Return the error for a file with a known name and other contents."""
    return SettingError.because(
        f"{path.name} is not a file of results that can be read",
        got=got,
        allowed="what its command writes",
        remedy=f"write it anew by `{source.written_by(source.folder_of(path))}`, or take it out of "
        "the folder",
    )


BLOCKS_VERSION: Final = 1
PLAIN: Final = "plain"


@dataclass(frozen=True, slots=True)
class PlannedLayout:
    """The first plan of a file of `ifspace layout`: its name, and what each stage has.

    A stage has width, depth, params and macs, and latency_ms where it is known.
    """

    name: str
    objective: str
    stages: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A benchmark file: its device and its tidy rows, one number each."""

    device: str
    rows: tuple[Row, ...]


# What was measured where: the candidate, C, F and the stride.
Place = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Prediction:
    """How well a predictor of latencies does on held-out blocks.

    `rank_correlation` and `median_error` (relative) are None where too few were judged.
    """

    mode: str
    predictor: str
    count: int
    rank_correlation: float | None
    median_error: float | None


@dataclass(frozen=True, slots=True)
class BlockTimes(Measured):
    """A benchmark of blocks, with the source of what was measured, and how predictors did."""

    sources: Mapping[Place, str]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """What a results folder holds; missing files are empty.

    `rows` are those of the files of which there is one, by the pattern of their source;
    `unrecognised` are names of files with data that no part shows; `fronts` are the catalogues that
    were made with `--front`, `plans` the layouts that were found.
    """

    folder: Path
    catalogues: tuple[Catalogue, ...]
    rows: Mapping[str, tuple[Row, ...]]
    kernels: tuple[Measured, ...]
    blocks: tuple[BlockTimes, ...]
    unrecognised: tuple[str, ...] = ()
    fronts: tuple[Catalogue, ...] = ()
    plans: tuple[PlannedLayout, ...] = ()

    def of(self, source: Source) -> tuple[Row, ...]:
        """Return the rows of a file of which there is one; none when it is missing."""
        return self.rows.get(source.pattern, ())

    def has(self, source: Source) -> bool:
        """Return whether there is such a file, with something in it."""
        many: dict[str, Sequence[object]] = {
            CATALOGUE.pattern: self.catalogues,
            FRONT.pattern: self.fronts,
            PLANS.pattern: self.plans,
            KERNELS.pattern: self.kernels,
            BLOCKS.pattern: self.blocks,
        }
        return bool(many.get(source.pattern) or self.of(source))


def read(folder: Path) -> Results:
    """Return what a results folder holds; of unrecognised files the names alone.

    The folder of a run in parts is one with its catalogue alone.

    Raises: SettingError for a folder that does not exist or holds no known file, and for a file
        with a known name and other contents; CatalogueError for a catalogue that is damaged or of
        another version.
    """
    if not folder.is_dir():
        raise SettingError.because(
            "a file, not a results folder" if folder.exists() else "no such results folder",
            got=folder,
            allowed="a folder with files that `make results` writes, or that of a run in parts",
            remedy="give the folder that it is in" if folder.exists() else "check the name",
        )
    single = {
        source.pattern: read_rows(folder / source.pattern, source)
        for source in SINGLE
        if (folder / source.pattern).exists()
    }
    benches = sorted(folder.glob(BLOCKS.pattern))
    listed_files = {*benches, *folder.glob(LATENCIES)}
    results = Results(
        folder,
        tuple(_catalogues(folder)),
        single,
        tuple(_measured(p) for p in sorted(folder.glob(KERNELS.pattern)) if p not in listed_files),
        tuple(map(_blocks, benches)),
        tuple(_unrecognised(folder)),
        tuple(map(_front, _places(folder, FRONT.pattern))),
        tuple(map(_plan, sorted(folder.glob(PLANS.pattern)))),
    )
    if not any(results.has(source) for part in PARTS for source in part.sources):
        raise SettingError.because(
            "nothing to report on",
            got=f"{folder}, without a known file",
            allowed="a folder with files that `make results` writes",
            remedy="check the name, or write a catalogue into it with "
            f"`{CATALOGUE.written_by(folder)}`",
        )
    return results


def _unrecognised(folder: Path) -> Iterator[str]:
    """Yield the names of files with data that no source has, below the folder."""
    sources = (CATALOGUE, FRONT, PLANS, *SINGLE, KERNELS)
    patterns = (*(source.pattern for source in sources), BENCHED, LATENCIES, _BESIDE_BLOCKS)
    if (folder / MANIFEST).exists():
        patterns = (*patterns, MANIFEST, PARTS_OF_RUN)
    recognised = {path for pattern in patterns for path in folder.glob(pattern)}
    for place in (folder, folder / "bench"):
        for path in sorted(place.glob("*")):
            if path.suffix in _DATA and path not in recognised and path.is_file():
                yield path.relative_to(folder).as_posix()


def _catalogues(folder: Path) -> Iterator[Catalogue]:
    """Yield the catalogues, and of those that were benchmarked the ones that add a setting."""
    settings: set[object] = set()
    for pattern in (CATALOGUE.pattern, BENCHED):
        for path in _places(folder, pattern):
            catalogue = load_shown(path)
            if pattern == CATALOGUE.pattern or not settings.issuperset(catalogue.settings):
                yield catalogue
            settings.update(catalogue.settings)


def _places(folder: Path, pattern: str) -> list[Path]:
    """Return the catalogues of a pattern: files, and folders of runs, whose names lack its end.

    A folder that is that of a run is one of them, a catalogue or a front.
    """
    runs = (path.parent for path in folder.glob(f"{pattern.removesuffix('.parquet')}/{MANIFEST}"))
    places = sorted([*folder.glob(pattern), *runs])
    if (folder / MANIFEST).exists() and pattern in (CATALOGUE.pattern, FRONT.pattern):
        is_front = all(setting.front for setting in Shards.read(folder).manifest.settings)
        places += [folder] * (is_front == (pattern == FRONT.pattern))
    return places


def _front(path: Path) -> Catalogue:
    catalogue = load_shown(path)
    if not all(setting.front for setting in catalogue.settings):
        raise foreign(path, "a catalogue with one row a composition", FRONT)
    return catalogue


def _plan(path: Path) -> PlannedLayout:
    try:
        values = json.loads(read_text(path))
        # A layout of the most entropy is one plan.
        plan = values["plan"] if "plan" in values else values["plans"][0]
        stages = tuple(
            {name: stage[name] for name in ("width", "depth", "params", "macs")}
            | {name: stage.get(name) for name in ("latency_ms", "expansion", "stride")}
            for stage in plan["stages"]
        )
        name = path.stem.partition("-")[2]
        return PlannedLayout(name, str(values["objective"]), stages)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise foreign(path, f"{type(error).__name__}: {error}", PLANS) from None


def _measured(path: Path, source: Source = KERNELS) -> Measured:
    rows = read_rows(path, source)
    devices = {row["device"] for row in rows}
    if len(devices) != 1:
        rows_text = f"rows of {', '.join(sorted(devices))}" if devices else "no rows"
        raise foreign(path, f"{rows_text}, where a file is of one device", source)
    return Measured(devices.pop(), rows)


def _blocks(path: Path) -> BlockTimes:
    measured = _measured(path, BLOCKS)
    beside = path.with_suffix(".json")
    if not beside.exists():
        return BlockTimes(measured.device, measured.rows, {}, ())
    about = _about(beside)
    try:
        sources = _sources(about["designs"])
        predictions = tuple(_predictions(about.get("model") or {}))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise foreign(beside, "designs or a model that make no sense", BLOCKS) from None
    return BlockTimes(measured.device, measured.rows, sources, predictions)


def _sources(designs: Iterable[Mapping[str, Any]]) -> dict[Place, str]:
    """Return the source of every design; of several styles of one the plain, or else the first."""
    sources: dict[Place, str] = {}
    # Older files say no style, and have the plain alone.
    for design in sorted(designs, key=lambda design: design.get("style", PLAIN) != PLAIN):
        place = (
            str(design["candidate"]),
            int(design["channels"]),
            int(design["out_channels"]),
            int(design["stride"]),
        )
        sources.setdefault(place, str(design["source"]))
    return sources


def _predictions(models: Mapping[str, Any]) -> Iterator[Prediction]:
    for mode, model in models.items():
        for predictor, errors in model["errors"].items():
            numbers = (errors["rank_correlation"], errors["median_error"])
            rank, error = (None if value is None else float(value) for value in numbers)
            yield Prediction(mode, predictor, int(errors["count"]), rank, error)


def _about(path: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(read_text(path))
    except (OSError, ValueError):
        raise foreign(path, "no JSON, or only a part of it", BLOCKS) from None
    version = about.get("version") if isinstance(about, dict) else None
    if version != BLOCKS_VERSION:
        raise foreign(path, f"version {version}, not {BLOCKS_VERSION}", BLOCKS)
    checked: Mapping[str, Any] = about
    return checked


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the report: its name, what it is about, the files that it shows."""

    name: str
    title: str
    sources: tuple[Source, ...]


PARTS: Final = (
    Part("funnel", "What the rules leave", (CATALOGUE,)),
    Part("designs", "The best blocks by length", (CATALOGUE,)),
    Part("front", "The trade-offs that no choice beats", (FRONT,)),
    Part("groups", "The cheapest group counts by width", (GROUPS,)),
    Part("layouts", "Layouts of stages", (STAGES, TRAJECTORIES, PLANS)),
    Part("energy", "Layouts of greatest energy", (ENERGY, RANKS)),
    Part("blocks", "How fast the blocks are", (BLOCKS,)),
    Part("kernels", "How fast the rolling pointwise convolution is", (KERNELS,)),
    Part("reproduction", "What the papers print, and what comes out", (VERDICTS,)),
)


def chosen(names: Sequence[str] | None) -> tuple[Part, ...]:
    """Return the parts of these names in their order; all of them for None.

    Raises: SettingError for a name that no part has.
    """
    parts = {part.name: part for part in PARTS}
    for name in names or ():
        if name not in parts:
            raise SettingError.because(
                "no such part of a report",
                got=repr(name),
                allowed=", ".join(parts),
                remedy="choose some of them",
                argument="only",
            )
    return PARTS if names is None else tuple(part for part in PARTS if part.name in names)


def left_out(results: Results, parts: Sequence[Part]) -> tuple[str, ...]:
    """Return a sentence for each missing file that a part would show."""
    absent: dict[str, tuple[Source, list[str]]] = {}
    for part in parts:
        for source in part.sources:
            if not (source.optional or results.has(source)):
                absent.setdefault(source.name, (source, []))[1].append(part.name)
    return tuple(
        f"{' and '.join(names)}: there is no {name}; "
        f"`{source.written_by(results.folder)}` writes it"
        for name, (source, names) in absent.items()
    )
