"""The operator of chains as torch expects it, and the function around it."""

import subprocess
import sys
import threading

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from ifspace.errors import KernelError
from ifspace.kernels.chain.operator import (
    chain_decomposed,
    chain_operator,
    convolution_chain,
)
from ifspace.kernels.chain.stages import Chain, Stage, reference

# Every kind, shuffles on both sides, two paths and their sum, a stride, a kernel that rolls.
CHAIN = Chain(
    (
        Stage(12, 18, 12, 12, stride=2, activation="relu6"),
        Stage(12, 12, 1, 1, "blocked", 3, 2, 1, shuffle_in=(3,), source=0),
        Stage(12, 12, 4, 3, activation="silu", shuffle_out=(4,)),
        Stage(12, 24, 6, 4, "rolling", 5, 1, 2, activation="hardswish"),
        Stage(24, 18, 4, 4, "blocked", shuffle_out=(2, 3), residual=1, activation="relu"),
    )
)
DEEP = Chain((Stage(8, 8, 1, 1, "blocked", 3, 1, 1), Stage(8, 8, 4, 2, residual=0)))


def problem(chain: Chain, *sizes: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    shape = (sizes[0], chain.stages[0].c_in, *sizes[1:])
    return [torch.randn(s, dtype=dtype) for s in (shape, chain.weights, chain.biases)]


def close(y: Tensor, expected: Tensor, error: float = 1e-5) -> None:
    assert y.shape == expected.shape
    assert float((y.double() - expected).abs().max()) <= error * float(expected.abs().max())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "error"),
    [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 4e-3)],
)
def test_every_dtype_and_layout_against_the_definition(dtype, error, layout):
    x, weights, biases = problem(CHAIN, 2, 9, 7)
    x = x.to(dtype).to(memory_format=layout)
    weights, biases = weights.float(), biases.float()
    for bias in (biases, None):
        exact = reference(
            x.double(), weights.double(), None if bias is None else bias.double(), CHAIN
        )
        y = convolution_chain(x, weights, bias, CHAIN)
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=layout)
        close(y, exact, error)
        close(chain_operator(x, weights, bias, CHAIN.text), exact, error)


def test_written_out_it_is_the_definition():
    x, weights, biases = problem(CHAIN, 2, 8, 5)
    close(
        chain_decomposed(x, weights, biases, CHAIN.text),
        reference(x, weights, biases, CHAIN),
        1e-13,
    )
    close(chain_decomposed(x, weights, None, CHAIN.text), reference(x, weights, None, CHAIN), 1e-13)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 13), (3, 11, 1), (0, 4, 4), (1, 17, 19)])
def test_maps_of_every_size_and_no_image(sizes):
    x, weights, biases = problem(CHAIN, *sizes)
    y = convolution_chain(x.float(), weights.float(), biases.float(), CHAIN)
    exact = reference(x, weights.float().double(), biases.float().double(), CHAIN)
    assert y.shape == exact.shape
    if sizes[0]:
        close(y, exact)


def test_inputs_that_are_not_contiguous_or_are_expanded():
    x, weights, biases = (tensor.float() for tensor in problem(CHAIN, 2, 9, 10))
    wide = torch.randn(2, 24, 9, 20)
    for view in (
        wide[:, ::2, :, ::2],
        x.transpose(2, 3),
        x[:1].expand(3, -1, -1, -1),
        x[1:, :, 2:],
    ):
        y = convolution_chain(view, weights, biases, CHAIN)
        assert torch.equal(y, convolution_chain(view.contiguous(), weights, biases, CHAIN))


@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_only_the_channels_that_read_it(value):
    for chain in (CHAIN, DEEP):
        x, weights, biases = (tensor.float() for tensor in problem(chain, 1, 23, 19))
        x[0, 5, 4, 4] = value
        exact = reference(x.double(), weights.double(), biases.double(), chain)
        assert 0 < int(exact.isnan().sum() + exact.isinf().sum()) < exact.numel()
        y = convolution_chain(x, weights, biases, chain)
        assert torch.equal(y.isfinite(), exact.isfinite())
        torch.testing.assert_close(y.double(), exact, equal_nan=True, atol=1e-3, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_opcheck(dtype):
    x, weights, biases = problem(CHAIN, 2, 9, 7)
    for layout in (torch.contiguous_format, torch.channels_last):
        call = x.to(dtype).to(memory_format=layout), weights.float()
        torch.library.opcheck(chain_operator, (*call, biases.float(), CHAIN.text))
        torch.library.opcheck(chain_operator, (*call, None, CHAIN.text))


def test_parameters_of_every_type_and_stride():
    x, weights, biases = problem(CHAIN, 1, 9, 7)
    x, expected = x.float(), convolution_chain(x.float(), weights.float(), biases.float(), CHAIN)
    apart = weights.float().repeat_interleave(2)[::2], biases.float().expand(2, -1).t()[:, 0]
    assert torch.equal(convolution_chain(x, *apart, CHAIN), expected)
    close(convolution_chain(x, weights, biases, CHAIN), expected)
    close(convolution_chain(x, weights.bfloat16(), biases.bfloat16(), CHAIN), expected, 0.05)


def test_a_counter_counts_every_stage():
    x, weights, biases = (tensor.float() for tensor in problem(CHAIN, 2, 9, 7))
    with FlopCounterMode(display=False) as counter:
        convolution_chain(x, weights, biases, CHAIN)
    outputs = [(5, 4)] * 5
    by_hand = sum(
        2 * 2 * h * w * stage.weights for (h, w), stage in zip(outputs, CHAIN.stages, strict=True)
    )
    assert counter.get_total_flops() == by_hand


def test_autocast_gives_the_type_that_torch_would():
    x, weights, biases = (tensor.float() for tensor in problem(CHAIN, 1, 5, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolution_chain(x, weights, biases, CHAIN).dtype == torch.bfloat16
        x, weights, biases = (tensor.float() for tensor in problem(DEEP, 1, 5, 5))
        y = convolution_chain(x, weights, biases, DEEP)  # x itself is added
    assert y.dtype == torch.float32
    assert torch.equal(y, convolution_chain(x, weights, biases, DEEP))


def test_vmap_over_inputs_and_over_weights():
    x, weights, biases = (tensor.float() for tensor in problem(CHAIN, 6, 5, 5))

    def call(x: Tensor, weights: Tensor) -> Tensor:
        return convolution_chain(x, weights, biases, CHAIN)

    y = torch.func.vmap(call, (0, None))(x.unflatten(0, (3, 2)), weights)
    torch.testing.assert_close(y.flatten(0, 1), call(x, weights))
    both = torch.stack([weights, 2 * weights])
    y = torch.func.vmap(call, (None, 0))(x, both)
    torch.testing.assert_close(y[1], call(x, both[1]))


@pytest.mark.slow
def test_the_same_bits_for_any_number_of_threads():
    x, weights, biases = (tensor.float() for tensor in problem(CHAIN, 3, 33, 29))
    threads = torch.get_num_threads()
    expected = convolution_chain(x, weights, biases, CHAIN)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(convolution_chain(x, weights, biases, CHAIN), expected)
    finally:
        torch.set_num_threads(threads)
    outputs = [torch.empty(0)] * 8

    def call(n: int) -> None:
        outputs[n] = convolution_chain(x, weights, biases, CHAIN)

    workers = [threading.Thread(target=call, args=(n,)) for n in range(len(outputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(y, expected) for y in outputs)


def test_a_thread_may_forget_what_another_one_has_just_checked():
    class Forgetful(dict):
        def __setitem__(self, key, value):
            pass

    chain = Chain(DEEP.stages)
    x, weights, _ = problem(chain, 1, 5, 6, dtype=torch.float32)
    chain.__dict__["_checked"] = Forgetful()
    close(convolution_chain(x, weights, None, chain), reference(x, weights, None, chain))


def test_tensors_whose_memory_does_not_hold_their_numbers():
    chain = Chain((Stage(1, 1, 1, 1),))
    number, weight = torch.tensor([[[[2 + 3j]]]]), torch.ones(1)
    assert convolution_chain(number.imag, weight, None, chain).item() == 3  # the shape is known now
    assert convolution_chain(number.conj().imag, weight, None, chain).item() == -3
    for x in (number.imag.contiguous().to_sparse(), number.imag.contiguous().to_mkldnn()):
        with pytest.raises(KernelError, match="input is not dense"):
            convolution_chain(x, weight, None, chain)


def test_what_does_not_fit_is_refused():
    x, weights, biases = (tensor.float() for tensor in problem(CHAIN, 1, 5, 5))
    with pytest.raises(KernelError, match="input has the wrong number of channels"):
        convolution_chain(x[:, :4], weights, biases, CHAIN)
    with pytest.raises(KernelError, match="weights do not fit the chain"):
        convolution_chain(x, weights[1:], biases, CHAIN)
    with pytest.raises(KernelError, match="weights do not fit the chain"):
        chain_operator(x, weights[1:], biases, CHAIN.text)
    with pytest.raises(
        KernelError, match=r"weights do not fit .*: got \[\d+\] on meta; allowed: .* cpu"
    ):
        convolution_chain(x, weights.to("meta"), biases, CHAIN)
    with pytest.raises(KernelError, match="biases do not fit the chain"):
        convolution_chain(x, weights, biases[1:], CHAIN)
    with pytest.raises(KernelError, match="input is not of a floating type"):
        convolution_chain(x.long(), weights, biases, CHAIN)


@pytest.mark.parametrize("name", ["x", "weights", "biases"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_refused_not_lost(name, dtype):
    tensors = dict(zip(("x", "weights", "biases"), problem(CHAIN, 1, 5, 5), strict=True))
    tensors = {key: tensor.to(dtype) for key, tensor in tensors.items()}
    tensors[name].requires_grad_()
    with pytest.raises(KernelError, match=f"a chain has no derivatives: got {name} that require"):
        convolution_chain(**tensors, chain=CHAIN)
    with torch.no_grad():
        assert not convolution_chain(**tensors, chain=CHAIN).requires_grad


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_tangent_is_not_lost():
    x, weights, biases = (tensor.float() for tensor in problem(CHAIN, 1, 5, 5))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        with pytest.raises(KernelError, match="no forward-mode derivative"):
            convolution_chain(dual, weights, biases, CHAIN)


@pytest.mark.slow
def test_without_llvm_torch_computes_the_same():
    code = """
import sys, warnings
sys.modules["llvmlite"] = None
import torch
from ifspace.kernels.chain.operator import chain_operator, convolution_chain
from ifspace.kernels.chain.stages import Chain, Stage, reference
from ifspace.nn import build, fuse

chain = Chain((Stage(8, 8, 4, 2), Stage(8, 8, 2, 2, "blocked", 3, 1, 1, residual=0)))
x, weights = torch.randn(2, 8, 5, 4), torch.randn(chain.weights)
expected = reference(x, weights, None, chain)
for y in (
    convolution_chain(x, weights, None, chain),
    chain_operator(x, weights, None, chain.text),
):
    torch.testing.assert_close(y, expected)
block = build("DW+PW", 8).eval()
with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fused = fuse(block)
    assert torch.equal(fused(x), block(x))
    fused(x[:1])
print([str(warning.message) for warning in caught])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("a fused module runs layer by layer: it needs LLVM") == 1
    assert ended.stdout.count("', '") == 0
