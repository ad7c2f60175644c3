"""Stages and chains: what they read, the definition, and what they refuse."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ifspace.errors import KernelError
from ifspace.kernels.chain.stages import Chain, Stage, gradient_of, reference, shuffled_channels
from ifspace.kernels.rpw.reference import forward
from ifspace.kernels.windows import windows_at


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_stages_of_the_kinds() -> None:
    x = random(2, 12, 7, 5)
    cases = [
        (Stage(12, 18, 12, 12), {}),
        (Stage(12, 18, 4, 4, "blocked"), {"groups": 3}),
        (Stage(12, 12, 1, 1, "blocked", 3, 2, 1), {"groups": 12, "stride": 2, "padding": 1}),
        (Stage(12, 6, 2, 2, "blocked", 5, 1, 2), {"groups": 6, "padding": 2}),
    ]
    for stage, options in cases:
        weight = random(stage.c_out, stage.fan_in, stage.kernel, stage.kernel)
        chain, bias = Chain((stage,)), random(stage.c_out)
        y = reference(x, weight.flatten(), bias, chain)
        torch.testing.assert_close(y, F.conv2d(x, weight, bias, **options))
        assert chain.shape_of(x.shape) == y.shape
    for order in ("rolling", "blocked"):
        weight = random(24, 6)
        y = reference(x, weight.flatten(), None, Chain((Stage(12, 24, 6, 4, order),)))
        torch.testing.assert_close(y, forward(x, weight, None, windows_at(12, 24, 6, 4, order)))


def test_shuffles_residuals_and_activations() -> None:
    x, weight, bias = random(1, 12, 4, 4), random(12, 4), random(12)
    stage = Stage(12, 12, 4, 4, "blocked", 1, 1, 0, (2, 3), (4,), residual=0, activation="silu")
    shuffled = F.channel_shuffle(F.channel_shuffle(x, 2), 3)
    y = F.silu(F.conv2d(shuffled, weight[:, :, None, None], bias, groups=3) + x)
    got = reference(x, weight.flatten(), bias, Chain((stage,)))
    torch.testing.assert_close(got, F.channel_shuffle(y, 4))
    places = torch.arange(12.0).view(1, 12, 1, 1)
    assert shuffled_channels(12, (2, 3)).tolist() == (
        F.channel_shuffle(F.channel_shuffle(places, 2), 3).flatten().tolist()
    )
    assert np.array_equal(stage.rows[shuffled_channels(12, (4,))], np.arange(12))


def test_neighbouring_windows_share_what_all_of_them_read() -> None:
    """Each filter reads its channels in order, once; four at a time where the windows allow it."""
    for sizes, together, together_back in (
        ((64, 64, 16, 11), 3, 3),  # 64 windows of 16 channels, 13 of which four neighbours share
        ((64, 64, 32, 22, "blocked"), 3, 3),  # 32 windows of two filters
        ((64, 64, 4, 4), 4, 4),
        ((8, 8, 1, 1), 1, 1),
        ((64, 64, 4, 3), 1, 1),  # of four channels four neighbours share one
    ):
        stage = Stage(*sizes)
        read = [
            (int(filter_), family.channels[first : first + family.width].tolist())
            for family in stage.families
            for part in family.parts()
            for filter_, first in zip(family.filters[part], family.first[part], strict=True)
        ]
        assert sorted(read) == list(enumerate(stage.reads.tolist()))
        assert (stage.together, gradient_of(stage).together) == (together, together_back)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(KernelError, match="windows do not divide"):
        Stage(12, 12, 5, 5)
    with pytest.raises(KernelError, match="activation of a stage out of range"):
        Stage(4, 4, 4, 4, activation="gelu")
    with pytest.raises(KernelError, match="shuffle_out of a stage out of range"):
        Stage(4, 4, 4, 4, shuffle_out=(3,))
    with pytest.raises(KernelError, match="stage 2 of a chain does not fit"):
        Chain((Stage(4, 8, 4, 4), Stage(4, 4, 4, 4)))
    with pytest.raises(KernelError, match="a chain without a stage"):
        Chain(())
    with pytest.raises(KernelError, match="does not fit the input"):
        Chain((Stage(4, 4, 4, 4, kernel=5),)).shape_of((1, 4, 3, 3))
