"""`ifspace layout --objective entropy`: what it takes, and what it prints."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, Final

from ifspace.answer import Answer, Status
from ifspace.cli.options import Forms
from ifspace.errors import SettingError
from ifspace.serialize import json_text
from ifspace.stages.entropy.problem import EntropyPlan, EntropyProblem
from ifspace.stages.layout import Layout
from ifspace.stages.limits import StageLimits, merged
from ifspace.table import Table, facts

# Options of `ifspace layout` that describe a layout of bottlenecks by its entropy.
TAKEN: Final = frozenset(
    {"objective", "params", "macs", "input", "classes", "max_depth", "stage", "time_limit", "save"}
)
SIDE: Final = 224
_COLUMNS: Final = (
    ">stage",
    ">side",
    ">width",
    ">depth",
    ">bottleneck",
    ">kernel",
    ">entropy",
    ">effectiveness",
    ">params",
    ">MACs",
)


def entropy_problem(
    params: int | None,
    macs: int | None,
    side: int | None = None,
    max_depth: int | None = None,
    limits: Sequence[str] = (),
) -> EntropyProblem:
    """Return the problem within budgets, with the limits of single stages.

    Raises: SettingError without both budgets, for a side that the strides do not divide, or limits
        that leave a stage nothing.
    """
    if params is None or macs is None:
        missing = [f"--{name}" for name, value in (("params", params), ("macs", macs)) if not value]
        raise SettingError.because(
            "entropy without budgets",
            got=f"no {' and no '.join(missing)}",
            allowed="both: entropy grows with every channel and block",
            remedy="give both, such as --params 25M --macs 4G",
        )
    problem = EntropyProblem(params=params, macs=macs)
    side = SIDE if side is None else side
    shrinks = 2 * prod(problem.strides)
    if side < 1 or side % shrinks:
        raise SettingError.because(
            "an image that the stages cannot halve",
            got=f"side {side}",
            allowed=f"multiples of {shrinks}",
            remedy=f"--input {max(side - side % shrinks, shrinks)}",
        )
    depths, widths = list(problem.depths), list(problem.widths)
    if max_depth is not None:
        depths = [(least, min(most, max_depth)) for least, most in depths]
    for limit in merged(map(StageLimits.parse, limits)):
        if not limit.stage <= len(depths):
            raise SettingError.because(
                "limits of a stage that is not there",
                got=f"stage {limit.stage}",
                allowed=f"1 to {len(depths)}",
                remedy="count stages from 1",
                argument="stage",
            )
        if rest := set(limit.limited) - {"depth", "width"}:
            raise SettingError.because(
                "a limit that entropy does not take",
                got=", ".join(sorted(rest)),
                allowed="depth, width",
                remedy="leave it out",
                argument="stage",
            )
        for name, ranges in (("depth", depths), ("width", widths)):
            (least, most), (low, high) = limit.range_of(name), ranges[limit.stage - 1]
            ranges[limit.stage - 1] = max(least, low), min(most, high)
    step = problem.step
    widths = [(-(-least // step) * step, most // step * step) for least, most in widths]
    for number, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
        if depth[0] > depth[1] or width[0] > width[1]:
            offered = problem.depths[number - 1], problem.widths[number - 1]
            raise SettingError.because(
                f"limits that leave stage {number} nothing",
                got=f"depth {depth[0]} to {depth[1]}, width {width[0]} to {width[1]}",
                allowed=f"some of depth {offered[0][0]} to {offered[0][1]}, width "
                f"{offered[1][0]} to {offered[1][1]} in steps of {step}",
                remedy="widen them",
                argument="stage",
            )
    return replace(problem, side=side, depths=tuple(depths), widths=tuple(widths))


def refuse_others(given: Sequence[str]) -> None:
    """Check that no option was given that says nothing about bottlenecks and their entropy.

    Raises: SettingError.
    """
    if rest := [name for name in given if name not in TAKEN]:
        raise SettingError.because(
            "options that do not go together",
            got=", ".join(f"--{name.replace('_', '-')}" for name in rest)
            + " with --objective entropy",
            allowed=", ".join(f"--{name.replace('_', '-')}" for name in sorted(TAKEN)),
            remedy="leave the others out: its stages are bottlenecks, with strides 2, 2, 2, 1, 2",
        )


@dataclass(frozen=True, slots=True)
class EntropyReport:
    """The plan that was found and how far from the best it can be."""

    problem: EntropyProblem
    answer: Answer[EntropyPlan]
    classes: int

    @property
    def layout(self) -> Layout | None:
        """The plan as a layout, with its head."""
        plan = self.answer.best
        return None if plan is None else self.problem.layout_of(plan, self.classes)

    @property
    def message(self) -> str:
        """How the search ended, in a sentence."""
        plan, bound = self.answer.best, self.answer.bound
        if plan is None:
            return self._why_no_plan()
        score = self.problem.score_of(plan)
        if self.answer.status is Status.OPTIMAL:
            return f"score {score:,.1f}, proven the largest"
        gap = (bound - score) / abs(score)
        return f"score {score:,.1f}; no layout exceeds {bound:,.1f}: a proven gap of {gap:.2%}"

    def _why_no_plan(self) -> str:
        problem, least = self.problem, self.answer.least
        budgets = f"{problem.params:,} parameters, {problem.macs:,} MACs"
        narrowest = f"the narrowest has {least['params']:,} and {least['macs']:,}"
        if self.answer.status is Status.INFEASIBLE:
            return (
                f"proven: no layout keeps the budgets: got {budgets}; {narrowest}; raise a budget"
            )
        deepest = max(problem.effectiveness_of(problem.least_plan))
        return (
            f"no layout found: got {budgets}; {narrowest}, at d exp(-2H/d) = {deepest:.2f}, of "
            f"which {problem.effectiveness} is allowed; raise a budget or the time, or allow "
            "fewer blocks"
        )

    def forms(self, saved: str | None = None) -> Forms:
        """Return the report in every format; `saved`: the file of the network."""
        table = Table(_COLUMNS, tuple(self._rows()))
        return {
            "table": lambda: self._text(table),
            "json": lambda: json_text(self.values | {"saved": saved}),
            "csv": table.csv,
            "markdown": table.markdown,
        }

    @property
    def values(self) -> dict[str, Any]:
        """The report as JSON has it."""
        plan, problem = self.answer.best, self.problem
        values: dict[str, Any] = {
            "status": self.answer.status.name.lower(),
            "message": self.message,
            "objective": "entropy",
            "bound": self.answer.bound,
            "budgets": {"params": problem.params, "macs": problem.macs},
            "plan": None,
        }
        if plan is None or self.layout is None:
            return values
        score = problem.score_of(plan)
        return values | {
            "gap": (self.answer.bound - score) / abs(score),
            "plan": {
                "score": score,
                "params": problem.params_of(plan),
                "macs": problem.macs_of(plan),
                "stem": plan.stem,
                "stages": [
                    asdict(stage) | {"params": params, "macs": macs}
                    for stage, (params, macs) in zip(
                        plan.stages, self._costs(plan)[1:], strict=True
                    )
                ],
                "entropies": problem.entropies(plan),
                "effectiveness": problem.effectiveness_of(plan),
            },
            "layout": {
                "classes": self.classes,
                "params": self.layout.params,
                "macs": self.layout.macs,
                "widths": self.layout.widths,
                "depths": self.layout.depths,
            },
        }

    def _rows(self) -> list[tuple[Any, ...]]:
        plan, problem = self.answer.best, self.problem
        if plan is None:
            return []
        sides, entropies = problem.sides, problem.entropies(plan)
        costs = self._costs(plan)
        rows: list[tuple[Any, ...]] = [
            ("stem", sides[0], plan.stem, None, None, 3, round(entropies[0], 1), None, *costs[0])
        ]
        for number, stage in enumerate(plan.stages, 1):
            effectiveness = problem.effectiveness_of(plan)[number - 1]
            rows.append(
                (
                    number,
                    sides[number],
                    stage.width,
                    stage.depth,
                    stage.bottleneck,
                    stage.kernel,
                    round(entropies[number], 1),
                    f"{effectiveness:.3f}",
                    *costs[number],
                )
            )
        return rows

    def _costs(self, plan: EntropyPlan) -> list[tuple[int, int]]:
        """Return parameters and MACs of the stem and of each stage."""
        problem, totals = self.problem, [(0, 0)]
        for count in range(len(plan.stages) + 1):
            part = EntropyPlan(plan.stem, plan.stages[:count])
            totals.append((problem.params_of(part), problem.macs_of(part)))
        pairs = pairwise(totals)
        return [(after[0] - before[0], after[1] - before[1]) for before, after in pairs]

    def _text(self, table: Table) -> str:
        plan, problem, layout = self.answer.best, self.problem, self.layout
        if plan is None or layout is None:
            return ""
        params, macs = problem.params_of(plan), problem.macs_of(plan)
        deepest = problem.effectiveness_of(plan)[-1]
        pairs = [
            ("answer", self.message),
            (
                "budgets",
                f"{params:,} of {problem.params:,} parameters ({params / problem.params:.1%}); "
                f"{macs:,} of {problem.macs:,} MACs ({macs / problem.macs:.1%}), norms and "
                "activations counted",
            ),
            (
                "depth",
                f"{deepest:.3f} of {problem.effectiveness} = d exp(-2H/d) at the end",
            ),
            (
                "network",
                f"{layout.params:,} parameters and {layout.macs:,} MACs of its layers, "
                f"{self.classes:,} classes included",
            ),
            (
                "",
                "the score is one of several, and MACs alone order networks as well: "
                "see `ifspace score`",
            ),
        ]
        return table.text() + "\n" + facts(pairs)
