"""The Triton kernels of RPW against float64: every result by name, everything unwritten a NaN."""

from typing import Any

import pytest
import torch
from rpw_exact import KERNELS, check
from torch import Tensor

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels import launch
from ifspace.kernels.rpw import triton as rpw
from ifspace.kernels.windows import Windows, windows_of

pytestmark = pytest.mark.usefixtures("unwritten_is_nan")

GROUPS = (1, 2, 4, 8)
OVERLAPS = ("0", "0.25", "0.33", "0.5", "0.75", "0.9")
LAYOUTS = (torch.contiguous_format, torch.channels_last)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# C_in, C_out, g, o, N, H, W
ODD = [
    (1, 1, 1, "0", 1, 1, 1),  # one of everything
    (7, 13, 7, "0", 1, 3, 1),  # primes; windows of one channel
    (24, 5, 3, "0.5", 2, 1, 7),  # fewer filters than windows
    (16, 3, 2, "0.9", 1, 2, 2),  # one step of one channel: 16 windows, most without a filter
    (37, 41, 1, "0.33", 1, 5, 3),  # every window is everything, rotated
    (48, 97, 3, "0.33", 2, 3, 5),  # several tiles of filters
    (160, 96, 2, "0.75", 1, 9, 9),  # unions that wrap, several tiles of channels and pixels
    (136, 70, 8, "0.25", 1, 5, 5),  # wraps in windows of 17 channels
]


def tensors_of(
    kernel: str,
    windows: Windows,
    shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
    bias: bool = True,
) -> tuple[Tensor | None, ...]:
    images, height, width = shape

    def image(channels: int) -> Tensor:
        values = torch.randn(images, channels, height, width, device=device)
        return values.to(dtype).contiguous(memory_format=layout)

    x, grad = image(windows.in_channels), image(windows.out_channels)
    weight = torch.randn(windows.out_channels, windows.width, device=device).to(dtype)
    offset = torch.randn(windows.out_channels, device=device).to(dtype) if bias else None
    return {"forward": (x, weight, offset), "input_grad": (grad, weight), "weight_grad": (grad, x)}[
        kernel
    ]


def run(kernel: str, windows: Windows, tensors: Any, **options: Any) -> Any:
    return getattr(rpw, kernel)(*tensors, windows, **{"fp32": "ieee", **options})


@pytest.mark.slow
@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("groups", GROUPS)
def test_every_group_count_and_overlap(groups: int, overlap: str, device: torch.device) -> None:
    windows = windows_of(24, 20, groups, overlap)
    for kernel in KERNELS:
        for layout in LAYOUTS:
            tensors = tensors_of(kernel, windows, (2, 3, 5), device, layout=layout)
            got = run(kernel, windows, tensors)
            check(kernel, windows, got, *tensors)
            if kernel != "weight_grad":
                assert got.is_contiguous(memory_format=layout)


@pytest.mark.slow
@pytest.mark.parametrize("case", ODD, ids=str)
@pytest.mark.parametrize("order", ["natural", "sorted"])
def test_odd_sizes(case: tuple[Any, ...], order: str, device: torch.device) -> None:
    c_in, c_out, groups, overlap, *shape = case
    windows = windows_of(c_in, c_out, groups, overlap)
    for kernel in KERNELS:
        tensors = tensors_of(kernel, windows, tuple(shape), device, bias=False)
        tile = {"forward": "32x64x16", "input_grad": "32x16x64", "weight_grad": "16x32x64"}[kernel]
        got = run(kernel, windows, tensors, config=f"{tile}-{order}-w4s2")
        check(kernel, windows, got, *tensors)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_configuration(kernel: str, dtype: torch.dtype, device: torch.device) -> None:
    windows = windows_of(48, 80, 4, "0.5")  # 8 windows: they may be woven
    kinds = ("ieee", "tf32") if dtype == torch.float32 else (None,)
    for turn, layout in enumerate(LAYOUTS):
        tensors = tensors_of(kernel, windows, (1, 3, 7), device, dtype, layout)
        for kind in kinds:
            fit = fitting(kernel, windows, tensors, kind)
            # Each order in the layout it is launched for, and every other one in the other, too.
            suited = [name for name in fit if ("sorted" in name) != turn]
            for config in suited + sorted(set(fit) - set(suited))[::2]:
                got = run(kernel, windows, tensors, fp32=kind, config=config)
                product = 2.0**-10 if kind == "tf32" else 0.0
                check(kernel, windows, got, *tensors, product=product)


def fitting(kernel: str, windows: Windows, tensors: Any, kind: str | None) -> list[str]:
    first, second, *_ = tensors
    out = torch.empty_like(first)
    launched = {
        "forward": lambda: rpw.forward_launch(first, second, None, out, windows, kind),
        "input_grad": lambda: rpw.input_grad_launch(first, second, out, windows, kind),
        "weight_grad": lambda: rpw.weight_grad_launch(first, second, out, out, windows, kind, 1),
    }[kernel]()
    return [config.name for config in launched.configs]


@pytest.mark.parametrize("groups", [2, 4, 8, 16])
def test_woven_windows(groups: int, device: torch.device) -> None:
    windows = windows_of(64, 83, groups)
    assert rpw.woven_windows(windows) == groups
    tensors = tensors_of("forward", windows, (2, 3, 3), device, torch.float16, torch.channels_last)
    got = run("forward", windows, tensors, config="64x128x16-woven-w4s2")
    check("forward", windows, got, *tensors)


def strided(name: str, image: Tensor) -> Tensor:
    """The same shape as an image, laid out oddly."""
    n, c, h, w = image.shape
    if name == "expanded":
        return image[:1, :, :1, :1].expand(n, c, h, w)
    if name == "rows first":
        return image.permute(2, 1, 3, 0).contiguous().permute(3, 1, 0, 2)
    large = torch.full((2 * n, c + 3, h + 1, 2 * w), float("nan")).to(image)
    view = large[::2, 2:-1, 1:, ::2]
    view.copy_(image)
    return view


@pytest.mark.parametrize("name", ["expanded", "rows first", "part of a larger one"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_any_strides(kernel: str, name: str, device: torch.device) -> None:
    windows = windows_of(24, 20, 4, "0.33")
    first, second, *rest = tensors_of(kernel, windows, (3, 4, 5), device)
    first = strided(name, first)
    if kernel == "weight_grad":
        second = strided("part of a larger one", second)
    else:
        second = second.t().contiguous().t()
    tensors = (first, second, *rest)
    check(kernel, windows, run(kernel, windows, tensors), *tensors)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=["NCHW", "channels_last"])
def test_parts_are_added_in_one_order(layout: torch.memory_format, device: torch.device) -> None:
    windows = windows_of(24, 20, 4, "0.33")
    tensors = tensors_of("weight_grad", windows, (2, 17, 17), device, layout=layout)
    assert rpw.parts_of(tensors[0], windows) == 2
    first, second = (run("weight_grad", windows, tensors) for _ in range(2))
    check("weight_grad", windows, first, *tensors)
    assert all(map(torch.equal, first, second))
    added = run("weight_grad", windows, tensors, deterministic=False)
    check("weight_grad", windows, added, *tensors)


@pytest.mark.parametrize("parts", [1, 16, 37])
def test_any_number_of_parts_is_added(parts: int, device: torch.device) -> None:
    windows = windows_of(32, 20, 2)  # its windows are whole vectors: nothing is filled up
    partial = torch.randn(parts, 20 * 16 + 20, device=device)
    by_weight, by_bias = torch.empty(20, 16, device=device), torch.empty(20, device=device)
    rpw.sum_parts(partial, by_weight, by_bias, windows)
    expected = partial.double().sum(0)
    torch.testing.assert_close(by_weight.flatten().double(), expected[:320], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(by_bias.double(), expected[320:], rtol=1e-6, atol=1e-5)


def test_results_are_written_to_the_tensors_passed_as_out(device: torch.device) -> None:
    windows = windows_of(24, 20, 4, "0.33")
    for kernel in KERNELS:
        tensors = tensors_of(kernel, windows, (2, 3, 5), device, layout=torch.channels_last)
        fresh = run(kernel, windows, tensors)
        out = (
            tuple(torch.full_like(tensor, float("nan")) for tensor in fresh)
            if kernel == "weight_grad"
            else torch.full(tuple(fresh.shape), float("nan"), device=device)
        )
        got = run(kernel, windows, tensors, out=out)
        check(kernel, windows, got, *tensors)
        assert (got[0] if kernel == "weight_grad" else got) is (
            out[0] if kernel == "weight_grad" else out
        )


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 0)], ids=str)
def test_empty_tensors(shape: tuple[int, int, int], device: torch.device) -> None:
    windows = windows_of(24, 20, 4, "0.33")
    n, h, w = shape
    for kernel in KERNELS:
        tensors = tensors_of(kernel, windows, shape, device)
        got = run(kernel, windows, tensors)
        if kernel == "weight_grad":
            assert not got[0].any()
            assert not got[1].any()
            assert got[0].shape == (20, 6)
        else:
            assert got.shape == (n, 20 if kernel == "forward" else 24, h, w)


def test_addresses_of_64_bits(device: torch.device) -> None:
    windows = windows_of(4, 3, 2, "0.5")
    assert not launch.is_wide([torch.empty(2, 4, 1, 1)], 2, windows)
    # Few elements of an allocation that nothing else touches: 2.1 billion elements long.
    store = torch.empty(0, dtype=torch.float16, device=device)
    torch.use_deterministic_algorithms(False)  # which would fill all of it
    store = torch.empty(2**31 + 64, dtype=torch.float16, device=device)
    far = store.as_strided((3, 4, 1, 1), (2**30, 8, 1, 1))
    far.copy_(torch.randn(3, 4, 1, 1))
    assert launch.is_wide([far], 3, windows)
    weight = torch.randn(3, 2, device=device).half()
    grad = torch.randn(3, 3, 1, 1, device=device).half()
    check("forward", windows, rpw.forward(far, weight, None, windows), far, weight)
    got = rpw.weight_grad(grad, far, windows)
    check("weight_grad", windows, got, grad, far)
    near = far.clone()
    far.fill_(float("nan"))
    got = rpw.input_grad(grad, weight, windows, out=far)
    check("input_grad", windows, got, grad, weight)
    assert not torch.equal(near, far)


def test_what_cannot_run_raises(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = windows_of(8, 8, 2)
    x, weight, _ = tensors_of("forward", windows, (1, 2, 2), device)
    with pytest.raises(DeviceError, match=r"float64; allowed: float16.*use impl reference"):
        rpw.forward(x.double(), weight.double(), None, windows)
    with pytest.raises(KernelError, match=r"no such precision of float32: got 'fast'"):
        rpw.forward(x, weight, None, windows, fp32="fast")
    with pytest.raises(KernelError, match=r"no such configuration of forward.*got 'x'; allowed: "):
        rpw.forward(x, weight, None, windows, config="x")
    monkeypatch.setattr(launch, "interprets", lambda: False)
    with pytest.raises(DeviceError, match=r"run on CUDA devices: got a tensor on cpu"):
        rpw.forward(x.cpu(), weight.cpu(), None, windows)


def test_float32_is_multiplied_as_torch_says() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for word, precision in (("tf32", "tf32"), ("ieee", "ieee"), ("none", "ieee")):
            matmul.fp32_precision = word
            assert launch.precision_of(torch.float32, None) == precision
    finally:
        matmul.fp32_precision = before
    assert launch.precision_of(torch.float32, "tf32") == "tf32"
