"""How good layouts of the most entropy are, and how close the bound comes, over time.

`python -m benchmarks.entropy` searches the three tasks that DeepMAD released, on one core, until
the proven gap is small or the time is over, and lets annealing alone have as many seconds of the
processor. It writes `entropy-layouts.md`, `.csv` and `.svg` into `results/`. Seconds are those of
the processor: another load of the machine does not count.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tabulate import tabulate

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.stages.entropy.problem import RELEASED_BUDGETS, EntropyPlan, EntropyProblem
from ifspace.stages.entropy.solve import Tables, anneal, best_entropy

# Scores of the released networks under the same count; the first exceeds its budget of MACs.
RELEASED: Final = {"R18": 32_085.4, "R34": 43_107.9, "R50": 48_884.5}
# What the two marks of the table are taken at.
MARKS_S: Final = (60.0, 600.0)
SEARCH: Final = "search with bound"
ALONE: Final = "annealing alone"
FIGURE: Final = "entropy-layouts.svg"


@dataclass(frozen=True, slots=True)
class Point:
    """What is known after some seconds of the processor."""

    task: str
    method: str
    seconds: float
    score: float
    bound: float | None


def searched(task: str, gap: float, limit_s: float) -> tuple[list[Point], EntropyPlan]:
    """Search a task with its bound; return what was known when, and the plan."""
    points: list[Point] = []
    start = time.process_time()

    def report(_: float, score: float, bound: float) -> None:
        points.append(Point(task, SEARCH, time.process_time() - start, score, bound))

    problem = EntropyProblem(*RELEASED_BUDGETS[task])
    answer = best_entropy(problem, gap, limit_s, report)
    if answer.best is None or problem.why_not(answer.best):
        raise SystemExit(f"{task}: no plan")
    return points, answer.best


def annealed(task: str, limit_s: float) -> list[Point]:
    """Anneal a task again and again for so many seconds."""
    problem = EntropyProblem(*RELEASED_BUDGETS[task])
    tables, best, seed, points = Tables(problem), 0.0, 0, []
    start = time.process_time()
    while time.process_time() - start < limit_s:
        plan, seed = anneal(tables, seed, best or 1e4), seed + 1
        if plan is not None and (score := problem.score_of(plan)) > best:
            best = score
            points.append(Point(task, ALONE, time.process_time() - start, score, None))
    return points


def known_at(points: Sequence[Point], seconds: float) -> Point:
    """Return the last point up to some seconds; the first where there is none."""
    return max((p for p in points if p.seconds <= seconds), key=_seconds, default=points[0])


def _seconds(point: Point) -> float:
    return point.seconds


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw scores and bounds over time, one axis a task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "ifspace"
    figure, axes = pyplot.subplots(1, len(RELEASED), figsize=(12, 3.6), layout="constrained")
    for axis, (task, released) in zip(axes, RELEASED.items(), strict=True):
        for method, value, label, style in (
            (SEARCH, "bound", "bound: no layout exceeds it", "C3-"),
            (SEARCH, "score", "search with bound", "C0-"),
            (ALONE, "score", "annealing alone", "C7--"),
        ):
            own = [p for p in points if (p.task, p.method) == (task, method)]
            seconds = [p.seconds for p in own]
            axis.step(seconds, [getattr(p, value) for p in own], style, where="post", label=label)
        axis.axhline(released, color="C2", linestyle=":", label="released network")
        axis.set(title=task, xlabel="processor seconds", xscale="log")
        axis.margins(x=0)
    axes[0].set_ylabel("score")
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def page(
    points: Sequence[Point], plans: dict[str, EntropyPlan], command: str, gap: float
) -> list[str]:
    """Return the paragraphs of the page."""
    rows = []
    for task, plan in plans.items():
        problem = EntropyProblem(*RELEASED_BUDGETS[task])
        own = [p for p in points if (p.task, p.method) == (task, SEARCH)]
        alone = [p for p in points if (p.task, p.method) == (task, ALONE)]
        early, last = known_at(own, MARKS_S[0]), own[-1]
        two = next((p.seconds for p in own if p.bound and p.bound <= 1.02 * p.score), None)
        rows.append(
            [
                task,
                RELEASED[task],
                early.score,
                _gap(early),
                "not reached" if two is None else round(two),
                last.score,
                last.bound,
                _gap(last),
                round(last.seconds),
                alone[-1].score,
                f"{problem.params_of(plan):,}",
                f"{problem.macs_of(plan):,}",
                plan,
            ]
        )
    header = [
        "task",
        "released",
        "score, 60 s",
        "gap, 60 s",
        "s to a gap of 2%",
        "score at the end",
        "bound",
        "gap",
        "s",
        "annealing alone, as long",
        "params",
        "MACs",
        "layout",
    ]
    table = tabulate(rows, header, tablefmt="github", floatfmt=",.1f")
    return [
        "# Layouts of the most entropy",
        f"Written by {provenance(command)}.",
        "DeepMAD's three tasks: the score of the layout that `ifspace layout --objective "
        "entropy` finds, and the bound that no layout exceeds. Seconds of one core's "
        f"processor time; the search ends at a gap of {gap:.1%}. The layout is recounted "
        "without the solver: it keeps both budgets and the limit of the depth after every "
        "stage. The released R18 exceeds its budget of MACs, R34 and R50 a limit on widths. "
        "Annealing alone spends all of its time on the score, which may be the better one, and "
        "proves nothing.",
        table,
        f"![Score and bound over time]({FIGURE})",
    ]


def _gap(point: Point) -> str:
    return "" if point.bound is None else f"{point.bound / point.score - 1:.2%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Search all tasks and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gap", type=float, default=0.01)
    parser.add_argument("--limit", type=float, default=MARKS_S[1], help="seconds of each task")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    points: list[Point] = []
    plans = {}
    for task in RELEASED_BUDGETS:
        own, plans[task] = searched(task, options.gap, options.limit)
        points += own
        points += annealed(task, own[-1].seconds)
        print(f"{task}: {own[-1].score:,.1f}, bound {own[-1].bound:,.1f}, {own[-1].seconds:.0f} s")
    command = "python -m benchmarks.entropy"
    options.out.mkdir(parents=True, exist_ok=True)
    draw(points, options.out / FIGURE)
    rows = [asdict(point) for point in points]
    text = page(points, plans, command, options.gap)
    write_results(options.out, "entropy-layouts", text, rows, command, [FIGURE])


if __name__ == "__main__":
    main()
