"""The resources that the Triton kernels need of a card: registers, spilled bytes, shared memory.

`python -m benchmarks.kernels_aot` compiles every Triton kernel for NVIDIA and AMD cards and
writes `kernels-aot.md` and `kernels-aot.csv` into `results/`. `--quick` compiles each once for
a target, the targets on different problems. The exit status is 1 when one spills or does not fit.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tabulate import tabulate

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.kernels.aot import CASES, AotCase, compile_case
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


def all_cases(modules: Sequence[str]) -> list[AotCase]:
    """Return the cases of some modules of kernels, "rpw" and "fused"."""
    cases = [case for module in modules for case in CASES[module]()]
    # One problem may be listed for two reasons.
    return list({(case.kernel, case.config, case.problem): case for case in cases}.values())


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


def compile_all(shard: tuple[Sequence[str], Sequence[Job]]) -> list[tuple[Row, list[str]]]:
    """Return the row of each job, and the faults of its compiled kernel."""
    modules, jobs = shard
    cases = all_cases(modules)
    answers = []
    for index, target in jobs:
        compiled = compile_case(cases[index], target)
        row: Row = {"kernel": compiled.case.kernel, "configuration": compiled.case.config}
        row |= {"problem": compiled.case.problem, "target": target}
        row["registers"] = compiled.registers
        row |= {"spilled bytes": compiled.spill_bytes, "shared KiB": compiled.shared_bytes / 1024}
        row |= {"unit": compiled.unit, "store bytes": compiled.store_bytes}
        row |= {"narrow loads": compiled.narrow_loads, "work": round(compiled.case.work, 2)}
        answers.append((row, compiled.faults()))
    return answers


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile, write the table, and fail when a configuration spills or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--modules", default=",".join(MODULES))
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    modules = options.modules.split(",")
    jobs = jobs_of(all_cases(modules), options.targets.split(","), options.quick)
    count = workers(options.jobs)
    start = time.perf_counter()
    # Many small shards: costly cases are neighbours in the list.
    shards = [(modules, jobs[n :: 2 * count]) for n in range(2 * count)]
    answers = [answer for done in over_shards(compile_all, shards, count) for answer in done]
    rows = sorted((row for row, _ in answers), key=lambda row: list(map(str, row.values())))
    faults = [fault for _, faults_of in answers for fault in faults_of]
    seconds = time.perf_counter() - start
    _write(options.out, rows)
    print(f"{len(rows)} compiled in {seconds:.0f} s by {count} jobs, {len(faults)} at fault")
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
    page = [
        "# What the Triton kernels need of a card",
        f"Written by {provenance(command)}; {len(rows)} kernels.",
        f"Compiled ahead of time, not run. Shared memory there is: {limits}. Of each kernel, "
        "configuration and target the problem that takes most registers; all are in "
        "`kernels-aot.csv`. Spilled: up to 32 bytes, with registers to spare, are the compiler's "
        "way to fit more threads. Unit: the instruction that multiplies. Store bytes: the widest "
        "store of a thread to global memory. Narrow loads: how many loads from there are of 4 "
        "bytes or fewer. Work: products for each weight and pixel; 1 wastes none on zeros.",
        "## The two orders of a rolling layer",
        "The same windows, bf16, channels_last. Rolling order visits its filters in natural order, "
        "and multiplies zeros; or sorted, and reads and writes numbers that are apart; or weaves "
        "windows. Blocked order has one way.",
        *_orders(rows),
        "## Every kernel",
        tabulate([row.values() for row in worst.values()], list(rows[0]), tablefmt="github"),
    ]
    write_results(folder, "kernels-aot", page, rows, command, line_end="\n")


if __name__ == "__main__":
    main()
