"""The oracle: what survives an enumeration, by the definitions of the papers, plain and slow.

The search engines decide the same by other means and are checked against `passes`. They skip more
than is tested here: a block that is wider than the reference never gets narrower again, and a layer
that shows no output more than it saw before can go whatever follows. Both fail below in any case.
"""

from itertools import product
from math import prod

from ifspace.block import Block, Chain
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.compositions import is_dropped
from ifspace.infofield import spatial_field
from ifspace.reach import channel_fields


def passes(block: Block, setting: EnumerationSetting) -> bool:
    """Return whether a block with these parameters survives in the setting.

    >>> setting = EnumerationSetting(channels=16)
    >>> passes(Block.parse("DW+RPW(4,0)+RPW(4,0)"), setting)
    True
    >>> passes(Block.parse("DW+PW+SH(4)"), setting)
    False

    Raises: BlockError when the block does not fit the widths.

    Reference: [Fog] section 3.1 for repeated patterns and the rule early-stop; [IF] and [3DRF]
    section 4.2 for quality (the field of the reference) and the rule compact. At F other than C the
    rules decide at width C, and at the real widths the field must be full again.
    """
    at_c = setting.bottleneck is None
    decided = block.at(
        setting.channels, None if at_c else setting.out_width, setting.bottleneck, setting.dims
    ).layers
    real = block.at(setting.channels, setting.out_width, setting.bottleneck, setting.dims).layers
    kinds = [layer.kind for layer in block.layers]
    if is_dropped(kinds, setting.patterns) or _channels(real, setting) != setting.channels:
        return False
    if _field(decided, setting) != _target(setting):
        return False
    if setting.rule == "early-stop":
        return not _stops_early(decided, setting)
    if setting.compact == "subset":
        return not _can_lose_layers(decided, setting)
    return not _can_lose_a_layer(decided, setting)


def _channels(chain: Chain, setting: EnumerationSetting) -> int:
    """Return IF^c: exact, or under free permutations the product of the fan-ins up to the width."""
    if setting.permutation == "free":
        return min(setting.channels, prod(layer.fan_in for layer in chain))
    return channel_fields(chain)[-1] if chain else 1


def _field(chain: Chain, setting: EnumerationSetting) -> tuple[int, int]:
    """Return (IF^w, IF^c), in pixels and channels.

    Reference: [IF] eqs. 2 and 3.
    """
    return spatial_field([layer.kernel for layer in chain]), _channels(chain, setting)


def _target(setting: EnumerationSetting) -> tuple[int, int]:
    return setting.reference_field.side, setting.channels


def _reaches(chain: Chain, setting: EnumerationSetting) -> bool:
    side, channels = _field(chain, setting)
    return side >= _target(setting)[0] and channels >= _target(setting)[1]


def _can_lose_a_layer(chain: Chain, setting: EnumerationSetting) -> bool:
    return any(
        _reaches([*chain[:index], *chain[index + 1 :]], setting)
        for index, layer in enumerate(chain)
        if not layer.changes_width and (layer.conv.writes or setting.compact != "kernels")
    )


def _can_lose_layers(chain: Chain, setting: EnumerationSetting) -> bool:
    """Return whether some of the layers, one or more, can be left out."""
    stays = [(True,) if layer.changes_width else (True, False) for layer in chain]
    subsets = list(product(*stays))[1:]
    return any(
        _reaches([layer for layer, flag in zip(chain, flags, strict=True) if flag], setting)
        for flags in subsets
    )


def _stops_early(chain: Chain, setting: EnumerationSetting) -> bool:
    """Return whether a layer leaves the field as it was, or comes when it is reached already."""
    fields = [(1, 1), *(_field(chain[: n + 1], setting) for n in range(len(chain)))]
    return any(
        before in (after, _target(setting)) and not layer.changes_width
        for layer, before, after in zip(chain, fields[:-1], fields[1:], strict=True)
    )
