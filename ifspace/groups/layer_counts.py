"""The cheapest depthwise layer and n rolling ones in whole group counts, for every n."""

from functools import cache

from ifspace.block import (
    DEFAULT_KERNEL,
    Block,
    Layer,
    SizedBlock,
    whole,
)


def best_layer_counts(channels: int, kernel: int = DEFAULT_KERNEL) -> tuple[SizedBlock, ...]:
    """Return the cheapest DW + n RPW at C = F for each n, fewest parameters first, then fewest n.

    Without overlap the field is the product of the fan-ins: n divisors of least sum, product >= C.
    >>> [(len(each.layers) - 1, each.params) for each in best_layer_counts(64)]
    [(3, 1344), (4, 1344), (5, 1344), (6, 1344), (2, 1600), (1, 4672)]

    Raises: BlockError for a width below 2 or an even kernel.

    Reference: [3DRF] section 4.2.
    """
    whole(channels, "channels", least=2)
    divisors = [width for width in range(2, channels // 2 + 1) if channels % width == 0]

    @cache
    def cheapest(layers: int, need: int) -> list[int] | None:
        if layers == 0:
            return [] if need == 1 else None
        rests = ((width, cheapest(layers - 1, -(-need // width))) for width in divisors)
        widths = [[width, *rest] for width, rest in rests if rest is not None]
        return min(widths, key=lambda each: (sum(each), each), default=None)

    spatial, found = Layer("DW", kernel=kernel), [[Layer("PW")]]
    for n in range(2, (channels - 1).bit_length() + 1):
        found.append([Layer("RPW", channels // width) for width in cheapest(n, channels) or ()])
    blocks = [Block((spatial, *layers)).at(channels) for layers in found if layers]
    return tuple(sorted(blocks, key=lambda sized: (sized.params, len(sized.layers))))
