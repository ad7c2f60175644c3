import json
import shutil
from pathlib import Path

import pytest
from report_samples import DEVICE, block_rows, kernel_rows, measured, write_csv
from samples import SMALL

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.run import run_in_folder
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import CatalogueError, SettingError
from ifspace.report.read import (
    BLOCKS,
    CATALOGUE,
    ENERGY,
    KERNELS,
    STAGES,
    Prediction,
    Results,
    read,
)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def test_all_results_are_read(results: Results) -> None:
    assert results.catalogues == (SMALL,)
    assert [bench.device for bench in results.kernels] == [DEVICE]
    (bench,) = results.blocks
    assert bench.device == DEVICE
    assert "class Unit" in bench.sources["DW+PW", 16, 16, 1]
    assert bench.predictions[0] == Prediction("forward", "model", 12, 0.93, 0.17)
    assert bench.predictions[1].rank_correlation is None
    assert all(results.has(source) for source in (CATALOGUE, KERNELS, BLOCKS, ENERGY, STAGES))


def test_the_latency_table_of_layouts_is_not_a_benchmark_of_kernels(folder: Path) -> None:
    assert (folder / "bench" / f"latency-{DEVICE}.csv").exists()
    assert len(read(folder).kernels) == 1


def test_unrecognised_files_are_named_and_not_read(copied: Path, results: Results) -> None:
    (copied / "notes.csv").write_text("a,b\n1,2\n")
    (copied / "best-64.md").write_text("text")
    (copied / "bench" / "cpu.md").write_text("text")
    (copied / "bench" / "own.json").write_text("{}")
    assert read(copied).rows == results.rows
    assert read(copied).unrecognised == ("notes.csv", "bench/own.json")
    assert results.unrecognised == ()


def test_missing_results_are_empty(tmp_path: Path) -> None:
    write_csv(tmp_path / "bench" / "cpu-a.csv", kernel_rows())
    results = read(tmp_path)
    assert results.has(KERNELS)
    assert not any(results.has(source) for source in (CATALOGUE, BLOCKS, ENERGY))
    assert results.of(ENERGY) == ()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no such results folder: got .*nowhere"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("front", [False, True])
def test_the_folder_of_a_run_is_its_catalogue(front: bool, tmp_path: Path) -> None:
    setting = EnumerationSetting(channels=8, max_len=3, front=front)
    run_in_folder([setting], tmp_path / "run", jobs=1)
    results = read(tmp_path / "run")
    alone = enumerate_designs([setting], jobs=1)
    assert (results.catalogues, results.fronts) == (() if front else (alone,), (alone,) * front)
    assert results.unrecognised == ()
    with pytest.raises(SettingError, match=r"a file, not a results folder: got .*shard-00000"):
        read(tmp_path / "run" / "shard-00000.parquet")


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(SettingError, match="nothing to report on"):
        read(tmp_path)


def test_a_foreign_catalogue_is_an_error(copied: Path) -> None:
    (copied / "catalogue-32.parquet").write_bytes(b"not parquet")
    with pytest.raises(CatalogueError, match=r"catalogue-32\.parquet is not a catalogue"):
        read(copied)


def test_rows_of_two_devices_are_an_error(copied: Path) -> None:
    rows = [*kernel_rows(), measured("ours", "time", 1.0, device="other")]
    write_csv(copied / "bench" / "mixed.csv", rows)
    with pytest.raises(SettingError, match=r"mixed\.csv .* rows of cpu-test, other"):
        read(copied)


def test_a_bench_file_without_rows_is_an_error(copied: Path) -> None:
    path = copied / "bench" / f"blocks-{DEVICE}.csv"
    path.write_text(path.read_text().partition("\n")[0] + "\n")
    with pytest.raises(SettingError, match="no rows"):
        read(copied)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON, or only a part"),
        ("[]", "version None, not 1"),
        (json.dumps({"version": 2, "designs": []}), "version 2, not 1"),
        (json.dumps({"version": 1}), "designs or a model that make no sense"),
        (json.dumps({"version": 1, "designs": [{"block": "PW"}]}), "designs or a model"),
        (json.dumps({"version": 1, "designs": [], "model": {"forward": 3}}), "or a model"),
        (json.dumps({"version": 1, "designs": [], "model": [1]}), "or a model"),
    ],
)
def test_the_columns_beside_the_blocks_are_checked(copied: Path, text: str, message: str) -> None:
    (copied / "bench" / f"blocks-{DEVICE}.json").write_text(text)
    with pytest.raises(SettingError, match=message):
        read(copied)


@pytest.mark.parametrize("styles", [("fog", "plain"), ("plain", "fog"), ("fog", None)])
def test_of_several_styles_the_plain_source_is_taken(copied: Path, styles) -> None:
    about = copied / "bench" / f"blocks-{DEVICE}.json"
    values = json.loads(about.read_text())
    first, *rest = values["designs"]
    both = [
        first | {"source": f"of {style}"} | ({"style": style} if style else {}) for style in styles
    ]
    about.write_text(json.dumps(values | {"designs": [*both, *rest]}))
    (bench,) = read(copied).blocks
    assert bench.sources[first["candidate"], 16, 16, 1] in ("of plain", "of None")
    about.write_text(json.dumps(values | {"designs": [both[0] | {"style": "fog"}, *rest]}))
    (bench,) = read(copied).blocks
    assert bench.sources[first["candidate"], 16, 16, 1] == both[0]["source"], "there is no other"


def test_blocks_need_no_other_file(copied: Path) -> None:
    (copied / "bench" / f"blocks-{DEVICE}.json").unlink()
    (bench,) = read(copied).blocks
    assert bench.sources == {}
    assert len(bench.rows) == len(block_rows(SMALL.designs[:3]))
