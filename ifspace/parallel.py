"""The one entry point to joblib: a function over shards, in this process or in several.

The answer does not depend on the number of workers: shards come back in the order they were cut.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any, TypeVar

from ifspace.errors import ARGUMENT, SettingError, WorkerError

Shard = TypeVar("Shard")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def workers(jobs: int | None) -> int:
    """Return the number of worker processes: `jobs`, or one per usable core.

    >>> workers(3)
    3

    Raises: SettingError below 1.
    """
    if jobs is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores()
    if jobs < 1:
        raise SettingError.because(
            f"too few {ARGUMENT}",
            got=jobs,
            allowed="1 or more",
            remedy="leave it out to use all cores",
            argument="jobs",
        )
    return jobs


def _cores() -> int:
    return os.cpu_count() or 1


def over_shards(
    function: Callable[[Shard], Result],
    shards: Sequence[Shard],
    jobs: int,
    progress: Progress | None = None,
) -> list[Result]:
    """Return function(shard) for every shard, in their order.

    One job runs here, more run in joblib's worker processes (loky), at most one per shard.
    `progress(done, total)` is called after each shard.

    Raises: WorkerError if a worker process ends before its shard is done.
    """
    answers: list[Result] = []
    jobs = min(jobs, len(shards))
    try:
        for answer in _answers(function, shards, jobs):
            answers.append(answer)
            if progress is not None:
                progress(len(answers), len(shards))
    except BrokenExecutor:
        raise WorkerError.because(
            "a worker process was ended from outside",
            got=f"{jobs} workers, {len(answers)} of {len(shards)} parts done",
            allowed="as many workers as fit into memory: most often it has run out",
            remedy=f"use fewer {ARGUMENT} than {jobs}",
            argument="jobs",
        ) from None
    return answers


def _answers(function: Callable[..., Any], shards: Sequence[Any], jobs: int) -> Iterable[Any]:
    if jobs <= 1:
        return map(function, shards)
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=jobs, backend="loky", return_as="generator", max_nbytes=None)
    answers: Iterable[Any] = pool(delayed(function)(shard) for shard in shards)
    return answers
