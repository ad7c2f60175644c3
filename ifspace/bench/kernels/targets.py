"""What was to be reached, judged by the measured rows alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ifspace.bench.kernels.candidates import BASELINE, OURS
from ifspace.bench.kernels.cases import FUSED, RPW
from ifspace.bench.kernels.rows import RATIO
from ifspace.bench.tidy import BOTH_WAYS, FORWARD, OF_BOUND, Row

# candidate -> metric -> median, of one case.
Numbers = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Key:
    """A case as rows name it."""

    case: str
    batch: int
    width: int
    side: int
    layout: str
    dtype: str
    mode: str

    def __str__(self) -> str:
        return f"{self.case} {self.batch}x{self.width}x{self.side} {self.layout}"


def by_case(rows: Iterable[Row]) -> dict[Key, Numbers]:
    """Return the medians of every case; what was not run has none."""
    found: dict[Key, Numbers] = {}
    for row in rows:
        if row["N"] == "":
            continue
        key = Key(
            row["case"],
            int(row["N"]),
            int(row["C"]),
            int(row["H"]),
            row["layout"],
            row["dtype"],
            row["mode"],
        )
        numbers = found.setdefault(key, {}).setdefault(row["candidate"], {})
        if row["median"] != "":
            numbers[row["metric"]] = float(row["median"])
    return found


@dataclass(frozen=True, slots=True)
class Target:
    """A number that a case must not exceed or, `at_least`, not fall short of.

    `value` and `limit` read it from a case; None where that was not measured.
    """

    text: str
    where: Callable[[Key], bool]
    value: Callable[[Numbers], float | None]
    limit: Callable[[Numbers], float | None]
    at_least: bool = False
    strict: bool = False

    def excess(self, numbers: Numbers) -> tuple[float, float, float] | None:
        """Return value, limit, and how much is missing as a share of the limit (<= 0: nothing)."""
        value, limit = self.value(numbers), self.limit(numbers)
        if value is None or limit is None:
            return None
        missing = (limit - value if self.at_least else value - limit) / limit
        return value, limit, missing

    def met(self, missing: float) -> bool:
        """Return whether a case with so much missing meets the target."""
        return missing < 0 if self.strict else missing <= 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a target fared: its cases, those not measured, and of those missed by how much.

    `worst`: value, limit and case that came nearest to missing it or missed it most.
    """

    text: str
    cases: int
    unmeasured: tuple[str, ...]
    missed: tuple[str, ...]
    worst: tuple[float, float, str] | None

    @property
    def word(self) -> str:
        """met, missed, or what is not known."""
        if self.missed:
            return "missed"
        if self.worst is None:
            return "not measured"
        return "met where measured" if self.unmeasured else "met"


def judged(rows: Iterable[Row], targets: Sequence[Target]) -> list[Verdict]:
    """Return the verdict on each target."""
    cases = by_case(rows)
    return [_verdict(target, cases) for target in targets]


def _verdict(target: Target, cases: Mapping[Key, Numbers]) -> Verdict:
    unmeasured, missed, worst = [], [], None
    concerned = {key: numbers for key, numbers in cases.items() if target.where(key)}
    for key, numbers in concerned.items():
        found = target.excess(numbers)
        if found is None:
            unmeasured.append(str(key))
            continue
        value, limit, missing = found
        if not target.met(missing):
            missed.append(f"{key}: {value:.3g} for {limit:.3g}, {missing:.0%} off")
        if worst is None or missing > worst[0]:
            worst = missing, (value, limit, str(key))
    return Verdict(
        target.text, len(concerned), tuple(unmeasured), tuple(missed), worst and worst[1]
    )


def _of(candidate: str, metric: str) -> Callable[[Numbers], float | None]:
    return lambda numbers: numbers.get(candidate, {}).get(metric)


def _times(slower: str) -> Callable[[Numbers], float | None]:
    """Return how many times faster ours is."""

    def speedup(numbers: Numbers) -> float | None:
        theirs, ours = _of(slower, RATIO)(numbers), _of(OURS, RATIO)(numbers)
        return None if theirs is None or ours is None else theirs / ours

    return speedup


def _beside_grouped(numbers: Numbers) -> float | None:
    grouped = _of("grouped", RATIO)(numbers)
    return None if grouped is None else max(0.60, 1.15 * grouped)


def _constant(value: float) -> Callable[[Numbers], float | None]:
    return lambda numbers: value


def _where(kind: str, **wanted: Any) -> Callable[[Key], bool]:
    """Return whether a key is of a kind and has these fields; a tuple lists several values."""

    def holds(key: Key) -> bool:
        return key.case.startswith(f"{kind}(") and all(
            getattr(key, name) in (value if isinstance(value, tuple) else (value,))
            for name, value in wanted.items()
        )

    return holds


_RATIO = _of(OURS, RATIO)
_SHARE = _of(OURS, OF_BOUND)
_DENSE = BASELINE[RPW]
_CPU: dict[str, Any] = {"kind": RPW, "dtype": "fp32"}
_CUDA: dict[str, Any] = {"dtype": "bf16", "layout": "channels_last", "batch": 128}
_MANY = "RPW(4,0.33)"

ON_CPU: Final = (
    Target(
        "forward at C = 512, channels_last: at most max(0.60, 1.15 x grouped) of dense",
        _where(**_CPU, mode=FORWARD, width=512, layout="channels_last"),
        _RATIO,
        _beside_grouped,
    ),
    Target(
        "forward at C = 256, channels_last: at most 0.75 of dense",
        _where(**_CPU, mode=FORWARD, width=256, layout="channels_last"),
        _RATIO,
        _constant(0.75),
    ),
    Target(
        "forward, either layout: at most 1.05 of dense",
        _where(**_CPU, mode=FORWARD),
        _RATIO,
        _constant(1.05),
    ),
    Target(
        "forward + backward, either layout: at most 1.05 of dense",
        _where(**_CPU, mode=BOTH_WAYS),
        _RATIO,
        _constant(1.05),
    ),
    Target(
        "forward at (4, 0.33), channels_last: at least 30 times the published composition",
        _where(**_CPU, mode=FORWARD, case=_MANY, layout="channels_last"),
        _times("published"),
        _constant(30),
        at_least=True,
    ),
)
ON_CUDA: Final = (
    Target(
        "forward at 56 x 56 and 28 x 28: at least 75% of the bound",
        _where(RPW, **_CUDA, mode=FORWARD, side=(56, 28)),
        _SHARE,
        _constant(0.75),
        at_least=True,
    ),
    Target(
        f"forward: faster than {_DENSE}",
        _where(RPW, **_CUDA, mode=FORWARD),
        _RATIO,
        _constant(1),
        strict=True,
    ),
    Target(
        f"forward + backward: no slower than {_DENSE}",
        _where(RPW, **_CUDA, mode=BOTH_WAYS),
        _RATIO,
        _constant(1),
    ),
    Target(
        "forward at (4, 0.33): at least 10 times the published composition",
        _where(RPW, **_CUDA, mode=FORWARD, case=_MANY),
        _times("published"),
        _constant(10),
        at_least=True,
    ),
    Target(
        "forward at (4, 0.33): at least 10 times the direct kernel",
        _where(RPW, **_CUDA, mode=FORWARD, case=_MANY),
        _times("direct"),
        _constant(10),
        at_least=True,
    ),
    Target(
        "fused DW + RPW: at least 1.8 times DW followed by dense",
        _where(FUSED, **_CUDA),
        _times(BASELINE[FUSED]),
        _constant(1.8),
        at_least=True,
    ),
    Target(
        "fused DW + RPW: at least 60% of its bound",
        _where(FUSED, **_CUDA),
        _SHARE,
        _constant(0.60),
        at_least=True,
    ),
)
