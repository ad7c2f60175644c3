"""The catalogue in files: Parquet, and its exports to CSV, JSON and Markdown."""

import csv
import json
import os
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet
import pytest
from samples import EMPTY, SMALL

from ifspace.catalogue import (
    Catalogue,
    Design,
    check_writable,
    load,
    save,
)
from ifspace.catalogue.dataset import METADATA_KEY, notes, to_csv, to_json, to_markdown
from ifspace.catalogue.design import COLUMNS
from ifspace.errors import CatalogueError, OutputError


def saved(tmp_path: Path, catalogue: Catalogue = SMALL, name: str = "a.parquet") -> Path:
    path = tmp_path / name
    save(catalogue, path)
    return path


@pytest.mark.parametrize("catalogue", [SMALL, EMPTY], ids=["small", "empty"])
def test_a_saved_catalogue_is_read_back(tmp_path: Path, catalogue: Catalogue) -> None:
    assert load(saved(tmp_path, catalogue)) == catalogue


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    first = saved(tmp_path, name="a.parquet").read_bytes()
    again = saved(tmp_path, load(tmp_path / "a.parquet"), "b.parquet").read_bytes()
    assert first == again


def test_the_file_explains_itself_and_names_no_machine(tmp_path: Path) -> None:
    path = saved(tmp_path)
    schema = pyarrow.parquet.read_schema(path)
    assert schema.names == list(COLUMNS)
    for column in schema:
        assert column.metadata[b"description"]
    about = json.loads(schema.metadata[METADATA_KEY])
    assert list(about) == ["ifspace", "schema", "settings", "funnels", "checksum"]
    assert about["settings"][1]["bottleneck"] == "1/4"
    assert about["funnels"][0]["by_length"] == [0, 2, 1]
    content = path.read_bytes()
    for word in (os.uname().nodename, str(tmp_path), str(os.getpid())):
        assert word.encode() not in content


def test_every_field_of_a_design_is_a_column_with_a_meaning() -> None:
    names = {attribute.name for attribute in fields(Design)} - {"field"}
    assert names | {"field_side", "field_channels"} == set(COLUMNS)
    assert all(column.meaning and name == column.name for name, column in COLUMNS.items())


@pytest.mark.parametrize("part", [0, 3, 100, -200, -1])
def test_a_truncated_file_is_an_error(tmp_path: Path, part: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(CatalogueError, match=r"a.parquet is not a catalogue.*only a part"):
        load(path)


def test_a_damaged_page_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CatalogueError, match="is not a catalogue"):
        load(path)


def test_a_foreign_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "foreign.parquet"
    path.write_text("block,params\n")
    with pytest.raises(CatalogueError, match="no Parquet file"):
        load(path)
    pyarrow.parquet.write_table(pyarrow.table({"block": ["DW"]}), path)
    with pytest.raises(CatalogueError, match="a Parquet file of something else"):
        load(path)
    with pytest.raises(CatalogueError, match=r"cannot be read: got .*none.parquet \(No such file"):
        load(tmp_path / "none.parquet")
    with pytest.raises(
        CatalogueError, match=r"no folder of a catalogue: got .*manifest.json: No such file"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (b"{", "provenance that makes no sense"),
        (b"[]", "provenance that makes no sense"),
        (b'{"schema": 99}', "schema version 99, not 5"),
        (b'{"schema": 1, "settings": [], "funnels": []}', "columns that the schema does not name"),
    ],
)
def test_another_schema_is_an_error(tmp_path: Path, about: bytes, message: str) -> None:
    path = tmp_path / "other.parquet"
    table = pyarrow.table({"block": ["DW"]}).replace_schema_metadata({METADATA_KEY: about})
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(CatalogueError, match=message):
        load(path)


def rewrite(path: Path, about: dict | None = None, **columns: list) -> None:
    """Write a file anew with other metadata or other columns, as an editor of it would."""
    table = pyarrow.parquet.read_table(path)
    for name, values in columns.items():
        field = table.schema.field(name)
        index = table.schema.get_field_index(name)
        table = table.set_column(index, field, pyarrow.array(values, field.type))
    if about is not None:
        metadata = {METADATA_KEY: json.dumps(about).encode()}
        table = table.replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, path)


def test_changed_metadata_are_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path)
    about = json.loads(pyarrow.parquet.read_schema(path).metadata[METADATA_KEY])
    rewrite(path, about)
    assert load(path) == SMALL
    for change in ({"ifspace": "9.9"}, {"checksum": "0" * 64}, {"settings": []}):
        rewrite(path, about | change)
        with pytest.raises(CatalogueError, match="metadata that has changed since it was written"):
            load(path)
    rewrite(path, {key: value for key, value in about.items() if key != "checksum"})
    with pytest.raises(CatalogueError, match="metadata that has changed"):
        load(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("params", 1),
        ("macs_per_pixel", 1),
        ("activations_per_pixel", 1),
        ("peak_per_pixel", 1),
        ("params_ratio", 0.25),
        ("layers", 9),
        ("composition", "DW+DW"),
        ("field_side", 7),
        ("field_channels", 3),
        ("channels", 24),
        ("block", "DW+RPW(8,0)+RPW(2,1/2)"),
    ],
)
def test_a_row_that_is_not_that_of_its_block_is_an_error(
    tmp_path: Path, column: str, value: object
) -> None:
    path = saved(tmp_path)
    values = pyarrow.parquet.read_table(path).column(column).to_pylist()
    rewrite(path, **{column: [*values[:-1], value]})
    with pytest.raises(CatalogueError, match=rf"got row {len(values)}: ") as raised:
        load(path)
    assert "\n" not in str(raised.value)
    if column not in ("block", "channels"):
        assert len(load(path, check=False).designs) == len(values)


@pytest.mark.parametrize("block", ["DW+", "+".join(["DW"] * 129)])
def test_a_row_whose_block_cannot_be_read_is_an_error_of_the_rows(
    tmp_path: Path, block: str
) -> None:
    path = saved(tmp_path)
    blocks = pyarrow.parquet.read_table(path).column("block").to_pylist()
    rewrite(path, block=[*blocks[:-1], block])
    with pytest.raises(CatalogueError, match=r"got rows that make no sense \("):
        load(path)


def test_a_missing_row_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path)
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.slice(1), path)
    with pytest.raises(CatalogueError, match=r"rows, .* in the funnels"):
        load(path)


def test_too_many_rows_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    monkeypatch.setattr("ifspace.catalogue.dataset.MAX_ROWS", 2)
    with pytest.raises(CatalogueError, match=r"is too long: got .* rows; allowed: up to 2"):
        load(path)
    monkeypatch.setattr("ifspace.catalogue.dataset.MAX_ROWS", 10**6)
    monkeypatch.setattr("ifspace.catalogue.dataset.CHECKED_ROWS", 2)
    values = pyarrow.parquet.read_table(path).column("params").to_pylist()
    rewrite(path, params=[1, *values[1:]])
    assert load(path).designs[0].params == 1  # a long one is compared only where that is asked for
    with pytest.raises(CatalogueError, match="row 1: params 1, its block has"):
        load(path, check=True)


def test_an_invalid_setting_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path)
    table = pyarrow.parquet.read_table(path)
    about = table.schema.metadata[METADATA_KEY].replace(b'"compact"', b'"compost"')
    pyarrow.parquet.write_table(table.replace_schema_metadata({METADATA_KEY: about}), path)
    with pytest.raises(CatalogueError, match="metadata that has changed"):
        load(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json", ".md"])
def test_an_older_file_survives_a_failed_write(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot be written.*No space left") as caught:
        save(SMALL, path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_an_interrupt_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(source: object, target: object) -> None:
        raise KeyboardInterrupt("stop")

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        save(SMALL, tmp_path / "a.parquet")
    assert os.listdir(tmp_path) == []


def test_a_path_that_cannot_be_written_is_an_error_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dir.parquet").mkdir()
    for name in ("none/a.parquet", "file/a.parquet", "dir.parquet"):
        with pytest.raises(OutputError, match="output cannot be written"):
            check_writable(tmp_path / name)
        with pytest.raises(OutputError, match="output cannot be written"):
            save(SMALL, tmp_path / name)
    for name in ("a.txt", "a", ".parquet"):
        with pytest.raises(OutputError, match=r"unknown output format.*allowed: .parquet, .csv"):
            check_writable(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["dir.parquet", "file"]


def test_the_check_leaves_an_older_file_alone(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    check_writable(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "real" / "a.csv")
    save(SMALL, link)
    assert link.is_symlink()
    assert (tmp_path / "real" / "a.csv").read_text().startswith("channels,")


def test_the_exports_hold_the_same_rows(tmp_path: Path) -> None:
    with saved(tmp_path, name="a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["block"] for row in rows] == [str(design.block) for design in SMALL.designs]
    assert list(rows[0]) == list(COLUMNS)
    assert (rows[3]["field_side"], rows[3]["field_channels"]) == ("5", "32")
    assert float(rows[0]["params_ratio"]) == SMALL.designs[0].params_ratio
    values = json.loads(saved(tmp_path, name="a.json").read_text())
    assert [design["params"] for design in values["designs"]] == [544, 400, 272, 3872]


def test_markdown_has_the_funnels_and_the_designs(tmp_path: Path, snapshot: object) -> None:
    assert saved(tmp_path, name="a.md").read_text() == snapshot


def test_the_json_keeps_its_keys_and_types() -> None:
    values = json.loads(to_json(SMALL))
    assert list(values) == ["arguments", "funnel", "settings", "designs"]
    assert values["arguments"]["channels"] == 16
    funnel = values["funnel"]
    assert {"compositions", "after_patterns", "survivors", "by_length"} <= set(funnel)
    assert funnel["by_length"] == [0, 2, 1]
    types = {
        "composition": str,
        "block": str,
        "params": int,
        "macs_per_pixel": int,
        "activations_per_pixel": int,
        "peak_per_pixel": int,
        "field": list,
        "layers": int,
        "irreducible": bool,
    }
    for design in values["designs"]:
        names = [attribute.name for attribute in fields(Design)]
        assert list(design) == [*names, "field_as_written"]
        for key, kind in types.items():
            assert type(design[key]) is kind
        for key in ("dominated_by", "same_as", "published_as"):
            assert design[key] is None or type(design[key]) is str
        assert [type(part) for part in design["field"]] == [int, int]


def test_every_setting_has_its_arguments_and_funnel() -> None:
    settings = json.loads(to_json(SMALL))["settings"]
    assert [setting["arguments"]["channels"] for setting in settings] == [16, 32]
    assert [setting["funnel"]["survivors"] for setting in settings] == [3, 1]


def test_one_design_is_one_line_of_json() -> None:
    lines = to_json(SMALL).splitlines()
    assert sum('"composition":' in line for line in lines) == len(SMALL.designs)
    assert json.loads(to_json(EMPTY))["designs"] == []


def test_an_empty_catalogue_has_headers_only() -> None:
    assert to_csv(EMPTY.designs).count("\n") == 1
    assert to_markdown(EMPTY).count("\n") == 2


def test_notes_name_the_limits_of_the_numbers() -> None:
    assert [notes(design) for design in SMALL.designs] == [
        "cheaper as DW+PW; dominated by DW+PW",
        "MobileNet",
        "",
        "",
    ]
