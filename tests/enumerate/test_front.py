"""The front: against brute force as sets, with its counts, and its numbers at 64 channels."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from brute_front import Front

from ifspace.catalogue import Design, load, save
from ifspace.catalogue.front import front_networks, trade
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import Alphabet
from ifspace.enumerate.compositions import candidates
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch
from ifspace.enumerate.halves import HalfSearch
from ifspace.enumerate.search import enumerate_designs
from ifspace.floors import Floors

ROOT = Path(__file__).resolve().parents[2]


def assert_same_front(setting: EnumerationSetting) -> Front:
    catalogue = enumerate_designs([setting], jobs=1)
    front = Front(setting)
    rows = {
        (design.composition, design.costs): (str(design.block), design.stands_for, design.beats)
        for design in catalogue.designs
    }
    assert len(rows) == len(catalogue.designs) == catalogue.funnels[0].rows
    assert rows == front.rows
    undominated = [design for design in catalogue.designs if design.dominated_by is None]
    assert {design.costs for design in undominated} == front.whole
    assert catalogue.funnels[0].choices_passing == front.choices
    return front


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "length"), [(8, 4), (12, 4), (16, 4), (24, 3)])
def test_the_front_is_that_of_brute_force(channels: int, length: int) -> None:
    front = assert_same_front(EnumerationSetting(channels=channels, max_len=length, front=True))
    assert len(front.whole) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 8, "repeats": 2},
        {"channels": 8, "out_channels": 16, "repeats": 2},
        {"channels": 16, "bottleneck": "1/2", "repeats": 2, "overlaps": ("0",)},
        {"channels": 8, "rule": "early-stop"},
        {"channels": 12, "rule": "early-stop", "repeats": 2},
        {"channels": 12, "permutation": "free"},
        {"channels": 12, "out_channels": 24, "stride": 2},
        {"channels": 12, "out_channels": 8, "stride": 2, "objective": "macs"},
        {"channels": 16, "bottleneck": "1/4", "stride": 2, "dims": 1},
        {"channels": 16, "compact": "subset", "rpw_order": "both"},
        {"channels": 12, "compact": "kernels", "patterns": "any"},
    ],
    ids=str,
)
def test_the_front_of_other_settings_is_that_of_brute_force(arguments: dict[str, object]) -> None:
    assert_same_front(EnumerationSetting(max_len=3, front=True, **arguments))


def test_halves_and_the_forward_walk_count_the_same_choices() -> None:
    alphabet = Alphabet(
        EnumerationSetting(channels=16, max_len=4, kinds=("GC", "GPW", "RPW", "SH"), front=True)
    )
    halves, forward = HalfSearch(alphabet), ForwardSearch(alphabet, ExactAlgebra(alphabet))
    kinds = alphabet.setting.usable_kinds
    sequences = [letters for _, letters in candidates(alphabet, halves, [kinds] * 4)]
    by_halves, by_walk = halves.points(sequences), forward.points(sequences)
    assert by_halves == by_walk
    assert sum(point.count for points in by_halves.values() for point in points) > 900


@pytest.fixture(scope="module")
def at_64() -> tuple[Design, ...]:
    setting = EnumerationSetting(channels=64, max_len=4, front=True)
    return enumerate_designs([setting], jobs=1).designs


def test_the_front_at_64_channels(at_64: tuple[Design, ...]) -> None:
    networks = [design for design, _ in front_networks(at_64)]
    amounts = {(design.params, design.least_fan_in, design.layers) for design in networks}
    assert amounts == {
        (1344, 4, 4),
        (1600, 8, 3),
        (2624, 16, 3),
        (3200, 2, 2),
        (3328, 4, 2),
        (4672, 64, 2),
    }
    assert len(networks) == 14
    assert "DW+PW" in {design.composition for design in networks}
    first, *_, last = networks
    assert trade(first, networks[4]) == (
        "+256 params: activations 256 to 192, layers 4 to 3, least fan-in 4 to 8"
    )
    assert trade(first, last) == (
        "+3,328 params: activations 256 to 128, layers 4 to 2, least fan-in 4 to 64"
    )


ROW = r"^\| `([^`]+)`[^|]*\| ([0-9,]+) \| (\d+) \| (\d+) \| (\d+) \| ([0-9.]+) \|$"


def test_the_front_in_the_readme_is_that_of_the_results(at_64: tuple[Design, ...]) -> None:
    rows = re.findall(ROW, (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    shown = {(block, *(int(cell.replace(",", "")) for cell in cells)) for block, *cells, _ in rows}
    recorded = load(ROOT / "results" / "front-64.parquet").designs
    for designs in (at_64, recorded):
        networks = [design for design, _ in front_networks(designs)]
        front = {
            (str(x.block), x.params, x.least_fan_in, x.activations_per_pixel, x.layers)
            for x in networks
        }
        assert shown <= front
        assert {row[1:] for row in shown} == {row[1:] for row in front}


def test_the_times_in_the_readme_are_those_of_the_results() -> None:
    setting = {"threads": "2", "batch": "16", "channels": "64", "side": "56"}
    with (ROOT / "results" / "fused-blocks.csv").open(newline="") as table:
        measured = {
            row["block"]: float(row["of DW+PW"])
            for row in csv.DictReader(table)
            if setting.items() <= row.items()
        }
    rows = re.findall(ROW, (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert len(rows) == 6
    for block, *_, shown in rows:
        assert float(shown) == pytest.approx({"DW+PW": 1, **measured}[block], abs=0.0051)


def test_a_floor_leaves_the_rows_of_the_front_that_meet_it(at_64: tuple[Design, ...]) -> None:
    floors = Floors(least_fan_in=16)
    setting = EnumerationSetting(channels=64, max_len=4, front=True, floors=floors)
    within = enumerate_designs([setting], jobs=1).designs
    assert min(design.params for design in within) == 2624
    assert [design.block for design in within] == [
        design.block for design in at_64 if design.least_fan_in >= 16
    ]


def test_the_cheapest_row_of_a_composition_is_the_one_without_a_front(
    at_64: tuple[Design, ...],
) -> None:
    plain = enumerate_designs([EnumerationSetting(channels=64, max_len=4)], jobs=1).designs
    first: dict[str, Design] = {}
    for design in at_64:
        first.setdefault(design.composition, design)
    assert {name: design.params for name, design in first.items()} == {
        design.composition: design.params for design in plain
    }


def test_a_front_is_saved_and_loaded(tmp_path: Path) -> None:
    setting = EnumerationSetting(channels=16, max_len=3, front=True)
    catalogue = enumerate_designs([setting], jobs=1)
    save(catalogue, tmp_path / "front.parquet")
    assert load(tmp_path / "front.parquet") == catalogue


def test_the_command_shows_the_front(run: Callable, snapshot: object) -> None:
    ended = run(
        "enumerate", "-C", 16, "--max-len", 3, "--front", "--all", "--limit", 8, "--jobs", 1
    )
    assert ended.status == 0
    assert ended.out == snapshot
