"""What `analyze` and `optimize` share: MODEL, its image, and how sizes and layers are written."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import click

from ifspace.cli.options import FILE
from ifspace.cli.requirements import TORCH, check_installed
from ifspace.errors import ARGUMENT, SettingError
from ifspace.memory import bytes_of, bytes_text

if TYPE_CHECKING:
    from torch import nn

    from ifspace.models.edits import EditedNetwork
    from ifspace.models.graph import ImageSize, LiveSchedule, Size, TracedLayer

model_argument: Final = click.argument("model", metavar="MODEL")
# Where --layers may stand in its place.
optional_model_argument: Final = click.argument("model", metavar="[MODEL]", required=False)
layer_list_option: Final = click.option(
    "--layers",
    type=FILE,
    metavar="FILE.csv",
    help="In place of MODEL, and without torch: its convolutions in the columns kernel, stride, "
    "in, out, groups, size (of what the layer writes), and if you like name and dilation.",
)
input_option: Final = click.option(
    "--input",
    metavar="SIZE",
    help="The image size: channels x height x width in pixels, or channels x length for a network "
    "on lines; if not given that of a saved network, else 3x224x224.",
)
trust_option: Final = click.option(
    "--trust-code",
    is_flag=True,
    help="For a saved network that was made from a Python file: run that file, which must lie "
    "beside it. Trust only files of people whose programs you would run.",
)
part_option: Final = click.option(
    "--part",
    metavar="NAME",
    help="Only this module of the network, by its full name: for detection, backbone. --input is "
    "what it reads.",
)
SAVED: Final = ".safetensors"
DEFAULT_IMAGE: Final = (3, 224, 224)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """MODEL of a command: its text, its image size, its classes and the seed of its weights.

    `saved`: the network, where MODEL is a file that `save` wrote. `is_line`: whether the image is
    a line of pixels, written as channels x length; its height is 1. `part`: the module of the
    network that is meant, by its full name. `weights`: the file of its weights; `pretrained`:
    whether it has those of its package.
    """

    name: str
    image: "ImageSize"
    classes: int | None = None
    seed: int | None = None
    saved: "EditedNetwork | None" = None
    is_line: bool = False
    part: str | None = None
    weights: Path | None = None
    pretrained: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        size: str | None,
        trust_code: bool,
        classes: int | None = None,
        seed: int | None = None,
        part: str | None = None,
    ) -> Self:
        """Return what MODEL and its options say; a saved network is loaded.

        `size`: the text of the image size; None for that of a saved network, or 3x224x224.

        Raises: SettingError, NetworkFileError.
        """
        from ifspace.models.files import load_edited
        from ifspace.models.sources import code_file, parse_image

        line = re.fullmatch(r"\s*([0-9]{1,9})\s*[x×]\s*([0-9]{1,9})\s*", size or "")
        if code_file(name) is None:
            line = None  # networks of the packages and of the papers are on images
        if line is not None:
            size = f"{line[1]}x1x{line[2]}"
        image = None if size is None else parse_image(size)
        if not name.lower().endswith(SAVED):
            if trust_code:
                raise SettingError.because(
                    "nothing to trust",
                    got=name,
                    allowed=f"a saved network, FILE{SAVED}",
                    remedy="leave --trust-code out: a Python file that is named as MODEL is run",
                )
            is_line = line is not None
            return cls(name, image or DEFAULT_IMAGE, classes, seed, is_line=is_line, part=part)
        if part is not None:
            raise SettingError.because(
                f"{ARGUMENT} of a saved network",
                got=part,
                allowed="none: the whole of what was saved",
                remedy=f"leave {ARGUMENT} out, or take the part of the network before it is saved",
                argument="part",
            )
        if classes is not None:
            raise SettingError.because(
                f"{ARGUMENT} of a saved network",
                got=classes,
                allowed="none: the file has them",
                remedy="leave --classes out",
                argument="classes",
            )
        saved = load_edited(name, trust_code=trust_code)
        image = image or saved.edits.image or DEFAULT_IMAGE
        return cls(name, image, seed=seed, saved=saved, part=saved.edits.part)

    def build(self) -> "nn.Module":
        """Return the network."""
        return self.open().model

    def open(self) -> "EditedNetwork":
        """Return the network with the record of its source."""
        from ifspace.models.sources import from_source
        from ifspace.models.tracing import is_one_dimensional
        from ifspace.models.weights import load_weights

        network = self.saved or from_source(
            self.name,
            self.image,
            self.classes,
            seed=self.seed,
            part=self.part,
            pretrained=self.pretrained,
        )
        if self.weights is not None:
            load_weights(network, self.weights)
        if self.is_line and not is_one_dimensional(network.model):
            raise SettingError.because(
                "the size of a line for a network on images",
                got=f"{self.image[0]}x{self.image[2]}",
                allowed="CHANNELSxHEIGHTxWIDTH in pixels",
                remedy="write it like 3x224x224",
                argument="input",
            )
        return network

    @property
    def start(self) -> Literal["fresh", "code", "loaded"]:
        """Where the weights come from: drawn, what the code of MODEL gives, or read."""
        from ifspace.models.sources import code_file

        if self.saved is not None or self.pretrained or self.weights is not None:
            return "loaded"
        return "fresh" if code_file(self.name) is None else "code"

    @property
    def title(self) -> str:
        """The name of the network, with the part of it that is meant."""
        return self.name if self.part is None else f"{self.part} of {self.name}"

    def notes(self) -> tuple[str, ...]:
        """Return what to know of where a network comes from.

        Of its package, if that needs torchvision; of its form, if it is one of the papers at a size
        that they do not have.
        """
        from ifspace.models.sources import needs_torchvision
        from ifspace.models.torchvision_operators import NOTE, declare
        from ifspace.stages.networks import NETWORKS, form_note

        if self.part is None and self.name.strip().lower() in NETWORKS:
            note = form_note(self.name.strip(), self.image[1], self.classes)
            return () if note is None else (note,)
        return (NOTE,) if needs_torchvision(self.name) and declare() is not None else ()

    def __str__(self) -> str:
        return f"{self.title} at {'×'.join(map(str, self.image))}"


def model_or_list(model: str | None, layers: Path | None, **values: Any) -> None:
    """Check that there is a MODEL or a list of layers, and none of the options of a MODEL with it.

    `values`: what was given for these options, by name.

    Raises: SettingError.
    """
    if (model is None) == (layers is None):
        raise SettingError.because(
            "neither a network nor its layers" if model is None else "a network and layers",
            got="none" if model is None else f"{model} and {layers}",
            allowed="one of MODEL and --layers FILE.csv",
            remedy="name a network such as vgg16, or give the file of its convolutions"
            if model is None
            else "leave one of them out",
        )
    if layers is None:
        return
    for name, value in values.items():
        if value:
            raise SettingError.because(
                f"{ARGUMENT} of a list of layers",
                got=value,
                allowed="none: the file has all that is known",
                remedy=f"leave {ARGUMENT} out",
                argument=name,
            )


@contextmanager
def networks_needed(purpose: str, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """Check that torch is installed, and send what the user's own code prints to stderr.

    `purpose` is why it is needed. `more`: further packages, each with the extra that installs it.

    Raises: click.ClickException if a package is missing.
    """
    check_installed({**TORCH, **(more or {})}, purpose)
    with redirect_stdout(sys.stderr):
        yield


def layer_text(layer: "TracedLayer") -> str:
    """Return a layer in the notation of blocks; kernels that no block has are written out.

    >>> from ifspace.models.graph import TracedLayer
    >>> one = (1, 1)
    >>> layer = TracedLayer("conv", "GC", 8, 8, 4, (1, 7), one, one, (9, 9), (9, 9), 112, 9072)
    >>> layer_text(layer)
    'GC(4,k=1×7)'
    """
    from ifspace.block import Layer

    if layer.is_linear:
        return layer.kind
    kind = layer.conv
    groups = layer.groups if kind.takes_groups else None
    height, width = layer.kernel
    if not kind.spatial or (height == width and height % 2):
        overlap = layer.overlap if kind.takes_overlap else None
        kernel = height if kind.spatial else None
        return str(Layer(kind.symbol, groups, overlap, kernel, layer.order))
    size = size_text(layer.kernel)
    return f"{kind.symbol}({size if groups is None else f'{groups},k={size}'})"


def peak_values(live: "LiveSchedule | None", dtype: str) -> dict[str, Any] | None:
    """Return the peak memory of a network for one image, in JSON; None where it is not known."""
    if live is None:
        return None
    return {
        "elements": live.peak,
        "bytes": bytes_of(live.peak, dtype),
        "dtype": dtype,
        "at": live.peak_call.scope,
        "operator": live.peak_call.operator,
    }


def peak_text(live: "LiveSchedule | None", dtype: str) -> str:
    """Return the peak memory of a network for one image, and where it is."""
    if live is None:
        return "not known: branches are not seen"
    return f"{bytes_text(live.peak, dtype)}, at {live.peak_call}"


def size_text(size: "Size") -> str:
    """Return (height, width) in pixels as text.

    >>> size_text((7, 7))
    '7×7'
    """
    return "×".join(map(str, size))


def size_value(size: "Size") -> int | list[int]:
    """Return (height, width) in pixels as one number where they are equal.

    >>> size_value((7, 7)), size_value((1, 9))
    (7, [1, 9])
    """
    return size[0] if size[0] == size[1] else list(size)


def name_list(names: Sequence[str], limit: int = 6) -> str:
    """Return names separated by commas, only the first of many.

    >>> name_list(["a", "b", "c"], 2), name_list(["a", "b"], 2)
    ('a, b and 1 more', 'a, b')
    """
    ending = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + ending
