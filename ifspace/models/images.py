"""Images of the user: a folder of pictures, or a file of what a network reads, as one tensor."""

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_load
from torch import Tensor, nn

from ifspace.errors import ARGUMENT, DeviceError, SettingError
from ifspace.models.graph import ImageSize
from ifspace.models.warm_start import IMAGES_OF_DATA
from ifspace.models.weights import unpickling_reason
from ifspace.storage import read_bytes, reason
from ifspace.values import counted

PICTURES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
TENSORS: Final = (".npy", ".pt", ".pth", ".safetensors")
# Of red, green and blue between 0 and 1, in the pictures that networks of timm and torchvision are
# trained on, unless they say others.
MEAN: Final = (0.485, 0.456, 0.406)
SPREAD: Final = (0.229, 0.224, 0.225)


def check_images(path: str | os.PathLike[str]) -> None:
    """Check that there is a folder, or a file of a kind that holds a tensor.

    Raises: SettingError.
    """
    place = Path(path)
    if place.is_dir():
        return
    if not place.exists():
        raise _no_images(place, "nothing there")
    if place.suffix.lower() not in TENSORS:
        raise _no_images(place, "another kind of file")


def read_images(
    path: str | os.PathLike[str], image: ImageSize, model: nn.Module, count: int = IMAGES_OF_DATA
) -> Tensor:
    """Return the first images [N, C, H, W] of a folder or a file, at most `count`.

    A folder is searched for pictures with its subfolders, in the order of their names. Each is
    scaled until it covers the size of `image`, cut at its middle, and normalised by the mean and
    spread that the network names in `pretrained_cfg`, as those of timm do, or those of ImageNet. A
    file (.npy, .pt, .safetensors) holds a tensor [N, C, H, W] that is taken as it is; no code that
    it holds is run.

    Raises: SettingError for a path without images, or images of another size; DeviceError where
        Pillow, which reads pictures, is not installed.
    """
    place, like = Path(path), next(model.parameters())
    if place.is_dir():
        files = [file for file in _files(place) if file.suffix.lower() in PICTURES][:count]
        if not files:
            raise _no_images(place, f"no picture among {counted(len(list(_files(place))), 'file')}")
        if find_spec("PIL") is None:
            raise DeviceError.because(
                "pictures cannot be read",
                got="no package pillow",
                allowed=f"a folder of pictures with it, or a file {', '.join(TENSORS)}",
                remedy="pip install pillow",
                argument="warm_start",
            )
        images = _normalised(torch.stack([_picture(file, image) for file in files]), model)
    else:
        images = _tensor(place)[:count]
        if images.dim() != 4 or tuple(images.shape[1:]) != image or not len(images):
            raise _no_images(place, f"a tensor {list(images.shape)}", image)
    return images.to(like.device, like.dtype)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, in the order of their names."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _picture(file: Path, image: ImageSize) -> Tensor:
    """Return a picture [C, H, W] of numbers from 0 to 1."""
    channels, height, width = image
    pillow = import_module("PIL.Image")
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise _no_images(file, f"a picture for {counted(channels, 'channel')}")
    try:
        with pillow.open(file) as picture:
            whole = picture.convert(modes[channels])
    except (OSError, ValueError, SyntaxError) as error:
        raise _no_images(file, reason(error)) from None
    scale = max(height / whole.height, width / whole.width)
    size = max(width, round(whole.width * scale)), max(height, round(whole.height * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    cut = whole.resize(size, pillow.Resampling.BILINEAR).crop(
        (left, top, left + width, top + height)
    )
    pixels = torch.from_numpy(np.array(cut)).reshape(height, width, channels)
    return pixels.permute(2, 0, 1).float() / 255


def _normalised(images: Tensor, model: nn.Module) -> Tensor:
    """Return images [N, C, H, W] from 0 to 1 as the network is trained on them."""
    about: Any = getattr(model, "pretrained_cfg", None) or {}
    mean, spread = (
        _for_channels(about.get(name, default), images.shape[1])
        for name, default in (("mean", MEAN), ("std", SPREAD))
    )
    return (images - mean) / spread


def _for_channels(values: Sequence[float], channels: int) -> Tensor:
    """Return a number for each channel [C, 1, 1]: their mean where they are of others."""
    numbers = torch.tensor(tuple(values))
    if len(numbers) != channels:
        numbers = numbers.mean().expand(channels)
    return numbers[:, None, None]


def _tensor(file: Path) -> Tensor:
    """Return the first tensor of a file."""
    check_images(file)
    suffix = file.suffix.lower()
    try:
        data = read_bytes(file)
        if suffix == ".npy":
            content: Any = _array(data)
        elif suffix == ".safetensors":
            content = safetensors_load(data)
        else:
            content = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, EOFError) as error:
        raise _no_images(file, reason(error)) from None
    except Exception as error:  # an UnpicklingError of torch or of Python
        raise _no_images(file, unpickling_reason(error)) from None
    if isinstance(content, dict):
        content = next(iter(content.values()), None)
    if not isinstance(content, Tensor) or not content.is_floating_point():
        raise _no_images(file, "no tensor of numbers with a fraction")
    return content


def _array(data: bytes) -> Tensor:
    """Return the array of a .npy file. Raises: ValueError."""
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError("no array that numpy.save wrote")
    return torch.from_numpy(np.load(BytesIO(data), allow_pickle=False))


def _no_images(place: Path, got: str, image: ImageSize | None = None) -> SettingError:
    size = "H, W" if image is None else f"{image[1]}, {image[2]}"
    channels = "C" if image is None else image[0]
    return SettingError.because(
        f"no images for {ARGUMENT}",
        got=f"{place} ({got})",
        allowed=f"a folder of pictures, or a file of a tensor [N, {channels}, {size}]: "
        f"{', '.join(TENSORS)}",
        remedy=f"give {ARGUMENT} alone for noise",
        argument="warm_start",
    )
