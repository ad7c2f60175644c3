"""What is timed, what is not, and why."""

from dataclasses import replace

import pytest
import torch

from ifspace.bench.clock import Limits
from ifspace.bench.kernels.candidates import COMPILED, OURS, Candidate, candidates, named
from ifspace.bench.kernels.cases import RPW, Case
from ifspace.bench.kernels.gate import WrongCandidateError
from ifspace.bench.kernels.measure import Bench, measure
from ifspace.bench.kernels.rivals import Way, zeros
from ifspace.bench.rows import (
    BOTH_WAYS,
    FORWARD,
)

CPU = torch.device("cpu")
CASE = Case(2, 16, 5, 4, "1/2")
LIMITS = Limits(budget_s=0.0, least=3, most=5)
EVERY = candidates("reference", True)


def test_every_candidate_has_times_or_a_reason() -> None:
    timed = measure(CASE, Bench(EVERY, CPU, 1e12, LIMITS))
    assert [each.candidate.name for each in timed] == [
        "ours",
        "dense",
        "dense with zeros",
        "dense with zeros, packed",
        "grouped",
        "batched product",
        "per window",
        "published",
        "gather + einsum",
        "direct",
        "compiled dense with zeros",
        "compiled dense with zeros, packed",
        "compiled batched product",
        "compiled per window",
        "compiled published",
        "compiled gather + einsum",
    ]
    for each in timed:
        assert bool(each.seconds) != bool(each.reason)
        assert not each.seconds or len(each.seconds) == 3
        if each.candidate.name.startswith(COMPILED):
            assert each.reason == "compiled in some cases only, for time"
    direct = next(each for each in timed if each.candidate.name == "direct")
    assert direct.reason == "a Triton kernel, for CUDA only"


def test_what_does_not_fit_into_memory_is_not_tried() -> None:
    case = Case(2, 64, 5, 4, "0.33")
    timed = measure(case, Bench(EVERY, CPU, 200_000, LIMITS))
    reasons = {each.candidate.name: each.reason for each in timed}
    assert reasons["published"].startswith("it needs 0 GiB of ")
    assert not reasons["dense"]


def test_memory_is_counted_with_every_window_and_its_copy() -> None:
    published = next(each for each in EVERY if each.name == "published")
    case = Case(128, 256, 28, 4, "0.33")
    layer, spread = 128 * 256 * 28 * 28, 128 * 28 * 28 * 256 * 64
    assert published.bytes_needed(case) == 4 * (2 * layer + 2 * spread)
    both_ways = replace(case, mode=BOTH_WAYS, dtype="bf16")
    assert published.bytes_needed(both_ways) == 2 * (5 * layer + 3 * spread)


@pytest.mark.parametrize(
    ("name", "known", "seconds", "case", "expected"),
    [
        ("per window", CASE, 2.0, replace(CASE, mode=BOTH_WAYS), 6),
        ("per window", replace(CASE, batch=1), 2.5, CASE, 5),
        ("published", replace(CASE, batch=1), 2.5, CASE, 0),
        ("published", CASE, 2.5, replace(CASE, mode=BOTH_WAYS), 8),
        ("ours", CASE, 2.5, replace(CASE, mode=BOTH_WAYS), 0),
        ("published", replace(CASE, batch=1), 35.0, CASE, 70),
    ],
)
def test_what_would_take_too_long_is_not_called(
    name: str, known: Case, seconds: float, case: Case, expected: int
) -> None:
    bench = Bench(named(EVERY, RPW), CPU, 1e12, LIMITS)
    bench.taken_s[name, known] = seconds
    reasons = {each.candidate.name: each.reason for each in measure(case, bench)}
    limit_s = 60 if case.mode == FORWARD and name == "published" else 4
    reason = f"about {expected} s a call, over the limit of {limit_s} s" if expected else ""
    assert reasons[name] == reason
    assert not reasons["grouped"]


def test_times_are_remembered() -> None:
    bench = Bench(EVERY, CPU, 1e12, LIMITS)
    timed = {each.candidate.name: each for each in measure(CASE, bench)}
    assert bench.taken_s["dense", CASE] == min(timed["dense"].seconds)


def test_a_failure_is_a_reason_not_an_end() -> None:
    def build(case: Case, device: torch.device) -> Way:
        raise RuntimeError("no such engine\nand more")

    failing = Candidate("failing", "test", build, exact=False)
    *_, last = measure(CASE, Bench([*EVERY[:3], failing], CPU, 1e12, LIMITS))
    assert (last.reason, last.seconds) == ("RuntimeError: no such engine", ())


@pytest.mark.parametrize("mode", [FORWARD, BOTH_WAYS])
def test_ours_is_compared_at_full_size_too(mode: str) -> None:
    def build(case: Case, device: torch.device) -> Way:
        way = zeros(case, device)
        return Way(lambda x, weight: way.forward(x, weight) * (1 + (case.batch > 2) * 1e-3))

    wrong_when_large = Candidate(OURS, "test", build)
    bench = Bench([wrong_when_large, *EVERY[1:3]], CPU, 1e12, LIMITS)
    measure(replace(CASE, mode=mode), bench)
    with pytest.raises(WrongCandidateError, match=r"^ours is wrong in .* 3x16x5"):
        measure(replace(CASE, mode=mode, batch=3), bench)


def test_the_windows_that_torch_compile_unrolls_are_few() -> None:
    unrolled = next(each for each in EVERY if each.name == "compiled published")
    many = Case(1, 512, 14, 4, "0.33")
    assert unrolled.refusal(many, CPU, 1e12) == "more than 32 windows to unroll"
    assert unrolled.refusal(replace(many, mode=BOTH_WAYS), CPU, 1.0)
