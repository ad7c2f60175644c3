"""`ifspace layout`: depths, widths and blocks of stages within budgets, proven."""

import re
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import (
    Output,
    amount,
    decimal,
    numbers,
    seconds,
    shared_options,
    with_options,
)
from ifspace.cli.saving import check_files, save_layout, save_option
from ifspace.cli.solved import check_solver, no_plan
from ifspace.stages.options import (
    KERNEL,
    block_list,
    note_left_open,
    read_block,
    read_layout,
    stage_options,
)

if TYPE_CHECKING:
    from ifspace.stages.layout import Layout
    from ifspace.stages.problem import (
        StagesProblem,
        Unit,
    )


# What describes the start beside the kernel.
DESCRIBED: Final = ("stages", "depths", "widths", "inputs", "network", "input")
# Choices of one stage from those of the next.
BETWEEN_STAGES: Final = ";"


def milliseconds(text: str) -> Fraction:
    """Return a time in milliseconds, exactly.

    >>> milliseconds("1.5")
    Fraction(3, 2)
    """
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
        raise click.BadParameter(f"got {text!r}; allowed: milliseconds such as 1.5 or 20")
    return Fraction(text.strip())


def width_lists(text: str) -> tuple[tuple[int, ...], ...]:
    """Return lists of widths, one for all stages or one for each.

    >>> width_lists("16,32; 64")
    ((16, 32), (64,))
    """
    lists = (numbers(each) for each in text.split(BETWEEN_STAGES))
    return tuple(tuple(dict.fromkeys(each)) for each in lists)


def block_lists(text: str) -> tuple[tuple[str, ...], ...]:
    """Return lists of blocks, one for all stages or one for each.

    >>> block_lists("CONV,DW+PW; GC(4)+SH(4)+GPW(4)")
    (('CONV', 'DW+PW'), ('GC(4)+SH(4)+GPW(4)',))
    """
    return tuple(tuple(dict.fromkeys(block_list(each))) for each in text.split(BETWEEN_STAGES))


_OPTIONS = (
    *stage_options,
    click.option(
        "--blocks",
        type=block_lists,
        metavar="LIST",
        help="Blocks to choose from, groups left open or given; CONV if not given, or "
        "those of the network. A ; between the lists of the stages.",
    ),
    click.option(
        "--width-choices",
        type=width_lists,
        metavar="LIST",
        help="Widths to choose from, for all stages or, with ; between, for each.",
    ),
    click.option("--monotone", is_flag=True, help="No stage narrower than the one before."),
    click.option(
        "--max-depth",
        type=click.IntRange(1),
        metavar="N",
        default=16,
        show_default=True,
        help="The most blocks of a stage.",
    ),
    click.option("--params", type=amount, metavar="N", help="At most so many parameters."),
    click.option("--macs", type=amount, metavar="N", help="At most so many MACs an image."),
    click.option(
        "--layers",
        type=amount,
        metavar="N",
        help="At most so many layers of blocks, shuffles included.",
    ),
    click.option(
        "--latency",
        type=click.Path(path_type=Path),
        metavar="TABLE.csv",
        help="Measured latencies of the blocks: CSV with the columns block, C, F, side, "
        "stride, batch, device, dtype, latency_ms.",
    ),
    click.option(
        "--latency-budget-ms",
        type=milliseconds,
        metavar="MS",
        help="With --latency: at most so many milliseconds for all blocks.",
    ),
    click.option(
        "--alpha",
        type=decimal,
        metavar="A",
        default="3",
        show_default=True,
        help="The decay of the gain.",
    ),
    click.option(
        "--theta",
        type=decimal,
        metavar="T",
        default="0",
        show_default=True,
        help="The organizer beside: a block moves for a gain above it.",
    ),
    click.option(
        "--moves",
        type=click.IntRange(0),
        metavar="N",
        help="The organizer beside: stop after so many steps.",
    ),
    click.option(
        "--top",
        type=click.IntRange(1),
        metavar="K",
        default=1,
        show_default=True,
        help="So many layouts, best first.",
    ),
    click.option(
        "--time-limit",
        type=seconds,
        metavar="SECONDS",
        help="Stop then, with what was found and its bound.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        metavar="N",
        default=1,
        show_default=True,
        help="Processes that look for open group counts.",
    ),
    save_option,
)


@click.command("layout", short_help="Choose depths, widths and blocks of stages within budgets.")
@with_options(_OPTIONS)
@shared_options()
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    alpha: float,
    theta: float,
    moves: int | None,
    top: int,
    time_limit: float | None,
    jobs: int,
    save: Path | None,
    kernel: int | None,
    **asked: Any,
) -> None:
    """Find the stage layout of greatest total gain of the information field within budgets.

    The stages are described by --stages, or by --network. From --depths, or those of the network,
    the greedy organizer starts (see `ifspace organize`), whose answer stands beside; without a
    budget their parameters and MACs are kept. Gain does not reward width: among --width-choices
    the narrow ones leave most for depth. Amounts may end in k, M or G. Exit status 3 when no
    layout keeps the budgets, 4 when the time limit came first. --save writes the first layout as a
    network of torch modules; `ifspace.nn.load(FILE)` reads it.
    """
    check_solver("layouts", ", or ask `ifspace organize` for the greedy organizer")
    from ifspace.stages.allocate import best_stages
    from ifspace.stages.layout_text import (
        Beside,
        forms,
        message,
    )
    from ifspace.stages.organizer import organize

    described = {name: asked.pop(name) for name in DESCRIBED}
    begins = described["depths"] is not None or described["network"] is not None
    if not begins and described["stages"] is not None:
        described["depths"] = (1,) * len(described["stages"])
    start = read_layout(kernel=kernel, **described)
    problem = _problem(start, begins, alpha, KERNEL if kernel is None else kernel, **asked)
    check_files(output, save)
    started = time.monotonic()
    answer = best_stages(problem, top, time_limit, jobs)
    out_of_time = time_limit is not None and time.monotonic() - started >= time_limit
    # The organizer has the blocks and widths of the best layout, and where to begin.
    found = answer.plans[0].layout if answer.plans else start
    way = organize(found.at_depths(start.depths), theta, alpha, moves)
    beside = Beside(problem, way, begins)
    widths = start.widths if problem.widths else described["widths"]
    note_left_open(output, start, described["network"], widths)
    if answer.left_out:
        more = len(answer.left_out) - 1
        also = f", and {more} more" if more else ""
        output.note(f"left out: {answer.left_out[0]}{also}")
    best = answer.plans[0].layout if answer.plans else None
    saved = save_layout(output, save, best, described["network"])
    output.emit(forms(problem, answer, beside, saved), keep=bool(answer.plans))
    if not answer.plans:
        no_plan(context, message(problem, answer), answer.status.name == "UNKNOWN")
    if answer.status.name == "FEASIBLE":
        output.note(f"not proven: {message(problem, answer)}")
    if len(answer.plans) < top:
        why = "time ran out" if out_of_time else "there are no more"
        output.note(f"{len(answer.plans)} of the {top} layouts asked for were found: {why}")


def _problem(
    start: "Layout",
    begins: bool,
    alpha: float,
    kernel: int,
    blocks: tuple[tuple[str, ...], ...] | None,
    width_choices: tuple[tuple[int, ...], ...] | None,
    monotone: bool,
    max_depth: int,
    latency: Path | None,
    latency_budget_ms: Fraction | None,
    **budgets: int | None,
) -> "StagesProblem":
    from ifspace.errors import SettingError
    from ifspace.stages.latency import read_latency
    from ifspace.stages.problem import (
        Budgets,
        StagesProblem,
    )

    bounds = Budgets(**budgets, latency_ms=latency_budget_ms)
    if not bounds.given and not begins:
        raise SettingError.because(
            "no budget",
            got="none of --params, --macs, --layers, --latency-budget-ms",
            allowed="at least one; or --depths or --network, whose parameters and MACs are kept",
            remedy="without one the deepest layout gains most",
        )
    if not bounds.given:
        bounds = Budgets(params=start.params, macs=start.macs)
    units = None
    if blocks is not None:
        units = _for_each(
            "blocks",
            tuple(tuple(_unit(text, kernel) for text in each) for each in blocks),
            len(start.stages),
        )
    return StagesProblem(
        start,
        bounds,
        width_choices and _for_each("width_choices", width_choices, len(start.stages)),
        units,
        max_depth,
        alpha,
        monotone,
        None if latency is None else read_latency(latency),
    )


def _for_each(name: str, lists: tuple[Any, ...], stages: int) -> tuple[Any, ...]:
    """Return one list of choices for each stage; one alone is for all."""
    from ifspace.errors import SettingError

    if len(lists) not in (1, stages):
        raise SettingError.because(
            f"wrong number of {name.replace('_', ' ')}",
            got=f"{len(lists)} lists",
            allowed=f"one for all, or {stages}, one for each stage",
            remedy=f"write {BETWEEN_STAGES} between the lists of the stages",
            argument=name,
        )
    return lists if len(lists) == stages else lists * stages


def _unit(text: str, kernel: int) -> "Unit":
    """Return the unit; kinds that take groups have them all, or none does."""
    from ifspace.block import Composition, split_terms
    from ifspace.errors import IfspaceError
    from ifspace.kinds import find_kind
    from ifspace.stages.problem import Unit

    try:
        terms, _ = split_terms(text)
        takes = [term for term in terms if find_kind(term.partition("(")[0]).takes_groups]
        if takes and not any("(" in term for term in takes):
            return Unit(Composition.parse(text), kernel=kernel)
        return Unit.of(read_block(text, kernel))
    except IfspaceError as error:
        if error.argument != "kernel":
            error.argument = "blocks"
        raise
