"""What a block makes a device do: operations, bytes and launches, layer by layer, by kind.

A model of latency is linear in these. Operations are those that are carried out, where that is
known to be more than the layer needs: groups of few channels fill a vector's lanes in part, and a
rolling pointwise convolution runs on a CPU as a dense one or in tiles with zeros between.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from ifspace.bench.blocks import (
    Candidate,
    Conditions,
)
from ifspace.block import SizedLayer
from ifspace.kernels.rpw.cpu import Plan, band_of, plan_for
from ifspace.kernels.windows import Windows, windows_of
from ifspace.nn.block import block_style

Features = Mapping[str, float]
OPERATIONS, PADDED, BYTES, LAUNCHES = "operations", "padded operations", "bytes", "launches"
# Numbers of 32 bits in a vector of AVX-512; the side of a tile of matrix units.
LANES: Final = 16
ELEMENTWISE: Final = "elementwise"


def features(candidate: Candidate, conditions: Conditions) -> Features:
    """Return the features of the forward pass of a batch, named "KIND operations" and so on.

    Reading and writing is counted for each layer: what one writes the next reads.
    """
    found: Counter[str] = Counter()
    size = conditions.torch_dtype.itemsize
    sides = _sides(candidate)
    for layer, (before, after) in zip(candidate.sized.layers, pairwise(sides), strict=True):
        pixels_in, pixels_out = (candidate.batch * side**2 for side in (before, after))
        moved = size * (pixels_in * layer.c_in + pixels_out * layer.c_out + layer.params)
        if layer.conv.takes_overlap and conditions.device.type == "cpu":
            found.update(_rolling(layer, pixels_out, moved, size, conditions.layout))
            continue
        kind = layer.layer.kind
        found.update({f"{kind} {BYTES}": moved, f"{kind} {LAUNCHES}": 1})
        if layer.params:
            found[f"{kind} {OPERATIONS}"] += 2 * layer.params * pixels_out
        if layer.conv.takes_groups and layer.params:
            ins, outs = (_up(each // layer.groups) for each in (layer.c_in, layer.c_out))
            taps = layer.groups * layer.kernel**2
            found[f"{kind} {PADDED}"] += 2 * ins * outs * taps * pixels_out
    found.update(_style(candidate, conditions, sides))
    return dict(found)


def ways(candidate: Candidate, conditions: Conditions) -> tuple[Plan, ...]:
    """Return which way each rolling pointwise convolution runs on a CPU: it hangs on the pixels."""
    if conditions.device.type != "cpu":
        return ()
    return tuple(
        plan_for(_windows(layer), candidate.batch * side**2, conditions.layout == "channels_last")
        for layer, side in zip(candidate.sized.layers, _sides(candidate)[1:], strict=True)
        if layer.conv.takes_overlap
    )


def _windows(layer: SizedLayer) -> Windows:
    return windows_of(layer.c_in, layer.c_out, layer.groups, layer.layer.overlap or 0)


def _sides(candidate: Candidate) -> list[int]:
    """Return the side of the maps before each layer and behind the last."""
    sides = [candidate.side * candidate.stride]
    for stride in candidate.sized.strides(candidate.stride):
        sides.append(sides[-1] // stride)
    return sides


def _up(count: int) -> int:
    return -(-count // LANES) * LANES


def _rolling(layer: SizedLayer, pixels: int, moved: int, size: int, layout: str) -> dict[str, int]:
    """Return what `ifspace.kernels.rpw.cpu` makes of a rolling pointwise convolution."""
    windows = _windows(layer)
    tiles = plan_for(windows, pixels, layout == "channels_last").forward
    if not tiles:
        way, macs = "RPW dense", layer.c_in * layer.c_out
    else:
        slices = band_of(windows).tile_channels(tiles)
        way, macs = "RPW tiled", layer.c_out * slices.width
        moved += 0 if slices.is_ring else size * pixels * slices.channels
    return {
        f"{way} {OPERATIONS}": 2 * macs * pixels,
        f"{way} {BYTES}": moved,
        f"{way} {LAUNCHES}": 1,
    }


def _style(candidate: Candidate, conditions: Conditions, sides: list[int]) -> dict[str, int]:
    """Return the passes that batch norm, activation and sum make beside the layers."""
    style = block_style(conditions.style)
    passes = style.batch_norm + (style.activation is not None and style.where == "each")
    written = [
        layer.c_out * side**2 * passes
        for layer, side in zip(candidate.sized.layers, sides[1:], strict=True)
        if layer.conv.writes and passes
    ]
    if style.shortcut != "none" or (style.activation and style.where == "end"):
        written.append(2 * candidate.sized.out_channels * candidate.side**2)
    if not written:
        return {}
    moved = 2 * conditions.torch_dtype.itemsize * candidate.batch * sum(written)
    return {f"{ELEMENTWISE} {BYTES}": moved, f"{ELEMENTWISE} {LAUNCHES}": len(written)}


# What a model is asked for on blocks that it was not fitted to.
RANK_GOAL: Final = 0.9
ERROR_GOAL: Final = 0.2
# With fewer blocks a rank correlation says nothing.
LEAST_JUDGED: Final = 5
# Into so many parts a sample is cut.
PARTS: Final = 5
# Of the solver, far more than it needs.
MOST_STEPS: Final = 10_000
Measured = Sequence[tuple[Features, float]]


@dataclass(frozen=True, slots=True)
class Model:
    """Milliseconds to a unit of each feature.

    >>> model = Model.fit([({"bytes": 2.0, "launches": 1.0}, 5.0), ({"bytes": 4.0}, 8.0)])
    >>> round(model.predict({"bytes": 1.0, "launches": 2.0}), 6)
    4.0
    """

    coefficients: Mapping[str, float]

    @classmethod
    def fit(cls, measured: Measured) -> Self:
        """Return the model with the least squared relative error on (features, milliseconds)."""
        names = sorted({name for each, _ in measured for name in each})
        if not names:
            return cls({})
        table = np.array([[each.get(name, 0.0) for name in names] for each, _ in measured])
        times = np.array([milliseconds for _, milliseconds in measured])
        scale = table.max(axis=0, initial=0.0)
        scale[scale == 0] = 1.0
        found, _ = nnls(table / scale / times[:, None], np.ones(len(measured)), maxiter=MOST_STEPS)
        return cls(dict(zip(names, (found / scale).tolist(), strict=True)))

    def predict(self, features: Features) -> float | None:
        """Return milliseconds, or None for a feature that no block of the fit had."""
        if not features.keys() <= self.coefficients.keys():
            return None
        return sum(self.coefficients[name] * count for name, count in features.items())


@dataclass(frozen=True, slots=True)
class Errors:
    """How a predictor fares on `count` blocks that it was not fitted to.

    `rank_correlation` is Spearman's, None where it is not known: with few blocks, or one answer for
    all. `median_error` is relative to the measured time.
    """

    count: int
    rank_correlation: float | None
    median_error: float | None

    @classmethod
    def of(cls, predicted: Sequence[float | None], measured: Sequence[float]) -> Self:
        """Return the errors of predictions; what could not be predicted is left out."""
        both = [(a, b) for a, b in zip(predicted, measured, strict=True) if a is not None]
        if len(both) < LEAST_JUDGED:
            return cls(len(both), None, None)
        guesses, times = zip(*both, strict=True)
        ordered = len(set(guesses)) > 1 and len(set(times)) > 1
        found = float(spearmanr(guesses, times).statistic) if ordered else None
        relative = [abs(a - b) / b for a, b in both]
        return cls(len(both), found, float(np.median(relative)))

    @property
    def misses(self) -> tuple[str, ...]:
        """What falls short of the goals, in words."""
        found = []
        if self.rank_correlation is not None and self.rank_correlation < RANK_GOAL:
            found.append(f"rank correlation {self.rank_correlation:.2f}, goal {RANK_GOAL}")
        if self.median_error is not None and self.median_error > ERROR_GOAL:
            found.append(f"median error {self.median_error:.0%}, goal {ERROR_GOAL:.0%}")
        return tuple(found)


# What is compared with the model: one amount and a constant, fitted the same way.
ALONE: Final[Mapping[str, Callable[[Candidate], Features]]] = {
    "parameters alone": lambda each: {"parameters": each.sized.params, "constant": 1},
    "MACs alone": lambda each: {"MACs": each.macs, "constant": 1},
}


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model with its errors beside those of predictors from one amount alone, by name."""

    mode: str
    model: Model
    fitted_to: int
    errors: Mapping[str, Errors]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "unit": "ms",
            "coefficients": dict(self.model.coefficients),
            "fitted_to": self.fitted_to,
            "errors": {name: asdict(each) for name, each in self.errors.items()},
            "goals": {"rank_correlation": RANK_GOAL, "median_error": ERROR_GOAL},
        }


MODEL: Final = "model"
Times = Sequence[tuple[Candidate, float]]


def fitted(
    mode: str, fit: Times, sample: Times, features: Callable[[Candidate], Features]
) -> Fitted:
    """Return a model fitted to all (block, milliseconds), with errors on the sample.

    Each part of the sample is judged by a model fitted to all but that part. The predictors from
    one amount know of no side: they are fitted only to blocks that stand where the sample does.
    """
    places = {each.shapes for each, _ in sample}
    here = [(each, time) for each, time in fit if each.shapes in places]
    errors = {MODEL: _judged(fit, sample, features)}
    errors |= {name: _judged(here, sample, amount) for name, amount in ALONE.items()}
    every = [*fit, *sample]
    model = Model.fit([(features(each), time) for each, time in every])
    return Fitted(mode, model, len(every), errors)


def _judged(fit: Times, sample: Times, features: Callable[[Candidate], Features]) -> Errors:
    """Return the errors on a sample, each part of it held out of the fit in its turn."""
    known = [(features(each), time) for each, time in sample]
    guesses: list[float | None] = [None] * len(known)
    for part in range(PARTS):
        others = [pair for place, pair in enumerate(known) if place % PARTS != part]
        model = Model.fit([*((features(each), time) for each, time in fit), *others])
        for place in range(part, len(known), PARTS):
            guesses[place] = model.predict(known[place][0])
    return Errors.of(guesses, [time for _, time in known])
