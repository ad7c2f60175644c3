"""The operators as torch expects them: schema, fake kernels, derivatives of any order, capture."""

from fractions import Fraction

import pytest
import torch
from devices import DEVICE, DOUBLE, IMPLS, only_on_a_card
from torch.nn.functional import conv2d

from ifspace.errors import KernelError
from ifspace.kernels.rpw import (
    choose_implementation,
    rolling_pointwise_conv2d,
)
from ifspace.kernels.rpw import operator as ops
from ifspace.kernels.windows import dense_weight


def problem(dtype=torch.float32, c_in=8, c_out=6, groups=2, layout=torch.contiguous_format):
    torch.manual_seed(0)
    x = torch.randn(2, c_in, 3, 2, dtype=dtype, device=DEVICE).to(memory_format=layout)
    weight = torch.randn(c_out, c_in // groups, dtype=dtype, device=DEVICE)
    bias = torch.randn(c_out, dtype=dtype, device=DEVICE)
    return tuple(tensor.requires_grad_() for tensor in (x, weight, bias))


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("impl", IMPLS)
def test_opcheck(impl, layout):
    x, weight, bias = problem(layout=layout)
    grad = torch.randn(2, 6, 3, 2, device=DEVICE).to(memory_format=layout).requires_grad_()
    for call in (
        (ops.rpw, (x, weight, bias, 2, impl)),
        (ops.rpw, (x, weight, None, 3, impl)),
        (ops.rpw_input_grad, (grad, weight, 8, 2, impl)),
        (ops.rpw_weight_grad, (grad, x, 4, 2, True, impl)),
        (ops.rpw_weight_grad, (grad, x, 4, 2, False, impl)),
    ):
        torch.library.opcheck(*call)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 4])
@pytest.mark.parametrize("impl", DOUBLE)
def test_derivatives_of_first_and_second_order(impl, step):
    tensors = problem(torch.float64, c_in=4, c_out=3, groups=1)
    tensors[0].data = tensors[0].data[:, :, :2, :1].contiguous()
    assert torch.autograd.gradcheck(lambda *t: ops.rpw(*t, step, impl), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: ops.rpw(*t, step, impl), tensors)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
def test_only_the_needed_gradients(impl, needed):
    tensors = [tensor.detach().requires_grad_(n in needed) for n, tensor in enumerate(problem())]
    dense = dense_weight(tensors[1].detach(), 8, step=2)
    y = ops.rpw(*tensors, 2, impl)
    y.square().sum().backward()
    for n, name in enumerate(("x", "weight", "bias")):
        assert (tensors[n].grad is not None) == (n in needed), name
    if 0 in needed:
        x = tensors[0].detach().requires_grad_()
        conv2d(x, dense[:, :, None, None], tensors[2].detach()).square().sum().backward()
        torch.testing.assert_close(tensors[0].grad, x.grad)


@pytest.mark.slow
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("overlap", [None, "0.5", Fraction(1, 2)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile_captures_one_graph(impl, dynamic, overlap):
    torch._dynamo.reset()
    x, weight, bias = problem()

    def call(x, weight, bias):
        if overlap is None:
            return rolling_pointwise_conv2d(x.relu(), weight, bias, 2, 0.5, impl).sin()
        return rolling_pointwise_conv2d(x.relu(), weight, bias, 2, overlap, impl).sin()

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for n in (2, 3):
        more = torch.cat([x.detach()] * n).requires_grad_()
        y, expected = compiled(more, weight, bias), call(more, weight, bias)
        torch.testing.assert_close(y, expected)
        got = torch.autograd.grad(y.sum(), (more, weight, bias))
        for tensor, right in zip(
            got, torch.autograd.grad(expected.sum(), (more, weight, bias)), strict=True
        ):
            torch.testing.assert_close(tensor, right)


def test_torch_export_keeps_the_operator_and_a_dynamic_batch():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(6, 4))

        def forward(self, x):
            return rolling_pointwise_conv2d(x, self.weight, None, 2, 0.5, "reference")

    layer = Layer()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        layer, (torch.randn(2, 8, 3, 3),), dynamic_shapes={"x": {0: batch}}
    )
    assert "ifspace.rpw" in str(program.graph)
    x = torch.randn(5, 8, 3, 3)
    torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.parametrize("impl", IMPLS)
def test_autocast_computes_in_its_type_and_gives_gradients_in_theirs(impl):
    x, weight, bias = problem()
    with torch.autocast(DEVICE.type, dtype=torch.float16):
        y = rolling_pointwise_conv2d(x, weight, bias, 2, 0.5, impl)
    assert y.dtype is torch.float16
    y.sum().backward()
    assert [tensor.grad.dtype for tensor in (x, weight, bias)] == [torch.float32] * 3
    right = rolling_pointwise_conv2d(x, weight, bias, 2, 0.5, "reference")
    torch.testing.assert_close(y.float(), right, atol=0.03, rtol=0.01)


def test_autocast_leaves_float64_alone():
    x, weight, bias = problem(torch.float64)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        y = rolling_pointwise_conv2d(x, weight, bias, 2, 0.5)
    torch.testing.assert_close(y, rolling_pointwise_conv2d(x, weight, bias, 2, 0.5), rtol=0, atol=0)


@only_on_a_card
def test_inside_a_cuda_graph_and_on_the_current_stream():
    x, weight, bias = (tensor.detach() for tensor in problem())
    expected = rolling_pointwise_conv2d(x, weight, bias, 2, 0.5, "reference")
    rolling_pointwise_conv2d(x, weight, bias, 2, 0.5)  # the first call compiles
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        rolling_pointwise_conv2d(x, weight, bias, 2, 0.5)  # compiles outside the graph
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = rolling_pointwise_conv2d(x, weight, bias, 2, 0.5)
    y.fill_(float("nan"))
    graph.replay()
    torch.testing.assert_close(y, expected, atol=2e-3, rtol=2e-3)


SHAPES = {
    "more axes": (ops.rpw, lambda x, w, b: (x, w[:, :, None], b), r"weight has .*\[-1, -1\]"),
    "short bias": (ops.rpw, lambda x, w, b: (x, w, b[:1]), r"bias .*: got \[1\]; .* \[6\]"),
    "gradient of another layer": (
        ops.rpw_input_grad,
        lambda x, w, b: (x[:, :5], w, 8),
        r"grad has .* \[-1, 6, -1, -1\]",
    ),
    "pixels of another image": (
        ops.rpw_weight_grad,
        lambda x, w, b: (x[:, :6], x[..., 1:], 4),
        r"x has .* \[2, -1, 3, 2\]",
    ),
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("impl", IMPLS)
def test_operators_raise_for_shapes_that_do_not_fit(impl, case):
    op, misfits, pattern = SHAPES[case]
    arguments = misfits(*(tensor.detach() for tensor in problem()))
    more = (2, False, impl) if op is ops.rpw_weight_grad else (2, impl)
    with pytest.raises(KernelError, match=pattern):
        op(*arguments, *more)
    with pytest.raises(KernelError, match=pattern):
        op(
            *(
                tensor.to("meta") if isinstance(tensor, torch.Tensor) else tensor
                for tensor in arguments
            ),
            *more,
        )


def test_operators_raise_for_an_unknown_implementation():
    x, weight, bias = problem()
    with pytest.raises(KernelError, match="unknown implementation: got 'fast'"):
        ops.rpw(x, weight, bias, 2, "fast")


@pytest.mark.slow
def test_groups_that_do_not_divide_raise_under_a_compiler():
    def call(x, weight):
        return rolling_pointwise_conv2d(x, weight, None, 3, 0)

    with pytest.raises(Exception, match="do not divide"):
        torch.compile(call, backend="eager")(torch.randn(1, 8, 2, 2), torch.randn(6, 2))


@only_on_a_card
def test_auto_is_triton_on_a_card_where_it_has_the_type():
    x = problem()[0]
    assert choose_implementation(x) == choose_implementation(x.half()) == "triton"
    assert choose_implementation(x.double()) == "reference"


@only_on_a_card
def test_it_runs_on_the_current_stream():
    x, weight, bias = (tensor.detach() for tensor in problem())
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        # The first call compiles tiles and waits for the stream while it times them.
        rolling_pointwise_conv2d(x, weight, bias, 2, 0.5)
        torch.cuda._sleep(1_000_000_000)
        y = rolling_pointwise_conv2d(x, weight, bias, 2, 0.5)
        busy = not side.query()
    side.synchronize()
    assert busy
    right = rolling_pointwise_conv2d(x, weight, bias, 2, 0.5, "reference")
    torch.testing.assert_close(y, right, atol=2e-3, rtol=2e-3)
