"""Print scores, and how they order trained networks."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from ifspace.cli.options import Forms
from ifspace.scores.layers import AT_FREE_PERMUTATION
from ifspace.scores.measures import COUNTS, OF_FIELDS, SCORES, TITLES, score
from ifspace.scores.reliability import (
    SITUATIONS,
    ScoredNetwork,
    reliability,
    sets,
    situations,
    values_of,
)
from ifspace.scores.validation import (
    ALL,
    DEFINITIONS,
    GROUP_SWEEPS,
    IN_BINS,
    INTERVAL,
    LEAST_BINNED,
    LEAST_OF_INTERVAL,
    LEAST_RESAMPLES,
    SAME_STRIDES,
    STATISTICS,
    UNDER_BUDGETS,
)
from ifspace.scores.validation import values_of as row_values
from ifspace.serialize import json_text
from ifspace.table import Table
from ifspace.values import counted, listed

if TYPE_CHECKING:
    from ifspace.scores.layers import Size
    from ifspace.scores.validation import Estimate, Validation, ValidationRow

_NO_PROMISE: Final = (
    "None of them is the quality of a network: compare a number only between networks of one data "
    "set, and see what parameters and MACs tell already."
)


def score_forms(network: ScoredNetwork, beside: ScoredNetwork | None, alpha: float) -> Forms:
    """Return the scores and counts of a network, and of one beside it, in every format."""
    networks = (network,) if beside is None else (network, beside)
    columns = ("measure", *(x.name if beside else "value" for x in networks), "unit")
    rows = tuple(
        (name, *(x.result.values[name] for x in networks), _title(name, network.result.is_traced))
        for name in network.result.values
    )
    table = Table(columns, rows, " beside ".join(x.title for x in networks))
    return {
        "table": lambda: "\n".join(part.text() for part in _score_tables(networks, alpha)),
        "json": lambda: json_text(_score_values(network, beside, alpha)),
        "csv": table.csv,
        "markdown": lambda: "\n".join(part.markdown() for part in _score_tables(networks, alpha)),
    }


def _score_values(
    network: ScoredNetwork, beside: ScoredNetwork | None, alpha: float
) -> dict[str, Any]:
    values = _network_values(network, alpha) | {"alpha": alpha}
    if beside is not None:
        values["beside"] = _network_values(beside, alpha)
        values["situations"] = situations(network, beside)
    return values | {"reliability": {name: values_of(name) for name in (*SCORES, *COUNTS)}}


def _network_values(network: ScoredNetwork, alpha: float) -> dict[str, Any]:
    result = network.result
    # Trained networks were compared as lists of layers.
    as_list = score(network.layers, alpha).scores
    return {
        "model": network.name,
        "scores": result.scores,
        "counts": result.counts,
        "stages": result.stages,
        "joints": result.joints,
        "is_traced": result.is_traced,
        "counts_of": "network" if result.is_traced else "convolutions",
        "as_list": {name: as_list[name] for name in OF_FIELDS},
    }


def _score_tables(networks: Sequence[ScoredNetwork], alpha: float) -> list[Table]:
    return [
        _measure_table(networks),
        *(_stage_table(alpha, x, len(networks) > 1) for x in networks),
    ]


def _measure_table(networks: Sequence[ScoredNetwork]) -> Table:
    shown = tuple(SITUATIONS) if len(networks) == 1 else situations(*networks)
    rows = tuple(
        (
            _measure_text(name, networks[0].result.is_traced),
            *(_number_text(x.result.values[name]) for x in networks),
            *(_range_text(name, where) for where in shown),
        )
        for name in networks[0].result.values
    )
    notes = (
        f"{_WHERE if len(networks) == 1 else _AS_THESE}: how it ordered trained networks on "
        + listed([f"{name} ({count:,})" for name, count in sets().items()])
        + ", as least, median and greatest over these sets. "
        + "; ".join(f"{where}: {_MEANING[where]}" for where in shown)
        + ".",
        _NO_PROMISE,
    )
    heads = ("value",) if len(networks) == 1 else tuple(x.name for x in networks)
    columns = ("measure", *(f">{head}" for head in heads), *(f">{where}" for where in shown))
    return Table(columns, rows, " beside ".join(x.title for x in networks), notes)


_WHERE: Final = "Beside each"
_AS_THESE: Final = "Beside each, where networks are compared as these two"
_MEANING: Final[Mapping[str, str]] = {
    ALL: "Spearman's ρ over a set, whatever the strides",
    SAME_STRIDES: "Spearman's ρ where feature maps have the same sizes",
    IN_BINS: "Spearman's ρ within bins of parameters",
    GROUP_SWEEPS: "Spearman's ρ where nothing but groups differs",
    UNDER_BUDGETS: "the mean percentile of the pick, about 50 at random",
}


# What some of the counts are numbers of.
_UNITS: Final = {"activations": "elements", "peak-memory": "elements"}


def _measure_text(name: str, is_traced: bool) -> str:
    """Return the name of a measure with what tells it from others of this name."""
    if name in OF_FIELDS:
        return f"{name} of {_summands(is_traced)}"
    return f"{name}, {_UNITS[name]}" if name in _UNITS else name


def _title(name: str, is_traced: bool) -> str:
    return TITLES[name] + (f", of {_summands(is_traced)}" if name in OF_FIELDS else "")


def _summands(is_traced: bool) -> str:
    """Return what the gains are sums over: a list has no residual blocks."""
    return "units" if is_traced else "layers"


def _number_text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _range_text(name: str, where: str) -> str:
    numbers = reliability(name, where)
    if numbers is None:
        return ""
    parts = (numbers.low, numbers.middle, numbers.high)
    if SITUATIONS[where] == "pick_percentile":
        return " ".join(f"{part:.0f}" for part in parts)
    return " ".join(correlation_text(part) for part in parts)


def correlation_text(number: float) -> str:
    """Return a correlation with two digits and no leading zero.

    >>> correlation_text(0.446), correlation_text(-0.05), correlation_text(1.0)
    ('.45', '-.05', '1.00')
    >>> correlation_text(-0.001)
    '.00'
    """
    text = f"{round(number, 2) + 0.0:.2f}"  # a negative zero becomes 0
    return text.replace("0.", ".", 1) if abs(number) < 0.995 else text


def _stage_table(alpha: float, network: ScoredNetwork, with_title: bool) -> Table:
    result = network.result
    rows = tuple(
        (
            number,
            size_text(stage.size),
            stage.channels,
            stage.layers,
            stage.field,
            f"{stage.gain:.3f}",
            f"{stage.log_gain:.3f}",
        )
        for number, stage in enumerate(result.stages, start=1)
    )
    if result.is_traced:
        scores = score(network.layers, alpha).scores
        numbers = listed(
            [f"{_measure_text(x, False)} {_number_text(scores[x])}" for x in OF_FIELDS]
        )
        notes = [
            "Stages, fields and gains are those of `ifspace analyze`, the gains those of units "
            f"over what they read; α = {alpha:g}. As a list of layers, which is how the trained "
            f"networks were compared, it has {numbers}.",
            "Parameters, MACs and peak memory are those of the whole network; a list has "
            f"{network.layers.params:,} parameters and {network.layers.macs:,} MACs, of its "
            "convolutions alone.",
        ]
    else:
        notes = [
            "A stage is a run of layers that read feature maps of one size: the field starts anew "
            f"at each, and its first layer has no gain; α = {alpha:g}. Gains of a "
            "MODEL are of its units, such as residual blocks: other numbers.",
            "Counts are of these convolutions alone; those of a MODEL have batch norm, biases, "
            "linear layers and pooling too.",
        ]
        if network.layers.is_grouped:
            notes.append(f"Of the field, {AT_FREE_PERMUTATION}; `ifspace score MODEL` knows.")
    if result.joints:
        notes.append(
            f"{counted(result.joints, 'layer')} {'does' if result.joints == 1 else 'do'} not read "
            "what the layer before writes: branches or concatenations, which count as one chain"
            + (" in energy, entropy, depth and width-sum." if result.is_traced else ".")
        )
    columns = (">stage", "reads", ">channels", ">layers", ">field", ">gain", ">log-gain")
    return Table(columns, rows, network.title if with_title else "", tuple(notes))


def size_text(size: "Size") -> str:
    """Return (height, width) as text.

    >>> size_text((7, 7))
    '7×7'
    """
    return f"{size[0]}×{size[1]}"


# Validation


def validation_forms(result: "Validation") -> Forms:
    """Return a validation in every format."""
    rows = [row_values(row) for row in result.rows]
    table = Table(tuple(rows[0]), tuple(tuple(row.values()) for row in rows))
    return {
        "table": lambda: "\n".join(part.text() for part in _validation_tables(result)),
        "json": lambda: json_text(_validation_values(result, rows)),
        "csv": table.csv,
        "markdown": lambda: "\n".join(
            part.markdown("github") for part in _validation_tables(result)
        ),
    }


def _validation_values(result: "Validation", rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "version": result.version,
        "definitions": DEFINITIONS,
        "alpha": result.alpha,
        "resamples": result.resamples,
        "seed": result.seed,
        "interval": INTERVAL,
        "random_picks": {name: round(value, 4) for name, value in result.random_picks.items()},
        "rows": rows,
    }


def _validation_tables(result: "Validation") -> list[Table]:
    by_set: dict[str, dict[str, list[ValidationRow]]] = {}
    for row in result.rows:
        by_set.setdefault(row.set, {}).setdefault(row.where, []).append(row)
    tables = []
    for name, places in by_set.items():
        for where, rows in places.items():
            shown = [key for key in STATISTICS if key in rows[0].statistics]
            ranked = sorted(rows, key=lambda row: -_or_least(row.statistics))
            is_pick, at_random = where == UNDER_BUDGETS, result.random_picks[name]
            against = f", less that of {rows[0].against}" if rows[0].against else ""
            tables.append(
                Table(
                    ("measure", *(f">{_HEADS[key]}" for key in shown)),
                    tuple(
                        (row.score, *(_estimate_text(key, row.statistics[key]) for key in shown))
                        for row in ranked
                    ),
                    f"{name}, {where}: {counted(rows[0].networks, 'network')}{against}"
                    + (f"; a random pick has {at_random:.1f}" if is_pick and not against else ""),
                )
            )
    last = tables[-1]
    notes = (
        f"Definitions, version {result.version}; {counted(result.resamples, 'resample')}, "
        f"seed {result.seed}, α = {result.alpha:g}.",
        *(f"{name}: {text}." for name, text in DEFINITIONS.items()),
        *_notes_on_few({name: places[ALL][0].networks for name, places in by_set.items()}),
        *_notes_on_intervals(result),
    )
    tables[-1] = Table(last.columns, last.rows, last.title, notes)
    return tables


def _notes_on_few(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what is left out, or says little, of sets by how many networks they have."""
    few = [f"{name} ({count})" for name, count in counts.items() if count < LEAST_BINNED]
    if few:
        yield (
            f"Left out below {LEAST_BINNED} networks: {IN_BINS}, with depth and without, of "
            f"{listed(few)}."
        )
    few = [f"{name} ({count})" for name, count in counts.items() if count < LEAST_OF_INTERVAL]
    if few:
        yield (
            f"Warning: intervals of under {LEAST_OF_INTERVAL} networks are no more than a hint: "
            f"{listed(few)}."
        )


def _notes_on_intervals(result: "Validation") -> Iterator[str]:
    """Yield what the intervals do not say."""
    if result.resamples < LEAST_RESAMPLES:
        yield (
            f"Warning: {counted(result.resamples, 'resample')}: the ends of intervals are chance; "
            f"from {LEAST_RESAMPLES} on two or more lie beyond each."
        )
    estimates = [x for row in result.rows for x in row.statistics.values() if not isnan(x.value)]
    beside = sum(not x.low <= x.value <= x.high for x in estimates)
    if beside:
        yield (
            f"{beside} of {counted(len(estimates), 'interval')} {'does' if beside == 1 else 'do'} "
            "not hold the value beside it: networks that are drawn twice tie with themselves."
        )


_HEADS: Final = {
    "spearman": "Spearman",
    "kendall": "Kendall",
    "pairs": "pairs in order",
    "pick_percentile": "percentile of the pick",
}


def _or_least(statistics: Mapping[str, "Estimate"]) -> float:
    value = next(iter(statistics.values())).value
    return float("-inf") if isnan(value) else value


def _estimate_text(name: str, estimate: "Estimate") -> str:
    if isnan(estimate.value):
        return "no pairs"
    numbers = (estimate.value, estimate.low, estimate.high)
    if name == "pick_percentile":
        value, low, high = (f"{number:.1f}" for number in numbers)
    else:
        value, low, high = map(correlation_text, numbers)
    return f"{value} ({low} to {high})"
