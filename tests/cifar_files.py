"""Tiny files in CIFAR's original binary formats, written byte by byte as their page describes."""

from pathlib import Path

BATCHES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
PIXELS = 32 * 32


def picture(red: int) -> bytes:
    """An image: a red that counts up along each row, green 0, blue white at the last pixel."""
    row = bytes((red + column) % 256 for column in range(32))
    return row * 32 + bytes(PIXELS) + bytes(PIXELS - 1) + b"\xff"


def write_cifar10(folder: Path, records: int = 4) -> Path:
    """The six files: file n holds labels n, n + 1, ... and reds 10 n, 10 n + 1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(BATCHES):
        rows = (bytes([(n + k) % 10]) + picture(10 * n + k) for k in range(records))
        (folder / name).write_bytes(b"".join(rows))
    return folder


def write_cifar100(folder: Path, records: int = 4) -> Path:
    """The two files: coarse labels 19, 18, ..., fine ones 99, 98, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train.bin", "test.bin"):
        rows = (bytes([19 - k, 99 - k]) + picture(k) for k in range(records))
        (folder / name).write_bytes(b"".join(rows))
    return folder
