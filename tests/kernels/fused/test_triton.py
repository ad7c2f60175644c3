"""The fused kernels against float64: y and every gradient by name, everything unwritten a NaN."""

import pytest
import torch
from dw_rpw_exact import NAMES, Case, check

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels import launch
from ifspace.kernels.fused import triton as dw_rpw
from ifspace.kernels.fused.triton import KERNELS, configurations

pytestmark = pytest.mark.usefixtures("one_thread", "unwritten_is_nan")

CHANNELS_LAST, NCHW = torch.channels_last, torch.contiguous_format
ACTIVATIONS = (None, "relu", "relu6", "silu")
ODD = {
    "one of everything": Case(1, 1, 1, "0", (1, 1, 1)),
    "primes": Case(7, 13, 7, "0", (1, 3, 5), 1, ("relu", None)),
    "H = 1": Case(8, 6, 2, "0.5", (2, 1, 7), 1, ("relu", "relu")),
    "W = 1, stride 2": Case(8, 6, 2, "0.5", (2, 6, 1), 2, ("relu", "relu")),
    "wraps": Case(24, 20, 4, "0.33", (2, 3, 5), 1, ("silu", "relu6")),
    "one window, rotated": Case(10, 11, 1, "0.33", (1, 4, 3), 2, (None, "silu")),
    "fewer filters than windows": Case(24, 5, 3, "0.5", (1, 3, 3), 1, ("relu6", None)),
    "several tiles of filters": Case(48, 41, 3, "0.33", (1, 3, 5), 1, ("relu", "silu")),
    "several tiles of channels": Case(128, 8, 4, "0", (1, 2, 2), 1, ("relu", None)),
    "unions that wrap": Case(80, 70, 2, "0.75", (1, 5, 7), 2, ("silu", None)),
    "blocked": Case(24, 41, 4, "0.33", (2, 3, 5), 1, ("silu", "relu6"), order="blocked"),
    "blocked, no overlap": Case(35, 37, 7, "0", (1, 3, 3), 2, (None, "silu"), order="blocked"),
    "blocked unions that wrap": Case(80, 150, 2, "0.75", (1, 2, 3), 1, order="blocked"),
}


def run(tensors, grad, spec, configs=None, **options):
    """y and the gradients by name."""
    options = {"fp32": "ieee", **options}
    configs = configs or {}
    y = dw_rpw.forward(*tensors, spec, configs=configs, **options)
    gradients = dw_rpw.backward(grad, *tensors, spec, configs=configs, **options)
    return {"y": y, **dict(zip(NAMES, gradients, strict=True))}


@pytest.mark.slow
@pytest.mark.parametrize("layout", [NCHW, CHANNELS_LAST], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("name", ODD)
def test_odd_sizes(name, layout, device):
    case = ODD[name]
    tensors, grad = case.tensors(device, layout=layout)
    got = run(tensors, grad, case.spec)
    check(got, tensors, grad, case.spec)
    assert got["y"].is_contiguous(memory_format=layout)


@pytest.mark.slow
@pytest.mark.parametrize("second", ACTIVATIONS)
@pytest.mark.parametrize("first", ACTIVATIONS)
def test_every_activation(first, second, device):
    case = Case(12, 9, 3, "0.5", (1, 4, 3), 1, (first, second))
    tensors, grad = case.tensors(device, layout=CHANNELS_LAST)
    check(run(tensors, grad, case.spec), tensors, grad, case.spec)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "affines", [(), *((name,) for name in NAMES[2:4] + NAMES[5:]), NAMES[2:4], NAMES[5:]], ids=str
)
def test_with_and_without_affines(affines, stride, device):
    case = Case(12, 9, 3, "0.5", (1, 4, 3), stride, ("relu", "silu"), affines)
    tensors, grad = case.tensors(device)
    check(run(tensors, grad, case.spec), tensors, grad, case.spec)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [NCHW, CHANNELS_LAST], ids=["NCHW", "channels_last"])
def test_half_precision(dtype, layout, device):
    case = Case(24, 20, 4, "0.33", (2, 3, 5), 1, ("relu6", "silu"))
    tensors, grad = case.tensors(device, dtype, layout)
    check(run(tensors, grad, case.spec), tensors, grad, case.spec)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["half", "tf32", "ieee"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_configuration(kernel, kind, device):
    case = Case(16, 20, 4, "0.5", (1, 2, 3), 1, ("relu", "silu"))
    dtype = torch.float16 if kind == "half" else torch.float32
    for layout in (NCHW, CHANNELS_LAST):
        tensors, grad = case.tensors(device, dtype, layout)
        copies = [None if tensor is None else tensor.clone() for tensor in tensors]
        for config in configurations(kernel, kind, layout is CHANNELS_LAST):
            if layout is NCHW and config.filters > 128:
                continue  # slow under the interpreter, and the same code
            fp32 = None if kind == "half" else kind
            pins = {kernel: config.name}
            if kernel == "forward":
                y = dw_rpw.forward(*tensors, case.spec, configs=pins, fp32=fp32)
                got = {"y": y}
            else:
                gradients = dw_rpw.backward(grad, *tensors, case.spec, configs=pins, fp32=fp32)
                got = dict(zip(NAMES, gradients, strict=True))
            on_card = kind == "tf32" and device.type == "cuda"
            check(got, tensors, grad, case.spec, roundings=2**14 if on_card else 4)
        assert all(map(torch.equal, tensors, copies)), "an input was written to"


@pytest.mark.slow
def test_any_strides(device):
    case = Case(8, 6, 2, "0.5", (2, 3, 4), 1, ("relu", "relu"))
    (x, dw_weight, scale1, shift1, weight, scale2, shift2), grad = case.tensors(device)
    large = torch.full((4, 11, 4, 8), float("nan"), device=device)
    view = large[::2, 2:-1, 1:, ::2]
    view.copy_(x)
    vectors = [
        torch.stack([tensor, tensor], 1)[:, 0] for tensor in (scale1, shift1, scale2, shift2)
    ]
    tensors = [
        view,
        dw_weight.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        *vectors[:2],
        weight.t().contiguous().t(),
        *vectors[2:],
    ]
    grad = grad[:, :1, :1, :1].expand(grad.shape)
    check(run(tensors, grad, case.spec), tensors, grad, case.spec)


def test_results_are_written_to_the_tensors_passed_as_out(device):
    case = Case(8, 6, 2, "0.5", (2, 3, 4), 2, ("relu", "relu"))
    tensors, grad = case.tensors(device)
    out = torch.full((2, 2, 2, 6), float("nan"), device=device).permute(0, 3, 1, 2)
    y = dw_rpw.forward(*tensors, case.spec, out=out, fp32="ieee")
    assert y is out
    check({"y": y}, tensors, grad, case.spec)


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_empty_tensors(shape, stride, device):
    case = Case(8, 6, 2, "0.5", shape, stride, ("relu", "relu"))
    tensors, grad = case.tensors(device)
    got = run(tensors, grad, case.spec)
    assert got["y"].shape == (shape[0], 6, -(-shape[1] // stride), -(-shape[2] // stride))
    for name, tensor in zip(NAMES, tensors, strict=True):
        assert got[name].shape == tensor.shape
        assert not got[name].any(), name


@pytest.mark.slow
def test_sums_over_parts_are_reproducible(device):
    case = Case(8, 6, 2, "0.5", (2, 5, 7), 1, ("relu", "relu"))
    tensors, grad = case.tensors(device)
    first, second = (run(tensors, grad, case.spec) for _ in range(2))
    check(first, tensors, grad, case.spec)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_addresses_of_64_bits(device, monkeypatch):
    case = Case(8, 6, 2, "0.5", (2, 3, 4), 2, ("relu", "silu"))
    tensors, grad = case.tensors(device)
    # Sizes that need them do not fit here: the wide kernels run on small ones.
    monkeypatch.setattr(dw_rpw, "is_wide", lambda *_: True)
    check(run(tensors, grad, case.spec), tensors, grad, case.spec)


def test_an_image_far_away_needs_64_bits(device):
    case = Case(4, 3, 2, "0.5", (2, 1, 1))
    tensors, _ = case.tensors(device)
    launch_of = dw_rpw.middle_grad_launch
    named = {"dw_weight": tensors[1], "scale1": None, "shift1": None, "weight": tensors[4]}
    for size, wide in ((2**10, False), (2**31, True)):
        far = torch.empty(1, dtype=torch.float16, device="meta").as_strided(
            (2, 4, 1, 1), (size, 1, 1, 1)
        )
        grad = far[:, :3]
        launched = launch_of(far, named, grad, far, case.spec, None)
        assert launched.arguments["WIDE"] is wide


def test_a_nan_and_an_infinity_pass_through_the_activations(device):
    case = Case(2, 2, 2, "0", (1, 1, 1), 1, ("relu6", "relu"), ())
    for value, expected in ((float("nan"), float("nan")), (float("inf"), 6.0)):
        x = torch.full((1, 2, 1, 1), value, device=device)
        ones = torch.ones(2, 1, 3, 3, device=device)
        weight = torch.ones(2, 1, device=device)
        y = dw_rpw.forward(x, ones, None, None, weight, None, None, case.spec)
        torch.testing.assert_close(y.cpu(), torch.full((1, 2, 1, 1), expected), equal_nan=True)


def test_what_cannot_run_raises(device, monkeypatch):
    case = Case(8, 6, 2, "0.5", (1, 2, 2))
    tensors, grad = case.tensors(device)
    with pytest.raises(DeviceError, match=r"float64; allowed: float16.*use impl reference"):
        dw_rpw.forward(*(tensor.double() for tensor in tensors), case.spec)
    with pytest.raises(KernelError, match=r"no such precision of float32: got 'fast'"):
        dw_rpw.forward(*tensors, case.spec, fp32="fast")
    with pytest.raises(KernelError, match=r"no such kernel: got 'fwd'; allowed: forward, before"):
        dw_rpw.backward(grad, *tensors, case.spec, configs={"fwd": "x"})
    with pytest.raises(KernelError, match=r"no such configuration of forward.*got 'x'; allowed: "):
        dw_rpw.forward(*tensors, case.spec, configs={"forward": "x"})
    monkeypatch.setattr(launch, "interprets", lambda: False)
    with pytest.raises(DeviceError, match=r"run on CUDA devices: got a tensor on cpu"):
        dw_rpw.forward(*(tensor.cpu() for tensor in tensors), case.spec)
