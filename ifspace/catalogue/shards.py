"""A catalogue as a folder: a manifest, and one Parquet file for each part of the work.

`manifest.json` says which settings they are and in how many parts each is; its key is in every
part. A part that is there is whole; it is never changed, so a run can be interrupted anywhere, and
go on anywhere that the folder can be seen from. What the designs of different parts say of each
other is computed when they are read together: `join` writes them as one file, the same bytes as
that of a run that was never in parts.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, Self

from ifspace.catalogue import dataset
from ifspace.catalogue.dataset import (
    SCHEMA_VERSION,
    provenance,
    read_part,
    version,
    write_parquet,
)
from ifspace.catalogue.design import Catalogue, Design, Funnel
from ifspace.catalogue.networks import Representatives, RowsFile
from ifspace.catalogue.parts import Part, Whole, in_order
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import CatalogueError, IfspaceError, OutputError
from ifspace.folder import Folder, open_folder
from ifspace.serialize import Between, from_plain, json_text, to_plain
from ifspace.storage import replacing
from ifspace.values import listed

MANIFEST: Final = "manifest.json"
PARTS: Final = "shard-*.parquet"
# Files that are read side by side must be open at once.
MOST_PARTS: Final = 512
# Of manifests that do not say it.
_FEW_BEGINNINGS: Final = 4


@dataclass(frozen=True, slots=True)
class Manifest:
    """The settings of a run, and in how many parts each is.

    `beginnings`: compositions that begin alike are in one part; so many beginnings there are for
    each part, at least.
    """

    settings: tuple[EnumerationSetting, ...]
    parts: tuple[Annotated[int, Between(1, MOST_PARTS)], ...]
    ifspace: str
    schema: int
    beginnings: Annotated[int, Between(1, None)] = _FEW_BEGINNINGS

    @classmethod
    def of(
        cls, settings: Sequence[EnumerationSetting], parts: Sequence[int], beginnings: int
    ) -> Self:
        """Return the manifest of a run of this version of ifspace."""
        return cls(tuple(settings), tuple(parts), version(), SCHEMA_VERSION, beginnings)

    @property
    def key(self) -> str:
        """The hash of all of it.

        >>> len(Manifest((), (), "1.0", 5).key)
        64
        """
        return sha256(json_text(self._plain()).encode()).hexdigest()

    def to_text(self) -> str:
        """Return the content of the file."""
        return json_text({"key": self.key, "manifest": self._plain()})

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = to_plain(self)
        if self.beginnings == _FEW_BEGINNINGS:
            del plain["beginnings"]  # as manifests were written before there were more
        return plain

    @classmethod
    def of_text(cls, content: bytes) -> Self:
        """Return the manifest of a file.

        Raises: ValueError where it is none, or was changed.
        """
        values = json.loads(content)
        manifest: Self = from_plain(cls, values["manifest"])
        if manifest.key != values["key"] or len(manifest.parts) != len(manifest.settings):
            raise ValueError("changed since it was written")
        return manifest

    def command(self, place: str) -> str:
        """Return the command that goes on with the run in a folder.

        >>> setting = EnumerationSetting(channels=16, max_len=3)
        >>> Manifest.of([setting], [4], 256).command("run")
        'ifspace enumerate --channels 16 --max-len 3 --out run'
        """
        widths = ",".join(str(setting.channels) for setting in self.settings)
        options = self.settings[0].options() | {"channels": f"--channels {widths}"}
        return " ".join(["ifspace enumerate", *options.values(), f"--out {place}"])

    def places(self) -> Iterator[tuple[int, int]]:
        """Yield for each part the place of its setting and its index among that setting's."""
        for place, parts in enumerate(self.parts):
            yield from ((place, index) for index in range(parts))


class Shards:
    """The parts of a run in a folder."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        """Take a folder and its manifest."""
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def read(cls, place: str | Path) -> Self:
        """Return the parts in a folder.

        Raises: CatalogueError where there is no manifest that can be read.
        """
        folder = open_folder(place)
        try:
            return cls(folder, Manifest.of_text(folder.read(MANIFEST)))
        except OSError as error:
            reason = f"{MANIFEST}: {error.strerror or 'no such file'}"
        except (ValueError, KeyError, TypeError, IfspaceError):
            reason = f"{MANIFEST} is damaged"
        raise CatalogueError.because(
            "no folder of a catalogue",
            got=f"{place} ({reason})",
            allowed="one that `ifspace enumerate --out FOLDER` wrote",
            remedy="run that command again",
        )

    @classmethod
    def start(cls, place: str | Path, manifest: Manifest, *, write: bool = True) -> Self:
        """Return the parts in a folder, which holds none yet or some of the same settings.

        Where it holds some, it says how many there are. The caller has locked the folder, unless
        nothing is to be written there.

        Raises: OutputError where it holds something else, or cannot be written.
        """
        folder = open_folder(place)
        names = [name for name in folder.names() if not name.startswith(".")]
        try:
            there = Manifest.of_text(folder.read(MANIFEST)) if MANIFEST in names else None
        except (OSError, ValueError, KeyError, TypeError, IfspaceError):
            there = None  # damaged: written anew where everything else is ours
        if there is None and any(not _is_part(name) and name != MANIFEST for name in names):
            raise _not_ours(place, "other files", "an empty folder, or one of the same command")
        if there is None and write:
            folder.write(MANIFEST, manifest.to_text().encode())
        elif there is not None and manifest != replace(
            there, parts=manifest.parts, beginnings=manifest.beginnings
        ):
            raise _not_ours(place, _difference(there, manifest), "one of the same command")
        return cls(folder, there or manifest)

    def __len__(self) -> int:
        """Return how many parts there are when all are done."""
        return sum(self.manifest.parts)

    @cached_property
    def key(self) -> str:
        """The hash of the manifest, computed once: of thousands of settings it takes a while."""
        return self.manifest.key

    def name(self, number: int) -> str:
        """Return the name of the file of a part."""
        return f"shard-{number:05}.parquet"

    @property
    def done(self) -> int:
        """How many parts have a file."""
        names = set(self.folder.names())
        return sum(self.name(number) in names for number in range(len(self)))

    def write(self, number: int, content: bytes) -> None:
        """Write the file of a part.

        Raises: OutputError where it cannot be written.
        """
        self.folder.write(self.name(number), content)

    def states(
        self, numbers: Iterable[int] | None = None
    ) -> tuple[tuple[int, ...], dict[int, str]]:
        """Return the numbers of the parts that are missing, and of damaged ones with the reason.

        Of all parts, or of some.
        """
        names = set(self.folder.names())
        missing: list[int] = []
        damaged: dict[int, str] = {}
        for number in range(len(self)) if numbers is None else numbers:
            if self.name(number) not in names:
                missing.append(number)
            else:
                try:
                    with self._open(number, decoded=False) as (_, pages):
                        for _ in pages:
                            pass
                except CatalogueError as error:
                    damaged[number] = error.finding.rpartition(" read, ")[2]
        return tuple(missing), damaged

    def incomplete(self, missing: Sequence[int], damaged: Mapping[int, str]) -> CatalogueError:
        """Return the error of parts that are missing or damaged, with the command to go on."""
        bad = [f"{self.name(number)} damaged ({reason})" for number, reason in damaged.items()]
        absent = [f"{len(missing):,} of {len(self):,} shards missing"] if missing else []
        return CatalogueError.because(
            f"{self.folder} is not complete",
            got=", ".join([*absent, *bad]),
            allowed="a folder with all of them",
            remedy=f"`{self.manifest.command(str(self.folder))}` goes on",
        )

    def check_whole(self) -> None:
        """Check that all parts are there and can be read.

        Raises: CatalogueError otherwise.
        """
        missing, damaged = self.states()
        if missing or damaged:
            raise self.incomplete(missing, damaged)

    def _open(self, number: int, *, decoded: bool = True) -> Any:
        """Return a context with what a part counted and with its designs, some at a time."""
        return _Opened(self, number, decoded)

    @cached_property
    def wholes(self) -> tuple[Whole, ...]:
        """What is known of each setting: read once from all of its parts.

        Raises: CatalogueError where a part is missing or damaged.
        """
        wholes, answers = [], RowsFile()
        for place, setting in enumerate(self.manifest.settings):
            representatives = Representatives(answers)
            whole = Whole(setting.max_len, setting.front, representatives)
            with ExitStack() as stack:
                opened = self._opened(place, stack)
                for part, _ in opened:
                    whole.see(part.funnel, part.amounts)
                for design in in_order(designs for _, designs in opened):
                    whole.see_designs((design,))
            representatives.layers()  # all are there: none stay in memory
            wholes.append(whole)
        return tuple(wholes)

    def _opened(self, place: int, stack: ExitStack) -> list[tuple[Part, Iterator[Design]]]:
        """Return what each part of a setting counted, and its designs, open as long as a stack."""
        first = sum(self.manifest.parts[:place])
        numbers = range(first, first + self.manifest.parts[place])
        opened = [stack.enter_context(self._open(number)) for number in numbers]
        return [(part, chain.from_iterable(designs)) for part, designs in opened]

    @cached_property
    def counted(self) -> tuple[Part, ...]:
        """What each part counted, without its designs.

        Raises: CatalogueError where a part is missing or damaged.
        """
        counted = []
        for number in range(len(self)):
            with self._open(number) as (part, _):
                counted.append(part)
        return tuple(counted)

    def part_funnels(self) -> tuple[Funnel, ...]:
        """Return the funnel of each setting, its networks not told apart."""
        funnels: dict[int, Funnel] = {}
        for (place, _), part in zip(self.manifest.places(), self.counted, strict=True):
            whole = funnels.get(place)
            funnels[place] = part.funnel if whole is None else whole.plus(part.funnel)
        return tuple(funnels[place] for place in range(len(self.manifest.settings)))

    @property
    def funnels(self) -> tuple[Funnel, ...]:
        """The funnel of each setting."""
        return tuple(whole.funnel() for whole in self.wholes)

    @property
    def rows(self) -> int:
        """How many designs there are.

        Raises: CatalogueError where a part is missing or damaged.
        """
        return sum(part.rows for part in self.counted)

    def designs(self) -> Generator[Design, None, None]:
        """Yield the designs of all settings in the order of a catalogue, few of them in memory."""
        for place, whole in enumerate(self.wholes):
            assert whole.representatives is not None
            with ExitStack() as stack:
                designs = in_order(designs for _, designs in self._opened(place, stack))
                for design, first in zip(designs, whole.representatives, strict=True):
                    yield whole.completed(design, first)

    def catalogue(self, most: Mapping[str, int] | None = None) -> Catalogue:
        """Return the catalogue, in memory; of a long one the rows within bounds on columns.

        Raises: CatalogueError where what is to be held is too long for that, or it is not complete.
        """
        name = str(self.folder)
        if self.rows <= dataset.MAX_ROWS:
            most = None
        elif not most:
            remedy = "bounds such as --params, within which it is read in part"
            dataset.check_length(name, self.rows, remedy)
        rows = []
        for design in self.designs():
            if all(getattr(design, column) <= bound for column, bound in (most or {}).items()):
                rows.append(design)
                dataset.check_length(name, len(rows), "bounds that leave fewer")
        return Catalogue(self.manifest.settings, self.funnels, tuple(rows))

    def join(self, path: str | Path) -> None:
        """Write the catalogue as one file: the bytes of a run without parts, or an export.

        Raises: OutputError where it cannot be written; CatalogueError where it is not complete, or
            too long for a table of Markdown.
        """
        if Path(path).suffix.lower() != ".parquet":
            with closing(self.designs()) as designs:
                if dataset.export(path, self.manifest.settings, self.funnels, designs):
                    return
            dataset.save(self.catalogue(), path)
            return
        about = provenance(self.manifest.settings, self.funnels)
        with replacing(path) as file, closing(self.designs()) as designs:
            write_parquet(file, about, designs)


class _Opened:
    """The file of a part, open as long as the context."""

    def __init__(self, shards: Shards, number: int, decoded: bool) -> None:
        self._shards, self._number, self._decoded = shards, number, decoded

    def __enter__(self) -> tuple[Part, Iterator[tuple[Design, ...]]]:
        shards, number = self._shards, self._number
        folder, path = shards.folder, f"{shards.folder}/{shards.name(number)}"
        try:
            self._file = folder.open(shards.name(number))
        except OSError as error:
            raise CatalogueError.because(
                "part of a catalogue that cannot be read",
                got=f"{path} ({error.strerror or type(error).__name__})",
                allowed="a folder with all of them",
                remedy=f"`{shards.manifest.command(str(folder))}` computes the rest",
            ) from None
        try:
            # Counted from 1, as --shard counts.
            name = f"{path} (part {number + 1} of {len(shards)})"
            remedy = f"`ifspace merge {folder}` computes it again"
            return read_part(self._file, shards.key, number, name, remedy, decoded=self._decoded)
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _is_part(name: str) -> bool:
    return fnmatchcase(name, PARTS)


def _not_ours(place: str | Path, got: str, allowed: str) -> OutputError:
    return OutputError.because(
        "folder that holds something else",
        got=f"{place} ({got})",
        allowed=allowed,
        remedy="choose another folder",
    )


def _difference(there: Manifest, here: Manifest) -> str:
    """Return in what two runs differ."""
    if (there.ifspace, there.schema) != (here.ifspace, here.schema):
        return f"a run of ifspace {there.ifspace}, schema {there.schema}"
    if len(there.settings) != len(here.settings):
        widths = listed([str(setting.channels) for setting in there.settings])
        return f"a run for {widths} channels"
    for one, other in zip(there.settings, here.settings, strict=True):
        if one != other:
            return f"`{there.command('FOLDER')}`"
    raise AssertionError("the same")
