"""The catalogue on disk: a Parquet file that explains itself; JSON, CSV and Markdown are exports.

Every column carries its description, and the file's metadata says where the rows come from:
version of ifspace, version of this schema, settings and funnels. No time, host, path or number of
workers is kept, so the same content is the same bytes. A file is written whole or not at all.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ifspace import storage
from ifspace.catalogue.design import (
    COLUMNS,
    FRONT_COLUMNS,
    Catalogue,
    Column,
    Design,
    Funnel,
    from_columns,
    network_numbers,
    other_ways,
    to_columns,
    with_networks,
    wrong_cell,
)
from ifspace.catalogue.parts import Part
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import CatalogueError, IfspaceError, OutputError
from ifspace.folder import is_url
from ifspace.serialize import from_plain, to_plain
from ifspace.table import Table, ratio_text

# Files of older schemas lack columns (`Column.since`), filled in when one is read; those of the
# first have no checksum of their metadata.
FIRST_SCHEMA: Final = 1
SCHEMA_VERSION: Final = max(column.since for column in COLUMNS.values())
# More rows are held in memory by none of the commands: a million take about 1.5 GiB.
MAX_ROWS: Final = 2_000_000
# Rows of longer files are not compared with their blocks unless the caller asks for it.
CHECKED_ROWS: Final = 100_000
# Rows that are written, and are held in memory for that, at a time.
ROW_GROUP: Final = 1 << 16
# Rows of a part that are held at a time, where all parts are read side by side.
PART_ROWS: Final = 256
METADATA_KEY: Final = b"ifspace"
# What the metadata of a file that has a part of a catalogue has and others have not.
PART_KEY: Final = "part"
_ANEW: Final = "write it anew with `ifspace enumerate --out FILE.parquet`"


def save(catalogue: Catalogue, path: str | os.PathLike[str]) -> None:
    """Write the catalogue: .parquet is the catalogue itself; .csv, .json, .md are exports.

    The file appears whole or not at all; on failure an older file of that name stays as it was.

    Raises: OutputError for another suffix, or when the file cannot be written there.
    """
    writer = _writer(path)
    with storage.replacing(path) as file:
        file.write_bytes(writer(catalogue))


def load(
    path: str | os.PathLike[str],
    check: bool | None = None,
    most: Mapping[str, int] | None = None,
) -> Catalogue:
    """Return the catalogue that was saved in a .parquet file, or is in the folder of a run.

    `check`: whether every row is compared with its block, computed anew; None for those of up to
    CHECKED_ROWS rows. Pages and metadata have checksums that are always compared.

    `most`: bounds on columns. Of a catalogue that is too long to hold in memory only the rows
    within them are held, read some at a time.

    Raises: CatalogueError when there is no such file, or it is truncated, not a catalogue of
        ifspace, one of another schema version, changed since it was written, or too long to hold
        in memory.
    """
    name = str(path)
    if is_folder(path):
        from ifspace.catalogue.shards import Shards

        return Shards.read(name).catalogue(most)
    with _opened(path) as (parquet, about):
        table, rows = _rows(parquet, name, most)
        try:
            columns = {name: table.column(name).to_pylist() for name in about.columns}
            designs = from_columns(columns)
            catalogue = Catalogue(about.settings, about.funnels, designs)
            if rows > len(designs):
                return catalogue  # a part of a long one
            if about.schema == FIRST_SCHEMA:
                catalogue = with_networks(catalogue)
            checks = (check is None and rows <= CHECKED_ROWS) or check
            wrong = wrong_cell(catalogue) if checks else ""
        except (IfspaceError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise senseless(name, "rows that make no sense", error) from None
    if wrong:
        raise unreadable(name, wrong)
    return catalogue


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a catalogue is the folder of a run, or a URL of one."""
    return is_url(path) or Path(path).is_dir()


@dataclass(frozen=True, slots=True)
class About:
    """What the file of a catalogue says of its rows.

    `schema`: the version of its columns, which are `columns`; `rows`: how many it has.
    """

    settings: tuple[EnumerationSetting, ...]
    funnels: tuple[Funnel, ...]
    schema: int
    columns: tuple[str, ...]
    rows: int


def read_about(path: str | os.PathLike[str]) -> About:
    """Return what the file of a catalogue says of its rows, without reading them.

    Raises: CatalogueError as `load`.
    """
    with _opened(path) as (_, about):
        return about


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, About]]:
    """Open the file of a catalogue: as Parquet, with what it says of its rows."""
    import pyarrow
    import pyarrow.parquet

    name = str(path)
    try:
        storage.check_no_device(path)
        with Path(path).open("rb") as file:
            try:
                parquet = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
            except (pyarrow.ArrowException, ValueError, OSError):
                raise unreadable(name, "no Parquet file, or only a part of one") from None
            yield parquet, _about(parquet, name)
    except OSError as error:
        if isinstance(error, IfspaceError):
            raise
        raise CatalogueError.because(
            "catalogue cannot be read",
            got=f"{name} ({error.strerror or type(error).__name__})",
            allowed="a readable .parquet file",
            remedy="write one with `ifspace enumerate --out FILE.parquet`",
        ) from None


def _about(parquet: Any, name: str) -> About:
    arrow = parquet.schema_arrow
    text = (arrow.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise unreadable(name, "a Parquet file of something else")
    try:
        about = json.loads(text)
        if PART_KEY in about:
            raise unreadable(name, "a part of one: read the folder that it is in")
        schema = about["schema"]
        if schema not in range(FIRST_SCHEMA, SCHEMA_VERSION + 1):
            raise unreadable(name, f"schema version {schema}, not {SCHEMA_VERSION}")
        columns = {name: column for name, column in COLUMNS.items() if column.since <= schema}
        if not arrow.equals(_schema(columns.values())):
            raise unreadable(name, "columns that the schema does not name")
        if schema != FIRST_SCHEMA and about.pop("checksum", None) != _checksum(about):
            raise unreadable(name, "metadata that has changed since it was written")
        settings = from_plain(tuple[EnumerationSetting, ...], about["settings"], "settings")
        funnels = from_plain(tuple[Funnel, ...], about["funnels"], "funnels")
    except CatalogueError:
        raise
    except (IfspaceError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise senseless(name, "provenance that makes no sense", error) from None
    return About(settings, funnels, schema, tuple(columns), parquet.metadata.num_rows)


def _rows(parquet: Any, name: str, most: Mapping[str, int] | None) -> tuple[Any, int]:
    """Return the rows of a file that are held in memory, and how many it has."""
    import pyarrow

    rows = parquet.metadata.num_rows
    try:
        if rows <= MAX_ROWS:
            return parquet.read(), rows
        kept: list[Any] = []
        for batch in parquet.iter_batches() if most else ():
            kept.append(batch.filter(_within(batch, most or {})))
            check_length(name, sum(map(len, kept)), "bounds that leave fewer")
        if not most:
            check_length(name, rows, "bounds such as --params, within which it is read in part")
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, IfspaceError):
            raise
        raise unreadable(name, "no Parquet file, or only a part of one") from None
    return pyarrow.Table.from_batches(kept, parquet.schema_arrow), rows


def _within(batch: Any, most: Mapping[str, int]) -> Any:
    from pyarrow import compute

    mask = compute.is_valid(batch.column("params"))
    for column, bound in most.items():
        mask = compute.and_(mask, compute.less_equal(batch.column(column), bound))
    return mask


def check_length(name: str, rows: int, remedy: str) -> None:
    """Check that so many rows can be held in memory.

    Raises: CatalogueError where they are too many.
    """
    if rows > MAX_ROWS:
        raise CatalogueError.because(
            f"{name} is too long",
            got=f"{rows:,} rows",
            allowed=f"up to {MAX_ROWS:,}, which are held in memory",
            remedy=f"give {remedy}",
        )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OutputError when `save` could not write there; call it before a long search."""
    _writer(path)
    storage.check_writable(path)


def _writer(path: str | os.PathLike[str]) -> Callable[[Catalogue], bytes]:
    writers: dict[str, Callable[[Catalogue], bytes]] = {
        ".parquet": _to_parquet,
        ".csv": lambda catalogue: to_csv(catalogue.designs).encode(),
        ".json": lambda catalogue: to_json(catalogue).encode(),
        ".md": lambda catalogue: to_markdown(catalogue).encode(),
    }
    suffix = Path(path).suffix.lower()
    if suffix not in writers:
        raise OutputError.because(
            "unknown output format",
            got=Path(path).name,
            allowed=", ".join(writers),
            remedy="end the name with one of them, or name a folder",
        )
    return writers[suffix]


def _schema(columns: Iterable[Column] = COLUMNS.values()) -> Any:
    import pyarrow

    types = {"bool": pyarrow.bool_()}
    return pyarrow.schema(
        pyarrow.field(
            column.name,
            types.get(column.type) or getattr(pyarrow, column.type)(),
            nullable=column.nullable,
            metadata={"description": column.meaning},
        )
        for column in columns
    )


def _to_parquet(catalogue: Catalogue) -> bytes:
    buffer = BytesIO()
    write_parquet(
        buffer, provenance(catalogue.settings, catalogue.funnels), iter(catalogue.designs)
    )
    return buffer.getvalue()


def provenance(settings: Sequence[EnumerationSetting], funnels: Sequence[Funnel]) -> dict[str, Any]:
    """Return what the metadata of a catalogue says of its rows."""
    return {
        "ifspace": version(),
        "schema": SCHEMA_VERSION,
        "settings": [setting.arguments() for setting in settings],
        "funnels": to_plain(tuple(funnels)),
    }


def write_parquet(file: Any, about: Mapping[str, Any], designs: Iterator[Design]) -> None:
    """Write designs as Parquet, however many, with a checksum over what is said about them."""

    def tables() -> Iterator[Mapping[str, Any]]:
        while rows := tuple(islice(designs, ROW_GROUP)):
            yield to_columns(rows)

    write_columns(file, about, tables())


def write_columns(file: Any, about: Mapping[str, Any], tables: Iterable[Mapping[str, Any]]) -> None:
    """Write the columns of designs as `to_columns` has them, ROW_GROUP rows at a time."""
    import pyarrow
    import pyarrow.parquet

    about = {**about, "checksum": _checksum(about)}
    schema = _schema().with_metadata({METADATA_KEY: json.dumps(about)})
    with pyarrow.parquet.ParquetWriter(
        file,
        schema,
        version="2.6",
        compression="zstd",
        compression_level=3,
        write_page_checksum=True,
    ) as writer:
        for columns in tables:
            writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=ROW_GROUP)


def part_to_parquet(part: Part, key: str, index: int) -> bytes:
    """Return the file of a part: number `index` of the run with a key."""
    buffer = BytesIO()
    about = part_provenance(part, key, index, len(part.designs))
    write_parquet(buffer, about, iter(part.designs))
    return buffer.getvalue()


def part_provenance(part: Part, key: str, index: int, rows: int) -> dict[str, Any]:
    """Return what the metadata of a part says of its rows, of which there are so many."""
    about = {
        "ifspace": version(),
        "schema": SCHEMA_VERSION,
        PART_KEY: index,
        "run": key,
        "rows": rows,
        "funnel": to_plain(part.funnel),
        "amounts": part.amounts,
    }
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def read_part(
    file: Any, key: str, index: int, name: str, remedy: str, *, decoded: bool = True
) -> tuple[Part, Iterator[tuple[Design, ...]]]:
    """Return what a part counted, without designs, and then its designs, some at a time.

    `name` and `remedy`: of the file, for messages. Not `decoded` there is an empty tuple for some
    designs, which are read and compared with their checksums alone.

    Raises: CatalogueError where the file is damaged or a part of something else; of its rows when
        they are reached.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
        about = json.loads((parquet.schema_arrow.metadata or {})[METADATA_KEY])
        checksum = about.pop("checksum")
        if checksum != _checksum(about) or not parquet.schema_arrow.equals(_schema()):
            raise unreadable(name, "metadata that has changed since it was written", remedy)
        if (about["run"], about[PART_KEY]) != (key, index):
            run = "this run" if about["run"] == key else "another run"
            raise unreadable(name, f"part {about[PART_KEY] + 1} of {run}", remedy)
        if about["rows"] != parquet.metadata.num_rows:
            raise unreadable(name, "rows missing", remedy)
        funnel = from_plain(Funnel, about["funnel"])
        amounts = tuple((tuple(compared), count) for compared, count in about["amounts"])
    except CatalogueError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, IfspaceError):
        raise unreadable(name, "no Parquet file, or only a part of one", remedy) from None

    def designs() -> Iterator[tuple[Design, ...]]:
        try:
            for batch in parquet.iter_batches(PART_ROWS):
                yield from_columns(batch.to_pydict()) if decoded else ()
        except (pyarrow.ArrowException, OSError, ValueError, IfspaceError):
            raise unreadable(name, "damaged pages", remedy) from None

    return Part((), funnel, amounts, rows=parquet.metadata.num_rows), designs()


def _checksum(about: Mapping[str, Any]) -> str:
    """Return the digest of the metadata of a file, for its own is not covered by Parquet's."""
    return sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def version() -> str:
    """Return the version of ifspace, or "unknown" when it runs without being installed."""
    try:
        return metadata.version("ifspace")
    except metadata.PackageNotFoundError:
        return "unknown"


def unreadable(name: str, got: str, remedy: str = _ANEW) -> CatalogueError:
    """Return the error of a catalogue that cannot be read."""
    return CatalogueError.because(
        f"{name} is not a catalogue that can be read",
        got=got,
        allowed="a whole .parquet file written by ifspace",
        remedy=remedy,
    )


def senseless(name: str, got: str, error: Exception) -> CatalogueError:
    """Return the error of a catalogue in which something, `got`, could not be parsed."""
    fact = f" ({error.finding})" if isinstance(error, IfspaceError) else ""
    return unreadable(name, f"{got}{fact}")


def to_json(catalogue: Catalogue) -> str:
    """Return the catalogue as JSON text, one design a line.

    `arguments` and `funnel` are those of the first setting, `settings` holds them for all.
    """
    return "".join(_json_pieces(catalogue.settings, catalogue.funnels, catalogue.designs))


def _json_pieces(
    settings: Sequence[EnumerationSetting], funnels: Sequence[Funnel], designs: Iterable[Design]
) -> Iterator[str]:
    values = [
        {"arguments": setting.arguments(), "funnel": to_plain(funnel)}
        for setting, funnel in zip(settings, funnels, strict=True)
    ]
    first = values[0] if values else {"arguments": {}, "funnel": {}}
    head = json.dumps({**first, "settings": values}, indent=2, ensure_ascii=False)
    yield head.removesuffix("\n}") + ',\n  "designs": ['
    number = 0
    for number, design in enumerate(designs, 1):
        comma = "," * (number > 1)
        yield f"{comma}\n    {json.dumps(plain_design(design), ensure_ascii=False)}"
    yield "\n  " * bool(number) + "]\n}\n"


def _csv_pieces(designs: Iterable[Design]) -> Iterator[str]:
    rows = iter(designs)
    yield to_csv(())
    while some := tuple(islice(rows, ROW_GROUP)):
        yield to_csv(some).partition("\n")[2]


def export(
    path: str | os.PathLike[str],
    settings: Sequence[EnumerationSetting],
    funnels: Sequence[Funnel],
    designs: Iterable[Design],
) -> bool:
    """Write a catalogue as .csv or .json, however many rows; return whether it is one of those.

    Raises: OutputError when the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        pieces = _json_pieces(settings, funnels, designs)
    elif suffix == ".csv":
        pieces = _csv_pieces(designs)
    else:
        return False
    with storage.replacing(path) as file, file.open("w", encoding="utf-8", newline="") as out:
        out.writelines(pieces)
    return True


def plain_design(design: Design) -> dict[str, Any]:
    """Return a design as JSON has it: its fields, and the field of the block as written."""
    values: dict[str, Any] = to_plain(design)
    return values | {"field_as_written": list(design.field_as_written)}


def to_csv(
    designs: Sequence[Design],
    reasons: Sequence[str] | None = None,
    more: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """Return the designs as CSV with a header; a missing value is an empty cell.

    `more`: further columns by name. With `reasons` there is a last column `why`.

    >>> to_csv(()).split(",")[:3]
    ['channels', 'out_channels', 'bottleneck']
    """
    columns = {**to_columns(designs), **{name: list(cells) for name, cells in (more or {}).items()}}
    if reasons is not None:
        columns["why"] = list(reasons)
    return Table(tuple(columns), tuple(zip(*columns.values(), strict=True))).csv()


def to_markdown(catalogue: Catalogue, more: Mapping[str, Sequence[Any]] | None = None) -> str:
    """Return the funnels and the designs as Markdown tables; `more`: further columns."""
    front = any(setting.front for setting in catalogue.settings)
    funnels = [
        funnel_table(funnel, f"C = {setting.channels}, F = {setting.out_width}").markdown()
        for setting, funnel in zip(catalogue.settings, catalogue.funnels, strict=True)
    ]
    table = designs_table(catalogue.designs, front=front, more=more)
    return "\n".join([*funnels, table.markdown()])


def funnel_table(funnel: Funnel, title: str = "") -> Table:
    """Return the funnel as a table: a row for each step, a column for each length.

    >>> print(funnel_table(Funnel(6, 6, 1, (6,), (6,), (1,))).text(), end="")
    length                   1  all
    -------------------------------
    compositions             6    6
    after repeated patterns  6    6
    survivors                1    1
    """
    lengths = [f">{length}" for length in range(1, len(funnel.by_length) + 1)]
    rows = ((name, *counts, total) for name, counts, total in funnel.steps)
    return Table(("length", *lengths, ">all"), tuple(rows), title)


# What a reader compares, in this order.
_SHOWN: Final = (
    "channels",
    "out_channels",
    "block",
    "params",
    "params_ratio",
    "macs_per_pixel",
    "activations_per_pixel",
    "peak_per_pixel",
    "least_fan_in",
    "layers",
    "stands_for",
    "beats",
)
# Those of them that only tables of a front have: the others of what is compared there, and counts.
_OF_FRONT: Final = ("peak_per_pixel", *FRONT_COLUMNS)


def designs_table(
    designs: Sequence[Design],
    remarks: Sequence[str] | None = None,
    remark_header: str = "notes~",
    *,
    ranks: bool = False,
    networks: bool = False,
    front: bool = False,
    peak: bool = False,
    widths: bool = False,
    more: Mapping[str, Sequence[Any]] | None = None,
) -> Table:
    """Return the designs as a table with the columns that a reader compares.

    `more`: further columns by their headers, before the remarks. The last column has a remark on
    each design, its `notes` unless given. With `ranks` the first column numbers the designs, and
    the widths are left out where all designs have the same, unless `widths` asks for them. With
    `networks` a column has equal numbers for designs that are one network: from 1, in the order in
    which the networks appear in the table. With `front` there are the columns of a front, with
    `peak` of those the peak memory alone.
    """
    several = len({(design.channels, design.out_channels) for design in designs}) > 1
    hidden = set() if front else {*_OF_FRONT} - {"peak_per_pixel" if peak else ""}
    names = [name for name in _SHOWN if name not in hidden]
    if ranks and not (several or widths):
        names = names[2:]
    numbers = network_numbers(designs) if networks else ()
    rows = []
    for index, design in enumerate(designs):
        rank = (*[index + 1] * ranks, *numbers[index : index + 1])
        remark = notes(design) if remarks is None else remarks[index]
        further = (cells[index] for cells in (more or {}).values())
        rows.append((*rank, *(_cell(design, name) for name in names), *further, remark))
    headers = [*(COLUMNS[name].header for name in names), *(more or {})]
    return Table((*[">#"] * ranks, *[">network"] * networks, *headers, remark_header), tuple(rows))


def _cell(design: Design, name: str) -> Any:
    value = getattr(design, name)
    return ratio_text(value) if name == "params_ratio" else value


def notes(design: Design, but_for: str = "") -> str:
    """Return what a reader should know beside the numbers: names, sameness, dominance.

    `but_for`: the amount in which a design of this table may be better than what dominates it.
    """
    parts = [design.published_as] if design.published_as else []
    if design.same_as:
        parts.append(f"cheaper as {design.same_as}")
    if design.dominated_by:
        parts.append(f"dominated by {design.dominated_by}" + f" but for {but_for}" * bool(but_for))
    if design.permutation_note:
        parts.append(design.permutation_note)
    return "; ".join(parts)


def more_of_equal_cost(count: int) -> str:
    """Return how many more designs have the costs of one; "" for none.

    >>> more_of_equal_cost(1), more_of_equal_cost(1200), more_of_equal_cost(0)
    ('1 more costs the same', '1,200 more cost the same', '')
    """
    return f"{count:,} more cost{'s' * (count == 1)} the same" if count else ""


def remarked(design: Design, others: Sequence[Design] = (), but_for: str = "") -> str:
    """Return the notes of a design, and the other designs that are the same network."""
    return "; ".join(filter(None, [notes(design, but_for), other_ways(others)]))
