"""Labelled images to train on: scikit-learn's digits, CIFAR-10 and CIFAR-100 from a folder."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ifspace.errors import DeviceError, SettingError
from ifspace.models import torchvision_operators
from ifspace.storage import read_bytes, reason

# [3DRF] section 5, Training Settings; [IF] prints the same.
CIFAR_MEAN: Final = (0.491, 0.482, 0.446)
CIFAR_STD: Final = (0.247, 0.243, 0.261)
CIFAR_PADDING: Final = 4
# A fifth of each class is kept for the test, always the same images.
DIGITS_SEED: Final = 0
TEST_SHARE: Final = 0.2
# Of an image of CIFAR: channels, height, width.
CIFAR_SHAPE: Final = (3, 32, 32)


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Images [N, C, H, W] and labels [N] from 0, to train on and to test on.

    `white` is the largest pixel value; `mean` and `std`, of pixels from 0 to 1, are one number per
    channel. Training images are padded by `padding` black pixels and cropped at a random position,
    and with `flip` mirrored with probability 1/2.

    Raises: SettingError for images, labels or numbers that do not fit each other.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: float = 255
    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        """Check that images, labels, mean and std fit each other."""
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            fits = images.dim() == 4 and images.shape[1:] == self.train_images.shape[1:]
            if not fits or labels.shape != images.shape[:1] or not len(labels):
                raise _unfit(
                    f"{part} images and labels do not fit",
                    f"{list(images.shape)} and {list(labels.shape)}",
                    "[N, C, H, W], one size for all, and [N]",
                    f"{part}_images",
                )
            if labels.min() < 0 or labels.max() >= self.classes:
                raise _unfit(
                    "label out of range",
                    f"{int(labels.min())} to {int(labels.max())}",
                    f"0 to {self.classes - 1}",
                    f"{part}_labels",
                )
        if not len(self.mean) == len(self.std) == self.shape[0] or min(self.std) <= 0:
            raise _unfit(
                "mean and std do not fit",
                f"{self.mean} and {self.std}",
                f"{self.shape[0]} numbers each, a std above 0",
                "mean",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def train_batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the training images at these indices [B], cropped and mirrored, and labels."""
        images = self.train_images[indices]
        if self.padding or self.flip:
            images = augmented(images, self.padding, self.flip, generator)
        return self.normalised(images), self.train_labels[indices]

    def normalised(self, images: Tensor) -> Tensor:
        """Return images [B, C, H, W] as float32 of mean 0 and deviation 1 per channel."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images.float() / self.white - mean) / std

    def enlarged(self, side: int, channels: int) -> "Data":
        """Return the data enlarged to side x side by repeating pixels, and grey channels.

        Raises: SettingError for a side that is not a multiple, or another number of channels.
        """
        channels_now, height, width = self.shape
        if side % height or side % width or channels_now not in (1, channels):
            raise _unfit(
                "images do not fit the network",
                f"{channels_now}x{height}x{width} of {self.name}",
                f"{channels}x{side}x{side}, or grey ones whose side divides {side}",
                "data",
            )
        if (channels_now, height, width) == (channels, side, side):
            return self
        copies = channels // channels_now

        def larger(images: Tensor) -> Tensor:
            wide = images.repeat_interleave(side // width, 3)
            return wide.repeat_interleave(side // height, 2).repeat(1, copies, 1, 1)

        return replace(
            self,
            train_images=larger(self.train_images),
            test_images=larger(self.test_images),
            mean=self.mean * copies,
            std=self.std * copies,
            padding=self.padding * (side // height),
        )


def _unfit(fact: str, got: str, allowed: str, argument: str) -> SettingError:
    return SettingError.because(
        fact, got=got, allowed=allowed, remedy="choose other data", argument=argument
    )


def augmented(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Return images [B, C, H, W], each cropped at random after padding, and mirrored with `flip`.

    The augmentation of the implementations that [3DRF] names: random crop with 4 pixels around,
    random horizontal flip.

    Raises: DeviceError where torchvision is not installed or does not fit torch.
    """
    v2 = _torchvision("torchvision.transforms.v2")
    steps = [v2.RandomCrop(images.shape[2:], padding)] if padding else []
    steps += [v2.RandomHorizontalFlip()] if flip else []
    transform = v2.Compose(steps)
    # torchvision draws from torch's global generator.
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return torch.stack([transform(image) for image in images])


def digits(test_share: float = TEST_SHARE) -> Data:
    """Return scikit-learn's digits: 1,797 grey images of 8 x 8 pixels, a share for the test.

    The same images are kept for the test every time, the same share of each class.

    Raises: DeviceError where scikit-learn is not installed.
    """
    try:
        loaded = import_module("sklearn.datasets").load_digits()
        split = import_module("sklearn.model_selection").train_test_split
    except ModuleNotFoundError:
        raise DeviceError.because(
            "scikit-learn is not installed",
            got="data digits",
            allowed="data cifar10, cifar100",
            remedy="install ifspace[train], which brings it",
            argument="data",
        ) from None
    arrays = split(
        loaded.images.astype(np.uint8)[:, None],
        loaded.target.astype(np.int64),
        test_size=test_share,
        random_state=DIGITS_SEED,
        stratify=loaded.target,
    )
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, arrays)
    white = 16
    pixels = train_images.double() / white
    return Data(
        "digits",
        train_images,
        train_labels,
        test_images,
        test_labels,
        classes=10,
        mean=(float(pixels.mean()),),
        std=(float(pixels.std()),),
        white=white,
    )


def cifar10(folder: str | PathLike[str]) -> Data:
    """Return CIFAR-10 from the folder that holds `cifar-10-batches-py`, as torchvision reads it.

    Raises: SettingError for a folder without the data, or with damaged files; DeviceError where
        torchvision is not installed or does not fit torch.
    """
    return _cifar("CIFAR10", folder, 10)


def cifar100(folder: str | PathLike[str]) -> Data:
    """Return CIFAR-100, fine labels, from the folder that holds `cifar-100-python`.

    Raises: as `cifar10`.
    """
    return _cifar("CIFAR100", folder, 100)


def _cifar(name: str, folder: str | PathLike[str], classes: int) -> Data:
    dataset = getattr(_torchvision("torchvision.datasets"), name)
    try:
        train, test = (dataset(folder, train=part) for part in (True, False))
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError) as error:
        raise SettingError.because(
            f"{name} cannot be read",
            got=f"{folder} ({error})",
            allowed=f"a directory with {dataset.base_folder} in it",
            remedy="unpack the Python version of the data there",
            argument="folder",
        ) from None
    return Data(
        name.lower(),
        *_tensors(train),
        *_tensors(test),
        classes=classes,
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        padding=CIFAR_PADDING,
        flip=True,
    )


@dataclass(frozen=True, slots=True)
class _Binary:
    """A binary version of CIFAR: its files, and where the label of a record stands."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: int
    classes: int

    @property
    def record(self) -> int:
        """Bytes of a record: labels, the last one is taken, and an image."""
        return self.labels + int(np.prod(CIFAR_SHAPE))

    def read(self, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
        """Return the images [N, 3, 32, 32] and labels [N] of files."""
        records = np.concatenate([self._records(path) for path in paths])
        images = records[:, self.labels :].reshape(-1, *CIFAR_SHAPE)
        labels = records[:, self.labels - 1].astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)

    def _records(self, path: Path) -> Any:
        try:
            content = read_bytes(path)
        except OSError as error:
            raise self._unreadable(f"{path}: {reason(error)}") from None
        if not content or len(content) % self.record:
            raise self._unreadable(f"{path} of {len(content):,} bytes")
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, self.record)
        largest = int(records[:, self.labels - 1].max())
        if largest >= self.classes:
            raise self._unreadable(f"{path} with the label {largest}")
        return records

    def _unreadable(self, got: str) -> SettingError:
        return SettingError.because(
            f"{self.name} cannot be read",
            got=got,
            allowed=f"files of records of {self.record:,} bytes, labels to {self.classes - 1}",
            remedy="unpack the binary version of the data there again",
            argument="folder",
        )


_BINARIES: Final = (
    _Binary(
        "cifar10",
        "cifar-10-batches-bin",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        1,
        10,
    ),
    _Binary("cifar100", "cifar-100-binary", ("train.bin",), "test.bin", 2, 100),
)


def cifar_binary(folder: str | PathLike[str]) -> Data:
    """Return CIFAR-10, or CIFAR-100 with fine labels, from the files of its binary version.

    `folder` holds them, or the folder that they are unpacked into. A record is a byte for each
    label (CIFAR-100 has a coarse one first), and the red, green and blue pixels of an image.

    Raises: SettingError for a folder without the files, or with damaged ones.

    Reference: Krizhevsky, Learning Multiple Layers of Features from Tiny Images; the format is that
        of the published "binary version (suitable for C programs)".
    """
    for binary in _BINARIES:
        for place in (Path(folder), Path(folder) / binary.folder):
            if (place / binary.test).exists():
                return Data(
                    binary.name,
                    *binary.read([place / name for name in binary.train]),
                    *binary.read([place / binary.test]),
                    classes=binary.classes,
                    mean=CIFAR_MEAN,
                    std=CIFAR_STD,
                    padding=CIFAR_PADDING,
                    flip=True,
                )
    raise SettingError.because(
        "no data in the folder",
        got=str(folder),
        allowed=" or ".join(f"{binary.test} and {binary.train[0]}" for binary in _BINARIES),
        remedy="unpack the binary version of CIFAR-10 or CIFAR-100 there",
        argument="folder",
    )


def _tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """Return images [N, 3, 32, 32] and labels [N] of a torchvision dataset."""
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(dataset.targets)


def _torchvision(module: str) -> Any:
    try:
        torchvision_operators.declare()
        return import_module(module)
    except (ImportError, RuntimeError) as error:
        raise DeviceError.because(
            "torchvision cannot be imported",
            got=f"{type(error).__name__}: {error}",
            allowed="data digits, which needs none",
            remedy="install the torchvision that goes with this torch",
            argument="data",
        ) from None
