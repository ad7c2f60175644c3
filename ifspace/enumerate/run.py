"""An enumeration as a run in a folder: done in parts, interrupted anywhere, and gone on with."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ifspace.catalogue.dataset import part_to_parquet
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.catalogue.shards import MOST_PARTS, Manifest, Shards
from ifspace.enumerate.satisfiable import check_floors
from ifspace.enumerate.search import (
    BEGINNINGS,
    Shard,
    estimate_seconds,
    forget_engines,
    next_run,
    process_mib,
    processes_for,
    rough_rows,
    rough_seconds,
    shards_of,
    solve,
)
from ifspace.errors import SettingError
from ifspace.folder import open_folder
from ifspace.parallel import Progress, as_completed, workers

# What an interrupt may lose of a part, in seconds of one core.
PART_S: Final = 4.0
# Bytes of a row in a file, and of what a file has beside them.
_ROW_BYTES: Final = 45
_FILE_BYTES: Final = 16_000


def run_in_folder(
    settings: Sequence[EnumerationSetting],
    place: str | Path,
    *,
    jobs: int | None = None,
    share: tuple[int, int] | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Shards:
    """Compute the parts of a run that a folder lacks, and return all that it has.

    `share`: number i from 1 of n runs that divide the parts among them; all parts without it.
    `note` is called with a line on each file that is damaged and computed again. A file is there
    when its part is done, whole: what is interrupted loses the parts in progress alone.

    Raises: SettingError for a share out of range, and as `enumerate_designs`; OutputError where the
        folder holds something else, another run works in it, or it cannot be written; WorkerError
        where a worker is lost.
    """
    workers(jobs)  # raises for a number below 1
    for setting in settings:
        check_floors(setting)
    number, of = _checked(share) if share is not None else (1, 1)
    lock = None if share is None else f"{number}-{of}"
    with open_folder(place).locked(lock):
        shards = Shards.start(place, manifest_of(settings, of))
        own = range(number - 1, len(shards), of)
        missing, damaged = shards.states(own)
        todo = sorted((*missing, *damaged))
        for index in todo:
            if note is not None and index in damaged:
                note(f"{shards.name(index)} is computed again: {damaged[index]}")
        _compute(shards, todo, jobs, progress, len(own))
    return shards


def merge_folder(
    place: str | Path,
    path: Path | None = None,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> tuple[Shards, tuple[str, ...]]:
    """Check the parts of a run, and join them in one file, as `Shards.join`, if there is a path.

    Returns the parts and the names of those that were damaged or of another run: they are computed
    again, each with a `note`.

    Raises: CatalogueError where parts are missing; OutputError where something cannot be written.
    """
    shards = Shards.read(place)
    missing, damaged = shards.states()
    if missing:
        raise shards.incomplete(missing, damaged)
    if damaged:
        with shards.folder.locked():
            for index, reason in damaged.items():
                if note is not None:
                    note(f"{shards.name(index)} is computed again: {reason}")
            _compute(shards, sorted(damaged), jobs, progress, len(damaged))
    if path is not None:
        shards.join(path)
    return shards, tuple(map(shards.name, damaged))


def manifest_of(settings: Sequence[EnumerationSetting], least: int = 1) -> Manifest:
    """Return the manifest of a run that is shared among so many: the same on every machine."""
    parts, _ = shards_of(settings, PART_S, MOST_PARTS)
    counts = [0] * len(settings)
    for shard in parts:
        counts[shard.place] += 1
    return Manifest.of(settings, [max(count, least) for count in counts], BEGINNINGS)


def _checked(share: tuple[int, int]) -> tuple[int, int]:
    number, of = share
    if not 1 <= number <= of <= MOST_PARTS:
        raise SettingError.because(
            "share out of range",
            got=f"{number}/{of}",
            allowed=f"i/n with i from 1 to n, n up to {MOST_PARTS}",
            remedy="count the shares from 1",
            argument="shard",
        )
    return number, of


def _compute(
    shards: Shards,
    numbers: Sequence[int],
    jobs: int | None,
    progress: Progress | None,
    total: int,
) -> None:
    """Compute parts and write each when it is done; with the others they are `total`."""
    manifest = shards.manifest
    run = next_run()
    places = list(manifest.places())
    parts = []
    for number in numbers:
        place, index = places[number]
        setting, count = manifest.settings[place], manifest.parts[place]
        shard = Shard(setting, index, count, place, run, beginnings=manifest.beginnings)
        parts.append((number, shard))
    # The longest first, so that no worker is left alone with one at the end.
    parts.sort(key=lambda part: rough_seconds(part[1].setting) / part[1].count, reverse=True)
    seconds = sum(map(rough_seconds, manifest.settings)) * len(parts) / max(1, len(shards))
    done = total - len(parts)
    processes = processes_for(jobs, seconds)
    with closing(as_completed(_FileOf(manifest.key), parts, processes)) as files:
        for place, content in files:
            shards.write(parts[place][0], content)
            done += 1
            if progress is not None:
                progress(done, total)
    forget_engines()


@dataclass(frozen=True, slots=True)
class _FileOf:
    """The function from a part's number and shard to the content of its file; `key`: the run's."""

    key: str

    def __call__(self, part: tuple[int, Shard]) -> bytes:
        number, shard = part
        return part_to_parquet(solve(shard), self.key, number)


@dataclass(frozen=True, slots=True)
class Estimate:
    """About what a run in a folder takes: parts, minutes of one core, bytes of the folder.

    `process_mib`: memory of each process, in MiB; `processes`: how many work by default; `done`:
    parts that the folder has already.
    """

    shards: int
    minutes: float
    bytes: int
    process_mib: int
    processes: int
    done: int = 0


def estimate_run(
    settings: Sequence[EnumerationSetting],
    jobs: int | None = None,
    share: tuple[int, int] | None = None,
    place: str | Path | None = None,
) -> Estimate:
    """Return about what a whole run takes, computing nothing but a second's measurement.

    `share`: as of `run_in_folder`; the run has a part for each. `place`: a folder that may have
    some parts; nothing is written there.

    >>> estimate_run([EnumerationSetting(channels=16, max_len=3)], jobs=1).shards
    1

    Raises: SettingError for a share out of range; OutputError where the folder holds something
        else.
    """
    manifest = manifest_of(settings, 1 if share is None else _checked(share)[1])
    parts, done = sum(manifest.parts), 0
    if place is not None:
        shards = Shards.start(place, manifest, write=False)
        parts, done = len(shards), shards.done
    seconds = sum(map(estimate_seconds, settings))
    rows = sum(map(rough_rows, settings))
    rough_s = sum(map(rough_seconds, settings))
    largest_s = max(map(rough_seconds, settings), default=0.0)
    return Estimate(
        parts,
        seconds / 60,
        round(rows * _ROW_BYTES + _FILE_BYTES * len(settings)),
        round(process_mib(largest_s)),
        processes_for(jobs, rough_s),
        done,
    )
