"""Ray and Spark, each in an environment of its own: `make test-ray`, `make test-spark`."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import joblib
import pytest
from brute_force import assert_same_designs

from ifspace.catalogue import load, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.cli.backend import joined
from ifspace.enumerate import run as runs
from ifspace.enumerate import search
from ifspace.enumerate.run import merge_folder, run_in_folder
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.parallel import over_shards

SETTING = EnumerationSetting(channels=4, max_len=4)
START_S = 60


@pytest.fixture(autouse=True)
def split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the little work worth several workers."""
    for module, name, value in (
        (search, "WORTH_WORKERS_S", 0),
        (search, "SHARD_S", 1e-6),
        (search, "MOST_SHARDS", 6),
        (runs, "PART_S", 1e-6),
        (runs, "MOST_PARTS", 6),
    ):
        monkeypatch.setattr(module, name, value)


def processes() -> set[int]:
    """Return the processes that do the work of two workers."""

    def process(shard: int) -> int:
        time.sleep(0.1)
        return os.getpid()

    return set(over_shards(process, range(4), 2))


def assert_same_catalogue(engine: AbstractContextManager[object], folder: Path) -> None:
    """Search on an engine: loky has the same bytes, brute force the same designs."""
    with joblib.parallel_config(backend="loky", n_jobs=2):
        save(enumerate_designs([SETTING]), folder / "loky.parquet")
    with engine:
        assert os.getpid() not in processes()
        save(enumerate_designs([SETTING]), folder / "engine.parquet")
        parts = run_in_folder([SETTING], folder / "run")
    assert len(parts) == 6
    merge_folder(folder / "run", folder / "merged.parquet")
    expected = (folder / "loky.parquet").read_bytes()
    assert (folder / "engine.parquet").read_bytes() == expected
    assert (folder / "merged.parquet").read_bytes() == expected
    assert_same_designs(load(folder / "run").designs, SETTING)


@pytest.fixture
def ray_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A node with two processors on the loopback interface."""
    pytest.importorskip("ray", reason="ray is not installed: `make test-ray`")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    # A port that is free now.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    head = ["--head", "--block", "--num-cpus=2", "--include-dashboard=false"]
    place = [f"--port={address[10:]}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *head, *place]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                with joined("ray", address):
                    break
            except SettingError:  # it does not answer yet
                time.sleep(1)
        yield address
    finally:
        node.terminate()
        node.wait(30)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ray_gives_the_same_bytes(ray_address: str, tmp_path: Path, run: Callable) -> None:
    import ray

    assert_same_catalogue(joined("ray", ray_address), tmp_path)
    engine = ("--backend", "ray", "--address", ray_address, "--quiet")
    file = tmp_path / "command.parquet"
    ended = run("enumerate", "-C", "4", "--max-len", "4", *engine, "--out", file)
    assert (ended.status, ended.err) == (0, "")
    assert file.read_bytes() == (tmp_path / "loky.parquet").read_bytes()
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_spark_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed: `make test-spark`")
    joblibspark = pytest.importorskip("joblibspark", reason="joblibspark is not installed")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("there is no Java runtime")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1")
    session = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    try:
        joblibspark.register_spark()
        assert_same_catalogue(joblib.parallel_config(backend="spark", n_jobs=2), tmp_path)
    finally:
        session.stop()
