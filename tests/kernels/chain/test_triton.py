"""Chains on a card: one kernel for whole blocks against the definition in float64."""

from dataclasses import replace

import pytest
import torch
from devices import only_on_a_card

from ifspace.errors import KernelError
from ifspace.kernels.chain import triton as card
from ifspace.kernels.chain.operator import convolution_chain
from ifspace.kernels.chain.stages import Chain, Stage, reference
from ifspace.kernels.launch import HALF
from ifspace.nn import MOBILENET, PLAIN, build, fuse

pytestmark = pytest.mark.usefixtures("one_thread", "unwritten_is_nan")

TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def depthwise(channels: int, stride: int = 1, kernel: int = 3, **options) -> Stage:
    return Stage(channels, channels, 1, 1, "blocked", kernel, stride, kernel // 2, **options)


# Residuals, strides, kernels, orders, shuffles, expansions; channels that fill no tile.
CHAINS = {
    "DW and a tail": (
        depthwise(24),
        Stage(24, 24, 4, 2),
        Stage(24, 24, 4, 4),
        Stage(24, 24, 8, 8, "blocked"),
    ),
    "stride 2, activations": (
        depthwise(20, 2, activation="relu"),
        Stage(20, 28, 5, 5, activation="silu"),
        Stage(28, 28, 7, 7, "blocked"),
    ),
    "inverted residual": (
        Stage(12, 40, 12, 12, activation="relu6"),
        depthwise(40, activation="hardswish"),
        Stage(40, 12, 40, 40, residual=0),
    ),
    "grouped 3x3": (Stage(16, 16, 4, 4, "blocked", 3, 1, 1), Stage(16, 16, 4, 4)),
    "grouped 3x3 of stride 2 last": (
        Stage(16, 16, 4, 3),
        Stage(16, 32, 4, 4, "blocked", 3, 2, 1, activation="relu"),
    ),
    "pointwise alone": (
        Stage(16, 16, 4, 4, residual=0, activation="relu"),
        Stage(16, 20, 4, 4),
    ),
    "DW last": (Stage(16, 16, 4, 4), depthwise(16, residual=0, activation="relu")),
    "DW alone": (depthwise(10, kernel=5, stride=2),),
    "shuffles": (
        depthwise(12, shuffle_in=(3,), shuffle_out=(2,), activation="silu"),
        Stage(12, 12, 4, 4, "blocked", shuffle_in=(4,), shuffle_out=(3,)),
    ),
    "1x1 of stride 2": (Stage(16, 32, 16, 16, "blocked", 1, 2, 0),),
}


def tensors(chain: Chain, device, dtype, shape=(2, 7, 5), biases=True):
    count, height, width = shape
    x = torch.randn(count, chain.stages[0].c_in, height, width, device=device)
    x = x.to(dtype, memory_format=torch.channels_last)
    weights = torch.randn(chain.weights, device=device) / 2
    return x, weights, torch.randn(chain.biases, device=device) if biases else None


def error_of(y, x, weights, biases, chain) -> float:
    """The error, relative to the norm of what float64 gives."""
    flat = [None if t is None else t.double().cpu() for t in (x, weights, biases)]
    exact = reference(*flat, chain)
    assert y.shape == exact.shape
    return float((y.double().cpu() - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    "dtype", [torch.float32, *(pytest.param(t, marks=pytest.mark.slow) for t in HALF)], ids=str
)
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_in_one_kernel(name, dtype, device) -> None:
    chain = Chain(CHAINS[name])
    for shape, biases in (((2, 7, 5), True), ((1, 1, 3), False)):
        arguments = tensors(chain, device, dtype, shape, biases)
        assert card.obstacle(arguments[0], chain) is None
        y = card.run(*arguments, chain, fp32="ieee")
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert error_of(y, *arguments, chain) < TOLERANCE[dtype]


@only_on_a_card
def test_a_kernel_that_is_wrong_on_this_card_is_not_used(device, monkeypatch) -> None:
    chain = Chain(CHAINS["pointwise alone"])
    arguments = tensors(chain, device, torch.float32)
    run = card.run
    monkeypatch.setattr(card, "run", lambda *arguments, **options: 1 + run(*arguments, **options))
    with pytest.warns(UserWarning, match="runs layer by layer on this card"):
        y = convolution_chain(*arguments, chain)
    assert error_of(y, *arguments, chain) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DW and a tail", "inverted residual", "grouped 3x3"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=only_on_a_card)], ids=str
)
def test_every_configuration(name, dtype, device) -> None:
    chain = Chain(CHAINS[name])
    arguments = tensors(chain, device, dtype, (1, 9, 9))
    kind = "half" if dtype == torch.bfloat16 else "ieee"
    configs = card.configurations(card.plan_of(chain), kind)
    assert {config.order for config in configs} == {"natural", "square"}
    for config in configs:
        y = card.run(*arguments, chain, fp32="ieee", config=config.name)
        assert error_of(y, *arguments, chain) < TOLERANCE[dtype], config.name


@pytest.mark.slow
def test_one_matrix_of_many_channels_is_split(device) -> None:
    chain = Chain((depthwise(80, activation="relu"), Stage(80, 130, 16, 16)))
    arguments = tensors(chain, device, torch.float32, (1, 3, 3))
    for config in card.configurations(card.plan_of(chain), "ieee"):
        y = card.run(*arguments, chain, fp32="ieee", config=config.name)
        assert error_of(y, *arguments, chain) < TOLERANCE[torch.float32], config.name


@pytest.mark.slow
@pytest.mark.parametrize("style", [PLAIN, MOBILENET], ids=["plain", "mobilenet"])
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_as_fuse_sees_them(style, stride, device) -> None:
    for text in (
        "DW+PW",
        "DW+RPW(4,0.5)+RPW(4,0)+GPW(4)",
        "DW+RPW(8,0.33)+GPW(2)",
        "GC(4)+RPW(4,0.5)",
        "RPW(4,0)+DW+GPW(4)",
        "GPW(4)+SH(4)+DW+GPW(4)",
        "CONV",
    ):
        block = build(text, 16, style=style, stride=stride).eval().to(device)
        for part in block.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(part.running_mean)
                torch.nn.init.uniform_(part.running_var, 0.5, 2)
                torch.nn.init.uniform_(part.bias)
        x = torch.randn(2, 16, 6, 7, device=device).to(memory_format=torch.channels_last)
        (segment,) = (part for part in fuse(block).segments if part.run is not None)
        folded = segment.run.fold()
        assert card.obstacle(x, segment.run.chain) is None, text
        y = card.run(x, folded.weights, folded.biases, segment.run.chain, fp32="ieee")
        with torch.no_grad():
            exact = block.double()(x.double())
        assert float((y - exact).norm() / exact.norm()) < 1e-5, text


def test_products_without_an_activation_between_are_one() -> None:
    tail = (Stage(24, 24, 4, 2), Stage(24, 24, 4, 4), Stage(24, 24, 8, 8, "blocked"))
    plan = card.plan_of(Chain((depthwise(24), *tail)))
    assert len(plan.after) == 1
    assert plan.is_split
    activated = [replace(stage, activation="relu") for stage in tail]
    assert len(card.plan_of(Chain((depthwise(24), *activated))).after) == 3


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ((depthwise(8), depthwise(8)), "one spatial convolution at a time, not 2"),
        ((Stage(8, 256, 8, 8), depthwise(256)), "it holds 128 channels, not 256"),
        ((depthwise(8, 2), Stage(8, 8, 8, 8), Stage(8, 8, 8, 8, residual=1)), "the input alone"),
        ((Stage(8, 8, 4, 4), Stage(8, 8, 4, 4, source=0)), "do not follow on each other"),
        ((depthwise(8, residual=0, shuffle_out=(2,)), Stage(8, 8, 4, 4)), "behind a shortcut"),
        ((depthwise(8, shuffle_out=(2,)),), "behind the last convolution"),
    ],
    ids=str,
)
def test_what_the_kernel_does_not_compute(stages, reason, device) -> None:
    chain = Chain(stages)
    assert reason in card.plan_of(chain)
    x = torch.randn(1, chain.stages[0].c_in, 4, 4, device=device)
    x = x.to(memory_format=torch.channels_last)
    assert reason in card.obstacle(x, chain)


def test_layouts_and_types_that_it_does_not_take(device) -> None:
    chain = Chain((depthwise(8),))
    x = torch.randn(2, 8, 4, 4, device=device)
    assert "channels_last" in card.obstacle(x, chain)
    assert "float64" in card.obstacle(x.double(), chain)


def test_weights_are_written_out_once_and_again_when_they_change(device) -> None:
    chain = Chain((depthwise(8), Stage(8, 8, 4, 4)))
    x, weights, biases = tensors(chain, device, torch.float32)
    plan = card.plan_of(chain)
    first = card.packed(weights, biases, chain, plan, x.dtype)
    assert card.packed(weights, biases, chain, plan, x.dtype) is first
    assert card.packed(weights, None, chain, plan, x.dtype).vectors is None
    weights.mul_(2)
    y = card.run(x, weights, biases, chain, fp32="ieee")
    assert error_of(y, x, weights, biases, chain) < TOLERANCE[torch.float32]


def test_an_empty_batch_and_an_unknown_configuration(device) -> None:
    chain = Chain((depthwise(8),))
    x, weights, biases = tensors(chain, device, torch.float32, (1, 2, 2))
    assert card.run(x[:0], weights, biases, chain).shape == (0, 8, 2, 2)
    with pytest.raises(KernelError, match="no such configuration of chain"):
        card.run(x, weights, biases, chain, config="1x1")


@only_on_a_card
def test_a_fused_block_on_a_card_is_one_launch(device) -> None:
    block = build("DW+RPW(16,0)+RPW(16,0)+GPW(16)", 64).eval().to(device).bfloat16()
    block = block.to(memory_format=torch.channels_last)
    fused = fuse(block)
    x = torch.randn(4, 64, 28, 28, device=device).bfloat16()
    x = x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        y, expected = fused(x), block(x)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            fused(x)
            torch.cuda.synchronize()
    names = [event.name for event in profile.events() if "Mem" not in event.name]
    assert len([name for name in names if "chain_kernel" in name]) == 1, names
    assert float((y - expected).float().norm() / expected.float().norm()) < 1e-2


@only_on_a_card
def test_a_chain_in_a_graph(device) -> None:
    """It is captured after a call; before one it says so, and the next capture works."""
    chain = Chain((depthwise(64), Stage(64, 64, 16, 16)))
    x, weights, biases = tensors(chain, device, torch.bfloat16, (2, 9, 9))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        with (
            pytest.raises(KernelError, match="a CUDA graph cannot hold the first call"),
            torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream),
        ):
            convolution_chain(x, weights, biases, chain)
        expected = convolution_chain(x, weights, biases, chain)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            y = convolution_chain(x, weights, biases, chain)
    y.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)


@only_on_a_card
def test_the_operator_takes_the_kernel_on_a_card(device) -> None:
    chain = Chain((depthwise(8), Stage(8, 8, 4, 4)))
    x, weights, biases = tensors(chain, device, torch.float32)
    y = convolution_chain(x, weights, biases, chain)
    assert error_of(y, x, weights, biases, chain) < TOLERANCE[torch.float32]
