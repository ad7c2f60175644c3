"""`ifspace organize` and `ifspace layout`: their options, and the layout that these describe."""

import re
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import (
    Output,
    amount,
    decimal,
    numbers,
    parts,
    seconds,
    shared_options,
    with_options,
)
from ifspace.cli.saving import check_files, save_layout, save_option
from ifspace.cli.solved import check_solver, no_plan

if TYPE_CHECKING:
    from ifspace.block import Block
    from ifspace.stages.layout import Layout
    from ifspace.stages.problem import StagesProblem, Unit

FIRST_WIDTH, LAST_WIDTH = 64, 512
INPUTS, KERNEL, SIDE = 3, 3, 32


def image(text: str) -> int:
    """Return the side of a square image of three channels.

    >>> image("32"), image("3x224x224")
    (32, 224)
    """
    packed = text.strip().lower().replace("×", "x")
    match = re.fullmatch(r"([0-9]{1,6})|3x([0-9]{1,6})x\2", packed)
    if match is None:
        raise click.BadParameter(f"got {text!r}; allowed: 32, 224, 3x32x32 or 3x224x224")
    return int(match[1] or match[2])


stage_options: Final = (
    click.option(
        "--stages",
        type=numbers,
        metavar="LIST",
        help="Sides of the stages in pixels, such as 32,16,8,4,2.",
    ),
    click.option(
        "--depths",
        type=numbers,
        metavar="LIST",
        help="Blocks of each stage; those of the network if not given.",
    ),
    click.option(
        "--widths",
        type=numbers,
        metavar="LIST",
        help=f"Channels of each stage; {FIRST_WIDTH} doubling up to {LAST_WIDTH} if not given.",
    ),
    click.option(
        "--inputs",
        type=click.IntRange(1),
        metavar="N",
        help=f"Channels that enter the first stage; {INPUTS} if not given.",
    ),
    click.option(
        "--kernel",
        type=int,
        metavar="N",
        help="Kernel of CONV and of each spatial kind that is written without one; "
        f"{KERNEL} if not given.",
    ),
    click.option(
        "--network",
        metavar="NAME",
        help="A network of the papers instead of --stages, such as vgg16 or resnet50.",
    ),
    click.option(
        "--input",
        type=image,
        metavar="SIDE",
        help="With --network: 32 or 224, or 3x32x32 or 3x224x224; 32 if not given.",
    ),
)


def block_list(text: str) -> tuple[str, ...]:
    """Return the blocks between commas; those inside parentheses belong to the block.

    >>> block_list("CONV, DW+RPW(8,1/2)")
    ('CONV', 'DW+RPW(8,1/2)')
    """
    found = tuple(part.strip() for part in re.split(r",(?![^()]*\))", text))
    if not all(found):
        raise click.BadParameter(f"got {text!r}; allowed: blocks between commas")
    return found


def read_layout(
    stages: tuple[int, ...] | None,
    depths: tuple[int, ...] | None,
    widths: tuple[int, ...] | None,
    inputs: int | None,
    kernel: int | None,
    network: str | None,
    input: int | None,
    blocks: tuple[str, ...] | None = None,
) -> "Layout":
    """Return the layout that the options describe.

    Raises: SettingError for options that do not go together or lists that do not fit.
    """
    if network is not None:
        own = {
            "stages": stages,
            "widths": widths,
            "inputs": inputs,
            "kernel": kernel,
            "blocks": blocks,
        }
        if given := ", ".join(f"--{name}" for name, value in own.items() if value is not None):
            raise _refused(
                "options that do not go together",
                f"{given} with --network",
                "--depths, --input",
                "leave them out, or --network",
            )
        return _network(network, SIDE if input is None else input, depths)
    if input is not None:
        raise _refused(
            "options that do not go together",
            "--input without --network",
            "--input with --network",
            "use --stages for sides, --inputs for channels",
        )
    if stages is None or depths is None:
        absent = [name for name, value in (("stages", stages), ("depths", depths)) if not value]
        raise _refused(
            "stages half described" if len(absent) == 1 else "no stages",
            " and ".join(f"no --{name}" for name in absent),
            "--stages and --depths, or --network",
            "say what is missing",
        )
    from ifspace.stages.layout import Frame
    from ifspace.stages.networks import stages as made_of

    texts = blocks or ("CONV",)
    texts = texts * len(stages) if len(texts) == 1 else texts
    units = [_own_block(text, KERNEL if kernel is None else kernel) for text in texts]
    wide = widths or tuple(min(FIRST_WIDTH << n, LAST_WIDTH) for n in range(len(stages)))
    return made_of(units, stages, wide, depths, frame=Frame(inputs=inputs or INPUTS))


def note_left_open(
    output: Output, layout: "Layout", network: str | None, widths: tuple[int, ...] | None
) -> None:
    """Say which widths stand for none given, and what a layout without a network's name lacks."""
    if network is None:
        said = "" if widths else f"widths {', '.join(map(str, layout.widths))}; "
        output.note(f"{said}counted without batch norm, biases and classifier, which --network has")


def _network(name: str, side: int, depths: tuple[int, ...] | None) -> "Layout":
    from ifspace.stages.layout import MAX_DEPTH
    from ifspace.stages.networks import network
    from ifspace.values import whole_number

    layout = network(name, side)
    if depths is None:
        return layout
    return layout.at_depths([whole_number(each, "depths", 1, MAX_DEPTH) for each in depths])


def _refused(fact: str, got: str, allowed: str, remedy: str) -> Exception:
    from ifspace.errors import SettingError

    return SettingError.because(fact, got=got, allowed=allowed, remedy=remedy)


def _own_block(text: str, kernel: int) -> "Block":
    """Return the block; what is wrong with it is said of --blocks or --kernel."""
    from ifspace.errors import IfspaceError

    try:
        return read_block(text, kernel)
    except IfspaceError as error:
        if error.argument != "kernel":
            error.argument = "blocks"
        raise


def read_block(text: str, kernel: int = KERNEL) -> "Block":
    """Return a block whose spatial layers have a kernel of their own or else the one given.

    >>> str(read_block("CONV+DW(3)+PW", 5))
    'CONV(5)+DW+PW'

    Raises: BlockError for what is no block; SettingError for one without its groups, or an even
        kernel.
    """
    from ifspace.block import Block, split_terms
    from ifspace.errors import SettingError
    from ifspace.kinds import find_kind
    from ifspace.values import MAX_WIDTH, odd_number

    odd_number(kernel, "kernel", 1, MAX_WIDTH - 1)
    terms, _ = split_terms(text)
    for term in terms:
        kind = find_kind(term.partition("(")[0])
        if kind.takes_groups and "(" not in term:
            raise SettingError.because(
                "a block without its groups",
                got=f"{kind.symbol} in {text}",
                allowed=f"groups behind each kind that takes them, such as {kind.symbol}(4)",
                remedy="write them, or let `ifspace groups` or `ifspace layout` find them",
                argument="blocks",
            )
    block = Block.parse(text)
    layers = [
        layer
        if layer.kernel is None or _has_kernel(term, layer.conv.takes_groups)
        else replace(layer, kernel=kernel)
        for layer, term in zip(block.layers, terms, strict=True)
    ]
    return replace(block, layers=tuple(layers))


def _has_kernel(term: str, takes_groups: bool) -> bool:
    return "k=" in term.lower() or (not takes_groups and "(" in term)


ALPHA = 3.0


def decimals(text: str) -> tuple[float, ...]:
    """Return the numbers between commas, each once.

    >>> decimals("1,3,3")
    (1.0, 3.0)
    """
    return tuple(dict.fromkeys(map(decimal, parts(text))))


_ORGANIZE_OPTIONS = (
    *stage_options,
    click.option(
        "--blocks",
        type=block_list,
        metavar="LIST",
        help="The block that the stages repeat, or one for each; CONV if not given.",
    ),
    click.option(
        "--theta",
        type=decimal,
        metavar="T",
        default="0",
        show_default=True,
        help="A block moves for a gain above it, and goes for one below it.",
    ),
    click.option(
        "--alpha",
        type=decimals,
        metavar="LIST",
        default="3",
        show_default=True,
        help="The decay of the gain; of several the moves are compared.",
    ),
    click.option("--moves", type=click.IntRange(0), metavar="N", help="Stop after so many steps."),
    save_option,
)


@click.command("organize", short_help="Move blocks between stages to where they gain most.")
@with_options(_ORGANIZE_OPTIONS)
@shared_options()
def organize_command(
    output: Output,
    theta: float,
    alpha: tuple[float, ...],
    moves: int | None,
    save: Path | None,
    **described: Any,
) -> None:
    """Move the last block of the stage where it gains least to where one more gains most.

    The stages are described by --stages and --depths, or by --network. Gains are those of the
    information field; the step repeats until nothing is left to gain. A rule of thumb, no optimum.
    --save writes the end, for the α that is shown, as a network of torch modules.
    """
    from ifspace.stages.networks import published_layouts
    from ifspace.stages.organizer import organize
    from ifspace.stages.text import (
        OrganizeReport,
        organize_forms,
    )

    layout = read_layout(**described)
    check_files(output, save)
    found = {each: organize(layout, theta, each, moves) for each in alpha}
    network, side = described["network"], described["input"] or SIDE
    title = f"Organizer on {network.lower()} at {side}×{side}" if network else "Organizer"
    published = published_layouts(network, side) if network else ()
    shown = ALPHA if ALPHA in alpha else alpha[0]
    note_left_open(output, layout, described["network"], described["widths"])
    saved = save_layout(output, save, found[shown].end, network)
    output.emit(
        organize_forms(OrganizeReport(title, network, published, theta, shown), found, saved)
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


_LAYOUT_OPTIONS = (
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
@with_options(_LAYOUT_OPTIONS)
@shared_options()
@click.pass_context
def layout_command(
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
    from ifspace.stages.organizer import organize
    from ifspace.stages.text import (
        OrganizerComparison,
        layout_forms,
        message,
    )

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
    beside = OrganizerComparison(problem, way, begins)
    widths = start.widths if problem.widths else described["widths"]
    note_left_open(output, start, described["network"], widths)
    if answer.left_out:
        more = len(answer.left_out) - 1
        also = f", and {more} more" if more else ""
        output.note(f"left out: {answer.left_out[0]}{also}")
    best = answer.plans[0].layout if answer.plans else None
    saved = save_layout(output, save, best, described["network"])
    output.emit(layout_forms(problem, answer, beside, saved), keep=bool(answer.plans))
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
