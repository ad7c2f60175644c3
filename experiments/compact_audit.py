"""An audit: do the blocks that the papers name follow their own rule, at which widths?

`python -m experiments.compact_audit` writes `compact-audit.md` and `.csv` into `results/`: models A
to F of [IF] and [3DRF] at every width from 8 to 64, one copy and two in a row, with every choice of
group counts, shuffle groups and overlaps, decided by the exact field of `ifspace.reach`.

Reference: [IF] Figures 3 and 4; [3DRF] section 4.2, Figures 4 and 5.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Final

from ifspace.bench.record import list_in_readme, provenance
from ifspace.block import Block, Layer
from ifspace.catalogue.setting import DEFAULT_OVERLAPS
from ifspace.groups.text import spans
from ifspace.kinds import find_kind
from ifspace.parallel import over_shards, workers
from ifspace.reach import Reference, quality, removable_layers
from ifspace.table import Table
from ifspace.values import listed

WIDTHS: Final = tuple(range(8, 65))
COPIES: Final = (1, 2)
COMMAND: Final = "python -m experiments.compact_audit"
NAMES: Final = ("compact-audit.md", "compact-audit.csv")


@dataclass(frozen=True, slots=True)
class Model:
    """A block of the papers' figures; `copies` is the number with which they compare it."""

    letter: str
    name: str
    composition: str
    copies: int


# The texts do not say in which order A has its layers: Xception's own paper has PW first.
MODELS: Final = (
    Model("A", "Xception", "DW+PW", 1),
    Model("A", "Xception, PW first", "PW+DW", 1),
    Model("B", "MobileNet", "DW+PW", 1),
    Model("C", "clcNet", "GC+SH+GPW", 2),
    Model("D", "ShuffleNet", "GPW+SH+DW+GPW", 2),
    Model("E", "the first new block", "DW+SH+GPW", 1),
    Model("F", "the second new block", "DW+RPW", 2),
)


@dataclass(frozen=True, slots=True)
class Audit:
    """A composition at a width: how many of its choices pass, and the cheapest that do.

    `choices`: of group counts, shuffle groups and overlaps; `quality`: of these, those with the
    field of as many CONV(3); `kernels`, `single`: of these, those that are compact, shuffles not
    tested or tested. `cheapest_…`: the first block of the fewest parameters, empty if none.
    """

    composition: str
    copies: int
    channels: int
    choices: int
    quality: int
    kernels: int
    single: int
    cheapest_kernels: str
    cheapest_single: str

    @property
    def mark(self) -> str:
        """The most that a choice attains: single, kernels, quality or nothing."""
        for name in ("single", "kernels", "quality"):
            if getattr(self, name):
                return name
        return "-"


def audit(case: tuple[str, int, int]) -> Audit:
    """Try every choice of a composition, with a number of copies, at a width in channels.

    >>> audit(("GC+SH+GPW", 2, 16)).mark, audit(("GC+SH+GPW", 2, 12)).mark
    ('kernels', 'single')
    """
    composition, copies, channels = case
    kinds = composition.split("+")
    reference = Reference(repeats=copies)
    options = [find_kind(kind).choices(channels, channels, DEFAULT_OVERLAPS) for kind in kinds]
    choices = full = 0
    passing: dict[str, list[Block]] = {"kernels": [], "single": []}
    for choice in product(*options):
        choices += 1
        layers = [
            Layer(kind, groups, overlap, order=order)
            for kind, (groups, overlap, order) in zip(kinds, choice, strict=True)
        ]
        sized = Block(tuple(layers), copies).at(channels)
        if not quality(sized, reference):
            continue
        full += 1
        removable = removable_layers(sized, reference)
        if not any(sized.layers[index].conv.writes for index in removable):
            passing["kernels"].append(sized.block)
        if not removable:
            passing["single"].append(sized.block)

    def cheapest(blocks: Iterable[Block]) -> str:
        block = min(blocks, key=lambda block: block.at(channels).params, default=None)
        return "" if block is None else str(block)

    return Audit(
        *case,
        choices,
        full,
        len(passing["kernels"]),
        len(passing["single"]),
        cheapest(passing["kernels"]),
        cheapest(passing["single"]),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit all models and write the page and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    compositions = dict.fromkeys(model.composition for model in MODELS)
    cases = list(product(compositions, COPIES, WIDTHS))
    rows = list(over_shards(audit, cases, workers(None)))
    names = tuple(field.name for field in fields(Audit))
    (options.out / NAMES[0]).write_text(page(rows, str(provenance(COMMAND))))
    (options.out / NAMES[1]).write_text(Table(names, tuple(map(astuple, rows))).csv())
    list_in_readme(options.out, NAMES, COMMAND)
    print(f"written: {options.out / NAMES[0]}")


def page(rows: Sequence[Audit], where: str) -> str:
    """Return the page: what the papers say and what holds, widths by model, and every width."""
    by_case: dict[tuple[str, int], list[Audit]] = {}
    for row in rows:
        by_case.setdefault((row.composition, row.copies), []).append(row)
    widths = [row.channels for row in next(iter(by_case.values()))]
    first, last = widths[0], widths[-1]
    parts = [
        "# Do the papers' blocks follow their rule?",
        f"Written by {where}.",
        f"Models A to F of [IF] Figures 3 and 4 and [3DRF] Figures 4 and 5 at C = {first} to "
        f"{last}, one copy and two in a row. A block follows the rule of kernel replacement when "
        "it has the field of as many CONV(3) (*quality*) and falls short without any one of its "
        "layers (*compact*). The papers remove *a factorized kernel*, and a shuffle is none: "
        "`--compact kernels` does not test shuffles, `--compact single` tests every layer. Every "
        "choice of non-trivial group counts, shuffle groups and overlaps (0, 0.33, 0.5) is tried; "
        "one that passes is enough.",
        "## What the papers say",
        "[3DRF] 4.2 says that A to D follow the rule, A and B once, C and D twice in a row; that "
        'their compactness is "clear from the plot"; and that the first new block, E, "observes '
        'full channel information". With the copies of the paper some choice follows the rule at:',
        _markdown(_claims(by_case)),
        "## Widths at which some choice passes",
        _markdown(_by_model(by_case)),
        "## Every width",
        "The most that a choice attains: `-` not even the full field (or no legal group count), "
        "`quality` the field but not compact, `kernels` compact if shuffles are not tested, "
        "`single` compact in every layer. ×1 and ×2: copies. How many choices pass and which is "
        "the cheapest: [compact-audit.csv](compact-audit.csv).",
        _markdown(_every_width(by_case, widths)),
    ]
    return "\n\n".join(parts) + "\n"


def _claims(by_case: dict[tuple[str, int], list[Audit]]) -> Table:
    rows = []
    for model in MODELS:
        audits = by_case[model.composition, model.copies]
        cells = []
        for reading in ("quality", "kernels", "single"):
            holds = [row.channels for row in audits if getattr(row, reading)]
            if 0 < len(holds) < len(audits):
                cells.append(f"{len(holds)} of {len(audits)} widths: {spans(holds)}")
            else:
                cells.append("every width" if holds else "no width")
        rows.append((model.letter, model.name, _text(model.composition, model.copies), *cells))
    return Table(("model", "name", "block", "quality", "kernels", "single"), tuple(rows))


def _text(composition: str, copies: int) -> str:
    return composition if copies == 1 else f"({composition})×{copies}"


def _by_model(by_case: dict[tuple[str, int], list[Audit]]) -> Table:
    rows = []
    for (composition, copies), audits in by_case.items():
        letters = [model.letter for model in MODELS if model.composition == composition]
        cells = (
            [row.channels for row in audits if getattr(row, name)]
            for name in ("quality", "kernels", "single")
        )
        rows.append(
            (
                listed(letters),
                _text(composition, copies),
                *(spans(cell) or "none" for cell in cells),
            )
        )
    return Table(("model", "block", "quality", "kernels", "single"), tuple(rows))


def _every_width(by_case: dict[tuple[str, int], list[Audit]], widths: Sequence[int]) -> Table:
    columns = [f"{composition} ×{copies}" for composition, copies in by_case]
    rows = [
        (width, *(audits[number].mark for audits in by_case.values()))
        for number, width in enumerate(widths)
    ]
    return Table((">C", *columns), tuple(rows))


def _markdown(table: Table) -> str:
    return table.markdown().strip()


if __name__ == "__main__":
    main()
