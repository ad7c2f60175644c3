"""Nothing wrong passes the gate: a wrong channel, order, gradient, shape or nan."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ifspace.bench.kernels.candidates import OURS, Candidate, candidates
from ifspace.bench.kernels.cases import FUSED, Case
from ifspace.bench.kernels.gate import WrongCandidateError, check, distance, inputs
from ifspace.bench.kernels.rivals import Way, zeros
from ifspace.bench.rows import (
    BOTH_WAYS,
    LAYOUTS,
)
from ifspace.kernels.windows import dense_weight

CPU = torch.device("cpu")
CASE = Case(4, 16, 9, 4, "1/2", mode=BOTH_WAYS)


def spoilt(change: Callable[[Tensor], Tensor]) -> Candidate:
    def build(case: Case, device: torch.device) -> Way:
        way = zeros(case, device)
        return replace(way, forward=lambda x, weight: change(way.forward(x, weight)))

    return Candidate("spoilt", "test", build)


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad.roll(1, 1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_candidates_pass(layout: str, dtype: str) -> None:
    every = candidates("reference", True)
    for case in (CASE, replace(CASE, groups=8), replace(CASE, kind=FUSED)):
        check(every, replace(case, layout=layout, dtype=dtype), CPU)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda y: y.roll(1, 1), "output"),
        (lambda y: y * 1.001, "output"),
        (lambda y: y.index_fill(1, torch.tensor([3]), torch.nan), "output"),
        (lambda y: y[:, :-1], "output"),
        (WrongBackward.apply, "gradient by x"),
        (lambda y: y.detach() + 0 * y, "gradient by x"),
    ],
)
def test_a_wrong_candidate_is_named(change: Callable[[Tensor], Tensor], what: str) -> None:
    message = rf"^spoilt is wrong in RPW\(4,1/2\) 2x16x7 channels_last fp32: got {what} of shape"
    with pytest.raises(WrongCandidateError, match=message) as caught:
        check([*candidates("reference", False), spoilt(change)], CASE, CPU)
    assert "\n" not in str(caught.value)


def test_a_wrong_weight_gradient_is_named() -> None:
    def build(case: Case, device: torch.device) -> Way:
        return replace(zeros(case, device), give=lambda grads: (grads[0] * 1.01,))

    with pytest.raises(WrongCandidateError, match="got gradient by weight"):
        check([Candidate(OURS, "test", build)], CASE, CPU)


def test_what_is_no_rpw_or_cannot_run_is_not_judged() -> None:
    wrong = spoilt(lambda y: y + 1)
    check([replace(wrong, exact=False), replace(wrong, cuda_only=True)], CASE, CPU)


def test_inputs_fit_the_case_and_are_the_same_every_time() -> None:
    given, again = inputs(CASE, CPU), inputs(CASE, CPU)
    assert torch.equal(given.x, again.x)
    assert given.x.is_contiguous(memory_format=torch.channels_last)
    assert given.grad.stride() == given.x.stride()
    y = dense_weight(given.weights[0], CASE.width, CASE.windows.step) @ given.x.flatten(2)
    assert 0.7 < float(y.std() / given.x.std()) < 1.4


def test_the_distance_is_relative_and_nan_is_not_near() -> None:
    assert distance(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert not distance(torch.tensor([torch.nan]), torch.ones(1)) <= 1e9
