"""Whether compiled loops run here: numba is imported, and the loops compiled, when first needed."""

import warnings
from functools import cache
from types import ModuleType

from ifspace.errors import IfspaceError


@cache
def fault() -> str | None:
    """Return why numba or the compiled loops do not work, in one line; None if they do."""
    try:
        from ifspace.kernels.chain import layer

        layer.check()
    except Exception as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


@cache
def layers() -> ModuleType | None:
    """Return the module of compiled layers; None, with one warning, where numba does not work."""
    if (reason := fault()) is not None:
        note = IfspaceError.because(
            "thin layers run by torch's operators, slower than compiled",
            got=f"numba does not work here ({reason})",
            allowed="numba 0.62 or newer",
            remedy="reinstall numba",
        )
        warnings.warn(str(note), stacklevel=2)
        return None
    from ifspace.kernels.chain import layer

    return layer
