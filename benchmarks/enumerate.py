"""How fast the enumeration is: by width, by length, beside slower exact searches.

`python -m benchmarks.enumerate` writes `enumerate.md`, `enumerate.csv` and the figures
`enumerate-length` and `enumerate-width` into `results/`; with `--networks` it writes
`enumerate-networks.md` and `enumerate-networks.csv`, how long it takes to tell the networks of a
catalogue apart; with `--front` `enumerate-front.md` and `enumerate-front.csv`, how much longer the
front takes than the cheapest choices, and with floors; with `--copies` `enumerate-copies.md` and
`enumerate-copies.csv`, how long two equal copies of a block take; with `--estimates`
`enumerate-estimates.md` and `enumerate-estimates.csv`, how near its estimates are. Every search
runs in a process of its own, which loads compiled code before the clock starts. Searches that are
compared run in turn.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import inf
from os import cpu_count, getloadavg
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.measure import watch, write_results
from ifspace.bench.record import (
    provenance,
    python,
)
from ifspace.block import Block, Layer
from ifspace.canonical import network_class
from ifspace.catalogue import load, mark_networks, save
from ifspace.catalogue.front import front_networks
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import Alphabet
from ifspace.enumerate.compositions import candidates
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch
from ifspace.enumerate.oracle import passes
from ifspace.enumerate.search import enumerate_designs, estimate_seconds
from ifspace.kinds import find_kind
from ifspace.reach import compact, quality
from ifspace.serialize import to_plain
from ifspace.table import Table

Row = dict[str, Any]

WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)
LENGTHS = tuple(range(2, 11))
TARGETS = {16: 0.5, 64: 1.5, 256: 6.0, 1024: 60.0}
# Seconds to tell the networks of all compositions to length 6 apart.
NETWORK_TARGETS = {64: 3.0, 256: 30.0}
NETWORK_WIDTHS = (8, 16, 64, 256)
# Arguments of the settings whose fronts are timed; for the first there is an aim. At 96 channels 27
# million choices pass, and the search takes a minute and a half of processor time.
FRONTS: tuple[Row, ...] = (
    {"channels": 64},
    {"channels": 32},
    {"channels": 128},
    {"channels": 16},
    {"channels": 48},
    {"channels": 96},
    {"channels": 64, "out_channels": 128, "stride": 2},
    {"channels": 64, "max_len": 4, "repeats": 2},
    {"channels": 256, "max_len": 5},
)
QUICK_FRONTS = 3
FRONT_AIM_S, FRONT_AIM_MIB = 30.0, 2048
# Without a front; with it; with it and a floor under the fan-in.
FRONT_FLOOR = 16
FRONT_CASES: Mapping[str, Row] = {
    "cheapest": {},
    "front": {"front": True},
    "front with floor": {"front": True, "floors": {"least_fan_in": FRONT_FLOOR}},
}
REPEATS = 3
# Two equal copies of a block in sequence: to which lengths, and the seconds that the last may take.
COPIES, COPY_LENGTHS, COPIES_AIM_S = {"channels": 64, "repeats": 2}, (2, 3, 4, 5), 10.0
# Settings whose estimate is compared with the time that they take, and how far it may be off.
ESTIMATED: tuple[Row, ...] = (
    {"channels": 64, "max_len": 7},
    {"channels": 64, "max_len": 8},
    {"channels": 16, "max_len": 8},
    {"channels": 96, "max_len": 6},
    {"channels": 256, "max_len": 6},
    {"channels": 1024, "max_len": 6},
    {"channels": 64, "max_len": 6, "rpw_order": "both"},
    {"channels": 64, "max_len": 7, "permutation": "free"},
    {"channels": 64, "max_len": 6, "rule": "early-stop"},
    {"channels": 64, "max_len": 6, "front": True},
    {"channels": 64, "out_channels": 128, "stride": 2, "max_len": 7},
    {"channels": 64, "max_len": 5, "repeats": 2},
    {"channels": 32, "max_len": 6, "repeats": 2},
)
ESTIMATE_AIM = 2.0


def halves(setting: EnumerationSetting) -> dict[str, int]:
    """Return the cheapest parameters of every survivor, by the search of record."""
    catalogue = enumerate_designs([setting], jobs=1)
    return {design.composition: design.params for design in catalogue.designs}


def merged_walk(setting: EnumerationSetting) -> dict[str, int]:
    """Return the same by walking forward with equal states merged, nothing split into halves."""
    alphabet = Alphabet(setting)
    engine = ForwardSearch(alphabet, ExactAlgebra(alphabet))
    answers: dict[str, int] = {}
    for length in range(1, setting.max_len + 1):
        for kinds, letters in candidates(alphabet, engine, [setting.usable_kinds] * length):
            solution = engine.cheapest([letters])[letters]
            if solution is not None:
                all_letters = alphabet.all_letters(kinds) or ()
                fixed = sum(alphabet.letters[letter].fixed_cost for letter in all_letters)
                answers["+".join(kinds)] = solution.cost + fixed
    return answers


def brute_force(setting: EnumerationSetting) -> dict[str, int]:
    """Return the same by trying every choice of every composition with one spatial layer."""
    answers: dict[str, int] = {}
    c = setting.channels
    choices = {
        kind: [
            Layer(kind, groups, overlap)
            for groups, overlap, _ in find_kind(kind).choices(c, c, setting.overlaps)
        ]
        for kind in setting.usable_kinds
    }
    for length in range(1, setting.max_len + 1):
        for kinds in product(setting.usable_kinds, repeat=length):
            if sum(find_kind(kind).spatial for kind in kinds) != 1:
                continue
            for layers in product(*(choices[kind] for kind in kinds)):
                sized = Block(layers).at(c)
                if sized.params < answers.get("+".join(kinds), sized.params + 1) and (
                    quality(sized, setting.reference_field)
                    and compact(sized, setting.reference_field)
                ):
                    answers["+".join(kinds)] = sized.params
    return answers


SEARCHES: dict[str, Callable[[EnumerationSetting], dict[str, int]]] = {
    "halves": halves,
    "merged walk": merged_walk,
    "brute force": brute_force,
}
# Search, width, length: compared in turn with the search of record.
PAIRS = (
    ("brute force", 8, 4),
    ("brute force", 12, 3),
    ("merged walk", 16, 6),
    ("merged walk", 64, 4),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, or with --child one search of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument(
        "--quick", action="store_true", help="widths to 64 and lengths to 6; three fronts"
    )
    parser.add_argument("--networks", action="store_true", help="time the networks alone")
    parser.add_argument("--front", action="store_true", help="time the fronts alone")
    parser.add_argument("--copies", action="store_true", help="time two equal copies alone")
    parser.add_argument("--estimates", action="store_true", help="compare the estimates alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        case = json.loads(options.child)
        if "estimated" in case:
            print(json.dumps(_estimated(case["estimated"])))
        elif "arguments" in case:
            print(json.dumps(_enumerated(case["arguments"])))
        else:
            run = _tell_networks_apart if "catalogue" in case else _child
            print(json.dumps(run(**case)))
        return
    if options.front:
        _write_fronts(options.out, options.quick)
        return
    if options.networks:
        _write_networks(options.out)
        return
    if options.copies:
        _write_copies(options.out)
        return
    if options.estimates:
        _write_estimates(options.out)
        return
    if not _agree():
        raise SystemExit("the searches disagree at C = 8: nothing is timed")
    widths = [width for width in WIDTHS if not options.quick or width <= 64]
    lengths = [length for length in LENGTHS if not options.quick or length <= 6]
    measured: dict[str, list[Row]] = {"sweeps": [], "pairs": []}
    for kind, row in _measurements(widths, lengths):
        print(row, flush=True)
        measured[kind].append(row)
    rows = measured["sweeps"]
    options.out.mkdir(exist_ok=True)
    command = "python -m benchmarks.enumerate" + (" --quick" if options.quick else "")
    _figures(options.out, rows)
    page = _page(rows, measured["pairs"], str(provenance(command)))
    figures = [
        f"enumerate-{sweep}.{suffix}" for sweep in ("length", "width") for suffix in ("svg", "png")
    ]
    write_results(options.out, "enumerate", page, rows, command, figures)


def _measurements(widths: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[str, Row]]:
    for width in widths:
        yield "sweeps", _row("width", width, 6)
    for length in lengths:
        yield "sweeps", _row("length", 64, length)
    for pair in PAIRS:
        yield "pairs", _pair(*pair)


def _agree() -> bool:
    """Return whether three searches agree and every witness passes the rules."""
    setting = EnumerationSetting(channels=8, max_len=4)
    answers = [search(setting) for search in SEARCHES.values()]
    designs = enumerate_designs([setting], jobs=1).designs
    return all(answer == answers[0] for answer in answers) and all(
        passes(design.block, setting) for design in designs
    )


def _child(search: str, channels: int, length: int, jobs: int | None) -> Row:
    halves(EnumerationSetting(channels=8, max_len=4))  # loads the compiled code
    setting = EnumerationSetting(channels=channels, max_len=length)
    start = time.perf_counter()
    if search == "halves":
        catalogue = enumerate_designs([setting], jobs=jobs)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, **to_plain(catalogue.funnels[0])}
    survivors = len(SEARCHES[search](setting))
    return {"seconds": time.perf_counter() - start, "survivors": survivors}


def _run(search: str, channels: int, length: int, jobs: int | None) -> tuple[Row, float]:
    case = {"search": search, "channels": channels, "length": length, "jobs": jobs}
    return _child_of(case)


def _child_of(case: Row) -> tuple[Row, float]:
    used = watch(python("-m", "benchmarks.enumerate", "--child", json.dumps(case)))
    return json.loads(used.output), used.peak_mib


def _write_networks(out: Path) -> None:
    """Time how long the networks of a catalogue take to be told apart, and write the page."""
    rows = []
    for channels in NETWORK_WIDTHS:
        rows.append(_networks_row(channels, 6))
        print(rows[-1], flush=True)
    command = "python -m benchmarks.enumerate --networks"
    page = [
        "# How fast networks are told apart",
        f"Written by {provenance(command)}.",
        "All compositions to length 6. *Enumeration*: seconds from the call to the finished "
        "catalogue, networks included. *Networks*: seconds for the canonical classes and the "
        "representatives of all its rows alone, in a process that has the graph library loaded. "
        "Medians of the runs, which were taken in turn; *least* of the second.",
        _table(
            ["C", "survivors", "networks", "enumeration", "networks s", "least s", "aim"],
            [
                [
                    row["channels"],
                    row["survivors"],
                    row["networks"],
                    row["enumeration_s"],
                    row["networks_s"],
                    row["networks_least_s"],
                    NETWORK_TARGETS.get(row["channels"], ""),
                ]
                for row in rows
            ],
        ),
    ]
    write_results(out, "enumerate-networks", page, rows, command)


def _networks_row(channels: int, length: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.parquet"
        save(enumerate_designs([EnumerationSetting(channels=channels, max_len=length)]), path)
        whole, alone = [], []
        for _ in range(REPEATS):
            answer, _ = _run("halves", channels, length, 1)
            whole.append(answer["seconds"])
            alone.append(_child_of({"catalogue": str(path)})[0]["seconds"])
    return {
        "channels": channels,
        "length": length,
        "runs": REPEATS,
        "survivors": answer["survivors"],
        "networks": answer["distinct_networks"],
        "enumeration_s": round(median(whole), 3),
        "networks_s": round(median(alone), 3),
        "networks_least_s": round(min(alone), 3),
    }


def _tell_networks_apart(catalogue: str) -> Row:
    designs = load(catalogue).designs
    network_class(Block.parse("PW+GC(2)+GC(4)").at(8))  # loads the graph library
    start = time.perf_counter()
    marked = mark_networks(designs)
    seconds = time.perf_counter() - start
    if marked != designs:
        raise SystemExit("the networks differ from those on file: nothing is timed")
    return {"seconds": seconds}


def _write_fronts(out: Path, quick: bool) -> None:
    """Time fronts beside the cheapest choices and with a floor, in turn, and write the page."""
    rows, load = [], getloadavg()[0]
    for arguments in FRONTS[: QUICK_FRONTS if quick else None]:
        rows.append(_front_row(arguments))
        print(rows[-1], flush=True)
    command = "python -m benchmarks.enumerate --front" + (" --quick" if quick else "")
    page = [
        "# How fast the front is",
        f"Written by {provenance(command)}.",
        "All compositions to the length given. *Cheapest*: the cheapest choice of each survivor; "
        "*front*: every passing choice counted by its amounts, and what beats what; *with floor*: "
        f"the front of the choices with at least {FRONT_FLOOR} channels per filter. Seconds are "
        f"the least of {REPEATS} runs, one process each, taken in turn, from the call to the "
        "finished catalogue; memory is the most of the front's. Aim at 64 channels and length 6: "
        f"{FRONT_AIM_S:.0f} s and {FRONT_AIM_MIB:,} MiB. Processor seconds are those of "
        f"all processes of the front's run. Before the first run the load was {load:.1f} "
        f"on {cpu_count()} processors: where it is more than these, seconds on the clock are "
        "longer.",
        _table(
            [
                "setting",
                "length",
                "choices",
                "passing",
                "rows",
                "networks of the front",
                "cheapest s",
                "front s",
                "processor s",
                "times",
                "with floor s",
                "times the front",
                "MiB",
            ],
            [list(row.values()) for row in rows],
        ),
    ]
    write_results(out, "enumerate-front", page, rows, command)


def _front_row(arguments: Row) -> Row:
    seconds: dict[str, float] = {}
    answers: dict[str, Row] = {}
    peak, processor_s = 0.0, inf
    for _ in range(REPEATS):
        for name, more in FRONT_CASES.items():
            answers[name], used = _child_of({"arguments": arguments | more})
            seconds[name] = min(answers[name]["seconds"], seconds.get(name, inf))
            if name == "front":
                peak = max(peak, used)
                processor_s = min(processor_s, answers[name]["processor_s"])
    setting = EnumerationSetting(**arguments)
    text = setting.widths_text + "".join(
        f", {name} {getattr(setting, name)}"
        for name in ("stride", "repeats")
        if getattr(setting, name) > 1
    )
    cheapest, front, floor = (seconds[name] for name in FRONT_CASES)
    return {
        "setting": text,
        "length": setting.max_len,
        "choices": answers["front"]["choices_covered"],
        "passing": answers["front"]["choices_passing"],
        "rows": answers["front"]["rows"],
        "networks": answers["front"]["networks"],
        "cheapest_s": round(cheapest, 3),
        "front_s": round(front, 3),
        "processor_s": round(processor_s, 3),
        "front_times": round(front / cheapest, 2),
        "floor_s": round(floor, 3),
        "floor_times": round(floor / front, 2),
        "peak_mib": round(peak),
    }


def _write_copies(out: Path) -> None:
    """Time the search of two equal copies by length, and write the page."""
    rows, load = [], getloadavg()[0]
    for length in COPY_LENGTHS:
        rows.append(_copies_row(COPIES | {"max_len": length}))
        print(rows[-1], flush=True)
    command = "python -m benchmarks.enumerate --copies"
    last = rows[-1]
    page = [
        "# How fast two equal copies are",
        f"Written by {provenance(command)}.",
        f"`ifspace enumerate --repeats 2` at {COPIES['channels']} channels: blocks that are "
        "compared with two standard convolutions in sequence, all compositions to the length "
        f"given. Seconds are the least of {REPEATS} runs, one process each, from the call to the "
        "finished catalogue; processor seconds those of the process and of workers that it starts; "
        "memory is the most of all of them together. "
        f"Before the first run the load was {load:.1f} on {cpu_count()} processors: where it is "
        "more than these, seconds on the clock are longer.",
        f"Aim to length {last['length']}: {COPIES_AIM_S:.0f} s; it takes "
        f"{last['seconds']:.1f} s, {last['processor_s']:.1f} s of the processor.",
        _table(
            [
                "length",
                "compositions",
                "survivors",
                "networks",
                "covered",
                "seconds",
                "processor s",
                "MiB",
            ],
            [list(row.values()) for row in rows],
        ),
    ]
    write_results(out, "enumerate-copies", page, rows, command)


def _copies_row(arguments: Row) -> Row:
    runs = [_child_of({"arguments": arguments}) for _ in range(REPEATS)]
    answer = runs[0][0]
    return {
        "length": arguments["max_len"],
        "compositions": answer["compositions"],
        "survivors": answer["survivors"],
        "networks": answer["distinct_networks"],
        "choices_covered": answer["choices_covered"],
        "seconds": round(min(run["seconds"] for run, _ in runs), 3),
        "processor_s": round(min(run["processor_s"] for run, _ in runs), 3),
        "peak_mib": round(max(peak for _, peak in runs)),
    }


def _write_estimates(out: Path) -> None:
    """Compare the seconds that settings are expected to take with those they take; write the page.

    Estimates are of one core: both are seconds of one process.
    """
    rows = []
    for arguments in ESTIMATED:
        runs = [_child_of({"estimated": arguments})[0] for _ in range(REPEATS)]
        ratios = [run["expected_s"] / run["processor_s"] for run in runs]
        rows.append(
            {
                "setting": ", ".join(f"{name} {value}" for name, value in arguments.items()),
                "expected_s": round(median(run["expected_s"] for run in runs), 1),
                "processor_s": round(median(run["processor_s"] for run in runs), 1),
                "least_ratio": round(min(ratios), 2),
                "largest_ratio": round(max(ratios), 2),
                "estimate_took_s": round(median(run["estimate_took_s"] for run in runs), 1),
            }
        )
        print(rows[-1], flush=True)
    command = "python -m benchmarks.enumerate --estimates"
    near = sum(
        1 / ESTIMATE_AIM <= row["least_ratio"] <= row["largest_ratio"] <= ESTIMATE_AIM
        for row in rows
    )
    page = [
        "# How near the estimates are",
        f"Written by {provenance(command)}.",
        "What `ifspace enumerate` expects a setting to take on one core before it begins, beside "
        "the processor's seconds that one process then takes, and how long the estimate itself "
        f"takes: medians of {REPEATS} processes, and the least and the largest ratio in one of "
        "them.",
        f"Aim: within a factor of {ESTIMATE_AIM:.0f}; in all processes of {near} of {len(rows)} "
        "settings.",
        _table(
            ["setting", "expected s", "takes s", "least ratio", "largest ratio", "estimate took s"],
            [list(row.values()) for row in rows],
        ),
    ]
    write_results(out, "enumerate-estimates", page, rows, command)


def _estimated(arguments: Row) -> Row:
    setting = EnumerationSetting.from_arguments(arguments)
    halves(EnumerationSetting(channels=8, max_len=4))  # loads the compiled code
    seconds = [time.process_time()]
    expected = estimate_seconds(setting)
    seconds.append(time.process_time())
    enumerate_designs([setting], jobs=1)
    seconds.append(time.process_time())
    estimating, enumerating = seconds[1] - seconds[0], seconds[2] - seconds[1]
    return {"expected_s": expected, "processor_s": enumerating, "estimate_took_s": estimating}


def _enumerated(arguments: Row) -> Row:
    setting = EnumerationSetting.from_arguments(arguments)
    for front in (False, True):  # loads the compiled code, and the graph library
        small = EnumerationSetting(channels=8, max_len=3, front=front, repeats=setting.repeats)
        enumerate_designs([small], jobs=1)
    start, start_of_process = time.perf_counter(), _processor_s()
    catalogue = enumerate_designs([setting])
    seconds, processor_s = time.perf_counter() - start, _processor_s() - start_of_process
    networks = len(front_networks(catalogue.designs))
    funnel = catalogue.funnels[0]
    counts = {"rows": funnel.rows, "networks": networks}
    return {"seconds": seconds, "processor_s": processor_s, **to_plain(funnel), **counts}


def _processor_s() -> float:
    """Return the processor's seconds of this process and its workers so far."""
    here = psutil.Process()
    family = (here, *here.children(recursive=True))
    return sum(sum(process.cpu_times()[:2]) for process in family)


def _row(sweep: str, channels: int, length: int) -> Row:
    answer, peak = _run("halves", channels, length, None)
    times = [answer["seconds"]]
    while len(times) < REPEATS and sum(times) < 20:
        again, more = _run("halves", channels, length, None)
        times.append(again["seconds"])
        peak = max(peak, more)
    row = {"sweep": sweep, "channels": channels, "length": length}
    row |= {
        "runs": len(times),
        "median_s": round(median(times), 3),
        "least_s": round(min(times), 3),
    }
    row |= {"peak_mib": round(peak)}
    for key in (
        "compositions",
        "after_patterns",
        "survivors",
        "words_searched",
        "choices_covered",
        "choices_checked",
    ):
        row[key] = answer[key]
    return row


def _pair(other: str, channels: int, length: int) -> Row:
    """Time another search and the one of record in turn, and say the ratio of their medians."""
    ours, theirs = [], []
    for _ in range(REPEATS):
        theirs.append(_run(other, channels, length, 1)[0]["seconds"])
        ours.append(_run("halves", channels, length, 1)[0]["seconds"])
    row = {"other": other, "channels": channels, "length": length}
    row |= {"other_s": round(median(theirs), 3), "halves_s": round(median(ours), 3)}
    row |= {"ratio": round(median(theirs) / median(ours), 1)}
    return row


def _page(rows: Sequence[Row], pairs: Sequence[Row], where: str) -> list[str]:
    widths = [row for row in rows if row["sweep"] == "width"]
    lengths = [row for row in rows if row["sweep"] == "length"]
    return [
        "# How fast the enumeration is",
        f"Written by {where}.",
        "Seconds are the median of the runs, from the call to the finished catalogue, formulas and "
        "dominance included; memory is that of all processes together. *Covered*: parameter "
        "choices that the search decided; *looked at*: pairs of halves that it compared one by "
        "one. Every row is exact: all choices decided, minima proven.",
        "## By width: all compositions to length 6",
        _table(
            ["C", "seconds", "aim", "MiB", "survivors", "covered", "looked at", "yield"],
            [
                [
                    r["channels"],
                    r["median_s"],
                    TARGETS.get(r["channels"], ""),
                    r["peak_mib"],
                    r["survivors"],
                    r["choices_covered"],
                    r["choices_checked"],
                    _yield(r),
                ]
                for r in widths
            ],
        ),
        "![Time by width](enumerate-width.svg)",
        "## By length: C = 64",
        _table(
            [
                "length",
                "compositions",
                "seconds",
                "MiB",
                "words",
                "survivors",
                "covered",
                "looked at",
                "times the length before",
            ],
            [
                [
                    r["length"],
                    r["compositions"],
                    r["median_s"],
                    r["peak_mib"],
                    r["words_searched"],
                    r["survivors"],
                    r["choices_covered"],
                    r["choices_checked"],
                    round(r["median_s"] / before["median_s"], 1) if before else "",
                ]
                for before, r in zip([None, *lengths[:-1]], lengths, strict=True)
            ],
        ),
        "![Time by length](enumerate-length.svg)",
        "## Beside slower exact searches",
        "In turn, one process each, three times; the ratio is that of the medians. *Brute force* "
        "tries every parameter choice of every word with one spatial layer; *merged walk* goes "
        "through words forward and merges equal states.",
        _table(
            ["search", "C", "length", "its seconds", "ours", "ratio"],
            [
                [p["other"], p["channels"], p["length"], p["other_s"], p["halves_s"], p["ratio"]]
                for p in pairs
            ],
        ),
    ]


def _figures(out: Path, rows: Sequence[Row]) -> None:
    """Draw time by width and by length, each as SVG and PNG."""
    widths = [row for row in rows if row["sweep"] == "width"]
    lengths = [row for row in rows if row["sweep"] == "length"]
    points = [(r["channels"], r["median_s"]) for r in widths]
    _figure(
        out / "enumerate-width",
        {
            "powers of two": [p for p in points if p[0] & (p[0] - 1) == 0],
            "multiples of three": [p for p in points if p[0] % 3 == 0],
        },
        "width C (channels)",
        "All compositions to length 6",
        list(TARGETS.items()),
        base=2,
    )
    _figure(
        out / "enumerate-length",
        {"C = 64": [(r["length"], r["median_s"]) for r in lengths]},
        "longest composition (layers)",
        "All compositions of a length and below",
        [(8, 30.0), (10, 600.0)],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    columns = tuple(f">{name}" for name in header)
    return Table(columns, tuple(map(tuple, cells))).markdown("github").rstrip()


def _yield(row: Row) -> str:
    """Return how many choices were decided for one looked at, and how many of those were kept."""
    checked = max(1, row["choices_checked"])
    return f"{row['choices_covered'] / checked:,.0f} : 1 : {row['survivors'] / checked:.1e}"


def _figure(
    path: Path,
    series: Mapping[str, Sequence[tuple[int, float]]],
    label: str,
    title: str,
    aims: Sequence[tuple[int, float]],
    base: int | None = None,
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "ifspace", "font.size": 11}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
        for (name, points), style in zip(series.items(), ("o-", "s--"), strict=False):
            axes.plot(
                *zip(*points, strict=True),
                style,
                color="black",
                label=name,
                markerfacecolor="black" if style == "o-" else "white",
            )
        longest = max(x for points in series.values() for x, _ in points)
        inside = [aim for aim in aims if aim[0] <= longest]
        if inside:
            axes.plot(
                *zip(*inside, strict=True), "v", color="0.6", markersize=9, label="aim: below"
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        if base:
            axes.set_xscale("log", base=base)
            axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel(label)
        axes.set_ylabel("seconds")
        axes.set_title(title)
        axes.grid(visible=True, which="major", color="0.9")
        axes.legend(frameon=False)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=140)
        pyplot.close(figure)


if __name__ == "__main__":
    main()
