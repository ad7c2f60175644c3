"""Everything to do with the kernels on a GPU, in ten minutes: tests first, then times.

`python -m benchmarks.gpu` runs the tests of the kernels on the card, and if they pass it times RPW
and whole blocks beside cuDNN's and torch's ways, into `results/bench/`. A stage that reaches its
time limit is stopped and keeps what it has written; the last one runs the slow tests in the time
that is left. `gpu.md` says how each stage ended. The exit status is 1 when a stage fails.

Where the card is there for minutes only, `--despite-failures` times what there is after a test that
fails too, and the page says that it did; what is wrong is never timed: each candidate is checked.

`--device cpu` runs the same stages on tiny shapes, under Triton's interpreter, to see that they
run: its times say nothing.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tabulate import tabulate

from ifspace.bench.record import list_in_readme, provenance, python
from ifspace.parallel import workers

ROOT: Final = Path(__file__).resolve().parents[1]
LIMIT_S: Final = 570
PASSED, FAILED, STOPPED, SKIPPED = "passed", "failed", "stopped at its limit", "not run"
# What pytest returns when the options leave no test.
_NO_TESTS: Final = 5
_TAIL: Final = 12000

# No overlap: a grouped layer and its shuffle in one kernel. Then both orders beside each other, and
# windows that are not whole vectors.
CUDA_WINDOWS: Final = "4,0 4,1/2 4,1/2,blocked 8,1/2,blocked 4,0.33"
CUDA_CASES: Final = "128x512x14,128x256x28,1x256x28"
# The tests that run on the device: all others are about a CPU.
CUDA_TESTS: Final = (
    "tests/kernels/rpw/test_triton.py",
    "tests/kernels/rpw/test_operator.py",
    "tests/kernels/rpw/test_orders.py",
    "tests/kernels/fused/test_triton.py",
    "tests/kernels/fused/test_operator.py",
    "tests/kernels/chain/test_triton.py",
    "tests/kernels/test_capture.py",
    "tests/kernels/test_launch.py",
    "tests/bench/test_direct.py",
)
CPU_TESTS: Final = CUDA_TESTS[:1]
# After so many tests that fail the others are not run.
MAX_FAILURES: Final = 20
# Processes that tests run in at most: each takes half a GiB of the card's memory.
MAX_JOBS: Final = 16


@dataclass(frozen=True, slots=True)
class Stage:
    """Commands that run beside each other, of `python`; each a sequence of its arguments.

    `limit_s`: after which they are stopped; without one they have the time that is left.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    limit_s: float = float("inf")
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stage ended, and after how many seconds; `output`: of the commands that failed."""

    stage: Stage
    status: str
    seconds: float = 0.0
    output: str = ""


def stages_of(device: str, out: Path) -> tuple[Stage, ...]:
    """Return the stages on a device, "cuda" or "cpu", that write into a folder `out`."""
    on_cuda = device == "cuda"
    kernels = ["-m", "ifspace.bench.kernels", "--device", device, "--compiled", "none"]
    kernels += ["--out", str(out / "bench")]
    blocks = ["-m", "ifspace", "bench", "--device", device, "--results", str(out)]
    blocks += ["--no-calibrate"]
    if on_cuda:
        kernels += ["--cases", CUDA_CASES, "--windows", CUDA_WINDOWS, "--layouts", "channels_last"]
        kernels += ["--time-limit", "170"]
        blocks += ["results/catalogue-64.parquet", "--top", "5", "--batch", "128"]
    else:
        kernels += ["--quick", "--cases", "1x16x4", "--windows", "4,1/2 4,1/2,blocked"]
        kernels += ["--kinds", "RPW,DW+RPW", "--layouts", "channels_last", "--threads", "1"]
        blocks += ["results/catalogue-64.parquet", "--top", "1", "--batch", "1", "--side", "4"]
        blocks += ["--repeats", "3", "--baselines", "dw+pw", "--threads", "1"]
    # The machine of a card has versions of its own, and what they warn about is no fault of ours.
    some = ("-k", "woven_windows or written_to_the_tensors")
    options = ("-W", "default") if on_cuda else some
    paths = CUDA_TESTS if on_cuda else CPU_TESTS
    return (
        Stage("tests", _tests(paths, "not slow", *options), limit_s=180, is_test=True),
        Stage("times of kernels", (tuple(kernels),), limit_s=210),
        Stage("times of blocks", (tuple(blocks),), limit_s=120),
        Stage("slow tests", _tests(paths, "slow", *options), is_test=True),
    )


def _tests(paths: Sequence[str], marked: str, *options: str) -> tuple[tuple[str, ...], ...]:
    """Return the command of some tests: kernels compile on as many cores as there are.

    On a CPU nothing compiles, and another process would import for longer than the tests take.
    """
    jobs = min(workers(None), MAX_JOBS) if paths is CUDA_TESTS else 0
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb", "short"]
    pytest += ["--maxfail", str(MAX_FAILURES), "--numprocesses", str(jobs if jobs > 1 else 0)]
    return ((*pytest, "-m", marked, *options, *paths),)


def run(stage: Stage, device: str, limit_s: float) -> Outcome:
    """Run a stage for at most `limit_s` seconds."""
    start = time.perf_counter()
    end = start + min(limit_s, stage.limit_s)
    environment = {**os.environ, "IFSPACE_TEST_DEVICE": device}
    if device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for number, command in enumerate(stage.commands):
            log = Path(folder) / f"{number}.log"
            with log.open("w") as file:
                child = subprocess.Popen(
                    python(*command),
                    cwd=ROOT,
                    env=environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            children.append((child, log, command))
        statuses, output = [], []
        for child, log, command in children:
            status = _wait(child, end)
            statuses.append(status)
            if status == FAILED:
                output.append(f"$ python {shlex.join(command)}\n{log.read_text()[-_TAIL:]}")
    status = next((s for s in (FAILED, STOPPED) if s in statuses), PASSED)
    return Outcome(stage, status, time.perf_counter() - start, "\n".join(output))


def _wait(child: subprocess.Popen[bytes], end: float) -> str:
    """Wait for a child until a time of `perf_counter`, then stop it and its children."""
    try:
        code = child.wait(max(0.0, end - time.perf_counter()))
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return STOPPED
    return PASSED if code in (0, _NO_TESTS) else FAILED


def outcomes(
    stages: Sequence[Stage], device: str, limit_s: float, despite_failures: bool = False
) -> Iterator[Outcome]:
    """Yield the outcome of each stage; after a test that fails nothing is timed.

    `despite_failures`: all the same.
    """
    start = time.perf_counter()
    is_wrong = False
    for stage in stages:
        left_s = limit_s - (time.perf_counter() - start)
        if left_s <= 0 or is_wrong:
            yield Outcome(stage, SKIPPED)
            continue
        outcome = run(stage, device, left_s)
        is_wrong = stage.is_test and outcome.status == FAILED and not despite_failures
        yield outcome


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages, write `gpu.md`, and fail when a stage does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for all stages")
    parser.add_argument("--despite-failures", action="store_true", help="of tests, time")
    parser.add_argument("--out", type=Path, help="results/, for a CPU a temporary folder")
    options = parser.parse_args(arguments)
    if options.out is None and options.device == "cpu":
        with tempfile.TemporaryDirectory() as folder:
            ended = _run_all(options, Path(folder) / "results")
    else:
        ended = _run_all(options, (options.out or Path("results")).resolve())
    if any(outcome.status == FAILED for outcome in ended):
        sys.exit(1)


def _run_all(options: argparse.Namespace, out: Path) -> list[Outcome]:
    (out / "bench").mkdir(parents=True, exist_ok=True)
    device, ended = options.device, []
    stages = stages_of(device, out)
    for outcome in outcomes(stages, device, options.limit, options.despite_failures):
        print(f"{outcome.stage.name}: {outcome.status}, {outcome.seconds:.0f} s", flush=True)
        if outcome.output:
            print(outcome.output, file=sys.stderr)
        ended.append(outcome)
        # After every stage: the page is there when the machine is taken away.
        _write(out, device, ended)
    print(f"written: {out / _page_name(device)}")
    return ended


def _card(device: str) -> str:
    """Return the name of the card and the versions of what ran there."""
    if device == "cpu":
        return ""
    import torch
    import triton

    name = torch.cuda.get_device_name()
    return f", {name}, torch {torch.__version__}, triton {triton.__version__}"


def _page_name(device: str) -> str:
    return f"bench/{'gpu' if device == 'cuda' else 'gpu-dry-run'}.md"


def _write(out: Path, device: str, ended: Sequence[Outcome]) -> None:
    command = "python -m benchmarks.gpu" + (" --device cpu" if device == "cpu" else "")
    name = _page_name(device)
    rows = [(outcome.stage.name, outcome.status, round(outcome.seconds)) for outcome in ended]
    page = [
        "# The kernels on a card" if device == "cuda" else "# A dry run on a CPU",
        f"Written by {provenance(command)}{_card(device)}.",
        tabulate(rows, ["stage", "status", "s"], tablefmt="github"),
    ]
    (out / name).write_text("\n\n".join(page) + "\n")
    list_in_readme(out, [name], command)


if __name__ == "__main__":
    main()
