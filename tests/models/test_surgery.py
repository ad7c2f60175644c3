"""Units removed and appended: which weights stay, which are new, and steps that are repeated."""

import copy
import json
from collections.abc import Iterator

import pytest
import torch
from models.movable_networks import NETWORKS
from models.predictions import edited_copy, layout_of, some_depths, with_depths
from small_networks import BasicBlock
from torch import Tensor, nn

from ifspace.errors import IfspaceError, SettingError
from ifspace.models.depths import TracedLayout
from ifspace.models.edits import EditedNetwork, Edits
from ifspace.models.surgery import (
    Append,
    Remove,
    copy_of_unit,
    modules_of_unit,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def with_distinct_values(model: nn.Module) -> nn.Module:
    """Fill every weight and buffer with distinct numbers, so that they identify the tensor."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            else:
                tensor.copy_(torch.randint(1, 10**9, tensor.shape, generator=generator))
    return model


def tensor_bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def removed_tensors(model: nn.Module, layout: TracedLayout) -> Iterator[Tensor]:
    """Yield the tensors of the removed units."""
    for step in layout.steps():
        if isinstance(step, Remove):
            parent, keys = modules_of_unit(model, step.names)
            for key in keys:
                yield from parent._modules[key].state_dict().values()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_keep_their_order_and_new_ones_are_random(name: str) -> None:
    model = with_distinct_values(NETWORKS[name]())
    before = copy.deepcopy(model.state_dict())
    structure = str(model)
    start = layout_of(model)
    away = start.at_depths(tuple(stage.min_depth for stage in start.stages))
    for layout in (some_depths(start, 3), away):
        random_state = torch.get_rng_state()
        changed, same, other = (with_depths(model, layout, seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), random_state)
        old = {tensor_bytes(tensor) for tensor in before.values()}
        lost = {tensor_bytes(tensor) for tensor in removed_tensors(model, layout)}
        expected = [
            tensor_bytes(tensor) for tensor in before.values() if tensor_bytes(tensor) not in lost
        ]
        tensors = changed.state_dict()
        kept = [tensor_bytes(tensor) for tensor in tensors.values() if tensor_bytes(tensor) in old]
        assert kept == expected
        new = {key: tensor for key, tensor in tensors.items() if tensor_bytes(tensor) not in old}
        assert all(tensor.isfinite().all() for tensor in new.values())
        assert bool(new) == any(isinstance(step, Append) for step in layout.steps())
        drawn = [key for key, tensor in new.items() if tensor.dim() > 1]
        assert bool(drawn) == bool(new)
        for key in new:
            assert torch.equal(tensors[key], same.state_dict()[key])
        assert not any(torch.equal(tensors[key], other.state_dict()[key]) for key in drawn)
        assert len({tensor_bytes(tensors[key]) for key in drawn}) == len(drawn)
    assert str(model) == structure
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["norm first", "written", "residual", "gated", "our blocks"])
def test_dtype_mode_requires_grad_and_memory_format_are_kept(name: str) -> None:
    model = NETWORKS[name]().double().to(memory_format=torch.channels_last).eval()
    model.requires_grad_(False)
    start = layout_of(model)
    grown = start.at_depths(tuple(stage.depth + 1 for stage in start.stages))
    deeper = with_depths(model, grown)
    assert not any(module.training for module in deeper.modules())
    assert {parameter.dtype for parameter in deeper.parameters()} == {torch.float64}
    assert not any(parameter.requires_grad for parameter in deeper.parameters())
    for parameter in deeper.parameters():
        assert parameter.dim() != 4 or parameter.is_contiguous(memory_format=torch.channels_last)
    assert deeper(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).shape == (1, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_steps_can_be_repeated(name: str) -> None:
    model = NETWORKS[name]()
    start = layout_of(model)
    middle = edited_copy(EditedNetwork.of(model), some_depths(start, 3))
    last = edited_copy(middle, some_depths(layout_of(middle.model), 4))
    changed, written = last.model, json.dumps(last.edits.to_json())
    fresh = NETWORKS[name]()
    for step in Edits.from_json(json.loads(written)).steps:
        step.apply(fresh)
    assert list(fresh.state_dict()) == list(changed.state_dict())
    fresh.load_state_dict(changed.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(fresh.eval()(x), changed.eval()(x), rtol=0, atol=0)


def names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if not any(module.children())]


def test_children_of_a_sequential_are_numbered_again() -> None:
    model = NETWORKS["flat"]()
    last = model[-1]
    Remove(("16",)).apply(model)
    assert model[-1] is last
    assert [name for name, _ in model.named_children()] == [str(n) for n in range(19)]
    Append(("3",), ("3",), count=2).apply(model)
    assert [type(module).__name__ for module in model[3:13]] == [
        *["Conv2d", "BatchNorm2d", "ReLU"] * 3,
        "MaxPool2d",
    ]
    assert len(model) == 25


def test_names_are_kept_and_new_ones_are_unused() -> None:
    model = NETWORKS["named"]()
    Append(("body.conv2",), ("body.conv2",), count=2).apply(model)
    assert [name for name, _ in model.body.named_children()] == [
        "conv1",
        "act1",
        "conv2",
        "act2",
        "conv6",
        "act6",
        "conv7",
        "act7",
        "pool",
        "conv3",
        "act3",
        "conv4",
        "act4",
        "conv5",
        "act5",
    ]
    Remove(("body.conv4",)).apply(model)
    assert "conv4" not in dict(model.body.named_children())
    assert "conv5" in dict(model.body.named_children())


def test_numbers_with_gaps_are_kept() -> None:
    model = NETWORKS["sparse numbers"]()
    before = [name for name, _ in model.named_children()]
    Remove(("28",)).apply(model)
    assert [name for name, _ in model.named_children()] == [
        name for name in before if name not in ("28", "31")
    ]


def test_one_object_at_many_indices_is_kept() -> None:
    model = NETWORKS["one relu"]()
    act = model[1]
    Remove(("9",)).apply(model)
    Append(("2",), ("2",)).apply(model)
    kinds = "".join({nn.Conv2d: "c", nn.ReLU: "r"}.get(type(module), ".") for module in model)
    assert kinds == "crcrcr.crcrcr..."
    assert sum(module is act for module in model) == 5


def test_outside_of_a_sequential_an_identity_takes_the_index() -> None:
    model = NETWORKS["listed"]()
    first = model.layers[1]
    Remove(("layers.4",)).apply(model)
    Append(("layers.1",), ("layers.1",), activation="silu", count=2).apply(model)
    assert len(model.layers) == 6
    assert isinstance(model.layers[4], nn.Identity)
    assert [type(module) for module in model.layers[1]] == [
        nn.Conv2d,
        nn.SiLU,
        nn.Conv2d,
        nn.SiLU,
        nn.Conv2d,
    ]
    assert model.layers[1][0] is first


@pytest.mark.slow
def test_appended_layers_have_the_activation_of_the_network() -> None:
    for name, kind in (("listed", nn.ReLU), ("written", nn.SiLU), ("indexed sequential", nn.ReLU)):
        model = NETWORKS[name]()
        start = layout_of(model)
        grown = start.at_depths((*start.depths[:-1], start.depths[-1] + 1))
        (step,) = grown.steps()
        copies = with_depths(model, grown).get_submodule(step.behind[0])
        assert [type(module) for module in copies] == [nn.Conv2d, kind, nn.Conv2d]


def test_single_blocks_are_wrapped_in_a_sequential() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = BasicBlock(3, 8, 2), BasicBlock(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = Root()
    Append(("second",), ("second",), activation="relu").apply(model)
    assert [type(module) for module in model.second] == [BasicBlock, BasicBlock]
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 8, 4, 4)


@pytest.mark.slow
def test_a_norm_before_a_block_is_not_copied() -> None:
    # The norm and the activation before the first block are those of the convolution.
    model = NETWORKS["separable blocks"]()
    start = layout_of(model)
    deeper = with_depths(model, start.at_depths((3, 4)))
    assert [type(module).__name__ for module in deeper[:5]] == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
        "Separable",
        "Separable",
    ]


@pytest.mark.slow
def test_the_last_norm_of_a_network_is_not_that_of_its_last_block() -> None:
    model = NETWORKS["pre-activated"]()
    start = layout_of(model)
    changed = with_depths(model, start.at_depths((2, 2)))
    assert [type(module).__name__ for module in changed[-5:-2]] == [
        "BatchNorm2d",
        "ReLU",
        "AdaptiveAvgPool2d",
    ]
    assert changed[-5] is not None
    assert torch.equal(changed[-5].weight, model[-5].weight)


def test_a_copy_shares_weights_as_its_unit_does() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1) for _ in "ab")
            self.b.weight = self.a.weight

    (copied,) = copy_of_unit(nn.Sequential(Tied()), ("0",)).values()
    assert copied.a.weight is copied.b.weight


def test_statistics_without_weights_are_reset() -> None:
    model = with_distinct_values(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)))
    copied = copy_of_unit(model, ("0",))
    assert torch.equal(copied["1"].running_mean, torch.zeros(3))
    assert copied["1"].num_batches_tracked == 0


def test_parametrized_weights_are_initialised_again() -> None:
    norm = nn.utils.parametrizations.weight_norm
    model = nn.Sequential(norm(nn.Conv2d(3, 3, 3)), norm(nn.Linear(3, 3)))
    (conv,), (linear,) = (copy_of_unit(model, (name,)).values() for name in "01")
    for copied, old in ((conv, model[0]), (linear, model[1])):
        assert copied.weight.shape == old.weight.shape
        assert not torch.equal(copied.weight, old.weight)
        assert copied.weight.isfinite().all()
    with pytest.raises(SettingError, match="got weights made of others at 8 channels"):
        copy_of_unit(model, ("0",), 8)


STEPS = (
    Remove(("a",)),
    Remove(("features.3", "features.6")),
    Append(("a",), ("b",)),
    Append(("a.0", "a.1"), ("b",), 64, 3, "hardswish"),
)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_survives_json(step: Remove | Append) -> None:
    assert type(step).from_json(json.loads(json.dumps(step.to_json()))) == step
    edits = Edits("vgg16", (3, 32, 32), (step, step))
    assert Edits.from_json(json.loads(json.dumps(edits.to_json()))) == edits


@pytest.mark.parametrize("step", [STEPS[1], STEPS[3]])
@pytest.mark.parametrize(
    "change",
    [
        {"names": []},
        {"names": "a"},
        {"names": [1]},
        {"behind": None},
        {"like": [None]},
        {"channels": 0},
        {"channels": True},
        {"channels": "8"},
        {"count": 0},
        {"count": 1.5},
        {"count": 10**9},
        {"activation": "tanh"},
        {"activation": 3},
    ],
)
def test_malformed_json_of_a_step_is_an_error(step: Remove | Append, change: dict) -> None:
    values = step.to_json()
    if change.keys() <= values.keys():
        values.update(change)
        with pytest.raises((IfspaceError, KeyError, TypeError, ValueError), match=r"\w"):
            type(step).from_json(values)
        values = {"step": step.step, **values}
        with pytest.raises(SettingError, match=r"^steps that cannot be read: ") as raised:
            Edits.from_json({**Edits().to_json(), "steps": [values]})
        assert "\n" not in str(raised.value)


def test_steps_of_another_network_are_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3))
    for step in (Remove(("1",)), Append(("1",), ("0",)), Append(("0",), ("1",))):
        with pytest.raises(SettingError, match=r"^a unit that is not in the network: got 1; "):
            step.apply(model)
    assert len(model) == 1
