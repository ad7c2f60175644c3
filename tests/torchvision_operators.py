"""Tests that import torchvision themselves do so as the product does.

Nothing happens until torchvision is looked for, so tests without it need no torch.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing: it only sees when torchvision is looked for the first time."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            from ifspace.models.torchvision_operators import declare

            declare()
        return None


def prepare() -> None:
    """See to it that the operators are there when torchvision is imported."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())
