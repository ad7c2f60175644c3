"""Fused modules: the numbers of their layers in float64; every block, network and way to call.

The yardstick is a copy of the module in float64, layer by layer.
"""

import copy
import pickle
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import KernelError, SettingError
from ifspace.nn import (
    FOG,
    MOBILENET,
    PLAIN,
    BlockModule,
    NetworkStyle,
    RollingPointwiseConv2d,
    Style,
    build,
    build_network,
    collapse,
    fuse,
    load,
    named_network,
    save,
    style_of,
    to_source,
)
from ifspace.nn.fuse import (
    Fused,
    FusedBlock,
    FusedCollapsedBlock,
    FusedResidual,
    FusedSequential,
    note,
    note_inference,
)
from ifspace.nn.network import FreeShortcut, Residual
from ifspace.stages.networks import fog, make_layout

pytestmark = pytest.mark.usefixtures("one_thread")


def randomised(module: nn.Module) -> nn.Module:
    """Give a module weights and statistics that are not those of a new one."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, -1, 1)
                nn.init.uniform_(part.bias, -0.5, 0.5)
    return module


def exact(module: nn.Module, x: Tensor) -> Tensor:
    """Return the result of the layers in float64, RPW as it is defined."""
    yardstick = copy.deepcopy(module).double().eval()
    for part in yardstick.modules():
        if isinstance(part, RollingPointwiseConv2d):
            part.impl = "reference"
    with torch.no_grad():
        y: Tensor = yardstick(x.double())
    return y


@torch.no_grad()
def check(module: nn.Module, *shape: int, error: float = 2e-6) -> nn.Module:
    """Check a fused module by one call, and return it."""
    fused = fuse(module)
    x = torch.randn(shape)
    close(fused(x), exact(module, x), error)
    assert list(fused.state_dict()) == list(module.state_dict())
    for mine, theirs in zip(fused.parameters(), module.parameters(), strict=True):
        assert mine is theirs
    return fused


def close(y: Tensor, expected: Tensor, error: float = 2e-6) -> None:
    assert y.shape == expected.shape
    if y.numel():
        scale = float(expected.abs().max())
        assert float((y.double() - expected).abs().max()) <= error * scale


def chains(module: nn.Module) -> list[tuple[int, ...]]:
    """Return the length of each chain of each fused part, from the outside in."""
    return [
        tuple(len(segment.run.chain.stages) for segment in part.segments if segment.run)
        for part in module.modules()
        if isinstance(part, Fused)
    ]


STYLES = [
    PLAIN,
    MOBILENET,
    FOG,
    Style(activation="silu", where="between", shortcut="auto", bias=True),
    Style(activation="relu6", where="each", shortcut="projection"),
    Style(activation="hardswish", where="end"),
    Style(shortcut="auto", batch_norm_where="between", bias=True, bias_where="last"),
    Style(batch_norm=False, shortcut="auto", where="end", bias=True),
]
BLOCKS = [
    "DW+RPW(4,1/2)+GPW(4)",
    "SH(4)+DW+RPW(2,1/3,blocked)+SH(8)",  # shuffles at both ends, of the shortcut's channels
    "GC(4,k=5)+SH(2)+SH(4)+GPW(2)",
    "(DW+RPW(4,0))x2",
]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("text", BLOCKS)
def test_blocks_in_every_style(text, stride):
    for style in STYLES:
        for widths in ((16,), (16, 32)):
            fused = check(randomised(build(text, *widths, stride=stride, style=style)), 2, 16, 7, 5)
            assert type(fused) is FusedBlock
            assert len(chains(fused)) == 1


@pytest.mark.slow
def test_every_block_of_the_catalogue():
    setting = EnumerationSetting(channels=16, max_len=6)
    designs = enumerate_designs([setting], jobs=1).designs
    short = [design for design in designs if design.layers <= 4]
    assert len(short) == 5 + 17 + 74
    longer = [design for design in designs if design.layers > 4][::25]
    assert len(longer) > 25
    for number, design in enumerate((*short, *longer)):
        style = STYLES[number % len(STYLES)]
        module = randomised(build(design, style=style, stride=1 + number % 2))
        fused = check(module, 1, 16, 9, 8)
        assert type(fused) is FusedBlock, design.block


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{"out_channels": 32}, {"bottleneck": "1/2"}, {"repeats": 2}, {"kernel": 5}, {"dims": 1}],
    ids=str,
)
def test_designs_of_other_settings(arguments):
    setting = EnumerationSetting(**{"channels": 16, "max_len": 3} | arguments)
    designs = enumerate_designs([setting], jobs=1).designs
    assert designs
    for number, design in enumerate(designs):
        module = randomised(build(design, style=STYLES[number % len(STYLES)]))
        assert type(check(module, 2, 16, *[9, 8][: design.dims])) is FusedBlock


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 13), (2, 11, 1), (0, 4, 4), (1, 17, 19)])
def test_maps_of_every_size(shape):
    for stride in (1, 2):
        n, *pixels = shape
        module = randomised(build("GC(4,k=5)+RPW(4,1/2)", 16, style=FOG, stride=stride))
        check(module, n, 16, *pixels)


def test_views_of_inputs():
    module = randomised(build("DW+RPW(4,1/2)", 16, style=FOG))
    fused, x = fuse(module), torch.randn(2, 16, 9, 7)
    wide = torch.randn(2, 32, 9, 14)
    with torch.no_grad():
        for view in (wide[:, ::2, :, ::2], x.transpose(2, 3), x[:1].expand(3, -1, -1, -1)):
            close(fused(view), exact(module, view))
        y = fused(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    close(y, exact(module, x))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_with_the_channels_that_read_it(value):
    module = randomised(build("DW+RPW(4,0)+GPW(4)", 16, style=FOG))
    x = torch.randn(1, 16, 9, 9)
    x[0, 3, 4, 4] = value
    with torch.no_grad():
        y, expected = fuse(module)(x), exact(module, x)
    assert 0 < int((~expected.isfinite()).sum()) < expected.numel() // 4
    torch.testing.assert_close(y.double(), expected, equal_nan=True, atol=1e-5, rtol=1e-5)


# ---- networks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depths", "parts"),
    [
        ("resnet50", (1, 1, 2, 1), 1),  # the stem: its other convolutions read 576 or more
        ("mobilenet", None, 13),  # not the last block, whose filters read 1,024 channels
        ("layout-residual", None, 13),  # not the stage of 64 channels
        ("fog", None, 1),
        ("vgg11", None, 1),
    ],
)
def test_networks_of_the_papers(name, depths, parts):
    network = randomised(named_network(name, 32, depths, seed=0))
    fused = check(network, 2, 3, 32, 32, error=1e-5)
    assert len(chains(fused)) == parts


@pytest.mark.slow
def test_a_network_with_a_block_and_its_file(tmp_path):
    layout = fog(32, "DW+RPW(8,0)+RPW(8,0)", width=128)
    network = randomised(build_network(layout, style_of("fog"), seed=0))
    fused = check(network, 1, 3, 32, 32, error=1e-5)
    assert {len(part) for part in chains(fused)} == {1}
    assert sum(lengths[0] for lengths in chains(fused)) == 53
    # A fused network is saved as the network that was fused.
    save(fused, tmp_path / "net.safetensors")
    loaded = load(tmp_path / "net.safetensors")
    assert chains(loaded) == []
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x), network.eval()(x))


@pytest.mark.parametrize("where", ["each", "between", "end"])
@pytest.mark.parametrize("residual", [0, 1, 2])
def test_residual_blocks_of_networks(residual, where):
    layout = make_layout("DW+PW", (8, 4), (3, 3), (4, 4))
    network = randomised(build_network(layout, NetworkStyle("silu", where, residual), seed=0))
    fused = check(network, 2, 3, 8, 8)
    kinds = [type(part) for part in fused.modules() if isinstance(part, Fused)]
    if residual == 2:
        assert kinds == [FusedResidual] * 4
        assert chains(fused) == [(4,)] * 4
    else:
        assert kinds == [FusedBlock] * 8


def test_free_shortcuts_of_residual_blocks():
    blocks = [build("RPW(2,1/2)+DW+SH(4)", 8, stride=2, style=MOBILENET), build("SH(2)+GPW(2)", 8)]
    module = randomised(nn.Sequential(Residual(blocks, FreeShortcut(8, 8, 2), nn.SiLU())))
    fused = check(module, 2, 8, 9, 6)
    assert chains(fused) == [(4,)]
    assert type(fused[0]) is FusedResidual
    with torch.no_grad(), torch.device("meta"):  # the copies' weights are where the others are
        x = torch.ones(2, 8, 9, 6, device="cpu")
        close(fuse(module)(x), exact(module, x))
    assert {x.device.type for x in fuse(module).to("meta").parameters()} == {"meta"}
    # Added channels are zeros, which no stage writes: the blocks alone are fused.
    wider = [build("DW+GPW(2)", 8, 16, stride=2)]
    fused = check(randomised(Residual(wider, FreeShortcut(8, 16, 2), nn.ReLU())), 2, 8, 9, 6)
    assert type(fused) is Residual
    assert chains(fused) == [(2,)]


@pytest.mark.parametrize("choose", ["macs", "layers"])
def test_collapsed_blocks(choose):
    block = randomised(build("DW+RPW(4,0)+RPW(4,0)", 16, style=FOG))
    collapsed = collapse(block.eval(), choose)
    fused = check(collapsed, 2, 16, 7, 6)
    assert type(fused) is FusedCollapsedBlock


class Separable(nn.Module):
    """A user's module: separable convolutions, and what no chain holds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.ChannelShuffle(2),
            RollingPointwiseConv2d(8, 16, 2, 0.5),
            nn.BatchNorm2d(16, affine=False),
            nn.Dropout(0.5),
            nn.Conv2d(16, 16, 3, padding="same", groups=4),
            nn.Hardswish(),
            nn.Sequential(nn.Conv2d(16, 8, 1), nn.SiLU()),
            nn.MaxPool2d(2, 1),
            nn.Conv2d(8, 8, 3, dilation=2, padding=2),
            nn.Conv2d(8, 8, (1, 3)),
            nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
            build("DW+GPW(2)", 8),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 4, 2),
            nn.ChannelShuffle(2),
        )
        self.also = self.layers[10]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.abs()).square()


def test_a_users_module():
    module = randomised(Separable())
    fused = check(module, 2, 8, 21, 18)
    names = [(segment.names, bool(segment.run)) for segment in fused.layers.segments]
    assert names == [
        (("0",), False),
        (("1", "2", "3", "4", "5", "6", "7"), True),
        (("8", "9", "10"), True),
        (("11",), False),
        (("12",), False),
        (("13",), False),
        (("14",), False),
        (("15", "16", "17"), True),
        (("18",), False),
        (("19", "20"), True),
    ]
    assert type(module.layers) is nn.Sequential
    assert module.training
    assert type(fused.layers) is FusedSequential


@pytest.mark.parametrize("by_torch", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolutions_that_stand_alone(monkeypatch, by_torch, layout):
    """They are torch's or the loops', whichever is expected to be faster for such an input."""
    asked, fuse_module = [], sys.modules["ifspace.nn.fuse"]
    monkeypatch.setattr(fuse_module, "is_torch_faster", lambda *a: asked.append(a) or by_torch)
    monkeypatch.setattr(fuse_module, "conv2d" if not by_torch else "run_chain", None)
    for convolution, activation in (
        (nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6()),
        (nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False), nn.SiLU()),
        (nn.Conv2d(16, 8, 1, 2), nn.Hardswish()),
        (nn.Conv2d(16, 8, 1), nn.Identity()),
    ):
        norm = nn.BatchNorm2d(8)
        module = randomised(nn.Sequential(convolution, norm, activation, nn.AdaptiveAvgPool2d(3)))
        fused, x = fuse(module), torch.randn(2, convolution.in_channels, 13, 10)
        with torch.no_grad():
            for _ in range(2):
                close(fused(x.contiguous(memory_format=layout)), exact(module, x))
            convolution.weight.mul_(2)
            norm.running_mean.add_(1)
            close(fused(x.contiguous(memory_format=layout)), exact(module, x))
    assert len(asked) == 8  # once for each shape and state of the weights


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2_x0_5", "resnet18"])
def test_networks_of_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    network = randomised(getattr(models, name)())
    assert chains(check(network, 1, 3, 64, 64, error=1e-4))


def test_layers_with_hooks_or_a_forward_of_their_own_are_left():
    block = build("DW+PW", 8, style=MOBILENET)
    for change in (
        lambda module: module.layer1.register_forward_hook(lambda *_: None),
        lambda module: module.layer0_bn.register_forward_pre_hook(lambda *_: None),
        lambda module: module.register_forward_hook(lambda *_: None),
        lambda module: setattr(module, "forward", lambda x: x),
        lambda module: nn.utils.parametrizations.weight_norm(module.layer0),
        lambda module: setattr(module, "layer0_act", nn.GELU()),
        lambda module: setattr(module, "layer0_bn", nn.BatchNorm2d(8, track_running_stats=False)),
    ):
        changed = copy.deepcopy(block)
        change(changed)
        with pytest.warns(UserWarning, match="nothing in BlockModule can be fused"):
            left = fuse(changed)
        assert type(left) is BlockModule


# ---- parameters


@pytest.fixture
def pair() -> Iterator[tuple[nn.Module, nn.Module, Tensor]]:
    module = randomised(build("DW+RPW(4,1/2)+SH(4)+GPW(4)", 16, 32, style=FOG, stride=2))
    fused = fuse(module)
    module.eval()
    x = torch.randn(2, 16, 9, 8)
    with torch.no_grad():
        fused(x)  # folds
        yield module, fused, x


def test_a_change_of_a_parameter_is_seen(pair):
    module, fused, x = pair
    changes = [
        lambda: module.layer0.weight.mul_(2),
        lambda: module.layer1_bn.running_var.add_(1),
        lambda: module.load_state_dict(
            {
                name: tensor * 1.5 if tensor.is_floating_point() else tensor
                for name, tensor in fused.state_dict().items()
            }
        ),
        lambda: setattr(module.layer3.weight, "data", module.layer3.weight.data * 3),
        lambda: fused.load_state_dict(
            {name: tensor.clone() for name, tensor in module.state_dict().items()}, assign=True
        ),
        lambda: fused.layer0.weight.neg_(),
        lambda: setattr(fused.layer3, "weight", nn.Parameter(fused.layer3.weight + 1)),
        lambda: fused.bfloat16().float(),
    ]
    for number, change in enumerate(changes):
        before = fused(x)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not say which windows.*")
            change()
        owner = module if number < 4 else fused
        unfused = BlockModule(module.sized, 2, FOG).eval()
        unfused.load_state_dict(owner.state_dict())
        close(fused(x), exact(unfused, x))
        assert (number == 4) == torch.equal(fused(x), before), number


@pytest.mark.parametrize("text", ["DW+RPW(4,1/2)+GPW(4)", "GC(4)"])
def test_changes_that_torch_counts_in_no_version(text):
    """A training forward moves running statistics, a fused optimizer parameters."""
    module = randomised(build(text, 16, style=FOG)).eval()
    fused, x = fuse(module), torch.randn(4, 16, 6, 7)
    with torch.no_grad():
        fused(x)
        for _ in range(2):
            module.train()
            module(x * 3 + 1)
            module.eval()
            close(fused(x), exact(module, x))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        module(x).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            close(fused(x), exact(module, x))


def test_slices_of_a_fused_sequence_are_fused():
    layers = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)
    module = randomised(nn.Sequential(*layers)).eval()
    fused, x = fuse(module), torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        for part in (slice(2), slice(1, None), slice(3, None), slice(0, 0)):
            close(
                fused[part](x if part.start in (None, 0) else module[: part.start](x)),
                exact(module[part], x if part.start in (None, 0) else module[: part.start](x)),
            )
    assert chains(fused[:2]) == [(1,)]
    assert fused[4] is not module[4]
    assert fused[4].weight is module[4].weight


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda module: module.append(nn.Sigmoid()), "another number of layers"),
        (lambda module: module.__setitem__(1, nn.Sigmoid()), "another 1"),
        (lambda module: prune.random_unstructured(module[0], "weight", 0.5), "without its weight"),
        (lambda module: setattr(module[1], "running_mean", None), "without its running_mean"),
    ],
    ids=["append", "replace", "prune", "statistics"],
)
def test_other_layers_in_a_fused_sequence_are_refused(change, got):
    fused = fuse(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()))
    x = torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        fused(x)
        change(fused)
        with pytest.raises(SettingError, match=f"a fused module was changed: got .*{got}"):
            fused(x)


def test_another_epsilon_is_seen():
    module = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)).eval()
    fused, x = fuse(module), torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        fused(x)
        fused[1].eps = module[1].eps = 0.5
        close(fused(x), exact(module, x))


def test_blocks_of_shuffles_alone_are_left():
    module = nn.Sequential(build("SH(4)", 16, style=FOG), build("DW+GPW(4)", 16, style=FOG))
    assert chains(check(randomised(module), 2, 16, 6, 5)) == [(2,)]


def test_another_layer_in_a_fused_block_is_refused(pair):
    _, fused, x = pair
    fused.layer3 = nn.Conv2d(16, 32, 1)
    fused.layer0.weight.mul_(2)
    with pytest.raises(SettingError, match="a fused module was changed: got another layer3"):
        fused(x)


def test_functional_calls_take_other_parameters(pair):
    module, fused, x = pair
    other = {"layer0.weight": module.layer0.weight * 2}
    y = torch.func.functional_call(fused, other, (x,))
    torch.testing.assert_close(y, torch.func.functional_call(module, other, (x,)))
    torch.testing.assert_close(fused(x), module(x))


def test_training_is_refused(pair):
    module, fused, x = pair
    with pytest.raises(SettingError, match="cannot be trained: got train"):
        fused.train()
    assert not fused.training
    assert fused.eval() is fused
    with torch.enable_grad():
        with pytest.raises(SettingError, match="no gradients: got a parameter that requires one"):
            fused(x)
        module.requires_grad_(False)
        assert not fused(x).requires_grad
        with pytest.raises(SettingError, match="no gradients: got an input that requires one"):
            fused(x.requires_grad_())


def test_copies_files_and_source(pair):
    module, fused, x = pair
    expected = fused(x)
    twin = copy.deepcopy(fused)
    twin.layer0.weight.mul_(2)
    assert torch.equal(fused(x), expected)
    assert not torch.equal(twin(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(fused))(x), expected)
    assert torch.equal(fuse(fused)(x), expected)
    assert to_source(fused) == to_source(module)


# ---- ways to call


def test_no_grad_inference_mode_and_a_module_made_in_it(pair):
    module, fused, x = pair
    expected = module(x)
    with torch.inference_mode():
        close(fused(x), expected)
        inside = copy.deepcopy(module)
        fused = fuse(inside)
        note_inference.cache_clear()
        with pytest.warns(UserWarning, match="folds its weights at every call"):
            close(fused(torch.randn(2, 16, 9, 8) * 0 + x), expected)
        inside.layer0.weight.mul_(2)
        close(fused(x), exact(inside, x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision(pair, dtype):
    module, fused, x = pair
    expected = exact(module, x)
    error = 0.02 if dtype == torch.bfloat16 else 0.002
    with torch.autocast("cpu", dtype=dtype):
        y = fused(x)
        assert y.dtype == module(x).dtype == dtype
    close(y, expected, error)
    half = copy.deepcopy(module).to(dtype)
    y = fuse(half)(x.to(dtype))
    assert y.dtype == dtype
    close(y, exact(half, x.to(dtype)), error)
    identity = randomised(build("DW+RPW(4,0)", 16, style=FOG)).eval()
    with torch.autocast("cpu", dtype=dtype):
        assert fuse(identity)(x).dtype == identity(x).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile_around_it(pair, dynamic):
    module, fused, x = pair
    torch._dynamo.reset()

    def call(x: Tensor) -> Tensor:
        return fused(x.relu()).sin()

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for n in (2, 3):
        more = torch.randn(n, 16, 9, 8)
        torch.testing.assert_close(compiled(more), call(more))
    module.layer0.weight.mul_(2)
    torch.testing.assert_close(compiled(x), module(x.relu()).sin(), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_torch_export(pair, strict):
    module, fused, x = pair
    fused.layer0.weight = nn.Parameter(2 * fused.layer0.weight)
    unfused = BlockModule(module.sized, 2, FOG).eval()
    unfused.load_state_dict(fused.state_dict())
    shapes = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(fused, (x,), dynamic_shapes=shapes, strict=strict)
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "ifspace.chain.default" in calls
    assert not any("rsqrt" in call for call in calls)  # the constants are folded
    for n in (1, 5):
        more = torch.randn(n, 16, 9, 8)
        torch.testing.assert_close(program.module()(more), unfused(more), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms(pair):
    module, fused, x = pair
    stacked = torch.func.vmap(fused)(torch.stack([x, 2 * x]))
    torch.testing.assert_close(stacked[1], module(2 * x), atol=1e-5, rtol=1e-4)
    several = {name: torch.stack([p, 2 * p]) for name, p in fused.named_parameters()}

    def with_each(part: nn.Module) -> Tensor:
        call = torch.func.functional_call
        return torch.func.vmap(lambda parameters: call(part, parameters, (x,)))(several)

    torch.testing.assert_close(with_each(fused), with_each(module), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fused(x), module(x), atol=1e-5, rtol=1e-4)
    with pytest.raises(KernelError, match="no forward-mode derivative: got a call under"):
        torch.func.jvp(fused, (x,), (x,))
    module.requires_grad_(False)
    gradient = torch.func.grad(lambda x: fused(x).sum())
    with torch.enable_grad(), pytest.raises(SettingError, match="no gradients: got an input"):
        gradient(x)


def test_threads(pair):
    _, fused, x = pair
    expected, outputs = fused(x), list[Tensor]()

    def call() -> None:
        with torch.no_grad():
            outputs.append(fused(x))

    workers = [threading.Thread(target=call) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(outputs) == 8
    assert all(torch.equal(y, expected) for y in outputs)


def test_where_the_engine_cannot_run_the_layers_do(pair):
    module, _, x = pair
    double = copy.deepcopy(module).double()
    meta = copy.deepcopy(module).to("meta")
    fused = fuse(double)
    note.cache_clear()
    with pytest.warns(UserWarning, match="runs layer by layer: it computes in float32"):
        y = fused(x.double())
    assert torch.equal(fused(x.double()), y)  # without a second warning
    assert torch.equal(y, double(x.double()))
    with pytest.warns(UserWarning, match="layer by layer: it runs on a CPU or on CUDA, not on"):
        assert fuse(meta)(x.to("meta")).shape == y.shape


def test_inputs_that_do_not_fit_meet_the_errors_of_the_layers(pair):
    module, fused, x = pair
    for wrong in (x[:, :8], x[0], x.double(), x.bfloat16()):
        with pytest.raises((RuntimeError, ValueError)) as mine:
            fused(wrong)
        with pytest.raises((RuntimeError, ValueError)) as theirs:
            module(wrong)
        assert str(mine.value) == str(theirs.value)


def test_what_is_no_module_is_refused():
    with pytest.raises(SettingError, match=r"wrong module: got 'DW'; allowed: a torch\.nn\.Module"):
        fuse("DW")
