"""The networks: the smallest of each family of timm, and those of torchvision on images.

A *family* of timm is one of its files of networks (`timm.list_modules()`), but for the networks
named `test_…`, which serve timm's own tests. The one with the fewest parameters is taken, of
several the first by name. `MANY_BRANCHES` are taken too: their files hold smaller ones. Of
torchvision all networks for classification, segmentation and detection are taken, of the last the
backbone; not those in 8 bits, on videos or on pairs of images.
"""

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn

from ifspace.models.graph import ImageSize
from ifspace.models.sources import imported, network, on_shapes
from ifspace.storage import read_csv, replacing
from ifspace.table import Table
from ifspace.values import parse_image_size

torchvision: Final = imported("torchvision")
timm: Final = imported("timm")

MANY_BRANCHES: Final = ("ghostnetv3_050", "mobileone_s0", "repvgg_a0")
# Segmentation resizes images to 520 pixels, detection to about 800.
SIDES: Final = {"segmentation": 520, "detection": 800}
# Of a network for detection the part that maps images to feature maps: the whole chooses boxes.
PARTS: Final = {"detection": "backbone"}
# Networks of fixed sizes, beside those of timm that say so.
_FIXED: Final = ("torchvision:vit_", "torchvision:maxvit_")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network, or a part of it: its MODEL text, family and size.

    `family`: timm's file, or what torchvision has it for. `convs`: its nn.Conv2d. `image`:
    (channels, height, width) in pixels as by default; `fixed`: whether it takes no other.
    """

    network: str
    family: str
    params: int
    convs: int
    image: ImageSize
    fixed: bool

    @property
    def part(self) -> str | None:
        """The full name of the module that is taken, None for the whole network."""
        return PARTS.get(self.family)

    @property
    def is_on_images(self) -> bool:
        """Whether the whole has 2-D convolutions, and one image as its input, not a list."""
        return self.convs > 0 and self.part is None

    def at_most(self, side: int | None) -> ImageSize:
        """Return the image size, of at most `side` pixels unless it is fixed."""
        channels, height, width = self.image
        if side is None or self.fixed:
            return self.image
        return channels, min(height, side), min(width, side)

    @classmethod
    def from_row(cls, row: dict[str, str]) -> Self:
        """Return the candidate of a row of `write_candidates`."""
        return cls(
            row["network"],
            row["family"],
            int(row["params"]),
            int(row["convs"]),
            parse_image_size(row["image"]),
            row["fixed"] == "True",
        )


def families(names: Iterable[str] = ()) -> dict[str, str]:
    """Return the family of networks by their MODEL text, or of all that may be taken."""
    models = torchvision.models
    groups = {
        "segmentation": models.segmentation,
        "detection": models.detection,
        "classification": models,
    }
    by_name = {
        f"torchvision:{name}": family
        for family, module in groups.items()
        for name in models.list_models(module)
    }
    if not names:
        names = (f"timm:{name}" for name in timm.list_models() if not name.startswith("test_"))
        names = [*names, *by_name]
    return {name: by_name.get(name) or _file_of(name) for name in names}


def _file_of(name: str) -> str:
    """Return timm's file of a network."""
    module: str = timm.models.model_entrypoint(name.removeprefix("timm:")).__module__
    return module.rpartition(".")[2]


def candidate(name: str, family: str) -> Candidate:
    """Count the parameters and convolutions of a network, of its part in `PARTS`."""

    def measured(model: nn.Module) -> Candidate:
        convs = sum(isinstance(module, nn.Conv2d) for module in model.modules())
        image, fixed = _image(name, family, model)
        params = sum(parameter.numel() for parameter in model.parameters())
        return Candidate(name, family, params, convs, image, fixed)

    return on_shapes(lambda: network(name, part=PARTS.get(family)), measured)


def _image(name: str, family: str, model: Any) -> tuple[ImageSize, bool]:
    """Return the default image size of a network, and whether it takes no other."""
    if name.startswith("timm:"):
        settings = model.default_cfg
        return tuple(settings["input_size"]), bool(settings.get("fixed_input_size"))
    side = SIDES.get(family) or getattr(model, "image_size", None)
    if side is None:
        weights = torchvision.models.get_model_weights(name.partition(":")[2])
        (side,) = weights.DEFAULT.transforms().crop_size
    return (3, side, side), name.startswith(_FIXED)


def write_candidates(path: Path, names: dict[str, str]) -> Iterator[Candidate]:
    """Yield the candidates of all names; those that the file has not are measured and added."""
    candidates = {row.network: row for row in read_candidates(path)}
    for name, family in names.items():
        if name not in candidates:
            with torch.random.fork_rng():
                candidates[name] = candidate(name, family)
            if len(candidates) % 20 == 0:
                _write(path, candidates.values())
        yield candidates[name]
    _write(path, candidates.values())


def read_candidates(path: Path) -> list[Candidate]:
    """Return the candidates of a file, none if it does not exist."""
    if not path.exists():
        return []
    return [Candidate.from_row(row) for _, row in read_csv(path).rows]


def _write(path: Path, candidates: Iterable[Candidate]) -> None:
    columns = tuple(field.name for field in fields(Candidate))
    rows = [astuple(row) for row in candidates]
    texts = [(*row[:4], "x".join(map(str, row[4])), row[5]) for row in rows]
    with replacing(path) as temporary:
        temporary.write_text(Table(columns, tuple(texts)).csv())


def chosen(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the smallest network of each family of timm, `MANY_BRANCHES`, and torchvision's.

    >>> image = (3, 224, 224)
    >>> sizes = {"timm:x": 3, "timm:y": 2, "timm:z": 2}
    >>> rows = [Candidate(name, "a", size, 9, image, False) for name, size in sizes.items()]
    >>> [row.network for row in chosen(rows)]
    ['timm:y']
    """
    candidates = list(candidates)
    smallest: dict[str, Candidate] = {}
    extra, others = [], []
    for row in sorted(candidates, key=lambda row: (row.params, row.network)):
        package, _, name = row.network.partition(":")
        if package != "timm":
            continue
        if row.family not in smallest:
            smallest[row.family] = row
        elif name in MANY_BRANCHES:
            extra.append(row)
    others = [row for row in candidates if not row.network.startswith("timm:")]
    return [*sorted([*smallest.values(), *extra], key=lambda row: row.family), *others]
