"""Problems and what can be said of an answer without a solver: settings, descriptions of blocks."""

from ifspace.plan.describe import (
    BlockDescription,
    LayerDescription,
    SeenBy,
    describe,
    who_sees_whom,
)
from ifspace.plan.legal import MAX_WIDTH, kinds_without_choice, listed
from ifspace.plan.setting import (
    DEFAULT_OVERLAPS,
    EnumerationSetting,
    standard_block,
)
from ifspace.plan.table import KindDescription, describe_kinds

__all__ = [
    "DEFAULT_OVERLAPS",
    "MAX_WIDTH",
    "BlockDescription",
    "EnumerationSetting",
    "KindDescription",
    "LayerDescription",
    "SeenBy",
    "describe",
    "describe_kinds",
    "kinds_without_choice",
    "listed",
    "standard_block",
    "who_sees_whom",
]
