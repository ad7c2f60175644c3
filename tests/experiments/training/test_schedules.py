from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import pytest
import torch

from experiments.training.schedules import (
    PRESETS,
    Schedule,
    preset,
)
from ifspace.errors import SettingError

# As the papers print them: name -> epochs, batch, momentum, weight decay, rates from epochs on.
PRINTED = {
    "3drf-cifar": (350, 128, 0.9, 5e-4, {0: 0.1, 150: 0.01, 250: 0.001}),
    "3drf-imagenet": (120, 256, 0.9, 1e-4, {0: 0.1, 30: 0.01, 60: 1e-3, 90: 1e-4}),
    "fog-imagenet": (100, 256, 0.9, 1e-4, {0: 0.1, 30: 0.01, 60: 1e-3, 90: 1e-4}),
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_presets_are_those_of_the_papers(name: str) -> None:
    epochs, batch, momentum, weight_decay, rates = PRINTED[name]
    found = preset(name.upper())
    assert (found.epochs, found.batch, found.momentum) == (epochs, batch, momentum)
    assert found.weight_decay == weight_decay
    now = None
    for epoch in range(epochs):
        now = rates.get(epoch, now)
        assert found.lr_at(epoch) == found.lr_at(epoch + 0.999) == now
    assert found.nesterov == (name == "fog-imagenet")


def test_steps_fall_as_torch_has_them() -> None:
    found = preset("3drf-imagenet")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=found.lr)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(found.milestones), found.factor)
    for epoch in range(found.epochs):
        assert found.lr_at(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_the_cosine_falls_as_torch_has_it() -> None:
    found = preset("quick")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=found.lr)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, found.epochs)
    for epoch in range(found.epochs):
        assert found.lr_at(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()
    assert found.lr_at(Fraction(found.epochs)) == pytest.approx(0, abs=1e-12)


def test_layout_counts_in_steps() -> None:
    found, steps = preset("layout-residual"), 50_000 / 128
    assert found.epochs * steps == pytest.approx(80_000, rel=0.005)
    assert float(found.milestones[0]) * steps == pytest.approx(60_000, rel=0.005)
    assert (found.momentum, found.weight_decay) == (0, 0)


def test_other_epochs_keep_the_shares() -> None:
    short = preset("3drf-cifar").for_epochs(7)
    assert (short.epochs, short.milestones) == (7, (3, 5))
    assert [short.lr_at(n) for n in range(7)] == [0.1] * 3 + [0.01] * 2 + [0.001] * 2
    # Even within one epoch: after three sevenths of it.
    once = preset("3drf-cifar").for_epochs(1)
    assert once.lr_at(Fraction(3, 7)) == 0.01 > once.lr_at(Fraction(5, 7))
    assert once.for_epochs(350) == preset("3drf-cifar")


def test_every_preset_says_its_source_and_itself() -> None:
    for name, found in PRESETS.items():
        assert name == found.name
        assert found.reference
        assert f"{found.epochs} epochs in batches of {found.batch}; SGD" in str(found)
    assert "not printed: 128" in PRESETS["3drf-cifar"].reference
    assert "× 0.1 after epoch 150, 250" in str(PRESETS["3drf-cifar"])
    with pytest.raises(FrozenInstanceError, match="epochs"):
        PRESETS["quick"].epochs = 1  # type: ignore[misc]
    with pytest.raises(TypeError, match="item assignment"):
        PRESETS["quick"] = PRESETS["3drf-cifar"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs out of range: got 0"),
        ({"epochs": 1.5}, "epochs out of range: got 1.5"),
        ({"batch": 0}, "batch out of range: got 0"),
        ({"lr": 0}, "lr out of range: got 0; allowed: numbers above 0"),
        ({"momentum": 1}, "momentum out of range: got 1"),
        ({"momentum": 0, "nesterov": True}, "nesterov out of range: got True; allowed: only with"),
        ({"weight_decay": -1}, "weight_decay out of range: got -1"),
        ({"factor": 0}, "factor out of range: got 0"),
        ({"decay": "linear"}, "decay out of range: got 'linear'; allowed: steps, cosine"),
        ({"milestones": (5, 3)}, r"milestones out of range: got \(5, 3\); allowed: ascending"),
    ],
)
def test_schedules_that_cannot_be_followed_are_refused(wrong: dict, said: str) -> None:
    with pytest.raises(SettingError, match=f"^{said}"):
        replace(Schedule("mine", 10, 0.1, 64), **wrong)


@pytest.mark.parametrize("name", ["slow", 3, None])
def test_an_unknown_preset_is_one_line(name: object) -> None:
    with pytest.raises(SettingError, match=r"^unknown preset: got .*; allowed: 3drf-cifar, "):
        preset(name)
