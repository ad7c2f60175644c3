"""Measured rows grouped: what was measured of each candidate under one condition."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ifspace.block import SizedBlock
from ifspace.measurements import (
    AS_IS,
    BASELINE,
    CALIBRATION,
    CHANNELS_SEEN,
    COLLAPSED,
    LEAST,
    ONE_PASS,
    PIXELS_SEEN,
    TIME,
)
from ifspace.report.read import Row

PARAMS: Final = "params"
# The forms beside blocks as they are, in the order of their columns.
OTHER_FORMS: Final = (ONE_PASS, COLLAPSED)
# What a case says that goes without saying, or that its tensors say.
_USUAL: Final = re.compile(r"stride 1|plain style|side \d+|.* channels")


@dataclass(frozen=True, slots=True)
class Condition:
    """What candidates are compared under: case, shape of the tensors, data type, memory layout."""

    case: str
    shape: tuple[int | None, int | None, int | None, int | None, int | None]
    dtype: str
    layout: str
    mode: str

    @property
    def stride(self) -> int:
        """The stride, where the case says one.

        >>> Condition("8 to 8 channels, side 4, stride 2", (1, 8, 8, 4, 4), "", "", "").stride
        2
        """
        match = re.search(r"\bstride (\d+)", self.case)
        return int(match[1]) if match else 1

    @property
    def what(self) -> str:
        """The tensors, and what differs from the usual case."""
        extras = [part for part in self.case.split(", ")[1:] if not _USUAL.fullmatch(part)]
        return ", ".join([self.pixels, self.dtype, self.layout, *extras])

    @property
    def pixels(self) -> str:
        """The batch and the side or sides.

        >>> Condition("", (8, 64, 128, 56, 56), "fp32", "nchw", "forward").pixels
        '8 × 64→128 × 56²'
        """
        n, c, f, h, w = self.shape
        widths = f"{c}" if c == f else f"{c}→{f}"
        return f"{n} × {widths} × {f'{h}²' if h == w else f'{h}×{w}'}"


# candidate -> metric -> row, of one condition.
Rows = Mapping[str, Mapping[str, Row]]


def by_condition(
    rows: Iterable[Row], form: str = AS_IS
) -> dict[Condition, dict[str, dict[str, Row]]]:
    """Return the rows with a median by condition, candidate and metric, in their order.

    Those of blocks in one form. Rows without tensors, and those of the calibration of the latency
    model, are left out.
    """
    conditions: dict[Condition, dict[str, dict[str, Row]]] = {}
    for row in rows:
        aside = row["case"].startswith(CALIBRATION) or row["form"] != form
        if aside or row["N"] is None or row["median"] is None:
            continue
        shape = (row["N"], row["C"], row["F"], row["H"], row["W"])
        key = Condition(row["case"], shape, row["dtype"], row["layout"], row["mode"])
        conditions.setdefault(key, {}).setdefault(row["candidate"], {})[row["metric"]] = row
    return conditions


def in_other_forms(rows: Sequence[Row]) -> dict[Condition, dict[str, Rows]]:
    """Return the rows of blocks in other forms than as they are, by condition and form."""
    forms: dict[Condition, dict[str, Rows]] = {}
    for form in OTHER_FORMS:
        for condition, of_form in by_condition(rows, form).items():
            forms.setdefault(condition, {})[form] = of_form
    return forms


def median_of(rows: Rows, candidate: str, metric: str) -> float | None:
    """Return what was measured of a candidate, or None."""
    row = rows.get(candidate, {}).get(metric)
    return None if row is None else row["median"]


def baseline_name(rows: Rows, candidate: str) -> str | None:
    """Return the name of a candidate that is a baseline, or None."""
    for row in rows.get(candidate, {}).values():
        kind, _, name = row["provider"].partition(": ")
        if kind == BASELINE:
            return name or candidate
    return None


def shortfall(rows: Rows, candidate: str) -> str:
    """Return what a candidate does not see of the field of the convolution, "" if it sees all.

    Rows of older versions have no fields: nothing is said of them.
    """
    parts = []
    for metric, unit in ((PIXELS_SEEN, "pixels a side"), (CHANNELS_SEEN, "channels")):
        row = rows.get(candidate, {}).get(metric)
        if row and row["median"] and row["bound"] and row["median"] < row["bound"]:
            parts.append(f"{row['median']:.0f} of {row['bound']:.0f} {unit}")
    return f"sees {' and '.join(parts)}" if parts else ""


def candidate_name(sized: SizedBlock) -> str:
    """Return the name that a block is measured under.

    >>> from ifspace.block import Block
    >>> candidate_name(Block.parse("PW+DW+PW").at(64, bottleneck="1/4"))
    'PW+DW+PW, bottleneck 1/4'
    """
    inside = sized.bottleneck
    return str(sized.block) + ("" if inside is None else f", bottleneck {inside}")


def least_of(rows: Rows, candidate: str) -> float | None:
    """Return the minimum time of a candidate, or its median where only that was kept."""
    least_ms = median_of(rows, candidate, LEAST)
    return median_of(rows, candidate, TIME) if least_ms is None else least_ms


def timed(rows: Rows) -> Iterator[tuple[str, float]]:
    """Yield the candidates that were timed with their minimum milliseconds, fastest first."""
    times = [(name, least_of(rows, name)) for name in rows]
    yield from sorted(((n, t) for n, t in times if t is not None), key=lambda pair: pair[1])
