"""`ifspace analyze`: the stages of a real network, and where its layers see nothing new."""

import click

from ifspace.cli.options import Output, output_options, shared, with_options
from ifspace.cli.progress import ProgressBar
from ifspace.models.options import (
    Source,
    input_option,
    model_argument,
    networks_needed,
)

_OPTIONS = (
    input_option,
    shared("alpha", help="The decay of the gain."),
    click.option(
        "--layers",
        "each_layer",
        is_flag=True,
        help="Every layer in the table, not the units alone; JSON and CSV have them always.",
    ),
)


@click.command("analyze", short_help="Show where the layers of a real network see nothing new.")
@model_argument
@with_options(_OPTIONS)
@output_options()
def command(output: Output, model: str, input: str, alpha: float, each_layer: bool) -> None:
    """Show the stages of a network, and field and gain of each of its units and layers.

    MODEL is timm:NAME, torchvision:NAME, FILE.py:FACTORY (a function of the file that makes an
    nn.Module, or one that is there), or a network of the papers such as vgg16. Nothing is
    computed: the network is built without values where that can be. A stage is what works on maps
    of one size, a unit what it repeats. The field is what an output sees of the input of its
    stage, the gain what it sees more than the layer before; a layer that gains 0 adds nothing.
    """
    with networks_needed("real networks are taken apart with them"):
        from ifspace.models import trace
        from ifspace.models.analysis import other_params, report_on
        from ifspace.models.analyze_text import (
            Asked,
            forms,
        )
        from ifspace.models.sources import on_shapes, parse_image

        source = Source(model, parse_image(input))
        network, found = on_shapes(source.build, lambda made: (made, trace(made, source.image)))
        with ProgressBar("analysing", quiet=output.quiet) as bar:
            report = report_on(found, network, alpha, bar)
        others = other_params(network, report)
    output.emit(forms(Asked(source, each_layer, others), report))
