"""How many networks of timm and torchvision have grouped layers that exchange no channels.

`python -m experiments.exchange_lint` writes `exchange-lint.md` and `.csv` into `results/`: for the
smallest network with a grouped convolution of each family of timm, and for all networks of
torchvision with one, of at most `--params` parameters, the pairs that `ifspace analyze` names. A
depthwise convolution is no grouped one here. Names and sizes of the networks are those of
`coverage-networks.csv`; the images are small, as pairs do not depend on their size.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from torch import nn

from benchmarks.measure import write_results
from experiments.coverage.networks import Candidate, read_candidates
from ifspace.bench.record import provenance
from ifspace.errors import IfspaceError
from ifspace.models import Report, analyze, network
from ifspace.models.sources import on_shapes
from ifspace.table import Table

COMMAND: Final = "python -m experiments.exchange_lint"
NAME: Final = "exchange-lint"
# Smaller images vanish in some networks, larger ones take longer.
SIDE: Final = 96


@dataclass(frozen=True, slots=True)
class Lint:
    """A network: its grouped convolutions, and its pairs of them that exchange no channels.

    `joined`: pairs with a sum or a concatenation between. `needed`: pairs whose second layer would
    see more of the input of its stage with a shuffle. `pairs` is None where the network cannot be
    traced; `example` then says why, and otherwise describes the first pair.
    """

    network: str
    family: str
    grouped: int
    pairs: int | None
    joined: int | None
    needed: int | None
    example: str


def grouped_convolutions(model: nn.Module) -> int:
    """Return how many convolutions have groups and are not depthwise.

    >>> grouped_convolutions(nn.Sequential(*(nn.Conv2d(8, 8, 3, groups=g) for g in (1, 2, 8))))
    1
    """
    convs = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return sum(1 < conv.groups < conv.in_channels for conv in convs)


def grouped_networks(candidates: Iterable[Candidate], most: int) -> Iterator[tuple[Candidate, int]]:
    """Yield the networks with grouped convolutions, the smallest of each family of timm.

    `most`: parameters that a network has at most.
    """
    families: set[str] = set()
    for row in sorted(candidates, key=lambda row: (row.params, row.network)):
        of_timm = row.network.startswith("timm:")
        if not row.convs or row.params > most or (of_timm and row.family in families):
            continue
        build = partial(network, row.network, part=row.part)
        count = on_shapes(build, grouped_convolutions)
        if count:
            if of_timm:
                families.add(row.family)
            yield row, count


def lint(candidate: Candidate, grouped: int) -> Lint:
    """Analyse a network and count its pairs."""
    about = candidate.network, candidate.family, grouped
    image = candidate.at_most(SIDE)

    def analysis() -> Report:
        return on_shapes(
            lambda: network(candidate.network, image, part=candidate.part),
            lambda model: analyze(model, image),
        )

    try:
        pairs = analysis().exchanges
    except IfspaceError as error:
        return Lint(*about, None, None, None, error.finding)
    needed = [
        pair for pair in pairs if pair.stage_field and pair.stage_field[0] < pair.stage_field[1]
    ]
    example = f"{pairs[0].first}, {pairs[0].second}: {pairs[0].exchange}" if pairs else ""
    return Lint(*about, len(pairs), sum(pair.joined for pair in pairs), len(needed), example)


def page(rows: Sequence[Lint], most: int) -> list[str]:
    """Return the paragraphs: totals, and the networks that have pairs."""
    traced = [row for row in rows if row.pairs is not None]
    with_pairs = [row for row in traced if row.pairs]
    pairs, joined, needed = (
        sum(getattr(row, name) for row in with_pairs) for name in ("pairs", "joined", "needed")
    )
    columns = ("network", ">grouped", ">pairs", ">joined", ">stage sees more", "the first pair~")
    table = Table(
        columns,
        tuple(
            (row.network, row.grouped, row.pairs, row.joined, row.needed, row.example)
            for row in with_pairs
        ),
    )
    paragraphs = [
        "# Grouped layers that exchange no channels",
        f"Written by {provenance(COMMAND)}.",
        f"{len(rows)} networks have grouped convolutions that are not depthwise: the smallest of "
        f"each family of timm, and all of torchvision, of at most {most:,} parameters. "
        f"{len(with_pairs)} of the {len(traced)} that can be traced have consecutive grouped "
        "layers that exchange no channels, found from the fields of their traces: "
        f"{pairs} pairs, {joined} of them *joined* by a sum or a concatenation. In {needed} the "
        "second layer would see more of the input of its stage "
        "with a shuffle; in the others the shuffle changes the field of the pair alone.",
    ]
    if with_pairs:
        paragraphs.append(table.markdown("github").rstrip())
    others = ", ".join(f"`{row.network}`" for row in traced if not row.pairs)
    paragraphs.append(f"Without such a pair: {others or 'none'}.")
    failed = [f"`{row.network}` ({row.example})" for row in rows if row.pairs is None]
    return [*paragraphs, *([f"Not traced: {', '.join(failed)}."] if failed else [])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Analyse the networks and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--params", type=int, default=60_000_000, metavar="N")
    options = parser.parse_args(arguments)
    rows = []
    candidates = read_candidates(options.out / "coverage-networks.csv")
    for candidate, count in grouped_networks(candidates, options.params):
        rows.append(lint(candidate, count))
        print(rows[-1], flush=True)
    rows.sort(key=lambda row: row.network)
    write_results(
        options.out, NAME, page(rows, options.params), [asdict(row) for row in rows], COMMAND
    )


if __name__ == "__main__":
    main()
