"""`ifspace analyze`: the stages of a real network, and where its layers see nothing new."""

from pathlib import Path

import click

from ifspace.cli.options import Output, output_options, shared, with_options
from ifspace.cli.progress import ProgressBar
from ifspace.models.options import (
    ModelSource,
    input_option,
    layer_list_option,
    model_or_list,
    networks_needed,
    optional_model_argument,
    part_option,
    trust_option,
)

_OPTIONS = (
    layer_list_option,
    input_option,
    part_option,
    trust_option,
    shared("alpha", help="The decay of the gain."),
    shared("cap"),
    shared("dtype", default="fp32"),
    click.option(
        "--every-layer",
        is_flag=True,
        help="A row for every layer, not for every unit; JSON and CSV always have every layer.",
    ),
)


@click.command("analyze", short_help="Show where the layers of a real network see nothing new.")
@optional_model_argument
@with_options(_OPTIONS)
@output_options()
def command(
    output: Output,
    model: str | None,
    layers: Path | None,
    input: str | None,
    part: str | None,
    trust_code: bool,
    alpha: float,
    cap: str,
    dtype: str,
    every_layer: bool,
) -> None:
    """Show the stages of a network, and the field and gain of its units and layers.

    MODEL is timm:NAME, torchvision:NAME, FILE.py:FACTORY (a function of the file that returns an
    nn.Module, or an nn.Module in it), a network of the papers such as vgg16, or FILE.safetensors
    that `ifspace optimize --save` wrote; or --layers has its convolutions. Nothing is computed: the
    network is built without values for its weights where that is possible. A stage is the part of a
    network that writes feature maps of one size; its side is that of what enters it, so a strided
    layer opens a stage and counts in it. A unit is what a stage repeats, such as a residual block.
    The field is what an output sees of the input of its stage; the gain compares it with the field
    of the layer before. A layer with gain 0 adds nothing. Peak memory is the largest sum of feature
    maps that are live at once, in the order of the network, for one image.
    """
    model_or_list(model, layers, input=input, part=part, trust_code=trust_code)
    if layers is not None:
        from ifspace.models.analyze_list import list_forms
        from ifspace.scores.layers import read_layers

        forms = list_forms(str(layers), read_layers(layers), alpha, cap, every_layer, dtype)
        output.emit(forms)
        return
    assert model is not None
    with networks_needed("needed to analyse real networks"):
        from ifspace.models import trace
        from ifspace.models.analysis import other_params, report_on
        from ifspace.models.analyze_text import analysis_forms
        from ifspace.models.sources import on_shapes

        source = ModelSource.of(model, input, trust_code, part=part)
        network, graph = on_shapes(
            source.build, lambda network: (network, trace(network, source.image))
        )
        for note in source.notes():
            output.note(note)
        with ProgressBar("analysing", quiet=output.quiet) as bar:
            report = report_on(graph, network, alpha, bar, cap)
        unlisted = other_params(network, report)
    output.emit(analysis_forms(source, report, unlisted, every_layer, dtype))
