"""The blocks that papers name, against the rule of a setting: which do not survive, and why.

A paper may name a block with more copies than the setting asks for: it is decided with its own.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from ifspace.block import Composition
from ifspace.catalogue.design import PUBLISHED, Published
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.alphabet import Alphabet
from ifspace.enumerate.compositions import is_dropped
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch, FreeAlgebra
from ifspace.floors import NO_FLOORS

# The step of the rule at which every choice of a composition is lost.
Failure = Literal["widths", "groups", "patterns", "quality", "compact", "early-stop"]


def named_in(setting: EnumerationSetting) -> tuple[Published, ...]:
    """Return the published blocks that the setting could have: by kinds, length and permutation.

    >>> [entry.name for entry in named_in(EnumerationSetting(kinds=("DW", "RPW")))]
    ['3DRF 4.2']
    """

    def fits(entry: Published) -> bool:
        kinds = Composition.parse(entry.composition).kinds
        return (
            len(kinds) <= setting.max_len
            and set(kinds) <= set(setting.kinds)
            and (setting.permutation == "free" or not entry.free_permutation)
            and (setting.bottleneck is not None or not entry.bottleneck)
        )

    return tuple(filter(fits, PUBLISHED))


@lru_cache(maxsize=512)
def failure(entry: Published, setting: EnumerationSetting) -> Failure | None:
    """Return where a published block fails at the widths and the rule of a setting, or None.

    It is decided with the number of copies that the paper has.

    >>> (clcnet,) = [entry for entry in PUBLISHED if entry.name == "clcNet"]
    >>> [failure(clcnet, EnumerationSetting(channels=channels)) for channels in (12, 13, 16)]
    [None, 'groups', 'compact']
    """
    kinds = Composition.parse(entry.composition).kinds
    setting = replace(setting, repeats=entry.repeats, max_len=len(kinds), front=False)
    if is_dropped(kinds, setting.patterns):
        return "patterns"
    alphabet = Alphabet(setting)
    layers = alphabet.all_letters(kinds)
    letters = alphabet.channel_letters(kinds)
    if layers is None or letters is None:
        return "widths"
    if not all(alphabet.letters[index].options for index in layers):
        return "groups"
    free = setting.permutation == "free"
    search = ForwardSearch(alphabet, FreeAlgebra(alphabet) if free else ExactAlgebra(alphabet))
    if search.cheapest([letters])[letters] is not None:
        return None
    return setting.rule if search.has_quality(letters) else "quality"


def withheld(setting: EnumerationSetting, compositions: Iterable[str]) -> frozenset[Published]:
    """Return the names that surviving compositions have elsewhere and do not deserve here.

    A block that was published twice in a row is named at one copy only where twice in a row it
    passes the rule at these widths.
    """
    survivors = set(compositions)
    # A name is a composition's: whether it deserves it has nothing to do with floors.
    setting = replace(setting, floors=NO_FLOORS)
    return frozenset(
        entry
        for entry in PUBLISHED
        if entry.composition in survivors
        and entry.repeats != setting.repeats
        and failure(entry, setting) is not None
    )


def notes_on_named(setting: EnumerationSetting) -> tuple[str, ...]:
    """Return one sentence for each step of the rule at which blocks that papers name are lost.

    >>> for note in notes_on_named(EnumerationSetting(channels=16)):
    ...     print(note)
    without the full field at 16 channels: DW+SH+GPW (3DRF 4.2)
    not compact at 16 channels: (GC+SH+GPW)x2 (clcNet), (GPW+SH+DW+GPW)x2 (ShuffleNet)
    """
    lost: dict[Failure, dict[str, list[str]]] = {}
    for entry in named_in(setting):
        step = failure(entry, setting)
        if step is not None:
            block = str(Composition(Composition.parse(entry.composition).kinds, entry.repeats))
            lost.setdefault(step, {}).setdefault(block, []).append(entry.name)
    where = f"at {setting.widths_text}{setting.within_floors}"
    reading = "" if setting.compact == "single" else f" (--compact {setting.compact})"
    facts: dict[Failure, str] = {
        "widths": f"too few channel-mixing layers for {setting.widths_text}",
        "groups": f"without legal group counts {where}",
        "patterns": f"repeated patterns (--patterns {setting.patterns})",
        "quality": f"without the full field {where}",
        "compact": f"not compact {where}{reading}",
        "early-stop": f"stopped early {where}",
    }
    return tuple(
        f"{fact}: "
        + ", ".join(f"{block} ({', '.join(names)})" for block, names in lost[step].items())
        for step, fact in facts.items()
        if step in lost
    )
