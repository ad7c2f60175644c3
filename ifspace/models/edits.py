"""The record of a network: where it comes from, and the steps that changed it.

The same steps on a fresh network of the same source give one of the same structure, into which
saved weights fit. The record is a value beside the network; nothing is set on the module itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol, Self

from torch import nn

from ifspace.errors import IfspaceError, SettingError
from ifspace.models.graph import ImageSize
from ifspace.models.surgery import Append, Remove, Replace
from ifspace.nn.checks import unwrapped
from ifspace.nn.network import MAX_CLASSES, Network
from ifspace.stages.layout import MAX_SIDE
from ifspace.values import set_fields, whole_number


class Step(Protocol):
    """One change of a network: a frozen value that can be written down and applied again."""

    step: ClassVar[str]

    def apply(self, model: nn.Module) -> None:
        """Change the model in place. Raises: SettingError if the step does not fit it."""

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON values."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the step that `to_json` wrote."""


# The name of a step in files, and its class.
STEPS: Final[dict[str, type[Step]]] = {step.step: step for step in (Replace, Remove, Append)}


@dataclass(frozen=True, slots=True)
class Edits:
    """Where a network comes from, for which images, and the steps applied to it.

    `source`: a text for `ifspace.models.network`; None for a module that the user made, and for a
    network of ifspace, which carries its layout itself. `image`: (channels, height, width) in
    pixels. `classes`: as given to `network`. `digest`: of the Python file that it comes from.

    >>> from ifspace.block import Block
    >>> edits = Edits("timm:resnet18", (3, 224, 224))
    >>> edits = edits.then(Replace("layer1.0.conv1", Block.parse("DW+PW").at(64)))
    >>> Edits.from_json(edits.to_json()) == edits
    True
    """

    source: str | None = None
    image: ImageSize | None = None
    steps: tuple[Step, ...] = ()
    classes: int | None = None
    digest: str | None = None

    def then(self, *steps: Step) -> "Edits":
        """Return the record with more steps at its end."""
        return replace(self, steps=(*self.steps, *steps))

    def for_image(self, image: ImageSize) -> "Edits":
        """Return the record with the image size, unless it has one."""
        return replace(self, image=self.image or image)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "source": self.source,
            "image": None if self.image is None else list(self.image),
            "classes": self.classes,
            "digest": self.digest,
            "steps": [{"step": step.step, **step.to_json()} for step in self.steps],
        }

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Return the record that `to_json` wrote.

        Raises: SettingError for anything else.
        """
        try:
            source, image, classes = values["source"], values["image"], values["classes"]
            digest = values["digest"]
            for text in (source, digest):
                if not (text is None or isinstance(text, str)):
                    raise ValueError(f"source {text!r}")
            return cls(
                source,
                None if image is None else _image_size(image),
                tuple(STEPS[step["step"]].from_json(step) for step in values["steps"]),
                None if classes is None else whole_number(classes, "classes", 1, MAX_CLASSES),
                digest,
            )
        except (IfspaceError, KeyError, TypeError, ValueError, AttributeError) as error:
            fact = f"no {error}" if isinstance(error, KeyError) else str(error).partition("; ")[0]
            raise SettingError.because(
                "steps that cannot be read",
                got=fact,
                allowed="what ifspace wrote",
                remedy="write them anew",
            ) from None


@dataclass(frozen=True, slots=True, eq=False)
class EditedNetwork:
    """A network together with its record.

    `decompose` and `reorganize` take and return one, `save` writes it.

    >>> EditedNetwork.of(nn.Linear(2, 2)).edits
    Edits(source=None, image=None, steps=(), classes=None, digest=None)
    """

    model: nn.Module
    edits: Edits

    def __post_init__(self) -> None:
        """Take a wrapper of `torch.compile` off the module."""
        set_fields(self, model=unwrapped(self.model))

    @classmethod
    def of(cls, network: "nn.Module | EditedNetwork") -> "EditedNetwork":
        """Return a network with its record; a module's says only what can be read off the module.

        That is the image size of an ifspace network.
        """
        if isinstance(network, EditedNetwork):
            return network
        model = unwrapped(network)
        if isinstance(model, Network) and model.layout.stages[0].first.dims == 2:
            channels, size = model.layout.stem_and_head.inputs, model.layout.image
            return EditedNetwork(model, Edits(image=(channels, size, size)))
        return EditedNetwork(model, Edits())

    def apply(self, *steps: Step) -> "EditedNetwork":
        """Apply steps to the module in place, and return it with the longer record.

        Raises: SettingError if a step does not fit the module.
        """
        for step in steps:
            step.apply(self.model)
        return EditedNetwork(self.model, self.edits.then(*steps))


def _image_size(values: Any) -> ImageSize:
    channels, height, width = (whole_number(size, "image", 1, MAX_SIDE) for size in values)
    return channels, height, width
