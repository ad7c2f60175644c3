"""Threads that share the tiles of a chain.

Compiled code runs without Python's global lock, so a few Python threads suffice, and none of
numba's threading layers: OpenMP's ends a process that uses it in a forked child, the work queue's
one that uses it in two threads at once. The threads begin with the first call that needs them; a
forked child begins its own. Every participant takes the next tiles until none is left, the
caller among them: it never waits for a thread that is busy elsewhere.
"""

import os
from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from threading import Lock, Thread, local
from typing import Final

import torch
from torch import Tensor

# Parts of the tiles for each thread: so many times a thread can be late and others take over.
PARTS: Final = 4

Work = Callable[[int, int], None]

_memory: Final = local()


class _Pool:
    """Threads that wait for work."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.lock = Lock()
        self.size = 0

    def grow(self, size: int) -> None:
        """Have `size` threads, or more."""
        with self.lock:
            for _ in range(self.size, size):
                Thread(target=self._serve, name="ifspace", daemon=True).start()
                self.size += 1

    def _serve(self) -> None:
        while True:
            self.calls.get()()


_pool = _Pool()


def _forget() -> None:
    """Drop the parent's threads, which a forked child does not have."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def share(work: Work, tiles: int, threads: int) -> None:
    """Call `work(begin, end)` for parts of the tiles 0 ... tiles - 1 in some threads.

    Raises: what `work` raises, in any thread.
    """
    size = max(1, tiles // (threads * PARTS))
    parts = -(-tiles // size)
    helpers = min(threads, parts) - 1
    turns, results = count(), SimpleQueue[BaseException | None]()

    def take() -> None:
        while (part := next(turns)) < parts:
            work(part * size, min(tiles, (part + 1) * size))

    def take_and_report() -> None:
        try:
            take()
        except BaseException as error:
            results.put(error)
        else:
            results.put(None)

    _pool.grow(helpers)
    for _ in range(helpers):
        _pool.calls.put(take_and_report)
    take()
    errors = [error for error in (results.get() for _ in range(helpers)) if error is not None]
    if errors:
        raise errors[0]


def scratch_memory(floats: int) -> Tensor:
    """Return memory of this thread, which its next call may overwrite."""
    memory: Tensor | None = getattr(_memory, "floats", None)
    if memory is None or len(memory) < floats:
        memory = _memory.floats = torch.empty(floats, dtype=torch.float32)
    return memory
