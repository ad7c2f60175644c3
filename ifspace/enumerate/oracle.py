"""The rules of the enumeration as definitions: slow, and plainly what the papers say.

The search engines decide the same by other means; `passes` says of one block whether it survives
and is what they are checked against. A `monotone` rule that rejects a beginning rejects every
block that begins so: that is what lets a search leave beginnings out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Final

from ifspace.block import Block, SizedLayer
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.compositions import rejects as repeats_itself
from ifspace.infofield import spatial_field
from ifspace.reach import channel_fields, channel_reach

Chain = Sequence[SizedLayer]


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason to drop a block: `rejects` a chain of layers at the widths where rules decide."""

    name: str
    reference: str
    monotone: bool
    applies: Callable[[EnumerationSetting], bool]
    rejects: Callable[[Chain, EnumerationSetting], bool]


def passes(block: Block, setting: EnumerationSetting) -> bool:
    """Return whether a block with these parameters survives in the setting.

    >>> setting = EnumerationSetting(channels=16)
    >>> passes(Block.parse("DW+RPW(4,0)+RPW(4,0)"), setting)
    True
    >>> passes(Block.parse("DW+PW+SH(4)"), setting)
    False

    Raises: BlockError when the block does not fit the widths.

    Reference: [IF] and [3DRF] section 4.2; [Fog] section 3.1; at F other than C the rules decide
    at width C, and at the real widths the field must be full again.
    """
    at_c = setting.bottleneck is None
    decided = block.at(
        setting.channels, None if at_c else setting.out_width, setting.bottleneck, setting.dims
    ).layers
    real = block.at(setting.channels, setting.out_width, setting.bottleneck, setting.dims).layers
    return _channels(real, setting) == setting.channels and not any(
        rule.rejects(decided, setting) for rule in RULES if rule.applies(setting)
    )


def _channels(chain: Chain, setting: EnumerationSetting) -> int:
    """Return IF^c: exact, or under free permutations the product of the fan-ins up to the width."""
    if setting.permutation == "free":
        return min(setting.channels, prod(layer.fan_in for layer in chain))
    return channel_fields(chain)[-1] if chain else 1


def _field(chain: Chain, setting: EnumerationSetting) -> tuple[int, int]:
    return spatial_field([layer.kernel for layer in chain]), _channels(chain, setting)


def _target(setting: EnumerationSetting) -> tuple[int, int]:
    return setting.reference_field.side, setting.channels


def _is_repeated_pattern(chain: Chain, setting: EnumerationSetting) -> bool:
    one_copy = len(chain) // setting.repeats or len(chain)
    kinds = tuple(layer.layer.kind for layer in chain[:one_copy])
    return repeats_itself(kinds, setting.patterns)


def _is_too_wide(chain: Chain, setting: EnumerationSetting) -> bool:
    return _field(chain, setting)[0] > _target(setting)[0]


def _misses_the_field(chain: Chain, setting: EnumerationSetting) -> bool:
    return _field(chain, setting) != _target(setting)


def _has_idle_layer(chain: Chain, setting: EnumerationSetting) -> bool:
    """Return whether a layer can go and every output sees, channel by channel, what it saw."""
    if setting.permutation == "free":
        return any(layer.fan_in == 1 for layer in chain if _may_go(layer))
    whole = channel_reach(chain)
    return any(
        len(chain) > 1
        and all(row & ~rest == 0 for row, rest in zip(whole, channel_reach(others), strict=True))
        for place, layer in enumerate(chain)
        if _may_go(layer)
        for others in [[*chain[:place], *chain[place + 1 :]]]
    )


def _may_go(layer: SizedLayer) -> bool:
    return not layer.changes_width and not layer.conv.spatial


def _can_lose_a_layer(chain: Chain, setting: EnumerationSetting) -> bool:
    return any(
        _reaches([*chain[:place], *chain[place + 1 :]], setting)
        for place, layer in enumerate(chain)
        if not layer.changes_width
    )


def _can_lose_layers(chain: Chain, setting: EnumerationSetting) -> bool:
    keep = [(True,) if layer.changes_width else (True, False) for layer in chain]
    subsets = list(product(*keep))[1:]
    return any(
        _reaches([layer for layer, kept in zip(chain, flags, strict=True) if kept], setting)
        for flags in subsets
    )


def _reaches(chain: Chain, setting: EnumerationSetting) -> bool:
    side, channels = _field(chain, setting)
    return side >= _target(setting)[0] and channels >= _target(setting)[1]


def _stops_early(chain: Chain, setting: EnumerationSetting) -> bool:
    fields = [(1, 1), *(_field(chain[: n + 1], setting) for n in range(len(chain)))]
    return any(
        before in (after, _target(setting)) and not layer.changes_width
        for layer, before, after in zip(chain, fields[:-1], fields[1:], strict=True)
    )


RULES: Final = (
    Rule("repeated patterns", "[Fog] 3.1", False, lambda s: True, _is_repeated_pattern),
    Rule("wider than the reference", "[Fog] 3.1; [IF] eq. 2", True, lambda s: True, _is_too_wide),
    Rule("misses the field", "[IF]; [3DRF] 4.2: quality", False, lambda s: True, _misses_the_field),
    Rule(
        "idle layer", "follows from compact", True, lambda s: s.rule == "compact", _has_idle_layer
    ),
    Rule(
        "a layer can go",
        "[IF]; [3DRF] 4.2: compact",
        False,
        lambda s: s.rule == "compact",
        _can_lose_a_layer,
    ),
    Rule(
        "layers can go",
        "compact for any sub-sequence",
        False,
        lambda s: s.rule == "compact" and s.compact == "subset",
        _can_lose_layers,
    ),
    Rule("early stop", "[Fog] 3.1", True, lambda s: s.rule == "early-stop", _stops_early),
)
