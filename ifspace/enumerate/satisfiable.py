"""What can be asked for at all: bounds on the parameters of the blocks of a setting, in no time.

They are known before the search and need no field: only what fan-ins multiply to. Floors that leave
no block are an error here, before any search.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ifspace.block import place_widths
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import (
    BEFORE,
    BEHIND,
    BETWEEN,
    FIRST,
    LAST,
    ONLY,
    Alphabet,
    role_widths,
)
from ifspace.errors import SettingError
from ifspace.floors import NO_FLOORS, Floors, ParamsRange, leaves_nothing
from ifspace.kinds import dense_pointwise_kind, find_kind, reference_kind

# Which role a layer has, and what stands before the next one, by what stands before it: no
# channel-mixing layer, the only one, the first of several, the last of them.
_NONE, _SINGLE, _OPEN, _CLOSED = range(4)
_MIXING: Final = {
    _NONE: ((ONLY, _SINGLE), (FIRST, _OPEN)),
    _OPEN: ((BETWEEN, _OPEN), (LAST, _CLOSED)),
}
_OTHER: Final = {_NONE: BEFORE, _SINGLE: BEHIND, _OPEN: BETWEEN, _CLOSED: BEHIND}


def params_range(setting: EnumerationSetting) -> ParamsRange:
    """Return the bounds on the parameters of the blocks of a setting.

    The least: the fewest of any layers, one of them spatial, whose fan-ins multiply to the width.
    The product of the fan-ins bounds the channel field from above, so that no block has fewer. The
    most: those of a standard convolution and a dense pointwise layer, in a bottleneck of both
    changes of width. A layer that reads everything makes the others removable but the spatial one.

    >>> str(params_range(EnumerationSetting(max_len=4, floors=Floors(least_fan_in=16))))
    '2,624 to 40,960 parameters'

    Raises: SettingError when the floors leave no block: which of them, and the nearest that works.
    """
    least = _fewest_params(setting)
    if least is None:
        raise _no_block(setting)
    return ParamsRange(least, _most_params(setting))


def check_floors(setting: EnumerationSetting) -> None:
    """Check that floors do not rule out every block; without them none of the others is to blame.

    Raises: SettingError when they do: which of them, and the nearest that works.
    """
    if setting.floors and not _works(setting, setting.floors) and _works(setting, NO_FLOORS):
        raise _no_block(setting)


def _works(setting: EnumerationSetting, floors: Floors) -> bool:
    # Kinds without groups have few layers, and most often make a block: that is known at once.
    plain = tuple(kind for kind in setting.kinds if not find_kind(kind).takes_groups)
    attempts = (plain, setting.kinds) if plain else (setting.kinds,)
    return any(
        _fewest_params(replace(setting, kinds=kinds, floors=floors)) is not None
        for kinds in attempts
    )


def _no_block(setting: EnumerationSetting) -> SettingError:
    if not setting.floors:
        return SettingError.because(
            f"no block at {setting.widths_text} can see all channels",
            got=f"{', '.join(setting.kinds)} in up to {setting.max_len} layers",
            allowed="kinds of which one is spatial and others mix channels, in enough layers",
            remedy="add kinds or allow more layers",
        )
    return leaves_nothing(
        setting.floors,
        lambda floors: _works(setting, floors),
        [c_in for c_in, _ in setting.width_pairs],
        f"at {setting.widths_text}",
    )


def _fewest_params(setting: EnumerationSetting) -> int | None:
    """Return the fewest parameters of layers whose fan-ins multiply to the width, None if none."""
    alphabet = Alphabet(setting)
    width, bottleneck = setting.channels, setting.bottleneck is not None
    # Overlaps and orders change neither fan-in nor cost: many options are one here.
    layers = {before: frozenset(_layers(alphabet, before)) for before in _OTHER}
    fewest: int | None = None
    # By what stands before, whether a spatial layer does, and the product of the fan-ins.
    states = {(_NONE, False, 1): 0}
    for _ in range(setting.max_len):
        longer: dict[tuple[int, bool, int], int] = {}
        for (before, spatial, product), params in states.items():
            for after, is_spatial, fan_in, more in layers[before]:
                if spatial and is_spatial:
                    continue
                state = (after, spatial or is_spatial, min(width, product * fan_in))
                longer[state] = min(params + more, longer.get(state, params + more))
        states = longer
        full = [
            params
            for (before, spatial, product), params in states.items()
            if spatial and product == width and before in (_SINGLE, _CLOSED)[bottleneck:]
        ]
        fewest = min([*full, *([] if fewest is None else [fewest])], default=None)
    return fewest


def _layers(alphabet: Alphabet, before: int) -> Iterator[tuple[int, bool, int, int]]:
    """Yield the layers that can come next: what then stands before, spatial, fan-in, parameters.

    The fan-in is the product over all copies of the block.
    """
    setting, tracks = alphabet.setting, alphabet.tracks
    first, later = (role_widths(tracks.all[track]) for track in tracks.decides)
    for kind in setting.usable_kinds:
        conv = find_kind(kind)
        roles = _MIXING.get(before, ()) if conv.mixing else ((_OTHER[before], before),)
        for role, after in roles:
            for option in alphabet.letters[alphabet.letter(kind, role, False)].options:
                fan_in, others = (
                    conv.fan_in_at(widths[role][0], option.layer.groups or 1)
                    for widths in (first, later)
                )
                fan_in *= others ** (setting.repeats - 1)
                yield after, conv.spatial, fan_in, alphabet.measures(option.cost)[0]


def _most_params(setting: EnumerationSetting) -> int:
    """Return the parameters of the widest chain of dense layers, one of them spatial."""
    spatial, pointwise = reference_kind(), dense_pointwise_kind()
    chains = [[spatial, pointwise], [pointwise, spatial]]
    if setting.bottleneck is not None:
        chains.append([pointwise, spatial, pointwise])
    c, f, inner = setting.channels, setting.out_width, setting.inner_width
    copies = [(c, f), *[(f, f)] * (setting.repeats - 1)]
    return max(
        sum(
            conv.params_at(*pair, 1, setting.kernel, setting.dims)
            for widths in copies
            for conv, pair in zip(
                chain, place_widths([True] * len(chain), *widths, inner), strict=True
            )
        )
        for chain in chains
    )
