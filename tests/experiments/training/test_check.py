from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import fmean, stdev

import pytest
import torch
from torch import nn

from experiments.training.check import (
    Run,
    _batches,
    macs_of,
    summaries,
    train_check,
)
from experiments.training.data import (
    Data,
    digits,
)
from experiments.training.schedules import (
    PRESETS,
    Schedule,
)
from experiments.training.versions import (
    layout_for,
    versions,
)
from ifspace.errors import DeviceError, SettingError
from ifspace.nn.network import NetworkStyle, build_network
from ifspace.stages.layout import StemAndHead
from ifspace.stages.networks import make_layout

ONCE = Schedule("once", 1, 0.1, 16, momentum=0.9)
TIMES = ("step_ms", "step_ms_p20", "step_ms_p80")


@pytest.fixture(scope="module")
def all_digits() -> Data:
    return digits()


@pytest.fixture(scope="module")
def few(all_digits: Data) -> Data:
    return replace(
        all_digits,
        train_images=all_digits.train_images[:65],
        train_labels=all_digits.train_labels[:65],
        test_images=all_digits.test_images[:40],
        test_labels=all_digits.test_labels[:40],
    )


def plain(width: int, dropout: float = 0.0) -> Callable[[int], nn.Module]:
    """Return a builder of one convolution and two dense layers."""
    layout = make_layout(
        "CONV", (8,), (width,), (1,), stem_and_head=StemAndHead(inputs=1, classifier=(12, 10))
    )
    return lambda seed: build_network(layout, NetworkStyle(dropout=dropout), seed=seed)


def without_times(runs: tuple[Run, ...]) -> list[Run]:
    return [replace(run, **dict.fromkeys(TIMES, 0.0)) for run in runs]


@pytest.mark.slow
def test_the_quick_preset_learns_the_digits(all_digits: Data) -> None:
    layout, style, data = layout_for("small", all_digits)
    final = versions(layout, style)[-1]
    (run,) = train_check({final.name: final.build}, data, PRESETS["quick"], (0,), threads=1)
    assert run.accuracy_percent > 90  # by chance 10
    assert run.train_loss < 0.2
    assert (run.version, run.seed, run.epochs) == ("decomposed", 0, PRESETS["quick"].epochs)
    assert 0 < run.step_ms_p20 <= run.step_ms <= run.step_ms_p80


@pytest.mark.slow
def test_a_seed_gives_the_same_run_whatever_is_trained_beside(few: Data) -> None:
    builders = {"a": plain(4, dropout=0.5), "b": plain(8, dropout=0.5)}
    both = without_times(train_check(builders, few, ONCE, (0, 1), threads=1))
    assert [(run.version, run.seed) for run in both] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert without_times(train_check(builders, few, ONCE, (0, 1), threads=1)) == both
    alone = without_times(train_check({"a": builders["a"]}, few, ONCE, (1,), threads=1))
    assert alone == [both[2]]
    assert both[0].train_loss != both[2].train_loss


def test_a_step_is_that_of_plain_torch(few: Data) -> None:
    schedule = Schedule(
        "two", 2, 0.05, 100, momentum=0.9, weight_decay=0.01, nesterov=True, milestones=(1,)
    )
    (run,) = train_check({"a": plain(4)}, few, schedule, (3,), threads=1)
    model = plain(4)(3).double()
    images, labels = few.normalised(few.train_images).double(), few.train_labels
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=0.01, nesterov=True)
    for rate in (0.05, 0.005):  # one batch an epoch: its order does not matter
        optimizer.param_groups[0]["lr"] = rate
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert run.train_loss == pytest.approx(loss.item(), rel=1e-4)
    right = (model(few.normalised(few.test_images).double()).argmax(1) == few.test_labels).sum()
    assert run.accuracy_percent == pytest.approx(100 * right.item() / 40)
    assert run.params == sum(weight.numel() for weight in model.parameters())


def test_the_loss_is_that_of_the_last_epoch(few: Data) -> None:
    class Counting(nn.Module):
        """Logits that do not depend on the images: the loss is known."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias + torch.zeros(len(x), 10)

    slow = Schedule("slow", 3, 1e-9, 16)
    (run,) = train_check({"a": lambda seed: Counting()}, few, slow, (0,))
    assert run.train_loss == pytest.approx(torch.tensor(10.0).log().item(), rel=1e-5)
    assert (run.params, run.macs) == (10, 0)
    # The bias learns which label is the most frequent.
    frequent = few.train_labels.bincount().argmax()
    assert run.accuracy_percent == 100 * (few.test_labels == frequent).double().mean().item()


def test_versions_see_the_same_batches_in_turn(few: Data) -> None:
    seen: list[tuple[str, bytes]] = []

    def spying(name: str) -> Callable[[int], nn.Module]:
        def build(seed: int) -> nn.Module:
            model = plain(2)(seed)
            model.register_forward_pre_hook(
                lambda module, inputs: (
                    seen.append((name, inputs[0].numpy().tobytes())) if module.training else None
                )
            )
            return model

        return build

    train_check({"a": spying("a"), "b": spying("b")}, few, ONCE, (0,))
    assert [name for name, _ in seen] == ["a", "b"] * 4
    assert [images for name, images in seen if name == "a"] == [x for n, x in seen if n == "b"]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(64, [16] * 4), (65, [16] * 3 + [17]), (66, [16] * 4 + [2]), (5, [5]), (1, [1])],
)
def test_every_image_is_in_one_batch_and_none_is_alone(count: int, sizes: list[int]) -> None:
    batches = _batches(count, 16, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == list(range(count))


def test_progress_counts_the_steps_of_all(few: Data) -> None:
    calls: list[tuple[int, int]] = []
    train_check(
        {"a": plain(2), "b": plain(2)}, few, ONCE, (0, 1), progress=lambda *call: calls.append(call)
    )
    assert calls == [(n, 16) for n in range(1, 17)]


def test_an_interruption_keeps_finished_runs(few: Data) -> None:
    kept: list[Run] = []

    def stop(done: int, total: int) -> None:
        if done == 11:
            raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train_check(
            {"a": plain(2), "b": plain(2)},
            few,
            ONCE,
            (0, 1),
            threads=1,
            progress=stop,
            finished=kept.append,
        )
    assert [(run.version, run.seed) for run in kept] == [("a", 0), ("b", 0)]
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_generators_and_threads_stay_as_they_were(few: Data) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()

    def draws(seed: int) -> Iterator[nn.Module]:
        torch.manual_seed(seed)
        return plain(2)(seed)

    train_check({"a": draws}, few, ONCE, (0,), threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_macs_are_those_of_the_layout() -> None:
    for block in ("CONV", "DW+PW", "DW+RPW(2,1/2)", "GC(4)+SH(4)+GPW(4)"):
        frame = StemAndHead(inputs=4, batch_norm=True, classifier=(7, 3))
        layout = make_layout(block, (8, 4), (16, 32), (2, 1), stem_and_head=frame)
        model = build_network(layout, seed=0)
        assert macs_of(model, (4, 8, 8)) == layout.macs
        assert model.training


def test_summaries_put_the_seeds_together() -> None:
    rows = [
        Run(name, seed, value, value / 100, 5, 6, 1.0 + seed, 0.5, 9.0, 2, 1, "cpu")
        for seed in range(3)
        for name, value in (("a", 90.0 + seed), ("b", 50.0))
    ]
    a, b = summaries(rows)
    assert (a.version, a.seeds, b.version, b.accuracy_std) == ("a", 3, "b", 0)
    assert a.accuracy_percent == fmean([90, 91, 92])
    assert a.accuracy_std == stdev([90, 91, 92])
    assert (a.train_loss, a.step_ms) == (pytest.approx(0.91), 2.0)
    assert summaries(rows[:1])[0].accuracy_std is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"versions": {}}, "no versions: got none"),
        ({"seeds": ()}, "no seeds: got none"),
        ({"seeds": (-1,)}, "seeds out of range: got -1"),
        ({"seeds": (0.5,)}, "seeds out of range: got 0.5"),
        ({"threads": 0}, "threads out of range: got 0"),
    ],
)
def test_bad_arguments_raise(few: Data, wrong: dict, message: str) -> None:
    arguments = {"versions": {"a": plain(2)}, "data": few, "schedule": ONCE} | wrong
    with pytest.raises(SettingError, match=f"^{message}"):
        train_check(**arguments)


def test_an_unavailable_device_raises(few: Data) -> None:
    for device in ("meta", "cuda:99", "nowhere"):
        with pytest.raises(DeviceError, match=r"^device cannot be used"):
            train_check({"a": plain(2)}, few, ONCE, device=device)
