"""`ifspace score` and `ifspace validate`: scores of a network, and what they can tell."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ifspace.cli.backend import backend_options
from ifspace.cli.options import FILE, Output, WholeNumber, output_options, shared, with_options
from ifspace.cli.progress import ProgressBar
from ifspace.errors import IfspaceError, SettingError
from ifspace.models.options import (
    SAVED,
    ModelSource,
    input_option,
    layer_list_option,
    model_or_list,
    networks_needed,
    optional_model_argument,
    part_option,
    trust_option,
)

if TYPE_CHECKING:
    from ifspace.scores.reliability import ScoredNetwork
    from ifspace.scores.tables import Built

_NEEDED = "needed to read real networks; without it give their layers"


@click.command("score", short_help="Show every score and count of a network.")
@optional_model_argument
@with_options(
    (
        layer_list_option,
        input_option,
        part_option,
        trust_option,
        click.option(
            "--beside",
            metavar="MODEL|FILE.csv",
            help="Another network, or the file of its convolutions: shows how reliable each number "
            "was for comparing such two (same strides or not, equal parameters, other groups). "
            "--input is for both; beside a file the counts of both are of convolutions alone.",
        ),
        shared("alpha", help="The decay of the gain."),
        shared("save", help="Write the convolutions of MODEL as a file for --layers."),
    )
)
@output_options()
def score_command(
    output: Output,
    model: str | None,
    layers: Path | None,
    input: str | None,
    part: str | None,
    trust_code: bool,
    beside: str | None,
    alpha: float,
    save: Path | None,
) -> None:
    """Show every score and plain count of a network, and how reliable each was.

    MODEL is timm:NAME, torchvision:NAME, FILE.py:FACTORY, a network of the papers such as vgg16, or
    FILE.safetensors that `ifspace optimize --save` wrote; or --layers has its convolutions, and no
    torch is needed. Beside each number stands how it ordered trained networks of published data.
    There is no number for the quality of a network.
    """
    model_or_list(model, layers, input=None if beside else input, part=part, trust_code=trust_code)
    from ifspace.scores.text import score_forms

    network = _scored(output, model, layers, alpha, input, part, trust_code)
    other = None
    if beside is not None:
        is_list = beside.lower().endswith(".csv")
        name, path = (None, Path(beside)) if is_list else (beside, None)
        try:
            other = _scored(output, name, path, alpha, input)
        except IfspaceError as error:
            error.argument = "beside" if error.argument == "layers" else error.argument
            raise
        if is_list == (layers is None):
            # A list knows nothing of the rest of its network, such as normalisation.
            network, other = network.of_layers(alpha), other.of_layers(alpha)
            output.note(
                f"{path or layers} lists convolutions alone: the counts of both are of these"
            )
    if save is not None:
        from ifspace.storage import replacing

        with replacing(save) as file:
            file.write_text(network.layers.text(), encoding="utf-8")
        rest = network.result.counts["params"] - network.layers.params
        without = f", without {rest:,} parameters of other layers, norms and biases" if rest else ""
        output.note(f"wrote {save}: the convolutions alone{without}")
    output.emit(score_forms(network, other, alpha))


def _scored(
    output: Output,
    model: str | None,
    layers: Path | None,
    alpha: float,
    size: str | None = None,
    part: str | None = None,
    trust_code: bool = False,
) -> "ScoredNetwork":
    """Return a network, or the list of one, with its scores."""
    from ifspace.scores.layers import read_layers
    from ifspace.scores.measures import score
    from ifspace.scores.reliability import ScoredNetwork

    if layers is not None:
        listed = read_layers(layers)
        return ScoredNetwork(str(layers), layers.name, listed, score(listed, alpha))
    assert model is not None
    with networks_needed(_NEEDED):
        source = ModelSource.of(model, size, trust_code, part=part)
        for note in source.notes():
            output.note(note)
        listed, counts, fields = _read(source)
    result = score(listed, alpha, counts=counts, fields=fields)
    return ScoredNetwork(source.name, str(source), listed, result)


@click.command("validate", short_help="Compare every score with the accuracies of a table.")
@click.argument("tables", metavar="TABLE...", type=FILE, nargs=-1, required=True)
@with_options(
    (
        click.option(
            "--against",
            metavar="MEASURE",
            help="Show the differences to a score or count, such as macs.",
        ),
        click.option(
            "--resamples",
            type=WholeNumber(),
            metavar="N",
            default=200,
            show_default=True,
            help="Bootstrap samples of the networks.",
        ),
        click.option(
            "--seed",
            type=WholeNumber(0),
            metavar="N",
            default=0,
            show_default=True,
            help="Of them.",
        ),
        shared("alpha", help="The decay of the gain."),
        click.option(
            "--jobs",
            type=WholeNumber(1),
            metavar="N",
            help="Workers that share the scores; if not given those of a cluster, or one.",
        ),
        click.option(
            "--figure",
            type=FILE,
            metavar="FILE",
            help="Draw the result too, as SVG and PNG of this name.",
        ),
        click.option(
            "--trust-code",
            is_flag=True,
            help="Run the Python files that a `builder` names. Trust only files of people whose "
            "programs you would run.",
        ),
    )
)
@backend_options()
@output_options()
def validate_command(
    output: Output,
    tables: tuple[Path, ...],
    against: str | None,
    resamples: int,
    seed: int,
    alpha: float,
    jobs: int | None,
    figure: Path | None,
    trust_code: bool,
) -> None:
    """Show how every score and count orders trained networks by their accuracies.

    A TABLE is CSV with a row for each network: `layers` (kernel/stride/in/out/groups/size of each,
    between semicolons, or the path of a file of --layers) or `builder` (a MODEL of `ifspace score`,
    with `input` its image size), and `accuracy` or `error` in percent; `name`, `set`, `params`,
    `macs` and other counts where they are known. Networks are compared within a set. The published
    tables of NAS-Bench-Macro, imgclsmob and pycls are read as they are.
    """
    output.check()
    if figure is not None:
        from ifspace.cli.requirements import check_installed

        check_installed(
            {"matplotlib": "plots"}, "figures are drawn with it", "; or leave --figure out"
        )
    from ifspace.scores.tables import network_sets, read_table
    from ifspace.scores.text import validation_forms
    from ifspace.scores.validation import validate

    build = partial(_built, trust_code)
    networks = [network for table in tables for network in read_table(table, build)]
    with ProgressBar("scoring", quiet=output.quiet) as bar:
        sets = network_sets(networks, alpha, bar)
    with ProgressBar("comparing", quiet=output.quiet) as bar:
        result = validate(
            sets, against, resamples=resamples, seed=seed, alpha=alpha, jobs=jobs, progress=bar
        )
    output.emit(validation_forms(result))
    if figure is not None:
        from ifspace.scores.figure import draw

        for path in draw(result, figure):
            output.note(f"wrote {path}")


def _built(trust_code: bool, name: str, size: str | None) -> "Built":
    """Return what a table's builder builds; a table is data, so its code needs trust."""
    with networks_needed(_NEEDED):
        from ifspace.models.sources import code_file

        file = code_file(name)
        if file is not None and not trust_code:
            raise SettingError.because(
                "a builder that cannot be built without running code",
                got=f"{file}, which would be run",
                allowed="code that you trust, with --trust-code",
                remedy="read it first",
            )
        is_saved = name.lower().endswith(SAVED)
        return _read(ModelSource.of(name, size, trust_code and is_saved))


def _read(source: ModelSource) -> "Built":
    from ifspace.models import trace
    from ifspace.models.listing import known_counts, layer_list, stage_fields
    from ifspace.models.sources import on_shapes

    def read(network: Any) -> "Built":
        graph = trace(network, source.image)
        return layer_list(graph), known_counts(graph), stage_fields(graph, network)

    return on_shapes(source.build, read)
