"""Runs in a bucket: a real server of the S3 protocol on the loopback interface."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ifspace.catalogue import load, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.run import merge_folder, run_in_folder
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import CatalogueError, OutputError

SETTINGS = (EnumerationSetting(channels=8, max_len=4),)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="moto is not installed: `make test-store`")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: `make test-store`")
    # Of the server below, which asks for none that are right.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("designs")
        yield "s3://designs"
    finally:
        running.stop()
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_bucket_is_a_folder(
    bucket: str, tmp_path: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/run"
    for number in (2, 1):
        shards = run_in_folder(SETTINGS, url, jobs=1, share=(number, 2))
    assert len(shards) == 2
    shards.folder.write("shard-00001.parquet", b"half")
    notes: list[str] = []
    merge_folder(url, tmp_path / "merged.parquet", note=notes.append)
    assert [note.partition(" ")[0] for note in notes] == ["shard-00001.parquet"]
    save(enumerate_designs(SETTINGS, jobs=1), tmp_path / "one.parquet")
    assert (tmp_path / "merged.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    assert load(url) == load(tmp_path / "one.parquet")
    # The command does the same, and goes on where a part is missing.
    command = ("enumerate", "-C", "8", "--max-len", "4", "--out", f"{bucket}/command")
    assert run(*command, "--shard", "1/2").status == 0
    assert "1 of 2 shards missing" in run("merge", command[-1]).err
    table = run(*command)
    assert (table.status, table.out) == (0, run(*command[:-2]).out)
    assert run("merge", command[-1], "--out", tmp_path / "command.parquet").status == 0
    assert (tmp_path / "command.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    # A server that does not answer is said in a line.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(pytest.importorskip("s3fs").S3FileSystem()).clear_instance_cache()
    with pytest.raises(CatalogueError, match=r"no folder of a catalogue: got s3://.*127.0.0.1:1/"):
        load(url)
    with pytest.raises(OutputError, match=r"cannot be reached: got s3://.*check the address"):
        run_in_folder(SETTINGS, url, jobs=1)
