"""`ifspace groups`: the cheapest group counts of a composition, the widest block of a budget."""

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import (
    Output,
    amount,
    numbers,
    parts,
    ratio,
    seconds,
    shared_options,
    with_options,
)
from ifspace.cli.solved import check_solver, no_plan

if TYPE_CHECKING:
    from ifspace.block import Composition
    from ifspace.groups.problem import (
        GroupsAnswer,
        GroupsProblem,
    )
    from ifspace.groups.text import Budget


_OPTIONS = (
    click.option("--channels", "-C", type=int, metavar="N", help="Width C that enters the block."),
    click.option(
        "--out-channels",
        "-F",
        type=int,
        metavar="N",
        help="Width F that leaves it; C if not given.",
    ),
    click.option(
        "--kernel",
        type=int,
        metavar="N",
        help="Kernel size k, odd; that of the block if one is written, else 3.",
    ),
    click.option(
        "--stride",
        type=click.IntRange(1, 2),
        metavar="1|2",
        default=1,
        show_default=True,
        help="Stride of the first spatial layer.",
    ),
    click.option(
        "--bottleneck",
        type=ratio,
        metavar="RATIO",
        help="Width inside is RATIO x F, such as 1/4; F if not given.",
    ),
    click.option(
        "--widths",
        type=numbers,
        metavar="LIST",
        help="Widths inside instead: behind each channel-mixing layer but the last.",
    ),
    click.option(
        "--overlaps",
        type=parts,
        metavar="LIST|free",
        default="0,0.33,0.5",
        show_default=True,
        help="Overlap ratios of RPW, exact; free for every step.",
    ),
    click.option(
        "--objective",
        type=click.Choice(["params", "macs", "activations"]),
        default="params",
        show_default=True,
        help="What the cheapest has least of.",
    ),
    click.option(
        "--weights",
        type=numbers,
        metavar="P,M,A",
        help="Minimise P x parameters + M x MACs + A x activations instead.",
    ),
    click.option(
        "--budget",
        type=amount,
        metavar="N",
        help="Find the widest block of at most so many parameters.",
    ),
    click.option(
        "--alpha",
        type=ratio,
        metavar="RATIO",
        default="1",
        show_default=True,
        help="With --budget or --symbolic: F is RATIO x C.",
    ),
    click.option(
        "--multiple",
        type=click.IntRange(1),
        metavar="N",
        default=1,
        show_default=True,
        help="With --budget: C is a multiple of N.",
    ),
    click.option(
        "--symbolic",
        is_flag=True,
        help="Formulas in C, F, K and group counts, and what they bound.",
    ),
    click.option(
        "--top",
        type=click.IntRange(1),
        metavar="K",
        default=1,
        show_default=True,
        help="So many plans, cheapest first.",
    ),
    click.option(
        "--time-limit",
        type=seconds,
        metavar="SECONDS",
        help="Stop then, with what was found and its bound.",
    ),
)
_SHARED: Final = {"composition", "format", "out", "quiet"}
_PROBLEM: Final = {"kernel", "stride", "bottleneck", "overlaps", "time_limit"}
# What can be asked, and the options that each way of asking takes.
_TAKES: Final = {
    "--symbolic": {"symbolic", "kernel", "bottleneck", "alpha"},
    "--budget": _PROBLEM | {"budget", "alpha", "multiple"},
    "--channels": _PROBLEM | {"channels", "out_channels", "widths", "objective", "weights", "top"},
}
_LOOKS: Final = "--budget looks for the width"
_COUNTS: Final = "--budget counts parameters alone"
# Why a budget refuses the options that a given width takes.
_NO_BUDGET: Final = {
    "channels": _LOOKS,
    "out_channels": f"{_LOOKS}, --alpha says F",
    "widths": f"{_LOOKS}, --bottleneck says those inside",
    "objective": _COUNTS,
    "weights": _COUNTS,
    "top": "--budget finds the widest block alone",
}


@click.command("groups", short_help="Find the cheapest group counts, or the widest block.")
@click.argument("composition")
@with_options(_OPTIONS)
@shared_options("latex")
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    composition: str,
    channels: int | None,
    out_channels: int | None,
    kernel: int | None,
    budget: int | None,
    alpha: Fraction,
    multiple: int,
    symbolic: bool,
    top: int,
    time_limit: float | None,
    **given: Any,
) -> None:
    """Find the groups, shuffles and overlaps that make COMPOSITION cheapest at the full field.

    COMPOSITION is written like DW+RPW+SH+GPW, (DW+RPW)x2 for two copies; of a block with its
    groups the composition counts. The answer is proven, or it has a bound. Amounts may end in k,
    M or G. Exit status 3 when no choice has the full field, 4 when the time limit came first.
    """
    mode = "--symbolic" if symbolic else "--channels" if budget is None else "--budget"
    _check_options(context, mode)
    word, kernel = _read(composition, kernel, output)
    if symbolic:
        told = context.get_parameter_source("alpha") is click.core.ParameterSource.COMMANDLINE
        from ifspace.groups.text import symbolic_forms

        output.emit(symbolic_forms(word, kernel, given["bottleneck"], alpha if told else None))
        return
    if channels is None and budget is None:
        raise click.UsageError(
            "Missing option '--channels'; or give --budget to find it, --symbolic to leave it open",
            context,
        )
    check_solver("group counts", ", or ask for --symbolic")
    from ifspace.groups.solve import cheapest_groups
    from ifspace.groups.text import (
        Budget,
        forms,
        gap_text,
        message,
    )

    started = time.monotonic()
    if budget is None:
        asked = None
        problem = _problem(word, kernel, channels or 0, out_channels, **given)
        answer = cheapest_groups(problem, top=top, time_limit_s=time_limit)
    else:
        asked = Budget(budget, multiple, alpha)
        problem, answer = _widest(output, word, kernel, asked, alpha, time_limit, **given)
    out_of_time = time_limit is not None and time.monotonic() - started >= time_limit
    output.emit(forms(problem, answer, asked), keep=bool(answer.plans))
    if not answer.plans:
        no_plan(context, message(problem, answer, asked), answer.status.name == "UNKNOWN")
    for note in _notes(answer, top, gap_text(answer), out_of_time):
        output.note(note)


def _widest(
    output: Output,
    word: "Composition",
    kernel: int,
    asked: "Budget",
    alpha: Fraction,
    time_limit: float | None,
    **given: Any,
) -> tuple["GroupsProblem", "GroupsAnswer"]:
    from ifspace.cli.progress import ProgressBar
    from ifspace.groups.solve import widest_block
    from ifspace.values import MAX_WIDTH

    # The width is looked for; until then it is one at which the ratio is whole.
    stand_in = min((given["bottleneck"] or Fraction(1)).denominator, MAX_WIDTH)
    problem = _problem(word, kernel, stand_in, None, **given)
    with ProgressBar("trying widths", quiet=output.quiet) as progress:
        answer = widest_block(
            problem,
            asked.params,
            alpha,
            asked.multiple,
            time_limit_s=time_limit,
            progress=progress,
        )
    return problem, answer


def _notes(answer: "GroupsAnswer", top: int, gap: str, out_of_time: bool) -> Iterator[str]:
    """Say what the answer lacks."""
    if gap:
        yield f"not proven: {gap}"
    if len(answer.plans) < top:
        found = f"{len(answer.plans)} of the {top} plans asked for were found"
        yield f"time ran out: {found}" if out_of_time else found
    elif top > 1 and out_of_time and not gap:
        yield "time ran out: the first plan is proven, the last may not be the next best"


def _check_options(context: click.Context, mode: str) -> None:
    from ifspace.errors import SettingError

    told = click.core.ParameterSource.COMMANDLINE
    names = {each for each in context.params if context.get_parameter_source(each) is told}
    if wrong := sorted(names - _TAKES[mode] - _SHARED):
        remedy = "leave one of them out"
        if mode == "--channels":
            # Only what a budget takes is left, and that looks for the width.
            mode = "no --budget"
            remedy = "add --budget" + " in place of --channels" * ("channels" in names)
        elif mode == "--budget":
            reasons = dict.fromkeys(_NO_BUDGET[each] for each in wrong if each in _NO_BUDGET)
            remedy += "".join(f"{', ' if n else ': '}{why}" for n, why in enumerate(reasons))
        raise SettingError.because(
            "options that do not go together",
            got=f"{', '.join(map(_flag, wrong))} with {mode}",
            allowed=", ".join(map(_flag, sorted(_TAKES.get(mode, _TAKES["--budget"])))),
            remedy=remedy,
        )
    if {"weights", "objective"} <= names:
        raise SettingError.because(
            "two objectives",
            got="--objective and --weights",
            allowed="one of them",
            remedy="leave one out",
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _read(text: str, kernel: int | None, output: Output) -> tuple["Composition", int]:
    """Return the composition and the kernel size that the text and the option mean."""
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


def _problem(
    word: "Composition", kernel: int, channels: int, out_channels: int | None, **given: Any
) -> "GroupsProblem":
    from ifspace.groups.problem import GroupsProblem

    free = [each.lower() for each in given["overlaps"]] == ["free"]
    return GroupsProblem(
        word,
        channels,
        out_channels,
        kernel=kernel,
        **given | {"overlaps": None if free else given["overlaps"]},
    )
