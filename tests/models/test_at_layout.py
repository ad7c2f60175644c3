"""Networks of the papers at other depths: which weights and settings they keep."""

from dataclasses import replace

import pytest
import torch
from small_networks import params
from torch import nn

from ifspace.models.edits import EditedNetwork, Edits
from ifspace.models.reorganization import at_layout, reorganize
from ifspace.nn import BlockModule, Network, named_network

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(stage: nn.Module) -> list[BlockModule]:
    return [module for module in stage.modules() if isinstance(module, BlockModule)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("vgg16", (5, 4, 2, 1, 1)),
        ("mobilenet", (5, 4, 3, 1, 1)),
        ("resnet50", (5, 5, 4, 2)),
        ("fog", (6, 1, 4, 4)),
        ("3drf", (1, 3, 2, 1)),
        ("layout-residual", (11, 11, 6, 3)),
        ("layout-residual", (2, 9, 10, 1)),
    ],
)
def test_unit_n_keeps_the_weights_of_unit_n(name: str, depths: tuple[int, ...]) -> None:
    model = named_network(name, 32, seed=1)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape))
    deeper = at_layout(model, model.layout.at_depths(depths), seed=2)
    assert deeper.layout == model.layout.at_depths(depths)
    assert params(deeper) == deeper.layout.params
    for part in ("stem", "head"):
        for mine, theirs in zip(
            getattr(deeper, part).state_dict().values(),
            getattr(model, part).state_dict().values(),
            strict=True,
        ):
            assert torch.equal(mine, theirs)
    for new, old in zip(deeper.stages, model.stages, strict=True):
        pairs = list(zip(blocks(new), blocks(old), strict=False))
        assert len(pairs) == min(len(blocks(new)), len(blocks(old)))
        for mine, theirs in pairs:
            for key, value in mine.state_dict().items():
                assert torch.equal(value, theirs.state_dict()[key])
        for mine in blocks(new)[len(pairs) :]:
            assert not any(
                torch.equal(mine.layer0.weight, module.layer0.weight) for module in blocks(old)
            )


def test_new_weights_are_those_of_the_seed() -> None:
    model = named_network("vgg11", 32, seed=1)
    layout = model.layout.at_depths((3, 1, 2, 2, 1))
    state = torch.get_rng_state()
    one, same, other = (at_layout(model, layout, seed) for seed in (4, 4, 5))
    assert torch.equal(state, torch.get_rng_state())
    for key, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])
    new = "stages.stage1.unit3.layer0.weight"
    assert not torch.equal(one.state_dict()[new], other.state_dict()[new])


@pytest.mark.slow
def test_device_dtype_mode_requires_grad_and_memory_format_are_kept() -> None:
    model = named_network("vgg11", 32, seed=1).double().to(memory_format=torch.channels_last)
    model.stages.stage1.eval()
    model.stages.stage2.requires_grad_(False)
    changed = at_layout(model, model.layout.at_depths((2, 1, 2, 2, 2)))
    assert {parameter.dtype for parameter in changed.parameters()} == {torch.float64}
    assert all(
        parameter.is_contiguous(memory_format=torch.channels_last)
        for parameter in changed.parameters()
        if parameter.dim() == 4
    )
    modes = [stage.training for stage in changed.stages]
    assert modes == [False, True, True, True, True]
    assert [parameter.requires_grad for parameter in changed.stages.stage2.parameters()] == [
        False
    ] * 3
    assert all(parameter.requires_grad for parameter in changed.stages.stage3.parameters())
    meta = at_layout(model.to("meta"), model.layout.at_depths((2, 1, 2, 2, 2)))
    assert all(tensor.is_meta for tensor in (*meta.parameters(), *meta.buffers()))


@pytest.mark.slow
def test_the_model_is_unchanged_and_its_edits_are_kept() -> None:
    model = named_network("vgg11", 32, classes=7, seed=1)
    edits = Edits(image=(3, 32, 32), classes=7)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    changed = at_layout(model, model.layout.at_depths((1, 1, 1, 1, 1)))
    assert type(changed) is Network
    assert reorganize(EditedNetwork(model, edits), (3, 32, 32)).edits == edits
    assert changed(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert changed.style == model.style
    assert changed.layout.stem_and_head == replace(model.layout.stem_and_head)
