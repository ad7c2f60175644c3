"""The study of widths: its settings, and that it goes on where it stopped, to the same rows."""

import csv
from pathlib import Path

import pytest

from experiments.widths_study import FLOORS, NAME, NETWORKS, Study, main, width_pairs
from ifspace.enumerate.satisfiable import check_floors
from ifspace.enumerate.search import enumerate_designs
from ifspace.floors import Floors

# Of the published tables: the widths of the stages, and of the changes between them.
RESNET18 = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]


def test_settings_are_every_pair_of_widths_under_every_floor() -> None:
    assert len(set(NETWORKS)) == 10
    assert sorted(width_pairs("torchvision:resnet18")) == RESNET18
    study = Study.of(("torchvision:resnet18",), 2)
    pairs = [(setting.channels, setting.out_width) for setting in study.settings]
    assert pairs == [pair for pair in RESNET18 for _ in FLOORS]
    assert len(set(study.settings)) == 7 * len(FLOORS)
    assert study.left_out == 0


def test_pairs_without_a_block_under_a_floor_are_counted() -> None:
    floors = (Floors(least_fan_in=64), Floors())
    study = Study.of(("torchvision:mobilenet_v3_large",), 2, floors)
    assert study.left_out > 0
    assert len(study.settings) + study.left_out == 2 * len(study.networks)
    for setting in study.settings[:12]:
        check_floors(setting)


@pytest.mark.slow
def test_a_study_in_shares_has_the_rows_of_the_search(tmp_path: Path) -> None:
    command = [str(tmp_path), "--networks", "torchvision:resnet18", "--max-len", "2", "--jobs", "1"]
    command += ["--first", "12"]
    main([*command, "--shard", "2/2"])
    assert not (tmp_path / f"{NAME}.md").exists()
    main([*command, "--shard", "1/2"])
    with (tmp_path / f"{NAME}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    settings = Study.of(("torchvision:resnet18",), 2).settings[:12]
    for row, setting in zip(rows, settings, strict=True):
        designs = enumerate_designs([setting], jobs=1).designs
        assert int(row["survivors"]) == len(designs)
        assert int(row["params"]) == min(design.params for design in designs)
        assert row["networks"] == "torchvision:resnet18"
    before = (tmp_path / f"{NAME}.csv").read_bytes()
    main(command)
    assert (tmp_path / f"{NAME}.csv").read_bytes() == before
