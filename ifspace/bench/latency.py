"""The latency model: a block's time is a sum over the operations, bytes and launches of each kind.

Operations are those that are carried out, where that is known to be more than the layer needs:
groups of few channels fill a vector's lanes in part, and a rolling pointwise convolution that the
compiled loops of a CPU do not compute is a dense one, or tiles with zeros between. The
coefficients, none negative, are those with the least squared relative error on measured blocks;
they hold for one device, type, layout, number of threads and batch. A table of measured and
predicted latencies is what `ifspace layout` reads.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from ifspace.bench.case import (
    BlockCandidate,
    Conditions,
    is_rolling,
    kind_of_run,
    windows_of_layer,
)
from ifspace.block import SizedLayer
from ifspace.kernels.rpw.cpu import WAYS, band_of, plan_for
from ifspace.latency import COLUMNS as TABLE_COLUMNS
from ifspace.latency import DECIMALS, FORM, MEASURED, MODELLED, SOURCE, Shape
from ifspace.measurements import AS_IS, LAYOUTS, ONE_PASS
from ifspace.nn.block import block_style
from ifspace.storage import replacing
from ifspace.table import Table

Features = Mapping[str, float]
OPERATIONS, PADDED, BYTES, LAUNCHES = "operations", "padded operations", "bytes", "launches"
ELEMENTWISE: Final = "elementwise"
# Numbers of 32 bits in a vector of AVX-512; the side of a tile of matrix units.
LANES: Final = 16
# What a model should reach on blocks that it was not fitted to.
RANK_GOAL: Final = 0.9
ERROR_GOAL: Final = 0.2
# With fewer blocks a rank correlation says nothing.
MIN_JUDGED: Final = 5
# The parts of a sample, each held out of the fit in its turn.
PARTS: Final = 5
# Steps of the solver, far more than it needs.
MAX_STEPS: Final = 10_000
MODEL: Final = "model"
Times = Sequence[tuple[BlockCandidate, float]]


# Features.


def features(candidate: BlockCandidate, conditions: Conditions) -> Features:
    """Return the features of the forward pass of a batch, named "KIND operations" and so on.

    Reads and writes are counted for each layer: what one writes the next reads. A fused block is
    one pass that reads its input and writes its output; activations and batch norm are in it.
    """
    counts: Counter[str] = Counter()
    itemsize = conditions.torch_dtype.itemsize
    if candidate.form == ONE_PASS:
        elements = prod(candidate.in_shape) + prod(candidate.out_shape)
        moved = itemsize * (elements + candidate.sized.params)
        names = (OPERATIONS, BYTES, LAUNCHES)
        return {
            f"{ONE_PASS} {name}": count
            for name, count in zip(names, (2 * candidate.macs, moved, 1), strict=True)
        }
    for layer, side_in, side_out in candidate.layers(conditions):
        pixels_in, pixels_out = candidate.batch * side_in**2, candidate.batch * side_out**2
        moved = itemsize * (pixels_in * layer.c_in + pixels_out * layer.c_out + layer.params)
        if is_rolling(layer) and conditions.device.type == "cpu":
            counts.update(_rolling_on_cpu(layer, pixels_out, moved, conditions))
            continue
        kind = kind_of_run(layer).symbol
        counts.update({f"{kind} {BYTES}": moved, f"{kind} {LAUNCHES}": 1})
        if layer.params:
            counts[f"{kind} {OPERATIONS}"] += 2 * layer.params * pixels_out
        if layer.conv.windowed:
            c_in, c_out = (_whole_vectors(c // layer.groups) for c in (layer.c_in, layer.c_out))
            taps = layer.groups * layer.kernel**2
            counts[f"{kind} {PADDED}"] += 2 * c_in * c_out * taps * pixels_out
    counts.update(_elementwise(candidate, conditions))
    return dict(counts)


def _whole_vectors(channels: int) -> int:
    return -(-channels // LANES) * LANES


def _rolling_on_cpu(
    layer: SizedLayer, pixels: int, moved: int, conditions: Conditions
) -> dict[str, int]:
    """Return the features of a rolling pointwise convolution by `ifspace.kernels.rpw.cpu`."""
    windows, dtype = windows_of_layer(layer), conditions.torch_dtype
    tiles = plan_for(windows, pixels, conditions.layout == LAYOUTS[0], dtype).forward
    if tiles < 0:
        feature, macs = f"{layer.conv.symbol} {WAYS[tiles]}", layer.c_out * layer.fan_in
    elif not tiles:
        feature, macs = f"{layer.conv.symbol} dense", layer.c_in * layer.c_out
    else:
        slices = band_of(windows).tile_channels(tiles)
        feature, macs = f"{layer.conv.symbol} tiled", layer.c_out * slices.width
        moved += 0 if slices.is_ring else dtype.itemsize * pixels * slices.channels
    return {
        f"{feature} {OPERATIONS}": 2 * macs * pixels,
        f"{feature} {BYTES}": moved,
        f"{feature} {LAUNCHES}": 1,
    }


def _elementwise(candidate: BlockCandidate, conditions: Conditions) -> dict[str, int]:
    """Return the features of batch norm, activation and sum beside the layers."""
    style = block_style(conditions.style)
    each_layer = int(style.activation is not None and style.where == "each")
    each_layer += style.batch_norm and candidate.form == AS_IS
    written = [
        layer.c_out * side**2 * each_layer
        for layer, _, side in candidate.layers(conditions)
        if layer.conv.writes and each_layer
    ]
    if style.shortcut != "none" or (style.activation and style.where == "end"):
        written.append(2 * candidate.sized.out_channels * candidate.side**2)
    if not written:
        return {}
    moved = 2 * conditions.torch_dtype.itemsize * candidate.batch * sum(written)
    return {f"{ELEMENTWISE} {BYTES}": moved, f"{ELEMENTWISE} {LAUNCHES}": len(written)}


# The model.


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Milliseconds per unit of each feature.

    >>> model = LatencyModel.fit([({"bytes": 2.0, "launches": 1.0}, 5.0), ({"bytes": 4.0}, 8.0)])
    >>> round(model.predict({"bytes": 1.0, "launches": 2.0}), 6)
    4.0
    """

    coefficients: Mapping[str, float]

    @classmethod
    def fit(cls, measured: Sequence[tuple[Features, float]]) -> Self:
        """Return the model with the least squared relative error on (features, milliseconds)."""
        names = sorted({name for counts, _ in measured for name in counts})
        if not names:
            return cls({})
        matrix = np.array([[counts.get(name, 0.0) for name in names] for counts, _ in measured])
        times_ms = np.array([time_ms for _, time_ms in measured])
        scale = matrix.max(axis=0, initial=0.0)
        scale[scale == 0] = 1.0
        ones = np.ones(len(measured))
        solution, _ = nnls(matrix / scale / times_ms[:, None], ones, maxiter=MAX_STEPS)
        return cls(dict(zip(names, (solution / scale).tolist(), strict=True)))

    def predict(self, features: Features) -> float | None:
        """Return milliseconds, or None for a feature that no block of the fit had."""
        if not features.keys() <= self.coefficients.keys():
            return None
        return sum(self.coefficients[name] * count for name, count in features.items())


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of a predictor on `count` blocks that it was not fitted to.

    `rank_correlation` is Spearman's, None where there is none: of few blocks, or of predictions or
    times that are all the same. `median_error` is relative to the measured time.
    """

    count: int
    rank_correlation: float | None
    median_error: float | None

    @classmethod
    def of(cls, predicted: Sequence[float | None], measured: Sequence[float]) -> Self:
        """Return the errors of predictions; what could not be predicted is left out."""
        pairs = [(a, b) for a, b in zip(predicted, measured, strict=True) if a is not None]
        if len(pairs) < MIN_JUDGED:
            return cls(len(pairs), None, None)
        guesses, times = zip(*pairs, strict=True)
        has_order = len(set(guesses)) > 1 and len(set(times)) > 1
        correlation = float(spearmanr(guesses, times).statistic) if has_order else None
        relative = [abs(a - b) / b for a, b in pairs]
        return cls(len(pairs), correlation, float(np.median(relative)))

    @property
    def ranks(self) -> bool:
        """Whether the predictor orders blocks as their times do: the goal of the rank correlation.

        False where too few blocks were judged to know.
        """
        return self.rank_correlation is not None and self.rank_correlation >= RANK_GOAL

    @property
    def misses(self) -> tuple[str, ...]:
        """The goals that are missed, in words."""
        texts = []
        if self.rank_correlation is not None and self.rank_correlation < RANK_GOAL:
            texts.append(f"rank correlation {self.rank_correlation:.2f}, goal {RANK_GOAL}")
        if self.median_error is not None and self.median_error > ERROR_GOAL:
            texts.append(f"median error {self.median_error:.0%}, goal {ERROR_GOAL:.0%}")
        return tuple(texts)


# What is compared with the model: one amount and a constant, fitted the same way.
ALONE: Final[Mapping[str, Callable[[BlockCandidate], Features]]] = {
    "parameters alone": lambda block: {"parameters": block.sized.params, "constant": 1},
    "MACs alone": lambda block: {"MACs": block.macs, "constant": 1},
}


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A model with its errors beside those of predictors from one amount alone, by name.

    `shapes`: those of the blocks that it was fitted to.
    """

    mode: str
    model: LatencyModel
    fitted_to: int
    errors: Mapping[str, Errors]
    shapes: frozenset[Shape] = frozenset()

    @classmethod
    def fit(
        cls,
        mode: str,
        fit: Times,
        sample: Times,
        features: Callable[[BlockCandidate], Features],
    ) -> Self:
        """Return a model fitted to all (block, milliseconds), with errors on the sample.

        Each part of the sample is judged by a model fitted to all but that part. The predictors
        from one amount know no spatial size: they are fitted only to blocks of the sample's shapes.
        """
        shapes = {block.shapes for block, _ in sample}
        alike = [(block, time_ms) for block, time_ms in fit if block.shapes in shapes]
        errors = {MODEL: _held_out_errors(fit, sample, features)}
        errors |= {name: _held_out_errors(alike, sample, amount) for name, amount in ALONE.items()}
        measured = [(features(block), time_ms) for block, time_ms in (*fit, *sample)]
        fitted = {
            (block.sized.channels, block.sized.out_channels, block.side, block.stride)
            for block, _ in (*fit, *sample)
        }
        model = LatencyModel.fit(measured)
        return cls(mode, model, len(measured), errors, frozenset(fitted))

    def record(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "unit": "ms",
            "coefficients": dict(self.model.coefficients),
            "fitted_to": self.fitted_to,
            "shapes": sorted(map(list, self.shapes)),
            "errors": {name: asdict(errors) for name, errors in self.errors.items()},
            "goals": {"rank_correlation": RANK_GOAL, "median_error": ERROR_GOAL},
        }


def _held_out_errors(
    fit: Times, sample: Times, features: Callable[[BlockCandidate], Features]
) -> Errors:
    """Return the errors on a sample, each part of it held out of the fit in its turn."""
    fit_to = [(features(block), time_ms) for block, time_ms in fit]
    sampled = [(features(block), time_ms) for block, time_ms in sample]
    guesses: list[float | None] = [None] * len(sampled)
    for part in range(PARTS):
        training = [pair for index, pair in enumerate(sampled) if index % PARTS != part]
        model = LatencyModel.fit([*fit_to, *training])
        for index in range(part, len(sampled), PARTS):
            guesses[index] = model.predict(sampled[index][0])
    return Errors.of(guesses, [time_ms for _, time_ms in sampled])


# The table.

CONDITIONS: Final = "conditions"
# A table that was written before blocks had forms has no column of them: all were as they are.
EARLIER_HEADER: Final = (*TABLE_COLUMNS, SOURCE, CONDITIONS)
HEADER: Final = (*TABLE_COLUMNS, FORM, SOURCE, CONDITIONS)


class LatencyRows:
    """The rows of a latency table, each case once: as it was first measured, or else predicted.

    A case is a block of a shape, in a form.
    `conditions`: what the rows hold under, beside their columns. `earlier` rows, of the same
    conditions, stay unless there is a new one of the case; a prediction replaces no measurement.
    """

    def __init__(
        self,
        device: str,
        dtype: str,
        conditions: str = "",
        earlier: Iterable[Mapping[str, str]] = (),
    ) -> None:
        self._device, self._dtype, self._conditions = device, dtype, conditions
        self._new: dict[tuple[Any, ...], tuple[float, str]] = {}
        self._earlier: dict[tuple[Any, ...], tuple[float, str]] = {}
        for row in earlier:
            numbers = (int(row[name]) for name in TABLE_COLUMNS[1:6])
            case = row["block"], *numbers, row.get(FORM, AS_IS)
            self._earlier[case] = float(row["latency_ms"]), row[SOURCE]

    def put(self, candidate: BlockCandidate, latency_ms: float | None, source: str) -> None:
        """Add a latency of a block in its form.

        None for a block with a bottleneck, which the table has no column for.
        """
        sized = candidate.sized
        if latency_ms is None or sized.bottleneck is not None:
            return
        case = (
            str(sized.block),
            sized.channels,
            sized.out_channels,
            candidate.side,
            candidate.stride,
            candidate.batch,
            candidate.form,
        )
        if case not in self._new or (source == MEASURED and self._new[case][1] != MEASURED):
            # A time of nothing is no latency: at least what the table can write.
            self._new[case] = max(latency_ms, 10.0**-DECIMALS), source

    def __len__(self) -> int:
        return len(self._new)

    @property
    def table(self) -> Table:
        """The table: measured latencies, then predicted; source and conditions last."""
        stays = {
            case: row
            for case, row in self._earlier.items()
            if row[1] == MEASURED and self._new.get(case, row)[1] == MODELLED
        }
        rows = {**self._earlier, **self._new, **stays}
        numbers = {"C", "F", "side", "stride", "batch", "latency_ms"}
        return Table(
            tuple(f">{name}" if name in numbers else f"{name}~" for name in HEADER),
            tuple(
                (*case, self._device, self._dtype, f"{ms:.{DECIMALS}f}", form, *how)
                for (*case, form), (ms, *how) in sorted(
                    ((case, (*row, self._conditions)) for case, row in rows.items()),
                    key=lambda row: row[1][1] != MEASURED,
                )
            ),
        )

    def write(self, path: Path) -> None:
        """Write the table to a file."""
        with replacing(path) as file:
            file.write_text(self.table.csv(), encoding="utf-8")
