"""`ifspace organize` and `ifspace layout`: their options, and the layout that these describe."""

import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.answer import Status
from ifspace.cli.backend import backend_options
from ifspace.cli.latency import latency_options, notes_at_sides, read_latencies
from ifspace.cli.options import (
    AMOUNT,
    DECIMAL,
    NUMBERS,
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
from ifspace.cli.requirements import ONNX, TORCH, check_installed, check_solver
from ifspace.errors import SettingError
from ifspace.stages.defaults import (
    BARE,
    BOTTLENECKS,
    CLASSES,
    ENTROPY,
    ENTROPY_S,
    EXPANSIONS,
    FIRST_WIDTH,
    FIXED_OBJECTIVE,
    FORMS,
    FREE,
    FREE_OBJECTIVE,
    INNER_BLOCKS,
    INPUTS,
    KERNEL,
    LAST_WIDTH,
    OWN_WIDTHS,
    SIDE,
    STAGE_SEPARATOR,
    STYLE,
    STYLES,
    TYPES,
)
from ifspace.values import (
    amount,
    block_list,
    decimal,
    number_list,
    parse_image_size,
    ratio_from_zero,
    text_list,
)

if TYPE_CHECKING:
    from ifspace.stages.layout import Layout
    from ifspace.stages.problem import StagesProblem

ALPHA: Final = 3.0
# The same command writes the same weights.
SEED: Final = 0
_SAVE_HELP: Final = (
    "Write the network too, with fresh weights, as FILE.safetensors; needs ifspace[torch]."
)


def image(text: str) -> int:
    """Return the side of a square image of three channels.

    >>> image("32"), image("3x224x224")
    (32, 224)
    """
    if text.strip().isdecimal():
        (side,) = number_list(text)
        return side
    try:
        channels, height, width = parse_image_size(text)
    except SettingError:
        raise ValueError(text) from None
    if channels != 3 or height != width:
        raise ValueError(text)
    return height


def check_save(path: Path, suffixes: Sequence[str] = (".safetensors",)) -> None:
    """Check, before a long search, that a network can be written after it; write nothing.

    Raises: OutputError for a wrong suffix or place.
    """
    instead = ", or leave --save out"
    check_installed(TORCH, "networks are written with torch and safetensors", instead)
    from ifspace.nn.files import check_suffix
    from ifspace.storage import check_writable

    if check_suffix(path, suffixes) == ".onnx":
        check_installed(ONNX, "ONNX files are written with them", instead)
    check_writable(path)


def save_layout(
    output: Output,
    path: Path | None,
    layout: "Layout | None",
    network: str | None,
    style: str | None = None,
) -> str | None:
    """Write the network of a layout, in the style of the named network, and say so on stderr.

    `style`: of stages without a network, a name of `defaults.STYLES`.

    Returns the path as it was given, or None where nothing was written.

    Raises: OutputError when it cannot be written.
    """
    if path is None or layout is None:
        return None
    from ifspace.nn.files import save
    from ifspace.nn.network import LAYOUT_STYLES, build_network, style_of

    built = LAYOUT_STYLES.get(style or "") if network is None else style_of(network)
    save(build_network(layout, built, seed=SEED), path)
    output.note(f"saved: {path}, {layout.params:,} parameters, fresh weights of seed {SEED}")
    stem_and_head = layout.stem_and_head
    if network is None and not (stem_and_head.classifier or stem_and_head.batch_norm):
        output.note("no classifier, no batch norm: only a named network has them")
    return str(path)


def decimals(text: str) -> tuple[float, ...]:
    """Return the numbers between commas, each once.

    >>> decimals("1,3,3")
    (1.0, 3.0)
    """
    return tuple(dict.fromkeys(map(decimal, text_list(text))))


def block_lists(text: str) -> tuple[tuple[str, ...], ...]:
    """Return lists of blocks, one for all stages or one for each.

    >>> block_lists("CONV,DW+PW; GC(4)+SH(4)+GPW(4)")
    (('CONV', 'DW+PW'), ('GC(4)+SH(4)+GPW(4)',))
    """
    return tuple(block_list(blocks) for blocks in text.split(STAGE_SEPARATOR))


def stage_blocks(text: str) -> tuple[str, ...]:
    """Return the block of all stages, or one for each, between commas or semicolons.

    >>> stage_blocks("CONV, DW+RPW(8,1/2)") == stage_blocks("CONV; DW+RPW(8,1/2)")
    True
    """
    lists = block_lists(text)
    if len(lists) == 1:
        return lists[0]
    if any(len(blocks) > 1 for blocks in lists):
        raise ValueError(text)
    return tuple(block for (block,) in lists)


def width_lists(text: str) -> tuple[tuple[int, ...], ...]:
    """Return lists of widths, one for all stages or one for each.

    >>> width_lists("16,32; 64")
    ((16, 32), (64,))
    """
    lists = (number_list(widths) for widths in text.split(STAGE_SEPARATOR))
    return tuple(tuple(dict.fromkeys(widths)) for widths in lists)


def widths_or_start(text: str) -> tuple[int, ...] | str:
    """Return one width for each stage, or the word for those of the start.

    >>> widths_or_start("16,32"), widths_or_start("Start")
    ((16, 32), 'start')
    """
    return OWN_WIDTHS if text.strip().lower() == OWN_WIDTHS else number_list(text)


def type_lists(text: str) -> tuple[tuple[str, ...], ...]:
    """Return lists of types of stages, one for all stages or one for each.

    >>> type_lists("basic; inverted, plain")
    (('basic',), ('inverted', 'plain'))
    """
    lists = tuple(text_list(names.lower()) for names in text.split(STAGE_SEPARATOR))
    if any(name not in TYPES for names in lists for name in names):
        raise ValueError(text)
    return lists


def ratios(text: str) -> tuple[Fraction, ...]:
    """Return the exact ratios above 0 between commas, each once.

    >>> ratios("1, 1/4, 6")
    (Fraction(1, 1), Fraction(1, 4), Fraction(6, 1))
    """
    values = tuple(dict.fromkeys(map(ratio_from_zero, text_list(text))))
    if not all(values):
        raise ValueError(text)
    return values


def widths_inside(text: str) -> tuple[Fraction, ...]:
    """Return ratios below 1, or whole channels.

    >>> widths_inside("1/4, 32")
    (Fraction(1, 4), Fraction(32, 1))
    """
    values = ratios(text)
    if any(value > 1 and value.denominator > 1 for value in values):
        raise ValueError(text)
    return values


def strides_or_free(text: str) -> tuple[int, ...] | str:
    """Return a stride for each stage, or the word for those that are chosen.

    >>> strides_or_free("1,2,2"), strides_or_free("Free")
    ((1, 2, 2), 'free')
    """
    return FREE if text.strip().lower() == FREE else number_list(text)


# The amounts of --budgets, and what the options are called that they stand for.
_BUDGET_OPTIONS: Final = {
    "params": "params",
    "macs": "macs",
    "activations": "activations",
    "layers": "layers",
    "latency": "latency_budget_ms",
    "peak-memory": "peak_memory",
}

# Those that are no plain amounts; bytes are read with their --dtype.
_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "latency": ratio_from_zero,
    "peak-memory": str,
}


def named_budgets(text: str) -> dict[str, dict[str, Any]]:
    """Return the options of named budgets.

    >>> named_budgets("edge:params=2M,latency=8 server:macs=1G")["edge"]
    {'params': 2000000, 'latency_budget_ms': Fraction(8, 1)}
    >>> named_budgets("chip:peak-memory=256KiB")
    {'chip': {'peak_memory': '256KiB'}}
    """
    budgets: dict[str, dict[str, Any]] = {}
    for part in text.split():
        name, colon, limits = part.partition(":")
        if not (name and colon) or name in budgets:
            raise ValueError(part)
        budgets[name] = {}
        for limit in text_list(limits):
            key, _, value = limit.partition("=")
            if key not in _BUDGET_OPTIONS or _BUDGET_OPTIONS[key] in budgets[name]:
                raise ValueError(limit)
            reader: Callable[[str], Any] = _READERS.get(key, amount)
            budgets[name][_BUDGET_OPTIONS[key]] = reader(value)
    if not budgets:
        raise ValueError(text)
    return budgets


# What describes a layout; `read_layout` takes these.
_DESCRIPTION: Final = ("stages", "depths", "widths", "inputs", "network", "input")
_LAYOUT_DESCRIPTION: Final = (*_DESCRIPTION, "style", "classes", "strides")
_WIDTHS: Final = click.option(
    "--widths",
    type=NUMBERS,
    metavar="LIST",
    help=f"Channels of each stage; {FIRST_WIDTH} doubling up to {LAST_WIDTH} if not given.",
)
_FIXED_WIDTHS: Final = click.option(
    "--widths",
    type=Parsed(widths_or_start, f"whole numbers above 0 such as 64 or 16,64, or {OWN_WIDTHS}"),
    metavar=f"LIST|{OWN_WIDTHS}",
    help="Fix the channels of each stage, "
    f"{OWN_WIDTHS}: to those of the network. If not given, multiples of 8 around them are tried; "
    f"without --network they double from stage to stage, from {FIRST_WIDTH} with --depths.",
)
_STAGE_OPTIONS: Final = (
    click.option(
        "--stages",
        type=NUMBERS,
        metavar="LIST",
        help="Sides of what enters the stages in pixels, such as 32,16,8,4,2.",
    ),
    click.option(
        "--depths",
        type=NUMBERS,
        metavar="LIST",
        help="Blocks of each stage; those of the network if not given.",
    ),
    click.option(
        "--inputs",
        type=WholeNumber(1),
        metavar="N",
        help=f"Channels that enter the first stage; {INPUTS} if not given.",
    ),
    shared(
        "kernel",
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
        type=Parsed(image, "a side such as 32, or 3x224x224"),
        metavar="SIZE",
        help="With --network: the size of its images as in `ifspace analyze`, such as 3x32x32, "
        f"or their side alone; 3x{SIDE}x{SIDE} if not given.",
    ),
)

_ORGANIZE_OPTIONS: Final = (
    *_STAGE_OPTIONS[:2],
    _WIDTHS,
    *_STAGE_OPTIONS[2:],
    click.option(
        "--blocks",
        type=Parsed(stage_blocks, f"blocks between commas, or {STAGE_SEPARATOR}"),
        metavar="LIST",
        help="The block that the stages repeat, or one for each, with , or ; between; CONV if not "
        "given.",
    ),
    shared(
        "theta",
        default="0",
        help="Threshold: a block moves for a gain above it, and is removed for one below it.",
    ),
    click.option(
        "--alpha",
        type=Parsed(decimals, "numbers from 0 between commas, such as 1,3"),
        metavar="LIST",
        default="3",
        show_default=True,
        help="The decay of the gain; for several the moves are compared.",
    ),
    shared("cap"),
    shared("tie"),
    shared("moves", help="Stop after so many steps."),
    shared("save", help=_SAVE_HELP),
)

_LAYOUT_OPTIONS: Final = (
    *_STAGE_OPTIONS[:2],
    _FIXED_WIDTHS,
    *_STAGE_OPTIONS[2:],
    click.option(
        "--style",
        type=OneOf(STYLES),
        help="What stands around --stages, counts, and is saved: all but bare have a 3x3 stem, "
        "batch norm and a head; resnet has a shortcut around every block, a 1x1 convolution where "
        f"a stage begins; mobilenet takes depthwise blocks. {STYLE} if not given.",
    ),
    click.option(
        "--classes",
        type=WholeNumber(1),
        metavar="N",
        help=f"Classes of the head; those of the network, or {CLASSES}, if not given.",
    ),
    click.option(
        "--blocks",
        type=Parsed(block_lists, f"blocks between commas, and {STAGE_SEPARATOR} between stages"),
        metavar="LIST",
        help="Blocks to choose from, groups left open or given; CONV if not given, or "
        "those of the network. A FILE.parquet of `ifspace enumerate` stands for its blocks, where "
        "they have the full field. A ; between the lists of the stages.",
    ),
    click.option(
        "--types",
        type=Parsed(type_lists, f"{', '.join(TYPES)}, and {STAGE_SEPARATOR} between stages"),
        metavar="LIST",
        help="Types of stages to choose from, beside --blocks: plain (CONV without shortcuts), "
        "basic and bottleneck (residual blocks of CONV+CONV and PW+CONV+PW), inverted (inverted "
        "residuals of PW+DW+PW, identities where the shapes are equal).",
    ),
    click.option(
        "--expansions",
        type=Parsed(ratios, "ratios above 0 between commas, such as 1,3,6"),
        metavar="LIST",
        help="Widths inside blocks of two channel-mixing layers or more to choose from, as "
        "multiples of the channels that enter; 1 leaves the first layer out. Of inverted "
        f"{','.join(map(str, EXPANSIONS))} if not given. Without --blocks and --types: of "
        f"{INNER_BLOCKS['expansions']}.",
    ),
    click.option(
        "--bottlenecks",
        type=Parsed(widths_inside, "ratios above 0 and below 1 such as 1/4, or channels"),
        metavar="LIST",
        help="The same as ratios of the channels that leave, such as 1/4,1/2, or as channels, such "
        f"as 16,32. Of bottleneck {','.join(BOTTLENECKS)} if not given. Without --blocks and "
        f"--types: of {INNER_BLOCKS['bottlenecks']}.",
    ),
    click.option(
        "--strides",
        type=Parsed(strides_or_free, f"whole numbers above 0 such as 1,2,2, or {FREE}"),
        metavar=f"LIST|{FREE}",
        help="Strides of the first blocks of --stages, which else are pooled in between. "
        f"{FREE}: which stages halve the feature maps is chosen too, as often in all as --stages "
        "or the network do.",
    ),
    click.option(
        "--forms",
        type=OneOf(FORMS),
        default=FORMS[0],
        show_default=True,
        help="Groups that a block without groups may have at a pair of widths: the cheapest with "
        "the full field, or the front: the cheapest of each least fan-in, to choose from.",
    ),
    click.option(
        "--width-choices",
        type=Parsed(
            width_lists, f"whole numbers between commas, and {STAGE_SEPARATOR} between stages"
        ),
        metavar="LIST",
        help="Widths to choose from, for all stages or, with ; between, for each.",
    ),
    click.option("--monotone", is_flag=True, help="No stage narrower than the one before."),
    click.option(
        "--max-depth",
        type=WholeNumber(1),
        metavar="N",
        help="The most blocks of a stage; twice as many as it starts with if not given.",
    ),
    click.option(
        "--stage",
        multiple=True,
        metavar="LIMITS",
        help="Limits of one stage, such as '3:depth<=6,width>=64,expansion<=4,stride=1'; may be "
        "given several times.",
    ),
    click.option(
        "--objective",
        type=OneOf(
            [
                *("gain", "log-gain", "macs-3/4", "width-field", "energy"),
                *("latency", "peak-memory", ENTROPY),
            ]
        ),
        help="What is maximised: the gain of the information field or its logarithm; the sum over "
        "all layers of MACs^(3/4); of width^(3/4) times side times ln of the fan-in; the layout "
        f"energy. Ties go to the next one. {FREE_OBJECTIVE} if widths are free, {FIXED_OBJECTIVE} "
        "if they are fixed, as in the papers. Or what is minimised, down to --least-gain: latency, "
        f"with --latency; peak-memory, with --dtype. {ENTROPY}: that of DeepMAD, of five stages of "
        "bottlenecks whose widths, kernels and depths are chosen within --params and --macs, to a "
        f"proven gap of 2% or for {ENTROPY_S:g} s.",
    ),
    click.option(
        "--least-gain",
        type=DECIMAL,
        metavar="G",
        help="At least so much total gain of the information field; with --objective latency or "
        "peak-memory that of the start if not given.",
    ),
    shared("params", help="At most so many parameters."),
    shared("macs", help="At most so many MACs an image."),
    click.option(
        "--activations",
        type=AMOUNT,
        metavar="N",
        help="At most so many elements that convolutions and dense layers write for an image.",
    ),
    click.option(
        "--layers",
        type=AMOUNT,
        metavar="N",
        help="At most so many layers of blocks, shuffles included.",
    ),
    *latency_options("Of each block that of its fastest form.", dtype=False),
    shared(
        "latency-budget-ms", help="With --latency: at most so many milliseconds for all blocks."
    ),
    shared("peak-memory"),
    shared("dtype"),
    floor_options(),
    shared("alpha", help="The decay of the gain."),
    shared("cap"),
    shared(
        "theta", default="0", help="Of the organizer beside it: a block moves for a gain above it."
    ),
    shared("moves", help="Of the organizer beside it: stop after so many steps."),
    shared("tie", help="Which of two stages with equal gains the organizer beside it takes."),
    click.option(
        "--budgets",
        type=Parsed(
            named_budgets,
            "NAME:params=2M,macs=300M,activations=5M,layers=40,latency=8,peak-memory=256k between "
            "spaces",
        ),
        metavar="LISTS",
        help="Several named budgets instead of --params, --macs, --activations, --layers, "
        "--latency-budget-ms and --peak-memory, such as 'edge:params=2M,latency=8 "
        "server:params=25M': one layout for each, in one table.",
    ),
    shared("top", default=1, help="So many layouts, best first."),
    click.option(
        "--distance",
        type=WholeNumber(1),
        metavar="D",
        default=1,
        show_default=True,
        help="With --top: layouts that differ from each other in at least so many layers.",
    ),
    shared(
        "time-limit",
        help="Stop then, with the best layout so far and its bound; "
        f"with --objective {ENTROPY} after {ENTROPY_S:g} s if not given.",
    ),
    click.option(
        "--jobs",
        type=WholeNumber(1),
        metavar="N",
        help="Workers that look for open group counts; if not given those of a cluster, or one.",
    ),
    shared("save", help=_SAVE_HELP),
)


@click.command("organize", short_help="Move blocks between stages to where they gain most.")
@with_options(_ORGANIZE_OPTIONS)
@output_options()
def organize_command(
    output: Output,
    theta: float,
    alpha: tuple[float, ...],
    cap: str,
    tie: str,
    moves: int | None,
    save: Path | None,
    **description: Any,
) -> None:
    """Move the last block of the stage where it gains least to where one more gains most.

    The stages are described by --stages and --depths, or by --network. The side of a stage is that
    of the feature maps that enter it. Gains are those of the information field; the step repeats
    until nothing is left to gain. Where two stages gain equally the answer says so, and --tie takes
    the other one. A heuristic, no optimum.
    --save writes the end, for the α that is shown, as a network of torch modules.
    """
    from ifspace.stages.entry import read_layout
    from ifspace.stages.networks import published_layouts
    from ifspace.stages.organizer import TIES, organize
    from ifspace.stages.text import OrganizeReport

    layout = read_layout(**description)
    output.check()
    if save is not None:
        check_save(save)
    trajectories = {value: organize(layout, theta, value, moves, cap, tie) for value in alpha}
    shown = ALPHA if ALPHA in alpha else alpha[0]
    other_tie = next(name for name in TIES if name != tie)
    network, side = description["network"], description["input"] or SIDE
    report = OrganizeReport(
        title=f"Organizer on {network.lower()} at {side}×{side}" if network else "Organizer",
        network=network,
        published=published_layouts(network, side) if network else (),
        theta=theta,
        alpha=shown,
        trajectories=trajectories,
        other=organize(layout, theta, shown, moves, cap, other_tie),
    )
    _note_defaults(output, layout, description, description["widths"])
    saved = save_layout(output, save, report.trajectory.end, network)
    output.emit(report.forms(saved))


@click.command("layout", short_help="Choose depths, widths and blocks of stages within budgets.")
@with_options(_LAYOUT_OPTIONS)
@backend_options()
@output_options()
@click.pass_context
def layout_command(
    context: click.Context,
    /,
    output: Output,
    alpha: float,
    theta: float,
    moves: int | None,
    tie: str,
    top: int,
    distance: int,
    budgets: dict[str, dict[str, Any]] | None,
    time_limit: float | None,
    jobs: int | None,
    save: Path | None,
    kernel: int | None,
    latency: Path | None,
    batch: int | None,
    device: str | None,
    **options: Any,
) -> None:
    """Find the stage layout that makes most of budgets, proven.

    The stages are described by --stages, or by --network. With --depths, or those of the network,
    parameters and MACs without a budget do not grow. By default widths are chosen from multiples of
    8 around the start, and the sum of MACs^(3/4) is the greatest, which spends what is allowed.
    With --widths they are fixed and the total gain of the information field is the greatest, as in
    the papers; the greedy organizer (see `ifspace organize`) stands beside. Floors hold for every
    block; the one that reads the network's input reads what there is. Amounts may end in k, M or G.
    Exit status 3 when no layout keeps the budgets, 4 when the time limit came
    first. --save writes the first layout as a network of torch modules;
    `ifspace.models.load(FILE)` reads it.
    """
    check_solver("layouts", ", or ask `ifspace organize` for the greedy organizer")
    if options["objective"] == ENTROPY:
        _entropy_layout(context, output, time_limit, save)
        return
    from ifspace.floors import ParamsRange
    from ifspace.stages.allocate import best_stages
    from ifspace.stages.entry import assumed_style, layout_problem
    from ifspace.stages.layout_text import ComparedLayouts, LayoutReport
    from ifspace.stages.organizer import organize
    from ifspace.stages.problem import TABLE_AMOUNTS, timed_blocks

    description = {name: options.pop(name) for name in _LAYOUT_DESCRIPTION}
    has_start = description["depths"] is not None or description["network"] is not None
    style = assumed_style(description, options)
    source = read_latencies(latency, batch, device, options["dtype"] if latency else None)
    if budgets is not None:
        _check_alone(options, save)
    choices = [options | limits for limits in (budgets or {"": {}}).values()]
    problems = [
        layout_problem(description, kernel=kernel, alpha=alpha, latency=source, **choice)
        for choice in choices
    ]
    kernel = KERNEL if kernel is None else kernel
    output.check()
    if save is not None:
        check_save(save)
    started = time.monotonic()
    reports = []
    for problem, choice in zip(problems, choices, strict=True):

        def announce(bounds: ParamsRange, problem: "StagesProblem" = problem) -> None:
            output.note(f"layouts with {problem.floors}: {bounds}")

        answer = best_stages(problem, top, time_limit, jobs, announce=announce, distance=distance)
        if answer.best is not None:
            problem = answer.best.problem  # with the finer widths that were offered too
        start, best = problem.start, answer.plans[0].layout if answer.plans else None
        # The organizer has the blocks and widths of the best layout, and the depths of the start.
        trajectory = organize(
            (best or start).at_depths(start.depths), theta, alpha, moves, problem.cap, tie
        )
        kept = tuple(name for name in TABLE_AMOUNTS if has_start and choice[name] is None)
        reports.append(LayoutReport(problem, answer, trajectory, has_start, kernel, kept))
    out_of_time = time_limit is not None and time.monotonic() - started >= time_limit
    widths = start.widths if problem.widths else description["widths"]
    _note_defaults(output, start, {**description, "style": style}, widths)
    for report in reports:
        _note_left_out(output, report.answer.left_out)
    if budgets is not None:
        compared = ComparedLayouts(dict(zip(budgets, reports, strict=True)))
        output.emit(compared.forms(), keep=compared.has_plan)
        for name, report in compared.reports.items():
            if report.answer.status is not Status.OPTIMAL:
                output.note(f"{name}: {report.message}")
        if not compared.has_plan:
            no_plan(context, "no layout for any of --budgets", answer.status is Status.UNKNOWN)
        return
    (report,) = reports
    saved = save_layout(output, save, best, description["network"], style)
    output.emit(report.forms(saved), keep=best is not None)
    if source is not None and best is not None:
        for note in notes_at_sides(source, list(timed_blocks(best))):
            output.note(note)
    if best is None:
        no_plan(context, report.message, answer.status is Status.UNKNOWN)
    if answer.status is Status.FEASIBLE:
        output.note(f"not proven: {report.message}")
    if len(answer.plans) < top:
        reason = "time ran out" if out_of_time else "there are no more"
        output.note(f"{len(answer.plans)} of the {top} layouts asked for were found: {reason}")


def _entropy_layout(
    context: click.Context, output: Output, time_limit: float | None, save: Path | None
) -> None:
    """Find the layout of bottlenecks of the most entropy within budgets, with a bound."""
    from ifspace.stages.entropy.command import EntropyReport, entropy_problem, refuse_others
    from ifspace.stages.entropy.solve import GAP, best_entropy

    default = click.core.ParameterSource.DEFAULT
    own = {option.name for option in context.command.params[: len(_LAYOUT_OPTIONS)]}
    values = context.params
    refuse_others([n for n in values if n in own and context.get_parameter_source(n) != default])
    problem = entropy_problem(
        values["params"], values["macs"], values["input"], values["max_depth"], values["stage"]
    )
    output.check()
    if save is not None:
        check_save(save)
    limit_s = ENTROPY_S if time_limit is None else time_limit
    output.note(
        f"the search ends at a proven gap of {GAP:.0%} or after {limit_s:g} s (--time-limit)"
    )
    answer = best_entropy(problem, GAP, limit_s)
    report = EntropyReport(problem, answer, values["classes"] or CLASSES)
    saved = save_layout(output, save, report.layout, None, STYLE)
    output.emit(report.forms(saved), keep=answer.best is not None)
    if answer.best is None:
        no_plan(context, report.message, answer.status is Status.UNKNOWN)
    if output.format in ("csv", "markdown"):  # which have no line for it
        output.note(report.message)


def _check_alone(options: Mapping[str, Any], save: Path | None) -> None:
    """Check that no single budget stands beside --budgets, and no file for one of its layouts.

    Raises: SettingError.
    """
    beside = [name for name in _BUDGET_OPTIONS.values() if options[name] is not None]
    beside += ["save"] if save is not None else []
    if beside:
        raise SettingError.because(
            "options that do not go together",
            got=", ".join(f"--{name.replace('_', '-')}" for name in beside) + " with --budgets",
            allowed="--budgets alone",
            remedy="put every budget into --budgets; save the layout that you choose by its own",
        )


def _note_left_out(output: Output, reasons: Sequence[str]) -> None:
    if reasons:
        more = len(reasons) - 1
        also = f", and {more} more" if more else ""
        output.note(f"left out: {reasons[0]}{also}")


def _note_defaults(
    output: Output,
    layout: "Layout",
    description: Mapping[str, Any],
    widths: tuple[int, ...] | None,
) -> None:
    """Say what was assumed: widths, the form of a network, and what only a named network has."""
    from ifspace.stages.networks import form_note

    network = description["network"]
    if network is None:
        assumed = "" if widths else f"widths {', '.join(map(str, layout.widths))}; "
        style = description.get("style", BARE) or STYLE
        counted = "counted without batch norm, biases and classifier, which --network has"
        if style != BARE:
            ends = layout.stem_and_head
            counted = (
                f"counted in --style {style}: a stem to {ends.stem_channels} channels, batch norm, "
                f"{'shortcuts, ' * ends.projections}{ends.classifier[-1]:,} classes"
            )
        output.note(assumed + counted)
    elif (note := form_note(network, description["input"] or SIDE)) is not None:
        output.note(note)
