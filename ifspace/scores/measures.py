"""Every score and plain count of a layer list; no score is a promise of accuracy.

No constant of a score is computed from accuracies: each has its source in `CONSTANTS`, and nothing
here reads a table. The field of a list is that at free channel permutation, because the list does
not say how channels are ordered between layers: each layer multiplies the channel field by its
fan-in, capped at the channels that enter the stage, and the spatial field is capped at its size.
Of a traced network `ifspace.models.listing.stage_fields` has the exact fields.

Reference: [IF] eqs. 1 to 4; [Fog] section 3.1 for the permutation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum, log, prod
from pathlib import Path
from typing import Final

from ifspace.infofield import field_limit, gain, log_gain
from ifspace.scores.layers import LayerList, ListedLayer, Size, as_layers, chain_stages
from ifspace.stages.objectives import energy_amount, share_of_macs, width_amount
from ifspace.values import number_from_zero

# Every number of a score that is not 1, and its source.
CONSTANTS: Final[Mapping[str, tuple[float, str]]] = {
    "decay of the gain": (3, "[IF] eq. 4"),
    "power of MACs and widths": (0.75, "docs/concepts.md, objectives of a layout"),
    "entropy of a filter": (0.5, "Shen et al., DeepMAD: ½ ln fan-in"),
    "weight of the last stage": (8, "Shen et al., DeepMAD: ratios 1, 1, 1, 1, 8"),
}
# Height and width in pixels, and channels.
Field = tuple[int, int, int]
ALPHA: Final = CONSTANTS["decay of the gain"][0]


@dataclass(frozen=True, slots=True)
class ScoredStage:
    """The field and the gains of a stage.

    `size`: (height, width) that enters it, and `channels`. `field`: the information field of its
    last layer in elements (voxels). The gains are sums over its steps.
    """

    size: Size
    channels: int
    layers: int
    field: int
    raw_gain: int
    gain: float
    log_gain: float


@dataclass(frozen=True, slots=True)
class StageFields:
    """The information field of a stage, and each step that it grows by.

    `size`: (height, width) that enters it, and `channels`. `field`: that of its last layer in
    elements. `steps`: the elements seen before and after each layer, or unit, that reads what the
    stage wrote.
    """

    size: Size
    channels: int
    layers: int
    field: int
    steps: tuple[tuple[int, int], ...]

    def scored(self, alpha: float) -> ScoredStage:
        """Return the stage with its gains.

        >>> stage = StageFields((8, 8), 128, 3, 6272, ((1152, 3200), (3200, 6272)))
        >>> round(stage.scored(alpha=3).gain, 3), stage.scored(alpha=3).raw_gain
        (1.463, 5120)
        """
        v0 = prod(self.size) * self.channels
        return ScoredStage(
            size=self.size,
            channels=self.channels,
            layers=self.layers,
            field=self.field,
            raw_gain=sum(after - before for before, after in self.steps),
            gain=fsum(gain(*step, v0, alpha) for step in self.steps),
            log_gain=fsum(log_gain(*step, v0, alpha) for step in self.steps),
        )


@dataclass(frozen=True, slots=True)
class NetworkScores:
    """The scores and the counts of a network, by the names of `SCORES` and `COUNTS`.

    `stages`: where the gains come from. `joints`: how many layers do not read what the layer before
    writes. `is_traced`: whether the fields are those of a traced network; of a list they are those
    of a chain of all layers.
    """

    scores: Mapping[str, float]
    counts: Mapping[str, int]
    stages: tuple[ScoredStage, ...]
    joints: int
    is_traced: bool = False

    @property
    def values(self) -> dict[str, float]:
        """The scores, then the counts."""
        return dict(self.scores) | dict(self.counts)


def fields_of(stage: Sequence[ListedLayer], cap: str = "input") -> tuple[Field, ...]:
    """Return the information field after each layer of a stage: height, width and channels.

    `cap`: at which multiple of the size that enters the spatial field stops, a name of `CAPS`.

    >>> three = LayerList.parse(";".join(["3/1/128/128/1/8"] * 3))
    >>> fields_of(three.chain), [prod(field) for field in fields_of(three.chain)]
    (((3, 3, 128), (5, 5, 128), (7, 7, 128)), [1152, 3200, 6272])

    Reference: [IF] eqs. 1 to 3, Table 1.
    """
    sizes, entering = stage[0].size_in, stage[0].c_in
    height, width, channels = 1, 1, 1
    limits = [field_limit(size, cap) for size in sizes]
    fields = []
    for layer in stage:
        height, width = (
            seen + kernel - 1 if limit is None else min(seen + kernel - 1, limit)
            for seen, kernel, limit in zip(
                (height, width), layer.effective_kernel, limits, strict=True
            )
        )
        channels = min(channels * (layer.c_in // layer.groups), entering)
        fields.append((height, width, channels))
    return tuple(fields)


def list_fields(layers: LayerList) -> tuple[StageFields, ...]:
    """Return the fields of each stage of a list; the field starts anew where the size changes."""
    stages = []
    for stage in chain_stages(layers.chain):
        volumes = tuple(map(prod, fields_of(stage)))
        first, steps = stage[0], tuple(pairwise(volumes))
        stages.append(StageFields(first.size_in, first.c_in, len(stage), volumes[-1], steps))
    return tuple(stages)


def entropy(layers: LayerList) -> float:
    """Return the closed-form entropy of a network.

    Σ over stages of weight · ln(C · H · W) · ½ Σ ln(fan-in), a stage being the layers that write
    feature maps of one size, C, H and W what its last layer writes, the inner sum over all layers
    up to it. The weight is 8 for the last stage and 1 for the others.

    >>> round(entropy(LayerList.parse("3/2/3/8/1/4;3/1/8/8/1/4")), 3)
    146.968

    Reference: Lin et al., Zen-NAS; Shen et al., DeepMAD.
    """
    half, last_weight = (
        CONSTANTS["entropy of a filter"][0],
        CONSTANTS["weight of the last stage"][0],
    )
    information, amounts = 0.0, []
    chain = layers.chain
    for layer, behind in zip(chain, (*chain[1:], None), strict=True):
        information += half * log(layer.fan_in)
        if behind is None or behind.size != layer.size:
            amounts.append(log(layer.c_out * prod(layer.size)) * information)
    return fsum((*amounts[:-1], last_weight * amounts[-1]))


# From the layers and their stages to a number, in the order of the table.
Measure = Callable[[LayerList, Sequence[ScoredStage]], float]
SCORES: Final[Mapping[str, Measure]] = {
    "gain": lambda layers, stages: fsum(stage.gain for stage in stages),
    "log-gain": lambda layers, stages: fsum(stage.log_gain for stage in stages),
    "raw-gain": lambda layers, stages: sum(stage.raw_gain for stage in stages),
    "energy": lambda layers, stages: fsum(energy_amount(layer.c_out) for layer in layers.chain),
    "macs-3/4": lambda layers, stages: fsum(share_of_macs(layer.macs) for layer in layers.layers),
    "width-field": lambda layers, stages: fsum(
        width_amount(layer.c_out, prod(layer.size) ** 0.5, layer.fan_in) for layer in layers.layers
    ),
    "entropy": lambda layers, stages: entropy(layers),
}
# The scores that depend on the information field.
OF_FIELDS: Final = ("gain", "log-gain", "raw-gain")
COUNTS: Final[Mapping[str, Callable[[LayerList], int]]] = {
    "params": lambda layers: layers.params,
    "macs": lambda layers: layers.macs,
    "activations": lambda layers: layers.activations,
    "peak-memory": lambda layers: layers.peak,
    "depth": lambda layers: len(layers.chain),
    "width-sum": lambda layers: layers.width_sum,
}
# What each is, where a person reads it.
TITLES: Final[Mapping[str, str]] = {
    "gain": "Σ gain of the field, by stage",
    "log-gain": "Σ log-gain of the field, by stage",
    "raw-gain": "Σ growth of the field in voxels, by stage",
    "energy": "layout energy, Σ ln ln width",
    "macs-3/4": "Σ MACs^(3/4)",
    "width-field": "Σ width^(3/4) · side · ln fan-in",
    "entropy": "entropy of Zen and DeepMAD",
    "params": "parameters",
    "macs": "MACs",
    "activations": "elements written",
    "peak-memory": "peak memory in elements",
    "depth": "convolutions in a row",
    "width-sum": "sum of their widths",
}


def score(
    layers: LayerList | Path | str | Sequence[ListedLayer],
    alpha: float = ALPHA,
    *,
    counts: Mapping[str, int] | None = None,
    fields: Sequence[StageFields] | None = None,
) -> NetworkScores:
    """Return every score and count of a network.

    `layers`: a layer list, the CSV file of one, or its text. `alpha`: decay of the gain. `counts`:
    counts of the network that replace those of its convolutions alone, such as all its parameters.
    `fields`: the fields of the traced network, which replace those of the list.

    >>> result = score("3/1/128/128/1/8;3/1/128/128/1/8;3/1/128/128/1/8")
    >>> [round(result.scores[name], 3) for name in ("gain", "log-gain", "raw-gain")]
    [1.463, 0.878, 5120]

    Raises: SettingError for a list that cannot be read, and an alpha below 0.

    Reference: docs/evidence.md, how reliable they are.
    """
    listed = as_layers(layers)
    alpha = number_from_zero(alpha, "alpha")
    stages = [stage.scored(alpha) for stage in (list_fields(listed) if fields is None else fields)]
    return NetworkScores(
        scores={name: measure(listed, stages) for name, measure in SCORES.items()},
        counts={name: count(listed) for name, count in COUNTS.items()} | dict(counts or {}),
        stages=tuple(stages),
        joints=listed.joints,
        is_traced=fields is not None,
    )
