"""Names of torchvision's compiled operators, where its build cannot load beside this torch.

`import torchvision` fails without them. Its networks call none of them: to define the names is
enough. Nothing happens until torchvision is looked for, so tests without it need no torch.
"""

import importlib.util
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing: it only sees when torchvision is looked for the first time."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare()
        return None


def prepare() -> None:
    """See to it that the operators are there when torchvision is imported."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())


@cache  # What it returns has to live: the names go with it.
def declare() -> object:
    """Define the operators, unless torchvision is not installed or brings its own."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    import torch

    folder = Path(spec.origin).parent
    try:
        for compiled in folder.glob("_C*.so"):
            torch.ops.load_library(compiled)
            return None
    except OSError:
        pass  # a build for another torch, or for CUDA without it
    text = "".join(path.read_text() for path in folder.glob("_*_registrations.py"))
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(set(re.findall(r"torchvision::(\w+)", text))):
        library.define(f"{name}(Tensor x) -> Tensor")
    return library
