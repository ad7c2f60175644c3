"""The gain of layers and units over what they read: one function, whoever asks.

Reference: [IF] eq. 4.
"""

from collections.abc import Iterable

from ifspace.infofield import gain
from ifspace.models.fields import Field
from ifspace.models.units import TracedStage


class StageGrowth:
    """How fields grow in a stage, for a `cap` as in `ifspace.infofield.CAPS`."""

    def __init__(self, stage: TracedStage, cap: str) -> None:
        self._stage, self._cap = stage, cap
        layers, inputs = set(stage.nodes), set(stage.inputs)
        # The feature maps that layers of the stage wrote, or that are computed from such.
        self._written: set[int] = set()
        for node in stage.trace.nodes:
            if node.index in layers or (
                node.index not in inputs and not self._written.isdisjoint(node.parents)
            ):
                self._written.add(node.index)

    def field(self, index: int) -> Field:
        """Return the field of a feature map of the stage."""
        return self._stage.field(index, self._cap)

    def over(self, inputs: Iterable[int], output: int) -> tuple[int, int] | None:
        """Return the volume of the largest that a feature map is computed from, and of its own.

        None if no layer of the stage wrote any of those, or pixels are seen that are not known.
        """
        fields = (self.field(index) for index in inputs if index in self._written)
        before = max(fields, key=lambda field: field.volume, default=None)
        after = self.field(output)
        if before is None or not before.volume or before.unknown or after.unknown:
            return None
        return before.volume, after.volume

    def of_units(self) -> tuple[tuple[int, int] | None, ...]:
        """Return the growth over each unit; None where that is not known, as for `over`."""
        return tuple(self.over(unit.inputs, unit.output) for unit in self._stage.units)


class StageGains:
    """The gains in a stage, for a decay `alpha` and a `cap` as in `ifspace.infofield.CAPS`."""

    def __init__(self, stage: TracedStage, alpha: float, cap: str) -> None:
        self._growth = StageGrowth(stage, cap)
        self._elements, self._alpha = stage.elements, alpha

    def field(self, index: int) -> Field:
        """Return the field of a feature map of the stage."""
        return self._growth.field(index)

    def over(self, inputs: Iterable[int], output: int) -> float | None:
        """Return the gain of a feature map over the largest that it is computed from.

        None if no layer of the stage wrote any of those, or pixels are seen that are not known.
        """
        return self._of(self._growth.over(inputs, output))

    def of_units(self) -> tuple[float | None, ...]:
        """Return the gain of each unit over what it reads; None where that is the stage's input."""
        return tuple(map(self._of, self._growth.of_units()))

    def _of(self, volumes: tuple[int, int] | None) -> float | None:
        return None if volumes is None else gain(*volumes, self._elements, self._alpha)
