"""Tables between markers; those of results/README.md agree with the files."""

from pathlib import Path

import pytest

from ifspace.errors import SettingError
from ifspace.report.read import (
    Results,
)
from ifspace.report.readme import END, rewrite, rewritten

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "results" / "README.md"
TEXT = f"# Title\n\n<!-- report: funnel/1 -->\nold\n{END}\n\nafter\n"


@pytest.mark.slow
def test_no_table_of_the_readme_is_stale(recorded: Results) -> None:
    text = README.read_text()
    assert rewritten(text, recorded, README) == text, "stale: run `make report`"


def test_only_the_text_between_markers_is_replaced(results: Results, snapshot: object) -> None:
    text = rewritten(TEXT, results)
    assert text == snapshot
    assert text.startswith(TEXT[: TEXT.index("old")])
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old" not in text
    assert rewritten(text, results) == text


def test_a_part_without_a_number_is_all_of_its_tables(results: Results) -> None:
    text = rewritten(TEXT.replace("funnel/1", "funnel"), results)
    assert text.count("**Compositions by length") == 2


def test_a_missing_file_is_named(results: Results, tmp_path: Path, snapshot: object) -> None:
    empty = Results(tmp_path, results.catalogues, {}, (), ())
    text = rewritten(TEXT.replace("funnel/1", "energy/1"), empty)
    assert text.replace(str(tmp_path), "FOLDER") == snapshot
    assert rewritten(text, results) != text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no markers\n", "a file without markers"),
        (TEXT.replace(END, ""), "a marker without its end"),
        (TEXT + END + "\n", "an end without its marker"),
        (TEXT.replace("funnel/1", "speed"), "no such part of a report: got 'speed'"),
        (TEXT.replace("funnel/1", "funnel/9"), "no such table of funnel: got 9; allowed: 1 to 2"),
        (TEXT.replace("funnel/1", "Funnel!"), "a marker without its end"),
    ],
)
def test_wrong_markers_are_an_error(results: Results, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        rewritten(text, results)


def test_a_file_is_rewritten_once(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    assert rewrite(path, results)
    assert path.read_text() == rewritten(TEXT, results)
    assert not rewrite(path, results)


def test_a_file_that_cannot_be_read_is_an_error(results: Results, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"gone\.md cannot be written anew: got No such file"):
        rewrite(tmp_path / "gone.md", results)
    (tmp_path / "a.md").write_bytes(b"\xff")
    with pytest.raises(SettingError, match="no UTF-8 text"):
        rewrite(tmp_path / "a.md", results)
