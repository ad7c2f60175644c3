"""Published trained networks by the composition of their blocks.

`evidence.csv` beside this module, and its copy in `docs/`, is written by `python -m
experiments.evidence` from tables of accuracies that others published: small facts, each with its
source and licence.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any, Final

from ifspace.block import Block, SizedBlock
from ifspace.canonical import same_network
from ifspace.errors import BlockError
from ifspace.kinds import KINDS, ROLLING, shuffle_kind
from ifspace.table import Table

FILE: Final = "evidence.csv"
TITLE: Final = "Published networks of such blocks"
_SAME: Final = "same: one network with this block, at its widths"
_INSIDE: Final = "inside: the published width inside the block, of what it writes"
_SHOWN: Final = "What they show: docs/evidence.md."
# Sources whose name says little, by how it begins.
_SOURCES: Final = {
    "deficient-efficient": "deficient-efficient: the code (github BayesWatch/deficient-efficient) "
    "of Gray, Crowley and Storkey, Separable Layers Enable Structured Efficient Linear "
    "Substitutions, whose wide ResNets (WRN) have such blocks for 3x3 convolutions.",
}
# What ifspace claims, and no more: README.md, docs/evidence.md and the page say it in these words.
CLAIMS: Final = (
    "At equal parameters and MACs, the larger field was the more accurate in all six published "
    "pairs.",
    "That is no promise: with full fields and about 300k parameters, networks still differ by 2.4 "
    "points, and no score here orders them better than MACs on every set.",
)


@dataclass(frozen=True, slots=True)
class TrainedBlock:
    """A trained network of one composition of blocks.

    `block`: with its groups, None where they differ between layers or are not known; `groups` and
    `width` as published. `macs`: of one image, None where they are not known. `error`: top-1 in
    percent. `change`: of the error, in points, against the same network with `against`; None
    without such a network.
    """

    source: str
    licence: str
    where: str
    dataset: str
    network: str
    composition: str
    block: str | None
    bottleneck: str | None
    groups: str
    width: str
    params: int
    macs: int | None
    error: float
    change: float | None
    against: str

    @property
    def change_text(self) -> str:
        """The change with its sign, and against what; empty if it is not known."""
        return "" if self.change is None else f"{self.change:+.2f} against {self.against}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A trained network beside a block.

    `same_network`: whether its blocks would be the same network, up to the order of channels, with
    the widths of this block; otherwise they have the same composition with other groups, or with
    groups that are not known.
    """

    trained: TrainedBlock
    same_network: bool

    @property
    def plain(self) -> dict[str, Any]:
        """Its values by name."""
        row = self.trained
        names = [field.name for field in fields(TrainedBlock)]
        return {"same_network": self.same_network} | {name: getattr(row, name) for name in names}


@cache
def trained_blocks() -> tuple[TrainedBlock, ...]:
    """Return all rows of the table."""
    text = files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return tuple(map(_trained, csv.DictReader(text.splitlines())))


def _trained(row: Mapping[str, str]) -> TrainedBlock:
    return TrainedBlock(
        **{
            **row,
            "block": row["block"] or None,
            "bottleneck": row["bottleneck"] or None,
            "params": int(row["params"]),
            "macs": int(row["macs"]) if row["macs"] else None,
            "error": float(row["error"]),
            "change": float(row["change"]) if row["change"] else None,
        }  # type: ignore[arg-type]
    )


def evidence(sized: SizedBlock) -> list[Evidence]:
    """Return the trained networks whose blocks are those of a composition, any groups.

    First those that are the same network at these widths, then by composition, each in the order
    of the table. RPW(g,0) counts as GPW(g)+SH(g). A block of several copies is one of them.

    >>> rows = evidence(Block.parse("RPW(4,0)+DW+GPW(4)").at(64))
    >>> rows[0].same_network, rows[0].trained.block
    (True, 'GPW(4)+SH(4)+DW+GPW(4)')
    """
    own = written_composition(sized.block)
    one_copy = Block(sized.block.layers).at(
        sized.channels, sized.out_channels, sized.bottleneck, sized.dims
    )
    blocks = dict.fromkeys(row.block for row in trained_blocks() if row.block is not None)
    same = {text for text in blocks if _is_same(one_copy, text)}
    rows = [
        Evidence(row, row.block in same)
        for row in trained_blocks()
        if row.block in same or row.composition == own
    ]
    return sorted(rows, key=lambda entry: not entry.same_network)


def evidence_table(rows: Sequence[tuple[int | None, Evidence]], limit: int) -> Table:
    """Return a table of trained networks, each with the number of its block, if there are several.

    `limit`: of each block so many are shown.
    """
    numbered = any(number is not None for number, _ in rows)
    of_block: dict[int | None, int] = {}
    cells: list[tuple[object, ...]] = []
    for number, entry in rows:
        of_block[number] = of_block.get(number, 0) + 1
        if of_block[number] > limit:
            continue
        row = entry.trained
        values = (
            row.block or f"{row.composition} ({row.groups or 'no'} groups)",
            row.bottleneck,
            "yes" if entry.same_network else "",
            row.dataset,
            row.network,
            row.width,
            row.params,
            f"{row.error:.2f}",
            row.change_text,
            row.source,
        )
        cells.append((number, *values) if numbered else values)
    more = sum(max(count - limit, 0) for count in of_block.values())
    columns: tuple[str, ...] = ((">#",) if numbered else ()) + (
        *("block", "inside", "same", "data", "network~", "width", ">params", ">error %"),
        *("change~", "source"),
    )
    place = columns.index("inside")
    is_inside = any(row[place] for row in cells)
    if not is_inside:
        columns = columns[:place] + columns[place + 1 :]
        cells = [row[:place] + row[place + 1 :] for row in cells]
    sources = {str(row[-1]) for row in cells}
    notes = [
        f"{'; '.join([_SAME, _INSIDE] if is_inside else [_SAME])}. {_SHOWN}",
        *(note for name, note in _SOURCES.items() if any(x.startswith(name) for x in sources)),
        *([f"{more} more in JSON."] if more else []),
    ]
    return Table(columns, tuple(cells), TITLE, tuple(notes))


def written_composition(block: Block) -> str:
    """Return the kinds of one copy of a block, those of RPW without overlap as GPW and SH.

    >>> written_composition(Block.parse("(DW+RPW(4,0)+GPW(4))x2"))
    'DW+GPW+SH+GPW'
    """
    plain = next(
        symbol
        for symbol, row in KINDS.items()
        if row.takes_groups and row.mixing and not row.spatial and not row.takes_overlap
    )
    kinds: list[str] = []
    for layer in block.layers:
        if not layer.conv.takes_overlap or layer.overlap:
            kinds.append(layer.kind)
            continue
        kinds += [plain, shuffle_kind().symbol] if layer.order in (None, ROLLING) else [plain]
    return "+".join(kinds)


def _is_same(sized: SizedBlock, text: str) -> bool:
    """Return whether a published block at these widths is the same network."""
    other = _published_at(text, sized.channels, sized.out_channels, sized.bottleneck, sized.dims)
    return other is not None and other.params == sized.params and same_network(sized, other)


@cache
def _published_at(
    text: str, channels: int, out_channels: int, bottleneck: Fraction | None, dims: int
) -> SizedBlock | None:
    """Return a published block at some widths, None if its groups do not divide one."""
    try:
        return Block.parse(text).at(channels, out_channels, bottleneck, dims)
    except BlockError:
        return None
