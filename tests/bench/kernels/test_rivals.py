"""Every rival that computes RPW does so: against a loop over filters in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ifspace.bench.kernels.candidates import OURS, Candidate, candidates, named
from ifspace.bench.kernels.cases import RPW, Case
from ifspace.bench.kernels.gate import Inputs, inputs, leaves, own, run
from ifspace.bench.rows import (
    BOTH_WAYS,
    LAYOUTS,
)
from ifspace.kernels.tensors import is_channels_last

CPU = torch.device("cpu")
EXACT = [
    each
    for each in named(candidates("reference", False), RPW)
    if each.exact and not each.cuda_only and each.name != OURS
]
# One filter a window, two a window, windows that wrap, no overlap.
WINDOWS = [(12, 4, "0.33"), (16, 4, "1/2"), (16, 8, "1/2"), (8, 2, "0"), (10, 2, "0.9")]


def by_filter(case: Case, x: Tensor, weight: Tensor) -> Tensor:
    windows = case.windows
    planes = []
    for j in range(windows.out_channels):
        read = [(j * windows.step + t) % windows.in_channels for t in range(windows.width)]
        planes.append(sum(weight[j, t] * x[:, c] for t, c in enumerate(read)))
    return torch.stack(planes, 1)  # type: ignore[arg-type]


def exact(given: Inputs) -> Inputs:
    return given.to(torch.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("width", "groups", "overlap"), WINDOWS)
@pytest.mark.parametrize("rival", EXACT, ids=lambda each: each.name)
def test_a_rival_is_the_layer(
    rival: Candidate, width: int, groups: int, overlap: str, layout: str
) -> None:
    case = Case(2, width, 3, groups, overlap, layout, BOTH_WAYS)
    given = exact(inputs(case, CPU))
    x, weight = given.x.clone().requires_grad_(), given.weights[0].clone().requires_grad_()
    y = by_filter(case, x, weight)
    wanted = (y, *torch.autograd.grad(y, (x, weight), given.grad))

    way = rival.build(case, CPU)
    kept, asked = leaves(way, given, both_ways=True)
    found = run(way, kept, asked, both_ways=True)
    found = own(way, found)
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run(way, kept, asked, both_ways=False)[0], wanted[0])
    assert is_channels_last(found[0]) == (layout == "channels_last")


def test_the_layers_it_is_compared_with_have_their_own_weights() -> None:
    case = Case(2, 16, 3, 4, "1/2")
    given = inputs(case, CPU)
    every = {each.name: each for each in named(candidates("reference", False), RPW)}
    weights = {}
    for name in ("dense", "grouped"):
        way = every[name].build(case, CPU)
        kept, asked = leaves(way, given, both_ways=False)
        weights[name] = kept[0].numel()
        assert run(way, kept, asked, both_ways=False)[0].shape == given.x.shape
    assert weights == {"dense": 16 * 16, "grouped": 16 * 4}


def test_the_wrong_order_of_output_channels_is_seen() -> None:
    case = Case(2, 16, 3, 4, "1/2", mode=BOTH_WAYS)
    given = inputs(case, CPU)
    published = next(each for each in EXACT if each.name == "published").build(case, CPU)
    kept, asked = leaves(replace(published, keep=lambda given: given), given, False)
    found = run(published, kept, asked, both_ways=False)[0]
    assert not torch.allclose(found, by_filter(case, given.x, given.weights[0]))
