"""Blocks as modules: styles, widths, strides, shortcuts, and what torch does with modules."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
import witness
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ifspace.block import Block
from ifspace.errors import IfspaceError, SettingError
from ifspace.nn import FOG, MOBILENET, PLAIN, BlockModule, Style, build

pytestmark = pytest.mark.usefixtures("one_thread")
MIXED = "DW+RPW(4,1/2)+SH(4)+GPW(4)"
INVERTED = {"bottleneck": 4, "out_channels": 24}
BACKENDS = ("eager", "aot_eager")


def parts(module: nn.Module) -> dict[str, str]:
    return {name: type(part).__name__ for name, part in module.named_children()}


@pytest.mark.slow
@given(
    witness.blocks(12), st.sampled_from([12, 24]), st.sampled_from([1, 2]), st.sampled_from([1, 2])
)
def test_what_a_block_computes(block: Block, out_channels: int, dims: int, stride: int):
    mixes = any(layer.conv.mixing for layer in block.layers)
    sized = block.at(12, out_channels if mixes else 12, dims=dims)
    stride = stride if any(layer.conv.spatial for layer in block.layers) else 1
    module = build(sized, stride=stride, dtype=torch.float64)
    plain = witness.build_torch_block(sized, stride)
    for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        mine.data = theirs.data.reshape(mine.shape)
    x = torch.randn(2, 12, *[6, 5][:dims], dtype=torch.float64)
    torch.testing.assert_close(module(x), plain(x))
    assert sum(p.numel() for p in module.parameters()) == sized.params


def test_batch_norm_and_activation_follow_every_layer_with_weights():
    assert parts(build(MIXED, 16, style=MOBILENET)) == {
        "layer0": "Conv2d",
        "layer0_bn": "BatchNorm2d",
        "layer0_act": "ReLU",
        "layer1": "RollingPointwiseConv2d",
        "layer1_bn": "BatchNorm2d",
        "layer1_act": "ReLU",
        "layer2": "ChannelShuffle",
        "layer3": "Conv2d",
        "layer3_bn": "BatchNorm2d",
        "layer3_act": "ReLU",
    }


def test_fog_has_one_relu_after_the_sum():
    same = build("DW+PW", 16, style=FOG)
    assert list(parts(same)) == ["layer0", "layer0_bn", "layer1", "layer1_bn", "act"]
    wider = build("DW+PW", 16, 32, style=FOG)
    assert list(parts(wider))[-3:] == ["shortcut", "shortcut_bn", "act"]
    strided = build("DW+PW", 16, stride=2, style=FOG)
    assert strided.shortcut.stride == (2, 2)
    assert strided(torch.randn(2, 16, 7, 8)).shape == (2, 16, 4, 4)


@pytest.mark.parametrize(
    ("style", "activations"),
    [
        (Style(), ["layer0_act", "layer1_act", "layer2_act"]),
        (Style(where="between"), ["layer0_act", "layer1_act"]),
        (Style(where="end"), ["layer3_act"]),
        (Style(shortcut="auto"), ["layer0_act", "layer1_act", "act"]),
        (Style(shortcut="auto", where="between"), ["layer0_act", "layer1_act"]),
        (Style(shortcut="auto", where="end"), ["act"]),
        (Style(shortcut="identity", activation=None), []),
    ],
)
def test_where_activations_stand(style, activations):
    # The shuffle at the end writes nothing: the last convolution is the layer before it.
    module = build("PW+DW+GPW(4)+SH(4)", 16, style=style)
    assert [name for name in parts(module) if "act" in name] == activations


@pytest.mark.parametrize(
    ("style", "by_hand"),
    [
        (FOG, lambda b, x: b.layer1_bn(b.layer1(b.layer0_bn(b.layer0(x)))).add(x).relu()),
        (
            Style(shortcut="projection", batch_norm=False, activation="silu", bias=True),
            lambda b, x: nn.functional.silu(
                b.layer1(nn.functional.silu(b.layer0(x))) + b.shortcut(x)
            ),
        ),
        (
            Style(where="end", activation="hardswish"),
            lambda b, x: nn.functional.hardswish(b.layer1_bn(b.layer1(b.layer0_bn(b.layer0(x))))),
        ),
        (
            Style(shortcut="projection", where="between", activation="relu6"),
            lambda b, x: (
                b.layer1_bn(b.layer1(nn.functional.relu6(b.layer0_bn(b.layer0(x)))))
                + b.shortcut_bn(b.shortcut(x))
            ),
        ),
    ],
)
def test_what_a_styled_block_computes(style, by_hand):
    module = build("DW+RPW(4,1/2)", 16, style=style, dtype=torch.float64)
    module.train()(3 * torch.randn(8, 16, 5, 5, dtype=torch.float64))  # moves the statistics
    module.eval()
    x = 3 * torch.randn(2, 16, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x), by_hand(module, x))


@pytest.mark.parametrize(
    ("block", "part_names", "biases"),
    [
        ("DW+PW", ["layer0", "layer0_bn", "layer1"], {"layer0_bn.bias", "layer1.bias"}),
        # The shuffle at the end writes nothing: the last layer is the one before it.
        (
            "PW+DW+GPW(4)+SH(4)",
            ["layer0", "layer0_bn", "layer1", "layer1_bn", "layer2", "layer3"],
            {"layer0_bn.bias", "layer1_bn.bias", "layer2.bias"},
        ),
        ("CONV(3)", ["layer0"], {"layer0.bias"}),
    ],
)
def test_a_block_in_place_of_a_convolution_has_no_norm_or_activation_at_its_end(
    block, part_names, biases
):
    style = Style(activation=None, bias=True, batch_norm_where="between", bias_where="last")
    module = build(block, 16, style=style)
    assert list(parts(module)) == part_names
    assert {name for name in module.state_dict() if name.endswith("bias")} == biases
    beside = build("DW+PW", 16, 32, style=replace(style, shortcut="projection"))
    assert list(parts(beside)) == ["layer0", "layer0_bn", "layer1", "shortcut"]
    assert beside.shortcut.bias is None
    x = torch.randn(2, 16, 4, 4)
    by_hand = beside.layer1(beside.layer0_bn(beside.layer0(x))) + beside.shortcut(x)
    torch.testing.assert_close(beside(x), by_hand)


def test_a_bias_for_each_channel_that_is_written():
    with_bias, without = (build(MIXED, 16, style=Style(bias=bias)) for bias in (True, False))
    more = set(with_bias.state_dict()) - set(without.state_dict())
    assert more == {"layer0.bias", "layer1.bias", "layer3.bias"}


def test_widths_of_a_bottleneck_and_of_copies():
    module = build("(PW+DW+PW)x2", 16, style=PLAIN, stride=2, **INVERTED)
    assert module.sized == Block.parse("(PW+DW+PW)x2").at(16, 24, 4)
    assert [tuple(p.shape[:2]) for p in module.parameters()] == [
        (96, 16),
        (96, 1),
        (24, 96),
        (96, 24),
        (96, 1),
        (24, 96),
    ]
    # One stride, on the first spatial layer of the chain.
    assert [part.stride[0] for part in module.children()] == [1, 2, 1, 1, 1, 1]
    assert module(torch.ones(1, 16, 8, 8)).shape == (1, 24, 4, 4)


def test_blocks_of_sequences():
    sized = Block.parse("DW+RPW(4,1/3)+SH(2)+GC(4)").at(12, 24, dims=1)
    module = build(sized, stride=2, style=FOG)
    assert parts(module)["layer0_bn"] == parts(module)["shortcut_bn"] == "BatchNorm1d"
    assert module(torch.randn(3, 12, 9)).shape == (3, 24, 5)
    seen, side = witness.autograd_field(
        sized, build(sized, dtype=torch.float64).requires_grad_().eval()
    )
    assert (seen, side) == (witness.reach_by_sets(sized.layers), 5)


@pytest.mark.parametrize("style", [FOG, MOBILENET])
def test_a_training_step_lowers_the_loss(style):
    torch.manual_seed(0)
    module = build(MIXED, 16, 32, style=style)
    x, target = torch.randn(8, 16, 6, 6), torch.rand(8, 32, 6, 6)
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(module(x), target)
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in module.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_the_same_block(again):
    module = build(MIXED, 16, 32, style=FOG).eval()
    other = again(module)
    assert (other.sized, other.stride, other.style) == (module.sized, 1, FOG)
    x = torch.randn(1, 16, 5, 5)
    torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)
    with torch.no_grad():
        other.layer1.weight.zero_()
    assert module.layer1.weight.any()


def test_a_state_dict_goes_into_a_new_block():
    first, second = (build(MIXED, 16, style=FOG).eval() for _ in range(2))
    x = torch.randn(1, 16, 5, 5)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(x), first(x), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile_captures_a_block_whole(backend):
    torch._dynamo.reset()
    module = build(MIXED, 16, 32, style=FOG, stride=2)
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    x = torch.randn(2, 16, 6, 6, requires_grad=True)
    expected = module(x)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    y = compiled(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], gradient)


def test_torch_export_with_a_dynamic_batch():
    module = build(MIXED, 16, style=FOG).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(module, (torch.randn(2, 16, 4, 4),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 16, 4, 4)
    torch.testing.assert_close(program.module()(x), module(x))


def test_autocast_computes_in_bfloat16():
    module = build(MIXED, 16, style=FOG)
    x = torch.randn(2, 16, 6, 6)
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = module.layer1(x)
        y = module(x)
    assert kept.dtype is torch.bfloat16
    torch.testing.assert_close(y.float(), exact, atol=0.15, rtol=0.05)
    y.float().square().mean().backward()
    assert {p.grad.dtype for p in module.parameters()} == {torch.float32}


def test_the_representation_of_a_block():
    lines = str(build("DW+PW", 16, 32, stride=2)).splitlines()
    assert lines[:2] == ["BlockModule(", "  DW+PW, 16 to 32 channels, stride=2"]
    assert "  DW+PW, 16 to 16 channels, shortcut=identity" in str(build("DW+PW", 16, style=FOG))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build("DW+PW"), r"no width: got DW\+PW alone"),
        (lambda: build(Block.parse("DW").at(4), 4), "widths given twice: got DW, which has widths"),
        (lambda: build(Block.parse("DW").at(4), bottleneck=1), "widths given twice"),
        (lambda: build("DW+XY", 8), "unknown kind of convolution: got 'XY'"),
        (lambda: build("DW+GPW(3)", 8), "groups do not divide the widths: got GPW.3."),
        (lambda: build("PW", 8, stride=2), "no layer can hold the stride: got stride 2 in PW"),
        (lambda: build("DW", 8, stride=0), "stride out of range: got 0"),
        (
            lambda: build("DW+PW", 8, 16, style=Style(shortcut="identity")),
            "an identity shortcut between different shapes: got 8 to 16 channels at stride 1",
        ),
        (
            lambda: build("DW+PW", 8, stride=2, style=Style(shortcut="identity")),
            "got 8 to 8 channels at stride 2; allowed: equal widths at stride 1",
        ),
        (lambda: Style(activation="tanh"), "unknown activation: got 'tanh'; allowed: relu, relu6"),
        (lambda: Style(where="start"), "unknown where: got 'start'; allowed: each, between, end"),
        (lambda: Style(shortcut="dense"), "unknown shortcut: got 'dense'; allowed: none, identity"),
        (
            lambda: build("DW", 8)(torch.ones(1, 4, 5, 5)),
            r"input does not fit the block: got \[1, 4, 5, 5\]; allowed: \[N, 8, H, W\]",
        ),
        (lambda: build("DW", 8)(torch.ones(8, 5, 5)), "input does not fit the block"),
        (
            lambda: BlockModule(Block.parse("DW").at(8, dims=1))(torch.ones(1, 8, 5, 5)),
            r"allowed: \[N, 8, L\]",
        ),
    ],
)
def test_wrong_arguments_raise_one_line(make, message):
    with pytest.raises(IfspaceError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_the_argument_of_an_error_is_named():
    with pytest.raises(SettingError, match="unknown shortcut") as error:
        Style(shortcut="dense")
    assert error.value.argument == "shortcut"
