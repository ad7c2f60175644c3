"""What an analysis says of a network: its stages, units and layers, with fields and gains."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ifspace.models.fields import Field
from ifspace.models.graph import Size, TracedLayer


@dataclass(frozen=True, slots=True)
class LayerReport:
    """A layer in its stage.

    `field` is what its outputs see of the stage's input. `gain` is that over the map it reads, None
    for a layer that reads the input itself, and for a shuffle, which sees nothing more.
    `receptive`: (height, width) in pixels of the image and beyond that an output may see;
    `past_image` says whether it is larger than the image.
    """

    layer: TracedLayer
    unit: int
    field: Field
    gain: float | None
    receptive: Size
    past_image: bool

    @property
    def adds_nothing(self) -> bool:
        """Whether its outputs see no more than what it reads."""
        return self.gain == 0


@dataclass(frozen=True, slots=True)
class UnitReport:
    """A unit in its stage: the modules that hold it, what it sees, gains and costs.

    `gain` is that over what it reads, None where that is the stage's input.
    """

    name: str
    names: tuple[str, ...]
    layers: int
    field: Field
    gain: float | None
    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class StageReport:
    """A stage: maps of one size. `elements` is the volume of what enters, `channels` its channels.

    `width` is that of the map that leaves. Parameters are those of the layers alone.
    """

    side: Size
    channels: int
    width: int
    elements: int
    units: tuple[UnitReport, ...]
    layers: tuple[LayerReport, ...]

    @property
    def params(self) -> int:
        """Parameters of its layers."""
        return sum(each.layer.params for each in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of its layers, for one image."""
        return sum(each.layer.macs for each in self.layers)

    @property
    def saturated(self) -> bool:
        """Whether its last unit adds nothing: its input was seen whole before."""
        return len(self.units) > 1 and self.units[-1].gain == 0

    @property
    def full(self) -> bool:
        """Whether its outputs see the whole input of the stage."""
        return self.units[-1].field.volume == self.elements


@dataclass(frozen=True, repr=False)
class Report:
    """A network analysed.

    `image` is (channels, height, width). `params` counts all parameters, `macs` the convolutions
    and dense layers for one image. `gates` and `head` are layers without a field: those that only
    scale maps, and those behind the last map. `passed` counts what keeps maps as they are.
    """

    image: tuple[int, int, int]
    params: int
    macs: int
    alpha: float
    stages: tuple[StageReport, ...]
    gates: tuple[TracedLayer, ...]
    head: tuple[TracedLayer, ...]
    passed: Mapping[str, int]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        """Return the totals and where to look on: all of it has thousands of numbers."""
        idle = sum(each.adds_nothing for each in self.layers)
        return (
            f"<Report of {len(self.layers)} layers in {len(self.stages)} stages: "
            f"{self.params:,} parameters, {self.macs:,} MACs, {idle} layers add nothing>"
        )

    @cached_property
    def layers(self) -> tuple[LayerReport, ...]:
        """The layers of all stages."""
        return tuple(layer for stage in self.stages for layer in stage.layers)

    @cached_property
    def other_params(self) -> int:
        """Parameters of no layer: those of normalisation, and of other operators."""
        layers = (*(each.layer for each in self.layers), *self.gates, *self.head)
        return self.params - sum(layer.params for layer in layers)

    @cached_property
    def gain(self) -> float:
        """The gain of all units together.

        Reference: [3DRF] section 4.1.
        """
        return sum(unit.gain or 0 for stage in self.stages for unit in stage.units)
