"""Whether compiled loops run here: LLVM is loaded, and the loops compiled, when first needed."""

import os
import warnings
from functools import cache
from threading import Thread
from types import ModuleType

from ifspace.errors import IfspaceError

# Whether this process is the forked child of one that had imported ifspace.
is_forked = False


def _note_fork() -> None:
    global is_forked
    is_forked = True


if hasattr(os, "register_at_fork"):  # here, because the loops may be first needed in the child
    os.register_at_fork(after_in_child=_note_fork)


@cache
def fault() -> str | None:
    """Return why LLVM or the compiled loops do not work, in one line; None if they do.

    They are tried in a thread of its own, where the caller's modes, transforms and default device
    are not: the answer holds for the whole process.
    """
    reasons: list[str | None] = []
    thread = Thread(target=lambda: reasons.append(_fault_here()))
    try:
        thread.start()
    except RuntimeError:  # no more threads, or the interpreter ends
        return _fault_here()
    thread.join()
    return reasons[0]


def absence() -> str:
    """Return why torch computes a layer that the compiled loops cannot, for an explanation."""
    reason = fault()
    if reason is None:
        return "the compiled loops do not compute it"
    return f"LLVM does not work here ({reason})"


def _fault_here() -> str | None:
    try:
        from ifspace.kernels.chain import layer

        layer.check()
    except Exception as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


@cache
def layers() -> ModuleType | None:
    """Return the module of compiled layers; None, with one warning, where LLVM does not work."""
    if (reason := fault()) is not None:
        note = IfspaceError.because(
            "thin layers run by torch's operators, slower than compiled",
            got=f"LLVM does not work here ({reason})",
            allowed="llvmlite 0.45 or newer",
            remedy="reinstall llvmlite",
        )
        warnings.warn(str(note), stacklevel=2)
        return None
    from ifspace.kernels.chain import layer

    return layer
