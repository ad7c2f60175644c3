from dataclasses import replace
from pathlib import Path

import pytest
from samples import DW_PW, SMALL, WIDER

from ifspace.block import Block
from ifspace.catalogue import Catalogue, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import SettingError
from ifspace.report.read import Results, read
from ifspace.report.tables import (
    setting_name,
    settings,
    tables,
)
from ifspace.table import Table


def only(results: Results, part: str, number: int = 0) -> Table:
    return tables(results, part)[number]


def test_a_setting_is_named_by_what_is_not_the_default() -> None:
    names = [setting_name(setting) for _, _, setting in settings_of(SMALL)]
    assert names == ["16 channels", "32 to 64 channels, bottleneck 1/4, repeats 2"]
    assert setting_name(EnumerationSetting(channels=8, max_len=2, kernel=5, dims=1)) == (
        "8 channels, kernel 5, dims 1"
    )


def settings_of(catalogue: Catalogue) -> list[tuple[Catalogue, int, EnumerationSetting]]:
    empty = Results(None, (catalogue,), {}, (), ())  # type: ignore[arg-type]
    return list(settings(empty))


def test_designs_belong_to_their_setting() -> None:
    first, second = SMALL.settings
    assert SMALL.designs_of(first) == SMALL.designs[:3]
    assert SMALL.designs_of(second) == (WIDER,)
    other = replace(DW_PW, stride=2)
    assert Catalogue(SMALL.settings, SMALL.funnels, (other,)).designs_of(first) == ()


def test_the_funnel_is_that_of_the_catalogue(results: Results) -> None:
    table = only(results, "funnel")
    assert table.names == ("length", "1", "2", "3", "all")
    assert table.rows == (
        ("compositions", "6", "36", "216", "258"),
        ("after repeated patterns", "6", "30", "210", "246"),
        ("survivors", "0", "2", "1", "3"),
    )
    assert len(tables(results, "funnel")) == 2


def test_the_best_of_each_length_and_the_published(results: Results) -> None:
    rows = only(results, "designs").rows
    assert [row[:3] for row in rows] == [
        ("2", "DW+PW", "400"),
        ("3", "DW+RPW(4,0)+RPW(4,0)", "272"),
    ]
    assert rows[0][-1] == "MobileNet"
    assert rows[1][3] == "1/8.5"


def test_blocks_that_cost_the_same_are_counted() -> None:
    twins = [
        replace(DW_PW, composition="PW+DW", block=Block.parse("PW+DW"), published_as=None),
        DW_PW,
    ]
    catalogue = replace(SMALL, designs=(*twins, *SMALL.designs[2:3]))
    results = Results(None, (catalogue,), {}, (), ())  # type: ignore[arg-type]
    first, second, *_ = only(results, "designs").rows
    assert (first[1], first[-1]) == ("PW+DW", "1 more costs the same")
    assert (second[1], second[-1]) == ("DW+PW", "MobileNet")


def test_the_front_says_what_each_row_trades(results: Results) -> None:
    (table,) = tables(results, "front")
    assert [row[1] for row in table.rows] == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    assert table.rows[1][-1] == (
        "+128 params: activations 48 to 32, layers 3 to 2, least fan-in 4 to 16; MobileNet"
    )
    assert table.rows[1][table.names.index("beats")] == "381"
    assert "Of 490 choices" in table.notes[0]


def test_a_front_is_one(tmp_path: Path) -> None:
    save(SMALL, tmp_path / "front-16.parquet")
    with pytest.raises(SettingError, match=r"one row a composition.*enumerate --front"):
        read(tmp_path)


def test_groups_are_those_that_no_shorter_block_beats(results: Results) -> None:
    rows = only(results, "groups").rows
    assert [row[:4] for row in rows] == [
        ("16", "2", "DW+PW", "400"),
        ("16", "3", "DW+RPW(4,0)+RPW(4,0)", "272"),
        ("32", "2", "DW+PW", "1,312"),
        ("32", "3", "DW+RPW(4,0)+RPW(4,0)", "544"),
    ]
    assert rows[0][4] == "1/5.8"  # 9 * 16 * 16 / 400


def test_layouts_have_the_possible_further_gain(results: Results) -> None:
    ((network, _, _, depths, gain, greatest, more, theirs),) = only(results, "layouts").rows
    assert (network, depths, theirs) == ("vgg16", "3,2", "4,1")
    assert (gain, greatest, more) == ("7.500", "7.800", "4.0%")
    ((params, macs, _, gain, *_, blocks),) = only(results, "layouts", 1).rows
    assert (params, macs, gain, blocks) == ("100,000", "", "9.200", "2 × DW+PW")


def test_energy_and_reproduction(results: Results) -> None:
    ((_, budget, widths, energy, params, _),) = only(results, "energy").rows
    assert (budget, widths, energy, params) == ("4,288", "35,36,37,43", "173.04", "38,592")
    rows = only(results, "reproduction").rows
    assert rows == (("[IF] Table 1", "2", "1", "1"), ("all", "2", "1", "1"))
