"""Threads that share the tiles of a chain: how many, their errors, interrupts, forks, the exit."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ifspace.kernels.chain import threads as threads_of_chains
from ifspace.kernels.chain.stages import Chain, Stage, reference
from ifspace.kernels.chain.threads import scratch_memory, share
from ifspace.kernels.chain.tiles import SHARED_WORK, plan_for, run

# A chain with work for several threads, and one with too little.
CHAIN = Chain((Stage(32, 32, 1, 1, "blocked", 3, 1, 1), Stage(32, 32, 8, 8), Stage(32, 32, 8, 4)))
SIZE = (2, 32, 40, 48)
# A fork is safe for the chains, whatever Python 3.12 and torch warn of threads.
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
NO_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def inputs(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(SIZE, generator=generator),
        torch.randn(CHAIN.weights, generator=generator),
    )


def result(seed: int = 1) -> bytes:
    """Return the bytes of a result; no operator of torch shares work among threads for them."""
    return run(*inputs(seed), None, CHAIN).numpy().tobytes()


@pytest.fixture(autouse=True, params=["OpenMP", "Python"])
def two_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have two threads, those of torch's OpenMP or those of Python."""
    if request.param == "Python":
        monkeypatch.setattr(threads_of_chains, "parallel_region", lambda: None)
    elif threads_of_chains.parallel_region() is None:
        pytest.skip("torch has another library of threads")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expected() -> bytes:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    y = run(*inputs(), None, CHAIN)
    torch.set_num_threads(before)
    x, weights = inputs()
    exact = reference(x.double(), weights.double(), None, CHAIN)
    assert (y - exact).abs().max() < 2e-6 * exact.abs().max()
    return y.numpy().tobytes()


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program with what this file defines, in a fresh interpreter."""
    names = Path(__file__).parent, *sys.path
    return subprocess.run(
        [sys.executable, "-c", f"from {Path(__file__).stem} import *\n{program}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, names))} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# ---- how many threads


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_as_many_threads_as_asked_for_run_at_once(threads: int) -> None:
    """Nobody passes the barrier before all of them stand at it."""
    barrier = threading.Barrier(threads)
    at_work: set[int] = set()

    def work(begin: int, end: int) -> None:
        at_work.add(threading.get_ident())
        barrier.wait(20)

    share(work, threads, threads)
    assert len(at_work) == threads


@pytest.mark.parametrize("tiles", [1, 2, 7, 8, 9, 64, 1000])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_tile_is_computed_once(tiles: int, threads: int) -> None:
    computed: list[int] = []
    share(lambda begin, end: computed.extend(range(begin, end)), tiles, threads)
    assert sorted(computed) == list(range(tiles))


@pytest.mark.slow
def test_the_number_of_threads_is_that_of_torch_at_each_call() -> None:
    answer = python(
        "threads_of_chains.parallel_region = lambda: None\n"
        "def helpers(): return sum(t.name == 'ifspace' for t in threading.enumerate())\n"
        "counts, results = [], set()\n"
        "for threads in (1, 4, 1, 3, 6):\n"
        "    torch.set_num_threads(threads)\n"
        "    results.add(result())\n"
        "    counts.append(helpers())\n"
        "print(counts, len(results))"
    )
    assert answer.stdout.split("\n")[0] == "[0, 3, 3, 3, 5] 1", answer


def test_the_chain_of_these_tests_is_shared() -> None:
    plan = plan_for(CHAIN, SIZE[0], *SIZE[2:], 2)
    assert plan.work > SHARED_WORK
    assert plan.tiles >= 4


def test_any_number_of_threads_gives_the_same_bits(expected: bytes) -> None:
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        assert result() == expected


def test_without_more_threads_the_caller_computes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    computed: list[int] = []
    share(lambda begin, end: computed.extend(range(begin, end)), 100, 50)
    assert sorted(computed) == list(range(100))


# ---- callers


def test_eight_threads_at_once_get_their_own_numbers() -> None:
    seeds = range(8)
    own = [result(seed) for seed in seeds]

    def call_often(seed: int) -> bool:
        return all(result(seed) == own[seed] for _ in range(12))

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(call_often, seeds))


def test_a_call_inside_a_part_of_another_ends() -> None:
    """Every helper of the outer call waits for an inner one, which no thread is free for."""
    computed: list[tuple[int, int]] = []

    def inner(tile: int, begin: int, end: int) -> None:
        computed.extend((tile, number) for number in range(begin, end))

    def outer(begin: int, end: int) -> None:
        for tile in range(begin, end):
            share(partial(inner, tile), 16, 3)

    share(outer, 12, 3)
    assert sorted(computed) == [(tile, number) for tile in range(12) for number in range(16)]


def test_a_call_inside_another_has_memory_of_its_own(
    monkeypatch: pytest.MonkeyPatch, expected: bytes
) -> None:
    """As of a signal handler, which runs in the caller while helpers compute."""
    own = [result(seed) for seed in (1, 2)]
    address = scratch_memory(1).data_ptr()
    inside: list[int] = []

    def share_and_call(work: Callable[[int, int], None], tiles: int, threads: int) -> None:
        monkeypatch.setattr(threads_of_chains, "share", share)
        inside.append(scratch_memory(1).data_ptr())
        share(work, 1, 1)  # the part of a helper
        assert result(2) == own[1]
        share(work, tiles - 1, threads - 1)

    monkeypatch.setattr(threads_of_chains, "share", share_and_call)
    assert result() == own[0] == expected
    assert address not in inside
    assert scratch_memory(1).data_ptr() == address


def test_a_caller_does_not_wait_for_a_helper_that_is_busy_elsewhere() -> None:
    release, busy = threading.Event(), threading.Barrier(3)

    def block(begin: int, end: int) -> None:
        busy.wait(20)
        release.wait(20)

    blocked = threading.Thread(target=share, args=(block, 2, 2))
    blocked.start()
    busy.wait(20)
    begin = time.monotonic()
    share(lambda begin, end: None, 8, 2)
    assert time.monotonic() - begin < 5
    release.set()
    blocked.join(20)


# ---- errors and interrupts


@pytest.mark.parametrize("fails_in", ["the caller", "a helper"])
def test_an_exception_reaches_the_caller_when_all_have_ended(fails_in: str) -> None:
    caller, barrier, at_work = threading.get_ident(), threading.Barrier(2), [0]

    def work(begin: int, end: int) -> None:
        is_caller = threading.get_ident() == caller
        if begin < 2:
            barrier.wait(20)
        at_work[0] += 1
        try:
            if is_caller == (fails_in == "the caller"):
                raise ValueError("a tile that fails")
            time.sleep(0.05)
        finally:
            at_work[0] -= 1

    for _ in range(3):
        with pytest.raises(ValueError, match="a tile that fails"):
            share(work, 2, 2)
        assert at_work == [0]


def test_after_an_exception_no_more_tiles_are_begun() -> None:
    begun: list[int] = []

    def work(begin: int, end: int) -> None:
        begun.append(begin)
        raise ValueError("a tile that fails")

    with pytest.raises(ValueError, match="a tile that fails"):
        share(work, 1000, 2)
    assert len(begun) <= 2


@pytest.mark.parametrize("interrupts", [1, 3])
def test_an_interrupt_waits_for_the_helpers(interrupts: int, expected: bytes) -> None:
    """They write into memory that the caller frees."""
    barrier, at_work = threading.Barrier(2), [0]
    main = threading.main_thread().ident
    assert main == threading.get_ident()

    def work(begin: int, end: int) -> None:
        barrier.wait(20)
        if threading.get_ident() == main:
            return  # the caller waits for the helper, which interrupts it
        at_work[0] += 1
        for _ in range(interrupts):
            time.sleep(0.05)
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.05)
        at_work[0] -= 1

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        share(work, 2, 2)
    assert at_work == [0]
    assert result() == expected


@pytest.mark.slow
def test_interrupts_at_any_moment_leave_the_threads_usable(expected: bytes) -> None:
    main, stop = threading.get_ident(), threading.Event()
    interruptible: list[bool] = []

    def on_interrupt(*_: object) -> None:
        if interruptible:
            interruptible.clear()
            raise KeyboardInterrupt

    def interrupt() -> None:
        while not stop.wait(0.003):
            signal.pthread_kill(main, signal.SIGINT)

    def one_call() -> bytes | None:
        try:
            interruptible.append(True)
            answer = result()
            interruptible.clear()
        except KeyboardInterrupt:
            return None
        return answer

    handler = signal.signal(signal.SIGINT, on_interrupt)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        results = {one_call() for _ in range(200)}
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGINT, handler)
    assert None in results
    assert results <= {None, expected}
    assert result() == expected


# ---- forks


def check_child(body: Callable[[], None]) -> None:
    """Fork, run `body` in the child, and see the child end well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child does not end")


@NO_FORK
@FORKS
def test_a_forked_child_and_its_child_begin_their_own_threads(expected: bytes) -> None:
    def child() -> None:
        assert result() == expected
        check_child(grandchild)
        assert result() == expected

    def grandchild() -> None:
        assert result() == expected

    assert result() == expected
    check_child(child)
    assert result() == expected


@NO_FORK
@FORKS
def test_a_fork_while_other_threads_are_inside_a_call(expected: bytes) -> None:
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            assert result() == expected

    def child() -> None:
        assert result() == expected

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            check_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@NO_FORK
@pytest.mark.slow
def test_a_forked_child_that_is_the_first_to_need_the_loops() -> None:
    """The parent has imported ifspace and used torch's threads, which the child waits for."""
    program = (
        "import os, signal, torch\n"
        "from torch import nn\n"
        "from ifspace.nn import fuse\n"
        "torch.set_num_threads(2)\n"
        "module = nn.Sequential(nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 1)).eval()\n"
        "fused, x = fuse(module), torch.ones(2, 64, 64, 64)\n"
        "with torch.no_grad():\n"
        "    expected, child = module(x), os.fork()\n"
        "    if child == 0:\n"
        "        signal.alarm(30)\n"
        "        error = abs(fused(x).numpy() - expected.numpy()).max()\n"
        "        os._exit(0 if error < 1e-5 else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert answer.stdout == "0\n", answer


def put_result(answers: "multiprocessing.SimpleQueue[bytes]") -> None:
    torch.set_num_threads(2)
    answers.put(result())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
@FORKS
def test_processes_of_multiprocessing(method: str, expected: bytes) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    context = multiprocessing.get_context(method)
    assert result() == expected
    answers = context.SimpleQueue()
    process = context.Process(target=put_result, args=(answers,))
    process.start()
    assert answers.get() == expected
    process.join(60)
    assert process.exitcode == 0


class Results(Dataset[torch.Tensor]):
    """Results of the chain, computed where they are read, by one thread or two."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(1 + index % 2)
        y = run(*inputs(index), None, CHAIN)
        torch.set_num_threads(before)  # a worker's one: torch's OpenMP has no threads in a fork
        return y


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
@FORKS
def test_workers_of_a_data_loader(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    data = Results()
    own = [data[index] for index in range(len(data))]
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=method)
    loaded = torch.cat([batch.flatten(0, 1) for batch in loader])
    assert torch.equal(loaded, torch.cat(own))


# ---- the exit


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        "",
        # One call of some seconds: an operator of torch that a daemon thread is in at the end
        # terminates the process.
        "long = Chain((Stage(512, 512, 512, 512),) * 16); "
        "tensors = torch.zeros(8, 512, 64, 64), torch.zeros(long.weights), None, long; "
        "threading.Thread(target=run, args=tensors, daemon=True).start(); "
        "time.sleep(0.2)",
        "import atexit; atexit.register(result)",
        "multiprocessing.get_context('fork').Process(target=result).start()",
    ],
    ids=["idle", "in a call", "a call at exit", "a forked child"],
)
def test_the_interpreter_ends_while_threads_wait(end: str) -> None:
    answer = python(f"torch.set_num_threads(3); result()\n{end}")
    assert (answer.returncode, answer.stderr) == (0, "")
