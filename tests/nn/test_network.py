"""How networks are initialised, trained, copied and exported, and which errors they raise."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ifspace.block import Block
from ifspace.errors import BlockError, KernelError, SettingError
from ifspace.nn.network import (
    STYLES,
    NetworkStyle,
    build_network,
    named_network,
    style_of,
)
from ifspace.stages.layout import (
    Layout,
    StemAndHead,
    StemLayer,
)
from ifspace.stages.networks import (
    NETWORKS,
    make_layout,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("style", dict.fromkeys(STYLES.values()), ids=str)
def test_every_style_trains(style: NetworkStyle) -> None:
    stem = StemLayer(make_layout("CONV", (8,), (16,), (1,)).stages[0].first.layers[0], 8)
    frame = StemAndHead(stem=(stem,), batch_norm=True, classifier=(8, 4), pixels=4)
    blocks = [Block.parse("CONV"), Block.parse("DW+RPW(4,1/2)")]
    net = build_network(make_layout(blocks, (8, 8), (16, 32), (1, 3), (1, 2), frame), style, seed=0)
    x, classes = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), range(4)
    steps = torch.optim.Adam(net.parameters(), lr=0.01)
    torch.manual_seed(0)  # of dropout
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(net(x), torch.tensor(classes))
        steps.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", ["layout-residual", "layout-plain", "3drf"])
def test_a_named_network_runs(name: str) -> None:
    net = named_network(name, 32, seed=0)
    with torch.no_grad():
        y = net(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert y.shape == (2, 10)
    assert y.isfinite().all()
    # Neither dies away nor blows up on the way, whatever the depth.
    assert 0.01 < y.std().item() < 100


def test_every_network_has_a_style() -> None:
    assert STYLES.keys() == NETWORKS.keys()
    assert style_of("VGG16") is STYLES["vgg16"]
    with pytest.raises(SettingError, match=r"^unknown network: got 'vgg17'; allowed: vgg11"):
        style_of("vgg17")


def small() -> Layout:
    frame = StemAndHead(batch_norm=True, classifier=(10,))
    blocks = make_layout("CONV", (8,), (16,), (1,), stem_and_head=frame).stages
    more = make_layout(
        "DW+RPW(4,1/2)", (8,), (64,), (2,), stem_and_head=StemAndHead(inputs=16)
    ).stages
    return Layout((*blocks, *more), frame)


def test_a_seed_draws_the_same_weights_and_leaves_the_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_network(small(), seed=n).state_dict() for n in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("stages.stage2.unit1.layer1.weight", "head.logits.weight"):
        assert not torch.equal(first[name], other[name])
    build_network(small())
    assert not torch.equal(torch.get_rng_state(), before)


def test_weights_keep_the_variance_after_a_relu() -> None:
    net = build_network(
        make_layout("CONV", (8,), (64,), (1,), stem_and_head=StemAndHead(inputs=64, bias=True)),
        seed=0,
    )
    conv = net.stages.stage1.unit1.layer0
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert not conv.bias.any()
    rolling = build_network(small(), seed=0).stages.stage2.unit2.layer1
    assert rolling.weight.shape == (64, 16)
    assert rolling.weight.std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.1)


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (2, 3, 16, 16), (2, 4, 8, 8), (3, 8, 8)])
def test_images_of_another_size_raise(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        KernelError,
        match=r"^input does not fit the network: got \[.*\]; allowed: "
        r"\[N, 3, 8, 8\]; resize",
    ):
        build_network(small())(torch.zeros(shape))


def test_copies_compute_the_same() -> None:
    net = build_network(small(), seed=0).eval()
    x = torch.randn(2, 3, 8, 8)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), net(x))
        assert (other.layout, other.style) == (net.layout, net.style)
    assert "image=8, depths=(1, 2)" in repr(net)


def test_a_network_of_sequences_computes_in_one_dimension() -> None:
    frame = StemAndHead(inputs=4, batch_norm=True, projections=True, classifier=(5,), pixels=2)
    layout = make_layout("DW+PW", (8, 8), (8, 16), (1, 2), (1, 2), frame)
    flat = Layout(
        tuple(
            type(stage)(
                stage.side,
                *(
                    unit.block.at(unit.channels, unit.out_channels, dims=1)
                    for unit in (stage.first, stage.repeated)
                ),
                stage.depth,
                stage.stride,
            )
            for stage in layout.stages
        ),
        frame,
    )
    net = build_network(flat)
    assert net(torch.zeros(2, 4, 8)).shape == (2, 5)
    assert sum(parameter.numel() for parameter in net.parameters()) == flat.params


@pytest.mark.slow
def test_export_and_compile_take_a_network() -> None:
    net = build_network(small(), seed=0).eval()
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    more = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.module()(more), net(more))
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"activation": "tanh"}, "unknown activation: got 'tanh'; allowed: relu"),
        ({"where": "start"}, "unknown where: got 'start'; allowed: each"),
        ({"head": "sum"}, "unknown head: got 'sum'; allowed: average, max"),
        ({"residual": -1}, "residual out of range: got -1"),
        ({"residual": 1.5}, "residual out of range: got 1.5"),
        ({"dropout": 1}, "dropout out of range: got 1"),
        ({"dropout": True}, "dropout out of range: got True"),
    ],
)
def test_styles_that_do_not_exist_raise(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}"):
        NetworkStyle(**wrong)  # type: ignore[arg-type]


def test_layouts_that_no_network_has_raise() -> None:
    frame = StemAndHead(projections=True)
    with pytest.raises(SettingError, match=r"^projections without shortcuts: got residual 0"):
        build_network(make_layout("CONV", (8,), (4,), (1,), stem_and_head=frame), NetworkStyle())
    with pytest.raises(BlockError, match=r"^no layer can hold the stride: got stride 2 in PW"):
        build_network(make_layout("PW", (8,), (4,), (1,), (2,)))


def test_dropout_is_for_training_alone() -> None:
    layout = make_layout("CONV", (4,), (4,), (1,), stem_and_head=StemAndHead(classifier=(64, 2)))
    net = build_network(layout, NetworkStyle(dropout=0.5), seed=0)
    x = torch.randn(1, 3, 4, 4)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
    assert not any(isinstance(x, nn.Dropout) for x in build_network(layout).modules())
