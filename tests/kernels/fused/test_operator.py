"""The fused operators as torch expects them: schema, fake kernels, derivatives, capture, counts."""

import pytest
import torch
from devices import DEVICE, ON_CPU, only_on_a_card
from devices import FUSED_IMPLS as IMPLS
from dw_rpw_exact import NAMES, Case
from torch.utils.flop_counter import FlopCounterMode

from ifspace.kernels.fused import fused_dw_rpw
from ifspace.kernels.fused import operator as ops

pytestmark = pytest.mark.usefixtures("one_thread")

CASE = Case(8, 6, 2, "0.5", (2, 3, 2), 1, ("silu", "silu"))
PLAIN = Case(8, 6, 2, "0.5", (2, 3, 2), 2, ("relu", None), ())
BLOCKED = Case(8, 11, 2, "0.5", (2, 3, 2), 1, ("silu", None), NAMES[2:3], "blocked")
BACKWARD_CHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)


def problem(case, dtype=torch.float32, layout=torch.contiguous_format):
    """The arguments of the operator but for `impl`, tensors that require a gradient, and a grad."""
    torch.manual_seed(0)
    tensors, grad = case.tensors(DEVICE, dtype, layout)
    tensors = [None if tensor is None else tensor.requires_grad_() for tensor in tensors]
    numbers = (case.spec.windows.step, case.stride, *case.activations)
    return tensors, numbers, grad.requires_grad_()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "impl", "layout"),
    [
        (CASE, "reference", torch.channels_last),
        (CASE, "triton", torch.contiguous_format),
        (PLAIN, "reference", torch.contiguous_format),
        (PLAIN, "triton", torch.channels_last),
        (BLOCKED, "reference", torch.contiguous_format),
        (BLOCKED, "triton", torch.channels_last),
    ],
)
def test_opcheck(case, impl, layout):
    tensors, numbers, grad = problem(case, layout=layout)
    torch.library.opcheck(ops.dw_rpw, (*tensors, *numbers, impl, case.order))
    # On a card torch's own second derivative of a convolution takes no sizes that are symbols.
    checks = BACKWARD_CHECKS if ON_CPU else BACKWARD_CHECKS[:-1]
    arguments = (grad, *tensors, *numbers, impl, case.order)
    torch.library.opcheck(ops.dw_rpw_backward, arguments, test_utils=checks)


@pytest.mark.parametrize("order", ["rolling", "blocked"])
@pytest.mark.parametrize(("stride", "affines"), [(1, ()), (2, NAMES[2:4] + NAMES[5:])])
def test_derivatives_of_first_and_second_order(stride, affines, order):
    case = Case(4, 5, 2, "0.5", (1, 3, 2), stride, ("silu", "silu"), affines, order)
    tensors, numbers, _ = problem(case, torch.float64)
    present = [tensor for tensor in tensors if tensor is not None]

    def call(*some):
        left = iter(some)
        every = [None if tensor is None else next(left) for tensor in tensors]
        return ops.dw_rpw(*every, *numbers, "reference", order)

    assert torch.autograd.gradcheck(call, present)
    assert torch.autograd.gradgradcheck(call, present, fast_mode=True)


@pytest.mark.slow
def test_a_second_derivative_of_the_kernels_is_that_of_the_reference():
    results = []
    for impl in IMPLS:
        tensors, numbers, _ = problem(CASE)
        y = ops.dw_rpw(*tensors, *numbers, impl)
        (once,) = torch.autograd.grad(y.square().sum(), tensors[0], create_graph=True)
        results.append(torch.autograd.grad(once.square().sum(), tensors))
    for name, first, second in zip(NAMES, *results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-2, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("needed", [("x",), ("weight", "shift2"), ("dw_weight", "scale1")], ids=str)
def test_only_the_needed_gradients(impl, needed):
    tensors, numbers, _ = problem(CASE)
    tensors = [
        tensor.detach().requires_grad_(name in needed)
        for name, tensor in zip(NAMES, tensors, strict=True)
    ]
    ops.dw_rpw(*tensors, *numbers, impl).sum().backward()
    assert [n for n, t in zip(NAMES, tensors, strict=True) if t.grad is not None] == [
        name for name in NAMES if name in needed
    ]


@pytest.mark.slow
@pytest.mark.parametrize("impl", [*IMPLS, "layers"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile_captures_one_graph(impl, dynamic):
    torch._dynamo.reset()
    (x, dw_weight, scale1, shift1, weight, *_), _, _ = problem(CASE)

    def call(x, dw_weight, weight):
        return fused_dw_rpw(
            x.relu(),
            dw_weight,
            weight,
            2,
            0.5,
            scale1=scale1,
            shift1=shift1,
            stride=2,
            activation1="relu",
            activation2="relu6",
            impl=impl,
        ).sin()

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for n in (2, 3):
        more = torch.cat([x.detach()] * n).requires_grad_()
        leaves = (more, dw_weight, weight)
        y, expected = compiled(*leaves), call(*leaves)
        torch.testing.assert_close(y, expected)
        got = torch.autograd.grad(y.sum(), leaves)
        for tensor, right in zip(got, torch.autograd.grad(expected.sum(), leaves), strict=True):
            torch.testing.assert_close(tensor, right)


@pytest.mark.parametrize("case", [CASE, PLAIN], ids=["stride 1", "stride 2"])
def test_operations_are_counted_as_torch_counts_the_two_convolutions(case):
    tensors, numbers, grad = problem(case)
    n, _, height, width = grad.shape
    with FlopCounterMode(display=False) as counter:
        y = ops.dw_rpw(*tensors, *numbers, "reference")
    assert counter.get_total_flops() == 2 * n * height * width * (9 * 8 + 6 * 4)
    assert counter.get_total_flops() == 2 * case.spec.macs(tuple(tensors[0].shape))
    x, dw_weight, grouped = (
        tensors[0].detach(),
        tensors[1].detach(),
        torch.ones(6, 4, 1, 1, device=DEVICE),
    )
    with FlopCounterMode(display=False) as torch_counter:
        middle = torch.nn.functional.conv2d(x, dw_weight, None, case.stride, 1, groups=8)
        torch.nn.functional.conv2d(middle, grouped, groups=2)  # as many weights as the RPW
    assert counter.get_total_flops() == torch_counter.get_total_flops()
    with FlopCounterMode(display=False) as back:
        y.backward(grad)
    assert back.get_total_flops() == 2 * counter.get_total_flops()


@pytest.mark.parametrize("impl", [*IMPLS, "layers"])
def test_autocast_computes_in_its_type_and_gives_gradients_in_theirs(impl):
    (x, dw_weight, _, _, weight, *_), _, _ = problem(PLAIN)
    with torch.autocast(DEVICE.type, dtype=torch.float16):
        y = fused_dw_rpw(x, dw_weight, weight, 2, 0.5, activation1="relu", impl=impl)
    assert y.dtype is torch.float16
    y.sum().backward()
    assert {tensor.grad.dtype for tensor in (x, dw_weight, weight)} == {torch.float32}
    right = fused_dw_rpw(x, dw_weight, weight, 2, 0.5, activation1="relu", impl="reference")
    torch.testing.assert_close(y.float(), right, atol=0.05, rtol=0.01)


@only_on_a_card
def test_inside_a_cuda_graph():
    tensors, numbers, _ = problem(CASE)
    tensors = [tensor.detach().cuda() for tensor in tensors]
    expected = ops.dw_rpw(*tensors, *numbers, "reference")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        ops.dw_rpw(*tensors, *numbers, "triton")  # compiles and is timed outside the graph
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = ops.dw_rpw(*tensors, *numbers, "triton")
    y.fill_(float("nan"))
    graph.replay()
    torch.testing.assert_close(y, expected, atol=2e-2, rtol=2e-2)
