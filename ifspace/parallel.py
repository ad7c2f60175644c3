"""The one entry point to joblib: a function over shards, in this process or in several.

Where the work is done is the caller's to say, by `joblib.parallel_config` around the call: worker
processes of this machine unless it says something else. The answer does not depend on it, nor on
the number of workers.
"""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pickle import PicklingError, dumps
from traceback import format_exc
from typing import Any, Generic, TypeVar
from warnings import catch_warnings, simplefilter

from ifspace.errors import ARGUMENT, SettingError, WorkerError

Shard = TypeVar("Shard")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def workers(jobs: int | None) -> int:
    """Return the number of worker processes: `jobs`, or as many as there are of use.

    Those are what the caller's `joblib.parallel_config` has, else one per usable core.

    >>> workers(3)
    3

    Raises: SettingError below 1.
    """
    if jobs is None:
        return configured_workers() or _cores()
    if jobs < 1:
        raise SettingError.because(
            f"too few {ARGUMENT}",
            got=jobs,
            allowed="1 or more",
            remedy="leave it out to use all cores",
            argument="jobs",
        )
    return jobs


def workers_or_one(jobs: int | None) -> int:
    """Return the number of workers for work that is often too short to share: one if not given.

    That is `jobs`, or as many as the caller's `joblib.parallel_config` has.

    >>> workers_or_one(None), workers_or_one(3)
    (1, 3)

    Raises: SettingError below 1.
    """
    return configured_workers() or 1 if jobs is None else workers(jobs)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configured_workers() -> int | None:
    """Return how many workers the caller's `joblib.parallel_config` has; None without one.

    What one worker would do is done in this process, by joblib too.
    """
    from joblib import effective_n_jobs
    from joblib.parallel import BACKENDS, DEFAULT_BACKEND, get_active_backend

    backend, n_jobs = get_active_backend()
    if type(backend) is BACKENDS[DEFAULT_BACKEND] and n_jobs in (None, 1):
        return None
    return max(1, int(effective_n_jobs(-1 if n_jobs is None else n_jobs)))


def configured(backend: str) -> Any:
    """Return a context in which the work is done by a backend that joblib knows by name."""
    from joblib import parallel_config

    return parallel_config(backend=backend)


def over_shards(
    function: Callable[[Shard], Result],
    shards: Sequence[Shard],
    jobs: int,
    progress: Progress | None = None,
) -> list[Result]:
    """Return function(shard) for every shard, in their order.

    One job runs here, more run where the caller's `joblib.parallel_config` says, by default in
    worker processes of this machine, at most one per shard. `progress(done, total)` is called after
    each shard.

    Raises: WorkerError if a worker ends before its shard is done.
    """
    answers: dict[int, Result] = {}
    for index, answer in as_completed(function, shards, jobs):
        answers[index] = answer
        if progress is not None:
            progress(len(answers), len(shards))
    return [answers[index] for index in range(len(shards))]


def as_completed(
    function: Callable[[Shard], Result], shards: Sequence[Shard], jobs: int
) -> Generator[tuple[int, Result], None, None]:
    """Yield the index of each shard and function(shard), in the order in which they are done.

    Raises: WorkerError if a worker ends before its shard is done.
    """
    jobs = min(jobs, len(shards))
    if jobs <= 1:
        yield from enumerate(map(function, shards))
        return
    left = set(range(len(shards)))
    answers = _answers(_Numbered(function), shards, jobs)
    try:
        while left:
            try:
                index, answer, error = next(answers)
            except Exception as failure:
                # Those of the function come as values: this one is of the workers.
                raise _lost(failure, jobs, left, len(shards)) from None
            if error is not None:
                raise error
            left.remove(index)
            yield index, answer
    finally:
        with catch_warnings():
            simplefilter("ignore")  # what is left undone after an error is left so on purpose
            answers.close()


def _lost(failure: Exception, jobs: int, left: set[int], shards: int) -> WorkerError:
    first = ", ".join(str(index + 1) for index in sorted(left)[:3])
    reason = type(failure).__name__
    return WorkerError.because(
        "a worker was ended from outside, or cannot be reached",
        got=f"{reason}; {jobs} workers, {shards - len(left)} of {shards} parts done, "
        f"not done: {first}{', ...' * (len(left) > 3)}",
        allowed="as many workers as fit into memory: most often it has run out",
        remedy=f"use fewer {ARGUMENT} than {jobs}",
        argument="jobs",
    )


class _Numbered(Generic[Shard, Result]):
    """A function that returns with its answer, or its error, the number of the shard."""

    def __init__(self, function: Callable[[Shard], Result]) -> None:
        self.function = function

    def __call__(self, index: int, shard: Shard) -> tuple[int, Result | None, Exception | None]:
        _keep_worker()
        try:
            return index, self.function(shard), None
        except Exception as error:
            error.add_note(format_exc())
            try:
                dumps(error)
            except (PicklingError, TypeError, AttributeError):
                return index, None, RuntimeError(format_exc())
            return index, None, error


def _keep_worker() -> None:
    """Let a worker process keep what its shards have in common.

    loky ends a worker that has 300 MB more than after its first shard, as one that leaks memory:
    long searches were begun anew every few minutes.
    """
    loky = sys.modules.get("joblib.externals.loky.process_executor")
    if loky is not None:
        vars(loky)["_MAX_MEMORY_LEAK_SIZE"] = sys.maxsize


def _answers(function: Any, shards: Sequence[Any], jobs: int) -> Generator[Any, None, None]:
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    def calls(some: Iterable[int]) -> Iterator[Any]:
        return (delayed(function)(index, shards[index]) for index in some)

    # Shards are large enough, and those of a batch would be lost together.
    options = {"n_jobs": jobs, "prefer": "processes", "max_nbytes": None, "batch_size": 1}
    backend, _ = get_active_backend(prefer="processes")
    if backend.supports_return_generator:
        yield from Parallel(return_as="generator_unordered", **options)(calls(range(len(shards))))
        return
    for start in range(0, len(shards), 2 * jobs):  # all workers busy, and not all lost at the end
        yield from Parallel(**options)(calls(range(len(shards))[start : start + 2 * jobs]))
