"""The shortest way to write a block: of the same network, as short as the catalogue's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ifspace.block import Block
from ifspace.canonical import network_class, same_network
from ifspace.catalogue import load
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.show.same_network import MOST_CHANNELS, shortest_way


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("GPW(4)+SH(4)+DW+GPW(4)", "RPW(4,0)+DW+GPW(4)"),
        ("(GPW(4)+SH(4)+DW+GPW(4))x2", "(RPW(4,0)+DW+GPW(4))x2"),
        ("DW+RPW(4,0)+RPW(4,0)", "DW+RPW(4,0)+GPW(4)"),
        ("GPW(4)+SH(2)+SH(8)+GPW(4)", "GPW(4)+GPW(4)"),
        ("RPW(4,0,blocked)+RPW(4,1/2)", "GPW(4)+RPW(4,1/2)"),
        ("SH(4)+DW+PW", "DW+PW"),
        ("GC(8)+SH(8)+GPW(2)", None),
        ("RPW(4,1/2)+GC(4)", None),
        ("DW+PW", None),
    ],
)
def test_the_shortest_way(text: str, way: str | None) -> None:
    sized = Block.parse(text).at(16)
    block = shortest_way(sized)
    assert way == (None if block is None else str(block))
    if block is not None:
        assert same_network(sized, block.at(16))


def test_a_wide_block_is_not_rewritten() -> None:
    assert shortest_way(Block.parse("SH(2)+DW+PW").at(2 * MOST_CHANNELS)) is None


@pytest.mark.slow
@pytest.mark.parametrize("channels", [8, 16])
def test_rewriting_finds_the_representatives_of_a_catalogue(channels: int) -> None:
    setting = EnumerationSetting(channels=channels, max_len=4)
    for design in enumerate_designs([setting]).designs:
        way = shortest_way(design.sized) or design.block
        assert network_class(way.at(channels)) == design.network
        assert len(way) <= len(Block.parse(str(design.representative)))


def test_show_says_which_network_it_is(run: Callable) -> None:
    ended = run("show", "GPW(4)+SH(4)+DW+GPW(4)", "-C", 16)
    assert "same network as RPW(4,0)+DW+GPW(4), up to the order of channels" in ended.out
    assert "no shorter way to write it was found" in run("show", "DW+PW", "-C", 16).out
    about = run("show", "GPW(4)+SH(4)+DW+GPW(4)", "-C", 16, "--format", "json").json
    assert about["same_network_as"] == "RPW(4,0)+DW+GPW(4)"
    assert about["network"] == network_class(Block.parse("RPW(4,0)+DW+GPW(4)").at(16))


def test_the_network_of_a_row_of_record_is_that_of_show(run: Callable) -> None:
    results = Path(__file__).parents[2] / "results"
    design = load(results / "catalogue-64.parquet").designs[40]
    about = run("show", design.block, "-C", 64, "--format", "json").json
    assert about["network"] == design.network
