"""`ifspace optimize`: a real network with better stages, and blocks for its convolutions."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from ifspace.cli.latency import LatencyColumns, latency_options, read_latencies
from ifspace.cli.options import (
    AMOUNT_OR_SHARE,
    BLOCKS,
    FILE,
    FLOORS,
    LIST,
    MILLISECONDS_OR_SHARE,
    RATIO,
    OneOf,
    Output,
    WholeNumber,
    floor_options,
    no_plan,
    output_options,
    shared,
    with_options,
)
from ifspace.cli.progress import ProgressBar
from ifspace.cli.requirements import TORCH, check_installed
from ifspace.errors import IfspaceError, SettingError
from ifspace.models.options import (
    SAVED,
    ModelSource,
    input_option,
    model_argument,
    networks_needed,
    part_option,
    trust_option,
)
from ifspace.stages.command import SEED, check_save
from ifspace.storage import replacing
from ifspace.values import counted, share

if TYPE_CHECKING:
    from ifspace.models.edits import EditedNetwork
    from ifspace.models.graph import Trace
    from ifspace.models.joint import Freedom
    from ifspace.models.measuring import Measurer
    from ifspace.models.optimization import Optimization, OptimizationProblem
    from ifspace.models.replaceable import Layers
    from ifspace.stages.problem import Blocks

OBJECTIVES = (
    *("keep", "weights", "params", "macs"),
    *("latency", "latency_ms", "peak-memory", "peak_memory"),
    *("macs-3/4", "most-macs", "most-params"),
)
# Of them those for widths, and those for widths, depths and blocks together.
_OF_WIDTHS: Final = ("macs-3/4", "most-macs", "most-params")
_OF_JOINT: Final = (*_OF_WIDTHS, "keep", "weights")
_OF_BLOCKS: Final = ("keep", "weights", "params", "macs", "latency_ms", "peak_memory")
# What --warm-start without a name stands for.
NOISE: Final = "noise"
SUFFIXES = (".safetensors", ".onnx", ".pt2", ".py")
# Beside the network that is saved: FILE.plan.json, which --plan takes.
PLAN_SUFFIX: Final = ".plan.json"
# Options that say something of the blocks, and nothing without blocks.
_FOR_BLOCKS: Final = (
    "blocks_only",
    "names",
    "include",
    "exclude",
    "skip_first",
    "classifier",
    "least_channels",
    "objective",
    "latency_budget_ms",
    *FLOORS,
    "warm_start",
)
# Those of them that say what a search may choose.
_FOR_SEARCH: Final = (
    *("names", "include", "exclude", "skip_first", "classifier", "least_channels", "objective"),
    *FLOORS,
)

# Those of them that say something of widths too.
_OF_BOTH: Final = ("objective", "latency_budget_ms")
# Options of the organizer, which say nothing where the stages stay as they are.
_OF_STAGES: Final = ("moves", "theta", "tie", "grow")

_OPTIONS = (
    input_option,
    part_option,
    trust_option,
    click.option(
        "--classes",
        type=WholeNumber(1),
        metavar="N",
        help="Classes of the network; those of its source if not given.",
    ),
    click.option(
        "--pretrained",
        is_flag=True,
        help="Start from the trained weights of timm or torchvision, which may fetch them; fresh "
        "weights if not given.",
    ),
    click.option(
        "--weights",
        type=FILE,
        metavar="FILE",
        help="Start from the weights of a file: .safetensors, or a state_dict that torch saved.",
    ),
    click.option(
        "--grow",
        type=OneOf(("fresh", "identity")),
        help="How units that are put in begin: drawn as the network's own code draws them, or as "
        "identities; fresh if not given.",
    ),
    shared(
        "params",
        type=AMOUNT_OR_SHARE,
        help="At most so many parameters in the whole network, or such a share as 60%.",
    ),
    shared(
        "macs",
        type=AMOUNT_OR_SHARE,
        help="At most so many MACs an image, or such a share as 60%.",
    ),
    shared(
        "peak-memory",
        help="At most so much memory for the feature maps that are live at once, with --dtype: "
        "bytes such as 256k or 256KiB, for one image; or such a share as 50%.",
    ),
    shared("dtype"),
    click.option("--stages-only", is_flag=True, help="The stages alone, as without any blocks."),
    shared(
        "moves", help="Take the network after so many moves of the organizer; its end if not given."
    ),
    shared("theta", help="The organizer moves a unit for a gain above it; 0 if not given."),
    shared("alpha", help="The decay of the gain."),
    shared("cap"),
    shared("tie"),
    click.option(
        "--widths",
        is_flag=True,
        help="Narrow the network to meet the budgets: channels that go together, in multiples of "
        "8, the strongest kept.",
    ),
    click.option(
        "--widths-only", is_flag=True, help="Narrow it, and leave the stages as they are."
    ),
    click.option(
        "--joint",
        is_flag=True,
        help="Decide widths, depths and the blocks of layers together, in one search within the "
        "budgets: channels and units are removed, layers become cheaper blocks.",
    ),
    click.option(
        "--keep-widths",
        type=LIST,
        metavar="PATTERNS",
        help="With --widths, --widths-only or --joint: layers whose full name matches one of these "
        "stay as wide as they are, and all that go with them.",
    ),
    click.option(
        "--widen",
        type=RATIO,
        metavar="X",
        help="With --widths, --widths-only or --joint: layers may also be up to X times as wide, "
        "such as 1.5, where the budgets allow it. New channels change no output at first; groups "
        "that a norm puts together get none. 1 if not given.",
    ),
    click.option("--keep-depths", is_flag=True, help="With --joint: no unit is removed."),
    click.option(
        "--importance",
        metavar="HOW",
        help="With --widths or --joint: l1 or l2, the norm of the weights that write a channel, or "
        "a CSV file with the columns layer, channel and importance; l2 if not given.",
    ),
    click.option(
        "--block",
        metavar="B",
        help="The block that convolutions become, its groups written: such as DW+RPW(2,1/2).",
    ),
    click.option(
        "--blocks",
        type=BLOCKS,
        metavar="LIST",
        help="Blocks to choose from, layer by layer, their groups written (--cheapest finds them).",
    ),
    click.option(
        "--cheapest",
        is_flag=True,
        help="For each 3x3 convolution the cheapest block that has its full field.",
    ),
    click.option(
        "--plan",
        type=FILE,
        metavar="FILE",
        help="What a plan says: the JSON of an earlier run, as it is or edited. Of the entries of "
        "`replaced` name and block count; of --widths or --joint those of `groups` (after), "
        "`removed` and `blocks`; without its entry a layer stays.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Print what would change, layer by layer, and write no network; --out FILE.json "
        "writes it as a plan. --widths and --stages-only have no dry run.",
    ),
    click.option("--blocks-only", is_flag=True, help="Leave the stages as they are."),
    click.option(
        "--names",
        type=LIST,
        metavar="LIST",
        help="The layers to replace, as `ifspace analyze --every-layer` names them; all that "
        "blocks fit if not given.",
    ),
    click.option(
        "--include",
        type=LIST,
        metavar="PATTERNS",
        help="Only layers whose full name matches one of these, such as 'features.*'.",
    ),
    click.option(
        "--exclude",
        type=LIST,
        metavar="PATTERNS",
        help="No layer whose full name matches one of these, such as '*.se.*'.",
    ),
    click.option("--skip-first", is_flag=True, help="The first layer stays."),
    click.option(
        "--classifier",
        is_flag=True,
        help="Without --block, --blocks and --cheapest: replace fully connected layers behind the "
        "feature maps too.",
    ),
    click.option(
        "--least-channels",
        type=WholeNumber(1),
        metavar="N",
        help="Only convolutions that read so many channels; 16 if not given.",
    ),
    click.option(
        "--objective",
        type=OneOf(OBJECTIVES),
        help="What decides. Between blocks: keep replaces as few as the budgets ask for, weights "
        "too and keeps as many parameters as they allow, params, macs, latency and peak-memory "
        "make that amount least; if not given keep for the blocks that are listed, else weights, "
        "and params without a budget. Between widths, and with --joint: macs-3/4 (if not given) "
        "makes the sum of MACs^(3/4) over the layers greatest, most-macs and most-params that "
        "amount; with --joint also keep and weights, of which widths and units that stay as they "
        "are count as layers do.",
    ),
    *latency_options(
        "Each convolution and block has that of its fastest form; without blocks it says what the "
        "layers take with the stages before and after.",
        dtype=False,
    ),
    shared(
        "latency-budget-ms",
        type=MILLISECONDS_OR_SHARE,
        help="With --latency: at most so many milliseconds for the layers that blocks may replace, "
        "or such a share as 70% of what they take.",
    ),
    click.option(
        "--measure",
        is_flag=True,
        help="Time the layers and all candidates (with --widths the convolutions at other widths) "
        "here, at their own sizes, and the network before and after in turn. Times are kept "
        "(~/.cache/ifspace); --latency-budget-ms, or such a share as --latency 70%, is of the "
        "whole network then, which is planned again where it misses it; --batch and --device say "
        "what is timed.",
    ),
    floor_options(),
    click.option(
        "--warm-start",
        is_flag=False,
        flag_value=NOISE,
        metavar="[IMAGES]",
        help="Fit each block to the convolution that it replaces: on a folder of pictures, on a "
        ".npy, .pt or .safetensors file of a tensor [N, C, H, W], or without a name on noise.",
    ),
    click.option(
        "--seed",
        type=WholeNumber(0),
        metavar="S",
        default=SEED,
        show_default=True,
        help="Of all fresh weights.",
    ),
    shared(
        "save",
        help="Write the network: .safetensors to load again, .onnx or .pt2 to run, .py as source "
        "in plain torch with its weights as .pt; beside it the plan and the recipe of training.",
    ),
    shared("time-limit", help="Of the searches; what was found by then is taken."),
)


@click.command("optimize", short_help="Better stages of a real network, and cheaper blocks in it.")
@model_argument
@with_options(_OPTIONS)
@output_options()
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    model: str,
    input: str | None,
    part: str | None,
    trust_code: bool,
    classes: int | None,
    seed: int,
    save: Path | None,
    pretrained: bool,
    weights: Path | None,
    latency: Path | None,
    batch: int | None,
    device: str | None,
    **options: Any,
) -> None:
    """Reorganize the stages of a network, then replace convolutions by blocks, then save it.

    MODEL is as for `ifspace analyze`. With a budget alone (such as --params 60%) blocks meet it in
    the stages that are there: every layer but the grouped ones, pointwise and linear ones too, may
    become one of several blocks with its full field, none of which costs more than the layer; as
    few are replaced as it takes, by what keeps most parameters, proven. Filters of these blocks
    read at least 8 channels, and fewer where nothing keeps the budgets so, which is said;
    --least-fan-in sets another least.

    With --joint widths, depths and blocks are decided in one search: groups of channels that go
    together, units that may go, the last of a stage first, and the block of each layer that such a
    block fits; the sum of MACs^(3/4) over the layers is the greatest within the budgets of the
    numbers of channels that were tried, proven or with the bound beside it. An amount without a
    budget is at most 9/10 of what it is with all widths narrowed alike, and no more than before:
    latency, too, that --latency predicts or --measure finds.

    Without a budget, or with --stages-only, the stages change: the greedy organizer moves units to
    where they gain most (see `ifspace organize`). With --block, --blocks or --cheapest the blocks
    that these say then replace plain 3x3 convolutions. Layers that stay keep their weights: fresh
    ones, or with --pretrained or --weights trained ones. FILE.names.json beside the network that is
    saved says which names they have now.

    Budgets are of the whole network. With --stages-only the stages meet them: their depths of
    greatest total gain within the budgets, proven, and of equal gain those that change the fewest
    units; an amount without a budget does not grow. With blocks it is the blocks that do, in the
    stages of the organizer, or with --blocks-only in those that are there: as few as it takes,
    proven. With --widths or --widths-only the widths do, also within --latency-budget-ms: those of
    the greatest sum of MACs^(3/4) over the layers, of which up to 1/200 goes for parameters that
    the budget leaves; an amount without a budget is at most 9/10 of what it is with all widths
    narrowed alike. Amounts may end in k, M or G. Peak memory is that of
    the network that comes out: blocks and widths are chosen within it; the depths of stages are
    not, and a network that needs more is no answer.

    Exit status 3 when nothing keeps the budgets, 4 when the time limit came first.
    `ifspace.models.load(FILE)` reads a network that was saved.
    """
    latency = _latency_share(options, latency)
    # The names that other commands have for amounts.
    names = {"latency": "latency_ms", "peak-memory": "peak_memory"}
    options["objective"] = names.get(options["objective"], options["objective"])
    floors = options["floors"]
    floor_values = {name: floors.asks(name) for name in FLOORS}
    # Before the packages of networks are imported, which takes seconds.
    values = {
        name: None if context.get_parameter_source(name) is ParameterSource.DEFAULT else value
        for name, value in options.items()
    }
    # A share in the place of --latency is a budget, whose own option has its default.
    values["latency_budget_ms"] = options["latency_budget_ms"]
    check_combination({**values, **floor_values, "latency": latency, "save": save})
    with networks_needed("real networks are taken apart with them", {"ortools": "solver"}):
        from ifspace.models.decomposition import LEAST_FAN_IN
        from ifspace.models.files import save as save_network
        from ifspace.models.optimization import optimize
        from ifspace.models.optimize_text import OptimizationReport

        source = _with_weights(
            ModelSource.of(model, input, trust_code, classes, seed, part), weights, pretrained
        )
        measure = _measurer(options, latency, batch, device)
        if measure is not None:
            batch = device = None
        dtype = options["dtype"] if latency is not None else None
        times = options["latency"] = read_latencies(latency, batch, device, dtype)
        options["lower_floors"] = False
        if takes_front(options) or options["joint"]:
            is_default = context.get_parameter_source("least_fan_in") is ParameterSource.DEFAULT
            if is_default:
                options["floors"] = floors.but("least_fan_in", LEAST_FAN_IN)
                options["lower_floors"] = True
        if options["warm_start"] not in (None, NOISE):
            from ifspace.models.images import check_images

            check_images(options["warm_start"])
        problem = replace(_problem(options, seed), measure=measure)
        output.check()
        if save is not None:
            check_save(save, SUFFIXES)
        with_values = problem.warm_start or pretrained or save is not None or weights is not None
        start, trace = _traced(source, with_values or measure is not None)
        if problem.warm_start and options["warm_start"] != NOISE:
            from ifspace.models.images import read_images

            images = read_images(options["warm_start"], source.image, start.model)
            problem = replace(problem, images=images)
        with ProgressBar("fitting blocks", quiet=output.quiet) as bar:
            optimization = optimize(start, trace, problem, bar)
        notes = [*source.notes(), *optimization.notes]
        if measure is not None:
            timed = f"{counted(measure.timed, 'time')} taken, {measure.read} known"
            notes.append(f"{measure.about}; {timed}, kept in {measure.path}")
        if times is not None:
            notes.append(times.about)
            if optimization.blocks is not None:
                latencies = [block.latencies[1] for block in optimization.blocks.replaced]
                notes += LatencyColumns(latencies).notes
        if options["plan"] is not None and optimization.after is not None:
            from ifspace.models.plan_file import above_its_budgets

            amounts = {name: getattr(optimization.after, name) for name in ("params", "macs")}
            above = above_its_budgets(options["plan"], amounts)
            notes += [f"above its budget: {above}"] if above else []
        for note in notes:
            output.note(note)
        network, after = optimization.network, optimization.after
        if save is not None and network is not None and after is not None:
            save_network(network, save, source.image)
            beside = f" with its weights {save.with_suffix('.pt')}" * (save.suffix.lower() == ".py")
            output.note(f"saved: {save}{beside}, {after.params:,} parameters")
            if save.suffix.lower() == SAVED:
                output.note(_names_note(start, network, save))
                for note in _code_notes(network, save):
                    output.note(note)
        saved = save if after is not None else None
        report = OptimizationReport(source, optimization, saved, options["dry_run"])
        if saved is not None:
            output.note(_plan_note(optimization, report.forms()["json"](), saved))
    output.emit(report.forms(), keep=after is not None)
    if after is not None and output.out is not None:
        is_plan = options["dry_run"] and output.out.suffix.lower() == ".json"
        output.note(f"wrote: {output.out}{', a plan for --plan' * is_plan}")
    if after is None:
        no_plan(context, report.message, optimization.is_out_of_time)


def _latency_share(options: dict[str, Any], latency: Path | None) -> Path | None:
    """Return the file of --latency; a share in its place becomes the budget.

    Raises: SettingError for two budgets.
    """
    text = None if latency is None else str(latency)
    if share(text) is None:
        return latency
    if options["latency_budget_ms"] is not None:
        raise SettingError.because(
            "two budgets of latency",
            got=f"--latency {text} and --latency-budget-ms",
            allowed="one of them",
            remedy="leave one out",
        )
    options["latency_budget_ms"] = text
    return None


def _measurer(
    options: Mapping[str, Any], latency: Path | None, batch: int | None, device: str | None
) -> "Measurer | None":
    """Return what times layers here, None without --measure. Raises: SettingError."""
    if not options["measure"]:
        return None
    if latency is not None:
        raise SettingError.because(
            "latencies twice",
            got="--measure with --latency FILE",
            allowed="--measure, with such a share as --latency 70%, or the times of a file",
            remedy="leave one out",
        )
    check_installed(
        {**TORCH, "psutil": "bench"}, "layers are timed with these packages", extras="bench"
    )
    from ifspace.models.measuring import Measurer

    return Measurer.on(device or "cpu", batch or 1)


def _with_weights(source: ModelSource, weights: Path | None, pretrained: bool) -> ModelSource:
    """Return the source of a network with trained weights. Raises: SettingError."""
    if pretrained and weights is not None:
        wrong = "--weights", "the weights of one source"
    elif source.saved is not None and (pretrained or weights is not None):
        wrong = source.name, "a saved network with the weights that it has"
    else:
        return replace(source, weights=weights, pretrained=pretrained)
    raise SettingError.because(
        "weights twice",
        got=f"{'--pretrained' if pretrained else '--weights'} with {wrong[0]}",
        allowed=wrong[1],
        remedy="leave one out",
    )


def _plan_note(optimization: "Optimization", plan: str, save: Path) -> str:
    """Write plan and recipe beside a network, and return a note of them."""
    file = save.with_suffix(PLAN_SUFFIX)
    with replacing(file) as temporary:
        temporary.write_text(plan, encoding="utf-8")
    recipe = optimization.recipe.save(save)
    return f"plan: {file}; recipe of training: {recipe}, for ifspace.models.parameter_groups"


def _code_notes(network: "EditedNetwork", save: Path) -> Iterator[str]:
    """Yield that a network which was saved is loaded beside the Python file it was made from."""
    from ifspace.models.sources import code_file

    file = None if network.edits.source is None else code_file(network.edits.source)
    if file is not None and file.resolve().parent != save.resolve().parent:
        yield f"to load {save.name}, move it beside {file}: that file is run, with --trust-code"


def _names_note(start: "EditedNetwork", network: "EditedNetwork", save: Path) -> str:
    """Write which names weights have now beside a network, and return a note of it."""
    from ifspace.models.weights import names_after, save_names

    names = names_after(start, network)
    file = save_names(names, save)
    others = sum(old != new for old, new in names.items())
    gone = len(start.model.state_dict()) - len(names)
    return (
        f"names of weights: {file}, {others} renamed, {gone} gone, {len(names) - others} the same"
    )


def check_combination(options: Mapping[str, Any]) -> None:
    """Check that options go together; None, and False of a flag, stand for those not given.

    No option is taken that says nothing beside the others.

    Raises: SettingError.
    """

    def present(*names: str) -> list[str]:
        return [name for name in names if is_given(options[name])]

    blocks = present("block", "blocks", "cheapest", "plan")
    front = takes_front(options)
    budgets = present("params", "macs", "latency_budget_ms", "peak_memory")
    organizer, of_stages = present("moves", "theta"), present(*_OF_STAGES)
    widths = present("widths", "widths_only")
    objectives = _OF_WIDTHS if widths else _OF_JOINT if options["joint"] else _OF_BLOCKS
    timed = options["latency_budget_ms"] is not None or options["objective"] == "latency_ms"
    timed = timed and not options["measure"]
    for wrong, present_options, allowed in (
        (len(blocks) > 1, blocks, "one of them; --blocks takes several"),
        (
            not blocks and not front and not options["joint"],
            [
                *present(*(name for name in _FOR_BLOCKS if not widths or name not in _OF_BOTH)),
                *(widths[:1] or ["no block"]),
            ],
            "--joint, which chooses blocks too, instead of it"
            if widths
            else "--block, --blocks or --cheapest, or a budget, beside them",
        ),
        (
            options["plan"] is not None,
            ["plan", *present(*_FOR_SEARCH, *_OF_STAGES, "time_limit")],
            "--plan, which says what is replaced",
        ),
        (
            options["classifier"],
            ["classifier", *blocks],
            "--classifier where blocks are not listed",
        ),
        (
            options["measure"] and not (blocks or front or widths or options["joint"]),
            ["measure", *(present("stages_only") or ["no block"])],
            "--measure with blocks, widths or a budget for them",
        ),
        (
            options["dry_run"],
            ["dry_run", *present("save", "warm_start")],
            "--dry-run, which writes no network",
        ),
        (
            options["dry_run"] and not (blocks or front or widths or options["joint"]),
            ["dry_run", *(present("stages_only") or ["no block"])],
            "--dry-run with blocks, widths or a budget for them; --stages-only has no dry run, and "
            "without --save writes no network",
        ),
        (
            options["dry_run"]
            and not (front or present("plan", "blocks_only", "widths_only", "joint")),
            ["dry_run", "stages that change"],
            "--blocks-only or --widths-only: a plan names the layers that are there",
        ),
        (options["stages_only"], ["stages_only", *blocks], "--stages-only without blocks"),
        (
            options["blocks_only"],
            ["blocks_only", *of_stages, *present("stages_only")],
            "--moves, --theta, --tie and --grow where stages are reorganized",
        ),
        (
            front and not options["blocks_only"],
            [*of_stages, "a budget that blocks meet"],
            "--moves, --theta, --tie and --grow where stages are reorganized",
        ),
        (
            bool(widths),
            [
                *widths[:1],
                *blocks,
                *present("stages_only", "blocks_only", "joint"),
            ],
            "widths without blocks, which --joint chooses too",
        ),
        (
            options["joint"],
            [
                "joint",
                *blocks,
                *of_stages,
                *present("stages_only", "blocks_only", "names"),
            ],
            "--joint with budgets and what may change: --keep-widths, --keep-depths, --include, "
            "--exclude",
        ),
        (options["joint"] and not budgets, ["joint", "no budget"], "a budget beside it"),
        (not options["joint"], [*present("keep_depths"), "no --joint"], "--joint beside it"),
        (options["widths_only"], ["widths_only", *of_stages], "--widths alone"),
        (bool(widths) and not budgets, [*widths[:1], "no budget"], "--params or --macs beside it"),
        (
            not widths and not options["joint"],
            [
                *present("keep_widths", "widen", *(() if options["plan"] else ("importance",))),
                "no --widths",
            ],
            "--widths, --widths-only or --joint",
        ),
        (
            options["objective"] is not None and options["objective"] not in objectives,
            [
                "objective",
                f"{options['objective']} of "
                + ("widths" if widths else "all together" if options["joint"] else "blocks"),
            ],
            ", ".join(objectives),
        ),
        (
            bool(organizer and budgets) and not blocks and not front and not widths,
            [*organizer, *budgets],
            "moves of the organizer, or the best depths within a budget",
        ),
        (
            not budgets
            and (options["objective"] in ("keep", "weights") or options["block"] is not None),
            [*present("objective"), "no budget"],
            "--objective with --params or --macs; params or macs also with several blocks",
        ),
        (
            timed and options["latency"] is None,
            ["a latency budget or objective", "no latencies"],
            "--measure beside it, or --latency MODEL with --latency-budget-ms",
        ),
    ):
        if wrong and len(present_options) > 1:
            first, *partners = [
                f"--{name.replace('_', '-')}" if name in options else name
                for name in present_options
            ]
            raise SettingError.because(
                "options that do not go together",
                got=f"{first} with {', '.join(partners)}",
                allowed=allowed,
                remedy="leave one out, or add what is missing",
            )


def is_given(value: Any) -> bool:
    """Return whether an option has a value: 0 is one."""
    return value is not None and value is not False


def takes_front(options: Mapping[str, Any]) -> bool:
    """Return whether the blocks are those that trade parameters for fan-in, in all layers.

    They are with a budget where no option says what else is to meet it.
    """

    def has(*names: str) -> bool:
        return any(is_given(options[name]) for name in names)

    budgets = has("params", "macs", "latency_budget_ms", "peak_memory")
    return budgets and not has(
        *("block", "blocks", "cheapest", "plan", "stages_only", "moves", "theta", "grow"),
        *("widths", "widths_only", "joint"),
    )


def _problem(options: Mapping[str, Any], seed: int) -> "OptimizationProblem":
    """Return the problem that the options describe."""
    from ifspace.models.decomposition import Search
    from ifspace.models.optimization import OptimizationProblem
    from ifspace.models.plan_file import PlannedDesign, read_plan
    from ifspace.models.widths import check_widen
    from ifspace.stages.problem import Budgets

    plan = None if options["plan"] is None else read_plan(options["plan"])
    design = plan if isinstance(plan, PlannedDesign) else None
    if plan is not None and design is None and options["importance"] is not None:
        raise SettingError.because(
            "a plan of blocks, which removes no channels",
            got="--importance",
            allowed="a plan of --widths or --joint beside it",
            remedy="leave it out",
        )
    return OptimizationProblem(
        blocks=_blocks(options),
        budgets=Budgets(
            options["params"],
            options["macs"],
            latency_ms=options["latency_budget_ms"],
            peak_memory=options["peak_memory"],
            dtype=options["dtype"],
        ),
        keep_stages=options["blocks_only"] or options["widths_only"] or takes_front(options),
        moves=options["moves"],
        theta=options["theta"] or 0,
        alpha=options["alpha"],
        cap=options["cap"],
        tie=options["tie"],
        layers=_layers(options),
        search=Search(
            options["objective"],
            options["latency"],
            options["time_limit"],
            options["floors"],
            options["lower_floors"],
        ),
        warm_start=options["warm_start"] is not None,
        seed=seed,
        grow=options["grow"] or "fresh",
        plan=None if isinstance(plan, PlannedDesign) else plan,
        design=design,
        widths=options["widths"] or options["widths_only"],
        joint=_freedom(options),
        importance=options["importance"] or "l2",
        keep_widths=tuple(options["keep_widths"] or ()),
        widen=check_widen(options["widen"] or 1),
    )


def _freedom(options: Mapping[str, Any]) -> "Freedom | None":
    """Return what may change in one search, None without --joint."""
    from ifspace.models.joint import Freedom
    from ifspace.models.widths import check_widen

    if not options["joint"]:
        return None
    return Freedom(
        depths=not options["keep_depths"],
        keep_widths=tuple(options["keep_widths"] or ()),
        widen=check_widen(options["widen"] or 1),
        layers=_layers(options),
    )


def _layers(options: Mapping[str, Any]) -> "Layers":
    """Return the layers that blocks may replace."""
    from ifspace.models.replaceable import LEAST_CHANNELS, Layers

    return Layers(
        options["names"],
        options["least_channels"] or LEAST_CHANNELS,
        options["include"] or (),
        options["exclude"] or (),
        options["skip_first"],
        options["classifier"],
    )


def _blocks(options: Mapping[str, Any]) -> "Blocks | None":
    """Return the blocks to choose from, None if there are none."""
    from ifspace.stages.problem import CHEAPEST, FRONT, Blocks, parse_block

    if takes_front(options):
        return Blocks(FRONT)
    if options["cheapest"]:
        return Blocks(CHEAPEST)
    if options["blocks"] is not None:
        return Blocks(*map(parse_block, options["blocks"]))
    if options["block"] is None:
        return None
    try:
        return Blocks(parse_block(options["block"]))
    except IfspaceError as error:
        error.argument = None  # it names --blocks, which was not given
        raise


def _traced(source: ModelSource, with_values: bool) -> "tuple[EditedNetwork, Trace]":
    """Return the network and its trace; without values where shapes are enough."""
    from ifspace.models import trace
    from ifspace.models.sources import on_shapes

    def traced(network: "EditedNetwork") -> "tuple[EditedNetwork, Trace]":
        return network, trace(network.model, source.image)

    return traced(source.open()) if with_values else on_shapes(source.open, traced)
