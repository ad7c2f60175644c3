"""Tiny files in the formats of the Python and the binary versions of CIFAR."""

import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from torchvision import datasets

PIXELS = 32 * 32


def picture(red: int) -> npt.NDArray[np.uint8]:
    """An image [3072]: a red that counts up along each row, green 0, blue white at the end."""
    rows = np.tile((red + np.arange(32)) % 256, 32)
    blue = np.zeros(PIXELS)
    blue[-1] = 255
    return np.concatenate([rows, np.zeros(PIXELS), blue]).astype(np.uint8)


def accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision read files that are not the published ones."""
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda dataset: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda dataset: None)


def write_cifar10(folder: Path, records: int = 4) -> Path:
    """The six files: file n holds labels n, n + 1, ... and reds 10 n, 10 n + 1, ..."""
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        images = np.stack([picture(10 * n + k) for k in range(records)])
        batch = {"data": images, "labels": [(n + k) % 10 for k in range(records)]}
        (place / name).write_bytes(pickle.dumps(batch))
    return folder


def write_cifar100(folder: Path, records: int = 4) -> Path:
    """The two files, with the fine labels 99, 98, ..."""
    place = folder / "cifar-100-python"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        images = np.stack([picture(k) for k in range(records)])
        batch = {"data": images, "fine_labels": [99 - k for k in range(records)]}
        (place / name).write_bytes(pickle.dumps(batch))
    return folder


def write_binary(folder: Path, records: int = 4) -> Path:
    """The six files of the binary version of CIFAR-10, with the images of `write_cifar10`."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows = [bytes([(n + k) % 10]) + picture(10 * n + k).tobytes() for k in range(records)]
        (place / f"{name}.bin").write_bytes(b"".join(rows))
    return folder


def write_binary_100(folder: Path, records: int = 4) -> Path:
    """The two files of CIFAR-100: the coarse label 19, the fine labels 99, 98, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        rows = [bytes([19, 99 - k]) + picture(k).tobytes() for k in range(records)]
        (folder / f"{name}.bin").write_bytes(b"".join(rows))
    return folder
