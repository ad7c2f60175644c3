"""The public function: what it computes, which implementation runs, and its errors."""

import pytest
import torch
from devices import only_on_a_cpu
from torch._subclasses import FakeTensorMode

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.fused import (
    choose_fused,
    fused_dw_rpw,
    operator,
)
from ifspace.kernels.rpw import rolling_pointwise_conv2d

pytestmark = only_on_a_cpu

X, DW, WEIGHT = torch.ones(2, 8, 3, 3), torch.ones(8, 1, 3, 3), torch.ones(6, 4)


@pytest.mark.parametrize("impl", ["auto", "reference", "triton", "layers"])
def test_it_is_a_depthwise_convolution_and_an_rpw(impl):
    torch.manual_seed(0)
    x, dw, weight = torch.randn(2, 24, 5, 4), torch.randn(24, 1, 3, 3), torch.randn(10, 6)
    scale1, shift2 = torch.randn(24), torch.randn(10)
    middle = torch.nn.functional.conv2d(x, dw, None, 2, 1, groups=24) * scale1[:, None, None]
    right = rolling_pointwise_conv2d(middle.relu(), weight, shift2, 4, 0.33, "reference")
    y = fused_dw_rpw(
        x,
        dw,
        weight,
        4,
        0.33,
        scale1=scale1,
        shift2=shift2,
        stride=2,
        activation1="relu",
        activation2="silu",
        impl=impl,
    )
    torch.testing.assert_close(y, torch.nn.functional.silu(right), atol=1e-4, rtol=1e-4)


def test_auto_is_the_reference_on_a_cpu():
    assert choose_fused(X) == "reference"
    assert choose_fused(X, "triton") == "triton"
    assert choose_fused(X.to("meta")) == "reference"


def test_auto_is_one_kernel_on_a_card_in_float32_alone(monkeypatch):
    with FakeTensorMode():
        x = torch.empty(2, 8, 3, 3, device="cuda")
        assert choose_fused(x) == "triton"
        assert choose_fused(x.half()) == choose_fused(x.bfloat16()) == "layers"
        assert choose_fused(x.bfloat16(), "triton") == "triton"
        assert choose_fused(x.double()) == "reference"
        # A context of autocast needs the card itself.
        monkeypatch.setattr(operator, "is_autocast", lambda _: True)
        assert choose_fused(x) == "layers"
        assert choose_fused(x.double()) == "reference"


def test_layers_are_two_calls_and_no_fused_one(monkeypatch):
    monkeypatch.setattr(operator, "dw_rpw", lambda *_: pytest.fail("it ran"))
    x = X.to(memory_format=torch.channels_last)
    y = fused_dw_rpw(x, DW, WEIGHT, 2, 0.5, impl="layers")
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_the_named_implementation_runs(monkeypatch):
    ran = []
    monkeypatch.setattr(operator, "dw_rpw", lambda *arguments: ran.append(arguments[-2]))
    for impl in ("auto", "reference", "triton"):
        fused_dw_rpw(X, DW, WEIGHT, 2, 0.5, impl=impl)
    assert ran == ["reference", "reference", "triton"]


REFUSED = {
    "3-D": ({"x": X[0]}, r"input is not 4-D: got \[8, 3, 3\]; allowed: \[N, C_in, H, W\]"),
    "whole numbers": ({"x": X.long()}, r"not of a floating type: got torch.int64"),
    "groups": ({"groups": 3}, r"do not divide .*: got 3 groups of 8 channels; .* 1, 2, 4, 8;"),
    "overlap": ({"overlap": 1.0}, r"overlap out of range: got 1.0; allowed: 0 <= o < 1"),
    "depthwise": (
        {"dw_weight": torch.ones(8, 1, 5, 5)},
        r"dw_weight \[8, 1, 5, 5\]; allowed: dw_weight \[8, 1, 3, 3\]",
    ),
    "weight": ({"weight": torch.ones(6, 5)}, r"weight \[6, 5\]; allowed: weight \[6, 4\]"),
    "1-D weight": ({"weight": torch.ones(6)}, r"weight \[6\]; allowed: weight \[C_out, 4\]"),
    "scale1": ({"scale1": torch.ones(6)}, r"scale1 \[6\]; allowed: scale1 \[8\]"),
    "shift2": ({"shift2": torch.ones(8)}, r"shift2 \[8\]; allowed: shift2 \[6\]"),
    "stride": ({"stride": 3}, r"stride out of range: got 3; allowed: 1 or 2"),
    "activation": (
        {"activation2": "gelu"},
        r"unknown activation2: got 'gelu'; allowed: None, relu, relu6, silu",
    ),
    "types": ({"weight": WEIGHT.double()}, r"types: got x torch.float32.*weight torch.float64"),
    "devices": ({"weight": WEIGHT.to("meta")}, r"several devices: got x cpu.*weight meta"),
    "an array": ({"x": X.numpy()}, r"x is no tensor: got ndarray; allowed: torch.Tensor; convert"),
    "no weight": ({"weight": None}, r"weight is no tensor: got NoneType; allowed: torch.Tensor;"),
    "a list": ({"shift1": [1.0] * 8}, r"shift1 is no tensor: got list; .* torch.Tensor or None;"),
    "float8": ({"x": X.to(torch.float8_e4m3fn)}, r"that is computed in: got torch.float8_e4m3fn"),
    "sparse": ({"x": X.to_sparse()}, r"input is not dense: got torch.sparse_coo"),
    "name": ({"impl": "cpu"}, r"unknown implementation: got 'cpu'; allowed: auto, reference, tri"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_raises_one_line_before_anything_runs(case, monkeypatch):
    monkeypatch.setattr(operator, "dw_rpw", lambda *_: pytest.fail("it ran"))
    changes, pattern = REFUSED[case]
    arguments = {"x": X, "dw_weight": DW, "weight": WEIGHT, "groups": 2, "overlap": 0.5} | changes
    with pytest.raises(KernelError, match=pattern) as refusal:
        fused_dw_rpw(**arguments)
    assert "\n" not in str(refusal.value)


def test_triton_raises_for_float64():
    tensors = (tensor.double() for tensor in (X, DW, WEIGHT))
    with pytest.raises(DeviceError, match=r"do not compute in this type: got torch.float64"):
        fused_dw_rpw(*tensors, 2, 0.5, impl="triton")


def test_float64_beside_another_dtype_raises_under_autocast():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(KernelError, match="several types"):
        fused_dw_rpw(X.double(), DW, WEIGHT, 2, 0.5)


def test_an_input_that_is_not_a_tensor_raises():
    with pytest.raises(KernelError, match=r"x is no tensor: got list"):
        choose_fused([1.0])


def test_the_error_lists_the_implementations_of_the_block():
    with pytest.raises(
        DeviceError, match=r"got torch.float64; allowed: auto, reference, layers; use"
    ):
        choose_fused(X.double(), "triton")
