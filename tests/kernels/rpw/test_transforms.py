"""Forward mode and torch.func: each transform of RPW is that of a dense pointwise convolution."""

import warnings
from functools import partial

import pytest
import torch
from devices import only_on_a_cpu
from torch import func
from torch.autograd import forward_ad
from torch.nn.functional import conv2d

from ifspace.errors import KernelError
from ifspace.kernels.fused import fused_dw_rpw
from ifspace.kernels.fused import operator as dw_rpw_ops
from ifspace.kernels.rpw import operator as ops
from ifspace.kernels.rpw import rolling_pointwise_conv2d
from ifspace.kernels.windows import dense_weight, windows_of

# torch itself scripts its formulas when forward mode is first asked for.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
    only_on_a_cpu,
]

IMPLS = ("reference", "cpu")
WINDOWS = windows_of(4, 5, 2, 0.5)
DOUBLE = partial(torch.randn, dtype=torch.float64)


def tensors(seed=0):
    torch.manual_seed(seed)
    return DOUBLE(2, 4, 2, 1), DOUBLE(5, 2), DOUBLE(5)


def layer(impl, order="rolling"):
    return lambda x, weight, bias: rolling_pointwise_conv2d(x, weight, bias, 2, 0.5, impl, order)


def dense(x, weight, bias, order="rolling"):
    ones = torch.eye(10).double().reshape(10, 5, 2)
    place = torch.stack([dense_weight(one, 4, WINDOWS.step, order=order) for one in ones])
    return conv2d(x, torch.einsum("p,pfc->fc", weight.flatten(), place)[:, :, None, None], bias)


def loss(call):
    return lambda *tensors: call(*tensors).sin().square().sum()


ALL = (0, 1, 2)
TRANSFORMS = {
    "jvp": lambda f: func.jvp(f, tensors(), tensors(1)),
    "jvp by the bias": lambda f: func.jvp(
        lambda b: f(*tensors()[:2], b), tensors()[2:], tensors(1)[2:]
    ),
    "jvp by the weight": lambda f: func.jvp(
        lambda w: f(tensors()[0], w, None), tensors()[1:2], tensors(1)[1:2]
    ),
    "jvp of jvp": lambda f: func.jvp(
        lambda *t: func.jvp(f, t, tensors(1))[1], tensors(), tensors(2)
    ),
    "jacfwd of jacfwd": lambda f: func.jacfwd(func.jacfwd(loss(f), ALL), ALL)(*tensors()),
    "vjp": lambda f: func.vjp(f, *tensors())[1](torch.ones(2, 5, 2, 1).double()),
    "grad": lambda f: func.grad(loss(f), ALL)(*tensors()),
    "grad of grad": lambda f: func.grad(
        lambda *t: sum(g.sin().sum() for g in func.grad(loss(f), ALL)(*t)), ALL
    )(*tensors()),
    "jacrev": lambda f: func.jacrev(f, ALL)(*tensors()),
    "jacfwd": lambda f: func.jacfwd(f, ALL)(*tensors()),
    "hessian": lambda f: func.hessian(loss(f), ALL)(*tensors()),
    "jacrev of jacfwd": lambda f: func.jacrev(func.jacfwd(loss(f), ALL), ALL)(*tensors()),
    "jvp of grad": lambda f: func.jvp(func.grad(loss(f), ALL), tensors(), tensors(1)),
    "vmap by x": lambda f: func.vmap(f, (1, None, None))(DOUBLE(2, 3, 4, 2, 1), *tensors()[1:]),
    "vmap by weight": lambda f: func.vmap(f, (None, 2, 0))(
        tensors()[0], DOUBLE(5, 2, 3), DOUBLE(3, 5)
    ),
    "vmap by all": lambda f: func.vmap(f)(DOUBLE(3, 2, 4, 2, 1), DOUBLE(3, 5, 2), DOUBLE(3, 5)),
    "vmap of vmap": lambda f: func.vmap(func.vmap(f, (0, None, None)), (None, 0, None))(
        DOUBLE(3, 2, 4, 2, 1), DOUBLE(2, 5, 2), DOUBLE(5)
    ),
    "gradients by picture": lambda f: func.vmap(func.grad(loss(f), ALL), (0, None, None))(
        DOUBLE(3, 1, 4, 2, 1), *tensors()[1:]
    ),
    "grad of vmap": lambda f: func.grad(
        lambda x, *t: loss(func.vmap(f, (0, None, None)))(x, *t), ALL
    )(DOUBLE(3, 1, 4, 2, 1), *tensors()[1:]),
}


@pytest.mark.slow
@pytest.mark.parametrize("order", ["rolling", "blocked"])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("case", TRANSFORMS)
def test_each_transform_is_that_of_the_dense_convolution(case, impl, order):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)  # a vmap without a rule warns
        torch.manual_seed(5)
        got = TRANSFORMS[case](layer(impl, order))
    torch.manual_seed(5)
    expected = TRANSFORMS[case](partial(dense, order=order))
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


def test_an_outer_backward_inside_two_forward_modes_raises_and_is_not_zero():
    _, back = func.vjp(layer("cpu"), *tensors())
    grad = DOUBLE(2, 5, 2, 1)
    with pytest.raises(KernelError, match="forward mode inside forward mode") as refusal:
        func.jacfwd(func.jacfwd(lambda grad: back(grad.sin())[0]))(grad)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["rolling", "blocked"])
@pytest.mark.parametrize("case", ["jvp", "vjp", "grad", "vmap by x", "vmap by all"])
def test_a_transform_inside_compiled_code(case, order):
    torch._dynamo.reset()
    compiled = torch.compile(lambda: TRANSFORMS[case](layer("cpu", order)), backend="aot_eager")
    torch.manual_seed(5)
    got = compiled()
    torch.manual_seed(5)
    expected = TRANSFORMS[case](partial(dense, order=order))
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dual", [(0,), (1,), (2,), (0, 1, 2)])
def test_dual_tensors_forward_and_then_backward(dual, impl):
    results = []
    for call in (layer(impl), dense):
        with forward_ad.dual_level():
            leaves = [tensor.requires_grad_() for tensor in tensors()]
            duals = [
                forward_ad.make_dual(t, d) if n in dual else t
                for n, (t, d) in enumerate(zip(leaves, tensors(1), strict=True))
            ]
            y = call(*duals)
            once = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
            tangents = [forward_ad.unpack_dual(tensor).tangent for tensor in (y, *once)]
            again = torch.autograd.grad(sum(t.sin().sum() for t in tangents), leaves)
        results.append((y, once, tangents, again))
    torch.testing.assert_close(*results, atol=1e-10, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("impl", IMPLS)
def test_gradcheck_in_forward_mode(impl):
    leaves = [tensor.requires_grad_() for tensor in tensors()]
    options = {"check_forward_ad": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(layer(impl), leaves, check_batched_forward_grad=True, **options)
    assert torch.autograd.gradgradcheck(layer(impl), leaves, check_fwd_over_rev=True)


def test_the_triton_kernels_are_transformed_too():
    x, weight, bias = (tensor.float() for tensor in tensors())
    expected = func.jvp(dense, tensors(), tensors(1))[1]
    got = func.jvp(layer("triton"), (x, weight, bias), tuple(t.float() for t in tensors(1)))[1]
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_batch_of_gradients_is_that_of_a_convolution():
    grads = DOUBLE(3, 2, 5, 2, 1)

    def batch(f):
        inputs = [tensor.requires_grad_() for tensor in tensors()]
        return torch.autograd.grad(f(*inputs), inputs, grads, is_grads_batched=True)

    for own, expected in zip(batch(layer("cpu")), batch(dense), strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("number", range(3), ids=["x", "weight", "bias"])
def test_a_tensor_that_has_left_its_transform_is_computed_with(number):
    """torch wraps it for good, without a sign of its own."""
    left = []

    def leave(tensor):
        left.append(tensor)
        return tensor.sum()

    inputs = [tensor.float() for tensor in tensors()]  # in float64 torch computes
    expected = layer("cpu")(*inputs)
    func.grad(leave)(inputs[number])
    inputs[number] = left[0]
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            assert torch.equal(layer("cpu")(*inputs), expected)


def test_without_a_transform_the_operator_runs():
    """torch names the backward of an operator after it; torch.func needs another one.

    On a CPU, where nothing of torch has to see the call, the kernel is entered directly.
    """

    def backward_name():
        x, weight, bias = tensors()
        return type(layer("cpu")(x.requires_grad_(), weight, bias).grad_fn).__name__

    assert "DirectRpw" in backward_name()
    with forward_ad.dual_level():
        assert "ifspace_rpw" in backward_name()
        dual = forward_ad.make_dual(*tensors()[:1] * 2).requires_grad_()
        assert "ifspace_rpw" not in type(layer("cpu")(dual, *tensors()[1:]).grad_fn).__name__


def test_an_operator_raises_for_a_tangent_that_it_would_lose():
    x, weight, bias = tensors()
    dw = DOUBLE(4, 1, 3, 3)
    free = weight.clone().requires_grad_()
    y = layer("cpu")(x, free, bias)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        grad = forward_ad.make_dual(y.detach(), y.detach())
        for call in (
            lambda: ops.rpw(dual, weight, bias, 1, "cpu"),
            lambda: ops.rpw_input_grad(grad, weight, 4, 1, "cpu"),
            lambda: ops.rpw_weight_grad(grad, x, 2, 1, True, "cpu"),
            lambda: torch.autograd.grad(y, free, grad),
            lambda: dw_rpw_ops.dw_rpw(
                dual, dw, None, None, weight, None, None, 1, 1, None, None, "reference"
            ),
        ):
            with pytest.raises(KernelError, match="no forward-mode derivative: got a tensor with"):
                call()


FUSED = (DOUBLE(2, 4, 3, 3), DOUBLE(4, 1, 3, 3), DOUBLE(5, 2), DOUBLE(4), DOUBLE(5))


def fused(x, dw_weight, weight, scale1, shift2):
    return fused_dw_rpw(
        x,
        dw_weight,
        weight,
        2,
        0.5,
        scale1=scale1,
        shift2=shift2,
        stride=2,
        activation1="silu",
        impl="reference",
    )


def fused_dense(x, dw_weight, weight, scale1, shift2):
    middle = conv2d(x, dw_weight, None, 2, 1, groups=4) * scale1[:, None, None]
    return dense(torch.nn.functional.silu(middle), weight, shift2)


FIVE = (0, 1, 2, 3, 4)
FUSED_TRANSFORMS = {
    "jvp": lambda f: func.jvp(f, FUSED, tuple(t.cos() for t in FUSED)),
    "grad": lambda f: func.grad(loss(f), FIVE)(*FUSED),
    "hessian": lambda f: func.hessian(loss(f), (2, 3))(*FUSED),
    "gradients by picture": lambda f: func.vmap(
        lambda x, *t: func.grad(loss(f), FIVE)(x[None], *t), (0, None, None, None, None)
    )(*FUSED),
}


@pytest.mark.parametrize("case", FUSED_TRANSFORMS)
def test_the_fused_block_is_transformed_layer_by_layer(case):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)  # a vmap without a rule warns
        got = FUSED_TRANSFORMS[case](fused)
    torch.testing.assert_close(got, FUSED_TRANSFORMS[case](fused_dense), atol=1e-10, rtol=1e-10)


def test_the_fused_block_of_dual_tensors():
    results = []
    for call in (fused, fused_dense):
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(t, t.cos()) for t in FUSED]
            results.append(forward_ad.unpack_dual(call(*duals)).tangent)
    torch.testing.assert_close(*results, atol=1e-10, rtol=1e-10)
