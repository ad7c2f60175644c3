"""Operators one by one: names that change their meaning, constants, and parts of a program."""

import pytest
import torch
from models.odd_networks import IMAGE, Two, conv
from torch import Tensor, nn

from ifspace.models.analysis import analyze
from ifspace.models.calls import (
    bare_name,
    is_in_place,
)
from ifspace.models.graph import Op
from ifspace.models.tracing import Walk, trace

pytestmark = pytest.mark.usefixtures("one_thread")


class Adds(Two):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x.add_(self.b(x))
        return self.b(x)


def test_who_reads_the_old_name_reads_the_new_value() -> None:
    program = torch.export.export(Adds(), (torch.zeros(1, *IMAGE),), strict=False)
    (added,) = (node for node in program.graph.nodes if is_in_place(node))
    assert bare_name(added) == "add"
    for user in list(added.users):
        user.replace_input_with(added, added.args[0])
    reader = Walk(Adds(), program.graph_signature.inputs_to_parameters, {})
    reader.read(program.graph, program.graph_signature.user_inputs[0])
    last = reader.maps.nodes[-1]
    assert [reader.maps.nodes[each].op for each in last.parents] == [Op.JOIN]


class ViewsBefore(nn.Module):
    """A view of a map into which others are added later."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 8), conv(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        half = x[:, :4]
        x.add_(self.b(x))
        return self.c(half)


def test_a_view_sees_what_is_added_later() -> None:
    fields = {each.layer.name: each.field.size for each in analyze(ViewsBefore(), IMAGE).layers}
    assert fields == {"a": (3, 3), "b": (5, 5), "c": (7, 7)}


class Chosen(nn.Module):
    """Channels in an order that a buffer holds, and one that is worked out on every call."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(8, 8, groups=8), conv(8, 8, groups=8)
        self.register_buffer("order", torch.arange(8).flip(0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)[:, self.order]
        return self.two(x.index_select(1, torch.arange(8, device=x.device).roll(1)))


def test_the_order_of_channels_may_be_a_tensor() -> None:
    found = trace(Chosen(), (8, 5, 5))
    (move,) = (node for node in found.nodes if node.op is Op.MOVE)
    assert move.sources is not None
    assert move.sources[:, 1].tolist() == [0, 7, 6, 5, 4, 3, 2, 1]
    assert not found.notes


def test_an_order_without_values_is_not_known() -> None:
    found = trace(Chosen().to("meta"), (8, 5, 5))
    assert found.how == "export"
    # Only the buffer has none: the order that is worked out is the same everywhere.
    assert [node.op for node in found.nodes] == [Op.INPUT, Op.LAYER, Op.MIX, Op.MOVE, Op.LAYER]
    (note,) = found.notes
    assert note.startswith("index: not known")


class Depends(Two):
    """The order comes from the image: nobody knows which channel stands where."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x[:, x.mean((2, 3))[0].argsort()])


def test_an_order_that_the_image_decides_is_not_known() -> None:
    report = analyze(Depends(), IMAGE)
    assert [each.field.size for each in report.layers] == [(3, 3), (16, 16)]
    assert [note.partition(":")[0] for note in report.notes] == ["index"]


def test_a_part_under_another_mode_is_read_in_its_place() -> None:
    class Inside(Two):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                first, second = self.b(x).chunk(2, 1)
            return self.b(torch.cat([second, first], 1).float())

    found = trace(Inside(), IMAGE)
    assert [(layer.name, layer.params) for layer in found.layers] == [
        ("a", 224),
        ("b", 584),
        ("b", 0),
    ]
    (move,) = (node for node in found.nodes if node.op is Op.MOVE)
    assert move.sources is not None
    assert move.sources[:, 1].tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_what_keeps_a_map_is_counted() -> None:
    row = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.SiLU(), nn.Dropout(), nn.SiLU())
    assert trace(row, IMAGE).passed == {"batch_norm": 1, "silu": 2, "dropout": 1}
