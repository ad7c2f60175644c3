"""A study: the cheapest full-field block of every design of a catalogue, at widths that are used.

`python -m experiments.groups_study` reads `results/catalogue-64.parquet` for the designs and
writes `groups-study.md`, `.csv`, `.svg` and `.png` into `results/`. `--backend` and `--address`
work on a cluster that is there, as those of `ifspace enumerate`. Shapes are C = F at powers of
two, and the pairs of widths around the 3x3 layers of MobileNet and ResNet-50.
"""

import argparse
import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from ifspace.bench.record import list_in_readme, provenance
from ifspace.block import Composition
from ifspace.catalogue import load, published_names
from ifspace.catalogue.design import PUBLISHED
from ifspace.cli.backend import add_backend_arguments, joined
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.parallel import over_shards, workers
from ifspace.show.describe import describe
from ifspace.table import Table
from ifspace.values import listed

SHAPES: Final = {
    "C = F": ((64, 64), (128, 128), (256, 256), (512, 512), (1024, 1024)),
    "MobileNet": (
        (32, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 512),
        (512, 512),
        (512, 1024),
        (1024, 1024),
    ),
    "ResNet-50": ((64, 64), (128, 128), (256, 256), (512, 512)),
}
# Published with K = F / 4 channels inside; the catalogue has no bottleneck.
NARROW: Final = ("PW+DW+PW", "GPW+SH+DW+GPW")
QUARTER: Final = Fraction(1, 4)


@dataclass(frozen=True, slots=True)
class CheapestBlock:
    """The cheapest full-field block of a design at one pair of widths."""

    composition: str
    channels: int
    out_channels: int
    block: str
    params: int
    proven: bool
    inner: int | None = None

    @property
    def layers(self) -> int:
        """Layers, shuffles included."""
        return len(Composition.parse(self.composition))


def cheapest(problems: Sequence[GroupsProblem]) -> list[CheapestBlock]:
    """Return the cheapest block of each problem that has one."""
    blocks: list[CheapestBlock] = []
    for problem in problems:
        answer, out = cheapest_groups(problem), problem.out_width
        inner = None if problem.bottleneck is None else int(problem.bottleneck * out)
        blocks.extend(
            CheapestBlock(
                str(problem.composition),
                problem.channels,
                out,
                str(plan.block),
                plan.objective(),
                answer.bound == plan.objective(),
                inner,
            )
            for plan in answer.plans
        )
    return blocks


def cheapest_blocks(
    problems: Sequence[GroupsProblem], jobs: int | None = None, shard: int = 200
) -> list[CheapestBlock]:
    """Return the same by `jobs` workers, each of which solves `shard` problems at a time.

    Without a number as many as the caller's `joblib.parallel_config` has, or one a core.
    """
    shards = [problems[n : n + shard] for n in range(0, len(problems), shard)]
    return [row for part in over_shards(cheapest, shards, workers(jobs)) for row in part]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--catalogue", type=Path, default=Path("results/catalogue-64.parquet"))
    parser.add_argument("--max-len", type=int, default=6)
    parser.add_argument("--jobs", type=int)
    add_backend_arguments(parser)
    options = parser.parse_args(arguments)
    compositions = [d.block.composition for d in load(options.catalogue).designs]
    compositions = [kinds for kinds in compositions if len(kinds) <= options.max_len]
    pairs = list(dict.fromkeys(pair for shapes in SHAPES.values() for pair in shapes))
    problems = [GroupsProblem(kinds, *pair) for pair in pairs for kinds in compositions]
    narrow_problems = [
        GroupsProblem(Composition.parse(composition), *pair, QUARTER)
        for composition in NARROW
        for pair in pairs
    ]
    with joined(options.backend, options.address):
        blocks = cheapest_blocks(problems, options.jobs)
        narrow = cheapest_blocks(narrow_problems, options.jobs, shard=len(NARROW))
    command = f"python -m experiments.groups_study --max-len {options.max_len}"
    names = ["groups-study.md", "groups-study.csv", "groups-study.svg", "groups-study.png"]
    (options.out / names[0]).write_text(
        _page(blocks, narrow, pairs, len(compositions), str(provenance(command)))
    )
    with (options.out / names[1]).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["composition", "C", "F", "K", "block", "params", "layers", "proven"])
        writer.writerows(
            [
                f.composition,
                f.channels,
                f.out_channels,
                f.inner,
                f.block,
                f.params,
                f.layers,
                f.proven,
            ]
            for f in (*blocks, *narrow)
        )
    _figure(options.out / "groups-study", blocks)
    list_in_readme(options.out, names, command)
    print(f"written: {options.out / names[0]}")


def pareto(blocks: Iterable[CheapestBlock]) -> list[CheapestBlock]:
    """Return the designs that no other beats in parameters and layers, fewest layers first.

    >>> names = "DW+PW", "DW+PW+PW"
    >>> rows = [CheapestBlock(name, 8, 8, "", 9, True) for name in names]
    >>> [row.composition for row in pareto(rows)]
    ['DW+PW']
    """
    best: list[CheapestBlock] = []
    for row in sorted(blocks, key=lambda f: (f.layers, f.params)):
        if not best or row.params < best[-1].params:
            best.append(row)
    return best


def _at(blocks: Iterable[CheapestBlock], pair: tuple[int, int]) -> list[CheapestBlock]:
    return [f for f in blocks if (f.channels, f.out_channels) == pair]


def _page(
    blocks: Sequence[CheapestBlock],
    narrow: Sequence[CheapestBlock],
    pairs: Sequence[tuple[int, int]],
    designs: int,
    where: str,
) -> str:
    proven = sum(f.proven for f in blocks)
    parts = [
        "# Cheapest full-field blocks at widths that are used",
        f"Written by {where}.",
        f"{designs:,} designs of the catalogue for C = 64, at {len(pairs)} pairs of widths; "
        f"{len(blocks):,} of {designs * len(pairs):,} have a legal choice with the full field, and "
        f"{proven:,} of these minima are proven. Only the full field is asked for here: a design "
        "whose cheapest block could do without a layer stays in the list.",
        "## Fewest parameters by number of layers",
        "The Pareto set of parameters and layers: each row beats everything with as few layers.",
    ]
    for network, shapes in SHAPES.items():
        rows: list[list[object]] = []
        for pair in shapes:
            for row in pareto(_at(blocks, pair)):
                ratio = 9 * row.channels * row.out_channels / row.params
                same = (
                    sum(
                        f.params == row.params and f.layers == row.layers for f in _at(blocks, pair)
                    )
                    - 1
                )
                rows.append(
                    [
                        f"{pair[0]} → {pair[1]}",
                        row.layers,
                        row.block,
                        f"{row.params:,}",
                        f"1/{ratio:.1f}",
                        same,
                    ]
                )
        header = ("C → F", ">layers", "block", ">params", "of CONV(3)", ">more of the same cost")
        parts += [f"### {network}", _table(header, rows)]
    published = sorted(
        {f.composition for f in blocks if published_names(f.composition)},
        key=lambda text: Composition.parse(text).sort_key,
    )
    table = [_amounts(composition, composition, blocks, pairs) for composition in published]
    table += [
        _amounts(composition, f"{composition}, K = F/4", narrow, pairs) for composition in NARROW
    ]
    # A column in which every composition has a number is aligned as numbers are.
    columns = [
        ("" if any(row[2 + n] == "-" for row in table) else ">") + f"{c}→{f}"
        for n, (c, f) in enumerate(pairs)
    ]
    parts += [
        "## The published designs",
        _table(("composition", "known as", *columns), table),
        *_left_out(published),
        "![Parameters by number of layers](groups-study.svg)",
    ]
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    return Table(tuple(columns), tuple(map(tuple, rows))).markdown("github").rstrip()


def _amounts(
    composition: str, shown: str, blocks: Sequence[CheapestBlock], pairs: Sequence[tuple[int, int]]
) -> list[object]:
    cells = {
        (f.channels, f.out_channels): f"{f.params:,}"
        for f in blocks
        if f.composition == composition
    }
    return [shown, published_names(composition), *(cells.get(pair, "-") for pair in pairs)]


def _left_out(shown: Sequence[str]) -> list[str]:
    """Return a sentence for each reason why published designs are not among those shown.

    The block looked at is the cheapest with the full field at 64 channels in and out.
    """
    short: list[str] = []
    removable: list[str] = []
    other: list[str] = []
    for composition in dict.fromkeys(entry.composition for entry in PUBLISHED):
        if composition in shown:
            continue
        plans = cheapest_groups(GroupsProblem(Composition.parse(composition), 64)).plans
        if not plans:
            short.append(composition)
        elif describe(plans[0].block, 64).removable:
            removable.append(composition)
        else:
            other.append(composition)
    reasons = (
        (
            short,
            "no legal choice of groups has the full field at 64 channels; some were published "
            "for two copies in a row, others with channels that change places freely",
        ),
        (removable, "without a bottleneck the field stays full when a layer is left out"),
        (other, "longer than the designs looked at"),
    )
    sentences = [
        f"{listed(compositions)}: {reason}." for compositions, reason in reasons if compositions
    ]
    return [f"Not in this list: {sentence}" for sentence in sentences]


def _figure(path: Path, blocks: Sequence[CheapestBlock]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    with pyplot.rc_context({"svg.hashsalt": "ifspace", "font.size": 10}):
        figure, panels = pyplot.subplots(1, 3, figsize=(11.0, 4.4), layout="constrained")
        for width, axes in zip((64, 256, 1024), panels, strict=True):
            rows = _at(blocks, (width, width))
            axes.plot(
                [f.layers for f in rows],
                [f.params for f in rows],
                "_",
                color="0.7",
                markersize=9,
                label="a design",
            )
            best = pareto(rows)
            axes.plot(
                [f.layers for f in best],
                [f.params for f in best],
                "o-",
                color="black",
                markersize=5,
                label="fewest parameters",
            )
            named = [f for f in rows if published_names(f.composition)]
            axes.plot(
                [f.layers for f in named],
                [f.params for f in named],
                "s",
                color="0.35",
                markersize=5,
                markerfacecolor="white",
                label="published",
            )
            for row in named:
                # Centred above its mark: it stays inside the axes, and no other mark is hidden.
                axes.annotate(
                    row.composition,
                    (row.layers, row.params),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                )
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.margins(x=0.12)
            axes.set_xlabel("layers of the block, shuffles included")
            axes.set_title(f"{width} channels in and out")
        panels[0].set_ylabel("parameters of its cheapest full-field block")
        panels[-1].legend(frameon=False, fontsize=8)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=140)
        pyplot.close(figure)


if __name__ == "__main__":
    main()
