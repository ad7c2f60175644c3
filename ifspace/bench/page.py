"""The page of a device: targets, ratios to the baseline, and what was not run.

Targets and tables are computed from the rows alone, as they are in memory or read from the file.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ifspace.bench.case import BASELINE_LAYER, COMPILED_PREFIX, FUSED, OURS, RPW
from ifspace.bench.clock import SHORT_S, Limits
from ifspace.bench.rows import Row
from ifspace.bench.run import MAX_CAPTURED
from ifspace.measurements import (
    BOTH_WAYS,
    FORWARD,
    LEAST_RATIO,
    NOT_RUN,
    OF_BOUND,
    RATIO,
    ROUNDS,
    TIME,
)
from ifspace.table import Table

NO_NUMBER: Final = "–"
MAX_LISTED: Final = 4

# candidate -> metric -> median, of one case.
Numbers = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class CaseKey:
    """A case as rows name it."""

    case: str
    batch: int
    width: int
    side: int
    layout: str
    dtype: str
    mode: str

    def __str__(self) -> str:
        return f"{self.case} {self.batch}x{self.width}x{self.side} {self.layout}"


def by_case(rows: Iterable[Row]) -> dict[CaseKey, Numbers]:
    """Return the medians of every case; what was not run has none."""
    cases: dict[CaseKey, Numbers] = {}
    for row in rows:
        if row["N"] == "":
            continue
        key = CaseKey(
            row["case"],
            int(row["N"]),
            int(row["C"]),
            int(row["H"]),
            row["layout"],
            row["dtype"],
            row["mode"],
        )
        numbers = cases.setdefault(key, {}).setdefault(row["candidate"], {})
        if row["median"] != "":
            numbers[row["metric"]] = float(row["median"])
    return cases


@dataclass(frozen=True, slots=True)
class Target:
    """A number of a case with an upper limit or, `at_least`, a lower one.

    `where`: the cases that it is about. `value` and `limit` read the numbers of a case; None where
    they were not measured. `strict`: a value at the limit misses it.
    """

    text: str
    where: Callable[[CaseKey], bool]
    value: Callable[[Numbers], float | None]
    limit: Callable[[Numbers], float | None]
    at_least: bool = False
    strict: bool = False

    def excess(self, numbers: Numbers) -> tuple[float, float, float] | None:
        """Return value, limit, and by how much the value misses it, as a share of the limit.

        A share of 0 or less is a value within the limit; None where one was not measured.
        """
        value, limit = self.value(numbers), self.limit(numbers)
        if value is None or limit is None:
            return None
        missing = (limit - value if self.at_least else value - limit) / limit
        return value, limit, missing

    def met(self, missing: float) -> bool:
        """Return whether a value that misses its limit by this fraction still meets the target."""
        return missing < 0 if self.strict else missing <= 0


@dataclass(frozen=True, slots=True)
class TargetResult:
    """How many cases meet a target, which were not measured, which miss it and by how much.

    `worst`: value, limit and case that are nearest to missing it, or miss it most.
    """

    text: str
    cases: int
    unmeasured: tuple[str, ...]
    missed: tuple[str, ...]
    worst: tuple[float, float, str] | None

    @property
    def word(self) -> str:
        """The result in a word or two: met, missed, or not measured."""
        if self.missed:
            return "missed"
        if self.worst is None:
            return "not measured"
        return "met where measured" if self.unmeasured else "met"


def judge(rows: Iterable[Row], targets: Sequence[Target]) -> list[TargetResult]:
    """Return the verdict on each target."""
    cases = by_case(rows)
    return [_verdict(target, cases) for target in targets]


def _verdict(target: Target, cases: Mapping[CaseKey, Numbers]) -> TargetResult:
    unmeasured, missed, worst = [], [], None
    concerned = {key: numbers for key, numbers in cases.items() if target.where(key)}
    for key, numbers in concerned.items():
        excess = target.excess(numbers)
        if excess is None:
            unmeasured.append(str(key))
            continue
        value, limit, missing = excess
        if not target.met(missing):
            missed.append(f"{key}: {value:.3g} for {limit:.3g}, {missing:.0%} off")
        if worst is None or missing > worst[0]:
            worst = missing, (value, limit, str(key))
    return TargetResult(
        target.text, len(concerned), tuple(unmeasured), tuple(missed), worst and worst[1]
    )


def _of(candidate: str, metric: str) -> Callable[[Numbers], float | None]:
    return lambda numbers: numbers.get(candidate, {}).get(metric)


def _times(slower: str) -> Callable[[Numbers], float | None]:
    """Return the speed-up of ours over a slower candidate."""

    def speedup(numbers: Numbers) -> float | None:
        theirs, ours = _of(slower, RATIO)(numbers), _of(OURS, RATIO)(numbers)
        return None if theirs is None or ours is None else theirs / ours

    return speedup


def _beside_grouped(numbers: Numbers) -> float | None:
    grouped = _of("grouped", RATIO)(numbers)
    return None if grouped is None else max(0.60, 1.15 * grouped)


def _constant(value: float) -> Callable[[Numbers], float | None]:
    return lambda numbers: value


def _where(kind: str, **fields: Any) -> Callable[[CaseKey], bool]:
    """Return whether a case is of a kind and has these fields; a tuple lists several values."""

    def holds(key: CaseKey) -> bool:
        return key.case.startswith(f"{kind}(") and all(
            getattr(key, name) in (value if isinstance(value, tuple) else (value,))
            for name, value in fields.items()
        )

    return holds


_RATIO = _of(OURS, RATIO)
_SHARE = _of(OURS, OF_BOUND)
_DENSE = BASELINE_LAYER[RPW]
_CPU: dict[str, Any] = {"kind": RPW, "dtype": "fp32"}
_CUDA: dict[str, Any] = {"dtype": "bf16", "layout": "channels_last", "batch": 128}
_MANY = "RPW(4,0.33)"

ON_CPU: Final = (
    Target(
        "forward at C = 512, channels_last: at most max(0.60, 1.15 x grouped) of dense",
        _where(**_CPU, mode=FORWARD, width=512, layout="channels_last"),
        _RATIO,
        _beside_grouped,
    ),
    Target(
        "forward at C = 256, channels_last: at most 0.75 of dense",
        _where(**_CPU, mode=FORWARD, width=256, layout="channels_last"),
        _RATIO,
        _constant(0.75),
    ),
    Target(
        "forward, either layout: at most 1.05 of dense",
        _where(**_CPU, mode=FORWARD),
        _RATIO,
        _constant(1.05),
    ),
    Target(
        "forward + backward, either layout: at most 1.05 of dense",
        _where(**_CPU, mode=BOTH_WAYS),
        _RATIO,
        _constant(1.05),
    ),
    Target(
        "forward at (4, 0.33), channels_last: at least 30 times the published composition",
        _where(**_CPU, mode=FORWARD, case=_MANY, layout="channels_last"),
        _times("published"),
        _constant(30),
        at_least=True,
    ),
)
ON_CUDA: Final = (
    Target(
        "forward at 56 x 56 and 28 x 28: at least 75% of the bound",
        _where(RPW, **_CUDA, mode=FORWARD, side=(56, 28)),
        _SHARE,
        _constant(0.75),
        at_least=True,
    ),
    Target(
        f"forward: faster than {_DENSE}",
        _where(RPW, **_CUDA, mode=FORWARD),
        _RATIO,
        _constant(1),
        strict=True,
    ),
    Target(
        f"forward + backward: no slower than {_DENSE}",
        _where(RPW, **_CUDA, mode=BOTH_WAYS),
        _RATIO,
        _constant(1),
    ),
    Target(
        "forward at (4, 0.33): at least 10 times the published composition",
        _where(RPW, **_CUDA, mode=FORWARD, case=_MANY),
        _times("published"),
        _constant(10),
        at_least=True,
    ),
    Target(
        "forward at (4, 0.33): at least 10 times the direct kernel",
        _where(RPW, **_CUDA, mode=FORWARD, case=_MANY),
        _times("direct"),
        _constant(10),
        at_least=True,
    ),
    Target(
        "forward: at least 1.4 times a grouped layer and its shuffle as a batched product",
        _where(RPW, **_CUDA, mode=FORWARD),
        _times("grouped + shuffle"),
        _constant(1.4),
        at_least=True,
    ),
    Target(
        "fused DW + RPW: at least 1.8 times DW followed by dense",
        _where(FUSED, **_CUDA),
        _times(BASELINE_LAYER[FUSED]),
        _constant(1.8),
        at_least=True,
    ),
    Target(
        "fused DW + RPW: at least 60% of its bound",
        _where(FUSED, **_CUDA),
        _SHARE,
        _constant(0.60),
        at_least=True,
    ),
)


def page(
    device: str, written: str, rows: Sequence[Row], verdicts: Sequence[TargetResult], limits: Limits
) -> str:
    """Return the Markdown page of measured rows."""
    parts = [f"# How fast RPW is on {device}", f"Written by {written}."]
    parts += [_method(rows, limits), "## Targets", *_targets(verdicts)]
    measured = [row for row in rows if row["N"] != ""]
    for kind, dtype, layout, mode in dict.fromkeys(map(_group, measured)):
        group = [row for row in measured if _group(row) == (kind, dtype, layout, mode)]
        parts += [f"## {kind}, {mode}, {dtype}, {layout}", *_ratios(group, BASELINE_LAYER[kind])]
    parts += ["## Not run", *_not_run(measured)]
    return "\n\n".join(parts) + "\n"


def _group(row: Row) -> tuple[str, str, str, str]:
    return row["case"].partition("(")[0], row["dtype"], row["layout"], row["mode"]


def _method(rows: Sequence[Row], limits: Limits) -> str:
    rates = {(row["case"], row["dtype"]): row["median"] for row in rows if row["N"] == ""}
    copy = rates.pop(("copy", ""))
    matrix = ", ".join(f"{dtype} {rate:,.0f} GFLOP/s" for (_, dtype), rate in rates.items())
    return (
        f"Measured in the same run: copy {copy:,.0f} GB/s, read and written; the faster of matrix "
        f"product and dense convolution {matrix}. The bound of a pass is the larger of the bytes "
        "that must move over the first and the operations over the second. Forward moves x, "
        "weights and y; backward, with the gradient of y given, moves that, x, the weights and "
        "both gradients, and has twice the operations. The bound of forward + backward is the sum "
        "of the two. It is that of the RPW, for dense too, which has g times the operations. "
        "Tensors of batch 1 fit into the cache of a CPU, so a share may exceed 1 there.\n\n"
        "Every candidate that computes the layer has passed a comparison with float64, output and "
        "gradients, before a time was taken (what torch.compile makes: a comparison with the "
        "dense convolution with zeros, at full size). Times are taken in turn, A B C A B C …, for "
        f"{limits.budget_s:g} s and at least {limits.min_rounds} rounds; what takes over "
        f"{limits.slow_s:g} s takes part in {limits.slow_rounds}, and of what takes over "
        f"{limits.once_s:g} s the first call is the only one; ours and the baseline are in all. On "
        "a CPU a call under "
        f"{1e3 * SHORT_S:g} ms follows one of its own that is not timed; on CUDA the L2 cache is "
        "overwritten before a call, and what holds under "
        f"{MAX_CAPTURED / 2**30:g} GiB is replayed from a graph; cuDNN runs the fastest of its "
        "algorithms, ours the fastest of its tiles, each by a timing before. A ratio is the median "
        "over the rounds of the time over the baseline's in the same round. *Packed* keeps the "
        "weight with its zeros, and its gradient is dense: it does what dense does, so how far it "
        "is from 1 is noise. *Grouped* has the parameters of the RPW and does not roll."
    )


def _targets(verdicts: Sequence[TargetResult]) -> list[str]:
    lines = []
    for verdict in verdicts:
        worst = ""
        if verdict.worst is not None:
            value, limit, case = verdict.worst
            worst = f"{value:.3g} for {limit:.3g} ({case})"
        measured = verdict.cases - len(verdict.unmeasured)
        met = f"{measured - len(verdict.missed)} of {measured}"
        lines.append((verdict.text, verdict.word, met, len(verdict.unmeasured), worst))
    header = ("target", "result", "cases that meet it", "not measured", "worst case")
    parts = [_table(lines, header)]
    for verdict in verdicts:
        if verdict.missed:
            parts.append(f"Missed, {verdict.text}:")
            parts.append("\n".join(f"- {line}" for line in verdict.missed))
    return parts


def _ratios(rows: Sequence[Row], baseline: str) -> list[str]:
    """Return the table of ratios to the baseline, and that of torch.compile if it was timed."""
    cases = by_case(rows)
    names = [
        name
        for name in dict.fromkeys(row["candidate"] for row in rows)
        if any(TIME in numbers.get(name, {}) for numbers in cases.values())
    ]
    plain = [name for name in names if not name.startswith(COMPILED_PREFIX) and name != baseline]
    notes = {
        (row["case"], row["N"], row["C"]): row["provider"].partition(": ")[2]
        for row in rows
        if row["candidate"] == OURS
    }
    lines = []
    for key, numbers in cases.items():
        line = [f"{key.batch}x{key.width}x{key.side}", key.case]
        line.append(_number(numbers, baseline, TIME, ".3f"))
        line += [_number(numbers, name, RATIO, ".2f") for name in plain]
        line += [
            _number(numbers, OURS, metric, form)
            for metric, form in ((LEAST_RATIO, ".2f"), (OF_BOUND, ".0%"), (ROUNDS, ".0f"))
        ]
        lines.append([*line, notes.get((key.case, key.batch, key.width), "")])
    header = ["N x C x H", "layer", f"{baseline}, ms", *plain]
    header += ["ours by least times", "ours of bound", "rounds", "way"]
    parts = [_table(lines, header)]
    compiled = [name for name in names if name.startswith(COMPILED_PREFIX)]
    if compiled:
        chosen = [
            [f"{key.batch}x{key.width}x{key.side}", key.case]
            + [_number(numbers, name, RATIO, ".2f") for name in (OURS, *compiled)]
            for key, numbers in cases.items()
            if any(TIME in numbers.get(name, {}) for name in compiled)
        ]
        short = [name.removeprefix(COMPILED_PREFIX) for name in compiled]
        parts.append("By torch.compile:")
        parts.append(_table(chosen, ["N x C x H", "layer", f"{OURS}, not compiled", *short]))
    return parts


def _number(numbers: Numbers, name: str, metric: str, form: str) -> str:
    value = numbers.get(name, {}).get(metric)
    return NO_NUMBER if value is None else format(value, form)


def _not_run(rows: Sequence[Row]) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["metric"].startswith(NOT_RUN):
            case = f"{row['case']} {row['N']}x{row['C']}x{row['H']} {row['layout']} {row['mode']}"
            reason = row["metric"].removeprefix(NOT_RUN)
            reasons.setdefault((row["candidate"], reason), []).append(case)
    if not reasons:
        return ["Nothing: every candidate ran in every case."]
    lines = []
    for (candidate, reason), cases in reasons.items():
        unlisted = len(cases) - MAX_LISTED
        listed = ", ".join(cases[:MAX_LISTED]) + (f", and {unlisted} more" if unlisted > 0 else "")
        lines.append((candidate, reason, len(cases), listed))
    return [_table(lines, ("candidate", "why", "cases", "which"))]


def _table(lines: Iterable[Iterable[object]], header: Sequence[str]) -> str:
    return Table(tuple(header), tuple(map(tuple, lines))).markdown("github").rstrip()
