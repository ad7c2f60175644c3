"""The public function: what it computes, which implementation runs, and its errors."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from devices import only_on_a_cpu

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.rpw import (
    choose_implementation,
    operator,
    rolling_pointwise_conv2d,
)

pytestmark = only_on_a_cpu

X = torch.ones(2, 8, 3, 3)
WEIGHT = torch.ones(6, 4)


@pytest.mark.parametrize("impl", ["auto", "reference", "cpu", "triton"])
def test_every_implementation_computes_the_same(impl):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 24, 3, 5), torch.randn(10, 6), torch.randn(10)
    right = rolling_pointwise_conv2d(*(t.double() for t in (x, weight, bias)), 4, 0.33, "reference")
    y = rolling_pointwise_conv2d(x, weight, bias, 4, 0.33, impl)
    torch.testing.assert_close(y.double(), right, atol=1e-5, rtol=1e-5)


def test_auto_is_the_cpu_implementation_on_a_cpu():
    assert choose_implementation(X) == "cpu"
    assert choose_implementation(X, "reference") == "reference"
    assert choose_implementation(X.to("meta")) == "reference"


def test_the_named_implementation_runs(monkeypatch):
    ran = []

    def spy(impl):
        ran.append(impl)
        return SimpleNamespace(forward=lambda x, weight, *_: x.new_empty(2, 6, 3, 3))

    monkeypatch.setattr(operator, "implementation", spy)
    for impl in ("auto", "reference", "cpu", "triton"):
        rolling_pointwise_conv2d(X, WEIGHT, None, 2, 0.5, impl)
    assert ran == ["cpu", "reference", "cpu", "triton"]


REFUSED = {
    "3-D": ({"x": X[0]}, r"input is not 4-D: got \[8, 3, 3\]; allowed: \[N, C_in, H, W\]"),
    "whole numbers": ({"x": X.long()}, "not of a floating type: got torch.int64"),
    "groups": ({"groups": 3}, r"do not divide .*: got 3 groups of 8 channels; .* 1, 2, 4, 8;"),
    "no groups": ({"groups": 0}, "groups out of range: got 0"),
    "overlap 1": ({"overlap": 1.0}, "overlap out of range: got 1.0; allowed: 0 <= o < 1"),
    "overlap -1": ({"overlap": -0.5}, "overlap out of range: got -0.5; allowed: 0 <= o < 1"),
    "channels": (
        {"weight": torch.ones(6, 5)},
        r"weight \[6, 5\] for x \[2, 8, 3, 3\] and 2 groups; allowed: weight \[C_out, 4\]",
    ),
    "4-D weight": ({"weight": torch.ones(6, 4, 1, 1)}, r"weight \[6, 4, 1, 1\] for x"),
    "bias": ({"bias": torch.ones(5)}, r"bias \[5\] for weight \[6, 4\]; allowed: bias \[6\]"),
    "types": ({"weight": WEIGHT.double()}, "types: got x torch.float32, weight torch.float64"),
    "devices": ({"weight": WEIGHT.to("meta")}, "several devices: got x cpu, weight meta"),
    "an array": (
        {"x": X.numpy()},
        "x is no tensor: got ndarray; allowed: torch.Tensor; convert it with torch.as_tensor",
    ),
    "no x": ({"x": None}, "x is no tensor: got NoneType; allowed: torch.Tensor;"),
    "a list": ({"weight": [[1.0] * 4]}, "weight is no tensor: got list; allowed: torch.Tensor;"),
    "no weight": ({"weight": None}, "weight is no tensor: got NoneType"),
    "bias true": ({"bias": True}, "bias is no tensor: got bool; allowed: torch.Tensor or None;"),
    "float8": (
        {"x": X.to(torch.float8_e4m3fn), "weight": WEIGHT.to(torch.float8_e4m3fn)},
        "input is not of a type that is computed in: got torch.float8_e4m3fn; allowed: float16, bf",
    ),
    "sparse": ({"x": X.to_sparse()}, "input is not dense: got torch.sparse_coo; allowed: torch.s"),
    "sparse weight": ({"weight": WEIGHT.to_sparse()}, "weight is not dense: got torch.sparse_coo"),
    "nested": (
        {"x": torch.nested.nested_tensor([X[0], X[0]], layout=torch.jagged)},
        "input is not dense: got a nested tensor; allowed: torch.strided",
    ),
    "name": ({"impl": "cuda"}, "unknown implementation: got 'cuda'; allowed: auto, reference, cpu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_raises_one_line_before_anything_runs(case, monkeypatch):
    monkeypatch.setattr(operator, "rpw", lambda *_: pytest.fail("it ran"))
    changes, pattern = REFUSED[case]
    arguments = {"x": X, "weight": WEIGHT, "bias": None, "groups": 2, "overlap": 0.5} | changes
    with pytest.raises(KernelError, match=pattern) as refusal:
        rolling_pointwise_conv2d(**arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("wide", ["x", "weight", "bias"])
def test_float64_beside_another_dtype_raises_under_autocast(wide):
    tensors = {"x": X, "weight": WEIGHT, "bias": torch.ones(6)}
    tensors[wide] = tensors[wide].double()
    pattern = (
        rf"several types: got .*{wide} torch.float64.*allowed: one type \(autocast leaves float64"
    )
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(KernelError, match=pattern) as refusal,
    ):
        rolling_pointwise_conv2d(**tensors, groups=2)
    assert "\n" not in str(refusal.value)


def test_an_input_that_is_not_a_tensor_raises():
    with pytest.raises(KernelError, match=r"x is no tensor: got ndarray; allowed: torch.Tensor;"):
        choose_implementation(X.numpy())


def test_the_error_lists_the_implementations_that_run_there(monkeypatch):
    with pytest.raises(DeviceError, match=r"allowed: auto, reference, triton; leave it at auto"):
        choose_implementation(X.to("meta"), "cpu")
    with pytest.raises(DeviceError, match=r"allowed: auto, reference; leave it at auto"):
        choose_implementation(X.to("meta").double(), "cpu")
    with pytest.raises(DeviceError, match=r"float64; allowed: auto, reference, cpu; use impl ref"):
        choose_implementation(X.double(), "triton")
    monkeypatch.setattr(operator, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"allowed: auto, reference; leave it at auto"):
        choose_implementation(X.to("meta"), "cpu")


def test_implementations_that_cannot_run_raise():
    with pytest.raises(DeviceError, match=r"cpu implementation runs on a CPU only: got .* meta"):
        choose_implementation(X.to("meta"), "cpu")
    with pytest.raises(DeviceError, match=r"do not compute in this type: got torch.float64"):
        choose_implementation(X.double(), "triton")


@pytest.mark.slow
def test_triton_on_a_cpu_raises_without_its_interpreter():
    code = (
        "import torch; from ifspace.kernels.rpw import choose_implementation as choose\n"
        "try: choose(torch.ones(1, 4, 1, 1), 'triton')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    env = {"PATH": "/usr/bin:/bin", "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("DeviceError triton kernels run on CUDA devices: got a tensor on")


def test_triton_raises_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(operator, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"triton is not installed.*install ifspace\[triton\]"):
        choose_implementation(X, "triton")
