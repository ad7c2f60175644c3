"""Chains in one pass over tiles, against their definition in float64."""

from itertools import product

import pytest
import torch

from ifspace.kernels.chain.stages import Chain, Stage, reference
from ifspace.kernels.chain.tiles import run


def depthwise(channels: int, stride: int = 1, kernel: int = 3, **options: object) -> Stage:
    return Stage(channels, channels, 1, 1, "blocked", kernel, stride, kernel // 2, **options)  # type: ignore[arg-type]


CHAINS = {
    "RPW(4,0)": (Stage(16, 16, 4, 4),),
    "PW": (Stage(16, 24, 16, 16),),
    "PW, other sizes": (Stage(7, 13, 7, 7, activation="relu"),),
    "DW": (depthwise(16),),
    "DW, stride 2": (depthwise(16, 2),),
    "GC, stride 1 and 2": (
        Stage(16, 32, 8, 8, "blocked", 3, 1, 1),
        Stage(32, 8, 16, 16, "blocked", 3, 2, 1),
    ),
    "overlaps, both orders": (Stage(16, 12, 8, 8, "blocked"), Stage(12, 16, 4, 3)),
    "a residual block": (
        depthwise(16),
        Stage(16, 16, 4, 4),
        Stage(16, 16, 4, 2, "blocked", shuffle_in=(4,), residual=0, activation="relu"),
    ),
    "spatial layers inside": (
        Stage(16, 16, 4, 4, shuffle_out=(2,)),
        depthwise(16, activation="silu"),
        Stage(16, 16, 4, 4),
        depthwise(16, kernel=5),
        Stage(16, 16, 4, 4, residual=0, activation="hardswish"),
    ),
    "a projection": (
        Stage(16, 32, 16, 16, stride=2),
        Stage(16, 16, 1, 1, "blocked", 3, 2, 1, source=0),
        Stage(16, 32, 4, 4, "blocked", residual=1, activation="relu6", shuffle_out=(4,)),
    ),
    "a bottleneck": (
        depthwise(16, kernel=5),
        depthwise(16),
        Stage(16, 48, 16, 16),
        Stage(48, 16, 48, 48),
    ),
    "values that nothing reads": (
        depthwise(16),
        Stage(16, 24, 16, 16, activation="relu"),
        Stage(24, 8, 24, 24),
        depthwise(16, 2, source=1),
        Stage(16, 16, 1, 1, "blocked", 3, 1, 1, source=0, residual=1, activation="relu6"),
    ),
    "a projection that nothing reads": (
        Stage(16, 24, 16, 16),
        Stage(16, 12, 4, 4, source=0),
    ),
    "no padding": (Stage(16, 16, 1, 1, "blocked", 2), Stage(16, 16, 2, 2)),
}
SIZES = ((2, 2), (2, 7), (5, 3), (7, 7), (13, 17), (16, 16), (3, 40), (31, 29))


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("images", [1, 3])
def test_a_chain_computes_its_definition(name: str, images: int) -> None:
    chain = Chain(CHAINS[name])
    generator = torch.Generator().manual_seed(1)
    for height, width in SIZES:
        shape = (images, chain.stages[0].c_in, height, width)
        x, weights = (torch.randn(size, generator=generator) for size in (shape, chain.weights))
        biases = torch.randn(chain.biases, generator=generator) if images == 1 else None
        y = run(x, weights, biases, chain)
        exact = None if biases is None else biases.double()
        expected = reference(x.double(), weights.double(), exact, chain)
        error = (y - expected).abs().max() / expected.abs().max()
        assert y.shape == expected.shape
        assert error < 2e-6, (height, width, float(error))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types_and_layouts(name: str, dtype: torch.dtype) -> None:
    chain = Chain(CHAINS[name])
    generator = torch.Generator().manual_seed(1)
    for (height, width), layout in product(SIZES, (torch.contiguous_format, torch.channels_last)):
        shape = (3, chain.stages[0].c_in, height, width)
        x, weights = (torch.randn(size, generator=generator) for size in (shape, chain.weights))
        x = x.to(dtype).contiguous(memory_format=layout)
        y = run(x, weights, None, chain)
        expected = reference(x.double(), weights.double(), None, chain)
        error = (y - expected).abs().max() / expected.abs().max()
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=layout) or 1 in (height, width)
        assert error < (2e-6 if dtype == torch.float32 else 0.51 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["spatial layers inside", "a projection"])
def test_tiles_that_overlap_have_the_same_bits_in_any_number_of_threads(name: str) -> None:
    chain, generator = Chain(CHAINS[name]), torch.Generator().manual_seed(1)
    x, weights = (
        torch.randn(size, generator=generator) for size in ((3, 16, 65, 38), chain.weights)
    )
    before = torch.get_num_threads()
    results = set()
    for threads in (1, 2, 3, 2, 3):
        torch.set_num_threads(threads)
        results.add(run(x, weights, None, chain).numpy().tobytes())
    torch.set_num_threads(before)
    assert len(results) == 1
