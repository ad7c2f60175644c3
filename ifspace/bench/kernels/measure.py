"""The candidates of a case, timed in turn; those that cannot run say why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import torch

from ifspace.bench.clock import Limits, captured, first_call, interleaved
from ifspace.bench.kernels.candidates import BASELINE, OURS, Candidate, named
from ifspace.bench.kernels.cases import Case
from ifspace.bench.kernels.gate import Inputs, compare, inputs, leaves, own, run
from ifspace.bench.kernels.rivals import Tensors
from ifspace.bench.kernels.rows import Timed
from ifspace.bench.machine import precision
from ifspace.bench.rows import FORWARD

# Both passes take about three times a forward pass.
BOTH_TO_FORWARD: Final = 3
# On CUDA a layer takes some microseconds, less than its launches: it is replayed from a graph,
# unless it holds so much that a graph's own memory would crowd out the others.
MOST_CAPTURED: Final = 2**32
# The candidate, through the gate itself, that others are compared with at full size.
WITNESS: Final = "dense with zeros"
# A target asks for its forward pass, however slow.
ASKED: Final = ("published",)


def nowhere(case: Case) -> bool:
    """Return False: torch.compile is timed in no case."""
    return False


@dataclass(frozen=True, slots=True)
class Bench:
    """What all cases share. `taken_s` remembers how long the calls of a candidate took."""

    candidates: Sequence[Candidate]
    device: torch.device
    most_bytes: float
    limits: Limits = field(default_factory=Limits)
    compile_in: Callable[[Case], bool] = nowhere
    taken_s: dict[tuple[str, Case], float] = field(default_factory=dict)


@dataclass(slots=True)
class _Entry:
    """A candidate under way: why it is not run, or what to call, and its first call."""

    candidate: Candidate
    note: str = ""
    reason: str = ""
    call: Callable[[], Any] | None = None
    first_s: float = 0.0
    found: Tensors = ()


def measure(case: Case, bench: Bench) -> list[Timed]:
    """Return the times of every candidate for a case, or why there are none.

    What may choose another way at full size than on the gate's few pixels, ours and what
    torch.compile makes, is compared there with a candidate that cannot.

    Raises: WrongCandidateError when one of those differs.
    """
    precision(case.dtype)
    given = inputs(case, bench.device)
    chosen = named(bench.candidates, case.kind)
    entries = [_entry(each, case, given, bench) for each in chosen]
    found = {each.candidate.name: each.found for each in entries if each.found}
    for each in entries:
        name = each.candidate.name
        if WITNESS in found and name in found and name != WITNESS:
            limits = [_limit(case)] * len(found[name])
            compare(name, case, found[name], found[WITNESS], limits)
        each.found = ()
    found.clear()
    calls = {each.candidate.name: each.call for each in entries if each.call is not None}
    first_s = {each.candidate.name: each.first_s for each in entries}
    always = (OURS, BASELINE[case.kind])
    times = interleaved(calls, first_s, bench.limits, bench.device, always)
    for name, seconds in times.items():
        bench.taken_s[name, case] = min(seconds)
    return [
        Timed(each.candidate, each.note, tuple(times.get(each.candidate.name, ())), each.reason)
        for each in entries
    ]


def _entry(candidate: Candidate, case: Case, given: Inputs, bench: Bench) -> _Entry:
    """Return a candidate after its first call, or with the reason why there is none."""
    entry = _Entry(candidate, reason=_refusal(candidate, case, bench))
    if entry.reason:
        return entry
    try:
        if candidate.compiled:
            torch.compiler.reset()
        way = candidate.build(case, bench.device)
        entry.note = way.note
        kept, asked = leaves(way, given, case.both_ways)
        call = partial(run, way, kept, asked, case.both_ways)
        entry.first_s, found = first_call(call, bench.device)
        if candidate.compiled or bench.device.type == "cuda":
            # The first call has compiled, or chosen an algorithm.
            entry.first_s, found = first_call(call, bench.device)
        if candidate.name in (OURS, WITNESS) or candidate.compiled:
            entry.found = own(way, found)
        graph = bench.device.type == "cuda" and candidate.bytes_needed(case) < MOST_CAPTURED
        entry.call = captured(call, bench.device) if graph else call
    except (RuntimeError, MemoryError) as error:
        entry.found, entry.call = (), None
        entry.reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.120}"
        return entry
    return entry


def _refusal(candidate: Candidate, case: Case, bench: Bench) -> str:
    refusal = candidate.refusal(case, bench.device, bench.most_bytes)
    if refusal:
        return refusal
    if candidate.compiled and not bench.compile_in(case):
        return "compiled in some cases only, for time"
    asked = candidate.name in (OURS, BASELINE[case.kind]) or (
        candidate.name in ASKED and not case.both_ways
    )
    limit_s = bench.limits.asked_s if asked else bench.limits.most_s
    expected_s = _expected_s(candidate, case, bench)
    if expected_s > limit_s:
        return f"about {expected_s:.0f} s a call, over the limit of {limit_s:.0f} s"
    return ""


def _expected_s(candidate: Candidate, case: Case, bench: Bench) -> float:
    """Return about how long a call takes, by the forward pass and by batch 1; 0 if not known."""
    taken = bench.taken_s.get
    one, forward = replace(case, batch=1), replace(case, mode=FORWARD)
    return max(
        case.batch * taken((candidate.name, one), 0.0),
        case.both_ways * BOTH_TO_FORWARD * taken((candidate.name, forward), 0.0),
    )


def _limit(case: Case) -> float:
    """Return how far two right answers differ: a few roundings, and a sum over all pixels."""
    return 4 * case.rounding + float(torch.finfo(torch.float32).eps * case.pixels**0.5)
