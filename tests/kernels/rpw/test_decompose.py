"""RPW written out in plain operators: the same numbers, and nothing foreign in the program."""

import pytest
import torch

from ifspace.kernels.rpw import operator as ops
from ifspace.kernels.rpw import rolling_pointwise_conv2d
from ifspace.kernels.rpw.operator import (
    decompositions,
    rpw_decomposed,
)
from ifspace.kernels.windows import windows_at

# torch 2.13 copies what it warns of when a program is decomposed.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"
)

# C_in, C_out, w, s and the way: windows side by side, or a dense weight.
CASES = [
    (8, 8, 2, 2, "grouped"),
    (8, 24, 4, 2, "grouped"),  # filters of a window apart, windows that wrap
    (8, 8, 8, 4, "grouped"),  # one group
    (6, 6, 3, 1, "grouped"),
    (12, 12, 4, 3, "grouped"),
    (8, 6, 4, 2, "dense"),  # the last windows have no filter
    (8, 16, 8, 1, "dense"),  # eight copies of the input
    (12, 7, 4, 3, "dense"),
    (5, 3, 5, 2, "dense"),
    (4, 2, 1, 1, "dense"),
    (1, 1, 1, 1, "grouped"),
]


def problem(c_in, c_out, w):
    torch.manual_seed(0)
    shapes = ((2, c_in, 3, 4), (c_out, w), (c_out,))
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("c_in", "c_out", "w", "s", "way"), CASES)
def test_the_decomposition_computes_the_operator(c_in, c_out, w, s, way, with_bias):
    x, weight, bias = problem(c_in, c_out, w)
    bias = bias if with_bias else None
    for order in ("rolling", "blocked"):
        if order == "rolling" or windows_at(c_in, c_out, w, s).distinct <= c_out:
            y = rpw_decomposed(x, weight, bias, s, "reference", order)
            torch.testing.assert_close(y, ops.rpw(x, weight, bias, s, "reference", order))


@pytest.mark.slow
@pytest.mark.parametrize(("c_in", "c_out", "w", "s", "way"), CASES)
def test_the_program_has_only_operators_of_torch(c_in, c_out, w, s, way):
    x, *_ = problem(c_in, c_out, w)
    program = exported(c_in, c_out, w, s, x)
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not [name for name in names if "ifspace" in name]
    assert ("aten.scatter.src" in names) == (way == "dense")
    copied = windows_at(c_in, c_out, w, s).distinct * w
    assert ("aten.cat.default" in names) == (way == "grouped" and copied > c_in)
    y = program.module()(torch.cat([x, x, x]))
    torch.testing.assert_close(y[:2], y[2:4])


def exported(c_in, c_out, w, s, x):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(c_out, w, dtype=torch.float64))

        def forward(self, x):
            return ops.rpw(x, self.weight, None, s, "reference")

    layer = Layer()
    batch = torch.export.Dim("batch")
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: batch},))
    assert "ifspace.rpw" in str(program.graph)
    decomposed = program.run_decompositions(decompositions())
    torch.testing.assert_close(decomposed.module()(x), layer(x))
    return decomposed


def test_the_table_decomposes_the_operator_of_the_function():
    assert list(decompositions()) == [torch.ops.ifspace.rpw.default]
    x, weight, bias = problem(8, 8, 4)
    expected = rolling_pointwise_conv2d(x, weight, bias, 2, 0.5, impl="reference")
    (decomposed,) = decompositions().values()
    torch.testing.assert_close(decomposed(x, weight, bias, 2, "triton"), expected)
