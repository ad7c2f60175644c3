"""The gate: right candidates pass, and every kind of error is found."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from samples import DW_PW, DW_RPW_RPW
from torch import Tensor, nn
from witness import build_torch_block

from ifspace.bench import gate
from ifspace.bench.case import (
    FUSED,
    OURS,
    BlockCandidate,
    Conditions,
    Implementation,
    LayerCandidate,
    LayerCase,
)
from ifspace.bench.gate import (
    WrongCandidateError,
    block_fault,
    check_layer,
    copy_of,
    fewer_images,
    layer_inputs,
    reference_of,
    relative_error,
)
from ifspace.bench.kernels import dense_with_zeros, list_candidates
from ifspace.block import Block
from ifspace.kernels.rpw import cpu
from ifspace.kernels.windows import dense_weight
from ifspace.measurements import BOTH_WAYS, LAYOUTS
from ifspace.nn import FOG, MOBILENET, build
from ifspace.nn.block import BlockModule

SIZED = DW_RPW_RPW.block.at(16)


def claimed(**changes) -> BlockCandidate:
    return BlockCandidate(SIZED, 6, 2, design=replace(DW_RPW_RPW, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("style", ["plain", "mobilenet", "fog"])
@pytest.mark.parametrize("layout", ["channels_last", "nchw"])
def test_right_blocks_pass(dtype: str, style: str, layout: str, block, here) -> None:
    there = replace(here, dtype=dtype, style=style, layout=layout)
    for candidate in (
        claimed(),
        block("CONV"),
        block("GC(4)+SH(4)+GPW(4)", 16, 32, stride=2),
        block("PW+DW+PW", 8, 8, inside=6),
        block("(DW+RPW(2,0))x2"),
        block("PW"),
    ):
        assert block_fault(candidate, there) is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"params": 273}, "272 and 272, the catalogue says 273 parameters and 272 MACs a pixel"),
        ({"macs_per_pixel": 1}, "the catalogue says 272 parameters and 1 MACs"),
        ({"field": (3, 15)}, "sees 3×3×16, the catalogue says (3, 15)"),
        ({"field": (5, 16)}, "sees 3×3×16"),
    ],
)
def test_a_wrong_claim_of_a_catalogue_fails_the_gate(changes, fault: str, here) -> None:
    assert block_fault(claimed(), here) is None
    assert fault in (block_fault(claimed(**changes), here) or "")


class Wrong(nn.Module):
    """A layer with something done to what it writes."""

    def __init__(self, layer: nn.Module, change) -> None:
        super().__init__()
        self.layer, self.change = layer, change
        if layer.weight is not None:
            self.weight = layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.layer(x), x)


def broken(monkeypatch: pytest.MonkeyPatch, change, timed_only: bool) -> None:
    """Break the last layer of what is timed, or of the bare block that is traced."""

    def spoil(module: BlockModule) -> BlockModule:
        last = module.steps[-1]
        module.add_module(last, Wrong(module.get_submodule(last), change))
        return module

    if timed_only:
        build = Conditions.build
        monkeypatch.setattr(Conditions, "build", lambda *arguments: spoil(build(*arguments)))
    else:
        monkeypatch.setattr(gate, "BlockModule", lambda *a, **k: spoil(BlockModule(*a, **k)))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda y, x: y * 1.001, "output is wrong: a relative error of 1.0e-03"),
        (lambda y, x: y.flip(1), "output is wrong"),
        (lambda y, x: y[:, :8], "output of shape [2, 8, 6, 6], not [2, 16, 6, 6]"),
        (lambda y, x: y * torch.inf, "output is not finite"),
        (lambda y, x: y.detach() + 0 * x.sum(), "gradient by x is wrong"),
        (lambda y, x: y + (y * 1e20).sin() * 1e-9, "gradient by x "),
    ],
)
def test_wrong_numbers_fail_the_gate(
    change, fault: str, monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    broken(monkeypatch, change, timed_only=True)
    actual = block_fault(block("DW+PW"), here)
    assert actual is not None
    assert actual.startswith(fault) or "RuntimeError" in actual, actual


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda y, x: y + y.roll(8, 1), "output 0 sees other channels than the field has"),
        (lambda y, x: y + y.roll(1, 3), "sees no square of 3×3 pixels"),
        (lambda y, x: x, "sees no square of 3×3 pixels"),
        (lambda y, x: y[..., 1:], "writes [16, 6, 5], not [16, 6, 6]"),
    ],
)
def test_another_field_fails_the_gate(
    change, fault: str, monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    broken(monkeypatch, change, timed_only=False)
    # Behind one group convolution outputs see their group.
    assert block_fault(block("GPW(2)+DW"), here) == fault


def test_more_parameters_fail_the_gate(monkeypatch: pytest.MonkeyPatch, block, here) -> None:
    class MoreParameters(BlockModule):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            self.extra = nn.Conv2d(16, 16, 1, bias=False, dtype=torch.float64)

    monkeypatch.setattr(gate, "BlockModule", MoreParameters)
    assert block_fault(block("PW"), here) == "512 parameters, 256 by the formula"


def test_more_operations_fail_the_gate(monkeypatch: pytest.MonkeyPatch, block, here) -> None:
    class MoreOperations(BlockModule):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0 * super().forward(x)

    monkeypatch.setattr(gate, "BlockModule", MoreOperations)
    assert block_fault(block("PW"), here) == "512.0 MACs a pixel, 256 by the formula"


@pytest.mark.slow
def test_the_compared_batch_runs_as_the_timed_one(
    monkeypatch: pytest.MonkeyPatch, block, here
) -> None:
    # With few pixels this layer is dense, with many its weights' gradient comes from tiles.
    plan = lambda _, pixels, *__: cpu.Plan(weight_grad=8 * (pixels > 1000))  # noqa: E731
    monkeypatch.setattr(cpu, "plan_for", plan)
    timed = block("RPW(8,0)", 256, side=14, batch=64)
    assert str(timed.rpw_plans(here)) != str(replace(timed, batch=2, side=7).rpw_plans(here))
    assert fewer_images(timed, here) == timed
    monkeypatch.setattr(gate, "MAX_MACS", 1)
    assert fewer_images(timed, here).rpw_plans(here) == timed.rpw_plans(here)
    assert fewer_images(block("DW+PW", batch=64), here).batch == 1
    tiles = cpu.unpack_tiles
    monkeypatch.setattr(cpu, "unpack_tiles", lambda *arguments: 0 * tiles(*arguments))
    assert "gradient by layer0.weight is wrong" in (block_fault(timed, here) or "")


def test_an_error_of_torch_fails_the_gate(monkeypatch: pytest.MonkeyPatch, block, here) -> None:
    def build(*arguments) -> BlockModule:
        raise RuntimeError("no such engine\nand more")

    monkeypatch.setattr(Conditions, "build", build)
    assert block_fault(block("DW+PW"), here) == "RuntimeError: no such engine"


def test_a_design_with_less_than_the_full_field_passes(block, here) -> None:
    # The field is that of the block, full or not.
    assert block_fault(block("GPW(4)+DW"), here) is None
    assert (
        block_fault(BlockCandidate(Block.parse("DW+PW").at(16), 1, 1, design=DW_PW), here) is None
    )


@pytest.mark.parametrize(
    "text", ["CONV", "DW+PW", "GC(4)+SH(4)+GPW(2)", "DW(5)+RPW(4,1/2)+RPW(2,0.33)", "(DW+PW)x2"]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_reference_is_plain_torch(text: str, stride: int) -> None:
    sized = Block.parse(text).at(16, 32)
    module = build(sized, stride=stride, dtype=torch.float64)
    witness = build_torch_block(sized, stride)
    for ours, theirs in zip(module.parameters(), witness.parameters(), strict=True):
        theirs.data = ours.data.reshape(theirs.shape)
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(reference_of(module)(x), witness(x))


@pytest.mark.parametrize("style", [MOBILENET, FOG])
def test_a_style_is_kept(style) -> None:
    module = build("DW+RPW(16,0)+SH(4)+GPW(4)", 64, 32, stride=2, style=style).eval()
    x = torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(reference_of(module)(x), module(x), rtol=1e-4, atol=1e-5)


def test_a_copy_has_weights_of_its_own() -> None:
    module = build("DW+PW", 8)
    copied = copy_of(module)
    assert copied.sized is module.sized
    copied.layer0.weight.data.zero_()
    assert module.layer0.weight.abs().sum() > 0
    assert list(copied.state_dict()) == list(module.state_dict())


CPU = torch.device("cpu")
CASE = LayerCase(4, 16, 9, 4, "1/2", mode=BOTH_WAYS)


def spoilt(change: Callable[[Tensor], Tensor]) -> LayerCandidate:
    def build(case: LayerCase, device: torch.device) -> Implementation:
        way = dense_with_zeros(case, device)
        return replace(way, forward=lambda x, weight: change(way.forward(x, weight)))

    return LayerCandidate("spoilt", "test", build)


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
    every = list_candidates("reference", True)
    for case in (CASE, replace(CASE, groups=8), replace(CASE, kind=FUSED)):
        check_layer(every, replace(case, layout=layout, dtype=dtype), CPU)


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
    case = r"^spoilt fails the check in RPW\(4,1/2\) 2x16x7 channels_last fp32"
    with pytest.raises(WrongCandidateError, match=f"{case}: got {what} (of shape|is)") as caught:
        check_layer([*list_candidates("reference", False), spoilt(change)], CASE, CPU)
    assert "\n" not in str(caught.value)


def test_a_wrong_weight_gradient_is_named() -> None:
    def build(case: LayerCase, device: torch.device) -> Implementation:
        return replace(dense_with_zeros(case, device), unpack=lambda grads: (grads[0] * 1.01,))

    with pytest.raises(WrongCandidateError, match="got gradient by weight"):
        check_layer([LayerCandidate(OURS, "test", build)], CASE, CPU)


def test_inexact_candidates_and_those_that_cannot_run_are_not_checked() -> None:
    wrong = spoilt(lambda y: y + 1)
    check_layer([replace(wrong, exact=False), replace(wrong, cuda_only=True)], CASE, CPU)


def test_inputs_fit_the_case_and_are_reproducible() -> None:
    inputs, again = layer_inputs(CASE, CPU), layer_inputs(CASE, CPU)
    assert torch.equal(inputs.x, again.x)
    assert inputs.x.is_contiguous(memory_format=torch.channels_last)
    assert inputs.grad.stride() == inputs.x.stride()
    y = dense_weight(inputs.weights[0], CASE.width, CASE.windows.step) @ inputs.x.flatten(2)
    assert 0.7 < float(y.std() / inputs.x.std()) < 1.4


def test_the_error_is_relative_and_nan_is_not_small() -> None:
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert not relative_error(torch.tensor([torch.nan]), torch.ones(1)) <= 1e9


def test_gradients_by_weights_may_be_sums_in_any_order() -> None:
    """Torch's grouped convolutions add 16,384 products to a relative error of 2.3e-6."""
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double()
    eager, sums, wrong = (exact * (1 + error) for error in (2e-7, 2.3e-6, 2e-5))
    rounding = torch.finfo(torch.float32).eps
    for name, actual, faults in (
        ("gradient by layer0.weight", sums, 0),
        ("gradient by layer0.weight", wrong, 1),
        ("gradient by layer1.weight", sums, 1),  # of RPW
        ("gradient by x", sums, 1),
        ("output", sums, 1),
    ):
        rows = ({name: tensor} for tensor in (actual, exact, eager))
        added = {"gradient by layer0.weight": 16_384}
        assert len([*gate.mismatches(*rows, rounding, added)]) == faults, name
