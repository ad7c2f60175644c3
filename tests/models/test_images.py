"""Images of the user: pictures scaled, cut and normalised, or tensors as they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ifspace.errors import SettingError
from ifspace.models.images import MEAN, SPREAD, read_images

pytestmark = pytest.mark.usefixtures("one_thread")
NET = nn.Conv2d(3, 8, 3)


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_pictures_are_cut_at_their_middle_and_normalised(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    wide, exact = picture(4, 8), picture(4, 6, 1)
    wide.save(tmp_path / "a.png")
    exact.save(tmp_path / "b" / "c.PNG")
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    images = read_images(tmp_path, (3, 4, 6), NET)
    assert images.shape == (2, 3, 4, 6)
    for row, pixels in zip(images, (np.array(wide)[:, 1:7], np.array(exact)), strict=True):
        expected = (pixels / 255 - MEAN) / SPREAD
        torch.testing.assert_close(
            row, torch.from_numpy(expected).permute(2, 0, 1).float(), rtol=1e-5, atol=1e-5
        )
    assert len(read_images(tmp_path, (3, 4, 6), NET, 1)) == 1
    # A timm network says what it was trained on.
    other = nn.Conv2d(3, 8, 3)
    other.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # type: ignore[assignment]
    halves = read_images(tmp_path, (3, 4, 6), other)
    assert float(halves.min()) >= -1
    assert float(halves.max()) <= 1
    assert read_images(tmp_path, (1, 2, 2), nn.Conv2d(1, 8, 3)).shape == (2, 1, 2, 2)


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_tensors_are_taken_as_they_are(tmp_path: Path, suffix: str) -> None:
    x, file = torch.randn(3, 3, 4, 6), tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(file, x.numpy())
    else:
        torch.save({"images": x}, file)
    assert torch.equal(read_images(file, (3, 4, 6), NET), x)
    with pytest.raises(SettingError, match=r"got .*tensor \[3, 3, 4, 6\]\); allowed: .*N, 3, 6, 6"):
        read_images(file, (3, 6, 6), NET)


def test_what_holds_no_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.pt").write_bytes(b"no tensor")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "whole.npy", np.zeros((1, 3, 4, 6), dtype=np.int64))
    for name in ("", "broken.pt", "broken.png", "empty", "none.npy", "none", "whole.npy"):
        with pytest.raises(SettingError, match=r"^no images for warm_start: got ") as raised:
            read_images(tmp_path / name, (3, 4, 6), NET)
        assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_the_command_fits_blocks_to_pictures(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from torch import nn\n"
        "make = lambda: nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 1))\n"
    )
    for seed in range(8):
        Path("pictures").mkdir(exist_ok=True)
        picture(16, 16, seed).save(f"pictures/{seed}.png")
    start = ("optimize", "net.py:make", "--input", "3x16x16", "--blocks-only", "--names", 1)
    start = (*start, "--block", "GPW(4)+SH(4)+GPW(4)", "--format", "json", "--warm-start")
    noise, pictures = (run(*start, *more).json["replaced"][0] for more in ((), ("pictures",)))
    assert noise["fit"]["start"] == pictures["fit"]["start"] == "closed form"
    # The closed form is the least error of the weights, the fit that of the outputs.
    assert noise["fit"]["weights"] < pictures["fit"]["weights"]
    text = run(*start[:-3], "--warm-start", "pictures").out
    assert "on images given, 8 of them" in text
    assert "begun 1 with the nearest weights that there are" in " ".join(text.split())
    run(*start, "net.py").fails_with("no images for --warm-start: got net.py (another kind of")
