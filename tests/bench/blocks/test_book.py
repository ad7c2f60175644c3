"""Rows are kept, replaced, read back; files of something else are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from ifspace.bench.rows import (
    COLUMNS,
    COMPILED,
    LEAST,
    NOT_RUN,
    RED,
    ROUNDS,
    TIME,
    Book,
    Machine,
)
from ifspace.bench.session import filled
from ifspace.errors import OutputError, SettingError

MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")


@pytest.fixture
def start(block, here):
    return block("DW+PW").row(here, "forward", MACHINE)


def timed(start, rounds: int, suffix: str = ""):
    return [
        filled(start, TIME + suffix, "ms", [1.0, 2.0, 4.0], 0.5),
        filled(start, LEAST + suffix, "ms", [1.0]),
        filled(start, ROUNDS + suffix, "count", [rounds]),
    ]


def test_what_was_measured_is_known_until_something_differs(start, block, here) -> None:
    book = Book(MACHINE)
    assert not book.is_measured(start, 3)
    book.put(timed(start, 3))
    assert book.is_measured(start, 3)
    assert not book.is_measured(start, 4)
    assert not book.is_measured(start, 3, compiled=True)
    assert book.least_ms(start) == 1.0
    for other in (
        block("DW+PW").row(here, "forward+backward", MACHINE),
        block("PW").row(here, "forward", MACHINE),
        block("DW+PW", side=7).row(here, "forward", MACHINE),
        block("DW+PW", batch=3).row(here, "forward", MACHINE),
        block("DW+PW").row(replace(here, dtype="bf16"), "forward", MACHINE),
        block("DW+PW").row(replace(here, threads=2), "forward", MACHINE),
        block("DW+PW").row(replace(here, style="fog"), "forward", MACHINE),
        block("DW+PW", calibrates=True).row(here, "forward", MACHINE),
    ):
        assert not book.is_measured(other, 3)
        assert book.least_ms(other) is None
    book.put(timed(start, 9, COMPILED))
    assert book.is_measured(start, 9, compiled=True)
    assert not book.is_measured(start, 9)


def test_a_new_row_takes_the_place_of_the_old_one(start) -> None:
    book = Book(MACHINE)
    book.put(timed(start, 3))
    book.put([filled(start, TIME, "ms", [7.0])])
    assert book.number(start, TIME) == 7.0
    assert len(list(book)) == 3
    book.put([filled(start, RED + "wrong", "", ()), filled(start, NOT_RUN + "no", "", ())])
    book.drop(start, [LEAST])
    assert [row["metric"] for row in book] == [TIME, ROUNDS]


def test_a_file_is_read_back_as_it_was(start, tmp_path: Path) -> None:
    book, path = Book(MACHINE), tmp_path / "blocks.csv"
    book.put([*timed(start, 3), filled(start, RED + 'a, "b"', "", ())])
    book.write(path)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    again = Book(MACHINE)
    assert again.read(path) == 0
    assert again.is_measured(start, 3)
    again.write(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_rows_of_other_versions_are_not_kept(start, tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    older = Book(MACHINE)
    older.put(timed(start | {"torch": "2.11.0"}, 3))
    older.write(path)
    book = Book(MACHINE)
    assert book.read(path) == 3
    assert list(book) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "other columns"),
        (lambda text: "a,b\n1,2\n", "other columns"),
        (lambda text: text.replace("median", "mean"), "other columns"),
        (lambda text: text.replace("cpu-test", "cpu-other"), "rows of cpu-other; allowed: those"),
        (lambda text: text.replace(",1.0,1.0,1.0,", ",fast,1.0,1.0,"), "line 3: median 'fast'"),
        (lambda text: text.replace(",1.0,1.0,1.0,", ",nan,1.0,1.0,"), "line 3: median 'nan'"),
        (lambda text: text[:-60], "is cut"),
        (lambda text: text + "x\n", "line 5 is cut"),
        (lambda text: "\0" + text, "other columns|line contains NUL"),
    ],
)
def test_a_foreign_file_is_refused_in_a_line(change, said: str, start, tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    book = Book(MACHINE)
    book.put(timed(start, 3))
    book.write(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(SettingError, match=r"blocks\.csv cannot be added to: got ") as refused:
        Book(MACHINE).read(path)
    assert any(each in str(refused.value) for each in said.split("|"))
    assert "\n" not in str(refused.value)


def test_bytes_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes.csv", "none.csv", "."):
        with pytest.raises(SettingError, match="cannot be added to"):
            Book(MACHINE).read(tmp_path / name)
    with pytest.raises(OutputError, match="cannot be written"):
        Book(MACHINE).write(tmp_path / "none" / "blocks.csv")
