"""The page of a device: targets, ratios to the baseline, what was not run."""

from collections.abc import Iterable, Sequence
from typing import Final

from tabulate import tabulate

from ifspace.bench.clock import SHORT_S, Limits
from ifspace.bench.kernels.candidates import BASELINE, COMPILED, OURS
from ifspace.bench.kernels.measure import MOST_CAPTURED
from ifspace.bench.kernels.rows import LEAST_RATIO, RATIO
from ifspace.bench.kernels.targets import Numbers, Verdict, by_case
from ifspace.bench.tidy import NOT_RUN, OF_BOUND, ROUNDS, TIME, Row

NO_NUMBER: Final = "–"
MOST_LISTED: Final = 4


def page(
    device: str, written: str, rows: Sequence[Row], verdicts: Sequence[Verdict], limits: Limits
) -> str:
    """Return the Markdown page of measured rows."""
    parts = [f"# How fast RPW is on {device}", f"Written by {written}."]
    parts += [_method(rows, limits), "## Targets", *_targets(verdicts)]
    measured = [row for row in rows if row["N"] != ""]
    for kind, dtype, layout, mode in dict.fromkeys(map(_group, measured)):
        some = [row for row in measured if _group(row) == (kind, dtype, layout, mode)]
        parts += [f"## {kind}, {mode}, {dtype}, {layout}", *_ratios(some, BASELINE[kind])]
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
        f"{limits.budget_s:g} s and at least {limits.least} rounds; what takes over "
        f"{limits.slow_s:g} s takes part in {limits.few}, and of what takes over {limits.once_s:g} "
        "s the first call is the only one; ours and the baseline are in all. On a CPU a call under "
        f"{1e3 * SHORT_S:g} ms follows one of its own that is not timed; on CUDA the L2 cache is "
        "overwritten before a call, and what holds under "
        f"{MOST_CAPTURED / 2**30:g} GiB is replayed from a graph. A ratio is the median over the "
        "rounds of the time over the baseline's in the same round. *Packed* keeps the weight with "
        "its zeros, and its gradient is dense: it does what dense does, so how far it is from 1 "
        "is noise. *Grouped* has the parameters of the RPW and does not roll."
    )


def _targets(verdicts: Sequence[Verdict]) -> list[str]:
    lines = []
    for each in verdicts:
        nearest = ""
        if each.worst is not None:
            value, limit, case = each.worst
            nearest = f"{value:.3g} for {limit:.3g} ({case})"
        count = each.cases - len(each.unmeasured)
        held = f"{count - len(each.missed)} of {count}"
        lines.append((each.text, each.word, held, len(each.unmeasured), nearest))
    header = ("target", "result", "cases that meet it", "not measured", "worst case")
    parts = [_table(lines, header)]
    for each in verdicts:
        if each.missed:
            parts.append(f"Missed, {each.text}:")
            parts.append("\n".join(f"- {line}" for line in each.missed))
    return parts


def _ratios(rows: Sequence[Row], baseline: str) -> list[str]:
    """Return the table of times over the baseline's, and torch.compile's where there is one."""
    cases = by_case(rows)
    names = [
        name
        for name in dict.fromkeys(row["candidate"] for row in rows)
        if any(TIME in numbers.get(name, {}) for numbers in cases.values())
    ]
    plain = [name for name in names if not name.startswith(COMPILED) and name != baseline]
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
    compiled = [name for name in names if name.startswith(COMPILED)]
    if compiled:
        chosen = [
            [f"{key.batch}x{key.width}x{key.side}", key.case]
            + [_number(numbers, name, RATIO, ".2f") for name in (OURS, *compiled)]
            for key, numbers in cases.items()
            if any(TIME in numbers.get(name, {}) for name in compiled)
        ]
        short = [name.removeprefix(COMPILED) for name in compiled]
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
        more = len(cases) - MOST_LISTED
        listed = ", ".join(cases[:MOST_LISTED]) + (f", and {more} more" if more > 0 else "")
        lines.append((candidate, reason, len(cases), listed))
    return [_table(lines, ("candidate", "why", "cases", "which"))]


def _table(lines: Iterable[Iterable[object]], header: Sequence[str]) -> str:
    return str(tabulate(lines, header, tablefmt="github", disable_numparse=True))
