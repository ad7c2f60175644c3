"""Analysis: where the layers of a network see nothing new."""

from collections.abc import Callable, Iterable

from torch import nn

from ifspace.infofield import gain
from ifspace.models.fields import Field, receptive_fields
from ifspace.models.graph import Op, Trace
from ifspace.models.report import LayerReport, Report, StageReport, UnitReport
from ifspace.models.stages import TracedStage, stages_of
from ifspace.models.trace_network import (
    Image,
    checked_model,
    trace,
)
from ifspace.models.units import units_of
from ifspace.values import from_zero

Progress = Callable[[int, int], None]


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
    alpha = from_zero(alpha, "alpha")
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
        shuffle = node.layer.kind == "SH"
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
