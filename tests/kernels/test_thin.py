"""Grouped, depthwise and pointwise convolutions by compiled loops, against torch in float64."""

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ifspace.kernels import costs, thin
from ifspace.kernels.thin import explain_thin_conv2d, thin_conv2d

# C_in, C_out, kernel, stride, padding, groups
LAYERS = [
    (16, 16, 3, 1, 1, 16),  # DW
    (16, 16, 5, 2, 2, 16),
    (12, 24, 3, 2, 1, 12),
    (16, 32, 1, 1, 0, 4),  # GPW
    (24, 24, 1, 2, 0, 3),
    (16, 24, 3, 1, 1, 2),  # GC
    (18, 12, 3, 2, 0, 3),
    (7, 13, 1, 1, 0, 1),  # PW
    (6, 6, 2, 1, 1, 3),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every function runs compiled, and memory that is not written is NaN."""
    choice = costs.Choice(costs.COMPILED, (), "")
    monkeypatch.setattr(thin, "_choice", lambda *_: choice)
    thin._known_stage.cache_clear()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    thin._known_stage.cache_clear()


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def results(
    function: Callable[..., Tensor],
    options: tuple[int, ...],
    dtype: torch.dtype,
    *leaves: Tensor,
) -> tuple[Tensor, ...]:
    """Return the output and all gradients, for a gradient of the output that the dtype has."""
    own = [leaf.detach().clone(memory_format=torch.preserve_format) for leaf in leaves]
    for leaf in own:
        leaf.requires_grad_()
    stride, padding, groups = options
    y = function(*own, stride=stride, padding=padding, groups=groups)
    grad = torch.linspace(-1, 1, y.numel()).view(y.shape).to(dtype).to(y.dtype)
    return (y.detach(), *torch.autograd.grad(y, own, grad))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize(("dtype", "layout"), list(product(DTYPES, LAYOUTS)))
def test_outputs_and_gradients(
    layer: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, compiled: None
) -> None:
    c_in, c_out, kernel, *options = layer
    weight = random(c_out, c_in // options[2], kernel, kernel).to(dtype)
    bias = random(c_out).to(dtype)
    for images, height, width in ((1, 5, 3), (3, 13, 17), (2, 7, 7)):
        x = random(images, c_in, height, width).to(dtype).contiguous(memory_format=layout)
        got = results(thin_conv2d, tuple(options), dtype, x, weight, bias)
        leaves = (tensor.double() for tensor in (x, weight, bias))
        expected = results(conv2d, tuple(options), dtype, *leaves)
        for name, own, exact in zip(("y", "x", "weight", "bias"), got, expected, strict=True):
            assert own.dtype == dtype
            scale = exact.abs().max().clamp(min=1)
            units = 2 if name in ("x", "bias") else 0.6  # these may be torch's
            allowed = 2e-6 if dtype == torch.float32 else units * torch.finfo(dtype).eps
            assert (own - exact).abs().max() / scale <= allowed, (name, images, height, width)
        assert got[0].is_contiguous(memory_format=layout)


def test_derivatives_of_the_gradients(compiled: None) -> None:
    """The second derivative, by torch's own formula, is that of conv2d."""
    x, weight = random(2, 8, 5, 4).requires_grad_(), random(8, 1, 3, 3).requires_grad_()

    def second(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        y = function(x, weight, padding=1, groups=8)
        by_x, by_weight = torch.autograd.grad(y.pow(3).sum(), (x, weight), create_graph=True)
        return torch.autograd.grad(by_x.pow(2).sum() + by_weight.pow(2).sum(), (x, weight))

    for own, expected in zip(second(thin_conv2d), second(conv2d), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-2)


def test_a_batch_of_gradients_is_that_of_a_convolution(compiled: None) -> None:
    x, weight = random(2, 8, 5, 4).requires_grad_(), random(8, 1, 3, 3).requires_grad_()
    grads = random(3, 2, 8, 5, 4)

    def batch(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        y = function(x, weight, padding=1, groups=8)
        return torch.autograd.grad(y, (x, weight), grads, is_grads_batched=True)

    for own, expected in zip(batch(thin_conv2d), batch(conv2d), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_torch_computes_what_the_loops_do_not_have() -> None:
    x, weight = random(1, 4, 5, 5), random(4, 1, 3, 3)
    for arguments in (
        (x.double(), weight.double()),
        (x[:0], weight),
        (x[0], weight),
    ):
        got = thin_conv2d(*arguments, padding=1, groups=4)
        assert torch.equal(got, conv2d(*arguments, padding=1, groups=4))
    for padding in ((1, 0), [1, 1], "same"):
        got = thin_conv2d(x, weight, stride=(1, 1), padding=padding, groups=4)
        assert torch.equal(got, conv2d(x, weight, padding=padding, groups=4))
    with torch.autocast("cpu", torch.bfloat16):
        assert thin_conv2d(x, weight, groups=4).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="Given groups=3"):
        thin_conv2d(x, weight, groups=3)


@pytest.mark.slow
def test_compilers_and_transforms_see_a_plain_convolution() -> None:
    x, weight = random(2, 8, 6, 6), random(8, 1, 3, 3)

    def layer(x: Tensor) -> Tensor:
        return thin_conv2d(x, weight, padding=1, groups=8)

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return layer(x)

    expected = conv2d(x, weight, padding=1, groups=8)
    exported = torch.export.export(Layer(), (x,))
    assert "conv2d" in exported.graph_module.code
    assert "ifspace" not in exported.graph_module.code
    for own in (
        torch.compile(layer, backend="eager", fullgraph=True)(x),
        torch.func.vmap(lambda image: layer(image[None])[0])(x),
        torch.func.vjp(layer, x)[0],
    ):
        torch.testing.assert_close(own, expected)


def test_the_way_is_explained() -> None:
    x, weight = random(1, 64, 28, 28), random(64, 4, 1, 1)
    lines = explain_thin_conv2d(x, weight, groups=16).splitlines()
    assert [line.split(":")[0] for line in lines] == list(costs.FUNCTIONS)
    assert "grouped" in lines[0]
    assert costs.load().machine in lines[0]
    assert "do not compute it" in explain_thin_conv2d(x.double(), weight.double(), groups=16)


def test_tensors_of_onednn_take_torchs_convolution() -> None:
    x, weight = torch.ones(1, 16, 6, 6), torch.ones(16, 1, 3, 3)
    y = thin_conv2d(x.to_mkldnn(), weight.to_mkldnn(), groups=16)
    assert torch.equal(y.to_dense(), thin_conv2d(x, weight, groups=16))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"machine": "a", "rows": [], "widest": {}}',
        '{"machine": "a", "rows": {"float32 nchw pointwise forward compiled": [1, 2, 3, 4, 5]}}',
        '{"machine": "a", "rows": {"float32 nchw pointwise forward compiled": [1.0, 2.0]}, '
        '"widest": {}}',
        '{"machine": "a", "rows": {"float32 nchw pointwise forward compiled": "abcde"}, '
        '"widest": {}}',
        '{"machine": "a", "rows": {"float32 nchw pointwise forward compiled": [1, 2, 3, 4, 5]}, '
        '"widest": [256]}',
    ],
)
def test_files_without_the_constants_of_this_model_are_passed_over(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    file = tmp_path / "costs.json"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("IFSPACE_COSTS", str(file))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    for capability, packaged in zip(("AVX512", "AVX2"), costs.PACKAGED, strict=True):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        values = json.loads(packaged.read_text(encoding="utf-8"))
        assert costs.load.__wrapped__() == costs.Costs(**values)


def test_rows_that_fill_no_vector_take_as_long_as_those_that_do() -> None:
    ten, sixteen = (costs.Layer(64, 64, 8, 3, 100, 10 * row, row, 8, 8, False) for row in (10, 16))
    assert ten.features(costs.COMPILED)[2:4] == sixteen.features(costs.COMPILED)[2:4]
    assert ten.features(costs.GROUPED)[2] == 0.625 * sixteen.features(costs.GROUPED)[2]


@pytest.mark.parametrize(
    ("fan_in", "compiled_ns", "way"),
    [(8, 89.0, costs.COMPILED), (8, 91.0, costs.GROUPED), (16, 10.0, costs.GROUPED)],
    ids=["much faster", "nearly as fast", "wider than any that was measured"],
)
def test_the_loops_are_chosen_where_they_are_surely_faster(
    fan_in: int, compiled_ns: float, way: str
) -> None:
    rows = {
        f"float32 nchw spatial forward {way}": [ns, 0, 0, 0, 0]
        for way, ns in ((costs.COMPILED, compiled_ns), (costs.GROUPED, 100.0))
    }
    machine = costs.Costs("a machine", rows, {"spatial": 8})
    layer = costs.Layer(64, 64, fan_in, 3, 784, 784, 28, fan_in, 64 // fan_in, False)
    assert machine.choose(layer, "forward", torch.float32, False).way == way


def test_a_stride_has_constants_of_its_own_where_it_was_measured() -> None:
    rows = {
        f"float32 nchw {shape} forward {way}": [ns, 0, 0, 0, 0]
        for shape, times in (("depthwise", (10.0, 100.0)), ("strided depthwise", (100.0, 10.0)))
        for way, ns in zip((costs.COMPILED, costs.GROUPED), times, strict=True)
    }
    sizes = 64, 64, 1, 3, 784, 196, 14, 1, 64, False
    chosen = {}
    for constants in (rows, dict(list(rows.items())[:2])):
        machine = costs.Costs("a machine", constants, {"depthwise": 1, "strided depthwise": 1})
        for stride in (1, 2):
            layer = costs.Layer(*sizes, stride)
            way = machine.choose(layer, "forward", torch.float32, False).way
            chosen[len(constants), stride] = way
    assert chosen == {
        (4, 1): costs.COMPILED,
        (4, 2): costs.GROUPED,
        (2, 1): costs.COMPILED,
        (2, 2): costs.COMPILED,
    }


def test_constants_that_cannot_be_kept_are_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "costs.json"
    monkeypatch.setenv("IFSPACE_COSTS", str(path))
    monkeypatch.setattr(costs, "measure", None)
    with pytest.raises(SystemExit, match=r"^2$"):
        costs.main()
    assert f"Error: the constants cannot be kept: got {path}: " in capsys.readouterr().err


def test_measured_constants_choose_the_least_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    file = f"{tmp_path}/costs.json"
    monkeypatch.setenv("IFSPACE_COSTS", file)
    monkeypatch.setattr(costs, "SAMPLES", costs.SAMPLES[15:17])
    monkeypatch.setattr(costs, "DTYPES", (torch.float32,))
    monkeypatch.setattr(costs, "REPEATS", 2)
    before = costs.load()
    costs.main()
    costs.load.cache_clear()
    try:
        own = costs.load()
        assert own.machine == costs.machine()
        assert len(own.rows) == 2 * 3 * 3  # layouts, functions, ways
        layer = costs.SAMPLES[0].layer("forward")
        for way in layer.ways:
            assert own.time_ns(layer, "forward", way, torch.float32, False) > 0
    finally:
        costs.load.cache_clear()
        monkeypatch.undo()
        assert costs.load() == before
