"""Chains in one pass over tiles, against their definition in float64."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import product

import pytest
import torch

from ifspace.kernels.chain import loops, tiles
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
    "DW, other paddings": (
        Stage(16, 16, 1, 1, "blocked", 3, 1, 2),
        Stage(16, 16, 4, 4),
        Stage(16, 16, 1, 1, "blocked", 3, 1, 0, residual=0),
    ),
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


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_depthwise_layers_see_the_edges_of_an_image(
    kernel: int, layout: torch.memory_format
) -> None:
    """Behind and before every channel lies one of NaN, of which nothing may be read."""
    generator = torch.Generator().manual_seed(1)
    for padding, width, height in product(range(kernel), range(1, 27), (1, 4, 9)):
        if min(width, height) + 2 * padding < kernel:
            continue
        chain = Chain((Stage(9, 9, 1, 1, "blocked", kernel, 1, padding),))
        x = torch.randn(1, 9, height, width, generator=generator)
        weights = torch.randn(chain.weights, generator=generator)
        expected = reference(x.double(), weights.double(), None, chain)[:, ::2]
        x[:, 1::2] = torch.nan
        y = run(x.contiguous(memory_format=layout), weights, None, chain)[:, ::2]
        error = (y - expected).abs().max() / expected.abs().max()
        assert error < 2e-6, (padding, width, height, float(error))


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


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SCRATCH_BYTES", "NCHW_BYTES"):
        monkeypatch.setattr(tiles, name, 48 << 10)
    tiles.plan_for.cache_clear()
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    tiles.plan_for.cache_clear()


# The tensors fill a page of memory; an access to the pages around it ends the process.
PAGES = """
import ctypes, mmap, torch
from ifspace.kernels.chain.stages import Chain, Stage
from ifspace.kernels.chain.tiles import run

size, protect = mmap.PAGESIZE, ctypes.CDLL(None).mprotect
memory = mmap.mmap(-1, 3 * size)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
x = torch.frombuffer(memory, dtype=torch.float32, count=size // 4, offset=size).view(1, 4, 16, -1)
for page in (0, 2):
    assert protect(ctypes.c_void_p(start + page * size), ctypes.c_size_t(size), 0) == 0
depthwise, wide = (Stage(4, 4, 1, 1, "blocked", k, 1, k // 2) for k in (3, 5))
pointwise = Stage(4, 4, 2, 2)
for stages in (
    (depthwise,), (wide,), (pointwise, depthwise), (depthwise, pointwise, depthwise), (wide, wide)
):
    chain = Chain(stages)
    run(x, torch.ones(chain.weights), None, chain)
print("inside")
"""


def test_nothing_outside_the_input_is_read() -> None:
    command = [sys.executable, "-c", PAGES]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout == "inside\n", answer.stderr


KEEPING = {
    "ShuffleNet": (
        Stage(16, 16, 4, 4, "blocked", shuffle_out=(4,), activation="relu"),
        depthwise(16),
        Stage(16, 16, 4, 4, "blocked", residual=0),
    ),
    "last": (Stage(16, 16, 2, 2), Stage(16, 16, 4, 4, "blocked"), depthwise(16, kernel=5)),
    "stride 2": (Stage(16, 16, 4, 4), Stage(16, 8, 8, 8), depthwise(8, 2)),
    "a residual inside": (
        Stage(16, 16, 4, 4, activation="relu6"),
        Stage(16, 16, 4, 4, "blocked", 3, 1, 1),
        Stage(16, 16, 4, 4, residual=1),
    ),
}


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_tile_keeps_rows_of_the_one_above(name: str, layout: torch.memory_format) -> None:
    """One thread keeps them for all tiles of an image, two for fewer: the bits are the same."""
    chain = Chain(KEEPING[name])
    x = torch.randn(2, 16, 41, 23)
    x[1, 3, 20, 11] = torch.nan
    x = x.contiguous(memory_format=layout)
    weights, biases = torch.randn(chain.weights), torch.randn(chain.biases)
    expected = reference(x.double(), weights.double(), biases.double(), chain)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        is_last = layout == torch.channels_last
        plan = tiles.plan_for(chain, 2, 41, 23, threads, channels_last=is_last)
        assert plan.tiles > 2
        assert plan.stages[:, loops.KEPT].any()
        results.append(run(x, weights, biases, chain))
    for result in results:
        assert torch.equal(result.isnan(), expected.isnan())
        assert torch.equal(result.nan_to_num(), results[0].nan_to_num())
        torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4, equal_nan=True)
