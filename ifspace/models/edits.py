"""What was done to a network since it was made, as a value that goes with it.

A network carries where it comes from and the steps that changed it; the same steps on a fresh
network from there make one of the same structure, into which the saved weights fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol, Self

from torch import nn

from ifspace.errors import IfspaceError, SettingError
from ifspace.models.surgery import (
    Append,
    Remove,
    Replace,
)
from ifspace.nn.checks import unwrapped
from ifspace.nn.network import (
    MAX_CLASSES,
    Network,
)
from ifspace.stages.layout import MAX_SIDE
from ifspace.values import whole_number

Image = tuple[int, int, int]
_ATTRIBUTE: Final = "_ifspace_edits"


class Step(Protocol):
    """One change of a network: a frozen value that can be written down and done again."""

    step: ClassVar[str]

    def apply(self, model: nn.Module) -> None:
        """Change the model itself. Raises: SettingError for one that it does not fit."""

    def to_json(self) -> dict[str, Any]:
        """Return the step as values that JSON has."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the step that `to_json` wrote."""


# Name in files -> class; a kind of step is a row.
STEPS: Final[dict[str, type[Step]]] = {each.step: each for each in (Replace, Remove, Append)}


@dataclass(frozen=True, slots=True)
class Edits:
    """Where a network comes from, for which images, and what was done to it.

    `source`: a text for `ifspace.models.network`, None for a module that a person made or a network
    of ifspace, which carries its layout itself. `image`: (channels, height, width) in pixels.
    `classes`: what `network` was told of them. `digest`: of the Python file that it comes from.

    >>> from ifspace.block import Block
    >>> edits = Edits("timm:resnet18", (3, 224, 224))
    >>> edits = edits.then(Replace("layer1.0.conv1", Block.parse("DW+PW").at(64)))
    >>> Edits.from_json(edits.to_json()) == edits
    True
    """

    source: str | None = None
    image: Image | None = None
    steps: tuple[Step, ...] = ()
    classes: int | None = None
    digest: str | None = None

    def then(self, *steps: Step) -> "Edits":
        """Return the edits with more steps behind them."""
        return replace(self, steps=(*self.steps, *steps))

    def to_json(self) -> dict[str, Any]:
        """Return the edits as values that JSON has."""
        return {
            "source": self.source,
            "image": None if self.image is None else list(self.image),
            "classes": self.classes,
            "digest": self.digest,
            "steps": [{"step": each.step, **each.to_json()} for each in self.steps],
        }

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Return the edits that `to_json` wrote.

        Raises: SettingError for anything else.
        """
        try:
            source, image, classes = values["source"], values["image"], values["classes"]
            digest = values["digest"]
            for each in (source, digest):
                if not (each is None or isinstance(each, str)):
                    raise ValueError(f"source {each!r}")
            return cls(
                source,
                None if image is None else _image(image),
                tuple(STEPS[each["step"]].from_json(each) for each in values["steps"]),
                None if classes is None else whole_number(classes, "classes", 1, MAX_CLASSES),
                digest,
            )
        except (IfspaceError, KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else str(error).partition("; ")[0]
            raise SettingError.because(
                "steps that cannot be read",
                got=said,
                allowed="what ifspace wrote",
                remedy="write them anew",
            ) from None


def edits_of(model: nn.Module) -> Edits:
    """Return what was done to a network; of one that carries nothing, what it says itself.

    >>> edits_of(nn.Linear(2, 2))
    Edits(source=None, image=None, steps=(), classes=None, digest=None)
    """
    model = unwrapped(model)
    found = getattr(model, _ATTRIBUTE, None)
    if isinstance(found, Edits):
        return found
    if isinstance(model, Network) and model.layout.stages[0].first.dims == 2:
        side = model.layout.image
        return Edits(image=(model.layout.stem_and_head.inputs, side, side))
    return Edits()


def attach(model: nn.Module, edits: Edits) -> None:
    """Have a network carry its edits; copies of it do so too."""
    setattr(unwrapped(model), _ATTRIBUTE, edits)


def applied(model: nn.Module, *steps: Step) -> None:
    """Do steps to the model itself, and have it carry them."""
    before = edits_of(model)
    for each in steps:
        each.apply(model)
    attach(model, before.then(*steps))


def _image(values: Any) -> Image:
    channels, height, width = (whole_number(each, "image", 1, MAX_SIDE) for each in values)
    return channels, height, width
