"""A block is a word over six kinds; everything said about it is derived from that word.

KINDS -> Block -> information field -> search and rules -> Catalogue. Names are imported when they
are first used, so that `import ifspace` costs nothing:

>>> import ifspace
>>> ifspace.describe("DW+PW", channels=64).params
4672
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifspace.block import Block, Composition, Layer
    from ifspace.catalogue import Catalogue, Design, Funnel, best, load, save
    from ifspace.enumerate.search import enumerate_designs
    from ifspace.errors import IfspaceError
    from ifspace.infofield import coverage_expr, full_field_condition, gain
    from ifspace.kinds import ALPHABET, KINDS, ConvKind
    from ifspace.plan import BlockDescription, EnumerationSetting, describe
    from ifspace.reach import Reference, channel_field

__all__ = [
    "ALPHABET",
    "KINDS",
    "Block",
    "BlockDescription",
    "Catalogue",
    "Composition",
    "ConvKind",
    "Design",
    "EnumerationSetting",
    "Funnel",
    "IfspaceError",
    "Layer",
    "Reference",
    "best",
    "channel_field",
    "coverage_expr",
    "describe",
    "enumerate_designs",
    "full_field_condition",
    "gain",
    "load",
    "save",
]

_HOMES = {
    "block": "Block Composition Layer",
    "catalogue": "Catalogue Design Funnel best load save",
    "enumerate.search": "enumerate_designs",
    "errors": "IfspaceError",
    "infofield": "coverage_expr full_field_condition gain",
    "kinds": "ALPHABET KINDS ConvKind",
    "plan": "BlockDescription EnumerationSetting describe",
    "reach": "Reference channel_field",
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names.split():
            return getattr(import_module(f"ifspace.{home}"), name)
    raise AttributeError(f"module 'ifspace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
