"""Labelled images to train on: scikit-learn's digits, CIFAR-10 and CIFAR-100 from a folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ifspace.errors import DeviceError, SettingError

# [3DRF] section 5, Training Settings; [IF] prints the same.
CIFAR_MEAN: Final = (0.491, 0.482, 0.446)
CIFAR_STD: Final = (0.247, 0.243, 0.261)
CIFAR_SHAPE: Final = (3, 32, 32)
CIFAR_PADDING: Final = 4
# Which of the digits are kept for the test: a fifth of each class, always the same.
DIGITS_SEED: Final = 0
TEST_SHARE: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Images [N, C, H, W] and labels [N] from 0, to train on and to test on.

    `white` is the greatest value of a pixel; `mean` and `std`, of pixels from 0 to 1, are a number
    for each channel. Images to train on are padded by `padding` black pixels and cropped at a
    random place, and with `flip` every other one is mirrored.

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
        """Refuse what no network could be trained with."""
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

    def train_batch(self, places: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the images to train on at these places [B], cropped and mirrored, and labels."""
        images = self.train_images[places]
        if self.padding or self.flip:
            images = augmented(images, self.padding, self.flip, draws)
        return self.normalised(images), self.train_labels[places]

    def normalised(self, images: Tensor) -> Tensor:
        """Return images [B, C, H, W] as 32-bit floats of mean 0 and deviation 1 a channel."""
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.mean, self.std))
        return (images.float() / self.white - mean) / std

    def enlarged(self, side: int, channels: int) -> "Data":
        """Return the data with every pixel repeated up to side x side, grey ones in all channels.

        Raises: SettingError for a side that is no multiple, or channels that are there in colour.
        """
        now, height, width = self.shape
        if side % height or side % width or now not in (1, channels):
            raise _unfit(
                "images do not fit the network",
                f"{now}x{height}x{width} of {self.name}",
                f"{channels}x{side}x{side}, or grey ones whose side divides {side}",
                "data",
            )
        if (now, height, width) == (channels, side, side):
            return self
        many = channels // now

        def larger(images: Tensor) -> Tensor:
            wide = images.repeat_interleave(side // width, 3)
            return wide.repeat_interleave(side // height, 2).repeat(1, many, 1, 1)

        return replace(
            self,
            train_images=larger(self.train_images),
            test_images=larger(self.test_images),
            mean=self.mean * many,
            std=self.std * many,
            padding=self.padding * (side // height),
        )


def _unfit(fact: str, got: str, allowed: str, argument: str) -> SettingError:
    return SettingError.because(
        fact, got=got, allowed=allowed, remedy="choose other data", argument=argument
    )


def augmented(images: Tensor, padding: int, flip: bool, draws: torch.Generator) -> Tensor:
    """Return images [B, C, H, W], each cropped out of a black frame at a random place.

    Half of them are mirrored with `flip`. The augmentation of the implementations that [3DRF]
    names: random crop with 4 pixels around, random horizontal flip.
    """
    count, channels, height, width = images.shape
    framed = torch.nn.functional.pad(images, [padding] * 4)
    top, left = (torch.randint(2 * padding + 1, (count, 1), generator=draws) for _ in range(2))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=draws) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    each = torch.arange(count).view(-1, 1, 1, 1)
    channel = torch.arange(channels).view(1, -1, 1, 1)
    return framed[each, channel, rows[:, None, :, None], columns[:, None, None, :]]


def digits() -> Data:
    """Return scikit-learn's digits: 1,797 grey images of 8 x 8 pixels, a fifth for the test.

    The same images are kept for the test every time, the same share of each class.

    Raises: DeviceError where scikit-learn is not installed.
    """
    try:
        loaded = import_module("sklearn.datasets").load_digits()
    except ModuleNotFoundError:
        raise DeviceError.because(
            "scikit-learn is not installed",
            got="data digits",
            allowed="data cifar10, cifar100",
            remedy="install ifspace[train], which brings it",
            argument="data",
        ) from None
    images = torch.from_numpy(loaded.images.astype(np.uint8))[:, None]
    labels = torch.from_numpy(loaded.target.astype(np.int64))
    test = _of_each_class(labels, TEST_SHARE, DIGITS_SEED)
    white = 16
    share = images[~test].double() / white
    return Data(
        "digits",
        images[~test],
        labels[~test],
        images[test],
        labels[test],
        classes=10,
        mean=(float(share.mean()),),
        std=(float(share.std()),),
        white=white,
    )


def _of_each_class(labels: Tensor, share: int, seed: int) -> Tensor:
    """Return which labels [N] are chosen: one in `share` of each class, to the nearest number."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    draws = torch.Generator().manual_seed(seed)
    for label in sorted(set(labels.tolist())):
        places = (labels == label).nonzero().flatten()
        order = torch.randperm(len(places), generator=draws)
        chosen[places[order[: round(len(places) / share)]]] = True
    return chosen


def cifar10(folder: str | PathLike[str]) -> Data:
    """Return CIFAR-10 from the files of its binary version, or the folder that these are in.

    data_batch_1.bin to data_batch_5.bin and test_batch.bin: a record is a label and 3,072 bytes,
    red, green and blue.

    Raises: SettingError for a folder or file that is not there, or is not of this format.
    """
    names = [f"data_batch_{n}.bin" for n in range(1, 6)]
    return _cifar("cifar10", folder, "cifar-10-batches-bin", names, "test_batch.bin", (10,))


def cifar100(folder: str | PathLike[str]) -> Data:
    """Return CIFAR-100 from the files of its binary version, or the folder that these are in.

    train.bin and test.bin: a record is a coarse label (of 20), a fine one (of 100), which is used,
    and 3,072 bytes.

    Raises: SettingError for a folder or file that is not there, or is not of this format.
    """
    return _cifar("cifar100", folder, "cifar-100-binary", ["train.bin"], "test.bin", (20, 100))


def _cifar(
    name: str,
    folder: str | PathLike[str],
    inner: str,
    train: Sequence[str],
    test: str,
    classes: tuple[int, ...],
) -> Data:
    place = _place(Path(folder), inner, [*train, test])
    parts = [_read(place / each, classes) for each in train]
    test_images, test_labels = _read(place / test, classes)
    return Data(
        name,
        torch.cat([images for images, _ in parts]),
        torch.cat([labels for _, labels in parts]),
        test_images,
        test_labels,
        classes=classes[-1],
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        padding=CIFAR_PADDING,
        flip=True,
    )


def _place(folder: Path, inner: str, names: Sequence[str]) -> Path:
    """Return the folder that holds the files, which may be that of the archive, inside."""
    place = folder / inner if (folder / inner).is_dir() else folder
    if not place.is_dir():
        raise _wrong_file("no such directory", str(folder), "one that is there", inner)
    absent = [name for name in names if not (place / name).is_file()]
    if absent:
        # The other version, pickles of Python, has names without a suffix.
        other = [name for name in names if (place / Path(name).stem).is_file()]
        found = ", where the Python version is: it is not read" if other else ""
        raise _wrong_file(
            "file missing", f"no {absent[0]} in {place}{found}", ", ".join(names), inner
        )
    return place


def _read(path: Path, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return images [N, 3, 32, 32] and the last of the labels [N] of each record."""
    record = len(classes) + CIFAR_SHAPE[0] * CIFAR_SHAPE[1] * CIFAR_SHAPE[2]
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise _wrong_file(
            "file cannot be read",
            f"{path} ({error.strerror})",
            "a file that can be read",
            path.parent.name,
        ) from None
    if not raw.size or raw.size % record:
        raise _wrong_file(
            "file truncated, or of another format",
            f"{raw.size:,} bytes in {path.name}",
            f"records of {record:,} bytes, one at least",
            path.parent.name,
        )
    rows = raw.reshape(-1, record)
    for place, many in enumerate(classes):
        if (worst := int(rows[:, place].max())) >= many:
            raise _wrong_file(
                "label out of range",
                f"{worst} in {path.name}",
                f"0 to {many - 1}",
                path.parent.name,
            )
    images = torch.from_numpy(rows[:, len(classes) :].reshape(-1, *CIFAR_SHAPE).copy())
    return images, torch.from_numpy(rows[:, len(classes) - 1].astype(np.int64))


def _wrong_file(fact: str, got: str, allowed: str, inner: str) -> SettingError:
    return SettingError.because(
        fact,
        got=got,
        allowed=allowed,
        remedy=f"unpack the binary version of the data, {inner}, there",
        argument="folder",
    )
