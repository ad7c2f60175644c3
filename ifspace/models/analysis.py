"""Analyse a network: where its layers see nothing new.

The report lists stages, units and layers with their fields, gains and costs, and the parameters
that belong to no layer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from ifspace.infofield import CAPS
from ifspace.models.exchanges import LayerExchange, layer_exchanges
from ifspace.models.fields import Field, receptive_fields
from ifspace.models.gains import StageGains
from ifspace.models.graph import LiveSchedule, Op, Size, Trace, TracedLayer
from ifspace.models.sources import part_of
from ifspace.models.tracing import Image, checked_model, trace
from ifspace.models.units import TracedStage, stages_of, units_of
from ifspace.nn import RollingPointwiseConv2d
from ifspace.nn.checks import unwrapped
from ifspace.parallel import Progress
from ifspace.values import choice, counted, number_from_zero


@dataclass(frozen=True, slots=True)
class LayerReport:
    """A layer in its stage; `unit` is the index of its unit there.

    `field` is what its outputs see of the stage's input. `gain` is the gain over the feature map
    that it reads; None for a layer that reads the stage's input, and for a shuffle, which sees
    nothing more. `receptive`: (height, width) of the classical receptive field in pixels of the
    image; `past_image`: whether it is larger than the image. `unknown_pixels`: whether an output
    sees other pixels too, of which nothing is known; then there is no gain, and the fields are the
    least that it sees.
    """

    layer: TracedLayer
    unit: int
    field: Field
    gain: float | None
    receptive: Size
    past_image: bool
    unknown_pixels: bool = False

    @property
    def adds_nothing(self) -> bool:
        """Whether its outputs see no more than what it reads."""
        return self.gain == 0


@dataclass(frozen=True, slots=True)
class UnitReport:
    """A unit in its stage: the full names of its modules, its number of layers, field and costs.

    `gain` is the gain over what it reads, None where that is the stage's input, and where pixels
    are not known.
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
    """A stage: `side` (height, width) in pixels and `channels` that enter it.

    It writes `side_out` pixels and `width` channels. `elements` is the volume of what enters.
    Parameters are those of the layers alone.
    """

    side: Size
    side_out: Size
    channels: int
    width: int
    elements: int
    units: tuple[UnitReport, ...]
    layers: tuple[LayerReport, ...]

    @property
    def params(self) -> int:
        """Parameters of its layers."""
        return sum(entry.layer.params for entry in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of its layers, for one image."""
        return sum(entry.layer.macs for entry in self.layers)

    @property
    def saturated(self) -> bool:
        """Whether its last unit adds nothing: the unit before sees the whole input already."""
        return len(self.units) > 1 and self.units[-1].gain == 0

    @property
    def full(self) -> bool:
        """Whether its outputs see the whole input of the stage."""
        return self.units[-1].field.volume >= self.elements


@dataclass(frozen=True, repr=False)
class Report:
    """The analysis of a network.

    `image` is (channels, height, width). `params` counts all parameters, `macs` the convolutions
    and dense layers for one image. `gates` and `head` are layers without a field: those that only
    scale feature maps, and those after the last feature map. `passed` counts the operators that
    keep a feature map as it is. `cap`: where the spatial field of a stage stopped growing.
    `unplaced`, `runs` and `live`, which gives the peak memory, are those of the trace. `exchanges`:
    the grouped layers that exchange no channels.
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
    cap: str = "input"
    unplaced: tuple[TracedLayer, ...] = ()
    runs: frozenset[str] = frozenset()
    live: LiveSchedule | None = None
    exchanges: tuple[LayerExchange, ...] = ()

    def __repr__(self) -> str:
        """Return the totals: the whole report has thousands of numbers."""
        idle = sum(entry.adds_nothing for entry in self.layers)
        return (
            f"<Report of {counted(len(self.layers), 'layer')} in "
            f"{counted(len(self.stages), 'stage')}: {self.params:,} parameters, "
            f"{self.macs:,} MACs, {idle} layers add nothing>"
        )

    @cached_property
    def layers(self) -> tuple[LayerReport, ...]:
        """The layers of all stages."""
        return tuple(entry for stage in self.stages for entry in stage.layers)

    @cached_property
    def all_layers(self) -> tuple[TracedLayer, ...]:
        """The layers of all stages, then gates, the head, and the unplaced."""
        stages = (entry.layer for entry in self.layers)
        return (*stages, *self.gates, *self.head, *self.unplaced)

    @cached_property
    def other_params(self) -> int:
        """Parameters outside the layers: those of normalisation, and of other operators."""
        return self.params - sum(layer.params for layer in self.all_layers)

    @cached_property
    def gain(self) -> float:
        """The gain of all units together.

        Reference: [3DRF] section 4.1.
        """
        return sum(unit.gain or 0 for stage in self.stages for unit in stage.units)


def analyze(
    model: nn.Module,
    x: Image,
    alpha: float = 3,
    progress: Progress | None = None,
    cap: str = "input",
    part: str | None = None,
) -> Report:
    """Return stages, fields, gains and costs of a network on an image [N, C, H, W] or (C, H, W).

    Nothing is computed: weights on the meta device suffice. `alpha` is the decay of the gain, `cap`
    where the spatial field of a stage stops growing: at what enters it ("input"), "twice" that, or
    nowhere ("none"). `progress` is called with the number of layers done, and of all. `part`: the
    full name of one of its modules, which is analysed alone, on an image that it reads; it may
    return several feature maps, in a dictionary too.

    >>> convs = nn.Sequential(*(nn.Conv2d(128, 128, 3, padding=1) for _ in range(3)))
    >>> report = analyze(convs, (128, 8, 8))
    >>> [round(entry.gain, 3) for entry in report.layers if entry.gain is not None]
    [1.166, 0.297]

    Raises: SettingError for an alpha below 0, an unknown cap, and a part that the network does not
        have; otherwise as `trace`.

    Reference: docs/real-networks.md, how a network is read; [IF] eqs. 1 to 4, Table 1.
    """
    alpha = number_from_zero(alpha, "alpha")
    choice(cap, "cap", CAPS)
    if part is not None:
        model = part_of(unwrapped(model), part)
    model = checked_model(model)
    return report_on(trace(model, x), model, alpha, progress, cap)


def report_on(
    graph: Trace,
    model: nn.Module,
    alpha: float = 3,
    progress: Progress | None = None,
    cap: str = "input",
) -> Report:
    """Return the analysis of a network that is traced already."""
    writer = _Writer(graph, alpha, progress, cap)
    stages = stages_of(graph, units_of(graph, model))
    return Report(
        image=graph.image,
        params=graph.params,
        macs=graph.macs,
        alpha=alpha,
        stages=tuple(writer.stage(stage) for stage in stages),
        gates=graph.gates,
        head=graph.head,
        passed=dict(graph.passed or {}),
        notes=graph.notes,
        cap=cap,
        unplaced=graph.unplaced,
        runs=graph.runs,
        live=graph.live,
        exchanges=layer_exchanges(graph, stages),
    )


class _Writer:
    """Writes the reports of stages one after another."""

    def __init__(self, graph: Trace, alpha: float, progress: Progress | None, cap: str) -> None:
        self._graph, self._alpha, self._progress, self._cap = graph, alpha, progress, cap
        self._receptive = receptive_fields(graph)
        self._done = 0

    def stage(self, stage: TracedStage) -> StageReport:
        """Return the report of a stage."""
        gains = StageGains(stage, self._alpha, self._cap)
        unit_of = {node: index for index, unit in enumerate(stage.units) for node in unit.nodes}
        layers = []
        unit_index = 0
        for index in sorted((*stage.nodes, *self._shuffles(stage))):
            unit_index = unit_of.get(index, unit_index)
            layers.append(self._layer(gains, index, unit_index))
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, len(self._graph.layers))
        units = []
        for unit, gained in zip(stage.units, gains.of_units(), strict=True):
            members = [self._graph.nodes[index].layer for index in unit.nodes]
            units.append(
                UnitReport(
                    name=unit.name,
                    names=unit.names,
                    layers=len(members),
                    field=gains.field(unit.output),
                    gain=gained,
                    params=sum(layer.params for layer in members if layer is not None),
                    macs=sum(layer.macs for layer in members if layer is not None),
                )
            )
        return StageReport(
            side=stage.side,
            side_out=stage.side_out,
            channels=stage.channels,
            width=self._graph.nodes[stage.units[-1].output].channels,
            elements=stage.elements,
            units=tuple(units),
            layers=tuple(layers),
        )

    def _layer(self, gains: StageGains, index: int, unit: int) -> LayerReport:
        node = self._graph.nodes[index]
        assert node.layer is not None
        gained = gains.over(node.parents, index) if node.layer.conv.writes else None
        height, width = (int(pixels) for pixels in self._receptive[index].size)
        past = height > self._graph.image[1] or width > self._graph.image[2]
        output = gains.field(index)
        unknown = output.unknown or self._receptive[index].unknown
        return LayerReport(node.layer, unit, output, gained, (height, width), past, unknown)

    def _shuffles(self, stage: TracedStage) -> list[int]:
        """Return the indices of the channel shuffles that run inside a stage."""
        last = max(unit.output for unit in stage.units)
        return [
            node.index
            for node in self._graph.nodes[min(stage.nodes) : last + 1]
            if node.op is Op.MOVE and node.layer is not None
        ]


_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, RollingPointwiseConv2d)


@dataclass(frozen=True, slots=True)
class OtherParams:
    """The parameters outside the layers: by class of module, and by name for unused layers.

    Unused layers do not run in evaluation: for example a second classifier for training.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    unused: Mapping[str, int] = field(default_factory=dict)


def other_params(model: nn.Module, report: Report) -> OtherParams:
    """Return what the parameters outside the layers of a report belong to, the largest first.

    Empty if they cannot be told apart, as when modules share weights.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU())
    >>> other_params(net, analyze(net, (3, 8, 8)))
    OtherParams(classes={'BatchNorm2d': 16, 'PReLU': 1}, unused={})
    """
    names = {layer.name for layer in report.all_layers}
    classes: Counter[str] = Counter()
    unused: dict[str, int] = {}
    for name, module in model.named_modules():
        params = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if not params or name in names:
            continue
        if isinstance(module, _LAYERS) and name not in report.runs:
            unused[name] = params
        else:
            classes[type(module).__name__] += params
    if classes.total() + sum(unused.values()) == report.other_params:
        return OtherParams(dict(classes.most_common()), unused)
    return OtherParams()
