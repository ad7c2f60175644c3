"""The answer of `python -m experiments.training` as text: a row per version, and what it shows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite, sqrt
from typing import Any, Final

from experiments.training import Data, Run, Schedule, Summary, Version, summaries
from experiments.training.versions import NAMES
from ifspace.cli.options import Forms, Output
from ifspace.serialize import json_text
from ifspace.stages.text import short
from ifspace.table import (
    Table,
    facts,
    heading,
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
# Why a version is left out.
_LEFT_OUT: Final = {
    "reorganized": "no move of the organizer within the parameters gains",
    "decomposed": "the block fits none of the convolutions of enough channels",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A training check: the versions compared, and the data in the form that the network takes."""

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
    """Print which versions are left out, and why."""
    names = [version.name for version in versions]
    for name in NAMES:
        if name not in names:
            output.note(f"no {name} version: {_LEFT_OUT[name]}")


def forms(check: Check, runs: Sequence[Run]) -> Forms:
    """Return the answer in every format."""
    shared = check.columns
    columns = [*shared, *(field.name for field in fields(Run))]
    cells = [tuple(map(_cell, (shared | asdict(run)).values())) for run in runs]
    values = {
        **shared,
        "block": check.block,
        "max_params": check.params,
        "schedule": _schedule(check.schedule),
        "train_images": len(check.data.train_labels),
        "test_images": len(check.data.test_labels),
        "image": list(check.data.shape),
        "classes": check.data.classes,
        "seeds_asked": check.seeds,
        "versions": [_summary(check, summary) for summary in summaries(runs)],
        "runs": list(runs),
        "shows": SHOWS,
        "does_not_show": _limits(check, runs),
    }
    return {
        "table": lambda: _text(check, runs),
        "json": lambda: json_text(values),
        "csv": lambda: Table(tuple(columns), tuple(cells)).csv(),
        "markdown": lambda: _markdown(check, runs),
    }


def _cell(value: Any) -> Any:
    """Return a value of a CSV file: the loss of a run that diverged is left out."""
    return None if isinstance(value, float) and not isfinite(value) else value


def _summary(check: Check, summary: Summary) -> dict[str, Any]:
    return {"version": summary.version, "said": _description(check, summary.version)} | asdict(
        summary
    )


def _description(check: Check, name: str) -> str:
    return next(version.description for version in check.versions if version.name == name)


def _schedule(schedule: Schedule) -> dict[str, Any]:
    values = asdict(schedule)
    return values | {"milestones": [float(milestone) for milestone in schedule.milestones]}


def _text(check: Check, runs: Sequence[Run]) -> str:
    return (
        heading(_title(check, runs))
        + _table(check, runs).text()
        + "\n"
        + facts(_notes(check, runs))
    )


def _markdown(check: Check, runs: Sequence[Run]) -> str:
    notes = "".join(
        f"\n- {name}: {text}" if name else f"; {text}" for name, text in _notes(check, runs)
    )
    return f"{_title(check, runs)}\n\n{_table(check, runs).markdown()}{notes}\n"


def _title(check: Check, runs: Sequence[Run]) -> str:
    done = summaries(runs)[0].seeds
    seeds = f"{done} of {check.seeds}" if done < check.seeds else f"{done}"
    title = f"Training check: {check.network} on {check.data.name}, {seeds} seed"
    return title + ("s" if check.seeds > 1 else "")


def _table(check: Check, runs: Sequence[Run]) -> Table:
    rows = tuple(
        (
            summary.version,
            _description(check, summary.version),
            _accuracy(summary),
            f"{summary.train_loss:.4f}",
            short(summary.params),
            short(summary.macs),
            f"{summary.step_ms:.2f}",
            f"{summary.step_ms_p20:.2f} to {summary.step_ms_p80:.2f}",
        )
        for summary in summaries(runs)
    )
    return Table(_COLUMNS, rows)


def _accuracy(summary: Summary) -> str:
    spread = "" if summary.accuracy_std is None else f" ± {summary.accuracy_std:.2f}"
    return f"{summary.accuracy_percent:.2f}{spread}"


def _notes(check: Check, runs: Sequence[Run]) -> list[tuple[str, str]]:
    data, several = check.data, len({run.seed for run in runs}) > 1
    size = "×".join(map(str, data.shape))
    threads, device = runs[0].threads, runs[0].device
    return [
        (
            "data",
            f"{data.name}: {len(data.train_labels):,} images to train on, "
            f"{len(data.test_labels):,} to test on, {size}, {data.classes} classes",
        ),
        ("schedule", f"{check.schedule.name}: {check.schedule}"),
        ("", check.schedule.reference),
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
        ("shows not", _limits(check, runs)),
    ]


def _limits(check: Check, runs: Sequence[Run]) -> str:
    """Return the limits of the check, in a sentence with its own numbers."""
    points = resolution([run.accuracy_percent for run in runs], len(check.data.test_labels))
    seeds = len({run.seed for run in runs})
    parts = [
        "which version is better on other data, at another size or trained for longer",
        f"a difference below about {points:.1f} points: {len(check.data.test_labels):,} test "
        f"images do not tell it from chance, and {seeds} seed"
        f"{'s say' if seeds > 1 else ' says'} little of the spread",
        "the accuracies that the papers print",
        "the speed on another device",
    ]
    return listed(f"({n}) {part}" for n, part in enumerate(parts, start=1))


def resolution(accuracies: Sequence[float], images: int) -> float:
    """Return below how many points two accuracies on so many images may differ by chance alone.

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
