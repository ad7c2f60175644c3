"""Fields and gains of [IF] Tables 1 and 2, from VGG-11."""

from experiments.reproduction.page import (
    MATCH,
    Judged,
    Section,
    as_table,
    verdict,
)
from experiments.reproduction.printed import (
    FIELDS,
    VARIANTS,
)
from ifspace.infofield import spatial_field
from ifspace.reach import channel_fields
from ifspace.stages.layout import (
    Layout,
    Stage,
)
from ifspace.stages.networks import vgg


def fields_section() -> Section:
    """Return the section of the page."""
    network = vgg("vgg11", 32)
    return Section(
        "[IF] Tables 1 and 2: fields and gains",
        [
            "Table 1: three 3x3 convolutions on a stage input of 8 x 8 x 128 (stage 3 of VGG-11 "
            "with one convolution more). A cell with one number is the same in both.",
            fields_table(network.stages[2].at_depth(len(FIELDS))),
            "Table 2: the gain of one convolution more in a stage of VGG-11, by stage.",
            variants_table(network),
        ],
        ("[IF] Table 1: layers", "[IF] Table 2: variants of VGG-11"),
    )


def fields_table(stage: Stage) -> Judged:
    """Return Table 1 beside the fields and gains of a stage, whose units are single layers."""
    layers = [layer for unit in stage.blocks for layer in unit.layers]
    sides = [spatial_field([x.kernel for x in layers[:n]], stage.side) for n in range(1, 4)]
    channels = channel_fields(layers)
    gains = (None, *stage.gains())
    rows = []
    for (k, *fields, gain), *ours, own in zip(
        FIELDS, sides, channels, stage.volumes(), gains, strict=True
    ):
        judged = MATCH
        if fields != ours:
            judged = f"fields {ours}"
        elif gain is not None and own is not None:
            judged = verdict(gain, own)
        cells = [f"{a}" if a == b else f"{a} / {b}" for a, b in zip(fields, ours, strict=True)]
        rows.append([k, *cells, gain or "-", "-" if own is None else f"{own:.4f}", judged])
    return Judged(as_table(["k", "IF^w", "IF^c", "IF", "gain printed", "ours", "verdict"], rows))


def variants_table(network: Layout) -> Judged:
    """Return Table 2 beside the gain of one unit more in each stage of a network."""
    rows = []
    for place, (stage, printed) in enumerate(zip(network.stages, VARIANTS, strict=True), start=1):
        own = stage.next_gain()
        rows.append([f"Variant-{place}", printed, f"{own:.4f}", verdict(printed, own)])
    return Judged(as_table(["network", "gain printed", "ours", "verdict"], rows))
