"""`ifspace optimize`: a real network with better stages, and blocks for its convolutions."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from ifspace.cli.options import (
    Output,
    amount,
    decimal,
    parts,
    seconds,
    shared_options,
    with_options,
)
from ifspace.cli.saving import SEED, check_files
from ifspace.cli.solved import no_plan
from ifspace.models.options import (
    Source,
    input_option,
    model_argument,
    networks_needed,
)
from ifspace.stages.command import block_list, milliseconds

OBJECTIVES = ("keep", "params", "macs", "latency_ms")
SUFFIXES = (".safetensors", ".onnx", ".pt2")

_OPTIONS = (
    input_option,
    click.option(
        "--classes",
        type=click.IntRange(1),
        metavar="N",
        help="Classes of the network; those of its source if not given.",
    ),
    click.option(
        "--params",
        type=amount,
        metavar="P",
        help="At most so many parameters in the whole network.",
    ),
    click.option("--macs", type=amount, metavar="M", help="At most so many MACs an image."),
    click.option("--stages-only", is_flag=True, help="The stages alone, as without any blocks."),
    click.option(
        "--moves",
        type=click.IntRange(0),
        metavar="N",
        help="Take the network after so many moves of the organizer; its end if not given.",
    ),
    click.option(
        "--theta",
        type=decimal,
        metavar="T",
        help="The organizer moves a unit for a gain above it; 0 if not given.",
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
        "--block", metavar="B", help="The block that convolutions become, such as DW+RPW(2,1/2)."
    ),
    click.option(
        "--blocks", type=block_list, metavar="LIST", help="Blocks to choose from, layer by layer."
    ),
    click.option(
        "--cheapest",
        is_flag=True,
        help="For each convolution the cheapest block that has its full field.",
    ),
    click.option("--blocks-only", is_flag=True, help="Leave the stages as they are."),
    click.option(
        "--names",
        type=parts,
        metavar="LIST",
        help="The layers to replace, as `ifspace analyze --layers` names them; all plain "
        "3x3 convolutions if not given.",
    ),
    click.option(
        "--least-channels",
        type=click.IntRange(1),
        metavar="N",
        help="Only convolutions that read so many channels; 16 if not given.",
    ),
    click.option(
        "--objective",
        type=click.Choice(OBJECTIVES, case_sensitive=False),
        help="What decides between blocks: keep replaces as few as the budgets ask for, "
        "the others make an amount least; keep with a budget, else params, if not given.",
    ),
    click.option(
        "--latency",
        type=click.Path(path_type=Path),
        metavar="TABLE.csv",
        help="Measured latencies of blocks and convolutions, as for `ifspace layout`.",
    ),
    click.option(
        "--latency-budget-ms",
        type=milliseconds,
        metavar="MS",
        help="With --latency: at most so many milliseconds for the chosen layers.",
    ),
    click.option(
        "--warm-start",
        is_flag=True,
        help="Fit each block to the convolution that it replaces, on images of noise.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        metavar="S",
        default=SEED,
        show_default=True,
        help="Of all fresh weights.",
    ),
    click.option(
        "--save",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the network: .safetensors to load again, .onnx or .pt2 to run.",
    ),
    click.option(
        "--time-limit",
        type=seconds,
        metavar="SECONDS",
        help="Of the searches; what was found by then is taken.",
    ),
)


@click.command("optimize", short_help="Better stages of a real network, and cheaper blocks in it.")
@model_argument
@with_options(_OPTIONS)
@shared_options()
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    model: str,
    input: str,
    classes: int | None,
    seed: int,
    save: Path | None,
    latency: Path | None,
    latency_budget_ms: Fraction | None,
    **asked: Any,
) -> None:
    """Reorganize the stages of a network, then replace convolutions by blocks, then save it.

    MODEL is as for `ifspace analyze`. First the stages: the greedy organizer moves units to where
    they gain most (see `ifspace organize`). Then, if --block, --blocks or --cheapest says which,
    the blocks: they replace every plain 3x3 convolution that they fit. Layers that stay keep their
    weights.

    Budgets are of the whole network. Without blocks the stages meet them: their depths of greatest
    total gain within the budgets, proven; an amount without a budget does not grow. With blocks it
    is the blocks that do, in the stages of the organizer, or with --blocks-only in those that are
    there: as few as it takes, proven. Amounts may end in k, M or G.

    Exit status 3 when nothing keeps the budgets, 4 when the time limit came first.
    `ifspace.models.load(FILE)` reads a network that was saved.
    """
    with networks_needed("real networks are taken apart with them", {"ortools": "solver"}):
        from ifspace.models.optimization import (
            Wanted,
            optimized,
        )
        from ifspace.models.optimize_text import (
            forms,
            message,
        )
        from ifspace.models.sources import parse_image
        from ifspace.stages.latency import read_latency

        source = Source(model, parse_image(input), classes, seed)
        wanted = Wanted(
            source,
            latency=None if latency is None else read_latency(latency),
            latency_budget_ms=latency_budget_ms,
            **asked,
        )
        check_files(output, save, SUFFIXES)
        found = optimized(wanted, output, save)
    output.emit(forms(found), keep=found.after is not None)
    if found.after is None:
        no_plan(context, message(found), found.out_of_time)
