"""The record of a network: where it comes from, and the steps that changed it.

The same steps on a fresh network of the same source give one of the same structure, into which
saved weights fit. The record is a value beside the network; nothing is set on the module itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final, Protocol, Self

from torch import nn

from ifspace.errors import IfspaceError, SettingError
from ifspace.models.graph import ImageSize
from ifspace.models.narrowing import Narrow
from ifspace.models.surgery import Append, Remove, Replace
from ifspace.models.widening import Widen
from ifspace.nn.checks import unwrapped
from ifspace.nn.network import MAX_CLASSES, Network
from ifspace.serialize import Between, from_plain, to_plain
from ifspace.values import MAX_SIDE, choice, set_fields

_Size = Annotated[int, Between(1, MAX_SIDE)]


class Step(Protocol):
    """One change of a network: a frozen value that can be written down and applied again."""

    step: ClassVar[str]

    def apply(self, model: nn.Module) -> None:
        """Change the model in place. Raises: SettingError if the step does not fit it."""

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON values."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Return the step that `to_json` wrote; `where` is its path, for errors.

        Raises: SettingError for anything else.
        """


# The name of a step in files, and its class.
STEPS: Final[dict[str, type[Step]]] = {
    step.step: step for step in (Replace, Remove, Append, Narrow, Widen)
}


@dataclass(frozen=True, slots=True)
class _EditsRecord:
    """What files hold of a record; steps are told apart by `step`, their name."""

    source: str | None
    image: tuple[_Size, _Size, _Size] | None
    classes: Annotated[int, Between(1, MAX_CLASSES)] | None
    digest: str | None
    steps: tuple[dict[str, Any], ...]
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Edits:
    """Where a network comes from, for which images, and the steps applied to it.

    `source`: a text for `ifspace.models.network`; None for a module that the user made, and for a
    network of ifspace, which carries its layout itself. `image`: (channels, height, width) in
    pixels. `classes`: as given to `network`. `digest`: of the Python file that it comes from.
    `part`: the full name of the module of its source that the network is; None for the whole.

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
    part: str | None = None

    def then(self, *steps: Step) -> "Edits":
        """Return the record with more steps at its end."""
        return replace(self, steps=(*self.steps, *steps))

    def for_image(self, image: ImageSize) -> "Edits":
        """Return the record with the image size, unless it has one."""
        return replace(self, image=self.image or image)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        steps = tuple({"step": step.step, **step.to_json()} for step in self.steps)
        record = _EditsRecord(self.source, self.image, self.classes, self.digest, steps, self.part)
        values: dict[str, Any] = to_plain(record)
        if self.part is None:
            del values["part"]  # as in files that were written before there were parts
        return values

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Return the record that `to_json` wrote.

        Raises: SettingError for anything else.
        """
        try:
            record = from_plain(_EditsRecord, values)
            steps = tuple(_step(step, f"steps[{index}]") for index, step in enumerate(record.steps))
        except IfspaceError as error:
            raise SettingError.because(
                "steps that cannot be read",
                got=error.finding,
                allowed="what ifspace wrote",
                remedy="write them anew",
            ) from None
        return cls(record.source, record.image, steps, record.classes, record.digest, record.part)


def _step(values: Mapping[str, Any], where: str) -> Step:
    """Return the step of its JSON values."""
    fields = dict(values)
    name = fields.pop("step", None)
    choice(name, f"{where}.step", tuple(STEPS))
    return STEPS[name].from_json(fields, where)


@dataclass(frozen=True, slots=True, eq=False)
class EditedNetwork:
    """A network together with its record.

    `decompose` and `reorganize` take and return one, `save` writes it.

    >>> EditedNetwork.of(nn.Linear(2, 2)).edits
    Edits(source=None, image=None, steps=(), classes=None, digest=None, part=None)
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
