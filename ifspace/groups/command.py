"""`ifspace groups`: cheapest group counts of a composition, or the widest block in a budget."""

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from ifspace.cli.latency import latency_notes, latency_options, read_latencies
from ifspace.cli.options import (
    AMOUNT,
    FLOORS,
    NUMBERS,
    RATIO,
    OneOf,
    Output,
    Parsed,
    WholeNumber,
    floor_options,
    no_plan,
    output_options,
    shared,
    with_options,
)
from ifspace.cli.requirements import check_solver
from ifspace.values import MAX_SIDE, text_list

if TYPE_CHECKING:
    from ifspace.block import Composition
    from ifspace.catalogue.setting import RpwOrder
    from ifspace.floors import Floors
    from ifspace.groups.problem import GroupsAnswer, Weights


def overlaps_or_free(text: str) -> tuple[str, ...] | None:
    """Return the overlap ratios between commas, or None for `free`.

    >>> overlaps_or_free("0,1/2"), overlaps_or_free("Free")
    (('0', '1/2'), None)
    """
    return None if text.strip().lower() == "free" else text_list(text)


_OPTIONS = (
    shared("channels", help="Width C that enters the block."),
    shared("out-channels", help="Width F that leaves the block; C by default."),
    shared("kernel", help="Kernel size k, odd; by default that of the block, or 3."),
    shared("stride", default=1, help="Stride of the first spatial layer."),
    shared("bottleneck", help="Width inside as a ratio of F, such as 1/4; F by default."),
    click.option(
        "--widths",
        type=NUMBERS,
        metavar="LIST",
        help="Widths inside instead: after each channel-mixing layer but the last.",
    ),
    click.option(
        "--overlaps",
        type=Parsed(overlaps_or_free, "overlap ratios between commas, or free"),
        metavar="LIST|free",
        default="0,0.33,0.5",
        show_default=True,
        help="Overlap ratios of RPW, exact; free for every step.",
    ),
    shared("rpw-order"),
    shared(
        "objective",
        type=OneOf(["params", "macs", "activations", "latency"]),
        help="The amount to minimise; latency needs --latency, and tries every choice.",
    ),
    *latency_options("Shows that of the fastest form of each plan."),
    shared(
        "latency-budget-ms",
        help="With --latency: at most so many milliseconds; tries every choice.",
    ),
    click.option(
        "--side",
        type=WholeNumber(1, MAX_SIDE),
        metavar="N",
        help="Side of the output feature map in pixels: for --peak-memory, and with --latency, "
        "that of the latencies if not given.",
    ),
    shared("peak-memory"),
    click.option(
        "--weights",
        type=NUMBERS,
        metavar="P,M,A",
        help="Minimise P x parameters + M x MACs + A x activations instead.",
    ),
    click.option(
        "--budget",
        type=AMOUNT,
        metavar="N",
        help="Find the widest block of at most N parameters.",
    ),
    click.option(
        "--alpha",
        type=RATIO,
        metavar="RATIO",
        default="1",
        show_default=True,
        help="With --budget or --symbolic: F is RATIO x C.",
    ),
    floor_options(" With --budget C is a multiple of M instead."),
    click.option(
        "--symbolic",
        is_flag=True,
        help="Print formulas in C, F, K and group counts, and what they bound.",
    ),
    shared("top", default=1, help="Number of plans, cheapest first."),
    shared("time-limit", help="Stop then, with the best plan so far and its bound."),
)
_ALWAYS: Final = {"composition", "format", "out", "quiet"}
_PROBLEM: Final = {
    "kernel",
    "stride",
    "bottleneck",
    "overlaps",
    "rpw_order",
    "time_limit",
    "peak_memory",
}
_LATENCY: Final = {"latency", "batch", "device", "dtype", "side"}
# The three modes, each with the options that it takes.
_TAKES: Final = {
    "--symbolic": {"symbolic", "kernel", "bottleneck", "alpha", "rpw_order"},
    "--budget": _PROBLEM | _LATENCY | {*FLOORS, "budget", "alpha"},
    "--channels": _PROBLEM
    | _LATENCY
    | {*FLOORS, "latency_budget_ms"}
    | {"channels", "out_channels", "widths", "objective", "weights", "top"},
}
_OPEN_WIDTH: Final = "--budget looks for the width"
_PARAMS_ALONE: Final = "--budget counts parameters alone"
# Why --budget does not take the options of --channels.
_NOT_WITH_BUDGET: Final = {
    "channels": _OPEN_WIDTH,
    "out_channels": f"{_OPEN_WIDTH}, --alpha says F",
    "widths": f"{_OPEN_WIDTH}, --bottleneck says those inside",
    "objective": _PARAMS_ALONE,
    "weights": _PARAMS_ALONE,
    "latency_budget_ms": _PARAMS_ALONE,
    "top": "--budget finds the widest block alone",
}


@click.command("groups", short_help="Find the cheapest group counts, or the widest block.")
@click.argument("composition")
@with_options(_OPTIONS)
@output_options("latex")
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    composition: str,
    channels: int | None,
    out_channels: int | None,
    kernel: int | None,
    stride: Literal[1, 2],
    bottleneck: Fraction | None,
    widths: tuple[int, ...] | None,
    overlaps: tuple[Any, ...] | None,
    rpw_order: "RpwOrder",
    objective: Literal["params", "macs", "activations", "latency"],
    latency: Path | None,
    batch: int | None,
    device: str | None,
    dtype: str | None,
    latency_budget_ms: Fraction | None,
    side: int | None,
    peak_memory: str | None,
    weights: "Weights | None",
    budget: int | None,
    alpha: Fraction,
    floors: "Floors",
    symbolic: bool,
    top: int,
    time_limit: float | None,
) -> None:
    """Find the groups, shuffles and overlaps that make COMPOSITION cheapest at the full field.

    COMPOSITION is written like DW+RPW+SH+GPW, (DW+RPW)x2 for two copies; of a block with its
    groups the composition counts. The answer is proven, or it has a bound. Amounts may end in k,
    M or G. A latency is no sum over the layers: where it is minimised or bounded every choice is
    tried, in its fastest form. Floors bound the search; those that alone leave no choice are bad
    input. Exit status 3 when no choice has the full field, or none within the latency or the peak
    memory, which groups do not change; 4 when the time limit came first.
    """
    mode = "--symbolic" if symbolic else "--channels" if budget is None else "--budget"
    options = _options_given(context)
    _check_options(options, mode)
    parsed, kernel = _read(composition, kernel, output)
    if symbolic:
        from ifspace.groups.text import symbolic_forms

        ratio_of_widths = alpha if "alpha" in options else None
        output.emit(symbolic_forms(parsed, kernel, bottleneck, ratio_of_widths, rpw_order))
        return
    if channels is None and budget is None:
        raise click.UsageError(
            "Missing option '--channels', unless --budget finds it or --symbolic leaves it open",
            context,
        )
    check_solver("group counts", ", or ask for --symbolic")
    from ifspace.cli.progress import ProgressBar
    from ifspace.errors import SettingError
    from ifspace.groups.entry import groups_problem, solve
    from ifspace.groups.problem import WidestProblem
    from ifspace.groups.solve import Options, params_range, widths_text
    from ifspace.groups.text import gap_text, message, plan_forms
    from ifspace.groups.timed import TimedPlans, timed_groups, times_of
    from ifspace.latency import at_side
    from ifspace.memory import peak_limit

    most_peak = peak_limit(peak_memory, dtype if peak_memory else None, side)
    of_peak = most_peak is not None and latency is None
    source = read_latencies(latency, batch, device, None if of_peak else dtype)
    by_latency = objective == "latency"
    if source is None and (by_latency or latency_budget_ms is not None):
        raise SettingError.because(
            "nothing says how long the blocks take",
            got="--objective latency" if by_latency else "--latency-budget-ms",
            allowed="a model or a table beside it",
            remedy="add --latency MODEL",
        )
    started = time.monotonic()
    asked = groups_problem(
        parsed,
        channels,
        out_channels,
        budget=budget,
        alpha=alpha,
        multiple=floors.multiple,
        widths=widths,
        objective="params" if objective == "latency" else objective,
        weights=weights,
        bottleneck=bottleneck,
        kernel=kernel,
        overlaps=overlaps,
        stride=stride,
        rpw_order=rpw_order,
        floors=floors if budget is None else floors.without("multiple"),
        most_peak=most_peak,
    )
    widest = asked if isinstance(asked, WidestProblem) else None
    if widest is not None and widest.floors and (satisfiable := widths_text(widest)):
        output.note(satisfiable)
    problem = asked.stand_in if isinstance(asked, WidestProblem) else asked
    if widest is None and floors and (bounds := params_range(Options(problem))):
        output.note(f"{problem.composition} at {problem.widths_text}: {bounds}")
    times: TimedPlans | None = None
    decides = by_latency or latency_budget_ms is not None
    quiet = output.quiet or (widest is None and not decides)
    with ProgressBar("trying choices" if decides else "trying widths", quiet=quiet) as progress:
        if source is not None and decides:
            answer, times = timed_groups(
                problem, at_side(source, side), top, by_latency, latency_budget_ms, progress
            )
        else:
            answer = solve(asked, top, time_limit, progress)
            if source is not None:
                times = times_of(answer.plans, at_side(source, side))
    out_of_time = time_limit is not None and time.monotonic() - started >= time_limit
    feature_map = (side, dtype) if most_peak is not None and side and dtype else None
    output.emit(plan_forms(problem, answer, widest, times, feature_map), keep=bool(answer.plans))
    if not answer.plans:
        no_plan(context, message(problem, answer, widest, times), answer.status.value == "unknown")
    if source is not None and times is not None:
        cases = [(plan.sized, plan.problem.stride) for plan in answer.plans]
        for note in latency_notes(source, side, cases):
            output.note(note)
    for note in _notes(answer, top, gap_text(answer), out_of_time):
        output.note(note)


def _notes(answer: "GroupsAnswer", top: int, gap: str, out_of_time: bool) -> Iterator[str]:
    """Yield what the answer lacks: proof, or plans."""
    if gap:
        yield f"not proven: {gap}"
    if len(answer.plans) < top:
        fewer = f"{len(answer.plans)} of the {top} plans asked for were found"
        yield f"time ran out: {fewer}" if out_of_time else fewer
    elif top > 1 and out_of_time and not gap:
        yield "time ran out: the first plan is proven, the last may not be the next best"


def _options_given(context: click.Context) -> set[str]:
    """Return the names of the parameters that were written on the command line."""
    command_line = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is command_line}


def _check_options(options: set[str], mode: str) -> None:
    """Raise for options that the mode does not take."""
    from ifspace.errors import SettingError

    if wrong := sorted(options - _TAKES[mode] - _ALWAYS):
        remedy = "leave one of them out"
        if mode == "--channels":
            # Only options of --budget are left, which looks for the width.
            mode = "no --budget"
            remedy = "add --budget" + " in place of --channels" * ("channels" in options)
        elif mode == "--budget":
            reasons = [_NOT_WITH_BUDGET[name] for name in wrong if name in _NOT_WITH_BUDGET]
            if reasons:
                remedy += f": {', '.join(dict.fromkeys(reasons))}"
        raise SettingError.because(
            "options that do not go together",
            got=f"{', '.join(map(_flag, wrong))} with {mode}",
            allowed=", ".join(map(_flag, sorted(_TAKES.get(mode, _TAKES["--budget"])))),
            remedy=remedy,
        )
    if {"weights", "objective"} <= options:
        raise SettingError.because(
            "two objectives",
            got="--objective and --weights",
            allowed="one of them",
            remedy="leave one out",
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _read(text: str, kernel: int | None, output: Output) -> tuple["Composition", int]:
    """Return the composition and the kernel size of the argument and the option."""
    from ifspace.block import DEFAULT_KERNEL, Block, Composition, split_terms
    from ifspace.errors import SettingError

    if not any("(" in term for term in split_terms(text)[0]):
        return Composition.parse(text), DEFAULT_KERNEL if kernel is None else kernel
    block = Block.parse(text)
    kernels = {layer.kernel for layer in block.layers if layer.kernel is not None}
    if kernel is None and len(kernels) > 1:
        raise SettingError.because(
            "several kernel sizes",
            got=", ".join(map(str, sorted(kernels))),
            allowed="one for all spatial layers",
            remedy="choose it with --kernel",
        )
    if kernel is None:
        kernel = min(kernels, default=DEFAULT_KERNEL)
    if any(layer.groups is not None for layer in block.layers):
        output.note(f"the groups of {block} do not count, only {block.composition} does")
    return block.composition, kernel
