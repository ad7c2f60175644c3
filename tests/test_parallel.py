"""One function over shards: the same answers, in order, in this process and in several."""

import os
from collections.abc import Callable

import pytest

from ifspace.errors import IfspaceError, SettingError
from ifspace.parallel import over_shards, workers


def _slower_first() -> Callable[[int], tuple[int, int]]:
    # Made here so that it is sent by value: worker processes do not import the tests.
    def answer(shard: int) -> tuple[int, int]:
        import os
        import time

        time.sleep(0.05 * (3 - shard % 4))
        return shard * shard, os.getpid()

    return answer


def test_workers_are_as_many_as_asked_for_or_one_to_a_core() -> None:
    assert workers(1) == 1
    assert workers(100) == 100
    assert 1 <= workers(None) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("jobs", [0, -1, -8])
def test_fewer_than_one_worker_is_an_error(jobs: int) -> None:
    with pytest.raises(SettingError, match=rf"^too few jobs: got {jobs}; allowed: 1 or more; "):
        workers(jobs)
    assert issubclass(SettingError, IfspaceError)


def test_one_job_runs_here() -> None:
    seen = []
    answers = over_shards(_slower_first(), [3, 7], 1, lambda *progress: seen.append(progress))
    assert answers == [(9, os.getpid()), (49, os.getpid())]
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.slow
def test_several_jobs_run_elsewhere_and_answer_in_order() -> None:
    seen = []
    answers = over_shards(
        _slower_first(), list(range(8)), 2, lambda *progress: seen.append(progress)
    )
    assert [square for square, _ in answers] == [n * n for n in range(8)]
    processes = {process for _, process in answers}
    assert os.getpid() not in processes
    assert 1 <= len(processes) <= 2
    assert seen == [(n, 8) for n in range(1, 9)]


@pytest.mark.slow
def test_a_worker_may_keep_what_its_shards_share() -> None:
    # loky ends a worker by default whose memory grew by 300 MB after its first shard.
    def limit(shard: int) -> int:
        from joblib.externals.loky import process_executor

        return process_executor._MAX_MEMORY_LEAK_SIZE

    assert min(over_shards(limit, [0, 1], 2)) > 1 << 40


def test_one_shard_is_not_worth_a_worker() -> None:
    assert over_shards(_slower_first(), [3], 2) == [(9, os.getpid())]


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_shards_have_no_answers(jobs: int) -> None:
    assert over_shards(_slower_first(), [], jobs) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_shard_is_the_callers_to_see(jobs: int) -> None:
    def fails(shard: int) -> int:
        raise ValueError(f"shard {shard}")

    with pytest.raises(ValueError, match=r"^shard [12]\b"):
        over_shards(fails, [1, 2], jobs)
