import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cifar_files import (
    accept,
    picture,
    write_binary,
    write_binary_100,
    write_cifar10,
    write_cifar100,
)

from experiments.training.data import (
    Data,
    augmented,
    cifar10,
    cifar100,
    cifar_binary,
    digits,
)
from ifspace.errors import DeviceError, SettingError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int = 4, side: int = 6) -> torch.Tensor:
    """Images [N, 2, S, S] in which every pixel says its row and column, never black."""
    rows = torch.arange(1, side + 1).view(-1, 1).expand(side, side)
    return torch.stack([rows, rows.T + 20]).to(torch.uint8).repeat(count, 1, 1, 1)


def test_the_digits_are_split_by_class_and_always_the_same() -> None:
    first, again = digits(), digits()
    assert first.shape == (1, 8, 8)
    assert len(first.train_labels) + len(first.test_labels) == 1797
    assert torch.equal(first.test_images, again.test_images)
    for label in range(10):
        here, there = (
            (part == label).sum().item() for part in (first.train_labels, first.test_labels)
        )
        assert abs(there - (here + there) / 5) <= 1
    # No image is on both sides: the data have none twice.
    seen = {image.numpy().tobytes() for image in first.test_images}
    assert not seen & {image.numpy().tobytes() for image in first.train_images}
    # The mean and the deviation are those of the images to train on.
    normalised = first.normalised(first.train_images)
    assert (normalised.dtype, int(first.train_images.max())) == (torch.float32, first.white)
    assert normalised.mean().item() == pytest.approx(0, abs=1e-5)
    assert normalised.std().item() == pytest.approx(1, abs=1e-5)


def test_digits_without_scikit_learn_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [module for module in sys.modules if module.partition(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DeviceError, match=r"^scikit-learn is not installed: .*ifspace\[train\]"):
        digits()


def test_cifar10_is_read_as_torchvision_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(monkeypatch)
    data = cifar10(write_cifar10(tmp_path))
    assert (data.classes, data.shape, data.padding, data.flip) == (10, (3, 32, 32), 4, True)
    assert data.train_images.shape == (20, 3, 32, 32)
    assert data.train_images.dtype == torch.uint8
    assert data.train_labels.tolist() == [n + k for n in range(5) for k in range(4)]
    assert data.test_labels.tolist() == [5, 6, 7, 8]
    last = data.test_images[3]
    assert last.numpy().tobytes() == picture(53).tobytes()
    red, green, blue = last
    assert red[7].tolist() == list(range(53, 85))
    assert (int(green.max()), int(blue[31, 31]), int(blue.sum())) == (0, 255, 255)


def test_the_binary_version_has_the_images_of_the_python_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(monkeypatch)
    data, other = cifar_binary(write_binary(tmp_path)), cifar10(write_cifar10(tmp_path))
    assert torch.equal(data.train_images, other.train_images)
    assert torch.equal(data.train_labels, other.train_labels)
    assert torch.equal(data.test_images, other.test_images)
    assert torch.equal(data.test_labels, other.test_labels)
    assert (data.mean, data.std, data.padding, data.flip) == (other.mean, other.std, 4, True)
    # The folder of the files itself, and the fine labels of CIFAR-100.
    fine = cifar_binary(write_binary_100(tmp_path / "files"))
    assert (fine.classes, fine.train_labels.tolist()) == (100, [99, 98, 97, 96])
    assert fine.test_images[2].numpy().tobytes() == picture(2).tobytes()


def test_cifar100_has_the_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(monkeypatch)
    data = cifar100(str(write_cifar100(tmp_path)))
    assert (data.classes, len(data.train_labels)) == (100, 4)
    assert data.train_labels.tolist() == data.test_labels.tolist() == [99, 98, 97, 96]
    assert data.test_images[2].numpy().tobytes() == picture(2).tobytes()


def test_cifar_is_normalised_as_the_papers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(monkeypatch)
    data = cifar10(write_cifar10(tmp_path))
    normalised = data.normalised(data.test_images)
    for channel, (mean, std) in enumerate(((0.491, 0.247), (0.482, 0.243), (0.446, 0.261))):
        expected = (data.test_images[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(normalised[:, channel].double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("load", [cifar10, cifar100])
def test_a_folder_without_the_data_or_with_damaged_files_is_one_line(
    tmp_path: Path, load: Callable
) -> None:
    write_cifar10(tmp_path / "tiny")
    write_cifar100(tmp_path / "tiny")
    for folder in (tmp_path / "nowhere", tmp_path / "tiny"):
        with pytest.raises(
            SettingError, match=r"^CIFAR100? cannot be read: got .*corrupt"
        ) as error:
            load(folder)
        assert error.value.argument == "folder"
        assert "\n" not in str(error.value)


def test_a_torchvision_that_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DeviceError, match=r"^torchvision cannot be imported: .*data digits"):
        cifar10("anywhere")


def test_crops_shift_the_image_and_fill_with_black() -> None:
    images = numbered(200)
    crops = augmented(images, 2, False, generator())
    assert (crops.shape, crops.dtype) == (images.shape, torch.uint8)
    moves = set()
    framed = torch.nn.functional.pad(images, [2] * 4)
    for before, after in zip(framed, crops, strict=True):
        places = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(after, before[:, y : y + 6, x : x + 6])
        ]
        assert len(places) == 1
        moves.update(places)
    assert len(moves) == 25  # every place of the crop comes up


def test_about_half_the_images_are_mirrored() -> None:
    images = numbered(400)
    flipped = augmented(images, 0, True, generator(1))
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, images, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert [a != b for a, b in zip(mirrored, same, strict=True)] == [True] * 400
    assert 150 < sum(mirrored) < 250


def test_batches_are_augmented_only_where_the_data_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(monkeypatch)
    data = cifar10(write_cifar10(tmp_path))
    places = torch.tensor([3, 0, 7])
    plain = replace(data, padding=0, flip=False)
    images, labels = plain.train_batch(places, generator())
    assert torch.equal(images, data.normalised(data.train_images[places]))
    assert labels.tolist() == data.train_labels[places].tolist()
    one, again, other = (data.train_batch(places, generator(n))[0] for n in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, images)


def test_grey_images_are_enlarged_and_repeated() -> None:
    small = digits()
    large = small.enlarged(32, 3)
    assert (large.shape, len(large.mean), len(large.std)) == ((3, 32, 32), 3, 3)
    for channel in range(3):
        for corner in (0, 3):
            one = large.test_images[:, channel, corner::4, corner::4]
            assert torch.equal(one, small.test_images[:, 0])
    assert small.enlarged(8, 1) is small


def tiny(**changed: object) -> Data:
    images, labels = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])
    return replace(
        Data("tiny", images, labels, images, labels, 2, (0.5,) * 3, (1.0,) * 3), **changed
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_images": torch.zeros(2, 4, 4)}, r"train images and labels do not fit: got \[2, 4"),
        ({"test_images": torch.zeros(2, 3, 4, 5)}, r"test images and labels do not fit: got "),
        ({"test_labels": torch.tensor([0])}, r"test images and labels do not fit: got .*\[1\]"),
        ({"train_labels": torch.tensor([0, 2])}, r"label out of range: got 0 to 2; allowed: 0 to "),
        ({"test_labels": torch.tensor([-1, 0])}, r"label out of range: got -1 to 0"),
        ({"mean": (0.5,)}, r"mean and std do not fit: got \(0.5,\)"),
        ({"std": (1.0, 0.0, 1.0)}, r"mean and std do not fit"),
    ],
)
def test_data_that_do_not_fit_raise(changed: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}"):
        tiny(**changed)


def test_images_that_cannot_be_enlarged_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"^images do not fit the network: got 3x4x4 of tiny"):
        tiny().enlarged(6, 3)
    with pytest.raises(SettingError, match=r"^images do not fit the network"):
        tiny().enlarged(8, 1)
