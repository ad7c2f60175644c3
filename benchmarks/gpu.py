"""Everything to do with the kernels on a GPU, in ten minutes: tests first, then times.

`python -m benchmarks.gpu` runs the tests of the kernels on the card, and if they pass it times RPW
and whole blocks beside cuDNN's and torch's ways, into `results/bench/`. A stage that reaches its
time limit is stopped and keeps what it has written; the last one runs the slow tests in the time
that is left. `gpu.md` says how each stage ended. The exit status is 1 when a stage fails.

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

ROOT: Final = Path(__file__).resolve().parents[1]
LIMIT_S: Final = 570
PASSED, FAILED, STOPPED, SKIPPED = "passed", "failed", "stopped at its limit", "not run"
# What pytest returns when the options leave no test of a file.
_NO_TESTS: Final = 5
_TAIL: Final = 4000

# Orders beside each other; windows that are not whole vectors; grouped, which torch does by itself.
CUDA_WINDOWS: Final = "4,1/2 4,1/2,blocked 8,1/2,blocked 4,0.33"
CUDA_CASES: Final = "128x512x14,128x256x28,1x256x28"
CUDA_TESTS: Final = ("tests/kernels",)
CPU_TESTS: Final = ("tests/kernels/rpw/test_triton.py",)


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
    quick = () if on_cuda else ("-k", "woven_windows or written_to_the_tensors")
    paths = CUDA_TESTS if on_cuda else CPU_TESTS
    return (
        Stage("tests", _tests(paths, "not slow", *quick), limit_s=180, is_test=True),
        Stage("times of kernels", (tuple(kernels),), limit_s=210),
        Stage("times of blocks", (tuple(blocks),), limit_s=120),
        Stage("slow tests", _tests(paths, "slow", *quick), is_test=True),
    )


def _tests(paths: Sequence[str], marked: str, *options: str) -> tuple[tuple[str, ...], ...]:
    """Return one command for each file of tests: kernels compile on as many cores as there are."""
    files = [file for path in paths for file in _test_files(ROOT / path)]
    pytest = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", marked, *options)
    return tuple((*pytest, str(file.relative_to(ROOT))) for file in files)


def _test_files(path: Path) -> Iterator[Path]:
    """Yield the files of tests that use a device."""
    files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
    yield from (file for file in files if file.name != "test_aot.py")


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


def outcomes(stages: Sequence[Stage], device: str, limit_s: float) -> Iterator[Outcome]:
    """Yield the outcome of each stage; after a test that fails nothing is timed."""
    start = time.perf_counter()
    is_wrong = False
    for stage in stages:
        left_s = limit_s - (time.perf_counter() - start)
        if left_s <= 0 or is_wrong:
            yield Outcome(stage, SKIPPED)
            continue
        outcome = run(stage, device, left_s)
        is_wrong = stage.is_test and outcome.status == FAILED
        yield outcome


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages, write `gpu.md`, and fail when a stage does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for all stages")
    parser.add_argument("--out", type=Path, help="results/, for a CPU a temporary folder")
    options = parser.parse_args(arguments)
    if options.out is None and options.device == "cpu":
        with tempfile.TemporaryDirectory() as folder:
            ended = _run_all("cpu", options.limit, Path(folder) / "results")
    else:
        ended = _run_all(options.device, options.limit, (options.out or Path("results")).resolve())
    if any(outcome.status == FAILED for outcome in ended):
        sys.exit(1)


def _run_all(device: str, limit_s: float, out: Path) -> list[Outcome]:
    (out / "bench").mkdir(parents=True, exist_ok=True)
    ended = []
    for outcome in outcomes(stages_of(device, out), device, limit_s):
        print(f"{outcome.stage.name}: {outcome.status}, {outcome.seconds:.0f} s", flush=True)
        if outcome.output:
            print(outcome.output, file=sys.stderr)
        ended.append(outcome)
    _write(out, device, ended)
    return ended


def _write(out: Path, device: str, ended: Sequence[Outcome]) -> None:
    command = "python -m benchmarks.gpu" + (" --device cpu" if device == "cpu" else "")
    name = f"bench/{'gpu' if device == 'cuda' else 'gpu-dry-run'}.md"
    rows = [(outcome.stage.name, outcome.status, round(outcome.seconds)) for outcome in ended]
    page = [
        "# The kernels on a card" if device == "cuda" else "# A dry run on a CPU",
        f"Written by {provenance(command)}.",
        tabulate(rows, ["stage", "status", "s"], tablefmt="github"),
    ]
    (out / name).write_text("\n\n".join(page) + "\n")
    list_in_readme(out, [name], command)
    print(f"written: {out / name}")


if __name__ == "__main__":
    main()
