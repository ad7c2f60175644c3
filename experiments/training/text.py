"""What `python -m experiments.training` prints: a row a version, and what the check shows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite, sqrt
from typing import Any, Final

from experiments.training import Data, Run, Schedule, Summary, Version, summaries
from experiments.training.versions import NAMES
from ifspace.catalogue.export import csv_table, json_text, markdown_table
from ifspace.cli.options import Forms, Output
from ifspace.stages.text import short
from ifspace.table import (
    facts,
    heading,
    table,
)
from ifspace.values import listed

SHOWS: Final = (
    "that the versions train, by one schedule from the same seeds on the same batches, what they "
    "reach on these images, and what they cost beside each other on this machine"
)
_COLUMNS: Final = (
    "version",
    "what~",
    ">accuracy %",
    ">train loss",
    ">params",
    ">MACs",
    ">ms/step",
    ">p20 to p80",
)
# For each version that may be left out, why.
_LEFT_OUT: Final = {
    "reorganized": "no move of the organizer within the parameters gains",
    "decomposed": "the block fits none of the convolutions of enough channels",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, with the data as the network takes them."""

    data: Data
    network: str
    block: str
    params: int | None
    schedule: Schedule
    versions: Sequence[Version]
    seeds: int

    @property
    def columns(self) -> dict[str, Any]:
        """What all rows of one check share."""
        return {
            "data": self.data.name,
            "network": self.network,
            "preset": self.schedule.name,
        }


def note_versions(output: Output, versions: Sequence[Version]) -> None:
    """Say which versions are left out, and why."""
    there = [each.name for each in versions]
    for name in NAMES:
        if name not in there:
            output.note(f"no {name} version: {_LEFT_OUT[name]}")


def forms(asked: Asked, runs: Sequence[Run]) -> Forms:
    """Return the answer in every format."""
    shared = asked.columns
    columns = [*shared, *(each.name for each in fields(Run))]
    rows = [_plain(shared | asdict(run)) for run in runs]
    cells = [[row[name] for name in columns] for row in rows]
    values = {
        **shared,
        "block": asked.block,
        "max_params": asked.params,
        "schedule": _schedule(asked.schedule),
        "train_images": len(asked.data.train_labels),
        "test_images": len(asked.data.test_labels),
        "image": list(asked.data.shape),
        "classes": asked.data.classes,
        "seeds_asked": asked.seeds,
        "versions": [_plain(_summary(asked, each)) for each in summaries(runs)],
        "runs": [_plain(asdict(run)) for run in runs],
        "shows": SHOWS,
        "does_not_show": _shows_not(asked, runs),
    }
    return {
        "table": lambda: _text(asked, runs),
        "json": lambda: json_text(values),
        "csv": lambda: csv_table(columns, cells),
        "markdown": lambda: _markdown(asked, runs),
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with None for numbers that JSON lacks: a loss that ran away."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in row.items()
    }


def _summary(asked: Asked, found: Summary) -> dict[str, Any]:
    return {"version": found.version, "said": _said(asked, found.version)} | asdict(found)


def _said(asked: Asked, name: str) -> str:
    return next(each.said for each in asked.versions if each.name == name)


def _schedule(schedule: Schedule) -> dict[str, Any]:
    values = asdict(schedule)
    return values | {"milestones": [float(each) for each in schedule.milestones]}


def _text(asked: Asked, runs: Sequence[Run]) -> str:
    rows = _rows(asked, runs)
    return heading(_title(asked, runs)) + table(_COLUMNS, rows) + "\n" + facts(_beside(asked, runs))


def _markdown(asked: Asked, runs: Sequence[Run]) -> str:
    names = [each.strip(">~") for each in _COLUMNS]
    said = "".join(
        f"\n- {name}: {text}" if name else f"; {text}" for name, text in _beside(asked, runs)
    )
    body = markdown_table(names, _rows(asked, runs))
    return f"{_title(asked, runs)}\n\n{body}{said}\n"


def _title(asked: Asked, runs: Sequence[Run]) -> str:
    done = summaries(runs)[0].seeds
    seeds = f"{done} of {asked.seeds}" if done < asked.seeds else f"{done}"
    title = f"Training check: {asked.network} on {asked.data.name}, {seeds} seed"
    return title + ("s" if asked.seeds > 1 else "")


def _rows(asked: Asked, runs: Sequence[Run]) -> list[list[str]]:
    return [
        [
            each.version,
            _said(asked, each.version),
            _accuracy(each),
            f"{each.train_loss:.4f}",
            short(each.params),
            short(each.macs),
            f"{each.step_ms:.2f}",
            f"{each.step_ms_p20:.2f} to {each.step_ms_p80:.2f}",
        ]
        for each in summaries(runs)
    ]


def _accuracy(found: Summary) -> str:
    spread = "" if found.accuracy_std is None else f" ± {found.accuracy_std:.2f}"
    return f"{found.accuracy_percent:.2f}{spread}"


def _beside(asked: Asked, runs: Sequence[Run]) -> list[tuple[str, str]]:
    data, several = asked.data, len({run.seed for run in runs}) > 1
    size = "×".join(map(str, data.shape))
    threads, device = runs[0].threads, runs[0].device
    return [
        (
            "data",
            f"{data.name}: {len(data.train_labels):,} images to train on, "
            f"{len(data.test_labels):,} to test on, {size}, {data.classes} classes",
        ),
        ("schedule", f"{asked.schedule.name}: {asked.schedule}"),
        ("", asked.schedule.reference),
        (
            "accuracy",
            "of the test images after the last epoch"
            + (
                ", mean and standard deviation of the seeds" if several else "; one seed, no spread"
            ),
        ),
        (
            "step",
            f"forward, backward and update of a batch on {device}, {threads} thread"
            f"{'s' if threads > 1 else ''}; median, the versions in turn",
        ),
        ("shows", SHOWS),
        ("shows not", _shows_not(asked, runs)),
    ]


def _shows_not(asked: Asked, runs: Sequence[Run]) -> str:
    """Return the limits of the check, in a sentence with its own numbers."""
    told = resolution([run.accuracy_percent for run in runs], len(asked.data.test_labels))
    seeds = len({run.seed for run in runs})
    parts = [
        "which version is better on other data, at another size or trained for longer",
        f"a difference below about {told:.1f} points: {len(asked.data.test_labels):,} test images "
        f"do not tell it from chance, and {seeds} seed{'s say' if seeds > 1 else ' says'} little "
        "of the spread",
        "the accuracies that the papers print",
        "the speed on another device",
    ]
    return listed(f"({n}) {part}" for n, part in enumerate(parts, start=1))


def resolution(accuracies: Sequence[float], images: int) -> float:
    """Return the points below which two accuracies on so many images differ by chance alone.

    Twice the standard error of the difference of two shares, at the mean of the accuracies with
    two right and two wrong images added, so that it is not 0 where all are right.

    >>> round(resolution([99.0, 99.0], 359), 2)
    1.83

    Reference: Agresti and Coull, Approximate is better than "exact" for interval estimation of
    binomial proportions, 1998.
    """
    right = sum(accuracies) / len(accuracies) / 100 * images
    share = (right + 2) / (images + 4)
    return 100 * 2 * sqrt(2 * share * (1 - share) / (images + 4))
