"""Threads that share the tiles of a chain.

Torch's convolutions run in the threads of its OpenMP library, which for a while after a convolution
still watch for the next one and keep the processors busy. So compiled functions run in these very
threads, through the library's entry for parallel regions. Where there is none (another library, or
a forked child, in which OpenMP's threads do not exist), a few Python threads take their place:
compiled code runs without Python's global lock. numba's threading layers serve neither: OpenMP's
ends a process that uses it in a forked child, the work queue's one that uses it in two threads at
once.

The Python threads begin with the first call that needs them; a forked child begins its own. Every
participant takes the next tiles until none is left, the caller among them. It waits for the helpers
that have begun, never for one that is busy elsewhere: so calls may be nested, and made by many
threads at once.
"""

import ctypes
import os
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread, local
from typing import Any, Final

import torch
from torch import Tensor

from ifspace.kernels.chain import engine
from ifspace.kernels.chain.compiled import Entry

# Parts of the tiles for each thread: so many times a thread can be late and others take over.
PARTS: Final = 4

Work = Callable[[int, int], None]

_memory: Final = local()


class _Call:
    """One call's tiles, and how many helpers are at work on them."""

    def __init__(self, work: Work, tiles: int, size: int) -> None:
        self.work: Work | None = work
        self.tiles, self.size = tiles, size
        self.begins = count(0, size)
        self.lock = Lock()
        self.is_open = True
        self.helpers = 0
        self.gone: SimpleQueue[None] = SimpleQueue()
        self.errors: list[BaseException] = []

    def take(self) -> None:
        """Compute the next tiles until none is left, or a participant has failed."""
        work = self.work
        while work is not None and not self.errors and (begin := next(self.begins)) < self.tiles:
            try:
                work(begin, min(self.tiles, begin + self.size))
            except BaseException as error:
                self.errors.append(error)

    def help(self) -> None:
        """Take part, unless the call is over."""
        with self.lock:
            if not self.is_open:
                return
            self.helpers += 1
        self.take()
        with self.lock:
            self.helpers -= 1
        self.gone.put(None)

    def finish(self) -> None:
        """Wait until no helper is at work; an interrupt of the caller waits too.

        Whenever an interrupt comes, the loop goes on from what is true: a helper is counted until
        it has left, and then writes to `gone`.
        """
        while self.is_open or self.helpers:
            try:
                with self.lock:
                    self.is_open = False
                if self.helpers:
                    self.gone.get()
            except BaseException as error:
                self.errors.append(error)
        self.work = None  # a helper may come late, and would keep the tensors alive


class _Pool:
    """Threads that wait for calls."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        self.lock = Lock()
        self.size = 0

    def grow(self, size: int) -> int:
        """Have `size` threads or more, if the system gives as many; return how many can help."""
        with self.lock, suppress(RuntimeError):  # no more threads, or the interpreter ends
            for _ in range(self.size, size):
                Thread(target=self._serve, name="ifspace", daemon=True).start()
                self.size += 1
        return min(self.size, size)

    def _serve(self) -> None:
        while True:
            self.calls.get().help()


_pool = _Pool()


def _forget() -> None:
    """Drop the parent's threads, which a forked child does not have."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def share(work: Work, tiles: int, threads: int) -> None:
    """Call `work(begin, end)` for parts of the tiles 0 ... tiles - 1 in some threads.

    `work` has to hold every tensor whose memory it reads or writes: an interrupt at the wrong
    moment can end this call before the last helper is done.

    Raises: what `work` raises, in any thread.
    """
    size = max(1, tiles // (threads * PARTS))
    helpers = min(threads, -(-tiles // size)) - 1
    call = _Call(work, tiles, size)
    try:
        for _ in range(_pool.grow(helpers)):
            _pool.calls.put(call)
        call.take()
    finally:
        call.finish()
    if call.errors:
        raise call.errors[0]


@cache
def parallel_region() -> Callable[..., None] | None:
    """Return `GOMP_parallel(function, argument, threads, flags)` of torch's OpenMP, or None."""
    for path in sorted(Path(torch.__file__).with_name("lib").glob("libgomp*")):
        region: Any = ctypes.CDLL(str(path)).GOMP_parallel
        region.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        region.restype = None
        return region  # type: ignore[no-any-return]
    return None


def run_parts(
    entry: Entry,
    arguments: Sequence[int],
    count: int,
    threads: int,
    scratch: int,
    holds: tuple[Any, ...],
) -> None:
    """Run a compiled function on parts of the work 0 ... count - 1 in some threads at once.

    `arguments`: those of the function without the last two; `scratch`: bytes of memory of a thread;
    `holds`: what owns all memory that it reads and writes.
    """
    run_words(entry, array("q", (*arguments, *shares(count, threads, scratch))), threads, holds)


def shares(count: int, threads: int, scratch: int, parts: int = PARTS) -> tuple[int, ...]:
    """Return the words behind the arguments of a compiled function: see `Entry.address`.

    `parts`: of the work for each of several threads.
    """
    return count, count if threads == 1 else max(1, count // (threads * parts)), scratch, 0, 0


def run_words(entry: Entry, words: "array[int]", threads: int, holds: tuple[Any, ...]) -> None:
    """Run a compiled function as `run_parts` does, for words of which it writes the last two."""
    place = words.buffer_info()[0]
    region = None if threads == 1 or engine.is_forked else parallel_region()
    if threads == 1:
        entry.code(place)
    elif region is not None:
        region(entry.address, place, threads, 0)
    else:
        code, held = entry.code, (words, holds)

        def work(begin: int, end: int) -> None:
            code(held[0].buffer_info()[0])

        # While helpers are at work, the caller may run a signal handler or a finalizer: a call in
        # it takes other memory, and so does the next one, if an interrupt ends this call too early.
        memory = _memory.__dict__.pop("floats", None)
        share(work, threads, threads)
        _memory.floats = memory


def scratch_memory(floats: int) -> Tensor:
    """Return memory of this thread, which its next call may overwrite."""
    memory: Tensor | None = getattr(_memory, "floats", None)
    if memory is None or memory.numel() < floats:
        memory = _memory.floats = torch.empty(floats, dtype=torch.float32, device="cpu")
    return memory
