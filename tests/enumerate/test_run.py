"""Runs in a folder: parts that are kept, gone on with and joined; always the same bytes."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from itertools import cycle
from pathlib import Path

import pytest

from ifspace.catalogue import dataset, load, networks, save
from ifspace.catalogue.dataset import part_to_parquet
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.catalogue.shards import MANIFEST, Manifest, Shards
from ifspace.enumerate import run as runs
from ifspace.enumerate.run import merge_folder, run_in_folder
from ifspace.enumerate.search import Shard, enumerate_designs, solve
from ifspace.errors import CatalogueError, OutputError, SettingError
from ifspace.folder import LOCK, LocalFolder

ROOT = Path(__file__).resolve().parents[2]
SMALL = (EnumerationSetting(channels=8, max_len=4),)
# Of each kind of search: by halves, with several widths, trade-offs and equal copies; forward, with
# copies, and with free permutations.
STUDIES = {
    "halves": (EnumerationSetting(channels=16, max_len=4),),
    "widths": (
        EnumerationSetting(channels=12, max_len=3),
        EnumerationSetting(channels=8, max_len=4),
    ),
    "front": (EnumerationSetting(channels=16, max_len=4, front=True),),
    "equal copies": (EnumerationSetting(channels=16, max_len=4, repeats=2),),
    "copies": (EnumerationSetting(channels=8, max_len=3, repeats=2, front=True),),
    "fog": (EnumerationSetting(channels=12, max_len=4, rule="early-stop", permutation="free"),),
}


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def whole(settings: tuple[EnumerationSetting, ...], tmp_path: Path) -> str:
    """Return the digest of the catalogue of a run in one process, without a folder."""
    save(enumerate_designs(settings, jobs=1), tmp_path / "whole.parquet")
    return digest(tmp_path / "whole.parquet")


def joined(folder: Path, tmp_path: Path) -> str:
    merge_folder(folder, tmp_path / "joined.parquet")
    return digest(tmp_path / "joined.parquet")


def in_parts(settings: tuple[EnumerationSetting, ...], folder: Path, count: int = 5) -> Shards:
    """Compute one part after the other, in no order."""
    for number in random.Random(count).sample(range(1, count + 1), count):
        shards = run_in_folder(settings, folder, jobs=1, share=(number, count))
    return shards


@pytest.mark.parametrize("study", STUDIES)
def test_parts_in_any_order_join_to_the_bytes_of_one_process(study: str, tmp_path: Path) -> None:
    settings = STUDIES[study]
    shards = in_parts(settings, tmp_path / "run")
    assert len(shards) == 5 * len(settings)
    one = enumerate_designs(settings, jobs=1)
    assert shards.catalogue() == load(tmp_path / "run") == one
    assert joined(tmp_path / "run", tmp_path) == whole(settings, tmp_path)
    # More than one part has designs, and no composition is in two of them.
    sizes = [json.loads(text)["rows"] for text in _metadata(tmp_path / "run")]
    assert sum(size > 0 for size in sizes) > 1
    assert sum(sizes) == len(one.designs)


def test_thousands_of_settings_are_hashed_once_and_not_for_each_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_parts(STUDIES["widths"], tmp_path / "run")
    shards, key, times = Shards.read(tmp_path / "run"), Manifest.key, 0

    def counted(manifest: Manifest) -> str:
        nonlocal times
        times += 1
        return str(key.fget(manifest))  # type: ignore[attr-defined]

    monkeypatch.setattr(Manifest, "key", property(counted))
    shards.check_whole()
    assert len(list(shards.designs())) == shards.rows
    assert times == 1


def _metadata(folder: Path) -> list[bytes]:
    import pyarrow.parquet

    files = sorted(folder.glob("shard-*.parquet"))
    return [pyarrow.parquet.read_schema(file).metadata[dataset.METADATA_KEY] for file in files]


@pytest.mark.slow
def test_the_hash_seed_and_the_number_of_workers_change_no_byte(tmp_path: Path) -> None:
    code = (
        "from ifspace import EnumerationSetting\n"
        "from ifspace.enumerate import run, search\n"
        "search.WORTH_WORKERS_S = 0\n"
        "settings = [EnumerationSetting(channels=8, max_len=4)]\n"
        f"run.run_in_folder(settings, {str(tmp_path / 'run')!r}, jobs=2, share=(1, 2))\n"
        f"run.run_in_folder(settings, {str(tmp_path / 'run')!r}, jobs=2)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=ROOT)
    assert joined(tmp_path / "run", tmp_path) == whole(SMALL, tmp_path)


@pytest.mark.parametrize("study", ["widths", "front"])
def test_a_long_catalogue_is_joined_in_groups_of_rows_and_shares_of_networks(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "ROW_GROUP", 10)
    monkeypatch.setattr(dataset, "PART_ROWS", 3)
    monkeypatch.setattr(networks, "HELD", 7)
    monkeypatch.setattr(networks, "FILES", 3)
    monkeypatch.setattr(networks, "_READ", 2)
    settings = STUDIES[study]
    in_parts(settings, tmp_path / "run")
    assert joined(tmp_path / "run", tmp_path) == whole(settings, tmp_path)
    # Nothing of it is left, and a disk without room is said.
    monkeypatch.setattr(networks, "TemporaryFile", lambda: open("/dev/full", "r+b", 0))  # noqa: SIM115
    with pytest.raises(OutputError, match="temporary files cannot be written: got No space left"):
        joined(tmp_path / "run", tmp_path)


def test_a_run_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve, solved = runs.solve, []

    def interrupted(shard: Shard) -> object:
        if len(solved) == 2:
            raise KeyboardInterrupt("here")
        solved.append(shard.index)
        return solve(shard)

    monkeypatch.setattr(runs, "PART_S", 1e-6)
    monkeypatch.setattr(runs, "MOST_PARTS", 6)
    monkeypatch.setattr(runs, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt, match="here"):
        run_in_folder(SMALL, tmp_path / "run", jobs=1)
    # Two whole parts and nothing else: no lock, no half file.
    kept = [MANIFEST, "shard-00000.parquet", "shard-00001.parquet"]
    assert sorted(os.listdir(tmp_path / "run")) == kept
    with pytest.raises(
        CatalogueError, match=r"4 of 6 shards missing.*`ifspace enumerate -.*goes on"
    ):
        merge_folder(tmp_path / "run")
    monkeypatch.setattr(runs, "solve", lambda shard: solved.append(shard.index) or solve(shard))
    progress = []
    run_in_folder(SMALL, tmp_path / "run", jobs=1, progress=lambda *call: progress.append(call))
    assert solved == [0, 1, 2, 3, 4, 5]
    assert progress == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert joined(tmp_path / "run", tmp_path) == whole(SMALL, tmp_path)
    run_in_folder(SMALL, tmp_path / "run", jobs=1)
    assert len(solved) == 6, "nothing was left to do"


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, years, solved = time.time, cycle((-40, 40)), []

    def jumping() -> float:
        return now() + 365 * 86400 * next(years)

    def solved_at_some_time(shard: Shard) -> object:
        if len(solved) == 3:
            solved.append(-1)
            raise KeyboardInterrupt("here")
        solved.append(shard.index)
        for path in (tmp_path / "run").iterdir():
            os.utime(path, (jumping(), jumping()))
        return solve(shard)

    monkeypatch.setattr(runs, "PART_S", 1e-6)
    monkeypatch.setattr(runs, "MOST_PARTS", 6)
    monkeypatch.setattr(runs, "solve", solved_at_some_time)
    monkeypatch.setattr(time, "time", jumping)
    with pytest.raises(KeyboardInterrupt, match="here"):
        run_in_folder(SMALL, tmp_path / "run", jobs=1)
    run_in_folder(SMALL, tmp_path / "run", jobs=1)
    assert solved == [0, 1, 2, -1, 3, 4, 5]
    assert joined(tmp_path / "run", tmp_path) == whole(SMALL, tmp_path)


def test_damaged_and_foreign_parts_are_named_and_computed_again(tmp_path: Path) -> None:
    in_parts(SMALL, tmp_path / "run")
    in_parts((EnumerationSetting(channels=12, max_len=3),), tmp_path / "other")
    parts = [tmp_path / "run" / f"shard-0000{number}.parquet" for number in range(5)]
    content = parts[0].read_bytes()
    parts[0].write_bytes(content[:-1])
    changed = bytearray(parts[1].read_bytes())
    changed[100] ^= 1
    parts[1].write_bytes(changed)
    shutil.copy(tmp_path / "other" / parts[2].name, parts[2])
    shutil.copy(parts[4], parts[3])
    with pytest.raises(CatalogueError, match=r"shard-00000.parquet damaged .*shard-00003"):
        Shards.read(tmp_path / "run").check_whole()
    name = re.escape(f"{parts[0]} (part 1 of 5) is not a catalogue")
    again = re.escape(f"`ifspace merge {tmp_path / 'run'}` computes it again")
    with pytest.raises(CatalogueError, match=f"{name} .*no Parquet file, .*{again}"):
        load(tmp_path / "run")
    notes: list[str] = []
    shards, damaged = merge_folder(tmp_path / "run", tmp_path / "a.parquet", note=notes.append)
    assert damaged == tuple(part.name for part in parts[:4])
    assert [note.partition(" is computed again: ")[0] for note in notes] == list(damaged)
    assert notes[0].endswith(" again: no Parquet file, or only a part of one")
    assert notes[2].endswith(" again: part 3 of another run")
    assert notes[3].endswith(" again: part 5 of this run")
    assert parts[0].read_bytes() == content
    assert shards.rows == len(enumerate_designs(SMALL, jobs=1).designs)
    assert digest(tmp_path / "a.parquet") == whole(SMALL, tmp_path)


def test_a_folder_of_another_command_or_with_other_files_is_left_alone(tmp_path: Path) -> None:
    run_in_folder(SMALL, tmp_path / "run", jobs=1)
    before = {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    other = (EnumerationSetting(channels=8, max_len=3),)
    with pytest.raises(
        OutputError, match=r"got .*`ifspace enumerate --channels 8 --max-len 4 --out"
    ):
        run_in_folder(other, tmp_path / "run", jobs=1)
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="other files"):
        run_in_folder(other, tmp_path / "mine", jobs=1)
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]
    (tmp_path / "run" / MANIFEST).write_text("{}")
    with pytest.raises(CatalogueError, match=r"manifest.json is damaged"):
        load(tmp_path / "run")
    run_in_folder(SMALL, tmp_path / "run", jobs=1)  # which writes it anew
    assert joined(tmp_path / "run", tmp_path) == whole(SMALL, tmp_path)
    with pytest.raises(SettingError, match=r"share out of range: got 3/2"):
        run_in_folder(SMALL, tmp_path / "run", share=(3, 2))


def test_parts_are_about_equal_and_earlier_runs_keep_theirs(tmp_path: Path) -> None:
    setting = EnumerationSetting(channels=16, max_len=5)
    rows = [len(solve(Shard(setting, index, 3)).designs) for index in range(3)]
    assert sum(rows) == len(enumerate_designs([setting], jobs=1).designs)
    assert max(rows) < 0.5 * sum(rows)  # with four beginnings a part it was 0.64
    # A manifest that says nothing of beginnings has four for each part, and so is gone on with.
    earlier = Manifest.of(SMALL, [3], 4)
    assert b"beginnings" not in earlier.to_text().encode()
    assert Manifest.of_text(earlier.to_text().encode()) == earlier
    (tmp_path / "run").mkdir()
    shards = Shards.start(tmp_path / "run", earlier)
    shards.write(1, part_to_parquet(solve(Shard(SMALL[0], 1, 3, beginnings=4)), earlier.key, 1))
    assert len(run_in_folder(SMALL, tmp_path / "run", jobs=1)) == 3
    assert joined(tmp_path / "run", tmp_path) == whole(SMALL, tmp_path)


def test_one_run_at_a_time_and_no_lock_is_stale(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path / "run")
    with folder.locked():
        assert json.loads(folder.read(LOCK)) == {"pid": os.getpid(), "host": os.uname().nodename}
        for share in (None, (1, 2)):
            with pytest.raises(OutputError, match=rf"another run .*process {os.getpid()} on "):
                run_in_folder(SMALL, folder.path, share=share)
    with folder.locked("1-2"), folder.locked("2-2"):  # parts side by side
        for share in (None, (1, 2)):
            with pytest.raises(OutputError, match=r"another run works in the folder"):
                run_in_folder(SMALL, folder.path, share=share)
    assert folder.names() == []
    # What a killed process leaves: its lock, which the system has dropped, and a half file.
    folder.path.joinpath(LOCK).write_text('{"pid": 1, "host": "elsewhere"}')
    folder.path.joinpath(".shard-00000.parquet.0badcafe.7.tmp").write_text("half")
    run_in_folder(SMALL, folder.path, jobs=1)
    assert folder.names() == [MANIFEST, "shard-00000.parquet"]


def test_a_url_is_a_folder_too(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://{tmp_path.name}/run"
    in_parts(SMALL, url)
    files = fsspec.filesystem("memory")
    files.pipe_file(f"/{tmp_path.name}/run/shard-00001.parquet", b"PAR1")
    notes: list[str] = []
    merge_folder(url, tmp_path / "a.parquet", note=notes.append)
    assert len(notes) == 1
    assert digest(tmp_path / "a.parquet") == whole(SMALL, tmp_path)
    assert load(url) == load(tmp_path / "a.parquet")
    with pytest.raises(SettingError, match=r"URL that cannot be opened: got nosuch://a .*nosuch"):
        run_in_folder(SMALL, "nosuch://a")


def test_the_command_takes_a_url_as_a_folder(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setattr(runs, "PART_S", 1e-6)
    monkeypatch.setattr(runs, "MOST_PARTS", 3)
    base, url = ("enumerate", "-C", "8", "--max-len", "4"), f"memory://{tmp_path.name}/command"
    table = run(*base, "--out", url)
    assert (table.status, table.out) == (0, run(*base).out)
    place = f"/{tmp_path.name}/command"
    names = [MANIFEST, *(f"shard-0000{number}.parquet" for number in range(3))]
    assert sorted(files.ls(place, detail=False)) == [f"{place}/{name}" for name in names]
    # A part that is lost is computed again, and nothing else.
    content = {name: files.cat_file(f"{place}/{name}") for name in names}
    files.rm_file(f"{place}/{names[2]}")
    solved: list[int] = []
    monkeypatch.setattr(runs, "solve", lambda shard: solved.append(shard.index) or solve(shard))
    assert run(*base, "--out", url, "--quiet").status == 0
    assert solved == [1]
    assert {name: files.cat_file(f"{place}/{name}") for name in names} == content
    assert run("merge", url, "--out", tmp_path / "a.parquet").status == 0
    assert digest(tmp_path / "a.parquet") == whole(SMALL, tmp_path)
    run(*base, "--out", "nosuch://a").fails_with("URL that cannot be opened: got nosuch://a")


def killed(function: Callable[[], object], after_s: float) -> bool:
    """Call a function in a process that is killed after some seconds; return whether it was."""
    child = os.fork()
    if not child:
        try:
            function()
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
def test_kills_at_random_moments_lose_no_finished_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(SMALL, tmp_path)  # and everything is compiled
    monkeypatch.setattr(runs, "PART_S", 1e-6)
    monkeypatch.setattr(runs, "MOST_PARTS", 9)
    chance = random.Random(0)
    finished: dict[str, bytes] = {}
    kills = 0
    for _ in range(20):
        kills += killed(
            lambda: run_in_folder(SMALL, tmp_path / "run", jobs=1), chance.uniform(0, 0.15)
        )
        now = {file.name: file.read_bytes() for file in (tmp_path / "run").glob("shard-*")}
        assert finished.items() <= now.items()
        finished = now
        if len(finished) == 9:
            break
    assert kills  # how many there are depends on the machine
    run_in_folder(SMALL, tmp_path / "run", jobs=1)
    names = [MANIFEST, *(f"shard-{n:05}.parquet" for n in range(9))]
    assert sorted(os.listdir(tmp_path / "run")) == names
    started_s = time.monotonic()
    assert joined(tmp_path / "run", tmp_path) == expected
    merge_s = time.monotonic() - started_s
    # A merge that is killed leaves the whole catalogue or none under its name.
    merged, kills = tmp_path / "merged" / "all.parquet", 0
    merged.parent.mkdir()
    for _ in range(10):
        kills += killed(lambda: merge_folder(tmp_path / "run", merged), chance.uniform(0, merge_s))
        assert not merged.exists() or digest(merged) == expected
        merged.unlink(missing_ok=True)
    assert kills
    merge_folder(tmp_path / "run", merged)
    assert os.listdir(merged.parent) == [merged.name]
    assert digest(merged) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_within_two_seconds(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ifspace.enumerate import run\n"
        "run.PART_S, run.MOST_PARTS = 1e-6, 64\n"
        "sys.argv = 'ifspace enumerate -C 32 --max-len 5 --quiet --out run'.split()\n"
        "from ifspace.cli.main import main\n"
        "main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
    )
    while not list(tmp_path.glob("run/shard-*")) and run.poll() is None:
        time.sleep(0.005)
    started = time.monotonic()
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == status
    assert time.monotonic() - started < 2
    assert said.decode() == f"ifspace: {'interrupted' if status == 130 else 'terminated'}\n"
    names = sorted(os.listdir(tmp_path / "run"))
    assert names[0] == MANIFEST, "no lock and no half file"
    assert 1 < len(names) < 65


def test_the_command_keeps_shares_and_joins_them(run: Callable, tmp_path: Path) -> None:
    base = ["enumerate", "-C", "8", "--max-len", "4"]
    folder = str(tmp_path / "run")
    ended = run(*base, "--out", folder, "--shard", "2/2", "--progress", "json")
    assert (ended.status, ended.out) == (0, "")
    assert json.loads(ended.err.splitlines()[-2])["done"] == 1
    assert ended.err.endswith("2/2 is done; 1 of 2 shards are to be done by others\n")
    assert run("merge", folder).err.count("1 of 2 shards missing") == 1
    table = run(*base, "--out", folder)
    assert table.status == 0
    assert table.out == run(*base).out
    assert json.loads(run("merge", folder, "--format", "json").out) == {
        "shards": 2,
        "rows": 71 + 17 + 5,
        "damaged": [],
    }
    file = tmp_path / "a.parquet"
    assert run("merge", folder, "--out", str(file)).err == f"ifspace: written: {file}\n"
    assert run("merge", folder, "--out", str(file), "--quiet").out == ""
    assert digest(file) == whole(SMALL, tmp_path)
    assert (
        run("best", folder, "--format", "csv").out == run("best", str(file), "--format", "csv").out
    )
    expected = json.loads(run(*base, "--estimate", "--format", "json").out)
    assert expected["shards"] == expected["processes"] == 1
    assert 0 < expected["minutes"] < 0.1
    assert 10_000 < expected["bytes"] < 30_000
    ended = run(*base, "--estimate", "--out", folder, "--format", "json")
    assert (ended.json["done"], ended.json["shards"]) == (2, 2)
    assert ended.err == f"ifspace: {folder} has 2 of the 2 shards already\n"
    ended = run(*base, "--estimate", "--out", str(tmp_path / "new"), "--shard", "1/3")
    assert "has 0 of the 3 shards already" in ended.err
    assert not (tmp_path / "new").exists()
    ended = run(*base, "--estimate", "--shard", "2/2")
    assert ended.err.endswith("whole run; 2/2 computes 1 of its 2 shards\n")
    assert run("enumerate", "-C", "4", "--estimate", "--out", folder).status == 2
    assert run(*base, "--shard", "1/2").err.startswith("ifspace: --shard: a part needs a folder")
    assert run(*base, "--shard", "1").status == 2
