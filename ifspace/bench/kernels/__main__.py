"""How fast RPW is beside its rivals, on one device.

`python -m ifspace.bench.kernels` writes `<device>.csv` and `<device>.md` into `results/bench/`.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from ifspace.bench.clock import Limits
from ifspace.bench.kernels.bounds import bound_s
from ifspace.bench.kernels.candidates import candidates, named
from ifspace.bench.kernels.cases import (
    FUSED,
    KINDS,
    RPW,
    SHAPES,
    WINDOWS,
    Case,
    listed,
    parse_shape,
    parse_window,
)
from ifspace.bench.kernels.gate import BATCH, SIDE, check
from ifspace.bench.kernels.measure import Bench, measure, nowhere
from ifspace.bench.kernels.rows import RATIO, Timed, rate_rows, rows_of
from ifspace.bench.machine import (
    DTYPES,
    check_known,
    find_device,
    free_bytes,
    keep_memory,
    measured_rates,
)
from ifspace.bench.page import (
    ON_CPU,
    ON_CUDA,
    judged,
    page,
)
from ifspace.bench.record import list_in_readme
from ifspace.bench.rows import (
    BOTH_WAYS,
    COLUMNS,
    LAYOUTS,
    MODES,
    Row,
    this_machine,
)
from ifspace.errors import IfspaceError

COMMAND: Final = "python -m ifspace.bench.kernels"
THREADS: Final = 2
QUICK_SHAPES: Final = ((1, 512, 14), (1, 1024, 7))
QUICK_WINDOWS: Final = ((4, "0.33"), (4, "1/2"))
LIMITS: Final = {"cpu": Limits(), "cuda": Limits(budget_s=0.3, least=20, most=60)}
QUICK_LIMITS: Final = Limits(budget_s=0.2, least=3, slow_s=0.1, once_s=0.3)
# Where torch.compile is timed unless all is asked for: a compilation takes seconds to minutes.
COMPILED_SHAPE: Final = (128, 512, 14)
COMPILED_WINDOWS: Final = {"cpu": ((4, "1/2"),), "cuda": ((4, "1/2"), (4, "0.33"))}
OVER: Final = "the time limit of the run was over"
# The share of free memory that a candidate may hold by `bytes_needed`: torch's own copies, and what
# the allocator keeps of those that ran before, take more than as much again.
SHARE: Final = 0.35


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    keep_memory()
    torch.set_num_threads(options.threads)
    try:
        plan = Plan.of(options)
        rows = []
        for found in plan.rows():
            rows += found
            print(_line(found), flush=True)
            # After every case: a run that is stopped keeps what it measured.
            written = plan.write(rows, options.out) if found[0]["N"] else None
    except IfspaceError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"written: {written}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures, on what."""

    device: torch.device
    cases: tuple[Case, ...]
    bench: Bench
    scale: float
    time_limit_s: float
    command: str

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Plan":
        """Return the plan for some options.

        Raises: SettingError, DeviceError, KernelError for what cannot be.
        """
        device = find_device(options.device)
        cuda, quick = device.type == "cuda", options.quick
        shapes = [parse_shape(text) for text in options.cases.split(",") if text]
        windows = [parse_window(text) for text in options.windows.split()]
        dtypes = options.dtypes.split(",") if options.dtypes else ["bf16" if cuda else "fp32"]
        layouts = options.layouts.split(",")
        kinds = options.kinds.split(",") if options.kinds else [RPW, *([FUSED] if cuda else [])]
        chosen = ("dtypes", dtypes, DTYPES), ("layouts", layouts, LAYOUTS), ("kinds", kinds, KINDS)
        for argument, names, known in chosen:
            for name in names:
                check_known(argument, name, known)
        every = listed(
            shapes or (QUICK_SHAPES if quick else SHAPES),
            windows or (QUICK_WINDOWS if quick else WINDOWS),
            layouts,
            MODES,
            dtypes,
            kinds,
        )
        impl = options.impl or ("triton" if cuda else "cpu")
        compiles = {"none": nowhere, "some": _somewhere(device), "all": _everywhere}
        limits = QUICK_LIMITS if quick else LIMITS[device.type]
        compile_in = compiles["none" if quick else options.compiled]
        most_bytes = SHARE * free_bytes(device)
        bench = Bench(candidates(impl, True), device, most_bytes, limits, compile_in)
        words = [COMMAND, *(["--quick"] if quick else [])]
        defaults = vars(_parser().parse_args([]))
        for name in (
            "device",
            "cases",
            "windows",
            "dtypes",
            "layouts",
            "kinds",
            "impl",
            "compiled",
        ):
            value = getattr(options, name)
            if value != defaults[name]:
                words += [f"--{name}", f"'{value}'" if " " in value else value]
        scale = 1 / 4 if quick else 1.0
        return cls(device, tuple(every), bench, scale, options.time_limit, " ".join(words))

    def rows(self) -> Iterator[list[Row]]:
        """Yield the rows of the rates, then of each case.

        Raises: WrongCandidateError before anything wrong is timed.
        """
        machine = this_machine(self.device)
        dtypes = list(dict.fromkeys(case.dtype for case in self.cases))
        rates = measured_rates(self.device, dtypes, self.scale)
        yield list(rate_rows(rates, machine))
        passed: set[Case] = set()
        started = time.perf_counter()
        for case in self.cases:
            if time.perf_counter() - started > self.time_limit_s:
                timed = [
                    Timed(each, reason=OVER) for each in named(self.bench.candidates, case.kind)
                ]
                yield list(rows_of(case, timed, bound_s(case, rates), machine))
                continue
            few = replace(case.sized(BATCH, SIDE), mode=BOTH_WAYS)
            if few not in passed:
                check(self.bench.candidates, few, self.device)
                passed.add(few)
            timed = measure(case, self.bench)
            yield list(rows_of(case, timed, bound_s(case, rates), machine))

    def write(self, rows: Sequence[Row], folder: Path) -> Path:
        """Write rows and page, enter them in the README beside the folder; return the page."""
        folder.mkdir(parents=True, exist_ok=True)
        device = rows[0]["device"]
        with (folder / f"{device}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        names = [f"{folder.name}/{device}.{suffix}" for suffix in ("csv", "md")]
        where = list_in_readme(folder.parent, names, self.command)
        verdicts = judged(rows, ON_CUDA if self.device.type == "cuda" else ON_CPU)
        text = page(device, f"{where}, {self._versions()}", rows, verdicts, self.bench.limits)
        target = folder / f"{device}.md"
        target.write_text(text)
        return target

    def _versions(self) -> str:
        cuda = self.device.type == "cuda"
        what = (
            torch.cuda.get_device_name(self.device)
            if cuda
            else f"{torch.get_num_threads()} threads"
        )
        return f"{what}, torch {torch.__version__}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--device", default="", help="cpu or cuda; cuda if there is one")
    parser.add_argument("--cases", default="", help="NxCxH,NxCxH,...")
    parser.add_argument("--windows", default="", help='"g,o g,o ..."')
    parser.add_argument("--dtypes", default="", help=f"of {', '.join(DTYPES)}, with commas")
    parser.add_argument("--impl", default="", help="implementation of ours")
    parser.add_argument("--compiled", default="some", choices=("none", "some", "all"))
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="with a comma")
    parser.add_argument("--kinds", default="", help=f"{RPW}, {FUSED} or both with a comma")
    parser.add_argument(
        "--time-limit", type=float, default=float("inf"), help="seconds: no case begins after"
    )
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--quick", action="store_true", help="a look at a few small cases")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    return parser


def _everywhere(case: Case) -> bool:
    return True


def _somewhere(device: torch.device) -> Callable[[Case], bool]:
    def chosen(case: Case) -> bool:
        shape = (case.batch, case.width, case.side)
        window = (case.groups, case.overlap)
        right = shape == COMPILED_SHAPE and window in COMPILED_WINDOWS[device.type]
        return right and case.layout == LAYOUTS[0]

    return chosen


def _line(rows: Sequence[Row]) -> str:
    """Return how a case went: the ratios of its candidates."""
    first = rows[0]
    if first["N"] == "":
        return ", ".join(f"{row['case']} {row['median']:,} {row['unit']}" for row in rows)
    ratios = [f"{r['candidate']} {r['median']:.2f}" for r in rows if r["metric"] == RATIO]
    case = f"{first['case']} {first['N']}x{first['C']}x{first['H']}"
    return f"{case} {first['layout']} {first['dtype']} {first['mode']}: {', '.join(ratios)}"


if __name__ == "__main__":
    main()
