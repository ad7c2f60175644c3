"""Bounds against numbers counted by hand and bytes of real tensors."""

import pytest
import torch

from ifspace.bench.kernels.bounds import bound_s, passes
from ifspace.bench.kernels.cases import FUSED, Case
from ifspace.bench.machine import (
    Rates,
    Work,
    measured_rates,
)
from ifspace.bench.rows import BOTH_WAYS

# A byte and an operation a second.
UNIT = Rates(1.0, {"fp32": 1.0, "bf16": 1.0})


def test_forward_reads_x_and_weights_and_writes_y() -> None:
    # x and y: 2 * 8 * 3 * 3 = 144 numbers; weights 8 * 4; each output of 4 products and sums.
    work = Work(moved=4 * (144 + 144 + 32), operations=2 * 144 * 4)
    assert passes(Case(2, 8, 3, 2, "1/2")) == (work,)
    assert passes(Case(2, 8, 3, 2, "1/2", dtype="bf16"))[0].moved == work.moved // 2


def test_backward_reads_x_again_and_does_twice_the_operations() -> None:
    forward, backward = passes(Case(2, 8, 3, 2, "1/2", mode=BOTH_WAYS))
    assert backward == Work(4 * (3 * 144 + 2 * 32), 2 * forward.operations)


def test_the_fused_block_moves_no_intermediate() -> None:
    plain, fused = (passes(Case(2, 8, 3, 2, "1/2", kind=kind))[0] for kind in ("RPW", FUSED))
    assert fused.moved - plain.moved == 4 * 9 * 8
    assert fused.operations - plain.operations == 2 * 144 * 9


def test_the_bytes_are_those_of_the_tensors() -> None:
    case = Case(2, 8, 3, 4, "0.33", mode=BOTH_WAYS)
    x = torch.empty(2, 8, 3, 3)
    weight = torch.empty(8, 2)
    forward, backward = passes(case)
    assert forward.moved == x.nbytes + weight.nbytes + x.nbytes
    assert backward.moved == 3 * x.nbytes + 2 * weight.nbytes


def test_the_bound_is_the_larger_of_both_times_pass_by_pass() -> None:
    case = Case(2, 8, 3, 2, "1/2", mode=BOTH_WAYS)
    bytes_only = Rates(1.0, {"fp32": 1e30})
    operations_only = Rates(1e30, {"fp32": 1.0})
    assert bound_s(case, bytes_only) == 4 * (5 * 144 + 3 * 32)
    assert bound_s(case, operations_only) == 3 * 2 * 144 * 4
    forward, backward = passes(case)
    assert bound_s(case, UNIT) == sum(max(p.moved, p.operations) for p in (forward, backward))


@pytest.mark.parametrize("dtypes", [["fp32"], ["fp32", "bf16"]])
def test_rates_are_measured_for_each_type(dtypes: list[str]) -> None:
    rates = measured_rates(torch.device("cpu"), dtypes, scale=1 / 32)
    assert list(rates.matrix) == dtypes
    assert min(rates.copy, *rates.matrix.values()) > 1e6
