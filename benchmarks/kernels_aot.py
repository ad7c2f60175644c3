"""The resources that the Triton kernels need of a card: registers, spilled bytes, shared memory.

`python -m benchmarks.kernels_aot` compiles every Triton kernel for NVIDIA and AMD cards and
writes `kernels-aot.md` and `kernels-aot.csv` into `results/`; the rows of kernels that are in that
table as they are now are kept, so that after a change only what changed is compiled. `--quick`
compiles each once for a target, the targets on different problems. `--check` writes nothing: it
compares the table with the kernels that there are, and compiles a few of them again. The exit
status is 1 when one spills or does not fit, or the table is not that of these kernels.
"""

import argparse
import csv
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import triton
from tabulate import tabulate

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.kernels.aot import CASES, AotCase, Compiled, compile_case
from ifspace.kernels.launch import SHARED_BYTES, TARGETS
from ifspace.kernels.rpw.triton import KERNELS
from ifspace.kernels.windows import ORDERS
from ifspace.parallel import over_shards, workers

MODULES: Final = tuple(CASES)
Row = dict[str, Any]
# Problems that differ in the order alone.
COMPARED: Final = (
    "C=512 F=512 g=2 s=128 channels_last bf16",
    "C=512 F=512 g=2 s=128 blocked channels_last bf16",
)
# A worker process gets the index of a case in the list, and the target.
Job = tuple[int, str]
NAME: Final = "kernels-aot"
# The columns that say what was compiled, and how the file has the numbers of the others.
IDENTITY: Final = ("kernel", "configuration", "problem", "target", "key")
NUMBERS: Final[Mapping[str, Any]] = {
    "registers": int,
    "spilled bytes": int,
    "shared KiB": float,
    "store bytes": int,
    "narrow loads": int,
    "work": float,
}


@cache
def all_cases(modules: tuple[str, ...]) -> list[AotCase]:
    """Return the cases of some modules of kernels, of those in `MODULES`."""
    cases = [case for module in modules for case in CASES[module]()]
    # One problem may be listed for two reasons.
    keys = [(case.kernel, case.config, case.problem, case.targets) for case in cases]
    return list(dict(zip(keys, cases, strict=True)).values())


def jobs_of(cases: Sequence[AotCase], targets: Sequence[str], quick: bool) -> list[Job]:
    """Return which case is compiled for which target, by index in the list.

    Quick: each kernel and configuration once for a target; the targets differ in the problem.
    """
    jobs = []
    problems: dict[tuple[str, ...], list[int]] = {}
    for index, case in enumerate(cases):
        problems.setdefault(_variant(case), []).append(index)
    for indices in problems.values():
        for target in targets:
            fit = [index for index in indices if target in cases[index].targets]
            if quick:
                fit = fit[-1 - TARGETS.index(target) % len(fit) :][:1] if fit else []
            jobs += [(index, target) for index in fit]
    return jobs


def _variant(case: AotCase) -> tuple[str, ...]:
    """Return the kernel, configuration, dtypes and constants of a case, whatever its problem."""
    types = [name for name in case.signature.values() if name.startswith("*")]
    constants = [
        str(case.constexprs.get(name))
        for name in ("PRECISION", "WIDE", "ATOMIC", "WOVEN", "BLOCKED")
    ]
    return (case.kernel, case.config, *types, *constants, str("out_channels" in case.constexprs))


def identity_of(case: AotCase, target: str) -> Row:
    """Return the columns of a row that say what is compiled."""
    values = (case.kernel, case.config, case.problem, target, case.key(target))
    return dict(zip(IDENTITY, values, strict=True))


def row_of(compiled: Compiled) -> Row:
    """Return the row of a compiled kernel."""
    row = identity_of(compiled.case, compiled.target) | {"registers": compiled.registers}
    row |= {"spilled bytes": compiled.spill_bytes, "shared KiB": compiled.shared_bytes / 1024}
    row |= {"unit": compiled.unit, "store bytes": compiled.store_bytes}
    row |= {"narrow loads": compiled.narrow_loads, "work": _work(compiled.case)}
    return row


def _work(case: AotCase) -> float:
    return round(case.work, 2)


def faults_of(case: AotCase, row: Row) -> list[str]:
    """Return why the kernel of a row cannot be offered."""
    shared_bytes = round(row["shared KiB"] * 1024)
    return Compiled(
        case, row["target"], row["registers"], row["spilled bytes"], shared_bytes
    ).faults()


def rows_in(folder: Path) -> dict[tuple[str, ...], Row]:
    """Return the rows of the table in a folder, none without one, by what was compiled."""
    path = folder / f"{NAME}.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows: list[Row] = list(csv.DictReader(file))
    for row in rows:
        row |= {name: number(row[name]) for name, number in NUMBERS.items()}
    return {tuple(row.get(name, "") for name in IDENTITY): row for row in rows}


def sample_of(jobs: Sequence[Job], cases: Sequence[AotCase]) -> list[Job]:
    """Return some jobs, among them every kernel, order, precision, data type and target."""
    sample: dict[Any, Job] = {}
    for index, target in jobs:
        case = cases[index]
        order, precision = (case.constexprs.get(name) for name in ("ORDER", "PRECISION"))
        dtype = next(name for name in case.signature.values() if name.startswith("*"))
        for group in (case.kernel,), (order,), (dtype, precision), (target,):
            # The last of each: configurations are listed from the default to the largest tiles.
            sample[group] = index, target
    return sorted(set(sample.values()))


def compile_all(shard: tuple[tuple[str, ...], Sequence[Job]]) -> list[Row]:
    """Return the row of each job."""
    modules, jobs = shard
    cases = all_cases(modules)
    return [row_of(compile_case(cases[index], target)) for index, target in jobs]


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile, write the table, and fail when a configuration spills or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--modules", default=",".join(MODULES))
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    modules = tuple(options.modules.split(","))
    cases = all_cases(modules)
    jobs = jobs_of(cases, options.targets.split(","), options.quick)
    table = rows_in(options.out)
    keys = {job: tuple(identity_of(cases[job[0]], job[1]).values()) for job in jobs}
    missing = [job for job in jobs if keys[job] not in table]
    if options.check:
        _check(table, keys, modules, cases, workers(options.jobs))
        return
    start = time.perf_counter()
    compiled = _compile(modules, missing, workers(options.jobs))
    kept = {
        job: table[keys[job]] | {"work": _work(cases[job[0]])}
        for job in set(jobs) - compiled.keys()
    }
    rows = compiled | kept
    faults = [fault for job, row in rows.items() for fault in faults_of(cases[job[0]], row)]
    seconds = time.perf_counter() - start
    _write(options.out, sorted(rows.values(), key=lambda row: list(map(str, row.values()))))
    print(
        f"{len(rows)} kernels, {len(missing)} compiled in {seconds:.0f} s, {len(faults)} at fault"
    )
    _exit_with(faults)


def _compile(modules: tuple[str, ...], jobs: Sequence[Job], processes: int) -> dict[Job, Row]:
    """Return the rows of some jobs, which worker processes compile."""
    # Many small shards: costly cases are neighbours in the list.
    shards = [(modules, jobs[n :: 2 * processes]) for n in range(2 * processes)]
    answers = over_shards(compile_all, shards, processes)
    return {
        job: row
        for (_, shard), rows in zip(shards, answers, strict=True)
        for job, row in zip(shard, rows, strict=True)
    }


def _check(
    table: Mapping[tuple[str, ...], Row],
    keys: Mapping[Job, tuple[str, ...]],
    modules: tuple[str, ...],
    cases: Sequence[AotCase],
    processes: int,
) -> None:
    """Compare a table with the kernels that there are; exit with 1 where it is not theirs."""
    wrong = [f"not compiled: {' '.join(key)}" for key in keys.values() if key not in table]
    wrong += [f"no such kernel: {' '.join(key)}" for key in table.keys() - set(keys.values())]
    for (index, _), key in keys.items():
        if key in table:
            wrong += faults_of(cases[index], table[key])
            if table[key]["work"] != _work(cases[index]):
                wrong.append(f"work is {_work(cases[index])}, in the table: {table[key]}")
    if not wrong:
        sample = _compile(modules, sample_of(list(keys), cases), processes)
        wrong = [
            f"compiled again: {row}, in the table: {table[keys[job]]}"
            for job, row in sample.items()
            if row != table[keys[job]]
        ]
        print(f"{len(keys)} kernels, {len(sample)} compiled again, {len(wrong)} differ")
    _exit_with(wrong)


def _exit_with(faults: Sequence[str]) -> None:
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)


def _orders(rows: Sequence[Row]) -> list[str]:
    """Return a table for each target: RPW with the same windows in rolling and in blocked order."""
    columns = ["kernel", "order", "configuration", "registers", "shared KiB", "unit"]
    columns += ["store bytes", "narrow loads", "work"]
    tables = []
    for target in dict.fromkeys(row["target"] for row in rows):
        both = [
            {**row, "order": order}
            for kernel in KERNELS
            for order, problem in zip(ORDERS, COMPARED, strict=True)
            for row in rows
            if (row["kernel"], row["problem"], row["target"]) == (kernel, problem, target)
        ]
        if both:
            cells = [[row[name] for name in columns] for row in both]
            tables += [f"### {target}", tabulate(cells, columns, tablefmt="github")]
    return tables


def _write(folder: Path, rows: Sequence[Row]) -> None:
    command = "python -m benchmarks.kernels_aot"
    worst: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = row["kernel"], row["configuration"], row["target"]
        other = worst.setdefault(key, row)
        if row["registers"] > other["registers"]:
            worst[key] = row
    limits = ", ".join(f"{name} {size // 1024} KiB" for name, size in SHARED_BYTES.items())
    columns = [name for name in rows[0] if name != "key"]
    page = [
        "# What the Triton kernels need of a card",
        f"Written by {provenance(command)}; {len(rows)} kernels.",
        f"Compiled ahead of time, not run. Shared memory there is: {limits}. Of each kernel, "
        "configuration and target the problem that takes most registers; all are in "
        "`kernels-aot.csv`. Spilled: up to 32 bytes, with registers to spare, are the compiler's "
        "way to fit more threads. Unit: the instruction that multiplies. Store bytes: the widest "
        "store of a thread to global memory. Narrow loads: how many loads from there are of 4 "
        "bytes or fewer. Work: products for each weight and pixel; 1 wastes none on zeros.",
        "Key: a hash of all that the compiler reads, its version too; a row is kept while its key "
        f"holds. Compiled by triton {triton.__version__}.",
        "## The two orders of a rolling layer",
        "The same windows, bf16, channels_last. Rolling order visits its filters in natural order, "
        "and multiplies zeros; or sorted, and reads and writes numbers that are apart; or weaves "
        "windows. Blocked order has one way.",
        *_orders(rows),
        "## Every kernel",
        tabulate(
            [[row[name] for name in columns] for row in worst.values()], columns, tablefmt="github"
        ),
    ]
    write_results(folder, NAME, page, rows, command, line_end="\n")


if __name__ == "__main__":
    from benchmarks import kernels_aot  # by that name workers find what they are handed

    kernels_aot.main()
