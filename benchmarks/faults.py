"""Whether wrong arguments and damaged files end in one line: random ones, thousands of them.

`python -m benchmarks.faults` runs argument vectors and damaged files through the command line and
writes `faults.md` and `faults.csv` into `results/`. Every run is a process of its own, forked from
one in which the commands are imported, with limits on its time and memory. A fault is a traceback,
a message of more than three lines, an undocumented status, or a run that cannot be interrupted.

A vector may ask for much work, which it gets: after a while it is interrupted, as by Ctrl-C, and
must end at once with one line and the status of an interruption. Reading a file, damaged or not,
is never much work.

Every run is drawn by its number alone, and with `--journal FILE` the ended ones are kept: the same
command goes on where it was stopped, and `--again` runs the faults of the journal anew. `--jobs N`
processes share the runs.
"""

import argparse
import gc
import json
import os
import pkgutil
import random
import resource
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
import psutil
import pyarrow.parquet as pq

import ifspace
from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.cli.main import INTERRUPTED, cli, main
from ifspace.table import Table

STATUSES: Final = {
    0: "done",
    1: "a worker was lost",
    2: "bad input",
    3: "no feasible answer",
    4: "out of time",
    INTERRUPTED: "much work, interrupted",
}
MOST_LINES: Final = 3
RESULTS: Final = Path("results")
# What a run may use: bytes of data, and seconds of processor time until it is interrupted and from
# then to its end. The machine may be busy: the clock on the wall may show so many times more.
MEMORY: Final = 6 << 30
WORK_S: Final = 20.0
END_S: Final = 2.0
BUSY: Final = 15

# Modules that commands import while they run.
IMPORTED_LATE: Final = (
    "torch.export",
    "torch._export",
    "torch.fx.experimental.proxy_tensor",
    "safetensors.torch",
    "ortools.sat.python.cp_model",
    "scipy.optimize",
    "scipy.stats",
    "igraph",
    "networkx",
    "numba",
    "sympy.codegen",
    "sympy.physics.units",
    "pyarrow.dataset",
    "torch._export.non_strict_utils",
    "torch._export.serde.serialize",
    "torch._functorch.aot_autograd",
)

# Arguments that work, from which the vectors are made.
WORKING: Final = (
    "kinds",
    "show DW+RPW(8,1/2)+GPW(8) -C 64",
    "show (DW+RPW(2,1/2))x2 -C 16 -F 32 --stride 2",
    "enumerate --max-len 3 -C 8 --jobs 1",
    "enumerate --max-len 2 -C 8,12 -F 24 --rule early-stop --permutation free --jobs 1",
    "best catalogue.parquet --params 1k --limit 3",
    "groups DW+RPW+GPW -C 16 -F 32",
    "groups GC+SH+GPW --budget 2k --alpha 2",
    "groups PW+DW+PW --bottleneck 1/4 --symbolic",
    "energy --layers 3 --budget 300",
    "energy --repeats 1,2,2 --budget 900 --at-most --top 2",
    "organize --stages 16,8 --depths 2,2 --widths 8,16",
    "organize --network vgg16 --moves 2",
    "layout --stages 16,8 --depths 2,2 --widths 8,16 --max-depth 3",
    "layout --stages 8,4 --depths 1,1 --width-choices 8,16;16,24 --params 9k --max-depth 2",
    "layout --stages 32,16 --depths 1,1 --widths 8,8 --latency latency.csv --latency-budget-ms 9 "
    "--max-depth 2",
    "analyze vgg16 --input 3x32x32",
    "analyze net.safetensors",
    "optimize net.safetensors --block DW+PW --least-channels 4",
    "optimize net.safetensors --params 2k --time-limit 5",
    "bench catalogue.parquet --top 1 --side 4 --batch 1 --repeats 3 --baselines conv --results out "
    "--channels 8 --no-calibrate",
    "report results --readme tables.md",
)
# Values that are right for some option, and values that may be wrong for any.
RIGHT: Final = (
    *("1", "2", "3", "4", "5", "8", "12", "16", "32", "64", "1/2", "1/4", "0.5", "0.33", "0.05"),
    *("1k", "20k", "5.1M", "300", "900", "8,16", "16,8", "1,2", "2,2", "0,0.5", "8,16;16,32"),
    *("DW+PW", "CONV", "GC+GPW", "DW+RPW", "PW+DW+PW", "conv,dw+pw", "DW,PW,GPW", "SH,GC,GPW"),
    *("3x32x32", "3x64x64", "1x28x28", "4x4x4", "8x8x4x2", "lenet", "vgg16", "resnet18"),
    *("catalogue.parquet", "net.safetensors", "edited.safetensors", "latency.csv", "results"),
    *("new.json", "new.csv", "new.md", "new.parquet", "new.safetensors", "new.py"),
)
WRONG: Final = (
    *("0", "-1", "1", "2", "7", "64", "1e9", "1000000", "1000000000", "9" * 20, "9" * 5000),
    *("0.5", "1/3", "1/0", "-0.0", "nan", "inf", "1e400", "0x10", "1_000", "３", "1,5", "5k", "1G"),
    *("", " ", ",", ",,", "1,,2", ";", "a;b", "x" * 3000, "é\n\tü", "\x1b[31m", "'", '"', "%s%n"),
    *("DW+", "+", "DW+PW", "(DW+PW)x999999", "GC(0)", "GC(3)+PW", "RPW(2,1)", "DW(4)", "DW(99999)"),
    *("(" * 40, "PW+" * 500 + "PW", "CONV", "--", "-", "--help", "params", "json", "cpu", "cuda"),
    *("/", ".", "/dev/null", "/dev/full", "no/such/file", "catalogue.parquet", "latency.csv"),
    *("3x32x32", "3x0x0", "3x9999999x9999999", "1x1x1", "32,16,8", "1,1", "8,16", "vgg16"),
    *(
        "timm:",
        "timm:nosuch",
        "torchvision:resnet18",
        "x.py:make",
        "net.safetensors",
        "a" * 300 + ".csv",
    ),
)


@dataclass(frozen=True, slots=True)
class Run:
    """How one run of the command line ended: status or minus a signal, stderr, processor time."""

    status: int
    message: str
    seconds: float

    def fault(self, may_work_long: bool = True) -> str:
        """Return what is wrong with the ending, "" for nothing."""
        if self.status == -signal.SIGKILL:
            return "not to be interrupted"
        if self.status < 0:
            return f"signal {-self.status}"
        if "Traceback" in self.message:
            return "traceback"
        if self.status not in STATUSES:
            return f"status {self.status}"
        if self.status == INTERRUPTED and not may_work_long:
            return "long work"
        # Notes, each a line of its own, may come before the message.
        start = self.message.rfind("ifspace: ")
        if self.status and start < 0:
            return "no message"
        if self.status and len(self.message[start:].strip().splitlines()) > MOST_LINES:
            return "long message"
        return ""


def run(arguments: Sequence[str], folder: Path) -> Run:
    """Run the command line with these arguments in a folder, in a forked process."""
    start = time.perf_counter()
    errors = folder / ".stderr"
    child = os.fork()
    if not child:
        _become(arguments, folder, errors)
    watched = psutil.Process(child)
    pause_s, limit_s, wall_s, signal_number = 0.002, WORK_S, BUSY * WORK_S, signal.SIGINT
    while not (ended := os.wait4(child, os.WNOHANG))[0]:
        # Its own time and that of its workers; once they are interrupted its own alone, for what
        # they used before is counted when they end.
        interrupted = signal_number == signal.SIGKILL
        used_s = sum(watched.cpu_times()[: 2 if interrupted else 4])
        now_s = time.perf_counter() - start
        if used_s > limit_s or now_s > wall_s:
            os.killpg(child, signal_number)  # as Ctrl-C does: its workers too
            limit_s, wall_s = sum(watched.cpu_times()[:2]) + END_S, now_s + BUSY * END_S
            signal_number = signal.SIGKILL
        time.sleep(pause_s)
        pause_s = min(0.05, pause_s * 1.1)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status, usage = ended
    return Run(
        os.waitstatus_to_exitcode(status),
        errors.read_text(errors="replace"),
        usage.ru_utime + usage.ru_stime,
    )


def _become(arguments: Sequence[str], folder: Path, errors: Path) -> None:
    """Run the command line and end this process."""
    code = 70
    try:
        os.setpgid(0, 0)
        # A process that was started in the background may ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        # Whatever the streams of the process were that this one is forked from.
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


# ---- argument vectors


@cache
def options_of(name: str) -> tuple[click.Option, ...]:
    """Return the options of a command."""
    command = cli.get_command(click.Context(cli), name)
    params = command.params if command else ()
    return tuple(option for option in params if isinstance(option, click.Option))


def vector(chance: random.Random) -> list[str]:
    """Return an argument vector: one that works, with one to three changes."""
    words = shlex.split(chance.choice(WORKING))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        _change(words, options_of(words[0]), chance)
    return words


def _change(words: list[str], options: Sequence[click.Option], chance: random.Random) -> None:
    """Change arguments in place: a value, an option more, a word less, twice, or misspelt."""
    way = chance.random()
    places = [index for index in range(1, len(words)) if not words[index].startswith("--")]
    if way < 0.4 and places:
        words[chance.choice(places)] = chance.choice(chance.choice((RIGHT, WRONG)))
    elif way < 0.85:
        option = chance.choice(options)
        words.append(max(option.opts, key=len))
        if not option.is_flag:
            choices = getattr(option.type, "choices", None)
            good = tuple(choices) if choices and chance.random() < 0.7 else RIGHT
            words.append(str(chance.choice(chance.choice((good, good, WRONG)))))
    elif way < 0.93 and len(words) > 1:
        del words[chance.randrange(1, len(words))]
    elif way < 0.97:
        words.append(chance.choice(words))
    elif len(words) > 1:
        index = chance.randrange(1, len(words))
        words[index] = words[index][:-1] + chance.choice("xß0-=")


# ---- damaged files

LATENCY_CSV: Final = "block,C,F,side,stride,batch,device,dtype,latency_ms\n" + "".join(
    f"CONV,{c_in},8,{side},1,1,cpu,fp32,{latency}\n"
    for c_in, side, latency in ((3, 32, 0.5), (8, 32, 0.75), (8, 16, 0.25), (3, 16, 0.125))
)


def prepare(folder: Path, results: Path) -> None:
    """Write the whole files that are damaged or named in the vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latency.csv").write_text(LATENCY_CSV)
    for arguments in (
        "enumerate --max-len 3 -C 8 --jobs 1 --out catalogue.parquet --quiet",
        "layout --stages 8,4 --depths 1,2 --widths 8,8 --save net.safetensors --quiet",
        "optimize net.safetensors --block DW+PW --least-channels 4 --save edited.safetensors",
    ):
        if (ended := run(shlex.split(arguments), folder)).status:
            raise RuntimeError(f"{arguments}: {ended.message}")
    shutil.copy(results / "README.md", folder / "tables.md")
    (folder / "results" / "bench").mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "catalogue.parquet", folder / "results" / "catalogue-8.parquet")
    for file in (*results.glob("*.csv"), *results.glob("bench/*.csv")):
        lines = file.read_text().splitlines(keepends=True)[:12]
        (folder / "results" / file.relative_to(results)).write_text("".join(lines))


# A file, and what reads it.
READERS: Final = (
    ("catalogue.parquet", "best catalogue.parquet"),
    ("latency.csv", next(words for words in WORKING if "latency.csv" in words)),
    ("net.safetensors", "analyze net.safetensors"),
    ("edited.safetensors", "analyze edited.safetensors"),
    ("results/**/*", "report results --readme tables.md"),
)


def damaged(content: bytes, name: str, chance: random.Random) -> tuple[str, bytes]:
    """Return the name of some damage, and the content with it."""
    ways: list[tuple[str, Callable[[bytes, random.Random], bytes]]] = list(BYTES.items())
    if name.endswith(".csv"):
        ways += TEXT.items()
    if name.endswith(".safetensors"):
        ways += [("description changed", _change_safetensors)] * len(BYTES)
    if name.endswith(".parquet"):
        ways += [("table changed", _change_parquet)] * len(BYTES)
    way, damage = chance.choice(ways)
    return way, damage(content, chance)


def _span(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + chance.choice((1, 2, 8, 64, 1024)))


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _delete(content: bytes, chance: random.Random) -> bytes:
    start, end = _span(content, chance)
    return content[:start] + content[end:]


def _insert(content: bytes, chance: random.Random) -> bytes:
    start, _ = _span(content, chance)
    return content[:start] + chance.randbytes(chance.choice((1, 4, 100))) + content[start:]


def _clear(content: bytes, chance: random.Random) -> bytes:
    start, end = _span(content, chance)
    return content[:start] + bytes(end - start) + content[end:]


def _repeat(content: bytes, chance: random.Random) -> bytes:
    start, end = _span(content, chance)
    return content[:end] + content[start:]


BYTES: Final = {
    "cut short": _cut,
    "bits flipped": _flip,
    "bytes deleted": _delete,
    "bytes inserted": _insert,
    "bytes cleared": _clear,
    "bytes repeated": _repeat,
    "empty": lambda content, chance: b"",
    "noise": lambda content, chance: chance.randbytes(len(content)),
}


def _cells(content: bytes, chance: random.Random, change: Callable[[list[str]], None]) -> bytes:
    lines = content.decode(errors="replace").splitlines()
    if not lines:
        return content
    index = chance.randrange(len(lines))
    cells = lines[index].split(",")
    change(cells)
    lines[index] = ",".join(cells)
    return "\n".join(lines).encode()


def _wrong_cell(content: bytes, chance: random.Random) -> bytes:
    def change(cells: list[str]) -> None:
        cells[chance.randrange(len(cells))] = chance.choice(WRONG)

    return _cells(content, chance, change)


def _cell_less(content: bytes, chance: random.Random) -> bytes:
    def change(cells: list[str]) -> None:
        del cells[chance.randrange(len(cells))]

    return _cells(content, chance, change)


def _cell_more(content: bytes, chance: random.Random) -> bytes:
    return _cells(
        content, chance, lambda cells: cells.insert(chance.randrange(len(cells) + 1), "7")
    )


TEXT: Final = {
    "wrong cell": _wrong_cell,
    "a cell less": _cell_less,
    "a cell more": _cell_more,
    "semicolons": lambda content, chance: content.replace(b",", b";"),
    "UTF-16": lambda content, chance: content.decode(errors="replace").encode("utf-16"),
}


def _change_json(value: Any, chance: random.Random) -> Any:
    """Return JSON values with one of them changed, dropped or added."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        changed = {**value, key: _change_json(value[key], chance)}
        if chance.random() < 0.1:
            del changed[key]
        return changed
    if isinstance(value, list) and value and chance.random() < 0.85:
        index = chance.randrange(len(value))
        return [*value[:index], _change_json(value[index], chance), *value[index + 1 :]]
    return chance.choice(
        (
            None,
            True,
            -1,
            0,
            1.5,
            10**12,
            10**40,
            float("inf"),
            "",
            "x",
            [],
            {},
            [[1]],
            "DW+PW",
            value,
        )
    )


def _change_safetensors(content: bytes, chance: random.Random) -> bytes:
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    about = header["__metadata__"]
    key = chance.choice(list(about))
    about[key] = json.dumps(_change_json(json.loads(about[key]), chance))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def _change_parquet(content: bytes, chance: random.Random) -> bytes:
    import pyarrow as pa

    table = pq.read_table(pa.BufferReader(content))
    if chance.random() < 0.5:
        about = dict(table.schema.metadata or {})
        key = chance.choice(list(about))
        with suppress(ValueError):
            about[key] = json.dumps(_change_json(json.loads(about[key]), chance)).encode()
        table = table.replace_schema_metadata(about)
    else:
        index = chance.randrange(table.num_columns)
        values = table.column(index).to_pylist()
        if values and chance.random() < 0.8:
            row = chance.randrange(len(values))
            values[row] = chance.choice(
                (None, values[row - 1], chance.choice(WRONG), 3, -1, 10**12)
            )
            with suppress(pa.ArrowException, OverflowError):
                column = pa.array(values, table.schema.field(index).type)
                table = table.set_column(index, table.schema.field(index), column)
        else:
            table = table.remove_column(index)
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink)
    except pa.ArrowException:  # a null where the schema has none
        return _flip(content, chance)
    return bytes(sink.getvalue().to_pybytes())


# ---- the runs


def run_vector(folder: Path, chance: random.Random) -> tuple[str, list[str], Run]:
    """Run an argument vector in the folder of whole files; return the command, it, and the run."""
    names = {path.name for path in folder.iterdir()}
    words = vector(chance)
    ended = run(words, folder)
    for path in folder.iterdir():  # what the run wrote
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return words[0], words, ended


def run_file(folder: Path, chance: random.Random) -> tuple[str, list[str], Run]:
    """Damage a file, read it, put it back; return the kind of both, the arguments, and the run."""
    pattern, arguments = chance.choice(READERS)
    path = chance.choice(sorted(file for file in folder.glob(pattern) if file.is_file()))
    content = path.read_bytes()
    way, changed = damaged(content, path.name, chance)
    words = shlex.split(arguments)
    path.write_bytes(changed)
    try:
        ended = run(words, folder)
    finally:
        path.write_bytes(content)
    return f"{path.suffix}: {way}", words, ended


WORKS: Final = {"argument vectors": run_vector, "damaged files": run_file}


def read_journal(journal: Path, again: bool) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the ended runs of a journal, by kind of work and number; the last of each counts."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    rows = {(row["what"], row["number"]): row for row in map(json.loads, lines)}
    return {place: row for place, row in rows.items() if not (again and row["fault"])}


def package_commit() -> str:
    """Return the last commit that changed ifspace itself."""
    command = ["git", "log", "-1", "--format=%h", "--", "ifspace"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def import_all() -> None:
    """Import once what the runs would import one by one."""
    for module in pkgutil.walk_packages(ifspace.__path__, "ifspace."):
        import_module(module.name)
    for name in IMPORTED_LATE:
        import_module(name)


def run_all(
    places: Sequence[tuple[str, int]], seed: int, jobs: int, journal: Path, commit: str
) -> None:
    """Run what has these places, in several processes: append to the journal, print the faults.

    Raises: RuntimeError where one of the processes did not end well.
    """
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        prepare(whole, RESULTS)
        gc.collect()
        gc.freeze()  # a collection in a child would copy all memory
        processes = []
        for number in range(jobs):
            folder = shutil.copytree(whole, Path(temporary) / str(number))
            process = os.fork()
            if not process:
                try:
                    run_share(places[number::jobs], seed, folder, journal, commit)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            processes.append(process)
        statuses = [os.waitpid(process, 0)[1] for process in processes]
        if any(statuses):
            raise RuntimeError("a process was ended before its runs were; the journal has the rest")


def run_share(
    places: Sequence[tuple[str, int]], seed: int, folder: Path, journal: Path, commit: str
) -> None:
    """Run what has these places in a folder of whole files."""
    with journal.open("a") as file:
        for what, number in places:
            kind, words, ended = WORKS[what](folder, random.Random(f"{seed} {what} {number}"))
            fault = ended.fault(may_work_long=what == "argument vectors")
            row = {
                "what": what,
                "number": number,
                "kind": kind,
                "ending": fault or STATUSES[ended.status],
                "fault": bool(fault),
                "seconds": round(ended.seconds, 2),
                "commit": commit,
            }
            if fault or ended.status == INTERRUPTED:
                row |= {"arguments": shlex.join(words)[:2000], "message": ended.message[-3000:]}
            file.write(json.dumps(row) + "\n")
            file.flush()
            if fault:
                print(f"{what} {number}: {fault}: {kind}: {shlex.join(words)[:300]}")
                print("    " + ended.message.strip()[-1500:].replace("\n", "\n    "), flush=True)


def benchmark(arguments: Sequence[str] | None = None) -> None:
    """Run the vectors and the files, print each fault, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=5000)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, help="keep ended runs here, and go on from it")
    parser.add_argument("--jobs", type=int, default=2, help="processes that share the runs")
    parser.add_argument("--again", action="store_true", help="run the faults of the journal anew")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    import_all()
    counts = {"argument vectors": options.vectors, "damaged files": options.files}
    places = sorted(
        ((what, number) for what, count in counts.items() for number in range(count)),
        key=lambda place: place[1],
    )
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as temporary:
        journal = options.journal or Path(temporary.name)
        ended = read_journal(journal, options.again)
        left = [place for place in places if place not in ended]
        run_all(left, options.seed, options.jobs, journal, package_commit())
        ended = read_journal(journal, again=False)
    runs = [ended[place] for place in places]
    command = f"python -m benchmarks.faults --vectors {options.vectors} --files {options.files}"
    if options.seed:
        command += f" --seed {options.seed}"
    write_page(options.out, runs, command)


def write_page(out: Path, runs: Sequence[dict[str, Any]], command: str) -> None:
    """Write how many runs ended in which way, and at which commits."""
    endings = Counter((row["what"], row["kind"], row["ending"]) for row in runs)
    rows = [
        {"what": what, "kind": kind, "ending": ending, "runs": count}
        for (what, kind, ending), count in sorted(endings.items())
    ]
    faults = sum(row["fault"] for row in runs)
    totals = Counter((row["what"], row["ending"]) for row in runs)
    slowest = {
        what: max(
            (
                row["seconds"]
                for row in runs
                if row["what"] == what and row["ending"] != STATUSES[INTERRUPTED]
            ),
            default=0.0,
        )
        for what in WORKS
    }
    commits = Counter(row["commit"] for row in runs)
    at_commits = ", ".join(f"{count:,} with ifspace of {at}" for at, count in commits.items())
    print(f"{len(runs):,} runs, {faults} faults; {dict(totals)}; slowest {slowest}")
    columns = ("what", "ending", "runs")
    write_results(
        out,
        "faults",
        [
            "# Wrong arguments and damaged files",
            f"Written by {provenance(command)}; of the runs {at_commits}.",
            "Random argument vectors (arguments that work, with one to three changes) and randomly "
            "damaged files, each in a process of its own. A fault is a traceback, a message of "
            f"more than {MOST_LINES} lines or none, an undocumented status, more than "
            f"{MEMORY >> 30} GiB, or a run that cannot be interrupted. A vector that asks for more "
            f"than {WORK_S:.0f} s of processor time (or {BUSY * WORK_S / 60:.0f} minutes on a busy "
            f"machine) is interrupted, and must end within {END_S:.0f} s in one line, with status "
            f"{INTERRUPTED}; reading a file must take less.",
            f"**{len(runs):,} runs, {faults} faults.** The longest that was not interrupted used "
            + " and ".join(f"{seconds:.0f} s ({what})" for what, seconds in slowest.items())
            + ".",
            Table(
                columns,
                tuple((what, ending, count) for (what, ending), count in sorted(totals.items())),
            ).markdown(),
            "By command, and by kind of file and damage: `faults.csv`. Runs that are killed, "
            "interrupted and gone on with: `killed_runs.md`.",
        ],
        rows,
        command,
    )


if __name__ == "__main__":
    benchmark()
