"""Chains of convolutions: the public function, and the torch operator beneath it.

`convolution_chain` checks its input once for each shape and enters the engine at once where nothing
of torch has to see the call; under a mode, a compiler, a transform or tracing it calls
`torch.ops.ifspace.chain`, which has a fake kernel, a vmap rule and a FLOP formula, and whose text
argument is the chain. It has no derivatives: chains are for inference.

Programs that leave torch (ONNX) get the operator written out: `decompositions`.
"""

import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.flop_counter import register_flop_formula

from ifspace.errors import KernelError
from ifspace.kernels.chain import engine
from ifspace.kernels.chain.stages import ACTIVATIONS, Chain, Stage
from ifspace.kernels.rpw.operator import forward_modes, own_dtypes, rpw_decomposed, vmap_rule
from ifspace.kernels.tensors import (
    check_input,
    check_tensors,
    empty_in_layout,
    is_autocast,
    is_watched,
    shape_text,
)

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
MOST_STRIDE: Final = 2
# How far results of a card may lie apart, as a share of their norm; float32 may be in tf32 there.
MOST_APART: Final = {torch.float32: 1e-2, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# How many shapes of inputs a chain remembers as checked.
MOST_SHAPES: Final = 256


def convolution_chain(x: Tensor, weights: Tensor, biases: Tensor | None, chain: Chain) -> Tensor:
    """Return the result [N, C_out, H', W'] of a chain for x [N, C, H, W], in the layout of x.

    `weights`: of all stages, one after the other; `biases`: theirs, or None. The dtype is that of
    x; under autocast a chain computes in autocast's, but in the one that torch's promotion
    gives where it adds x itself to a stage. Sums are kept in float32. float64 and other devices
    than a CPU take torch's own operators. There are no derivatives.

    >>> chain = Chain((Stage(4, 2, 4, 4),))
    >>> convolution_chain(torch.ones(1, 4, 2, 2), torch.ones(8), None, chain)[0, :, 0]
    tensor([[4., 4.],
            [4., 4.]])

    Raises: KernelError for an input or weights that do not fit the chain, or a tensor with a
        tangent or, while gradients are recorded, one that requires them.
    """
    if torch.is_grad_enabled():
        _check_no_gradient(x=x, weights=weights, biases=biases)
    if is_autocast(x):
        x = as_under_autocast(x, chain)
    if is_watched(x):
        if not torch.compiler.is_compiling():
            check_chain(x, weights, biases, chain)
            check_no_forward_mode()
        y: Tensor = chain_operator(x, weights, biases, chain.text)
        return y
    checked: dict[Any, bool] = chain.__dict__.setdefault("_checked", {})
    looks = tuple((t.shape, t.dtype, t.device) for t in (x, weights, biases) if t is not None)
    key = (looks, x.stride()) if x.is_cuda else looks
    by_engine = checked.get(key)
    if by_engine is None:
        check_chain(x, weights, biases, chain)
        by_engine = obstacle(x, chain) is None
        if by_engine and x.is_cuda:
            by_engine = _agrees_on_card(x, weights, biases, chain)
        if len(checked) >= MOST_SHAPES:
            checked.clear()
        checked[key] = by_engine
    return _computed(x, weights, biases, chain, by_engine)


def _computed(
    x: Tensor, weights: Tensor, biases: Tensor | None, chain: Chain, by_engine: bool
) -> Tensor:
    """Return the result by the engine, or by torch's own operators."""
    if by_engine:
        weights = weights.float().contiguous()
        biases = None if biases is None else biases.float().contiguous()
        return run_chain(x, weights, biases, chain)
    y = chain_decomposed(x, weights, biases, chain.text)
    return empty_in_layout(x, tuple(y.shape)).copy_(y)


def _agrees_on_card(x: Tensor, weights: Tensor, biases: Tensor | None, chain: Chain) -> bool:
    """Return whether the kernel of a card computes what torch's operators do; warn if not.

    Asked once for each shape: what Triton compiles for a card that it was never tried on is not
    believed unseen.
    """
    y = _computed(x, weights, biases, chain, by_engine=True)
    if agree(y, _computed(x, weights, biases, chain, by_engine=False)):
        return True
    note = KernelError.because(
        "a fused block runs layer by layer on this card",
        got="other numbers from the kernel than from torch's operators",
        allowed=f"a relative difference of at most {MOST_APART[y.dtype]}",
        remedy="report the card, the versions of torch and triton, and the block",
    )
    warnings.warn(str(note), stacklevel=3)
    return False


def agree(y: Tensor, expected: Tensor) -> bool:
    """Return whether a result is as near to another as products in its dtype can be.

    Where some of what is expected is not finite, only what is finite in both is compared: which
    channels an infinity reaches depends on the way of computing.

    >>> agree(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.001]))
    True
    >>> agree(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]))
    False
    >>> agree(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]))
    False
    """
    most = MOST_APART[y.dtype]
    if not torch.isfinite(expected).all():
        finite = torch.isfinite(y) & torch.isfinite(expected)
        y, expected = y[finite], expected[finite]
    y, expected = y.double(), expected.double()
    return bool((y - expected).norm() <= most * expected.norm())


def _check_no_gradient(**tensors: Any) -> None:
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.requires_grad:
            raise KernelError.because(
                "a chain has no derivatives",
                got=f"{name} that require{'s' if name == 'x' else ''} gradients",
                allowed="calls under torch.no_grad() or torch.inference_mode()",
                remedy="differentiate the layers themselves",
                argument=name,
            )


def check_no_forward_mode() -> None:
    """Check that no torch.func.jvp is active: an operator would give it zeros without a word.

    Raises: KernelError.
    """
    if torch._C._are_functorch_transforms_active() and forward_modes():
        raise KernelError.because(
            "a chain has no forward-mode derivative",
            got="a call under torch.func.jvp or jacfwd",
            allowed="calls for inference, also under torch.func.vmap",
            remedy="differentiate the layers themselves",
        )


def as_under_autocast(x: Tensor, chain: Chain) -> Tensor:
    """Return x in the dtype in which a chain computes: under autocast another than its own.

    It is that of autocast, as for torch's convolutions; where the chain adds x itself to a stage,
    the one to which torch would promote the sum.
    """
    if not is_autocast(x) or x.dtype == torch.float64:
        return x
    dtype = torch.get_autocast_dtype(x.device.type)
    if any(stage.residual == 0 for stage in chain.stages):
        dtype = torch.promote_types(dtype, x.dtype)
    return x.to(dtype)


def check_chain(x: Tensor, weights: Tensor, biases: Tensor | None, chain: Chain) -> None:
    """Check that an input and weights fit a chain.

    Raises: KernelError.
    """
    check_tensors({"weights": weights, "biases": biases}, optional=frozenset({"biases"}))
    check_input(x, chain.stages[0].c_in)
    _check_parameters(x, weights, biases, chain)
    chain.shape_of(x.shape)


def _check_parameters(x: Tensor, weights: Tensor, biases: Tensor | None, chain: Chain) -> None:
    for name, tensor, count in (
        ("weights", weights, chain.weights),
        ("biases", biases, chain.biases),
    ):
        if tensor is None:
            continue
        if tensor.dim() != 1 or tensor.shape[0] != count or tensor.device != x.device:
            raise KernelError.because(
                f"{name} do not fit the chain",
                got=f"{shape_text(tensor)} on {tensor.device}",
                allowed=f"[{count}] on {x.device}",
                remedy="put those of its stages one after the other, where the input is",
                argument=name,
            )


def obstacle(x: Tensor, chain: Chain) -> str | None:
    """Return why no engine can run a chain for x, or None if one can.

    >>> obstacle(torch.ones(1, 1, 1, 1, dtype=torch.float64), Chain((Stage(1, 1, 1, 1),)))
    'it computes in float32, bfloat16 and float16, not in float64'
    """
    if x.is_cuda:
        reason: str | None = _card().obstacle(x, chain)
        return reason
    if x.device.type != "cpu":
        return f"it runs on a CPU or on CUDA, not on {x.device.type}"
    if x.dtype not in DTYPES:
        name = str(x.dtype).removeprefix("torch.")
        return f"it computes in float32, bfloat16 and float16, not in {name}"
    strides = [stage.stride for stage in chain.stages if stage.stride > MOST_STRIDE]
    if strides:
        return f"it takes strides of 1 and {MOST_STRIDE}, not {strides[0]}"
    fault = engine.fault()
    return None if fault is None else f"it needs LLVM, which does not work here ({fault})"


@cache
def _tiles() -> ModuleType:
    """Return the engine of a CPU, for which LLVM is loaded."""
    from ifspace.kernels.chain import tiles

    return tiles


@cache
def _card() -> Any:
    """Return the engine of a card, for which Triton is imported."""
    from ifspace.kernels.chain import triton

    return triton


def run_chain(x: Tensor, weights: Tensor, biases: Tensor | None, chain: Chain) -> Tensor:
    """Return the result of a chain by its engine, for an x without an `obstacle`.

    Nothing is checked. `weights` and `biases` are contiguous and float32.
    """
    y: Tensor = (_card() if x.is_cuda else _tiles()).run(x, weights, biases, chain)
    return y


# ---- the operator


@lru_cache(maxsize=4096)
def parse(text: str) -> Chain:
    """Return the chain of a text, the same object for the same text."""
    return Chain.parse(text)


@torch.library.custom_op("ifspace::chain", mutates_args=())
def chain_operator(x: Tensor, weights: Tensor, biases: Tensor | None, text: str) -> Tensor:
    """Return y [N, C_out, H', W'] of x [N, C, H, W]: `Chain.parse(text)` with its weights."""
    chain = parse(text)
    check_chain(x, weights, biases, chain)
    with own_dtypes(x, weights, biases):
        return _computed(x, weights, biases, chain, obstacle(x, chain) is None)


@chain_operator.register_fake
def _chain_fake(x: Tensor, weights: Tensor, biases: Tensor | None, text: str) -> Tensor:
    chain = parse(text)
    _check_parameters(x, weights, biases, chain)
    return empty_in_layout(x, chain.shape_of(x.shape))


chain_operator.register_vmap(vmap_rule(chain_operator, merges=True))


# A counter passes the shapes of the tensors; a multiply-accumulate is two operations.
@register_flop_formula(torch.ops.ifspace.chain)
def _chain_flops(
    x: Any, weights: Any, biases: Any, text: str, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return 2 * chain_macs(x, parse(text))


def chain_macs(x_shape: Any, chain: Chain) -> int:
    """Return the multiply-accumulates of a chain for an input's shape [N, C, H, W].

    >>> chain_macs((1, 8, 4, 4), Chain((Stage(8, 8, 8, 8), Stage(8, 4, 8, 8))))
    1536
    """
    n, _, height, width = x_shape
    pixels = (h * w for h, w in chain.sizes(height, width)[1:])
    return sum(n * count * stage.weights for count, stage in zip(pixels, chain.stages, strict=True))


# ---- written out for exporters


def decompositions() -> dict[Any, Callable[..., Tensor]]:
    """Return the table for `torch.export.ExportedProgram.run_decompositions`.

    >>> [str(operator) for operator in decompositions()]
    ['ifspace.chain.default']
    """
    return {torch.ops.ifspace.chain.default: chain_decomposed}


def chain_decomposed(x: Tensor, weights: Tensor, biases: Tensor | None, text: str) -> Tensor:
    """Return the result of a chain, by operators that every exporter knows.

    The arguments are those of `torch.ops.ifspace.chain`.
    """
    chain = parse(text)
    values = [x]
    by_stage = zip(
        chain.stages,
        chain.split(weights.to(x.dtype)),
        [None] * len(chain.stages)
        if biases is None
        else chain.split(biases.to(x.dtype), biases=True),
        strict=True,
    )
    for number, (stage, weight, bias) in enumerate(by_stage, 1):
        y = _convolution(values[chain.source_of(number)], weight, bias, stage)
        y = y if stage.residual is None else y + values[stage.residual]
        y = y if stage.activation is None else ACTIVATIONS_OF[stage.activation](y)
        values.append(_shuffled(y, stage.shuffle_out))
    return values[-1]


ACTIVATIONS_OF: Final = {name: getattr(torch.nn.functional, name) for name in ACTIVATIONS}


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stage: Stage) -> Tensor:
    x = _shuffled(x, stage.shuffle_in)
    if stage.is_grouped:
        groups = stage.c_in // stage.fan_in
        return conv2d(x, weight, bias, stage.stride, stage.padding, groups=groups)
    if stage.kernel == 1:
        x = x[:, :, :: stage.stride, :: stage.stride]
        return rpw_decomposed(x, weight.flatten(1), bias, stage.step, "reference", stage.order)
    channels = torch.from_numpy(stage.reads).view(-1).to(x.device)
    windows = x.index_select(1, channels)
    return conv2d(windows, weight, bias, stage.stride, stage.padding, groups=stage.c_out)


def _shuffled(x: Tensor, groups: tuple[int, ...]) -> Tensor:
    for count in groups:
        n, channels, height, width = x.shape
        x = x.reshape(n, count, channels // count, height, width).transpose(1, 2)
        x = x.reshape(n, channels, height, width)
    return x
