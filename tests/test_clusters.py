"""Work on the caller's engine: threads, and clusters that run already, started here for real."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import brute_groups
import joblib
import numpy as np
import psutil
import pytest
from brute_force import assert_same_designs

from benchmarks.cluster import Cluster, cluster
from experiments import groups_study
from experiments.groups_study import cheapest_blocks
from ifspace.block import Composition
from ifspace.catalogue import load, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.cli.backend import joined
from ifspace.enumerate import run as runs
from ifspace.enumerate import search
from ifspace.enumerate.run import run_in_folder
from ifspace.enumerate.search import enumerate_designs
from ifspace.groups.problem import GroupsProblem
from ifspace.parallel import configured_workers, over_shards
from ifspace.scores import LayerList, validation
from ifspace.scores.published import TrainedNetwork
from ifspace.scores.tables import network_sets
from ifspace.scores.validation import validate
from ifspace.stages import allocate, best_few
from ifspace.stages.entry import layout

SETTINGS = (EnumerationSetting(channels=8, max_len=4),)
COMMAND = ("enumerate", "-C", "8", "--max-len", "4")
PARTS = 6


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the little work worth several workers."""
    monkeypatch.setattr(search, "WORTH_WORKERS_S", 0)
    monkeypatch.setattr(search, "SHARD_S", 1e-6)
    monkeypatch.setattr(search, "MOST_SHARDS", PARTS)
    monkeypatch.setattr(runs, "PART_S", 1e-6)
    monkeypatch.setattr(runs, "MOST_PARTS", PARTS)
    monkeypatch.setattr(allocate, "SHARD", 2)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def expected(tmp_path: Path) -> str:
    save(enumerate_designs(SETTINGS, jobs=1), tmp_path / "one.parquet")
    return digest(tmp_path / "one.parquet")


def test_threads_of_the_caller_make_no_process(
    expected: str, split: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configured_workers() is None
    solve, seen = search.solve, set()

    def solved(shard: search.Shard) -> object:
        seen.add((os.getpid(), threading.get_ident()))
        return solve(shard)

    monkeypatch.setattr(search, "solve", solved)
    before = set(psutil.Process().children(recursive=True))
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert configured_workers() == 2
        save(enumerate_designs(SETTINGS), tmp_path / "threads.parquet")
    assert set(psutil.Process().children(recursive=True)) == before
    assert {process for process, _ in seen} == {os.getpid()}
    assert threading.get_ident() not in {thread for _, thread in seen}
    assert digest(tmp_path / "threads.parquet") == expected


def test_a_backend_that_answers_with_lists_is_given_a_few_shards_at_a_time() -> None:
    # As Ray's does; this one has processes that are forked.
    progress: list[tuple[int, int]] = []
    with joblib.parallel_config(backend="multiprocessing", n_jobs=2):
        answers = over_shards(abs, [-3, 1, -2, 5, -7], 2, lambda *call: progress.append(call))
    assert answers == [3, 1, 2, 5, 7]
    assert progress == [(n, 5) for n in range(1, 6)]


def test_an_address_needs_a_cluster_and_a_cluster_an_address(run: Callable) -> None:
    ended = run(*COMMAND, "--address", "tcp://127.0.0.1:1")
    assert ended.status == 2
    assert "--address: a cluster needs both" in ended.err
    ended = run(*COMMAND, "--backend", "ray")
    assert ended.status == 2
    assert "a cluster needs both: got --backend ray" in ended.err
    assert run(*COMMAND, "--backend", "loky").status == 0


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="ifspace[dask] is not installed")
    with cluster(3, tmp_path) as running:  # of a last one joblib makes no use
        yield running


@pytest.fixture(scope="module")
def answers() -> list[str]:
    """What every feature says in this process."""
    return of_every_feature()


def of_every_feature() -> list[str]:
    """What is shared among workers, on the engine of the caller; brute force finds the same."""
    setting = EnumerationSetting(channels=4, max_len=3)
    catalogue = enumerate_designs([setting])
    assert_same_designs(catalogue.designs, setting)
    problems = [
        GroupsProblem(Composition.parse(text), 4, out)
        for text in ("DW+PW", "GPW+SH+DW+GPW", "DW+RPW", "GC+SH+GPW")
        for out in (4, 8)
    ]
    blocks = cheapest_blocks(problems, shard=2)
    assert [block.params for block in blocks] == [
        cost for problem in problems if (cost := brute_groups.least(problem)) is not None
    ]
    random = np.random.default_rng(0)
    layers = [f"3/1/8/{8 * n}/1/8;3/1/{8 * n}/{8 * n}/1/8" for n in range(1, 21)]
    networks = [
        TrainedNetwork(f"n{n}", f"set {n % 2}", LayerList.parse(text), random.normal(50, 9), {})
        for n, text in enumerate(layers)
    ]
    validation = validate(network_sets(networks), resamples=10)
    layouts = layout(
        stages=(16, 8),
        depths=(2, 2),
        widths=(8, 16),
        blocks=[["DW+PW", "DW+GPW+SH+GPW"]],
        top=2,
    )
    return [repr(answer) for answer in (catalogue, blocks, validation, layouts.plans)]


def seen_by(threads: set[int], work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def seen(shard: Any) -> Any:
        threads.add(threading.get_ident())
        return work(shard)

    return seen


@pytest.mark.slow
def test_every_feature_is_done_on_the_engine_of_the_caller(
    answers: list[str], split: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {}
    for module, name in (
        (search, "solve"),
        (groups_study, "cheapest"),
        (validation, "_compare"),
        (allocate, "_solve_cases"),
        (best_few, "_solved"),
    ):
        seen = threads.setdefault(name, set())
        monkeypatch.setattr(module, name, seen_by(seen, getattr(module, name)))
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert of_every_feature() == answers
    # Where one search is left of those of the best few, it is made here.
    threads["_solved"].discard(threading.get_ident())
    assert all(threads.values())
    assert threading.get_ident() not in set.union(*threads.values())


@pytest.mark.slow
def test_worker_processes_do_the_work_of_every_feature(answers: list[str], split: None) -> None:
    with joblib.parallel_config(backend="loky", n_jobs=2):
        over_shards(abs, [-1, -2], 2)  # starts them, and they stay
        workers = psutil.Process().children(recursive=True)
        spent = [sum(worker.cpu_times()[:2]) for worker in workers]
        assert of_every_feature() == answers
    more = [sum(w.cpu_times()[:2]) - before for w, before in zip(workers, spent, strict=True)]
    assert sum(seconds > 0.1 for seconds in more) == 2


@pytest.mark.slow
def test_dask_does_the_work_of_every_feature(
    dask: Cluster, answers: list[str], split: None
) -> None:
    spent = [sum(psutil.Process(worker.pid).cpu_times()[:2]) for worker in dask.workers]
    with joined("dask", str(dask.address)):
        assert of_every_feature() == answers
    for worker, before in zip(dask.workers, spent, strict=True):
        assert sum(psutil.Process(worker.pid).cpu_times()[:2]) > before


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_dask_gives_the_same_bytes_and_may_lose_a_worker_and_its_scheduler(
    dask: Cluster,
    split: None,
    expected: str,
    tmp_path: Path,
    run: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, file = tmp_path / "run", tmp_path / "a.parquet"
    engine = ("--backend", "dask", "--address", str(dask.address), "--quiet")
    ended = run(*COMMAND, *engine, "--out", str(file))
    assert (ended.status, ended.err) == (0, "")
    assert digest(file) == expected
    write = runs.Shards.write

    def ends(process: subprocess.Popen[bytes]) -> Callable[..., None]:
        def writes(shards: runs.Shards, number: int, content: bytes) -> None:
            if process.poll() is None:  # at the first part
                process.kill()
                process.wait()
            write(shards, number, content)

        return writes

    monkeypatch.setattr(runs.Shards, "write", ends(dask.workers[0]))
    assert run(*COMMAND, *engine, "--out", str(folder)).status == 0
    assert run("merge", folder, "--out", str(file), "--quiet").status == 0
    assert digest(file) == expected, "the other worker did the rest"
    monkeypatch.setattr(runs, "MOST_PARTS", 4 * PARTS)
    monkeypatch.setattr(runs.Shards, "write", ends(dask.scheduler))
    started = time.monotonic()
    longer = ("enumerate", "-C", "16", "--max-len", "5", *engine)
    ended = run(*longer, "--out", str(tmp_path / "lost"))
    assert time.monotonic() - started < 30, "it hangs"
    assert ended.status == 1
    assert ended.err.startswith("ifspace: a worker was ended from outside, or cannot be reached")
    assert "not done: " in ended.err
    monkeypatch.setattr(runs.Shards, "write", write)
    kept = len(list((tmp_path / "lost").glob("shard-*")))
    assert 1 <= kept < 4 * PARTS
    setting = EnumerationSetting(channels=16, max_len=5)
    run_in_folder([setting], tmp_path / "lost", jobs=1)
    assert load(tmp_path / "lost") == enumerate_designs([setting], jobs=1)
    ended = run(*COMMAND, "--backend", "dask", "--address", "tcp://127.0.0.1:1")
    assert ended.status == 2
    assert "--address: no cluster answers: got tcp://127.0.0.1:1" in ended.err
