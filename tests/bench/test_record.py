from pathlib import Path

import pytest

from ifspace.bench import record


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where `ifspace` copies its last word into the files it is told."""
    monkeypatch.chdir(tmp_path)
    code = (
        "import sys, pathlib\n"
        "words = sys.argv[1:]\n"
        "if '--out' in words:\n"
        "    pathlib.Path(words[words.index('--out') + 1]).write_text('x')\n"
        "else:\n"
        "    folder = pathlib.Path(words[words.index('--figures') + 1])\n"
        "    folder.mkdir(parents=True, exist_ok=True)\n"
        "    for name in ('a.svg', 'b.svg'):\n"
        "        (folder / name).write_text('x')\n"
    )
    (tmp_path / "fake.py").write_text(code)
    monkeypatch.setattr(record, "python", lambda *words: ["python3", "fake.py", *words[2:]])
    return tmp_path / "results"


def test_a_file_is_listed_with_its_command(place: Path) -> None:
    record.main(["best.md", "--", "best", "x.parquet"])
    page = (place / "README.md").read_text()
    assert "[best.md](best.md)" in page
    assert "`ifspace best x.parquet --out results/best.md`" in page


def test_another_program_is_listed_with_its_module(place: Path) -> None:
    record.main(["--module", "experiments.training", "check.md", "--", "--seeds", "1"])
    page = (place / "README.md").read_text()
    assert "`python -m experiments.training --seeds 1 --out results/check.md`" in page


def test_a_copy_without_a_repository_is_told_its_commit(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for said, commit in ((None, "unknown"), ("abc1234", "abc1234")):
        if said is not None:
            monkeypatch.setenv("IFSPACE_COMMIT", said)
        record.main(["best.md", "--", "best", "x.parquet"])
        assert f"| {commit} " in (place / "README.md").read_text()


def test_a_pattern_lists_the_written_files(place: Path) -> None:
    record.main(["figures/*", "--", "report", "results", "--figures", "results/figures"])
    page = (place / "README.md").read_text()
    assert "[figures/a.svg](figures/a.svg)" in page
    assert "[figures/b.svg](figures/b.svg)" in page
    assert "`ifspace report results --figures results/figures`" in page
    assert "--out" not in page


def test_missing_files_are_removed_from_the_list(place: Path) -> None:
    record.main(["best.md", "--", "best", "x.parquet"])
    (place / "best.md").unlink()
    record.main(["other.md", "--", "best", "y.parquet"])
    page = (place / "README.md").read_text()
    assert "other.md" in page
    assert "best.md" not in page


@pytest.mark.parametrize(
    ("flags", "vectors"),
    [("fpu avx avx2", " (AVX2)"), ("fpu avx2 avx512f", " (AVX-512)"), ("fpu avx", "")],
)
def test_processors_of_one_name_are_told_apart_by_their_vectors(
    flags: str, vectors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"processor : 0\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n\n"
    monkeypatch.setattr(Path, "read_text", lambda path: text * 2)
    assert record.provenance("x").machine.startswith(f"AMD EPYC{vectors}, ")
