"""The work of `ifspace optimize`: what the options ask for together, and what is done, in turn."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from ifspace.answer import Status
from ifspace.cli.options import Output
from ifspace.cli.progress import ProgressBar
from ifspace.errors import IfspaceError, SettingError
from ifspace.models.analysis import Report, report_on
from ifspace.models.decomposition import (
    Decomposition,
    decomposed,
    decomposition_of,
    plan_decomposition,
)
from ifspace.models.files import save
from ifspace.models.graph import Trace
from ifspace.models.options import Source
from ifspace.models.reorganization import (
    Reorganization,
    plan_reorganization,
    reorganized,
)
from ifspace.models.sources import on_shapes
from ifspace.models.tracing import trace
from ifspace.models.warm_start import random_images
from ifspace.stages.latency import LatencyTable
from ifspace.stages.problem import parse_block

# Each says something of the blocks, and says nothing where there are to be none.
_OF_BLOCKS: Final = (
    "blocks_only",
    "names",
    "least_channels",
    "objective",
    "latency",
    "latency_budget_ms",
    "warm_start",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. None, and False of a flag, stand for what was not.

    Raises: SettingError for options that do not go together.
    """

    source: Source
    params: int | None
    macs: int | None
    stages_only: bool
    moves: int | None
    theta: float | None
    alpha: float
    block: str | None
    blocks: Sequence[str] | None
    cheapest: bool
    blocks_only: bool
    names: Sequence[str] | None
    least_channels: int | None
    objective: str | None
    latency: LatencyTable | None
    latency_budget_ms: Fraction | None
    warm_start: bool
    time_limit: float | None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        which = self._given("block", "blocks", "cheapest")
        budgets = self._given("params", "macs", "latency_budget_ms")
        timed = self.latency_budget_ms is not None or self.objective == "latency_ms"
        for wrong, got, allowed in (
            (len(which) > 1, which, "one of them; --blocks takes several"),
            (
                not which,
                [*self._given(*_OF_BLOCKS), "no block"],
                "--block, --blocks or --cheapest beside them",
            ),
            (self.stages_only, ["stages_only", *which], "--stages-only without blocks"),
            (
                self.blocks_only,
                ["blocks_only", *self._given("moves", "theta")],
                "--moves and --theta where stages are reorganized",
            ),
            (
                bool(self._given("moves", "theta") and budgets) and not which,
                [*self._given("moves", "theta"), *budgets],
                "moves of the organizer, or the best depths within a budget",
            ),
            (
                not budgets and (self.objective == "keep" or self.block),
                [*self._given("objective"), "no budget"],
                "--objective with --params or --macs; params or macs also with several blocks",
            ),
            (
                timed and self.latency is None,
                ["latency in play", "no --latency"],
                "--latency TABLE.csv beside it",
            ),
            (
                self.latency is not None and not timed,
                ["latency", "nothing that it decides"],
                "--latency-budget-ms or --objective latency_ms beside it",
            ),
        ):
            if wrong and len(got) > 1:
                raise _refused(got, allowed)

    def _given(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name) not in (None, False)]

    @property
    def has_blocks(self) -> bool:
        """Whether convolutions are to be replaced."""
        return bool(self._given("block", "blocks", "cheapest"))

    @property
    def chosen_objective(self) -> str:
        """What decides between blocks."""
        budgets = self._given("params", "macs", "latency_budget_ms")
        return self.objective or ("keep" if budgets else "params")

    @property
    def choices(self) -> dict[str, Any]:
        """The blocks and where they may go, as `plan_decomposition` takes them."""
        least = self.least_channels
        more: dict[str, Any] = {} if least is None else {"least_channels": least}
        if self.cheapest:
            return more | {"block": "cheapest"}
        if self.blocks is not None:
            return more | {"blocks": [parse_block(each) for each in self.blocks]}
        try:
            return more | {"block": parse_block(str(self.block))}
        except IfspaceError as error:
            error.argument = None  # of `--blocks` it speaks where there are several
            raise


@dataclass(frozen=True, slots=True)
class Optimized:
    """What was done: the network before, its stages, its blocks, the network after.

    A step that was not asked for is None, and `after` where nothing keeps the budgets. `between`
    is the network with its stages reorganized and its convolutions as they were.
    """

    wanted: Wanted
    before: Report
    stages: Reorganization | None
    between: Report | None = None
    blocks: Decomposition | None = None
    after: Report | None = None
    saved: str | None = None

    @property
    def out_of_time(self) -> bool:
        """Whether time ran out before anything was found."""
        searches = [each.answer for each in (self.stages, self.blocks) if each is not None]
        return any(each is not None and each.status is Status.UNKNOWN for each in searches)


def optimized(wanted: Wanted, output: Output, path: Path | None) -> Optimized:
    """Do what is wanted and return it; the network is written to the path, if any.

    Raises: SettingError, DeviceError, KernelError and OutputError as the library does.
    """
    work = _Work(wanted, output, path)
    stages = work.stages()
    if stages is not None and stages.answer is not None and not stages.answer.plans:
        return Optimized(wanted, work.before, stages)
    between = work.reorganize(stages)
    if not wanted.has_blocks:
        return Optimized(wanted, work.before, stages, after=between, saved=work.save())
    blocks = work.blocks()
    if blocks.answer is not None and blocks.answer.best is None:
        return Optimized(wanted, work.before, stages, between, blocks)
    blocks = work.replace(blocks)
    after = work.look()
    return Optimized(wanted, work.before, stages, between, blocks, after, work.save())


class _Work:
    """The network, step by step what it has become."""

    def __init__(self, wanted: Wanted, output: Output, path: Path | None) -> None:
        self.wanted, self.output, self.path = wanted, output, path
        self.deadline = None
        if wanted.time_limit is not None:
            self.deadline = time.monotonic() + wanted.time_limit
        source = wanted.source
        # What is written or fitted has values; all else is known from shapes.
        if wanted.warm_start or path is not None:
            self.model, self.trace = _traced(source, source.build())
        else:
            self.model, self.trace = on_shapes(source.build, lambda made: _traced(source, made))
        self.before = report_on(self.trace, self.model, wanted.alpha)

    def look(self) -> Report:
        """Return the analysis of the network as it is now."""
        self.model, self.trace = _traced(self.wanted.source, self.model)
        return report_on(self.trace, self.model, self.wanted.alpha)

    def stages(self) -> Reorganization | None:
        """Return what becomes of the stages, None where blocks are wanted and no unit can move."""
        wanted = self.wanted
        params, macs = (None, None) if wanted.has_blocks else (wanted.params, wanted.macs)
        try:
            plan = plan_reorganization(
                self.model,
                self.trace,
                params,
                macs,
                theta=wanted.theta or 0,
                alpha=wanted.alpha,
                time_limit_s=wanted.time_limit,
            )
        except SettingError as error:
            # Without blocks, or when moves were asked for, there is nothing else to do.
            if error.argument != "model" or not wanted.has_blocks or wanted.moves:
                raise
            if not wanted.blocks_only:
                self.output.note("the stages stay as they are: no unit of the network can move")
            return None
        # All states of the organizer are shown, whichever is taken.
        moves = 0 if wanted.blocks_only else wanted.moves
        if moves is None:
            return plan
        if moves >= len(plan.states):
            count = len(plan.states) - 1
            many = f"{count} move{'s' * (count != 1)}"
            self.output.note(f"the organizer makes {many}: its end is taken")
        return replace(plan, end=plan.states[min(moves, len(plan.states) - 1)])

    def reorganize(self, plan: Reorganization | None) -> Report:
        """Change the stages as planned, and return the analysis of what that makes."""
        if plan is None or plan.end.depths == plan.start.depths:
            return self.before
        self.model = reorganized(self.model, plan, self.wanted.source.seed or 0)
        return self.look()

    def blocks(self) -> Decomposition:
        """Return which convolutions become which block.

        Raises: SettingError when none can.
        """
        wanted = self.wanted
        left = None
        if self.deadline is not None:
            left = max(0.0, self.deadline - time.monotonic())
        plan = plan_decomposition(
            self.model,
            self.trace,
            **wanted.choices,
            names=wanted.names,
            params=wanted.params,
            macs=wanted.macs,
            latency=wanted.latency,
            latency_budget_ms=wanted.latency_budget_ms,
            objective=wanted.chosen_objective,
            time_limit_s=left,
        )
        if plan.answer is None and not plan.replaced:
            reasons = Counter(each.reason for each in plan.skipped).most_common(1)
            why = [f"{count} layers: {reason}" for reason, count in reasons]
            raise SettingError.because(
                "no convolution to replace",
                got=why[0] if why else "no 3 x 3 convolution",
                allowed="plain 3 x 3 convolutions that the block fits",
                remedy="name layers with --names, lower --least-channels, or give another block",
            )
        return plan

    def replace(self, plan: Decomposition) -> Decomposition:
        """Put the blocks in; return the plan with the fits of a warm start."""
        source = self.wanted.source
        seed = source.seed or 0
        images = None
        if self.wanted.warm_start:
            images = random_images(source.image, seed, next(self.model.parameters()))
        with ProgressBar("fitting blocks", quiet=self.output.quiet) as bar:
            self.model = decomposed(self.model, plan, source.image, images, seed, bar)
        return decomposition_of(self.model) or plan

    def save(self) -> str | None:
        """Write the network where that was asked for, and say so."""
        if self.path is None:
            return None
        save(self.model, self.path, self.wanted.source.image)
        params = sum(each.numel() for each in self.model.parameters())
        self.output.note(f"saved: {self.path}, {params:,} parameters")
        return str(self.path)


def _traced(source: Source, model: Any) -> tuple[Any, Trace]:
    return model, trace(model, source.image)


def _refused(names: Sequence[str], allowed: str) -> SettingError:
    known = {each.name for each in fields(Wanted)}
    first, *others = [f"--{n.replace('_', '-')}" if n in known else n for n in names]
    return SettingError.because(
        "options that do not go together",
        got=f"{first} with {', '.join(others)}",
        allowed=allowed,
        remedy="leave one out, or add what is missing",
    )
