"""Both orders of RPW: every implementation against a gather in float64, and their two laws."""

from functools import partial
from itertools import product

import pytest
import torch
from devices import DEVICE, DOUBLE, IMPLS
from rpw_exact import KERNELS, channels_of, check
from torch.nn.functional import channel_shuffle, conv2d
from torch.utils.flop_counter import FlopCounterMode

from ifspace.errors import KernelError
from ifspace.kernels import costs
from ifspace.kernels.fused import fused_dw_rpw
from ifspace.kernels.launch import is_plain
from ifspace.kernels.rpw import cpu, reference, rolling_pointwise_conv2d
from ifspace.kernels.rpw import operator as ops
from ifspace.kernels.rpw import triton as rpw
from ifspace.kernels.windows import ORDERS, dense_weight, windows_at, windows_of

LAYOUTS = (torch.contiguous_format, torch.channels_last)
# C_in, C_out, g, o: odd and prime sizes, C_out unlike C_in and no multiple of the windows.
BLOCKED = [
    (1, 1, 1, "0"),
    (7, 13, 7, "0"),  # primes; windows of one channel
    (12, 12, 3, "0"),  # a grouped convolution
    (12, 17, 3, "0"),  # groups of six, six and five filters
    (37, 41, 1, "0.33"),  # every window is everything, rotated
    (24, 40, 3, "0.5"),
    (48, 97, 3, "0.33"),  # several tiles of filters
    (160, 96, 2, "0.75"),  # unions that wrap, several tiles of channels
    (136, 150, 8, "0.25"),  # wraps in windows of 17 channels, out of order
    (32, 256, 2, "0.5"),  # tiles of 64 filters that read one window
    (24, 64, 3, "0.75"),  # windows in turn, of five or six filters
    (64, 83, 2, "0.75"),  # the same, no vectors of filters
    (160, 168, 10, "0.5"),  # channels that some of the windows meet, around the end too
]


def random(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, device=DEVICE)


def tensors_of(kernel, windows, layout=torch.contiguous_format, dtype=torch.float32):
    """The tensors that a kernel takes, of two images of 3 x 5 pixels."""
    x, grad = (
        random(2, channels, 3, 5, dtype=dtype).contiguous(memory_format=layout)
        for channels in (windows.in_channels, windows.out_channels)
    )
    weight = random(windows.out_channels, windows.width, dtype=dtype)
    bias = random(windows.out_channels, dtype=dtype)
    return {"forward": (x, weight, bias), "input_grad": (grad, weight), "weight_grad": (grad, x)}[
        kernel
    ]


def test_filters_read_windows_in_order():
    rolling, blocked = (windows_of(16, 24, 4, "1/2", order) for order in ORDERS)
    assert (rolling.starts, rolling.filters) == (blocked.starts, blocked.filters)
    assert rolling.starts == (0, 2, 4, 6, 8, 10, 12, 14)
    assert rolling.read_channels()[:4, 0].tolist() == [0, 2, 4, 6]
    assert blocked.read_channels()[:7, 0].tolist() == [0, 0, 0, 2, 2, 2, 4]
    assert windows_of(12, 17, 3, 0, "blocked").filters == (6, 6, 5)
    assert windows_of(12, 16, 3, 0, "blocked").filters == (6, 5, 5)
    assert rolling != blocked


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("c_in", "c_out", "groups", "overlap"), BLOCKED)
def test_the_tables_are_the_definition(c_in, c_out, groups, overlap, order):
    windows = windows_of(c_in, c_out, groups, overlap, order)
    read = channels_of(windows)
    assert torch.equal(windows.read_channels(), read)
    starts = [read[j, 0].item() for j in range(c_out)]
    for p, start in enumerate(windows.starts):
        assert [j for j in range(c_out) if starts[j] == start] == list(windows.readers(p))
    dense = dense_weight(torch.ones(c_out, windows.width), c_in, windows.step, order=order)
    assert torch.equal(dense.bool(), torch.zeros(c_out, c_in).scatter(1, read, 1).bool())


@pytest.mark.parametrize(("c_in", "c_out", "groups", "overlap"), BLOCKED)
def test_the_reference_computes_blocked_order(c_in, c_out, groups, overlap):
    windows = windows_of(c_in, c_out, groups, overlap, "blocked")
    for kernel in KERNELS:
        tensors = tensors_of(kernel, windows, dtype=torch.float64)
        check(kernel, windows, getattr(reference, kernel)(*tensors, windows), *tensors)


@pytest.mark.slow
@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize(("c_in", "c_out", "groups", "overlap"), BLOCKED)
def test_the_triton_kernels_compute_blocked_order(c_in, c_out, groups, overlap):
    windows = windows_of(c_in, c_out, groups, overlap, "blocked")
    tiles = {"forward": "32x64x16", "input_grad": "32x16x64", "weight_grad": "16x32x64"}
    orders = ("natural",) if is_plain(windows) else ("natural", "sorted")
    for kernel in KERNELS:
        for layout, visits in product(LAYOUTS, orders):
            tensors = tensors_of(kernel, windows, layout)
            config = f"{tiles[kernel]}-{visits}-w4s2"
            got = getattr(rpw, kernel)(*tensors, windows, fp32="ieee", config=config)
            check(kernel, windows, got, *tensors)


def test_blocked_windows_are_not_woven():
    assert rpw.woven_windows(windows_of(64, 64, 4)) == 4
    assert rpw.woven_windows(windows_of(64, 64, 4, 0, "blocked")) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("impl", [*IMPLS, "auto"])
@pytest.mark.parametrize(("c_in", "c_out", "groups", "overlap"), BLOCKED[1:6])
def test_the_function_and_its_gradients(c_in, c_out, groups, overlap, impl, layout):
    windows = windows_of(c_in, c_out, groups, overlap, "blocked")
    x, weight, bias = tensors_of("forward", windows, layout)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = rolling_pointwise_conv2d(*leaves, groups, overlap, impl, "blocked")
    assert y.is_contiguous(memory_format=layout)
    exact = [tensor.detach().cpu().double().requires_grad_() for tensor in leaves]
    right = torch.einsum("nfthw,ft->nfhw", exact[0][:, channels_of(windows)], exact[1])
    right = right + exact[2][:, None, None]
    torch.testing.assert_close(y.cpu().double(), right, rtol=1e-4, atol=1e-4)
    grad = random(*y.shape, dtype=torch.float32)
    got = torch.autograd.grad(y, leaves, grad)
    for ours, true in zip(got, torch.autograd.grad(right, exact, grad.cpu().double()), strict=True):
        torch.testing.assert_close(ours.cpu().double(), true, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(0, 8, 3, 3), (2, 8, 0, 3)])
def test_a_batch_without_pixels_has_gradients_and_is_explained(order, shape):
    x, weight = random(*shape, dtype=torch.float32), random(8, 4, dtype=torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (x, weight)]
    y = rolling_pointwise_conv2d(*leaves, groups=2, order=order)
    grad_x, grad_weight = torch.autograd.grad(y.sum(), leaves)
    assert (y.shape, grad_x.shape) == (shape, shape)
    assert not grad_weight.any()
    assert cpu.explain(x.cpu(), windows_of(8, 8, 2, 0, order)).count("\n") == 2


@pytest.mark.parametrize("impl", DOUBLE)
@pytest.mark.parametrize(("channels", "out_channels", "groups"), [(12, 24, 4), (15, 35, 5)])
def test_rolling_without_overlap_is_a_grouped_convolution_and_a_shuffle(
    channels, out_channels, groups, impl
):
    # Filter j of the rolling layer is filter j // g of group j mod g.
    x, weight = random(2, channels, 3, 2), random(out_channels, channels // groups)
    by_group = weight.unflatten(0, (-1, groups)).transpose(0, 1).flatten(0, 1)
    expected = channel_shuffle(conv2d(x, by_group[:, :, None, None], groups=groups), groups)
    y = rolling_pointwise_conv2d(x, weight, None, groups, 0, impl)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("impl", [*DOUBLE, "auto"])
@pytest.mark.parametrize(("channels", "out_channels", "groups"), [(12, 24, 4), (15, 35, 5)])
def test_blocked_without_overlap_is_a_grouped_convolution(channels, out_channels, groups, impl):
    x, weight = random(2, channels, 3, 2), random(out_channels, channels // groups)
    bias = random(out_channels)
    expected = conv2d(x, weight[:, :, None, None], bias, groups=groups)
    y = rolling_pointwise_conv2d(x, weight, bias, groups, 0, impl, "blocked")
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_it_runs_as_one_of_torch(monkeypatch):
    monkeypatch.setattr(ops, "rpw", lambda *_: pytest.fail("the operator ran"))
    x, weight = random(1, 8, 2, 2), random(6, 4)
    call = partial(rolling_pointwise_conv2d, x, weight, None, 2, order="blocked")
    expected = conv2d(x, weight[:, :, None, None], groups=2)
    torch.testing.assert_close(call(), expected)
    torch.testing.assert_close(torch.compile(call, backend="eager")(), expected)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        assert call().dtype is torch.float64  # as autocast leaves it
    with FlopCounterMode(display=False), pytest.raises(pytest.fail.Exception, match="operator ran"):
        call(overlap="1/2")


@pytest.mark.slow
@pytest.mark.parametrize("impl", IMPLS)
def test_opcheck_of_blocked_order(impl):
    x, weight, bias = (
        random(*shape, dtype=torch.float32).requires_grad_()
        for shape in ((2, 8, 3, 2), (7, 4), (7,))
    )
    grad = random(2, 7, 3, 2, dtype=torch.float32).requires_grad_()
    for operator, arguments in (
        (ops.rpw, (x, weight, bias, 2, impl, "blocked")),
        (ops.rpw, (x, weight, None, 4, impl, "blocked")),
        (ops.rpw_input_grad, (grad, weight, 8, 2, impl, "blocked")),
        (ops.rpw_weight_grad, (grad, x, 4, 2, True, impl, "blocked")),
    ):
        torch.library.opcheck(operator, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("impl", DOUBLE)
def test_derivatives_of_first_and_second_order(impl, step):
    leaves = [random(*shape).requires_grad_() for shape in ((2, 4, 2, 1), (5, 2), (5,))]
    assert torch.autograd.gradcheck(lambda *t: ops.rpw(*t, step, impl, "blocked"), leaves)
    assert torch.autograd.gradgradcheck(lambda *t: ops.rpw(*t, step, impl, "blocked"), leaves)


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [0, "0.5"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile_captures_one_graph(dynamic, overlap):
    torch._dynamo.reset()
    weight, bias = random(6, 4, dtype=torch.float32), random(6, dtype=torch.float32)

    def call(x):
        y = rolling_pointwise_conv2d(x.relu(), weight, bias, 2, overlap, order="blocked")
        return y.sin()

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for n in (2, 3):
        x = random(n, 8, 3, 2, dtype=torch.float32)
        torch.testing.assert_close(compiled(x), call(x))


@pytest.mark.parametrize("overlap", ["0", "0.5"])
def test_operations_are_counted_alike_in_both_orders(overlap):
    x, weight = random(2, 8, 3, 2), random(8, 4)
    totals = []
    for order in ORDERS:
        with FlopCounterMode(display=False) as counter:
            rolling_pointwise_conv2d(x, weight, None, 2, overlap, order=order)
        totals.append(counter.get_total_flops())
    assert totals == [2 * 2 * 3 * 2 * 8 * 4] * 2


def test_orders_that_do_not_exist_or_fit_raise():
    x, weight = random(1, 8, 2, 2), random(6, 4)
    with pytest.raises(KernelError, match=r"unknown order: got 'block'; allowed: rolling, blocked"):
        rolling_pointwise_conv2d(x, weight, None, 2, 0, order="block")
    with pytest.raises(KernelError, match=r"unknown order: got 'block'"):
        ops.rpw(x, weight, None, 2, "reference", "block")
    message = r"fewer filters than windows: got 6 for 8 windows; allowed: in blocked order"
    for call in (
        lambda: rolling_pointwise_conv2d(x, weight, None, 2, 0.25, order="blocked"),
        lambda: fused_dw_rpw(x, random(8, 1, 3, 3), weight, 2, 0.25, order="blocked"),
        lambda: windows_of(8, 6, 2, 0.25, "blocked"),
        lambda: windows_at(8, 6, 4, 3, "blocked"),
    ):
        with pytest.raises(KernelError, match=message):
            call()
    assert windows_of(8, 6, 2, 0.25).distinct == 8


@pytest.mark.parametrize(("grouped_us", "name"), [(115, "Convolution"), (125, "DirectRpw")])
def test_torch_records_grouped_convolutions_that_are_about_as_fast(
    grouped_us: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = ((costs.COMPILED, 1e5), (costs.GROUPED, 1e3 * grouped_us))
    choices = dict.fromkeys(costs.FUNCTIONS, costs.Choice(costs.COMPILED, times, ""))
    caches = (cpu.plan_for, cpu._is_grouped_best)
    monkeypatch.setattr(cpu, "choices", lambda *_: choices)
    x = torch.randn(1, 8, 6, 6, requires_grad=True)
    for cached in caches:
        cached.cache_clear()
    y = rolling_pointwise_conv2d(x, torch.randn(8, 4), groups=2, order="blocked")
    for cached in caches:
        cached.cache_clear()
    assert y.grad_fn is not None
    assert name in y.grad_fn.name()
