"""Analysis: where the layers of a network see nothing new."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from ifspace.infofield import gain
from ifspace.models.fields import Field, receptive_fields
from ifspace.models.graph import (
    Op,
    Size,
    Trace,
    TracedLayer,
)
from ifspace.models.tracing import (
    Image,
    checked_model,
    trace,
)
from ifspace.models.units import (
    TracedStage,
    stages_of,
    units_of,
)
from ifspace.nn import RollingPointwiseConv2d
from ifspace.values import number_from_zero

Progress = Callable[[int, int], None]


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


def analyze(
    model: nn.Module, x: Image, alpha: float = 3, progress: Progress | None = None
) -> Report:
    """Return stages, fields, gains and costs of a network on an image [N, C, H, W] or (C, H, W).

    Nothing is computed: weights on the meta device will do. `alpha` is the decay of the gain;
    `progress` is told how many layers of how many are done.

    >>> row = nn.Sequential(*(nn.Conv2d(128, 128, 3, padding=1) for _ in range(3)))
    >>> report = analyze(row, (128, 8, 8))
    >>> [round(each.gain, 3) for each in report.layers if each.gain is not None]
    [1.166, 0.297]

    Raises: SettingError for an alpha below 0; otherwise as `trace`.

    Reference: MATH section 5; [IF] eqs. 1 to 4, Table 1.
    """
    alpha = number_from_zero(alpha, "alpha")
    model = checked_model(model)
    return report_on(trace(model, x), model, alpha, progress)


def report_on(
    found: Trace, model: nn.Module, alpha: float = 3, progress: Progress | None = None
) -> Report:
    """Return the analysis of a network that is traced already."""
    writer = _Writer(found, alpha, progress)
    stages = tuple(writer.stage(stage) for stage in stages_of(found, units_of(found, model)))
    passed = dict(found.passed or {})
    return Report(
        found.image,
        found.params,
        found.macs,
        alpha,
        stages,
        found.gates,
        found.head,
        passed,
        found.notes,
    )


class _Writer:
    """Writes the reports of stages one after another."""

    def __init__(self, found: Trace, alpha: float, progress: Progress | None) -> None:
        self._trace, self._alpha, self._progress = found, alpha, progress
        self._receptive = receptive_fields(found)
        self._done, self._layers = 0, len(found.layers)

    def stage(self, stage: TracedStage) -> StageReport:
        """Return the report of a stage."""
        shuffles = self._shuffles(stage)
        of = {number: place for place, unit in enumerate(stage.units) for number in unit.nodes}
        layers = []
        place = 0
        for number in sorted((*stage.nodes, *shuffles)):
            place = of.get(number, place)
            layers.append(self._layer(stage, number, place))
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._layers)
        units = []
        for unit in stage.units:
            field, before = stage.field(unit.output), self._read(stage, unit.inputs)
            held = [self._trace.nodes[number].layer for number in unit.nodes]
            units.append(
                UnitReport(
                    unit.name,
                    unit.names,
                    len(held),
                    field,
                    self._gain(stage, before, field),
                    sum(layer.params for layer in held if layer is not None),
                    sum(layer.macs for layer in held if layer is not None),
                )
            )
        width = self._trace.nodes[stage.units[-1].output].channels
        return StageReport(
            stage.side, stage.channels, width, stage.elements, tuple(units), tuple(layers)
        )

    def _layer(self, stage: TracedStage, number: int, unit: int) -> LayerReport:
        node = self._trace.nodes[number]
        assert node.layer is not None
        field = stage.field(number)
        before = self._read(stage, node.parents)
        shuffle = not node.layer.conv.writes
        receptive = self._receptive[number]
        height, width = (int(each) for each in receptive.side)
        past = height > self._trace.image[1] or width > self._trace.image[2]
        gained = None if shuffle else self._gain(stage, before, field)
        return LayerReport(node.layer, unit, field, gained, (height, width), past)

    def _read(self, stage: TracedStage, inputs: Iterable[int]) -> Field | None:
        """Return what of several maps sees most; None where no layer of the stage wrote one."""
        fields = (stage.field(each) for each in inputs if self._works(stage, each))
        return max(fields, key=lambda field: field.volume, default=None)

    def _gain(self, stage: TracedStage, before: Field | None, field: Field) -> float | None:
        if before is None or not before.volume:
            return None
        return gain(before.volume, field.volume, stage.elements, self._alpha)

    def _works(self, stage: TracedStage, number: int) -> bool:
        """Return whether a layer of the stage stands before a map, or is it."""
        waiting, looked = [number], set()
        members = set(stage.nodes)
        while waiting:
            each = waiting.pop()
            if each in members:
                return True
            if each not in looked and each not in stage.inputs:
                looked.add(each)
                waiting += self._trace.nodes[each].parents
        return False

    def _shuffles(self, stage: TracedStage) -> list[int]:
        """Return the channel shuffles that run inside a stage."""
        last = max(unit.output for unit in stage.units)
        return [
            node.number
            for node in self._trace.nodes[min(stage.nodes) : last + 1]
            if node.op is Op.MOVE and node.layer is not None
        ]


_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, RollingPointwiseConv2d)


@dataclass(frozen=True, slots=True)
class Others:
    """How many parameters stand beside the layers: by class of module, and of idle layers by name.

    Idle layers do not run in evaluation: a second classifier, say, that is there for training.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    idle: Mapping[str, int] = field(default_factory=dict)


def others_of(model: nn.Module, report: Report) -> Others:
    """Return whose the parameters outside the layers of a report are, the most first.

    Where they cannot be told apart, as weights that modules share, nothing is said.

    >>> from ifspace.models.analysis import analyze
    >>> row = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU())
    >>> others_of(row, analyze(row, (3, 8, 8)))
    Others(classes={'BatchNorm2d': 16, 'PReLU': 1}, idle={})
    """
    layers = (*(each.layer for each in report.layers), *report.gates, *report.head)
    run = {layer.name for layer in layers}
    classes: Counter[str] = Counter()
    idle: dict[str, int] = {}
    for name, module in model.named_modules():
        own = sum(each.numel() for each in module.parameters(recurse=False))
        if not own or name in run:
            continue
        if isinstance(module, _LAYERS):
            idle[name] = own
        else:
            classes[type(module).__name__] += own
    if classes.total() + sum(idle.values()) == report.other_params:
        return Others(dict(classes.most_common()), idle)
    return Others()
