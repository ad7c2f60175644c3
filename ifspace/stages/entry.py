"""Layouts of stages from Python: what `ifspace layout` solves, and the layout that options say."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

from ifspace.answer import Answer
from ifspace.block import Composition
from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.floors import NO_FLOORS, Floors
from ifspace.kinds import find_kind, reference_kind
from ifspace.latency import LatencySource, read_latency
from ifspace.stages.allocate import best_stages
from ifspace.stages.choices import TYPES, Inside, check_inside, offered
from ifspace.stages.defaults import (
    AROUND,
    BARE,
    CLASSES,
    DEPTH,
    ENTROPY,
    FIRST_WIDTH,
    FIXED_OBJECTIVE,
    FREE,
    FREE_OBJECTIVE,
    INNER_BLOCKS,
    INPUTS,
    KERNEL,
    LAST_WIDTH,
    MOST_DEPTH,
    OWN_WIDTHS,
    SIDE,
    STAGE_SEPARATOR,
    STYLE,
    STYLES,
    WIDTH_STEP,
)
from ifspace.stages.layout import INVERTED, MAX_DEPTH, Layout
from ifspace.stages.limits import (
    StageLimits,
    limited_blocks,
    limited_depths,
    limited_strides,
    limited_widths,
    merged,
)
from ifspace.stages.networks import FREE_SHORTCUTS, NETWORKS, make_layout, styled
from ifspace.stages.networks import network as named_layout
from ifspace.stages.objectives import COSTS, OBJECTIVES
from ifspace.stages.problem import (
    CHEAPEST,
    TABLE_AMOUNTS,
    BlockChoice,
    Blocks,
    Budgets,
    StagePlan,
    StagesProblem,
    parse_block,
)
from ifspace.values import choice, ratio_above_zero, whole_number

T = TypeVar("T")
MOBILENET: Final = "mobilenet"
# What a MobileNet repeats.
DEPTHWISE: Final = "DW+PW"
# Far above any data set.
MAX_CLASSES: Final = 10**6


def layout(
    *,
    stages: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    widths: Sequence[int] | str | None = None,
    inputs: int | None = None,
    kernel: int | None = None,
    network: str | None = None,
    side: int | None = None,
    style: str | None = None,
    classes: int | None = None,
    blocks: Sequence[Sequence[str]] | None = None,
    width_choices: Sequence[Sequence[int]] | None = None,
    monotone: bool = False,
    max_depth: int | None = None,
    objective: str | None = None,
    least_gain: float | None = None,
    limits: Sequence[str] = (),
    params: int | None = None,
    macs: int | None = None,
    layers: int | None = None,
    activations: int | None = None,
    latency: LatencySource | Path | None = None,
    latency_budget_ms: Fraction | float | None = None,
    peak_memory: int | str | None = None,
    dtype: str | None = None,
    types: Sequence[Sequence[str]] | None = None,
    expansions: Sequence[Fraction | int] | None = None,
    bottlenecks: Sequence[Fraction | int] | None = None,
    strides: Sequence[int] | str | None = None,
    forms: str = CHEAPEST,
    alpha: float = 3,
    cap: str = "input",
    floors: Floors = NO_FLOORS,
    top: int = 1,
    distance: int = 1,
    time_limit_s: float | None = None,
    jobs: int | None = None,
) -> Answer[StagePlan]:
    """Return the `top` stage layouts of the greatest objective within budgets, best first.

    The options are those of `ifspace layout`: `stages` are the sides of what enters the stages in
    pixels, or `network` is the name of a network of the papers for images of `side` pixels; of the
    parameters and MACs of `depths`, or of the network, those without a budget do not grow. `blocks`
    and `width_choices` have one list for all stages or one for each; `widths` fixes the widths,
    "start" to those of the network, and without either multiples of 8 around them are tried.
    `objective` is "macs-3/4" where widths are free, "gain" where they are fixed, if not given; it
    may be "latency" or "peak-memory", the least of layouts with a gain of `least_gain`, that of the
    start if not given. `max_depth` is twice the depth that a stage starts with, if not given;
    `limits` of single stages are such as "3:depth<=6,width>=64". `style` (resnet, mobilenet, plain,
    bare) says what stands around the stages and counts, with a head of `classes` classes. `floors`
    hold for every block; the one that reads the network's input reads what there is.

    `types` of stages (plain, basic, bottleneck, inverted) are choices beside the blocks, one list
    for all stages or one for each; `expansions` and `bottlenecks` the widths inside blocks to
    choose from. `strides` are those that the stages begin with, or "free": which ones halve the
    feature maps is chosen. `forms`: of open groups the cheapest, or the "front" of parameters and
    least fan-in.

    >>> answer = layout(network="vgg16", params=5_098_826, macs=369_824_768, widths="start",
    ...                 max_depth=16)
    >>> answer.status.name, answer.plans[0].layout.depths
    ('OPTIMAL', (5, 4, 2, 1, 1))

    Raises: SettingError for options that do not go together or are out of range, and for "entropy",
        whose problem is `ifspace.stages.entropy.problem.EntropyProblem`.
    """
    if objective == ENTROPY:
        raise SettingError.because(
            "an objective with a problem of its own",
            got=repr(ENTROPY),
            allowed=f"{', '.join(OBJECTIVES)}, {', '.join(COSTS)}",
            remedy="call best_entropy(EntropyProblem(params=..., macs=...)) of "
            "ifspace.stages.entropy",
            argument="objective",
        )
    problem = layout_problem(
        {
            "stages": _tuple(stages),
            "depths": _tuple(depths),
            "widths": widths if isinstance(widths, str) else _tuple(widths),
            "inputs": inputs,
            "network": network,
            "input": side,
            "style": style,
            "classes": classes,
            "strides": strides if isinstance(strides, str) else _tuple(strides),
        },
        kernel=kernel,
        alpha=alpha,
        blocks=_tuple(blocks),
        types=_tuple(types),
        expansions=_ratios(expansions, "expansions"),
        bottlenecks=_ratios(bottlenecks, "bottlenecks"),
        forms=forms,
        width_choices=_tuple(width_choices),
        monotone=monotone,
        max_depth=max_depth,
        objective=objective,
        least_gain=least_gain,
        stage=limits,
        latency=latency,
        latency_budget_ms=latency_budget_ms,
        cap=cap,
        params=params,
        macs=macs,
        layers=layers,
        activations=activations,
        peak_memory=peak_memory,
        dtype=dtype,
        floors=floors,
    )
    return best_stages(problem, top, time_limit_s, jobs, distance=distance)


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Return a sequence, which may hold others, as a tuple.

    >>> _tuple([[1, 2], "CONV"])
    ((1, 2), 'CONV')
    """
    if values is None:
        return None
    return tuple(tuple(x) if isinstance(x, list | tuple) else x for x in values)


def _ratios(values: Sequence[Any] | None, name: str) -> tuple[Fraction, ...] | None:
    return None if values is None else tuple(ratio_above_zero(value, name) for value in values)


def layout_problem(
    description: Mapping[str, Any], *, kernel: int | None, alpha: float, **options: Any
) -> StagesProblem:
    """Return the problem of a layout that is described, with its budgets and choices.

    Raises: SettingError for options that do not go together or are out of range.
    """
    description = {"style": None, "classes": None, "strides": None, **description}
    options = {"types": None, "expansions": None, "bottlenecks": None, **options}
    usual = _usual_block(options)
    description["style"] = assumed_style(description, options)
    fixes_widths = description["widths"] is not None
    if isinstance(description["widths"], str):
        choice(description["widths"], "widths", (OWN_WIDTHS,))
        description["widths"] = None
    has_start = description["depths"] is not None or description["network"] is not None
    free_strides = description["strides"] == FREE
    if free_strides:
        description |= _strided(description)
    texts = options["blocks"]
    if usual is not None and description["network"] is None:
        description["bottleneck"] = usual.ratio
        if texts is None:
            texts = ((usual.block,),)
            description |= {"blocks": texts[0]} if has_start else {}
            options["blocks"] = texts if options["types"] is None else None
    if has_start or description["stages"] is None:
        start = read_layout(kernel=kernel, **description)
    else:
        start = _assumed_start(description, kernel, fixes_widths, {**options, "blocks": texts})
    of_peak = options.get("peak_memory") is not None or options.get("objective") == "peak-memory"
    if of_peak and description["network"] is not None:
        check_peak(description["network"])
    return _problem(
        start,
        has_start,
        fixes_widths,
        description["style"],
        alpha,
        KERNEL if kernel is None else kernel,
        free_strides=free_strides,
        **options,
    )


def assumed_style(description: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    """Return the style of stages that are described, None for a network.

    Inverted residuals alone are those of a MobileNet.
    """
    if description["network"] is not None or description["style"] is not None:
        return description["style"]  # type: ignore[no-any-return]
    types = {name for names in options["types"] or () for name in names}
    inverted = types == {"inverted"} or (not types and options["expansions"] is not None)
    return MOBILENET if inverted and options["blocks"] is None else STYLE


@dataclass(frozen=True, slots=True)
class _Usual:
    """What stands for widths inside that are chosen, where a start is needed: one block."""

    block: str
    ratio: Fraction | None


def _usual_block(options: Mapping[str, Any]) -> _Usual | None:
    """Return the block of the first type of stage, or for widths inside; None without either."""
    types = [name for names in options["types"] or () for name in names]
    inside = Inside(options["expansions"], options["bottlenecks"])
    if types:
        inside = inside.typed(types[0])
    name = "bottlenecks" if inside.expansions is None else "expansions"
    ratios = sorted(w for w in getattr(inside, name) or () if name == "expansions" or w < 1)
    if not types and inside == Inside():
        return None
    for type_name in types:
        choice(type_name, "types", TYPES)
    block = TYPES[types[0]].block if types else INNER_BLOCKS[name]
    return _Usual(block, ratios[len(ratios) // 2] if ratios else None)


def _strided(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return stages and strides where the first block of a stage, and no pooling, halves."""
    sides = description["stages"]
    if description["network"] is not None or sides is None:
        return {"strides": None}
    pairs = list(pairwise((sides[0], *sides)))
    wrong = [f"{a} to {b}" for a, b in pairs if a % b or (a // b) & (a // b - 1)]
    if wrong:
        raise SettingError.because(
            "free strides of sides that are not halved",
            got=wrong[0],
            allowed="sides that stay, or are halved once or several times",
            remedy="give other --stages",
            argument="strides",
        )
    return {"stages": tuple(a for a, _ in pairs), "strides": tuple(a // b for a, b in pairs)}


def _assumed_start(
    description: Mapping[str, Any],
    kernel: int | None,
    fixes_widths: bool,
    options: Mapping[str, Any],
) -> Layout:
    """Return the largest even layout within the budgets, for stages without depths.

    Where widths are fixed, as many blocks in every stage; else widths that double from stage to
    stage. Of the first block that is offered with its groups, of CONV if there is none.
    """
    sides, widths = description["stages"], description["widths"]
    fixed = [text for texts in options["blocks"] or () for text in texts]
    limits = {
        name: options[name]
        for name in ("params", "macs", "activations")
        if options.get(name) is not None
    }

    def starts() -> Iterator[Layout]:
        lists = (
            ((depth, widths) for depth in range(MOST_DEPTH, 0, -1))
            if fixes_widths
            else (
                (DEPTH, doubled(first, len(sides))) for first in range(LAST_WIDTH, 0, -WIDTH_STEP)
            )
        )
        for depth, stage_widths in lists:
            about = {**description, "depths": (depth,) * len(sides), "widths": stage_widths}
            yield _with_first_block(about, kernel, fixed)

    if not limits and not fixes_widths:
        about = {**description, "depths": (DEPTH,) * len(sides)}
        return _with_first_block(about, kernel, fixed)
    for start in starts():
        if all(getattr(start, name) <= limit for name, limit in limits.items()):
            break
    return start


def _with_first_block(
    description: Mapping[str, Any], kernel: int | None, blocks: Sequence[str]
) -> Layout:
    """Return the layout of the first block that fits its stages, CONV if none does."""
    for text in blocks:
        try:
            return read_layout(kernel=kernel, blocks=(text,), **description)
        except IfspaceError:
            continue
    return read_layout(kernel=kernel, **description)


def doubled(first: int, count: int) -> tuple[int, ...]:
    """Return widths that double from stage to stage, up to as many times as by default.

    >>> doubled(64, 5)
    (64, 128, 256, 512, 512)
    """
    return tuple(first * min(1 << index, LAST_WIDTH // FIRST_WIDTH) for index in range(count))


def widths_around(width: int) -> tuple[int, ...]:
    """Return multiples of 8 from half to twice a width, and the width.

    >>> widths_around(64), widths_around(12)
    ((32, 40, 48, 56, 64, 80, 96, 112, 128), (8, 12, 16, 24))
    """
    steps = (max(1, round(width * share / WIDTH_STEP)) for share in AROUND)
    return tuple(sorted({width, *(WIDTH_STEP * step for step in steps)}))


def check_peak(network: str) -> None:
    """Check that the layout of a network says which shortcuts it has.

    Raises: SettingError.
    """
    if network.lower() in FREE_SHORTCUTS:
        raise SettingError.because(
            "peak memory of a network whose shortcuts its layout does not have",
            got=network,
            allowed=", ".join(name for name in NETWORKS if name not in FREE_SHORTCUTS),
            remedy=f"`ifspace analyze {network.lower()}` says what it needs",
            argument="peak_memory",
        )


def read_layout(
    stages: tuple[int, ...] | None,
    depths: tuple[int, ...] | None,
    widths: tuple[int, ...] | None,
    inputs: int | None,
    kernel: int | None,
    network: str | None,
    input: int | None,
    blocks: tuple[str, ...] | None = None,
    style: str | None = None,
    classes: int | None = None,
    strides: tuple[int, ...] | None = None,
    bottleneck: Fraction | None = None,
) -> Layout:
    """Return the layout that the options describe, bare if no style is given.

    Raises: SettingError for options that do not go together or lists that do not fit.
    """
    if network is not None:
        own = {
            "stages": stages,
            "widths": widths,
            "inputs": inputs,
            "kernel": kernel,
            "blocks": blocks,
            "style": style,
            "strides": strides,
        }
        if conflicts := ", ".join(f"--{name}" for name, value in own.items() if value is not None):
            raise SettingError.because(
                "options that do not go together",
                got=f"{conflicts} with --network",
                allowed="--depths, --input",
                remedy="leave them out, or --network",
            )
        return _network(network, SIDE if input is None else input, depths, classes)
    if input is not None:
        raise SettingError.because(
            "options that do not go together",
            got="--input without --network",
            allowed="--input with --network",
            remedy="use --stages for sides, --inputs for channels",
        )
    if stages is None or depths is None:
        absent = [name for name, value in (("stages", stages), ("depths", depths)) if not value]
        raise SettingError.because(
            "--stages and --depths go together" if len(absent) == 1 else "no stages",
            got=" and ".join(f"no --{name}" for name in absent),
            allowed="--stages and --depths, or --network",
            remedy="say what is missing",
        )
    style = BARE if style is None else style
    choice(style, "style", STYLES)
    texts = blocks or ((DEPTHWISE if style == MOBILENET else reference_kind().symbol),)
    texts = texts * len(stages) if len(texts) == 1 else texts
    with _errors_of_blocks():
        parsed = [parse_block(text, KERNEL if kernel is None else kernel) for text in texts]
    widths = widths or doubled(FIRST_WIDTH, len(stages))
    for block in parsed:
        _check_style(style, block.composition)
    count = whole_number(CLASSES if classes is None else classes, "classes", 1, MAX_CLASSES)
    stem_and_head = styled(style, inputs or INPUTS, widths[0], stages[0], count)
    has_inner = all(BlockChoice.of(block).has_inner for block in parsed)
    if not has_inner or any((width * (bottleneck or 1)).denominator > 1 for width in widths):
        bottleneck = None
    return make_layout(parsed, stages, widths, depths, strides, stem_and_head, bottleneck)


def _check_style(style: str | None, composition: Composition) -> None:
    """Check that a block fits a style: MobileNets are made of depthwise convolutions.

    Raises: SettingError.
    """
    kinds = map(find_kind, composition.kinds)
    if style != MOBILENET or any(kind.spatial and not kind.mixing for kind in kinds):
        return
    raise SettingError.because(
        f"a block that does not fit {ARGUMENT} {style}",
        got=str(composition),
        allowed=f"blocks with a depthwise convolution, such as {DEPTHWISE}",
        remedy=f"choose another block, or {ARGUMENT} {STYLE}",
        argument="style",
    )


def _network(name: str, side: int, depths: tuple[int, ...] | None, classes: int | None) -> Layout:
    try:
        start = named_layout(name, side)
    except SettingError as error:
        error.argument = "input" if error.argument == "side" else error.argument
        raise
    if classes is not None:
        ends = start.stem_and_head
        dense = (*ends.classifier[:-1], whole_number(classes, "classes", 1, MAX_CLASSES))
        start = replace(start, stem_and_head=replace(ends, classifier=dense))
    if depths is None:
        return start
    return start.at_depths([whole_number(depth, "depths", 1, MAX_DEPTH) for depth in depths])


def _problem(
    start: Layout,
    has_start: bool,
    fixes_widths: bool,
    style: str | None,
    alpha: float,
    kernel: int,
    blocks: tuple[tuple[str, ...], ...] | None,
    width_choices: tuple[tuple[int, ...], ...] | None,
    monotone: bool,
    max_depth: int | None,
    objective: str | None,
    stage: Sequence[str],
    latency: LatencySource | Path | None,
    latency_budget_ms: Fraction | None,
    cap: str,
    floors: Floors,
    types: tuple[tuple[str, ...], ...] | None,
    expansions: tuple[Fraction, ...] | None,
    bottlenecks: tuple[Fraction, ...] | None,
    free_strides: bool,
    forms: str = CHEAPEST,
    least_gain: float | None = None,
    **amounts: Any,
) -> StagesProblem:
    budgets = Budgets(**amounts, latency_ms=latency_budget_ms)
    if objective in COSTS and least_gain is None:
        if not has_start:
            raise SettingError.because(
                "nothing that a layout must be good for",
                got=f"{ARGUMENT} {objective} without a least gain",
                allowed="--least-gain G; or --depths or --network, whose gain is kept",
                remedy="add one: the shallowest layout has the least of every cost",
                argument="objective",
            )
        least_gain = start.gain(alpha, cap)
    if not budgets.limits and not has_start and objective not in COSTS:
        raise SettingError.because(
            "no budget",
            got="none of --params, --macs, --activations, --layers, --latency-budget-ms, "
            "--peak-memory",
            allowed="at least one; or --depths or --network, whose parameters and MACs are kept",
            remedy="without one the deepest layout gains most",
        )
    if has_start:
        # What has no budget does not grow.
        kept = {name: getattr(start, name) for name in TABLE_AMOUNTS}
        budgets = Budgets(**{**kept, **budgets.limits}, dtype=budgets.dtype)
    inside = Inside(expansions, bottlenecks)
    choices = _choices(start, style, kernel, blocks, types, inside)
    finer = False
    if width_choices is not None:
        width_choices = _for_each("width_choices", width_choices, len(start.stages))
    elif not fixes_widths:
        finer = True
        width_choices = tuple(map(widths_around, start.widths))
    limits = merged(map(StageLimits.parse, stage))
    if limits:
        fixed_widths = tuple((width,) for width in start.widths)
        width_choices = limited_widths(limits, width_choices or fixed_widths)
        if any("expansion" in limit.limited for limit in limits):
            choices = limited_blocks(
                limits, choices or [(BlockChoice.of_stage(part),) for part in start.stages]
            )
    least, most = limited_depths(
        limits,
        [part.min_depth for part in start.stages],
        [
            max(part.min_depth, 2 * part.depth) if max_depth is None else max_depth
            for part in start.stages
        ],
    )
    strides = limited_strides(
        limits,
        ((1, 2),) * len(start.stages) if free_strides else None,
        [part.stride for part in start.stages],
    )
    problem = StagesProblem(
        start,
        budgets,
        width_choices,
        None if choices is None else tuple(Blocks(*offered) for offered in choices),
        most if limits or max_depth is None else max_depth,
        alpha,
        monotone,
        read_latency(latency) if isinstance(latency, Path) else latency,
        objective or FIXED_OBJECTIVE,
        cap,
        floors,
        least if limits else None,
        strides,
        forms,
        least_gain,
        finer,
    )
    free = objective is None and problem.has_free_widths
    return replace(problem, objective=FREE_OBJECTIVE) if free else problem


def _choices(
    start: Layout,
    style: str | None,
    kernel: int,
    blocks: tuple[tuple[str, ...], ...] | None,
    types: tuple[tuple[str, ...], ...] | None,
    inside: Inside,
) -> tuple[tuple[BlockChoice, ...], ...] | None:
    """Return the blocks that each stage may choose from; None for those of the start.

    Raises: SettingError for widths inside that no block has, or a block that does not fit a style.
    """
    count = len(start.stages)
    if blocks is None and types is None:
        if inside == Inside():
            return None
        own = [tuple(inside.of(BlockChoice.of_stage(stage))) for stage in start.stages]
        choices = tuple(own)
    else:
        with _errors_of_blocks():
            choices = tuple(
                offered(texts, names, inside, kernel)
                for texts, names in zip(
                    _for_each("blocks", blocks or ((),), count),
                    _for_each("types", types or ((),), count),
                    strict=True,
                )
            )
    if style == MOBILENET:
        choices = tuple(tuple(map(_as_inverted, stage)) for stage in choices)
    check_inside([choice for stage in choices for choice in stage], inside)
    for stage in choices:
        for block in stage:
            _check_style(style, block.composition)
    return choices


def _as_inverted(block: BlockChoice) -> BlockChoice:
    """Return a block of a MobileNet: those with an expansion are inverted residuals."""
    if block.expansion is None or block.type is not None:
        return block
    return replace(block, type=INVERTED)


@contextmanager
def _errors_of_blocks() -> Iterator[None]:
    """Say of --blocks what is wrong with a block, unless it is the --kernel or a type."""
    try:
        yield
    except IfspaceError as error:
        if error.argument not in ("kernel", "types"):
            error.argument = "blocks"
        raise


def _for_each(name: str, lists: tuple[T, ...], stages: int) -> tuple[T, ...]:
    """Return one list of choices for each stage; one alone is for all."""
    if len(lists) not in (1, stages):
        raise SettingError.because(
            f"wrong number of {ARGUMENT}",
            got=f"{len(lists)} lists",
            allowed=f"one for all, or {stages}, one for each stage",
            remedy=f"write {STAGE_SEPARATOR} between the lists of the stages",
            argument=name,
        )
    return lists if len(lists) == stages else lists * stages
