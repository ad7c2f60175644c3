"""Long catalogues, read some rows at a time: what is said of them is what is said of all rows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from ifspace.catalogue import (
    Catalogue,
    best,
    command,
    dataset,
    lazily,
    load,
    one_a_network,
    ranking,
    save,
)
from ifspace.catalogue.choose import (
    AMOUNTS,
    BY,
    LATENCY,
    PeakMemory,
    next_better,
    tight_bounds,
    together,
    usable,
)
from ifspace.catalogue.lazily import LongCatalogue, Question, count_entries, needed
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate import run as runs
from ifspace.enumerate.run import merge_folder, run_in_folder
from ifspace.enumerate.search import enumerate_designs
from ifspace.floors import NO_FLOORS, Floors
from ifspace.latency import Latency
from ifspace.report.page import page
from ifspace.report.read import chosen, read
from ifspace.report.tables import tables

SETTINGS = (
    EnumerationSetting(channels=8, max_len=5),
    EnumerationSetting(channels=8, out_channels=16, max_len=4),
)
KINDS = (None, ("DW", "PW", "GPW", "SH", "GC"), ("GC", "GPW", "RPW"), ("SH",))
# Bounds, some of which leave nothing; the others are about a third of the rows or a few.
BOUNDS: tuple[dict[str, Any], ...] = (
    {},
    {"params": 60, "layers": 4},
    {"activations": 24},
    {"macs": 3},
    {"peak_memory": PeakMemory(25 * 14 * 14, 14, "int8")},
    {"latency": True, "latency_ms": 30},
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read few rows at a time, and try as few of them: every catalogue is long."""
    monkeypatch.setattr(lazily, "LONG", 0)
    monkeypatch.setattr(lazily, "BATCH", 100)
    monkeypatch.setattr(lazily, "TRIED", 2)
    monkeypatch.setattr(lazily, "COUNTED", 10)
    monkeypatch.setattr(runs, "PART_S", 1e-3)
    monkeypatch.setattr(runs, "MOST_PARTS", 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in parts, and the catalogue that they are together."""
    path = tmp_path_factory.mktemp("lazily")
    with pytest.MonkeyPatch.context() as context:
        context.setattr(runs, "PART_S", 1e-3)
        context.setattr(runs, "MOST_PARTS", 3)
        run_in_folder(SETTINGS, path / "run", jobs=1)
    merge_folder(path / "run", path / "whole.parquet")
    return path


def milliseconds(sized: Any, stride: int) -> Latency | None:
    """A latency that orders rows as nothing else does; not known for blocks with SH."""
    if "SH" in str(sized.block):
        return None
    return Latency.of((sized.params * 37) % 101 + 1)


def check(catalogues: list[LongCatalogue], whole: Catalogue, question: Question) -> int:
    """Compare what is said of some rows with what is said of all; return how many were needed."""
    some = together(needed(catalogues, question))
    arguments: dict[str, Any] = {
        "kinds": question.kinds,
        "channels": question.channels,
        "floors": question.floors,
        "peak_memory": question.peak_memory,
        "latency": question.latency,
        "latency_ms": question.latency_ms,
        **question.bounds,
    }
    of_all, of_some = (
        best(rows, by=question.by, every_row=question.every_row, **arguments)
        for rows in (whole, some)
    )
    widths = {design.replaces for design, _ in of_all} if question.each_width else {None}
    for width in widths:
        own = [
            [pair for pair in rows if width in (None, pair[0].replaces)][: question.rows]
            for rows in (of_all, of_some)
        ]
        assert own[0] == own[1]
        if question.each_width:
            trades = [
                next_better(
                    [design for design, _ in own[0]],
                    [x for x, _ in one_a_network(usable(rows.designs, question.kinds))],
                    question.latency,
                )
                for rows in (whole, some)
            ]
            assert trades[0] == trades[1]
    assert count_entries(catalogues, question) == len(of_all)
    if not of_all:
        assert tight_bounds(whole, **arguments) == tight_bounds(some, **arguments)
    assert [setting.replaced for setting in some.settings] == [s.replaced for s in whole.settings]
    return len(some.designs)


def questions() -> Iterator[Question]:
    """Every order within every bounds, with kinds and the other arguments in turn."""
    for number, (by, bounds) in enumerate(product(BY, BOUNDS)):
        amounts = {name: bounds[name] for name in AMOUNTS if name in bounds}
        of_latency = by == LATENCY or "latency" in bounds
        yield Question(
            rows=(1, 4, 12)[number % 3],
            each_width=number % 5 < 2,
            by=by,
            every_row=number % 4 == 3,
            kinds=KINDS[number % 7 % 4],
            channels=8 if number % 11 == 10 else None,
            bounds=amounts,
            floors=NO_FLOORS,
            peak_memory=bounds.get("peak_memory"),
            latency=milliseconds if of_latency else None,
            latency_ms=bounds.get("latency_ms"),
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "whole.parquet"])
def test_every_order_and_bound_is_answered_as_from_memory(folder: Path, name: str) -> None:
    whole = load(folder / "whole.parquet")
    long = lazily.long_catalogues([folder / name])
    assert long is not None
    every = list(questions())[:: 1 if name.endswith(".parquet") else 5]
    needs = [check(long, whole, question) for question in every]
    assert max(needs) < len(whole.designs)
    assert sum(needs) < len(needs) * len(whole.designs) / 4


@pytest.mark.slow
def test_a_front_and_its_floors_are_answered_as_from_memory(tmp_path: Path) -> None:
    setting = EnumerationSetting(channels=16, max_len=4, front=True)
    run_in_folder([setting], tmp_path / "run", jobs=1)
    merge_folder(tmp_path / "run", tmp_path / "whole.parquet")
    whole = load(tmp_path / "whole.parquet")
    for place in ("run", "whole.parquet"):
        long = lazily.long_catalogues([tmp_path / place])
        assert long is not None
        for by, fan_in, each_width in (
            ("params", 2, True),
            ("layers", 1, True),
            ("macs", 4, False),
        ):
            floors = Floors(least_fan_in=fan_in) if fan_in > 1 else NO_FLOORS
            check(long, whole, Question(rows=3, by=by, each_width=each_width, floors=floors))


@pytest.mark.slow
def test_best_prints_the_same_of_long_catalogues(
    folder: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ("--limit", "3", "--channels", "8"),
        ("--top", "2", "--by", "layers"),
        ("--params", "100", "--all", "--limit", "4"),
        ("--params", "1", "--macs", "2"),
    ):
        outputs = []
        for long in (0, 10**6):
            monkeypatch.setattr(lazily, "LONG", long)
            for name in ("run", "whole.parquet"):
                ended = run("best", folder / name, *words)
                outputs.append((ended.status, ended.out, ended.err.replace(name, "")))
        assert len(set(outputs)) == 1
    monkeypatch.setattr(lazily, "LONG", 0)
    assert run("best", folder / "whole.parquet", "--check").status == 0


def test_files_of_long_catalogues_have_every_entry(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = EnumerationSetting(channels=8, max_len=3)
    front = EnumerationSetting(channels=16, max_len=2, front=True)
    wide = EnumerationSetting(channels=8, out_channels=16, max_len=3)
    run_in_folder([shorter], tmp_path / "run", jobs=1)
    save(enumerate_designs([shorter, wide], jobs=1), tmp_path / "two.parquet")
    save(enumerate_designs([front], jobs=1), tmp_path / "front.parquet")
    (tmp_path / "times.csv").write_text(
        "block,C,F,side,stride,batch,device,dtype,latency_ms\n"
        "DW+PW,8,8,14,1,1,cpu,float32,2\nGC(2)+PW,8,8,14,1,1,cpu,float32,1.5\n"
    )
    monkeypatch.setattr(ranking, "HELD", 7)
    monkeypatch.setattr(ranking, "FILES", 3)
    monkeypatch.setattr(ranking, "_READ", 2)
    monkeypatch.setattr(command, "PIECE", 4)
    monkeypatch.chdir(tmp_path)
    latency = ("--latency", "times.csv", "--by", "latency", "--side", "14")
    for words in (
        # Rows that an earlier catalogue has count once.
        ("run", "two.parquet", "front.parquet"),
        ("two.parquet", "--all", "--by", "activations", "--params", "90", "--evidence"),
        ("front.parquet", "--by", "peak-memory", "--side", "7", "--dtype", "int8"),
        ("run", *latency),
        ("two.parquet", "--params", "1"),
    ):
        answers = []
        for long in (0, 10**6):
            monkeypatch.setattr(lazily, "LONG", long)
            file = Path(f"rows-{long}.csv")
            file.unlink(missing_ok=True)
            ended = run("best", *words, "--format", "json", "--out", file)
            text = file.read_text() if file.exists() else ""
            answers.append((ended.status, ended.out, ended.err.replace(file.name, ""), text))
        assert answers[0] == answers[1]


def test_rows_of_long_catalogues_are_checked_where_that_is_asked_for(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    catalogue = enumerate_designs([EnumerationSetting(channels=8, max_len=3)], jobs=1)
    first, *others = catalogue.designs
    wrong = replace(first, params=first.params + 1)
    save(replace(catalogue, designs=(wrong, *others)), tmp_path / "wrong.parquet")
    assert run("best", tmp_path / "wrong.parquet").status == 0
    ended = run("best", tmp_path / "wrong.parquet", "--check")
    assert ended.status == 2
    assert f"row 1: params {wrong.params}, its block has {first.params}" in ended.err


def test_a_block_that_cannot_be_read_is_an_error_of_its_file(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    catalogue = enumerate_designs([EnumerationSetting(channels=8, max_len=3)], jobs=1)
    path = tmp_path / "wrong.parquet"
    save(catalogue, path)
    table = pyarrow.parquet.read_table(path)
    index, field = table.schema.get_field_index("block"), table.schema.field("block")
    blocks = pyarrow.array(["DW+"] * len(table), field.type)
    pyarrow.parquet.write_table(table.set_column(index, field, blocks), path)
    for arguments in ([], ["--check"]):
        ended = run("best", path, *arguments)
        assert ended.status == 2
        assert "wrong.parquet is not a catalogue that can be read: got rows that" in ended.err


@pytest.mark.slow
def test_a_report_of_a_long_folder_shows_the_best_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "catalogue-8").symlink_to(folder / "run")
    monkeypatch.setattr(lazily, "SHOWN", 2)
    results = read(tmp_path)
    (some,) = results.catalogues
    whole = load(folder / "whole.parquet")
    assert some.rows == len(whole.designs) > len(some.designs)
    assert set(some.designs) <= set(whole.designs)
    # The rows of tables are those of all: the best of each length, and the published.
    monkeypatch.setattr(lazily, "LONG", 10**6)
    (tmp_path / "catalogue-8").unlink()
    (tmp_path / "catalogue-8.parquet").symlink_to(folder / "whole.parquet")
    of_some, of_all = (
        [[row[:-1] for row in table.rows] for table in tables(rows, "designs")]
        for rows in (results, read(tmp_path))
    )
    assert of_some == of_all
    assert f"{len(some.designs)} of them stand here" in page(results, chosen(["funnel"]))


@pytest.mark.slow
def test_folders_that_are_long_are_exported_and_end_with_their_funnels(
    folder: Path, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "ROW_GROUP", 50)
    whole = load(folder / "whole.parquet")
    for name in ("rows.csv", "rows.json"):
        assert run("merge", folder / "run", "--out", tmp_path / name, "--quiet").status == 0
        save(whole, tmp_path / f"whole-{name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    ended = run("enumerate", "-C", "8", "--max-len", "3", "--out", tmp_path / "run", "--quiet")
    assert (ended.status, ended.out) == (0, "")
    ended = run("enumerate", "-C", "8", "--max-len", "3", "--out", tmp_path / "run")
    rows = len(load(tmp_path / "run").designs)
    assert f"{rows} rows are in {tmp_path / 'run'}: `ifspace best" in ended.err
    assert "survivors" in ended.out


def test_a_url_is_read_some_rows_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    url = f"memory://{tmp_path.name}/run"
    run_in_folder(SETTINGS[1:], url, jobs=1)
    long = lazily.long_catalogues([url])
    assert long is not None
    check(long, load(url), Question(rows=3, bounds={"layers": 3}))
