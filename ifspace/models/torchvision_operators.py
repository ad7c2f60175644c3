"""Names of torchvision's compiled operators, where its build cannot load beside this torch.

A CPU torch beside a build of torchvision for CUDA is such a pair: `import torchvision` fails
without the operators. They serve detection; its networks for images call none of them, so to define
the names is enough.
"""

import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

NOTE: Final = (
    "this build of torchvision does not fit this torch: its compiled operators, such as nms, have "
    "names only, which networks for images do not call"
)


@cache  # What it returns has to live: the names go with it.
def declare() -> object | None:
    """Define the operators, unless torchvision is not installed or brings its own."""
    for finder in [x for x in sys.meta_path if isinstance(x, _BeforeTorchvision)]:
        sys.meta_path.remove(finder)  # it would define them again, while they are looked for
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    import torch  # late, so that `declare_when_imported` costs nothing

    # torch leaves these two without annotations.
    operators: Any = torch.ops
    library_of: Any = torch.library.Library
    try:
        for compiled in folder.glob("_C*.so"):
            operators.load_library(compiled)
            return None
    except OSError:
        pass  # a build for another torch, or for CUDA without it
    code = "".join(path.read_text() for path in folder.glob("_*_registrations.py"))
    library = library_of("torchvision", "DEF")
    for name in sorted(set(re.findall(r"torchvision::(\w+)", code))):
        library.define(f"{name}(Tensor x) -> Tensor")
    named: object = library
    return named


class _BeforeTorchvision(MetaPathFinder):
    """Find nothing: it only sees when torchvision is looked for the first time."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)  # first: `declare` looks for it too
            declare()
        return None


def declare_when_imported() -> None:
    """Define the operators as soon as anybody imports torchvision, as timm does."""
    waits = any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path)
    if "torchvision" not in sys.modules and not waits:
        sys.meta_path.insert(0, _BeforeTorchvision())
