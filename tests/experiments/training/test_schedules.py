from dataclasses import FrozenInstanceError, replace
from math import cos, pi

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


def learning_rates(schedule: Schedule, steps_per_epoch: int) -> list[float]:
    """The learning rate of every step, as an optimizer has it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=schedule.lr)
    scheduler = schedule.scheduler(optimizer, steps_per_epoch)
    rates = []
    for _ in range(schedule.epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", PRINTED)
def test_the_presets_are_those_of_the_papers(name: str) -> None:
    epochs, batch, momentum, weight_decay, rates = PRINTED[name]
    schedule = preset(name.upper())
    assert (schedule.epochs, schedule.batch, schedule.momentum) == (epochs, batch, momentum)
    assert schedule.weight_decay == weight_decay
    expected: list[float] = []
    for epoch in range(epochs):
        expected += [rates.get(epoch, expected[-1] if expected else None)] * 2
    assert learning_rates(schedule, 2) == pytest.approx(expected, rel=1e-9)
    assert schedule.nesterov == (name == "fog-imagenet")


def test_the_cosine_falls_to_zero() -> None:
    quick = preset("quick")
    rates = learning_rates(quick, 3)
    steps = 3 * quick.epochs
    assert rates == pytest.approx([0.05 * (1 + cos(pi * k / steps)) for k in range(steps)])


def test_layout_counts_in_steps() -> None:
    schedule, steps = preset("layout-residual"), 50_000 / 128
    assert schedule.epochs * steps == pytest.approx(80_000, rel=0.005)
    assert float(schedule.milestones[0]) * steps == pytest.approx(60_000, rel=0.005)
    assert (schedule.momentum, schedule.weight_decay) == (0, 0)


def test_other_epochs_keep_the_shares() -> None:
    short = preset("3drf-cifar").for_epochs(7)
    assert (short.epochs, short.milestones) == (7, (3, 5))
    expected = [0.1] * 3 + [0.01] * 2 + [0.001] * 2
    assert learning_rates(short, 1) == pytest.approx(expected, rel=1e-9)
    # Even within one epoch: after three sevenths of it.
    once = preset("3drf-cifar").for_epochs(1)
    assert learning_rates(once, 7) == pytest.approx(expected, rel=1e-9)
    assert once.for_epochs(350) == preset("3drf-cifar")


def test_every_preset_has_a_source_and_a_description() -> None:
    for name, schedule in PRESETS.items():
        assert name == schedule.name
        assert schedule.reference
        assert f"{schedule.epochs} epochs in batches of {schedule.batch}; SGD" in str(schedule)
    assert "not printed: 128" in PRESETS["3drf-cifar"].reference
    assert "× 0.1 after epoch 150, 250" in str(PRESETS["3drf-cifar"])
    with pytest.raises(FrozenInstanceError, match="epochs"):
        PRESETS["quick"].epochs = 1  # type: ignore[misc]
    with pytest.raises(TypeError, match="item assignment"):
        PRESETS["quick"] = PRESETS["3drf-cifar"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("wrong", "message"),
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
def test_schedules_out_of_range_raise(wrong: dict, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}"):
        replace(Schedule("mine", 10, 0.1, 64), **wrong)


@pytest.mark.parametrize("name", ["slow", 3, None])
def test_an_unknown_preset_is_one_line(name: object) -> None:
    with pytest.raises(SettingError, match=r"^unknown preset: got .*; allowed: 3drf-cifar, "):
        preset(name)
