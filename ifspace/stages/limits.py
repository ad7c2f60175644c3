"""Limits of single stages: the depths, widths, expansions and strides that one stage may have."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Final, Self

from ifspace.errors import ARGUMENT, SettingError
from ifspace.stages.layout import MAX_DEPTH, MAX_STAGE_WIDTH
from ifspace.stages.problem import BlockChoice
from ifspace.values import MAX_SIDE

NAMES: Final = ("depth", "width", "expansion", "stride")
_LIMIT: Final = re.compile(r"([a-z]+)(<=|>=|=)([0-9]{1,6}(?:/[1-9][0-9]{0,2}|\.[0-9]{1,6})?)")


@dataclass(frozen=True, slots=True)
class StageLimits:
    """The least and the most blocks, channels, expansion and stride of one stage, from 1.

    >>> StageLimits.parse("3: depth<=6, width>=64").limited
    {'depth': (1, 6), 'width': (64, 8192)}

    Raises: SettingError for limits that contradict each other.
    """

    stage: int
    least_depth: int = 1
    most_depth: int = MAX_DEPTH
    least_width: int = 1
    most_width: int = MAX_STAGE_WIDTH
    least_expansion: Fraction = Fraction(0)
    most_expansion: Fraction = Fraction(MAX_STAGE_WIDTH)
    least_stride: int = 1
    most_stride: int = MAX_SIDE

    def __post_init__(self) -> None:
        for name in NAMES:
            least, most = self.range_of(name)
            if least > most:
                raise SettingError.because(
                    f"limits of stage {self.stage} that contradict each other",
                    got=f"{name} from {least} to {most}",
                    allowed="a least that is no more than the most",
                    remedy="leave one of them out",
                    argument="stage",
                )

    def range_of(self, name: str) -> tuple[Any, Any]:
        """Return the least and the most of a name of `NAMES`."""
        return getattr(self, f"least_{name}"), getattr(self, f"most_{name}")

    @property
    def limited(self) -> dict[str, tuple[Any, Any]]:
        """The least and the most of what is limited at all."""
        free = StageLimits(self.stage)
        ranges = {name: self.range_of(name) for name in NAMES}
        return {name: ends for name, ends in ranges.items() if ends != free.range_of(name)}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse limits.

        Raises: SettingError for a part that cannot be read, and as the class.
        """
        number, colon, limits = "".join(text.split()).partition(":")
        if not (number.isascii() and number.isdigit() and int(number) and colon):
            raise _unreadable(text)
        bounds: dict[str, Any] = {}
        for limit in limits.split(","):
            match = _LIMIT.fullmatch(limit)
            if match is None or match[1] not in NAMES:
                raise _unreadable(limit)
            name, sign, exact = match[1], match[2], Fraction(match[3])
            if name != "expansion" and exact.denominator != 1:
                raise _unreadable(limit)
            value = exact if name == "expansion" else int(exact)
            if "<" not in sign:
                key = f"least_{name}"
                bounds[key] = max(value, bounds.get(key, value))
            if ">" not in sign:
                key = f"most_{name}"
                bounds[key] = min(value, bounds.get(key, value))
        return cls(int(number), **bounds)

    @property
    def fixes_width(self) -> bool:
        """Whether one width alone is within the limits."""
        return self.least_width == self.most_width


def merged(limits: Iterable[StageLimits]) -> tuple[StageLimits, ...]:
    """Return one value for each stage that has limits: all of its limits at once.

    >>> merged([StageLimits(2, least_depth=3), StageLimits(1), StageLimits(2, most_depth=5)])[0]
    ... # doctest: +ELLIPSIS
    StageLimits(stage=2, least_depth=3, most_depth=5, least_width=1, most_width=8192, ...)

    Raises: SettingError for limits that contradict each other.
    """
    by_stage: dict[int, StageLimits] = {}
    names = [field.name for field in fields(StageLimits)][1:]
    for limit in limits:
        pair = by_stage.get(limit.stage, limit), limit
        bounds = {
            name: (max if name.startswith("least") else min)(getattr(x, name) for x in pair)
            for name in names
        }
        by_stage[limit.stage] = StageLimits(limit.stage, **bounds)
    return tuple(by_stage.values())


def limited_blocks(
    limits: Iterable[StageLimits], choices: Sequence[tuple[BlockChoice, ...]]
) -> tuple[tuple[BlockChoice, ...], ...]:
    """Return the blocks of each stage that the limits of its expansion leave.

    Raises: SettingError for limits that leave none, or of a stage that is not there.
    """
    left = list(choices)
    for limit in limits:
        index = _index(limit, len(left))
        if "expansion" not in limit.limited:
            continue
        least, most = limit.range_of("expansion")
        expansions = sorted({c.expansion for c in left[index] if c.expansion is not None})
        left[index] = tuple(
            c for c in left[index] if c.expansion is not None and least <= c.expansion <= most
        )
        if not left[index]:
            raise _none_left(limit, "expansion", expansions, "--expansions")
    return tuple(left)


def limited_strides(
    limits: Iterable[StageLimits],
    choices: Sequence[tuple[int, ...]] | None,
    start: Sequence[int],
) -> tuple[tuple[int, ...], ...] | None:
    """Return the strides of each stage that its limits leave, None where none are chosen.

    `start`: those that the stages have where none are chosen.

    Raises: SettingError for limits that leave none, or of a stage that is not there.
    """
    left: list[tuple[int, ...]] = [(stride,) for stride in start]
    if choices is not None:
        left = list(choices)
    for limit in limits:
        index = _index(limit, len(left))
        if "stride" not in limit.limited:
            continue
        least, most = limit.range_of("stride")
        strides = left[index]
        left[index] = tuple(stride for stride in strides if least <= stride <= most)
        if not left[index]:
            raise _none_left(limit, "stride", strides, "--strides free")
    return None if choices is None else tuple(left)


def limited_widths(
    limits: Iterable[StageLimits], choices: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], ...]:
    """Return the widths of each stage that its limits leave.

    One that a limit fixes is added, unless the stage has one width only.

    >>> limited_widths([StageLimits(2, least_width=20)], [(8, 16), (16, 24, 32)])
    ((8, 16), (24, 32))

    Raises: SettingError for limits that leave none, or of a stage that is not there.
    """
    left = list(choices)
    for limit in limits:
        index = _index(limit, len(left))
        adds = limit.fixes_width and len(left[index]) > 1
        offered = (limit.least_width,) if adds else left[index]
        left[index] = tuple(w for w in offered if limit.least_width <= w <= limit.most_width)
        if not left[index]:
            raise _none_left(limit, "width", offered, "--width-choices")
    return tuple(left)


def limited_depths(
    limits: Iterable[StageLimits], least: Sequence[int], most: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the least and the most depth of each stage within limits, which come first.

    >>> limited_depths([StageLimits(2, 3, 9)], (1, 1), (4, 4))
    ((1, 3), (4, 9))

    Raises: SettingError for limits that a stage cannot keep, or of a stage that is not there.
    """
    lowest, highest = list(least), list(most)
    for limit in limits:
        index = _index(limit, len(lowest))
        if limit.most_depth < lowest[index]:
            raise SettingError.because(
                f"limits that leave stage {limit.stage} no depth",
                got=f"at most {limit.most_depth}",
                allowed=f"{lowest[index]} or more",
                remedy="raise it",
                argument="stage",
            )
        lowest[index] = max(lowest[index], limit.least_depth)
        if limit.most_depth < MAX_DEPTH:
            highest[index] = limit.most_depth
        highest[index] = max(highest[index], lowest[index])
    return tuple(lowest), tuple(highest)


def _none_left(
    limit: StageLimits, name: str, offered: Sequence[object], option: str
) -> SettingError:
    least, most = limit.range_of(name)
    return SettingError.because(
        f"limits that leave stage {limit.stage} no {name}",
        got=f"{name} from {least} to {most}",
        allowed=f"some of {', '.join(map(str, offered)) or 'none: no block has one'}",
        remedy=f"offer others with {option}",
        argument="stage",
    )


def _unreadable(text: str) -> SettingError:
    return SettingError.because(
        f"{ARGUMENT} cannot be read",
        got=repr(text),
        allowed="N:LIMITS such as 3:depth<=6,width>=64, with <=, >= or =",
        remedy="name a stage, and its depth, width, expansion or stride",
        argument="stage",
    )


def _index(limit: StageLimits, count: int) -> int:
    if limit.stage > count:
        raise SettingError.because(
            "limits of a stage that is not there",
            got=limit.stage,
            allowed=f"1 to {count}",
            remedy="count the stages from 1",
            argument="stage",
        )
    return limit.stage - 1
