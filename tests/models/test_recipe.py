"""Training what comes out: groups of parameters, the loss with a teacher, the file of both."""

from pathlib import Path

import pytest
import torch
from small_networks import resnet18
from torch import nn

import ifspace.models as m
from ifspace.errors import KernelError, SettingError

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (3, 32, 32)


def test_weight_decay_follows_the_compression_of_each_layer(tmp_path: Path) -> None:
    model = resnet18()
    final = m.decompose(model, SIZE, m.Blocks("DW+PW"), layers=m.Layers(["3.conv1", "9.conv2"]))
    recipe = m.Recipe.of(final.plan)
    file = recipe.save(tmp_path / "net.safetensors")
    assert (file.name, m.Recipe.read(file)) == ("net.recipe.json", recipe)
    network = final.model
    groups = m.parameter_groups(network, file, 0.01)
    decay_of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay_of) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        block = next((x for x in ("3.conv1", "9.conv2") if name.startswith(x)), None)
        expected = 0.01 if parameter.dim() > 1 else 0.0
        if block and expected:
            ratio = sum(p.numel() for p in network.get_submodule(block).parameters()) / sum(
                p.numel() for p in model.get_submodule(block).parameters()
            )
            assert ratio < 0.3
            expected *= ratio
        assert decay_of[id(parameter)] == pytest.approx(expected)
    torch.optim.AdamW(groups)


def test_the_loss_is_that_of_the_teacher_and_the_labels() -> None:
    teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    teacher.train()
    loss = m.DistillationLoss(nn.Sequential(teacher, nn.Dropout(0.9)), 2.0, 0.25)
    x, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    logits = student(x)
    total = loss(x, logits, labels)
    p, q = (torch.softmax(y.detach() / 2, 1) for y in (teacher(x), logits))
    divergence = (p * (p / q).log()).sum(1).mean()
    own = -torch.log_softmax(logits.detach(), 1)[range(5), labels].mean()
    assert float(total.detach()) == pytest.approx(
        float(0.75 * own + 0.25 * 4 * divergence), rel=1e-4
    )
    total.backward()
    assert teacher.weight.grad is None
    assert student.weight.grad is not None
    assert (teacher.training, list(loss.parameters())) == (True, [])
    with torch.no_grad():
        student.load_state_dict(teacher.state_dict())
        assert float(m.DistillationLoss(teacher, 2.0, 1.0)(x, student(x), labels)) == pytest.approx(
            0
        )


def test_what_is_no_recipe_of_this_network_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^recipe of another network: got 7, which Linear"):
        m.parameter_groups(nn.Linear(2, 2), m.Recipe({"7": 0.5}))
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(SettingError, match=r"^recipe cannot be read: got .*a\.json"):
        m.parameter_groups(nn.Linear(2, 2), tmp_path / "a.json")
    for temperature, weight in ((0, 0.5), (1, 1.5)):
        with pytest.raises(SettingError, match=r"^distillation out of range"):
            m.DistillationLoss(nn.Identity(), temperature, weight)


def test_a_teacher_of_other_classes_is_one_line() -> None:
    loss = m.DistillationLoss(nn.Linear(4, 10))
    x, labels = torch.zeros(2, 4), torch.tensor([0, 1])
    with pytest.raises(KernelError, match=r"^a teacher .* got \[2, 10\] beside logits \[2, 5\];"):
        loss(x, torch.zeros(2, 5), labels)
