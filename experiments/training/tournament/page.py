"""The table of a tournament, as `ifspace validate` reads it, and the page that compares the pairs.

The comparison is within pairs, whose blocks have the same layers. The interval is over pairs and
seeds: of each resample pairs are drawn with replacement, and of each drawn pair its seeds. With few
pairs such an interval is too narrow; p is that of the exact test that the signs of the mean
differences of pairs are as likely one way as the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from experiments.training.text import resolution
from experiments.training.tournament.pairs import DEPTH
from experiments.training.tournament.runs import (
    Row,
    Tournament,
    layers_of,
    network_of,
)
from ifspace.scores.statistics import dense_ranks, resamples, spearman
from ifspace.table import Table
from ifspace.values import listed

RESAMPLES: Final = 10_000
LEVEL: Final = 0.05
# Pairs of which all choices of signs are counted.
MOST_EXACT: Final = 16
TOLERANCE: Final = 1e-9
Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """What the pairs say together: differences are of accuracies, passes less fails, in points.

    `differences` [pairs, seeds]; `mean` and `interval` over pairs and seeds, `p` over pairs;
    `ahead`: pairs whose mean is above 0, and `level`: whose is 0; `rho`: Spearman's, over the
    pairs, of the channels that the failing block sees and the difference.
    """

    differences: npt.NDArray[np.float64]
    mean: float
    interval: Interval
    p: float
    ahead: int
    level: int
    rho: float
    rho_interval: Interval


def compare(tournament: Tournament, rows: Sequence[Row]) -> Comparison:
    """Compare the blocks of each pair."""
    shape = (len(tournament.pairs), 2, tournament.seeds)
    accuracies = np.array([row.accuracy_percent for row in rows]).reshape(shape)
    differences = accuracies[:, 0] - accuracies[:, 1]
    means = differences.mean(axis=1)
    weights = resamples(len(means), RESAMPLES, seed=0)
    fields = dense_ranks([pair.fails.field for pair in tournament.pairs])
    rhos = spearman(fields, dense_ranks(means), weights)
    return Comparison(
        differences,
        float(means.mean()),
        _interval(_resampled(differences)),
        p_of_signs(means),
        int((means > 0).sum()),
        int((means == 0).sum()),
        float(rhos[0]),
        _interval(rhos[1:]),
    )


def _resampled(differences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean difference of each resample of pairs, and of seeds within them."""
    draws = np.random.default_rng(0)
    pairs, seeds = differences.shape
    chosen = draws.integers(pairs, size=(RESAMPLES, pairs, 1))
    return np.asarray(
        differences[chosen, draws.integers(seeds, size=(RESAMPLES, pairs, seeds))].mean(axis=(1, 2))
    )


def p_of_signs(means: npt.NDArray[np.float64]) -> float:
    """Return the share of all choices of signs whose mean is as far from 0, two-sided.

    >>> p_of_signs(np.array([0.5, 1.0, 0.25]))
    0.25

    Reference: Fisher, The Design of Experiments, section 21.
    """
    sums = np.zeros(1)
    for mean in means[:MOST_EXACT]:
        sums = np.concatenate([sums + mean, sums - mean])
    draws = np.random.default_rng(0)
    for mean in means[MOST_EXACT:]:  # of more pairs a sample of the choices
        sums = sums + draws.choice((mean, -mean), len(sums))
    return float((np.abs(sums) >= abs(means.sum()) - TOLERANCE).mean())


def _interval(values: npt.NDArray[np.float64]) -> Interval:
    numbers = values[np.isfinite(values)]
    if not len(numbers):
        return float("nan"), float("nan")
    low, high = np.quantile(numbers, (0.025, 0.975))
    return float(low), float(high)


def table_rows(tournament: Tournament, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows of the table for `ifspace validate`, one a block.

    `accuracy` is the mean over the seeds, `layers` the convolutions of the network.
    """
    result = []
    for index, one in enumerate(tournament.contestants):
        own = rows[index * tournament.seeds : (index + 1) * tournament.seeds]
        result.append(
            {
                "name": str(one),
                "set": f"tournament {tournament.data.name}",
                "pair": index // 2 + 1,
                "field": one.field,
                "stage_field": one.stage_field,
                "channels": one.channels,
                "block_params": one.params,
                "params": own[0].params,
                "macs": own[0].macs,
                "accuracy": round(fmean(row.accuracy_percent for row in own), 4),
                **{f"accuracy_{row.seed}": round(row.accuracy_percent, 4) for row in own},
                "train_loss": round(fmean(row.train_loss for row in own), 6),
                "layers": str(layers_of(one, tournament.data)),
            }
        )
    return result


def paragraphs(tournament: Tournament, rows: Sequence[Row], source: str) -> list[str]:
    """Return the page; `source`: where it comes from."""
    data, compared = tournament.data, compare(tournament, rows)
    count, seeds = len(tournament.pairs), tournament.seeds
    channels = tournament.contestants[0].channels
    return [
        "# A tournament of blocks",
        f"Written by {source}. {count} block{'s' * (count > 1)} of the front at {channels} "
        "channels, every output of which sees every channel, each against one that fails the "
        f"field, trained on {data.name} from {seeds} seed{'s' * (seeds > 1)} each: {len(rows)} "
        "networks. A row of [tournament.csv](tournament.csv) is a block, with the convolutions of "
        "its network and its accuracy: `ifspace validate` reads it.",
        "## How",
        "- *Fails*: a block of the same enumeration that has, layer by layer, the kernel sizes and "
        "parameters of the other, but reads other channels, so that an output sees fewer than "
        "there are; of all such networks the one that sees fewest behind a stage, then a block. "
        "Parameters, MACs, activations, batch norm and first weights are equal.\n"
        f"- {_network_text(tournament)}\n"
        f"- {len(data.train_labels):,} images to train on, {len(data.test_labels):,} to test on; "
        f"{tournament.schedule}. Both of a pair see the same batches. One thread, deterministic "
        "algorithms. Accuracy is that of the last epoch; nothing was chosen by it.\n"
        f"- Interval: 95% of {RESAMPLES:,} resamples of pairs, and of seeds within them; p: of the "
        "signs of the pairs' mean differences, two-sided.\n"
        f"- {_time_text(rows)}",
        "## Pairs",
        _pairs_table(tournament, rows, compared).markdown("github").rstrip(),
        "Parameters are those of the block, and of the whole network; *field* is the channels that "
        f"the output sees which sees fewest, behind one block and behind the {DEPTH} of a stage; "
        f"accuracies in percent, mean{' and standard deviation' if seeds > 1 else ''} over seeds.",
        "## What it shows",
        "\n".join(f"- {text}" for text in _shown(tournament, compared)),
        "## What it does not show",
        "\n".join(f"- {text}" for text in _limits(tournament, rows, compared)),
    ]


def _network_text(tournament: Tournament) -> str:
    layout = network_of(tournament.contestants[0], tournament.data)
    sides = listed([f"{stage.side}×{stage.side}" for stage in layout.stages])
    return (
        f"One network: a 3×3 stem, stages of {DEPTH} residual blocks on {sides} pixels, all "
        f"{layout.stages[0].width} channels wide, max pooling between them, an average and a dense "
        "layer. Batch norm and ReLU behind every layer, the last ReLU of a block behind the sum. "
        "No layer but the blocks mixes channels between stem and head."
    )


def _time_text(rows: Sequence[Row]) -> str:
    processor, wall = sum(row.processor_s for row in rows), sum(row.wall_s for row in rows)
    return (
        f"Time: {processor / 60:.1f} minutes of the processor, {processor / 120:.1f} on two free "
        f"cores; by the clock, beside other work, the runs lasted {wall / 60:.1f} minutes in all."
    )


def _pairs_table(tournament: Tournament, rows: Sequence[Row], compared: Comparison) -> Table:
    cells = []
    for index, pair in enumerate(tournament.pairs):
        start = 2 * index * tournament.seeds
        sides = [rows[start : start + tournament.seeds]]
        sides.append(rows[start + tournament.seeds : start + 2 * tournament.seeds])
        passing, failing = sides
        cells.append(
            (
                index + 1,
                f"`{pair.passes}`",
                f"`{pair.fails}`",
                f"{pair.passes.params:,}",
                f"{passing[0].params:,}",
                f"{pair.fails.field} / {pair.fails.stage_field}",
                _accuracy(passing),
                _accuracy(failing),
                f"{compared.differences[index].mean():+.2f}",
            )
        )
    columns = (
        ">pair",
        "sees all channels",
        "fails the field",
        ">params",
        ">network",
        ">field of it",
        ">accuracy, sees all",
        ">accuracy, fails",
        ">difference",
    )
    return Table(columns, tuple(cells))


def _accuracy(rows: Sequence[Row]) -> str:
    numbers = [row.accuracy_percent for row in rows]
    spread = f" ± {stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.2f}{spread}"


def _shown(tournament: Tournament, compared: Comparison) -> list[str]:
    low, high = compared.interval
    count, level = len(tournament.pairs), compared.level
    verdict = f"the {'first' if compared.mean > 0 else 'second'} are the more accurate here"
    if low <= 0 <= high or compared.p > LEVEL:
        verdict = "no difference that these runs tell from chance"
    texts = [
        "Blocks that see all channels less those that fail, on these images: "
        f"{compared.mean:+.2f} points ({low:+.2f} to {high:+.2f}; p = {compared.p:.3f}): "
        f"{verdict}.",
        f"In {compared.ahead} of {count} pairs the block that sees all channels has the higher "
        f"mean{f', in {level} they are level' if level else ''}.",
    ]
    short = [pair.fails.stage_field < pair.fails.channels for pair in tournament.pairs]
    if 0 < sum(short) < count:
        means = compared.differences.mean(axis=1)
        inside, others = (means[np.array(short) == value].mean() for value in (True, False))
        texts.append(
            f"The same of the {sum(short)} pairs whose failing block sees fewer channels behind a "
            f"whole stage too: {inside:+.2f} points; of the other {count - sum(short)}: "
            f"{others:+.2f}. Too few to tell the two apart."
        )
    if len({pair.fails.field for pair in tournament.pairs}) > 1:
        rho_low, rho_high = compared.rho_interval
        texts.append(
            "How many channels the failing block sees, and the difference: Spearman's ρ "
            f"{compared.rho:+.2f} ({rho_low:+.2f} to {rho_high:+.2f}) over the pairs."
        )
    return texts


def _limits(tournament: Tournament, rows: Sequence[Row], compared: Comparison) -> list[str]:
    data = tournament.data
    points = resolution([row.accuracy_percent for row in rows], len(data.test_labels))
    apart = sum(pair.fails.stage_field < pair.fails.channels for pair in tournament.pairs)
    return [
        f"What other images, sizes, widths, schedules or tasks would say: {data.name} with "
        f"{len(data.train_labels):,} images to train on is a small problem, and one learning rate "
        "was used for all.",
        f"One pair: two accuracies below about {points:.1f} points apart are not told from chance "
        f"by {len(data.test_labels):,} test images.",
        f"Anything of networks whose stages mix channels in other layers: here, in {apart} of "
        f"{len(tournament.pairs)} pairs, some output of a whole stage of failing blocks sees fewer "
        "channels than enter. Shortcuts go around them, and the head reads all channels.",
        "Anything of scores of layer lists between the two of a pair: they have one list, since it "
        "does not say which channels a layer reads (docs/scores.md).",
    ]
