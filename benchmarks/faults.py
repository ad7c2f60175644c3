"""Whether wrong arguments and damaged files end in one line: random ones, thousands of them.

`python -m benchmarks.faults` runs argument vectors and damaged files through the command line and
writes `faults.md` and `faults.csv` into `results/`. Every run is a process of its own, forked from
one in which the commands are imported, with limits on its time and memory. A fault is a traceback,
a message of more than three lines, an undocumented status, or a run that meets a limit.
"""

import argparse
import gc
import json
import os
import random
import resource
import shlex
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import pyarrow.parquet as pq

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.cli.main import cli, main
from ifspace.table import Table

STATUSES: Final = {
    0: "done",
    1: "a worker was lost",
    2: "bad input",
    3: "no feasible answer",
    4: "out of time",
}
MOST_LINES: Final = 3
RESULTS: Final = Path("results")
# What a run may use: seconds of processor time, bytes of data.
SECONDS: Final = 60
MEMORY: Final = 12 << 30

# Arguments that work, from which the vectors are made.
WORKING: Final = (
    "kinds",
    "show DW+RPW(8,1/2)+GPW(8) -C 64",
    "show (DW+RPW(2,1/2))x2 -C 16 -F 32 --stride 2",
    "enumerate --max-len 3 -C 8 --jobs 1",
    "enumerate --max-len 2 -C 8,12 -F 24 --rule early-stop --permutation free --jobs 1",
    "best catalogue.parquet --params 1k --limit 3",
    "groups DW+RPW+GPW -C 16 -F 32",
    "groups GC+SH+GPW -C 16 --budget 2k --alpha 2",
    "groups PW+DW+PW -C 16 --bottleneck 1/4 --symbolic",
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
    "--channels 8",
    "report results --readme tables.md",
)
# Values that may be wrong for any option.
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
    """How one run of the command line ended."""

    arguments: tuple[str, ...]
    status: int
    message: str
    seconds: float

    @property
    def fault(self) -> str:
        """What is wrong with the ending, "" for nothing."""
        if self.status < 0:
            limit = -self.status in (signal.SIGKILL, signal.SIGXCPU)
            return "limit" if limit else f"signal {-self.status}"
        if "Traceback" in self.message:
            return "traceback"
        if self.status not in STATUSES:
            return f"status {self.status}"
        # Notes, each a line of its own, may come before the message.
        message = self.message[max(0, self.message.rfind("ifspace: ")) :]
        if self.status and len(message.strip().splitlines()) > MOST_LINES:
            return "long message"
        return ""


def run(arguments: Sequence[str], folder: Path) -> Run:
    """Run the command line with these arguments in a folder, in a forked process."""
    start = time.perf_counter()
    errors = folder / ".stderr"
    child = os.fork()
    if not child:
        _become(arguments, folder, errors)
    deadline = start + 4 * SECONDS  # the limit is on the processor's time; the machine may be busy
    ended = 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        if not ended and time.perf_counter() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    return Run(
        tuple(arguments), code, errors.read_text(errors="replace"), time.perf_counter() - start
    )


def _become(arguments: Sequence[str], folder: Path, errors: Path) -> None:
    """Run the command line and end this process."""
    code = 70
    try:
        os.chdir(folder)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
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


def vectors(count: int, chance: random.Random) -> Iterator[list[str]]:
    """Yield argument vectors: one that works, with one to three changes."""
    options = {
        name: [
            option
            for option in cli.get_command(click.Context(cli), name).params  # type: ignore[union-attr]
            if isinstance(option, click.Option)
        ]
        for name in cli.list_commands(click.Context(cli))
    }
    for _ in range(count):
        words = shlex.split(chance.choice(WORKING))
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            _change(words, options[words[0]], chance)
        yield words


def _change(words: list[str], options: Sequence[click.Option], chance: random.Random) -> None:
    """Change arguments in place: a value, an option more, a word less, twice, or misspelt."""
    way = chance.random()
    places = [index for index in range(1, len(words)) if not words[index].startswith("--")]
    if way < 0.4 and places:
        words[chance.choice(places)] = chance.choice(WRONG)
    elif way < 0.85:
        option = chance.choice(options)
        words.append(max(option.opts, key=len))
        if not option.is_flag:
            choices = getattr(option.type, "choices", None)
            good = list(choices) if choices and chance.random() < 0.7 else WRONG
            words.append(str(chance.choice(list(good))))
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


def run_vectors(count: int, folder: Path, chance: random.Random) -> Iterator[tuple[str, Run]]:
    """Run argument vectors, each in the folder of whole files; yield the command and the run."""
    names = {path.name for path in folder.iterdir()}
    for words in vectors(count, chance):
        yield words[0], run(words, folder)
        for path in folder.iterdir():  # what the run wrote
            if path.name not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def run_files(count: int, folder: Path, chance: random.Random) -> Iterator[tuple[str, Run]]:
    """Damage a file, read it, and put it back; yield the kind of file with its damage, the run."""
    for _ in range(count):
        pattern, arguments = chance.choice(READERS)
        path = chance.choice(sorted(file for file in folder.glob(pattern) if file.is_file()))
        content = path.read_bytes()
        way, changed = damaged(content, path.name, chance)
        path.write_bytes(changed)
        try:
            yield f"{path.suffix}: {way}", run(shlex.split(arguments), folder)
        finally:
            path.write_bytes(content)


def benchmark(arguments: Sequence[str] | None = None) -> None:
    """Run the vectors and the files, print each fault, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=5000)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    for name in cli.list_commands(click.Context(cli)):
        cli.get_command(click.Context(cli), name)
    import ortools.sat.python.cp_model  # noqa: F401 - imported once, not in every run
    import torch  # noqa: F401

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, RESULTS)
        gc.collect()
        gc.freeze()  # a collection in a child would copy all memory
        for what, count, work in (
            ("argument vectors", options.vectors, run_vectors),
            ("damaged files", options.files, run_files),
        ):
            chance = random.Random(options.seed)
            endings: Counter[str] = Counter()
            slowest, kinds = 0.0, set()
            for kind, ended in work(count, folder, chance):
                kinds.add(kind)
                endings[ended.fault or STATUSES[ended.status]] += 1
                slowest = max(slowest, ended.seconds)
                if ended.fault:
                    print(f"{ended.fault}: {kind}: {shlex.join(ended.arguments)[:300]}")
                    print("    " + ended.message.strip()[-1500:].replace("\n", "\n    "))
            rows += [
                {
                    "what": what,
                    "runs": count,
                    "kinds": len(kinds),
                    "ending": ending,
                    "count": number,
                }
                for ending, number in sorted(endings.items())
            ]
            print(f"{what}: {dict(endings)}, slowest {slowest:.1f} s")
    command = f"python -m benchmarks.faults --vectors {options.vectors} --files {options.files}"
    columns = tuple(rows[0])
    write_results(
        options.out,
        "faults",
        [
            "# Wrong arguments and damaged files",
            f"Written by {provenance(command)}.",
            "Random argument vectors (arguments that work, with one to three changes) and randomly "
            "damaged files, each in a process of its own. A fault would be a traceback, a message "
            f"of more than {MOST_LINES} lines, an undocumented status, or more than {SECONDS} s of "
            f"processor time or {MEMORY >> 30} GiB. Kinds: commands, or kinds of file and damage.",
            Table(columns, tuple(tuple(row.values()) for row in rows)).markdown(),
        ],
        rows,
        command,
    )


if __name__ == "__main__":
    benchmark()
