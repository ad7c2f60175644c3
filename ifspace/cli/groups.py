"""`ifspace groups`: the cheapest group counts of a composition, the widest block of a budget."""

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import (
    NO_ANSWER,
    TIME_RAN_OUT,
    Output,
    amount,
    numbers,
    parts,
    ratio,
    seconds,
    shared_options,
    with_options,
)

if TYPE_CHECKING:
    from ifspace.block import Composition
    from ifspace.cli.options import Forms
    from ifspace.plan.groups import GroupsAnswer, GroupsProblem

_OPTIONS = (
    click.option("--channels", "-C", type=int, metavar="N", help="Width C that enters the block."),
    click.option("--out-channels", "-F", type=int, metavar="N",
                 help="Width F that leaves it; C if not given."),
    click.option("--kernel", type=int, metavar="N",
                 help="Kernel size k, odd; that of the block if one is written, else 3."),
    click.option("--stride", type=click.IntRange(1, 2), metavar="1|2", default=1,
                 show_default=True, help="Stride of the first spatial layer."),
    click.option("--bottleneck", type=ratio, metavar="RATIO",
                 help="Width inside is RATIO x F, such as 1/4; F if not given."),
    click.option("--widths", type=numbers, metavar="LIST",
                 help="Widths inside instead: behind each channel-mixing layer but the last."),
    click.option("--overlaps", type=parts, metavar="LIST|free", default="0,0.33,0.5",
                 show_default=True, help="Overlap ratios of RPW, exact; free for every step."),
    click.option("--objective", type=click.Choice(["params", "macs", "activations"]),
                 default="params", show_default=True, help="What the cheapest has least of."),
    click.option("--weights", type=numbers, metavar="P,M,A",
                 help="Minimise P x parameters + M x MACs + A x activations instead."),
    click.option("--budget", type=amount, metavar="N",
                 help="Find the widest block of at most so many parameters."),
    click.option("--alpha", type=ratio, metavar="RATIO", default="1", show_default=True,
                 help="With --budget or --symbolic: F is RATIO x C."),
    click.option("--multiple", type=click.IntRange(1), metavar="N", default=1, show_default=True,
                 help="With --budget: C is a multiple of N."),
    click.option("--symbolic", is_flag=True,
                 help="Formulas in C, F, K and group counts, and what they bound."),
    click.option("--top", type=click.IntRange(1), metavar="K", default=1, show_default=True,
                 help="So many plans, cheapest first."),
    click.option("--time-limit", type=seconds, metavar="SECONDS",
                 help="Stop then, with what was found and its bound."),
)  # fmt: skip
_SHARED: Final = {"composition", "format", "out", "quiet"}
_PROBLEM: Final = {"kernel", "stride", "bottleneck", "overlaps", "time_limit"}
# What can be asked, and the options that each way of asking takes.
_TAKES: Final = {
    "--symbolic": {"symbolic", "kernel", "bottleneck", "alpha"},
    "--budget": _PROBLEM | {"budget", "alpha", "multiple"},
    "--channels": _PROBLEM
    | {"channels", "out_channels", "widths", "objective", "weights", "top"},
}  # fmt: skip


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
    _check_widths(channels, out_channels, *(given["widths"] or ()))
    if symbolic:
        told = context.get_parameter_source("alpha") is click.core.ParameterSource.COMMANDLINE
        output.emit(_formulas(word, kernel, given["bottleneck"], alpha if told else None))
        return
    if channels is None and budget is None:
        raise click.UsageError(
            "Missing option '--channels'; or give --budget to find it, --symbolic to leave it open",
            context,
        )
    try:
        from ifspace.optimize.groups import cheapest_groups
        from ifspace.optimize.widest import widest_block
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ortools":
            raise
        raise click.ClickException(
            "OR-Tools is not installed: group counts are found with it; "
            "install ifspace[solver], or ask for --symbolic"
        ) from None
    if budget is None:
        problem = _problem(word, kernel, channels or 0, out_channels, **given)
        answer = cheapest_groups(problem, top=top, time_limit_s=time_limit)
    else:
        # The width is looked for; until then it is one at which the ratio is whole.
        stand_in = (given["bottleneck"] or Fraction(1)).denominator
        problem = _problem(word, kernel, stand_in, None, **given)
        answer = widest_block(problem, budget, alpha, multiple, time_limit_s=time_limit)
    from ifspace.cli.plans import forms, gap_text, message

    asked = "" if budget is None else f"within {budget:,} parameters"
    output.emit(forms(problem, answer, asked), keep=bool(answer.plans))
    _end(context, output, answer, top, message(problem, answer, asked), gap_text(answer))


def _end(
    context: click.Context, output: Output, answer: "GroupsAnswer", top: int, said: str, gap: str
) -> None:
    """Say on stderr what the answer lacks, and set the exit status."""
    if not answer.plans:
        click.echo(f"ifspace: {said}", err=True)
        out_of_time = answer.status.name == "UNKNOWN"
        context.exit(TIME_RAN_OUT if out_of_time else NO_ANSWER)
    if gap:
        output.note(f"not proven: {gap}")
    if len(answer.plans) < top:
        output.note(f"{len(answer.plans)} of the {top} plans asked for were found")


def _check_options(context: click.Context, mode: str) -> None:
    from ifspace.errors import SettingError

    told = click.core.ParameterSource.COMMANDLINE
    names = {each for each in context.params if context.get_parameter_source(each) is told}
    if wrong := sorted(names - _TAKES[mode] - _SHARED):
        if mode == "--channels" and names & {"alpha", "multiple"}:
            mode = "no --budget"
        raise SettingError.because(
            "options that do not go together",
            got=f"{', '.join(map(_flag, wrong))} with {mode}",
            allowed=", ".join(map(_flag, sorted(_TAKES.get(mode, _TAKES["--budget"])))),
            remedy="leave one of them out",
        )
    if {"weights", "objective"} <= names:
        raise SettingError.because(
            "two objectives", got="--objective and --weights", allowed="one of them",
            remedy="leave one out",
        )  # fmt: skip


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_widths(*widths: int | None) -> None:
    from ifspace.plan.legal import MAX_WIDTH, whole_within

    for width in widths:
        if width is not None:
            whole_within(width, "channels", 1, MAX_WIDTH)


def _read(text: str, kernel: int | None, output: Output) -> tuple["Composition", int]:
    """Return the composition and the kernel size that the text and the option mean."""
    from ifspace.block import DEFAULT_KERNEL, Block, Composition
    from ifspace.block.composition import split_terms
    from ifspace.errors import SettingError

    if not any("(" in term for term in split_terms(text)[0]):
        return Composition.parse(text), DEFAULT_KERNEL if kernel is None else kernel
    block = Block.parse(text)
    kernels = {layer.kernel for layer in block.layers if layer.kernel is not None}
    if kernel is None and len(kernels) > 1:
        raise SettingError.because(
            "several kernel sizes", got=", ".join(map(str, sorted(kernels))),
            allowed="one for all spatial layers", remedy="choose it with --kernel",
        )  # fmt: skip
    if kernel is None:
        kernel = min(kernels, default=DEFAULT_KERNEL)
    if any(layer.groups is not None for layer in block.layers):
        output.note(f"the groups of {block} do not count, only {block.composition} does")
    return block.composition, kernel


def _problem(
    word: "Composition", kernel: int, channels: int, out_channels: int | None, **given: Any
) -> "GroupsProblem":
    from ifspace.errors import SettingError
    from ifspace.plan.groups import GroupsProblem

    free = [each.lower() for each in given["overlaps"]] == ["free"]
    weights = given.pop("weights")
    if weights is not None and len(weights) != 3:
        raise SettingError.because(
            "wrong number of weights", got=len(weights),
            allowed="three, of parameters, MACs and activations", remedy="write 0 for none",
        )  # fmt: skip
    return GroupsProblem(
        word, channels, out_channels, kernel=kernel, weights=weights,
        **given | {"overlaps": None if free else given["overlaps"]},
    )  # fmt: skip


def _formulas(
    word: "Composition", kernel: int, bottleneck: Fraction | None, alpha: Fraction | None
) -> "Forms":
    """Return the analysis in symbols in every format, with the greatest width of a budget P."""
    from ifspace.catalogue.export import csv_table, json_text, markdown_table
    from ifspace.optimize.closed_form import analyse, to_latex, to_text, widest

    found = analyse(word, bottleneck is not None, kernel)
    width = widest(word, bottleneck, alpha, kernel)
    groups = {str(name): str(best) for name, best in found.groups}
    values = {
        "composition": str(word),
        "params": str(found.params),
        "ratio": str(found.ratio),
        "condition": str(found.condition),
        "product": None if found.product is None else str(found.product),
        "bound": str(found.bound),
        "ratio_at_optimum": str(found.ratio_at_optimum),
        "widest": f"{width.lhs} = {width.rhs}",
        "reference": found.reference,
    }
    best = "; ".join(f"{name} = {value}" for name, value in groups.items())
    rows = [[name, value or ""] for name, value in values.items()]
    rows += [["groups", best], *(["note", note] for note in found.notes)]

    def latex() -> str:
        import sympy

        return f"{to_latex(found)}\\[ {sympy.latex(width)} \\]\n"

    return {
        "table": lambda: to_text(found) + f"{'greatest width':18}{values['widest']}\n",
        "json": lambda: json_text(values | {"groups": groups, "notes": list(found.notes)}),
        "csv": lambda: csv_table(["name", "value"], rows),
        "markdown": lambda: markdown_table(["name", "value"], rows),
        "latex": latex,
    }
