"""The catalogue on disk: one Parquet file that explains itself, written whole or not at all.

Every column carries its description, and the file's metadata says where the rows come from:
version of ifspace, version of this schema, settings and funnels. No time, host, path or number of
workers is kept, so the same content is the same bytes.
"""

import json
import os
from collections.abc import Callable, Iterator
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from ifspace.block import Block
from ifspace.catalogue.design import (
    Catalogue,
    Design,
    Funnel,
)
from ifspace.catalogue.export import to_csv, to_json, to_markdown
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import CatalogueError, IfspaceError, OutputError
from ifspace.storage import replacing

SCHEMA_VERSION: Final = 1
METADATA_KEY: Final = b"ifspace"

# Name: (type, description). `field` is two columns; the others are named as in `Design`.
COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "channels": ("int32", "width C that enters the block, channels"),
    "out_channels": ("int32", "width F that leaves the block, channels"),
    "bottleneck": ("string", "ratio K/F of the width inside, exact; null without a bottleneck"),
    "repeats": ("int32", "copies of the composition in a row, as many as the reference has layers"),
    "kernel": ("int32", "kernel size k of the spatial layers and of the reference, pixels"),
    "stride": ("int32", "stride of the first spatial layer"),
    "dims": ("int32", "spatial dimensions"),
    "composition": ("string", "kinds from first layer to last, and the number of copies"),
    "block": ("string", "cheapest block of the composition that passes the rule"),
    "params": ("int64", "weights of all copies, without bias or normalisation"),
    "macs_per_pixel": ("int64", "multiply-accumulates of all copies per output pixel"),
    "activations_per_pixel": ("int64", "elements written by all copies per output pixel"),
    "params_ratio": ("float64", "params divided by those of the reference convolutions"),
    "macs_ratio": ("float64", "macs_per_pixel divided by that of the reference convolutions"),
    "field_side": ("int32", "spatial information field, side in pixels"),
    "field_channels": ("int32", "channel information field, channels of the block's input"),
    "layers": ("int32", "layers of one copy, shuffles included"),
    "params_formula": ("string", "params in the symbols C, F, K and groups g_1, g_2, ..."),
    "field_condition": ("string", "what the parameters must meet for the full channel field"),
    "irreducible": ("bool", "whether no proper sub-sequence of the layers has the field"),
    "dominated_by": (
        "string",
        "first survivor that is no worse in params, MACs, activations and "
        "layers and better in one; null if none",
    ),
    "same_as": (
        "string",
        "simpler composition that the cheapest legal choice amounts to, groups "
        "1 and C included; null if none",
    ),
    "published_as": ("string", "names of the composition in the literature; null if none"),
}
NULLABLE: Final = frozenset({"bottleneck", "dominated_by", "same_as", "published_as"})


def save(catalogue: Catalogue, path: str | os.PathLike[str]) -> None:
    """Write the catalogue: .parquet is the catalogue itself; .csv, .json, .md are exports.

    The file appears whole or not at all; on failure an older file of that name stays as it was.

    Raises: OutputError for another suffix, or when the file cannot be written there.
    """
    writer = _writer(path)
    with replacing(path) as file:
        file.write_bytes(writer(catalogue))


def load(path: str | os.PathLike[str]) -> Catalogue:
    """Return the catalogue that was saved in a .parquet file.

    Raises: CatalogueError when there is no such file, or it is truncated, not a catalogue of
        ifspace, or one of another schema version.
    """
    import pyarrow
    import pyarrow.parquet

    name = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CatalogueError.because(
            "catalogue cannot be read",
            got=f"{name} ({error.strerror or type(error).__name__})",
            allowed="a readable .parquet file",
            remedy="write one with `ifspace enumerate --out FILE.parquet`",
        ) from None
    try:
        table = pyarrow.parquet.read_table(BytesIO(data), page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError, ValueError):
        raise _unreadable(name, "no Parquet file, or only a part of one") from None
    provenance = (table.schema.metadata or {}).get(METADATA_KEY)
    if provenance is None:
        raise _unreadable(name, "a Parquet file of something else")
    try:
        about = json.loads(provenance)
        if about["schema"] != SCHEMA_VERSION:
            raise _unreadable(name, f"schema version {about['schema']}, not {SCHEMA_VERSION}")
        if not table.schema.equals(_schema()):
            raise _unreadable(name, "columns that the schema does not name")
        settings = tuple(map(EnumerationSetting.from_arguments, about["settings"]))
        funnels = tuple(map(Funnel.from_json, about["funnels"]))
        designs = tuple(_designs(table))
    except CatalogueError:
        raise
    except (IfspaceError, ValueError, KeyError, TypeError, AttributeError):
        raise _unreadable(name, "provenance that makes no sense") from None
    return Catalogue(settings, funnels, designs)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OutputError when `save` could not write there; to be asked before a long search."""
    _writer(path)
    with replacing(path, keep=False) as file:
        file.touch()


def _writer(path: str | os.PathLike[str]) -> Callable[[Catalogue], bytes]:
    writers: dict[str, Callable[[Catalogue], bytes]] = {
        ".parquet": _to_parquet,
        ".csv": lambda catalogue: to_csv(catalogue).encode(),
        ".json": lambda catalogue: to_json(catalogue).encode(),
        ".md": lambda catalogue: to_markdown(catalogue).encode(),
    }
    suffix = Path(path).suffix.lower()
    if suffix not in writers:
        raise OutputError.because(
            "unknown output format",
            got=Path(path).name,
            allowed=", ".join(writers),
            remedy="end the name with one of them",
        )
    return writers[suffix]


def _schema() -> Any:
    import pyarrow

    types = {"bool": pyarrow.bool_()}
    return pyarrow.schema(
        pyarrow.field(
            name,
            types.get(kind) or getattr(pyarrow, kind)(),
            nullable=name in NULLABLE,
            metadata={"description": description},
        )
        for name, (kind, description) in COLUMNS.items()
    )


def _to_parquet(catalogue: Catalogue) -> bytes:
    import pyarrow
    import pyarrow.parquet

    about = {
        "ifspace": version(),
        "schema": SCHEMA_VERSION,
        "settings": [setting.arguments() for setting in catalogue.settings],
        "funnels": [funnel.to_json() for funnel in catalogue.funnels],
    }
    schema = _schema().with_metadata({METADATA_KEY: json.dumps(about)})
    columns = {name: [_cell(design, name) for design in catalogue.designs] for name in COLUMNS}
    buffer = BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table(columns, schema=schema),
        buffer,
        version="2.6",
        compression="zstd",
        compression_level=3,
        row_group_size=1 << 16,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def _cell(design: Design, column: str) -> Any:
    if column.startswith("field_") and column != "field_condition":
        return design.field[column == "field_channels"]
    return str(design.block) if column == "block" else getattr(design, column)


def _designs(table: Any) -> Iterator[Design]:
    columns = {name: table.column(name).to_pylist() for name in COLUMNS}
    columns["field"] = list(
        zip(columns.pop("field_side"), columns.pop("field_channels"), strict=True)
    )
    columns["block"] = list(map(Block.parse, columns["block"]))
    names = list(columns)
    for values in zip(*columns.values(), strict=True):
        yield Design(**dict(zip(names, values, strict=True)))


def version() -> str:
    """Return the version of ifspace, or "unknown" when it runs without being installed."""
    try:
        return metadata.version("ifspace")
    except metadata.PackageNotFoundError:
        return "unknown"


def _unreadable(name: str, got: str) -> CatalogueError:
    return CatalogueError.because(
        f"{name} is not a catalogue that can be read",
        got=got,
        allowed="a whole .parquet file written by ifspace",
        remedy="write it anew with `ifspace enumerate --out FILE.parquet`",
    )
