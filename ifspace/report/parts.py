"""What a report is made of: its parts by name, and the files that each of them needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ifspace.errors import SettingError
from ifspace.report.files import (
    BLOCKS,
    CATALOGUE,
    ENERGY,
    GROUPS,
    KERNELS,
    RANKS,
    STAGES,
    TRAJECTORIES,
    VERDICTS,
    Source,
)
from ifspace.report.folder import Results


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the report: its name, what it is about, the files that it shows."""

    name: str
    title: str
    sources: tuple[Source, ...]


PARTS: Final = (
    Part("funnel", "What the rules leave", (CATALOGUE,)),
    Part("designs", "The best blocks by length", (CATALOGUE,)),
    Part("groups", "The cheapest group counts by width", (GROUPS,)),
    Part("layouts", "Layouts of stages", (STAGES, TRAJECTORIES)),
    Part("energy", "Layouts of greatest energy", (ENERGY, RANKS)),
    Part("blocks", "How fast the blocks are", (BLOCKS,)),
    Part("kernels", "How fast the rolling pointwise convolution is", (KERNELS,)),
    Part("reproduction", "What the papers print, and what comes out", (VERDICTS,)),
)


def chosen(names: Sequence[str] | None) -> tuple[Part, ...]:
    """Return the parts of these names in their order; all of them for None.

    Raises: SettingError for a name that no part has.
    """
    known = {part.name: part for part in PARTS}
    for name in names or ():
        if name not in known:
            raise SettingError.because(
                "no such part of a report",
                got=repr(name),
                allowed=", ".join(known),
                remedy="choose some of them",
                argument="only",
            )
    return PARTS if names is None else tuple(part for part in PARTS if part.name in names)


def left_out(results: Results, parts: Sequence[Part]) -> tuple[str, ...]:
    """Return a sentence for each file that a part would show and that is not there."""
    absent: dict[str, tuple[Source, list[str]]] = {}
    for part in parts:
        for source in part.sources:
            if not results.has(source):
                absent.setdefault(source.name, (source, []))[1].append(part.name)
    return tuple(
        f"{' and '.join(names)}: there is no {name}; "
        f"`{source.written_by(results.folder)}` writes it"
        for name, (source, names) in absent.items()
    )
