"""The module of every kind: what it computes, how it is initialised, which errors it raises."""

import copy
import pickle
import warnings
from dataclasses import replace

import pytest
import torch
import witness
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ifspace.block import Layer, SizedLayer
from ifspace.errors import BlockError, IfspaceError, KernelError, SettingError
from ifspace.kernels.thin import thin_conv2d
from ifspace.kinds import KINDS
from ifspace.nn import (
    RollingPointwiseConv1d,
    RollingPointwiseConv2d,
    build,
    explain,
    fuse,
    layer_module,
)
from ifspace.nn.layers import MODULES

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = {
    "PW": nn.Conv2d,
    "GC": nn.Conv2d,
    "DW": nn.Conv2d,
    "GPW": nn.Conv2d,
    "RPW": RollingPointwiseConv2d,
    "SH": nn.ChannelShuffle,
    "CONV": nn.Conv2d,
}


def layer(text: str, c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    return layer_module(SizedLayer(Layer.parse(text), c_in, c_out), stride, bias=True)


@st.composite
def layers(draw, kinds=tuple(KINDS)) -> SizedLayer:
    """A layer of any kind; one that mixes may change the width, in one or two dimensions."""
    block = draw(witness.blocks(12, 1, kinds))
    (layer,) = block.layers
    factor = draw(st.sampled_from([1, 2])) if layer.conv.mixing else 1
    return SizedLayer(layer, 12, 12 * factor, draw(st.sampled_from([1, 2])))


def test_there_is_a_module_for_every_kind():
    assert list(CLASSES) == list(KINDS) == list(MODULES)
    for kind, module in CLASSES.items():
        groups = 4 if KINDS[kind].takes_groups else None
        assert type(layer_module(SizedLayer(Layer(kind, groups), 8, 8))) is module


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_has_the_parameters_of_its_kind(kind: str):
    @given(layers((kind,)))
    def law(sized: SizedLayer) -> None:
        module = layer_module(sized, device="meta")
        assert sum(weight.numel() for weight in module.parameters()) == sized.params

    law()


@given(layers(), st.booleans())
def test_what_a_layer_computes(sized: SizedLayer, bias: bool):
    module = layer_module(sized, bias=bias, dtype=torch.float64)
    plain = witness.torch_layer(sized)
    assert (
        sum(p.numel() for p in module.parameters())
        == sized.params + (bias and sized.conv.writes) * sized.c_out
    )
    if sized.params:
        plain.weight.data = module.weight.data.reshape(plain.weight.shape)
    x = torch.randn(2, 12, *[5, 4][: sized.dims], dtype=torch.float64)
    expected = plain(x)
    if bias and sized.params:
        expected = expected + module.bias.reshape(-1, *[1] * sized.dims)
    torch.testing.assert_close(module(x), expected)


@given(layers())
def test_a_stride_is_that_of_the_plain_convolution(sized: SizedLayer):
    if sized.layer.kind in ("RPW", "SH"):
        with pytest.raises(BlockError, match=f"{sized.layer.kind} takes no stride: got 2"):
            layer_module(sized, stride=2)
        return
    module, plain = layer_module(sized, stride=2, dtype=torch.float64), witness.torch_layer(sized)
    plain.weight.data = module.weight.data
    x = torch.randn(2, 12, *[7, 6][: sized.dims], dtype=torch.float64)
    every_second = (..., *[slice(None, None, 2)] * sized.dims)
    torch.testing.assert_close(module(x), plain(x)[every_second])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: layer("PW", 8, 6), lambda: nn.Conv2d(8, 6, 1)),
        (lambda: layer("GC(4)", 8, 16), lambda: nn.Conv2d(8, 16, 3, 1, 1, groups=4)),
        (lambda: layer("DW(5)", 8, 8, stride=2), lambda: nn.Conv2d(8, 8, 5, 2, 2, groups=8)),
        (lambda: layer("GPW(2)", 8, 4), lambda: nn.Conv2d(8, 4, 1, groups=2)),
        # A window is drawn as the filter of a group is: both have a fan-in of two.
        (lambda: RollingPointwiseConv2d(8, 16, 4), lambda: nn.Conv2d(8, 16, 1, groups=4)),
    ],
)
def test_weights_are_drawn_as_torch_draws_its_own(ours, theirs):
    modules = []
    for make in (ours, theirs):
        torch.manual_seed(3)
        modules.append(make())
    first, second = (module.state_dict() for module in modules)
    assert list(first) == list(second) == ["weight", "bias"]
    for key in first:
        torch.testing.assert_close(
            first[key].flatten(), second[key].flatten(), rtol=0, atol=0, msg=key
        )


def test_the_representation_of_a_rolling_layer_without_bias():
    rolling = RollingPointwiseConv2d(12, 18, 3, "1/3", bias=False, impl="reference")
    assert str(rolling) == (
        "RollingPointwiseConv2d(12, 18, groups=3, overlap=1/3, bias=False, impl=reference)"
    )
    assert list(rolling.state_dict()) == ["weight"]
    assert rolling.bias is None


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_copy_computes_the_same(kind, again):
    layer = Layer(kind, 4 if KINDS[kind].takes_groups else None)
    module = layer_module(SizedLayer(layer, 8, 8), bias=True)
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(again(module)(x), module(x), rtol=0, atol=0)
    assert str(again(module)) == str(module)


def test_a_device_without_memory_takes_the_shapes_through():
    for kind in CLASSES:
        layer = Layer(kind, 4 if KINDS[kind].takes_groups else None)
        module = layer_module(SizedLayer(layer, 8, 8), device="meta", dtype=torch.float16)
        y = module(torch.empty(2, 8, 6, 6, device="meta", dtype=torch.float16))
        assert (y.shape, y.dtype, y.device.type) == ((2, 8, 6, 6), torch.float16, "meta")


def test_a_sequence_rolls_as_a_feature_map_does():
    layer = RollingPointwiseConv1d(8, 6, 2, 0.5)
    assert layer.out_channels == 6
    x = torch.randn(2, 8, 5)
    flat = RollingPointwiseConv2d(8, 6, 2, 0.5)
    flat.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), flat(x[..., None])[..., 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer("GPW(3)", 8, 12), "got GPW.3. from 8 to 12 .*groups 1, 2, 4;"),
        (lambda: layer("GC(8)", 8, 12), "groups do not divide the widths: got GC.8."),
        (lambda: layer("GC(1,k=2)", 8, 12), "kernel size is even: got 2"),
        (lambda: layer("DW(4)", 8, 8), "kernel size is even: got 4"),
        (lambda: layer("PW", 8, 8, stride=0), "stride out of range: got 0"),
        (lambda: RollingPointwiseConv2d(8, 8, 3), "got 3 groups of 8 channels; allowed: .*1, 2, 4"),
        (lambda: RollingPointwiseConv2d(8, 8, 2, 1), "overlap out of range: got 1"),
        (lambda: RollingPointwiseConv2d(8, 0, 2), "out_channels out of range: got 0"),
        (lambda: RollingPointwiseConv2d(8, 8, impl="fast"), "unknown implementation: got 'fast'"),
        (lambda: layer_module(SizedLayer(Layer("DW"), 8, 8), 0), "stride out of range: got 0"),
        (
            lambda: RollingPointwiseConv2d(8, 8, 2)(torch.ones(1, 4, 2, 2)),
            r"wrong number of channels: got \[1, 4, 2, 2\]; allowed: \[N, 8, H, W\]",
        ),
        (lambda: RollingPointwiseConv2d(8, 8, 2)(torch.ones(8, 2, 2)), "input is not 4-D"),
    ],
)
def test_wrong_arguments_raise_one_line(make, message):
    with pytest.raises(IfspaceError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_new_kind_without_a_module_raises(monkeypatch):
    monkeypatch.setitem(KINDS, "NEW", replace(KINDS["PW"], symbol="NEW"))
    with pytest.raises(BlockError, match="no module for this kind: got NEW; allowed: PW, GC"):
        layer_module(SizedLayer(Layer("NEW"), 8, 8))


MISFITS = [
    (
        RollingPointwiseConv2d,
        (2, 32, 4, 4),
        r"input has the wrong number of channels: got \[2, 32, 4, 4\]; allowed: \[N, 64, H, W\];",
    ),
    (
        RollingPointwiseConv2d,
        (64, 4, 4),
        r"input is not 4-D: got \[64, 4, 4\]; allowed: \[N, 64, H, W\]; add the batch dimension",
    ),
    (
        RollingPointwiseConv1d,
        (2, 32, 4),
        r"input has the wrong number of channels: got \[2, 32, 4\]; allowed: \[N, 64, L\];",
    ),
    (
        RollingPointwiseConv1d,
        (2, 64, 4, 4),
        r"input is not 3-D: got \[2, 64, 4, 4\]; allowed: \[N, 64, L\];",
    ),
    (
        RollingPointwiseConv1d,
        (64, 4),
        r"input is not 3-D: got \[64, 4\]; allowed: \[N, 64, L\]; add the batch dimension",
    ),
]


@pytest.mark.parametrize(("module", "shape", "message"), MISFITS)
def test_an_input_that_does_not_fit_the_layer(module, shape, message):
    with pytest.raises(KernelError, match=message) as error:
        module(64, 128, groups=8)(torch.ones(shape))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", [RollingPointwiseConv2d, RollingPointwiseConv1d])
@pytest.mark.parametrize("value", [None, [[1.0]], 3])
def test_a_value_that_is_not_a_tensor(module, value):
    with pytest.raises(KernelError, match="x is no tensor: got"):
        module(8, 8)(value)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own
def test_forward_mode_and_torch_func_through_the_module():
    layer, x = RollingPointwiseConv2d(8, 6, groups=2, overlap=0.5).double(), torch.ones(1, 8, 2, 2)
    x = x.double()
    _, along = torch.func.jvp(layer, (x,), (x,))
    torch.testing.assert_close(along, layer(x) - layer(0 * x))


@pytest.mark.parametrize(("overlap", "order"), [(0, "rolling"), ("1/2", "blocked"), (0, "blocked")])
def test_weights_of_other_windows_are_refused(tmp_path, overlap, order: str):
    trained = nn.Sequential(RollingPointwiseConv2d(16, 16, 4, "1/2"), nn.ReLU())
    torch.save(trained.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = nn.Sequential(RollingPointwiseConv2d(16, 16, 4, overlap, order=order), nn.ReLU())
    before = other[0].weight.clone()
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"0\.weight is for other windows: got step 2, roll"):
            other.load_state_dict(state, strict=strict)
    assert torch.equal(other[0].weight, before)
    same = nn.Sequential(RollingPointwiseConv2d(16, 16, 4, "1/2"), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same.load_state_dict(state)
        copy.deepcopy(same).load_state_dict(same.state_dict())
    x = torch.randn(1, 16, 2, 2)
    assert torch.equal(same(x), trained(x))


def test_weights_that_do_not_name_their_windows_load_with_a_warning():
    trained, layer = (RollingPointwiseConv2d(16, 16, 4, "1/2") for _ in range(2))
    with pytest.warns(UserWarning, match="weight does not say which windows.* step 2, rolling"):
        layer.load_state_dict(dict(trained.state_dict()))
    assert torch.equal(layer.weight, trained.weight)


def test_for_inference_plain_convolutions_of_a_block_run_by_compiled_loops(monkeypatch):
    """Nothing that looks at a module can tell; a float64 copy has the same results."""
    calls = []

    def thin(*arguments):
        calls.append(arguments[1].shape)
        return thin_conv2d(*arguments)

    monkeypatch.setattr("ifspace.nn.layers.thin_conv2d", thin)
    block = build("DW+GPW(4)+SH(4)+GC(4)", 16, 32, stride=2, style="fog").eval()
    x = torch.randn(2, 16, 9, 7)
    expected = copy.deepcopy(block).double()(x.double()).float()
    recorded = block(x)
    assert not calls, "autograd records torch's own"
    with torch.no_grad():
        got = block(x)
        assert len(calls) == 4, "three layers and the projection"
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(recorded, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(torch.export.export(block, (x,)).module()(x), recorded)
        calls.clear()
        shapes = []
        block.layer0.register_forward_hook(lambda *_: shapes.append("layer0"))
        block.layer1 = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        block.layer3.forward = lambda x: x.new_zeros(2, 32, 5, 4)
        block(x)
        assert (len(calls), shapes) == (1, ["layer0"]), "only the projection is plain"


def test_a_module_explains_which_way_computes_its_layers():
    x = torch.randn(1, 64, 28, 28)
    block = build("DW+RPW(16,1/2)+GPW(16)", 64, style="mobilenet").eval()
    network = nn.Sequential(block, nn.Conv2d(64, 8, 1))
    lines = explain(network, x).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "0.layer0",
        "0.layer1",
        "0.layer2",
        "1",
    ]
    assert all("compiled (compiled " in line and "constants of" in line for line in lines[:3])
    assert lines[3] == "1: torch's convolution"
    assert explain(fuse(block), x) == "one pass, 3 convolutions"
    parts = nn.Sequential(block, nn.Conv2d(64, 64, 7), build("DW+PW", 64)).eval()
    assert explain(nn.Sequential(fuse(parts), nn.Conv2d(64, 8, 1)), x).splitlines() == [
        "0.0: one pass, 3 convolutions",
        "0.1: torch's convolution",
        "0.2: one pass, 2 convolutions",
        "1: torch's convolution",
    ]
    narrow, wide = nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(480, 8, 1)
    pool = nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(64, 480, 7))
    own = fuse(
        nn.Sequential(narrow, nn.ReLU(), pool, nn.Flatten(2), nn.Unflatten(2, (20, 20)), wide)
    )
    assert explain(own, x).splitlines() == [  # no layers as wide as the last were measured
        "0 to 1: one pass, 1 convolution",
        "2.2: torch's convolution",
        "5: torch's convolution, folded",
    ]
    layer = RollingPointwiseConv1d(64, 64, 16, 0.5)
    assert layer.explain(x[:, :, 0]).startswith("forward: compiled (compiled ")
    double = layer.double().explain(x[:, :, 0].double())
    assert double.startswith("forward: dense (the compiled loops do not compute it)")
    with pytest.raises(KernelError, match="L"):
        layer.explain(x)


def test_an_explanation_is_of_inference_and_changes_nothing():
    block = build("DW+GPW(4)", 16, style="mobilenet")
    before = copy.deepcopy(block.state_dict())
    assert explain(block, torch.randn(1, 16, 1, 1)).count("layer") == 2  # too few for training
    assert block.training
    assert block.layer0_bn.training
    for name, tensor in block.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with pytest.raises(SettingError, match="wrong module: got int"):
        explain(3, torch.randn(1, 16, 1, 1))
    with pytest.raises(KernelError, match="x is no tensor: got int"):
        explain(block, 3)
