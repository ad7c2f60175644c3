"""Convolutions replaced by blocks: which, by which blocks, the counts, and use in torch."""

import copy
from functools import cache

import onnxruntime
import pytest
import torch
from small_networks import Apart, blocks_of, macs, params, resnet18, vgg
from torch import nn

from ifspace.block import Block
from ifspace.errors import BlockError, SettingError
from ifspace.models.decomposition import Layers, Search, decompose, plan_decomposition
from ifspace.models.sources import network
from ifspace.models.tracing import trace
from ifspace.nn import FOG, Style, export_onnx
from ifspace.reach import channel_field
from ifspace.stages.problem import Blocks, Budgets

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 32, 32)


@cache
def counted(name: str, image: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """Return a network on the meta device, not to be changed, and its MACs."""
    with torch.device("meta"):
        model = network(name, image)
    return model, macs(model, image)


@pytest.mark.slow
@pytest.mark.parametrize("block", ["DW+RPW(2,1/2)", "DW+PW", "PW+DW", "cheapest"])
@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("vgg16", IMAGE),
        ("torchvision:vgg16_bn", (3, 64, 64)),
        ("torchvision:resnet18", (3, 225, 225)),
        ("torchvision:resnet50", (3, 224, 224)),
    ],
)
def test_the_totals_are_those_of_the_decomposed_network(name: str, image, block: str):
    model, macs_before = counted(name, image)
    final = decompose(model, image, Blocks(block))
    decomposed, plan = final.model, final.plan
    assert plan.params == (params(model), params(decomposed))
    assert plan.macs == (macs_before, macs(decomposed, image))
    assert plan.params[1] < plan.params[0]
    replaced = {layer.name for layer in plan.replaced}
    convs = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and module.in_channels >= 16
    }
    assert replaced == convs
    for layer in plan.replaced:
        assert layer.params[0] == params(model.get_submodule(layer.name))
        assert layer.params[1] == params(decomposed.get_submodule(layer.name))
    again = trace(decomposed, image)
    assert (again.params, again.macs) == (plan.params[1], plan.macs[1])


@pytest.mark.slow
def test_norms_activations_and_biases_around_blocks_are_kept():
    model = resnet18(16)
    decomposed = decompose(model, IMAGE, Blocks("DW+PW")).model
    unit = decomposed[5]
    assert [name for name, _ in unit.conv1.named_children()] == ["layer0", "layer0_bn", "layer1"]
    assert unit.conv1.layer1.bias is None
    assert isinstance(unit.bn1, nn.BatchNorm2d)
    plain = decompose(vgg(16, batch_norm=False), IMAGE, Blocks("DW+PW")).model[2]
    assert [name for name, _ in plain.named_children()] == ["layer0", "layer1"]
    assert (plain.layer0.bias, plain.layer1.bias.shape) == (None, (16,))
    assert isinstance(decomposed[0], nn.Conv2d)


@pytest.mark.slow
def test_the_users_network_is_unchanged():
    model = resnet18().eval().double()
    modules, weights = dict(model.named_modules()), copy.deepcopy(model.state_dict())
    decomposed = decompose(model, IMAGE, Blocks("DW+PW")).model
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in (*decomposed.modules(), *model.modules()))
    assert {parameter.dtype for parameter in decomposed.parameters()} == {torch.float64}
    kept = decomposed.state_dict().keys() & weights.keys()
    assert kept >= {"0.weight", "3.bn1.weight", "5.downsample.0.weight", "13.weight"}
    assert all(torch.equal(decomposed.state_dict()[name], weights[name]) for name in kept)


@pytest.mark.slow
def test_the_seed_draws_the_weights_and_nothing_else():
    model = vgg()
    before = torch.get_rng_state()
    blocks = Blocks("DW+PW")
    one, same, other = (decompose(model, IMAGE, blocks, seed=n).model for n in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True)
    )
    assert not torch.equal(one[3].layer0.weight, other[3].layer0.weight)


def test_a_layer_that_runs_twice_counts_twice_and_norms_follow_the_run():
    model = Apart()
    final = decompose(model, (3, 9, 9), Blocks("PW+DW"), style=None)
    decomposed, plan = final.model, final.plan
    assert [layer.name for layer in plan.replaced] == ["convs.1", "last"]
    assert plan.params == (params(model), params(decomposed))
    assert plan.macs == (macs(model, (3, 9, 9)), macs(decomposed, (3, 9, 9)))
    assert hasattr(decomposed.convs[1], "layer0_bn")
    assert not hasattr(decomposed.last, "layer0_bn")
    assert final.edits.image == (3, 9, 9)


@pytest.mark.slow
def test_a_stride_needs_a_spatial_layer():
    model = resnet18()
    final = decompose(model, IMAGE, Blocks("RPW(2,1/2)+GPW(2)"))
    assert final.model(torch.zeros(2, *IMAGE)).shape == (2, 10)
    skipped = {conv.name: conv.reason for conv in final.plan.skipped}
    assert skipped["5.conv1"] == (
        "RPW(2,1/2)+GPW(2): no layer can hold the stride: got stride 2 in RPW(2,1/2)+GPW(2)"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "column"), [("keep", "params"), ("macs", "macs")])
def test_the_cheapest_block_has_the_full_field_and_counts_its_norms(objective, column):
    model = resnet18(32)
    graph = trace(model, IMAGE)
    mine = plan_decomposition(model, graph, Blocks("Cheapest"), search=Search(objective))
    assert len(mine.replaced) == 16
    for block in ("DW+PW", "DW+RPW(4,0)+GPW(4)", "DW+RPW(8,0)+GPW(4)", "DW+RPW(8,0)+GPW(8)"):
        theirs = plan_decomposition(model, graph, Blocks(block))
        for own, other in zip(mine.replaced, theirs.replaced, strict=True):
            assert channel_field(own.sized.layers) == own.sized.channels
            if channel_field(other.sized.layers) == other.sized.channels:
                assert getattr(own, column)[1] <= getattr(other, column)[1]


@pytest.mark.parametrize(
    ("block", "field", "less"),
    [
        ("DW+PW", (3, 16), False),
        ("DW+RPW(2,1/2)", (3, 8), True),
        ("PW", (1, 16), True),
        ("DW+RPW(4,0)+GPW(4)", (3, 16), False),
        ("DW+PW+DW", (5, 16), False),
    ],
)
def test_the_fields_of_a_block_and_its_convolution_are_compared(block, field, less):
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    plan = plan_decomposition(model, trace(model, (16, 8, 8)), Blocks(block), layers=Layers(["0"]))
    (only,) = plan.replaced
    assert (only.fields, only.sees_less) == (((3, 16), field), less)


def test_of_several_blocks_each_layer_gets_the_cheapest_that_fits():
    model = nn.Sequential(
        nn.Conv2d(16, 18, 3, padding=1),
        nn.Conv2d(18, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1),
    )
    blocks = Blocks("DW+PW", "DW+RPW(8,0)+GPW(4)", Block.parse("DW+GPW(2)"))
    decomposed = decompose(model, (16, 8, 8), blocks).model
    assert [str(module.sized.block) for module in blocks_of(decomposed).values()] == [
        "DW+GPW(2)",
        "DW+GPW(2)",
        "DW+RPW(8,0)+GPW(4)",
    ]


@pytest.mark.slow
def test_a_style_for_all_blocks():
    final = decompose(vgg(), IMAGE, Blocks("DW+PW"), style="fog")
    decomposed, plan = final.model, final.plan
    assert {module.style for module in blocks_of(decomposed).values()} == {FOG}
    assert plan.params[1] == params(decomposed)
    assert plan.macs[1] == macs(decomposed, IMAGE)
    identity = Style(shortcut="identity")
    plan = plan_decomposition(vgg(), trace(vgg(), IMAGE), Blocks("DW+PW"), style=identity)
    assert "an identity shortcut between different shapes" in plan.skipped[-1].reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"blocks": "DW+PW"}, SettingError, r"wrong blocks: got 'DW\+PW'; allowed: Blocks"),
        ({"layers": {"names": ()}}, SettingError, "^no layer named"),
        ({"budgets": 3000}, SettingError, "wrong budgets: got int; allowed: Budgets"),
        ({"budgets": Budgets(layers=3)}, SettingError, "a budget of layers where they are not"),
        ({"search": {"objective": "depth"}}, SettingError, "unknown objective: got 'depth'"),
        (
            {"search": {"objective": "latency_ms"}},
            SettingError,
            "nothing says how long the blocks take: got no latency",
        ),
        ({"budgets": Budgets(latency_ms=1)}, SettingError, "got no latency"),
        ({"budgets": Budgets(macs=-1)}, SettingError, "macs out of range: got -1"),
        ({"layers": {"least_channels": 0}}, SettingError, "least_channels out of range"),
        ({"style": "vgg"}, SettingError, "wrong style: got 'vgg'"),
        ({"seed": -1}, SettingError, "seed out of range"),
        ({"warm_start": "yes"}, SettingError, "wrong warm_start: got 'yes'"),
    ],
)
def test_contradicting_arguments_are_an_error(arguments, error, message: str):
    kinds = {"layers": Layers, "search": Search}

    def decomposed() -> None:
        values = {n: kinds[n](**v) if n in kinds else v for n, v in arguments.items()}
        decompose(vgg(), IMAGE, **values)

    with pytest.raises(error, match=message) as raised:
        decomposed()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        (["DW+XY"], BlockError, "unknown kind of convolution: got 'XY'"),
        ([3], SettingError, "wrong block: got int; allowed: a block such as"),
        ([], SettingError, "wrong block: got None"),
    ],
)
def test_values_that_are_not_blocks_raise(blocks, error, message: str):
    with pytest.raises(error, match=message):
        Blocks(*blocks)


def test_a_budget_that_is_not_an_amount_raises():
    with pytest.raises(SettingError, match=r"params is no amount: got '5\.1'"):
        Budgets(params="5.1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "block"), [(resnet18, "DW+RPW(2,1/2)"), (vgg, "cheapest"), (Apart, "PW+GC(4)+SH(4)")]
)
def test_a_decomposed_network_trains_exports_and_compiles(tmp_path, make, block: str):
    model = make()
    decomposed = decompose(model, IMAGE, Blocks(block)).model
    x = torch.randn(2, *IMAGE)
    assert decomposed(x).shape == model(x).shape
    loss = decomposed.train()(x).square().mean()
    loss.backward()
    assert loss.isfinite()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for parameter in decomposed.parameters()
    )
    decomposed.eval()
    with torch.no_grad():
        y = decomposed(x)
        compiled = torch.compile(copy.deepcopy(decomposed), backend="aot_eager")
        torch.testing.assert_close(compiled(x), y)
        program = torch.export.export(decomposed, (x,))
        torch.testing.assert_close(program.module()(x), y)
    if make is resnet18:  # its layers are those of vgg, and writing twice as many takes long
        return
    export_onnx(decomposed, x, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    run = session.run(None, {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(run), y, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_blocks_can_be_decomposed_again():
    first = decompose(vgg(), IMAGE, Blocks("PW+CONV(3)+PW"))
    again = decompose(first, IMAGE, Blocks("DW+PW"))
    assert again.plan.params == (params(first.model), params(again.model))
    assert len(again.edits.steps) == 2 * len(first.edits.steps)
    assert again.model[3].layer1.sized.block == Block.parse("DW+PW")
    assert again.model(torch.zeros(2, *IMAGE)).shape == (2, 10)


def test_no_attribute_is_set_on_a_module():
    model = vgg()
    attributes = set(vars(model))
    decomposed = decompose(model, IMAGE, Blocks("DW+PW")).model
    assert set(vars(model)) == set(vars(decomposed)) == attributes
