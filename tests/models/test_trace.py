"""Tracing: layers, feature maps and notes of networks of every form, operator by operator."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import odd_networks as odd
from models.odd_networks import IMAGE, Two, conv
from torch import Tensor, nn
from torch.fx import config as fx_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ifspace.models.analysis import analyze
from ifspace.models.calls import (
    bare_name,
    is_in_place,
)
from ifspace.models.fields import Propagation
from ifspace.models.graph import Op
from ifspace.models.tracing import Walk, trace

pytestmark = pytest.mark.usefixtures("one_thread")
NETWORKS: list[Callable[[], nn.Module]] = [
    Two,
    odd.WithoutGradients,
    odd.UnderAutocast,
    odd.Checkpointed,
    odd.Remembers,
    odd.Options,
    odd.Names,
    odd.Parametrized,
    odd.WritesAPart,
    odd.Tied,
    odd.Twice,
    odd.BareWeights,
    odd.ChannelGate,
    odd.PixelGate,
    odd.Selective,
    odd.Enlarged,
    odd.UNet,
    odd.Attention,
    odd.Windows,
    odd.Line,
]


def image_of(factory: Callable[[], nn.Module]) -> tuple[int, ...]:
    return (3, 20) if factory is odd.Line else IMAGE


@pytest.mark.slow
@pytest.mark.parametrize("factory", NETWORKS, ids=lambda factory: factory.__name__)
def test_counts_are_those_of_torch(factory: Callable[[], nn.Module]) -> None:
    model, image = factory().eval(), image_of(factory)
    report = analyze(model, image)
    assert report.params == sum(parameter.numel() for parameter in model.parameters())
    layers = [*(entry.layer for entry in report.layers), *report.gates, *report.head]
    other = {odd.Attention: 16}.get(factory, 0)  # the token
    assert report.other_params == report.params - sum(layer.params for layer in layers) == other
    # With gradients, and in plain products, attention runs as operators that torch counts.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, *image))
    products = 2 * 2 * 2 * 17 * 17 * 8 if factory is odd.Attention else 0
    assert 2 * report.macs + products == counter.get_total_flops()
    named = [note for note in report.notes if "not counted" in note]
    assert len(named) == bool(products)
    assert trace(model, image).how == "export"


@pytest.mark.slow
@pytest.mark.parametrize("factory", NETWORKS, ids=lambda factory: factory.__name__)
def test_the_module_is_unchanged(factory: Callable[[], nn.Module]) -> None:
    model = factory()
    next(iter(model.children()), model).eval()
    calls: list[str] = []
    model.register_forward_hook(lambda *_: calls.append("after"))
    modes = [module.training for module in model.modules()]
    hooks = [copy.copy(module._forward_hooks) for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = {name: id(parameter) for name, parameter in model.named_parameters()}
    grads = torch.is_grad_enabled()
    analyze(model, image_of(factory))
    assert [module.training for module in model.modules()] == modes
    assert [module._forward_hooks for module in model.modules()] == hooks
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == ids
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.is_grad_enabled() == grads
    assert model(torch.zeros(1, *image_of(factory))) is not None


def names_of(model: nn.Module) -> list[str]:
    return [layer.name for layer in trace(model, IMAGE).layers]


@pytest.mark.slow
def test_layers_are_named_by_the_modules_that_call_them() -> None:
    assert names_of(odd.Tied()) == ["a", "b", "c"]
    assert names_of(odd.Twice()) == ["a", "b", "b", "b"]
    assert names_of(odd.BareWeights()) == [""] * 4
    assert names_of(odd.Parametrized()) == ["a", "b"]
    assert names_of(odd.Windows()) == ["patches", "dense", "last"]


def test_weights_are_counted_once_and_work_is_counted_always() -> None:
    layers = trace(odd.Twice(), IMAGE).layers
    assert [layer.params for layer in layers] == [8 * 28, 8 * 73, 0, 0]
    assert [layer.macs for layer in layers[1:]] == [64 * 9 * 256] * 3
    tied = trace(odd.Tied(), IMAGE).layers
    assert [layer.params for layer in tied] == [8 * 28, 8 * 73, 8]
    bare = trace(odd.BareWeights(), IMAGE).layers
    assert [layer.params for layer in bare] == [8 * 27, 8 * 72, 0, 0]
    # The weight of a normalised one is made of a direction and a length.
    assert trace(odd.Parametrized(), IMAGE).layers[0].params == 8 * 28 + 8


@pytest.mark.parametrize(("factory", "gate"), [(odd.ChannelGate, "gate"), (odd.PixelGate, "gate")])
def test_layers_that_only_scale_are_gates(factory: Callable[[], nn.Module], gate: str) -> None:
    report = analyze(factory(), IMAGE)
    assert [layer.name for layer in report.gates] == [gate]
    assert [(entry.layer.name, entry.field.size) for entry in report.layers] == [
        ("a", (3, 3)),
        ("b", (5, 5)),
    ]
    assert not report.notes


@pytest.mark.slow
def test_writing_into_a_slice_is_seen() -> None:
    report = analyze(odd.WritesAPart(), IMAGE)
    assert [(entry.layer.name, entry.field.size) for entry in report.layers] == [
        ("first", (3, 3)),
        ("part", (5, 5)),
        ("last", (7, 7)),
    ]


def test_a_sum_over_stacked_feature_maps_is_their_sum() -> None:
    report = analyze(odd.Selective(), IMAGE)
    assert [entry.field.size for entry in report.layers] == [(3, 3), (5, 5), (7, 7)]
    assert Op.MIX not in [node.op for node in trace(odd.Selective(), IMAGE).nodes]


def test_a_sequence_is_a_feature_map_of_height_1() -> None:
    report = analyze(odd.Line(), (3, 20))
    assert report.image == (3, 1, 20)
    assert [(stage.side, stage.channels) for stage in report.stages] == [((1, 20), 3), ((1, 20), 8)]
    assert [stage.side_out for stage in report.stages] == [(1, 20), (1, 10)]
    (first, second) = report.layers
    assert (first.layer.kernel, second.layer.kernel) == ((1, 3), (1, 5))
    assert (second.layer.stride, second.layer.dilation) == ((1, 2), (1, 2))
    assert second.layer.effective_kernel == (1, 9)
    assert (first.field.size, second.field.size) == ((1, 3), (1, 9))
    assert [layer.name for layer in report.head] == ["head"]


def test_attention_stays_in_the_stage_of_its_patches() -> None:
    report = analyze(odd.Attention(), IMAGE)
    (stage,) = report.stages
    assert (stage.side, stage.side_out, stage.channels) == ((16, 16), (4, 4), 3)
    names = [entry.layer.name for entry in report.layers]
    assert names == ["patches", "mix", "mix.out_proj", "dense"]
    assert [entry.field.size for entry in report.layers] == [(4, 4)] * 2 + [(16, 16)] * 2
    assert [entry.layer.macs for entry in report.layers[1:]] == [17 * 16 * 48, *[17 * 16 * 16] * 2]
    (note,) = report.notes
    assert note.endswith("every pixel sees all others; its products are not counted")


def test_windows_do_not_change_the_size() -> None:
    report = analyze(odd.Windows(), IMAGE)
    assert [(stage.side, stage.side_out) for stage in report.stages] == [((16, 16), (8, 8))]
    assert [entry.layer.kind for entry in report.layers] == ["CONV", "PW", "CONV"]
    assert [entry.field.size for entry in report.layers] == [(2, 2), (2, 2), (4, 4)]
    assert report.layers[1].layer.size_out == (4, 16)
    assert not report.notes


def test_kernels_strides_and_dilations_are_read() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), (2, 1), (1, 4), (1, 2), groups=2, bias=False),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
        nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2),
        nn.Conv2d(6, 6, 1, groups=3),
        nn.Conv2d(6, 4, 1),
    )
    first, second, third, fourth, fifth = trace(model, (4, 9, 8)).layers
    assert (first.kind, first.kernel, first.stride, first.dilation, first.groups) == (
        "GC",
        (3, 5),
        (2, 1),
        (1, 2),
        2,
    )
    assert (first.effective_kernel, first.strided, first.bias) == ((3, 9), True, False)
    assert (first.size_in, first.size_out) == ((9, 8), (5, 8))
    assert (second.kind, second.bias, second.params, second.strided) == ("DW", True, 80, False)
    assert (third.kind, third.size_in, third.size_out) == ("GC", (5, 8), (10, 16))
    assert (third.c_in, third.c_out, third.params) == (8, 6, 8 * 3 * 16 + 6)
    assert third.macs == 5 * 8 * 8 * 3 * 16
    assert (fourth.kind, fourth.groups, fifth.kind) == ("GPW", 3, "PW")


def test_a_depthwise_layer_keeps_its_width() -> None:
    model = nn.Sequential(conv(4, 4, groups=4), conv(4, 8, groups=4), conv(8, 4, groups=4))
    assert [layer.kind for layer in trace(model, (4, 9, 8)).layers] == ["DW", "GC", "GC"]


class InPlace(Two):
    """Adds in place to a feature map that is read before and after the sum."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        same = x.relu_()
        x.add_(self.b(x))
        return self.b(same)


def test_in_place_sums_are_seen_under_all_names() -> None:
    fields = [entry.field.size for entry in analyze(InPlace(), IMAGE).layers]
    assert fields == [(3, 3), (5, 5), (7, 7)]


def test_every_layer_is_listed_once() -> None:
    graph = trace(odd.PixelGate(), IMAGE)
    assert [layer.name for layer in graph.all_layers] == ["a", "b", "gate"]
    assert graph.macs == sum(layer.macs for layer in graph.all_layers)
    assert graph.children[0] == (1,)
    assert [node.index for node in graph.nodes] == [*range(len(graph.nodes))]


class Dead(Two):
    def forward(self, x: Tensor) -> Tensor:
        self.b(self.a(x))
        return self.a(x)


def test_layers_that_do_not_reach_the_output_are_named() -> None:
    graph = trace(Dead(), IMAGE)
    assert [layer.name for layer in graph.all_layers] == ["a"]
    assert graph.notes == ("2 layers do not reach the output",)
    assert graph.macs == 8 * 27 * 256


# What is given, and in which form.


def counts(model: nn.Module, x: Any = IMAGE) -> list[tuple[str, int, int]]:
    return [(layer.name, layer.params, layer.macs) for layer in trace(model, x).all_layers]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_accepted(dtype: torch.dtype) -> None:
    assert counts(odd.UNet().to(dtype)) == counts(odd.UNet())


def test_no_weights_are_needed() -> None:
    assert counts(odd.UNet().to("meta")) == counts(odd.UNet())


@pytest.mark.parametrize("x", [torch.zeros(1, *IMAGE), torch.zeros(5, *IMAGE), list(IMAGE)])
def test_a_batch_counts_as_one_image(x: Any) -> None:
    assert counts(odd.UNet(), x) == counts(odd.UNet())


def test_a_compiled_module_is_traced_like_the_original() -> None:
    assert counts(torch.compile(odd.UNet(), backend="eager")) == counts(odd.UNet())
    part = nn.Sequential(
        conv(3, 4), torch.compile(nn.Sequential(conv(4, 4), nn.ReLU()), backend="eager")
    )
    assert [count[1:] for count in counts(part)] == [(112, 27 * 4 * 256), (148, 36 * 4 * 256)]


class Sorted(Two):
    """Sort, cumulative sum, softmax and matmul: through them every pixel sees all others."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).sort(2)[0].cumsum(3).softmax(3)
        return self.b(x @ torch.ones(16, 3))


def test_unknown_operators_are_noted() -> None:
    report = analyze(Sorted(), IMAGE)
    unknown = "not known, as if every pixel saw all others and it cost nothing"
    product = "every pixel sees all others; its products are not counted"
    assert report.notes == (f"sort: {unknown}", f"matmul: {product}")
    assert [entry.field.size for entry in report.layers] == [(3, 3), (16, 16)]
    assert report.passed == {"cumsum": 1, "softmax": 1}


@pytest.mark.slow
def test_weights_of_unknown_operators_are_not_layers_and_are_noted() -> None:
    class Recurrent(Two):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.LSTM(8, 8, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            rows = self.rows(x.flatten(2).transpose(1, 2))[0]
            return self.b(rows.transpose(1, 2).unflatten(2, x.shape[2:]))

    report = analyze(Recurrent(), IMAGE)
    assert [entry.layer.name for entry in report.layers] == ["a", "b"]
    assert report.other_params == 2 * 4 * 8 * 9
    (note,) = report.notes
    assert note == "lstm: every pixel sees all others; its products are not counted"


class Adds(Two):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x.add_(self.b(x))
        return self.b(x)


def test_readers_of_the_old_name_get_the_new_value() -> None:
    program = torch.export.export(Adds(), (torch.zeros(1, *IMAGE),), strict=False)
    (added,) = (node for node in program.graph.nodes if is_in_place(node))
    assert bare_name(added) == "add"
    for user in list(added.users):
        user.replace_input_with(added, added.args[0])
    reader = Walk(Adds(), program.graph_signature.inputs_to_parameters, {})
    reader.read(program.graph, program.graph_signature.user_inputs[0])
    last = reader.maps.nodes[-1]
    assert [reader.maps.nodes[parent].op for parent in last.parents] == [Op.JOIN]


class ViewsBefore(nn.Module):
    """A view of a feature map to which others are added later."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 8), conv(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        half = x[:, :4]
        x.add_(self.b(x))
        return self.c(half)


@pytest.mark.slow
def test_a_view_sees_later_in_place_sums() -> None:
    fields = {entry.layer.name: entry.field.size for entry in analyze(ViewsBefore(), IMAGE).layers}
    assert fields == {"a": (3, 3), "b": (5, 5), "c": (7, 7)}


class Chosen(nn.Module):
    """Channels permuted by a buffer, and by indices computed in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(8, 8, groups=8), conv(8, 8, groups=8)
        self.register_buffer("order", torch.arange(8).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)[:, self.order]
        return self.two(x.index_select(1, torch.arange(8, device=x.device).roll(1)))


def test_the_order_of_channels_may_be_a_tensor() -> None:
    graph = trace(Chosen(), (8, 5, 5))
    (move,) = (node for node in graph.nodes if node.op is Op.MOVE)
    assert move.sources is not None
    assert move.sources[:, 1].tolist() == [0, 7, 6, 5, 4, 3, 2, 1]
    assert not graph.notes


def test_an_order_without_values_is_unknown() -> None:
    graph = trace(Chosen().to("meta"), (8, 5, 5))
    assert graph.how == "export"
    # Only the buffer has none: the order that is worked out is the same everywhere.
    assert [node.op for node in graph.nodes] == [Op.INPUT, Op.LAYER, Op.MIX, Op.MOVE, Op.LAYER]
    (note,) = graph.notes
    assert note.startswith("index: not known")


class Depends(Two):
    """The order of the channels depends on values of the image, so it is unknown."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x[:, x.mean((2, 3))[0].argsort()])


def test_an_order_that_depends_on_the_image_is_unknown() -> None:
    report = analyze(Depends(), IMAGE)
    assert [entry.field.size for entry in report.layers] == [(3, 3), (16, 16)]
    assert [note.partition(":")[0] for note in report.notes] == ["index"]


def test_a_part_under_autocast_is_read_inline() -> None:
    class Inside(Two):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                first, second = self.b(x).chunk(2, 1)
            return self.b(torch.cat([second, first], 1).float())

    graph = trace(Inside(), IMAGE)
    assert [(layer.name, layer.params) for layer in graph.layers] == [
        ("a", 224),
        ("b", 584),
        ("b", 0),
    ]
    (move,) = (node for node in graph.nodes if node.op is Op.MOVE)
    assert move.sources is not None
    assert move.sources[:, 1].tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_operators_that_keep_a_feature_map_are_counted() -> None:
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.SiLU(), nn.Dropout(), nn.SiLU())
    assert trace(model, IMAGE).passed == {"batch_norm": 1, "silu": 2, "dropout": 1}


class Normalised(Two):
    """A feature map divided by its norm along some axes, between two layers."""

    def __init__(self, *axes: int, groups: int = 1) -> None:
        super().__init__()
        self.axes, self.groups = axes, groups

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, channels, height, width = x.shape
        x = x.view(n, self.groups, channels // self.groups, height, width)
        return self.b(nn.functional.normalize(x, dim=self.axes).flatten(1, 2))


@pytest.mark.parametrize("groups", [1, 2])
def test_division_by_the_norm_along_the_channels_is_a_normalisation(groups: int) -> None:
    graph = trace(Normalised(2, groups=groups), IMAGE)
    assert (graph.passed or {})["normalize"] == 1
    assert not graph.notes
    fields = [entry.field.size for entry in analyze(Normalised(2, groups=groups), IMAGE).layers]
    assert fields == [entry.field.size for entry in analyze(Two(), IMAGE).layers]


def test_division_by_another_norm_is_none() -> None:
    assert "normalize" not in (trace(Normalised(2, 3), IMAGE).passed or {})

    class Scaled(Two):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(x / (self.b(x).norm(dim=1, keepdim=True) + 1))

    graph = trace(Scaled(), IMAGE)
    assert "normalize" not in (graph.passed or {})
    assert len(graph.layers) + len(graph.gates) == 3


class Heads(nn.Module):
    """Channels in two heads, the halves of each swapped and added, as for rotary positions."""

    def __init__(self, *, split: bool) -> None:
        super().__init__()
        self.split = split
        self.a, self.b = conv(3, 8), nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if not self.split:
            return self.b(x - x[:, [2, 3, 0, 1, 6, 7, 4, 5]])
        tokens = x.flatten(2).transpose(1, 2)
        heads = tokens.view(1, -1, 2, 4).transpose(1, 2)
        swapped = torch.cat([-heads[..., 2:], heads[..., :2]], -1).type_as(x)
        heads = heads * 0.5 + swapped * 0.5
        return self.b(heads.permute(0, 1, 3, 2).reshape(x.shape))


def test_channels_in_heads_are_added_channel_by_channel() -> None:
    split, whole = (trace(Heads(split=split), IMAGE) for split in (True, False))
    assert not split.notes
    assert not [node for node in split.nodes if node.changes_size]
    fields = [
        Propagation(graph, [1]).field(graph.nodes[-1].index, (16, 16)) for graph in (split, whole)
    ]
    assert fields[0] == fields[1]
    assert (fields[0].size, fields[0].channels) == ((3, 3), 2)


@pytest.mark.slow
def test_the_windows_of_swin_keep_the_stages_of_the_network() -> None:
    from ifspace.models.sources import network

    with torch.device("meta"):
        model = network("torchvision:swin_v2_t")
    report = analyze(model, (3, 224, 224))
    assert [stage.side_out for stage in report.stages] == [(56, 56), (28, 28), (14, 14), (7, 7)]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("network", [Two, odd.WritesAPart])
def test_the_setting_of_torch_is_restored(
    network: Callable[[], nn.Module], before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fx_config, "do_not_emit_stack_traces", before)
    assert trace(network(), IMAGE).how == "export"
    assert fx_config.do_not_emit_stack_traces is before
