"""Tables of latencies: exact values, and errors one by one."""

from fractions import Fraction
from pathlib import Path

import pytest

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.latency import (
    COLUMNS,
    Latency,
    LatencyTable,
    at_side,
    case_text,
    latency_of,
    read_latency,
)

Q = Fraction
HEAD = "block,C,F,side,stride,batch,device,dtype,latency_ms"
ROW = "DW+PW,8,16,4,2,1,cpu,float32,0.25"
SIZED = Block.parse("DW+PW").at(8, 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def read(path: Path, *lines: str) -> LatencyTable:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_latency(path)


def check_error(path: Path, *words: str) -> None:
    with pytest.raises(SettingError, match="malformed latency table") as caught:
        read_latency(path)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.argument == "latency"
    assert [word for word in ("; allowed: ", path.name, *words) if word not in message] == [], (
        message
    )


def test_a_case_is_found_by_block_widths_side_and_stride(path: Path) -> None:
    table = read(path, HEAD, ROW, "gpw(4)+dw(3),8,8,4,1,1,cpu,float32,3")
    assert table.cases == {
        ("DW+PW", 8, 16, 4, 2): Q(1, 4),
        ("GPW(4)+DW", 8, 8, 4, 1): Q(3),
    }
    assert table.find(SIZED, 4, 2) == latency_of(table, SIZED, 4, 2) == Latency(Q(1, 4))
    others = [
        (Block.parse("DW(5)+PW").at(8, 16), 4, 2),
        (Block.parse("DW+PW").at(8), 4, 2),
        (Block.parse("DW+PW").at(16, 16), 4, 2),
        (SIZED, 8, 2),
        (SIZED, 4, 1),
    ]
    for unit, side, stride in others:
        assert table.find(unit, side, stride) is None
        with pytest.raises(SettingError, match="no latency for a block in play") as caught:
            latency_of(table, unit, side, stride)
        assert case_text(unit, side, stride) in str(caught.value)
        shape = f"{unit.channels}x{unit.out_channels}x{side}x{stride}"
        assert f"(`ifspace bench --predict {shape}`)" in str(caught.value)


def test_columns_are_read_in_any_order_among_others(path: Path) -> None:
    names, values = HEAD.split(","), ROW.split(",")
    turned = [
        ",".join([*reversed(cells), extra]) for cells, extra in ((names, "p20"), (values, "x"))
    ]
    assert tuple(names) == COLUMNS
    assert read(path, *turned) == read(path, HEAD, ROW)
    # A byte order mark, as spreadsheets write it.
    assert read(path, "\ufeff" + HEAD, ROW) == read(path, HEAD, ROW)


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("0.1", Q(1, 10)),
        ("2", Q(2)),
        ("1.5e-3", Q(15, 10**4)),
        ("12E2", Q(1200)),
        ("0.0000000001", Q(1, 10**6)),
        ("0.3333333333333", Q(333334, 10**6)),
        (" 7.25 ", Q(29, 4)),
    ],
)
def test_times_are_exact_or_rounded_up(path: Path, text: str, exact: Fraction) -> None:
    table = read(path, HEAD, ROW.replace("0.25", text))
    assert list(table.cases.values()) == [exact]


@pytest.mark.parametrize(
    "text", ["", "0", "0.0", "-1", "nan", "inf", "1/2", "1,5", "fast", "1e9", "0x1", "١", "1_0"]
)
def test_wrong_times_raise(path: Path, text: str) -> None:
    path.write_text(f"{HEAD}\n{ROW.replace('0.25', f'{chr(34)}{text}{chr(34)}')}\n", "utf-8")
    check_error(path, "line 2: latency_ms", repr(text), "numbers above 0")


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("C", "0"),
        ("C", "x"),
        ("F", ""),
        ("F", "-8"),
        ("side", "4.0"),
        ("side", "123456789"),
        ("stride", "two"),
        ("stride", "0"),
        ("C", "٨"),
    ],
)
def test_wrong_numbers_raise(path: Path, column: str, text: str) -> None:
    values = dict(zip(COLUMNS, ROW.split(","), strict=True)) | {column: text}
    path.write_text("\n".join([HEAD, ROW.replace("8", "9"), ",".join(values.values())]), "utf-8")
    check_error(path, f"line 3: {column} {text!r}", "whole numbers from 1")


@pytest.mark.parametrize(("block", "word"), [("XY", "'XY'"), ("", "''"), ("DW+GPW", "'DW+GPW'")])
def test_wrong_blocks_raise(path: Path, block: str, word: str) -> None:
    path.write_text(f"{HEAD}\n{ROW.replace('DW+PW', block)}\n", "utf-8")
    check_error(path, "line 2: ", word, "blocks with their groups")


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_is_needed(path: Path, column: str) -> None:
    path.write_text(f"{HEAD.replace(column, 'x' + column, 1)}\n{ROW}\n", "utf-8")
    check_error(path, f"no column {column}", HEAD.replace(",", ", "))


@pytest.mark.parametrize(
    ("was", "now", "fault"),
    [
        (",1,cpu", ",8,cpu", "batch 1, 8"),
        ("cpu", "cuda", "device cpu, cuda"),
        ("float32", "float16", "dtype float16, float32"),
    ],
)
def test_mixed_conditions_raise(path: Path, was: str, now: str, fault: str) -> None:
    path.write_text("\n".join([HEAD, ROW, ROW.replace(was, now)]), "utf-8")
    check_error(path, f"got {fault}; allowed: one batch, device and dtype in a table")


def test_a_case_measured_twice_raises(path: Path) -> None:
    path.write_text("\n".join([HEAD, ROW, ROW.replace("DW+PW", "dw(3)+pw")]), "utf-8")
    check_error(path, "line 3 measures a case again", "each case once")


def test_lines_are_counted_as_an_editor_does(path: Path) -> None:
    path.write_text("\n".join([HEAD, "", ROW, "", ROW.replace("0.25", "x")]), "utf-8")
    check_error(path, "line 5: latency_ms 'x'")


def test_short_rows_raise(path: Path) -> None:
    path.write_text(f"{HEAD}\nDW+PW,8,16\n", "utf-8")
    check_error(path, "line 2 has 3 fields, the header 9", "decimals with a point")
    path.write_text(f"{HEAD}\n{ROW.rpartition(',')[0]}\n", "utf-8")
    check_error(path, "line 2 has 8 fields, the header 9")


def test_a_column_that_is_there_twice_is_an_error(path: Path) -> None:
    path.write_text(f"{HEAD},F\n{ROW},8\n", "utf-8")
    check_error(path, "column F twice")


def test_files_that_are_not_tables_raise(path: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no latency table there: got .*table\.csv"):
        read_latency(path)
    path.write_text("", "utf-8")
    check_error(path, "an empty file")
    path.write_text(f"{HEAD}\n", "utf-8")
    check_error(path, "no rows")
    path.write_bytes(b"\xff\xfe\x00,\x80")
    check_error(path, "a readable CSV file")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    check_error(folder, "Is a directory")


def test_tables_of_the_same_cases_are_equal() -> None:
    one, other = (LatencyTable({("PW", 8, 8, side, 1): Q(1)}) for side in (4, 4))
    assert (one, hash(one)) == (other, hash(other))
    assert one != LatencyTable({("PW", 8, 8, 8, 1): Q(1)})


def test_of_several_forms_the_fastest_counts(path: Path) -> None:
    table = read(path, HEAD + ",form", ROW + ",", ROW[:-4] + "0.125,fused", ROW + ",collapsed")
    assert table.find(SIZED, 4, 2) == Latency(Q(1, 8), "fused")
    path.write_text(f"{HEAD},form\n{ROW},quick\n", "utf-8")
    check_error(path, "line 2: form 'quick'", "as is, collapsed, fused")


def test_predicted_rows_outside_the_measured_shapes_are_extrapolated(path: Path) -> None:
    predicted = [f"PW,{c},{c},{side},1,1,cpu,float32,1,predicted" for c, side in ((8, 4), (16, 8))]
    table = read(path, HEAD + ",source", "PW+DW,8,8,4,1,1,cpu,float32,1,measured", *predicted)
    latencies = [table.find(Block.parse("PW").at(c), side) for c, side in ((8, 4), (16, 8))]
    assert latencies == [Latency(Q(1)), Latency(Q(1), extrapolated=True)]


def test_the_side_is_the_only_one_of_the_widths(path: Path) -> None:
    table = read(path, HEAD, ROW, ROW.replace("8,16,4", "8,8,2"))
    assert at_side(table)(SIZED, 2) == Latency(Q(1, 4))
    assert at_side(table)(SIZED, 1) is None
    table = read(path, HEAD, ROW, ROW.replace("8,16,4", "8,16,2"))
    with pytest.raises(
        SettingError, match=r"several sides .*: got sides 2, 4 for 8 to 16 channels"
    ):
        at_side(table)(SIZED, 2)


@pytest.mark.parametrize("name", ["latency_us", "latency", "time", "Latency"])
def test_a_time_whose_unit_is_not_said_raises(path: Path, name: str) -> None:
    path.write_text(f"{HEAD.replace('latency_ms', name)}\n{ROW}\n", "utf-8")
    check_error(path, f"column {name}, whose unit is not known; allowed: latency_ms")
