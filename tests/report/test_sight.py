import pytest

from ifspace.block import Block
from ifspace.errors import BlockError
from ifspace.reach import channel_reach, field_after
from ifspace.report.drawing import (
    MOST_COLUMNS,
    runs,
    see,
)

BLOCKS = (
    "DW+RPW(4,0)+GPW(4)",
    "GPW(4)+SH(4)+DW+GPW(4)",
    "RPW(4,1/2)+RPW(2,0.33)+DW",
    "PW+DW",
    "GC(8)+SH(8)+GPW(2)",
)


@pytest.mark.parametrize("block", BLOCKS)
def test_an_output_sees_its_exact_field(block: str) -> None:
    sized = Block.parse(block).at(16)
    sight = see(block, 16)
    reach = list(channel_reach(sized.layers))
    for output in range(16):
        seen = sum(1 << channel for channel in sight.traced(output)[0])
        assert seen == reach[output]
    assert sight.fields[1:] == field_after(sized)


def test_rows_between_are_traced_too() -> None:
    rows = see("GPW(2)+SH(2)+GPW(2)", 4).traced(0)
    assert rows == (frozenset(range(4)), frozenset({0, 2}), frozenset({0, 1}), frozenset({0}))


def test_edges_are_the_channels_read() -> None:
    sight = see("RPW(2,0)+DW", 4)
    assert sight.edges(0) == {0: [0, 1], 1: [2, 3], 2: [0, 1], 3: [2, 3]}
    assert sight.edges(1, outputs=[2]) == {2: [2]}


def test_wide_rows_share_columns() -> None:
    sight = see("PW+DW+PW", 64, 4 * MOST_COLUMNS, "1/8")
    assert sight.widths == (64, 32, 32, 256)
    assert sight.share == 4
    assert [sight.columns(row) for row in range(4)] == [16, 8, 8, 64]
    assert sight.edges(1) == {column: [column] for column in range(8)}
    assert sight.edges(2)[63] == list(range(8))


def test_runs_of_one_and_of_none() -> None:
    assert runs([]) == []
    assert runs([3]) == [(3, 3)]


def test_the_field_is_read_in_the_dimensions_of_the_block() -> None:
    assert see("DW+PW", 8).field(2) == "3×3×8"
    assert see(Block.parse("DW+PW").at(8, dims=1)).field(2) == "3×8"


def test_a_block_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(BlockError, match="groups do not divide"):
        see("GPW(3)", 8)
