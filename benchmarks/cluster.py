"""How much faster two workers of a Dask cluster are than one, at the study of widths.

`python -m benchmarks.cluster` starts a scheduler and two workers on loopback, computes the same
settings of `experiments.widths_study` by one worker and by two in turn, each into a new folder, and
writes `cluster.md` and `cluster.csv` into `results/`. `--settings N`: how many, spread over the
study. What one worker would do is done by the process that asks. `--whole FOLDER`: then two workers
compute the whole study, what of it is not in the folder yet.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.measure import write_results
from experiments.widths_study import NETWORKS, Study
from ifspace.bench.record import provenance
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.catalogue.shards import MANIFEST, Shards
from ifspace.cli.backend import joined
from ifspace.enumerate.run import merge_folder, run_in_folder
from ifspace.table import Table

NAME: Final = "cluster"
START_S: Final = 60
WARM_UP: Final = 12
WHOLE: Final = "whole study"


class Cluster:
    """A Dask scheduler and workers of one thread each, on loopback, as processes of their own."""

    def __init__(self, workers: int, folder: Path) -> None:
        """Start them."""
        self.address = folder / f"scheduler-{workers}.json"
        own = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self.address))
        place = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
        self.scheduler = self._start("dask_scheduler", *own, "--port", "0")
        self.workers = [self._start("dask_worker", *own, *place) for _ in range(workers)]

    def wait(self) -> None:
        """Return when the scheduler knows all workers."""
        from distributed import Client

        deadline = time.monotonic() + START_S
        while not self.address.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with Client(scheduler_file=str(self.address), timeout=START_S) as client:
            client.wait_for_workers(len(self.workers), timeout=START_S)

    @staticmethod
    def _start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "ignore", "-m", f"distributed.cli.{program}", *arguments]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """End all of its processes."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@contextmanager
def cluster(workers: int, folder: Path) -> Iterator[Cluster]:
    """Run a cluster as long as the context."""
    started = Cluster(workers, folder)
    try:
        started.wait()
        yield started
    finally:
        started.stop()


def cpu_s(process: int | None = None) -> float:
    """Return the processor time of a process so far, of this one if not given."""
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


def measure(
    settings: Sequence[EnumerationSetting], running: Cluster, folder: Path
) -> dict[str, Any]:
    """Compute settings into a folder on a cluster; return what it took."""
    manifest = folder / "run" / MANIFEST
    parts_before = Shards.read(folder / "run").done if manifest.exists() else 0
    before = [cpu_s(), *(cpu_s(worker.pid) for worker in running.workers)]
    start = time.perf_counter()
    with joined("dask", str(running.address)):
        run_in_folder(settings, folder / "run")
    seconds = time.perf_counter() - start
    after = [cpu_s(), *(cpu_s(worker.pid) for worker in running.workers)]
    here, *there = (end - begin for begin, end in zip(before, after, strict=True))
    shards, _ = merge_folder(folder / "run", folder / "whole.parquet")
    return {
        "settings": len(settings),
        "parts": len(shards) - parts_before,
        "rows": shards.rows,
        "workers": len(running.workers),
        "seconds": round(seconds, 2),
        "asking process, processor s": round(here, 2),
        "workers, processor s": round(sum(there), 2),
        "busiest worker, processor s": round(max(there), 2),
        "digest": sha256((folder / "whole.parquet").read_bytes()).hexdigest(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in turn, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--settings", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole", type=Path, metavar="FOLDER")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME")
    parser.add_argument("--max-len", type=int, default=4)
    options = parser.parse_args(arguments)
    study = Study.of(options.networks, options.max_len)
    step = max(1, len(study.settings) // options.settings)
    settings = study.settings[::step][: options.settings]
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(1, Path(folder)) as one,
        cluster(2, Path(folder)) as two,
    ):
        for number in range(options.rounds + 1):
            for running in (one, two):
                place = Path(folder) / f"{number}-{len(running.workers)}"
                place.mkdir()
                # Before the first round everybody loads what is compiled.
                row = measure(settings if number else settings[:WARM_UP], running, place)
                rows += [{"round": number, **row}] if number else []
        command = f"python -m benchmarks.{NAME}"
        command += f" --max-len {options.max_len} --settings {len(settings)}"
        command += f" --rounds {options.rounds}"
        write_results(options.out, NAME, page(study, settings, rows, command), rows, command)
        if options.whole is not None:
            options.whole.mkdir(parents=True, exist_ok=True)
            rows.append({"round": WHOLE, **measure(study.settings, two, options.whole)})
            command += " --whole FOLDER"
            write_results(options.out, NAME, page(study, settings, rows, command), rows, command)


def page(
    study: Study, settings: Sequence[Any], rows: Sequence[dict[str, Any]], command: str
) -> list[str]:
    """Return the paragraphs: how much faster two workers are, by the clock and the processor."""
    compared = [row for row in rows if row["round"] != WHOLE]
    pairs = list(zip(compared[::2], compared[1::2], strict=True))
    seconds = [one["seconds"] / two["seconds"] for one, two in pairs]
    least = [min(row["seconds"] for row in half) for half in (compared[::2], compared[1::2])]
    shares = [
        one["asking process, processor s"] / two["busiest worker, processor s"]
        for one, two in pairs
    ]
    same = len({row["digest"] for row in compared}) == 1
    shown = [name for name in rows[0] if name != "digest"]
    table = Table(
        tuple(f">{name}" for name in shown),
        tuple(tuple(row[name] for name in shown) for row in rows),
    )
    return [
        "# Two workers of a Dask cluster beside one",
        f"Written by {provenance(command)}.",
        f"{len(settings)} of the {len(study.settings):,} settings of `experiments.widths_study`, "
        f"up to {settings[0].max_len} layers, spread over all of them, computed into new folders "
        "by one worker and by two in turn, "
        f"{len(pairs)} times. "
        f"**{least[0] / least[1]:.2f} times as fast** by the clock (least of each; "
        f"{min(seconds):.2f} to {max(seconds):.2f} in the rounds). "
        f"All catalogues {'have the same bytes' if same else 'DIFFER'}.",
        "Other work ran on the machine. By the processor's time, which that disturbs less, one "
        f"worker's work is {min(shares):.2f} to {max(shares):.2f} times that of the busier of two: "
        "so much faster are two on processors of their own. With one worker the work is done by "
        "the process that asks; with two that process waits and writes the files.",
        *(_whole_text(row) for row in rows if row["round"] == WHOLE),
        table.markdown().strip(),
    ]


def _whole_text(row: dict[str, Any]) -> str:
    """Return the sentence about the whole study, by two workers."""
    spent = row["workers, processor s"] + row["asking process, processor s"]
    return (
        f"All {row['settings']:,} settings, once by two workers: {row['parts']:,} parts in "
        f"{row['seconds'] / 60:.1f} minutes by the clock, {spent / 60:.1f} of the processor, "
        f"{row['rows']:,} blocks; [what it says](widths-study.md)."
    )


if __name__ == "__main__":
    main()
