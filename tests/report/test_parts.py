import shutil
from pathlib import Path

import pytest
from report_samples import DEVICE, kernel_rows, write_csv

from ifspace.errors import SettingError
from ifspace.report.read import (
    PARTS,
    Results,
    chosen,
    left_out,
    read,
)
from ifspace.report.tables import tables


def test_parts_keep_their_order() -> None:
    assert [part.name for part in chosen(["energy", "funnel"])] == ["funnel", "energy"]
    assert chosen(None) == PARTS


def test_an_unknown_part_is_an_error_that_lists_the_parts() -> None:
    with pytest.raises(SettingError, match="'speed'; allowed: funnel, designs, front"):
        chosen(["funnel", "speed"])


def test_nothing_is_left_out_of_a_whole_folder(results: Results) -> None:
    assert left_out(results, PARTS) == ()
    assert all(tables(results, part.name) for part in PARTS)


def test_the_blocks_of_a_device_are_not_kernels(
    folder: Path, tmp_path: Path, snapshot: object
) -> None:
    shutil.copytree(folder, tmp_path / "a")
    (tmp_path / "a" / "bench" / f"{DEVICE}.csv").unlink()
    (message,) = left_out(read(tmp_path / "a"), PARTS)
    assert message.replace(str(tmp_path), "FOLDER") == snapshot


def test_parts_left_out_name_the_command_that_writes_them(tmp_path: Path, snapshot: object) -> None:
    write_csv(tmp_path / "bench" / "cpu-a.csv", kernel_rows())
    results = read(tmp_path)
    messages = left_out(results, PARTS)
    assert all(str(tmp_path) in text for text in messages)
    assert [text.replace(str(tmp_path), "FOLDER") for text in messages] == snapshot
    assert not any("bench.kernels" in text for text in messages)
    assert [part.name for part in PARTS if tables(results, part.name)] == ["kernels"]
