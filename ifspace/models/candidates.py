"""What may stand in the place of a convolution, and what the network has then.

Batch norm and biases that come with a block are counted; so is a map of an odd side before a
stride, as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from ifspace.block import Block, SizedBlock
from ifspace.errors import IfspaceError
from ifspace.groups.full_field import ranked_blocks
from ifspace.models.changing.replace import Replace
from ifspace.models.sites import ConvSite
from ifspace.nn.blocks import BlockModule, Style
from ifspace.reach import field_after
from ifspace.stages.latency import LatencyTable
from ifspace.stages.replacement import (
    Option,
    Site,
)

Field = tuple[int, int]
# What a convolution is called in a table of latencies.
_AS_BLOCK: Final = {kind: Block.parse(kind) for kind in ("CONV", "PW")}


@dataclass(frozen=True, slots=True)
class Replaced:
    """A convolution and the block in its place, with what each has: before, after.

    `params` count biases and batch norm inside the block; `macs` are of one image; `fields` are
    (side, channels) of what an output sees.
    """

    step: Replace
    params: tuple[int, int]
    macs: tuple[int, int]
    fields: tuple[Field, Field]

    @property
    def name(self) -> str:
        """The path of the convolution."""
        return self.step.name

    @property
    def sized(self) -> SizedBlock:
        """The block at its widths."""
        return self.step.sized

    @property
    def sees_less(self) -> bool:
        """Whether the block has not the full field of the convolution."""
        return any(after < before for before, after in zip(*self.fields, strict=True))


def usual_style(site: ConvSite) -> Style:
    """Return the style of a block that leaves to the network what stands behind it.

    Batch norm inside where the network has one behind the convolution, a bias at the end where the
    convolution had one, no activation.
    """
    return Style(
        site.normed,
        activation=None,
        bias=site.layer.bias,
        batch_norm_where="between",
        bias_where="last",
    )


def replacements(
    site: ConvSite, blocks: Sequence[Block] | None, style: Style | None, objective: str
) -> tuple[tuple[Replaced, ...], str]:
    """Return what each block makes of a convolution, and why not where one does not fit.

    The cheapest comes first, in MACs where those are the objective, else in parameters. None stands
    for the blocks with the full field of the convolution.
    """
    layer = site.layer
    by: Literal["params", "macs"] = "macs" if objective == "macs" else "params"
    full_field = blocks is None
    if blocks is None:
        side = layer.side_in[0] if layer.side_in[0] == layer.side_in[1] else None
        stride: Literal[1, 2] = 2 if site.stride == 2 else 1
        plans = ranked_blocks(layer.c_in, layer.c_out, layer.kernel[0], stride, side, by)
        blocks = [plan.block for plan in plans]
    made, why = _made(site, blocks, style)
    # What comes with a block counts too: batch norm behind more layers is more.
    ordered = sorted(made, key=lambda each: (each.macs if by == "macs" else each.params)[1])
    return tuple(ordered), why or ("no block with its full field" if full_field else "no block")


def _made(
    site: ConvSite, blocks: Sequence[Block], style: Style | None
) -> tuple[tuple[Replaced, ...], str]:
    found, reasons = [], []
    for block in blocks:
        try:
            sized = block.at(site.layer.c_in, site.layer.c_out)
            step = Replace(site.name, sized, site.stride, style or usual_style(site))
            BlockModule(sized, step.stride, step.style, device="meta")  # refuses what does not fit
        except IfspaceError as error:
            reasons.append(f"{block}: " + str(error).partition("; ")[0])
            continue
        macs = sum(step.macs(*sides) for sides in site.calls)
        fields = (site.layer.kernel[0], site.layer.c_in), field_after(sized)[-1]
        found.append(Replaced(step, (site.params, step.params), (site.macs, macs), fields))
    return tuple(found), "; ".join(reasons)


def choice(site: ConvSite, options: Sequence[Replaced], latency: LatencyTable | None) -> Site:
    """Return a site of a replacement problem: the layer as it is, then what it may become."""
    kept = _AS_BLOCK[site.layer.kind].at(site.layer.c_in, site.layer.c_out)
    return Site(
        site.name,
        (
            Option(None, site.params, site.macs, _latency(site, kept, latency), site.stride),
            *(
                Option(
                    each.sized,
                    each.params[1],
                    each.macs[1],
                    _latency(site, each.sized, latency),
                    site.stride,
                )
                for each in options
            ),
        ),
    )


def _latency(site: ConvSite, sized: SizedBlock, table: LatencyTable | None) -> Fraction | None:
    """Return the latency of all calls in milliseconds, None where one was not measured."""
    if table is None:
        return None
    total = Fraction(0)
    for _, (height, width) in site.calls:
        found = table.find(sized, height, site.stride) if height == width else None
        if found is None:
            return None
        total += found
    return total
